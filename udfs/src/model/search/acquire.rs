//! Where a Gaussian process expects the largest improvement.

use super::gaussian::Gaussian;
use super::sample::Source;
use super::space::Space;

/// Points drawn over the whole space, and near the best ones.
const DRAWS: usize = 1500;
const NEARBY: usize = 500;
/// Rounds of refinement, each with a step half as wide.
const ROUNDS: usize = 8;

/// The snapped point of largest expected improvement over `values`, all finite.
pub(super) fn most_promising(
    space: &Space,
    points: &[Vec<f64>],
    values: &[f64],
    mut source: Source,
) -> Vec<f64> {
    let encoded: Vec<Vec<f64>> = points.iter().map(|point| space.encode(point)).collect();
    let process = Gaussian::fit(&encoded, values);
    let best = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let tried = |point: &Vec<f64>| points.contains(point);
    let gain = |point: &[f64]| {
        let (mean, deviation) = process.predict(&space.encode(point));
        expected_improvement(mean - best, deviation)
    };
    let mut chosen = (f64::NEG_INFINITY, space.snap(&vec![0.5; space.dimensions()]));
    let mut consider = |point: Vec<f64>| {
        let point = space.snap(&point);
        if !tried(&point) {
            let gain = gain(&point);
            if gain > chosen.0 {
                chosen = (gain, point);
            }
        }
        chosen.1.clone()
    };
    let top = ranked(values);
    let mut last = vec![];
    for _ in 0..DRAWS {
        last = consider((0..space.dimensions()).map(|_| source.uniform()).collect());
    }
    for draw in 0..NEARBY {
        let center = &points[top[draw % top.len().min(3)]];
        let width = [0.2, 0.05, 0.01][draw / 3 % 3];
        last = consider(near(center, width, &mut source));
    }
    for round in 0..ROUNDS {
        let width = 0.1 * 0.5_f64.powi(round as i32);
        for _ in 0..10 * space.dimensions() {
            last = consider(near(&last, width, &mut source));
        }
    }
    last
}

/// Indices by value, best first.
fn ranked(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order
}

/// A point near another: one coordinate changed, or all of them.
fn near(center: &[f64], width: f64, source: &mut Source) -> Vec<f64> {
    let all = source.uniform() < 0.5;
    let one = (source.uniform() * center.len() as f64) as usize;
    let moved = |(at, &value): (usize, &f64)| {
        let step = width * source.normal();
        if all || at == one { (value + step).clamp(0.0, 1.0) } else { value }
    };
    center.iter().enumerate().map(moved).collect()
}

/// E[max(0, y)] for a normal y with mean `above` and the deviation given.
fn expected_improvement(above: f64, deviation: f64) -> f64 {
    let z = above / deviation;
    let density = (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
    above * normal_distribution(z) + deviation * density
}

/// The standard normal distribution function (Abramowitz and Stegun 26.2.17, error below 7.5e-8).
fn normal_distribution(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let terms = [0.319_381_53, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let polynomial = terms.iter().rev().fold(0.0, |sum, term| (sum + term) * t);
    let tail = (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt() * polynomial;
    if z < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_distribution_has_its_known_values() {
        for (z, expected) in
            [(0.0, 0.5), (1.0, 0.841_344_7), (-1.96, 0.024_997_9), (4.0, 0.999_968)]
        {
            assert!((normal_distribution(z) - expected).abs() < 1e-6, "{z}");
        }
        // With no doubt the expected improvement is the improvement, or nothing.
        assert!((expected_improvement(2.0, 1e-9) - 2.0).abs() < 1e-6);
        assert!(expected_improvement(-2.0, 1e-9).abs() < 1e-6);
    }
}
