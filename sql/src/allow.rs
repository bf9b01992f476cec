//! The allow-list: which plan nodes a principal's statement may hold.
//!
//! Everything that reads goes through the session's catalog, so what remains to refuse are nodes
//! that write files, change the session behind our back or define things on DataFusion's own, and
//! what DataFusion would silently leave out.

use datafusion::common::tree_node::{TreeNodeRecursion, TreeNodeVisitor};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, LogicalPlan, WindowFunctionDefinition};

use crate::error::{Error, Result};

/// Checks a plan and all its subqueries.
///
/// # Errors
/// When the plan holds a node that is not on the list.
pub fn check(plan: &LogicalPlan) -> Result<()> {
    plan.visit_with_subqueries(&mut Guard)?;
    Ok(())
}

struct Guard;

impl TreeNodeVisitor<'_> for Guard {
    type Node = LogicalPlan;

    fn f_down(&mut self, plan: &LogicalPlan) -> DataFusionResult<TreeNodeRecursion> {
        match plan {
            LogicalPlan::Copy(_) | LogicalPlan::Statement(_) | LogicalPlan::RecursiveQuery(_) => {
                let what = format!("a plan with {} is not allowed", name(plan));
                Err(DataFusionError::from(Error::Unsupported { what, hint: None }))
            }
            LogicalPlan::Window(window) => {
                window.window_expr.iter().try_for_each(check_distinct)?;
                Ok(TreeNodeRecursion::Continue)
            }
            // Definitions and changes pass here because their families take the inputs apart and
            // DataFusion never runs them: `run` executes queries only.
            _ => Ok(TreeNodeRecursion::Continue),
        }
    }
}

/// Refuses DISTINCT in a call of a window function that is no aggregate: it would say nothing.
fn check_distinct(expr: &Expr) -> DataFusionResult<()> {
    let expr = match expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    if let Expr::WindowFunction(call) = expr
        && let WindowFunctionDefinition::WindowUDF(function) = &call.fun
        && call.params.distinct
    {
        return Err(DataFusionError::from(Error::invalid_hint(
            format!("{} takes no DISTINCT: it looks at each row", function.name()),
            "SELECT DISTINCT the values in a query below",
        )));
    }
    Ok(())
}

fn name(plan: &LogicalPlan) -> String {
    plan.display().to_string().split([':', ' ']).next().unwrap_or_default().to_owned()
}
