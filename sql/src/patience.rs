//! Operators that let go.
//!
//! A statement is ended by dropping its operators, which takes effect when they next pause, and
//! until then they hold a thread that serves others too. DataFusion makes its sources pause. What
//! makes much of little needs it as well: a cross join of two short lists feeds an aggregate for
//! days, and never waits for anything. So joins and unnesting pause after some batches. A join
//! whose filter no pair passes has no batches to count: its filter looks at the statement's
//! cancellation each time. And a plan's last operator runs in a task of its own, so that whoever
//! reads the rows never waits inside an operator: time limits and KILL are heard at once. What is
//! over in a moment needs no such task.

use std::any::type_name;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, execute_stream};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::brief::is_brief;
use crate::error::{Error, Result};
use crate::model::recommend::RecommendExec;
use crate::restart::RestartExec;

/// Batches that wait for the reader beside the one it has.
const AHEAD: usize = 1;

/// The plan with operators that pause, and joins that end when `cancel` says so and start their
/// inputs anew as `restart` has it.
///
/// # Errors
/// When a join cannot be rebuilt, which is a defect.
pub(crate) fn cancellable(
    plan: Arc<dyn ExecutionPlan>,
    cancel: &CancellationToken,
) -> Result<Arc<dyn ExecutionPlan>> {
    let rebuilt = plan.transform_up(|node| {
        let heedful = match heedful(&node, cancel)? {
            Some(join) => join,
            None if multiplies(&node) => node,
            None => return Ok(Transformed::no(node)),
        };
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(heedful)) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(rebuilt.data)
}

/// Whether an operator may make any number of batches of one.
fn multiplies(node: &Arc<dyn ExecutionPlan>) -> bool {
    node.children().len() > 1 || node.is::<UnnestExec>() || node.is::<RecommendExec>()
}

/// A join whose filter heeds the cancellation and whose input starts anew or once; `None` for
/// anything else.
fn heedful(
    node: &Arc<dyn ExecutionPlan>,
    cancel: &CancellationToken,
) -> DataFusionResult<Option<Arc<dyn ExecutionPlan>>> {
    let heeds = |filter: &JoinFilter| {
        let (inner, cancel) = (Arc::clone(filter.expression()), cancel.clone());
        let indices = filter.column_indices().to_vec();
        JoinFilter::new(Arc::new(Heedful { inner, cancel }), indices, Arc::clone(filter.schema()))
    };
    if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        let projection = join.projection().as_ref().map(|columns| columns.to_vec());
        let (left, right) = (RestartExec::of(join), Arc::clone(join.right()));
        let filter = join.filter().map(heeds);
        let join = NestedLoopJoinExec::try_new(left, right, filter, join.join_type(), projection)?;
        return Ok(Some(Arc::new(join)));
    }
    if let Some(join) = node.downcast_ref::<HashJoinExec>()
        && let Some(filter) = join.filter()
    {
        return Ok(Some(Arc::new(join.builder().with_filter(Some(heeds(filter))).build()?)));
    }
    Ok(None)
}

/// Starts a plan so that polling its rows never computes for long. Several partitions are gathered
/// from tasks of their own already; a single one gets such a task unless it is brief.
///
/// # Errors
/// When an operator cannot start.
pub(crate) fn started(
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
) -> Result<SendableRecordBatchStream> {
    let single = plan.output_partitioning().partition_count() == 1;
    let apart = single && !is_brief(&plan);
    let mut rows = execute_stream(plan, task)?;
    if !apart {
        return Ok(rows);
    }
    let mut receiver = RecordBatchReceiverStream::builder(rows.schema(), AHEAD);
    let sender = receiver.tx();
    receiver.spawn(async move {
        while let Some(batch) = rows.next().await {
            let last = batch.is_err();
            if sender.send(batch).await.is_err() || last {
                break;
            }
        }
        Ok(())
    });
    Ok(receiver.build())
}

/// An expression that fails once the statement is cancelled.
#[derive(Debug)]
struct Heedful {
    inner: Arc<dyn PhysicalExpr>,
    cancel: CancellationToken,
}

impl fmt::Display for Heedful {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(formatter)
    }
}

impl PartialEq for Heedful {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Heedful {}

impl Hash for Heedful {
    fn hash<H: Hasher>(&self, state: &mut H) {
        type_name::<Self>().hash(state);
        self.inner.hash(state);
    }
}

impl PhysicalExpr for Heedful {
    fn data_type(&self, schema: &Schema) -> DataFusionResult<DataType> {
        self.inner.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> DataFusionResult<bool> {
        self.inner.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> DataFusionResult<FieldRef> {
        self.inner.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DataFusionResult<ColumnarValue> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
        let inner = children.pop().unwrap_or_else(|| Arc::clone(&self.inner));
        Ok(Arc::new(Self { inner, cancel: self.cancel.clone() }))
    }

    fn fmt_sql(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(formatter)
    }
}
