//! Columns of a model on their way into a Parquet file.
//!
//! Most of a model are vectors, and in Parquet a vector costs its levels: of each value, whether a
//! vector begins with it and that it is there. Arrow's writer works them out of every list, with
//! the position of each value. Vectors of one length have the same levels all along, so here they
//! are made once, and values are encoded from where the model has them. Ids alone, which may be of
//! any type, go by way of Arrow.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding};
use parquet::data_type::{DataType, FloatType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use tokio::io::AsyncWriteExt;

use super::model_files::{BATCH_ROWS, Column, Columns, ELEMENT, StoredFile, width};
use crate::error::{Error, Result};
use crate::store::Place;

/// Bytes of a row group, about: a row of a dense matrix may be long.
const GROUP_BYTES: usize = 64 << 20;

/// Rows of a row group at most: small enough to write with little memory.
const GROUP_ROWS: usize = 8 * BATCH_ROWS;

/// Values that share levels, about: as many as stay in the cache.
const VALUES_TOGETHER: usize = 1 << 14;

/// A row group that is being written.
type Group<'a> = SerializedRowGroupWriter<'a, Vec<u8>>;

/// A file that is being written.
pub struct Writing {
    name: String,
    file: Place,
    schema: SchemaRef,
    /// It holds what is encoded but not yet sent.
    encoder: SerializedFileWriter<Vec<u8>>,
    /// Encodes ids.
    arrow: ArrowRowGroupWriterFactory,
    upload: BufWriter,
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
            ArrowWriter::try_new(Vec::<u8>::new(), Arc::clone(&schema), Some(properties(columns)));
        let (encoder, arrow) = writer
            .and_then(ArrowWriter::into_serialized_writer)
            .map_err(|error| unwritten(&file, &error))?;
        Ok(Self { name, file, schema, encoder, arrow, upload, rows: 0 })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When the store cannot be written, or the columns do not fit together.
    pub async fn add(&mut self, columns: &Columns<'_>) -> Result<()> {
        let rows = columns.first().map_or(0, |(_, column)| column.len());
        let fields = self.schema.fields();
        let are_of_types = columns.len() == fields.len()
            && columns
                .iter()
                .zip(fields)
                .all(|((_, column), field)| column.data_type() == *field.data_type());
        if !are_of_types
            || columns.iter().any(|(_, column)| column.len() != rows || !column.is_whole())
        {
            let name = &self.name;
            return Err(Error::invalid(format!("the columns of {name} do not fit together")));
        }
        let step = group_rows(columns);
        for start in (0..rows).step_by(step) {
            let encoded = self.encode(columns, start..rows.min(start + step));
            encoded.map_err(|error| unwritten(&self.file, &error))?;
            self.send().await?;
        }
        self.rows += rows;
        Ok(())
    }

    /// Encodes rows as a group.
    fn encode(&mut self, columns: &Columns<'_>, rows: Range<usize>) -> Result<(), ParquetError> {
        let index = self.encoder.flushed_row_groups().len();
        let mut arrow = self.arrow.create_column_writers(index)?.into_iter();
        let mut group = self.encoder.next_row_group()?;
        for ((_, column), field) in columns.iter().zip(self.schema.fields()) {
            match column {
                Column::Ids(column) => {
                    let column = column.slice(rows.start, rows.len());
                    ids(&mut group, field, &column, &mut arrow)?;
                }
                numbers => {
                    // They have one leaf, whose writer is not Arrow's.
                    arrow.next();
                    encode(&mut group, numbers, rows.clone())?;
                }
            }
        }
        group.close()?;
        Ok(())
    }

    /// Sends what is encoded.
    async fn send(&mut self) -> Result<()> {
        let encoded = std::mem::take(self.encoder.inner_mut());
        let sent = self.upload.put(Bytes::from(encoded)).await;
        sent.map_err(|error| unwritten(&self.file, &error))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn end(mut self) -> Result<StoredFile> {
        let ended = self.encoder.finish();
        ended.map_err(|error| unwritten(&self.file, &error))?;
        self.send().await?;
        let Self { name, file, mut upload, rows, .. } = self;
        upload.shutdown().await.map_err(|error| unwritten(&file, &error))?;
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

/// Rows of a row group.
pub(super) fn group_rows(columns: &Columns<'_>) -> usize {
    let row_bytes: usize = columns.iter().map(|(_, column)| column.row_bytes()).sum();
    (GROUP_BYTES / row_bytes.max(1)).clamp(1, GROUP_ROWS)
}

/// Vectors have no repeated values and do not compress; ids and codes do.
fn properties(columns: &Columns<'_>) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::LZ4_RAW)
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

/// Encodes the next column, of ids or other values, with as many of Arrow's writers as it takes.
fn ids(
    group: &mut Group<'_>,
    field: &Field,
    column: &ArrayRef,
    arrow: &mut impl Iterator<Item = ArrowColumnWriter>,
) -> Result<(), ParquetError> {
    for leaf in compute_leaves(field, column)? {
        let mut writer = arrow.next().ok_or_else(no_column)?;
        writer.write(&leaf)?;
        writer.close()?.append_to_row_group(group)?;
    }
    Ok(())
}

/// Encodes some rows of the next column, of numbers or codes.
fn encode(
    group: &mut Group<'_>,
    column: &Column<'_>,
    rows: Range<usize>,
) -> Result<(), ParquetError> {
    match column {
        Column::Ids(_) => Err(ParquetError::General("ids are no numbers".into())),
        Column::Vectors(values, width) => {
            let values = values.get(rows.start * width..rows.end * width).unwrap_or_default();
            vectors(group, *width, std::iter::once(values))
        }
        Column::Lists(lists) => {
            let rows = lists.get(rows).unwrap_or_default();
            vectors(group, width(lists), rows.iter().copied())
        }
        Column::Numbers(numbers) => {
            plain::<FloatType>(group, numbers.get(rows).unwrap_or_default())
        }
        Column::Codes(codes) => {
            let codes = codes.get(rows).unwrap_or_default();
            let codes: Vec<i32> = codes.iter().map(|code| code.cast_signed()).collect();
            plain::<Int32Type>(group, &codes)
        }
        Column::Rows(offsets) => plain::<Int32Type>(group, &rows_of_cells(offsets, rows)),
    }
}

/// Encodes the next column, of a value a row.
fn plain<T: DataType>(group: &mut Group<'_>, values: &[T::T]) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.ok_or_else(no_column)?;
    column.typed::<T>().write_batch(values, None, None)?;
    column.close()
}

/// Encodes the next column, of vectors of one length; a part is any number of them, one after the
/// other.
fn vectors<'v>(
    group: &mut Group<'_>,
    width: usize,
    parts: impl Iterator<Item = &'v [f32]>,
) -> Result<(), ParquetError> {
    let width = width.max(1);
    let together = (VALUES_TOGETHER / width).max(1) * width;
    let are_there = vec![1_i16; together];
    let go_on: Vec<i16> = (0..together).map(|at| i16::from(!at.is_multiple_of(width))).collect();
    let mut column = group.next_column()?.ok_or_else(no_column)?;
    let writer = column.typed::<FloatType>();
    for part in parts {
        for values in part.chunks(together) {
            let count = values.len();
            writer.write_batch(values, are_there.get(..count), go_on.get(..count))?;
        }
    }
    column.close()
}

/// The row of each of some cells of a sparse matrix, by the offsets of its rows.
fn rows_of_cells(offsets: &[usize], cells: Range<usize>) -> Vec<i32> {
    let mut row = offsets.partition_point(|offset| *offset <= cells.start).max(1) - 1;
    let rows = cells.map(|cell| {
        while offsets.get(row + 1).is_some_and(|next| *next <= cell) {
            row += 1;
        }
        u32::try_from(row).unwrap_or(u32::MAX).cast_signed()
    });
    rows.collect()
}

fn no_column() -> ParquetError {
    ParquetError::General("the file has fewer columns".into())
}
