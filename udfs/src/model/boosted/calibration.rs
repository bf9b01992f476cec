//! From trees' scores to probabilities of classes.
//!
//! Without calibration these are the logistic of the score, or of more than two classes the
//! softmax. Calibrated, a class's probability is a rising function of its log-odds that was fitted
//! on rows which the trees did not learn from; of more than two classes each is fitted against the
//! rest and the probabilities are divided by their sum (Zadrozny and Elkan 2002).

use super::super::metrics::calibration::Logistic;
use super::Calibration;

/// A rising function from log-odds to probability.
#[derive(Debug, Clone, PartialEq)]
pub enum Calibrator {
    /// A logistic.
    Platt(Logistic),
    /// Straight lines between points, flat beyond them.
    Isotonic {
        /// Ascending.
        scores: Vec<f64>,
        /// Ascending as well, between 0 and 1.
        probabilities: Vec<f64>,
    },
}

impl Calibrator {
    fn fit(kind: Calibration, pairs: &[(f32, bool)]) -> Self {
        match kind {
            Calibration::Isotonic => isotonic(pairs),
            Calibration::None | Calibration::Platt => Self::Platt(Logistic::fit(pairs)),
        }
    }

    /// The probability of log-odds.
    pub fn probability(&self, score: f32) -> f64 {
        match self {
            Self::Platt(logistic) => logistic.probability(score),
            Self::Isotonic { scores, probabilities } => {
                let score = f64::from(score);
                let after = scores.partition_point(|known| *known < score);
                match (after.checked_sub(1), scores.get(after)) {
                    (None, _) => probabilities.first().copied().unwrap_or(0.5),
                    (Some(before), None) => probabilities[before],
                    (Some(before), Some(next)) => {
                        let part = (score - scores[before]) / (next - scores[before]);
                        let (low, high) = (probabilities[before], probabilities[after]);
                        low + part * (high - low)
                    }
                }
            }
        }
    }
}

/// Pools adjacent violators (Ayer et al. 1955). No probability is nearer to 0 or 1 than one row in
/// n + 2 would be, as that is all that n rows can tell.
fn isotonic(pairs: &[(f32, bool)]) -> Calibrator {
    let mut sorted: Vec<(f32, bool)> = pairs.to_vec();
    sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    // Rows, truths, first and last score of each block.
    let mut blocks: Vec<(f64, f64, f32, f32)> = vec![];
    for same in sorted.chunk_by(|a, b| a.0 == b.0) {
        let truths = same.iter().filter(|(_, truth)| *truth).count() as f64;
        let mut block = (same.len() as f64, truths, same[0].0, same[0].0);
        while let Some(last) = blocks.last().filter(|last| last.1 / last.0 >= block.1 / block.0) {
            block = (last.0 + block.0, last.1 + block.1, last.2, block.3);
            blocks.pop();
        }
        blocks.push(block);
    }
    let least = 1.0 / (sorted.len() as f64 + 2.0);
    let (mut scores, mut probabilities) = (vec![], vec![]);
    for (rows, truths, first, last) in blocks {
        let probability = (truths / rows).clamp(least, 1.0 - least);
        for score in if first < last { vec![first, last] } else { vec![first] } {
            scores.push(f64::from(score));
            probabilities.push(probability);
        }
    }
    Calibrator::Isotonic { scores, probabilities }
}

/// Fits one calibrator a margin of a row: `width` of them, and a class's code a row.
pub(super) fn fit(
    kind: Calibration,
    margins: &[f32],
    width: usize,
    labels: &[f32],
) -> Vec<Calibrator> {
    let odds = log_odds(margins, width);
    let of_class = |class: usize| {
        let rows = odds.chunks_exact(width).zip(labels);
        // Of two classes there is one margin, of the second.
        let positive = if width == 1 { 1 } else { class };
        let pairs: Vec<(f32, bool)> =
            rows.map(|(odds, label)| (odds[class], *label as usize == positive)).collect();
        Calibrator::fit(kind, &pairs)
    };
    (0..width).map(of_class).collect()
}

/// The log-odds of each class against all others: of one margin itself.
fn log_odds(margins: &[f32], width: usize) -> Vec<f32> {
    if width == 1 {
        return margins.to_vec();
    }
    let of_row = |row: &[f32]| -> Vec<f32> {
        let rest = |class: usize| {
            let others = row.iter().enumerate().filter(|(other, _)| *other != class);
            let others: Vec<f64> = others.map(|(_, &x)| f64::from(x)).collect();
            let most = others.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            most + others.iter().map(|x| (x - most).exp()).sum::<f64>().ln()
        };
        (0..width).map(|class| (f64::from(row[class]) - rest(class)) as f32).collect()
    };
    margins.chunks_exact(width).flat_map(of_row).collect()
}

/// A probability for each class of each row, row-major: of one margin a row two of them.
pub(super) fn probabilities(margins: &[f32], width: usize, calibrators: &[Calibrator]) -> Vec<f64> {
    if width == 1 {
        let positive = |&margin: &f32| match calibrators.first() {
            Some(calibrator) => calibrator.probability(margin),
            None => 1.0 / (1.0 + (-f64::from(margin)).exp()),
        };
        return margins.iter().map(positive).flat_map(|p| [1.0 - p, p]).collect();
    }
    match calibrators {
        [] => margins.chunks_exact(width).flat_map(softmax).collect(),
        _ => {
            let odds = log_odds(margins, width);
            let row = |row: &[f32]| {
                let found = row.iter().zip(calibrators).map(|(&x, of)| of.probability(x));
                let found: Vec<f64> = found.collect();
                let sum: f64 = found.iter().sum();
                found.into_iter().map(move |p| p / sum)
            };
            odds.chunks_exact(width).flat_map(row).collect::<Vec<f64>>()
        }
    }
}

fn softmax(row: &[f32]) -> Vec<f64> {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = row.iter().map(|&x| f64::from(x - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_rise_and_pool_what_falls() {
        let pairs = [(0.0, false), (1.0, true), (2.0, false), (3.0, true), (3.0, true)];
        let fitted = isotonic(&pairs);
        let Calibrator::Isotonic { scores, probabilities } = &fitted else { panic!() };
        assert_eq!(scores, &[0.0, 1.0, 2.0, 3.0]);
        assert_eq!(probabilities[1..3], [0.5, 0.5]);
        assert!((fitted.probability(-9.0) - 1.0 / 7.0).abs() < 1e-12);
        assert!((fitted.probability(9.0) - 6.0 / 7.0).abs() < 1e-12);
        assert_eq!(fitted.probability(1.5), 0.5);
        assert!((fitted.probability(0.5) - (0.5 + 1.0 / 7.0) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn probabilities_add_up() {
        let margins = [0.5_f32, -1.0, 2.0, 0.0, 0.0, 0.0];
        let plain = probabilities(&margins, 3, &[]);
        let labels = [2.0, 0.0];
        for calibrators in [vec![], fit(Calibration::Platt, &margins, 3, &labels)] {
            let found = probabilities(&margins, 3, &calibrators);
            for row in found.chunks_exact(3) {
                assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{found:?}");
            }
        }
        assert!((plain[3] - 1.0 / 3.0).abs() < 1e-12);
        // The log-odds of a class are those of its softmax.
        let odds = log_odds(&margins, 3);
        assert!((f64::from(odds[2]) - (plain[2] / (1.0 - plain[2])).ln()).abs() < 1e-5);
        assert_eq!(probabilities(&[0.0], 1, &[]), [0.5, 0.5]);
    }
}
