//! SIMILAR TO: SQL's patterns as regular expressions.
//!
//! A pattern stands for the whole text: `%` for any characters and `_` for one, beside `|`, `*`,
//! `+`, `?`, `{m,n}`, `(…)` and `[…]` of regular expressions; what else means something there, such
//! as `.`, `^` and `$`, stands for itself, as does any sign behind the escape character, which is a
//! backslash unless ESCAPE names another. Behind it a letter or digit is a regular expression's, as
//! in PostgreSQL: `\d`. DataFusion would take the pattern for a regular expression that stands for
//! a part of the text.

use std::iter::Peekable;
use std::str::Chars;
use std::sync::Arc;

use arrow::array::StringViewArray;
use arrow::datatypes::DataType;
use datafusion::common::utils::take_function_args;
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use udfs::text::Text;

use crate::patterns::shown;

/// Not registered: no statement calls it.
const NAME: &str = "similar_to_pattern";
/// The escape character unless another one is named.
const ESCAPE: char = '\\';

/// The regular expression of a pattern in a column.
pub(crate) fn regular_of(pattern: Expr, escape: Option<char>) -> Expr {
    let signature = Signature::string(1, Volatility::Immutable);
    let function = ScalarUDF::new_from_impl(SimilarPattern { signature, escape });
    function.call(vec![pattern])
}

/// The regular expression of a pattern.
///
/// # Errors
/// When it ends with the escape character, in a bracket or in a group, or closes a group that is
/// not open.
pub(crate) fn regular(pattern: &str, escape: Option<char>) -> DataFusionResult<String> {
    match translated(pattern, escape.unwrap_or(ESCAPE)) {
        Ok(regular) => Ok(regular),
        Err(what) => exec_err!("the pattern '{}' of SIMILAR TO {what}", shown(pattern)),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SimilarPattern {
    signature: Signature,
    escape: Option<char>,
}

impl ScalarUDFImpl for SimilarPattern {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [patterns] = take_function_args(NAME, arguments.args)?;
        let texts = Text::from_argument(NAME, &patterns)?;
        let of = |row: usize| texts.get(row).map(|text| regular(text, self.escape)).transpose();
        Ok(match patterns {
            ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::Utf8View(of(0)?)),
            ColumnarValue::Array(array) => {
                let made = (0..array.len()).map(of).collect::<DataFusionResult<StringViewArray>>();
                ColumnarValue::Array(Arc::new(made?))
            }
        })
    }
}

/// The same as a regular expression, or what is wrong with it.
fn translated(pattern: &str, escape: char) -> Result<String, &'static str> {
    let mut regular = String::with_capacity(pattern.len() + 8);
    // Any character may be a line's end.
    regular.push_str("^(?s:");
    let mut open: usize = 0;
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            _ if letter == escape => push_escaped(letters.next(), &mut regular)?,
            '%' => regular.push_str(".*"),
            '_' => regular.push('.'),
            '(' => {
                open += 1;
                regular.push_str("(?:");
            }
            ')' => {
                open = open.checked_sub(1).ok_or("closes a group that is not open")?;
                regular.push(')');
            }
            '[' => push_bracket(&mut letters, escape, &mut regular)?,
            '|' | '*' | '+' | '?' | '{' | '}' => regular.push(letter),
            _ => push_literal(letter, &mut regular),
        }
    }
    if open > 0 {
        return Err("has a group that is not closed");
    }
    regular.push_str(")$");
    Ok(regular)
}

fn push_escaped(letter: Option<char>, regular: &mut String) -> Result<(), &'static str> {
    let letter = letter.ok_or("ends with its escape character")?;
    if letter.is_ascii_alphanumeric() {
        regular.push('\\');
        regular.push(letter);
    } else {
        push_literal(letter, regular);
    }
    Ok(())
}

/// A character that stands for itself, whatever it means in a regular expression.
fn push_literal(letter: char, regular: &mut String) {
    if r"\.+*?()|[]{}^$#&-~".contains(letter) {
        regular.push('\\');
    }
    regular.push(letter);
}

/// What follows an opening bracket, to its end: characters, ranges and classes such as
/// `[:digit:]`.
fn push_bracket(
    letters: &mut Peekable<Chars<'_>>,
    escape: char,
    regular: &mut String,
) -> Result<(), &'static str> {
    regular.push('[');
    if letters.next_if_eq(&'^').is_some() {
        regular.push('^');
    }
    let mut is_first = true;
    while let Some(letter) = letters.next() {
        match letter {
            _ if letter == escape => push_escaped(letters.next(), regular)?,
            ']' if !is_first => {
                regular.push(']');
                return Ok(());
            }
            '[' if letters.peek() == Some(&':') => {
                regular.push('[');
                let is_name = |letter: &char| letter.is_ascii_alphabetic() || *letter == ':';
                while let Some(letter) = letters.next_if(is_name) {
                    regular.push(letter.to_ascii_lowercase());
                }
                regular.extend(letters.next_if_eq(&']'));
            }
            // Between two characters; two of them would take one set from another.
            '-' if letters.peek() != Some(&'-') => regular.push('-'),
            _ => push_literal(letter, regular),
        }
        is_first = false;
    }
    Err("has a bracket that is not closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_of_the_whole_text() {
        for (pattern, expected) in [
            ("", "^(?s:)$"),
            ("a%_c", "^(?s:a.*.c)$"),
            ("(a|b)+", "^(?s:(?:a|b)+)$"),
            ("a.c^$", r"^(?s:a\.c\^\$)$"),
            (r"100\%", r"^(?s:100%)$"),
            (r"\d{2}\.\\", r"^(?s:\d{2}\.\\)$"),
            ("[a-z_%.]", r"^(?s:[a-z_%\.])$"),
            ("[^]a[]x", r"^(?s:[^\]a\[]x)$"),
            ("[[:ALPHA:]&&_--]", r"^(?s:[[:alpha:]\&\&_\--])$"),
        ] {
            assert_eq!(translated(pattern, ESCAPE).as_deref(), Ok(expected), "{pattern}");
        }
        assert_eq!(translated("a!%b\\", '!').as_deref(), Ok(r"^(?s:a%b\\)$"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (pattern, what) in [
            ("a\\", "escape"),
            ("[a\\", "escape"),
            ("[a", "bracket"),
            ("[]", "bracket"),
            ("a)|(b", "not open"),
            ("(a", "not closed"),
        ] {
            let error = translated(pattern, ESCAPE).unwrap_err();
            assert!(error.contains(what), "{pattern}: {error}");
        }
        let error = regular(&"(".repeat(1_000), None).unwrap_err().to_string();
        assert!(error.contains("has a group") && error.len() < 300, "{error}");
    }
}
