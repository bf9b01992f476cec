//! The second input of `nearest`, held in memory, and the search for texts in it.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use futures::TryStreamExt;
use tokio::sync::OnceCell;
use udfs::fuzzy::index::{Close, Index, Measure, Nearest, NearestWork};
use udfs::fuzzy::stop::{Stop, Stopped};

use super::exec::Asked;
use crate::join::apart::Results;
use crate::join::build::{distinct, ended, granted, grouped, texts};
use crate::join::probe::{Gone, Sent};

/// Rows as they came, in one piece, and their texts twice.
const COPIES: usize = 4;
/// A row's text, and the place of a row of it.
const PER_ROW: usize = 64;

/// The second input: its distinct texts in alphabetical order, and their rows.
pub(super) struct Prepared {
    rows: RecordBatch,
    nearest: Nearest,
    rows_of: Vec<u32>,
    starts: Vec<usize>,
    /// Made when a batch has texts enough to look for; `None` where memory does not suffice.
    index: OnceCell<Option<Index>>,
    memory: MemoryReservation,
}

impl Prepared {
    pub async fn read(
        mut rows: SendableRecordBatchStream,
        asked: Asked,
        memory: MemoryReservation,
        stop: &Stop,
    ) -> Result<Self> {
        let (schema, mut batches) = (rows.schema(), Vec::new());
        while let Some(batch) = rows.try_next().await? {
            let bytes = get_record_batch_memory_size(&batch) * COPIES;
            memory.try_grow(bytes + PER_ROW * batch.num_rows()).map_err(too_large)?;
            batches.push(batch);
        }
        let rows = concat_batches(&schema, &batches)?;
        drop(batches);
        let views = texts(&text_of(asked.columns[1]), &rows)?;
        let (values, value_of) = distinct(&views, std::iter::repeat(Some(0)), stop)?;
        let (sorted, value_of) = in_order(&values, &value_of, stop).map_err(ended)?;
        let (rows_of, starts) = grouped(&value_of, sorted.len());
        memory.try_grow(Nearest::estimate(asked.measure, &sorted)).map_err(too_large)?;
        let nearest = Nearest::new(asked.measure, &sorted, stop).map_err(ended)?;
        let places = size_of_val(rows_of.as_slice()) + size_of_val(starts.as_slice());
        let taken = get_record_batch_memory_size(&rows) + places + nearest.bytes();
        memory.try_resize(taken).map_err(too_large)?;
        Ok(Self { rows, nearest, rows_of, starts, index: OnceCell::new(), memory })
    }

    /// The index of the texts, if it is worth having for so many searches and fits in memory.
    async fn index(&self, searches: usize, stop: &Stop) -> Result<Option<&Index>> {
        if let Some(index) = self.index.get() {
            return Ok(index.as_ref());
        }
        let Some((least, fastest)) = self.nearest.index_wanted(searches) else { return Ok(None) };
        let build = || async {
            let before = self.memory.size();
            if self.memory.try_grow(least).is_err() {
                return Ok(None);
            }
            let index = self.nearest.index(granted(&self.memory, fastest), stop)?;
            let taken = before + index.as_ref().map_or(0, Index::bytes);
            self.memory.shrink(self.memory.size().saturating_sub(taken));
            Ok::<_, Stopped>(index)
        };
        let index = self.index.get_or_try_init(build).await.map_err(ended)?;
        Ok(index.as_ref())
    }

    fn rows_of(&self, text: u32) -> &[u32] {
        let text = text as usize;
        &self.rows_of[self.starts[text]..self.starts[text + 1]]
    }
}

/// Distinct texts in alphabetical order, and which of them each row has.
fn in_order<'a>(
    values: &[(u32, &'a str)],
    value_of: &[u32],
    stop: &Stop,
) -> std::result::Result<(Vec<&'a str>, Vec<u32>), Stopped> {
    let text = |at: u32| values[at as usize].1;
    let order = stop.sort((0..values.len() as u32).collect(), |x, y| text(*x).cmp(text(*y)))?;
    let mut place = vec![0_u32; values.len()];
    for (at, value) in order.iter().enumerate() {
        place[*value as usize] = at as u32;
    }
    // A row without a text has none here either.
    let value_of = value_of.iter().map(|value| place.get(*value as usize).copied());
    let value_of = value_of.map(|value| value.unwrap_or(u32::MAX)).collect();
    Ok((order.iter().map(|value| text(*value)).collect(), value_of))
}

fn too_large(error: DataFusionError) -> DataFusionError {
    match error {
        DataFusionError::ResourcesExhausted(what) => DataFusionError::ResourcesExhausted(format!(
            "nearest holds its second query in memory, where it does not fit: {what}"
        )),
        other => other,
    }
}

fn text_of(column: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new("text", column))
}

/// Finds the closest rows for one batch after the other.
pub(super) struct Search {
    asked: Asked,
    prepared: Arc<Prepared>,
    /// Rows of a batch given.
    rows: usize,
    schema: SchemaRef,
    work: NearestWork,
    stop: Stop,
    _memory: MemoryReservation,
}

impl Search {
    pub fn new(
        asked: Asked,
        prepared: Arc<Prepared>,
        rows: usize,
        schema: SchemaRef,
        memory: MemoryReservation,
        stop: Stop,
    ) -> Result<Self> {
        memory.try_grow(prepared.nearest.work_bytes()).map_err(too_large)?;
        let work = NearestWork::new(stop.clone());
        Ok(Self { asked, prepared, rows, schema, work, stop, _memory: memory })
    }

    /// Gives the rows closest to those of a batch.
    pub async fn batch(&mut self, batch: &RecordBatch, results: &Results) -> Result<Sent> {
        let views = texts(&text_of(self.asked.columns[0]), batch)?;
        let (probes, probe_of) = distinct(&views, std::iter::repeat(Some(0)), &self.stop)?;
        let (rows_of, starts) = grouped(&probe_of, probes.len());
        let prepared = Arc::clone(&self.prepared);
        let index = prepared.index(probes.len(), &self.stop).await?;
        let mut found = Found::default();
        for (at, (_, text)) in probes.iter().enumerate() {
            let most = self.asked.top_k;
            prepared.nearest.find(text, most, index, &mut self.work).map_err(ended)?;
            for row in &rows_of[starts[at]..starts[at + 1]] {
                found.add(*row, &prepared, self.work.closest(), most);
                if found.len() >= self.rows && self.send(&mut found, batch, results).await?.is_err()
                {
                    return Ok(Err(Gone));
                }
            }
        }
        if found.len() == 0 {
            return Ok(Ok(()));
        }
        self.send(&mut found, batch, results).await
    }

    async fn send(&self, found: &mut Found, left: &RecordBatch, results: &Results) -> Result<Sent> {
        let right = &self.prepared.rows;
        let given = found.take_batch(left, right, self.asked.measure, &self.schema)?;
        Ok(results.send(Ok(given)).await.map_err(|_| Gone))
    }
}

/// Rows of both inputs that go together.
#[derive(Default)]
struct Found {
    left: Vec<u32>,
    right: Vec<u32>,
    close: Vec<Close>,
    rank: Vec<i32>,
}

impl Found {
    fn len(&self) -> usize {
        self.left.len()
    }

    /// Adds the first `most` rows of the closest texts.
    fn add(&mut self, row: u32, prepared: &Prepared, closest: &[Close], most: usize) {
        let rows = closest.iter().flat_map(|close| {
            prepared.rows_of(close.text).iter().map(move |right| (*close, *right))
        });
        for ((close, right), rank) in rows.zip(1..).take(most) {
            self.left.push(row);
            self.right.push(right);
            self.close.push(close);
            self.rank.push(rank);
        }
    }

    /// The rows, as a batch; none are left.
    fn take_batch(
        &mut self,
        left: &RecordBatch,
        right: &RecordBatch,
        measure: Measure,
        schema: &SchemaRef,
    ) -> Result<RecordBatch> {
        let Self { left: of_left, right: of_right, close, rank } = std::mem::take(self);
        let (of_left, of_right) = (UInt32Array::from(of_left), UInt32Array::from(of_right));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for column in left.columns() {
            columns.push(take(column, &of_left, None)?);
        }
        for column in right.columns() {
            columns.push(take(column, &of_right, None)?);
        }
        let close = close.iter();
        columns.push(match measure {
            Measure::Edit { .. } => {
                let distances = close.map(|close| close.distance() as i64);
                Arc::new(Int64Array::from_iter_values(distances))
            }
            _ => Arc::new(Float64Array::from_iter_values(close.map(|close| close.similarity()))),
        });
        columns.push(Arc::new(Int32Array::from(rank)));
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}
