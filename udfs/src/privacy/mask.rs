//! `mask(text [, keep_first [, keep_last [, character]]])`: covers characters one by one.
//!
//! Each Unicode code point but the first `keep_first` and the last `keep_last` becomes
//! `character` ('*'). A text no longer than what would be kept is covered whole, so that short
//! values do not slip through. The length stays visible. NULL in any argument gives NULL.

use arrow::datatypes::DataType;
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl};
use datafusion_expr::{Signature, TypeSignature, Volatility};
use datafusion_macros::user_doc;

use super::arguments::{self, Integers};
use crate::text::Text;

const NAME: &str = "mask";

/// The function `mask`.
#[user_doc(
    doc_section(label = "Privacy Functions"),
    description = "Covers the characters of a text except the first and the last few. A text that \
would be shown whole is covered whole. The length stays visible.",
    syntax_example = "mask(text [, keep_first [, keep_last [, character]]])",
    sql_example = r#"```sql
> SELECT mask('4111111111111111', 0, 4) AS card, mask('Ada', 1, 4) AS name;
+------------------+------+
| card             | name |
+------------------+------+
| ************1111 | ***  |
+------------------+------+
```"#,
    argument(name = "text", description = "Text to cover. NULL gives NULL."),
    argument(
        name = "keep_first",
        description = "How many characters stay in front: 0 by default."
    ),
    argument(
        name = "keep_last",
        description = "How many characters stay at the end: 0 by default."
    ),
    argument(name = "character", description = "One character to cover with: '*' by default.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Mask {
    signature: Signature,
}

impl Mask {
    /// The function.
    pub fn new() -> Self {
        let text = arguments::text_coercion;
        let integer = arguments::integer_coercion;
        let signature = Signature::one_of(
            vec![
                TypeSignature::Coercible(vec![text()]),
                TypeSignature::Coercible(vec![text(), integer()]),
                TypeSignature::Coercible(vec![text(), integer(), integer()]),
                TypeSignature::Coercible(vec![text(), integer(), integer(), text()]),
            ],
            Volatility::Immutable,
        );
        Self { signature }
    }
}

impl Default for Mask {
    fn default() -> Self {
        Self::new()
    }
}

impl ScalarUDFImpl for Mask {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = arguments::text_argument(NAME, &args, 0)?;
        let keep = |position: usize| match args.args.get(position) {
            Some(value) => Integers::from_argument(NAME, value),
            None => Ok(Integers::Constant(Some(0))),
        };
        let (first, last) = (keep(1)?, keep(2)?);
        let covers = match args.args.get(3) {
            Some(value) => Text::from_argument(NAME, value)?,
            None => Text::Constant(Some("*".into())),
        };
        let constant = texts.is_constant() && covers.is_constant();
        let constant = constant && first.is_constant() && last.is_constant();
        arguments::text_rows(args.number_rows, constant, |row, out| {
            let (Some(first), Some(last)) = (first.get(row), last.get(row)) else {
                return Ok(false);
            };
            let (Some(text), Some(cover)) = (texts.get(row), covers.get(row)) else {
                return Ok(false);
            };
            cover_text(text, kept("first", first)?, kept("last", last)?, one(cover)?, out);
            Ok(true)
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

fn kept(which: &str, count: i128) -> Result<usize> {
    match usize::try_from(count) {
        Ok(count) => Ok(count),
        Err(_) if count > 0 => Ok(usize::MAX),
        Err(_) => exec_err!("{NAME}: keep_{which} is {count}, it must not be negative"),
    }
}

fn one(cover: &str) -> Result<char> {
    let mut characters = cover.chars();
    match (characters.next(), characters.next()) {
        (Some(character), None) => Ok(character),
        _ => exec_err!("{NAME}: the covering text must be exactly one character such as '*'"),
    }
}

fn cover_text(text: &str, first: usize, last: usize, cover: char, out: &mut String) {
    let length = text.chars().count();
    let kept = first.saturating_add(last);
    let (first, last) = if kept >= length { (0, 0) } else { (first, last) };
    for (position, character) in text.chars().enumerate() {
        let covered = position >= first && position < length - last;
        out.push(if covered { cover } else { character });
    }
}

#[cfg(test)]
mod tests {
    use datafusion_common::ScalarValue;

    use super::super::arguments::testing::{call, int, one, text, texts};
    use super::*;

    fn mask(value: &str, first: i64, last: i64) -> String {
        one(Mask::new(), vec![text(value), int(first), int(last)]).unwrap()
    }

    #[test]
    fn keeps_the_ends_and_never_the_whole() {
        assert_eq!(one(Mask::new(), vec![text("Ada")]).unwrap(), "***");
        assert_eq!(mask("4111111111111111", 0, 4), "************1111");
        assert_eq!(mask("Ada", 1, 1), "A*a");
        assert_eq!(mask("Ada", 1, 2), "***");
        assert_eq!(mask("Ada", i64::MAX, i64::MAX), "***");
        assert_eq!(mask("", 1, 2), "");
    }

    #[test]
    fn counts_code_points() {
        assert_eq!(mask("Zoë Škoda", 3, 1), "Zoë*****a");
        let args = vec![text("Zoë"), int(1), int(0), text("█")];
        assert_eq!(one(Mask::new(), args).unwrap(), "Z██");
    }

    #[test]
    fn null_in_any_argument_gives_null() {
        let null = || ColumnarValue::Scalar(ScalarValue::Int64(None));
        assert_eq!(one(Mask::new(), vec![text("Ada"), null()]), None);
        let rows = call(Mask::new(), vec![texts(&[None, Some("Ada")]), int(1)]).unwrap();
        assert_eq!(rows, [None, Some("A**".to_string())]);
    }

    #[test]
    fn bad_options_are_errors() {
        let error = call(Mask::new(), vec![text("Ada"), int(-1)]).unwrap_err().to_string();
        assert!(error.contains("keep_first is -1"), "{error}");
        for cover in ["", "**"] {
            let args = vec![text("Ada"), int(1), int(0), text(cover)];
            let error = call(Mask::new(), args).unwrap_err().to_string();
            assert!(error.contains("exactly one character"), "{error}");
        }
    }
}
