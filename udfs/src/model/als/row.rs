//! One side's half step: every row solved against the other side's fixed factors.
//!
//! A row's interactions are gathered once, scaled by the square root of their weight and of the
//! inverse dense part, into a scratch matrix that the solver then works on alone. Rows come in
//! descending order of length; chunks of equal cost are taken by whichever thread is free. A row
//! does not depend on any other, so the result does not depend on the number of threads.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::error::ModelError;
use super::super::kernel::{Aligned, ROW_GROUP, add_gram, dot, scaled_product, weighted_sum};
use super::super::sparse::Csr;
use super::options::{Feedback, Resolved};
use super::{cg, cholesky};

/// Rows longer than this are summed up in parallel and solved exactly, one after the other.
const HEAVY_CELLS: usize = 8192;
/// Chunks a half step is divided into, at most about.
const CHUNKS: usize = 256;

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
    scale: Aligned,
    inverse: Aligned,
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
        ] {
            vector.grow(stride);
        }
    }

    fn fit_cells(&mut self, cells: usize, stride: usize) {
        let rows = cells.next_multiple_of(ROW_GROUP);
        self.z.grow(rows * stride);
        self.targets.grow(rows);
        self.products.grow(rows);
        self.z[cells * stride..].fill(0.0);
        self.targets[cells..].fill(0.0);
    }
}

/// How rows are solved in this run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Method {
    Exact,
    /// Steps of conjugate gradients; rows of at most `exact_cells` are solved exactly.
    Gradient {
        steps: usize,
        exact_cells: usize,
    },
}

/// What a half step reads.
pub(super) struct HalfStep<'a> {
    pub(super) cells: &'a Csr,
    /// Factors of the other side, rows of `stride`.
    pub(super) fixed: &'a [f32],
    /// Biases of the other side; with them, coordinate `bias_column` of `fixed` is 1.
    pub(super) fixed_bias: Option<&'a [f32]>,
    pub(super) bias_column: usize,
    pub(super) stride: usize,
    /// Eigenvalues of the fixed side's Gram matrix (implicit feedback), in whose basis both are.
    pub(super) spectrum: Option<&'a [f64]>,
    pub(super) feedback: Feedback,
    pub(super) resolved: &'a Resolved,
    pub(super) method: Method,
    pub(super) cancel: &'a AtomicBool,
    pub(super) pool: &'a Mutex<Vec<Scratch>>,
}

/// Sums over the rows of a half step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sums {
    /// The whole objective but for the fixed side's penalty.
    pub(super) objective: f64,
    /// Σ λ·|x|² of the solved side.
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
        let (front, mut factors) = solved.split_at_mut(heavy * self.stride);
        let mut no_bias: [f32; 0] = [];
        let bias = bias.unwrap_or(&mut no_bias);
        let (front_bias, mut bias) = bias.split_at_mut(heavy.min(bias.len()));
        for row in 0..heavy {
            let x = &mut front[row * self.stride..(row + 1) * self.stride];
            total += self.heavy_row(row, x, front_bias.get_mut(row))?;
        }
        let mut tasks = vec![];
        for rows in self.chunks(heavy) {
            let (chunk, rest) = factors.split_at_mut(rows.len() * self.stride);
            let (chunk_bias, rest_bias) = bias.split_at_mut(rows.len().min(bias.len()));
            (factors, bias) = (rest, rest_bias);
            tasks.push((rows, chunk, chunk_bias));
        }
        let sums: Vec<Result<Sums, ModelError>> = tasks
            .into_par_iter()
            .with_max_len(1)
            .map(|(rows, factors, bias)| self.chunk(rows, factors, bias))
            .collect();
        for sum in sums {
            total += sum?;
        }
        Ok(total)
    }

    fn length(&self, row: usize) -> usize {
        self.cells.row(row).0.len()
    }

    fn heavy_rows(&self) -> usize {
        (0..self.cells.rows()).take_while(|&row| self.length(row) > HEAVY_CELLS).count()
    }

    /// Neighbouring rows of about equal cost.
    fn chunks(&self, from: usize) -> Vec<Range<usize>> {
        let rows = self.cells.rows();
        let cost = |row| self.length(row) + 4;
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

    fn check_cancel(&self) -> Result<(), ModelError> {
        if self.cancel.load(Ordering::Relaxed) { Err(ModelError::Cancelled) } else { Ok(()) }
    }

    fn chunk(
        &self,
        rows: Range<usize>,
        factors: &mut [f32],
        bias: &mut [f32],
    ) -> Result<Sums, ModelError> {
        self.check_cancel()?;
        let mut scratch = self.pool.lock().pop().unwrap_or_default();
        scratch.fit_factors(self.stride);
        let op = ChunkOp { step: self, rows, factors, bias, scratch: &mut scratch };
        let sums = Arch::new().dispatch(op);
        self.pool.lock().push(scratch);
        Ok(sums)
    }

    fn heavy_row(
        &self,
        row: usize,
        x: &mut [f32],
        bias: Option<&mut f32>,
    ) -> Result<Sums, ModelError> {
        let (columns, values) = self.cells.row(row);
        // At most 64 partial sums, whatever the length: fixed, for the same sum on any machine.
        let part = HEAVY_CELLS.max(columns.len().div_ceil(64));
        let parts: Vec<Result<(Aligned, Aligned, f64), ModelError>> = columns
            .par_chunks(part)
            .zip(values.par_chunks(part))
            .map(|(columns, values)| {
                self.check_cancel()?;
                let mut scratch = self.pool.lock().pop().unwrap_or_default();
                scratch.fit_factors(self.stride);
                let count = self.length(row);
                let op = PartOp { step: self, count, columns, values, scratch: &mut scratch };
                let part = Arch::new().dispatch(op);
                self.pool.lock().push(scratch);
                Ok(part)
            })
            .collect();
        let mut scratch = Scratch::default();
        scratch.fit_factors(self.stride);
        scratch.matrix = Aligned::zeros(self.stride * self.stride);
        scratch.right = Aligned::zeros(self.stride);
        let mut constant = 0.0;
        for part in parts {
            let (matrix, right, part_constant) = part?;
            constant += part_constant;
            for (sum, &value) in scratch.matrix.iter_mut().zip(matrix.iter()) {
                *sum += value;
            }
            for (sum, &value) in scratch.right.iter_mut().zip(right.iter()) {
                *sum += value;
            }
        }
        let op = HeavyOp { step: self, row, x, bias, constant, scratch: &mut scratch };
        Ok(Arch::new().dispatch(op))
    }

    /// Fills `scale` with 1/√(spectrum + λ) and `inverse` with its reciprocal; returns λ.
    #[inline(always)]
    fn prepare_scale(&self, count: usize, scratch: &mut Scratch) -> f64 {
        let others = self.fixed.len() / self.stride;
        let lambda = self.resolved.regularization(count, others);
        match self.spectrum {
            None => {
                scratch.scale.fill((1.0 / lambda.sqrt()) as f32);
                scratch.inverse.fill(lambda.sqrt() as f32);
            }
            Some(spectrum) => {
                let scales = scratch.scale.iter_mut().zip(scratch.inverse.iter_mut());
                for ((scale, inverse), &value) in scales.zip(spectrum) {
                    let root = (value + lambda).sqrt();
                    *scale = (1.0 / root) as f32;
                    *inverse = root as f32;
                }
            }
        }
        lambda
    }

    /// Gathers scaled rows and targets into the scratch; returns the objective's constant part.
    #[inline(always)]
    fn gather<S: Simd>(
        &self,
        simd: S,
        columns: &[u32],
        values: &[f32],
        scratch: &mut Scratch,
    ) -> f64 {
        let stride = self.stride;
        scratch.fit_cells(columns.len(), stride);
        let Scratch { z, targets, scale, .. } = scratch;
        let mut constant = 0.0_f64;
        let cells = columns.iter().zip(values);
        let rows = z.chunks_exact_mut(stride).zip(targets.iter_mut());
        for ((&column, &value), (row, target)) in cells.zip(rows) {
            let column = column as usize;
            let fixed = &self.fixed[column * stride..(column + 1) * stride];
            match self.feedback {
                Feedback::Implicit => {
                    scaled_product(simd, row, fixed, scale, value);
                    // c·p over √(α|r|): see `super::encode_weight`.
                    *target = if value > 0.0 { value + 1.0 / value } else { 0.0 };
                    constant += if value > 0.0 { 1.0 + f64::from(value * value) } else { 0.0 };
                }
                Feedback::Explicit => {
                    scaled_product(simd, row, fixed, scale, 1.0);
                    *target = value - self.fixed_bias.map_or(0.0, |bias| bias[column]);
                    constant += f64::from(*target * *target);
                }
            }
        }
        constant
    }

    /// Starts from the last iteration: `w = x / scale`, the bias in its own coordinate.
    #[inline(always)]
    fn warm_start<S: Simd>(&self, simd: S, x: &mut [f32], bias: Option<&f32>, s: &mut Scratch) {
        if let Some(&bias) = bias {
            x[self.bias_column] = bias;
        }
        scaled_product(simd, &mut s.w, x, &s.inverse, 1.0);
    }

    /// Writes the solution back; returns λ·|x|².
    #[inline(always)]
    fn finish<S: Simd>(
        &self,
        simd: S,
        lambda: f64,
        x: &mut [f32],
        bias: Option<&mut f32>,
        scratch: &Scratch,
    ) -> f64 {
        scaled_product(simd, x, &scratch.w, &scratch.scale, 1.0);
        let penalty = lambda * f64::from(dot(simd, x, x));
        if let Some(bias) = bias {
            *bias = x[self.bias_column];
            x[self.bias_column] = 1.0;
        }
        penalty
    }
}

struct ChunkOp<'a, 'b> {
    step: &'a HalfStep<'b>,
    rows: Range<usize>,
    factors: &'a mut [f32],
    bias: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for ChunkOp<'_, '_> {
    type Output = Sums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Sums {
        let Self { step, rows, factors, bias, scratch } = self;
        let mut sums = Sums::default();
        let (mut prepared, mut lambda) = (usize::MAX, 0.0);
        for (index, (row, x)) in rows.zip(factors.chunks_exact_mut(step.stride)).enumerate() {
            let (columns, values) = step.cells.row(row);
            let bias = bias.get_mut(index);
            if columns.is_empty() {
                x.fill(0.0);
                if let Some(bias) = bias {
                    *bias = 0.0;
                    x[step.bias_column] = 1.0;
                }
                continue;
            }
            if prepared != columns.len() {
                prepared = columns.len();
                lambda = step.prepare_scale(prepared, scratch);
            }
            let constant = step.gather(simd, columns, values, scratch);
            step.warm_start(simd, x, bias.as_deref(), scratch);
            let objective = solve_row(simd, step.method, step.stride, scratch);
            sums.objective += objective + constant;
            sums.penalty += step.finish(simd, lambda, x, bias, scratch);
        }
        sums
    }
}

#[inline(always)]
fn solve_row<S: Simd>(simd: S, method: Method, stride: usize, scratch: &mut Scratch) -> f64 {
    let steps = match method {
        Method::Gradient { steps, exact_cells } if scratch.targets.len() > exact_cells => steps,
        _ => match cholesky::solve(simd, scratch, stride) {
            Some(objective) => return objective,
            // Too badly conditioned for `f32`: gradients never divide by a bad pivot.
            None => 50,
        },
    };
    cg::solve(simd, scratch, steps)
}

/// One part of a heavy row: its Gram matrix, right-hand side and constant.
struct PartOp<'a, 'b> {
    step: &'a HalfStep<'b>,
    count: usize,
    columns: &'a [u32],
    values: &'a [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for PartOp<'_, '_> {
    type Output = (Aligned, Aligned, f64);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let stride = self.step.stride;
        let mut matrix = Aligned::zeros(stride * stride);
        let mut right = Aligned::zeros(stride);
        let mut constant = 0.0;
        self.step.prepare_scale(self.count, self.scratch);
        for (columns, values) in self.columns.chunks(512).zip(self.values.chunks(512)) {
            constant += self.step.gather(simd, columns, values, self.scratch);
            add_gram(simd, &self.scratch.z, stride, &mut matrix);
            let Scratch { z, targets, image, .. } = &mut *self.scratch;
            image.copy_from_slice(&right);
            weighted_sum(simd, z, targets, Some(image), &mut right);
        }
        (matrix, right, constant)
    }
}

/// Solves a heavy row from its summed parts.
struct HeavyOp<'a, 'b> {
    step: &'a HalfStep<'b>,
    row: usize,
    x: &'a mut [f32],
    bias: Option<&'a mut f32>,
    constant: f64,
    scratch: &'a mut Scratch,
}

impl WithSimd for HeavyOp<'_, '_> {
    type Output = Sums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Sums {
        let Self { step, row, x, bias, constant, scratch } = self;
        let lambda = step.prepare_scale(step.length(row), scratch);
        step.warm_start(simd, x, bias.as_deref(), scratch);
        // An indefinite matrix keeps the last iteration's factors, whose objective is unknown.
        let objective = cholesky::solve_normal(simd, scratch, step.stride).unwrap_or(0.0);
        let penalty = step.finish(simd, lambda, x, bias, scratch);
        Sums { objective: objective + constant, penalty }
    }
}
