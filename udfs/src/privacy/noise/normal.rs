//! The normal distribution's tail, precise to about 1e-13 of its value however small it is.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// Where the series gives way to the continued fraction.
const SERIES_MAX: f64 = 2.0;

/// P[N > x] of a standard normal N.
pub(super) fn upper_tail(x: f64) -> f64 {
    if x < 0.0 {
        return 1.0 - upper_tail(-x);
    }
    0.5 * (-0.5 * x * x).exp() * scaled_complement(x * FRAC_1_SQRT_2)
}

/// The x with P[N > x] = `probability`, rounded up; for probabilities up to a half.
pub(super) fn upper_quantile(probability: f64) -> f64 {
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if upper_tail(middle) > probability { low = middle } else { high = middle }
    }
    high * (1.0 + 1e-12)
}

/// exp(x²) erfc(x) for x from 0 up.
pub(super) fn scaled_complement(x: f64) -> f64 {
    if x < SERIES_MAX {
        // erf(x) = 2/sqrt(pi) exp(-x²) (x + 2x³/3 + 4x⁵/15 + …): no term is negative.
        let (mut term, mut sum) = (x, x);
        let mut odd = 3.0;
        while term > sum * 1e-17 {
            term *= 2.0 * x * x / odd;
            sum += term;
            odd += 2.0;
        }
        return (x * x).exp() - FRAC_2_SQRT_PI * sum;
    }
    // 1/sqrt(pi) · 1/(x + ½/(x + 1/(x + 1½/(x + …)))), from the inside out.
    let mut denominator = x;
    for index in (1..=120_u32).rev() {
        denominator = x + 0.5 * f64::from(index) / denominator;
    }
    0.5 * FRAC_2_SQRT_PI / denominator
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_those_of_tables() {
        // erfc(x / sqrt 2) / 2, of the C library.
        let table = [
            (0.0, 0.5),
            (0.5, 0.308_537_538_725_986_9),
            (1.0, 0.158_655_253_931_457_05),
            (2.0, 0.022_750_131_948_179_22),
            (2.8, 0.002_555_130_330_427_937),
            (2.9, 0.001_865_813_300_384_038_4),
            (5.0, 2.866_515_718_791_946e-7),
            (10.0, 7.619_853_024_160_593e-24),
            (30.0, 4.906_713_927_148_764e-198),
        ];
        for (x, tail) in table {
            let found = upper_tail(x);
            assert!((found / tail - 1.0).abs() < 1e-12, "{x}: {found}");
            assert!((upper_tail(-x) - (1.0 - tail)).abs() < 1e-15);
        }
    }

    #[test]
    fn quantiles_undo_tails() {
        for probability in [0.5, 0.1, 1e-3, 1e-6, 1e-12, 1e-100] {
            let x = upper_quantile(probability);
            assert!(upper_tail(x) <= probability, "{probability}");
            assert!((upper_tail(x) / probability - 1.0).abs() < 1e-8, "{probability}");
        }
    }

    #[test]
    fn both_ways_meet() {
        let below = scaled_complement(SERIES_MAX.next_down());
        let above = scaled_complement(SERIES_MAX);
        assert!((below / above - 1.0).abs() < 1e-12, "{below} {above}");
    }
}
