//! What a model knows, as tables: users, training history, description.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, StructArray};
use arrow::datatypes::{Field, FieldRef, Fields};
use arrow::record_batch::RecordBatch;
use catalog::models::{LoadedModel, StoredMetric, StoredTrial};
use datafusion::catalog::TableProvider;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use serde_json::Value as Json;
use udfs::model::Model;
use udfs::model::judge::Objective;

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
    let manifest = &model.manifest;
    let iterations = &manifest.iterations;
    let numbers = iterations.iter().map(|now| i64::from(now.iteration));
    let metrics: Float64Array = iterations.iter().map(|now| now.metric).collect();
    let names = iterations
        .iter()
        .map(|now| manifest.validation_metric.as_deref().filter(|_| now.metric.is_some()));
    let last = iterations.last().map(|now| now.iteration);
    let best = manifest.best_iteration.or(last);
    let is_best = iterations.iter().map(|now| Some(Some(now.iteration) == best));
    let columns: [(&str, ArrayRef, bool); 6] = [
        ("iteration", Arc::new(Int64Array::from_iter_values(numbers)), false),
        (
            "loss",
            Arc::new(Float64Array::from_iter_values(iterations.iter().map(|now| now.loss))),
            false,
        ),
        (
            "duration_ms",
            Arc::new(Float64Array::from_iter_values(iterations.iter().map(|now| now.duration_ms))),
            false,
        ),
        ("validation_metric", Arc::new(names.collect::<StringArray>()), true),
        ("validation_value", Arc::new(metrics), true),
        ("is_best", Arc::new(is_best.collect::<BooleanArray>()), false),
    ];
    table(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// `ML.TRIAL_INFO`: a row a trial, the options tried and the metric in structs of their own.
///
/// # Errors
/// When the model's options were not searched.
pub fn trial_info(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    let Some(tuning) = &model.manifest.tuning else {
        return Err(Error::invalid_hint(
            format!("the options of {model} were not searched"),
            "CREATE MODEL with num_trials, or with an option HPARAM_RANGE(a, b), searches them",
        ));
    };
    let trials = &tuning.trials;
    let best = trials.iter().filter(|trial| trial.metric.is_finite());
    let is_error = Objective::ALL.iter().any(|o| o.is_error() && o.name() == tuning.objective);
    let worth = |trial: &StoredTrial| if is_error { -trial.metric } else { trial.metric };
    // Of equal ones the first, as the search chooses.
    let best = best.rev().max_by(|a, b| worth(a).total_cmp(&worth(b))).map(|trial| trial.trial);
    let status = |trial: &StoredTrial| match (&trial.error, trial.stopped) {
        (Some(_), _) => "FAILED",
        (None, true) => "STOPPED",
        (None, false) => "SUCCEEDED",
    };
    let metrics: Float64Array =
        trials.iter().map(|trial| Some(trial.metric).filter(|value| value.is_finite())).collect();
    let whole = |of: fn(&StoredTrial) -> Option<u32>| -> ArrayRef {
        Arc::new(trials.iter().map(|trial| of(trial).map(i64::from)).collect::<Int64Array>())
    };
    let of_metric: ArrayRef = Arc::new(metrics);
    let columns: [(&str, ArrayRef, bool); 10] = [
        ("trial_id", whole(|trial| Some(trial.trial)), false),
        ("hyperparameters", hyperparameters(trials)?, false),
        (
            "hparam_tuning_evaluation_metrics",
            structure(vec![(tuning.objective.clone(), of_metric)], trials.len())?,
            false,
        ),
        (
            "training_loss",
            Arc::new(trials.iter().map(|trial| trial.loss).collect::<Float64Array>()),
            true,
        ),
        ("iterations", whole(|trial| trial.iterations), true),
        ("best_iteration", whole(|trial| trial.best_iteration), true),
        (
            "duration_ms",
            Arc::new(Float64Array::from_iter_values(trials.iter().map(|trial| trial.duration_ms))),
            false,
        ),
        ("status", Arc::new(StringArray::from_iter_values(trials.iter().map(status))), false),
        (
            "error_message",
            Arc::new(trials.iter().map(|trial| trial.error.as_deref()).collect::<StringArray>()),
            true,
        ),
        (
            "is_optimal",
            Arc::new(
                trials
                    .iter()
                    .map(|trial| Some(Some(trial.trial) == best))
                    .collect::<BooleanArray>(),
            ),
            false,
        ),
    ];
    table(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// The options tried: whole numbers, numbers or texts, NULL where a trial has none.
fn hyperparameters(trials: &[StoredTrial]) -> Result<ArrayRef> {
    let names: BTreeSet<&String> = trials.iter().flat_map(|trial| trial.values.keys()).collect();
    let column = |name: &String| -> ArrayRef {
        let values: Vec<Option<&Json>> =
            trials.iter().map(|trial| trial.values.get(name)).collect();
        let all = |fits: fn(&Json) -> bool| values.iter().flatten().all(|value| fits(value));
        if all(Json::is_i64) {
            Arc::new(
                values.iter().map(|value| value.and_then(Json::as_i64)).collect::<Int64Array>(),
            )
        } else if all(Json::is_number) {
            Arc::new(
                values.iter().map(|value| value.and_then(Json::as_f64)).collect::<Float64Array>(),
            )
        } else {
            Arc::new(
                values.iter().map(|value| value.and_then(Json::as_str)).collect::<StringArray>(),
            )
        }
    };
    let columns = names.into_iter().map(|name| (name.clone(), column(name))).collect();
    structure(columns, trials.len())
}

fn structure(columns: Vec<(String, ArrayRef)>, rows: usize) -> Result<ArrayRef> {
    let fields = columns.into_iter().map(|(name, column)| {
        (Arc::new(Field::new(name, column.data_type().clone(), true)), column)
    });
    let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = fields.unzip();
    // The length counts where there is no column: no trial of an old version had an option.
    Ok(Arc::new(StructArray::try_new_with_length(Fields::from(fields), columns, None, rows)?))
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
    ];
    if model.model.recommender().is_some() {
        rows.push(("user_col".into(), manifest.user_col.clone()));
        rows.push(("item_col".into(), manifest.item_col.clone()));
        rows.push(("rating_col".into(), manifest.rating_col.clone().unwrap_or_default()));
    }
    if let Some(preparation) = model.model.preparation() {
        let names: Vec<&str> =
            preparation.features().iter().map(|feature| feature.name.as_str()).collect();
        rows.push(("features".into(), names.join(", ")));
        if let Model::Boosted(trees) = model.model.as_ref() {
            rows.push(("label".into(), trees.learned().label.clone()));
        }
        if let Model::Outlier(outliers) = model.model.as_ref() {
            let learned = outliers.learned();
            rows.push(("method".into(), learned.method.name().into()));
            rows.push(("threshold".into(), learned.threshold.to_string()));
        }
    }
    if let Some(found) = model.model.entities() {
        let linkage = &found.parts().linkage;
        let names = linkage
            .comparisons
            .iter()
            .map(|comparison| format!("{} ({})", comparison.column, comparison.kind.name()));
        rows.push(("records".into(), found.len().to_string()));
        rows.push(("comparisons".into(), names.collect::<Vec<_>>().join(", ")));
        rows.push(("share_of_matches".into(), linkage.lambda.to_string()));
        if linkage.eta > 0.0 {
            rows.push(("share_of_relatives".into(), linkage.eta.to_string()));
        }
    }
    rows.push(("memory_bytes".into(), model.model.memory_bytes().to_string()));
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
    if let Some(tuning) = &manifest.tuning {
        for (name, value) in &tuning.chosen {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            rows.push((format!("chosen {name}"), value));
        }
    }
    let known = rows.into_iter().map(|(name, value)| (name, Some(value)));
    let metrics = manifest.metrics.iter();
    let metrics = metrics.map(|metric| (format!("metric {}", metric.name), measured(metric)));
    let query = with_query.then(|| ("query".to_owned(), Some(manifest.query.clone())));
    let (properties, values): (Vec<String>, Vec<Option<String>>) =
        known.chain(metrics).chain(query).unzip();
    let columns: [(&str, ArrayRef, bool); 2] = [
        ("property", Arc::new(StringArray::from(properties)), false),
        ("value", Arc::new(StringArray::from(values)), true),
    ];
    let table = table(RecordBatch::try_from_iter_with_nullable(columns)?)?;
    Ok(LogicalPlanBuilder::scan("model", provider_as_source(table), None)?.build()?)
}

/// A metric's value, with that of what is popular where there is one; `None` where it is unknown.
fn measured(metric: &StoredMetric) -> Option<String> {
    match (metric.value.is_nan(), metric.baseline.is_nan()) {
        (true, _) => None,
        (false, true) => Some(metric.value.to_string()),
        (false, false) => Some(format!("{} (popularity {})", metric.value, metric.baseline)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_no_number_that_is_shown() {
        let shown = |value, baseline| {
            let (lower, upper) = (f64::NAN, f64::NAN);
            measured(&StoredMetric {
                name: "recall".into(),
                value,
                baseline,
                lower,
                upper,
                users: 3,
            })
        };
        assert_eq!(shown(f64::NAN, f64::NAN), None);
        assert_eq!(shown(0.5, f64::NAN).as_deref(), Some("0.5"));
        assert_eq!(shown(0.5, 0.25).as_deref(), Some("0.5 (popularity 0.25)"));
    }
}
