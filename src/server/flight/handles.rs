//! Handles: 128 random bits that name a statement which the server keeps for a client.
//!
//! A handle is bound to the principal that made it and unknown to everybody else; it ends after
//! `ttl` without use; a principal has at most `per_owner_max`, and one more is refused rather than
//! pushing out one that a colleague's program still needs. The time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const HANDLE_BYTES: usize = 16;

/// The name of a kept statement, as the client sends it back.
pub type Handle = [u8; HANDLE_BYTES];

/// Why a handle was not made.
#[derive(Debug)]
pub enum HandleError {
    /// The principal holds as many as it may.
    Full {
        /// How many that is.
        held_max: usize,
    },
    /// The operating system gave no randomness.
    Random(getrandom::Error),
}

struct Entry<T> {
    owner: String,
    value: T,
    used: Instant,
}

/// What clients have asked the server to keep.
pub struct Handles<T> {
    ttl: Duration,
    per_owner_max: usize,
    in_use: fn(&T) -> bool,
    entries: Mutex<HashMap<Handle, Entry<T>>>,
}

impl<T: Clone> Handles<T> {
    /// Nothing kept yet. A value that is `in_use` does not end, however long ago it was asked for.
    pub fn new(ttl: Duration, per_owner_max: usize, in_use: fn(&T) -> bool) -> Self {
        Self { ttl, per_owner_max, in_use, entries: Mutex::new(HashMap::new()) }
    }

    /// Keeps `value` for `owner`.
    pub fn insert(&self, owner: &str, value: T, now: Instant) -> Result<Handle, HandleError> {
        let mut handle = [0u8; HANDLE_BYTES];
        getrandom::fill(&mut handle).map_err(HandleError::Random)?;
        let mut entries = self.entries.lock();
        if self.held(&entries, owner) >= self.per_owner_max {
            entries.retain(|_, entry| !self.ended(entry, now));
        }
        if self.held(&entries, owner) >= self.per_owner_max {
            return Err(HandleError::Full { held_max: self.per_owner_max });
        }
        entries.insert(handle, Entry { owner: owner.to_owned(), value, used: now });
        Ok(handle)
    }

    /// What `owner` keeps under the bytes of a handle; counts as a use.
    pub fn get(&self, owner: &str, handle: &[u8], now: Instant) -> Option<T> {
        let handle = Handle::try_from(handle).ok()?;
        let mut entries = self.entries.lock();
        let entry = entries.get_mut(&handle)?;
        if entry.owner != owner || self.ended(entry, now) {
            return None;
        }
        entry.used = now;
        Some(entry.value.clone())
    }

    /// Forgets a handle of `owner` and gives what it stood for.
    pub fn remove(&self, owner: &str, handle: &[u8]) -> Option<T> {
        let handle = Handle::try_from(handle).ok()?;
        let mut entries = self.entries.lock();
        if entries.get(&handle)?.owner != owner {
            return None;
        }
        entries.remove(&handle).map(|entry| entry.value)
    }

    /// Forgets the handles whose value is no longer wanted.
    pub fn remove_where(&self, unwanted: impl Fn(&T) -> bool) {
        self.entries.lock().retain(|_, entry| !unwanted(&entry.value));
    }

    /// Forgets what has ended.
    pub fn sweep(&self, now: Instant) {
        self.entries.lock().retain(|_, entry| !self.ended(entry, now));
    }

    fn held(&self, entries: &HashMap<Handle, Entry<T>>, owner: &str) -> usize {
        entries.values().filter(|entry| entry.owner == owner).count()
    }

    fn ended(&self, entry: &Entry<T>, now: Instant) -> bool {
        now.saturating_duration_since(entry.used) >= self.ttl && !(self.in_use)(&entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    #[test]
    fn a_handle_is_unknown_to_everybody_else() {
        let handles = Handles::new(TTL, 4, |_| false);
        let now = Instant::now();
        let handle = handles.insert("ada", 7, now).unwrap();
        assert_eq!(handles.get("ada", &handle, now), Some(7));
        assert_eq!(handles.get("bob", &handle, now), None);
        assert_eq!(handles.remove("bob", &handle), None);
        assert_eq!(handles.remove("ada", &handle), Some(7));
        assert_eq!(handles.get("ada", &handle, now), None);
    }

    #[test]
    fn malformed_handles_are_unknown() {
        let handles = Handles::new(TTL, 4, |_| false);
        let now = Instant::now();
        let handle = handles.insert("ada", 7, now).unwrap();
        let longer = [handle.as_slice(), &[0]].concat();
        for bad in [&[][..], &handle[..15], &longer, &[0; 16], b"'; DROP TABLE t"] {
            assert_eq!(handles.get("ada", bad, now), None);
        }
    }

    #[test]
    fn the_limit_is_per_owner_and_counts_the_living() {
        let handles = Handles::new(TTL, 2, |_| false);
        let start = Instant::now();
        handles.insert("ada", 1, start).unwrap();
        handles.insert("ada", 2, start).unwrap();
        assert!(matches!(handles.insert("ada", 3, start), Err(HandleError::Full { held_max: 2 })));
        assert!(handles.insert("bob", 4, start).is_ok());
        assert!(handles.insert("ada", 5, start + TTL).is_ok());
    }

    #[test]
    fn use_postpones_the_end() {
        let handles = Handles::new(TTL, 2, |_| false);
        let start = Instant::now();
        let handle = handles.insert("ada", 1, start).unwrap();
        assert!(handles.get("ada", &handle, start + TTL / 2).is_some());
        assert!(handles.get("ada", &handle, start + TTL).is_some());
        assert!(handles.get("ada", &handle, start + TTL * 2).is_none());
        handles.sweep(start + TTL * 2);
        assert!(handles.entries.lock().is_empty());
    }

    #[test]
    fn what_is_in_use_does_not_end() {
        let handles = Handles::new(TTL, 2, |value| *value == 1);
        let start = Instant::now();
        let running = handles.insert("ada", 1, start).unwrap();
        let waiting = handles.insert("ada", 2, start).unwrap();
        handles.sweep(start + TTL);
        assert!(handles.get("ada", &running, start + TTL).is_some());
        assert!(handles.get("ada", &waiting, start + TTL).is_none());
    }

    #[test]
    fn what_belongs_to_a_closed_session_is_forgotten() {
        let handles = Handles::new(TTL, 9, |_| false);
        let now = Instant::now();
        let kept = handles.insert("ada", 1, now).unwrap();
        let gone = handles.insert("ada", 2, now).unwrap();
        handles.remove_where(|value| *value == 2);
        assert!(handles.get("ada", &kept, now).is_some());
        assert!(handles.get("ada", &gone, now).is_none());
    }
}
