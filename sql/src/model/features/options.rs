//! What can be learned of rows of features, and the options of each type.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value as Json;
use udfs::model::boosted::{BoostedOptions, Calibration, ClassWeights, Task};
use udfs::model::isolation_forest::ForestOptions;
use udfs::model::kmeans::{Distance, Init, KMeansOptions};
use udfs::model::outlier::{self, OutlierOptions};
use udfs::model::pca::{self, Components, PcaOptions};

use crate::error::{Error, Result};
use crate::model::options::model_error;
use crate::model::reader::Reader;
use crate::model::splitting::{Method, SplitOptions};

/// A learner of rows of features with its options.
#[derive(Debug, Clone, PartialEq)]
pub enum FeatureLearner {
    /// Clusters.
    KMeans(KMeansOptions),
    /// Principal components.
    Pca(PcaOptions),
    /// Trees that set rows apart.
    IsolationForest(ForestOptions),
    /// What is usual in each column.
    Outlier(OutlierOptions),
    /// Boosted trees.
    Boosted(TreeOptions),
}

/// Options of boosted trees.
#[derive(Debug, Clone, PartialEq)]
pub struct TreeOptions {
    /// The learner's.
    pub boosted: BoostedOptions,
    /// The column that is predicted, when named.
    pub label_col: Option<String>,
    /// The ranker's column of queries.
    pub group_col: Option<String>,
}

impl FeatureLearner {
    /// The learner of a `model_type`; none when that is no type of features.
    ///
    /// # Errors
    /// When a value is not taken.
    pub fn read(model_type: &str, reader: &Reader<'_>) -> Result<Option<Self>> {
        Ok(Some(match model_type {
            "kmeans" => Self::KMeans(kmeans(reader)?),
            "pca" => Self::Pca(components(reader)?),
            "isolation_forest" => Self::IsolationForest(forest(reader)?),
            "outlier" => Self::Outlier(outliers(reader)?),
            "boosted_tree_classifier" => Self::Boosted(trees(Task::Classifier, reader)?),
            "boosted_tree_regressor" => Self::Boosted(trees(Task::Regressor, reader)?),
            "boosted_tree_ranker" => Self::Boosted(trees(Task::Ranker, reader)?),
            _ => return Ok(None),
        }))
    }

    /// The `model_type`.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::KMeans(_) => "kmeans",
            Self::Pca(_) => "pca",
            Self::IsolationForest(_) => "isolation_forest",
            Self::Outlier(_) => "outlier",
            Self::Boosted(trees) => trees.boosted.task.type_name(),
        }
    }

    /// The options of trees, when it grows them.
    pub fn trees(&self) -> Option<&TreeOptions> {
        match self {
            Self::Boosted(trees) => Some(trees),
            Self::KMeans(_) | Self::Pca(_) | Self::IsolationForest(_) | Self::Outlier(_) => None,
        }
    }

    /// Which rows are kept aside.
    ///
    /// # Errors
    /// When the options of the split do not go together.
    pub fn split(&self, given: &BTreeMap<String, Json>) -> Result<SplitOptions> {
        let Some(trees) = self.trees() else { return Ok(SplitOptions::nothing()) };
        let chooses = trees.boosted.early_stop || trees.boosted.calibration != Calibration::None;
        let split = SplitOptions::read(given, chooses)?;
        if matches!(split.method, Method::PerUser | Method::LeaveOneOut) {
            return Err(Error::invalid_hint(
                "rows of features have no users to split by",
                "use data_split_method = 'random', 'seq', 'custom' or 'no_split'",
            ));
        }
        Ok(split)
    }

    /// Peak bytes of training on `rows` rows of `width` numbers, the rows among them where they are
    /// held, and on `classes` classes where there are any.
    pub fn memory_bytes(&self, rows: usize, width: usize, classes: usize) -> usize {
        let dense = rows.saturating_mul(width).saturating_mul(size_of::<f64>());
        match self {
            // The rows once more while they are measured.
            Self::KMeans(options) => dense.saturating_add(options.memory_bytes(rows, width)),
            // Rows are summed up as they come.
            Self::Pca(_) => pca::memory_bytes(width),
            Self::IsolationForest(options) => dense.saturating_add(options.memory_bytes(rows)),
            // Columns are taken as they were read.
            Self::Outlier(options) => options.memory_bytes(rows, width),
            Self::Boosted(trees) => {
                dense.saturating_add(trees.boosted.memory_bytes(rows, width, classes))
            }
        }
    }
}

/// As EXPLAIN shows it.
impl fmt::Display for FeatureLearner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KMeans(kmeans) => {
                write!(formatter, "kmeans, num_clusters={}", kmeans.num_clusters)
            }
            Self::Pca(pca) => match pca.components {
                Components::Count(count) => {
                    write!(formatter, "pca, num_principal_components={count}")
                }
                Components::VarianceRatio(ratio) => {
                    write!(formatter, "pca, pca_explained_variance_ratio={ratio}")
                }
            },
            Self::IsolationForest(forest) => {
                let ForestOptions { num_trees, max_samples, .. } = forest;
                write!(formatter, "isolation_forest, num_trees={num_trees}, ")?;
                write!(formatter, "max_samples={max_samples}")
            }
            Self::Outlier(outliers) => {
                let (method, threshold) = (outliers.method.name(), outliers.threshold());
                write!(formatter, "outlier, method={method}, threshold={threshold}")
            }
            Self::Boosted(trees) => {
                let (name, options) = (self.model_type(), &trees.boosted);
                let BoostedOptions { max_iterations, max_tree_depth, .. } = options;
                write!(formatter, "{name}, max_iterations={max_iterations}, ")?;
                write!(formatter, "max_tree_depth={max_tree_depth}")
            }
        }
    }
}

fn seed(reader: &Reader<'_>) -> Result<u64> {
    Ok(reader.integer("seed")?.unwrap_or(0).cast_unsigned())
}

fn kmeans(reader: &Reader<'_>) -> Result<KMeansOptions> {
    let usual = KMeansOptions::default();
    let inits = ["kmeans||", "kmeans++", "random"];
    let options = KMeansOptions {
        num_clusters: reader.count("num_clusters")?.unwrap_or(usual.num_clusters),
        init: match reader.choice("kmeans_init_method", &inits)? {
            Some("kmeans++") => Init::PlusPlus,
            Some("random") => Init::Random,
            _ => Init::Parallel,
        },
        distance: match reader.choice("distance_type", &["euclidean", "cosine"])? {
            Some("cosine") => Distance::Cosine,
            _ => Distance::Euclidean,
        },
        standardize_features: reader.truth("standardize_features")?.unwrap_or(true),
        max_iterations: reader.count("max_iterations")?.unwrap_or(usual.max_iterations),
        min_rel_progress: match reader.truth("early_stop")? {
            Some(false) if reader.has("min_rel_progress") => {
                return Err(Error::invalid_hint(
                    "early_stop = FALSE and min_rel_progress exclude each other",
                    "leave one of them out",
                ));
            }
            Some(false) => 0.0,
            _ => reader.number("min_rel_progress")?.unwrap_or(usual.min_rel_progress),
        },
        seed: seed(reader)?,
        ..usual
    };
    options.validate().map_err(model_error)?;
    Ok(options)
}

fn components(reader: &Reader<'_>) -> Result<PcaOptions> {
    let usual = PcaOptions::default();
    let count = reader.count("num_principal_components")?;
    let ratio = reader.number("pca_explained_variance_ratio")?;
    let components = match (count, ratio) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid_hint(
                "num_principal_components and pca_explained_variance_ratio exclude each other",
                "leave one of them out",
            ));
        }
        (Some(count), None) => Components::Count(count),
        (None, Some(ratio)) => Components::VarianceRatio(ratio),
        (None, None) => usual.components,
    };
    let scale_features = reader.truth("scale_features")?.unwrap_or(usual.scale_features);
    let options = PcaOptions { components, scale_features, seed: seed(reader)? };
    // How many features there are is known once they are read.
    options.validate(usize::MAX).map_err(model_error)?;
    Ok(options)
}

fn forest(reader: &Reader<'_>) -> Result<ForestOptions> {
    let usual = ForestOptions::default();
    let options = ForestOptions {
        num_trees: reader.count("num_trees")?.unwrap_or(usual.num_trees),
        max_samples: reader.count("max_samples")?.unwrap_or(usual.max_samples),
        contamination: reader.number("contamination")?,
        seed: seed(reader)?,
    };
    options.validate().map_err(model_error)?;
    Ok(options)
}

fn outliers(reader: &Reader<'_>) -> Result<OutlierOptions> {
    let usual = OutlierOptions::default();
    let methods = outlier::Method::ALL.map(outlier::Method::name);
    let method = reader.choice("method", &methods)?;
    let options = OutlierOptions {
        method: method.and_then(outlier::Method::named).unwrap_or(usual.method),
        threshold: reader.number("threshold")?,
    };
    options.validate().map_err(model_error)?;
    Ok(options)
}

fn trees(task: Task, reader: &Reader<'_>) -> Result<TreeOptions> {
    let usual = BoostedOptions::new(task);
    let calibrations = ["none", "platt", "isotonic"];
    let splits = reader.text("data_split_method")?;
    let keeps_rows = !splits.is_some_and(|method| method.eq_ignore_ascii_case("no_split"));
    let boosted = BoostedOptions {
        max_iterations: reader.count("max_iterations")?.unwrap_or(usual.max_iterations),
        learn_rate: reader.number("learn_rate")?.unwrap_or(usual.learn_rate),
        max_tree_depth: reader.count("max_tree_depth")?.unwrap_or(usual.max_tree_depth),
        min_tree_child_weight: reader
            .number("min_tree_child_weight")?
            .unwrap_or(usual.min_tree_child_weight),
        subsample: reader.number("subsample")?.unwrap_or(usual.subsample),
        colsample_bytree: reader.number("colsample_bytree")?.unwrap_or(usual.colsample_bytree),
        l1_reg: reader.number("l1_reg")?.unwrap_or(usual.l1_reg),
        l2_reg: reader.number("l2_reg")?.unwrap_or(usual.l2_reg),
        early_stop: reader.truth("early_stop")?.unwrap_or(keeps_rows),
        calibration: match reader.choice("calibration", &calibrations)? {
            Some("platt") => Calibration::Platt,
            Some("isotonic") => Calibration::Isotonic,
            _ => Calibration::None,
        },
        class_weights: class_weights(reader)?,
        seed: seed(reader)?,
        task,
    };
    boosted.validate().map_err(model_error)?;
    let group_col = reader.text("query_group_col")?.map(str::to_owned);
    if task == Task::Ranker && group_col.is_none() {
        return Err(Error::invalid_hint(
            "a ranker orders the rows of a query, and query_group_col names none",
            "name the column that rows of one query, user or session have in common",
        ));
    }
    Ok(TreeOptions { boosted, label_col: label(reader)?, group_col })
}

/// `input_label_cols`: a name, or as BigQuery has it a list of one.
fn label(reader: &Reader<'_>) -> Result<Option<String>> {
    let option = "input_label_cols";
    match reader.0.get(option) {
        Some(Json::Array(names)) => match names.as_slice() {
            [Json::String(name)] => Ok(Some(name.clone())),
            _ => Err(Error::invalid_hint(
                format!("{option} has {} names", names.len()),
                "trees predict one column: input_label_cols = ['clicked']",
            )),
        },
        _ => Ok(reader.text(option)?.map(str::to_owned)),
    }
}

/// `auto_class_weights` or `class_weights`.
fn class_weights(reader: &Reader<'_>) -> Result<ClassWeights> {
    let option = "class_weights";
    let balanced = reader.truth("auto_class_weights")?.unwrap_or(false);
    let Some(given) = reader.0.get(option) else {
        return Ok(if balanced { ClassWeights::Balanced } else { ClassWeights::Equal });
    };
    if balanced {
        return Err(Error::invalid_hint(
            "auto_class_weights and class_weights exclude each other",
            "leave one of them out",
        ));
    }
    let pair = |pair: &Json| match pair.as_array().map(Vec::as_slice) {
        Some([name, weight]) => {
            let name = name.as_str().map_or_else(|| name.to_string(), str::to_owned);
            Some((name, weight.as_f64()?))
        }
        _ => None,
    };
    let pairs = given.as_array().map(|pairs| pairs.iter().map(pair).collect::<Option<Vec<_>>>());
    match pairs {
        Some(Some(pairs)) => Ok(ClassWeights::Given(pairs)),
        _ => Err(Error::invalid_hint(
            format!("option {option} is {given}"),
            "it takes a list of classes with their weights: [STRUCT('yes', 5), STRUCT('no', 1)]",
        )),
    }
}
