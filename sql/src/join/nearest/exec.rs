//! The operator of `nearest`: every text of the second input in lanes, compared with each distinct
//! text of the first.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column as ColumnExpr;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, Partitioning, PlanProperties,
};
use futures::TryStreamExt;
use tokio::sync::OnceCell;
use udfs::fuzzy::kernel::column::{Column, ColumnScratch};

use super::Measure;
use crate::join::build::{distinct, grouped, shared, texts};

/// Rows as they came, in one piece, and their texts twice.
const COPIES: usize = 4;
/// Memory that a text takes in a lane.
const LANE: usize = 192;

/// What is asked of each row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub columns: [usize; 2],
    pub measure: Measure,
    pub top_k: usize,
}

type Candidates = OnceCell<std::result::Result<Arc<Prepared>, Arc<DataFusionError>>>;

/// The operator.
pub(super) struct NearestExec {
    inputs: [Arc<dyn ExecutionPlan>; 2],
    asked: Asked,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    /// Prepared once for all partitions.
    candidates: Arc<Candidates>,
}

impl NearestExec {
    pub fn new(inputs: [Arc<dyn ExecutionPlan>; 2], asked: Asked, schema: SchemaRef) -> Self {
        let [left, _] = &inputs;
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(left.output_partitioning().partition_count()),
            left.pipeline_behavior(),
            left.boundedness(),
        );
        let candidates = Arc::default();
        Self { inputs, asked, schema, properties: Arc::new(properties), candidates }
    }
}

impl fmt::Debug for NearestExec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NearestExec({:?})", self.asked)
    }
}

impl DisplayAs for NearestExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asked { measure, top_k, .. } = self.asked;
        write!(formatter, "NearestExec: measure={}, top_k={top_k}", measure.name())
    }
}

impl ExecutionPlan for NearestExec {
    fn name(&self) -> &str {
        "NearestExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![
            Distribution::UnspecifiedDistribution,
            Distribution::SinglePartition,
        ])
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let inputs = <[_; 2]>::try_from(children)
            .map_err(|_| DataFusionError::Internal("nearest has two inputs".into()))?;
        Ok(Arc::new(Self::new(inputs, self.asked, Arc::clone(&self.schema))))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let [left, right] = &self.inputs;
        let mut rows = left.execute(partition, Arc::clone(&context))?;
        let (right, cell) = (Arc::clone(right), Arc::clone(&self.candidates));
        let (asked, schema) = (self.asked, Arc::clone(&self.schema));
        let rows_a_batch = context.session_config().batch_size();
        let mut stream = RecordBatchReceiverStreamBuilder::new(Arc::clone(&schema), 2);
        let results = stream.tx();
        stream.spawn(async move {
            let prepare = || async {
                let rows = right.execute(0, Arc::clone(&context))?;
                let memory = MemoryConsumer::new("nearest").register(context.memory_pool());
                Prepared::read(rows, asked.columns[1], memory).await.map(Arc::new)
            };
            let prepared = cell.get_or_init(|| async { prepare().await.map_err(Arc::new) }).await;
            let prepared = Arc::clone(prepared.as_ref().map_err(shared)?);
            let mut search = Search::new(asked, prepared);
            while let Some(batch) = rows.try_next().await? {
                let (probes, rows_of, starts) = search.probes(&batch)?;
                let mut found = Found::default();
                for (at, text) in probes.iter().enumerate() {
                    search.find(text);
                    let rows = &rows_of[starts[at]..starts[at + 1]];
                    for (row, left) in rows.iter().zip((0..rows.len()).rev()) {
                        found.add(*row, &search);
                        let is_last = at + 1 == probes.len() && left == 0;
                        if found.len() < if is_last { 1 } else { rows_a_batch } {
                            continue;
                        }
                        let given = found.batch(&batch, &search, &schema)?;
                        if results.send(Ok(given)).await.is_err() {
                            return Ok(());
                        }
                    }
                    tokio::task::yield_now().await;
                }
            }
            Ok(())
        });
        Ok(stream.build())
    }
}

/// The second input: its distinct texts in alphabetical order, and their rows.
struct Prepared {
    rows: RecordBatch,
    texts: Column,
    rows_of: Vec<u32>,
    starts: Vec<usize>,
    _memory: MemoryReservation,
}

impl Prepared {
    async fn read(
        rows: SendableRecordBatchStream,
        column: usize,
        memory: MemoryReservation,
    ) -> Result<Self> {
        let (schema, mut rows, mut batches) = (rows.schema(), rows, Vec::new());
        while let Some(batch) = rows.try_next().await? {
            let texts = LANE * batch.num_rows();
            memory.try_grow(get_record_batch_memory_size(&batch) * COPIES + texts)?;
            batches.push(batch);
        }
        let rows = concat_batches(&schema, &batches)?;
        let values = texts(&text_of(column), &rows)?;
        let mut sorted: Vec<&str> = values.iter().flatten().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let value_of: Vec<u32> = values
            .iter()
            .map(|text| text.map(|text| sorted.partition_point(|known| *known < text) as u32))
            .map(|value| value.unwrap_or(u32::MAX))
            .collect();
        let (rows_of, starts) = grouped(&value_of, sorted.len());
        let texts = Column::new(sorted.iter().copied());
        Ok(Self { rows, texts, rows_of, starts, _memory: memory })
    }
}

fn text_of(column: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(ColumnExpr::new("text", column))
}

/// Finds the closest texts of one text after the other.
struct Search {
    asked: Asked,
    prepared: Arc<Prepared>,
    scratch: ColumnScratch,
    /// How far, lower is closer, and which text.
    closest: Vec<(u64, u32)>,
}

impl Search {
    fn new(asked: Asked, prepared: Arc<Prepared>) -> Self {
        Self { asked, prepared, scratch: ColumnScratch::default(), closest: Vec::new() }
    }

    /// The distinct texts of a batch, and the rows of each.
    fn probes(&self, batch: &RecordBatch) -> Result<(Vec<String>, Vec<u32>, Vec<usize>)> {
        let texts = texts(&text_of(self.asked.columns[0]), batch)?;
        let (probes, probe_of) = distinct(&texts, std::iter::repeat(Some(0)));
        let (rows_of, starts) = grouped(&probe_of, probes.len());
        let probes = probes.into_iter().map(|(_, text)| text.to_owned()).collect();
        Ok((probes, rows_of, starts))
    }

    /// Finds the closest texts, closest first; each has a row or more.
    fn find(&mut self, text: &str) {
        let Self { asked, prepared, scratch, closest } = self;
        closest.clear();
        let (most, mut bound) = (asked.top_k, u64::MAX);
        let mut take = |row: usize, far: u64| {
            if far > bound {
                return;
            }
            closest.push((far, row as u32));
            // Keeps the list short: what is beyond the k-th of it cannot count.
            if closest.len() >= 4 * most + 64 {
                let (_, last, _) = closest.select_nth_unstable(most - 1);
                bound = last.0;
                closest.truncate(most);
            }
        };
        match asked.measure {
            Measure::Levenshtein => {
                prepared.texts.levenshtein(text, scratch, |row, far| take(row, far as u64));
            }
            // The bits of numbers from 0 to 1 are in the order of the numbers.
            Measure::Jaro => {
                prepared
                    .texts
                    .jaro::<false>(text, scratch, |row, alike| take(row, !alike.to_bits()));
            }
            Measure::JaroWinkler => {
                prepared
                    .texts
                    .jaro::<true>(text, scratch, |row, alike| take(row, !alike.to_bits()));
            }
        }
        closest.sort_unstable();
        closest.truncate(most);
    }
}

/// Rows of both inputs that go together.
#[derive(Default)]
struct Found {
    left: Vec<u32>,
    right: Vec<u32>,
    far: Vec<u64>,
    rank: Vec<i32>,
}

impl Found {
    fn len(&self) -> usize {
        self.left.len()
    }

    fn add(&mut self, row: u32, search: &Search) {
        let mut rank = 0;
        for (far, text) in &search.closest {
            let text = *text as usize;
            let Prepared { rows_of, starts, .. } = search.prepared.as_ref();
            for right in &rows_of[starts[text]..starts[text + 1]] {
                if rank == search.asked.top_k as i32 {
                    return;
                }
                rank += 1;
                self.left.push(row);
                self.right.push(*right);
                self.far.push(*far);
                self.rank.push(rank);
            }
        }
    }

    /// The rows, as a batch; none are left.
    fn batch(
        &mut self,
        left: &RecordBatch,
        search: &Search,
        schema: &SchemaRef,
    ) -> Result<RecordBatch> {
        let Self { left: of_left, right: of_right, far, rank } = std::mem::take(self);
        let (of_left, of_right) = (UInt32Array::from(of_left), UInt32Array::from(of_right));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for column in left.columns() {
            columns.push(take(column, &of_left, None)?);
        }
        for column in search.prepared.rows.columns() {
            columns.push(take(column, &of_right, None)?);
        }
        columns.push(match search.asked.measure {
            Measure::Levenshtein => {
                Arc::new(far.iter().map(|far| Some(*far as i64)).collect::<Int64Array>())
            }
            _ => {
                Arc::new(far.iter().map(|far| Some(f64::from_bits(!far))).collect::<Float64Array>())
            }
        });
        columns.push(Arc::new(Int32Array::from(rank)));
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }
}
