//! A recommender measured on held-out interactions, beside popularity, user by user.
//!
//! Explicit feedback: errors of the predicted ratings; the baseline predicts the item's mean rating
//! outside the test set. All others: rankings, as [`super::metrics::ranking`] defines them; items
//! seen outside the test set are in no list, and the baseline is the popularity ranking without the
//! test interactions. Beside the list of a user:
//!
//! * `auc`: the test items against the other items that the user has not had, all of them in a
//!   catalog of up to 2,000 items, 1,000 drawn ones of a larger one; each group of 64 users has
//!   draws of its own, so that the mean over users is that over all items.
//! * `log_loss`: over as many drawn items of the user's as test items, eight of each at most; the
//!   probability is a logistic of the score, fitted to these pairs ([`Logistic`]).
//! * `diversity`: 1 − the mean cosine of the list's items by who has had them, whatever type the
//!   model has, for 2,000 users evenly spread.
//! * `novelty`, by the users that have had the items outside the test set.
//!
//! A user of whom training learned nothing, as when all of the user's interactions are kept aside,
//! is measured as the model answers at query time: by the popularity ranking, in every metric. The
//! scores of these users have a logistic of their own, for they are counts.
//!
//! The same interactions give the same values whatever the number of threads.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::als::Feedback;
use super::error::ModelError;
use super::metrics::auc::user_auc;
use super::metrics::beyond_accuracy::novelty;
use super::metrics::calibration::Logistic;
use super::metrics::{Bootstrap, PerUser, RankingEvaluation, RatingEvaluation, UserList};
use super::random::mix;
use super::recommender::{Choice, GROUP_USERS, HeldOut, Recommender, Whose};
use super::sparse::{Csr, csr_bytes};
use super::trained::Model;

/// Items drawn for a group.
const DRAWN_ITEMS: usize = 1_000;
/// Up to this many items are all taken.
const ALL_ITEMS: usize = 2 * DRAWN_ITEMS;
/// Pairs of each kind that a user adds to the logarithmic loss.
const LOSS_PAIRS: usize = 8;
/// Users whose lists' diversity is measured.
const DIVERSITY_USERS: usize = 2_000;
/// Resampled users of an interval altogether: about half a second on one core.
const RESAMPLED_USERS: usize = 30_000_000;
/// Resamples of what was recommended to all, each of which sorts the catalog's counts.
const EXPOSURE_RESAMPLES: usize = 200;

/// A metric of a model with its interval, beside the baseline's.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Such as `recall@20`, `auc` or `rmse`.
    pub name: String,
    /// The value over all users; NaN when there is nothing to measure.
    pub value: f64,
    /// The lower end of the 95 % bootstrap interval over users; NaN with fewer than two.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// How many users have a say.
    pub users: usize,
    /// The baseline's value.
    pub baseline: f64,
}

/// What every user adds to the metrics of a model and of the baseline.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// The model's and the baseline's.
    sides: [Side; 2],
}

#[derive(Debug, Clone)]
enum Side {
    Ranking(RankingEvaluation),
    Rating(RatingEvaluation),
}

impl Side {
    fn per_user(&self) -> &PerUser {
        match self {
            Self::Ranking(ranking) => ranking.per_user(),
            Self::Rating(rating) => rating.per_user(),
        }
    }

    /// Names and values over the users that `keep` accepts.
    fn values(&self, keep: &dyn Fn(u32) -> bool) -> Vec<(String, f64)> {
        let mut values = self.per_user().select(keep).values();
        if let Self::Ranking(ranking) = self {
            values.extend(ranking.exposure().select(keep).values());
        }
        values
    }
}

impl Evaluation {
    /// Measures a model on test interactions in its own codes (users × items) with lists of
    /// `top_k` items. Runs on the current rayon pool.
    ///
    /// # Errors
    /// [`ModelError::Cancelled`] soon after the flag was set.
    pub fn of(
        model: &Model,
        test: &Csr,
        top_k: usize,
        cancel: &AtomicBool,
    ) -> Result<Self, ModelError> {
        if let Some(als) = model.als().filter(|als| als.feedback() == Feedback::Explicit) {
            return Ok(Self { sides: als.rating_evaluation(test).map(Side::Rating) });
        }
        match model.recommender() {
            Some(recommender) => {
                let sides = rankings(recommender, test, top_k, cancel)?;
                Ok(Self { sides: sides.map(Side::Ranking) })
            }
            None => Ok(Self { sides: [(); 2].map(|()| Side::Rating(RatingEvaluation::default())) }),
        }
    }

    /// Peak bytes of an evaluation beside the model and the test interactions: lists of `top_k`
    /// items for `tested` users of a model of `users`, `items` and `cells` interactions.
    pub fn memory_bytes([users, items, cells]: [usize; 3], tested: usize, top_k: usize) -> usize {
        let lists = tested.saturating_mul(2 * (top_k.min(items) * 8 + 400));
        let threads = rayon::current_num_threads();
        lists
            .saturating_add(csr_bytes(items, cells))
            .saturating_add(threads.saturating_mul(users * 8 + items * 40))
    }

    /// Every metric with its interval, over the users (by code) that `keep` accepts.
    ///
    /// # Errors
    /// [`ModelError::Cancelled`] soon after the flag was set.
    pub fn measure(
        &self,
        keep: &dyn Fn(u32) -> bool,
        cancel: &AtomicBool,
    ) -> Result<Vec<Measured>, ModelError> {
        let [model, baseline] = &self.sides;
        let users = model.per_user().select(keep);
        let count = users.users().len();
        let resamples = (RESAMPLED_USERS / count.max(1)).clamp(200, 1_000);
        let mut estimates = Bootstrap::new(resamples, 0.95, 1)?.estimate(&users, cancel)?;
        if let Side::Ranking(ranking) = model {
            let exposure = ranking.exposure().select(keep);
            let bootstrap = Bootstrap::new(EXPOSURE_RESAMPLES, 0.95, 1)?;
            estimates.extend(bootstrap.exposure(&exposure, cancel)?);
        }
        let baseline = baseline.values(keep);
        let of = |name: &str| baseline.iter().find(|(known, _)| known == name);
        let measured = estimates.into_iter().map(|found| Measured {
            baseline: of(&found.name).map_or(f64::NAN, |(_, value)| *value),
            name: found.name,
            value: found.value,
            low: found.low,
            high: found.high,
            users: found.users,
        });
        Ok(measured.collect())
    }

    /// The model's lists, users ascending; none of ratings.
    pub fn lists(&self) -> impl Iterator<Item = (u32, &[u32])> {
        let [model, _] = &self.sides;
        let ranking = match model {
            Side::Ranking(ranking) => Some(ranking),
            Side::Rating(_) => None,
        };
        ranking.into_iter().flat_map(|ranking| ranking.exposure().lists())
    }

    /// The model's values alone, without intervals.
    pub fn values(&self, keep: &dyn Fn(u32) -> bool) -> Vec<(String, f64)> {
        self.sides[0].values(keep)
    }
}

/// What was measured of one user's list.
struct Found {
    list: Vec<u32>,
    /// Whether popularity stands in for the model.
    stands_in: bool,
    auc: Option<f64>,
    diversity: Option<f64>,
    novelty: Option<f64>,
    /// Scores of test items, and of items that the user never had.
    hits: Vec<f32>,
    misses: Vec<f32>,
}

/// The model's and the popularity ranking's evaluation.
pub(super) fn rankings(
    recommender: &dyn Recommender,
    test: &Csr,
    top_k: usize,
    cancel: &AtomicBool,
) -> Result<[RankingEvaluation; 2], ModelError> {
    let held_out = HeldOut::new(recommender.seen(), test);
    let users = held_out.users();
    let items = recommender.item_ids().len();
    let likeness = Likeness::new(recommender.seen(), users.len());
    let judge = Judge { recommender, held_out: &held_out, likeness: &likeness, top_k };
    let mut found: Vec<[Found; 2]> = Vec::with_capacity(users.len());
    let mut measure = |first: usize, lists: Vec<Choice>| {
        let block = &users[first..first + lists.len()];
        let groups = block.par_chunks(GROUP_USERS).zip(lists.par_chunks(GROUP_USERS)).enumerate();
        let measured: Vec<Vec<[Found; 2]>> = groups
            .map(|(group, (users, lists))| judge.group(first + group * GROUP_USERS, users, lists))
            .collect();
        found.extend(measured.into_iter().flatten());
    };
    if !held_out.walk(recommender, &users, &|_| top_k, Some(cancel), &mut measure) {
        return Err(ModelError::Cancelled);
    }
    let mut evaluations = [(); 2].map(|()| RankingEvaluation::new(top_k, items));
    for (which, evaluation) in evaluations.iter_mut().enumerate() {
        let pairs = |of: &Found| {
            let hits = of.hits.iter().map(|&score| (score, true));
            hits.chain(of.misses.iter().map(|&score| (score, false))).collect::<Vec<_>>()
        };
        let logistics = [false, true].map(|stands_in| {
            let those = found.iter().map(|sides| &sides[which]);
            let those = those.filter(|of| of.stands_in == stands_in);
            Logistic::fit(&those.flat_map(pairs).collect::<Vec<_>>())
        });
        for (&user, sides) in users.iter().zip(&found) {
            let of = &sides[which];
            let logistic = logistics[usize::from(of.stands_in)];
            evaluation.add(&UserList {
                user,
                list: &of.list,
                test: test.row(user as usize).0,
                auc: of.auc,
                log_loss: logistic.mean_loss(&of.hits, &of.misses),
                diversity: of.diversity,
                novelty: of.novelty,
            });
        }
    }
    Ok(evaluations)
}

/// Measures groups of users.
struct Judge<'a> {
    recommender: &'a dyn Recommender,
    held_out: &'a HeldOut<'a>,
    likeness: &'a Likeness,
    top_k: usize,
}

impl Judge<'_> {
    /// A group of users with their lists; the first is the `first` of all users.
    fn group(&self, first: usize, users: &[u32], lists: &[Choice]) -> Vec<[Found; 2]> {
        let drawn = drawn(self.recommender.item_ids().len(), first as u64);
        let mut items = drawn.clone();
        for &user in users {
            items.extend(self.held_out.test.row(user as usize).0);
        }
        items.sort_unstable();
        items.dedup();
        let is_drawn: Vec<bool> =
            items.iter().map(|item| drawn.binary_search(item).is_ok()).collect();
        let whose = Whose::HeldOut(users, self.held_out);
        let scores = self.recommender.scores(whose, &items);
        let counts = self.held_out.popularity.counts();
        let popular: Vec<f32> = items.iter().map(|&item| counts[item as usize] as f32).collect();
        let mut sums = vec![];
        let mut found = Vec::with_capacity(users.len());
        for (((at, &user), choice), scores) in
            (first..).zip(users).zip(lists).zip(scores.chunks(items.len().max(1)))
        {
            let stands_in = choice.source != self.recommender.source();
            let scores = if stands_in { &popular } else { scores };
            let model = (&choice.items, scores, stands_in);
            let sides = Against::new(self.held_out, user, &items, &is_drawn);
            let ranked = self.held_out.popular(user, self.top_k).0;
            let baseline = (&ranked, popular.as_slice(), false);
            found.push([model, baseline].map(|(list, scores, stands_in)| {
                let (hits, misses) = sides.pairs(scores, u64::from(user));
                Found {
                    list: list.clone(),
                    stands_in,
                    auc: user_auc(scores, &sides.test, &sides.excluded),
                    diversity: self.likeness.diversity(at, list, &mut sums),
                    novelty: novelty(list, counts, self.held_out.seen.rows()),
                    hits,
                    misses,
                }
            }));
        }
        found
    }
}

/// A user's items among those that were scored, by position.
struct Against {
    /// Test items.
    test: Vec<u32>,
    /// Items that count on neither side.
    excluded: Vec<u32>,
    /// Drawn items that the user never had.
    others: Vec<u32>,
}

impl Against {
    fn new(held_out: &HeldOut<'_>, user: u32, items: &[u32], is_drawn: &[bool]) -> Self {
        let (test, seen) = (held_out.test.row(user as usize).0, held_out.seen.row(user as usize).0);
        let mut found = Self { test: vec![], excluded: vec![], others: vec![] };
        let (mut tested, mut known) = (test.iter().peekable(), seen.iter().peekable());
        for ((position, &item), &is_drawn) in (0..).zip(items).zip(is_drawn) {
            while tested.next_if(|&&other| other < item).is_some() {}
            while known.next_if(|&&other| other < item).is_some() {}
            if tested.peek() == Some(&&item) {
                found.test.push(position);
            } else if known.peek() == Some(&&item) || !is_drawn {
                found.excluded.push(position);
            } else {
                found.others.push(position);
            }
        }
        found
    }

    /// Scores of as many test items as of drawn others, evenly spread.
    fn pairs(&self, scores: &[f32], seed: u64) -> (Vec<f32>, Vec<f32>) {
        let count = LOSS_PAIRS.min(self.test.len()).min(self.others.len());
        let take = |positions: &[u32], offset: u64| -> Vec<f32> {
            let length = positions.len() as u64;
            let at = |step: u64| (offset % length + step * length / count as u64) % length;
            (0..count as u64).map(|step| scores[positions[at(step) as usize] as usize]).collect()
        };
        (take(&self.test, 0), take(&self.others, mix(seed)))
    }
}

/// Distinct items in ascending order, drawn by the seed; all of them of a small catalog.
fn drawn(items: usize, seed: u64) -> Vec<u32> {
    if items <= ALL_ITEMS {
        return (0..items as u32).collect();
    }
    let mut drawn = std::collections::BTreeSet::new();
    let mut state = mix(seed);
    while drawn.len() < DRAWN_ITEMS {
        state = mix(state);
        drawn.insert(((u128::from(state) * items as u128) >> 64) as u32);
    }
    drawn.into_iter().collect()
}

/// How alike items are by who has had them.
struct Likeness {
    /// Items × users.
    users_of: Csr,
    /// Every so many users are measured.
    every: usize,
}

impl Likeness {
    fn new(seen: &Csr, measured_users: usize) -> Self {
        let every = measured_users.div_ceil(DIVERSITY_USERS).max(1);
        Self { users_of: seen.transpose(), every }
    }

    /// The diversity of a list, of the `at`-th user: Σ over pairs of cosines is half of what the
    /// squared length of the sum of all unit vectors has beyond their own, which takes time in the
    /// items' users and not in pairs. `sums` is scratch, all zeros.
    fn diversity(&self, at: usize, list: &[u32], sums: &mut Vec<f64>) -> Option<f64> {
        if list.len() < 2 || !at.is_multiple_of(self.every) {
            return None;
        }
        sums.resize(self.users_of.columns(), 0.0);
        let (mut square, mut own) = (0.0, 0.0);
        for &item in list {
            let users = self.users_of.row(item as usize).0;
            if users.is_empty() {
                continue;
            }
            let unit = (users.len() as f64).sqrt().recip();
            own += 1.0;
            for &user in users {
                let sum = &mut sums[user as usize];
                square += unit * (2.0 * *sum + unit);
                *sum += unit;
            }
        }
        for &item in list {
            self.users_of.row(item as usize).0.iter().for_each(|&user| sums[user as usize] = 0.0);
        }
        let pairs = (list.len() * (list.len() - 1) / 2) as f64;
        Some(1.0 - (square - own) / 2.0 / pairs)
    }
}

#[cfg(test)]
#[path = "evaluation_tests.rs"]
mod tests;
