//! The allow-list: which plan nodes a principal's statement may hold.
//!
//! Everything that reads goes through the session's catalog, so what remains to refuse are nodes
//! that write files, change the session behind our back or define things on DataFusion's own, and
//! what DataFusion would silently leave out.

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNodeRecursion, TreeNodeVisitor};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{
    Expr, LogicalPlan, WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};

use crate::error::{Error, Result};

/// Rows or groups that a window's frame may reach from each row. DataFusion adds it to a row's
/// number, which must not overflow.
const REACH_MAX: u64 = i64::MAX.unsigned_abs();

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
                window.window_expr.iter().try_for_each(check_window)?;
                Ok(TreeNodeRecursion::Continue)
            }
            // Definitions and changes pass here because their families take the inputs apart and
            // DataFusion never runs them: `run` executes queries only.
            _ => Ok(TreeNodeRecursion::Continue),
        }
    }
}

/// Refuses DISTINCT in a call of a window function that is no aggregate, where it would say
/// nothing, and a frame that reaches too far.
fn check_window(expr: &Expr) -> DataFusionResult<()> {
    let expr = match expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    let Expr::WindowFunction(call) = expr else { return Ok(()) };
    check_frame(&call.params.window_frame)?;
    if let WindowFunctionDefinition::WindowUDF(function) = &call.fun
        && call.params.distinct
    {
        return Err(DataFusionError::from(Error::invalid_hint(
            format!("{} takes no DISTINCT: it looks at each row", function.name()),
            "SELECT DISTINCT the values in a query below",
        )));
    }
    Ok(())
}

fn check_frame(frame: &WindowFrame) -> DataFusionResult<()> {
    if frame.units == WindowFrameUnits::Range {
        return Ok(());
    }
    for bound in [&frame.start_bound, &frame.end_bound] {
        let (WindowFrameBound::Preceding(reach) | WindowFrameBound::Following(reach)) = bound
        else {
            continue;
        };
        if let ScalarValue::UInt64(Some(reach)) = reach
            && *reach > REACH_MAX
        {
            return Err(DataFusionError::from(Error::invalid_hint(
                format!("a window's frame reaches {REACH_MAX} rows at most, not {reach}"),
                "write UNBOUNDED PRECEDING or UNBOUNDED FOLLOWING",
            )));
        }
    }
    Ok(())
}

fn name(plan: &LogicalPlan) -> String {
    plan.display().to_string().split([':', ' ']).next().unwrap_or_default().to_owned()
}
