//! Points without a model: stratified draws, a grid, and a scrambled Halton sequence.

use super::space::Space;
use crate::model::random::mix;

/// A stream of draws, by seed and number.
#[derive(Debug, Clone)]
pub(super) struct Source {
    state: u64,
}

impl Source {
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self { state: mix(mix(seed) ^ mix(stream ^ 0x5EED)) }
    }

    fn draw(&mut self) -> u64 {
        self.state = mix(self.state);
        self.state
    }

    /// From 0 to 1, neither included.
    pub(super) fn uniform(&mut self) -> f64 {
        ((self.draw() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// A standard normal draw (Box and Muller 1958).
    pub(super) fn normal(&mut self) -> f64 {
        let (radius, angle) = (self.uniform(), self.uniform());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, (self.draw() % (last as u64 + 1)) as usize);
        }
        order
    }
}

/// A Latin hypercube: each dimension has one point in each of `count` equal strata.
pub(super) fn stratified(dimensions: usize, count: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut points = vec![Vec::with_capacity(dimensions); count];
    for dimension in 0..dimensions {
        let mut source = Source::new(seed, 2_000_000 + dimension as u64);
        let strata = source.permutation(count);
        for (point, stratum) in points.iter_mut().zip(strata) {
            point.push((stratum as f64 + source.uniform()) / count as f64);
        }
    }
    points
}

/// All combinations of each dimension's levels; of a grid larger than `limit`, evenly chosen
/// points.
pub(super) fn grid(space: &Space, limit: usize) -> Vec<Vec<f64>> {
    let levels = space.levels(limit);
    let mut total = 1_usize;
    for level in &levels {
        total = total.saturating_mul(level.len());
    }
    let count = total.min(limit);
    let step = total / count.max(1);
    let nth = |number: usize| {
        let mut index = number * step;
        let mut point = vec![];
        for level in &levels {
            point.push(level[index % level.len()]);
            index /= level.len();
        }
        space.snap(&point)
    };
    (0..count).map(nth).collect()
}

/// A Halton sequence with digits permuted by the seed, so that dimensions of large base do not
/// run in step.
pub(super) struct Halton {
    digits: Vec<Vec<usize>>,
}

impl Halton {
    pub(super) fn new(dimensions: usize, seed: u64) -> Self {
        let digits = primes(dimensions).into_iter().enumerate().map(|(dimension, base)| {
            Source::new(seed, 3_000_000 + dimension as u64).permutation(base)
        });
        Self { digits: digits.collect() }
    }

    pub(super) fn point(&self, number: usize) -> Vec<f64> {
        let coordinate = |digits: &Vec<usize>| {
            let base = digits.len();
            let (mut rest, mut value, mut weight) = (number + 1, 0.0, 1.0);
            // Zeros beyond the number's own digits are permuted too.
            while weight > 1e-12 {
                weight /= base as f64;
                value += weight * digits[rest % base] as f64;
                rest /= base;
            }
            value.clamp(0.0, 1.0)
        };
        self.digits.iter().map(coordinate).collect()
    }
}

fn primes(count: usize) -> Vec<usize> {
    let mut primes: Vec<usize> = vec![];
    let mut next = 2;
    while primes.len() < count {
        if primes.iter().all(|prime| next % prime != 0) {
            primes.push(next);
        }
        next += 1;
    }
    primes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stratum_has_one_point_of_each_dimension() {
        let points = stratified(3, 10, 4);
        for dimension in 0..3 {
            let mut strata: Vec<usize> =
                points.iter().map(|point| (point[dimension] * 10.0) as usize).collect();
            strata.sort_unstable();
            assert_eq!(strata, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(points, stratified(3, 10, 5));
    }

    #[test]
    fn the_halton_sequence_is_even() {
        let halton = Halton::new(3, 9);
        for dimension in 0..3 {
            let mut halves = 0;
            for number in 0..64 {
                let at = halton.point(number)[dimension];
                assert!((0.0..=1.0).contains(&at));
                halves += usize::from(at < 0.5);
            }
            assert!((26..=38).contains(&halves), "{dimension} {halves}");
        }
    }
}
