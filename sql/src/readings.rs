//! How often the parser may read parts of a text, found before it starts.
//!
//! `effort.rs` counts where expressions begin. A list of names has none, however long it is, so
//! that reading it again and again is not seen there. What stands in the brackets behind a word
//! that is read in two ways may be read twice as often as what is around them: tokens are weighed
//! by that.
//!
//! Each PIVOT holds the one before it: a text of them makes a tree that no stack is deep enough
//! for, though one alone is refused later.

use sqlparser::keywords::Keyword;
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::effort::{keyword, too_much};

/// Doublings from which on `effort.rs` ends the reading in any case.
const DOUBLINGS_MAX: u32 = 12;
/// Tokens that may be read in all, those that are read again included: a few seconds' work.
const TOKENS_READ_MAX: usize = 1 << 26;
/// PIVOT and UNPIVOT that a text may have.
const PIVOTS_MAX: usize = 16;

/// Refuses a text that could be read for long, or into too deep a tree.
///
/// # Errors
/// When it could.
pub(crate) fn check(tokens: &[TokenWithSpan]) -> Result<(), ParserError> {
    // Of each open bracket, whether what it holds may be read in two ways.
    let mut open: Vec<bool> = Vec::new();
    let mut doublings = 0_u32;
    let mut read = 0_usize;
    let mut pivots = 0_usize;
    let mut before = Keyword::NoKeyword;
    for token in tokens.iter().map(|token| &token.token) {
        match token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket | Token::LBrace => {
                let is_doubled = is_read_twice(before);
                open.push(is_doubled);
                doublings += u32::from(is_doubled);
                pivots += usize::from(matches!(before, Keyword::PIVOT | Keyword::UNPIVOT));
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                doublings -= u32::from(open.pop() == Some(true));
            }
            // UNPIVOT INCLUDE NULLS (…)
            other if before == Keyword::UNPIVOT => {
                let word = keyword(other);
                pivots += usize::from(matches!(word, Keyword::INCLUDE | Keyword::EXCLUDE));
            }
            _ => {}
        }
        before = keyword(token);
        read = read.saturating_add(1_usize << doublings.min(DOUBLINGS_MAX));
        if pivots > PIVOTS_MAX {
            let message = format!("the text has more than {PIVOTS_MAX} PIVOT and UNPIVOT");
            return Err(ParserError::ParserError(message));
        }
    }
    if read > TOKENS_READ_MAX { Err(too_much()) } else { Ok(()) }
}

/// Whether what is in brackets behind a word is read again where it does not read at first.
fn is_read_twice(word: Keyword) -> bool {
    matches!(
        word,
        Keyword::ARRAY
            | Keyword::CAST
            | Keyword::CEIL
            | Keyword::CONVERT
            | Keyword::EXISTS
            | Keyword::EXTRACT
            | Keyword::FLOOR
            | Keyword::IN
            | Keyword::NOT
            | Keyword::OVERLAY
            | Keyword::POSITION
            | Keyword::SAFE_CAST
            | Keyword::SUBSTR
            | Keyword::SUBSTRING
            | Keyword::TRIM
            | Keyword::TRY_CAST
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::parse::parse;

    /// Each would fill the stack, which ends the process.
    #[test]
    fn a_chain_of_pivots_is_refused() {
        for part in ["PIVOT (sum(a) FOR b IN (1))", "UNPIVOT (a FOR b IN (c))"] {
            let text = format!("SELECT * FROM t {}", format!("{part} ").repeat(20_000));
            let error = parse(&text, usize::MAX).unwrap_err();
            assert_eq!(error.code(), "ATT-1001", "{error}");
            assert!(error.to_string().contains("more than 16 PIVOT"), "{error}");
        }
        let nulls = "UNPIVOT INCLUDE NULLS (a FOR b IN (c)) ".repeat(20_000);
        assert!(parse(&format!("SELECT * FROM t {nulls}"), usize::MAX).is_err());
        // A column may be called so.
        let text = format!("SELECT 1 FROM t WHERE {}true", "pivot IN (1, 2) AND ".repeat(100));
        parse(&text, usize::MAX).unwrap();
    }

    #[test]
    fn a_long_list_of_names_is_not_read_for_long() {
        let names = "a,".repeat(250_000);
        for (opens, closes) in [("CEIL(", ")x"), ("FLOOR(", " TO x)"), ("TRIM(", ")x")] {
            let (opens, closes) = (opens.repeat(12), closes.repeat(12));
            let text = format!("SELECT {opens}(SELECT * FROM t AS x ({names}a)){closes}");
            let began = Instant::now();
            let error = parse(&text, usize::MAX).unwrap_err();
            assert!(error.to_string().contains("too many ways"), "{error}");
            assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        }
    }

    #[test]
    fn lists_that_programs_write_are_read() {
        let names = "a,".repeat(50_000);
        let text = format!(
            "SELECT CAST(trim(CAST((SELECT 1 FROM t AS x ({names}a)) AS VARCHAR)) AS BIGINT) + 1 \
             FROM u WHERE NOT (b IN ({names}a))"
        );
        parse(&text, usize::MAX).unwrap();
    }
}
