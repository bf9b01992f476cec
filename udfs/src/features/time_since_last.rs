//! `time_since_last(ts, reference)`: seconds from a group's latest event to a time of reference.
//!
//! The recency of recency-frequency-monetary analysis: max(reference) − max(ts) in seconds, exact
//! to the nanosecond before it becomes a DOUBLE, negative when the event lies after the reference.
//! The reference is an argument because an aggregate knows no time of its own: `now()`, or a date
//! so that the feature is as it was then. NULL times are left out; without any the answer is NULL.

use std::sync::Arc;

use arrow::array::types::Int64Type;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, exec_err};
use datafusion_expr::Signature;
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_macros::user_doc;

use super::groups::{self, Kernel, Rows, kernel_aggregate};
use super::times::{self, Times};

const NAME: &str = "time_since_last";
const SYNTAX: &str = "time_since_last(ts, reference)";

/// The aggregate `time_since_last`.
#[user_doc(
    doc_section(label = "Feature Functions"),
    description = "Seconds from the latest event of the group to a time of reference, negative \
when the event lies after it. NULL times are left out; without any the answer is NULL.",
    syntax_example = "time_since_last(ts, reference)",
    sql_example = r#"```sql
> SELECT time_since_last(bought, TIMESTAMP '2024-05-03') / 86400 AS days
  FROM (VALUES (DATE '2024-04-20'), (DATE '2024-05-01')) AS t (bought);
+------+
| days |
+------+
| 2.0  |
+------+
```"#,
    argument(name = "ts", description = "Date or timestamp of the event."),
    argument(
        name = "reference",
        description = "Date or timestamp to count to, such as now(); the group's latest counts."
    ),
    related_udf(name = "purchase_frequency"),
    related_udf(name = "time_decay")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TimeSinceLast {
    signature: Signature,
}

kernel_aggregate!(TimeSinceLast, NAME, Latest, {
    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        if arg_types.len() == 1 {
            return datafusion_common::plan_err!(
                "{SYNTAX} misses its reference. Hint: time_since_last(ts, now())"
            );
        }
        times::check_count(SYNTAX, arg_types, 2, 2)?;
        let names = ["ts", "reference"];
        names.iter().zip(arg_types).map(|(name, of)| times::time_type(NAME, name, of)).collect()
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |part: &str| {
            Arc::new(Field::new(format!("{}[{part}]", args.name), DataType::Int64, true))
        };
        Ok(vec![field("latest"), field("reference")])
    }
});

/// The latest time of each of two columns, in the column's own unit.
#[derive(Debug, Clone)]
struct Latest {
    nanos_per_tick: [i128; 2],
    latest: [Vec<Option<i64>>; 2],
}

impl Latest {
    fn planned(args: &AccumulatorArgs) -> Result<Self> {
        Self::new([groups::argument_type(NAME, args, 0)?, groups::argument_type(NAME, args, 1)?])
    }

    fn new(types: [&DataType; 2]) -> Result<Self> {
        let [Some(event), Some(reference)] = types.map(times::nanos_per_tick) else {
            return exec_err!("{NAME} expects times, got {} and {}", types[0], types[1]);
        };
        Ok(Self { nanos_per_tick: [event, reference], latest: [vec![], vec![]] })
    }
}

impl Kernel for Latest {
    fn fresh(&self) -> Result<Self> {
        Ok(Self { nanos_per_tick: self.nanos_per_tick, latest: [vec![], vec![]] })
    }

    fn grow(&mut self, groups: usize) {
        self.latest.iter_mut().for_each(|latest| latest.resize(groups.max(latest.len()), None));
    }

    fn groups(&self) -> usize {
        self.latest[0].len()
    }

    fn update(&mut self, values: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        for (column, latest) in values.iter().zip(&mut self.latest) {
            let times = Times::new(NAME, column)?;
            // None is less than every time.
            rows.iter().for_each(|(row, group)| {
                latest[group] = latest[group].max(times.ticks(row));
            });
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        for (column, latest) in states.iter().zip(&mut self.latest) {
            let Some(ticks) = column.as_primitive_opt::<Int64Type>() else {
                return exec_err!("{NAME}: a partial aggregate carries {}", column.data_type());
            };
            rows.iter().for_each(|(row, group)| {
                let time = ticks.is_valid(row).then(|| ticks.value(row));
                latest[group] = latest[group].max(time);
            });
        }
        Ok(())
    }

    fn answers(&self, groups: usize) -> Result<ArrayRef> {
        let [event_nanos, reference_nanos] = self.nanos_per_tick;
        let pairs = self.latest[0].iter().zip(&self.latest[1]).take(groups);
        let answers = pairs.map(|(event, reference)| {
            let (event, reference) = (i128::from((*event)?), i128::from((*reference)?));
            Some(times::seconds(reference * reference_nanos - event * event_nanos))
        });
        Ok(Arc::new(answers.collect::<Float64Array>()))
    }

    fn states(&self, groups: usize) -> Result<Vec<ArrayRef>> {
        let column = |latest: &Vec<Option<i64>>| {
            Arc::new(latest.iter().take(groups).copied().collect::<Int64Array>()) as ArrayRef
        };
        Ok(self.latest.iter().map(column).collect())
    }

    fn forget(&mut self, groups: usize) {
        self.latest.iter_mut().for_each(|latest| drop(latest.drain(..groups)));
    }

    fn heap_bytes(&self) -> usize {
        self.latest.iter().map(|latest| latest.capacity() * size_of::<Option<i64>>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampNanosecondArray;
    use datafusion_common::ScalarValue;

    use datafusion_expr::AggregateUDFImpl;

    use super::super::groups::testing::{aggregate, check_groups};
    use super::super::times::testing::{in_every_type, stamps};
    use super::*;

    fn since(ts: &ArrayRef, reference: &ArrayRef) -> Option<f64> {
        let kernel = Latest::new([ts.data_type(), reference.data_type()]).unwrap();
        match aggregate(&kernel, &[ts.clone(), reference.clone()]) {
            ScalarValue::Float64(answer) => answer,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_latest_event_counts_in_every_type() {
        for ts in in_every_type(&[Some(3), Some(10), None, Some(7)]) {
            for reference in in_every_type(&[Some(12), None, Some(11), Some(12)]) {
                assert_eq!(since(&ts, &reference), Some(172_800.0));
            }
        }
    }

    #[test]
    fn differences_are_exact_and_may_be_negative() {
        let ts: ArrayRef =
            Arc::new(TimestampNanosecondArray::from(vec![1_700_000_000_000_000_001]));
        let later: ArrayRef =
            Arc::new(TimestampNanosecondArray::from(vec![1_700_000_000_000_000_002]));
        assert_eq!(since(&ts, &later), Some(1e-9));
        assert_eq!(since(&later, &ts), Some(-1e-9));
        // Dates beyond what nanoseconds hold.
        let far = in_every_type(&[Some(4_000_000)]).remove(0);
        assert_eq!(since(&far, &stamps(&[Some(0)])), Some(-345_600_000_000.0));
    }

    #[test]
    fn without_a_time_on_either_side_the_answer_is_null() {
        assert_eq!(since(&stamps(&[None, None]), &stamps(&[Some(1), Some(1)])), None);
        assert_eq!(since(&stamps(&[Some(1)]), &stamps(&[None])), None);
        assert_eq!(since(&stamps(&[]), &stamps(&[])), None);
    }

    #[test]
    fn groups_are_kept_apart() {
        let ts = stamps(&[Some(5), Some(9), None, Some(1), Some(30)]);
        let reference = stamps(&[Some(50), Some(60), Some(70), None, Some(40)]);
        let kernel = Latest::new([ts.data_type(), reference.data_type()]).unwrap();
        check_groups(&kernel, &[ts, reference], &[0, 2, 1, 3, 0]);
    }

    #[test]
    fn what_is_no_time_is_refused_with_a_hint() {
        let function = TimeSinceLast::new();
        let stamp = DataType::Date32;
        let error = function.coerce_types(std::slice::from_ref(&stamp)).unwrap_err().to_string();
        assert!(error.contains("time_since_last(ts, now())"), "{error}");
        let error = function.coerce_types(&[DataType::Int64, stamp]).unwrap_err().to_string();
        assert!(error.contains("to_timestamp_seconds"), "{error}");
    }
}
