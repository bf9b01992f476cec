//! What every recommender answers, and how it is measured.
//!
//! Users and items are codes of [`IdIndex`]; lists are exact, best first, ties by code. A user of
//! whom a model knows nothing gets the popularity ranking and [`Source`] says so.

use rayon::prelude::*;

use super::ids::IdIndex;
use super::metrics::{MetricValue, RankingMetrics};
use super::popularity::Popularity;
use super::sparse::Csr;
use super::topk::Best;

/// Where a list comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The factorization.
    Als,
    /// Item neighbourhoods.
    ItemKnn,
    /// The item-item weights of EASE.
    Ease,
    /// The popularity ranking.
    Popularity,
}

impl Source {
    /// The name in a `source` column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Als => "als",
            Self::ItemKnn => "item_knn",
            Self::Ease => "ease",
            Self::Popularity => "popularity",
        }
    }
}

/// What is asked of [`Recommender::recommend`]; items are codes.
#[derive(Debug, Clone, Copy)]
pub struct RecommendRequest<'a> {
    /// Length of the lists at most.
    pub top_k: usize,
    /// Whether items that the user has had are left out.
    pub exclude_seen: bool,
    /// Only these items.
    pub include: Option<&'a [u32]>,
    /// Never these items.
    pub exclude: Option<&'a [u32]>,
}

impl RecommendRequest<'_> {
    /// One flag for each of `items` items when the request names any; codes out of range are
    /// ignored.
    pub fn allowed(&self, items: usize) -> Option<Vec<bool>> {
        if self.include.is_none() && self.exclude.is_none() {
            return None;
        }
        let mut allowed = vec![self.include.is_none(); items];
        let mut set = |items: Option<&[u32]>, value: bool| {
            for &item in items.unwrap_or_default() {
                if let Some(flag) = allowed.get_mut(item as usize) {
                    *flag = value;
                }
            }
        };
        set(self.include, true);
        set(self.exclude, false);
        Some(allowed)
    }
}

/// One user's list, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Item codes.
    pub items: Vec<u32>,
    /// Their scores.
    pub scores: Vec<f32>,
    /// Where the list comes from.
    pub source: Source,
}

/// A finished recommender.
pub trait Recommender: Send + Sync {
    /// Ids of users.
    fn user_ids(&self) -> &IdIndex;

    /// Ids of items.
    fn item_ids(&self) -> &IdIndex;

    /// Interactions, users × items.
    fn seen(&self) -> &Csr;

    /// Bytes on the heap, with what look-ups add later.
    fn memory_bytes(&self) -> usize;

    /// The score of a user and an item; `None` when either is out of range.
    fn score(&self, user: u32, item: u32) -> Option<f32>;

    /// A list for each user; `None` is an unknown user.
    fn recommend(&self, users: &[Option<u32>], request: &RecommendRequest<'_>) -> Vec<Choice>;

    /// A list for each user as it would be had the interactions in `test` not been seen.
    fn recommend_held_out(&self, users: &[u32], test: &Csr, top_k: usize) -> Vec<Choice>;

    /// The items most similar to each given one, without itself; empty where nothing is known.
    fn similar_items(&self, items: &[u32], top_k: usize) -> Vec<Best>;

    /// Ranking metrics at `top_k` on held-out interactions, beside the popularity ranking: see
    /// [`ranking_metrics`].
    fn ranking_metrics(&self, test: &Csr, top_k: usize) -> Vec<MetricValue> {
        ranking_metrics(self, test, top_k)
    }
}

/// Whether the user has had the item outside the test set: such items are never recommended.
pub(super) fn is_known(seen: &Csr, test: &Csr, user: u32, item: u32) -> bool {
    seen.contains(user as usize, item) && !test.contains(user as usize, item)
}

/// Ranking metrics at `top_k` on held-out interactions (users × items), beside the popularity
/// ranking, for users that have any. Runs on the current rayon pool.
///
/// Items seen in training are left out of both rankings, but for the user's test items; the
/// popularity ranking counts interactions outside the test set.
pub fn ranking_metrics<R: Recommender + ?Sized>(
    recommender: &R,
    test: &Csr,
    top_k: usize,
) -> Vec<MetricValue> {
    let seen = recommender.seen();
    let users: Vec<u32> =
        (0..test.rows() as u32).filter(|&user| !test.row(user as usize).0.is_empty()).collect();
    let baseline = Popularity::from_counts(counts_without(seen, test));
    let mut model = RankingMetrics::new(top_k);
    let mut popular = RankingMetrics::new(top_k);
    for block in users.chunks(4096) {
        let choices = recommender.recommend_held_out(block, test, top_k);
        let lists: Vec<Vec<u32>> = block
            .par_iter()
            .map(|&user| baseline.top(top_k, |item| !is_known(seen, test, user, item)).0)
            .collect();
        for ((&user, choice), list) in block.iter().zip(&choices).zip(&lists) {
            let items = test.row(user as usize).0;
            model.add(&choice.items, items);
            popular.add(list, items);
        }
    }
    let items = recommender.item_ids().len();
    let pairs = model.values(items).into_iter().zip(popular.values(items));
    pairs.map(|((name, value), (_, baseline))| MetricValue { name, value, baseline }).collect()
}

/// Interactions of each item, those of the test set taken off.
pub(super) fn counts_without(seen: &Csr, test: &Csr) -> Vec<u32> {
    let mut counts = seen.column_counts();
    for user in 0..test.rows() {
        for &item in test.row(user).0 {
            if seen.contains(user, item) {
                counts[item as usize] -= 1;
            }
        }
    }
    counts
}
