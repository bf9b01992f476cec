//! The finished recommender: ids, factors, what was seen, and what is asked of them.
//!
//! Scores are xᵤ·yᵢ for implicit feedback and μ + bᵤ + bᵢ + xᵤ·yᵢ for explicit. A user without
//! factors (unknown, or without interactions in training) gets the most popular items, with the
//! number of interactions as score.

use std::sync::OnceLock;

use rayon::prelude::*;

use super::als::{AlsFactors, AlsOptions, Feedback, Resolved};
use super::error::ModelError;
use super::foldin::{ItemSide, UserVector, add_product};
use super::ids::IdIndex;
use super::kernel::largest_magnitude;
use super::metrics::RatingEvaluation;
use super::popularity::Popularity;
use super::recommender::{Basket, Choice, HeldOut, RecommendRequest, Recommender, Source, Whose};
use super::sparse::Csr;
use super::topk::{Best, Panels, ordered_product};

/// What a model is made of and stored as.
#[derive(Debug, Clone)]
pub struct ModelParts {
    /// Ids of users; a code is a row of the user factors.
    pub users: IdIndex,
    /// Ids of items.
    pub items: IdIndex,
    /// Learned factors.
    pub factors: AlsFactors,
    /// Interactions, users × items: what recommendations leave out.
    pub seen: Csr,
    /// Options of the training run.
    pub options: AlsOptions,
}

/// A matrix factorization ready to answer.
#[derive(Debug)]
pub struct AlsModel {
    parts: ModelParts,
    resolved: Resolved,
    popularity: Popularity,
    catalog: Panels,
    gram: OnceLock<Vec<f64>>,
    user_gram: OnceLock<Vec<f64>>,
    similar_items: OnceLock<Panels>,
    similar_users: OnceLock<Panels>,
}

impl AlsModel {
    /// Checks that the parts fit together and prepares them for serving.
    ///
    /// # Errors
    /// [`ModelError::Inconsistent`] naming what does not fit.
    pub fn from_parts(parts: ModelParts) -> Result<Self, ModelError> {
        parts.options.validate()?;
        check(&parts)?;
        let (resolved, popularity) =
            rayon::join(|| parts.options.resolve(&parts.seen), || Popularity::new(&parts.seen));
        Ok(Self::assembled(parts, resolved, popularity))
    }

    /// A model whose items are more than those of its training, which `resolved` is of; `gram` is
    /// that of all its items.
    pub(super) fn widened(
        parts: ModelParts,
        resolved: Resolved,
        gram: Vec<f64>,
    ) -> Result<Self, ModelError> {
        check(&parts)?;
        let popularity = Popularity::new(&parts.seen);
        let model = Self::assembled(parts, resolved, popularity);
        Ok(Self { gram: OnceLock::from(gram), ..model })
    }

    fn assembled(parts: ModelParts, resolved: Resolved, popularity: Popularity) -> Self {
        let size = parts.options.num_factors;
        let catalog = match parts.factors.item_bias.as_slice() {
            [] => Panels::new(&parts.factors.item_factors, size),
            bias => Panels::new(&extended(&parts.factors.item_factors, size, bias), size + 1),
        };
        Self {
            parts,
            resolved,
            popularity,
            catalog,
            gram: OnceLock::new(),
            user_gram: OnceLock::new(),
            similar_items: OnceLock::new(),
            similar_users: OnceLock::new(),
        }
    }

    /// Length of a factor vector.
    pub fn num_factors(&self) -> usize {
        self.parts.options.num_factors
    }

    /// All factors, as a warm start takes them.
    pub fn factors(&self) -> &AlsFactors {
        &self.parts.factors
    }

    /// User factors, row-major, a row of [`AlsModel::num_factors`] values for each user.
    pub fn user_factors(&self) -> &[f32] {
        &self.parts.factors.user_factors
    }

    /// Item factors, likewise.
    pub fn item_factors(&self) -> &[f32] {
        &self.parts.factors.item_factors
    }

    /// A bias for each user; empty without biases.
    pub fn user_bias(&self) -> &[f32] {
        &self.parts.factors.user_bias
    }

    /// A bias for each item; empty without biases.
    pub fn item_bias(&self) -> &[f32] {
        &self.parts.factors.item_bias
    }

    /// Mean rating; 0 without biases.
    pub fn global_mean(&self) -> f32 {
        self.parts.factors.global_mean
    }

    /// The objective after each iteration of training.
    pub fn losses(&self) -> &[f64] {
        &self.parts.factors.losses
    }

    /// Options of the training run.
    pub fn options(&self) -> &AlsOptions {
        &self.parts.options
    }

    /// What the options came to in training.
    pub(super) fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// The Gram matrix of the factors of users who have interactions, once it is known.
    pub(super) fn user_gram(&self) -> &OnceLock<Vec<f64>> {
        &self.user_gram
    }

    /// Meaning of the ratings.
    pub fn feedback(&self) -> Feedback {
        self.parts.options.feedback
    }

    /// Items by number of interactions.
    pub fn popularity(&self) -> &Popularity {
        &self.popularity
    }

    /// What every score of a user has in common.
    fn constant(&self, bias: Option<f32>) -> f32 {
        self.global_mean() + bias.unwrap_or(0.0)
    }

    fn recommend_unless(
        &self,
        users: &[Option<u32>],
        top_k: usize,
        popularity: &Popularity,
        skip: &(dyn Fn(Option<u32>, u32) -> bool + Sync),
    ) -> Vec<Choice> {
        let vectors: Vec<Option<UserVector>> =
            users.iter().map(|&user| self.user_vector(user?)).collect();
        let skip = |at: usize, item: u32| skip(users[at], item);
        self.lists(&vectors, Source::Als, top_k, popularity, &skip)
    }

    /// A list for each vector; the most popular items where there is none.
    fn lists(
        &self,
        vectors: &[Option<UserVector>],
        source: Source,
        top_k: usize,
        popularity: &Popularity,
        skip: &(dyn Fn(usize, u32) -> bool + Sync),
    ) -> Vec<Choice> {
        let positions: Vec<usize> =
            (0..vectors.len()).filter(|&at| vectors[at].is_some()).collect();
        let known: Vec<&UserVector> = vectors.iter().flatten().collect();
        let best = self.best(&known, top_k, &|query, item| skip(positions[query], item));
        let mut best = best.into_iter();
        let popular = |at| {
            let (items, scores) = popularity.top(top_k, |item| !skip(at, item));
            Choice { items, scores, source: Source::Popularity }
        };
        let list = |(at, vector): (usize, &Option<UserVector>)| match vector
            .as_ref()
            .and_then(|_| best.next())
        {
            Some(best) => Choice { items: best.codes, scores: best.scores, source },
            None => popular(at),
        };
        vectors.iter().enumerate().map(list).collect()
    }

    /// The user's factors; `None` when training learned nothing about the user.
    fn user_vector(&self, user: u32) -> Option<UserVector> {
        let factors = row(self.user_factors(), user, self.num_factors())?;
        let bias = self.user_bias().get(user as usize).copied().unwrap_or(0.0);
        Some(UserVector { factors: factors.to_vec(), bias }).filter(UserVector::says_something)
    }

    fn best(
        &self,
        users: &[&UserVector],
        top_k: usize,
        skip: &(dyn Fn(usize, u32) -> bool + Sync),
    ) -> Vec<Best> {
        let mut best = self.catalog.best(&self.queries(users), top_k, skip);
        for (best, user) in best.iter_mut().zip(users) {
            let constant = self.constant(Some(user.bias));
            best.scores.iter_mut().for_each(|score| *score += constant);
        }
        best
    }

    /// The users' rows as the catalog multiplies them.
    fn queries(&self, users: &[&UserVector]) -> Vec<f32> {
        let mut queries = Vec::with_capacity(users.len() * self.catalog.depth());
        for user in users {
            queries.extend_from_slice(&user.factors);
            if !self.item_bias().is_empty() {
                queries.push(1.0);
            }
        }
        queries
    }

    /// Rows of the catalog; zeros for codes out of range.
    fn item_rows(&self, items: &[u32]) -> Vec<f32> {
        let zeros = vec![0.0; self.num_factors()];
        let mut rows = Vec::with_capacity(items.len() * self.catalog.depth());
        for &item in items {
            rows.extend(row(self.item_factors(), item, self.num_factors()).unwrap_or(&zeros));
            if !self.item_bias().is_empty() {
                rows.push(self.item_bias().get(item as usize).copied().unwrap_or(0.0));
            }
        }
        rows
    }

    /// The vector of each basket; none where its items say nothing.
    fn folded(&self, baskets: &[Basket]) -> Vec<Option<UserVector>> {
        let folded = baskets.par_iter().map(|basket| {
            let nothing = |user: &u32| self.seen().row(*user as usize).0.is_empty();
            if let Some(user) = basket.user.filter(nothing).filter(|_| basket.items.is_empty()) {
                // All that was ever known of this user are features.
                return self.user_vector(user);
            }
            let vector = self.fold_in_finite(&basket.items, &basket.weights);
            Some(vector).filter(UserVector::says_something)
        });
        folded.collect()
    }

    /// A user's vector from a list of items and weights, as training would solve it. Repeated
    /// items count once: weights add up (implicit) or are averaged (explicit).
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] when a weight is NaN or infinite.
    pub fn fold_in(&self, items: &[u32], weights: &[f32]) -> Result<UserVector, ModelError> {
        match weights.iter().find(|weight| !weight.is_finite()) {
            Some(&value) => Err(ModelError::NotFinite { column: "weights".to_owned(), value }),
            None => Ok(self.fold_in_finite(items, weights)),
        }
    }

    fn fold_in_finite(&self, items: &[u32], weights: &[f32]) -> UserVector {
        let known = |&(item, _): &(u32, f32)| (item as usize) < self.parts.items.len();
        let cells = items.iter().copied().zip(weights.iter().copied());
        let mut cells: Vec<(u32, f32)> = cells.filter(known).collect();
        cells.sort_by_key(|&(item, _)| item);
        let merged: Vec<(u32, f32)> = cells
            .chunk_by(|a, b| a.0 == b.0)
            .map(|same| {
                let sum: f64 = same.iter().map(|&(_, value)| f64::from(value)).sum();
                let count = if self.feedback() == Feedback::Explicit { same.len() } else { 1 };
                (same[0].0, ((sum / count as f64) as f32).clamp(f32::MIN, f32::MAX))
            })
            .collect();
        let (items, weights): (Vec<u32>, Vec<f32>) = merged.into_iter().unzip();
        self.item_side().fold_in(&items, &weights, None)
    }

    /// The finished item side, into which users are folded.
    pub(super) fn item_side(&self) -> ItemSide<'_> {
        let size = self.num_factors();
        ItemSide {
            factors: self.item_factors(),
            bias: self.item_bias(),
            gram: self.gram.get_or_init(|| self.live_gram()),
            others: self.popularity.counts().iter().filter(|&&count| count > 0).count(),
            size,
            mean: self.global_mean(),
            feedback: self.feedback(),
            resolved: &self.resolved,
            non_negative: self.options().non_negative,
        }
    }

    /// Of items without interactions, which have factors where features tell of them, the cells are
    /// not 0: they are not there.
    fn live_gram(&self) -> Vec<f64> {
        let size = self.num_factors();
        let mut gram = vec![0.0; size * size];
        let rows = self.item_factors().chunks_exact(size).zip(self.popularity.counts());
        for (row, _) in rows.filter(|&(_, &count)| count > 0) {
            add_product(&mut gram, row);
        }
        gram
    }

    /// The users most similar to each given one, likewise.
    pub fn similar_users(&self, users: &[u32], top_k: usize) -> Vec<Best> {
        similar(&self.similar_users, self.user_factors(), self.num_factors(), users, top_k)
    }

    /// Errors of predicted ratings by user, and those of predicting each item's mean rating
    /// outside the test set.
    pub fn rating_evaluation(&self, test: &Csr) -> [RatingEvaluation; 2] {
        let means = self.item_means_without(test);
        let mut evaluations = [RatingEvaluation::new(), RatingEvaluation::new()];
        for (user, row) in (0_u32..).zip(0..test.rows()) {
            let (items, ratings) = test.row(row);
            let pairs: Vec<(f64, [f64; 2])> = items
                .iter()
                .zip(ratings)
                .filter_map(|(&item, &rating)| {
                    let predicted = f64::from(self.score(user, item)?);
                    Some((f64::from(rating), [predicted, means[item as usize]]))
                })
                .collect();
            if pairs.is_empty() {
                continue;
            }
            for (which, evaluation) in evaluations.iter_mut().enumerate() {
                evaluation.add(user, pairs.iter().map(|(rating, of)| (*rating, of[which])));
            }
        }
        evaluations
    }

    /// Mean rating of each item outside the test set; the overall mean where there is none.
    fn item_means_without(&self, test: &Csr) -> Vec<f64> {
        let mut sums = vec![(0.0_f64, 0.0_f64); self.parts.items.len()];
        let mut all = (0.0_f64, 0.0_f64);
        for user in 0..self.seen().rows() {
            let (items, ratings) = self.seen().row(user);
            for (&item, &rating) in items.iter().zip(ratings) {
                if !test.contains(user, item) {
                    for sum in [&mut sums[item as usize], &mut all] {
                        *sum = (sum.0 + f64::from(rating), sum.1 + 1.0);
                    }
                }
            }
        }
        let overall = if all.1 > 0.0 { all.0 / all.1 } else { f64::from(self.global_mean()) };
        sums.iter().map(|&(sum, n)| if n > 0.0 { sum / n } else { overall }).collect()
    }
}

impl Recommender for AlsModel {
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
        let factors = &self.parts.factors;
        let floats = factors.user_factors.len()
            + factors.item_factors.len()
            + factors.user_bias.len()
            + factors.item_bias.len();
        let (users, items) = (self.parts.users.len(), self.parts.items.len());
        let later =
            Panels::bytes(users, self.num_factors()) + Panels::bytes(items, self.num_factors());
        floats * size_of::<f32>()
            + later
            + self.catalog.memory_bytes()
            + self.popularity.memory_bytes()
            + self.parts.seen.memory_bytes()
            + 2 * (self.parts.users.memory_bytes() + self.parts.items.memory_bytes())
    }

    fn source(&self) -> Source {
        Source::Als
    }

    fn score(&self, user: u32, item: u32) -> Option<f32> {
        let size = self.num_factors();
        let x = row(self.user_factors(), user, size)?;
        let y = row(self.item_factors(), item, size)?;
        // In the order of the tiles of `recommend`, so that both give the same number.
        let sum = match self.item_bias().get(item as usize) {
            None => ordered_product(x, y),
            Some(&bias) => {
                let x: Vec<f32> = x.iter().copied().chain([1.0]).collect();
                let y: Vec<f32> = y.iter().copied().chain([bias]).collect();
                ordered_product(&x, &y)
            }
        };
        Some(sum + self.constant(self.user_bias().get(user as usize).copied()))
    }

    fn recommend(&self, users: &[Option<u32>], request: &RecommendRequest<'_>) -> Vec<Choice> {
        let skips = request.skips(self.seen());
        self.recommend_unless(users, request.top_k, &self.popularity, &skips)
    }

    fn recommend_baskets(
        &self,
        baskets: &[Basket],
        request: &RecommendRequest<'_>,
    ) -> Result<Vec<Choice>, ModelError> {
        Basket::check(baskets)?;
        let vectors = self.folded(baskets);
        let skip = request.skips_of(baskets, self.parts.items.len());
        Ok(self.lists(&vectors, Source::FoldIn, request.top_k, &self.popularity, &skip))
    }

    fn recommend_held_out(
        &self,
        users: &[u32],
        held_out: &HeldOut<'_>,
        top_k: usize,
    ) -> Vec<Choice> {
        let users: Vec<Option<u32>> = users.iter().map(|&user| Some(user)).collect();
        let skip =
            |user: Option<u32>, item: u32| user.is_some_and(|user| held_out.is_known(user, item));
        self.recommend_unless(&users, top_k, &held_out.popularity, &skip)
    }

    fn scores(&self, whose: Whose<'_>, items: &[u32]) -> Vec<f32> {
        let vectors = match whose {
            Whose::Users(users) | Whose::HeldOut(users, _) => {
                users.iter().map(|&user| self.user_vector(user)).collect()
            }
            Whose::Baskets(baskets) => self.folded(baskets),
        };
        let nobody = UserVector { factors: vec![0.0; self.num_factors()], bias: 0.0 };
        let vectors: Vec<&UserVector> =
            vectors.iter().map(|vector| vector.as_ref().unwrap_or(&nobody)).collect();
        let queries = self.queries(&vectors);
        let count = self.parts.items.len();
        let are_all = items.len() == count && items.last().is_none_or(|&i| i as usize + 1 == count);
        let mut scores = match are_all {
            true => self.catalog.scores(&queries),
            false => Panels::new(&self.item_rows(items), self.catalog.depth()).scores(&queries),
        };
        for (scores, vector) in scores.chunks_exact_mut(items.len().max(1)).zip(vectors) {
            let constant = self.constant(Some(vector.bias));
            scores.iter_mut().for_each(|score| *score += constant);
        }
        scores
    }

    fn similar_items(&self, items: &[u32], top_k: usize) -> Vec<Best> {
        similar(&self.similar_items, self.item_factors(), self.num_factors(), items, top_k)
    }
}

fn row(values: &[f32], index: u32, size: usize) -> Option<&[f32]> {
    let start = (index as usize).checked_mul(size)?;
    values.get(start..start.checked_add(size)?)
}

/// Rows with one more value each.
fn extended(rows: &[f32], size: usize, last: &[f32]) -> Vec<f32> {
    let mut extended = Vec::with_capacity(last.len() * (size + 1));
    for (row, &last) in rows.chunks_exact(size).zip(last) {
        extended.extend_from_slice(row);
        extended.push(last);
    }
    extended
}

fn similar(
    cache: &OnceLock<Panels>,
    factors: &[f32],
    size: usize,
    codes: &[u32],
    top_k: usize,
) -> Vec<Best> {
    let unit = |row: &[f32]| -> Vec<f32> {
        let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        row.iter().map(|&x| (f64::from(x) * scale) as f32).collect()
    };
    let panels = cache.get_or_init(|| {
        let rows: Vec<f32> = factors.chunks_exact(size).flat_map(unit).collect();
        Panels::new(&rows, size)
    });
    let is_zero =
        |code: u32| row(factors, code, size).is_none_or(|row| row.iter().all(|&x| x == 0.0));
    let queries: Vec<f32> = codes
        .iter()
        .flat_map(|&code| row(factors, code, size).map_or_else(|| vec![0.0; size], unit))
        .collect();
    let skip = |query: usize, code: u32| codes[query] == code || is_zero(code);
    let mut best = panels.best(&queries, top_k, &skip);
    for (best, &code) in best.iter_mut().zip(codes) {
        if is_zero(code) {
            *best = Best::default();
        }
    }
    best
}

fn check(parts: &ModelParts) -> Result<(), ModelError> {
    let fail = |why: &str| Err(ModelError::Inconsistent(why.to_owned()));
    let (users, items) = (parts.users.len(), parts.items.len());
    let size = parts.options.num_factors;
    let factors = &parts.factors;
    if factors.user_factors.len() != users * size || factors.item_factors.len() != items * size {
        return fail("factors and ids differ in number");
    }
    let fits = |bias: &[f32], rows: usize| bias.is_empty() || bias.len() == rows;
    if !fits(&factors.user_bias, users)
        || !fits(&factors.item_bias, items)
        || factors.user_bias.is_empty() != factors.item_bias.is_empty() && users * items > 0
    {
        return fail("biases and ids differ in number");
    }
    if parts.seen.rows() != users || parts.seen.columns() != items {
        return fail("interactions and ids differ in number");
    }
    let all = [
        &factors.user_factors,
        &factors.item_factors,
        &factors.user_bias,
        &factors.item_bias,
        &vec![factors.global_mean],
    ];
    if all.iter().any(|values| !largest_magnitude(values).is_finite()) {
        return fail("a factor is not finite");
    }
    Ok(())
}

#[cfg(test)]
#[path = "als_model_tests.rs"]
mod tests;
