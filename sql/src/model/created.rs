//! The row that CREATE MODEL answers, and what it says.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::ObjectName;
use catalog::models::StoredTuning;

use crate::error::Result;

pub(super) fn result_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("model", DataType::Utf8, false),
        Field::new("version", DataType::UInt32, false),
        Field::new("users", DataType::Int64, false),
        Field::new("items", DataType::Int64, false),
        Field::new("interactions", DataType::Int64, false),
        Field::new("message", DataType::Utf8, false),
    ]))
}

pub(super) fn best_trial(tuning: &StoredTuning) -> String {
    let chosen = tuning.chosen.iter().map(|(name, value)| match value.as_str() {
        Some(text) => format!("{name} = '{text}'"),
        None => format!("{name} = {value}"),
    });
    let chosen: Vec<String> = chosen.collect();
    format!("; best of {} trials: {}", tuning.trials.len(), chosen.join(", "))
}

/// How a version began; one of a type that never goes on from another, that somebody has left it.
pub(super) fn began(told: Option<String>, left: Option<String>) -> Option<String> {
    told.or_else(|| left.map(|why| format!("trained anew ({why})")))
}

/// What is not unlearned where options were searched.
pub(super) fn search_stays(stays: bool) -> Option<String> {
    let told = "the options that a search had chosen stay, tune = TRUE searches them anew";
    stays.then(|| told.to_owned())
}

/// What was made, and what else is told of it.
pub(super) fn whole(made: String, more: [Option<String>; 3]) -> String {
    let told: Vec<String> = std::iter::once(made).chain(more.into_iter().flatten()).collect();
    told.join("; ")
}

pub(super) fn result(
    name: &ObjectName,
    version: u32,
    counts: [usize; 3],
    message: String,
) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![name.to_string()])),
        Arc::new(UInt32Array::from(vec![version])),
    ];
    columns.extend(counts.map(|count| {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        Arc::new(Int64Array::from(vec![count])) as ArrayRef
    }));
    columns.push(Arc::new(StringArray::from(vec![message])));
    Ok(RecordBatch::try_new(result_schema(), columns)?)
}
