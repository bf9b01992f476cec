//! `ML.EVALUATE` of a model of entities against a truth that a query gives: the ids of records, and
//! of each the entity that it is known to be of.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use catalog::models::LoadedModel;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{DiskManager, SendableRecordBatchStream};
use futures::StreamExt;
use udfs::model::entity_resolution::column::NONE;
use udfs::model::entity_resolution::gather::keys;
use udfs::model::entity_resolution::measure::{MEASURES, against_truth};
use udfs::model::entity_resolution::pairs::WORK_BYTES;

use crate::error::{Error, Result};
use crate::model::entities::pairs;
use crate::model::entities::tables::{GROUPED_BYTES, entities};
use crate::model::features;
use crate::model::fit::CancelOnDrop;
use crate::model::options::model_error;

/// Names of the column of truth.
const TRUTHS: [&str; 3] = ["truth", "entity", "entity_id"];

/// Where the columns of a truth are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TruthColumns {
    id: usize,
    source: Option<usize>,
    truth: usize,
}

impl TruthColumns {
    /// The id under the name that it has in the crosswalk or in the model, and so the table; the
    /// truth under one of its names.
    ///
    /// # Errors
    /// When one is missing, or a record has no table to be told by.
    pub fn find(model: &LoadedModel, schema: &SchemaRef) -> Result<Self> {
        let settings = &entities("ml_evaluate", model)?.parts().settings;
        let find = |what: &str, wanted: &[&str]| {
            let position = |name: &&str| schema.index_of(name).ok();
            wanted.iter().find_map(position).ok_or_else(|| {
                let mut wanted = wanted.to_vec();
                wanted.dedup();
                let names: Vec<&str> =
                    schema.fields().iter().map(|of| of.name().as_str()).collect();
                Error::invalid_hint(
                    format!("the query has no column {}, {what}", wanted.join(" or ")),
                    format!(
                        "write (SELECT {}, … AS truth FROM …); its columns: {}",
                        match &settings.source_col {
                            Some(_) => "record_id, source",
                            None => "record_id",
                        },
                        names.join(", ")
                    ),
                )
            })
        };
        let source = settings
            .source_col
            .as_ref()
            .map(|name| find("the table that a record is of", &["source", name.as_str()]));
        Ok(Self {
            id: find("the record's id", &["record_id", settings.id_col.as_str()])?,
            source: source.transpose()?,
            truth: find("the entity that a record is known to be of", &TRUTHS)?,
        })
    }
}

/// What the model is worth against the rows of a query. Records that the model does not have count
/// for nothing, as do those whose truth is NULL.
///
/// # Errors
/// Columns that are missing, ids that are NULL or have two truths, no record that the model has,
/// too little memory for records or disk for pairs.
pub async fn on_rows(
    model: &LoadedModel,
    threshold: Option<f64>,
    mut rows: SendableRecordBatchStream,
    memory: &MemoryReservation,
    disk: &Arc<DiskManager>,
) -> Result<RecordBatch> {
    let columns = TruthColumns::find(model, &rows.schema())?;
    let found = entities("ml_evaluate", model)?;
    // A key and a code of each record while the truth is read, then groups.
    let records_bytes = found.len().saturating_mul(GROUPED_BYTES);
    memory.try_grow(records_bytes.saturating_add(WORK_BYTES))?;
    let keys = found.keys().map_err(model_error)?;
    let mut truth = Truth {
        positions: keys.into_iter().zip(0..).collect(),
        of: vec![NONE; found.len()],
        codes: HashMap::new(),
    };
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        memory.try_grow(batch.get_array_memory_size())?;
        truth.add(&batch, columns)?;
    }
    if truth.of.iter().all(|&of| of == NONE) {
        return Err(Error::Model {
            what: format!("of no record of {model} the query tells the entity"),
            hint: Some("record_id is the id that the record has in resolve_entities".into()),
        });
    }
    let metrics = &model.manifest.metrics;
    let stored = MEASURES.map(|name| {
        metrics.iter().find(|metric| metric.name == name).map_or(f64::NAN, |metric| metric.value)
    });
    let cancel = CancelOnDrop::default();
    let pairs = pairs::read(model, &pairs::spill(memory, disk, &cancel.0)).await?;
    let held = Arc::clone(&model.model);
    let measure = move || match held.entities() {
        Some(found) => against_truth(found, &pairs, &truth.of, threshold, &stored),
        None => Ok(vec![]),
    };
    let values = crate::model::learn(measure).await?.map_err(model_error)?;
    features::evaluate::batch(model, values.into_iter())
}

/// The entity of each record of a model, as far as it is known.
struct Truth {
    positions: HashMap<u64, u32>,
    of: Vec<u32>,
    codes: HashMap<String, u32>,
}

impl Truth {
    fn add(&mut self, batch: &RecordBatch, columns: TruthColumns) -> Result<()> {
        let id = batch.column(columns.id);
        let source = columns.source.map(|at| batch.column(at));
        for column in [Some(id), source].into_iter().flatten() {
            if column.null_count() > 0 {
                return Err(Error::Model {
                    what: "a record of the truth has the id NULL, or the table".into(),
                    hint: Some("add WHERE … IS NOT NULL to the query".into()),
                });
            }
        }
        let keys = keys(id, source).map_err(model_error)?;
        let texts: ArrayRef = cast(batch.column(columns.truth), &DataType::Utf8)?;
        for (key, text) in keys.into_iter().zip(texts.as_string::<i32>()) {
            let (Some(&at), Some(text)) = (self.positions.get(&key), text) else { continue };
            let next = self.codes.len() as u32;
            let code = match self.codes.get(text) {
                Some(code) => *code,
                None => *self.codes.entry(text.to_owned()).or_insert(next),
            };
            let known = &mut self.of[at as usize];
            if *known != NONE && *known != code {
                return Err(Error::Model {
                    what: format!("the truth has a record of two entities, one of them '{text}'"),
                    hint: Some("a record is of one: give a row for each record".into()),
                });
            }
            *known = code;
        }
        Ok(())
    }
}
