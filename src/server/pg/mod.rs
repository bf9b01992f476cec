//! PostgreSQL's protocol, for tools that do not speak Flight SQL.
//!
//! `opening` makes a session of a connection, `connection` answers its messages, `statements` and
//! `portals` keep what it named, `run` runs it; `cells` and `values` are the types on the wire,
//! `problem` the errors. It is one more door to the same sessions: the same users, rights,
//! policies, limits and log.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use sql::Engine;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::{Authentication, Authenticator, CredentialOptions};
use crate::error::{Error, Result};
use crate::server::tls::Tls;
use crate::server::{listen, listen_error};

mod cells;
mod connection;
mod input;
mod json;
mod keys;
mod opening;
mod output;
mod portals;
mod problem;
mod run;
mod statements;
mod text;
mod transaction;
mod values;

use self::opening::PROTOCOL;

/// Connections that have not logged in yet; further ones wait in the listener's queue.
const PENDING_MAX: usize = 64;
/// After the drain time, running statements have so long to end with their error.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How the PostgreSQL server listens and what it keeps.
#[derive(Clone)]
pub struct PgOptions {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// None for plain text.
    pub tls: Option<Arc<Tls>>,
    /// Who may connect.
    pub authentication: Authentication,
    /// What is accepted beside passwords and API tokens.
    pub credentials: CredentialOptions,
    /// Listen beyond this machine, and accept passwords, even without TLS.
    pub insecure: bool,
    /// So many connections at once.
    pub connections_max: usize,
    /// A connection that has not logged in by then is closed.
    pub opening_max: Duration,
    /// A connection ends after so long without a message.
    pub idle_max: Duration,
    /// A connection that holds a result half read ends after so long without a message.
    pub suspended_max: Duration,
    /// A connection keeps at most so many prepared statements, and as many portals.
    pub statements_max: usize,
    /// Once asked to stop, the server lets running statements finish for so long.
    pub drain: Duration,
}

impl PgOptions {
    /// The defaults of the configuration at an address: users, no TLS.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            tls: None,
            authentication: Authentication::Users,
            credentials: CredentialOptions::default(),
            insecure: false,
            connections_max: 200,
            opening_max: Duration::from_secs(15),
            idle_max: Duration::from_secs(3600),
            suspended_max: Duration::from_secs(600),
            statements_max: 1000,
            drain: Duration::from_secs(30),
        }
    }

    /// Passwords need TLS, and beyond loopback there must be users who have them.
    ///
    /// # Errors
    /// When TLS or users are missing.
    pub fn check(&self) -> Result<()> {
        let local = self.address.ip().is_loopback();
        let missing = match (&self.tls, self.authentication) {
            _ if self.insecure => return Ok(()),
            (None, Authentication::Users) => "passwords are accepted over TLS only",
            (None, Authentication::None) if !local => "it is reachable from other machines",
            (Some(_), Authentication::None) if !local => {
                "it is reachable from other machines and has no users"
            }
            _ => return Ok(()),
        };
        Err(Error::Usage {
            what: format!("PostgreSQL's port {} cannot be opened: {missing}", self.address),
            hint: Some(
                "give [server] tls_certificate_file and tls_key_file, or say --insecure".into(),
            ),
        })
    }
}

/// What all connections share.
struct State {
    engine: Engine,
    authenticator: Arc<Authenticator>,
    tls: Option<Arc<ServerConfig>>,
    keys: keys::Keys,
    options: PgOptions,
    /// Cancelled when no new statement is to begin.
    draining: CancellationToken,
    /// Cancelled when running statements are to end.
    stop: CancellationToken,
}

/// A server that has its address and does not answer yet.
pub struct BoundServer {
    listener: TcpListener,
    local_addr: SocketAddr,
    state: Arc<State>,
}

/// Takes the address and prepares what the connections share.
///
/// # Errors
/// An address that is taken, or passwords without TLS.
pub async fn bind(engine: Engine, options: PgOptions) -> Result<BoundServer> {
    let credentials = options.credentials.clone();
    let authenticator = Authenticator::open(options.authentication, credentials, engine.catalog())
        .await
        .map_err(|error| listen_error(options.address, &error))?;
    bind_with(engine, options, Arc::new(authenticator)).await
}

/// The same beside other listeners that check credentials: guesses and password checks count
/// together.
///
/// # Errors
/// As [`bind`].
pub async fn bind_with(
    engine: Engine,
    options: PgOptions,
    authenticator: Arc<Authenticator>,
) -> Result<BoundServer> {
    options.check()?;
    let (listener, local_addr) = listen(options.address).await?;
    let tls = options.tls.as_ref().map(|tls| tls.server_config_for(&[PROTOCOL])).transpose()?;
    let state = Arc::new(State {
        engine,
        authenticator,
        tls,
        keys: keys::Keys::default(),
        options,
        draining: CancellationToken::new(),
        stop: CancellationToken::new(),
    });
    Ok(BoundServer { listener, local_addr, state })
}

impl BoundServer {
    /// Where it listens; the port that was free when port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers until `shutdown`, then drains: no new connection, idle ones end, running statements
    /// finish. When the drain time is over or `force` comes, they end with an error.
    ///
    /// # Errors
    /// A listener that breaks.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()> + Send,
        force: impl Future<Output = ()> + Send,
    ) -> Result<()> {
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown, force);
        tokio::select! {
            () = self.accept(&mut connections) => {}
            () = &mut shutdown => {}
        }
        drop(self.listener);
        self.state.draining.cancel();
        tokio::select! {
            () = all_ended(&mut connections) => return Ok(()),
            () = tokio::time::sleep(self.state.options.drain) => {}
            () = &mut force => {}
        }
        self.state.stop.cancel();
        // A client that does not read its rows cannot hold the server.
        let _ = tokio::time::timeout(LAST_WORDS, all_ended(&mut connections)).await;
        Ok(())
    }

    async fn accept(&self, connections: &mut JoinSet<()>) {
        let pending = Arc::new(Semaphore::new(PENDING_MAX));
        let open = Arc::new(Semaphore::new(self.state.options.connections_max.max(1)));
        loop {
            let Ok(turn) = Arc::clone(&pending).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Too many open files, for example: the next try may work.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let (state, open) = (Arc::clone(&self.state), Arc::clone(&open));
            connections.spawn(async move {
                let opened = welcome(&state, stream).await;
                drop(turn);
                let Some(opened) = opened else { return };
                match open.try_acquire_owned() {
                    Ok(_place) => connection::serve(&state, opened).await,
                    Err(_) => connection::turn_away(opened).await,
                }
            });
        }
    }
}

async fn all_ended(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// Opens a session, within the time for it.
async fn welcome(state: &Arc<State>, stream: TcpStream) -> Option<opening::Opened> {
    let _ = stream.set_nodelay(true);
    tokio::select! {
        opened = opening::open(state, stream) => opened,
        () = tokio::time::sleep(state.options.opening_max) => None,
        () = state.draining.cancelled() => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_need_tls_and_other_machines_need_users() {
        let local = PgOptions::at("127.0.0.1:0".parse().unwrap());
        assert!(local.check().is_err());
        assert!(PgOptions { insecure: true, ..local.clone() }.check().is_ok());
        let open = PgOptions { authentication: Authentication::None, ..local };
        assert!(open.check().is_ok());
        let wide = PgOptions { address: "0.0.0.0:0".parse().unwrap(), ..open };
        assert_eq!(wide.check().unwrap_err().exit_code(), 2);
    }
}
