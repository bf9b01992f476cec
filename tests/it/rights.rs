//! What one principal cannot see or do to another's things.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::datatypes::{DataType, Field, Schema};
use attune::auth::hasher::Argon2Hasher;
use catalog::policy::{Principal, Role};
use catalog::{Catalog, CatalogConfig, StoreConfig};
use datafusion::physical_plan::EmptyRecordBatchStream;
use futures::TryStreamExt;
use sql::{Engine, IfMissing, IfPresent, Ingest, Limits, Session, SessionOptions};

pub fn somebody(name: &str, role: Role) -> Principal {
    Principal::new(name, [role])
}

/// The code of a statement's error, or its number of rows.
pub async fn outcome(session: &Session, text: &str) -> Result<usize, &'static str> {
    let answer = session.query(text).await.map_err(|error| error.code())?;
    let rows: Vec<_> = answer.rows.try_collect().await.map_err(|e| sql::Error::from(e).code())?;
    Ok(rows.iter().map(arrow::array::RecordBatch::num_rows).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analysts_schema_is_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let ann = engine.session(somebody("ann", Role::Analyst));
    let bob = engine.session(somebody("bob", Role::Analyst));
    let root = engine.session(somebody("root", Role::Admin));
    let granted = "GRANT SELECT ON ALL TABLES IN SCHEMA lake TO ROLE analyst";
    assert_eq!(outcome(&root, granted).await, Ok(0));
    let model = "CREATE MODEL ann.m OPTIONS (model_type = 'matrix_factorization', \
                 feedback_type = 'implicit', user_col = 'customer', item_col = 'order_id', \
                 num_factors = 2) AS SELECT customer, order_id FROM lake.orders";
    let table = "CREATE TABLE ann.t AS SELECT 1 AS secret";
    let view = "CREATE VIEW ann.v AS SELECT * FROM ann.t";
    for text in [model, table, view] {
        assert_eq!(outcome(&ann, text).await, Ok(0), "{text}");
    }
    let recommend = "SELECT * FROM ml_recommend('ann.m', 'ann', 1)";
    for text in [recommend, "SELECT * FROM t", "SELECT * FROM v", "SELECT secret FROM ann.t"] {
        assert_eq!(outcome(&ann, text).await, Ok(1), "{text}");
    }
    let score = "SELECT als_score('ann.m', 'ann', 1)";
    for text in [recommend, score, "SELECT * FROM ann.t", "SELECT * FROM ann.v", "SELECT * FROM t"]
    {
        assert_eq!(outcome(&bob, text).await, Err("ATT-4001"), "{text}");
    }
    for text in ["DROP TABLE ann.t", "INSERT INTO ann.t VALUES (2)", "DROP MODEL ann.m"] {
        let code = outcome(&bob, text).await.unwrap_err();
        assert!(["ATT-2001", "ATT-2003", "ATT-4001"].contains(&code), "{text}: {code}");
    }
    for text in [
        "CREATE TABLE main.x AS SELECT 1 AS a",
        "DROP TABLE main.x",
        "CREATE VIEW main.v AS SELECT 1 AS a",
    ] {
        assert_eq!(outcome(&ann, text).await, Err("ATT-2003"), "{text}");
    }
    let listed = "SELECT * FROM system.models WHERE schema = 'ann' \
                  UNION ALL BY NAME SELECT * FROM system.models WHERE false";
    assert_eq!(outcome(&bob, listed).await, Ok(0));
    assert_eq!(outcome(&bob, "SELECT * FROM system.tables WHERE schema = 'ann'").await, Ok(0));
    assert_eq!(outcome(&bob, "SELECT * FROM system.queries WHERE principal = 'ann'").await, Ok(0));
    assert_eq!(outcome(&root, recommend).await, Ok(1));
    assert_eq!(outcome(&root, "SELECT * FROM ann.t").await, Ok(1));
}

/// An engine over a warehouse whose time the test tells.
pub async fn engine_at(folder: &Path, now_ms: &Arc<AtomicI64>) -> Engine {
    let warehouse = StoreConfig { url: folder.display().to_string(), ..Default::default() };
    let now = Arc::clone(now_ms);
    let config = CatalogConfig::new(warehouse, Arc::new(move || now.load(Ordering::Relaxed)));
    let catalog = Catalog::open(config).await.unwrap();
    Engine::open(catalog, Limits::default(), Arc::new(Argon2Hasher::default())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_over_one_warehouse_agree_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicI64::new(1_700_000_000_000));
    let (one, two) =
        (engine_at(folder.path(), &now_ms).await, engine_at(folder.path(), &now_ms).await);
    let root = one.session(Principal::embedded());
    for text in [
        "CREATE USER root PASSWORD 'root-secret' ROLE admin",
        "CREATE USER ann PASSWORD 'ann-secret'",
        "CREATE ROLE readers",
        "CREATE TABLE t AS SELECT 1 AS n",
        "GRANT SELECT ON t TO ROLE readers",
    ] {
        assert_eq!(outcome(&root, text).await, Ok(0), "{text}");
    }
    // The other server has not seen the user yet, and looks for it.
    let record = two.catalog().user("ann").await.unwrap().unwrap();
    let ann = two.session(Principal::of(&record));
    let text = "SELECT n FROM t";
    assert_eq!(outcome(&ann, text).await, Err("ATT-4001"));
    outcome(&root, "GRANT ROLE readers TO USER ann").await.unwrap();
    now_ms.fetch_add(1_000, Ordering::Relaxed);
    let prepared = ann.prepare(text).await.unwrap();
    assert!(ann.run(&prepared, &[]).await.is_ok());
    for revoke in ["REVOKE SELECT ON t FROM ROLE readers", "REVOKE ROLE readers FROM USER ann"] {
        outcome(&root, revoke).await.unwrap();
        now_ms.fetch_add(1_000, Ordering::Relaxed);
        assert_eq!(ann.run(&prepared, &[]).await.unwrap_err().code(), "ATT-4001", "{revoke}");
        assert_eq!(outcome(&ann, text).await, Err("ATT-4001"));
        outcome(&root, "GRANT SELECT ON t TO ROLE readers").await.unwrap();
        outcome(&root, "GRANT ROLE readers TO USER ann").await.unwrap();
        now_ms.fetch_add(1_000, Ordering::Relaxed);
        assert!(ann.run(&prepared, &[]).await.is_ok());
    }
    // Nothing is kept in memory alone: a server that starts now knows the same.
    let restarted = engine_at(folder.path(), &now_ms).await;
    let record = restarted.catalog().user("ann").await.unwrap().unwrap();
    let ann = restarted.session(Principal::of(&record));
    assert_eq!(outcome(&ann, text).await, Ok(1));
    outcome(&root, "DROP USER ann").await.unwrap();
    now_ms.fetch_add(1_000, Ordering::Relaxed);
    assert_eq!(outcome(&ann, text).await, Err("ATT-2003"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_administrators_do_not_drop_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicI64::new(1_700_000_000_000));
    let (one, two) =
        (engine_at(folder.path(), &now_ms).await, engine_at(folder.path(), &now_ms).await);
    let local = one.session(Principal::embedded());
    for name in ["ann", "bob"] {
        let text = format!("CREATE USER {name} PASSWORD '{name}-secret' ROLE admin");
        assert_eq!(outcome(&local, &text).await, Ok(0), "{text}");
    }
    now_ms.fetch_add(1_000, Ordering::Relaxed);
    let ann = one.session(somebody("ann", Role::Admin));
    let bob = two.session(somebody("bob", Role::Admin));
    for session in [&ann, &bob] {
        assert_eq!(outcome(session, "SELECT name FROM system.users").await, Ok(2));
    }
    assert_eq!(outcome(&ann, "DROP USER bob").await, Ok(0));
    // The other server has both for another second.
    assert_eq!(outcome(&bob, "DROP USER ann").await, Err("ATT-4003"));
    assert!(one.catalog().user("ann").await.unwrap().is_some());
    assert!(one.catalog().user("bob").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_does_not_succeed_a_policy_admin_who_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicI64::new(1_700_000_000_000));
    {
        let engine = engine_at(folder.path(), &now_ms).await;
        let local = engine.session(Principal::embedded());
        for text in [
            "CREATE USER root PASSWORD 'root-secret' ROLE admin",
            "CREATE USER dpo PASSWORD 'dpo-secret' ROLE policy_admin",
        ] {
            assert_eq!(outcome(&local, text).await, Ok(0), "{text}");
        }
    }
    let documents = folder.path().join("_attune/users/user.dpo");
    for document in std::fs::read_dir(documents).unwrap().flatten() {
        std::fs::write(document.path(), r#"{ "format": 99 }"#).unwrap();
    }
    let engine = engine_at(folder.path(), &now_ms).await;
    let root = engine.session(somebody("root", Role::Admin));
    let text = "GRANT ROLE policy_admin TO USER root";
    assert_eq!(outcome(&root, text).await, Err("ATT-2003"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_token_changes_no_password_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicI64::new(1_700_000_000_000));
    let engine = engine_at(folder.path(), &now_ms).await;
    let local = engine.session(Principal::embedded());
    for text in [
        "CREATE USER root PASSWORD 'root-secret' ROLE admin",
        "CREATE USER ann PASSWORD 'ann-secret'",
    ] {
        assert_eq!(outcome(&local, text).await, Ok(0), "{text}");
    }
    let record = engine.catalog().user("ann").await.unwrap().unwrap();
    let delegated = SessionOptions { delegated: true, ..SessionOptions::default() };
    let token = engine.session_with(Principal::of(&record), delegated);
    let text = "ALTER USER ann SET PASSWORD 'another secret'";
    assert_eq!(outcome(&token, text).await, Err("ATT-2003"));
    let own = engine.session(Principal::of(&record));
    assert_eq!(outcome(&own, text).await, Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_grants_at_once_are_both_there_or_one_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicI64::new(1_700_000_000_000));
    let (one, two) =
        (engine_at(folder.path(), &now_ms).await, engine_at(folder.path(), &now_ms).await);
    let (left, right) = (one.session(Principal::embedded()), two.session(Principal::embedded()));
    outcome(&left, "CREATE TABLE t AS SELECT 1 AS n").await.unwrap();
    outcome(&left, "CREATE TABLE u AS SELECT 1 AS n").await.unwrap();
    let (a, b) = tokio::join!(
        outcome(&left, "GRANT SELECT ON t TO ROLE analyst"),
        outcome(&right, "GRANT SELECT ON u TO ROLE analyst")
    );
    let granted = [a, b].iter().filter(|outcome| outcome.is_ok()).count();
    for refused in [a, b].into_iter().filter_map(Result::err) {
        assert_eq!(refused, "ATT-4003");
    }
    let restarted = engine_at(folder.path(), &now_ms).await;
    let fresh = restarted.session(Principal::embedded());
    assert_eq!(outcome(&fresh, "SELECT * FROM system.grants").await, Ok(granted));
}

/// What a statement says when it is refused.
async fn refusal(session: &Session, text: &str) -> String {
    let failed = match session.query(text).await {
        Err(error) => error,
        Ok(answer) => match answer.rows.try_collect::<Vec<_>>().await {
            Err(error) => sql::Error::from(error),
            Ok(_) => panic!("{text} was not refused"),
        },
    };
    format!("{} {failed} {:?}", failed.code(), failed.hint())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_tells_what_is_hidden_from_what_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let root = engine.session(Principal::embedded());
    for text in [
        "CREATE TABLE main.hidden AS SELECT 1 AS a",
        "CREATE VIEW main.unseen AS SELECT 1 AS a",
        "CREATE MODEL main.taught OPTIONS (model_type = 'matrix_factorization', feedback_type = \
         'implicit', user_col = 'customer', item_col = 'order_id', num_factors = 2) AS \
         SELECT customer, order_id FROM lake.orders",
    ] {
        assert!(outcome(&root, text).await.is_ok(), "{text}");
    }
    let ann = engine.session(somebody("ann", Role::Analyst));
    let templates = [
        "SELECT * FROM main.{}",
        "SELECT * FROM {}",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM main.{})",
        "WITH c AS (SELECT a FROM main.{}) SELECT * FROM c",
        "SELECT * FROM main.{} VERSION AS OF 0",
        "DESCRIBE main.{}",
        "EXPLAIN SELECT a FROM main.{}",
        "EXPLAIN ANALYZE SELECT a FROM main.{}",
        "INSERT INTO main.{} VALUES (1)",
        "INSERT INTO {} SELECT 1",
        "DELETE FROM main.{} WHERE a = 1",
        "UPDATE main.{} SET a = 2",
        "TRUNCATE TABLE main.{}",
        "DROP TABLE main.{}",
        "DROP TABLE IF EXISTS main.{}",
        "DROP VIEW main.{}",
        "CREATE TABLE main.{} AS SELECT 1 AS a",
        "CREATE TABLE IF NOT EXISTS main.{} AS SELECT 1 AS a",
        "CREATE OR REPLACE VIEW main.{} AS SELECT 1 AS a",
        "CREATE VIEW ann.v AS SELECT a FROM main.{}",
        "CREATE TABLE ann.t AS SELECT a FROM main.{}",
        "CREATE EXTERNAL TABLE main.{} STORED AS CSV LOCATION 'orders/'",
        "SELECT generalize('x', 'main.{}', 1)",
        "SELECT * FROM ml_recommend('main.{}', 'u', 1)",
        "SELECT als_score('main.{}', 'u', 1)",
        "SELECT * FROM ML.WEIGHTS(MODEL main.{})",
        "DESCRIBE MODEL main.{}",
        "RETRAIN MODEL main.{}",
        "DROP MODEL main.{}",
        "ALTER MODEL main.{} SET DEFAULT_VERSION = 1",
        "CREATE MODEL main.{} OPTIONS (model_type = 'matrix_factorization') AS SELECT 1 AS u, 2 AS i",
        "GRANT SELECT ON main.{} TO PUBLIC",
        "REVOKE SELECT ON main.{} FROM PUBLIC",
        "GRANT USAGE ON MODEL main.{} TO PUBLIC",
        "SHOW GRANTS ON main.{}",
    ];
    for (if_missing, if_present) in [
        (IfMissing::Create, IfPresent::Append),
        (IfMissing::Create, IfPresent::Fail),
        (IfMissing::Create, IfPresent::Replace),
        (IfMissing::Fail, IfPresent::Append),
        (IfMissing::Fail, IfPresent::Replace),
    ] {
        let mut told = Vec::new();
        for name in ["hidden", "unseen", "taught", "absent"] {
            let (catalog, schema, table) = (None, Some("main".into()), name.to_owned());
            let ingest = Ingest { catalog, schema, table, if_missing, if_present };
            let columns = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
            let rows = Box::pin(EmptyRecordBatchStream::new(columns));
            let error = ann.ingest(name, &ingest, rows).await.unwrap_err();
            let text = format!("{} {error} {:?}", error.code(), error.hint());
            told.push(text.replace(name, "it"));
        }
        assert!(told.iter().all(|text| *text == told[0]), "{told:#?}");
    }
    for template in templates {
        for (there, absent) in [("hidden", "absent"), ("unseen", "absent"), ("taught", "absent")] {
            let told = refusal(&ann, &template.replace("{}", there)).await.replace(there, "it");
            let missing = refusal(&ann, &template.replace("{}", absent)).await;
            assert_eq!(told, missing.replace(absent, "it"), "{template} {there}");
        }
    }
}
