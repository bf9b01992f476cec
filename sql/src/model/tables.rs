//! What a model knows, as tables: users, training history, description.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use catalog::models::LoadedModel;
use datafusion::catalog::TableProvider;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};

use crate::error::{Error, Result};
use crate::model::recommender;

fn table(batch: RecordBatch) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(Error::from)?))
}

/// Every user of the model, in one column.
///
/// # Errors
/// When Arrow refuses the column.
pub fn users(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    let ids = recommender(model)?.user_ids().values();
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
        ("user_col".into(), manifest.user_col.clone()),
        ("item_col".into(), manifest.item_col.clone()),
        ("rating_col".into(), manifest.rating_col.clone().unwrap_or_default()),
        ("memory_bytes".into(), model.model.memory_bytes().to_string()),
    ];
    if let Some(recommender) = model.model.recommender() {
        let counts = [
            ("users", recommender.user_ids().len()),
            ("items", recommender.item_ids().len()),
            ("interactions", recommender.seen().cells()),
        ];
        let counts = counts.map(|(name, count)| (name.to_owned(), count.to_string()));
        rows.splice(3..3, counts);
    }
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
