//! API tokens: `CREATE TOKEN n [FOR USER u] [PURPOSE p] [EXPIRES IN '90 days']`, `DROP TOKEN`.
//!
//! A token is a user's: an admin makes and drops them for anybody, a user for itself. The secret is
//! the statement's one row and shown never again; the warehouse keeps its hash. A session that was
//! itself opened with a token makes none, so that a leaked token cannot outlive its own end.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use catalog::policy::{Principal, Role};
use catalog::tokens::digest;
use catalog::{Catalog, TokenRecord};
use datafusion::sql::parser::DFParser;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use crate::access::check_account;
use crate::dialect::{folded, is_word};
use crate::error::{Error, Result};
use crate::rights::Rights;
use crate::session::Session;
use crate::session::run::{Done, Run};

const DAY_MS: i64 = 24 * 3_600_000;
/// The longest time that EXPIRES IN takes: a token that is to last longer has no end.
const EXPIRES_MS_MAX: i64 = 3_660 * DAY_MS;
/// Characters of a token's name.
const NAME_CHARS_MAX: usize = 64;

/// A statement about tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenStatement {
    /// CREATE TOKEN.
    Create {
        /// The token's name.
        name: String,
        /// Whose it will be; the caller's own when absent.
        user: Option<String>,
        /// The purpose of sessions opened with it.
        purpose: Option<String>,
        /// How long it lasts, in milliseconds.
        expires_in_ms: Option<i64>,
    },
    /// DROP TOKEN [IF EXISTS] n [FOR USER u].
    Drop {
        /// The token's name.
        name: String,
        /// Whose it is; the caller's own when absent.
        user: Option<String>,
        /// No error when it is missing.
        if_exists: bool,
    },
}

/// Parses what follows CREATE TOKEN.
pub(crate) fn parse_create(parser: &mut DFParser<'_>) -> Result<TokenStatement, ParserError> {
    let parser = &mut parser.parser;
    let name = folded(&parser.parse_identifier()?);
    let user = parse_user(parser)?;
    let mut purpose = None;
    if is_word(&parser.peek_token_ref().token, "PURPOSE") {
        parser.next_token();
        purpose = Some(parse_name(parser)?);
    }
    let mut expires_in_ms = None;
    if is_word(&parser.peek_token_ref().token, "EXPIRES") {
        parser.next_token();
        parser.expect_keyword(Keyword::IN)?;
        let written = parser.parse_literal_string()?;
        expires_in_ms = Some(duration_ms(&written).ok_or_else(|| {
            ParserError::ParserError(format!(
                "Expected: a time such as '90 days' of at most ten years, found: '{written}'"
            ))
        })?);
    }
    Ok(TokenStatement::Create { name, user, purpose, expires_in_ms })
}

/// Parses what follows DROP TOKEN.
pub(crate) fn parse_drop(parser: &mut DFParser<'_>) -> Result<TokenStatement, ParserError> {
    let parser = &mut parser.parser;
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let name = folded(&parser.parse_identifier()?);
    Ok(TokenStatement::Drop { name, user: parse_user(parser)?, if_exists })
}

fn parse_user(parser: &mut Parser<'_>) -> Result<Option<String>, ParserError> {
    if !parser.parse_keyword(Keyword::FOR) {
        return Ok(None);
    }
    parser.expect_keyword(Keyword::USER)?;
    parse_name(parser).map(Some)
}

/// A name, or a text in single quotes.
fn parse_name(parser: &mut Parser<'_>) -> Result<String, ParserError> {
    if let Token::SingleQuotedString(text) = &parser.peek_token_ref().token {
        let text = text.clone();
        parser.next_token();
        return Ok(text);
    }
    Ok(folded(&parser.parse_identifier()?))
}

/// How a length of time is written, for messages.
pub(crate) const LENGTHS: &str = "write a whole number above 0 and one of minutes, hours, days, \
                                  weeks, months and years";

/// `90 days`, `12 hours`, `2 weeks`: at most ten years.
pub(crate) fn duration_ms(text: &str) -> Option<i64> {
    length_ms(text).filter(|length| *length <= EXPIRES_MS_MAX)
}

/// The same, however long.
pub(crate) fn length_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(split);
    let unit_ms = match unit.trim().to_lowercase().trim_end_matches('s') {
        "minute" => 60_000,
        "hour" => 3_600_000,
        "day" => DAY_MS,
        "week" => 7 * DAY_MS,
        "month" => 30 * DAY_MS,
        "year" => 365 * DAY_MS,
        _ => return None,
    };
    let length = digits.parse::<i64>().ok()?.checked_mul(unit_ms)?;
    (length > 0).then_some(length)
}

impl TokenStatement {
    /// Checks the right, so that preparing the statement says already what is wrong.
    pub(crate) fn check(&self, session: &Session, rights: &Rights) -> Result<()> {
        let (Self::Create { name, user, .. } | Self::Drop { name, user, .. }) = self;
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
            return Err(Error::invalid(format!(
                "a token's name has 1 to {NAME_CHARS_MAX} characters"
            )));
        }
        let principal = session.principal();
        if user.as_ref().is_some_and(|user| *user != principal.name) && !rights.has(Role::Admin) {
            return Err(denied(principal, "manage tokens of others", "ask an admin"));
        }
        if session.is_delegated() && matches!(self, Self::Create { .. }) {
            let hint = "log in with the user's own password";
            return Err(denied(principal, "make a token in a session opened with one", hint));
        }
        Ok(())
    }

    /// The columns of the answer; `None` for a statement without rows.
    pub(crate) fn schema(&self) -> Option<SchemaRef> {
        matches!(self, Self::Create { .. }).then(created_schema)
    }

    /// Makes a token and gives the row with its secret.
    pub(crate) async fn create(&self, session: &Session) -> Result<RecordBatch> {
        let Self::Create { name, user, purpose, expires_in_ms } = self else {
            return Err(Error::Internal("this statement makes no token".into()));
        };
        let rights = session.rights().await?;
        self.check(session, &rights)?;
        let catalog = session.engine().catalog();
        let made_by = session.principal().name.clone();
        let user = user.clone().unwrap_or_else(|| made_by.clone());
        let accounts = catalog.accounts_with(&user).await?;
        let Some(record) = accounts.user(&user) else {
            return Err(Error::Catalog(Catalog::unknown_user(&user)));
        };
        // Whoever makes a token of somebody may act as that user.
        if user != made_by {
            check_account(catalog, &rights, &accounts, record).await?;
        }
        if let Some(purpose) = purpose {
            let purposes = catalog.purposes().await?;
            let of_user = Principal::of(record);
            let of_user = Rights::new(&of_user, None, &accounts, &purposes, catalog)?;
            of_user.purposes().check(&user, purpose)?;
        }
        let secret = catalog.new_token_secret();
        let created_ms = catalog.now_ms();
        let token = TokenRecord {
            name: name.clone(),
            user: user.clone(),
            hash: digest(secret.reveal()),
            purpose: purpose.clone(),
            made_by,
            created_ms,
            expires_ms: expires_in_ms.map(|length| created_ms.saturating_add(length)),
        };
        let expires: TimestampMillisecondArray = [token.expires_ms].into_iter().collect();
        catalog.create_token(token).await?;
        let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
        let columns = vec![
            text(name),
            text(&user),
            Arc::new(expires.with_timezone("UTC")),
            text(secret.reveal()),
        ];
        Ok(RecordBatch::try_new(created_schema(), columns)?)
    }

    /// Drops a token.
    pub(crate) async fn drop(&self, run: &Run) -> Result<Done> {
        let Self::Drop { name, user, if_exists } = self else {
            return Err(Error::Internal("this statement drops no token".into()));
        };
        self.check(&run.session, &*run.session.rights().await?)?;
        let user = user.as_ref().unwrap_or(&run.session.principal().name);
        let catalog = run.session.engine().catalog();
        if !catalog.drop_token(user, name).await? && !if_exists {
            let tokens = catalog.tokens().await?;
            let mine = tokens.iter().filter(|token| token.user == *user);
            let names = mine.map(|token| token.name.as_str());
            return Err(Error::Catalog(catalog::Error::not_found("token", name, names)));
        }
        Ok(Done::new(0, format!("DROP TOKEN {name}")))
    }
}

fn created_schema() -> SchemaRef {
    let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("user_name", DataType::Utf8, false),
        Field::new("expires", utc, true),
        Field::new("token", DataType::Utf8, false),
    ]))
}

fn denied(principal: &Principal, action: &str, hint: &str) -> Error {
    Error::Denied {
        principal: principal.name.clone(),
        action: action.to_owned(),
        hint: Some(hint.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Statement, parse};

    fn statement(text: &str) -> Option<TokenStatement> {
        match parse(text, 1_000) {
            Ok(Statement::Token(statement)) => Some(statement),
            _ => None,
        }
    }

    #[test]
    fn a_token_has_a_name_an_owner_a_purpose_and_an_end() {
        let text = "CREATE TOKEN Ci FOR USER ada PURPOSE ads EXPIRES IN '90 days'";
        let expected = TokenStatement::Create {
            name: "ci".into(),
            user: Some("ada".into()),
            purpose: Some("ads".into()),
            expires_in_ms: Some(90 * DAY_MS),
        };
        assert_eq!(statement(text), Some(expected));
        let text = "DROP TOKEN IF EXISTS ci FOR USER 'Ada'";
        let expected =
            TokenStatement::Drop { name: "ci".into(), user: Some("Ada".into()), if_exists: true };
        assert_eq!(statement(text), Some(expected));
    }

    #[test]
    fn an_end_is_a_time_that_is_not_too_long() {
        for (text, length) in
            [("1 day", Some(DAY_MS)), ("12hours", Some(DAY_MS / 2)), ("2 Weeks", Some(14 * DAY_MS))]
        {
            assert_eq!(duration_ms(text), length, "{text}");
        }
        for text in
            ["", "days", "0 days", "-1 days", "soon", "99999999999999999999 days", "11 years"]
        {
            assert_eq!(duration_ms(text), None, "{text}");
            let statement = statement(&format!("CREATE TOKEN n EXPIRES IN '{text}'"));
            assert_eq!(statement, None, "{text}");
        }
    }
}
