//! An identity provider's public keys: a JSON Web Key Set (RFC 7517) from a file or a URL.
//!
//! The set is read again when it is older than `refresh`, and at once when a token names a key that
//! is not in it, so that a rotation is seen without a restart; but never more often than every five
//! seconds, whatever tokens strangers send. When reading fails the keys of before stay, and the log
//! says so.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use serde_json::Value;

/// Between two readings at least.
const PAUSE: Duration = Duration::from_secs(5);
/// A provider that has not answered by then is given up.
const FETCH_MAX: Duration = Duration::from_secs(10);
/// A larger set is no set.
const BYTES_MAX: usize = 1 << 20;

/// Where the keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A local file.
    File(PathBuf),
    /// `https://…`, or `http://` on this machine.
    Url(String),
}

/// The keys, as they were read last.
pub struct KeySet {
    source: KeySource,
    refresh: Duration,
    state: Mutex<State>,
    // Held while the set is read, so that many tokens wait for one reading.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    keys: Arc<Vec<Jwk>>,
    read: Option<Instant>,
    tried: Option<Instant>,
}

impl KeySet {
    /// The keys at `source`; nothing is read yet.
    pub fn new(source: KeySource, refresh: Duration) -> Self {
        Self { source, refresh, state: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// The key that a token of this algorithm and key id is to be checked with.
    pub async fn key(&self, algorithm: Algorithm, id: &str, now: Instant) -> Option<DecodingKey> {
        let stale = {
            let state = self.state.lock();
            state.read.is_none_or(|read| now.saturating_duration_since(read) >= self.refresh)
        };
        if stale {
            self.refresh(now).await;
        }
        if let Some(key) = self.find(algorithm, id) {
            return Some(key);
        }
        self.refresh(now).await;
        self.find(algorithm, id)
    }

    /// Reads the set; how many of its keys can be used.
    ///
    /// # Errors
    /// When the file or the provider gives no key set.
    pub async fn read(&self) -> Result<Vec<Jwk>, String> {
        let text = match &self.source {
            KeySource::File(path) => tokio::fs::read(path)
                .await
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
            KeySource::Url(url) => fetch(url).await?,
        };
        parse(&text)
    }

    fn find(&self, algorithm: Algorithm, id: &str) -> Option<DecodingKey> {
        let keys = Arc::clone(&self.state.lock().keys);
        let key = keys.iter().find(|key| key.common.key_id.as_deref() == Some(id))?;
        if !serves(key, algorithm) {
            return None;
        }
        DecodingKey::from_jwk(key).ok().filter(|key| key.family() == algorithm.family())
    }

    async fn refresh(&self, now: Instant) {
        let may = |state: &State| {
            state.tried.is_none_or(|tried| now.saturating_duration_since(tried) >= PAUSE)
        };
        if !may(&self.state.lock()) {
            return;
        }
        let _turn = self.turn.lock().await;
        if !may(&self.state.lock()) {
            return;
        }
        let keys = self.read().await;
        let mut state = self.state.lock();
        state.tried = Some(now);
        match keys {
            Ok(keys) => {
                tracing::debug!(keys = keys.len(), "the identity provider's keys were read");
                state.keys = Arc::new(keys);
                state.read = Some(now);
            }
            Err(reason) => {
                tracing::error!("the identity provider's keys stay as they were: {reason}");
            }
        }
    }
}

/// Whether a key may check signatures of an algorithm.
fn serves(key: &Jwk, algorithm: Algorithm) -> bool {
    let signs =
        key.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let named = key.common.key_algorithm.is_none_or(|named| {
        // The names of both lists are the same.
        named.to_string().parse::<Algorithm>().is_ok_and(|named| named == algorithm)
    });
    let fits = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), Algorithm::RS256) => true,
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES256) => {
            key.curve == EllipticCurve::P256
        }
        (AlgorithmParameters::OctetKeyPair(key), Algorithm::EdDSA) => {
            key.curve == EllipticCurve::Ed25519
        }
        _ => false,
    };
    signs && named && fits
}

/// The keys of a set; those of kinds that are not known are left out.
fn parse(text: &[u8]) -> Result<Vec<Jwk>, String> {
    let set: Value = serde_json::from_slice(text).map_err(|error| format!("no JSON: {error}"))?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("the JSON has no list of keys")?;
    let read = keys.iter().filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok());
    Ok(read.filter(|key| !matches!(key.algorithm, AlgorithmParameters::Other(_))).collect())
}

async fn fetch(url: &str) -> Result<Vec<u8>, String> {
    // The client asks for the process's provider; one that is installed already stays.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder()
        .timeout(FETCH_MAX)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| format!("no client: {error}"))?;
    let failed = |error: reqwest::Error| format!("cannot fetch {url}: {error}");
    let mut answer = client.get(url).send().await.map_err(failed)?;
    if !answer.status().is_success() {
        return Err(format!("{url} answered {}", answer.status()));
    }
    let mut text = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(failed)? {
        if text.len() + part.len() > BYTES_MAX {
            return Err(format!("{url} answered more than {BYTES_MAX} bytes"));
        }
        text.extend_from_slice(&part);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"ID","use":"sig",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    fn set(ids: &[&str]) -> String {
        let keys: Vec<String> = ids.iter().map(|id| ED25519.replace("ID", id)).collect();
        format!(r#"{{"keys":[{},{{"kty":"strange"}},7]}}"#, keys.join(","))
    }

    #[tokio::test]
    async fn a_rotation_is_seen_but_strangers_do_not_make_us_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        std::fs::write(&file, set(&["one"])).unwrap();
        let keys = KeySet::new(KeySource::File(file.clone()), Duration::from_secs(3_600));
        let start = Instant::now();
        assert!(keys.key(Algorithm::EdDSA, "one", start).await.is_some());
        std::fs::write(&file, set(&["two"])).unwrap();
        assert!(keys.key(Algorithm::EdDSA, "two", start + PAUSE / 2).await.is_none());
        assert!(keys.key(Algorithm::EdDSA, "one", start + PAUSE / 2).await.is_some());
        assert!(keys.key(Algorithm::EdDSA, "two", start + PAUSE).await.is_some());
        assert!(keys.key(Algorithm::EdDSA, "one", start + PAUSE).await.is_none());
        std::fs::remove_file(&file).unwrap();
        let later = start + Duration::from_secs(7_200);
        assert!(keys.key(Algorithm::EdDSA, "two", later).await.is_some(), "the old keys stay");
    }

    #[test]
    fn a_key_serves_its_own_algorithm_only() {
        let keys = parse(set(&["one"]).as_bytes()).unwrap();
        assert_eq!(keys.len(), 1);
        assert!(serves(&keys[0], Algorithm::EdDSA));
        for algorithm in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256] {
            assert!(!serves(&keys[0], algorithm));
        }
        let encrypts = ED25519.replace("\"sig\"", "\"enc\"");
        let key: Jwk = serde_json::from_str(&encrypts).unwrap();
        assert!(!serves(&key, Algorithm::EdDSA));
        let secret: Jwk = serde_json::from_str(r#"{"kty":"oct","k":"AAAA","kid":"x"}"#).unwrap();
        assert!(!serves(&secret, Algorithm::HS256));
    }

    #[test]
    fn what_is_no_set_is_an_error() {
        for text in ["", "{}", "[]", "{\"keys\":1}"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
