//! What a model is worth on held-out interactions, as one figure: to choose an iteration or a
//! setting by, and to compare two versions.
//!
//! Rankings are measured as [`UserRanking`] defines them, over users who have something known and
//! something held out; ratings over the held-out pairs that the model can score. Known items are
//! left out of every list. A judge may look at a sample of users, the same ones at every look.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::als::FactorView;
use super::metrics::{RatingEvaluation, UserRanking};
use super::random::mix;
use super::recommender::{Choice, HeldOut, Recommender};
use super::sparse::Csr;
use super::topk::Panels;

/// Users whose lists are held at once.
const BLOCK_USERS: usize = 1024;

/// A list is asked for so much longer at most, for what is known here and not to the model.
const LONGER_MAX: usize = 200;

/// The place of an item that the judge does not know: never a hit.
const NO_ITEM: u32 = u32::MAX;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// Normalized discounted cumulative gain at k.
    Ndcg,
    /// Recall at k.
    Recall,
    /// Precision at k.
    Precision,
    /// Mean average precision at k.
    Map,
    /// Share of users with a hit among k.
    HitRate,
    /// Mean reciprocal rank of the first hit.
    Mrr,
    /// Root mean squared error of ratings.
    Rmse,
    /// Mean absolute error of ratings.
    Mae,
}

impl Objective {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Ndcg,
        Self::Recall,
        Self::Precision,
        Self::Map,
        Self::HitRate,
        Self::Mrr,
        Self::Rmse,
        Self::Mae,
    ];

    /// Its name without k.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ndcg => "ndcg",
            Self::Recall => "recall",
            Self::Precision => "precision",
            Self::Map => "map",
            Self::HitRate => "hit_rate",
            Self::Mrr => "mrr",
            Self::Rmse => "rmse",
            Self::Mae => "mae",
        }
    }

    /// Its name as metrics are named: `ndcg@20`, `rmse`.
    pub fn name_at(self, top_k: usize) -> String {
        if self.is_error() { self.name().to_owned() } else { format!("{}@{top_k}", self.name()) }
    }

    /// Whether ratings are measured, of which less is better.
    pub fn is_error(self) -> bool {
        matches!(self, Self::Rmse | Self::Mae)
    }

    /// The higher the better: an error counts negative. Its own inverse.
    pub fn worth(self, value: f64) -> f64 {
        if self.is_error() { -value } else { value }
    }

    fn of_user(self, user: &UserRanking) -> f64 {
        match self {
            Self::Recall => user.recall,
            Self::Precision => user.precision,
            Self::Map => user.average_precision,
            Self::HitRate => user.hit,
            Self::Mrr => user.reciprocal_rank,
            Self::Ndcg | Self::Rmse | Self::Mae => user.ndcg,
        }
    }

    fn of_ratings(self, ratings: &RatingEvaluation) -> f64 {
        let values = ratings.per_user().values();
        let found = values.iter().find(|(name, _)| name == self.name());
        found.map_or(f64::NAN, |(_, value)| *value)
    }
}

/// For each code of the judge the model's; `None` where the model does not know the id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes {
    /// Of users.
    pub users: Vec<Option<u32>>,
    /// Of items.
    pub items: Vec<Option<u32>>,
}

/// Measures models on held-out interactions.
#[derive(Debug, Clone)]
pub struct Judge<'a> {
    objective: Objective,
    top_k: usize,
    known: &'a Csr,
    held: &'a Csr,
    users: Vec<u32>,
    cancel: Option<&'a AtomicBool>,
}

impl<'a> Judge<'a> {
    /// A judge of lists of `top_k` items. `known` and `held` are of one shape, users × items, and
    /// have no interaction in common.
    pub fn new(objective: Objective, top_k: usize, known: &'a Csr, held: &'a Csr) -> Self {
        let counts = |user: u32| {
            let has = |csr: &Csr| !csr.row(user as usize).0.is_empty();
            has(held) && (objective.is_error() || has(known))
        };
        let users = (0..held.rows() as u32).filter(|&user| counts(user)).collect();
        Self { objective, top_k, known, held, users, cancel: None }
    }

    /// Looks at so many users at most, drawn by the seed.
    #[must_use]
    pub fn sampled(mut self, users_max: usize, seed: u64) -> Self {
        if self.users.len() > users_max {
            self.users.sort_unstable_by_key(|&user| Reverse(mix(mix(seed) ^ u64::from(user))));
            self.users.truncate(users_max);
            self.users.sort_unstable();
        }
        self
    }

    /// Looks at no more users once the flag is set: the figure then means nothing.
    #[must_use]
    pub fn cancelled_by(self, cancel: &'a AtomicBool) -> Self {
        Self { cancel: Some(cancel), ..self }
    }

    /// How many users are looked at.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// What is measured.
    pub fn objective(&self) -> Objective {
        self.objective
    }

    /// The length of the lists.
    pub(super) fn top_k(&self) -> usize {
        self.top_k
    }

    /// The users that are looked at.
    pub(super) fn sample(&self) -> &[u32] {
        &self.users
    }

    /// Whether lists leave the item out for the user.
    pub(super) fn is_known(&self, user: u32, item: u32) -> bool {
        self.known.contains(user as usize, item)
    }

    /// What a user's list is worth; none without anything held out.
    pub(super) fn of_list(&self, user: u32, list: &[u32]) -> Option<f64> {
        let ranking = UserRanking::new(self.top_k, list, self.held.row(user as usize).0)?;
        Some(self.objective.of_user(&ranking))
    }

    /// The objective for factors that are being learned, in the judge's own codes; NaN when there
    /// is nothing to measure. Runs on the current rayon pool.
    pub fn factors(&self, view: &FactorView<'_>) -> f64 {
        if self.objective.is_error() {
            return self.ratings(|user, item| {
                let (x, y) = (view.user(user), view.item(item));
                let product: f32 = x.iter().zip(y).map(|(x, y)| x * y).sum();
                Some(view.global_mean() + view.user_bias(user) + view.item_bias(item) + product)
            });
        }
        let size = view.num_factors();
        let mut rows = Vec::with_capacity(view.items() * size);
        (0..view.items() as u32).for_each(|item| rows.extend_from_slice(view.item(item)));
        let panels = Panels::new(&rows, size);
        drop(rows);
        let mut mean = Mean::default();
        for block in self.users.chunks(BLOCK_USERS).take_while(|_| !self.is_cancelled()) {
            let queries: Vec<f32> =
                block.iter().flat_map(|&user| view.user(user)).copied().collect();
            let skip = |query: usize, item: u32| self.known.contains(block[query] as usize, item);
            let lists = panels.best(&queries, self.top_k, &skip);
            for (&user, list) in block.iter().zip(&lists) {
                self.add(&mut mean, user, &list.codes);
            }
        }
        mean.value()
    }

    /// The objective for a finished model; NaN when there is nothing to measure. With `codes` the
    /// model has ids of its own: a user whom it does not know is left out, an item that it does not
    /// know it cannot recommend. Runs on the current rayon pool.
    pub fn model(&self, model: &dyn Recommender, codes: Option<&Codes>) -> f64 {
        let its_user = |user: u32| match codes {
            None => Some(user),
            Some(codes) => codes.users.get(user as usize).copied().flatten(),
        };
        let its_item = |item: u32| match codes {
            None => Some(item),
            Some(codes) => codes.items.get(item as usize).copied().flatten(),
        };
        if self.objective.is_error() {
            return self.ratings(|user, item| model.score(its_user(user)?, its_item(item)?));
        }
        let back = codes.map(|codes| back(&codes.items, model.item_ids().len()));
        let own = |item: u32| match &back {
            None => item,
            Some(back) => back.get(item as usize).copied().unwrap_or(NO_ITEM),
        };
        let test = self.held_as(model, &its_user, &its_item);
        let held = HeldOut::new(model.seen(), &test);
        let users: Vec<(u32, u32)> =
            self.users.iter().filter_map(|&user| Some((user, its_user(user)?))).collect();
        let top_k = |block: Range<usize>| {
            let unknown = |&(user, its): &(u32, u32)| {
                let items = self.known.row(user as usize).0.iter();
                items.filter(|&&i| !has(model.seen(), its, its_item(i))).count()
            };
            let longer = codes.and_then(|_| users[block].iter().map(unknown).max());
            self.top_k + longer.unwrap_or(0).min(LONGER_MAX)
        };
        let asked: Vec<u32> = users.iter().map(|&(_, its)| its).collect();
        let mut mean = Mean::default();
        held.walk(model, &asked, &top_k, self.cancel, &mut |first, lists| {
            for (&(user, _), Choice { items, .. }) in users[first..].iter().zip(&lists) {
                let items = items.iter().map(|&item| own(item));
                let list: Vec<u32> =
                    items.filter(|&item| !self.known.contains(user as usize, item)).collect();
                self.add(&mut mean, user, &list);
            }
        });
        mean.value()
    }

    /// The objective for lists of a model in the judge's codes that were made already: of each user
    /// who is looked at, and of `top_k` items without those known here.
    pub fn lists<'l>(&self, lists: impl Iterator<Item = (u32, &'l [u32])>) -> f64 {
        let mut mean = Mean::default();
        for (user, list) in lists.filter(|(user, _)| self.users.binary_search(user).is_ok()) {
            self.add(&mut mean, user, list);
        }
        mean.value()
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    fn add(&self, mean: &mut Mean, user: u32, list: &[u32]) {
        if let Some(value) = self.of_list(user, list) {
            mean.sum += value;
            mean.count += 1.0;
        }
    }

    fn ratings(&self, score: impl Fn(u32, u32) -> Option<f32>) -> f64 {
        let mut ratings = RatingEvaluation::default();
        for &user in &self.users {
            let (items, given) = self.held.row(user as usize);
            let pairs = items.iter().zip(given);
            let scored = pairs.filter_map(|(&item, &rating)| {
                score(user, item).map(|predicted| (rating.into(), predicted.into()))
            });
            ratings.add(user, scored);
        }
        self.objective.of_ratings(&ratings)
    }

    /// What is held out, of the users looked at, in the model's codes.
    fn held_as(
        &self,
        model: &dyn Recommender,
        its_user: &dyn Fn(u32) -> Option<u32>,
        its_item: &dyn Fn(u32) -> Option<u32>,
    ) -> Csr {
        let (users, items) = (model.user_ids().len(), model.item_ids().len());
        let mut rows: Vec<(u32, Vec<u32>)> = self
            .users
            .iter()
            .filter_map(|&user| {
                let held = self.held.row(user as usize).0.iter();
                let mut held: Vec<u32> = held.filter_map(|&item| its_item(item)).collect();
                held.sort_unstable();
                Some((its_user(user)?, held))
            })
            .collect();
        rows.sort_unstable();
        let (mut offsets, mut columns) = (vec![0], vec![]);
        let mut rows = rows.into_iter().peekable();
        for user in 0..users as u32 {
            if let Some((_, held)) = rows.next_if(|(its, _)| *its == user) {
                columns.extend(held);
            }
            offsets.push(columns.len());
        }
        let values = vec![1.0; columns.len()];
        Csr::from_unsorted(offsets, columns, values, items)
    }
}

#[derive(Default)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Mean {
    fn value(&self) -> f64 {
        self.sum / self.count
    }
}

fn has(seen: &Csr, user: u32, item: Option<u32>) -> bool {
    item.is_some_and(|item| seen.contains(user as usize, item))
}

/// The judge's code of each of the model's items.
fn back(items: &[Option<u32>], count: usize) -> Vec<u32> {
    let mut back = vec![NO_ITEM; count];
    for (own, its) in (0..).zip(items) {
        if let Some(slot) = its.and_then(|its| back.get_mut(its as usize)) {
            *slot = own;
        }
    }
    back
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use arrow::array::{ArrayRef, Int64Array};

    use super::super::als::{AlsOptions, Feedback, Training, Validation};
    use super::super::{AlsModel, Evaluation, IdIndex, Model, ModelParts, PopularityModel};
    use super::super::{PopularityParts, holdout};
    use super::*;

    fn ids(column: &str, values: &[i64]) -> IdIndex {
        let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        IdIndex::from_values(column, values).unwrap()
    }

    fn all() -> Csr {
        let row =
            |user: u32| (0..20).filter(move |item| item % 4 == user % 4 || item * 7 % 20 == user);
        let (mut offsets, mut columns) = (vec![0], vec![]);
        for user in 0..20 {
            columns.extend(row(user));
            offsets.push(columns.len());
        }
        let values = columns.iter().map(|&item| 1.0 + (item % 3) as f32).collect();
        Csr::new(offsets, columns, values, 20).unwrap()
    }

    /// The figure while learning and that of the finished model are one.
    #[test]
    fn factors_and_their_model_are_judged_alike() {
        for feedback in [Feedback::Implicit, Feedback::Explicit] {
            let all = all();
            let (known, held) = holdout(&all, 0.3, 1);
            let options = AlsOptions { feedback, num_factors: 4, ..AlsOptions::default() };
            let objective =
                if feedback == Feedback::Explicit { Objective::Rmse } else { Objective::Ndcg };
            let judge = Judge::new(objective, 3, &known, &held);
            let mut last = f64::NAN;
            let mut metric = |view: &FactorView<'_>, _: usize| {
                last = judge.factors(view);
                std::ops::ControlFlow::Continue(0.0)
            };
            let validation =
                Validation { metric: &mut metric, patience: 0, min_rel_improvement: 0.0 };
            let validation = Some(validation);
            let training = Training { validation, ..Training::new(&known, &options) };
            let trained = training.run(&mut |_| {}, &AtomicBool::new(false)).unwrap();
            // The first of equal iterations is kept; all of them are equally good here.
            assert_eq!(trained.best_iteration, 1);
            let once = AlsOptions { max_iterations: 1, ..options.clone() };
            let first = Training::new(&known, &once);
            let factors = first.run(&mut |_| {}, &AtomicBool::new(false)).unwrap().factors;
            let mut one = f64::NAN;
            let mut metric = |view: &FactorView<'_>, _: usize| {
                one = judge.factors(view);
                std::ops::ControlFlow::Continue(0.0)
            };
            let validation =
                Validation { metric: &mut metric, patience: 0, min_rel_improvement: 0.0 };
            Training { validation: Some(validation), ..Training::new(&known, &once) }
                .run(&mut |_| {}, &AtomicBool::new(false))
                .unwrap();
            let codes: Vec<i64> = (0..20).collect();
            let (users, items) = (ids("user_id", &codes), ids("item_id", &codes));
            let parts = ModelParts { users, items, factors, seen: all.clone(), options: once };
            let model = AlsModel::from_parts(parts).unwrap();
            assert!((judge.model(&model, None) - one).abs() < 1e-6, "{feedback:?}");
            assert!(last.is_finite());
        }
    }

    #[test]
    fn a_model_with_other_codes_is_worth_the_same() {
        let known = Csr::new(vec![0, 1, 3], vec![0, 0, 1], vec![1.0; 3], 3).unwrap();
        let held = Csr::new(vec![0, 1, 2], vec![1, 2], vec![1.0; 2], 3).unwrap();
        let own = [(vec![10, 20], vec![1, 2, 3]), (vec![5, 20, 10], vec![3, 9, 2, 1])];
        let seen = [
            Csr::new(vec![0, 2, 5], vec![0, 1, 0, 1, 2], vec![1.0; 5], 3).unwrap(),
            Csr::new(vec![0, 0, 3, 5], vec![0, 2, 3, 2, 3], vec![1.0; 5], 4).unwrap(),
        ];
        let weights = [vec![3.0, 2.0, 1.0], vec![1.0, 0.0, 2.0, 3.0]];
        let judge = Judge::new(Objective::Mrr, 1, &known, &held);
        let mut found = vec![];
        for (((users, items), seen), weights) in own.into_iter().zip(seen).zip(weights) {
            let codes = Codes {
                users: [10, 20]
                    .map(|id| users.iter().position(|&u| u == id).map(|at| at as u32))
                    .to_vec(),
                items: [1, 2, 3]
                    .map(|id| items.iter().position(|&i| i == id).map(|at| at as u32))
                    .to_vec(),
            };
            let (users, items) = (ids("user_id", &users), ids("item_id", &items));
            let parts = PopularityParts { users, items, seen, weights, segments: None };
            let own: Model = PopularityModel::from_parts(parts.clone()).unwrap().into();
            let model = PopularityModel::from_parts(parts).unwrap();
            found.push(judge.model(&model, Some(&codes)));
            if model.user_ids().len() == 2 {
                found.push(judge.model(&model, None));
                let evaluation = Evaluation::of(&own, &held, 1, &AtomicBool::new(false)).unwrap();
                assert_eq!(evaluation.lists().count(), judge.users());
                found.push(judge.lists(evaluation.lists()));
            }
            // Items of which the model knows nothing are misses, its unknown users no users.
            let none = Codes { users: vec![None; 2], items: codes.items.clone() };
            assert!(judge.model(&model, Some(&none)).is_nan());
            let none = Codes { users: codes.users.clone(), items: vec![None; 3] };
            assert_eq!(judge.model(&model, Some(&none)), 0.0);
        }
        assert_eq!(found, [1.0; 4]);
    }

    #[test]
    fn a_sample_is_drawn_once_and_names_are_those_of_metrics() {
        let all = all();
        let (known, held) = holdout(&all, 0.3, 1);
        let judge = Judge::new(Objective::Recall, 3, &known, &held);
        let (few, again) = (judge.clone().sampled(5, 2), judge.clone().sampled(5, 2));
        assert_eq!((few.users(), &few.users), (5, &again.users));
        assert_ne!(few.users, judge.clone().sampled(5, 3).users);
        assert!(judge.users() > 5 && few.users.is_sorted());
        let cancelled = AtomicBool::new(true);
        let model = PopularityModel::from_parts(PopularityParts {
            users: ids("user_id", &(0..20).collect::<Vec<_>>()),
            items: ids("item_id", &(0..20).collect::<Vec<_>>()),
            seen: all.clone(),
            weights: vec![1.0; 20],
            segments: None,
        });
        let model = model.unwrap();
        assert!(few.model(&model, None) >= 0.0);
        assert!(few.cancelled_by(&cancelled).model(&model, None).is_nan());
        assert_eq!(
            (Objective::Ndcg.name_at(20), Objective::Mae.name_at(20)),
            ("ndcg@20".into(), "mae".into())
        );
        assert_eq!((Objective::Rmse.worth(0.5), Objective::Map.worth(0.5)), (-0.5, 0.5));
    }
}
