//! One row's normal equations, ZᵀZ and Zᵀt, summed up over its interactions.
//!
//! A long row is cut into parts of fixed length that any thread may sum up; the parts are then
//! added in their order.

use std::mem::swap;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::kernel::{add_gram, weighted_sum};
use super::row::{HEAVY_CELLS, HalfStep, Scratch};

/// Interactions gathered at a time.
const BLOCK_CELLS: usize = 512;
/// Rows that stay in the first-level cache while every tile visits them.
const TILE_CELLS: usize = 128;
/// Values that the partial matrices of one long row hold together, at most about (16 MiB).
const PARTIAL_VALUES: usize = 1 << 22;

/// Parts that a row is cut into at most, each with a matrix of `stride`² values.
pub(super) fn part_limit(stride: usize) -> usize {
    (PARTIAL_VALUES / (stride * stride)).clamp(8, 64)
}

/// Fills the upper triangle of `scratch.matrix` and `scratch.right` for all cells of a row;
/// returns the objective's constant part.
#[inline(always)]
pub(super) fn accumulate<S: Simd>(
    simd: S,
    step: &HalfStep<'_>,
    row: usize,
    parallel: bool,
    scratch: &mut Scratch,
) -> f64 {
    if parallel {
        add_parts(step, row, scratch)
    } else {
        let (columns, values) = step.cells.row(row);
        add_cells(simd, step, columns, values, scratch)
    }
}

#[inline(always)]
fn add_cells<S: Simd>(
    simd: S,
    step: &HalfStep<'_>,
    columns: &[u32],
    values: &[f32],
    scratch: &mut Scratch,
) -> f64 {
    let stride = step.stride;
    clear(stride, scratch);
    let mut constant = 0.0;
    for (columns, values) in columns.chunks(BLOCK_CELLS).zip(values.chunks(BLOCK_CELLS)) {
        constant += step.gather(simd, (columns, values), (0, stride), scratch);
        let Scratch { z, targets, image, right, matrix, .. } = &mut *scratch;
        for tile in z.chunks(TILE_CELLS * stride) {
            if step.cancelled() {
                return constant;
            }
            add_gram(simd, tile, stride, matrix);
        }
        image.copy_from_slice(right);
        weighted_sum(simd, z, targets, Some(image), right);
    }
    constant
}

fn clear(stride: usize, scratch: &mut Scratch) {
    scratch.matrix.grow(stride * stride);
    scratch.right.grow(stride);
    scratch.matrix.fill(0.0);
    scratch.right.fill(0.0);
}

fn add_parts(step: &HalfStep<'_>, row: usize, scratch: &mut Scratch) -> f64 {
    let (columns, values) = step.cells.row(row);
    // The cut depends on the row alone, for the same sum on any machine.
    let part = HEAVY_CELLS.max(columns.len().div_ceil(part_limit(step.stride)));
    step.with_parts(columns.len().div_ceil(part), |parts| {
        let cells = columns.par_chunks(part).zip(values.par_chunks(part));
        cells.zip(parts.par_iter_mut()).for_each(|((columns, values), sums)| {
            step.with_scratch(|scratch| {
                step.prepare_scale(step.cells.row(row).0.len(), scratch);
                swap(&mut scratch.matrix, &mut sums.matrix);
                swap(&mut scratch.right, &mut sums.right);
                let op = PartOp { step, columns, values, scratch: &mut *scratch };
                sums.constant = Arch::new().dispatch(op);
                swap(&mut scratch.matrix, &mut sums.matrix);
                swap(&mut scratch.right, &mut sums.right);
            });
        });
        clear(step.stride, scratch);
        let Scratch { matrix, right, .. } = &mut *scratch;
        let mut constant = 0.0;
        for sums in parts.iter() {
            constant += sums.constant;
            matrix.iter_mut().zip(sums.matrix.iter()).for_each(|(sum, &value)| *sum += value);
            right.iter_mut().zip(sums.right.iter()).for_each(|(sum, &value)| *sum += value);
        }
        constant
    })
}

struct PartOp<'a, 'b> {
    step: &'a HalfStep<'b>,
    columns: &'a [u32],
    values: &'a [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for PartOp<'_, '_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        add_cells(simd, self.step, self.columns, self.values, self.scratch)
    }
}
