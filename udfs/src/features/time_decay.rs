//! `time_decay(age, half_life)` and `time_decay(ts, reference, half_life)`: a weight that halves.
//!
//! 0.5^(age / half_life): 1 now, ½ after one half-life, ¼ after two. With three arguments the age
//! is reference − ts. An age below 0 weighs 1: what lies after the reference is not more than new.
//! Ages and half-lives are intervals, differences of timestamps or numbers of seconds (a month of
//! an interval has 30 days). NULL in any argument gives NULL; a half-life that is not above 0 is an
//! error.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::DataType;
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl};
use datafusion_expr::{Signature, Volatility};
use datafusion_macros::user_doc;

use super::times::{self, Durations, Times};

const NAME: &str = "time_decay";
const SYNTAX: &str = "time_decay(age, half_life) or time_decay(ts, reference, half_life)";

/// The function `time_decay`.
#[user_doc(
    doc_section(label = "Feature Functions"),
    description = "A weight that halves with every half-life that passes: 0.5^(age / half_life). \
The age is given, or is reference - ts; an age below 0 weighs 1. NULL in any argument gives NULL.",
    syntax_example = "time_decay(age, half_life) or time_decay(ts, reference, half_life)",
    sql_example = r#"```sql
> SELECT time_decay(DATE '2024-05-01', DATE '2024-05-15', INTERVAL '7 days') AS weight;
+--------+
| weight |
+--------+
| 0.25   |
+--------+
```"#,
    argument(
        name = "age",
        description = "Interval, difference of timestamps, or number of seconds."
    ),
    argument(name = "ts", description = "Date or timestamp of the event."),
    argument(
        name = "reference",
        description = "Date or timestamp at which the event is weighed, such as now()."
    ),
    argument(
        name = "half_life",
        description = "Interval or number of seconds, above 0. A month has 30 days."
    ),
    related_udf(name = "time_since_last")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TimeDecay {
    signature: Signature,
}

impl TimeDecay {
    /// The function.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for TimeDecay {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for TimeDecay {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        times::check_count(SYNTAX, arg_types, 2, 3)?;
        if let [ts, reference, half_life] = arg_types {
            return Ok(vec![
                times::time_type(NAME, "ts", ts)?,
                times::time_type(NAME, "reference", reference)?,
                times::duration_type(NAME, "half_life", half_life)?,
            ]);
        }
        if times::nanos_per_tick(&arg_types[0]).is_some() {
            return plan_err!(
                "{NAME}: a time has no age without a reference. Hint: {NAME}(ts, now(), half_life)"
            );
        }
        Ok(vec![
            times::duration_type(NAME, "age", &arg_types[0])?,
            times::duration_type(NAME, "half_life", &arg_types[1])?,
        ])
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let columns: Vec<ArrayRef> =
            args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<_>>()?;
        let weights = match columns.as_slice() {
            [age, half_life] => {
                let age = Durations::new(NAME, age)?;
                decay(rows, half_life, |row| age.seconds(row))?
            }
            [ts, reference, half_life] => {
                let (ts, reference) = (Times::new(NAME, ts)?, Times::new(NAME, reference)?);
                decay(rows, half_life, |row| {
                    Some(times::seconds(reference.nanos(row)? - ts.nanos(row)?))
                })?
            }
            other => return exec_err!("{SYNTAX} was called with {} arguments", other.len()),
        };
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&weights, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(weights)))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

fn decay(
    rows: usize,
    half_life: &ArrayRef,
    age: impl Fn(usize) -> Option<f64>,
) -> Result<Float64Array> {
    let half_lives = Durations::new(NAME, half_life)?;
    (0..rows)
        .map(|row| {
            let Some(half_life) = half_lives.seconds(row) else { return Ok(None) };
            if half_life.is_nan() || half_life <= 0.0 {
                return exec_err!(
                    "{NAME}: half_life must be above 0, not {half_life} seconds. Hint: give \
                     INTERVAL '7 days', or 604800"
                );
            }
            Ok(age(row).map(|age| weight(age, half_life)))
        })
        .collect()
}

fn weight(age: f64, half_life: f64) -> f64 {
    if age <= 0.0 { 1.0 } else { (-age / half_life).exp2() }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::array::types::Float64Type;
    use arrow::datatypes::IntervalMonthDayNano;

    use super::super::times::testing::{in_every_type, stamps};
    use super::*;
    use crate::fuzzy::testing::{call, error_of};

    fn days(count: i32) -> ScalarValue {
        ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, count, 0)))
    }

    fn number(value: f64) -> ScalarValue {
        ScalarValue::Float64(Some(value))
    }

    fn one(arguments: &[ScalarValue]) -> Option<f64> {
        let arguments: Vec<_> = arguments.iter().cloned().map(ColumnarValue::Scalar).collect();
        match call(NAME, &arguments, 1).unwrap() {
            ColumnarValue::Scalar(ScalarValue::Float64(weight)) => weight,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_weight_halves_with_every_half_life() {
        assert_eq!(one(&[number(0.0), number(10.0)]), Some(1.0));
        assert_eq!(one(&[number(10.0), number(10.0)]), Some(0.5));
        assert_eq!(one(&[ScalarValue::from(20_i64), ScalarValue::from(10_i32)]), Some(0.25));
        assert_eq!(one(&[days(14), days(7)]), Some(0.25));
        assert_eq!(one(&[days(14), number(7.0 * 86_400.0)]), Some(0.25));
        assert_eq!(one(&[number(5.0), number(f64::INFINITY)]), Some(1.0));
        assert_eq!(one(&[number(f64::INFINITY), number(5.0)]), Some(0.0));
    }

    #[test]
    fn the_future_is_not_more_than_new() {
        assert_eq!(one(&[number(-5.0), number(10.0)]), Some(1.0));
        assert_eq!(one(&[days(-5), days(10)]), Some(1.0));
    }

    #[test]
    fn times_of_every_type_have_an_age() {
        for ts in in_every_type(&[Some(10), Some(24), Some(25), None]) {
            let reference = stamps(&[Some(24 * 86_400); 4]);
            let arguments = [
                ColumnarValue::Array(ts),
                ColumnarValue::Array(reference),
                ColumnarValue::Scalar(days(7)),
            ];
            let weights = call(NAME, &arguments, 4).unwrap().to_array(4).unwrap();
            let weights: Vec<_> = weights.as_primitive::<Float64Type>().iter().collect();
            assert_eq!(weights, [Some(0.25), Some(1.0), Some(1.0), None]);
        }
    }

    #[test]
    fn null_in_any_argument_gives_null() {
        assert_eq!(one(&[ScalarValue::Null, number(1.0)]), None);
        assert_eq!(one(&[number(1.0), ScalarValue::Null]), None);
        assert_eq!(one(&[ScalarValue::Null, ScalarValue::Date32(Some(1)), days(1)]), None);
    }

    #[test]
    fn misuse_is_refused_with_a_hint() {
        for half_life in [0.0, -1.0, f64::NAN] {
            let error = error_of(NAME, &[number(1.0), number(half_life)]);
            assert!(error.contains("must be above 0"), "{error}");
        }
        let date = ScalarValue::Date32(Some(1));
        let error = error_of(NAME, &[date.clone(), days(1)]);
        assert!(error.contains("time_decay(ts, now(), half_life)"), "{error}");
        let error = error_of(NAME, &[date.clone(), date, ScalarValue::from("7 days")]);
        assert!(error.contains("INTERVAL"), "{error}");
    }
}
