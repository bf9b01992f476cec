//! Inputs of joins that are asked for their rows a second time.
//!
//! A join without equal columns holds the rows of its left input in memory. Where they do not fit,
//! DataFusion 55 starts that input once more, to write its rows to disk. Most operators cannot be
//! started twice: what shares rows out among partitions panics, files that were read are not read
//! again, so that rows would be missing, and a private aggregation would be paid for twice. A left
//! join of several partitions would also give rows without a partner once for each partition. So an
//! input starts anew from its beginning where all below it can, and otherwise the statement meets
//! the limit of its memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::JoinType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties,
};

/// An input that starts anew when it is started for a second time, or refuses to.
#[derive(Debug)]
pub(crate) struct RestartExec {
    input: Arc<dyn ExecutionPlan>,
    may_restart: bool,
    is_started: AtomicBool,
}

impl RestartExec {
    /// The left input of a join.
    pub(crate) fn of(join: &NestedLoopJoinExec) -> Arc<dyn ExecutionPlan> {
        let parts = join.right().output_partitioning().partition_count();
        let may_restart = gives_each_once(*join.join_type(), parts) && starts_anew(join.left());
        Self::made(Arc::clone(join.left()), may_restart)
    }

    fn made(input: Arc<dyn ExecutionPlan>, may_restart: bool) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { input, may_restart, is_started: AtomicBool::new(false) })
    }
}

/// Whether a join whose partitions each read its left rows from disk gives each row once.
fn gives_each_once(join_type: JoinType, partitions: usize) -> bool {
    let by_right_rows = matches!(
        join_type,
        JoinType::Inner
            | JoinType::Right
            | JoinType::RightSemi
            | JoinType::RightAnti
            | JoinType::RightMark
    );
    by_right_rows || partitions == 1
}

/// Whether a plan gives all its rows again: nothing but operators that are known to.
fn starts_anew(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let is_known = plan.is::<DataSourceExec>()
        || plan.is::<LazyMemoryExec>()
        || plan.is::<FilterExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<RepartitionExec>()
        || plan.is::<CooperativeExec>();
    is_known && plan.children().into_iter().all(starts_anew)
}

impl DisplayAs for RestartExec {
    fn fmt_as(&self, _: DisplayFormatType, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RestartExec: may_restart={}", self.may_restart)
    }
}

impl ExecutionPlan for RestartExec {
    fn name(&self) -> &'static str {
        "RestartExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
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
            [input] => Ok(Self::made(Arc::clone(input), self.may_restart)),
            _ => Err(DataFusionError::Internal("the input of a join is one".into())),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if !self.is_started.swap(true, Ordering::AcqRel) {
            return self.input.execute(partition, context);
        }
        if !self.may_restart {
            return Err(DataFusionError::ResourcesExhausted(
                "the rows of one side of a join do not fit in the memory of a statement".into(),
            ));
        }
        reset_plan_states(Arc::clone(&self.input))?.execute(partition, context)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::physical_plan::{Partitioning, collect};

    use super::*;

    fn shared_out() -> Arc<dyn ExecutionPlan> {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![numbers]).unwrap();
        let rows = MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None).unwrap();
        let parts = Partitioning::RoundRobinBatch(4);
        let shared = RepartitionExec::try_new(rows, parts).unwrap();
        Arc::new(CoalescePartitionsExec::new(Arc::new(shared)))
    }

    #[tokio::test]
    async fn what_is_shared_out_gives_all_its_rows_again() {
        let input = shared_out();
        assert!(starts_anew(&input));
        let input = RestartExec::made(input, true);
        for _ in 0..2 {
            let rows = collect(Arc::clone(&input), Arc::default()).await.unwrap();
            assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 10);
        }
    }

    #[tokio::test]
    async fn what_must_not_start_twice_is_a_limit() {
        let input = RestartExec::made(shared_out(), false);
        collect(Arc::clone(&input), Arc::default()).await.unwrap();
        let error = collect(input, Arc::default()).await.unwrap_err();
        assert_eq!(crate::Error::from(error).code(), "ATT-3002");
    }

    #[test]
    fn rows_without_a_partner_come_once() {
        assert!(gives_each_once(JoinType::Inner, 4) && gives_each_once(JoinType::Left, 1));
        assert!(!gives_each_once(JoinType::Left, 4) && !gives_each_once(JoinType::Full, 4));
    }
}
