//! `ngrams(text, n)`: the runs of n adjacent characters of a text, in order, as a list.
//!
//! Nothing is padded, folded or dropped; a text shorter than n gives an empty list. Counts code
//! points; NULL for NULL. n is 1 to 64, so that the answer stays within 64 times the text.

use std::sync::Arc;

use arrow::array::{ArrayBuilder, ArrayRef, ListBuilder, StringViewBuilder};
use arrow::datatypes::Int64Type;
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{
    Numbers, columnar, integer_coercion, list_of_text, scalar_function, signature, text_coercion,
};
use crate::text::Text;

const LENGTH_MAX: i64 = 64;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "The runs of `n` adjacent characters of a text, in order, repeated ones included. A text shorter than `n` gives an empty list.",
    syntax_example = "ngrams(text, n)",
    sql_example = r#"```sql
> SELECT ngrams('hello', 3) AS grams;
+-----------------+
| grams           |
+-----------------+
| [hel, ell, llo] |
+-----------------+
```"#,
    argument(name = "text", description = "The text to cut."),
    argument(name = "n", description = "Characters in each gram, 1 to 64.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NgramsFunction {
    signature: Signature,
}

scalar_function!(
    NgramsFunction,
    "ngrams",
    signature(vec![text_coercion(), integer_coercion()]),
    list_of_text(),
    ngrams
);

fn ngrams(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    let [text, length] = arguments else {
        return exec_err!("{name} takes a text and the length of a gram");
    };
    let text = Text::from_argument(name, text)?;
    let length = Numbers::<Int64Type>::from_argument(name, length)?;
    columnar(arguments, rows, |rows| {
        let mut lists = ListBuilder::new(StringViewBuilder::new());
        let mut bounds = Vec::new();
        for row in 0..rows {
            let (Some(text), Some(length)) = (text.get(row), length.get(row)) else {
                lists.append(false);
                continue;
            };
            if !(1..=LENGTH_MAX).contains(&length) {
                return exec_err!("{name}: n must be 1 to {LENGTH_MAX}, got {length}");
            }
            bounds.clear();
            bounds.extend(text.char_indices().map(|(at, _)| at));
            bounds.push(text.len());
            for (from, to) in bounds.iter().zip(bounds.iter().skip(length as usize)) {
                lists.values().append_value(text.get(*from..*to).unwrap_or_default());
            }
            if i32::try_from(lists.values().len()).is_err() {
                return exec_err!("{name}: more than 2^31 grams in one batch. Use shorter texts");
            }
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()) as ArrayRef)
    })
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::{error_of, text, text_list};

    #[test]
    fn grams_in_order() {
        assert_eq!(text_list("ngrams", "hello", Some(3)), ["hel", "ell", "llo"]);
        assert_eq!(text_list("ngrams", "日本語", Some(2)), ["日本", "本語"]);
        assert_eq!(text_list("ngrams", "aaa", Some(1)), ["a", "a", "a"]);
        assert!(text_list("ngrams", "ab", Some(3)).is_empty());
        assert!(text_list("ngrams", "", Some(1)).is_empty());
    }

    #[test]
    fn lengths_out_of_range_are_errors() {
        for n in [0_i64, -1, 65] {
            let error = error_of("ngrams", &[text("a"), n.into()]);
            assert!(error.contains("must be 1 to 64"), "{error}");
        }
    }
}
