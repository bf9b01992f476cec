//! Parquet without some rows: values and levels are copied column by column, so that nothing of the
//! schema, physical types included, is changed by a way through other types.
//!
//! Row groups stay apart, one without rows goes. Compression, dictionaries, sorting columns and the
//! notes of the file stay; pages, encodings and statistics are new. Columns that had no statistics
//! get none, nor do personal ones; bloom filters are not written again.

use std::sync::Arc;

use bytes::Bytes;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{
    BoolType, ByteArrayType, DataType, DoubleType, FixedLenByteArrayType, FloatType, Int32Type,
    Int64Type, Int96Type,
};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};

use super::{Mask, NOT_WHOLE, Refusal};
use crate::personal_columns::PersonalColumns;

/// Rows of a column that are copied at once.
const ROWS_AT_ONCE: usize = 8_192;

/// A Parquet file without the rows that go.
pub(super) fn written(
    content: &Bytes,
    personal: &PersonalColumns,
    mask: &mut Mask<'_>,
) -> Result<Vec<u8>, Refusal> {
    let file = SerializedFileReader::new(content.clone()).map_err(|_| NOT_WHOLE)?;
    let mut gone = Vec::with_capacity(file.num_row_groups());
    for group in file.metadata().row_groups() {
        let rows = usize::try_from(group.num_rows()).map_err(|_| NOT_WHOLE)?;
        gone.push((0..rows).map(|_| mask.take()).collect::<Result<Vec<bool>, _>>()?);
    }
    copied(&file, personal, &gone).map_err(|_| NOT_WHOLE)
}

fn copied(
    file: &SerializedFileReader<Bytes>,
    personal: &PersonalColumns,
    gone: &[Vec<bool>],
) -> ParquetResult<Vec<u8>> {
    let metadata = file.metadata();
    let schema = metadata.file_metadata().schema_descr().root_schema_ptr();
    let properties = Arc::new(properties(metadata, personal));
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties)?;
    for (number, gone) in gone.iter().enumerate() {
        if gone.iter().all(|is_gone| *is_gone) {
            continue;
        }
        let from = file.get_row_group(number)?;
        let mut to = writer.next_row_group()?;
        for column in 0..from.num_columns() {
            let Some(mut written) = to.next_column()? else { return Err(unequal()) };
            copy(from.as_ref(), column, &mut written, gone)?;
            written.close()?;
        }
        to.close()?;
    }
    writer.into_inner()
}

fn unequal() -> ParquetError {
    ParquetError::General("a column has another number of rows than its row group".into())
}

/// What is written as the file has it.
fn properties(metadata: &ParquetMetaData, personal: &PersonalColumns) -> WriterProperties {
    let notes = metadata.file_metadata().key_value_metadata().cloned();
    let mut properties = WriterProperties::builder().set_key_value_metadata(notes);
    let Some(group) = metadata.row_groups().first() else { return properties.build() };
    properties = properties.set_sorting_columns(group.sorting_columns().cloned());
    let is_personal = |column: &ColumnChunkMetaData| {
        column.column_path().parts().first().is_some_and(|name| personal.has(name))
    };
    let has_personal = group.columns().iter().any(is_personal);
    for column in group.columns() {
        let path = || column.column_path().clone();
        properties = properties
            .set_column_compression(path(), column.compression())
            .set_column_dictionary_enabled(path(), column.dictionary_page_offset().is_some());
        // As the warehouse writes: a nested column beside a personal one has none either.
        let is_nested = column.column_path().parts().len() > 1;
        let is_bare = is_personal(column) || (has_personal && is_nested);
        if is_bare || column.statistics().is_none() {
            properties = properties.set_column_statistics_enabled(path(), EnabledStatistics::None);
        }
    }
    properties.build()
}

fn copy(
    group: &dyn RowGroupReader,
    column: usize,
    to: &mut SerializedColumnWriter<'_>,
    gone: &[bool],
) -> ParquetResult<()> {
    let max_def = group.metadata().column(column).column_descr().max_def_level();
    let kept = Kept { max_def, gone, next: 0, is_kept: true };
    let from = group.get_column_reader(column)?;
    match from {
        ColumnReader::BoolColumnReader(_) => kept.copy::<BoolType>(from, to),
        ColumnReader::Int32ColumnReader(_) => kept.copy::<Int32Type>(from, to),
        ColumnReader::Int64ColumnReader(_) => kept.copy::<Int64Type>(from, to),
        ColumnReader::Int96ColumnReader(_) => kept.copy::<Int96Type>(from, to),
        ColumnReader::FloatColumnReader(_) => kept.copy::<FloatType>(from, to),
        ColumnReader::DoubleColumnReader(_) => kept.copy::<DoubleType>(from, to),
        ColumnReader::ByteArrayColumnReader(_) => kept.copy::<ByteArrayType>(from, to),
        ColumnReader::FixedLenByteArrayColumnReader(_) => {
            kept.copy::<FixedLenByteArrayType>(from, to)
        }
    }
}

/// Which values of a column stay.
struct Kept<'a> {
    /// The level at which a value is there.
    max_def: i16,
    gone: &'a [bool],
    /// The row after the one that is read.
    next: usize,
    /// Whether the row that is read stays.
    is_kept: bool,
}

impl Kept<'_> {
    fn copy<T: DataType>(
        mut self,
        from: ColumnReader,
        to: &mut SerializedColumnWriter<'_>,
    ) -> ParquetResult<()> {
        let mut from: ColumnReaderImpl<T> = get_typed_column_reader(from);
        loop {
            let (mut values, mut defs, mut reps) = (Vec::new(), Vec::new(), Vec::new());
            let (rows, _, levels) =
                from.read_records(ROWS_AT_ONCE, Some(&mut defs), Some(&mut reps), &mut values)?;
            if rows == 0 && levels == 0 {
                break;
            }
            let mut values = values.into_iter();
            let (mut kept, mut kept_defs, mut kept_reps) = (Vec::new(), Vec::new(), Vec::new());
            for level in 0..levels {
                let (def, rep) = (defs.get(level).copied(), reps.get(level).copied());
                if rep.is_none_or(|rep| rep == 0) {
                    self.row()?;
                }
                let value = match def.is_none_or(|def| def == self.max_def) {
                    true => values.next(),
                    false => None,
                };
                if self.is_kept {
                    kept.extend(value);
                    kept_defs.extend(def);
                    kept_reps.extend(rep);
                }
            }
            if kept.is_empty() && kept_defs.is_empty() {
                continue;
            }
            // A column without levels of a kind is written without.
            let defs = (!kept_defs.is_empty()).then_some(kept_defs.as_slice());
            let reps = (!kept_reps.is_empty()).then_some(kept_reps.as_slice());
            to.typed::<T>().write_batch(kept.as_slice(), defs, reps)?;
        }
        if self.next == self.gone.len() { Ok(()) } else { Err(unequal()) }
    }

    /// Goes on to the next row.
    fn row(&mut self) -> ParquetResult<()> {
        let is_gone = self.gone.get(self.next).ok_or_else(unequal)?;
        self.is_kept = !is_gone;
        self.next += 1;
        Ok(())
    }
}
