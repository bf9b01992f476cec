//! Which rows a model does not learn from: `data_split_method` and the options beside it.
//!
//! Rows are kept aside as interactions, after rows of one user and item became one. What is kept
//! aside measures the finished model. Where training has to choose (an iteration by
//! `early_stop_metric`, options by a search), it chooses on a third part of its own, the validation
//! part: what a choice was made on measures nothing.

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
use crate::model::options::{Reader, model_error};

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
            return Err(Error::invalid_hint(
                "the evaluation and test fractions leave nothing to train on",
                "their sum has to be below 1",
            ));
        }
        if self.method == Method::Nothing && self.is_three_way {
            return Err(Error::invalid_hint(
                "data_split_method = 'no_split' leaves no rows to choose on",
                "use another split, or neither a search nor early_stop_metric",
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
                let to = DataType::Timestamp(TimeUnit::Microsecond, None);
                let times = arrow::compute::cast(column, &to)?;
                times.as_primitive::<TimestampMicrosecondType>().values().to_vec()
            }
            data_type if data_type.is_signed_integer() => {
                let numbers = arrow::compute::cast(column, &DataType::Int64)?;
                numbers.as_primitive::<Int64Type>().values().to_vec()
            }
            _ => {
                let numbers = arrow::compute::cast(column, &DataType::Float64)?;
                numbers
                    .as_primitive::<Float64Type>()
                    .values()
                    .iter()
                    .map(|&x| order_key(x))
                    .collect()
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
            (Method::Auto, None) if self.is_three_way => match cells {
                0..500 => 0.2,
                _ => (ENOUGH_TO_CHOOSE / cells as f64).min(0.1),
            },
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
    if fraction.is_none() || fraction.as_ref().is_some_and(fits) {
        return Ok(fraction);
    }
    Err(Error::invalid_hint(
        format!("{option} lies between 0 and 1"),
        "0.2 keeps a fifth of the rows aside",
    ))
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
pub struct Whole<'a> {
    /// All interactions.
    pub all: &'a Csr,
    /// Hashes of the users' ids, by code.
    pub users: &'a [u64],
    /// Hashes of the items' ids, by code.
    pub items: &'a [u64],
    /// The key of each cell, where the split needs one.
    pub keys: Option<&'a [i64]>,
}

/// Interactions in parts of one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// To learn from.
    pub training: Csr,
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

impl Whole<'_> {
    /// Divides the interactions.
    ///
    /// # Errors
    /// When nothing is left to train on, or nothing to choose on.
    pub fn divide(self, options: &SplitOptions, previous: Option<&Learned<'_>>) -> Result<Parts> {
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
        let (rest, test) = divide(all, &held);
        let (training, validation) = match options.is_three_way {
            false => (rest, Csr::empty(all.rows(), all.columns())),
            true => {
                let keys = self.keys.map(|keys| without(keys, &held));
                let marks = options.validation_marks(&rest, all.cells(), keys.as_deref(), ids)?;
                divide(&rest, &marks)
            }
        };
        if training.cells() == 0 {
            return Err(Error::Model {
                what: "no rows are left for training after the split".into(),
                hint: Some("use data_split_method = 'no_split', or give more rows".into()),
            });
        }
        if options.is_three_way && validation.cells() == 0 {
            return Err(Error::Model {
                what: "the split keeps no rows to choose on".into(),
                hint: Some(
                    "raise data_split_eval_fraction, give more rows, or use neither a search nor \
                     early_stop_metric"
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
mod tests {
    use super::*;

    fn options(text: &[(&str, Json)], is_three_way: bool) -> Result<SplitOptions> {
        let given = text.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        SplitOptions::read(&given.collect(), is_three_way)
    }

    #[test]
    fn auto_split_keeps_aside_what_it_says() {
        let shares = |is_three_way, cells| {
            let shares = options(&[], is_three_way).unwrap().shares(cells);
            (shares.validation, shares.test)
        };
        assert_eq!([499, 500, 50_000].map(|n| shares(false, n).1), [0.0, 0.2, 0.2]);
        assert_eq!(shares(false, 100_000), (0.0, 0.1));
        assert_eq!(
            [10, 500, 1_000_000].map(|n| shares(true, n)),
            [(0.2, 0.2), (0.1, 0.1), (0.1, 0.1)]
        );
        assert_eq!(shares(true, 2_000_000), (0.05, 0.05));
        let both = [
            ("data_split_eval_fraction", Json::from(0.3)),
            ("data_split_test_fraction", Json::from(0.0)),
        ];
        let shares = options(&both, true).unwrap().shares(9);
        assert_eq!((shares.validation, shares.test), (0.3, 0.0));
    }

    #[test]
    fn three_parts_are_disjoint_and_whole_for_every_method() {
        let columns: Vec<u32> = (0..50).flat_map(|_| 0..40).collect();
        let offsets = (0..=50).map(|row| row * 40).collect();
        let all = Csr::new(offsets, columns, vec![1.0; 2000], 40).unwrap();
        let users: Vec<u64> = (0..50).collect();
        let items: Vec<u64> = (100..140).collect();
        let times: Vec<i64> = (0..2000).map(|cell| cell * 7 % 2000).collect();
        let parts_of: Vec<i64> = (0..2000).map(|cell| cell % 3).collect();
        for (method, keys, sizes) in [
            ("auto_split", None, None),
            ("random", None, None),
            ("per_user", None, Some((1200, 400, 400))),
            ("per_user", Some(times.clone()), Some((1200, 400, 400))),
            ("seq", Some(times.clone()), Some((1200, 400, 400))),
            ("leave_one_out", None, Some((1900, 50, 50))),
            ("leave_one_out", Some(times.clone()), Some((1900, 50, 50))),
            ("custom", Some(parts_of), Some((667, 667, 666))),
        ] {
            let mut given = vec![("data_split_method", Json::from(method))];
            if method == "custom" {
                given.push(("data_split_col", Json::from("part")));
            }
            let options = options(&given, true).unwrap();
            let is_timed = keys.as_ref().is_some_and(|_| method != "custom");
            let keys = keys.as_deref();
            let whole = Whole { all: &all, users: &users, items: &items, keys };
            let parts = whole.divide(&options, None).unwrap();
            let found = (parts.training.cells(), parts.validation.cells(), parts.test.cells());
            assert_eq!(found.0 + found.1 + found.2, 2000, "{method}");
            assert!(found.1 > 0 && found.2 > 0, "{method}");
            if let Some(sizes) = sizes {
                assert_eq!(found, sizes, "{method}");
            }
            for user in 0..50 {
                let in_parts = [&parts.training, &parts.validation, &parts.test]
                    .map(|part| part.row(user).0.to_vec());
                for item in 0..40 {
                    assert_eq!(in_parts.iter().filter(|part| part.contains(&item)).count(), 1);
                }
                if is_timed && method != "seq" {
                    let latest = |part: &[u32]| {
                        part.iter().map(|&item| times[user * 40 + item as usize]).max()
                    };
                    assert!(latest(&in_parts[0]) < latest(&in_parts[1]), "{method}");
                    assert!(latest(&in_parts[1]) < latest(&in_parts[2]), "{method}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let text = |text: &str| Json::from(text);
        for (given, is_three_way, part) in [
            (vec![("data_split_eval_fraction", Json::from(1.0))], false, "between 0 and 1"),
            (vec![("data_split_test_fraction", Json::from(0.1))], false, "chosen"),
            (vec![("data_split_eval_fraction", Json::from(0.5))], true, "nothing to train on"),
            (vec![("data_split_method", text("no_split"))], true, "no rows to choose on"),
            (vec![("data_split_method", text("custom"))], false, "needs data_split_col"),
            (vec![("data_split_col", text("at"))], false, "takes no data_split_col"),
            (
                vec![
                    ("data_split_method", text("leave_one_out")),
                    ("data_split_eval_fraction", Json::from(0.1)),
                ],
                false,
                "takes no data_split_eval_fraction",
            ),
        ] {
            let error = options(&given, is_three_way).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
