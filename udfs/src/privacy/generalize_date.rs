//! `generalize_date(date, unit)`: the period a date lies in, as text that sorts in time order.
//!
//! `'week'` gives `2024-W20` (ISO 8601, with the week's own year), `'month'` `2024-05`,
//! `'quarter'` `2024-Q2`, `'year'` `2024`, `'decade'` `2020s`, in the Gregorian calendar.
//! Timestamps count by their calendar day. A date beyond the calendar (years beyond ±262,000) is
//! `*`. An unknown unit is an error. NULL gives NULL.

use std::fmt::Write;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Date32Type};
use arrow::temporal_conversions::date32_to_datetime;
use chrono::{Datelike, NaiveDate};
use datafusion_common::types::{NativeType, logical_date, logical_string};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{Coercion, ColumnarValue, Documentation, ScalarFunctionArgs};
use datafusion_expr::{ScalarUDFImpl, Signature, TypeSignatureClass, Volatility};
use datafusion_macros::user_doc;

use super::arguments;
use super::hierarchy::SUPPRESSED;

const NAME: &str = "generalize_date";

/// The function `generalize_date`.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Replaces a date by the week, month, quarter, year or decade it lies in, as text \
that sorts in time order.",
    syntax_example = "generalize_date(date, unit)",
    sql_example = r#"```sql
> SELECT generalize_date(DATE '2024-05-17', 'quarter') AS born;
+---------+
| born    |
+---------+
| 2024-Q2 |
+---------+
```"#,
    argument(name = "date", description = "Date, timestamp, or text of a date. NULL gives NULL."),
    argument(name = "unit", description = "'week', 'month', 'quarter', 'year' or 'decade'.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct GeneralizeDate {
    signature: Signature,
}

impl GeneralizeDate {
    /// The function.
    pub fn new() -> Self {
        let date = Coercion::new_implicit(
            TypeSignatureClass::Native(logical_date()),
            vec![TypeSignatureClass::Timestamp, TypeSignatureClass::Native(logical_string())],
            NativeType::Date,
        );
        let arguments = vec![date, arguments::text_coercion()];
        Self { signature: Signature::coercible(arguments, Volatility::Immutable) }
    }
}

impl Default for GeneralizeDate {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for GeneralizeDate {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let dates = arguments::argument(NAME, &args, 0)?;
        let units = arguments::text_argument(NAME, &args, 1)?;
        let constant = matches!(dates, ColumnarValue::Scalar(_)) && units.is_constant();
        let rows = if constant { 1 } else { args.number_rows };
        let dates = arrow::compute::cast(&dates.to_array(rows)?, &DataType::Date32)?;
        let Some(dates) = dates.as_primitive_opt::<Date32Type>() else {
            return exec_err!("{NAME} expects a date");
        };
        arguments::text_rows(rows, constant, |row, out| {
            let Some(unit) = units.get(row) else { return Ok(false) };
            let unit = Unit::by_name(unit)?;
            if dates.is_null(row) {
                return Ok(false);
            }
            match date32_to_datetime(dates.value(row)) {
                Some(datetime) => unit.write(datetime.date(), out)?,
                None => out.push_str(SUPPRESSED),
            }
            Ok(true)
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

/// A period of time, the longer ones later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// ISO 8601's week.
    Week,
    /// A calendar month.
    Month,
    /// Three of them.
    Quarter,
    /// A calendar year.
    Year,
    /// Ten of them, as in 2020s.
    Decade,
}

impl Unit {
    pub(super) fn by_name(name: &str) -> Result<Self> {
        let is = |unit: &str| name.eq_ignore_ascii_case(unit);
        if is("week") {
            Ok(Self::Week)
        } else if is("month") {
            Ok(Self::Month)
        } else if is("quarter") {
            Ok(Self::Quarter)
        } else if is("year") {
            Ok(Self::Year)
        } else if is("decade") {
            Ok(Self::Decade)
        } else {
            exec_err!(
                "{NAME}: unknown unit '{name}'. Hint: use 'week', 'month', 'quarter', 'year' or \
                 'decade'"
            )
        }
    }

    pub(super) fn write(self, date: NaiveDate, out: &mut String) -> std::fmt::Result {
        let year = date.year();
        match self {
            Self::Week => {
                let week = date.iso_week();
                write!(out, "{:04}-W{:02}", week.year(), week.week())
            }
            Self::Month => write!(out, "{year:04}-{:02}", date.month()),
            Self::Quarter => write!(out, "{year:04}-Q{}", date.month0() / 3 + 1),
            Self::Year => write!(out, "{year:04}"),
            Self::Decade => write!(out, "{:04}s", year.div_euclid(10) * 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Date32Array;
    use datafusion_common::ScalarValue;

    use super::super::arguments::testing::{call, one, text};
    use super::*;

    fn date(text: &str) -> ColumnarValue {
        let date: NaiveDate = text.parse().unwrap();
        ColumnarValue::Scalar(ScalarValue::Date32(Some(Date32Type::from_naive_date(date))))
    }

    fn of(day: &str, unit: &str) -> String {
        one(GeneralizeDate::new(), vec![date(day), text(unit)]).unwrap()
    }

    #[test]
    fn each_unit_has_its_form() {
        assert_eq!(of("2024-05-17", "week"), "2024-W20");
        assert_eq!(of("2024-05-17", "Month"), "2024-05");
        assert_eq!(of("2024-05-17", "quarter"), "2024-Q2");
        assert_eq!(of("2024-05-17", "YEAR"), "2024");
        assert_eq!(of("2024-05-17", "decade"), "2020s");
    }

    #[test]
    fn edges_fall_on_the_right_side() {
        assert_eq!(of("2024-12-30", "week"), "2025-W01");
        assert_eq!(of("2021-01-03", "week"), "2020-W53");
        assert_eq!(of("2024-03-31", "quarter"), "2024-Q1");
        assert_eq!(of("2024-04-01", "quarter"), "2024-Q2");
        assert_eq!(of("1969-12-31", "decade"), "1960s");
        assert_eq!(of("0009-12-31", "decade"), "0000s");
    }

    #[test]
    fn timestamps_count_by_their_day() {
        let before_epoch = ScalarValue::TimestampNanosecond(Some(-1), None);
        let args = vec![ColumnarValue::Scalar(before_epoch), text("year")];
        assert_eq!(one(GeneralizeDate::new(), args).unwrap(), "1969");
    }

    #[test]
    fn null_gives_null_and_extremes_are_suppressed() {
        let days = Date32Array::from(vec![None, Some(i32::MAX), Some(i32::MIN), Some(0)]);
        let args = vec![ColumnarValue::Array(Arc::new(days)), text("month")];
        let rows = call(GeneralizeDate::new(), args).unwrap();
        let rows: Vec<_> = rows.iter().map(|row| row.as_deref()).collect();
        assert_eq!(rows, [None, Some("*"), Some("*"), Some("1970-01")]);
        let null = ColumnarValue::Scalar(ScalarValue::Utf8(None));
        assert_eq!(one(GeneralizeDate::new(), vec![date("2024-05-17"), null]), None);
    }

    #[test]
    fn an_unknown_unit_is_an_error() {
        let args = vec![date("2024-05-17"), text("fortnight")];
        let error = call(GeneralizeDate::new(), args).unwrap_err().to_string();
        assert!(error.contains("unknown unit 'fortnight'"), "{error}");
    }
}
