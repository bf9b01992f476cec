//! The operator: reads all rows into codes, anonymizes them on a thread of its own, and gives them
//! in the order of their classes.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, InputDistributionRequirements,
    Partitioning, PlanProperties,
};
use futures::TryStreamExt;
use udfs::fuzzy::stop::Stop;
use udfs::privacy::anonymize::{anonymize, report, work_bytes};

use super::options::Asked;
use super::table::{Table, report_batch};
use crate::join::apart::{Results, apart};

/// The operator.
pub(super) struct AnonymizeExec {
    asked: Arc<Asked>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl AnonymizeExec {
    pub fn new(asked: Arc<Asked>, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&asked.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { asked, input, properties: Arc::new(properties) }
    }
}

impl fmt::Debug for AnonymizeExec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AnonymizeExec({})", self.asked)
    }
}

impl DisplayAs for AnonymizeExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AnonymizeExec: {}", self.asked)
    }
}

impl ExecutionPlan for AnonymizeExec {
    fn name(&self) -> &str {
        "AnonymizeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
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
        match children.as_slice() {
            [input] => Ok(Arc::new(Self::new(Arc::clone(&self.asked), Arc::clone(input)))),
            _ => Err(DataFusionError::Internal("anonymize has one input".into())),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, Arc::clone(&context))?;
        let asked = Arc::clone(&self.asked);
        let memory = MemoryConsumer::new("anonymize").register(context.memory_pool());
        let rows_a_batch = context.session_config().batch_size().max(1);
        apart(Arc::clone(&self.asked.schema), move |results, stop| {
            answer(asked, rows, memory, rows_a_batch, results, stop)
        })
    }
}

async fn answer(
    asked: Arc<Asked>,
    mut rows: SendableRecordBatchStream,
    memory: MemoryReservation,
    rows_a_batch: usize,
    results: Results,
    stop: Stop,
) -> Result<()> {
    let mut table = Table::new(&asked, &rows.schema())?;
    while let Some(batch) = rows.try_next().await? {
        table.add(&batch)?;
        memory.try_resize(table.bytes()).map_err(too_large)?;
    }
    let work = work_bytes(table.rows(), asked.quasi.len(), asked.sensitive.len());
    memory.try_grow(work).map_err(too_large)?;
    stop.check()?;
    let (input, kept) = table.finish();
    memory.try_grow(input.domain_bytes()).map_err(too_large)?;
    let outcome = anonymize(&input, &asked.options, &stop)?;
    if asked.is_report {
        let lines = report::report(&input, &asked.options, &outcome)?;
        // A reader that has gone wants nothing more.
        let _ = results.send(report_batch(&lines)).await;
        return Ok(());
    }
    let order = outcome.order(&input);
    if let Some(release) = &asked.release {
        memory.try_grow(release.bytes(order.len())).map_err(too_large)?;
        release.record(&asked, &outcome, &kept, &order, rows_a_batch, &stop).await?;
    }
    for rows in order.chunks(rows_a_batch) {
        let batch = kept.batch(&asked, &outcome, rows)?;
        if results.send(Ok(batch)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn too_large(error: DataFusionError) -> DataFusionError {
    match error {
        DataFusionError::ResourcesExhausted(what) => DataFusionError::ResourcesExhausted(format!(
            "anonymize holds its query in memory, where it does not fit: {what}"
        )),
        other => other,
    }
}
