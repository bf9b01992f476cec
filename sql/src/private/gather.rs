//! What units contribute, by group: bounded, and without the units.
//!
//! Rows come sorted by unit. Of each unit's rows — one for each of its groups, or as they are where
//! rows are bounded — at most so many are kept, each choice being equally likely; a group keeps
//! nothing but numbers. A group that no unit was kept in does not exist, unless groups are public.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, UInt64Type};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::execution::memory_pool::MemoryReservation;
use udfs::privacy::generator::Generator;
use udfs::privacy::noise::bounded::choose;
use udfs::privacy::noise::distinct::Covered;

use crate::error::{Error, Result};
use crate::private::options::{Contributions, Selection, Spec, Statistic};

/// Of each unit so many rows of a group are looked at by statistics of rows.
pub(crate) const ROWS_MAX: u32 = 5;

/// What a row takes in memory while it may be kept, beside its batch.
const ROW_BYTES: usize = 48;

/// What a group takes in memory beside its key and its numbers.
const GROUP_BYTES: usize = 128;

/// What a number takes that is kept, and a value of a set beside its bytes.
const NUMBER_BYTES: usize = size_of::<f64>();
const DISTINCT_BYTES: usize = 40;

/// The contributions to one statistic of one group.
#[derive(Debug, Clone)]
pub(crate) enum Values {
    /// Whole numbers.
    Whole(Vec<i64>),
    /// Real numbers.
    Real(Vec<f64>),
    /// Different values.
    Distinct(Covered),
}

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its columns in Arrow's row format.
    pub(crate) key: Box<[u8]>,
    /// How many units contribute.
    pub(crate) units: u64,
    /// What they contribute, a statistic each.
    pub(crate) values: Vec<Values>,
    last_unit: u64,
}

/// All groups, and how to read their keys.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) groups: Vec<Group>,
    pub(crate) keys: RowConverter,
}

/// Gathers batches.
pub(crate) struct Gatherer {
    spec: Arc<Spec>,
    readers: Vec<Reader>,
    units: RowConverter,
    keys: RowConverter,
    places: HashMap<Box<[u8]>, usize>,
    groups: Vec<Group>,
    block: Block,
    /// The number of the unit whose rows the block has.
    unit: u64,
    memory: MemoryReservation,
}

/// The rows of one unit, which may come in several batches.
#[derive(Default)]
struct Block {
    unit: Vec<u8>,
    rows: Vec<(usize, usize)>,
    batches: Vec<Decoded>,
}

/// A batch as it is read.
struct Decoded {
    keys: Rows,
    columns: Vec<Column>,
    bytes: usize,
}

/// How the column of a statistic is read.
enum Reader {
    Whole,
    Real,
    /// Of a row's values, or of its one, those that nobody before covers are kept, up to so many.
    Distinct {
        values: RowConverter,
        values_max: usize,
    },
}

enum Column {
    Whole(Int64Array),
    Real(Float64Array),
    Lists(ListArray),
    /// The values in Arrow's row format, those of lists from the first list's on.
    Distinct {
        values: Rows,
        is_null: Option<NullBuffer>,
        lists: Option<ListArray>,
        values_max: usize,
    },
}

impl Gatherer {
    /// A gatherer of an input, whose memory is that of `memory`. `results` are the types of the
    /// statistics.
    ///
    /// # Errors
    /// When units or groups are of types that cannot be compared.
    pub(crate) fn new(
        spec: &Arc<Spec>,
        input: &Schema,
        results: &[DataType],
        memory: MemoryReservation,
    ) -> Result<Self> {
        let fields: Vec<DataType> =
            input.fields().iter().map(|field| field.data_type().clone()).collect();
        let (Some(unit), Some(groups)) = (fields.first(), fields.get(1..1 + spec.groups)) else {
            return Err(Error::Internal("a private aggregation has too few columns".into()));
        };
        Ok(Self {
            spec: Arc::clone(spec),
            readers: readers(spec, &fields, results)?,
            units: converter(std::slice::from_ref(unit))?,
            keys: converter(groups)?,
            places: HashMap::new(),
            groups: Vec::new(),
            block: Block::default(),
            unit: 0,
            memory,
        })
    }

    /// Takes a batch.
    ///
    /// # Errors
    /// When memory runs out, or a value is no number.
    pub(crate) fn take(&mut self, batch: &RecordBatch, generator: &mut Generator) -> Result<()> {
        let Some(unit) = batch.columns().first() else { return Ok(()) };
        let units = self.units.convert_columns(std::slice::from_ref(unit))?;
        let decoded = self.decoded(batch)?;
        self.memory.try_grow(decoded.bytes)?;
        self.block.batches.push(decoded);
        let is_public = self.spec.options.selection == Selection::Public;
        for row in 0..batch.num_rows() {
            // What an outer join gives for a group without persons.
            if is_public && unit.is_null(row) {
                let key = self.block.batches.last().map(|batch| batch.keys.row(row).data().into());
                if let Some(key) = key {
                    self.place(key)?;
                }
                continue;
            }
            let of = units.row(row);
            if self.block.unit != of.data() || self.block.rows.is_empty() {
                self.end_block(generator)?;
                self.block.unit.clear();
                self.block.unit.extend_from_slice(of.data());
            }
            let batch = self.block.batches.len().saturating_sub(1);
            self.block.rows.push((batch, row));
        }
        Ok(())
    }

    /// What was gathered, and the memory that it takes.
    ///
    /// # Errors
    /// When memory runs out.
    pub(crate) fn finish(
        mut self,
        generator: &mut Generator,
    ) -> Result<(Gathered, MemoryReservation)> {
        self.end_block(generator)?;
        // An answer of one row is there whether or not there are rows.
        if self.spec.groups == 0 {
            self.place(Box::default())?;
        }
        let mut groups = self.groups;
        // Their order must not tell whose rows came first.
        groups.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok((Gathered { groups, keys: self.keys }, self.memory))
    }

    fn decoded(&self, batch: &RecordBatch) -> Result<Decoded> {
        let groups = 1..1 + self.spec.groups;
        let keys = batch.columns().get(groups.clone()).unwrap_or_default();
        let keys = match keys.is_empty() {
            true => self.keys.empty_rows(0, 0),
            false => self.keys.convert_columns(keys)?,
        };
        let values = batch.columns().iter().skip(groups.end);
        let columns: Vec<Column> = values
            .zip(&self.readers)
            .map(|(values, reader)| reader.column(values, self.spec.options.contributions))
            .collect::<Result<_>>()?;
        let rows = batch.num_rows() * ROW_BYTES + columns.iter().map(Column::bytes).sum::<usize>();
        let bytes = batch.get_array_memory_size() + keys.size() + rows;
        Ok(Decoded { keys, columns, bytes })
    }

    /// Keeps some rows of the block, and forgets the others.
    fn end_block(&mut self, generator: &mut Generator) -> Result<()> {
        let mut block = std::mem::take(&mut self.block);
        if !block.rows.is_empty() {
            self.unit += 1;
            let kept_max = match (self.spec.options.contributions, self.spec.groups) {
                (Contributions::Groups(_), 0) => 1,
                (contributions, _) => contributions.count(),
            };
            let kept_max = usize::try_from(kept_max).unwrap_or(usize::MAX);
            let kept = choose(&vec![0; block.rows.len()], kept_max, generator);
            for ((batch, row), kept) in block.rows.iter().zip(kept) {
                if let Some(batch) = block.batches.get(*batch).filter(|_| kept) {
                    self.keep(batch, *row, generator)?;
                }
            }
            block.rows.clear();
        }
        // The last batch may have rows of the next unit.
        let past = block.batches.len().saturating_sub(1);
        let freed: usize = block.batches.drain(..past).map(|batch| batch.bytes).sum();
        self.memory.shrink(freed);
        self.block = block;
        Ok(())
    }

    fn keep(&mut self, batch: &Decoded, row: usize, generator: &mut Generator) -> Result<()> {
        let key = match self.spec.groups {
            0 => Box::default(),
            _ => batch.keys.row(row).data().into(),
        };
        let place = self.place(key)?;
        let unit = self.unit;
        let Some(group) = self.groups.get_mut(place) else { return Ok(()) };
        if group.last_unit != unit {
            group.last_unit = unit;
            group.units += 1;
        }
        let mut added = 0;
        for (values, column) in group.values.iter_mut().zip(&batch.columns) {
            added += column.add(row, values, generator);
        }
        self.memory.try_grow(added)?;
        Ok(())
    }

    fn place(&mut self, key: Box<[u8]>) -> Result<usize> {
        if let Some(place) = self.places.get(&key) {
            return Ok(*place);
        }
        self.memory.try_grow(GROUP_BYTES + 2 * key.len() + 48 * self.readers.len())?;
        let values = self.readers.iter().map(|reader| match reader {
            Reader::Whole => Values::Whole(Vec::new()),
            Reader::Real => Values::Real(Vec::new()),
            Reader::Distinct { .. } => Values::Distinct(Covered::default()),
        });
        let values = values.collect();
        self.groups.push(Group { key: key.clone(), units: 0, values, last_unit: 0 });
        self.places.insert(key, self.groups.len() - 1);
        Ok(self.groups.len() - 1)
    }
}

fn converter(types: &[DataType]) -> Result<RowConverter> {
    let fields = types.iter().map(|of| SortField::new(of.clone())).collect();
    RowConverter::new(fields).map_err(|_| {
        Error::unsupported(
            "privacy units, groups and distinct values cannot be of this type",
            "take numbers, texts, dates or truth values",
        )
    })
}

/// How the columns of values are read, which come behind the unit and the groups.
fn readers(spec: &Spec, fields: &[DataType], results: &[DataType]) -> Result<Vec<Reader>> {
    let values = fields.iter().skip(1 + spec.groups);
    let readers = spec.aggregates.iter().zip(results).zip(values);
    readers
        .map(|((aggregate, result), values)| match (aggregate.statistic, result) {
            (Statistic::Distinct, _) => {
                let of = match (values, spec.options.contributions) {
                    (DataType::List(item), Contributions::Groups(_)) => item.data_type(),
                    (one, _) => one,
                };
                // `as` saturates.
                let values_max = aggregate.bounds.map_or(0.0, |(_, most)| most) as usize;
                Ok(Reader::Distinct { values: converter(std::slice::from_ref(of))?, values_max })
            }
            (_, DataType::Int64) => Ok(Reader::Whole),
            _ => Ok(Reader::Real),
        })
        .collect()
}

impl Reader {
    fn column(&self, values: &ArrayRef, contributions: Contributions) -> Result<Column> {
        match (self, values.data_type()) {
            (Self::Distinct { values: converter, values_max }, of) => {
                let is_list = matches!(of, DataType::List(_));
                let lists = match contributions {
                    Contributions::Groups(_) if is_list => Some(values.as_list::<i32>().clone()),
                    _ => None,
                };
                // A part of a batch has the values of the whole.
                let values = match &lists {
                    Some(lists) => {
                        let (first, end) = (offset(lists, 0), offset(lists, lists.len()));
                        lists.values().slice(first, end.saturating_sub(first))
                    }
                    None => Arc::clone(values),
                };
                Ok(Column::Distinct {
                    values: converter.convert_columns(std::slice::from_ref(&values))?,
                    is_null: values.logical_nulls(),
                    lists,
                    values_max: *values_max,
                })
            }
            (Self::Whole, _) => Ok(Column::Whole(whole(values)?)),
            (Self::Real, DataType::List(_)) => {
                let item = Field::new_list_field(DataType::Float64, true);
                let lists = cast(values, &DataType::List(Arc::new(item)))?;
                Ok(Column::Lists(lists.as_list::<i32>().clone()))
            }
            (Self::Real, _) => {
                let real = cast(values, &DataType::Float64)?;
                Ok(Column::Real(real.as_primitive::<Float64Type>().clone()))
            }
        }
    }
}

/// Whole numbers of 64 bits with a sign. Greater ones become the greatest of these, which no bound
/// lies above.
fn whole(values: &ArrayRef) -> Result<Int64Array> {
    if let Some(unsigned) = values.as_primitive_opt::<UInt64Type>() {
        return Ok(unsigned.unary(|value| i64::try_from(value).unwrap_or(i64::MAX)));
    }
    Ok(cast(values, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Where a row's list begins among all values.
fn offset(lists: &ListArray, row: usize) -> usize {
    let found = lists.offsets().get(row).and_then(|at| usize::try_from(*at).ok());
    found.unwrap_or_default()
}

/// Where the values of a row are: its own, or those of its list, counted from the first list's.
fn places(lists: Option<&ListArray>, row: usize) -> Range<usize> {
    match lists {
        None => row..row + 1,
        Some(lists) if lists.is_valid(row) => {
            let base = offset(lists, 0);
            offset(lists, row) - base..offset(lists, row + 1) - base
        }
        Some(_) => 0..0,
    }
}

impl Column {
    /// What it takes in memory beside the batch.
    fn bytes(&self) -> usize {
        match self {
            Self::Distinct { values, .. } => values.size(),
            _ => 0,
        }
    }

    /// Adds a row's value, which NULL has none of; gives the bytes that were added.
    fn add(&self, row: usize, to: &mut Values, generator: &mut Generator) -> usize {
        match (self, to) {
            (Self::Whole(values), Values::Whole(to)) if values.is_valid(row) => {
                to.push(values.value(row));
                NUMBER_BYTES
            }
            (Self::Real(values), Values::Real(to)) if values.is_valid(row) => {
                to.push(values.value(row));
                NUMBER_BYTES
            }
            (Self::Lists(lists), Values::Real(to)) if lists.is_valid(row) => {
                let list = lists.value(row);
                let values = list.as_primitive::<Float64Type>();
                let kept = choose(&vec![0; values.len()], ROWS_MAX as usize, generator);
                let before = to.len();
                let kept = values.iter().zip(kept).filter(|(_, kept)| *kept);
                to.extend(kept.filter_map(|(value, _)| value));
                NUMBER_BYTES * (to.len() - before)
            }
            (Self::Distinct { values, is_null, lists, values_max }, Values::Distinct(to)) => {
                let is_there = |at: &usize| !is_null.as_ref().is_some_and(|null| null.is_null(*at));
                let there = places(lists.as_ref(), row).filter(is_there);
                let before = to.count();
                let of: Vec<&[u8]> = there.map(|at| values.row(at).data()).collect();
                let bytes = to.cover(of, *values_max);
                bytes + DISTINCT_BYTES * (to.count() - before)
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ListBuilder, StringBuilder, UInt64Array};
    use arrow::record_batch::RecordBatchOptions;
    use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
    use sqlparser::ast::{Expr, Ident};
    use udfs::privacy::generator::generator;

    use super::*;
    use crate::private::options::{Aggregate, Mechanism, Options};

    fn spec(contributions: Contributions, selection: Selection) -> Arc<Spec> {
        let options = Options {
            epsilon: 1.0,
            delta: Some(1e-6),
            mechanism: Mechanism::Laplace,
            unit: Expr::Identifier(Ident::new("id")),
            contributions,
            units_min: None,
            selection,
        };
        let aggregate = Aggregate { statistic: Statistic::Sum, bounds: Some((0.0, 1.0)) };
        Arc::new(Spec { options, groups: 1, aggregates: vec![aggregate] })
    }

    /// Units with rows in groups, three rows a batch; each row has the value 1.
    fn gathered(spec: &Arc<Spec>, rows: &[(Option<i64>, i64)], seed: u8) -> Gathered {
        let schema = Arc::new(Schema::new(vec![
            Field::new("unit", DataType::Int64, true),
            Field::new("group 0", DataType::Int64, true),
            Field::new("value 0", DataType::Int64, true),
        ]));
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let memory = MemoryConsumer::new("test").register(&pool);
        let mut gatherer = Gatherer::new(spec, &schema, &[DataType::Int64], memory).unwrap();
        let mut generator = generator([seed; 32]);
        for rows in rows.chunks(3) {
            let columns: Vec<ArrayRef> = vec![
                Arc::new(rows.iter().map(|(unit, _)| *unit).collect::<Int64Array>()),
                Arc::new(rows.iter().map(|(_, group)| Some(*group)).collect::<Int64Array>()),
                Arc::new(Int64Array::from(vec![1; rows.len()])),
            ];
            let options = RecordBatchOptions::new();
            let batch =
                RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options).unwrap();
            gatherer.take(&batch, &mut generator).unwrap();
        }
        gatherer.finish(&mut generator).unwrap().0
    }

    fn sums(gathered: &Gathered) -> Vec<(u64, usize)> {
        let count = |group: &Group| match &group.values[0] {
            Values::Whole(values) => values.len(),
            _ => panic!("sums of whole numbers are whole"),
        };
        gathered.groups.iter().map(|group| (group.units, count(group))).collect()
    }

    #[test]
    fn each_unit_is_in_so_many_groups_and_no_more() {
        // Unit 0 is in seven groups, unit 1 in one, unit 2 in four.
        let groups = [7, 1, 4];
        let rows: Vec<(Option<i64>, i64)> = (0..3)
            .flat_map(|unit| (0..groups[unit]).map(move |group| (Some(unit as i64), group)))
            .collect();
        for groups_max in 1..9 {
            let kept: u64 =
                groups.iter().map(|groups| u64::from(groups_max).min(*groups as u64)).sum();
            let spec = spec(Contributions::Groups(groups_max), Selection::Threshold);
            for seed in 0..20 {
                let found = sums(&gathered(&spec, &rows, seed));
                assert_eq!(found.iter().map(|(units, _)| units).sum::<u64>(), kept);
                assert!(
                    found.iter().all(|(units, values)| *units > 0 && *units as usize == *values)
                );
            }
        }
    }

    #[test]
    fn rows_of_a_unit_in_one_group_are_one_unit() {
        let rows: Vec<(Option<i64>, i64)> = vec![(Some(5), 3); 10];
        let spec = spec(Contributions::Rows(4), Selection::Threshold);
        assert_eq!(sums(&gathered(&spec, &rows, 1)), [(1, 4)]);
    }

    #[test]
    fn distinct_values_are_few_of_each_unit() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("unit", DataType::Int64, true),
            Field::new("value 0", DataType::new_list(DataType::Utf8, true), true),
        ]));
        // Unit 1 has a, b and c, unit 2 a, NULL and b, unit 3 a, and unit 4 nothing.
        let mut lists = ListBuilder::new(StringBuilder::new());
        for values in [vec![Some("c"), Some("a"), Some("b")], vec![Some("a"), None, Some("b")]] {
            lists.append_value(values);
        }
        lists.append_value([Some("a")]);
        lists.append_null();
        let units: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
        let columns: Vec<ArrayRef> = vec![units, Arc::new(lists.finish())];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        for (values_max, expected) in [(1.0, 2), (2.0, 2), (3.0, 3)] {
            let grouped = spec(Contributions::Groups(1), Selection::Threshold);
            let bounds = Some((0.0, values_max));
            let aggregates = vec![Aggregate { statistic: Statistic::Distinct, bounds }];
            let options = grouped.options.clone();
            let spec = Arc::new(Spec { options, groups: 0, aggregates });
            let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
            let memory = MemoryConsumer::new("test").register(&pool);
            let results = [DataType::Int64];
            let mut gatherer = Gatherer::new(&spec, &schema, &results, memory).unwrap();
            let mut generator = generator([1; 32]);
            // In parts: lists need not begin where their values do.
            for part in [batch.slice(0, 1), batch.slice(1, 3)] {
                gatherer.take(&part, &mut generator).unwrap();
            }
            let gathered = gatherer.finish(&mut generator).unwrap().0;
            let Values::Distinct(covered) = &gathered.groups[0].values[0] else { panic!() };
            assert_eq!((covered.count(), gathered.groups[0].units), (expected, 4));
        }
    }

    #[test]
    fn numbers_beyond_those_with_a_sign_are_the_greatest_of_these() {
        let greatest = i64::MAX.unsigned_abs();
        let given = [Some(0), None, Some(greatest), Some(greatest + 1), Some(u64::MAX)];
        let given: ArrayRef = Arc::new(UInt64Array::from(given.to_vec()));
        let expected = [Some(0), None, Some(i64::MAX), Some(i64::MAX), Some(i64::MAX)];
        assert_eq!(whole(&given).unwrap(), Int64Array::from(expected.to_vec()));
    }

    #[test]
    fn nobody_is_a_unit_but_for_public_groups() {
        let rows = [(None, 1), (None, 2), (Some(1), 1)];
        let threshold = spec(Contributions::Groups(9), Selection::Threshold);
        assert_eq!(sums(&gathered(&threshold, &rows, 1)), [(2, 2), (1, 1)]);
        let public = spec(Contributions::Groups(9), Selection::Public);
        assert_eq!(sums(&gathered(&public, &rows, 1)), [(1, 1), (0, 0)]);
    }
}
