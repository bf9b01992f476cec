//! TLS for every listener: certificates that are read again when their files change, and an
//! acceptor that no slow client holds up.
//!
//! The files are looked at every few seconds and when the process gets SIGHUP. A new certificate
//! serves the next connection; connections that exist go on with the old one. Files that do not
//! fit together, such as a certificate that was replaced a moment before its key, leave the old
//! pair in force and are told once in the log.
//!
//! Where clients show certificates, sessions are not resumed: a resumed session would skip the
//! check against certificate authorities that may have changed.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use futures::Stream;
use parking_lot::{Mutex, RwLock};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::{Error, Result};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A client that has not finished its handshake by then is dropped.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// So many handshakes at once; further connections wait in the listener's queue.
const HANDSHAKES_MAX: usize = 256;

/// Where the certificates are, and whether clients must show one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// PEM: the server's certificate, then its issuers'.
    pub certificate: PathBuf,
    /// PEM: the certificate's key.
    pub key: PathBuf,
    /// PEM: the authorities whose client certificates are believed.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is turned away.
    pub client_required: bool,
}

/// When a file was last changed, and its length.
type FileStamp = Option<(SystemTime, u64)>;

/// The server's identity, always the newest that could be read.
pub struct Tls {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    identity: Arc<Identity>,
    clients: Option<Arc<Clients>>,
    seen: Mutex<Vec<FileStamp>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files and keeps looking at them for as long as somebody holds the result.
    ///
    /// # Errors
    /// When a file cannot be read, holds no PEM, or certificate and key do not belong together.
    pub fn open(files: TlsFiles) -> Result<Arc<Self>> {
        let tls = Arc::new(Self::read(files)?);
        tokio::spawn(watch(Arc::downgrade(&tls)));
        Ok(tls)
    }

    /// Reads the files once.
    ///
    /// # Errors
    /// As [`Tls::open`].
    pub fn read(files: TlsFiles) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let seen = stamps(&files);
        let identity = Arc::new(Identity(RwLock::new(certified_key(&files, &provider)?)));
        let clients = verifier(&files, &provider)?;
        let clients = clients.map(|verifier| {
            Arc::new(Clients { required: files.client_required, current: RwLock::new(verifier) })
        });
        Ok(Self { files, provider, identity, clients, seen: Mutex::new(seen) })
    }

    /// The configuration for a protocol that negotiates none, such as HTTP/1.1 or PostgreSQL. It
    /// follows the files by itself: one is enough for the life of a listener.
    ///
    /// # Errors
    /// When the cryptography has no protocol version in common with TLS 1.2 and 1.3.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>> {
        self.server_config_for(&[])
    }

    /// The same for clients that negotiate one of `protocols`, the preferred one first.
    ///
    /// # Errors
    /// As [`Tls::server_config`].
    pub fn server_config_for(&self, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&self.files.certificate, &error))?;
        let builder = match &self.clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients) as _),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&self.identity) as _);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        if self.clients.is_some() {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Arc::new(config))
    }

    /// Reads the files again if one of them changed since they were looked at; whether it did.
    ///
    /// # Errors
    /// When they cannot be used; what was read before stays in force.
    pub fn reload(&self) -> Result<bool> {
        let now = stamps(&self.files);
        if std::mem::replace(&mut *self.seen.lock(), now.clone()) == now {
            return Ok(false);
        }
        self.reload_now().map(|()| true)
    }

    fn reload_now(&self) -> Result<()> {
        let key = certified_key(&self.files, &self.provider)?;
        if let (Some(clients), Some(verifier)) =
            (&self.clients, verifier(&self.files, &self.provider)?)
        {
            *clients.current.write() = verifier;
        }
        *self.identity.0.write() = key;
        Ok(())
    }
}

/// Looks at the files until nobody holds the certificates any more.
async fn watch(tls: Weak<Tls>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut hangup = Hangup::new();
    loop {
        let asked = tokio::select! {
            _ = ticks.tick() => false,
            () = hangup.asked() => true,
        };
        let Some(tls) = tls.upgrade() else { return };
        // A few small local files, every few seconds.
        let outcome = if asked { tls.reload_now().map(|()| true) } else { tls.reload() };
        match outcome {
            Ok(true) => tracing::info!("the certificates were read again"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!("the certificates stay as they were: {}", error.render(false));
            }
        }
    }
}

/// SIGHUP, where there is one.
struct Hangup {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Hangup {
    fn new() -> Self {
        Self {
            #[cfg(unix)]
            signal: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok(),
        }
    }

    async fn asked(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}

fn stamps(files: &TlsFiles) -> Vec<FileStamp> {
    let all = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
    all.into_iter().flatten().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> FileStamp {
    let data = std::fs::metadata(path).ok()?;
    Some((data.modified().ok()?, data.len()))
}

fn certified_key(files: &TlsFiles, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>> {
    let chain = certificates(&files.certificate)?;
    let text = read(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| wrong(&files.key, &error))?;
    let pair = CertifiedKey::from_der(chain, key, provider);
    Ok(Arc::new(pair.map_err(|error| wrong(&files.key, &error))?))
}

fn verifier(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>> {
    let Some(path) = &files.client_ca else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| wrong(path, &error))?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if !files.client_required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map(Some).map_err(|error| wrong(path, &error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| wrong(path, &error))?;
    if found.is_empty() {
        return Err(Error::file("use", path, &std::io::Error::other("it holds no certificate")));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::file("read", path, &error))
}

fn wrong(path: &Path, reason: &dyn std::error::Error) -> Error {
    Error::file("use", path, reason)
}

/// The certificate and key that new connections are shown.
#[derive(Debug)]
struct Identity(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

/// The check of clients' certificates, by the authorities of the newest file.
#[derive(Debug)]
struct Clients {
    required: bool,
    current: RwLock<Arc<dyn ClientCertVerifier>>,
}

impl Clients {
    fn current(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.current.read())
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    /// None: the list would have to outlive the authorities it names, and a client that gets none
    /// offers the certificate it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.current().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.current().verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.current().verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().supported_verify_schemes()
    }
}

/// The connections of a listener once their handshakes are done, each with the client's
/// certificates and address. A handshake that fails or takes too long ends that connection alone.
pub fn incoming(
    listener: TcpListener,
    config: Arc<ServerConfig>,
) -> impl Stream<Item = std::io::Result<TlsStream<TcpStream>>> {
    let acceptor = TlsAcceptor::from(config);
    let state = (listener, acceptor, JoinSet::new());
    futures::stream::unfold(state, |(listener, acceptor, mut handshakes)| async move {
        loop {
            tokio::select! {
                accepted = listener.accept(), if handshakes.len() < HANDSHAKES_MAX => {
                    match accepted {
                        Ok((stream, peer)) => {
                            handshakes.spawn(handshake(acceptor.clone(), stream, peer));
                        }
                        // Out of file handles: those that are open will close.
                        Err(error) => {
                            tracing::warn!("a connection was not accepted: {error}");
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    }
                }
                Some(done) = handshakes.join_next() => {
                    if let Ok(Some(stream)) = done {
                        return Some((Ok(stream), (listener, acceptor, handshakes)));
                    }
                }
            }
        }
    })
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    let delay = stream.set_nodelay(true);
    if let Err(error) = delay {
        tracing::debug!(%peer, "small packets are held back: {error}");
    }
    match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::info!(%peer, "a TLS handshake failed: {error}");
            None
        }
        Err(_) => {
            tracing::info!(%peer, "a TLS handshake took longer than {HANDSHAKE_MAX:?}");
            None
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A certificate of its own for a host, in files of the folder.
    pub fn write(folder: &Path, name: &str) -> TlsFiles {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let files = TlsFiles {
            certificate: folder.join("server.pem"),
            key: folder.join("server.key"),
            ..TlsFiles::default()
        };
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    fn shown(tls: &Tls) -> Vec<u8> {
        tls.identity.0.read().cert[0].to_vec()
    }

    #[test]
    fn a_changed_pair_is_read_and_a_pair_that_does_not_fit_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = write(folder.path(), "one.example.org");
        let tls = Tls::read(files.clone()).unwrap();
        let first = shown(&tls);
        assert!(!tls.reload().unwrap());
        write(folder.path(), "second.example.org");
        assert!(tls.reload().unwrap());
        let second = shown(&tls);
        assert_ne!(first, second);
        let key = std::fs::read(&files.key).unwrap();
        write(folder.path(), "a.third.example.org");
        std::fs::write(&files.key, key).unwrap();
        assert!(tls.reload().is_err());
        assert_eq!(shown(&tls), second);
    }

    #[test]
    fn files_that_are_missing_or_empty_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = write(folder.path(), "example.org");
        std::fs::write(&files.certificate, "").unwrap();
        let error = Tls::read(files.clone()).unwrap_err().to_string();
        assert!(error.contains("server.pem") && error.contains("no certificate"), "{error}");
        files.certificate = folder.path().join("nothing.pem");
        assert!(Tls::read(files).unwrap_err().to_string().contains("nothing.pem"));
    }
}
