//! `interaction_sequence(item, ts [, max_length])`: a group's items in the order of their times.
//!
//! The latest `max_length` events (50 unless given), oldest first, as a list of items; events of
//! one time are ordered by item. That order is total, so the answer does not depend on how the rows
//! were spread or ordered; it is the input of sequential models and of basket rules. Repeated items
//! stay. Events whose item or time is NULL are left out; without any the answer is NULL.
//!
//! A group keeps at most `max_length` events in a heap whose top is the oldest: an event that is
//! too old costs one comparison. Items are kept in Arrow's row format, whose bytes sort as the
//! items do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use arrow::array::types::Int64Type;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, LargeBinaryArray, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{RowConverter, SortField};
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::Signature;
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_macros::user_doc;

use super::groups::{self, Kernel, Rows, kernel_aggregate};
use super::times::{self, Times};

const NAME: &str = "interaction_sequence";
const SYNTAX: &str = "interaction_sequence(item, ts [, max_length])";
const LENGTH_DEFAULT: usize = 50;
const LENGTH_MAX: i64 = 10_000;

/// The aggregate `interaction_sequence`.
#[user_doc(
    doc_section(label = "Feature Functions"),
    description = "The items of the group's latest events as a list, oldest first; events of one \
time are ordered by item. Events whose item or time is NULL are left out; without any the answer \
is NULL.",
    syntax_example = "interaction_sequence(item, ts [, max_length])",
    sql_example = r#"```sql
> SELECT interaction_sequence(page, seen, 2) AS last_pages
  FROM (VALUES ('home', DATE '2024-05-01'), ('cart', DATE '2024-05-03'),
               ('shoes', DATE '2024-05-02')) AS t (page, seen);
+---------------+
| last_pages    |
+---------------+
| [shoes, cart] |
+---------------+
```"#,
    argument(name = "item", description = "What the event was about, of any type."),
    argument(name = "ts", description = "Date or timestamp of the event."),
    argument(
        name = "max_length",
        description = "How many of the latest events to keep, 1 to 10000; 50 by default. Constant."
    ),
    related_udf(name = "sessionize")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct InteractionSequence {
    signature: Signature,
}

kernel_aggregate!(InteractionSequence, NAME, Sequences, {
    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        times::check_count(SYNTAX, arg_types, 2, 3)?;
        let item = item_type(&arg_types[0]);
        if !RowConverter::supports_fields(&[SortField::new(item.clone())]) {
            return plan_err!("{NAME} cannot order items of type {item}");
        }
        let mut types = vec![item, times::time_type(NAME, "ts", &arg_types[1])?];
        if let Some(length) = arg_types.get(2) {
            if !length.is_integer() && !length.is_null() {
                return plan_err!("{NAME}: max_length must be a whole number, not {length}");
            }
            types.push(DataType::Int64);
        }
        Ok(types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let Some(item) = arg_types.first() else {
            return plan_err!("{SYNTAX} was called without arguments");
        };
        Ok(DataType::List(Arc::new(Field::new_list_field(item.clone(), true))))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let field = |part: &str, of: DataType| {
            let list = DataType::List(Arc::new(Field::new_list_field(of, true)));
            Arc::new(Field::new(format!("{}[{part}]", args.name), list, true))
        };
        Ok(vec![field("times", DataType::Int64), field("items", DataType::LargeBinary)])
    }
});

/// The type of the list's items: encodings of a column are no types of a value.
fn item_type(given: &DataType) -> DataType {
    match given {
        DataType::Dictionary(_, values) => item_type(values),
        DataType::Null => DataType::Utf8,
        other => other.clone(),
    }
}

fn length(value: Option<&ScalarValue>) -> Result<usize> {
    match value {
        None => Ok(LENGTH_DEFAULT),
        Some(ScalarValue::Int64(Some(length))) if (1..=LENGTH_MAX).contains(length) => {
            Ok(usize::try_from(*length).unwrap_or(LENGTH_DEFAULT))
        }
        Some(other) => {
            plan_err!("{NAME}: max_length must be a number from 1 to {LENGTH_MAX}, not {other}")
        }
    }
}

/// An event: its time in the column's own unit, its item as row bytes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    time: i64,
    item: Box<[u8]>,
}

/// Of each group its latest events.
#[derive(Debug)]
struct Sequences {
    length: usize,
    item: DataType,
    converter: RowConverter,
    groups: Vec<BinaryHeap<Reverse<Event>>>,
    event_bytes: usize,
}

impl Sequences {
    fn planned(args: &AccumulatorArgs) -> Result<Self> {
        let max_length = groups::constant(NAME, args, 2, "max_length")?;
        let item = groups::argument_type(NAME, args, 0)?;
        Self::new(item.clone(), length(max_length.as_ref())?)
    }

    fn new(item: DataType, length: usize) -> Result<Self> {
        let converter = RowConverter::new(vec![SortField::new(item.clone())])?;
        Ok(Self { length, item, converter, groups: vec![], event_bytes: 0 })
    }

    fn offer(&mut self, group: usize, time: i64, item: &[u8]) {
        let heap = &mut self.groups[group];
        let before = heap.capacity();
        if heap.len() >= self.length {
            let older = |oldest: &Reverse<Event>| (time, item) <= (oldest.0.time, &*oldest.0.item);
            if heap.peek().is_some_and(older) {
                return;
            }
            if let Some(Reverse(oldest)) = heap.pop() {
                self.event_bytes -= oldest.item.len();
            }
        }
        heap.push(Reverse(Event { time, item: item.into() }));
        self.event_bytes += item.len() + (heap.capacity() - before) * size_of::<Event>();
    }

    /// The events of the first `groups` in order, and how many each group has.
    fn ordered(&self, groups: usize) -> (Vec<&Event>, Vec<usize>) {
        let mut events = vec![];
        let mut counts = vec![];
        for heap in self.groups.iter().take(groups) {
            let start = events.len();
            events.extend(heap.iter().map(|event| &event.0));
            events[start..].sort_unstable();
            counts.push(heap.len());
        }
        (events, counts)
    }
}

/// Lists of values that lie one group after the other; a group of none has no list.
fn lists(values: ArrayRef, counts: &[usize]) -> Result<ArrayRef> {
    if i32::try_from(values.len()).is_err() {
        return exec_err!("{NAME}: the lists of one batch exceed 2^31 items. Hint: max_length");
    }
    let mut offsets = vec![0_i32];
    let mut end = 0_i32;
    for &count in counts {
        end += i32::try_from(count).unwrap_or_default();
        offsets.push(end);
    }
    let nulls: NullBuffer = counts.iter().map(|&count| count > 0).collect();
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Ok(Arc::new(ListArray::try_new(field, offsets, values, Some(nulls))?))
}

impl Kernel for Sequences {
    fn fresh(&self) -> Result<Self> {
        Self::new(self.item.clone(), self.length)
    }

    fn grow(&mut self, groups: usize) {
        self.groups.resize_with(groups.max(self.groups.len()), BinaryHeap::new);
    }

    fn groups(&self) -> usize {
        self.groups.len()
    }

    fn update(&mut self, values: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let [items, times, ..] = values else { return exec_err!("{NAME} misses its columns") };
        let times = Times::new(NAME, times)?;
        let encoded = self.converter.convert_columns(std::slice::from_ref(items))?;
        for (row, group) in rows.iter() {
            if let Some(time) = times.ticks(row).filter(|_| items.is_valid(row)) {
                self.offer(group, time, encoded.row(row).data());
            }
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], rows: Rows<'_>) -> Result<()> {
        let lists: Vec<_> = states.iter().filter_map(|state| state.as_list_opt::<i32>()).collect();
        let [times, items] = lists.as_slice() else {
            return exec_err!("{NAME}: a partial aggregate carries other columns than two lists");
        };
        for (row, group) in rows.iter() {
            if times.is_null(row) {
                continue;
            }
            let (times, items) = (times.value(row), items.value(row));
            let (Some(times), Some(items)) =
                (times.as_primitive_opt::<Int64Type>(), items.as_binary_opt::<i64>())
            else {
                return exec_err!("{NAME}: a partial aggregate carries no times and items");
            };
            for (time, item) in times.values().iter().zip(items.iter().flatten()) {
                self.offer(group, *time, item);
            }
        }
        Ok(())
    }

    fn answers(&self, groups: usize) -> Result<ArrayRef> {
        let (events, counts) = self.ordered(groups);
        let parser = self.converter.parser();
        let rows = events.iter().map(|event| parser.parse(&event.item));
        match self.converter.convert_rows(rows)?.pop() {
            Some(items) => lists(items, &counts),
            None => exec_err!("{NAME}: the items were lost"),
        }
    }

    fn states(&self, groups: usize) -> Result<Vec<ArrayRef>> {
        let (events, counts) = self.ordered(groups);
        let times = Int64Array::from_iter_values(events.iter().map(|event| event.time));
        let items = LargeBinaryArray::from_iter_values(events.iter().map(|event| &event.item));
        Ok(vec![lists(Arc::new(times), &counts)?, lists(Arc::new(items), &counts)?])
    }

    fn forget(&mut self, groups: usize) {
        for heap in self.groups.drain(..groups) {
            let items: usize = heap.iter().map(|event| event.0.item.len()).sum();
            self.event_bytes -= items + heap.capacity() * size_of::<Event>();
        }
    }

    fn heap_bytes(&self) -> usize {
        let heaps = self.groups.capacity() * size_of::<BinaryHeap<Reverse<Event>>>();
        heaps + self.event_bytes + self.converter.size()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, StringArray};
    use arrow::compute::cast;
    use datafusion_common::ScalarValue;
    use proptest::prelude::*;

    use datafusion_expr::AggregateUDFImpl;

    use super::super::groups::testing::{aggregate, check_groups};
    use super::super::times::testing::{in_every_type, stamps};
    use super::*;

    fn sequence(items: &ArrayRef, ts: &ArrayRef, length: usize) -> ScalarValue {
        let kernel = Sequences::new(items.data_type().clone(), length).unwrap();
        aggregate(&kernel, &[items.clone(), ts.clone()])
    }

    fn texts(answer: ScalarValue) -> Option<Vec<String>> {
        let ScalarValue::List(list) = answer else { panic!("{answer}") };
        list.is_valid(0).then(|| {
            let items = cast(&list.value(0), &DataType::Utf8).unwrap();
            items.as_string::<i32>().iter().map(|item| item.unwrap().to_owned()).collect()
        })
    }

    #[test]
    fn items_come_in_the_order_of_their_times_and_ties_by_item() {
        let items: ArrayRef = Arc::new(StringArray::from(vec!["d", "b", "a", "c", "b"]));
        for ts in in_every_type(&[Some(9), Some(2), Some(2), Some(-5), Some(9)]) {
            for to in [DataType::Utf8, DataType::Utf8View, DataType::LargeUtf8] {
                let items = cast(&items, &to).unwrap();
                let all = texts(sequence(&items, &ts, 50)).unwrap();
                assert_eq!(all, ["c", "a", "b", "b", "d"]);
                assert_eq!(texts(sequence(&items, &ts, 2)).unwrap(), ["b", "d"]);
                assert_eq!(texts(sequence(&items, &ts, 3)).unwrap(), ["b", "b", "d"]);
            }
        }
    }

    #[test]
    fn nulls_are_left_out_and_nothing_is_null() {
        let items: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]));
        let ts = stamps(&[None, Some(1), Some(2)]);
        assert_eq!(texts(sequence(&items, &ts, 9)).unwrap(), ["3"]);
        assert_eq!(texts(sequence(&items.slice(0, 2), &ts.slice(0, 2), 9)), None);
        assert_eq!(texts(sequence(&items.slice(0, 0), &ts.slice(0, 0), 9)), None);
    }

    #[test]
    fn a_length_outside_its_limits_is_refused() {
        assert_eq!(length(None).unwrap(), 50);
        for value in [Some(0), Some(10_001), None] {
            let error = length(Some(&ScalarValue::Int64(value))).unwrap_err().to_string();
            assert!(error.contains("from 1 to 10000"), "{error}");
        }
        let types = [DataType::Utf8, DataType::Date32, DataType::Float64];
        let error = InteractionSequence::new().coerce_types(&types).unwrap_err().to_string();
        assert!(error.contains("whole number"), "{error}");
    }

    #[test]
    fn dictionaries_give_plain_items() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let types = [dictionary, DataType::Date32];
        let coerced = InteractionSequence::new().coerce_types(&types).unwrap();
        assert_eq!(coerced, [DataType::Utf8, DataType::Date32]);
    }

    #[test]
    fn memory_is_bounded_by_the_length() {
        let mut kernel = Sequences::new(DataType::Int32, 10).unwrap();
        kernel.grow(1);
        let mut largest = 0;
        for start in 0..100 {
            let numbers = start * 100..(start + 1) * 100;
            let items: ArrayRef = Arc::new(Int32Array::from_iter_values(numbers.clone()));
            let ts = stamps(&numbers.map(|n| Some(i64::from(n))).collect::<Vec<_>>());
            kernel.update(&[items, ts], Rows::all(100)).unwrap();
            largest = largest.max(kernel.heap_bytes());
        }
        assert!(largest < 4096, "{largest}");
        kernel.forget(1);
        assert_eq!(kernel.event_bytes, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn groups_equal_sorting_each_alone(
            rows in prop::collection::vec((0_usize..4, 0_i32..6, 0_i64..5), 1..60),
            length in 1_usize..6,
        ) {
            let items: ArrayRef = Arc::new(Int32Array::from_iter_values(rows.iter().map(|r| r.1)));
            let ts = stamps(&rows.iter().map(|row| Some(row.2)).collect::<Vec<_>>());
            let groups: Vec<usize> = rows.iter().map(|row| row.0).collect();
            let kernel = Sequences::new(DataType::Int32, length).unwrap();
            check_groups(&kernel, &[items.clone(), ts.clone()], &groups);
            let mut expected: Vec<(i64, i32)> = rows.iter().map(|row| (row.2, row.1)).collect();
            expected.sort_unstable();
            let latest = expected.split_off(expected.len().saturating_sub(length));
            let latest: Vec<String> = latest.iter().map(|(_, item)| item.to_string()).collect();
            prop_assert_eq!(texts(sequence(&items, &ts, length)).unwrap(), latest);
        }
    }
}
