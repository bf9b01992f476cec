//! From one version of a model to the next: warm start, comparison, promotion.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use catalog::models::{ALTERABLE, LoadedModel, Standing, StoredStart};
use serde_json::Value as Json;
use sqlparser::ast::{Expr, Value as Literal, ValueWithSpan};
use udfs::model::Csr;
use udfs::model::als::{AlsOptions, WarmStart};
use udfs::model::judge::{Codes, Judge, Objective};
use udfs::model::split::divide;
use udfs::model::{Evaluation, IdIndex, Model, Recommender};

use crate::error::{Error, Result};
use crate::model::learners::Learner;
use crate::model::options::read_options;
use crate::model::reader::Reader;
use crate::model::splitting::beside;

/// By so much the metric of one and the same model differs from sample to sample of the usual
/// size: on 10,000 interactions of Gowalla a version that is worth as much on the test set was a
/// hundredth worse.
const USUAL_TOLERANCE: f64 = 0.02;

/// Factors that have gone on for so many times `max_iterations` begin anew: more iterations fit the
/// rows ever closer and rank ever worse, by 2 % from 4 to 15 on Gowalla.
const WARM_MOST: usize = 2;

/// When a new version of an existing model becomes the default one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promote {
    /// Whatever it is worth.
    Always,
    /// Unless its metric is below that of the version that is the default.
    IfBetter,
    /// Not by itself.
    Never,
}

/// Options of what becomes of versions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lifecycle {
    /// Whether RETRAIN goes on from the default version.
    pub warm_start: bool,
    /// When a new version becomes the default.
    pub promote: Promote,
    /// The share by which the metric may be worse.
    pub tolerance: f64,
    /// How many versions stay.
    pub keep_versions: Option<usize>,
    /// How long after a training the next one begins by itself, in milliseconds.
    pub schedule_ms: Option<i64>,
    /// How long after a training or fold-in the next fold-in begins by itself, likewise.
    pub fold_in_schedule_ms: Option<i64>,
}

impl Lifecycle {
    /// Reads a model's options.
    ///
    /// # Errors
    /// When a value is not taken.
    pub fn read(given: &BTreeMap<String, Json>) -> Result<Self> {
        let reader = Reader(given);
        let promote = match reader.choice("promote", &["always", "if_better", "never"])? {
            Some("always") => Promote::Always,
            Some("never") => Promote::Never,
            _ => Promote::IfBetter,
        };
        let tolerance = reader.number("promote_tolerance")?.unwrap_or(USUAL_TOLERANCE);
        if !(0.0..1.0).contains(&tolerance) {
            return Err(Error::invalid_hint(
                format!("promote_tolerance is {tolerance}"),
                "it lies between 0 and 1: 0.02 promotes a version whose metric is up to a fiftieth worse, 0 none",
            ));
        }
        let keep_versions = reader.count("keep_versions")?;
        if keep_versions == Some(0) {
            return Err(Error::invalid_hint(
                "keep_versions is 0",
                "keep 1 version at least; DROP MODEL removes all of them",
            ));
        }
        let warm_start = reader.truth("warm_start")?.unwrap_or(true);
        let schedule_ms = length_ms(
            &reader,
            "schedule",
            "it takes the time from one training to the next, such as '6 hours' or '1 day'",
        )?;
        let fold_in_schedule_ms = length_ms(
            &reader,
            "fold_in_schedule",
            "it takes the time from one fold-in to the next, such as '5 minutes' or '1 hour'",
        )?;
        Ok(Self { warm_start, promote, tolerance, keep_versions, schedule_ms, fold_in_schedule_ms })
    }
}

fn length_ms(reader: &Reader<'_>, option: &str, hint: &str) -> Result<Option<i64>> {
    let Some(written) = reader.text(option)? else { return Ok(None) };
    match crate::tokens::duration_ms(written) {
        Some(length) => Ok(Some(length)),
        None => Err(Error::invalid_hint(format!("{option} is '{written}'"), hint)),
    }
}

/// What ALTER MODEL … SET (…) says: each option with its value, or none for NULL.
///
/// # Errors
/// When an option is given twice, is no literal, or is one of the training itself.
pub fn altered(written: &[(String, Expr)]) -> Result<BTreeMap<String, Option<Json>>> {
    if written.is_empty() {
        return Err(Error::invalid_hint(
            "ALTER MODEL … SET () changes nothing",
            format!("it takes {}", ALTERABLE.join(", ")),
        ));
    }
    let (removed, given): (Vec<_>, Vec<_>) =
        written.iter().cloned().partition(|(_, value)| is_null(value));
    let given = read_options(&given)?;
    let mut changes: BTreeMap<String, Option<Json>> =
        given.into_iter().map(|(name, value)| (name, Some(value))).collect();
    for (name, _) in removed {
        if changes.insert(name.clone(), None).is_some() {
            return Err(Error::invalid_hint(
                format!("option {name} is given twice"),
                "give it once: NULL, or its value",
            ));
        }
    }
    match changes.keys().find(|name| !ALTERABLE.contains(&name.as_str())) {
        None => Ok(changes),
        Some(name) if crate::model::learners::is_option(name) => Err(Error::invalid_hint(
            format!("ALTER MODEL does not change option {name}, which is of the training"),
            "CREATE OR REPLACE MODEL gives a model other options",
        )),
        Some(name) => Err(Error::unknown("option", name, ALTERABLE)),
    }
}

fn is_null(value: &Expr) -> bool {
    matches!(value, Expr::Value(ValueWithSpan { value: Literal::Null, .. }))
}

/// The options that RETRAIN takes, for this training alone.
const RETRAIN_OPTIONS: [&str; 7] = [
    "fold_in",
    "warm_start",
    "tune",
    "max_iterations",
    "promote",
    "promote_tolerance",
    "keep_versions",
];

/// Options that say how a model is trained, which a fold-in does not.
const NOT_OF_FOLD_IN: [&str; 3] = ["warm_start", "tune", "max_iterations"];

/// The options of a RETRAIN.
#[derive(Debug, Clone, PartialEq)]
pub struct Retrain {
    /// Whether only what is new is folded in.
    pub fold_in: bool,
    /// Whether options are searched anew.
    pub tune: bool,
    /// Those that stand for the model's own.
    pub instead: BTreeMap<String, Json>,
}

impl Retrain {
    /// Reads the options of a statement.
    ///
    /// # Errors
    /// When an option is unknown or given twice.
    pub fn read(written: &[(String, Expr)]) -> Result<Self> {
        let mut instead = read_options(written)?;
        if let Some(name) = instead.keys().find(|name| !RETRAIN_OPTIONS.contains(&name.as_str())) {
            if crate::model::learners::is_option(name) {
                let instead = match ALTERABLE.contains(&name.as_str()) {
                    true => "ALTER MODEL … SET (…) changes it",
                    false => "CREATE OR REPLACE MODEL gives a model other options",
                };
                let what = format!("RETRAIN does not change option {name}");
                return Err(Error::invalid_hint(what, instead));
            }
            return Err(Error::unknown("option", name, RETRAIN_OPTIONS));
        }
        let tune = Reader(&instead).truth("tune")?.unwrap_or(false);
        let fold_in = Reader(&instead).truth("fold_in")?.unwrap_or(false);
        if let (true, Some(option)) =
            (fold_in, NOT_OF_FOLD_IN.iter().find(|option| instead.contains_key(**option)))
        {
            return Err(Error::invalid_hint(
                format!("fold_in = TRUE and {option} exclude each other"),
                "a fold-in goes on from the default version by a fixed number of steps",
            ));
        }
        instead.remove("tune");
        instead.remove("fold_in");
        Ok(Self { fold_in, tune, instead })
    }
}

/// The version that a retrained model goes on from and is compared with.
#[derive(Debug, Clone)]
pub struct Previous {
    /// The default version.
    pub version: LoadedModel,
    /// Whether somebody said how many iterations there are to be; else a warm start takes a share
    /// of them.
    pub are_iterations_given: bool,
    /// Whether there is nothing to train but from it.
    pub is_needed: bool,
    /// Who has left it, in words: then what it has learned is nothing to go on from.
    pub left: Option<String>,
    /// Whether it is gone on from only where all of whom it has learned are in the rows still.
    pub must_be_whole: bool,
}

impl Previous {
    /// What a version begins with that goes on from it, when so many of those of whom it has
    /// learned are in the rows no more.
    pub fn start(&self, gone: usize) -> StoredStart {
        let is_clean = self.version.manifest.start.is_clean();
        let holds_all = gone == 0 && self.left.is_none() && is_clean;
        StoredStart::GoesOn { version: self.version.version, holds_all }
    }
}

/// The previous version in the codes of the new one.
pub struct Mapped {
    /// The previous version.
    pub model: Arc<Model>,
    /// Its number.
    pub version: u32,
    /// New codes to its codes.
    pub codes: Codes,
    /// The iterations that its factors have had.
    pub iterations: usize,
    /// Why it is no warm start; `None` when it is one.
    pub cold: Option<String>,
    /// What a version begins with that goes on from it.
    pub start: StoredStart,
    /// Who has left it, where it is gone on from all the same.
    remains: Option<String>,
}

impl Mapped {
    /// Finds the users and items of the previous version by their ids; `None` when it is no
    /// recommender.
    pub fn new(
        previous: &Previous,
        users: &IdIndex,
        items: &IdIndex,
        learner: &Learner,
        unwanted: Option<&str>,
    ) -> Option<Self> {
        let version = &previous.version;
        let model = Arc::clone(&version.model);
        let iterations = version.manifest.total_iterations as usize;
        let recommender = model.recommender()?;
        // Ids of a type that does not compare with the last version's are new ones.
        let look_up = |known: &IdIndex, now: &IdIndex| {
            known.lookup(&now.values()).unwrap_or_else(|_| vec![None; now.len()])
        };
        let (of_users, of_items) = rayon::join(
            || look_up(recommender.user_ids(), users),
            || look_up(recommender.item_ids(), items),
        );
        let codes = Codes { users: of_users, items: of_items };
        let is_unknown = |codes: &[Option<u32>]| codes.iter().all(Option::is_none);
        let number = version.version;
        let gone = gone(recommender.user_ids().len(), &codes.users);
        let missing = (previous.must_be_whole && gone > 0)
            .then(|| format!("{gone} users of version {number} are in the rows no more"));
        let left = previous.left.clone().or(missing);
        let (left, remains) = if previous.is_needed { (None, left) } else { (left, None) };
        let cold = match (learner, model.als()) {
            _ if left.is_some() => left,
            _ if unwanted.is_some() => unwanted.map(str::to_owned),
            _ if is_unknown(&codes.users) || is_unknown(&codes.items) => {
                Some("the last version knows none of the users or items".into())
            }
            (Learner::Als(options), Some(als)) => {
                let most = options.max_iterations.saturating_mul(WARM_MOST);
                let is_old = !previous.are_iterations_given && iterations >= most;
                let old = format!("after {iterations} iterations factors begin anew");
                unlike(options, als.options()).or(is_old.then_some(old))
            }
            _ => Some(format!("'{}' has no warm start", learner.model_type())),
        };
        let start = previous.start(gone);
        Some(Self { model, version: number, codes, iterations, cold, start, remains })
    }

    /// The warm start, when it is one.
    pub fn warm_start(&self) -> Option<WarmStart<'_>> {
        if self.cold.is_some() {
            return None;
        }
        let factors = self.model.als()?.factors();
        Some(WarmStart { factors, users: &self.codes.users, items: &self.codes.items })
    }

    /// The previous version as a recommender.
    pub fn recommender(&self) -> Option<&dyn Recommender> {
        self.model.recommender()
    }

    /// How the new version began, for people.
    pub fn told(&self) -> String {
        let version = self.version;
        match &self.cold {
            Some(why) => format!("trained cold ({why})"),
            None => {
                let known = |codes: &[Option<u32>]| codes.iter().flatten().count();
                let (users, items) = (&self.codes.users, &self.codes.items);
                let mut told = format!(
                    "warm start from version {version}, which knows {} of {} users and {} of {} \
                     items",
                    known(users),
                    users.len(),
                    known(items),
                    items.len()
                );
                if let Some(why) = &self.remains {
                    told.push_str(&format!(", and what it learned of them stays: {why}"));
                }
                told
            }
        }
    }
}

/// How many of so many known codes no new one is.
fn gone(known: usize, codes: &[Option<u32>]) -> usize {
    let mut are_gone = vec![true; known];
    for code in codes.iter().flatten() {
        if let Some(is_gone) = are_gone.get_mut(*code as usize) {
            *is_gone = false;
        }
    }
    are_gone.into_iter().filter(|is_gone| *is_gone).count()
}

/// There is no version for a fold-in to go on from.
pub fn nothing_to_fold_into(why: &str) -> Error {
    Error::Model {
        what: format!("there is nothing to fold into: {why}"),
        hint: Some("RETRAIN MODEL without fold_in trains it".into()),
    }
}

/// Why factors of one set of options are no start for another.
fn unlike(now: &AlsOptions, then: &AlsOptions) -> Option<String> {
    if now.num_factors != then.num_factors {
        return Some(format!("the last version has {} factors", then.num_factors));
    }
    if now.feedback != then.feedback || now.has_biases() != then.has_biases() {
        return Some("the last version is of other feedback or biases".into());
    }
    None
}

/// How a new version and the default one do on the same interactions, of which neither has learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The metric, such as `ndcg@20`.
    pub metric: String,
    /// Of the new version.
    pub new: f64,
    /// Of the default version.
    pub live: f64,
    /// The default version.
    pub version: u32,
    /// How many interactions.
    pub interactions: usize,
    /// Whether less is better.
    is_error: bool,
}

/// What two versions are compared on.
pub struct Common<'a> {
    /// All interactions.
    pub all: &'a Csr,
    /// The test part of them.
    pub test: &'a Csr,
    /// What of the test part the previous version did not learn from.
    pub fresh: &'a Csr,
    /// The new version on the test part, in lists of the same length.
    pub evaluation: Option<&'a Evaluation>,
}

/// Compares two versions by a metric at `top_k` on fresh interactions, those of users whom both
/// know; nothing soon after the flag was set.
pub fn compare(
    (objective, top_k): (Objective, usize),
    model: &Model,
    previous: &Mapped,
    on: &Common<'_>,
    cancel: &AtomicBool,
) -> Option<Compared> {
    let live = previous.recommender()?;
    let (known, both) = known_to_both(objective, previous, on.all, on.fresh);
    if both.cells() == 0 {
        return None;
    }
    let judge = Judge::new(objective, top_k, &known, &both).cancelled_by(cancel);
    // On all of the test part and for all of its users, lists are those of the evaluation. With
    // less of it held out, something else would be popular.
    let made = on
        .evaluation
        .filter(|made| both.cells() == on.test.cells() && made.lists().count() == judge.users());
    let new = match made {
        Some(made) if !objective.is_error() => judge.lists(made.lists()),
        _ => judge.model(model.recommender()?, None),
    };
    let compared = Compared {
        metric: objective.name_at(top_k),
        new,
        live: judge.model(live, Some(&previous.codes)),
        version: previous.version,
        interactions: both.cells(),
        is_error: objective.is_error(),
    };
    (compared.new.is_finite() && compared.live.is_finite()).then_some(compared)
}

/// What is known beside `fresh`, and what of `fresh` is of users (for ratings: and of items) that
/// the previous version knows.
fn known_to_both(objective: Objective, previous: &Mapped, all: &Csr, fresh: &Csr) -> (Csr, Csr) {
    let codes = &previous.codes;
    let is_known =
        |codes: &[Option<u32>], code: usize| codes.get(code).copied().flatten().is_some();
    let mut counts = Vec::with_capacity(fresh.cells());
    for user in 0..fresh.rows() {
        let knows_user = is_known(&codes.users, user);
        let knows = |item: u32| !objective.is_error() || is_known(&codes.items, item as usize);
        counts.extend(fresh.row(user).0.iter().map(|&item| knows_user && knows(item)));
    }
    let both = divide(fresh, &counts).1;
    (beside(all, &both), both)
}

impl Compared {
    /// Whether the new version is at least as good, but for the tolerance.
    pub fn holds(&self, tolerance: f64) -> bool {
        match self.is_error {
            true => self.new <= self.live * (1.0 + tolerance),
            false => self.new >= self.live * (1.0 - tolerance),
        }
    }
}

/// What becomes of a new version that was trained, and how that is told. With `unlearns` somebody
/// has left the default version: no metric keeps it the default.
pub fn standing(
    lifecycle: &Lifecycle,
    (compared, unlearns): (Option<&Compared>, bool),
    live: Option<u32>,
    name: &str,
    version: u32,
) -> (Standing, Option<String>) {
    let keep_versions = lifecycle.keep_versions;
    let Some(live) = live else {
        return (Standing { promote: true, keep_versions, is_fold_in: false }, None);
    };
    let promote = match (lifecycle.promote, compared) {
        (Promote::Always, _) | (Promote::IfBetter, None) => true,
        (Promote::Never, _) => false,
        (Promote::IfBetter, Some(compared)) => unlearns || compared.holds(lifecycle.tolerance),
    };
    let figures = compared.map(|found| {
        format!(
            "{} is {:.4} beside {:.4} of version {} on the same {} interactions",
            found.metric, found.new, found.live, found.version, found.interactions
        )
    });
    let figures = figures.unwrap_or_else(|| "no rows were kept aside to compare on".to_owned());
    let asked = if lifecycle.promote == Promote::Never { " as asked" } else { "" };
    let told = match (promote, unlearns) {
        (true, false) => figures,
        (true, true) => format!(
            "{figures}; whatever the metric is, this version is the default, as persons have left \
             version {live}"
        ),
        (false, _) => {
            let though = if unlearns { ", though persons have left it" } else { "" };
            format!(
                "{figures}; version {live} stays the default{asked}{though}, ALTER MODEL {name} \
                 SET DEFAULT_VERSION = {version} promotes this one"
            )
        }
    };
    (Standing { promote, keep_versions, is_fold_in: false }, Some(told))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifecycle(promote: Promote, tolerance: f64) -> Lifecycle {
        Lifecycle {
            warm_start: true,
            promote,
            tolerance,
            keep_versions: Some(3),
            schedule_ms: None,
            fold_in_schedule_ms: None,
        }
    }

    fn compared(metric: &str, new: f64, live: f64) -> Compared {
        let is_error = metric == "rmse";
        Compared { metric: metric.into(), new, live, version: 4, interactions: 9, is_error }
    }

    #[test]
    fn a_version_is_promoted_unless_its_metric_is_worse() {
        for (promote, tolerance, found, expected) in [
            (Promote::IfBetter, 0.0, Some(("ndcg@20", 0.5, 0.5)), true),
            (Promote::IfBetter, 0.0, Some(("ndcg@20", 0.49, 0.5)), false),
            (Promote::IfBetter, 0.05, Some(("ndcg@20", 0.49, 0.5)), true),
            (Promote::IfBetter, 0.0, Some(("rmse", 0.49, 0.5)), true),
            (Promote::IfBetter, 0.0, Some(("rmse", 0.51, 0.5)), false),
            (Promote::IfBetter, 0.0, None, true),
            (Promote::Always, 0.0, Some(("ndcg@20", 0.1, 0.5)), true),
            (Promote::Never, 0.0, Some(("ndcg@20", 0.9, 0.5)), false),
        ] {
            let lifecycle = lifecycle(promote, tolerance);
            let found = found.map(|(metric, new, live)| compared(metric, new, live));
            let compared = (found.as_ref(), false);
            let (standing, told) = standing(&lifecycle, compared, Some(4), "main.m", 5);
            let keep_versions = Some(3);
            let expected_standing =
                Standing { promote: expected, keep_versions, is_fold_in: false };
            assert_eq!(standing, expected_standing);
            let told = told.unwrap();
            assert_eq!(told.contains("SET DEFAULT_VERSION = 5"), !expected, "{told}");
            assert_eq!(told.contains("of version 4 on the same 9"), found.is_some(), "{told}");
        }
        let never = lifecycle(Promote::Never, 0.0);
        let (first, told) = standing(&never, (None, false), None, "main.m", 1);
        assert!(first.promote && told.is_none());
    }

    #[test]
    fn whoever_has_no_new_code_is_gone() {
        assert_eq!(gone(4, &[Some(1), None, Some(3), Some(1)]), 2);
        assert_eq!((gone(0, &[None]), gone(2, &[])), (0, 2));
    }

    #[test]
    fn no_metric_keeps_a_version_that_persons_have_left() {
        let worse = compared("ndcg@20", 0.1, 0.5);
        for (promote, expected) in
            [(Promote::IfBetter, true), (Promote::Always, true), (Promote::Never, false)]
        {
            let lifecycle = lifecycle(promote, 0.0);
            let (standing, told) = standing(&lifecycle, (Some(&worse), true), Some(4), "main.m", 5);
            assert_eq!(standing.promote, expected);
            assert!(told.unwrap().contains("persons have left"));
        }
    }

    #[test]
    fn other_factors_are_no_warm_start() {
        let options = AlsOptions::default();
        let larger = AlsOptions { num_factors: 65, ..AlsOptions::default() };
        let plain = AlsOptions { biases: false, ..AlsOptions::default() };
        assert_eq!(unlike(&options, &options), None);
        assert!(unlike(&options, &larger).is_some_and(|why| why.contains("65 factors")));
        assert!(unlike(&options, &plain).is_some());
    }
}
