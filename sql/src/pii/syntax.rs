//! `CREATE EXTERNAL TABLE … WITH (pii = 'email, phone', pii_key = 'web' [, pii_table = 'who'])`.
//!
//! DataFusion's parser has no WITH of this kind: the clause is taken out of the tokens before it,
//! and its values are put among the statement's options afterwards.

use catalog::{ObjectName, Pii};
use datafusion::sql::parser::Statement as DataFusionStatement;
use sqlparser::ast::Value;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::clause;
use crate::dialect::{AttuneDialect, folded};
use crate::error::{Error, Result};
use crate::parse::Statement;

/// The columns that hold personal identifiers.
const COLUMNS: &str = "pii";
/// The key of their pseudonyms.
const KEY: &str = "pii_key";
/// The restricted table that shows what a pseudonym stands for.
const TABLE: &str = "pii_table";

/// An option as the statement has it.
pub(crate) type Written = (String, Value);

/// Takes the clause out of a CREATE EXTERNAL TABLE's tokens; gives its options, none without a
/// clause.
///
/// # Errors
/// When the clause is no list of options with texts.
pub(crate) fn take(tokens: &mut Vec<TokenWithSpan>) -> Result<Vec<Written>> {
    let is_open = |token: &Token| *token == Token::LParen;
    let Some(start) = clause::place(tokens, "EXTERNAL", "WITH", is_open, None) else {
        return Ok(vec![]);
    };
    clause::take_list(tokens, (start, 1), wrong, |cursor, options: &[Written]| {
        let Some(Token::Word(word)) = cursor.step() else { return Err(wrong()) };
        let name = word.value.to_lowercase();
        if ![COLUMNS, KEY, TABLE].contains(&name.as_str()) {
            return Err(Error::unknown("option of WITH", &name, [COLUMNS, KEY, TABLE]));
        }
        if options.iter().any(|(known, _)| *known == name) {
            return Err(Error::invalid(format!("{name} is given twice")));
        }
        match (cursor.step(), cursor.step()) {
            (Some(Token::Eq), Some(Token::SingleQuotedString(text))) => {
                Ok((name, Value::SingleQuotedString(text.clone())))
            }
            _ => Err(wrong()),
        }
    })
}

/// Puts the options into the statement that they came with.
pub(crate) fn attach(statement: &mut Statement, options: Vec<Written>) {
    if let Statement::DataFusion(statement) = statement
        && let DataFusionStatement::CreateExternalTable(create) = statement.as_mut()
    {
        create.options.extend(options);
    }
}

/// Takes what is kept apart of a table out of its options.
///
/// # Errors
/// When a part is missing or no text, or the columns are no list of names.
pub(crate) fn taken(options: &mut Vec<Written>, table: &ObjectName) -> Result<Option<Pii>> {
    let (columns, key) = (text(options, COLUMNS)?, text(options, KEY)?);
    let beside = text(options, TABLE)?;
    let (columns, key) = match (columns, key) {
        (None, None) if beside.is_none() => return Ok(None),
        (Some(columns), Some(key)) => (columns, key),
        (_, None) => {
            return Err(Error::invalid_hint(
                "WITH (pii = …) names no key",
                "write WITH (pii = 'email, phone', pii_key = 'web'); SHOW KEYS lists them",
            ));
        }
        (None, _) => {
            return Err(Error::invalid_hint(
                "WITH names no columns of personal identifiers",
                "write WITH (pii = 'email, phone', pii_key = 'web')",
            ));
        }
    };
    let pii = Pii {
        columns: names(&columns)?,
        key,
        key_id: None,
        table: beside.unwrap_or_else(|| Pii::table_for(&table.name)),
    };
    pii.check()?;
    if pii.table == table.name {
        return Err(Error::invalid_hint(
            "pii_table names the table itself",
            "leave it out, or name another table for the identifiers",
        ));
    }
    Ok(Some(pii))
}

fn text(options: &mut Vec<Written>, name: &str) -> Result<Option<String>> {
    let Some(at) = options.iter().position(|(key, _)| key.eq_ignore_ascii_case(name)) else {
        return Ok(None);
    };
    match options.remove(at).1 {
        Value::SingleQuotedString(text) => Ok(Some(text)),
        _ => Err(wrong()),
    }
}

/// The names in `email, "E Mail"`, as the catalog spells them.
fn names(text: &str) -> Result<Vec<String>> {
    let read = || -> std::result::Result<_, ParserError> {
        let mut parser = Parser::new(&AttuneDialect).try_with_sql(text)?;
        let names = parser.parse_comma_separated(Parser::parse_identifier)?;
        Ok((names, parser.peek_token_ref().token == Token::EOF))
    };
    match read() {
        Ok((names, true)) => Ok(names.iter().map(folded).collect()),
        _ => Err(Error::invalid_hint(
            format!("pii = '{text}' is no list of columns"),
            "write pii = 'email, phone', and names with other characters in double quotes",
        )),
    }
}

fn wrong() -> Error {
    Error::invalid_hint(
        "WITH takes options with texts in parentheses",
        "write WITH (pii = 'email, phone', pii_key = 'web', pii_table = 'clicks_pii')",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn read(text: &str) -> Result<Option<Pii>> {
        let Statement::DataFusion(statement) = parse(text, 1_000)? else { return Ok(None) };
        let DataFusionStatement::CreateExternalTable(mut create) = *statement else {
            return Ok(None);
        };
        let before = create.options.len();
        let pii = taken(&mut create.options, &ObjectName::new("main", "clicks"))?;
        assert!(pii.is_some() || create.options.len() == before);
        Ok(pii)
    }

    fn with(clause: &str) -> Result<Option<Pii>> {
        read(&format!("CREATE EXTERNAL TABLE clicks STORED AS PARQUET LOCATION 'c/' {clause}"))
    }

    #[test]
    fn what_is_kept_apart_is_read() {
        let pii = with("WITH (pii = 'Email, \"E Mail\"', pii_key = 'web@2')").unwrap().unwrap();
        assert_eq!(pii.columns, ["email", "E Mail"]);
        assert_eq!((pii.key.as_str(), pii.table.as_str()), ("web@2", "clicks_pii"));
        let pii = with("with(PII='a' /* x */ ,pii_table='who',pii_key='k') OPTIONS ('x' 'y')");
        assert_eq!(pii.unwrap().unwrap().table, "who");
        let text = "CREATE OR REPLACE EXTERNAL TABLE t (a INT, b VARCHAR) WITH (pii = 'b', pii_key = 'k') STORED AS CSV LOCATION 'c/'";
        assert_eq!(read(text).unwrap().unwrap().columns, ["b"]);
        assert_eq!(with("").unwrap(), None);
        assert!(parse("WITH c AS (SELECT 1 AS a) SELECT a FROM c", 1_000).is_ok());
    }

    #[test]
    fn anything_else_is_refused() {
        for clause in [
            "WITH (pii = 'email')",
            "WITH (pii_key = 'web')",
            "WITH (pii_table = 'who')",
            "WITH (pii = '', pii_key = 'web')",
            "WITH (pii = 'a b', pii_key = 'web')",
            "WITH (pii = 'a, a', pii_key = 'web')",
            "WITH (pii = email, pii_key = 'web')",
            "WITH (pii 'email', pii_key 'web')",
            "WITH (pii = 'a', pii = 'b', pii_key = 'web')",
            "WITH (pii = 'a', pii_keys = 'web')",
            "WITH (pii = 'a', pii_key = 'web', pii_table = 'clicks')",
            "WITH ()",
            "WITH (pii = 'a'",
        ] {
            assert!(with(clause).is_err(), "{clause}");
        }
    }
}
