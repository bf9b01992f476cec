//! The leading eigenvectors of a large positive semidefinite matrix.
//!
//! A random block is multiplied by the matrix, made orthonormal and turned into the best basis
//! within itself, again and again (randomized range finder with subspace iteration: Halko,
//! Martinsson and Tropp 2011, algorithm 4.4, with Rayleigh and Ritz's step), until the leading
//! eigenvalues stand still. The block is larger than what is asked for, which makes it converge
//! by the ratio of eigenvalues far apart.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::super::als::eigen::eigen_unless;
use super::super::cancel;
use super::super::dense::{Left, Part, Right, add_products, stride};
use super::super::error::ModelError;
use crate::model::random::mix;

/// Columns multiplied together: packed, a tile of them stays in the cache.
const DEPTH: usize = 256;
/// Iterations at most.
const MAX_ITERATIONS: usize = 300;
/// Eigenvalues stand still when they change by less than this share of the largest.
const TOLERANCE: f64 = 1e-12;

/// Rows of the block that finds `count` of `size` eigenvectors.
pub(super) fn block_rows(count: usize, size: usize) -> usize {
    (count + (count / 2).max(16)).min(size)
}

/// The `count` largest eigenvalues of the symmetric `matrix` (`size`² values), in descending
/// order, and row by row their orthonormal eigenvectors.
pub(super) fn leading_eigen(
    matrix: &[f64],
    size: usize,
    count: usize,
    seed: u64,
    cancel: &AtomicBool,
) -> Result<(Vec<f64>, Vec<f64>), ModelError> {
    let rows = block_rows(count, size);
    let packed: Vec<Left> = (0..size)
        .step_by(DEPTH)
        .take_while(|_| !cancel::is_set(cancel))
        .map(|first| {
            let depth = DEPTH.min(size - first);
            Left::pack(size, depth, |row, k| matrix[row * size + first + k])
        })
        .collect();
    let mut basis: Vec<f64> = (0..rows * size)
        .map(|at| (mix(mix(seed) ^ at as u64) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5)
        .collect();
    orthonormalize(&mut basis, size, cancel);
    let mut last = vec![f64::INFINITY; count];
    for _ in 0..MAX_ITERATIONS {
        let product = times_matrix(&packed, &basis, size, cancel);
        let small = inner_products(&basis, &product, size, cancel);
        let found = eigen_unless(&small, rows, cancel);
        let (values, vectors) = found.ok_or(ModelError::Cancelled)?;
        let mut order: Vec<usize> = (0..rows).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let found: Vec<f64> = order[..count].iter().map(|&at| values[at]).collect();
        let scale = TOLERANCE * found[0].abs();
        let stands = found.iter().zip(&last).all(|(a, b)| (a - b).abs() <= scale);
        // Rotating the product instead of the basis is the next power for free.
        let source = if stands { &basis } else { &product };
        basis = rotated(source, &vectors, &order, size, cancel);
        if stands {
            cancel::check(cancel)?;
            basis.truncate(count * size);
            return Ok((found, basis));
        }
        orthonormalize(&mut basis, size, cancel);
        last = found;
    }
    cancel::check(cancel)?;
    last.truncate(count);
    basis.truncate(count * size);
    Ok((last, basis))
}

/// The rows of `basis`, each multiplied by the matrix.
fn times_matrix(packed: &[Left], basis: &[f64], size: usize, cancel: &AtomicBool) -> Vec<f64> {
    let rows = basis.len() / size;
    let wide = stride(rows);
    let mut product = vec![0.0; size * wide];
    for (index, left) in packed.iter().enumerate() {
        let first = index * DEPTH;
        let depth = DEPTH.min(size - first);
        let right = Right::pack(rows, depth, |row, k| basis[row * size + first + k]);
        add_products(&mut product, wide, left, &right, Part::Full, cancel);
    }
    let mut transposed = vec![0.0; rows * size];
    transposed.par_chunks_mut(size).enumerate().for_each(|(row, line)| {
        for (cell, product) in line.iter_mut().zip(product.chunks_exact(wide)) {
            *cell = product[row];
        }
    });
    transposed
}

/// All inner products of rows of `a` with rows of `b`, made symmetric. As of what follows, some are
/// left undone once the flag is set: the caller looks at it.
fn inner_products(a: &[f64], b: &[f64], size: usize, cancel: &AtomicBool) -> Vec<f64> {
    let rows = a.len() / size;
    let mut products = vec![0.0; rows * rows];
    products.par_chunks_mut(rows).zip(a.par_chunks(size)).for_each(|(line, a)| {
        for (cell, b) in line.iter_mut().zip(b.chunks_exact(size)) {
            if cancel::is_set(cancel) {
                return;
            }
            *cell = a.iter().zip(b).map(|(a, b)| a * b).sum();
        }
    });
    for row in 0..rows {
        for column in 0..row {
            let mean = 0.5 * (products[row * rows + column] + products[column * rows + row]);
            products[row * rows + column] = mean;
            products[column * rows + row] = mean;
        }
    }
    products
}

/// Row `i` is Σ over j of `vectors[order[i]][j]` · row j.
fn rotated(
    rows: &[f64],
    vectors: &[f64],
    order: &[usize],
    size: usize,
    cancel: &AtomicBool,
) -> Vec<f64> {
    let count = order.len();
    let mut rotated = vec![0.0; rows.len()];
    rotated.par_chunks_mut(size).zip(order).for_each(|(out, &vector)| {
        let vector = &vectors[vector * count..(vector + 1) * count];
        for (&factor, row) in vector.iter().zip(rows.chunks_exact(size)) {
            if cancel::is_set(cancel) {
                return;
            }
            out.iter_mut().zip(row).for_each(|(out, x)| *out += factor * x);
        }
    });
    rotated
}

/// Gram and Schmidt's way, each row twice; a row that depends on those before it becomes zero.
fn orthonormalize(rows: &mut [f64], size: usize, cancel: &AtomicBool) {
    for index in 0..rows.len() / size {
        let (before, rest) = rows.split_at_mut(index * size);
        let row = &mut rest[..size];
        let length = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
        let start = length(row);
        for _ in 0..2 {
            for other in before.chunks_exact(size) {
                if cancel::is_set(cancel) {
                    return;
                }
                let product: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                row.iter_mut().zip(other).for_each(|(a, b)| *a -= product * b);
            }
        }
        let rest = length(row);
        let factor = if rest > 1e-13 * start { 1.0 / rest } else { 0.0 };
        row.iter_mut().for_each(|x| *x *= factor);
    }
}
