//! Block coordinate descent on one row's scaled normal equations: the subspaces of iALS++
//! (Rendle, Krichene, Zhang and Koren 2021).
//!
//! The coordinates of (I + ZᵀZ)·w = Zᵀt + p are cut into blocks. Each block is solved exactly with
//! the others held fixed, which needs the block's own Gram matrix alone: n·b² instead of n·k²
//! multiplications a block, and b³/3 instead of k³/3. The residual t − Z·w is kept up to date, so
//! that a sweep over all blocks reads Z about twice. An objective never rises by it.
//!
//! The dense part of an implicit row is diagonal here ([`super::gram`]), so that, unlike in the
//! paper, no block has to multiply by the k × k Gram matrix.

use pulp::Simd;

use super::super::kernel::{
    ROW_GROUP, add_gram, add_scaled, dot, products, scaled_product, weighted_sum,
};
use super::cholesky::{factor, substitute};
use super::row::{HalfStep, Scratch};

/// Rows that stay in the first-level cache while every tile visits them.
const TILE_CELLS: usize = 128;

/// Improves `scratch.w` by one sweep over blocks of `block` coordinates, a multiple of 16, and
/// returns the row's objective.
#[inline(always)]
pub(super) fn solve<S: Simd>(
    simd: S,
    step: &HalfStep<'_>,
    cells: (&[u32], &[f32]),
    block: usize,
    scratch: &mut Scratch,
) -> f64 {
    let stride = step.stride;
    scratch.residual.grow(cells.0.len().next_multiple_of(ROW_GROUP));
    let (constant, mut objective) = start(simd, step, cells, scratch);
    for from in (0..stride).step_by(block) {
        if step.cancelled() {
            break;
        }
        let width = block.min(stride - from);
        step.gather(simd, cells, (from, width), scratch);
        improve(simd, step, (from, width), scratch);
    }
    let Scratch { residual, w, prior, has_prior, .. } = scratch;
    for &left in residual.iter() {
        objective += f64::from(left * left);
    }
    if *has_prior {
        objective -= 2.0 * f64::from(dot(simd, prior, w));
    }
    objective + f64::from(dot(simd, w, w)) + constant
}

/// Fills `residual` with t − Z·w; returns the constant part and −|t|².
#[inline(always)]
fn start<S: Simd>(
    simd: S,
    step: &HalfStep<'_>,
    (columns, values): (&[u32], &[f32]),
    scratch: &mut Scratch,
) -> (f64, f64) {
    let stride = step.stride;
    let Scratch { residual, direction, scale, w, .. } = scratch;
    scaled_product(simd, direction, scale, w, 1.0);
    residual.fill(0.0);
    let (mut constant, mut targets) = (0.0, 0.0);
    for ((&column, &value), left) in columns.iter().zip(values).zip(residual.iter_mut()) {
        let column = column as usize;
        let (multiplier, target, share) = step.cell(column, value);
        let fixed = &step.fixed[column * stride..(column + 1) * stride];
        *left = target - multiplier * dot(simd, fixed, direction);
        constant += share;
        targets -= f64::from(target * target);
    }
    (constant, targets)
}

/// Solves one gathered block and takes its change off the residual.
#[inline(always)]
fn improve<S: Simd>(
    simd: S,
    step: &HalfStep<'_>,
    (from, width): (usize, usize),
    scratch: &mut Scratch,
) {
    scratch.matrix.grow(width * width);
    scratch.right.grow(width);
    scratch.solution.grow(width);
    let Scratch { z, residual, products: s, w, matrix, right, solution, prior, has_prior, .. } =
        scratch;
    matrix.fill(0.0);
    for tile in z.chunks(TILE_CELLS * width) {
        if step.cancelled() {
            return;
        }
        add_gram(simd, tile, width, matrix);
    }
    for index in 0..width {
        matrix[index * width + index] += 1.0;
    }
    let start = has_prior.then(|| &prior[from..from + width]);
    weighted_sum(simd, z, residual, start, right);
    let w = &mut w[from..from + width];
    add_scaled(simd, right, -1.0, w);
    // A block that rounding made indefinite stays as it is.
    if factor(simd, matrix, width, width, step.cancel).is_none() {
        return;
    }
    substitute(simd, matrix, width, width, right, solution);
    add_scaled(simd, w, 1.0, solution);
    products(simd, z, solution, s);
    residual.iter_mut().zip(s.iter()).for_each(|(left, &moved)| *left -= moved);
}
