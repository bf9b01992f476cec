//! Exact solution of one row's scaled normal equations (I + ZᵀZ)·w = Zᵀt + p by Cholesky's
//! method, where p is the scaled prior mean (0 without features).
//!
//! With n interactions and k factors the system is solved in whichever form is smaller: the
//! primal of order k, or for n < k the dual of order n, (I + ZZᵀ)·v = t − Z·p with w = p + Zᵀv.

use std::sync::atomic::{AtomicBool, Ordering};

use pulp::Simd;

use super::super::kernel::{ROW_GROUP, add_scaled, dot, products, weighted_sum};
use super::row::Scratch;

/// Pivots between two looks at the cancel flag; each costs at most order² multiplications.
const PIVOTS_PER_LOOK: usize = 32;

/// Solves the dual system of the gathered rows for `scratch.w` and returns the row's objective
/// |Z·w|² − 2·t·(Z·w) + |w|² − 2·p·w; `None` when rounding made the matrix indefinite or the
/// caller asked to stop, with `w` as it was.
#[inline(always)]
pub(super) fn solve_dual<S: Simd>(
    simd: S,
    scratch: &mut Scratch,
    stride: usize,
    rows: usize,
    cancel: &AtomicBool,
) -> Option<f64> {
    let padded = rows.next_multiple_of(ROW_GROUP);
    let order = padded.next_multiple_of(16);
    scratch.matrix.grow(order * order);
    scratch.right.grow(order);
    scratch.solution.grow(order);
    let Scratch {
        z, targets, products: image, w, matrix, right, solution, prior, has_prior, ..
    } = scratch;
    let prior: Option<&[f32]> = has_prior.then_some(prior);
    for row in 0..padded {
        let from = row / ROW_GROUP * ROW_GROUP;
        let line = &mut matrix[row * order..(row + 1) * order];
        // Cells below the diagonal are read by whole vectors: keep them finite.
        line[row / 16 * 16..row].fill(0.0);
        let own = &z[row * stride..(row + 1) * stride];
        products(simd, &z[from * stride..], own, &mut line[from..padded]);
        line[padded..].fill(0.0);
        line[row] += 1.0;
    }
    right[..padded].copy_from_slice(targets);
    right[padded..].fill(0.0);
    if let Some(prior) = prior {
        products(simd, z, prior, image);
        right.iter_mut().zip(image.iter()).for_each(|(right, &known)| *right -= known);
    }
    factor(simd, matrix, padded, order, cancel)?;
    substitute(simd, matrix, padded, order, right, solution);
    weighted_sum(simd, z, &solution[..padded], prior, w);
    let mut objective = 0.0_f64;
    for (&t, &v) in targets.iter().zip(solution.iter()) {
        objective -= f64::from(t) * (f64::from(t) - f64::from(v));
    }
    if let Some(prior) = prior {
        objective -= f64::from(dot(simd, prior, w));
    }
    Some(objective)
}

/// Solves (I + `matrix`)·w = `right` + p for `scratch.w`; the upper triangle is given and
/// consumed. `None` as for [`solve_dual`].
#[inline(always)]
pub(super) fn solve_normal<S: Simd>(
    simd: S,
    scratch: &mut Scratch,
    stride: usize,
    cancel: &AtomicBool,
) -> Option<f64> {
    let Scratch { w, matrix, right, image, prior, has_prior, .. } = scratch;
    for index in 0..stride {
        matrix[index * stride + index] += 1.0;
    }
    if *has_prior {
        add_scaled(simd, right, 1.0, prior);
    }
    image.copy_from_slice(right);
    factor(simd, matrix, stride, stride, cancel)?;
    substitute(simd, matrix, stride, stride, right, w);
    Some(-f64::from(dot(simd, image, w)))
}

/// Turns the upper triangle of M into U with UᵀU = M. Cells below the diagonal are arbitrary.
#[inline(always)]
pub(super) fn factor<S: Simd>(
    simd: S,
    matrix: &mut [f32],
    rows: usize,
    stride: usize,
    cancel: &AtomicBool,
) -> Option<()> {
    for pivot in 0..rows {
        if pivot % PIVOTS_PER_LOOK == 0 && cancel.load(Ordering::Relaxed) {
            return None;
        }
        let (done, below) = matrix.split_at_mut((pivot + 1) * stride);
        let line = &mut done[pivot * stride..];
        let diagonal = line[pivot];
        if !(diagonal > 0.0 && diagonal.is_finite()) {
            return None;
        }
        let inverse = 1.0 / diagonal.sqrt();
        for cell in &mut line[pivot / 16 * 16..] {
            *cell *= inverse;
        }
        for (row, target) in (pivot + 1..rows).zip(below.chunks_exact_mut(stride)) {
            let from = row / 16 * 16;
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
        // Solution cells up to `row` are still 0, so the arbitrary cells of U do not count.
        let known = dot(simd, &line[from..], &solution[from..]);
        solution[row] = (right[row] - known) / line[row];
    }
}
