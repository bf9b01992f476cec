//! Formats of a result: rows go out batch by batch, never collected, in the format asked for.
//!
//! NULL stays apart from the empty text in each: `NULL` in a table, nothing against `""` in CSV,
//! `null` in JSON.

mod csv;
mod file;
mod json;
mod table;

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;
use clap::ValueEnum;
pub use file::{Destination, format_of};
pub use table::TableStyle;

use crate::error::{Error, Result};

/// A format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    Table,
    /// Comma-separated values with a header, as in RFC 4180.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// A Parquet file.
    Parquet,
    /// An Arrow IPC stream.
    Arrow,
}

impl Format {
    /// The name that `--format` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
        }
    }

    /// Whether the format is no text, so that a terminal cannot show it.
    pub fn is_binary(self) -> bool {
        matches!(self, Self::Parquet | Self::Arrow)
    }

    /// An error of Arrow's while writing this format; the reader that went away stays one.
    fn error(self, error: ArrowError) -> Error {
        match error {
            ArrowError::IoError(_, error) => Error::Output(error),
            other => Error::Format { format: self.name(), reason: other.to_string() },
        }
    }
}

/// Takes the batches of one result.
pub trait Sink {
    /// Writes one batch; `false` when no more rows are wanted.
    fn write(&mut self, batch: &RecordBatch) -> Result<bool>;

    /// Writes what comes after the last row, and tells how many rows were written.
    fn finish(self: Box<Self>) -> Result<Written>;
}

/// What a sink has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Rows.
    pub rows: u64,
    /// Whether rows were left out because a table for a terminal has a limit.
    pub cut: bool,
}

/// The sink of `format` for rows of `schema`.
pub fn sink<'w>(
    format: Format,
    schema: SchemaRef,
    writer: Box<dyn Write + Send + 'w>,
    style: TableStyle,
) -> Result<Box<dyn Sink + 'w>> {
    Ok(match format {
        Format::Table => Box::new(table::TableSink::new(schema, writer, style)),
        Format::Csv => Box::new(csv::CsvSink::new(&schema, writer)?),
        Format::Json => Box::new(json::JsonSink::array(writer)),
        Format::Ndjson => Box::new(json::JsonSink::lines(writer)),
        Format::Parquet => Box::new(file::ParquetSink::new(schema, writer)?),
        Format::Arrow => Box::new(file::ArrowSink::new(&schema, writer)?),
    })
}

/// How values are written as text.
fn text_options(null: &str) -> FormatOptions<'_> {
    FormatOptions::new()
        .with_null(null)
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
        .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"))
}

#[cfg(test)]
mod tests;
