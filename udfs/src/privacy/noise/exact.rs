//! Random choices with exact probabilities, in integers.
//!
//! Algorithm 1 of Canonne, Kamath, Steinke 2020 gives Bernoulli(exp(-x)) for a rational x. No
//! floating-point number is made on the way. How many words are drawn depends on what is drawn, as
//! in any rejection sampler: who can time single draws is not kept off by this code.

use rand::CryptoRng;

/// A uniform number below `bound`, without bias; 0 when `bound` is 0 or 1.
pub(super) fn below(bound: u128, rng: &mut dyn CryptoRng) -> u128 {
    let most = bound.saturating_sub(1);
    if most == 0 {
        return 0;
    }
    let unused_bits = most.leading_zeros();
    let mask = u128::MAX >> unused_bits;
    loop {
        let low = u128::from(rng.next_u64());
        let high = if unused_bits < 64 { u128::from(rng.next_u64()) << 64 } else { 0 };
        let drawn = (high | low) & mask;
        if drawn <= most {
            return drawn;
        }
    }
}

/// True with probability `numerator / denominator`; beyond 1 always.
pub(super) fn bernoulli(numerator: u128, denominator: u128, rng: &mut dyn CryptoRng) -> bool {
    below(denominator, rng) < numerator
}

/// True with probability exp(-`numerator` / `denominator`); never when the denominator is 0.
pub(super) fn bernoulli_exp(numerator: u128, denominator: u128, rng: &mut dyn CryptoRng) -> bool {
    let whole = numerator.checked_div(denominator);
    let rest = numerator.checked_rem(denominator);
    let (Some(whole), Some(rest)) = (whole, rest) else { return false };
    for _ in 0..whole {
        if !bernoulli_exp_fraction(1, 1, rng) {
            return false;
        }
    }
    bernoulli_exp_fraction(rest, denominator, rng)
}

/// The same for fractions from 0 to 1.
///
/// Bernoulli(x / k) is drawn as Bernoulli(1 / k) and Bernoulli(x), so that no product overflows.
fn bernoulli_exp_fraction(numerator: u128, denominator: u128, rng: &mut dyn CryptoRng) -> bool {
    let mut count = 1_u128;
    while below(count, rng) == 0 && bernoulli(numerator, denominator, rng) {
        count = count.saturating_add(1);
    }
    count % 2 == 1
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn numbers_below_a_bound_are_uniform() {
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(below(0, &mut rng), 0);
        assert_eq!(below(1, &mut rng), 0);
        let mut counts = [0_u32; 5];
        for _ in 0..50_000 {
            counts[usize::try_from(below(5, &mut rng)).unwrap()] += 1;
        }
        for count in counts {
            // Five standard deviations of a binomial of 50,000 and 1/5.
            assert!(count.abs_diff(10_000) < 450, "{counts:?}");
        }
        let large = (0..100).map(|_| below(u128::MAX, &mut rng)).max().unwrap();
        assert!(large > u128::MAX / 2);
    }

    #[test]
    fn exponentials_of_rationals_have_their_probability() {
        let mut rng = StdRng::seed_from_u64(2);
        let draws = 50_000_u32;
        for (numerator, denominator) in [(0, 1), (1, 7), (1, 1), (5, 2), (7, 2)] {
            let hits = (0..draws).filter(|_| bernoulli_exp(numerator, denominator, &mut rng));
            let share = f64::from(u32::try_from(hits.count()).unwrap()) / f64::from(draws);
            let expected = (-(numerator as f64) / denominator as f64).exp();
            let deviation = (expected * (1.0 - expected) / f64::from(draws)).sqrt();
            assert!((share - expected).abs() <= 5.0 * deviation, "{numerator}/{denominator}");
        }
        assert!(!bernoulli_exp(1, 0, &mut rng));
        assert!(!bernoulli_exp(u128::MAX, 1, &mut rng));
    }
}
