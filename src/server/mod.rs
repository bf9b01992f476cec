//! Listening: the servers, and how the process starts and stops them.

use std::future::Future;

use sql::Engine;

use self::flight::FlightOptions;
use crate::error::Result;

pub mod flight;
pub mod tls;

/// What a serving process listens with.
#[derive(Clone)]
pub struct ServeOptions {
    /// The Flight SQL server.
    pub flight: FlightOptions,
}

/// Serves until the process is asked to stop (SIGTERM or Ctrl-C), then drains; asked a second time,
/// it ends running statements at once.
///
/// # Errors
/// An address that cannot be used; see [`flight::bind`].
pub async fn serve(engine: Engine, options: ServeOptions) -> Result<()> {
    let server = flight::bind(engine, options.flight).await?;
    tracing::info!(address = %server.local_addr(), "Flight SQL listens");
    let (first, second) = stop_signals();
    server.run(first, second).await
}

/// Two futures: the first and the second time that the process is asked to stop.
pub fn stop_signals() -> (impl Future<Output = ()> + Send, impl Future<Output = ()> + Send) {
    let (asked, mut times) = tokio::sync::watch::channel(0u8);
    let mut again = asked.subscribe();
    tokio::spawn(async move {
        for time in 1..=2u8 {
            asked_to_stop().await;
            asked.send_replace(time);
        }
    });
    let first = async move {
        // An error means that nobody will ever ask.
        if times.wait_for(|time| *time >= 1).await.is_err() {
            std::future::pending().await
        }
    };
    let second = async move {
        if again.wait_for(|time| *time >= 2).await.is_err() {
            std::future::pending().await
        }
    };
    (first, second)
}

async fn asked_to_stop() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let terminate = async {
            match signal(SignalKind::terminate()) {
                Ok(mut terminate) => {
                    terminate.recv().await;
                }
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt => {}
            () = terminate => {}
        }
    }
    #[cfg(not(unix))]
    {
        let _ = interrupt.await;
    }
}
