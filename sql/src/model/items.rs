//! The table that tells more of a model's items, and what a recommendation asks of it.
//!
//! `item_filter => 'stock > 0'` keeps the items of the rows for which the text is true;
//! `max_per => STRUCT(2 AS brand)` takes the category of an item from a column. Both read the
//! model's `item_table`, which is planned like any query of whoever asks: under his rights and
//! policies, with one version of every table a statement. So the text must be known while planning.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::DataType;
use catalog::models::LoadedModel;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, Query, SelectItem, SetExpr, Visit, Visitor,
};
use sqlparser::tokenizer::Token;

use crate::dialect::{AttuneDialect, folded};
use crate::effort;
use crate::error::{Error, Result};
use crate::model::arguments::written_options;
use crate::parse::parse_query;
use crate::session::StatementContext;
use crate::session::bindings::{Bindings, literal_text};

/// What a call asks of the item table.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemQuery {
    /// The condition that items meet.
    pub filter: Option<String>,
    /// The column with the category of an item.
    pub category: Option<String>,
    /// The expression that is added to an item's score.
    pub boost: Option<String>,
}

impl ItemQuery {
    /// What the arguments of a call ask; `None` when they ask nothing.
    pub fn of(arguments: &[FunctionArg]) -> Option<Self> {
        let mut found = Self::default();
        for (name, value) in written_options(arguments) {
            found.option(&name, value);
        }
        (found != Self::default()).then_some(found)
    }

    /// An error of a row's computation, with the expressions that it may come of.
    pub(super) fn blamed(&self, error: Error) -> Error {
        let texts = [("item_filter", &self.filter), ("boost", &self.boost)];
        let texts = texts
            .into_iter()
            .filter_map(|(option, text)| text.as_ref().map(|text| format!("{option} '{text}'")));
        let texts: Vec<String> = texts.collect();
        match error {
            Error::Execution { what, hint } if !texts.is_empty() => {
                Error::Execution { what: format!("{}: {what}", texts.join(" and ")), hint }
            }
            other => other,
        }
    }

    fn option(&mut self, name: &str, value: &SqlExpr) {
        let text = || literal_text(&FunctionArg::Unnamed(FunctionArgExpr::Expr(value.clone())));
        match name {
            "item_filter" => self.filter = text(),
            "boost" => self.boost = text(),
            "max_per" => self.category = quota(value).map(|(category, _)| category),
            _ => {}
        }
    }

    /// Plans the query as whoever asks: item, the category and the boost where they are asked for.
    ///
    /// # Errors
    /// When the model has no item table, the caller may not read it, or the filter is no condition
    /// on its columns.
    pub(crate) async fn plan(
        &self,
        context: &Arc<StatementContext>,
        model: &LoadedModel,
    ) -> Result<LogicalPlan> {
        let options = &model.manifest.options;
        let Some(table) = options.get("item_table").and_then(|table| table.as_str()) else {
            return Err(Error::invalid_hint(
                format!("{model} has no item_table for item_filter, max_per and boost to read"),
                "name one: CREATE MODEL … OPTIONS (item_table = 'products', …)",
            ));
        };
        let state = context.state(&Bindings::default())?;
        let parsed = |written: &Written, text: &Option<String>| -> Result<Option<SqlExpr>> {
            let Some(text) = text else { return Ok(None) };
            let parsed = expression(written, text)?;
            row_by_row(written, text, &parsed, &state)?;
            Ok(Some(SqlExpr::Nested(Box::new(parsed))))
        };
        let (filter, boost) = (parsed(&FILTER, &self.filter)?, parsed(&BOOST, &self.boost)?);
        let mut columns = vec![model.manifest.item_col.as_str()];
        columns.extend(self.category.as_deref());
        let mut query = select(table, &columns)?;
        if let SetExpr::Select(select) = query.body.as_mut() {
            select.selection = filter.clone();
            select.projection.extend(boost.map(SelectItem::UnnamedExpr));
        }
        let plan = match (Box::pin(context.plan_query(query)).await, filter, &self.filter) {
            (Ok((_, plan)), ..) => plan,
            (Err(error), Some(filter), Some(text)) => {
                let found = type_of(context, table, filter).await;
                return Err(match found.filter(|found| *found != DataType::Boolean) {
                    None => error,
                    Some(found) => Error::invalid_hint(
                        format!("item_filter '{text}' has type {found}, which is no condition"),
                        FILTER.hint,
                    ),
                });
            }
            (Err(error), ..) => return Err(error),
        };
        let added = plan.schema().fields().last().map(|field| field.data_type().clone());
        match (&self.boost, added) {
            (Some(boost), Some(added)) if !added.is_numeric() && added != DataType::Null => {
                Err(Error::invalid_hint(
                    format!("boost '{boost}' has type {added}, which cannot be added to a score"),
                    "write an expression that gives numbers, in units of the score",
                ))
            }
            _ => Ok(plan),
        }
    }
}

/// The category column and the quota in `STRUCT(2 AS brand)` or `{brand: 2}`.
pub fn quota(value: &SqlExpr) -> Option<(String, SqlExpr)> {
    match value {
        SqlExpr::Struct { values, .. } => match values.as_slice() {
            [SqlExpr::Named { expr, name }] => Some((folded(name), expr.as_ref().clone())),
            _ => None,
        },
        SqlExpr::Dictionary(fields) => match fields.as_slice() {
            [field] => Some((folded(&field.key), field.value.as_ref().clone())),
            _ => None,
        },
        _ => None,
    }
}

/// Checks, before anything is trained, that the item table can be read and has the item's column.
///
/// # Errors
/// When it cannot or has not.
pub(crate) async fn check(
    context: &Arc<StatementContext>,
    table: &str,
    item_col: &str,
) -> Result<()> {
    let mut query = select(table, &[])?;
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = vec![SelectItem::Wildcard(Default::default())];
    }
    let (_, plan) = Box::pin(context.plan_query(query)).await?;
    let names = || plan.schema().fields().iter().map(|field| field.name().as_str());
    if names().any(|name| name == item_col) {
        return Ok(());
    }
    Err(Error::invalid_hint(
        format!("item_table {table} has no column {item_col}, the model's item column"),
        format!("it has {}", names().collect::<Vec<_>>().join(", ")),
    ))
}

/// `SELECT columns FROM table`, every name quoted.
pub(super) fn select(table: &str, columns: &[&str]) -> Result<Box<Query>> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let columns = match columns {
        [] => "*".to_owned(),
        columns => columns.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "),
    };
    let table: Vec<String> = table.split('.').map(quoted).collect();
    parse_query(&format!("SELECT {columns} FROM {}", table.join(".")))
}

/// The type of an expression over a table, as far as it has one.
async fn type_of(
    context: &Arc<StatementContext>,
    table: &str,
    expression: SqlExpr,
) -> Option<DataType> {
    let mut query = select(table, &[]).ok()?;
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = vec![SelectItem::UnnamedExpr(expression)];
    }
    let (_, plan) = Box::pin(context.plan_query(query)).await.ok()?;
    Some(plan.schema().fields().first()?.data_type().clone())
}

/// An option whose text is an expression over the item table.
struct Written {
    option: &'static str,
    kind: &'static str,
    /// Whether it may look into other tables.
    may_query: bool,
    hint: &'static str,
}

const FILTER: Written = Written {
    option: "item_filter",
    kind: "condition",
    may_query: true,
    hint: "write a condition on the item table's columns, such as 'stock > 0'",
};

const BOOST: Written = Written {
    option: "boost",
    kind: "expression",
    may_query: false,
    hint: "write an expression over the item table's columns, such as '0.2 * margin'",
};

/// A text that is one expression and nothing else.
fn expression(written: &Written, text: &str) -> Result<SqlExpr> {
    let Written { option, kind, hint, .. } = written;
    let wrong =
        |why: String| Error::invalid_hint(format!("{option} '{text}' is no {kind}: {why}"), *hint);
    let read = effort::read(AttuneDialect, text, |parser| {
        Ok((parser.parse_expr()?, parser.peek_token_ref().token.clone()))
    });
    let (expression, next) = read.map_err(|error| wrong(error.to_string()))?;
    match next {
        Token::EOF => Ok(expression),
        other => Err(wrong(format!("{other} comes after it"))),
    }
}

/// Refuses what does not give one value for each row of the item table.
fn row_by_row(
    written: &Written,
    text: &str,
    expression: &SqlExpr,
    state: &SessionState,
) -> Result<()> {
    let Some(found) = not_by_row(expression, state, written.may_query) else { return Ok(()) };
    let Written { option, hint, .. } = written;
    Err(Error::invalid_hint(
        format!("{option} '{text}' has {found}, which is not computed row by row"),
        format!("{hint}; a view can have the rest as a column, and be the model's item_table"),
    ))
}

/// What of an expression is not computed row by row: a sub-query too, unless there may be one.
pub(super) fn not_by_row(
    expression: &SqlExpr,
    state: &SessionState,
    may_query: bool,
) -> Option<String> {
    match expression.visit(&mut Finder { state, may_query, depth: 0 }) {
        ControlFlow::Break(found) => Some(found),
        ControlFlow::Continue(()) => None,
    }
}

/// Finds what is not computed row by row, outside of sub-queries.
struct Finder<'a> {
    state: &'a SessionState,
    may_query: bool,
    depth: usize,
}

impl Visitor for Finder<'_> {
    type Break = String;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<String> {
        if !self.may_query {
            return ControlFlow::Break("a sub-query".into());
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<String> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &SqlExpr) -> ControlFlow<String> {
        let SqlExpr::Function(function) = expression else { return ControlFlow::Continue(()) };
        let name = function.name.to_string().replace('"', "").to_lowercase();
        let is_scalar = self.state.scalar_functions().contains_key(&name);
        let kind = if function.over.is_some() {
            "window function"
        } else if name == "unnest" {
            "list function"
        } else if !is_scalar && self.state.aggregate_functions().contains_key(&name) {
            "aggregate function"
        } else if !is_scalar && self.state.window_functions().contains_key(&name) {
            "window function"
        } else {
            return ControlFlow::Continue(());
        };
        match self.depth {
            0 => ControlFlow::Break(format!("the {kind} {name}")),
            _ => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::parser::Parser;

    use super::*;

    #[test]
    fn a_filter_is_one_condition_and_nothing_else() {
        assert!(expression(&FILTER, "stock > 0 AND brand IN (SELECT b FROM t)").is_ok());
        assert!(
            expression(&BOOST, "").unwrap_err().to_string().contains("boost '' is no expression")
        );
        for (text, part) in [
            ("", "no condition"),
            ("stock >", "no condition"),
            ("true) UNION SELECT (1", "comes after"),
            ("stock > 0; DROP TABLE t", "comes after"),
            ("stock > 0 ORDER BY 1", "comes after"),
        ] {
            let error = expression(&FILTER, text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let query = select("main.a\"b", &["x"]).unwrap().to_string();
        assert_eq!(query, "SELECT \"x\" FROM \"main\".\"a\"\"b\"");
    }

    #[test]
    fn a_call_tells_what_it_asks_of_the_item_table() {
        let arguments = |call: &str| {
            let mut parser = Parser::new(&AttuneDialect).try_with_sql(call).unwrap();
            let SqlExpr::Function(call) = parser.parse_expr().unwrap() else { panic!("no call") };
            let sqlparser::ast::FunctionArguments::List(list) = call.args else { panic!("none") };
            list.args
        };
        let of = |call: &str| ItemQuery::of(&arguments(call));
        let both =
            ItemQuery { filter: Some("a > 0".into()), category: Some("brand".into()), boost: None };
        let named = "f('m', 1, item_filter => 'a > 0', max_per => STRUCT(2 AS Brand))";
        assert_eq!(of(named), Some(both.clone()));
        let in_struct = "f('m', 1, STRUCT('a > 0' AS item_filter, STRUCT(2 AS brand) AS max_per))";
        assert_eq!(of(in_struct), Some(both.clone()));
        assert_eq!(of("f('m', 1, max_per => {brand: 2})").unwrap().category, both.category);
        let boost = of("f('m', 1, STRUCT('2 * margin' AS boost))").unwrap().boost;
        assert_eq!(boost.as_deref(), Some("2 * margin"));
        assert_eq!(of("f('m', 1, 10)"), None);
    }
}
