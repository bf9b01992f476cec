//! How policies and tags are written.
//!
//! ```text
//! CREATE [OR REPLACE] MASKING POLICY [IF NOT EXISTS] p ON t (column) USING expression
//! CREATE [OR REPLACE] ROW ACCESS POLICY [IF NOT EXISTS] p ON t USING (condition)
//! CREATE [OR REPLACE] PROJECTION POLICY [IF NOT EXISTS] p ON t (column, …)
//! CREATE [OR REPLACE] AGGREGATION POLICY [IF NOT EXISTS] p ON t [(unit)] MIN_GROUP_SIZE n
//!     … ON TAG 'pii.email' …      in place of ON t (column), for masking and projection
//!     … [EXCEPT ROLE r, …]
//! CREATE [OR REPLACE] RETENTION POLICY [IF NOT EXISTS] p ON t (time_column)
//!     KEEP '400 days' [OR NULL]
//! ALTER [kind] POLICY p ON t SET USING expression | SET MIN_GROUP_SIZE n | SET EXCEPT ROLE r, …
//!     | SET EXCEPT NONE | SET KEEP '400 days' [OR NULL]
//! DROP [kind] POLICY [IF EXISTS] p ON t
//! SHOW [RETENTION] POLICIES [ON t]      DESCRIBE [kind] POLICY p ON t
//! [EXPLAIN] APPLY RETENTION POLICY p ON t      [EXPLAIN] APPLY RETENTION POLICIES [ON t]
//! ALTER TABLE t ALTER [COLUMN] c SET TAG 'pii.email' | UNSET TAG 'pii.email'
//! DECLASSIFY CREATE TABLE … AS SELECT … | DECLASSIFY INSERT INTO … SELECT …
//! ```

use datafusion::sql::parser::{DFParser, Statement as DataFusionStatement};
use sqlparser::ast::Expr;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use crate::dialect::{folded, is_word};
use crate::parse::{Failure, Statement, name_parts, skip};
use crate::tokens::{LENGTHS, length_ms};

/// A statement about policies or tags.
#[derive(Debug, Clone, PartialEq)]
pub enum PolicyStatement {
    /// CREATE … POLICY.
    Create(Box<CreatePolicy>),
    /// ALTER … POLICY.
    Alter {
        /// The kind, where it was written.
        kind: Option<PolicyKind>,
        /// The policy.
        name: String,
        /// What it is on.
        on: WrittenOn,
        /// What changes.
        change: Alteration,
    },
    /// DROP … POLICY.
    Drop {
        /// The kind, where it was written.
        kind: Option<PolicyKind>,
        /// The policy.
        name: String,
        /// What it is on.
        on: WrittenOn,
        /// No error when it is missing.
        if_exists: bool,
    },
    /// SHOW POLICIES.
    Show(Option<WrittenOn>),
    /// SHOW RETENTION POLICIES.
    ShowRetention(Option<WrittenOn>),
    /// `[EXPLAIN] APPLY RETENTION POLICY p ON t`, `… POLICIES [ON t]`.
    Apply {
        /// The policy; none: all of them.
        policy: Option<String>,
        /// The table; none: every one that has such policies.
        on: Option<WrittenOn>,
        /// EXPLAIN.
        explain: bool,
    },
    /// DESCRIBE POLICY.
    Describe {
        /// The kind, where it was written.
        kind: Option<PolicyKind>,
        /// The policy.
        name: String,
        /// What it is on.
        on: WrittenOn,
    },
    /// ALTER TABLE … SET TAG, UNSET TAG.
    Tag {
        /// The table, as written.
        table: Vec<String>,
        /// The column.
        column: String,
        /// The tag.
        tag: String,
        /// SET.
        set: bool,
    },
    /// DECLASSIFY: the copy that a statement makes carries no policies.
    Declassify(Box<DataFusionStatement>),
}

/// CREATE … POLICY.
#[derive(Debug, Clone, PartialEq)]
pub struct CreatePolicy {
    /// Its name, one among those of its table or tag.
    pub name: String,
    /// OR REPLACE.
    pub replace: bool,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// What it is on.
    pub on: WrittenOn,
    /// The columns in brackets.
    pub columns: Vec<String>,
    /// What it does.
    pub body: Body,
    /// EXCEPT ROLE.
    pub except: Vec<String>,
}

/// What a policy does, as written.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// USING an expression in place of a column.
    Masking(Expr),
    /// USING a condition on rows.
    RowAccess(Expr),
    /// Nothing more than its columns.
    Projection,
    /// The smallest group.
    Aggregation(u64),
    /// How long rows are there.
    Retention(Length),
}

/// How long rows are kept, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Length {
    /// The words.
    pub words: String,
    /// The same in milliseconds.
    pub ms: i64,
    /// OR NULL: rows without a time are kept.
    pub or_null: bool,
}

/// The kinds of policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKind {
    /// MASKING.
    Masking,
    /// ROW ACCESS.
    RowAccess,
    /// PROJECTION.
    Projection,
    /// AGGREGATION.
    Aggregation,
    /// RETENTION.
    Retention,
}

impl PolicyKind {
    /// The kind's words, as the catalog has them.
    pub fn name(self) -> &'static str {
        match self {
            Self::Masking => "masking",
            Self::RowAccess => "row access",
            Self::Projection => "projection",
            Self::Aggregation => "aggregation",
            Self::Retention => "retention",
        }
    }
}

/// What a policy is on, as written.
#[derive(Debug, Clone, PartialEq)]
pub enum WrittenOn {
    /// A table.
    Table(Vec<String>),
    /// A tag.
    Tag(String),
}

/// What ALTER POLICY changes.
#[derive(Debug, Clone, PartialEq)]
pub enum Alteration {
    /// The expression.
    Using(Box<Expr>),
    /// The roles that it does not bind.
    Except(Vec<String>),
    /// The smallest group.
    MinGroupSize(u64),
    /// How long rows are there.
    Keep(Length),
}

/// The kinds that one word names.
const KINDS: [&str; 4] = ["masking", "projection", "aggregation", "retention"];

/// Whether a statement that begins with these words is read here.
pub(crate) fn is_ours(words: &[&str]) -> bool {
    match words {
        ["declassify", ..] => true,
        ["show", "policies", ..]
        | ["show", "retention", "policies", ..]
        | ["apply", "retention", ..]
        | ["explain", "apply", "retention", ..]
        | ["describe" | "desc", "policy", ..]
        | ["describe" | "desc", "row", "access", "policy", ..] => true,
        // A table may be called as a kind is.
        ["describe" | "desc", kind, "policy", ..] => KINDS.contains(kind),
        ["create", "or", "replace", rest @ ..] | ["create" | "alter" | "drop", rest @ ..] => {
            match rest {
                ["policy", ..] | ["row", "access", ..] => true,
                [kind, ..] => KINDS.contains(kind),
                [] => false,
            }
        }
        _ => false,
    }
}

/// Whether ALTER TABLE is about a tag; such a statement is short.
pub(crate) fn is_of_tag(parser: &DFParser<'_>) -> bool {
    const TOKENS_MAX: usize = 20;
    (0..TOKENS_MAX).any(|at| {
        let token = |at| &parser.parser.peek_nth_token_ref(at).token;
        (is_word(token(at), "SET") || is_word(token(at), "UNSET")) && is_word(token(at + 1), "TAG")
    })
}

/// Reads a statement that [`is_ours`] or [`is_of_tag`].
pub(crate) fn parse(parser: &mut DFParser<'_>, words: &[&str]) -> Result<Statement, Failure> {
    if words.first() == Some(&"declassify") {
        skip(parser, 1);
        let statement = parser.parse_statement()?;
        return Ok(policy(PolicyStatement::Declassify(Box::new(statement))));
    }
    let parser = &mut parser.parser;
    let statement = match words {
        ["create", ..] => create(parser)?,
        ["alter", "table", ..] => tag(parser)?,
        ["alter", ..] => alter(parser)?,
        ["drop", ..] => {
            parser.next_token();
            let kind = kind(parser)?;
            let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            let (name, on) = named(parser)?;
            PolicyStatement::Drop { kind, name, on, if_exists }
        }
        ["show", ..] => {
            parser.next_token();
            let of_retention = taken(parser, "RETENTION");
            parser.next_token();
            let on = perhaps_on(parser)?;
            match of_retention {
                true => PolicyStatement::ShowRetention(on),
                false => PolicyStatement::Show(on),
            }
        }
        ["apply" | "explain", ..] => apply(parser)?,
        _ => {
            parser.next_token();
            let kind = kind(parser)?;
            let (name, on) = named(parser)?;
            PolicyStatement::Describe { kind, name, on }
        }
    };
    Ok(policy(statement))
}

fn policy(statement: PolicyStatement) -> Statement {
    Statement::Policy(Box::new(statement))
}

fn taken(parser: &mut Parser<'_>, word: &str) -> bool {
    let found = is_word(&parser.peek_token_ref().token, word);
    if found {
        parser.next_token();
    }
    found
}

fn expect(parser: &mut Parser<'_>, word: &str) -> Result<(), Failure> {
    match taken(parser, word) {
        true => Ok(()),
        false => Err(expected(parser, word)),
    }
}

fn expected(parser: &Parser<'_>, what: &str) -> Failure {
    let found = parser.peek_token_ref();
    Failure::at(format!("Expected: {what}, found: {found}"), found)
}

/// `MASKING POLICY`, …, or `POLICY` alone.
fn kind(parser: &mut Parser<'_>) -> Result<Option<PolicyKind>, Failure> {
    let kind = if taken(parser, "MASKING") {
        Some(PolicyKind::Masking)
    } else if taken(parser, "ROW") {
        expect(parser, "ACCESS")?;
        Some(PolicyKind::RowAccess)
    } else if taken(parser, "PROJECTION") {
        Some(PolicyKind::Projection)
    } else if taken(parser, "AGGREGATION") {
        Some(PolicyKind::Aggregation)
    } else if taken(parser, "RETENTION") {
        Some(PolicyKind::Retention)
    } else {
        None
    };
    expect(parser, "POLICY")?;
    Ok(kind)
}

fn create(parser: &mut Parser<'_>) -> Result<PolicyStatement, Failure> {
    parser.expect_keyword(Keyword::CREATE)?;
    let replace = parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]);
    let Some(kind) = kind(parser)? else {
        let kinds = "MASKING, ROW ACCESS, PROJECTION, AGGREGATION or RETENTION POLICY";
        return Err(expected(parser, kinds));
    };
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    if replace && if_not_exists {
        let found = parser.peek_token_ref();
        return Err(Failure::at("OR REPLACE and IF NOT EXISTS exclude each other".into(), found));
    }
    let (name, on) = named(parser)?;
    let columns = match parser.consume_token(&Token::LParen) {
        true => {
            let columns = parser.parse_comma_separated(Parser::parse_identifier)?;
            parser.expect_token(&Token::RParen)?;
            columns.iter().map(folded).collect()
        }
        false => Vec::new(),
    };
    let body = match kind {
        PolicyKind::Masking => {
            expect(parser, "USING")?;
            Body::Masking(parser.parse_expr()?)
        }
        PolicyKind::RowAccess => {
            expect(parser, "USING")?;
            Body::RowAccess(parser.parse_expr()?)
        }
        PolicyKind::Projection => Body::Projection,
        PolicyKind::Aggregation => {
            expect(parser, "MIN_GROUP_SIZE")?;
            Body::Aggregation(parser.parse_literal_uint()?)
        }
        PolicyKind::Retention => {
            expect(parser, "KEEP")?;
            Body::Retention(length(parser)?)
        }
    };
    let except = except(parser)?;
    Ok(PolicyStatement::Create(Box::new(CreatePolicy {
        name,
        replace,
        if_not_exists,
        on,
        columns,
        body,
        except,
    })))
}

/// `'400 days' [OR NULL]`.
fn length(parser: &mut Parser<'_>) -> Result<Length, Failure> {
    let found = parser.peek_token_ref().clone();
    let words = parser.parse_literal_string()?;
    let wrong = || format!("KEEP '{words}' is no time: {LENGTHS}, as in KEEP '400 days'");
    let ms = length_ms(&words).ok_or_else(|| Failure::at(wrong(), &found))?;
    let or_null = parser.parse_keywords(&[Keyword::OR, Keyword::NULL]);
    Ok(Length { words, ms, or_null })
}

/// `[EXPLAIN] APPLY RETENTION POLICY p ON t`, `… POLICIES [ON t]`.
fn apply(parser: &mut Parser<'_>) -> Result<PolicyStatement, Failure> {
    let explain = taken(parser, "EXPLAIN");
    expect(parser, "APPLY")?;
    expect(parser, "RETENTION")?;
    if taken(parser, "POLICIES") {
        return Ok(PolicyStatement::Apply { policy: None, on: perhaps_on(parser)?, explain });
    }
    expect(parser, "POLICY")?;
    let (name, on) = named(parser)?;
    Ok(PolicyStatement::Apply { policy: Some(name), on: Some(on), explain })
}

/// `[ON t]`.
fn perhaps_on(parser: &mut Parser<'_>) -> Result<Option<WrittenOn>, Failure> {
    match parser.parse_keyword(Keyword::ON) {
        true => written_on(parser).map(Some),
        false => Ok(None),
    }
}

/// `[EXCEPT ROLE r, …]`.
fn except(parser: &mut Parser<'_>) -> Result<Vec<String>, Failure> {
    match parser.parse_keyword(Keyword::EXCEPT) {
        true => roles(parser),
        false => Ok(Vec::new()),
    }
}

/// `ROLE r, …`; ROLE may be said again before each.
fn roles(parser: &mut Parser<'_>) -> Result<Vec<String>, Failure> {
    expect(parser, "ROLE")?;
    let mut roles = Vec::new();
    loop {
        roles.push(folded(&parser.parse_identifier()?));
        if !parser.consume_token(&Token::Comma) {
            return Ok(roles);
        }
        taken(parser, "ROLE");
    }
}

fn alter(parser: &mut Parser<'_>) -> Result<PolicyStatement, Failure> {
    parser.next_token();
    let kind = kind(parser)?;
    let (name, on) = named(parser)?;
    parser.expect_keyword(Keyword::SET)?;
    let change = if taken(parser, "USING") {
        Alteration::Using(Box::new(parser.parse_expr()?))
    } else if taken(parser, "MIN_GROUP_SIZE") {
        Alteration::MinGroupSize(parser.parse_literal_uint()?)
    } else if taken(parser, "KEEP") {
        Alteration::Keep(length(parser)?)
    } else if parser.parse_keyword(Keyword::EXCEPT) {
        match taken(parser, "NONE") {
            true => Alteration::Except(Vec::new()),
            false => Alteration::Except(roles(parser)?),
        }
    } else {
        return Err(expected(parser, "USING, EXCEPT ROLE, EXCEPT NONE, MIN_GROUP_SIZE or KEEP"));
    };
    Ok(PolicyStatement::Alter { kind, name, on, change })
}

fn tag(parser: &mut Parser<'_>) -> Result<PolicyStatement, Failure> {
    parser.next_token();
    parser.next_token();
    let table = name_parts(&parser.parse_object_name(false)?);
    expect(parser, "ALTER")?;
    taken(parser, "COLUMN");
    let column = folded(&parser.parse_identifier()?);
    let set = taken(parser, "SET");
    if !set {
        expect(parser, "UNSET")?;
    }
    expect(parser, "TAG")?;
    let tag = parser.parse_literal_string()?;
    Ok(PolicyStatement::Tag { table, column, tag, set })
}

/// `p ON t`, `p ON TAG '…'`.
fn named(parser: &mut Parser<'_>) -> Result<(String, WrittenOn), Failure> {
    let name = folded(&parser.parse_identifier()?);
    parser.expect_keyword(Keyword::ON)?;
    Ok((name, written_on(parser)?))
}

/// A table, or `TAG` and a text; a table may be called tag.
fn written_on(parser: &mut Parser<'_>) -> Result<WrittenOn, Failure> {
    let is_text = matches!(parser.peek_nth_token_ref(1).token, Token::SingleQuotedString(_));
    if is_word(&parser.peek_token_ref().token, "TAG") && is_text {
        parser.next_token();
        return Ok(WrittenOn::Tag(parser.parse_literal_string()?));
    }
    Ok(WrittenOn::Table(name_parts(&parser.parse_object_name(false)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> PolicyStatement {
        match crate::parse::parse(text, 1_000) {
            Ok(Statement::Policy(statement)) => *statement,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn created(text: &str) -> CreatePolicy {
        match read(text) {
            PolicyStatement::Create(created) => *created,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn each_kind_is_read() {
        let mask = created(
            "CREATE OR REPLACE MASKING POLICY Hide ON main.Orders (Mail) \
             USING mask_email(mail) EXCEPT ROLE auditor, ROLE policy_admin;",
        );
        assert_eq!((mask.name.as_str(), mask.replace), ("hide", true));
        assert_eq!(mask.on, WrittenOn::Table(vec!["main".into(), "orders".into()]));
        assert_eq!((mask.columns, mask.except.len()), (vec!["mail".to_owned()], 2));
        let rows = created("CREATE ROW ACCESS POLICY r ON t USING (region = current_user())");
        assert!(matches!(rows.body, Body::RowAccess(_)) && rows.except.is_empty());
        let shown = created("CREATE PROJECTION POLICY IF NOT EXISTS p ON TAG 'pii.email'");
        assert_eq!(shown.on, WrittenOn::Tag("pii.email".into()));
        assert!(shown.if_not_exists && shown.body == Body::Projection);
        let groups = created("create aggregation policy a on tag (person) min_group_size 5");
        assert_eq!(groups.body, Body::Aggregation(5));
        assert_eq!(groups.on, WrittenOn::Table(vec!["tag".into()]));
    }

    #[test]
    fn the_other_statements_are_read() {
        let on = WrittenOn::Table(vec!["t".into()]);
        assert_eq!(read("SHOW POLICIES"), PolicyStatement::Show(None));
        assert_eq!(read("show policies on t"), PolicyStatement::Show(Some(on.clone())));
        let name = "p".to_owned();
        assert_eq!(
            read("DROP ROW ACCESS POLICY IF EXISTS p ON t"),
            PolicyStatement::Drop {
                kind: Some(PolicyKind::RowAccess),
                name: name.clone(),
                on: on.clone(),
                if_exists: true
            }
        );
        assert_eq!(
            read("ALTER POLICY p ON t SET EXCEPT NONE"),
            PolicyStatement::Alter {
                kind: None,
                name: name.clone(),
                on: on.clone(),
                change: Alteration::Except(vec![])
            }
        );
        let (kind, of_kind) = (None, Some(PolicyKind::RowAccess));
        let described =
            PolicyStatement::Describe { kind: of_kind, name: name.clone(), on: on.clone() };
        assert_eq!(read("DESCRIBE ROW ACCESS POLICY p ON t"), described);
        assert_eq!(read("DESC POLICY p ON t"), PolicyStatement::Describe { kind, name, on });
        assert_eq!(
            read("ALTER TABLE main.t ALTER COLUMN c SET TAG 'pii.email'"),
            PolicyStatement::Tag {
                table: vec!["main".into(), "t".into()],
                column: "c".into(),
                tag: "pii.email".into(),
                set: true
            }
        );
        let copy = read("DECLASSIFY CREATE TABLE c AS SELECT * FROM t");
        assert!(matches!(copy, PolicyStatement::Declassify(_)));
    }

    #[test]
    fn retention_has_a_length_and_is_applied() {
        let on = Some(WrittenOn::Table(vec!["main".into(), "t".into()]));
        let made = created("CREATE OR REPLACE RETENTION POLICY p ON main.t (At) KEEP '2 weeks'");
        assert_eq!((Some(made.on), made.columns), (on.clone(), vec!["at".to_owned()]));
        let two_weeks = Length { words: "2 weeks".into(), ms: 14 * 86_400_000, or_null: false };
        assert_eq!(made.body, Body::Retention(two_weeks.clone()));
        let altered = read("ALTER RETENTION POLICY p ON main.t SET KEEP '2 weeks' OR NULL");
        let change = Alteration::Keep(Length { or_null: true, ..two_weeks });
        let (name, kind) = ("p".to_owned(), Some(PolicyKind::Retention));
        let (on_table, policy) = (on.clone().unwrap(), Some(name.clone()));
        let expected = PolicyStatement::Alter { kind, name, on: on_table, change };
        assert_eq!(altered, expected);
        for (text, policy, on, explain) in [
            ("APPLY RETENTION POLICY p ON main.t", policy.clone(), on.clone(), false),
            ("apply retention policies", None, None, false),
            ("EXPLAIN APPLY RETENTION POLICIES ON main.t;", None, on.clone(), true),
            ("EXPLAIN APPLY RETENTION POLICY p ON main.t", policy, on.clone(), true),
        ] {
            assert_eq!(read(text), PolicyStatement::Apply { policy, on, explain }, "{text}");
        }
        assert_eq!(read("SHOW RETENTION POLICIES"), PolicyStatement::ShowRetention(None));
        let shown = read("SHOW RETENTION POLICIES ON main.t");
        assert_eq!(shown, PolicyStatement::ShowRetention(on));
    }

    #[test]
    fn wrong_words_are_told() {
        for text in [
            "CREATE POLICY p ON t (c) USING NULL",
            "CREATE MASKING POLICY p ON t (c)",
            "CREATE AGGREGATION POLICY p ON t",
            "CREATE MASKING POLICY p USING NULL",
            "CREATE OR REPLACE PROJECTION POLICY IF NOT EXISTS p ON t (c)",
            "CREATE PROJECTION POLICY p ON t (c) EXCEPT auditor",
            "ALTER POLICY p ON t SET (a = 1)",
            "ALTER TABLE t ALTER COLUMN c SET TAG 1",
            "CREATE RETENTION POLICY p ON t (at) KEEP 400 days",
            "CREATE RETENTION POLICY p ON t (at) KEEP 'a while'",
            "CREATE RETENTION POLICY p ON t (at) KEEP '0 days'",
            "APPLY RETENTION POLICY p",
            "APPLY RETENTION ON t",
        ] {
            let error = crate::parse::parse(text, 1_000).unwrap_err();
            assert_eq!(error.code(), "ATT-1001", "{text}");
        }
    }
}
