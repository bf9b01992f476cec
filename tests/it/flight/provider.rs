//! Tokens of an identity provider: keys from a file and from a URL, rotation, and what is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use attune::auth::CredentialOptions;
use attune::auth::jwks::KeySource;
use attune::auth::oidc::OidcOptions;
use attune::server::flight::FlightOptions;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use super::support::{NOW_MS, TestServer, failure, options, rows, start_with};

const ISSUER: &str = "https://id.example.org";

/// A key of the provider.
struct Key {
    id: &'static str,
    algorithm: Algorithm,
    signs: EncodingKey,
    public: Value,
}

fn key(id: &'static str) -> Key {
    key_for(id, Algorithm::ES256)
}

fn key_for(id: &'static str, algorithm: Algorithm) -> Key {
    use rcgen::{KeyPair, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
    let signs = match algorithm {
        Algorithm::RS256 => {
            let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
            EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap()
        }
        Algorithm::EdDSA => edwards(&KeyPair::generate_for(&PKCS_ED25519).unwrap()),
        _ => {
            let pair = KeyPair::generate().unwrap();
            EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap()
        }
    };
    let mut public = Jwk::from_encoding_key(&signs, algorithm).unwrap();
    public.common.key_id = Some(id.to_owned());
    Key { id, algorithm, public: serde_json::to_value(&public).unwrap(), signs }
}

/// The signer reads PKCS #8's older form, without the public half (RFC 8410, section 7); the
/// generator may write the newer one, which begins alike.
fn edwards(pair: &rcgen::KeyPair) -> EncodingKey {
    const HEAD: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let written = pair.serialize_der();
    EncodingKey::from_ed_der(&[&HEAD, &written[16..48]].concat())
}

fn set(keys: &[&Key]) -> String {
    let keys: Vec<&Value> = keys.iter().map(|key| &key.public).collect();
    json!({ "keys": keys }).to_string()
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": ["other", "attune"], "sub": "carol",
        "iat": NOW_MS / 1_000, "exp": NOW_MS / 1_000 + 600,
        "realm": { "roles": ["data-science", "unheard-of"] },
    })
}

fn token(key: &Key, claims: &Value) -> String {
    let header = Header { kid: Some(key.id.to_owned()), ..Header::new(key.algorithm) };
    jsonwebtoken::encode(&header, claims, &key.signs).unwrap()
}

async fn start(keys: KeySource) -> TestServer {
    let oidc = OidcOptions {
        issuer: ISSUER.into(),
        audiences: vec!["attune".into()],
        keys,
        user_claim: "sub".into(),
        user_prefix: String::new(),
        roles_claim: Some("realm.roles".into()),
        roles: BTreeMap::from([("data-science".into(), "admin".into())]),
        algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
        leeway: Duration::from_secs(60),
        refresh: Duration::from_secs(3_600),
    };
    let credentials = CredentialOptions { oidc: Some(oidc), ..CredentialOptions::default() };
    start_with(FlightOptions { credentials, ..options() }).await
}

async fn code(server: &TestServer, token: &str) -> Code {
    failure(&mut server.bearer(token).await, "SELECT 1").await.0
}

#[tokio::test]
async fn claims_make_the_principal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let key = key("one");
    std::fs::write(&file, set(&[&key])).unwrap();
    let server = start(KeySource::File(file)).await;
    let mut client = server.bearer(&token(&key, &claims())).await;
    assert_eq!(rows(&mut client, "SELECT current_user()").await, ["carol"]);
    // Only an admin sees other principals' sessions: the provider's role was translated.
    let _ada = server.login("ada").await;
    let seen = "SELECT principal FROM system.sessions ORDER BY 1";
    assert_eq!(rows(&mut client, seen).await, ["ada", "carol"]);
    // The connection has one session, also with the provider's next token.
    client.execute_update("SET purpose = 'research'".into(), None).await.unwrap();
    client.set_token(token(&key, &{
        let mut next = claims();
        next["exp"] = json!(NOW_MS / 1_000 + 900);
        next
    }));
    assert_eq!(rows(&mut client, "SELECT current_purpose()").await, ["research"]);
    // A role that goes away goes away with the token that no longer says it.
    client.set_token(token(&key, &{
        let mut less = claims();
        less["realm"] = json!({ "roles": [] });
        less
    }));
    assert_eq!(rows(&mut client, seen).await, ["carol"]);
    server.later(Duration::from_secs(661));
    assert_eq!(failure(&mut client, "SELECT 1").await.0, Code::Unauthenticated);
}

#[tokio::test]
async fn each_algorithm_that_is_allowed_is_checked_with_its_own_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let keys = [
        key_for("rsa", Algorithm::RS256),
        key_for("elliptic", Algorithm::ES256),
        key_for("edwards", Algorithm::EdDSA),
    ];
    std::fs::write(&file, set(&keys.each_ref())).unwrap();
    let server = start(KeySource::File(file)).await;
    for (index, good) in keys.iter().enumerate() {
        let mut client = server.bearer(&token(good, &claims())).await;
        assert_eq!(rows(&mut client, "SELECT current_user()").await, ["carol"], "{}", good.id);
        // The same signature under the name of another key.
        let other = &keys[(index + 1) % keys.len()];
        let header = Header { kid: Some(other.id.into()), ..Header::new(good.algorithm) };
        let swapped = jsonwebtoken::encode(&header, &claims(), &good.signs).unwrap();
        assert_eq!(code(&server, &swapped).await, Code::Unauthenticated, "{}", good.id);
    }
}

#[tokio::test]
async fn tokens_that_the_provider_did_not_make_for_us_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let (key, other) = (key("one"), key("one"));
    std::fs::write(&file, set(&[&key])).unwrap();
    let server = start(KeySource::File(file)).await;
    let with = |name: &str, value: Value| {
        let mut changed = claims();
        changed[name] = value;
        token(&key, &changed)
    };
    let without = |name: &str| {
        let mut changed = claims();
        changed.as_object_mut().unwrap().remove(name);
        token(&key, &changed)
    };
    let good = token(&key, &claims());
    let (message, _) = good.rsplit_once('.').unwrap();
    // A public key taken for a secret, the oldest trick.
    let confused = jsonwebtoken::encode(
        &Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) },
        &claims(),
        &EncodingKey::from_secret(key.public.to_string().as_bytes()),
    );
    let unnamed = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims(), &key.signs);
    for refused in [
        with("aud", json!("another service")),
        with("iss", json!("https://evil.example.org")),
        with("exp", json!(NOW_MS / 1_000 - 61)),
        with("nbf", json!(NOW_MS / 1_000 + 120)),
        with("sub", json!("main")),
        with("sub", json!("system")),
        with("sub", json!("")),
        with("sub", json!(["root"])),
        without("exp"),
        without("aud"),
        without("iss"),
        without("sub"),
        token(&other, &claims()),
        confused.unwrap(),
        unnamed.unwrap(),
        format!("{message}."),
        good[..good.len() - 3].to_owned(),
    ] {
        assert_eq!(code(&server, &refused).await, Code::Unauthenticated, "{refused}");
    }
    assert_eq!(rows(&mut server.bearer(&good).await, "SELECT 1").await, ["1"]);
    // Within the leeway a token is still good.
    let mut late = server.bearer(&with("exp", json!(NOW_MS / 1_000 - 30))).await;
    assert_eq!(rows(&mut late, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn keys_come_from_a_url_and_rotate() {
    let (first, second) = (key("first"), key("second"));
    let body = Arc::new(Mutex::new(set(&[&first])));
    let asked = Arc::new(AtomicUsize::new(0));
    let url = provider(Arc::clone(&body), Arc::clone(&asked)).await;
    let server = start(KeySource::Url(url)).await;
    let (old, new) = (token(&first, &claims()), token(&second, &claims()));
    assert_eq!(rows(&mut server.bearer(&old).await, "SELECT 1").await, ["1"]);
    // Tokens with keys that nobody has do not make the server ask again and again.
    for _ in 0..5 {
        assert_eq!(code(&server, &new).await, Code::Unauthenticated);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    *body.lock() = set(&[&second]);
    let seen = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let mut client = server.bearer(&new).await;
            if client.execute("SELECT 1".into(), None).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    seen.await.expect("the new key is found");
    assert_eq!(code(&server, &old).await, Code::Unauthenticated, "its key is gone");
}

/// The smallest HTTP server that gives a key set.
async fn provider(body: Arc<Mutex<String>>, asked: Arc<AtomicUsize>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            asked.fetch_add(1, Ordering::Relaxed);
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let body = body.lock().clone();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    format!("http://{address}/keys")
}
