//! `token_set_ratio(a, b)`: how alike two texts are as sets of words.
//!
//! With the shared words S and the rest of each side A and B, sorted and joined by blanks, the best
//! of the ratios of (S, S A), (S, S B) and (S A, S B), 0 to 100, as RapidFuzz's
//! `fuzz.token_set_ratio` without a processor: 100 when one side's words are among the other's.
//! Case counts. Two texts without words give 100 (RapidFuzz: 0), one gives 0; NULL for NULL.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{scalar_function, similarity, texts};
use super::kernel::{Pattern, Scratch};
use super::token_sort_ratio::sorted_words;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "How alike two texts are as sets of words, from 0 to 100: RapidFuzz's token_set_ratio. 100 when the words of one are among the words of the other. Case counts.",
    syntax_example = "token_set_ratio(a, b)",
    sql_example = r#"```sql
> SELECT token_set_ratio('fuzzy was a bear', 'fuzzy fuzzy was a bear') AS ratio;
+-------+
| ratio |
+-------+
| 100.0 |
+-------+
```"#,
    argument(name = "a", description = "A text."),
    argument(name = "b", description = "The text to compare it with.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TokenSetRatioFunction {
    signature: Signature,
}

scalar_function!(
    TokenSetRatioFunction,
    "token_set_ratio",
    texts(2),
    DataType::Float64,
    token_set_ratio
);

fn token_set_ratio(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    let (mut pattern, mut scratch) = (Pattern::default(), Scratch::default());
    similarity(name, arguments, rows, move |left, right| {
        ratio(left, right, &mut pattern, &mut scratch)
    })
}

fn ratio(left: &str, right: &str, pattern: &mut Pattern, scratch: &mut Scratch) -> f64 {
    let (mut left, mut right) = (sorted_words(left), sorted_words(right));
    left.dedup();
    right.dedup();
    if left.is_empty() || right.is_empty() {
        return if left.len() == right.len() { 100.0 } else { 0.0 };
    }
    let is_shared = |word: &&&str| right.binary_search(word).is_ok();
    let shared: Vec<&str> = left.iter().filter(is_shared).copied().collect();
    left.retain(|word| shared.binary_search(word).is_err());
    right.retain(|word| shared.binary_search(word).is_err());
    if !shared.is_empty() && (left.is_empty() || right.is_empty()) {
        return 100.0;
    }
    pattern.reset(&left.join(" "));
    let (common, right_len) = pattern.common_subsequence(&right.join(" "), scratch);
    let left_len = pattern.len();
    let shared_len = shared.join(" ").chars().count();
    let blank = usize::from(shared_len > 0);
    let (with_left, with_right) = (shared_len + blank + left_len, shared_len + blank + right_len);
    // The rests are compared alone: the shared beginning costs nothing and counts in the lengths.
    let best = similar(left_len + right_len - 2 * common, with_left + with_right);
    if shared_len == 0 {
        return best;
    }
    best.max(similar(blank + left_len, shared_len + with_left))
        .max(similar(blank + right_len, shared_len + with_right))
}

/// `100·(1 - distance / total)`.
fn similar(distance: usize, total: usize) -> f64 {
    if total == 0 { 100.0 } else { 100.0 - 100.0 * distance as f64 / total as f64 }
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::similarity_table;

    #[test]
    fn the_values_of_rapidfuzz() {
        similarity_table(
            "token_set_ratio",
            &[
                ("fuzzy was a bear", "fuzzy fuzzy was a bear", 100.0),
                ("fuzzy fuzzy was a bear", "fuzzy fuzzy fuzzy was a bear", 100.0),
                ("new york mets", "new york yankees", 76.1905),
                ("mariners vs angels", "los angeles angels", 72.2222),
                ("abc", "xyz", 0.0),
                ("", "", 100.0),
                ("a", " ", 0.0),
            ],
        );
    }
}
