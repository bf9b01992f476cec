//! Eigenvalues and eigenvectors of a symmetric matrix in `f64`.
//!
//! Householder tridiagonalization followed by the implicit QL algorithm with Wilkinson's shift
//! (Golub and Van Loan, *Matrix Computations*, §8.3). Vectors are kept as rows, so that both
//! reflections and rotations run over contiguous memory.

use std::sync::atomic::{AtomicBool, Ordering};

use pulp::Arch;

/// Diagonalizes the symmetric `matrix` (`size`² values, row-major): returns the eigenvalues and,
/// row by row, the orthonormal eigenvectors. The order of eigenvalues is unspecified.
pub fn symmetric_eigen(matrix: &[f64], size: usize) -> (Vec<f64>, Vec<f64>) {
    eigen_unless(matrix, size, &AtomicBool::new(false)).unwrap_or_default()
}

/// [`symmetric_eigen`] that gives up, with `None`, once the flag is set. It looks at it every
/// 4 · `size`² multiplications.
pub fn eigen_unless(
    matrix: &[f64],
    size: usize,
    cancel: &AtomicBool,
) -> Option<(Vec<f64>, Vec<f64>)> {
    if size == 0 {
        return Some((vec![], vec![]));
    }
    // The closure's loops are compiled for the processor at hand.
    Arch::new().dispatch(|| {
        let mut work = matrix.to_vec();
        let (mut diagonal, mut off, mut vectors) = tridiagonalize(&mut work, size, cancel)?;
        diagonalize(&mut diagonal, &mut off, &mut vectors, size, cancel)?;
        Some((diagonal, vectors))
    })
}

fn go_on(cancel: &AtomicBool) -> Option<()> {
    (!cancel.load(Ordering::Relaxed)).then_some(())
}

/// Diagonal, off-diagonal (`off[i]` couples i and i + 1) and transposed transformation.
type Tridiagonal = (Vec<f64>, Vec<f64>, Vec<f64>);

/// Reduces to tridiagonal form.
#[inline(always)]
fn tridiagonalize(a: &mut [f64], n: usize, cancel: &AtomicBool) -> Option<Tridiagonal> {
    let mut vectors = vec![0.0; n * n];
    for i in 0..n {
        vectors[i * n + i] = 1.0;
    }
    let mut off = vec![0.0; n];
    let mut v = vec![0.0; n];
    let mut w = vec![0.0; n];
    for k in 0..n.saturating_sub(1) {
        go_on(cancel)?;
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
        reflect_rows(&mut vectors, n, k + 1, &v, &mut w, beta);
        off[k] = alpha;
    }
    let diagonal = (0..n).map(|i| a[i * n + i]).collect();
    Some((diagonal, off, vectors))
}

/// Sum of products in sixteen lanes, which one running sum would not let run side by side.
#[inline(always)]
fn inner(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0_f64; 16];
    let (a_groups, a_rest) = a.as_chunks::<16>();
    let (b_groups, b_rest) = b.as_chunks::<16>();
    for (a, b) in a_groups.iter().zip(b_groups) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f64>() + rest
}

/// `A = H·A·H` on the trailing block that starts at `from`, with `H = I − β·v·vᵀ`.
#[inline(always)]
fn reflect_both_sides(a: &mut [f64], n: usize, from: usize, v: &[f64], w: &mut [f64], beta: f64) {
    for row in from..n {
        w[row] = beta * inner(&a[row * n + from..(row + 1) * n], &v[from..]);
    }
    let projection = inner(&w[from..], &v[from..]);
    for (w, v) in w[from..].iter_mut().zip(&v[from..]) {
        *w -= 0.5 * beta * projection * v;
    }
    for row in from..n {
        let (v_row, w_row) = (v[row], w[row]);
        let line = &mut a[row * n + from..(row + 1) * n];
        for ((a, v), w) in line.iter_mut().zip(&v[from..]).zip(&w[from..]) {
            *a -= v_row * w + w_row * v;
        }
    }
}

/// `M = H·M` for the rows from `from` on.
#[inline(always)]
fn reflect_rows(m: &mut [f64], n: usize, from: usize, v: &[f64], w: &mut [f64], beta: f64) {
    w.fill(0.0);
    for row in from..n {
        for (w, m) in w.iter_mut().zip(&m[row * n..(row + 1) * n]) {
            *w += v[row] * m;
        }
    }
    for row in from..n {
        let scale = beta * v[row];
        for (m, w) in m[row * n..(row + 1) * n].iter_mut().zip(&*w) {
            *m -= scale * w;
        }
    }
}

/// Implicit QL on a tridiagonal matrix; rotations are applied to neighbouring rows of `vectors`.
#[inline(always)]
fn diagonalize(
    d: &mut [f64],
    e: &mut [f64],
    vectors: &mut [f64],
    n: usize,
    cancel: &AtomicBool,
) -> Option<()> {
    for l in 0..n {
        go_on(cancel)?;
        // Each eigenvalue takes two or three sweeps; the limit only guards against NaN.
        for _ in 0..100 {
            let m = (l..n - 1)
                .find(|&m| e[m].abs() <= f64::EPSILON * (d[m].abs() + d[m + 1].abs()))
                .unwrap_or(n - 1);
            if m == l {
                break;
            }
            sweep(d, e, vectors, n, l, m);
        }
    }
    Some(())
}

/// One implicit QL sweep over the unreduced block `l..=m`.
#[inline(always)]
fn sweep(d: &mut [f64], e: &mut [f64], vectors: &mut [f64], n: usize, l: usize, m: usize) {
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
        let (upper, lower) = vectors[i * n..(i + 2) * n].split_at_mut(n);
        for (a, b) in upper.iter_mut().zip(lower) {
            let (x, y) = (*a, *b);
            *b = sine * x + cosine * y;
            *a = cosine * x - sine * y;
        }
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
    fn a_set_flag_stops_it() {
        assert_eq!(eigen_unless(&[2.0, 1.0, 1.0, 2.0], 2, &AtomicBool::new(true)), None);
    }

    #[test]
    fn known_eigenvalues_are_found() {
        let (mut values, _) = symmetric_eigen(&[2.0, 1.0, 1.0, 2.0], 2);
        values.sort_by(f64::total_cmp);
        assert!((values[0] - 1.0).abs() < 1e-14 && (values[1] - 3.0).abs() < 1e-14);
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
