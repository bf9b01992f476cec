//! `token_set_ratio(a, b)`: how alike two texts are as sets of words.
//!
//! With the shared words S and the rest of each side A and B, sorted and joined by blanks, the best
//! of the ratios of (S, S A), (S, S B) and (S A, S B), 0 to 100, as RapidFuzz's
//! `fuzz.token_set_ratio` without a processor: 100 when one side's words are among the other's.
//! Case counts. Two texts without words give 100 (RapidFuzz: 0), one gives 0; NULL for NULL.

use std::cmp::Ordering;

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{scalar_function, similarity, texts};
use super::kernel::{Pattern, Scratch};
use super::stop::Stop;
use super::words::Words;

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
    token_set_ratio,
    Stop::of
);

fn token_set_ratio(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
) -> Result<ColumnarValue> {
    let scratch = Scratch::new(stop.clone());
    let mut rests = Rests { scratch, ..Rests::default() };
    let read = |text: &str, words: &mut Words| words.read_distinct(text);
    similarity(name, arguments, rows, stop, read, |(_, left), (_, right)| rests.ratio(left, right))
}

/// The words that only one of two texts has, joined by blanks; reused from pair to pair.
#[derive(Default)]
struct Rests {
    left: String,
    right: String,
    pattern: Pattern,
    scratch: Scratch,
}

impl Rests {
    fn ratio(&mut self, left: &Words, right: &Words) -> f64 {
        if left.is_empty() || right.is_empty() {
            return if left.is_empty() == right.is_empty() { 100.0 } else { 0.0 };
        }
        let shared_len = self.part(left, right);
        if shared_len > 0 && (self.left.is_empty() || self.right.is_empty()) {
            return 100.0;
        }
        self.pattern.reset(&self.left);
        let (common, right_len) = self.pattern.common_subsequence(&self.right, &mut self.scratch);
        let left_len = self.pattern.len();
        let blank = usize::from(shared_len > 0);
        let with_left = shared_len + blank + left_len;
        let with_right = shared_len + blank + right_len;
        // The rests are compared alone: the shared beginning costs nothing and counts in the
        // lengths.
        let best = similar(left_len + right_len - 2 * common, with_left + with_right);
        if shared_len == 0 {
            return best;
        }
        best.max(similar(blank + left_len, shared_len + with_left))
            .max(similar(blank + right_len, shared_len + with_right))
    }

    /// Finds the words of one side only; gives the length of the shared words, joined by blanks.
    fn part(&mut self, left: &Words, right: &Words) -> usize {
        self.left.clear();
        self.right.clear();
        let mut shared_len = 0;
        let (mut lefts, mut rights) = (left.iter().peekable(), right.iter().peekable());
        loop {
            let order = match (lefts.peek(), rights.peek()) {
                (Some(one), Some(other)) => one.cmp(other),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return shared_len,
            };
            let (one, other) = match order {
                Ordering::Less => (lefts.next(), None),
                Ordering::Equal => (lefts.next(), rights.next()),
                Ordering::Greater => (None, rights.next()),
            };
            match (one, other) {
                (Some(word), Some(_)) => {
                    shared_len += usize::from(shared_len > 0) + word.chars().count();
                }
                (Some(word), None) => append(&mut self.left, word),
                (None, Some(word)) => append(&mut self.right, word),
                (None, None) => {}
            }
        }
    }
}

/// Puts a word behind others.
fn append(words: &mut String, word: &str) {
    if !words.is_empty() {
        words.push(' ');
    }
    words.push_str(word);
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
