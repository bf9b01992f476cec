//! Parquet and Arrow IPC, and the place a result goes: standard output or a file.
//!
//! A file appears under its name only when the result is whole; until then it has the suffix
//! `.part`, so that a failed query leaves no half of a result behind.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::{Format, Sink, Written};
use crate::error::{Error, Result};

/// Writes a Parquet file.
pub(super) struct ParquetSink<W: Write + Send> {
    writer: ArrowWriter<W>,
    rows: u64,
}

impl<W: Write + Send> ParquetSink<W> {
    /// Writes the header.
    pub(super) fn new(schema: SchemaRef, writer: W) -> Result<Self> {
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let writer =
            ArrowWriter::try_new(writer, schema, Some(properties)).map_err(parquet_error)?;
        Ok(Self { writer, rows: 0 })
    }
}

impl<W: Write + Send> Sink for ParquetSink<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<bool> {
        self.writer.write(batch).map_err(parquet_error)?;
        self.rows += batch.num_rows() as u64;
        Ok(true)
    }

    fn finish(self: Box<Self>) -> Result<Written> {
        let mut writer = self.writer.into_inner().map_err(parquet_error)?;
        writer.flush()?;
        Ok(Written { rows: self.rows, cut: false })
    }
}

fn parquet_error(error: ParquetError) -> Error {
    match error {
        ParquetError::External(error) => match error.downcast::<std::io::Error>() {
            Ok(error) => Error::Output(*error),
            Err(error) => Error::Format { format: "parquet", reason: error.to_string() },
        },
        other => Error::Format { format: "parquet", reason: other.to_string() },
    }
}

/// Writes an Arrow IPC stream.
pub(super) struct ArrowSink<W: Write> {
    writer: StreamWriter<W>,
    rows: u64,
}

impl<W: Write> ArrowSink<W> {
    /// Writes the schema.
    pub(super) fn new(schema: &Schema, writer: W) -> Result<Self> {
        let writer =
            StreamWriter::try_new(writer, schema).map_err(|error| Format::Arrow.error(error))?;
        Ok(Self { writer, rows: 0 })
    }
}

impl<W: Write> Sink for ArrowSink<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<bool> {
        self.writer.write(batch).map_err(|error| Format::Arrow.error(error))?;
        self.rows += batch.num_rows() as u64;
        Ok(true)
    }

    fn finish(self: Box<Self>) -> Result<Written> {
        let mut writer = self.writer.into_inner().map_err(|error| Format::Arrow.error(error))?;
        writer.flush()?;
        Ok(Written { rows: self.rows, cut: false })
    }
}

/// Where results go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Output,
    /// A file.
    File(PathBuf),
}

impl Destination {
    /// Opens the destination for one result. For a file, that is its `.part`.
    pub fn open(&self) -> Result<Box<dyn Write + Send>> {
        match self {
            Self::Output => Ok(Box::new(BufWriter::new(std::io::stdout()))),
            Self::File(path) => {
                let part = part(path);
                let file =
                    File::create(&part).map_err(|error| Error::file("create", &part, &error))?;
                Ok(Box::new(BufWriter::new(file)))
            }
        }
    }

    /// Gives a file that is whole its name.
    pub fn publish(&self) -> Result<()> {
        let Self::File(path) = self else { return Ok(()) };
        std::fs::rename(part(path), path).map_err(|error| Error::file("write", path, &error))
    }

    /// Removes a file that will not be whole.
    pub fn abandon(&self) {
        if let Self::File(path) = self {
            // It may never have been created.
            let _ = std::fs::remove_file(part(path));
        }
    }
}

fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// The format that a file's name asks for.
pub fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_lowercase().as_str() {
        "csv" => Some(Format::Csv),
        "json" => Some(Format::Json),
        "ndjson" | "jsonl" => Some(Format::Ndjson),
        "parquet" => Some(Format::Parquet),
        "arrow" | "arrows" | "ipc" => Some(Format::Arrow),
        "txt" => Some(Format::Table),
        _ => None,
    }
}
