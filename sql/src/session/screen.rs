//! The operator above the rows of a guarded table: what its screen lets through passes, and nothing
//! else does.
//!
//! To the planner it is a leaf: no rule moves a condition, a limit or a dynamic filter through it,
//! no statistics come out of it, and EXPLAIN shows the screen and nothing of what is below, no
//! counts least of all. It has as many partitions as the session's plans have: those of the input
//! are the files in which a condition may be met, by rows that are not shown too, and plans above
//! would differ with them.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, EmptyRecordBatchStream, ExecutionPlan, ExecutionPlanProperties,
    Partitioning, PlanProperties,
};
use futures::StreamExt;

use crate::error::Error;

/// What lets rows through. It shows itself in plans.
pub(crate) trait Screen: fmt::Display + Send + Sync + 'static {
    /// What plans call the operator.
    const NAME: &'static str;

    /// What of some rows passes, in the operator's schema.
    ///
    /// # Errors
    /// When rows are not those of the table.
    fn rows(&self, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch>;

    /// What is told of an error from below, which could quote a row that is not shown.
    fn told(error: DataFusionError) -> DataFusionError {
        untold(
            error,
            "one of the rows of this table cannot be read, perhaps one that is not shown",
            "tell whose table it is: its files may hold a value that is not of its column's type",
        )
    }
}

/// The operator.
pub(crate) struct ScreenExec<S> {
    input: Arc<dyn ExecutionPlan>,
    /// The input in no more partitions than the operator has.
    rows: Arc<dyn ExecutionPlan>,
    screen: Arc<S>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl<S: Screen> ScreenExec<S> {
    /// What of an input passes, with this schema, in as many partitions as `config` says.
    ///
    /// # Errors
    /// When how many rows the input has cannot be told, which is a defect.
    pub(crate) fn over(
        input: Arc<dyn ExecutionPlan>,
        screen: Arc<S>,
        schema: SchemaRef,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partitions = config.execution.target_partitions.max(1);
        let rows = spread(&input, partitions, config.execution.batch_size)?;
        // Neither orders, constants nor partitions of the input are told: they say what hidden rows
        // are like.
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(partitions),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Ok(Arc::new(Self { input, rows, screen, schema, properties: Arc::new(properties) }))
    }
}

/// An input in at most so many partitions: in all of them where it has more rows than a batch, so
/// that what is above computes in parallel.
fn spread(
    input: &Arc<dyn ExecutionPlan>,
    partitions: usize,
    batch_rows: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    let has = input.output_partitioning().partition_count();
    let known = StatisticsContext::new().compute(input.as_ref(), &StatisticsArgs::default())?;
    let is_small = known.num_rows.get_value().is_some_and(|rows| *rows <= batch_rows);
    if has == partitions || (has < partitions && is_small) {
        return Ok(Arc::clone(input));
    }
    let round_robin = Partitioning::RoundRobinBatch(partitions);
    Ok(Arc::new(RepartitionExec::try_new(Arc::clone(input), round_robin)?))
}

impl<S: Screen> fmt::Debug for ScreenExec<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}({})", S::NAME, self.screen)
    }
}

impl<S: Screen> DisplayAs for ScreenExec<S> {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", S::NAME, self.screen)
    }
}

impl<S: Screen> ExecutionPlan for ScreenExec<S> {
    fn name(&self) -> &str {
        S::NAME
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        config: &ConfigOptions,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let input = self.input.repartitioned(target_partitions, config)?;
        let over = |input| Self::over(input, self.screen.clone(), self.schema.clone(), config);
        input.map(over).transpose()
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if partition >= self.rows.output_partitioning().partition_count() {
            return Ok(Box::pin(EmptyRecordBatchStream::new(Arc::clone(&self.schema))));
        }
        let rows = self.rows.execute(partition, context)?;
        let (screen, schema) = (Arc::clone(&self.screen), Arc::clone(&self.schema));
        let passed = rows.filter_map(move |batch| {
            let passed = batch.map_err(S::told).and_then(|batch| screen.rows(&batch, &schema));
            // A batch of which nothing is left is none.
            let is_nothing = passed.as_ref().is_ok_and(|batch| batch.num_rows() == 0);
            futures::future::ready((!is_nothing).then_some(passed))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), passed)))
    }
}

/// An error, without what it says of a row.
pub(crate) fn untold(error: DataFusionError, what: &str, hint: &str) -> DataFusionError {
    let is_of_row = match error.find_root() {
        DataFusionError::Execution(_) | DataFusionError::ArrowError(..) => true,
        DataFusionError::External(inner) => {
            matches!(inner.downcast_ref::<Error>(), Some(Error::Execution { .. }))
        }
        _ => false,
    };
    match is_of_row {
        true => Error::Execution { what: what.into(), hint: Some(hint.into()) }.into(),
        false => error,
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::physical_plan::collect_partitioned;

    use super::*;

    /// Lets everything through.
    struct Open;

    impl fmt::Display for Open {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("open")
        }
    }

    impl Screen for Open {
        const NAME: &'static str = "OpenExec";

        fn rows(&self, batch: &RecordBatch, _: &SchemaRef) -> Result<RecordBatch> {
            Ok(batch.clone())
        }
    }

    #[tokio::test]
    async fn its_partitions_are_those_of_the_session_whatever_is_below() {
        let mut config = ConfigOptions::default();
        config.execution.target_partitions = 3;
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1; 100]));
        let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        // Of more rows than a batch has they are spread, of fewer they stay where they are.
        for batch_rows in [10, 10_000] {
            config.execution.batch_size = batch_rows;
            for parts in 1..6 {
                let rows = vec![vec![batch.clone()]; parts];
                let input = MemorySourceConfig::try_new_exec(&rows, batch.schema(), None).unwrap();
                let screen = ScreenExec::over(input, Arc::new(Open), batch.schema(), &config);
                let screen = screen.unwrap();
                assert_eq!(screen.output_partitioning().partition_count(), 3);
                let passed = collect_partitioned(screen, Arc::default()).await.unwrap();
                let passed: usize = passed.iter().flatten().map(RecordBatch::num_rows).sum();
                assert_eq!(passed, parts * 100, "{parts} parts");
            }
        }
    }
}
