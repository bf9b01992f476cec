//! Holds and erasures of the same person that begin at the same time, where the erasure's server
//! is killed between its journal and its look at holds: what the next server makes of it.

use std::collections::BTreeSet;

use catalog::ObjectName;
use catalog::erasures::{ErasureJob, ErasureOf, Step};
use catalog::policy::Principal;
use sql::{Engine, Session};

use crate::rights::outcome;

const HOLD: &str = "HOLD SUBJECT person 'ann'";
const RELEASE: &str = "RELEASE SUBJECT person 'ann' FROM HOLD";
const FORGET: &str = "FORGET SUBJECT person 'ann'";
const ROWS: &str = "SELECT * FROM t";

async fn filled(engine: &Engine) -> Session {
    let session = engine.session(Principal::embedded());
    for text in [
        "CREATE TABLE t AS SELECT 'ann' AS id UNION ALL SELECT 'bob'",
        "CREATE SUBJECT person KEY (t.id)",
    ] {
        assert_eq!(outcome(&session, text).await, Ok(0), "{text}");
    }
    session
}

/// The journal that a server has written which was killed at once.
async fn begun(engine: &Engine, id: &str) -> ErasureJob {
    let catalog = engine.catalog();
    let subject = catalog.subject("person").await.unwrap();
    let ids = BTreeSet::from([id.to_owned()]);
    let of = ErasureOf { subject, ids, only: None, entity: None, tokens: vec![] };
    let steps = vec![Step::Rewrite { table: ObjectName::new("main", "t") }, Step::Clear];
    catalog.begin_erasure(of, "local", steps).await.unwrap()
}

/// What the next server says of the one erasure that it finds.
async fn resumed(engine: &Engine) -> String {
    let ended = sql::resume_erasures(engine).await.unwrap();
    let [(_, ended)]: [_; 1] = ended.try_into().unwrap();
    ended.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_held_before_anybody_looked_is_not_forgotten_by_the_next_server() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = filled(&engine).await;
    // The hold was set after the erasure's first look and found no journal yet.
    assert_eq!(outcome(&session, HOLD).await, Ok(0));
    let job = begun(&engine, "ann").await;
    let told = resumed(&engine).await;
    assert_eq!(told, format!("erasure {} is given up: the person is held", job.id));
    assert!(engine.catalog().open_erasures().await.unwrap().0.is_empty());
    assert_eq!(outcome(&session, "SELECT * FROM system.erasures").await, Ok(0));
    assert_eq!(outcome(&session, ROWS).await, Ok(2));
    assert_eq!(outcome(&session, FORGET).await, Err("ATT-2001"));
    // What was given up stands in nobody's way.
    assert_eq!(outcome(&session, RELEASE).await, Ok(0));
    assert_eq!(outcome(&session, FORGET).await, Ok(0));
    assert_eq!(outcome(&session, ROWS).await, Ok(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_goes_on_that_had_looked_and_one_of_whom_nobody_holds() {
    for has_looked in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let engine = crate::slt::engine(folder.path()).await;
        let session = filled(&engine).await;
        if has_looked {
            // Its own look came before this hold, which is going to be taken back.
            assert_eq!(outcome(&session, HOLD).await, Ok(0));
        }
        let job = begun(&engine, "ann").await;
        if has_looked {
            assert!(engine.catalog().decide_erasure(&job.id, true).await.unwrap());
        }
        let told = resumed(&engine).await;
        assert!(told.contains(&format!("certificate {}", job.id)), "{told}");
        assert!(engine.catalog().open_erasures().await.unwrap().0.is_empty());
        assert_eq!(outcome(&session, ROWS).await, Ok(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_held_keeps_no_other_erasure_from_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = filled(&engine).await;
    assert_eq!(outcome(&session, HOLD).await, Ok(0));
    for id in ["ann", "bob"] {
        begun(&engine, id).await;
    }
    assert_eq!(outcome(&session, "RESUME ERASURE").await, Ok(0));
    assert!(engine.catalog().open_erasures().await.unwrap().0.is_empty());
    let left = "SELECT * FROM t WHERE id = 'ann'";
    assert_eq!((outcome(&session, ROWS).await, outcome(&session, left).await), (Ok(1), Ok(1)));
}
