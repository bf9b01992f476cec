//! The tables of a lake: discovered and declared.

use std::collections::BTreeMap;

use super::*;
use crate::lake::{Lake, discover};

#[tokio::test]
async fn folders_and_files_are_tables() {
    let f = Fixture::new();
    f.write("Web Clicks/day=1/part-0.csv", "id\n1\n");
    f.parquet("orders.parquet", vec![("id", ints(&[1]))]);
    f.write("events/_delta_log/00000000000000000000.json", "{}");
    f.parquet("events/part-0.parquet", vec![("id", ints(&[1]))]);
    f.write("_attune/x.csv", "id\n1\n");
    f.write(".git/x.csv", "id\n1\n");
    f.write("empty/_SUCCESS", "x");
    f.write("day=1/x.csv", "id\n1\n");
    f.write("README.md", "no table");
    let found = discover(&f.place).await.unwrap();
    let names: Vec<_> = found.iter().map(|(n, t)| (n.as_str(), t.format)).collect();
    assert_eq!(
        names,
        [("events", Format::Delta), ("orders", Format::Parquet), ("web_clicks", Format::Csv),]
    );
    let (_, clicks) = found.last().unwrap();
    assert_eq!(f.query(clicks, "SELECT id, day FROM t").await.unwrap(), ["1,1"]);
}

#[tokio::test]
async fn declared_tables_go_before_discovered_ones() {
    let f = Fixture::new();
    f.write("a/x.csv", "id\n1\n");
    f.write("b/x.csv", "id\n1\n");
    let declared = BTreeMap::from([
        ("a".to_owned(), table("elsewhere/", Format::Json)),
        ("z".to_owned(), table("b/", Format::Csv)),
    ]);
    let lake = Lake::new("lake", f.place.clone(), true, declared.clone());
    assert_eq!(lake.table_names().await.unwrap(), ["a", "b", "z"]);
    assert_eq!(lake.table("a").await.unwrap().unwrap().format, Format::Json);
    assert!(lake.table("missing").await.unwrap().is_none());
    let silent = Lake::new("lake", f.place.clone(), false, declared);
    assert_eq!(silent.table_names().await.unwrap(), ["a", "z"]);
    assert!(silent.table("b").await.unwrap().is_none());
}

#[tokio::test]
async fn a_lake_that_does_not_exist_yet_is_empty() {
    let f = Fixture::new();
    let lake = Lake::new("lake", f.place.child("later"), true, BTreeMap::new());
    assert!(lake.table_names().await.unwrap().is_empty());
}
