//! `token_sort_ratio(a, b)`: how alike two texts are when the order of words does not matter.
//!
//! Words are split at white space, sorted and joined by one blank; the ratio is
//! `100·2·LCS / (|a| + |b|)`, 0 to 100, as RapidFuzz's `fuzz.token_sort_ratio` without a processor:
//! case and punctuation count. Two texts without words give 100; NULL for NULL.

use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{scalar_function, texts, two_texts};
use super::kernel::{Pattern, Scratch};
use super::stop::Stop;
use super::words::Words;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "How alike two texts are after their words are sorted, from 0 to 100: RapidFuzz's token_sort_ratio. Case counts; apply `lower` or `normalize_name` first if it should not.",
    syntax_example = "token_sort_ratio(a, b)",
    sql_example = r#"```sql
> SELECT token_sort_ratio('fuzzy wuzzy was a bear', 'wuzzy fuzzy was a bear') AS ratio;
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
pub struct TokenSortRatioFunction {
    signature: Signature,
}

scalar_function!(
    TokenSortRatioFunction,
    "token_sort_ratio",
    texts(2),
    DataType::Float64,
    token_sort_ratio,
    Stop::of
);

fn token_sort_ratio(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
) -> Result<ColumnarValue> {
    let (mut sorted, mut scratch) = (Words::default(), Scratch::new(stop.clone()));
    let first = |text: &str, pattern: &mut Pattern| {
        sorted.read(text);
        pattern.reset(sorted.joined());
    };
    let second = |text: &str, words: &mut Words| words.read(text);
    two_texts::<Float64Type, Pattern, Words>(
        name,
        arguments,
        rows,
        stop,
        (first, second),
        |(_, pattern), (_, words)| Ok(Some(100.0 * pattern.ratio(words.joined(), &mut scratch))),
    )
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::similarity_table;

    #[test]
    fn the_values_of_rapidfuzz() {
        similarity_table(
            "token_sort_ratio",
            &[
                ("fuzzy wuzzy was a bear", "wuzzy fuzzy was a bear", 100.0),
                ("new york mets", "mets york new", 100.0),
                ("this is a test", "this is a test!", 96.5517),
                ("a b", "b  a ", 100.0),
                ("A", "a", 0.0),
                ("", "", 100.0),
                ("", "a", 0.0),
            ],
        );
    }
}
