//! DataFusion's functions that make much of little, with a limit on what one call makes.
//!
//! `repeat('x', 2000000000)` or `range(0, 1000000000000)` would take memory from everybody. A call
//! on a batch makes [`BYTES_MAX`] at most, and no more than the server lets a statement have; what
//! it makes is charged to the statement ([`crate::made`]).

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};

use crate::made::charged;
use crate::text_size::text_bytes;

/// Bytes that one call on one batch may make.
pub(crate) const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How much a function makes of its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    /// The first argument as often as the second says.
    Repeats,
    /// As many characters as the second argument says.
    Pads,
    /// As many elements as the second argument says.
    Fills,
    /// A number each step from the first to the second argument.
    Counts,
    /// The third argument in place of each part of the first.
    Replaces,
    /// All arguments behind each other.
    Joins,
    /// The elements of the first argument with the second between them.
    Separates,
}

const BOUNDED: [(&str, Growth); 12] = [
    ("repeat", Growth::Repeats),
    ("lpad", Growth::Pads),
    ("rpad", Growth::Pads),
    ("array_repeat", Growth::Repeats),
    ("array_resize", Growth::Fills),
    ("range", Growth::Counts),
    ("generate_series", Growth::Counts),
    ("replace", Growth::Replaces),
    ("regexp_replace", Growth::Replaces),
    ("concat", Growth::Joins),
    ("concat_ws", Growth::Joins),
    ("array_to_string", Growth::Separates),
];

/// A replacement shorter than this makes nothing large: texts in tables are not that long.
const REPLACEMENT_BYTES: u64 = 256;
/// An element of a list.
const ELEMENT_BYTES: u64 = 8;

/// The limited form of a function that needs a limit, of so many bytes.
pub fn bounded(function: &Arc<ScalarUDF>, bytes_max: u64) -> Option<Arc<ScalarUDF>> {
    let (_, growth) = BOUNDED.iter().find(|(name, _)| *name == function.name())?;
    let limited = Bounded { inner: Arc::clone(function), growth: *growth, bytes_max };
    Some(Arc::new(ScalarUDF::new_from_impl(limited)))
}

/// What a function around another, `inner`, says of itself: all that this one says.
macro_rules! as_inner {
    () => {
        fn name(&self) -> &str {
            self.inner.name()
        }

        fn aliases(&self) -> &[String] {
            self.inner.aliases()
        }

        fn signature(&self) -> &Signature {
            self.inner.signature()
        }

        fn return_type(&self, arguments: &[DataType]) -> DataFusionResult<DataType> {
            self.inner.return_type(arguments)
        }

        fn return_field_from_args(
            &self,
            arguments: ReturnFieldArgs<'_>,
        ) -> DataFusionResult<FieldRef> {
            self.inner.return_field_from_args(arguments)
        }

        fn documentation(&self) -> Option<&Documentation> {
            self.inner.documentation()
        }

        fn coerce_types(&self, arguments: &[DataType]) -> DataFusionResult<Vec<DataType>> {
            self.inner.coerce_types(arguments)
        }
    };
}
pub(crate) use as_inner;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
    bytes_max: u64,
}

impl ScalarUDFImpl for Bounded {
    as_inner!();

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let made = self.checked(&arguments.args, arguments.number_rows)?;
        let options = Arc::clone(&arguments.config_options);
        charged(&options, self.name(), made, || self.inner.invoke_with_args(arguments))
    }
}

impl Bounded {
    /// What a call makes, in bytes; an error where that is too much.
    fn checked(&self, arguments: &[ColumnarValue], rows: usize) -> DataFusionResult<u64> {
        if self.growth == Growth::Joins {
            // Often called, and on long columns: counted without a look at each row.
            let made = arguments.iter().map(|value| text_bytes(value, rows));
            let separators = (arguments.len() as u64).saturating_mul(match arguments.first() {
                Some(separator) if self.inner.name() == "concat_ws" => text_bytes(separator, rows),
                _ => 0,
            });
            let made = made.fold(separators, u64::saturating_add);
            check_made(self.inner.name(), made, self.bytes_max)?;
            return Ok(made);
        }
        let constant = |value: &ColumnarValue| matches!(value, ColumnarValue::Scalar(_));
        let rows = if arguments.iter().all(constant) { 1 } else { rows };
        let mut bytes: u64 = 0;
        for row in 0..rows {
            bytes = bytes.saturating_add(self.bytes(arguments, row));
            check_made(self.inner.name(), bytes, self.bytes_max)?;
        }
        Ok(bytes)
    }

    /// What a row's call makes, in bytes.
    fn bytes(&self, arguments: &[ColumnarValue], row: usize) -> u64 {
        match (self.growth, arguments) {
            (Growth::Repeats, [value, times, ..]) => {
                natural(times, row).saturating_mul(length(value, row).max(1))
            }
            (Growth::Pads, [_, length, ..]) => natural(length, row),
            (Growth::Fills, [_, length, ..]) => natural(length, row).saturating_mul(ELEMENT_BYTES),
            (Growth::Counts, [stop]) => natural(stop, row).saturating_mul(ELEMENT_BYTES),
            (Growth::Counts, [start, stop, steps @ ..]) => {
                let span = number(stop, row).unwrap_or(0).abs_diff(number(start, row).unwrap_or(0));
                let step = steps.first().map_or(Some(1), |step| number(step, row));
                let step = step.unwrap_or(1).unsigned_abs().max(1);
                (span / step).saturating_mul(ELEMENT_BYTES)
            }
            (Growth::Replaces, [text, pattern, replacement, ..]) => {
                let each = length(replacement, row);
                if each < REPLACEMENT_BYTES {
                    return 0;
                }
                // A pattern of a regular expression may match between any two characters.
                let part = if self.inner.name() == "replace" { length(pattern, row) } else { 1 };
                (length(text, row) / part.max(1) + 1).saturating_mul(each)
            }
            (Growth::Separates, [list, separator, ..]) => {
                let each = length(separator, row);
                if each < REPLACEMENT_BYTES {
                    return 0;
                }
                // An element takes a byte at least.
                length(list, row).saturating_mul(each)
            }
            _ => 0,
        }
    }
}

/// Refuses what is too much for one call.
pub(crate) fn check_made(function: &str, bytes: u64, bytes_max: u64) -> DataFusionResult<()> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(DataFusionError::ResourcesExhausted(format!(
        "{function} would make more than {} MiB",
        bytes_max / (1024 * 1024)
    )))
}

fn natural(value: &ColumnarValue, row: usize) -> u64 {
    u64::try_from(number(value, row).unwrap_or(0)).unwrap_or(0)
}

/// A whole number; a moment as its nanoseconds, and an interval as about as many.
fn number(value: &ColumnarValue, row: usize) -> Option<i64> {
    let scalar = match value {
        ColumnarValue::Scalar(scalar) => scalar.clone(),
        ColumnarValue::Array(array) => ScalarValue::try_from_array(array, row).ok()?,
    };
    const DAY_NS: i64 = 24 * 3_600 * 1_000_000_000;
    if let ScalarValue::IntervalMonthDayNano(interval) = &scalar {
        let interval = (*interval)?;
        let days = i64::from(interval.months) * 28 + i64::from(interval.days);
        return Some(days.saturating_mul(DAY_NS).saturating_add(interval.nanoseconds));
    }
    let through = match scalar.data_type() {
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => {
            scalar.cast_to(&DataType::Timestamp(TimeUnit::Nanosecond, None)).ok()?
        }
        _ => scalar,
    };
    match through.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(number)) => number,
        _ => None,
    }
}

/// The bytes of a text; of anything else, what its row takes.
fn length(value: &ColumnarValue, row: usize) -> u64 {
    let length = match value {
        ColumnarValue::Scalar(scalar) => match scalar.try_as_str() {
            Some(text) => text.map_or(0, str::len),
            None => scalar.size(),
        },
        ColumnarValue::Array(array) => match udfs::text::Text::from_array("repeat", array) {
            Ok(text) => text.get(row).map_or(0, str::len),
            Err(_) => array.slice(row, 1).to_data().get_slice_memory_size().unwrap_or(0),
        },
    };
    length as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(name: &str, arguments: &[ScalarValue]) -> u64 {
        let known = datafusion::functions_nested::all_default_nested_functions();
        let known = known.into_iter().chain(datafusion::functions::all_default_functions());
        let inner = known.into_iter().find(|function| function.name() == name).unwrap();
        let growth = BOUNDED.iter().find(|(bounded, _)| *bounded == name).unwrap().1;
        let arguments: Vec<_> = arguments.iter().cloned().map(ColumnarValue::Scalar).collect();
        Bounded { inner, growth, bytes_max: BYTES_MAX }.bytes(&arguments, 0)
    }

    #[test]
    fn what_a_call_makes_is_known_before_it_is_made() {
        let (text, number) = (|text: &str| ScalarValue::from(text), ScalarValue::from);
        assert_eq!(bytes("repeat", &[text("ab"), number(1_000i64)]), 2_000);
        assert_eq!(bytes("lpad", &[text("ab"), number(1_000i64)]), 1_000);
        assert_eq!(bytes("range", &[number(1_000i64)]), 8_000);
        assert_eq!(bytes("range", &[number(-500i64), number(500i64), number(10i64)]), 800);
        let long = "x".repeat(1_000);
        assert_eq!(bytes("replace", &[text(&long), text("xx"), text(&long)]), 501_000);
        assert_eq!(bytes("replace", &[text(&long), text("x"), text("y")]), 0);
        let (day, second) = (ScalarValue::Date32(Some(0)), ScalarValue::Date32(Some(1)));
        let step = ScalarValue::new_interval_mdn(0, 0, 1_000_000_000);
        assert_eq!(bytes("range", &[day, second, step]), 86_400 * 8);
        assert_eq!(bytes("repeat", &[text("ab"), ScalarValue::Int64(None)]), 0);
        let list = ScalarValue::new_list_nullable(&[text("a"), text("b")], &DataType::Utf8);
        assert!(bytes("array_to_string", &[ScalarValue::List(list), text(&long)]) >= 1_000);
    }
}
