//! A server with three users, and a client that speaks the protocol's bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use attune::server::flight::Authentication;
use attune::server::pg::{self, PgOptions};
use attune::server::tls::Tls;
use catalog::policy::Role;
use rustls::pki_types::ServerName;
use sql::{Engine, Limits};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// A running server; it ends when this is dropped.
pub struct TestServer {
    pub address: SocketAddr,
    pub engine: Engine,
    pub shutdown: CancellationToken,
    pub force: CancellationToken,
    _warehouse: tempfile::TempDir,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.force.cancel();
    }
}

pub fn options() -> PgOptions {
    let mut options = PgOptions::at("127.0.0.1:0".parse().unwrap());
    options.drain = Duration::from_millis(200);
    options
}

/// There are no users: anybody may connect, as the embedded principal.
pub async fn start_open() -> TestServer {
    start_with(PgOptions { authentication: Authentication::None, ..options() }).await
}

/// Users log in, over TLS.
pub async fn start() -> TestServer {
    let (tls, _folder) = certificate();
    start_with(PgOptions { tls: Some(tls), ..options() }).await
}

pub async fn start_with(options: PgOptions) -> TestServer {
    start_in(options, Limits::default()).await
}

/// A server whose statements have these limits.
pub async fn start_in(options: PgOptions, limits: Limits) -> TestServer {
    let warehouse = tempfile::tempdir().unwrap();
    let engine = without_users(warehouse.path(), limits).await;
    if options.authentication == Authentication::Users {
        add_users(&engine).await;
    }
    let server = pg::bind(engine.clone(), options).await.unwrap();
    let address = server.local_addr();
    let (shutdown, force) = (CancellationToken::new(), CancellationToken::new());
    let asked = shutdown.clone().cancelled_owned();
    tokio::spawn(server.run(asked, force.clone().cancelled_owned()));
    TestServer { address, engine, shutdown, force, _warehouse: warehouse }
}

async fn without_users(folder: &std::path::Path, limits: Limits) -> Engine {
    crate::flight::support::engine(folder, &Arc::default(), limits).await
}

/// An engine with the users root, ada and bob.
pub async fn engine(folder: &std::path::Path) -> Engine {
    let engine = without_users(folder, Limits::default()).await;
    add_users(&engine).await;
    engine
}

/// Each has its name and `-secret` as the password.
async fn add_users(engine: &Engine) {
    for (name, role) in [("root", Role::Admin), ("ada", Role::Analyst), ("bob", Role::Analyst)] {
        let user = crate::flight::support::user(name, role, &format!("{name}-secret"));
        engine.catalog().put_user(user, false).await.unwrap();
    }
}

/// A certificate of its own, and the folder of its files.
pub fn certificate() -> (Arc<Tls>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = crate::flight::certificate(folder.path(), "localhost");
    (Arc::new(Tls::read(files).unwrap()), folder)
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A client.
pub struct Client {
    stream: Box<dyn Stream>,
    pub parameters: BTreeMap<String, String>,
    pub key: (i32, Vec<u8>),
    /// The letter of the last ReadyForQuery.
    pub status: char,
}

/// A message from the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub kind: char,
    pub body: Vec<u8>,
}

impl Reply {
    fn field(&self, key: u8) -> Option<String> {
        let mut parts = self.body.split(|byte| *byte == 0);
        let found = parts.rfind(|part| part.first() == Some(&key))?;
        Some(String::from_utf8_lossy(&found[1..]).into_owned())
    }

    /// The state of an error.
    pub fn state(&self) -> String {
        self.field(b'C').unwrap()
    }

    /// The engine's code of an error; nothing where it is the protocol's own.
    pub fn code(&self) -> String {
        self.field(b'D').unwrap_or_default()
    }

    pub fn message(&self) -> String {
        self.field(b'M').unwrap()
    }

    pub fn hint(&self) -> String {
        self.field(b'H').unwrap_or_default()
    }

    /// The values of a row.
    pub fn values(&self) -> Vec<Option<Vec<u8>>> {
        let mut rest = &self.body[2..];
        let mut values = Vec::new();
        while !rest.is_empty() {
            let length = i32::from_be_bytes(rest[..4].try_into().unwrap());
            rest = &rest[4..];
            match usize::try_from(length) {
                Ok(length) => {
                    values.push(Some(rest[..length].to_vec()));
                    rest = &rest[length..];
                }
                Err(_) => values.push(None),
            }
        }
        values
    }

    /// The values of a row in text form, NULL as a word.
    pub fn texts(&self) -> Vec<String> {
        let text = |value: Option<Vec<u8>>| match value {
            Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            None => "NULL".into(),
        };
        self.values().into_iter().map(text).collect()
    }

    pub fn tag(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len() - 1]).into_owned()
    }
}

pub fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

pub fn opening(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608u32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

async fn secured(mut stream: TcpStream) -> Box<dyn Stream> {
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'S');
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    Box::new(connector.connect(name, stream).await.unwrap())
}

impl Client {
    /// A stranger's connection, with TLS or without.
    pub async fn stranger(address: SocketAddr, tls: bool) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = if tls { secured(stream).await } else { Box::new(stream) };
        Self { stream, parameters: BTreeMap::new(), key: (0, Vec::new()), status: '?' }
    }

    /// As the embedded principal.
    pub async fn open(server: &TestServer) -> Self {
        let mut client = Self::stranger(server.address, false).await;
        client.start(&[("user", "me"), ("database", "attune")], None).await.unwrap();
        client
    }

    /// As a user, over TLS.
    pub async fn login(server: &TestServer, name: &str) -> Self {
        let mut client = Self::stranger(server.address, true).await;
        let parameters = [("user", name), ("database", "attune")];
        client.start(&parameters, Some(&format!("{name}-secret"))).await.unwrap();
        client
    }

    /// Opens a session; the error that it ends with, if any.
    pub async fn start(
        &mut self,
        parameters: &[(&str, &str)],
        password: Option<&str>,
    ) -> Result<(), Reply> {
        self.send(&opening(parameters)).await;
        loop {
            let reply = self.read().await.expect("the server closed the connection");
            match reply.kind {
                'E' => return Err(reply),
                'R' if reply.body == [0, 0, 0, 3] => {
                    let password = password.unwrap_or_default();
                    self.send(&framed(b'p', format!("{password}\0").as_bytes())).await;
                }
                'S' => {
                    let mut parts = reply.body.split(|byte| *byte == 0);
                    let mut text = || String::from_utf8_lossy(parts.next().unwrap()).into_owned();
                    let (name, value) = (text(), text());
                    self.parameters.insert(name, value);
                }
                'K' => {
                    let number = i32::from_be_bytes(reply.body[..4].try_into().unwrap());
                    self.key = (number, reply.body[4..].to_vec());
                }
                'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next message; `None` when the server has closed.
    pub async fn read(&mut self) -> Option<Reply> {
        let kind = self.stream.read_u8().await.ok()? as char;
        let length = self.stream.read_u32().await.ok()? as usize;
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).await.ok()?;
        if kind == 'Z' {
            self.status = body[0] as char;
        }
        Some(Reply { kind, body })
    }

    /// What is answered up to ReadyForQuery, or to the connection's end.
    pub async fn replies(&mut self) -> Vec<Reply> {
        let mut found = Vec::new();
        while let Some(reply) = self.read().await {
            if reply.kind == 'Z' {
                break;
            }
            found.push(reply);
        }
        found
    }

    pub async fn query(&mut self, text: &str) -> Vec<Reply> {
        self.send(&framed(b'Q', format!("{text}\0").as_bytes())).await;
        self.replies().await
    }

    /// The rows of a query, each in one line.
    pub async fn rows(&mut self, text: &str) -> Vec<String> {
        let replies = self.query(text).await;
        if let Some(error) = replies.iter().find(|reply| reply.kind == 'E') {
            panic!("{text}\n{}: {}\n{}", error.state(), error.message(), error.hint());
        }
        let rows = replies.iter().filter(|reply| reply.kind == 'D');
        rows.map(|row| row.texts().join("|")).collect()
    }

    /// The error with which a query ends.
    pub async fn failure(&mut self, text: &str) -> Reply {
        let replies = self.query(text).await;
        let error = replies.into_iter().find(|reply| reply.kind == 'E');
        error.unwrap_or_else(|| panic!("no error: {text}"))
    }

    /// The tag with which a query ends.
    pub async fn tag(&mut self, text: &str) -> String {
        let replies = self.query(text).await;
        let done = replies.iter().rfind(|reply| reply.kind == 'C');
        done.unwrap_or_else(|| panic!("{text}: {replies:?}")).tag()
    }
}

/// Parse, bind, describe, execute: a statement with values, in messages of their own.
pub fn extended(
    text: &str,
    types: &[u32],
    values: &[Option<&[u8]>],
    binary: bool,
    rows_max: u32,
) -> Vec<u8> {
    let mut parse = format!("\0{text}\0").into_bytes();
    parse.extend((types.len() as u16).to_be_bytes());
    parse.extend(types.iter().flat_map(|oid| oid.to_be_bytes()));
    let mut bind = b"\0\0".to_vec();
    bind.extend([0, 1, 0, u8::from(binary)]);
    bind.extend((values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            Some(bytes) => {
                bind.extend((bytes.len() as i32).to_be_bytes());
                bind.extend_from_slice(bytes);
            }
            None => bind.extend((-1i32).to_be_bytes()),
        }
    }
    bind.extend([0, 1, 0, u8::from(binary)]);
    let execute = [&b"\0"[..], &rows_max.to_be_bytes()].concat();
    [framed(b'P', &parse), framed(b'B', &bind), framed(b'D', b"P\0"), framed(b'E', &execute)]
        .concat()
}

pub fn sync() -> Vec<u8> {
    framed(b'S', b"")
}

/// The kinds of messages, as a word.
pub fn kinds(replies: &[Reply]) -> String {
    replies.iter().map(|reply| reply.kind).collect()
}
