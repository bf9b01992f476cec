//! The options of a search for hyper-parameters: how many trials, by what, over which values.
//!
//! `option = HPARAM_RANGE(a, b)` searches between two numbers, `HPARAM_CANDIDATES([a, b, …])` among
//! values. With `num_trials` alone the options that matter are searched around their defaults for
//! the data. In a stored definition they are JSON objects, `{"hparam_range": [a, b]}`.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use sqlparser::ast::{Array, Expr, FunctionArg, FunctionArgExpr, FunctionArguments};
use udfs::model::Csr;
use udfs::model::als::{AlsOptions, Feedback};
use udfs::model::judge::Objective;
use udfs::model::search::{Algorithm, Dimension, Space, Value};

use crate::error::{Error, Result};
use crate::model::hybrid::EASE_L2_REG;
use crate::model::idle;
use crate::model::learners::{Learner, SIMILARITIES};
use crate::model::options::model_error;
use crate::model::reader::Reader;

/// Trials when none are asked for.
const USUAL_TRIALS: usize = 20;

/// Neighbours at most when a search of item neighbourhoods is not told how many.
pub const USUAL_NEIGHBORS_MAX: usize = 500;

const RANGE: &str = "hparam_range";
const CANDIDATES: &str = "hparam_candidates";

/// Options of a search, none of which a learner knows.
pub const SEARCH_OPTIONS: [&str; 4] =
    ["num_trials", "hparam_tuning_algorithm", "hparam_tuning_objectives", "successive_halving"];

/// What kind of values an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// Whole numbers, whose ratios matter.
    Whole,
    /// Numbers whose ratios matter.
    Ratio,
    /// Numbers whose differences matter.
    Linear,
    /// Words.
    Word,
}

/// What a factorization can search.
const FACTORIZATION: &[(&str, Scale)] = &[
    ("num_factors", Scale::Whole),
    ("max_iterations", Scale::Whole),
    ("cg_steps", Scale::Whole),
    ("l2_reg", Scale::Ratio),
    ("wals_alpha", Scale::Ratio),
    ("frequency_exponent", Scale::Linear),
    ("regularization_scaling", Scale::Word),
    ("solver", Scale::Word),
];
/// What item_knn can search.
const ITEM_KNN: &[(&str, Scale)] = &[
    ("similarity", Scale::Word),
    ("num_neighbors", Scale::Whole),
    ("shrinkage", Scale::Linear),
    ("bm25_k1", Scale::Linear),
    ("bm25_b", Scale::Linear),
    ("rp3_alpha", Scale::Linear),
    ("rp3_beta", Scale::Linear),
];

/// What each type can search; nothing for one that is not here.
fn searched(model_type: &str) -> Vec<(&'static str, Scale)> {
    match model_type {
        "matrix_factorization" => FACTORIZATION.to_vec(),
        "item_knn" => ITEM_KNN.to_vec(),
        "ease" => vec![("l2_reg", Scale::Ratio)],
        "hybrid" => [FACTORIZATION, ITEM_KNN, &[(EASE_L2_REG, Scale::Ratio)]].concat(),
        _ => vec![],
    }
}

/// A search as it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuning {
    /// Trials at most.
    pub num_trials: usize,
    /// How they are chosen.
    pub algorithm: Algorithm,
    /// Whether trials that are behind are ended early.
    pub halving: bool,
    /// Options with their dimensions; empty: the usual ones.
    dimensions: Vec<(String, Dimension)>,
}

/// Options that a trial has: fixed ones and its own.
pub type Given = BTreeMap<String, Json>;

impl Tuning {
    /// Takes the search out of the options: what stays has one value each.
    ///
    /// # Errors
    /// When an option that is not searched has a range, or a value is not taken.
    pub fn separate(given: &Given) -> Result<(Given, Option<Self>)> {
        let (mut fixed, mut asked) = (Given::new(), vec![]);
        let model_type = Reader(given).text("model_type")?.unwrap_or_default().to_lowercase();
        for (name, value) in given {
            if value.is_object() {
                asked.push((name.clone(), dimension(&model_type, name, value)?));
            } else if !SEARCH_OPTIONS.contains(&name.as_str()) {
                fixed.insert(name.clone(), value.clone());
            }
        }
        let reader = Reader(given);
        let trials = reader.count("num_trials")?;
        if asked.is_empty() && trials.is_none() {
            if let Some(name) = SEARCH_OPTIONS.iter().find(|name| given.contains_key(**name)) {
                return Err(Error::invalid_hint(
                    format!("option {name} needs a search"),
                    "give num_trials, or an option HPARAM_RANGE(a, b)",
                ));
            }
            return Ok((fixed, None));
        }
        if let Some(trials) = trials.filter(|trials| !(1..=1_000).contains(trials)) {
            return Err(Error::invalid_hint(
                format!("num_trials is {trials}"),
                "it lies between 1 and 1000; 10 to 30 are usual",
            ));
        }
        let algorithms = ["bayesian", "vizier_default", "random_search", "grid_search"];
        let tuning = Self {
            num_trials: trials.unwrap_or(USUAL_TRIALS),
            algorithm: match reader.choice("hparam_tuning_algorithm", &algorithms)? {
                Some("random_search") => Algorithm::Random,
                Some("grid_search") => Algorithm::Grid,
                _ => Algorithm::Bayesian,
            },
            halving: reader.truth("successive_halving")?.unwrap_or(true),
            dimensions: asked,
        };
        if tuning.dimensions.is_empty()
            && searched(&model_type).is_empty()
            && !model_type.is_empty()
        {
            return Err(nothing_to_search(&model_type));
        }
        Ok((fixed, Some(tuning)))
    }

    /// The algorithm's name as an option.
    pub fn algorithm_name(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Random => "random_search",
            Algorithm::Grid => "grid_search",
            Algorithm::Bayesian => "bayesian",
        }
    }

    /// Settings that stand for all others: at the ends of every range and at every candidate, one
    /// option after the other. The first is of the first values, the last of the largest.
    pub fn samples(&self) -> Vec<Vec<(String, Value)>> {
        let ends = |dimension: &Dimension| match dimension {
            Dimension::Float { low, high, .. } => vec![Value::Float(*low), Value::Float(*high)],
            Dimension::Int { low, high, .. } => vec![Value::Int(*low), Value::Int(*high)],
            Dimension::Candidates(values) => values.clone(),
        };
        let all: Vec<(String, Vec<Value>)> =
            self.dimensions.iter().map(|(name, found)| (name.clone(), ends(found))).collect();
        let pick = |of: &dyn Fn(&str, &[Value]) -> Option<Value>| -> Vec<(String, Value)> {
            all.iter().filter_map(|(name, ends)| Some((name.clone(), of(name, ends)?))).collect()
        };
        let mut samples = vec![pick(&|_, ends| ends.first().cloned())];
        for (name, ends) in &all {
            for value in ends {
                samples.push(pick(&|other, ends| {
                    if other == name { Some(value.clone()) } else { ends.first().cloned() }
                }));
            }
        }
        samples
            .push(pick(&|_, ends| ends.iter().max_by(|a, b| size(a).total_cmp(&size(b))).cloned()));
        samples
    }

    /// The space of a search on these rows.
    ///
    /// # Errors
    /// When every option that could be searched is given a value.
    pub fn space(&self, learner: &Learner, fixed: &Given, training: &Csr) -> Result<Space> {
        if !self.dimensions.is_empty() {
            return Space::new(self.dimensions.clone()).map_err(model_error);
        }
        let mut usual = usual(learner, training);
        usual.retain(|(name, _)| !fixed.contains_key(name));
        if usual.is_empty() {
            return Err(nothing_to_search(learner.model_type()));
        }
        Space::new(usual).map_err(model_error)
    }
}

fn nothing_to_search(model_type: &str) -> Error {
    let names: Vec<&str> = searched(model_type).iter().map(|(name, _)| *name).collect();
    let hint = match names.as_slice() {
        [] => "leave num_trials out, or search another model_type".into(),
        names => format!("give one of {} HPARAM_RANGE or HPARAM_CANDIDATES", names.join(", ")),
    };
    Error::invalid_hint(format!("num_trials leaves nothing to search for {model_type}"), hint)
}

fn size(value: &Value) -> f64 {
    match value {
        Value::Float(value) => *value,
        Value::Int(value) => *value as f64,
        Value::Text(_) => 0.0,
    }
}

/// What is searched when nothing is named: around the defaults for these rows.
fn usual(learner: &Learner, training: &Csr) -> Vec<(String, Dimension)> {
    let ratio = |low, high| Dimension::Float { low, high, log: true };
    let named = |name: &str, dimension| (name.to_owned(), dimension);
    match learner {
        Learner::Als(options) if options.feedback == Feedback::Implicit => {
            let open = AlsOptions { l2_reg: None, ..options.clone() };
            let resolved = open.resolve(training);
            let alpha = resolved.alpha.max(1e-3);
            vec![
                named("wals_alpha", ratio(alpha / 8.0, alpha * 8.0)),
                named("l2_reg", ratio(1e-3 * alpha, 0.1 * alpha)),
            ]
        }
        Learner::Als(_) => vec![named("l2_reg", ratio(0.01, 1.0))],
        Learner::ItemKnn(_) => {
            let high = USUAL_NEIGHBORS_MAX as i64;
            let similarities = SIMILARITIES.map(|name| Value::Text(name.into()));
            vec![
                named("similarity", Dimension::Candidates(similarities.to_vec())),
                named("num_neighbors", Dimension::Int { low: 10, high, log: true }),
                named("shrinkage", Dimension::Float { low: 0.0, high: 50.0, log: false }),
                named("rp3_beta", Dimension::Float { low: 0.0, high: 0.5, log: false }),
            ]
        }
        Learner::Ease(_) => vec![named("l2_reg", ratio(10.0, 5000.0))],
        Learner::Hybrid(hybrid) => {
            let own = |base: &Learner| {
                let mut own = usual(base, training);
                if matches!(base, Learner::Ease(_)) {
                    own.iter_mut().for_each(|(name, _)| *name = EASE_L2_REG.to_owned());
                }
                own
            };
            hybrid.bases.iter().flat_map(own).collect()
        }
        Learner::Popularity(_) | Learner::Features(_) | Learner::Entities(_) => vec![],
    }
}

/// The fixed options with a trial's.
pub fn all_values(fixed: &Given, values: &[(String, Value)]) -> Given {
    let mut all = fixed.clone();
    all.extend(values.iter().map(|(name, value)| (name.clone(), json(value))));
    all
}

/// Those of them that do something: a search over kinds of similarity gives each kind the options
/// that it has.
pub fn with_values(fixed: &Given, values: &[(String, Value)]) -> Given {
    let all = all_values(fixed, values);
    let does_something = |name: &str| idle::missing(name, &all).is_none();
    let kept = all.iter().filter(|(name, _)| does_something(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A value as an option holds it.
pub fn json(value: &Value) -> Json {
    match value {
        Value::Float(number) => Json::from(*number),
        Value::Int(number) => Json::from(*number),
        Value::Text(text) => Json::from(text.as_str()),
    }
}

/// The metric that chooses, from one of several options.
///
/// # Errors
/// When it is unknown, or does not fit the learner.
pub fn objective(
    reader: &Reader<'_>,
    option: &str,
    learner: &Learner,
) -> Result<Option<Objective>> {
    let named = match reader.0.get(option) {
        Some(Json::Array(names)) => match names.as_slice() {
            [Json::String(name)] => Some(name.to_lowercase()),
            [_, _, ..] => {
                return Err(Error::invalid_hint(
                    format!("{option} names several metrics"),
                    "one metric decides; ML.EVALUATE gives the others",
                ));
            }
            _ => {
                return Err(Error::invalid_hint(
                    format!("{option} names no metric"),
                    format!("write {option} = ['{}']", usual_objective(learner).name()),
                ));
            }
        },
        _ => reader.text(option)?.map(str::to_lowercase),
    };
    let Some(named) = named else { return Ok(None) };
    // BigQuery's names beside ours.
    let own = match named.as_str() {
        "normalized_discounted_cumulative_gain" => "ndcg",
        "mean_average_precision" => "map",
        "root_mean_squared_error" => "rmse",
        "mean_absolute_error" => "mae",
        other => other,
    };
    let known = Objective::ALL.map(Objective::name);
    let Some(found) = Objective::ALL.into_iter().find(|objective| objective.name() == own) else {
        return Err(Error::unknown(option, &format!("'{named}'"), known));
    };
    if found.is_error() != learner.is_explicit() {
        let fitting = Objective::ALL.into_iter().filter(|o| o.is_error() == learner.is_explicit());
        let fitting: Vec<&str> = fitting.map(Objective::name).collect();
        let what = if found.is_error() { "ratings" } else { "ranked lists" };
        return Err(Error::invalid_hint(
            format!("{option} '{named}' measures {what}, which this model does not predict"),
            format!("use one of {}", fitting.join(", ")),
        ));
    }
    Ok(Some(found))
}

/// The metric that decides when none is named.
pub fn usual_objective(learner: &Learner) -> Objective {
    if learner.is_explicit() { Objective::Rmse } else { Objective::Ndcg }
}

/// Reads `HPARAM_RANGE(…)` and `HPARAM_CANDIDATES(…)` as JSON; `None` for another expression.
pub fn read_hparam(value: &Expr, literal: &dyn Fn(&Expr) -> Result<Json>) -> Option<Result<Json>> {
    let Expr::Function(function) = value else { return None };
    let name = function.name.to_string().to_lowercase();
    if name != RANGE && name != CANDIDATES {
        return None;
    }
    let FunctionArguments::List(list) = &function.args else {
        return Some(Err(wrong(&name)));
    };
    let mut arguments = vec![];
    for argument in &list.args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument else {
            return Some(Err(wrong(&name)));
        };
        arguments.push(argument);
    }
    let values: Result<Vec<Json>> = match (name.as_str(), arguments.as_slice()) {
        (RANGE, [low, high]) => [low, high].into_iter().map(|value| literal(value)).collect(),
        (CANDIDATES, [Expr::Array(Array { elem, .. })]) => elem.iter().map(literal).collect(),
        _ => Err(wrong(&name)),
    };
    Some(values.map(|values| Json::Object([(name, Json::Array(values))].into_iter().collect())))
}

fn wrong(name: &str) -> Error {
    let hint = if name == RANGE {
        "write HPARAM_RANGE(0.001, 1)"
    } else {
        "write HPARAM_CANDIDATES([32, 64, 128])"
    };
    Error::invalid_hint(format!("{} is not complete", name.to_uppercase()), hint)
}

fn dimension(model_type: &str, name: &str, value: &Json) -> Result<Dimension> {
    let options = searched(model_type);
    let Some((_, scale)) = options.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
        return Err(Error::invalid_hint(
            format!("option {name} of '{model_type}' cannot be searched"),
            match known.as_slice() {
                [] => "this type has no option to search".to_owned(),
                known => format!("these can be: {}", known.join(", ")),
            },
        ));
    };
    let refused = |wanted: &str| Error::invalid_hint(as_written(name, value), wanted);
    let dimension = values_of(*scale, value).map_err(refused)?;
    match dimension.check() {
        Ok(()) => Ok(dimension),
        Err(wanted) => Err(refused(wanted)),
    }
}

/// A search as a statement has it: `l2_reg = HPARAM_RANGE(1, 10)`.
fn as_written(name: &str, value: &Json) -> String {
    let list = |values: &Json| {
        let values = values.as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |value: &Json| match value {
            Json::String(text) => format!("'{text}'"),
            other => other.to_string(),
        };
        values.iter().map(text).collect::<Vec<_>>().join(", ")
    };
    match (value.get(RANGE), value.get(CANDIDATES)) {
        (Some(ends), _) => format!("{name} = HPARAM_RANGE({}) is not valid", list(ends)),
        (None, Some(values)) => {
            format!("{name} = HPARAM_CANDIDATES([{}]) is not valid", list(values))
        }
        (None, None) => format!("{name} = {value} is not valid"),
    }
}

/// The values of a search, or what to give instead.
fn values_of(scale: Scale, value: &Json) -> Result<Dimension, &'static str> {
    if let Some(Json::Array(values)) = value.get(CANDIDATES) {
        let candidate = |value: &Json| match scale {
            Scale::Word => value.as_str().map(|text| Value::Text(text.to_lowercase())),
            Scale::Whole => value.as_i64().map(Value::Int),
            Scale::Ratio | Scale::Linear => value.as_f64().map(Value::Float),
        };
        return match values.iter().map(candidate).collect::<Option<Vec<Value>>>() {
            Some(values) => Ok(Dimension::Candidates(values)),
            None => Err(match scale {
                Scale::Word => "give candidates of the type that the option takes: words in quotes",
                Scale::Whole => "give candidates of the type that the option takes: whole numbers",
                _ => "give candidates of the type that the option takes: numbers",
            }),
        };
    }
    let ends = match value.get(RANGE) {
        Some(Json::Array(ends)) => ends.as_slice(),
        _ => &[],
    };
    let [low, high] = ends else { return Err("give HPARAM_RANGE(a, b)") };
    match scale {
        Scale::Word => Err("this option takes words: give HPARAM_CANDIDATES(['a', 'b'])"),
        Scale::Whole => match (low.as_i64(), high.as_i64()) {
            (Some(low), Some(high)) => Ok(Dimension::Int { low, high, log: low > 0 }),
            _ => Err("this option takes whole numbers"),
        },
        Scale::Ratio | Scale::Linear => match (low.as_f64(), high.as_f64()) {
            (Some(low), Some(high)) => {
                let log = scale == Scale::Ratio && low > 0.0;
                Ok(Dimension::Float { low, high, log })
            }
            _ => Err("this option takes numbers"),
        },
    }
}
