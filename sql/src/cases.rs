//! CASE of truth values computes no branch whose condition does not hold.
//!
//! DataFusion's simplifier makes AND and OR of `CASE WHEN q <> 0 THEN 100 / q > 5 ELSE FALSE END`,
//! and these compute both of their sides unless a batch's left sides are nearly all decided: the
//! statement fails with a division by zero, or not, as rows lie. So it does with a CASE of
//! constants beside `=`, which becomes one of truth values, and with coalesce, which becomes a
//! CASE. `CASE TRUE WHEN q <> 0 …` says the same, and the simplifier leaves it alone. It is written
//! so where something that not every row computes may fail; any other CASE becomes conditions that
//! files and indexes are pruned by.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Case, Expr, ExprSchemable, LogicalPlan, Union, lit};
use datafusion::optimizer::AnalyzerRule;

use crate::operators::{is_condition, is_safe_kind, is_widening};
use crate::rewrites::map_named;

/// Writes a CASE that the simplifier would take apart as one that it leaves alone. Types are
/// coerced before, so that every cast is there.
#[derive(Debug)]
pub(crate) struct LazyCases;

impl AnalyzerRule for LazyCases {
    fn name(&self) -> &str {
        "lazy_cases"
    }

    fn analyze(
        &self,
        plan: LogicalPlan,
        _options: &ConfigOptions,
    ) -> DataFusionResult<LogicalPlan> {
        if !has_case(&plan)? {
            return Ok(plan);
        }
        let lazy = plan.transform_up_with_subqueries(|node| {
            let schema = merge_schema(&node.inputs());
            let lazy = |expr: Expr| expr.transform_up(|part| Ok(lazy(part, &schema)));
            // Less is known of whether such a CASE may be NULL.
            map_named(node, lazy)?.map_data(recomputed)
        });
        lazy.data()
    }
}

/// The node with the schema that its inputs and expressions give it.
pub(crate) fn recomputed(node: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let LogicalPlan::Union(Union { inputs, schema }) = node else {
        return node.recompute_schema();
    };
    let fields = schema.iter().enumerate().map(|(at, (table, field))| {
        let may_be_null = inputs.iter().any(|input| input.schema().field(at).is_nullable());
        let field = field.as_ref().clone().with_nullable(may_be_null || field.is_nullable());
        (table.cloned(), Arc::new(field))
    });
    let schema = DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())?;
    Ok(LogicalPlan::Union(Union { inputs, schema: Arc::new(schema) }))
}

fn has_case(plan: &LogicalPlan) -> DataFusionResult<bool> {
    let mut has_case = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            let is_one = |part: &Expr| match part {
                Expr::Case(_) => true,
                Expr::ScalarFunction(call) => is_choice(call),
                _ => false,
            };
            has_case |= expr.exists(|part| Ok(is_one(part)))?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(has_case)
}

/// The expression, or what is the same and left alone.
fn lazy(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match expr {
        Expr::Case(case) if case.expr.is_none() && is_at_risk(&case, schema) => {
            let case = Case { expr: Some(Box::new(lit(true))), ..case };
            Transformed::yes(Expr::Case(case))
        }
        Expr::ScalarFunction(call) if is_choice(&call) && chooses_truth(&call, schema) => {
            Transformed::yes(first_known(call))
        }
        other => Transformed::no(other),
    }
}

/// Whether it is a call that gives its first argument with a value: it becomes a CASE while plans
/// are optimized.
fn is_choice(call: &ScalarFunction) -> bool {
    matches!(call.func.name(), "coalesce" | "nvl")
}

/// Whether the CASE that a choice becomes is one of truth values, of which one may fail.
fn chooses_truth(call: &ScalarFunction, schema: &DFSchema) -> bool {
    let is_truth = |part: &Expr| part.get_type(schema).is_ok_and(|of| of == DataType::Boolean);
    call.args.iter().any(is_truth) && call.args.iter().skip(1).any(|part| may_fail(part, schema))
}

/// The choice as a CASE that is left alone.
fn first_known(mut call: ScalarFunction) -> Expr {
    let else_expr = call.args.pop().map(Box::new);
    let whens = call.args.into_iter();
    let whens = whens.map(|value| (Box::new(value.clone().is_not_null()), Box::new(value)));
    let expr = Some(Box::new(lit(true)));
    Expr::Case(Case { expr, when_then_expr: whens.collect(), else_expr })
}

/// Whether the simplifier may make AND and OR of it, and a side of these may fail.
fn is_at_risk(case: &Case, schema: &DFSchema) -> bool {
    let outcomes = || {
        let of_conditions = case.when_then_expr.iter().map(|(_, then)| then.as_ref());
        of_conditions.chain(case.else_expr.as_deref())
    };
    let is_truth =
        |outcome: &Expr| outcome.get_type(schema).is_ok_and(|of| of == DataType::Boolean);
    // What is constant is folded to a literal before, also once a parameter has its value.
    let is_constant = |outcome: &Expr| !outcome.any_column_refs();
    if !outcomes().any(is_truth) && !outcomes().all(is_constant) {
        return false;
    }
    // The first condition is computed for every row.
    let later = case.when_then_expr.iter().skip(1).map(|(when, _)| when.as_ref());
    outcomes().chain(later).any(|part| may_fail(part, schema))
}

/// Whether computing an expression may fail on some row.
fn may_fail(expr: &Expr, schema: &DFSchema) -> bool {
    let is_unsafe = expr.exists(|part| Ok(!is_safe(part, schema)));
    is_unsafe.unwrap_or(true)
}

/// Whether an expression fails on no row, but for what it is made of.
fn is_safe(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => is_condition(*op),
        Expr::Cast(cast) => {
            let from = cast.expr.get_type(schema);
            from.is_ok_and(|from| is_widening(&from, cast.field.data_type()))
        }
        other => is_safe_kind(other),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::{cast, col, when};

    use super::*;

    #[test]
    fn a_case_that_may_fail_is_kept() {
        let fields = [("q", DataType::Int64), ("small", DataType::Int32), ("txt", DataType::Utf8)];
        let fields = fields.map(|(name, kind)| Field::new(name, kind, true));
        let schema = DFSchema::try_from(Schema::new(fields.to_vec())).unwrap();
        let is_kept = |expr: Expr| {
            let lazy = lazy(expr, &schema);
            assert!(!super::lazy(lazy.data, &schema).transformed);
            lazy.transformed
        };
        let divided = || (lit(100_i64) / col("q")).gt(lit(5_i64));
        let zero = || col("q").eq(lit(0_i64));
        assert!(is_kept(when(zero().is_false(), divided()).otherwise(lit(false)).unwrap()));
        assert!(is_kept(when(zero(), lit(false)).otherwise(divided()).unwrap()));
        assert!(is_kept(when(zero(), lit(false)).when(divided(), lit(true)).end().unwrap()));
        assert!(is_kept(when(zero(), lit("a")).when(divided(), lit("b")).end().unwrap()));
        let day = |text: &str| cast(lit(text.to_owned()), DataType::Date32);
        let dated = when(zero(), day("2024-01-01")).when(divided(), day("2024-02-01"));
        assert!(is_kept(dated.end().unwrap()));
        let number = cast(col("txt"), DataType::Int64).gt(lit(1_i64));
        assert!(is_kept(when(zero(), number).end().unwrap()));
        // What cannot fail, and what is no truth value, which the simplifier leaves alone.
        let wide = cast(col("small"), DataType::Int64).lt(col("q"));
        assert!(!is_kept(when(zero(), wide).otherwise(col("txt").is_null()).unwrap()));
        assert!(!is_kept(when(divided(), lit(true)).otherwise(lit(false)).unwrap()));
        assert!(!is_kept(when(zero(), lit(1_i64)).otherwise(lit(2_i64) / col("q")).unwrap()));
        assert!(!is_kept(divided()));
    }

    #[test]
    fn a_wider_type_holds_every_value() {
        use DataType::{
            Boolean, Decimal128, Float32, Float64, Int8, Int32, Int64, UInt32, UInt64, Utf8,
            Utf8View,
        };
        for (from, to) in [(Int32, Int64), (UInt32, Int64), (Int64, Float64), (Utf8, Utf8View)] {
            assert!(is_widening(&from, &to), "{from} {to}");
            assert_eq!(is_widening(&to, &from), to == Utf8View, "{to} {from}");
        }
        for (from, to) in [(Int8, UInt32), (UInt32, Int32), (Utf8, Int64), (Int8, Boolean)] {
            assert!(!is_widening(&from, &to), "{from} {to}");
        }
        assert!(is_widening(&DataType::Null, &Boolean) && is_widening(&Float64, &Float32));
        assert!(is_widening(&Boolean, &Int8));
        assert!(is_widening(&UInt64, &Decimal128(20, 0)) && is_widening(&Int8, &Decimal128(5, 2)));
        assert!(
            !is_widening(&UInt64, &Decimal128(19, 0)) && !is_widening(&Int8, &Decimal128(5, 3))
        );
        assert!(!is_widening(&Decimal128(20, 0), &UInt64));
    }
}
