//! What is computed of persons' rows for an answer that somebody pays for has a value for each row.
//!
//! That a statement fails tells whether there is a row on which it does, exactly, and however
//! little epsilon it was paid with. So below such an answer stand comparisons, sums and products of
//! whole numbers, which wrap, and of doubles, division of doubles, casts to wider types, TRY_CAST,
//! and functions that take whatever they are given. What fails whenever it is computed is refused
//! as well: CASE computes it for some rows alone.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, WindowFrameBound, WindowFrameUnits,
};

use crate::error::{Error, Result};
use crate::policy::harmless;

/// Functions of numbers that give one for each.
const NUMERIC: [&str; 6] = ["ceil", "floor", "greatest", "isnan", "iszero", "least"];
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
    input.apply_with_subqueries(|node| {
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

fn is_total(expr: &Expr, schema: &DFSchema) -> DataFusionResult<bool> {
    let mut total = true;
    expr.apply(|part| {
        total &= match part {
            Expr::BinaryExpr(binary) if is_arithmetic(binary.op) => computes(binary, schema),
            Expr::ScalarFunction(call) if NUMERIC.contains(&call.func.name()) => {
                call.args.iter().all(|argument| is_number(argument, schema))
            }
            Expr::AggregateFunction(call) => AGGREGATES.contains(&call.func.name()),
            Expr::WindowFunction(call) => is_plain(call),
            other => harmless::is_total(other, schema),
        };
        Ok(if total { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(total)
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
    let Expr::Literal(value, _) = expr else { return false };
    let whole = value.cast_to(&DataType::Int64);
    matches!(whole, Ok(ScalarValue::Int64(Some(1..))))
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
        for expr in [
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
