//! `FROM a JOIN b USING (x) WHERE x = 1`: the column that both sides share.
//!
//! DataFusion 55.2 takes such a column for ambiguous in WHERE, and nowhere else. SQL means one
//! value by it: the left side's, or the right side's of a right join.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, Query, Select, Statement, TableFactor, VisitMut,
    VisitorMut,
};

use crate::dialect::folded;
use crate::parse::name_parts;

/// Says in each WHERE which side's column is meant by one of USING.
pub(crate) fn plain(tree: &mut Statement) {
    let _: ControlFlow<()> = VisitMut::visit(tree, &mut Selects);
}

struct Selects;

impl VisitorMut for Selects {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let shared = shared(select);
        match &mut select.selection {
            Some(condition) if !shared.is_empty() => {
                VisitMut::visit(condition, &mut Columns { shared: &shared, depth: 0 })
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The columns of USING by name, each with its side. Those of the first join alone: what of the
/// tables before a later one has its columns, only their schemas tell.
fn shared(select: &Select) -> BTreeMap<String, Expr> {
    let mut columns = BTreeMap::new();
    let [from] = select.from.as_slice() else { return columns };
    for (at, join) in from.joins.iter().enumerate() {
        let (side, constraint) = match &join.join_operator {
            JoinOperator::Join(on)
            | JoinOperator::Inner(on)
            | JoinOperator::Left(on)
            | JoinOperator::LeftOuter(on) => (Some(&from.relation), on),
            JoinOperator::Right(on) | JoinOperator::RightOuter(on) => (Some(&join.relation), on),
            JoinOperator::FullOuter(on) => (None, on),
            _ => continue,
        };
        let JoinConstraint::Using(names) = constraint else { continue };
        let side = side.and_then(called);
        for name in names.iter().filter_map(|name| name_parts(name).pop()) {
            match (at, &side) {
                (0, Some(side)) => {
                    let parts =
                        [side.clone(), name.clone()].map(|part| Ident::with_quote('"', part));
                    columns.insert(name, Expr::CompoundIdentifier(parts.to_vec()));
                }
                // A later inner or left join leaves the first side's value as it is.
                (1.., Some(_)) if side == called(&from.relation) => {}
                _ => {
                    columns.remove(&name);
                }
            }
        }
    }
    columns
}

/// What a statement calls a table or query in FROM.
fn called(relation: &TableFactor) -> Option<String> {
    match relation {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. } => Some(folded(&alias.name)),
        TableFactor::Table { name, args: None, .. } => name_parts(name).pop(),
        _ => None,
    }
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

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(name) = expr
            && let Some(column) = self.shared.get(&folded(name))
        {
            *expr = column.clone();
        }
        ControlFlow::Continue(())
    }
}
