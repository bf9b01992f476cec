//! Tests of warehouse tables: atomic creation and replacement, concurrent inserts, versions.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::logical_expr::dml::InsertOp;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::policy::{Grant, Grantee, Privilege, Securable};
use crate::testing::{Shared, TestClock, main, number, open_folder, plan, rows, session};
use crate::{Catalog, CreateMode, Error, Kind, NewTable, Opened, Written};

async fn create(catalog: &Catalog, name: &str, text: &str) -> crate::Result<Option<Written>> {
    create_as(catalog, name, text, CreateMode::New).await
}

async fn create_as(
    catalog: &Catalog,
    name: &str,
    text: &str,
    mode: CreateMode,
) -> crate::Result<Option<Written>> {
    let plan = plan(catalog, text, &[]).await;
    catalog
        .create_table_as(&main(name), "ann", mode, plan, session(catalog), &NewTable::default())
        .await
}

async fn insert(catalog: &Catalog, name: &str, text: &str) -> crate::Result<Written> {
    let plan = plan(catalog, text, &[]).await;
    catalog.insert(&main(name), plan, session(catalog), None, false).await
}

async fn count(catalog: &Catalog, name: &str) -> i64 {
    number(catalog, &format!("SELECT count(*) FROM {name}"), &[name]).await
}

/// Lets the clean-up of a failed statement run.
async fn settle(shared: &Shared) {
    for _ in 0..1_000 {
        if shared.paths("tables").await.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_table_is_made_filled_and_read_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::default();
    let catalog = open_folder(&folder.path().join("made later"), &clock).await;
    let made = create(&catalog, "t", "SELECT * FROM (VALUES (1, 'a'), (2, NULL)) AS v (id, name)");
    assert_eq!(made.await.unwrap(), Some(Written { rows: 2, version: 0 }));
    let added = insert(&catalog, "t", "VALUES (3, 'c'), (4, 'd'), (5, 'e')").await.unwrap();
    assert_eq!(added, Written { rows: 3, version: 1 });
    let restarted = open_folder(&folder.path().join("made later"), &clock).await;
    assert_eq!(count(&restarted, "t").await, 5);
    assert_eq!(number(&restarted, "SELECT sum(id) FROM t WHERE name >= 'c'", &["t"]).await, 12);
    assert_eq!(restarted.table_version(&main("t")).await.unwrap(), 1);
    assert_eq!(restarted.table_names("main").await.unwrap(), [("t".into(), Kind::Table)]);
}

#[tokio::test]
async fn a_failed_create_leaves_nothing() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let wrong =
        create(&catalog, "t", "SELECT 1 / (v - 1) AS x FROM generate_series(1, 9) AS s (v)");
    let error = wrong.await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains("divide by zero"), "{error}");
    for refused in ["part-", "_delta_log", "heads"] {
        shared.store.refuse(refused);
        assert!(create(&catalog, "t", "SELECT 1 AS x").await.is_err(), "{refused}");
        shared.store.heal();
        settle(&shared).await;
        assert_eq!(shared.paths("tables").await, Vec::<String>::new(), "{refused}");
    }
    assert_eq!(catalog.kind(&main("t")).await.unwrap(), None);
    assert!(create(&catalog, "t", "SELECT 1 AS x").await.unwrap().is_some());
}

#[tokio::test]
async fn of_two_creates_of_one_name_one_wins_and_the_other_leaves_nothing() {
    let shared = Shared::new();
    let (one, two) = (shared.open().await, shared.open().await);
    let (a, b) = tokio::join!(
        create(&one, "t", "SELECT 1 AS x"),
        create(&two, "t", "SELECT 2 AS x UNION ALL SELECT 3")
    );
    let lost = if a.is_ok() { b.as_ref() } else { a.as_ref() };
    assert!(matches!(lost, Err(Error::AlreadyExists { .. })), "{a:?} {b:?}");
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    let expected = if a.is_ok() { 1 } else { 2 };
    assert_eq!(count(&one, "t").await, expected);
    assert_eq!(count(&two, "t").await, expected);
}

#[tokio::test]
async fn replace_keeps_the_old_until_the_new_is_there_and_removes_it_later() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    create(&catalog, "t", "SELECT 1 AS x").await.unwrap();
    let open = catalog.open_table(&main("t"), None, &session(&catalog)).await.unwrap();
    shared.store.refuse("heads");
    assert!(create_as(&catalog, "t", "SELECT 'new' AS y", CreateMode::Replace).await.is_err());
    shared.store.heal();
    assert_eq!(count(&catalog, "t").await, 1);
    create_as(&catalog, "t", "SELECT 'new' AS y", CreateMode::Replace).await.unwrap();
    rows(&catalog, "SELECT y FROM t", &["t"]).await;
    // Whoever opened the old one before can still read it …
    let Some(Opened::Table(old)) = open else { panic!("no table") };
    let context = datafusion::prelude::SessionContext::new_with_state(session(&catalog));
    assert_eq!(context.read_table(old).unwrap().count().await.unwrap(), 1);
    // … for a while.
    let before = shared.paths("tables").await.len();
    shared.clock.advance(11 * 60 * 1_000);
    catalog.sweep().await;
    assert!(shared.paths("tables").await.len() < before);
    rows(&catalog, "SELECT y FROM t", &["t"]).await;
}

#[tokio::test]
async fn a_dropped_table_is_gone_and_its_files_later() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    create(&catalog, "t", "SELECT 1 AS x").await.unwrap();
    assert!(catalog.drop_object(&main("t"), Kind::View).await.is_err());
    assert!(catalog.drop_object(&main("t"), Kind::Table).await.unwrap());
    let gone = insert(&catalog, "t", "SELECT 1").await.unwrap_err();
    assert!(matches!(gone, Error::NotFound { .. }), "{gone}");
    shared.clock.advance(11 * 60 * 1_000);
    catalog.sweep().await;
    assert!(shared.paths("tables").await.is_empty());
    create(&catalog, "t", "SELECT 1 AS x").await.unwrap();
    assert_eq!(count(&catalog, "t").await, 1);
}

#[tokio::test]
async fn what_comes_late_into_a_folder_that_was_removed_goes_a_day_later() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    create(&catalog, "t", "SELECT 1 AS x").await.unwrap();
    let late = Path::from(shared.paths("tables").await.remove(0));
    assert!(catalog.drop_object(&main("t"), Kind::Table).await.unwrap());
    shared.clock.advance(11 * 60 * 1_000);
    catalog.sweep().await;
    assert!(shared.paths("tables").await.is_empty());
    shared.store.put(&late, "late".into()).await.unwrap();
    shared.clock.advance(24 * 60 * 60 * 1_000);
    catalog.sweep().await;
    assert!(shared.paths("tables").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_inserts_all_land() {
    let shared = Shared::new();
    let (one, two) = (shared.open().await, shared.open().await);
    create(&one, "t", "SELECT CAST(0 AS BIGINT) AS x").await.unwrap();
    let inserts = (1..=16).map(|number| {
        let catalog = Arc::clone(if number % 2 == 0 { &one } else { &two });
        tokio::spawn(async move { insert(&catalog, "t", &format!("SELECT {number}")).await })
    });
    for done in futures::future::join_all(inserts).await {
        done.unwrap().unwrap();
    }
    assert_eq!(number(&two, "SELECT sum(x) FROM t", &["t"]).await, 136);
    assert_eq!(one.table_version(&main("t")).await.unwrap(), 16);
}

#[tokio::test]
async fn an_overwrite_is_one_commit_and_fails_when_the_table_moved() {
    let shared = Shared::new();
    let (one, two) = (shared.open().await, shared.open().await);
    create(&one, "t", "SELECT x FROM generate_series(1, 5) AS s (x)").await.unwrap();
    let version = one.table_version(&main("t")).await.unwrap();
    let keep = plan(&one, "SELECT x FROM t WHERE x > 2", &["t"]).await;
    insert(&two, "t", "SELECT 6").await.unwrap();
    let stale = one.insert(&main("t"), keep, session(&one), Some(version), true).await;
    assert!(matches!(stale, Err(Error::Conflict { .. })), "{stale:?}");
    assert_eq!(count(&one, "t").await, 6);
    let version = one.table_version(&main("t")).await.unwrap();
    let keep = plan(&one, "SELECT x FROM t WHERE x > 2", &["t"]).await;
    let done = one.insert(&main("t"), keep, session(&one), Some(version), true).await.unwrap();
    assert_eq!(done, Written { rows: 4, version: version + 1 });
    let none = plan(&one, "SELECT x FROM t WHERE false", &["t"]).await;
    let done = one.insert(&main("t"), none, session(&one), None, true).await.unwrap();
    assert_eq!((done.rows, count(&two, "t").await), (0, 0));
}

#[tokio::test]
async fn of_two_overwrites_at_once_one_loses() {
    let shared = Shared::new();
    let (one, two) = (shared.open().await, shared.open().await);
    create(&one, "t", "SELECT CAST(1 AS BIGINT) AS x").await.unwrap();
    let (a, b) = (plan(&one, "SELECT 10", &[]).await, plan(&two, "SELECT 20", &[]).await);
    let table = main("t");
    let (a, b) = tokio::join!(
        one.insert(&table, a, session(&one), Some(0), true),
        two.insert(&table, b, session(&two), Some(0), true)
    );
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    let lost = if a.is_ok() { b } else { a };
    assert!(matches!(lost, Err(Error::Conflict { .. })), "{lost:?}");
    assert_eq!(count(&one, "t").await, 1);
}

#[tokio::test]
async fn a_query_stays_on_its_version_and_older_ones_can_be_read() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    create(&catalog, "t", "SELECT CAST(1 AS BIGINT) AS x").await.unwrap();
    let pinned = plan(&catalog, "SELECT count(*) FROM t", &["t"]).await;
    insert(&catalog, "t", "SELECT 2").await.unwrap();
    let context = datafusion::prelude::SessionContext::new_with_state(session(&catalog));
    let seen = context.execute_logical_plan(pinned).await.unwrap().collect().await.unwrap();
    assert!(format!("{seen:?}").contains("1,"), "{seen:?}");
    for (version, expected) in [(0, 1), (1, 2)] {
        let opened = catalog.open_table(&main("t"), Some(version), &session(&catalog)).await;
        let Some(Opened::Table(table)) = opened.unwrap() else { panic!("no table") };
        assert_eq!(context.read_table(table).unwrap().count().await.unwrap(), expected);
    }
    let missing = catalog.open_table(&main("t"), Some(2), &session(&catalog)).await.unwrap_err();
    assert!(missing.to_string().contains("no version 2"), "{missing}");
}

#[tokio::test]
async fn types_and_names_survive_or_are_refused() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let text = "SELECT arrow_cast('2024-05-06T07:08:09.123456789', 'Timestamp(ns)') AS t,
        arrow_cast('2024-05-06T07:08:09', 'Timestamp(ms, \"Europe/Berlin\")') AS z,
        arrow_cast(7, 'UInt32') AS u, arrow_cast('x', 'Dictionary(Int32, Utf8)') AS d, NULL AS n,
        arrow_cast('v', 'Utf8View') AS v, arrow_cast(1.5, 'Decimal128(10, 2)') AS m,
        arrow_cast('2024-05-06', 'Date32') AS day, [1, 2] AS l, named_struct('a', 1, 'b', 'x') AS s,
        1 AS \"count(*)\", 2 AS \"Größe in cm\", X'00ff' AS b, true AS f";
    create(&catalog, "t", text).await.unwrap();
    let batches = rows(&catalog, "SELECT * FROM t WHERE u = 7 AND d = 'x'", &["t"]).await;
    let batch = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    let stored: Vec<String> =
        batch.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(stored[0], "Timestamp(µs)");
    assert_eq!(stored[1], "Timestamp(µs, \"UTC\")");
    assert_eq!(&stored[2..4], ["Int64", "Utf8View"]);
    assert_eq!(batch.schema().field(11).name(), "Größe in cm");
    let wrong = create(&catalog, "w", "SELECT INTERVAL '1 day' AS waited").await.unwrap_err();
    assert!(wrong.to_string().contains("waited"), "{wrong}");
    let twice = create(&catalog, "w", "SELECT 1 AS id, 2 AS \"ID\"").await.unwrap_err();
    assert!(twice.to_string().contains("ID"), "{twice}");
    let wide = insert(&catalog, "t", "SELECT 1, 2").await.unwrap_err();
    assert!(wide.to_string().contains("2 columns"), "{wide}");
}

#[tokio::test]
async fn an_empty_table_keeps_its_constraints() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let columns = vec![
        Field::new("id", DataType::Int32, false),
        Field::new("name", DataType::Utf8View, true),
    ];
    let schema = Arc::new(Schema::new(columns));
    let mode = CreateMode::New;
    assert!(catalog.create_empty_table(&main("t"), "ann", mode, schema, &[]).await.unwrap());
    assert_eq!(count(&catalog, "t").await, 0);
    insert(&catalog, "t", "SELECT 1, NULL").await.unwrap();
    let error = insert(&catalog, "t", "SELECT NULL, 'x'").await.unwrap_err();
    assert!(error.to_string().contains("id is NOT NULL"), "{error}");
    let error = insert(&catalog, "t", "SELECT 3000000000, 'x'").await.unwrap_err();
    assert!(error.to_string().contains("column id"), "{error}");
    assert_eq!(count(&catalog, "t").await, 1);
}

#[tokio::test]
async fn nothing_changes_rows_but_the_catalog() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    create(&catalog, "t", "SELECT 1 AS x").await.unwrap();
    let state = session(&catalog);
    let Some(Opened::Table(table)) = catalog.open_table(&main("t"), None, &state).await.unwrap()
    else {
        panic!("no table")
    };
    assert!(table.delete_from(&state, vec![]).await.is_err());
    assert!(table.update(&state, vec![], vec![]).await.is_err());
    assert!(table.truncate(&state).await.is_err());
    let input = table.scan(&state, None, &[], None).await.unwrap();
    assert!(table.insert_into(&state, input, InsertOp::Append).await.is_err());
    assert_eq!(count(&catalog, "t").await, 1);
}

#[tokio::test]
async fn a_clustered_table_sorts_whatever_is_written() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let text = "SELECT * FROM (VALUES (3, 'b'), (1, NULL), (2, 'a')) AS v (id, kind)";
    let plan = plan(&catalog, text, &[]).await;
    let by = ["kind".to_owned()];
    let state = session(&catalog);
    let made = catalog
        .create_table_as(&main("t"), "ann", CreateMode::New, plan, state, &NewTable::clustered(&by))
        .await;
    assert_eq!(made.unwrap().unwrap().rows, 3);
    let first = "SELECT id FROM t LIMIT 1";
    assert_eq!(number(&catalog, first, &["t"]).await, 2);
    assert_eq!(number(&catalog, "SELECT id FROM t LIMIT 1 OFFSET 2", &["t"]).await, 1);
    insert(&catalog, "t", "SELECT 5, 'z' UNION ALL SELECT 4, 'a'").await.unwrap();
    assert_eq!(number(&catalog, "SELECT sum(id) FROM t WHERE kind = 'a'", &["t"]).await, 6);
    assert_eq!(number(&catalog, "SELECT sum(id) FROM t WHERE kind IS NULL", &["t"]).await, 1);
    assert!(insert(&catalog, "t", "SELECT 5").await.is_err());
}

#[tokio::test]
async fn a_definition_that_cannot_be_read_is_dropped_with_its_grants() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    create(&catalog, "t", "SELECT 1 AS n").await.unwrap();
    let (on, by) = (Securable::Table(main("t")), "root".to_owned());
    let grant = Grant { privilege: Privilege::Select, on, columns: None, by, at_ms: 0 };
    let give = |held: &mut Vec<Grant>| held.push(grant);
    catalog.change_grants(&Grantee::Public, "root", give).await.unwrap();
    let head = shared.place.child("_attune/heads/main.t.json");
    head.remove().await.unwrap();
    assert!(head.create("{").await.unwrap());
    assert!(catalog.drop_object(&main("t"), Kind::Table).await.unwrap());
    // A table that is made under the name has none.
    create(&catalog, "t", "SELECT 2 AS n").await.unwrap();
    assert!(catalog.accounts().await.unwrap().grants(&Grantee::Public).is_empty());
}
