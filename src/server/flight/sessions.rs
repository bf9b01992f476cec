//! Who calls: from a call's headers to a session.
//!
//! `Bearer` is a session token that a Handshake gave for a password, an API token, or a token of
//! the identity provider. A session token leads to its one session; on a server that has none, such
//! as another replica or this one after a restart, it opens one under the same id. The other two
//! are credentials of their own, and each connection that shows them has a session. `Basic` on any
//! other call is checked each time and gets a session for that call alone: what it sets is gone
//! afterwards, its statement handles stay. Without a header, a connection whose certificate stands
//! for a user has that user's session; where anybody is admitted, each connection has one.
//!
//! `attune-purpose` and `attune-channel` state the purpose and the channel for calls whose session
//! has none of its own, and `attune-string-views: true` asks for view types on the wire. Cookies
//! are accepted and mean nothing: no second thing opens a session. A Java client is known by its
//! `user-agent`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sql::{Engine, Origin, Session, SessionOptions};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::status;
use super::wire::WireTypes;
use crate::auth::jwt::Claims;
use crate::auth::live::{Live, LivePolicy};
use crate::auth::{Authenticator, Bearer, Login, Proof, Refusal, record};

const PURPOSE: &str = "purpose";
const CHANNEL: &str = "channel";
/// The Go driver sends its credentials without padding, others with it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Longer headers are refused before they are decoded.
const CREDENTIALS_BYTES_MAX: usize = 16_384;

/// A client's session.
pub struct ClientSession {
    /// The engine's side.
    pub session: Session,
    login: Login,
    lasting: bool,
}

impl ClientSession {
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
    /// Which types its results have.
    pub types: WireTypes,
    /// The session without what the call's headers state.
    kept: Arc<ClientSession>,
    key: Option<String>,
}

impl Caller {
    /// The session, for an action that changes it.
    pub fn lasting(&self) -> Result<&Arc<ClientSession>, Status> {
        if self.kept.lasting { Ok(&self.kept) } else { Err(status::no_session()) }
    }
}

/// How long a session is kept, and what leads to it.
enum Kept {
    ForThisCall,
    /// Until it ends; a key that is no secret leads to it.
    Lasting,
    /// Until it ends; a session token with this id and end leads to it.
    ByToken {
        id: String,
        until_ms: i64,
    },
}

/// Where a call comes from.
struct Peer {
    address: Option<SocketAddr>,
    /// The client's certificate, which TLS has checked.
    certificate: Option<Vec<u8>>,
    origin: Origin,
}

impl Peer {
    fn of<T>(request: &Request<T>) -> Self {
        let certificates = request.peer_certs();
        let first = certificates.as_ref().and_then(|chain| chain.first());
        let client = request.metadata().get("user-agent").and_then(|name| name.to_str().ok());
        let address = request.remote_addr();
        Self {
            certificate: first.map(|certificate| certificate.to_vec()),
            origin: Origin::new(client, address.map(|address| address.to_string())),
            address,
        }
    }

    fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }
}

/// How many sessions there may be, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// When a session ends, and how many a user has.
    pub policy: LivePolicy,
    /// All sessions of this server together; one more is refused.
    pub total_max: usize,
}

/// The open sessions.
pub struct Sessions {
    engine: Engine,
    authenticator: Arc<Authenticator>,
    live: Live<ClientSession>,
    lifetime: Duration,
    total_max: usize,
}

impl Sessions {
    /// No session yet.
    pub fn new(engine: Engine, authenticator: Arc<Authenticator>, limits: SessionLimits) -> Self {
        Self {
            engine,
            authenticator,
            live: Live::new(limits.policy),
            lifetime: limits.policy.lifetime,
            total_max: limits.total_max,
        }
    }

    /// What checks credentials, for the other listeners of the process: guesses count together.
    pub fn authenticator(&self) -> &Arc<Authenticator> {
        &self.authenticator
    }

    /// Handshake: checks the credentials and opens a session; gives the token for further calls,
    /// or None where the connection itself is the credential. A credential that is a token already
    /// is given back.
    pub async fn open<T>(&self, request: &Request<T>) -> Result<Option<String>, Status> {
        let peer = Peer::of(request);
        match credentials(request.metadata())? {
            Some(Credentials::Basic { name, password }) => {
                let login = self.login(&name, password.clone(), &peer).await?;
                match login.proof {
                    Proof::Token { .. } => Ok(Some(password)),
                    _ => self.open_with_token(login, &peer).await.map(Some),
                }
            }
            Some(Credentials::Bearer(token)) => {
                self.by_bearer(&token, &peer).await?;
                Ok(Some(token))
            }
            None => match self.authenticator.anybody().await.map_err(refused)? {
                Some(login) => self.open_with_token(login, &peer).await.map(Some),
                None => self.by_connection(&peer).await.map(|_| None),
            },
        }
    }

    /// The session of a call.
    pub async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let peer = Peer::of(request);
        let headers = request.metadata();
        let (client, key) = match credentials(headers)? {
            Some(Credentials::Bearer(token)) => self.by_bearer(&token, &peer).await?,
            Some(Credentials::Basic { name, password }) => {
                let login = self.login(&name, password, &peer).await?;
                (self.client(login, &peer, Kept::ForThisCall).await?, None)
            }
            None => self.by_connection(&peer).await?,
        };
        let stated = with_stated(&client, headers).await?;
        let asked = headers.get("attune-string-views").map(|value| value.as_bytes());
        let views = asked.map_or_else(|| client.string_views(), |value| value == b"true");
        let agent = headers.get("user-agent").map(|value| value.as_bytes());
        let java = agent.is_some_and(|name| name.starts_with(b"grpc-java"));
        Ok(Caller { client: stated, kept: client, types: WireTypes { views, java }, key })
    }

    /// Ends the session of a call and makes its token worthless everywhere.
    pub async fn close(&self, caller: &Caller) -> Result<(), Status> {
        if let Some(key) = &caller.key {
            self.live.end(key);
        }
        let session = &caller.kept.session;
        session.end();
        match session.credential_until_ms() {
            Some(until_ms) => {
                let told = self.engine.catalog().revoke_session(session.id(), until_ms).await;
                told.map_err(|error| refused(Refusal::Catalog(error)))
            }
            None => Ok(()),
        }
    }

    /// Learns ahead of time which session tokens other servers have revoked.
    pub async fn refresh(&self) {
        if self.live.is_empty() || !self.authenticator.tokens_are_shared() {
            return;
        }
        if let Err(error) = self.engine.catalog().refresh_revocations().await {
            tracing::warn!(%error, "revoked sessions are not known; calls wait for the warehouse");
        }
    }

    /// Signs a ticket that any replica serves; `audience` says what it is for.
    pub async fn seal(&self, audience: &str, body: serde_json::Value) -> Result<String, Status> {
        self.authenticator.seal(audience, body).await.map_err(refused)
    }

    /// What such a ticket says; `None` for one that this warehouse's servers have not signed.
    pub async fn unseal(&self, audience: &str, text: &str) -> Option<serde_json::Value> {
        self.authenticator.unseal(audience, text).await.ok()
    }

    /// Forgets the sessions that have ended.
    pub fn sweep(&self, now: Instant) {
        self.live.sweep(|client| client.session.is_ended(), now);
    }

    async fn login(&self, name: &str, password: String, peer: &Peer) -> Result<Login, Status> {
        self.authenticator.login(name, password, peer.ip()).await.map_err(refused)
    }

    /// Opens a session that a token of ours leads to.
    async fn open_with_token(&self, login: Login, peer: &Peer) -> Result<String, Status> {
        let catalog = self.engine.catalog();
        let id = catalog.new_id();
        let lifetime_ms = i64::try_from(self.lifetime.as_millis()).unwrap_or(i64::MAX);
        let until_ms = catalog.now_ms().saturating_add(lifetime_ms);
        let token = self.authenticator.session_token(&login, &id, until_ms).await;
        let token = token.map_err(refused)?;
        let token = token.ok_or_else(|| status::internal("the login has no session token"))?;
        let client = self.client(login, peer, Kept::ByToken { id: id.clone(), until_ms }).await?;
        let owner = client.owner().to_owned();
        self.live.bind(&id, &owner, client, true, Instant::now(), |_| true);
        Ok(token)
    }

    async fn client(
        &self,
        login: Login,
        peer: &Peer,
        kept: Kept,
    ) -> Result<Arc<ClientSession>, Status> {
        if self.engine.sessions().len() >= self.total_max {
            self.sweep(Instant::now());
            if self.engine.sessions().len() >= self.total_max {
                return Err(status::too_many_sessions(self.total_max));
            }
        }
        let lasting = !matches!(kept, Kept::ForThisCall);
        let mut options = SessionOptions {
            origin: peer.origin.clone(),
            delegated: login.delegated,
            ..SessionOptions::default()
        };
        if let Kept::ByToken { id, until_ms } = kept {
            options.credential_until_ms =
                self.authenticator.tokens_are_shared().then_some(until_ms);
            options.id = Some(id);
        }
        let session = self.engine.session_with(login.principal.clone(), options);
        if let Some(purpose) = &login.purpose {
            session.set(PURPOSE, purpose).await.map_err(|error| status::from_sql(&error))?;
        }
        record::opened(&session, &login);
        Ok(Arc::new(ClientSession { session, login, lasting }))
    }

    async fn by_bearer(&self, token: &str, peer: &Peer) -> Result<Found, Status> {
        match self.authenticator.bearer(token).await.map_err(refused)? {
            Bearer::Session(claims) => {
                let client = self.by_session_token(&claims, peer).await?;
                Ok((client, Some(claims.id)))
            }
            Bearer::Api { key } => {
                self.by_key(key, peer, self.authenticator.api_token(token)).await
            }
            Bearer::Provider(login) => {
                let Some(address) = peer.address else {
                    return Ok((self.client(login, peer, Kept::ForThisCall).await?, None));
                };
                let key = format!("provider:{}@{address}", login.principal.name);
                let open = self.live.get(&key, Instant::now());
                let same = open.filter(|client| {
                    client.login.principal == login.principal && !client.session.is_ended()
                });
                let client = match same {
                    Some(client) => client,
                    None => self.bound(&key, login, peer).await?,
                };
                Ok((client, Some(key)))
            }
        }
    }

    /// The session that a session token leads to. On a server that has none the token opens it.
    async fn by_session_token(
        &self,
        claims: &Claims,
        peer: &Peer,
    ) -> Result<Arc<ClientSession>, Status> {
        let now = Instant::now();
        if self.is_revoked(claims).await? {
            self.end(&claims.id);
            return Err(status::unknown_token());
        }
        if let Some(client) = self.live.get(&claims.id, now) {
            if client.owner() != claims.user || client.session.is_ended() {
                self.end(&claims.id);
                return Err(status::unknown_token());
            }
            let checked = self.authenticator.check(&client.login.proof).await;
            return self.still(&claims.id, client, checked);
        }
        if self.live.has_ended(&claims.id) {
            return Err(status::unknown_token());
        }
        let login = self.authenticator.resume(claims).await.map_err(refused)?;
        let kept = Kept::ByToken { id: claims.id.clone(), until_ms: claims.until_ms };
        let client = self.client(login, peer, kept).await?;
        tracing::debug!(user = ?claims.user, "a session token of another server opened a session");
        Ok(self.live.bind(&claims.id, &claims.user, client, true, now, |_| true).value)
    }

    async fn is_revoked(&self, claims: &Claims) -> Result<bool, Status> {
        if self.live.has_ended(&claims.id) {
            return Ok(true);
        }
        if !self.authenticator.tokens_are_shared() {
            return Ok(false);
        }
        let revoked = self.engine.catalog().is_session_revoked(&claims.id).await;
        revoked.map_err(|error| refused(Refusal::Catalog(error)))
    }

    async fn by_connection(&self, peer: &Peer) -> Result<Found, Status> {
        if let Some(login) = self.authenticator.anybody().await.map_err(refused)? {
            return self.by_key("connection".into(), peer, async { Ok(login) }).await;
        }
        let Some(certificate) = &peer.certificate else { return Err(status::not_logged_in()) };
        let Some(key) = self.authenticator.certificate_key(certificate) else {
            return Err(status::not_logged_in());
        };
        self.by_key(key, peer, self.authenticator.certificate(certificate)).await
    }

    /// The session of a connection that shows a credential again with each call; `login` is awaited
    /// only when there is none yet.
    async fn by_key(
        &self,
        key: String,
        peer: &Peer,
        login: impl Future<Output = Result<Login, Refusal>> + Send,
    ) -> Result<Found, Status> {
        let Some(address) = peer.address else {
            let login = login.await.map_err(refused)?;
            return Ok((self.client(login, peer, Kept::ForThisCall).await?, None));
        };
        let (key, now) = (format!("{key}@{address}"), Instant::now());
        let open = self.live.get(&key, now).filter(|client| !client.session.is_ended());
        let client = match open {
            Some(client) => {
                let checked = self.authenticator.check(&client.login.proof).await;
                self.still(&key, client, checked)?
            }
            None => self.bound(&key, login.await.map_err(refused)?, peer).await?,
        };
        Ok((client, Some(key)))
    }

    /// A new session under a key, in place of one that ended or was another principal's.
    async fn bound(
        &self,
        key: &str,
        login: Login,
        peer: &Peer,
    ) -> Result<Arc<ClientSession>, Status> {
        let client = self.client(login, peer, Kept::Lasting).await?;
        let owner = client.owner().to_owned();
        let principal = client.login.principal.clone();
        let bound = self.live.bind(key, &owner, client, false, Instant::now(), |open| {
            !open.session.is_ended() && open.login.principal == principal
        });
        if let Some(replaced) = bound.replaced {
            replaced.session.end();
        }
        Ok(bound.value)
    }

    /// A session whose login was checked again; one that no longer stands is ended.
    fn still(
        &self,
        key: &str,
        client: Arc<ClientSession>,
        checked: Result<(), Refusal>,
    ) -> Result<Arc<ClientSession>, Status> {
        match checked {
            Ok(()) => Ok(client),
            Err(refusal) => {
                if matches!(refusal, Refusal::Changed | Refusal::Closed | Refusal::Token) {
                    self.end(key);
                }
                Err(refused(refusal))
            }
        }
    }

    fn end(&self, key: &str) {
        if let Some(client) = self.live.end(key) {
            client.session.end();
        }
    }
}

/// A session, and the key that leads to it when it is kept.
type Found = (Arc<ClientSession>, Option<String>);

fn refused(refusal: Refusal) -> Status {
    status::from_refusal(&refusal)
}

/// A purpose or channel in the headers serves a session that has none of its own, for this call
/// alone. The purpose that a credential brings ranks below it.
async fn with_stated(
    client: &Arc<ClientSession>,
    headers: &MetadataMap,
) -> Result<Arc<ClientSession>, Status> {
    let mut stated = Vec::new();
    for (setting, brought) in [(PURPOSE, client.login.purpose.as_deref()), (CHANNEL, None)] {
        let header = format!("attune-{setting}");
        let Some(value) = headers.get(&header) else { continue };
        let own = client.session.setting(setting);
        if own.is_some() && own.as_deref() != brought {
            continue;
        }
        let malformed = |_| status::malformed(&format!("{header} is not ASCII text"));
        stated.push((setting, value.to_str().map_err(malformed)?));
    }
    if stated.is_empty() {
        return Ok(Arc::clone(client));
    }
    let session = client.session.beside();
    for (setting, value) in stated {
        session.set(setting, value).await.map_err(|error| status::from_sql(&error))?;
    }
    let login = client.login.clone();
    Ok(Arc::new(ClientSession { session, login, lasting: false }))
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
        let long = format!("Bearer {}", "x".repeat(20_000));
        let no_colon = format!("Basic {}", BASE64_STANDARD.encode("ada"));
        let no_text = format!("Basic {}", BASE64_STANDARD.encode([0xff, b':']));
        for bad in ["", "Basic", "Basic %%%", "Digest x", &long, &no_colon, &no_text] {
            assert_eq!(read(bad), Err(Code::InvalidArgument), "{bad}");
        }
    }
}
