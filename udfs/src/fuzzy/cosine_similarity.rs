//! `cosine_similarity(a, b)`: the angle between two texts' counts of character pairs, 0 to 1.
//!
//! `Σ aᵢbᵢ / (|a|·|b|)` over counts of bigrams, two adjacent code points; a text of one character
//! is its own only gram. Case-sensitive. Two empty texts give 1, one gives 0; NULL for NULL.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{scalar_function, similarity, texts};

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
    cosine_similarity
);

fn cosine_similarity(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
) -> Result<ColumnarValue> {
    let (mut left_grams, mut right_grams) = (Vec::new(), Vec::new());
    similarity(name, arguments, rows, |left, right| {
        bigrams(left, &mut left_grams);
        bigrams(right, &mut right_grams);
        match (left_grams.is_empty(), right_grams.is_empty()) {
            (true, true) => 1.0,
            (false, false) => cosine(&left_grams, &right_grams),
            _ => 0.0,
        }
    })
}

/// The sorted bigrams of a text, two code points in a word.
fn bigrams(text: &str, grams: &mut Vec<u64>) {
    grams.clear();
    let mut previous = None;
    for letter in text.chars().map(u64::from) {
        if let Some(previous) = previous {
            grams.push(previous << 32 | letter);
        }
        previous = Some(letter);
    }
    if grams.is_empty() {
        grams.extend(previous);
    }
    grams.sort_unstable();
}

/// Cosine of two sorted lists, whose runs of equal grams are the counts.
fn cosine(left: &[u64], right: &[u64]) -> f64 {
    let square = |grams: &[u64]| -> u64 {
        grams.chunk_by(|x, y| x == y).map(|run| (run.len() as u64).pow(2)).sum()
    };
    let mut dot = 0_u64;
    let mut others = right.chunk_by(|x, y| x == y).peekable();
    for run in left.chunk_by(|x, y| x == y) {
        while others.next_if(|other| other[0] < run[0]).is_some() {}
        if let Some(other) = others.peek().filter(|other| other[0] == run[0]) {
            dot += (run.len() * other.len()) as u64;
        }
    }
    dot as f64 / (square(left) as f64 * square(right) as f64).sqrt()
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
