//! Cholesky's method on as many small systems at a time as a vector has lanes.
//!
//! A vector holds one cell of every system, so that no instruction is wasted on the short lines of
//! small matrices and square roots are taken of all of them together. The right side is one more
//! column of the matrix: what makes U of M makes of b what back substitution needs.
//!
//! What is done to a lane and in which order depends on its own system alone. So a solution is the
//! same, to the last bit, whichever systems lie beside it and however many unknowns they have.

use pulp::Simd;

#[cfg(test)]
use super::super::cancel::meter;
use super::super::kernel::{Aligned, ROW_GROUP};
use super::cholesky::PIVOT_SHARE;

/// Systems in the lanes of vectors.
#[derive(Debug, Default)]
pub(super) struct Interleaved {
    /// `order` rows of `order` + 1 vectors; of the matrices the upper triangle counts.
    cells: Aligned,
    /// `order` vectors.
    solution: Aligned,
    /// One vector: above 0 in the lanes whose matrix was positive definite.
    definite: Aligned,
    order: usize,
}

impl Interleaved {
    /// Makes room for systems of at most `order` unknowns, a multiple of [`ROW_GROUP`]. A lane that
    /// no system is put into computes on what lies there, for nobody.
    #[inline(always)]
    pub(super) fn begin<S: Simd>(&mut self, order: usize) {
        let lanes = S::F32_LANES;
        self.cells.grow(order * (order + 1) * lanes);
        self.solution.grow(order * lanes);
        self.definite.grow(lanes);
        self.order = order;
    }

    /// Puts a system of `size` unknowns into a lane: the upper triangle of its matrix, in lines of
    /// `stride` values, and its right side. Unknowns beyond are 0.
    #[inline(always)]
    pub(super) fn put<S: Simd>(
        &mut self,
        lane: usize,
        upper: &[f32],
        stride: usize,
        size: usize,
        right: &[f32],
    ) {
        let (order, lanes) = (self.order, S::F32_LANES);
        for (row, line) in self.cells.chunks_exact_mut((order + 1) * lanes).enumerate() {
            let (square, side) = line.split_at_mut(order * lanes);
            let (own, beyond) = square.split_at_mut(size * lanes);
            for cell in beyond.chunks_exact_mut(lanes) {
                cell[lane] = 0.0;
            }
            if row < size {
                let values = &upper[row * stride + row..row * stride + size];
                for (cell, &value) in own.chunks_exact_mut(lanes).skip(row).zip(values) {
                    cell[lane] = value;
                }
                side[lane] = right[row];
            } else {
                beyond[(row - size) * lanes + lane] = 1.0;
                side[lane] = 0.0;
            }
        }
    }

    /// Solves the systems of all lanes.
    #[inline(always)]
    pub(super) fn solve<S: Simd>(&mut self, simd: S) {
        let Self { cells, solution, definite, order } = self;
        let cells = S::as_mut_simd_f32s(cells).0;
        let is_definite = factor(simd, cells, *order);
        S::as_mut_simd_f32s(definite).0.fill(is_definite);
        substitute(simd, cells, *order, S::as_mut_simd_f32s(solution).0);
    }

    /// Copies a lane's solution; false, and nothing, where its matrix was not positive definite,
    /// as rounding may make it.
    #[inline(always)]
    pub(super) fn solution<S: Simd>(&self, lane: usize, to: &mut [f32]) -> bool {
        let is_definite = self.definite[lane] > 0.0;
        if is_definite {
            for (to, cell) in to.iter_mut().zip(self.solution.chunks_exact(S::F32_LANES)) {
                *to = cell[lane];
            }
        }
        is_definite
    }
}

/// Turns the upper triangles of M into U with UᵀU = M, but for the diagonal, which becomes 1/U's,
/// and the right sides b into U⁻ᵀb. Above 0 are the lanes whose M is positive definite, each pivot
/// by more than rounding ([`PIVOT_SHARE`]).
#[inline(always)]
fn factor<S: Simd>(simd: S, cells: &mut [S::f32s], order: usize) -> S::f32s {
    let width = order + 1;
    let (zero, one) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0));
    let infinity = simd.splat_f32s(f32::INFINITY);
    let share = simd.splat_f32s(PIVOT_SHARE);
    let mut is_definite = one;
    for first in (0..order).step_by(ROW_GROUP) {
        let (done, below) = cells.split_at_mut(first * width);
        let lines = &mut below[..ROW_GROUP * width];
        let mut least = [zero; ROW_GROUP];
        for (offset, least) in least.iter_mut().enumerate() {
            *least = simd.mul_f32s(lines[offset * width + first + offset], share);
        }
        let mut column = first;
        while column < width {
            column += match width - column {
                1 => take_off::<S, 1>(simd, done, width, first, column, lines),
                _ => take_off::<S, 2>(simd, done, width, first, column, lines),
            };
        }
        for offset in 0..ROW_GROUP {
            let pivot = first + offset;
            let (own, below) = lines.split_at_mut((offset + 1) * width);
            let line = &mut own[offset * width..];
            let diagonal = line[pivot];
            let above = simd.less_than_f32s(least[offset], diagonal);
            let finite = simd.less_than_f32s(diagonal, infinity);
            is_definite = simd.select_f32s(above, is_definite, zero);
            is_definite = simd.select_f32s(finite, is_definite, zero);
            let inverse = simd.div_f32s(one, simd.sqrt_f32s(diagonal));
            line[pivot] = inverse;
            for cell in &mut line[pivot + 1..] {
                *cell = simd.mul_f32s(*cell, inverse);
            }
            for (row, target) in (pivot + 1..).zip(below.chunks_exact_mut(width)) {
                let scale = line[row];
                for (cell, &value) in target[row..].iter_mut().zip(&line[row..]) {
                    *cell = simd.negate_mul_add_e_f32s(scale, value, *cell);
                }
            }
        }
    }
    is_definite
}

/// Takes what the rows of U that are done say off the group of rows from `row` on: `W` columns of
/// them.
#[inline(always)]
fn take_off<S: Simd, const W: usize>(
    simd: S,
    done: &[S::f32s],
    width: usize,
    row: usize,
    column: usize,
    lines: &mut [S::f32s],
) -> usize {
    #[cfg(test)]
    meter::spend(row * ROW_GROUP * W * S::F32_LANES);
    let mut sums = [[simd.splat_f32s(0.0); W]; ROW_GROUP];
    for (sums, line) in sums.iter_mut().zip(lines.chunks_exact(width)) {
        sums.copy_from_slice(&line[column..column + W]);
    }
    for line in done.chunks_exact(width) {
        let right = &line[column..column + W];
        let left = &line[row..row + ROW_GROUP];
        for (sums, &left) in sums.iter_mut().zip(left) {
            for (sum, &right) in sums.iter_mut().zip(right) {
                *sum = simd.negate_mul_add_e_f32s(left, right, *sum);
            }
        }
    }
    for (line, sums) in lines.chunks_exact_mut(width).zip(&sums) {
        line[column..column + W].copy_from_slice(sums);
    }
    W
}

/// Solves U·x = U⁻ᵀb.
#[inline(always)]
fn substitute<S: Simd>(simd: S, cells: &[S::f32s], order: usize, solution: &mut [S::f32s]) {
    let zero = simd.splat_f32s(0.0);
    for (row, line) in cells.chunks_exact(order + 1).enumerate().rev() {
        // A column counts towards the sum of its place among four, whatever the order.
        let mut sums = [line[order], zero, zero, zero];
        let whole = (row + 1).next_multiple_of(4);
        for (&upper, &known) in line[row + 1..whole].iter().zip(&solution[row + 1..whole]) {
            sums[0] = simd.negate_mul_add_e_f32s(upper, known, sums[0]);
        }
        let (upper, known) = (&line[whole..order], &solution[whole..order]);
        for (upper, known) in upper.as_chunks::<4>().0.iter().zip(known.as_chunks::<4>().0) {
            for ((sum, &upper), &known) in sums.iter_mut().zip(upper).zip(known) {
                *sum = simd.negate_mul_add_e_f32s(upper, known, *sum);
            }
        }
        let [a, b, c, d] = sums;
        let sum = simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d));
        solution[row] = simd.mul_f32s(sum, line[row]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;
    use pulp::{Arch, WithSimd};

    use super::super::super::random::mix;
    use super::super::cholesky;
    use super::*;

    /// M = I + ZᵀZ in lines of `size` values, and b.
    #[derive(Debug, Clone)]
    struct System {
        size: usize,
        matrix: Vec<f32>,
        right: Vec<f32>,
    }

    fn system(size: usize, seed: u64) -> System {
        let mut state = mix(seed);
        let mut draw = || {
            state = mix(state);
            (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
        };
        let rows: Vec<Vec<f32>> = (0..size).map(|_| (0..size).map(|_| draw()).collect()).collect();
        let mut matrix = vec![0.0; size * size];
        for (at, cell) in matrix.iter_mut().enumerate() {
            let (i, j) = (at / size, at % size);
            *cell = rows.iter().map(|row| row[i] * row[j]).sum::<f32>();
            *cell += if i == j { 1.0 } else { 0.0 };
        }
        System { size, matrix, right: (0..size).map(|_| draw()).collect() }
    }

    /// Solutions of systems that share batches of an order, as many as there are lanes.
    struct Together<'a> {
        systems: &'a [System],
        order: usize,
    }

    impl WithSimd for Together<'_> {
        type Output = Vec<Option<Vec<f32>>>;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let mut batch = Interleaved::default();
            let mut found = vec![];
            for some in self.systems.chunks(S::F32_LANES) {
                batch.begin::<S>(self.order);
                for (lane, system) in some.iter().enumerate() {
                    let System { size, matrix, right } = system;
                    batch.put::<S>(lane, matrix, *size, *size, right);
                }
                batch.solve(simd);
                for (lane, system) in some.iter().enumerate() {
                    let mut solution = vec![0.0; system.size];
                    found.push(batch.solution::<S>(lane, &mut solution).then_some(solution));
                }
            }
            found
        }
    }

    fn together(systems: &[System], order: usize) -> Vec<Option<Vec<f32>>> {
        Arch::new().dispatch(Together { systems, order })
    }

    /// The solution by the method for large systems.
    struct Alone<'a>(&'a System);

    impl WithSimd for Alone<'_> {
        type Output = Option<Vec<f32>>;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let System { size, matrix, right } = self.0;
            let stride = size.next_multiple_of(16);
            let mut wide = Aligned::zeros(stride * stride);
            // What lies below the diagonal does not count.
            wide.fill(f32::NAN);
            for row in 0..stride {
                wide[row * stride + row..(row + 1) * stride].fill(0.0);
                wide[row * stride + row] = 1.0;
                if row < *size {
                    let line = &matrix[row * size + row..(row + 1) * size];
                    wide[row * stride + row..row * stride + size].copy_from_slice(line);
                }
            }
            let (mut b, mut x) = (Aligned::zeros(stride), Aligned::zeros(stride));
            b[..*size].copy_from_slice(right);
            let never = AtomicBool::new(false);
            cholesky::factor(simd, &mut wide, stride, stride, &never)?;
            cholesky::substitute(simd, &wide, stride, stride, &mut b, &mut x);
            Some(x[..*size].to_vec())
        }
    }

    fn alone(system: &System) -> Option<Vec<f32>> {
        Arch::new().dispatch(Alone(system))
    }

    /// The largest |M·x − b| relative to |M|·|x| + |b|, cell by cell.
    fn residual(system: &System, x: &[f32]) -> f64 {
        let lines = system.matrix.chunks_exact(system.size).zip(&system.right);
        let far = lines.map(|(line, &b)| {
            let terms = || line.iter().zip(x).map(|(&m, &x)| f64::from(m) * f64::from(x));
            let size = terms().map(f64::abs).sum::<f64>() + f64::from(b).abs();
            (terms().sum::<f64>() - f64::from(b)).abs() / size.max(f64::MIN_POSITIVE)
        });
        far.fold(0.0, f64::max)
    }

    #[test]
    fn systems_alone_solve_their_equations_of_any_order() {
        for size in [1, 2, 5, 15, 16, 17, 33, 64, 90] {
            let system = system(size, size as u64);
            let found = alone(&system).unwrap();
            assert!(residual(&system, &found) < 1e-4, "{size}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 24,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn systems_together_solve_their_equations_and_equal_those_alone(
            sizes in prop::collection::vec(1_usize..40, 1..20),
            seed in 0_u64..1 << 60,
        ) {
            let systems: Vec<System> =
                sizes.iter().zip(seed..).map(|(&size, seed)| system(size, seed)).collect();
            let found = together(&systems, 40);
            prop_assert_eq!(found.len(), systems.len());
            for (system, found) in systems.iter().zip(found) {
                let found = found.unwrap();
                prop_assert!(residual(system, &found) < 1e-4);
                let expected = alone(system).unwrap();
                let far = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
                let most = expected.iter().fold(1.0, |most: f32, x| most.max(x.abs()));
                prop_assert!(far.fold(0.0, f32::max) < 1e-3 * most);
            }
        }

        #[test]
        fn a_solution_is_the_same_in_any_company(
            sizes in prop::collection::vec(1_usize..24, 1..20),
            seed in 0_u64..1 << 60,
        ) {
            let systems: Vec<System> =
                sizes.iter().zip(seed..).map(|(&size, seed)| system(size, seed)).collect();
            let found = together(&systems, 24);
            let mut turned = systems.clone();
            turned.reverse();
            let mut of_turned = together(&turned, 32);
            of_turned.reverse();
            prop_assert_eq!(&found, &of_turned);
            for (system, found) in systems.iter().zip(&found) {
                let order = system.size.next_multiple_of(ROW_GROUP);
                let own = together(std::slice::from_ref(system), order);
                prop_assert_eq!(own.first(), Some(found));
            }
        }
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_told_of_and_harms_no_other() {
        let systems: Vec<System> = (0..9).map(|seed| system(11, seed)).collect();
        let expected = together(&systems, 12);
        assert!(expected.iter().all(Option::is_some));
        for bad in [-1.0, 0.0, f32::NAN, f32::INFINITY] {
            let mut some = systems.clone();
            some[4].matrix[5 * 11 + 5] = bad;
            let found = together(&some, 12);
            assert_eq!(found[4], None, "{bad}");
            assert_eq!(alone(&some[4]), None, "{bad}");
            for other in (0..9).filter(|&other| other != 4) {
                assert_eq!(found[other], expected[other], "{bad}");
            }
        }
    }

    #[test]
    fn a_pivot_that_is_mostly_rounding_counts_as_lost() {
        // The second pivot is this share of its diagonal cell.
        for (share, is_definite) in [(1e-6, false), (1e-3, true)] {
            let cell = 1e10;
            let matrix = vec![cell, cell, cell, cell * (1.0 + share)];
            let near = System { size: 2, matrix, right: vec![1.0, -1.0] };
            let some = [system(7, 1), near.clone(), system(3, 2)];
            let found = together(&some, 8);
            assert_eq!(found[1].is_some(), is_definite, "{share}");
            assert!(found[0].is_some() && found[2].is_some());
            assert_eq!(alone(&near).is_some(), is_definite, "{share}");
        }
    }
}
