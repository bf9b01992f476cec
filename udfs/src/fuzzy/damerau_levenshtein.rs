//! `damerau_levenshtein(a, b)`: edits and swaps, where text between a swapped pair may be edited.
//!
//! The unrestricted distance, a metric: `('ca', 'abc')` is 2 as in DuckDB. Memory is linear, time
//! the product of the lengths ([`super::kernel::damerau`]). Counts code points, NULL for NULL.

use arrow::datatypes::{DataType, Int64Type};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{scalar_function, texts, too_long, two_texts};
use super::kernel::{Pattern, Scratch};
use super::stop::Stop;

/// Bytes of the shorter of two texts at most: nobody waits for the product of their lengths, and
/// memory is several words for each character.
const BYTES_MAX: usize = 1 << 24;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Counts the fewest insertions, deletions, substitutions and swaps of adjacent characters that turn one text into the other; characters may come between a swapped pair. `osa_distance` is the faster, restricted form.",
    syntax_example = "damerau_levenshtein(a, b)",
    sql_example = r#"```sql
> SELECT damerau_levenshtein('ca', 'abc') AS distance;
+----------+
| distance |
+----------+
| 2        |
+----------+
```"#,
    argument(name = "a", description = "A text."),
    argument(name = "b", description = "The text to compare it with.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DamerauLevenshteinFunction {
    signature: Signature,
}

scalar_function!(
    DamerauLevenshteinFunction,
    "damerau_levenshtein",
    texts(2),
    DataType::Int64,
    damerau_levenshtein,
    Stop::of
);

fn damerau_levenshtein(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
) -> Result<ColumnarValue> {
    let mut scratch = Scratch::new(stop.clone());
    let first = |text: &str, pattern: &mut Pattern| pattern.reset(text);
    let second = |_: &str, (): &mut ()| {};
    two_texts::<Int64Type, Pattern, ()>(
        name,
        arguments,
        rows,
        stop,
        (first, second),
        |(left, pattern), (right, ())| {
            if left.len().min(right.len()) > BYTES_MAX && left != right {
                return too_long(name, left, right);
            }
            let distance = pattern.damerau(right, &mut scratch);
            Ok(Some(i64::try_from(distance).unwrap_or(i64::MAX)))
        },
    )
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::distance_table;

    #[test]
    fn published_distances() {
        distance_table(
            "damerau_levenshtein",
            &[
                ("ca", "abc", 2),
                ("martha", "marhta", 1),
                ("kitten", "sitting", 3),
                ("éa", "aé", 1),
                ("", "abc", 3),
                ("", "", 0),
            ],
        );
    }
}
