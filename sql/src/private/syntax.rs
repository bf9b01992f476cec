//! How privacy policies are written.
//!
//! ```text
//! CREATE [OR REPLACE] PRIVACY POLICY [IF NOT EXISTS] p
//!     ON t (unit_column | SUBJECT person | foreign_key REFERENCES other (column))
//!     BUDGET (epsilon = 10, delta = 1e-6) PER ROLE | USER [EVERY '30 days']
//!     [MAX_EPSILON_PER_QUERY 1]
//! DROP PRIVACY POLICY [IF EXISTS] p ON t
//! SHOW PRIVACY POLICIES [ON t]      DESCRIBE PRIVACY POLICY p ON t
//! ```

use catalog::privacy_policies::{BudgetPer, PrivacyPolicy};
use datafusion::sql::parser::DFParser;
use sqlparser::ast::Expr;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use crate::dialect::{folded, is_word};
use crate::parse::{Failure, Statement, parse_rest_of_options, skip};
use crate::private::options::number;
use crate::tokens::{LENGTHS, duration_ms};
use crate::words::{name_on_table as named, table as table_name, word};

/// A statement about privacy policies.
#[derive(Debug, Clone, PartialEq)]
pub enum PrivacyStatement {
    /// CREATE PRIVACY POLICY.
    Create {
        /// Its table, as written.
        table: Vec<String>,
        /// OR REPLACE.
        replace: bool,
        /// IF NOT EXISTS.
        if_not_exists: bool,
        /// What tells whose row it is.
        unit: Unit,
        /// The policy, whose unit's column is still to be filled in.
        policy: Box<PrivacyPolicy>,
    },
    /// DROP PRIVACY POLICY.
    Drop {
        /// Its table, as written.
        table: Vec<String>,
        /// Its name.
        name: String,
        /// No error when it is missing.
        if_exists: bool,
    },
    /// SHOW PRIVACY POLICIES [ON t].
    Show(Option<Vec<String>>),
    /// DESCRIBE PRIVACY POLICY p ON t.
    Describe {
        /// Its table, as written.
        table: Vec<String>,
        /// Its name.
        name: String,
    },
}

/// What tells whose row it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    /// A column of the table.
    Column(String),
    /// The key of a subject in the table.
    Subject(String),
    /// A foreign key: whose the row of another table is.
    Reference {
        /// The column of the table.
        key: String,
        /// The other table, as written.
        table: Vec<String>,
        /// Its column.
        column: String,
    },
}

/// Whether a statement that begins with these words is one of these.
pub(crate) fn is_ours(words: &[&str]) -> bool {
    matches!(
        words,
        ["create" | "drop" | "describe" | "desc", "privacy", "policy", ..]
            | ["create", "or", "replace", "privacy", "policy", ..]
            | ["show", "privacy", "policies", ..]
    )
}

/// Parses a statement for which [`is_ours`] holds.
pub(crate) fn parse(parser: &mut DFParser<'_>, words: &[&str]) -> Result<Statement, Failure> {
    let statement = match words {
        ["create", ..] => create(&mut parser.parser)?,
        ["drop", ..] => {
            skip(parser, 3);
            let if_exists = parser.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            let (name, table) = named(&mut parser.parser)?;
            PrivacyStatement::Drop { table, name, if_exists }
        }
        ["show", ..] => {
            skip(parser, 3);
            let on = parser.parser.parse_keyword(Keyword::ON);
            let table = if on { Some(table_name(&mut parser.parser)?) } else { None };
            PrivacyStatement::Show(table)
        }
        _ => {
            skip(parser, 3);
            let (name, table) = named(&mut parser.parser)?;
            PrivacyStatement::Describe { table, name }
        }
    };
    Ok(Statement::Privacy(Box::new(statement)))
}

fn create(parser: &mut Parser<'_>) -> Result<PrivacyStatement, Failure> {
    parser.expect_keyword(Keyword::CREATE)?;
    let replace = parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]);
    word(parser, "PRIVACY")?;
    word(parser, "POLICY")?;
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    if replace && if_not_exists {
        let found = parser.peek_token_ref().clone();
        return Err(Failure::at("OR REPLACE and IF NOT EXISTS exclude each other".into(), &found));
    }
    let (name, table) = named(parser)?;
    parser.expect_token(&Token::LParen)?;
    let subject = is_word(&parser.peek_token_ref().token, "SUBJECT");
    let first = folded(&parser.parse_identifier()?);
    let unit = if parser.parse_keyword(Keyword::REFERENCES) {
        let table = table_name(parser)?;
        parser.expect_token(&Token::LParen)?;
        let column = folded(&parser.parse_identifier()?);
        parser.expect_token(&Token::RParen)?;
        Unit::Reference { key: first, table, column }
    } else if subject && parser.peek_token_ref().token != Token::RParen {
        Unit::Subject(folded(&parser.parse_identifier()?))
    } else {
        Unit::Column(first)
    };
    parser.expect_token(&Token::RParen)?;
    word(parser, "BUDGET")?;
    let (budget_epsilon, budget_delta) = budget(parser)?;
    word(parser, "PER")?;
    let mut policy = PrivacyPolicy {
        name,
        unit_column: String::new(),
        source: None,
        budget_epsilon,
        budget_delta,
        per: per(parser)?,
        every_ms: None,
        epsilon_per_query_max: None,
    };
    loop {
        let found = parser.peek_token_ref().clone();
        if is_word(&found.token, "EVERY") && policy.every_ms.is_none() {
            parser.next_token();
            let found = parser.peek_token_ref().clone();
            let text = parser.parse_literal_string()?;
            let wrong =
                || format!("EVERY '{text}' is no time: {LENGTHS}, at most ten years, as '30 days'");
            let every = duration_ms(&text).ok_or_else(|| Failure::at(wrong(), &found))?;
            policy.every_ms = Some(every);
        } else if is_word(&found.token, "MAX_EPSILON_PER_QUERY")
            && policy.epsilon_per_query_max.is_none()
        {
            parser.next_token();
            let _ = parser.consume_token(&Token::Eq);
            let found = parser.peek_token_ref().clone();
            let value = parser.parse_expr()?;
            let most = number("MAX_EPSILON_PER_QUERY", &value);
            let most = most.map_err(|error| Failure::at(error.to_string(), &found))?;
            policy.epsilon_per_query_max = Some(most);
        } else {
            let policy = Box::new(policy);
            return Ok(PrivacyStatement::Create { table, replace, if_not_exists, unit, policy });
        }
    }
}

/// `(epsilon = …, delta = …)`.
fn budget(parser: &mut Parser<'_>) -> Result<(f64, f64), Failure> {
    let found = parser.peek_token_ref().clone();
    parser.expect_token(&Token::LParen)?;
    let options = parse_rest_of_options(parser)?;
    let wrong = |message: String| Failure::at(message, &found);
    let (mut epsilon, mut delta) = (None, None);
    for (name, value) in &options {
        let place = match name.as_str() {
            "epsilon" => &mut epsilon,
            "delta" => &mut delta,
            other => return Err(wrong(format!("a budget has no {other}"))),
        };
        let value: &Expr = value;
        let value = number(name, value).map_err(|error| wrong(error.to_string()))?;
        if place.replace(value).is_some() {
            return Err(wrong(format!("{name} is given twice")));
        }
    }
    match epsilon {
        Some(epsilon) => Ok((epsilon, delta.unwrap_or(0.0))),
        None => Err(wrong("Expected: BUDGET (epsilon = 10, delta = 1e-6)".into())),
    }
}

fn per(parser: &mut Parser<'_>) -> Result<BudgetPer, Failure> {
    let found = parser.next_token();
    for per in [BudgetPer::Role, BudgetPer::User] {
        if is_word(&found.token, per.name()) {
            return Ok(per);
        }
    }
    Err(Failure::at(format!("Expected: PER ROLE or PER USER, found: {found}"), &found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> PrivacyStatement {
        match crate::parse::parse(text, 10_000) {
            Ok(Statement::Privacy(statement)) => *statement,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn policies_are_read() {
        let text = "CREATE OR REPLACE PRIVACY POLICY P ON Lake.visits (Person_Id) \
                    BUDGET (epsilon = 10, delta = 1e-6) PER ROLE EVERY '30 days' \
                    MAX_EPSILON_PER_QUERY 0.5";
        let PrivacyStatement::Create { table, replace, if_not_exists, unit, policy } = read(text)
        else {
            panic!()
        };
        assert_eq!((table.join("."), replace, if_not_exists), ("lake.visits".into(), true, false));
        assert_eq!((policy.name.as_str(), unit), ("p", Unit::Column("person_id".into())));
        assert_eq!((policy.budget_epsilon, policy.budget_delta), (10.0, 1e-6));
        assert_eq!((policy.per, policy.every_ms), (BudgetPer::Role, Some(2_592_000_000)));
        assert_eq!(policy.epsilon_per_query_max, Some(0.5));
        for (written, expected) in [
            ("subject", Unit::Column("subject".into())),
            ("SUBJECT Person", Unit::Subject("person".into())),
            (
                "Order_id REFERENCES Lake.orders (Id)",
                Unit::Reference {
                    key: "order_id".into(),
                    table: vec!["lake".into(), "orders".into()],
                    column: "id".into(),
                },
            ),
        ] {
            let text =
                format!("CREATE PRIVACY POLICY p ON t ({written}) BUDGET (epsilon = 1) PER USER");
            let PrivacyStatement::Create { unit, policy, .. } = read(&text) else { panic!() };
            assert_eq!((unit, policy.budget_delta), (expected, 0.0));
        }
        let drop = read("DROP PRIVACY POLICY IF EXISTS p ON t");
        assert!(matches!(drop, PrivacyStatement::Drop { if_exists: true, .. }));
        assert_eq!(read("SHOW PRIVACY POLICIES"), PrivacyStatement::Show(None));
        let describe = read("DESCRIBE PRIVACY POLICY p ON t");
        assert!(matches!(describe, PrivacyStatement::Describe { .. }));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, part) in [
            ("CREATE PRIVACY POLICY p ON t (id) BUDGET (delta = 1e-6) PER ROLE", "BUDGET (epsilon"),
            ("CREATE PRIVACY POLICY p ON t (id) BUDGET (epsilon = 1) PER TABLE", "PER ROLE"),
            ("CREATE PRIVACY POLICY p ON t (id) BUDGET (epsilon = 1, rho = 1) PER ROLE", "no rho"),
            (
                "CREATE PRIVACY POLICY p ON t (id) BUDGET (epsilon = 1) PER ROLE EVERY 'x'",
                "30 days",
            ),
            ("CREATE PRIVACY POLICY p ON t (id)", "BUDGET"),
        ] {
            let error = crate::parse::parse(text, 10_000).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains('^'), "{text}: {error}");
        }
    }
}
