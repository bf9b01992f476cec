//! A model version's files: Parquet that any tool can read.
//!
//! A file is a table of named columns: ids of the training query's own type, vectors (lists of
//! 32-bit floats of one length), numbers, and codes; row n of a file with ids is code n. Sparse
//! matrices are files of cells, `row`, `column` and weight, by row and column. What is read is
//! checked against the manifest, so that a file that was cut or swapped is an error and never a
//! wrong recommendation.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Float32Type, Schema, SchemaRef, UInt32Type};
use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::store::Place;

/// Rows of a batch at most.
pub(super) const BATCH_ROWS: usize = 8_192;

/// Bytes of a batch, about: a row of a dense matrix may be long.
const BATCH_BYTES: usize = 8 << 20;

/// Rows of a row group at most: small enough to write with little memory.
const ROW_GROUP_ROWS: usize = 65_536;

/// A vector's values.
const ELEMENT: &str = "element";

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
    fn len(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len(),
            Self::Vectors(values, width) => values.len().checked_div(*width).unwrap_or(0),
            Self::Lists(lists) => lists.len(),
            Self::Numbers(numbers) => numbers.len(),
            Self::Codes(codes) => codes.len(),
            Self::Rows(offsets) => offsets.last().copied().unwrap_or(0),
        }
    }

    fn is_whole(&self) -> bool {
        match self {
            Self::Vectors(values, width) => values.len() == self.len() * width && *width > 0,
            Self::Lists(lists) => lists.iter().all(|list| list.len() == width(lists)),
            _ => true,
        }
    }

    fn row_bytes(&self) -> usize {
        match self {
            Self::Vectors(_, width) => width * size_of::<f32>(),
            Self::Lists(lists) => width(lists) * size_of::<f32>(),
            _ => 16,
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Ids(ids) => ids.data_type().clone(),
            Self::Vectors(_, width) => DataType::FixedSizeList(element(), list_size(*width)),
            Self::Lists(lists) => DataType::FixedSizeList(element(), list_size(width(lists))),
            Self::Numbers(_) => DataType::Float32,
            Self::Codes(_) | Self::Rows(_) => DataType::UInt32,
        }
    }

    fn slice(&self, start: usize, end: usize) -> Result<ArrayRef, arrow::error::ArrowError> {
        Ok(match self {
            Self::Ids(ids) => ids.slice(start, end - start),
            Self::Vectors(values, width) => {
                let values = values.get(start * width..end * width).unwrap_or_default().to_vec();
                vectors(values, *width)?
            }
            Self::Lists(lists) => {
                vectors(lists.get(start..end).unwrap_or_default().concat(), width(lists))?
            }
            Self::Numbers(numbers) => {
                let numbers = numbers.get(start..end).unwrap_or_default().to_vec();
                Arc::new(Float32Array::from(numbers))
            }
            Self::Codes(codes) => {
                Arc::new(UInt32Array::from(codes.get(start..end).unwrap_or_default().to_vec()))
            }
            Self::Rows(offsets) => {
                let mut row = offsets.partition_point(|offset| *offset <= start).max(1) - 1;
                let rows = (start..end).map(|cell| {
                    while offsets.get(row + 1).is_some_and(|next| *next <= cell) {
                        row += 1;
                    }
                    u32::try_from(row).unwrap_or(u32::MAX)
                });
                Arc::new(UInt32Array::from_iter_values(rows))
            }
        })
    }
}

fn width(lists: &[&[f32]]) -> usize {
    lists.first().map_or(0, |list| list.len())
}

fn vectors(values: Vec<f32>, width: usize) -> Result<ArrayRef, arrow::error::ArrowError> {
    let values = Arc::new(Float32Array::from(values));
    Ok(Arc::new(FixedSizeListArray::try_new(element(), list_size(width), values, None)?))
}

fn element() -> Arc<Field> {
    Arc::new(Field::new(ELEMENT, DataType::Float32, false))
}

fn list_size(width: usize) -> i32 {
    i32::try_from(width).unwrap_or(i32::MAX)
}

/// A file that is being written.
pub struct Writing {
    name: String,
    file: Place,
    schema: SchemaRef,
    writer: AsyncArrowWriter<BufWriter>,
    rows: usize,
}

impl Writing {
    /// Begins a file with columns such as these.
    ///
    /// # Errors
    /// When there can be no such file.
    pub fn begin(place: &Place, name: String, columns: &Columns<'_>) -> Result<Self> {
        let file = place.child(&name);
        let fields =
            columns.iter().map(|(name, column)| Field::new(*name, column.data_type(), false));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let upload = BufWriter::new(Arc::clone(&file.store), file.path.clone());
        let writer =
            AsyncArrowWriter::try_new(upload, Arc::clone(&schema), Some(properties(columns)))
                .map_err(|error| unwritten(&file, &error))?;
        Ok(Self { name, file, schema, writer, rows: 0 })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When the store cannot be written, or the columns do not fit together.
    pub async fn add(&mut self, columns: &Columns<'_>) -> Result<()> {
        let rows = columns.first().map_or(0, |(_, column)| column.len());
        if columns.iter().any(|(_, column)| column.len() != rows || !column.is_whole()) {
            let name = &self.name;
            return Err(Error::invalid(format!("the columns of {name} do not fit together")));
        }
        let step = batch_rows(columns);
        for start in (0..rows).step_by(step) {
            let end = rows.min(start + step);
            let arrays = columns.iter().map(|(_, column)| column.slice(start, end));
            let batch = arrays
                .collect::<Result<Vec<_>, _>>()
                .and_then(|arrays| RecordBatch::try_new(Arc::clone(&self.schema), arrays))
                .map_err(|error| Error::invalid(error.to_string()))?;
            let written = self.writer.write(&batch).await;
            written.map_err(|error| unwritten(&self.file, &error))?;
        }
        self.rows += rows;
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn end(self) -> Result<StoredFile> {
        let Self { name, file, writer, rows, .. } = self;
        writer.close().await.map_err(|error| unwritten(&file, &error))?;
        let head = file.store.head(&file.path).await;
        let head = head.map_err(|error| Error::store(file.url.as_str(), &error))?;
        Ok(StoredFile { name, bytes: head.size, rows: rows as u64 })
    }
}

fn unwritten(file: &Place, error: &dyn std::error::Error) -> Error {
    Error::Store {
        url: file.url.to_string(),
        reason: crate::error::root_cause(error),
        denied: false,
    }
}

/// Writes a file in one go.
///
/// # Errors
/// When the store cannot be written, or the columns do not fit together.
pub async fn write(place: &Place, name: String, columns: &Columns<'_>) -> Result<StoredFile> {
    let mut writing = Writing::begin(place, name, columns)?;
    writing.add(columns).await?;
    writing.end().await
}

fn batch_rows(columns: &Columns<'_>) -> usize {
    let row_bytes: usize = columns.iter().map(|(_, column)| column.row_bytes()).sum();
    (BATCH_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS)
}

/// Vectors have no repeated values and do not compress; ids and codes do.
fn properties(columns: &Columns<'_>) -> WriterProperties {
    let group = (8 * batch_rows(columns)).min(ROW_GROUP_ROWS);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::LZ4_RAW)
        .set_max_row_group_row_count(Some(group))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(false);
    for (name, column) in columns {
        if matches!(column, Column::Codes(_) | Column::Rows(_)) {
            let encoding = Encoding::DELTA_BINARY_PACKED;
            properties = properties.set_column_encoding((*name).into(), encoding);
        }
        if matches!(column, Column::Vectors(..) | Column::Lists(_)) {
            let path = [*name, "list", ELEMENT].map(str::to_owned).to_vec();
            properties = properties.set_column_compression(path.into(), Compression::UNCOMPRESSED);
        }
    }
    properties.build()
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
