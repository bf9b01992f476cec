//! `parse_date_any(text [, order])`: a date as people write it, NULL when there is doubt.
//!
//! Numbers with `-`, `/`, `.` or blanks between them, eight digits, English months; a time of day
//! behind is cut off. Without an order only a text that can mean one date is read: `03/04/2024` is
//! NULL, `13/04/2024` is the thirteenth of April. With `'DMY'`, `'MDY'` or `'YMD'` the order
//! decides between several; a text of which only another order makes a date is read by that one.
//! `infer_date_order` tells the order of a column. NULL in, NULL out; no date gives NULL; another
//! order is an error.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array};
use arrow::datatypes::{DataType, Date32Type};
use chrono::NaiveDate;
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::dates::{Order, readings};
use crate::fuzzy::arguments::{
    columnar, map_text, optional_last, pair, per_distinct, scalar_function, text_coercion,
};
use crate::text::Text;

#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "Reads a date in any usual spelling: numbers in any order, eight digits, English months, perhaps with a time behind. A text that could mean two dates is NULL, unless the order of its column is given; so is a text that is no date.",
    syntax_example = "parse_date_any(text [, order])",
    sql_example = r#"```sql
> SELECT parse_date_any('May 1st, 2024') AS a, parse_date_any('03/04/2024') AS b,
         parse_date_any('03/04/2024', 'DMY') AS c;
+------------+---+------------+
| a          | b | c          |
+------------+---+------------+
| 2024-05-01 |   | 2024-04-03 |
+------------+---+------------+
```"#,
    argument(name = "text", description = "A date."),
    argument(
        name = "order",
        description = "'DMY', 'MDY' or 'YMD': how to read what is not clear; NULL for none."
    ),
    related_udf(name = "infer_date_order")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ParseDateAnyFunction {
    signature: Signature,
}

scalar_function!(
    ParseDateAnyFunction,
    "parse_date_any",
    optional_last(vec![text_coercion(), text_coercion()]),
    DataType::Date32,
    parse_date_any
);

fn parse_date_any(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    if arguments.len() == 1 {
        return map_text(name, arguments, rows, |text, rows| {
            Ok(dates((0..rows).map(|row| text.get(row).and_then(|text| readings(text).only()))))
        });
    }
    let (text, order) = pair(name, arguments)?;
    columnar(arguments, rows, |rows| {
        per_distinct(&text, &order, rows, |text, order, rows| in_order(name, text, order, rows))
    })
}

fn in_order(name: &str, text: &Text, order: &Text, rows: usize) -> Result<ArrayRef> {
    let mut found = Vec::with_capacity(rows);
    let mut known: Option<(&str, Order)> = None;
    for row in 0..rows {
        let order = match (order.get(row), known) {
            (None, _) => None,
            (Some(word), Some((last, order))) if last == word => Some(order),
            (Some(word), _) => {
                let Some(order) = Order::named(word) else {
                    return exec_err!(
                        "{name}: unknown order '{}'. Hint: use 'DMY', 'MDY' or 'YMD'",
                        word.chars().take(20).collect::<String>()
                    );
                };
                known = Some((word, order));
                Some(order)
            }
        };
        found.push(text.get(row).and_then(|text| {
            let readings = readings(text);
            readings.only().or_else(|| readings.by(order?))
        }));
    }
    Ok(dates(found.into_iter()))
}

fn dates(found: impl Iterator<Item = Option<NaiveDate>>) -> ArrayRef {
    Arc::new(found.map(|date| date.map(Date32Type::from_naive_date)).collect::<Date32Array>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzy::testing::{error_of, one, text};
    use arrow::array::{Array, AsArray};
    use datafusion_common::ScalarValue;

    fn shown(arguments: &[ScalarValue]) -> Option<String> {
        let found = one("parse_date_any", arguments);
        let found = found.as_primitive::<Date32Type>();
        found
            .is_valid(0)
            .then(|| Date32Type::to_naive_date_opt(found.value(0)).unwrap().to_string())
    }

    #[test]
    fn the_order_decides_only_what_is_not_clear() {
        let read = |date: &str, order: &str| shown(&[text(date), text(order)]);
        assert_eq!(read("03/04/2024", "dmy").as_deref(), Some("2024-04-03"));
        assert_eq!(read("03/04/2024", "MDY").as_deref(), Some("2024-03-04"));
        assert_eq!(read("03/04/2024", "YMD"), None);
        assert_eq!(read("04/13/2024", "DMY").as_deref(), Some("2024-04-13"));
        assert_eq!(read("2024-05-01", "DMY").as_deref(), Some("2024-05-01"));
        assert_eq!(shown(&[text("03/04/2024")]), None);
        assert_eq!(shown(&[text("03/04/2024"), ScalarValue::Utf8(None)]), None);
        assert_eq!(
            shown(&[text("May 1, 2024"), ScalarValue::Utf8(None)]).as_deref(),
            Some("2024-05-01")
        );
    }

    #[test]
    fn an_unknown_order_is_an_error() {
        let error = error_of("parse_date_any", &[text("1/2/2024"), text("DYM")]);
        assert!(error.contains("unknown order 'DYM'"), "{error}");
    }
}
