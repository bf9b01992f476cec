//! HTTP: health and metrics for whoever runs the server. No data is served here.
//!
//! `/health/live` answers as long as the process does. `/health/ready` answers 200 when statements
//! can be served: the warehouse can be read and the server is not about to stop. `/metrics` is
//! Prometheus' text.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use futures::StreamExt;
use futures::stream::BoxStream;
use sql::Engine;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::observe::metrics::{MEDIA_TYPE, Metrics};
use crate::server::tls::{Tls, incoming};
use crate::server::{listen, listen_error};

/// A warehouse that does not answer for so long counts as away.
const READY_MAX: Duration = Duration::from_secs(3);

/// How the HTTP server listens.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// None for plain text.
    pub tls: Option<Arc<Tls>>,
    /// Whether metrics name tables and their expectations.
    pub name_expectations: bool,
}

/// A server that has its address and does not answer yet.
pub struct BoundServer {
    listener: TcpListener,
    local_addr: SocketAddr,
    tls: Option<Arc<Tls>>,
    router: Router,
}

struct Shared {
    engine: Engine,
    metrics: Metrics,
    draining: CancellationToken,
}

/// Takes the address. `draining` is cancelled when the server is asked to stop.
///
/// # Errors
/// An address that is taken.
pub async fn bind(
    engine: Engine,
    options: &HttpOptions,
    draining: CancellationToken,
) -> Result<BoundServer> {
    let (listener, local_addr) = listen(options.address).await?;
    let metrics = Metrics::new(engine.clone(), options.name_expectations);
    let router = router(Arc::new(Shared { engine, metrics, draining }));
    Ok(BoundServer { listener, local_addr, tls: options.tls.clone(), router })
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shared)
}

impl BoundServer {
    /// Where it listens; the port that was free when port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until `stop`.
    ///
    /// # Errors
    /// A listener that breaks.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let address = self.local_addr;
        let ended = match &self.tls {
            None => axum::serve(self.listener, self.router).with_graceful_shutdown(stop).await,
            Some(tls) => {
                let connections = incoming(self.listener, tls.server_config()?).boxed();
                let listener = TlsListener { connections, address };
                axum::serve(listener, self.router).with_graceful_shutdown(stop).await
            }
        };
        ended.map_err(|error| listen_error(address, &error))
    }
}

/// Connections whose handshakes are done.
struct TlsListener {
    connections: BoxStream<'static, std::io::Result<TlsStream<TcpStream>>>,
    address: SocketAddr,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            if let Some(Ok(stream)) = self.connections.next().await {
                let peer = stream.get_ref().0.peer_addr().unwrap_or(self.address);
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let away = |reason: String| (StatusCode::SERVICE_UNAVAILABLE, reason).into_response();
    if shared.draining.is_cancelled() {
        return away("draining\n".into());
    }
    let read = shared.engine.catalog().definitions();
    match tokio::time::timeout(READY_MAX, read).await {
        Ok(Ok(_)) => "ready\n".into_response(),
        // What the store said may name places; it goes to the log.
        Ok(Err(error)) => {
            tracing::warn!(code = error.code(), %error, "not ready");
            away(format!("the warehouse cannot be read ({})\n", error.code()))
        }
        Err(_) => away("the warehouse does not answer\n".into()),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    if tokio::time::timeout(READY_MAX, shared.metrics.refresh()).await.is_err() {
        tracing::warn!("the warehouse does not answer: metrics have what checks gave before");
    }
    match shared.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
