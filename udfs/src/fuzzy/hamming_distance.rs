//! `hamming_distance(a, b)`: positions at which two texts differ.
//!
//! Hamming 1950. For texts of unequal length every character beyond the shorter one counts as a
//! difference, as RapidFuzz's `hamming(pad=True)`; DuckDB makes that an error. Counts code points,
//! NULL for NULL.

use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{distance, scalar_function, texts};
use super::stop::Stop;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "Counts the positions at which two texts have different characters; each character beyond the end of the shorter text counts as one.",
    syntax_example = "hamming_distance(a, b)",
    sql_example = r#"```sql
> SELECT hamming_distance('karolin', 'kathrin') AS distance;
+----------+
| distance |
+----------+
| 3        |
+----------+
```"#,
    argument(name = "a", description = "A text."),
    argument(name = "b", description = "The text to compare it with.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct HammingDistanceFunction {
    signature: Signature,
}

scalar_function!(
    HammingDistanceFunction,
    "hamming_distance",
    texts(2),
    DataType::Int64,
    hamming_distance,
    Stop::of
);

fn hamming_distance(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
) -> Result<ColumnarValue> {
    let nothing = |_: &str, (): &mut ()| {};
    distance(name, arguments, rows, stop, nothing, |(left, ()), right| {
        if left.is_ascii() && right.is_ascii() {
            let unequal = left.bytes().zip(right.bytes()).filter(|(x, y)| x != y).count();
            return unequal + left.len().abs_diff(right.len());
        }
        let (mut left, mut right) = (left.chars(), right.chars());
        let mut unequal = 0;
        loop {
            match (left.next(), right.next()) {
                (None, None) => return unequal,
                (x, y) => unequal += usize::from(x != y),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::testing::distance_table;

    #[test]
    fn published_distances() {
        distance_table(
            "hamming_distance",
            &[
                ("karolin", "kathrin", 3),
                ("karolin", "kerstin", 3),
                ("1011101", "1001001", 2),
                ("abc", "ab", 1),
                ("", "日本", 2),
                ("éa", "ea", 1),
                ("", "", 0),
            ],
        );
    }
}
