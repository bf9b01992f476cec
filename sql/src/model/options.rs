//! Options of CREATE MODEL: BigQuery's names where they exist, ours beside them.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use sqlparser::ast::{Expr, UnaryOperator, Value, ValueWithSpan};

use crate::error::{Error, Result};
use crate::model::learners::Learner;

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
        let learner = Learner::read(&given)?;
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
            learner,
            seed: reader.integer("seed")?.unwrap_or(0).cast_unsigned(),
            user_col: reader.text("user_col")?.map(str::to_owned),
            item_col: reader.text("item_col")?.map(str::to_owned),
            rating_col: reader.text("rating_col")?.map(str::to_owned),
            item_table: reader.text("item_table")?.map(str::to_owned),
            split,
            top_k,
            given,
        })
    }
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
pub struct Reader<'a>(pub &'a BTreeMap<String, Json>);

impl<'a> Reader<'a> {
    /// Whether the option is given.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn wrong(name: &str, value: &Json, wanted: &str) -> Error {
        Error::invalid_hint(format!("option {name} is {value}"), format!("it takes {wanted}"))
    }

    /// A text.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(other) => Err(Self::wrong(name, other, "a text in quotes")),
        }
    }

    /// One of a few texts, whatever its case.
    ///
    /// # Errors
    /// When it is something else.
    pub fn choice(&self, name: &str, known: &[&'static str]) -> Result<Option<&'static str>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = known.iter().find(|known| known.eq_ignore_ascii_case(text));
        match found {
            Some(found) => Ok(Some(found)),
            None => Err(Error::unknown(name, &format!("'{text}'"), known.iter().copied())),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// When it is something else.
    pub fn number(&self, name: &str) -> Result<Option<f64>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(Self::wrong(name, value, "a number")),
            },
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// When it is something else.
    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(number) => Ok(Some(number)),
                None => Err(Self::wrong(name, value, "a whole number")),
            },
        }
    }

    /// A whole number from 1.
    ///
    /// # Errors
    /// When it is something else.
    pub fn count(&self, name: &str) -> Result<Option<usize>> {
        let Some(number) = self.integer(name)? else { return Ok(None) };
        match usize::try_from(number) {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(Self::wrong(name, &Json::from(number), "a whole number from 1")),
        }
    }

    /// TRUE or FALSE.
    ///
    /// # Errors
    /// When it is something else.
    pub fn truth(&self, name: &str) -> Result<Option<bool>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Json::Bool(truth)) => Ok(Some(*truth)),
            Some(other) => Err(Self::wrong(name, other, "TRUE or FALSE")),
        }
    }
}

#[cfg(test)]
mod tests {
    use udfs::model::als::Feedback;

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
        let Learner::Als(als) = &options.learner else { panic!("{options:?}") };
        assert_eq!((als.num_factors, als.feedback), (32, Feedback::Implicit));
        assert_eq!((als.seed, options.seed), (7_u64.wrapping_neg(), 7_u64.wrapping_neg()));
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
            ("model_type = 'hybrid'", "not supported yet"),
            ("model_type = 'item_knn', num_factors = 8", "belongs to matrix_factorization"),
            ("model_type = 'ease', l2_reg = 0", "above 0"),
            ("model_type = 'ease', half_life = '1 day'", "belongs to popularity, not to ease"),
            ("model_type = 'matrix_factorization', num_trials = 8", "not supported"),
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
