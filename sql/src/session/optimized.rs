//! A prepared query optimized once, before its values are known.
//!
//! The logical optimizer costs more than a look-up's rows. What it does depends on a parameter's
//! value hardly ever: where placeholders stand only in conditions and in output columns, and have
//! the types that were announced, the rest of the work is to put the values in and to fold
//! constants. Elsewhere (LIMIT ?, a model's argument) the plan is optimized with its values.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerContext};

use crate::error::Result;
use crate::operators::is_condition;
use crate::policy::barrier::barrier_of;

/// A plan with more parts of expressions than this is not light.
const LIGHT_PARTS_MAX: usize = 256;

/// A query optimized before its values are known, and the state that its runs start from.
#[derive(Debug)]
pub(super) struct Optimized {
    plan: LogicalPlan,
    state: SessionState,
    light: bool,
}

impl Optimized {
    /// The optimized plan, or `None` where the values may matter to the optimizer.
    pub(super) fn of(state: &SessionState, plan: &LogicalPlan) -> Option<Self> {
        let types = plan.get_parameter_types().ok()?;
        if types.is_empty() || types.values().any(Option::is_none) || !harmless(plan) {
            return None;
        }
        // What cannot be optimized now may be once the values are there; the run will tell.
        let plan = state.optimize(plan).ok()?;
        harmless(&plan).then(|| {
            let light = light(&plan);
            Self { plan, state: without_functions(state), light }
        })
    }

    /// Whether operators are made of it in a moment, whatever its values.
    pub(super) fn is_light(&self) -> bool {
        self.light
    }

    /// The state that a run starts from.
    pub(super) fn state(&self) -> &SessionState {
        &self.state
    }

    /// Whether the values have the types that were announced.
    pub(super) fn takes(&self, values: &[ScalarValue], parameters: &Schema) -> bool {
        let fields = parameters.fields().iter();
        let fits =
            |(value, field): (&ScalarValue, &FieldRef)| value.data_type() == *field.data_type();
        values.len() == fields.len() && values.iter().zip(fields).all(fits)
    }

    /// The plan with its values, for a run in `state`.
    ///
    /// # Errors
    /// When a constant part of the plan cannot be computed.
    pub(super) fn with_values(
        &self,
        state: &SessionState,
        values: &[ScalarValue],
    ) -> Result<LogicalPlan> {
        let plan = self.plan.clone().with_param_values(ParamValues::from(values.to_vec()))?;
        let folding = Optimizer::with_rules(vec![Arc::new(SimplifyExpressions::new())]);
        let options = Arc::clone(state.config_options());
        let mut context = OptimizerContext::new_with_config_options(options);
        if let Some(started) = state.execution_props().query_execution_start_time {
            context = context.with_query_execution_start_time(started);
        }
        Ok(folding.optimize(plan, &context, |_, _| {})?)
    }
}

/// The state without the functions that planning finds by name: an optimized plan holds its own,
/// and each run would copy the hundreds of names that nobody looks up.
fn without_functions(state: &SessionState) -> SessionState {
    SessionStateBuilder::new_from_existing(state.clone())
        .with_session_id(state.session_id().to_owned())
        .with_table_functions(HashMap::new())
        .with_scalar_functions(Vec::new())
        .with_higher_order_functions(Vec::new())
        .with_aggregate_functions(Vec::new())
        .with_window_functions(Vec::new())
        .build()
}

/// Whether the plan only reads tables, compares and converts. Folding constants calls whatever is
/// constant once the values are there, so a function makes a plan heavy, whichever it is.
fn light(plan: &LogicalPlan) -> bool {
    let (mut light, mut parts) = (true, 0);
    let walked = plan.apply_with_subqueries(|node| {
        light &= match node {
            // What policies compute of a table is planned with its operators.
            LogicalPlan::TableScan(scan) => barrier_of(&scan.source, |_| ()).is_none(),
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::EmptyRelation(_) => true,
            _ => false,
        };
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                parts += 1;
                light &= parts <= LIGHT_PARTS_MAX && compares(part);
                Ok(if light { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
            })
        })?;
        Ok(if light { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.is_ok() && light
}

fn compares(part: &Expr) -> bool {
    match part {
        Expr::BinaryExpr(binary) => is_condition(binary.op),
        Expr::Column(_)
        | Expr::Literal(..)
        | Expr::Placeholder(_)
        | Expr::Alias(_)
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::Between(_)
        | Expr::InList(_)
        | Expr::Cast(_)
        | Expr::TryCast(_) => true,
        _ => false,
    }
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

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use datafusion::functions::expr_fn::abs;
    use datafusion::logical_expr::{LogicalPlanBuilder, cast, lit, placeholder};

    use super::*;

    fn projected(expr: Expr) -> LogicalPlan {
        LogicalPlanBuilder::empty(true).project([expr]).unwrap().build().unwrap()
    }

    #[test]
    fn what_compares_is_light_and_what_computes_is_not() {
        assert!(light(&projected(cast(placeholder("$1"), DataType::Int64))));
        assert!(light(&projected(lit(1_i64).eq(lit(2_i64)))));
        assert!(!light(&projected(abs(lit(1_i64)))));
        assert!(!light(&projected(lit(1_i64) + lit(2_i64))));
        let list = |length: i64| (0..length).map(lit).collect::<Vec<_>>();
        assert!(light(&projected(lit(1_i64).in_list(list(9), false))));
        assert!(!light(&projected(lit(1_i64).in_list(list(1_000), false))));
    }
}
