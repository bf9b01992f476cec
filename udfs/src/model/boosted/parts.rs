//! Rows to learn from, to choose on and to measure on.

use std::ops::Range;

use crate::model::random::drawn;

/// Rows of a training.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Row-major, a value a feature, NaN where it is missing.
    pub values: Vec<f32>,
    /// The class's code, the number, or the relevance.
    pub labels: Vec<f32>,
    /// Rows of each query, which stand together; empty without queries.
    pub group_sizes: Vec<usize>,
}

impl Part {
    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Evenly spaced rows, or whole queries, about `rows_max` of them; `None` where that is no
    /// fewer than all.
    pub(super) fn spaced(&self, rows_max: usize) -> Option<Self> {
        let rows = self.labels.len();
        if rows <= rows_max.max(1) {
            return None;
        }
        let (step, width) = (rows.div_ceil(rows_max.max(1)), self.values.len() / rows);
        let mut spaced = Self::default();
        let mut take = |rows: Range<usize>| {
            spaced.values.extend_from_slice(&self.values[rows.start * width..rows.end * width]);
            spaced.labels.extend_from_slice(&self.labels[rows]);
        };
        match self.group_sizes.as_slice() {
            [] => (0..rows).step_by(step).for_each(|row| take(row..row + 1)),
            sizes => {
                let mut first = 0;
                for (query, &size) in sizes.iter().enumerate() {
                    if query.is_multiple_of(step) {
                        take(first..first + size);
                    }
                    first += size;
                }
                spaced.group_sizes = sizes.iter().step_by(step).copied().collect();
            }
        }
        Some(spaced)
    }
}

/// Where a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Division {
    /// To learn from.
    Training,
    /// To choose on.
    Validation,
    /// To measure on.
    Test,
}

/// Divides units at random, the same share of each stratum: `strata` has a code for each unit.
/// Each stratum gives its share, rounded, and keeps one unit to learn from. The shares together
/// are below 1.
pub fn divide_at_random(strata: &[u32], validation: f64, test: f64, seed: u64) -> Vec<Division> {
    let mut order: Vec<usize> = (0..strata.len()).collect();
    order.sort_unstable_by_key(|&unit| (strata[unit], drawn(seed, unit as u64), unit));
    let mut divided = vec![Division::Training; strata.len()];
    for stratum in order.chunk_by(|&a, &b| strata[a] == strata[b]) {
        let share = |of: f64| (of * stratum.len() as f64).round() as usize;
        let tested = share(test).min(stratum.len() - 1);
        let chosen = share(validation).min(stratum.len() - 1 - tested);
        for (at, &unit) in stratum.iter().enumerate().take(tested + chosen) {
            divided[unit] = if at < tested { Division::Test } else { Division::Validation };
        }
    }
    divided
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaced_rows_keep_their_labels_and_queries_whole() {
        let values = (0..40).map(|at| at as f32).collect();
        let labels = (0..20).map(|row| row as f32).collect();
        let plain = Part { values, labels, group_sizes: vec![] };
        assert!(plain.spaced(20).is_none());
        let spaced = plain.spaced(8).unwrap();
        assert_eq!(spaced.labels, [0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0]);
        assert_eq!(spaced.values[2..6], [6.0, 7.0, 12.0, 13.0]);
        let grouped = Part { group_sizes: vec![2, 3, 10, 5], ..plain };
        let spaced = grouped.spaced(10).unwrap();
        assert_eq!(spaced.group_sizes, [2, 10]);
        assert_eq!((spaced.labels[2], spaced.values[4], spaced.labels.len()), (5.0, 10.0, 12));
    }

    #[test]
    fn each_stratum_gives_its_share() {
        let strata: Vec<u32> = (0..1_100).map(|row| u32::from(row % 11 == 0)).collect();
        let divided = divide_at_random(&strata, 0.1, 0.2, 7);
        let count = |stratum: u32, of: Division| {
            divided.iter().zip(&strata).filter(|(is, s)| **is == of && **s == stratum).count()
        };
        assert_eq!([count(0, Division::Validation), count(0, Division::Test)], [100, 200]);
        assert_eq!([count(1, Division::Validation), count(1, Division::Test)], [10, 20]);
        assert_eq!(divided, divide_at_random(&strata, 0.1, 0.2, 7));
        assert_ne!(divided, divide_at_random(&strata, 0.1, 0.2, 8));
        assert_eq!(divide_at_random(&[0, 1], 0.4, 0.5, 0), [Division::Training; 2]);
        assert!(divide_at_random(&[], 0.4, 0.5, 0).is_empty());
    }
}
