//! Trainings that are ended: what was begun leaves nothing behind; and what trainings tell.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use catalog::policy::Principal;
use futures::TryStreamExt;
use sql::{Engine, Session};

/// 1,000 users of 20 items each: a trial takes a moment.
const ROWS: &str = "SELECT u AS user_id, (u * 7919 + i * 104729) % 300 AS item_id \
                    FROM generate_series(1, 1000) AS a(u) CROSS JOIN generate_series(1, 20) AS b(i)";

async fn rows(session: &Session, text: &str) -> sql::Result<usize> {
    let batches: Vec<RecordBatch> =
        session.query(text).await?.rows.try_collect().await.map_err(sql::Error::from)?;
    Ok(batches.iter().map(RecordBatch::num_rows).sum())
}

/// Folders of versions that are not whole: without a manifest.
fn half_versions(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let folders: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    let mut found = vec![];
    for path in folders {
        let is_version = path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            !name.is_empty() && name.chars().all(|digit| digit.is_ascii_digit())
        });
        let is_model = path.components().any(|part| part.as_os_str() == "models");
        if is_version && is_model && !path.join("manifest.json").exists() {
            found.push(path.clone());
        }
        found.extend(half_versions(&path));
    }
    found
}

/// Waits for what comes within a bounded time.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(10), "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Cancels a training once it is in a phase; gives how long it took to end.
async fn cancel_in(session: &Session, phase: &str, text: &str) -> Duration {
    let prepared = session.prepare(text).await.unwrap();
    let submitted = session.submit(&session.engine().new_query_id(), &prepared);
    let (mut progress, cancel) = (submitted.progress(), submitted.cancel());
    let running = tokio::spawn(async move { submitted.run(&[]).await.map(|_| ()) });
    let reached = progress.wait_for(|now| now.as_ref().is_some_and(|now| now.phase == phase));
    tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap().unwrap();
    let started = Instant::now();
    cancel.cancel();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "ATT-3004", "{error}");
    started.elapsed()
}

/// An engine that has a model `m` already.
async fn with_model(folder: &Path) -> (Engine, Session) {
    let engine = crate::slt::engine(folder).await;
    let session = engine.session(Principal::embedded());
    let popular = "CREATE MODEL m OPTIONS (model_type = 'popularity') AS SELECT 1 AS user_id, \
                   2 AS item_id";
    rows(&session, popular).await.unwrap();
    (engine, session)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_training_leaves_no_half_version() {
    let folder = tempfile::tempdir().unwrap();
    let (_engine, session) = with_model(folder.path()).await;
    for (phase, options) in [
        ("training", "num_factors = 16, max_iterations = 10000"),
        ("searching", "num_trials = 1000, num_factors = HPARAM_RANGE(8, 64)"),
    ] {
        let text = format!(
            "CREATE OR REPLACE MODEL m OPTIONS (model_type = 'matrix_factorization', \
             feedback_type = 'implicit', {options}) AS {ROWS}"
        );
        let took = cancel_in(&session, phase, &text).await;
        assert!(took < Duration::from_secs(2), "{phase}: {took:?}");
        assert_eq!(rows(&session, "SELECT * FROM ml_recommend('m', 9, 1)").await.unwrap(), 1);
        assert!(rows(&session, "DESCRIBE MODEL m@2").await.is_err());
        until("the claim is withdrawn", || half_versions(folder.path()).is_empty()).await;
    }
    // A new model that is cancelled is none.
    let text = format!(
        "CREATE MODEL n OPTIONS (model_type = 'item_knn', num_trials = 1000, \
         hparam_tuning_algorithm = 'random_search') AS {ROWS}"
    );
    cancel_in(&session, "searching", &text).await;
    let missing = rows(&session, "DESCRIBE MODEL n").await.unwrap_err();
    assert_eq!(missing.code(), "ATT-4001", "{missing}");
    until("the claim is withdrawn", || half_versions(folder.path()).is_empty()).await;
    // And the next training goes through.
    rows(&session, "RETRAIN MODEL m").await.unwrap();
    assert!(rows(&session, "DESCRIBE MODEL m@2").await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_dropped_while_a_search_runs_stays_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, session) = with_model(folder.path()).await;
    let text = format!(
        "CREATE OR REPLACE MODEL m OPTIONS (model_type = 'item_knn', num_trials = 30) AS {ROWS}"
    );
    let prepared = session.prepare(&text).await.unwrap();
    let submitted = session.submit(&engine.new_query_id(), &prepared);
    let mut progress = submitted.progress();
    let running = tokio::spawn(async move { submitted.run(&[]).await.map(|_| ()) });
    let reached = progress.wait_for(|now| now.as_ref().is_some_and(|now| now.phase == "searching"));
    tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap().unwrap();
    rows(&session, "DROP MODEL m").await.unwrap();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "ATT-4003", "{error}");
    assert!(rows(&session, "DESCRIBE MODEL m").await.is_err());
    until("the claim is withdrawn", || half_versions(folder.path()).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_pair_are_counted_and_it_is_told_what_became_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    let said = async |text: &str| session.query(text).await.unwrap().message.unwrap_or_default();
    said(
        "CREATE TABLE plays AS SELECT * FROM (VALUES ('ann', 'tea', 3.0), ('ann', 'tea', 1.0), \
         ('bob', 'tea', 2.0), ('ann', 'tea', 2.0), ('bob', 'cup', 2.0)) \
         AS p(user_id, item_id, rating)",
    )
    .await;
    for (feedback, how) in [("implicit", "summed"), ("explicit", "averaged")] {
        let create = format!(
            "CREATE MODEL of_{feedback} OPTIONS (model_type = 'matrix_factorization', \
             feedback_type = '{feedback}', num_factors = 2, max_iterations = 2) \
             AS SELECT * FROM plays"
        );
        let told = said(&create).await;
        let expected =
            format!("2 users, 2 items, 3 interactions (2 rows of the same pair were {how})");
        assert!(told.contains(&expected), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_say_of_records_in_vain_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    let said = async |text: &str| session.query(text).await.unwrap().message.unwrap_or_default();
    said(
        "CREATE TABLE pairs AS SELECT * FROM (VALUES (1, 2, TRUE), (2, 3, TRUE), (1, 3, FALSE), \
         (4, 5, TRUE), (5, 4, FALSE), (6, 6, TRUE), (6, 99, TRUE)) AS p(left_id, right_id, is_match)",
    )
    .await;
    let create = "MODEL ids OPTIONS (model_type = 'entity_resolution', decision_table = 'pairs', \
                  labels_table = 'pairs') AS SELECT i AS id, 'name' || i AS name \
                  FROM generate_series(1, 20) AS s(i)";
    let told = said(&format!("CREATE {create}")).await;
    for part in [
        "of 7 decisions some were ignored: 1 about records that the query does not have, 1 about \
         one record twice or two that are never compared, 1 in contradiction with others",
        "1 of the decisions that keep records apart are overruled",
        "of 7 labels some were ignored: 1 about",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let told = said(&format!("CREATE OR REPLACE {create}")).await;
    assert!(told.contains("with the ids that entities have in version 1"), "{told}");
    let told = said("RETRAIN MODEL ids").await;
    assert!(!told.contains("labels") && told.contains("7 decisions"), "{told}");
}

/// The rows of a query as text, sorted.
async fn lines(session: &Session, text: &str) -> Vec<String> {
    let answer = session.query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    let batches: Vec<RecordBatch> = answer.rows.try_collect().await.unwrap();
    crate::flight::support::lines(&batches)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_whose_pairs_do_not_fit_in_memory_are_resolved_alike() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    session
        .query(
            "CREATE TABLE people AS SELECT i AS id, 'city' || (i % 30) AS city, \
             'name' || (i * 7919 % 211) AS name, 'street' || (i * 104729 % 101) AS street, \
             i % 7 AS code FROM generate_series(1, 3000) AS s(i)",
        )
        .await
        .unwrap();
    // Hardly a pair of one city is so unlikely that it is not kept.
    let create = "OPTIONS (model_type = 'entity_resolution', blocking_rules = ['city'], \
                  pair_threshold = 0.000000000001) AS SELECT * FROM people";
    session.query(&format!("CREATE MODEL much {create}")).await.unwrap();
    session.query("SET query_memory = '12 MiB'").await.unwrap();
    session.query(&format!("CREATE MODEL little {create}")).await.unwrap();
    let peak = "SELECT max(memory_peak_bytes) > 12 * 1024 * 1024 FROM system.queries \
                WHERE text LIKE '%MODEL much%'";
    assert_eq!(lines(&session, peak).await, ["true"]);
    for retrained in [false, true] {
        if retrained {
            session.query("RETRAIN MODEL little").await.unwrap();
        }
        for query in [
            "SELECT * FROM resolve_entities('{}')",
            "SELECT * FROM resolve_entities('{}', 0.01)",
            "SELECT count(*), sum(left_id * 7 + right_id), sum(round(match_weight * 1000)) \
             FROM ML.PREDICT(MODEL {})",
            "SELECT entities, largest_entity, linked_pairs, refused_pairs FROM ML.EVALUATE(MODEL {})",
            "SELECT entities, linked_pairs, refused_pairs FROM ML.EVALUATE(MODEL {}, \
             (SELECT id AS record_id, name AS truth FROM people), STRUCT(0.2 AS threshold))",
        ] {
            let [much, little] = ["much", "little"].map(|model| query.replace("{}", model));
            let expected = lines(&session, &much).await;
            assert_eq!(lines(&session, &little).await, expected, "{little}");
        }
    }
}

/// Three records say three things of a person, three say three others, and one says all six.
#[tokio::test(flavor = "multi_thread")]
async fn links_that_hold_two_groups_together_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    let said = async |text: &str| session.query(text).await.unwrap().message.unwrap_or_default();
    let (mut codes, mut gaps, mut sides) = (vec![], vec![], vec![]);
    for (at, name) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        let code = format!("100000 + n * {} % 99991", 7919 + 1000 * at);
        codes.push(format!("{code} AS {name}"));
        gaps.push(format!("CASE WHEN n % 6 <> {at} THEN {code} END AS {name}"));
        let is_said = if at < 3 { "n NOT BETWEEN 4 AND 6" } else { "n > 3" };
        sides.push(format!("CASE WHEN {is_said} THEN {} END AS {name}", 900_001 + 11_111 * at));
    }
    let [codes, gaps, sides] = [codes, gaps, sides].map(|columns| columns.join(", "));
    said(&format!(
        "CREATE TABLE records AS SELECT n AS id, {codes} FROM generate_series(1, 600) AS s(n) \
         UNION ALL SELECT n + 10000 AS id, {gaps} FROM generate_series(3, 600, 3) AS s(n) \
         UNION ALL SELECT n + 20000 AS id, {sides} FROM generate_series(1, 7) AS s(n)"
    ))
    .await;
    said("CREATE TABLE apart AS SELECT 20001 AS left_id, 20007 AS right_id, FALSE AS is_match")
        .await;
    for (more, part) in [
        ("", "; 3 of the pairs above the threshold are bridges and join no groups"),
        (", cluster_method = 'connected'", "; 1 of the links are bridges"),
        (", decision_table = 'apart'", "; decisions keep 3 of the pairs above the threshold apart"),
    ] {
        let told = said(&format!(
            "CREATE OR REPLACE MODEL ids OPTIONS (model_type = 'entity_resolution', \
             personal_cols = [], blocking_rules = ['a', 'b', 'c', 'd', 'e', 'f']{more}) \
             AS SELECT * FROM records"
        ))
        .await;
        assert!(told.contains(part), "{told}");
        let others = ["are bridges and join", "of the links are", "decisions keep"];
        let others = others.iter().filter(|other| !part.contains(**other));
        assert!(others.clone().all(|other| !told.contains(*other)), "{told}");
    }
}

/// What stands in many rows of a column of many values is nobody's, and that is told.
#[tokio::test(flavor = "multi_thread")]
async fn values_that_are_nobodys_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    let said = async |text: &str| session.query(text).await.unwrap().message.unwrap_or_default();
    let (none, since) =
        ("they are nobody's count as NULL", "still count, until warm_start = FALSE");
    said(
        "CREATE TABLE records AS SELECT n AS id, md5('c' || n) AS card, md5('e' || n) || '@x.org' \
         AS email FROM generate_series(1, 1000) AS s(n)",
    )
    .await;
    let create = "CREATE OR REPLACE MODEL ids OPTIONS (model_type = 'entity_resolution') AS \
                  SELECT * FROM records";
    let told = said(create).await;
    assert!(!told.contains(none) && !told.contains(since), "{told}");
    said("UPDATE records SET email = 'xxx@firma.de' WHERE id % 4 = 0").await;
    let told = said(create).await;
    let part = format!("; values in so many records that {none}: email in 25.0 % of the records");
    assert!(told.contains(&part) && !told.contains(since), "{told}");
    said(
        "INSERT INTO records SELECT n, 'gift card', md5('e' || n) || '@x.org' \
         FROM generate_series(1001, 1300) AS s(n)",
    )
    .await;
    let told = said("RETRAIN MODEL ids").await;
    assert!(told.contains(": email in 19.2 % of the records"), "{told}");
    assert!(told.contains(since) && told.contains(": card in 23.1 % of the records"), "{told}");
    let told = said("RETRAIN MODEL ids OPTIONS (warm_start = FALSE)").await;
    assert!(told.contains(": card in 23.1 %, email in 19.2 % of the records"), "{told}");
    assert!(!told.contains(since), "{told}");
}
