//! What is computed of persons' rows for an answer that somebody pays for has a value for each row.
//!
//! That a statement fails tells whether there is a row on which it does, exactly, and however
//! little epsilon it was paid with. So below such an answer stand comparisons, sums and products of
//! whole numbers, which wrap, and of doubles, division of doubles, casts to wider types, TRY_CAST,
//! and functions that take whatever they are given. What fails whenever it is computed is refused
//! as well: CASE computes it for some rows alone.
//!
//! The same holds for what policies compute of the rows of its tables: the conditions of row access
//! policies, and the masks of columns that the answer is computed of. Of other columns no mask is
//! computed. A public table's are no exception: a join looks at it where it has rows of persons.

use std::collections::BTreeSet;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::expr::{ScalarFunction, WindowFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, TableScan, WindowFrameBound,
    WindowFrameUnits,
};

use crate::error::{Error, Result};
use crate::functions::SESSION_FUNCTIONS;
use crate::policy::barrier::{Barrier, barrier_of};
use crate::policy::harmless;

/// Functions of numbers that give one for each.
const NUMERIC: [&str; 6] = ["ceil", "floor", "greatest", "isnan", "iszero", "least"];
/// Functions that cover any text.
const COVERING: [&str; 2] = ["mask_email", "mask_phone"];
/// Aggregates that take any rows.
const AGGREGATES: [&str; 14] = [
    "approx_distinct",
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "count",
    "first_value",
    "last_value",
    "max",
    "min",
    "stddev",
    "stddev_pop",
    "sum",
    "var_pop",
];
/// Window functions that do, beside them.
const WINDOWS: [&str; 5] = ["cume_dist", "dense_rank", "percent_rank", "rank", "row_number"];

/// Checks what stands below a private answer, with its types.
///
/// # Errors
/// When it could fail on a row.
pub(super) fn check(input: &LogicalPlan) -> Result<()> {
    let used = Used::of(input)?;
    input.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            check_policies(scan, &used)?;
        }
        // What others compute is public, or an answer that is looked at by itself.
        if matches!(node, LogicalPlan::Extension(_)) {
            return Ok(TreeNodeRecursion::Continue);
        }
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| match is_total(expr, &schema)? {
            true => Ok(TreeNodeRecursion::Continue),
            false => Err(DataFusionError::from(refusal(expr))),
        })
    })?;
    Ok(())
}

fn refusal(expr: &Expr) -> Error {
    Error::unsupported(
        format!("{expr} could fail on a row, which would tell of it whatever is paid"),
        "under a privacy policy write TRY_CAST for a cast, and divide doubles: 1.0 * x / y",
    )
}

/// The names of columns of which something is computed. Of several columns of one name all are.
#[derive(Debug, Clone, Default)]
struct Used(BTreeSet<String>);

impl Used {
    fn of(plan: &LogicalPlan) -> DataFusionResult<Self> {
        let mut used = Self::default();
        plan.apply_with_subqueries(|node| {
            // These take their inputs' columns by their place, under other names or none.
            let by_place = matches!(
                node,
                LogicalPlan::Union(_)
                    | LogicalPlan::Distinct(_)
                    | LogicalPlan::RecursiveQuery(_)
                    | LogicalPlan::Extension(_)
            );
            if by_place {
                for input in node.inputs() {
                    let fields = input.schema().fields().iter();
                    used.0.extend(fields.map(|field| field.name().clone()));
                }
            }
            node.apply_expressions(|expr| used.add(expr))
        })?;
        Ok(used)
    }

    fn add(&mut self, expr: &Expr) -> DataFusionResult<TreeNodeRecursion> {
        expr.apply(|part| {
            if let Expr::Column(column) | Expr::OuterReferenceColumn(_, column) = part {
                self.0.insert(column.name.clone());
            }
            Ok(TreeNodeRecursion::Continue)
        })
    }
}

/// Checks what policies compute of a table's rows for those who use these columns.
fn check_policies(scan: &TableScan, used: &Used) -> DataFusionResult<()> {
    let table = scan.table_name.table();
    barrier_of(&scan.source, |barrier| check_barrier(table, barrier, used)).unwrap_or(Ok(()))
}

fn check_barrier(table: &str, barrier: &Barrier, used: &Used) -> DataFusionResult<()> {
    let mut used = used.clone();
    barrier.plan().apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            check_policies(scan, &used)?;
        }
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            let is_computed = match expr {
                Expr::Column(_) => false,
                // A policy's masks have the names of the columns that they stand for.
                Expr::Alias(mask) => !barrier.is_written() || used.0.contains(&mask.name),
                _ => true,
            };
            if !is_computed {
                return Ok(TreeNodeRecursion::Continue);
            }
            if barrier.is_written() && !is_total(expr, &schema)? {
                return Err(DataFusionError::from(refusal_of_policy(table)));
            }
            used.add(expr)
        })
    })?;
    Ok(())
}

/// What the policy computes is not told: that can be a secret of its own.
fn refusal_of_policy(table: &str) -> Error {
    Error::unsupported(
        format!(
            "a policy of {table} computes what could fail on a row, which would tell of it \
             whatever is paid"
        ),
        "leave out columns that are masked; or ask who administers policies for conditions and \
         masks that have a value for every row, with TRY_CAST for casts and doubles to divide",
    )
}

fn is_total(expr: &Expr, schema: &DFSchema) -> DataFusionResult<bool> {
    let mut total = true;
    expr.apply(|part| {
        total &= match part {
            Expr::BinaryExpr(binary) if is_arithmetic(binary.op) => computes(binary, schema),
            Expr::ScalarFunction(call) if NUMERIC.contains(&call.func.name()) => {
                call.args.iter().all(|argument| is_number(argument, schema))
            }
            Expr::ScalarFunction(call) if takes_all(call) => true,
            Expr::AggregateFunction(call) => AGGREGATES.contains(&call.func.name()),
            Expr::WindowFunction(call) => is_plain(call),
            other => harmless::is_total(other, schema),
        };
        Ok(if total { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(total)
}

/// Whether a function tells of the session, or covers texts, whatever they are.
fn takes_all(call: &ScalarFunction) -> bool {
    let name = call.func.name();
    let is_count = |expr: &Expr| whole(expr).is_some_and(|count| count >= 0);
    match name {
        "mask" => call.args.len() <= 3 && call.args.iter().skip(1).all(is_count),
        _ => COVERING.contains(&name) || SESSION_FUNCTIONS.contains(&name),
    }
}

fn is_arithmetic(operator: Operator) -> bool {
    use Operator::{Divide, Minus, Modulo, Multiply, Plus};
    matches!(operator, Plus | Minus | Multiply | Divide | Modulo)
}

/// Whether two numbers always have a third: not where a whole number is divided by one that may be
/// zero, or minus one.
fn computes(binary: &BinaryExpr, schema: &DFSchema) -> bool {
    let (left, right) = (binary.left.as_ref(), binary.right.as_ref());
    if !is_number(left, schema) || !is_number(right, schema) {
        return false;
    }
    match binary.op {
        Operator::Divide | Operator::Modulo => {
            is_positive(right) || (is_real(left, schema) && is_real(right, schema))
        }
        _ => true,
    }
}

fn is_number(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|kind| kind.is_integer() || kind.is_floating())
}

fn is_real(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|kind| kind.is_floating())
}

fn is_positive(expr: &Expr) -> bool {
    whole(expr).is_some_and(|number| number > 0)
}

/// The whole number that is written.
fn whole(expr: &Expr) -> Option<i64> {
    let Expr::Literal(value, _) = expr else { return None };
    match value.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(number)) => number,
        _ => None,
    }
}

/// Whether a window function takes any rows: where a frame ends at a distance of values, that could
/// lie beyond the numbers that there are.
fn is_plain(call: &WindowFunction) -> bool {
    let name = call.fun.name();
    let frame = &call.params.window_frame;
    let is_free = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::Preceding(distance) | WindowFrameBound::Following(distance) => {
            distance.is_null()
        }
        WindowFrameBound::CurrentRow => true,
    };
    let is_framed = frame.units == WindowFrameUnits::Rows
        || (is_free(&frame.start_bound) && is_free(&frame.end_bound));
    is_framed && (WINDOWS.contains(&name) || AGGREGATES.contains(&name))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use datafusion::functions::expr_fn::{floor, sqrt};
    use datafusion::functions_aggregate::expr_fn::{max, sum};
    use datafusion::logical_expr::{cast, col, lit, try_cast, when};

    use super::*;

    #[test]
    fn what_has_a_value_for_every_row_is_told_from_what_may_fail() {
        let field = |name: &str, kind| Field::new(name, kind, true);
        let fields = vec![
            field("n", DataType::Int64),
            field("x", DataType::Float64),
            field("t", DataType::Utf8),
        ];
        let schema = DFSchema::try_from(Schema::new(fields)).unwrap();
        let mask = |name: &str, arguments| {
            let functions = udfs::privacy::functions();
            let found = functions.into_iter().find(|function| function.name() == name);
            found.unwrap().call(arguments)
        };
        for expr in [
            mask("mask_email", vec![col("t")]),
            mask("mask", vec![col("t"), lit(0_i64), lit(4_i64)]),
            sum(col("n") * lit(2_i64) + lit(1_i64)),
            col("x") / col("x"),
            col("n") / lit(10_i64),
            cast(col("n"), DataType::Float64) / col("x"),
            when(col("t").eq(lit("a")), col("n")).otherwise(lit(0_i64)).unwrap(),
            try_cast(col("t"), DataType::Int64),
            max(floor(col("x"))),
        ] {
            assert!(is_total(&expr, &schema).unwrap(), "{expr}");
        }
        for expr in [
            mask("mask", vec![col("t"), col("n")]),
            mask("mask", vec![col("t"), lit(-1_i64)]),
            mask("mask", vec![col("t"), lit(0_i64), lit(4_i64), col("t")]),
            lit(1_i64) / (col("n") - lit(7_i64)),
            col("n") / lit(0_i64),
            col("n") % lit(-1_i64),
            sum(cast(col("t"), DataType::Int64)),
            cast(col("n"), DataType::Int8),
            sqrt(col("x")),
            when(col("n").gt(lit(1_i64)), cast(lit("a"), DataType::Int64)).end().unwrap(),
        ] {
            assert!(!is_total(&expr, &schema).unwrap(), "{expr}");
        }
    }
}
