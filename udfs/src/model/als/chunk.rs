//! The rows of a chunk, solved one after the other or, where their systems are small, several at a
//! time ([`super::batch`]).
//!
//! While a row is solved, the next row's factors are fetched ([`super::ahead`]).

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::ahead::Ahead;
use super::batch::{self, Form};
use super::gram::Rotation;
use super::row::{GATHERED_VALUES, HalfStep, Method, Scratch, Sums};
use super::{cg, cholesky, nonnegative, normal, stream, subspace};

/// Rows that are turned into the basis together, shortly before they are solved.
const ROTATED_ROWS: usize = 64;
/// Steps of conjugate gradients for a matrix too badly conditioned for Cholesky in `f32`.
const RESCUE_STEPS: usize = 50;

/// Solves neighbouring rows.
pub(super) struct ChunkOp<'a, 'b> {
    pub(super) step: &'a HalfStep<'b>,
    pub(super) rows: Range<usize>,
    pub(super) factors: &'a mut [f32],
    pub(super) bias: &'a mut [f32],
    /// Whether each row is divided among the threads.
    pub(super) parallel: bool,
    pub(super) scratch: &'a mut Scratch,
    /// The number of interactions that the scratch's scale is of, and their λ.
    pub(super) prepared: Option<(usize, f64)>,
}

impl WithSimd for ChunkOp<'_, '_> {
    type Output = Sums;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) -> Sums {
        let mut sums = Sums::default();
        for index in 0..self.rows.len() {
            self.turn(simd, index);
            let count = self.step.length(self.rows.start + index);
            if count == 0 {
                self.clear(index);
                continue;
            }
            if self.step.cancelled() {
                break;
            }
            let order = if self.parallel { None } else { batch::order::<S>(self.step, count) };
            match order {
                None => sums += self.solve(simd, index),
                Some(order) => {
                    self.wait(simd, index, order);
                    if self.scratch.batch.is_full::<S>() {
                        sums += self.solve_waiting(simd);
                    }
                }
            }
        }
        sums += self.solve_waiting(simd);
        sums
    }
}

impl ChunkOp<'_, '_> {
    /// Turns the next rows into the basis, a group at a time.
    #[inline(always)]
    fn turn<S: Simd>(&mut self, simd: S, index: usize) {
        let stride = self.step.stride;
        if let Some(basis) = self.step.basis
            && index.is_multiple_of(ROTATED_ROWS)
        {
            let rows = index * stride..self.factors.len().min((index + ROTATED_ROWS) * stride);
            let rotation = Rotation { basis, stride };
            rotation.turn(simd, &mut self.factors[rows], &mut self.scratch.rotated);
        }
    }

    /// A row without interactions has factors of 0.
    fn clear(&mut self, index: usize) {
        let stride = self.step.stride;
        let x = &mut self.factors[index * stride..(index + 1) * stride];
        x.fill(0.0);
        if let Some(bias) = self.bias.get_mut(index) {
            *bias = 0.0;
            x[self.step.bias_column] = 1.0;
        }
    }

    /// Prepares a row's scale and prior; returns λ and what the prior mean adds to the objective.
    #[inline(always)]
    fn prepare<S: Simd>(&mut self, simd: S, row: usize) -> (f64, f64) {
        let count = self.step.length(row);
        let lambda = match self.prepared {
            Some((of, lambda)) if of == count => lambda,
            _ => self.step.prepare_scale(count, self.scratch),
        };
        self.prepared = Some((count, lambda));
        (lambda, self.step.prepare_prior(simd, row, lambda, self.scratch))
    }

    /// Solves a row on its own.
    #[inline(always)]
    fn solve<S: Simd>(&mut self, simd: S, index: usize) -> Sums {
        let (step, row) = (self.step, self.rows.start + index);
        let (lambda, of_prior) = self.prepare(simd, row);
        let x = &mut self.factors[index * step.stride..(index + 1) * step.stride];
        let bias = self.bias.get_mut(index);
        step.warm_start(simd, x, bias.as_deref(), self.scratch);
        let ahead = ahead(step, row + 1..self.rows.end);
        let objective = solve_row(simd, step, row, self.parallel, ahead, self.scratch);
        let penalty = step.finish(simd, lambda, x, bias, self.scratch);
        Sums { objective: of_prior + objective, penalty }
    }

    /// Builds a row's system of an order, to be solved with others.
    #[inline(always)]
    fn wait<S: Simd>(&mut self, simd: S, index: usize, order: usize) {
        let (step, row) = (self.step, self.rows.start + index);
        self.prepare(simd, row);
        let cells = step.cells.row(row);
        let (constant, form, line) = if cells.0.len() < step.unknowns() {
            batch::lend(self.scratch);
            let constant = step.gather(simd, cells, (0, step.stride), self.scratch);
            ahead(step, row + 1..self.rows.end).fetch(1);
            let line = cholesky::build_dual(simd, self.scratch, step.stride, step.cancel);
            (constant, Form::Dual, line)
        } else {
            let constant = normal::accumulate(simd, step, row, false, self.scratch);
            ahead(step, row + 1..self.rows.end).fetch(1);
            cholesky::build_primal(simd, self.scratch, step.stride);
            (constant, Form::Primal, step.stride)
        };
        batch::put::<S>(self.scratch, (index, constant), order, form, line);
    }

    /// Solves the rows that wait.
    #[inline(always)]
    fn solve_waiting<S: Simd>(&mut self, simd: S) -> Sums {
        let step = self.step;
        let mut sums = Sums::default();
        for lane in 0..self.scratch.batch.solve(simd) {
            let (index, constant) = self.scratch.batch.row(lane);
            let row = self.rows.start + index;
            let (lambda, of_prior) = self.prepare(simd, row);
            let x = &mut self.factors[index * step.stride..(index + 1) * step.stride];
            let bias = self.bias.get_mut(index);
            step.warm_start(simd, x, bias.as_deref(), self.scratch);
            let objective = match batch::take(simd, self.scratch, lane) {
                Some(objective) => objective + constant,
                None => stream::solve(step, row, RESCUE_STEPS, false, self.scratch),
            };
            let penalty = step.finish(simd, lambda, x, bias, self.scratch);
            sums += Sums { objective: of_prior + objective, penalty };
        }
        sums
    }
}

/// What the first of the next rows needs.
#[inline(always)]
fn ahead<'a>(step: &'a HalfStep<'_>, next: Range<usize>) -> Ahead<'a> {
    let columns: &[u32] = if next.is_empty() { &[] } else { step.cells.row(next.start).0 };
    Ahead::new(step, columns)
}

/// Moves `scratch.w` to the row's solution, or nearer to it, and returns the row's objective.
#[inline(always)]
fn solve_row<S: Simd>(
    simd: S,
    step: &HalfStep<'_>,
    row: usize,
    parallel: bool,
    mut ahead: Ahead<'_>,
    scratch: &mut Scratch,
) -> f64 {
    let cells = step.cells.row(row);
    let (count, stride) = (cells.0.len(), step.stride);
    let all = (0, stride);
    let (constant, exact) = match step.method {
        Method::Gradient { steps } if count * stride > GATHERED_VALUES || parallel => {
            return stream::solve(step, row, steps, parallel, scratch);
        }
        Method::Gradient { steps } => {
            let constant = step.gather(simd, cells, all, scratch);
            return constant + cg::solve(simd, scratch, steps, &mut ahead, step.cancel);
        }
        Method::Subspace { block } if count > block && !parallel => {
            return subspace::solve(simd, step, cells, block, scratch);
        }
        Method::NonNegative => {
            let constant = normal::accumulate(simd, step, row, parallel, scratch);
            ahead.fetch(1);
            return constant + nonnegative::solve(simd, step, count, scratch);
        }
        Method::Exact | Method::Subspace { .. } if count < step.unknowns() && !parallel => {
            let constant = step.gather(simd, cells, all, scratch);
            ahead.fetch(1);
            (constant, cholesky::solve_dual(simd, scratch, stride, step.cancel))
        }
        Method::Exact | Method::Subspace { .. } => {
            let constant = normal::accumulate(simd, step, row, parallel, scratch);
            ahead.fetch(1);
            (constant, cholesky::solve_primal(simd, scratch, stride, step.cancel))
        }
    };
    match exact {
        Some(objective) => objective + constant,
        // Gradients never divide by a bad pivot.
        None => stream::solve(step, row, RESCUE_STEPS, parallel, scratch),
    }
}
