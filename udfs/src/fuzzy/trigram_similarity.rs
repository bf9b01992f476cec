//! `trigram_similarity(a, b)`: shared trigrams over all trigrams of two texts, as pg_trgm.
//!
//! A text is lower-cased and split into words of letters and digits; each word is padded with two
//! blanks before and one after and cut into trigrams. The similarity is `|A ∩ B| / |A ∪ B|` of the
//! two sets. Texts without a word give 1 when they are equal (two empty texts; pg_trgm says 0),
//! otherwise 0. NULL for NULL.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{scalar_function, similarity, texts};
use super::kernel::sets::{share, shared, trigrams};
use super::stop::Stop;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "The number of trigrams (three adjacent characters) that two texts share, divided by the number that either has, as `similarity` of PostgreSQL's pg_trgm: lower case, words padded with blanks; from 0 to 1.",
    syntax_example = "trigram_similarity(a, b)",
    sql_example = r#"```sql
> SELECT round(trigram_similarity('word', 'two words'), 6) AS similarity;
+------------+
| similarity |
+------------+
| 0.363636   |
+------------+
```"#,
    argument(name = "a", description = "A text."),
    argument(name = "b", description = "The text to compare it with.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TrigramSimilarityFunction {
    signature: Signature,
}

scalar_function!(
    TrigramSimilarityFunction,
    "trigram_similarity",
    texts(2),
    DataType::Float64,
    trigram_similarity,
    Stop::of
);

fn trigram_similarity(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
) -> Result<ColumnarValue> {
    similarity(name, arguments, rows, stop, trigrams, |(left, left_set), (right, right_set)| {
        if left_set.is_empty() && right_set.is_empty() {
            return if left == right { 1.0 } else { 0.0 };
        }
        let common = shared(left_set, right_set);
        share(common, left_set.len() + right_set.len() - common)
    })
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::similarity_table;

    #[test]
    fn the_values_of_pg_trgm() {
        similarity_table(
            "trigram_similarity",
            &[
                ("word", "two words", 0.3636),
                ("cat", "CAT", 1.0),
                ("foo|bar", "foo bar", 1.0),
                ("abc", "xyz", 0.0),
                ("a", "", 0.0),
                ("Müller", "müller", 1.0),
                ("", "", 1.0),
                ("!", "?", 0.0),
            ],
        );
    }
}
