//! Item neighbourhoods: each item's most similar items by the users they share.
//!
//! The similarity of items i and j is Σ over users u of wᵤᵢ·wᵤⱼ, where w comes from the
//! interactions ([`weights`]): unit columns give the cosine. That of RP3beta is a walk's, from i to
//! j, and not the same from j to i. With shrinkage h it is multiplied by
//! n/(n + h), n being the number of users of both (Bell and Koren 2007), so that pairs with little
//! evidence count less.
//!
//! A row of the sparse product WᵀW is summed user by user in a dense row (Gustavson 1978) beside a
//! list of the cells in use. Items are renumbered by descending number of users, so that what is
//! used often lies together. Every row is summed in one order: the result is exact and does not
//! depend on the number of threads.
//!
//! Definitions are those of the Python package implicit (0.7, `nearest_neighbours`); as there, an
//! item counts among its own neighbours.

mod weights;

use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use rayon::prelude::*;

use self::weights::Scales;
use super::als::Progress;
use super::cancel;
use super::error::ModelError;
use super::kernel::position_not_finite;
use super::sparse::{Csr, csr_bytes};

/// What two items are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weighting {
    /// The cosine of the items' columns.
    #[default]
    Cosine,
    /// The cosine after TF-IDF, which trusts users with few items more.
    TfIdf,
    /// The inner product after BM25, which also saturates large weights and damps popular items.
    Bm25,
    /// RP3beta (Paudel et al. 2017): how likely a walk from the item to one of its users and on to
    /// one of theirs ends at the other item, less for popular ones.
    Rp3Beta,
}

/// Options of item neighbourhoods.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ItemKnnOptions {
    /// How interactions are weighted.
    pub weighting: Weighting,
    /// Neighbours kept for each item, 1 to 100,000, the item itself being one of them.
    pub num_neighbors: usize,
    /// Shrinkage h in users, 0 or more.
    pub shrinkage: f64,
    /// K1 of BM25, 0 or more: how late a weight saturates.
    pub bm25_k1: f64,
    /// B of BM25, 0 to 1: how much popular items are damped.
    pub bm25_b: f64,
    /// α of RP3beta, above 0 to 4: the power of each step's probability.
    pub rp3_alpha: f64,
    /// β of RP3beta, 0 to 1: how much popular items are damped.
    pub rp3_beta: f64,
}

impl Default for ItemKnnOptions {
    fn default() -> Self {
        Self {
            weighting: Weighting::Cosine,
            num_neighbors: 100,
            shrinkage: 0.0,
            bm25_k1: 1.2,
            bm25_b: 0.75,
            rp3_alpha: 1.0,
            rp3_beta: 0.1,
        }
    }
}

impl ItemKnnOptions {
    /// Checks every option's domain.
    ///
    /// # Errors
    /// [`ModelError::Option`] naming the option.
    pub fn validate(&self) -> Result<(), ModelError> {
        let fail = |option, value: String, hint| Err(ModelError::Option { option, value, hint });
        if self.num_neighbors == 0 || self.num_neighbors > 100_000 {
            let hint = "Give 1 to 100000 neighbours; 20 to 200 are usual";
            return fail("num_neighbors", self.num_neighbors.to_string(), hint);
        }
        for (option, value) in [("shrinkage", self.shrinkage), ("bm25_k1", self.bm25_k1)] {
            if !(0.0..=1e12).contains(&value) {
                return fail(option, value.to_string(), "Give a finite number of 0 or more");
            }
        }
        if !(self.rp3_alpha > 0.0 && self.rp3_alpha <= 4.0) {
            let hint = "Give a number above 0 and up to 4; about 1 is usual";
            return fail("rp3_alpha", self.rp3_alpha.to_string(), hint);
        }
        for (option, value) in [("bm25_b", self.bm25_b), ("rp3_beta", self.rp3_beta)] {
            if !(0.0..=1.0).contains(&value) {
                return fail(option, value.to_string(), "Give a number from 0 to 1");
            }
        }
        Ok(())
    }

    /// Peak bytes of training on `threads` threads, interactions and result included.
    pub fn memory_bytes(&self, users: usize, items: usize, cells: usize, threads: usize) -> usize {
        let sides = 2 * csr_bytes(users, cells) + csr_bytes(items, cells);
        let kept = items * self.num_neighbors.min(items);
        // Rows as they are found, then the matrix made of them.
        let found = 2 * csr_bytes(items, kept) + items * 6 * size_of::<usize>();
        // Sums, counts, the list of cells in use and the candidates' keys.
        let scratch = threads * items * (3 * size_of::<u32>() + size_of::<u64>());
        let statistics = (3 * users + 5 * items) * size_of::<f64>();
        sides + found + scratch + statistics
    }
}

/// Finds each item's neighbours in `interactions` (users × items) on the current rayon pool: an
/// items × items matrix, row i holding the neighbours of item i with their similarities. Ties
/// are broken by code; similarities of exactly 0 are left out.
///
/// # Errors
/// Invalid options, an empty matrix, a value that is not finite, or cancellation (the flag is
/// read before every item, and within one that many users have).
pub fn train(
    interactions: &Csr,
    options: &ItemKnnOptions,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<Csr, ModelError> {
    options.validate()?;
    if interactions.cells() == 0 {
        return Err(ModelError::Empty);
    }
    if let Some(at) = position_not_finite(interactions.values(), cancel)? {
        let value = interactions.values()[at];
        return Err(ModelError::NotFinite { column: "rating".to_owned(), value });
    }
    interactions.check_evidence()?;
    let codes = by_descending_count(&interactions.column_counts(), cancel);
    cancel::check(cancel)?;
    let (by_user, scales) = weights::weighted(interactions, options, &codes, cancel);
    let by_item = by_user.transpose_unless(cancel);
    cancel::check(cancel)?;
    let pool = Mutex::new(vec![]);
    Search { by_user, by_item, scales, codes, options, cancel, pool }.run(progress)
}

/// Item codes in descending order of count; ties keep the order of codes. With the flag set it is
/// wrong: the caller looks at the flag.
fn by_descending_count(counts: &[u32], cancel: &AtomicBool) -> Vec<u32> {
    let mut order: Vec<u32> = (0..counts.len() as u32).collect();
    let key = |item: u32| (std::cmp::Reverse(counts[item as usize]), item);
    cancel::sort_unless(&mut order, |&a, &b| key(a).cmp(&key(b)), cancel);
    order
}

/// Products that one task sums, about; a millisecond or two.
const TASK_PRODUCTS: usize = 1 << 20;
/// What an item costs beside its products, in products.
const ITEM_PRODUCTS: usize = 1000;
/// Users of an item between two looks at the cancel flag.
const USERS_PER_LOOK: usize = 1024;
/// Progress is reported about so often.
const REPORTS: usize = 50;

/// Neighbours of one item: codes ascending, similarities.
type Neighbors = (Vec<u32>, Vec<f32>);

struct Search<'a> {
    /// Weighted interactions, columns renumbered.
    by_user: Csr,
    by_item: Csr,
    /// What sums are multiplied by, where the way back is another.
    scales: Option<Scales>,
    /// Code of each position.
    codes: Vec<u32>,
    options: &'a ItemKnnOptions,
    cancel: &'a AtomicBool,
    pool: Mutex<Vec<Scratch>>,
}

/// A thread's dense row.
struct Scratch {
    sums: Vec<f32>,
    /// Users that both items have; empty without shrinkage.
    common: Vec<u32>,
    /// Cells in use; one more than there are items.
    touched: Vec<u32>,
    /// Candidates, see [`key`].
    keys: Vec<u64>,
}

impl Search<'_> {
    fn run(self, progress: &mut dyn FnMut(Progress)) -> Result<Csr, ModelError> {
        let tasks = self.tasks();
        cancel::check(self.cancel)?;
        let total = tasks.len();
        let mut rows: Vec<Neighbors> = vec![(vec![], vec![]); self.codes.len()];
        let mut done = 0;
        for wave in tasks.chunks(total.div_ceil(REPORTS).max(1)) {
            let found: Vec<Vec<Neighbors>> =
                wave.par_iter().with_max_len(1).map(|task| self.task(task.clone())).collect();
            if cancel::is_set(self.cancel) {
                return Err(ModelError::Cancelled);
            }
            for (task, found) in wave.iter().zip(found) {
                for (position, row) in task.clone().zip(found) {
                    rows[self.codes[position] as usize] = row;
                }
            }
            done += wave.len();
            progress(Progress { iteration: done, done, total, loss: None, metric: None });
        }
        Ok(assemble(rows))
    }

    /// Ranges of items of about equal work; fewer once the flag is set.
    fn tasks(&self) -> Vec<std::ops::Range<usize>> {
        let mut tasks = vec![];
        let (mut start, mut products) = (0, 0);
        for item in 0..self.codes.len() {
            if cancel::is_set(self.cancel) {
                break;
            }
            products += self.products(item) + ITEM_PRODUCTS;
            if products >= TASK_PRODUCTS {
                tasks.push(start..item + 1);
                (start, products) = (item + 1, 0);
            }
        }
        if start < self.codes.len() {
            tasks.push(start..self.codes.len());
        }
        tasks
    }

    /// Products that the item's row sums.
    fn products(&self, item: usize) -> usize {
        let offsets = self.by_user.offsets();
        let users = self.by_item.row(item).0.iter();
        users.map(|&user| offsets[user as usize + 1] - offsets[user as usize]).sum()
    }

    fn task(&self, items: std::ops::Range<usize>) -> Vec<Neighbors> {
        let mut scratch = self.pool.lock().pop().unwrap_or_else(|| self.scratch());
        let mut found = Vec::with_capacity(items.len());
        for item in items {
            if cancel::is_set(self.cancel) {
                break;
            }
            found.push(self.neighbors(item, &mut scratch));
        }
        self.pool.lock().push(scratch);
        found
    }

    fn scratch(&self) -> Scratch {
        let items = self.codes.len();
        let common = if self.options.shrinkage > 0.0 { vec![0; items] } else { vec![] };
        let touched = vec![0; items + 1];
        Scratch { sums: vec![0.0; items], common, touched, keys: vec![] }
    }

    fn neighbors(&self, item: usize, scratch: &mut Scratch) -> Neighbors {
        let shrinks = !scratch.common.is_empty();
        // A row that may use all cells need not say which.
        let dense = self.products(item) >= self.codes.len();
        let used = match (dense, shrinks) {
            (false, false) => self.sum::<false, false>(item, scratch),
            (false, true) => self.sum::<false, true>(item, scratch),
            (true, false) => self.sum::<true, false>(item, scratch),
            (true, true) => self.sum::<true, true>(item, scratch),
        };
        let Scratch { sums, common, touched, keys } = scratch;
        keys.clear();
        let mut take = |position: usize| {
            // A sum that was 0 on its way is listed twice and taken the first time.
            let mut sum = std::mem::take(&mut sums[position]);
            if shrinks {
                let n = f64::from(std::mem::take(&mut common[position]));
                sum = (f64::from(sum) * n / (n + self.options.shrinkage)) as f32;
            }
            if let Some(scales) = &self.scales
                && sum != 0.0
            {
                sum = scales.scaled(item, position, sum);
            }
            if sum != 0.0 {
                keys.push(key(sum, self.codes[position]));
            }
        };
        if dense {
            (0..self.codes.len()).for_each(take);
        } else {
            touched[..used].iter().for_each(|&position| take(position as usize));
        }
        let count = self.options.num_neighbors;
        if keys.len() > count {
            keys.select_nth_unstable(count);
            keys.truncate(count);
        }
        keys.sort_unstable_by_key(|&key| key as u32);
        keys.iter().map(|&key| (key as u32, score(key))).unzip()
    }

    /// Sums the item's row and lists the cells that it uses, unless `DENSE`; counts common users
    /// if `COUNT`. Returns the length of the list.
    fn sum<const DENSE: bool, const COUNT: bool>(
        &self,
        item: usize,
        scratch: &mut Scratch,
    ) -> usize {
        let Scratch { sums, common, touched, .. } = scratch;
        let mut used = 0;
        let (users, values) = self.by_item.row(item);
        for (at, (&user, &value)) in users.iter().zip(values).enumerate() {
            if at.is_multiple_of(USERS_PER_LOOK) && cancel::is_set(self.cancel) {
                break;
            }
            let (columns, others) = self.by_user.row(user as usize);
            for (&column, &other) in columns.iter().zip(others) {
                let sum = &mut sums[column as usize];
                if !DENSE {
                    // Without a branch, which could not be foreseen. There are fewer products
                    // than cells.
                    touched[used] = column;
                    used += usize::from(*sum == 0.0);
                }
                *sum += value * other;
                if COUNT {
                    common[column as usize] += 1;
                }
            }
        }
        used
    }
}

/// Ascending keys are descending scores, then ascending codes: the score's bits in an order that
/// integers share, above the code.
fn key(score: f32, code: u32) -> u64 {
    let bits = score.to_bits();
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(!ascending) << 32 | u64::from(code)
}

/// The score of a key.
fn score(key: u64) -> f32 {
    let ascending = !((key >> 32) as u32);
    f32::from_bits(if ascending >> 31 == 1 { ascending & !(1 << 31) } else { !ascending })
}

fn assemble(rows: Vec<Neighbors>) -> Csr {
    let items = rows.len();
    let cells = rows.iter().map(|row| row.0.len()).sum();
    let mut offsets = Vec::with_capacity(items + 1);
    offsets.push(0);
    let (mut columns, mut values) = (Vec::with_capacity(cells), Vec::with_capacity(cells));
    for (codes, similarities) in rows {
        columns.extend(codes);
        values.extend(similarities);
        offsets.push(columns.len());
    }
    Csr::from_unsorted(offsets, columns, values, items)
}

#[cfg(test)]
mod tests;
