//! `sessionize(ts, gap) OVER (PARTITION BY person ORDER BY ts)`: the number of an event's session.
//!
//! The first event of a partition opens session 1; an event further than `gap` from the one before
//! it opens the next. A gap of exactly `gap` belongs to the session. A NULL time, or a NULL gap,
//! has no session and does not end one. The gap is an INTERVAL (a month has 30 days) or a number of
//! seconds, not negative. Times that go both up and down are an error, because sessions of
//! unordered events are none; `ORDER BY ts DESC` numbers from the latest.
//!
//! The function looks at one row and at what it kept of the row before, so it runs in bounded
//! memory.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{Documentation, PartitionEvaluator, Signature, Volatility, WindowUDFImpl};
use datafusion_macros::user_doc;

use super::times::{self, Durations, Times};

const NAME: &str = "sessionize";
const SYNTAX: &str = "sessionize(ts, gap)";

/// The window function `sessionize`.
#[user_doc(
    doc_section(label = "Feature Functions"),
    description = "The number of the session an event belongs to, from 1 in each partition: an \
event further than gap from the one before it opens a new session. Use it with PARTITION BY a \
person and ORDER BY the same ts. A NULL time has no session and does not end one.",
    syntax_example = "sessionize(ts, gap) OVER (PARTITION BY person ORDER BY ts)",
    sql_example = r#"```sql
> SELECT person, ts, sessionize(ts, INTERVAL '30 minutes')
    OVER (PARTITION BY person ORDER BY ts) AS session
  FROM (VALUES ('ann', TIMESTAMP '2024-05-01 10:00:00'), ('ann', TIMESTAMP '2024-05-01 10:30:00'),
               ('ann', TIMESTAMP '2024-05-01 11:15:00')) AS t (person, ts);
+--------+---------------------+---------+
| person | ts                  | session |
+--------+---------------------+---------+
| ann    | 2024-05-01T10:00:00 | 1       |
| ann    | 2024-05-01T10:30:00 | 1       |
| ann    | 2024-05-01T11:15:00 | 2       |
+--------+---------------------+---------+
```"#,
    argument(name = "ts", description = "Date or timestamp of the event."),
    argument(
        name = "gap",
        description = "The longest pause within a session: an interval or a number of seconds."
    ),
    related_udf(name = "interaction_sequence")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Sessionize {
    signature: Signature,
}

impl Sessionize {
    /// The function.
    pub fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl Default for Sessionize {
    fn default() -> Self {
        Self::new()
    }
}

impl WindowUDFImpl for Sessionize {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        times::check_count(SYNTAX, arg_types, 2, 2)?;
        Ok(vec![
            times::time_type(NAME, "ts", &arg_types[0])?,
            times::duration_type(NAME, "gap", &arg_types[1])?,
        ])
    }

    fn partition_evaluator(
        &self,
        _args: PartitionEvaluatorArgs,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::<Sessions>::default())
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), DataType::Int64, true)))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

/// What is kept of a partition's rows so far.
#[derive(Debug, Default)]
struct Sessions {
    session: i64,
    before: Option<i128>,
    ascending: Option<bool>,
}

impl Sessions {
    fn next(&mut self, times: &Times<'_>, gaps: &Durations<'_>, row: usize) -> Result<Option<i64>> {
        let Some(gap) = gaps.seconds(row) else { return Ok(None) };
        if gap.is_nan() || gap < 0.0 {
            return exec_err!(
                "{NAME}: gap must not be negative, not {gap} seconds. Hint: give INTERVAL \
                 '30 minutes', or 1800"
            );
        }
        let (Some(time), Some(gap)) = (times.nanos(row), gaps.nanos(row)) else { return Ok(None) };
        match self.before.replace(time) {
            None => self.session = 1,
            Some(before) => {
                self.check_order(before, time)?;
                self.session += i64::from((time - before).abs() > gap);
            }
        }
        Ok(Some(self.session))
    }

    fn check_order(&mut self, before: i128, time: i128) -> Result<()> {
        if time != before && *self.ascending.get_or_insert(time > before) != (time > before) {
            return exec_err!(
                "{NAME}: the times of a partition go both up and down. Hint: OVER (PARTITION BY … \
                 ORDER BY the same ts)"
            );
        }
        Ok(())
    }
}

fn columns(values: &[ArrayRef]) -> Result<(Times<'_>, Durations<'_>)> {
    let [times, gaps, ..] = values else { return exec_err!("{SYNTAX} misses an argument") };
    Ok((Times::new(NAME, times)?, Durations::new(NAME, gaps)?))
}

impl PartitionEvaluator for Sessions {
    fn is_causal(&self) -> bool {
        true
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], num_rows: usize) -> Result<ArrayRef> {
        let (times, gaps) = columns(values)?;
        let sessions: Int64Array =
            (0..num_rows).map(|row| self.next(&times, &gaps, row)).collect::<Result<_>>()?;
        Ok(Arc::new(sessions))
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        let (times, gaps) = columns(values)?;
        Ok(ScalarValue::Int64(self.next(&times, &gaps, range.start)?))
    }

    fn supports_bounded_execution(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::types::Int64Type;
    use arrow::array::{Array, AsArray, Float64Array, IntervalMonthDayNanoArray};
    use arrow::datatypes::IntervalMonthDayNano;

    use super::super::times::testing::{in_every_type, stamps};
    use super::*;

    /// The sessions of a partition, asserted to be the same row by row.
    fn sessions(ts: &ArrayRef, gap: ArrayRef) -> Result<Vec<Option<i64>>> {
        let evaluator =
            || Sessionize::new().partition_evaluator(PartitionEvaluatorArgs::default()).unwrap();
        let values = [ts.clone(), gap];
        let all = evaluator().evaluate_all(&values, ts.len())?;
        let all: Vec<_> = all.as_primitive::<Int64Type>().iter().collect();
        let mut stateful = evaluator();
        for (row, expected) in all.iter().enumerate() {
            let range = stateful.get_range(row, ts.len())?;
            assert_eq!(stateful.evaluate(&values, &range)?, ScalarValue::Int64(*expected));
        }
        Ok(all)
    }

    fn gap(seconds: f64, rows: usize) -> ArrayRef {
        Arc::new(Float64Array::from(vec![seconds; rows]))
    }

    #[test]
    fn a_longer_pause_opens_a_session_and_an_equal_one_does_not() {
        let ts = stamps(&[Some(0), Some(10), Some(20), Some(31), Some(31), Some(99)]);
        let found = sessions(&ts, gap(10.0, 6)).unwrap();
        assert_eq!(found, [1, 1, 1, 2, 2, 3].map(Some));
        assert_eq!(sessions(&ts, gap(0.0, 6)).unwrap(), [1, 2, 3, 4, 4, 5].map(Some));
        assert_eq!(sessions(&ts, gap(f64::INFINITY, 6)).unwrap(), [Some(1); 6]);
    }

    #[test]
    fn times_of_every_type_and_intervals_are_read() {
        let week = IntervalMonthDayNano::new(0, 7, 0);
        for ts in in_every_type(&[Some(0), Some(7), Some(15), Some(16)]) {
            let gap: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![week; 4]));
            assert_eq!(sessions(&ts, gap).unwrap(), [1, 1, 2, 2].map(Some));
        }
    }

    #[test]
    fn descending_times_count_from_the_latest() {
        let ts = stamps(&[Some(99), Some(30), Some(20)]);
        assert_eq!(sessions(&ts, gap(10.0, 3)).unwrap(), [1, 2, 2].map(Some));
    }

    #[test]
    fn a_null_time_has_no_session_and_ends_none() {
        let ts = stamps(&[None, Some(0), None, Some(5), Some(50), None]);
        let found = sessions(&ts, gap(10.0, 6)).unwrap();
        assert_eq!(found, [None, Some(1), None, Some(1), Some(2), None]);
        let nothing: ArrayRef = Arc::new(Float64Array::from(vec![None::<f64>; 6]));
        assert_eq!(sessions(&ts, nothing).unwrap(), [None; 6]);
    }

    #[test]
    fn misuse_is_refused_with_a_hint() {
        let ts = stamps(&[Some(5), Some(1), Some(9)]);
        let error = sessions(&ts, gap(1.0, 3)).unwrap_err().to_string();
        assert!(error.contains("ORDER BY the same ts"), "{error}");
        for seconds in [-1.0, f64::NAN] {
            let error = sessions(&ts, gap(seconds, 3)).unwrap_err().to_string();
            assert!(error.contains("gap must not be negative"), "{error}");
        }
        let error = Sessionize::new().coerce_types(&[DataType::Date32]).unwrap_err().to_string();
        assert!(error.contains("sessionize(ts, gap) was called with 1"), "{error}");
    }
}
