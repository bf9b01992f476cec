//! The best of some candidates: report noisy max, by permute-and-flip.
//!
//! Candidates are looked at in random order, and each is taken with probability
//! exp(-epsilon (best - score)/(2 D)), D being the most by which one privacy unit changes a score;
//! the best one is always taken when its turn comes. That is epsilon-differentially private and
//! never worse than the exponential mechanism (McKenna, Sheldon 2020); it is the noisy maximum
//! under exponential noise (Ding et al. 2021), but drawn exactly: all choices are of rationals.

use datafusion_common::{Result, exec_err};
use rand::CryptoRng;

use super::Noise;
use super::exact::{below, bernoulli_exp};
use super::grid::{exponent_of, power_of_two};

/// Epsilon is taken as a rational of this many bits, rounded down.
const EPSILON_BITS: i32 = 40;

/// Above this epsilon the best candidate is taken for sure.
const EPSILON_MAX: f64 = 1e18;

/// The index of a candidate whose score is, but for noise, the greatest.
///
/// `sensitivity` is the most by which one privacy unit changes any score.
///
/// # Errors
/// When there is no candidate, the sensitivity is 0, or epsilon is none.
pub fn best(
    scores: &[i64],
    sensitivity: u64,
    epsilon: f64,
    rng: &mut dyn CryptoRng,
) -> Result<usize> {
    Noise::Laplace { epsilon }.check()?;
    if sensitivity == 0 {
        return exec_err!(
            "a privacy unit must be able to change a score. Hint: give a sensitivity of at least 1"
        );
    }
    let Some(most) = scores.iter().copied().max() else {
        return exec_err!(
            "there is no candidate to select from. Hint: give at least one, whatever its score"
        );
    };
    let epsilon = epsilon.min(EPSILON_MAX);
    // The denominator is at most 2^61 times a sensitivity below 2^64: nothing overflows.
    let shift = (EPSILON_BITS - exponent_of(epsilon)).clamp(0, 60);
    let numerator = (epsilon * power_of_two(shift)).floor() as u128;
    let denominator = (2_u128 << shift.unsigned_abs()) * u128::from(sensitivity);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    for place in 0..order.len() {
        let rest = below((order.len() - place) as u128, rng);
        order.swap(place, place + usize::try_from(rest).unwrap_or(0));
        let Some((candidate, score)) = order.get(place).and_then(|c| Some((*c, scores.get(*c)?)))
        else {
            continue;
        };
        let gap = u128::from(most.abs_diff(*score));
        if bernoulli_exp(gap * numerator, denominator, rng) {
            return Ok(candidate);
        }
    }
    // Not reached: a gap of zero is always taken.
    Ok(scores.iter().position(|score| *score == most).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn shares(scores: &[i64], sensitivity: u64, epsilon: f64) -> Vec<f64> {
        let mut rng = StdRng::seed_from_u64(12);
        let mut counts = vec![0.0; scores.len()];
        for _ in 0..40_000 {
            counts[best(scores, sensitivity, epsilon, &mut rng).unwrap()] += 1.0 / 40_000.0;
        }
        counts
    }

    #[test]
    fn two_candidates_have_their_exact_probabilities() {
        // The lesser one is taken if it comes first and is accepted: exp(-epsilon gap/2)/2.
        for (gap, epsilon, sensitivity) in [(1, 1.0_f64, 1), (3, 0.5, 1), (10, 1.0, 10)] {
            let found = shares(&[5, 5 - gap], sensitivity, epsilon);
            let exponent = -epsilon * gap as f64 / (2.0 * sensitivity as f64);
            let expected = 0.5 * exponent.exp();
            assert!((found[1] - expected).abs() < 0.0125, "{gap}: {found:?}");
        }
    }

    #[test]
    fn neighbours_stay_within_epsilon() {
        let (left, right) = ([10, 10, 9, 7], [10, 9, 10, 7]);
        let (first, second) = (shares(&left, 1, 1.0), shares(&right, 1, 1.0));
        for (a, b) in first.iter().zip(&second) {
            assert!((a / b).ln().abs() < 1.0 + 0.1, "{first:?} {second:?}");
        }
    }

    #[test]
    fn edges() {
        let mut rng = StdRng::seed_from_u64(13);
        assert_eq!(best(&[3], 1, 0.1, &mut rng).unwrap(), 0);
        for _ in 0..100 {
            assert_eq!(best(&[i64::MIN, i64::MAX, 0], 1, 1.0, &mut rng).unwrap(), 1);
            assert_eq!(best(&[1, 2, 1], 1, 1e300, &mut rng).unwrap(), 1);
        }
        assert!(best(&[i64::MIN, i64::MAX], u64::MAX, 1e-6, &mut rng).is_ok());
        assert!(best(&[], 1, 1.0, &mut rng).is_err());
        assert!(best(&[1], 0, 1.0, &mut rng).is_err());
        assert!(best(&[1], 1, f64::NAN, &mut rng).is_err());
    }
}
