//! Guessing is slowed: after a few failures the next attempt has to wait, twice as long each time.
//!
//! Failures are counted for the user name (guesses from everywhere) and for the address (guesses
//! at everybody). Neither shuts a legitimate user out for ever: a wait is at most a minute, and who
//! has logged in from an address before is counted by that pair alone, so that others' guesses do
//! not delay it. Names that do not exist are counted like those that do. What is kept is bounded,
//! and the time is an argument.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Failures of one name, or of one name from one address, before it has to wait.
const FREE_BY_NAME: u32 = 5;
/// Failures of one address before it has to wait: many people may share one.
const FREE_BY_ADDRESS: u32 = 20;
/// The first wait; each further failure doubles it.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// No wait is longer.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Failures are forgotten after so long without another.
const FORGET: Duration = Duration::from_secs(900);
/// So many names, addresses and pairs are kept; the one that failed longest ago goes first.
const KEPT_MAX: usize = 10_000;

/// What failed lately.
pub struct Backoff {
    hasher: RandomState,
    state: Mutex<State>,
}

struct State {
    names: Failures,
    addresses: Failures,
    pairs: Failures,
    /// Names that logged in from an address, and when.
    friends: HashMap<u64, Instant>,
}

struct Failures {
    free: u32,
    entries: HashMap<u64, Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    failures: u32,
    last: Instant,
}

/// Who tries: hashes, because a name may be as long as its sender likes.
struct Attempt {
    name: u64,
    address: Option<u64>,
    pair: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        let failures = |free| Failures { free, entries: HashMap::new() };
        Self {
            hasher: RandomState::new(),
            state: Mutex::new(State {
                names: failures(FREE_BY_NAME),
                addresses: failures(FREE_BY_ADDRESS),
                pairs: failures(FREE_BY_NAME),
                friends: HashMap::new(),
            }),
        }
    }
}

impl Backoff {
    /// Whether somebody may try now; otherwise how long to wait.
    ///
    /// # Errors
    /// The time until the next attempt is looked at.
    pub fn admit(&self, name: &str, address: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let attempt = self.attempt(name, address);
        let state = self.state.lock();
        let wait = if state.friends.contains_key(&attempt.pair) {
            state.pairs.wait(attempt.pair, now)
        } else {
            let by_address = attempt.address.map(|address| state.addresses.wait(address, now));
            state.names.wait(attempt.name, now).max(by_address.unwrap_or_default())
        };
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// An attempt failed.
    pub fn failed(&self, name: &str, address: Option<IpAddr>, now: Instant) {
        let attempt = self.attempt(name, address);
        let mut state = self.state.lock();
        if state.friends.contains_key(&attempt.pair) {
            state.pairs.add(attempt.pair, now);
        } else {
            state.names.add(attempt.name, now);
        }
        if let Some(address) = attempt.address {
            state.addresses.add(address, now);
        }
    }

    /// An attempt succeeded.
    pub fn succeeded(&self, name: &str, address: Option<IpAddr>, now: Instant) {
        let attempt = self.attempt(name, address);
        let mut state = self.state.lock();
        state.pairs.entries.remove(&attempt.pair);
        if state.friends.len() >= KEPT_MAX && !state.friends.contains_key(&attempt.pair) {
            let oldest = state.friends.iter().min_by_key(|(_, at)| **at).map(|(pair, _)| *pair);
            oldest.map(|pair| state.friends.remove(&pair));
        }
        state.friends.insert(attempt.pair, now);
    }

    fn attempt(&self, name: &str, address: Option<IpAddr>) -> Attempt {
        let network = address.map(network);
        Attempt {
            name: self.hasher.hash_one(name),
            address: network.map(|network| self.hasher.hash_one(network)),
            pair: self.hasher.hash_one((name, network)),
        }
    }
}

/// Who has one IPv6 address has all of its /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

impl Failures {
    fn wait(&self, key: u64, now: Instant) -> Duration {
        let Some(entry) = self.entries.get(&key) else { return Duration::ZERO };
        let Some(beyond) = entry.failures.checked_sub(self.free) else { return Duration::ZERO };
        let wait = WAIT_FIRST.saturating_mul(1u32.checked_shl(beyond).unwrap_or(u32::MAX));
        wait.min(WAIT_MAX).saturating_sub(now.saturating_duration_since(entry.last))
    }

    fn add(&mut self, key: u64, now: Instant) {
        if self.entries.len() >= KEPT_MAX && !self.entries.contains_key(&key) {
            self.entries.retain(|_, entry| now.saturating_duration_since(entry.last) < FORGET);
            if self.entries.len() >= KEPT_MAX {
                let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last);
                let oldest = oldest.map(|(key, _)| *key);
                oldest.map(|key| self.entries.remove(&key));
            }
        }
        let entry = self.entries.entry(key).or_insert(Entry { failures: 0, last: now });
        if now.saturating_duration_since(entry.last) >= FORGET {
            entry.failures = 0;
        }
        entry.failures = entry.failures.saturating_add(1);
        entry.last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn waits_double_up_to_a_minute_and_end() {
        let backoff = Backoff::default();
        let mut now = Instant::now();
        for _ in 0..FREE_BY_NAME {
            assert_eq!(backoff.admit("ada", address(1), now), Ok(()));
            backoff.failed("ada", address(1), now);
        }
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(backoff.admit("ada", address(2), now), Err(wait * SECOND));
            assert_eq!(backoff.admit("bob", address(2), now), Ok(()));
            now += wait * SECOND;
            assert_eq!(backoff.admit("ada", address(2), now), Ok(()));
            backoff.failed("ada", address(2), now);
        }
        now += FORGET;
        backoff.failed("ada", address(3), now);
        assert_eq!(backoff.admit("ada", address(3), now), Ok(()));
    }

    #[test]
    fn an_address_that_guesses_many_names_has_to_wait() {
        let backoff = Backoff::default();
        let now = Instant::now();
        for name in 0..FREE_BY_ADDRESS {
            backoff.failed(&name.to_string(), address(1), now);
        }
        assert!(backoff.admit("another", address(1), now).is_err());
        assert!(backoff.admit("another", address(2), now).is_ok());
    }

    #[test]
    fn who_has_logged_in_from_there_is_not_delayed_by_others() {
        let backoff = Backoff::default();
        let now = Instant::now();
        backoff.succeeded("ada", address(7), now);
        for guess in 0..50 {
            backoff.failed("ada", address(guess % 5), now);
        }
        assert!(backoff.admit("ada", address(9), now).is_err());
        assert_eq!(backoff.admit("ada", address(7), now), Ok(()));
        // Guesses from the very place where the user sits are slowed all the same.
        for _ in 0..FREE_BY_NAME {
            backoff.failed("ada", address(7), now);
        }
        assert_eq!(backoff.admit("ada", address(7), now), Err(SECOND));
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let backoff = Backoff::default();
        let start = Instant::now();
        for name in 0..KEPT_MAX + 100 {
            let now = start + Duration::from_millis(name as u64 / 100);
            backoff.failed(&name.to_string(), None, now);
            backoff.succeeded(&name.to_string(), None, now);
        }
        let state = backoff.state.lock();
        assert!(state.names.entries.len() <= KEPT_MAX && state.friends.len() <= KEPT_MAX);
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let backoff = Backoff::default();
        let now = Instant::now();
        for host in 0..FREE_BY_ADDRESS {
            let address: IpAddr = format!("2001:db8::{host:x}").parse().unwrap();
            backoff.failed(&host.to_string(), Some(address), now);
        }
        assert!(backoff.admit("x", Some("2001:db8::ffff".parse().unwrap()), now).is_err());
        assert!(backoff.admit("x", Some("2001:db8:0:1::1".parse().unwrap()), now).is_ok());
    }
}
