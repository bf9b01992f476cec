//! The scored pairs of a model of entities: a file beside the model's, written and read some
//! thousand pairs at a time, as there may be many more than fit in memory.
//!
//! A row is a pair: `left` and `right` are rows of the file `records`, left the smaller; `weight`
//! is the match weight in bits, `parts` what each column adds to it and what relatives take off,
//! `levels` those of the columns, four bits each. Rows are by left and right. A model without pairs
//! has no such file.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::datatypes::{Float32Type, UInt32Type, UInt64Type};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::ObjectStoreExt;
use object_store::buffered::BufReader;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use udfs::model::entity_resolution::pairs::{PairRows, Pairs};
use udfs::model::entity_resolution::score::Edge;

use super::claim::Claim;
use super::manifest::LoadedModel;
use super::model_files::{BATCH_ROWS, Column, Columns};
use super::model_writing::Writing;
use crate::error::{Error, Result, root_cause};

/// The file's name in the manifest.
const PAIRS: &str = "pairs";

/// Pages of pairs that are written together.
const PAGES: usize = 8;

impl Claim {
    /// Writes the scored pairs of the model that is going to be published.
    ///
    /// # Errors
    /// When they cannot be read from where they are, or the store cannot be written.
    pub async fn write_pairs(&mut self, pairs: &Pairs) -> Result<()> {
        let mut writing: Option<Writing> = None;
        for first in (0..pairs.pages()).step_by(PAGES) {
            let mut rows = PairRows::default();
            for page in first..pairs.pages().min(first + PAGES) {
                let read = pairs.page(page);
                let PairRows { edges, parts } =
                    read.map_err(|error| Error::invalid(error.to_string()))?;
                rows.edges.extend(edges);
                rows.parts.extend(parts);
            }
            let left: Vec<u32> = rows.edges.iter().map(|edge| edge.left).collect();
            let right: Vec<u32> = rows.edges.iter().map(|edge| edge.right).collect();
            let weight: Vec<f32> = rows.edges.iter().map(|edge| edge.weight).collect();
            let levels = UInt64Array::from_iter_values(rows.edges.iter().map(|edge| edge.levels));
            let columns: Columns<'_> = vec![
                ("left", Column::Codes(&left)),
                ("right", Column::Codes(&right)),
                ("weight", Column::Numbers(&weight)),
                ("parts", Column::Vectors(&rows.parts, pairs.parts())),
                ("levels", Column::Ids(Arc::new(levels))),
            ];
            if writing.is_none() {
                writing = Some(Writing::begin(&self.folder, self.file(PAIRS), &columns)?);
            }
            if let Some(writing) = &mut writing {
                writing.add(&columns).await?;
            }
        }
        if let Some(writing) = writing {
            let file = writing.end().await?;
            self.files.insert(PAIRS.to_owned(), file);
        }
        Ok(())
    }
}

impl LoadedModel {
    /// The scored pairs of a model of entities in order, some thousand at a time; none of a model
    /// of another type.
    ///
    /// # Errors
    /// When the store cannot be read; `Corrupt` when the file is of another size, or holds what are
    /// no pairs of the model's records.
    pub async fn pairs(&self) -> Result<BoxStream<'static, Result<PairRows>>> {
        let (Some(model), Some(file)) = (self.model.entities(), self.manifest.files.get(PAIRS))
        else {
            return Ok(futures::stream::empty().boxed());
        };
        let (records, parts) = (model.len(), model.parts().linkage.comparisons.len() + 1);
        let place = self.folder.child(&file.name);
        let url = place.url.to_string();
        let found = place.store.head(&place.path).await;
        let found = found.map_err(|error| Error::store(&url, &error))?;
        if found.size != file.bytes {
            let reason = format!("it has {} bytes, not {}", found.size, file.bytes);
            return Err(Error::Corrupt { what: url, reason });
        }
        let reader = BufReader::new(Arc::clone(&place.store), &found);
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await;
        let builder = builder.map_err(|error| unread(&url, &error))?;
        let rows = builder.metadata().file_metadata().num_rows();
        if u64::try_from(rows).ok() != Some(file.rows) {
            let reason = format!("it has {rows} rows, not {}", file.rows);
            return Err(Error::Corrupt { what: url, reason });
        }
        let batches = builder.with_batch_size(BATCH_ROWS).build();
        let batches = batches.map_err(|error| unread(&url, &error))?;
        let rows = batches.map(move |batch| {
            let batch = batch.map_err(|error| unread(&url, &error))?;
            rows_of(&batch, records, parts).ok_or_else(|| Error::Corrupt {
                what: url.clone(),
                reason: "it holds what are no pairs of the model's records".into(),
            })
        });
        Ok(rows.boxed())
    }
}

fn unread(url: &str, error: &dyn std::error::Error) -> Error {
    Error::Store { url: url.to_owned(), reason: root_cause(error), denied: false }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a ArrayRef> {
    batch.column_by_name(name).filter(|column| column.null_count() == 0)
}

/// The pairs of a batch, if they are pairs of so many records with so many parts.
fn rows_of(batch: &RecordBatch, records: usize, parts: usize) -> Option<PairRows> {
    let left: &[u32] = column(batch, "left")?.as_primitive_opt::<UInt32Type>()?.values();
    let right: &[u32] = column(batch, "right")?.as_primitive_opt::<UInt32Type>()?.values();
    let weight: &[f32] = column(batch, "weight")?.as_primitive_opt::<Float32Type>()?.values();
    let levels: &[u64] = column(batch, "levels")?.as_primitive_opt::<UInt64Type>()?.values();
    let lists = column(batch, "parts")?.as_fixed_size_list_opt()?;
    if usize::try_from(lists.value_length()).ok() != Some(parts) {
        return None;
    }
    // A slice of the list array has a slice of its values.
    let start = usize::try_from(lists.value_offset(0)).ok()?;
    let values = lists.values().slice(start, lists.len() * parts);
    let parts = values.as_primitive_opt::<Float32Type>()?.values().to_vec();
    let columns = left.iter().zip(right).zip(weight.iter().zip(levels));
    let edges =
        columns.map(|((&left, &right), (&weight, &levels))| Edge { left, right, weight, levels });
    let rows = PairRows { edges: edges.collect(), parts };
    let is_pair = |edge: &Edge| {
        edge.left < edge.right && (edge.right as usize) < records && edge.weight.is_finite()
    };
    let are_pairs = rows.edges.iter().all(is_pair) && rows.parts.iter().all(|x| x.is_finite());
    are_pairs.then_some(rows)
}
