//! Rows to learn from, to choose on and to measure on.

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
