//! Expressions that cannot fail on a row.
//!
//! An error that depends on a value tells of the value, and often quotes it: a cast of a text that
//! is no number, a division by zero. Where a column may be used and not shown, or rows only be
//! counted in groups, conditions and keys are held to what gives a value for every row.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, Operator};

use crate::operators::{is_condition, is_safe_kind, is_widening};
use crate::subqueries::{NULL_WITHOUT_ROW, subquery};

/// Parts that days have too.
const DAYS: [&str; 5] = ["year", "quarter", "month", "week", "day"];
/// Parts that times have.
const HOURS: [&str; 3] = ["hour", "minute", "second"];
/// Functions that give a value for every row, whatever it holds.
const TOTAL: [&str; 13] = [
    "btrim",
    "character_length",
    "coalesce",
    "concat",
    "lower",
    "ltrim",
    "nullif",
    NULL_WITHOUT_ROW,
    "octet_length",
    "rtrim",
    "sha256",
    "starts_with",
    "upper",
];

/// Whether an expression has a value for every row.
pub(super) fn is_harmless(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    let mut harmless = true;
    expr.apply(|part| {
        harmless &= is_total(part, schema) && is_harmless_inside(part)?;
        Ok(if harmless { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(harmless)
}

/// Whether what a sub-query computes of the row around it has a value too.
fn is_harmless_inside(part: &Expr) -> Result<bool> {
    let Some(sub) = subquery(part) else { return Ok(true) };
    let mut harmless = true;
    sub.subquery.apply(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            harmless &= !reaches_out(expr)? || is_harmless(expr, &schema)?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(harmless)
}

/// Whether an expression names a column of a query around its own.
fn reaches_out(expr: &Expr) -> Result<bool> {
    expr.exists(|part| {
        let is_outer = matches!(part, Expr::OuterReferenceColumn(..));
        Ok(is_outer || subquery(part).is_some_and(|sub| !sub.outer_ref_columns.is_empty()))
    })
}

/// Whether a part of an expression has a value whatever its own parts have. What fails whenever it
/// is computed does not: a CASE computes it for some rows alone.
pub(crate) fn is_total(part: &Expr, schema: &DFSchema) -> bool {
    match part {
        Expr::BinaryExpr(binary) => is_condition(binary.op) || binary.op == Operator::StringConcat,
        Expr::Cast(cast) => match cast.expr.as_ref() {
            Expr::Literal(value, _) => value.cast_to(cast.field.data_type()).is_ok(),
            of => {
                // A column of the query around this one; what it is cast from is not known.
                let from = of.get_type(schema);
                from.is_ok_and(|from| is_widening(&from, cast.field.data_type()))
            }
        },
        Expr::ScalarFunction(call) => match call.func.name() {
            "date_part" | "date_trunc" => is_of_time(&call.args, schema),
            name => TOTAL.contains(&name),
        },
        Expr::GroupingSet(_) => true,
        other => is_safe_kind(other),
    }
}

/// Whether these are the name of a part that every time has, and a time.
fn is_of_time(arguments: &[Expr], schema: &DFSchema) -> bool {
    let [Expr::Literal(word, _), time] = arguments else { return false };
    let word = word.try_as_str().flatten().unwrap_or_default().to_lowercase();
    match time.get_type(schema) {
        Ok(DataType::Timestamp(..)) => {
            DAYS.contains(&word.as_str()) || HOURS.contains(&word.as_str())
        }
        Ok(DataType::Date32 | DataType::Date64) => DAYS.contains(&word.as_str()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use datafusion::functions::expr_fn::{date_part, lower, sqrt};
    use datafusion::logical_expr::{cast, col, lit, try_cast};

    use super::*;

    #[test]
    fn what_may_fail_is_told_from_what_may_not() {
        let fields =
            vec![Field::new("a", DataType::Int32, true), Field::new("t", DataType::Utf8, true)];
        let schema = DFSchema::try_from(Schema::new(fields)).unwrap();
        for expr in [
            col("a").eq(lit(1)).and(col("t").like(lit("%x%"))),
            lower(col("t")).eq(lit("x")),
            cast(col("a"), DataType::Float64).gt(lit(0.5)),
            try_cast(col("t"), DataType::Int64).is_null(),
            cast(lit("2020-01-01"), DataType::Date32).is_not_null(),
            date_part(lit("YEAR"), cast(lit("2020-01-01"), DataType::Date32)).eq(lit(2020)),
        ] {
            assert!(is_harmless(&expr, &schema).unwrap(), "{expr}");
        }
        for expr in [
            (lit(1) / col("a")).eq(lit(1)),
            cast(col("t"), DataType::Int64).eq(lit(1)),
            cast(col("a"), DataType::Int8).eq(lit(1)),
            sqrt(col("a")).gt(lit(1)),
            // A CASE would compute them for some rows alone.
            cast(lit("none"), DataType::Int64).eq(lit(1)),
            date_part(lit("none"), cast(lit("2020-01-01"), DataType::Date32)).eq(lit(1)),
            date_part(col("t"), cast(lit("2020-01-01"), DataType::Date32)).eq(lit(1)),
        ] {
            assert!(!is_harmless(&expr, &schema).unwrap(), "{expr}");
        }
    }
}
