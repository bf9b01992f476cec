//! Bounds found privately, where none were given.
//!
//! Entries are counted in bins whose edges grow by a factor, mirrored for negative ones; each count
//! gets Laplace noise, and the bounds are the outer edges of the outermost bins that reach a
//! threshold. It is so high that an empty bin reaches it with a probability of 10^-9 over all bins
//! (the algorithm of Wilson et al. 2020, section 3.4, as in Google's library, with discrete noise).
//! A few entries do not show: bounds take some tens of units in the outermost bins, at epsilon 1.
//!
//! Finding bounds costs an epsilon of its own, beside that of what is then computed within them.
//! Use them as any other bounds: entries outside are clamped.

use datafusion_common::{Result, exec_err};
use rand::CryptoRng;

use super::bounded::Bounds;
use super::grid::power_of_two;
use super::{Mechanism, Noise, Sensitivity};

/// The probability that any empty bin is taken for a full one.
const FAILURE: f64 = 1e-9;

/// The most bins on either side of zero.
const BINS_MAX: u32 = 1024;

/// Bins, and the noise of their counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Bins {
    /// The outer edges of the bins from zero up.
    edges: Vec<f64>,
    mechanism: Mechanism,
    threshold: i128,
}

impl Bins {
    /// `count` bins on either side of zero, the first from 0 to `scale`, each edge `base` times the
    /// one before; for units that contribute as `contribution` says (its magnitude is of no
    /// account). Groups together cost `epsilon`.
    ///
    /// # Errors
    /// When there are no bins or more than 1,024, edges do not grow or are not finite, or epsilon
    /// is none.
    pub fn new(
        scale: f64,
        base: f64,
        count: u32,
        contribution: &Sensitivity,
        epsilon: f64,
    ) -> Result<Self> {
        let last = scale * base.powf(f64::from(count.saturating_sub(1)));
        if !(scale > 0.0 && base > 1.0 && last.is_finite() && (1..=BINS_MAX).contains(&count)) {
            return exec_err!(
                "{count} bins from {scale} by a factor of {base} cannot be made. Hint: give 1 to \
                 {BINS_MAX} bins, a positive scale, a base above 1 and edges that stay finite"
            );
        }
        let edges = (0..count).map(|bin| scale * base.powf(f64::from(bin))).collect();
        let noise = Noise::Laplace { epsilon };
        let mechanism = Mechanism::for_integers(noise, &contribution.of_magnitude(1.0)?)?;
        // P[x >= t] = a^t/(1 + a) in each of the bins, with a = exp(-1/s).
        let each = -((-FAILURE).ln_1p() / (2.0 * f64::from(count))).exp_m1();
        let odds = each * (1.0 + (-1.0 / mechanism.scale()).exp());
        let threshold = (mechanism.scale() * -odds.ln()).ceil().max(1.0) as i128;
        Ok(Self { edges, mechanism, threshold })
    }

    /// For whole numbers: powers of two from 1 to 2^62.
    ///
    /// # Errors
    /// As [`Bins::new`].
    pub fn for_integers(contribution: &Sensitivity, epsilon: f64) -> Result<Self> {
        Self::new(1.0, 2.0, 63, contribution, epsilon)
    }

    /// For real numbers: powers of two from 2^-32 to 2^63.
    ///
    /// # Errors
    /// As [`Bins::new`].
    pub fn for_reals(contribution: &Sensitivity, epsilon: f64) -> Result<Self> {
        Self::new(power_of_two(-32), 2.0, 96, contribution, epsilon)
    }

    /// The noisy count from which on a bin counts as full.
    pub fn threshold(&self) -> i128 {
        self.threshold
    }

    /// The bounds of a group's entries; none where no bin is full enough, which may be said, since
    /// it is private. NaN is no entry, and what is beyond the last edge is in the last bin.
    pub fn release(
        &self,
        entries: impl IntoIterator<Item = f64>,
        rng: &mut dyn CryptoRng,
    ) -> Option<Bounds> {
        let count = self.edges.len();
        let mut positive = vec![0_i128; count];
        let mut negative = vec![0_i128; count];
        for entry in entries.into_iter().filter(|entry| !entry.is_nan()) {
            let bin = self.edges.partition_point(|edge| *edge < entry.abs()).min(count - 1);
            let side = if entry < 0.0 { &mut negative } else { &mut positive };
            if let Some(counted) = side.get_mut(bin) {
                *counted += 1;
            }
        }
        // From the least bin to the greatest: its edges, in order.
        let inner = |bin: usize| bin.checked_sub(1).and_then(|bin| self.edges.get(bin));
        let edges = |bin: usize| (inner(bin).copied().unwrap_or(0.0), self.edges.get(bin).copied());
        let below = negative.iter().enumerate().rev().map(|(bin, counted)| {
            let (near, far) = edges(bin);
            (-far.unwrap_or(near), -near, *counted)
        });
        let above = positive.iter().enumerate().map(|(bin, counted)| {
            let (near, far) = edges(bin);
            (near, far.unwrap_or(near), *counted)
        });
        let mut found: Option<(f64, f64)> = None;
        for (lower, upper, counted) in below.chain(above) {
            if self.mechanism.integer(counted, rng) >= self.threshold {
                found = Some((found.map_or(lower, |(first, _)| first), upper));
            }
        }
        let (lower, upper) = found?;
        Bounds::new(lower, upper).ok()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn one() -> Sensitivity {
        Sensitivity::new(1, 1, 1.0).unwrap()
    }

    fn find(bins: &Bins, entries: &[f64], seed: u64) -> Option<(f64, f64)> {
        let bounds = bins.release(entries.iter().copied(), &mut StdRng::seed_from_u64(seed))?;
        Some((bounds.lower(), bounds.upper()))
    }

    #[test]
    fn bounds_are_the_edges_of_full_bins() {
        let bins = Bins::for_integers(&one(), 1.0).unwrap();
        let many = |value: f64| vec![value; 100];
        for seed in 0..20 {
            assert_eq!(find(&bins, &many(9.0), seed), Some((8.0, 16.0)));
            assert_eq!(find(&bins, &many(8.0), seed), Some((4.0, 8.0)));
            assert_eq!(find(&bins, &many(-9.0), seed), Some((-16.0, -8.0)));
            assert_eq!(find(&bins, &many(0.0), seed), Some((0.0, 1.0)));
            let both = [many(-3.0), many(1e300), vec![f64::NAN; 100]].concat();
            assert_eq!(find(&bins, &both, seed), Some((-4.0, 2_f64.powi(62))));
        }
        let reals = Bins::for_reals(&one(), 1.0).unwrap();
        assert_eq!(find(&reals, &many(0.3), 1), Some((0.25, 0.5)));
    }

    #[test]
    fn few_entries_do_not_show() {
        let bins = Bins::for_integers(&one(), 1.0).unwrap();
        assert!((20..40).contains(&bins.threshold()), "{}", bins.threshold());
        for seed in 0..50 {
            assert_eq!(find(&bins, &[], seed), None);
            assert_eq!(find(&bins, &[1e9], seed), None);
            let outlier = [vec![5.0; 100], vec![1e9]].concat();
            assert_eq!(find(&bins, &outlier, seed), Some((4.0, 8.0)));
        }
    }

    #[test]
    fn without_noise_one_entry_is_enough() {
        let bins = Bins::for_integers(&one(), 1e20).unwrap();
        assert_eq!(find(&bins, &[-1.0, 5.0, 100.0], 1), Some((-1.0, 128.0)));
    }

    #[test]
    fn bins_that_are_none_are_refused() {
        for (scale, base, count) in
            [(0.0, 2.0, 5), (1.0, 1.0, 5), (1.0, 2.0, 0), (1.0, 2.0, 1025), (1.0, 1e300, 5)]
        {
            let error = Bins::new(scale, base, count, &one(), 1.0).unwrap_err().to_string();
            assert!(error.contains("Hint"), "{error}");
        }
        assert!(Bins::new(f64::NAN, 2.0, 5, &one(), 1.0).is_err());
        assert!(Bins::for_reals(&one(), 0.0).is_err());
    }
}
