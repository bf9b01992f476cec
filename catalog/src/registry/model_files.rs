//! A model version's files: Parquet that any tool can read.
//!
//! A file is a table of named columns: ids of the training query's own type, vectors (lists of
//! 32-bit floats of one length), numbers, and codes; row n of a file with ids is code n. Sparse
//! matrices are files of cells, `row`, `column` and weight, by row and column. What is read is
//! checked against the manifest, so that a file that was cut or swapped is an error and never a
//! wrong recommendation.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float32Type, UInt32Type};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store::Place;

/// Rows of a batch at most.
pub(super) const BATCH_ROWS: usize = 8_192;

/// A vector's values.
pub(super) const ELEMENT: &str = "element";

/// What the manifest says of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// The file's name in the version's folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
}

/// A column to be written; the columns of a file have as many rows.
pub enum Column<'a> {
    /// Ids of any type, or other values that are kept as they are.
    Ids(ArrayRef),
    /// Vectors of this length, one after the other.
    Vectors(&'a [f32], usize),
    /// Vectors of one length, each on its own.
    Lists(Vec<&'a [f32]>),
    /// A number a row.
    Numbers(&'a [f32]),
    /// A code a row.
    Codes(&'a [u32]),
    /// The row of each cell of a sparse matrix, by the offsets of its rows.
    Rows(&'a [usize]),
}

/// The columns of a file by name.
pub type Columns<'a> = Vec<(&'static str, Column<'a>)>;

/// What a column to be read holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ids, or other values that were kept as they are.
    Ids,
    /// Vectors of this length.
    Vectors(usize),
    /// Finite numbers.
    Numbers,
    /// Codes.
    Codes,
    /// Rows of cells, ascending; there are this many rows.
    Rows(usize),
}

/// A column that was read.
enum Content {
    Ids(Vec<ArrayRef>),
    Numbers(Vec<f32>),
    Codes(Vec<u32>),
    Offsets(Vec<usize>),
}

/// A file that was read; each column is taken out once.
pub struct Table(BTreeMap<&'static str, Content>);

impl Table {
    /// Takes ids.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn ids(&mut self, name: &str) -> Result<ArrayRef> {
        let Some(Content::Ids(parts)) = self.0.remove(name) else { return Err(absent(name)) };
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        arrow::compute::concat(&parts).map_err(|error| Error::invalid(error.to_string()))
    }

    /// Takes numbers, or vectors one after the other.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn numbers(&mut self, name: &str) -> Result<Vec<f32>> {
        match self.0.remove(name) {
            Some(Content::Numbers(numbers)) => Ok(numbers),
            _ => Err(absent(name)),
        }
    }

    /// Takes codes.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn codes(&mut self, name: &str) -> Result<Vec<u32>> {
        match self.0.remove(name) {
            Some(Content::Codes(codes)) => Ok(codes),
            _ => Err(absent(name)),
        }
    }

    /// Takes the offsets of a sparse matrix's rows.
    ///
    /// # Errors
    /// When there is no such column.
    pub fn offsets(&mut self, name: &str) -> Result<Vec<usize>> {
        match self.0.remove(name) {
            Some(Content::Offsets(offsets)) => Ok(offsets),
            _ => Err(absent(name)),
        }
    }
}

fn absent(name: &str) -> Error {
    Error::invalid(format!("column {name} was not read"))
}

impl Column<'_> {
    /// Rows.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len(),
            Self::Vectors(values, width) => values.len().checked_div(*width).unwrap_or(0),
            Self::Lists(lists) => lists.len(),
            Self::Numbers(numbers) => numbers.len(),
            Self::Codes(codes) => codes.len(),
            Self::Rows(offsets) => offsets.last().copied().unwrap_or(0),
        }
    }

    /// Whether its vectors are of one length, and no id is NULL.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Ids(ids) => ids.logical_null_count() == 0,
            Self::Vectors(values, width) => values.len() == self.len() * width && *width > 0,
            Self::Lists(lists) => {
                let width = width(lists);
                lists.iter().all(|list| list.len() == width && width > 0)
            }
            Self::Numbers(_) | Self::Codes(_) | Self::Rows(_) => true,
        }
    }

    /// Bytes of a row, about.
    pub(super) fn row_bytes(&self) -> usize {
        match self {
            Self::Vectors(_, width) => width * size_of::<f32>(),
            Self::Lists(lists) => width(lists) * size_of::<f32>(),
            _ => 16,
        }
    }

    /// The type that it is written as.
    pub(super) fn data_type(&self) -> DataType {
        match self {
            Self::Ids(ids) => ids.data_type().clone(),
            Self::Vectors(_, width) => DataType::FixedSizeList(element(), list_size(*width)),
            Self::Lists(lists) => DataType::FixedSizeList(element(), list_size(width(lists))),
            Self::Numbers(_) => DataType::Float32,
            Self::Codes(_) | Self::Rows(_) => DataType::UInt32,
        }
    }
}

/// The length of each of some vectors.
pub(super) fn width(lists: &[&[f32]]) -> usize {
    lists.first().map_or(0, |list| list.len())
}

fn element() -> Arc<Field> {
    Arc::new(Field::new(ELEMENT, DataType::Float32, false))
}

fn list_size(width: usize) -> i32 {
    i32::try_from(width).unwrap_or(i32::MAX)
}

/// Reads the named columns of a file.
///
/// # Errors
/// `Corrupt` when the file is missing, cut, of other sizes or types, or holds a number that is not
/// finite.
pub async fn read(
    place: &Place,
    file: &StoredFile,
    wanted: &[(&'static str, Kind)],
) -> Result<Table> {
    let (url, content) = content(place, file).await?;
    let rows = usize::try_from(file.rows).unwrap_or(usize::MAX);
    let wanted = wanted.to_vec();
    decode(url, content, move |batches| {
        let mut read: Vec<Content> = wanted.iter().map(|(_, kind)| start(*kind, rows)).collect();
        let mut before = 0;
        for batch in batches {
            let batch = batch?;
            for ((name, kind), content) in wanted.iter().zip(&mut read) {
                let column = batch.column_by_name(name);
                let column = column.ok_or_else(|| format!("it has no column {name}"))?;
                add(content, *kind, name, column, before)?;
            }
            before += batch.num_rows();
        }
        if before != rows {
            return Err(format!("it has {before} rows, not {rows}").into());
        }
        for ((_, kind), content) in wanted.iter().zip(&mut read) {
            if let (Kind::Rows(count), Content::Offsets(offsets)) = (kind, content) {
                offsets.resize(count + 1, rows);
            }
        }
        Ok(Table(wanted.iter().map(|(name, _)| *name).zip(read).collect()))
    })
    .await
}

fn start(kind: Kind, rows: usize) -> Content {
    match kind {
        Kind::Ids => Content::Ids(vec![]),
        Kind::Vectors(width) => {
            Content::Numbers(Vec::with_capacity(capacity(rows.saturating_mul(width))))
        }
        Kind::Numbers => Content::Numbers(Vec::with_capacity(capacity(rows))),
        Kind::Codes => Content::Codes(Vec::with_capacity(capacity(rows))),
        Kind::Rows(count) => {
            let mut offsets = Vec::with_capacity(capacity(count.saturating_add(1)));
            offsets.push(0);
            Content::Offsets(offsets)
        }
    }
}

/// Adds a batch's column, `before` rows having come before.
fn add(
    content: &mut Content,
    kind: Kind,
    name: &str,
    column: &ArrayRef,
    before: usize,
) -> Result<(), Reason> {
    if column.null_count() > 0 {
        return Err(format!("its column {name} holds NULL").into());
    }
    match (content, kind) {
        (Content::Ids(ids), _) => ids.push(Arc::clone(column)),
        (Content::Numbers(numbers), Kind::Vectors(width)) => {
            let lists = column.as_fixed_size_list_opt();
            let lists = lists.ok_or_else(|| format!("its column {name} holds no vectors"))?;
            if usize::try_from(lists.value_length()).ok() != Some(width) {
                let found = lists.value_length();
                return Err(format!("its vectors have {found} numbers, not {width}").into());
            }
            // A slice of the list array has a slice of its values.
            let start = usize::try_from(lists.value_offset(0)).unwrap_or_default();
            let values = lists.values().slice(start, lists.len() * width);
            numbers.extend_from_slice(finite(name, &values)?);
        }
        (Content::Numbers(numbers), _) => numbers.extend_from_slice(finite(name, column)?),
        (Content::Codes(codes), _) => codes.extend_from_slice(codes_of(name, column)?),
        (Content::Offsets(offsets), kind) => {
            let Kind::Rows(count) = kind else { return Ok(()) };
            for (cell, row) in codes_of(name, column)?.iter().enumerate() {
                let row = *row as usize;
                if row >= count || row + 1 < offsets.len() {
                    return Err(format!("its cells are not by {name}").into());
                }
                // Rows without cells end where the one before them ended.
                offsets.resize(row + 1, before + cell);
            }
        }
    }
    Ok(())
}

/// How much to reserve: a manifest that lies must not reserve the machine's memory.
fn capacity(wanted: usize) -> usize {
    wanted.min(1 << 28)
}

fn codes_of<'a>(name: &str, column: &'a ArrayRef) -> Result<&'a [u32], Reason> {
    let codes = column.as_primitive_opt::<UInt32Type>();
    Ok(codes.ok_or_else(|| format!("its column {name} holds no codes"))?.values())
}

fn finite<'a>(name: &str, column: &'a ArrayRef) -> Result<&'a [f32], Reason> {
    let values = column.as_primitive_opt::<Float32Type>();
    let values = values.ok_or_else(|| format!("its column {name} holds no 32-bit floats"))?;
    match values.values().iter().all(|value| value.is_finite()) {
        true => Ok(values.values()),
        false => Err(format!("its column {name} holds a value that is not finite").into()),
    }
}
async fn content(place: &Place, file: &StoredFile) -> Result<(String, Bytes)> {
    let place = place.child(&file.name);
    let url = place.url.to_string();
    let corrupt = |reason: &str| Error::Corrupt { what: url.clone(), reason: reason.into() };
    let content = place.read_if_exists().await?.ok_or_else(|| corrupt("it is missing"))?;
    if content.len() as u64 != file.bytes {
        let reason = format!("it has {} bytes, not {}", content.len(), file.bytes);
        return Err(corrupt(&reason));
    }
    Ok((url, content))
}

/// Why a file cannot be used, without the file's name.
struct Reason(String);

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<arrow::error::ArrowError> for Reason {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self(error.to_string())
    }
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, arrow::error::ArrowError>>>;

/// Decodes a file on a thread that may block: a large model takes seconds.
async fn decode<T: Send + 'static>(
    url: String,
    content: Bytes,
    collect: impl FnOnce(Batches) -> Result<T, Reason> + Send + 'static,
) -> Result<T> {
    let decoded = tokio::task::spawn_blocking(move || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(content)
            .map_err(|error| Reason(error.to_string()))?;
        let reader = builder.with_batch_size(BATCH_ROWS).build();
        collect(Box::new(reader.map_err(|error| Reason(error.to_string()))?))
    });
    let decoded = decoded.await.unwrap_or_else(|_| Err("reading it failed".into()));
    decoded.map_err(|Reason(reason)| Error::Corrupt { what: url, reason })
}

#[cfg(test)]
#[path = "model_files_tests.rs"]
mod tests;
