//! What every recommender answers, and how it is measured.
//!
//! Users and items are codes of [`IdIndex`]; lists are exact, best first, ties by code. A user of
//! whom a model knows nothing gets the popularity ranking and [`Source`] says so.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::ModelError;
use super::ids::IdIndex;
use super::popularity::Popularity;
use super::sparse::Csr;
use super::topk::Best;

/// Users that are measured together: blocks of lists are whole groups.
pub const GROUP_USERS: usize = 64;
/// Products of users and items between two looks at a cancel flag: about 100 ms.
const BLOCK_PRODUCTS: usize = 1 << 27;

/// Where a list comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The factorization.
    Als,
    /// The factorization, for what the user has had by now.
    FoldIn,
    /// Item neighbourhoods.
    ItemKnn,
    /// The item-item weights of EASE.
    Ease,
    /// A blend of models.
    Hybrid,
    /// The popularity ranking.
    Popularity,
}

impl Source {
    /// The name in a `source` column.
    pub fn name(self) -> &'static str {
        match self {
            Self::Als => "als",
            Self::FoldIn => "fold_in",
            Self::ItemKnn => "item_knn",
            Self::Ease => "ease",
            Self::Hybrid => "hybrid",
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

    /// Whether a list of a user (none: an unknown one) leaves an item out, of those that `seen` has
    /// for users.
    pub fn skips<'a>(&'a self, seen: &'a Csr) -> impl Fn(Option<u32>, u32) -> bool + Sync + 'a {
        let allowed = self.allowed(seen.columns());
        move |user, item| {
            allowed.as_ref().is_some_and(|allowed| !allowed[item as usize])
                || (self.exclude_seen
                    && user.is_some_and(|user| seen.contains(user as usize, item)))
        }
    }

    /// The same of the list of the basket at a position, of so many items: what lies in a basket
    /// is seen.
    pub fn skips_of(
        &self,
        baskets: &[Basket],
        items: usize,
    ) -> impl Fn(usize, u32) -> bool + Sync + use<> {
        let allowed = self.allowed(items);
        let own = |basket: &Basket| {
            let mut own = basket.items.clone();
            own.sort_unstable();
            own
        };
        let own: Vec<Vec<u32>> = match self.exclude_seen {
            true => baskets.iter().map(own).collect(),
            false => vec![],
        };
        move |at, item| {
            allowed.as_ref().is_some_and(|allowed| !allowed[item as usize])
                || own.get(at).is_some_and(|own| own.binary_search(&item).is_ok())
        }
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

/// What somebody has had.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Basket {
    /// Who, when training knew them.
    pub user: Option<u32>,
    /// Item codes.
    pub items: Vec<u32>,
    /// The weight of each.
    pub weights: Vec<f32>,
}

impl Basket {
    /// Checks the weights of baskets.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] when one is NaN or infinite.
    pub fn check(baskets: &[Self]) -> Result<(), ModelError> {
        let mut weights = baskets.iter().flat_map(|basket| &basket.weights);
        match weights.find(|weight| !weight.is_finite()) {
            Some(&value) => Err(ModelError::NotFinite { column: "weights".to_owned(), value }),
            None => Ok(()),
        }
    }
}

/// Whose scores are asked for, and what counts as had.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// Users, with all that training saw of them.
    Users(&'a [u32]),
    /// Users, as they would be had the held-out interactions not been seen.
    HeldOut(&'a [u32], &'a HeldOut<'a>),
    /// Whoever has had these items and no others; see [`Basket::check`].
    Baskets(&'a [Basket]),
}

impl Whose<'_> {
    /// How many they are.
    pub fn len(&self) -> usize {
        match self {
            Self::Users(users) | Self::HeldOut(users, _) => users.len(),
            Self::Baskets(baskets) => baskets.len(),
        }
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Of each, whether there is something that was had.
    pub fn has_something(&self, seen: &Csr) -> Vec<bool> {
        match self {
            Self::Users(users) => {
                users.iter().map(|&user| !seen.row(user as usize).0.is_empty()).collect()
            }
            Self::HeldOut(users, held_out) => {
                let known = |user: u32| {
                    let mut items = seen.row(user as usize).0.iter();
                    items.any(|&item| !held_out.test.contains(user as usize, item))
                };
                users.iter().map(|&user| known(user)).collect()
            }
            Self::Baskets(baskets) => {
                baskets.iter().map(|basket| !basket.items.is_empty()).collect()
            }
        }
    }

    /// At most `count` of them from the `first` on.
    pub fn part(&self, first: usize, count: usize) -> Self {
        let range = first.min(self.len())..first.saturating_add(count).min(self.len());
        match *self {
            Self::Users(users) => Self::Users(&users[range]),
            Self::HeldOut(users, held_out) => Self::HeldOut(&users[range], held_out),
            Self::Baskets(baskets) => Self::Baskets(&baskets[range]),
        }
    }
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

    /// Where lists come from unless popularity stands in.
    fn source(&self) -> Source;

    /// The score of a user and an item; `None` when either is out of range.
    fn score(&self, user: u32, item: u32) -> Option<f32>;

    /// A list for each user; `None` is an unknown user.
    fn recommend(&self, users: &[Option<u32>], request: &RecommendRequest<'_>) -> Vec<Choice>;

    /// A list for each basket, as [`Recommender::recommend`] gives one to a user who has had these
    /// items and no others: repeated ones as in training, codes out of range ignored. The most
    /// popular items where nothing in a basket is known.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] when a weight is NaN or infinite.
    fn recommend_baskets(
        &self,
        baskets: &[Basket],
        request: &RecommendRequest<'_>,
    ) -> Result<Vec<Choice>, ModelError>;

    /// A list for each user as it would be had the held-out interactions not been seen.
    fn recommend_held_out(
        &self,
        users: &[u32],
        held_out: &HeldOut<'_>,
        top_k: usize,
    ) -> Vec<Choice>;

    /// The scores of `items` (ascending codes, each once), whose × items; 0 for codes out of range.
    /// Of somebody for whom popularity stands in they say nothing.
    fn scores(&self, whose: Whose<'_>, items: &[u32]) -> Vec<f32>;

    /// The items most similar to each given one, without itself; empty where nothing is known.
    fn similar_items(&self, items: &[u32], top_k: usize) -> Vec<Best>;
}

/// Interactions that a model is measured on, and what was popular without them.
#[derive(Debug, Clone)]
pub struct HeldOut<'a> {
    /// What the model has seen, users × items, with or without the test interactions.
    pub seen: &'a Csr,
    /// The test interactions, users × items.
    pub test: &'a Csr,
    /// Items by their interactions outside the test set.
    pub popularity: Popularity,
}

impl<'a> HeldOut<'a> {
    /// Counts what is popular without the test interactions.
    pub fn new(seen: &'a Csr, test: &'a Csr) -> Self {
        let mut counts = seen.column_counts();
        for user in 0..test.rows() {
            for &item in test.row(user).0 {
                if seen.contains(user, item) {
                    counts[item as usize] -= 1;
                }
            }
        }
        Self { seen, test, popularity: Popularity::from_counts(counts) }
    }

    /// Whether the user has had the item outside the test set: such items are never recommended.
    pub fn is_known(&self, user: u32, item: u32) -> bool {
        self.seen.contains(user as usize, item) && !self.test.contains(user as usize, item)
    }

    /// Users with test interactions, ascending.
    pub fn users(&self) -> Vec<u32> {
        let users = 0..self.test.rows() as u32;
        users.filter(|&user| !self.test.row(user as usize).0.is_empty()).collect()
    }

    /// The lists of users by a model in its own codes, block after block: `each` is given the
    /// position of a block's first user and its lists, which are as long as `top_k` says of the
    /// block's positions. Ends soon after the flag was set, and then gives false.
    pub fn walk(
        &self,
        model: &dyn Recommender,
        users: &[u32],
        top_k: &dyn Fn(Range<usize>) -> usize,
        cancel: Option<&AtomicBool>,
        each: &mut dyn FnMut(usize, Vec<Choice>),
    ) -> bool {
        let groups = BLOCK_PRODUCTS / model.item_ids().len().max(1) / GROUP_USERS;
        let block_users = groups.clamp(1, 64) * GROUP_USERS;
        let mut first = 0;
        for block in users.chunks(block_users) {
            if cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed)) {
                return false;
            }
            let top_k = top_k(first..first + block.len());
            each(first, model.recommend_held_out(block, self, top_k));
            first += block.len();
        }
        true
    }

    /// The popularity ranking for a user.
    pub fn popular(&self, user: u32, top_k: usize) -> (Vec<u32>, Vec<f32>) {
        self.popularity.top(top_k, |item| !self.is_known(user, item))
    }
}
