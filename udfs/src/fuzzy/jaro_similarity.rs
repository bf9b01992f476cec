//! `jaro_similarity(a, b)`: shared characters that stand near each other, 0 to 1.
//!
//! Jaro 1989; the formula is in [`super::kernel::jaro`]. Case-sensitive, code points, NULL for
//! NULL; two empty texts give 1, one empty text 0.

use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{both_valid, columnar, numbers, pair, per_distinct, scalar_function, texts};
use super::pairs::{Jaro, measure};
use super::stop::Stop;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Jaro similarity of two texts, from 0 (no shared characters) to 1 (equal): the share of characters that occur in both near the same position, less the transposed ones.",
    syntax_example = "jaro_similarity(a, b)",
    sql_example = r#"```sql
> SELECT round(jaro_similarity('dixon', 'dicksonx'), 4) AS similarity;
+------------+
| similarity |
+------------+
| 0.7667     |
+------------+
```"#,
    argument(name = "a", description = "A text."),
    argument(name = "b", description = "The text to compare it with.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct JaroSimilarityFunction {
    signature: Signature,
}

scalar_function!(
    JaroSimilarityFunction,
    "jaro_similarity",
    texts(2),
    DataType::Float64,
    jaro_function::<false>,
    Stop::of
);

/// Jaro or Jaro-Winkler similarity of two columns, as a function.
pub(crate) fn jaro_function<const WINKLER: bool>(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
) -> Result<ColumnarValue> {
    let (left, right) = pair(name, arguments)?;
    columnar(arguments, rows, |rows| {
        per_distinct(&left, &right, rows, |left, right, rows| {
            let valid = both_valid(left, right, rows);
            let values = measure(&Jaro::<WINKLER>, left, right, rows, valid.as_ref(), stop)?;
            numbers::<Float64Type>(values, valid)
        })
    })
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::similarity_table;

    #[test]
    fn published_similarities() {
        similarity_table(
            "jaro_similarity",
            &[
                ("martha", "marhta", 0.9444),
                ("dixon", "dicksonx", 0.7667),
                ("jellyfish", "smellyfish", 0.8963),
                ("dwayne", "duane", 0.8222),
                ("abc", "xyz", 0.0),
                ("", "", 1.0),
                ("a", "", 0.0),
                ("müller", "muller", 0.8889),
            ],
        );
    }
}
