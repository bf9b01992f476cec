//! Proofs of the mechanisms: their distributions, attacks on them, and Google's statistical cases.

mod accuracy;
mod attack;
mod epsilon;
mod google;
mod textproto;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::{Noise, accounting, normal};

/// A generator of a fixed seed.
fn seeded(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// The probability of a chi-square statistic as large, by Wilson and Hilferty's approximation.
fn chi_square_tail(statistic: f64, freedom: usize) -> f64 {
    let spread = 2.0 / (9.0 * freedom as f64);
    let z = ((statistic / freedom as f64).cbrt() - (1.0 - spread)) / spread.sqrt();
    normal::upper_tail(z)
}

/// The probability that whole draws fit a distribution of the given mass.
///
/// Values that are expected fewer than ten times are pooled, those below and those above.
fn fit(draws: &[i128], mass: impl Fn(i128) -> f64) -> f64 {
    let count = draws.len() as f64;
    let (mut low, mut high) = (0_i128, 0_i128);
    while count * mass(low - 1) >= 10.0 {
        low -= 1;
    }
    while count * mass(high + 1) >= 10.0 {
        high += 1;
    }
    let cells = usize::try_from(high - low + 1).unwrap();
    let mut seen = vec![0.0_f64; cells + 2];
    for draw in draws {
        let cell = (draw - low + 1).clamp(0, high - low + 2);
        seen[usize::try_from(cell).unwrap()] += 1.0;
    }
    let mut expected = vec![0.0_f64; cells + 2];
    for cell in 0..cells {
        expected[cell + 1] = count * mass(low + i128::try_from(cell).unwrap());
    }
    // Both distributions are symmetric about zero, and so are the tails.
    let tail = 0.5 * (count - expected.iter().sum::<f64>()).max(0.0);
    expected[0] = tail;
    expected[cells + 1] = tail;
    let statistic: f64 = seen
        .iter()
        .zip(&expected)
        .filter(|(_, expected)| **expected > 1.0)
        .map(|(seen, expected)| (seen - expected).powi(2) / expected)
        .sum();
    chi_square_tail(statistic, cells + 1)
}

#[test]
fn the_judge_of_fits_judges() {
    // 23.209 and 76.154 are the tables' one per cent points of 10 and 50 degrees of freedom.
    assert!((chi_square_tail(23.209, 10) - 0.01).abs() < 5e-4);
    assert!((chi_square_tail(76.154, 50) - 0.01).abs() < 2e-4);
}

#[test]
fn parts_never_cost_more_than_the_whole() {
    let (epsilon, delta) = (1.1, 1e-6);
    for parts in [1, 2, 3, 7, 1_000] {
        let laplace = Noise::Laplace { epsilon }.split(parts);
        assert!(laplace.epsilon() * f64::from(parts) <= epsilon);
        let whole = Noise::Gaussian { epsilon, delta };
        let (rho, part) = (whole.rho().unwrap(), whole.split(parts).rho().unwrap());
        assert!(part * f64::from(parts) <= rho);
        assert!(part > 0.999 * rho / f64::from(parts));
        // What has no Gaussian form gets an epsilon that costs no more.
        assert!(accounting::rho_of_pure(whole.split(2).epsilon()) <= 0.5 * rho);
    }
    for whole in [Noise::Laplace { epsilon }, Noise::Gaussian { epsilon, delta }] {
        assert_eq!((whole.split(0), whole.split(1)), (whole, whole));
    }
    let unusable = Noise::Gaussian { epsilon, delta: 2.0 };
    assert!(unusable.split(3).check().is_err());
    for rho in [0.0, -1.0, 1e-14, f64::NAN, f64::INFINITY] {
        assert!(Noise::Concentrated { rho }.check().is_err(), "{rho}");
    }
}

#[test]
fn a_release_costs_what_its_noise_is_worth() {
    assert_eq!(Noise::Laplace { epsilon: 1.0 }.rho().unwrap(), 0.5);
    let rho = Noise::Gaussian { epsilon: 1.0, delta: 1e-6 }.rho().unwrap();
    let sigma = accounting::gaussian_sigma(1.0, 1e-6, 1.0).unwrap();
    assert!((rho * 2.0 * sigma * sigma - 1.0).abs() < 1e-12);
    // By way of rho it is a little more than it is by itself.
    let epsilon = accounting::epsilon_of_rho(rho, 1e-6);
    assert!(epsilon > 1.0 && epsilon < 1.1, "{epsilon}");
    assert!(Noise::Laplace { epsilon: 0.0 }.rho().is_err());
}
