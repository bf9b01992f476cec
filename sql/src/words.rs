//! Pieces that the syntax of many statements is made of.

use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::dialect::{folded, is_word};
use crate::parse::{Failure, name_parts};

/// Reads a word that has to stand next.
pub(crate) fn word(parser: &mut Parser<'_>, wanted: &str) -> Result<(), Failure> {
    if !is_word(&parser.peek_token_ref().token, wanted) {
        return Err(expected(wanted, parser.peek_token_ref()));
    }
    parser.next_token();
    Ok(())
}

/// What was expected where something else stands.
pub(crate) fn expected(what: &str, found: &TokenWithSpan) -> Failure {
    Failure::at(format!("Expected: {what}, found: {found}"), found)
}

/// Reads a name.
pub(crate) fn name(parser: &mut Parser<'_>) -> Result<String, Failure> {
    Ok(folded(&parser.parse_identifier()?))
}

/// Reads the name of a table or the like, in its parts.
pub(crate) fn table(parser: &mut Parser<'_>) -> Result<Vec<String>, Failure> {
    Ok(name_parts(&parser.parse_object_name(false)?))
}

/// Reads `name ON table`.
pub(crate) fn name_on_table(parser: &mut Parser<'_>) -> Result<(String, Vec<String>), Failure> {
    let name = name(parser)?;
    parser.expect_keyword(Keyword::ON)?;
    Ok((name, table(parser)?))
}

/// The place of the first token from `at` on that is no white space.
pub(crate) fn at_token(tokens: &[TokenWithSpan], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|found| is_space(&found.token)) {
        at += 1;
    }
    at
}

/// Whether a token is white space or a comment.
pub(crate) fn is_space(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_))
}
