//! API tokens, and the keys that sign session tokens: documents of the warehouse, so that every
//! server over it knows the same ones.
//!
//! Of an API token only the SHA-256 hash is kept; with 244 random bits that is as good as a slow
//! hash is for a password. A signing key serves a period of thirty days and is made by whichever
//! server comes first; the period's number is the key's id.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::registry::{CreateMode, Kind, ObjectName, Spec};
use crate::store::Secret;

/// How API tokens begin, so that scanners of source code recognise them.
pub const TOKEN_PREFIX: &str = "attune_";
/// A user's tokens at most.
const TOKENS_PER_USER_MAX: usize = 100;
/// How long a signing key is the one that signs.
const PERIOD_MS: i64 = 30 * 24 * 3_600_000;
/// The longest life of a session token: a key is kept for one period after its own.
pub const SESSION_LIFETIME_MS_MAX: i64 = PERIOD_MS;

/// What is kept of an API token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The token's name, unique among its user's.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// The SHA-256 hash of the secret, in hexadecimal digits.
    pub hash: String,
    /// The purpose of sessions opened with it.
    pub purpose: Option<String>,
    /// Who made it.
    pub made_by: String,
    /// When it was made, in Unix milliseconds.
    pub created_ms: i64,
    /// When it ends, in Unix milliseconds.
    pub expires_ms: Option<i64>,
}

impl fmt::Debug for TokenRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TokenRecord")
            .field("name", &self.name)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl TokenRecord {
    /// Whether it has ended by itself.
    pub fn has_expired(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|expires| now_ms >= expires)
    }
}

/// The SHA-256 hash of a text or of bytes, in hexadecimal digits.
pub fn digest(what: impl AsRef<[u8]>) -> String {
    Sha256::digest(what.as_ref()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A key's document.
#[derive(Serialize, Deserialize)]
struct KeyDocument {
    format: u32,
    secret: String,
}

impl Catalog {
    /// A new API token's secret: the prefix and 244 random bits.
    pub fn new_token_secret(&self) -> Secret {
        Secret::new(format!("{TOKEN_PREFIX}{}", random_digits()))
    }

    /// Keeps a token.
    ///
    /// # Errors
    /// `AlreadyExists` when the user has one of that name; `Invalid` when it has too many.
    pub async fn create_token(&self, token: TokenRecord) -> Result<()> {
        self.writable().await?;
        let held = self.tokens().await?.iter().filter(|held| held.user == token.user).count();
        if held >= TOKENS_PER_USER_MAX {
            return Err(Error::invalid_hint(
                format!("user {} has {held} tokens, which is the limit", token.user),
                "drop those that are not used: SHOW TOKENS",
            ));
        }
        let name = ObjectName::new(&token.user, &token.name);
        let owner = token.user.clone();
        self.tokens.create(&name, Spec::Token(token), &owner, CreateMode::New).await.map(|_| ())
    }

    /// Ends a token; `false` when there was none.
    ///
    /// # Errors
    /// When the warehouse cannot be written, or somebody else changed it at the same time.
    pub async fn drop_token(&self, user: &str, name: &str) -> Result<bool> {
        self.writable().await?;
        let name = ObjectName::new(user, name);
        if name.check().is_err() {
            return Ok(false);
        }
        self.tokens.drop_object(&name, Kind::Token).await
    }

    /// Ends every token of a user, who is to go or has just come: a new user of an old name must
    /// not find the old one's tokens alive.
    ///
    /// # Errors
    /// As [`Catalog::drop_token`].
    pub async fn drop_tokens_of(&self, user: &str) -> Result<()> {
        for token in self.tokens().await?.iter().filter(|token| token.user == user) {
            self.drop_token(user, &token.name).await?;
        }
        Ok(())
    }

    /// Every token, by user and name, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>> {
        let definitions = self.tokens.definitions().await?;
        Ok(definitions.values().filter_map(|found| record(&found.spec).cloned()).collect())
    }

    /// The token whose secret has this hash, at most a second old, expired or not.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn token_by_hash(&self, hash: &str) -> Result<Option<TokenRecord>> {
        let definitions = self.tokens.definitions().await?;
        let mut found = definitions.values().filter_map(|found| record(&found.spec));
        Ok(found.find(|token| token.hash == hash).cloned())
    }

    /// The number of the key that signs now.
    pub fn signing_period(&self) -> i64 {
        self.now_ms().max(0) / PERIOD_MS
    }

    /// The key of a period, made when it is the present one and not there yet; `None` for a
    /// period whose tokens have all ended or that is still to come.
    ///
    /// # Errors
    /// When the warehouse cannot be reached or, to make a key, not written.
    pub async fn signing_key(&self, period: i64) -> Result<Option<Arc<Secret>>> {
        let now = self.signing_period();
        if !(now - 1..=now + 1).contains(&period) {
            return Ok(None);
        }
        let place = self.warehouse.place().child(&format!("_attune/keys/{period}.json"));
        if let Some(content) = place.read_if_exists().await? {
            return key(place.url.as_ref(), &content).map(Some);
        }
        if period != now {
            return Ok(None);
        }
        self.writable().await?;
        let document = KeyDocument { format: 1, secret: random_digits() };
        let content = serde_json::to_vec(&document).map_err(|error| Error::Corrupt {
            what: place.url.to_string(),
            reason: error.to_string(),
        })?;
        if !place.create(content).await? {
            tracing::debug!(period, "another server made the signing key");
        }
        let old = self.warehouse.place().child(&format!("_attune/keys/{}.json", now - 2));
        if let Err(error) = old.remove().await {
            tracing::debug!(%error, "the key before last was not removed");
        }
        match place.read_if_exists().await? {
            Some(content) => key(place.url.as_ref(), &content).map(Some),
            None => Err(Error::Conflict { name: "the signing key".into() }),
        }
    }
}

/// 244 bits as 64 hexadecimal digits.
fn random_digits() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

fn key(what: &str, content: &[u8]) -> Result<Arc<Secret>> {
    let wrong = |reason: String| Error::Corrupt { what: what.to_owned(), reason };
    let document: KeyDocument =
        serde_json::from_slice(content).map_err(|error| wrong(error.to_string()))?;
    if document.format != 1 || document.secret.len() < 32 {
        return Err(wrong("it is no signing key of this version".into()));
    }
    Ok(Arc::new(Secret::new(document.secret)))
}

fn record(spec: &Spec) -> Option<&TokenRecord> {
    match spec {
        Spec::Token(token) => Some(token),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::{CatalogConfig, StoreConfig};

    async fn two(folder: &std::path::Path, clock: &Arc<AtomicI64>) -> [Arc<Catalog>; 2] {
        let open = || {
            let clock = Arc::clone(clock);
            let store = StoreConfig { url: folder.display().to_string(), ..Default::default() };
            let now = move || clock.load(Ordering::Relaxed);
            Catalog::open(CatalogConfig::new(store, Arc::new(now)))
        };
        [open().await.unwrap(), open().await.unwrap()]
    }

    fn token(user: &str, name: &str, secret: &str) -> TokenRecord {
        TokenRecord {
            name: name.into(),
            user: user.into(),
            hash: digest(secret),
            purpose: None,
            made_by: user.into(),
            created_ms: 0,
            expires_ms: Some(10),
        }
    }

    #[tokio::test]
    async fn a_token_is_known_by_its_hash_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(1_700_000_000_000));
        let [one, other] = two(folder.path(), &clock).await;
        let secret = one.new_token_secret();
        assert!(secret.reveal().starts_with(TOKEN_PREFIX));
        one.create_token(token("ada", "ci", secret.reveal())).await.unwrap();
        assert!(one.create_token(token("ada", "ci", "x")).await.is_err());
        one.create_token(token("bob", "ci", "y")).await.unwrap();
        let found = other.token_by_hash(&digest(secret.reveal())).await.unwrap().unwrap();
        assert_eq!((found.user.as_str(), found.has_expired(9)), ("ada", false));
        assert!(found.has_expired(10));
        assert!(other.drop_token("ada", "ci").await.unwrap());
        assert!(!other.drop_token("ada", "ci").await.unwrap());
        clock.fetch_add(1_000, Ordering::Relaxed);
        assert!(one.token_by_hash(&found.hash).await.unwrap().is_none());
        one.drop_tokens_of("bob").await.unwrap();
        assert!(one.tokens().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn servers_share_a_periods_key_and_keep_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(1_700_000_000_000));
        let [one, other] = two(folder.path(), &clock).await;
        let period = one.signing_period();
        let first = one.signing_key(period).await.unwrap().unwrap();
        let same = other.signing_key(period).await.unwrap().unwrap();
        assert_eq!(first.reveal(), same.reveal());
        clock.fetch_add(PERIOD_MS, Ordering::Relaxed);
        let second = other.signing_key(period + 1).await.unwrap().unwrap();
        assert_ne!(first.reveal(), second.reveal());
        assert_eq!(one.signing_key(period).await.unwrap().unwrap().reveal(), first.reveal());
        for never in [period - 1, period + 3] {
            assert!(one.signing_key(never).await.unwrap().is_none());
        }
    }
}
