//! The finished recommender over item-item weights: neighbourhoods (sparse) and EASE (dense).
//!
//! The score of user u and item j is Σ over the user's items i of rᵤᵢ·Sᵢⱼ, with r the weight of
//! the interaction and row i of S what item i says about every item. So a list needs no training
//! for the user: new interactions count at once, and each recommendation is the sum of what the
//! user's own items contributed. Sums run in order of item codes whatever the path, so a pair, one
//! user and a batch score alike.
//!
//! A user without interactions, or whose items say nothing of any allowed item, gets the most
//! popular ones.

use std::borrow::Cow;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::error::ModelError;
use super::ids::IdIndex;
use super::popularity::Popularity;
use super::recommender::{Basket, Choice, HeldOut, RecommendRequest, Recommender, Source, Whose};
use super::sparse::Csr;
use super::topk::{Best, Heap};

/// Item-item weights: row i is what item i says about every item.
#[derive(Debug, Clone, PartialEq)]
pub enum Similarity {
    /// Few of them for each item, as item neighbourhoods have; items × items.
    Sparse(Csr),
    /// All of them, as EASE has; items² values, row-major.
    Dense(Vec<f32>),
}

impl Similarity {
    /// The `model_type` of CREATE MODEL that learns such weights.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Sparse(_) => "item_knn",
            Self::Dense(_) => "ease",
        }
    }
}

/// What a model over item-item weights is made of and stored as.
#[derive(Debug, Clone)]
pub struct ItemParts {
    /// Ids of users; a code is a row of `seen`.
    pub users: IdIndex,
    /// Ids of items.
    pub items: IdIndex,
    /// Interactions, users × items: what scores are computed from and lists leave out.
    pub seen: Csr,
    /// Item-item weights.
    pub similarity: Similarity,
}

/// Item-item weights ready to answer.
#[derive(Debug)]
pub struct ItemModel {
    parts: ItemParts,
    popularity: Popularity,
}

/// Why an item was recommended: what each of the user's items added to its score.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Explanation {
    /// The user's items that say something about it, largest contribution first.
    pub items: Vec<u32>,
    /// Their contributions, which add up to the score.
    pub contributions: Vec<f32>,
}

/// A user's items in ascending order with their weights.
type Own<'a> = (Cow<'a, [u32]>, Cow<'a, [f32]>);

impl ItemModel {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// [`ModelError::Inconsistent`] naming what does not fit.
    pub fn from_parts(parts: ItemParts) -> Result<Self, ModelError> {
        let fail = |why: &str| Err(ModelError::Inconsistent(why.to_owned()));
        let items = parts.items.len();
        if parts.seen.rows() != parts.users.len() || parts.seen.columns() != items {
            return fail("interactions and ids differ in number");
        }
        let (fits, weights) = match &parts.similarity {
            Similarity::Sparse(csr) => {
                (csr.rows() == items && csr.columns() == items, csr.values())
            }
            Similarity::Dense(weights) => {
                (items.checked_mul(items) == Some(weights.len()), weights.as_slice())
            }
        };
        if !fits {
            return fail("item weights and ids differ in number");
        }
        if weights.par_iter().any(|weight| !weight.is_finite()) {
            return fail("an item weight is not finite");
        }
        let popularity = Popularity::new(&parts.seen);
        Ok(Self { parts, popularity })
    }

    /// Item-item weights.
    pub fn similarity(&self) -> &Similarity {
        &self.parts.similarity
    }

    /// Items by number of interactions.
    pub fn popularity(&self) -> &Popularity {
        &self.popularity
    }

    /// The weight of `item` in the row of `own`; 0 where none is kept.
    fn weight(&self, own: u32, item: u32) -> f32 {
        match &self.parts.similarity {
            Similarity::Sparse(csr) => {
                let (items, weights) = csr.row(own as usize);
                items.binary_search(&item).map_or(0.0, |at| weights[at])
            }
            Similarity::Dense(weights) => {
                weights[own as usize * self.parts.items.len() + item as usize]
            }
        }
    }

    /// What each of the user's items adds to the score of `item`; `None` when either is out of
    /// range. Items that say nothing about it are left out.
    pub fn explain(&self, user: u32, item: u32) -> Option<Explanation> {
        self.score(user, item)?;
        let (own, weights) = self.seen().row(user as usize);
        let mut parts: Vec<(u32, f32)> = own
            .iter()
            .zip(weights)
            .map(|(&own, &r)| (own, r * self.weight(own, item)))
            .filter(|&(_, part)| part != 0.0)
            .collect();
        parts.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let (items, contributions) = parts.into_iter().unzip();
        Some(Explanation { items, contributions })
    }

    /// A basket's items in order, each once; repeated ones add up.
    fn own_of(&self, basket: &Basket) -> Own<'static> {
        let mut cells = std::collections::BTreeMap::<u32, f64>::new();
        for (&item, &value) in basket.items.iter().zip(&basket.weights) {
            if (item as usize) < self.parts.items.len() {
                *cells.entry(item).or_default() += f64::from(value);
            }
        }
        let narrow = |sum: f64| (sum as f32).clamp(f32::MIN, f32::MAX);
        let (items, weights): (Vec<u32>, Vec<f32>) =
            cells.into_iter().map(|(item, sum)| (item, narrow(sum))).unzip();
        (items.into(), weights.into())
    }

    /// What each user has had outside the test set.
    fn own_without(&self, users: &[u32], held_out: &HeldOut<'_>) -> Vec<Own<'_>> {
        let own = |&user: &u32| -> Own<'_> {
            let (items, weights) = self.seen().row(user as usize);
            let cells = items.iter().copied().zip(weights.iter().copied());
            let kept = cells.filter(|&(item, _)| !held_out.test.contains(user as usize, item));
            let (items, weights): (Vec<u32>, Vec<f32>) = kept.unzip();
            (items.into(), weights.into())
        };
        users.iter().map(own).collect()
    }

    /// The exact best items of each set of own items that `skip(position, item)` does not refuse;
    /// the most popular ones where there is none.
    fn choose(
        &self,
        own: &[Own<'_>],
        top_k: usize,
        popularity: &Popularity,
        skip: &(dyn Fn(usize, u32) -> bool + Sync),
    ) -> Vec<Choice> {
        let k = top_k.min(self.parts.items.len());
        let best = match &self.parts.similarity {
            _ if k == 0 => vec![Best::default(); own.len()],
            Similarity::Sparse(csr) => sparse_best(csr, own, k, skip),
            Similarity::Dense(weights) => dense_best(weights, self.parts.items.len(), own, k, skip),
        };
        let choice = |(at, best): (usize, Best)| {
            if best.codes.is_empty() {
                return popular(popularity, top_k, |item| !skip(at, item));
            }
            Choice { items: best.codes, scores: best.scores, source: self.source() }
        };
        best.into_iter().enumerate().map(choice).collect()
    }
}

impl Recommender for ItemModel {
    fn user_ids(&self) -> &IdIndex {
        &self.parts.users
    }

    fn item_ids(&self) -> &IdIndex {
        &self.parts.items
    }

    fn seen(&self) -> &Csr {
        &self.parts.seen
    }

    fn memory_bytes(&self) -> usize {
        let weights = match &self.parts.similarity {
            Similarity::Sparse(csr) => csr.memory_bytes(),
            Similarity::Dense(weights) => weights.len() * size_of::<f32>(),
        };
        weights
            + self.popularity.memory_bytes()
            + self.parts.seen.memory_bytes()
            + 2 * (self.parts.users.memory_bytes() + self.parts.items.memory_bytes())
    }

    fn source(&self) -> Source {
        match self.parts.similarity {
            Similarity::Sparse(_) => Source::ItemKnn,
            Similarity::Dense(_) => Source::Ease,
        }
    }

    fn score(&self, user: u32, item: u32) -> Option<f32> {
        if user as usize >= self.parts.users.len() || item as usize >= self.parts.items.len() {
            return None;
        }
        let (own, weights) = self.seen().row(user as usize);
        let parts = own.iter().zip(weights).map(|(&own, &r)| r * self.weight(own, item));
        Some(parts.fold(0.0, |sum, part| sum + part))
    }

    fn recommend(&self, users: &[Option<u32>], request: &RecommendRequest<'_>) -> Vec<Choice> {
        let skips = request.skips(self.seen());
        let skip = |at: usize, item: u32| skips(users[at], item);
        let own: Vec<Own<'_>> = users
            .iter()
            .map(|user| user.map_or((&[][..], &[][..]), |user| self.seen().row(user as usize)))
            .map(|(items, weights)| (items.into(), weights.into()))
            .collect();
        self.choose(&own, request.top_k, &self.popularity, &skip)
    }

    fn recommend_baskets(
        &self,
        baskets: &[Basket],
        request: &RecommendRequest<'_>,
    ) -> Result<Vec<Choice>, ModelError> {
        Basket::check(baskets)?;
        let own: Vec<Own<'_>> = baskets.iter().map(|basket| self.own_of(basket)).collect();
        let skip = request.skips_of(baskets, self.parts.items.len());
        Ok(self.choose(&own, request.top_k, &self.popularity, &skip))
    }

    fn recommend_held_out(
        &self,
        users: &[u32],
        held_out: &HeldOut<'_>,
        top_k: usize,
    ) -> Vec<Choice> {
        let own = self.own_without(users, held_out);
        let skip = |at: usize, item: u32| held_out.is_known(users[at], item);
        self.choose(&own, top_k, &held_out.popularity, &skip)
    }

    fn scores(&self, whose: Whose<'_>, items: &[u32]) -> Vec<f32> {
        let own: Vec<Own<'_>> = match whose {
            Whose::Users(users) => {
                let rows = users.iter().map(|&user| self.seen().row(user as usize));
                rows.map(|(items, weights)| (items.into(), weights.into())).collect()
            }
            Whose::HeldOut(users, held_out) => self.own_without(users, held_out),
            Whose::Baskets(baskets) => baskets.iter().map(|basket| self.own_of(basket)).collect(),
        };
        let size = self.parts.items.len();
        let mut sums = vec![0.0_f32; size];
        let mut scores = Vec::with_capacity(own.len() * items.len());
        for (own, weights) in &own {
            match &self.parts.similarity {
                Similarity::Sparse(csr) => {
                    let rows = || own.iter().map(|&item| csr.row(item as usize));
                    for ((codes, values), &r) in rows().zip(weights.iter()) {
                        for (&code, &weight) in codes.iter().zip(values) {
                            sums[code as usize] += r * weight;
                        }
                    }
                    let of = |item: &u32| sums.get(*item as usize).copied().unwrap_or(0.0);
                    scores.extend(items.iter().map(of));
                    rows().flat_map(|row| row.0).for_each(|&code| sums[code as usize] = 0.0);
                }
                Similarity::Dense(dense) => {
                    let start = scores.len();
                    scores.resize(start + items.len(), 0.0);
                    for (&item, &r) in own.iter().zip(weights.iter()) {
                        let row = &dense[item as usize * size..][..size];
                        for (score, &item) in scores[start..].iter_mut().zip(items) {
                            *score += r * row.get(item as usize).copied().unwrap_or(0.0);
                        }
                    }
                }
            }
        }
        scores
    }

    fn similar_items(&self, items: &[u32], top_k: usize) -> Vec<Best> {
        let best = |&item: &u32| {
            if item as usize >= self.parts.items.len() || top_k == 0 {
                return Best::default();
            }
            let mut heap = Heap::new(top_k.min(self.parts.items.len()), &[]);
            let mut offer = |code: u32, weight: f32| {
                if code != item && weight > 0.0 {
                    heap.offer(weight, code);
                }
            };
            match &self.parts.similarity {
                Similarity::Sparse(csr) => {
                    let (codes, weights) = csr.row(item as usize);
                    codes.iter().zip(weights).for_each(|(&code, &weight)| offer(code, weight));
                }
                Similarity::Dense(weights) => {
                    let size = self.parts.items.len();
                    let row = &weights[item as usize * size..(item as usize + 1) * size];
                    (0..).zip(row).for_each(|(code, &weight)| offer(code, weight));
                }
            }
            heap.into_best()
        };
        items.iter().map(best).collect()
    }
}

fn popular(popularity: &Popularity, top_k: usize, keep: impl Fn(u32) -> bool) -> Choice {
    let (items, scores) = popularity.top(top_k, keep);
    Choice { items, scores, source: Source::Popularity }
}

/// Users that share a task's dense row.
const TASK_USERS: usize = 64;

/// Sums of sparse rows in a dense one; items that no row names are no candidates.
fn sparse_best(
    similarity: &Csr,
    own: &[Own<'_>],
    k: usize,
    skip: &(dyn Fn(usize, u32) -> bool + Sync),
) -> Vec<Best> {
    let task = |(task, own): (usize, &[Own<'_>])| -> Vec<Best> {
        let mut sums = vec![0.0_f32; similarity.columns()];
        let mut touched = vec![];
        let mut best = Vec::with_capacity(own.len());
        for (at, (items, weights)) in (task * TASK_USERS..).zip(own) {
            for (&item, &r) in items.iter().zip(weights.iter()) {
                let (codes, weights) = similarity.row(item as usize);
                for (&code, &weight) in codes.iter().zip(weights) {
                    let sum = &mut sums[code as usize];
                    if *sum == 0.0 {
                        touched.push(code);
                    }
                    *sum += r * weight;
                }
            }
            let mut heap = Heap::new(k, &[]);
            for code in touched.drain(..) {
                // A sum that came back to 0 on its way is listed twice, and cleared by the first.
                let sum = std::mem::take(&mut sums[code as usize]);
                if sum != 0.0 && sum >= heap.threshold && !skip(at, code) {
                    heap.offer(sum, code);
                }
            }
            best.push(heap.into_best());
        }
        best
    };
    if own.len() <= TASK_USERS {
        return task((0, own));
    }
    own.par_chunks(TASK_USERS).enumerate().flat_map_iter(task).collect()
}

/// Columns whose sums stay in the first-level cache.
const TILE_COLUMNS: usize = 1024;

/// Sums of dense rows, tile by tile of columns: while all users pass a tile, the rows of popular
/// items stay in the cache.
fn dense_best(
    weights: &[f32],
    size: usize,
    own: &[Own<'_>],
    k: usize,
    skip: &(dyn Fn(usize, u32) -> bool + Sync),
) -> Vec<Best> {
    let mut heaps: Vec<Heap> = own.iter().map(|_| Heap::new(k, &[])).collect();
    for first in (0..size).step_by(TILE_COLUMNS) {
        let columns = first..size.min(first + TILE_COLUMNS);
        let tile = |(at, (heap, own)): (usize, (&mut Heap, &Own<'_>))| {
            if own.0.is_empty() {
                return;
            }
            let mut sums = [0.0_f32; TILE_COLUMNS];
            let sums = &mut sums[..columns.len()];
            let columns = columns.clone();
            Arch::new().dispatch(RowSums { weights, size, own, columns: columns.clone(), sums });
            for (code, &sum) in (columns.start as u32..).zip(&*sums) {
                if sum >= heap.threshold && !skip(at, code) {
                    heap.offer(sum, code);
                }
            }
        };
        let pairs = heaps.par_iter_mut().zip(own.par_iter());
        pairs.enumerate().with_min_len(16).for_each(tile);
    }
    heaps.into_iter().map(Heap::into_best).collect()
}

struct RowSums<'a> {
    weights: &'a [f32],
    size: usize,
    own: &'a Own<'a>,
    columns: std::ops::Range<usize>,
    sums: &'a mut [f32],
}

impl WithSimd for RowSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (&item, &r) in self.own.0.iter().zip(self.own.1.iter()) {
            let row = item as usize * self.size;
            let row = &self.weights[row + self.columns.start..row + self.columns.end];
            for (sum, &weight) in self.sums.iter_mut().zip(row) {
                *sum += r * weight;
            }
        }
    }
}

#[cfg(test)]
#[path = "item_model_tests.rs"]
mod tests;
