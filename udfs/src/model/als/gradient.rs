//! What interactions say of the item factors, as a gradient: the seam for training over several
//! parties, none of whom shows its interactions.
//!
//! Of implicit feedback the objective (see [`super::options::AlsOptions`]) is a sum over users.
//! Whoever holds some of the users solves their factors against the item factors as they are
//! ([`super::Training`] with a warm start, or a fold-in), and tells [`ItemGradient::of`] its
//! interactions. [`ItemGradient::add`] makes of several parties' gradients that of all their
//! interactions together, and [`ItemGradient::step`] moves the item factors by it. A gradient is
//! of many users, but is not private by itself: clipping each user's part and adding noise
//! ([`crate::privacy`]) has its place in [`ItemGradient::of`], where a user's part is still one.
//! Each iteration would cost its rho ([`crate::privacy::noise::accounting`]), and counts and users
//! are exact here, so that they would need noise as well. Nothing trains that way: CREATE MODEL
//! refuses an epsilon.
//!
//! Source: Ammad-ud-din et al. 2019, federated collaborative filtering.

use super::super::error::ModelError;
use super::super::sparse::Csr;
use super::AlsFactors;
use super::options::{AlsOptions, Feedback};

/// The gradient of the users' part of the objective by the item factors.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemGradient {
    /// `items × num_factors` values, row-major.
    values: Vec<f64>,
    /// Each item's interactions, with which its regularization grows.
    counts: Vec<u64>,
    /// Users with interactions, likewise.
    users: usize,
}

impl ItemGradient {
    /// The gradient of some users' interactions at these factors.
    ///
    /// # Errors
    /// For explicit feedback; where α or λ would be chosen by the interactions, which several
    /// parties would do each for itself; where factors and interactions do not fit.
    pub fn of(
        interactions: &Csr,
        options: &AlsOptions,
        factors: &AlsFactors,
    ) -> Result<Self, ModelError> {
        check(options)?;
        let size = options.num_factors;
        let (rows, items) = (interactions.rows(), interactions.columns());
        if factors.user_factors.len() != rows * size || factors.item_factors.len() != items * size {
            return Err(ModelError::Inconsistent("factors are not of these interactions".into()));
        }
        let alpha = options.resolve(interactions).alpha;
        let mut values = vec![0.0; items * size];
        let mut gram = vec![0.0; size * size];
        let mut users = 0;
        for (user, x) in factors.user_factors.chunks_exact(size).enumerate() {
            let (columns, weights) = interactions.row(user);
            if columns.is_empty() {
                continue;
            }
            users += 1;
            for (line, &a) in gram.chunks_exact_mut(size).zip(x) {
                add_scaled(line, f64::from(a), x);
            }
            for (&item, &weight) in columns.iter().zip(weights) {
                let at = item as usize * size;
                let y = &factors.item_factors[at..at + size];
                let score: f64 = x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
                let weight = f64::from(weight);
                let preference = if weight > 0.0 { 1.0 } else { 0.0 };
                // What an observed cell adds to what it would be unobserved.
                let slope = (1.0 + alpha * weight.abs()) * (score - preference) - score;
                add_scaled(&mut values[at..at + size], 2.0 * slope, x);
            }
        }
        for (line, y) in values.chunks_exact_mut(size).zip(factors.item_factors.chunks_exact(size))
        {
            for (row, &b) in gram.chunks_exact(size).zip(y) {
                let b = 2.0 * f64::from(b);
                line.iter_mut().zip(row).for_each(|(value, &a)| *value += a * b);
            }
        }
        let counts = interactions.column_counts().into_iter().map(u64::from).collect();
        Ok(Self { values, counts, users })
    }

    /// Adds another party's gradient, taken at the same item factors.
    ///
    /// # Errors
    /// When it is of other items or of another number of factors.
    pub fn add(&mut self, other: &Self) -> Result<(), ModelError> {
        if self.values.len() != other.values.len() || self.counts.len() != other.counts.len() {
            return Err(ModelError::Inconsistent("gradients are of different items".into()));
        }
        self.values.iter_mut().zip(&other.values).for_each(|(value, &more)| *value += more);
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, &more)| *count += more);
        self.users += other.users;
        Ok(())
    }

    /// Moves the item factors against the gradient, regularization included, by `rate` times it.
    /// Items without interactions stay.
    ///
    /// # Errors
    /// Those of [`Self::of`].
    pub fn step(
        &self,
        options: &AlsOptions,
        item_factors: &mut [f32],
        rate: f64,
    ) -> Result<(), ModelError> {
        check(options)?;
        let size = options.num_factors;
        if item_factors.len() != self.values.len() || self.counts.len() * size != self.values.len()
        {
            return Err(ModelError::Inconsistent("the gradient is of other items".into()));
        }
        let resolved = options.resolve(&Csr::empty(0, 0));
        let lines = item_factors.chunks_exact_mut(size).zip(self.values.chunks_exact(size));
        for ((y, line), &count) in lines.zip(&self.counts).filter(|&(_, &count)| count > 0) {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let lambda = resolved.regularization(count, self.users);
            for (y, &slope) in y.iter_mut().zip(line) {
                let old = f64::from(*y);
                *y = (old - rate * (slope + 2.0 * lambda * old)) as f32;
            }
        }
        Ok(())
    }
}

fn check(options: &AlsOptions) -> Result<(), ModelError> {
    options.validate()?;
    let fail = |option, value: &str, hint| {
        Err(ModelError::Option { option, value: value.to_owned(), hint })
    };
    match (options.feedback, options.wals_alpha, options.l2_reg) {
        (Feedback::Explicit, ..) => {
            fail("feedback_type", "explicit", "Gradients are of implicit feedback")
        }
        (_, None, _) => fail("wals_alpha", "NULL", "Name it: each party would choose its own"),
        (_, _, None) => fail("l2_reg", "NULL", "Name it: each party would choose its own"),
        _ => Ok(()),
    }
}

fn add_scaled(line: &mut [f64], factor: f64, x: &[f32]) {
    line.iter_mut().zip(x).for_each(|(value, &x)| *value += factor * f64::from(x));
}
