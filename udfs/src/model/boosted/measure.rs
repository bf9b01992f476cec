//! What trees are worth on rows whose labels are known, under BigQuery's names.
//!
//! A classifier of two classes is measured on the positive one, which is predicted from a
//! probability of ½; of more, precision, recall, F1 and AUC (each class against the rest) are means
//! over the classes that occur. Precision without a prediction and recall without a row are 0. The
//! gain of an item is 2^relevance − 1 and its discount log₂(rank + 1), over whole queries; equal
//! scores share their ranks' mean discount, and queries without relevant items are left out.

use super::super::error::ModelError;
use super::super::metrics::auc::{binary_auc, log_loss};
use super::{Task, Trees};

/// What is known of rows.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    /// The class's code, the number, or the relevance.
    pub labels: Vec<f64>,
    /// The query of each row; empty without queries.
    pub groups: Vec<u32>,
}

impl Trees {
    /// The names of what [`Trees::measure`] measures.
    pub fn measures(&self) -> &'static [&'static str] {
        match self.task {
            Task::Classifier => {
                &["precision", "recall", "accuracy", "f1_score", "log_loss", "roc_auc"]
            }
            Task::Regressor => &[
                "mean_absolute_error",
                "mean_squared_error",
                "mean_squared_log_error",
                "median_absolute_error",
                "r2_score",
                "explained_variance",
            ],
            Task::Ranker => &["ndcg"],
        }
    }

    /// Measures rows of [`Preparation::codes`](super::super::Preparation::codes), in the order of
    /// [`Trees::measures`]; NaN where a metric is not defined.
    ///
    /// # Errors
    /// [`ModelError::Empty`] without rows; rows that do not fit.
    pub fn measure(&self, rows: &[f32], targets: &Targets) -> Result<Vec<f64>, ModelError> {
        let scores = self.scores(rows)?;
        let labels = targets.labels.as_slice();
        if labels.is_empty() {
            return Err(ModelError::Empty);
        }
        if scores.len() != labels.len() * scores.len().checked_div(labels.len()).unwrap_or(0) {
            return Err(ModelError::Inconsistent("labels and rows differ in number".to_owned()));
        }
        Ok(match (self.task, &self.classes) {
            (Task::Classifier, Some(classes)) => of_classes(&scores, labels, classes.names.len()),
            (Task::Regressor, _) | (Task::Classifier, None) => of_numbers(&scores, labels),
            (Task::Ranker, _) => vec![ndcg(&scores, labels, &targets.groups)],
        })
    }
}

/// The class of the largest probability, the first of equal ones.
pub(in crate::model) fn most_likely(probabilities: &[f64]) -> usize {
    let better = |best: usize, at: usize| {
        if probabilities[at] > probabilities[best] { at } else { best }
    };
    (0..probabilities.len()).fold(0, better)
}

fn of_classes(probabilities: &[f64], labels: &[f64], classes: usize) -> Vec<f64> {
    let rows = || probabilities.chunks_exact(classes).zip(labels.iter().map(|x| *x as usize));
    let mut hits = vec![0.0; classes];
    let (mut predicted, mut actual) = (vec![0.0; classes], vec![0.0; classes]);
    let mut loss = 0.0;
    for (row, label) in rows() {
        let most = most_likely(row);
        predicted[most] += 1.0;
        actual[label] += 1.0;
        hits[most] += f64::from(u8::from(most == label));
        loss += log_loss(row[label]);
    }
    let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let f1 = |class: usize| ratio(2.0 * hits[class], predicted[class] + actual[class]);
    let auc = |class: usize| {
        let is: Vec<bool> = rows().map(|(_, label)| label == class).collect();
        let scores: Vec<f64> = rows().map(|(row, _)| row[class]).collect();
        binary_auc(&is, &scores).unwrap_or(f64::NAN)
    };
    let measured: Vec<usize> = match classes {
        2 => vec![1],
        _ => (0..classes).filter(|&class| actual[class] > 0.0).collect(),
    };
    let mean = |of: &dyn Fn(usize) -> f64| {
        measured.iter().map(|&class| of(class)).sum::<f64>() / measured.len() as f64
    };
    let count = labels.len() as f64;
    vec![
        mean(&|class| ratio(hits[class], predicted[class])),
        mean(&|class| ratio(hits[class], actual[class])),
        hits.iter().sum::<f64>() / count,
        mean(&f1),
        loss / count,
        mean(&auc),
    ]
}

fn of_numbers(predicted: &[f64], labels: &[f64]) -> Vec<f64> {
    let count = labels.len() as f64;
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / count;
    let pairs = || predicted.iter().zip(labels);
    let errors = || pairs().map(|(p, y)| p - y);
    let center = mean(&mut labels.iter().copied());
    let variance = mean(&mut labels.iter().map(|y| (y - center).powi(2)));
    let squared = mean(&mut errors().map(|e| e * e));
    let bias = mean(&mut errors());
    // Of numbers below −1 there is no logarithm.
    let logs = mean(&mut pairs().map(|(p, y)| (p.ln_1p() - y.ln_1p()).powi(2)));
    let mut absolute: Vec<f64> = errors().map(f64::abs).collect();
    absolute.sort_unstable_by(f64::total_cmp);
    let middle = absolute.len() / 2;
    let median = match absolute.len() % 2 {
        0 => f64::midpoint(absolute[middle - 1], absolute[middle]),
        _ => absolute[middle],
    };
    let share = |left: f64| if variance > 0.0 { 1.0 - left / variance } else { f64::NAN };
    vec![
        mean(&mut absolute.iter().copied()),
        squared,
        logs,
        median,
        share(squared),
        share(squared - bias * bias),
    ]
}

/// The mean over queries of DCG / ideal DCG.
fn ndcg(scores: &[f64], labels: &[f64], groups: &[u32]) -> f64 {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    let group = |row: usize| groups.get(row).copied().unwrap_or(0);
    order.sort_unstable_by(|&a, &b| {
        group(a).cmp(&group(b)).then(scores[b].total_cmp(&scores[a])).then(a.cmp(&b))
    });
    let (mut sum, mut queries) = (0.0, 0_usize);
    for query in order.chunk_by(|&a, &b| group(a) == group(b)) {
        let discount = |rank: usize| 1.0 / ((rank + 2) as f64).log2();
        let mut ideal: Vec<f64> = query.iter().map(|&row| gain(labels[row])).collect();
        ideal.sort_unstable_by(|a, b| b.total_cmp(a));
        let best: f64 = ideal.iter().enumerate().map(|(rank, gain)| gain * discount(rank)).sum();
        if best <= 0.0 {
            continue;
        }
        let (mut found, mut rank) = (0.0, 0);
        for equal in query.chunk_by(|&a, &b| scores[a] == scores[b]) {
            let discounts: f64 = (rank..rank + equal.len()).map(discount).sum();
            let gains: f64 = equal.iter().map(|&row| gain(labels[row])).sum();
            found += gains * discounts / equal.len() as f64;
            rank += equal.len();
        }
        sum += found / best;
        queries += 1;
    }
    sum / queries as f64
}

fn gain(relevance: f64) -> f64 {
    relevance.exp2() - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-9 || a.is_nan() && b.is_nan(), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn classes_are_measured_as_by_scikit_learn() {
        // precision_score, recall_score, accuracy_score, f1_score, log_loss, roc_auc_score of
        // y = [0, 0, 1, 1, 1] and p = [.1, .6, .4, .8, .9].
        let positive = [0.1, 0.6, 0.4, 0.8, 0.9];
        let rows: Vec<f64> = positive.iter().flat_map(|p| [1.0 - p, *p]).collect();
        let found = of_classes(&rows, &[0.0, 0.0, 1.0, 1.0, 1.0], 2);
        let loss =
            -(0.9_f64.ln() + 0.4_f64.ln() + 0.4_f64.ln() + 0.8_f64.ln() + 0.9_f64.ln()) / 5.0;
        close(&found, &[2.0 / 3.0, 2.0 / 3.0, 0.6, 2.0 / 3.0, loss, 5.0 / 6.0]);
        // Of three classes the means over classes.
        let rows = [0.6, 0.3, 0.1, 0.2, 0.5, 0.3, 0.5, 0.2, 0.3, 0.1, 0.1, 0.8];
        let found = of_classes(&rows, &[0.0, 1.0, 2.0, 2.0], 3);
        let loss = -(0.6_f64.ln() + 0.5_f64.ln() + 0.3_f64.ln() + 0.8_f64.ln()) / 4.0;
        let auc = (1.0 + 1.0 + 3.5 / 4.0) / 3.0;
        let f1 = (2.0 / 3.0 + 1.0 + 2.0 / 3.0) / 3.0;
        close(&found, &[2.5 / 3.0, 2.5 / 3.0, 0.75, f1, loss, auc]);
    }

    #[test]
    fn numbers_are_measured_by_hand() {
        let found = of_numbers(&[2.5, 0.0, 2.0, 8.0], &[3.0, -0.5, 2.0, 7.0]);
        close(&found[..2], &[0.5, 0.375]);
        close(&found[3..5], &[0.5, 1.0 - 1.5 / 29.1875]);
        assert!((found[5] - 0.957_173_447_537_473_2).abs() < 1e-12);
        assert!(of_numbers(&[1.0], &[1.0])[4].is_nan());
        // mean_squared_log_error of scikit-learn's own example.
        let found = of_numbers(&[2.5, 5.0, 4.0, 8.0], &[3.0, 5.0, 2.5, 7.0]);
        assert!((found[2] - 0.039_730_122_984_593_79).abs() < 1e-12);
    }

    #[test]
    fn rankings_are_measured_query_by_query() {
        let perfect = ndcg(&[3.0, 2.0, 1.0, 0.0], &[1.0, 0.0, 1.0, 0.0], &[0, 0, 1, 1]);
        assert_eq!(perfect, 1.0);
        let second = ndcg(&[1.0, 2.0, 5.0], &[1.0, 0.0, 0.0], &[0, 0, 1]);
        assert!((second - 1.0 / 3_f64.log2()).abs() < 1e-12);
        let equal = ndcg(&[1.0, 1.0], &[1.0, 0.0], &[0, 0]);
        assert!((equal - f64::midpoint(1.0, 1.0 / 3_f64.log2())).abs() < 1e-12);
        assert!(ndcg(&[1.0], &[0.0], &[0]).is_nan());
    }
}
