//! Which rows trees learn from, which they choose on and which they are measured on.
//!
//! A classifier keeps the same share of each class aside, a ranker whole queries.

use udfs::model::boosted::{Division, Task, divide_at_random};

use crate::model::splitting::{EVAL, Method, SplitOptions, TEST};

/// Divides rows: `keys` are the times or parts of the split column, empty without one; `groups`
/// the query of each row, ascending from 0, empty without queries.
pub fn divide(
    split: &SplitOptions,
    task: Task,
    labels: &[f64],
    groups: &[u32],
    keys: &[i64],
) -> Vec<Division> {
    let rows = labels.len();
    // Whole queries, or rows.
    let unit = |row: usize| groups.get(row).map_or(row, |group| *group as usize);
    let units = if rows == 0 { 0 } else { unit(rows - 1) + 1 };
    let shares = split.shares(rows);
    let of_units = match split.method {
        Method::Nothing => vec![Division::Training; units],
        Method::Custom => {
            let part = |key: i64| match (split.is_three_way, key) {
                (true, EVAL) => Division::Validation,
                (_, EVAL | TEST) => Division::Test,
                _ => Division::Training,
            };
            latest(units, unit, keys).into_iter().map(part).collect()
        }
        Method::Sequential => {
            let keys = latest(units, unit, keys);
            let mut order: Vec<usize> = (0..units).collect();
            order.sort_by_key(|&unit| std::cmp::Reverse(keys[unit]));
            let count = |share: f64| (share * units as f64).round() as usize;
            let (tested, chosen) = (count(shares.test), count(shares.validation));
            let mut divided = vec![Division::Training; units];
            for (at, &unit) in order.iter().enumerate().take(tested + chosen) {
                divided[unit] = if at < tested { Division::Test } else { Division::Validation };
            }
            divided
        }
        _ => {
            let strata: Vec<u32> = match task {
                Task::Classifier => labels.iter().map(|label| *label as u32).collect(),
                Task::Regressor | Task::Ranker => vec![0; units],
            };
            divide_at_random(&strata, shares.validation, shares.test, split.seed)
        }
    };
    (0..rows).map(|row| of_units[unit(row)]).collect()
}

/// The latest key of each unit.
fn latest(units: usize, unit: impl Fn(usize) -> usize, keys: &[i64]) -> Vec<i64> {
    let mut latest = vec![i64::MIN; units];
    for (row, &key) in keys.iter().enumerate() {
        let of = &mut latest[unit(row)];
        *of = (*of).max(key);
    }
    latest
}
