//! `ML.WEIGHTS`: what a model has learned, as rows made while they are read.
//!
//! A factorization has a row for each user and item: `processed_input`, `feature`,
//! `factor_weights`, `intercept`. Item-item weights have a row for each pair that has one: the
//! item, `neighbor`, `weight`. Popularity has a row for each item, and for each item of a segment
//! that it has a weight in: the item, `segment` (NULL overall), `weight`. A blend has a row for
//! each of its models and signals: `model_type`, `weight` (its share), `scale` (how far its own
//! scores spread) and the name of the `signal`. Entities have a row for each level of each column,
//! see [`entities::tables`], and outliers a row for each column, see [`features::tables`].

use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeListArray, Float32Array, StringArray, UInt32Array, new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::models::LoadedModel;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use udfs::model::hybrid::Signal;
use udfs::model::{
    AlsModel, HybridModel, ItemModel, Model, PopularityModel, Recommender, Similarity,
};

use crate::error::{Error, Result};
use crate::model::{entities, features};

/// The columns that say whether a row is a user's or an item's, and whose.
pub const OF_USERS: [&str; 2] = ["processed_input", "feature"];

/// Rows of a batch at most.
const BATCH_ROWS: usize = 4_096;

/// The weights of a model.
///
/// # Errors
/// When a model has none.
pub fn weights(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    if let Model::Outlier(outliers) = model.model.as_ref() {
        return features::tables::spreads(outliers);
    }
    if model.model.preparation().is_some() {
        return Err(Error::invalid_hint(
            format!("{model} is of type '{}', which has no weights", model.model.type_name()),
            "ML.CENTROIDS tells of kmeans, ML.PRINCIPAL_COMPONENTS of pca, ML.FEATURE_IMPORTANCE \
             of boosted trees",
        ));
    }
    if model.model.entities().is_some() {
        return entities::tables::weights(model);
    }
    let schema = schema(model);
    let rows: Arc<dyn PartitionStream> =
        Arc::new(Weights { model: model.clone(), schema: Arc::clone(&schema) });
    Ok(Arc::new(StreamingTable::try_new(schema, vec![rows])?))
}

fn schema(model: &LoadedModel) -> SchemaRef {
    let item = |of: &dyn Recommender| {
        Field::new(&model.manifest.item_col, of.item_ids().data_type().clone(), true)
    };
    let weight = Field::new("weight", DataType::Float32, false);
    Arc::new(Schema::new(match model.model.as_ref() {
        Model::Als(als) => {
            let size = i32::try_from(als.num_factors()).unwrap_or(i32::MAX);
            vec![
                Field::new("processed_input", DataType::Utf8, false),
                Field::new("feature", DataType::Utf8, true),
                Field::new("factor_weights", DataType::FixedSizeList(element(), size), false),
                Field::new("intercept", DataType::Float32, false),
            ]
        }
        Model::Item(found) => {
            let neighbor = Field::new("neighbor", found.item_ids().data_type().clone(), true);
            vec![item(found), neighbor, weight]
        }
        Model::Popularity(found) => {
            vec![item(found), Field::new("segment", DataType::Utf8, true), weight]
        }
        Model::Hybrid(_) => vec![
            Field::new("model_type", DataType::Utf8, false),
            weight,
            Field::new("scale", DataType::Float32, false),
            Field::new("signal", DataType::Utf8, true),
        ],
        Model::KMeans(_)
        | Model::Pca(_)
        | Model::IsolationForest(_)
        | Model::Outlier(_)
        | Model::Boosted(_)
        | Model::Entities(_) => vec![],
    }))
}

fn element() -> Arc<Field> {
    Arc::new(Field::new("weight", DataType::Float32, false))
}

#[derive(Debug)]
struct Weights {
    model: LoadedModel,
    schema: SchemaRef,
}

impl PartitionStream for Weights {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (model, schema) = (self.model.clone(), Arc::clone(&self.schema));
        let mut place = Place::default();
        let batches = std::iter::from_fn(move || {
            let made = match model.model.as_ref() {
                Model::Als(als) => factors(als, &model, &schema, &mut place),
                Model::Item(item) => neighbors(item, &schema, &mut place),
                Model::Popularity(popular) => {
                    ranking(popular, &model.manifest.segments, &schema, &mut place)
                }
                Model::Hybrid(blend) => members(blend, &schema, &mut place),
                Model::KMeans(_)
                | Model::Pca(_)
                | Model::IsolationForest(_)
                | Model::Outlier(_)
                | Model::Boosted(_)
                | Model::Entities(_) => Ok(None),
            };
            made.map_err(DataFusionError::from).transpose()
        });
        let rows = futures::stream::iter(batches);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

/// Where the next batch starts: part (side, item or segment), and the row in it.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    part: usize,
    row: usize,
}

/// The next factors: users, then items.
fn factors(
    als: &AlsModel,
    model: &LoadedModel,
    schema: &SchemaRef,
    place: &mut Place,
) -> Result<Option<RecordBatch>> {
    let manifest = &model.manifest;
    let sides = [
        (&manifest.user_col, als.user_ids(), als.user_factors(), als.user_bias()),
        (&manifest.item_col, als.item_ids(), als.item_factors(), als.item_bias()),
    ];
    while let Some((name, ids, factors, bias)) = sides.get(place.part) {
        let start = place.row;
        let rows = BATCH_ROWS.min(ids.len() - start);
        if rows == 0 {
            *place = Place { part: place.part + 1, row: 0 };
            continue;
        }
        place.row += rows;
        let width = als.num_factors();
        let values = Float32Array::from(factors[start * width..(start + rows) * width].to_vec());
        let DataType::FixedSizeList(_, size) = schema.field(2).data_type() else {
            return Err(Error::Internal("factors are lists".into()));
        };
        let lists = FixedSizeListArray::try_new(element(), *size, Arc::new(values), None)?;
        let intercept = match bias.is_empty() {
            true => vec![0.0; rows],
            false => bias[start..start + rows].to_vec(),
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(name, rows))),
            arrow::compute::cast(&ids.values().slice(start, rows), &DataType::Utf8)?,
            Arc::new(lists),
            Arc::new(Float32Array::from(intercept)),
        ];
        return Ok(Some(RecordBatch::try_new(Arc::clone(schema), columns)?));
    }
    Ok(None)
}

/// The next pairs of items, by item and neighbour; weights of 0 are none.
fn neighbors(
    model: &ItemModel,
    schema: &SchemaRef,
    place: &mut Place,
) -> Result<Option<RecordBatch>> {
    let count = model.item_ids().len();
    let (mut items, mut others, mut weights) = (vec![], vec![], vec![]);
    let mut push = |item: usize, other: u32, weight: f32| {
        items.push(u32::try_from(item).unwrap_or(u32::MAX));
        others.push(other);
        weights.push(weight);
        weights.len()
    };
    // A whole row at a time, so that a batch may pass the limit by a row.
    let mut rows = 0;
    while place.part < count && rows < BATCH_ROWS {
        match model.similarity() {
            Similarity::Sparse(cells) => {
                let (codes, values) = cells.row(place.part);
                for (&code, &weight) in codes.iter().zip(values) {
                    rows = push(place.part, code, weight);
                }
            }
            Similarity::Dense(values) => {
                let values = &values[place.part * count..(place.part + 1) * count];
                for (code, &weight) in (0..).zip(values).filter(|(_, weight)| **weight != 0.0) {
                    rows = push(place.part, code, weight);
                }
            }
        }
        place.part += 1;
    }
    if rows == 0 {
        return Ok(None);
    }
    let ids = model.item_ids().values();
    let columns: Vec<ArrayRef> = vec![
        take(&ids, &UInt32Array::from(items), None)?,
        take(&ids, &UInt32Array::from(others), None)?,
        Arc::new(Float32Array::from(weights)),
    ];
    Ok(Some(RecordBatch::try_new(Arc::clone(schema), columns)?))
}

/// The models of a blend.
fn members(
    model: &HybridModel,
    schema: &SchemaRef,
    place: &mut Place,
) -> Result<Option<RecordBatch>> {
    if place.part > 0 {
        return Ok(None);
    }
    place.part = 1;
    let names = model.members().map(|member| member.base.type_name());
    let shares = model.members().map(|member| member.weight.share);
    let scales = model.members().map(|member| member.weight.scale);
    let signals = model.members().map(|member| member.base.signal().map(Signal::name));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(names)),
        Arc::new(Float32Array::from_iter_values(shares)),
        Arc::new(Float32Array::from_iter_values(scales)),
        Arc::new(signals.collect::<StringArray>()),
    ];
    Ok(Some(RecordBatch::try_new(Arc::clone(schema), columns)?))
}

/// The next weights of items: overall, then segment after segment.
fn ranking(
    model: &PopularityModel,
    names: &[String],
    schema: &SchemaRef,
    place: &mut Place,
) -> Result<Option<RecordBatch>> {
    let segments = model.segments().map_or(&[][..], |segments| &segments.weights);
    while place.part <= segments.len() {
        let segment = place.part.checked_sub(1);
        let weights = segment.map_or(model.weights(), |segment| &segments[segment]);
        let rows = place.row..weights.len().min(place.row + BATCH_ROWS);
        if rows.is_empty() {
            *place = Place { part: place.part + 1, row: 0 };
            continue;
        }
        place.row = rows.end;
        let counts = |row: &usize| segment.is_none() || weights[*row] != 0.0;
        let kept: Vec<usize> = rows.filter(counts).collect();
        if kept.is_empty() {
            continue;
        }
        let codes = kept.iter().map(|row| u32::try_from(*row).unwrap_or(u32::MAX));
        let codes = UInt32Array::from_iter_values(codes);
        let name: ArrayRef = match segment.and_then(|segment| names.get(segment)) {
            Some(name) => Arc::new(StringArray::from(vec![name.as_str(); kept.len()])),
            None => new_null_array(&DataType::Utf8, kept.len()),
        };
        let columns: Vec<ArrayRef> = vec![
            take(&model.item_ids().values(), &codes, None)?,
            name,
            Arc::new(Float32Array::from_iter_values(kept.iter().map(|row| weights[*row]))),
        ];
        return Ok(Some(RecordBatch::try_new(Arc::clone(schema), columns)?));
    }
    Ok(None)
}
