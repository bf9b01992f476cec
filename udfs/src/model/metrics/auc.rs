//! Area under the ROC curve and logarithmic loss.
//!
//! AUC is the probability that a positive is scored above a negative, a tie counting half (the
//! statistic of Mann and Whitney 1947, over the number of pairs). For a recommender it is taken
//! user by user, test items against all items that the user neither has nor will have, and averaged
//! over users (Rendle et al. 2009); for a classifier over all rows. Scores that are NaN rank last.

use std::cmp::Ordering;

/// The AUC of one user's scores over the whole catalog.
///
/// `scores` has one score an item; `test` are the positives and `excluded` the items that count on
/// neither side, such as those seen in training; both ascending by code. `None` without a positive
/// or without a negative.
///
/// Takes time in items · log(test items), not in items · log(items).
pub fn user_auc(scores: &[f32], test: &[u32], excluded: &[u32]) -> Option<f64> {
    let score = |item: u32| scores.get(item as usize).copied().map(known);
    let kept = |item: &u32| excluded.binary_search(item).is_err();
    let mut positives: Vec<f32> =
        test.iter().filter(|item| kept(item)).copied().filter_map(score).collect();
    positives.sort_unstable_by(f32::total_cmp);
    let (mut pairs_won, mut negatives) = (0.0, 0_usize);
    let (mut left_out, mut hits) = (excluded.iter().peekable(), test.iter().peekable());
    for (item, value) in (0_u32..).zip(scores) {
        while left_out.next_if(|&&other| other < item).is_some() {}
        while hits.next_if(|&&other| other < item).is_some() {}
        if left_out.peek() == Some(&&item) || hits.peek() == Some(&&item) {
            continue;
        }
        negatives += 1;
        let value = known(*value);
        let below = positives.partition_point(|positive| *positive < value);
        let to_equal = positives.partition_point(|positive| *positive <= value);
        pairs_won += (positives.len() - to_equal) as f64 + (to_equal - below) as f64 / 2.0;
    }
    let pairs = positives.len() as f64 * negatives as f64;
    (pairs > 0.0).then(|| pairs_won / pairs)
}

fn known(score: f32) -> f32 {
    // Adding zero makes -0 and 0 the same.
    if score.is_nan() { f32::NEG_INFINITY } else { score + 0.0 }
}

/// The AUC of a classifier's scores: `labels` says which rows are positive. `None` when all rows
/// are of one kind; rows that only one of the slices has are left out.
pub fn binary_auc(labels: &[bool], scores: &[f64]) -> Option<f64> {
    let [auc] = Scored::new(labels, scores).auc(|_| [1.0]);
    (!auc.is_nan()).then_some(auc)
}

/// Rows of a classifier, sorted by score once so that many weightings are cheap.
pub(super) struct Scored {
    rows: Vec<(f64, bool, u32)>,
}

impl Scored {
    /// Sorts the rows.
    pub(super) fn new(labels: &[bool], scores: &[f64]) -> Self {
        let known = |score: f64| if score.is_nan() { f64::NEG_INFINITY } else { score + 0.0 };
        let numbered = (0_u32..).zip(labels.iter().zip(scores));
        let mut rows: Vec<(f64, bool, u32)> =
            numbered.map(|(row, (label, score))| (known(*score), *label, row)).collect();
        rows.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        Self { rows }
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The AUC under `N` weightings of the rows; NaN where one kind has no weight.
    pub(super) fn auc<const N: usize>(&self, weights: impl Fn(u32) -> [f64; N]) -> [f64; N] {
        let mut pairs_won = [0.0; N];
        let mut below = [[0.0; N]; 2];
        for ties in self.rows.chunk_by(|a, b| a.0.total_cmp(&b.0) == Ordering::Equal) {
            let mut tied = [[0.0; N]; 2];
            for (_, label, row) in ties {
                let sums = &mut tied[usize::from(*label)];
                sums.iter_mut().zip(weights(*row)).for_each(|(sum, weight)| *sum += weight);
            }
            for lane in 0..N {
                let [negatives, positives] = [tied[0][lane], tied[1][lane]];
                pairs_won[lane] += positives * (below[0][lane] + negatives / 2.0);
                below[0][lane] += negatives;
                below[1][lane] += positives;
            }
        }
        std::array::from_fn(|lane| pairs_won[lane] / (below[0][lane] * below[1][lane]))
    }
}

/// The logarithmic loss of one row in nats: −ln of the probability that was given to what came
/// true.
///
/// The probability is kept between ε and 1 − ε with the ε of a double (2.2e−16), as scikit-learn
/// does, so that a certain error costs 36 and not infinity. NaN stays NaN.
pub fn log_loss(probability_of_truth: f64) -> f64 {
    -probability_of_truth.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair_by_pair(positives: &[f32], negatives: &[f32]) -> f64 {
        let mut won = 0.0;
        for positive in positives {
            for negative in negatives {
                won += match positive.total_cmp(negative) {
                    Ordering::Greater => 1.0,
                    Ordering::Equal => 0.5,
                    Ordering::Less => 0.0,
                };
            }
        }
        won / (positives.len() * negatives.len()) as f64
    }

    #[test]
    fn seen_items_count_on_neither_side() {
        let scores = [0.9, 0.1, 0.5, 0.5, 0.2];
        // Positive 2 (.5) against 1 (.1), 3 (.5), 4 (.2); item 0 is left out.
        assert_eq!(user_auc(&scores, &[2], &[0]), Some(2.5 / 3.0));
        assert_eq!(user_auc(&scores, &[], &[0]), None);
        assert_eq!(user_auc(&scores, &[0, 1, 2], &[3, 4]), None);
        assert_eq!(user_auc(&scores, &[2], &[2]), None);
        assert_eq!(user_auc(&[f32::NAN, 0.0], &[0], &[]), Some(0.0));
        assert_eq!(user_auc(&[-0.0, 0.0], &[0], &[]), Some(0.5));
    }

    #[test]
    fn a_classifiers_auc_counts_ties_half() {
        // scikit-learn's roc_auc_score of its own example is 0.75.
        let labels = [false, false, true, true];
        assert_eq!(binary_auc(&labels, &[0.1, 0.4, 0.35, 0.8]), Some(0.75));
        assert_eq!(binary_auc(&labels, &[0.5; 4]), Some(0.5));
        assert_eq!(binary_auc(&[true, true], &[0.1, 0.2]), None);
        assert_eq!(binary_auc(&labels, &[0.1]), None);
        assert_eq!(binary_auc(&labels, &[f64::NAN, 0.4, 0.35, 0.8]), Some(0.75));
    }

    #[test]
    fn log_loss_is_finite_for_a_certain_error() {
        assert_eq!(log_loss(0.5), 2_f64.ln());
        assert!((log_loss(0.0) - 36.043_653_389_117_15).abs() < 1e-9);
        assert!(log_loss(1.0) >= 0.0 && log_loss(1.0) < 1e-15);
        assert!(log_loss(f64::NAN).is_nan());
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn auc_equals_counting_pairs(
            rows in prop::collection::vec((0_u8..3, 0_u8..5), 2..40)
        ) {
            let scores: Vec<f32> = rows.iter().map(|row| f32::from(row.1)).collect();
            let of = |kind: u8| -> Vec<u32> {
                (0..).zip(&rows).filter(|(_, row)| row.0 == kind).map(|(item, _)| item).collect()
            };
            let pick = |items: &[u32]| -> Vec<f32> {
                items.iter().map(|&item| scores[item as usize]).collect()
            };
            let (negatives, positives, excluded) = (of(0), of(1), of(2));
            let found = user_auc(&scores, &positives, &excluded);
            let both: Vec<(bool, f64)> = rows
                .iter()
                .filter(|row| row.0 < 2)
                .map(|row| (row.0 == 1, f64::from(row.1)))
                .collect();
            let (labels, values): (Vec<bool>, Vec<f64>) = both.into_iter().unzip();
            let binary = binary_auc(&labels, &values);
            if positives.is_empty() || negatives.is_empty() {
                prop_assert_eq!((found, binary), (None, None));
            } else {
                let expected = pair_by_pair(&pick(&positives), &pick(&negatives));
                prop_assert!((found.unwrap() - expected).abs() < 1e-12);
                prop_assert!((binary.unwrap() - expected).abs() < 1e-12);
            }
        }
    }
}
