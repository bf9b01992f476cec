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

/// Working memory in `f64`, one value a coordinate each.
#[derive(Debug, Default)]
pub(super) struct Wide {
    scale: Vec<f64>,
    w: Vec<f64>,
    prior: Vec<f64>,
    residual: Vec<f64>,
    direction: Vec<f64>,
    image: Vec<f64>,
}

/// Values, counted in `f32`, of a thread's [`Wide`] for rows padded to `stride`.
pub(super) fn values(stride: usize) -> usize {
    6 * stride * size_of::<f64>() / size_of::<f32>()
}

/// Values that the sums of the parts of a row of at most `longest` interactions take.
pub(super) fn part_values(longest: usize, stride: usize) -> usize {
    longest.div_ceil(PART_CELLS) * stride
}

/// Improves `scratch.w` by at most `steps` steps and returns the row's objective.
pub(super) fn solve(
    step: &HalfStep<'_>,
    row: usize,
    steps: usize,
    parallel: bool,
    scratch: &mut Scratch,
) -> f64 {
    let Scratch {
        wide,
        direction: scaled,
        right: sum,
        scale: own_scale,
        w: own_w,
        prior: own_prior,
        has_prior,
        ..
    } = scratch;
    let Wide { scale, w, prior, residual, direction, image } = wide;
    sum.grow(step.stride);
    widen(scale, own_scale);
    widen(w, own_w);
    widen(prior, own_prior);
    if !*has_prior {
        prior.fill(0.0);
    }
    let mut pass = Pass { step, row, parallel, scale, scaled, sum };
    let data = pass.run(w, true, residual);
    let mut objective = data + inner(w, w) - 2.0 * inner(prior, w);
    for ((residual, w), prior) in residual.iter_mut().zip(&*w).zip(&*prior) {
        *residual += prior - w;
    }
    direction.clone_from(residual);
    let mut gamma = inner(residual, residual);
    let enough = 1e-13 * (gamma + inner(w, w));
    for _ in 0..steps {
        if gamma <= enough || step.cancelled() {
            break;
        }
        pass.run(direction, false, image);
        image.iter_mut().zip(&*direction).for_each(|(image, direction)| *image += direction);
        let length = gamma / inner(direction, image);
        if !length.is_finite() {
            break;
        }
        objective -= length * gamma;
        w.iter_mut().zip(&*direction).for_each(|(w, direction)| *w += length * direction);
        residual.iter_mut().zip(&*image).for_each(|(residual, image)| *residual -= length * image);
        let next = inner(residual, residual);
        for (direction, residual) in direction.iter_mut().zip(&*residual) {
            *direction = residual + next / gamma * *direction;
        }
        gamma = next;
    }
    own_w.iter_mut().zip(&*w).for_each(|(to, &from)| *to = from as f32);
    objective
}

fn widen(to: &mut Vec<f64>, from: &[f32]) {
    to.clear();
    to.extend(from.iter().map(|&value| f64::from(value)));
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Readings of all the row's interactions.
struct Pass<'a, 'b> {
    step: &'a HalfStep<'b>,
    row: usize,
    parallel: bool,
    scale: &'a [f64],
    /// A direction as the factors are multiplied by it.
    scaled: &'a mut Aligned,
    /// The sum of a part, where one thread has them all.
    sum: &'a mut Aligned,
}

impl Pass<'_, '_> {
    /// Fills in ZᵀZ·d; or, as a first pass, Zᵀ(t − Z·d), and returns |t − Z·d|² without its prior
    /// and |w|² terms.
    fn run(&mut self, d: &[f64], first: bool, total: &mut Vec<f64>) -> f64 {
        for ((to, &d), &scale) in self.scaled.iter_mut().zip(d).zip(self.scale) {
            *to = (d * scale) as f32;
        }
        total.clear();
        total.resize(d.len(), 0.0);
        let step = self.step;
        let scaled: &[f32] = self.scaled;
        let part = |columns: &[u32], values: &[f32], out: &mut Aligned| {
            out.fill(0.0);
            Arch::new().dispatch(PassOp { step, columns, values, d: scaled, out, first })
        };
        let mut data = 0.0;
        let mut add = |sum: &[f32], part_data: f64| {
            data += part_data;
            total.iter_mut().zip(sum).for_each(|(to, &value)| *to += f64::from(value));
        };
        let (columns, values) = step.cells.row(self.row);
        if self.parallel {
            step.with_parts(columns.len().div_ceil(PART_CELLS), |parts| {
                let cells = columns.par_chunks(PART_CELLS).zip(values.par_chunks(PART_CELLS));
                cells.zip(parts.par_iter_mut()).for_each(|((columns, values), sums)| {
                    sums.right.grow(scaled.len());
                    sums.constant = part(columns, values, &mut sums.right);
                });
                parts.iter().for_each(|sums| add(&sums.right, sums.constant));
            });
        } else {
            for (columns, values) in columns.chunks(PART_CELLS).zip(values.chunks(PART_CELLS)) {
                let part_data = part(columns, values, self.sum);
                add(self.sum, part_data);
            }
        }
        total.iter_mut().zip(self.scale).for_each(|(to, scale)| *to *= scale);
        data
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
