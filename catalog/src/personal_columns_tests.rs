//! Tests of files without statistics: of whom they tell nothing, and that answers are the same.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use super::*;
use crate::privacy_policies::{BudgetPer, PrivacyPolicy, UnitSource};
use crate::purposes::{ConsentPolicy, ConsentSource};
use crate::subject_copies::{CopiedKey, Transformation};
use crate::subjects::{Crosswalk, Subject, SubjectKey};
use crate::testing::{Shared, main, number, plan, session};
use crate::{CreateMode, NewTable};

/// Every object of a table's folders, by path.
async fn objects(shared: &Shared, table: &str) -> Vec<(String, Bytes)> {
    let store = &shared.place.store;
    let folder = shared.place.child("tables");
    let metas: Vec<_> = store.list(Some(&folder.path)).try_collect().await.unwrap();
    let mut found = Vec::new();
    for meta in metas {
        let path = meta.location.to_string();
        if path.contains(&format!("/main.{table}-")) {
            let content = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
            found.push((path, content));
        }
    }
    found
}

fn footer(file: &Bytes) -> ParquetMetaData {
    let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
    reader.parse_and_finish(file).unwrap()
}

/// The columns of which a file tells something: in a row group's statistics or in the page index.
fn told(footer: &ParquetMetaData) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for (at, group) in footer.row_groups().iter().enumerate() {
        for (column, chunk) in group.columns().iter().enumerate() {
            let pages = footer.column_index().map(|index| &index[at][column]);
            let has_pages = pages.is_some_and(|pages| !matches!(pages, ColumnIndexMetaData::NONE));
            let has_filter = chunk.bloom_filter_offset().is_some();
            if chunk.statistics().is_some() || has_pages || has_filter {
                told.insert(chunk.column_path().string());
            }
        }
    }
    told
}

/// The columns of which the files of a table tell something, by file.
async fn told_by_files(shared: &Shared, table: &str) -> Vec<BTreeSet<String>> {
    let objects = objects(shared, table).await;
    let files = objects.iter().filter(|(path, _)| path.ends_with(".parquet"));
    files.map(|(_, content)| told(&footer(content))).collect()
}

/// The columns of which the log of a table tells something, by file.
async fn logged(shared: &Shared, table: &str) -> Vec<BTreeSet<String>> {
    let mut logged = Vec::new();
    for (path, content) in objects(shared, table).await {
        if !path.ends_with(".json") {
            continue;
        }
        for line in String::from_utf8(content.to_vec()).unwrap().lines() {
            let action: serde_json::Value = serde_json::from_str(line).unwrap();
            let Some(statistics) = action["add"]["stats"].as_str() else { continue };
            let statistics: serde_json::Value = serde_json::from_str(statistics).unwrap();
            let kinds = ["minValues", "maxValues", "nullCount"].iter();
            let told = kinds.filter_map(|kind| statistics[kind].as_object());
            logged.push(told.flat_map(|told| told.keys().cloned()).collect());
        }
    }
    logged
}

fn names(columns: &[&str]) -> BTreeSet<String> {
    columns.iter().map(|column| (*column).to_owned()).collect()
}

async fn tag(catalog: &Catalog, table: &str, column: &str, tag: &str) {
    let change = |rules: &mut crate::policy::RuleSet| {
        rules.tags.entry(column.into()).or_default().insert(tag.into());
        Ok::<_, Error>(())
    };
    catalog.change_rules(&Attached::Table(main(table)), change).await.unwrap();
}

fn key(table: &str, column: &str) -> SubjectKey {
    SubjectKey { table: main(table), column: column.into() }
}

async fn create(catalog: &Catalog, table: &str, rows: &str, cluster_by: &[&str]) {
    let rows = plan(catalog, rows, &[]).await;
    let by: Vec<String> = cluster_by.iter().map(|column| (*column).to_owned()).collect();
    let state = session(catalog);
    let name = main(table);
    let made = catalog
        .create_table_as(&name, "ann", CreateMode::New, rows, state, &NewTable::clustered(&by))
        .await;
    assert!(made.unwrap().is_some());
}

#[tokio::test]
async fn whatever_names_persons_names_personal_columns() {
    let catalog = Shared::new().open().await;
    assert_eq!(catalog.personal_columns(&main("t")).await.unwrap(), PersonalColumns::default());
    for (column, name) in [("mail", "pii.email"), ("note", "PII"), ("day", "piitas"), ("n", "x")] {
        tag(&catalog, "t", column, name).await;
    }
    let via = Crosswalk { table: main("links"), record: "r".into(), entity: "e".into() };
    let subject = Subject {
        name: "person".into(),
        keys: vec![key("t", "id"), key("u", "id")],
        via: Some(via),
        owner: "dpo".into(),
        created_ms: 0,
    };
    catalog.create_subject(subject, CreateMode::New).await.unwrap();
    let consents = ConsentSource {
        table: main("consents"),
        subject: "who".into(),
        purpose: "purpose".into(),
        granted: "granted".into(),
        valid_from: None,
        valid_to: None,
        channel: None,
    };
    let policy = ConsentPolicy {
        name: "p".into(),
        table: main("t"),
        subject: "person".into(),
        consents,
        purposes: names(&["ads"]),
        channels: names(&[]),
        default_allow: false,
        owner: "dpo".into(),
        created_ms: 0,
        is_inherited: false,
        follows: None,
    };
    catalog.create_consent(policy, CreateMode::New).await.unwrap();
    for (table, columns) in [
        ("t", names(&["id", "mail", "note", "person"])),
        ("u", names(&["id"])),
        ("links", names(&["e", "r"])),
        ("consents", names(&["who"])),
        ("v", names(&[])),
    ] {
        let found = catalog.personal_columns(&main(table)).await.unwrap();
        assert_eq!(found, PersonalColumns { columns, is_any: false }, "{table}");
    }
}

#[tokio::test]
async fn copies_of_ids_and_what_tells_persons_of_another_table_are_personal_columns() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let subject = Subject {
        name: "person".into(),
        keys: vec![key("crm", "id")],
        via: None,
        owner: "dpo".into(),
        created_ms: 0,
    };
    catalog.create_subject(subject, CreateMode::New).await.unwrap();
    let copy = |column: &str, root: &str, by: Option<Vec<Transformation>>| CopiedKey {
        subject: "person".into(),
        column: Some(column.into()),
        from: key("crm", root),
        root: key("crm", root),
        of_model: false,
        by,
        is_whole: true,
    };
    let lower = Transformation::Expression("lower(id)".into());
    let pseudonym = Transformation::Pseudonym { key: "k".into(), id: "1f-1".into() };
    let copies = [
        copy("cid", "id", Some(vec![])),
        copy("low", "id", Some(vec![lower.clone()])),
        copy("sealed", "id", None),
        copy("token", "id", Some(vec![lower, pseudonym])),
        // What was a key once.
        copy("past", "mail", Some(vec![])),
    ];
    catalog.announce_copies(&main("vip"), &copies.into()).await.unwrap();
    let found = catalog.personal_columns(&main("vip")).await.unwrap();
    assert_eq!(found.columns, names(&["cid", "low", "sealed"]));
    create(&catalog, "vip", "SELECT 'ann-4711' AS cid, 't' AS token, 1 AS day", &[]).await;
    assert_eq!(told_by_files(&shared, "vip").await, [names(&["day", "token"])]);
    let policy = PrivacyPolicy {
        name: "p".into(),
        unit_column: "person".into(),
        source: Some(UnitSource::Reference {
            key: "order_id".into(),
            table: main("orders"),
            column: "id".into(),
        }),
        budget_epsilon: 1.0,
        budget_delta: 0.0,
        per: BudgetPer::Role,
        every_ms: None,
        epsilon_per_query_max: None,
    };
    catalog.create_privacy_policy(&main("items"), policy, "dpo", CreateMode::New).await.unwrap();
    let found = catalog.personal_columns(&main("items")).await.unwrap();
    assert_eq!(found.columns, names(&["order_id"]));
}

#[tokio::test]
async fn a_document_that_cannot_be_read_may_name_any_column() {
    let shared = Shared::new();
    let writer = shared.open().await;
    tag(&writer, "t", "mail", "pii.email").await;
    let places = shared.paths("_attune/policies").await;
    for path in places {
        let path = object_store::path::Path::from(path);
        shared.place.store.put(&path, Bytes::from_static(b"{").into()).await.unwrap();
    }
    let catalog = shared.open().await;
    assert!(catalog.personal_columns(&main("t")).await.unwrap().has("day"));
    assert!(!catalog.personal_columns(&main("u")).await.unwrap().has("day"));
    create(&catalog, "t", "SELECT 'ann' AS name, 1 AS day", &[]).await;
    assert_eq!(told_by_files(&shared, "t").await, [names(&[])]);
}

/// Persons with a NULL among them, and a column of each kind beside.
const ROWS: &str = "SELECT CASE WHEN v % 10 = 3 THEN NULL ELSE 'person-' || lpad(CAST(v AS VARCHAR), \
                    5, '0') END AS id, v AS day, make_array('tag-' || v) AS tags, v + 90000 AS code \
                    FROM generate_series(0, 2999) AS s (v)";

#[tokio::test]
async fn personal_columns_have_no_statistics_and_the_same_answers() {
    for by in [vec![], vec!["id"], vec!["day"]] {
        let shared = Shared::new();
        let catalog = shared.open().await;
        tag(&catalog, "t", "id", "pii.name").await;
        tag(&catalog, "t", "code", "pii.national_id").await;
        create(&catalog, "t", ROWS, &by).await;
        let more = plan(&catalog, &ROWS.replace("2999", "99"), &[]).await;
        catalog.insert(&main("t"), more, session(&catalog), None, false).await.unwrap();
        let told = told_by_files(&shared, "t").await;
        assert!(told.len() >= 2 && told.iter().all(|told| *told == names(&["day"])), "{told:?}");
        // The log takes its statistics from the footers.
        let logged = logged(&shared, "t").await;
        assert!(!logged.is_empty() && logged.iter().all(|of| *of == names(&["day"])), "{logged:?}");
        for (filter, count) in [
            ("true", 3_100),
            ("id IS NULL", 310),
            ("id IS NOT NULL", 2_790),
            ("id = 'person-00042'", 2),
            ("id = 'person-00043'", 0),
            ("id = 'person-02990'", 1),
            ("id > 'person-02989'", 9),
            ("id IN ('person-00001', 'person-02998')", 3),
            ("code = 90007", 2),
            ("code < 90000", 0),
            ("code IS NULL", 0),
            ("id IS NULL AND day = 3", 2),
        ] {
            let text = format!("SELECT count(*) FROM t WHERE {filter}");
            assert_eq!(number(&catalog, &text, &["t"]).await, count, "{by:?}: {filter}");
        }
        for (value, expected) in [
            ("count(id)", 2_790),
            ("count(code)", 3_100),
            ("min(code)", 90_000),
            ("max(code)", 92_999),
            ("CAST(substr(min(id), 8) AS BIGINT)", 0),
            ("CAST(substr(max(id), 8) AS BIGINT)", 2_999),
            ("max(day)", 2_999),
        ] {
            let text = format!("SELECT {value} FROM t");
            assert_eq!(number(&catalog, &text, &["t"]).await, expected, "{by:?}: {value}");
        }
    }
}

#[tokio::test]
async fn what_is_tagged_later_loses_its_statistics_when_it_is_written_anew() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    create(&catalog, "t", "SELECT 'ann-4711' AS id, 1 AS day", &["id"]).await;
    assert_eq!(told_by_files(&shared, "t").await, [names(&["day", "id"])]);
    tag(&catalog, "t", "id", "pii").await;
    let more = plan(&catalog, "SELECT 'bob' AS id, 2 AS day", &[]).await;
    catalog.insert(&main("t"), more, session(&catalog), None, false).await.unwrap();
    let mut told = told_by_files(&shared, "t").await;
    told.sort();
    assert_eq!(told, [names(&["day"]), names(&["day", "id"])]);
    // Both kinds of files answer together.
    for (value, expected) in
        [("count(id)", 2), ("CAST(max(length(id)) AS BIGINT)", 8), ("max(day)", 2)]
    {
        let found = number(&catalog, &format!("SELECT {value} FROM t"), &["t"]).await;
        assert_eq!(found, expected, "{value}");
    }
    for (id, expected) in [("ann-4711", 1), ("bob", 1), ("eve", 0)] {
        let text = format!("SELECT count(*) FROM t WHERE id = '{id}'");
        assert_eq!(number(&catalog, &text, &["t"]).await, expected, "{id}");
    }
    // An erasure leaves neither the rows nor what the files and the log told of them.
    let begun = catalog.begin_table_erasure(&main("t"), "e").await.unwrap();
    let crate::table_erasure::TableErasure::Begun(version) = begun else { panic!("{begun:?}") };
    let keep = plan(&catalog, "SELECT id, day FROM t WHERE id <> 'ann-4711'", &["t"]).await;
    let state = session(&catalog);
    catalog.finish_table_erasure(&main("t"), "e", version, keep, &state).await.unwrap();
    catalog.purge_table_folders(&main("t"), i64::MAX).await.unwrap();
    assert_eq!(told_by_files(&shared, "t").await, [names(&["day"])]);
    for (path, content) in objects(&shared, "t").await {
        assert!(!String::from_utf8_lossy(&content).contains("ann-4711"), "{path}");
    }
}
