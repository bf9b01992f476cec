//! Folders: partitions and pruning, plain folders, odd names, new files.

use arrow::datatypes::DataType;

use super::*;
use crate::lake::Column;

fn days(f: &Fixture) -> LakeTable {
    for (day, id) in [("2024-05-01", 1), ("2024-05-02", 2), ("2024-05-03", 3)] {
        for hour in ["01", "02"] {
            let name = format!("t/day={day}/hour={hour}/part-0.parquet");
            f.parquet(&name, vec![("id", ints(&[id]))]);
        }
    }
    table("t/", Format::Parquet)
}

#[tokio::test]
async fn partitions_are_columns_and_queries_skip_folders() {
    let f = Fixture::new();
    let t = days(&f);
    let columns = f.columns(&t).await.unwrap();
    assert_eq!(columns, ["id Int64", "day Date32", "hour Int64"]);
    let sql = "SELECT id, day, hour FROM t WHERE day >= DATE '2024-05-02' AND hour = 1 ORDER BY id";
    let rows = f.query(&t, sql).await.unwrap();
    assert_eq!(rows, ["2,2024-05-02,1", "3,2024-05-03,1"]);
    let plan = f.plan(&t, sql).await;
    assert_eq!(plan.matches("part-0.parquet").count(), 2, "{plan}");
    assert!(!plan.contains("FilterExec"), "the folders decide: {plan}");
    let plan = f.plan(&t, "SELECT id FROM t WHERE hour IN (2, 7) OR day IS NULL").await;
    assert_eq!(plan.matches("part-0.parquet").count(), 3, "{plan}");
    let rows = f.query(&t, "SELECT id FROM t WHERE day = DATE '1999-01-01'").await.unwrap();
    assert!(rows.is_empty());
    let sql = "SELECT count(*), min(day), max(hour) FROM t WHERE id > 1 AND hour = 2";
    assert_eq!(f.query(&t, sql).await.unwrap(), ["2,2024-05-02,2"]);
    let sql = "SELECT day, count(*) FROM t GROUP BY day ORDER BY day LIMIT 1";
    assert_eq!(f.query(&t, sql).await.unwrap(), ["2024-05-01,2"]);
}

#[tokio::test]
async fn given_partition_types_are_kept() {
    let f = Fixture::new();
    let t = days(&f).with_partitions(vec![
        Column::new("day", DataType::Utf8),
        Column::new("hour", DataType::Null),
    ]);
    assert_eq!(f.columns(&t).await.unwrap(), ["id Int64", "day Utf8", "hour Int64"]);
    // As SQL lists them: all columns, and perhaps no PARTITIONED BY.
    let listed = vec![Column::new("id", DataType::Int32), Column::new("day", DataType::Utf8)];
    let t = days(&f).with_columns(listed);
    assert_eq!(f.columns(&t).await.unwrap(), ["id Int32", "day Utf8", "hour Int64"]);
    let rows = f.query(&t, "SELECT id FROM t WHERE day = '2024-05-03' AND hour = 1").await;
    assert_eq!(rows.unwrap(), ["3"]);
    let wrong = days(&f).with_partitions(vec![Column::new("month", DataType::Int32)]);
    let text = f.error(&wrong, "SELECT 1 FROM t").await.to_string();
    assert!(text.contains("day") && text.contains("month"), "{text}");
}

#[tokio::test]
async fn null_partitions_and_files_above_them_have_null() {
    let f = Fixture::new();
    f.parquet("t/k=1/a.parquet", vec![("id", ints(&[1]))]);
    f.parquet("t/k=__HIVE_DEFAULT_PARTITION__/a.parquet", vec![("id", ints(&[2]))]);
    f.parquet("t/top.parquet", vec![("id", ints(&[3]))]);
    let t = table("t/", Format::Parquet);
    let rows = f.query(&t, "SELECT id, k FROM t ORDER BY id").await.unwrap();
    assert_eq!(rows, ["1,1", "2,", "3,"]);
    let rows = f.query(&t, "SELECT id FROM t WHERE k IS NULL ORDER BY id").await.unwrap();
    assert_eq!(rows, ["2", "3"]);
    assert_eq!(f.query(&t, "SELECT id FROM t WHERE k = 1").await.unwrap(), ["1"]);
    assert_eq!(f.query(&t, "SELECT id FROM t WHERE NOT (k = 1)").await.unwrap().len(), 0);
    assert_eq!(f.query(&t, "SELECT count(k), count(*) FROM t").await.unwrap(), ["1,3"]);
}

#[tokio::test]
async fn odd_names_survive() {
    let f = Fixture::new();
    f.write("t/city=S%C3%A3o Paulo/größe 100%.csv", "id\n1\n");
    f.write("t/city=a%2Fb/x#y?z.csv", "id\n2\n");
    f.write("t/city=北京/[1]*.csv", "id\n3\n");
    let t = table("t/", Format::Csv);
    let rows = f.query(&t, "SELECT id, city FROM t ORDER BY id").await.unwrap();
    assert_eq!(rows, ["1,São Paulo", "2,a/b", "3,北京"]);
    assert_eq!(f.query(&t, "SELECT id FROM t WHERE city = 'a/b'").await.unwrap(), ["2"]);
    f.write("my folder/50% off.csv", "id\n4\n");
    let t = table("my folder/", Format::Csv);
    assert_eq!(f.query(&t, "SELECT id FROM t").await.unwrap(), ["4"]);
}

#[tokio::test]
async fn plain_folders_are_read_and_hidden_ones_are_not() {
    let f = Fixture::new();
    f.write("t/2024/05/a.csv", "id\n1\n");
    f.write("t/b.csv", "id\n2\n");
    f.write("t/_temporary/c.csv", "id\n9\n");
    f.write("t/.hidden.csv", "broken");
    f.write("t/_SUCCESS", "");
    f.write("t/empty.csv", "");
    f.write("t/notes.txt", "no data");
    for location in ["t/", "t"] {
        let rows = f.query(&table(location, Format::Csv), "SELECT id FROM t ORDER BY id").await;
        assert_eq!(rows.unwrap(), ["1", "2"], "{location}");
    }
}

#[tokio::test]
async fn the_folders_value_goes_before_the_files() {
    let f = Fixture::new();
    f.parquet("t/day=7/a.parquet", vec![("id", ints(&[1])), ("day", ints(&[70]))]);
    f.write("c/day=7/a.csv", "day,id\n70,1\n");
    for t in [table("t/", Format::Parquet), table("c/", Format::Csv)] {
        let rows = f.query(&t, "SELECT id, day FROM t WHERE day = 7").await.unwrap();
        assert_eq!(rows, ["1,7"]);
    }
}

#[tokio::test]
async fn a_new_changed_or_removed_file_is_seen() {
    let mut f = Fixture::new();
    f.write("t/a.csv", "id\n1\n");
    let t = table("t/", Format::Csv);
    assert_eq!(f.query(&t, "SELECT sum(id) FROM t").await.unwrap(), ["1"]);
    f.write("t/b.csv", "id\n10\n");
    assert_eq!(f.query(&t, "SELECT sum(id) FROM t").await.unwrap(), ["11"]);
    f.write("t/b.csv", "id\n200\n");
    assert_eq!(f.query(&t, "SELECT sum(id) FROM t").await.unwrap(), ["201"]);
    fs::remove_file(f.path("t/a.csv")).unwrap();
    assert_eq!(f.query(&t, "SELECT sum(id) FROM t").await.unwrap(), ["200"]);
    // What is believed for an hour is not asked for again.
    f.tables = Tables::with_fresh(Arc::clone(&f.stores), Duration::from_secs(3_600));
    assert_eq!(f.query(&t, "SELECT sum(id) FROM t").await.unwrap(), ["200"]);
    f.write("t/c.csv", "id\n3000\n");
    assert_eq!(f.query(&t, "SELECT sum(id) FROM t").await.unwrap(), ["200"]);
}
