//! `NOT IN` of a subquery that refers to the outer query is refused.
//!
//! DataFusion 55 plans it as an anti join that asks for NULLs on all rows of the subquery, also on
//! those that do not belong to the outer row, and so leaves out rows that are to be there.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::plan_err;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;

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
            Some(join) if join.null_aware && join.filter().is_some() => plan_err!(
                "NOT IN is not supported with a subquery that refers to the outer query; write \
                 NOT EXISTS (SELECT … WHERE … AND (inner.x = outer.x) IS NOT FALSE)"
            ),
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
