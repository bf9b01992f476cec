//! What a log may hold of a statement's text: its words, and `?` in place of every literal, so that
//! neither logs nor the audit know a person's data.

use sqlparser::tokenizer::{Token, Tokenizer};

use crate::dialect::{AttuneDialect, is_word};

/// Characters of a text that are kept.
const TEXT_MAX: usize = 2_000;

/// The first words of statements that name a password or a person.
const VERBS: [&str; 8] =
    ["CREATE", "ALTER", "EXPORT", "RECTIFY", "FORGET", "RESTRICT", "HOLD", "RELEASE"];
/// Tokens before them, of EXPLAIN.
const VERB_MAX: usize = 6;
/// The words that end a password, and a person's id.
const PASSWORD_ENDS: &[&str] = &["ROLE"];
const PERSON_ENDS: &[&str] = &["AS", "SET", "FROM"];

/// The text with its literals replaced by `?`.
pub fn without_literals(text: &str) -> String {
    shown(text, false)
}

/// The same of a text that was refused: without what stands in double quotes as well, which may be
/// a value for which somebody took the wrong quotes.
pub(crate) fn refused(text: &str) -> String {
    shown(text, true)
}

fn shown(text: &str, is_refused: bool) -> String {
    let Ok(tokens) = Tokenizer::new(&AttuneDialect, text).tokenize() else {
        return "(no SQL)".into();
    };
    let private = private_tokens(&tokens);
    let (mut shown, mut was_private) = (String::new(), false);
    for (token, is_private) in tokens.into_iter().zip(private) {
        if is_private {
            match was_private {
                true => shown.truncate(shown.trim_end().len()),
                false => shown.push('?'),
            }
            was_private = true;
            continue;
        }
        was_private &= matches!(token, Token::Whitespace(_));
        match token {
            token if is_literal(&token) => shown.push('?'),
            Token::Word(word) if is_refused && word.quote_style.is_some() => {
                shown.push_str("\"?\"");
            }
            Token::Whitespace(_) => {
                if !shown.ends_with(' ') {
                    shown.push(' ');
                }
            }
            other => shown.push_str(&other.to_string()),
        }
        if shown.len() > TEXT_MAX {
            let cut = shown.char_indices().nth(TEXT_MAX).map_or(shown.len(), |(at, _)| at);
            shown.truncate(cut);
            shown.push('…');
            break;
        }
    }
    shown.trim().to_owned()
}

fn is_literal(token: &Token) -> bool {
    matches!(
        token,
        Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::TripleSingleQuotedString(_)
            | Token::TripleDoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::TripleSingleQuotedByteStringLiteral(_)
            | Token::TripleDoubleQuotedByteStringLiteral(_)
            | Token::SingleQuotedRawStringLiteral(_)
            | Token::DoubleQuotedRawStringLiteral(_)
            | Token::TripleSingleQuotedRawStringLiteral(_)
            | Token::TripleDoubleQuotedRawStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::QuoteDelimitedStringLiteral(_)
            | Token::NationalQuoteDelimitedStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
    )
}

/// Which tokens stand where a password, a person's id or a person's new value belongs. Who forgets
/// its quotes, or writes others, gets an error; and what was written is not in the log either.
fn private_tokens(tokens: &[Token]) -> Vec<bool> {
    let mut private = vec![false; tokens.len()];
    let solid = tokens.iter().enumerate();
    let solid: Vec<(usize, &Token)> =
        solid.filter(|(_, token)| !matches!(token, Token::Whitespace(_))).collect();
    let is = |at: usize, words: &[&str]| {
        let token = solid.get(at).map(|(_, token)| *token);
        token.is_some_and(|token| words.iter().any(|word| is_word(token, word)))
    };
    // EXPLAIN and its words may stand before.
    let Some(verb) = (0..VERB_MAX).find(|at| is(*at, &VERBS)) else { return private };
    let is_user = is(verb + 1, &["USER"]) || (is(verb + 1, &["OR"]) && is(verb + 3, &["USER"]));
    let password = (verb..solid.len()).find(|at| is(*at, &["PASSWORD"]));
    let (begin, ends) = match (password, is_user, is(verb + 1, &["SUBJECT"])) {
        (Some(password), true, _) => (password + 1, PASSWORD_ENDS),
        (_, _, true) if !is(verb, &["CREATE", "ALTER"]) => (verb + 3, PERSON_ENDS),
        _ => return private,
    };
    let mut is_private = true;
    for (at, token) in solid.into_iter().skip(begin) {
        is_private &= !ends.iter().any(|end| is_word(token, end)) && *token != Token::SemiColon;
        if let Some(private) = private.get_mut(at) {
            *private = is_private;
        }
        // What RECTIFY sets.
        is_private |= *token == Token::Eq;
    }
    private
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_literal_reaches_the_log() {
        let text = "SELECT * FROM t WHERE mail = 'ann@x.org' AND id = 42 -- ann\n";
        assert_eq!(without_literals(text), "SELECT * FROM t WHERE mail = ? AND id = ?");
        for (text, shown) in [
            ("CREATE USER u PASSWORD 'a b' ROLE admin", "CREATE USER u PASSWORD ? ROLE admin"),
            (
                "create or replace user u password \"a b\" role admin;",
                "create or replace user u password ? role admin;",
            ),
            ("ALTER USER u SET PASSWORD my long secret", "ALTER USER u SET PASSWORD ?"),
            ("EXPLAIN CREATE USER u PASSWORD secret", "EXPLAIN CREATE USER u PASSWORD ?"),
            ("FORGET SUBJECT person ann@mail", "FORGET SUBJECT person ?"),
            (
                "RELEASE SUBJECT person \"ann b\" AS crm.id FROM HOLD",
                "RELEASE SUBJECT person ? AS crm.id FROM HOLD",
            ),
            (
                "RECTIFY SUBJECT person '7' SET crm.name = Ann Smith",
                "RECTIFY SUBJECT person ? SET crm.name = ?",
            ),
            ("EXPLAIN FORGET SUBJECT person ann", "EXPLAIN FORGET SUBJECT person ?"),
            ("CREATE SUBJECT person KEY (crm.id)", "CREATE SUBJECT person KEY (crm.id)"),
            ("SELECT user, password FROM t", "SELECT user, password FROM t"),
            (r#"SELECT "a b" FROM t"#, r#"SELECT "a b" FROM t"#),
        ] {
            assert_eq!(without_literals(text), shown);
        }
    }

    #[test]
    fn nor_does_what_stands_in_the_wrong_quotes() {
        for (text, seen) in [
            (
                r#"SELECT * FROM t WHERE mail = "ann@x.org" AND"#,
                r#"SELECT * FROM t WHERE mail = "?" AND"#,
            ),
            ("SELECT X'616e6e', 'ann' FROM", "SELECT ?, ? FROM"),
        ] {
            assert_eq!(refused(text), seen);
        }
    }
}
