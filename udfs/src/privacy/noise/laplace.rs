//! Discrete Laplace noise.
//!
//! Of a scale s the noise is x with probability (1 - a)/(1 + a) · a^|x|, where a = exp(-1/s): the
//! two-sided geometric distribution, drawn exactly by algorithm 2 of Canonne, Kamath, Steinke 2020
//! for a rational s. Added to a whole number that a privacy unit changes by at most D it is
//! D/s-differentially private. Its mean absolute value is 2a/(1 - a²), 0.851 at s = 1.

use datafusion_common::{Result, exec_err};
use rand::CryptoRng;

use super::exact::{below, bernoulli_exp};
use super::grid::{Grid, exponent_of, power_of_two};

/// The largest scale, in steps.
pub(super) const SCALE_MAX: f64 = 1e30;

/// How much finer than the scale the grid of [`real`] is: 2^40 steps.
const SCALE_BITS: i32 = 40;

/// The significant bits of a scale as a rational, and the most of its denominator.
const NUMERATOR_BITS: i32 = 61;
const SHIFT_MAX: i32 = 110;

/// The distribution of scale `numerator` / 2^`shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DiscreteLaplace {
    numerator: u128,
    shift: u32,
}

impl DiscreteLaplace {
    /// Of a scale in steps. A floating-point number is a rational: all but scales below 2^-49,
    /// under which no noise is ever seen, are taken exactly, those rounded up.
    ///
    /// # Errors
    /// When the scale is not positive or beyond [`SCALE_MAX`].
    pub(super) fn of_scale(scale: f64) -> Result<Self> {
        if !(scale > 0.0 && scale <= SCALE_MAX) {
            return exec_err!(
                "the scale of Laplace noise is {scale:e}, it must lie between 0 and {SCALE_MAX:e}. \
                 Hint: give a larger epsilon or narrower bounds"
            );
        }
        let shift = (NUMERATOR_BITS - exponent_of(scale)).clamp(0, SHIFT_MAX).unsigned_abs();
        let exponent = i32::try_from(shift).unwrap_or(SHIFT_MAX);
        let numerator = (scale * power_of_two(exponent)).ceil() as u128;
        let common = numerator.trailing_zeros().min(shift);
        Ok(Self { numerator: numerator >> common, shift: shift - common })
    }

    /// Of a whole scale of at least 1.
    pub(super) fn of_integer(scale: u128) -> Self {
        Self { numerator: scale.max(1), shift: 0 }
    }

    /// One draw. It saturates where its probability is far below exp(-1,000,000).
    pub(super) fn sample(&self, rng: &mut dyn CryptoRng) -> i128 {
        loop {
            let part = below(self.numerator, rng);
            if !bernoulli_exp(part, self.numerator, rng) {
                continue;
            }
            let mut whole = 0_u128;
            while bernoulli_exp(1, 1, rng) {
                whole = whole.saturating_add(1);
            }
            let geometric = part.saturating_add(self.numerator.saturating_mul(whole)) >> self.shift;
            let negative = below(2, rng) == 1;
            // Zero would otherwise be drawn with both signs, twice as often as it should.
            if negative && geometric == 0 {
                continue;
            }
            let size = i128::try_from(geometric).unwrap_or(i128::MAX);
            return if negative { -size } else { size };
        }
    }
}

/// `value` with discrete Laplace noise of `scale`; saturating.
///
/// # Errors
/// When the scale is not between 0 and 1e30.
pub fn integer(value: i128, scale: f64, rng: &mut dyn CryptoRng) -> Result<i128> {
    Ok(value.saturating_add(DiscreteLaplace::of_scale(scale)?.sample(rng)))
}

/// The grid of [`real`]: it depends on the scale only.
pub fn grid(scale: f64) -> Grid {
    Grid::new(exponent_of(scale) - SCALE_BITS)
}

/// `value`, moved to the grid of the scale, with Laplace noise of `scale`.
///
/// It is (D + step)/scale-differentially private where a privacy unit changes the value by at most
/// D, step being that of [`grid`]: less than a scale's 2^-40. [`super::Mechanism`] includes it.
///
/// # Errors
/// When the scale is not between 1e-100 and 1e100.
pub fn real(value: f64, scale: f64, rng: &mut dyn CryptoRng) -> Result<f64> {
    if !(1e-100..=1e100).contains(&scale) {
        return exec_err!(
            "the scale of Laplace noise is {scale:e}, it must lie between 1e-100 and 1e100. Hint: \
             give a larger epsilon or narrower bounds"
        );
    }
    let grid = grid(scale);
    let noise = DiscreteLaplace::of_scale(scale * power_of_two(-grid.exponent()))?;
    Ok(grid.value(grid.units(value).saturating_add(noise.sample(rng))))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn scales_are_taken_as_the_rationals_they_are() {
        let whole = DiscreteLaplace::of_scale(1.0).unwrap();
        assert_eq!(whole, DiscreteLaplace { numerator: 1, shift: 0 });
        let half = DiscreteLaplace::of_scale(2.5).unwrap();
        assert_eq!(half, DiscreteLaplace { numerator: 5, shift: 1 });
        for scale in [0.1, 10.0, 1.0 / 3.0, 1e-6, 123_456.789, 3e25] {
            let noise = DiscreteLaplace::of_scale(scale).unwrap();
            let back = noise.numerator as f64 / 2_f64.powi(i32::try_from(noise.shift).unwrap());
            assert_eq!(back, scale);
        }
        for scale in [1e-20, 1e-300, f64::MIN_POSITIVE / 4.0] {
            let noise = DiscreteLaplace::of_scale(scale).unwrap();
            let shift = i32::try_from(noise.shift).unwrap();
            assert!(noise.numerator as f64 * 2_f64.powi(-shift) >= scale);
        }
    }

    #[test]
    fn scales_that_are_none_are_refused() {
        let mut rng = StdRng::seed_from_u64(3);
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e31] {
            let error = integer(1, scale, &mut rng).unwrap_err().to_string();
            assert!(error.contains("Hint"), "{error}");
        }
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e101] {
            assert!(real(1.0, scale, &mut rng).is_err());
        }
    }

    #[test]
    fn a_tiny_scale_leaves_the_value_and_a_large_value_saturates() {
        let mut rng = StdRng::seed_from_u64(4);
        assert_eq!(integer(42, 1e-20, &mut rng).unwrap(), 42);
        assert_eq!(real(18.5, 1e-18, &mut rng).unwrap(), 18.5);
        let drawn: Vec<i128> =
            (0..20).map(|_| integer(i128::MAX, 10.0, &mut rng).unwrap()).collect();
        assert!(drawn.iter().all(|value| *value > i128::MAX - 1000));
        assert!(drawn.contains(&i128::MAX));
    }

    #[test]
    fn a_seed_gives_the_same_noise() {
        let draw = || {
            let mut rng = StdRng::seed_from_u64(5);
            (0..10).map(|_| real(1.0, 3.0, &mut rng).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(), draw());
    }
}
