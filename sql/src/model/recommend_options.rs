//! The options of ML.RECOMMEND: as written, and once every parameter has a value.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use catalog::models::LoadedModel;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, lit};

use crate::error::{Error, Result};
use crate::model::options::model_error;
use crate::model::recommender;
use crate::model::table_functions::{known_options, literal, shown, whole_number};

/// Lists longer than this are refused; a whole catalog is better read from ML.WEIGHTS.
const TOP_K_MAX: i64 = 10_000;

/// Every option.
const OPTIONS: [&str; 8] = [
    "top_k",
    "exclude_seen",
    "include_items",
    "exclude_items",
    "item_filter",
    "max_per",
    "diversity",
    "min_score",
];

/// The options of a recommendation; parameters may stand in for the values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Hash)]
pub struct RecommendOptions {
    /// Items a user.
    pub top_k: Expr,
    exclude_seen: Expr,
    /// Only these items: a list, or NULL for all.
    include_items: Expr,
    /// Never these items: a list, or NULL for none.
    exclude_items: Expr,
    /// Scores below this are left out; NULL for none.
    min_score: Expr,
    /// 0: by score; 1: as different as can be.
    diversity: Expr,
    /// Items of one category at most; NULL for any number.
    max_per: Expr,
}

impl RecommendOptions {
    /// Takes the options out of the named arguments.
    ///
    /// # Errors
    /// When an option is unknown or a literal is no value of it.
    pub fn read(named: &mut BTreeMap<String, Expr>) -> Result<Self> {
        known_options(named, &OPTIONS)?;
        // The text itself was planned as a query of the item table.
        if let Some(filter) = named.remove("item_filter")
            && !matches!(literal(&filter), Some(ScalarValue::Utf8(Some(_))))
        {
            return Err(Error::invalid_hint(
                format!("item_filter is {}", shown(&filter)),
                "it takes a condition as a text in quotes, such as 'stock > 0'",
            ));
        }
        let null = || lit(ScalarValue::Null);
        let mut take = |name: &str, default: Expr| named.remove(name).unwrap_or(default);
        let options = Self {
            top_k: take("top_k", lit(10_i64)),
            exclude_seen: take("exclude_seen", lit(true)),
            include_items: take("include_items", null()),
            exclude_items: take("exclude_items", null()),
            min_score: take("min_score", null()),
            diversity: take("diversity", lit(0.0)),
            max_per: take("max_per", null()),
        };
        // What is a literal already is checked now, so that a wrong one fails while planning.
        if matches!(options.top_k, Expr::Literal(..)) {
            whole_number("top_k", &options.top_k, 1..=TOP_K_MAX)?;
        }
        if matches!(options.diversity, Expr::Literal(..)) {
            share("diversity", &options.diversity)?;
        }
        Ok(options)
    }

    /// The values, for the optimizer to compute.
    pub fn expressions(&self) -> Vec<Expr> {
        vec![
            self.top_k.clone(),
            self.exclude_seen.clone(),
            self.include_items.clone(),
            self.exclude_items.clone(),
            self.min_score.clone(),
            self.diversity.clone(),
            self.max_per.clone(),
        ]
    }

    /// The options with the values that the optimizer has computed.
    ///
    /// # Errors
    /// When there are not as many.
    pub fn from_expressions(expressions: Vec<Expr>) -> DataFusionResult<Self> {
        let [top_k, exclude_seen, include, exclude, min_score, diversity, max_per]: [Expr; 7] =
            expressions
                .try_into()
                .map_err(|_| DataFusionError::Internal("ML.RECOMMEND has seven options".into()))?;
        Ok(Self {
            top_k,
            exclude_seen,
            include_items: include,
            exclude_items: exclude,
            min_score,
            diversity,
            max_per,
        })
    }

    /// The values, every one known.
    ///
    /// # Errors
    /// When one is none that its option takes.
    pub fn bind(&self, model: &LoadedModel) -> Result<BoundOptions> {
        let Some(ScalarValue::Boolean(Some(exclude_seen))) = literal(&self.exclude_seen) else {
            return Err(Error::invalid_hint(
                format!("exclude_seen is {}", shown(&self.exclude_seen)),
                "it takes TRUE or FALSE",
            ));
        };
        let max_per = match literal(&self.max_per) {
            Some(value) if value.is_null() => None,
            _ => Some(whole_number("max_per", &self.max_per, 1..=TOP_K_MAX)?),
        };
        Ok(BoundOptions {
            top_k: whole_number("top_k", &self.top_k, 1..=TOP_K_MAX)?,
            exclude_seen: *exclude_seen,
            include: items("include_items", &self.include_items, model)?,
            exclude: items("exclude_items", &self.exclude_items, model)?,
            min_score: min_score(&self.min_score)?,
            diversity: share("diversity", &self.diversity)?,
            max_per,
        })
    }
}

fn number(value: &Expr) -> Option<f32> {
    match literal(value)?.cast_to(&DataType::Float32) {
        Ok(ScalarValue::Float32(Some(number))) if !number.is_nan() => Some(number),
        _ => None,
    }
}

fn min_score(value: &Expr) -> Result<Option<f32>> {
    match literal(value) {
        Some(literal) if literal.is_null() => Ok(None),
        _ => match number(value) {
            Some(score) => Ok(Some(score)),
            None => Err(Error::invalid(format!("min_score is {}, no number", shown(value)))),
        },
    }
}

fn share(name: &str, value: &Expr) -> Result<f32> {
    match number(value).filter(|share| (0.0..=1.0).contains(share)) {
        Some(share) => Ok(share),
        None => Err(Error::invalid_hint(
            format!("{name} is {}", shown(value)),
            "it takes a number from 0 (by score) to 1 (as different as can be)",
        )),
    }
}

/// The codes of a list of items; items that the model does not know are left out.
fn items(name: &str, value: &Expr, model: &LoadedModel) -> Result<Option<Arc<[u32]>>> {
    let wrong = || {
        Error::invalid_hint(
            format!("{name} is {}", shown(value)),
            "it takes a list of items, ['a', 'b'], or a query in parentheses",
        )
    };
    let Some(value) = literal(value) else { return Err(wrong()) };
    if value.is_null() {
        return Ok(None);
    }
    let ScalarValue::List(list) = value else { return Err(wrong()) };
    let codes = recommender(model)?.item_ids().lookup(&list.value(0)).map_err(model_error)?;
    Ok(Some(codes.into_iter().flatten().collect()))
}

/// The options once every parameter has a value.
#[derive(Debug, Clone)]
pub struct BoundOptions {
    /// Items a user.
    pub top_k: usize,
    /// Whether items that the user has had are left out.
    pub exclude_seen: bool,
    /// Only these items.
    pub include: Option<Arc<[u32]>>,
    /// Never these items.
    pub exclude: Option<Arc<[u32]>>,
    /// Scores below this are left out.
    pub min_score: Option<f32>,
    /// 0: by score; 1: as different as can be.
    pub diversity: f32,
    /// Items of one category at most.
    pub max_per: Option<usize>,
}
