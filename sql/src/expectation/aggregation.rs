//! The aggregation of a table's checks taken apart: what of it can be computed by file.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{
    Aggregate, AggregateUDF, Expr, LogicalPlan, Projection, Volatility,
};

use crate::error::Result;
use crate::functions::{SESSION_FUNCTIONS, unbound};
use crate::operators::is_plain_kind;

/// Aggregates whose value over a file is their state, and merges without loss.
const MERGING: [&str; 8] =
    ["count", "min", "max", "bool_and", "bool_or", "bit_and", "bit_or", "bit_xor"];
/// Aggregates whose state over a file is kept; merged in the order of files, they differ from one
/// reading of all rows in the last digits, as two such readings do.
const STATES: [&str; 6] = ["sum", "avg", "stddev", "stddev_pop", "var", "var_pop"];
/// The profile of a distribution, which merges as it is made: exactly while it holds every value.
const PROFILE: &str = "distribution_sketch";
/// The rows that repeat what another row has, which may be in another file: keys are kept.
const REPEATS: &str = "duplicate_count";

/// What is kept of an aggregate over a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// Its value.
    Value,
    /// Its accumulator's state.
    State,
    /// How many different values it saw, and beside the states these as keys.
    Keys,
}

impl Kept {
    /// What is kept of an aggregate that [`merges`], by its name and the type of its value.
    pub(super) fn of(name: &str, value: &DataType) -> Self {
        match name {
            REPEATS => Self::Keys,
            name if STATES.contains(&name) && !value.is_integer() => Self::State,
            _ => Self::Value,
        }
    }
}

/// The query of the checks: conditions over one aggregation.
pub(super) struct Query<'a> {
    pub(super) projection: &'a Projection,
    pub(super) aggregate: &'a Aggregate,
}

impl<'a> Query<'a> {
    pub(super) fn of(plan: &'a LogicalPlan) -> Option<Self> {
        let LogicalPlan::Projection(projection) = plan else { return None };
        let LogicalPlan::Aggregate(aggregate) = projection.input.as_ref() else { return None };
        aggregate.group_expr.is_empty().then_some(Self { projection, aggregate })
    }

    /// The aggregates that each of so many items looks at: its columns are a letter and its number.
    pub(super) fn uses(&self, items: usize) -> Vec<BTreeSet<usize>> {
        let mut uses = vec![BTreeSet::new(); items];
        for (expr, field) in self.projection.expr.iter().zip(self.projection.schema.fields()) {
            let number = field.name().get(1..).and_then(|number| number.parse::<usize>().ok());
            let Some(uses) = number.and_then(|number| uses.get_mut(number)) else { continue };
            let columns = expr.column_refs();
            let schema = &self.aggregate.schema;
            uses.extend(columns.iter().filter_map(|column| schema.maybe_index_of_column(column)));
        }
        uses
    }

    /// Which of so many items can be checked by file, those of repeated values where there are
    /// keys.
    pub(super) fn by_file(&self, items: usize, with_keys: bool) -> Result<Vec<bool>> {
        let bound = unbound();
        let bound: BTreeSet<&str> = bound.iter().map(|function| function.name()).collect();
        let calls = self.aggregate.aggr_expr.iter().zip(self.aggregate.schema.fields());
        let merges = calls.map(|(expr, value)| {
            call(expr).is_some_and(|call| merges(call, value.data_type(), with_keys))
                && resolved(expr, &self.aggregate.input).is_ok_and(|expr| lasting(&expr, &bound))
        });
        let merges: Vec<bool> = merges.collect();
        let by_file = |uses: BTreeSet<usize>| uses.into_iter().all(|number| merges[number]);
        Ok(self.uses(items).into_iter().map(by_file).collect())
    }
}

pub(super) fn call(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::Alias(alias) => call(&alias.expr),
        Expr::AggregateFunction(call) => Some(call),
        _ => None,
    }
}

/// The same call, of another function.
pub(super) fn instead(call: &Expr, function: &Arc<AggregateUDF>) -> Expr {
    match call {
        Expr::Alias(alias) => instead(&alias.expr, function).alias(alias.name.clone()),
        Expr::AggregateFunction(AggregateFunction { params, .. }) => {
            let (func, params) = (Arc::clone(function), params.clone());
            Expr::AggregateFunction(AggregateFunction { func, params })
        }
        other => other.clone(),
    }
}

/// Whether an aggregate's values, states or keys over parts of the rows make its value over all of
/// them.
fn merges(call: &AggregateFunction, value: &DataType, with_keys: bool) -> bool {
    let (name, params) = (call.func.name(), &call.params);
    let plain = !params.distinct && params.order_by.is_empty() && params.null_treatment.is_none();
    // Whether NaN is an extreme depends on how rows are grouped.
    let merging = MERGING.contains(&name) && !value.is_floating();
    let keyed = with_keys && name == REPEATS;
    plain && (merging || keyed || name == PROFILE || STATES.contains(&name))
}

/// An expression over the table's own columns in place of those that stand on them.
///
/// # Errors
/// When they stand on more than the table's rows.
pub(super) fn resolved(expr: &Expr, below: &LogicalPlan) -> DataFusionResult<Expr> {
    let resolved = expr.clone().transform_up(|part| match &part {
        Expr::Column(column) => Ok(Transformed::yes(origin(column, below)?)),
        _ => Ok(Transformed::no(part)),
    })?;
    Ok(resolved.data)
}

fn origin(column: &Column, plan: &LogicalPlan) -> DataFusionResult<Expr> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let index = projection.schema.index_of_column(column)?;
            resolved(&projection.expr[index].clone().unalias_nested().data, &projection.input)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let index = alias.schema.index_of_column(column)?;
            let below = Column::from(alias.input.schema().qualified_field(index));
            origin(&below, &alias.input)
        }
        LogicalPlan::TableScan(_) => Ok(Expr::Column(Column::from_name(&column.name))),
        other => datafusion::common::plan_err!("{} is more than rows", other.display()),
    }
}

/// Whether an expression gives the same for the same rows, whoever asks and whenever.
fn lasting(expr: &Expr, bound: &BTreeSet<&str>) -> bool {
    let mut lasting = true;
    let walked = expr.apply(|part| {
        lasting &= match part {
            Expr::ScalarFunction(call) => {
                let name = call.name();
                call.func.signature().volatility == Volatility::Immutable
                    && !SESSION_FUNCTIONS.contains(&name)
                    && !bound.contains(name)
            }
            Expr::BinaryExpr(_)
            | Expr::SimilarTo(_)
            | Expr::Negative(_)
            | Expr::Cast(_)
            | Expr::AggregateFunction(_) => true,
            other => is_plain_kind(other),
        };
        Ok(TreeNodeRecursion::Continue)
    });
    walked.is_ok() && lasting
}
