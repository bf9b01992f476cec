//! Count, mean and scatter of rows, gathered batch by batch.
//!
//! A block of rows is centred on its own mean before products are summed, and blocks are merged
//! by the formula of Chan, Golub and LeVeque (1979): with δ the difference of means,
//! S = S₁ + S₂ + δδᵀ·n₁·n₂/(n₁ + n₂). So nothing cancels however far the mean is from 0, and the
//! size and order of batches change rounding only. All in `f64`.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::super::dense::{Left, Part, Right, add_products, packed_bytes, stride};
use super::super::error::ModelError;

/// Rows that are centred together.
const BLOCK_ROWS: usize = 1024;
/// Rows whose products are summed together: packed, a tile of them stays in the cache.
const DEPTH: usize = 256;
/// Blocks computed side by side while a scatter matrix is small.
const WAVE: usize = 16;
/// Up to so many features blocks run side by side; with more, each is shared by all threads.
const NARROW: usize = 512;

/// Mean and scatter of the rows so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    features: usize,
    count: u64,
    mean: Vec<f64>,
    /// Lower triangle of Σ (x − mean)(x − mean)ᵀ, in padded rows.
    scatter: Vec<f64>,
}

impl Moments {
    /// No rows yet.
    pub fn new(features: usize) -> Self {
        let scatter = vec![0.0; features * stride(features)];
        Self { features, count: 0, mean: vec![0.0; features], scatter }
    }

    /// Bytes while batches are added.
    pub fn memory_bytes(features: usize) -> usize {
        let one = (features * (stride(features) + 2)).saturating_mul(size_of::<f64>());
        let blocks = if features <= NARROW { WAVE } else { 1 };
        one.saturating_mul(1 + blocks) + blocks * packed_bytes(features, features, DEPTH)
    }

    /// Values of a row.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Rows so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Mean of each feature.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Σ (xᵢ − meanᵢ)(xⱼ − meanⱼ) over the rows.
    pub fn scatter(&self, i: usize, j: usize) -> f64 {
        self.scatter[i.max(j) * stride(self.features) + i.min(j)]
    }

    /// Adds a batch: row-major, finite. Runs on the current rayon pool.
    ///
    /// # Errors
    /// When the batch is not made of whole rows, a value is not finite, or cancellation; nothing
    /// is added then but for cancellation, which may leave a part of the batch added.
    pub fn add<T: Copy + Into<f64> + Sync>(
        &mut self,
        rows: &[T],
        cancel: &AtomicBool,
    ) -> Result<(), ModelError> {
        if self.features == 0 || !rows.len().is_multiple_of(self.features) {
            return Err(ModelError::Inconsistent("rows and features differ in number".to_owned()));
        }
        if let Some(at) = rows.par_iter().position_first(|&value| !value.into().is_finite()) {
            let column = format!("feature {}", at % self.features);
            return Err(ModelError::NotFinite { column, value: rows[at].into() as f32 });
        }
        let blocks = if self.features <= NARROW { WAVE } else { 1 };
        for wave in rows.chunks(blocks * BLOCK_ROWS * self.features) {
            let parts: Vec<Self> = wave
                .par_chunks(BLOCK_ROWS * self.features)
                .map(|rows| Self::of(rows, self.features, cancel))
                .collect();
            if cancel.load(Ordering::Relaxed) {
                return Err(ModelError::Cancelled);
            }
            parts.iter().for_each(|part| self.merge(part));
        }
        Ok(())
    }

    /// Moments of one block.
    fn of<T: Copy + Into<f64> + Sync>(rows: &[T], features: usize, cancel: &AtomicBool) -> Self {
        let mut moments = Self::new(features);
        let count = rows.len() / features;
        moments.count = count as u64;
        for row in rows.chunks_exact(features) {
            for (mean, &x) in moments.mean.iter_mut().zip(row) {
                *mean += x.into() / count as f64;
            }
        }
        // What rounding left between the sum and the mean.
        let mut rest = vec![0.0; features];
        for row in rows.chunks_exact(features) {
            for ((rest, &x), mean) in rest.iter_mut().zip(row).zip(&moments.mean) {
                *rest += x.into() - mean;
            }
        }
        for (mean, rest) in moments.mean.iter_mut().zip(rest) {
            *mean += rest / count as f64;
        }
        let mean = &moments.mean;
        for rows in rows.chunks(DEPTH * features) {
            let depth = rows.len() / features;
            let value =
                |feature: usize, row: usize| rows[row * features + feature].into() - mean[feature];
            let left = Left::pack(features, depth, value);
            let right = Right::pack(features, depth, value);
            let scatter = &mut moments.scatter;
            add_products(scatter, stride(features), &left, &right, Part::Lower, cancel);
        }
        moments
    }

    /// Adds the rows of another accumulator of the same features.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 || other.features != self.features {
            return;
        }
        let (a, b) = (self.count as f64, other.count as f64);
        let weight = a * b / (a + b);
        let delta: Vec<f64> = other.mean.iter().zip(&self.mean).map(|(b, a)| b - a).collect();
        let wide = stride(self.features);
        let lines = self.scatter.chunks_exact_mut(wide).zip(other.scatter.chunks_exact(wide));
        for (row, (line, other)) in lines.enumerate() {
            let factor = delta[row] * weight;
            for ((cell, other), delta) in line[..=row].iter_mut().zip(other).zip(&delta) {
                *cell += other + factor * delta;
            }
        }
        for (mean, delta) in self.mean.iter_mut().zip(&delta) {
            *mean += delta * (b / (a + b));
        }
        self.count += other.count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::random::mix;

    fn draw(seed: u64) -> f64 {
        (mix(mix(seed)) >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    }

    #[test]
    fn moments_equal_the_definition_far_from_zero_in_any_batches() {
        let (count, features) = (3001, 7);
        let rows: Vec<f64> = (0..count * features)
            .map(|at| 1e6 * (at % features) as f64 + draw(at as u64) * (1 + at % 3) as f64)
            .collect();
        let go_on = AtomicBool::new(false);
        let mean: Vec<f64> = (0..features)
            .map(|f| {
                let offset = 1e6 * f as f64;
                let sum: f64 = rows.iter().skip(f).step_by(features).map(|x| x - offset).sum();
                offset + sum / count as f64
            })
            .collect();
        for batch in [1, 13, 1000, count] {
            let mut moments = Moments::new(features);
            rows.chunks(batch * features).for_each(|rows| moments.add(rows, &go_on).unwrap());
            assert_eq!(moments.count(), count as u64);
            for i in 0..features {
                assert!((moments.mean()[i] - mean[i]).abs() < 1e-8);
                for j in 0..features {
                    let products =
                        rows.chunks(features).map(|x| (x[i] - mean[i]) * (x[j] - mean[j]));
                    let expected: f64 = products.sum();
                    let found = moments.scatter(i, j);
                    assert!((found - expected).abs() < 1e-6, "{batch} {i} {j} {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn wide_rows_and_threads_give_the_same() {
        let features = NARROW + 9;
        let rows: Vec<f32> = (0..40 * features).map(|at| draw(at as u64) as f32).collect();
        let go_on = AtomicBool::new(false);
        let build = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut moments = Moments::new(features);
                moments.add(&rows, &go_on).unwrap();
                moments
            })
        };
        let moments = build(1);
        assert_eq!(build(4), moments);
        let column = |f: usize| rows.iter().skip(f).step_by(features).map(|&x| f64::from(x));
        let mean = column(520).sum::<f64>() / 40.0;
        let expected: f64 = column(520).map(|x| (x - mean).powi(2)).sum();
        assert!((moments.scatter(520, 520) - expected).abs() < 1e-10);
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        let mut moments = Moments::new(2);
        let go_on = AtomicBool::new(false);
        assert!(moments.add(&[1.0], &go_on).is_err());
        let error = moments.add(&[1.0, f64::INFINITY], &go_on).unwrap_err();
        assert!(error.to_string().contains("feature 1"), "{error}");
        assert_eq!(moments.add(&[1.0; 4], &AtomicBool::new(true)), Err(ModelError::Cancelled));
        assert_eq!(moments.count(), 0);
    }
}
