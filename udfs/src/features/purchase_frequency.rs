//! `purchase_frequency(ts [, unit])`: how often a group's events happen, per unit of time.
//!
//! (n − 1) / (last − first) for n events: the inverse of the mean time between two of them. The
//! unit is a day, a week or a month of 30 days (the default). NULL times are left out. Fewer than
//! two events, or events that all happened at one time, have no frequency: NULL.

use std::sync::Arc;

use arrow::array::types::Int64Type;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::Signature;
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_macros::user_doc;

use super::groups::{self, Kernel, Rows, kernel_aggregate};
use super::times::{self, Times};

const NAME: &str = "purchase_frequency";
const SYNTAX: &str = "purchase_frequency(ts [, unit])";
const SECONDS_PER_DAY: f64 = 86_400.0;

/// The aggregate `purchase_frequency`.
#[user_doc(
    doc_section(label = "Feature Functions"),
    description = "Events per unit of time between the first and the last event of the group: \
(n - 1) / (last - first). NULL for fewer than two events, or when all happened at one time. NULL \
times are left out.",
    syntax_example = "purchase_frequency(ts [, unit])",
    sql_example = r#"```sql
> SELECT purchase_frequency(bought, 'week') AS per_week
  FROM (VALUES (DATE '2024-05-01'), (DATE '2024-05-08'), (DATE '2024-05-29')) AS t (bought);
+----------+
| per_week |
+----------+
| 0.5      |
+----------+
```"#,
    argument(name = "ts", description = "Date or timestamp of the event."),
    argument(
        name = "unit",
        description = "'day', 'week' or 'month' (30 days, the default); a constant."
    ),
    related_udf(name = "time_since_last")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PurchaseFrequency {
    signature: Signature,
}

kernel_aggregate!(PurchaseFrequency, NAME, Spans, {
    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        times::check_count(SYNTAX, arg_types, 1, 2)?;
        let mut types = vec![times::time_type(NAME, "ts", &arg_types[0])?];
        match arg_types.get(1) {
            None => {}
            Some(DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Null) => {
                types.push(DataType::Utf8);
            }
            Some(other) => {
                return plan_err!("{NAME}: unit must be text such as 'week', not {other}");
            }
        }
        Ok(types)
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |part: &str| {
            Arc::new(Field::new(format!("{}[{part}]", args.name), DataType::Int64, true))
        };
        Ok(vec![field("events"), field("first"), field("last")])
    }
});

fn unit_seconds(unit: Option<&ScalarValue>) -> Result<f64> {
    let Some(unit) = unit else { return Ok(30.0 * SECONDS_PER_DAY) };
    let text = unit.try_as_str().flatten().unwrap_or_default();
    let is = |name: &str| text.eq_ignore_ascii_case(name);
    if is("day") {
        Ok(SECONDS_PER_DAY)
    } else if is("week") {
        Ok(7.0 * SECONDS_PER_DAY)
    } else if is("month") {
        Ok(30.0 * SECONDS_PER_DAY)
    } else {
        plan_err!("{NAME}: unknown unit {unit}. Hint: use 'day', 'week' or 'month'")
    }
}

/// Of each group its number of events and their first and last time, in the column's own unit.
#[derive(Debug, Clone)]
struct Spans {
    nanos_per_tick: i128,
    unit_seconds: f64,
    spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Span {
    events: i64,
    first: i64,
    last: i64,
}

impl Span {
    fn add(&mut self, other: Self) {
        if self.events == 0 {
            *self = other;
        } else if other.events > 0 {
            self.events = self.events.saturating_add(other.events);
            self.first = self.first.min(other.first);
            self.last = self.last.max(other.last);
        }
    }
}

impl Spans {
    fn planned(args: &AccumulatorArgs) -> Result<Self> {
        let unit = groups::constant(NAME, args, 1, "unit")?;
        Self::new(groups::argument_type(NAME, args, 0)?, unit.as_ref())
    }

    fn new(time: &DataType, unit: Option<&ScalarValue>) -> Result<Self> {
        let Some(nanos_per_tick) = times::nanos_per_tick(time) else {
            return exec_err!("{NAME} expects times, got {time}");
        };
        Ok(Self { nanos_per_tick, unit_seconds: unit_seconds(unit)?, spans: vec![] })
    }

    fn frequency(&self, span: &Span) -> Option<f64> {
        let ticks = i128::from(span.last) - i128::from(span.first);
        let units = times::seconds(ticks * self.nanos_per_tick) / self.unit_seconds;
        (span.events > 1 && units > 0.0).then(|| (span.events - 1) as f64 / units)
    }
}

impl Kernel for Spans {
    fn fresh(&self) -> Result<Self> {
        Ok(Self { spans: vec![], ..*self })
    }

    fn grow(&mut self, groups: usize) {
        self.spans.resize(groups.max(self.spans.len()), Span::default());
    }

    fn groups(&self) -> usize {
        self.spans.len()
    }

    fn update(&mut self, values: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let Some(column) = values.first() else { return exec_err!("{NAME} misses its times") };
        let times = Times::new(NAME, column)?;
        for (row, group) in rows.iter() {
            if let Some(time) = times.ticks(row) {
                self.spans[group].add(Span { events: 1, first: time, last: time });
            }
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let columns: Vec<_> =
            states.iter().filter_map(|state| state.as_primitive_opt::<Int64Type>()).collect();
        let [events, first, last] = columns.as_slice() else {
            return exec_err!(
                "{NAME}: a partial aggregate carries other columns than three numbers"
            );
        };
        for (row, group) in rows.iter() {
            if events.is_valid(row) {
                let [events, first, last] = [events, first, last].map(|column| column.value(row));
                self.spans[group].add(Span { events, first, last });
            }
        }
        Ok(())
    }

    fn answers(&self, groups: usize) -> Result<ArrayRef> {
        let spans = self.spans.iter().take(groups);
        Ok(Arc::new(spans.map(|span| self.frequency(span)).collect::<Float64Array>()))
    }

    fn states(&self, groups: usize) -> Result<Vec<ArrayRef>> {
        let column = |read: fn(&Span) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(self.spans.iter().take(groups).map(read)))
        };
        Ok(vec![column(|span| span.events), column(|span| span.first), column(|span| span.last)])
    }

    fn forget(&mut self, groups: usize) {
        self.spans.drain(..groups);
    }

    fn heap_bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>()
    }
}

#[cfg(test)]
mod tests {
    use datafusion_expr::AggregateUDFImpl;

    use super::super::groups::testing::{aggregate, check_groups};
    use super::super::times::testing::{in_every_type, stamps};
    use super::*;

    fn frequency(ts: &ArrayRef, unit: Option<&str>) -> Option<f64> {
        let unit = unit.map(ScalarValue::from);
        let kernel = Spans::new(ts.data_type(), unit.as_ref()).unwrap();
        match aggregate(&kernel, std::slice::from_ref(ts)) {
            ScalarValue::Float64(answer) => answer,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn events_per_unit_in_every_type() {
        for ts in in_every_type(&[Some(100), None, Some(107), Some(160)]) {
            assert_eq!(frequency(&ts, Some("day")), Some(2.0 / 60.0));
            assert_eq!(frequency(&ts, Some("Week")), Some(2.0 / (60.0 / 7.0)));
            assert_eq!(frequency(&ts, None), Some(1.0));
            assert_eq!(frequency(&ts, Some("month")), Some(1.0));
        }
    }

    #[test]
    fn fewer_than_two_times_have_no_frequency() {
        for days in [vec![], vec![None], vec![Some(3), None], vec![Some(3), Some(3)]] {
            for ts in in_every_type(&days) {
                assert_eq!(frequency(&ts, None), None);
            }
        }
    }

    #[test]
    fn groups_are_kept_apart() {
        let ts = stamps(&[Some(0), Some(86_400), None, Some(-86_400), Some(5), Some(7), Some(9)]);
        let kernel = Spans::new(ts.data_type(), None).unwrap();
        check_groups(&kernel, &[ts], &[0, 0, 1, 0, 2, 3, 3]);
    }

    #[test]
    fn an_unknown_unit_is_refused_with_a_hint() {
        let error = unit_seconds(Some(&ScalarValue::from("year"))).unwrap_err().to_string();
        assert!(error.contains("unknown unit year") && error.contains("'week'"), "{error}");
        let date = DataType::Date32;
        let error = PurchaseFrequency::new().coerce_types(&[date, DataType::Int64]).unwrap_err();
        assert!(error.to_string().contains("unit must be text"), "{error}");
    }
}
