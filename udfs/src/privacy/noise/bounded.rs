//! Bounded contributions, and private counts, sums, means and variances over them.
//!
//! First [`choose`] keeps at most so many groups of each privacy unit, uniformly at random; then a
//! unit's entries in a group are clamped to bounds, and what is released of the group gets the
//! noise of that sensitivity. The conventions are those of Google's library:
//!
//! * NaN is no entry: it adds nothing to a sum and is not counted. Infinities are clamped.
//! * Sums of whole numbers are made in 128 bits and saturate at those of 64: no order of rows can
//!   overflow. Sums of doubles are made on the noise's grid, where addition is exact whatever the
//!   order; sums of rounded doubles can be more sensitive than their bounds say (Casacuberta et al.
//!   2022: "Widespread Underestimation of Sensitivity in Differentially Private Libraries").
//! * A mean is a noisy sum of the distances from the bounds' midpoint over a noisy count, each
//!   under half of the budget, clamped to the bounds. A variance (that of a population) takes
//!   three parts: the squares of these distances too. That of a sample is computed from the same
//!   noisy numbers, which costs nothing more: times n/(n - 1), n being the noisy count.
//! * A group without entries has an answer as any other: that it is empty is private.

use datafusion_common::{Result, exec_err};
use rand::CryptoRng;

use super::exact::below;
use super::{Mechanism, Noise, Sensitivity};

/// The bounds that real entries are clamped to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    lower: f64,
    upper: f64,
}

impl Bounds {
    /// From `lower` to `upper`, both included.
    ///
    /// # Errors
    /// When one is not finite, or they are the wrong way round.
    pub fn new(lower: f64, upper: f64) -> Result<Self> {
        if !(lower.is_finite() && upper.is_finite() && (upper - lower).is_finite()) {
            return exec_err!(
                "the contribution bounds {lower} and {upper} are not finite. Hint: give the range \
                 in which values usually lie; what is outside is moved to the nearer bound"
            );
        }
        if lower > upper {
            return exec_err!(
                "the lower contribution bound {lower} is greater than the upper one, {upper}. \
                 Hint: give the lower one first"
            );
        }
        Ok(Self { lower, upper })
    }

    /// The least value.
    pub fn lower(&self) -> f64 {
        self.lower
    }

    /// The greatest value.
    pub fn upper(&self) -> f64 {
        self.upper
    }

    /// The value, moved to the nearer bound; none for NaN.
    pub fn clamp(&self, value: f64) -> Option<f64> {
        // Not `f64::clamp`, which may panic: these bounds are in order, it cannot know.
        (!value.is_nan()).then(|| value.max(self.lower).min(self.upper))
    }

    fn magnitude(&self) -> f64 {
        self.lower.abs().max(self.upper.abs())
    }

    fn middle(&self) -> f64 {
        self.lower + 0.5 * (self.upper - self.lower)
    }

    /// Half the width, rounded up.
    fn half_width(&self) -> f64 {
        (0.5 * (self.upper - self.lower)).next_up()
    }
}

/// Which of some contributions are kept: of each unit at most `kept_max`, each choice being
/// equally likely.
///
/// `units` has a code for the unit of each contribution, a contribution being a unit's share of a
/// group; it must name each pair of unit and group once. Codes need not be dense. With the codes
/// of such pairs in place of units it bounds the rows of a unit in a group.
pub fn choose(units: &[usize], kept_max: usize, rng: &mut dyn CryptoRng) -> Vec<bool> {
    let mut order: Vec<usize> = (0..units.len()).collect();
    order.sort_by_key(|place| units.get(*place));
    let mut kept = vec![false; units.len()];
    for run in order.chunk_by_mut(|left, right| units.get(*left) == units.get(*right)) {
        let count = run.len();
        if count > kept_max {
            for place in 0..kept_max {
                let step = below((count - place) as u128, rng);
                run.swap(place, place + usize::try_from(step).unwrap_or(0));
            }
        }
        for place in run.iter().take(kept_max) {
            if let Some(kept) = kept.get_mut(*place) {
                *kept = true;
            }
        }
    }
    kept
}

/// Private sums of whole numbers, and counts: of rows as a unit's number of rows in a group, of
/// units as ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IntegerSum {
    lower: i64,
    upper: i64,
    mechanism: Mechanism,
}

impl IntegerSum {
    /// Of entries between `lower` and `upper`; the sensitivity's magnitude is taken from these.
    ///
    /// # Errors
    /// When the bounds are the wrong way round or both zero, and as [`Noise::check`].
    pub fn new(noise: Noise, contribution: &Sensitivity, lower: i64, upper: i64) -> Result<Self> {
        if lower > upper {
            return exec_err!(
                "the lower contribution bound {lower} is greater than the upper one, {upper}. \
                 Hint: give the lower one first"
            );
        }
        let magnitude = lower.unsigned_abs().max(upper.unsigned_abs());
        let rounded = magnitude as f64;
        let magnitude =
            if (rounded as u128) < u128::from(magnitude) { rounded.next_up() } else { rounded };
        let sensitivity = contribution.of_magnitude(magnitude)?;
        Ok(Self { lower, upper, mechanism: Mechanism::for_integers(noise, &sensitivity)? })
    }

    /// Its noise.
    pub fn mechanism(&self) -> &Mechanism {
        &self.mechanism
    }

    /// The private sum of a group's entries.
    pub fn release(&self, entries: impl IntoIterator<Item = i64>, rng: &mut dyn CryptoRng) -> i64 {
        let sum = entries.into_iter().fold(0_i128, |sum, entry| {
            sum.saturating_add(i128::from(entry.max(self.lower).min(self.upper)))
        });
        self.release_total(sum, rng)
    }

    /// The private value of a sum of entries that were clamped already.
    pub fn release_total(&self, total: i128, rng: &mut dyn CryptoRng) -> i64 {
        saturated(self.mechanism.integer(total, rng))
    }
}

/// Private sums of real numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RealSum {
    bounds: Bounds,
    mechanism: Mechanism,
}

impl RealSum {
    /// Of entries within `bounds`; the sensitivity's magnitude is taken from these.
    ///
    /// # Errors
    /// When both bounds are zero, and as [`Noise::check`].
    pub fn new(noise: Noise, contribution: &Sensitivity, bounds: Bounds) -> Result<Self> {
        let sensitivity = contribution.of_magnitude(bounds.magnitude())?;
        Ok(Self { bounds, mechanism: Mechanism::for_reals(noise, &sensitivity)? })
    }

    /// Its noise.
    pub fn mechanism(&self) -> &Mechanism {
        &self.mechanism
    }

    /// The private sum of a group's entries.
    pub fn release(&self, entries: impl IntoIterator<Item = f64>, rng: &mut dyn CryptoRng) -> f64 {
        let grid = self.mechanism.grid();
        let clamped = entries.into_iter().filter_map(|entry| self.bounds.clamp(entry));
        let sum = clamped.fold(0_i128, |sum, entry| sum.saturating_add(grid.units(entry)));
        self.mechanism.units(sum, rng)
    }
}

/// Private means, and variances.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    bounds: Bounds,
    /// None where the bounds are one point, of which there is nothing to learn.
    noise: Option<MomentNoise>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct MomentNoise {
    count: Mechanism,
    distance: Mechanism,
    /// None where only means are asked for.
    square: Option<Mechanism>,
}

/// What a release tells: the mean within the bounds, the variance of a population, zero where only
/// the mean was asked for, and the noisy count, at least one.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Moment {
    mean: f64,
    variance: f64,
    count: f64,
}

impl Moments {
    /// For means, each of the two parts under half of `noise`.
    ///
    /// # Errors
    /// As [`Noise::check`], and when the bounds are too wide.
    pub fn for_mean(noise: Noise, contribution: &Sensitivity, bounds: Bounds) -> Result<Self> {
        Self::new(noise.split(2), contribution, bounds, false)
    }

    /// For variances, each of the three parts under a third of `noise`.
    ///
    /// # Errors
    /// As [`Moments::for_mean`].
    pub fn for_variance(noise: Noise, contribution: &Sensitivity, bounds: Bounds) -> Result<Self> {
        Self::new(noise.split(3), contribution, bounds, true)
    }

    fn new(part: Noise, contribution: &Sensitivity, bounds: Bounds, square: bool) -> Result<Self> {
        part.check()?;
        if bounds.lower == bounds.upper {
            return Ok(Self { bounds, noise: None });
        }
        let half = bounds.half_width();
        let real =
            |magnitude: f64| Mechanism::for_reals(part, &contribution.of_magnitude(magnitude)?);
        let noise = MomentNoise {
            count: Mechanism::for_integers(part, &contribution.of_magnitude(1.0)?)?,
            distance: real(half)?,
            square: if square { Some(real(half_square(half))?) } else { None },
        };
        Ok(Self { bounds, noise: Some(noise) })
    }

    fn release(&self, entries: impl IntoIterator<Item = f64>, rng: &mut dyn CryptoRng) -> Moment {
        let Some(noise) = &self.noise else {
            return Moment { mean: self.bounds.lower, variance: 0.0, count: 1.0 };
        };
        let (middle, half) = (self.bounds.middle(), self.bounds.half_width());
        let center = half_square(half);
        let (mut count, mut distances, mut squares) = (0_i128, 0_i128, 0_i128);
        for entry in entries.into_iter().filter_map(|entry| self.bounds.clamp(entry)) {
            let distance = (entry - middle).max(-half).min(half);
            count = count.saturating_add(1);
            distances = distances.saturating_add(noise.distance.grid().units(distance));
            if let Some(square) = &noise.square {
                let excess = (distance * distance - center).max(-center).min(center);
                squares = squares.saturating_add(square.grid().units(excess));
            }
        }
        let divisor = noise.count.integer(count, rng).max(1) as f64;
        let distance = noise.distance.units(distances, rng) / divisor;
        let variance = noise.square.as_ref().map_or(0.0, |square| {
            let of_squares = square.units(squares, rng) / divisor + center;
            (of_squares - distance * distance).max(0.0).min(half * half)
        });
        let mean = (middle + distance).max(self.bounds.lower).min(self.bounds.upper);
        Moment { mean, variance, count: divisor }
    }

    /// The private mean of a group's entries.
    pub fn mean(&self, entries: impl IntoIterator<Item = f64>, rng: &mut dyn CryptoRng) -> f64 {
        self.release(entries, rng).mean
    }

    /// The private variance of a group's entries, that of a population.
    pub fn variance(&self, entries: impl IntoIterator<Item = f64>, rng: &mut dyn CryptoRng) -> f64 {
        self.release(entries, rng).variance
    }

    /// The private variance of a group's entries, that of a sample. Of fewer than two entries, by
    /// the noisy count, it is that of two.
    pub fn sample_variance(
        &self,
        entries: impl IntoIterator<Item = f64>,
        rng: &mut dyn CryptoRng,
    ) -> f64 {
        let Moment { variance, count, .. } = self.release(entries, rng);
        let count = count.max(2.0);
        variance * (count / (count - 1.0))
    }
}

/// Half of a square, rounded up: how far squares of distances up to `half` are from their middle.
fn half_square(half: f64) -> f64 {
    (0.5 * half * half).next_up()
}

fn saturated(value: i128) -> i64 {
    let bound = if value < 0 { i64::MIN } else { i64::MAX };
    i64::try_from(value).unwrap_or(bound)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const EXACT: Noise = Noise::Laplace { epsilon: 1e20 };

    fn one() -> Sensitivity {
        Sensitivity::new(1, 1, 1.0).unwrap()
    }

    fn bounds(lower: f64, upper: f64) -> Bounds {
        Bounds::new(lower, upper).unwrap()
    }

    #[test]
    fn what_is_outside_is_moved_to_the_bounds() {
        let mut rng = StdRng::seed_from_u64(20);
        let sum = IntegerSum::new(EXACT, &one(), -2, 10).unwrap();
        assert_eq!(sum.release([1, 100, -100, i64::MAX, i64::MIN], &mut rng), 1 + 10 - 2 + 10 - 2);
        assert_eq!(sum.release([], &mut rng), 0);
        let sum = RealSum::new(EXACT, &one(), bounds(-2.0, 10.0)).unwrap();
        let entries = [1.5, 100.0, f64::NEG_INFINITY, f64::NAN, f64::INFINITY];
        assert_eq!(sum.release(entries, &mut rng), 1.5 + 10.0 - 2.0 + 10.0);
        assert_eq!(sum.release([f64::NAN], &mut rng), 0.0);
    }

    #[test]
    fn sums_saturate_and_do_not_depend_on_the_order() {
        let mut rng = StdRng::seed_from_u64(21);
        let wide = IntegerSum::new(EXACT, &one(), i64::MIN, i64::MAX).unwrap();
        assert_eq!(wide.release([i64::MAX, i64::MAX, 1], &mut rng), i64::MAX);
        assert_eq!(wide.release([i64::MIN, i64::MIN], &mut rng), i64::MIN);
        assert_eq!(wide.release([i64::MAX, i64::MAX, i64::MIN, i64::MIN, 3], &mut rng), 1);
        let real = RealSum::new(EXACT, &one(), bounds(-1e15, 1e15)).unwrap();
        let entries = [1e15, 0.25, -1e15, 0.5, -0.125];
        assert_eq!(real.release(entries, &mut rng), 0.625);
        assert_eq!(real.release(entries.into_iter().rev(), &mut rng), 0.625);
    }

    #[test]
    fn moments_are_those_of_the_clamped_entries() {
        let mut rng = StdRng::seed_from_u64(22);
        let within = bounds(0.0, 8.0);
        let mean = Moments::for_mean(EXACT, &one(), within).unwrap();
        assert!((mean.mean([1.0, 2.0, 3.0], &mut rng) - 2.0).abs() < 1e-12);
        assert!((mean.mean([1.0, 100.0, f64::NAN], &mut rng) - 4.5).abs() < 1e-12);
        assert_eq!(mean.mean([], &mut rng), 4.0);
        let variance = Moments::for_variance(EXACT, &one(), within).unwrap();
        let found = variance.variance([1.0, 2.0, 3.0, 4.0, f64::NAN], &mut rng);
        assert!((found - 1.25).abs() < 1e-12, "{found}");
        assert!((variance.variance([0.0, 8.0], &mut rng) - 16.0).abs() < 1e-12);
        let found = variance.sample_variance([1.0, 2.0, 3.0, 4.0, f64::NAN], &mut rng);
        assert!((found - 5.0 / 3.0).abs() < 1e-12, "{found}");
        assert!((variance.sample_variance([0.0, 8.0], &mut rng) - 32.0).abs() < 1e-12);
        assert!(variance.sample_variance([7.0], &mut rng).abs() < 1e-12);
        let point = Moments::for_mean(EXACT, &one(), bounds(3.0, 3.0)).unwrap();
        assert_eq!(point.mean([1.0, 7.0], &mut rng), 3.0);
        let none = Moments::for_variance(EXACT, &one(), bounds(3.0, 3.0)).unwrap();
        assert_eq!(none.variance([1.0, 7.0], &mut rng), 0.0);
    }

    #[test]
    fn answers_stay_within_what_is_possible() {
        let mut rng = StdRng::seed_from_u64(23);
        let noise = Noise::Laplace { epsilon: 0.1 };
        let mean = Moments::for_mean(noise, &one(), bounds(-1.0, 3.0)).unwrap();
        let variance = Moments::for_variance(noise, &one(), bounds(-1.0, 3.0)).unwrap();
        for _ in 0..500 {
            let found = mean.mean([0.0, 1.0], &mut rng);
            assert!((-1.0..=3.0).contains(&found), "{found}");
            let found = variance.variance([0.0, 1.0], &mut rng);
            assert!((0.0..=4.000_001).contains(&found), "{found}");
            let found = variance.sample_variance([0.0, 1.0], &mut rng);
            assert!((0.0..=8.000_001).contains(&found), "{found}");
        }
    }

    #[test]
    fn bounds_that_are_none_are_refused() {
        for (lower, upper) in [(1.0, 0.0), (f64::NAN, 1.0), (0.0, f64::INFINITY), (-1e308, 1e308)] {
            let error = Bounds::new(lower, upper).unwrap_err().to_string();
            assert!(error.contains("Hint"), "{error}");
        }
        assert!(IntegerSum::new(EXACT, &one(), 1, 0).is_err());
        assert!(IntegerSum::new(EXACT, &one(), 0, 0).is_err());
        assert!(RealSum::new(EXACT, &one(), bounds(0.0, 0.0)).is_err());
        assert!(Moments::for_variance(EXACT, &one(), bounds(0.0, 1e80)).is_err());
        let none = Noise::Laplace { epsilon: f64::NAN };
        assert!(Moments::for_mean(none, &one(), bounds(3.0, 3.0)).is_err());
    }

    #[test]
    fn each_contribution_is_kept_equally_often() {
        let mut rng = StdRng::seed_from_u64(24);
        let units = [7, 3, 7, 7, 3, 9, 7];
        let mut counts = [0_u32; 7];
        for _ in 0..20_000 {
            for (count, kept) in counts.iter_mut().zip(choose(&units, 2, &mut rng)) {
                *count += u32::from(kept);
            }
        }
        assert_eq!([counts[1], counts[4], counts[5]], [20_000; 3]);
        for place in [0, 2, 3, 6] {
            assert!(counts[place].abs_diff(10_000) < 360, "{counts:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_unit_keeps_more_than_it_may_nor_less_than_it_could(
            units in prop::collection::vec(0_usize..6, 0..40),
            kept_max in 0_usize..5,
            seed: u64,
        ) {
            let kept = choose(&units, kept_max, &mut StdRng::seed_from_u64(seed));
            for unit in 0..6 {
                let all = units.iter().filter(|of| **of == unit).count();
                let left = units.iter().zip(&kept).filter(|(of, kept)| **of == unit && **kept);
                prop_assert_eq!(left.count(), all.min(kept_max));
            }
        }
    }
}
