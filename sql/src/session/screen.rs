//! The operator above the rows of a guarded table: what its screen lets through passes, and nothing
//! else does.
//!
//! To the planner it is a leaf: no rule moves a condition, a limit or a dynamic filter through it,
//! no statistics come out of it, and EXPLAIN shows the screen and nothing of what is below, no
//! counts least of all.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties,
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
    screen: Arc<S>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl<S: Screen> ScreenExec<S> {
    /// What of an input passes, with this schema.
    pub(crate) fn over(
        input: Arc<dyn ExecutionPlan>,
        screen: Arc<S>,
        schema: SchemaRef,
    ) -> Arc<dyn ExecutionPlan> {
        // Neither orders nor constants of the input are told: they say what hidden rows are like.
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Arc::new(Self { input, screen, schema, properties: Arc::new(properties) })
    }
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
        Ok(input.map(|input| Self::over(input, Arc::clone(&self.screen), Arc::clone(&self.schema))))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, context)?;
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
