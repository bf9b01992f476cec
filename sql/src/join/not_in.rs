//! `NOT IN` of a subquery that refers to the outer query is refused.
//!
//! DataFusion 55 plans it as an anti join that asks for NULLs on all rows of the subquery, also on
//! those that do not belong to the outer row, and so leaves out rows that are to be there.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;

use crate::error::Error;

pub(crate) fn refusal() -> Error {
    Error::invalid(
        "NOT IN is not supported with a subquery that refers to the outer query; write NOT EXISTS \
         (SELECT … WHERE … AND (inner.x = outer.x) IS NOT FALSE)",
    )
}

/// What is said where DataFusion finds it itself: the outer query's columns became keys of a join.
pub(crate) fn of_plan(text: &str) -> Option<Error> {
    text.contains("null_aware anti join only supports").then(refusal)
}

/// Refuses plans that would answer with too few rows.
#[derive(Debug)]
pub(crate) struct CorrelatedNotIn;

impl PhysicalOptimizerRule for CorrelatedNotIn {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.apply(|node| match node.downcast_ref::<HashJoinExec>() {
            Some(join) if join.null_aware && join.filter().is_some() => Err(refusal().into()),
            _ => Ok(TreeNodeRecursion::Continue),
        })?;
        Ok(plan)
    }

    fn name(&self) -> &str {
        "CorrelatedNotIn"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
