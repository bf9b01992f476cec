//! A fixed side too large for the caches, copied in 16 bits a value for the time of a half step.
//!
//! A half step reads a row of the fixed side for each interaction, in an order that no cache can
//! follow. Rows lie by descending popularity, so that the most used ones share lines and pages, and
//! are fetched ahead ([`super::ahead`]); what is left is the traffic itself. Of 10⁷ interactions
//! and 64 factors each half step reads 10⁷ · 256 bytes = 2.6 GB. A second-level cache of 2 MiB
//! holds 4 % of 200,000 items and 2 % of 400,000 users; where the share of reads that go to the
//! first x of the rows is x^⅓ for items and x^½ for users, that is .34 and .14 of them, beside
//! .74 and .45 at a tenth of the size. Half the bytes a row halve the traffic and make these .43
//! and .20.
//!
//! Other ways cost more. Going over the rows in tiles of items would keep what a user has gathered
//! until the last tile: written and read once more, it is twice the traffic that it saves. Reading
//! a row in each step instead of gathering it is three reads for one.
//!
//! A row is kept as whole numbers of its own unit, the largest magnitude by 32,767: no coordinate
//! is off by more than half a unit, 1.5·10⁻⁵ of the row's largest, and reading is a conversion more
//! than before. bfloat16 would keep 8 bits of each coordinate, IEEE's half precision 11. What is
//! solved, the Gram matrix and the rows of the model stay `f32`; only what interactions add to a
//! row's equations comes of the copy. Sides up to [`WIDE_VALUES`] are read as they are.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::kernel::{AlignedVec, prefetch};

/// Values of a side that is still read as it is: 32 MiB, more than a core's share of any cache.
pub(super) const WIDE_VALUES: usize = 1 << 23;

/// The largest number of units.
const UNITS_MOST: f32 = 32_767.0;
/// 3·2²²: added to a number of at most [`UNITS_MOST`], it leaves the nearest whole one, of which
/// the last 16 bits of the sum are the two's complement.
const ROUNDING: f32 = 12_582_912.0;
/// Values computed together.
const LANES: usize = 16;

/// The copy. It is made anew by each half step, in memory that stays.
#[derive(Debug, Default)]
pub(super) struct Narrow {
    stride: usize,
    values: AlignedVec<i16>,
    /// Each row's unit.
    units: Vec<f32>,
}

/// Some rows of the copy while they are written.
pub(super) struct Part<'a> {
    values: &'a mut [i16],
    units: &'a mut [f32],
}

/// Bytes of a copy of `rows` rows of `stride` values.
pub(super) fn narrow_bytes(rows: usize, stride: usize) -> usize {
    rows * (stride * size_of::<i16>() + size_of::<f32>())
}

impl Narrow {
    /// Parts of `together` rows each, of `rows` rows of `stride` values, a multiple of 16.
    pub(super) fn parts(
        &mut self,
        rows: usize,
        stride: usize,
        together: usize,
    ) -> impl IndexedParallelIterator<Item = Part<'_>> {
        self.stride = stride;
        self.values.grow(rows * stride);
        self.units.resize(rows, 0.0);
        let values = self.values.par_chunks_mut(together * stride);
        let units = self.units.par_chunks_mut(together);
        values.zip(units).map(|(values, units)| Part { values, units })
    }

    /// Asks for coordinates `from..from + width` of a row that is read soon.
    #[inline(always)]
    pub(super) fn fetch(&self, row: usize, (from, width): (usize, usize)) {
        let start = row * self.stride + from;
        prefetch(&self.values[start..start + width]);
        prefetch(&self.units[row..=row]);
    }

    /// `out = row ∘ scale · factor`, of the row's coordinates from `from` on; `out` and `scale`
    /// have as many values, a multiple of 16.
    #[inline(always)]
    pub(super) fn scaled_product(
        &self,
        out: &mut [f32],
        (row, from): (usize, usize),
        scale: &[f32],
        factor: f32,
    ) {
        let start = row * self.stride + from;
        let factor = factor * self.units[row];
        let values = self.values[start..start + out.len()].as_chunks::<LANES>().0;
        let scale = scale.as_chunks::<LANES>().0;
        let out = out.as_chunks_mut::<LANES>().0;
        for ((out, values), scale) in out.iter_mut().zip(values).zip(scale) {
            *out = std::array::from_fn(|lane| f32::from(values[lane]) * factor * scale[lane]);
        }
    }
}

impl Part<'_> {
    /// Copies rows of `stride` values.
    pub(super) fn copy(&mut self, rows: &[f32], stride: usize) {
        let Self { values, units } = self;
        Arch::new().dispatch(CopyOp { rows, stride, values, units });
    }
}

struct CopyOp<'a> {
    rows: &'a [f32],
    stride: usize,
    values: &'a mut [i16],
    units: &'a mut [f32],
}

impl WithSimd for CopyOp<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { rows, stride, values, units } = self;
        let copies = values.chunks_exact_mut(stride).zip(units);
        for (row, (values, unit)) in rows.chunks_exact(stride).zip(copies) {
            *unit = copy_row(row, values);
        }
    }
}

/// Copies a row and returns its unit. A row next to 0 becomes 0.
#[inline(always)]
fn copy_row(row: &[f32], copy: &mut [i16]) -> f32 {
    // Magnitudes compare as their bits do.
    let larger = |most: u32, value: &f32| most.max(value.abs().to_bits());
    let largest = row.iter().fold(0, larger);
    let unit = f32::from_bits(largest) / UNITS_MOST;
    let inverse = if unit >= f32::MIN_POSITIVE { 1.0 / unit } else { 0.0 };
    for (copy, values) in copy.as_chunks_mut::<LANES>().0.iter_mut().zip(row.as_chunks::<LANES>().0)
    {
        let bits = |value: f32| (value * inverse + ROUNDING).to_bits() as u16;
        *copy = std::array::from_fn(|lane| bits(values[lane]).cast_signed());
    }
    unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::random::mix;

    fn narrow(rows: &[f32], stride: usize, together: usize) -> Narrow {
        let mut narrow = Narrow::default();
        let parts = narrow.parts(rows.len() / stride, stride, together);
        rows.par_chunks(together * stride).zip(parts).for_each(|(rows, mut part)| {
            part.copy(rows, stride);
        });
        narrow
    }

    #[test]
    fn a_copy_is_off_by_half_a_unit_at_most_however_it_is_made() {
        let (rows, stride) = (70, 48);
        let value = |at: usize| {
            let drawn = (mix(at as u64) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0;
            // Rows of magnitudes from 10⁻⁹ to 10⁹.
            drawn * 10_f32.powi((at / stride % 19) as i32 - 9)
        };
        let factors: Vec<f32> = (0..rows * stride).map(value).collect();
        let copy = narrow(&factors, stride, 8);
        let scale: Vec<f32> = (0..stride).map(|at| 0.5 + at as f32).collect();
        for (row, factors) in factors.chunks_exact(stride).enumerate() {
            let largest = factors.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            copy.fetch(row, (0, stride));
            for (from, width) in [(0, stride), (16, 32), (32, 16)] {
                let mut out = vec![f32::NAN; width];
                let scale = &scale[from..from + width];
                copy.scaled_product(&mut out, (row, from), scale, -2.0);
                for ((out, value), scale) in out.iter().zip(&factors[from..]).zip(scale) {
                    let off = (out / (-2.0 * scale) - value).abs();
                    assert!(off <= 1.6e-5 * largest, "{row} {out} {value} {largest}");
                }
            }
        }
        let other = narrow(&factors, stride, 64);
        assert_eq!((&*copy.values, &copy.units), (&*other.values, &other.units));
    }

    #[test]
    fn rows_of_zeros_and_of_less_than_a_unit_are_zeros() {
        let mut factors = vec![0.0_f32; 64];
        factors[32..].fill(f32::MIN_POSITIVE);
        let copy = narrow(&factors, 32, 1);
        assert!(copy.values.iter().all(|&value| value == 0));
        let mut out = vec![1.0; 32];
        copy.scaled_product(&mut out, (1, 0), &[3.0; 32], 5.0);
        assert_eq!(out, [0.0; 32]);
    }

    #[test]
    fn a_copy_of_fewer_rows_stands_in_the_memory_of_the_one_before() {
        let (many, few) = (vec![1.0_f32; 16 * 40], vec![-2.0_f32; 16 * 3]);
        let mut copy = narrow(&many, 16, 4);
        few.par_chunks(16 * 4).zip(copy.parts(3, 16, 4)).for_each(|(rows, mut part)| {
            part.copy(rows, 16);
        });
        assert_eq!((copy.values.len(), copy.units.len()), (48, 3));
        assert!(copy.values.iter().all(|&value| value == -32_767));
    }
}
