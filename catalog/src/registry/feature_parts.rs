//! Between a model of rows of features in memory and what its files and manifest hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, UInt64Array};
use arrow::datatypes::{Float64Type, Int64Type, UInt64Type};
use serde::{Deserialize, Serialize};
use udfs::model::boosted::{Calibrator, ClassType, Classes, Task, Trees};
use udfs::model::isolation_forest::IsolationForest;
use udfs::model::kmeans::{Distance, KMeansModel};
use udfs::model::metrics::calibration::Logistic;
use udfs::model::outlier::{Method, OutlierModel, Spread};
use udfs::model::pca::PcaModel;
use udfs::model::{Feature, FeatureKind, Model, ModelError, Preparation, Prepared};

use super::manifest::Manifest;
use super::model_files::{Column, Kind, Table};
use super::model_parts::Pieces;
use crate::error::{Error, Result};

/// How rows of features become numbers; see [`Preparation`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredPreparation(Vec<StoredFeature>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredFeature {
    name: String,
    #[serde(flatten)]
    kind: StoredKind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum StoredKind {
    Number { mean: f64 },
    Category { values: Vec<String> },
}

impl StoredPreparation {
    fn new(preparation: &Preparation) -> Self {
        let stored = |feature: &Feature| StoredFeature {
            name: feature.name.clone(),
            kind: match &feature.kind {
                FeatureKind::Number { mean } => StoredKind::Number { mean: *mean },
                FeatureKind::Category(values) => StoredKind::Category { values: values.clone() },
            },
        };
        Self(preparation.features().iter().map(stored).collect())
    }

    fn to_preparation(&self) -> Result<Preparation> {
        let feature = |stored: &StoredFeature| Feature {
            name: stored.name.clone(),
            kind: match &stored.kind {
                StoredKind::Number { mean } => FeatureKind::Number { mean: *mean },
                StoredKind::Category { values } => FeatureKind::Category(values.clone()),
            },
        };
        Preparation::new(self.0.iter().map(feature).collect()).map_err(wrong)
    }
}

/// What a model of features needs, beside its files, to be put together again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredFeatures {
    preparation: StoredPreparation,
    learned: StoredLearned,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum StoredLearned {
    #[serde(rename = "kmeans")]
    KMeans {
        cosine: bool,
        shift: Vec<f64>,
        scale: Vec<f64>,
        span: f64,
        /// None where it is not defined.
        davies_bouldin: Option<f64>,
    },
    Pca {
        mean: Vec<f64>,
        scale: Vec<f64>,
        explained_variance: Vec<f64>,
        explained_variance_ratio: Vec<f64>,
    },
    IsolationForest {
        width: usize,
        samples: usize,
        threshold: f64,
        roots: Vec<u32>,
    },
    /// A few numbers a column, which need no file.
    Outlier {
        method: String,
        threshold: f64,
        spreads: Vec<StoredSpread>,
    },
    Boosted {
        task: StoredTask,
        label: String,
        group: Option<String>,
        classes: Option<StoredClasses>,
        calibrators: Vec<StoredCalibrator>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct StoredSpread {
    center: f64,
    low: f64,
    high: f64,
    scale: f64,
    is_constant: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredTask {
    Classifier,
    Regressor,
    Ranker,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredClasses {
    of: StoredClassType,
    names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredClassType {
    Text,
    Integer,
    Truth,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum StoredCalibrator {
    Platt { parameters: [f64; 4] },
    Isotonic { scores: Vec<f64>, probabilities: Vec<f64> },
}

impl StoredSpread {
    fn new(spread: &Spread) -> Self {
        let Spread { center, low, high, scale, is_constant } = *spread;
        Self { center, low, high, scale, is_constant }
    }

    fn to_spread(self) -> Spread {
        let Self { center, low, high, scale, is_constant } = self;
        Spread { center, low, high, scale, is_constant }
    }
}

impl StoredClasses {
    fn new(classes: &Classes) -> Self {
        let of = match classes.of {
            ClassType::Text => StoredClassType::Text,
            ClassType::Integer => StoredClassType::Integer,
            ClassType::Truth => StoredClassType::Truth,
        };
        Self { of, names: classes.names.clone() }
    }

    fn to_classes(&self) -> Classes {
        let of = match self.of {
            StoredClassType::Text => ClassType::Text,
            StoredClassType::Integer => ClassType::Integer,
            StoredClassType::Truth => ClassType::Truth,
        };
        Classes { of, names: self.names.clone() }
    }
}

impl StoredCalibrator {
    fn new(calibrator: &Calibrator) -> Self {
        match calibrator {
            Calibrator::Platt(logistic) => Self::Platt { parameters: logistic.parameters() },
            Calibrator::Isotonic { scores, probabilities } => {
                Self::Isotonic { scores: scores.clone(), probabilities: probabilities.clone() }
            }
        }
    }

    fn to_calibrator(&self) -> Calibrator {
        match self {
            Self::Platt { parameters } => Calibrator::Platt(Logistic::from_parameters(*parameters)),
            Self::Isotonic { scores, probabilities } => Calibrator::Isotonic {
                scores: scores.clone(),
                probabilities: probabilities.clone(),
            },
        }
    }
}

impl StoredFeatures {
    /// What is kept of clusters.
    pub fn clusters(model: &Prepared<KMeansModel>) -> Self {
        let learned = model.learned();
        let preparation = StoredPreparation::new(model.preparation());
        let learned = StoredLearned::KMeans {
            cosine: learned.distance == Distance::Cosine,
            shift: learned.shift.clone(),
            scale: learned.scale.clone(),
            span: learned.span,
            davies_bouldin: Some(learned.davies_bouldin).filter(|index| index.is_finite()),
        };
        Self { preparation, learned }
    }

    /// What is kept of components.
    pub fn components(model: &Prepared<PcaModel>) -> Self {
        let learned = model.learned();
        let preparation = StoredPreparation::new(model.preparation());
        let learned = StoredLearned::Pca {
            mean: learned.mean.clone(),
            scale: learned.scale.clone(),
            explained_variance: learned.explained_variance.clone(),
            explained_variance_ratio: learned.explained_variance_ratio.clone(),
        };
        Self { preparation, learned }
    }

    /// What is kept of a forest.
    pub fn forest(model: &Prepared<IsolationForest>) -> Self {
        let learned = model.learned();
        let preparation = StoredPreparation::new(model.preparation());
        let learned = StoredLearned::IsolationForest {
            width: learned.width,
            samples: learned.samples,
            threshold: learned.threshold,
            roots: learned.roots.clone(),
        };
        Self { preparation, learned }
    }

    /// What is kept of what is usual in columns.
    pub fn outliers(model: &Prepared<OutlierModel>) -> Self {
        let learned = model.learned();
        let preparation = StoredPreparation::new(model.preparation());
        let learned = StoredLearned::Outlier {
            method: learned.method.name().to_owned(),
            threshold: learned.threshold,
            spreads: learned.spreads.iter().map(StoredSpread::new).collect(),
        };
        Self { preparation, learned }
    }

    /// What is kept of trees.
    pub fn trees(model: &Prepared<Trees>) -> Self {
        let learned = model.learned();
        let preparation = StoredPreparation::new(model.preparation());
        let learned = StoredLearned::Boosted {
            task: match learned.task {
                Task::Classifier => StoredTask::Classifier,
                Task::Regressor => StoredTask::Regressor,
                Task::Ranker => StoredTask::Ranker,
            },
            label: learned.label.clone(),
            group: learned.group.clone(),
            classes: learned.classes.as_ref().map(StoredClasses::new),
            calibrators: learned.calibrators.iter().map(StoredCalibrator::new).collect(),
        };
        Self { preparation, learned }
    }

    /// The columns to read of each file of a version.
    pub fn wanted(&self) -> BTreeMap<&'static str, Vec<(&'static str, Kind)>> {
        let files: &[(&str, &str)] = match &self.learned {
            StoredLearned::KMeans { .. } => &[("centroids", "value"), ("clusters", "rows")],
            StoredLearned::Pca { .. } => &[("components", "value")],
            StoredLearned::IsolationForest { .. } => {
                &[("nodes", "feature"), ("cuts", "value"), ("children", "right")]
            }
            StoredLearned::Outlier { .. } => &[],
            StoredLearned::Boosted { .. } => &[("trees", "bytes")],
        };
        files.iter().map(|(file, column)| (*file, vec![(*column, Kind::Ids)])).collect()
    }

    /// Puts a model together from what its files hold.
    ///
    /// # Errors
    /// When the parts contradict each other.
    pub fn assemble(
        &self,
        mut tables: BTreeMap<&'static str, Table>,
        manifest: &Manifest,
    ) -> Result<Model> {
        let mut column = |file: &'static str, column: &str| -> Result<ArrayRef> {
            let table =
                tables.get_mut(file).ok_or_else(|| Error::invalid("a file was not read"))?;
            table.ids(column)
        };
        let preparation = self.preparation.to_preparation()?;
        match &self.learned {
            StoredLearned::KMeans { cosine, shift, scale, span, davies_bouldin } => {
                let counts = column("clusters", "rows")?;
                let counts = counts.as_primitive_opt::<UInt64Type>();
                let counts = counts.ok_or_else(|| Error::invalid("its clusters count no rows"))?;
                let learned = KMeansModel {
                    distance: if *cosine { Distance::Cosine } else { Distance::Euclidean },
                    shift: shift.clone(),
                    scale: scale.clone(),
                    span: *span,
                    centroids: read_doubles(&column("centroids", "value")?)?,
                    counts: counts.values().to_vec(),
                    losses: manifest.iterations.iter().map(|now| now.loss).collect(),
                    davies_bouldin: davies_bouldin.unwrap_or(f64::NAN),
                };
                Ok(Prepared::clusters(preparation, learned).map_err(wrong)?.into())
            }
            StoredLearned::Pca { mean, scale, explained_variance, explained_variance_ratio } => {
                let learned = PcaModel {
                    mean: mean.clone(),
                    scale: scale.clone(),
                    components: read_doubles(&column("components", "value")?)?,
                    explained_variance: explained_variance.clone(),
                    explained_variance_ratio: explained_variance_ratio.clone(),
                };
                Ok(Prepared::components(preparation, learned).map_err(wrong)?.into())
            }
            StoredLearned::IsolationForest { width, samples, threshold, roots } => {
                let learned = IsolationForest {
                    width: *width,
                    samples: *samples,
                    threshold: *threshold,
                    roots: roots.clone(),
                    features: read_codes(&column("nodes", "feature")?)?,
                    values: read_doubles(&column("cuts", "value")?)?,
                    rights: read_codes(&column("children", "right")?)?,
                };
                Ok(Prepared::forest(preparation, learned).map_err(wrong)?.into())
            }
            StoredLearned::Outlier { method, threshold, spreads } => {
                let method = Method::named(method);
                let learned = OutlierModel {
                    method: method.ok_or_else(|| Error::invalid("its method is unknown"))?,
                    threshold: *threshold,
                    spreads: spreads.iter().copied().map(StoredSpread::to_spread).collect(),
                };
                Ok(Prepared::outliers(preparation, learned).map_err(wrong)?.into())
            }
            StoredLearned::Boosted { task, label, group, classes, calibrators } => {
                let bytes = column("trees", "bytes")?;
                let bytes = bytes.as_binary_opt::<i32>().filter(|bytes| bytes.len() == 1);
                let bytes = bytes.ok_or_else(|| Error::invalid("it holds no trees"))?;
                let task = match task {
                    StoredTask::Classifier => Task::Classifier,
                    StoredTask::Regressor => Task::Regressor,
                    StoredTask::Ranker => Task::Ranker,
                };
                let learned = Trees::from_parts(
                    task,
                    label.clone(),
                    group.clone(),
                    classes.as_ref().map(StoredClasses::to_classes),
                    calibrators.iter().map(StoredCalibrator::to_calibrator).collect(),
                    bytes.value(0),
                );
                let learned = learned.map_err(wrong)?;
                Ok(Prepared::trees(preparation, learned).map_err(wrong)?.into())
            }
        }
    }
}

/// What the files of clusters hold: the centroids one after the other, and the rows of each.
pub fn clusters(learned: &KMeansModel) -> Pieces<'_> {
    let counts: ArrayRef = Arc::new(UInt64Array::from(learned.counts.clone()));
    BTreeMap::from([
        ("centroids", vec![("value", doubles(&learned.centroids))]),
        ("clusters", vec![("rows", Column::Ids(counts))]),
    ])
}

/// What the file of components holds: one after the other.
pub fn components(learned: &PcaModel) -> Pieces<'_> {
    BTreeMap::from([("components", vec![("value", doubles(&learned.components))])])
}

/// What the files of a forest hold: of each node its feature, its cut and its right child.
pub fn forest(learned: &IsolationForest) -> Pieces<'_> {
    BTreeMap::from([
        ("nodes", vec![("feature", codes(&learned.features))]),
        ("cuts", vec![("value", doubles(&learned.values))]),
        ("children", vec![("right", codes(&learned.rights))]),
    ])
}

/// What the file of trees holds: all of them, in a format of their own.
///
/// # Errors
/// When that cannot hold them.
pub fn trees(learned: &Trees) -> Result<Pieces<'_>> {
    let bytes = learned.bytes().map_err(wrong)?;
    let column: ArrayRef = Arc::new(BinaryArray::from_vec(vec![bytes.as_slice()]));
    Ok(BTreeMap::from([("trees", vec![("bytes", Column::Ids(column))])]))
}

/// Numbers of 64 bits, kept as they are.
fn doubles(values: &[f64]) -> Column<'static> {
    Column::Ids(Arc::new(Float64Array::from(values.to_vec())))
}

/// Codes of 32 bits, as numbers that every reader of Parquet knows.
fn codes(values: &[u32]) -> Column<'static> {
    Column::Ids(Arc::new(Int64Array::from_iter_values(values.iter().copied().map(i64::from))))
}

fn read_codes(column: &ArrayRef) -> Result<Vec<u32>> {
    let values = column.as_primitive_opt::<Int64Type>();
    let values = values.ok_or_else(|| Error::invalid("it holds no whole numbers"))?.values().iter();
    let codes = values.map(|value| u32::try_from(*value));
    codes.collect::<std::result::Result<_, _>>().map_err(|_| Error::invalid("a code is too large"))
}

fn read_doubles(column: &ArrayRef) -> Result<Vec<f64>> {
    let values = column.as_primitive_opt::<Float64Type>();
    Ok(values.ok_or_else(|| Error::invalid("it holds no 64-bit floats"))?.values().to_vec())
}

fn wrong(error: ModelError) -> Error {
    Error::invalid(error.to_string())
}
