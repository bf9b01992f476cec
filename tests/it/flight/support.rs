//! A server with three users over a warehouse of its own, and a client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{Any, ProstMessageExt};
use arrow_flight::{Action, FlightDescriptor, FlightInfo, HandshakeRequest, Ticket};
use attune::auth::hasher::Argon2Hasher;
use attune::auth::passwords::hash_password;
use attune::server::flight::{Authentication, BoundServer, FlightOptions, bind};
use attune::server::tls::TlsFiles;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use catalog::policy::{Grant, Grantee, Privilege, Role, Securable, grant};
use catalog::{Catalog, CatalogConfig, CreateMode, Purpose, StoreConfig, UserRecord};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use sql::{Engine, Limits};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// The server's clock when it starts.
pub const NOW_MS: i64 = 1_700_000_000_000;

pub type Client = FlightSqlServiceClient<Channel>;

/// A running server; it ends when this is dropped.
pub struct TestServer {
    pub address: SocketAddr,
    pub engine: Engine,
    /// Milliseconds by which the server's clock is ahead of the test's.
    pub ahead_ms: Arc<AtomicI64>,
    pub shutdown: CancellationToken,
    pub ended: tokio::task::JoinHandle<attune::error::Result<()>>,
    warehouse: Arc<tempfile::TempDir>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub fn options() -> FlightOptions {
    let mut options = FlightOptions::at("127.0.0.1:0".parse().unwrap());
    options.drain = Duration::from_millis(100);
    options
}

pub async fn start() -> TestServer {
    start_with(options()).await
}

/// There are no users: anybody may connect, as the embedded principal.
pub async fn start_open() -> TestServer {
    start_with(FlightOptions { authentication: Authentication::None, ..options() }).await
}

/// A server whose statements have these limits.
pub async fn start_limited(limits: Limits) -> TestServer {
    start_in(options(), limits).await
}

pub async fn start_with(options: FlightOptions) -> TestServer {
    start_in(options, Limits::default()).await
}

async fn start_in(options: FlightOptions, limits: Limits) -> TestServer {
    let warehouse = Arc::new(tempfile::tempdir().unwrap());
    let ahead_ms = Arc::new(AtomicI64::new(0));
    let engine = engine(warehouse.path(), &ahead_ms, limits).await;
    let users = [("root", Role::Admin), ("ada", Role::Analyst), ("bob", Role::Analyst)];
    for (name, role) in
        users.into_iter().filter(|_| options.authentication == Authentication::Users)
    {
        let user = user(name, role, &format!("{name}-secret"));
        engine.catalog().put_user(user, false).await.unwrap();
    }
    everybodys_purpose(&engine).await;
    serve(engine, options, warehouse, ahead_ms).await
}

/// A purpose that everybody holds: `research`.
async fn everybodys_purpose(engine: &Engine) {
    let (name, by) = (String::from("research"), String::from("root"));
    let (catalog, at_ms) = (engine.catalog(), NOW_MS);
    let purpose = Purpose {
        name: name.clone(),
        description: None,
        sells_or_shares: false,
        owner: by.clone(),
        created_ms: at_ms,
    };
    catalog.create_purpose(purpose, CreateMode::New).await.unwrap();
    let (privilege, on) = (Privilege::Usage, Securable::Purpose(name));
    let held = Grant { privilege, on, columns: None, by, at_ms };
    let give = |all: &mut Vec<Grant>| grant::add(all, held);
    catalog.change_grants(&Grantee::Public, "root", give).await.unwrap();
}

async fn serve(
    engine: Engine,
    options: FlightOptions,
    warehouse: Arc<tempfile::TempDir>,
    ahead_ms: Arc<AtomicI64>,
) -> TestServer {
    let server: BoundServer = bind(engine.clone(), options).await.unwrap();
    let address = server.local_addr();
    let shutdown = CancellationToken::new();
    let asked = shutdown.clone().cancelled_owned();
    let ended = tokio::spawn(server.run(asked, std::future::pending()));
    TestServer { address, engine, ahead_ms, shutdown, ended, warehouse }
}

pub async fn engine(folder: &std::path::Path, ahead_ms: &Arc<AtomicI64>, limits: Limits) -> Engine {
    let warehouse = StoreConfig { url: folder.display().to_string(), ..StoreConfig::default() };
    let started = Instant::now();
    let ahead_ms = Arc::clone(ahead_ms);
    let clock =
        move || NOW_MS + started.elapsed().as_millis() as i64 + ahead_ms.load(Ordering::Relaxed);
    let config = CatalogConfig::new(warehouse, Arc::new(clock));
    let catalog = Catalog::open(config).await.unwrap();
    Engine::open(catalog, limits, Arc::new(Argon2Hasher::default())).unwrap()
}

pub fn user(name: &str, role: Role, password: &str) -> UserRecord {
    UserRecord::new(name, hash_password(password).unwrap(), [role])
}

impl TestServer {
    /// Another server over the same warehouse, with the same clock.
    pub async fn replica(&self) -> TestServer {
        let engine = engine(self.warehouse.path(), &self.ahead_ms, Limits::default()).await;
        serve(engine, options(), Arc::clone(&self.warehouse), Arc::clone(&self.ahead_ms)).await
    }

    /// The warehouse's folder.
    pub fn folder(&self) -> &std::path::Path {
        self.warehouse.path()
    }

    /// Sets the server's clock forward.
    pub fn later(&self, by: Duration) {
        self.ahead_ms.fetch_add(by.as_millis() as i64, Ordering::Relaxed);
    }

    /// A client that shows a token.
    pub async fn bearer(&self, token: &str) -> Client {
        let mut client = self.stranger().await;
        client.set_token(token.to_owned());
        client
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// A client without credentials, on a connection of its own.
    pub async fn stranger(&self) -> Client {
        Client::new(self.channel().await)
    }

    /// A client that is logged in.
    pub async fn login(&self, name: &str) -> Client {
        let mut client = self.stranger().await;
        client.handshake(name, &format!("{name}-secret")).await.unwrap();
        client
    }
}

/// Writes a certificate that signs itself, and its key, for a host; gives where, and its PEM.
pub fn certificate(folder: &std::path::Path, host: &str) -> (TlsFiles, String) {
    let signed = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
    let files = TlsFiles {
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
        ..TlsFiles::default()
    };
    std::fs::write(&files.key, signed.signing_key.serialize_pem()).unwrap();
    std::fs::write(&files.certificate, signed.cert.pem()).unwrap();
    (files, signed.cert.pem())
}

/// The status of a Handshake with a name and a password, or its token.
pub async fn handshake(channel: Channel, name: &str, password: &str) -> (Code, String) {
    let mut client = FlightServiceClient::new(channel);
    let mut request = Request::new(futures::stream::iter([HandshakeRequest::default()]));
    let pair = BASE64_STANDARD.encode(format!("{name}:{password}"));
    request.metadata_mut().insert("authorization", format!("Basic {pair}").parse().unwrap());
    match client.handshake(request).await {
        Ok(response) => {
            let header = response.metadata().get("authorization").unwrap().to_str().unwrap();
            let token = header.strip_prefix("Bearer ").unwrap().to_owned();
            let body = response.into_inner().next().await.unwrap().unwrap().payload;
            assert_eq!(body, token.as_bytes());
            (Code::Ok, token)
        }
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

/// Another client of the same session on the same connection.
pub fn twin(client: &Client) -> Client {
    let mut twin = Client::new_from_inner(client.inner().clone());
    if let Some(token) = client.token() {
        twin.set_token(token.clone());
    }
    twin
}

/// The status inside a client's error.
pub fn status(error: impl Into<arrow_flight::error::FlightError>) -> Status {
    match error.into() {
        arrow_flight::error::FlightError::Tonic(status) => *status,
        other => panic!("no status: {other}"),
    }
}

pub async fn fetch(client: &mut Client, info: &FlightInfo) -> Result<Vec<RecordBatch>, Status> {
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let stream = client.do_get(ticket).await.map_err(status)?;
    stream.try_collect().await.map_err(status)
}

/// The rows of a statement as one batch's worth of text, sorted.
pub async fn rows(client: &mut Client, text: &str) -> Vec<String> {
    let info = client.execute(text.to_owned(), None).await.unwrap();
    lines(&fetch(client, &info).await.unwrap())
}

pub fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let text = arrow::util::pretty::pretty_format_batches(batches).unwrap().to_string();
    let mut lines: Vec<String> = text
        .lines()
        .skip(3)
        .filter(|line| !line.starts_with('+'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|').map(str::trim);
            cells.collect::<Vec<_>>().join("|")
        })
        .collect();
    lines.sort();
    lines
}

/// The code and text with which a statement fails, at whichever call.
pub async fn failure(client: &mut Client, text: &str) -> (Code, String) {
    let failed = attempt(client, text).await.expect_err(text);
    (failed.code(), failed.message().to_owned())
}

/// The rows of a statement, or the status it fails with at whichever call.
pub async fn attempt(client: &mut Client, text: &str) -> Result<Vec<RecordBatch>, Status> {
    let info = client.execute(text.to_owned(), None).await.map_err(status)?;
    fetch(client, &info).await
}

pub fn descriptor(command: &impl ProstMessageExt) -> FlightDescriptor {
    FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
}

pub fn ticket(command: &impl ProstMessageExt) -> Ticket {
    Ticket { ticket: command.as_any().encode_to_vec().into() }
}

/// Runs an action and gives the bodies of its results.
pub async fn action(
    client: &mut Client,
    name: &str,
    body: impl Into<bytes::Bytes>,
) -> Result<Vec<bytes::Bytes>, Status> {
    let action = Action { r#type: name.to_owned(), body: body.into() };
    let results = client.do_action(action).await.map_err(status)?;
    results.map_ok(|result| result.body).try_collect().await
}

pub fn packed(command: &impl ProstMessageExt) -> Vec<u8> {
    command.as_any().encode_to_vec()
}

/// A Flight SQL message from the body of an action's result.
pub fn unpacked<M: ProstMessageExt>(body: &bytes::Bytes) -> M {
    Any::decode(body.clone()).unwrap().unpack().unwrap().unwrap()
}

pub fn schema(info: &FlightInfo) -> Schema {
    info.clone().try_decode_schema().unwrap()
}

/// A query of ten to the `digits` rows that costs no memory.
pub fn endless(digits: usize) -> String {
    let ten = "(VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9))";
    let joined: Vec<String> = (0..digits).map(|index| format!("{ten} AS t{index}(n)")).collect();
    format!("SELECT t0.n FROM {}", joined.join(" CROSS JOIN "))
}
