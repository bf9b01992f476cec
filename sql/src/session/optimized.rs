//! A prepared query optimized once, before its values are known.
//!
//! The logical optimizer costs more than a look-up's rows. What it does depends on a parameter's
//! value hardly ever: where placeholders stand only in conditions and in output columns, and have
//! the types that were announced, the rest of the work is to put the values in and to fold
//! constants. Elsewhere (LIMIT ?, a model's argument) the plan is optimized with its values.

use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerContext};

use crate::error::Result;

/// The optimized plan, or `None` where the values may matter to the optimizer.
pub(super) fn optimized(state: &SessionState, plan: &LogicalPlan) -> Option<LogicalPlan> {
    let types = plan.get_parameter_types().ok()?;
    if types.is_empty() || types.values().any(Option::is_none) || !harmless(plan) {
        return None;
    }
    // What cannot be optimized now may be once the values are there; the run will tell.
    let optimized = state.optimize(plan).ok()?;
    harmless(&optimized).then_some(optimized)
}

/// An optimized plan with its values; `None` when these have other types than were announced.
///
/// # Errors
/// When a constant part of the plan cannot be computed.
pub(super) fn with_values(
    state: &SessionState,
    plan: &LogicalPlan,
    values: &[ScalarValue],
    parameters: &Schema,
) -> Result<Option<LogicalPlan>> {
    let fields = parameters.fields().iter();
    let announced = values.len() == fields.len()
        && values.iter().zip(fields).all(|(value, field)| value.data_type() == *field.data_type());
    if !announced {
        return Ok(None);
    }
    let plan = plan.clone().with_param_values(ParamValues::from(values.to_vec()))?;
    let folding = Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]);
    let options = Arc::clone(state.config_options());
    let mut context = OptimizerContext::new_with_config_options(options);
    if let Some(started) = state.execution_props().query_execution_start_time {
        context = context.with_query_execution_start_time(started);
    }
    Ok(Some(folding.optimize(plan, &context, |_, _| {})?))
}

/// Whether placeholders stand only where their value does not change the plan's shape.
fn harmless(plan: &LogicalPlan) -> bool {
    let mut harmless = true;
    let walked = plan.apply_with_subqueries(|node| {
        let known = match node {
            LogicalPlan::Filter(_) | LogicalPlan::TableScan(_) | LogicalPlan::Projection(_) => true,
            LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::DescribeTable(_)
            | LogicalPlan::Statement(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Copy(_) => {
                harmless = false;
                false
            }
            _ => false,
        };
        if !known {
            node.apply_expressions(|expr| {
                expr.apply(|part| {
                    harmless &= !matches!(part, Expr::Placeholder(_));
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
        }
        Ok(if harmless { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.is_ok() && harmless
}
