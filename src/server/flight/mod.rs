//! Flight SQL: the protocol by which every client asks.
//!
//! `service` receives calls, `sessions` says who calls, `statements`, `poll` and `prepared` plan
//! and run, `parts` cuts large results, `incoming` and `ingest` take rows in, `rows` and `body`
//! make messages of rows and `gathered` writes them, `metadata`, `sql_info` and `xdbc` describe,
//! `wire` fixes the types that are sent, `status` the errors. What is kept for clients is bounded:
//! sessions by idleness, handles by number and age.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::flight_service_server::FlightServiceServer;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use sql::Engine;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use self::body::Rows;
use self::gathered::Gathered;
use self::health::Health;
use self::metadata::Facts;
use self::prepared::PreparedStatements;
use self::service::{Service, State};
use self::sessions::{SessionLimits, Sessions};
use self::sql_info::SqlInfos;
use self::statements::Statements;
use self::xdbc::TypeInfos;
pub use crate::auth::Authentication;
use crate::auth::live::LivePolicy;
use crate::auth::{Authenticator, CredentialOptions};
use crate::error::{Error, Result};
use crate::server::tls::{Tls, incoming};
use crate::server::{listen, listen_error};

mod actions;
mod body;
mod columns;
mod execution;
mod gathered;
mod handles;
mod health;
mod incoming;
mod ingest;
mod messages;
mod metadata;
mod options;
mod parts;
mod poll;
mod prepared;
mod reflection;
mod rows;
mod service;
mod sessions;
mod sql_info;
mod statements;
mod status;
mod wire;
mod xdbc;

/// A message from a client may be so large; a statement that is too long is refused by its own,
/// smaller limit, with an error that says so.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
const SWEEP_EVERY: Duration = Duration::from_secs(10);
const REFRESH_EVERY: Duration = Duration::from_millis(500);
/// Load balancers drop connections that are silent for minutes.
const PING_EVERY: Duration = Duration::from_secs(30);
/// After the drain time, running statements have so long to end with their error.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How the Flight SQL server listens and what it keeps.
#[derive(Clone)]
pub struct FlightOptions {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// None for plain text.
    pub tls: Option<Arc<Tls>>,
    /// Who may connect.
    pub authentication: Authentication,
    /// What is accepted beside passwords and API tokens.
    pub credentials: CredentialOptions,
    /// Listen beyond this machine even without TLS or without users.
    pub insecure: bool,
    /// A session ends after so long without a call.
    pub session_idle: Duration,
    /// A session ends after so long in any case.
    pub session_lifetime: Duration,
    /// All sessions of the server together.
    pub sessions_max: usize,
    /// A user has at most so many sessions; one more ends the one used longest ago.
    pub sessions_per_user_max: usize,
    /// A prepared statement or ticket ends after so long without use.
    pub handle_ttl: Duration,
    /// A user has at most so many prepared statements, and as many tickets.
    pub handles_per_user_max: usize,
    /// Once asked to stop, the server lets running statements finish for so long.
    pub drain: Duration,
}

impl FlightOptions {
    /// The defaults of the configuration at an address: users, no TLS.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            authentication: Authentication::Users,
            credentials: CredentialOptions::default(),
            insecure: false,
            session_idle: Duration::from_secs(3600),
            session_lifetime: Duration::from_secs(24 * 3600),
            sessions_max: 10_000,
            sessions_per_user_max: 1000,
            handle_ttl: Duration::from_secs(1800),
            handles_per_user_max: 1000,
            drain: Duration::from_secs(30),
        }
    }

    /// Beyond loopback, passwords and rows travel: they need TLS, and users to have passwords.
    pub fn check(&self) -> Result<()> {
        if self.address.ip().is_loopback() || self.insecure {
            return Ok(());
        }
        let missing = match (&self.tls, self.authentication) {
            (None, _) => "TLS",
            (Some(_), Authentication::None) => "users",
            (Some(_), Authentication::Users) => return Ok(()),
        };
        Err(Error::Usage {
            what: format!("{} is reachable from other machines and has no {missing}", self.address),
            hint: Some("configure TLS and users, listen on 127.0.0.1, or say --insecure".into()),
        })
    }
}

/// A server that has its address and does not answer yet.
pub struct BoundServer {
    listener: TcpListener,
    local_addr: SocketAddr,
    options: FlightOptions,
    state: Arc<State>,
    /// Cancelled when the time to drain is over.
    stop: CancellationToken,
}

/// Takes the address and prepares what the calls share.
///
/// # Errors
/// An address that is taken, or that other machines reach while TLS or users are missing.
pub async fn bind(engine: Engine, options: FlightOptions) -> Result<BoundServer> {
    options.check()?;
    let (listener, local_addr) = listen(options.address).await?;
    let stop = CancellationToken::new();
    let state = state(engine, &options, stop.clone()).await?;
    Ok(BoundServer { listener, local_addr, options, state, stop })
}

async fn state(
    engine: Engine,
    options: &FlightOptions,
    stop: CancellationToken,
) -> Result<Arc<State>> {
    let credentials = options.credentials.clone();
    let authenticator = Authenticator::open(options.authentication, credentials, engine.catalog())
        .await
        .map_err(|error| listen_error(options.address, &error))?;
    let policy = LivePolicy {
        idle: options.session_idle,
        lifetime: options.session_lifetime,
        per_owner_max: options.sessions_per_user_max,
    };
    let limits = SessionLimits { policy, total_max: options.sessions_max };
    let (ttl, held_max) = (options.handle_ttl, options.handles_per_user_max);
    let statements = Arc::new(Statements::new(ttl, held_max, stop));
    let limit = engine.limits().sql_bytes_max;
    let facts = Facts {
        sql_info: SqlInfos::new(ttl, limit, &engine.functions_documentation())
            .map_err(|error| listen_error(options.address, &error))?,
        types: TypeInfos::new().map_err(|error| listen_error(options.address, &error))?,
    };
    Ok(Arc::new(State {
        sessions: Sessions::new(engine, Arc::new(authenticator), limits),
        prepared: PreparedStatements::new(ttl, held_max, Arc::clone(&statements)),
        statements,
        facts,
    }))
}

impl BoundServer {
    /// Where it listens; the port that was free when port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What checks credentials, for the other listeners of the process: guesses count together.
    pub fn authenticator(&self) -> &Arc<Authenticator> {
        self.state.sessions.authenticator()
    }

    /// Answers until `shutdown`, then drains: no new connection, running statements finish. When
    /// the drain time is over or `force` comes, they end with CANCELLED.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send,
        force: impl Future<Output = ()> + Send,
    ) -> Result<()> {
        let draining = CancellationToken::new();
        let service = FlightServiceServer::new(Service::new(Arc::clone(&self.state)))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX);
        let mut server = Server::builder()
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_EVERY));
        let defect = |error| listen_error(self.options.address, &sources(&error));
        let health = Health::serving().await;
        let server = server
            .add_service(Rows::new(service))
            .add_service(health.service())
            .add_service(reflection::service().map_err(defect)?)
            .add_service(reflection::old_service().map_err(defect)?);
        let drained = draining.clone().cancelled_owned();
        let serving: BoxFuture<'_, _> = match &self.options.tls {
            Some(tls) => {
                let config = tls.server_config_for(&[b"h2"])?;
                let incoming = incoming(self.listener, config).map_ok(Gathered::new);
                server.serve_with_incoming_shutdown(incoming, drained).boxed()
            }
            None => {
                let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
                let incoming = incoming.map_ok(Gathered::new);
                server.serve_with_incoming_shutdown(incoming, drained).boxed()
            }
        };
        let failed = |error| listen_error(self.options.address, &sources(&error));
        tokio::pin!(serving, shutdown, force);
        tokio::select! {
            ended = &mut serving => return ended.map_err(failed),
            () = &mut shutdown => {}
            () = sweep(&self.state) => {}
            () = refresh(&self.state) => {}
        }
        health.draining().await;
        draining.cancel();
        tracing::info!(drain_s = self.options.drain.as_secs(), "draining");
        tokio::select! {
            ended = &mut serving => return ended.map_err(failed),
            () = tokio::time::sleep(self.options.drain) => {}
            () = &mut force => {}
        }
        self.stop.cancel();
        match tokio::time::timeout(LAST_WORDS, serving).await {
            Ok(ended) => ended.map_err(failed),
            // A client that does not read its stream cannot hold the server.
            Err(_) => Ok(()),
        }
    }
}

/// Forgets what has ended, again and again.
async fn sweep(state: &State) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        state.sessions.sweep(now);
        state.statements.sweep(now);
        state.prepared.sweep(now);
    }
}

/// Keeps what other servers said about sessions so fresh that no call has to wait for it.
async fn refresh(state: &State) {
    let mut ticks = tokio::time::interval(REFRESH_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        state.sessions.refresh().await;
    }
}

/// An error and what it came from, in one line: tonic's own text says only "transport error".
fn sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tls::tests::write;

    fn options(address: &str) -> FlightOptions {
        FlightOptions::at(address.parse().unwrap())
    }

    #[test]
    fn beyond_loopback_there_is_tls_and_users_or_a_word() {
        assert!(options("127.0.0.1:0").check().is_ok());
        assert!(options("[::1]:0").check().is_ok());
        assert!(options("0.0.0.0:0").check().is_err());
        let folder = tempfile::tempdir().unwrap();
        let tls = Arc::new(Tls::read(write(folder.path(), "localhost")).unwrap());
        let mut open = options("0.0.0.0:0");
        open.tls = Some(tls);
        assert!(open.check().is_ok());
        open.authentication = Authentication::None;
        assert!(open.check().is_err());
        open.insecure = true;
        assert!(open.check().is_ok());
    }
}
