//! The generator that noise is drawn from: a stream cipher under a seed that the caller gives.
//!
//! The program takes seeds from the operating system, one for each answer; tests give their own.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// A generator whose next numbers nobody can tell who does not have its seed.
pub type Generator = StdRng;

/// The generator of a seed.
pub fn generator(seed: [u8; 32]) -> Generator {
    StdRng::from_seed(seed)
}

#[cfg(test)]
mod tests {
    use rand::RngCore;

    use super::*;

    #[test]
    fn a_seed_tells_all() {
        let numbers = |seed: u8| {
            let mut generator = generator([seed; 32]);
            [generator.next_u64(), generator.next_u64()]
        };
        assert_eq!(numbers(1), numbers(1));
        assert_ne!(numbers(1), numbers(2));
    }
}
