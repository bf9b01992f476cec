//! From scores to probabilities: a logistic of the score (Platt 1999).
//!
//! Recommenders score on scales of their own, some without bounds. Their logarithmic losses compare
//! once each score s has become 1 / (1 + e^−(a·s + b)), with the a and b that fit the measured
//! pairs best: the loss then says how far the scores tell what a person took from what the person
//! did not. With as many of the one as of the other, ln 2 = 0.693 is knowing nothing.

use super::auc::log_loss;

/// Newton steps at most.
const STEPS_MAX: usize = 30;
/// Keeps the slope finite where the scores tell everything: negligible else.
const RIDGE: f64 = 1e-6;
/// Pairs that are fitted at most; of more, evenly spread ones.
const PAIRS_MAX: usize = 100_000;

/// Probabilities of scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logistic {
    mean: f64,
    scale: f64,
    slope: f64,
    offset: f64,
}

impl Logistic {
    /// What it is made of, to be stored.
    pub fn parameters(&self) -> [f64; 4] {
        [self.mean, self.scale, self.slope, self.offset]
    }

    /// The logistic of [`Logistic::parameters`].
    pub fn from_parameters([mean, scale, slope, offset]: [f64; 4]) -> Self {
        Self { mean, scale, slope, offset }
    }

    /// Fits the probability that a pair of this score is one that came true. Scores that are not
    /// finite are left out. Without any score every probability is ½.
    pub fn fit(pairs: &[(f32, bool)]) -> Self {
        let step = pairs.len().div_ceil(PAIRS_MAX).max(1);
        let finite = pairs.iter().step_by(step).filter(|(score, _)| score.is_finite());
        let pairs: Vec<(f64, f64)> =
            finite.map(|&(score, truth)| (score.into(), f64::from(u8::from(truth)))).collect();
        let count = pairs.len().max(1) as f64;
        let mean = pairs.iter().map(|(score, _)| score).sum::<f64>() / count;
        let variance = pairs.iter().map(|(score, _)| (score - mean).powi(2)).sum::<f64>() / count;
        let scale = if variance > 0.0 { variance.sqrt().recip() } else { 0.0 };
        let mut fitted = Self { mean, scale, slope: 0.0, offset: 0.0 };
        let mut loss = fitted.loss(&pairs);
        for _ in 0..STEPS_MAX {
            let [slope, offset] = fitted.newton(&pairs);
            // Far from the optimum a whole step may lead away from it.
            let halves = (0..20).map(|halvings| 0.5_f64.powi(halvings));
            let mut steps = halves.map(|part| Self {
                slope: fitted.slope - part * slope,
                offset: fitted.offset - part * offset,
                ..fitted
            });
            let better = steps.find_map(|next| {
                let now = next.loss(&pairs);
                (now < loss).then_some((next, now))
            });
            let Some((next, now)) = better else { break };
            let gain = loss - now;
            (fitted, loss) = (next, now);
            if gain < 1e-12 {
                break;
            }
        }
        fitted
    }

    /// The mean loss with the ridge.
    fn loss(&self, pairs: &[(f64, f64)]) -> f64 {
        let of = |&(score, truth): &(f64, f64)| {
            let logit = self.logit(score);
            // −ln of the probability of the truth, without overflow.
            logit.max(0.0) - logit * truth + (-logit.abs()).exp().ln_1p()
        };
        let sum: f64 = pairs.iter().map(of).sum();
        sum / pairs.len().max(1) as f64 + RIDGE / 2.0 * (self.slope.powi(2) + self.offset.powi(2))
    }

    /// The Newton step: the inverse of the Hessian times the gradient.
    fn newton(&self, pairs: &[(f64, f64)]) -> [f64; 2] {
        let count = pairs.len().max(1) as f64;
        let mut gradient = [RIDGE * self.slope, RIDGE * self.offset];
        let (mut slopes, mut mixed, mut offsets) = (RIDGE, 0.0, RIDGE);
        for &(score, truth) in pairs {
            let x = (score - self.mean) * self.scale;
            let probability = sigmoid(self.logit(score));
            let error = (probability - truth) / count;
            let curvature = probability * (1.0 - probability) / count;
            gradient = [gradient[0] + error * x, gradient[1] + error];
            slopes += curvature * x * x;
            mixed += curvature * x;
            offsets += curvature;
        }
        let determinant = slopes * offsets - mixed * mixed;
        [
            (offsets * gradient[0] - mixed * gradient[1]) / determinant,
            (slopes * gradient[1] - mixed * gradient[0]) / determinant,
        ]
    }

    fn logit(&self, score: f64) -> f64 {
        self.slope * (score - self.mean) * self.scale + self.offset
    }

    /// The probability of a score; NaN stays NaN.
    pub fn probability(&self, score: f32) -> f64 {
        sigmoid(self.logit(score.into()))
    }

    /// The mean logarithmic loss of scores of what came true and of what did not, in nats; `None`
    /// without a score.
    pub fn mean_loss(&self, came_true: &[f32], did_not: &[f32]) -> Option<f64> {
        let of_true = came_true.iter().map(|&score| log_loss(self.probability(score)));
        let of_false = did_not.iter().map(|&score| log_loss(1.0 - self.probability(score)));
        let count = came_true.len() + did_not.len();
        (count > 0).then(|| of_true.chain(of_false).sum::<f64>() / count as f64)
    }
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_that_tell_nothing_lose_ln_2() {
        let pairs = [(0.3, true), (0.3, false), (0.9, true), (0.9, false)];
        let fitted = Logistic::fit(&pairs);
        assert!((fitted.mean_loss(&[0.3, 0.9], &[0.3, 0.9]).unwrap() - 2_f64.ln()).abs() < 1e-9);
        assert_eq!(Logistic::fit(&[]).probability(3.0), 0.5);
        assert_eq!(Logistic::fit(&[]).mean_loss(&[], &[]), None);
    }

    #[test]
    fn the_fit_is_the_share_where_scores_come_in_two_kinds() {
        // Of the pairs at 0 a quarter came true, of those at 1 three quarters.
        let mut pairs = vec![(0.0, false); 3];
        pairs.extend([(0.0, true), (1.0, false), (1.0, true), (1.0, true), (1.0, true)]);
        let fitted = Logistic::fit(&pairs);
        assert!((fitted.probability(0.0) - 0.25).abs() < 1e-4, "{fitted:?}");
        assert!((fitted.probability(1.0) - 0.75).abs() < 1e-4);
        // The unit of the scores does not matter.
        let scaled: Vec<(f32, bool)> = pairs.iter().map(|&(s, t)| (1e6 * s - 7e5, t)).collect();
        let other = Logistic::fit(&scaled);
        assert!((other.probability(3e5) - fitted.probability(1.0)).abs() < 1e-4);
    }

    #[test]
    fn scores_that_tell_everything_lose_almost_nothing() {
        let pairs: Vec<(f32, bool)> = (0..40).map(|at| (at as f32, at >= 20)).collect();
        let fitted = Logistic::fit(&pairs);
        let of = |truth: bool| -> Vec<f32> {
            pairs.iter().filter(|pair| pair.1 == truth).map(|pair| pair.0).collect()
        };
        let loss = fitted.mean_loss(&of(true), &of(false)).unwrap();
        assert!((0.0..0.02).contains(&loss), "{loss} {fitted:?}");
        assert!(fitted.probability(f32::NAN).is_nan());
    }
}
