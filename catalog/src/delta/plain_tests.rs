//! Tests of reading warehouse tables as Parquet files: which files, in how many pieces, and that
//! a table which needs more is left to Delta's own scan.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::record_batch::RecordBatch;
use datafusion::physical_plan::displayable;
use datafusion::prelude::SessionContext;
use deltalake::operations::write::WriteBuilder;

use super::*;
use crate::delta::{Tables, unopened};
use crate::policy::{Attached, RuleSet};
use crate::testing::{Shared, main, number, plan, session};
use crate::{Catalog, CreateMode, Error, NewTable, Opened};

async fn explained(catalog: &Catalog, text: &str) -> String {
    let state = session(catalog);
    let physical = state.create_physical_plan(&plan(catalog, text, &["t"]).await).await.unwrap();
    displayable(physical.as_ref()).indent(false).to_string()
}

/// Files that a plan reads.
fn files(plan: &str) -> usize {
    plan.matches(".parquet").count()
}

/// Three files of 10,000 rows, sorted by id: 0 to 29,999.
async fn clustered(catalog: &Catalog) {
    let rows = |from: i64| {
        format!(
            "SELECT v AS id, v % 7 AS day FROM generate_series({from}, {}) AS s (v)",
            from + 9_999
        )
    };
    let first = plan(catalog, &rows(0), &[]).await;
    let new = NewTable::clustered(&["id".to_owned()]);
    let name = main("t");
    let made =
        catalog.create_table_as(&name, "ann", CreateMode::New, first, session(catalog), &new);
    made.await.unwrap();
    for from in [10_000, 20_000] {
        let more = plan(catalog, &rows(from), &[]).await;
        catalog.insert(&name, more, session(catalog), None, false).await.unwrap();
    }
}

#[tokio::test]
async fn a_look_up_reads_the_file_that_may_have_the_key_in_one_piece() {
    let catalog = Shared::new().open().await;
    clustered(&catalog).await;
    for (filter, read, found) in [
        ("id = 12345", 1, 1),
        ("12345 = id", 1, 1),
        ("id IN (1, 2, 25000)", 2, 3),
        ("id = 12345 AND day = 3", 1, 0),
        ("id = 12345 AND day = 99", 0, 0),
        ("id = 99999", 0, 0),
        ("id = 5 OR id = 29999", 2, 2),
        ("id >= 10000 AND id < 10010", 1, 10),
        ("day = 3", 3, 4_286),
        ("id IS NULL", 0, 0),
    ] {
        let text = format!("SELECT count(*) FROM t WHERE {filter}");
        assert_eq!(number(&catalog, &text, &["t"]).await, found, "{filter}");
        let plan = explained(&catalog, &format!("SELECT * FROM t WHERE {filter}")).await;
        assert_eq!(files(&plan), read, "{filter}: {plan}");
        let groups = read == 0 || plan.contains("1 group");
        assert!(groups || !filter.starts_with("id = 12345"), "{filter}: {plan}");
    }
}

#[tokio::test]
async fn a_look_up_by_a_personal_column_reads_every_file_and_one_by_another_does_not() {
    let catalog = Shared::new().open().await;
    let tag = |rules: &mut RuleSet| {
        rules.tags.entry("id".into()).or_default().insert("pii.device_id".into());
        Ok::<_, Error>(())
    };
    catalog.change_rules(&Attached::Table(main("t")), tag).await.unwrap();
    clustered(&catalog).await;
    for (filter, all, found) in
        [("id = 12345", true, 1), ("id = 99999", true, 0), ("day = 99", false, 0)]
    {
        let text = format!("SELECT count(*) FROM t WHERE {filter}");
        assert_eq!(number(&catalog, &text, &["t"]).await, found, "{filter}");
        let plan = explained(&catalog, &format!("SELECT * FROM t WHERE {filter}")).await;
        // One that is cut for two cores is told twice.
        assert_eq!(files(&plan) >= 3, all, "{filter}: {plan}");
    }
}

#[tokio::test]
async fn a_version_has_its_own_files() {
    let catalog = Shared::new().open().await;
    clustered(&catalog).await;
    for (version, expected) in [(Some(0), 10_000), (Some(1), 20_000), (None, 30_000)] {
        let opened = catalog.open_table(&main("t"), version, &session(&catalog)).await.unwrap();
        let Some(Opened::Table(table)) = opened else { panic!("no table") };
        let context = SessionContext::new_with_state(session(&catalog));
        assert_eq!(context.read_table(table).unwrap().count().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_table_that_needs_more_is_left_to_deltas_own_scan() {
    let shared = Shared::new();
    let place = shared.place.child("foreign").folder();
    let days = Arc::new(Int64Array::from(vec![1, 1, 2])) as ArrayRef;
    let ids = Arc::new(Int64Array::from(vec![7, 8, 9])) as ArrayRef;
    let rows = RecordBatch::try_from_iter([("id", ids), ("day", days)]).unwrap();
    let written = WriteBuilder::new(unopened(&place).log_store(), None)
        .with_input_batches([rows])
        .with_partition_columns(["day"])
        .await
        .unwrap();
    let none = PlainFiles::of("t", &place, &written, true, Arc::default()).unwrap();
    assert!(none.is_none());
    let catalog = shared.open().await;
    let tables = Tables::default();
    let state = session(&catalog);
    let provider = tables.provider("t", &place, &written, &[], &state).unwrap();
    let context = SessionContext::new_with_state(state);
    assert_eq!(context.read_table(provider).unwrap().count().await.unwrap(), 3);
}

#[test]
fn a_path_that_leads_out_of_the_table_is_told() {
    for (path, is_below) in [
        ("a.parquet", true),
        ("day=2026-01-01 10:00/a.parquet", true),
        ("day=10:/a.parquet", true),
        ("/data/t/a.parquet", false),
        ("file:/data/t/a.parquet", false),
        ("s3a://bucket/t/a.parquet", false),
        ("../t/a.parquet", false),
        ("day=1//a.parquet", false),
    ] {
        assert_eq!(lies_below(path), is_below, "{path}");
    }
}
