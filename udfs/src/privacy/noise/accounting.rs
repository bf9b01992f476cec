//! What releases cost, alone and together. Pure arithmetic, rounded toward the higher cost.
//!
//! The currency is zero-concentrated differential privacy (zCDP; Bun, Steinke 2016): a release
//! costs rho, the costs of releases that may depend on each other's answers add up, and a sum says
//! which epsilon holds at a delta. From the literature, with D the sensitivity:
//!
//! * pure epsilon: rho = epsilon²/2 (Bun, Steinke 2016, proposition 1.4);
//! * Gaussian noise: rho = D²/(2 sigma²) (the same; discrete: Canonne, Kamath, Steinke 2020);
//! * rho to epsilon: the least, over a > 1, of a rho + ln(1 - 1/a) + (ln(1/delta) - ln a)/(a - 1)
//!   (Canonne, Kamath, Steinke 2020, corollary 13);
//! * sigma s: delta = F(D/2s - epsilon s/D) - exp(epsilon) F(-D/2s - epsilon s/D), F being the
//!   normal distribution function (Balle, Wang 2018, theorem 8).
//!
//! Arguments that make no sense cost infinitely much rather than nothing.

use std::f64::consts::FRAC_1_SQRT_2;

use datafusion_common::Result;

use super::Noise;
use super::normal::scaled_complement;
use super::rounding::{product_up, quotient_up, sum_up};

/// What covers the rounding of the sums and exponentials below: a part in 10^10.
const SLACK: f64 = 1e-10;

/// What covers that of sigma: its delta is the difference of two nearly equal numbers.
const SIGMA_SLACK: f64 = 1e-7;

/// The zCDP cost of an `epsilon`-differentially private release.
pub fn rho_of_pure(epsilon: f64) -> f64 {
    if epsilon >= 0.0 { 0.5 * product_up(epsilon, epsilon) } else { f64::INFINITY }
}

/// The zCDP cost of Gaussian noise of `sigma` on what a unit changes by a vector of Euclidean
/// length `sensitivity`.
pub fn rho_of_gaussian(sensitivity: f64, sigma: f64) -> f64 {
    if !(sensitivity >= 0.0 && sigma > 0.0) {
        return f64::INFINITY;
    }
    let ratio = quotient_up(sensitivity, sigma);
    0.5 * product_up(ratio, ratio)
}

/// The sigma at which Gaussian noise costs `rho`; infinite for a rho of zero.
pub fn sigma_of_rho(rho: f64, sensitivity: f64) -> f64 {
    if !(rho > 0.0 && sensitivity >= 0.0) {
        return f64::INFINITY;
    }
    (sensitivity / (2.0 * rho).sqrt() * (1.0 + SLACK)).next_up()
}

/// What releases cost together, of pure epsilons or of rhos: their sum, rounded up.
pub fn compose(costs: impl IntoIterator<Item = f64>) -> f64 {
    costs
        .into_iter()
        .fold(0.0, |sum, cost| if cost >= 0.0 { sum_up(sum, cost) } else { f64::INFINITY })
}

/// The least epsilon that is known to hold at `delta` after releases that cost `rho` together.
///
/// Infinite where delta is not positive or rho is negative.
pub fn epsilon_of_rho(rho: f64, delta: f64) -> f64 {
    if rho == 0.0 {
        return 0.0;
    }
    if !(rho > 0.0 && rho.is_finite() && delta > 0.0) {
        return f64::INFINITY;
    }
    let log_delta = delta.min(1.0).ln();
    // With a = 1 + exp(u). Any a gives a valid epsilon; the bound has one minimum in u.
    let bound = |u: f64| {
        let excess = u.exp();
        let order = 1.0 + excess;
        // ln(1 - 1/a) is u - ln a too, which stays finite where a rounds to 1.
        let gap = if u > 0.0 { (-1.0 / order).ln_1p() } else { u - excess.ln_1p() };
        order * rho + gap - (log_delta + excess.ln_1p()) / excess
    };
    let (mut low, mut high) = (-100.0, 60.0);
    for _ in 0..150 {
        let third = (high - low) / 3.0;
        let (left, right) = (low + third, high - third);
        if bound(left) < bound(right) { high = right } else { low = left }
    }
    (bound(0.5 * (low + high)) * (1.0 + SLACK)).max(0.0)
}

/// The largest rho that keeps epsilon within `epsilon` at `delta`, rounded down: what a budget
/// given as a pair is worth. Zero where the pair makes no sense.
pub fn rho_of_epsilon(epsilon: f64, delta: f64) -> f64 {
    if !(epsilon > 0.0 && epsilon.is_finite() && delta > 0.0) {
        return 0.0;
    }
    // A large delta makes more than epsilon itself affordable.
    let (mut low, mut high) = (0.0, epsilon);
    while epsilon_of_rho(high, delta) <= epsilon && high < 1e300 {
        low = high;
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if epsilon_of_rho(middle, delta) <= epsilon { low = middle } else { high = middle }
    }
    low
}

/// The delta at which Gaussian noise of `sigma` keeps `epsilon`, for a change of Euclidean length
/// `sensitivity`.
pub fn gaussian_delta(epsilon: f64, sigma: f64, sensitivity: f64) -> f64 {
    if !(epsilon >= 0.0 && sigma > 0.0 && sensitivity >= 0.0) {
        return 1.0;
    }
    if sensitivity == 0.0 {
        return 0.0;
    }
    // With x = eps s/D - D/2s the second term is exp(-x²/2)/2 · erfcx((eps s/D + D/2s)/sqrt 2):
    // written so, neither the exponential overflows nor the tails vanish.
    let half = 0.5 * sensitivity / sigma;
    let tilt = epsilon * sigma / sensitivity;
    let x = tilt - half;
    let density = 0.5 * (-0.5 * x * x).exp();
    let far = scaled_complement((tilt + half) * FRAC_1_SQRT_2);
    let near = scaled_complement(x.abs() * FRAC_1_SQRT_2);
    if x >= 0.0 {
        (density * (near - far)).max(0.0)
    } else {
        (1.0 - density * (near + far)).clamp(0.0, 1.0)
    }
}

/// The least sigma at which Gaussian noise is `(epsilon, delta)`-differentially private for a
/// change of Euclidean length `sensitivity`, rounded up (the analytic Gaussian mechanism; it also
/// holds above epsilon 1, where the classical formula does not).
///
/// # Errors
/// When epsilon or delta is none, as [`Noise::check`].
pub fn gaussian_sigma(epsilon: f64, delta: f64, sensitivity: f64) -> Result<f64> {
    Noise::Gaussian { epsilon, delta }.check()?;
    let holds = |sigma: f64| gaussian_delta(epsilon, sigma, 1.0) <= delta;
    let (mut low, mut high) = (1.0, 1.0);
    while !holds(high) {
        high *= 2.0;
    }
    while holds(low) && low > 1e-200 {
        low *= 0.5;
    }
    for _ in 0..120 {
        let middle = low + 0.5 * (high - low);
        if holds(middle) { high = middle } else { low = middle }
    }
    Ok((high * sensitivity * (1.0 + SIGMA_SLACK)).next_up())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(found: f64, expected: f64, within: f64) {
        assert!((found / expected - 1.0).abs() <= within, "{found}, expected {expected}");
    }

    #[test]
    fn rho_gives_the_epsilon_that_opendp_and_dp_accounting_give() {
        // OpenDP 0.16's make_zCDP_to_approxDP; dp_accounting 0.6's RDP accountant is coarser.
        near(epsilon_of_rho(0.005, 1e-6), 0.429_941_468_836_949_3, 1e-6);
        near(epsilon_of_rho(0.5, 1e-6), 5.221_534_444_530_17, 1e-6);
        for (sigma, releases, accounted) in [(10.0, 1, 0.429_951_5), (10.0, 100, 5.221_539_6)] {
            let rho = compose((0..releases).map(|_| rho_of_gaussian(1.0, sigma)));
            let epsilon = epsilon_of_rho(rho, 1e-6);
            assert!(epsilon <= accounted, "{epsilon}");
            near(epsilon, accounted, 1e-4);
        }
        // The simple formula rho + 2 sqrt(rho ln(1/delta)) is never better.
        for rho in [1e-6_f64, 0.005, 0.5, 3.0, 100.0] {
            for delta in [1e-12_f64, 1e-6, 0.01] {
                let simple = rho + 2.0 * (rho * (1.0 / delta).ln()).sqrt();
                assert!(epsilon_of_rho(rho, delta) <= simple);
            }
        }
    }

    #[test]
    fn the_epsilon_of_gaussian_noise_lies_between_its_exact_value_and_that_of_zcdp() {
        // dp_accounting's privacy loss distributions, sigma 10 and 1.
        near(gaussian_delta(0.396_857_429_547_550_4, 10.0, 1.0), 1e-6, 1e-3);
        near(gaussian_delta(4.886_554_124_579_794, 1.0, 1.0), 1e-6, 1e-3);
        near(gaussian_sigma(0.396_857_429_547_550_4, 1e-6, 1.0).unwrap(), 10.0, 1e-4);
        near(gaussian_sigma(0.396_857_429_547_550_4, 1e-6, 3.0).unwrap(), 30.0, 1e-4);
        // The variance of Google's closeness tests: epsilon log 3, delta 1e-5.
        let sigma = gaussian_sigma(3.0_f64.ln(), 1e-5, 1.0).unwrap();
        near(sigma * sigma, 11.735_977_172_851_56, 1e-3);
    }

    #[test]
    fn extremes_stay_numbers() {
        for epsilon in [1e-6, 1e-3, 1.0, 100.0, 1e20, 1e100] {
            for delta in [1e-300, 1e-15, 1e-6, 0.5, 0.999] {
                let sigma = gaussian_sigma(epsilon, delta, 1.0).unwrap();
                assert!(sigma.is_finite() && sigma > 0.0, "{epsilon} {delta}");
                assert!(gaussian_delta(epsilon, sigma, 1.0) <= delta, "{epsilon} {delta}");
            }
        }
        assert_eq!(epsilon_of_rho(0.0, 1e-6), 0.0);
        assert_eq!(epsilon_of_rho(1.0, 0.0), f64::INFINITY);
        assert_eq!(epsilon_of_rho(-1.0, 1e-6), f64::INFINITY);
        assert_eq!(epsilon_of_rho(f64::NAN, 1e-6), f64::INFINITY);
        assert!(epsilon_of_rho(1e39, 1e-6) >= 1e39);
        assert_eq!(compose([]), 0.0);
        assert_eq!(compose([1.0, f64::NAN]), f64::INFINITY);
        assert_eq!(compose([1.0, -1.0]), f64::INFINITY);
        assert_eq!(rho_of_gaussian(1.0, 0.0), f64::INFINITY);
        assert_eq!(rho_of_pure(-1.0), f64::INFINITY);
        assert_eq!(rho_of_epsilon(f64::NAN, 0.1), 0.0);
        for (epsilon, delta) in [(0.0, 0.1), (-1.0, 0.1), (1.0, 0.0), (1.0, 1.0), (f64::NAN, 0.1)] {
            let error = gaussian_sigma(epsilon, delta, 1.0).unwrap_err().to_string();
            assert!(error.contains("Hint"), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            cases: 64,
            ..Default::default()
        })]

        #[test]
        fn a_budget_is_worth_what_it_buys(epsilon in 0.01_f64..20.0, exponent in 2_i32..12) {
            let delta = 10.0_f64.powi(-exponent);
            let rho = rho_of_epsilon(epsilon, delta);
            prop_assert!(epsilon_of_rho(rho, delta) <= epsilon);
            prop_assert!(epsilon_of_rho(rho * 1.001, delta) > epsilon);
            let sigma = sigma_of_rho(rho, 1.0);
            prop_assert!(rho_of_gaussian(1.0, sigma) <= rho);
            prop_assert!(gaussian_sigma(epsilon, delta, 1.0).unwrap() <= sigma);
        }

        #[test]
        fn sums_are_not_less_than_what_was_added(
            costs in prop::collection::vec(0.0_f64..10.0, 0..50),
        ) {
            prop_assert!(compose(costs.iter().copied()) >= costs.iter().sum::<f64>());
        }
    }
}
