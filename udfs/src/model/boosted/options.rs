//! Options of boosted trees, under BigQuery's names.

use super::super::error::ModelError;
use super::Classes;

/// What trees predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// One of a few classes.
    Classifier,
    /// A number.
    Regressor,
    /// The order of the rows of a query.
    Ranker,
}

impl Task {
    /// The `model_type` of CREATE MODEL.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Classifier => "boosted_tree_classifier",
            Self::Regressor => "boosted_tree_regressor",
            Self::Ranker => "boosted_tree_ranker",
        }
    }
}

/// From scores to probabilities, on the validation part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Calibration {
    /// The scores are the probabilities.
    #[default]
    None,
    /// A logistic of the score (Platt 1999).
    Platt,
    /// The best rising steps (Zadrozny and Elkan 2002).
    Isotonic,
}

impl Calibration {
    /// The option's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Platt => "platt",
            Self::Isotonic => "isotonic",
        }
    }
}

/// How much the rows of a class count.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ClassWeights {
    /// 1.
    #[default]
    Equal,
    /// So that all classes count alike: rows / (classes · rows of the class).
    Balanced,
    /// As given, by the class as text; 1 for classes that are not named.
    Given(Vec<(String, f64)>),
}

impl ClassWeights {
    /// A weight for each class; none where all are 1.
    ///
    /// # Errors
    /// A class that is none, a weight that is not above 0.
    pub(super) fn of(
        &self,
        classes: &Classes,
        labels: &[f32],
    ) -> Result<Option<Vec<f32>>, ModelError> {
        let option = "class_weights";
        match self {
            Self::Equal => Ok(None),
            Self::Balanced => {
                let mut counts = vec![0_usize; classes.names.len()];
                for label in labels {
                    counts[*label as usize] += 1;
                }
                let whole = labels.len() as f64 / counts.len() as f64;
                let weight = |count: usize| (whole / count.max(1) as f64) as f32;
                Ok(Some(counts.into_iter().map(weight).collect()))
            }
            Self::Given(given) => {
                let mut weights = vec![1.0; classes.names.len()];
                for (name, weight) in given {
                    let Some(class) = classes.names.iter().position(|class| class == name) else {
                        let hint = "Name classes that the label has in the training rows";
                        return Err(ModelError::Option { option, value: name.clone(), hint });
                    };
                    if !(*weight > 0.0 && weight.is_finite()) {
                        let hint = "Give a number above 0";
                        return Err(ModelError::Option { option, value: weight.to_string(), hint });
                    }
                    weights[class] = *weight as f32;
                }
                Ok(Some(weights))
            }
        }
    }
}

/// Options of boosted trees.
#[derive(Debug, Clone, PartialEq)]
pub struct BoostedOptions {
    /// What is predicted.
    pub task: Task,
    /// Iterations at most, a tree each, or one for each of more than two classes.
    pub max_iterations: usize,
    /// How much of a tree is taken.
    pub learn_rate: f64,
    /// Splits from root to leaf at most.
    pub max_tree_depth: usize,
    /// The least sum of Hessians of a leaf.
    pub min_tree_child_weight: f64,
    /// The share of rows that a tree sees.
    pub subsample: f64,
    /// The share of features that a tree sees.
    pub colsample_bytree: f64,
    /// L1 of leaves.
    pub l1_reg: f64,
    /// L2 of leaves.
    pub l2_reg: f64,
    /// Whether the validation part ends training once it gets no better.
    pub early_stop: bool,
    /// From scores to probabilities.
    pub calibration: Calibration,
    /// How much classes count.
    pub class_weights: ClassWeights,
    /// Of the rows and features that a tree sees.
    pub seed: u64,
}

impl BoostedOptions {
    /// The usual options.
    pub fn new(task: Task) -> Self {
        Self {
            task,
            max_iterations: 100,
            learn_rate: 0.1,
            max_tree_depth: 6,
            min_tree_child_weight: 1.0,
            subsample: 1.0,
            colsample_bytree: 1.0,
            l1_reg: 0.0,
            l2_reg: 1.0,
            early_stop: true,
            calibration: Calibration::None,
            class_weights: ClassWeights::Equal,
            seed: 0,
        }
    }

    /// Checks every option's domain.
    ///
    /// # Errors
    /// [`ModelError::Option`] naming the option.
    pub fn validate(&self) -> Result<(), ModelError> {
        let fail = |option, value: String, hint| Err(ModelError::Option { option, value, hint });
        if !(1..=10_000).contains(&self.max_iterations) {
            let hint = "Give 1 to 10000 iterations; 100 is usual";
            return fail("max_iterations", self.max_iterations.to_string(), hint);
        }
        if !(1..=16).contains(&self.max_tree_depth) {
            let hint = "Give 1 to 16; 4 to 8 are usual";
            return fail("max_tree_depth", self.max_tree_depth.to_string(), hint);
        }
        let shares = [
            ("learn_rate", self.learn_rate),
            ("subsample", self.subsample),
            ("colsample_bytree", self.colsample_bytree),
        ];
        if let Some((option, value)) = shares.into_iter().find(|(_, x)| !(*x > 0.0 && *x <= 1.0)) {
            return fail(option, value.to_string(), "Give a number above 0, at most 1");
        }
        let sizes = [
            ("min_tree_child_weight", self.min_tree_child_weight),
            ("l1_reg", self.l1_reg),
            ("l2_reg", self.l2_reg),
        ];
        let is_wrong = |x: f64| !(x >= 0.0 && x.is_finite());
        if let Some((option, value)) = sizes.into_iter().find(|(_, x)| is_wrong(*x)) {
            return fail(option, value.to_string(), "Give a number from 0");
        }
        Ok(())
    }

    /// Peak bytes of training on `rows` rows of `features` values and `classes` classes.
    pub fn memory_bytes(&self, rows: usize, features: usize, classes: usize) -> usize {
        let outputs = if classes > 2 { classes } else { 1 };
        // Values and their bins; gradients, scores, labels, weights and the order of rows.
        let row_bytes = features.saturating_mul(8).saturating_add(outputs * 24 + 48);
        // A histogram of 256 bins for each node of the deepest level.
        let nodes = 1_usize << self.max_tree_depth.min(12);
        let histograms = features.saturating_mul(256 * 16).saturating_mul(nodes.min(rows.max(1)));
        rows.saturating_mul(row_bytes).saturating_add(histograms)
    }
}
