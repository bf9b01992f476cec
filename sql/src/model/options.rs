//! Options of CREATE MODEL: BigQuery's names where they exist, ours beside them.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use sqlparser::ast::{Array, Expr, UnaryOperator, Value as Literal, ValueWithSpan};
use udfs::model::Csr;
use udfs::model::item_knn::ItemKnnOptions;
use udfs::model::judge::Objective;
use udfs::model::search::{Space, Value};

use crate::error::{Error, Result};
use crate::model::hybrid::HybridOptions;
use crate::model::idle;
use crate::model::learners::{Learner, check_names};
use crate::model::lifecycle::Lifecycle;
use crate::model::reader::Reader;
use crate::model::splitting::SplitOptions;
use crate::model::tuning::{
    Tuning, USUAL_NEIGHBORS_MAX, all_values, objective, read_hparam, usual_objective, with_values,
};

/// Iterations at most when the best of them is chosen, unless `max_iterations` says otherwise.
const ITERATIONS_TO_CHOOSE_FROM: usize = 16;

/// Iterations of a fold-in: one that brings what is new near its place, one from there.
const FOLD_IN_ITERATIONS: usize = 2;

/// Iterations without an improvement that end a training, unless `early_stop_patience` says.
const USUAL_PATIENCE: usize = 3;

/// A metric on the validation part that chooses the iteration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EarlyStop {
    /// The metric.
    pub objective: Objective,
    /// Training ends after so many iterations without an improvement.
    pub patience: usize,
    /// What counts as one, as a share.
    pub min_rel_improvement: f64,
}

/// The options of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingOptions {
    /// The learner with its options.
    pub learner: Learner,
    /// Of the split, and of what the learner draws.
    pub seed: u64,
    /// The user column, when named.
    pub user_col: Option<String>,
    /// The item column, when named.
    pub item_col: Option<String>,
    /// The rating column, when named.
    pub rating_col: Option<String>,
    /// The table that tells more of the items, when named.
    pub item_table: Option<String>,
    /// Its columns that factors are drawn to.
    pub item_features: Vec<String>,
    /// The table that tells more of the users, when named.
    pub user_table: Option<String>,
    /// Its columns likewise.
    pub user_features: Vec<String>,
    /// Which rows are kept aside.
    pub split: SplitOptions,
    /// The search for the learner's options, when there is one.
    pub tuning: Option<Tuning>,
    /// The metric that chooses the iteration, when there is one.
    pub early_stop: Option<EarlyStop>,
    /// The metric that options are searched by, and that versions are compared by.
    pub objective: Objective,
    /// What becomes of versions.
    pub lifecycle: Lifecycle,
    /// The length of the lists that evaluation looks at.
    pub top_k: usize,
    /// The options as given, for the definition.
    pub given: BTreeMap<String, Json>,
    /// Those of them that the learner has whatever is searched.
    fixed: BTreeMap<String, Json>,
}

impl TrainingOptions {
    /// Reads the options of a statement.
    ///
    /// # Errors
    /// When an option is unknown, given twice, or has a value it does not take.
    pub fn read(options: &[(String, Expr)]) -> Result<Self> {
        let read = Self::from_given(read_options(options)?)?;
        let of = &read.lifecycle;
        if let (Some(training), Some(fold_in)) = (of.schedule_ms, of.fold_in_schedule_ms)
            && fold_in >= training
        {
            return Err(Error::invalid_hint(
                "fold_in_schedule is no shorter than schedule, so nothing would be folded in",
                "give it a part of the time between trainings, or leave it out",
            ));
        }
        // A stored definition may hold such options from before they were refused.
        let samples = read.tuning.as_ref().map_or_else(|| vec![vec![]], Tuning::samples);
        let settings: Vec<_> = samples.iter().map(|of| all_values(&read.fixed, of)).collect();
        idle::refuse(&settings)?;
        Ok(read)
    }

    /// Whether an interaction counts once, however often it is told.
    pub fn counts_once(&self) -> bool {
        self.rating_col.is_none() && self.learner.is_of_sets()
    }

    /// Reads the options of a stored definition.
    ///
    /// # Errors
    /// When a value is not taken any more.
    pub fn from_given(given: BTreeMap<String, Json>) -> Result<Self> {
        let reader = Reader(&given);
        check_names(&given)?;
        let (fixed, tuning) = Tuning::separate(&given)?;
        let mut learner = None;
        for sample in tuning.as_ref().map_or_else(|| vec![vec![]], Tuning::samples) {
            let read = Learner::read(&with_values(&fixed, &sample))?;
            learner.get_or_insert(read);
        }
        let Some(learner) = learner else {
            return Err(Error::Internal("a search has no setting".into()));
        };
        let early_stop = early_stop(&reader, &learner)?;
        let searched = objective(&reader, "hparam_tuning_objectives", &learner)?;
        let objective = searched
            .or(early_stop.map(|stop| stop.objective))
            .unwrap_or_else(|| usual_objective(&learner));
        let split = match learner.features() {
            Some(features) => features.split(&given)?,
            None if matches!(learner, Learner::Entities(_)) => SplitOptions::nothing(),
            None => {
                let chooses = tuning.is_some() || early_stop.is_some() || learner.chooses();
                SplitOptions::read(&given, chooses)?
            }
        };
        let top_k = reader.count("top_k")?.unwrap_or(20);
        if !(1..=1_000).contains(&top_k) {
            return Err(Error::invalid_hint(
                format!("top_k is {top_k}"),
                "it takes 1 to 1000, the length of the lists that are measured; 20 is usual",
            ));
        }
        let lifecycle = Lifecycle::read(&given)?;
        // For what the rows are read; planning looks whether it is held.
        reader.text("purpose")?;
        reader.text("channel")?;
        let options = Self {
            learner,
            seed: reader.integer("seed")?.unwrap_or(0).cast_unsigned(),
            user_col: reader.text("user_col")?.map(str::to_owned),
            item_col: reader.text("item_col")?.map(str::to_owned),
            rating_col: reader.text("rating_col")?.map(str::to_owned),
            item_table: reader.text("item_table")?.map(str::to_owned),
            item_features: reader.columns("item_features")?,
            user_table: reader.text("user_table")?.map(str::to_owned),
            user_features: reader.columns("user_features")?,
            split,
            tuning,
            early_stop,
            objective,
            lifecycle,
            top_k,
            given,
            fixed,
        };
        Ok(Self { learner: options.usual_iterations(options.learner.clone()), ..options })
    }

    /// The learner of a trial.
    ///
    /// # Errors
    /// When a value is not taken beside the others.
    pub fn learner_with(&self, values: &[(String, Value)]) -> Result<Learner> {
        let given = with_values(&self.fixed, values);
        let is_given = given.contains_key("max_iterations");
        let learner = Learner::read(&given)?;
        Ok(if is_given { learner } else { self.usual_iterations(learner) })
    }

    /// The learner that takes the most memory of all that a search may try.
    ///
    /// # Errors
    /// None in practice: the samples of a search were read before.
    pub fn largest_learner(&self) -> Result<Learner> {
        let Some(tuning) = &self.tuning else { return Ok(self.learner.clone()) };
        let most = |learner: &Learner| match learner {
            Learner::ItemKnn(knn) => {
                let num_neighbors = knn.num_neighbors.max(USUAL_NEIGHBORS_MAX);
                Learner::ItemKnn(ItemKnnOptions { num_neighbors, ..*knn })
            }
            other => other.clone(),
        };
        match (tuning.samples().pop(), &self.learner) {
            (Some(sample), _) if !sample.is_empty() => self.learner_with(&sample),
            (_, Learner::Hybrid(hybrid)) => {
                let bases = hybrid.bases.iter().map(most).collect();
                Ok(Learner::Hybrid(HybridOptions { bases, ..hybrid.clone() }))
            }
            (_, learner) => Ok(most(learner)),
        }
    }

    /// What of a trial's values its learner takes.
    pub fn effective(&self, values: &[(String, Value)]) -> BTreeMap<String, Json> {
        let mut given = with_values(&self.fixed, values);
        given.retain(|name, _| values.iter().any(|(other, _)| other == name));
        given
    }

    /// Where the best iteration is chosen there are more to choose from.
    fn usual_iterations(&self, learner: Learner) -> Learner {
        let chooses = self.tuning.is_some() || self.early_stop.is_some();
        match learner {
            Learner::Als(mut als) if chooses && !self.given.contains_key("max_iterations") => {
                als.max_iterations = ITERATIONS_TO_CHOOSE_FROM;
                Learner::Als(als)
            }
            other => other,
        }
    }

    /// The search of the learner's options on these rows.
    ///
    /// # Errors
    /// When there is nothing to search.
    pub fn space(&self, tuning: &Tuning, training: &Csr) -> Result<Space> {
        tuning.space(&self.learner, &self.fixed, training)
    }

    /// Only goes on from the last version, as far as there is something to go on from.
    ///
    /// # Errors
    /// Of a type that has nothing to fold in.
    pub fn fold_in(&mut self) -> Result<()> {
        if self.learner.features().is_some() || matches!(self.learner, Learner::Entities(_)) {
            return Err(Error::unsupported(
                format!("a model of type '{}' has nothing to fold in", self.learner.model_type()),
                "RETRAIN MODEL without fold_in trains it",
            ));
        }
        self.lifecycle.warm_start = true;
        self.early_stop = None;
        if let Learner::Als(als) = &mut self.learner {
            als.max_iterations = FOLD_IN_ITERATIONS;
            als.min_rel_progress = None;
        }
        Ok(())
    }

    /// Takes the options that a search has chosen instead of searching.
    ///
    /// # Errors
    /// When a value is not taken any more.
    pub fn settle(&mut self, chosen: &BTreeMap<String, Json>) -> Result<()> {
        let mut given = self.fixed.clone();
        given.extend(chosen.iter().map(|(name, value)| (name.clone(), value.clone())));
        self.learner = Learner::read(&given)?;
        self.fixed = given;
        self.tuning = None;
        Ok(())
    }
}

/// The options of a statement by name.
///
/// # Errors
/// When an option is given twice or is no literal.
pub fn read_options(written: &[(String, Expr)]) -> Result<BTreeMap<String, Json>> {
    let mut given = BTreeMap::new();
    for (name, value) in written {
        if given.insert(name.clone(), literal(name, value)?).is_some() {
            let what = format!("option {name} is given twice");
            return Err(Error::invalid_hint(what, "leave one of them out"));
        }
    }
    Ok(given)
}

/// `early_stop_metric` with what goes with it; `early_stop` alone is about the loss and the
/// learner's own.
fn early_stop(reader: &Reader<'_>, learner: &Learner) -> Result<Option<EarlyStop>> {
    let patience = reader.count("early_stop_patience")?;
    let Some(objective) = objective(reader, "early_stop_metric", learner)? else {
        if patience.is_some() {
            return Err(Error::invalid_hint(
                "early_stop_patience needs early_stop_metric",
                "name the metric, such as early_stop_metric = 'ndcg'",
            ));
        }
        return Ok(None);
    };
    if reader.truth("early_stop")? == Some(false) {
        return Err(Error::invalid_hint(
            "early_stop = FALSE and early_stop_metric exclude each other",
            "leave one of them out",
        ));
    }
    if patience == Some(0) {
        return Err(Error::invalid_hint("early_stop_patience is 0", "it takes 1 or more"));
    }
    let min_rel_improvement = reader.number("min_rel_progress")?.unwrap_or(0.0);
    if !(0.0..1.0).contains(&min_rel_improvement) {
        return Err(Error::invalid_hint(
            format!("min_rel_progress is {min_rel_improvement}"),
            "it takes a share from 0 to below 1; with 0.01 an iteration is better when its metric \
             is so by a hundredth",
        ));
    }
    let patience = patience.unwrap_or(USUAL_PATIENCE);
    Ok(Some(EarlyStop { objective, patience, min_rel_improvement }))
}

/// The learner's error as a statement's.
pub fn model_error(error: udfs::model::ModelError) -> Error {
    if matches!(error, udfs::model::ModelError::Cancelled) {
        return Error::Cancelled;
    }
    if let udfs::model::ModelError::Spill(why) = &error
        && let Some(limit) = crate::error::spill_limit(why)
    {
        return limit;
    }
    let text = error.to_string();
    if matches!(error, udfs::model::ModelError::NoRoom { .. }) {
        return Error::Exhausted { what: text };
    }
    match text.split_once(". ") {
        Some((what, hint)) => Error::Model { what: what.into(), hint: Some(hint.into()) },
        None => Error::Model { what: text, hint: None },
    }
}

fn literal(name: &str, value: &Expr) -> Result<Json> {
    if let Some(searched) = read_hparam(value, &|value| literal(name, value)) {
        return searched;
    }
    if let Expr::Struct { values, .. } = value {
        return values.iter().map(|value| literal(name, value)).collect();
    }
    if let Expr::Array(Array { elem, .. }) = value {
        return elem.iter().map(|value| literal(name, value)).collect();
    }
    let wrong = || {
        Error::invalid_hint(
            format!("option {name} takes a literal, not {value}"),
            "write a text in quotes, a number, TRUE or FALSE, or leave the option out",
        )
    };
    match value {
        Expr::Value(ValueWithSpan { value, .. }) => match value {
            Literal::SingleQuotedString(text) => Ok(Json::from(text.as_str())),
            Literal::Boolean(truth) => Ok(Json::from(*truth)),
            Literal::Number(text, _) => number(name, text),
            _ => Err(wrong()),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(ValueWithSpan { value: Literal::Number(text, _), .. }) => {
                number(name, &format!("-{text}"))
            }
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

/// A number as SQL writes it, `.5` and `1.` too, which JSON does not have.
fn number(name: &str, text: &str) -> Result<Json> {
    if let Ok(whole) = text.parse::<i64>() {
        return Ok(Json::from(whole));
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Json::from(number)),
        _ => Err(Error::invalid_hint(
            format!("option {name} is {text}, beyond what a number can be"),
            "give a number between -1.7e308 and 1.7e308",
        )),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use udfs::model::als::Feedback;

    use super::*;
    use crate::model::splitting::Method;
    use crate::parse::{Statement, parse};

    /// The options of a CREATE MODEL.
    pub fn read(options: &str) -> Result<TrainingOptions> {
        let text = format!("CREATE MODEL m OPTIONS ({options}) AS SELECT 1");
        let Statement::CreateModel(create) = parse(&text, 10_000)? else { panic!("no model") };
        TrainingOptions::read(&create.options)
    }

    #[test]
    fn options_are_read_and_kept() {
        let options = read(
            "model_type = 'matrix_factorization', feedback_type = 'IMPLICIT', num_factors = 32, \
             l2_reg = 1e-2, seed = -7, solver = 'cg', data_split_method = 'no_split'",
        )
        .unwrap();
        let Learner::Als(als) = &options.learner else { panic!("{options:?}") };
        assert_eq!((als.num_factors, als.feedback), (32, Feedback::Implicit));
        assert_eq!((als.seed, options.seed), (7_u64.wrapping_neg(), 7_u64.wrapping_neg()));
        assert_eq!(options.split.method, Method::Nothing);
        assert_eq!(TrainingOptions::from_given(options.given.clone()).unwrap(), options);
    }

    #[test]
    fn a_search_is_read_and_kept() {
        let options = read(
            "model_type = 'matrix_factorization', feedback_type = 'implicit', num_trials = 7, \
             num_factors = HPARAM_CANDIDATES([16, 8]), l2_reg = HPARAM_RANGE(0.01, 1), \
             hparam_tuning_algorithm = 'VIZIER_DEFAULT', \
             hparam_tuning_objectives = ['MEAN_AVERAGE_PRECISION']",
        )
        .unwrap();
        let tuning = options.tuning.as_ref().unwrap();
        assert_eq!((tuning.num_trials, tuning.algorithm_name()), (7, "bayesian"));
        assert_eq!(options.objective, Objective::Map);
        let Learner::Als(als) = &options.learner else { panic!("{options:?}") };
        assert_eq!((als.num_factors, als.max_iterations), (16, 16));
        let values = [("num_factors".to_owned(), Value::Int(8))];
        let Learner::Als(als) = options.learner_with(&values).unwrap() else { panic!() };
        assert_eq!((als.num_factors, als.max_iterations), (8, 16));
        let mut settled = TrainingOptions::from_given(options.given.clone()).unwrap();
        assert_eq!(settled, options);
        let chosen = [("num_factors", 8), ("max_iterations", 5)];
        let chosen = chosen.map(|(name, value)| (name.to_owned(), Json::from(value)));
        settled.settle(&chosen.into()).unwrap();
        let Learner::Als(als) = &settled.learner else { panic!() };
        assert_eq!((als.num_factors, als.max_iterations, settled.tuning), (8, 5, None));
    }

    #[test]
    fn numbers_are_written_as_sql_has_them() {
        for (written, expected) in [(".5", 0.5), ("2.", 2.0), ("5e-1", 0.5), ("3", 3.0)] {
            let options = read(&format!("model_type = 'ease', l2_reg = {written}")).unwrap();
            let Learner::Ease(ease) = options.learner else { panic!("{written}") };
            assert_eq!(ease.l2_reg, expected);
        }
    }

    #[test]
    fn wrong_options_say_what_is_taken() {
        for (options, part) in [
            ("num_factors = 8", "model_type"),
            ("model_type = 'matrix_factorisation'", "did you mean"),
            ("model_type = 'matrix_factorization', num_factor = 8", "did you mean num_factors"),
            ("model_type = 'matrix_factorization', num_factors = 0", "num_factors"),
            ("model_type = 'matrix_factorization', l2_reg = -1", "l2_reg"),
            ("model_type = 'matrix_factorization', num_factors = 'x'", "whole number"),
            ("model_type = 'matrix_factorization', seed = 1, seed = 2", "twice"),
            ("model_type = 'hybrid', base_models = ['ease']", "leaves nothing to blend"),
            ("model_type = 'hybrid', base_models = ['ease', 'EASE']", "names ease twice"),
            ("model_type = 'hybrid', base_models = ['ease', 'item_kn']", "did you mean item_knn"),
            ("model_type = 'hybrid', base_models = 'ease'", "base_models is \"ease\""),
            ("model_type = 'hybrid', base_models = [1, 2]", "names 1, which is no text"),
            (
                "model_type = 'hybrid', base_models = ['ease', 'popularity'], num_factors = 8",
                "num_factors is of matrix_factorization, which base_models leaves out",
            ),
            (
                "model_type = 'hybrid', schedule = '1 hour', fold_in_schedule = '1 day'",
                "no shorter than schedule",
            ),
            ("model_type = 'hybrid', ease_l2_reg = 100", "is of ease, which base_models leaves"),
            (
                "model_type = 'hybrid', base_models = ['ease'], signals = ['margin'], item_table = \
                 'p', num_factors = HPARAM_RANGE(8, 16)",
                "num_factors is of matrix_factorization, which base_models leaves out",
            ),
            (
                "model_type = 'hybrid', item_table = 'p', signals = 'margin'",
                "names of columns, each once",
            ),
            ("model_type = 'hybrid', data_split_method = 'no_split'", "no rows to choose on"),
            ("model_type = 'ease', item_features = ['brand']", "belongs to matrix_factorization"),
            (
                "model_type = 'matrix_factorization', item_table = 'p', item_features = 'brand'",
                "names of columns, each once",
            ),
            (
                "model_type = 'hybrid', item_table = 'p', item_features = ['a', 'a']",
                "names of columns, each once",
            ),
            (
                "model_type = 'matrix_factorization', user_table = 'p', user_features = []",
                "names of columns, each once",
            ),
            (
                "model_type = 'matrix_factorization', item_table = 'p', item_features = ['a'], \
                 feature_reg = -1",
                "feature_reg",
            ),
            ("model_type = 'hybrid', bm25_b = 0.5", "needs similarity = 'bm25'"),
            ("model_type = 'hybrid', segment_col = 'c'", "belongs to popularity, not to hybrid"),
            (
                "model_type = 'hybrid', base_models = ['ease', 'item_knn'], half_life = '1 day'",
                "half_life is of popularity, which base_models leaves out",
            ),
            ("model_type = 'item_knn', num_factors = 8", "belongs to matrix_factorization"),
            ("model_type = 'ease', l2_reg = 0", "above 0"),
            (
                "model_type = 'ease', half_life = '1 day'",
                "belongs to popularity, hybrid, not to ease",
            ),
            ("model_type = 'matrix_factorization', num_trials = 0", "between 1 and 1000"),
            ("model_type = 'ease', top_k = 0", "top_k is 0 it takes 1 to 1000"),
            ("model_type = 'ease', top_k = -3", "whole number from 1"),
            ("model_type = 'ease', l2_reg = 1e999", "beyond what a number can be"),
            ("model_type = 'ease', l2_reg = NULL", "leave the option out"),
            (
                "model_type = 'matrix_factorization', wals_alpha = 1e30, feedback_type = \
                 'implicit'",
                "wals_alpha = 1000000000000000000000000000000 is not valid Give a number from 0 to \
                 1e12",
            ),
            (
                "model_type = 'matrix_factorization', early_stop_metric = 'rmse', \
                 min_rel_progress = -0.1",
                "min_rel_progress is -0.1 it takes a share",
            ),
            (
                "model_type = 'matrix_factorization', hparam_tuning_objectives = [], num_trials = 2",
                "names no metric write hparam_tuning_objectives = ['rmse']",
            ),
            (
                "model_type = 'matrix_factorization', hparam_tuning_objectives = [1], num_trials = 2",
                "names no metric",
            ),
            ("model_type = 'popularity', num_trials = 8", "nothing to search"),
            ("model_type = 'ease', l2_reg = 9, successive_halving = TRUE", "needs a search"),
            ("model_type = 'ease', l2_reg = HPARAM_RANGE(1)", "not complete"),
            (
                "model_type = 'ease', l2_reg = HPARAM_RANGE(9, 1)",
                "l2_reg = HPARAM_RANGE(9, 1) is not valid Give the lower end first",
            ),
            ("model_type = 'ease', l2_reg = HPARAM_RANGE(0, 1)", "above 0"),
            (
                "model_type = 'ease', l2_reg = HPARAM_CANDIDATES([])",
                "l2_reg = HPARAM_CANDIDATES([]) is not valid Give 1 to 1000 candidates",
            ),
            ("model_type = 'ease', l2_reg = HPARAM_CANDIDATES([2, 2])", "each candidate once"),
            ("model_type = 'ease', l2_reg = HPARAM_CANDIDATES(['x'])", "of the type"),
            ("model_type = 'ease', top_k = HPARAM_RANGE(1, 2)", "cannot be searched"),
            (
                "model_type = 'matrix_factorization', num_factors = HPARAM_RANGE(8, 5000)",
                "num_factors = 5000 is not valid Give 1 to 1024 factors",
            ),
            (
                "model_type = 'matrix_factorization', num_factors = HPARAM_RANGE(8, 9.5)",
                "whole numbers",
            ),
            (
                "model_type = 'ease', l2_reg = HPARAM_RANGE(1, 2), hparam_tuning_objectives = \
                 ['rmse']",
                "measures ratings",
            ),
            ("model_type = 'matrix_factorization', early_stop_metric = 'ndcg'", "use one of rmse"),
            ("model_type = 'matrix_factorization', early_stop_patience = 2", "early_stop_metric"),
            (
                "model_type = 'matrix_factorization', early_stop_metric = 'rmse', early_stop = \
                 FALSE",
                "exclude each other",
            ),
            ("model_type = 'matrix_factorization', keep_versions = 0", "keep_versions is 0"),
            ("model_type = 'matrix_factorization', promote = 'maybe'", "promote"),
            ("model_type = 'item_knn', warm_start = TRUE", "belongs to matrix_factorization"),
            ("model_type = 'item_knn', similarity = 'cosin'", "did you mean cosine"),
            ("model_type = 'item_knn', bm25_b = 0.5", "needs similarity = 'bm25'"),
            ("model_type = 'item_knn', num_neighbors = 0", "num_neighbors"),
            ("model_type = 'popularity', half_life = 30", "text in quotes"),
            ("model_type = 'popularity', half_life = '30'", "'30 days'"),
            ("model_type = 'matrix_factorization', num_factors = 1 + 1", "literal"),
        ] {
            let error = read(options).unwrap_err();
            let shown = format!("{error} {}", error.hint().unwrap_or_default());
            assert!(shown.contains(part), "{options}: {shown}");
        }
    }
}
