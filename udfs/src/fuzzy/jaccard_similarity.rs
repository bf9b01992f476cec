//! `jaccard_similarity(a, b)`: shared characters over all characters of two texts, as sets.
//!
//! `|A ∩ B| / |A ∪ B|` of the sets of code points (Jaccard 1901), as DuckDB's `jaccard`, which
//! works on bytes and makes an empty text an error. Here two empty texts give 1, one gives 0. NULL
//! for NULL.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{scalar_function, similarity, texts};
use super::kernel::sets::{characters, share, shared};

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "The number of distinct characters that two texts share, divided by the number that either has; from 0 to 1. Order and repetition do not count.",
    syntax_example = "jaccard_similarity(a, b)",
    sql_example = r#"```sql
> SELECT jaccard_similarity('duck', 'luck') AS similarity;
+------------+
| similarity |
+------------+
| 0.6        |
+------------+
```"#,
    argument(name = "a", description = "A text."),
    argument(name = "b", description = "The text to compare it with.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct JaccardSimilarityFunction {
    signature: Signature,
}

scalar_function!(
    JaccardSimilarityFunction,
    "jaccard_similarity",
    texts(2),
    DataType::Float64,
    jaccard_similarity
);

fn jaccard_similarity(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
) -> Result<ColumnarValue> {
    let (mut left_set, mut right_set) = (Vec::new(), Vec::new());
    similarity(name, arguments, rows, |left, right| {
        if left.is_ascii() && right.is_ascii() {
            let (left, right) = (ascii_set(left), ascii_set(right));
            let common = (left & right).count_ones();
            return share(common as usize, (left | right).count_ones() as usize);
        }
        characters(left, &mut left_set);
        characters(right, &mut right_set);
        let common = shared(&left_set, &right_set);
        share(common, left_set.len() + right_set.len() - common)
    })
}

fn ascii_set(text: &str) -> u128 {
    text.bytes().fold(0, |set, byte| set | 1 << (byte & 127))
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::similarity_table;

    #[test]
    fn sets_of_characters() {
        similarity_table(
            "jaccard_similarity",
            &[
                ("duck", "luck", 0.6),
                ("aaab", "ba", 1.0),
                ("night", "nacht", 0.4286),
                ("é", "e", 0.0),
                ("日本", "日", 0.5),
                ("a", "", 0.0),
                ("", "", 1.0),
            ],
        );
    }
}
