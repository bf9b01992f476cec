//! Training: interactions become a model on the learners' threads.
//!
//! The memory of the whole training is reserved before it starts. The learner reports its progress
//! and stops soon after its statement went away. Codes follow the ids' order, not the rows', so
//! that the same rows give the same model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use catalog::Catalog;
use catalog::models::StoredIteration;
use datafusion::execution::memory_pool::MemoryReservation;
use udfs::model::{
    AlsModel, Csr, IdIndex, ItemModel, ItemParts, Model, ModelParts, PopularityModel,
    PopularityParts, Segments, Similarity, als, ease, holdout, item_knn,
};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::memory::mebibytes;
use crate::model::learners::Learner;
use crate::model::measure::{Metric, evaluate};
use crate::model::options::{TrainingOptions, model_error};
use crate::model::train::{Interactions, duplicates};
use crate::progress::Reporter;
use crate::session::Progress;

/// What training gives.
#[derive(Debug)]
pub struct Trained {
    /// The model.
    pub model: Model,
    /// Loss and time of each iteration.
    pub iterations: Vec<Iteration>,
    /// Names of a popularity model's segments, by code.
    pub segments: Vec<String>,
    /// Metrics on the rows kept aside; empty when none were.
    pub metrics: Vec<Metric>,
    /// Interactions, and rows that were merged into another of the same user and item.
    pub interactions: usize,
    /// Rows merged into another of the same user and item.
    pub merged: usize,
}

/// One iteration of training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Iteration {
    /// From 1.
    pub iteration: usize,
    /// The objective.
    pub loss: f64,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
}

impl Iteration {
    /// The form that a model's manifest keeps.
    pub fn stored(&self) -> StoredIteration {
        StoredIteration {
            iteration: u32::try_from(self.iteration).unwrap_or(u32::MAX),
            loss: self.loss,
            duration_ms: self.duration_ms,
        }
    }
}

/// Trains on the learners' threads.
///
/// # Errors
/// An empty training set, too little memory, cancellation.
pub async fn fit(
    engine: &Engine,
    interactions: Interactions,
    options: TrainingOptions,
    memory: &MemoryReservation,
    progress: Reporter,
) -> Result<Trained> {
    if interactions.cells.is_empty() {
        return Err(model_error(udfs::model::ModelError::Empty));
    }
    reserve(&interactions, &options, memory)?;
    let cancel = CancelOnDrop::default();
    let flag = Arc::clone(&cancel.0);
    let clock = Arc::clone(engine.catalog());
    crate::model::learn(move || fit_now(interactions, &options, &flag, &progress, &clock)).await?
}

/// Takes the memory of the whole training, or says how much it would have been.
fn reserve(
    interactions: &Interactions,
    options: &TrainingOptions,
    memory: &MemoryReservation,
) -> Result<()> {
    let (users, items) = (interactions.users.len(), interactions.items.len());
    let segments = interactions.segments.as_ref().map_or(0, |segments| segments.codes.len());
    let cells = interactions.cells.len();
    let needed_bytes = options.learner.memory_bytes(users, items, cells, segments);
    memory.try_grow(needed_bytes).map_err(|error| match Error::from(error) {
        Error::Exhausted { what } => Error::Exhausted {
            what: format!(
                "training '{}' on {users} users and {items} items needs {}: {what}",
                options.learner.model_type(),
                mebibytes(needed_bytes)
            ),
        },
        other => other,
    })
}

/// Sets the flag when the waiting statement goes away.
#[derive(Debug, Default)]
pub(super) struct CancelOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a learner says while it runs.
struct Watch<'a> {
    progress: &'a Reporter,
    clock: &'a Catalog,
    last_ms: i64,
    iterations: Vec<Iteration>,
}

impl Watch<'_> {
    fn report(&mut self, now: als::Progress) {
        if let Some(loss) = now.loss {
            let now_ms = self.clock.now_ms();
            let duration_ms = (now_ms - self.last_ms) as f64;
            self.iterations.push(Iteration { iteration: now.iteration, loss, duration_ms });
            self.last_ms = now_ms;
        }
        self.progress.report(Progress {
            phase: "training".into(),
            done: now.done as u64,
            total: now.total as u64,
            metric: now.loss,
        });
    }
}

fn fit_now(
    mut interactions: Interactions,
    options: &TrainingOptions,
    cancel: &AtomicBool,
    progress: &Reporter,
    clock: &Catalog,
) -> Result<Trained> {
    let user_codes = interactions.users.sort().map_err(model_error)?;
    let item_codes = interactions.items.sort().map_err(model_error)?;
    interactions.cells.recode(&user_codes, &item_codes);
    decay(&mut interactions, &options.learner);
    let (users, items) = (interactions.users.len(), interactions.items.len());
    let duplicates = duplicates(options.learner.is_explicit());
    let (all, merged) = interactions.cells.build(users, items, duplicates);
    let all = match options.learner {
        Learner::Ease(_) if options.rating_col.is_none() => binary(&all)?,
        _ => all,
    };
    let fraction = options.split.fraction(all.cells());
    let (training, kept_aside) = holdout(&all, fraction, options.seed);
    if training.cells() == 0 {
        return Err(Error::Model {
            what: "no rows are left for training after the split".into(),
            hint: Some("use data_split_method = 'no_split'".into()),
        });
    }
    let (segments, of_user) = match interactions.segments.take() {
        None => (vec![], None),
        Some(segments) => {
            let (names, of_user) = segments.by_user(&user_codes);
            (names, Some(of_user))
        }
    };
    let mut watch = Watch { progress, clock, last_ms: clock.now_ms(), iterations: vec![] };
    let interaction_count = all.cells();
    let rows = Rows { users: interactions.users, items: interactions.items, all, training };
    let model = rows.learn(&options.learner, of_user, segments.len(), &mut watch, cancel)?;
    let metrics = match kept_aside.cells() {
        0 => Vec::new(),
        _ => evaluate(&model, &kept_aside, options.top_k, cancel)?,
    };
    let iterations = watch.iterations;
    Ok(Trained { model, iterations, segments, metrics, interactions: interaction_count, merged })
}

/// Lets old rows count less: half after each half-life before the newest row.
fn decay(interactions: &mut Interactions, learner: &Learner) {
    let Learner::Popularity(popularity) = learner else { return };
    let times_ms = std::mem::take(&mut interactions.times_ms);
    let (Some(half_life_ms), Some(newest)) = (popularity.half_life_ms, times_ms.iter().max())
    else {
        return;
    };
    let half_life_ms = half_life_ms as f64;
    let age_ms = |row: usize| newest.saturating_sub(times_ms[row]) as f64;
    interactions.cells.scale(|row| (-age_ms(row) / half_life_ms).exp2() as f32);
}

/// Every interaction counts 1.
fn binary(cells: &Csr) -> Result<Csr> {
    let (offsets, columns) = (cells.offsets().to_vec(), cells.column_indices().to_vec());
    let ones = vec![1.0; cells.cells()];
    Csr::new(offsets, columns, ones, cells.columns()).map_err(model_error)
}

/// What there is to learn from.
struct Rows {
    users: IdIndex,
    items: IdIndex,
    all: Csr,
    training: Csr,
}

impl Rows {
    fn learn(
        self,
        learner: &Learner,
        of_user: Option<Vec<u32>>,
        segments: usize,
        watch: &mut Watch<'_>,
        cancel: &AtomicBool,
    ) -> Result<Model> {
        let mut report = |now: als::Progress| watch.report(now);
        let Self { users, items, all: seen, training } = self;
        match learner {
            Learner::Als(options) => {
                let factors = als::train(&training, options, &mut report, cancel);
                let (factors, options) = (factors.map_err(model_error)?, options.clone());
                let parts = ModelParts { users, items, factors, seen, options };
                Ok(AlsModel::from_parts(parts).map_err(model_error)?.into())
            }
            Learner::ItemKnn(options) => {
                let cells = item_knn::train(&training, options, &mut report, cancel);
                let similarity = Similarity::Sparse(cells.map_err(model_error)?);
                let parts = ItemParts { users, items, seen, similarity };
                Ok(ItemModel::from_parts(parts).map_err(model_error)?.into())
            }
            Learner::Ease(options) => {
                let weights = ease::train(&training, options, &mut report, cancel);
                let similarity = Similarity::Dense(weights.map_err(model_error)?);
                let parts = ItemParts { users, items, seen, similarity };
                Ok(ItemModel::from_parts(parts).map_err(model_error)?.into())
            }
            Learner::Popularity(_) => {
                let weights = popular(&training);
                let segments = of_user.map(|of_user| {
                    let weights = segment_weights(&training, &of_user, segments);
                    Segments { of_user, weights }
                });
                let parts = PopularityParts { users, items, seen, weights, segments };
                Ok(PopularityModel::from_parts(parts).map_err(model_error)?.into())
            }
        }
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

fn segment_weights(training: &Csr, of_user: &[u32], segments: usize) -> Vec<Vec<f32>> {
    let mut sums = vec![vec![0.0_f64; training.columns()]; segments];
    for (user, segment) in of_user.iter().enumerate() {
        let Some(sums) = sums.get_mut(*segment as usize) else { continue };
        let (items, values) = training.row(user);
        for (&item, &value) in items.iter().zip(values) {
            sums[item as usize] += f64::from(value);
        }
    }
    sums.into_iter().map(|sums| sums.into_iter().map(narrow).collect()).collect()
}

fn narrow(sum: f64) -> f32 {
    (sum as f32).clamp(f32::MIN, f32::MAX)
}
