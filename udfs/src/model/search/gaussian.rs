//! A Gaussian process with a Matérn 5/2 kernel on standardized values.
//!
//! k(a, b) = (1 + √5·r + 5·r²/3)·e^(−√5·r), with r² = Σ ((aᵢ − bᵢ)/ℓᵢ)²; on the diagonal a noise is
//! added. Length scales ℓ and noise are those of highest marginal likelihood on a small grid: first
//! one ℓ for all, then each dimension's own in turn. Cost: the number of points³ / 6 for each
//! combination, some hundred of them.

const SCALES: [f64; 7] = [0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 8.0];
const NOISES: [f64; 3] = [1e-6, 1e-3, 3e-2];

/// A process fitted to points and values.
pub(super) struct Gaussian {
    points: Vec<Vec<f64>>,
    scales: Vec<f64>,
    /// Lower Cholesky factor of the kernel matrix, row by row.
    factor: Vec<f64>,
    /// The kernel matrix's inverse times the standardized values.
    weights: Vec<f64>,
    /// Mean and deviation of the values.
    center: f64,
    spread: f64,
}

impl Gaussian {
    /// Fits to finite `values` at `points` of equal length, at least one.
    pub(super) fn fit(points: &[Vec<f64>], values: &[f64]) -> Self {
        let count = values.len().max(1) as f64;
        let center = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|v| (v - center).powi(2)).sum::<f64>() / count;
        let spread = if variance > 0.0 && variance.is_finite() { variance.sqrt() } else { 1.0 };
        let standard: Vec<f64> = values.iter().map(|v| (v - center) / spread).collect();
        let (scales, noise) = choose(points, &standard);
        let factor = factor(points, &scales, noise);
        let weights = backward(&factor, &forward(&factor, &standard));
        Self { points: points.to_vec(), scales, factor, weights, center, spread }
    }

    /// Mean and standard deviation at a point.
    pub(super) fn predict(&self, at: &[f64]) -> (f64, f64) {
        let near: Vec<f64> =
            self.points.iter().map(|point| kernel(point, at, &self.scales)).collect();
        let mean: f64 = near.iter().zip(&self.weights).map(|(k, w)| k * w).sum();
        let known: f64 = forward(&self.factor, &near).iter().map(|v| v * v).sum();
        let deviation = (1.0 - known).max(1e-12).sqrt();
        (self.center + self.spread * mean, self.spread * deviation)
    }
}

fn choose(points: &[Vec<f64>], values: &[f64]) -> (Vec<f64>, f64) {
    let dimensions = points.first().map_or(0, Vec::len);
    let mut best = (f64::NEG_INFINITY, vec![0.3; dimensions], 1e-3);
    let mut consider = |scales: &[f64], noise: f64| {
        let likelihood = likelihood(points, values, scales, noise);
        if likelihood > best.0 {
            best = (likelihood, scales.to_vec(), noise);
        }
        best.clone()
    };
    let mut chosen = (0.0, vec![0.3; dimensions], 1e-3);
    for noise in NOISES {
        for scale in SCALES {
            chosen = consider(&vec![scale; dimensions], noise);
        }
    }
    for _ in 0..2 {
        for dimension in 0..dimensions {
            for scale in SCALES {
                let mut scales = chosen.1.clone();
                scales[dimension] = scale;
                chosen = consider(&scales, chosen.2);
            }
        }
    }
    (chosen.1, chosen.2)
}

/// Logarithm of the marginal likelihood, and of a wide prior on the scales that keeps a handful of
/// points from choosing an extreme.
fn likelihood(points: &[Vec<f64>], values: &[f64], scales: &[f64], noise: f64) -> f64 {
    let factor = factor(points, scales, noise);
    let solved = forward(&factor, values);
    let fit: f64 = solved.iter().map(|v| v * v).sum();
    let mut determinant = 0.0;
    for (row, line) in lines(&factor, values.len()).enumerate() {
        determinant += line[row].ln();
    }
    let prior: f64 = scales.iter().map(|scale| (scale / 0.5).ln().powi(2)).sum();
    -0.5 * fit - determinant - 0.15 * prior
}

fn kernel(a: &[f64], b: &[f64], scales: &[f64]) -> f64 {
    let squared: f64 = a.iter().zip(b).zip(scales).map(|((a, b), l)| ((a - b) / l).powi(2)).sum();
    let r = (5.0 * squared).sqrt();
    (1.0 + r + r * r / 3.0) * (-r).exp()
}

/// Rows of a packed lower triangle: row i has i + 1 values.
fn lines(packed: &[f64], rows: usize) -> impl Iterator<Item = &[f64]> {
    (0..rows).map(|row| &packed[row * (row + 1) / 2..(row + 1) * (row + 2) / 2])
}

fn factor(points: &[Vec<f64>], scales: &[f64], noise: f64) -> Vec<f64> {
    let mut packed: Vec<f64> = vec![];
    for (row, point) in points.iter().enumerate() {
        let start = packed.len();
        for (column, other) in points[..=row].iter().enumerate() {
            let mut value = kernel(point, other, scales);
            let (done, own) = packed.split_at(start);
            let line = if column < row { &done[column * (column + 1) / 2..] } else { own };
            let known: f64 = own[..column].iter().zip(line).map(|(a, b)| a * b).sum();
            value -= known;
            packed.push(if column < row {
                value / line[column]
            } else {
                (value + noise).max(1e-10).sqrt()
            });
        }
    }
    packed
}

fn forward(factor: &[f64], right: &[f64]) -> Vec<f64> {
    let mut solved: Vec<f64> = vec![];
    for (row, line) in lines(factor, right.len()).enumerate() {
        let known: f64 = line.iter().zip(&solved).map(|(a, b)| a * b).sum();
        solved.push((right[row] - known) / line[row]);
    }
    solved
}

fn backward(factor: &[f64], right: &[f64]) -> Vec<f64> {
    let mut solved = right.to_vec();
    for row in (0..right.len()).rev() {
        let line = &factor[row * (row + 1) / 2..(row + 1) * (row + 2) / 2];
        let value = solved[row] / line[row];
        solved[row] = value;
        solved.iter_mut().zip(&line[..row]).for_each(|(to, l)| *to -= l * value);
    }
    solved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smooth_function_is_predicted_between_its_points() {
        let points: Vec<Vec<f64>> = (0..9).map(|i| vec![f64::from(i) / 8.0, 0.5]).collect();
        let values: Vec<f64> = points.iter().map(|p| 10.0 + (4.0 * p[0]).sin()).collect();
        let process = Gaussian::fit(&points, &values);
        let (mean, deviation) = process.predict(&[0.44, 0.5]);
        assert!((mean - 10.0 - (4.0_f64 * 0.44).sin()).abs() < 0.02, "{mean}");
        assert!(deviation < 0.1, "{deviation}");
        let (known, sure) = process.predict(&points[3]);
        assert!((known - values[3]).abs() < 0.02 && sure < 0.05);
        let (_, far) = process.predict(&[9.0, 9.0]);
        assert!(far > 0.3, "{far}");
    }

    #[test]
    fn equal_values_and_equal_points_are_survived() {
        let process = Gaussian::fit(&vec![vec![0.5]; 4], &[2.0; 4]);
        let (mean, deviation) = process.predict(&[0.5]);
        assert!((mean - 2.0).abs() < 1e-9 && deviation.is_finite());
        let process = Gaussian::fit(&vec![vec![0.5]; 3], &[1.0, 2.0, 3.0]);
        assert!(process.predict(&[0.1]).0.is_finite());
    }
}
