//! How users, roles and grants are written: CREATE USER, CREATE ROLE, SHOW GRANTS, SET ROLE; GRANT
//! and REVOKE are beside.

use std::fmt;

use catalog::policy::Privilege;
use datafusion::sql::parser::DFParser;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use crate::access::grant_syntax as grants;
use crate::dialect::{folded, is_word};
use crate::error::Error;
use crate::parse::{Failure, Statement, skip};
pub(super) use crate::words::{expected, name};

/// A statement about users, roles and grants.
#[derive(Debug, Clone, PartialEq)]
pub enum AccessStatement {
    /// `CREATE [OR REPLACE] USER [IF NOT EXISTS] u PASSWORD '…' [ROLE r, …]`.
    CreateUser {
        /// The user.
        name: String,
        /// OR REPLACE.
        replace: bool,
        /// IF NOT EXISTS.
        if_not_exists: bool,
        /// The password.
        password: Password,
        /// The roles; `None` for the usual one.
        roles: Option<Vec<String>>,
    },
    /// `ALTER USER u SET PASSWORD '…'`.
    SetPassword {
        /// The user.
        name: String,
        /// The new password.
        password: Password,
    },
    /// `DROP USER [IF EXISTS] u, …`.
    DropUser {
        /// The users.
        names: Vec<String>,
        /// No error when one is missing.
        if_exists: bool,
    },
    /// `REASSIGN OWNED BY u, … TO v`.
    Reassign {
        /// Who owns tables, views and models.
        from: Vec<String>,
        /// Who is to own them.
        to: String,
    },
    /// `CREATE ROLE [IF NOT EXISTS] r`.
    CreateRole {
        /// The role.
        name: String,
        /// IF NOT EXISTS.
        if_not_exists: bool,
    },
    /// `DROP ROLE [IF EXISTS] r, …`.
    DropRole {
        /// The roles.
        names: Vec<String>,
        /// No error when one is missing.
        if_exists: bool,
    },
    /// `GRANT r TO u` and `REVOKE r FROM u`.
    Roles {
        /// The roles.
        roles: Vec<String>,
        /// Users, or what may be users.
        grantees: Vec<WrittenGrantee>,
        /// REVOKE.
        revoke: bool,
    },
    /// `GRANT SELECT ON t TO r` and `REVOKE SELECT ON t FROM r`.
    Privileges {
        /// Each with the columns in brackets; none for ALL.
        privileges: Vec<(Privilege, Option<Vec<String>>)>,
        /// On what.
        on: Vec<WrittenObject>,
        /// Users, roles, PUBLIC.
        grantees: Vec<WrittenGrantee>,
        /// REVOKE.
        revoke: bool,
    },
    /// `SHOW GRANTS [FOR … | ON …]`.
    ShowGrants(Shown),
    /// `SET ROLE r`; `None` for all that are held.
    SetRole(Option<String>),
}

/// Which grants are shown.
#[derive(Debug, Clone, PartialEq)]
pub enum Shown {
    /// Those that the principal may see.
    All,
    /// Those of one user, role or PUBLIC.
    For(WrittenGrantee),
    /// Those on one object.
    On(WrittenObject),
}

/// Who is named after TO, FROM and FOR.
#[derive(Debug, Clone, PartialEq)]
pub enum WrittenGrantee {
    /// `USER u`.
    User(String),
    /// `ROLE r`.
    Role(String),
    /// A name alone.
    Named(String),
    /// `PUBLIC`.
    Public,
}

/// What is named after ON.
#[derive(Debug, Clone, PartialEq)]
pub enum WrittenObject {
    /// `[TABLE] t`, a table or view.
    Table(Vec<String>),
    /// `ALL TABLES IN SCHEMA s`.
    Tables(String),
    /// `SCHEMA s`.
    Schema(String),
    /// `MODEL m`.
    Model(Vec<String>),
    /// `ALL MODELS IN SCHEMA s`.
    Models(String),
    /// `FUNCTION f`.
    Function(String),
    /// `KEY k`.
    Key(String),
    /// `PURPOSE p`.
    Purpose(String),
}

/// A password on its way to the hasher; nothing prints it.
#[derive(Clone, PartialEq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(…)")
    }
}

/// Whether a statement that begins with these words is read here.
pub(crate) fn is_ours(words: &[&str]) -> bool {
    let begins =
        |pair: &[&str]| matches!(pair, ["create" | "alter" | "drop" | "replace", "user" | "role"]);
    matches!(words, ["explain", rest @ ..] if rest.windows(2).any(begins))
        || matches!(
            words,
            ["explain", "grant" | "revoke" | "reassign", ..]
                | ["reassign", "owned", ..]
                | ["create" | "alter" | "drop", "user" | "role", ..]
                | ["create", "or", "replace", "user", ..]
                | ["grant" | "revoke", ..]
                | ["show", "grants", ..]
                | ["set", "role", ..]
        )
        || later(words).is_some()
}

/// What comes with policies.
fn later(words: &[&str]) -> Option<&'static str> {
    let words = match words {
        ["create", "or", "replace", rest @ ..] | ["create" | "drop", rest @ ..] => rest,
        _ => return None,
    };
    match words {
        ["privacy", "policy", ..] => Some("privacy policies are not there yet"),
        _ => None,
    }
}

pub(super) const USE_GRANTS: &str =
    "grant tables and columns, or a view without what must not be seen";

/// Reads a statement that [`is_ours`].
pub(crate) fn parse(parser: &mut DFParser<'_>, words: &[&str]) -> Result<Statement, Failure> {
    if let Some(what) = later(words) {
        while parser.parser.next_token().token != Token::EOF {}
        return Ok(Statement::Later(what, USE_GRANTS));
    }
    match words {
        ["explain", ..] => {
            while parser.parser.next_token().token != Token::EOF {}
            Ok(Statement::Later(
                "EXPLAIN shows plans, and this statement has none",
                "run it without EXPLAIN",
            ))
        }
        ["create", "or", ..] => create_user(parser, 4, true),
        ["create", "user", ..] => create_user(parser, 2, false),
        ["alter", "user", ..] => set_password(parser),
        ["alter", ..] => Ok(Statement::Later(
            "ALTER ROLE changes nothing",
            "use GRANT and REVOKE, DROP ROLE and CREATE ROLE",
        )),
        ["drop", what, ..] => {
            skip(parser, 2);
            let parser = &mut parser.parser;
            let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            let names = names(parser)?;
            Ok(access(match *what {
                "user" => AccessStatement::DropUser { names, if_exists },
                _ => AccessStatement::DropRole { names, if_exists },
            }))
        }
        ["create", ..] => {
            skip(parser, 2);
            let parser = &mut parser.parser;
            let if_not_exists =
                parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
            Ok(access(AccessStatement::CreateRole { name: name(parser)?, if_not_exists }))
        }
        ["reassign", ..] => reassign(parser),
        ["show", ..] => show_grants(parser),
        ["set", ..] => set_role(parser),
        [verb, ..] => grants::parse(&mut parser.parser, *verb == "revoke"),
        [] => Err(expected("a statement", parser.parser.peek_token_ref())),
    }
}

pub(super) fn access(statement: AccessStatement) -> Statement {
    Statement::Access(Box::new(statement))
}

fn names(parser: &mut Parser<'_>) -> Result<Vec<String>, Failure> {
    Ok(parser.parse_comma_separated(Parser::parse_identifier)?.iter().map(folded).collect())
}

pub(super) fn skip_word(parser: &mut Parser<'_>, word: &str) -> bool {
    let found = is_word(&parser.peek_token_ref().token, word);
    if found {
        parser.next_token();
    }
    found
}

fn create_user(
    parser: &mut DFParser<'_>,
    words: usize,
    replace: bool,
) -> Result<Statement, Failure> {
    skip(parser, words);
    let parser = &mut parser.parser;
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    if replace && if_not_exists {
        let found = parser.peek_token_ref().clone();
        return Err(Failure::at("OR REPLACE and IF NOT EXISTS exclude each other".into(), &found));
    }
    let name = name(parser)?;
    let password = password(parser)?;
    let roles = match skip_word(parser, "ROLE") {
        true => Some(names(parser)?),
        false => None,
    };
    Ok(access(AccessStatement::CreateUser { name, replace, if_not_exists, password, roles }))
}

fn set_password(parser: &mut DFParser<'_>) -> Result<Statement, Failure> {
    skip(parser, 2);
    let parser = &mut parser.parser;
    let name = name(parser)?;
    skip_word(parser, "SET");
    Ok(access(AccessStatement::SetPassword { name, password: password(parser)? }))
}

fn password(parser: &mut Parser<'_>) -> Result<Password, Failure> {
    skip_word(parser, "WITH");
    let found = parser.next_token();
    if !is_word(&found.token, "PASSWORD") {
        return Err(Failure::at("Expected: PASSWORD".into(), &found));
    }
    let found = parser.next_token();
    match found.token {
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => Ok(Password(text)),
        _ => Err(Failure::at("Expected: the password in single quotes".into(), &found)),
    }
}

fn reassign(parser: &mut DFParser<'_>) -> Result<Statement, Failure> {
    skip(parser, 2);
    let parser = &mut parser.parser;
    if !skip_word(parser, "BY") {
        return Err(expected("BY", parser.peek_token_ref()));
    }
    let from = names(parser)?;
    if !skip_word(parser, "TO") {
        return Err(expected("TO", parser.peek_token_ref()));
    }
    Ok(access(AccessStatement::Reassign { from, to: name(parser)? }))
}

fn show_grants(parser: &mut DFParser<'_>) -> Result<Statement, Failure> {
    skip(parser, 2);
    let parser = &mut parser.parser;
    let shown = if skip_word(parser, "FOR") {
        Shown::For(grants::grantee(parser)?)
    } else if skip_word(parser, "ON") {
        Shown::On(grants::object(parser)?)
    } else {
        Shown::All
    };
    Ok(access(AccessStatement::ShowGrants(shown)))
}

fn set_role(parser: &mut DFParser<'_>) -> Result<Statement, Failure> {
    skip(parser, 2);
    let parser = &mut parser.parser;
    let every = ["NONE", "ALL", "DEFAULT"];
    let found = parser.peek_token_ref().token.clone();
    if every.iter().any(|word| is_word(&found, word)) {
        parser.next_token();
        return Ok(access(AccessStatement::SetRole(None)));
    }
    // `SET role = 'r'` is the setting.
    let _ = parser.consume_token(&Token::Eq) || skip_word(parser, "TO");
    let role = name(parser)?;
    Ok(access(AccessStatement::SetRole((!role.is_empty()).then_some(role))))
}

/// Whether a text that cannot be read may hold a password, which no error shows.
pub(crate) fn may_hold_password(text: &str) -> bool {
    let mut before = "";
    for word in text.split(|c: char| !c.is_alphanumeric() && c != '_') {
        if word.eq_ignore_ascii_case("user")
            && ["create", "replace", "alter"].iter().any(|verb| before.eq_ignore_ascii_case(verb))
        {
            return true;
        }
        if !word.is_empty() {
            before = word;
        }
    }
    false
}

/// The error of such a text: where, not what.
pub(crate) fn unreadable(place: Option<(u64, u64)>) -> Error {
    let excerpt = place.map(|(line, column)| format!("\nline {line}, column {column}"));
    Error::Syntax {
        message: "this statement about a user cannot be read; it is not shown, because it may \
                  hold a password"
            .into(),
        excerpt: excerpt.unwrap_or_default(),
        hint: Some(
            "write CREATE USER name PASSWORD '…' [ROLE r, …], or ALTER USER name SET PASSWORD '…'"
                .into(),
        ),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn read(text: &str) -> AccessStatement {
        match crate::parse::parse(text, 1_000) {
            Ok(Statement::Access(statement)) => *statement,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn users_are_read_and_their_passwords_not_shown() {
        let text =
            "CREATE USER IF NOT EXISTS Ann WITH PASSWORD 'it''s a secret' ROLE analyst, \"R 2\"";
        let statement = read(text);
        assert!(!format!("{statement:?}").contains("secret"));
        let AccessStatement::CreateUser { name, password, roles, if_not_exists, .. } = statement
        else {
            panic!("no user")
        };
        assert_eq!((name.as_str(), password.0.as_str()), ("ann", "it's a secret"));
        assert_eq!(roles.unwrap(), ["analyst", "R 2"]);
        assert!(if_not_exists);
        for text in [
            "CREATE USER ann PASSWORD 'secret' ROLEE x",
            "CREATE USER ann 'secret'",
            "CREATE USER ann PASSWORD 'secret",
            "ALTER USER ann SET PASSWORD \"secret\"",
            "EXPLAIN (ANALYZE) CREATE USER ann PASSWORD 'secret'",
        ] {
            let error = crate::parse::parse(text, 1_000).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{text}: {error}");
            assert!(!format!("{:?}", error.hint()).contains("secret"), "{text}");
        }
    }

    #[test]
    fn what_users_own_is_reassigned() {
        let expected =
            AccessStatement::Reassign { from: vec!["ann".into(), "Bob".into()], to: "eve".into() };
        assert_eq!(read("REASSIGN OWNED BY Ann, \"Bob\" TO eve"), expected);
        for text in ["REASSIGN OWNED ann TO eve", "REASSIGN OWNED BY ann"] {
            assert_eq!(crate::parse::parse(text, 1_000).unwrap_err().code(), "ATT-1001", "{text}");
        }
    }

    #[test]
    fn a_role_is_taken_and_given_back() {
        assert_eq!(read("SET ROLE Analyst"), AccessStatement::SetRole(Some("analyst".into())));
        assert_eq!(read("SET ROLE NONE"), AccessStatement::SetRole(None));
        assert_eq!(read("SET role = 'x'"), AccessStatement::SetRole(Some("x".into())));
    }
}
