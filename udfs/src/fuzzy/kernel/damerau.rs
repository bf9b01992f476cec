//! The unrestricted Damerau-Levenshtein distance, in linear memory.
//!
//! Zhao and Sahni (2019): of the earlier rows of the dynamic-programming matrix only two are needed
//! besides, for each column, the cost before the last row whose symbol is the column's. Swaps with
//! something between on both sides are not tried: other edits cost no more. Time is the product of
//! the lengths, memory three words for each symbol of the shorter text.

use super::{Symbol, strip_common};
use crate::fuzzy::stop::Stop;

/// Working memory of [`distance`], reused from pair to pair.
#[derive(Debug, Default, Clone)]
pub struct DamerauScratch {
    /// The last row so far of each symbol, counted from 1; 0 for none, also between pairs.
    last_rows: Vec<usize>,
    /// The costs of a row, after a place that costs more than any distance.
    current: Vec<usize>,
    /// Those of the row before.
    before: Vec<usize>,
    /// Where a column's symbol was met last, the cost two columns to the left, a row above.
    swapped_from: Vec<usize>,
}

/// Distance between two texts whose symbols are below `symbols`; any number once nobody wants it.
pub fn distance<S: Symbol>(
    left: &[S],
    right: &[S],
    symbols: usize,
    scratch: &mut DamerauScratch,
    stop: &Stop,
) -> usize {
    let (left, right) = strip_common(left, right);
    let (rows, columns) = if left.len() < right.len() { (right, left) } else { (left, right) };
    let width = columns.len();
    if width == 0 {
        return rows.len();
    }
    scratch.start(rows.len() + 1, width, symbols);
    let mut pace = stop.pace();
    for (row, &symbol) in (1..).zip(rows) {
        if pace.spend(4 * width).is_err() {
            break;
        }
        std::mem::swap(&mut scratch.current, &mut scratch.before);
        scratch.fill(row, symbol, columns, rows.len() + 1);
        scratch.last_rows[symbol.index()] = row;
    }
    for symbol in rows {
        scratch.last_rows[symbol.index()] = 0;
    }
    scratch.current[width + 1]
}

impl DamerauScratch {
    /// Makes the row above the first; `beyond` is more than any distance.
    fn start(&mut self, beyond: usize, width: usize, symbols: usize) {
        let Self { last_rows, current, before, swapped_from } = self;
        last_rows.resize(last_rows.len().max(symbols), 0);
        for costs in [before, swapped_from] {
            costs.clear();
            costs.resize(width + 2, beyond);
        }
        current.clear();
        current.push(beyond);
        current.extend(0..=width);
    }

    /// Computes a row; what `current` held are the costs of the row before the last.
    fn fill<S: Symbol>(&mut self, row: usize, symbol: S, columns: &[S], beyond: usize) {
        let Self { last_rows, current, before, swapped_from } = self;
        let mut last_column = 0;
        let mut swapped = beyond;
        let mut two_above = current[1];
        current[1] = row;
        for (column, &other) in (1..).zip(columns) {
            let substituted = before[column] + usize::from(symbol != other);
            let mut cost = substituted.min(current[column] + 1).min(before[column + 1] + 1);
            if symbol == other {
                last_column = column;
                swapped_from[column + 1] = before[column - 1];
                swapped = two_above;
            } else {
                let last_row = last_rows[other.index()];
                if column - last_column == 1 {
                    cost = cost.min(swapped_from[column + 1] + row - last_row);
                } else if row - last_row == 1 {
                    cost = cost.min(swapped + column - last_column);
                }
            }
            two_above = current[column + 1];
            current[column + 1] = cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use crate::fuzzy::kernel::{Pattern, Scratch};

    /// Lowrance and Wagner (1975), with the whole matrix.
    fn textbook(left: &str, right: &str) -> usize {
        let (a, b): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
        let mut cost = vec![vec![a.len() + b.len(); b.len() + 2]; a.len() + 2];
        let mut last_rows = HashMap::new();
        for i in 0..=a.len() {
            let mut last_column = 0;
            for j in 0..=b.len() {
                if i == 0 || j == 0 {
                    cost[i + 1][j + 1] = i + j;
                    continue;
                }
                let unequal = usize::from(a[i - 1] != b[j - 1]);
                let single = cost[i + 1][j].min(cost[i][j + 1]) + 1;
                let last_row = last_rows.get(&b[j - 1]).copied().unwrap_or(0);
                let between = (i - last_row - 1) + (j - last_column - 1);
                let swapped = cost[last_row][last_column] + between + 1;
                cost[i + 1][j + 1] = single.min(cost[i][j] + unequal).min(swapped);
                if unequal == 0 {
                    last_column = j;
                }
            }
            if i > 0 {
                last_rows.insert(a[i - 1], i);
            }
        }
        cost[a.len() + 1][b.len() + 1]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

        /// One pair after the other in the same working memory.
        #[test]
        fn what_the_textbook_gives(
            pairs in prop::collection::vec(("[a-cü]{0,90}", "[a-dü]{0,90}"), 1..4),
        ) {
            let (mut pattern, mut scratch) = (Pattern::default(), Scratch::default());
            for (left, right) in pairs {
                pattern.reset(&left);
                prop_assert_eq!(pattern.damerau(&right, &mut scratch), textbook(&left, &right));
            }
        }

        #[test]
        fn among_many_distinct_code_points(
            left in "[\u{4e00}-\u{4fff}]{200,210}",
            swaps in prop::collection::vec(0_usize..199, 0..40),
            letter in prop::char::range('a', 'c'),
        ) {
            let mut letters: Vec<char> = left.chars().collect();
            swaps.iter().for_each(|at| letters.swap(*at, at + 1));
            swaps.iter().step_by(3).for_each(|at| letters.insert(*at, letter));
            let (right, mut scratch): (String, _) = (letters.iter().collect(), Scratch::default());
            let expected = textbook(&left, &right);
            prop_assert_eq!(Pattern::new(&left).damerau(&right, &mut scratch), expected);
            prop_assert_eq!(Pattern::new(&right).damerau(&left, &mut scratch), expected);
        }
    }
}
