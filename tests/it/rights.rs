//! What one principal cannot see or do to another's things.

use catalog::policy::{Principal, Role};
use futures::TryStreamExt;
use sql::Session;

fn somebody(name: &str, role: Role) -> Principal {
    Principal::new(name, [role])
}

/// The code of a statement's error, or its number of rows.
async fn outcome(session: &Session, text: &str) -> Result<usize, &'static str> {
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

#[tokio::test(flavor = "multi_thread")]
async fn decrypting_is_never_implied() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let ann = engine.session(somebody("ann", Role::Analyst));
    let officer = engine.session(somebody("dpo", Role::PolicyAdmin));
    let hidden = "SELECT fpe_decrypt(fpe_encrypt('12345678', 'demo'), 'demo')";
    assert_eq!(outcome(&ann, "SELECT fpe_encrypt('12345678', 'demo')").await, Ok(1));
    assert_eq!(outcome(&ann, hidden).await, Err("ATT-2003"));
    assert_eq!(outcome(&officer, hidden).await, Ok(1));
}
