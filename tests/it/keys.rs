//! Keys with users: who makes them, who uses them for what, and what nobody sees of them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use attune::auth::hasher::Argon2Hasher;
use catalog::policy::{Principal, Role};
use catalog::{
    Catalog, CatalogConfig, KeyConfig, LakeAccess, LakeConfig, PreviousSecret, Secret, StoreConfig,
};
use futures::TryStreamExt;
use sql::{Engine, Limits, Session};
use udfs::privacy::KeyUse;

use crate::rights::{outcome, somebody};

const MASTER: &str = "a master key of more than 32 bytes";

/// The one text that a statement answers.
async fn text(session: &Session, statement: &str) -> String {
    let answer = session.query(statement).await.unwrap();
    let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
    let column = rows[0].column(0);
    arrow::util::display::array_value_to_string(column, 0).unwrap()
}

async fn done(session: &Session, statements: &[&str]) {
    for statement in statements {
        assert_eq!(outcome(session, statement).await, Ok(0), "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_of_a_key_is_granted_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let ann = engine.session(somebody("ann", Role::Analyst));
    let root = engine.session(somebody("root", Role::Admin));
    let officer = engine.session(somebody("dpo", Role::PolicyAdmin));
    let uses = [
        ("PSEUDONYMIZE", "SELECT pseudonymize('ada', 'demo')"),
        ("PSEUDONYMIZE", "SELECT bloom_encode('ada', 'demo')"),
        ("ENCRYPT", "SELECT encrypt('ada', 'demo')"),
        ("ENCRYPT", "SELECT encrypt_deterministic('ada', 'demo')"),
        ("ENCRYPT", "SELECT fpe_encrypt('12345678', 'demo')"),
        ("ENCRYPT", "SELECT new_data_key('demo')"),
        ("ENCRYPT", "SELECT rekey(NULL, 'demo')"),
        ("DECRYPT", "SELECT decrypt(NULL, 'demo')"),
        ("DECRYPT", "SELECT fpe_decrypt('12345678', 'demo')"),
        ("DECRYPT", "SELECT decrypt_with(NULL, NULL, 'demo')"),
    ];
    // Nobody holds a use by a role, not even who grants it.
    for (_, statement) in uses {
        for session in [&ann, &root, &officer] {
            assert_eq!(outcome(session, statement).await, Err("ATT-2003"), "{statement}");
        }
    }
    for granted in ["PSEUDONYMIZE", "ENCRYPT", "DECRYPT"] {
        let grant = format!("GRANT USAGE ON KEY demo TO ROLE analyst FOR {granted}");
        assert_eq!(outcome(&ann, &grant).await, Err("ATT-4001"));
        assert_eq!(outcome(&root, &grant).await, Err("ATT-2003"));
        done(&officer, &[&grant]).await;
        for (needed, statement) in uses {
            let expected = if needed == granted { Ok(1) } else { Err("ATT-2003") };
            assert_eq!(outcome(&ann, statement).await, expected, "{granted}: {statement}");
        }
        done(&officer, &["REVOKE USAGE ON KEY demo FROM ROLE analyst"]).await;
    }
    assert_eq!(outcome(&ann, "SELECT * FROM system.keys").await, Ok(0));
    assert_eq!(outcome(&ann, "DESCRIBE KEY demo").await, Err("ATT-4001"));
    assert_eq!(outcome(&root, "DESCRIBE KEY demo").await, Ok(1));
    for statement in ["CREATE KEY k", "ALTER KEY demo ROTATE", "DROP KEY demo"] {
        assert_eq!(outcome(&ann, statement).await, Err("ATT-2003"), "{statement}");
        assert_eq!(outcome(&root, statement).await, Err("ATT-2003"), "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_way_to_write_a_key_gets_no_further() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let ann = engine.session(somebody("ann", Role::Analyst));
    let officer = engine.session(somebody("dpo", Role::PolicyAdmin));
    done(&officer, &["GRANT USAGE ON KEY demo TO ROLE analyst FOR ENCRYPT"]).await;
    let sealed = text(&ann, "SELECT encrypt('ada', 'demo')").await;
    // The key is loaded for another call of the same statement, which must not help.
    for key in ["$$demo$$", "'de' || 'mo'", "lower('DEMO')", "CAST('demo' AS TEXT)", "'demo@1'"] {
        for statement in [
            format!("SELECT encrypt('x', 'demo'), decrypt('{sealed}', {key})"),
            format!("SELECT encrypt('x', 'demo'), \"decrypt\"('{sealed}', {key})"),
            format!("EXPLAIN SELECT encrypt('x', 'demo'), decrypt('{sealed}', {key})"),
            format!("CREATE VIEW ann.v AS SELECT decrypt('{sealed}', {key}) AS name"),
        ] {
            let code = outcome(&ann, &statement).await.unwrap_err();
            assert!(code.starts_with("ATT-2"), "{code}: {statement}");
        }
    }
    // A view runs as the caller, with the rights of the moment, and so does a plan at hand.
    done(&officer, &["GRANT USAGE ON KEY demo TO ROLE analyst FOR DECRYPT"]).await;
    let view = format!("CREATE VIEW ann.v AS SELECT decrypt('{sealed}', 'demo') AS name");
    done(&ann, &[&view]).await;
    assert_eq!(text(&ann, "SELECT name FROM ann.v").await, "ada");
    let prepared = ann.prepare("SELECT name FROM ann.v").await.unwrap();
    let used: Vec<_> = prepared.keys().iter().map(|used| used.key_use).collect();
    assert_eq!(used, [KeyUse::Decrypt]);
    assert!(ann.run(&prepared, &[]).await.is_ok());
    done(&officer, &["REVOKE USAGE ON KEY demo FROM ROLE analyst FOR DECRYPT"]).await;
    assert_eq!(ann.run(&prepared, &[]).await.unwrap_err().code(), "ATT-2003");
    assert_eq!(outcome(&ann, "SELECT name FROM ann.v").await, Err("ATT-2003"));
    assert!(outcome(&ann, "SELECT encrypt('x', 'demo')").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_does_not_become_somebody_who_decrypts() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let first = engine.session(Principal::embedded());
    done(
        &first,
        &[
            "CREATE USER root PASSWORD 'root-secret' ROLE admin",
            "CREATE USER dpo PASSWORD 'dpo-secret' ROLE policy_admin",
            "CREATE USER ann PASSWORD 'ann-secret'",
            "CREATE ROLE readers",
            "GRANT USAGE ON KEY demo TO USER ann, ROLE readers FOR DECRYPT",
        ],
    )
    .await;
    let user = async |name: &str| {
        let record = engine.catalog().user(name).await.unwrap().unwrap();
        engine.session(Principal::of(&record))
    };
    let (root, officer) = (user("root").await, user("dpo").await);
    for statement in [
        "GRANT ROLE readers TO USER root",
        "REVOKE ROLE readers FROM USER ann",
        "ALTER USER ann SET PASSWORD 'taken over'",
        "CREATE OR REPLACE USER ann PASSWORD 'taken over'",
        "CREATE TOKEN mine FOR USER ann",
        "CREATE USER eve PASSWORD 'eve-secret' ROLE readers",
        "GRANT USAGE ON KEY demo TO USER root FOR DECRYPT",
        "SELECT decrypt(NULL, 'demo')",
    ] {
        assert_eq!(outcome(&root, statement).await, Err("ATT-2003"), "{statement}");
    }
    done(&root, &["CREATE USER bob PASSWORD 'bob-secret'", "GRANT ROLE analyst TO USER bob"]).await;
    done(&officer, &["REVOKE USAGE ON KEY demo FROM USER ann, ROLE readers"]).await;
    done(&root, &["GRANT ROLE readers TO USER root"]).await;
}

/// An engine over a warehouse in `folder`, with a master key, whose time the test tells.
async fn engine_at(folder: &Path, now_ms: &Arc<AtomicI64>) -> Engine {
    let warehouse = StoreConfig { url: folder.display().to_string(), ..Default::default() };
    let now = Arc::clone(now_ms);
    let mut config = CatalogConfig::new(warehouse, Arc::new(move || now.load(Ordering::Relaxed)));
    config.master_keys = vec![Secret::new(MASTER)];
    let catalog = Catalog::open(config).await.unwrap();
    Engine::open(catalog, Limits::default(), Arc::new(Argon2Hasher::default())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_over_one_warehouse_seal_and_open_alike() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicI64::new(1_700_000_000_000));
    let (one, two) =
        (engine_at(folder.path(), &now_ms).await, engine_at(folder.path(), &now_ms).await);
    let (here, there) = (one.session(Principal::embedded()), two.session(Principal::embedded()));
    done(&here, &["CREATE KEY k"]).await;
    let token = "SELECT pseudonymize('ada', 'k')";
    let first = text(&here, token).await;
    assert_eq!(text(&there, token).await, first);
    let sealed = text(&here, "SELECT encrypt('ada', 'k')").await;
    let open = format!("SELECT decrypt('{sealed}', 'k')");
    assert_eq!(text(&there, &open).await, "ada");
    let prepared = there.prepare(token).await.unwrap();
    done(&here, &["ALTER KEY k ROTATE"]).await;
    now_ms.fetch_add(1_000, Ordering::Relaxed);
    let answer = there.run(&prepared, &[]).await.unwrap();
    let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
    let second = arrow::util::display::array_value_to_string(rows[0].column(0), 0).unwrap();
    assert_ne!(second, first);
    assert_eq!(text(&there, "SELECT pseudonymize('ada', 'k@1')").await, first);
    assert_eq!(text(&there, &open).await, "ada");
    done(&there, &["ALTER KEY k RETIRE GENERATION 1"]).await;
    now_ms.fetch_add(1_000, Ordering::Relaxed);
    for session in [&here, &there] {
        assert_eq!(outcome(session, &open).await, Err("ATT-3001"));
        assert_eq!(outcome(session, "SELECT pseudonymize('ada', 'k@1')").await, Err("ATT-4004"));
    }
    done(&here, &["DROP KEY k"]).await;
    now_ms.fetch_add(1_000, Ordering::Relaxed);
    for session in [&here, &there] {
        assert_eq!(outcome(session, token).await, Err("ATT-4001"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    done(&session, &["CREATE KEY k", "ALTER KEY k ROTATE"]).await;
    let mut shown = String::new();
    for statement in [
        "EXPLAIN VERBOSE SELECT encrypt(a, 'demo'), decrypt(a, 'k') FROM (VALUES ('x')) AS t (a)",
        "SELECT * FROM system.keys",
        "SHOW KEYS",
        "DESCRIBE KEY demo",
        "DESCRIBE KEY k",
        "SELECT * FROM system.queries",
    ] {
        let answer = session.query(statement).await.unwrap();
        let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
        shown += &arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
    }
    for failing in ["SELECT decrypt('x', 'demo')", "SELECT encrypt('x', 'nope')"] {
        let error = match session.query(failing).await {
            Ok(answer) => {
                let rows: Result<Vec<_>, _> = answer.rows.try_collect().await;
                sql::Error::from(rows.unwrap_err())
            }
            Err(error) => error,
        };
        shown += &format!("{error} {error:?} {:?}", error.hint());
    }
    // The secret of `demo`, the master key, and the secrets of `k` as they are stored.
    for secret in ["aaaaaaaa", "mmmmmmmm", "wrapped\":"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    for file in std::fs::read_dir(folder.path().join("warehouse/_attune/key_secrets")).unwrap() {
        let stored = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let stored: serde_json::Value = serde_json::from_str(&stored).unwrap();
        assert!(!shown.contains(stored["wrapped"].as_str().unwrap()), "{shown}");
        assert!(!stored.to_string().contains("mmmmmmmm"));
    }
}

/// An engine with a lake and a configured key of these secrets, the newest last.
async fn configured(folder: &Path, secrets: &[&str], first_generation: u32) -> Engine {
    let store = |name: &str| StoreConfig {
        url: folder.join(name).display().to_string(),
        ..StoreConfig::default()
    };
    let mut config = CatalogConfig::new(store("warehouse"), Arc::new(|| 1_800_000_000_000_i64));
    let (name, access) = ("lake".into(), LakeAccess::Read);
    let (discover, tables) = (false, vec![]);
    config.lakes = vec![LakeConfig { name, store: store("lake"), access, discover, tables }];
    let mut secrets: Vec<Secret> =
        secrets.iter().map(|letter| Secret::new(letter.repeat(32))).collect();
    let mut key = KeyConfig::new("web", None, secrets.pop().unwrap());
    let previous = secrets.into_iter().map(|secret| PreviousSecret { id: None, secret });
    key.previous = previous.collect();
    key.first_generation = first_generation;
    config.keys = vec![key];
    let catalog = Catalog::open(config).await.unwrap();
    Engine::open(catalog, Limits::default(), Arc::new(Argon2Hasher::default())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_configuration_rotates_by_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let clicks = folder.path().join("lake/clicks");
    std::fs::create_dir_all(&clicks).unwrap();
    std::fs::write(clicks.join("part-0.csv"), "customer,n\nann,1\n").unwrap();
    let shown = "SELECT customer FROM apart";
    let (pseudonym, sealed) = {
        let engine = configured(folder.path(), &["a"], 1).await;
        let session = engine.session(Principal::embedded());
        let apart = "CREATE EXTERNAL TABLE apart STORED AS CSV LOCATION 'clicks/' \
                     OPTIONS (has_header 'true') WITH (pii = 'customer', pii_key = 'web')";
        done(&session, &[apart]).await;
        (text(&session, shown).await, text(&session, "SELECT encrypt('ada', 'web')").await)
    };
    let open = |sealed: &str| format!("SELECT decrypt('{sealed}', 'web')");
    let sealed_anew = {
        let engine = configured(folder.path(), &["a", "b"], 1).await;
        let session = engine.session(Principal::embedded());
        // The table goes on with the generation that it had.
        assert_eq!(text(&session, shown).await, pseudonym);
        assert_eq!(text(&session, "SELECT pseudonymize('ann', 'web@1')").await, pseudonym);
        assert_ne!(text(&session, "SELECT pseudonymize('ann', 'web')").await, pseudonym);
        assert_eq!(text(&session, &open(&sealed)).await, "ada");
        let older = "SELECT generation FROM system.keys WHERE state = 'older'";
        assert_eq!(text(&session, older).await, "1");
        for refused in ["ALTER KEY web ROTATE", "ALTER KEY web RETIRE GENERATION 1"] {
            assert_eq!(outcome(&session, refused).await, Err("ATT-4004"), "{refused}");
        }
        text(&session, &format!("SELECT rekey('{sealed}', 'web')")).await
    };
    // The first one was taken away, and the other one keeps its number.
    let engine = configured(folder.path(), &["b"], 2).await;
    let session = engine.session(Principal::embedded());
    assert_eq!(text(&session, &open(&sealed_anew)).await, "ada");
    assert_eq!(outcome(&session, &open(&sealed)).await, Err("ATT-3001"));
    assert_eq!(outcome(&session, "SELECT pseudonymize('ann', 'web@2')").await, Ok(1));
    assert_eq!(outcome(&session, "SELECT pseudonymize('ann', 'web@1')").await, Err("ATT-4004"));
    assert_eq!(outcome(&session, shown).await, Err("ATT-2001"));
}
