//! How sure a metric is: percentile bootstrap over users.
//!
//! A resample draws users with replacement and computes the metric anew; the interval spans the
//! middle `confidence` of the resamples' values (Efron 1979). Users are drawn the Poisson way: each
//! resample gives each user a weight of its own from Poisson(1), the limit of the multinomial
//! weights (Hanley and MacGibbon 2006; Chamandy et al. 2012). A weight depends on the seed, the
//! resample and the user's code alone, so the interval is the same for every order of users and
//! number of threads, and two models are compared on the same resamples: pairs stay pairs.
//!
//! Coverage and Gini are no means over users: a resample holds 63 % of the users and so covers
//! less. Their resamples tell the spread but not the place; the interval is the percentiles'
//! distance from the resamples' mean, about the value.
//!
//! Memory: eight resamples a thread at a time, 128 bytes a metric, or 32 a catalog item.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::super::error::ModelError;
use super::auc::Scored;
use super::beyond_accuracy::{Exposure, coverage_and_gini};
use super::per_user::{Contribution, PerUser};
use crate::model::random::mix;

/// Resamples computed in one pass over the users.
const LANES: usize = 8;
const RESAMPLES_MAX: usize = 100_000;

/// A metric with its interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// Such as `recall@20`.
    pub name: String,
    /// The value over all users; NaN when there is nothing to measure.
    pub value: f64,
    /// The interval's lower end; NaN with fewer than two users.
    pub low: f64,
    /// The interval's upper end; NaN with fewer than two users.
    pub high: f64,
    /// How many users have a say.
    pub users: usize,
}

/// A model beside another on the users that both measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Such as `recall@20`.
    pub name: String,
    /// The model's value.
    pub model: f64,
    /// The other model's value.
    pub baseline: f64,
    /// `model` − `baseline`.
    pub difference: f64,
    /// The difference's interval; NaN with fewer than two users.
    pub low: f64,
    /// As `low`, the upper end.
    pub high: f64,
    /// The share of resamples in which the model's value is the greater, ties counting half. For an
    /// error or a loss, near 0 is good.
    pub greater: f64,
    /// How many users have a say in both.
    pub users: usize,
}

/// Settings of a bootstrap; [`Default`]: 1,000 resamples, 95 %, seed 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    resamples: usize,
    confidence: f64,
    seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 1000, confidence: 0.95, seed: 1 }
    }
}

impl Bootstrap {
    /// A bootstrap of `resamples` resamples and of intervals that hold `confidence` of them.
    ///
    /// # Errors
    /// When `resamples` is not in 1 … 100,000 or `confidence` not between 0 and 1.
    pub fn new(resamples: usize, confidence: f64, seed: u64) -> Result<Self, ModelError> {
        if !(1..=RESAMPLES_MAX).contains(&resamples) {
            return Err(ModelError::Option {
                option: "resamples",
                value: resamples.to_string(),
                hint: "Use 1 to 100000; 1000 is usual",
            });
        }
        if !(confidence > 0.0 && confidence < 1.0) {
            return Err(ModelError::Option {
                option: "confidence",
                value: confidence.to_string(),
                hint: "Use a share between 0 and 1; 0.95 is usual",
            });
        }
        Ok(Self { resamples, confidence, seed })
    }

    /// Every metric with its interval.
    ///
    /// # Errors
    /// When it was cancelled.
    pub fn estimate(
        &self,
        table: &PerUser,
        cancel: &AtomicBool,
    ) -> Result<Vec<Estimate>, ModelError> {
        let resampled = self.sums(table, cancel)?;
        let counts = table.counts();
        let metrics = table.metrics().iter().zip(table.values()).zip(counts);
        let estimates = metrics.enumerate().map(|(position, ((metric, (name, value)), users))| {
            let values = resampled.iter().map(|sums| metric.value(sums[position])).collect();
            let [low, high] = self.interval(values, users);
            Estimate { name, value, low, high, users }
        });
        Ok(estimates.collect())
    }

    /// The metrics that both tables have, compared on the users that both have.
    ///
    /// # Errors
    /// When it was cancelled.
    pub fn compare(
        &self,
        model: &PerUser,
        baseline: &PerUser,
        cancel: &AtomicBool,
    ) -> Result<Vec<Comparison>, ModelError> {
        let (model, baseline) = common(model, baseline);
        let (ours, theirs) = (self.sums(&model, cancel)?, self.sums(&baseline, cancel)?);
        let values = model.values().into_iter().zip(baseline.values()).zip(model.counts());
        let metrics = model.metrics().iter().zip(values).enumerate();
        let compared =
            metrics.map(|(position, (metric, (((name, model), (_, baseline)), users)))| {
                let of = |sums: &Vec<Contribution>| metric.value(sums[position]);
                let differences: Vec<f64> =
                    ours.iter().zip(&theirs).map(|(ours, theirs)| of(ours) - of(theirs)).collect();
                let greater = share_above(&differences);
                let [low, high] = self.interval(differences, users);
                let difference = model - baseline;
                Comparison { name, model, baseline, difference, low, high, greater, users }
            });
        Ok(compared.collect())
    }

    /// Coverage and Gini with their intervals.
    ///
    /// # Errors
    /// When it was cancelled.
    pub fn exposure(
        &self,
        exposure: &Exposure,
        cancel: &AtomicBool,
    ) -> Result<Vec<Estimate>, ModelError> {
        let resampled = self.blocks(cancel, |weights| {
            let mut counts = vec![[0_u32; LANES]; exposure.items()];
            for (user, list) in exposure.lists() {
                let weights = weights.of(user);
                for &item in list {
                    let counts = &mut counts[item as usize];
                    counts.iter_mut().zip(weights).for_each(|(count, weight)| *count += weight);
                }
            }
            std::array::from_fn(|lane| {
                let counts = counts.iter().map(|counts| counts[lane]).filter(|&count| count > 0);
                coverage_and_gini(&mut counts.collect::<Vec<u32>>(), exposure.items())
            })
        })?;
        let users = exposure.lists().count();
        let named = exposure.values().into_iter().enumerate();
        let estimates = named.map(|(position, (name, value))| {
            let values: Vec<f64> = resampled.iter().map(|values| values[position]).collect();
            let known = values.iter().filter(|value| !value.is_nan());
            let mean = known.clone().sum::<f64>() / known.count() as f64;
            let [low, high] =
                self.interval(values, users).map(|end| (value + end - mean).clamp(0.0, 1.0));
            Estimate { name, value, low, high, users }
        });
        Ok(estimates.collect())
    }

    /// The AUC of a classifier with its interval over rows; NaN when all rows are of one kind.
    ///
    /// # Errors
    /// When it was cancelled.
    pub fn binary_auc(
        &self,
        labels: &[bool],
        scores: &[f64],
        cancel: &AtomicBool,
    ) -> Result<Estimate, ModelError> {
        let scored = Scored::new(labels, scores);
        let values = self
            .blocks(cancel, |weights| scored.auc::<LANES>(|row| weights.of(row).map(f64::from)))?;
        let [value] = scored.auc(|_| [1.0]);
        let users = scored.len();
        let [low, high] = self.interval(values, users);
        Ok(Estimate { name: "auc".to_owned(), value, low, high, users })
    }

    /// The sums of every metric in every resample.
    fn sums(
        &self,
        table: &PerUser,
        cancel: &AtomicBool,
    ) -> Result<Vec<Vec<Contribution>>, ModelError> {
        let width = table.metrics().len();
        self.blocks(cancel, |weights| {
            let mut sums = vec![[[0.0; LANES]; 2]; width];
            for (user, row) in table.rows() {
                let weights = weights.of(user).map(f64::from);
                for ([sum, weight], contribution) in sums.iter_mut().zip(row) {
                    for lane in 0..LANES {
                        sum[lane] += weights[lane] * contribution.sum;
                        weight[lane] += weights[lane] * contribution.weight;
                    }
                }
            }
            std::array::from_fn(|lane| {
                let of = |[sum, weight]: &[[f64; LANES]; 2]| Contribution {
                    sum: sum[lane],
                    weight: weight[lane],
                };
                sums.iter().map(of).collect()
            })
        })
    }

    /// Runs `pass` for each block of resamples on the current thread pool, in order.
    fn blocks<T: Send>(
        &self,
        cancel: &AtomicBool,
        pass: impl Fn(&Weights) -> [T; LANES] + Sync,
    ) -> Result<Vec<T>, ModelError> {
        let blocks: Vec<[T; LANES]> = (0..self.resamples.div_ceil(LANES))
            .into_par_iter()
            .map(|block| {
                if cancel.load(Ordering::Relaxed) {
                    return Err(ModelError::Cancelled);
                }
                Ok(pass(&Weights::new(self.seed, block as u64)))
            })
            .collect::<Result<_, _>>()?;
        Ok(blocks.into_iter().flatten().take(self.resamples).collect())
    }

    /// The ends of the middle `confidence` of values; NaN with fewer than two users. A resample in
    /// which nothing has weight has no value.
    fn interval(&self, mut values: Vec<f64>, users: usize) -> [f64; 2] {
        values.retain(|value| !value.is_nan());
        if users < 2 || values.is_empty() {
            return [f64::NAN; 2];
        }
        values.sort_unstable_by(f64::total_cmp);
        let tail = (1.0 - self.confidence) / 2.0;
        [tail, 1.0 - tail].map(|share| quantile(&values, share))
    }
}

/// The quantile of ascending values, between neighbours by distance.
fn quantile(values: &[f64], share: f64) -> f64 {
    let place = share * (values.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(values.len() - 1);
    values[below] + (place - below as f64) * (values[above] - values[below])
}

/// The share of values above 0, zeros counting half; NaN without a value.
fn share_above(values: &[f64]) -> f64 {
    let (mut above, mut known) = (0.0, 0.0);
    for value in values.iter().filter(|value| !value.is_nan()) {
        known += 1.0;
        above += if *value > 0.0 {
            1.0
        } else if *value < 0.0 {
            0.0
        } else {
            0.5
        };
    }
    above / known
}

/// Both tables cut to the metrics and users that both have, in one order; a metric in which a user
/// has no say in one of them has no weight in the other either.
fn common(model: &PerUser, baseline: &PerUser) -> (PerUser, PerUser) {
    let (model, baseline) = model.paired(baseline);
    let columns: Vec<(usize, usize)> = model
        .metrics()
        .iter()
        .enumerate()
        .filter_map(|(ours, metric)| {
            let theirs = baseline.metrics().iter().position(|other| other == metric)?;
            Some((ours, theirs))
        })
        .collect();
    let metrics: Vec<_> = columns.iter().map(|&(ours, _)| model.metrics()[ours].clone()).collect();
    let mut pair = (PerUser::new(metrics.clone()), PerUser::new(metrics));
    for ((user, ours), (_, theirs)) in model.rows().zip(baseline.rows()) {
        let (ours, theirs): (Vec<_>, Vec<_>) = columns
            .iter()
            .map(|&(column, other)| (ours[column], theirs[other]))
            .map(|(ours, theirs)| {
                let both = ours.weight > 0.0 && theirs.weight > 0.0;
                if both { (ours, theirs) } else { Default::default() }
            })
            .unzip();
        pair.0.push(user, &ours);
        pair.1.push(user, &theirs);
    }
    pair
}

/// The weights of users in a block of resamples.
struct Weights {
    key: u64,
    /// P(weight ≤ j) for j = 0, 1, …, in 2⁻³²; the rest beyond the last is below 2⁻³².
    cumulated: [u32; 12],
}

impl Weights {
    fn new(seed: u64, block: u64) -> Self {
        let mut probability = (-1.0_f64).exp();
        let mut sum = 0.0;
        let cumulated = std::array::from_fn(|weight| {
            sum += probability;
            probability /= (weight + 1) as f64;
            (sum * 4_294_967_296.0) as u32
        });
        Self { key: mix(mix(seed) ^ block), cumulated }
    }

    fn of(&self, user: u32) -> [u32; LANES] {
        let state = mix(self.key ^ u64::from(user));
        let weight = |draw: u32| self.cumulated.iter().map(|&p| u32::from(draw >= p)).sum();
        std::array::from_fn(|lane| {
            let draws = mix(state.wrapping_add((lane / 2) as u64));
            weight((draws >> (32 * (lane % 2))) as u32)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::per_user::RatingEvaluation;
    use super::super::ranking::{RankingEvaluation, UserList};
    use super::*;

    static RUN: AtomicBool = AtomicBool::new(false);

    /// Values 0 … 1 of `users` users, from a generator.
    fn table(users: u32, shift: f64) -> PerUser {
        let mut table = PerUser::means(vec!["a".to_owned()]);
        for user in 0..users {
            let value = mix(u64::from(user)) as f64 / u64::MAX as f64 + shift;
            table.push(user, &[Contribution::of(Some(value))]);
        }
        table
    }

    #[test]
    fn weights_are_poisson_with_mean_and_variance_one() {
        let weights = Weights::new(5, 3);
        let all: Vec<f64> = (0..20_000).flat_map(|user| weights.of(user)).map(f64::from).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let variance = all.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / all.len() as f64;
        let zeros = all.iter().filter(|w| **w == 0.0).count() as f64 / all.len() as f64;
        assert!((mean - 1.0).abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        assert!((zeros - (-1.0_f64).exp()).abs() < 0.005, "{zeros}");
        assert!(all.iter().any(|w| *w >= 5.0));
    }

    #[test]
    fn the_interval_has_the_width_of_the_standard_error() {
        let estimate = Bootstrap::default().estimate(&table(2000, 0.0), &RUN).unwrap().remove(0);
        // Uniform values: the standard error is √(1/12 / 2000).
        let width = 2.0 * 1.96 * (1.0 / 12.0 / 2000.0_f64).sqrt();
        assert!(estimate.low < estimate.value && estimate.value < estimate.high);
        let found = estimate.high - estimate.low;
        assert!((found / width - 1.0).abs() < 0.1, "{found} {width}");
        assert_eq!(estimate.users, 2000);
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let bootstrap = Bootstrap::new(200, 0.9, 3).unwrap();
        let held = (0..200_u64)
            .filter(|&round| {
                let mut table = PerUser::means(vec!["a".to_owned()]);
                for user in 0..100_u32 {
                    let value = mix(mix(round) ^ u64::from(user)) as f64 / u64::MAX as f64;
                    table.push(user, &[Contribution::of(Some(value))]);
                }
                let estimate = bootstrap.estimate(&table, &RUN).unwrap().remove(0);
                estimate.low <= 0.5 && 0.5 <= estimate.high
            })
            .count();
        assert!((165..=195).contains(&held), "{held} of 200");
    }

    #[test]
    fn the_interval_depends_on_seed_and_users_but_not_on_their_order() {
        let forward = table(300, 0.0);
        let mut backward = PerUser::means(vec!["a".to_owned()]);
        let rows: Vec<_> = forward.rows().collect();
        rows.iter().rev().for_each(|(user, row)| backward.push(*user, row));
        let of = |table: &PerUser, seed| {
            let bootstrap = Bootstrap::new(100, 0.95, seed).unwrap();
            bootstrap.estimate(table, &RUN).unwrap().remove(0)
        };
        let (one, other) = (of(&forward, 1), of(&backward, 1));
        assert!((one.low - other.low).abs() < 1e-12 && (one.high - other.high).abs() < 1e-12);
        assert_ne!(one.low, of(&forward, 2).low);
        assert_eq!(one, of(&forward, 1));
    }

    #[test]
    fn few_users_have_no_interval() {
        let estimate =
            |users| Bootstrap::default().estimate(&table(users, 0.0), &RUN).unwrap().remove(0);
        assert!(estimate(0).value.is_nan() && estimate(0).low.is_nan());
        assert!(!estimate(1).value.is_nan() && estimate(1).high.is_nan());
        assert!(estimate(2).low <= estimate(2).value && estimate(2).value <= estimate(2).high);
    }

    #[test]
    fn a_comparison_is_paired() {
        // The models differ by little beside the spread of users: only pairs can tell.
        let (better, worse) = (table(500, 0.01), table(500, 0.0));
        let compared = Bootstrap::default().compare(&better, &worse, &RUN).unwrap().remove(0);
        assert!((compared.difference - 0.01).abs() < 1e-9);
        assert!((compared.low - 0.01).abs() < 1e-9 && (compared.high - 0.01).abs() < 1e-9);
        assert_eq!((compared.greater, compared.users), (1.0, 500));
        let same = Bootstrap::default().compare(&worse, &worse, &RUN).unwrap().remove(0);
        assert_eq!((same.difference, same.low, same.high, same.greater), (0.0, 0.0, 0.0, 0.5));
    }

    #[test]
    fn only_common_users_and_metrics_are_compared() {
        let mut ours = PerUser::means(vec!["b".to_owned(), "a".to_owned()]);
        ours.push(1, &[Contribution::of(Some(9.0)), Contribution::of(Some(1.0))]);
        ours.push(2, &[Contribution::of(Some(9.0)), Contribution::of(None)]);
        ours.push(900, &[Contribution::of(Some(9.0)), Contribution::of(Some(7.0))]);
        let compared = Bootstrap::default().compare(&ours, &table(10, 0.0), &RUN).unwrap();
        assert_eq!(compared.len(), 1);
        assert_eq!((compared[0].name.as_str(), compared[0].users), ("a", 1));
        assert_eq!(compared[0].model, 1.0);
    }

    #[test]
    fn errors_of_ratings_have_intervals_over_users() {
        let mut evaluation = RatingEvaluation::new();
        for user in 0..200_u32 {
            let error = f64::from(user % 5) / 4.0;
            evaluation.add(user, (0..=user % 3).map(|_| (3.0, 3.0 - error)));
        }
        let bootstrap = Bootstrap::default();
        for estimate in bootstrap.estimate(evaluation.per_user(), &RUN).unwrap() {
            assert!(estimate.low < estimate.value && estimate.value < estimate.high);
            assert!(estimate.high - estimate.low < 0.2, "{estimate:?}");
        }
    }

    #[test]
    fn coverage_and_gini_lie_within_their_intervals() {
        let mut evaluation = RankingEvaluation::new(3, 60);
        for user in 0..100_u32 {
            let list = [user % 50, user % 7, 51];
            evaluation.add(&UserList { user, list: &list, test: &[], ..UserList::default() });
        }
        let bootstrap = Bootstrap::default();
        let estimates = bootstrap.exposure(evaluation.exposure(), &RUN).unwrap();
        assert_eq!(
            (estimates[0].name.as_str(), estimates[1].name.as_str()),
            ("coverage@3", "gini@3")
        );
        for estimate in &estimates {
            assert!(estimate.low < estimate.value && estimate.value < estimate.high);
            assert!(0.0 <= estimate.low && estimate.high <= 1.0);
        }
        let again = bootstrap.exposure(evaluation.exposure(), &RUN).unwrap();
        assert_eq!(estimates, again);
    }

    #[test]
    fn a_classifiers_auc_has_an_interval() {
        let labels: Vec<bool> = (0..400_u32).map(|row| row.is_multiple_of(2)).collect();
        let scores: Vec<f64> = (0..400_u32)
            .map(|row| f64::from(row % 13) + if row.is_multiple_of(2) { 2.0 } else { 0.0 })
            .collect();
        let estimate = Bootstrap::default().binary_auc(&labels, &scores, &RUN).unwrap();
        assert_eq!(Some(estimate.value), super::super::auc::binary_auc(&labels, &scores));
        assert!(estimate.low < estimate.value && estimate.value < estimate.high);
        assert!(estimate.high - estimate.low < 0.15, "{estimate:?}");
    }

    #[test]
    fn settings_are_checked_and_work_is_cancelled() {
        assert!(Bootstrap::new(0, 0.95, 1).is_err() && Bootstrap::new(10, 1.0, 1).is_err());
        assert!(Bootstrap::new(10, f64::NAN, 1).is_err());
        let cancel = AtomicBool::new(true);
        let cancelled = Bootstrap::default().estimate(&table(9, 0.0), &cancel);
        assert_eq!(cancelled, Err(ModelError::Cancelled));
    }
}
