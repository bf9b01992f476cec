//! A model version's factor files: Parquet that any tool can read.
//!
//! `users` and `items` have an `id` of the training query's own type, `factors` (a list of
//! `num_factors` 32-bit floats) and, with biases, `bias`; row n is code n. `seen` has the
//! interactions as codes, `user`, `item` and `weight`, by user and item. What is read is checked
//! against the manifest, so that a file that was cut or swapped is an error and never a wrong
//! recommendation.

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

/// Rows of a batch while writing.
const BATCH_ROWS: usize = 8_192;

/// Rows of a row group: small enough to write with little memory.
const ROW_GROUP_ROWS: usize = 65_536;

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

/// One side of a factorization: users or items.
#[derive(Debug, Clone)]
pub struct Side {
    /// The ids, by code.
    pub ids: ArrayRef,
    /// `ids × width` values, row by row.
    pub factors: Vec<f32>,
    /// One bias an id; empty without biases.
    pub bias: Vec<f32>,
}

/// Interactions as compressed sparse rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cells {
    /// `offsets[u]..offsets[u + 1]` are user u's cells.
    pub offsets: Vec<usize>,
    /// Item codes.
    pub items: Vec<u32>,
    /// Weights or ratings.
    pub weights: Vec<f32>,
}

/// Writes a side.
///
/// # Errors
/// When the store cannot be written, or the lengths do not fit together.
pub async fn write_side(
    place: &Place,
    name: String,
    ids: &ArrayRef,
    factors: &[f32],
    bias: &[f32],
) -> Result<StoredFile> {
    let rows = ids.len();
    let width = factors.len().checked_div(rows).unwrap_or(0);
    let size = i32::try_from(width).unwrap_or(i32::MAX);
    if width == 0 || factors.len() != rows * width || !(bias.is_empty() || bias.len() == rows) {
        return Err(Error::invalid("a model's factors do not fit its ids"));
    }
    let item = Arc::new(Field::new("element", DataType::Float32, false));
    let mut fields = vec![
        Field::new("id", ids.data_type().clone(), false),
        Field::new("factors", DataType::FixedSizeList(Arc::clone(&item), size), false),
    ];
    if !bias.is_empty() {
        fields.push(Field::new("bias", DataType::Float32, false));
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = |start: usize, end: usize| {
        let values = factors.get(start * width..end * width).unwrap_or_default().to_vec();
        let values = Arc::new(Float32Array::from(values));
        let lists = FixedSizeListArray::try_new(Arc::clone(&item), size, values, None)?;
        let mut columns: Vec<ArrayRef> = vec![ids.slice(start, end - start), Arc::new(lists)];
        if let Some(bias) = bias.get(start..end) {
            columns.push(Arc::new(Float32Array::from(bias.to_vec())));
        }
        RecordBatch::try_new(Arc::clone(&schema), columns)
    };
    write(place, name, &schema, rows, batch).await
}

/// Writes interactions.
///
/// # Errors
/// When the store cannot be written.
pub async fn write_cells(
    place: &Place,
    name: String,
    offsets: &[usize],
    items: &[u32],
    weights: &[f32],
) -> Result<StoredFile> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("user", DataType::UInt32, false),
        Field::new("item", DataType::UInt32, false),
        Field::new("weight", DataType::Float32, false),
    ]));
    let mut user = 0_usize;
    let batch = |start: usize, end: usize| {
        let mut users = Vec::with_capacity(end - start);
        for cell in start..end {
            while offsets.get(user + 1).is_some_and(|next| *next <= cell) {
                user += 1;
            }
            users.push(u32::try_from(user).unwrap_or(u32::MAX));
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(users)),
            Arc::new(UInt32Array::from(items.get(start..end).unwrap_or_default().to_vec())),
            Arc::new(Float32Array::from(weights.get(start..end).unwrap_or_default().to_vec())),
        ];
        RecordBatch::try_new(Arc::clone(&schema), columns)
    };
    write(place, name, &schema, items.len(), batch).await
}

async fn write(
    place: &Place,
    name: String,
    schema: &SchemaRef,
    rows: usize,
    mut batch: impl FnMut(usize, usize) -> Result<RecordBatch, arrow::error::ArrowError>,
) -> Result<StoredFile> {
    let file = place.child(&name);
    let wrong = |error: &dyn std::error::Error| Error::Store {
        url: file.url.to_string(),
        reason: crate::error::root_cause(error),
        denied: false,
    };
    // Factors have no repeated values; ids and codes compress well.
    let properties = WriterProperties::builder()
        .set_compression(Compression::LZ4_RAW)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(false)
        .set_column_encoding("user".into(), Encoding::DELTA_BINARY_PACKED)
        .set_column_encoding("item".into(), Encoding::DELTA_BINARY_PACKED)
        .build();
    let upload = BufWriter::new(Arc::clone(&file.store), file.path.clone());
    let mut writer = AsyncArrowWriter::try_new(upload, Arc::clone(schema), Some(properties))
        .map_err(|error| wrong(&error))?;
    let mut start = 0;
    while start < rows {
        let end = rows.min(start + BATCH_ROWS);
        let batch = batch(start, end).map_err(|error| Error::invalid(error.to_string()))?;
        writer.write(&batch).await.map_err(|error| wrong(&error))?;
        start = end;
    }
    writer.close().await.map_err(|error| wrong(&error))?;
    let head = file.store.head(&file.path).await;
    let head = head.map_err(|error| Error::store(file.url.as_str(), &error))?;
    Ok(StoredFile { name, bytes: head.size, rows: rows as u64 })
}

/// Reads a side of `width` factors and, if `biased`, a bias a row.
///
/// # Errors
/// `Corrupt` when the file is missing, cut, of other sizes or types, or holds a value that is not
/// finite.
pub async fn read_side(
    place: &Place,
    file: &StoredFile,
    width: usize,
    biased: bool,
) -> Result<Side> {
    let (url, content) = content(place, file).await?;
    let rows = usize::try_from(file.rows).unwrap_or(usize::MAX);
    decode(url, content, move |batches| {
        let mut ids = Vec::new();
        let mut factors = Vec::with_capacity(capacity(rows.saturating_mul(width)));
        let mut bias = Vec::new();
        for batch in batches {
            let batch = batch?;
            ids.push(Arc::clone(batch.column_by_name("id").ok_or("it has no column id")?));
            let lists = batch.column_by_name("factors").and_then(|c| c.as_fixed_size_list_opt());
            let lists = lists.ok_or("it has no column factors")?;
            if usize::try_from(lists.value_length()).ok() != Some(width) || lists.null_count() > 0 {
                return Err(format!("its vectors have not {width} factors").into());
            }
            let values = lists.values().as_primitive_opt::<Float32Type>();
            factors.extend_from_slice(finite(values)?);
            if biased {
                let column = batch.column_by_name("bias");
                let column = column.and_then(|column| column.as_primitive_opt::<Float32Type>());
                bias.extend_from_slice(finite(column)?);
            }
        }
        let parts: Vec<&dyn Array> = ids.iter().map(|part| part.as_ref() as &dyn Array).collect();
        let ids = arrow::compute::concat(&parts).map_err(|error| error.to_string())?;
        if ids.len() != rows || factors.len() != rows * width || ids.null_count() > 0 {
            return Err(format!("it has {} rows, not {rows}", ids.len()).into());
        }
        Ok(Side { ids, factors, bias })
    })
    .await
}

/// Reads interactions of `users` users.
///
/// # Errors
/// As [`read_side`]; also when the rows are not by user.
pub async fn read_cells(place: &Place, file: &StoredFile, users: usize) -> Result<Cells> {
    let (url, content) = content(place, file).await?;
    let rows = usize::try_from(file.rows).unwrap_or(usize::MAX);
    decode(url, content, move |batches| {
        let mut cells = Cells {
            offsets: Vec::with_capacity(capacity(users.saturating_add(1))),
            items: Vec::with_capacity(capacity(rows)),
            weights: Vec::with_capacity(capacity(rows)),
        };
        cells.offsets.push(0);
        for batch in batches {
            let batch = batch?;
            let codes = |name: &str| {
                let column = batch.column_by_name(name)?.as_primitive_opt::<UInt32Type>()?;
                (column.null_count() == 0).then(|| column.values())
            };
            let of = codes("user").ok_or("it has no column user")?;
            for (row, user) in of.iter().enumerate() {
                let user = *user as usize;
                if user >= users || user + 1 < cells.offsets.len() {
                    return Err("its rows are not by user".into());
                }
                // Users without cells end where the one before them ended.
                cells.offsets.resize(user + 1, cells.items.len() + row);
            }
            cells.items.extend_from_slice(codes("item").ok_or("it has no column item")?);
            let weights = batch.column_by_name("weight");
            let weights = weights.and_then(|column| column.as_primitive_opt::<Float32Type>());
            cells.weights.extend_from_slice(finite(weights)?);
        }
        cells.offsets.resize(users + 1, cells.items.len());
        if cells.items.len() != rows {
            return Err(format!("it has {} rows, not {rows}", cells.items.len()).into());
        }
        Ok(cells)
    })
    .await
}

/// How much to reserve: a manifest that lies must not reserve the machine's memory.
fn capacity(wanted: usize) -> usize {
    wanted.min(1 << 28)
}

fn finite(column: Option<&Float32Array>) -> Result<&[f32], Reason> {
    let column = column.filter(|column| column.null_count() == 0);
    let values = column.ok_or("it has no column of 32-bit floats")?.values();
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(values),
        false => Err("it holds a value that is not finite".into()),
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
mod tests {
    use arrow::array::{FixedSizeBinaryArray, Int64Array, StringArray};

    use super::*;
    use crate::testing::Shared;

    fn factors(rows: usize, width: usize) -> Vec<f32> {
        (0..rows * width).map(|index| (index as f32).sin()).collect()
    }

    #[tokio::test]
    async fn sides_of_every_id_type_come_back() {
        let place = Shared::new().place;
        let uuids = (0..20_000_u128).map(|index| index.to_be_bytes());
        let ids: [ArrayRef; 3] = [
            Arc::new(Int64Array::from_iter_values(0..20_000)),
            Arc::new(StringArray::from_iter_values((0..20_000).map(|id| format!("user {id}")))),
            Arc::new(FixedSizeBinaryArray::try_from_iter(uuids).unwrap()),
        ];
        let (values, bias) = (factors(20_000, 3), factors(20_000, 1));
        for ids in ids {
            let file = write_side(&place, "u".into(), &ids, &values, &bias).await.unwrap();
            let side = read_side(&place, &file, 3, true).await.unwrap();
            assert_eq!((&side.ids, &side.factors, &side.bias), (&ids, &values, &bias));
        }
    }

    #[tokio::test]
    async fn cells_come_back_with_users_that_have_none() {
        let place = Shared::new().place;
        for offsets in [vec![0, 0, 2, 2, 3, 3], vec![0, 3], vec![0, 0]] {
            let count = *offsets.last().unwrap();
            let cells = Cells {
                items: [7, 9, 1].into_iter().take(count).collect(),
                weights: [1.0, 0.5, -2.0].into_iter().take(count).collect(),
                offsets,
            };
            let (items, weights) = (&cells.items, &cells.weights);
            let file = write_cells(&place, "s".into(), &cells.offsets, items, weights).await;
            let users = cells.offsets.len() - 1;
            assert_eq!(read_cells(&place, &file.unwrap(), users).await.unwrap(), cells);
        }
    }

    #[tokio::test]
    async fn cut_swapped_and_senseless_files_are_corrupt() {
        let place = Shared::new().place;
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let file = write_side(&place, "u".into(), &ids, &factors(2, 4), &[]).await.unwrap();
        let expect = async |file: &StoredFile, width, part: &str| {
            let error = read_side(&place, file, width, false).await.unwrap_err();
            assert!(matches!(&error, Error::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains(part), "{error}");
        };
        expect(&file, 5, "5 factors").await;
        expect(&StoredFile { rows: 3, ..file.clone() }, 4, "2 rows, not 3").await;
        expect(&StoredFile { name: "gone".into(), ..file.clone() }, 4, "missing").await;
        let target = place.child("u");
        let content = target.read().await.unwrap();
        let cut = content.slice(..content.len() / 2);
        target.store.put(&target.path, cut.clone().into()).await.unwrap();
        expect(&file, 4, "bytes").await;
        expect(&StoredFile { bytes: cut.len() as u64, ..file.clone() }, 4, "u cannot be read")
            .await;
        let nan = [1.0, f32::NAN, 0.0, 0.0];
        let file = write_side(&place, "u".into(), &ids, &nan, &[]).await.unwrap();
        expect(&file, 2, "not finite").await;
    }
}
