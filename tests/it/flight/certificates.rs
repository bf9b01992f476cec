//! Mutual TLS, and certificates that change while the server runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use attune::auth::CredentialOptions;
use attune::auth::certificates::{CertificateName, CertificateUsers};
use attune::server::flight::FlightOptions;
use attune::server::tls::{Tls, TlsFiles};
use rcgen::{CertificateParams, CertifiedIssuer, DnType, KeyPair, SanType};
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::support::{Client, TestServer, certificate, failure, options, rows, start_with};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn issuer() -> Issuer {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages.push(rcgen::KeyUsagePurpose::KeyCertSign);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A client's certificate and key, in PEM.
fn issued(issuer: &Issuer, common_name: &str, uri: &str) -> Identity {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    let key = KeyPair::generate().unwrap();
    let made = params.signed_by(&key, issuer).unwrap();
    Identity::from_pem(made.pem(), key.serialize_pem())
}

/// The file of the authorities whose clients are believed.
const CLIENTS: &str = "clients.pem";

struct Mutual {
    server: TestServer,
    trusted: String,
    issuer: Issuer,
    folder: tempfile::TempDir,
}

async fn start(required: bool, name: CertificateName, users: &[(&str, &str)]) -> Mutual {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let (files, trusted) = certificate(folder.path(), "localhost");
    let issuer = issuer();
    let ca = folder.path().join(CLIENTS);
    std::fs::write(&ca, issuer.as_ref().pem()).unwrap();
    let tls = TlsFiles { client_ca: Some(ca), client_required: required, ..files };
    let users: BTreeMap<_, _> =
        users.iter().map(|(name, user)| ((*name).to_owned(), (*user).to_owned())).collect();
    let credentials = CredentialOptions {
        certificates: Some(CertificateUsers { name, users }),
        ..CredentialOptions::default()
    };
    let tls = Some(Tls::open(tls).unwrap());
    let server = start_with(FlightOptions { tls, credentials, ..options() }).await;
    Mutual { server, trusted, issuer, folder }
}

async fn connect(
    server: &TestServer,
    trusted: &str,
    identity: Option<Identity>,
) -> Result<Client, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(trusted))
        .domain_name("localhost");
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", server.address)).unwrap();
    Ok(Client::new(endpoint.tls_config(tls)?.connect().await?))
}

#[tokio::test]
async fn a_certificate_stands_for_its_user() {
    let mutual = start(false, CertificateName::CommonName, &[]).await;
    let identity = issued(&mutual.issuer, "ada", "spiffe://x/1");
    let mut client = connect(&mutual.server, &mutual.trusted, Some(identity)).await.unwrap();
    assert_eq!(rows(&mut client, "SELECT current_user()").await, ["ada"]);
    // It is one session: what is set stays.
    client.execute_update("SET purpose = 'research'".into(), None).await.unwrap();
    assert_eq!(rows(&mut client, "SELECT current_purpose()").await, ["research"]);
    // A certificate that names no user is nobody; one that is missing is no harm here.
    let identity = issued(&mutual.issuer, "eve", "spiffe://x/2");
    let mut nobody = connect(&mutual.server, &mutual.trusted, Some(identity)).await.unwrap();
    assert_eq!(failure(&mut nobody, "SELECT 1").await.0, Code::Unauthenticated);
    let mut plain = connect(&mutual.server, &mutual.trusted, None).await.unwrap();
    assert_eq!(failure(&mut plain, "SELECT 1").await.0, Code::Unauthenticated);
    plain.handshake("bob", "bob-secret").await.unwrap();
    assert_eq!(rows(&mut plain, "SELECT current_user()").await, ["bob"]);
    // A user that is dropped is gone with the next call.
    mutual.server.engine.catalog().drop_user("ada").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(failure(&mut client, "SELECT 1").await.0, Code::Unauthenticated);
}

#[tokio::test]
async fn a_required_certificate_is_required_and_must_be_the_right_ones() {
    let table = [("spiffe://x/report", "bob")];
    let mutual = start(true, CertificateName::Uri, &table).await;
    let right = issued(&mutual.issuer, "whoever", "spiffe://x/report");
    let mut client = connect(&mutual.server, &mutual.trusted, Some(right)).await.unwrap();
    assert_eq!(rows(&mut client, "SELECT current_user()").await, ["bob"]);
    let strangers = issued(&issuer(), "whoever", "spiffe://x/report");
    for identity in [None, Some(strangers)] {
        // TLS 1.3 tells the client only when it reads.
        let refused = match connect(&mutual.server, &mutual.trusted, identity).await {
            Err(_) => true,
            Ok(mut client) => client.handshake("bob", "bob-secret").await.is_err(),
        };
        assert!(refused);
    }
    // The certificate alone is no other user's login.
    let unlisted = issued(&mutual.issuer, "bob", "spiffe://x/other");
    let mut client = connect(&mutual.server, &mutual.trusted, Some(unlisted)).await.unwrap();
    assert_eq!(failure(&mut client, "SELECT 1").await.0, Code::Unauthenticated);
    assert!(client.handshake("bob", "wrong").await.is_err());
}

/// Whether a client's certificate is believed; TLS 1.3 tells only who asks for something.
async fn is_believed(mutual: &Mutual, identity: &Identity) -> bool {
    match connect(&mutual.server, &mutual.trusted, Some(identity.clone())).await {
        Ok(mut client) => client.execute("SELECT 1".into(), None).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn clients_of_an_authority_that_was_replaced_are_refused() {
    let mutual = start(true, CertificateName::CommonName, &[]).await;
    let next = issuer();
    let old = issued(&mutual.issuer, "ada", "spiffe://x/1");
    let new = issued(&next, "ada", "spiffe://x/1");
    let mut open = connect(&mutual.server, &mutual.trusted, Some(old.clone())).await.unwrap();
    assert_eq!(rows(&mut open, "SELECT current_user()").await, ["ada"]);
    assert!(is_believed(&mutual, &old).await && !is_believed(&mutual, &new).await);
    std::fs::write(mutual.folder.path().join(CLIENTS), next.as_ref().pem()).unwrap();
    let seen = tokio::time::timeout(Duration::from_secs(20), async {
        while !is_believed(&mutual, &new).await {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    seen.await.expect("the new authority is believed");
    assert!(!is_believed(&mutual, &old).await, "a session was resumed past the new authority");
    assert_eq!(rows(&mut open, "SELECT 1").await, ["1"], "what was open stays open");
}

async fn reaches(server: &TestServer, trusted: &str) -> bool {
    connect(server, trusted, None).await.is_ok()
}

#[tokio::test]
async fn a_certificate_is_replaced_while_the_server_runs() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let (files, first) = certificate(folder.path(), "localhost");
    let tls = Some(Tls::open(files).unwrap());
    let server = start_with(FlightOptions { tls, ..options() }).await;
    let mut old = connect(&server, &first, None).await.unwrap();
    old.handshake("ada", "ada-secret").await.unwrap();
    // A silent client holds nobody up.
    let silent = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let second = replaced(folder.path());
    let seen = tokio::time::timeout(Duration::from_secs(20), async {
        while !reaches(&server, &second).await {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    seen.await.expect("the new certificate is served");
    assert!(!reaches(&server, &first).await);
    assert_eq!(rows(&mut old, "SELECT 1").await, ["1"], "what was open stays open");
    drop(silent);
}

fn replaced(folder: &Path) -> String {
    certificate(folder, "localhost").1
}
