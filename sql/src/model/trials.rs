//! The search for hyper-parameters: trials learn from the training part and are judged on the
//! validation part; the test part stays unseen.
//!
//! Trials run one after another, each on all threads, so that the same seed gives the same search.
//! A factorization is judged after every iteration, on a sample of users where there are many: its
//! trial is worth what its best iteration is, measured on more of them, as settings differ by less
//! than samples do; and the iterations that the others have had decide whether it goes on
//! (successive halving).

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use catalog::Catalog;
use catalog::models::{StoredTrial, StoredTuning};
use serde_json::Value as Json;
use udfs::model::als::{FactorView, Validation};
use udfs::model::judge::Judge;
use udfs::model::search::{Rungs, Search, Trial};

use crate::error::{Error, Result};
use crate::model::fit::{PAIRS_OF_ITERATION, judge};
use crate::model::learners::Learner;
use crate::model::options::{TrainingOptions, model_error};
use crate::model::rows::{Learned, Rows};
use crate::model::splitting::{Parts, beside};
use crate::model::tuning::Tuning;
use crate::progress::Reporter;
use crate::session::Progress;

/// The first rung of successive halving, in iterations, and how much further the next one is.
const RUNGS: (usize, usize) = (3, 3);

/// The metric of a trial looks at so many pairs of a user and an item at most.
const PAIRS_OF_TRIAL: usize = 2_000_000_000;

/// Iterations without an improvement that end a trial.
const PATIENCE: usize = 3;

/// What trials are run on.
pub struct Ground<'a> {
    /// The options.
    pub options: &'a TrainingOptions,
    /// Ids and all interactions.
    pub rows: &'a Rows,
    /// The parts.
    pub parts: &'a Parts<'a>,
    /// Set when the statement has gone away.
    pub cancel: &'a AtomicBool,
    /// Who is told.
    pub progress: &'a Reporter,
    /// Tells the time.
    pub clock: &'a Catalog,
}

/// What a search has found.
pub struct Found {
    /// The learner of the best trial, with its number of iterations.
    pub learner: Learner,
    /// What is remembered.
    pub record: StoredTuning,
}

/// Who tells what is worth how much.
struct Judges<'a> {
    of_iteration: Judge<'a>,
    of_trial: Judge<'a>,
}

/// How a trial ended.
#[derive(Default)]
struct Outcome {
    metric: f64,
    loss: Option<f64>,
    iterations: Option<usize>,
    best_iteration: Option<usize>,
    stopped: bool,
}

/// Runs the trials and gives the best.
///
/// # Errors
/// When no trial succeeds, there is nothing to judge on, or the statement is cancelled.
pub fn search(tuning: &Tuning, ground: &Ground<'_>) -> Result<Found> {
    let options = ground.options;
    let judges = [PAIRS_OF_ITERATION, PAIRS_OF_TRIAL].map(|pairs_max| {
        let judge = judge(options, options.objective, ground.parts, pairs_max);
        judge.map(|judge| judge.cancelled_by(ground.cancel))
    });
    let [of_iteration, of_trial] = judges;
    let judges = Judges { of_iteration: of_iteration?, of_trial: of_trial? };
    let space = options.space(tuning, &ground.parts.training)?;
    let mut search = Search::new(space, tuning.algorithm, tuning.num_trials, options.seed)
        .map_err(model_error)?;
    let mut rungs = tuning.halving.then(|| Rungs::new(RUNGS.0, RUNGS.1));
    let mut trials: Vec<StoredTrial> = vec![];
    while let Some(trial) = search.next() {
        let best = search.best().map(|(_, worth)| options.objective.worth(worth));
        ground.progress.report(Progress {
            phase: "searching".into(),
            done: trial.id as u64,
            total: tuning.num_trials as u64,
            metric: best,
        });
        let start_ms = ground.clock.now_ms();
        let outcome = ground.run(&trial, &judges, rungs.as_mut());
        if ground.cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let duration_ms = (ground.clock.now_ms() - start_ms) as f64;
        let (outcome, error) = match outcome {
            Ok(outcome) => (outcome, None),
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => {
                (Outcome { metric: f64::NAN, ..Outcome::default() }, Some(error.to_string()))
            }
        };
        search.tell(trial.id, options.objective.worth(outcome.metric));
        let count = |count: Option<usize>| count.and_then(|count| u32::try_from(count).ok());
        trials.push(StoredTrial {
            trial: u32::try_from(trial.id).unwrap_or(u32::MAX).saturating_add(1),
            values: options.effective(&trial.values),
            metric: outcome.metric,
            loss: outcome.loss,
            iterations: count(outcome.iterations),
            best_iteration: count(outcome.best_iteration),
            duration_ms,
            stopped: outcome.stopped,
            error,
        });
    }
    let Some(best) = search.best().map(|(trial, _)| trial.clone()) else {
        let why = trials.iter().find_map(|trial| trial.error.clone());
        return Err(Error::Model {
            what: "no trial of the search gave a metric".into(),
            hint: Some(why.unwrap_or_else(|| "give more rows, or other ranges".into())),
        });
    };
    let mut learner = options.learner_with(&best.values)?;
    let mut chosen = options.effective(&best.values);
    let iterations = trials.get(best.id).and_then(|trial| trial.best_iteration);
    if let (Learner::Als(als), Some(iterations)) = (&mut learner, iterations) {
        als.max_iterations = iterations as usize;
        als.min_rel_progress = None;
        chosen.insert("max_iterations".into(), Json::from(iterations));
    }
    let record = StoredTuning {
        algorithm: tuning.algorithm_name().into(),
        objective: options.objective.name_at(options.top_k),
        chosen,
        trials,
    };
    Ok(Found { learner, record })
}

impl Ground<'_> {
    fn run(
        &self,
        trial: &Trial,
        judges: &Judges<'_>,
        rungs: Option<&mut Rungs>,
    ) -> Result<Outcome> {
        let learner = self.options.learner_with(&trial.values)?;
        let (learned, outcome) = match &learner {
            Learner::Als(_) => self.factorize(trial.id, &learner, &judges.of_iteration, rungs)?,
            // What the weights are chosen by is what the blend is worth.
            Learner::Hybrid(hybrid) => {
                let (rows, parts, options) = (self.rows, self.parts, self.options);
                let (_, worth) = hybrid.blended(rows, parts, options, &mut |_| {}, self.cancel)?;
                return Ok(Outcome { metric: worth, ..Outcome::default() });
            }
            _ => {
                let training = &self.parts.training;
                let learned =
                    self.rows.learn(training, &learner, None, None, &mut |_| {}, self.cancel)?;
                (learned, Outcome::default())
            }
        };
        let (users, items) = (self.rows.users.clone(), self.rows.items.clone());
        let seen = beside(&self.rows.all, &self.parts.test);
        let model = learned.into_model(users, items, seen, &learner, self.cancel)?;
        let Some(recommender) = model.recommender() else {
            return Err(Error::Internal("a trial learned no recommender".into()));
        };
        Ok(Outcome { metric: judges.of_trial.model(recommender, None), ..outcome })
    }

    fn factorize(
        &self,
        id: usize,
        learner: &Learner,
        judge: &Judge<'_>,
        mut rungs: Option<&mut Rungs>,
    ) -> Result<(Learned, Outcome)> {
        let objective = judge.objective();
        let mut stopped = false;
        let mut metric = |view: &FactorView<'_>, iteration: usize| {
            let worth = objective.worth(judge.factors(view));
            let goes_on = rungs.as_mut().is_none_or(|rungs| rungs.goes_on(id, iteration, worth));
            stopped = !goes_on;
            if goes_on { ControlFlow::Continue(worth) } else { ControlFlow::Break(worth) }
        };
        let patience = self.options.early_stop.map_or(PATIENCE, |stop| stop.patience);
        let min_rel_improvement =
            self.options.early_stop.map_or(0.0, |stop| stop.min_rel_improvement);
        let validation = Validation { metric: &mut metric, patience, min_rel_improvement };
        let training = &self.parts.training;
        let learned =
            self.rows.learn(training, learner, None, Some(validation), &mut |_| {}, self.cancel)?;
        let Learned::Factors(trained) = learned else {
            return Err(Error::Internal("a trial learned no factors".into()));
        };
        let at = trained.best_iteration.saturating_sub(1);
        let outcome = Outcome {
            metric: f64::NAN,
            loss: trained.factors.losses.get(at).copied(),
            iterations: Some(trained.metrics.len()),
            best_iteration: Some(trained.best_iteration),
            stopped,
        };
        Ok((Learned::Factors(trained), outcome))
    }
}
