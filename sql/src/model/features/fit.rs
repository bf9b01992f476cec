//! Training on rows of features: the query's rows, read into columns of numbers, become a model on
//! the learners' threads.
//!
//! The memory of the whole training is reserved before it starts. Rows are sorted by their values
//! first, so that the same rows give the same model; but for principal components, where their
//! order changes rounding only ([`components`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use catalog::Catalog;
use catalog::models::StoredStart;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::StreamExt;
use udfs::model::als::Progress as Step;
use udfs::model::{
    Feature, FeatureKind, FeatureRows, GatheredRows, IdIndex, Model, ModelError, Preparation,
    Prepared, isolation_forest, kmeans, outlier, pca,
};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::features::{FeatureColumns, FeatureLearner, components, trees};
use crate::model::fit::{CancelOnDrop, Trained, Watch, take};
use crate::model::learners::Learner;
use crate::model::measure::Metric;
use crate::model::options::{TrainingOptions, model_error};
use crate::model::splitting::SplitOptions;
use crate::progress::Reporter;
use crate::session::Progress;

/// Rows as they are read.
struct Read {
    rows: FeatureRows,
    /// The query of each row, as it came.
    groups: Option<(IdIndex, Vec<u32>)>,
    /// What the split asks of each row, when it does.
    keys: Vec<i64>,
}

/// Rows to learn from, sorted by their queries and values.
#[derive(Debug)]
pub struct Sorted {
    /// The features, and the label behind them.
    pub rows: GatheredRows,
    /// The query of each row, from 0; empty without queries.
    pub groups: Vec<u32>,
    /// What the split asks of each row, when it does.
    pub keys: Vec<i64>,
}

/// Reads a query's rows and trains on them.
///
/// # Errors
/// Rows that are no features, an empty training set, too little memory, cancellation.
pub async fn train(
    engine: &Engine,
    rows: SendableRecordBatchStream,
    columns: &FeatureColumns,
    options: &TrainingOptions,
    memory: &MemoryReservation,
    progress: Reporter,
) -> Result<Trained> {
    let Some(learner) = options.learner.features().cloned() else {
        return Err(Error::Internal("a recommender has no features".into()));
    };
    let cancel = CancelOnDrop::default();
    let flag = Arc::clone(&cancel.0);
    let clock = Arc::clone(engine.catalog());
    let input = match &learner {
        FeatureLearner::Pca(_) => {
            let of = &options.learner;
            let summed = components::read(rows, columns, of, memory, &progress, &flag).await?;
            Input::Summed(Box::new(summed))
        }
        _ => {
            let read = read(rows, columns, &options.split, memory, &progress).await?;
            let stop = Arc::clone(&flag);
            let sorted = crate::model::learn(move || sort(read, &stop)).await??;
            reserve(&options.learner, &sorted.rows, columns.features.len(), memory)?;
            Input::Sorted(sorted)
        }
    };
    let (columns, split) = (columns.clone(), options.split.clone());
    let now = move || {
        let (cancel, progress, clock) = (&*flag, &progress, &*clock);
        Fit { learner, columns, split, cancel, progress, clock }.run(input)
    };
    crate::model::learn(now).await?
}

/// What there is to learn from.
enum Input {
    Sorted(Sorted),
    Summed(Box<(FeatureRows, pca::PcaRows)>),
}

async fn read(
    mut rows: SendableRecordBatchStream,
    columns: &FeatureColumns,
    split: &SplitOptions,
    memory: &MemoryReservation,
    progress: &Reporter,
) -> Result<Read> {
    let schema = rows.schema();
    let groups = columns.group.as_ref().map(|(index, name)| {
        IdIndex::new(name, schema.field(*index).data_type()).map(|index| (index, vec![]))
    });
    let groups = groups.transpose().map_err(model_error)?;
    let mut read = Read { rows: columns.rows(&schema)?, groups, keys: vec![] };
    // A value of each column, twice while they are ordered, what orders them, twice while it is
    // sorted, the query and the key.
    let row_bytes = (columns.features.len() * 2 + 8) * size_of::<f64>();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        memory.try_grow(batch.num_rows() * row_bytes)?;
        read.rows.add(&columns.of(&batch)?).map_err(model_error)?;
        if let (Some((index, _)), Some((ids, codes))) = (&columns.group, &mut read.groups) {
            codes.extend(ids.encode(batch.column(*index)).map_err(model_error)?);
        }
        if let Some((index, name)) = &columns.split {
            read.keys.extend(split.keys(batch.column(*index), name)?);
        }
        let done = read.rows.rows() as u64;
        progress.report(Progress { phase: "reading".into(), done, total: 0, metric: None });
    }
    Ok(read)
}

fn sort(read: Read, cancel: &AtomicBool) -> Result<Sorted> {
    let groups = match read.groups {
        None => vec![],
        Some((mut ids, codes)) => {
            let new = ids.sort().map_err(model_error)?;
            codes.into_iter().map(|code| new[code as usize]).collect()
        }
    };
    let rows = read.rows.finish_unless(&groups, cancel);
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::Cancelled);
    }
    let groups = match groups.is_empty() {
        true => groups,
        false => rows.order.iter().map(|&row| groups[row]).collect(),
    };
    let keys = match read.keys.is_empty() {
        true => read.keys,
        false => rows.order.iter().map(|&row| read.keys[row]).collect(),
    };
    Ok(Sorted { rows, groups, keys })
}

/// Takes the memory of the whole training, or says how much it would have been.
fn reserve(
    learner: &Learner,
    rows: &GatheredRows,
    features: usize,
    memory: &MemoryReservation,
) -> Result<()> {
    let width = match learner.features().and_then(FeatureLearner::trees) {
        Some(_) => features,
        None => rows.features.iter().map(Feature::width).sum(),
    };
    // The label is behind the features.
    let classes = rows.features.last().map_or(0, Feature::width);
    let count = rows.order.len();
    let needed_bytes = learner.memory_bytes(0, width, count, classes);
    take(memory, needed_bytes, learner, &format!("{count} rows of {width} numbers"))
}

/// One training.
struct Fit<'a> {
    learner: FeatureLearner,
    columns: FeatureColumns,
    split: SplitOptions,
    cancel: &'a AtomicBool,
    progress: &'a Reporter,
    clock: &'a Catalog,
}

/// What was learned, and its worth by the names of [`Model::measures`].
pub struct Learned {
    /// The model.
    pub model: Model,
    /// Empty where no rows were kept aside to measure on.
    pub metrics: Vec<f64>,
    /// The rows that they are of.
    pub measured_rows: usize,
    /// The name of the metric of each iteration, where there is one.
    pub validation_metric: Option<&'static str>,
    /// The iteration that the model is of, when that metric chose it.
    pub best_iteration: Option<usize>,
}

impl Fit<'_> {
    fn run(self, input: Input) -> Result<Trained> {
        let count = match &input {
            Input::Sorted(sorted) => sorted.rows.order.len(),
            Input::Summed(summed) => summed.1.rows(),
        };
        if count == 0 {
            return Err(model_error(ModelError::Empty));
        }
        let mut watch = Watch::new(self.progress, self.clock, None);
        let mut report = |now: Step| watch.report(now);
        let learned = match (&self.learner, input) {
            (FeatureLearner::Pca(options), Input::Summed(summed)) => {
                self.components(*summed, options, &mut report)
            }
            (FeatureLearner::KMeans(options), Input::Sorted(sorted)) => {
                self.clusters(sorted, options, &mut report)
            }
            (FeatureLearner::IsolationForest(options), Input::Sorted(sorted)) => {
                self.forest(sorted, options, &mut report)
            }
            (FeatureLearner::Outlier(options), Input::Sorted(sorted)) => {
                self.outliers(sorted, options, &mut report)
            }
            (FeatureLearner::Boosted(options), Input::Sorted(sorted)) => {
                check_known(&sorted.rows.features)?;
                let division = (&self.columns, &self.split);
                trees::grow(sorted, options, division, &mut report, self.cancel)
            }
            _ => Err(Error::Internal("rows were read for another learner".into())),
        }?;
        let Learned { model, metrics, measured_rows, validation_metric, best_iteration } = learned;
        let names = model.measures().iter().copied();
        let metric = |(name, value)| metric(name, value, measured_rows);
        let metrics = names.zip(metrics).map(metric).collect();
        Ok(Trained {
            total_iterations: best_iteration.unwrap_or(watch.iterations.len()),
            model,
            pairs: None,
            iterations: watch.iterations,
            validation_metric: validation_metric.map(str::to_owned),
            best_iteration,
            tuning: None,
            segments: vec![],
            metrics,
            began: None,
            start: StoredStart::Anew,
            compared: None,
            interactions: count,
            merged: 0,
        })
    }

    fn clusters(
        &self,
        sorted: Sorted,
        options: &kmeans::KMeansOptions,
        report: &mut dyn FnMut(Step),
    ) -> Result<Learned> {
        let (preparation, dense) = dense(sorted)?;
        let width = preparation.width();
        let learned = kmeans::train(&dense, width, options, report, self.cancel);
        let learned = learned.map_err(model_error)?;
        let rows = dense.len() / width;
        let loss = learned.losses.last().copied().unwrap_or(f64::NAN);
        let metrics = vec![learned.davies_bouldin, loss / rows as f64];
        let model = Prepared::clusters(preparation, learned).map_err(model_error)?;
        Ok(unvalidated(model.into(), metrics, rows))
    }

    fn forest(
        &self,
        sorted: Sorted,
        options: &isolation_forest::ForestOptions,
        report: &mut dyn FnMut(Step),
    ) -> Result<Learned> {
        let (preparation, dense) = dense(sorted)?;
        let width = preparation.width();
        let learned = isolation_forest::train(&dense, width, options, report, self.cancel);
        let learned = learned.map_err(model_error)?;
        let scores = learned.scores_unless(&dense, self.cancel).map_err(model_error)?;
        let count = scores.len() as f64;
        let anomalies = scores.iter().filter(|score| learned.is_anomaly(**score)).count();
        let metrics = vec![anomalies as f64 / count, scores.iter().sum::<f64>() / count];
        let model = Prepared::forest(preparation, learned).map_err(model_error)?;
        Ok(unvalidated(model.into(), metrics, scores.len()))
    }

    fn outliers(
        &self,
        sorted: Sorted,
        options: &outlier::OutlierOptions,
        report: &mut dyn FnMut(Step),
    ) -> Result<Learned> {
        let GatheredRows { features, columns, order } = sorted.rows;
        let is_null = |column: &Vec<f64>| column.iter().all(|value| value.is_nan());
        if let Some((empty, _)) = features.iter().zip(&columns).find(|(_, of)| is_null(of)) {
            return Err(unknown(empty));
        }
        let learned = outlier::train(&columns, options, report, self.cancel);
        let learned = learned.map_err(model_error)?;
        let rows = order.len();
        let judged = learned.judge_unless(&columns, rows, self.cancel).map_err(model_error)?;
        let metrics = outlier::OutlierModel::measures(&judged).to_vec();
        let preparation = Preparation::new(features).map_err(model_error)?;
        let model = Prepared::outliers(preparation, learned).map_err(model_error)?;
        Ok(unvalidated(model.into(), metrics, rows))
    }

    fn components(
        &self,
        (read, summed): (FeatureRows, pca::PcaRows),
        options: &pca::PcaOptions,
        report: &mut dyn FnMut(Step),
    ) -> Result<Learned> {
        let rows = summed.rows();
        let (features, moments) = summed.finish(read, self.cancel).map_err(model_error)?;
        check_known(&features)?;
        let preparation = Preparation::new(features).map_err(model_error)?;
        let learned = pca::fit(&moments, options, report, self.cancel).map_err(model_error)?;
        let metrics = vec![learned.explained_variance_ratio.iter().sum()];
        let model = Prepared::components(preparation, learned).map_err(model_error)?;
        Ok(unvalidated(model.into(), metrics, rows))
    }
}

/// Every column has to hold something.
fn check_known(features: &[Feature]) -> Result<()> {
    match features.iter().find(|feature| feature.width() == 0) {
        None => Ok(()),
        Some(empty) => Err(unknown(empty)),
    }
}

fn unknown(empty: &Feature) -> Error {
    Error::Model {
        what: format!("column {} is NULL in every row", empty.name),
        hint: Some("leave it out of the training query".into()),
    }
}

/// The rows for learners of numbers.
fn dense(sorted: Sorted) -> Result<(Preparation, Vec<f64>)> {
    check_known(&sorted.rows.features)?;
    let preparation = Preparation::new(sorted.rows.features).map_err(model_error)?;
    let dense = preparation.one_hot(&sorted.rows.columns);
    Ok((preparation, dense))
}

/// A model that was measured on the rows that it learned from.
fn unvalidated(model: Model, metrics: Vec<f64>, measured_rows: usize) -> Learned {
    Learned { model, metrics, measured_rows, validation_metric: None, best_iteration: None }
}

/// A metric over rows; it has neither interval nor baseline.
fn metric(name: &str, value: f64, rows: usize) -> Metric {
    let none = f64::NAN;
    Metric { name: name.into(), value, lower: none, upper: none, users: rows, baseline: none }
}

/// A model's features, for its message: with the numbers that texts become, and of outliers with
/// what columns do not spread.
pub fn described(model: &Model, preparation: &Preparation) -> String {
    let features = preparation.features();
    let texts = |feature: &&Feature| matches!(feature.kind, FeatureKind::Category(_));
    let mut text = match features.iter().filter(texts).count() {
        0 => format!("{} features", features.len()),
        _ => format!("{} features ({} numbers a row)", features.len(), preparation.width()),
    };
    let Model::Outlier(outliers) = model else { return text };
    let spreads = || features.iter().zip(&outliers.learned().spreads);
    let names = |constant: bool| -> Vec<&str> {
        spreads()
            .filter(|(_, spread)| spread.scale == 0.0 && spread.is_constant == constant)
            .map(|(feature, _)| feature.name.as_str())
            .collect()
    };
    for (names, what) in [(names(true), "constant"), (names(false), "without a scale")] {
        if !names.is_empty() {
            text.push_str(&format!("; {what}: {}", names.join(", ")));
        }
    }
    text
}
