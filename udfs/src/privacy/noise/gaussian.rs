//! Discrete Gaussian noise.
//!
//! Of a sigma the noise is a whole x with probability proportional to exp(-x²/(2 sigma²)), drawn
//! exactly by algorithm 3 of Canonne, Kamath, Steinke 2020: a discrete Laplace draw y of scale
//! t = floor(sigma) + 1 is kept with probability exp(-(|y| - sigma²/t)²/(2 sigma²)). With sigma² a
//! multiple of t/2^k, as it is here, that exponent is a quotient of small integers. Added to whole
//! numbers that a privacy unit changes by a vector of Euclidean length at most D it is
//! D²/(2 sigma²)-zero-concentrated differentially private (theorem 14 there).

use datafusion_common::{Result, exec_err};
use rand::CryptoRng;

use super::exact::bernoulli_exp;
use super::grid::{Grid, exponent_of, power_of_two};
use super::laplace::DiscreteLaplace;
use super::rounding::{product_up, quotient_up};

/// The largest sigma, in steps: 2^52, at which no product below needs more than 128 bits.
pub(super) const SIGMA_MAX: f64 = 4_503_599_627_370_496.0;

/// How much finer than sigma the grid of [`real`] is: 2^40 steps.
pub(super) const SIGMA_BITS: i32 = 40;

/// The significant bits of sigma²/t as a rational, and the most of its denominator.
const CENTER_BITS: i32 = 40;
const SHIFT_MAX: i32 = 50;

/// The distribution of sigma² = `proposal` · `center` / 2^`shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DiscreteGaussian {
    proposal: u128,
    center: u128,
    shift: u32,
}

impl DiscreteGaussian {
    /// Of a sigma in steps, its square rounded up by less than a part in 2^39 (below 2^-11, where
    /// noise is never seen, by more).
    ///
    /// # Errors
    /// When sigma is not positive or beyond [`SIGMA_MAX`].
    pub(super) fn of_sigma(sigma: f64) -> Result<Self> {
        if !(sigma > 0.0 && sigma <= SIGMA_MAX) {
            return exec_err!(
                "the standard deviation of Gaussian noise is {sigma:e} steps, it must lie between \
                 0 and {SIGMA_MAX}. Hint: give a larger epsilon, narrower bounds or fewer \
                 contributions"
            );
        }
        let proposal = sigma.floor() + 1.0;
        let center = quotient_up(product_up(sigma, sigma), proposal);
        let shift = (CENTER_BITS - exponent_of(center)).clamp(0, SHIFT_MAX);
        let center = (center * power_of_two(shift)).ceil().max(1.0);
        Ok(Self { proposal: proposal as u128, center: center as u128, shift: shift.unsigned_abs() })
    }

    /// One draw.
    pub(super) fn sample(&self, rng: &mut dyn CryptoRng) -> i128 {
        let proposals = DiscreteLaplace::of_integer(self.proposal);
        loop {
            let drawn = proposals.sample(rng);
            // A draw more than 128 scales out may overflow; it would be kept with a probability
            // below exp(-8,000).
            let Some((numerator, denominator)) = self.rejection(drawn.unsigned_abs()) else {
                continue;
            };
            if bernoulli_exp(numerator, denominator, rng) {
                return drawn;
            }
        }
    }

    /// The x of the probability exp(-x) with which a proposal of this size is kept:
    /// (|y| 2^k - c)² / (2 t c 2^k) for a variance of t c/2^k.
    fn rejection(&self, size: u128) -> Option<(u128, u128)> {
        let distance = size.checked_mul(1_u128 << self.shift)?.abs_diff(self.center);
        let numerator = distance.checked_mul(distance)?;
        let denominator =
            self.center.checked_mul(self.proposal)?.checked_mul(2_u128 << self.shift)?;
        Some((numerator, denominator))
    }
}

/// `value` with discrete Gaussian noise of `sigma`; saturating.
///
/// # Errors
/// When sigma is not between 0 and 2^52: [`real`] and [`super::Mechanism`] have no such limit.
pub fn integer(value: i128, sigma: f64, rng: &mut dyn CryptoRng) -> Result<i128> {
    Ok(value.saturating_add(DiscreteGaussian::of_sigma(sigma)?.sample(rng)))
}

/// The grid of [`real`]: it depends on sigma only.
pub fn grid(sigma: f64) -> Grid {
    Grid::new(exponent_of(sigma) - SIGMA_BITS)
}

/// `value`, moved to the grid of sigma, with Gaussian noise of `sigma`.
///
/// Where a privacy unit changes the value by at most D, the guarantee is that of a sensitivity of
/// D + step, step being that of [`grid`]: at most sigma's 2^-40. [`super::Mechanism`] includes it.
///
/// # Errors
/// When sigma is not between 1e-100 and 1e100.
pub fn real(value: f64, sigma: f64, rng: &mut dyn CryptoRng) -> Result<f64> {
    if !(1e-100..=1e100).contains(&sigma) {
        return exec_err!(
            "the standard deviation of Gaussian noise is {sigma:e}, it must lie between 1e-100 and \
             1e100. Hint: give a larger epsilon or narrower bounds"
        );
    }
    let grid = grid(sigma);
    let noise = DiscreteGaussian::of_sigma(sigma * power_of_two(-grid.exponent()))?;
    Ok(grid.value(grid.units(value).saturating_add(noise.sample(rng))))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn the_variance_is_never_less_than_asked_for() {
        for sigma in [1e-3, 0.1, 0.5, 1.0, 3.4258, 10.0, 1e4, 123_456.789, SIGMA_MAX] {
            let noise = DiscreteGaussian::of_sigma(sigma).unwrap();
            let product = noise.proposal as f64 * noise.center as f64;
            let variance = product / 2_f64.powi(noise.shift.try_into().unwrap());
            assert!(variance >= sigma * sigma * (1.0 - 1e-15));
            if sigma >= 0.1 {
                assert!(variance <= sigma * sigma * (1.0 + 1e-11), "{sigma}: {variance}");
            }
        }
    }

    #[test]
    fn no_product_overflows_within_128_scales() {
        for sigma in [1e-30, 1e-3, 0.99, 1.0, 1.01, 100.0, 1e6, 1e12, SIGMA_MAX] {
            let noise = DiscreteGaussian::of_sigma(sigma).unwrap();
            assert!(noise.rejection(127 * noise.proposal).is_some(), "{sigma}");
        }
    }

    #[test]
    fn sigmas_that_are_none_are_refused() {
        let mut rng = StdRng::seed_from_u64(6);
        for sigma in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = integer(1, sigma, &mut rng).unwrap_err().to_string();
            assert!(error.contains("Hint"), "{error}");
            assert!(real(1.0, sigma, &mut rng).is_err());
        }
        assert!(integer(1, 1e16, &mut rng).is_err());
        assert!(real(1.0, 1e16, &mut rng).is_ok());
    }

    #[test]
    fn a_tiny_sigma_leaves_the_value() {
        let mut rng = StdRng::seed_from_u64(7);
        assert_eq!(integer(42, 1e-20, &mut rng).unwrap(), 42);
        assert_eq!(real(18.5, 1e-20, &mut rng).unwrap(), 18.5);
    }
}
