//! What stays of a file is as it was, and nothing is left of what goes.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Int64Array, ListArray, ListBuilder,
    RecordBatch, StringArray, StringBuilder, StructArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use arrow::ipc::CompressionType;
use arrow::ipc::reader::{FileReader, StreamReader};
use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int96, Int96Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;

const GONE: &str = "person-who-goes";

fn content(format: Format, name: &str, options: &[(&str, &str)], bytes: Vec<u8>) -> Content {
    let options: BTreeMap<String, String> =
        options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Content {
        name: name.into(),
        settings: Settings::parse(format, &options).unwrap(),
        bytes: Bytes::from(bytes),
        personal: PersonalColumns::default(),
    }
}

fn mask(gone: &[bool]) -> BooleanBuffer {
    BooleanBuffer::from_iter(gone.iter().copied())
}

async fn text(
    format: Format,
    name: &str,
    options: &[(&str, &str)],
    text: &str,
    gone: &[bool],
) -> Result<String, Refusal> {
    let content = content(format, name, options, text.as_bytes().to_vec());
    let kept = without(content, mask(gone)).await.unwrap()?;
    Ok(String::from_utf8(kept.to_vec()).unwrap())
}

#[tokio::test]
async fn lines_that_stay_are_copied_byte_by_byte() {
    let csv = Format::Csv;
    for (name, options, before, gone, after) in [
        ("a.csv", vec![], "id,n\nann,1\nbob,2\n", vec![true, false], "id,n\nbob,2\n"),
        ("a.csv", vec![], "id,n\nann,1\nbob,2", vec![false, true], "id,n\nann,1\n"),
        // Windows line ends, quotes with line ends and quotes in them, a BOM, a blank line.
        (
            "a.csv",
            vec![("multiline", "true")],
            "\u{feff}id,n\r\n\"a\r\n\"\"x\"\"\",1\r\nbob,\"2\"\r\n\r\ncyd,3\r\n",
            vec![true, false, false],
            "\u{feff}id,n\r\nbob,\"2\"\r\n\r\ncyd,3\r\n",
        ),
        (
            "a.csv",
            vec![("header", "false"), ("delimiter", ";"), ("quote", "'"), ("comment", "#")],
            "ann;'1;\n'\n#of bob\nbob;2\n#end\n",
            vec![false, true],
            "ann;'1;\n'\n#end\n",
        ),
        ("a.tsv", vec![], "id\tn\nann,x\t1\nbob\t2\n", vec![true, false], "id\tn\nbob\t2\n"),
    ] {
        assert_eq!(text(csv, name, &options, before, &gone).await, Ok(after.into()), "{before:?}");
    }
    let json = Format::Json;
    for (before, gone, after) in [
        ("{\"id\":1}\n{\"id\": 2 }\n", [true, false], "{\"id\": 2 }\n"),
        ("{\"id\":1}\n{\"id\": 2 }\n", [false, true], "{\"id\":1}\n"),
        ("{\"t\":\"}\\\"\\n{\"}\n\n{\"a\":[{}]}", [true, false], "{\"a\":[{}]}"),
    ] {
        assert_eq!(text(json, "a.json", &[], before, &gone).await, Ok(after.into()), "{before}");
    }
}

#[tokio::test]
async fn a_file_of_another_number_of_rows_is_refused() {
    let text =
        async |format, before: &str, gone: &[bool]| text(format, "a", &[], before, gone).await;
    assert_eq!(text(Format::Csv, "id\nann\nbob\n", &[true]).await, Err(NOT_WHOLE));
    assert_eq!(text(Format::Csv, "id\nann\n", &[true, false]).await, Err(NOT_WHOLE));
    assert_eq!(text(Format::Json, "{}\n{}\n", &[true]).await, Err(NOT_WHOLE));
    assert_eq!(text(Format::Json, "{}\n{", &[true, false]).await, Err(NOT_WHOLE));
    assert_eq!(text(Format::Parquet, "no Parquet", &[true]).await, Err(NOT_WHOLE));
    assert_eq!(text(Format::Arrow, "no Arrow", &[true]).await, Err(NOT_WHOLE));
    assert!(text(Format::Avro, "Obj", &[true]).await.is_err());
}

#[tokio::test]
async fn compressed_text_stays_compressed() {
    for (name, compression) in [
        ("a.csv.gz", CompressionTypeVariant::GZIP),
        ("a.csv.bz2", CompressionTypeVariant::BZIP2),
        ("a.csv.xz", CompressionTypeVariant::XZ),
        ("a.csv.zst", CompressionTypeVariant::ZSTD),
    ] {
        let before = packed(Bytes::from_static(b"id\nann\nbob\n"), compression).await.unwrap();
        let content = content(Format::Csv, name, &[], before.to_vec());
        let after = without(content, mask(&[true, false])).await.unwrap().unwrap();
        let plain = super::text::unpacked(&after, compression).unwrap();
        assert_eq!(plain.as_ref(), b"id\nbob\n", "{name}");
    }
}

/// Ids with one that goes, a list of texts, a struct; some of it NULL.
fn batch() -> RecordBatch {
    let ids: ArrayRef =
        Arc::new(StringArray::from(vec![Some("ann"), Some(GONE), None, Some("cyd")]));
    let tags: ArrayRef = {
        let mut tags = ListBuilder::new(StringBuilder::new());
        tags.append_value([Some("a"), None]);
        tags.append_value([Some(GONE), Some("b")]);
        tags.append_null();
        tags.append_value(Vec::<Option<&str>>::new());
        Arc::new(tags.finish())
    };
    let inner: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), Some(3), None]));
    let of = StructArray::from(vec![(Arc::new(Field::new("n", DataType::Int64, true)), inner)]);
    let fields = vec![
        Field::new("id", DataType::Utf8, true)
            .with_metadata([("note".to_owned(), "kept".to_owned())].into()),
        Field::new("tags", tags.data_type().clone(), true),
        Field::new("of", of.data_type().clone(), true),
    ];
    let schema = Schema::new(fields).with_metadata([("who".to_owned(), "us".to_owned())].into());
    RecordBatch::try_new(Arc::new(schema), vec![ids, tags, Arc::new(of)]).unwrap()
}

const BATCH_GONE: [bool; 4] = [false, true, false, false];

fn kept() -> RecordBatch {
    let stays = BooleanArray::from_iter(BATCH_GONE.map(|gone| Some(!gone)));
    filter_record_batch(&batch(), &stays).unwrap()
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn parquet_keeps_its_schema_groups_and_compression() {
    let notes = vec![KeyValue::new("writer".into(), "somebody".to_owned())];
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(4))
        .set_key_value_metadata(Some(notes))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch().schema(), Some(properties)).unwrap();
    for _ in 0..3 {
        writer.write(&batch()).unwrap();
    }
    let before = writer.into_inner().unwrap();
    // The second row group goes as a whole.
    let gone = [&BATCH_GONE[..], &[true; 4], &BATCH_GONE].concat();
    let content = content(Format::Parquet, "a.parquet", &[], before.clone());
    let after = without(content, mask(&gone)).await.unwrap().unwrap();
    assert!(has(&before, GONE) && !has(&after, GONE));
    let metadata =
        |bytes: &Bytes| SerializedFileReader::new(bytes.clone()).unwrap().metadata().clone();
    let (old, new) = (metadata(&Bytes::from(before.clone())), metadata(&after));
    assert_eq!(old.file_metadata().schema(), new.file_metadata().schema());
    assert_eq!(old.file_metadata().key_value_metadata(), new.file_metadata().key_value_metadata());
    let groups: Vec<i64> = new.row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [3, 3]);
    for column in new.row_group(0).columns() {
        assert!(matches!(column.compression(), Compression::ZSTD(_)));
    }
    let (old, new) = (all(Bytes::from(before)), all(after));
    let stays = BooleanArray::from_iter(gone.iter().map(|gone| Some(!gone)));
    assert_eq!(new, filter_record_batch(&old, &stays).unwrap());
}

/// The rows of a Parquet file.
fn all(file: Bytes) -> RecordBatch {
    let rows = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let rows: Vec<RecordBatch> = rows.map(Result::unwrap).collect();
    arrow::compute::concat_batches(&rows[0].schema(), &rows).unwrap()
}

#[tokio::test]
async fn parquet_keeps_physical_types_that_nobody_writes_any_more() {
    let schema = "message old { required int96 at; optional binary who (utf8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let times = [1, 2, 3].map(|at| Int96::from(vec![at, 0, 2_450_000]));
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int96Type>().write_batch(&times, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let names = [GONE, "bob"].map(ByteArray::from);
    let typed = column.typed::<ByteArrayType>();
    typed.write_batch(&names, Some(&[1, 0, 1]), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    let before = writer.into_inner().unwrap();
    let content = content(Format::Parquet, "old.parquet", &[], before);
    let after = without(content, mask(&[true, false, false])).await.unwrap().unwrap();
    assert!(!has(&after, GONE));
    let file = SerializedFileReader::new(after).unwrap();
    let rows: Vec<String> =
        file.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
    assert_eq!(rows.len(), 2);
    assert!(rows[0].contains("null") && rows[1].contains("bob"), "{rows:?}");
}

#[tokio::test]
async fn arrow_keeps_its_form_and_compression() {
    let schema = batch().schema();
    let compressions = [None, Some(CompressionType::ZSTD), Some(CompressionType::LZ4_FRAME)];
    for compression in compressions {
        let options = || IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let mut file = FileWriter::try_new_with_options(Vec::new(), &schema, options()).unwrap();
        file.write_metadata("writer", "somebody");
        let mut stream =
            StreamWriter::try_new_with_options(Vec::new(), &schema, options()).unwrap();
        for _ in 0..2 {
            file.write(&batch()).unwrap();
            stream.write(&batch()).unwrap();
        }
        for (is_file, before) in
            [(true, file.into_inner().unwrap()), (false, stream.into_inner().unwrap())]
        {
            let gone = [BATCH_GONE, BATCH_GONE].concat();
            let content = content(Format::Arrow, "a.arrow", &[], before);
            let after = without(content, mask(&gone)).await.unwrap().unwrap();
            assert!(!has(&after, GONE));
            let rows: Vec<RecordBatch> = match is_file {
                true => {
                    let reader = FileReader::try_new(Cursor::new(after), None).unwrap();
                    assert_eq!(reader.custom_metadata()["writer"], "somebody");
                    reader.map(Result::unwrap).collect()
                }
                false => {
                    let reader = StreamReader::try_new(Cursor::new(after), None).unwrap();
                    reader.map(Result::unwrap).collect()
                }
            };
            assert_eq!(rows, [kept(), kept()], "{compression:?} {is_file}");
        }
    }
}

#[tokio::test]
async fn arrow_with_values_beside_its_rows_is_refused() {
    let words: DictionaryArray<Int32Type> = [GONE, "bob"].into_iter().collect();
    let nested = ListArray::new_null(Arc::new(Field::new_list_field(DataType::Utf8View, true)), 2);
    for column in [Arc::new(words) as ArrayRef, Arc::new(nested)] {
        let batch = RecordBatch::try_from_iter([("id", column)]).unwrap();
        let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        let bytes = writer.into_inner().unwrap();
        let content = content(Format::Arrow, "a.arrow", &[], bytes);
        assert!(without(content, mask(&[true, false])).await.unwrap().is_err());
    }
}
