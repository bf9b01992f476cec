//! Bearer tokens: 256 random bits, each bound to one value (a session) and one owner (a principal).
//!
//! A token ends when nothing used it for `idle`, when it is older than `lifetime`, when it is
//! revoked, or when its owner opens more than `per_owner_max`: then the one used longest ago goes,
//! because clients that never log out are common and must not lock their user out. A value that
//! somebody still holds, such as a stream that is being read, does not count as idle.
//!
//! The time is an argument, so that tests have their own clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;

const TOKEN_BYTES: usize = 32;

/// When tokens end.
#[derive(Debug, Clone, Copy)]
pub struct TokenPolicy {
    /// After this long without a call.
    pub idle: Duration,
    /// After this long in any case.
    pub lifetime: Duration,
    /// So many tokens an owner; one more ends the one used longest ago.
    pub per_owner_max: usize,
}

struct Entry<T> {
    owner: String,
    value: Arc<T>,
    issued: Instant,
    used: Instant,
}

/// The tokens that are valid now, and what each stands for.
pub struct Tokens<T> {
    policy: TokenPolicy,
    entries: Mutex<HashMap<String, Entry<T>>>,
}

impl<T> Tokens<T> {
    /// No tokens yet.
    pub fn new(policy: TokenPolicy) -> Self {
        Self { policy, entries: Mutex::new(HashMap::new()) }
    }

    /// Makes a token for `value`; 43 characters of URL-safe base64.
    pub fn issue(
        &self,
        owner: &str,
        value: Arc<T>,
        now: Instant,
    ) -> Result<String, getrandom::Error> {
        let token = random_text(TOKEN_BYTES)?;
        self.bind(token.clone(), owner, value, now);
        Ok(token)
    }

    /// Binds `value` to a key that the caller chose, such as a connection's address.
    pub fn bind(&self, key: String, owner: &str, value: Arc<T>, now: Instant) {
        let mut entries = self.entries.lock();
        entries.retain(|_, entry| !self.policy.ended(entry, now));
        let mut mine: Vec<(Instant, String)> = entries
            .iter()
            .filter(|(_, entry)| entry.owner == owner)
            .map(|(key, entry)| (entry.used, key.clone()))
            .collect();
        if mine.len() >= self.policy.per_owner_max.max(1) {
            mine.sort();
            if let Some((_, oldest)) = mine.first() {
                entries.remove(oldest);
            }
        }
        entries.insert(key, Entry { owner: owner.to_owned(), value, issued: now, used: now });
    }

    /// What the token stands for, when it is valid; counts as a use.
    pub fn get(&self, token: &str, now: Instant) -> Option<Arc<T>> {
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(token)?;
        if self.policy.ended(entry, now) {
            entries.remove(token);
            return None;
        }
        entry.used = now;
        Some(Arc::clone(&entry.value))
    }

    /// Ends a token; whether it was there.
    pub fn revoke(&self, token: &str) -> bool {
        self.entries.lock().remove(token).is_some()
    }

    /// Forgets what has ended.
    pub fn sweep(&self, now: Instant) {
        self.entries.lock().retain(|_, entry| !self.policy.ended(entry, now));
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.entries.lock().is_empty()
    }
}

impl TokenPolicy {
    fn ended<T>(&self, entry: &Entry<T>, now: Instant) -> bool {
        let idle = now.saturating_duration_since(entry.used) >= self.idle;
        let old = now.saturating_duration_since(entry.issued) >= self.lifetime;
        // A holder beside this map is a call or a stream in progress.
        old || (idle && Arc::strong_count(&entry.value) == 1)
    }
}

/// `bytes` random bytes as URL-safe base64.
pub fn random_text(bytes: usize) -> Result<String, getrandom::Error> {
    let mut secret = vec![0u8; bytes];
    getrandom::fill(&mut secret)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn tokens(per_owner_max: usize) -> Tokens<&'static str> {
        Tokens::new(TokenPolicy { idle: 10 * SECOND, lifetime: 25 * SECOND, per_owner_max })
    }

    #[test]
    fn a_token_is_256_bits_and_never_the_same() {
        let tokens = tokens(9);
        let now = Instant::now();
        let one = tokens.issue("ada", Arc::new("one"), now).unwrap();
        let two = tokens.issue("ada", Arc::new("two"), now).unwrap();
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(&one).unwrap().len(), 32);
        assert_ne!(one, two);
        assert_eq!(tokens.get(&two, now).as_deref(), Some(&"two"));
    }

    #[test]
    fn use_postpones_idleness_but_not_the_end_of_life() {
        let tokens = tokens(9);
        let start = Instant::now();
        let token = tokens.issue("ada", Arc::new("x"), start).unwrap();
        assert!(tokens.get(&token, start + 9 * SECOND).is_some());
        assert!(tokens.get(&token, start + 18 * SECOND).is_some());
        assert!(tokens.get(&token, start + 25 * SECOND).is_none());
    }

    #[test]
    fn an_idle_token_ends_unless_its_value_is_in_use() {
        let tokens = tokens(9);
        let start = Instant::now();
        let idle = tokens.issue("ada", Arc::new("idle"), start).unwrap();
        let held = Arc::new("held");
        let busy = tokens.issue("ada", Arc::clone(&held), start).unwrap();
        tokens.sweep(start + 11 * SECOND);
        assert!(tokens.get(&idle, start + 11 * SECOND).is_none());
        assert!(tokens.get(&busy, start + 11 * SECOND).is_some());
    }

    #[test]
    fn one_owner_cannot_push_out_another() {
        let tokens = tokens(2);
        let start = Instant::now();
        let bob = tokens.issue("bob", Arc::new("b"), start).unwrap();
        let first = tokens.issue("ada", Arc::new("1"), start).unwrap();
        let second = tokens.issue("ada", Arc::new("2"), start + SECOND).unwrap();
        let third = tokens.issue("ada", Arc::new("3"), start + 2 * SECOND).unwrap();
        let now = start + 3 * SECOND;
        assert!(tokens.get(&first, now).is_none());
        for token in [&bob, &second, &third] {
            assert!(tokens.get(token, now).is_some());
        }
    }

    #[test]
    fn a_revoked_or_invented_token_is_unknown() {
        let tokens = tokens(2);
        let now = Instant::now();
        let token = tokens.issue("ada", Arc::new("x"), now).unwrap();
        assert!(tokens.revoke(&token));
        assert!(!tokens.revoke(&token));
        for bad in [token.as_str(), "", "\0", "Bearer"] {
            assert!(tokens.get(bad, now).is_none());
        }
    }
}
