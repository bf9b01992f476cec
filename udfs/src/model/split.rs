//! Evaluation splits: which interactions a model does not learn from, so that it can be measured.
//!
//! | method | held out |
//! |---|---|
//! | [`holdout`], [`Split::Random`] | each interaction on its own, with the given probability |
//! | [`Split::PerUser`] | the given fraction of each user's interactions, random or the latest |
//! | [`Split::Latest`] | the latest fraction of all interactions |
//! | [`Split::LeaveOneOut`] | one interaction of each user with two or more, random or the latest |
//! | [`Split::Chosen`] | those that the caller chose |
//!
//! What is random depends on the seed and the cell's two codes alone, and what is latest on the
//! time and, among equal times, on the same hash: a split is reproducible and the same for every
//! order of rows. Times are any keys that ascend, one a cell in the matrix's order;
//! [`cell_latest`] makes them from rows and [`order_key`] from numbers.

use super::als::mix;
use super::error::ModelError;
use super::sparse::Csr;

/// How to split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Split<'a> {
    /// Nothing is held out.
    Nothing,
    /// Each interaction on its own with probability `fraction`, as [`holdout`].
    Random {
        /// Between 0 and 1.
        fraction: f64,
        /// Of the hash.
        seed: u64,
    },
    /// Of each user's n interactions round(n · `fraction`), but at most n − 1: every user keeps one
    /// to learn from.
    PerUser {
        /// Between 0 and 1.
        fraction: f64,
        /// Of the hash.
        seed: u64,
        /// The latest are held out when times are given, else random ones.
        times: Option<&'a [i64]>,
    },
    /// Of all n interactions the latest round(n · `fraction`).
    Latest {
        /// Between 0 and 1.
        fraction: f64,
        /// Of the hash that orders equal times.
        seed: u64,
        /// One a cell.
        times: &'a [i64],
    },
    /// One interaction of each user who has two or more.
    LeaveOneOut {
        /// Of the hash.
        seed: u64,
        /// The latest is held out when times are given, else a random one.
        times: Option<&'a [i64]>,
    },
    /// The cells marked true.
    Chosen(
        /// One a cell.
        &'a [bool],
    ),
}

/// Splits into training and held-out interactions of the same shape.
///
/// # Errors
/// When a fraction is no number from 0 to 1, or there is not one time or mark a cell.
pub fn split(interactions: &Csr, how: Split<'_>) -> Result<(Csr, Csr), ModelError> {
    check(interactions.cells(), &how)?;
    Ok(match how {
        Split::Nothing => holdout(interactions, 0.0, 0),
        Split::Random { fraction, seed } => holdout(interactions, fraction, seed),
        Split::PerUser { fraction, seed, times } => {
            let held = |cells: usize| rounded(cells, fraction).min(cells.saturating_sub(1));
            by_user(interactions, seed, times, held)
        }
        Split::LeaveOneOut { seed, times } => {
            by_user(interactions, seed, times, |cells| usize::from(cells > 1))
        }
        Split::Latest { fraction, seed, times } => latest(interactions, fraction, seed, times),
        Split::Chosen(held) => divide(interactions, |cell, _, _| held[cell]),
    })
}

/// Splits at random; a fraction of 0 or less holds nothing out, one of 1 or more everything.
pub fn holdout(interactions: &Csr, fraction: f64, seed: u64) -> (Csr, Csr) {
    if fraction.is_nan() || fraction <= 0.0 {
        let nothing = Csr::empty(interactions.rows(), interactions.columns());
        return (interactions.clone(), nothing);
    }
    divide(interactions, |_, row, column| {
        let uniform = (draw(seed, row, column) >> 11) as f64 / (1_u64 << 53) as f64;
        uniform < fraction
    })
}

fn draw(seed: u64, row: usize, column: u32) -> u64 {
    mix(mix(mix(seed) ^ row as u64) ^ u64::from(column))
}

fn check(cells: usize, how: &Split<'_>) -> Result<(), ModelError> {
    let fraction = match how {
        Split::Random { fraction, .. }
        | Split::PerUser { fraction, .. }
        | Split::Latest { fraction, .. } => *fraction,
        Split::Nothing | Split::LeaveOneOut { .. } | Split::Chosen(_) => 0.0,
    };
    if !(0.0..=1.0).contains(&fraction) {
        return Err(ModelError::Option {
            option: "data_split_eval_fraction",
            value: fraction.to_string(),
            hint: "Use a share from 0 to 1",
        });
    }
    let keys = match how {
        Split::PerUser { times, .. } | Split::LeaveOneOut { times, .. } => {
            times.map_or(cells, <[i64]>::len)
        }
        Split::Latest { times, .. } => times.len(),
        Split::Chosen(held) => held.len(),
        Split::Nothing | Split::Random { .. } => cells,
    };
    if keys != cells {
        let why = format!("a split has {keys} times or marks for {cells} interactions");
        return Err(ModelError::Inconsistent(why));
    }
    Ok(())
}

fn rounded(cells: usize, fraction: f64) -> usize {
    ((cells as f64 * fraction).round() as usize).min(cells)
}

/// Holds out of each row the number of cells that `held` says, by time or hash.
fn by_user(
    interactions: &Csr,
    seed: u64,
    times: Option<&[i64]>,
    held: impl Fn(usize) -> usize,
) -> (Csr, Csr) {
    let mut marks = vec![false; interactions.cells()];
    let mut order = vec![];
    let mut start = 0;
    for row in 0..interactions.rows() {
        let columns = interactions.row(row).0;
        order.clear();
        order.extend(columns.iter().enumerate().map(|(position, &column)| {
            let cell = start + position;
            (times.map_or(0, |times| times[cell]), draw(seed, row, column), cell)
        }));
        order.sort_unstable_by(|a, b| b.cmp(a));
        order.iter().take(held(columns.len())).for_each(|&(_, _, cell)| marks[cell] = true);
        start += columns.len();
    }
    divide(interactions, |cell, _, _| marks[cell])
}

fn latest(interactions: &Csr, fraction: f64, seed: u64, times: &[i64]) -> (Csr, Csr) {
    let mut order = Vec::with_capacity(times.len());
    for row in 0..interactions.rows() {
        for &column in interactions.row(row).0 {
            let cell = order.len();
            order.push((times[cell], draw(seed, row, column), cell));
        }
    }
    let kept = order.len() - rounded(order.len(), fraction);
    let mut marks = vec![false; order.len()];
    if kept < order.len() {
        let (_, first, later) = order.select_nth_unstable(kept);
        marks[first.2] = true;
        later.iter().for_each(|&(_, _, cell)| marks[cell] = true);
    }
    divide(interactions, |cell, _, _| marks[cell])
}

/// Divides the cells by `held(cell, row, column)`.
fn divide(interactions: &Csr, held: impl Fn(usize, usize, u32) -> bool) -> (Csr, Csr) {
    let mut sides = [Part::default(), Part::default()];
    let mut cell = 0;
    for row in 0..interactions.rows() {
        let (columns, values) = interactions.row(row);
        for (&column, &value) in columns.iter().zip(values) {
            let side = &mut sides[usize::from(held(cell, row, column))];
            side.columns.push(column);
            side.values.push(value);
            cell += 1;
        }
        for side in &mut sides {
            side.offsets.push(side.columns.len());
        }
    }
    let [training, held] = sides;
    (training.matrix(interactions.columns()), held.matrix(interactions.columns()))
}

struct Part {
    offsets: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl Default for Part {
    fn default() -> Self {
        Self { offsets: vec![0], columns: vec![], values: vec![] }
    }
}

impl Part {
    fn matrix(self, columns: usize) -> Csr {
        Csr::from_unsorted(self.offsets, self.columns, self.values, columns)
    }
}

/// The latest key of each cell, from the codes and keys of the rows that the matrix was built of:
/// rows of one user and item became one cell. A cell without a row gets `i64::MIN`; a row without a
/// cell is left out.
///
/// # Errors
/// When the slices differ in length.
pub fn cell_latest(
    interactions: &Csr,
    rows: &[u32],
    columns: &[u32],
    keys: &[i64],
) -> Result<Vec<i64>, ModelError> {
    if rows.len() != columns.len() || rows.len() != keys.len() {
        let why = format!("{} users, {} items, {} times", rows.len(), columns.len(), keys.len());
        return Err(ModelError::Inconsistent(why));
    }
    let mut latest = vec![i64::MIN; interactions.cells()];
    for ((&row, &column), &key) in rows.iter().zip(columns).zip(keys) {
        let row = row as usize;
        if let Ok(position) = interactions.row(row).0.binary_search(&column) {
            let slot = &mut latest[interactions.offsets()[row] + position];
            *slot = key.max(*slot);
        }
    }
    Ok(latest)
}

/// A key that ascends as numbers do, so that a column of numbers can stand for time: −0 and 0 are
/// one, NaN is the least.
pub fn order_key(number: f64) -> i64 {
    if number.is_nan() {
        return i64::MIN;
    }
    let bits = (number + 0.0).to_bits().cast_signed();
    // Of negative numbers the magnitude descends.
    if bits < 0 { i64::MIN.wrapping_sub(bits) } else { bits }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
