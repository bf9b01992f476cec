//! `levenshtein_within(a, b, k)`: whether at most `k` edits turn one text into the other.
//!
//! The form without a convention to know, and the one that a fuzzy join recognizes. NULL for NULL;
//! a negative `k` is an error.

use arrow::array::ArrayRef;
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{
    booleans, both_valid, columnar, integer_coercion, pair, per_distinct, scalar_function,
    signature, text_coercion,
};
use super::levenshtein::{cut_off, cutoff};
use super::pairs::BEYOND;
use super::stop::Stop;
use crate::text::Text;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Whether at most `k` insertions, deletions and substitutions of characters turn one text into the other. In the ON clause of a join it runs as a fuzzy join.",
    syntax_example = "levenshtein_within(a, b, k)",
    sql_example = r#"```sql
> SELECT levenshtein_within('jones', 'johns', 2) AS alike;
+-------+
| alike |
+-------+
| true  |
+-------+
```"#,
    argument(name = "a", description = "A text."),
    argument(name = "b", description = "The text to compare it with."),
    argument(name = "k", description = "Largest distance that counts as alike, zero or more.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct LevenshteinWithinFunction {
    signature: Signature,
}

scalar_function!(
    LevenshteinWithinFunction,
    "levenshtein_within",
    signature(vec![text_coercion(), text_coercion(), integer_coercion()]),
    DataType::Boolean,
    within,
    Stop::of
);

fn within(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
) -> Result<ColumnarValue> {
    let [_, _, max] = arguments else {
        return exec_err!("{name} takes two texts and the largest distance");
    };
    let (left, right) = pair(name, arguments)?;
    let max = cutoff(name, max, rows)?;
    let compute = |left: &Text, right: &Text, rows: usize| -> Result<ArrayRef> {
        let distances = cut_off::<false>(left, right, &max, rows, stop)?;
        let limits = NullBuffer::from_iter((0..rows).map(|row| max.get(row).is_some()));
        let valid = NullBuffer::union(both_valid(left, right, rows).as_ref(), Some(&limits));
        let holds = |row: usize| distances.get(row).is_some_and(|distance| *distance != BEYOND);
        Ok(booleans(rows, valid, holds))
    };
    columnar(arguments, rows, |rows| match max.is_constant() {
        true => per_distinct(&left, &right, rows, compute),
        false => compute(&left, &right, rows),
    })
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::{one_error, truth};

    #[test]
    fn agrees_with_the_distance() {
        let cases = [
            ("jones", "johnson", 4, Some(true)),
            ("jones", "johnson", 3, Some(false)),
            ("", "", 0, Some(true)),
            ("é", "e", 0, Some(false)),
        ];
        for (left, right, k, expected) in cases {
            assert_eq!(truth("levenshtein_within", left, right, k), expected, "{left} {right} {k}");
        }
        let error = one_error("levenshtein_within", "a", "b", -2);
        assert!(error.contains("must be zero or more, got -2"), "{error}");
    }
}
