//! Clauses that DataFusion's parser has no place for: they are taken out of a statement's tokens
//! before it, and put into the syntax tree afterwards.

use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::dialect::is_word;
use crate::error::{Error, Result};
use crate::words::{at_token, is_space};

/// Where a clause that begins with `word` stands in `CREATE [OR REPLACE] noun …`, outside
/// parentheses and before the word `end`, if there is one.
pub(crate) fn place(
    tokens: &[TokenWithSpan],
    noun: &str,
    word: &str,
    is_next: impl Fn(&Token) -> bool,
    end: Option<&str>,
) -> Option<usize> {
    let mut words = tokens.iter().map(|found| &found.token).filter(|token| !is_space(token));
    if !is_word(words.next()?, "CREATE") {
        return None;
    }
    let mut second = words.next()?;
    if is_word(second, "OR") {
        words.next()?;
        second = words.next()?;
    }
    if !is_word(second, noun) {
        return None;
    }
    let mut depth = 0usize;
    for (at, found) in tokens.iter().enumerate() {
        match &found.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            token if depth == 0 && end.is_some_and(|end| is_word(token, end)) => return None,
            token if depth == 0 && is_word(token, word) => {
                let after = tokens.get(at_token(tokens, at + 1));
                if after.is_some_and(|found| is_next(&found.token)) {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Reads tokens one by one, white space left out.
pub(crate) struct Cursor<'a> {
    tokens: &'a [TokenWithSpan],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The next token.
    pub(crate) fn step(&mut self) -> Option<&'a Token> {
        self.at = at_token(self.tokens, self.at + 1);
        self.tokens.get(self.at).map(|found| &found.token)
    }
}

/// Takes a clause of so many words and a list in parentheses out of the tokens, from `start` on.
/// Each item is read by `item`, which is given those before it.
///
/// # Errors
/// Those of `item`; `wrong` when it is no such list.
pub(crate) fn take_list<T>(
    tokens: &mut Vec<TokenWithSpan>,
    (start, words): (usize, usize),
    wrong: fn() -> Error,
    mut item: impl FnMut(&mut Cursor<'_>, &[T]) -> Result<T>,
) -> Result<Vec<T>> {
    let mut cursor = Cursor { tokens: tokens.as_slice(), at: start };
    for _ in 1..words {
        cursor.step();
    }
    if cursor.step() != Some(&Token::LParen) {
        return Err(wrong());
    }
    let mut items = Vec::new();
    loop {
        let next = item(&mut cursor, &items)?;
        items.push(next);
        match cursor.step() {
            Some(Token::Comma) => {}
            Some(Token::RParen) => break,
            _ => return Err(wrong()),
        }
    }
    let end = cursor.at;
    tokens.drain(start..=end);
    Ok(items)
}
