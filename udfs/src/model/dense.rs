//! Products of dense `f64` matrices in packed tiles, and the inverse of a positive definite one.
//!
//! Both operands are packed once so that a tile of [`TILE_ROWS`] rows × 2 vectors stays in
//! registers over the whole depth; rows of the result are shared between threads, so every number
//! is computed in one order whatever their count. The inverse is the sweep operator (Goodnight
//! 1979) by blocks: it takes n³ multiplications and additions like Cholesky's way, but all of them
//! in symmetric updates of the whole lower triangle, which the tiles run at full speed. For
//! positive definite matrices it needs no pivoting.

use std::sync::atomic::{AtomicBool, Ordering};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::error::ModelError;
use super::kernel::AlignedVec;

/// Rows of a tile.
const TILE_ROWS: usize = 6;
/// Rows of the result that one task owns; a multiple of [`TILE_ROWS`].
const TASK_ROWS: usize = 96;
/// Up to so many rows of an operand one thread packs alone.
const ALONE_ROWS: usize = 64;
/// Rows eliminated together: a packed tile of this depth fills half a first-level cache.
const BLOCK: usize = 128;

/// Length of a row of `columns` values such that tiles of any processor fit.
pub(super) fn stride(columns: usize) -> usize {
    columns.next_multiple_of(16)
}

/// The left operand: groups of [`TILE_ROWS`] rows, interleaved.
pub(super) struct Left {
    depth: usize,
    data: AlignedVec<f64>,
}

/// The right operand, transposed: groups of two vectors' width of rows, interleaved.
pub(super) struct Right {
    depth: usize,
    width: usize,
    data: AlignedVec<f64>,
}

/// Which part of the result is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Full,
    /// The lower triangle; what is above the diagonal is unspecified afterwards.
    Lower,
}

impl Left {
    /// Packs `rows` rows of `depth` values; `value(row, k)` gives them.
    pub(super) fn pack(
        rows: usize,
        depth: usize,
        value: impl Fn(usize, usize) -> f64 + Sync,
    ) -> Self {
        Self { depth, data: interleave(rows, depth, TILE_ROWS, value) }
    }
}

impl Right {
    /// Packs `rows` rows of `depth` values, columns of the product.
    pub(super) fn pack(
        rows: usize,
        depth: usize,
        value: impl Fn(usize, usize) -> f64 + Sync,
    ) -> Self {
        let width = Arch::new().dispatch(TileWidth);
        Self { depth, width, data: interleave(rows, depth, width, value) }
    }
}

/// Bytes of both packed operands.
pub(super) fn packed_bytes(left_rows: usize, right_rows: usize, depth: usize) -> usize {
    (left_rows.next_multiple_of(TILE_ROWS) + stride(right_rows)) * depth * size_of::<f64>()
}

fn interleave(
    rows: usize,
    depth: usize,
    group: usize,
    value: impl Fn(usize, usize) -> f64 + Sync,
) -> AlignedVec<f64> {
    let mut data = AlignedVec::zeros(rows.div_ceil(group) * group * depth);
    let size = (group * depth).max(1);
    let pack = |(index, chunk): (usize, &mut [f64])| {
        let first = index * group;
        let count = group.min(rows - first);
        for (k, line) in chunk.chunks_exact_mut(group).enumerate() {
            for (offset, cell) in line[..count].iter_mut().enumerate() {
                *cell = value(first + offset, k);
            }
        }
    };
    match rows <= ALONE_ROWS {
        true => data.chunks_mut(size).enumerate().for_each(pack),
        false => data.par_chunks_mut(size).enumerate().for_each(pack),
    }
    data
}

/// `c += left · rightᵀ`; rows of `c` have `stride` values, a multiple of 16 that is no less than
/// the right operand's rows. Once `cancel` is set, the rest is left undone.
pub(super) fn add_products(
    c: &mut [f64],
    stride: usize,
    left: &Left,
    right: &Right,
    part: Part,
    cancel: &AtomicBool,
) {
    debug_assert!(left.depth == right.depth && stride.is_multiple_of(16));
    if left.depth == 0 {
        return;
    }
    c.par_chunks_mut(TASK_ROWS * stride).enumerate().for_each(|(task, c)| {
        if !cancel.load(Ordering::Relaxed) {
            let first = task * TASK_ROWS;
            Arch::new().dispatch(TaskOp { c, stride, left, right, part, first });
        }
    });
}

struct TileWidth;

impl WithSimd for TileWidth {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        2 * S::F64_LANES
    }
}

struct TaskOp<'a> {
    c: &'a mut [f64],
    stride: usize,
    left: &'a Left,
    right: &'a Right,
    part: Part,
    first: usize,
}

impl WithSimd for TaskOp<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { c, stride, left, right, part, first } = self;
        let depth = left.depth;
        let last = first + c.len() / stride;
        for (tile, panel) in right.data.chunks_exact(depth * right.width).enumerate() {
            let column = tile * right.width;
            if part == Part::Lower && column >= last {
                return;
            }
            let panel = S::as_simd_f64s(panel).0;
            let groups = left.data[first * depth..].chunks_exact(TILE_ROWS * depth);
            for ((group, c), row) in
                groups.zip(c.chunks_mut(TILE_ROWS * stride)).zip((first..).step_by(TILE_ROWS))
            {
                if part == Part::Lower && column >= row + TILE_ROWS {
                    continue;
                }
                let sums = tile_products::<S>(simd, group, panel);
                for (line, sums) in c.chunks_exact_mut(stride).zip(&sums) {
                    let line = S::as_mut_simd_f64s(&mut line[column..column + right.width]).0;
                    line[0] = simd.add_f64s(line[0], sums[0]);
                    line[1] = simd.add_f64s(line[1], sums[1]);
                }
            }
        }
    }
}

#[inline(always)]
fn tile_products<S: Simd>(simd: S, left: &[f64], panel: &[S::f64s]) -> [[S::f64s; 2]; TILE_ROWS] {
    let mut sums = [[simd.splat_f64s(0.0); 2]; TILE_ROWS];
    for (left, right) in left.as_chunks::<TILE_ROWS>().0.iter().zip(panel.as_chunks::<2>().0) {
        for (sum, &value) in sums.iter_mut().zip(left) {
            let value = simd.splat_f64s(value);
            sum[0] = simd.mul_add_e_f64s(value, right[0], sum[0]);
            sum[1] = simd.mul_add_e_f64s(value, right[1], sum[1]);
        }
    }
    sums
}

/// Bytes that [`negated_inverse`] takes beside the matrix.
pub(super) fn inverse_bytes(size: usize) -> usize {
    let panels = 2 * size * BLOCK * size_of::<f64>();
    panels + packed_bytes(size, size, BLOCK) + 2 * packed_bytes(BLOCK, BLOCK, BLOCK)
}

/// Number of steps that [`negated_inverse`] reports.
pub(super) fn inverse_steps(size: usize) -> usize {
    size.div_ceil(BLOCK)
}

/// Replaces a symmetric positive definite matrix by −A⁻¹: `size` rows of [`stride`]`(size)`
/// values, of which only the lower triangle is read and written. `step` is called after each
/// block.
///
/// # Errors
/// [`ModelError::Inconsistent`] when the matrix is not positive definite, or cancellation.
pub(super) fn negated_inverse(
    a: &mut [f64],
    size: usize,
    step: &mut dyn FnMut(),
    cancel: &AtomicBool,
) -> Result<(), ModelError> {
    let stride = stride(size);
    let mut scaled = vec![0.0_f64; size * BLOCK];
    for first in (0..size).step_by(BLOCK) {
        let width = BLOCK.min(size - first);
        let pivot = inverted_pivot(a, stride, first, width)?;
        let panel = gather_panel(a, stride, size, first, width);
        // scaled = panel · pivot; the pivot is symmetric, so its rows are its columns.
        scaled.fill(0.0);
        let left = Left::pack(size, width, |row, k| panel[row * BLOCK + k]);
        let right = Right::pack(width, width, |row, k| pivot[row * width + k]);
        add_products(&mut scaled, BLOCK, &left, &right, Part::Full, cancel);
        let left = Left::pack(size, width, |row, k| -scaled[row * BLOCK + k]);
        let right = Right::pack(size, width, |row, k| panel[row * BLOCK + k]);
        add_products(a, stride, &left, &right, Part::Lower, cancel);
        if cancel.load(Ordering::Relaxed) {
            return Err(ModelError::Cancelled);
        }
        put_panel(a, stride, first, width, &scaled, &pivot);
        step();
    }
    Ok(())
}

/// The inverse of the diagonal block, by sweeping one row after the other.
fn inverted_pivot(
    a: &[f64],
    stride: usize,
    first: usize,
    width: usize,
) -> Result<Vec<f64>, ModelError> {
    let mut block = vec![0.0_f64; width * width];
    for row in 0..width {
        for column in 0..=row {
            let value = a[(first + row) * stride + first + column];
            block[row * width + column] = value;
            block[column * width + row] = value;
        }
    }
    let mut line = vec![0.0_f64; width];
    for pivot in 0..width {
        line.copy_from_slice(&block[pivot * width..(pivot + 1) * width]);
        let diagonal = line[pivot];
        if !(diagonal > 0.0 && diagonal.is_finite()) {
            let why = "the matrix to invert is not positive definite; a larger l2_reg makes it so";
            return Err(ModelError::Inconsistent(why.to_owned()));
        }
        line.iter_mut().for_each(|value| *value /= diagonal);
        for (row, target) in block.chunks_exact_mut(width).enumerate() {
            if row == pivot {
                target.copy_from_slice(&line);
                target[pivot] = -1.0 / diagonal;
            } else {
                let factor = target[pivot];
                for (cell, &value) in target.iter_mut().zip(&line) {
                    *cell -= factor * value;
                }
                target[pivot] = factor / diagonal;
            }
        }
    }
    block.iter_mut().for_each(|value| *value = -*value);
    Ok(block)
}

/// Columns `first..first + width` of the symmetric matrix, rows of [`BLOCK`] values; the rows of
/// the diagonal block are zero, so that the update leaves them alone.
fn gather_panel(a: &[f64], stride: usize, size: usize, first: usize, width: usize) -> Vec<f64> {
    const ROWS: usize = 64;
    let mut panel = vec![0.0_f64; size * BLOCK];
    panel.par_chunks_mut(ROWS * BLOCK).enumerate().for_each(|(index, chunk)| {
        let start = index * ROWS;
        let end = start + chunk.len() / BLOCK;
        for k in 0..width {
            let above = &a[(first + k) * stride..];
            for row in start..end.min(first) {
                chunk[(row - start) * BLOCK + k] = above[row];
            }
        }
        for row in start.max(first + width)..end {
            let from = row * stride + first;
            let line = &mut chunk[(row - start) * BLOCK..][..width];
            line.copy_from_slice(&a[from..from + width]);
        }
    });
    panel
}

/// Writes the scaled panel and the negated pivot into the block's rows and columns.
fn put_panel(
    a: &mut [f64],
    stride: usize,
    first: usize,
    width: usize,
    scaled: &[f64],
    pivot: &[f64],
) {
    a.par_chunks_mut(stride).enumerate().skip(first).for_each(|(row, line)| {
        if row < first + width {
            let k = row - first;
            for (cell, scaled) in line[..first].iter_mut().zip(scaled.chunks_exact(BLOCK)) {
                *cell = scaled[k];
            }
            for (cell, &value) in line[first..=row].iter_mut().zip(&pivot[k * width..]) {
                *cell = -value;
            }
        } else {
            line[first..first + width].copy_from_slice(&scaled[row * BLOCK..][..width]);
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::random::mix;

    fn draw(seed: u64) -> f64 {
        (mix(seed) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    }

    /// A random Gram matrix plus a ridge, in padded rows.
    fn positive(size: usize, ridge: f64) -> Vec<f64> {
        let depth = size / 2 + 3;
        let x: Vec<f64> = (0..size * depth).map(|at| draw(at as u64)).collect();
        let mut a = vec![0.0; size * stride(size)];
        let left = Left::pack(size, depth, |row, k| x[row * depth + k]);
        let right = Right::pack(size, depth, |row, k| x[row * depth + k]);
        let go_on = AtomicBool::new(false);
        add_products(&mut a, stride(size), &left, &right, Part::Full, &go_on);
        for row in 0..size {
            a[row * stride(size) + row] += ridge;
        }
        a
    }

    #[test]
    fn the_inverse_times_the_matrix_is_the_identity() {
        for size in [1, 2, 5, 127, 128, 129, 300] {
            let a = positive(size, 0.1);
            let wide = stride(size);
            let mut inverse = a.clone();
            let mut steps = 0;
            negated_inverse(&mut inverse, size, &mut || steps += 1, &AtomicBool::new(false))
                .unwrap();
            assert_eq!(steps, inverse_steps(size));
            let cell =
                |row: usize, column: usize| -inverse[row.max(column) * wide + row.min(column)];
            for row in 0..size {
                for column in 0..size {
                    let sum: f64 = (0..size).map(|k| a[row * wide + k] * cell(k, column)).sum();
                    let expected = if row == column { 1.0 } else { 0.0 };
                    assert!((sum - expected).abs() < 1e-8, "{size} {row} {column} {sum}");
                }
            }
        }
    }

    #[test]
    fn an_indefinite_matrix_and_a_set_flag_are_refused() {
        let mut a = positive(40, 1.0);
        let stop = negated_inverse(&mut a, 40, &mut || {}, &AtomicBool::new(true));
        assert_eq!(stop, Err(ModelError::Cancelled));
        let mut a = vec![0.0; 2 * 16];
        a[0] = 1.0;
        a[16] = 2.0;
        a[17] = 1.0;
        let error = negated_inverse(&mut a, 2, &mut || {}, &AtomicBool::new(false)).unwrap_err();
        assert!(error.to_string().contains("l2_reg"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 32,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn products_equal_three_loops(
            rows in 1_usize..120, columns in 1_usize..40, depth in 0_usize..9, seed in 0_u64..99,
        ) {
            let value = |side: u64, row: usize, k: usize| {
                draw(mix(seed ^ side) ^ ((row as u64) << 20) ^ k as u64)
            };
            let left = Left::pack(rows, depth, |row, k| value(1, row, k));
            let right = Right::pack(columns, depth, |row, k| value(2, row, k));
            let wide = stride(columns);
            let go_on = AtomicBool::new(false);
            let mut full = vec![1.0; rows * wide];
            add_products(&mut full, wide, &left, &right, Part::Full, &go_on);
            let mut lower = vec![1.0; rows * wide];
            add_products(&mut lower, wide, &left, &right, Part::Lower, &go_on);
            for row in 0..rows {
                for column in 0..columns {
                    let sum: f64 =
                        (0..depth).map(|k| value(1, row, k) * value(2, column, k)).sum();
                    prop_assert!((full[row * wide + column] - 1.0 - sum).abs() < 1e-12);
                    if column <= row {
                        prop_assert_eq!(lower[row * wide + column], full[row * wide + column]);
                    }
                }
            }
        }
    }
}
