//! `CREATE TABLE t CLUSTER BY (column, …) AS …`: rows that are looked up by these columns lie
//! together, as in BigQuery.
//!
//! The clause is taken out of the tokens before DataFusion's parser, which has no place for it, and
//! put into the syntax tree afterwards.

use datafusion::common::DFSchema;
use datafusion::sql::parser::Statement as DataFusionStatement;
use sqlparser::ast::{CreateTable, Expr, Ident, Statement as SqlStatement, WrappedCollection};
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::clause;
use crate::dialect::{folded, is_word};
use crate::error::{Error, Result};
use crate::parse::Statement;

/// So many columns can cluster a table; more would not bring rows closer together.
const COLUMNS_MAX: usize = 4;

/// Takes the clause out of a CREATE TABLE's tokens; gives its columns, none without a clause.
///
/// # Errors
/// When the clause is no list of names in parentheses.
pub(crate) fn take(tokens: &mut Vec<TokenWithSpan>) -> Result<Vec<Ident>> {
    // Before its query, which may have such names.
    let is_by = |token: &Token| is_word(token, "BY");
    let Some(start) = clause::place(tokens, "TABLE", "CLUSTER", is_by, Some("AS")) else {
        return Ok(vec![]);
    };
    clause::take_list(tokens, (start, 2), wrong, |cursor, _| match cursor.step() {
        Some(Token::Word(word)) => Ok(ident(word)),
        _ => Err(wrong()),
    })
}

/// Puts the columns into the statement that they came with.
pub(crate) fn attach(statement: &mut Statement, columns: Vec<Ident>) {
    if columns.is_empty() {
        return;
    }
    if let Statement::DataFusion(statement) = statement
        && let DataFusionStatement::Statement(statement) = statement.as_mut()
        && let SqlStatement::CreateTable(create) = statement.as_mut()
    {
        let columns = columns.into_iter().map(Expr::Identifier).collect();
        create.cluster_by = Some(WrappedCollection::Parentheses(columns));
    }
}

/// The columns' names as the catalog spells them.
pub(crate) fn columns(create: &CreateTable) -> Vec<String> {
    let Some(clause) = &create.cluster_by else { return vec![] };
    let (WrappedCollection::NoWrapping(columns) | WrappedCollection::Parentheses(columns)) = clause;
    let name = |column: &Expr| match column {
        Expr::Identifier(name) => Some(folded(name)),
        _ => None,
    };
    columns.iter().filter_map(name).collect()
}

/// Checks the columns against the table's.
///
/// # Errors
/// When one does not exist, is named twice or has no order, or when there are too many.
pub(crate) fn check(columns: &[String], table: &DFSchema) -> Result<()> {
    if columns.len() > COLUMNS_MAX {
        return Err(Error::invalid_hint(
            format!("CLUSTER BY names {} columns, the limit is {COLUMNS_MAX}", columns.len()),
            "name those that look-ups compare, the most used first",
        ));
    }
    for (index, column) in columns.iter().enumerate() {
        let Ok(field) = table.field_with_unqualified_name(column) else {
            let known = table.fields().iter().map(|field| field.name().as_str());
            return Err(Error::unknown("column", column, known));
        };
        if field.data_type().is_nested() {
            return Err(Error::invalid(format!("column {column} has no order to cluster by")));
        }
        if columns[..index].contains(column) {
            return Err(Error::invalid(format!("CLUSTER BY names {column} twice")));
        }
    }
    Ok(())
}

fn ident(word: &Word) -> Ident {
    match word.quote_style {
        Some(quote) => Ident::with_quote(quote, &word.value),
        None => Ident::new(&word.value),
    }
}

fn wrong() -> Error {
    Error::invalid_hint("CLUSTER BY takes columns in parentheses", "write CLUSTER BY (id)")
}

#[cfg(test)]
mod tests {
    use crate::parse::parse;

    use super::*;

    fn read(text: &str) -> Result<Vec<String>> {
        let Statement::DataFusion(statement) = parse(text, 1_000)? else { return Ok(vec![]) };
        let DataFusionStatement::Statement(statement) = *statement else { return Ok(vec![]) };
        let SqlStatement::CreateTable(create) = *statement else { return Ok(vec![]) };
        Ok(columns(&create))
    }

    #[test]
    fn the_clause_is_read_where_it_belongs() {
        for (text, wanted) in [
            ("CREATE TABLE t CLUSTER BY (id) AS SELECT 1 AS id", vec!["id"]),
            (
                "create or replace table s.t cluster /* x */ by ( A , \"B\" ) as select 1",
                vec!["a", "B"],
            ),
            ("CREATE TABLE IF NOT EXISTS t (a INT, cluster INT) CLUSTER BY (a)", vec!["a"]),
            ("CREATE TABLE t AS SELECT cluster AS by FROM x", vec![]),
            ("CREATE TABLE cluster AS SELECT 1 AS id", vec![]),
        ] {
            assert_eq!(read(text).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "CREATE TABLE t CLUSTER BY id AS SELECT 1 AS id",
            "CREATE TABLE t CLUSTER BY () AS SELECT 1 AS id",
            "CREATE TABLE t CLUSTER BY (a b) AS SELECT 1 AS id",
            "CREATE TABLE t CLUSTER BY (a",
            "CREATE TABLE t CLUSTER BY (a + 1) AS SELECT 1 AS id",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
