//! Private quantiles, by the exponential mechanism over given bounds.
//!
//! The candidates are the 2^32 + 1 points that divide the bounds evenly; entries are moved to the
//! nearest one. A candidate with b entries below and a above it misses the quantile of share q by
//! |(1 - q) b - q a|, which one entry changes by at most max(q, 1 - q). It is chosen with a
//! probability proportional to exp(-epsilon miss/(2 D)), D being the most by which a privacy unit
//! changes the miss (Smith 2011).
//!
//! The choice is exact: misses are whole numbers of a sixteenth of D (rounding them down leaves the
//! sensitivity as it is), and weights are whole numbers, each made from the one before by a factor
//! that is rounded up. No two neighbouring levels differ by more than they may, and that is all
//! that privacy asks of weights. They end at 2^-90 of the greatest or a little above.

use datafusion_common::{Result, exec_err};
use rand::CryptoRng;

use super::bounded::Bounds;
use super::exact::below;
use super::grid::power_of_two;
use super::rounding::quotient_down;
use super::{Noise, Sensitivity};

/// The bounds are divided into 2^32 parts.
const PARTS: u64 = 1 << 32;

/// A share is taken in 2^20 parts.
const SHARES: u64 = 1 << 20;

/// The levels of miss that a privacy unit moves a candidate by at most.
const LEVELS: u32 = 16;

/// The weight of a candidate that misses by nothing: times 2^32 + 1 points it stays below 2^123.
const WEIGHT_MAX: u128 = 1 << 90;

/// A quantile to be released of any number of groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    bounds: Bounds,
    /// Of [`SHARES`], from below and from above.
    shares: (u64, u64),
    /// The most by which a unit changes a miss, in shares.
    change: u128,
    /// What a level multiplies the weight by, of 2^64.
    factor: u128,
}

/// Candidates that miss by as much as each other.
#[derive(Clone, Copy, Debug)]
struct Piece {
    first: u64,
    count: u64,
    level: u128,
}

impl Quantile {
    /// The quantile of `share`, from 0 for the least entry to 1 for the greatest, of entries
    /// within `bounds`, for units that contribute as `contribution` says (its magnitude is of no
    /// account). Groups together cost `epsilon`.
    ///
    /// # Errors
    /// When `share` is not from 0 to 1, or epsilon is none.
    pub fn new(
        share: f64,
        bounds: Bounds,
        contribution: &Sensitivity,
        epsilon: f64,
    ) -> Result<Self> {
        Noise::Laplace { epsilon }.check()?;
        if !(0.0..=1.0).contains(&share) {
            return exec_err!(
                "the share of a quantile is {share}, it must be from 0 to 1. Hint: 0.5 is the \
                 median"
            );
        }
        let below = (share * SHARES as f64).round() as u64;
        let above = SHARES.saturating_sub(below);
        let change = u128::from(contribution.entries_max()) * u128::from(below.max(above));
        let group = quotient_down(epsilon, f64::from(contribution.groups_max()));
        let rate = quotient_down(group, 2.0 * f64::from(LEVELS));
        // The exponential is precise to a part in 10^15 and rounded up by more; the cast saturates.
        let factor = ((-rate).exp() * (1.0 + 4e-15) * power_of_two(64)).ceil() as u128;
        let factor = factor.clamp(1, 1 << 64);
        Ok(Self { bounds, shares: (below, above), change, factor })
    }

    /// The private quantile of a group's entries: NaN is none, infinities are the bounds.
    pub fn release(&self, entries: impl IntoIterator<Item = f64>, rng: &mut dyn CryptoRng) -> f64 {
        let mut points: Vec<u64> =
            entries.into_iter().filter_map(|entry| self.point(entry)).collect();
        points.sort_unstable();
        let mut pieces = self.pieces(&points);
        pieces.sort_unstable_by_key(|piece| (piece.level, piece.first));
        let weights = self.weights(&pieces);
        let total = weights.iter().fold(0_u128, |total, weight| total.saturating_add(*weight));
        let mut drawn = below(total, rng);
        for (piece, weight) in pieces.iter().zip(&weights) {
            if drawn < *weight {
                let step = u64::try_from(below(u128::from(piece.count), rng)).unwrap_or(0);
                return self.value(piece.first + step);
            }
            drawn -= *weight;
        }
        self.bounds.lower()
    }

    /// The point nearest to an entry.
    fn point(&self, entry: f64) -> Option<u64> {
        let (lower, width) = (self.bounds.lower(), self.bounds.upper() - self.bounds.lower());
        let clamped = self.bounds.clamp(entry)?;
        if width == 0.0 {
            return Some(0);
        }
        // The cast saturates at zero.
        let point = ((clamped - lower) / width * PARTS as f64).round() as u64;
        Some(point.min(PARTS))
    }

    /// What a point stands for: it depends on the bounds only.
    fn value(&self, point: u64) -> f64 {
        let width = self.bounds.upper() - self.bounds.lower();
        let value = self.bounds.lower() + width * (point as f64 / PARTS as f64);
        self.bounds.clamp(value).unwrap_or(value)
    }

    /// All points, in runs between and at the entries.
    fn pieces(&self, points: &[u64]) -> Vec<Piece> {
        let entries = points.len() as u64;
        let mut pieces = Vec::with_capacity(2 * points.len() + 1);
        let (mut next, mut passed) = (0_u64, 0_u64);
        for run in points.chunk_by(|left, right| left == right) {
            let (Some(point), equal) = (run.first(), run.len() as u64) else { continue };
            if *point > next {
                let level = self.level(passed, entries - passed);
                pieces.push(Piece { first: next, count: point - next, level });
            }
            let level = self.level(passed, entries - passed - equal);
            pieces.push(Piece { first: *point, count: 1, level });
            next = point + 1;
            passed += equal;
        }
        if next <= PARTS {
            let level = self.level(passed, entries - passed);
            pieces.push(Piece { first: next, count: PARTS + 1 - next, level });
        }
        pieces
    }

    /// By how many levels a point with so many entries below and above misses the quantile.
    fn level(&self, entries_below: u64, entries_above: u64) -> u128 {
        let (below, above) = self.shares;
        let miss = (u128::from(above) * u128::from(entries_below))
            .abs_diff(u128::from(below) * u128::from(entries_above));
        (miss * u128::from(LEVELS)).checked_div(self.change).unwrap_or(0)
    }

    /// The weights of pieces that are ordered by level.
    fn weights(&self, pieces: &[Piece]) -> Vec<u128> {
        let (mut weight, mut level) = (WEIGHT_MAX, 0_u128);
        let mut weights = Vec::with_capacity(pieces.len());
        for piece in pieces {
            while level < piece.level {
                let next = lessened(weight, self.factor);
                // Where rounding up undoes the factor it does so for all levels beyond.
                level = if next == weight { u128::MAX } else { level + 1 };
                weight = next;
            }
            weights.push(weight.saturating_mul(u128::from(piece.count)));
        }
        weights
    }
}

/// `weight` · `factor` / 2^64, rounded up; for weights below 2^127 and factors up to 2^64.
fn lessened(weight: u128, factor: u128) -> u128 {
    let low = u128::from(u64::MAX);
    let rest = (weight & low).saturating_mul(factor).saturating_add(low) >> 64;
    (weight >> 64).saturating_mul(factor).saturating_add(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn quantile(share: f64, epsilon: f64) -> Quantile {
        let one = Sensitivity::new(1, 1, 1.0).unwrap();
        Quantile::new(share, Bounds::new(0.0, 10.0).unwrap(), &one, epsilon).unwrap()
    }

    #[test]
    fn without_noise_it_is_the_entry_in_its_place() {
        let mut rng = StdRng::seed_from_u64(30);
        let entries = [9.0, 1.0, 2.5, f64::NAN, 7.0, f64::INFINITY];
        for (share, expected) in [(0.0, 1.0), (0.25, 2.5), (0.5, 7.0), (0.75, 9.0), (1.0, 10.0)] {
            let found = quantile(share, 1e20).release(entries, &mut rng);
            // Below the least and above the greatest entry is as good as on it.
            let within =
                if share == 0.0 { found <= expected } else { (found - expected).abs() < 1e-8 };
            assert!(within, "{share}: {found}");
        }
        let between = quantile(0.5, 1e20).release([2.0, 4.0], &mut rng);
        assert!((2.0..=4.0).contains(&between));
    }

    #[test]
    fn the_chances_are_those_of_the_exponential_mechanism() {
        // Entries 2 and 3: missing by 1 below 2, by 0 between, by 1 above 3 (in halves).
        let mut rng = StdRng::seed_from_u64(31);
        let epsilon = 2.0_f64;
        let median = quantile(0.5, epsilon);
        let draws = 40_000_u32;
        let mut inside = 0_u32;
        for _ in 0..draws {
            let found = median.release([2.0, 3.0], &mut rng);
            inside += u32::from(found > 2.0 && found < 3.0);
        }
        // A miss of 2 · ½ under a sensitivity of ½ is exp(-epsilon/2 · 2).
        let expected = 1.0 / (1.0 + 9.0 * (-epsilon).exp());
        let share = f64::from(inside) / f64::from(draws);
        assert!((share - expected).abs() < 0.0125, "{share}, expected {expected}");
    }

    #[test]
    fn many_entries_make_it_precise() {
        let mut rng = StdRng::seed_from_u64(32);
        let entries: Vec<f64> = (0..10_001).map(|place| f64::from(place) / 1000.0).collect();
        for share in [0.1, 0.5, 0.9] {
            let found = quantile(share, 1.0).release(entries.iter().copied(), &mut rng);
            assert!((found - 10.0 * share).abs() < 0.05, "{share}: {found}");
        }
        let same = quantile(0.5, 1.0).release(vec![4.0; 10_000], &mut rng);
        assert!((same - 4.0).abs() < 1e-8, "{same}");
    }

    #[test]
    fn edges() {
        let mut rng = StdRng::seed_from_u64(33);
        let none = quantile(0.5, 1.0).release([], &mut rng);
        assert!((0.0..=10.0).contains(&none));
        let one = Sensitivity::new(1, 1, 1.0).unwrap();
        let point = Bounds::new(3.0, 3.0).unwrap();
        assert_eq!(Quantile::new(0.5, point, &one, 1.0).unwrap().release([1.0], &mut rng), 3.0);
        for share in [-0.1, 1.1, f64::NAN] {
            let error = Quantile::new(share, point, &one, 1.0).unwrap_err().to_string();
            assert!(error.contains("Hint"), "{error}");
        }
        assert!(Quantile::new(0.5, point, &one, 0.0).is_err());
        let slow = quantile(0.5, 1e-6).release((0..1_000).map(f64::from), &mut rng);
        assert!((0.0..=10.0).contains(&slow));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Privacy itself: one entry more changes no point's weight by more than exp(epsilon/2).
        #[test]
        fn one_entry_moves_no_weight_by_more_than_it_may(
            entries in prop::collection::vec(0.0_f64..10.0, 0..12),
            more in 0.0_f64..10.0,
            share in 0.0_f64..=1.0,
            epsilon in 0.01_f64..20.0,
        ) {
            let quantile = quantile(share, epsilon);
            let weigh = |entries: &[f64]| {
                let mut points: Vec<u64> =
                    entries.iter().filter_map(|entry| quantile.point(*entry)).collect();
                points.sort_unstable();
                let mut pieces = quantile.pieces(&points);
                let count: u128 = pieces.iter().map(|piece| u128::from(piece.count)).sum();
                assert_eq!(count, u128::from(PARTS) + 1);
                pieces.sort_unstable_by_key(|piece| (piece.level, piece.first));
                let weights = quantile.weights(&pieces);
                let mut each: Vec<(u64, u128)> = pieces
                    .iter()
                    .zip(&weights)
                    .map(|(piece, weight)| (piece.first, weight / u128::from(piece.count)))
                    .collect();
                each.sort_unstable();
                each
            };
            let of = |weights: &[(u64, u128)], point: u64| {
                weights.iter().rev().find(|(first, _)| *first <= point).unwrap().1 as f64
            };
            let first = weigh(&entries);
            let second = weigh(&[entries.as_slice(), &[more]].concat());
            for (point, _) in first.iter().chain(&second) {
                let ratio = (of(&first, *point) / of(&second, *point)).ln().abs();
                prop_assert!(ratio <= 0.5 * epsilon * (1.0 + 1e-9), "{ratio}");
            }
        }
    }
}
