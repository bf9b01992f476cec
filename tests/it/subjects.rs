//! Persons who ask to be forgotten: nothing of them is left in the warehouse's bytes, also when the
//! program is killed in the middle; and what one server says of a person counts on the other one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Float32Type;
use catalog::ObjectName;
use catalog::erasures::{ErasureOf, Step};
use catalog::policy::{Principal, Role};
use catalog::subject_marks::SubjectMarks;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use sql::{Engine, Session};

use crate::remnants::Remnants;
use crate::rights::{engine_at, outcome, somebody};

/// An id that nothing else in a warehouse has by chance.
const GONE: &str = "person-who-goes-4711";
const ALIAS: &str = "cookie-of-who-goes-0815";
/// How long a step may take; a loaded machine is slow.
const STEP_MAX: Duration = Duration::from_secs(120);

/// Tables with a past, a crosswalk, two models and checks, all of which hold a person.
async fn fill(session: &Session) {
    let crm = format!(
        "CREATE TABLE crm AS SELECT 'customer-' || n AS id, 'name ' || n AS name \
         FROM generate_series(1, 200) AS s(n) UNION ALL SELECT '{GONE}', 'ann'"
    );
    let clicks = format!(
        "CREATE TABLE clicks AS SELECT 'cookie-' || (n % 200) AS cookie, \
         'item-' || (n * 7 % 23) AS item FROM generate_series(1, 2000) AS s(n) \
         UNION ALL SELECT '{ALIAS}', 'item-1' UNION ALL SELECT '{ALIAS}', 'item-2'"
    );
    let crosswalk = format!(
        "CREATE TABLE crosswalk AS SELECT id AS record_id, 'e-' || id AS entity_id FROM crm \
         WHERE id <> '{GONE}' UNION ALL SELECT '{GONE}', 'e-0' UNION ALL SELECT '{ALIAS}', 'e-0'"
    );
    let once = format!("DELETE FROM clicks WHERE cookie = '{ALIAS}' AND item = 'item-2'");
    for text in [
        crm.as_str(),
        &clicks,
        &crosswalk,
        &once,
        "CREATE MODEL factors OPTIONS (model_type = 'matrix_factorization', \
         feedback_type = 'implicit', user_col = 'cookie', item_col = 'item', num_factors = 4) \
         AS SELECT cookie, item FROM clicks",
        "CREATE MODEL neighbors OPTIONS (model_type = 'item_knn', user_col = 'cookie', \
         item_col = 'item') AS SELECT cookie, item FROM clicks",
        "CREATE EXPECTATION one ON crm CHECK (uniqueness(id) = 1)",
        "CHECK TABLE crm",
        "CREATE SUBJECT person KEY (crm.id, clicks.cookie) VIA crosswalk (record_id, entity_id)",
    ] {
        outcome(session, text).await.unwrap_or_else(|code| panic!("{text}: {code}"));
    }
}

/// A warehouse with a table of one person, who is a subject's.
async fn with_one_person(folder: &Path) -> (Engine, Session) {
    let engine = crate::slt::engine(folder).await;
    let session = engine.session(Principal::embedded());
    for text in ["CREATE TABLE t AS SELECT 'ann-4711' AS id", "CREATE SUBJECT person KEY (t.id)"] {
        assert_eq!(outcome(&session, text).await, Ok(0), "{text}");
    }
    (engine, session)
}

/// Where below a folder something is left of an id.
fn left_of(id: &str, folder: &Path) -> Vec<String> {
    Remnants::of(&[id], &[]).below(folder)
}

/// The files below a folder.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, mut files): (Vec<PathBuf>, _) = entries.partition(|path| path.is_dir());
    files.extend(folders.iter().flat_map(|folder| files_in(folder)));
    files
}

/// The first column of a query's first row, as text.
pub async fn text(session: &Session, query: &str) -> String {
    let answer = session.query(query).await.unwrap();
    let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
    let batch = rows.iter().find(|batch| batch.num_rows() > 0).unwrap();
    arrow::util::display::array_value_to_string(batch.column(0), 0).unwrap()
}

/// Nothing holds the person any more, and everybody else is as before.
async fn is_forgotten(session: &Session, warehouse: &Path) {
    assert_eq!(Remnants::of(&[GONE, ALIAS], &[]).below(warehouse), Vec::<String>::new());
    for id in [GONE, ALIAS] {
        let export = format!("EXPORT SUBJECT person '{id}'");
        assert_eq!(outcome(session, &export).await, Ok(0));
    }
    for (query, count) in [
        ("SELECT count(*) FROM crm", "200"),
        ("SELECT count(*) FROM clicks", "2000"),
        ("SELECT count(*) FROM crosswalk", "200"),
        ("SELECT count(*) FROM system.erasures WHERE state = 'done' AND is_valid", "1"),
        ("SELECT count(*) FROM system.erasures", "1"),
        ("SELECT DISTINCT source FROM ml_recommend('factors', 'cookie-1', 3)", "als"),
        ("SELECT DISTINCT source FROM ml_recommend('neighbors', 'cookie-1', 3)", "item_knn"),
    ] {
        assert_eq!(text(session, query).await, count, "{query}");
    }
    for model in ["factors", "neighbors"] {
        let query = format!("SELECT DISTINCT source FROM ml_recommend('{model}', '{ALIAS}', 3)");
        assert_eq!(text(session, &query).await, "popularity");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_who_is_forgotten_is_left_in_the_warehouse() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = folder.path().join("warehouse");
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    fill(&session).await;
    for id in [GONE, ALIAS] {
        let found = Remnants::of(&[id], &[]).below(&warehouse);
        assert!(!found.is_empty(), "the search finds nothing of {id}");
    }
    // The person in two tables, the crosswalk twice, and a user of two models.
    let export = format!("EXPORT SUBJECT person '{ALIAS}'");
    assert_eq!(outcome(&session, &export).await, Ok(6));
    let forget = format!("FORGET SUBJECT person '{GONE}'");
    let answer = session.query(&forget).await.unwrap();
    assert_eq!(answer.affected, Some(6), "{:?}", answer.message);
    is_forgotten(&session, &warehouse).await;
    // Another server, which has nothing in memory, finds the same.
    let other = crate::slt::engine(folder.path()).await;
    is_forgotten(&other.session(Principal::embedded()), &warehouse).await;
}

/// The rows of an answer.
async fn batches(session: &Session, query: &str) -> Vec<RecordBatch> {
    let answer = session.query(query).await.unwrap();
    answer.rows.try_collect().await.unwrap()
}

/// Rows of texts.
fn rows_of(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let value = |batch: &RecordBatch, column: usize, row: usize| {
        arrow::util::display::array_value_to_string(batch.column(column), row).unwrap()
    };
    let of = |batch: &RecordBatch, row: usize| -> Vec<String> {
        (0..batch.num_columns()).map(|column| value(batch, column, row)).collect()
    };
    let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |row| (batch, row)));
    rows.map(|(batch, row)| of(batch, row)).collect()
}

/// What the person's export has: kind, source, content.
async fn exported(session: &Session) -> Vec<Vec<String>> {
    rows_of(&batches(session, &format!("EXPORT SUBJECT person '{GONE}'")).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_what_models_learned_of_a_person_and_can_be_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    fill(&session).await;
    let mut exported = exported(&session).await;
    let of_models = exported.iter().filter(|row| row[0] == "model").map(|row| row[1].as_str());
    let of_models: BTreeSet<&str> = of_models.collect();
    assert_eq!(of_models, BTreeSet::from(["main.factors@1", "main.neighbors@1"]));
    let row = exported.iter().find(|row| row[1] == "main.factors@1").unwrap();
    let learned: Value = serde_json::from_str(&row[2]).unwrap();
    assert_eq!(learned["model_type"], "matrix_factorization");
    assert_eq!(learned["user"], ALIAS);
    assert_eq!(learned["interactions"].as_array().unwrap().len(), 1);
    assert_eq!(learned["interactions"][0]["item"], "item-1");
    let weights = format!(
        "SELECT factor_weights FROM ML.WEIGHTS(MODEL factors) \
         WHERE processed_input = 'cookie' AND feature = '{ALIAS}'"
    );
    let weights = batches(&session, &weights).await;
    let weights = weights.iter().find(|batch| batch.num_rows() > 0).unwrap().column(0);
    let weights = weights.as_fixed_size_list().value(0);
    let weights = weights.as_primitive::<Float32Type>().values().to_vec();
    assert_eq!(weights.len(), 4);
    let factors: Vec<Vec<f32>> = serde_json::from_value(learned["factors"].clone()).unwrap();
    assert_eq!(factors, [weights]);
    drop((session, engine));

    // The same rows, as the program writes them.
    exported.sort();
    let write = |format: &str| {
        let file = folder.path().join(format!("bundle.{format}"));
        let mut command = crate::program::attune();
        let text = format!("EXPORT SUBJECT person '{GONE}'");
        command.args(["sql", "--format", format, "-c", &text, "--warehouse"]);
        let output = command.arg(folder.path().join("warehouse")).arg("-o").arg(&file).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::File::open(file).unwrap()
    };
    let parquet = ParquetRecordBatchReaderBuilder::try_new(write("parquet")).unwrap();
    let parquet: Vec<RecordBatch> = parquet.build().unwrap().map(Result::unwrap).collect();
    let mut parquet = rows_of(&parquet);
    parquet.sort();
    assert_eq!(parquet, exported);
    let json: Vec<Value> = serde_json::from_reader(write("json")).unwrap();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let row = |row: &Value| ["kind", "source", "content"].map(|name| text(row, name)).to_vec();
    let mut json: Vec<Vec<String>> = json.iter().map(row).collect();
    json.sort();
    assert_eq!(json, exported);
}

/// The program, forgetting the person.
fn forgetting(warehouse: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attune"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ATTUNE_") {
            command.env_remove(name);
        }
    }
    let text = format!("FORGET SUBJECT person '{GONE}'");
    command.args(["sql", "-c", &text, "--warehouse"]).arg(warehouse);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// How many steps the journal of the one erasure has; `None` before it begins.
fn journal(warehouse: &Path) -> Option<usize> {
    let folder = warehouse.join("_attune/erasures");
    let erasure = std::fs::read_dir(folder).ok()?.flatten().next()?.path();
    let files: Vec<String> = std::fs::read_dir(erasure)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let begun = files.iter().any(|file| file == "job.json" || file == "certificate.json");
    begun.then(|| files.iter().filter(|file| file.starts_with("step-")).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_is_killed_at_any_step_is_ended_by_the_next_server() {
    // Three tables, two models, and what is beside.
    for steps in 0..=6 {
        let folder = tempfile::tempdir().unwrap();
        let warehouse = folder.path().join("warehouse");
        {
            let engine = crate::slt::engine(folder.path()).await;
            fill(&engine.session(Principal::embedded())).await;
        }
        let mut program = forgetting(&warehouse);
        let started = Instant::now();
        while journal(&warehouse).is_none_or(|done| done < steps) {
            if program.try_wait().unwrap().is_some() {
                break;
            }
            assert!(started.elapsed() < STEP_MAX, "step {steps} did not come");
            tokio::task::yield_now().await;
        }
        let _ = program.kill();
        program.wait().unwrap();
        let engine = crate::slt::engine(folder.path()).await;
        for (id, outcome) in sql::resume_erasures(&engine).await.unwrap() {
            outcome.unwrap_or_else(|error| panic!("{id} after step {steps}: {error}"));
        }
        is_forgotten(&engine.session(Principal::embedded()), &warehouse).await;
        // Nor is anything left that was being written.
        let folders = std::fs::read_dir(warehouse.join("tables")).unwrap().count();
        assert_eq!(folders, 3, "after step {steps}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_held_whose_erasure_has_begun() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    for text in [
        "CREATE TABLE t AS SELECT 'ann' AS id",
        "CREATE SUBJECT person KEY (t.id)",
        "CREATE TABLE loud AS SELECT upper(id) AS id FROM t",
    ] {
        assert_eq!(outcome(&session, text).await, Ok(0), "{text}");
    }
    let catalog = engine.catalog();
    let subject = catalog.subject("person").await.unwrap();
    let ids = BTreeSet::from(["ann".to_owned()]);
    let of = ErasureOf { subject, ids, only: None, entity: None, tokens: vec![] };
    let job = catalog.begin_erasure(of, "local", vec![Step::Clear]).await.unwrap();
    // Its server has stopped, and the next one ends it.
    let hold = "HOLD SUBJECT person 'ann'";
    assert_eq!(outcome(&session, hold).await, Err("ATT-2001"));
    assert_eq!(catalog.subject_marks_now("person").await.unwrap(), SubjectMarks::default());
    catalog.abandon_erasure(&job.id).await.unwrap();
    assert_eq!(outcome(&session, hold).await, Ok(0));
    assert_eq!(outcome(&session, "FORGET SUBJECT person 'ann'").await, Err("ATT-2001"));
    assert!(catalog.open_erasures().await.unwrap().0.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_ends_also_where_a_view_took_the_tables_name() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, session) = with_one_person(folder.path()).await;
    let catalog = engine.catalog();
    let subject = catalog.subject("person").await.unwrap();
    let ids = BTreeSet::from(["ann-4711".to_owned()]);
    let of = ErasureOf { subject, ids, only: None, entity: None, tokens: vec![] };
    let steps = vec![Step::Rewrite { table: ObjectName::new("main", "t") }, Step::Clear];
    catalog.begin_erasure(of, "local", steps).await.unwrap();
    for text in ["DROP TABLE t", "CREATE VIEW t AS SELECT 'bob' AS id", "RESUME ERASURE"] {
        assert_eq!(outcome(&session, text).await, Ok(0), "{text}");
    }
    assert!(catalog.open_erasures().await.unwrap().0.is_empty());
    let found = Remnants::of(&["ann-4711"], &[]).below(&folder.path().join("warehouse"));
    assert_eq!(found, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restriction_counts_on_every_server_and_for_prepared_statements() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicI64::new(1_700_000_000_000));
    let later = || now_ms.fetch_add(1_000, Ordering::Relaxed);
    let (one, two) =
        (engine_at(folder.path(), &now_ms).await, engine_at(folder.path(), &now_ms).await);
    let dpo = one.session(somebody("dpo", Role::PolicyAdmin));
    let local = one.session(Principal::embedded());
    for text in [
        "CREATE TABLE t AS SELECT * FROM (VALUES ('ann', 1), ('bob', 2)) AS v (id, n)",
        "CREATE SUBJECT person KEY (t.id)",
    ] {
        assert_eq!(outcome(&local, text).await, Ok(0), "{text}");
    }
    later();
    let there = two.session(Principal::embedded());
    let prepared = there.prepare("SELECT n FROM t").await.unwrap();
    let count = async || {
        let answer = there.run(&prepared, &[]).await.unwrap();
        let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
        rows.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>()
    };
    assert_eq!(count().await, 2);
    assert_eq!(outcome(&dpo, "RESTRICT SUBJECT person 'ann'").await, Ok(0));
    later();
    assert_eq!(count().await, 1);
    // How many rows there were before is shown by no plan.
    for explain in ["EXPLAIN", "EXPLAIN VERBOSE", "EXPLAIN ANALYZE"] {
        let answer = there.query(&format!("{explain} SELECT n FROM t")).await.unwrap();
        let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
        let plan = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
        assert!(plan.contains("SubjectsExec") && !plan.contains("parquet"), "{plan}");
    }
    assert_eq!(outcome(&there, "EXPORT SUBJECT person 'ann'").await, Ok(1));
    assert_eq!(outcome(&dpo, "RELEASE SUBJECT person 'ann' FROM RESTRICTION").await, Ok(0));
    later();
    assert_eq!(count().await, 2);
    // Who is no policy_admin may ask for nobody, also where a statement was planned before.
    let ann = two.session(somebody("ann", Role::Analyst));
    let root = two.session(somebody("root", Role::Admin));
    for text in [
        "EXPORT SUBJECT person 'ann'",
        "EXPLAIN FORGET SUBJECT person 'ann'",
        "FORGET SUBJECT person 'ann'",
        "RESTRICT SUBJECT person 'ann'",
        "RECTIFY SUBJECT person 'ann' SET t.n = 3",
        "DESCRIBE SUBJECT person",
        "RESUME ERASURE",
    ] {
        for session in [&ann, &root] {
            assert_eq!(outcome(session, text).await, Err("ATT-2003"), "{text}");
        }
    }
    assert_eq!(outcome(&ann, "SELECT * FROM system.subjects").await, Ok(0));
    assert_eq!(outcome(&ann, "SELECT * FROM system.erasures").await, Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_who_is_forgotten_is_left_in_copies() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = folder.path().join("warehouse");
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    fill(&session).await;
    for text in [
        "CREATE TABLE names AS SELECT id AS who, name FROM crm",
        "CREATE TABLE loud AS SELECT DISTINCT upper(cookie) AS cookie, item FROM clicks",
        "CREATE TABLE tokens AS SELECT pseudonymize(who, 'demo') AS token FROM names",
        "CREATE TABLE unified AS SELECT w.entity_id, count(*) AS n FROM clicks AS c \
         JOIN crosswalk AS w ON c.cookie = w.record_id GROUP BY w.entity_id",
    ] {
        outcome(&session, text).await.unwrap_or_else(|code| panic!("{text}: {code}"));
    }
    let token = format!("SELECT pseudonymize('{GONE}', 'demo')");
    let token = text(&session, &token).await;
    let left = [GONE.to_owned(), ALIAS.to_uppercase(), token];
    for id in &left {
        assert!(!left_of(id, &warehouse).is_empty(), "the search finds no {id}");
    }
    // Another server has nothing in memory.
    let other = crate::slt::engine(folder.path()).await;
    let other = other.session(Principal::embedded());
    assert_eq!(outcome(&other, &format!("FORGET SUBJECT person '{ALIAS}'")).await, Ok(0));
    for id in &left {
        assert_eq!(left_of(id, &warehouse), Vec::<String>::new());
    }
    for (query, count) in [
        ("SELECT count(*) FROM names", "200"),
        ("SELECT count(*) FROM tokens", "200"),
        ("SELECT count(*) FROM loud WHERE cookie LIKE 'COOKIE-OF-%'", "0"),
        ("SELECT count(*) FROM unified", "0"),
        ("SELECT remains LIKE '%table main.%' FROM system.erasures", "false"),
    ] {
        assert_eq!(text(&other, query).await, count, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_an_erasure_may_have_missed_does_not_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, session) = with_one_person(folder.path()).await;
    let catalog = engine.catalog();
    let subject = catalog.subject("person").await.unwrap();
    let of = |id: &str| ErasureOf {
        subject: subject.clone(),
        ids: BTreeSet::from([id.to_owned()]),
        only: None,
        entity: None,
        tokens: vec![],
    };
    // One whose last step is under way, which looks for copies, does not find this one.
    let job = catalog.begin_erasure(of("bob"), "local", vec![Step::Clear]).await.unwrap();
    let copy = "CREATE TABLE c AS SELECT id FROM t";
    assert_eq!(outcome(&session, copy).await, Err("ATT-4005"));
    assert_eq!(outcome(&session, "SELECT * FROM c").await, Err("ATT-4001"));
    assert!(catalog.copies_now().await.unwrap().is_empty());
    catalog.abandon_erasure(&job.id).await.unwrap();
    // One that has more to do before looks for copies afterwards.
    let table = ObjectName::new("main", "t");
    let steps = vec![Step::Rewrite { table }, Step::Clear];
    catalog.begin_erasure(of("ann-4711"), "local", steps).await.unwrap();
    assert_eq!(outcome(&session, copy).await, Ok(0));
    assert_eq!(outcome(&session, "SELECT * FROM c").await, Ok(1));
    assert_eq!(outcome(&session, "RESUME ERASURE").await, Ok(0));
    assert_eq!(outcome(&session, "SELECT * FROM c").await, Ok(0));
    let tables = folder.path().join("warehouse/tables");
    assert_eq!(left_of("ann-4711", &tables), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_read_keeps_nobody_from_being_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = folder.path().join("warehouse");
    {
        let engine = crate::slt::engine(folder.path()).await;
        fill(&engine.session(Principal::embedded())).await;
    }
    let mut damaged = 0;
    for path in files_in(&warehouse.join("models")) {
        if path.to_string_lossy().contains("neighbors") {
            std::fs::write(path, "PAR1").unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    // An export names what it leaves out: two rows of tables, two of the crosswalk, two models.
    let exported = exported(&session).await;
    assert_eq!(exported.len(), 6);
    let of_model = |name: &str| &exported.iter().find(|row| row[1] == name).unwrap()[2];
    let note: Value = serde_json::from_str(of_model("main.neighbors@1")).unwrap();
    let note = note["unreadable"].as_str().unwrap();
    assert!(note.starts_with("model main.neighbors@1 cannot be read and may hold"), "{note}");
    let sound: Value = serde_json::from_str(of_model("main.factors@1")).unwrap();
    assert_eq!(sound["user"], ALIAS);
    let forget = format!("FORGET SUBJECT person '{GONE}'");
    assert_eq!(outcome(&session, &forget).await, Ok(0));
    let remains = text(&session, "SELECT remains FROM system.erasures").await;
    assert!(remains.contains("model main.neighbors@1 cannot be read"), "{remains}");
    assert_eq!(text(&session, "SELECT count(*) FROM crm").await, "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_reaches_the_recommenders_of_the_persons_tables_alone() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    let kinds = [
        ("als", "'matrix_factorization', feedback_type = 'implicit', num_factors = 2"),
        ("ease", "'ease'"),
        ("hybrid", "'hybrid', base_models = ['ease', 'popularity']"),
        ("item_knn", "'item_knn'"),
        ("popularity", "'popularity'"),
    ];
    let expected = |table: &str| -> BTreeSet<String> {
        let models = kinds.iter().map(|(kind, _)| format!("main.{kind}_{table}@1"));
        models.chain([format!("main.{table}")]).collect()
    };
    // The same number is a person in one of them, and a shop in the other one.
    for table in ["visits", "shops"] {
        let rows = format!(
            "CREATE TABLE {table} AS SELECT n % 20 AS id, 'i' || (n * 7 % 13) AS item \
             FROM generate_series(1, 200) AS s(n)"
        );
        outcome(&session, &rows).await.unwrap_or_else(|code| panic!("{rows}: {code}"));
        for (kind, options) in kinds {
            let text = format!(
                "CREATE MODEL {kind}_{table} OPTIONS (model_type = {options}, user_col = 'id', \
                 item_col = 'item') AS SELECT id, item FROM {table}"
            );
            outcome(&session, &text).await.unwrap_or_else(|code| panic!("{text}: {code}"));
        }
    }
    let sources = async |subject: &str| -> BTreeSet<String> {
        let export = batches(&session, &format!("EXPORT SUBJECT {subject} '7'")).await;
        rows_of(&export).into_iter().filter_map(|row| row.into_iter().nth(1)).collect()
    };
    outcome(&session, "CREATE SUBJECT person KEY (visits.id)").await.unwrap();
    assert_eq!(sources("person").await, expected("visits"));
    outcome(&session, "FORGET SUBJECT person '7'").await.unwrap();
    assert_eq!(sources("person").await, BTreeSet::new());
    // The shop is where it was, and is found once it is a subject's.
    outcome(&session, "CREATE SUBJECT shop KEY (shops.id)").await.unwrap();
    assert_eq!(sources("shop").await, expected("shops"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_still_have_a_rectified_value_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    for text in [
        "CREATE TABLE crm AS SELECT 'u' || (n % 50) AS id, 'name ' || (n % 50) AS name, \
         'item-' || (n * 7 % 23) AS item FROM generate_series(1, 500) AS s(n)",
        "CREATE SUBJECT person KEY (crm.id)",
        "CREATE TABLE vip AS SELECT id AS who, name, name AS called FROM crm",
        "CREATE TABLE loud AS SELECT who, upper(called) AS name FROM vip",
        "CREATE TABLE names AS SELECT name, array_agg(DISTINCT id) AS ids FROM crm GROUP BY name",
        "CREATE TABLE other AS SELECT 'u1' AS id, 'name 1' AS name",
        "CREATE VIEW seen AS SELECT id, item FROM crm",
        "CREATE MODEL near OPTIONS (model_type = 'item_knn', user_col = 'id', item_col = 'item') \
         AS SELECT id, item FROM seen",
    ] {
        outcome(&session, text).await.unwrap_or_else(|code| panic!("{text}: {code}"));
    }
    let rectify = async |text: &str| {
        let answer = session.query(text).await.unwrap();
        (answer.affected, answer.message.unwrap())
    };
    let (rows, told) = rectify("RECTIFY SUBJECT person 'u1' SET crm.name = 'anna'").await;
    assert_eq!(rows, Some(10));
    for part in [
        "earlier versions of main.crm keep it",
        "table main.vip: column name has it in 10 rows and column called has it in 10 rows",
        "table main.loud: 10 rows of the person may have what was computed of it",
        "table main.names: column ids came of main.crm.id and cannot be searched",
        "model main.near@1 was trained on it, RETRAIN MODEL main.near",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    // What no id tells of is not known, and no value is shown.
    for part in ["main.other", "name 1", "anna"] {
        assert!(!told.contains(part), "{part}\n{told}");
    }
    // Once a copy is right it is not named any more.
    for column in ["name", "called"] {
        let text = format!("RECTIFY SUBJECT person 'u1' SET vip.{column} = 'anna'");
        let (rows, told) = rectify(&text).await;
        assert_eq!(rows, Some(10));
        assert!(column == "called" || !told.contains("table main.crm"), "{told}");
    }
    let (_, told) = rectify("RECTIFY SUBJECT person 'u1' SET crm.name = 'ann'").await;
    assert!(told.contains("table main.vip: column name has it in 10 rows"), "{told}");
    let (rows, told) = rectify("RECTIFY SUBJECT person 'nobody' SET crm.name = 'ann'").await;
    assert_eq!((rows, told.contains("old value")), (Some(0), false), "{told}");
    let before = "SELECT DISTINCT name FROM crm VERSION AS OF 0 WHERE id = 'u1'";
    assert_eq!(text(&session, before).await, "name 1");
}
