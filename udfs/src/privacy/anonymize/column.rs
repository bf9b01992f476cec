//! Columns in codes: each row holds the rank of its value among the distinct values of the column.
//!
//! Ranks follow the values: numbers and times by size, text by its bytes, NULL before all. What
//! arrives in whatever order therefore has the same codes. NULL is a value like any other.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::{HashMap, Result, exec_err, internal_err, plan_err};

/// What the values of a column are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Numbers: they have distances and means.
    Number,
    /// Dates and times: they have distances.
    Time,
    /// Text and truth values: equal or not, in alphabetical order.
    Text,
}

impl Kind {
    /// The kind of a column of a type.
    ///
    /// # Errors
    /// When values of the type cannot be told apart as text.
    pub fn of(name: &str, data_type: &DataType) -> Result<Self> {
        match data_type {
            DataType::Dictionary(_, values) => Self::of(name, values),
            DataType::Date32
            | DataType::Date64
            | DataType::Timestamp(..)
            | DataType::Time32(_)
            | DataType::Time64(_) => Ok(Self::Time),
            DataType::Boolean | DataType::Null => Ok(Self::Text),
            other if other.is_numeric() => Ok(Self::Number),
            other if other.is_string() => Ok(Self::Text),
            other => plan_err!(
                "column {name} has type {other}, which cannot be generalized. Hint: select a \
                 number, a date or a text of it"
            ),
        }
    }
}

/// A column in codes.
#[derive(Debug, Clone, PartialEq)]
pub struct CodedColumn {
    /// The column's name.
    pub name: String,
    /// What its values are to each other.
    pub kind: Kind,
    /// Of each row the rank of its value.
    pub codes: Vec<u32>,
    /// The distinct values in order, as text; `None` is NULL.
    pub values: Vec<Option<Arc<str>>>,
    /// Where each distinct value lies: a number or time itself, of a text its rank.
    pub positions: Vec<f64>,
}

impl CodedColumn {
    /// How many distinct values there are.
    pub fn cardinality(&self) -> usize {
        self.values.len()
    }

    /// How far the values between two ranks lie apart, as a share of all: from 0 to 1.
    pub(super) fn spread(&self, least: u32, most: u32) -> f64 {
        let at = |rank: usize| self.positions.get(rank).copied().unwrap_or_default();
        let whole = at(self.positions.len().saturating_sub(1)) - at(0);
        if whole > 0.0 { (at(most as usize) - at(least as usize)) / whole } else { 0.0 }
    }
}

/// Makes a [`CodedColumn`] of batches as they come.
#[derive(Debug)]
pub struct ColumnEncoder {
    name: String,
    kind: Kind,
    numbers: HashMap<Box<str>, u32>,
    null: Option<u32>,
    /// By number of value; NaN for what has none.
    positions: Vec<f64>,
    codes: Vec<u32>,
    text_bytes: usize,
}

impl ColumnEncoder {
    /// An empty column.
    ///
    /// # Errors
    /// When the type has no [`Kind`].
    pub fn new(name: &str, data_type: &DataType) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            kind: Kind::of(name, data_type)?,
            numbers: HashMap::new(),
            null: None,
            positions: vec![],
            codes: vec![],
            text_bytes: 0,
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When the rows are of another type, or there are too many.
    pub fn add(&mut self, array: &ArrayRef) -> Result<()> {
        if self.codes.len().saturating_add(array.len()) >= u32::MAX as usize {
            return exec_err!(
                "there are more than {} rows to anonymize. Hint: anonymize parts of them, or \
                 group them first",
                u32::MAX - 1
            );
        }
        let texts = cast(array, &DataType::Utf8)?;
        let Some(texts) = texts.as_string_opt::<i32>() else {
            return internal_err!("column {} was not cast to text", self.name);
        };
        let positions = positions(array)?;
        let position = |row: usize| match &positions {
            Some(positions) if positions.is_valid(row) => positions.value(row),
            _ => f64::NAN,
        };
        self.codes.reserve(array.len());
        for (row, text) in texts.iter().enumerate() {
            let next = self.positions.len() as u32;
            let known = match text {
                None => self.null,
                Some(text) => self.numbers.get(text).copied(),
            };
            let number = match (known, text) {
                (Some(number), _) => number,
                (None, None) => {
                    self.null = Some(next);
                    self.positions.push(f64::NAN);
                    next
                }
                (None, Some(text)) => {
                    self.numbers.insert(Box::from(text), next);
                    self.text_bytes += text.len();
                    self.positions.push(position(row));
                    next
                }
            };
            self.codes.push(number);
        }
        Ok(())
    }

    /// Bytes of memory taken, and to be taken when the column is finished.
    pub fn bytes(&self) -> usize {
        /// A value's place in the map, among the sorted ones, and its position, twice.
        const BYTES_PER_VALUE: usize = 96;
        self.codes.capacity() * size_of::<u32>()
            + self.text_bytes * 2
            + self.positions.len() * BYTES_PER_VALUE
    }

    /// The column in codes that follow the values' order.
    pub fn finish(self) -> CodedColumn {
        let at = |number: u32| self.positions.get(number as usize).copied().unwrap_or(f64::NAN);
        let mut values: Vec<(Option<Box<str>>, f64, u32)> = self
            .numbers
            .into_iter()
            .map(|(text, number)| (Some(text), at(number), number))
            .chain(self.null.map(|number| (None, f64::NAN, number)))
            .collect();
        values.sort_unstable_by(|left, right| in_order(self.kind, left, right));
        let mut ranks = vec![0_u32; values.len()];
        for (rank, (_, _, number)) in values.iter().enumerate() {
            if let Some(slot) = ranks.get_mut(*number as usize) {
                *slot = rank as u32;
            }
        }
        let mut codes = self.codes;
        for code in &mut codes {
            *code = ranks.get(*code as usize).copied().unwrap_or_default();
        }
        let positions = placed(self.kind, &values);
        let values = values.into_iter().map(|(text, ..)| text.map(Arc::from)).collect();
        CodedColumn { name: self.name, kind: self.kind, codes, values, positions }
    }
}

type Value = (Option<Box<str>>, f64, u32);

fn in_order(kind: Kind, left: &Value, right: &Value) -> Ordering {
    let by_position = match kind {
        Kind::Text => Ordering::Equal,
        Kind::Number | Kind::Time => left.1.total_cmp(&right.1),
    };
    let nulls = left.0.is_some().cmp(&right.0.is_some());
    nulls.then(by_position).then_with(|| left.0.cmp(&right.0))
}

/// Positions of sorted values. NULL lies before the least, as far as its neighbours lie apart on
/// average; where a value has no finite position all are placed by rank.
fn placed(kind: Kind, values: &[Value]) -> Vec<f64> {
    let has_null = values.first().is_some_and(|(text, ..)| text.is_none());
    let known = values.get(usize::from(has_null)..).unwrap_or_default();
    let finite = known.iter().all(|(_, position, _)| position.is_finite());
    let (Some(first), Some(last)) = (known.first(), known.last()) else {
        return vec![0.0; values.len()];
    };
    let width = last.1 - first.1;
    if kind == Kind::Text || !finite || !width.is_finite() {
        return (0..values.len()).map(|rank| rank as f64).collect();
    }
    let gap = if width > 0.0 { width / (known.len() - 1) as f64 } else { 1.0 };
    let null = has_null.then_some(first.1 - gap);
    null.into_iter().chain(known.iter().map(|(_, position, _)| *position)).collect()
}

/// Where the values of numbers and times lie; none of text.
fn positions(array: &ArrayRef) -> Result<Option<Float64Array>> {
    let (unpacked, data_type) = match array.data_type() {
        DataType::Dictionary(_, values) => (cast(array, values)?, values.as_ref().clone()),
        other => (Arc::clone(array), other.clone()),
    };
    let whole = match data_type {
        DataType::Date32 | DataType::Time32(_) => cast(&unpacked, &DataType::Int32)?,
        DataType::Date64 | DataType::Timestamp(..) | DataType::Time64(_) => {
            cast(&unpacked, &DataType::Int64)?
        }
        other if other.is_numeric() => unpacked,
        _ => return Ok(None),
    };
    let floats = cast(&whole, &DataType::Float64)?;
    Ok(floats.as_primitive_opt::<Float64Type>().cloned())
}

#[cfg(test)]
pub(super) mod tests {
    use arrow::array::{Date32Array, Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;

    /// A column of text.
    pub(crate) fn texts(name: &str, values: &[&str]) -> CodedColumn {
        let mut column = ColumnEncoder::new(name, &DataType::Utf8).unwrap();
        column.add(&(Arc::new(StringArray::from(values.to_vec())) as ArrayRef)).unwrap();
        column.finish()
    }

    /// A column of integers.
    pub(crate) fn integers(name: &str, values: &[i64]) -> CodedColumn {
        let mut column = ColumnEncoder::new(name, &DataType::Int64).unwrap();
        column.add(&(Arc::new(Int64Array::from(values.to_vec())) as ArrayRef)).unwrap();
        column.finish()
    }

    #[test]
    fn ranks_follow_the_values() {
        let column = integers("age", &[30, 4, 100, 30]);
        assert_eq!(column.codes, [1, 0, 2, 1]);
        assert_eq!(column.positions, [4.0, 30.0, 100.0]);
        let column = texts("t", &["30", "4", "100"]);
        assert_eq!(column.codes, [1, 2, 0]);
        assert_eq!(column.spread(0, 1), 0.5);
    }

    #[test]
    fn nulls_come_first_and_times_lie_apart() {
        let mut column = ColumnEncoder::new("d", &DataType::Date32).unwrap();
        let dates: ArrayRef = Arc::new(Date32Array::from(vec![Some(10), None, Some(30), Some(20)]));
        column.add(&dates).unwrap();
        assert!(column.bytes() > 0);
        let column = column.finish();
        assert_eq!(column.codes, [1, 0, 3, 2]);
        assert_eq!(column.positions, [0.0, 10.0, 20.0, 30.0]);
        assert_eq!(column.values[1].as_deref(), Some("1970-01-11"));
        let mut column = ColumnEncoder::new("f", &DataType::Float64).unwrap();
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![f64::INFINITY, 1.0, f64::NAN]));
        column.add(&floats).unwrap();
        assert_eq!(column.finish().positions, [0.0, 1.0, 2.0]);
    }

    #[test]
    fn what_has_no_text_is_refused() {
        let error = ColumnEncoder::new("b", &DataType::Binary).unwrap_err().to_string();
        assert!(error.contains("column b has type Binary"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn codes_do_not_depend_on_the_order_of_arrival(
            values in prop::collection::vec(-20_i64..20, 1..60),
            turn in 0_usize..60,
        ) {
            let mut turned = values.clone();
            turned.rotate_left(turn % values.len());
            let (one, other) = (integers("n", &values), integers("n", &turned));
            prop_assert_eq!(&one.values, &other.values);
            let mut codes = one.codes.clone();
            codes.rotate_left(turn % values.len());
            prop_assert_eq!(codes, other.codes);
        }
    }
}
