//! `VALUES (1, (SELECT 2)), (3, 4)`: rows with sub-queries.
//!
//! DataFusion 55.2 computes the rows of VALUES before any sub-query has run. So rows that have one
//! become queries of their own once their types are known: the plan of `SELECT 1 AS column1,
//! (SELECT 2) AS column2 UNION ALL SELECT 3 AS column1, 4 AS column2`.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Union, Values,
};

use crate::subqueries::subquery;

/// The plan of rows, each column with the one type that its values have in common; rows with
/// sub-queries are queries.
///
/// # Errors
/// When the rows differ in length, or a column has no such type.
pub(crate) fn typed(rows: Vec<Vec<Expr>>) -> DataFusionResult<LogicalPlan> {
    if !any_subquery(&rows)? {
        return LogicalPlanBuilder::values(rows)?.build();
    }
    // A column below a sub-query has more to it than a type, which would have to be the same in
    // all rows. So types are found with NULL in its place.
    let none = DFSchema::empty();
    let mut plain = rows.clone();
    for value in plain.iter_mut().flatten() {
        if has_subquery(value)? {
            *value = Expr::Literal(ScalarValue::try_from(&value.get_type(&none)?)?, None);
        }
    }
    let schema = Arc::clone(LogicalPlanBuilder::values(plain)?.build()?.schema());
    let mut values = Vec::with_capacity(rows.len());
    for row in rows {
        let fields = schema.fields().iter();
        let cast = row
            .into_iter()
            .zip(fields)
            .map(|(value, field)| value.cast_to(field.data_type(), &none));
        values.push(cast.collect::<DataFusionResult<Vec<_>>>()?);
    }
    queries(Values { schema, values })
}

/// The plan, in which rows with sub-queries are queries: those that DataFusion planned by the types
/// of the table that they are written into.
///
/// # Errors
/// When one cannot be built.
pub(crate) fn computed(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= is_computed(node)?;
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    if !found {
        return Ok(plan);
    }
    let computed = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Values(values) if any_subquery(&values.values)? => {
            queries(values).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    });
    computed.data()
}

fn is_computed(node: &LogicalPlan) -> DataFusionResult<bool> {
    match node {
        LogicalPlan::Values(values) => any_subquery(&values.values),
        _ => Ok(false),
    }
}

fn any_subquery(rows: &[Vec<Expr>]) -> DataFusionResult<bool> {
    for value in rows.iter().flatten() {
        if has_subquery(value)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_subquery(value: &Expr) -> DataFusionResult<bool> {
    value.exists(|part| Ok(subquery(part).is_some()))
}

/// A query for each row, under the names of the columns.
fn queries(values: Values) -> DataFusionResult<LogicalPlan> {
    let Values { schema, values } = values;
    let mut inputs = Vec::with_capacity(values.len());
    for row in values {
        let fields = schema.fields().iter();
        let named = row.into_iter().zip(fields).map(|(value, field)| value.alias(field.name()));
        inputs.push(Arc::new(LogicalPlanBuilder::empty(true).project(named)?.build()?));
    }
    match inputs.as_slice() {
        [one] => Ok(one.as_ref().clone()),
        _ => Ok(LogicalPlan::Union(Union { inputs, schema })),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;
    use datafusion::logical_expr::{lit, scalar_subquery};

    use super::*;

    fn one(value: Expr) -> Expr {
        let plan = LogicalPlanBuilder::empty(true).project([value.alias("x")]).unwrap();
        scalar_subquery(Arc::new(plan.build().unwrap()))
    }

    #[test]
    fn rows_with_sub_queries_become_queries() {
        let rows = vec![vec![one(lit(1_i64)), lit(2_i64)], vec![lit(3_i64), lit(4_i64)]];
        let plan = typed(rows.clone()).unwrap();
        let said = plan.display_indent().to_string();
        assert!(said.starts_with("Union\n  Projection: (<subquery>) AS column1"), "{said}");
        assert!(!said.contains("Values"), "{said}");
        // As DataFusion plans them.
        let planned = LogicalPlanBuilder::values(rows).unwrap().build().unwrap();
        assert_eq!(computed(planned).unwrap().display_indent().to_string(), said);
        let row = typed(vec![vec![one(lit(1_i64))]]).unwrap();
        assert!(matches!(row, LogicalPlan::Projection(_)), "{row}");
    }

    #[test]
    fn types_are_those_of_rows_without() {
        let of = |rows| typed(rows).unwrap().schema().field(0).data_type().clone();
        for (first, second, expected) in [
            (lit(1_i64), lit("7"), DataType::Int64),
            (lit(1_i64), lit(0.5_f64), DataType::Float64),
            (lit(1_i64), lit(ScalarValue::Null), DataType::Int64),
        ] {
            let plain = vec![vec![first.clone()], vec![second.clone()]];
            assert_eq!(of(plain), expected);
            assert_eq!(of(vec![vec![one(first.clone())], vec![second.clone()]]), expected);
            assert_eq!(of(vec![vec![first], vec![one(second)]]), expected);
        }
        let rows = vec![vec![one(lit(1_i64)), lit(2_i64)], vec![lit(3_i64)]];
        assert!(typed(rows).is_err());
    }
}
