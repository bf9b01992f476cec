//! Arrow IPC without some rows, in the form and the compression that the file has.
//!
//! Types whose values lie beside the rows that name them (dictionaries, views, runs, unions) are
//! refused: a row that goes would leave its values there.

use std::io::Cursor;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use arrow::ipc::{CompressionType, root_as_message};
use bytes::Bytes;

use super::{Mask, NOT_WHOLE, Refusal};

/// How the file form begins, with its padding; the stream form has nothing in front.
const MAGIC: &[u8] = b"ARROW1\0\0";
/// What stands before the length of a message.
const CONTINUES: u32 = u32::MAX;

/// An Arrow file without the rows that go.
pub(super) fn written(content: &Bytes, mask: &mut Mask<'_>) -> Result<Vec<u8>, Refusal> {
    let options = IpcWriteOptions::default().try_with_compression(compression(content));
    let options = options.map_err(|_| NOT_WHOLE)?;
    let input = Cursor::new(content.clone());
    if content.starts_with(MAGIC) {
        let reader = FileReader::try_new(input, None).map_err(|_| NOT_WHOLE)?;
        let schema = reader.schema();
        check(&schema)?;
        let notes = reader.custom_metadata().clone();
        let writer = FileWriter::try_new_with_options(Vec::new(), &schema, options);
        let mut writer = writer.map_err(|_| NOT_WHOLE)?;
        for (key, note) in notes {
            writer.write_metadata(key, note);
        }
        copy(reader, mask, |batch| writer.write(batch))?;
        return writer.into_inner().map_err(|_| NOT_WHOLE);
    }
    let reader = StreamReader::try_new(input, None).map_err(|_| NOT_WHOLE)?;
    let schema = reader.schema();
    check(&schema)?;
    let writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options);
    let mut writer = writer.map_err(|_| NOT_WHOLE)?;
    copy(reader, mask, |batch| writer.write(batch))?;
    writer.into_inner().map_err(|_| NOT_WHOLE)
}

fn copy(
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
    mask: &mut Mask<'_>,
    mut write: impl FnMut(&RecordBatch) -> Result<(), ArrowError>,
) -> Result<(), Refusal> {
    for batch in batches {
        let batch = batch.map_err(|_| NOT_WHOLE)?;
        let stays = (0..batch.num_rows()).map(|_| mask.take().map(|is_gone| Some(!is_gone)));
        let stays = stays.collect::<Result<BooleanArray, Refusal>>()?;
        let kept = filter_record_batch(&batch, &stays).map_err(|_| NOT_WHOLE)?;
        if kept.num_rows() > 0 {
            write(&kept).map_err(|_| NOT_WHOLE)?;
        }
    }
    Ok(())
}

/// Whether a file of these columns can be written without some of its rows.
fn check(schema: &Schema) -> Result<(), Refusal> {
    match schema.fields().iter().any(|field| lies_apart(field.data_type())) {
        true => Err("it has dictionaries, views, runs or unions, which keep what rows named"),
        false => Ok(()),
    }
}

/// Whether a type's values lie beside the rows that name them.
fn lies_apart(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(..)
        | DataType::Utf8View
        | DataType::BinaryView
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::RunEndEncoded(..)
        | DataType::Union(..) => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => lies_apart(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| lies_apart(field.data_type())),
        _ => false,
    }
}

/// How the first record batch is compressed.
fn compression(content: &[u8]) -> Option<CompressionType> {
    let mut at = if content.starts_with(MAGIC) { MAGIC.len() } else { 0 };
    loop {
        let mut length = number(content, &mut at)?;
        if length == CONTINUES {
            length = number(content, &mut at)?;
        }
        // The end of a stream.
        let length = usize::try_from(length).ok().filter(|length| *length > 0)?;
        let end = at.checked_add(length)?;
        let message = root_as_message(content.get(at..end)?).ok()?;
        if let Some(batch) = message.header_as_record_batch() {
            return batch.compression().map(|compression| compression.codec());
        }
        at = end.checked_add(usize::try_from(message.bodyLength()).ok()?)?;
    }
}

/// The number at a place, behind which the place is then.
fn number(content: &[u8], at: &mut usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    let bytes: [u8; 4] = content.get(*at..end)?.try_into().ok()?;
    *at = end;
    Some(u32::from_le_bytes(bytes))
}
