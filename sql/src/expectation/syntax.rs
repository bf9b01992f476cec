//! How expectations are written.
//!
//! ```text
//! CREATE [OR REPLACE] EXPECTATION [IF NOT EXISTS] e ON t CHECK (condition)
//!     [TOLERANCE .01] [SEVERITY 'warn' | 'error'] [DESCRIPTION '…']
//! ALTER EXPECTATION e ON t SET (severity = 'error', tolerance = 0, description = '…',
//!     baseline = 'next')
//! DROP EXPECTATION [IF EXISTS] e ON t
//! SHOW EXPECTATIONS [ON t]      DESCRIBE EXPECTATION e ON t
//! CHECK TABLE t      EXPLAIN CHECK TABLE t
//! ```

use catalog::checks::Severity;
use datafusion::sql::parser::DFParser;
use sqlparser::ast::{Expr, Value};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use crate::dialect::is_word;
use crate::parse::{Failure, Statement, parse_create_noun, parse_rest_of_options, skip};
use crate::words::{name_on_table as named, table};

/// A statement about expectations.
#[derive(Debug, Clone, PartialEq)]
pub enum ExpectationStatement {
    /// CREATE EXPECTATION.
    Create(Box<CreateExpectation>),
    /// ALTER EXPECTATION e ON t SET (…).
    Alter {
        /// The expectation.
        name: String,
        /// Its table, as written.
        table: Vec<String>,
        /// The options in the order written, keys in lower case.
        options: Vec<(String, Expr)>,
    },
    /// DROP EXPECTATION [IF EXISTS] e ON t.
    Drop {
        /// The expectation.
        name: String,
        /// Its table, as written.
        table: Vec<String>,
        /// No error when it is missing.
        if_exists: bool,
    },
    /// SHOW EXPECTATIONS [ON t].
    Show(Option<Vec<String>>),
    /// DESCRIBE EXPECTATION e ON t.
    Describe {
        /// The expectation.
        name: String,
        /// Its table, as written.
        table: Vec<String>,
    },
    /// CHECK TABLE t.
    Check(Vec<String>),
    /// EXPLAIN CHECK TABLE t.
    Explain(Vec<String>),
}

/// CREATE EXPECTATION.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateExpectation {
    /// Its name, one among those of its table.
    pub name: String,
    /// OR REPLACE.
    pub replace: bool,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// Its table, as written.
    pub table: Vec<String>,
    /// What is checked.
    pub check: Expr,
    /// What follows when it is not met.
    pub severity: Severity,
    /// The share of rows that may fail.
    pub tolerance: f64,
    /// What it is for.
    pub description: Option<String>,
}

/// Whether a statement that begins with these words is one of these.
pub(crate) fn is_ours(words: &[&str]) -> bool {
    matches!(
        words,
        ["create" | "alter" | "drop" | "describe" | "desc", "expectation", ..]
            | ["create", "or", "replace", "expectation", ..]
            | ["show", "expectations", ..]
            | ["check", "table", ..]
            | ["explain", "check", "table", ..]
    )
}

/// Parses a statement for which [`is_ours`] holds.
pub(crate) fn parse(parser: &mut DFParser<'_>, words: &[&str]) -> Result<Statement, Failure> {
    let statement = match words {
        ["create", ..] => create(&mut parser.parser)?,
        ["alter", ..] => {
            skip(parser, 2);
            let parser = &mut parser.parser;
            let (name, table) = named(parser)?;
            parser.expect_keyword(Keyword::SET)?;
            parser.expect_token(&Token::LParen)?;
            let options = parse_rest_of_options(parser)?;
            ExpectationStatement::Alter { name, table, options }
        }
        ["drop", ..] => {
            skip(parser, 2);
            let if_exists = parser.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            let (name, table) = named(&mut parser.parser)?;
            ExpectationStatement::Drop { name, table, if_exists }
        }
        ["show", ..] => {
            skip(parser, 2);
            let on = parser.parser.parse_keyword(Keyword::ON);
            let table = if on { Some(table(&mut parser.parser)?) } else { None };
            ExpectationStatement::Show(table)
        }
        ["describe" | "desc", ..] => {
            skip(parser, 2);
            let (name, table) = named(&mut parser.parser)?;
            ExpectationStatement::Describe { name, table }
        }
        ["explain", ..] => {
            skip(parser, 3);
            ExpectationStatement::Explain(table(&mut parser.parser)?)
        }
        _ => {
            skip(parser, 2);
            ExpectationStatement::Check(table(&mut parser.parser)?)
        }
    };
    Ok(Statement::Expectation(Box::new(statement)))
}

fn create(parser: &mut Parser<'_>) -> Result<ExpectationStatement, Failure> {
    let (replace, if_not_exists) = parse_create_noun(parser)?;
    let (name, table) = named(parser)?;
    parser.expect_keyword(Keyword::CHECK)?;
    parser.expect_token(&Token::LParen)?;
    let check = parser.parse_expr()?;
    parser.expect_token(&Token::RParen)?;
    let mut created = CreateExpectation {
        name,
        replace,
        if_not_exists,
        table,
        check,
        severity: Severity::Warn,
        tolerance: 0.0,
        description: None,
    };
    loop {
        let found = parser.peek_token_ref().clone();
        if is_word(&found.token, "TOLERANCE") {
            parser.next_token();
            let number = parser.parse_number_value()?;
            let share = match &number.value {
                Value::Number(text, _) => share(text),
                _ => None,
            };
            let wrong =
                || "TOLERANCE is a share of rows from 0 to 1, such as TOLERANCE 0.01".into();
            created.tolerance = share.ok_or_else(|| Failure::at(wrong(), &found))?;
        } else if is_word(&found.token, "SEVERITY") {
            parser.next_token();
            let word = parser.parse_literal_string()?;
            let wrong = || format!("SEVERITY is 'warn' or 'error', not '{word}'");
            created.severity = severity(&word).ok_or_else(|| Failure::at(wrong(), &found))?;
        } else if is_word(&found.token, "DESCRIPTION") {
            parser.next_token();
            created.description = Some(parser.parse_literal_string()?);
        } else {
            return Ok(ExpectationStatement::Create(Box::new(created)));
        }
    }
}

/// A severity by its word.
pub(super) fn severity(word: &str) -> Option<Severity> {
    [Severity::Warn, Severity::Error]
        .into_iter()
        .find(|severity| severity.name().eq_ignore_ascii_case(word))
}

/// A share from 0 to 1.
pub(super) fn share(text: &str) -> Option<f64> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ExpectationStatement {
        match crate::parse::parse(text, 1_000) {
            Ok(Statement::Expectation(statement)) => *statement,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn an_expectation_has_a_check_and_what_follows() {
        let text = "CREATE OR REPLACE EXPECTATION Price ON main.Orders CHECK (price > 0 OR price IS NULL) \
                    SEVERITY 'ERROR' TOLERANCE 0.01 DESCRIPTION 'no gifts';";
        let ExpectationStatement::Create(created) = read(text) else { panic!("{text}") };
        assert_eq!((created.name.as_str(), created.replace), ("price", true));
        assert_eq!(created.table, ["main", "orders"]);
        assert_eq!(created.check.to_string(), "price > 0 OR price IS NULL");
        assert_eq!((created.severity, created.tolerance), (Severity::Error, 0.01));
        assert_eq!(created.description.as_deref(), Some("no gifts"));
    }

    #[test]
    fn the_other_statements_are_read() {
        assert_eq!(read("CHECK TABLE t"), ExpectationStatement::Check(vec!["t".into()]));
        assert_eq!(read("SHOW EXPECTATIONS"), ExpectationStatement::Show(None));
        let table = vec!["main".to_owned(), "t".to_owned()];
        assert_eq!(read("show expectations on main.t"), ExpectationStatement::Show(Some(table)));
        let dropped = read("DROP EXPECTATION IF EXISTS \"E\" ON t");
        let (name, table) = ("E".to_owned(), vec!["t".to_owned()]);
        assert_eq!(dropped, ExpectationStatement::Drop { name, table, if_exists: true });
        let ExpectationStatement::Alter { options, .. } =
            read("ALTER EXPECTATION e ON t SET (Severity = 'warn', tolerance = 0)")
        else {
            panic!("no change")
        };
        assert_eq!(options[0].0, "severity");
    }

    #[test]
    fn wrong_words_are_told() {
        for text in [
            "CREATE EXPECTATION e ON t CHECK (a > 0) SEVERITY 'fatal'",
            "CREATE EXPECTATION e ON t CHECK (a > 0) TOLERANCE 2",
            "CREATE EXPECTATION e ON t CHECK a > 0",
            "CREATE EXPECTATION e CHECK (a > 0)",
            "CREATE OR REPLACE EXPECTATION IF NOT EXISTS e ON t CHECK (a > 0)",
        ] {
            let error = crate::parse::parse(text, 1_000).unwrap_err();
            assert_eq!(error.code(), "ATT-1001", "{text}");
        }
    }
}
