//! Things that go wrong: each error names the URL, and other tables go on.

use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::writer::FileWriter;

use super::*;
use crate::error::Class;
use crate::lake::Column;

#[tokio::test]
async fn an_empty_or_missing_folder_is_named() {
    let f = Fixture::new();
    fs::create_dir(f.path("empty")).unwrap();
    f.write("other/readme.txt", "x");
    for location in ["empty/", "missing/", "missing.parquet", "other"] {
        let error = f.error(&table(location, Format::Parquet), "SELECT 1 FROM t").await;
        assert_eq!(error.code(), "ATT-5005", "{error}");
        assert!(error.to_string().contains(location.trim_end_matches('/')), "{error}");
    }
}

#[tokio::test]
async fn a_table_whose_last_file_goes_keeps_its_columns_and_is_empty() {
    let f = Fixture::new();
    let t = table("t/", Format::Csv);
    f.write("t/day=1/a.csv", "id,name\n1,a\n");
    assert_eq!(f.query(&t, "SELECT count(*) FROM t").await.unwrap(), ["1"]);
    fs::remove_file(f.path("t/day=1/a.csv")).unwrap();
    for forgets in [false, true] {
        if forgets {
            let others = Tables::new(Arc::clone(&f.stores));
            f.tables.forget(&f.place, &others);
            // What one knows, the other one learns.
            others.forget(&f.place, &f.tables);
            let state = f.session().state();
            let opened = others.open(Some(&f.place), &t, &state).await.unwrap();
            assert_eq!(opened.schema().fields().len(), 3);
        }
        assert_eq!(f.query(&t, "SELECT count(*) FROM t WHERE id > 0").await.unwrap(), ["0"]);
        assert_eq!(f.columns(&t).await.unwrap(), ["id Int64", "name Utf8", "day Int64"]);
    }
    // It may come back as another one.
    fs::remove_dir(f.path("t/day=1")).unwrap();
    f.write("t/b.csv", "who\nann\n");
    assert_eq!(f.query(&t, "SELECT who FROM t").await.unwrap(), ["ann"]);
}

#[tokio::test]
async fn a_truncated_or_foreign_parquet_file_is_named() {
    let f = Fixture::new();
    f.parquet("t/good.parquet", vec![("id", ints(&[1, 2, 3]))]);
    let bytes = fs::read(f.path("t/good.parquet")).unwrap();
    let t = table("t/", Format::Parquet);
    let damaged: [&[u8]; 4] =
        [&bytes[..bytes.len() / 2], b"PAR1", b"id,name\n1,x\n", &bytes[..bytes.len() - 1]];
    for content in damaged {
        f.write("t/bad.parquet", content);
        let error = f.error(&t, "SELECT id FROM t").await;
        assert_eq!(error.code(), "ATT-5006", "{error}");
        assert!(error.to_string().contains("t/bad.parquet"), "{error}");
    }
    // The footer is good but a page is not: this is found while reading.
    let mut torn = bytes.clone();
    torn[4..40].fill(0xff);
    f.write("t/bad.parquet", &torn);
    let error = f.error(&t, "SELECT id FROM t").await;
    assert_eq!(error.code(), "ATT-5006", "{error}");
    assert!(error.to_string().contains("t/bad.parquet"), "{error}");
    fs::remove_file(f.path("t/bad.parquet")).unwrap();
    assert_eq!(f.query(&t, "SELECT sum(id) FROM t").await.unwrap(), ["6"]);
}

#[tokio::test]
async fn a_bad_csv_row_is_named_with_its_line_and_without_its_value() {
    let f = Fixture::new();
    f.write("t/a.csv", "id,name\n1,a\n");
    let mut long = String::from("id,name\n");
    (0..3_000).for_each(|id| long.push_str(&format!("{id},x\n")));
    f.write("t/b.csv", format!("{long}secret,x\n"));
    let t = table("t/", Format::Csv);
    let error = f.error(&t, "SELECT sum(id) FROM t").await;
    assert_eq!(error.class(), Class::Corrupt);
    let text = error.to_string();
    assert!(text.contains("t/b.csv") && text.contains("line 3002"), "{text}");
    assert!(text.contains("Int64") && !text.contains("secret"), "{text}");
    // Columns that are not asked for are not parsed.
    assert_eq!(f.query(&t, "SELECT count(name) FROM t").await.unwrap(), ["3002"]);

    f.write("t/b.csv", format!("{long}7,x,too many\n"));
    let text = f.error(&t, "SELECT sum(id) FROM t").await.to_string();
    assert!(text.contains("t/b.csv") && text.contains("line 3002"), "{text}");
    f.write("t/b.csv", "id,name\n7\n");
    let text = f.error(&t, "SELECT sum(id) FROM t").await.to_string();
    assert!(text.contains("t/b.csv"), "{text}");
    // Two bytes that no encoding has so, and Müller in Latin-1.
    for content in [&b"id,name\n7,\xff\xfe\n"[..], b"id,name\n7,M\xfcller\n"] {
        f.write("t/b.csv", content);
        let error = f.error(&t, "SELECT name FROM t").await;
        let text = error.to_string();
        assert_eq!(error.code(), "ATT-5006", "{text}");
        assert!(text.contains("t/b.csv") && !text.contains("ller"), "{text}");
    }
    f.write("t/b.csv", "id,name\n7,Müller\n");
    assert_eq!(f.query(&t, "SELECT name FROM t WHERE id = 7").await.unwrap(), ["Müller"]);
}

#[tokio::test]
async fn a_csv_header_without_any_given_column_is_refused() {
    let f = Fixture::new();
    f.write("t/a.csv", "x,y\n1,2\n");
    let t = table("t/", Format::Csv).with_columns(vec![Column::new("id", DataType::Int64)]);
    let text = f.error(&t, "SELECT id FROM t").await.to_string();
    assert!(text.contains("a.csv") && text.contains("id"), "{text}");
    f.write("t/a.csv", "x,x\n1,2\n");
    let text = f.error(&table("t/", Format::Csv), "SELECT x FROM t").await.to_string();
    assert!(text.contains("a.csv") && text.contains("named x"), "{text}");
}

#[tokio::test]
async fn damaged_files_of_the_other_formats_are_named() {
    let f = Fixture::new();
    let cases: [(&str, Format, &[u8]); 5] = [
        ("json/a.json", Format::Json, b"{\"id\":1}\n{\"id\":\n"),
        ("json2/a.json", Format::Json, b"[1,2]\n"),
        ("avro/a.avro", Format::Avro, b"Obj\x01nonsense"),
        ("arrow/a.arrow", Format::Arrow, b"ARROW1\0\0nonsense"),
        ("arrow2/a.arrow", Format::Arrow, b"x"),
    ];
    for (name, format, content) in cases {
        f.write(name, content);
        let folder = name.split('/').next().unwrap();
        let error = f.error(&table(&format!("{folder}/"), format), "SELECT * FROM t").await;
        assert_eq!(error.code(), "ATT-5006", "{name}: {error}");
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
    let twice = Arc::new(Schema::new(vec![
        Field::new("x", DataType::Int64, true),
        Field::new("x", DataType::Int64, true),
    ]));
    let rows = RecordBatch::try_new(Arc::clone(&twice), vec![ints(&[1]), ints(&[2])]).unwrap();
    let file = fs::File::create(f.path("arrow3/a.arrow")).unwrap();
    let mut writer = FileWriter::try_new(file, &twice).unwrap();
    writer.write(&rows).unwrap();
    writer.finish().unwrap();
    let text = f.error(&table("arrow3/", Format::Arrow), "SELECT x FROM t").await.to_string();
    assert!(text.contains("arrow3/a.arrow") && text.contains("named x"), "{text}");
    let whole = fs::read(f.path("arrow3/a.arrow")).unwrap();
    f.write("arrow3/a.arrow", &whole[..whole.len() - 9]);
    let text = f.error(&table("arrow3/", Format::Arrow), "SELECT x FROM t").await.to_string();
    assert!(text.contains("arrow3/a.arrow"), "{text}");
    let mut late = "{\"id\":1}\n".repeat(3_000);
    late.push_str("{\"id\":\"secret\"}\n");
    f.write("late/a.json", late);
    let text = f.error(&table("late/", Format::Json), "SELECT sum(id) FROM t").await.to_string();
    assert!(text.contains("late/a.json") && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn the_querys_own_errors_are_not_blamed_on_a_file() {
    let f = Fixture::new();
    f.parquet("t/a.parquet", vec![("id", ints(&[0, 1]))]);
    f.write("c/a.csv", "id\n0\n1\n");
    for t in [table("t/", Format::Parquet), table("c/", Format::Csv)] {
        for sql in ["SELECT 1 / id FROM t", "SELECT id FROM t WHERE 1 / id > 0"] {
            let error = f.error(&t, sql).await;
            assert_eq!(error.code(), "ATT-5009", "{error}");
            assert!(error.to_string().to_lowercase().contains("zero"), "{error}");
        }
    }
}

#[tokio::test]
async fn nothing_outside_the_configured_folders_is_read() {
    let f = Fixture::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("a.csv"), "id\n1\n").unwrap();
    let path = outside.path().display().to_string();
    for location in [path.clone(), format!("file://{path}/a.csv"), "../".into(), "s3://b/t/".into()]
    {
        let error = f.error(&table(&location, Format::Csv), "SELECT 1 FROM t").await;
        assert_eq!(error.code(), "ATT-5003", "{location}: {error}");
    }
}

#[tokio::test]
async fn an_unreachable_store_is_named() {
    let f = Fixture::new();
    let config = StoreConfig {
        url: "s3://bucket/lake/".into(),
        // The discard port of this machine refuses at once.
        endpoint: Some("http://127.0.0.1:9".into()),
        access_key_id: Some("id".into()),
        secret_access_key: Some(crate::store::Secret::new("key")),
        path_style: true,
        allow_http: true,
        ..StoreConfig::default()
    };
    let place = f.stores.open(&config).unwrap();
    let t = table("orders/", Format::Parquet);
    let error = f.tables.open(Some(&place), &t, &f.session().state()).await.unwrap_err();
    assert_eq!(error.code(), "ATT-5001", "{error}");
    assert!(error.to_string().contains("s3://bucket/lake/orders"), "{error}");
}

#[tokio::test]
async fn wrong_definitions_are_refused() {
    let f = Fixture::new();
    f.write("t/a.csv", "id\n1\n");
    let t = table("t/", Format::Csv).with_option("delimeter", ";");
    let error = f.error(&t, "SELECT 1 FROM t").await;
    assert_eq!(error.hint().unwrap(), "did you mean delimiter?");
    let error = f.error(&table("t/", Format::Delta), "SELECT 1 FROM t").await;
    assert!(error.to_string().contains("Delta"), "{error}");
}
