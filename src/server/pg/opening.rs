//! From a connection to a session: TLS, login, parameters.
//!
//! A password travels over TLS only. Where users have passwords and the connection has no TLS, the
//! client is turned away before it is asked for one, unless the operator said `--insecure`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::response::{ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::{
    Authentication as Challenge, BackendKeyData, NegotiateProtocolVersion, ParameterStatus,
    SecretKey,
};
use sql::Session;
use sql::pg::parameters::REPORTED;
use sql::session::{Origin, SessionOptions};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::State;
use super::input::{self, Input, Message, Opening, STRANGER_BYTES_MAX};
use super::keys::Key;
use super::output::Output;
use super::problem::{Problem, Stop};
use crate::auth::oidc::Oidc;
use crate::auth::{Bearer, Login, Proof, record};

/// A client's stream, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Either half of it, with buffers.
pub type Reading = Input<ReadHalf<Box<dyn Stream>>>;
/// The other half.
pub type Writing = Output<WriteHalf<Box<dyn Stream>>>;

/// The protocol's name in a TLS handshake without a request before it.
pub const PROTOCOL: &[u8] = b"postgresql";
/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;
/// Requests for encryption before a session is opened.
const REQUESTS_MAX: usize = 3;

/// A client that is logged in.
pub struct Opened {
    /// What it sends.
    pub input: Reading,
    /// What it is sent.
    pub output: Writing,
    /// Its session.
    pub session: Session,
    /// What its login rests on.
    pub proof: Proof,
    /// The key to cancel its statements.
    pub key: Key,
}

/// Reads what a client sends first and opens its session; `None` when there is nothing more to do.
pub async fn open(state: &Arc<State>, stream: TcpStream) -> Option<Opened> {
    let peer = stream.peer_addr().ok();
    let mut shield = Shield::None;
    let mut first = [0u8; 1];
    stream.peek(&mut first).await.ok()?;
    let mut stream: Box<dyn Stream> = match (first[0], &state.tls) {
        (HANDSHAKE, Some(tls)) => {
            let stream = TlsAcceptor::from(Arc::clone(tls)).accept(stream).await.ok()?;
            // Without the protocol's name, the bytes could be meant for another server.
            if stream.get_ref().1.alpn_protocol() != Some(PROTOCOL) {
                return None;
            }
            shield = Shield::of(&stream);
            Box::new(stream)
        }
        _ => Box::new(stream),
    };
    for _ in 0..REQUESTS_MAX {
        match input::opening(&mut stream).await {
            Ok(Opening::Tls) => match (&state.tls, &shield) {
                (Some(tls), Shield::None) => {
                    stream.write_all(b"S").await.ok()?;
                    let acceptor = TlsAcceptor::from(Arc::clone(tls));
                    let secured = acceptor.accept(stream).await.ok()?;
                    shield = Shield::of(&secured);
                    stream = Box::new(secured);
                }
                _ => stream.write_all(b"N").await.ok()?,
            },
            Ok(Opening::Gss) => stream.write_all(b"N").await.ok()?,
            Ok(Opening::Cancel { process_id, key }) => {
                let found = state.keys.cancel(process_id, &key);
                tracing::debug!(process_id, found, "a request to cancel");
                return None;
            }
            Ok(Opening::Session { version, parameters }) => {
                let (reading, writing) = split(stream);
                let (input, output) = (Input::new(reading), Output::new(writing));
                let mut opening = Newcomer { state, shield, peer, input, output };
                return match opening.run(version, parameters).await {
                    Ok((session, proof, key)) => {
                        let Newcomer { input, output, .. } = opening;
                        Some(Opened { input, output, session, proof, key })
                    }
                    Err(Stop::Problem(problem)) => {
                        let _ = opening.output.add(&problem.fatal().response());
                        opening.output.close().await;
                        None
                    }
                    Err(Stop::Gone) => None,
                };
            }
            // What is no opening gets no answer.
            Err(_) => return None,
        }
    }
    None
}

/// What protects a connection.
#[derive(Debug)]
enum Shield {
    None,
    /// TLS, and the client's certificate when it showed one.
    Tls(Option<Vec<u8>>),
}

impl Shield {
    fn of<S>(stream: &TlsStream<S>) -> Self {
        let certificates = stream.get_ref().1.peer_certificates();
        Self::Tls(certificates.and_then(|chain| chain.first()).map(|first| first.to_vec()))
    }
}

/// A client that is logging in.
struct Newcomer<'a> {
    state: &'a Arc<State>,
    shield: Shield,
    peer: Option<SocketAddr>,
    input: Reading,
    output: Writing,
}

impl Newcomer<'_> {
    async fn run(
        &mut self,
        version: (u16, u16),
        mut parameters: BTreeMap<String, String>,
    ) -> Result<(Session, Proof, Key), Stop> {
        let minor = self.version(version, &parameters)?;
        if parameters.contains_key("replication") {
            return Err(Problem::new("0A000", "replication is not supported").into());
        }
        let user = parameters.remove("user").unwrap_or_default();
        let database = parameters.remove("database").unwrap_or_else(|| user.clone());
        let login = self.login(&user).await?;
        let client = parameters.get("application_name").map(String::as_str);
        let address = self.peer.map(|peer| peer.to_string());
        let session = SessionOptions {
            origin: Origin::new(client, address),
            delegated: login.delegated,
            ..SessionOptions::default()
        };
        let session = self.state.engine.session_with(login.principal.clone(), session);
        let known = [session.catalog_name(), session.principal().name.as_str(), user.as_str()];
        if !known.contains(&database.as_str()) {
            let what = format!("database \"{database}\" does not exist");
            let hint = format!("the one database is {}", session.catalog_name());
            return Err(Problem::new("3D000", what).hint(hint).into());
        }
        let key = self.state.keys.issue(minor >= 2).map_err(|error| Problem::internal(&error))?;
        session.speak_postgres(key.process_id);
        if let Some(purpose) = &login.purpose {
            session.set("purpose", purpose).await?;
        }
        for (name, value) in settings(parameters)? {
            session.set_parameter(&name, Some(&value)).await?;
        }
        record::opened(&session, &login);
        self.welcome(&session, &key)?;
        self.output.flush().await?;
        let secure = matches!(self.shield, Shield::Tls(_));
        tracing::info!(session = session.id(), origin = ?session.origin(), secure, "PostgreSQL");
        Ok((session, login.proof, key))
    }

    /// The protocol's minor version to speak; the client is told when it asked for a newer one or
    /// for an extension.
    fn version(
        &mut self,
        (major, minor): (u16, u16),
        parameters: &BTreeMap<String, String>,
    ) -> Result<u16, Stop> {
        if major != 3 {
            let what = format!("protocol version {major}.{minor} is not supported");
            return Err(Problem::new("0A000", what).hint("use a client of protocol 3").into());
        }
        let spoken = if minor >= 2 { 2 } else { 0 };
        let extensions: Vec<String> =
            parameters.keys().filter(|name| name.starts_with("_pq_.")).cloned().collect();
        if minor != spoken || !extensions.is_empty() {
            let newest = (3 << 16) | i32::from(spoken);
            let told = NegotiateProtocolVersion::new(newest, extensions);
            self.output.add(&Backend::NegotiateProtocolVersion(told))?;
        }
        Ok(spoken)
    }

    async fn login(&mut self, user: &str) -> Result<Login, Stop> {
        let authenticator = &self.state.authenticator;
        let anybody = authenticator.anybody().await;
        if let Some(anybody) = anybody.map_err(|refusal| Problem::refused(&refusal, user))? {
            return Ok(anybody);
        }
        match &self.shield {
            Shield::None if !self.state.options.insecure => {
                let what = "passwords are accepted over TLS only";
                return Err(Problem::new("28000", what)
                    .hint("connect with sslmode=require")
                    .into());
            }
            // A certificate that stands for this user is enough.
            Shield::Tls(Some(certificate)) => match authenticator.certificate(certificate).await {
                Ok(login) if login.principal.name == user => return Ok(login),
                _ => {}
            },
            _ => {}
        }
        self.output.add(&Backend::Authentication(Challenge::CleartextPassword))?;
        self.output.flush().await?;
        let Message::Password(password) = self.input.message(STRANGER_BYTES_MAX).await? else {
            return Err(Problem::new("08P01", "a password was expected").into());
        };
        // The identity provider's token in place of a password, for the user that it names.
        if Oidc::is_meant(&password)
            && let Ok(Bearer::Provider(login)) = authenticator.bearer(&password).await
            && login.principal.name == user
        {
            return Ok(login);
        }
        let peer = self.peer.map(|peer| peer.ip());
        let outcome = authenticator.login(user, password, peer).await;
        outcome.map_err(|refusal| Problem::refused(&refusal, user).into())
    }

    fn welcome(&mut self, session: &Session, key: &Key) -> Result<(), Stop> {
        self.output.add(&Backend::Authentication(Challenge::Ok))?;
        for name in REPORTED {
            let value = session.parameter(name).unwrap_or_default();
            self.output.add(&reported(name, value))?;
        }
        let secret = match <[u8; 4]>::try_from(key.secret.as_ref()) {
            Ok(short) => SecretKey::I32(i32::from_be_bytes(short)),
            Err(_) => SecretKey::Bytes(Bytes::clone(&key.secret)),
        };
        self.output.add(&Backend::BackendKeyData(BackendKeyData::new(key.process_id, secret)))?;
        self.output.add(&Backend::ReadyForQuery(ReadyForQuery::new(TransactionStatus::Idle)))
    }
}

/// A parameter's value, for the client.
pub fn reported(name: &str, value: String) -> Backend {
    Backend::ParameterStatus(ParameterStatus::new(name.to_owned(), value))
}

/// The parameters that a session starts with: those of its opening, and those in `options`, which
/// looks like a command line.
fn settings(parameters: BTreeMap<String, String>) -> Result<Vec<(String, String)>, Problem> {
    let mut found = Vec::new();
    for (name, value) in parameters {
        match name.as_str() {
            "options" => found.extend(options(&value)?),
            name if name.starts_with("_pq_.") => {}
            _ => found.push((name, value)),
        }
    }
    Ok(found)
}

/// `-c name=value`, `-cname=value` and `--name=value`; a backslash keeps a blank.
fn options(text: &str) -> Result<Vec<(String, String)>, Problem> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => word.extend(characters.next()),
            blank if blank.is_whitespace() => words.push(std::mem::take(&mut word)),
            other => word.push(other),
        }
    }
    words.push(word);
    let mut found = Vec::new();
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let pair = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(pair), _) => pair.to_owned(),
            (None, Some("")) => words.next().unwrap_or_default(),
            (None, Some(pair)) => pair.to_owned(),
            (None, None) => word.clone(),
        };
        match pair.split_once('=') {
            Some((name, value)) => found.push((name.to_owned(), value.to_owned())),
            None => {
                let what = format!("option {word} is not known");
                return Err(Problem::new("22023", what).hint("write -c name=value"));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_look_like_a_command_line() {
        let read = options("-c search_path=lake -cDateStyle=ISO --application_name=a\\ b").unwrap();
        let read: Vec<(&str, &str)> =
            read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [("search_path", "lake"), ("DateStyle", "ISO"), ("application_name", "a b")];
        assert_eq!(read, expected);
        assert!(options("-x").is_err() && options("-c").is_err());
    }
}
