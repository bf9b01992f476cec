//! Eigenvalues and eigenvectors of a symmetric matrix in `f64`.
//!
//! Householder tridiagonalization followed by the implicit QL algorithm with Wilkinson's shift
//! (Golub and Van Loan, *Matrix Computations*, §8.3). Vectors are kept as rows, cut into blocks of
//! columns: reflections and rotations treat every column alike, so a block stays in the cache
//! while a whole sweep passes, and large matrices share their blocks between threads. Every
//! number is computed in one order, whatever the number of threads.

use std::sync::atomic::{AtomicBool, Ordering};

use pulp::Arch;
use rayon::prelude::*;

/// Columns of the vectors that are rotated together.
const BLOCK: usize = 32;
/// Smaller matrices are not worth a second thread.
const SHARED_SIZE: usize = 256;

/// Diagonalizes the symmetric `matrix` (`size`² values, row-major): returns the eigenvalues and,
/// row by row, the orthonormal eigenvectors. The order of eigenvalues is unspecified.
pub fn symmetric_eigen(matrix: &[f64], size: usize) -> (Vec<f64>, Vec<f64>) {
    eigen_unless(matrix, size, &AtomicBool::new(false)).unwrap_or_default()
}

/// [`symmetric_eigen`] that gives up, with `None`, once `cancel` is set.
pub fn eigen_unless(
    matrix: &[f64],
    size: usize,
    cancel: &AtomicBool,
) -> Option<(Vec<f64>, Vec<f64>)> {
    if size == 0 {
        return Some((vec![], vec![]));
    }
    let mut work = matrix.to_vec();
    let mut vectors = Vectors::identity(size);
    let (mut diagonal, mut off) = tridiagonalize(&mut work, &mut vectors, cancel);
    diagonalize(&mut diagonal, &mut off, &mut vectors, cancel);
    (!cancel.load(Ordering::Relaxed)).then(|| (diagonal, vectors.rows()))
}

/// The transposed transformation: `size` rows, in blocks of [`BLOCK`] columns.
struct Vectors {
    size: usize,
    blocks: Vec<Vec<[f64; BLOCK]>>,
}

/// Turns rows `row` and `row + 1` of a plane.
#[derive(Clone, Copy)]
struct Rotation {
    row: usize,
    cosine: f64,
    sine: f64,
}

impl Vectors {
    fn identity(size: usize) -> Self {
        let mut blocks = vec![vec![[0.0; BLOCK]; size]; size.div_ceil(BLOCK)];
        for row in 0..size {
            blocks[row / BLOCK][row][row % BLOCK] = 1.0;
        }
        Self { size, blocks }
    }

    fn for_blocks(&mut self, work: impl Fn(&mut [[f64; BLOCK]]) + Sync) {
        let dispatched = |block: &mut Vec<[f64; BLOCK]>| Arch::new().dispatch(|| work(block));
        if self.size < SHARED_SIZE {
            self.blocks.iter_mut().for_each(dispatched);
        } else {
            self.blocks.par_iter_mut().for_each(dispatched);
        }
    }

    /// `M = (I − β·v·vᵀ)·M` for the rows from `from` on.
    fn reflect(&mut self, from: usize, v: &[f64], beta: f64) {
        self.for_blocks(
            #[inline(always)]
            |block| {
                let mut sums = [0.0; BLOCK];
                for (row, v) in block[from..].iter().zip(&v[from..]) {
                    for (sum, x) in sums.iter_mut().zip(row) {
                        *sum += v * x;
                    }
                }
                for (row, v) in block[from..].iter_mut().zip(&v[from..]) {
                    let scale = beta * v;
                    for (x, sum) in row.iter_mut().zip(&sums) {
                        *x -= scale * sum;
                    }
                }
            },
        );
    }

    fn rotate(&mut self, rotations: &[Rotation]) {
        self.for_blocks(
            #[inline(always)]
            |block| {
                for &Rotation { row, cosine, sine } in rotations {
                    let (upper, lower) = block[row..row + 2].split_at_mut(1);
                    for (a, b) in upper[0].iter_mut().zip(&mut lower[0]) {
                        let (x, y) = (*a, *b);
                        *b = sine * x + cosine * y;
                        *a = cosine * x - sine * y;
                    }
                }
            },
        );
    }

    fn rows(&self) -> Vec<f64> {
        let mut rows = Vec::with_capacity(self.size * self.size);
        for row in 0..self.size {
            for (index, block) in self.blocks.iter().enumerate() {
                rows.extend_from_slice(&block[row][..BLOCK.min(self.size - index * BLOCK)]);
            }
        }
        rows
    }
}

/// Reduces to tridiagonal form: diagonal and off-diagonal (`off[i]` couples i and i + 1).
fn tridiagonalize(
    a: &mut [f64],
    vectors: &mut Vectors,
    cancel: &AtomicBool,
) -> (Vec<f64>, Vec<f64>) {
    let n = vectors.size;
    let mut off = vec![0.0; n];
    let mut v = vec![0.0; n];
    let mut w = vec![0.0; n];
    for k in 0..n.saturating_sub(1) {
        if cancel.load(Ordering::Relaxed) {
            break;
        }
        let column: Vec<f64> = (k + 1..n).map(|row| a[row * n + k]).collect();
        let norm = column.iter().map(|x| x * x).sum::<f64>().sqrt();
        let rest: f64 = column.iter().skip(1).map(|x| x * x).sum();
        if rest == 0.0 {
            off[k] = column[0];
            continue;
        }
        let alpha = if column[0] > 0.0 { -norm } else { norm };
        v[k + 1..].copy_from_slice(&column);
        v[k + 1] -= alpha;
        let beta = 2.0 / v[k + 1..].iter().map(|x| x * x).sum::<f64>();
        reflect_both_sides(a, n, k + 1, &v, &mut w, beta);
        vectors.reflect(k + 1, &v, beta);
        off[k] = alpha;
    }
    let diagonal = (0..n).map(|i| a[i * n + i]).collect();
    (diagonal, off)
}

/// `A = H·A·H` on the trailing block that starts at `from`, with `H = I − β·v·vᵀ`.
fn reflect_both_sides(a: &mut [f64], n: usize, from: usize, v: &[f64], w: &mut [f64], beta: f64) {
    let product = |(w, line): (&mut f64, &[f64])| *w = beta * dot(&line[from..], &v[from..]);
    let lines = &a[from * n..];
    if n - from < SHARED_SIZE {
        w[from..].iter_mut().zip(lines.chunks_exact(n)).for_each(product);
    } else {
        w[from..].par_iter_mut().zip(lines.par_chunks_exact(n)).with_min_len(32).for_each(product);
    }
    let projection: f64 = w[from..].iter().zip(&v[from..]).map(|(w, v)| w * v).sum();
    for (w, v) in w[from..].iter_mut().zip(&v[from..]) {
        *w -= 0.5 * beta * projection * v;
    }
    let w = &*w;
    let update = |(row, line): (usize, &mut [f64])| {
        let (v_row, w_row) = (v[from + row], w[from + row]);
        for ((a, v), w) in line[from..].iter_mut().zip(&v[from..]).zip(&w[from..]) {
            *a -= v_row * w + w_row * v;
        }
    };
    let lines = &mut a[from * n..];
    if n - from < SHARED_SIZE {
        lines.chunks_exact_mut(n).enumerate().for_each(update);
    } else {
        lines.par_chunks_exact_mut(n).enumerate().with_min_len(32).for_each(update);
    }
}

/// Sum of products in eight strands.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (chunks, rest) = a.as_chunks::<8>();
    let (other_chunks, other_rest) = b.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for (a, b) in chunks.iter().zip(other_chunks) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let tail: f64 = rest.iter().zip(other_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + tail
}

/// Implicit QL on a tridiagonal matrix; rotations are applied to neighbouring rows of `vectors`.
fn diagonalize(d: &mut [f64], e: &mut [f64], vectors: &mut Vectors, cancel: &AtomicBool) {
    let n = d.len();
    let mut rotations = Vec::with_capacity(n);
    for l in 0..n {
        // Each eigenvalue takes two or three sweeps; the limit only guards against NaN.
        for _ in 0..100 {
            if cancel.load(Ordering::Relaxed) {
                return;
            }
            let m = (l..n - 1)
                .find(|&m| e[m].abs() <= f64::EPSILON * (d[m].abs() + d[m + 1].abs()))
                .unwrap_or(n - 1);
            if m == l {
                break;
            }
            rotations.clear();
            sweep(d, e, &mut rotations, l, m);
            vectors.rotate(&rotations);
        }
    }
}

/// One implicit QL sweep over the unreduced block `l..=m`; its rotations are collected.
fn sweep(d: &mut [f64], e: &mut [f64], rotations: &mut Vec<Rotation>, l: usize, m: usize) {
    let mut g = (d[l + 1] - d[l]) / (2.0 * e[l]);
    let r = g.hypot(1.0);
    g = d[m] - d[l] + e[l] / (g + r.copysign(g));
    let (mut sine, mut cosine, mut p) = (1.0, 1.0, 0.0);
    for i in (l..m).rev() {
        let f = sine * e[i];
        let b = cosine * e[i];
        let r = f.hypot(g);
        e[i + 1] = r;
        if r == 0.0 {
            d[i + 1] -= p;
            e[m] = 0.0;
            return;
        }
        sine = f / r;
        cosine = g / r;
        g = d[i + 1] - p;
        let r = (d[i] - g) * sine + 2.0 * cosine * b;
        p = sine * r;
        d[i + 1] = g + p;
        g = cosine * r - b;
        rotations.push(Rotation { row: i, cosine, sine });
    }
    d[l] -= p;
    e[l] = g;
    e[m] = 0.0;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(matrix: &[f64], n: usize) {
        let (values, vectors) = symmetric_eigen(matrix, n);
        let scale = matrix.iter().fold(1.0_f64, |max, x| max.max(x.abs())) * n as f64;
        for i in 0..n {
            for j in 0..n {
                let (a, b) = (&vectors[i * n..(i + 1) * n], &vectors[j * n..(j + 1) * n]);
                let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((product - expected).abs() < 1e-12 * n as f64, "{i} {j} {product}");
                let rebuilt: f64 =
                    (0..n).map(|k| values[k] * vectors[k * n + i] * vectors[k * n + j]).sum();
                assert!((rebuilt - matrix[i * n + j]).abs() < 1e-12 * scale);
            }
        }
    }

    #[test]
    fn degenerate_matrices_are_diagonalized() {
        check(&[0.0; 9], 3);
        check(&[5.0], 1);
        check(&[1.0; 25], 5);
        check(&[2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, -1.0], 3);
        assert_eq!(symmetric_eigen(&[], 0), (vec![], vec![]));
    }

    #[test]
    fn known_eigenvalues_are_found() {
        let (mut values, _) = symmetric_eigen(&[2.0, 1.0, 1.0, 2.0], 2);
        values.sort_by(f64::total_cmp);
        assert!((values[0] - 1.0).abs() < 1e-14 && (values[1] - 3.0).abs() < 1e-14);
    }

    #[test]
    fn large_matrices_are_diagonalized_alike_on_any_number_of_threads() {
        let n = SHARED_SIZE + 9;
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..=i {
                let cell = ((i * 31 + j * 17) % 23) as f64 - 11.0;
                matrix[i * n + j] = cell;
                matrix[j * n + i] = cell;
            }
        }
        check(&matrix, n);
        let four = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let expected = alone.install(|| symmetric_eigen(&matrix, n));
        assert_eq!(four.install(|| symmetric_eigen(&matrix, n)), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 48,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn vectors_are_orthonormal_and_rebuild_the_matrix(
            n in 1_usize..24, cells in prop::collection::vec(-5.0_f64..5.0, 24 * 24)
        ) {
            let mut matrix = vec![0.0; n * n];
            for i in 0..n {
                for j in 0..=i {
                    matrix[i * n + j] = cells[i * 24 + j];
                    matrix[j * n + i] = cells[i * 24 + j];
                }
            }
            check(&matrix, n);
        }
    }
}
