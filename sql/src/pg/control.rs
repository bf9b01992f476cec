//! Statements that concern a connection and not the data: transactions, parameters, cleaning up.
//!
//! They are told from other statements by their words; what they do is the connection's business.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::parameters;
use crate::error::{Error, Result};

/// What a statement wants of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// `BEGIN`; whether it says READ ONLY or READ WRITE.
    Begin(Option<bool>),
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// `SAVEPOINT name`.
    Savepoint(String),
    /// `RELEASE name`.
    Release(String),
    /// `ROLLBACK TO name`.
    RollbackTo(String),
    /// `SET name = value`; without a value, `RESET name`.
    Set {
        /// The parameter.
        name: String,
        /// The value; `None` for the default.
        value: Option<String>,
        /// Whether it ends with the transaction.
        local: bool,
    },
    /// `RESET ALL`.
    ResetAll,
    /// `SHOW name`.
    Show(String),
    /// `DISCARD ALL`.
    DiscardAll,
    /// `DEALLOCATE name`; without a name, all.
    Deallocate(Option<String>),
    /// A statement after which nothing is different, with its tag.
    Nothing(&'static str),
}

impl Control {
    /// Whether a transaction that failed takes it.
    pub fn ends_failure(&self) -> bool {
        matches!(self, Self::Commit | Self::Rollback | Self::RollbackTo(_))
    }
}

const ATOMIC: &str = "each statement commits by itself; run them one by one";
const ISOLATION: &str = "statements are isolated one by one: ask for READ COMMITTED";

/// What a statement wants of the connection; `None` for every statement about data.
///
/// # Errors
/// When it asks for something that Attune's connections do not have.
pub fn control(text: &str) -> Result<Option<Control>> {
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize() else {
        return Ok(None);
    };
    let tokens: Vec<Token> = tokens
        .into_iter()
        .filter(|token| !matches!(token, Token::Whitespace(_) | Token::SemiColon | Token::EOF))
        .collect();
    let words: Vec<String> = tokens.iter().map(word).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let found = match words.as_slice() {
        ["begin", modes @ ..] | ["start", "transaction", modes @ ..] => {
            Control::Begin(transaction_modes(modes)?)
        }
        ["rollback" | "abort", .., "to", _] | ["rollback" | "abort", .., "to", "savepoint", _] => {
            Control::RollbackTo(tokens.last().map(exact).unwrap_or_default())
        }
        ["commit" | "rollback", "prepared", ..] | ["prepare", "transaction", ..] => {
            return Err(Error::unsupported("two-phase commit is not supported", ATOMIC));
        }
        ["commit" | "end", ..] => Control::Commit,
        ["rollback" | "abort", ..] => Control::Rollback,
        ["savepoint", _] => Control::Savepoint(tokens.last().map(exact).unwrap_or_default()),
        ["release", _] | ["release", "savepoint", _] => {
            Control::Release(tokens.last().map(exact).unwrap_or_default())
        }
        ["set", "constraints", "all", ..] => Control::Nothing("SET CONSTRAINTS"),
        ["set", ..] => return set(&tokens, &words),
        ["reset", "all"] => Control::ResetAll,
        ["reset", "session", "authorization"] => Control::Nothing("RESET"),
        ["reset", name] => Control::Set { name: (*name).to_owned(), value: None, local: false },
        ["show", "time", "zone"] => Control::Show("TimeZone".into()),
        ["show", "session", "authorization"] => Control::Show("session_authorization".into()),
        ["show", "transaction", "isolation", "level"] => {
            Control::Show("transaction_isolation".into())
        }
        ["show", "all"] => Control::Show("all".into()),
        ["show", name] if parameters::exists(name) => Control::Show((*name).to_owned()),
        ["discard", "all"] => Control::DiscardAll,
        ["discard", "plans" | "temp" | "temporary" | "sequences"] => Control::Nothing("DISCARD"),
        ["deallocate", "all"] | ["deallocate", "prepare", "all"] => Control::Deallocate(None),
        ["deallocate", "prepare", _] | ["deallocate", _] => {
            Control::Deallocate(tokens.last().map(exact))
        }
        ["close", "all"] => Control::Nothing("CLOSE CURSOR ALL"),
        ["unlisten", "*"] => Control::Nothing("UNLISTEN"),
        words => return refused(words).map_or(Ok(None), Err),
    };
    Ok(Some(found))
}

/// Why a statement of a connection that has no counterpart here is refused.
fn refused(words: &[&str]) -> Option<Error> {
    let (what, hint) = match words {
        ["listen" | "notify" | "unlisten", ..] => {
            ("there are no notifications", "ask again instead")
        }
        ["declare", ..] | ["fetch" | "move" | "close", _, ..] => {
            ("SQL cursors are not supported", "use the driver's fetch size: rows are streamed")
        }
        ["prepare", _, ..] | ["execute", ..] => (
            "PREPARE and EXECUTE as statements are not supported",
            "bind parameters with the driver",
        ),
        ["copy", ..] => (
            "COPY is not supported",
            "read with SELECT; load with INSERT, or in bulk over Flight SQL",
        ),
        _ => return None,
    };
    Some(Error::unsupported(what, hint))
}

/// A token as a word in lower case; quoted names and texts are no words.
fn word(token: &Token) -> String {
    match token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_lowercase(),
        other => other.to_string(),
    }
}

/// A name or text without its quotes.
fn exact(token: &Token) -> String {
    match token {
        Token::Word(word) => word.value.clone(),
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text.clone(),
        Token::Number(number, _) => number.clone(),
        other => other.to_string(),
    }
}

/// `ISOLATION LEVEL … , READ ONLY`: whether it says READ ONLY (true) or READ WRITE (false).
fn transaction_modes(mut modes: &[&str]) -> Result<Option<bool>> {
    let mut read_only = None;
    loop {
        modes = match modes {
            [] => return Ok(read_only),
            ["," | "work" | "transaction" | "deferrable", rest @ ..] => rest,
            ["not", "deferrable", rest @ ..] => rest,
            ["isolation", "level", "read", "committed" | "uncommitted", rest @ ..] => rest,
            ["isolation", "level", level @ ..] => {
                let what = format!("isolation level {} is not supported", level.join(" "));
                return Err(Error::unsupported(what, ISOLATION));
            }
            ["read", "only", rest @ ..] => {
                read_only = Some(true);
                rest
            }
            ["read", "write", rest @ ..] => {
                read_only = Some(false);
                rest
            }
            [other, ..] => {
                return Err(Error::invalid_hint(
                    format!("{other} is no mode of a transaction"),
                    "write READ ONLY, READ WRITE or ISOLATION LEVEL READ COMMITTED",
                ));
            }
        }
    }
}

fn set(tokens: &[Token], words: &[&str]) -> Result<Option<Control>> {
    let skipped = match words.get(1) {
        Some(&"session" | &"local") => 2,
        _ => 1,
    };
    let local = words.get(1) == Some(&"local");
    let (words, tokens) = (&words[skipped..], &tokens[skipped..]);
    let flag = |name: &str, read_only: Option<bool>| {
        let value = read_only.map(|truth| if truth { "on" } else { "off" }.to_owned());
        match value {
            Some(_) => Control::Set { name: name.into(), value, local: false },
            None => Control::Nothing("SET"),
        }
    };
    match words {
        ["characteristics", "as", "transaction", modes @ ..] => {
            Ok(Some(flag("default_transaction_read_only", transaction_modes(modes)?)))
        }
        ["transaction", "snapshot", ..] => {
            Err(Error::unsupported("snapshots cannot be shared", ISOLATION))
        }
        ["transaction", modes @ ..] => {
            Ok(Some(flag("transaction_read_only", transaction_modes(modes)?)))
        }
        // Who may become whom is a matter of rights, which the engine knows.
        ["role" | "authorization", ..] => Ok(None),
        ["names", ..] => value_of("client_encoding", &tokens[1..], local).map(Some),
        ["time", "zone", ..] => value_of("TimeZone", &tokens[2..], local).map(Some),
        [_, "=" | "to", ..] => {
            let name = exact(&tokens[0]);
            value_of(&name, &tokens[2..], local).map(Some)
        }
        _ => Ok(None),
    }
}

fn value_of(name: &str, tokens: &[Token], local: bool) -> Result<Control> {
    let mut parts = Vec::new();
    for token in tokens.split(|token| *token == Token::Comma) {
        match token {
            [Token::Minus, number] => parts.push(format!("-{}", exact(number))),
            [Token::Plus, number] => parts.push(exact(number)),
            [one] => parts.push(exact(one)),
            _ => {
                return Err(Error::invalid_hint(
                    format!("the value of {name} cannot be read"),
                    "write SET name = value, or a list of names with commas",
                ));
            }
        }
    }
    let default = tokens.len() == 1 && ["default", "local"].contains(&word(&tokens[0]).as_str());
    let value = (!default).then(|| parts.join(", "));
    Ok(Control::Set { name: name.to_owned(), value, local })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_to(name: &str, value: &str) -> Option<Control> {
        Some(Control::Set { name: name.into(), value: Some(value.into()), local: false })
    }

    #[test]
    fn what_drivers_send_is_read() {
        for (text, expected) in [
            ("BEGIN", Some(Control::Begin(None))),
            ("begin isolation level read committed, read only;", Some(Control::Begin(Some(true)))),
            ("START TRANSACTION", Some(Control::Begin(None))),
            ("COMMIT", Some(Control::Commit)),
            ("ROLLBACK", Some(Control::Rollback)),
            ("SAVEPOINT \"_pg3_1\"", Some(Control::Savepoint("_pg3_1".into()))),
            ("ROLLBACK TO SAVEPOINT a", Some(Control::RollbackTo("a".into()))),
            ("release a", Some(Control::Release("a".into()))),
            ("SET extra_float_digits = 3", set_to("extra_float_digits", "3")),
            ("SET SESSION search_path TO lake, \"Main\"", set_to("search_path", "lake, Main")),
            ("SET TIME ZONE 'Europe/Paris'", set_to("TimeZone", "Europe/Paris")),
            ("set application_name = 'a b'", set_to("application_name", "a b")),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                set_to("default_transaction_read_only", "on"),
            ),
            (
                "SHOW TRANSACTION ISOLATION LEVEL",
                Some(Control::Show("transaction_isolation".into())),
            ),
            ("show timezone", Some(Control::Show("timezone".into()))),
            ("DEALLOCATE \"_pg3_0\"", Some(Control::Deallocate(Some("_pg3_0".into())))),
            ("DISCARD ALL", Some(Control::DiscardAll)),
            ("UNLISTEN *", Some(Control::Nothing("UNLISTEN"))),
            ("SHOW TABLES", None),
            ("SELECT 1", None),
            ("SET ROLE x", None),
        ] {
            assert_eq!(control(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_would_lose_something_is_refused() {
        for text in [
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "COMMIT PREPARED 'a'",
            "COPY t FROM STDIN",
            "DECLARE c CURSOR FOR SELECT 1",
            "LISTEN x",
            "PREPARE p AS SELECT 1",
            "SET x = 1 + 1",
        ] {
            let error = control(text).unwrap_err();
            assert!(error.hint().is_some(), "{text}");
        }
    }
}
