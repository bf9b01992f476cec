//! `x IN (SELECT y FROM t)` as a part of a condition.
//!
//! DataFusion 55.2 knows what NULL means where IN or NOT IN is a whole condition or stands between
//! ANDs. Anywhere else, as in `a OR x NOT IN (SELECT …)`, and in `(x NOT IN (SELECT …)) IS NOT
//! TRUE`, by which DELETE keeps rows, it marks the rows whose x is among the others, and the mark
//! is false where x or a y is NULL and none is equal. So where FALSE means something else than NULL
//! it is written out as
//!
//! ```sql
//! CASE WHEN EXISTS (SELECT … WHERE y = x) THEN TRUE
//!      WHEN EXISTS (SELECT … FROM (SELECT DISTINCT y IS NULL AS n …) WHERE n OR x IS NULL)
//!      THEN NULL
//!      ELSE FALSE END
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, ExprSchema, ScalarValue};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{InSubquery, SetComparison, SetQuantifier};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Case, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Operator,
    binary_expr, exists, lit,
};

/// The node, of which each part of a condition is NULL where it is not known.
pub(crate) fn exact(node: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let LogicalPlan::Filter(filter) = node else { return Ok(node) };
    if !filter.predicate.exists(|part| Ok(matches!(part, Expr::InSubquery(_))))? {
        return Ok(LogicalPlan::Filter(filter));
    }
    let Filter { predicate, input, .. } = filter;
    let parts = split_conjunction_owned(predicate).into_iter();
    let parts: DataFusionResult<Vec<Expr>> =
        parts.map(|part| conjunct(part, input.schema())).collect();
    let predicate = conjunction(parts?).unwrap_or_else(|| lit(true));
    Ok(LogicalPlan::Filter(Filter::try_new(predicate, input)?))
}

/// A condition by itself: what DataFusion knows stays.
fn conjunct(part: Expr, schema: &DFSchema) -> DataFusionResult<Expr> {
    let is_known = match &part {
        Expr::InSubquery(_) => true,
        Expr::Not(inner) => matches!(inner.as_ref(), Expr::InSubquery(_)),
        _ => false,
    };
    match is_known {
        true => Ok(part),
        false => condition(part, schema),
    }
}

/// A condition of which NULL is as good as FALSE.
fn condition(expr: Expr, schema: &DFSchema) -> DataFusionResult<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            Ok(binary_expr(condition(*left, schema)?, op, condition(*right, schema)?))
        }
        Expr::IsTrue(inner) => Ok(condition(*inner, schema)?.is_true()),
        Expr::IsNotTrue(inner) => Ok(condition(*inner, schema)?.is_not_true()),
        Expr::InSubquery(among) if !among.negated => Ok(Expr::InSubquery(among)),
        other => {
            let written = other.transform_up(|part| match part {
                Expr::InSubquery(among) => Ok(Transformed::yes(written(among, schema)?)),
                other => Ok(Transformed::no(other)),
            });
            written.data()
        }
    }
}

fn written(among: InSubquery, schema: &DFSchema) -> DataFusionResult<Expr> {
    let rows = among.subquery.subquery.as_ref();
    let may_be_null = rows.schema().fields().first().is_some_and(|field| field.is_nullable())
        || among.expr.nullable(schema).unwrap_or(true);
    // What belongs to yet another query cannot be named from within the sub-query.
    let is_own = !among.expr.exists(|part| Ok(reaches_out(part)))?;
    if !may_be_null || !is_own || rows.schema().fields().is_empty() {
        return Ok(Expr::InSubquery(among));
    }
    if !among.subquery.outer_ref_columns.is_empty() {
        let (op, quantifier) = match among.negated {
            true => (Operator::NotEq, SetQuantifier::All),
            false => (Operator::Eq, SetQuantifier::Any),
        };
        let InSubquery { expr, subquery, .. } = among;
        return Ok(Expr::SetComparison(SetComparison::new(expr, subquery, op, quantifier)));
    }
    let (value, unknown) = (free("__compared", &among.expr), free("__unknown", &among.expr));
    let column = Expr::Column(Column::from(rows.schema().qualified_field(0)));
    let rows = LogicalPlanBuilder::from(rows.clone()).project([column.alias(&value)])?.build()?;
    let outer = outer(among.expr.as_ref().clone(), schema)?;
    let value = Expr::Column(Column::from_name(value));
    let equal = value.clone().eq(outer.clone());
    let equal = LogicalPlanBuilder::from(rows.clone()).filter(equal)?.build()?;
    // Two rows at most, whatever number of rows there is to compare them with.
    let open = LogicalPlanBuilder::from(rows)
        .project([value.is_null().alias(&unknown)])?
        .distinct()?
        .filter(Expr::Column(Column::from_name(unknown)).or(outer.is_null()))?
        .build()?;
    let null = Expr::Literal(ScalarValue::Boolean(None), None);
    Ok(Expr::Case(Case {
        expr: None,
        when_then_expr: vec![
            (Box::new(exists(Arc::new(equal))), Box::new(lit(!among.negated))),
            (Box::new(exists(Arc::new(open))), Box::new(null)),
        ],
        else_expr: Some(Box::new(lit(among.negated))),
    }))
}

fn reaches_out(part: &Expr) -> bool {
    matches!(
        part,
        Expr::OuterReferenceColumn(..)
            | Expr::ScalarSubquery(_)
            | Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::SetComparison(_)
    )
}

/// A name that no column of an expression has.
fn free(name: &str, expr: &Expr) -> String {
    let mut name = name.to_owned();
    while expr.column_refs().iter().any(|column| column.name == name) {
        name.push('_');
    }
    name
}

/// The expression as a sub-query names it.
fn outer(expr: Expr, schema: &DFSchema) -> DataFusionResult<Expr> {
    let named = expr.transform_up(|part| match part {
        Expr::Column(column) => {
            let field = Arc::clone(schema.field_from_column(&column)?);
            Ok(Transformed::yes(Expr::OuterReferenceColumn(field, column)))
        }
        other => Ok(Transformed::no(other)),
    });
    named.data()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::logical_expr::{col, in_subquery, not_in_subquery, table_scan};

    use super::*;

    fn scan(name: &str, nullable: bool) -> LogicalPlanBuilder {
        let schema = Schema::new(vec![Field::new("a", DataType::Int64, nullable)]);
        table_scan(Some(name), &schema, None).unwrap()
    }

    #[test]
    fn what_null_leaves_open_is_written_out() {
        let rows = |nullable| Arc::new(scan("t", nullable).build().unwrap());
        let written = |condition: Expr| {
            let plan = scan("o", false).filter(condition).unwrap().build().unwrap();
            exact(plan).unwrap().to_string().contains("CASE WHEN EXISTS")
        };
        let among = |nullable| in_subquery(col("o.a"), rows(nullable));
        let apart = |nullable| not_in_subquery(col("o.a"), rows(nullable));
        let other = || col("o.a").gt(lit(1_i64));
        for condition in [
            apart(true).or(other()),
            apart(true).is_not_true(),
            among(true).is_null(),
            !(among(true).and(other())),
        ] {
            assert!(written(condition.clone()), "{condition}");
        }
        for condition in [
            apart(true),
            !among(true),
            apart(true).and(other()),
            among(true).or(other()),
            among(true).is_not_true(),
            apart(false).or(other()),
        ] {
            assert!(!written(condition.clone()), "{condition}");
        }
    }
}
