//! The sessions that are open now, by the key that leads to them.
//!
//! A key is what a credential proves: a session token's id, an API token with its connection, a
//! connection. A session ends when nothing used it for `idle`, when it is older than `lifetime`,
//! when it is removed, or when its owner opens more than `per_owner_max`: then the one used longest
//! ago goes, because clients that never log out are common and must not lock their user out. A
//! value that somebody still holds, such as a stream that is being read, does not count as idle.
//!
//! A key that was bound `once` stays known after its end, so that a token whose session ended here
//! opens no other. The time is an argument, so that tests have their own clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;

/// So many ended keys are remembered; the one that would end first goes first.
const ENDED_MAX: usize = 100_000;

/// When sessions end.
#[derive(Debug, Clone, Copy)]
pub struct LivePolicy {
    /// After this long without a call.
    pub idle: Duration,
    /// After this long in any case.
    pub lifetime: Duration,
    /// So many sessions an owner; one more ends the one used longest ago.
    pub per_owner_max: usize,
}

struct Entry<T> {
    owner: String,
    value: Arc<T>,
    issued: Instant,
    used: Instant,
    once: bool,
}

struct State<T> {
    entries: HashMap<String, Entry<T>>,
    /// Keys that were bound once, with the end of their lifetime.
    ended: HashMap<String, Instant>,
}

/// What a key leads to once something was bound to it.
pub struct Bound<T> {
    /// The session.
    pub value: Arc<T>,
    /// The session that it took the place of.
    pub replaced: Option<Arc<T>>,
}

/// The open sessions.
pub struct Live<T> {
    policy: LivePolicy,
    state: Mutex<State<T>>,
}

impl<T> Live<T> {
    /// None yet.
    pub fn new(policy: LivePolicy) -> Self {
        let state = State { entries: HashMap::new(), ended: HashMap::new() };
        Self { policy, state: Mutex::new(state) }
    }

    /// Binds `value` to a key, unless the key leads to a session already that `stays`, such as one
    /// that another call of the same connection bound a moment ago.
    pub fn bind(
        &self,
        key: &str,
        owner: &str,
        value: Arc<T>,
        once: bool,
        now: Instant,
        stays: impl Fn(&T) -> bool,
    ) -> Bound<T> {
        let mut state = self.state.lock();
        self.drop_ended(&mut state, now);
        if let Some(entry) = state.entries.get_mut(key)
            && stays(&entry.value)
        {
            entry.used = now;
            return Bound { value: Arc::clone(&entry.value), replaced: None };
        }
        let replaced = state.entries.remove(key).map(|entry| entry.value);
        let mine = state.entries.iter().filter(|(_, entry)| entry.owner == owner);
        let (mut held, mut oldest) = (0, None);
        for (key, entry) in mine {
            held += 1;
            if oldest.as_ref().is_none_or(|(used, _)| entry.used < *used) {
                oldest = Some((entry.used, key.clone()));
            }
        }
        if let Some((_, key)) = oldest
            && held >= self.policy.per_owner_max.max(1)
        {
            self.remove(&mut state, &key);
        }
        let entry = Entry {
            owner: owner.to_owned(),
            value: Arc::clone(&value),
            issued: now,
            used: now,
            once,
        };
        state.entries.insert(key.to_owned(), entry);
        Bound { value, replaced }
    }

    /// What the key leads to; counts as a use.
    pub fn get(&self, key: &str, now: Instant) -> Option<Arc<T>> {
        let mut state = self.state.lock();
        let entry = state.entries.get_mut(key)?;
        if self.policy.ended(entry, now) {
            self.remove(&mut state, key);
            return None;
        }
        entry.used = now;
        Some(Arc::clone(&entry.value))
    }

    /// Ends a session; what its key led to.
    pub fn end(&self, key: &str) -> Option<Arc<T>> {
        let mut state = self.state.lock();
        self.remove(&mut state, key)
    }

    /// Whether a key that was bound once has led to a session that is gone.
    pub fn has_ended(&self, key: &str) -> bool {
        self.state.lock().ended.contains_key(key)
    }

    /// Forgets what has ended, and what `unwanted` says.
    pub fn sweep(&self, unwanted: impl Fn(&T) -> bool, now: Instant) {
        let mut state = self.state.lock();
        let gone: Vec<String> = state
            .entries
            .iter()
            .filter(|(_, entry)| unwanted(&entry.value))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.remove(&mut state, &key);
        }
        self.drop_ended(&mut state, now);
        state.ended.retain(|_, until| *until > now);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.state.lock().entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.state.lock().entries.is_empty()
    }

    fn drop_ended(&self, state: &mut State<T>, now: Instant) {
        let ended = state.entries.iter().filter(|(_, entry)| self.policy.ended(entry, now));
        let ended: Vec<String> = ended.map(|(key, _)| key.clone()).collect();
        for key in ended {
            self.remove(state, &key);
        }
    }

    fn remove(&self, state: &mut State<T>, key: &str) -> Option<Arc<T>> {
        let entry = state.entries.remove(key)?;
        if entry.once {
            if state.ended.len() >= ENDED_MAX {
                let first = state.ended.iter().min_by_key(|(_, until)| **until);
                let first = first.map(|(key, _)| key.clone());
                first.map(|key| state.ended.remove(&key));
            }
            state.ended.insert(key.to_owned(), entry.issued + self.policy.lifetime);
        }
        Some(entry.value)
    }
}

impl LivePolicy {
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

    fn live(per_owner_max: usize) -> Live<&'static str> {
        Live::new(LivePolicy { idle: 10 * SECOND, lifetime: 25 * SECOND, per_owner_max })
    }

    fn bind(live: &Live<&'static str>, key: &str, owner: &str, once: bool, now: Instant) {
        live.bind(key, owner, Arc::new("x"), once, now, |_| true);
    }

    #[test]
    fn use_postpones_idleness_but_not_the_end_of_life() {
        let live = live(9);
        let start = Instant::now();
        bind(&live, "key", "ada", true, start);
        assert!(live.get("key", start + 9 * SECOND).is_some());
        assert!(live.get("key", start + 18 * SECOND).is_some());
        assert!(!live.has_ended("key"));
        assert!(live.get("key", start + 25 * SECOND).is_none());
        assert!(live.has_ended("key"));
        live.sweep(|_| false, start + 26 * SECOND);
        assert!(!live.has_ended("key"), "its token has ended by itself");
    }

    #[test]
    fn an_idle_session_ends_unless_it_is_in_use() {
        let live = live(9);
        let start = Instant::now();
        let held = Arc::new("held");
        bind(&live, "idle", "ada", false, start);
        live.bind("busy", "ada", Arc::clone(&held), false, start, |_| true);
        live.sweep(|_| false, start + 11 * SECOND);
        assert!(live.get("idle", start + 11 * SECOND).is_none());
        assert!(live.get("busy", start + 11 * SECOND).is_some());
        assert!(!live.has_ended("idle"), "its key may open another");
    }

    #[test]
    fn one_owner_cannot_push_out_another() {
        let live = live(2);
        let start = Instant::now();
        for (key, owner, at) in [("b", "bob", 0), ("1", "ada", 0), ("2", "ada", 1), ("3", "ada", 2)]
        {
            bind(&live, key, owner, true, start + at * SECOND);
        }
        let now = start + 3 * SECOND;
        assert!(live.get("1", now).is_none() && live.has_ended("1"));
        for key in ["b", "2", "3"] {
            assert!(live.get(key, now).is_some());
        }
    }

    #[test]
    fn of_two_that_bind_one_key_the_first_stays_while_it_is_good() {
        let live = live(2);
        let now = Instant::now();
        let bind = |value, good| live.bind("key", "ada", Arc::new(value), false, now, |_| good);
        assert_eq!(*bind("first", true).value, "first");
        let second = bind("second", true);
        assert!(*second.value == "first" && second.replaced.is_none());
        let third = bind("third", false);
        assert_eq!((*third.value, third.replaced.as_deref()), ("third", Some(&"first")));
        assert_eq!(live.end("key").as_deref(), Some(&"third"));
        assert!(live.end("key").is_none() && live.is_empty());
    }

    #[test]
    fn what_is_unwanted_goes_with_the_sweep() {
        let live = live(9);
        let now = Instant::now();
        bind(&live, "kept", "ada", true, now);
        live.bind("killed", "ada", Arc::new("killed"), true, now, |_| true);
        live.sweep(|value| *value == "killed", now);
        assert_eq!(live.len(), 1);
        assert!(live.has_ended("killed") && !live.has_ended("kept"));
    }
}
