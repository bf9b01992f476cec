//! The keys by which a client cancels what its own other connection runs.
//!
//! A key is random and as long as the client's protocol allows; number and key together name a
//! connection, and a wrong pair is answered like a right one: not at all.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Bytes of a key: four in protocol 3.0, 32 from 3.2 on.
const SHORT: usize = 4;
const LONG: usize = 32;

/// What a connection runs now.
type Current = Arc<Mutex<CancellationToken>>;

type Connections = HashMap<i32, (Bytes, Current)>;

/// The connections that can be reached.
#[derive(Debug, Clone, Default)]
pub struct Keys(Arc<Mutex<Connections>>);

/// A connection's entry; it is forgotten with this.
#[derive(Debug)]
pub struct Key {
    keys: Keys,
    /// The connection's number.
    pub process_id: i32,
    /// Its key.
    pub secret: Bytes,
    current: Current,
}

impl Keys {
    /// Makes a number and a key.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn issue(&self, long: bool) -> Result<Key, getrandom::Error> {
        let mut bytes = vec![0u8; 4 + if long { LONG } else { SHORT }];
        loop {
            getrandom::fill(&mut bytes)?;
            let mut secret = Bytes::copy_from_slice(&bytes);
            let number = secret.split_to(4);
            let number = number.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
            let process_id = (number & 0x7fff_ffff) as i32;
            let mut connections = self.0.lock();
            if process_id == 0 || connections.contains_key(&process_id) {
                continue;
            }
            let current = Current::default();
            connections.insert(process_id, (secret.clone(), Arc::clone(&current)));
            return Ok(Key { keys: self.clone(), process_id, secret, current });
        }
    }

    /// Cancels what the connection runs, when the key is its own.
    pub fn cancel(&self, process_id: i32, secret: &[u8]) -> bool {
        let connections = self.0.lock();
        let Some((known, current)) = connections.get(&process_id) else { return false };
        let differs = known.iter().zip(secret).fold(0, |all, (a, b)| all | (a ^ b));
        let matches = known.len() == secret.len() && differs == 0;
        if matches {
            current.lock().cancel();
        }
        matches
    }
}

impl Key {
    /// A statement begins: what was asked to be cancelled until now is over.
    pub fn begin(&self) -> CancellationToken {
        let token = CancellationToken::new();
        *self.current.lock() = token.clone();
        token
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.keys.0.lock().remove(&self.process_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_cancels_and_only_what_runs() {
        let keys = Keys::default();
        let mine = keys.issue(false).unwrap();
        let other = keys.issue(true).unwrap();
        assert_eq!((mine.secret.len(), other.secret.len()), (SHORT, LONG));
        let running = mine.begin();
        assert!(!keys.cancel(mine.process_id, &other.secret));
        assert!(!keys.cancel(mine.process_id, b""));
        assert!(!keys.cancel(other.process_id, &mine.secret));
        assert!(!running.is_cancelled());
        assert!(keys.cancel(mine.process_id, &mine.secret));
        assert!(running.is_cancelled());
        assert!(!mine.begin().is_cancelled());
        let (process_id, secret) = (mine.process_id, mine.secret.clone());
        drop(mine);
        assert!(!keys.cancel(process_id, &secret));
    }
}
