//! How purposes and consent policies are written.
//!
//! ```text
//! CREATE [OR REPLACE] PURPOSE [IF NOT EXISTS] p [DESCRIPTION '…'] [SELLS OR SHARES]
//! ALTER PURPOSE p SET DESCRIPTION '…' | SET SELLS OR SHARES | UNSET SELLS OR SHARES
//! DROP PURPOSE [IF EXISTS] p
//! SHOW PURPOSES      DESCRIBE PURPOSE p      ALTER USER u SET DEFAULT PURPOSE p | NONE
//! CREATE [OR REPLACE] CONSENT POLICY [IF NOT EXISTS] p ON t (subject_column)
//!     USING consents (subject, purpose, granted [, valid_from [, valid_to]] [, channel])
//!     FOR PURPOSE a [, b] [CHANNEL 'c' [, 'd']] [DEFAULT ALLOW | DENY]
//! ALTER CONSENT POLICY p SET PURPOSE a [, b] | SET CHANNEL 'c' [, 'd'] | NONE
//!     | SET DEFAULT ALLOW | DENY
//! DROP CONSENT POLICY [IF EXISTS] p [ON t]
//! SHOW CONSENT POLICIES [ON t]      DESCRIBE CONSENT POLICY p
//! RECORD CONSENT …: see [`super::record`]
//! ```

use datafusion::sql::parser::DFParser;
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::record::{self, RecordConsent};
use crate::dialect::{folded, is_word};
use crate::parse::{Failure, Statement, parse_create_noun, skip};
use crate::words::{expected, name, table, word};

/// Columns of consents that must be named: subject, purpose, granted.
pub(super) const COLUMNS_MIN: usize = 3;
/// With valid_from, valid_to and channel.
const COLUMNS_MAX: usize = 6;

/// A statement about purposes and consent.
#[derive(Debug, Clone, PartialEq)]
pub enum ConsentStatement {
    /// CREATE PURPOSE.
    CreatePurpose {
        /// Its name.
        name: String,
        /// OR REPLACE.
        replace: bool,
        /// IF NOT EXISTS.
        if_not_exists: bool,
        /// What it is for.
        description: Option<String>,
        /// SELLS OR SHARES.
        sells_or_shares: bool,
    },
    /// ALTER PURPOSE.
    AlterPurpose {
        /// Its name.
        name: String,
        /// What changes.
        alteration: PurposeAlteration,
    },
    /// DROP PURPOSE [IF EXISTS] p.
    DropPurpose {
        /// Its name.
        name: String,
        /// No error when it is missing.
        if_exists: bool,
    },
    /// SHOW PURPOSES.
    ShowPurposes,
    /// DESCRIBE PURPOSE p.
    DescribePurpose {
        /// Its name.
        name: String,
    },
    /// ALTER USER u SET DEFAULT PURPOSE p; `None` for NONE.
    DefaultPurpose {
        /// The user.
        user: String,
        /// The purpose.
        purpose: Option<String>,
    },
    /// CREATE CONSENT POLICY.
    CreatePolicy(Box<CreatePolicy>),
    /// ALTER CONSENT POLICY.
    AlterPolicy {
        /// The policy.
        name: String,
        /// What changes.
        alteration: WrittenAlteration,
    },
    /// DROP CONSENT POLICY [IF EXISTS] p [ON t].
    DropPolicy {
        /// The policy.
        name: String,
        /// The table that it must be one of, as written.
        table: Option<Vec<String>>,
        /// No error when it is missing.
        if_exists: bool,
    },
    /// SHOW CONSENT POLICIES [ON t].
    ShowPolicies {
        /// Those of one table, as written.
        table: Option<Vec<String>>,
    },
    /// DESCRIBE CONSENT POLICY p.
    DescribePolicy {
        /// The policy.
        name: String,
    },
    /// RECORD CONSENT.
    Record(RecordConsent),
}

/// CREATE CONSENT POLICY.
#[derive(Debug, Clone, PartialEq)]
pub struct CreatePolicy {
    /// Its name.
    pub name: String,
    /// OR REPLACE.
    pub replace: bool,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// The governed table, as written.
    pub table: Vec<String>,
    /// Its column of persons.
    pub subject: String,
    /// The table or view of consents, as written.
    pub consents: Vec<String>,
    /// Its columns: subject, purpose, granted, and up to three more.
    pub columns: Vec<String>,
    /// For what.
    pub purposes: Vec<String>,
    /// The channels for which it is read one by one.
    pub channels: Vec<String>,
    /// DEFAULT ALLOW.
    pub default_allow: bool,
}

/// What ALTER PURPOSE sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurposeAlteration {
    /// SET DESCRIPTION '…'; NULL for none.
    Description(Option<String>),
    /// SET SELLS OR SHARES, or UNSET.
    SellsOrShares(bool),
}

/// What ALTER CONSENT POLICY sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrittenAlteration {
    /// SET PURPOSE a, b.
    Purposes(Vec<String>),
    /// SET CHANNEL 'c', 'd'; none of them for NONE.
    Channels(Vec<String>),
    /// SET DEFAULT ALLOW, or DENY.
    DefaultAllow(bool),
}

/// Whether a statement that begins with these words is one of these.
pub(crate) fn is_ours(parser: &DFParser<'_>, words: &[&str]) -> bool {
    let token = |n: usize| &parser.parser.peek_nth_token_ref(n).token;
    let is_named = |n: usize| !matches!(token(n), Token::EOF | Token::SemiColon | Token::Period);
    match words {
        ["create" | "alter" | "drop", "purpose", ..]
        | ["create", "or", "replace", "purpose", ..]
        | ["create" | "alter" | "drop", "consent", "policy", ..]
        | ["create", "or", "replace", "consent", "policy", ..]
        | ["record", "consent", ..]
        | ["show", "purposes"]
        | ["show", "consent", "policies", ..]
        | ["explain", "create" | "alter" | "drop", "purpose" | "consent", ..] => true,
        // `DESCRIBE purpose` is of a table.
        ["describe" | "desc", "purpose", ..] => is_named(2),
        ["describe" | "desc", "consent", "policy", ..] => is_named(3),
        ["alter", "user", ..] => {
            is_word(token(3), "SET") && is_word(token(4), "DEFAULT") && is_word(token(5), "PURPOSE")
        }
        _ => false,
    }
}

/// Parses a statement for which [`is_ours`] holds.
pub(crate) fn parse(parser: &mut DFParser<'_>, words: &[&str]) -> Result<Statement, Failure> {
    let statement = match words {
        ["explain", ..] => {
            while parser.parser.next_token().token != Token::EOF {}
            return Ok(Statement::Later(
                "EXPLAIN shows plans, and this statement has none",
                "run it without EXPLAIN",
            ));
        }
        ["create", "purpose", ..] | ["create", "or", "replace", "purpose", ..] => {
            create_purpose(&mut parser.parser)?
        }
        ["create", ..] => {
            ConsentStatement::CreatePolicy(Box::new(create_policy(&mut parser.parser)?))
        }
        ["alter", "user", ..] => {
            skip(parser, 2);
            default_purpose(&mut parser.parser)?
        }
        ["alter", "purpose", ..] => {
            skip(parser, 2);
            let name = name(&mut parser.parser)?;
            let alteration = purpose_alteration(&mut parser.parser)?;
            ConsentStatement::AlterPurpose { name, alteration }
        }
        ["alter", ..] => {
            skip(parser, 3);
            let name = name(&mut parser.parser)?;
            ConsentStatement::AlterPolicy { name, alteration: alteration(&mut parser.parser)? }
        }
        ["drop", "purpose", ..] => {
            skip(parser, 2);
            let if_exists = parser.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            ConsentStatement::DropPurpose { name: name(&mut parser.parser)?, if_exists }
        }
        ["drop", ..] => {
            skip(parser, 3);
            let if_exists = parser.parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            let name = name(&mut parser.parser)?;
            ConsentStatement::DropPolicy { name, table: on(&mut parser.parser)?, if_exists }
        }
        ["record", ..] => {
            skip(parser, 2);
            ConsentStatement::Record(record::parse(&mut parser.parser)?)
        }
        ["show", "purposes"] => {
            skip(parser, 2);
            ConsentStatement::ShowPurposes
        }
        ["show", ..] => {
            skip(parser, 3);
            ConsentStatement::ShowPolicies { table: on(&mut parser.parser)? }
        }
        [_, "purpose", ..] => {
            skip(parser, 2);
            ConsentStatement::DescribePurpose { name: name(&mut parser.parser)? }
        }
        _ => {
            skip(parser, 3);
            ConsentStatement::DescribePolicy { name: name(&mut parser.parser)? }
        }
    };
    Ok(Statement::Consent(Box::new(statement)))
}

/// `[ON t]`.
fn on(parser: &mut Parser<'_>) -> Result<Option<Vec<String>>, Failure> {
    match parser.parse_keyword(Keyword::ON) {
        true => Ok(Some(table(parser)?)),
        false => Ok(None),
    }
}

fn names(parser: &mut Parser<'_>) -> Result<Vec<String>, Failure> {
    Ok(parser.parse_comma_separated(Parser::parse_identifier)?.iter().map(folded).collect())
}

fn create_purpose(parser: &mut Parser<'_>) -> Result<ConsentStatement, Failure> {
    let (replace, if_not_exists) = parse_create_noun(parser)?;
    let name = name(parser)?;
    let description = match is_word(&parser.peek_token_ref().token, "DESCRIPTION") {
        true => {
            parser.next_token();
            Some(parser.parse_literal_string()?)
        }
        false => None,
    };
    let sells_or_shares = is_word(&parser.peek_token_ref().token, "SELLS");
    if sells_or_shares {
        sells_or_shares_words(parser)?;
    }
    Ok(ConsentStatement::CreatePurpose {
        name,
        replace,
        if_not_exists,
        description,
        sells_or_shares,
    })
}

/// SELLS OR SHARES.
fn sells_or_shares_words(parser: &mut Parser<'_>) -> Result<(), Failure> {
    for wanted in ["SELLS", "OR", "SHARES"] {
        word(parser, wanted)?;
    }
    Ok(())
}

/// Behind ALTER PURPOSE p.
fn purpose_alteration(parser: &mut Parser<'_>) -> Result<PurposeAlteration, Failure> {
    let found = parser.next_token();
    if is_word(&found.token, "UNSET") {
        sells_or_shares_words(parser)?;
        return Ok(PurposeAlteration::SellsOrShares(false));
    }
    let what = parser.peek_token_ref().clone();
    match is_word(&found.token, "SET") {
        true if is_word(&what.token, "SELLS") => {
            sells_or_shares_words(parser)?;
            Ok(PurposeAlteration::SellsOrShares(true))
        }
        true if is_word(&what.token, "DESCRIPTION") => {
            parser.next_token();
            Ok(PurposeAlteration::Description(match parser.parse_keyword(Keyword::NULL) {
                true => None,
                false => Some(parser.parse_literal_string()?),
            }))
        }
        true => Err(expected("DESCRIPTION '…' or SELLS OR SHARES", &what)),
        false => Err(expected("SET or UNSET", &found)),
    }
}

/// Behind ALTER USER.
fn default_purpose(parser: &mut Parser<'_>) -> Result<ConsentStatement, Failure> {
    let user = name(parser)?;
    for wanted in ["SET", "DEFAULT", "PURPOSE"] {
        word(parser, wanted)?;
    }
    let found = parser.peek_token_ref().clone();
    let purpose = match is_word(&found.token, "NONE") {
        true => {
            parser.next_token();
            None
        }
        false => Some(name(parser)?),
    };
    Ok(ConsentStatement::DefaultPurpose { user, purpose })
}

fn create_policy(parser: &mut Parser<'_>) -> Result<CreatePolicy, Failure> {
    parser.expect_keyword(Keyword::CREATE)?;
    let replace = parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]);
    word(parser, "CONSENT")?;
    word(parser, "POLICY")?;
    let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    if replace && if_not_exists {
        let found = parser.peek_token_ref().clone();
        return Err(Failure::at("OR REPLACE and IF NOT EXISTS exclude each other".into(), &found));
    }
    let name = name(parser)?;
    parser.expect_keyword(Keyword::ON)?;
    let governed = table(parser)?;
    let found = parser.peek_token_ref().clone();
    let subject = match columns(parser)?.as_slice() {
        [subject] => subject.clone(),
        _ => return Err(expected("the one column with the person, in brackets", &found)),
    };
    parser.expect_keyword(Keyword::USING)?;
    let consents = table(parser)?;
    let found = parser.peek_token_ref().clone();
    let columns = columns(parser)?;
    if !(COLUMNS_MIN..=COLUMNS_MAX).contains(&columns.len()) {
        let wanted = "(subject, purpose, granted [, valid_from [, valid_to]] [, channel])";
        return Err(expected(wanted, &found));
    }
    parser.expect_keyword(Keyword::FOR)?;
    word(parser, "PURPOSE")?;
    let purposes = names(parser)?;
    let channels = match is_word(&parser.peek_token_ref().token, "CHANNEL") {
        true => {
            parser.next_token();
            texts(parser)?
        }
        false => Vec::new(),
    };
    let default_allow = match parser.parse_keyword(Keyword::DEFAULT) {
        true => allow(parser)?,
        false => false,
    };
    let table = governed;
    Ok(CreatePolicy {
        name,
        replace,
        if_not_exists,
        table,
        subject,
        consents,
        columns,
        purposes,
        channels,
        default_allow,
    })
}

/// `'a', 'b', …`.
fn texts(parser: &mut Parser<'_>) -> Result<Vec<String>, Failure> {
    let mut texts = Vec::new();
    loop {
        let found = parser.next_token();
        match &found.token {
            Token::SingleQuotedString(text) => texts.push(text.clone()),
            _ => return Err(expected("a channel in quotes", &found)),
        }
        if !parser.consume_token(&Token::Comma) {
            return Ok(texts);
        }
    }
}

/// `(a, b, …)`.
pub(super) fn columns(parser: &mut Parser<'_>) -> Result<Vec<String>, Failure> {
    parser.expect_token(&Token::LParen)?;
    let columns = names(parser)?;
    parser.expect_token(&Token::RParen)?;
    Ok(columns)
}

/// ALLOW or DENY.
fn allow(parser: &mut Parser<'_>) -> Result<bool, Failure> {
    let found = parser.next_token();
    match () {
        () if is_word(&found.token, "ALLOW") => Ok(true),
        () if is_word(&found.token, "DENY") => Ok(false),
        () => Err(expected("ALLOW or DENY", &found)),
    }
}

/// Behind ALTER CONSENT POLICY p.
fn alteration(parser: &mut Parser<'_>) -> Result<WrittenAlteration, Failure> {
    parser.expect_keyword(Keyword::SET)?;
    let found = parser.next_token();
    if is_word(&found.token, "DEFAULT") {
        return Ok(WrittenAlteration::DefaultAllow(allow(parser)?));
    }
    match () {
        () if is_word(&found.token, "PURPOSE") => Ok(WrittenAlteration::Purposes(names(parser)?)),
        () if is_word(&found.token, "CHANNEL") => {
            if is_word(&parser.peek_token_ref().token, "NONE") {
                parser.next_token();
                return Ok(WrittenAlteration::Channels(Vec::new()));
            }
            Ok(WrittenAlteration::Channels(texts(parser)?))
        }
        () => Err(expected("PURPOSE a, b, CHANNEL 'c' or DEFAULT ALLOW | DENY", &found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ConsentStatement {
        match crate::parse::parse(text, 1_000) {
            Ok(Statement::Consent(statement)) => *statement,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn purposes_are_read() {
        let created = |sells_or_shares| ConsentStatement::CreatePurpose {
            name: "ads".into(),
            replace: false,
            if_not_exists: true,
            description: Some("adverts".into()),
            sells_or_shares,
        };
        let text = "CREATE PURPOSE IF NOT EXISTS Ads DESCRIPTION 'adverts'";
        assert_eq!(read(text), created(false));
        assert_eq!(read(&format!("{text} SELLS OR SHARES")), created(true));
        for (text, alteration) in [
            ("SET DESCRIPTION NULL", PurposeAlteration::Description(None)),
            ("SET SELLS OR SHARES", PurposeAlteration::SellsOrShares(true)),
            ("UNSET SELLS OR SHARES", PurposeAlteration::SellsOrShares(false)),
        ] {
            let altered = ConsentStatement::AlterPurpose { name: "ads".into(), alteration };
            assert_eq!(read(&format!("ALTER PURPOSE ads {text}")), altered);
        }
        assert_eq!(read("SHOW PURPOSES"), ConsentStatement::ShowPurposes);
        let described = ConsentStatement::DescribePurpose { name: "Ads".into() };
        assert_eq!(read("DESC PURPOSE \"Ads\""), described);
        let user = || "ann".to_owned();
        for (text, purpose) in [("ads", Some("ads".to_owned())), ("NONE", None)] {
            let text = format!("ALTER USER ann SET DEFAULT PURPOSE {text}");
            assert_eq!(read(&text), ConsentStatement::DefaultPurpose { user: user(), purpose });
        }
        assert!(matches!(
            crate::parse::parse("DESCRIBE purpose", 100),
            Ok(Statement::DataFusion(_))
        ));
    }

    #[test]
    fn policies_are_read() {
        let text = "CREATE OR REPLACE CONSENT POLICY P ON lake.clicks (Person) USING \
                    main.consents (who, what, given, since) FOR PURPOSE ads, \"Big\" DEFAULT ALLOW";
        let ConsentStatement::CreatePolicy(created) = read(text) else { panic!("no policy") };
        assert_eq!((created.name.as_str(), created.replace), ("p", true));
        assert_eq!(created.table, ["lake", "clicks"]);
        assert_eq!((created.subject.as_str(), created.default_allow), ("person", true));
        assert_eq!(created.columns, ["who", "what", "given", "since"]);
        assert_eq!(created.purposes, ["ads", "Big"]);
        assert_eq!(created.channels, [""; 0]);
        let text = "CREATE CONSENT POLICY p ON t (a) USING c (a, b, d, channel) FOR PURPOSE x, y \
                    CHANNEL 'email', 'SMS' DEFAULT DENY";
        let ConsentStatement::CreatePolicy(created) = read(text) else { panic!("no policy") };
        assert_eq!((created.purposes.len(), created.default_allow), (2, false));
        assert_eq!(created.channels, ["email", "SMS"]);
        for (text, channels) in [("'email'", vec!["email".to_owned()]), ("NONE", vec![])] {
            let alteration = WrittenAlteration::Channels(channels);
            let altered = ConsentStatement::AlterPolicy { name: "p".into(), alteration };
            assert_eq!(read(&format!("ALTER CONSENT POLICY p SET CHANNEL {text}")), altered);
        }
        let alteration = WrittenAlteration::DefaultAllow(false);
        let altered = ConsentStatement::AlterPolicy { name: "p".into(), alteration };
        assert_eq!(read("ALTER CONSENT POLICY p SET DEFAULT DENY"), altered);
        let table = Some(vec!["t".to_owned()]);
        let dropped = ConsentStatement::DropPolicy { name: "p".into(), table, if_exists: true };
        assert_eq!(read("DROP CONSENT POLICY IF EXISTS p ON t"), dropped);
        assert_eq!(read("SHOW CONSENT POLICIES"), ConsentStatement::ShowPolicies { table: None });
        for text in [
            "CREATE CONSENT POLICY p ON t USING c (a, b, d) FOR PURPOSE x",
            "CREATE CONSENT POLICY p ON t (a, b) USING c (a, b, d) FOR PURPOSE x",
            "CREATE CONSENT POLICY p ON t (a) USING c (a, b) FOR PURPOSE x",
            "CREATE CONSENT POLICY p ON t (a) USING c (a, b, d) FOR PURPOSE x DEFAULT MAYBE",
            "CREATE CONSENT POLICY p ON t (a) USING c (a, b, d)",
            "CREATE CONSENT POLICY p ON t (a) USING c (a, b, d, e) FOR PURPOSE x CHANNEL email",
            "ALTER CONSENT POLICY p SET CHANNEL",
            "ALTER CONSENT POLICY p SET x",
            "CREATE OR REPLACE PURPOSE IF NOT EXISTS p",
            "CREATE PURPOSE p SELLS",
            "ALTER PURPOSE p SET x",
            "ALTER PURPOSE p SELLS OR SHARES",
        ] {
            let error = crate::parse::parse(text, 1_000).unwrap_err();
            assert_eq!(error.code(), "ATT-1001", "{text}");
        }
    }
}
