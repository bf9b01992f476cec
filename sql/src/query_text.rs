//! What a log may hold of a statement's text: its words, and a placeholder for every value, so that
//! neither logs nor the audit know a person's data.
//!
//! A value is shown as `?text:5f2c91ab03d7`: its kind, and its keyed token ([`ValueTokens`]), which
//! is the same wherever the same value stands, however it was written, as a literal or as the value
//! of a parameter. A token is of a text's characters without quotes and escapes, of a number's
//! digits without zeros that say nothing, of the hexadecimal digits of bytes. NULL, TRUE and FALSE
//! are shown as they are.
//!
//! A bare `?` stands where a token would tell too much or nothing: in a statement that names a
//! password, a secret or a token, in one that could not be read, for what is in no quotes where a
//! person's id belongs, and for values after the first [`TOKENS_MAX`].

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use arrow::datatypes::DataType;
use catalog::audit::ValueTokens;
use catalog::tokens::TOKEN_PREFIX;
use datafusion::common::ScalarValue;
use sqlparser::tokenizer::{Token, Tokenizer};
use udfs::privacy::subject_token::hexadecimal;

use crate::dialect::{AttuneDialect, is_word};

/// Characters of a text that are kept, before parameters have their values.
const TEXT_MAX: usize = 2_000;
/// Values of a text that have tokens: a longer list costs no more, and leaves place for what
/// follows it.
const TOKENS_MAX: usize = 50;

/// The first words of statements that name a password or a person.
const VERBS: [&str; 8] =
    ["CREATE", "ALTER", "EXPORT", "RECTIFY", "FORGET", "RESTRICT", "HOLD", "RELEASE"];
/// Tokens before them, of EXPLAIN.
const VERB_MAX: usize = 6;
/// The words that end a password, and a person's id.
const PASSWORD_ENDS: &[&str] = &["ROLE"];
const PERSON_ENDS: &[&str] = &["AS", "SET", "FROM"];
/// Parts of the names of what must not be compared, and ends of such names.
const SECRET_PARTS: [&str; 5] = ["password", "passwd", "passphrase", "secret", "credential"];
const SECRET_ENDS: [&str; 5] = ["token", "pwd", "api_key", "access_key", "private_key"];
/// Bytes of a literal that may be such a name, as a key of OPTIONS is.
const NAME_MAX: usize = 64;
/// Bytes of an API token at least.
const API_TOKEN_MIN: usize = 40;

/// The text with its literals replaced by `?`.
pub fn without_literals(text: &str) -> String {
    shown(text, false, None).text
}

/// The text of a statement that was planned, with tokens of its values.
pub(crate) fn planned(text: &str, tokens: Option<Arc<ValueTokens>>) -> Shown {
    let written = shown(text, false, tokens.as_deref());
    let tokens = tokens.filter(|_| !written.places.is_empty());
    let (places, room) = (written.places, TOKENS_MAX.saturating_sub(written.literals));
    Shown { text: written.text.into(), places, room, tokens }
}

/// The same of a text that was refused: without what stands in double quotes as well, which may be
/// a value for which somebody took the wrong quotes.
pub(crate) fn refused(text: &str, tokens: Option<&ValueTokens>) -> String {
    shown(text, true, tokens).text
}

/// The text of a statement, for runs with different values.
#[derive(Debug)]
pub(crate) struct Shown {
    text: Arc<str>,
    /// Where parameters stand, from left to right.
    places: Vec<Place>,
    /// How many of them may have a token.
    room: usize,
    /// `None` when there are no places, or values have no tokens.
    tokens: Option<Arc<ValueTokens>>,
}

/// Where a parameter stands in a text.
#[derive(Debug)]
struct Place {
    /// Its first byte, and the first after it.
    begin: usize,
    end: usize,
    /// Which parameter it is, from 0.
    parameter: usize,
}

impl Shown {
    /// The text before values are bound.
    pub(crate) fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The text with the tokens of these values in place of the parameters.
    pub(crate) fn with(&self, values: &[ScalarValue]) -> Arc<str> {
        let Some(tokens) = self.tokens.as_deref().filter(|_| !values.is_empty()) else {
            return Arc::clone(&self.text);
        };
        let (mut text, mut from) = (String::with_capacity(2 * self.text.len()), 0);
        for place in self.places.iter().take(self.room) {
            let Some(value) = values.get(place.parameter) else { continue };
            text.push_str(self.text.get(from..place.begin).unwrap_or_default());
            push_parameter(&mut text, value, tokens);
            from = place.end;
        }
        text.push_str(self.text.get(from..).unwrap_or_default());
        text.into()
    }
}

/// A text as it is shown, while it is written.
#[derive(Default)]
struct Written {
    text: String,
    places: Vec<Place>,
    /// Values that were met.
    literals: usize,
}

fn shown(text: &str, is_refused: bool, tokens: Option<&ValueTokens>) -> Written {
    let mut written = Written::default();
    let Ok(all) = Tokenizer::new(&AttuneDialect, text).tokenize() else {
        written.text.push_str("(no SQL)");
        return written;
    };
    let solid = all.iter().enumerate().filter(|(_, token)| !matches!(token, Token::Whitespace(_)));
    // Each has a character at least: of a longer text more of them are not shown.
    let solid: Vec<(usize, &Token)> = solid.take(TEXT_MAX + 1).collect();
    let tokens = tokens.filter(|_| !names_secret(&solid));
    let private = private_tokens(&solid);
    let (mut before, mut was_private, mut positional) = (None::<usize>, false, 0);
    for ((at, token), is_private) in solid.into_iter().zip(private) {
        let follows = was_private && is_private;
        was_private = is_private;
        if !follows && before.is_some_and(|before| before + 1 < at) {
            written.text.push(' ');
        }
        before = Some(at);
        match token {
            _ if follows => {}
            _ if is_private => written.text.push('?'),
            Token::Placeholder(name) => {
                let begin = written.text.len();
                written.text.push_str(name);
                if tokens.is_some()
                    && let Some(parameter) = parameter(name, &mut positional)
                {
                    written.places.push(Place { begin, end: written.text.len(), parameter });
                }
            }
            Token::Word(word) if is_refused && word.quote_style.is_some() => {
                written.text.push_str("\"?\"");
            }
            token => match literal(token) {
                Some((kind, value)) => {
                    let tokens = tokens.filter(|_| written.literals < TOKENS_MAX);
                    written.literals += 1;
                    push_value(&mut written.text, kind, value, tokens);
                }
                None => {
                    // A String takes whatever is written to it.
                    let _ = write!(written.text, "{token}");
                }
            },
        }
        if written.text.len() > TEXT_MAX {
            cut(&mut written);
            break;
        }
    }
    written
}

/// Keeps what a text may have of characters, and the parameters among them.
fn cut(written: &mut Written) {
    let text = &mut written.text;
    let cut = text.char_indices().nth(TEXT_MAX).map_or(text.len(), |(at, _)| at);
    text.truncate(cut);
    written.places.retain(|place| place.end <= cut);
    text.push('…');
}

/// Which parameter a placeholder is, from 0: `?` is the next one.
fn parameter(name: &str, positional: &mut usize) -> Option<usize> {
    if name == "?" {
        *positional += 1;
        return Some(*positional - 1);
    }
    name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)
}

/// A literal's kind, and what its token is of where it has one.
fn literal(token: &Token) -> Option<(&'static str, &str)> {
    Some(match token {
        Token::Number(digits, _) => ("number", digits.as_str()),
        Token::SingleQuotedString(text)
        | Token::DoubleQuotedString(text)
        | Token::TripleSingleQuotedString(text)
        | Token::TripleDoubleQuotedString(text)
        | Token::SingleQuotedRawStringLiteral(text)
        | Token::DoubleQuotedRawStringLiteral(text)
        | Token::TripleSingleQuotedRawStringLiteral(text)
        | Token::TripleDoubleQuotedRawStringLiteral(text)
        | Token::NationalStringLiteral(text)
        | Token::EscapedStringLiteral(text)
        | Token::UnicodeStringLiteral(text) => ("text", text.as_str()),
        Token::DollarQuotedString(quoted) => ("text", quoted.value.as_str()),
        Token::QuoteDelimitedStringLiteral(quoted)
        | Token::NationalQuoteDelimitedStringLiteral(quoted) => ("text", quoted.value.as_str()),
        Token::SingleQuotedByteStringLiteral(bytes)
        | Token::DoubleQuotedByteStringLiteral(bytes)
        | Token::TripleSingleQuotedByteStringLiteral(bytes)
        | Token::TripleDoubleQuotedByteStringLiteral(bytes)
        | Token::HexStringLiteral(bytes) => ("bytes", bytes.as_str()),
        _ => return None,
    })
}

/// Shows a value of some kind: a bare `?` without tokens, and for what opens a session.
fn push_value(text: &mut String, kind: &str, value: &str, tokens: Option<&ValueTokens>) {
    text.push('?');
    if let Some(tokens) = tokens
        && !is_credential(value)
    {
        let value = match kind {
            "number" => Cow::Owned(number(value)),
            "bytes" => Cow::Owned(value.to_ascii_lowercase()),
            _ => Cow::Borrowed(value),
        };
        text.push_str(kind);
        text.push(':');
        text.push_str(&tokens.token(&value));
    }
}

fn push_parameter(text: &mut String, value: &ScalarValue, tokens: &ValueTokens) {
    let kind = match value {
        ScalarValue::Dictionary(_, value) => return push_parameter(text, value, tokens),
        value if value.is_null() => return text.push_str("NULL"),
        ScalarValue::Boolean(Some(truth)) => {
            return text.push_str(if *truth { "TRUE" } else { "FALSE" });
        }
        ScalarValue::Binary(Some(bytes))
        | ScalarValue::LargeBinary(Some(bytes))
        | ScalarValue::BinaryView(Some(bytes))
        | ScalarValue::FixedSizeBinary(_, Some(bytes)) => {
            return push_value(text, "bytes", &hexadecimal(bytes), Some(tokens));
        }
        ScalarValue::Utf8(Some(value))
        | ScalarValue::LargeUtf8(Some(value))
        | ScalarValue::Utf8View(Some(value)) => {
            return push_value(text, "text", value, Some(tokens));
        }
        value => match value.data_type() {
            data_type if data_type.is_numeric() => "number",
            DataType::Date32 | DataType::Date64 => "date",
            DataType::Time32(_) | DataType::Time64(_) => "time",
            DataType::Timestamp(..) => "timestamp",
            _ => "value",
        },
    };
    match value.cast_to(&DataType::Utf8) {
        Ok(ScalarValue::Utf8(Some(value))) => match value.strip_prefix('-') {
            // The sign of a literal stands before it.
            Some(digits) if kind == "number" => {
                text.push('-');
                push_value(text, kind, digits, Some(tokens));
            }
            _ => push_value(text, kind, &value, Some(tokens)),
        },
        _ => text.push('?'),
    }
}

/// The digits of a number without those that say nothing: `007`, `7.0` and `7` are one number.
fn number(written: &str) -> String {
    if !written.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'_') {
        return written.to_ascii_lowercase();
    }
    let plain = written.replace('_', "");
    let digits = match plain.contains('.') {
        true => plain.trim_end_matches('0').trim_end_matches('.'),
        false => plain.as_str(),
    };
    let digits = digits.trim_start_matches('0');
    match digits.starts_with(|first: char| first.is_ascii_digit()) {
        true => digits.to_owned(),
        false => format!("0{digits}"),
    }
}

/// Whether a text is an API token, a signed token or a private key.
fn is_credential(text: &str) -> bool {
    (text.starts_with(TOKEN_PREFIX) && text.len() >= API_TOKEN_MIN)
        || (text.starts_with("eyJ") && text.split('.').count() == 3)
        || text.starts_with("-----BEGIN")
}

/// Whether a statement is about passwords, secrets or tokens, by its verb or by a name in it: what
/// few know, or many share, is not to be compared.
fn names_secret(solid: &[(usize, &Token)]) -> bool {
    let verb = (0..VERB_MAX).find(|at| is(solid, *at, &VERBS));
    let consents = |at| is(solid, at, &["RECORD"]) && is(solid, at + 1, &["CONSENT"]);
    if verb.is_some_and(|verb| is_account(solid, verb)) || (0..VERB_MAX).any(consents) {
        return true;
    }
    let mut literals = 0;
    solid.iter().any(|(_, token)| match token {
        Token::Word(word) => is_secret(&word.value),
        Token::SingleQuotedString(name) => {
            literals += 1;
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            literals <= TOKENS_MAX
                && name.len() <= NAME_MAX
                && name.bytes().all(is_name)
                && is_secret(name)
        }
        _ => false,
    })
}

/// Whether a name is one of a password, a secret or a token.
fn is_secret(name: &str) -> bool {
    let name = name.as_bytes();
    let is_part = |part: &&str| {
        let part = part.as_bytes();
        name.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
    };
    let is_end = |end: &&str| {
        let at = name.len().checked_sub(end.len());
        let last = at.and_then(|at| name.get(at..));
        last.is_some_and(|last| last.eq_ignore_ascii_case(end.as_bytes()))
    };
    SECRET_PARTS.iter().any(is_part) || SECRET_ENDS.iter().any(is_end)
}

/// Whether one of these words stands at a place.
fn is(solid: &[(usize, &Token)], at: usize, words: &[&str]) -> bool {
    let token = solid.get(at).map(|(_, token)| *token);
    token.is_some_and(|token| words.iter().any(|word| is_word(token, word)))
}

/// Whether a verb makes or changes a user.
fn is_account(solid: &[(usize, &Token)], verb: usize) -> bool {
    is(solid, verb + 1, &["USER"])
        || (is(solid, verb + 1, &["OR"]) && is(solid, verb + 3, &["USER"]))
}

/// Which tokens stand where a password, a person's id or a person's new value belongs. Who forgets
/// its quotes, or writes others, gets an error; and what was written is not in the log either.
fn private_tokens(solid: &[(usize, &Token)]) -> Vec<bool> {
    let mut private = vec![false; solid.len()];
    // EXPLAIN and its words may stand before.
    let Some(verb) = (0..VERB_MAX).find(|at| is(solid, *at, &VERBS)) else { return private };
    let password = (verb..solid.len()).find(|at| is(solid, *at, &["PASSWORD"]));
    let password = password.filter(|_| is_account(solid, verb));
    let (begin, ends) = match (password, is(solid, verb + 1, &["SUBJECT"])) {
        (Some(password), _) => (password + 1, PASSWORD_ENDS),
        (None, true) if !is(solid, verb, &["CREATE", "ALTER"]) => (verb + 3, PERSON_ENDS),
        _ => return private,
    };
    let mut is_private = true;
    for ((_, token), private) in solid.iter().zip(&mut private).skip(begin) {
        is_private &= !ends.iter().any(|end| is_word(token, end)) && **token != Token::SemiColon;
        *private = is_private;
        // What RECTIFY sets.
        is_private |= **token == Token::Eq;
    }
    if password.is_none() {
        show_literals(solid, &mut private);
    }
    private
}

/// Where a literal alone stands for a person, it is shown as literals are.
fn show_literals(solid: &[(usize, &Token)], private: &mut [bool]) {
    let seen: &[bool] = private;
    let is_private = |at: Option<usize>| {
        let private = at.and_then(|at| seen.get(at));
        private.is_some_and(|private| *private)
    };
    let literals = solid.iter().enumerate().filter(|(_, (_, token))| literal(token).is_some());
    let alone: Vec<usize> = literals
        .map(|(at, _)| at)
        .filter(|at| is_private(Some(*at)))
        .filter(|at| !is_private(at.checked_sub(1)) && !is_private(Some(at + 1)))
        .collect();
    for at in alone {
        if let Some(private) = private.get_mut(at) {
            *private = false;
        }
    }
}

#[cfg(test)]
#[path = "query_text_tests.rs"]
mod tests;
