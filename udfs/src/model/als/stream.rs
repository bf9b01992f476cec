//! Conjugate gradients on a row too long to be gathered.
//!
//! The system is that of [`super::cg`]. Each step reads the interactions' factors where they are
//! and uses a row twice while it is in the cache, so that no memory grows with the row. The row is
//! cut into parts of fixed length, summed by any thread and added in their order in `f64`.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::kernel::{Aligned, add_scaled, dot, prefetch};
use super::row::{GATHERED_AHEAD, HalfStep, Scratch};

/// Interactions of a part.
const PART_CELLS: usize = 4096;
/// Interactions between two looks at the cancel flag.
const LOOK_CELLS: usize = 512;

/// Improves `scratch.w` by at most `steps` steps and returns the row's objective.
pub(super) fn solve(
    step: &HalfStep<'_>,
    row: usize,
    steps: usize,
    parallel: bool,
    scratch: &mut Scratch,
) -> f64 {
    let scale: Vec<f64> = scratch.scale.iter().map(|&scale| scale.into()).collect();
    let mut w: Vec<f64> = scratch.w.iter().map(|&w| w.into()).collect();
    let prior: Vec<f64> = match scratch.has_prior {
        true => scratch.prior.iter().map(|&prior| prior.into()).collect(),
        false => vec![0.0; w.len()],
    };
    let pass = Pass { step, row, parallel, scale: &scale };
    let (mut residual, data) = pass.run(&w, true);
    let mut objective = data + inner(&w, &w) - 2.0 * inner(&prior, &w);
    for ((residual, w), prior) in residual.iter_mut().zip(&w).zip(&prior) {
        *residual += prior - w;
    }
    let mut direction = residual.clone();
    let mut gamma = inner(&residual, &residual);
    let enough = 1e-13 * (gamma + inner(&w, &w));
    for _ in 0..steps {
        if gamma <= enough || step.cancelled() {
            break;
        }
        let (mut image, _) = pass.run(&direction, false);
        image.iter_mut().zip(&direction).for_each(|(image, direction)| *image += direction);
        let length = gamma / inner(&direction, &image);
        if !length.is_finite() {
            break;
        }
        objective -= length * gamma;
        w.iter_mut().zip(&direction).for_each(|(w, direction)| *w += length * direction);
        residual.iter_mut().zip(&image).for_each(|(residual, image)| *residual -= length * image);
        let next = inner(&residual, &residual);
        for (direction, residual) in direction.iter_mut().zip(&residual) {
            *direction = residual + next / gamma * *direction;
        }
        gamma = next;
    }
    scratch.w.iter_mut().zip(&w).for_each(|(to, &from)| *to = from as f32);
    objective
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// One reading of all the row's interactions.
struct Pass<'a, 'b> {
    step: &'a HalfStep<'b>,
    row: usize,
    parallel: bool,
    scale: &'a [f64],
}

impl Pass<'_, '_> {
    /// ZᵀZ·d; or, as a first pass, Zᵀ(t − Z·d) with |t − Z·d|² without its prior and |w|² terms.
    fn run(&self, d: &[f64], first: bool) -> (Vec<f64>, f64) {
        let mut scaled = Aligned::zeros(d.len());
        for ((to, &d), &scale) in scaled.iter_mut().zip(d).zip(self.scale) {
            *to = (d * scale) as f32;
        }
        let part = |(columns, values): (&[u32], &[f32])| {
            let mut sum = Aligned::zeros(d.len());
            let (step, d, out) = (self.step, &*scaled, &mut *sum);
            let data = Arch::new().dispatch(PassOp { step, columns, values, d, out, first });
            (sum, data)
        };
        let (columns, values) = self.step.cells.row(self.row);
        let parts: Vec<(Aligned, f64)> = match self.parallel {
            true => {
                let cells = columns.par_chunks(PART_CELLS).zip(values.par_chunks(PART_CELLS));
                cells.map(part).collect()
            }
            false => {
                let cells = columns.chunks(PART_CELLS).zip(values.chunks(PART_CELLS));
                cells.map(part).collect()
            }
        };
        let (mut total, mut data) = (vec![0.0_f64; d.len()], 0.0);
        for (sum, part_data) in parts {
            data += part_data;
            total.iter_mut().zip(sum.iter()).for_each(|(to, &value)| *to += f64::from(value));
        }
        total.iter_mut().zip(self.scale).for_each(|(to, scale)| *to *= scale);
        (total, data)
    }
}

struct PassOp<'a, 'b> {
    step: &'a HalfStep<'b>,
    columns: &'a [u32],
    values: &'a [f32],
    d: &'a [f32],
    out: &'a mut [f32],
    first: bool,
}

impl WithSimd for PassOp<'_, '_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let Self { step, columns, values, d, out, first } = self;
        let stride = step.stride;
        let mut data = 0.0;
        for (columns, values) in columns.chunks(LOOK_CELLS).zip(values.chunks(LOOK_CELLS)) {
            if step.cancelled() {
                break;
            }
            let fixed_row = |column: u32| {
                let start = column as usize * stride;
                &step.fixed[start..start + stride]
            };
            let mut soon = columns.iter().skip(GATHERED_AHEAD);
            for (&column, &value) in columns.iter().zip(values) {
                if let Some(&column) = soon.next() {
                    prefetch(fixed_row(column));
                }
                let fixed = fixed_row(column);
                let (multiplier, target, constant) = step.cell(column as usize, value);
                let product = multiplier * dot(simd, fixed, d);
                let coefficient = if first {
                    data += constant + f64::from(product * (product - 2.0 * target));
                    target - product
                } else {
                    product
                };
                add_scaled(simd, out, coefficient * multiplier, fixed);
            }
        }
        data
    }
}
