//! Exact solution of one row's scaled normal equations (I + ZᵀZ)·w = Zᵀt + p by Cholesky's
//! method, where p is the scaled prior mean (0 without features).
//!
//! With n interactions and k unknowns the system is solved in whichever form is smaller: the
//! primal of order k, or for n < k the dual of order n, (I + ZZᵀ)·v = t − Z·p with w = p + Zᵀv.
//! Small systems are built here and solved several at a time ([`super::interleaved`]).

use std::sync::atomic::AtomicBool;

use pulp::Simd;

use super::super::cancel;
#[cfg(test)]
use super::super::cancel::meter;
use super::super::kernel::{ROW_GROUP, add_scaled, dot, products, weighted_sum};
use super::row::Scratch;

/// What is left of a diagonal cell, as a share of it, below which rounding in `f32` has lost the
/// pivot: those of I + ZᵀZ are 1 or more, so that a smaller one is mostly error.
pub(super) const PIVOT_SHARE: f32 = 1e-5;
/// Rows between two looks at the cancel flag; each costs at most order² multiplications.
const ROWS_PER_LOOK: usize = 32;

/// Fills in the upper triangle of I + ZZᵀ for the gathered rows and the right side t − Z·p;
/// returns the length of a line of the matrix.
#[inline(always)]
pub(super) fn build_dual<S: Simd>(
    simd: S,
    scratch: &mut Scratch,
    stride: usize,
    cancel: &AtomicBool,
) -> usize {
    let padded = scratch.targets.len();
    let order = padded.next_multiple_of(16);
    scratch.matrix.grow(order * order);
    scratch.right.grow(order);
    let Scratch { z, targets, products: image, matrix, right, prior, has_prior, .. } = scratch;
    for row in 0..padded {
        if row.is_multiple_of(ROWS_PER_LOOK) && cancel::is_set(cancel) {
            break;
        }
        let from = row / ROW_GROUP * ROW_GROUP;
        let line = &mut matrix[row * order..(row + 1) * order];
        let own = &z[row * stride..(row + 1) * stride];
        products(simd, &z[from * stride..], own, &mut line[from..padded]);
        line[padded..].fill(0.0);
        line[row] += 1.0;
    }
    right[..padded].copy_from_slice(targets);
    right[padded..].fill(0.0);
    if *has_prior {
        products(simd, z, prior, image);
        right.iter_mut().zip(image.iter()).for_each(|(right, &known)| *right -= known);
    }
    order
}

/// Moves `scratch.w` to p + Zᵀv, where v is `scratch.solution`, and returns the row's objective
/// |Z·w|² − 2·t·(Z·w) + |w|² − 2·p·w.
#[inline(always)]
pub(super) fn finish_dual<S: Simd>(simd: S, scratch: &mut Scratch) -> f64 {
    let Scratch { z, targets, w, solution, prior, has_prior, .. } = scratch;
    let prior: Option<&[f32]> = has_prior.then_some(prior);
    weighted_sum(simd, z, &solution[..targets.len()], prior, w);
    let mut objective = 0.0_f64;
    for (&t, &v) in targets.iter().zip(solution.iter()) {
        objective -= f64::from(t) * (f64::from(t) - f64::from(v));
    }
    if let Some(prior) = prior {
        objective -= f64::from(dot(simd, prior, w));
    }
    objective
}

/// Solves the dual system of the gathered rows for `scratch.w` and returns the row's objective;
/// `None` when rounding lost a pivot or the caller asked to stop, with `w` as it was.
#[inline(always)]
pub(super) fn solve_dual<S: Simd>(
    simd: S,
    scratch: &mut Scratch,
    stride: usize,
    cancel: &AtomicBool,
) -> Option<f64> {
    let order = build_dual(simd, scratch, stride, cancel);
    let padded = scratch.targets.len();
    scratch.solution.grow(order);
    let Scratch { matrix, right, solution, .. } = &mut *scratch;
    factor(simd, matrix, padded, order, cancel)?;
    substitute(simd, matrix, padded, order, right, solution);
    Some(finish_dual(simd, scratch))
}

/// Makes of the sums ZᵀZ and Zᵀt, of which the upper triangle is given, the primal system.
#[inline(always)]
pub(super) fn build_primal<S: Simd>(simd: S, scratch: &mut Scratch, stride: usize) {
    let Scratch { matrix, right, prior, has_prior, .. } = scratch;
    for index in 0..stride {
        matrix[index * stride + index] += 1.0;
    }
    if *has_prior {
        add_scaled(simd, right, 1.0, prior);
    }
}

/// Solves the primal system of the sums for `scratch.w`, and returns as [`solve_dual`] does; the
/// sums are consumed.
#[inline(always)]
pub(super) fn solve_primal<S: Simd>(
    simd: S,
    scratch: &mut Scratch,
    stride: usize,
    cancel: &AtomicBool,
) -> Option<f64> {
    build_primal(simd, scratch, stride);
    let Scratch { w, matrix, right, image, .. } = scratch;
    image.copy_from_slice(right);
    factor(simd, matrix, stride, stride, cancel)?;
    substitute(simd, matrix, stride, stride, right, w);
    Some(-f64::from(dot(simd, image, w)))
}

/// Turns the upper triangle of M into U with UᵀU = M, for a multiple of [`ROW_GROUP`] rows; what
/// is below the diagonal does not count. `None` when rounding lost a pivot ([`PIVOT_SHARE`]) or the
/// caller asked to stop.
///
/// A group of rows takes off what all finished rows say while its cells are in registers, so that
/// a multiplication costs no visit to the cache of its own.
#[inline(always)]
pub(super) fn factor<S: Simd>(
    simd: S,
    matrix: &mut [f32],
    rows: usize,
    stride: usize,
    cancel: &AtomicBool,
) -> Option<()> {
    let width = stride / S::F32_LANES;
    for first in (0..rows).step_by(ROW_GROUP) {
        if first.is_multiple_of(ROWS_PER_LOOK) && cancel::is_set(cancel) {
            return None;
        }
        let (done, below) = matrix.split_at_mut(first * stride);
        let lines = &mut below[..ROW_GROUP * stride];
        let mut least = [0.0_f32; ROW_GROUP];
        let groups = least.iter_mut().zip(lines.chunks_exact(stride)).enumerate();
        groups.for_each(|(offset, (least, line))| *least = PIVOT_SHARE * line[first + offset]);
        let mut column = first / S::F32_LANES;
        while column < width {
            column += match width - column {
                1 => take_off::<S, 1>(simd, done, stride, first, column, lines),
                _ => take_off::<S, 2>(simd, done, stride, first, column, lines),
            };
        }
        factor_group(simd, lines, stride, first, &least)?;
    }
    Some(())
}

/// Takes what the rows of U that are done say off the group of rows from `row` on: `W` vectors'
/// width of their lines.
#[inline(always)]
fn take_off<S: Simd, const W: usize>(
    simd: S,
    done: &[f32],
    stride: usize,
    row: usize,
    column: usize,
    lines: &mut [f32],
) -> usize {
    #[cfg(test)]
    meter::spend(row * ROW_GROUP * W * S::F32_LANES);
    let mut sums = [[simd.splat_f32s(0.0); W]; ROW_GROUP];
    for line in done.chunks_exact(stride) {
        let right = &S::as_simd_f32s(line).0[column..column + W];
        let left = &line[row..row + ROW_GROUP];
        for (sums, &left) in sums.iter_mut().zip(left) {
            let left = simd.splat_f32s(left);
            for (sum, &right) in sums.iter_mut().zip(right) {
                *sum = simd.mul_add_e_f32s(left, right, *sum);
            }
        }
    }
    for (line, sums) in lines.chunks_exact_mut(stride).zip(&sums) {
        let line = &mut S::as_mut_simd_f32s(line).0[column..column + W];
        for (cell, &sum) in line.iter_mut().zip(sums) {
            *cell = simd.sub_f32s(*cell, sum);
        }
    }
    W
}

/// Finishes a group of rows of which the first is row `first`: only they have still to be taken off
/// each other. `None` when a pivot is not more than the `least` of its row.
#[inline(always)]
fn factor_group<S: Simd>(
    simd: S,
    lines: &mut [f32],
    stride: usize,
    first: usize,
    least: &[f32; ROW_GROUP],
) -> Option<()> {
    let from = first / 16 * 16;
    for offset in 0..ROW_GROUP {
        let pivot = first + offset;
        let (own, below) = lines.split_at_mut((offset + 1) * stride);
        let line = &mut own[offset * stride..];
        let diagonal = line[pivot];
        if !(diagonal > least[offset] && diagonal.is_finite()) {
            return None;
        }
        let inverse = 1.0 / diagonal.sqrt();
        // Cells below the diagonal are read by whole vectors: they are finite from here on.
        line[from..pivot].fill(0.0);
        for cell in &mut line[pivot..] {
            *cell *= inverse;
        }
        for (row, target) in (pivot + 1..).zip(below.chunks_exact_mut(stride)) {
            add_scaled(simd, &mut target[from..], -line[row], &line[from..]);
        }
    }
    Some(())
}

/// Solves UᵀU·x = b. `right` (b) is consumed; both vectors are padded to `stride`.
#[inline(always)]
pub(super) fn substitute<S: Simd>(
    simd: S,
    upper: &[f32],
    rows: usize,
    stride: usize,
    right: &mut [f32],
    solution: &mut [f32],
) {
    for row in 0..rows {
        let line = &upper[row * stride..(row + 1) * stride];
        let value = right[row] / line[row];
        let from = row / 16 * 16;
        // Cells before `row` in its group of 16 are finished: keep them.
        let mut kept = [0.0_f32; 16];
        let head = row - from;
        kept[..head].copy_from_slice(&right[from..row]);
        add_scaled(simd, &mut right[from..], -value, &line[from..]);
        right[from..row].copy_from_slice(&kept[..head]);
        right[row] = value;
    }
    solution.fill(0.0);
    for row in (0..rows).rev() {
        let line = &upper[row * stride..(row + 1) * stride];
        let from = row / 16 * 16;
        // Solution cells up to `row` are still 0, so cells below the diagonal do not count.
        let known = dot(simd, &line[from..], &solution[from..]);
        solution[row] = (right[row] - known) / line[row];
    }
}
