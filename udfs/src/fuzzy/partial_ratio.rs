//! `partial_ratio(a, b)`: how alike the shorter text is to the best-fitting part of the longer.
//!
//! The best `100·2·LCS / (|a| + |w|)` of the shorter text a over the windows w of the longer: those
//! as long as a, and the shorter ones at its two ends; for equal lengths, both ways round. 0 to
//! 100, as RapidFuzz's `fuzz.partial_ratio`. Case counts. Two empty texts give 100, one gives 0;
//! NULL for NULL. A pair that would take some ten seconds is an error ([`super::kernel::windows`]).

use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::Result;
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{scalar_function, texts, too_long, two_texts};
use super::kernel::{Pattern, Scratch};
use super::stop::Stop;

#[user_doc(
    doc_section(label = "Identity Functions"),
    description = "How alike the shorter text is to the part of the longer text that fits it best, from 0 to 100: RapidFuzz's partial_ratio. Case counts.",
    syntax_example = "partial_ratio(a, b)",
    sql_example = r#"```sql
> SELECT partial_ratio('yankees', 'new york yankees') AS ratio;
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
pub struct PartialRatioFunction {
    signature: Signature,
}

scalar_function!(
    PartialRatioFunction,
    "partial_ratio",
    texts(2),
    DataType::Float64,
    partial_ratio,
    Stop::of
);

fn partial_ratio(
    name: &str,
    arguments: &[ColumnarValue],
    rows: usize,
    stop: &Stop,
) -> Result<ColumnarValue> {
    let mut scratch = Scratch::new(stop.clone());
    let first = |text: &str, pattern: &mut Pattern| pattern.reset(text);
    let second = |_: &str, (): &mut ()| {};
    two_texts::<Float64Type, Pattern, ()>(
        name,
        arguments,
        rows,
        stop,
        (first, second),
        |(left, pattern), (right, ())| {
            if let Some(best) = best(left, pattern, right, &mut scratch) {
                return Ok(Some(100.0 * best));
            }
            stop.check()?;
            too_long(name, left, right)
        },
    )
}

/// The best ratio, 0 to 1; `None` when it takes too much work, or nobody wants it any more.
fn best(left: &str, pattern: &Pattern, right: &str, scratch: &mut Scratch) -> Option<f64> {
    let written = !left.is_empty() && !right.is_empty();
    if written && (left.contains(right) || right.contains(left)) {
        return Some(1.0);
    }
    pattern.partial_ratio(right, scratch)
}

#[cfg(test)]
mod tests {
    use crate::fuzzy::kernel::oracle::common_subsequence;
    use crate::fuzzy::kernel::{Pattern, Scratch};
    use crate::fuzzy::testing::similarity_table;
    use proptest::prelude::*;

    #[test]
    fn the_values_of_rapidfuzz() {
        similarity_table(
            "partial_ratio",
            &[
                ("this is a test", "this is a test!", 100.0),
                ("yankees", "new york yankees", 100.0),
                ("abcd", "XXXbcdeEEE", 75.0),
                ("abc", "xyz", 0.0),
                ("ab", "ba", 66.6667),
                ("", "", 100.0),
                ("", "a", 0.0),
            ],
        );
    }

    /// The definition: every window of every length up to the needle's that touches an end.
    fn plain(left: &str, right: &str) -> f64 {
        let (mut a, mut b): (Vec<char>, Vec<char>) =
            (left.chars().collect(), right.chars().collect());
        let mut best: f64 = 0.0;
        if a.len() > b.len() {
            std::mem::swap(&mut a, &mut b);
        }
        for _ in 0..if a.len() == b.len() { 2 } else { 1 } {
            let needle: String = a.iter().collect();
            for from in 0..b.len() {
                for to in from + 1..=b.len().min(from + a.len()) {
                    if to - from < a.len() && from > 0 && to < b.len() {
                        continue;
                    }
                    let window: String = b[from..to].iter().collect();
                    let common = common_subsequence(&needle, &window);
                    best = best.max(2.0 * common as f64 / (a.len() + to - from) as f64);
                }
            }
            std::mem::swap(&mut a, &mut b);
        }
        best
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn skipping_loses_no_window(left in "[a-cü]{1,14}", right in "[a-cü]{1,20}") {
            let (pattern, mut scratch) = (Pattern::new(&left), Scratch::default());
            let best = super::best(&left, &pattern, &right, &mut scratch);
            prop_assert_eq!(best, Some(plain(&left, &right)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        /// More distinct letters than bytes have numbers for.
        #[test]
        fn nor_among_many_letters(
            left in "[\u{4e00}-\u{4fff}]{200,210}",
            from in 0_usize..60,
            letter in prop::char::range('一', '丿'),
        ) {
            let letters: Vec<char> = left.chars().collect();
            let right: String = letters[from..from + 70].iter().chain([&letter]).collect();
            let (expected, mut scratch) = (plain(&left, &right), Scratch::default());
            for (one, other) in [(&left, &right), (&right, &left)] {
                let best = super::best(one, &Pattern::new(one), other, &mut scratch);
                prop_assert_eq!(best, Some(expected));
            }
        }
    }
}
