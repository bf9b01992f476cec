//! Training: interactions become a model on the learners' threads.
//!
//! The memory of the whole training is reserved before it starts. The learner reports its progress
//! and stops soon after its statement went away. Codes follow the ids' order, not the rows', so
//! that the same rows give the same model.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use catalog::Catalog;
use catalog::models::{StoredIteration, StoredStart, StoredTuning};
use datafusion::execution::memory_pool::MemoryReservation;
use udfs::model::als::{FactorView, Validation, WarmStart};
use udfs::model::entity_resolution::pairs::Pairs;
use udfs::model::judge::{Judge, Objective};
use udfs::model::{Evaluation, Model, als};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::memory::mebibytes;
use crate::model::learners::Learner;
use crate::model::lifecycle::{Common, Compared, Mapped, Previous, compare, nothing_to_fold_into};
use crate::model::measure::{self, Metric};
use crate::model::options::{EarlyStop, TrainingOptions, model_error};
use crate::model::rows::{Learned, Rows};
use crate::model::side::Told;
use crate::model::splitting::{Parts, beside};
use crate::model::train::Interactions;
use crate::model::trials::{self, Ground};
use crate::progress::Reporter;
use crate::session::Progress;

/// A metric of an iteration looks at so many pairs of a user and an item at most.
pub(super) const PAIRS_OF_ITERATION: usize = 200_000_000;

/// A metric looks at so many users, whatever the number of items.
const USERS_MIN: usize = 1_000;

/// A warm start takes one in so many of the iterations.
const WARM_SHARE: usize = 8;

/// What training gives.
#[derive(Debug)]
pub struct Trained {
    /// The model.
    pub model: Model,
    /// The scored pairs of a model of entities.
    pub pairs: Option<Pairs>,
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
    /// The same for the manifest.
    pub start: StoredStart,
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
    for (told, rows) in interactions.features.iter().zip([users, items]) {
        if let Some((columns, cells)) = told.as_ref().map(Told::size) {
            let bytes = learner.feature_bytes(rows, columns, cells);
            needed_bytes = needed_bytes.saturating_add(bytes);
        }
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
        let rows = Rows::new(interactions, options, self.cancel)?;
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
        if let (Learner::Als(_), Some(why)) =
            (&options.learner, mapped.as_ref().and_then(|mapped| mapped.cold.as_deref()))
            && previous.is_some_and(|previous| previous.is_needed)
        {
            return Err(nothing_to_fold_into(why));
        }
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
            let (blended, _) = hybrid.blended(&rows, &parts, options, &mut report, self.cancel)?;
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
            _ => parts.training.as_ref(),
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
        let start = before.map_or(StoredStart::Anew, |mapped| mapped.start);
        let (interactions, merged) = (rows.all.cells(), rows.merged);
        let segments = rows.segments.clone();
        // The interactions are the model's from here on, but for a comparison.
        let Parts { training, test, fresh, .. } = parts;
        drop(training);
        let compared_on = mapped.as_ref().filter(|_| fresh.cells() > 0).map(|_| rows.all.clone());
        let Rows { users, items, all, .. } = rows;
        let model = learned.into_model(users, items, all, &learner, self.cancel)?;
        let evaluation = measure::evaluate(&model, &test, options.top_k, self.cancel)?;
        let evaluation = evaluation.as_ref();
        let metrics = evaluation.map(|found| measure::metrics(found, self.cancel)).transpose()?;
        let compared = mapped.as_ref().zip(compared_on.as_ref()).and_then(|(mapped, all)| {
            let asked = (options.objective, options.top_k);
            let on = Common { all, test: &test, fresh: &fresh, evaluation };
            compare(asked, &model, mapped, &on, self.cancel)
        });
        self.go_on()?;
        Ok(Trained {
            model,
            pairs: None,
            iterations: watch.iterations,
            validation_metric: stop.map(|stop| stop.objective.name_at(options.top_k)),
            best_iteration,
            total_iterations,
            tuning,
            segments,
            metrics: metrics.unwrap_or_default(),
            began: mapped.as_ref().map(Mapped::told),
            start,
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

    fn ground<'a>(&'a self, rows: &'a Rows, parts: &'a Parts<'a>) -> Ground<'a> {
        let (options, cancel) = (self.options, self.cancel);
        Ground { options, rows, parts, cancel, progress: self.progress, clock: self.clock }
    }

    /// Learns until the metric on the validation part gets no better.
    fn stopping(
        &self,
        rows: &Rows,
        parts: &Parts<'_>,
        learner: &Learner,
        warm: Option<WarmStart<'_>>,
        stop: EarlyStop,
        watch: &mut Watch<'_>,
    ) -> Result<Learned> {
        let judge = judge(self.options, stop.objective, parts, PAIRS_OF_ITERATION)?
            .cancelled_by(self.cancel);
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

/// The judge of the validation part, of a sample of its users where those and the items are more
/// than `pairs_max` pairs.
///
/// # Errors
/// When no user has rows to learn from and rows to choose on.
pub fn judge<'a>(
    options: &TrainingOptions,
    objective: Objective,
    parts: &'a Parts<'_>,
    pairs_max: usize,
) -> Result<Judge<'a>> {
    let users_max = (pairs_max / parts.training.columns().max(1)).max(USERS_MIN);
    let judge = Judge::new(objective, options.top_k, &parts.training, &parts.validation);
    if judge.users() == 0 {
        return Err(Error::Model {
            what: "no user has both rows to learn from and rows to choose on".into(),
            hint: Some("give users with more rows, or data_split_method = 'per_user'".into()),
        });
    }
    Ok(judge.sampled(users_max, options.seed))
}
