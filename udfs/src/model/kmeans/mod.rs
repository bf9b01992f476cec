//! k-means: groups of points around centroids, such that Σ |x − c|² (the inertia) is small.
//!
//! Lloyd's iterations (1982) from the start that [`Init`] names. With `standardize_features`,
//! distances are those of features shifted to mean 0 and scaled to standard deviation 1 (n in the
//! denominator). The cosine distance, 1 − cos, is that of spherical k-means (Dhillon and Modha
//! 2001): points and centroids have unit length, and a row of zeros is at distance 1 from
//! everything. A cluster that lost all its points restarts at the point farthest from its own
//! centroid.
//!
//! Points are kept in `f32` relative to their mean and span, sums in `f64`; sums follow only the
//! points that change sides. The same seed and rows give the same model whatever the threads.

mod init;
mod lloyd;
mod points;
mod quality;

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use self::lloyd::Lloyd;
use self::points::Points;
pub use self::quality::Quality;
use super::als::Progress;
use super::cancel;
use super::error::ModelError;
use super::kernel::position_not_finite;

/// The start of k-means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Init {
    /// k-means‖.
    #[default]
    Parallel,
    /// k-means++.
    PlusPlus,
    /// Random points.
    Random,
}

/// What is near.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Distance {
    /// |x − c|.
    #[default]
    Euclidean,
    /// 1 − cos(x, c).
    Cosine,
}

/// Options of k-means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KMeansOptions {
    /// k, 1 to 100,000.
    pub num_clusters: usize,
    /// Where the first centroids stand.
    pub init: Init,
    /// What is near.
    pub distance: Distance,
    /// Whether each feature counts by its standard deviation.
    pub standardize_features: bool,
    /// Iterations at most; one moves all centroids and finds each point's nearest.
    pub max_iterations: usize,
    /// Stop once an iteration lowers the inertia by less than this share; 0 stops only when no
    /// point changes sides any more.
    pub min_rel_progress: f64,
    /// Seed of the start.
    pub seed: u64,
    /// k-means‖: candidates drawn in a round, as a multiple of k.
    pub oversampling: f64,
    /// k-means‖: rounds.
    pub init_rounds: usize,
}

impl Default for KMeansOptions {
    fn default() -> Self {
        Self {
            num_clusters: 8,
            init: Init::Parallel,
            distance: Distance::Euclidean,
            standardize_features: true,
            max_iterations: 20,
            min_rel_progress: 0.01,
            seed: 0,
            oversampling: 2.0,
            init_rounds: 3,
        }
    }
}

impl KMeansOptions {
    /// Checks every option's domain.
    ///
    /// # Errors
    /// [`ModelError::Option`] naming the option.
    pub fn validate(&self) -> Result<(), ModelError> {
        let fail = |option, value: String, hint| Err(ModelError::Option { option, value, hint });
        if self.num_clusters == 0 || self.num_clusters > 100_000 {
            let hint = "Give 1 to 100000 clusters";
            return fail("num_clusters", self.num_clusters.to_string(), hint);
        }
        if self.max_iterations == 0 || self.max_iterations > 10_000 {
            let hint = "Give 1 to 10000 iterations; 20 is usual";
            return fail("max_iterations", self.max_iterations.to_string(), hint);
        }
        if !(0.0..=1.0).contains(&self.min_rel_progress) {
            let hint = "Give a number from 0 to 1; 0.01 is usual";
            return fail("min_rel_progress", self.min_rel_progress.to_string(), hint);
        }
        if !(self.oversampling > 0.0 && self.oversampling <= 100.0) {
            let hint = "Give a number above 0, up to 100; 2 is usual";
            return fail("oversampling", self.oversampling.to_string(), hint);
        }
        if self.init_rounds == 0 || self.init_rounds > 100 {
            let hint = "Give 1 to 100 rounds; 2 to 5 are usual";
            return fail("init_rounds", self.init_rounds.to_string(), hint);
        }
        Ok(())
    }

    /// Peak bytes of training on `rows` rows of `features` values, beside the rows themselves.
    pub fn memory_bytes(&self, rows: usize, features: usize) -> usize {
        let k = self.num_clusters;
        let candidates = (k as f64 * self.oversampling * self.init_rounds as f64) as usize + k;
        let points = Points::bytes(rows, features) + Points::bytes(candidates, features);
        let labels = rows * 4 * size_of::<u32>();
        // Partial sums of 64 chunks, and centroids in both precisions.
        let sums = 66 * k * (features + 1) * size_of::<f64>();
        points + labels + sums + 3 * k * features * size_of::<f32>()
    }
}

/// A finished clustering; also what is stored of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KMeansModel {
    /// What is near.
    pub distance: Distance,
    /// Subtracted from each feature before distances are taken.
    pub shift: Vec<f64>,
    /// Divides each feature after that.
    pub scale: Vec<f64>,
    /// A power of two that all scaled features are divided by while distances are computed, which
    /// keeps them within the range of `f32`.
    pub span: f64,
    /// `num_clusters` rows, in the units of the features. For the cosine only their direction
    /// counts.
    pub centroids: Vec<f64>,
    /// Training points of each cluster.
    pub counts: Vec<u64>,
    /// Inertia after each iteration, of shifted and scaled features; Σ (1 − cos) for the cosine.
    pub losses: Vec<f64>,
    /// Davies-Bouldin index (1979) of the training points, small when clusters are tight and
    /// apart; NaN with fewer than two clusters.
    pub davies_bouldin: f64,
}

/// Clusters `rows`, row-major with `features` finite values each, on the current rayon pool.
///
/// # Errors
/// Invalid options, no row or no feature, fewer rows than clusters, a value that is not finite,
/// or cancellation.
pub fn train<T: Copy + Into<f64> + Sync>(
    rows: &[T],
    features: usize,
    options: &KMeansOptions,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<KMeansModel, ModelError> {
    options.validate()?;
    let count = check_rows(rows, features, cancel)?;
    if count == 0 {
        return Err(ModelError::Empty);
    }
    if options.num_clusters > count {
        let value = format!("{} for {count} rows", options.num_clusters);
        let hint = "Give at most as many clusters as the training query has rows";
        return Err(ModelError::Option { option: "num_clusters", value, hint });
    }
    let (shift, scale, span) = units(rows, features, options, cancel);
    cancel::check(cancel)?;
    let mut model =
        KMeansModel { distance: options.distance, shift, scale, span, ..KMeansModel::default() };
    let points = model.points(rows, cancel);
    let start = init::centroids(&points, options)?;
    let mut lloyd = Lloyd::new(&points, start, options);
    lloyd.run(&mut |now| progress(model.in_units(now)))?;
    model.davies_bouldin = lloyd.davies_bouldin()?;
    model.centroids = model.original(&lloyd.centroids);
    model.losses = lloyd.losses.iter().map(|loss| loss * span * span).collect();
    model.counts = lloyd.counts;
    Ok(model)
}

/// Number of rows.
fn check_rows<T: Copy + Into<f64> + Sync>(
    rows: &[T],
    features: usize,
    cancel: &AtomicBool,
) -> Result<usize, ModelError> {
    if features == 0 || !rows.len().is_multiple_of(features) {
        return Err(ModelError::Inconsistent("rows and features differ in number".to_owned()));
    }
    if let Some(at) = position_not_finite(rows, cancel)? {
        let column = format!("feature {}", at % features);
        return Err(ModelError::NotFinite { column, value: rows[at].into() as f32 });
    }
    Ok(rows.len() / features)
}

/// Rows summed together; fixed, so that sums do not depend on the number of threads.
const CHUNK_ROWS: usize = 4096;

/// Σ over rows of `value(feature, x)`, for each feature; wrong, and soon there, once the flag is
/// set.
fn feature_sums<T: Copy + Into<f64> + Sync>(
    rows: &[T],
    features: usize,
    cancel: &AtomicBool,
    value: impl Fn(usize, f64) -> f64 + Sync,
) -> Vec<f64> {
    let parts: Vec<Vec<f64>> = rows
        .par_chunks(CHUNK_ROWS * features)
        .map(|rows| {
            let mut sums = vec![0.0; features];
            if cancel::is_set(cancel) {
                return sums;
            }
            for row in rows.chunks_exact(features) {
                for (feature, (sum, &x)) in sums.iter_mut().zip(row).enumerate() {
                    *sum += value(feature, x.into());
                }
            }
            sums
        })
        .collect();
    let mut total = vec![0.0; features];
    for part in parts {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    total
}

/// Shift and scale of each feature, and the common span; wrong, and soon there, once the flag is
/// set.
fn units<T: Copy + Into<f64> + Sync>(
    rows: &[T],
    features: usize,
    options: &KMeansOptions,
    cancel: &AtomicBool,
) -> (Vec<f64>, Vec<f64>, f64) {
    if !options.standardize_features && options.distance == Distance::Cosine {
        return (vec![0.0; features], vec![1.0; features], 1.0);
    }
    let count = (rows.len() / features) as f64;
    let mean = feature_sums(rows, features, cancel, |_, x| x / count);
    if options.standardize_features {
        let square = |feature: usize, x: f64| (x - mean[feature]).powi(2) / count;
        let squares = feature_sums(rows, features, cancel, square);
        let scale = |(square, mean): (f64, &f64)| {
            let deviation = square.sqrt();
            // What is left of a constant after rounding is no deviation.
            let varies = deviation > 1e-12 * mean.abs() && deviation.is_finite();
            if varies { deviation } else { 1.0 }
        };
        let scale = squares.into_iter().zip(&mean).map(scale).collect();
        return (mean, scale, 1.0);
    }
    let widest = |row: &[T]| {
        let spans = row.iter().zip(&mean).map(|(&x, mean)| (x.into() - mean).abs());
        spans.fold(0.0, f64::max)
    };
    let widest_of = |rows: &[T]| match cancel::is_set(cancel) {
        true => 0.0,
        false => rows.chunks(features).map(widest).fold(0.0, f64::max),
    };
    let span = rows.par_chunks(CHUNK_ROWS * features).map(widest_of).reduce(|| 0.0, f64::max);
    let span = if span > 0.0 { span.log2().ceil().clamp(-1000.0, 1000.0).exp2() } else { 1.0 };
    (mean, vec![1.0; features], span)
}

/// The flag of what is not cancelled.
static NEVER: AtomicBool = AtomicBool::new(false);

impl KMeansModel {
    /// Number of clusters.
    pub fn num_clusters(&self) -> usize {
        self.centroids.len() / self.features().max(1)
    }

    /// Values of a row.
    pub fn features(&self) -> usize {
        self.shift.len()
    }

    /// The nearest centroid of each row (from 0) and the distance to it: of shifted and, when
    /// standardized, scaled features; 1 − cos for the cosine. Rows as in training, on the current
    /// rayon pool; a row's answer does not depend on the others.
    ///
    /// # Errors
    /// When rows do not have the model's number of features, or a value is not finite.
    pub fn assign<T: Copy + Into<f64> + Sync>(
        &self,
        rows: &[T],
    ) -> Result<(Vec<u32>, Vec<f64>), ModelError> {
        check_rows(rows, self.features(), &NEVER)?;
        let points = self.points(rows, &NEVER);
        let centroids = self.inner_centroids();
        let by_direction = self.distance == Distance::Cosine;
        let labels = points.nearest(&centroids, by_direction);
        let squares = points.distances(&labels, &centroids);
        let distances = squares
            .into_par_iter()
            .enumerate()
            .map(|(index, square)| distance(self.distance, &points, index, square) * self.span);
        let distances = distances.collect();
        Ok((labels, distances))
    }

    /// Progress with the loss in the units of distances.
    fn in_units(&self, now: Progress) -> Progress {
        Progress { loss: now.loss.map(|loss| loss * self.span * self.span), ..now }
    }

    /// Shifted, scaled and for the cosine normalized rows.
    fn points<'a, T: Copy + Into<f64> + Sync>(
        &self,
        rows: &[T],
        cancel: &'a AtomicBool,
    ) -> Points<'a> {
        let features = self.features();
        Points::new(rows.len() / features, features, cancel, |index, out| {
            let row = &rows[index * features..(index + 1) * features];
            self.inner(row.iter().map(|&x| x.into()), out);
        })
    }

    fn inner(&self, row: impl Iterator<Item = f64> + Clone, out: &mut [f32]) {
        let units = self.shift.iter().zip(&self.scale);
        let inner = row.zip(units).map(|(x, (shift, scale))| (x - shift) / scale / self.span);
        let factor = match self.distance {
            Distance::Euclidean => 1.0,
            Distance::Cosine => inverse_length(inner.clone()),
        };
        for (out, x) in out.iter_mut().zip(inner) {
            *out = (x * factor) as f32;
        }
    }

    fn inner_centroids(&self) -> Vec<f32> {
        let mut inner = vec![0.0; self.centroids.len()];
        let features = self.features().max(1);
        for (row, out) in self.centroids.chunks(features).zip(inner.chunks_mut(features)) {
            self.inner(row.iter().copied(), out);
        }
        inner
    }

    fn original(&self, inner: &[f64]) -> Vec<f64> {
        let units = self.shift.iter().zip(&self.scale).cycle();
        inner.iter().zip(units).map(|(x, (shift, scale))| x * self.span * scale + shift).collect()
    }
}

/// 1 / length, or 0 where there is none; safe against overflow.
fn inverse_length(row: impl Iterator<Item = f64> + Clone) -> f64 {
    let span = row.clone().fold(0.0_f64, |span, x| span.max(x.abs()));
    if span == 0.0 {
        return 0.0;
    }
    let square: f64 = row.map(|x| (x / span).powi(2)).sum();
    1.0 / span / square.sqrt()
}

/// The distance whose square (between packed points) is given.
fn distance(kind: Distance, points: &Points<'_>, index: usize, square: f32) -> f64 {
    match kind {
        Distance::Euclidean => f64::from(square).sqrt(),
        // |x − c|² = 2·(1 − cos) for unit vectors; rows of zeros have no direction.
        Distance::Cosine if points.row(index).all(|x| x == 0.0) => 1.0,
        Distance::Cosine => 0.5 * f64::from(square),
    }
}

#[cfg(test)]
mod tests;
