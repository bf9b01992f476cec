//! `normalize_whitespace(text)`: one blank between words and none around them.
//!
//! Every run of Unicode white space, no-break and ideographic spaces included, becomes one blank;
//! signs without width (zero-width spaces, byte order marks, soft hyphens) and control characters
//! go. Letters, case and signs stay. A text of white space alone is the empty text; NULL for NULL.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use crate::fuzzy::arguments::{scalar_function, text_to_text, texts};

#[user_doc(
    doc_section(label = "Quality Functions"),
    description = "Leaves one blank between words and none around them: every run of white space, of any kind and with signs of no width, becomes one blank. Everything else stays.",
    syntax_example = "normalize_whitespace(text)",
    sql_example = r#"```sql
> SELECT normalize_whitespace('  Ann   Lee ') AS name;
+---------+
| name    |
+---------+
| Ann Lee |
+---------+
```"#,
    argument(name = "text", description = "A text.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NormalizeWhitespaceFunction {
    signature: Signature,
}

scalar_function!(
    NormalizeWhitespaceFunction,
    "normalize_whitespace",
    texts(1),
    DataType::Utf8View,
    normalize_whitespace
);

fn normalize_whitespace(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
) -> Result<ColumnarValue> {
    text_to_text(name, arguments, rows, |text| Some(spaced(text)))
}

fn spaced(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len());
    let mut blank = false;
    for letter in text.chars() {
        if letter.is_whitespace() {
            blank = true;
        } else if !is_without_width(letter) {
            if blank && !spaced.is_empty() {
                spaced.push(' ');
            }
            blank = false;
            spaced.push(letter);
        }
    }
    spaced
}

/// Characters that nobody sees; joiners stay, since they make the letters of some scripts.
fn is_without_width(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{200b}' | '\u{2060}' | '\u{feff}' | '\u{ad}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn white_space_of_any_kind_is_one_blank() {
        assert_eq!(spaced("\u{feff} a\u{a0}\u{3000}b\t\r\nc\u{200b}d\u{7} "), "a b cd");
        assert_eq!(spaced(" \t "), "");
        assert_eq!(spaced("x\u{200b} \u{200b} y"), "x y");
    }

    proptest! {
        #[test]
        fn twice_is_once(text in any::<String>()) {
            let once = spaced(&text);
            prop_assert_eq!(spaced(&once), once);
        }
    }
}
