//! The indexed side of a fuzzy join: its rows, in as many pieces as memory asks for.
//!
//! Rows are held in memory while it suffices for them and an index of their texts ([`Weight`]).
//! When it does not, they go to the disk in pieces so small that every partition can hold and index
//! one at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, RecordBatch, StringViewArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::NullEquality;
use datafusion::common::cast::as_string_view_array;
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::common::utils::normalize_float_zero;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, SpillFile, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::SpillMetrics;
use datafusion::physical_plan::spill::{SpillManager, get_record_batch_memory_size};
use futures::TryStreamExt;
use udfs::fuzzy::index::{InBlock, Index, Likeness};
use udfs::fuzzy::stop::{Stop, Stopped};

use super::predicate::Limit;
use super::weight::{Texts, Weight, copies};

/// Steps that finding a row in a map takes.
const PER_ROW: usize = 128;
/// A smaller index than this is not worth having.
const SMALL: usize = 1 << 20;
/// A piece may take so much, however little memory there is.
const PIECE: usize = 1 << 16;

/// How the left side is read.
pub(super) struct Build {
    pub input: Arc<dyn ExecutionPlan>,
    pub partition: usize,
    /// Partitions that read what is built.
    pub readers: usize,
    /// Left sides that are built at the same time.
    pub builders: usize,
    pub lookups: Vec<Lookup>,
    pub keys: Keys,
    pub context: Arc<TaskContext>,
    pub stop: Stop,
}

/// One of the ways in which texts are looked up.
pub(super) struct Lookup {
    pub likeness: Likeness,
    pub text: Arc<dyn PhysicalExpr>,
    /// The largest distance of each row, if it differs from row to row.
    pub limit: Option<Limit>,
}

/// The keys that must be equal, of one side.
pub(super) struct Keys {
    pub expressions: Vec<Arc<dyn PhysicalExpr>>,
    pub null_equality: NullEquality,
}

/// The left side.
pub(super) struct Built {
    pub pieces: Vec<Piece>,
    schema: SchemaRef,
    /// What the fastest index of a piece on the disk may take beside the piece, while it is built.
    index_bytes: usize,
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
    /// One of each way to look texts up.
    pub texts: Vec<IndexedTexts>,
    blocks: Blocks,
    _memory: MemoryReservation,
}

/// The texts of rows.
pub(super) struct IndexedTexts {
    pub index: Index,
    /// What the index finds.
    pub likeness: Likeness,
    /// The rows of each distinct text of a block, one text after the other.
    rows_of: Vec<u32>,
    starts: Vec<usize>,
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
    pub async fn open(&self, build: &Build, built: &Built) -> Result<Arc<Indexed>> {
        match &self.place {
            Place::Memory(indexed) => Ok(Arc::clone(indexed)),
            Place::Disk(file) => {
                let memory = build.reservation();
                let batches = read(build, &built.schema, file)?;
                let batches = batches.try_collect::<Vec<_>>().await?;
                // Batches that were read at once lie in the same memory.
                let mut sizes = RecordBatchMemoryCounter::new();
                let bytes: usize = batches.iter().map(|batch| sizes.count_batch(batch)).sum();
                memory.try_grow(bytes * copies(build))?;
                let indexed = build.index(&built.schema, &batches, memory, 0, built.index_bytes);
                Ok(Arc::new(indexed?))
            }
        }
    }
}

impl IndexedTexts {
    /// The rows that have a distinct text.
    pub fn rows_of(&self, value: u32) -> &[u32] {
        let value = value as usize;
        &self.rows_of[self.starts[value]..self.starts[value + 1]]
    }
}

impl Indexed {
    /// The block of each row of the other side; `None` for a row that no key equals.
    pub fn blocks_of(&self, keys: &Keys, batch: &RecordBatch) -> Result<Vec<Option<u32>>> {
        self.blocks.find(keys, batch)
    }
}

/// Rows that are held in memory.
struct Held {
    batches: Vec<RecordBatch>,
    weight: Weight,
    memory: MemoryReservation,
}

impl Held {
    fn new(build: &Build) -> Self {
        Self { batches: Vec::new(), weight: Weight::new(build), memory: build.reservation() }
    }

    /// Takes a batch, and reserves what it takes with an index of its texts. Where that is more
    /// than there is, gives how much there is for what is held.
    fn add(&mut self, build: &Build, batch: RecordBatch) -> Result<Option<usize>> {
        let (bytes, rows) = (get_record_batch_memory_size(&batch), 0..batch.num_rows());
        self.weight.add(bytes, &Texts::of(build, &batch)?, rows);
        self.batches.push(batch);
        Ok(build.reserve(&self.memory, self.weight.bytes()))
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

    /// What this left side may hold of the statement's memory: one of several must leave the others
    /// what they need.
    fn share(&self) -> usize {
        match self.context.memory_pool().memory_limit() {
            MemoryLimit::Finite(limit) if self.builders > 1 => limit / 4 * 3 / self.builders,
            _ => usize::MAX,
        }
    }

    /// Makes a reservation so large. Where there is less memory, gives how much there is.
    fn reserve(&self, memory: &MemoryReservation, bytes: usize) -> Option<usize> {
        let (share, held) = (self.share(), memory.size());
        let more = bytes.saturating_sub(held);
        if bytes <= share && memory.try_grow(more).is_ok() {
            return None;
        }
        let pool = self.context.memory_pool();
        let free = match pool.memory_limit() {
            MemoryLimit::Finite(limit) => limit.saturating_sub(pool.reserved()).min(more),
            _ => 0,
        };
        Some(share.min(held.saturating_add(free)))
    }

    /// Reads the left side and indexes it.
    pub async fn run(&self, metrics: &SpillMetrics) -> Result<Built> {
        let mut rows = self.input.execute(self.partition, Arc::clone(&self.context))?;
        let schema = self.input.schema();
        let spill = self.spill(&schema, metrics);
        let (mut held, mut pieces, mut of_piece) = (Held::new(self), Vec::new(), usize::MAX);
        while let Some(batch) = rows.try_next().await? {
            if let Some(there_is) = held.add(self, batch)? {
                // Half of it is for rows and their indexes, a quarter for faster ones.
                of_piece = of_piece.min((there_is / (2 * self.readers.max(1))).max(PIECE));
                self.put_away(&spill, held.batches, of_piece, &mut pieces)?;
                held = Held::new(self);
            }
        }
        if pieces.is_empty() {
            let Held { batches, weight, memory } = held;
            let (of_texts, most) = (weight.index_bytes(), self.share() / 4);
            drop(weight);
            let indexed = self.index(&schema, &batches, memory, of_texts, most)?;
            let place = Place::Memory(Arc::new(indexed));
            pieces.push(Piece::new(batches.iter().map(RecordBatch::num_rows).sum(), place));
        } else {
            self.put_away(&spill, held.batches, of_piece, &mut pieces)?;
        }
        Ok(Built { pieces, schema, index_bytes: of_piece / 2 })
    }

    /// Writes batches to the disk, in pieces that take at most so many bytes with an index.
    fn put_away(
        &self,
        spill: &SpillManager,
        batches: Vec<RecordBatch>,
        of_piece: usize,
        pieces: &mut Vec<Piece>,
    ) -> Result<()> {
        let mut file = spill.create_in_progress_file("fuzzy join")?;
        let (mut weight, mut rows) = (Weight::new(self), 0);
        for batch in batches {
            self.stop.check().map_err(ended)?;
            let (texts, count) = (Texts::of(self, &batch)?, batch.num_rows());
            let mut alone = Weight::new(self);
            alone.add(get_record_batch_memory_size(&batch), &texts, 0..count);
            // A quarter of a piece at a time: what that takes is known when it is written.
            let part = count.saturating_mul(of_piece / 4) / alone.bytes().max(1);
            let part = part.min(count).max(1);
            for from in (0..count).step_by(part) {
                let to = count.min(from + part);
                let bytes = file.append_batch(&batch.slice(from, to - from))?;
                weight.add(bytes, &texts, from..to);
                rows += to - from;
                if weight.bytes() > of_piece / 4 * 3 {
                    pieces.extend(file.finish()?.map(|file| Piece::new(rows, Place::Disk(file))));
                    file = spill.create_in_progress_file("fuzzy join")?;
                    (weight, rows) = (Weight::new(self), 0);
                }
            }
        }
        pieces.extend(file.finish()?.map(|file| Piece::new(rows, Place::Disk(file))));
        Ok(())
    }

    /// Indexes batches whose memory is reserved, with `of_texts` bytes for the indexes. The fastest
    /// ones may take `most` bytes beside it while they are built.
    fn index(
        &self,
        schema: &SchemaRef,
        batches: &[RecordBatch],
        memory: MemoryReservation,
        of_texts: usize,
        most: usize,
    ) -> Result<Indexed> {
        let rows = concat_batches(schema, batches)?;
        let (blocks, block_of) = Blocks::new(&self.keys, &rows, &self.stop)?;
        let views = self.lookups.iter().map(|way| texts(&way.text, &rows));
        let views = views.collect::<Result<Vec<_>>>()?;
        let values = self.lookups.iter().zip(&views);
        let values = values.map(|(way, views)| self.values(way, &rows, views, &block_of));
        let values = values.collect::<Result<Vec<_>>>()?;
        // All of them before the first takes more.
        let bytes: usize = values.iter().map(Values::estimate).sum();
        memory.try_grow(bytes.saturating_sub(of_texts))?;
        let texts = values.into_iter().map(|values| self.texts(values, &memory, most));
        let texts = texts.collect::<Result<_>>()?;
        Ok(Indexed { rows, texts, blocks, _memory: memory })
    }

    /// The distinct texts of rows.
    fn values<'a>(
        &self,
        way: &Lookup,
        rows: &RecordBatch,
        views: &'a StringViewArray,
        block_of: &[Option<u32>],
    ) -> Result<Values<'a>> {
        let (mut likeness, mut limits) = (way.likeness, None);
        if let (Some(limit), Likeness::Edit { osa, .. }) = (&way.limit, likeness) {
            let of_rows = limit.of_rows(rows)?;
            let max = of_rows.iter().flatten().max().copied().unwrap_or(0);
            (likeness, limits) = (Likeness::Edit { osa, max }, Some(of_rows));
        }
        // A row without a largest distance is alike nothing.
        let is_looked_for = |row: usize| limits.as_ref().is_none_or(|limits| limits[row].is_some());
        let blocks = block_of.iter().enumerate();
        let blocks = blocks.map(|(row, block)| block.filter(|_| is_looked_for(row)));
        let (values, value_of) = distinct(views, blocks, &self.stop)?;
        Ok(Values { likeness, values, value_of })
    }

    /// Indexes texts.
    fn texts(
        &self,
        values: Values<'_>,
        memory: &MemoryReservation,
        most: usize,
    ) -> Result<IndexedTexts> {
        let Values { likeness, values, value_of } = values;
        let (rows_of, starts) = grouped(&value_of, values.len());
        let index = self.with_memory(likeness, &values, memory, most).map_err(ended)?;
        Ok(IndexedTexts { index, likeness, rows_of, starts })
    }

    /// Indexes texts with as much memory as they ask for, or as there is.
    fn with_memory(
        &self,
        likeness: Likeness,
        values: &[InBlock<'_>],
        memory: &MemoryReservation,
        most: usize,
    ) -> std::result::Result<Index, Stopped> {
        let before = memory.size();
        let granted = granted(memory, Index::wanted(likeness, values).min(most / 2));
        let index = Index::new(likeness, values, granted, &self.stop)?;
        let taken = before + index.bytes();
        memory.shrink(memory.size().saturating_sub(taken));
        Ok(index)
    }
}

/// The distinct texts of rows, and which of them each row has.
struct Values<'a> {
    likeness: Likeness,
    values: Vec<InBlock<'a>>,
    value_of: Vec<u32>,
}

impl Values<'_> {
    fn estimate(&self) -> usize {
        let bytes = self.values.iter().map(|(_, text)| text.len()).sum();
        Index::estimate(self.likeness, self.values.len(), bytes)
    }
}

/// How much of the memory that an index wants it can have, reserved.
pub(super) fn granted(memory: &MemoryReservation, mut wanted: usize) -> usize {
    // Twice: the index is sorted while it is built.
    while wanted > SMALL && memory.try_grow(wanted.saturating_mul(2)).is_err() {
        wanted /= 2;
    }
    wanted
}

/// The distinct texts of blocks, and which of them each row has; [`u32::MAX`] for a row without a
/// text or a block.
pub(super) fn distinct<'a>(
    texts: &'a StringViewArray,
    blocks: impl Iterator<Item = Option<u32>>,
    stop: &Stop,
) -> Result<(Vec<InBlock<'a>>, Vec<u32>)> {
    let (mut values, mut known, mut pace) = (Vec::new(), HashMap::new(), stop.pace());
    let mut value_of = Vec::with_capacity(texts.len());
    for (text, block) in texts.iter().zip(blocks) {
        let Some(text) = block.zip(text) else {
            value_of.push(u32::MAX);
            continue;
        };
        pace.spend(PER_ROW + text.1.len()).map_err(ended)?;
        value_of.push(*known.entry(text).or_insert_with(|| {
            values.push(text);
            values.len() as u32 - 1
        }));
    }
    Ok((values, value_of))
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
    fn new(keys: &Keys, batch: &RecordBatch, stop: &Stop) -> Result<(Self, Vec<Option<u32>>)> {
        if keys.expressions.is_empty() {
            return Ok((Self { keys: None, types: Vec::new() }, vec![Some(0); batch.num_rows()]));
        }
        let columns = keys.columns(batch)?;
        let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
        let converter = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
        let rows = converter.convert_columns(&columns)?;
        let equal = keys.comparable(&columns);
        let (mut known, mut pace) = (Known::new(), stop.pace());
        let mut block = |row: usize| {
            if !equal(row) {
                return None;
            }
            let (key, next) = (rows.row(row), known.len() as u32);
            if let Some(block) = known.get(key.as_ref()) {
                return Some(*block);
            }
            known.insert(key.as_ref().into(), next);
            Some(next)
        };
        let of_rows = (0..batch.num_rows()).map(|row| {
            pace.spend(PER_ROW)?;
            Ok(block(row))
        });
        let of_rows = of_rows.collect::<std::result::Result<_, Stopped>>().map_err(ended)?;
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
    /// The keys of each row, of which those that `=` takes for equal have the same bytes: it knows
    /// one zero, and NaN by its bits.
    pub fn columns(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let column = |expression: &Arc<dyn PhysicalExpr>| {
            let values = expression.evaluate(batch)?.into_array(batch.num_rows())?;
            Ok(normalize_float_zero(&values))
        };
        self.expressions.iter().map(column).collect()
    }

    /// Whether a row can equal another: one with a NULL only where NULL equals NULL.
    fn comparable<'a>(&self, columns: &'a [ArrayRef]) -> impl Fn(usize) -> bool + use<'a> {
        let nulls_equal = self.null_equality == NullEquality::NullEqualsNull;
        move |row| nulls_equal || columns.iter().all(|column| !column.is_null(row))
    }
}

/// The error of work that nobody waits for: nobody reads it.
pub(super) fn ended(stopped: Stopped) -> DataFusionError {
    DataFusionError::External(Box::new(stopped))
}

/// An error that reaches several.
pub(super) fn shared(error: &Arc<DataFusionError>) -> DataFusionError {
    DataFusionError::Shared(Arc::clone(error))
}
