//! What a model is worth: its metrics with intervals, beside popularity and the version before.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use catalog::models::{LoadedModel, StoredMetric};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::StreamExt;
use udfs::model::als::Feedback;
use udfs::model::{Csr, Duplicates, Evaluation, Measured, Model, Recommender, Triplets};

use crate::error::{Error, Result};
use crate::model::options::model_error;
use crate::model::train::{BYTES_PER_ROW, RowSegments, TrainingColumns, duplicates};

/// More segments than this are no overview.
const SEGMENTS_MAX: usize = 100;

/// A metric of the model beside the popularity baseline's.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name, such as `recall@20`.
    pub name: String,
    /// The model's.
    pub value: f64,
    /// The lower end of its 95 % interval.
    pub lower: f64,
    /// The upper end.
    pub upper: f64,
    /// How many users have a say.
    pub users: usize,
    /// The baseline's.
    pub baseline: f64,
}

impl From<Measured> for Metric {
    fn from(found: Measured) -> Self {
        let Measured { name, value, low: lower, high: upper, users, baseline } = found;
        Self { name, value, lower, upper, users, baseline }
    }
}

impl Metric {
    /// The form that a model's manifest keeps.
    pub fn stored(&self) -> StoredMetric {
        StoredMetric {
            name: self.name.clone(),
            value: self.value,
            baseline: self.baseline,
            lower: self.lower,
            upper: self.upper,
            users: self.users,
        }
    }
}

/// Evaluates a model on interactions in the model's own codes; nothing without interactions, or of
/// a model that is no recommender.
///
/// # Errors
/// When it was cancelled.
pub fn evaluate(
    model: &Model,
    test: &Csr,
    top_k: usize,
    cancel: &AtomicBool,
) -> Result<Option<Evaluation>> {
    let Some(recommender) = model.recommender().filter(|_| test.cells() > 0) else {
        return Ok(None);
    };
    if recommender.item_ids().len() != test.columns() {
        return Err(Error::Internal("an evaluation has codes of another model".into()));
    }
    Evaluation::of(model, test, top_k, cancel).map(Some).map_err(model_error)
}

/// The metrics of an evaluation, over all users.
///
/// # Errors
/// When it was cancelled.
pub fn metrics(evaluation: &Evaluation, cancel: &AtomicBool) -> Result<Vec<Metric>> {
    let measured = evaluation.measure(&|_| true, cancel).map_err(model_error)?;
    Ok(measured.into_iter().map(Metric::from).collect())
}

/// Whether the model predicts ratings.
pub fn is_explicit(model: &Model) -> bool {
    model.als().is_some_and(|als| als.feedback() == Feedback::Explicit)
}

/// Rows of a model's users and items, in its codes.
pub struct Known {
    /// Interactions, users × items.
    pub cells: Csr,
    /// The segments' names and the segment of each user, when they were asked for.
    pub segments: Option<(Vec<String>, Vec<u32>)>,
}

/// Reads, for each of several models, the rows of users and items that it knows.
///
/// # Errors
/// Weights that are not finite, too many segments, or too little memory.
pub async fn read_known(
    mut rows: SendableRecordBatchStream,
    columns: &TrainingColumns,
    models: &[&Model],
    memory: &MemoryReservation,
) -> Result<Vec<Known>> {
    let recommenders: Vec<&dyn Recommender> =
        models.iter().filter_map(|model| model.recommender()).collect();
    let mut cells: Vec<Triplets> = recommenders.iter().map(|_| Triplets::default()).collect();
    let mut segments: Vec<RowSegments> =
        recommenders.iter().map(|_| RowSegments::default()).collect();
    let segment = columns.segment.as_ref();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let row_bytes = BYTES_PER_ROW + if segment.is_some() { 8 } else { 0 };
        memory.try_grow(batch.num_rows() * row_bytes * recommenders.len())?;
        let (weights, name) = columns.weights(&batch)?;
        for (at, recommender) in recommenders.iter().enumerate() {
            let users = recommender.user_ids().lookup(batch.column(columns.user.0));
            let items = recommender.item_ids().lookup(batch.column(columns.item.0));
            let (users, items) = (users.map_err(model_error)?, items.map_err(model_error)?);
            let mut known = vec![];
            let mut is_known = Vec::with_capacity(batch.num_rows());
            for (row, (user, item)) in users.into_iter().zip(items).enumerate() {
                is_known.push(user.is_some() && item.is_some());
                let (Some(user), Some(item)) = (user, item) else { continue };
                let weight = weights.as_ref().map_or(1.0, |weights| weights.value(row));
                cells[at].push(user, item, weight, name).map_err(model_error)?;
                known.push(user);
            }
            if let Some((index, name)) = segment {
                let texts = filter(batch.column(*index), &is_known.into())?;
                segments[at].add(&known, &texts, name, SEGMENTS_MAX)?;
            }
        }
    }
    let of_each = recommenders.iter().zip(models).zip(cells).zip(segments);
    let known = of_each.map(|(((recommender, model), cells), segments)| {
        let (users, items) = (recommender.user_ids().len(), recommender.item_ids().len());
        let merge: Duplicates = duplicates(is_explicit(model));
        let own: Vec<u32> = (0..u32::try_from(users).unwrap_or(u32::MAX)).collect();
        Known {
            cells: cells.build(users, items, merge).0,
            segments: segment.map(|_| segments.by_user(&own)),
        }
    });
    Ok(known.collect())
}

/// A row of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The segment; none over all users.
    pub segment: Option<String>,
    /// The metric.
    pub metric: StoredMetric,
    /// The version before; NaN where it has none.
    pub previous: f64,
}

/// The columns of an evaluation.
pub fn schema(with_segment: bool) -> SchemaRef {
    let number = |name: &str| Field::new(name, DataType::Float64, true);
    let mut fields = vec![];
    if with_segment {
        fields.push(Field::new("segment", DataType::Utf8, true));
    }
    fields.push(Field::new("metric", DataType::Utf8, false));
    fields.extend(["value", "lower", "upper"].map(number));
    fields.push(Field::new("users", DataType::Int64, false));
    fields.extend(["popularity", "previous"].map(number));
    Arc::new(Schema::new(fields))
}

/// The rows of an evaluation; what is no number is NULL.
///
/// # Errors
/// When Arrow refuses them.
pub fn batch(lines: &[Line], with_segment: bool) -> Result<RecordBatch> {
    let numbers = |of: fn(&Line) -> f64| -> ArrayRef {
        let finite = |line: &Line| Some(of(line)).filter(|value| value.is_finite());
        Arc::new(lines.iter().map(finite).collect::<Float64Array>())
    };
    let mut columns: Vec<ArrayRef> = vec![];
    if with_segment {
        let names = lines.iter().map(|line| line.segment.as_deref());
        columns.push(Arc::new(names.collect::<StringArray>()));
    }
    let users = |line: &Line| i64::try_from(line.metric.users).unwrap_or(i64::MAX);
    columns.extend([
        Arc::new(StringArray::from_iter_values(lines.iter().map(|line| &line.metric.name))) as _,
        numbers(|line| line.metric.value),
        numbers(|line| line.metric.lower),
        numbers(|line| line.metric.upper),
        Arc::new(lines.iter().map(|line| Some(users(line))).collect::<Int64Array>()) as _,
        numbers(|line| line.metric.baseline),
        numbers(|line| line.previous),
    ]);
    Ok(RecordBatch::try_new(schema(with_segment), columns)?)
}

/// The lines of the metrics that training measured, beside those of the version before.
pub fn stored(metrics: &[StoredMetric], previous: &[StoredMetric]) -> Vec<Line> {
    let before = |name: &str| previous.iter().find(|metric| metric.name == name);
    let line = |metric: &StoredMetric| Line {
        segment: None,
        previous: before(&metric.name).map_or(f64::NAN, |metric| metric.value),
        metric: metric.clone(),
    };
    metrics.iter().map(line).collect()
}

/// An evaluated version with the segments of its users.
pub struct Judged {
    evaluation: Evaluation,
    segments: Option<(Vec<String>, Vec<u32>)>,
}

impl Judged {
    /// Measures what is known of a model's rows.
    ///
    /// # Errors
    /// When it was cancelled.
    pub fn new(model: &Model, known: Known, top_k: usize, cancel: &AtomicBool) -> Result<Self> {
        let evaluation = Evaluation::of(model, &known.cells, top_k, cancel).map_err(model_error)?;
        Ok(Self { evaluation, segments: known.segments })
    }

    /// The names of the segments.
    fn names(&self) -> &[String] {
        self.segments.as_ref().map_or(&[], |(names, _)| names)
    }

    /// Who belongs to a segment; everybody to none.
    fn keep(&self, segment: Option<&str>) -> impl Fn(u32) -> bool {
        let code = segment.and_then(|segment| self.names().iter().position(|name| name == segment));
        let of_user = self.segments.as_ref().map(|(_, of_user)| of_user.as_slice());
        move |user: u32| match (segment, of_user.zip(code)) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(_), Some((of_user, code))) => {
                of_user.get(user as usize).is_some_and(|of| *of as usize == code)
            }
        }
    }

    /// A line for each metric, over all users and then in each segment.
    ///
    /// # Errors
    /// When it was cancelled.
    pub fn lines(&self, previous: Option<&Self>, cancel: &AtomicBool) -> Result<Vec<Line>> {
        let mut lines = vec![];
        let segments = self.names().iter().map(|name| Some(name.as_str()));
        for segment in std::iter::once(None).chain(segments) {
            let before = previous.map(|previous| previous.values(segment)).unwrap_or_default();
            let found = self.evaluation.measure(&self.keep(segment), cancel);
            for metric in found.map_err(model_error)?.into_iter().map(Metric::from) {
                let same = before.iter().find(|(name, _)| *name == metric.name);
                lines.push(Line {
                    segment: segment.map(str::to_owned),
                    previous: same.map_or(f64::NAN, |(_, value)| *value),
                    metric: metric.stored(),
                });
            }
        }
        Ok(lines)
    }

    fn values(&self, segment: Option<&str>) -> Vec<(String, f64)> {
        self.evaluation.values(&self.keep(segment))
    }
}

/// The version before a model's, as far as an evaluation asks for it.
#[derive(Debug, Clone)]
pub struct Previous {
    /// What its training measured.
    pub metrics: Vec<StoredMetric>,
    /// Itself, when it is to be measured.
    pub model: Option<LoadedModel>,
}
