//! Numbers that depend on nothing but a seed (splitmix64; Steele, Lea and Flood 2014).

/// What the state grows by.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The number that follows a state.
#[inline]
pub fn mix(state: u64) -> u64 {
    mixed(state.wrapping_add(STEP))
}

/// The number of a unit, from 0 on, that a seed draws.
pub fn drawn(seed: u64, unit: u64) -> u64 {
    mix(seed.wrapping_add(unit.wrapping_mul(STEP)))
}

/// The generator.
#[derive(Debug, Clone, Copy)]
pub struct Seeded(u64);

impl Seeded {
    /// A generator of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mixed(self.0)
    }

    /// A number below `limit`, which is above 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(limit)) >> 64) as u64
    }

    /// A number from 0 to below 1.
    pub fn share(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Bits spread over a word.
#[inline]
pub fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
