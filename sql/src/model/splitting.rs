//! Which rows a model does not learn from: `data_split_method` and the options beside it.
//!
//! Rows are kept aside as interactions, after rows of one user and item became one. What is kept
//! aside measures the finished model. Where training has to choose (an iteration by
//! `early_stop_metric`, options by a search), it chooses on a third part of its own, the validation
//! part: what a choice was made on measures nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Float64Type, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use serde_json::Value as Json;
use udfs::model::judge::Codes;
use udfs::model::split::{Ids, Split, cell_latest, divide, marks, order_key};
use udfs::model::{Csr, Recommender, Triplets};

use crate::error::{Error, Result};
use crate::model::options::model_error;
use crate::model::reader::Reader;

/// How many validation and test interactions are enough to choose by.
const ENOUGH_TO_CHOOSE: f64 = 100_000.0;

/// The parts of a split by column, as keys: of several rows of one user and item the last counts.
const TRAIN: i64 = 0;
/// Rows to choose on, or of two parts the second.
pub const EVAL: i64 = 1;
/// Rows to measure on.
pub const TEST: i64 = 2;

/// `data_split_method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// All rows train.
    Nothing,
    /// As many rows at random as are needed.
    Auto,
    /// A share of all interactions at random.
    Random,
    /// A share of each user's interactions.
    PerUser,
    /// The latest share of all interactions.
    Sequential,
    /// One interaction of each user.
    LeaveOneOut,
    /// What a column says.
    Custom,
}

/// The options of a split.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitOptions {
    /// How.
    pub method: Method,
    eval_fraction: Option<f64>,
    test_fraction: Option<f64>,
    column: Option<String>,
    /// Whether a validation part is split off as well.
    pub is_three_way: bool,
    /// Of what is drawn.
    pub seed: u64,
}

/// What is split off, as shares of all interactions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// To choose on.
    pub validation: f64,
    /// To measure on.
    pub test: f64,
}

/// What a split needs of each row: a time, or a part.
pub type Keys = Option<Vec<i64>>;

impl SplitOptions {
    /// Reads the options; `is_three_way`: whether training has to choose something.
    ///
    /// # Errors
    /// When a value is not taken, or options do not go together.
    pub fn read(given: &BTreeMap<String, Json>, is_three_way: bool) -> Result<Self> {
        let reader = Reader(given);
        let methods =
            ["auto_split", "random", "per_user", "seq", "leave_one_out", "custom", "no_split"];
        let named = reader.choice("data_split_method", &methods)?;
        let method = match named {
            Some("no_split") => Method::Nothing,
            Some("random") => Method::Random,
            Some("per_user") => Method::PerUser,
            Some("seq") => Method::Sequential,
            Some("leave_one_out") => Method::LeaveOneOut,
            Some("custom") => Method::Custom,
            _ => Method::Auto,
        };
        let read = Self {
            method,
            eval_fraction: fraction(&reader, "data_split_eval_fraction", false)?,
            test_fraction: fraction(&reader, "data_split_test_fraction", true)?,
            column: reader.text("data_split_col")?.map(str::to_owned),
            is_three_way,
            seed: reader.integer("seed")?.unwrap_or(0).cast_unsigned(),
        };
        read.check(named.unwrap_or("auto_split"))?;
        Ok(read)
    }

    /// Nothing is kept aside, and no column is looked for.
    pub fn nothing() -> Self {
        Self {
            method: Method::Nothing,
            eval_fraction: None,
            test_fraction: None,
            column: None,
            is_three_way: false,
            seed: 0,
        }
    }

    fn check(&self, name: &str) -> Result<()> {
        let by_share =
            !matches!(self.method, Method::Nothing | Method::LeaveOneOut | Method::Custom);
        let fractions = [
            ("data_split_eval_fraction", self.eval_fraction),
            ("data_split_test_fraction", self.test_fraction),
        ];
        if let Some((option, _)) = fractions.iter().find(|(_, given)| !by_share && given.is_some())
        {
            return Err(Error::invalid_hint(
                format!("data_split_method = '{name}' takes no {option}"),
                "leave it out, or use 'random', 'per_user' or 'seq'",
            ));
        }
        if self.test_fraction.is_some() && !self.is_three_way {
            return Err(Error::invalid_hint(
                "data_split_test_fraction needs something that is chosen on the evaluation rows",
                "use data_split_eval_fraction alone, or add num_trials or early_stop_metric",
            ));
        }
        let shares = self.shares(usize::MAX);
        if shares.validation + shares.test >= 1.0 {
            let what = "the evaluation and test fractions leave nothing to train on";
            let hint = match (self.eval_fraction, self.test_fraction) {
                (Some(share), None) => format!(
                    "{share} is kept aside to choose on and as much to measure on: lower it, or \
                     give data_split_test_fraction"
                ),
                _ => format!(
                    "{} to choose on and {} to measure on: their sum has to be below 1",
                    shares.validation, shares.test
                ),
            };
            return Err(Error::invalid_hint(what, hint));
        }
        if self.method == Method::Nothing && self.is_three_way {
            return Err(Error::invalid_hint(
                "data_split_method = 'no_split' leaves no rows to choose on",
                "use another split; a search, early_stop_metric and 'hybrid' need one",
            ));
        }
        let takes_column = matches!(
            self.method,
            Method::PerUser | Method::Sequential | Method::LeaveOneOut | Method::Custom
        );
        if self.column.is_some() && !takes_column {
            return Err(Error::invalid_hint(
                format!("data_split_method = '{name}' takes no data_split_col"),
                "use 'seq', 'per_user' or 'leave_one_out' for a column of times, 'custom' for one \
                 that names the part",
            ));
        }
        if self.method == Method::Custom && self.column.is_none() {
            return Err(Error::invalid_hint(
                "data_split_method = 'custom' needs data_split_col",
                "name a BOOL column that is TRUE for rows to keep aside, or a text column of \
                 'TRAIN', 'EVAL' and 'TEST'",
            ));
        }
        Ok(())
    }

    /// The column that says on which side a row is, or when it was; none where nobody asks.
    ///
    /// # Errors
    /// When it is missing or of a type that says neither.
    pub fn column(
        &self,
        schema: &SchemaRef,
        find: impl Fn(Option<&str>) -> Result<(usize, String)>,
    ) -> Result<Option<(usize, String)>> {
        let found = match (self.method, &self.column) {
            (Method::Sequential, named) => find(named.as_deref())?,
            (_, Some(named)) => find(Some(named))?,
            (_, None) => return Ok(None),
        };
        let data_type = schema.field(found.0).data_type();
        let is_text =
            matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let is_boolean = *data_type == DataType::Boolean;
        let (fits, hint) = match (self.method, self.is_three_way) {
            (Method::Custom, false) => (
                is_text || is_boolean,
                "it takes a BOOL column, TRUE for rows to keep aside, or a text column of \
                 'TRAIN', 'EVAL' and 'TEST'",
            ),
            (Method::Custom, true) => (
                is_text,
                "rows to choose on and rows to measure on have to be told apart: it takes a text \
                 column of 'TRAIN', 'EVAL' and 'TEST'",
            ),
            _ => (
                data_type.is_numeric()
                    || matches!(
                        data_type,
                        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64
                    ),
                "it takes a time, a date or a number that grows with time",
            ),
        };
        if fits {
            return Ok(Some(found));
        }
        let what = format!("data_split_col is {}, of type {data_type}", found.1);
        Err(Error::invalid_hint(what, hint))
    }

    /// The keys of a batch's rows.
    ///
    /// # Errors
    /// When a value is NULL, or names no part.
    pub fn keys(&self, column: &ArrayRef, name: &str) -> Result<Vec<i64>> {
        if column.null_count() > 0 {
            return Err(Error::Model {
                what: format!("column {name} holds NULL, which says neither when nor which part"),
                hint: Some(format!("add WHERE {name} IS NOT NULL to the training query")),
            });
        }
        if self.method == Method::Custom {
            return parts(column, name);
        }
        Ok(match column.data_type() {
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
                let times = time(column, name, TimeUnit::Microsecond)?;
                times.as_primitive::<TimestampMicrosecondType>().values().to_vec()
            }
            data_type if data_type.is_signed_integer() => {
                let numbers = arrow::compute::cast(column, &DataType::Int64)?;
                numbers.as_primitive::<Int64Type>().values().to_vec()
            }
            _ => {
                let numbers = arrow::compute::cast(column, &DataType::Float64)?;
                let numbers = numbers.as_primitive::<Float64Type>().values();
                if let Some(number) = numbers.iter().find(|number| !number.is_finite()) {
                    return Err(Error::Model {
                        what: format!("column {name} holds {number}, which is no time"),
                        hint: Some("filter such rows out in the training query".into()),
                    });
                }
                numbers.iter().map(|&x| order_key(x)).collect()
            }
        })
    }

    /// The shares of `cells` interactions that are kept aside. Alone, `'auto_split'` is BigQuery's
    /// rule: none below 500, a fifth up to 50,000, then 10,000 interactions. To choose by, more are
    /// needed: a fifth each below 500, then a tenth each, 100,000 at most.
    pub fn shares(&self, cells: usize) -> Shares {
        let evaluation = match (self.method, self.eval_fraction) {
            (Method::Nothing | Method::LeaveOneOut | Method::Custom, _) => 0.0,
            (_, Some(fraction)) => fraction,
            (Method::Auto, None) if self.is_three_way => {
                let usual = match cells {
                    0..500 => 0.2,
                    _ => (ENOUGH_TO_CHOOSE / cells as f64).min(0.1),
                };
                // Where much is to be measured on, half of the rest stays to learn from.
                usual.min((1.0 - self.test_fraction.unwrap_or(0.0)) / 2.0)
            }
            (Method::Auto, None) => match cells {
                0..500 => 0.0,
                500..=50_000 => 0.2,
                _ => 10_000.0 / cells as f64,
            },
            (_, None) => 0.2,
        };
        match self.is_three_way {
            false => Shares { validation: 0.0, test: evaluation },
            true => {
                Shares { validation: evaluation, test: self.test_fraction.unwrap_or(evaluation) }
            }
        }
    }

    /// So many of `cells` interactions are measured on at most, but for rare draws.
    pub fn tested_max(&self, cells: usize) -> usize {
        match self.method {
            Method::Nothing => 0,
            Method::LeaveOneOut | Method::Custom => cells,
            _ => {
                let share = self.shares(cells).test;
                // Six standard deviations of a draw are less than that.
                let most = if share > 0.0 { 1.1 * share * cells as f64 + 100.0 } else { 0.0 };
                cells.min(most as usize)
            }
        }
    }

    /// Why no rows were kept aside to measure on, and what keeps some.
    pub fn why_none_measured(&self) -> (&'static str, &'static str) {
        match self.method {
            Method::Nothing => ("on all rows", "train with data_split_method = 'auto_split'"),
            Method::Auto if !self.is_three_way && self.eval_fraction.is_none() => (
                "on all rows, which are fewer than 'auto_split' divides",
                "train with data_split_method = 'random', which keeps a fifth aside",
            ),
            Method::Custom => {
                ("without rows to measure on", "mark some as 'TEST', or TRUE, in data_split_col")
            }
            Method::LeaveOneOut => (
                "without rows to measure on: too few users have several",
                "train on users with more rows",
            ),
            _ if self.test_fraction == Some(0.0) => (
                "without rows to measure on, with data_split_test_fraction = 0",
                "train with data_split_test_fraction = 0.1",
            ),
            _ if self.is_three_way => (
                "without rows to measure on: the test fraction of them is none",
                "train with a greater data_split_test_fraction, or on more rows",
            ),
            _ => (
                "without rows to measure on: the fraction of them is none",
                "train with a greater data_split_eval_fraction, or on more rows",
            ),
        }
    }

    /// The test part: one mark a cell.
    fn test_marks(&self, all: &Csr, keys: Option<&[i64]>, ids: Ids<'_>) -> Result<Vec<bool>> {
        if let (Method::Custom, Some(keys)) = (self.method, keys) {
            // Without a choice there are two parts, and both words mean the second.
            let first = if self.is_three_way { TEST } else { EVAL };
            return Ok(keys.iter().map(|&key| key >= first).collect());
        }
        self.part(all, self.shares(all.cells()).test, self.seed, keys, ids)
    }

    /// The validation part of what is left after the test part.
    fn validation_marks(
        &self,
        rest: &Csr,
        all_cells: usize,
        keys: Option<&[i64]>,
        ids: Ids<'_>,
    ) -> Result<Vec<bool>> {
        if let (Method::Custom, Some(keys)) = (self.method, keys) {
            return Ok(keys.iter().map(|&key| key == EVAL).collect());
        }
        let shares = self.shares(all_cells);
        let share = shares.validation / (1.0 - shares.test);
        // Another seed: what is left has drawn high numbers with the first.
        self.part(rest, share, self.seed ^ 0x7A11_DA7E, keys, ids)
    }

    fn part(
        &self,
        cells: &Csr,
        fraction: f64,
        seed: u64,
        times: Option<&[i64]>,
        ids: Ids<'_>,
    ) -> Result<Vec<bool>> {
        let how = match (self.method, times) {
            (Method::Nothing | Method::Custom, _) | (Method::Sequential, None) => Split::Nothing,
            (Method::Auto | Method::Random, _) => Split::Random { fraction, seed },
            (Method::PerUser, times) => Split::PerUser { fraction, seed, times },
            (Method::Sequential, Some(times)) => Split::Latest { fraction, seed, times },
            (Method::LeaveOneOut, times) => Split::LeaveOneOut { seed, times },
        };
        marks(cells, how, Some(ids)).map_err(model_error)
    }
}

fn fraction(reader: &Reader<'_>, option: &str, may_be_zero: bool) -> Result<Option<f64>> {
    let fraction = reader.number(option)?;
    let fits =
        |&fraction: &f64| (fraction > 0.0 || may_be_zero && fraction == 0.0) && fraction < 1.0;
    match fraction.filter(|fraction| !fits(fraction)) {
        None => Ok(fraction),
        Some(wrong) => Err(Error::invalid_hint(
            format!("{option} is {wrong}"),
            "it lies between 0 and 1; 0.2 keeps a fifth of the rows aside",
        )),
    }
}

/// Times in one unit.
///
/// # Errors
/// When one lies beyond what the unit can tell.
pub fn time(column: &ArrayRef, name: &str, unit: TimeUnit) -> Result<ArrayRef> {
    let times = arrow::compute::cast(column, &DataType::Timestamp(unit, None))?;
    if times.null_count() > column.null_count() {
        return Err(Error::Model {
            what: format!("column {name} holds a time beyond what can be compared"),
            hint: Some("filter such rows out in the training query".into()),
        });
    }
    Ok(times)
}

fn parts(column: &ArrayRef, name: &str) -> Result<Vec<i64>> {
    if *column.data_type() == DataType::Boolean {
        let held = column.as_boolean().values();
        return Ok(held.iter().map(|held| if held { TEST } else { TRAIN }).collect());
    }
    let texts = arrow::compute::cast(column, &DataType::Utf8)?;
    let part = |text: &str| match text.trim().to_lowercase().as_str() {
        "train" => Ok(TRAIN),
        "eval" => Ok(EVAL),
        "test" => Ok(TEST),
        _ => Err(Error::Model {
            what: format!("column {name} holds '{text}', which names no part"),
            hint: Some("each row is 'TRAIN', 'EVAL' or 'TEST'".into()),
        }),
    };
    texts.as_string::<i32>().iter().flatten().map(part).collect()
}

/// Interactions on their way into parts.
pub struct Whole<'a, 'b> {
    /// All interactions.
    pub all: &'a Csr,
    /// Hashes of the users' ids, by code.
    pub users: &'b [u64],
    /// Hashes of the items' ids, by code.
    pub items: &'b [u64],
    /// The key of each cell, where the split needs one.
    pub keys: Option<&'b [i64]>,
}

/// Interactions in parts of one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts<'a> {
    /// To learn from; all interactions where nothing is kept aside.
    pub training: Cow<'a, Csr>,
    /// To choose on.
    pub validation: Csr,
    /// To measure on.
    pub test: Csr,
    /// What of the test part the previous version did not learn from: to compare with it.
    pub fresh: Csr,
}

/// The previous version of a model that is retrained, as far as the split needs it.
pub struct Learned<'a> {
    /// The version.
    pub model: &'a dyn Recommender,
    /// Its codes.
    pub codes: &'a Codes,
    /// Whether the new version goes on from it: then nothing that it learned from measures.
    pub goes_on: bool,
}

/// All interactions but those of a part.
pub fn beside(all: &Csr, part: &Csr) -> Csr {
    let mut marks = Vec::with_capacity(all.cells());
    for user in 0..all.rows() {
        marks.extend(all.row(user).0.iter().map(|&item| part.contains(user, item)));
    }
    divide(all, &marks).0
}

/// The key of each cell from those of the rows: the latest of its rows.
///
/// # Errors
/// None in practice: rows and keys are read together.
pub fn cell_keys(all: &Csr, rows: &Triplets, keys: &[i64]) -> Result<Vec<i64>> {
    let (users, items) = rows.codes();
    cell_latest(all, users, items, keys).map_err(model_error)
}

impl<'a> Whole<'a, '_> {
    /// Divides the interactions.
    ///
    /// # Errors
    /// When nothing is left to train on, or nothing to choose on.
    pub fn divide(
        self,
        options: &SplitOptions,
        previous: Option<&Learned<'_>>,
    ) -> Result<Parts<'a>> {
        let ids = Ids { users: self.users, items: self.items };
        let all = self.all;
        let mut held = options.test_marks(all, self.keys, ids)?;
        let fresh = match previous {
            Some(previous) if held.contains(&true) => {
                let learned = self.learned(options, previous)?;
                let fresh: Vec<bool> =
                    held.iter().zip(&learned).map(|(held, learned)| *held && !learned).collect();
                if previous.goes_on {
                    held.clone_from(&fresh);
                }
                divide(all, &fresh).1
            }
            _ => Csr::empty(all.rows(), all.columns()),
        };
        let (rest, test) = match held.contains(&true) {
            true => {
                let (rest, test) = divide(all, &held);
                (Cow::Owned(rest), test)
            }
            false => (Cow::Borrowed(all), Csr::empty(all.rows(), all.columns())),
        };
        let (training, validation) = match options.is_three_way {
            false => (rest, Csr::empty(all.rows(), all.columns())),
            true => {
                let keys = self.keys.map(|keys| without(keys, &held));
                let marks = options.validation_marks(&rest, all.cells(), keys.as_deref(), ids)?;
                let (training, validation) = divide(&rest, &marks);
                (Cow::Owned(training), validation)
            }
        };
        if training.cells() == 0 {
            return Err(Error::Model {
                what: "no rows are left for training after the split".into(),
                hint: Some(
                    "keep fewer rows aside: a smaller fraction, other words in data_split_col, or \
                     'no_split' where nothing is chosen"
                        .into(),
                ),
            });
        }
        if options.is_three_way && validation.cells() == 0 {
            return Err(Error::Model {
                what: "the split keeps no rows to choose on".into(),
                hint: Some(
                    "raise data_split_eval_fraction, mark some as 'EVAL' in data_split_col, or \
                     give more rows"
                        .into(),
                ),
            });
        }
        Ok(Parts { training, validation, test, fresh })
    }

    /// Which cells the previous version learned from: those that it has, but for its own test
    /// part, which the same split finds again.
    fn learned(&self, options: &SplitOptions, previous: &Learned<'_>) -> Result<Vec<bool>> {
        let codes = previous.codes;
        let seen = previous.model.seen();
        let mut had = Vec::with_capacity(self.all.cells());
        for (row, user) in codes.users.iter().enumerate() {
            let its = |item: u32| codes.items.get(item as usize).copied().flatten();
            let has = |item: u32| match (user, its(item)) {
                (Some(user), Some(item)) => seen.contains(*user as usize, item),
                _ => false,
            };
            had.extend(self.all.row(row).0.iter().map(|&item| has(item)));
        }
        let (_, before) = divide(self.all, &had);
        let keys = self.keys.map(|keys| {
            let pairs = keys.iter().zip(&had);
            pairs.filter(|(_, had)| **had).map(|(key, _)| *key).collect::<Vec<i64>>()
        });
        let ids = Ids { users: self.users, items: self.items };
        let held = options.test_marks(&before, keys.as_deref(), ids)?;
        let mut held = held.into_iter();
        Ok(had.into_iter().map(|had| had && !held.next().unwrap_or(false)).collect())
    }
}

fn without(keys: &[i64], held: &[bool]) -> Vec<i64> {
    let pairs = keys.iter().zip(held);
    pairs.filter(|(_, held)| !**held).map(|(key, _)| *key).collect()
}

#[cfg(test)]
#[path = "splitting_tests.rs"]
mod tests;
