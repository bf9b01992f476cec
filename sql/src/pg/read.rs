//! Reading a statement that a PostgreSQL client sent.
//!
//! Everything about data is Attune's own SQL. A statement whose tables are all the catalog's was
//! written by a program for PostgreSQL: it is read by PostgreSQL's grammar and rewritten into what
//! the planner knows. Statements over people's tables are never rewritten.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement as DataFusionStatement;
use sqlparser::ast::{ObjectName, Query, Statement as SqlStatement, Visit, VisitMut, Visitor};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::rewrite::{Registers, Rules};
use super::{PG_CATALOG, Shared, empty};
use crate::effort;
use crate::error::{Error, Result};
use crate::parse::{self, Statement, name_parts};
use crate::session::{Session, Settings};

/// Words, besides those that begin with `pg_`, of statements that programs write.
const WORDS: [&str; 16] = [
    "information_schema",
    "regclass",
    "regtype",
    "regproc",
    "regnamespace",
    "current_schemas",
    "current_setting",
    "format_type",
    "obj_description",
    "col_description",
    "shobj_description",
    "has_table_privilege",
    "has_schema_privilege",
    "session_user",
    "quote_ident",
    "parse_ident",
];

/// Parses one statement of a session that speaks PostgreSQL.
///
/// # Errors
/// As [`parse::parse`].
pub(crate) fn parse(
    session: &Session,
    settings: &Settings,
    text: &str,
    bytes_max: usize,
) -> Result<Statement> {
    let (shared, principal) = (session.engine().postgres(), &session.principal().name);
    if text.len() <= bytes_max
        && mentions_catalog(text)
        && let Some(statement) = catalog_statement(shared, settings, principal, text)?
    {
        let statement = DataFusionStatement::Statement(Box::new(statement));
        return Ok(Statement::DataFusion(Box::new(statement)));
    }
    let mut statement = parse::parse(text, bytes_max)?;
    if let Statement::DataFusion(inner) = &mut statement
        && let DataFusionStatement::Statement(tree) = inner.as_mut()
    {
        let _ = VisitMut::visit(tree.as_mut(), &mut Registers);
    }
    Ok(statement)
}

fn mentions_catalog(text: &str) -> bool {
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize() else { return false };
    tokens.iter().any(|token| match token {
        Token::Word(word) => {
            let word = word.value.to_lowercase();
            word.starts_with("pg_") || WORDS.contains(&word.as_str())
        }
        _ => false,
    })
}

/// The rewritten statement; `None` when it is no query over the catalog alone.
fn catalog_statement(
    shared: &Shared,
    settings: &Settings,
    principal: &str,
    text: &str,
) -> Result<Option<SqlStatement>> {
    let read = effort::read(PostgreSqlDialect {}, text, |parser| parser.parse_statements());
    let Ok(statements) = read else { return Ok(None) };
    let [mut statement] = <[SqlStatement; 1]>::try_from(statements)
        .unwrap_or([SqlStatement::Commit { chain: false, end: false, modifier: None }]);
    if !matches!(statement, SqlStatement::Query(_)) || !is_over_catalog(&statement) {
        return Ok(None);
    }
    let before = statement.clone();
    if let SqlStatement::Query(query) = &mut statement {
        empty::replace(query);
    }
    let mut rules = Rules { path: settings.search_path(principal) };
    let _ = VisitMut::visit(&mut statement, &mut rules);
    // The rules know some statements by their very words, so those stay as they were written.
    let rewritten;
    let text = match statement == before {
        true => text,
        false => {
            rewritten = statement.to_string();
            &rewritten
        }
    };
    let unread = |error: sqlparser::parser::ParserError| Error::Syntax {
        message: error.to_string(),
        excerpt: String::new(),
        hint: None,
    };
    let mut read = shared.rules().parse(text).map_err(unread)?;
    Ok(read.pop().filter(|statement| matches!(statement, SqlStatement::Query(_))))
}

/// Whether all tables are the catalog's.
fn is_over_catalog(statement: &SqlStatement) -> bool {
    let mut relations = Relations::default();
    let _ = Visit::visit(statement, &mut relations);
    relations.named.iter().all(|parts| match parts.as_slice() {
        [name] => is_catalog_table(name) || relations.defined.contains(name),
        [schema, name] | [_, schema, name] => {
            schema == "information_schema" || schema == PG_CATALOG || is_catalog_table(name)
        }
        _ => false,
    })
}

/// Whether an unqualified name can only mean a table or table function of the catalog.
pub(super) fn is_catalog_table(name: &str) -> bool {
    const FUNCTIONS: [&str; 4] =
        ["generate_series", "unnest", "string_to_array", "current_schemas"];
    name.starts_with("pg_") || FUNCTIONS.contains(&name)
}

/// The tables that a statement names, and the names it gives to queries of its own.
#[derive(Default)]
struct Relations {
    named: Vec<Vec<String>>,
    defined: BTreeSet<String>,
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for defined in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.defined.insert(crate::dialect::folded(&defined.alias.name));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        self.named.push(name_parts(name));
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> Option<String> {
        let shared = Shared::default();
        let settings = Settings::default();
        catalog_statement(&shared, &settings, "ada", text).unwrap().map(|read| read.to_string())
    }

    #[test]
    fn only_statements_over_the_catalog_alone_are_rewritten() {
        assert!(rewritten("SELECT relname FROM pg_class ORDER BY 1").is_some());
        assert!(rewritten("WITH a AS (SELECT oid FROM pg_type) SELECT * FROM a").is_some());
        assert!(rewritten("SELECT pg_catalog.version()").is_some());
        assert!(rewritten("SELECT * FROM people, pg_class").is_none());
        assert!(rewritten("SELECT (SELECT 1 FROM people), oid FROM pg_class").is_none());
        assert!(rewritten("DELETE FROM pg_class").is_none());
        assert!(!mentions_catalog("SELECT version FROM releases"));
    }
}
