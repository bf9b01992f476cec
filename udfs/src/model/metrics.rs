//! Metrics of rankings and of predicted ratings.
//!
//! As the published tables define them: recall = hits / |test items|; precision = hits / k; ideal
//! DCG over min(|test items|, k); average precision over min(|test items|, k); means over users
//! that have test items. Coverage is the share of all items that were recommended to anyone.
//!
//! [`RankingEvaluation`] and [`RatingEvaluation`] keep what each user adds, so that [`Bootstrap`]
//! can say how sure a metric is and whether one model is better than another.

pub mod auc;
pub mod beyond_accuracy;
pub mod bootstrap;
pub mod calibration;
pub mod per_user;
pub mod ranking;

pub use self::bootstrap::{Bootstrap, Comparison, Estimate};
pub use self::per_user::{Contribution, Metric, PerUser, RatingEvaluation};
pub use self::ranking::{RankingEvaluation, UserList, UserRanking};

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The metrics of lists and test items, a user each.
    fn values(k: usize, items: usize, users: &[(&[u32], &[u32])]) -> BTreeMap<String, f64> {
        let mut evaluation = RankingEvaluation::new(k, items);
        for (user, (list, test)) in (0..).zip(users) {
            evaluation.add(&UserList { user, list, test, ..UserList::default() });
        }
        evaluation.values().into_iter().collect()
    }

    #[test]
    fn ranking_metrics_equal_values_computed_by_hand() {
        // Hits at ranks 1 and 3 of two test items; then no hit; then a user without test items.
        let values = values(3, 20, &[(&[5, 9, 7], &[5, 7]), (&[1, 2, 3], &[4]), (&[8], &[])]);
        let expected = [
            ("recall@3", 0.5),
            ("ndcg@3", 1.5 / (1.0 + 1.0 / 3_f64.log2()) / 2.0),
            ("precision@3", 2.0 / 3.0 / 2.0),
            ("map@3", (1.0 + 2.0 / 3.0) / 2.0 / 2.0),
            ("hit_rate@3", 0.5),
            ("mrr@3", 0.5),
            ("coverage@3", 7.0 / 20.0),
        ];
        for (name, expected) in expected {
            let value = values[name];
            assert!((value - expected).abs() < 1e-12, "{name} {value} {expected}");
        }
    }

    #[test]
    fn the_ideal_is_cut_at_k() {
        let values = values(2, 4, &[(&[1, 2, 3], &[1, 2, 3, 4])]);
        assert_eq!(values["recall@2"], 0.5);
        assert!((values["ndcg@2"] - 1.0).abs() < 1e-12 && (values["map@2"] - 1.0).abs() < 1e-12);
    }
}
