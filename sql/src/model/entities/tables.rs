//! What a model of entities has found, as tables: `ML.PREDICT` the scored pairs,
//! `resolve_entities` the crosswalk, `ML.WEIGHTS` the levels, `ML.BLOCKING_RULES` the rules,
//! `ML.ENTITY_HISTORY` what became of entities and `ML.UNLINKABLE_RECORDS` who says too little.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Float64Builder, Int64Array, ListBuilder, StringArray, StringBuilder,
    StructBuilder, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::models::LoadedModel;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::{StreamExt, TryStreamExt};
use udfs::model::entity_resolution::compare::{level_of, levels};
use udfs::model::entity_resolution::model::{EVENTS, EntityModel, EntityParts, uuid};
use udfs::model::entity_resolution::pairs::{PairRows, WORK_BYTES};
use udfs::model::entity_resolution::score::{Edge, probability};

use crate::error::{Error, Result};
use crate::model::entities::pairs::{read, spill};
use crate::model::fit::CancelOnDrop;
use crate::model::options::model_error;

/// What a record takes while records are grouped anew: its part in groups, its key and its entity.
pub(super) const GROUPED_BYTES: usize = 96;

fn table(batch: RecordBatch) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
}

/// The model's entities.
///
/// # Errors
/// When it is of another type.
pub fn entities<'a>(function: &str, model: &'a LoadedModel) -> Result<&'a EntityModel> {
    model.model.entities().ok_or_else(|| {
        Error::invalid_hint(
            format!(
                "{function} asks a model of type 'entity_resolution', and {model} is of type '{}'",
                model.model.type_name()
            ),
            "SHOW MODELS tells the type of each",
        )
    })
}

/// `ML.PREDICT` of a model of entities: its pairs, as they come from the warehouse.
///
/// # Errors
/// When the model is of another type.
pub fn pairs(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    let schema = pair_schema(entities("ml_predict", model)?);
    let rows: Arc<dyn PartitionStream> =
        Arc::new(PairStream { model: model.clone(), schema: Arc::clone(&schema) });
    Ok(Arc::new(StreamingTable::try_new(schema, vec![rows])?))
}

fn pair_schema(model: &EntityModel) -> SchemaRef {
    let parts = model.parts();
    let mut fields = Vec::new();
    for side in ["left", "right"] {
        fields.push(Field::new(format!("{side}_id"), parts.ids.data_type().clone(), false));
        if let Some(sources) = &parts.sources {
            let of = sources.data_type().clone();
            fields.push(Field::new(format!("{side}_source"), of, false));
        }
    }
    fields.push(Field::new("match_probability", DataType::Float64, false));
    fields.push(Field::new("match_weight", DataType::Float64, false));
    let item = Field::new("item", DataType::Struct(weight_fields()), true);
    fields.push(Field::new("weights", DataType::List(Arc::new(item)), false));
    Arc::new(Schema::new(fields))
}

fn weight_fields() -> Fields {
    Fields::from(vec![
        Field::new("column", DataType::Utf8, true),
        Field::new("level", DataType::Utf8, true),
        Field::new("weight", DataType::Float64, true),
    ])
}

#[derive(Debug)]
struct PairStream {
    model: LoadedModel,
    schema: SchemaRef,
}

impl PartitionStream for PairStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (model, schema) = (self.model.clone(), Arc::clone(&self.schema));
        let batches = async move {
            let pieces = model.pairs().await.map_err(Error::from)?;
            let batch = move |rows: PairRows| {
                let found = entities("ml_predict", &model)?;
                pair_batch(found.parts(), &rows, &schema)
            };
            let batches = pieces.map(move |rows| rows.map_err(Error::from).and_then(&batch));
            Ok::<_, DataFusionError>(batches.map_err(DataFusionError::from))
        };
        let rows = futures::stream::once(batches).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

fn pair_batch(parts: &EntityParts, rows: &PairRows, schema: &SchemaRef) -> Result<RecordBatch> {
    let edges = &rows.edges;
    let left = UInt32Array::from_iter_values(edges.iter().map(|edge| edge.left));
    let right = UInt32Array::from_iter_values(edges.iter().map(|edge| edge.right));
    let mut columns: Vec<ArrayRef> = Vec::new();
    for codes in [left, right] {
        columns.push(take(&parts.ids, &codes, None)?);
        if let Some(sources) = &parts.sources {
            columns.push(take(sources, &codes, None)?);
        }
    }
    let weights = || edges.iter().map(|edge| f64::from(edge.weight));
    columns.push(Arc::new(Float64Array::from_iter_values(weights().map(probability))));
    columns.push(Arc::new(Float64Array::from_iter_values(weights())));
    let mut lists = ListBuilder::new(StructBuilder::from_fields(weight_fields(), 0));
    let width = parts.linkage.comparisons.len() + 1;
    for (edge, own) in edges.iter().zip(rows.parts.chunks_exact(width)) {
        waterfall(&mut lists, parts, edge, own)?;
    }
    columns.push(Arc::new(lists.finish()));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// The parts of a pair's weight: what holds before anything is compared, a column each, and what
/// is taken off for relatives.
fn waterfall(
    lists: &mut ListBuilder<StructBuilder>,
    parts: &EntityParts,
    edge: &Edge,
    own: &[f32],
) -> Result<()> {
    let comparisons = &parts.linkage.comparisons;
    let told: f64 = own.iter().map(|&part| f64::from(part)).sum();
    let prior = f64::from(edge.weight) - told;
    add(lists.values(), Some("prior"), None, prior)?;
    for (column, (comparison, &weight)) in comparisons.iter().zip(own).enumerate() {
        let names = levels(comparison.kind);
        let level = level_of(edge.levels, column).checked_sub(1);
        let level = level.and_then(|level| names.get(level));
        let level = level.map(|(name, _)| *name);
        add(lists.values(), Some(&comparison.column), level, f64::from(weight))?;
    }
    if parts.linkage.eta > 0.0 {
        add(lists.values(), Some("relatives"), None, own.last().copied().unwrap_or(0.0).into())?;
    }
    lists.append(true);
    Ok(())
}

fn add(
    entry: &mut StructBuilder,
    column: Option<&str>,
    level: Option<&str>,
    weight: f64,
) -> Result<()> {
    let missing = || Error::Internal("an entry has three fields".into());
    entry.field_builder::<StringBuilder>(0).ok_or_else(missing)?.append_option(column);
    entry.field_builder::<StringBuilder>(1).ok_or_else(missing)?.append_option(level);
    entry.field_builder::<Float64Builder>(2).ok_or_else(missing)?.append_value(weight);
    entry.append(true);
    Ok(())
}

/// `resolve_entities`: the entity of each record, from a probability.
///
/// # Errors
/// When the model is of another type.
pub fn crosswalk(model: &LoadedModel, threshold: Option<f64>) -> Result<Arc<dyn TableProvider>> {
    let parts = entities("resolve_entities", model)?.parts();
    let schema = crosswalk_schema(parts);
    match threshold.filter(|threshold| *threshold != parts.settings.threshold) {
        None => table(crosswalk_batch(parts, &parts.entities, &schema)?),
        Some(threshold) => {
            let rows: Arc<dyn PartitionStream> = Arc::new(CrosswalkStream {
                model: model.clone(),
                threshold,
                schema: Arc::clone(&schema),
            });
            Ok(Arc::new(StreamingTable::try_new(schema, vec![rows])?))
        }
    }
}

fn crosswalk_schema(parts: &EntityParts) -> SchemaRef {
    let mut fields = vec![Field::new("record_id", parts.ids.data_type().clone(), false)];
    if let Some(sources) = &parts.sources {
        fields.push(Field::new("source", sources.data_type().clone(), false));
    }
    fields.push(Field::new("entity_id", DataType::Utf8, false));
    Arc::new(Schema::new(fields))
}

fn crosswalk_batch(parts: &EntityParts, of: &[u128], schema: &SchemaRef) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = vec![Arc::clone(&parts.ids)];
    columns.extend(parts.sources.clone());
    columns.push(Arc::new(StringArray::from_iter_values(of.iter().copied().map(uuid))));
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// The crosswalk from another threshold than the model's own: its records are grouped anew.
#[derive(Debug)]
struct CrosswalkStream {
    model: LoadedModel,
    threshold: f64,
    schema: SchemaRef,
}

impl PartitionStream for CrosswalkStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (model, threshold) = (self.model.clone(), self.threshold);
        let schema = Arc::clone(&self.schema);
        let rows = async move {
            let of = grouped(&model, threshold, &context).await?;
            let found = entities("resolve_entities", &model)?;
            Ok::<_, DataFusionError>(crosswalk_batch(found.parts(), &of, &schema)?)
        };
        let rows = futures::stream::once(rows);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))
    }
}

/// The entity of each record from a threshold.
async fn grouped(model: &LoadedModel, threshold: f64, context: &TaskContext) -> Result<Vec<u128>> {
    let records = entities("resolve_entities", model)?.len();
    let memory = MemoryConsumer::new("resolve_entities").register(context.memory_pool());
    memory.try_grow(records.saturating_mul(GROUPED_BYTES).saturating_add(WORK_BYTES))?;
    let cancel = CancelOnDrop::default();
    let spill = spill(&memory, &context.runtime_env().disk_manager, &cancel.0);
    let pairs = read(model, &spill).await?;
    let held = Arc::clone(&model.model);
    let group = move || match held.entities() {
        Some(found) => found.entities_at(&pairs, threshold),
        None => Ok(vec![]),
    };
    crate::model::learn(group).await?.map_err(model_error)
}

/// `ML.UNLINKABLE_RECORDS`: the records that say too little to match even their own copies.
///
/// # Errors
/// When the model is of another type.
pub fn unlinkable(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    let parts = entities("ml_unlinkable_records", model)?.parts();
    let records = UInt32Array::from(parts.unlinkable.clone());
    let mut columns: Vec<ArrayRef> = vec![take(&parts.ids, &records, None)?];
    if let Some(sources) = &parts.sources {
        columns.push(take(sources, &records, None)?);
    }
    let of = parts.unlinkable.iter().filter_map(|&record| parts.entities.get(record as usize));
    columns.push(Arc::new(StringArray::from_iter_values(of.copied().map(uuid))));
    table(RecordBatch::try_new(crosswalk_schema(parts), columns)?)
}

/// `ML.WEIGHTS` of a model of entities: a row for each level of each column.
///
/// # Errors
/// When the model is of another type.
pub fn weights(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    let linkage = &entities("ml_weights", model)?.parts().linkage;
    let (mut names, mut kinds, mut of) = (vec![], vec![], vec![]);
    let (mut m, mut u, mut h) = (vec![], vec![], vec![]);
    for comparison in &linkage.comparisons {
        for (level, (name, _)) in levels(comparison.kind).iter().enumerate().rev() {
            names.push(comparison.column.as_str());
            kinds.push(comparison.kind.name());
            of.push(*name);
            m.push(comparison.m[level]);
            u.push(comparison.u[level]);
            h.push((linkage.eta > 0.0).then(|| comparison.h[level]));
        }
    }
    let weight = m.iter().zip(&u).map(|(m, u): (&f64, &f64)| (m / u).log2());
    let weight: Float64Array =
        weight.map(|weight| Some(weight).filter(|w| w.is_finite())).collect();
    let text = |values: Vec<&str>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let columns: [(&str, ArrayRef, bool); 7] = [
        ("column", text(names), false),
        ("comparison", text(kinds), false),
        ("level", text(of), false),
        ("m_probability", Arc::new(Float64Array::from(m)), false),
        ("u_probability", Arc::new(Float64Array::from(u)), false),
        ("relatives_probability", Arc::new(Float64Array::from(h)), true),
        ("match_weight", Arc::new(weight), true),
    ];
    table(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// `ML.BLOCKING_RULES`.
///
/// # Errors
/// When the model is of another type, or found no rule.
pub fn blocking_rules(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    let linkage = &entities("ml_blocking_rules", model)?.parts().linkage;
    let rules = &linkage.rules;
    if rules.is_empty() {
        let most = linkage.block_max;
        return Err(Error::invalid_hint(
            format!(
                "{model} has no blocking rule, so no records were compared: in every column most \
                 records have no value, one of their own, or one that more than {most} share, or \
                 too many pairs share one"
            ),
            "select columns that tell more records apart, raise max_pairs or max_block_size, or \
             name rules by blocking_rules",
        ));
    }
    let count = |of: fn(&udfs::model::entity_resolution::blocking::Cost) -> u64| -> ArrayRef {
        let counts = rules.iter().map(|used| i64::try_from(of(&used.cost)).unwrap_or(i64::MAX));
        Arc::new(Int64Array::from_iter_values(counts))
    };
    let texts = rules.iter().map(|used| used.text.as_str());
    let recalls = rules.iter().map(|used| used.recall);
    let expected: Float64Array = rules.iter().map(|used| used.expected).collect();
    let columns: [(&str, ArrayRef, bool); 6] = [
        ("rule", Arc::new(StringArray::from_iter_values(texts)), false),
        ("pairs", count(|cost| cost.pairs), false),
        ("match_share", Arc::new(Float64Array::from_iter_values(recalls)), false),
        ("expected_recall", Arc::new(expected), true),
        ("skipped_blocks", count(|cost| cost.skipped_blocks), false),
        ("skipped_records", count(|cost| cost.skipped_records), false),
    ];
    table(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// `ML.ENTITY_HISTORY`: what became of entities, version after version.
///
/// # Errors
/// When the model is of another type.
pub fn history(model: &LoadedModel) -> Result<Arc<dyn TableProvider>> {
    let events = &entities("ml_entity_history", model)?.parts().history;
    let name = |at: usize| {
        let known = EVENTS.iter().find(|(what, _)| *what == events[at].what);
        known.map_or("", |(_, name)| *name)
    };
    let names = (0..events.len()).map(name);
    let numbers = |of: fn(&udfs::model::entity_resolution::model::Event) -> u32| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(events.iter().map(|event| i64::from(of(event)))))
    };
    let ids = events.iter().map(|event| uuid(event.entity));
    let others: StringArray = events.iter().map(|event| event.other.map(uuid)).collect();
    let columns: [(&str, ArrayRef, bool); 5] = [
        ("version", numbers(|event| event.version), false),
        ("event", Arc::new(StringArray::from_iter_values(names)), false),
        ("entity_id", Arc::new(StringArray::from_iter_values(ids)), false),
        ("other_entity_id", Arc::new(others), true),
        ("records", numbers(|event| event.records), false),
    ];
    table(RecordBatch::try_from_iter_with_nullable(columns)?)
}
