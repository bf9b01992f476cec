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
//! What is random depends on the seed and the cell's two codes alone, or on the hashes of its two
//! ids where [`Ids`] are given, and what is latest on the time and, among equal times, on the same
//! hash: a split is reproducible and the same for every order of rows; by ids, an interaction stays
//! on its side when others come and go. Times are any keys that ascend, one a cell in the matrix's
//! order; [`cell_latest`] makes them from rows and [`order_key`] from numbers.

use super::error::ModelError;
use super::sparse::Csr;
use crate::model::random::mix;

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

/// Hashes of the users' and items' ids, by code: see
/// [`IdIndex::hashes`](super::ids::IdIndex::hashes).
#[derive(Debug, Clone, Copy)]
pub struct Ids<'a> {
    /// One a row.
    pub users: &'a [u64],
    /// One a column.
    pub items: &'a [u64],
}

/// Splits into training and held-out interactions of the same shape.
///
/// # Errors
/// Those of [`marks`].
pub fn split(
    interactions: &Csr,
    how: Split<'_>,
    ids: Option<Ids<'_>>,
) -> Result<(Csr, Csr), ModelError> {
    Ok(divide(interactions, &marks(interactions, how, ids)?))
}

/// Which interactions are held out: one mark a cell.
///
/// # Errors
/// When a fraction is no number from 0 to 1, or there is not one time or mark a cell, or not one
/// hash a row and column.
pub fn marks(
    interactions: &Csr,
    how: Split<'_>,
    ids: Option<Ids<'_>>,
) -> Result<Vec<bool>, ModelError> {
    check(interactions, &how, ids)?;
    let cells = Cells { interactions, ids };
    Ok(match how {
        Split::Nothing => vec![false; interactions.cells()],
        Split::Random { fraction, seed } => cells.random(fraction, seed),
        Split::PerUser { fraction, seed, times } => {
            let held = |cells: usize| rounded(cells, fraction).min(cells.saturating_sub(1));
            cells.by_user(seed, times, held)
        }
        Split::LeaveOneOut { seed, times } => {
            cells.by_user(seed, times, |cells| usize::from(cells > 1))
        }
        Split::Latest { fraction, seed, times } => cells.latest(fraction, seed, times),
        Split::Chosen(held) => held.to_vec(),
    })
}

/// Splits at random; a fraction of 0 or less holds nothing out, one of 1 or more everything.
pub fn holdout(interactions: &Csr, fraction: f64, seed: u64) -> (Csr, Csr) {
    let marks = Cells { interactions, ids: None }.random(fraction, seed);
    divide(interactions, &marks)
}

fn check(interactions: &Csr, how: &Split<'_>, ids: Option<Ids<'_>>) -> Result<(), ModelError> {
    let cells = interactions.cells();
    if ids.is_some_and(|ids| {
        ids.users.len() != interactions.rows() || ids.items.len() != interactions.columns()
    }) {
        return Err(ModelError::Inconsistent("a split has not one hash an id".to_owned()));
    }
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

/// The interactions, with a draw for each.
#[derive(Clone, Copy)]
struct Cells<'a> {
    interactions: &'a Csr,
    ids: Option<Ids<'a>>,
}

impl Cells<'_> {
    fn draw(&self, seed: u64, row: usize, column: u32) -> u64 {
        let (user, item) = match self.ids {
            Some(ids) => (ids.users[row], ids.items[column as usize]),
            None => (row as u64, u64::from(column)),
        };
        mix(mix(mix(seed) ^ user) ^ item)
    }

    fn random(&self, fraction: f64, seed: u64) -> Vec<bool> {
        let mut marks = vec![false; self.interactions.cells()];
        if fraction.is_nan() || fraction <= 0.0 {
            return marks;
        }
        let mut cell = 0;
        for row in 0..self.interactions.rows() {
            for &column in self.interactions.row(row).0 {
                let uniform = (self.draw(seed, row, column) >> 11) as f64 / (1_u64 << 53) as f64;
                marks[cell] = uniform < fraction;
                cell += 1;
            }
        }
        marks
    }

    /// Holds out of each row the number of cells that `held` says, by time or hash.
    fn by_user(
        &self,
        seed: u64,
        times: Option<&[i64]>,
        held: impl Fn(usize) -> usize,
    ) -> Vec<bool> {
        let mut marks = vec![false; self.interactions.cells()];
        let mut order = vec![];
        let mut start = 0;
        for row in 0..self.interactions.rows() {
            let columns = self.interactions.row(row).0;
            order.clear();
            order.extend(columns.iter().enumerate().map(|(position, &column)| {
                let cell = start + position;
                (times.map_or(0, |times| times[cell]), self.draw(seed, row, column), cell)
            }));
            order.sort_unstable_by(|a, b| b.cmp(a));
            order.iter().take(held(columns.len())).for_each(|&(_, _, cell)| marks[cell] = true);
            start += columns.len();
        }
        marks
    }

    fn latest(&self, fraction: f64, seed: u64, times: &[i64]) -> Vec<bool> {
        let mut order = Vec::with_capacity(times.len());
        for row in 0..self.interactions.rows() {
            for &column in self.interactions.row(row).0 {
                let cell = order.len();
                order.push((times[cell], self.draw(seed, row, column), cell));
            }
        }
        let kept = order.len() - rounded(order.len(), fraction);
        let mut marks = vec![false; order.len()];
        if kept < order.len() {
            let (_, first, later) = order.select_nth_unstable(kept);
            marks[first.2] = true;
            later.iter().for_each(|&(_, _, cell)| marks[cell] = true);
        }
        marks
    }
}

/// Divides the cells into those without and those with a mark; a cell beyond the marks has none.
pub fn divide(interactions: &Csr, marks: &[bool]) -> (Csr, Csr) {
    let mut sides = [Part::default(), Part::default()];
    let mut cell = 0;
    for row in 0..interactions.rows() {
        let (columns, values) = interactions.row(row);
        for (&column, &value) in columns.iter().zip(values) {
            let is_held = marks.get(cell).copied().unwrap_or(false);
            let side = &mut sides[usize::from(is_held)];
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
