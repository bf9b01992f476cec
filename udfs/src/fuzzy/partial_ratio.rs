//! `partial_ratio(a, b)`: how alike the shorter text is to the best-fitting part of the longer.
//!
//! The best `100·2·LCS / (|a| + |w|)` of the shorter text a over the windows w of the longer: those
//! as long as a, and the shorter ones at its two ends; for equal lengths, both ways round. 0 to
//! 100, as RapidFuzz's `fuzz.partial_ratio`. Case counts. Two empty texts give 100, one gives 0;
//! NULL for NULL. Moving a window by one changes its LCS by at most one, so windows that cannot win
//! are skipped; a pair that could still take more than [`WORK_MAX`] steps is an error.

use arrow::datatypes::{DataType, Float64Type};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, Signature};
use datafusion_macros::user_doc;

use super::arguments::{scalar_function, texts, two_texts};
use super::kernel::edit::BlockScratch;
use super::kernel::{Symbol, clear_masks, set_masks, subsequence};

/// Most steps (64 cells of a matrix each) for one pair: some ten seconds.
const WORK_MAX: u64 = 4_000_000_000;

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

scalar_function!(PartialRatioFunction, "partial_ratio", texts(2), DataType::Float64, partial_ratio);

fn partial_ratio(name: &str, arguments: &[ColumnarValue], rows: usize) -> Result<ColumnarValue> {
    let mut windows = Windows::default();
    two_texts::<Float64Type>(name, arguments, rows, |left, right| {
        let Some(best) = windows.best(left, right) else {
            return exec_err!(
                "{name}: two texts of {} and {} bytes take too long to compare. \
                 Compare shorter pieces, for instance with left(text, 1000)",
                left.len(),
                right.len()
            );
        };
        Ok(Some(100.0 * best))
    })
}

/// Buffers, reused from pair to pair.
#[derive(Default)]
struct Windows {
    alphabet: Vec<char>,
    needle: Vec<u32>,
    hay: Vec<u32>,
    scratch: BlockScratch,
    work: u64,
}

impl Windows {
    /// The best ratio, 0 to 1; `None` when it takes too much work.
    fn best(&mut self, left: &str, right: &str) -> Option<f64> {
        if left.is_empty() || right.is_empty() {
            return Some(if left.len() == right.len() { 1.0 } else { 0.0 });
        }
        if left.contains(right) || right.contains(left) {
            return Some(1.0);
        }
        self.encode(left, right);
        if !self.shares_symbols() {
            return Some(0.0);
        }
        self.work = 0;
        if self.needle.len() > self.hay.len() {
            std::mem::swap(&mut self.needle, &mut self.hay);
        }
        let best = self.one_way(0.0)?;
        if self.needle.len() < self.hay.len() {
            return Some(best);
        }
        std::mem::swap(&mut self.needle, &mut self.hay);
        self.one_way(best)
    }

    /// Numbers the distinct characters, so that masks take a table of few rows.
    fn encode(&mut self, left: &str, right: &str) {
        self.alphabet.clear();
        self.alphabet.extend(left.chars().chain(right.chars()));
        self.alphabet.sort_unstable();
        self.alphabet.dedup();
        for (text, symbols) in [(left, &mut self.needle), (right, &mut self.hay)] {
            symbols.clear();
            symbols.extend(text.chars().filter_map(|letter| {
                self.alphabet.binary_search(&letter).ok().and_then(|at| u32::try_from(at).ok())
            }));
        }
    }

    fn shares_symbols(&self) -> bool {
        let mut seen = vec![false; self.alphabet.len()];
        for &symbol in &self.needle {
            seen[symbol.index()] = true;
        }
        self.hay.iter().any(|symbol| seen[symbol.index()])
    }

    /// The better of `best` and the windows of the hay.
    fn one_way(&mut self, mut best: f64) -> Option<f64> {
        let length = self.needle.len();
        let symbols = self.alphabet.len();
        if self.scratch.masks.len() < symbols {
            self.scratch.masks.resize(symbols, 0);
        }
        if length <= 64 {
            set_masks(&mut self.scratch.masks, &self.needle);
        }
        let result = self.all_windows(&mut best, length);
        if length <= 64 {
            clear_masks(&mut self.scratch.masks, &self.needle);
        }
        result.map(|()| best)
    }

    fn all_windows(&mut self, best: &mut f64, length: usize) -> Option<()> {
        let end = self.hay.len();
        let mut most = 0;
        let mut from = 0;
        while from + length <= end {
            let common = self.common(from, from + length)?;
            most = most.max(common);
            from += (most + 1 - common).max(1);
        }
        *best = best.max(subsequence::ratio(most, length, length));
        for at_start in [true, false] {
            let mut size = length - 1;
            while size > 0 && subsequence::ratio(size, length, size) > *best {
                let (from, to) = if at_start { (0, size) } else { (end - size, end) };
                let common = self.common(from, to)?;
                *best = best.max(subsequence::ratio(common, length, size));
                // A smaller window shares no more, so only one this small can be better.
                let small_enough = (2 * common) as f64 / *best - length as f64;
                size = (size - 1).min(small_enough as usize);
            }
        }
        Some(())
    }

    /// LCS of the needle and a window; `None` when the pair has taken too many steps.
    fn common(&mut self, from: usize, to: usize) -> Option<usize> {
        let window = self.hay.get(from..to).unwrap_or_default();
        let length = self.needle.len();
        self.work += (length.div_ceil(64) * window.len()) as u64;
        if self.work > WORK_MAX {
            return None;
        }
        if length <= 64 {
            return Some(subsequence::word(&self.scratch.masks, length, window));
        }
        let symbols = self.alphabet.len();
        Some(subsequence::blocks(&self.needle, window, symbols, &mut self.scratch))
    }
}

#[cfg(test)]
mod tests {
    use super::Windows;
    use crate::fuzzy::kernel::oracle::common_subsequence;
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
            let mut windows = Windows::default();
            prop_assert_eq!(windows.best(&left, &right), Some(plain(&left, &right)));
        }
    }
}
