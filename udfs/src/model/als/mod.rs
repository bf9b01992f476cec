//! Matrix factorization by alternating least squares, implicit and explicit.
//!
//! Objectives, options and their defaults are in [`options`]. An iteration solves all users
//! against the items, then all items against the users; within it
//!
//! * rows are renumbered by descending number of interactions, so that the longest are solved
//!   first and the most used factors share cache lines;
//! * for implicit feedback both sides are rotated into the eigenbasis of the fixed side's Gram
//!   matrix ([`gram`]), where a row costs no more than its own interactions;
//! * a row is solved by conjugate gradients ([`cg`]) or exactly ([`cholesky`]).
//!
//! The same seed and interactions give the same factors, whatever the number of threads.
//! Sources: Hu, Koren and Volinsky 2008; Zhou et al. 2008 (ALS-WR); Takács et al. 2011
//! (conjugate gradients); Rendle et al. 2021 (iALS, frequency scaling).

mod cg;
mod cholesky;
pub mod eigen;
mod gram;
pub mod objective;
pub mod options;
mod row;

use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use rayon::prelude::*;

pub use self::options::{AlsOptions, Feedback, Resolved, Scaling, Solver};

use self::gram::{diagonal_basis, gram};
use self::row::{HalfStep, Method, Scratch};
use super::error::ModelError;
use super::kernel::Aligned;
use super::sparse::Csr;

/// Where training is; reported after each half iteration here, after each step of other learners.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Iteration, from 1.
    pub iteration: usize,
    /// Half iterations, or steps, done.
    pub done: usize,
    /// Half iterations, or steps, planned.
    pub total: usize,
    /// The objective, known at the end of an iteration; `None` for learners without one.
    pub loss: Option<f64>,
}

/// Learned factors, unpadded, by the interactions' own codes.
#[derive(Debug, Clone, PartialEq)]
pub struct AlsFactors {
    /// `users × num_factors` values, row-major.
    pub user_factors: Vec<f32>,
    /// `items × num_factors` values, row-major.
    pub item_factors: Vec<f32>,
    /// One bias a user, empty without biases.
    pub user_bias: Vec<f32>,
    /// One bias an item, empty without biases.
    pub item_bias: Vec<f32>,
    /// Mean rating, 0 without biases.
    pub global_mean: f32,
    /// Objective after each iteration.
    pub losses: Vec<f64>,
}

/// Learns factors of `interactions` (users × items) on the current rayon pool.
///
/// # Errors
/// Invalid options, an empty matrix, a value that is not finite, or cancellation (the flag is
/// read before every block of rows).
pub fn train(
    interactions: &Csr,
    options: &AlsOptions,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<AlsFactors, ModelError> {
    options.validate()?;
    if interactions.cells() == 0 {
        return Err(ModelError::Empty);
    }
    if let Some(&value) = interactions.values().iter().find(|value| !value.is_finite()) {
        return Err(ModelError::NotFinite { column: "rating".to_owned(), value });
    }
    Trainer::new(interactions, options, cancel).run(progress)
}

/// One side of the matrix, renumbered by descending length.
struct Side {
    /// Code of each position.
    codes: Vec<u32>,
    cells: Csr,
    factors: Aligned,
    bias: Option<Vec<f32>>,
}

struct Trainer<'a> {
    options: &'a AlsOptions,
    resolved: Resolved,
    users: Side,
    items: Side,
    mean: f64,
    method: Method,
    cancel: &'a AtomicBool,
    pool: Mutex<Vec<Scratch>>,
}

impl<'a> Trainer<'a> {
    fn new(interactions: &Csr, options: &'a AlsOptions, cancel: &'a AtomicBool) -> Self {
        let resolved = options.resolve(interactions);
        let mean = if options.has_biases() { mean(interactions.values()) } else { 0.0 };
        let user_counts = interactions.offsets().windows(2).map(|pair| pair[1] - pair[0]);
        let item_counts = interactions.column_counts();
        let user_codes = by_descending_count(user_counts);
        let item_codes = by_descending_count(item_counts.iter().map(|&count| count as usize));
        let by_user =
            renumber(interactions, &user_codes, &item_codes, |value| match options.feedback {
                Feedback::Implicit => encode_weight(value, resolved.alpha),
                Feedback::Explicit => (f64::from(value) - mean) as f32,
            });
        let by_item = by_user.transpose();
        let mut users = Side::new(user_codes, by_user, options);
        let mut items = Side::new(item_codes, by_item, options);
        if let Some(bias) = &mut users.bias {
            bias.fill(0.0);
        }
        items.start(options);
        let method = options.method();
        let pool = Mutex::new(vec![]);
        Self { options, resolved, users, items, mean, method, cancel, pool }
    }

    fn run(mut self, progress: &mut dyn FnMut(Progress)) -> Result<AlsFactors, ModelError> {
        let mut losses: Vec<f64> = vec![];
        let total = 2 * self.options.max_iterations;
        for iteration in 1..=self.options.max_iterations {
            let done = 2 * iteration;
            let users = self.half_step(true)?;
            progress(Progress { iteration, done: done - 1, total, loss: None });
            let items = self.half_step(false)?;
            let loss = items.objective + users.penalty;
            progress(Progress { iteration, done, total, loss: Some(loss) });
            let last = losses.last().copied();
            losses.push(loss);
            if let (Some(least), Some(last)) = (self.options.min_rel_progress, last)
                && last - loss < least * last.abs()
            {
                break;
            }
        }
        Ok(self.finish(losses))
    }

    fn half_step(&mut self, solve_users: bool) -> Result<row::Sums, ModelError> {
        let (solved, fixed) = if solve_users {
            (&mut self.users, &mut self.items)
        } else {
            (&mut self.items, &mut self.users)
        };
        let stride = self.options.stride();
        let size = self.options.num_factors;
        let basis = (self.options.feedback == Feedback::Implicit).then(|| {
            let basis = diagonal_basis(&gram(&fixed.factors, stride), size, stride);
            basis.rotate(&mut fixed.factors, stride);
            basis.rotate(&mut solved.factors, stride);
            basis
        });
        let step = HalfStep {
            cells: &solved.cells,
            fixed: &fixed.factors,
            fixed_bias: fixed.bias.as_deref(),
            bias_column: size,
            stride,
            spectrum: basis.as_ref().map(|basis| basis.spectrum.as_slice()),
            feedback: self.options.feedback,
            resolved: &self.resolved,
            method: self.method,
            cancel: self.cancel,
            pool: &self.pool,
        };
        step.run(&mut solved.factors, solved.bias.as_deref_mut())
    }

    fn finish(self, losses: Vec<f64>) -> AlsFactors {
        let (stride, size) = (self.options.stride(), self.options.num_factors);
        AlsFactors {
            user_factors: self.users.original_factors(size, stride),
            item_factors: self.items.original_factors(size, stride),
            user_bias: self.users.original_bias(),
            item_bias: self.items.original_bias(),
            global_mean: self.mean as f32,
            losses,
        }
    }
}

impl Side {
    fn new(codes: Vec<u32>, cells: Csr, options: &AlsOptions) -> Self {
        let rows = codes.len();
        let factors = Aligned::zeros(rows * options.stride());
        let bias = options.has_biases().then(|| vec![0.0; rows]);
        Self { codes, cells, factors, bias }
    }

    /// Draws the initial factors: normal, of expected length .1 for implicit feedback and of
    /// expected length 1 for explicit. They depend on seed, code and coordinate alone.
    fn start(&mut self, options: &AlsOptions) {
        let (stride, size) = (options.stride(), options.num_factors);
        let length = if options.feedback == Feedback::Implicit { 0.1 } else { 1.0 };
        let deviation = length / (size as f64).sqrt();
        let has_bias = self.bias.is_some();
        let rows = self.factors.par_chunks_exact_mut(stride).zip(&self.codes);
        rows.for_each(|(row, &code)| {
            let mut state = mix(options.seed ^ mix(u64::from(code) + 1));
            for value in &mut row[..size] {
                *value = (deviation * normal(&mut state)) as f32;
            }
            if has_bias {
                row[size] = 1.0;
            }
        });
    }

    fn original_factors(&self, size: usize, stride: usize) -> Vec<f32> {
        let mut factors = vec![0.0; self.codes.len() * size];
        for (row, &code) in self.factors.chunks_exact(stride).zip(&self.codes) {
            let at = code as usize * size;
            factors[at..at + size].copy_from_slice(&row[..size]);
        }
        factors
    }

    fn original_bias(&self) -> Vec<f32> {
        let Some(bias) = &self.bias else { return vec![] };
        let mut original = vec![0.0; bias.len()];
        for (&bias, &code) in bias.iter().zip(&self.codes) {
            original[code as usize] = bias;
        }
        original
    }
}

impl AlsOptions {
    fn method(&self) -> Method {
        match (self.solver, self.feedback) {
            (Solver::Cholesky, _) | (Solver::Auto, Feedback::Explicit) => Method::Exact,
            (Solver::ConjugateGradient, _) => {
                Method::Gradient { steps: self.cg_steps, exact_cells: 0 }
            }
            (Solver::Auto, Feedback::Implicit) => {
                Method::Gradient { steps: self.cg_steps, exact_cells: EXACT_CELLS }
            }
        }
    }
}

/// Up to this many interactions the dual system costs no more than conjugate gradients.
const EXACT_CELLS: usize = 0;

/// √(α·|r|), negative where the preference is 0. The square is the weight an observed cell has
/// beyond an unobserved one; below 1e-30 the cell counts as unobserved.
fn encode_weight(value: f32, alpha: f64) -> f32 {
    let weight = alpha * f64::from(value.abs());
    if weight < 1e-30 { 0.0 } else { weight.sqrt().copysign(f64::from(value)) as f32 }
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len().max(1) as f64
}

/// Codes in descending order of count; ties keep the order of codes.
fn by_descending_count(counts: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut order: Vec<(std::cmp::Reverse<usize>, u32)> =
        counts.zip(0_u32..).map(|(count, code)| (std::cmp::Reverse(count), code)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, code)| code).collect()
}

/// The matrix with row `p` taken from row `users[p]`, columns renumbered likewise.
fn renumber(matrix: &Csr, users: &[u32], items: &[u32], value: impl Fn(f32) -> f32) -> Csr {
    let mut position = vec![0_u32; items.len()];
    for (place, &code) in items.iter().enumerate() {
        position[code as usize] = place as u32;
    }
    let mut offsets = Vec::with_capacity(users.len() + 1);
    offsets.push(0);
    let mut columns = Vec::with_capacity(matrix.cells());
    let mut values = Vec::with_capacity(matrix.cells());
    for &user in users {
        let (row_columns, row_values) = matrix.row(user as usize);
        columns.extend(row_columns.iter().map(|&column| position[column as usize]));
        values.extend(row_values.iter().map(|&raw| value(raw)));
        offsets.push(columns.len());
    }
    Csr::from_unsorted(offsets, columns, values, items.len())
}

/// SplitMix64's finalizer (Steele, Lea and Flood 2014).
pub(super) fn mix(mut state: u64) -> u64 {
    state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// A standard normal draw (Box and Muller 1958).
fn normal(state: &mut u64) -> f64 {
    let mut uniform = || {
        *state = mix(*state);
        ((*state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    let (radius, angle) = (uniform(), uniform());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

#[cfg(test)]
mod tests;
