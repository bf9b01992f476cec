//! The indexed side of a fuzzy join: its rows, in as many pieces as memory asks for.
//!
//! Rows are held in memory while it suffices. When it does not, they go to the disk in pieces so
//! small that every partition can hold and index one at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, RecordBatch, StringViewArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::NullEquality;
use datafusion::common::cast::as_string_view_array;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, SpillFile, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::SpillMetrics;
use datafusion::physical_plan::spill::{SpillManager, get_record_batch_memory_size};
use futures::TryStreamExt;
use udfs::fuzzy::index::{InBlock, Index, Likeness};

/// Rows are held as they came and in one piece, and their texts once more.
const COPIES: usize = 3;
/// A smaller index than this is not worth having.
const SMALL: usize = 1 << 20;

/// How the left side is read.
pub(super) struct Build {
    pub input: Arc<dyn ExecutionPlan>,
    pub partition: usize,
    /// Partitions that read what is built.
    pub readers: usize,
    pub likeness: Likeness,
    pub text: Arc<dyn PhysicalExpr>,
    pub keys: Keys,
    pub context: Arc<TaskContext>,
}

/// The keys that must be equal, of one side.
pub(super) struct Keys {
    pub expressions: Vec<Arc<dyn PhysicalExpr>>,
    pub null_equality: NullEquality,
}

/// The left side.
pub(super) struct Built {
    pub pieces: Vec<Piece>,
    pub schema: SchemaRef,
}

/// A part of the left side, with the rows that have found a match.
pub(super) struct Piece {
    place: Place,
    matched: Vec<AtomicU64>,
}

enum Place {
    Memory(Arc<Indexed>),
    Disk(Arc<dyn SpillFile>),
}

/// Rows with their texts indexed.
pub(super) struct Indexed {
    pub rows: RecordBatch,
    pub index: Index,
    /// The rows of each distinct text of a block, one text after the other.
    rows_of: Vec<u32>,
    starts: Vec<usize>,
    blocks: Blocks,
    _memory: MemoryReservation,
}

impl Piece {
    fn new(rows: usize, place: Place) -> Self {
        Self { place, matched: (0..rows.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Notes that a row has found a match.
    pub fn mark(&self, row: u32) {
        let word = &self.matched[row as usize / 64];
        let bit = 1 << (row % 64);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub fn is_marked(&self, row: u32) -> bool {
        self.matched[row as usize / 64].load(Ordering::Relaxed) & (1 << (row % 64)) != 0
    }

    /// The rows, indexed; read from the disk if they are there.
    pub async fn open(&self, build: &Build, schema: &SchemaRef) -> Result<Arc<Indexed>> {
        match &self.place {
            Place::Memory(indexed) => Ok(Arc::clone(indexed)),
            Place::Disk(file) => {
                let memory = build.reservation();
                let batches = read(build, schema, file)?;
                let batches = batches.try_collect::<Vec<_>>().await?;
                let bytes: usize = batches.iter().map(get_record_batch_memory_size).sum();
                memory.try_grow(bytes * COPIES)?;
                Ok(Arc::new(build.index(schema, &batches, memory)?))
            }
        }
    }
}

impl Indexed {
    /// The rows that have a distinct text.
    pub fn rows_of(&self, value: u32) -> &[u32] {
        let value = value as usize;
        &self.rows_of[self.starts[value]..self.starts[value + 1]]
    }

    /// The block of each row of the other side; `None` for a row that no key equals.
    pub fn blocks_of(&self, keys: &Keys, batch: &RecordBatch) -> Result<Vec<Option<u32>>> {
        self.blocks.find(keys, batch)
    }
}

impl Build {
    pub fn reservation(&self) -> MemoryReservation {
        MemoryConsumer::new(format!("FuzzyJoin[{}]", self.partition))
            .register(self.context.memory_pool())
    }

    pub fn spill(&self, schema: &SchemaRef, metrics: &SpillMetrics) -> SpillManager {
        let runtime = self.context.runtime_env();
        SpillManager::new(runtime, metrics.clone(), Arc::clone(schema))
    }

    /// Reads the left side and indexes it.
    pub async fn run(&self, metrics: &SpillMetrics) -> Result<Built> {
        let mut rows = self.input.execute(self.partition, Arc::clone(&self.context))?;
        let schema = self.input.schema();
        let (mut memory, mut batches) = (self.reservation(), Vec::new());
        let mut pieces = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            let bytes = get_record_batch_memory_size(&batch) * COPIES;
            if memory.try_grow(bytes).is_err() {
                let spill = self.spill(&schema, metrics);
                self.put_away(&spill, &mut batches, &mut pieces)?;
                memory = self.reservation();
                memory.try_grow(bytes)?;
            }
            batches.push(batch);
        }
        if pieces.is_empty() {
            let indexed = self.index(&schema, &batches, memory)?;
            let place = Place::Memory(Arc::new(indexed));
            pieces.push(Piece::new(batches.iter().map(RecordBatch::num_rows).sum(), place));
        } else {
            let spill = self.spill(&schema, metrics);
            self.put_away(&spill, &mut batches, &mut pieces)?;
        }
        Ok(Built { pieces, schema })
    }

    /// Writes batches to the disk, in pieces of which every reader can hold one in the memory that
    /// the batches had, with an index.
    fn put_away(
        &self,
        spill: &SpillManager,
        batches: &mut Vec<RecordBatch>,
        pieces: &mut Vec<Piece>,
    ) -> Result<()> {
        let per_piece = batches.len().div_ceil(2 * self.readers).max(1);
        for batches in batches.chunks(per_piece) {
            let rows = batches.iter().map(RecordBatch::num_rows).sum();
            if let Some(file) = spill.spill_record_batch_and_finish(batches, "fuzzy join")? {
                pieces.push(Piece::new(rows, Place::Disk(file)));
            }
        }
        batches.clear();
        Ok(())
    }

    /// Indexes batches whose memory is reserved.
    fn index(
        &self,
        schema: &SchemaRef,
        batches: &[RecordBatch],
        memory: MemoryReservation,
    ) -> Result<Indexed> {
        let rows = concat_batches(schema, batches)?;
        let texts = texts(&self.text, &rows)?;
        let (blocks, block_of) = Blocks::new(&self.keys, &rows)?;
        let (values, value_of) = distinct(&texts, block_of.into_iter());
        let (rows_of, starts) = grouped(&value_of, values.len());
        let bytes = values.iter().map(|(_, text)| text.len()).sum();
        memory.try_grow(Index::estimate(self.likeness, values.len(), bytes))?;
        let index = self.with_memory(&values, &memory);
        Ok(Indexed { rows, index, rows_of, starts, blocks, _memory: memory })
    }

    /// Indexes texts with as much memory as they ask for, or as there is.
    fn with_memory(&self, values: &[InBlock<'_>], memory: &MemoryReservation) -> Index {
        let before = memory.size();
        let mut wanted = Index::wanted(self.likeness, values);
        // Twice: the index is sorted while it is built.
        while wanted > SMALL && memory.try_grow(2 * wanted).is_err() {
            wanted /= 2;
        }
        let index = Index::new(self.likeness, values, wanted);
        let taken = before + index.bytes();
        memory.shrink(memory.size().saturating_sub(taken));
        index
    }
}

/// The distinct texts of blocks, and which of them each row has; [`u32::MAX`] for a row without a
/// text or a block.
pub(super) fn distinct(
    texts: &StringViewArray,
    blocks: impl Iterator<Item = Option<u32>>,
) -> (Vec<InBlock<'_>>, Vec<u32>) {
    let (mut values, mut known) = (Vec::new(), HashMap::new());
    let value_of = texts.iter().zip(blocks).map(|(text, block)| {
        let Some(text) = block.zip(text) else { return u32::MAX };
        *known.entry(text).or_insert_with(|| {
            values.push(text);
            values.len() as u32 - 1
        })
    });
    let value_of = value_of.collect();
    (values, value_of)
}

/// The rows of each value, one value after the other, and where they begin.
pub(super) fn grouped(value_of: &[u32], values: usize) -> (Vec<u32>, Vec<usize>) {
    let mut starts = vec![0_usize; values + 1];
    for value in value_of.iter().filter(|value| **value != u32::MAX) {
        starts[*value as usize + 1] += 1;
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let (mut next, mut rows) = (starts.clone(), vec![0; sum]);
    for (row, value) in value_of.iter().enumerate().filter(|(_, value)| **value != u32::MAX) {
        let next = &mut next[*value as usize];
        rows[*next] = row as u32;
        *next += 1;
    }
    (rows, starts)
}

fn read(
    build: &Build,
    schema: &SchemaRef,
    file: &Arc<dyn SpillFile>,
) -> Result<SendableRecordBatchStream> {
    let metrics = SpillMetrics::new(&Default::default(), build.partition);
    build.spill(schema, &metrics).read_spill_as_stream(Arc::clone(file), None)
}

/// A side's texts, in one encoding.
pub(super) fn texts(
    expression: &Arc<dyn PhysicalExpr>,
    batch: &RecordBatch,
) -> Result<StringViewArray> {
    let values = expression.evaluate(batch)?.into_array(batch.num_rows())?;
    let views = cast(&values, &DataType::Utf8View)?;
    Ok(as_string_view_array(&views)?.clone())
}

/// A number for each distinct key of the left side.
struct Blocks {
    /// `None` without keys: everything is in one block.
    keys: Option<(RowConverter, Known)>,
    types: Vec<DataType>,
}

/// Blocks by the bytes of their key.
type Known = HashMap<Box<[u8]>, u32>;

impl Blocks {
    /// The blocks of a batch, and the block of each row; `None` for a row that equals nothing.
    fn new(keys: &Keys, batch: &RecordBatch) -> Result<(Self, Vec<Option<u32>>)> {
        if keys.expressions.is_empty() {
            return Ok((Self { keys: None, types: Vec::new() }, vec![Some(0); batch.num_rows()]));
        }
        let columns = keys.columns(batch)?;
        let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
        let converter = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
        let rows = converter.convert_columns(&columns)?;
        let equal = keys.comparable(&columns);
        let mut known = Known::new();
        let of_rows = (0..batch.num_rows()).map(|row| {
            if !equal(row) {
                return None;
            }
            let (key, next) = (rows.row(row), known.len() as u32);
            if let Some(block) = known.get(key.as_ref()) {
                return Some(*block);
            }
            known.insert(key.as_ref().into(), next);
            Some(next)
        });
        let of_rows = of_rows.collect();
        Ok((Self { keys: Some((converter, known)), types }, of_rows))
    }

    fn find(&self, keys: &Keys, batch: &RecordBatch) -> Result<Vec<Option<u32>>> {
        let Some((converter, known)) = &self.keys else {
            return Ok(vec![Some(0); batch.num_rows()]);
        };
        let columns = keys.columns(batch)?;
        let columns = columns.iter().zip(&self.types).map(|(column, to)| cast(column, to));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        let rows: Rows = converter.convert_columns(&columns)?;
        let equal = keys.comparable(&columns);
        let find = |row| known.get(rows.row(row).as_ref()).copied();
        Ok((0..batch.num_rows()).map(|row| equal(row).then(|| find(row)).flatten()).collect())
    }
}

impl Keys {
    fn columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let column = |expression: &Arc<dyn PhysicalExpr>| {
            expression.evaluate(batch)?.into_array(batch.num_rows())
        };
        self.expressions.iter().map(column).collect()
    }

    /// Whether a row can equal another: one with a NULL only where NULL equals NULL.
    fn comparable<'a>(&self, columns: &'a [ArrayRef]) -> impl Fn(usize) -> bool + use<'a> {
        let nulls_equal = self.null_equality == NullEquality::NullEqualsNull;
        move |row| nulls_equal || columns.iter().all(|column| !column.is_null(row))
    }
}

/// An error that reaches several.
pub(super) fn shared(error: &Arc<DataFusionError>) -> DataFusionError {
    DataFusionError::Shared(Arc::clone(error))
}
