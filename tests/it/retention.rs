//! Rows whose retention is over: they are gone for everybody when their time is, and from the
//! warehouse's bytes once a server has been there, also where another one was killed at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use catalog::ObjectName;
use catalog::policy::{Principal, Role};
use futures::TryStreamExt;
use sql::{Engine, Prepared, Retained, Session};

use crate::remnants::Remnants;
use crate::rights::{engine_at, outcome, somebody};

const HOUR_MS: i64 = 3_600_000;
const DAY: Duration = Duration::from_secs(86_400);
/// 2023-11-14 22:13:20.
const START_MS: i64 = 1_700_000_000_000;
/// An id that nothing else in a warehouse has by chance.
const OLD: &str = "row-that-ages-4711";

struct House {
    folder: tempfile::TempDir,
    now_ms: Arc<AtomicI64>,
    servers: [Engine; 2],
}

impl House {
    /// Two servers over a warehouse with a table of two rows, 13 and 0 minutes old.
    async fn built() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now_ms = Arc::new(AtomicI64::new(START_MS));
        let one = engine_at(folder.path(), &now_ms).await;
        let two = engine_at(folder.path(), &now_ms).await;
        let house = Self { folder, now_ms, servers: [one, two] };
        let table = format!(
            "CREATE TABLE t AS SELECT * FROM (VALUES ('{OLD}', TIMESTAMP '2023-11-14 22:00:00'), \
             ('new', TIMESTAMP '2023-11-14 22:13:00')) AS v (id, seen)"
        );
        let policy = "CREATE RETENTION POLICY hour ON t (seen) KEEP '1 hour'";
        for text in [table.as_str(), policy] {
            assert_eq!(outcome(&house.local(), text).await, Ok(0), "{text}");
        }
        house.later(1_000);
        house
    }

    fn local(&self) -> Session {
        self.servers[0].session(Principal::embedded())
    }

    fn later(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// What a look of a server does: each table with its outcome's code, or none where it was done.
    async fn look(&self, server: usize) -> Vec<(String, Option<&'static str>)> {
        let done = sql::retain_due(&self.servers[server], DAY).await.unwrap();
        let told = |Retained { table, outcome }| (table, outcome.err().map(|error| error.code()));
        done.into_iter().map(told).collect()
    }

    fn has_bytes(&self) -> bool {
        !Remnants::of(&[OLD], &[]).below(&self.folder.path().join("tables")).is_empty()
    }

    /// Whether it is noted anywhere that a table is being rewritten.
    fn has_notes(&self) -> bool {
        let folders = std::fs::read_dir(self.folder.path().join("_attune/erasures"));
        let folders = folders.into_iter().flatten().flatten();
        let files = folders.filter_map(|folder| std::fs::read_dir(folder.path()).ok());
        files.flatten().next().is_some()
    }
}

async fn count(session: &Session, prepared: &Prepared) -> usize {
    let answer = session.run(prepared, &[]).await.unwrap();
    let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
    rows.iter().map(arrow::array::RecordBatch::num_rows).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_when_their_time_is_over_also_for_prepared_statements() {
    let house = House::built().await;
    let there = house.servers[1].session(Principal::embedded());
    let prepared = there.prepare("SELECT id FROM t").await.unwrap();
    assert_eq!(count(&there, &prepared).await, 2);
    house.later(50 * 60_000);
    assert_eq!(count(&there, &prepared).await, 1);
    assert_eq!(
        outcome(&there, "SELECT id FROM t WHERE seen < TIMESTAMP '2023-11-14 22:10:00'").await,
        Ok(0)
    );
    // The policy is shown, and neither how many rows there are nor their files.
    for explain in ["EXPLAIN", "EXPLAIN VERBOSE", "EXPLAIN ANALYZE"] {
        let answer = there.query(&format!("{explain} SELECT id FROM t")).await.unwrap();
        let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
        let plan = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
        assert!(plan.contains("hour (seen: 1 hour)") && !plan.contains("parquet"), "{plan}");
    }
    house.later(HOUR_MS);
    assert_eq!(count(&there, &prepared).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_servers_one_removes_the_rows_and_nothing_is_left_of_them() {
    let house = House::built().await;
    assert!(house.has_bytes(), "the search finds nothing");
    // Nothing is too old yet, and looked at it was.
    assert_eq!(house.look(0).await, [("main.t".to_owned(), None)]);
    assert_eq!(house.look(1).await, []);
    house.later(50 * 60_000);
    assert_eq!(house.look(1).await, []);
    house.later(24 * HOUR_MS);
    let insert = "INSERT INTO t VALUES ('newer', TIMESTAMP '2023-11-15 23:00:00')";
    assert_eq!(outcome(&house.local(), insert).await, Ok(0));
    house.later(1_000);
    let (one, two) = tokio::join!(house.look(0), house.look(1));
    assert_eq!([one, two].concat(), [("main.t".to_owned(), None)]);
    assert!(!house.has_notes());
    assert_eq!(outcome(&house.local(), "SELECT * FROM t").await, Ok(1));
    // Who reads an earlier version may read on for ten minutes.
    assert!(house.has_bytes());
    house.later(11 * 60_000);
    assert_eq!(house.look(0).await, []);
    assert!(!house.has_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_has_begun_is_done_by_the_next() {
    let house = House::built().await;
    let name = ObjectName::new("main", "t");
    house.later(50 * 60_000);
    house.servers[1].catalog().begin_retention(&name).await.unwrap().unwrap();
    house.later(1_000);
    let insert = "INSERT INTO t VALUES ('newer', TIMESTAMP '2023-11-14 23:00:00')";
    assert_eq!(outcome(&house.local(), insert).await, Err("ATT-4004"));
    assert_eq!(outcome(&house.local(), "APPLY RETENTION POLICIES ON t").await, Err("ATT-4004"));
    assert_eq!(house.look(0).await, []);
    // Reading goes on, and so does hiding.
    assert_eq!(outcome(&house.local(), "SELECT * FROM t").await, Ok(1));
    house.later(5 * 60_000);
    assert_eq!(house.look(0).await, [("main.t".to_owned(), None)]);
    assert_eq!(outcome(&house.local(), insert).await, Ok(0));
    assert_eq!(outcome(&house.local(), "SELECT * FROM t").await, Ok(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_held_while_rows_are_removed_keeps_them() {
    let house = House::built().await;
    let local = house.local();
    let subject = "CREATE SUBJECT person KEY (t.id)";
    assert_eq!(outcome(&local, subject).await, Ok(0));
    house.later(50 * 60_000);
    let (name, catalog) = (ObjectName::new("main", "t"), house.servers[1].catalog());
    let (id, _) = catalog.begin_retention(&name).await.unwrap().unwrap();
    let hold = format!("HOLD SUBJECT person '{OLD}'");
    assert_eq!(outcome(&local, &hold).await, Ok(0));
    assert!(catalog.note_retention(&name, &id).await.unwrap_err().is_lost_race());
    let applied = local.query("APPLY RETENTION POLICIES ON t").await.unwrap();
    assert_eq!(applied.affected, Some(0), "{:?}", applied.message);
    let export = format!("EXPORT SUBJECT person '{OLD}'");
    assert_eq!(outcome(&local, &export).await, Ok(1));
    let release = format!("RELEASE SUBJECT person '{OLD}' FROM HOLD");
    assert_eq!(outcome(&local, &release).await, Ok(0));
    let applied = local.query("APPLY RETENTION POLICIES ON t").await.unwrap();
    assert_eq!(applied.affected, Some(1), "{:?}", applied.message);
    // Who asks for it has the files gone at once.
    assert!(!house.has_bytes() && !house.has_notes());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_administers_policies_says_how_long_rows_are_kept() {
    let house = House::built().await;
    let ann = house.servers[0].session(somebody("ann", Role::Analyst));
    let root = house.servers[0].session(somebody("root", Role::Admin));
    for text in [
        "CREATE OR REPLACE RETENTION POLICY hour ON t (seen) KEEP '9 years'",
        "ALTER RETENTION POLICY hour ON t SET KEEP '9 years'",
        "DROP RETENTION POLICY hour ON t",
        "APPLY RETENTION POLICY hour ON t",
        "EXPLAIN APPLY RETENTION POLICIES",
    ] {
        for session in [&ann, &root] {
            assert_eq!(outcome(session, text).await, Err("ATT-2003"), "{text}");
        }
    }
}

/// Whoever reads while a table is rewritten again and again sees each row once.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_there_once_whatever_happens_meanwhile() {
    let house = House::built().await;
    let local = house.local();
    for minutes in [20, 35, 20] {
        house.later(minutes * 60_000);
        let there = outcome(&local, "SELECT * FROM t").await.unwrap();
        assert_eq!(outcome(&local, "UPDATE t SET id = id WHERE true").await, Ok(0));
        let applied = local.query("APPLY RETENTION POLICIES ON t").await.unwrap();
        assert!(applied.affected.is_some());
        assert_eq!(outcome(&local, "SELECT * FROM t").await, Ok(there));
    }
    assert_eq!(outcome(&local, "SELECT * FROM t").await, Ok(0));
}
