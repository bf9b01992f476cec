//! The optimizer rule that plans fuzzy joins.

use std::sync::Arc;

use datafusion::common::NullEquality;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, PartitionMode};

use super::exec::{FuzzyJoinExec, Join};
use super::predicate::{self, Alternative};

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
        let inputs = (join.left(), join.right());
        return with_predicates(join.filter(), inputs, |alternatives, left, right| Join {
            left,
            right,
            on: Vec::new(),
            null_equality: NullEquality::NullEqualsNothing,
            alternatives,
            join_type: *join.join_type(),
            partitioned: false,
            projection: join.projection().clone(),
        });
    }
    let Some(join) = plan.downcast_ref::<HashJoinExec>() else { return Ok(None) };
    if join.null_aware || join.fetch().is_some() {
        return Ok(None);
    }
    let inputs = (join.left(), join.right());
    with_predicates(join.filter(), inputs, |alternatives, left, right| Join {
        left,
        right,
        on: join.on().to_vec(),
        null_equality: join.null_equality(),
        alternatives,
        join_type: *join.join_type(),
        partitioned: *join.partition_mode() == PartitionMode::Partitioned,
        projection: join.projection.clone(),
    })
}

type Input = Arc<dyn ExecutionPlan>;

/// The join that is made of a condition, if indexes can answer a part of it.
fn with_predicates(
    filter: Option<&JoinFilter>,
    (left, right): (&Input, &Input),
    make: impl FnOnce(Vec<Alternative>, Input, Input) -> Join,
) -> Result<Option<Join>> {
    let Some(filter) = filter else { return Ok(None) };
    let split = predicate::split(filter, &(left.schema(), right.schema()))?;
    Ok(split.map(|split| make(split, Arc::clone(left), Arc::clone(right))))
}
