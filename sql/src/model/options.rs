//! Options of CREATE MODEL: BigQuery's names where they exist, ours beside them.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use sqlparser::ast::{Expr, UnaryOperator, Value, ValueWithSpan};
use udfs::model::als::{AlsOptions, Feedback, Scaling, Solver};

use crate::error::{Error, Result};

/// Every option's name, in the order of the documentation.
pub const OPTIONS: [&str; 22] = [
    "model_type",
    "feedback_type",
    "user_col",
    "item_col",
    "rating_col",
    "num_factors",
    "max_iterations",
    "l2_reg",
    "wals_alpha",
    "regularization_scaling",
    "frequency_exponent",
    "solver",
    "cg_steps",
    "block_size",
    "non_negative",
    "biases",
    "seed",
    "early_stop",
    "min_rel_progress",
    "data_split_method",
    "data_split_eval_fraction",
    "top_k",
];

/// Names of options that other models or later versions have, with what to do today.
const ELSEWHERE: [(&str, &str); 4] = [
    ("num_trials", "hyper-parameter search is not supported yet; name one value an option"),
    ("hparam_tuning_algorithm", "hyper-parameter search is not supported yet"),
    ("purpose", "purposes of models are not supported yet"),
    ("schedule", "scheduled retraining is not supported yet; use RETRAIN MODEL"),
];

/// How rows are kept aside for evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Split {
    /// All rows train.
    None,
    /// BigQuery's rule: none below 500 rows, a fifth up to 50,000 rows, then 10,000 rows.
    Auto,
    /// This share of the rows, drawn by the seed.
    Random(f64),
}

impl Split {
    /// The share of `rows` that is kept aside.
    pub fn fraction(self, rows: usize) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Random(fraction) => fraction,
            Self::Auto if rows < 500 => 0.0,
            Self::Auto if rows <= 50_000 => 0.2,
            Self::Auto => 10_000.0 / rows as f64,
        }
    }
}

/// The options of a matrix factorization.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingOptions {
    /// The learner's options.
    pub als: AlsOptions,
    /// The user column, when named.
    pub user_col: Option<String>,
    /// The item column, when named.
    pub item_col: Option<String>,
    /// The rating column, when named.
    pub rating_col: Option<String>,
    /// How rows are kept aside for evaluation.
    pub split: Split,
    /// The length of the lists that evaluation looks at.
    pub top_k: usize,
    /// The options as given, for the definition.
    pub given: BTreeMap<String, Json>,
}

impl TrainingOptions {
    /// Reads the options of a statement.
    ///
    /// # Errors
    /// When an option is unknown, given twice, or has a value it does not take.
    pub fn read(options: &[(String, Expr)]) -> Result<Self> {
        let mut given = BTreeMap::new();
        for (name, value) in options {
            if let Some((_, why)) = ELSEWHERE.iter().find(|(known, _)| known == name) {
                return Err(Error::unsupported(format!("option {name} is not supported"), *why));
            }
            if !OPTIONS.contains(&name.as_str()) {
                return Err(Error::unknown("option", name, OPTIONS));
            }
            if given.insert(name.clone(), literal(name, value)?).is_some() {
                return Err(Error::invalid(format!("option {name} is given twice")));
            }
        }
        Self::from_given(given)
    }

    /// Reads the options of a stored definition.
    ///
    /// # Errors
    /// When a value is not taken any more.
    pub fn from_given(given: BTreeMap<String, Json>) -> Result<Self> {
        let reader = Reader(&given);
        check_model_type(reader.text("model_type")?)?;
        let als = als_options(&reader)?;
        als.validate().map_err(model_error)?;
        let fraction = reader.number("data_split_eval_fraction")?;
        if fraction.is_some_and(|fraction| !(fraction > 0.0 && fraction < 1.0)) {
            return Err(Error::invalid_hint(
                "data_split_eval_fraction lies between 0 and 1",
                "0.2 keeps a fifth of the rows for evaluation",
            ));
        }
        let split =
            match reader.choice("data_split_method", &["auto_split", "random", "no_split"])? {
                Some("no_split") => Split::None,
                Some("random") => Split::Random(fraction.unwrap_or(0.2)),
                _ => fraction.map_or(Split::Auto, Split::Random),
            };
        let top_k = reader.integer("top_k")?.unwrap_or(20);
        let top_k = usize::try_from(top_k).ok().filter(|k| (1..=1_000).contains(k));
        let Some(top_k) = top_k else {
            return Err(Error::invalid("top_k lies between 1 and 1000"));
        };
        Ok(Self {
            als,
            user_col: reader.text("user_col")?.map(str::to_owned),
            item_col: reader.text("item_col")?.map(str::to_owned),
            rating_col: reader.text("rating_col")?.map(str::to_owned),
            split,
            top_k,
            given,
        })
    }
}

fn check_model_type(given: Option<&str>) -> Result<()> {
    const LATER: [&str; 10] = [
        "item_knn",
        "ease",
        "popularity",
        "hybrid",
        "entity_resolution",
        "kmeans",
        "pca",
        "boosted_tree_classifier",
        "boosted_tree_regressor",
        "boosted_tree_ranker",
    ];
    match given.map(str::to_lowercase).as_deref() {
        Some("matrix_factorization") => Ok(()),
        Some(later) if LATER.contains(&later) => Err(Error::unsupported(
            format!("model_type '{later}' is not supported yet"),
            "use model_type = 'matrix_factorization'",
        )),
        Some(other) => Err(Error::unknown("model_type", other, ["matrix_factorization"])),
        None => Err(Error::invalid_hint(
            "CREATE MODEL needs the option model_type",
            "write OPTIONS (model_type = 'matrix_factorization', …)",
        )),
    }
}

fn als_options(reader: &Reader<'_>) -> Result<AlsOptions> {
    let mut als = AlsOptions::default();
    if reader.choice("feedback_type", &["explicit", "implicit"])? == Some("implicit") {
        als.feedback = Feedback::Implicit;
    }
    if let Some(factors) = reader.count("num_factors")? {
        als.num_factors = factors;
    }
    if let Some(iterations) = reader.count("max_iterations")? {
        als.max_iterations = iterations;
    }
    if let Some(steps) = reader.count("cg_steps")? {
        als.cg_steps = steps;
    }
    als.l2_reg = reader.number("l2_reg")?;
    als.wals_alpha = reader.number("wals_alpha")?;
    let scalings = ["constant", "count", "frequency"];
    als.regularization_scaling = match reader.choice("regularization_scaling", &scalings)? {
        Some("constant") => Some(Scaling::Constant),
        Some("count") => Some(Scaling::Count),
        Some(_) => Some(Scaling::Frequency),
        None => None,
    };
    if let Some(exponent) = reader.number("frequency_exponent")? {
        als.frequency_exponent = exponent;
    }
    als.solver = match reader.choice("solver", &["auto", "cholesky", "cg", "subspace"])? {
        Some("cholesky") => Solver::Cholesky,
        Some("cg") => Solver::ConjugateGradient,
        Some("subspace") => Solver::Subspace,
        _ => Solver::Auto,
    };
    als.block_size = reader.count("block_size")?;
    als.non_negative = reader.truth("non_negative")?.unwrap_or(false);
    if let Some(biases) = reader.truth("biases")? {
        als.biases = biases;
    }
    if let Some(seed) = reader.integer("seed")? {
        als.seed = seed.cast_unsigned();
    }
    let early_stop = reader.truth("early_stop")?.unwrap_or(false);
    als.min_rel_progress = match reader.number("min_rel_progress")? {
        Some(progress) => Some(progress),
        None => early_stop.then_some(0.01),
    };
    Ok(als)
}

/// The learner's error as a statement's.
pub fn model_error(error: udfs::model::ModelError) -> Error {
    if matches!(error, udfs::model::ModelError::Cancelled) {
        return Error::Cancelled;
    }
    let text = error.to_string();
    match text.split_once(". ") {
        Some((what, hint)) => Error::Model { what: what.into(), hint: Some(hint.into()) },
        None => Error::Model { what: text, hint: None },
    }
}

fn literal(name: &str, value: &Expr) -> Result<Json> {
    let wrong = || {
        Error::invalid_hint(
            format!("option {name} takes a literal, not {value}"),
            "write a text in quotes, a number, TRUE or FALSE",
        )
    };
    match value {
        Expr::Value(ValueWithSpan { value, .. }) => match value {
            Value::SingleQuotedString(text) => Ok(Json::from(text.as_str())),
            Value::Boolean(truth) => Ok(Json::from(*truth)),
            Value::Number(number, _) => number.parse().map_err(|_| wrong()),
            _ => Err(wrong()),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) => {
                format!("-{number}").parse().map_err(|_| wrong())
            }
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

/// Reads typed values out of the options as given.
struct Reader<'a>(&'a BTreeMap<String, Json>);

impl<'a> Reader<'a> {
    fn wrong(name: &str, value: &Json, wanted: &str) -> Error {
        Error::invalid_hint(format!("option {name} is {value}"), format!("it takes {wanted}"))
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(other) => Err(Self::wrong(name, other, "a text in quotes")),
        }
    }

    fn choice(&self, name: &str, known: &[&'static str]) -> Result<Option<&'static str>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = known.iter().find(|known| known.eq_ignore_ascii_case(text));
        match found {
            Some(found) => Ok(Some(found)),
            None => Err(Error::unknown(name, &format!("'{text}'"), known.iter().copied())),
        }
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(Self::wrong(name, value, "a number")),
            },
        }
    }

    fn integer(&self, name: &str) -> Result<Option<i64>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => Err(Self::wrong(name, value, "a whole number")),
            },
        }
    }

    fn count(&self, name: &str) -> Result<Option<usize>> {
        let Some(number) = self.integer(name)? else { return Ok(None) };
        match usize::try_from(number) {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(Self::wrong(name, &Json::from(number), "a whole number from 1")),
        }
    }

    fn truth(&self, name: &str) -> Result<Option<bool>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Json::Bool(truth)) => Ok(Some(*truth)),
            Some(other) => Err(Self::wrong(name, other, "TRUE or FALSE")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Statement, parse};

    fn read(options: &str) -> Result<TrainingOptions> {
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
        assert_eq!(options.als.num_factors, 32);
        assert_eq!(options.als.feedback, Feedback::Implicit);
        assert_eq!(options.split, Split::None);
        assert_eq!(TrainingOptions::from_given(options.given.clone()).unwrap(), options);
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
            ("model_type = 'kmeans'", "not supported yet"),
            ("model_type = 'matrix_factorization', num_factors = 1 + 1", "literal"),
        ] {
            let error = read(options).unwrap_err();
            let shown = format!("{error} {}", error.hint().unwrap_or_default());
            assert!(shown.contains(part), "{options}: {shown}");
        }
    }
}
