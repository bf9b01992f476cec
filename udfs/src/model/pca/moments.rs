//! Count, mean and scatter of rows, gathered batch by batch.
//!
//! A block of rows is centred on its own mean before products are summed, and blocks are merged
//! by the formula of Chan, Golub and LeVeque (1979): with δ the difference of means,
//! S = S₁ + S₂ + δδᵀ·n₁·n₂/(n₁ + n₂). So nothing cancels however far the mean is from 0, and the
//! size and order of batches change rounding only. All in `f64`.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::super::dense::{Left, Part, Right, add_products, packed_bytes, stride};
use super::super::error::ModelError;
use super::super::kernel::position_not_finite;

/// Rows that are centred together.
const BLOCK_ROWS: usize = 1024;
/// Rows whose products are summed together: packed, a tile of them stays in the cache.
const DEPTH: usize = 256;
/// Blocks computed side by side while a scatter matrix is small.
const WAVE: usize = 16;
/// Lines of a scatter matrix that a thread merges at a time, at least.
const MERGED_LINES: usize = 64;
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
        let values = features.saturating_mul(BLOCK_ROWS * size_of::<f64>());
        let block = values.saturating_add(packed_bytes(features, features, DEPTH));
        one.saturating_mul(1 + blocks).saturating_add(blocks.saturating_mul(block))
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
        if let Some(at) = position_not_finite(rows, cancel)? {
            let column = format!("feature {}", at % self.features);
            return Err(ModelError::NotFinite { column, value: rows[at].into() as f32 });
        }
        let features = self.features;
        let fill = |range: Range<usize>, block: &mut [f64]| {
            let height = range.len();
            let rows = rows[range.start * features..range.end * features].chunks_exact(features);
            for (row, values) in rows.enumerate() {
                for (feature, &value) in values.iter().enumerate() {
                    block[feature * height + row] = value.into();
                }
            }
        };
        self.add_blocks(rows.len() / features, fill, cancel)
    }

    /// Adds rows that `fill` writes a block at a time: for the rows of a range the values of the
    /// first feature, then those of the second, and so on, all of them finite; what it does not
    /// write is 0. Runs on the current rayon pool.
    ///
    /// # Errors
    /// Cancellation, which may leave a part of the rows added.
    pub fn add_blocks(
        &mut self,
        rows: usize,
        fill: impl Fn(Range<usize>, &mut [f64]) + Sync,
        cancel: &AtomicBool,
    ) -> Result<(), ModelError> {
        let features = self.features;
        if features == 0 {
            self.count += rows as u64;
            return Ok(());
        }
        let blocks = if features <= NARROW { WAVE } else { 1 };
        let starts: Vec<usize> = (0..rows).step_by(BLOCK_ROWS).collect();
        for wave in starts.chunks(blocks) {
            let of = |&start: &usize| {
                let range = start..rows.min(start + BLOCK_ROWS);
                let mut block = vec![0.0; features * range.len()];
                fill(range, &mut block);
                Self::of(block, features, cancel)
            };
            let parts: Vec<Self> = wave.par_iter().map(of).collect();
            if cancel.load(Ordering::Relaxed) {
                return Err(ModelError::Cancelled);
            }
            parts.iter().for_each(|part| self.merge(part));
        }
        Ok(())
    }

    /// Moments of one block, feature by feature.
    fn of(mut block: Vec<f64>, features: usize, cancel: &AtomicBool) -> Self {
        let mut moments = Self::new(features);
        let count = block.len() / features;
        moments.count = count as u64;
        for (mean, column) in moments.mean.iter_mut().zip(block.chunks_exact_mut(count)) {
            let first = mean_beside(column, 0.0);
            // What rounding left between the sum and the mean.
            *mean = first + mean_beside(column, first);
            column.iter_mut().for_each(|value| *value -= *mean);
        }
        for start in (0..count).step_by(DEPTH) {
            let depth = DEPTH.min(count - start);
            let value = |feature: usize, row: usize| block[feature * count + start + row];
            let left = Left::pack(features, depth, value);
            let right = Right::pack(features, depth, value);
            let scatter = &mut moments.scatter;
            add_products(scatter, stride(features), &left, &right, Part::Lower, cancel);
        }
        moments
    }

    /// Adds features that are 0 in all rows so far.
    pub fn widen(&mut self, features: usize) {
        let before = std::mem::replace(self, Self::new(features.max(self.features)));
        self.count = before.count;
        self.mean[..before.features].copy_from_slice(&before.mean);
        for i in 0..before.features {
            let line = &before.scatter[i * stride(before.features)..][..=i];
            self.scatter[i * stride(self.features)..][..=i].copy_from_slice(line);
        }
    }

    /// Some of the features in an order of their own: the first is what `order[0]` was.
    pub fn reordered(&self, order: &[usize]) -> Self {
        let mut reordered = Self::new(order.len());
        reordered.count = self.count;
        for (i, &from) in order.iter().enumerate() {
            reordered.mean[i] = self.mean[from];
            let line = &mut reordered.scatter[i * stride(order.len())..][..=i];
            for (cell, &other) in line.iter_mut().zip(order) {
                *cell = self.scatter(from, other);
            }
        }
        reordered
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
        let own = self.scatter.par_chunks_exact_mut(wide);
        let lines = own.zip(other.scatter.par_chunks_exact(wide)).enumerate();
        lines.with_min_len(MERGED_LINES).for_each(|(row, (line, other))| {
            let factor = delta[row] * weight;
            for ((cell, other), delta) in line[..=row].iter_mut().zip(other).zip(&delta) {
                *cell += other + factor * delta;
            }
        });
        for (mean, delta) in self.mean.iter_mut().zip(&delta) {
            *mean += delta * (b / (a + b));
        }
        self.count += other.count;
    }
}

/// Σ (x − shift) / n, in lanes of which none waits for another.
fn mean_beside(column: &[f64], shift: f64) -> f64 {
    // Scaled first: a sum of large numbers has no end.
    let share = 1.0 / column.len() as f64;
    let (groups, rest) = column.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for group in groups {
        for (sum, x) in sums.iter_mut().zip(group) {
            *sum += (x - shift) * share;
        }
    }
    let rest: f64 = rest.iter().map(|x| (x - shift) * share).sum();
    sums.iter().sum::<f64>() + rest
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
    fn features_that_come_later_were_0_before() {
        let go_on = AtomicBool::new(false);
        let early: Vec<f64> = (0..30).map(|at| draw(at) + 3.0).collect();
        let late: Vec<f64> = (0..40).map(|at| draw(100 + at) - 1.0).collect();
        let mut moments = Moments::new(0);
        moments.widen(3);
        moments.add(&early, &go_on).unwrap();
        moments.widen(4);
        moments.add(&late, &go_on).unwrap();
        let mut whole: Vec<f64> =
            early.chunks(3).flat_map(|row| [row[0], row[1], row[2], 0.0]).collect();
        whole.extend(&late);
        let mut expected = Moments::new(4);
        expected.add(&whole, &go_on).unwrap();
        let (moments, order) = (moments.reordered(&[3, 0, 2, 1]), [3, 0, 2, 1]);
        assert_eq!(moments.count(), 20);
        for i in 0..4 {
            assert!((moments.mean()[i] - expected.mean()[order[i]]).abs() < 1e-12);
            for j in 0..4 {
                let expected = expected.scatter(order[i], order[j]);
                assert!((moments.scatter(i, j) - expected).abs() < 1e-10, "{i} {j}");
            }
        }
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
