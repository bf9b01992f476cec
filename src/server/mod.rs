//! Listening: the servers, and how the process starts and stops them.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sql::Engine;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::flight::FlightOptions;
use self::http::HttpOptions;
use self::pg::PgOptions;
use crate::error::{Error, Result};

pub mod flight;
pub mod http;
pub mod pg;
pub mod schedule;
pub mod tls;

/// How long the last answers of HTTP may take once everything else has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a serving process listens with.
#[derive(Clone)]
pub struct ServeOptions {
    /// The Flight SQL server.
    pub flight: FlightOptions,
    /// Health and metrics; none: not at all.
    pub http: Option<HttpOptions>,
    /// PostgreSQL's protocol; none: not at all.
    pub pg: Option<PgOptions>,
    /// How often retention is applied to each table; none: by others.
    pub retain_every: Option<Duration>,
}

/// Takes an address, and tells which when port 0 was asked for.
///
/// # Errors
/// An address that is taken or not this machine's.
async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let failed = |error: std::io::Error| listen_error(address, &error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local_addr = listener.local_addr().map_err(failed)?;
    Ok((listener, local_addr))
}

/// Why nothing listens at an address.
fn listen_error(address: SocketAddr, reason: &dyn std::fmt::Display) -> Error {
    Error::Listen { address: address.to_string(), reason: reason.to_string() }
}

/// Every listener of the process; they start and stop together.
pub struct Servers {
    engine: Engine,
    flight: flight::BoundServer,
    http: Option<http::BoundServer>,
    pg: Option<pg::BoundServer>,
    retain_every: Option<Duration>,
    /// Cancelled when the process is asked to stop.
    draining: CancellationToken,
}

/// Takes every address.
///
/// # Errors
/// An address that cannot be used; see [`flight::bind`].
pub async fn bind(engine: Engine, options: ServeOptions) -> Result<Servers> {
    let draining = CancellationToken::new();
    let flight = flight::bind(engine.clone(), options.flight).await?;
    let pg = match options.pg {
        Some(pg) => {
            let authenticator = Arc::clone(flight.authenticator());
            Some(pg::bind_with(engine.clone(), pg, authenticator).await?)
        }
        None => None,
    };
    let http = match &options.http {
        Some(http) => Some(http::bind(engine.clone(), http, draining.clone()).await?),
        None => None,
    };
    let retain_every = options.retain_every;
    Ok(Servers { engine, flight, http, pg, retain_every, draining })
}

impl Servers {
    /// Where Flight SQL listens.
    pub fn flight_addr(&self) -> SocketAddr {
        self.flight.local_addr()
    }

    /// Where HTTP listens.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(http::BoundServer::local_addr)
    }

    /// Where PostgreSQL's protocol listens.
    pub fn pg_addr(&self) -> Option<SocketAddr> {
        self.pg.as_ref().map(pg::BoundServer::local_addr)
    }

    /// Serves until `stop`, then drains: no listener takes a new connection, statements that run
    /// may finish. `force` ends them at once. Health and metrics answer to the end.
    ///
    /// # Errors
    /// A listener that breaks.
    pub async fn run(
        self,
        stop: impl Future<Output = ()> + Send,
        force: impl Future<Output = ()> + Send,
    ) -> Result<()> {
        let Self { engine, flight, http, pg, retain_every, draining } = self;
        let (forced, ended) = (CancellationToken::new(), CancellationToken::new());
        let signals = async {
            stop.await;
            draining.cancel();
            force.await;
            forced.cancel();
        };
        let statements = async {
            let (asked, force) = (|| draining.clone(), || forced.clone());
            let flight = flight.run(asked().cancelled_owned(), force().cancelled_owned());
            let pg = async {
                let Some(pg) = pg else { return Ok(()) };
                pg.run(asked().cancelled_owned(), force().cancelled_owned()).await
            };
            let outcome = tokio::try_join!(flight, pg);
            ended.cancel();
            outcome.map(|_| ())
        };
        let health = async {
            let Some(http) = http else { return Ok(()) };
            let late = async {
                ended.cancelled().await;
                tokio::time::sleep(LAST_WORDS).await;
            };
            tokio::select! {
                outcome = http.run(ended.clone().cancelled_owned()) => outcome,
                // Somebody who asks and does not read cannot hold the server.
                () = late => Ok(()),
            }
        };
        let scheduled = async {
            schedule::run(&engine, retain_every, draining.clone()).await;
            std::future::pending().await
        };
        let outcome = tokio::select! {
            outcome = async { tokio::try_join!(statements, health) } => outcome.map(|_| ()),
            () = scheduled => Ok(()),
            // The signals never end on their own: after the second, nothing more is waited for.
            () = async { signals.await; std::future::pending().await } => Ok(()),
        };
        if let Err(error) = engine.catalog().audit().flush().await {
            tracing::error!(%error, "the last statements are not on record");
        }
        outcome
    }
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
