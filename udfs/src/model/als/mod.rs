//! Matrix factorization by alternating least squares, implicit and explicit.
//!
//! Objectives, options and their defaults are in [`options`]. An iteration solves all users
//! against the items, then all items against the users; within it
//!
//! * rows are renumbered by descending number of interactions, so that the longest are solved
//!   first and the most used factors share cache lines;
//! * for implicit feedback both sides are rotated into the eigenbasis of the fixed side's Gram
//!   matrix ([`gram`]), where a row costs no more than its own interactions;
//! * where the fixed side is larger than the caches, gradients read it from a copy in 16 bits
//!   ([`narrow`]);
//! * a row is solved by conjugate gradients ([`cg`], or [`stream`] where it is long), exactly
//!   ([`cholesky`], small ones several at a time: [`batch`]), block by block ([`subspace`]) or
//!   with factors of 0 or more ([`nonnegative`]); which it is, is chosen by size ([`choice`])
//!   unless it is named;
//! * factors may be drawn to what is known of users and items beside their interactions
//!   ([`features`]).
//!
//! What parties who keep their interactions to themselves would exchange is in [`gradient`].
//! The same arguments give the same factors, whatever the number of threads. Nothing grows with
//! the data but the interactions, twice, and the factors, twice, of a large side two and a half
//! times; see [`AlsOptions::memory_bytes`].
//! Sources: Hu, Koren and Volinsky 2008; Zhou et al. 2008 (ALS-WR); Takács et al. 2011
//! (conjugate gradients); Rendle et al. 2021 (iALS, frequency scaling; iALS++, subspaces).

mod ahead;
mod batch;
mod cg;
mod choice;
mod cholesky;
mod chunk;
pub mod eigen;
pub mod features;
pub mod gradient;
mod gram;
mod interleaved;
mod narrow;
mod nonnegative;
mod normal;
pub mod objective;
pub mod options;
mod row;
mod side;
mod stream;
mod subspace;
mod trainer;
mod view;
mod watch;

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

pub use self::features::FeatureMap;
pub use self::options::{AlsOptions, Feedback, Resolved, Scaling, Solver};
pub use self::view::FactorView;

use self::trainer::Trainer;
use super::cancel::{self, VALUES_PER_LOOK};
use super::error::ModelError;
use super::kernel::largest_magnitude_unless;
use super::sparse::Csr;

/// A weight beyond that of an unobserved cell below which a cell counts as unobserved.
const WEIGHT_MIN: f64 = 1e-30;
/// The largest weight or rating: its square leaves room in `f32` for sums over rows and factors.
const WEIGHT_MAX: f64 = 1e12;

/// Where training is; reported after each half iteration here, after each step of other learners.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Iteration, from 1.
    pub iteration: usize,
    /// Half iterations, or steps, done.
    pub done: usize,
    /// Half iterations, or steps, planned.
    pub total: usize,
    /// The objective, known at the end of an iteration; `None` for learners without one.
    pub loss: Option<f64>,
    /// The validation metric, known at the end of an iteration when there is one.
    pub metric: Option<f64>,
}

/// Learned factors, unpadded, by the interactions' own codes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AlsFactors {
    /// `users × num_factors` values, row-major.
    pub user_factors: Vec<f32>,
    /// `items × num_factors` values, row-major.
    pub item_factors: Vec<f32>,
    /// One bias a user, empty without biases.
    pub user_bias: Vec<f32>,
    /// One bias an item, empty without biases.
    pub item_bias: Vec<f32>,
    /// Mean rating, 0 without biases.
    pub global_mean: f32,
    /// Objective after each iteration.
    pub losses: Vec<f64>,
}

/// The last version's factors, to start from instead of random ones.
///
/// A row that the last version does not have starts as it does without a warm start: an item's
/// drawn, a user's 0. The basis of the factors does not matter, as long as both sides are of one
/// version.
#[derive(Debug, Clone, Copy)]
pub struct WarmStart<'a> {
    /// The last version's, of as many factors.
    pub factors: &'a AlsFactors,
    /// For each user's code its row in the last version.
    pub users: &'a [Option<u32>],
    /// For each item's code its row in the last version.
    pub items: &'a [Option<u32>],
}

/// Looks at the factors after an iteration, from 1, and gives their worth: the higher the better.
pub type Metric<'a> = dyn FnMut(&FactorView<'_>, usize) -> ControlFlow<f64, f64> + Send + 'a;

/// A metric of held-out interactions that decides which iteration is the model.
pub struct Validation<'a> {
    /// Called after each iteration. NaN is worse than any number (of NaN alone, the last is taken);
    /// `Break` makes the iteration the last one.
    pub metric: &'a mut Metric<'a>,
    /// Training ends after so many iterations in a row without an improvement; 0 never ends it.
    pub patience: usize,
    /// What counts as one: this share of the value to be bettered. The best iteration is the one
    /// with the highest value, by however little.
    pub min_rel_improvement: f64,
}

/// What a model is trained on, and how.
pub struct Training<'a> {
    /// Users × items, with finite values.
    pub interactions: &'a Csr,
    /// How.
    pub options: &'a AlsOptions,
    /// The last version.
    pub warm_start: Option<WarmStart<'a>>,
    /// Users × features, see [`features`].
    pub user_features: Option<&'a Csr>,
    /// Items × features.
    pub item_features: Option<&'a Csr>,
    /// The metric that chooses the iteration; without it the last one is the model.
    pub validation: Option<Validation<'a>>,
}

/// A finished training.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// Factors of the best iteration, losses of all.
    pub factors: AlsFactors,
    /// The iteration that the factors are of, from 1.
    pub best_iteration: usize,
    /// The validation metric after each iteration; empty without one.
    pub metrics: Vec<f64>,
    /// From user features to factors, when there were any.
    pub user_map: Option<FeatureMap>,
    /// From item features to factors.
    pub item_map: Option<FeatureMap>,
}

impl<'a> Training<'a> {
    /// Interactions and options alone.
    pub fn new(interactions: &'a Csr, options: &'a AlsOptions) -> Self {
        Self {
            interactions,
            options,
            warm_start: None,
            user_features: None,
            item_features: None,
            validation: None,
        }
    }

    /// Peak bytes of this training, the interactions themselves included; see
    /// [`AlsOptions::memory_bytes`].
    pub fn memory_bytes(&self) -> usize {
        let csr = self.interactions;
        let sides = [self.user_features, self.item_features].into_iter().flatten();
        self.options.memory_bytes(csr.rows(), csr.columns(), csr.cells())
            + sides
                .map(|side| self.options.feature_bytes(side.rows(), side.columns(), side.cells()))
                .sum::<usize>()
    }

    /// Learns the factors on the current rayon pool.
    ///
    /// # Errors
    /// Invalid options, an empty matrix, a value that is not finite, a warm start or features of
    /// another shape, or cancellation. The flag is looked at within each row, however long, within
    /// the eigenproblem and between the rows of the copies of the interactions.
    pub fn run(
        mut self,
        progress: &mut dyn FnMut(Progress),
        cancel: &AtomicBool,
    ) -> Result<Trained, ModelError> {
        let resolved = self.check(cancel)?;
        let validation = self.validation.take();
        Trainer::new(&self, resolved, cancel)?.run(validation, progress)
    }

    /// What the options come to for these interactions, when all fits together.
    fn check(&self, cancel: &AtomicBool) -> Result<Resolved, ModelError> {
        self.options.validate()?;
        if self.interactions.cells() == 0 {
            return Err(ModelError::Empty);
        }
        let largest = largest_finite(self.interactions, "rating", cancel)?;
        let resolved = self.options.resolve_unless(self.interactions, cancel);
        self.check_weights(largest, resolved.alpha, cancel)?;
        let (users, items) = (self.interactions.rows(), self.interactions.columns());
        for (features, rows, name) in [
            (self.user_features, users, "user_features"),
            (self.item_features, items, "item_features"),
        ] {
            let Some(features) = features else { continue };
            if features.rows() != rows {
                let hint = "Give one row of features for each user or item";
                return fail(name, format!("{} rows", features.rows()), hint);
            }
            if features.columns() > features::MAX_FEATURES {
                let limit = features::MAX_FEATURES as u64;
                return Err(ModelError::TooLarge { what: "the number of features", limit });
            }
            largest_finite(features, name, cancel)?;
        }
        self.warm_start.map_or(Ok(()), |warm| warm.check(self.options, users, items))?;
        Ok(resolved)
    }
}

impl Training<'_> {
    /// Squares of weights are added up in `f32`, and evidence has to speak for something.
    fn check_weights(
        &self,
        largest: f64,
        alpha: f64,
        cancel: &AtomicBool,
    ) -> Result<(), ModelError> {
        let (what, value, hint) = match self.options.feedback {
            Feedback::Explicit => {
                ("rating", largest, "Scale the ratings down in the training query, to 1e12 at most")
            }
            Feedback::Implicit => {
                let counts = |&value: &f32| alpha * f64::from(value) >= WEIGHT_MIN;
                if !parts(self.interactions.values(), cancel).flatten().any(counts) {
                    cancel::check(cancel)?;
                    return Err(ModelError::NoEvidence);
                }
                let hint = "Scale the weights down in the training query, as with ln(1 + weight), \
                            or lower wals_alpha: their product may be 1e12 at most";
                ("weight times wals_alpha", alpha * largest, hint)
            }
        };
        match value <= WEIGHT_MAX {
            true => Ok(()),
            false => Err(ModelError::TooHeavy { what, value, hint }),
        }
    }
}

impl WarmStart<'_> {
    fn check(&self, options: &AlsOptions, users: usize, items: usize) -> Result<(), ModelError> {
        let size = options.num_factors;
        let fits = |factors: &[f32], rows: &[Option<u32>], count: usize| {
            let known = (factors.len() / size) as u32;
            factors.len().is_multiple_of(size)
                && rows.len() == count
                && rows.iter().flatten().all(|&row| row < known)
        };
        if fits(&self.factors.user_factors, self.users, users)
            && fits(&self.factors.item_factors, self.items, items)
        {
            return Ok(());
        }
        let hint = "Give a last version with as many factors, or train without a warm start";
        fail("warm_start", "a version of another shape".to_owned(), hint)
    }
}

fn fail<T>(option: &'static str, value: String, hint: &'static str) -> Result<T, ModelError> {
    Err(ModelError::Option { option, value, hint })
}

/// The largest magnitude of the values, when all of them are finite.
fn largest_finite(matrix: &Csr, column: &str, cancel: &AtomicBool) -> Result<f64, ModelError> {
    let largest = largest_magnitude_unless(matrix.values(), cancel);
    cancel::check(cancel)?;
    if largest.is_finite() {
        return Ok(f64::from(largest));
    }
    let value = matrix.values().iter().copied().find(|value| !value.is_finite());
    Err(ModelError::NotFinite { column: column.to_owned(), value: value.unwrap_or(largest) })
}

/// [`Training::run`] for interactions and options alone.
///
/// # Errors
/// Those of [`Training::run`].
pub fn train(
    interactions: &Csr,
    options: &AlsOptions,
    progress: &mut dyn FnMut(Progress),
    cancel: &AtomicBool,
) -> Result<AlsFactors, ModelError> {
    Training::new(interactions, options).run(progress, cancel).map(|trained| trained.factors)
}

/// The values in parts, as far as the flag is not set.
fn parts<'a>(values: &'a [f32], cancel: &'a AtomicBool) -> impl Iterator<Item = &'a [f32]> {
    values.chunks(VALUES_PER_LOOK).take_while(move |_| !cancel::is_set(cancel))
}

fn mean(values: &[f32]) -> f64 {
    mean_unless(values, &AtomicBool::new(false))
}

/// The mean; wrong, and soon there, once the flag is set.
fn mean_unless(values: &[f32], cancel: &AtomicBool) -> f64 {
    let sum = parts(values, cancel).flatten().map(|&value| f64::from(value)).sum::<f64>();
    sum / values.len().max(1) as f64
}

#[cfg(test)]
mod tests;
