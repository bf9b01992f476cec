//! RETRAIN forgets: after somebody was erased, has withdrawn or is restricted, the next version is
//! what CREATE MODEL gives over a lake that never had them, bit for bit, whatever its metric is.

use arrow::record_batch::RecordBatch;
use catalog::policy::Principal;
use futures::TryStreamExt;
use sql::{Engine, Session};

/// Factors and lists; numbers are shown by as many digits as tell them apart.
const LEARNED: [&str; 2] =
    ["SELECT * FROM ML.WEIGHTS(MODEL {m})", "SELECT * FROM ml_recommend('{m}')"];
/// Rows to compare versions on, and a metric that may not get worse at all.
const GATE: &str = "data_split_method = 'random', data_split_eval_fraction = 0.3, \
                    promote = 'if_better', promote_tolerance = 0";
const NO_GATE: &str = "data_split_method = 'no_split', promote = 'always'";

/// The rows of a statement as text, sorted.
async fn lines(session: &Session, text: &str) -> Vec<String> {
    let answer = session.query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    let batches: Vec<RecordBatch> = answer.rows.try_collect().await.unwrap();
    crate::flight::support::lines(&batches)
}

/// What a statement says that it has done.
async fn said(session: &Session, text: &str) -> String {
    let answer = session.query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    let told = answer.message.unwrap_or_default();
    let _: Vec<RecordBatch> = answer.rows.try_collect().await.unwrap();
    told
}

async fn all(session: &Session, texts: &[&str]) {
    for text in texts {
        lines(session, text).await;
    }
}

/// Checks that a statement says something.
async fn says(session: &Session, text: &str, part: &str) {
    let told = said(session, text).await;
    assert!(told.contains(part), "{text}: {told}");
}

fn create(name: &str, table: &str, options: &str) -> String {
    format!(
        "CREATE MODEL {name} OPTIONS (model_type = 'matrix_factorization', \
         feedback_type = 'implicit', user_col = 'listener', item_col = 'song', num_factors = 8, \
         seed = 3, {options}) AS SELECT listener, song FROM {table}"
    )
}

/// `plays` has forty listeners.
async fn filled(engine: &Engine) -> Session {
    let session = engine.session(Principal::embedded());
    let plays = "CREATE TABLE plays AS SELECT 'u' || (n % 40) AS listener, \
                 's' || (n * n * 7 % 61) AS song FROM generate_series(1, 1200) AS s(n)";
    lines(&session, plays).await;
    session
}

/// Checks that the default version is one that has learned, from the beginning, of a table without
/// some of the listeners.
async fn is_as_without(session: &Session, gone: &[&str], options: &str) {
    let gone: Vec<String> = gone.iter().map(|listener| format!("'{listener}'")).collect();
    let gone = gone.join(", ");
    all(
        session,
        &[
            "DROP MODEL IF EXISTS n",
            "DROP TABLE IF EXISTS others",
            &format!(
                "CREATE TABLE others AS SELECT * FROM everybody WHERE listener NOT IN ({gone})"
            ),
            &create("n", "others", options),
        ],
    )
    .await;
    for query in LEARNED {
        let of = async |model: &str| lines(session, &query.replace("{m}", model)).await;
        let (retrained, made) = (of("m").await, of("n").await);
        assert!(!made.is_empty() && retrained == made, "{query} without {gone}");
    }
}

const VERSION: &str = "SELECT default_version FROM system.models WHERE name = 'm'";
const LEFT: &str = "SELECT to_unlearn FROM system.model_versions WHERE name = 'm' AND is_default";

#[tokio::test(flavor = "multi_thread")]
async fn who_was_forgotten_was_never_learned_of() {
    for gate in [GATE, NO_GATE] {
        let folder = tempfile::tempdir().unwrap();
        let engine = crate::slt::engine(folder.path()).await;
        let session = filled(&engine).await;
        let everybody = "CREATE TABLE everybody AS SELECT * FROM plays WHERE listener <> 'u7'";
        all(&session, &[everybody, &create("m", "plays", gate)]).await;
        let forget = "FORGET SUBJECT person 'u7'";
        all(&session, &["CREATE SUBJECT person KEY (plays.listener)", forget]).await;
        let why = "persons were erased from version 1";
        assert!(lines(&session, LEFT).await.concat().contains(why));
        // A training of one iteration is worse than one of eight, and is the default all the same.
        let briefly = format!("{gate}, max_iterations = 1");
        says(&session, "RETRAIN MODEL m OPTIONS (max_iterations = 1)", why).await;
        assert!(lines(&session, VERSION).await.concat().contains('2'));
        is_as_without(&session, &["u7"], &briefly).await;
        // Nobody has left the new version: it is gone on from.
        says(&session, "RETRAIN MODEL m OPTIONS (promote = 'always')", "warm start from version 2")
            .await;
        // Rows that are deleted end a chain too, where somebody may ask to be forgotten.
        lines(&session, "DELETE FROM plays WHERE listener = 'u3'").await;
        let gone = "trained cold (1 users of version 3 are in the rows no more)";
        says(&session, "RETRAIN MODEL m OPTIONS (promote = 'always')", gone).await;
        is_as_without(&session, &["u3", "u7"], gate).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_withdrawn_was_never_learned_of() {
    for gate in [GATE, NO_GATE] {
        let folder = tempfile::tempdir().unwrap();
        let engine = crate::slt::engine(folder.path()).await;
        let session = filled(&engine).await;
        let knn = create("k", "plays", GATE)
            .replace("matrix_factorization", "item_knn")
            .replace("feedback_type = 'implicit', ", "")
            .replace("num_factors = 8, ", "");
        all(
            &session,
            &[
                "CREATE TABLE everybody AS SELECT * FROM plays",
                "CREATE TABLE consents AS SELECT 'u1' AS who, 'ads' AS what, true AS given",
                "CREATE PURPOSE ads",
                "CREATE CONSENT POLICY p ON plays (listener) USING consents (who, what, given) \
                 FOR PURPOSE ads DEFAULT ALLOW",
                "SET purpose = 'ads'",
                &create("m", "plays", gate),
                &knn,
                "CREATE MODEL c OPTIONS (model_type = 'kmeans', num_clusters = 2) \
                 AS SELECT length(listener) AS a, length(song) AS b FROM plays",
            ],
        )
        .await;
        let warm = "RETRAIN MODEL m OPTIONS (promote = 'always')";
        says(&session, warm, "warm start from version 1").await;
        assert!(!lines(&session, LEFT).await.concat().contains("version"));
        let plan = lines(&session, "EXPLAIN SELECT * FROM ml_recommend('m', 'u4', 3)").await;
        let plan = plan.concat();
        assert!(plan.contains("model=main.m@2, top_k=3, policies=[p], purpose=ads"), "{plan}");

        lines(&session, "INSERT INTO consents VALUES ('u7', 'ads', false)").await;
        // Each version that is kept has the person.
        let holds = "SELECT * FROM system.model_versions WHERE name = 'm' AND withdrawn_users = 1 \
                     AND consents_changed AND to_unlearn LIKE '%without consent: 1'";
        assert_eq!(lines(&session, holds).await.len(), 2);
        let changed = "SELECT name FROM system.model_versions \
                       WHERE consents_changed AND model_type IN ('kmeans', 'item_knn')";
        assert_eq!(lines(&session, changed).await.len(), 2);
        says(&session, "RETRAIN MODEL m", "trained cold (persons in version 2 without consent: 1)")
            .await;
        assert!(lines(&session, VERSION).await.concat().contains('3'));
        is_as_without(&session, &["u7"], gate).await;
        says(&session, "RETRAIN MODEL k", "whatever the metric is, this version is the default")
            .await;
        says(&session, "RETRAIN MODEL c", "trained anew (whether all persons").await;

        // A fold-in goes on whoever has left, and says so; the next training does not.
        lines(&session, "INSERT INTO consents VALUES ('u9', 'ads', false)").await;
        let fold_in = "RETRAIN MODEL m OPTIONS (fold_in = TRUE, promote = 'always')";
        says(&session, fold_in, "stays: persons in version 3 without consent: 1").await;
        let left = lines(&session, LEFT).await.concat();
        assert!(left.contains("version 4 goes on from version 3"), "{left}");
        says(&session, "RETRAIN MODEL m", "trained cold (version 4 goes on from version 3").await;
        is_as_without(&session, &["u7", "u9"], gate).await;
        assert!(!lines(&session, LEFT).await.concat().contains("version"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_lost_somebody_ends_once_persons_can_be_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = filled(&engine).await;
    let everybody = "CREATE TABLE everybody AS SELECT * FROM plays";
    all(&session, &[everybody, &create("m", "plays", NO_GATE)]).await;
    lines(&session, "DELETE FROM plays WHERE listener = 'u3'").await;
    // Nobody can ask for it here, so that deleted rows cost no training anew.
    says(&session, "RETRAIN MODEL m", "warm start from version 1").await;
    assert!(!lines(&session, LEFT).await.concat().contains("version"));
    lines(&session, "CREATE SUBJECT person KEY (plays.listener)").await;
    let told = lines(&session, "EXPLAIN FORGET SUBJECT person 'u4'").await.concat();
    assert!(told.contains("model main.m@2 goes on from persons that it does not hold"), "{told}");
    let why = "version 2 goes on from version 1, which knows persons that it does not hold";
    assert!(lines(&session, LEFT).await.concat().contains(why));
    says(&session, "RETRAIN MODEL m", why).await;
    is_as_without(&session, &["u3"], NO_GATE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_restricted_was_never_learned_of() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = filled(&engine).await;
    all(
        &session,
        &[
            "CREATE TABLE everybody AS SELECT * FROM plays",
            "CREATE TABLE records AS SELECT i AS id, 'name' || i AS name \
             FROM generate_series(1, 40) AS s(i)",
            &create("m", "plays", GATE),
            "CREATE MODEL ids OPTIONS (model_type = 'entity_resolution') AS SELECT * FROM records",
            "CREATE SUBJECT person KEY (plays.listener)",
            "CREATE SUBJECT customer KEY (records.id)",
            "RESTRICT SUBJECT person 'u7'",
        ],
    )
    .await;
    let why = "holds persons whom nobody may see";
    says(&session, "RETRAIN MODEL m", why).await;
    assert!(lines(&session, VERSION).await.concat().contains('2'));
    is_as_without(&session, &["u7"], GATE).await;
    lines(&session, "RELEASE SUBJECT person 'u7' FROM RESTRICTION").await;
    says(&session, "RETRAIN MODEL m", "warm start from version 2").await;

    // What was learned of records is learned anew too; what is left is gone on from.
    says(&session, "RETRAIN MODEL ids", "goes on from version 1").await;
    lines(&session, "RESTRICT SUBJECT customer '3'").await;
    says(&session, "RETRAIN MODEL ids", why).await;
    says(&session, "RETRAIN MODEL ids", "goes on from version 3").await;
    lines(&session, "DELETE FROM records WHERE id = 5").await;
    says(&session, "RETRAIN MODEL ids", "1 records of it are in the rows no more").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_restricted_under_ids_that_cannot_be_looked_for_is_unlearned_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = filled(&engine).await;
    let made = |of: &str| format!("(SELECT {of} AS listener, song FROM plays) AS p");
    all(
        &session,
        &[
            create("before", &made("upper(listener)"), GATE).as_str(),
            "CREATE SUBJECT person KEY (plays.listener)",
            create("m", &made("substr(listener, 1, 2)"), GATE).as_str(),
        ],
    )
    .await;
    let named = "model main.m@1 may hold the person: its users came of main.plays.listener";
    says(&session, "RESTRICT SUBJECT person 'u17'", named).await;
    let why = "whether version 1 holds persons whom nobody may see cannot be told";
    assert!(lines(&session, LEFT).await.concat().contains(why));
    // A training of one iteration is worse than one of eight, and is the default all the same. Of a
    // model that is older than the subject nothing tells how its users were made.
    for name in ["m", "before"] {
        let retrain = format!("RETRAIN MODEL {name} OPTIONS (max_iterations = 1)");
        says(&session, &retrain, why).await;
        let version = VERSION.replace("'m'", &format!("'{name}'"));
        assert!(lines(&session, &version).await.concat().contains('2'), "{name}");
    }
    // Nobody is restricted any more.
    lines(&session, "RELEASE SUBJECT person 'u17' FROM RESTRICTION").await;
    assert!(!lines(&session, LEFT).await.concat().contains("version"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_of_a_copy_that_is_gone_was_never_learned_of() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = filled(&engine).await;
    all(
        &session,
        &[
            "CREATE TABLE everybody AS SELECT * FROM plays WHERE listener <> 'u7'",
            "CREATE SUBJECT person KEY (plays.listener)",
            "CREATE TABLE heard AS SELECT * FROM plays",
            &create("m", "heard", GATE),
            "DROP TABLE heard",
            // Another one of the name, whose rows are nobody's.
            "CREATE TABLE heard AS SELECT 'u' || (n % 40) AS listener, \
             's' || (n * n * 7 % 61) AS song FROM generate_series(1, 1200) AS s(n) \
             WHERE n % 40 <> 7",
            "RESTRICT SUBJECT person 'u7'",
        ],
    )
    .await;
    let why = "version 1 holds persons whom nobody may see";
    assert!(lines(&session, LEFT).await.concat().contains(why));
    says(&session, "RETRAIN MODEL m", why).await;
    assert!(lines(&session, VERSION).await.concat().contains('2'));
    is_as_without(&session, &["u7"], GATE).await;
    assert!(!lines(&session, LEFT).await.concat().contains("version"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_of_a_view_that_reads_something_else_by_now_is_in_the_chain_still() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = filled(&engine).await;
    all(
        &session,
        &[
            "CREATE TABLE everybody AS SELECT * FROM plays",
            "CREATE TABLE loud AS SELECT upper(listener) AS who, song FROM plays",
            "CREATE VIEW chosen AS SELECT listener, song FROM plays",
            // Of this one nothing but the tables tells whose its users are.
            &create("m", "chosen", NO_GATE),
            "CREATE SUBJECT speaker KEY (loud.who)",
            "CREATE VIEW quiet AS SELECT lower(who) AS listener, song FROM loud",
            &create("made", "quiet", NO_GATE),
            "CREATE OR REPLACE VIEW chosen AS SELECT listener, song FROM everybody",
            "CREATE OR REPLACE VIEW quiet AS SELECT listener, song FROM everybody",
        ],
    )
    .await;
    for model in ["m", "made"] {
        says(&session, &format!("RETRAIN MODEL {model}"), "warm start from version 1").await;
    }
    lines(&session, "CREATE SUBJECT person KEY (plays.listener)").await;
    let told = lines(&session, "EXPLAIN FORGET SUBJECT person 'u7'").await.concat();
    assert!(told.contains("main.m@1") && told.contains("main.m@2"), "{told}");
    let told = lines(&session, "EXPLAIN FORGET SUBJECT speaker 'U7'").await.concat();
    assert!(told.contains("main.made@1") && told.contains("main.made@2"), "{told}");
    lines(&session, "RESTRICT SUBJECT person 'u7'").await;
    let shown = "SELECT * FROM ml_recommend('m', 'u7', 3)";
    assert!(lines(&session, shown).await.is_empty());
    let why = "version 2 holds persons whom nobody may see";
    assert!(lines(&session, LEFT).await.concat().contains(why));
    says(&session, "RETRAIN MODEL m", why).await;
    assert!(!lines(&session, LEFT).await.concat().contains("version"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_knows_the_policies_of_tables_that_are_not_read_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = filled(&engine).await;
    all(
        &session,
        &[
            "CREATE TABLE everybody AS SELECT * FROM plays",
            "CREATE VIEW chosen AS SELECT listener, song FROM plays",
            &create("m", "chosen", NO_GATE),
            "CREATE OR REPLACE VIEW chosen AS SELECT listener, song FROM everybody",
        ],
    )
    .await;
    says(&session, "RETRAIN MODEL m", "warm start from version 1").await;
    lines(&session, "CREATE ROW ACCESS POLICY few ON plays USING (listener = 'u1')").await;
    // What went on from the old table's rows is older than the policy; learned anew it is not.
    let why = "version 2 is older than row access policy few on main.plays";
    says(&session, "RETRAIN MODEL m", why).await;
    says(&session, "RETRAIN MODEL m", "warm start from version 3").await;
}
