//! The Gram matrix of one side's factors and the rotation that makes it diagonal.
//!
//! The implicit objective does not change when both sides are rotated alike, so before each half
//! step both are turned into the eigenbasis of the fixed side's Gram matrix YᵀY. There the dense
//! part of every row's normal equations, YᵀY + λI, is diagonal: applying it costs k instead of
//! k², and scaling by its square root preconditions the row perfectly.

use std::sync::atomic::AtomicBool;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::cancel;
#[cfg(test)]
use super::super::cancel::meter;
use super::super::error::ModelError;
use super::super::kernel::{Aligned, add_gram, mirror_upper};
use super::eigen::eigen_unless;
use super::narrow::Narrow;

/// Rows whose products are added in `f32` before they are added to the `f64` total. Fixed, so
/// that the sum does not depend on the number of threads.
const CHUNK_ROWS: usize = 2048;
/// Partial matrices held at a time, so that memory does not grow with the rows.
const PARTIALS: usize = 32;
/// Rows that stay in the first-level cache while every tile visits them, and that are computed with
/// between two looks at the cancel flag.
const BLOCK_ROWS: usize = 128;
/// Rows that a thread rotates at a time.
const ROTATED_ROWS: usize = 512;

/// Partial matrices that the Gram matrix of `rows` rows takes at a time.
pub(super) fn partials(rows: usize) -> usize {
    rows.div_ceil(CHUNK_ROWS).min(PARTIALS)
}

/// `factorsᵀ · factors` for rows of `stride` values. With the flag set it is wrong, and soon
/// there: the caller looks at the flag.
pub(super) fn gram(factors: &[f32], stride: usize, cancel: &AtomicBool) -> Vec<f64> {
    let mut total = vec![0.0_f64; stride * stride];
    let matrix = |_| Aligned::zeros(stride * stride);
    let mut sums: Vec<Aligned> = (0..partials(factors.len() / stride)).map(matrix).collect();
    for group in factors.chunks(PARTIALS * CHUNK_ROWS * stride) {
        let chunks = group.par_chunks(CHUNK_ROWS * stride);
        let count = chunks.len();
        chunks.zip(sums.par_iter_mut()).for_each(|(chunk, gram)| {
            gram.fill(0.0);
            Arch::new().dispatch(GramOp { chunk, stride, gram, cancel });
        });
        for partial in &sums[..count] {
            for (total, &partial) in total.iter_mut().zip(partial.iter()) {
                *total += f64::from(partial);
            }
        }
    }
    mirror_upper(&mut total, stride);
    total
}

struct GramOp<'a> {
    chunk: &'a [f32],
    stride: usize,
    gram: &'a mut [f32],
    cancel: &'a AtomicBool,
}

impl WithSimd for GramOp<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for block in self.chunk.chunks(BLOCK_ROWS * self.stride) {
            if cancel::is_set(self.cancel) {
                return;
            }
            add_gram(simd, block, self.stride, self.gram);
        }
    }
}

/// An orthogonal change of basis with the eigenvalues of the matrix it diagonalizes.
pub(super) struct Basis {
    /// Eigenvalue of each new coordinate, 0 for padding.
    pub(super) spectrum: Vec<f64>,
    /// `stride`² values: column `i` is eigenvector `i`, so that a row times this is rotated.
    columns: Aligned,
}

/// Diagonalizes the Gram matrix; coordinates from `size` on are padding and stay themselves.
///
/// # Errors
/// [`ModelError::Cancelled`] once the flag is set.
pub(super) fn diagonal_basis(
    gram: &[f64],
    size: usize,
    stride: usize,
    cancel: &AtomicBool,
) -> Result<Basis, ModelError> {
    let mut dense = Vec::with_capacity(size * size);
    for row in gram.chunks_exact(stride).take(size) {
        dense.extend_from_slice(&row[..size]);
    }
    let (values, vectors) = eigen_unless(&dense, size, cancel).ok_or(ModelError::Cancelled)?;
    let mut spectrum: Vec<f64> = values.into_iter().map(|value| value.max(0.0)).collect();
    spectrum.resize(stride, 0.0);
    let mut columns = Aligned::zeros(stride * stride);
    for (index, vector) in vectors.chunks_exact(size).enumerate() {
        for (coordinate, &value) in vector.iter().enumerate() {
            columns[coordinate * stride + index] = value as f32;
        }
    }
    Ok(Basis { spectrum, columns })
}

impl Basis {
    /// Rotates every row in place, unless the flag is set.
    pub(super) fn rotate(&self, factors: &mut [f32], stride: usize, cancel: &AtomicBool) {
        let rotation = Rotation { basis: self, stride };
        factors.par_chunks_mut(ROTATED_ROWS * stride).for_each_init(
            Aligned::default,
            |old, rows| {
                if !cancel::is_set(cancel) {
                    Arch::new().dispatch(RotateOp { rows, rotation, old });
                }
            },
        );
    }

    /// Rotates every row in place and copies it while it is in the cache, unless the flag is set.
    pub(super) fn rotate_and_copy(
        &self,
        factors: &mut [f32],
        stride: usize,
        copy: &mut Narrow,
        cancel: &AtomicBool,
    ) {
        let parts = copy.parts(factors.len() / stride, stride, ROTATED_ROWS);
        let rotation = Rotation { basis: self, stride };
        factors.par_chunks_mut(ROTATED_ROWS * stride).zip(parts).for_each_init(
            Aligned::default,
            |old, (rows, mut part)| {
                if !cancel::is_set(cancel) {
                    Arch::new().dispatch(RotateOp { rows: &mut *rows, rotation, old });
                    part.copy(rows, stride);
                }
            },
        );
    }
}

/// Turns rows of `stride` values into a basis.
#[derive(Clone, Copy)]
pub(super) struct Rotation<'a> {
    pub(super) basis: &'a Basis,
    pub(super) stride: usize,
}

struct RotateOp<'a> {
    rows: &'a mut [f32],
    rotation: Rotation<'a>,
    /// Working memory.
    old: &'a mut Aligned,
}

impl WithSimd for RotateOp<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.rotation.turn(simd, self.rows, self.old);
    }
}

impl Rotation<'_> {
    /// Turns rows in place; `old` is working memory.
    #[inline(always)]
    pub(super) fn turn<S: Simd>(self, simd: S, rows: &mut [f32], old: &mut Aligned) {
        let Self { basis, stride } = self;
        let columns = S::as_simd_f32s(&basis.columns).0;
        old.grow(4 * stride);
        for group in rows.chunks_mut(4 * stride) {
            // A last group of fewer rows computes stale rows beside its own and drops them.
            old[..group.len()].copy_from_slice(group);
            let width = stride / S::F32_LANES;
            let mut column = 0;
            while column < width {
                // Wider tiles would not leave registers for their operands.
                column += match width - column {
                    1 => rotate_tile::<S, 1>(simd, old, stride, columns, column, group),
                    _ => rotate_tile::<S, 2>(simd, old, stride, columns, column, group),
                };
            }
        }
    }
}

#[inline(always)]
fn rotate_tile<S: Simd, const W: usize>(
    simd: S,
    old: &[f32],
    stride: usize,
    columns: &[S::f32s],
    column: usize,
    new: &mut [f32],
) -> usize {
    #[cfg(test)]
    meter::spend(4 * stride * W * S::F32_LANES);
    let mut sums = [[simd.splat_f32s(0.0); W]; 4];
    let width = stride / S::F32_LANES;
    let (r0, rest) = old.split_at(stride);
    let (r1, rest) = rest.split_at(stride);
    let (r2, r3) = rest.split_at(stride);
    let lines = columns.chunks_exact(width);
    for ((((&a, &b), &c), &d), line) in r0.iter().zip(r1).zip(r2).zip(r3).zip(lines) {
        let line = &line[column..column + W];
        for (sums, left) in sums.iter_mut().zip([a, b, c, d]) {
            let left = simd.splat_f32s(left);
            for (sum, &right) in sums.iter_mut().zip(line) {
                *sum = simd.mul_add_e_f32s(left, right, *sum);
            }
        }
    }
    for (row, sums) in new.chunks_exact_mut(stride).zip(&sums) {
        S::as_mut_simd_f32s(row).0[column..column + W].copy_from_slice(sums);
    }
    W
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_factors_have_a_diagonal_gram_matrix_and_the_same_products() {
        let (rows, size, stride) = (37, 5, 16);
        let mut factors = Aligned::zeros(rows * stride);
        for row in 0..rows {
            for column in 0..size {
                factors[row * stride + column] = ((row * 7 + column * 13) % 11) as f32 - 5.0;
            }
        }
        let never = AtomicBool::new(false);
        let before = gram(&factors, stride, &never);
        let direct: f64 = (0..rows).map(|r| f64::from(factors[r * stride]).powi(2)).sum();
        assert!((before[0] - direct).abs() < 1e-3 * direct);
        let basis = diagonal_basis(&before, size, stride, &never).unwrap();
        let product = |f: &[f32], a: usize, b: usize| -> f32 {
            let row = |r: usize| &f[r * stride..(r + 1) * stride];
            row(a).iter().zip(row(b)).map(|(a, b)| a * b).sum()
        };
        let expected = product(&factors, 3, 36);
        basis.rotate(&mut factors, stride, &never);
        assert!((product(&factors, 3, 36) - expected).abs() < 1e-3);
        let after = gram(&factors, stride, &never);
        for row in 0..stride {
            for column in 0..stride {
                let expected = if row == column { basis.spectrum[row] } else { 0.0 };
                assert!((after[row * stride + column] - expected).abs() < 1e-3 * direct);
            }
        }
    }
}
