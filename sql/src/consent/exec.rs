//! The operator that leaves out the rows of people who do not consent.
//!
//! To the planner it is a leaf: no rule moves a condition, a limit or a dynamic filter through it,
//! no statistics come out of it, and EXPLAIN shows which policies apply and nothing of what is
//! below, no counts least of all.

use std::fmt;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{and, filter_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning,
    PlanProperties,
};
use futures::StreamExt;
use udfs::consent::{ConsentSet, Mask};

use crate::policy::barrier::unread;

/// Who consents, and which column of the input says whose a row is.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) column: usize,
    pub(super) set: Arc<ConsentSet>,
}

/// What the operator shows, as one text.
#[derive(Debug, Clone)]
struct Shown {
    purpose: String,
    policies: Vec<String>,
}

/// What the operator does with a batch.
#[derive(Debug)]
struct Keep {
    conditions: Vec<Condition>,
    /// The input's columns that go on, in their order.
    output: Vec<usize>,
    schema: SchemaRef,
}

/// The operator.
pub(crate) struct ConsentExec {
    input: Arc<dyn ExecutionPlan>,
    keep: Arc<Keep>,
    shown: Shown,
    properties: Arc<PlanProperties>,
}

impl ConsentExec {
    /// The rows of `input` of people who meet all conditions; of their columns those in `output`.
    ///
    /// # Errors
    /// When the input lacks a column.
    pub(super) fn new(
        input: Arc<dyn ExecutionPlan>,
        conditions: Vec<Condition>,
        output: Vec<usize>,
        purpose: &str,
        policies: Vec<String>,
    ) -> Result<Self> {
        let schema: SchemaRef = Arc::new(input.schema().project(&output)?);
        let keep = Arc::new(Keep { conditions, output, schema });
        let shown = Shown { purpose: purpose.to_owned(), policies };
        Ok(Self::over(input, keep, shown))
    }

    fn over(input: Arc<dyn ExecutionPlan>, keep: Arc<Keep>, shown: Shown) -> Self {
        // Neither orders nor constants of the input are told: they say what hidden rows are like.
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&keep.schema)),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self { input, keep, shown, properties: Arc::new(properties) }
    }
}

impl Keep {
    /// The rows of people who consent.
    fn rows(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut kept: Option<BooleanArray> = None;
        for condition in &self.conditions {
            match condition.set.mask(batch.column(condition.column))? {
                Mask::All => {}
                Mask::None => return Ok(RecordBatch::new_empty(Arc::clone(&self.schema))),
                Mask::Some(mask) => {
                    kept = Some(match kept {
                        Some(before) => and(&before, &mask)?,
                        None => mask,
                    });
                }
            }
        }
        let Some(mask) = kept else { return self.projected(batch) };
        if self.output.is_empty() {
            return self.counted(mask.true_count());
        }
        Ok(filter_record_batch(&self.projected(batch)?, &mask)?)
    }

    fn projected(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        if self.output.is_empty() {
            return self.counted(batch.num_rows());
        }
        let columns = self.output.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// So many rows without columns.
    fn counted(&self, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), vec![], &options)?)
    }
}

impl fmt::Debug for ConsentExec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ConsentExec({})", self.shown.policies.join(", "))
    }
}

impl DisplayAs for ConsentExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown { purpose, policies } = &self.shown;
        write!(formatter, "ConsentExec: policies=[{}], purpose={purpose}", policies.join(", "))
    }
}

impl ExecutionPlan for ConsentExec {
    fn name(&self) -> &str {
        "ConsentExec"
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
        Ok(input.map(|input| {
            let (keep, shown) = (Arc::clone(&self.keep), self.shown.clone());
            Arc::new(Self::over(input, keep, shown)) as Arc<dyn ExecutionPlan>
        }))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, context)?;
        let keep = Arc::clone(&self.keep);
        let kept = rows.filter_map(move |batch| {
            let kept = batch.map_err(unread).and_then(|batch| keep.rows(&batch));
            // A batch of which nothing is left is none.
            let is_nothing = kept.as_ref().is_ok_and(|batch| batch.num_rows() == 0);
            futures::future::ready((!is_nothing).then_some(kept))
        });
        let schema = Arc::clone(&self.keep.schema);
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, kept)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use udfs::consent::SubjectKind;

    use super::*;

    fn column(values: &[i64]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    fn set(default_allow: bool, exceptions: &[i64]) -> Arc<ConsentSet> {
        let exceptions = [column(exceptions)];
        let set = ConsentSet::new(SubjectKind::Integer, default_allow, &exceptions, 1).unwrap();
        Arc::new(set)
    }

    #[test]
    fn all_policies_must_agree() {
        let field = |name: &str| Field::new(name, DataType::Int64, true);
        let schema = Arc::new(Schema::new(vec![field("who"), field("n")]));
        let columns = vec![column(&[1, 2, 3, 4]), column(&[10, 20, 30, 40])];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let condition = |set| Condition { column: 0, set };
        let keep = |conditions: Vec<Condition>, output: Vec<usize>| {
            let schema = Arc::new(schema.project(&output).unwrap());
            Keep { conditions, output, schema }.rows(&batch).unwrap()
        };
        let both = || vec![condition(set(true, &[2])), condition(set(false, &[1, 2, 3]))];
        let rows = keep(both(), vec![1]);
        assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &[10, 30]);
        // Rows are counted where no column is asked for.
        assert_eq!(keep(both(), vec![]).num_rows(), 2);
        assert_eq!(keep(vec![condition(set(true, &[]))], vec![]).num_rows(), 4);
        assert_eq!(keep(vec![condition(set(false, &[]))], vec![0, 1]).num_rows(), 0);
    }
}
