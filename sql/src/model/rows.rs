//! What there is to learn from, and what was learned: interactions in codes that follow the ids'
//! order, and models before they have ids.

use std::sync::atomic::{AtomicBool, Ordering};

use udfs::model::als::{Validation, WarmStart};
use udfs::model::{
    AlsModel, Csr, IdIndex, ItemModel, ItemParts, Model, ModelError, ModelParts, PopularityModel,
    PopularityParts, Segments, Similarity, Triplets, als, ease, item_knn,
};

use crate::error::{Error, Result};
use crate::model::learners::Learner;
use crate::model::lifecycle::Mapped;
use crate::model::options::{TrainingOptions, model_error};
use crate::model::splitting::{Learned as LearnedBefore, Parts, Whole, cell_keys};
use crate::model::train::{Interactions, duplicates};

/// Rows of which old ones count less: half after each half-life before the newest.
fn fading(mut cells: Triplets, times_ms: &[i64], half_life_ms: i64) -> Triplets {
    let newest = times_ms.iter().max().copied().unwrap_or(0);
    let age_ms = |row: usize| newest.saturating_sub(times_ms[row]) as f64;
    cells.scale(|row| (-age_ms(row) / half_life_ms as f64).exp2() as f32);
    cells
}

/// The cells of a part with the values that another matrix, which has them all, gives them.
fn valued(part: &Csr, by: &Csr) -> Result<Csr> {
    let mut values = Vec::with_capacity(part.cells());
    for user in 0..part.rows() {
        let (items, found) = by.row(user);
        let value = |item: &u32| items.binary_search(item).map_or(0.0, |at| found[at]);
        values.extend(part.row(user).0.iter().map(value));
    }
    let (offsets, columns) = (part.offsets().to_vec(), part.column_indices().to_vec());
    Csr::new(offsets, columns, values, part.columns()).map_err(model_error)
}

/// Every interaction counts 1.
pub(super) fn binary(cells: &Csr) -> Result<Csr> {
    let (offsets, columns) = (cells.offsets().to_vec(), cells.column_indices().to_vec());
    let ones = vec![1.0; cells.cells()];
    Csr::new(offsets, columns, ones, cells.columns()).map_err(model_error)
}

/// What there is to learn from.
pub struct Rows {
    /// Ids of users in order.
    pub users: IdIndex,
    /// Ids of items in order.
    pub items: IdIndex,
    /// All interactions.
    pub all: Csr,
    /// Names of segments, by code.
    pub segments: Vec<String>,
    /// Rows that were merged into another of the same user and item.
    pub merged: usize,
    keys: Option<Vec<i64>>,
    of_user: Option<Vec<u32>>,
    /// What is told of users and of items, by code.
    features: [Option<Csr>; 2],
    /// What interactions count for in what is popular, where that differs from what they count for
    /// elsewhere in a blend.
    faded: Option<Csr>,
    /// Of each signal of a blend a number for each item.
    signals: Vec<Vec<f32>>,
}

impl Rows {
    /// Brings interactions into the order of their ids; the flag is looked at between steps.
    ///
    /// # Errors
    /// When codes do not fit together, or the training is cancelled.
    pub fn new(
        mut interactions: Interactions,
        options: &TrainingOptions,
        cancel: &AtomicBool,
    ) -> Result<Self> {
        let go_on = || match cancel.load(Ordering::Relaxed) {
            true => Err(Error::Cancelled),
            false => Ok(()),
        };
        let (users, items) = (&mut interactions.users, &mut interactions.items);
        let (user_codes, item_codes) = rayon::join(|| users.sort(), || items.sort());
        let user_codes = user_codes.map_err(model_error)?;
        let item_codes = item_codes.map_err(model_error)?;
        go_on()?;
        interactions.cells.recode(&user_codes, &item_codes);
        let (users, items) = (interactions.users, interactions.items);
        let duplicates = duplicates(options.learner.is_explicit());
        let mut faded = None;
        if let Some(half_life_ms) = options.learner.popularity().and_then(|of| of.half_life_ms) {
            let cells = match options.learner {
                Learner::Popularity(_) => std::mem::take(&mut interactions.cells),
                _ => interactions.cells.clone(),
            };
            let cells = fading(cells, &interactions.times_ms, half_life_ms);
            match options.learner {
                Learner::Popularity(_) => interactions.cells = cells,
                _ => faded = Some(cells.build(users.len(), items.len(), duplicates).0),
            }
        }
        let signals = match &interactions.signals {
            Some(signals) => signals.by_item(&items)?,
            None => vec![],
        };
        let rows = interactions.split_keys.as_ref().map(|_| interactions.cells.clone());
        go_on()?;
        let (all, merged) = interactions.cells.build(users.len(), items.len(), duplicates);
        go_on()?;
        let keys = match (rows, interactions.split_keys) {
            (Some(rows), Some(keys)) => Some(cell_keys(&all, &rows, &keys)?),
            _ => None,
        };
        let all = match options.counts_once() {
            true => binary(&all)?,
            false => all,
        };
        let (segments, of_user) = match interactions.segments {
            None => (vec![], None),
            Some(segments) => {
                let (names, of_user) = segments.by_user(&user_codes);
                (names, Some(of_user))
            }
        };
        let [of_users, of_items] = interactions.features;
        let features = [
            of_users.map(|told| told.cells(&user_codes, users.len())),
            of_items.map(|told| told.cells(&item_codes, items.len())),
        ];
        Ok(Self { users, items, all, segments, merged, keys, of_user, features, faded, signals })
    }

    /// The parts of a split.
    ///
    /// # Errors
    /// When a part is not what the options ask for.
    pub fn divide(
        &self,
        options: &TrainingOptions,
        previous: Option<&Mapped>,
    ) -> Result<Parts<'_>> {
        let (users, items) = (self.users.hashes(), self.items.hashes());
        let keys = self.keys.as_deref();
        let whole = Whole { all: &self.all, users: &users, items: &items, keys };
        let before = previous.and_then(|previous| {
            let goes_on = previous.cold.is_none();
            Some(LearnedBefore { model: previous.recommender()?, codes: &previous.codes, goes_on })
        });
        whole.divide(&options.split, before.as_ref())
    }

    /// Learns from some of the interactions. Only a factorization has a warm start and iterations
    /// to validate.
    pub fn learn<'a>(
        &'a self,
        training: &'a Csr,
        learner: &'a Learner,
        warm_start: Option<WarmStart<'a>>,
        validation: Option<Validation<'a>>,
        report: &mut dyn FnMut(als::Progress),
        cancel: &AtomicBool,
    ) -> Result<Learned> {
        match learner {
            Learner::Als(options) => {
                let plain = als::Training::new(training, options);
                let [user_features, item_features] = self.features.each_ref().map(Option::as_ref);
                let told = als::Training { user_features, item_features, ..plain };
                let training = als::Training { warm_start, validation, ..told };
                let trained = training.run(report, cancel).map_err(model_error)?;
                Ok(Learned::Factors(Box::new(trained)))
            }
            Learner::ItemKnn(options) => {
                let cells = item_knn::train(training, options, report, cancel);
                Ok(Learned::Similarity(Similarity::Sparse(cells.map_err(model_error)?)))
            }
            Learner::Ease(options) => {
                let weights = ease::train(training, options, report, cancel);
                Ok(Learned::Similarity(Similarity::Dense(weights.map_err(model_error)?)))
            }
            Learner::Popularity(_) => {
                if training.values().iter().all(|&value| value == 0.0) {
                    return Err(model_error(ModelError::NoEvidence));
                }
                let segments = match &self.of_user {
                    None => None,
                    Some(of_user) => Some(Segments {
                        of_user: of_user.clone(),
                        weights: segment_weights(training, of_user, self.segments.len(), cancel)?,
                    }),
                };
                let weights = match &self.faded {
                    Some(faded) => popular(&valued(training, faded)?),
                    None => popular(training),
                };
                Ok(Learned::Popularity { weights, segments })
            }
            Learner::Hybrid(hybrid) => {
                let mut learned = vec![];
                for base in &hybrid.bases {
                    learned.push(self.learn(training, base, None, None, &mut *report, cancel)?);
                }
                // Counts spread over orders of magnitude, scores of the others do not.
                for base in &mut learned {
                    if let Learned::Popularity { weights, .. } = base {
                        weights.iter_mut().for_each(|weight| *weight = weight.max(0.0).ln_1p());
                    }
                }
                let signals = self.signals.iter().cloned();
                learned
                    .extend(signals.map(|weights| Learned::Popularity { weights, segments: None }));
                Ok(Learned::Hybrid(learned))
            }
            Learner::Features(_) | Learner::Entities(_) => {
                Err(Error::Internal("rows are no interactions of users and items".into()))
            }
        }
    }
}

/// What was learned, without ids.
pub enum Learned {
    /// A factorization.
    Factors(Box<als::Trained>),
    /// Weights between items.
    Similarity(Similarity),
    /// What is popular, in all and in each segment.
    Popularity {
        /// One an item.
        weights: Vec<f32>,
        /// Of segments.
        segments: Option<Segments>,
    },
    /// What each model of a blend has learned, then its signals.
    Hybrid(Vec<Learned>),
}

impl Learned {
    /// The iteration of a factorization.
    pub fn best_iteration(&self) -> Option<usize> {
        match self {
            Self::Factors(trained) => Some(trained.best_iteration),
            _ => None,
        }
    }

    /// The model, with what users have had.
    ///
    /// # Errors
    /// When the parts do not fit together, or the training was cancelled.
    pub fn into_model(
        self,
        users: IdIndex,
        items: IdIndex,
        seen: Csr,
        learner: &Learner,
        cancel: &AtomicBool,
    ) -> Result<Model> {
        let model = match self {
            Self::Factors(trained) => {
                let Learner::Als(options) = learner else {
                    return Err(Error::Internal("factors of another learner".into()));
                };
                let (factors, options) = (trained.factors, options.clone());
                AlsModel::from_parts(ModelParts { users, items, factors, seen, options })
                    .map(Model::from)
            }
            Self::Similarity(similarity) => {
                ItemModel::from_parts(ItemParts { users, items, seen, similarity }).map(Model::from)
            }
            Self::Popularity { weights, segments } => {
                let parts = PopularityParts { users, items, seen, weights, segments };
                PopularityModel::ranked(parts, cancel).map(Model::from)
            }
            Self::Hybrid(learned) => {
                let Learner::Hybrid(hybrid) = learner else {
                    return Err(Error::Internal("a blend of another learner".into()));
                };
                return hybrid.put_together(learned, &|learned, base| {
                    learned.into_model(users.clone(), items.clone(), seen.clone(), base, cancel)
                });
            }
        };
        model.map_err(model_error)
    }
}

/// The sum of each item's interactions.
fn popular(training: &Csr) -> Vec<f32> {
    let mut sums = vec![0.0_f64; training.columns()];
    for (&item, &value) in training.column_indices().iter().zip(training.values()) {
        sums[item as usize] += f64::from(value);
    }
    sums.into_iter().map(narrow).collect()
}

fn segment_weights(
    training: &Csr,
    of_user: &[u32],
    segments: usize,
    cancel: &AtomicBool,
) -> Result<Vec<Vec<f32>>> {
    let mut sums = vec![vec![0.0_f64; training.columns()]; segments];
    for (user, segment) in of_user.iter().enumerate() {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let Some(sums) = sums.get_mut(*segment as usize) else { continue };
        let (items, values) = training.row(user);
        for (&item, &value) in items.iter().zip(values) {
            sums[item as usize] += f64::from(value);
        }
    }
    Ok(sums.into_iter().map(|sums| sums.into_iter().map(narrow).collect()).collect())
}

fn narrow(sum: f64) -> f32 {
    (sum as f32).clamp(f32::MIN, f32::MAX)
}
