//! Who calls: from a call's headers to a session.
//!
//! `Bearer` names a session that a Handshake opened. `Basic` on any other call is checked each time
//! and gets a session for that call alone: what it sets is gone afterwards, its statement handles
//! stay. Where anybody is admitted, a call without credentials belongs to its connection's session.
//!
//! `attune-purpose` states the purpose for calls whose session has none, and
//! `attune-string-views: true` asks for view types on the wire.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sql::{Engine, Session};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::status;
use crate::auth::tokens::{TokenPolicy, Tokens};
use crate::auth::{Authenticator, Login, Stamp};

const PURPOSE: &str = "purpose";
/// The settings that a session with another purpose inherits.
const INHERITED: [&str; 5] = ["catalog", "schema", "time_zone", "string_views", "compression"];
/// The Go driver sends its credentials without padding, others with it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Longer headers are refused before they are decoded.
const CREDENTIALS_BYTES_MAX: usize = 4096;

/// A client's session.
pub struct ClientSession {
    /// The engine's side.
    pub session: Session,
    stamp: Stamp,
    lasting: bool,
}

impl ClientSession {
    fn new(engine: &Engine, login: Login, lasting: bool) -> Arc<Self> {
        Arc::new(Self { session: engine.session(login.principal), stamp: login.stamp, lasting })
    }

    /// Whether the session asks for strings as views.
    fn string_views(&self) -> bool {
        self.session.setting("string_views").as_deref() == Some("true")
    }

    /// The name that handles are bound to.
    pub fn owner(&self) -> &str {
        &self.session.principal().name
    }
}

/// One call's session and what its headers ask for.
pub struct Caller {
    /// The session that the call's statements run in.
    pub client: Arc<ClientSession>,
    /// Whether strings go as views.
    pub views: bool,
    key: Option<SessionKey>,
}

enum SessionKey {
    Token(String),
    Connection(String),
}

impl Caller {
    /// The session, for an action that changes it.
    pub fn lasting(&self) -> Result<&Arc<ClientSession>, Status> {
        if self.client.lasting { Ok(&self.client) } else { Err(status::no_session()) }
    }
}

/// The open sessions.
pub struct Sessions {
    engine: Engine,
    authenticator: Authenticator,
    tokens: Tokens<ClientSession>,
    connections: Tokens<ClientSession>,
}

impl Sessions {
    /// No session yet.
    pub fn new(engine: Engine, authenticator: Authenticator, policy: TokenPolicy) -> Self {
        Self {
            engine,
            authenticator,
            tokens: Tokens::new(policy),
            connections: Tokens::new(policy),
        }
    }

    /// Handshake: checks the credentials and opens a session; gives its token.
    pub async fn open(&self, headers: &MetadataMap) -> Result<String, Status> {
        let login = match credentials(headers)? {
            Some(Credentials::Basic { name, password }) => self.login(&name, password).await?,
            _ => self.authenticator.anybody().ok_or_else(status::not_logged_in)?,
        };
        let client = ClientSession::new(&self.engine, login, true);
        let owner = client.owner().to_owned();
        self.tokens
            .issue(&owner, client, Instant::now())
            .map_err(|error| status::internal(&format!("no randomness for a token: {error}")))
    }

    /// The session of a call.
    pub async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let headers = request.metadata();
        let (client, key) = match credentials(headers)? {
            Some(Credentials::Bearer(token)) => {
                (self.by_token(&token).await?, Some(SessionKey::Token(token)))
            }
            Some(Credentials::Basic { name, password }) => {
                let login = self.login(&name, password).await?;
                (ClientSession::new(&self.engine, login, false), None)
            }
            None => self.by_connection(request.remote_addr())?,
        };
        let client = self.with_purpose(client, headers).await?;
        let asked = headers.get("attune-string-views").map(|value| value.as_bytes());
        let views = asked.map_or_else(|| client.string_views(), |value| value == b"true");
        Ok(Caller { client, views, key })
    }

    /// Ends the session of a call.
    pub fn close(&self, caller: &Caller) {
        match &caller.key {
            Some(SessionKey::Token(token)) => self.tokens.revoke(token),
            Some(SessionKey::Connection(address)) => self.connections.revoke(address),
            None => false,
        };
    }

    /// Forgets the sessions that have ended.
    pub fn sweep(&self, now: Instant) {
        self.tokens.sweep(now);
        self.connections.sweep(now);
    }

    async fn login(&self, name: &str, password: String) -> Result<Login, Status> {
        let outcome = self.authenticator.login(name, password).await;
        outcome.map_err(|refusal| status::from_refusal(&refusal))
    }

    async fn by_token(&self, token: &str) -> Result<Arc<ClientSession>, Status> {
        let now = Instant::now();
        let client = self.tokens.get(token, now).ok_or_else(status::unknown_token)?;
        let checked = self.authenticator.check(client.owner(), &client.stamp, now).await;
        match checked {
            Ok(()) => Ok(client),
            Err(refusal) => {
                if matches!(refusal, crate::auth::Refusal::Changed) {
                    self.tokens.revoke(token);
                }
                Err(status::from_refusal(&refusal))
            }
        }
    }

    fn by_connection(
        &self,
        peer: Option<SocketAddr>,
    ) -> Result<(Arc<ClientSession>, Option<SessionKey>), Status> {
        let login = self.authenticator.anybody().ok_or_else(status::not_logged_in)?;
        let Some(peer) = peer else {
            return Ok((ClientSession::new(&self.engine, login, false), None));
        };
        let (now, address) = (Instant::now(), peer.to_string());
        let client = self.connections.get(&address, now).unwrap_or_else(|| {
            let client = ClientSession::new(&self.engine, login, true);
            let owner = client.owner().to_owned();
            self.connections.bind(address.clone(), &owner, Arc::clone(&client), now);
            client
        });
        Ok((client, Some(SessionKey::Connection(address))))
    }

    /// A purpose in the header serves a session that has none, for this call alone.
    async fn with_purpose(
        &self,
        client: Arc<ClientSession>,
        headers: &MetadataMap,
    ) -> Result<Arc<ClientSession>, Status> {
        let Some(purpose) = headers.get("attune-purpose") else { return Ok(client) };
        if client.session.setting(PURPOSE).is_some() {
            return Ok(client);
        }
        let purpose =
            purpose.to_str().map_err(|_| status::malformed("attune-purpose is not ASCII text"))?;
        let principal = client.session.principal().clone();
        let login = Login { principal, stamp: client.stamp.clone() };
        let stated = ClientSession::new(&self.engine, login, false);
        for name in INHERITED {
            if let Some(value) = client.session.setting(name) {
                set(&stated.session, name, &value).await?;
            }
        }
        set(&stated.session, PURPOSE, purpose).await?;
        Ok(stated)
    }
}

async fn set(session: &Session, name: &str, value: &str) -> Result<(), Status> {
    session.set(name, value).await.map_err(|error| status::from_sql(&error))
}

#[derive(Debug, PartialEq)]
enum Credentials {
    Basic { name: String, password: String },
    Bearer(String),
}

/// What the `authorization` header holds.
fn credentials(headers: &MetadataMap) -> Result<Option<Credentials>, Status> {
    let Some(header) = headers.get("authorization") else { return Ok(None) };
    let malformed =
        || status::malformed("the authorization header is neither Basic nor Bearer credentials");
    let text = header.to_str().map_err(|_| malformed())?;
    if text.len() > CREDENTIALS_BYTES_MAX {
        return Err(malformed());
    }
    let (scheme, rest) = text.split_once(' ').ok_or_else(malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(Credentials::Bearer(rest.trim().to_owned())));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed());
    }
    let bytes = BASE64.decode(rest.trim()).map_err(|_| malformed())?;
    let pair = String::from_utf8(bytes).map_err(|_| malformed())?;
    let (name, password) = pair.split_once(':').ok_or_else(malformed)?;
    Ok(Some(Credentials::Basic { name: name.to_owned(), password: password.to_owned() }))
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
    use tonic::Code;

    use super::*;

    fn read(header: &str) -> Result<Option<Credentials>, Code> {
        let mut headers = MetadataMap::new();
        headers.insert("authorization", header.parse().unwrap());
        credentials(&headers).map_err(|status| status.code())
    }

    #[test]
    fn both_schemes_are_read_in_any_case() {
        for pair in [
            BASE64_STANDARD.encode("ada:pass:word"),
            BASE64_STANDARD_NO_PAD.encode("ada:pass:word"),
        ] {
            let expected = Credentials::Basic { name: "ada".into(), password: "pass:word".into() };
            assert_eq!(read(&format!("bAsIc {pair}")), Ok(Some(expected)));
        }
        assert_eq!(read("Bearer abc"), Ok(Some(Credentials::Bearer("abc".into()))));
        assert_eq!(read("bearer "), Ok(Some(Credentials::Bearer(String::new()))));
    }

    #[test]
    fn no_header_is_no_credentials() {
        assert_eq!(credentials(&MetadataMap::new()).map_err(|status| status.code()), Ok(None));
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("Bearer {}", "x".repeat(5000));
        let no_colon = format!("Basic {}", BASE64_STANDARD.encode("ada"));
        let no_text = format!("Basic {}", BASE64_STANDARD.encode([0xff, b':']));
        for bad in ["", "Basic", "Basic %%%", "Digest x", &long, &no_colon, &no_text] {
            assert_eq!(read(bad), Err(Code::InvalidArgument), "{bad}");
        }
    }
}
