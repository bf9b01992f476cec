//! Private quantiles, by the exponential mechanism over given bounds.
//!
//! The candidates are the 2^32 + 1 points that divide the bounds evenly; entries are moved to the
//! nearest one. Of n entries let b lie below a candidate, e on it and a above it: it is good for
//! all ranks from b to b + e. It misses the quantile of share q by the distance of the rank q n to
//! this interval, which is the greatest of 0, (1 - q) b - q (e + a) and q a - (1 - q) (b + e). So a
//! value that many entries share is hit wherever within them the rank falls. The intervals of the
//! entries' points cover all ranks from 0 to n: some candidate always misses by nothing, and
//! weights decay from there.
//!
//! Sensitivity: one entry more changes (1 - q) b - q (e + a) by 1 - q where it lies below and by -q
//! elsewhere, and q a - (1 - q) (b + e) by q where it lies above and by q - 1 elsewhere; that n
//! moves the rank is part of this. The greatest of terms changes by no more than one of them does:
//! a miss changes by at most max(q, 1 - q), and by D = k max(q, 1 - q) for a privacy unit of at
//! most k entries in a group.
//!
//! A candidate is chosen with a probability proportional to its mass, which depends on the bounds
//! only, times exp(-epsilon miss/(2 D)) (Smith 2011). A unit more changes that product and the sum
//! of all of them by at most exp(epsilon/2) each, whatever the masses are: no answer becomes more
//! than exp(epsilon) times as likely. Groups share epsilon.
//!
//! Masses: each point has 1, and the points nearest to whole numbers share another 2^24. A value
//! that entries share is one point beside billions that miss by little more: of ratings and ages
//! it would be found only where the misses between make up for a factor of 2^30.
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

/// What the whole numbers within the bounds weigh together, beside being points: so little that it
/// hardly changes the chances where values do not repeat.
const WHOLES_MASS: u64 = PARTS >> 8;

/// Where more whole numbers than these lie within the bounds they are points as all others.
const WHOLES_MAX: u64 = 1 << 20;

/// The weight of a candidate that misses by nothing: times the mass of all, which is less than
/// 2^33, it stays below 2^123.
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
    wholes: Wholes,
}

/// The whole numbers within the bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Wholes {
    least: f64,
    count: u64,
    /// What each weighs beside being a point.
    mass: u64,
}

impl Wholes {
    fn within(bounds: Bounds) -> Self {
        let (least, greatest) = (bounds.lower().ceil(), bounds.upper().floor());
        let is_few = greatest - least < WHOLES_MAX as f64;
        // Where there is none the difference is -1.
        let count = if is_few { (greatest - least + 1.0) as u64 } else { 0 };
        Self { least, count, mass: WHOLES_MASS.checked_div(count).unwrap_or(0) }
    }
}

/// Candidates that miss by as much as each other.
#[derive(Clone, Copy, Debug)]
struct Piece {
    first: u64,
    count: u64,
    level: u128,
    /// The place of the first whole number on these points.
    first_whole: u64,
    mass: u64,
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
        let wholes = Wholes::within(bounds);
        Ok(Self { bounds, shares: (below, above), change, factor, wholes })
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
                let step = u64::try_from(below(u128::from(piece.mass), rng)).unwrap_or(0);
                return self.value(self.candidate(piece, step));
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

    /// What a point stands for, the whole number that it is nearest to of all points if there is
    /// one: it depends on the bounds only.
    fn value(&self, point: u64) -> f64 {
        let width = self.bounds.upper() - self.bounds.lower();
        let value = self.bounds.lower() + width * (point as f64 / PARTS as f64);
        let value = self.bounds.clamp(value).unwrap_or(value);
        // Zero is added because what is rounded up to zero would be minus zero.
        let whole = self.bounds.clamp(value.round() + 0.0).unwrap_or(value);
        if self.point(whole) == Some(point) { whole } else { value }
    }

    /// The point of the whole number in that place.
    fn whole(&self, place: u64) -> u64 {
        self.point(self.wholes.least + place as f64).unwrap_or(0)
    }

    /// How many whole numbers are on points before this one.
    fn wholes_before(&self, point: u64) -> u64 {
        let (mut low, mut high) = (0, self.wholes.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.whole(middle) < point {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn piece(&self, first: u64, count: u64, level: u128) -> Piece {
        let first_whole = self.wholes_before(first);
        let wholes = self.wholes_before(first + count).saturating_sub(first_whole);
        Piece { first, count, level, first_whole, mass: count + wholes * self.wholes.mass }
    }

    /// The point in that place of a piece's mass: first its points, then its whole numbers.
    fn candidate(&self, piece: &Piece, step: u64) -> u64 {
        match step.checked_sub(piece.count) {
            None => piece.first + step,
            Some(beyond) => {
                let place = beyond.checked_div(self.wholes.mass).unwrap_or(0);
                self.whole(piece.first_whole + place)
            }
        }
    }

    /// All points, in runs between and at the entries.
    fn pieces(&self, points: &[u64]) -> Vec<Piece> {
        let entries = points.len() as u64;
        let mut pieces = Vec::with_capacity(2 * points.len() + 1);
        let (mut next, mut passed) = (0_u64, 0_u64);
        for run in points.chunk_by(|left, right| left == right) {
            let (Some(point), equal) = (run.first(), run.len() as u64) else { continue };
            if *point > next {
                let level = self.level(passed, 0, entries - passed);
                pieces.push(self.piece(next, point - next, level));
            }
            let level = self.level(passed, equal, entries - passed - equal);
            pieces.push(self.piece(*point, 1, level));
            next = point + 1;
            passed += equal;
        }
        if next <= PARTS {
            let level = self.level(passed, 0, entries - passed);
            pieces.push(self.piece(next, PARTS + 1 - next, level));
        }
        pieces
    }

    /// By how many levels a point misses the quantile that has so many entries below, on and above
    /// it.
    fn level(&self, entries_below: u64, entries_on: u64, entries_above: u64) -> u128 {
        let (below, above) = self.shares;
        let part = |share: u64, entries: u64| u128::from(share) * u128::from(entries);
        let too_high =
            part(above, entries_below).saturating_sub(part(below, entries_on + entries_above));
        let too_low =
            part(below, entries_above).saturating_sub(part(above, entries_below + entries_on));
        let miss = too_high.max(too_low);
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
            weights.push(weight.saturating_mul(u128::from(piece.mass)));
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
    fn the_chances_are_those_of_the_exponential_mechanism_where_entries_repeat() {
        // 3 misses by 0, what is from there to 7 by 5, and all else by 15.
        let mut rng = StdRng::seed_from_u64(34);
        let median = quantile(0.5, 1.0);
        let entries = [[3.0; 10], [3.0; 10], [7.0; 10]].concat();
        let draws = 20_000_u32;
        let (mut three, mut between) = (0_u32, 0_u32);
        for _ in 0..draws {
            let found = median.release(entries.iter().copied(), &mut rng);
            three += u32::from(found == 3.0);
            between += u32::from(found > 3.0 && found <= 7.0);
        }
        // Eleven whole numbers share a 256th of the mass of all points.
        let whole = 1.0 / 256.0 / 11.0;
        let weights = [
            whole,
            (0.4 + 4.0 * whole) * (-5.0_f64).exp(),
            (0.6 + 6.0 * whole) * (-15.0_f64).exp(),
        ];
        let total: f64 = weights.iter().sum();
        for (seen, weight) in [three, between].into_iter().zip(weights) {
            let (share, expected) = (f64::from(seen) / f64::from(draws), weight / total);
            // Five standard deviations of a binomial of 20,000 and 0.116.
            assert!((share - expected).abs() < 0.0115, "{share}, expected {expected}");
        }
    }

    /// A tenth of the persons give 1, two tenths 2, three tenths 3, a quarter 4 and the others 5.
    fn ratings(persons: u32) -> Vec<f64> {
        let rating = |person: u32| match person % 100 {
            0..10 => 1.0,
            10..30 => 2.0,
            30..60 => 3.0,
            60..85 => 4.0,
            _ => 5.0,
        };
        (1..=persons).map(rating).collect()
    }

    #[test]
    fn of_ratings_it_is_a_rating() {
        let five = Sensitivity::new(1, 5, 1.0).unwrap();
        let of = |share: f64, epsilon: f64| {
            Quantile::new(share, Bounds::new(1.0, 5.0).unwrap(), &five, epsilon).unwrap()
        };
        for (persons, epsilon) in [(1_000, 1.0), (1_000, 5.0), (10_000, 1.0)] {
            let (entries, median) = (ratings(persons), of(0.5, epsilon));
            for seed in 0..100 {
                let mut rng = StdRng::seed_from_u64(seed);
                let found = median.release(entries.iter().copied(), &mut rng);
                assert_eq!(found, 3.0, "{persons} persons, epsilon {epsilon}, seed {seed}");
            }
        }
        let mut rng = StdRng::seed_from_u64(35);
        for persons in [100, 10_000] {
            let entries = ratings(persons);
            for (share, expected) in [(0.05, 1.0), (0.2, 2.0), (0.5, 3.0), (0.7, 4.0), (0.9, 5.0)] {
                let found = of(share, 1e20).release(entries.iter().copied(), &mut rng);
                assert_eq!(found, expected, "{persons} persons, share {share}");
            }
        }
    }

    #[test]
    fn whole_numbers_are_answered_as_they_are() {
        let mut rng = StdRng::seed_from_u64(36);
        let one = Sensitivity::new(1, 1, 1.0).unwrap();
        for (lower, upper) in [(0.0, 10.0), (-7.3, 9.1), (0.0, 1e6), (-1e9, 2e9), (3.0, 3.0)] {
            let bounds = Bounds::new(lower, upper).unwrap();
            let found = Quantile::new(0.5, bounds, &one, 1e20).unwrap().release([3.0], &mut rng);
            assert_eq!(found, 3.0, "from {lower} to {upper}");
        }
        for (lower, upper) in [(-7.3, 9.1), (-9.1, 7.3)] {
            let bounds = Bounds::new(lower, upper).unwrap();
            let found = Quantile::new(0.5, bounds, &one, 1e20).unwrap().release([0.0], &mut rng);
            assert!(found == 0.0 && found.is_sign_positive(), "from {lower} to {upper}: {found}");
        }
        // No answer leaves the bounds for a whole number.
        let bounds = Bounds::new(0.4, 0.6).unwrap();
        for (share, expected) in [(0.0, 0.4), (1.0, 0.6)] {
            let quantile = Quantile::new(share, bounds, &one, 1e20).unwrap();
            let found = quantile.release([0.0, 1.0], &mut rng);
            assert_eq!(found, expected);
        }
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

    /// What a unit of mass weighs from each point on where that changes, and what all weighs.
    fn weigh(quantile: &Quantile, entries: &[f64]) -> (Vec<(u64, u128)>, f64) {
        let mut points: Vec<u64> =
            entries.iter().filter_map(|entry| quantile.point(*entry)).collect();
        points.sort_unstable();
        let mut pieces = quantile.pieces(&points);
        let count: u128 = pieces.iter().map(|piece| u128::from(piece.count)).sum();
        assert_eq!(count, u128::from(PARTS) + 1);
        let mass: u128 = pieces.iter().map(|piece| u128::from(piece.mass)).sum();
        let wholes = u128::from(quantile.wholes.count) * u128::from(quantile.wholes.mass);
        assert_eq!(mass, count + wholes);
        pieces.sort_unstable_by_key(|piece| (piece.level, piece.first));
        assert_eq!(pieces[0].level, 0);
        let weights = quantile.weights(&pieces);
        let mut each: Vec<(u64, u128)> = pieces
            .iter()
            .zip(&weights)
            .map(|(piece, weight)| (piece.first, weight / u128::from(piece.mass)))
            .collect();
        each.sort_unstable();
        (each, weights.iter().sum::<u128>() as f64)
    }

    fn weight_of(weights: &[(u64, u128)], point: u64) -> f64 {
        weights.iter().rev().find(|(first, _)| *first <= point).unwrap().1 as f64
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
            let (first, _) = weigh(&quantile, &entries);
            let (second, _) = weigh(&quantile, &[entries.as_slice(), &[more]].concat());
            for (point, _) in first.iter().chain(&second) {
                let ratio = (weight_of(&first, *point) / weight_of(&second, *point)).ln().abs();
                prop_assert!(ratio <= 0.5 * epsilon * (1.0 + 1e-9), "{ratio}");
            }
        }

        /// And of answers: a unit of up to three entries more, all of few values, makes none more
        /// than exp(epsilon) times as likely, nor less.
        #[test]
        fn no_answer_becomes_more_likely_than_it_may(
            entries in prop::collection::vec(0_u8..6, 0..40),
            more in prop::collection::vec(0_u8..6, 1..4),
            share in 0.0_f64..=1.0,
            epsilon in 0.01_f64..20.0,
        ) {
            let three = Sensitivity::new(1, 3, 1.0).unwrap();
            let bounds = Bounds::new(0.0, 5.0).unwrap();
            let quantile = Quantile::new(share, bounds, &three, epsilon).unwrap();
            let entries: Vec<f64> = entries.into_iter().map(f64::from).collect();
            let more: Vec<f64> = more.into_iter().map(f64::from).collect();
            let (first, first_total) = weigh(&quantile, &entries);
            let (second, second_total) = weigh(&quantile, &[entries, more].concat());
            for (point, _) in first.iter().chain(&second) {
                let chance = weight_of(&first, *point) / first_total;
                let other = weight_of(&second, *point) / second_total;
                let ratio = (chance / other).ln().abs();
                prop_assert!(ratio <= epsilon * (1.0 + 1e-9), "{ratio}");
            }
        }
    }
}
