//! Pairs of which people know whether they match: decisions, which hold whatever is learned, and
//! labels, which are learned from.
//!
//! A row is about two records, in either order. Of decisions about the same two of which some say
//! TRUE and some FALSE, TRUE holds; labels that contradict each other tell nothing. Rows about a
//! record that there is not, about one record twice or about two that are never compared count for
//! nothing, and are counted.

use std::collections::BTreeMap;
use std::fmt;

use super::blocking::{Blocks, rules_of};
use super::cluster::Decision;
use super::compare::{Comparer, level_of, levels};
use super::dependence::{Dependence, told};
use super::em::{Counted, Shares};
use super::records::Records;
use super::values::Mixed;

/// Rows as they are written: keys of two records, and whether they match.
pub type Written = [(u64, u64, bool)];

/// Rows that count for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ignored {
    /// All rows, those that count too.
    pub rows: usize,
    /// About a record that there is not.
    pub unknown: usize,
    /// About one record twice, or two that are never compared.
    pub itself: usize,
    /// Pairs of which other rows say the contrary.
    pub contradictory: usize,
}

impl Ignored {
    /// Whether every row counts.
    pub fn is_none(&self) -> bool {
        self.unknown + self.itself + self.contradictory == 0
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.unknown, "about records that the query does not have"),
            (self.itself, "about one record twice or two that are never compared"),
            (self.contradictory, "in contradiction with others"),
        ];
        let parts = parts.iter().filter(|(count, _)| *count > 0);
        let parts: Vec<String> = parts.map(|(count, what)| format!("{count} {what}")).collect();
        write!(formatter, "{}", parts.join(", "))
    }
}

/// Pairs by position, each once, in order, and what was ignored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// The pairs.
    pub pairs: Vec<Decision>,
    /// The rest.
    pub ignored: Ignored,
}

impl Known {
    /// Decisions about records that may match: where they contradict each other, TRUE holds.
    pub fn decisions(written: &Written, positions: &Mixed<u64, u32>, records: &Records) -> Self {
        Self::read(written, positions, |left, right| records.may_match(left, right), Some(true))
    }

    /// Labels of pairs of records that may match: those that contradict each other are left out.
    pub fn labels(written: &Written, positions: &Mixed<u64, u32>, records: &Records) -> Self {
        Self::read(written, positions, |left, right| records.may_match(left, right), None)
    }

    fn read(
        written: &Written,
        positions: &Mixed<u64, u32>,
        is_pair: impl Fn(u32, u32) -> bool,
        contradiction: Option<bool>,
    ) -> Self {
        let mut ignored = Ignored { rows: written.len(), ..Ignored::default() };
        let mut said: BTreeMap<(u32, u32), [bool; 2]> = BTreeMap::new();
        for (left, right, is_match) in written {
            match (positions.get(left), positions.get(right)) {
                (Some(&left), Some(&right)) if left != right && is_pair(left, right) => {
                    let pair = (left.min(right), left.max(right));
                    said.entry(pair).or_default()[usize::from(*is_match)] = true;
                }
                (Some(_), Some(_)) => ignored.itself += 1,
                _ => ignored.unknown += 1,
            }
        }
        let mut pairs = Vec::with_capacity(said.len());
        for (pair, [no, yes]) in said {
            ignored.contradictory += usize::from(no && yes);
            let is_match = if no && yes { contradiction } else { Some(yes) };
            let decision = |is_match| Decision { left: pair.0, right: pair.1, is_match };
            pairs.extend(is_match.map(decision));
        }
        Self { pairs, ignored }
    }
}

/// The levels of labelled pairs, counted, with the rules that found them.
pub fn counted(
    labels: &[Decision],
    records: &Records,
    blocks: &[Blocks],
    dependences: &[Dependence],
) -> Vec<Counted> {
    let mut comparer = Comparer::new(records);
    let mut counts: BTreeMap<(u64, u32, bool), f64> = BTreeMap::new();
    for &Decision { left, right, is_match } in labels {
        let levels = told(dependences, comparer.levels(left, right));
        *counts.entry((levels, rules_of(blocks, left, right), is_match)).or_default() += 1.0;
    }
    let pattern = |((levels, rules, is_match), pairs)| Counted {
        levels,
        rules,
        pairs,
        label: Some(is_match),
    };
    counts.into_iter().map(pattern).collect()
}

/// The labelled matches of patterns by column and level, each `times`.
pub fn matches(patterns: &[Counted], records: &Records, times: f64) -> Shares {
    let none = |at: usize| vec![0.0; levels(records.columns[at].kind).len()];
    let mut counts: Shares = (0..records.columns.len()).map(none).collect();
    for pattern in patterns.iter().filter(|pattern| pattern.label == Some(true)) {
        for (column, counts) in counts.iter_mut().enumerate() {
            if let Some(level) = level_of(pattern.levels, column).checked_sub(1) {
                counts[level] += times * pattern.pairs;
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_count_for_nothing_are_counted() {
        let positions: Mixed<u64, u32> = [(10, 0), (11, 1), (12, 2)].into_iter().collect();
        let rows = [
            (10, 11, true),
            (11, 10, true),
            (11, 12, false),
            (12, 11, true),
            (10, 99, true),
            (12, 12, true),
        ];
        let decision = |left, right, is_match| Decision { left, right, is_match };
        let of_one_table = Records::new(vec![], vec![], 3);
        let decided = Known::decisions(&rows, &positions, &of_one_table);
        assert_eq!(decided.pairs, [decision(0, 1, true), decision(1, 2, true)]);
        let ignored = Ignored { rows: 6, unknown: 1, itself: 1, contradictory: 1 };
        assert_eq!(decided.ignored, ignored);
        let records = Records::new(vec![], vec![0, 1, 1], 3);
        let labels = Known::labels(&rows, &positions, &records);
        assert_eq!(labels.pairs, [decision(0, 1, true)]);
        assert_eq!(Known::decisions(&rows, &positions, &records), labels);
        assert_eq!(labels.ignored, Ignored { itself: 3, contradictory: 0, ..ignored });
    }
}
