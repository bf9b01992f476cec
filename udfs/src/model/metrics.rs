//! Metrics of rankings and of predicted ratings.
//!
//! As the published tables define them: recall = hits / |test items|; precision = hits / k; ideal
//! DCG over min(|test items|, k); average precision over min(|test items|, k); means over users
//! that have test items. Coverage is the share of all items that were recommended to anyone.
//!
//! [`RankingMetrics`] sums up and keeps nothing. [`RankingEvaluation`] and [`RatingEvaluation`]
//! keep what each user adds, so that [`Bootstrap`] can say how sure a metric is and whether one
//! model is better than another.

use std::collections::HashSet;

pub mod auc;
pub mod beyond_accuracy;
pub mod bootstrap;
pub mod calibration;
pub mod per_user;
pub mod ranking;

pub use self::bootstrap::{Bootstrap, Comparison, Estimate};
pub use self::per_user::{Contribution, Metric, PerUser, RatingEvaluation};
pub use self::ranking::{RankingEvaluation, UserList, UserRanking};

/// A metric beside the same metric of the baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricValue {
    /// Such as `recall@20` or `rmse`.
    pub name: String,
    /// The model's value; NaN when there is nothing to measure.
    pub value: f64,
    /// The baseline's value.
    pub baseline: f64,
}

/// Sums of ranking metrics over users.
#[derive(Debug, Clone, Default)]
pub struct RankingMetrics {
    k: usize,
    users: usize,
    recall: f64,
    ndcg: f64,
    precision: f64,
    average_precision: f64,
    hit_rate: f64,
    reciprocal_rank: f64,
    recommended: HashSet<u32>,
}

impl RankingMetrics {
    /// Metrics of lists of length `k`.
    pub fn new(k: usize) -> Self {
        Self { k, ..Self::default() }
    }

    /// Adds one user: the list, best first, and the test items in ascending order of code.
    pub fn add(&mut self, list: &[u32], test: &[u32]) {
        let list = &list[..list.len().min(self.k)];
        self.recommended.extend(list);
        let Some(user) = UserRanking::new(self.k, list, test) else { return };
        self.users += 1;
        self.recall += user.recall;
        self.ndcg += user.ndcg;
        self.precision += user.precision;
        self.average_precision += user.average_precision;
        self.hit_rate += user.hit;
        self.reciprocal_rank += user.reciprocal_rank;
    }

    /// Names and values, recall first, against a catalog of `items`.
    pub fn values(&self, items: usize) -> Vec<(String, f64)> {
        let users = self.users as f64;
        let coverage = self.recommended.len() as f64 / items as f64;
        [
            ("recall", self.recall / users),
            ("ndcg", self.ndcg / users),
            ("precision", self.precision / users),
            ("map", self.average_precision / users),
            ("hit_rate", self.hit_rate / users),
            ("mrr", self.reciprocal_rank / users),
            ("coverage", coverage),
        ]
        .into_iter()
        .map(|(name, value)| (format!("{name}@{}", self.k), value))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranking_metrics_equal_values_computed_by_hand() {
        let mut metrics = RankingMetrics::new(3);
        // Hits at ranks 1 and 3 of two test items; then no hit; then a user without test items.
        metrics.add(&[5, 9, 7], &[5, 7]);
        metrics.add(&[1, 2, 3], &[4]);
        metrics.add(&[8], &[]);
        let values = metrics.values(20);
        let expected = [
            ("recall@3", 0.5),
            ("ndcg@3", 1.5 / (1.0 + 1.0 / 3_f64.log2()) / 2.0),
            ("precision@3", 2.0 / 3.0 / 2.0),
            ("map@3", (1.0 + 2.0 / 3.0) / 2.0 / 2.0),
            ("hit_rate@3", 0.5),
            ("mrr@3", 0.5),
            ("coverage@3", 7.0 / 20.0),
        ];
        for ((name, value), (expected_name, expected)) in values.iter().zip(expected) {
            assert_eq!(name, expected_name);
            assert!((value - expected).abs() < 1e-12, "{name} {value} {expected}");
        }
    }

    #[test]
    fn the_ideal_is_cut_at_k() {
        let mut metrics = RankingMetrics::new(2);
        metrics.add(&[1, 2, 3], &[1, 2, 3, 4]);
        let values = metrics.values(4);
        assert_eq!(values[0].1, 0.5);
        assert!((values[1].1 - 1.0).abs() < 1e-12 && (values[3].1 - 1.0).abs() < 1e-12);
    }
}
