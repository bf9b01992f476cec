//! The noise's distributions against their exact mass, and its size against theory.

use super::super::bounded::{Bounds, IntegerSum, Moments, RealSum};
use super::super::distinct::Covered;
use super::super::{Mechanism, Noise, Sensitivity, accounting, gaussian, laplace};
use super::{fit, seeded};

const DRAWS: u32 = 200_000;

/// How far a mean absolute error may be from theory.
const WITHIN: f64 = 0.015;

fn laplace_mass(scale: f64) -> impl Fn(i128) -> f64 {
    let a = (-1.0 / scale).exp();
    move |x| (1.0 - a) / (1.0 + a) * (-(x.unsigned_abs() as f64) / scale).exp()
}

fn gaussian_mass(sigma: f64) -> impl Fn(i128) -> f64 {
    let density = move |x: i128| (-((x * x) as f64) / (2.0 * sigma * sigma)).exp();
    let reach = (40.0 * sigma) as i128 + 10;
    let total: f64 = (-reach..=reach).map(density).sum();
    move |x| density(x) / total
}

fn mean_error(errors: impl Iterator<Item = f64>) -> f64 {
    errors.map(f64::abs).sum::<f64>() / f64::from(DRAWS)
}

fn close(found: f64, theory: f64, what: &str) {
    assert!((found / theory - 1.0).abs() < WITHIN, "{what}: {found}, theory {theory}");
}

fn unit() -> Sensitivity {
    Sensitivity::new(1, 1, 1.0).unwrap()
}

/// The mean absolute value of discrete Laplace noise.
fn laplace_error(scale: f64) -> f64 {
    let a = (-1.0 / scale).exp();
    2.0 * a / (1.0 - a * a)
}

#[test]
fn discrete_laplace_noise_has_its_mass() {
    let mut rng = seeded(100);
    for scale in [0.4, 1.0, 2.5, 10.0] {
        let draws: Vec<i128> =
            (0..DRAWS).map(|_| laplace::integer(0, scale, &mut rng).unwrap()).collect();
        let fits = fit(&draws, laplace_mass(scale));
        assert!(fits > 1e-6, "scale {scale}: p = {fits}");
        let wrong = fit(&draws, laplace_mass(scale * 1.05));
        assert!(wrong < 1e-6, "scale {scale}: p = {wrong} for another scale");
    }
}

#[test]
fn discrete_gaussian_noise_has_its_mass() {
    let mut rng = seeded(101);
    for sigma in [0.5, 1.0, 3.4258, 20.0] {
        let draws: Vec<i128> =
            (0..DRAWS).map(|_| gaussian::integer(0, sigma, &mut rng).unwrap()).collect();
        let fits = fit(&draws, gaussian_mass(sigma));
        assert!(fits > 1e-6, "sigma {sigma}: p = {fits}");
        let wrong = fit(&draws, gaussian_mass(sigma * 1.05));
        assert!(wrong < 1e-6, "sigma {sigma}: p = {wrong} for another sigma");
    }
}

#[test]
fn counts_are_off_by_as_much_as_theory_says() {
    let mut rng = seeded(102);
    for (epsilon, theory) in [(1.0, 0.850_918), (0.1, laplace_error(10.0))] {
        let noise = Noise::Laplace { epsilon };
        let count = IntegerSum::new(noise, &unit(), 0, 1).unwrap();
        let errors = (0..DRAWS).map(|_| (count.release_total(30_162, &mut rng) - 30_162) as f64);
        close(mean_error(errors), theory, &format!("count at epsilon {epsilon}"));
    }
    let one = gaussian_mass(1.0);
    let theory: f64 = (-20..=20).map(|x: i128| x.abs() as f64 * one(x)).sum();
    let errors = (0..DRAWS).map(|_| gaussian::integer(0, 1.0, &mut rng).unwrap() as f64);
    close(mean_error(errors), theory, "discrete Gaussian of sigma 1");
}

#[test]
fn sums_are_off_by_as_much_as_theory_says() {
    let mut rng = seeded(103);
    let noise = Noise::Laplace { epsilon: 1.0 };
    let whole = IntegerSum::new(noise, &unit(), 17, 90).unwrap();
    let errors = (0..DRAWS).map(|_| whole.release_total(0, &mut rng) as f64);
    close(mean_error(errors), laplace_error(90.0), "whole sum");
    let real = RealSum::new(noise, &unit(), Bounds::new(17.0, 90.0).unwrap()).unwrap();
    let errors = (0..DRAWS).map(|_| real.release([38.5], &mut rng) - 38.5);
    close(mean_error(errors), 90.0, "real sum");
    let noise = Noise::Gaussian { epsilon: 1.0, delta: 1e-6 };
    let sigma = accounting::gaussian_sigma(1.0, 1e-6, 90.0).unwrap();
    let real = RealSum::new(noise, &unit(), Bounds::new(17.0, 90.0).unwrap()).unwrap();
    let errors = (0..DRAWS).map(|_| real.release([38.5], &mut rng) - 38.5);
    close(mean_error(errors), sigma * (2.0 / std::f64::consts::PI).sqrt(), "Gaussian sum");
    // A quarter of what it may cost: twice the noise.
    let real = RealSum::new(noise.split(4), &unit(), Bounds::new(17.0, 90.0).unwrap()).unwrap();
    let errors = (0..DRAWS).map(|_| real.release([38.5], &mut rng) - 38.5);
    close(mean_error(errors), 2.0 * sigma * (2.0 / std::f64::consts::PI).sqrt(), "Gaussian part");
}

#[test]
fn distinct_values_are_off_by_as_much_as_theory_says() {
    // A unit of at most three values: the scale is three.
    let mut rng = seeded(107);
    let count = IntegerSum::new(Noise::Laplace { epsilon: 1.0 }, &unit(), 0, 3).unwrap();
    let mut covered = Covered::default();
    for unit in 0..100_u8 {
        let values = [[unit, 0], [unit, 1], [unit, 2], [unit, 3]];
        covered.cover(values.iter().map(<[u8; 2]>::as_slice).collect(), 3);
    }
    assert_eq!(covered.count(), 300);
    let total = i128::try_from(covered.count()).unwrap();
    let errors = (0..DRAWS).map(|_| count.release_total(total, &mut rng) as f64 - 300.0);
    close(mean_error(errors), laplace_error(3.0), "distinct values");
}

#[test]
fn means_are_off_by_as_much_as_theory_says() {
    // The sum of distances has noise of scale h/(epsilon/2); in a group of 1,000 in the middle of
    // the bounds the count's noise adds next to nothing. Fewer draws: each sums 1,000 entries.
    let mut rng = seeded(104);
    let draws = 4_000_u32;
    let noise = Noise::Laplace { epsilon: 1.0 };
    let mean = Moments::for_mean(noise, &unit(), Bounds::new(0.0, 10.0).unwrap()).unwrap();
    let off = (0..draws).map(|_| (mean.mean([5.0; 1000], &mut rng) - 5.0).abs()).sum::<f64>();
    let (found, theory) = (off / f64::from(draws), 5.0 * 2.0 / 1000.0);
    // Five standard errors of 4,000 draws.
    assert!((found / theory - 1.0).abs() < 0.08, "{found}, theory {theory}");
}

#[test]
fn gaussian_counts_are_rounded_gaussian_noise() {
    let mut rng = seeded(105);
    let noise = Noise::Gaussian { epsilon: 3.0, delta: 1e-3 };
    let count = Mechanism::for_integers(noise, &unit()).unwrap();
    let sigma = count.scale();
    let tail = |x: f64| super::super::normal::upper_tail(x / sigma);
    let draws: Vec<i128> = (0..DRAWS).map(|_| count.integer(0, &mut rng)).collect();
    let fits = fit(&draws, |x| tail(x as f64 - 0.5) - tail(x as f64 + 0.5));
    assert!(fits > 1e-6, "sigma {sigma}: p = {fits}");
}

#[test]
fn noise_on_the_grid_is_continuous_noise() {
    // The largest distance to the continuous distribution function (Kolmogorov, Smirnov): 2.5 over
    // the root of the draws is passed by one right sampler in a hundred thousand.
    let mut rng = seeded(106);
    let distance = |mut draws: Vec<f64>, below: &dyn Fn(f64) -> f64| {
        draws.sort_by(f64::total_cmp);
        let count = draws.len() as f64;
        let places = draws.iter().enumerate();
        places
            .map(|(place, x)| (below(*x) - (place as f64 + 0.5) / count).abs())
            .fold(0.0, f64::max)
    };
    let limit = 2.5 / f64::from(DRAWS).sqrt();
    let draws = (0..DRAWS).map(|_| laplace::real(0.0, 3.0, &mut rng).unwrap()).collect();
    let below = |x: f64| {
        let tail = 0.5 * (-x.abs() / 3.0).exp();
        if x < 0.0 { tail } else { 1.0 - tail }
    };
    let found = distance(draws, &below);
    assert!(found < limit, "Laplace: {found}");
    let draws = (0..DRAWS).map(|_| gaussian::real(0.0, 3.0, &mut rng).unwrap()).collect();
    let found = distance(draws, &|x: f64| super::super::normal::upper_tail(-x / 3.0));
    assert!(found < limit, "Gaussian: {found}");
}
