//! What is said where two parts of a SELECT, or columns of two tables, have one name.
//!
//! DataFusion names what is computed by its text, of which a cast is no part: `avg(n)` and
//! `avg(n::DOUBLE)` have one name, whatever their aliases, where an aggregate or a window function
//! computes them.
//!
//! What is written twice in the same words, without a name, gets one of its own: `SELECT n, n` has
//! the columns `n` and `n:1`, and `SELECT count(*), (SELECT count(*) FROM t)` has `count(*):1`.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::common::SchemaError;
use sqlparser::ast::{Expr, Ident, Select, SelectItem, SetExpr, Statement, VisitMut, VisitorMut};

use crate::dialect::folded;
use crate::error::Error;

/// Names the parts of each SELECT that stand there again as they are.
pub(crate) fn apart(tree: &mut Statement) {
    let _: ControlFlow<()> = VisitMut::visit(tree, &mut Selects);
}

struct Selects;

impl VisitorMut for Selects {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if select.projection.len() > 1 {
            name_repeated(&mut select.projection);
        }
        ControlFlow::Continue(())
    }
}

fn name_repeated(items: &mut [SelectItem]) {
    let named = items.iter().filter_map(|item| match item {
        SelectItem::ExprWithAlias { alias: name, .. }
        | SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(folded(name)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(path)) => path.last().map(folded),
        _ => None,
    });
    let mut taken: BTreeSet<String> = named.collect();
    // What a sub-query computes has the name that it has there.
    let mut names: BTreeSet<String> = items.iter().filter_map(own_name).collect();
    let mut written = BTreeSet::new();
    for item in items {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        let name = match expr {
            Expr::Identifier(name) => folded(name),
            _ => expr.to_string(),
        };
        let of_query = queried(expr);
        let is_new = of_query.clone().is_none_or(|name| names.insert(name));
        if written.insert(name.clone()) && is_new {
            continue;
        }
        let name = of_query.unwrap_or(name);
        let mut names = (1_usize..).map(|again| format!("{name}:{again}"));
        if let Some(alias) = names.find(|alias| taken.insert(alias.clone())) {
            let alias = Ident::with_quote('"', alias);
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

/// The name of a part that is no sub-query.
fn own_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        SelectItem::UnnamedExpr(expr) if queried(expr).is_none() => Some(text_name(expr)),
        _ => None,
    }
}

/// The name of what a sub-query computes.
fn queried(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Nested(expr) => queried(expr),
        Expr::Subquery(query) => {
            let SetExpr::Select(select) = query.body.as_ref() else { return None };
            match select.projection.as_slice() {
                [SelectItem::ExprWithAlias { alias, .. }] => Some(folded(alias)),
                [SelectItem::UnnamedExpr(expr)] => Some(text_name(expr)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A name as DataFusion makes it of an expression's text, in whatever case that is written.
fn text_name(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => folded(name),
        Expr::CompoundIdentifier(path) => path.last().map(folded).unwrap_or_default(),
        Expr::Nested(expr) => text_name(expr),
        other => queried(other).unwrap_or_else(|| other.to_string().to_lowercase()),
    }
}

/// The error of two expressions that have one name.
pub(crate) fn of_plan(text: &str) -> Option<Error> {
    let (_, rest) = text.split_once("require unique expression names but the expression \"")?;
    let (first, _) = rest.split_once("\" at position")?;
    let alias = first.rsplit_once(" AS ").map(|(_, alias)| alias);
    let name = alias.filter(|alias| !alias.contains(')')).unwrap_or(first);
    if name.contains('(') {
        return Some(computed(name));
    }
    let name = name.rsplit_once('.').map_or(name, |(_, name)| name);
    Some(Error::invalid_hint(
        format!("two columns of one SELECT have the same name, {name}"),
        "give one of them another name with AS",
    ))
}

/// The error of two fields that have one name.
pub(crate) fn of_schema(error: &SchemaError) -> Option<Error> {
    match error {
        SchemaError::DuplicateUnqualifiedField { name } if name.contains('(') => {
            Some(computed(name))
        }
        SchemaError::AmbiguousReference { field } if field.relation.is_none() => {
            let name = field.name();
            Some(Error::invalid_hint(
                format!("column {name} is ambiguous: more than one table here has it"),
                format!("write the table's name in front of it, as in t.{name}"),
            ))
        }
        _ => None,
    }
}

fn computed(name: &str) -> Error {
    Error::invalid_hint(
        format!(
            "two parts of one SELECT have the same name, {name}: a cast in it does not tell them \
             apart"
        ),
        "compute the cast in a query below, SELECT avg(n), avg(d) FROM (SELECT n, n::DOUBLE AS d \
         FROM …), or, outside of aggregates, give one another name with AS",
    )
}

#[cfg(test)]
mod tests {
    use sqlparser::parser::Parser;

    use super::*;
    use crate::dialect::AttuneDialect;

    #[test]
    fn what_is_written_twice_has_two_names() {
        for (text, named) in [
            ("SELECT n, N, n FROM t", "SELECT n, N AS \"n:1\", n AS \"n:2\" FROM t"),
            ("SELECT 1, 1, 2", "SELECT 1, 1 AS \"1:1\", 2"),
            ("SELECT 'A', 'a', f(x), x AS a, x AS a", "SELECT 'A', 'a', f(x), x AS a, x AS a"),
            ("SELECT n, n, 1 AS \"n:1\"", "SELECT n, n AS \"n:2\", 1 AS \"n:1\""),
            (
                "SELECT (SELECT count(*) FROM t), COUNT(*), (SELECT max(a) FROM t) AS m",
                "SELECT (SELECT count(*) FROM t) AS \"count(*):1\", COUNT(*), \
                 (SELECT max(a) FROM t) AS m",
            ),
            (
                "SELECT t.a, (SELECT a FROM s), (SELECT b AS a FROM s), (SELECT c FROM s)",
                "SELECT t.a, (SELECT a FROM s) AS \"a:1\", (SELECT b AS a FROM s) AS \"a:2\", \
                 (SELECT c FROM s)",
            ),
            ("SELECT n, n, \"n:1\"", "SELECT n, n AS \"n:2\", \"n:1\""),
            ("SELECT n, n, t.\"n:1\"", "SELECT n, n AS \"n:2\", t.\"n:1\""),
            (
                "SELECT * FROM (SELECT NULL, NULL)",
                "SELECT * FROM (SELECT NULL, NULL AS \"NULL:1\")",
            ),
        ] {
            let mut tree = Parser::parse_sql(&AttuneDialect, text).unwrap().remove(0);
            apart(&mut tree);
            assert_eq!(tree.to_string(), named);
        }
    }

    #[test]
    fn a_name_is_whole() {
        let said = |first: &str| {
            let text = format!(
                "Projections require unique expression names but the expression \"{first}\" at \
                 position 0 and \"other\" at position 1 have the same name."
            );
            of_plan(&text).map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(said("t.x AS a").ends_with("have the same name, a"));
        assert!(said("t.x").ends_with("have the same name, x"));
        assert!(said("count(t.n)").contains("the same name, count(t.n): a cast"));
        assert!(said("count(CAST(t.n AS Utf8))").contains("count(CAST(t.n AS Utf8)): a cast"));
        let field = SchemaError::DuplicateUnqualifiedField { name: "avg(t.n)".into() };
        assert!(of_schema(&field).is_some_and(|error| error.to_string().contains("avg(t.n): ")));
        let field = SchemaError::DuplicateUnqualifiedField { name: "n".into() };
        assert!(of_schema(&field).is_none());
    }
}
