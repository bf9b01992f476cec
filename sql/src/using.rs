//! `FROM a JOIN b USING (x) WHERE x = 1`: the column that both sides share is one value, the left
//! side's of an inner or left join, the right side's of a right join, and of a full join whichever
//! is there.
//!
//! DataFusion 55.2 takes it for ambiguous in WHERE, and for the left side's everywhere else. So
//! what is meant is written out before a statement is planned; what cannot be is refused.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, Join, JoinConstraint, JoinOperator, OrderBy, Query, Select, SelectItem, SetExpr,
    Statement, TableFactor, VisitMut, VisitorMut,
};

use crate::dialect::{AttuneDialect, folded};
use crate::effort;
use crate::error::{Error, Result};
use crate::parse::name_parts;

/// Says in each SELECT what is meant by a column of USING.
///
/// # Errors
/// When rows without a partner could stand on the left of it and what is meant cannot be said.
pub(crate) fn plain(tree: &mut Statement) -> Result<()> {
    match VisitMut::visit(tree, &mut Selects) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Selects;

impl VisitorMut for Selects {
    // Boxed: the visitor keeps one of it at each depth of the tree.
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<Error>> {
        match (query.body.as_ref(), &mut query.order_by) {
            (SetExpr::Select(select), Some(order)) => answer(ordered(select, order)),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Box<Error>> {
        answer(told(select))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Box<Error>> {
        match factor {
            TableFactor::NestedJoin { table_with_joins, .. }
                if table_with_joins.joins.iter().any(|join| Side::of(join).is_outer()) =>
            {
                ControlFlow::Break(Box::new(unclear("in parentheses")))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

fn answer(told: Result<()>) -> ControlFlow<Box<Error>> {
    match told {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}

/// Whose value a join takes for the columns that it shares.
enum Side<'a> {
    Left(&'a JoinConstraint),
    Right(&'a JoinConstraint),
    Either(&'a JoinConstraint),
    /// It shares no columns above it.
    None,
}

impl<'a> Side<'a> {
    fn of(join: &'a Join) -> Self {
        match &join.join_operator {
            JoinOperator::Join(on)
            | JoinOperator::Inner(on)
            | JoinOperator::Left(on)
            | JoinOperator::LeftOuter(on) => Self::Left(on),
            JoinOperator::Right(on) | JoinOperator::RightOuter(on) => Self::Right(on),
            JoinOperator::FullOuter(on) => Self::Either(on),
            _ => Self::None,
        }
    }

    /// Whether the left side's value may be missing.
    fn is_outer(&self) -> bool {
        let (Self::Right(on) | Self::Either(on)) = self else { return false };
        matches!(on, JoinConstraint::Using(_) | JoinConstraint::Natural)
    }
}

fn told(select: &mut Select) -> Result<()> {
    let (shared, is_outer) = shared(select)?;
    let mut columns = Columns { shared: &shared, depth: 0 };
    // Without an outer side DataFusion knows what is meant, but in WHERE.
    let _: ControlFlow<()> = VisitMut::visit(&mut select.selection, &mut columns);
    if !is_outer {
        return Ok(());
    }
    for item in &mut select.projection {
        if matches!(item, SelectItem::Wildcard(_)) {
            return Err(unclear("with *"));
        }
        let name = match &*item {
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.clone()),
            _ => None,
        };
        let _: ControlFlow<()> = VisitMut::visit(item, &mut columns);
        if let (Some(alias), SelectItem::UnnamedExpr(expr)) = (name, &*item) {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
    let _: ControlFlow<()> = VisitMut::visit(&mut select.group_by, &mut columns);
    let _: ControlFlow<()> = VisitMut::visit(&mut select.having, &mut columns);
    Ok(())
}

/// Rows are ordered by what is meant too, where that is no column of the answer.
fn ordered(select: &Select, order: &mut OrderBy) -> Result<()> {
    let (mut shared, is_outer) = shared(select)?;
    for item in &select.projection {
        if let SelectItem::UnnamedExpr(Expr::Identifier(name))
        | SelectItem::ExprWithAlias { alias: name, .. } = item
        {
            shared.remove(&folded(name));
        }
    }
    if is_outer {
        let mut columns = Columns { shared: &shared, depth: 0 };
        let _: ControlFlow<()> = VisitMut::visit(order, &mut columns);
    }
    Ok(())
}

/// The columns of USING by name, each with what is meant by it, and whether some of it is not the
/// left side's. What a later join shares that no earlier one does is left out: which of the tables
/// before it has the column, only their schemas tell.
fn shared(select: &Select) -> Result<(BTreeMap<String, Expr>, bool)> {
    let (mut columns, mut is_outer) = (BTreeMap::new(), false);
    for from in &select.from {
        for (at, join) in from.joins.iter().enumerate() {
            let side = Side::of(join);
            if side.is_outer() && select.from.len() > 1 {
                return Err(unclear("beside other tables"));
            }
            let (Side::Left(on) | Side::Right(on) | Side::Either(on)) = side else { continue };
            let names = match on {
                JoinConstraint::Using(names) => names,
                JoinConstraint::Natural if side.is_outer() => return Err(unclear("by NATURAL")),
                _ => continue,
            };
            for name in names.iter().filter_map(|name| name_parts(name).pop()) {
                if is_outer && columns.contains_key(&name) {
                    return Err(unclear("before another one by the same column"));
                }
                let before = match (columns.remove(&name), at) {
                    (Some(known), _) => Some(known),
                    (None, 0) => column(&from.relation, &name),
                    (None, _) => None,
                };
                let after = column(&join.relation, &name);
                let meant = match (&side, before, after) {
                    (Side::Left(_), before, _) => before,
                    (Side::Right(_), _, Some(after)) => Some(after),
                    (Side::Either(_), Some(before), Some(after)) => Some(either(&before, &after)?),
                    _ => return Err(unclear("of a table without a name")),
                };
                columns.extend(meant.map(|meant| (name, meant)));
            }
            is_outer |= side.is_outer();
        }
    }
    // Of several tables in FROM each may have the column.
    if select.from.len() > 1 {
        columns.clear();
    }
    Ok((columns, is_outer))
}

/// A column of a table or query in FROM that has a name.
fn column(relation: &TableFactor, name: &str) -> Option<Expr> {
    let called = match relation {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. } => folded(&alias.name),
        TableFactor::Table { name, args: None, .. } => name_parts(name).pop()?,
        _ => return None,
    };
    let parts = [called.as_str(), name].map(|part| Ident::with_quote('"', part));
    Some(Expr::CompoundIdentifier(parts.to_vec()))
}

fn either(one: &Expr, other: &Expr) -> Result<Expr> {
    let text = format!("coalesce({one}, {other})");
    effort::read(AttuneDialect, &text, |parser| parser.parse_expr()).map_err(unplanned)
}

fn unplanned(error: sqlparser::parser::ParserError) -> Error {
    Error::Internal(format!("a column of USING cannot be written out: {error}"))
}

fn unclear(what: &str) -> Error {
    Error::unsupported(
        format!("a RIGHT or FULL JOIN {what} leaves open which side's value a shared column has"),
        "write ON a.x = b.x, and name the columns: b.x of a right join, coalesce(a.x, b.x) of a full \
         one",
    )
}

struct Columns<'a> {
    shared: &'a BTreeMap<String, Expr>,
    /// How many queries deep: a sub-query's columns are its own first.
    depth: usize,
}

impl VisitorMut for Columns<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(name) = expr
            && let Some(column) = self.shared.get(&folded(name))
        {
            *expr = column.clone();
        }
        ControlFlow::Continue(())
    }
}
