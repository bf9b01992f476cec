//! Fold-in: the factors of a user that training did not see, from a list of interactions.
//!
//! It is the half step that training does for a user, exactly and in `f64`: the same objective,
//! regularization and biases, against the finished item factors. With the sides exchanged it is
//! that of an item ([`super::AlsModel::with_items`]).

use super::als::{Feedback, Resolved};

/// A user's vector and bias (0 without biases).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UserVector {
    /// `num_factors` values.
    pub factors: Vec<f32>,
    /// Added to every score, beside the global mean.
    pub bias: f32,
}

impl UserVector {
    /// Whether anything is known of the user.
    pub fn says_something(&self) -> bool {
        self.bias != 0.0 || self.factors.iter().any(|&x| x != 0.0)
    }
}

/// What a score is made of, biases and mean of the model apart.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contributions {
    /// What each of the user's items adds through the user's factors, in their order.
    pub of_items: Vec<f64>,
    /// The user's bias; 0 without biases.
    pub user_bias: f64,
}

/// The finished item side that a user is folded into.
#[derive(Debug, Clone, Copy)]
pub struct ItemSide<'a> {
    /// Item factors, rows of `size`.
    pub factors: &'a [f32],
    /// Item biases, empty without.
    pub bias: &'a [f32],
    /// Gram matrix of the factors of items that have interactions, `size`² values; used for
    /// implicit feedback.
    pub gram: &'a [f64],
    /// Items that have interactions.
    pub others: usize,
    /// Number of factors.
    pub size: usize,
    /// Mean rating.
    pub mean: f32,
    /// Meaning of the weights.
    pub feedback: Feedback,
    /// The training run's options.
    pub resolved: &'a Resolved,
    /// Whether factors are 0 or more.
    pub non_negative: bool,
}

/// Normal equations of a row.
struct Equations {
    /// Unknowns², row-major.
    matrix: Vec<f64>,
    /// Each item's target on the right-hand side.
    targets: Vec<f64>,
    /// Regularization, which is on the matrix's diagonal already.
    lambda: f64,
}

impl ItemSide<'_> {
    /// Solves one user's row for distinct items with finite weights, drawn to what the user's
    /// features say ([`super::als::FeatureMap::prior_mean`]) where there is a `prior`; without
    /// items that is the answer ([`super::als::FeatureMap::vector`]).
    pub fn fold_in(
        &self,
        items: &[u32],
        weights: &[f32],
        prior: Option<&UserVector>,
    ) -> UserVector {
        let size = self.size;
        if items.is_empty() {
            let nothing = UserVector { factors: vec![0.0; size], bias: 0.0 };
            let mut told = prior.cloned().unwrap_or(nothing);
            if self.non_negative {
                told.factors.iter_mut().for_each(|value| *value = value.max(0.0));
            }
            return told;
        }
        let Equations { matrix, targets, lambda } = self.equations(items, weights);
        let mut right = self.right(items, &targets);
        if let Some(prior) = prior {
            for (right, &mean) in right.iter_mut().zip(prior.factors.iter().chain([&prior.bias])) {
                *right += lambda * f64::from(mean);
            }
        }
        let solution = match self.non_negative {
            true => solve_non_negative(&matrix, &right, size),
            false => solve(matrix, right),
        };
        UserVector {
            factors: solution[..size].iter().map(|&x| x as f32).collect(),
            bias: solution.get(size).map_or(0.0, |&bias| bias as f32),
        }
    }

    /// What each of the user's items adds to the score of `item`, and what the user's bias adds.
    pub fn contributions(&self, items: &[u32], weights: &[f32], item: u32) -> Contributions {
        if items.is_empty() {
            return Contributions { of_items: vec![], user_bias: 0.0 };
        }
        let Equations { mut matrix, targets, .. } = self.equations(items, weights);
        let held = self.held_at_zero(&mut matrix, items, &targets);
        // A⁻¹ is symmetric: solved for the asked item once, it serves every one of the user's.
        let mut asked = self.design(item);
        asked.truncate(self.size);
        asked.resize(self.wide(), 0.0);
        held.iter().for_each(|&at| asked[at] = 0.0);
        let toward = solve(matrix.clone(), asked);
        let product = |left: &[f64], item| -> f64 {
            left.iter().zip(self.design(item)).map(|(a, b)| a * b).sum()
        };
        let pairs = || items.iter().zip(&targets);
        let of_items = pairs().map(|(&own, target)| target * product(&toward, own)).collect();
        let user_bias = match self.bias.is_empty() {
            true => 0.0,
            false => {
                let mut last = vec![0.0; self.wide()];
                last[self.size] = 1.0;
                let toward = solve(matrix, last);
                pairs().map(|(&own, target)| target * product(&toward, own)).sum()
            }
        };
        Contributions { of_items, user_bias }
    }

    /// The right-hand side of the normal equations.
    fn right(&self, items: &[u32], targets: &[f64]) -> Vec<f64> {
        let mut right = vec![0.0_f64; self.wide()];
        for (&item, target) in items.iter().zip(targets) {
            for (right, left) in right.iter_mut().zip(self.design(item)) {
                *right += target * left;
            }
        }
        right
    }

    /// The factors that only their bound holds at 0, taken out of the matrix: with them fixed the
    /// others solve plain equations, so that the shares of items add up.
    fn held_at_zero(&self, matrix: &mut [f64], items: &[u32], targets: &[f64]) -> Vec<usize> {
        if !self.non_negative {
            return vec![];
        }
        let wide = self.wide();
        let solution = solve_non_negative(matrix, &self.right(items, targets), self.size);
        let held: Vec<usize> = (0..self.size).filter(|&at| solution[at] == 0.0).collect();
        for &at in &held {
            for other in 0..wide {
                matrix[at * wide + other] = 0.0;
                matrix[other * wide + at] = 0.0;
            }
            matrix[at * wide + at] = 1.0;
        }
        held
    }

    /// Unknowns of a user: the factors and, with biases, the bias.
    fn wide(&self) -> usize {
        self.size + usize::from(!self.bias.is_empty())
    }

    /// What the unknowns are multiplied by in the prediction of an item.
    fn design(&self, item: u32) -> Vec<f64> {
        let start = item as usize * self.size;
        let factors = &self.factors[start..start + self.size];
        let mut design: Vec<f64> = factors.iter().map(|&y| y.into()).collect();
        design.resize(self.wide(), 1.0);
        design
    }

    /// The normal equations of a user's row.
    fn equations(&self, items: &[u32], weights: &[f32]) -> Equations {
        let (size, wide) = (self.size, self.wide());
        let mut matrix = vec![0.0_f64; wide * wide];
        let mut targets = Vec::with_capacity(items.len());
        if self.feedback == Feedback::Implicit {
            matrix[..size * size].copy_from_slice(self.gram);
        }
        for (&item, &weight) in items.iter().zip(weights) {
            let design = self.design(item);
            let (extra, target) = self.cell(item as usize, f64::from(weight));
            targets.push(target);
            for (line, &left) in matrix.chunks_exact_mut(wide).zip(&design) {
                for (cell, &value) in line.iter_mut().zip(&design) {
                    *cell += extra * left * value;
                }
            }
        }
        let lambda = self.resolved.regularization(items.len(), self.others);
        for index in 0..wide {
            matrix[index * wide + index] += lambda;
        }
        Equations { matrix, targets, lambda }
    }

    /// Weight in the matrix and in the right-hand side.
    fn cell(&self, item: usize, weight: f64) -> (f64, f64) {
        match self.feedback {
            Feedback::Implicit => {
                let extra = self.resolved.alpha * weight.abs();
                (extra, if weight > 0.0 { 1.0 + extra } else { 0.0 })
            }
            Feedback::Explicit => {
                let bias = self.bias.get(item).map_or(0.0, |&bias| f64::from(bias));
                (1.0, weight - f64::from(self.mean) - bias)
            }
        }
    }
}

/// Adds the product of a row of factors with itself to a Gram matrix.
pub(super) fn add_product(gram: &mut [f64], row: &[f32]) {
    for (line, &a) in gram.chunks_exact_mut(row.len()).zip(row) {
        for (cell, &b) in line.iter_mut().zip(row) {
            *cell += f64::from(a) * f64::from(b);
        }
    }
}

/// Minimizes xᵀA·x − 2·bᵀx with the first `size` coordinates 0 or more, one coordinate at a time.
fn solve_non_negative(a: &[f64], b: &[f64], size: usize) -> Vec<f64> {
    let mut x = vec![0.0; b.len()];
    let mut gradient: Vec<f64> = b.iter().map(|b| -b).collect();
    for _ in 0..10_000 {
        let (mut moved, mut norm) = (0.0, 0.0);
        for (at, line) in a.chunks_exact(b.len()).enumerate() {
            let least = if at < size { 0.0 } else { f64::NEG_INFINITY };
            let best = (x[at] - gradient[at] / line[at].max(1e-300)).max(least);
            let change = best - x[at];
            x[at] = best;
            gradient.iter_mut().zip(line).for_each(|(gradient, cell)| *gradient += change * cell);
            moved += change * change * line[at];
            norm += best * best * line[at];
        }
        if moved.is_nan() || moved <= 1e-20 * norm {
            break;
        }
    }
    x
}

/// Solves a symmetric positive definite system by Cholesky's method; a pivot that rounding made
/// too small leaves its coordinate at 0.
fn solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for pivot in 0..n {
        let (done, below) = a.split_at_mut((pivot + 1) * n);
        let line = &mut done[pivot * n..];
        let diagonal = line[pivot];
        if !(diagonal > 1e-300 && diagonal.is_finite()) {
            line.fill(0.0);
            line[pivot] = 1.0;
            b[pivot] = 0.0;
            continue;
        }
        let scale = 1.0 / diagonal.sqrt();
        for cell in &mut line[pivot..] {
            *cell *= scale;
        }
        b[pivot] *= scale;
        for (row, target) in (pivot + 1..n).zip(below.chunks_exact_mut(n)) {
            let factor = line[row];
            for (cell, &value) in target[row..].iter_mut().zip(&line[row..]) {
                *cell -= factor * value;
            }
            b[row] -= factor * b[pivot];
        }
    }
    for row in (0..n).rev() {
        let line = &a[row * n..(row + 1) * n];
        let known: f64 = line[row + 1..].iter().zip(&b[row + 1..]).map(|(u, x)| u * x).sum();
        b[row] = (b[row] - known) / line[row];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::super::als::{AlsOptions, Scaling};
    use super::super::sparse::Csr;
    use super::*;

    #[test]
    fn a_coordinate_that_would_be_negative_is_0() {
        let matrix = [2.0, 1.0, 1.0, 2.0];
        let solution = solve_non_negative(&matrix, &[4.0, 1.0], 2);
        assert!((solution[0] - 2.0).abs() < 1e-9 && solution[1] == 0.0);
        let free = solve_non_negative(&matrix, &[4.0, 1.0], 1);
        assert!((free[0] - 7.0 / 3.0).abs() < 1e-9 && (free[1] + 2.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_user_is_drawn_to_what_the_features_say() {
        let (csr, size) = (Csr::new(vec![0, 1], vec![0], vec![1.0], 1).unwrap(), 1);
        let options = AlsOptions {
            l2_reg: Some(3.0),
            regularization_scaling: Some(Scaling::Constant),
            num_factors: size,
            ..AlsOptions::default()
        };
        let resolved = options.resolve(&csr);
        let side = |non_negative| ItemSide {
            factors: &[2.0],
            bias: &[],
            gram: &[],
            others: 1,
            size,
            mean: 0.0,
            feedback: Feedback::Explicit,
            resolved: &resolved,
            non_negative,
        };
        // The least of (5 − 2x)² + 3·(x − m)².
        let prior = UserVector { factors: vec![-4.0], bias: 0.0 };
        let folded = side(false).fold_in(&[0], &[5.0], Some(&prior));
        assert!((folded.factors[0] - (2.0 * 5.0 - 3.0 * 4.0) / 7.0).abs() < 1e-6);
        assert_eq!(side(true).fold_in(&[0], &[5.0], Some(&prior)).factors, [0.0]);
        assert_eq!(side(false).fold_in(&[], &[], Some(&prior)), prior);
        assert_eq!(side(true).fold_in(&[], &[], Some(&prior)).factors, [0.0]);
        assert_eq!(side(true).fold_in(&[], &[], None).factors, [0.0]);
    }

    #[test]
    fn a_small_system_is_solved() {
        let solution = solve(vec![4.0, 2.0, 2.0, 3.0], vec![10.0, 9.0]);
        assert!((solution[0] - 1.5).abs() < 1e-12 && (solution[1] - 2.0).abs() < 1e-12);
        assert_eq!(solve(vec![0.0; 4], vec![1.0, 1.0]), [0.0, 0.0]);
    }
}
