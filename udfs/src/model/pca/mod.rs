//! Principal components: the directions in which rows vary most.
//!
//! [`Moments`] gathers mean and scatter batch by batch, so that rows need not be held. The
//! components are the eigenvectors of the covariance matrix Σ (x − m)(x − m)ᵀ / (n − 1), or of the
//! correlation matrix with `scale_features`; their eigenvalues are the variance they explain.
//! All of them are found by [`eigen_unless`] (Golub and Van Loan §8.3); where there are
//! more than [`ALL_FEATURES`] features, the leading ones by a randomized range finder. A
//! component's largest absolute value is positive, so that components do not flip between
//! trainings.

mod moments;
mod rows;
mod subspace;

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

pub use self::moments::Moments;
pub use self::rows::PcaRows;

use super::als::Progress;
use super::als::eigen::eigen_unless;
use super::cancel;
use super::dense::{Left, Part, Right, add_products, stride};
use super::error::ModelError;

/// Up to so many features all components are computed.
pub const ALL_FEATURES: usize = 1000;

/// How many components are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Components {
    /// `num_principal_components`: so many, 1 or more.
    Count(usize),
    /// `pca_explained_variance_ratio`: the fewest that explain this share of the variance, above
    /// 0 and at most 1.
    VarianceRatio(f64),
}

/// Options of principal components.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PcaOptions {
    /// How many components are kept.
    pub components: Components,
    /// Whether features are divided by their standard deviation (n − 1 in the denominator).
    pub scale_features: bool,
    /// Seed of the range finder.
    pub seed: u64,
}

impl Default for PcaOptions {
    fn default() -> Self {
        Self { components: Components::VarianceRatio(0.9), scale_features: true, seed: 0 }
    }
}

impl PcaOptions {
    /// Checks every option's domain against the number of features.
    ///
    /// # Errors
    /// [`ModelError::Option`] naming the option.
    pub fn validate(&self, features: usize) -> Result<(), ModelError> {
        match self.components {
            Components::Count(count) if count == 0 || count > features => {
                let (option, value) = ("num_principal_components", count.to_string());
                let hint = "Give at least 1 and at most the number of features";
                Err(ModelError::Option { option, value, hint })
            }
            Components::VarianceRatio(ratio) if !(ratio > 0.0 && ratio <= 1.0) => {
                let (option, value) = ("pca_explained_variance_ratio", ratio.to_string());
                let hint = "Give a number above 0, at most 1; 0.9 is usual";
                Err(ModelError::Option { option, value, hint })
            }
            _ => Ok(()),
        }
    }
}

/// Peak bytes of training on rows of `features` values, beside the rows of a batch.
pub fn memory_bytes(features: usize) -> usize {
    // Covariance, its working copy and all eigenvectors.
    let eigen = features.saturating_mul(3 * features).saturating_mul(size_of::<f64>());
    Moments::memory_bytes(features).saturating_add(eigen)
}

/// Finished components; also what is stored of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PcaModel {
    /// Mean of each feature, subtracted first.
    pub mean: Vec<f64>,
    /// Divides each feature after that; 1 without `scale_features` and for constant features.
    pub scale: Vec<f64>,
    /// Components, largest variance first, a unit vector of as many values as features each.
    pub components: Vec<f64>,
    /// Variance along each component, in the square of the (scaled) features' unit.
    pub explained_variance: Vec<f64>,
    /// Its share of the whole variance; 0 when nothing varies.
    pub explained_variance_ratio: Vec<f64>,
}

/// Finds the components of gathered rows, on the current rayon pool.
///
/// # Errors
/// Invalid options, no rows, a variance beyond `f64`, or cancellation.
pub fn fit(
    moments: &Moments,
    options: &PcaOptions,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<PcaModel, ModelError> {
    let features = moments.features();
    options.validate(features)?;
    if moments.count() == 0 {
        return Err(ModelError::Empty);
    }
    let freedom = (moments.count() as f64 - 1.0).max(1.0);
    for feature in 0..features {
        let value = moments.scatter(feature, feature);
        if !value.is_finite() {
            let column = format!("feature {feature}");
            return Err(ModelError::NotFinite { column, value: value as f32 });
        }
    }
    let deviation = |feature: usize| (moments.scatter(feature, feature) / freedom).sqrt();
    // What is left of a constant after rounding is no variance.
    let varies = |feature: usize| deviation(feature) > 1e-12 * moments.mean()[feature].abs();
    let scale: Vec<f64> = (0..features)
        .map(|f| if options.scale_features && varies(f) { deviation(f) } else { 1.0 })
        .collect();
    let varies: Vec<bool> = (0..features).map(varies).collect();
    let mut covariance = vec![0.0; features * features];
    covariance.par_chunks_mut(features).enumerate().for_each(|(i, line)| {
        if cancel::is_set(cancel) {
            return;
        }
        for (j, cell) in line.iter_mut().enumerate() {
            if varies[i] && varies[j] {
                *cell = moments.scatter(i, j) / freedom / (scale[i] * scale[j]);
            }
        }
    });
    cancel::check(cancel)?;
    let whole: f64 = (0..features).map(|f| covariance[f * features + f]).sum();
    let (values, mut components) = eigen(&covariance, features, whole, options, cancel)?;
    components.chunks_exact_mut(features).for_each(fix_sign);
    progress(Progress { iteration: 1, done: 1, total: 1, loss: None, metric: None });
    let ratio = |value: &f64| if whole > 0.0 { value / whole } else { 0.0 };
    Ok(PcaModel {
        mean: moments.mean().to_vec(),
        scale,
        explained_variance_ratio: values.iter().map(ratio).collect(),
        explained_variance: values,
        components,
    })
}

/// Finds the components of rows that are all at hand: row-major, `features` finite values each.
///
/// # Errors
/// As [`Moments::add`] and [`fit`].
pub fn train<T: Copy + Into<f64> + Sync>(
    rows: &[T],
    features: usize,
    options: &PcaOptions,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<PcaModel, ModelError> {
    options.validate(features)?;
    let mut moments = Moments::new(features);
    moments.add(rows, cancel)?;
    fit(&moments, options, progress, cancel)
}

/// Eigenvalues in descending order and their vectors, as many as the options ask for.
fn eigen(
    covariance: &[f64],
    features: usize,
    whole: f64,
    options: &PcaOptions,
    cancel: &AtomicBool,
) -> Result<(Vec<f64>, Vec<f64>), ModelError> {
    let mut wanted = match options.components {
        Components::Count(count) => count,
        Components::VarianceRatio(_) => 64,
    };
    // Where a third of the components or more is wanted, finding all is faster.
    while features > ALL_FEATURES && subspace::block_rows(wanted, features) * 3 < features {
        let (values, vectors) =
            subspace::leading_eigen(covariance, features, wanted, options.seed, cancel)?;
        match kept(&values, whole, options.components) {
            Some(count) => return Ok(first(values, vectors, count, features)),
            None => wanted *= 2,
        }
    }
    let found = eigen_unless(covariance, features, cancel);
    let (values, vectors) = found.ok_or(ModelError::Cancelled)?;
    let mut order: Vec<usize> = (0..features).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let sorted: Vec<f64> = order.iter().map(|&at| values[at]).collect();
    let count = kept(&sorted, whole, options.components).unwrap_or(features);
    let vectors = order[..count]
        .iter()
        .flat_map(|&at| vectors[at * features..(at + 1) * features].iter().copied())
        .collect();
    Ok(first(sorted, vectors, count, features))
}

/// How many of the leading components are kept; `None` when more are needed.
fn kept(values: &[f64], whole: f64, components: Components) -> Option<usize> {
    match components {
        Components::Count(count) => Some(count.min(values.len())),
        Components::VarianceRatio(ratio) => {
            let mut sum = 0.0;
            let reaches = |value: &f64| {
                sum += value;
                // A share of 1 is reached but for rounding.
                sum >= ratio * whole * (1.0 - 1e-12)
            };
            values.iter().position(reaches).map(|last| last + 1)
        }
    }
}

fn first(
    mut values: Vec<f64>,
    mut vectors: Vec<f64>,
    count: usize,
    features: usize,
) -> (Vec<f64>, Vec<f64>) {
    values.truncate(count);
    vectors.truncate(count * features);
    values.iter_mut().for_each(|value| *value = value.max(0.0));
    (values, vectors)
}

fn fix_sign(component: &mut [f64]) {
    let largest = component.iter().fold(0.0_f64, |largest, &x| {
        // Within rounding the first one decides.
        if x.abs() > largest.abs() * (1.0 + 1e-9) { x } else { largest }
    });
    if largest < 0.0 {
        component.iter_mut().for_each(|x| *x = -*x);
    }
}

/// Rows transformed together.
const BATCH_ROWS: usize = 4096;

impl PcaModel {
    /// Values of a row.
    pub fn features(&self) -> usize {
        self.mean.len()
    }

    /// Number of components.
    pub fn num_components(&self) -> usize {
        self.explained_variance.len()
    }

    /// The share of the rows' squared distance from the training mean that the components keep; on
    /// the training rows the sum of [`PcaModel::explained_variance_ratio`]. NaN when no row is
    /// anywhere but at the mean.
    ///
    /// # Errors
    /// As [`PcaModel::transform`].
    pub fn explained<T: Copy + Into<f64> + Sync>(&self, rows: &[T]) -> Result<f64, ModelError> {
        let kept: f64 = self.transform(rows)?.iter().map(|x| x * x).sum();
        let units = self.mean.iter().zip(&self.scale).cycle();
        let squares = rows.iter().zip(units).map(|(&x, (mean, scale))| {
            let x: f64 = x.into();
            ((x - mean) / scale).powi(2)
        });
        Ok(kept / squares.sum::<f64>())
    }

    /// The rows' coordinates along the components: row-major, [`PcaModel::num_components`] values
    /// a row. A row's answer does not depend on the others. Runs on the current rayon pool.
    ///
    /// # Errors
    /// When the rows do not have the model's number of features.
    pub fn transform<T: Copy + Into<f64> + Sync>(
        &self,
        rows: &[T],
    ) -> Result<Vec<f64>, ModelError> {
        let (features, count) = (self.features(), self.num_components());
        if features == 0 || !rows.len().is_multiple_of(features) {
            return Err(ModelError::Inconsistent("rows and features differ in number".to_owned()));
        }
        let go_on = AtomicBool::new(false);
        let right = Right::pack(count, features, |row, k| self.components[row * features + k]);
        let wide = stride(count);
        let mut out = Vec::with_capacity(rows.len() / features * count);
        for batch in rows.chunks(BATCH_ROWS * features) {
            let height = batch.len() / features;
            let left = Left::pack(height, features, |row, k| {
                (batch[row * features + k].into() - self.mean[k]) / self.scale[k]
            });
            let mut products = vec![0.0; height * wide];
            add_products(&mut products, wide, &left, &right, Part::Full, &go_on);
            products.chunks_exact(wide).for_each(|line| out.extend_from_slice(&line[..count]));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
