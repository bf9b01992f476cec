//! What is read for a purpose is what a lake would give that never had the rows of people who do
//! not consent to it: in queries of all shapes, prepared, through views, and in models.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::util::pretty::pretty_format_batches;
use catalog::policy::Principal;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use sql::{Engine, Session};

/// The rows of a statement as lines of text.
async fn rows(session: &Session, text: &str) -> Vec<String> {
    let answer = session.query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    let batches: Vec<RecordBatch> = answer.rows.try_collect().await.unwrap();
    let shown = pretty_format_batches(&batches).unwrap().to_string();
    // Widths are those of titles, which name the table.
    let cells = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join("|");
    shown.lines().skip(3).filter(|line| !line.starts_with('+')).map(cells).collect()
}

/// The only cell of a statement's answer.
async fn cell(session: &Session, text: &str) -> String {
    let found = rows(session, text).await;
    assert_eq!(found.len(), 1, "{text}: {found:?}");
    found[0].trim_matches('|').trim().to_owned()
}

async fn code(session: &Session, text: &str) -> &'static str {
    session.query(text).await.err().map_or("none", |error| error.code())
}

async fn user(engine: &Engine, name: &str) -> Session {
    let record = engine.catalog().user(name).await.unwrap().unwrap();
    engine.session(Principal::of(&record))
}

/// `plays` is under an opt-out policy for `ads`; 3, 7 and 11 have withdrawn, and `allowed` is the
/// same table without them, under no policy.
async fn governed(engine: &Engine) -> [Session; 3] {
    let local = engine.session(Principal::embedded());
    rows(&local, "CREATE USER root PASSWORD 'root-secret' ROLE admin").await;
    let root = user(engine, "root").await;
    for text in [
        "CREATE USER dpo PASSWORD 'dpo-secret' ROLE policy_admin",
        "CREATE USER ann PASSWORD 'ann-secret'",
        "CREATE TABLE plays AS SELECT n % 20 AS person, 'i' || (n * 7 % 31) AS item \
         FROM generate_series(1, 400) AS s(n)",
        "CREATE TABLE allowed AS SELECT * FROM plays WHERE person NOT IN (3, 7, 11)",
        "CREATE TABLE consents AS SELECT * FROM (VALUES (3, 'ads', false), (7, 'ads', false), \
         (11, 'ads', false), (1, 'ads', true), (5, 'news', false)) AS v(who, what, given)",
        "GRANT SELECT ON plays TO ann",
        "GRANT SELECT ON allowed TO ann",
        "GRANT SELECT ON consents TO dpo",
    ] {
        rows(&root, text).await;
    }
    let dpo = user(engine, "dpo").await;
    for text in [
        "CREATE PURPOSE ads",
        "GRANT PURPOSE ads TO USER ann",
        "CREATE CONSENT POLICY p ON plays (person) USING consents (who, what, given) \
         FOR PURPOSE ads DEFAULT ALLOW",
    ] {
        rows(&dpo, text).await;
    }
    let ann = user(engine, "ann").await;
    rows(&ann, "SET purpose = 'ads'").await;
    [root, dpo, ann]
}

const QUERIES: [&str; 17] = [
    "SELECT count(*) FROM {t}",
    "SELECT count(person), min(person), max(item) FROM {t}",
    "SELECT person, count(*) FROM {t} GROUP BY person ORDER BY person",
    "SELECT item FROM {t} ORDER BY item LIMIT 7",
    "SELECT * FROM {t} WHERE person = 3",
    "SELECT count(*) FROM {t} WHERE person <= 7 AND item LIKE 'i1%'",
    "SELECT count(*) FROM {t} WHERE person IN (3, 4, 5)",
    // An error of a row that is not there would tell of it.
    "SELECT sum(1 / (person - 3)) FROM {t}",
    "SELECT count(*) FROM {t} WHERE 1 / (person - 7) > 0",
    "SELECT count(*) FROM (SELECT DISTINCT person FROM {t})",
    "WITH c AS (SELECT * FROM {t}) SELECT count(*) FROM c AS a JOIN c AS b USING (item)",
    "SELECT count(*) FROM allowed AS a \
     WHERE EXISTS (SELECT 1 FROM {t} AS t WHERE t.person = a.person)",
    "SELECT (SELECT max(person) FROM {t} WHERE person < 8)",
    "SELECT count(*) FROM allowed WHERE item NOT IN (SELECT item FROM {t} WHERE person = 11)",
    "SELECT person, row_number() OVER (PARTITION BY item ORDER BY person) AS n FROM {t} \
     ORDER BY person, n LIMIT 9",
    "SELECT person FROM {t} UNION SELECT person FROM {t} ORDER BY person",
    "SELECT approx_distinct(person) FROM {t}",
];

#[tokio::test(flavor = "multi_thread")]
async fn queries_see_a_lake_without_those_who_do_not_consent() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let [root, _, ann] = governed(&engine).await;
    for query in QUERIES {
        let (governed, oracle) = (query.replace("{t}", "plays"), query.replace("{t}", "allowed"));
        assert_eq!(rows(&ann, &governed).await, rows(&ann, &oracle).await, "{query}");
    }
    for create in [
        "CREATE VIEW ann.seen AS SELECT person, item FROM plays",
        "CREATE TABLE ann.copy AS SELECT * FROM plays",
    ] {
        rows(&ann, create).await;
    }
    let all = "SELECT count(*) FROM allowed";
    for copy in ["SELECT count(*) FROM ann.seen", "SELECT count(*) FROM ann.copy"] {
        assert_eq!(rows(&ann, copy).await, rows(&ann, all).await);
    }
    let plan = rows(&ann, "EXPLAIN SELECT count(*) FROM plays WHERE person = 3").await.join("\n");
    assert!(plan.contains("ConsentExec") && plan.contains("[p]") && plan.contains("ads"), "{plan}");
    let plan = rows(&ann, "EXPLAIN ANALYZE SELECT * FROM plays").await.join("\n");
    assert!(plan.contains("ConsentExec") && !plan.contains("DataSourceExec"), "{plan}");
    // A copy is under the policy that it was made under; without its people it is none.
    rows(&root, "INSERT INTO consents VALUES (5, 'ads', false)").await;
    let still = rows(&ann, "SELECT count(*) FROM allowed WHERE person <> 5").await;
    for copy in ["SELECT count(*) FROM ann.seen", "SELECT count(*) FROM ann.copy"] {
        assert_eq!(rows(&ann, copy).await, still, "{copy}");
    }
    rows(&ann, "CREATE TABLE ann.counts AS SELECT item, count(*) AS n FROM plays GROUP BY item")
        .await;
    rows(&ann, "CREATE TABLE ann.other AS SELECT * FROM allowed").await;
    assert_eq!(code(&ann, "CREATE TABLE ann.bare AS SELECT item FROM plays").await, "ATT-2001");
    assert_eq!(code(&ann, "INSERT INTO ann.other SELECT * FROM plays").await, "ATT-2001");
    rows(&ann, "INSERT INTO ann.copy SELECT * FROM plays").await;
    // A withdrawal would not reach rows that are under somebody else's name.
    let renamed = "INSERT INTO ann.copy SELECT person * 0 + 1, item FROM plays";
    assert_eq!(code(&ann, renamed).await, "ATT-2001");
    // The copy of this copy has a policy that is called as that of a copy of `plays` called so.
    rows(&ann, "CREATE TABLE ann.again AS SELECT * FROM ann.copy").await;
    rows(&ann, "CREATE TABLE ann.\"copy.ann.again\" AS SELECT * FROM plays").await;
    assert_eq!(cell(&ann, "SELECT count(DISTINCT name) FROM system.consents").await, "4");
    let all = "SELECT count(*) FROM ann.\"copy.ann.again\"";
    assert_eq!(rows(&ann, all).await, still);
    for copy in ["again", "\"copy.ann.again\"", "copy"] {
        rows(&ann, &format!("DROP TABLE ann.{copy}")).await;
    }
    assert_eq!(cell(&ann, "SELECT count(*) FROM system.consents").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_counts_in_the_next_run_of_a_prepared_statement() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let [root, dpo, ann] = governed(&engine).await;
    let prepared = ann.prepare("SELECT count(*) FROM plays WHERE person = $1").await.unwrap();
    let count = async || {
        let answer = ann.run(&prepared, &[ScalarValue::Int64(Some(5))]).await.unwrap();
        let batches: Vec<RecordBatch> = answer.rows.try_collect().await.unwrap();
        pretty_format_batches(&batches).unwrap().to_string().contains("20")
    };
    assert!(count().await && count().await);
    rows(&root, "INSERT INTO consents VALUES (5, 'ads', false)").await;
    assert!(!count().await && !count().await);
    assert_eq!(cell(&ann, "SELECT count(*) FROM plays WHERE person = 5").await, "0");
    // A purpose that is not held any more lets nobody read, prepared or not.
    rows(&dpo, "REVOKE PURPOSE ads FROM USER ann").await;
    assert!(ann.run(&prepared, &[ScalarValue::Int64(Some(4))]).await.is_err());
    assert_eq!(code(&ann, "SELECT * FROM ann.seen").await, "ATT-4001");
    // Columns are shown without a purpose; rows are not.
    let columns = "SELECT count(*) FROM system.columns WHERE \"table\" = 'plays'";
    assert_eq!(cell(&ann, columns).await, "2");
    assert_eq!(code(&ann, "SELECT person FROM plays").await, "ATT-2003");
    // Where the consents cannot be read, nobody reads.
    rows(&dpo, "GRANT PURPOSE ads TO USER ann").await;
    assert_eq!(code(&ann, "SELECT person FROM plays").await, "none");
    rows(&root, "REVOKE SELECT ON consents FROM dpo").await;
    assert_eq!(code(&ann, "SELECT person FROM plays").await, "ATT-3001");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_reads_for_the_channel_of_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let [root, dpo, ann] = governed(&engine).await;
    for text in [
        "CREATE TABLE said AS SELECT * FROM (VALUES (5, 'ads', false, 'sms'), \
         (7, 'ads', false, 'email'), (9, 'ads', false, 'gpc')) AS v(who, what, given, how)",
        "GRANT SELECT ON said TO dpo",
    ] {
        rows(&root, text).await;
    }
    let policy = "CREATE OR REPLACE CONSENT POLICY p ON plays (person) USING said (who, what, \
                  given, how) FOR PURPOSE ads CHANNEL 'email', 'sms' DEFAULT ALLOW";
    rows(&dpo, policy).await;
    let absent = "SELECT 190 - sum(DISTINCT person) FROM plays";
    let prepared = ann.prepare(absent).await.unwrap();
    let ask = async || {
        let answer = ann.run(&prepared, &[]).await.unwrap();
        let batches: Vec<RecordBatch> = answer.rows.try_collect().await.unwrap();
        batches[0].column(0).as_primitive::<Int64Type>().value(0)
    };
    // The sum of all persons is 190: what is missing of it are those who are absent.
    assert_eq!(ask().await, 5 + 7 + 9);
    for (channel, missing) in [("email", 7 + 9), ("sms", 5 + 9), ("", 5 + 7 + 9), ("email", 7 + 9)]
    {
        rows(&ann, &format!("SET channel = '{channel}'")).await;
        assert_eq!((ask().await, ask().await), (missing, missing), "{channel}");
        assert_eq!(cell(&ann, absent).await, missing.to_string(), "{channel}");
    }
    rows(&root, "INSERT INTO said VALUES (11, 'ads', false, 'email')").await;
    assert_eq!(ask().await, 7 + 9 + 11);
    let plan = rows(&ann, "EXPLAIN SELECT count(*) FROM plays").await.join("\n");
    assert!(plan.contains("purpose=ads, channel=email"), "{plan}");
    // A list that the policy does not have any more is none for the next run.
    rows(&dpo, "ALTER CONSENT POLICY p SET CHANNEL 'sms'").await;
    assert!(ann.run(&prepared, &[]).await.is_err());
    assert_eq!(code(&ann, absent).await, "ATT-2003");
    rows(&dpo, "ALTER CONSENT POLICY p SET CHANNEL NONE").await;
    assert_eq!(ask().await, 5 + 7 + 9 + 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_of_those_who_consent_and_answer_of_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let [root, dpo, ann] = governed(&engine).await;
    let create = |name: &str, table: &str| {
        format!(
            "CREATE MODEL ann.{name} OPTIONS (model_type = 'matrix_factorization', \
             feedback_type = 'implicit', user_col = 'person', item_col = 'item', num_factors = 2, \
             data_split_method = 'no_split') AS SELECT person, item FROM {table}"
        )
    };
    let mut made = Vec::new();
    for (name, table) in [("m", "plays"), ("n", "allowed")] {
        let answer = ann.query(&create(name, table)).await.unwrap();
        let message = answer.message.unwrap();
        made.push(message.replace(&format!("ann.{name}@"), "it@"));
    }
    // As many users, items and interactions.
    assert_eq!(made[0], made[1]);
    let listed = "SELECT DISTINCT person FROM ml_recommend('ann.m') ORDER BY person";
    let oracle = "SELECT DISTINCT person FROM allowed ORDER BY person";
    assert_eq!(rows(&ann, listed).await, rows(&ann, oracle).await);
    let users = "SELECT count(*) FROM ML.WEIGHTS(MODEL ann.m) WHERE processed_input = 'person'";
    assert_eq!(cell(&ann, users).await, "17");
    let one = |person: i32| format!("SELECT count(*) FROM ml_recommend('ann.m', {person}, 2)");
    // Of nobody who has withdrawn, not even what is popular.
    assert_eq!(cell(&ann, &one(3)).await, "0");
    assert_eq!(cell(&ann, &one(5)).await, "2");
    let known = "SELECT purpose || ' ' || consent_version FROM system.models WHERE name = 'm'";
    assert!(cell(&ann, known).await.starts_with("ads p: main.consents@"));
    let withdrawn = "SELECT withdrawn_users FROM system.models WHERE name = 'm'";
    assert_eq!(cell(&ann, withdrawn).await, "0");
    rows(&root, "INSERT INTO consents VALUES (5, 'ads', false)").await;
    assert_eq!(cell(&ann, &one(5)).await, "0");
    assert_eq!(cell(&ann, users).await, "16");
    let score =
        "SELECT ml_score('ann.m', 5, 'i1') IS NULL AND ml_score('ann.m', 4, 'i1') IS NOT NULL";
    assert_eq!(cell(&ann, score).await, "true");
    let alike = "SELECT count(*) FROM (SELECT unnest(ml_similar_users('ann.m', 4, 20)) AS u) \
                 WHERE u['user'] = 5";
    assert_eq!(cell(&ann, alike).await, "0");
    assert_eq!(cell(&dpo, withdrawn).await, "1");
    // A model is asked for its own purpose, and trained again for it.
    assert_eq!(code(&root, &one(4)).await, "ATT-2003");
    rows(&ann, "SET purpose = ''").await;
    assert_eq!(code(&ann, &one(4)).await, "ATT-2003");
    assert_eq!(code(&root, "RETRAIN MODEL ann.m").await, "ATT-2003");
    rows(&ann, "RETRAIN MODEL ann.m").await;
    rows(&ann, "SET purpose = 'ads'").await;
    assert_eq!(cell(&ann, withdrawn).await, "0");
    assert_eq!(cell(&ann, users).await, "16");
    // The option states the purpose of a training by itself, where it is held.
    rows(&ann, "SET purpose = ''").await;
    let with_purpose = create("o", "plays").replace("num_factors", "purpose = 'ads', num_factors");
    assert_eq!(code(&ann, &create("o", "plays")).await, "ATT-2003");
    assert_eq!(code(&ann, &with_purpose.replace("'ads'", "'news'")).await, "ATT-2003");
    rows(&ann, &with_purpose).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn withdrawals_are_followed_to_users_under_other_ids() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let [root, dpo, ann] = governed(&engine).await;
    for text in [
        "CREATE TABLE views AS SELECT 'U' || (n % 20) AS person, 'i' || (n * 7 % 31) AS item \
         FROM generate_series(1, 400) AS s(n)",
        "CREATE TABLE said AS SELECT * FROM (VALUES ('U3', 'ads', false)) AS v(who, what, given)",
        "GRANT SELECT ON views TO ann",
        "GRANT SELECT ON said TO dpo",
    ] {
        rows(&root, text).await;
    }
    for text in [
        "CREATE CONSENT POLICY q ON views (person) USING said (who, what, given) \
         FOR PURPOSE ads DEFAULT ALLOW",
        "CREATE KEY web",
    ] {
        rows(&dpo, text).await;
    }
    let train = |name: &str, select: &str| {
        format!(
            "CREATE OR REPLACE MODEL ann.{name} OPTIONS (model_type = 'matrix_factorization', \
             feedback_type = 'implicit', user_col = 'who', item_col = 'item', num_factors = 2, \
             data_split_method = 'no_split') AS SELECT {select}"
        )
    };
    let one = |name: &str, id: &str| {
        format!("SELECT count(*) FROM ml_recommend('ann.{name}', '{id}', 2)")
    };
    let withdrawn =
        |name: &str| format!("SELECT withdrawn_users FROM system.models WHERE name = '{name}'");
    // Ids that the query makes.
    rows(&ann, &train("low", "lower(person) AS who, item FROM views")).await;
    assert_eq!(cell(&ann, &one("low", "u5")).await, "2");
    assert_eq!(cell(&ann, &one("low", "u3")).await, "0");
    assert_eq!(cell(&dpo, &withdrawn("low")).await, "0");
    rows(&root, "INSERT INTO said VALUES ('U5', 'ads', false)").await;
    for id in ["u5", "U5"] {
        assert_eq!(cell(&ann, &one("low", id)).await, "0", "{id}");
    }
    assert_eq!(cell(&dpo, &withdrawn("low")).await, "1");
    // What cannot be made again of an id, and what is made of other columns.
    for select in [
        "substr(person, 1, 2) AS who, item FROM views",
        "person || item AS who, item FROM views",
        "'***' || length(person) AS who, item FROM views",
        "CASE WHEN item = 'i1' THEN person ELSE '***' END AS who, item FROM views",
        "substr(person, 1, 2) AS who, item, count(*) AS rating FROM views GROUP BY 1, 2",
        "item AS who, person AS item FROM views",
        // Nor what is of no table.
        "'u17' AS who, item FROM views",
        "CASE WHEN item = 'i1' THEN 'u17' ELSE 'u18' END AS who, item FROM views",
        "person AS who, item FROM views UNION ALL SELECT 'u17', item FROM views",
        "v.who, item FROM views CROSS JOIN (VALUES ('u17'), ('u18')) AS v (who)",
        "(SELECT 'u17') AS who, item FROM views",
        "coalesce(nullif(person, 'U5'), 'u17') AS who, item FROM views",
        "greatest(person, 'u17') AS who, item FROM views",
        "'u' || row_number() OVER (ORDER BY item) AS who, item FROM views",
    ] {
        assert_eq!(code(&ann, &train("no", select)).await, "ATT-2001", "{select}");
    }
    for select in [
        "coalesce(person, 'guest') AS who, item FROM views",
        "person AS who, item FROM views UNION ALL SELECT 'u17', 'i1'",
        "CASE WHEN right(item, 1) < '5' THEN 'few' ELSE 'many' END AS who, item, \
         count(*) AS rating FROM views GROUP BY item",
    ] {
        assert_eq!(code(&ann, &train("groups", select)).await, "none", "{select}");
    }
    let groups = "right(item, 1) AS who, item, count(*) AS rating FROM views GROUP BY 1, 2";
    assert_eq!(code(&ann, &train("groups", groups)).await, "none");
    // Masks of who trains.
    let plain = "person AS who, item FROM views";
    for mask in ["'***'", "CASE WHEN current_user() = 'root' THEN person ELSE '***' END"] {
        let create = "CREATE OR REPLACE MASKING POLICY m ON views (person) USING";
        rows(&dpo, &format!("{create} {mask}")).await;
        assert_eq!(code(&ann, &train("no", plain)).await, "ATT-2001", "{mask}");
    }
    rows(
        &dpo,
        "CREATE OR REPLACE MASKING POLICY m ON views (person) USING pseudonymize(person, 'web')",
    )
    .await;
    rows(&ann, &train("masked", plain)).await;
    let token = async |id: &str| {
        let ring = engine.catalog().key_ring("web", None).await.unwrap();
        udfs::privacy::pseudonym(ring.newest(), id).unwrap()
    };
    let (six, seven) = (token("U6").await, token("U7").await);
    assert_eq!(cell(&ann, &one("masked", &six)).await, "2");
    assert_eq!(cell(&dpo, &withdrawn("masked")).await, "0");
    rows(&root, "INSERT INTO said VALUES ('U6', 'ads', false)").await;
    for id in [six.as_str(), "U6"] {
        assert_eq!(cell(&ann, &one("masked", id)).await, "0", "{id}");
    }
    assert_eq!(cell(&ann, &one("masked", &seven)).await, "2");
    assert_eq!(cell(&dpo, &withdrawn("masked")).await, "1");
    // Of whom nothing is told.
    rows(&dpo, "ALTER CONSENT POLICY q SET DEFAULT DENY").await;
    assert_eq!(cell(&ann, &one("masked", &seven)).await, "0");
    rows(&root, "INSERT INTO said VALUES ('U7', 'ads', true)").await;
    assert_eq!(cell(&ann, &one("masked", &seven)).await, "2");
    rows(&dpo, "ALTER CONSENT POLICY q SET DEFAULT ALLOW").await;
    // The generation of the key that made the users is needed, and no other one.
    rows(&dpo, "ALTER KEY web ROTATE").await;
    assert_eq!(cell(&ann, &one("masked", &six)).await, "0");
    assert_eq!(cell(&ann, &one("masked", &seven)).await, "2");
    rows(&dpo, "ALTER KEY web RETIRE GENERATION 1").await;
    assert_eq!(code(&ann, &one("masked", &seven)).await, "ATT-2001");
    rows(&ann, "RETRAIN MODEL ann.masked").await;
    assert_eq!(cell(&ann, &one("masked", &token("U6").await)).await, "0");
    assert_eq!(cell(&ann, &one("masked", &token("U7").await)).await, "2");
    assert_eq!(cell(&dpo, &withdrawn("masked")).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_learns_from_a_models_answers_follows_the_same_withdrawals() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let [root, dpo, ann] = governed(&engine).await;
    let train = |name: &str, select: &str| {
        format!(
            "CREATE OR REPLACE MODEL ann.{name} OPTIONS (model_type = 'item_knn', \
             user_col = 'person', item_col = 'item', data_split_method = 'no_split') \
             AS SELECT {select}"
        )
    };
    let one =
        |name: &str, id: &str| format!("SELECT count(*) FROM ml_recommend('ann.{name}', {id}, 2)");
    let of = |name: &str, column: &str| {
        format!("SELECT {column} FROM system.model_versions WHERE name = '{name}' AND is_default")
    };
    let withdraw = async |person: i32| {
        rows(&root, &format!("INSERT INTO consents VALUES ({person}, 'ads', false)")).await;
    };
    rows(&ann, &train("a", "person, item FROM plays")).await;
    rows(&ann, &train("b", "person, item FROM ml_recommend('ann.a')")).await;
    assert!(cell(&ann, &of("b", "consent_version")).await.starts_with("p: main.consents@"));
    assert_eq!(cell(&dpo, &of("b", "withdrawn_users")).await, "0");
    assert_eq!(cell(&ann, &one("b", "5")).await, "2");
    withdraw(5).await;
    assert_eq!(cell(&ann, &one("b", "5")).await, "0");
    assert_eq!(cell(&dpo, &of("b", "withdrawn_users")).await, "1");
    let left = cell(&dpo, &of("b", "to_unlearn")).await;
    assert!(left.contains("without consent: 1"), "{left}");
    // It is asked for the same purpose alone.
    assert_eq!(code(&root, &one("b", "4")).await, "ATT-2003");
    // Ids that are made of the answers, and others of these.
    rows(&ann, &train("c", "'x:' || person AS person, item FROM ml_recommend('ann.a')")).await;
    rows(&ann, &train("d", "upper(person) AS person, item FROM ml_recommend('ann.c')")).await;
    for (name, id) in [("c", "'x:6'"), ("d", "'X:6'")] {
        assert_eq!(cell(&ann, &one(name, id)).await, "2", "{name}");
    }
    withdraw(6).await;
    for (name, id) in [("c", "'x:6'"), ("d", "'X:6'")] {
        assert_eq!(cell(&ann, &one(name, id)).await, "0", "{name}");
        assert_eq!(cell(&dpo, &of(name, "withdrawn_users")).await, "1", "{name}");
    }
    // What had been learned of persons who had left is in what learned from it.
    let left = cell(&dpo, &of("c", "to_unlearn")).await;
    assert!(left.contains("version 1 learned from ann.a@1, which persons had left"), "{left}");
    // By the lists of users and the weights too; where they cannot be followed, it is refused.
    let weights = "feature AS person, 'i' || length(feature) AS item FROM ML.WEIGHTS(MODEL ann.f) \
                   WHERE processed_input = 'person'";
    let factors = train("f", "person, item FROM plays");
    rows(
        &ann,
        &factors.replace(
            "'item_knn'",
            "'matrix_factorization', num_factors = 2, \
        feedback_type = 'implicit'",
        ),
    )
    .await;
    rows(&ann, &train("w", weights)).await;
    assert_eq!(cell(&dpo, &of("w", "withdrawn_users")).await, "0");
    for select in [
        "left(CAST(person AS VARCHAR), 1) AS person, item FROM ml_recommend('ann.a')",
        "item AS person, person AS item FROM ml_recommend('ann.a')",
        "u['user'] AS person, 'i1' AS item \
         FROM (SELECT unnest(ml_similar_users('ann.f', 4, 9)) AS u)",
    ] {
        assert_eq!(code(&ann, &train("no", select)).await, "ATT-2001", "{select}");
    }
    let groups = "right(item, 1) AS person, item, count(*) AS rating \
                  FROM ml_recommend('ann.a') GROUP BY 1, 2";
    assert_eq!(code(&ann, &train("groups", groups)).await, "none");
    // Retrained one after the other, nobody is left in them who has withdrawn.
    for name in ["a", "b", "c", "d"] {
        rows(&ann, &format!("RETRAIN MODEL ann.{name}")).await;
        assert_eq!(cell(&dpo, &of(name, "to_unlearn IS NULL")).await, "true", "{name}");
        assert_eq!(cell(&dpo, &of(name, "withdrawn_users")).await, "0", "{name}");
    }
    // Whoever is scored is a user of the model, whichever table names the users.
    let scored = "person, item FROM allowed WHERE ml_score('ann.a', person, item) IS NOT NULL";
    rows(&ann, &train("s", scored)).await;
    assert_eq!(cell(&ann, &one("s", "8")).await, "2");
    withdraw(8).await;
    assert_eq!(cell(&ann, &one("s", "8")).await, "0");
    assert_eq!(cell(&dpo, &of("s", "withdrawn_users")).await, "1");
}
