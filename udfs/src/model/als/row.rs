//! One side's half step: every row solved against the other side's fixed factors.
//!
//! A row's interactions are gathered once, scaled by the square root of their weight and of the
//! inverse dense part, into a scratch matrix that the solver then works on alone
//! ([`super::chunk`]). Rows come in descending order of length; chunks of equal cost are taken by
//! whichever thread is free, and a row long enough to keep the others waiting is divided among all
//! of them. No sum depends on which thread made which part, so neither does the result.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use pulp::{Arch, Simd};
use rayon::prelude::*;

use super::super::cancel;
use super::super::error::ModelError;
use super::super::kernel::{Aligned, ROW_GROUP, dot, prefetch, scaled_product};
use super::super::sparse::Csr;
use super::ahead::NEAR_CELLS;
use super::batch::Batch;
use super::chunk::ChunkOp;
use super::features::Prior;
use super::gram::Basis;
use super::narrow::Narrow;
use super::options::{Feedback, Resolved};
use super::stream::Wide;

/// Rows up to this length are solved by one thread, and longer ones are summed up in parts of it.
pub(super) const HEAVY_CELLS: usize = 8192;
/// Rows whose gathered matrix has more values than this (2 MiB) are not gathered: they are read
/// from the factors in each step, which costs no more once the matrix leaves the cache.
pub(super) const GATHERED_VALUES: usize = 1 << 19;
/// Cells between the one that is gathered and the one whose factors are fetched.
pub(super) const GATHERED_AHEAD: usize = 40;
/// Chunks a half step is divided into, at most about.
const CHUNKS: usize = 256;

/// Working memory of a training's threads.
#[derive(Debug, Default)]
pub(super) struct Pool {
    scratches: Mutex<Vec<Scratch>>,
    parts: Mutex<Vec<PartSums>>,
}

/// What a part of a long row comes to.
#[derive(Debug, Default)]
pub(super) struct PartSums {
    pub(super) matrix: Aligned,
    pub(super) right: Aligned,
    pub(super) constant: f64,
}

/// Working memory of one thread; sized once for the longest row it meets.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) z: Aligned,
    pub(super) targets: Aligned,
    pub(super) products: Aligned,
    pub(super) w: Aligned,
    pub(super) residual: Aligned,
    pub(super) direction: Aligned,
    pub(super) image: Aligned,
    pub(super) matrix: Aligned,
    pub(super) right: Aligned,
    pub(super) solution: Aligned,
    /// Coordinate `i` of a row times this is the solver's own: `x = scale ∘ w`.
    pub(super) scale: Aligned,
    inverse: Aligned,
    /// λ·scale∘m, where m is the row's prior mean; meaningful when `has_prior`.
    pub(super) prior: Aligned,
    pub(super) has_prior: bool,
    mean: Aligned,
    pub(super) rotated: Aligned,
    pub(super) wide: Wide,
    pub(super) batch: Batch,
}

impl Scratch {
    fn fit_factors(&mut self, stride: usize) {
        for vector in [
            &mut self.w,
            &mut self.residual,
            &mut self.direction,
            &mut self.image,
            &mut self.scale,
            &mut self.inverse,
            &mut self.prior,
            &mut self.mean,
        ] {
            vector.grow(stride);
        }
    }

    fn fit_cells(&mut self, cells: usize, width: usize) {
        let rows = cells.next_multiple_of(ROW_GROUP);
        self.z.grow(rows * width);
        self.targets.grow(rows);
        self.products.grow(rows);
        self.z[cells * width..].fill(0.0);
        self.targets[cells..].fill(0.0);
    }
}

/// How rows are solved in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Exact,
    /// Steps of conjugate gradients.
    Gradient {
        steps: usize,
    },
    /// Coordinates solved together, a multiple of 16.
    Subspace {
        block: usize,
    },
    NonNegative,
}

/// Interactions of the longest row that one thread solves, of `cells` interactions in all. By the
/// data alone: a row that is no more than a chunk's share keeps nobody waiting. Subspaces gather
/// whole rows, whose memory is to have an end.
fn most_alone(method: Method, cells: usize) -> usize {
    match method {
        Method::Subspace { .. } => HEAVY_CELLS,
        _ => HEAVY_CELLS.max(cells / CHUNKS),
    }
}

/// What a half step reads.
pub(super) struct HalfStep<'a> {
    pub(super) cells: &'a Csr,
    /// Factors of the other side, rows of `stride`.
    pub(super) fixed: &'a [f32],
    /// The same in 16 bits, where rows are gathered from that.
    pub(super) narrow: Option<&'a Narrow>,
    /// How many of its rows have interactions.
    pub(super) others: usize,
    /// Biases of the other side; with them, coordinate `bias_column` of `fixed` is 1.
    pub(super) fixed_bias: Option<&'a [f32]>,
    pub(super) bias_column: usize,
    pub(super) stride: usize,
    /// The basis where the fixed side's Gram matrix is diagonal (implicit feedback). The fixed side
    /// is in it; the solved side is turned into it row by row.
    pub(super) basis: Option<&'a Basis>,
    /// The fixed side's Gram matrix, where the basis has to stay (non-negative, implicit).
    pub(super) dense: Option<&'a [f32]>,
    /// What features say of the rows.
    pub(super) prior: Option<&'a Prior>,
    pub(super) feedback: Feedback,
    pub(super) resolved: &'a Resolved,
    pub(super) method: Method,
    pub(super) cancel: &'a AtomicBool,
    pub(super) pool: &'a Pool,
}

/// Sums over the rows of a half step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    /// The whole objective but for the fixed side's penalty.
    pub(super) objective: f64,
    /// Σ λ·|x − m|² of the solved side; the prior mean m is 0 without features.
    pub(super) penalty: f64,
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.objective += other.objective;
        self.penalty += other.penalty;
    }
}

impl HalfStep<'_> {
    /// Solves all rows: `solved` holds the last iteration's factors and receives the new ones.
    ///
    /// # Errors
    /// [`ModelError::Cancelled`] once the cancel flag is set.
    pub(super) fn run(
        &self,
        solved: &mut [f32],
        bias: Option<&mut [f32]>,
    ) -> Result<Sums, ModelError> {
        let heavy = self.heavy_rows();
        let mut total = Sums::default();
        let mut no_bias: [f32; 0] = [];
        let (mut factors, mut bias) = (solved, bias.unwrap_or(&mut no_bias));
        let mut take = |rows: &Range<usize>| {
            let (chunk, rest) = std::mem::take(&mut factors).split_at_mut(rows.len() * self.stride);
            let at = rows.len().min(bias.len());
            let (chunk_bias, rest_bias) = std::mem::take(&mut bias).split_at_mut(at);
            (factors, bias) = (rest, rest_bias);
            (chunk, chunk_bias)
        };
        for row in 0..heavy {
            let rows = row..row + 1;
            let (chunk, chunk_bias) = take(&rows);
            total += self.chunk(rows, chunk, chunk_bias, true)?;
        }
        let mut tasks = vec![];
        for rows in self.chunks(heavy) {
            let (chunk, chunk_bias) = take(&rows);
            tasks.push((rows, chunk, chunk_bias));
        }
        let sums: Vec<Result<Sums, ModelError>> = tasks
            .into_par_iter()
            .with_max_len(1)
            .map(|(rows, factors, bias)| self.chunk(rows, factors, bias, false))
            .collect();
        for sum in sums {
            total += sum?;
        }
        Ok(total)
    }

    /// Interactions of a row.
    pub(super) fn length(&self, row: usize) -> usize {
        self.cells.row(row).0.len()
    }

    /// Coordinates that a row is solved for; the rest is padding.
    pub(super) fn unknowns(&self) -> usize {
        self.bias_column + usize::from(self.fixed_bias.is_some())
    }

    /// Rows that are divided among the threads, one row after the other.
    fn heavy_rows(&self) -> usize {
        let most = most_alone(self.method, self.cells.cells());
        (0..self.cells.rows()).take_while(|&row| self.length(row) > most).count()
    }

    /// Neighbouring rows of about equal cost.
    fn chunks(&self, from: usize) -> Vec<Range<usize>> {
        let rows = self.cells.rows();
        // A row without interactions costs next to nothing, one solved over its whole matrix as
        // much as many interactions.
        let fixed = if self.method == Method::NonNegative { self.stride } else { 4 };
        let cost = |row| match self.length(row) {
            0 => 1,
            length => length + fixed,
        };
        let limit = (from..rows).map(cost).sum::<usize>() / CHUNKS + 1;
        let mut chunks = vec![];
        let (mut start, mut sum) = (from, 0);
        for row in from..rows {
            sum += cost(row);
            if sum >= limit {
                chunks.push(start..row + 1);
                (start, sum) = (row + 1, 0);
            }
        }
        if start < rows {
            chunks.push(start..rows);
        }
        chunks
    }

    /// Whether the caller asked to stop; what is computed from then on is thrown away.
    #[inline(always)]
    pub(super) fn cancelled(&self) -> bool {
        cancel::is_set(self.cancel)
    }

    /// Runs `work` with a scratch of the pool.
    pub(super) fn with_scratch<R>(&self, work: impl FnOnce(&mut Scratch) -> R) -> R {
        let mut scratch = self.pool.scratches.lock().pop().unwrap_or_default();
        scratch.fit_factors(self.stride);
        let result = work(&mut scratch);
        self.pool.scratches.lock().push(scratch);
        result
    }

    /// Runs `work` with room for the sums of so many parts of a row, of which one is divided at a
    /// time.
    pub(super) fn with_parts<R>(&self, count: usize, work: impl FnOnce(&mut [PartSums]) -> R) -> R {
        let mut parts = std::mem::take(&mut *self.pool.parts.lock());
        if parts.len() < count {
            parts.resize_with(count, PartSums::default);
        }
        let result = work(&mut parts[..count]);
        *self.pool.parts.lock() = parts;
        result
    }

    fn chunk(
        &self,
        rows: Range<usize>,
        factors: &mut [f32],
        bias: &mut [f32],
        parallel: bool,
    ) -> Result<Sums, ModelError> {
        let sums = self.with_scratch(|scratch| {
            let op = ChunkOp { step: self, rows, factors, bias, parallel, scratch, prepared: None };
            Arch::new().dispatch(op)
        });
        if self.cancelled() { Err(ModelError::Cancelled) } else { Ok(sums) }
    }

    /// λ of a row with `count` interactions.
    pub(super) fn lambda(&self, count: usize) -> f64 {
        self.resolved.regularization(count, self.others)
    }

    /// Fills `scale` with 1/√(spectrum + λ) and `inverse` with its reciprocal; returns λ.
    #[inline(always)]
    pub(super) fn prepare_scale(&self, count: usize, scratch: &mut Scratch) -> f64 {
        let lambda = self.lambda(count);
        match self.basis {
            None => {
                // Non-negative rows are solved as they are, λ on the diagonal.
                let scaled = self.method != Method::NonNegative;
                let root = if scaled { lambda.sqrt() } else { 1.0 };
                scratch.scale.fill((1.0 / root) as f32);
                scratch.inverse.fill(root as f32);
            }
            Some(basis) => {
                let scales = scratch.scale.iter_mut().zip(scratch.inverse.iter_mut());
                for ((scale, inverse), &value) in scales.zip(&basis.spectrum) {
                    let root = (value + lambda).sqrt();
                    *scale = (1.0 / root) as f32;
                    *inverse = root as f32;
                }
            }
        }
        lambda
    }

    /// Fills in the row's prior mean; returns its share λ·|m|² of the objective.
    #[inline(always)]
    pub(super) fn prepare_prior<S: Simd>(
        &self,
        simd: S,
        row: usize,
        lambda: f64,
        s: &mut Scratch,
    ) -> f64 {
        s.has_prior = self.prior.is_some_and(|prior| prior.mean(row, &mut s.mean));
        if !s.has_prior {
            return 0.0;
        }
        scaled_product(simd, &mut s.prior, &s.mean, &s.scale, lambda as f32);
        lambda * f64::from(dot(simd, &s.mean, &s.mean))
    }

    /// A cell's multiplier of the fixed row, its target and its share of the constant: the cell
    /// enters the objective as (target − multiplier·x·y)², to which an unobserved cell's (x·y)²
    /// is added elsewhere.
    #[inline(always)]
    pub(super) fn cell(&self, column: usize, value: f32) -> (f32, f32, f64) {
        match self.feedback {
            // c·p over √(α|r|): see `super::side::encode_weight`.
            Feedback::Implicit if value > 0.0 => {
                (value, value + 1.0 / value, 1.0 + f64::from(value * value))
            }
            Feedback::Implicit => (value, 0.0, 0.0),
            Feedback::Explicit => {
                let target = value - self.fixed_bias.map_or(0.0, |bias| bias[column]);
                (1.0, target, f64::from(target * target))
            }
        }
    }

    /// Asks for coordinates `from..from + width` of a fixed row that is gathered soon.
    #[inline(always)]
    pub(super) fn fetch(&self, column: u32, (from, width): (usize, usize)) {
        match self.narrow {
            Some(narrow) => narrow.fetch(column as usize, (from, width)),
            None => prefetch(self.fixed_row(column, (from, width))),
        }
    }

    #[inline(always)]
    fn fixed_row(&self, column: u32, (from, width): (usize, usize)) -> &[f32] {
        let start = column as usize * self.stride + from;
        &self.fixed[start..start + width]
    }

    /// Gathers coordinates `from..from + width` of the cells' scaled rows, and their targets,
    /// into the scratch; returns the objective's constant part.
    #[inline(always)]
    pub(super) fn gather<S: Simd>(
        &self,
        simd: S,
        (columns, values): (&[u32], &[f32]),
        (from, width): (usize, usize),
        scratch: &mut Scratch,
    ) -> f64 {
        scratch.fit_cells(columns.len(), width);
        let Scratch { z, targets, scale, .. } = scratch;
        let scale = &scale[from..from + width];
        let mut constant = 0.0_f64;
        let cells = columns.iter().zip(values);
        let rows = z.chunks_exact_mut(width).zip(targets.iter_mut());
        // The first cells' factors were fetched while the row before was solved.
        let mut soon = columns.iter().skip(NEAR_CELLS);
        for (index, ((&column, &value), (row, target))) in cells.zip(rows).enumerate() {
            if index + GATHERED_AHEAD >= NEAR_CELLS
                && let Some(&column) = soon.next()
            {
                self.fetch(column, (from, width));
            }
            let (multiplier, wanted, share) = self.cell(column as usize, value);
            match self.narrow {
                Some(narrow) => {
                    narrow.scaled_product(row, (column as usize, from), scale, multiplier);
                }
                None => {
                    let fixed = self.fixed_row(column, (from, width));
                    scaled_product(simd, row, fixed, scale, multiplier);
                }
            }
            *target = wanted;
            constant += share;
        }
        constant
    }

    /// Starts from the last iteration: `w = x / scale`, the bias in its own coordinate.
    #[inline(always)]
    pub(super) fn warm_start<S: Simd>(
        &self,
        simd: S,
        x: &mut [f32],
        bias: Option<&f32>,
        s: &mut Scratch,
    ) {
        if let Some(&bias) = bias {
            x[self.bias_column] = bias;
        }
        scaled_product(simd, &mut s.w, x, &s.inverse, 1.0);
    }

    /// Scales the solution back, moves the bias to its place and returns the penalty.
    #[inline(always)]
    pub(super) fn finish<S: Simd>(
        &self,
        simd: S,
        lambda: f64,
        x: &mut [f32],
        bias: Option<&mut f32>,
        scratch: &Scratch,
    ) -> f64 {
        scaled_product(simd, x, &scratch.w, &scratch.scale, 1.0);
        let penalty = match scratch.has_prior {
            false => lambda * f64::from(dot(simd, x, x)),
            true => {
                let pairs = x.iter().zip(scratch.mean.iter());
                lambda * pairs.map(|(&x, &mean)| f64::from(x - mean).powi(2)).sum::<f64>()
            }
        };
        if let Some(bias) = bias {
            *bias = x[self.bias_column];
            x[self.bias_column] = 1.0;
        }
        penalty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_no_more_than_a_chunk_s_share_are_one_thread_s() {
        let exact = |cells| most_alone(Method::Exact, cells);
        assert_eq!(exact(1_000_000), HEAVY_CELLS);
        assert_eq!(exact(1_000_000_000), 1_000_000_000 / CHUNKS);
        assert_eq!(most_alone(Method::Subspace { block: 64 }, 1_000_000_000), HEAVY_CELLS);
    }
}
