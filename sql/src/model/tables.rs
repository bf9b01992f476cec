//! What a model holds, as tables: users, weights, training history, description.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeListArray, Float32Array, Float64Array, Int64Array, StringArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use catalog::models::LoadedModel;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::error::{Error, Result};

/// Rows of a batch of weights.
const WEIGHT_ROWS: usize = 4_096;

fn table(batch: RecordBatch) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(Error::from)?))
}

/// Every user of the model, in one column.
///
/// # Errors
/// When Arrow refuses the column.
pub fn users(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    let ids = model.model.user_ids().values();
    let name = model.manifest.user_col.as_str();
    table(RecordBatch::try_from_iter_with_nullable([(name, Arc::clone(&ids), true)])?)
}

/// `ML.TRAINING_INFO`.
///
/// # Errors
/// When Arrow refuses a column.
pub fn training_info(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    let iterations = &model.manifest.iterations;
    let numbers = iterations.iter().map(|now| i64::from(now.iteration));
    let columns: [(&str, ArrayRef); 3] = [
        ("iteration", Arc::new(Int64Array::from_iter_values(numbers))),
        ("loss", Arc::new(Float64Array::from_iter_values(iterations.iter().map(|now| now.loss)))),
        (
            "duration_ms",
            Arc::new(Float64Array::from_iter_values(iterations.iter().map(|now| now.duration_ms))),
        ),
    ];
    table(RecordBatch::try_from_iter(columns)?)
}

/// DESCRIBE MODEL: a property a row; the training query only `with_query`.
///
/// # Errors
/// When Arrow refuses a column.
pub fn description(model: &LoadedModel, with_query: bool) -> Result<LogicalPlan> {
    let manifest = &model.manifest;
    let mut rows: Vec<(String, String)> = vec![
        ("name".into(), model.name.to_string()),
        ("version".into(), model.version.to_string()),
        ("model_type".into(), manifest.model_type.clone()),
        ("users".into(), model.model.user_ids().len().to_string()),
        ("items".into(), model.model.item_ids().len().to_string()),
        ("interactions".into(), model.model.seen().cells().to_string()),
        ("user_col".into(), manifest.user_col.clone()),
        ("item_col".into(), manifest.item_col.clone()),
        ("rating_col".into(), manifest.rating_col.clone().unwrap_or_default()),
        ("memory_bytes".into(), model.model.memory_bytes().to_string()),
    ];
    for (name, value) in &manifest.options {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        rows.push((format!("option {name}"), value));
    }
    for metric in &manifest.metrics {
        let beside = format!("{} (popularity {})", metric.value, metric.baseline);
        rows.push((format!("metric {}", metric.name), beside));
    }
    if with_query {
        rows.push(("query".into(), manifest.query.clone()));
    }
    let (properties, values): (Vec<String>, Vec<String>) = rows.into_iter().unzip();
    let columns: [(&str, ArrayRef); 2] = [
        ("property", Arc::new(StringArray::from(properties))),
        ("value", Arc::new(StringArray::from(values))),
    ];
    let table = table(RecordBatch::try_from_iter(columns)?)?;
    Ok(LogicalPlanBuilder::scan("model", provider_as_source(table), None)?.build()?)
}

/// `ML.WEIGHTS`: made when it is scanned, because a model may be large.
pub fn weights(model: &LoadedModel) -> Arc<dyn TableProvider> {
    Arc::new(Weights { model: model.clone(), schema: weights_schema(model) })
}

fn weights_schema(model: &LoadedModel) -> SchemaRef {
    let factors = i32::try_from(model.model.num_factors()).unwrap_or(i32::MAX);
    let item = Arc::new(Field::new("weight", DataType::Float32, false));
    Arc::new(Schema::new(vec![
        Field::new("processed_input", DataType::Utf8, false),
        Field::new("feature", DataType::Utf8, true),
        Field::new("factor_weights", DataType::FixedSizeList(item, factors), false),
        Field::new("intercept", DataType::Float32, false),
    ]))
}

#[derive(Debug)]
struct Weights {
    model: LoadedModel,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for Weights {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let model = &self.model.model;
        let manifest = &self.model.manifest;
        let mut batches = Vec::new();
        for (name, ids, factors, bias) in [
            (&manifest.user_col, model.user_ids(), model.user_factors(), model.user_bias()),
            (&manifest.item_col, model.item_ids(), model.item_factors(), model.item_bias()),
        ] {
            batches.extend(self.side(name, ids.values(), factors, bias)?);
        }
        let table = MemTable::try_new(Arc::clone(&self.schema), vec![batches])?;
        table.scan(state, projection, filters, limit).await
    }
}

impl Weights {
    fn side(
        &self,
        name: &str,
        ids: ArrayRef,
        factors: &[f32],
        bias: &[f32],
    ) -> Result<Vec<RecordBatch>> {
        let width = self.model.model.num_factors();
        let texts = arrow::compute::cast(&ids, &DataType::Utf8)?;
        let DataType::FixedSizeList(item, size) = self.schema.field(2).data_type() else {
            return Err(Error::Internal("weights are lists".into()));
        };
        let mut batches = Vec::new();
        for start in (0..ids.len()).step_by(WEIGHT_ROWS) {
            let rows = WEIGHT_ROWS.min(ids.len() - start);
            let values = factors[start * width..(start + rows) * width].to_vec();
            let lists = FixedSizeListArray::try_new(
                Arc::clone(item),
                *size,
                Arc::new(Float32Array::from(values)),
                None,
            )?;
            let intercept = match bias.is_empty() {
                true => vec![0.0; rows],
                false => bias[start..start + rows].to_vec(),
            };
            let columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from_iter_values(std::iter::repeat_n(name, rows))),
                texts.slice(start, rows),
                Arc::new(lists),
                Arc::new(Float32Array::from(intercept)),
            ];
            batches.push(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        }
        Ok(batches)
    }
}
