//! Keyed tokens in place of values: of literals and parameters in the texts of statements, and of
//! the ids of persons whom the record names. Two statements that ask for the same value show the
//! same token, and nobody without the record's secret can compute it. Whoever sees the texts of
//! others can still try a guess, by asking for it.
//!
//! token(value) = the first twelve hexadecimal digits of HMAC-SHA256 (RFC 2104) over the value's
//! text, under a key of the record's secret that signs nothing. Of a million different values, two
//! have one token with a probability of two in a thousand.
//!
//! A statement that goes on record has tokens under the record's secret, which is made when there
//! is none. What goes into no record does not make a warehouse write: until its secret is there,
//! such texts have tokens under a key that this process draws, and are the same for its life alone.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::hmac;

use super::{FOLDER, sign};
use crate::Catalog;
use crate::error::Result;

/// Bytes of a token, each two digits.
const TOKEN_BYTES: usize = 6;
/// How long a secret that could not be had is not asked for again.
const RETRY_MS: i64 = 1_000;

/// Makes tokens of values.
pub struct ValueTokens(hmac::Key);

impl fmt::Debug for ValueTokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ValueTokens(…)")
    }
}

impl ValueTokens {
    /// Those under a key.
    pub fn under(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Those under a key that nobody else has.
    fn drawn() -> Self {
        let random = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        Self::under(&random.map(uuid::Uuid::into_bytes).concat())
    }

    /// The token of a value, given as text.
    pub fn token(&self, value: &str) -> String {
        let tag = hmac::sign(&self.0, value.as_bytes());
        let tag: &[u8] = tag.as_ref();
        let mut token = String::with_capacity(2 * TOKEN_BYTES);
        for byte in tag.iter().take(TOKEN_BYTES) {
            let digits = [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16));
            token.extend(digits.into_iter().flatten());
        }
        token
    }
}

/// What a process knows of tokens.
pub(super) struct Values {
    /// Those under the record's secret, once it is known.
    kept: OnceLock<Arc<ValueTokens>>,
    /// Those of this process.
    own: Arc<ValueTokens>,
    /// Whether the warehouse was looked into, and had no secret.
    looked: AtomicBool,
    /// When the secret could not be had last.
    failed_ms: AtomicI64,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            kept: OnceLock::new(),
            own: Arc::new(ValueTokens::drawn()),
            looked: AtomicBool::new(false),
            failed_ms: AtomicI64::new(i64::MIN),
        }
    }
}

impl Values {
    fn keep(&self, tokens: ValueTokens) -> Arc<ValueTokens> {
        Arc::clone(self.kept.get_or_init(|| Arc::new(tokens)))
    }

    fn own(&self) -> Arc<ValueTokens> {
        Arc::clone(&self.own)
    }
}

impl Catalog {
    /// What makes the tokens of values in a text, which may be going on record. `None` for one that
    /// may be, while the record's secret cannot be had: other tokens would look like other values.
    pub async fn value_tokens(&self, recorded: bool) -> Option<Arc<ValueTokens>> {
        let values = &self.audit.values;
        if let Some(kept) = values.kept.get() {
            return Some(Arc::clone(kept));
        }
        let now_ms = self.now_ms();
        let since_ms = now_ms.saturating_sub(values.failed_ms.load(Ordering::Relaxed));
        if (0..RETRY_MS).contains(&since_ms) || (!recorded && values.looked.load(Ordering::Relaxed))
        {
            return (!recorded).then(|| values.own());
        }
        // On the heap: it happens once, and every statement would have place for it.
        let found = match recorded {
            true => Box::pin(self.made_value_tokens()).await.map(Some),
            false => Box::pin(self.found_value_tokens()).await,
        };
        match found {
            Ok(Some(tokens)) => Some(values.keep(tokens)),
            Ok(None) => {
                values.looked.store(true, Ordering::Relaxed);
                Some(values.own())
            }
            Err(error) => {
                values.failed_ms.store(now_ms, Ordering::Relaxed);
                tracing::warn!(%error, "the secret under which values have tokens cannot be had");
                (!recorded).then(|| values.own())
            }
        }
    }

    /// The token in place of somebody's id: the one that the id has as a value in texts. Where
    /// nothing is recorded yet, the record's secret is made.
    ///
    /// # Errors
    /// When the warehouse cannot be read or, to make the secret, not written.
    pub async fn audit_token(&self, id: &str) -> Result<String> {
        let values = &self.audit.values;
        let tokens = match values.kept.get() {
            Some(kept) => Arc::clone(kept),
            None => values.keep(self.made_value_tokens().await?),
        };
        Ok(tokens.token(id))
    }

    async fn found_value_tokens(&self) -> Result<Option<ValueTokens>> {
        let folder = self.warehouse.place().child(FOLDER);
        let secret = sign::found_secret(&folder, self.audit.config.secret.as_ref()).await?;
        secret.map(|secret| sign::value_tokens(&secret)).transpose()
    }

    async fn made_value_tokens(&self) -> Result<ValueTokens> {
        if let Some(tokens) = self.found_value_tokens().await? {
            return Ok(tokens);
        }
        self.writable().await?;
        let folder = self.warehouse.place().child(FOLDER);
        sign::value_tokens(&sign::own_secret(&folder).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::audit::Level;
    use crate::store::Secret;
    use crate::testing::Shared;

    async fn open(shared: &Shared) -> Arc<Catalog> {
        let open = shared.open_with(|config| {
            config.audit.level = Level::All;
            config.audit.delay = Duration::from_millis(1);
        });
        open.await
    }

    async fn open_under(shared: &Shared, secret: String) -> Arc<Catalog> {
        shared.open_with(|config| config.audit.secret = Some(Secret::new(secret))).await
    }

    #[test]
    fn a_token_is_the_beginning_of_an_hmac() {
        // The first two vectors of RFC 4231.
        let tokens = ValueTokens::under(&[0x0b; 20]);
        assert_eq!(tokens.token("Hi There"), "b0344c61d8db");
        assert_eq!(
            ValueTokens::under(b"Jefe").token("what do ya want for nothing?"),
            "5bdcc146bf60"
        );
        assert_eq!(format!("{tokens:?}"), "ValueTokens(…)");
    }

    #[tokio::test]
    async fn what_goes_on_record_has_the_same_tokens_on_every_server() {
        let shared = Shared::new();
        let (one, two) = (open(&shared).await, open(&shared).await);
        let of = one.value_tokens(true).await.unwrap();
        let token = of.token("ann@example.org");
        assert_eq!(token.len(), 12);
        assert_ne!(of.token("bob@example.org"), token);
        // Also what is not recorded, once there is a secret.
        assert_eq!(two.value_tokens(false).await.unwrap().token("ann@example.org"), token);
        assert_eq!(two.audit_token("ann@example.org").await.unwrap(), token);
        let other = open(&Shared::new()).await;
        assert_ne!(other.audit_token("ann@example.org").await.unwrap(), token);
    }

    #[tokio::test]
    async fn what_is_not_recorded_has_tokens_of_the_process_until_there_is_a_secret() {
        let shared = Shared::new();
        let (one, two) = (open(&shared).await, open(&shared).await);
        let mine = one.value_tokens(false).await.unwrap().token("7");
        assert_eq!(one.value_tokens(false).await.unwrap().token("7"), mine);
        assert_ne!(two.value_tokens(false).await.unwrap().token("7"), mine);
        // Nothing was written for it.
        let folder = shared.place.child(FOLDER);
        assert!(sign::found_secret(&folder, None).await.unwrap().is_none());
        let kept = one.audit_token("7").await.unwrap();
        assert_ne!(kept, mine);
        assert_eq!(one.value_tokens(false).await.unwrap().token("7"), kept);
    }

    #[tokio::test]
    async fn a_configured_secret_makes_the_tokens_and_a_bad_one_none() {
        let shared = Shared::new();
        let one = open_under(&shared, "s".repeat(32)).await;
        let two = open_under(&shared, "t".repeat(32)).await;
        let token = one.value_tokens(true).await.unwrap().token("7");
        assert_ne!(two.value_tokens(true).await.unwrap().token("7"), token);
        let bad = open_under(&shared, "short".to_owned()).await;
        assert!(bad.value_tokens(true).await.is_none());
        assert!(bad.value_tokens(false).await.is_some());
        assert!(bad.audit_token("7").await.is_err());
    }
}
