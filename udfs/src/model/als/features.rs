//! Side features: what is known of users and items beside their interactions.
//!
//! With features f of a row, its factors are drawn to a linear map of them instead of to 0: the
//! penalty λ·|x|² of a row becomes λ·|x − Wᵀf|², and γ·|W|² is added, for each side on its own. So
//! the normal equations' right side gains λ·Wᵀf, and after each half step W is fitted to the new
//! factors, a ridge regression weighted by the rows' λ:
//!
//! ```text
//! (FᵀΛF + γI)·W = FᵀΛX
//! ```
//!
//! Both steps minimize the same objective, which therefore never rises. A row without any
//! interaction takes no part in it (its unobserved cells say nothing) and has the factors Wᵀf; a
//! bias is one more column of W. There is no intercept: add a feature that is 1 in every row to
//! have one. The same idea as feature-aware iALS (irspack) and as the feature-based priors of
//! Agarwal and Chen 2009.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::super::cancel;
use super::super::error::ModelError;
use super::super::foldin::UserVector;
use super::super::kernel::Aligned;
use super::super::sparse::{Csr, csr_bytes};
use super::options::AlsOptions;

/// Features of a side at most: FᵀΛF is dense and is factored once a training.
pub const MAX_FEATURES: usize = 4096;
/// Rows whose penalties are added before they are added to the total, for the same sum on any
/// number of threads; also rows between two looks at the cancel flag.
const CHUNK_ROWS: usize = 4096;
/// Rows whose features are read between two looks at the cancel flag.
const ROWS_PER_LOOK: usize = 1024;
/// Columns of W solved together.
const PANEL: usize = 16;

/// The learned map from one side's features to its factors (and bias).
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureMap {
    /// Length of a factor vector.
    pub num_factors: usize,
    /// `features × num_factors` values, row-major.
    pub weights: Vec<f32>,
    /// One value a feature, empty without biases.
    pub bias: Vec<f32>,
    /// Whether factors below 0 are raised to it.
    pub non_negative: bool,
}

impl FeatureMap {
    /// Number of features.
    pub fn features(&self) -> usize {
        self.weights.len() / self.num_factors.max(1)
    }

    /// Factors and bias of a row without interactions, from its features; features that training
    /// did not know are passed over. All zeros for a row without features.
    pub fn vector(&self, columns: &[u32], values: &[f32]) -> UserVector {
        let mut vector = self.prior_mean(columns, values);
        if self.non_negative {
            vector.factors.iter_mut().for_each(|value| *value = value.max(0.0));
        }
        vector
    }

    /// Wᵀf: what a row with interactions is drawn to, see
    /// [`ItemSide::fold_in`](crate::model::foldin::ItemSide::fold_in).
    pub fn prior_mean(&self, columns: &[u32], values: &[f32]) -> UserVector {
        let mut factors = vec![0.0_f64; self.num_factors];
        let mut bias = 0.0;
        for (&column, &value) in columns.iter().zip(values) {
            let start = column as usize * self.num_factors;
            let Some(line) = self.weights.get(start..start + self.num_factors) else { continue };
            for (sum, &weight) in factors.iter_mut().zip(line) {
                *sum += f64::from(value) * f64::from(weight);
            }
            let weight = self.bias.get(column as usize).copied().unwrap_or(0.0);
            bias += f64::from(value) * f64::from(weight);
        }
        let factors = factors.into_iter().map(|value| value as f32).collect();
        UserVector { factors, bias: bias as f32 }
    }
}

/// What of a side's shape the prior needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) size: usize,
    pub(super) stride: usize,
    /// Whether coordinate `size` is the bias.
    pub(super) biased: bool,
}

/// One side's features and map while training, in the order of the side's positions.
pub(super) struct Prior {
    features: Csr,
    by_feature: Csr,
    /// λ of each row that has interactions; these rows come first.
    lambda: Vec<f32>,
    /// Upper Cholesky factor of FᵀΛF + γI.
    factor: Vec<f64>,
    gamma: f64,
    /// W, rows of `stride`, in the same basis as the factors.
    pub(super) weights: Aligned,
    shape: Shape,
}

impl Prior {
    /// Prepares the fit: `features` by code, `codes` by position, λ by position for rows with
    /// interactions, and γ in units of the mean λ.
    ///
    /// # Errors
    /// [`ModelError::Cancelled`] once the flag is set.
    pub(super) fn new(
        features: &Csr,
        codes: &[u32],
        lambda: Vec<f32>,
        feature_reg: f64,
        shape: Shape,
        cancel: &AtomicBool,
    ) -> Result<Self, ModelError> {
        let features = in_order(features, codes, cancel);
        let by_feature = features.transpose_unless(cancel);
        cancel::check(cancel)?;
        let mean = lambda.iter().map(|&l| f64::from(l)).sum::<f64>() / lambda.len().max(1) as f64;
        // Never 0, so that features that say the same stay solvable.
        let gamma = (feature_reg.max(1e-6) * mean).max(1e-12);
        let mut factor = weighted_gram(&features, &by_feature, &lambda, cancel);
        let count = features.columns();
        for index in 0..count {
            factor[index * count + index] += gamma;
        }
        cholesky(&mut factor, count, cancel)?;
        let weights = Aligned::zeros(count * shape.stride);
        Ok(Self { features, by_feature, lambda, factor, gamma, weights, shape })
    }

    /// Fills in the prior mean of the row at a position; false, and 0, without features.
    #[inline(always)]
    pub(super) fn mean(&self, row: usize, mean: &mut [f32]) -> bool {
        let (columns, values) = self.features.row(row);
        if columns.is_empty() {
            return false;
        }
        mean.fill(0.0);
        let stride = self.shape.stride;
        for (&column, &value) in columns.iter().zip(values) {
            let start = column as usize * stride;
            for (mean, &weight) in mean.iter_mut().zip(&self.weights[start..start + stride]) {
                *mean += value * weight;
            }
        }
        true
    }

    /// Fits the map to the side's factors; returns Σ λ·|x − Wᵀf|² + γ·|W|² with the new one.
    /// With the flag set it is wrong, and soon there: the caller looks at the flag.
    pub(super) fn fit(
        &mut self,
        factors: &[f32],
        bias: Option<&[f32]>,
        cancel: &AtomicBool,
    ) -> f64 {
        let Shape { size, stride, .. } = self.shape;
        let mut right = vec![0.0_f64; self.features.columns() * stride];
        right.par_chunks_exact_mut(stride).enumerate().for_each(|(feature, line)| {
            let (rows, values) = self.by_feature.row(feature);
            for (at, (&row, &value)) in rows.iter().zip(values).enumerate() {
                if at.is_multiple_of(CHUNK_ROWS) && cancel::is_set(cancel) {
                    return;
                }
                let row = row as usize;
                let Some(&lambda) = self.lambda.get(row) else { continue };
                let scale = f64::from(lambda) * f64::from(value);
                let x = &factors[row * stride..row * stride + size];
                for (sum, &x) in line.iter_mut().zip(x) {
                    *sum += scale * f64::from(x);
                }
                if let Some(bias) = bias {
                    line[size] += scale * f64::from(bias[row]);
                }
            }
        });
        self.solve(&right, cancel);
        self.penalty(factors, bias, cancel)
    }

    /// Solves for all columns of W.
    fn solve(&mut self, right: &[f64], cancel: &AtomicBool) {
        let stride = self.shape.stride;
        let count = self.features.columns();
        let panels: Vec<Vec<[f64; PANEL]>> = (0..stride / PANEL)
            .into_par_iter()
            .map(|panel| {
                let mut lines: Vec<[f64; PANEL]> = right
                    .chunks_exact(stride)
                    .filter_map(|line| line.as_chunks::<PANEL>().0.get(panel).copied())
                    .collect();
                substitute(&self.factor, count, &mut lines, cancel);
                lines
            })
            .collect();
        for (panel, lines) in panels.iter().enumerate() {
            for (weights, line) in self.weights.chunks_exact_mut(stride).zip(lines) {
                let weights = &mut weights[panel * PANEL..(panel + 1) * PANEL];
                weights.iter_mut().zip(line).for_each(|(to, &from)| *to = from as f32);
            }
        }
    }

    fn penalty(&self, factors: &[f32], bias: Option<&[f32]>, cancel: &AtomicBool) -> f64 {
        let Shape { size, stride, .. } = self.shape;
        let sums: Vec<f64> = self
            .lambda
            .par_chunks(CHUNK_ROWS)
            .enumerate()
            .map(|(chunk, lambda)| {
                let mut mean = vec![0.0_f32; stride];
                let mut sum = 0.0;
                let lambda: &[f32] = if cancel::is_set(cancel) { &[] } else { lambda };
                for (row, &lambda) in (chunk * CHUNK_ROWS..).zip(lambda) {
                    if !self.mean(row, &mut mean) {
                        mean.fill(0.0);
                    }
                    let x = factors[row * stride..row * stride + size].iter();
                    let far = x.zip(&mean).map(|(x, mean)| f64::from(x - mean).powi(2));
                    let far_bias = bias.map_or(0.0, |bias| f64::from(bias[row] - mean[size]));
                    sum += f64::from(lambda) * (far.sum::<f64>() + far_bias * far_bias);
                }
                sum
            })
            .collect();
        let norm: f64 = self.weights.iter().map(|&weight| f64::from(weight).powi(2)).sum();
        sums.iter().sum::<f64>() + self.gamma * norm
    }

    /// Gives the rows without interactions their factors Wᵀf, 0 where there are no features. With
    /// the flag set rows may be left out: the caller looks at the flag.
    pub(super) fn fill_cold(
        &self,
        factors: &mut [f32],
        bias: Option<&mut [f32]>,
        least: f32,
        cancel: &AtomicBool,
    ) {
        let Shape { size, stride, biased } = self.shape;
        let live = self.lambda.len();
        let mut mean = vec![0.0; stride];
        let mut biases = bias.map(|bias| bias[live..].iter_mut());
        for (row, x) in (live..).zip(factors[live * stride..].chunks_exact_mut(stride)) {
            if row.is_multiple_of(ROWS_PER_LOOK) && cancel::is_set(cancel) {
                return;
            }
            if !self.mean(row, &mut mean) {
                mean.fill(0.0);
            }
            x.iter_mut().zip(&mean).for_each(|(x, &mean)| *x = mean.max(least));
            if biased {
                x[size] = 1.0;
            }
            if let Some(bias) = biases.as_mut().and_then(Iterator::next) {
                *bias = mean[size];
            }
        }
    }

    /// The map as the caller gets it.
    pub(super) fn map(&self, non_negative: bool) -> FeatureMap {
        let Shape { size, stride, biased } = self.shape;
        let lines = self.weights.chunks_exact(stride);
        FeatureMap {
            num_factors: size,
            weights: lines.clone().flat_map(|line| &line[..size]).copied().collect(),
            bias: if biased { lines.map(|line| line[size]).collect() } else { vec![] },
            non_negative,
        }
    }
}

impl AlsOptions {
    /// Bytes of a side's features while training: rows × columns with so many cells.
    pub fn feature_bytes(&self, rows: usize, columns: usize, cells: usize) -> usize {
        let stride = self.stride();
        let fit = columns.saturating_mul(stride * (size_of::<f32>() + 2 * size_of::<f64>()));
        let square = columns.saturating_mul(columns).saturating_mul(size_of::<f64>());
        let lambda = rows * size_of::<f32>();
        (2 * csr_bytes(rows, cells)).saturating_add(square).saturating_add(fit) + lambda
    }
}

/// The rows of some codes; fewer once the flag is set.
fn in_order(features: &Csr, codes: &[u32], cancel: &AtomicBool) -> Csr {
    let mut offsets = Vec::with_capacity(codes.len() + 1);
    offsets.push(0);
    let mut columns = Vec::with_capacity(features.cells());
    let mut values = Vec::with_capacity(features.cells());
    for (row, &code) in codes.iter().enumerate() {
        if row.is_multiple_of(ROWS_PER_LOOK) && cancel::is_set(cancel) {
            break;
        }
        let (row_columns, row_values) = features.row(code as usize);
        columns.extend_from_slice(row_columns);
        values.extend_from_slice(row_values);
        offsets.push(columns.len());
    }
    Csr::from_unsorted(offsets, columns, values, features.columns())
}

/// FᵀΛF, upper triangle.
fn weighted_gram(
    features: &Csr,
    by_feature: &Csr,
    lambda: &[f32],
    cancel: &AtomicBool,
) -> Vec<f64> {
    let count = features.columns();
    let mut gram = vec![0.0; count * count];
    gram.par_chunks_exact_mut(count.max(1)).enumerate().for_each(|(feature, line)| {
        let (rows, values) = by_feature.row(feature);
        for (at, (&row, &value)) in rows.iter().zip(values).enumerate() {
            if at.is_multiple_of(ROWS_PER_LOOK) && cancel::is_set(cancel) {
                return;
            }
            let Some(&lambda) = lambda.get(row as usize) else { continue };
            let scale = f64::from(lambda) * f64::from(value);
            let (columns, others) = features.row(row as usize);
            for (&column, &other) in columns.iter().zip(others) {
                line[column as usize] += scale * f64::from(other);
            }
        }
    });
    gram
}

/// Turns the upper triangle of M into U with UᵀU = M.
fn cholesky(matrix: &mut [f64], n: usize, cancel: &AtomicBool) -> Result<(), ModelError> {
    for pivot in 0..n {
        if cancel::is_set(cancel) {
            return Err(ModelError::Cancelled);
        }
        let (done, below) = matrix.split_at_mut((pivot + 1) * n);
        let line = &mut done[pivot * n..];
        let inverse = 1.0 / line[pivot].max(f64::MIN_POSITIVE).sqrt();
        line[pivot..].iter_mut().for_each(|cell| *cell *= inverse);
        let line = &*line;
        let update = |(row, target): (usize, &mut [f64])| {
            let factor = line[row];
            if factor != 0.0 {
                let pairs = target[row..].iter_mut().zip(&line[row..]);
                pairs.for_each(|(cell, &value)| *cell -= factor * value);
            }
        };
        let rest = n - pivot - 1;
        if rest > 256 {
            let rows = below.par_chunks_exact_mut(n).with_min_len(32).enumerate();
            rows.for_each(|(row, target)| update((pivot + 1 + row, target)));
        } else {
            (pivot + 1..n).zip(below.chunks_exact_mut(n)).for_each(update);
        }
    }
    Ok(())
}

/// Solves UᵀU·x = b in place for [`PANEL`] right-hand sides at once.
fn substitute(upper: &[f64], n: usize, lines: &mut [[f64; PANEL]], cancel: &AtomicBool) {
    for row in 0..n {
        if cancel::is_set(cancel) {
            return;
        }
        let u = &upper[row * n..(row + 1) * n];
        let (done, below) = lines.split_at_mut(row + 1);
        let own = &mut done[row];
        own.iter_mut().for_each(|cell| *cell /= u[row]);
        for (target, &factor) in below.iter_mut().zip(&u[row + 1..]) {
            target.iter_mut().zip(&*own).for_each(|(cell, &value)| *cell -= factor * value);
        }
    }
    for row in (0..n).rev() {
        let u = &upper[row * n..(row + 1) * n];
        let (head, known) = lines.split_at_mut(row + 1);
        let own = &mut head[row];
        for (line, &factor) in known.iter().zip(&u[row + 1..]) {
            own.iter_mut().zip(line).for_each(|(cell, &value)| *cell -= factor * value);
        }
        own.iter_mut().for_each(|cell| *cell /= u[row]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_solves_its_normal_equations() {
        // Five rows, the last without interactions; three features.
        let features = Csr::new(
            vec![0, 2, 3, 5, 6, 8],
            vec![0, 1, 1, 0, 2, 2, 0, 1],
            vec![1.0, 2.0, 1.0, -1.0, 0.5, 3.0, 1.0, 1.0],
            3,
        )
        .unwrap();
        let lambda = vec![1.0, 2.0, 0.5, 1.5];
        let shape = Shape { size: 1, stride: 16, biased: true };
        let never = AtomicBool::new(false);
        let codes = [0, 1, 2, 3, 4];
        let mut prior = Prior::new(&features, &codes, lambda.clone(), 0.3, shape, &never).unwrap();
        let mut factors = vec![0.0_f32; 5 * 16];
        let mut bias = vec![0.5, -0.25, 1.0, 2.0, 0.0];
        for (row, x) in [1.0, -2.0, 0.5, 3.0].into_iter().enumerate() {
            factors[row * 16] = x;
            factors[row * 16 + 1] = 1.0;
        }
        let penalty = prior.fit(&factors, Some(&bias), &never);
        let (gamma, map) = (0.3 * 1.25, prior.map(false));
        let mut expected = 0.0;
        for feature in 0..3_u32 {
            // Derivative of the penalty by the feature's two weights.
            let at = feature as usize;
            let mut by_weight = gamma * f64::from(map.weights[at]);
            let mut by_bias = gamma * f64::from(map.bias[at]);
            expected += gamma * f64::from(map.weights[at].powi(2) + map.bias[at].powi(2));
            for row in 0..4 {
                let (columns, values) = features.row(row);
                let told = map.vector(columns, values);
                let near = f64::from(told.factors[0] - factors[row * 16]);
                let near_bias = f64::from(told.bias - bias[row]);
                let value = columns.iter().position(|&c| c == feature).map_or(0.0, |i| values[i]);
                let scale = f64::from(lambda[row]) * f64::from(value);
                by_weight += scale * near;
                by_bias += scale * near_bias;
                if feature == 0 {
                    expected += f64::from(lambda[row]) * (near * near + near_bias * near_bias);
                }
            }
            assert!(by_weight.abs() < 1e-5 && by_bias.abs() < 1e-5, "{by_weight} {by_bias}");
        }
        assert!((penalty - expected).abs() < 1e-5, "{penalty} {expected}");
        prior.fill_cold(&mut factors, Some(&mut bias), f32::NEG_INFINITY, &never);
        let cold = map.vector(&[0, 1], &[1.0, 1.0]);
        assert!((factors[64] - cold.factors[0]).abs() < 1e-6 && factors[65] == 1.0);
        assert!((bias[4] - cold.bias).abs() < 1e-6);
    }
}
