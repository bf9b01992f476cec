//! One user's ranking metrics, and those of many users kept apart.
//!
//! For a list of at most k items, best first, and a user's test items:
//!
//! | metric | value |
//! |---|---|
//! | `recall` | hits / number of test items |
//! | `ndcg` | Σ 1/log₂(rank + 1) over hits / the same over ranks 1 … min(test items, k) |
//! | `precision` | hits / k |
//! | `map` | Σ precision at each hit's rank / min(test items, k) |
//! | `hit_rate` | 1 with a hit, else 0 |
//! | `mrr` | 1 / rank of the first hit, 0 without one |
//!
//! These are the definitions of the published LightGCN tables (He et al. 2020). `auc`,
//! `log_loss`, `diversity` and `novelty` are those of [`super::auc`] and
//! [`super::beyond_accuracy`]. A metric's value is
//! the mean over users who have one: test items for the six above, what the metric itself asks for
//! else.

use super::beyond_accuracy::Exposure;
use super::per_user::{Contribution, PerUser};

/// The ranking metrics of one user's list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UserRanking {
    /// Hits / number of test items.
    pub recall: f64,
    /// Discounted cumulative gain / its ideal.
    pub ndcg: f64,
    /// Hits / k.
    pub precision: f64,
    /// Mean precision at the hits' ranks, over the reachable hits.
    pub average_precision: f64,
    /// Whether there was a hit: 1 or 0.
    pub hit: f64,
    /// 1 / rank of the first hit; 0 without one.
    pub reciprocal_rank: f64,
}

impl UserRanking {
    /// Measures a list, best first, of which the first `k` count, against the test items in
    /// ascending order of code; `None` without test items.
    pub fn new(k: usize, list: &[u32], test: &[u32]) -> Option<Self> {
        if test.is_empty() {
            return None;
        }
        let (mut hits, mut gain, mut precisions, mut reciprocal_rank) = (0.0, 0.0, 0.0, 0.0);
        for (rank, item) in (1_u32..).zip(&list[..list.len().min(k)]) {
            if test.binary_search(item).is_ok() {
                if hits == 0.0 {
                    reciprocal_rank = 1.0 / f64::from(rank);
                }
                hits += 1.0;
                gain += discount(rank);
                precisions += hits / f64::from(rank);
            }
        }
        let reachable = test.len().min(k);
        let ideal: f64 = (1_u32..).take(reachable).map(discount).sum();
        let share = |sum: f64, most: f64| if reachable > 0 { sum / most } else { 0.0 };
        Some(Self {
            recall: hits / test.len() as f64,
            ndcg: share(gain, ideal),
            precision: share(hits, k as f64),
            average_precision: share(precisions, reachable as f64),
            hit: f64::from(u8::from(hits > 0.0)),
            reciprocal_rank,
        })
    }
}

fn discount(rank: u32) -> f64 {
    1.0 / f64::from(rank + 1).log2()
}

/// What is known of one user's list.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserList<'a> {
    /// The user's code.
    pub user: u32,
    /// The recommended items, best first.
    pub list: &'a [u32],
    /// The test items in ascending order of code; empty when the user has none.
    pub test: &'a [u32],
    /// [`super::auc::user_auc`], where it was computed.
    pub auc: Option<f64>,
    /// The mean [`super::auc::log_loss`] of the user's pairs, where it was computed.
    pub log_loss: Option<f64>,
    /// [`super::beyond_accuracy::diversity`] of the list.
    pub diversity: Option<f64>,
    /// [`super::beyond_accuracy::novelty`] of the list.
    pub novelty: Option<f64>,
}

/// Ranking metrics of many users, kept by user, and what was recommended to all of them.
#[derive(Debug, Clone)]
pub struct RankingEvaluation {
    k: usize,
    per_user: PerUser,
    exposure: Exposure,
}

impl RankingEvaluation {
    /// Metrics of lists of length `k` from a catalog of `items`.
    pub fn new(k: usize, items: usize) -> Self {
        let names = ["recall", "ndcg", "precision", "map", "hit_rate", "mrr"];
        let beyond = ["diversity", "novelty"];
        let at_k = |name: &str| format!("{name}@{k}");
        let mut metrics: Vec<String> = names.into_iter().map(at_k).collect();
        metrics.extend(["auc", "log_loss"].map(str::to_owned));
        metrics.extend(beyond.into_iter().map(at_k));
        Self { k, per_user: PerUser::means(metrics), exposure: Exposure::new(k, items) }
    }

    /// Adds one user; a user comes once.
    pub fn add(&mut self, of: &UserList<'_>) {
        let list = &of.list[..of.list.len().min(self.k)];
        self.exposure.add(of.user, list);
        let ranking = UserRanking::new(self.k, list, of.test);
        let read = |value: fn(&UserRanking) -> f64| ranking.as_ref().map(value);
        let values = [
            read(|ranking| ranking.recall),
            read(|ranking| ranking.ndcg),
            read(|ranking| ranking.precision),
            read(|ranking| ranking.average_precision),
            read(|ranking| ranking.hit),
            read(|ranking| ranking.reciprocal_rank),
            of.auc,
            of.log_loss,
            of.diversity,
            of.novelty,
        ];
        self.per_user.push(of.user, &values.map(Contribution::of));
    }

    /// Takes the users of another evaluation of equal length and catalog: users can be measured in
    /// parallel.
    pub fn append(&mut self, other: Self) {
        self.per_user.append(other.per_user);
        self.exposure.append(other.exposure);
    }

    /// Values by user.
    pub fn per_user(&self) -> &PerUser {
        &self.per_user
    }

    /// What was recommended.
    pub fn exposure(&self) -> &Exposure {
        &self.exposure
    }

    /// Names and values: those by user, then coverage and Gini.
    pub fn values(&self) -> Vec<(String, f64)> {
        let mut values = self.per_user.values();
        values.extend(self.exposure.values());
        values
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.per_user.memory_bytes() + self.exposure.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_appended_equal_the_whole() {
        let list = |user: u32| [user % 7, user % 5 + 7, user % 3 + 12];
        let add = |evaluation: &mut RankingEvaluation, user: u32| {
            let test = [user % 4 + 7];
            let auc = user.is_multiple_of(2).then_some(0.5);
            let list = list(user);
            let of = UserList { user, list: &list, test: &test, auc, ..UserList::default() };
            evaluation.add(&of);
        };
        let mut whole = RankingEvaluation::new(3, 20);
        let mut parts = [RankingEvaluation::new(3, 20), RankingEvaluation::new(3, 20)];
        for user in 0..50 {
            add(&mut whole, user);
            add(&mut parts[usize::from(user >= 20)], user);
        }
        let [mut first, second] = parts;
        first.append(second);
        assert_eq!(format!("{:?}", first.values()), format!("{:?}", whole.values()));
        assert!(first.memory_bytes() > 0);
    }

    #[test]
    fn the_definitions_are_those_of_the_published_tables() {
        // Computed with NumPy after the table above: hits at ranks 1, 4, 5 of seven test items.
        let ranking = UserRanking::new(5, &[3, 8, 9, 4, 1], &[1, 3, 4, 20, 21, 22, 23]).unwrap();
        let gain = 1.0 + 1.0 / 5_f64.log2() + 1.0 / 6_f64.log2();
        let ideal = 1.0 + 1.0 / 3_f64.log2() + 0.5 + 1.0 / 5_f64.log2() + 1.0 / 6_f64.log2();
        assert!((ranking.ndcg - gain / ideal).abs() < 1e-12);
        assert!((ranking.recall - 3.0 / 7.0).abs() < 1e-12);
        assert!((ranking.precision - 0.6).abs() < 1e-12);
        assert!((ranking.average_precision - (1.0 + 0.5 + 0.6) / 5.0).abs() < 1e-12);
        assert_eq!((ranking.hit, ranking.reciprocal_rank), (1.0, 1.0));
    }
}
