//! The generator of one statement's nonces and data keys.
//!
//! Block *n* is HMAC-SHA-256(seed, n), 256 bits: without the seed the blocks cannot be told from
//! random ones, and however many threads draw, none is drawn twice. The seed is given by whoever
//! binds the functions, out of the operating system's randomness; tests give their own.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion_common::Result;

use super::key::{SubKey, hmac};

/// A generator. Clones and plans that share one draw from the same blocks.
pub struct Random {
    seed: SubKey,
    next: AtomicU64,
}

impl Random {
    /// A generator from a seed, which has the randomness of everything that is drawn.
    ///
    /// # Errors
    /// When HMAC refuses the seed, which it does not.
    pub fn seeded(seed: &[u8]) -> Result<Self> {
        Ok(Self { seed: hmac(seed, b"attune/random/v1")?, next: AtomicU64::new(0) })
    }

    /// The next block.
    ///
    /// # Errors
    /// As [`Random::seeded`].
    pub(super) fn block(&self) -> Result<[u8; 32]> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(hmac(&self.seed.0, &number.to_be_bytes())?.0)
    }

    /// The next nonce: half a block.
    ///
    /// # Errors
    /// As [`Random::seeded`].
    pub(super) fn nonce(&self) -> Result<[u8; 16]> {
        let mut nonce = [0; 16];
        for (byte, drawn) in nonce.iter_mut().zip(self.block()?) {
            *byte = drawn;
        }
        Ok(nonce)
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Random(…)")
    }
}

/// Functions that draw from different generators are the same function.
impl PartialEq for Random {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Random {}

impl Hash for Random {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn blocks_are_those_of_an_independent_hmac() {
        // Python: hmac(hmac(b'seed', b'attune/random/v1'), (0).to_bytes(8)), with sha256.
        let block = Random::seeded(b"seed").unwrap().block().unwrap();
        let text: String = block.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "5922f7ec3e6515d03d52b20db6c944323c08386457da8179c2fd19760d8854ca");
    }

    #[test]
    fn no_block_is_drawn_twice_whoever_draws() {
        let random = Arc::new(Random::seeded(b"seed").unwrap());
        let draw = || {
            let random = Arc::clone(&random);
            std::thread::spawn(move || {
                (0..500).map(|_| random.block().unwrap()).collect::<Vec<[u8; 32]>>()
            })
        };
        let threads = [draw(), draw(), draw()];
        let drawn = threads.into_iter().flat_map(|thread| thread.join().unwrap());
        assert_eq!(drawn.collect::<BTreeSet<_>>().len(), 1_500);
        assert_eq!(format!("{random:?}"), "Random(…)");
    }
}
