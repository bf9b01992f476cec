//! Traces: the real program beside a collector that is there, and one that is not.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;

use crate::program::{Program, Server};

/// A collector that keeps the bytes it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<u8>>>);

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tower_service::Service<Request<Body>> for Collector {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let kept = Arc::clone(&self.0);
        Box::pin(async move {
            let body = axum::body::to_bytes(axum::body::Body::new(request.into_body()), 1 << 24);
            let body = body.await.unwrap();
            kept.lock().extend_from_slice(&body);
            // An empty message, uncompressed.
            let empty = axum::body::Body::from(vec![0; 5]);
            let answer = Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", "0")
                .body(Body::new(empty));
            Ok(answer.unwrap())
        })
    }
}

impl Collector {
    async fn start(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let service = self.clone();
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await
        });
        address
    }

    fn holds(&self, text: &str) -> bool {
        let kept = self.0.lock();
        kept.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

async fn serve(folder: &Path, collector: SocketAddr) -> Server {
    let config = folder.join("attune.toml");
    let text = format!(
        "[warehouse]\nurl = \"warehouse\"\n\n[observe]\notlp_endpoint = \"http://{collector}\"\n\
         service_name = \"shop\"\n\n[log]\nformat = \"json\"\nlevel = \"warn\"\n"
    );
    std::fs::write(&config, text).unwrap();
    Program::new(&config).serve().await
}

async fn query(server: &Server, text: &str) -> Duration {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address));
    let channel = endpoint.unwrap().connect().await.unwrap();
    let mut client = arrow_flight::sql::client::FlightSqlServiceClient::new(channel);
    let started = Instant::now();
    let info = client.execute(text.to_owned(), None).await.unwrap();
    crate::flight::fetch(&mut client, &info).await.unwrap();
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_a_span_with_its_plan_and_execution() {
    let collector = Collector::default();
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), collector.start().await).await;
    query(&server, "SELECT 12345 AS traced").await;
    // What is queued is sent before the process ends.
    let stopped = tokio::task::spawn_blocking(move || server.stop());
    stopped.await.unwrap();
    for text in ["shop", "statement", "plan", "execute", "SELECT ?number:", " AS traced"] {
        assert!(collector.holds(text), "{text}");
    }
    assert!(!collector.holds("12345"), "a literal is traced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_costs_no_time() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), gone).await;
    query(&server, "SELECT 1").await;
    for _ in 0..20 {
        let took = query(&server, "SELECT 1").await;
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let started = Instant::now();
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
