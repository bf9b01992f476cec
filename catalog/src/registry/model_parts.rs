//! Between a recommender in memory and what its files and manifest hold.

use arrow::array::Array;
use serde::{Deserialize, Serialize};
use udfs::model::als::{AlsFactors, AlsOptions, Feedback, Scaling, Solver};
use udfs::model::{AlsModel, Csr, IdIndex, ModelError, ModelParts};

use super::manifest::Manifest;
use super::model_files::{Cells, Side};
use crate::error::{Error, Result};

/// The learner's options as the manifest holds them; see [`AlsOptions`] for their meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredOptions {
    implicit: bool,
    num_factors: usize,
    max_iterations: usize,
    l2_reg: Option<f64>,
    wals_alpha: Option<f64>,
    regularization_scaling: Option<StoredScaling>,
    frequency_exponent: f64,
    solver: StoredSolver,
    cg_steps: usize,
    biases: bool,
    seed: u64,
    min_rel_progress: Option<f64>,
    #[serde(default)]
    block_size: Option<usize>,
    #[serde(default)]
    non_negative: bool,
    #[serde(default = "one")]
    feature_reg: f64,
}

fn one() -> f64 {
    1.0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredScaling {
    Constant,
    Count,
    Frequency,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredSolver {
    Auto,
    Cholesky,
    ConjugateGradient,
    Subspace,
}

impl StoredOptions {
    /// The options of a model.
    pub fn new(options: &AlsOptions) -> Self {
        Self {
            implicit: options.feedback == Feedback::Implicit,
            num_factors: options.num_factors,
            max_iterations: options.max_iterations,
            l2_reg: options.l2_reg,
            wals_alpha: options.wals_alpha,
            regularization_scaling: options.regularization_scaling.map(|scaling| match scaling {
                Scaling::Constant => StoredScaling::Constant,
                Scaling::Count => StoredScaling::Count,
                Scaling::Frequency => StoredScaling::Frequency,
            }),
            frequency_exponent: options.frequency_exponent,
            solver: match options.solver {
                Solver::Auto => StoredSolver::Auto,
                Solver::Cholesky => StoredSolver::Cholesky,
                Solver::ConjugateGradient => StoredSolver::ConjugateGradient,
                Solver::Subspace => StoredSolver::Subspace,
            },
            cg_steps: options.cg_steps,
            biases: options.biases,
            seed: options.seed,
            min_rel_progress: options.min_rel_progress,
            block_size: options.block_size,
            non_negative: options.non_negative,
            feature_reg: options.feature_reg,
        }
    }

    /// The options for the learner.
    pub fn to_options(&self) -> AlsOptions {
        AlsOptions {
            feedback: if self.implicit { Feedback::Implicit } else { Feedback::Explicit },
            num_factors: self.num_factors,
            max_iterations: self.max_iterations,
            l2_reg: self.l2_reg,
            wals_alpha: self.wals_alpha,
            regularization_scaling: self.regularization_scaling.map(|scaling| match scaling {
                StoredScaling::Constant => Scaling::Constant,
                StoredScaling::Count => Scaling::Count,
                StoredScaling::Frequency => Scaling::Frequency,
            }),
            frequency_exponent: self.frequency_exponent,
            solver: match self.solver {
                StoredSolver::Auto => Solver::Auto,
                StoredSolver::Cholesky => Solver::Cholesky,
                StoredSolver::ConjugateGradient => Solver::ConjugateGradient,
                StoredSolver::Subspace => Solver::Subspace,
            },
            cg_steps: self.cg_steps,
            biases: self.biases,
            seed: self.seed,
            min_rel_progress: self.min_rel_progress,
            block_size: self.block_size,
            non_negative: self.non_negative,
            feature_reg: self.feature_reg,
        }
    }
}

/// Puts a model together from what its files hold.
///
/// # Errors
/// When the parts contradict each other: ids that repeat, codes out of range.
pub fn assemble(users: Side, items: Side, cells: Cells, manifest: &Manifest) -> Result<AlsModel> {
    let wrong = |error: ModelError| Error::invalid(error.to_string());
    let seen = Csr::new(cells.offsets, cells.items, cells.weights, items.ids.len());
    let user_ids = IdIndex::from_values(&manifest.user_col, users.ids).map_err(wrong)?;
    let item_ids = IdIndex::from_values(&manifest.item_col, items.ids).map_err(wrong)?;
    let factors = AlsFactors {
        user_factors: users.factors,
        item_factors: items.factors,
        user_bias: users.bias,
        item_bias: items.bias,
        global_mean: manifest.global_mean,
        losses: manifest.iterations.iter().map(|iteration| iteration.loss).collect(),
    };
    let parts = ModelParts {
        users: user_ids,
        items: item_ids,
        factors,
        seen: seen.map_err(wrong)?,
        options: manifest.learner.to_options(),
    };
    AlsModel::from_parts(parts).map_err(wrong)
}
