//! Loops over padded `f32` rows that the processor's widest instructions run.
//!
//! Functions generic over pulp's instruction sets are always inlined: call them inside
//! `pulp::Arch::dispatch`. Rows have a length that is a multiple of 16, so that no
//! instruction set (4, 8 or 16 lanes) leaves a remainder; padding is zero and stays zero.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicBool;

use pulp::Simd;
use rayon::prelude::*;

#[cfg(test)]
use super::cancel::meter;
use super::cancel::{self, VALUES_PER_LOOK};
use super::error::ModelError;

/// Rows handled together by [`products`]: pad the number of rows to a multiple.
pub const ROW_GROUP: usize = 4;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Values that start on a 64-byte line, so that no vector load straddles two.
#[derive(Debug, Default)]
pub struct AlignedVec<T> {
    buffer: Vec<T>,
    start: usize,
    len: usize,
}

/// Aligned `f32`s, which most learners compute with.
pub type Aligned = AlignedVec<f32>;

impl<T: Copy + Default> AlignedVec<T> {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut aligned = Self::default();
        aligned.grow(len);
        aligned
    }

    /// Makes room for `len` values; what they are is unspecified.
    pub fn grow(&mut self, len: usize) {
        if self.start + len > self.buffer.len() {
            // One buffer at a time: what the smaller one held does not count.
            self.buffer = Vec::new();
            // Wherever the buffer begins, a line does within as many values as one holds.
            let line = LINE_BYTES / size_of::<T>();
            self.buffer = vec![T::default(); len + line];
            self.start = self.buffer.as_ptr().align_offset(LINE_BYTES).min(line);
        }
        self.len = len;
    }
}

impl<T> Deref for AlignedVec<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        &self.buffer[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for AlignedVec<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.buffer[self.start..self.start + self.len]
    }
}

/// Asks for the cache lines of values that are read soon, so that what is computed until then does
/// not wait for them. It changes no result, and does nothing on processors other than x86-64.
#[inline(always)]
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(sse) = pulp::core_arch::x86::Sse::try_new() {
        for line in values.chunks(LINE_BYTES / size_of::<T>()) {
            // 3: into all levels.
            sse._mm_prefetch::<3>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

/// Sum of products of two rows.
#[inline(always)]
pub fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    #[cfg(test)]
    meter::spend(a.len());
    let (a, b) = (S::as_simd_f32s(a).0, S::as_simd_f32s(b).0);
    let mut sums = [simd.splat_f32s(0.0); 4];
    let (groups, rest) = a.as_chunks::<4>();
    let (other_groups, other_rest) = b.as_chunks::<4>();
    for (a, b) in groups.iter().zip(other_groups) {
        for lane in 0..4 {
            sums[lane] = simd.mul_add_e_f32s(a[lane], b[lane], sums[lane]);
        }
    }
    for (&a, &b) in rest.iter().zip(other_rest) {
        sums[0] = simd.mul_add_e_f32s(a, b, sums[0]);
    }
    let left = simd.add_f32s(sums[0], sums[1]);
    let right = simd.add_f32s(sums[2], sums[3]);
    simd.reduce_sum_f32s(simd.add_f32s(left, right))
}

/// `y += scale · x`.
#[inline(always)]
pub fn add_scaled<S: Simd>(simd: S, y: &mut [f32], scale: f32, x: &[f32]) {
    #[cfg(test)]
    meter::spend(y.len());
    let scale = simd.splat_f32s(scale);
    let x = S::as_simd_f32s(x).0;
    for (y, &x) in S::as_mut_simd_f32s(y).0.iter_mut().zip(x) {
        *y = simd.mul_add_e_f32s(scale, x, *y);
    }
}

/// `y = x + scale · y`.
#[inline(always)]
pub fn scale_then_add<S: Simd>(simd: S, y: &mut [f32], scale: f32, x: &[f32]) {
    #[cfg(test)]
    meter::spend(y.len());
    let scale = simd.splat_f32s(scale);
    let x = S::as_simd_f32s(x).0;
    for (y, &x) in S::as_mut_simd_f32s(y).0.iter_mut().zip(x) {
        *y = simd.mul_add_e_f32s(scale, *y, x);
    }
}

/// `out = a ∘ b · scale`, element by element.
#[inline(always)]
pub fn scaled_product<S: Simd>(simd: S, out: &mut [f32], a: &[f32], b: &[f32], scale: f32) {
    #[cfg(test)]
    meter::spend(out.len());
    let scale = simd.splat_f32s(scale);
    let (a, b) = (S::as_simd_f32s(a).0, S::as_simd_f32s(b).0);
    for ((out, &a), &b) in S::as_mut_simd_f32s(out).0.iter_mut().zip(a).zip(b) {
        *out = simd.mul_f32s(simd.mul_f32s(a, scale), b);
    }
}

/// `out[j] = row j of z · v` for `out.len()` rows, a multiple of [`ROW_GROUP`].
#[inline(always)]
pub fn products<S: Simd>(simd: S, z: &[f32], v: &[f32], out: &mut [f32]) {
    #[cfg(test)]
    meter::spend(v.len() * out.len());
    let stride = v.len();
    let v = S::as_simd_f32s(v).0;
    let width = v.len();
    for (rows, out) in z.chunks_exact(ROW_GROUP * stride).zip(out.as_chunks_mut::<4>().0) {
        let rows = S::as_simd_f32s(rows).0;
        let (r0, rows) = rows.split_at(width);
        let (r1, rows) = rows.split_at(width);
        let (r2, r3) = rows.split_at(width);
        let mut sums = [simd.splat_f32s(0.0); 4];
        for ((((&v, &a), &b), &c), &d) in v.iter().zip(r0).zip(r1).zip(r2).zip(r3) {
            sums[0] = simd.mul_add_e_f32s(a, v, sums[0]);
            sums[1] = simd.mul_add_e_f32s(b, v, sums[1]);
            sums[2] = simd.mul_add_e_f32s(c, v, sums[2]);
            sums[3] = simd.mul_add_e_f32s(d, v, sums[3]);
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = simd.reduce_sum_f32s(sum);
        }
    }
}

/// `out = start + Σ scales[j] · row j of z`; `start` is 0 when absent.
#[inline(always)]
pub fn weighted_sum<S: Simd>(
    simd: S,
    z: &[f32],
    scales: &[f32],
    start: Option<&[f32]>,
    out: &mut [f32],
) {
    #[cfg(test)]
    meter::spend(out.len() * scales.len());
    let out = S::as_mut_simd_f32s(out).0;
    let z = S::as_simd_f32s(z).0;
    let start = start.map(|start| S::as_simd_f32s(start).0);
    let width = out.len();
    let mut column = 0;
    while column < width {
        column += match width - column {
            8.. => weighted_columns::<S, 8>(simd, z, scales, start, out, column),
            4.. => weighted_columns::<S, 4>(simd, z, scales, start, out, column),
            2.. => weighted_columns::<S, 2>(simd, z, scales, start, out, column),
            _ => weighted_columns::<S, 1>(simd, z, scales, start, out, column),
        };
    }
}

/// `W` vectors' width of [`weighted_sum`], held in registers.
#[inline(always)]
fn weighted_columns<S: Simd, const W: usize>(
    simd: S,
    z: &[S::f32s],
    scales: &[f32],
    start: Option<&[S::f32s]>,
    out: &mut [S::f32s],
    column: usize,
) -> usize {
    let width = out.len();
    let mut sums = [simd.splat_f32s(0.0); W];
    if let Some(start) = start {
        sums.copy_from_slice(&start[column..column + W]);
    }
    for (row, &scale) in z.chunks_exact(width).zip(scales) {
        let scale = simd.splat_f32s(scale);
        let row = &row[column..column + W];
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum = simd.mul_add_e_f32s(value, scale, *sum);
        }
    }
    out[column..column + W].copy_from_slice(&sums);
    W
}

/// `gram += zᵀ·z` in the upper triangle's tiles (4 rows × 2 vectors); `gram` is square, of
/// `stride` columns.
#[inline(always)]
pub fn add_gram<S: Simd>(simd: S, z: &[f32], stride: usize, gram: &mut [f32]) {
    let width = stride / S::F32_LANES;
    let mut tile = 0;
    while tile < stride {
        // The first vector that reaches the diagonal.
        let mut column = tile / S::F32_LANES;
        while column < width {
            column += if column + 2 <= width {
                gram_tile::<S, 2>(simd, z, stride, tile, column, gram)
            } else {
                gram_tile::<S, 1>(simd, z, stride, tile, column, gram)
            };
        }
        tile += 4;
    }
}

#[inline(always)]
fn gram_tile<S: Simd, const W: usize>(
    simd: S,
    z: &[f32],
    stride: usize,
    row: usize,
    column: usize,
    gram: &mut [f32],
) -> usize {
    #[cfg(test)]
    meter::spend(z.len() / stride * 4 * W * S::F32_LANES);
    let mut sums = [[simd.splat_f32s(0.0); W]; 4];
    for z in z.chunks_exact(stride) {
        let right = &S::as_simd_f32s(z).0[column..column + W];
        let left = &z[row..row + 4];
        for (sums, &left) in sums.iter_mut().zip(left) {
            let left = simd.splat_f32s(left);
            for (sum, &right) in sums.iter_mut().zip(right) {
                *sum = simd.mul_add_e_f32s(left, right, *sum);
            }
        }
    }
    for (offset, sums) in sums.iter().enumerate() {
        let line = &mut gram[(row + offset) * stride..(row + offset + 1) * stride];
        let line = &mut S::as_mut_simd_f32s(line).0[column..column + W];
        for (cell, &sum) in line.iter_mut().zip(sums) {
            *cell = simd.add_f32s(*cell, sum);
        }
    }
    W
}

/// The largest magnitude of any values, 0 of none; not finite when one of them is not.
pub fn largest_magnitude(values: &[f32]) -> f32 {
    largest_magnitude_unless(values, &AtomicBool::new(false))
}

/// [`largest_magnitude`]; with the flag set it is too small: the caller looks at the flag.
pub(super) fn largest_magnitude_unless(values: &[f32], cancel: &AtomicBool) -> f32 {
    // Magnitudes compare as their bits do, NaN above all.
    let bits = |value: &f32| value.abs().to_bits().cast_signed();
    let largest = |part: &[f32]| match cancel::is_set(cancel) {
        true => 0,
        false => part.iter().fold(0, |most: i32, value| most.max(bits(value))),
    };
    let largest = values.par_chunks(VALUES_PER_LOOK).map(largest).max();
    f32::from_bits(largest.unwrap_or(0).cast_unsigned())
}

/// Where the first value is that is not finite.
///
/// # Errors
/// [`ModelError::Cancelled`] once the flag is set.
pub(super) fn position_not_finite<T: Copy + Into<f64> + Sync>(
    values: &[T],
    cancel: &AtomicBool,
) -> Result<Option<usize>, ModelError> {
    let is_bad = |&value: &T| -> bool { !value.into().is_finite() };
    let has_bad = |part: &[T]| !cancel::is_set(cancel) && part.iter().any(is_bad);
    let part = values.par_chunks(VALUES_PER_LOOK).position_first(has_bad);
    cancel::check(cancel)?;
    let Some(start) = part.map(|part| part * VALUES_PER_LOOK) else { return Ok(None) };
    Ok(values[start..].iter().position(is_bad).map(|at| start + at))
}

/// Copies the upper triangle of a square matrix to the lower.
pub fn mirror_upper<T: Copy>(matrix: &mut [T], size: usize) {
    for row in 1..size {
        for column in 0..row {
            matrix[row * size + column] = matrix[column * size + row];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_magnitude_tells_of_values_that_are_not_finite() {
        assert_eq!(largest_magnitude(&[]), 0.0);
        assert_eq!(largest_magnitude(&[1.0, -3.5, 0.0, f32::MIN_POSITIVE]), 3.5);
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = vec![f32::MAX; 3 * VALUES_PER_LOOK];
            assert_eq!(largest_magnitude(&values), f32::MAX);
            values[2 * VALUES_PER_LOOK + 7] = bad;
            assert!(!largest_magnitude(&values).is_finite());
        }
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_found() {
        let (go_on, stop) = (AtomicBool::new(false), AtomicBool::new(true));
        let mut values = vec![1.5_f64; 3 * VALUES_PER_LOOK];
        assert_eq!(position_not_finite(&values, &go_on), Ok(None));
        values[2 * VALUES_PER_LOOK + 7] = f64::NAN;
        values[2 * VALUES_PER_LOOK + 9] = f64::INFINITY;
        assert_eq!(position_not_finite(&values, &go_on), Ok(Some(2 * VALUES_PER_LOOK + 7)));
        assert_eq!(position_not_finite(&values, &stop), Err(ModelError::Cancelled));
        assert_eq!(largest_magnitude_unless(&[2.0], &stop), 0.0);
    }
}
