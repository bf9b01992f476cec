//! `ML.EVALUATE` of models of features: one row, a column a metric, under BigQuery's names.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::models::LoadedModel;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::StreamExt;
use udfs::model::boosted::{Targets, Trees};
use udfs::model::{IdIndex, Model, ModelError};

use crate::error::{Error, Result};
use crate::model::features::columns::Positions;
use crate::model::features::preparation;
use crate::model::options::model_error;

/// The columns of the answer.
pub fn schema(model: &LoadedModel) -> SchemaRef {
    let names = model.model.measures().iter();
    let fields = names.map(|name| Field::new(*name, DataType::Float64, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The answer: a value for each column, NULL for one that is not finite.
///
/// # Errors
/// When there are more or fewer values than columns.
pub fn batch(model: &LoadedModel, values: impl Iterator<Item = f64>) -> Result<RecordBatch> {
    let finite = |value: f64| Some(value).filter(|value| value.is_finite());
    let columns = values.map(|value| Arc::new(Float64Array::from(vec![finite(value)])) as ArrayRef);
    Ok(RecordBatch::try_new(schema(model), columns.collect())?)
}

/// What training measured.
///
/// # Errors
/// When training kept no rows aside to measure on.
pub fn stored(model: &LoadedModel) -> Result<RecordBatch> {
    let metrics = &model.manifest.metrics;
    let value = |name: &str| metrics.iter().find(|metric| metric.name == name);
    let names = model.model.measures().iter();
    batch(model, names.map(|name| value(name).map_or(f64::NAN, |metric| metric.value)))
}

/// Rows of a query whose labels are known.
#[derive(Default)]
struct Known {
    columns: Vec<Vec<f64>>,
    targets: Targets,
    groups: Option<IdIndex>,
}

/// What the model is worth on a query's rows.
///
/// # Errors
/// Columns that do not fit, labels that are unknown, no rows, too little memory.
pub async fn on_rows(
    model: &LoadedModel,
    mut rows: SendableRecordBatchStream,
    memory: &MemoryReservation,
) -> Result<RecordBatch> {
    let schema = rows.schema();
    let positions = Positions::to_measure(model, &schema)?;
    let width = preparation(model)?.width();
    let groups = positions.group.map(|at| {
        let field = schema.field(at);
        IdIndex::new(field.name(), field.data_type()).map_err(model_error)
    });
    let columns = vec![vec![]; positions.features.len()];
    let mut known = Known { columns, groups: groups.transpose()?, ..Known::default() };
    let row_bytes = (positions.features.len() + 2 * width + 6) * size_of::<f64>();
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        memory.try_grow(batch.num_rows() * row_bytes)?;
        known.add(model, &batch, &positions)?;
    }
    if known.columns.first().is_none_or(Vec::is_empty) {
        return Err(Error::Model {
            what: "there is no row to evaluate on".into(),
            hint: Some("check the query".into()),
        });
    }
    let held = Arc::clone(&model.model);
    let values = crate::model::learn(move || held.measure(&known.columns, &known.targets)).await?;
    batch(model, values.map_err(model_error)?.into_iter())
}

impl Known {
    fn add(&mut self, model: &LoadedModel, batch: &RecordBatch, at: &Positions) -> Result<()> {
        let features: Vec<ArrayRef> =
            at.features.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        let read = model.model.read(&features).map_err(model_error)?;
        self.columns.iter_mut().zip(read).for_each(|(all, more)| all.extend(more));
        if let (Some(at), Model::Boosted(trees)) = (at.label, model.model.as_ref()) {
            self.targets.labels.extend(labels(model, trees.learned(), batch.column(at))?);
        }
        if let (Some(at), Some(ids)) = (at.group, &mut self.groups) {
            self.targets.groups.extend(ids.encode(batch.column(at)).map_err(model_error)?);
        }
        Ok(())
    }
}

/// The labels as numbers, or as codes of classes.
fn labels(model: &LoadedModel, trees: &Trees, column: &ArrayRef) -> Result<Vec<f64>> {
    let name = &trees.label;
    if column.null_count() > 0 {
        return Err(model_error(ModelError::Null { column: name.clone() }));
    }
    let Some(classes) = &trees.classes else {
        let numbers = cast(column, &DataType::Float64)?;
        return Ok(numbers.as_primitive::<Float64Type>().values().to_vec());
    };
    let texts = cast(column, &DataType::Utf8)?;
    let code = |text: Option<&str>| {
        let found = classes.names.iter().position(|name| Some(name.as_str()) == text);
        found.map(|code| code as f64).ok_or_else(|| Error::Model {
            what: format!(
                "column {name} holds '{}', a class that {model} does not know",
                text.unwrap_or_default()
            ),
            hint: Some(format!("it knows {}", classes.names.join(", "))),
        })
    };
    texts.as_string::<i32>().iter().map(code).collect()
}
