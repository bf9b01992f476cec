//! JSON, as one array or as one object a line. NULL is written as `null`, so that every object has
//! every key.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::json::writer::{JsonArray, JsonFormat, LineDelimited};
use arrow::json::{Writer, WriterBuilder};

use super::{Format, Sink, Written};
use crate::error::Result;

/// Writes JSON.
pub(super) struct JsonSink<W: Write, F: JsonFormat> {
    writer: Writer<W, F>,
    format: Format,
    rows: u64,
}

impl<W: Write> JsonSink<W, JsonArray> {
    /// One array.
    pub(super) fn array(writer: W) -> Self {
        let writer = WriterBuilder::new().with_explicit_nulls(true).build(writer);
        Self { writer, format: Format::Json, rows: 0 }
    }
}

impl<W: Write> JsonSink<W, LineDelimited> {
    /// One object a line.
    pub(super) fn lines(writer: W) -> Self {
        let writer = WriterBuilder::new().with_explicit_nulls(true).build(writer);
        Self { writer, format: Format::Ndjson, rows: 0 }
    }
}

impl<W: Write, F: JsonFormat> Sink for JsonSink<W, F> {
    fn write(&mut self, batch: &RecordBatch) -> Result<bool> {
        self.writer.write(batch).map_err(|error| self.format.error(error))?;
        self.rows += batch.num_rows() as u64;
        Ok(true)
    }

    fn finish(mut self: Box<Self>) -> Result<Written> {
        self.writer.finish().map_err(|error| self.format.error(error))?;
        let mut writer = self.writer.into_inner();
        if self.format == Format::Json {
            writer.write_all(b"\n")?;
        }
        writer.flush()?;
        Ok(Written { rows: self.rows, cut: false })
    }
}
