//! Boosted trees: classes, numbers and the order of items in a query, from rows of features.
//!
//! Newton boosting with histograms (Friedman 2001; Chen and Guestrin 2016) by the crate hessboost;
//! the ranker is LambdaMART on NDCG (Burges 2010). A feature that is missing takes the side of a
//! split that lowers the loss more; categories are split into two sets. The same rows and seed give
//! the same trees whatever the number of threads. A training that is cancelled ends with the
//! iteration that it is in: the crate asks between iterations only. The loss of an iteration is
//! that of evenly spaced training rows where there are more than 32,768.
//!
//! Features are 32-bit floats: whole numbers above 2²⁴ lose their last digits.

mod calibration;
mod measure;
mod options;
mod parts;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray};
use arrow::datatypes::DataType;
use hessboost::config::{TrainingParams, TreeMethod};
use hessboost::data::{DMatrix, FeatureType};
use hessboost::metric::{Cutoff, EvalMetric};
use hessboost::model::{BoostedModel, ImportanceType, Iterations, ModelFormat};
use hessboost::objective::{LambdaRank, Multiclass, Objective, RegLoss};
use hessboost::training::{RoundEval, Trainer};

pub use self::calibration::Calibrator;
pub use self::measure::Targets;
pub(super) use self::measure::most_likely;
pub use self::options::{BoostedOptions, Calibration, ClassWeights, Task};
pub use self::parts::{Division, Part, divide_at_random};

use super::als::Progress;
use super::error::ModelError;
use super::features::{Feature, FeatureKind};

/// Training rows that an iteration's loss is told of, evenly spaced: to measure all of them takes
/// longer than to grow the tree.
const TOLD_ROWS: usize = 1 << 15;

/// Iterations without a better validation metric that end a training.
const PATIENCE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9);

/// The type of a classifier's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassType {
    /// Texts.
    Text,
    /// Whole numbers.
    Integer,
    /// TRUE and FALSE.
    Truth,
}

/// What a classifier tells apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Classes {
    /// The label's type.
    pub of: ClassType,
    /// The classes as text, ascending; of two the second is the positive one.
    pub names: Vec<String>,
}

impl Classes {
    /// The type of a column of classes.
    pub fn data_type(&self) -> DataType {
        match self.of {
            ClassType::Text => DataType::Utf8,
            ClassType::Integer => DataType::Int64,
            ClassType::Truth => DataType::Boolean,
        }
    }

    /// Classes by their codes, as a column of the label's type.
    pub fn column(&self, codes: impl Iterator<Item = usize>) -> ArrayRef {
        let names = codes.map(|code| self.names.get(code).map(String::as_str));
        match self.of {
            ClassType::Text => Arc::new(names.collect::<StringArray>()),
            ClassType::Integer => {
                Arc::new(names.map(|name| name?.parse().ok()).collect::<Int64Array>())
            }
            ClassType::Truth => Arc::new(
                names.map(|name| name.map(|name| name == "true")).collect::<BooleanArray>(),
            ),
        }
    }
}

/// Finished trees.
#[derive(Debug)]
pub struct Trees {
    /// What they predict.
    pub task: Task,
    /// The label's column.
    pub label: String,
    /// The ranker's column of queries.
    pub group: Option<String>,
    /// The classifier's classes.
    pub classes: Option<Classes>,
    /// From scores to probabilities, one a class, of two classes one for the positive one; none
    /// where the scores are the probabilities.
    pub calibrators: Vec<Calibrator>,
    boosted: BoostedModel,
}

/// What training gives.
#[derive(Debug)]
pub struct Grown {
    /// The trees.
    pub trees: Trees,
    /// The iteration that they are of, from 1, when the validation part chose it.
    pub best_iteration: Option<usize>,
}

/// What is to be grown.
#[derive(Debug)]
pub struct Growth<'a> {
    /// What the features are.
    pub features: &'a [Feature],
    /// The label's column.
    pub label: String,
    /// The ranker's column of queries.
    pub group: Option<String>,
    /// The classifier's classes.
    pub classes: Option<Classes>,
    /// The options.
    pub options: &'a BoostedOptions,
}

impl Growth<'_> {
    /// Grows trees on the rows of `training`; with a `validation` part that chooses the iteration
    /// and the calibration, as far as the options ask for them.
    ///
    /// # Errors
    /// Options or labels that are not valid, no rows, cancellation.
    pub fn run(
        self,
        training: Part,
        validation: Option<Part>,
        progress: &mut (dyn FnMut(Progress) + Send),
        cancel: &AtomicBool,
    ) -> Result<Grown, ModelError> {
        self.options.validate()?;
        if training.is_empty() {
            return Err(ModelError::Empty);
        }
        let weights = self.class_weights(&training)?;
        let told = training.spaced(TOLD_ROWS);
        let told = told.map(|part| self.matrix(part, weights.as_deref())).transpose()?;
        let matrix = self.matrix(training, weights.as_deref())?;
        let labels = validation.as_ref().map(|part| part.labels.clone());
        let held_out = validation.map(|part| self.matrix(part, weights.as_deref())).transpose()?;
        let parameters = self.parameters()?;
        let metric = self.metric();
        let rounds = self.options.max_iterations;
        let told = told.as_ref().unwrap_or(&matrix);
        let mut trainer = Trainer::new(&parameters, &matrix, rounds).eval(told, "train");
        if let Some(held_out) = &held_out {
            trainer = trainer.eval(held_out, "validation");
            if self.options.early_stop {
                trainer = trainer.early_stopping_rounds(PATIENCE);
            }
        }
        let is_rank = self.options.task == Task::Ranker;
        let trainer = trainer.on_round(|round: RoundEval<'_>| {
            // Of a ranking that is not perfect the loss is what is missing.
            let loss = round.score("train", &metric).map(|x| if is_rank { 1.0 - x } else { x });
            let iteration = round.iteration() + 1;
            let metric = round.score("validation", &metric);
            progress(Progress { iteration, done: iteration, total: rounds, loss, metric });
            match cancel.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        let trained = trainer.train().map_err(wrong)?;
        if cancel.load(Ordering::Relaxed) {
            return Err(ModelError::Cancelled);
        }
        let best_iteration = trained.model.best_iteration().map(|iteration| iteration + 1);
        let calibrators = match (self.options.calibration, &held_out, labels) {
            (Calibration::None, _, _) => vec![],
            (kind, Some(held_out), Some(labels)) => {
                let margins = trained.model.predict_margin(held_out, Iterations::Best);
                let margins = margins.map_err(wrong)?;
                calibration::fit(kind, margins.as_slice(), margins.width(), &labels)
            }
            (kind, ..) => {
                return Err(ModelError::Option {
                    option: "calibration",
                    value: format!("'{}' without rows kept aside", kind.name()),
                    hint: "Give more rows, another data_split_method, or leave calibration out",
                });
            }
        };
        let Self { label, group, classes, options, .. } = self;
        let boosted = trained.model;
        let trees = Trees { task: options.task, label, group, classes, calibrators, boosted };
        Ok(Grown { trees, best_iteration })
    }

    /// The name of the metric of each iteration.
    fn metric(&self) -> String {
        self.eval_metric().name().into_owned()
    }

    fn eval_metric(&self) -> EvalMetric {
        match (self.options.task, self.classes()) {
            (Task::Classifier, 0..=2) => EvalMetric::LogLoss,
            (Task::Classifier, _) => EvalMetric::MLogLoss,
            (Task::Regressor, _) => EvalMetric::Rmse,
            (Task::Ranker, _) => EvalMetric::Ndcg(Cutoff::all()),
        }
    }

    fn classes(&self) -> usize {
        self.classes.as_ref().map_or(0, |classes| classes.names.len())
    }

    fn class_weights(&self, training: &Part) -> Result<Option<Vec<f32>>, ModelError> {
        match &self.classes {
            Some(classes) => self.options.class_weights.of(classes, &training.labels),
            None => Ok(None),
        }
    }

    fn matrix(&self, part: Part, weights: Option<&[f32]>) -> Result<DMatrix, ModelError> {
        let types = self.features.iter().map(|feature| match feature.kind {
            FeatureKind::Number { .. } => FeatureType::Numerical,
            FeatureKind::Category(_) => FeatureType::Categorical,
        });
        let types: Vec<FeatureType> = types.collect();
        let Part { values, labels, group_sizes } = part;
        let mut matrix = DMatrix::from_dense_vec(values, labels.len(), types.len())
            .and_then(|matrix| matrix.with_feature_types(&types))
            .and_then(|matrix| matrix.with_labels(&labels))
            .map_err(wrong)?;
        if let Some(weights) = weights {
            let of_rows: Vec<f32> =
                labels.iter().filter_map(|label| weights.get(*label as usize).copied()).collect();
            matrix = matrix.with_weights(&of_rows).map_err(wrong)?;
        }
        if !group_sizes.is_empty() {
            matrix = matrix.with_group_sizes(&group_sizes).map_err(wrong)?;
        }
        Ok(matrix)
    }

    fn parameters(&self) -> Result<TrainingParams, ModelError> {
        let options = self.options;
        let objective = match (options.task, self.classes()) {
            (Task::Classifier, 0..=2) => Objective::BinaryLogistic(RegLoss::default()),
            (Task::Classifier, classes) => {
                Objective::Softprob(Multiclass::new(classes).map_err(wrong)?)
            }
            (Task::Regressor, _) => Objective::SquaredError(RegLoss::default()),
            (Task::Ranker, _) => Objective::RankNdcg(LambdaRank::default()),
        };
        TrainingParams::builder()
            .objective(objective)
            .eval_metric(self.eval_metric())
            .tree_method(TreeMethod::Hist)
            .eta(options.learn_rate)
            .max_depth(options.max_tree_depth)
            .min_child_weight(options.min_tree_child_weight)
            .subsample(options.subsample)
            .colsample_bytree(options.colsample_bytree)
            .alpha(options.l1_reg)
            .lambda(options.l2_reg)
            .seed(options.seed)
            .global_pool()
            .build()
            .map_err(wrong)
    }
}

impl Trees {
    /// Bytes that [`Trees::from_parts`] reads, in hessboost's own stable format.
    ///
    /// # Errors
    /// When the format cannot hold the trees.
    pub fn bytes(&self) -> Result<Vec<u8>, ModelError> {
        self.boosted.encode(ModelFormat::Binary).map_err(wrong)
    }

    /// Puts trees together from what was stored.
    ///
    /// # Errors
    /// [`ModelError::Inconsistent`] when the parts do not fit together.
    pub fn from_parts(
        task: Task,
        label: String,
        group: Option<String>,
        classes: Option<Classes>,
        calibrators: Vec<Calibrator>,
        bytes: &[u8],
    ) -> Result<Self, ModelError> {
        let boosted = BoostedModel::decode(bytes, ModelFormat::Binary)
            .map_err(|error| ModelError::Inconsistent(error.to_string()))?;
        let count = classes.as_ref().map_or(0, |classes| classes.names.len());
        let outputs = if count > 2 { count } else { 1 };
        let fits = boosted.n_outputs() == outputs
            && (task == Task::Classifier) == (count >= 2)
            && (calibrators.is_empty() || calibrators.len() == outputs);
        match fits {
            true => Ok(Self { task, label, group, classes, calibrators, boosted }),
            false => Err(ModelError::Inconsistent("trees and classes do not fit".to_owned())),
        }
    }

    /// Columns of features.
    pub fn features(&self) -> usize {
        self.boosted.n_features()
    }

    /// Bytes on the heap, about.
    pub fn memory_bytes(&self) -> usize {
        let nodes: usize = self.boosted.trees().iter().map(|tree| tree.nodes().len()).sum();
        let of_classes = self.classes.iter().flat_map(|classes| &classes.names);
        nodes * NODE_BYTES + of_classes.map(|name| name.len() + 24).sum::<usize>()
    }

    /// Scores of rows of [`Preparation::codes`](super::Preparation::codes): of the ranker and the
    /// regressor one a row, of the classifier a probability for each class.
    ///
    /// # Errors
    /// When rows do not have the trees' number of features.
    pub fn scores(&self, rows: &[f32]) -> Result<Vec<f64>, ModelError> {
        let margins = self.boosted.predict_margin_rows(rows, Iterations::Best).map_err(wrong)?;
        Ok(match &self.classes {
            None => margins.as_slice().iter().map(|&x| f64::from(x)).collect(),
            Some(_) => {
                let width = margins.width();
                calibration::probabilities(margins.as_slice(), width, &self.calibrators)
            }
        })
    }

    /// How often a feature splits, the loss that a split of it takes away on average, and the rows
    /// (Hessian) that one sees on average; 0 for features that never split.
    pub fn importance(&self) -> Vec<[f64; 3]> {
        let kinds = [ImportanceType::Weight, ImportanceType::Gain, ImportanceType::Cover];
        let found = kinds.map(|kind| self.boosted.feature_importance(kind));
        let of = |feature: usize| {
            found.each_ref().map(|found| found.get(&feature).copied().unwrap_or(0.0))
        };
        (0..self.features()).map(of).collect()
    }
}

/// A node in memory, about.
const NODE_BYTES: usize = 64;

fn wrong(error: hessboost::error::HessboostError) -> ModelError {
    ModelError::Boosting(error.to_string())
}

#[cfg(test)]
mod tests;
