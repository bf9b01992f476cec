//! Functions in FROM over the rows of a query, `f((SELECT …) | 'table', name => value, …)`: what
//! their calls have in common.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use arrow::datatypes::Schema;
use sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArgOperator, ObjectName, Query,
    Statement, TableAlias, TableFactor, Value, ValueWithSpan, VisitMut, VisitorMut,
};

use crate::error::{Error, Result};
use crate::model::arguments::written_options;
use crate::parse::parse_query;
use crate::{anonymize, clean};

/// A call of a function in FROM.
pub(crate) struct Call {
    pub(crate) name: ObjectName,
    pub(crate) arguments: Vec<FunctionArg>,
    pub(crate) alias: Option<TableAlias>,
}

/// The call that a relation is.
///
/// # Errors
/// The relation, when it is no call of a function that is asked for.
pub(crate) fn call(
    relation: TableFactor,
    is_ours: impl Fn(&ObjectName) -> bool,
) -> Result<Call, Box<TableFactor>> {
    match relation {
        TableFactor::Table { name, args: Some(arguments), alias, .. } if is_ours(&name) => {
            Ok(Call { name, arguments: arguments.args, alias })
        }
        TableFactor::Function { name, args: arguments, alias, .. } if is_ours(&name) => {
            Ok(Call { name, arguments, alias })
        }
        other => Err(Box::new(other)),
    }
}

/// The query that a call is over, and the arguments behind it; `form` tells how to write one.
///
/// # Errors
/// When the first argument is none.
pub(crate) fn query(
    function: &str,
    form: &str,
    arguments: Vec<FunctionArg>,
) -> Result<(Box<Query>, Vec<FunctionArg>)> {
    let mut arguments = arguments.into_iter();
    match arguments.next() {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Subquery(query)))) => {
            Ok((query, arguments.collect()))
        }
        _ => Err(Error::invalid_hint(
            format!(
                "the first argument of {function} is a query in parentheses, or the name of a \
                 table in quotes"
            ),
            form,
        )),
    }
}

/// The arguments behind the query, by name.
///
/// # Errors
/// When one is not `known`, given twice, or of no form that such functions take.
pub(crate) fn options<'a>(
    function: &str,
    form: &str,
    known: &[&'static str],
    arguments: &'a [FunctionArg],
) -> Result<BTreeMap<String, &'a SqlExpr>> {
    for argument in arguments {
        let takes = match argument {
            FunctionArg::Named { arg: FunctionArgExpr::Expr(_), operator, .. } => {
                *operator == FunctionArgOperator::RightArrow
            }
            FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Struct { values, .. })) => {
                values.iter().all(|value| matches!(value, SqlExpr::Named { .. }))
            }
            _ => false,
        };
        if !takes {
            return Err(Error::invalid_hint(format!("{function} does not take {argument}"), form));
        }
    }
    let mut given = BTreeMap::new();
    for (name, value) in written_options(arguments) {
        if !known.contains(&name.as_str()) {
            return Err(Error::unknown("option", &name, known.iter().copied()));
        }
        if given.insert(name.clone(), value).is_some() {
            return Err(Error::invalid_hint(
                format!("option {name} is given twice"),
                "leave one of them out",
            ));
        }
    }
    Ok(given)
}

/// The text of a literal in quotes.
pub(crate) fn text(value: &SqlExpr) -> Option<&str> {
    match value {
        SqlExpr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text),
            ..
        }) => Some(text.as_str()),
        _ => None,
    }
}

/// The column of that name, or of that name in other letters.
///
/// # Errors
/// When there is none, or there are several.
pub(crate) fn find(schema: &Schema, name: &str) -> Result<usize> {
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let places = |is_it: &dyn Fn(&str) -> bool| -> Vec<usize> {
        names.clone().enumerate().filter(|(_, known)| is_it(known)).map(|(at, _)| at).collect()
    };
    let mut found = places(&|known: &str| known == name);
    if found.is_empty() {
        found = places(&|known: &str| known.eq_ignore_ascii_case(name));
    }
    match found.as_slice() {
        [only] => Ok(*only),
        [] => Err(Error::unknown("column", name, names)),
        _ => Err(Error::invalid_hint(
            format!("the query has {} columns of the name {name}", found.len()),
            "give them names of their own with AS",
        )),
    }
}

/// Puts a query in place of a table's name in quotes, so that the table is found as any other is.
///
/// # Errors
/// When the text is no name.
pub(crate) fn plain(tree: &mut Statement) -> Result<()> {
    match VisitMut::visit(tree, &mut Tables) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Tables;

impl VisitorMut for Tables {
    // Boxed: the visitor keeps one of it at each depth of the tree.
    type Break = Box<Error>;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Box<Error>> {
        let is_call = match &*factor {
            TableFactor::Table { name, .. } | TableFactor::Function { name, .. } => {
                anonymize::is_ours(name) || clean::is_ours(name)
            }
            _ => false,
        };
        let arguments = match factor {
            TableFactor::Table { args: Some(arguments), .. } if is_call => &mut arguments.args,
            TableFactor::Function { args, .. } if is_call => args,
            _ => return ControlFlow::Continue(()),
        };
        if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(value))) = arguments.first_mut()
            && let Some(name) = text(value)
        {
            match all_rows(name) {
                Ok(query) => *value = query,
                Err(error) => return ControlFlow::Break(Box::new(error)),
            }
        }
        ControlFlow::Continue(())
    }
}

fn all_rows(name: &str) -> Result<SqlExpr> {
    let parts: Vec<&str> = name.split('.').collect();
    if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
        return Err(Error::invalid_hint(
            format!("'{name}' is no table name"),
            "write 'name' or 'schema.name', or a query in parentheses",
        ));
    }
    let quoted: Vec<String> =
        parts.iter().map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    Ok(SqlExpr::Subquery(parse_query(&format!("SELECT * FROM {}", quoted.join(".")))?))
}

#[cfg(test)]
mod tests {
    use sqlparser::parser::Parser;

    use super::*;
    use crate::dialect::AttuneDialect;

    fn planned(text: &str) -> Result<String> {
        let mut tree = Parser::parse_sql(&AttuneDialect, text).unwrap().remove(0);
        plain(&mut tree)?;
        Ok(tree.to_string())
    }

    #[test]
    fn a_table_s_name_becomes_a_query() {
        let text = "SELECT * FROM anonymize('main.t', k => 2), other('main.t')";
        let expected =
            "SELECT * FROM anonymize((SELECT * FROM \"main\".\"t\"), k => 2), other('main.t')";
        assert_eq!(planned(text).unwrap(), expected);
        for twice in ["anonymize_report('t')", "clean('t')", "clean_changes('t')"] {
            let text = format!("SELECT (SELECT count(*) FROM {twice}) AS n");
            assert!(planned(&text).unwrap().contains("FROM \"t\""), "{twice}");
        }
        for wrong in ["", "a..b", "a.b.c.d"] {
            let text = format!("SELECT * FROM anonymize('{wrong}')");
            assert!(planned(&text).unwrap_err().to_string().contains("no table name"), "{wrong}");
        }
        let hostile = planned("SELECT * FROM anonymize('t\" WHERE 1=1 --')").unwrap();
        assert!(hostile.contains("\"t\"\" WHERE 1=1 --\""), "{hostile}");
    }
}
