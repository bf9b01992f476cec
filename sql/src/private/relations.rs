//! Plans the relation that stands between the two SELECTs of a private one.

use std::sync::Arc;

use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Extension, LogicalPlan};
use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Query, TableFactor, Value, ValueWithSpan,
};

use crate::error::{Error, Result};
use crate::parse::name_parts;
use crate::private::ledger::Ledger;
use crate::private::node::PrivateNode;
use crate::private::options::Spec;
use crate::private::rewrite::RELATION;
use crate::private::{guard, lineage};
use crate::session::StatementContext;

/// Plans the private aggregations of one statement.
#[derive(Debug)]
pub(crate) struct PrivateRelations {
    context: Arc<StatementContext>,
    specs: Vec<Arc<Spec>>,
}

impl PrivateRelations {
    /// A planner of what the statement's private SELECTs compute.
    pub(crate) fn new(context: &Arc<StatementContext>, specs: Vec<Spec>) -> Self {
        let specs = specs.into_iter().map(Arc::new).collect();
        Self { context: Arc::clone(context), specs }
    }

    fn plan(
        &self,
        arguments: &[FunctionArg],
        context: &mut dyn RelationPlannerContext,
    ) -> Result<LogicalPlan> {
        let made = || Error::Internal("a private aggregation was not made by its clause".into());
        let (number, query) = parts(arguments).ok_or_else(made)?;
        let spec = self.specs.get(number).ok_or_else(made)?;
        let derived =
            TableFactor::Derived { lateral: false, subquery: query, alias: None, sample: None };
        let input = context.plan(derived)?;
        let policies = lineage::check(&input, spec)?;
        let input = guard::opened(input)?;
        guard::no_groups(&input)?;
        let ledger = Ledger::new(&self.context, &policies, spec)?;
        let node = PrivateNode::new(Arc::clone(spec), ledger, input)?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }
}

/// The number of the specification and the input.
fn parts(arguments: &[FunctionArg]) -> Option<(usize, Box<Query>)> {
    let [number, query] = arguments else { return None };
    let expr = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    let Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) = expr(number)? else {
        return None;
    };
    let Expr::Subquery(query) = expr(query)? else { return None };
    Some((number.parse().ok()?, query))
}

impl RelationPlanner for PrivateRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DataFusionResult<RelationPlanning> {
        let TableFactor::Function { name, args, alias, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        if name_parts(name) != [RELATION] {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let plan = self.plan(args, context).map_err(DataFusionError::from)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}
