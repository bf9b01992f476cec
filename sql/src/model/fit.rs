//! Training: interactions become a model on the learners' threads.
//!
//! The memory of the whole training is reserved before it starts. The learner reports its progress
//! and stops soon after its statement went away. Codes follow the ids' order, not the rows', so
//! that the same rows give the same model.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use catalog::Catalog;
use catalog::models::{StoredIteration, StoredTuning};
use datafusion::execution::memory_pool::MemoryReservation;
use udfs::model::als::{FactorView, Validation, WarmStart};
use udfs::model::judge::{Judge, Objective};
use udfs::model::{
    AlsModel, Csr, Evaluation, IdIndex, ItemModel, ItemParts, Model, ModelParts, PopularityModel,
    PopularityParts, Segments, Similarity, als, ease, item_knn,
};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::memory::mebibytes;
use crate::model::learners::Learner;
use crate::model::lifecycle::{Compared, Mapped, Previous, compare};
use crate::model::measure::{Metric, evaluate};
use crate::model::options::{EarlyStop, TrainingOptions, model_error};
use crate::model::splitting::{Learned as LearnedBefore, Parts, Whole, beside, cell_keys};
use crate::model::train::{Interactions, duplicates};
use crate::model::trials::{self, Ground};
use crate::progress::Reporter;
use crate::session::Progress;

/// A metric looks at so many pairs of a user and an item at most, at each iteration.
const PAIRS_MAX: usize = 200_000_000;

/// A metric looks at so many users, whatever the number of items.
const USERS_MIN: usize = 1_000;

/// A warm start takes one in so many of the iterations.
const WARM_SHARE: usize = 8;

/// What training gives.
#[derive(Debug)]
pub struct Trained {
    /// The model.
    pub model: Model,
    /// Loss, metric and time of each iteration.
    pub iterations: Vec<Iteration>,
    /// The name of the metric of each iteration, when one chose among them.
    pub validation_metric: Option<String>,
    /// The iteration that was chosen.
    pub best_iteration: Option<usize>,
    /// The iterations that the factors have had, with those of the versions before.
    pub total_iterations: usize,
    /// The search that chose the options.
    pub tuning: Option<StoredTuning>,
    /// Names of a popularity model's segments, by code.
    pub segments: Vec<String>,
    /// Metrics on the rows kept aside; empty when none were.
    pub metrics: Vec<Metric>,
    /// How the training began, when there was a version before.
    pub began: Option<String>,
    /// The new version beside the one before.
    pub compared: Option<Compared>,
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
    /// The validation metric, when there was one.
    pub metric: Option<f64>,
}

impl Iteration {
    /// The form that a model's manifest keeps.
    pub fn stored(&self) -> StoredIteration {
        StoredIteration {
            iteration: u32::try_from(self.iteration).unwrap_or(u32::MAX),
            loss: self.loss,
            duration_ms: self.duration_ms,
            metric: self.metric.filter(|metric| metric.is_finite()),
        }
    }
}

/// Trains on the learners' threads; with a version before, it is what is gone on from and compared
/// with.
///
/// # Errors
/// An empty training set, too little memory, cancellation.
pub async fn fit(
    engine: &Engine,
    interactions: Interactions,
    options: TrainingOptions,
    previous: Option<Previous>,
    memory: &MemoryReservation,
    progress: Reporter,
) -> Result<Trained> {
    if interactions.cells.is_empty() {
        return Err(model_error(udfs::model::ModelError::Empty));
    }
    reserve(&interactions, &options, previous.is_some(), memory)?;
    let cancel = CancelOnDrop::default();
    let flag = Arc::clone(&cancel.0);
    let clock = Arc::clone(engine.catalog());
    let now = move || {
        let fit = Fit { options: &options, cancel: &flag, progress: &progress, clock: &clock };
        fit.run(interactions, previous.as_ref())
    };
    crate::model::learn(now).await?
}

/// Takes the memory of the whole training, or says how much it would have been.
fn reserve(
    interactions: &Interactions,
    options: &TrainingOptions,
    is_retrained: bool,
    memory: &MemoryReservation,
) -> Result<()> {
    let (users, items) = (interactions.users.len(), interactions.items.len());
    let segments = interactions.segments.as_ref().map_or(0, |segments| segments.codes.len());
    let cells = interactions.cells.len();
    let learner = options.largest_learner()?;
    let mut needed_bytes = learner.memory_bytes(users, items, cells, segments);
    let chooses = options.early_stop.is_some() || options.tuning.is_some() || learner.chooses();
    if let (Learner::Als(als), true) = (&learner, chooses) {
        // The best iteration's factors, and the items' twice while lists are made of them.
        let rows = users.saturating_add(items.saturating_mul(3));
        needed_bytes = needed_bytes.saturating_add(rows.saturating_mul(als.num_factors * 4));
    }
    if chooses || is_retrained {
        // Three more parts of the interactions, two codes an id and marks.
        let parts = cells.saturating_mul(26).saturating_add((users + items).saturating_mul(48));
        needed_bytes = needed_bytes.saturating_add(parts);
    }
    let tested = users.min(options.split.tested_max(cells));
    if tested > 0 {
        let size = [users, items, cells];
        let evaluation = Evaluation::memory_bytes(size, tested, options.top_k);
        needed_bytes = needed_bytes.saturating_add(evaluation);
    }
    take(memory, needed_bytes, &options.learner, &format!("{users} users and {items} items"))
}

/// Takes memory of a training, or says how much it would have been, and for what.
pub(super) fn take(
    memory: &MemoryReservation,
    needed_bytes: usize,
    learner: &Learner,
    rows: &str,
) -> Result<()> {
    memory.try_grow(needed_bytes).map_err(|error| match Error::from(error) {
        Error::Exhausted { what } => Error::Exhausted {
            what: format!(
                "training '{}' on {rows} needs {}: {what}",
                learner.model_type(),
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
pub(super) struct Watch<'a> {
    progress: &'a Reporter,
    clock: &'a Catalog,
    /// What a metric is the worth of; none: it is the metric itself.
    objective: Option<Objective>,
    last_ms: i64,
    /// The iterations so far.
    pub(super) iterations: Vec<Iteration>,
}

impl<'a> Watch<'a> {
    /// Before the first iteration.
    pub(super) fn new(
        progress: &'a Reporter,
        clock: &'a Catalog,
        objective: Option<Objective>,
    ) -> Self {
        Self { progress, clock, objective, last_ms: clock.now_ms(), iterations: vec![] }
    }

    /// Notes an iteration and tells how far the training is.
    pub(super) fn report(&mut self, now: als::Progress) {
        let told = |worth| self.objective.map_or(worth, |objective| objective.worth(worth));
        let metric = now.metric.map(told);
        if let Some(loss) = now.loss {
            let now_ms = self.clock.now_ms();
            let duration_ms = (now_ms - self.last_ms) as f64;
            let iteration = now.iteration;
            self.iterations.push(Iteration { iteration, loss, duration_ms, metric });
            self.last_ms = now_ms;
        }
        Self::tell(self.progress, "training", now, metric);
    }

    /// Tells how far a phase is, without a note of it.
    fn tell(progress: &Reporter, phase: &'static str, now: als::Progress, metric: Option<f64>) {
        progress.report(Progress {
            phase: phase.into(),
            done: now.done as u64,
            total: now.total as u64,
            metric: metric.or(now.loss),
        });
    }
}

/// One training.
struct Fit<'a> {
    options: &'a TrainingOptions,
    cancel: &'a AtomicBool,
    progress: &'a Reporter,
    clock: &'a Catalog,
}

impl Fit<'_> {
    fn run(&self, interactions: Interactions, previous: Option<&Previous>) -> Result<Trained> {
        let options = self.options;
        let rows = Rows::new(interactions, options)?;
        self.go_on()?;
        let unwanted = match (options.lifecycle.warm_start, &options.tuning) {
            (false, _) => Some("as asked"),
            (true, Some(_)) => Some("its options are searched anew"),
            (true, None) => None,
        };
        let mapped = previous.and_then(|previous| {
            let (users, items) = (&rows.users, &rows.items);
            Mapped::new(previous, users, items, &options.learner, unwanted)
        });
        let parts = rows.divide(options, mapped.as_ref())?;
        self.go_on()?;
        let mut learner = options.learner.clone();
        let mut tuning = None;
        if let Some(search) = &options.tuning {
            let found = trials::search(search, &self.ground(&rows, &parts))?;
            (learner, tuning) = (found.learner, Some(found.record));
        }
        if let Learner::Hybrid(hybrid) = &learner {
            let mut report = |now| Watch::tell(self.progress, "blending", now, None);
            let blended = hybrid.blended(&rows, &parts, options, &mut report, self.cancel)?;
            learner = Learner::Hybrid(blended);
        }
        let warm = mapped.as_ref().and_then(Mapped::warm_start);
        if let (Learner::Als(als), Some(_)) = (&mut learner, &warm)
            && options.early_stop.is_none()
            && previous.is_some_and(|previous| !previous.are_iterations_given)
        {
            als.max_iterations = als.max_iterations.div_ceil(WARM_SHARE);
        }
        let stop = options.early_stop.filter(|_| options.tuning.is_none());
        let training = match (stop, parts.validation.cells()) {
            (None, 1..) => &beside(&rows.all, &parts.test),
            _ => &parts.training,
        };
        let objective = stop.map_or(options.objective, |stop| stop.objective);
        let mut watch = Watch::new(self.progress, self.clock, Some(objective));
        let learned = match stop {
            None => rows.learn(
                training,
                &learner,
                warm,
                None,
                &mut |now| watch.report(now),
                self.cancel,
            ),
            Some(stop) => self.stopping(&rows, &parts, &learner, warm, stop, &mut watch),
        }?;
        let best_iteration = stop.and_then(|_| learned.best_iteration());
        let before = mapped.as_ref().filter(|mapped| mapped.cold.is_none());
        let total_iterations = best_iteration.unwrap_or(watch.iterations.len())
            + before.map_or(0, |mapped| mapped.iterations);
        let (interactions, merged) = (rows.all.cells(), rows.merged);
        let segments = rows.segments.clone();
        // The interactions are the model's from here on, but for a comparison.
        let compared_on =
            mapped.as_ref().filter(|_| parts.fresh.cells() > 0).map(|_| rows.all.clone());
        let Rows { users, items, all, .. } = rows;
        let model = learned.into_model(users, items, all, &learner, self.cancel)?;
        let metrics = match parts.test.cells() {
            0 => Vec::new(),
            _ => evaluate(&model, &parts.test, options.top_k, self.cancel)?,
        };
        let compared = mapped.as_ref().zip(compared_on.as_ref()).and_then(|(mapped, all)| {
            let asked = (options.objective, options.top_k);
            compare(asked, &model, mapped, all, &parts.fresh, self.cancel)
        });
        self.go_on()?;
        Ok(Trained {
            model,
            iterations: watch.iterations,
            validation_metric: stop.map(|stop| stop.objective.name_at(options.top_k)),
            best_iteration,
            total_iterations,
            tuning,
            segments,
            metrics,
            began: mapped.as_ref().map(Mapped::told),
            compared,
            interactions,
            merged,
        })
    }

    /// Steps that take a moment look at the flag between them, long ones on their way.
    fn go_on(&self) -> Result<()> {
        match self.cancel.load(Ordering::Relaxed) {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }

    fn ground<'a>(&'a self, rows: &'a Rows, parts: &'a Parts) -> Ground<'a> {
        let (options, cancel) = (self.options, self.cancel);
        Ground { options, rows, parts, cancel, progress: self.progress, clock: self.clock }
    }

    /// Learns until the metric on the validation part gets no better.
    fn stopping(
        &self,
        rows: &Rows,
        parts: &Parts,
        learner: &Learner,
        warm: Option<WarmStart<'_>>,
        stop: EarlyStop,
        watch: &mut Watch<'_>,
    ) -> Result<Learned> {
        let judge = judge(self.options, stop.objective, parts)?.cancelled_by(self.cancel);
        let mut metric = |view: &FactorView<'_>, _: usize| {
            ControlFlow::Continue(stop.objective.worth(judge.factors(view)))
        };
        let validation = Validation {
            metric: &mut metric,
            patience: stop.patience,
            min_rel_improvement: stop.min_rel_improvement,
        };
        let mut report = |now| watch.report(now);
        rows.learn(&parts.training, learner, warm, Some(validation), &mut report, self.cancel)
    }
}

/// The judge of the validation part, of a sample of its users where there are many.
///
/// # Errors
/// When no user has rows to learn from and rows to choose on.
pub fn judge<'a>(
    options: &TrainingOptions,
    objective: Objective,
    parts: &'a Parts,
) -> Result<Judge<'a>> {
    let users_max = (PAIRS_MAX / parts.training.columns().max(1)).max(USERS_MIN);
    let judge = Judge::new(objective, options.top_k, &parts.training, &parts.validation);
    if judge.users() == 0 {
        return Err(Error::Model {
            what: "no user has both rows to learn from and rows to choose on".into(),
            hint: Some("give users with more rows, or data_split_method = 'per_user'".into()),
        });
    }
    Ok(judge.sampled(users_max, options.seed))
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
    keys: Option<Vec<i64>>,
    segments: Vec<String>,
    of_user: Option<Vec<u32>>,
    merged: usize,
}

impl Rows {
    fn new(mut interactions: Interactions, options: &TrainingOptions) -> Result<Self> {
        let user_codes = interactions.users.sort().map_err(model_error)?;
        let item_codes = interactions.items.sort().map_err(model_error)?;
        interactions.cells.recode(&user_codes, &item_codes);
        decay(&mut interactions, &options.learner);
        let (users, items) = (interactions.users, interactions.items);
        let duplicates = duplicates(options.learner.is_explicit());
        let rows = interactions.split_keys.as_ref().map(|_| interactions.cells.clone());
        let (all, merged) = interactions.cells.build(users.len(), items.len(), duplicates);
        let keys = match (rows, interactions.split_keys) {
            (Some(rows), Some(keys)) => Some(cell_keys(&all, &rows, &keys)?),
            _ => None,
        };
        let all = match options.rating_col.is_none() && options.learner.is_of_sets() {
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
        Ok(Self { users, items, all, keys, segments, of_user, merged })
    }

    fn divide(&self, options: &TrainingOptions, previous: Option<&Mapped>) -> Result<Parts> {
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
        &self,
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
                let training = als::Training { warm_start, validation, ..plain };
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
                let segments = match &self.of_user {
                    None => None,
                    Some(of_user) => Some(Segments {
                        of_user: of_user.clone(),
                        weights: segment_weights(training, of_user, self.segments.len(), cancel)?,
                    }),
                };
                Ok(Learned::Popularity { weights: popular(training), segments })
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
                Ok(Learned::Hybrid(learned))
            }
            Learner::Features(_) => {
                Err(Error::Internal("features are no interactions of users and items".into()))
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
    /// What each model of a blend has learned.
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
