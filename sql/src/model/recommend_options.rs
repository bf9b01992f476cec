//! The options of ML.RECOMMEND: as written, and once every parameter has a value.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use catalog::models::LoadedModel;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, lit};

use crate::error::{Error, Result};
use crate::model::arguments::{known_options, literal, shown, whole_number};
use crate::model::history::OPTION;
use crate::model::options::model_error;
use crate::model::recommender;

/// Lists longer than this are refused; a whole catalog is better read from ML.WEIGHTS.
const TOP_K_MAX: i64 = 10_000;

/// Every option.
const OPTIONS: [&str; 13] = [
    "top_k",
    "exclude_seen",
    "include_items",
    "exclude_items",
    "item_filter",
    "max_per",
    "diversity",
    "min_score",
    "popularity_penalty",
    "boost",
    "promote",
    "promote_share",
    "fold_in",
];

/// The share of places that promoted items have unless another one is given.
const PROMOTE_SHARE: f64 = 0.2;

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
    /// What the logarithm of an item's popularity takes off its score.
    popularity_penalty: Expr,
    /// Promoted items: a list, or NULL for none.
    promote: Expr,
    /// The share of places that they have; NULL for the usual one.
    promote_share: Expr,
    /// Whether promoted items come from a query.
    promotes_rows: bool,
}

impl RecommendOptions {
    /// Takes the options out of the named arguments.
    ///
    /// # Errors
    /// When an option is unknown or a literal is no value of it.
    pub fn read(named: &mut BTreeMap<String, Expr>, promotes_rows: bool) -> Result<Self> {
        known_options(named, &OPTIONS)?;
        // The texts themselves were planned as a query of the item table.
        for (name, hint) in [
            ("item_filter", "it takes a condition as a text in quotes, such as 'stock > 0'"),
            ("boost", "it takes an expression as a text in quotes, such as '0.2 * margin'"),
        ] {
            if let Some(text) = named.remove(name)
                && !matches!(literal(&text), Some(ScalarValue::Utf8(Some(_))))
            {
                return Err(Error::invalid_hint(format!("{name} is {}", shown(&text)), hint));
            }
        }
        // Planned as an input of the rows it asks for.
        named.remove(OPTION);
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
            popularity_penalty: take("popularity_penalty", lit(0.0)),
            promote: take("promote", null()),
            promote_share: take("promote_share", null()),
            promotes_rows,
        };
        // What is a literal already is checked now, so that a wrong one fails while planning.
        if matches!(options.top_k, Expr::Literal(..)) {
            whole_number("top_k", &options.top_k, 1..=TOP_K_MAX)?;
        }
        if matches!(options.diversity, Expr::Literal(..)) {
            share("diversity", &options.diversity)?;
        }
        if matches!(options.popularity_penalty, Expr::Literal(..)) {
            penalty(&options.popularity_penalty)?;
        }
        options.promote_share()?;
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
            self.popularity_penalty.clone(),
            self.promote.clone(),
            self.promote_share.clone(),
        ]
    }

    /// The options with the values that the optimizer has computed.
    ///
    /// # Errors
    /// When there are not as many.
    pub fn with_expressions(&self, expressions: Vec<Expr>) -> DataFusionResult<Self> {
        let mut expressions = expressions.into_iter();
        let mut next = || {
            let missing = || DataFusionError::Internal("ML.RECOMMEND has ten options".into());
            expressions.next().ok_or_else(missing)
        };
        Ok(Self {
            top_k: next()?,
            exclude_seen: next()?,
            include_items: next()?,
            exclude_items: next()?,
            min_score: next()?,
            diversity: next()?,
            max_per: next()?,
            popularity_penalty: next()?,
            promote: next()?,
            promote_share: next()?,
            promotes_rows: self.promotes_rows,
        })
    }

    /// The share of places of promoted items, when there are any.
    fn promote_share(&self) -> Result<Option<f64>> {
        let is_null = |value: &Expr| literal(value).is_some_and(ScalarValue::is_null);
        let promotes = self.promotes_rows || !is_null(&self.promote);
        if is_null(&self.promote_share) {
            return Ok(promotes.then_some(PROMOTE_SHARE));
        }
        if !promotes {
            return Err(Error::invalid_hint(
                "promote_share needs items to promote",
                "name them: promote => ['a', 'b'] or promote => (SELECT item_id FROM sponsored)",
            ));
        }
        // A parameter has its value later.
        if literal(&self.promote_share).is_none() {
            return Ok(None);
        }
        match number(&self.promote_share).filter(|share| (0.0..=1.0).contains(share)) {
            Some(share) => Ok(Some(share.into())),
            None => Err(Error::invalid_hint(
                format!("promote_share is {}", shown(&self.promote_share)),
                "it takes a share of the places from 0 to 1",
            )),
        }
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
            popularity_penalty: penalty(&self.popularity_penalty)?,
            promote: items("promote", &self.promote, model)?,
            promote_share: self.promote_share()?,
        })
    }
}

fn penalty(value: &Expr) -> Result<f32> {
    match number(value).filter(|penalty| penalty.is_finite()) {
        Some(penalty) => Ok(penalty),
        None => Err(Error::invalid_hint(
            format!("popularity_penalty is {}", shown(value)),
            "it takes a number in units of the score: 0 changes nothing, more favours rare items",
        )),
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
    /// What the logarithm of an item's popularity takes off its score.
    pub popularity_penalty: f32,
    /// Promoted items.
    pub promote: Option<Arc<[u32]>>,
    /// The share of places that they have, when there are any.
    pub promote_share: Option<f64>,
}
