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

impl Waiting {
    /// Exchanges what is gathered.
    #[inline(always)]
    fn exchange(&mut self, z: &mut Aligned, targets: &mut Aligned) {
        swap(&mut self.z, z);
        swap(&mut self.right, targets);
    }
}

impl Batch {
    /// The next lane's row.
    #[inline(always)]
    fn next_lane(&mut self) -> &mut Waiting {
        if self.count == self.rows.len() {
            self.rows.push(Waiting::default());
        }
        &mut self.rows[self.count]
    }

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

/// Exchanges what the scratch gathers into for what the next row that waits in the dual form has
/// for it, so that a lane's memory stays that of the short rows which wait; [`put`] takes it back.
#[inline(always)]
pub(super) fn lend(scratch: &mut Scratch) {
    let Scratch { batch, z, targets, .. } = scratch;
    batch.next_lane().exchange(z, targets);
}

/// Lets a row wait whose system is in the scratch, its matrix in lines of `line` values; in the
/// dual form it was gathered into what [`lend`] gave. Of all rows of a batch the first has the
/// largest `order`.
#[inline(always)]
pub(super) fn put<S: Simd>(
    scratch: &mut Scratch,
    (index, constant): (usize, f64),
    order: usize,
    form: Form,
    line: usize,
) {
    let Scratch { batch, matrix, right, z, targets, .. } = scratch;
    let lane = batch.count;
    if lane == 0 {
        batch.systems.begin::<S>(order);
    }
    batch.systems.put::<S>(lane, matrix, line, order, right);
    let waiting = batch.next_lane();
    match form {
        Form::Dual => waiting.exchange(z, targets),
        Form::Primal => swap(&mut waiting.right, right),
    }
    (waiting.index, waiting.constant) = (index, constant);
    (waiting.form, waiting.size) = (form, order);
    batch.count += 1;
}

/// Moves `scratch.w` to the solution of a lane's row, whose scale and prior are prepared; returns
/// its objective without the constant part. `None` when rounding lost a pivot of its matrix, with
/// `w` as it was.
#[inline(always)]
pub(super) fn take<S: Simd>(simd: S, scratch: &mut Scratch, lane: usize) -> Option<f64> {
    let Scratch { batch, z, targets, right, w, solution, .. } = &mut *scratch;
    let waiting = &mut batch.rows[lane];
    match waiting.form {
        Form::Dual => {
            solution.grow(waiting.size);
            if !batch.systems.solution::<S>(lane, solution) {
                return None;
            }
            waiting.exchange(z, targets);
            let objective = cholesky::finish_dual(simd, scratch);
            let Scratch { batch, z, targets, .. } = scratch;
            batch.rows[lane].exchange(z, targets);
            Some(objective)
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

#[cfg(test)]
mod tests {
    use pulp::{Arch, WithSimd};

    use super::*;

    /// Solves a system of four interactions, of which one says anything, beside long rows' buffers.
    struct Short<'a>(&'a mut Scratch);

    impl WithSimd for Short<'_> {
        type Output = Option<f64>;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let Self(scratch) = self;
            lend(scratch);
            scratch.z.grow(4 * 16);
            scratch.targets.grow(4);
            scratch.matrix.grow(4 * 16);
            scratch.right.grow(16);
            scratch.w.grow(16);
            for values in [&mut scratch.z, &mut scratch.targets, &mut scratch.matrix] {
                values.fill(0.0);
            }
            scratch.right.fill(0.0);
            (scratch.z[0], scratch.targets[0], scratch.right[0]) = (1.0, 4.0, 4.0);
            for row in 0..4 {
                scratch.matrix[row * 16 + row] = if row == 0 { 4.0 } else { 1.0 };
            }
            put::<S>(scratch, (7, 0.5), 4, Form::Dual, 16);
            assert_eq!(scratch.batch.solve(simd), 1);
            assert_eq!(scratch.batch.row(0), (7, 0.5));
            take(simd, scratch, 0)
        }
    }

    #[test]
    fn a_lane_keeps_the_buffers_of_the_short_rows_that_wait_in_it() {
        let mut scratch = Scratch::default();
        scratch.z.grow(1 << 16);
        scratch.targets.grow(1 << 12);
        for _ in 0..3 {
            let objective = Arch::new().dispatch(Short(&mut scratch));
            // v = 4 / 4: w is 1 at the first coordinate, and −4·(4 − 1) is left of the objective.
            assert_eq!(objective, Some(-12.0));
            assert_eq!(scratch.w[0], 1.0);
            assert_eq!((scratch.z.len(), scratch.targets.len()), (1 << 16, 1 << 12));
            assert_eq!(scratch.batch.rows[0].z.len(), 4 * 16);
        }
    }
}
