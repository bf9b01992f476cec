//! The optimizer rule that plans fuzzy joins.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, PartitionMode};

use super::exec::{FuzzyJoinExec, Join};
use super::predicate;

/// Replaces joins on alike texts. Runs once sides and partition modes are chosen, before inputs
/// are repartitioned.
#[derive(Debug)]
pub(crate) struct FuzzyJoin;

impl PhysicalOptimizerRule for FuzzyJoin {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            Ok(match fuzzy(&plan)? {
                Some(join) => Transformed::yes(Arc::new(FuzzyJoinExec::new(join)?) as _),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &str {
        "FuzzyJoin"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The fuzzy join that a plan node is.
fn fuzzy(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<Join>> {
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        let schemas = (join.left().schema(), join.right().schema());
        let Some(split) = join.filter().map(|filter| predicate::split(filter, schemas)) else {
            return Ok(None);
        };
        return Ok(split?.map(|(predicate, filter)| Join {
            left: Arc::clone(join.left()),
            right: Arc::clone(join.right()),
            on: Vec::new(),
            null_equality: datafusion::common::NullEquality::NullEqualsNothing,
            predicate,
            filter,
            join_type: *join.join_type(),
            partitioned: false,
            projection: join.projection().clone(),
        }));
    }
    let Some(join) = plan.downcast_ref::<HashJoinExec>() else { return Ok(None) };
    if join.null_aware || join.fetch().is_some() {
        return Ok(None);
    }
    let schemas = (join.left().schema(), join.right().schema());
    let Some(split) = join.filter().map(|filter| predicate::split(filter, schemas)) else {
        return Ok(None);
    };
    Ok(split?.map(|(predicate, filter)| Join {
        left: Arc::clone(join.left()),
        right: Arc::clone(join.right()),
        on: join.on().to_vec(),
        null_equality: join.null_equality(),
        predicate,
        filter,
        join_type: *join.join_type(),
        partitioned: *join.partition_mode() == PartitionMode::Partitioned,
        projection: join.projection.clone(),
    }))
}
