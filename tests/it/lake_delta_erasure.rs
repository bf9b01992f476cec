//! Persons who are forgotten in Delta tables of a lake that Attune may write: nothing of them is
//! left in the tables' folders, log and past included, everybody else's rows are there once, and
//! whoever is killed after any write has lost nothing.

use std::path::Path;

use arrow::array::RecordBatch;
use catalog::LakeAccess;
use catalog::policy::Principal;
use futures::TryStreamExt;
use sql::Session;

use crate::forgotten::{DONE, Ended, copy, ended_after};
use crate::lake_erasure::engine;
use crate::remnants::Remnants;
use crate::rights::outcome;
use crate::s3::{BUCKET, Store};
use crate::slt::engine_with;
use crate::subjects::text;

const ID: &str = "person-who-goes-4711";
const MAIL: &str = "Anna.Gone-4711@Example.org";
const SUBJECT: &str = "CREATE SUBJECT person KEY (lake.people.id)";

fn remnants() -> Remnants {
    Remnants::of(&[ID, MAIL], &[])
}

/// A Delta table `people` of 220 others and the person, whom three files of it hold, and two
/// versions before.
async fn fill(lake: &Path) {
    let made = tempfile::tempdir().unwrap();
    let data = made.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    let others = |from: u32, to: u32| {
        format!(
            "SELECT 'customer-' || n AS id, 'user' || n || '@example.com' AS mail, n \
             FROM generate_series({from}, {to}) AS s(n)"
        )
    };
    {
        let engine = engine_with(made.path(), &data, LakeAccess::Read).await;
        let session = engine.session(Principal::embedded());
        for statement in [
            format!(
                "CREATE TABLE people AS {} UNION ALL SELECT '{ID}', '{MAIL}', 500",
                others(0, 99)
            ),
            format!("UPDATE people SET mail = lower(mail) WHERE id = '{ID}'"),
            format!(
                "INSERT INTO people {} UNION ALL SELECT '{ID}', '{MAIL}', 501",
                others(100, 199)
            ),
            format!("INSERT INTO people {}", others(200, 219)),
            format!("INSERT INTO people VALUES ('{ID}', '{MAIL}', 502)"),
        ] {
            let done = outcome(&session, &statement).await;
            done.unwrap_or_else(|code| panic!("{statement}: {code}"));
        }
    }
    let tables = std::fs::read_dir(made.path().join("warehouse/tables")).unwrap();
    let tables: Vec<_> = tables.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(tables.len(), 1, "{tables:?}");
    std::fs::create_dir_all(lake).unwrap();
    std::fs::rename(&tables[0], lake.join("people")).unwrap();
}

async fn others_are_there(session: &Session, when: &str) {
    for (query, answer) in [
        ("SELECT count(DISTINCT id) * 1000 + count(*) FROM lake.people", "220220"),
        ("SELECT sum(n) FROM lake.people", "24090"),
        ("SELECT max(mail) FROM lake.people", "user9@example.com"),
    ] {
        assert_eq!(text(session, query).await, answer, "{when}: {query}");
    }
}

async fn message(session: &Session, statement: &str) -> String {
    session.query(statement).await.unwrap().message.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_who_is_forgotten_is_left_in_a_delta_table_and_its_past() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, warehouse) = (folder.path().join("lake"), folder.path().join("warehouse"));
    fill(&lake).await;
    let engine = engine_with(folder.path(), &lake, LakeAccess::Rewrite).await;
    let session = engine.session(Principal::embedded());
    assert_eq!(outcome(&session, SUBJECT).await, Ok(0));
    let remnants = remnants();
    for what in ["_delta_log", ".parquet"] {
        let found = remnants.below(&lake);
        assert!(found.iter().any(|found| found.contains(what)), "{what}: {found:?}");
    }
    assert_eq!(text(&session, "SELECT count(*) FROM lake.people VERSION AS OF 0").await, "101");
    let explain = session.query(&format!("EXPLAIN FORGET SUBJECT person '{ID}'")).await.unwrap();
    let told: Vec<RecordBatch> = explain.rows.try_collect().await.unwrap();
    let told = arrow::util::pretty::pretty_format_batches(&told).unwrap().to_string();
    assert_eq!(told.matches("hide from every read, and rewrite the files").count(), 1, "{told}");

    let forget = session.query(&format!("FORGET SUBJECT person '{ID}'")).await.unwrap();
    let told = forget.message.unwrap_or_default();
    assert!(told.contains("nothing is known to remain"), "{told}");
    assert_eq!(forget.affected, Some(3), "{told}");
    for place in [&lake, &warehouse] {
        assert_eq!(remnants.below(place), Vec::<String>::new());
    }
    let certificate = text(&session, "SELECT certificate FROM system.erasures").await;
    for named in ["people/part-", "versions before 5 are purged"] {
        assert!(certificate.contains(named), "{named} in {certificate}");
    }
    others_are_there(&session, "the same server").await;
    let past = session.query("SELECT count(*) FROM lake.people VERSION AS OF 4").await;
    let past = past.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(past.contains("version 4 of table lake.people was purged by erasure"), "{past}");
    let now = "SELECT count(*) FROM lake.people VERSION AS OF 5";
    assert_eq!(text(&session, now).await, "220");
    // Another server finds no more and no less, and somebody else goes too.
    let other = engine_with(folder.path(), &lake, LakeAccess::Rewrite).await;
    let session = other.session(Principal::embedded());
    others_are_there(&session, "another server").await;
    let told = message(&session, "FORGET SUBJECT person 'customer-7'").await;
    assert!(told.contains("nothing is known to remain"), "{told}");
    assert_eq!(text(&session, "SELECT count(*) FROM lake.people").await, "219");
    assert_eq!(Remnants::of(&["user7@example.com"], &[]).below(&lake), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_table_that_is_not_written_is_hidden_and_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    fill(&lake).await;
    std::fs::create_dir(lake.join("people/metadata")).unwrap();
    std::fs::write(lake.join("people/metadata/v1.metadata.json"), "{}").unwrap();
    let engine = engine_with(folder.path(), &lake, LakeAccess::Rewrite).await;
    let session = engine.session(Principal::embedded());
    assert_eq!(outcome(&session, SUBJECT).await, Ok(0));
    assert_eq!(outcome(&session, &format!("FORGET SUBJECT person '{ID}'")).await, Ok(0));
    others_are_there(&session, "hidden").await;
    let remains = text(&session, "SELECT remains FROM system.erasures").await;
    for named in ["people/part-", "it is of an Iceberg table"] {
        assert!(remains.contains(named), "{named} in {remains}");
    }
    assert!(!remnants().below(&lake).is_empty());
}

/// A bucket with the table in a lake, and the subject in a warehouse.
async fn fill_bucket(origin: &Path) {
    fill(&origin.join(BUCKET).join("l")).await;
    let s3 = Store::over(origin).await;
    let session = engine(&s3).await.session(Principal::embedded());
    assert_eq!(outcome(&session, SUBJECT).await, Ok(0));
}

/// Whether an erasure's first step, which purges the table, is done.
fn is_purged(bucket: &Path) -> bool {
    let erasures = std::fs::read_dir(bucket.join("w/_attune/erasures")).into_iter().flatten();
    erasures.flatten().any(|erasure| erasure.path().join("step-0000.json").exists())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_others_end_after_the_purge_goes_with_the_erasure() {
    let origin = tempfile::tempdir().unwrap();
    fill_bucket(origin.path()).await;
    let forget = format!("FORGET SUBJECT person '{ID}'");
    for writes in 0.. {
        let folder = tempfile::tempdir().unwrap();
        copy(origin.path(), folder.path());
        let bucket = folder.path().join(BUCKET);
        let s3 = Store::over(folder.path()).await;
        let killed = engine(&s3).await;
        s3.lives.kill_after(writes);
        let forgotten = outcome(&killed.session(Principal::embedded()), &forget).await;
        assert!(s3.lives.revive(), "{forgotten:?} after {writes} writes");
        if !is_purged(&bucket) {
            continue;
        }
        let late = format!("l/people/_delta_log/{:020}.checkpoint.parquet", 3);
        std::fs::write(bucket.join(late), ID).unwrap();
        let next = engine(&s3).await;
        for (id, ended) in sql::resume_erasures(&next).await.unwrap() {
            ended.unwrap_or_else(|error| panic!("{id}: {error}"));
        }
        assert_eq!(remnants().below(&bucket), Vec::<String>::new());
        let session = next.session(Principal::embedded());
        assert_eq!(text(&session, DONE).await, "1");
        others_are_there(&session, "after a late checkpoint").await;
        break;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_is_killed_after_any_write_is_ended_by_the_next_server() {
    let origin = tempfile::tempdir().unwrap();
    fill_bucket(origin.path()).await;
    let forget = format!("FORGET SUBJECT person '{ID}'");
    let remnants = remnants();
    for writes in 0.. {
        let Ended { session, forgotten, was_killed, folder, .. } =
            &ended_after(writes, origin.path(), &forget, engine).await;
        let when = format!("after {writes} writes");
        if text(session, DONE).await == "0" {
            assert!(forgotten.is_err(), "{when}");
            assert_eq!(outcome(session, &forget).await, Ok(0), "{when}");
        }
        assert_eq!(remnants.below(&folder.path().join(BUCKET)), Vec::<String>::new(), "{when}");
        assert_eq!(text(session, DONE).await, "1", "{when}");
        others_are_there(session, &when).await;
        if !*was_killed {
            assert!(writes > 12, "a purge of {writes} writes");
            break;
        }
    }
}
