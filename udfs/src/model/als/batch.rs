//! Rows with small systems, which are solved together once there is one for each lane.
//!
//! A row that waits keeps what its solution is made with: the dual form its gathered interactions.
//! Rows come in descending order of length, so that those that wait together have systems of about
//! the same order. Which they are depends on the data alone, and no row on the others.

use std::mem::swap;

use pulp::Simd;

use super::super::kernel::{Aligned, ROW_GROUP, dot};
use super::cholesky;
use super::interleaved::Interleaved;
use super::row::{HalfStep, Method, Scratch};

/// Values of all systems (160 KiB) that leave room in the second-level cache, and that are still
/// solved faster together than one after the other: of order 48 in 16 lanes, 68 in 8.
const SYSTEM_VALUES: usize = 40 << 10;
/// Values of all gathered rows (512 KiB) that stay in the second-level cache until they are used
/// again.
const KEPT_VALUES: usize = 1 << 17;
/// Lanes of the widest vectors.
const LANES_MAX: usize = 16;

/// Which of its two systems a row is solved by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Form {
    #[default]
    Dual,
    Primal,
}

/// Rows that wait for their solution.
#[derive(Debug, Default)]
pub(super) struct Batch {
    systems: Interleaved,
    /// By lane; from `count` on they are of rows that are solved.
    rows: Vec<Waiting>,
    count: usize,
}

/// What is kept of a row.
#[derive(Debug, Default)]
struct Waiting {
    index: usize,
    constant: f64,
    form: Form,
    /// Unknowns of its system.
    size: usize,
    /// Of the dual form the gathered interactions.
    z: Aligned,
    /// Their targets, or the primal's right side.
    right: Aligned,
}

impl Batch {
    /// Whether there is a row for each lane.
    #[inline(always)]
    pub(super) fn is_full<S: Simd>(&self) -> bool {
        self.count == S::F32_LANES
    }

    /// Solves the systems; returns how many rows they are of. The next row begins another batch.
    #[inline(always)]
    pub(super) fn solve<S: Simd>(&mut self, simd: S) -> usize {
        if self.count > 0 {
            self.systems.solve(simd);
        }
        std::mem::take(&mut self.count)
    }

    /// The index of a lane's row and the constant part of its objective.
    #[inline(always)]
    pub(super) fn row(&self, lane: usize) -> (usize, f64) {
        let waiting = &self.rows[lane];
        (waiting.index, waiting.constant)
    }
}

/// Unknowns, padded, of the system of a row with `count` interactions, when it is solved with
/// others.
#[inline(always)]
pub(super) fn order<S: Simd>(step: &HalfStep<'_>, count: usize) -> Option<usize> {
    let is_exact = match step.method {
        Method::Exact => true,
        Method::Subspace { block } => count <= block,
        Method::Gradient { .. } | Method::NonNegative => false,
    };
    let order = count.min(step.unknowns()).next_multiple_of(ROW_GROUP);
    let all = order * S::F32_LANES;
    let is_dual = count < step.unknowns();
    let fits = all * order <= SYSTEM_VALUES && !(is_dual && all * step.stride > KEPT_VALUES);
    (is_exact && fits).then_some(order)
}

/// Values that a thread's batch takes at most, for rows padded to `stride`.
pub(super) fn values(stride: usize) -> usize {
    let lines = LANES_MAX * (stride + 1) * stride;
    // The gathered rows, and the systems with their right sides and solutions.
    lines.min(KEPT_VALUES) + lines.min(SYSTEM_VALUES + 2 * LANES_MAX * stride)
}

/// Lets a row wait whose system is in the scratch, its matrix in lines of `line` values. Of all
/// rows of a batch the first has the largest `order`.
#[inline(always)]
pub(super) fn put<S: Simd>(
    scratch: &mut Scratch,
    (index, constant): (usize, f64),
    order: usize,
    form: Form,
    line: usize,
) {
    let Scratch { batch, matrix, right, z, targets, .. } = scratch;
    let Batch { systems, rows, count } = batch;
    let lane = *count;
    if lane == 0 {
        systems.begin::<S>(order);
    }
    systems.put::<S>(lane, matrix, line, order, right);
    if lane == rows.len() {
        rows.push(Waiting::default());
    }
    let waiting = &mut rows[lane];
    match form {
        Form::Dual => {
            swap(&mut waiting.z, z);
            swap(&mut waiting.right, targets);
        }
        Form::Primal => swap(&mut waiting.right, right),
    }
    (waiting.index, waiting.constant) = (index, constant);
    (waiting.form, waiting.size) = (form, order);
    *count += 1;
}

/// Moves `scratch.w` to the solution of a lane's row, whose scale and prior are prepared; returns
/// its objective without the constant part. `None` when rounding lost a pivot of its matrix, with `w`
/// as it was.
#[inline(always)]
pub(super) fn take<S: Simd>(simd: S, scratch: &mut Scratch, lane: usize) -> Option<f64> {
    let Scratch { batch, z, targets, right, w, solution, .. } = &mut *scratch;
    let waiting = &mut batch.rows[lane];
    match waiting.form {
        Form::Dual => {
            swap(&mut waiting.z, z);
            swap(&mut waiting.right, targets);
            solution.grow(waiting.size);
            if !batch.systems.solution::<S>(lane, solution) {
                return None;
            }
            Some(cholesky::finish_dual(simd, scratch))
        }
        Form::Primal => {
            swap(&mut waiting.right, right);
            let (own, padding) = w.split_at_mut(waiting.size);
            if !batch.systems.solution::<S>(lane, own) {
                return None;
            }
            padding.fill(0.0);
            Some(-f64::from(dot(simd, right, w)))
        }
    }
}
