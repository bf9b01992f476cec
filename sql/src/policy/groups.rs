//! Aggregation policies: rows are seen in groups alone, and groups below a size not at all.
//!
//! Each aggregation right above the rows of such a table gets a count of its own and loses the
//! groups that are too small. Between the table and its aggregation there are only conditions and
//! choices of columns: what would let one row through by itself (a join, a limit, a window), or
//! make one row stand out in a sum (an expression, a FILTER), is refused.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::functions_aggregate::expr_fn::{count, count_distinct};
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection, lit,
};

use super::barrier::barrier_of;
use super::harmless::is_harmless;
use crate::error::{Error, Result};
use crate::subqueries::subquery;

/// Aggregates to which one row gives no more than its share.
const SHARES: [&str; 14] = [
    "approx_distinct",
    "avg",
    "corr",
    "count",
    "covar",
    "covar_pop",
    "covar_samp",
    "mean",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "sum",
    "var",
    "var_pop",
];
const HINT: &str = "GROUP BY its columns with count, sum, avg, stddev or var of a column, or ask \
                    who administers policies for a role that the policy excepts";

/// How large groups have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupSize {
    /// The smallest group.
    pub(crate) min: u64,
    /// The column that tells whom a row is of; none: each row counts.
    pub(crate) unit: Option<String>,
}

/// Rows of a table with an aggregation policy, on their way to an aggregation.
struct Rows {
    sizes: Vec<(u64, Unit)>,
    /// The columns that are the table's own.
    plain: Vec<bool>,
}

/// What is counted.
#[derive(Clone)]
enum Unit {
    Rows,
    /// The distinct values of the column at this place.
    At(usize),
    /// Those of a column that was left out on the way.
    Lost(String),
}

/// Gives each aggregation of such rows its smallest group.
///
/// # Errors
/// When rows are seen otherwise than in groups.
pub(super) fn enforce(plan: LogicalPlan) -> Result<LogicalPlan> {
    let made = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => match rows_of(&aggregate.input)? {
            Some(rows) => Ok(Transformed::yes(large_groups(aggregate, &rows)?)),
            None => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
        },
        other => Ok(Transformed::no(other)),
    })?;
    let (mut left, mut grouped, mut tells) = (false, false, false);
    made.data.apply_with_subqueries(|node| {
        let rows = rows_of(node)?;
        grouped |= rows.is_some();
        // It counts the rows that each operator gives: those of small groups too.
        tells |= matches!(node, LogicalPlan::Analyze(_));
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Some(sub) = subquery(part) {
                    left |= rows_of(&sub.subquery)?.is_some();
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if grouped && tells {
        return Err(Error::unsupported(
            "EXPLAIN ANALYZE would tell how many rows small groups have",
            "use EXPLAIN",
        ));
    }
    match left || rows_of(&made.data)?.is_some() {
        true => Err(alone()),
        false => Ok(made.data),
    }
}

fn alone() -> Error {
    Error::Unsupported {
        what: "an aggregation policy lets rows of this table be seen in groups alone".into(),
        hint: Some(HINT.into()),
    }
}

fn refused<T>(what: impl Into<String>) -> DataFusionResult<T> {
    let refusal = Error::Unsupported { what: what.into(), hint: Some(HINT.into()) };
    Err(DataFusionError::from(refusal))
}

/// Whether rows may pass a node before they are aggregated.
fn is_on_its_way(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(sort) => sort.fetch.is_none(),
        LogicalPlan::TableScan(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::Repartition(_) => true,
        _ => false,
    }
}

/// The rows of a table with an aggregation policy that a plan answers one by one.
fn rows_of(plan: &LogicalPlan) -> DataFusionResult<Option<Rows>> {
    if let LogicalPlan::TableScan(scan) = plan {
        let fields = scan.projected_schema.fields();
        let sizes = barrier_of(&scan.source, |barrier| barrier.groups().to_vec());
        let sizes = sizes.unwrap_or_default().into_iter().map(|size| {
            let unit = match size.unit {
                None => Unit::Rows,
                Some(name) => match fields.iter().position(|field| *field.name() == name) {
                    Some(at) => Unit::At(at),
                    None => Unit::Lost(name),
                },
            };
            (size.min, unit)
        });
        let sizes: Vec<(u64, Unit)> = sizes.collect();
        let plain = vec![true; fields.len()];
        return Ok((!sizes.is_empty()).then_some(Rows { sizes, plain }));
    }
    // What an aggregation answers are groups.
    if matches!(plan, LogicalPlan::Aggregate(_)) {
        return Ok(None);
    }
    for input in plan.inputs() {
        let Some(rows) = rows_of(input)? else { continue };
        if !is_on_its_way(plan) {
            return Err(DataFusionError::from(alone()));
        }
        return match plan {
            LogicalPlan::Projection(projection) => Ok(Some(projected(projection, &rows)?)),
            LogicalPlan::Filter(filter) => {
                check_harmless(&filter.predicate, filter.input.schema())?;
                Ok(Some(rows))
            }
            _ => Ok(Some(rows)),
        };
    }
    Ok(None)
}

fn check_harmless(expr: &Expr, schema: &DFSchema) -> DataFusionResult<()> {
    match is_harmless(expr, schema)? {
        true => Ok(()),
        false => refused(
            "a condition or key on rows that are seen in groups alone could fail on one row and \
             tell of its value",
        ),
    }
}

/// The rows after a choice of columns.
fn projected(node: &Projection, rows: &Rows) -> DataFusionResult<Rows> {
    let schema = node.input.schema();
    let from: Vec<Option<usize>> = node.expr.iter().map(|expr| place(expr, schema)).collect();
    for (expr, from) in node.expr.iter().zip(&from) {
        if from.is_none() {
            check_harmless(expr, schema)?;
        }
    }
    let plain = from.iter().map(|from| from.is_some_and(|at| rows.plain.get(at) == Some(&true)));
    let sizes = rows.sizes.iter().map(|(min, unit)| {
        let unit = match unit {
            Unit::At(at) => match from.iter().position(|from| *from == Some(*at)) {
                Some(now) => Unit::At(now),
                None => Unit::Lost(schema.field(*at).name().clone()),
            },
            other => other.clone(),
        };
        (*min, unit)
    });
    Ok(Rows { sizes: sizes.collect(), plain: plain.collect() })
}

/// The place of the column that an expression is.
fn place(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Alias(alias) => place(&alias.expr, schema),
        Expr::Column(column) => schema.maybe_index_of_column(column),
        _ => None,
    }
}

/// The aggregation without the groups that are too small.
fn large_groups(aggregate: Aggregate, rows: &Rows) -> DataFusionResult<LogicalPlan> {
    let input = aggregate.input.schema();
    for key in &aggregate.group_expr {
        check_harmless(key, input)?;
    }
    for expr in &aggregate.aggr_expr {
        check_share(expr, input, rows)?;
    }
    let outputs: Vec<Expr> =
        aggregate.schema.iter().map(|field| Expr::Column(Column::from(field))).collect();
    let mut aggregates = aggregate.aggr_expr.clone();
    let mut smallest = Vec::with_capacity(rows.sizes.len());
    for (number, (min, unit)) in rows.sizes.iter().enumerate() {
        let size = match unit {
            Unit::Rows => count(lit(1_i64)),
            Unit::At(at) => count_distinct(Expr::Column(Column::from(input.qualified_field(*at)))),
            Unit::Lost(name) => {
                return refused(format!(
                    "groups are counted by {name}, which the query below the aggregation leaves out"
                ));
            }
        };
        let taken = |name: &str| aggregate.schema.fields().iter().any(|f| f.name() == name);
        let mut name = format!("__group_size_{number}");
        while taken(&name) {
            name.push('_');
        }
        aggregates.push(size.alias(name));
        smallest.push(i64::try_from(*min).unwrap_or(i64::MAX));
    }
    let counted =
        Aggregate::try_new(Arc::clone(&aggregate.input), aggregate.group_expr.clone(), aggregates)?;
    let first = counted.schema.fields().len().saturating_sub(smallest.len());
    let mut large = lit(true);
    for (number, min) in smallest.into_iter().enumerate() {
        let size = Column::from(counted.schema.qualified_field(first + number));
        large = large.and(Expr::Column(size).gt_eq(lit(min)));
    }
    LogicalPlanBuilder::from(LogicalPlan::Aggregate(counted))
        .filter(large)?
        .project(outputs)?
        .build()
}

/// Checks that an aggregate takes a share of each row and no more.
fn check_share(expr: &Expr, schema: &DFSchema, rows: &Rows) -> DataFusionResult<()> {
    let call = match expr {
        Expr::Alias(alias) => return check_share(&alias.expr, schema, rows),
        Expr::AggregateFunction(call) => call,
        other => return refused(format!("{} is not computed of such rows", other.schema_name())),
    };
    let name = call.func.name();
    if !SHARES.contains(&name) {
        return refused(format!("{name} could show one row of a group"));
    }
    if call.params.filter.is_some() || !call.params.order_by.is_empty() {
        return refused(format!("{name} with FILTER or ORDER BY could single out a row"));
    }
    for argument in &call.params.args {
        if !is_plain(argument, schema, rows)? {
            return refused(format!("{name} of such rows takes a column as it is"));
        }
    }
    Ok(())
}

/// Whether an argument is a column of the table, at most as a wider number, or a constant.
fn is_plain(expr: &Expr, schema: &DFSchema, rows: &Rows) -> DataFusionResult<bool> {
    Ok(match expr {
        Expr::Literal(..) => true,
        Expr::Column(_) => place(expr, schema).is_some_and(|at| rows.plain.get(at) == Some(&true)),
        Expr::Alias(alias) => is_plain(&alias.expr, schema, rows)?,
        Expr::Cast(cast) => {
            let is_number = cast.expr.get_type(schema)?.is_numeric();
            is_number && cast.field.data_type().is_numeric() && is_plain(&cast.expr, schema, rows)?
        }
        _ => false,
    })
}
