//! Models that are retrained by schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::util::display::array_value_to_string;
use catalog::policy::{Principal, Role};
use futures::TryStreamExt;
use sql::{Engine, Retrained, Session};

use crate::rights::{engine_at, outcome, somebody};

const HOUR_MS: i64 = 3_600_000;

/// What a look at the models does: each model with its outcome's code, or none when it was trained.
async fn look(engine: &Engine) -> Vec<(String, Option<&'static str>)> {
    let done = sql::retrain_due(engine, engine.catalog().now_ms()).await.unwrap();
    let told = |Retrained { model, outcome }| (model, outcome.err().map(|error| error.code()));
    done.into_iter().map(told).collect()
}

async fn versions(session: &Session) -> usize {
    let text = "SELECT unnest(generate_series(1, versions::BIGINT)) FROM system.models";
    outcome(session, text).await.unwrap()
}

/// The first value of an answer.
async fn text(session: &Session, query: &str) -> String {
    let rows = session.query(query).await.unwrap().rows;
    let batches: Vec<_> = rows.try_collect().await.unwrap();
    array_value_to_string(batches[0].column(0), 0).unwrap()
}

const CREATE: &str = "CREATE MODEL m OPTIONS (model_type = 'item_knn', schedule = '6 hours', \
                      keep_versions = 2) AS SELECT user_id, item_id FROM plays";

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_retrained_when_its_schedule_has_run_out() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicI64::new(1_000 * HOUR_MS));
    let later = |hours: i64| now_ms.fetch_add(hours * HOUR_MS, Ordering::Relaxed);
    let engine = engine_at(folder.path(), &now_ms).await;
    let other = engine_at(folder.path(), &now_ms).await;
    let local = engine.session(Principal::embedded());
    let plays = "CREATE TABLE plays AS SELECT u % 7 AS user_id, u % 5 AS item_id \
                 FROM generate_series(1, 60) AS t(u)";
    for text in [plays, CREATE] {
        assert_eq!(outcome(&local, text).await, Ok(0), "{text}");
    }
    later(5);
    assert_eq!(look(&engine).await, []);
    later(1);
    // Of two servers one trains.
    let (one, two) = tokio::join!(look(&engine), look(&other));
    let trained = [one, two].concat();
    assert_eq!(trained, [("main.m".to_owned(), None)]);
    assert_eq!(look(&engine).await, []);
    // What the other server may have written is known a second later.
    now_ms.fetch_add(2_000, Ordering::Relaxed);
    assert_eq!(versions(&local).await, 2);
    // A training by hand counts.
    later(5);
    assert_eq!(outcome(&local, "RETRAIN MODEL m").await, Ok(0));
    later(5);
    assert_eq!(look(&engine).await, []);
    assert_eq!(versions(&local).await, 2);
    // Another schedule, which a rollback leaves as it is; then none.
    let alter = "ALTER MODEL m SET (schedule = '1 hour', keep_versions = NULL)";
    assert_eq!(outcome(&local, alter).await, Ok(0));
    let back = "ALTER MODEL m SET DEFAULT_VERSION = 2";
    assert_eq!(outcome(&local, back).await, Ok(0));
    assert_eq!(look(&engine).await, [("main.m".to_owned(), None)]);
    assert_eq!(versions(&local).await, 3);
    assert_eq!(outcome(&local, "ALTER MODEL m SET (schedule = NULL)").await, Ok(0));
    later(1_000);
    assert_eq!(look(&engine).await, []);
    for (text, code) in [
        ("ALTER MODEL m SET (schedule = 'now and then')", "ATT-2001"),
        ("ALTER MODEL m SET (schedule = '1 day', schedule = NULL)", "ATT-2001"),
        ("ALTER MODEL m SET (num_neighbors = 3)", "ATT-2001"),
        ("ALTER MODEL m SET (keep_versions = 0)", "ATT-2001"),
        ("ALTER MODEL m SET ()", "ATT-2001"),
        ("ALTER MODEL m SET (nonsense = 1)", "ATT-2001"),
        ("ALTER MODEL nobody SET (schedule = '1 day')", "ATT-4001"),
    ] {
        assert_eq!(outcome(&local, text).await, Err(code), "{text}");
    }
}

/// Between trainings what is new is folded in; the schedule of trainings goes on as it was.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_is_folded_in_between_trainings() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicI64::new(1_000 * HOUR_MS));
    let later = |hours: i64| now_ms.fetch_add(hours * HOUR_MS, Ordering::Relaxed);
    let engine = engine_at(folder.path(), &now_ms).await;
    let local = engine.session(Principal::embedded());
    for text in [
        "CREATE TABLE plays AS SELECT u % 9 AS user_id, u % 7 AS item_id \
         FROM generate_series(1, 60) AS t(u)",
        "CREATE MODEL m OPTIONS (model_type = 'matrix_factorization', feedback_type = 'implicit', \
         num_factors = 2, schedule = '6 hours', fold_in_schedule = '2 hours', promote = 'always', \
         data_split_method = 'no_split') AS SELECT user_id, item_id FROM plays",
        "INSERT INTO plays VALUES (100, 3), (100, 4), (5, 200)",
    ] {
        assert!(outcome(&local, text).await.is_ok(), "{text}");
    }
    let source = "SELECT DISTINCT source FROM ml_recommend('m', 100, 2)";
    let iterations = "SELECT max(iteration) FROM ML.TRAINING_INFO(MODEL m)";
    assert_eq!(text(&local, source).await, "popularity");
    assert_eq!(text(&local, iterations).await, "8");
    later(1);
    assert_eq!(look(&engine).await, []);
    later(1);
    assert_eq!(look(&engine).await, [("main.m".to_owned(), None)]);
    assert_eq!(text(&local, source).await, "als");
    assert_eq!(text(&local, iterations).await, "2");
    later(2);
    assert_eq!(look(&engine).await, [("main.m".to_owned(), None)]);
    assert_eq!(versions(&local).await, 3);
    // The training is due six hours after the last one, whatever was folded in meanwhile.
    later(2);
    assert_eq!(look(&engine).await, [("main.m".to_owned(), None)]);
    assert_eq!(versions(&local).await, 4);
    // A warm start takes an eighth of the eight iterations.
    assert_eq!(text(&local, iterations).await, "1");
    for (text, code) in [
        ("ALTER MODEL m SET (fold_in_schedule = 'often')", "ATT-2001"),
        ("RETRAIN MODEL m OPTIONS (fold_in = TRUE, tune = TRUE)", "ATT-2001"),
        ("RETRAIN MODEL m OPTIONS (fold_in = 3)", "ATT-2001"),
    ] {
        assert_eq!(outcome(&local, text).await, Err(code), "{text}");
    }
    assert_eq!(outcome(&local, "RETRAIN MODEL m OPTIONS (fold_in = TRUE)").await, Ok(0));
    assert_eq!(outcome(&local, "ALTER MODEL m SET (fold_in_schedule = NULL)").await, Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_training_has_its_owners_rights_of_now() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicI64::new(1_000 * HOUR_MS));
    let later = |hours: i64| now_ms.fetch_add(hours * HOUR_MS, Ordering::Relaxed);
    let engine = engine_at(folder.path(), &now_ms).await;
    let root = engine.session(somebody("root", Role::Admin));
    for text in [
        "CREATE TABLE plays AS SELECT u % 7 AS user_id, u % 5 AS item_id \
         FROM generate_series(1, 60) AS t(u)",
        "CREATE USER root PASSWORD 'root-secret' ROLE admin",
        "CREATE USER ann PASSWORD 'ann-secret' ROLE analyst",
        "GRANT SELECT ON plays TO USER ann",
    ] {
        assert_eq!(outcome(&root, text).await, Ok(0), "{text}");
    }
    let record = engine.catalog().user("ann").await.unwrap().unwrap();
    let ann = engine.session(Principal::of(&record));
    let create = CREATE.replace("MODEL m", "MODEL ann.m");
    assert_eq!(outcome(&ann, &create).await, Ok(0));
    let others = CREATE.replace("MODEL m", "MODEL ann.other").replace("'6 hours'", "'1 day'");
    assert_eq!(outcome(&ann, &others).await, Ok(0));
    later(7);
    assert_eq!(look(&engine).await, [("ann.m".to_owned(), None)]);
    assert_eq!(outcome(&root, "REVOKE SELECT ON plays FROM USER ann").await, Ok(0));
    later(7);
    let failed = look(&engine).await;
    assert!(matches!(&failed[..], [(model, Some(_))] if model == "ann.m"), "{failed:?}");
    // It is tried again when the schedule has run out once more, not before.
    assert_eq!(look(&engine).await, []);
    assert_eq!(outcome(&root, "GRANT SELECT ON plays TO USER ann").await, Ok(0));
    later(6);
    assert_eq!(look(&engine).await, [("ann.m".to_owned(), None)]);
}
