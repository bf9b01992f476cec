//! VALUES that are not the rows which a statement writes: each becomes a relation, planned here.
//!
//! DataFusion 55.2 finds no column in VALUES that are a sub-query themselves, as in `x IN (VALUES
//! (1), (2))`, where `SELECT * FROM (VALUES (1), (2))` has one. Within the source of an INSERT, or
//! of a CREATE TABLE that names its columns, it gives the types of the target's columns to every
//! VALUES: `INSERT INTO t SELECT x.i * 10 FROM (VALUES (1.7)) AS x (i)` would write 10 into a
//! BIGINT. They are for the VALUES alone that are the source themselves; any other are rows of
//! their own, with the types that these have.

use std::mem::take;
use std::ops::ControlFlow;

use datafusion::common::{DFSchema, Result as DataFusionResult};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use sqlparser::ast::{
    Expr, Parens, Query, SetExpr, Statement, TableFactor, Values, VisitMut, VisitorMut,
};

use crate::error::{Error, Result};
use crate::parse::parse_query;
use crate::value_rows::typed;

/// Makes relations of the VALUES that are not a statement's own source.
///
/// # Errors
/// None that a statement could cause.
pub(crate) fn plain(tree: &mut Statement) -> Result<()> {
    let source = match tree {
        Statement::Insert(insert) => insert.source.as_mut(),
        Statement::CreateTable(create) if !create.columns.is_empty() => create.query.as_mut(),
        _ => None,
    };
    let visited = match source {
        Some(source) => {
            // Without rows it is passed over; what its rows read is looked at like anything else.
            let mut rows = own(source).map(take).unwrap_or_default();
            let visited = match VisitMut::visit(source.as_mut(), &mut Inner::default()) {
                ControlFlow::Continue(()) => VisitMut::visit(&mut rows, &mut Inner::default()),
                stopped => stopped,
            };
            if let Some(place) = own(source) {
                *place = rows;
            }
            visited
        }
        None => VisitMut::visit(tree, &mut Inner::default()),
    };
    match visited {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

/// The rows that a source itself is, also in parentheses.
fn own(source: &mut Query) -> Option<&mut Vec<Parens<Vec<Expr>>>> {
    match source.body.as_mut() {
        SetExpr::Values(values) => Some(&mut values.rows),
        SetExpr::Query(query) => own(query),
        _ => None,
    }
}

#[derive(Default)]
struct Inner {
    /// Whether the query that comes next is a relation of VALUES already.
    next_is_relation: bool,
    /// Of each query that is being walked, whether it is one.
    relations: Vec<bool>,
}

impl VisitorMut for Inner {
    // Boxed: the visitor keeps one of it at each depth of the tree.
    type Break = Box<Error>;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Box<Error>> {
        self.next_is_relation = bare(factor).is_some();
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Box<Error>> {
        self.relations.push(take(&mut self.next_is_relation));
        ControlFlow::Continue(())
    }

    // Afterwards: what is made is not looked at again.
    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<Error>> {
        if self.relations.pop() == Some(true) {
            return ControlFlow::Continue(());
        }
        match related(&mut query.body) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

fn related(body: &mut SetExpr) -> Result<()> {
    match body {
        SetExpr::Values(values) if !values.rows.is_empty() && !values.value_keyword => {
            let rows = take(&mut values.rows);
            *body = all_of(rows)?;
            Ok(())
        }
        SetExpr::SetOperation { left, right, .. } => {
            related(left)?;
            related(right)
        }
        _ => Ok(()),
    }
}

/// `SELECT * FROM (VALUES …)`.
fn all_of(rows: Vec<Parens<Vec<Expr>>>) -> Result<SetExpr> {
    let mut query = parse_query("SELECT * FROM (VALUES (0))")?;
    let relation = match query.body.as_mut() {
        SetExpr::Select(select) => select.from.first_mut().map(|from| &mut from.relation),
        _ => None,
    };
    match relation.and_then(bare) {
        Some(place) => *place = rows,
        None => return Err(Error::Internal("VALUES are no relation".into())),
    }
    let Query { body, .. } = *query;
    Ok(*body)
}

/// The rows of a relation that is VALUES and nothing else.
fn bare(relation: &mut TableFactor) -> Option<&mut Vec<Parens<Vec<Expr>>>> {
    let TableFactor::Derived { subquery, .. } = relation else { return None };
    match subquery.as_mut() {
        Query {
            with: None,
            body,
            order_by: None,
            limit_clause: None,
            fetch: None,
            pipe_operators,
            ..
        } if pipe_operators.is_empty() => match body.as_mut() {
            SetExpr::Values(Values { value_keyword: false, rows, .. }) => Some(rows),
            _ => None,
        },
        _ => None,
    }
}

/// Plans a relation of VALUES by what its rows are, whatever table the statement is for.
#[derive(Debug)]
pub(crate) struct ValuesRelation;

impl RelationPlanner for ValuesRelation {
    fn plan_relation(
        &self,
        mut relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DataFusionResult<RelationPlanning> {
        let rows = bare(&mut relation).map(take);
        let (rows, alias) = match (rows, relation) {
            (Some(rows), TableFactor::Derived { alias, .. }) => (rows, alias),
            (_, other) => return Ok(RelationPlanning::Original(Box::new(other))),
        };
        let none = DFSchema::empty();
        let mut planned = Vec::with_capacity(rows.len());
        for row in rows {
            let values = row.content.into_iter().map(|value| context.sql_to_expr(value, &none));
            planned.push(values.collect::<DataFusionResult<Vec<_>>>()?);
        }
        let plan = typed(planned)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::parser::Parser;

    use super::*;
    use crate::dialect::AttuneDialect;

    fn said(text: &str) -> String {
        let mut tree = Parser::parse_sql(&AttuneDialect, text).unwrap().remove(0);
        plain(&mut tree).unwrap();
        tree.to_string()
    }

    #[test]
    fn only_a_source_s_own_values_are_left_as_they_are() {
        for own in [
            "INSERT INTO t VALUES (1), ($1)",
            "INSERT INTO t VALUES (1), (2) ORDER BY 1 LIMIT 1",
            "INSERT INTO t (a) (VALUES (1))",
            "CREATE TABLE t (a BIGINT) AS VALUES (1)",
            "SELECT * FROM (VALUES (1)) AS x (i)",
            "INSERT INTO t SELECT i FROM (VALUES (1)) AS x (i)",
        ] {
            let tree = Parser::parse_sql(&AttuneDialect, own).unwrap().remove(0);
            assert_eq!(said(own), tree.to_string());
        }
        for (text, rows) in [
            ("INSERT INTO t WITH x AS (VALUES (1)) SELECT * FROM x", "(VALUES (1))"),
            ("INSERT INTO t WITH x AS (VALUES (1)) VALUES (2)", "(VALUES (1))"),
            ("INSERT INTO t SELECT 0 UNION ALL VALUES (1)", "(VALUES (1))"),
            ("INSERT INTO t SELECT 0 WHERE EXISTS (VALUES (1) LIMIT 1)", "(VALUES (1))"),
            ("INSERT INTO t VALUES ((SELECT 0 WHERE EXISTS (VALUES (1))))", "(VALUES (1))"),
            ("CREATE TABLE t (a BIGINT) AS WITH x AS (VALUES (1)) SELECT * FROM x", "(VALUES (1))"),
            ("CREATE TABLE t AS VALUES (1), (2)", "(VALUES (1), (2))"),
            ("VALUES (1), (2) ORDER BY 1", "(VALUES (1), (2))"),
            ("SELECT 1 WHERE 1 IN (VALUES (1), (2))", "(VALUES (1), (2))"),
            ("SELECT 1 WHERE 1 NOT IN (SELECT 0 UNION VALUES (1))", "(VALUES (1))"),
        ] {
            assert!(said(text).contains(&format!("SELECT * FROM {rows}")), "{}", said(text));
        }
    }
}
