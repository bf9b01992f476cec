//! Each format, written and read back or compared with what a person would expect.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, ListArray, StringArray};
use arrow::datatypes::Int64Type;
use arrow::ipc::reader::StreamReader;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

fn batch() -> RecordBatch {
    let name: ArrayRef = Arc::new(StringArray::from(vec![Some("Ann, \"A\""), None, Some("")]));
    let score: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.5), None, Some(12.0)]));
    RecordBatch::try_from_iter_with_nullable([("name", name, true), ("score", score, true)])
        .unwrap()
}

fn written(format: Format, batches: &[RecordBatch], style: TableStyle) -> (Vec<u8>, Written) {
    let mut bytes = Vec::new();
    let schema = batches[0].schema();
    let mut sink = sink(format, schema, Box::new(&mut bytes), style).unwrap();
    for batch in batches {
        if !sink.write(batch).unwrap() {
            break;
        }
    }
    let written = sink.finish().unwrap();
    (bytes, written)
}

fn text(format: Format, batches: &[RecordBatch], style: TableStyle) -> String {
    String::from_utf8(written(format, batches, style).0).unwrap()
}

#[test]
fn csv_tells_null_from_the_empty_text() {
    assert_eq!(
        text(Format::Csv, &[batch()], TableStyle::default()),
        "name,score\n\"Ann, \"\"A\"\"\",0.5\n,\n\"\",12.0\n"
    );
}

#[test]
fn csv_writes_nested_values_as_text() {
    let list: ArrayRef =
        Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), Some(2)])]));
    let batch = RecordBatch::try_from_iter([("items", list)]).unwrap();
    assert_eq!(text(Format::Csv, &[batch], TableStyle::default()), "items\n\"[1, 2]\"\n");
}

#[test]
fn json_is_an_array_and_null_is_written() {
    let text = text(Format::Json, &[batch(), batch()], TableStyle::default());
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value.as_array().unwrap().len(), 6);
    assert!(value[1]["name"].is_null());
    assert_eq!(value[1].as_object().unwrap().len(), 2);
}

#[test]
fn json_of_no_rows_is_an_empty_array() {
    assert_eq!(text(Format::Json, &[batch().slice(0, 0)], TableStyle::default()).trim(), "[]");
}

#[test]
fn ndjson_is_one_object_a_line() {
    let text = text(Format::Ndjson, &[batch()], TableStyle::default());
    assert_eq!(text.lines().count(), 3);
    assert_eq!(text.lines().nth(1), Some("{\"name\":null,\"score\":null}"));
}

#[test]
fn parquet_and_arrow_can_be_read_back() {
    let (bytes, done) = written(Format::Parquet, &[batch()], TableStyle::default());
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
    let read: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    assert_eq!((read, done.rows), (vec![batch()], 3));

    let (bytes, _) = written(Format::Arrow, &[batch()], TableStyle::default());
    let read: Vec<_> =
        StreamReader::try_new(Cursor::new(bytes), None).unwrap().map(Result::unwrap).collect();
    assert_eq!(read, [batch()]);
}

#[test]
fn a_table_shows_null_and_puts_numbers_to_the_right() {
    assert_eq!(
        text(Format::Table, &[batch()], TableStyle::default()),
        "┌──────────┬───────┐\n\
         │ name     │ score │\n\
         ├──────────┼───────┤\n\
         │ Ann, \"A\" │   0.5 │\n\
         │ NULL     │  NULL │\n\
         │          │  12.0 │\n\
         └──────────┴───────┘\n"
    );
}

#[test]
fn a_table_for_a_terminal_stops_at_its_limit() {
    let style = TableStyle { rows_max: Some(2), ..TableStyle::default() };
    let (bytes, done) = written(Format::Table, &[batch(), batch()], style);
    assert_eq!(done, Written { rows: 2, cut: true });
    assert_eq!(String::from_utf8(bytes).unwrap().lines().count(), 6);
}

#[test]
fn a_long_table_off_a_terminal_is_whole() {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..2500));
    let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
    let (bytes, done) = written(Format::Table, &[batch], TableStyle::default());
    assert_eq!(done, Written { rows: 2500, cut: false });
    assert_eq!(String::from_utf8(bytes).unwrap().lines().count(), 2500 + 4);
}

#[test]
fn a_table_without_rows_has_its_head() {
    let text = text(Format::Table, &[batch().slice(0, 0)], TableStyle::default());
    assert!(text.contains("name") && text.lines().count() == 4, "{text}");
}

#[test]
fn the_format_follows_the_name_of_the_file() {
    assert_eq!(format_of("a/b.PARQUET".as_ref()), Some(Format::Parquet));
    assert_eq!(format_of("a/b.jsonl".as_ref()), Some(Format::Ndjson));
    assert_eq!(format_of("a/b".as_ref()), None);
}

#[test]
fn a_file_has_its_name_only_when_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.csv");
    let destination = Destination::File(path.clone());
    destination.open().unwrap().write_all(b"x").unwrap();
    assert!(!path.exists());
    destination.publish().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"x");
    destination.open().unwrap();
    destination.abandon();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
