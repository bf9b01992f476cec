//! The operator of `nearest`: looks each distinct text of the first input up among those of the
//! second, which are held in memory.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, Partitioning, PlanProperties,
};
use futures::TryStreamExt;
use tokio::sync::OnceCell;
use udfs::fuzzy::index::Measure;
use udfs::fuzzy::stop::Stop;

use super::name_of;
use super::search::{Prepared, Search};
use crate::join::apart::apart;
use crate::join::build::shared;
use crate::join::probe::Gone;

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
        write!(formatter, "NearestExec: measure={}, top_k={top_k}", name_of(measure))
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
        apart(Arc::clone(&self.schema), move |results, stop| async move {
            let prepare = || async {
                let prepared = prepare(&right, asked, &context, &stop).await;
                let prepared = prepared.map(Arc::new).map_err(Arc::new);
                // Whoever else waits prepares it then.
                if prepared.is_err() && stop.is_set() { Err(Gone) } else { Ok(prepared) }
            };
            let Ok(prepared) = cell.get_or_try_init(prepare).await else { return Ok(()) };
            let prepared = Arc::clone(prepared.as_ref().map_err(shared)?);
            let memory = MemoryConsumer::new("nearest").register(context.memory_pool());
            let rows_a_batch = context.session_config().batch_size();
            let mut search = Search::new(asked, prepared, rows_a_batch, schema, memory, stop)?;
            while let Some(batch) = rows.try_next().await? {
                if search.batch(&batch, &results).await?.is_err() {
                    return Ok(());
                }
            }
            Ok(())
        })
    }
}

/// Reads and prepares the second input.
async fn prepare(
    right: &Arc<dyn ExecutionPlan>,
    asked: Asked,
    context: &Arc<TaskContext>,
    stop: &Stop,
) -> Result<Prepared> {
    let rows = right.execute(0, Arc::clone(context))?;
    let memory = MemoryConsumer::new("nearest").register(context.memory_pool());
    Prepared::read(rows, asked, memory, stop).await
}
