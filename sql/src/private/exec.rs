//! The operator of a private aggregation.
//!
//! Its answer is one batch. First the budget pays; then rows are read and bounded; then noise is
//! drawn. Whatever fails after the first step leaves the budget charged: an error can tell
//! something too.

use std::fmt;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    EquivalenceProperties, LexRequirement, OrderingRequirements, PhysicalExpr,
    PhysicalSortRequirement,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, Partitioning, PlanProperties,
};
use futures::StreamExt;

use crate::error::{Error, Result};
use crate::private::gather::Gatherer;
use crate::private::ledger::Ledger;
use crate::private::node::{PrivateNode, shown};
use crate::private::options::Spec;
use crate::private::release::{check, release, result_types};
use crate::private::rewrite::UNIT;

/// The operator.
#[derive(Debug)]
pub(crate) struct PrivateExec {
    spec: Arc<Spec>,
    ledger: Ledger,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl PrivateExec {
    /// The operator of a node.
    pub(crate) fn new(node: &PrivateNode, input: &Arc<dyn ExecutionPlan>) -> Self {
        Self::build(node.spec(), node.ledger(), node.arrow_schema(), input)
    }

    fn build(
        spec: &Arc<Spec>,
        ledger: &Ledger,
        schema: SchemaRef,
        input: &Arc<dyn ExecutionPlan>,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            spec: Arc::clone(spec),
            ledger: ledger.clone(),
            input: Arc::clone(input),
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for PrivateExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DifferentialPrivacyExec: {}", shown(&self.spec, &self.ledger))
    }
}

impl ExecutionPlan for PrivateExec {
    fn name(&self) -> &str {
        "DifferentialPrivacyExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    // The rows of a unit come together: nothing but the groups has to be held.
    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let schema = self.input.schema();
        let name = schema.fields().first().map_or(UNIT, |field| field.name().as_str());
        let unit: Arc<dyn PhysicalExpr> = Arc::new(Column::new(name, 0));
        let sorted = PhysicalSortRequirement::new(unit, Some(SortOptions::default()));
        vec![LexRequirement::new([sorted]).map(OrderingRequirements::from)]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        match children.as_slice() {
            [input] => Ok(Arc::new(Self::build(&self.spec, &self.ledger, self.schema(), input))),
            _ => Err(DataFusionError::Internal("a private aggregation has one input".into())),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let (spec, ledger, schema) = (Arc::clone(&self.spec), self.ledger.clone(), self.schema());
        let (input, of) = (Arc::clone(&self.input), Arc::clone(&schema));
        let answer = futures::stream::once(async move {
            let start = || input.execute(partition, Arc::clone(&context));
            let answered = answer(&spec, &ledger, &of, start, &context);
            answered.await.map_err(DataFusionError::from)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, answer)))
    }
}

async fn answer(
    spec: &Arc<Spec>,
    ledger: &Ledger,
    schema: &SchemaRef,
    start: impl FnOnce() -> DataFusionResult<SendableRecordBatchStream>,
    context: &TaskContext,
) -> Result<RecordBatch> {
    check(spec, schema)?;
    ledger.charge().await?;
    let mut generator = ledger.generator()?;
    let mut rows = start().map_err(|error| told(error.into(), ledger))?;
    let memory = MemoryConsumer::new("differential privacy").register(context.memory_pool());
    let types = result_types(spec, schema);
    let mut gatherer = Gatherer::new(spec, &rows.schema(), &types, memory)?;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(|error| told(error.into(), ledger))?;
        gatherer.take(&batch, &mut generator).map_err(|error| told(error, ledger))?;
    }
    let finished = gatherer.finish(&mut generator);
    let (gathered, reserved) = finished.map_err(|error| told(error, ledger))?;
    let answer = release(spec, &gathered, schema, &mut generator).await;
    drop(reserved);
    answer
}

/// An error below a private aggregation may hold a person's value: under a policy it is not told.
fn told(error: Error, ledger: &Ledger) -> Error {
    if ledger.is_charged() { untold(error) } else { error }
}

/// An error without what it says of rows; that a limit was met is told, not what was held then.
fn untold(error: Error) -> Error {
    match error {
        Error::Cancelled | Error::TimedOut { .. } | Error::Busy { .. } => error,
        Error::Exhausted { .. } => Error::Exhausted {
            what: "a private answer met a limit of the statement's memory, disk or size".into(),
        },
        _ => Error::Execution {
            what: "a row under a privacy policy could not be computed".into(),
            hint: Some(
                "which one is not told, and the budget stays charged; guard casts with try_cast \
                 and divisors with nullif(divisor, 0)"
                    .into(),
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_rows_under_a_policy_an_error_tells_the_limit_alone() {
        let full = Error::Exhausted { what: "4711 bytes are held".into() };
        let told = untold(full);
        assert_eq!(told.code(), "ATT-3002");
        assert!(!told.to_string().contains("4711"), "{told}");
        let row = Error::Execution { what: "ann is no number".into(), hint: None };
        let told = untold(row);
        assert_eq!(told.code(), "ATT-3001");
        assert!(!told.to_string().contains("ann"), "{told}");
    }
}
