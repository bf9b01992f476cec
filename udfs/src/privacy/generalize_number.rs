//! `generalize_number(x, width)`: the interval of a number, as text such as `[30, 40)`.
//!
//! Intervals begin at multiples of `width`, contain their lower and not their upper bound, and
//! are exact: integers stay integers, and bounds of fractions are written with as many decimals as
//! the width, the number being compared with the bounds as they are written. NaN, an infinity and
//! a number beyond the precision in which its interval could be told are `*`: suppressed, never
//! passed through. A width that is no positive, finite number is an error. NULL gives NULL.

use std::fmt::Write;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::types::{NativeType, logical_float64};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{Coercion, ColumnarValue, Documentation, ScalarFunctionArgs};
use datafusion_expr::{ScalarUDFImpl, Signature, TypeSignature, TypeSignatureClass, Volatility};
use datafusion_macros::user_doc;

use super::arguments::{self, Integers};
use super::hierarchy::SUPPRESSED;

const NAME: &str = "generalize_number";

/// More decimals than these are rounding noise of 64-bit floating point.
const DECIMALS_MAX: usize = 15;

/// The function `generalize_number`.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Replaces a number by the interval of a given width it lies in, as text such as \
`[30, 40)`: the lower bound belongs to the interval, the upper one does not.",
    syntax_example = "generalize_number(x, width)",
    sql_example = r#"```sql
> SELECT generalize_number(37, 10) AS age, generalize_number(-0.3, 0.5) AS score;
+----------+-------------+
| age      | score       |
+----------+-------------+
| [30, 40) | [-0.5, 0.0) |
+----------+-------------+
```"#,
    argument(name = "x", description = "Number. NULL gives NULL; NaN and infinities give '*'."),
    argument(name = "width", description = "Width of the intervals, greater than zero.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct GeneralizeNumber {
    signature: Signature,
}

impl GeneralizeNumber {
    /// The function.
    pub fn new() -> Self {
        let integer = Coercion::new_exact(TypeSignatureClass::Integer);
        let float = Coercion::new_implicit(
            TypeSignatureClass::Native(logical_float64()),
            vec![TypeSignatureClass::Numeric],
            NativeType::Float64,
        );
        let signature = Signature::one_of(
            vec![
                TypeSignature::Coercible(vec![integer.clone(), integer]),
                TypeSignature::Coercible(vec![float.clone(), float]),
            ],
            Volatility::Immutable,
        );
        Self { signature }
    }
}

impl Default for GeneralizeNumber {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for GeneralizeNumber {
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
        let x = arguments::argument(NAME, &args, 0)?;
        let width = arguments::argument(NAME, &args, 1)?;
        let integer =
            |value: &ColumnarValue| value.data_type().is_integer() || value.data_type().is_null();
        if integer(x) && integer(width) {
            let numbers = Integers::from_argument(NAME, x)?;
            let widths = Integers::from_argument(NAME, width)?;
            let constant = numbers.is_constant() && widths.is_constant();
            return arguments::text_rows(args.number_rows, constant, |row, out| {
                let (Some(x), Some(width)) = (numbers.get(row), widths.get(row)) else {
                    return Ok(false);
                };
                integer_interval(x, width, out)
            });
        }
        let constant = [x, width].iter().all(|v| matches!(v, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let (numbers, widths) = (floats(x, rows)?, floats(width, rows)?);
        arguments::text_rows(rows, constant, |row, out| {
            let (Some(x), Some(width)) = (float_at(&numbers, row), float_at(&widths, row)) else {
                return Ok(false);
            };
            float_interval(x, width, out)
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

fn floats(value: &ColumnarValue, rows: usize) -> Result<ArrayRef> {
    Ok(arrow::compute::cast(&value.to_array(rows)?, &DataType::Float64)?)
}

fn float_at(array: &ArrayRef, row: usize) -> Option<f64> {
    let array = array.as_primitive_opt::<Float64Type>()?;
    array.is_valid(row).then(|| array.value(row))
}

pub(super) fn integer_interval(x: i128, width: i128, out: &mut String) -> Result<bool> {
    if width <= 0 {
        return exec_err!("{NAME}: the width is {width}, it must be greater than zero");
    }
    // Both are 64-bit integers in 128 bits: nothing here overflows.
    let lower = x.div_euclid(width) * width;
    write!(out, "[{lower}, {})", lower + width)?;
    Ok(true)
}

pub(super) fn float_interval(x: f64, width: f64, out: &mut String) -> Result<bool> {
    if !width.is_finite() || width <= 0.0 {
        return exec_err!(
            "{NAME}: the width is {width}, it must be a finite number greater than zero"
        );
    }
    match interval(x, width) {
        Some((lower, upper)) => write!(out, "[{lower}, {upper})")?,
        None => out.push_str(SUPPRESSED),
    }
    Ok(true)
}

/// The bounds as written, or `None` where 64-bit floating point cannot tell them.
fn interval(x: f64, width: f64) -> Option<(String, String)> {
    let multiple = (x / width).floor();
    let decimals = decimals(width)?;
    // Rounding of the quotient can miss by one, and the bounds as written decide.
    for step in [0.0, -1.0, 1.0] {
        let bound = |multiple: f64| {
            let text = format!("{:.decimals$}", multiple * width);
            let value: f64 = text.parse().ok()?;
            let text = if value == 0.0 { text.trim_start_matches('-').to_string() } else { text };
            value.is_finite().then_some((value, text))
        };
        let (lower, lower_text) = bound(multiple + step)?;
        let (upper, upper_text) = bound(multiple + step + 1.0)?;
        if lower <= x && x < upper {
            return Some((lower_text, upper_text));
        }
    }
    None
}

/// How many decimals the width is written with.
fn decimals(width: f64) -> Option<usize> {
    let text = width.to_string();
    let decimals = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    (decimals <= DECIMALS_MAX).then_some(decimals)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, UInt64Array};
    use datafusion_common::ScalarValue;
    use proptest::prelude::*;
    use std::sync::Arc;

    use super::super::arguments::testing::{call, int, one};
    use super::*;

    fn float(value: f64) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::from(value))
    }

    fn of(x: ColumnarValue, width: ColumnarValue) -> String {
        one(GeneralizeNumber::new(), vec![x, width]).unwrap()
    }

    #[test]
    fn integers_are_exact() {
        assert_eq!(of(int(37), int(10)), "[30, 40)");
        assert_eq!(of(int(40), int(10)), "[40, 50)");
        assert_eq!(of(int(-1), int(10)), "[-10, 0)");
        assert_eq!(of(int(i64::MAX), int(10)), "[9223372036854775800, 9223372036854775810)");
        let most = ColumnarValue::Array(Arc::new(UInt64Array::from(vec![u64::MAX])));
        assert_eq!(of(most, int(2)), "[18446744073709551614, 18446744073709551616)");
        assert_eq!(
            of(int(i64::MIN), int(i64::MAX)),
            "[-18446744073709551614, -9223372036854775807)"
        );
    }

    #[test]
    fn fractions_are_compared_with_the_bounds_as_written() {
        assert_eq!(of(float(37.5), int(10)), "[30, 40)");
        assert_eq!(of(float(0.3), float(0.1)), "[0.3, 0.4)");
        assert_eq!(of(float(0.7), float(0.1)), "[0.7, 0.8)");
        assert_eq!(of(float(-0.3), float(0.5)), "[-0.5, 0.0)");
        assert_eq!(of(float(-0.0), float(0.5)), "[0.0, 0.5)");
        assert_eq!(of(int(3), float(2.5)), "[2.5, 5.0)");
    }

    #[test]
    fn what_has_no_interval_is_suppressed() {
        for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e17] {
            assert_eq!(of(float(x), float(1.0)), "*");
        }
        assert_eq!(of(float(1.0), float(1e-300)), "*");
    }

    #[test]
    fn widths_that_are_none_are_errors() {
        for width in [int(0), int(-10), float(0.0), float(-1.5), float(f64::NAN), float(1.0 / 0.0)]
        {
            let error = call(GeneralizeNumber::new(), vec![int(1), width]).unwrap_err().to_string();
            assert!(error.contains("greater than zero"), "{error}");
        }
    }

    #[test]
    fn null_gives_null() {
        let null = ColumnarValue::Scalar(ScalarValue::Null);
        assert_eq!(one(GeneralizeNumber::new(), vec![null.clone(), int(10)]), None);
        assert_eq!(one(GeneralizeNumber::new(), vec![float(1.5), null]), None);
        let column = ColumnarValue::Array(Arc::new(Float64Array::from(vec![None, Some(2.5)])));
        let rows = call(GeneralizeNumber::new(), vec![column, int(2)]).unwrap();
        assert_eq!(rows, [None, Some("[2, 4)".to_string())]);
    }

    proptest! {
        #[test]
        fn the_interval_contains_the_number(x in -1e6..1e6_f64, tenths in 1..500_u32) {
            let width = f64::from(tenths) / 10.0;
            let (lower, upper) = interval(x, width).unwrap();
            let (lower, upper): (f64, f64) = (lower.parse().unwrap(), upper.parse().unwrap());
            prop_assert!(lower <= x && x < upper);
            prop_assert!((upper - lower - width).abs() < 1e-6);
        }
    }
}
