//! Each format: one file, a folder, its options.

use std::fs::File;

use arrow::ipc::writer::{FileWriter, StreamWriter};
use datafusion::arrow_avro::writer::AvroWriter;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use futures::{StreamExt, TryStreamExt};
use parquet::file::properties::WriterProperties;

use super::*;
use crate::Pii;
use crate::lake::Column;
use arrow::datatypes::DataType;

#[tokio::test]
async fn parquet_pushes_filters_projections_and_limits_into_the_files() {
    let f = Fixture::new();
    f.parquet("t/a.parquet", vec![("id", ints(&[1, 2, 3])), ("name", texts(&["a", "b", "c"]))]);
    f.parquet("t/b.parquet", vec![("id", ints(&[4, 5])), ("name", texts(&["d", "e"]))]);
    let t = table("t/", Format::Parquet);
    let rows = f.query(&t, "SELECT name FROM t WHERE id > 2 ORDER BY id").await.unwrap();
    assert_eq!(rows, ["c", "d", "e"]);
    let plan = f.plan(&t, "SELECT name FROM t WHERE id > 2").await;
    assert!(plan.contains("predicate=id@"), "{plan}");
    assert!(!plan.contains("FilterExec"), "{plan}");
    assert!(plan.contains("projection=[name]"), "{plan}");
    let rows = f.query(&t, "SELECT count(*), min(id), max(name) FROM t").await.unwrap();
    assert_eq!(rows, ["5,1,e"]);
    let plan = f.plan(&t, "SELECT count(*) FROM t").await;
    assert!(!plan.contains("DataSourceExec: file_groups"), "statistics know the count: {plan}");
    assert_eq!(f.query(&t, "SELECT id FROM t LIMIT 2").await.unwrap().len(), 2);
    let one = table("t/b.parquet", Format::Parquet);
    assert_eq!(f.query(&one, "SELECT id FROM t ORDER BY id").await.unwrap(), ["4", "5"]);
}

#[tokio::test]
async fn csv_with_and_without_a_header() {
    let f = Fixture::new();
    f.write("h/a.csv", "id,name,at\n1,Ann,2024-05-01\n2,,2024-05-02\n");
    let t = table("h/", Format::Csv);
    let columns = f.columns(&t).await.unwrap();
    assert_eq!(columns, ["id Int64", "name Utf8", "at Date32"]);
    let rows = f.query(&t, "SELECT * FROM t ORDER BY id").await.unwrap();
    assert_eq!(rows, ["1,Ann,2024-05-01", "2,,2024-05-02"]);
    assert_eq!(f.query(&t, "SELECT count(*) FROM t").await.unwrap(), ["2"]);
    assert_eq!(f.query(&t, "SELECT id FROM t WHERE name IS NULL").await.unwrap(), ["2"]);

    f.write("n/a.csv", "1;x\n2;y\n");
    let t = table("n/", Format::Csv).with_option("header", "false").with_option("delimiter", ";");
    let rows = f.query(&t, "SELECT column_2, column_1 FROM t ORDER BY column_1").await.unwrap();
    assert_eq!(rows, ["x,1", "y,2"]);
    let named = t.with_columns(vec![
        Column::new("a", DataType::Float64),
        Column::new("b", DataType::Utf8),
        Column::new("c", DataType::Int32),
    ]);
    assert_eq!(
        f.query(&named, "SELECT a, b, c FROM t ORDER BY a").await.unwrap(),
        ["1.0,x,", "2.0,y,"]
    );
}

#[tokio::test]
async fn identifiers_in_csv_are_text_and_keep_their_zeros() {
    let f = Fixture::new();
    f.write("t/a.csv", "phone,n\n0301234567,1\n007,2\n");
    f.write("t/b.csv", "phone,n\n+49 30 1,3\n");
    let mut calls = table("t/", Format::Csv);
    calls.pii = Some(Pii {
        columns: vec!["phone".into()],
        key: "web".into(),
        key_id: None,
        table: "calls_pii".into(),
    });
    assert_eq!(f.columns(&calls).await.unwrap(), ["phone Utf8", "n Int64"]);
    let rows = f.query(&calls, "SELECT phone FROM t ORDER BY n").await.unwrap();
    assert_eq!(rows, ["0301234567", "007", "+49 30 1"]);
    // Types that a person gave are those.
    let given = ["phone", "n"].map(|name| Column::new(name, DataType::Int64)).to_vec();
    f.write("u/a.csv", "phone,n\n0301234567,1\n");
    let given = LakeTable { location: "u/".into(), ..calls }.with_columns(given);
    assert_eq!(f.query(&given, "SELECT phone FROM t").await.unwrap(), ["301234567"]);
}

#[tokio::test]
async fn csv_options_quote_comment_null_newline_and_tab() {
    let f = Fixture::new();
    f.write("t/a.csv", "# made by hand\nid,text\n1,'a,b'\n2,NA\n3,''\nNA,'two\nlines'\n");
    let t = table("t/", Format::Csv)
        .with_option("quote", "'")
        .with_option("comment", "#")
        .with_option("null_value", "NA")
        .with_option("newlines_in_values", "true");
    assert_eq!(f.columns(&t).await.unwrap(), ["id Int64", "text Utf8"]);
    let rows = f
        .query(&t, "SELECT id, replace(text, chr(10), '/') FROM t ORDER BY id NULLS LAST")
        .await
        .unwrap();
    assert_eq!(rows, ["1,a,b", "2,", "3,", ",two/lines"]);
    let raw = table("t/", Format::Csv).with_option("sample_rows", "0").with_option("quote", "'");
    let raw = raw.with_option("comment", "#").with_option("newlines_in_values", "true");
    assert_eq!(f.columns(&raw).await.unwrap(), ["id Utf8", "text Utf8"]);
    f.write("v/a.tsv", "id\tname\n1\tx,y\n");
    let rows = f.query(&table("v/", Format::Csv), "SELECT name FROM t").await.unwrap();
    assert_eq!(rows, ["x,y"]);
}

#[tokio::test]
async fn a_large_csv_is_read_in_parts() {
    let mut f = Fixture::new();
    f.config.options_mut().optimizer.repartition_file_min_size = 100_000;
    let mut text = String::from("id,name\n");
    for id in 0..200_000 {
        text.push_str(&format!("{id},name of {id}\n"));
    }
    f.write("t/a.csv", text);
    let t = table("t/", Format::Csv);
    let plan = f.plan(&t, "SELECT sum(id) FROM t").await;
    assert!(plan.contains("3 groups"), "{plan}");
    let rows = f.query(&t, "SELECT count(*), sum(id), count(DISTINCT name) FROM t").await.unwrap();
    assert_eq!(rows, ["200000,19999900000,200000"]);
}

#[tokio::test]
async fn ndjson_finds_columns_by_name() {
    let f = Fixture::new();
    f.write("t/a.ndjson", "{\"id\":1,\"tags\":[\"x\",\"y\"],\"at\":{\"city\":\"Ulm\"}}\n");
    f.write("t/b.jsonl", "{\"score\":0.5,\"id\":2}\n{\"id\":3,\"score\":1}\n");
    let t = table("t/", Format::Json);
    let rows =
        f.query(&t, "SELECT id, score, tags[1], at['city'] FROM t ORDER BY id").await.unwrap();
    assert_eq!(rows, ["1,,x,Ulm", "2,0.5,,", "3,1.0,,"]);
}

async fn zip(text: &str) -> Vec<u8> {
    let bytes = bytes::Bytes::copy_from_slice(text.as_bytes());
    let plain = futures::stream::once(async move { Ok(bytes) }).boxed();
    let packed = FileCompressionType::GZIP.convert_to_compress_stream(plain).unwrap();
    packed.try_collect::<Vec<_>>().await.unwrap().concat()
}

#[tokio::test]
async fn compressed_text_is_told_by_its_name_or_an_option() {
    let f = Fixture::new();
    f.write("t/a.csv.gz", zip("id,x\n1,a\n").await);
    f.write("t/b.csv", "x,id\nb,2\n");
    f.write("j/a.json.gz", zip("{\"id\":7}\n").await);
    f.write("o/a.csv", zip("id\n9\n").await);
    let rows = f.query(&table("t/", Format::Csv), "SELECT id, x FROM t ORDER BY id").await.unwrap();
    assert_eq!(rows, ["1,a", "2,b"]);
    assert_eq!(f.query(&table("j/", Format::Json), "SELECT id FROM t").await.unwrap(), ["7"]);
    let t = table("o/", Format::Csv).with_option("compression", "gzip");
    assert_eq!(f.query(&t, "SELECT id FROM t").await.unwrap(), ["9"]);
}

#[tokio::test]
async fn avro_files_are_read_by_their_own_columns() {
    let f = Fixture::new();
    let put = |name: &str, batch: RecordBatch| {
        let file = File::create(f.path(name)).unwrap();
        let mut writer = AvroWriter::new(file, batch.schema().as_ref().clone()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
    };
    put("t/a.avro", batch(vec![("id", ints(&[1, 2])), ("name", texts(&["a", "b"]))]));
    put("t/b.avro", batch(vec![("name", texts(&["c"])), ("id", ints(&[3]))]));
    put("t/c.avro", batch(vec![("id", ints(&[4]))]));
    let t = table("t/", Format::Avro);
    let rows = f.query(&t, "SELECT id, name FROM t ORDER BY id").await.unwrap();
    assert_eq!(rows, ["1,a", "2,b", "3,c", "4,"]);
    assert_eq!(f.query(&t, "SELECT count(*) FROM t").await.unwrap(), ["4"]);
    assert_eq!(f.query(&t, "SELECT name FROM t WHERE id = 4").await.unwrap(), [""]);
}

#[tokio::test]
async fn arrow_files_and_streams_may_be_mixed() {
    let f = Fixture::new();
    let first = batch(vec![("id", ints(&[1])), ("name", texts(&["a"]))]);
    let second = batch(vec![("name", texts(&["b", "c"])), ("id", ints(&[2, 3]))]);
    let mut writer =
        FileWriter::try_new(File::create(f.path("t/a.arrow")).unwrap(), &first.schema()).unwrap();
    writer.write(&first).unwrap();
    writer.finish().unwrap();
    let mut writer =
        StreamWriter::try_new(File::create(f.path("t/b.arrows")).unwrap(), &second.schema())
            .unwrap();
    writer.write(&second).unwrap();
    writer.finish().unwrap();
    let t = table("t/", Format::Arrow);
    let rows = f.query(&t, "SELECT id, name FROM t ORDER BY id").await.unwrap();
    assert_eq!(rows, ["1,a", "2,b", "3,c"]);
    assert_eq!(f.query(&t, "SELECT count(*) FROM t").await.unwrap(), ["3"]);
    assert_eq!(f.query(&t, "SELECT name FROM t WHERE id = 2").await.unwrap(), ["b"]);
}

#[tokio::test]
async fn a_parquet_file_is_cut_where_it_has_row_groups_for_more_cores() {
    let mut f = Fixture::new();
    f.config.options_mut().optimizer.repartition_file_min_size = 1;
    f.config = f.config.with_batch_size(1);
    let rows = batch(vec![("n", ints(&[1, 2, 3, 4, 5, 6]))]);
    for (name, most, groups) in [("one", 6, "1 group:"), ("three", 2, "3 groups:")] {
        let properties =
            WriterProperties::builder().set_max_row_group_row_count(Some(most)).build();
        let file = File::create(f.path(&format!("{name}/a.parquet"))).unwrap();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        let table = table(&format!("{name}/"), Format::Parquet);
        // The first reading leaves the footer at hand.
        assert_eq!(f.query(&table, "SELECT sum(n) FROM t").await.unwrap(), ["21"]);
        let plan = f.plan(&table, "SELECT n FROM t").await;
        assert!(plan.contains(groups), "{name}: {plan}");
        assert_eq!(f.query(&table, "SELECT sum(n) FROM t").await.unwrap(), ["21"]);
    }
}
