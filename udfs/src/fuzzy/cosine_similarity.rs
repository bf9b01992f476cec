//! `cosine_similarity(a, b)`: the angle between two texts' counts of character pairs, 0 to 1.
//!
//! `Σ aᵢbᵢ / (|a|·|b|)` over counts of bigrams, two adjacent code points; a text of one character
//! is its own only gram. Case-sensitive. Two empty texts give 1, one gives 0; NULL for NULL.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{scalar_function, similarity, texts};
use super::kernel::sets::{bigrams, cosine};
use super::stop::Stop;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Cosine of the angle between two texts, each taken as its counts of bigrams (pairs of adjacent characters); from 0 (none shared) to 1. Word order counts little, so it suits longer texts.",
    syntax_example = "cosine_similarity(a, b)",
    sql_example = r#"```sql
> SELECT cosine_similarity('night', 'nacht') AS similarity;
+------------+
| similarity |
+------------+
| 0.25       |
+------------+
```"#,
    argument(name = "a", description = "A text."),
    argument(name = "b", description = "The text to compare it with.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CosineSimilarityFunction {
    signature: Signature,
}

scalar_function!(
    CosineSimilarityFunction,
    "cosine_similarity",
    texts(2),
    DataType::Float64,
    cosine_similarity,
    Stop::of
);

fn cosine_similarity(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
) -> Result<ColumnarValue> {
    similarity(name, arguments, rows, stop, bigrams, |(_, left), (_, right)| cosine(left, right))
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::similarity_table;

    #[test]
    fn counts_of_bigrams() {
        similarity_table(
            "cosine_similarity",
            &[
                ("night", "nacht", 0.25),
                ("abab", "abab", 1.0),
                ("ababab", "ab", 0.8321),
                ("a", "a", 1.0),
                ("a", "ab", 0.0),
                ("日本語", "日本人", 0.5),
                ("", "", 1.0),
                ("a", "", 0.0),
            ],
        );
    }
}
