//! A blend of recommenders over the same users and items.
//!
//! The score of a user and an item is Σₘ wₘ/σₘ · sₘ over the members m, with sₘ the member's own
//! score, σₘ how far its scores spread and wₘ ≥ 0 what it counts for; the weights add up to 1.
//! [`weights`] learns them. A blend is linear, so that a pair, one user and everyone score alike,
//! and what explains the members' scores explains the blend's.
//!
//! Whoever no counting member knows anything of (all but popularity and signals tell users apart)
//! gets the most popular items.

use rayon::prelude::*;

use super::als::Feedback;
use super::als_model::AlsModel;
use super::error::ModelError;
use super::ids::IdIndex;
use super::item_model::ItemModel;
use super::popularity::Popularity;
use super::popularity_model::PopularityModel;
use super::recommender::{Basket, Choice, HeldOut, RecommendRequest, Recommender, Source, Whose};
use super::sparse::Csr;
use super::topk::{Best, Heap};
use super::trained::Model;

mod weights;

#[cfg(test)]
mod tests;

pub use self::weights::{USERS_MAX, Weight, memory_bytes, weights};

/// Users whose scores of all items are held by a thread at once, at most.
const BLOCK_USERS: usize = 16;
/// Scores of a member that a thread holds at once, unless one user has more.
const BLOCK_SCORES: usize = 1 << 20;

/// Users whose scores of so many items are held by a thread at once.
fn block_users(items: usize) -> usize {
    (BLOCK_SCORES / items.max(1)).clamp(1, BLOCK_USERS)
}

/// What can be blended.
#[derive(Debug)]
pub enum Base {
    /// A factorization of implicit feedback.
    Als(Box<AlsModel>),
    /// Item-item weights.
    Item(ItemModel),
    /// What is popular.
    Popularity(PopularityModel),
    /// What is told of items beside.
    Signal(Signal),
}

/// A number of each item from elsewhere, such as a column of its table: the more, the better.
#[derive(Debug)]
pub struct Signal {
    name: String,
    scores: PopularityModel,
}

impl Signal {
    /// A signal of that name: `scores` has the numbers in place of counts.
    pub fn new(name: String, scores: PopularityModel) -> Self {
        Self { name, scores }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A number for each item.
    pub fn values(&self) -> &[f32] {
        self.scores.weights()
    }
}

impl TryFrom<Model> for Base {
    type Error = ModelError;

    fn try_from(model: Model) -> Result<Self, ModelError> {
        match model {
            Model::Als(als) if als.feedback() == Feedback::Implicit => Ok(Self::Als(als)),
            Model::Item(item) => Ok(Self::Item(item)),
            Model::Popularity(popular) => Ok(Self::Popularity(popular)),
            other => {
                let name = other.type_name();
                Err(ModelError::Inconsistent(format!("a {name} model cannot be blended")))
            }
        }
    }
}

impl Base {
    /// The model as a recommender.
    pub fn recommender(&self) -> &dyn Recommender {
        match self {
            Self::Als(model) => model.as_ref(),
            Self::Item(model) => model,
            Self::Popularity(model) => model,
            Self::Signal(signal) => &signal.scores,
        }
    }

    /// The signal, when it is one.
    pub fn signal(&self) -> Option<&Signal> {
        match self {
            Self::Signal(signal) => Some(signal),
            _ => None,
        }
    }

    /// The `model_type` of CREATE MODEL.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Als(_) => "matrix_factorization",
            Self::Item(model) => model.similarity().type_name(),
            Self::Popularity(_) => "popularity",
            Self::Signal(_) => "signal",
        }
    }

    /// Whether its scores tell users apart.
    pub fn is_personal(&self) -> bool {
        !matches!(self, Self::Popularity(_) | Self::Signal(_))
    }
}

/// A model of a blend.
#[derive(Debug)]
pub struct Member {
    /// The model.
    pub base: Base,
    /// What it counts for.
    pub weight: Weight,
}

/// A blend ready to answer.
#[derive(Debug)]
pub struct HybridModel {
    first: Member,
    others: Vec<Member>,
    popularity: Popularity,
}

impl HybridModel {
    /// Checks that the members fit together.
    ///
    /// # Errors
    /// [`ModelError::Inconsistent`] naming what does not fit.
    pub fn from_members(members: Vec<Member>) -> Result<Self, ModelError> {
        let fail = |why: &str| Err(ModelError::Inconsistent(why.to_owned()));
        let mut members = members.into_iter();
        let Some(first) = members.next() else { return fail("a blend of no models") };
        let others: Vec<Member> = members.collect();
        let size = |member: &Member| {
            let model = member.base.recommender();
            (model.user_ids().len(), model.item_ids().len())
        };
        if others.iter().any(|member| size(member) != size(&first)) {
            return fail("models of a blend differ in users or items");
        }
        let all = || std::iter::once(&first).chain(&others);
        if !all().all(|member| member.weight.is_valid()) {
            return fail("a weight of a blend is no share, or its scale no positive number");
        }
        if all().all(|member| member.weight.share == 0.0) {
            return fail("no model of a blend counts for anything");
        }
        let popularity = Popularity::new(first.base.recommender().seen());
        Ok(Self { first, others, popularity })
    }

    /// The models with what they count for.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The scores of all items, and of whom any personal model knows something.
    fn rows(&self, whose: Whose<'_>, items: &[u32]) -> (Vec<f32>, Vec<bool>) {
        let mut sums = vec![0.0_f32; whose.len() * items.len()];
        let counts = |member: &&Member| member.weight.share > 0.0;
        // Where popularity alone counts, who has had something is somebody.
        let mut is_known = match self.members().filter(counts).any(|of| of.base.is_personal()) {
            true => vec![false; whose.len()],
            false => whose.has_something(self.seen()),
        };
        for member in self.members().filter(counts) {
            let scores = member.base.recommender().scores(whose, items);
            let factor = member.weight.factor();
            for (sum, &score) in sums.iter_mut().zip(&scores) {
                *sum += factor * score;
            }
            if member.base.is_personal() {
                let rows = scores.chunks(items.len().max(1));
                for (is_known, row) in is_known.iter_mut().zip(rows) {
                    *is_known |= row.iter().any(|&score| score != row[0]);
                }
            }
        }
        (sums, is_known)
    }

    /// The exact best items of each, of those that `skip(position, item)` does not refuse.
    fn lists(
        &self,
        whose: Whose<'_>,
        top_k: usize,
        popularity: &Popularity,
        skip: &(dyn Fn(usize, u32) -> bool + Sync),
    ) -> Vec<Choice> {
        let items: Vec<u32> = (0..self.item_ids().len() as u32).collect();
        let k = top_k.min(items.len());
        let users = block_users(items.len());
        let block = |block: usize| -> Vec<Choice> {
            let first = block * users;
            let (sums, is_known) = self.rows(whose.part(first, users), &items);
            let mut rows = sums.chunks(items.len().max(1));
            let list = |(at, is_known): (usize, bool)| {
                let row = rows.next().unwrap_or_default();
                if !is_known || k == 0 {
                    let (items, scores) = popularity.top(top_k, |item| !skip(at, item));
                    return Choice { items, scores, source: Source::Popularity };
                }
                let mut heap = Heap::new(k, &[]);
                for (&item, &sum) in items.iter().zip(row) {
                    if sum >= heap.threshold && !skip(at, item) {
                        heap.offer(sum, item);
                    }
                }
                let best = heap.into_best();
                Choice { items: best.codes, scores: best.scores, source: Source::Hybrid }
            };
            (first..).zip(is_known).map(list).collect()
        };
        let blocks = whose.len().div_ceil(users);
        let lists: Vec<Vec<Choice>> = (0..blocks).into_par_iter().map(block).collect();
        lists.into_iter().flatten().collect()
    }

    /// Lists of users, some of whom may be unknown.
    fn lists_of_users(
        &self,
        users: &[Option<u32>],
        top_k: usize,
        skip: &(dyn Fn(Option<u32>, u32) -> bool + Sync),
    ) -> Vec<Choice> {
        // Codes that nobody has are of users of whom nothing is known.
        let codes: Vec<u32> = users.iter().map(|user| user.unwrap_or(u32::MAX)).collect();
        let skip = |at: usize, item: u32| skip(users[at], item);
        self.lists(Whose::Users(&codes), top_k, &self.popularity, &skip)
    }
}

impl Recommender for HybridModel {
    fn user_ids(&self) -> &IdIndex {
        self.first.base.recommender().user_ids()
    }

    fn item_ids(&self) -> &IdIndex {
        self.first.base.recommender().item_ids()
    }

    fn seen(&self) -> &Csr {
        self.first.base.recommender().seen()
    }

    fn memory_bytes(&self) -> usize {
        let members = self.members().map(|member| member.base.recommender().memory_bytes());
        self.popularity.memory_bytes() + members.sum::<usize>()
    }

    fn source(&self) -> Source {
        Source::Hybrid
    }

    fn score(&self, user: u32, item: u32) -> Option<f32> {
        // In the order of `rows`, so that both give the same number.
        let mut sum = 0.0;
        for member in self.members() {
            let score = member.base.recommender().score(user, item)?;
            if member.weight.share > 0.0 {
                sum += member.weight.factor() * score;
            }
        }
        Some(sum)
    }

    fn recommend(&self, users: &[Option<u32>], request: &RecommendRequest<'_>) -> Vec<Choice> {
        self.lists_of_users(users, request.top_k, &request.skips(self.seen()))
    }

    fn recommend_baskets(
        &self,
        baskets: &[Basket],
        request: &RecommendRequest<'_>,
    ) -> Result<Vec<Choice>, ModelError> {
        Basket::check(baskets)?;
        let skip = request.skips_of(baskets, self.item_ids().len());
        Ok(self.lists(Whose::Baskets(baskets), request.top_k, &self.popularity, &skip))
    }

    fn recommend_held_out(
        &self,
        users: &[u32],
        held_out: &HeldOut<'_>,
        top_k: usize,
    ) -> Vec<Choice> {
        let skip = |at: usize, item: u32| held_out.is_known(users[at], item);
        let whose = Whose::HeldOut(users, held_out);
        self.lists(whose, top_k, &held_out.popularity, &skip)
    }

    fn scores(&self, whose: Whose<'_>, items: &[u32]) -> Vec<f32> {
        self.rows(whose, items).0
    }

    /// As the first of the members says that knows a similarity.
    fn similar_items(&self, items: &[u32], top_k: usize) -> Vec<Best> {
        let personal = || self.members().filter(|member| member.base.is_personal());
        let counting = personal().find(|member| member.weight.share > 0.0);
        match counting.or_else(|| personal().next()) {
            Some(member) => member.base.recommender().similar_items(items, top_k),
            None => vec![Best::default(); items.len()],
        }
    }
}
