//! CSV as in RFC 4180: a header, quotes where needed. NULL is nothing, the empty text is `""`.

use std::io::Write;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::Schema;
use arrow::util::display::ArrayFormatter;

use super::{Format, Sink, Written, text_options};
use crate::error::Result;

/// Writes CSV.
pub(super) struct CsvSink<W> {
    writer: W,
    line: String,
    rows: u64,
}

impl<W: Write> CsvSink<W> {
    /// Writes the header.
    pub(super) fn new(schema: &Schema, mut writer: W) -> Result<Self> {
        let mut line = String::new();
        for (index, field) in schema.fields().iter().enumerate() {
            separate(&mut line, index);
            cell(&mut line, field.name());
        }
        line.push('\n');
        writer.write_all(line.as_bytes())?;
        Ok(Self { writer, line, rows: 0 })
    }
}

impl<W: Write> Sink for CsvSink<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<bool> {
        let options = text_options("");
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).map(|text| (column, text)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Format::Csv.error(error))?;
        for row in 0..batch.num_rows() {
            self.line.clear();
            for (index, (column, text)) in columns.iter().enumerate() {
                separate(&mut self.line, index);
                if !column.is_null(row) {
                    let text = text.value(row).try_to_string();
                    cell(&mut self.line, &text.map_err(|error| Format::Csv.error(error))?);
                }
            }
            self.line.push('\n');
            self.writer.write_all(self.line.as_bytes())?;
        }
        self.rows += batch.num_rows() as u64;
        Ok(true)
    }

    fn finish(mut self: Box<Self>) -> Result<Written> {
        self.writer.flush()?;
        Ok(Written { rows: self.rows, cut: false })
    }
}

fn separate(line: &mut String, index: usize) {
    if index > 0 {
        line.push(',');
    }
}

fn cell(line: &mut String, text: &str) {
    let quote = text.is_empty()
        || text.contains([',', '"', '\n', '\r'])
        || text.starts_with(' ')
        || text.ends_with(' ');
    if quote {
        line.push('"');
        line.push_str(&text.replace('"', "\"\""));
        line.push('"');
    } else {
        line.push_str(text);
    }
}
