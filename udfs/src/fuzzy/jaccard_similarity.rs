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
use super::kernel::sets::{share, shared};
use super::stop::Stop;

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
    jaccard_similarity,
    Stop::of
);

fn jaccard_similarity(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
) -> Result<ColumnarValue> {
    similarity(name, arguments, rows, stop, read, |(_, left), (_, right)| {
        let ascii = (left.ascii & right.ascii).count_ones() as usize;
        let common = ascii + shared(&left.others, &right.others);
        share(common, left.len() + right.len() - common)
    })
}

/// The characters of a text, each once.
#[derive(Default)]
struct Characters {
    /// Bit i: the text has the ASCII character i.
    ascii: u128,
    /// The others, in order.
    others: Vec<u64>,
}

impl Characters {
    fn len(&self) -> usize {
        self.ascii.count_ones() as usize + self.others.len()
    }
}

fn read(text: &str, characters: &mut Characters) {
    let Characters { ascii, others } = characters;
    others.clear();
    if text.is_ascii() {
        *ascii = text.bytes().fold(0, |set, byte| set | 1 << (byte & 127));
        return;
    }
    *ascii = 0;
    for letter in text.chars() {
        match u8::try_from(letter) {
            Ok(byte) if byte.is_ascii() => *ascii |= 1_u128 << byte,
            _ => others.push(u64::from(letter)),
        }
    }
    others.sort_unstable();
    others.dedup();
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
                ("aé", "a", 0.5),
                ("éaé", "aüé", 0.6667),
                ("日本", "日", 0.5),
                ("a", "", 0.0),
                ("", "", 1.0),
            ],
        );
    }
}
