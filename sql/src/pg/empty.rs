//! Queries that must be empty because a table they join is.
//!
//! Programs ask for keys, indexes and triggers with everything that PostgreSQL's SQL has. Attune
//! has none of these, so the answer is known without planning: a query whose FROM joins, other than
//! optionally, a table that is always empty has no rows. It becomes one of the same columns.

use std::collections::BTreeSet;

use sqlparser::ast::{
    Expr, FunctionArguments, GroupByExpr, Join, JoinOperator, Query, Select, SelectItem, SetExpr,
    Statement, TableFactor, TableWithJoins,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::information;
use crate::parse::name_parts;

/// Tables of `pg_catalog` that never have rows and that programs join for what Attune has not.
const NEVER_FILLED: [&str; 22] = [
    "pg_attrdef",
    "pg_constraint",
    "pg_depend",
    "pg_description",
    "pg_enum",
    "pg_event_trigger",
    "pg_extension",
    "pg_foreign_server",
    "pg_foreign_table",
    "pg_index",
    "pg_inherits",
    "pg_partitioned_table",
    "pg_policy",
    "pg_publication",
    "pg_publication_namespace",
    "pg_publication_rel",
    "pg_rewrite",
    "pg_sequence",
    "pg_shdescription",
    "pg_statistic_ext",
    "pg_subscription",
    "pg_trigger",
];

/// Replaces a query that cannot have rows by one that is easy to plan.
pub(super) fn replace(query: &mut Query) {
    if !has_no_rows(query) {
        return;
    }
    let Some(names) = names(&query.body) else { return };
    let columns: Vec<String> = names
        .iter()
        .map(|name| format!("NULL::text AS \"{}\"", name.replace('"', "\"\"")))
        .collect();
    let text = format!("SELECT {} WHERE false", columns.join(", "));
    if let Ok(mut read) = Parser::parse_sql(&PostgreSqlDialect {}, &text)
        && let Some(Statement::Query(nothing)) = read.pop()
    {
        *query = *nothing;
    }
}

/// Whether a query cannot have rows.
pub(super) fn has_no_rows(query: &Query) -> bool {
    query.with.is_none() && is_empty(&query.body)
}

fn is_empty(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => is_empty_select(select),
        SetExpr::Query(query) => has_no_rows(query),
        SetExpr::SetOperation { left, right, .. } => is_empty(left) && is_empty(right),
        _ => false,
    }
}

fn is_empty_select(select: &Select) -> bool {
    let grouped = match &select.group_by {
        GroupByExpr::Expressions(by, _) => !by.is_empty(),
        GroupByExpr::All(_) => true,
    };
    // An aggregate without GROUP BY has a row even over nothing.
    if !grouped && select.projection.iter().any(may_aggregate) {
        return false;
    }
    select.from.iter().any(is_empty_source)
}

fn is_empty_source(source: &TableWithJoins) -> bool {
    let inner = |join: &Join| {
        matches!(
            join.join_operator,
            JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_)
        )
    };
    let kept = |join: &Join| {
        inner(join)
            || matches!(join.join_operator, JoinOperator::Left(_) | JoinOperator::LeftOuter(_))
    };
    // Only where no join brings in rows of its own side does an empty first table empty all.
    let first = is_empty_factor(&source.relation) && source.joins.iter().all(kept);
    let joined = source.joins.iter().all(kept)
        && source.joins.iter().any(|join| inner(join) && is_empty_factor(&join.relation));
    first || joined
}

fn is_empty_factor(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name, args: None, .. } => match name_parts(name).as_slice() {
            [name] => NEVER_FILLED.contains(&name.as_str()),
            [schema, name] | [_, schema, name] => match schema.as_str() {
                "information_schema" => information::is_empty(name),
                super::PG_CATALOG => NEVER_FILLED.contains(&name.as_str()),
                _ => false,
            },
            _ => false,
        },
        TableFactor::Derived { subquery, .. } => has_no_rows(subquery),
        TableFactor::NestedJoin { table_with_joins, .. } => is_empty_source(table_with_joins),
        _ => false,
    }
}

/// Whether a column may be an aggregate: any call, to be safe, of which that cannot be excluded.
pub(super) fn may_aggregate(item: &SelectItem) -> bool {
    const AGGREGATES: [&str; 12] = [
        "count",
        "sum",
        "min",
        "max",
        "avg",
        "bool_and",
        "bool_or",
        "every",
        "array_agg",
        "string_agg",
        "json_agg",
        "jsonb_agg",
    ];
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else {
        return false;
    };
    let text = expr.to_string().to_lowercase();
    // An aggregate inside a subquery of its own is that subquery's.
    if text.contains("select") {
        return false;
    }
    AGGREGATES.iter().any(|name| text.contains(&format!("{name}(")))
}

/// The names of the columns; `None` when a wildcard hides them.
fn names(body: &SetExpr) -> Option<Vec<String>> {
    match body {
        SetExpr::Select(select) => {
            let named: Option<Vec<String>> = select.projection.iter().map(name).collect();
            named.map(unique)
        }
        SetExpr::Query(query) => names(&query.body),
        SetExpr::SetOperation { left, .. } => names(left),
        _ => None,
    }
}

/// A column's name; `None` for a wildcard.
pub(super) fn name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(crate::dialect::folded(alias)),
        SelectItem::UnnamedExpr(expr) => Some(name_of(expr)),
        _ => None,
    }
}

/// As PostgreSQL names a column without an alias.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => crate::dialect::folded(name),
        Expr::CompoundIdentifier(parts) => {
            parts.last().map(crate::dialect::folded).unwrap_or_default()
        }
        Expr::Function(call) if !matches!(call.args, FunctionArguments::Subquery(_)) => {
            name_parts(&call.name).pop().unwrap_or_default()
        }
        Expr::Cast { expr, .. } => name_of(expr),
        Expr::Nested(inner) => name_of(inner),
        Expr::Case { .. } => "case".into(),
        _ => "?column?".into(),
    }
}

/// The planner wants names that differ.
fn unique(names: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.into_iter().map(|name| free_name(&name, &mut seen)).collect()
}

/// A name that was not seen yet, beginning with this one.
pub(super) fn free_name(name: &str, seen: &mut BTreeSet<String>) -> String {
    let mut made = name.to_owned();
    let mut number = 1;
    while !seen.insert(made.clone()) {
        number += 1;
        made = format!("{name}_{number}");
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> String {
        let mut read = Parser::parse_sql(&PostgreSqlDialect {}, text).unwrap();
        let Some(Statement::Query(mut query)) = read.pop() else { panic!("no query") };
        replace(&mut query);
        query.to_string()
    }

    #[test]
    fn a_query_that_joins_an_empty_table_is_empty() {
        for text in [
            "SELECT conname FROM pg_catalog.pg_constraint r WHERE r.conrelid = 1",
            "SELECT i.x AS \"A\", 1 FROM pg_class c JOIN pg_index i ON c.oid = i.indrelid",
            "SELECT c.a FROM pg_class c, pg_inherits i WHERE c.oid = i.inhparent",
            "SELECT r.n FROM (SELECT unnest(conkey) AS n FROM pg_constraint) r",
            "SELECT a FROM pg_policy UNION SELECT b FROM pg_trigger",
            "SELECT constraint_name FROM information_schema.table_constraints",
        ] {
            assert!(replaced(text).ends_with("WHERE false"), "{text}: {}", replaced(text));
        }
        assert!(replaced("SELECT i.x AS \"A\", 1 FROM pg_index i").contains("\"A\""));
    }

    #[test]
    fn a_query_that_may_have_rows_stays() {
        for text in [
            "SELECT c.a FROM pg_class c LEFT JOIN pg_index i ON c.oid = i.indrelid",
            "SELECT count(*) FROM pg_constraint",
            "SELECT a FROM pg_policy UNION SELECT b FROM pg_class",
            "SELECT * FROM pg_constraint",
            "SELECT c.a FROM pg_index i RIGHT JOIN pg_class c ON c.oid = i.indrelid",
            "SELECT a FROM main.pg_constraint",
        ] {
            assert!(!replaced(text).ends_with("WHERE false"), "{text}");
        }
    }
}
