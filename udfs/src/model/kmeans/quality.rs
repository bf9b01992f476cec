//! What a clustering is worth on rows of its own or others.

use super::super::error::ModelError;
use super::{Distance, KMeansModel};

/// How tight and apart clusters are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Davies-Bouldin index (1979) over the clusters that have rows; NaN with fewer than two.
    pub davies_bouldin: f64,
    /// Mean of |x − c|², features as distances take them; of 1 − cos for the cosine. NaN without
    /// rows.
    pub mean_squared_distance: f64,
}

impl KMeansModel {
    /// Measures the clusters on rows as in training.
    ///
    /// # Errors
    /// As [`KMeansModel::assign`].
    pub fn quality<T: Copy + Into<f64> + Sync>(&self, rows: &[T]) -> Result<Quality, ModelError> {
        let (labels, distances) = self.assign(rows)?;
        let mut counts = vec![0_u64; self.num_clusters()];
        let mut spread = vec![0.0_f64; counts.len()];
        let mut sum = 0.0;
        for (&label, &distance) in labels.iter().zip(&distances) {
            counts[label as usize] += 1;
            spread[label as usize] += distance;
            sum += match self.distance {
                Distance::Euclidean => distance * distance,
                Distance::Cosine => distance,
            };
        }
        let used: Vec<usize> = (0..counts.len()).filter(|&k| counts[k] > 0).collect();
        let mean = |k: usize| spread[k] / counts[k] as f64;
        let inner = self.inner_centroids();
        let depth = self.features();
        let apart = |i: usize, j: usize| {
            let row = |k: usize| &inner[k * depth..(k + 1) * depth];
            let squares = row(i).iter().zip(row(j)).map(|(a, b)| f64::from(a - b).powi(2));
            let square: f64 = squares.sum();
            match self.distance {
                Distance::Euclidean => square.sqrt() * self.span,
                Distance::Cosine => 0.5 * square,
            }
        };
        let worst = |&i: &usize| {
            let others = used.iter().filter(|&&j| j != i);
            let ratios = others.map(|&j| match apart(i, j) {
                apart if apart > 0.0 => (mean(i) + mean(j)) / apart,
                _ => 0.0,
            });
            ratios.fold(0.0, f64::max)
        };
        let davies_bouldin = match used.len() {
            0 | 1 => f64::NAN,
            count => used.iter().map(worst).sum::<f64>() / count as f64,
        };
        Ok(Quality { davies_bouldin, mean_squared_distance: sum / labels.len() as f64 })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::{KMeansOptions, train};
    use super::*;

    #[test]
    fn on_the_training_rows_it_is_what_training_found() {
        let rows: Vec<f64> =
            (0..600).map(|n| f64::from(n % 3) * 40.0 + f64::from(n).sin()).collect();
        for distance in [Distance::Euclidean, Distance::Cosine] {
            for standardize_features in [false, true] {
                let options = KMeansOptions {
                    num_clusters: 3,
                    distance,
                    standardize_features,
                    min_rel_progress: 0.0,
                    ..KMeansOptions::default()
                };
                let go_on = AtomicBool::new(false);
                let model = train(&rows, 3, &options, &mut |_| {}, &go_on).unwrap();
                let quality = model.quality(&rows).unwrap();
                let close = |a: f64, b: f64| (a - b).abs() <= 1e-3 * b.abs().max(1e-3);
                let loss = model.losses.last().unwrap() / 200.0;
                assert!(close(quality.mean_squared_distance, loss), "{quality:?} {loss}");
                assert!(close(quality.davies_bouldin, model.davies_bouldin), "{quality:?}");
            }
        }
    }
}
