//! `VALUES (1, (SELECT 2)), (3, 4)`: rows with sub-queries.
//!
//! DataFusion 55.2 computes the rows of VALUES before any sub-query has run. So rows that have one
//! become `SELECT 1 AS column1, (SELECT 2) AS column2 UNION ALL SELECT 3 AS column1, 4 AS column2`.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, Query, Select, SelectItem, SetExpr, SetOperator, SetQuantifier, Statement, Values,
    Visit, VisitMut, Visitor, VisitorMut,
};
use sqlparser::parser::ParserError;

use crate::dialect::AttuneDialect;
use crate::effort;
use crate::error::{Error, Result};

/// Says as SELECT what VALUES has of sub-queries.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn plain(tree: &mut Statement) -> Result<()> {
    match VisitMut::visit(tree, &mut Queries) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Queries;

impl VisitorMut for Queries {
    // Boxed: the visitor keeps one of it at each depth of the tree.
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<Error>> {
        match rewrite(&mut query.body) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

fn rewrite(body: &mut SetExpr) -> Result<()> {
    let values = match body {
        SetExpr::SetOperation { left, right, .. } => {
            rewrite(left)?;
            return rewrite(right);
        }
        SetExpr::Values(values) if is_computed(values) && is_even(values) => values,
        _ => return Ok(()),
    };
    let empty = empty_select()?;
    let rows = std::mem::take(&mut values.rows).into_iter();
    let selects = rows.map(|row| selected(empty.clone(), row.content)).collect();
    if let Some(all) = together(selects) {
        *body = all;
    }
    Ok(())
}

/// Whether there is a query in it.
fn is_computed(values: &Values) -> bool {
    struct Any;
    impl Visitor for Any {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    Visit::visit(values, &mut Any).is_break()
}

/// Whether all rows have as many values; the planner says what is wrong otherwise.
fn is_even(values: &Values) -> bool {
    let mut widths = values.rows.iter().map(|row| row.content.len());
    widths.next().is_some_and(|first| first > 0 && widths.all(|width| width == first))
}

fn empty_select() -> Result<Box<Select>> {
    let unread = |error: ParserError| Error::Internal(format!("VALUES: {error}"));
    let query = effort::read(AttuneDialect, "SELECT 1", |parser| parser.parse_query());
    let query = query.map_err(unread)?;
    match *query.body {
        SetExpr::Select(select) => Ok(select),
        other => Err(Error::Internal(format!("VALUES: {other} is no SELECT"))),
    }
}

/// A row, by the names that VALUES gives.
fn selected(mut select: Box<Select>, row: Vec<Expr>) -> SetExpr {
    let named = |(place, expr): (usize, Expr)| {
        let alias = Ident::new(format!("column{}", place + 1));
        SelectItem::ExprWithAlias { expr, alias }
    };
    select.projection = row.into_iter().enumerate().map(named).collect();
    SetExpr::Select(select)
}

/// All of them with UNION ALL, as a tree that is no deeper than it has to be.
fn together(mut parts: Vec<SetExpr>) -> Option<SetExpr> {
    while parts.len() > 1 {
        let mut pairs = Vec::with_capacity(parts.len().div_ceil(2));
        let mut rest = parts.into_iter();
        while let Some(left) = rest.next() {
            pairs.push(match rest.next() {
                Some(right) => SetExpr::SetOperation {
                    op: SetOperator::Union,
                    set_quantifier: SetQuantifier::All,
                    left: Box::new(left),
                    right: Box::new(right),
                },
                None => left,
            });
        }
        parts = pairs;
    }
    parts.pop()
}

#[cfg(test)]
mod tests {
    use sqlparser::parser::Parser;

    use super::*;

    fn written(text: &str) -> String {
        let mut tree = Parser::parse_sql(&AttuneDialect, text).unwrap().remove(0);
        plain(&mut tree).unwrap();
        tree.to_string()
    }

    #[test]
    fn rows_with_sub_queries_become_selects() {
        assert_eq!(
            written("SELECT * FROM (VALUES ((SELECT 1), 2), (3, 4), (5, 6)) AS x"),
            "SELECT * FROM (SELECT (SELECT 1) AS column1, 2 AS column2 UNION ALL \
             SELECT 3 AS column1, 4 AS column2 UNION ALL SELECT 5 AS column1, 6 AS column2) AS x"
        );
        assert_eq!(
            written("INSERT INTO t VALUES (EXISTS (SELECT 1))"),
            "INSERT INTO t SELECT EXISTS (SELECT 1) AS column1"
        );
        for text in ["VALUES (1, 2), (3, 4)", "VALUES ((SELECT 1), 2), (3)"] {
            assert_eq!(written(text), text);
        }
    }
}
