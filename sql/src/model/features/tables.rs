//! What a model of features has learned, as tables: `ML.CENTROIDS`, `ML.PRINCIPAL_COMPONENTS`,
//! `ML.PRINCIPAL_COMPONENT_INFO`, `ML.FEATURE_IMPORTANCE`, and `ML.WEIGHTS` of outliers.
//!
//! A row stands for a centroid or component and a column of features: `numerical_value` of a
//! number, `categorical_value` of a text, a list of its categories with a value each.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Float64Builder, Int64Array, Int64Builder, ListBuilder,
    StringArray, StringBuilder, StructBuilder,
};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::record_batch::RecordBatch;
use catalog::models::LoadedModel;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use udfs::model::outlier::{Method, OutlierModel, Spread};
use udfs::model::pca::PcaModel;
use udfs::model::{FeatureKind, Model, Preparation, Prepared};

use crate::error::{Error, Result};

fn table(batch: RecordBatch) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
}

fn wrong(function: &str, wanted: &str, model: &LoadedModel) -> Error {
    Error::invalid_hint(
        format!(
            "{function} asks a model of type '{wanted}', and {model} is of type '{}'",
            model.model.type_name()
        ),
        "SHOW MODELS tells the type of each",
    )
}

/// `ML.CENTROIDS`.
///
/// # Errors
/// When the model has no clusters.
pub fn centroids(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    let Model::KMeans(clusters) = model.model.as_ref() else {
        return Err(wrong("ml_centroids", "kmeans", model));
    };
    table(by_feature("centroid_id", clusters.preparation(), &clusters.learned().centroids)?)
}

fn components<'a>(
    function: &str,
    model: &'a LoadedModel,
) -> Result<(&'a Preparation, &'a PcaModel)> {
    match model.model.as_ref() {
        Model::Pca(found) => Ok((found.preparation(), found.learned())),
        _ => Err(wrong(function, "pca", model)),
    }
}

/// `ML.PRINCIPAL_COMPONENTS`.
///
/// # Errors
/// When the model has no components.
pub fn principal_components(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    let (preparation, learned) = components("ml_principal_components", model)?;
    table(by_feature("principal_component_id", preparation, &learned.components)?)
}

/// `ML.PRINCIPAL_COMPONENT_INFO`: the variance along each component.
///
/// # Errors
/// When the model has no components.
pub fn principal_component_info(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    let (_, learned) = components("ml_principal_component_info", model)?;
    let ids = (1..).take(learned.num_components());
    let cumulative = learned.explained_variance_ratio.iter().scan(0.0, |sum, ratio| {
        *sum += ratio;
        Some(*sum)
    });
    let columns: [(&str, ArrayRef); 4] = [
        ("principal_component_id", Arc::new(Int64Array::from_iter_values(ids))),
        ("eigenvalue", Arc::new(Float64Array::from(learned.explained_variance.clone()))),
        (
            "explained_variance_ratio",
            Arc::new(Float64Array::from(learned.explained_variance_ratio.clone())),
        ),
        (
            "cumulative_explained_variance_ratio",
            Arc::new(Float64Array::from_iter_values(cumulative)),
        ),
    ];
    table(RecordBatch::try_from_iter(columns)?)
}

/// `ML.FEATURE_IMPORTANCE`: a row for each column of features.
///
/// # Errors
/// When the model has no trees.
pub fn feature_importance(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    let Model::Boosted(trees) = model.model.as_ref() else {
        return Err(wrong("ml_feature_importance", "boosted_tree_…", model));
    };
    let names = trees.preparation().features().iter().map(|feature| feature.name.as_str());
    let importance = trees.learned().importance();
    let column = |at: usize| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(importance.iter().map(|of| of[at])))
    };
    let columns: [(&str, ArrayRef); 4] = [
        ("feature", Arc::new(StringArray::from_iter_values(names))),
        ("importance_weight", column(0)),
        ("importance_gain", column(1)),
        ("importance_cover", column(2)),
    ];
    table(RecordBatch::try_from_iter(columns)?)
}

/// `ML.WEIGHTS` of outliers: a row for each column of features.
///
/// # Errors
/// When Arrow refuses a column.
pub fn spreads(model: &Prepared<OutlierModel>) -> Result<Arc<dyn TableProvider>> {
    let OutlierModel { spreads, threshold, .. } = model.learned();
    let names = model.preparation().features().iter().map(|feature| feature.name.as_str());
    let bounds = |spread: &Spread| spread.bounds(*threshold);
    let constant = spreads.iter().map(|spread| Some(spread.is_constant));
    let columns: [(&str, ArrayRef, bool); 6] = [
        ("feature", Arc::new(StringArray::from_iter_values(names)), false),
        ("center", of_each(spreads, |spread| Some(spread.center)), false),
        ("scale", of_each(spreads, |spread| Some(spread.scale).filter(|scale| *scale > 0.0)), true),
        ("lower", of_each(spreads, |spread| bounds(spread).map(|(lower, _)| lower)), true),
        ("upper", of_each(spreads, |spread| bounds(spread).map(|(_, upper)| upper)), true),
        ("is_constant", Arc::new(constant.collect::<BooleanArray>()), false),
    ];
    table(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn of_each(spreads: &[Spread], number: impl Fn(&Spread) -> Option<f64>) -> ArrayRef {
    Arc::new(spreads.iter().map(number).collect::<Float64Array>())
}

/// Whether some of the features are texts, of which tables by features list all values.
pub fn has_categories(model: &LoadedModel) -> bool {
    let mut features = model.model.preparation().into_iter().flat_map(Preparation::features);
    features.any(|feature| matches!(feature.kind, FeatureKind::Category(_)))
}

/// Whether the spread of a column is of values that stand in it: of a median and quartiles, not of
/// a mean.
pub fn has_quantiles(model: &LoadedModel) -> bool {
    match model.model.as_ref() {
        Model::Outlier(outliers) => outliers.learned().method != Method::Zscore,
        _ => false,
    }
}

/// A row for each vector of `values` and column of features.
fn by_feature(id: &str, preparation: &Preparation, values: &[f64]) -> Result<RecordBatch> {
    let entry = Fields::from(vec![
        Field::new("category", DataType::Utf8, true),
        Field::new("value", DataType::Float64, true),
    ]);
    let (mut ids, mut names) = (Int64Builder::new(), StringBuilder::new());
    let mut numbers = Float64Builder::new();
    let mut categories = ListBuilder::new(StructBuilder::from_fields(entry, 0));
    for (vector, row) in (1..).zip(values.chunks_exact(preparation.width())) {
        let mut rest = row;
        for feature in preparation.features() {
            let (own, others) = rest.split_at(feature.width());
            rest = others;
            ids.append_value(vector);
            names.append_value(&feature.name);
            match &feature.kind {
                FeatureKind::Number { .. } => {
                    numbers.append_option(own.first().copied());
                    categories.append_null();
                }
                FeatureKind::Category(texts) => {
                    numbers.append_null();
                    for (text, value) in texts.iter().zip(own) {
                        add_entry(categories.values(), text, *value)?;
                    }
                    categories.append(true);
                }
            }
        }
    }
    let columns: [(&str, ArrayRef, bool); 4] = [
        (id, Arc::new(ids.finish()), false),
        ("feature", Arc::new(names.finish()), false),
        ("numerical_value", Arc::new(numbers.finish()), true),
        ("categorical_value", Arc::new(categories.finish()), true),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn add_entry(entry: &mut StructBuilder, text: &str, value: f64) -> Result<()> {
    let missing = || Error::Internal("an entry has two fields".into());
    entry.field_builder::<StringBuilder>(0).ok_or_else(missing)?.append_value(text);
    entry.field_builder::<Float64Builder>(1).ok_or_else(missing)?.append_value(value);
    entry.append(true);
    Ok(())
}
