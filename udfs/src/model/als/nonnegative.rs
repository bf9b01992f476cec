//! Non-negative least squares on one row: coordinate descent on its normal equations.
//!
//! Minimizes xᵀA·x − 2·bᵀx over x ≥ 0, with A = G + ZᵀZ + λI, b = Zᵀt + λ·m, the fixed side's Gram
//! matrix G (implicit feedback) and the prior mean m (with features). Each coordinate moves to its
//! best value with the others held fixed (Franc, Hlaváč and Navara 2005), from the last iteration's
//! row, so that no move raises the objective. A bias, which is no factor, may be negative.

use pulp::Simd;

use super::super::kernel::{add_scaled, dot, mirror_upper};
use super::row::{HalfStep, Scratch};

/// Sweeps over all coordinates at most; a row takes some 5 to 50.
const SWEEPS: usize = 500;
/// A sweep that moves the row by less than the root of this share of its size is the last; both
/// are measured in the norm of A's diagonal.
const PRECISION: f32 = 1e-12;

/// Moves `scratch.w` to the solution for a row of `count` interactions whose ZᵀZ and Zᵀt are in
/// `matrix` (upper triangle) and `right`; returns the row's objective without its constant.
#[inline(always)]
pub(super) fn solve<S: Simd>(
    simd: S,
    step: &HalfStep<'_>,
    count: usize,
    scratch: &mut Scratch,
) -> f64 {
    let stride = step.stride;
    let Scratch { matrix, right, w: x, image: gradient, prior, has_prior, .. } = scratch;
    mirror_upper(matrix, stride);
    if let Some(dense) = step.dense {
        add_scaled(simd, matrix, 1.0, dense);
    }
    let lambda = step.lambda(count) as f32;
    for index in 0..stride {
        matrix[index * stride + index] += lambda;
    }
    if *has_prior {
        add_scaled(simd, right, 1.0, prior);
    }
    let free = step.fixed_bias.map_or(usize::MAX, |_| step.bias_column);
    for (index, x) in x.iter_mut().enumerate() {
        *x = if index == free { *x } else { x.max(0.0) };
    }
    for ((line, gradient), &right) in
        matrix.chunks_exact(stride).zip(gradient.iter_mut()).zip(right.iter())
    {
        *gradient = dot(simd, line, x) - right;
    }
    for _ in 0..SWEEPS {
        let (moved, size) = sweep(simd, matrix, gradient, x, free);
        if moved <= PRECISION * size || step.cancelled() {
            break;
        }
    }
    f64::from(dot(simd, x, gradient)) - f64::from(dot(simd, x, right))
}

/// Moves every coordinate once; returns the squares of the moves and of the row.
#[inline(always)]
fn sweep<S: Simd>(
    simd: S,
    matrix: &[f32],
    gradient: &mut [f32],
    x: &mut [f32],
    free: usize,
) -> (f32, f32) {
    let stride = x.len();
    let (mut moved, mut size) = (0.0, 0.0);
    for (index, line) in matrix.chunks_exact(stride).enumerate() {
        let diagonal = line[index];
        let step = gradient[index] / diagonal;
        let best = x[index] - step;
        let best = if index == free { best } else { best.max(0.0) };
        let change = best - x[index];
        size += x[index] * x[index] * diagonal;
        if change == 0.0 || !change.is_finite() {
            continue;
        }
        add_scaled(simd, gradient, change, line);
        x[index] = best;
        moved += change * change * diagonal;
    }
    (moved, size)
}
