//! Equivalence classes: what the aggregates of this package count in.
//!
//! Rows whose quasi-identifiers are all equal form a class. Columns of any type are compared in
//! Arrow's row format, in which equal rows have equal bytes and NULL is a value like any other; the
//! format also keeps the order of a column's values, which ordered t-closeness uses. Partial states
//! carry those bytes, so that partitions and stages merge by content.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryArray, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion_common::utils::SingleRowListArrayBuilder;
use datafusion_common::{HashMap, Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::Accumulator;
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};

/// Distinct rows of some columns, numbered in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct DistinctRows {
    converter: Option<RowConverter>,
    numbers: HashMap<Box<[u8]>, usize>,
    key_bytes: usize,
}

impl DistinctRows {
    /// The rows of a batch, comparable with those of every other batch of the same columns.
    fn encode(&mut self, columns: &[ArrayRef]) -> Result<Rows> {
        let converter = match self.converter.take() {
            Some(converter) => converter,
            None => RowConverter::new(sort_fields(columns.iter().map(|array| array.data_type())))?,
        };
        let rows = converter.convert_columns(columns);
        self.converter = Some(converter);
        Ok(rows?)
    }

    fn number(&mut self, row: &[u8]) -> usize {
        if let Some(number) = self.numbers.get(row) {
            return *number;
        }
        let number = self.numbers.len();
        self.numbers.insert(Box::from(row), number);
        self.key_bytes += row.len();
        number
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The numbers of the rows in the order of the rows' values, NULL first.
    pub(super) fn ordered(&self) -> Vec<usize> {
        let mut entries: Vec<(&[u8], usize)> =
            self.numbers.iter().map(|(row, number)| (row.as_ref(), *number)).collect();
        entries.sort_unstable();
        entries.into_iter().map(|(_, number)| number).collect()
    }

    fn size(&self) -> usize {
        self.key_bytes
            + self.numbers.capacity() * (size_of::<(Box<[u8]>, usize)>() + 1)
            + self.converter.as_ref().map_or(0, RowConverter::size)
    }

    /// The rows by number, as a list of binary values.
    fn state(&self) -> ScalarValue {
        let mut rows: Vec<(&[u8], usize)> =
            self.numbers.iter().map(|(row, number)| (row.as_ref(), *number)).collect();
        rows.sort_unstable_by_key(|(_, number)| *number);
        list(Arc::new(LargeBinaryArray::from_iter_values(rows.into_iter().map(|(row, _)| row))))
    }

    /// The numbers here of the rows in another's state.
    fn merge(&mut self, rows: &ArrayRef) -> Result<Vec<usize>> {
        let Some(rows) = rows.as_binary_opt::<i64>() else {
            return exec_err!("a partial aggregate carries no rows");
        };
        Ok(rows.iter().map(|row| self.number(row.unwrap_or_default())).collect())
    }
}

/// Counts of rows by class.
#[derive(Debug, Default)]
pub(super) struct ClassSizes {
    classes: DistinctRows,
    sizes: Vec<u64>,
}

impl ClassSizes {
    /// The size of the smallest class; `None` without rows.
    pub(super) fn smallest(&self) -> Option<u64> {
        self.sizes.iter().copied().min()
    }

    fn add(&mut self, class: usize, count: u64) {
        match self.sizes.get_mut(class) {
            Some(size) => *size += count,
            None => self.sizes.push(count),
        }
    }
}

impl Accumulator for ClassSizes {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = self.classes.encode(values)?;
        for row in rows.iter() {
            let class = self.classes.number(row.data());
            self.add(class, 1);
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(self.smallest().and_then(|size| i64::try_from(size).ok())))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.classes.size() + self.sizes.capacity() * size_of::<u64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.classes.state(), numbers(self.sizes.iter().copied())])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [classes, sizes] = states else {
            return exec_err!("a partial aggregate carries {} columns, not 2", states.len());
        };
        for row in 0..classes.len() {
            let (Some(classes), Some(sizes)) = (element(classes, row)?, element(sizes, row)?)
            else {
                continue;
            };
            let classes = self.classes.merge(&classes)?;
            for (class, size) in classes.into_iter().zip(counts(&sizes)?) {
                self.add(class, size);
            }
        }
        Ok(())
    }
}

/// Counts of rows by class and sensitive value.
#[derive(Debug, Default)]
pub(super) struct Crosstab {
    classes: DistinctRows,
    values: DistinctRows,
    cells: HashMap<(usize, usize), u64>,
}

impl Crosstab {
    /// Of each class its sensitive values, by number, with their counts.
    pub(super) fn by_class(&self) -> Vec<Vec<(usize, u64)>> {
        let mut classes = vec![vec![]; self.classes.len()];
        for (&(class, value), &count) in &self.cells {
            if let Some(values) = classes.get_mut(class) {
                values.push((value, count));
            }
        }
        classes
    }

    /// The sensitive values.
    pub(super) fn values(&self) -> &DistinctRows {
        &self.values
    }

    /// How often each sensitive value occurs in all, by number.
    pub(super) fn totals(&self) -> Vec<u64> {
        let mut totals = vec![0; self.values.len()];
        for (&(_, value), &count) in &self.cells {
            if let Some(total) = totals.get_mut(value) {
                *total += count;
            }
        }
        totals
    }
}

/// An aggregate over a [`Crosstab`], by the function that reads the result off it.
#[derive(Debug)]
pub(super) struct CrosstabAccumulator {
    table: Crosstab,
    read: fn(&Crosstab) -> ScalarValue,
}

impl CrosstabAccumulator {
    /// An empty one.
    pub(super) fn new(read: fn(&Crosstab) -> ScalarValue) -> Self {
        Self { table: Crosstab::default(), read }
    }
}

impl Accumulator for CrosstabAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some((sensitive, quasi)) = values.split_first() else {
            return exec_err!("a sensitive column is missing");
        };
        let table = &mut self.table;
        let classes = table.classes.encode(quasi)?;
        let values = table.values.encode(std::slice::from_ref(sensitive))?;
        for (class, value) in classes.iter().zip(values.iter()) {
            let cell = (table.classes.number(class.data()), table.values.number(value.data()));
            *table.cells.entry(cell).or_default() += 1;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok((self.read)(&self.table))
    }

    fn size(&self) -> usize {
        let cells = self.table.cells.capacity() * (size_of::<((usize, usize), u64)>() + 1);
        size_of_val(self) + self.table.classes.size() + self.table.values.size() + cells
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let table = &self.table;
        let as_u64 = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let cells: Vec<_> = table.cells.iter().collect();
        Ok(vec![
            table.classes.state(),
            table.values.state(),
            numbers(cells.iter().map(|((class, _), _)| as_u64(*class))),
            numbers(cells.iter().map(|((_, value), _)| as_u64(*value))),
            numbers(cells.iter().map(|(_, count)| **count)),
        ])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [first, ..] = states else { return exec_err!("a partial aggregate is empty") };
        for row in 0..first.len() {
            let columns: Vec<_> =
                states.iter().map(|column| element(column, row)).collect::<Result<_>>()?;
            let [Some(classes), Some(values), Some(class), Some(value), Some(count)] =
                columns.as_slice()
            else {
                continue;
            };
            let classes = self.table.classes.merge(classes)?;
            let values = self.table.values.merge(values)?;
            let at = |numbers: &[usize], number: u64| {
                usize::try_from(number).ok().and_then(|number| numbers.get(number)).copied()
            };
            let cells = counts(class)?.into_iter().zip(counts(value)?).zip(counts(count)?);
            for ((class, value), count) in cells {
                let (Some(class), Some(value)) = (at(&classes, class), at(&values, value)) else {
                    return exec_err!("a partial aggregate names a class it does not carry");
                };
                *self.table.cells.entry((class, value)).or_default() += count;
            }
        }
        Ok(())
    }
}

/// Checks the columns of a call while planning; `before` are the columns before the
/// quasi-identifiers.
///
/// # Errors
/// When there is no quasi-identifier, or a column's type cannot be compared.
pub(super) fn check_columns(name: &str, before: usize, types: &[DataType]) -> Result<()> {
    if types.len() <= before {
        let sensitive = if before == 0 { "" } else { "the sensitive column and " };
        return plan_err!("{name} needs {sensitive}at least one quasi-identifier column");
    }
    for data_type in types {
        if !RowConverter::supports_fields(&sort_fields([data_type].into_iter())) {
            return plan_err!("{name} cannot compare values of type {data_type}");
        }
    }
    Ok(())
}

/// Checks how the aggregate is called.
///
/// # Errors
/// When DISTINCT was asked for: rows are what is counted.
pub(super) fn check_call(name: &str, args: &AccumulatorArgs) -> Result<()> {
    if args.is_distinct {
        return plan_err!("{name} does not take DISTINCT: it counts the rows of each class");
    }
    Ok(())
}

/// The state columns of [`ClassSizes`].
pub(super) fn class_state(args: &StateFieldsArgs) -> Vec<FieldRef> {
    vec![
        state_field(args.name, "classes", DataType::LargeBinary),
        state_field(args.name, "sizes", DataType::UInt64),
    ]
}

/// The state columns of [`CrosstabAccumulator`].
pub(super) fn crosstab_state(args: &StateFieldsArgs) -> Vec<FieldRef> {
    vec![
        state_field(args.name, "classes", DataType::LargeBinary),
        state_field(args.name, "values", DataType::LargeBinary),
        state_field(args.name, "cell_class", DataType::UInt64),
        state_field(args.name, "cell_value", DataType::UInt64),
        state_field(args.name, "cell_count", DataType::UInt64),
    ]
}

fn state_field(name: &str, part: &str, item: DataType) -> FieldRef {
    let list = DataType::List(Arc::new(Field::new_list_field(item, true)));
    Arc::new(Field::new(format!("{name}[{part}]"), list, true))
}

fn sort_fields<'a>(types: impl Iterator<Item = &'a DataType>) -> Vec<SortField> {
    types.map(|data_type| SortField::new(data_type.clone())).collect()
}

fn list(items: ArrayRef) -> ScalarValue {
    SingleRowListArrayBuilder::new(items).build_list_scalar()
}

fn numbers(values: impl Iterator<Item = u64>) -> ScalarValue {
    list(Arc::new(UInt64Array::from_iter_values(values)))
}

/// The list in a row of a state column; `None` is NULL.
fn element(column: &ArrayRef, row: usize) -> Result<Option<ArrayRef>> {
    match column.as_list_opt::<i32>() {
        Some(lists) => Ok(lists.is_valid(row).then(|| lists.value(row))),
        None => exec_err!("a partial aggregate carries {}, not lists", column.data_type()),
    }
}

fn counts(array: &ArrayRef) -> Result<Vec<u64>> {
    match array.as_primitive_opt::<UInt64Type>() {
        Some(counts) => Ok(counts.values().to_vec()),
        None => exec_err!("a partial aggregate carries {}, not counts", array.data_type()),
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! Runs an aggregate as the engine does: in one stage, and in partitions that merge.

    use datafusion_common::Result;
    use datafusion_expr::AggregateUDFImpl;
    use datafusion_expr::function::AccumulatorArgs;

    use super::*;

    /// An accumulator for columns of these types.
    pub(crate) fn accumulator(
        function: &impl AggregateUDFImpl,
        columns: &[ArrayRef],
        is_distinct: bool,
    ) -> Result<Box<dyn Accumulator>> {
        let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
        let return_type = function.return_type(&types)?;
        let fields: Vec<FieldRef> =
            types.into_iter().map(|t| Arc::new(Field::new("c", t, true)) as FieldRef).collect();
        function.accumulator(AccumulatorArgs {
            return_field: Arc::new(Field::new("r", return_type, true)),
            schema: &arrow::datatypes::Schema::empty(),
            ignore_nulls: false,
            order_bys: &[],
            is_reversed: false,
            name: "a",
            is_distinct,
            exprs: &[],
            expr_fields: &fields,
        })
    }

    /// The aggregate over columns, asserted to be the same in one stage, in two, and in three
    /// partitions of which one is empty.
    pub(crate) fn aggregate(
        function: &impl AggregateUDFImpl,
        columns: &[ArrayRef],
    ) -> Result<ScalarValue> {
        let mut whole = accumulator(function, columns, false)?;
        whole.update_batch(columns)?;
        let answer = whole.evaluate()?;
        let rows = columns[0].len();
        let mut merged = accumulator(function, columns, false)?;
        let cuts = [(0, rows / 3), (rows / 3, 0), (rows / 3, rows - rows / 3)];
        for (offset, length) in cuts {
            let mut part = accumulator(function, columns, false)?;
            let slices: Vec<ArrayRef> = columns.iter().map(|c| c.slice(offset, length)).collect();
            if length > 0 {
                part.update_batch(&slices)?;
            }
            let state: Vec<ArrayRef> =
                part.state()?.iter().map(|s| s.to_array()).collect::<Result<_>>()?;
            merged.merge_batch(&state)?;
        }
        let again = merged.evaluate()?;
        match (&answer, &again) {
            (ScalarValue::Float64(Some(left)), ScalarValue::Float64(Some(right))) => {
                assert!((left - right).abs() < 1e-12, "{left} {right}");
            }
            _ => assert_eq!(answer, again),
        }
        assert!(merged.size() > 0);
        Ok(answer)
    }

    /// A column of text.
    pub(crate) fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(arrow::array::StringArray::from(values.to_vec()))
    }

    /// A column of integers.
    pub(crate) fn ints(values: &[i64]) -> ArrayRef {
        Arc::new(arrow::array::Int64Array::from(values.to_vec()))
    }
}
