//! Files of one table that differ: missing and new columns, other order, wider types, clashes.

use arrow::array::{
    Date32Array, Float32Array, Int8Array, Int32Array, LargeStringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;

use super::*;
use crate::lake::Column;

#[tokio::test]
async fn a_missing_column_is_null_and_a_narrow_one_is_widened() {
    let f = Fixture::new();
    let narrow: ArrayRef = Arc::new(Int8Array::from(vec![1, 2]));
    let float: ArrayRef = Arc::new(Float32Array::from(vec![0.5, 1.5]));
    f.parquet("t/a.parquet", vec![("id", narrow), ("score", float)]);
    f.parquet(
        "t/b.parquet",
        vec![
            ("note", texts(&["new"])),
            ("score", Arc::new(Int32Array::from(vec![16_777_217]))),
            ("id", ints(&[3_000_000_000])),
        ],
    );
    let t = table("t/", Format::Parquet);
    let columns = f.columns(&t).await.unwrap();
    assert_eq!(columns, ["id Int64", "score Float64", "note Utf8View"]);
    let rows = f.query(&t, "SELECT id, score, note FROM t ORDER BY id").await.unwrap();
    assert_eq!(rows, ["1,0.5,", "2,1.5,", "3000000000,16777217.0,new"]);
    let rows = f.query(&t, "SELECT id FROM t WHERE id > 1 AND note IS NULL").await.unwrap();
    assert_eq!(rows, ["2"]);
    let rows = f.query(&t, "SELECT min(id), max(id), count(note) FROM t").await.unwrap();
    assert_eq!(rows, ["1,3000000000,1"]);
}

#[tokio::test]
async fn texts_dates_and_times_of_different_kinds_are_one() {
    let f = Fixture::new();
    let large: ArrayRef = Arc::new(LargeStringArray::from(vec!["large"]));
    f.parquet("t/a.parquet", vec![("s", large), ("at", Arc::new(Date32Array::from(vec![19_844])))]);
    let micros = TimestampMicrosecondArray::from(vec![1_714_521_600_000_001]);
    f.parquet("t/b.parquet", vec![("s", texts(&["small"])), ("at", Arc::new(micros))]);
    let t = table("t/", Format::Parquet);
    let rows = f.query(&t, "SELECT s, at FROM t ORDER BY at, s").await.unwrap();
    assert_eq!(
        rows,
        ["small,2024-05-01T00:00:00.000001", "large,2024-05-01T00:00:00"]
            .map(String::from)
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
    );
    let rows = f.query(&t, "SELECT s FROM t WHERE at = TIMESTAMP '2024-05-01'").await.unwrap();
    assert_eq!(rows, ["large"]);
}

#[tokio::test]
async fn a_clash_names_file_column_and_both_types() {
    let f = Fixture::new();
    f.parquet("t/a.parquet", vec![("id", ints(&[1])), ("amount", ints(&[5]))]);
    f.parquet("t/b c.parquet", vec![("id", ints(&[2])), ("amount", texts(&["5"]))]);
    let t = table("t/", Format::Parquet);
    let error = f.error(&t, "SELECT id FROM t").await;
    assert_eq!(error.code(), "ATT-5007");
    let text = error.to_string();
    for part in ["b%20c.parquet", "a.parquet", "amount", "Utf8View", "Int64"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // A person who gives the type decides.
    let given = t.with_columns(vec![
        Column::new("id", DataType::Int64),
        Column::new("amount", DataType::Int64),
    ]);
    assert_eq!(f.query(&given, "SELECT sum(amount) FROM t").await.unwrap(), ["10"]);
}

#[tokio::test]
async fn csv_files_are_matched_by_their_headers() {
    let f = Fixture::new();
    f.write("t/a.csv", "id,name\n1,a\n");
    f.write("t/b.csv", "name,extra,id\nb,9,2\n");
    f.write("t/c.csv", "id\n3\n");
    f.write("t/d.csv", "id,name\n");
    let t = table("t/", Format::Csv);
    assert_eq!(f.columns(&t).await.unwrap(), ["id Int64", "name Utf8", "extra Int64"]);
    let rows = f.query(&t, "SELECT id, name, extra FROM t ORDER BY id").await.unwrap();
    assert_eq!(rows, ["1,a,", "2,b,9", "3,,"]);
    let rows = f.query(&t, "SELECT extra, upper(name) FROM t WHERE id >= 2 ORDER BY id").await;
    assert_eq!(rows.unwrap(), ["9,B", ","]);
    let given = t.with_columns(vec![
        Column::new("NAME", DataType::Utf8View),
        Column::new("id", DataType::Decimal128(10, 2)),
    ]);
    let rows = f.query(&given, "SELECT \"NAME\", id FROM t ORDER BY id").await.unwrap();
    assert_eq!(rows, ["a,1.00", "b,2.00", ",3.00"]);
}

#[tokio::test]
async fn guesses_of_csv_widen_or_clash() {
    let f = Fixture::new();
    f.write("t/a.csv", "x\n1\n");
    f.write("t/b.csv", "x\n2.5\n");
    f.write("t/c.csv", "x\n\n");
    let t = table("t/", Format::Csv);
    assert_eq!(f.query(&t, "SELECT sum(x) FROM t").await.unwrap(), ["3.5"]);
    f.write("t/d.csv", "x\nmany\n");
    let text = f.error(&t, "SELECT x FROM t").await.to_string();
    assert!(text.contains("d.csv") && text.contains("Utf8") && text.contains("Float64"), "{text}");
}

#[tokio::test]
async fn a_file_that_comes_later_may_bring_a_column_or_a_clash() {
    let f = Fixture::new();
    f.parquet("t/a.parquet", vec![("id", ints(&[1]))]);
    let t = table("t/", Format::Parquet);
    // This provider has looked already when the next files come.
    let early = f.context(&t).await.unwrap();
    f.parquet("t/b.parquet", vec![("id", ints(&[2])), ("name", texts(&["x"]))]);
    let count = |session: SessionContext| async move {
        let plan = session.state().create_logical_plan("SELECT sum(id) FROM t").await?;
        session.execute_logical_plan(plan).await?.collect().await
    };
    let batches = count(early.clone()).await.unwrap();
    assert!(pretty_format_batches(&batches).unwrap().to_string().contains("| 3 "));
    assert_eq!(f.columns(&t).await.unwrap(), ["id Int64", "name Utf8View"]);
    f.parquet("t/c.parquet", vec![("id", texts(&["7"]))]);
    let error = Error::from(count(early).await.unwrap_err());
    assert_eq!(error.code(), "ATT-5007", "{error}");
    assert!(error.to_string().contains("c.parquet"), "{error}");
}
