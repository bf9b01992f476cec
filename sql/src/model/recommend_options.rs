//! The options of ML.RECOMMEND: as written, and once every parameter has a value.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use catalog::models::LoadedModel;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, lit};
use udfs::model::IdIndex;

use crate::error::{Error, Result};
use crate::model::arguments::{is_number, known_options, literal, shown, whole_number};
use crate::model::{history, new_items, recommender};

/// Lists longer than this are refused; a whole catalog is better read from ML.WEIGHTS.
const TOP_K_MAX: i64 = 10_000;

/// Every option.
const OPTIONS: [&str; 14] = [
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
    history::OPTION,
    new_items::OPTION,
];

/// The share of places that promoted items have unless another one is given.
const PROMOTE_SHARE: f64 = 0.2;

/// More than this is added to no score and taken off none: sums stay within f32.
pub(super) const CHANGE_MAX: f32 = 1e30;

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
    /// The share of places that they have.
    promote_share: Expr,
}

impl RecommendOptions {
    /// Takes the options out of the named arguments.
    ///
    /// # Errors
    /// When an option is unknown or a literal is no value of it.
    pub fn read(named: &mut BTreeMap<String, Expr>, promotes_rows: bool) -> Result<Self> {
        known_options(named, &OPTIONS)?;
        check_fold_in(named)?;
        let promotes = promotes_rows || named.contains_key("promote");
        if named.contains_key("promote_share") && !promotes {
            return Err(Error::invalid_hint(
                "promote_share needs items to promote",
                "name them: promote => ['a', 'b'] or promote => (SELECT item_id FROM sponsored)",
            ));
        }
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
        // Planned as inputs of the rows they ask for.
        named.remove(history::OPTION);
        named.remove(new_items::OPTION);
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
            promote_share: take("promote_share", lit(PROMOTE_SHARE)),
        };
        // What is a literal already is checked now, so that a wrong one fails while planning.
        known(&options.top_k, top_k)?;
        known(&options.exclude_seen, exclude_seen)?;
        known(&options.min_score, min_score)?;
        known(&options.diversity, diversity)?;
        known(&options.max_per, max_per)?;
        known(&options.popularity_penalty, penalty)?;
        known(&options.promote_share, promote_share)?;
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
        })
    }

    /// The values, every one known.
    ///
    /// # Errors
    /// When one is none that its option takes.
    pub fn bind(&self, model: &LoadedModel) -> Result<BoundOptions> {
        Ok(BoundOptions {
            top_k: top_k(&self.top_k)?,
            exclude_seen: exclude_seen(&self.exclude_seen)?,
            include: items("include_items", &self.include_items, model)?,
            exclude: items("exclude_items", &self.exclude_items, model)?,
            min_score: min_score(&self.min_score)?,
            diversity: diversity(&self.diversity)?,
            max_per: max_per(&self.max_per)?,
            popularity_penalty: penalty(&self.popularity_penalty)?,
            promote: items("promote", &self.promote, model)?,
            promote_share: promote_share(&self.promote_share)?,
        })
    }
}

/// Refuses to fold in new items of what shall not be folded in.
fn check_fold_in(named: &BTreeMap<String, Expr>) -> Result<()> {
    let is = |option: &str, truth: bool| {
        named.get(option).and_then(literal) == Some(&ScalarValue::Boolean(Some(truth)))
    };
    if !is(history::OPTION, false) || !is(new_items::OPTION, true) {
        return Ok(());
    }
    Err(Error::invalid_hint(
        "fold_in is FALSE and fold_in_items TRUE, which folds in what users have had too",
        "leave fold_in out, or fold_in_items",
    ))
}

/// Reads a value that is known already; a parameter has its value later.
fn known<T>(value: &Expr, read: impl Fn(&Expr) -> Result<T>) -> Result<()> {
    match literal(value) {
        Some(_) => read(value).map(|_| ()),
        None => Ok(()),
    }
}

fn is_null(value: &Expr) -> bool {
    literal(value).is_some_and(ScalarValue::is_null)
}

fn top_k(value: &Expr) -> Result<usize> {
    whole_number("top_k", value, 1..=TOP_K_MAX)
}

fn exclude_seen(value: &Expr) -> Result<bool> {
    match literal(value) {
        Some(ScalarValue::Boolean(Some(exclude_seen))) => Ok(*exclude_seen),
        _ => Err(Error::invalid_hint(
            format!("exclude_seen is {}", shown(value)),
            "it takes TRUE or FALSE",
        )),
    }
}

fn max_per(value: &Expr) -> Result<Option<usize>> {
    if is_null(value) {
        return Ok(None);
    }
    whole_number("max_per", value, 1..=TOP_K_MAX).map(Some)
}

/// A number of an option between two others.
fn number(name: &str, value: &Expr, [least, most]: [f64; 2], hint: &str) -> Result<f64> {
    let found = literal(value).filter(|value| is_number(value));
    match found.and_then(|value| value.cast_to(&DataType::Float64).ok()) {
        Some(ScalarValue::Float64(Some(number))) if (least..=most).contains(&number) => Ok(number),
        _ => Err(Error::invalid_hint(format!("{name} is {}", shown(value)), hint)),
    }
}

fn penalty(value: &Expr) -> Result<f32> {
    let hint = "it takes a number up to 1e30 in units of the score: 0 changes nothing, more \
                favours rare items";
    let most = f64::from(CHANGE_MAX);
    number("popularity_penalty", value, [-most, most], hint).map(|penalty| penalty as f32)
}

fn min_score(value: &Expr) -> Result<Option<f32>> {
    if is_null(value) {
        return Ok(None);
    }
    let ends = [f32::MIN, f32::MAX].map(f64::from);
    let hint = "it takes a number in units of the score; NULL or none leaves nothing out";
    number("min_score", value, ends, hint).map(|score| Some(score as f32))
}

fn diversity(value: &Expr) -> Result<f32> {
    let hint = "it takes a number from 0 (by score) to 1 (as different as can be)";
    number("diversity", value, [0.0, 1.0], hint).map(|diversity| diversity as f32)
}

fn promote_share(value: &Expr) -> Result<f64> {
    let hint = "it takes a share of the places from 0 to 1";
    number("promote_share", value, [0.0, 1.0], hint)
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
    let items = list.value(0);
    let mut found = KnownItems::new(name, recommender(model)?.item_ids());
    let codes = found.codes(&items)?;
    found.check()?;
    Ok(Some(codes.into_iter().flatten().collect()))
}

/// Items by the model's codes, with an eye on their type: ids of another type that are none of the
/// model's would do nothing without a word.
pub(super) struct KnownItems<'a> {
    option: &'a str,
    ids: &'a IdIndex,
    /// The type of ids that are not alike.
    other_type: Option<DataType>,
    is_any_known: bool,
}

impl<'a> KnownItems<'a> {
    /// Items of an option.
    pub(super) fn new(option: &'a str, ids: &'a IdIndex) -> Self {
        Self { option, ids, other_type: None, is_any_known: false }
    }

    /// The codes of some items; none of NULL and of items that the model does not know.
    ///
    /// # Errors
    /// When their type is no type of ids.
    pub(super) fn codes(&mut self, items: &ArrayRef) -> Result<Vec<Option<u32>>> {
        let codes = self.ids.lookup(items).map_err(|_| self.wrong(items.data_type()))?;
        self.is_any_known |= codes.iter().any(Option::is_some);
        if items.logical_null_count() < items.len() && !self.ids.is_alike(items.data_type()) {
            self.other_type = Some(items.data_type().clone());
        }
        Ok(codes)
    }

    /// Looks back at all of them.
    ///
    /// # Errors
    /// When they are of another type than the model's and none is known.
    pub(super) fn check(&self) -> Result<()> {
        match &self.other_type {
            Some(other) if !self.is_any_known => Err(self.wrong(other)),
            _ => Ok(()),
        }
    }

    fn wrong(&self, found: &DataType) -> Error {
        let Self { option, ids, .. } = self;
        Error::invalid_hint(
            format!(
                "{option} has items of type {found}, none of which is one of the model's, of type \
                 {}",
                ids.data_type()
            ),
            format!("give values of the model's column {}, or cast them", ids.column()),
        )
    }
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
    /// The share of places that they have.
    pub promote_share: f64,
}
