//! Policies: what they hide appears nowhere, and what they let through is what a lake without the
//! hidden would answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use catalog::policy::Principal;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use sql::{Engine, Session};

use crate::rights::{engine_at, outcome};

/// What a statement answers, or its error with the code before it.
pub async fn told(session: &Session, text: &str) -> Result<String, String> {
    let shown = |error: sql::Error| format!("{}: {error}", error.code());
    let answer = session.query(text).await.map_err(shown)?;
    let rows: Result<Vec<RecordBatch>, _> = answer.rows.try_collect().await;
    let mut rows = rows.map_err(|error| shown(sql::Error::from(error)))?;
    // How rows are divided says nothing, nor does a batch without any.
    rows.retain(|batch| batch.num_rows() > 0);
    Ok(pretty_format_batches(&rows).unwrap().to_string())
}

/// An answer without what its table's name makes of it: titles, widths, and errors that name it.
pub fn plain(told: Result<String, String>, table: &str) -> Result<Vec<String>, String> {
    let cells = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join("|");
    let rows = |text: String| {
        let rows = text.lines().skip(3).filter(|line| !line.starts_with('+'));
        rows.map(cells).collect()
    };
    told.map(rows).map_err(|error| error.replace(table, "t"))
}

pub async fn done(session: &Session, texts: &[&str]) {
    for text in texts {
        told(session, text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

/// Who asks: `root` an admin, `dpo` a policy_admin, `ann` an analyst, `aud` excepted from policies.
struct House {
    root: Session,
    dpo: Session,
    ann: Session,
    aud: Session,
}

impl House {
    fn of(engine: &Engine) -> Self {
        let session = |name: &str, roles: &[&str]| {
            engine.session(Principal::new(name, roles.iter().copied()))
        };
        Self {
            root: session("root", &["admin"]),
            dpo: session("dpo", &["policy_admin", "auditor"]),
            ann: session("ann", &["analyst"]),
            aud: session("aud", &["auditor"]),
        }
    }

    /// `people` under a mask and a row access policy, and `seen`, which never had what they hide.
    async fn built(engine: &Engine) -> Self {
        let house = Self::of(engine);
        done(&house.root, &[
            "CREATE ROLE auditor",
            "CREATE TABLE people AS SELECT * FROM (VALUES \
             (1, 'ann@x.org', 'north', 10), (2, 'bob@x.org', 'north', 20), \
             (3, 'cyd@hidden.org', 'south', 30), (4, 'dan@hidden.org', 'south', 40)) \
             AS v (id, mail, region, pay)",
            "CREATE TABLE seen AS SELECT id, regexp_replace(mail, '^[^@]+', '*') AS mail, region, \
             pay FROM people WHERE region = 'north'",
            "CREATE VIEW people_view AS SELECT * FROM people",
            "CREATE VIEW seen_view AS SELECT * FROM seen",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON people TO ROLE analyst, ROLE auditor",
            "GRANT SELECT ON seen TO ROLE analyst, ROLE auditor",
            "GRANT SELECT ON people_view TO ROLE analyst",
            "GRANT SELECT ON seen_view TO ROLE analyst",
        ])
        .await;
        done(
            &house.dpo,
            &[
                "CREATE MASKING POLICY secret_mask ON main.people (mail) \
             USING regexp_replace(mail, '^[^@]+', '*') EXCEPT ROLE auditor",
                "CREATE ROW ACCESS POLICY north_only ON main.people USING (region = 'north') \
             EXCEPT ROLE auditor",
            ],
        )
        .await;
        house
    }
}

/// Ways to ask; `{t}` is the table.
pub const QUERIES: [&str; 33] = [
    "SELECT * FROM {t} ORDER BY id",
    "SELECT mail FROM {t} ORDER BY pay",
    "SELECT count(*) FROM {t}",
    "SELECT count(*), min(pay), max(pay), min(mail), max(mail) FROM {t}",
    "SELECT count(DISTINCT region) FROM {t}",
    "SELECT region, sum(pay) FROM {t} GROUP BY region ORDER BY 1",
    "SELECT region, count(*) FROM {t} GROUP BY ROLLUP (region) ORDER BY 1",
    "SELECT DISTINCT region FROM {t}",
    "WITH c AS (SELECT * FROM {t}) SELECT c.mail, c.pay FROM c ORDER BY pay",
    "SELECT * FROM (SELECT mail AS m, id FROM {t}) AS s ORDER BY id",
    "SELECT (SELECT max(pay) FROM {t}) AS most",
    "SELECT 1 AS one WHERE EXISTS (SELECT 1 FROM {t} WHERE pay = 40)",
    "SELECT 1 AS one WHERE 30 IN (SELECT pay FROM {t})",
    "SELECT a.mail, b.mail FROM {t} AS a JOIN {t} AS b ON a.id = b.id ORDER BY a.id",
    "SELECT a.id FROM {t} AS a LEFT JOIN {t} AS b ON a.id = b.id + 2 WHERE b.id IS NULL ORDER BY 1",
    "SELECT x.m FROM {t} AS t, LATERAL (SELECT t.mail AS m) AS x ORDER BY 1",
    "SELECT mail FROM {t} UNION ALL SELECT region FROM {t} ORDER BY 1",
    "SELECT region FROM {t} EXCEPT SELECT 'north'",
    "SELECT id, row_number() OVER (ORDER BY pay DESC), sum(pay) OVER () FROM {t} ORDER BY id",
    "SELECT array_agg(mail ORDER BY id) FROM {t}",
    "SELECT id FROM {t} WHERE mail LIKE 'ann%'",
    "SELECT id FROM {t} WHERE mail = 'ann@x.org'",
    "SELECT id FROM {t} WHERE mail = '*@x.org' ORDER BY id",
    "SELECT id FROM {t} WHERE length(mail) > 7",
    "SELECT id FROM {t} WHERE pay = 40 OR region = 'south'",
    "SELECT id FROM {t} WHERE pay IN (10, 40) AND region IS NOT NULL",
    "SELECT id FROM {t} WHERE 1 / (pay - 40) < 0 ORDER BY id",
    "SELECT id FROM {t} WHERE CASE WHEN pay = 30 THEN 1 / (pay - 30) = 0 ELSE true END ORDER BY id",
    "SELECT id FROM {t} ORDER BY pay DESC LIMIT 1",
    "SELECT id FROM {t} ORDER BY id OFFSET 1",
    "SELECT t.* FROM {t} AS t WHERE t.region LIKE 's%'",
    "SELECT * FROM {t}_view ORDER BY id",
    "SELECT count(*) FROM {t}_view WHERE region = 'south'",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_appears_nowhere_and_what_is_seen_is_as_if_it_were_all() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let house = House::built(&engine).await;
    for query in QUERIES {
        let asked = told(&house.ann, &query.replace("{t}", "people")).await;
        let oracle = told(&house.ann, &query.replace("{t}", "seen")).await;
        assert_eq!(plain(asked, "people"), plain(oracle, "seen"), "{query}");
    }
    // An error tells no value.
    let error = told(&house.ann, "SELECT CAST(mail AS BIGINT) FROM people").await.unwrap_err();
    assert!(!error.contains("ann@") && !error.contains("hidden.org"), "{error}");
    let all = told(&house.aud, "SELECT * FROM people ORDER BY id").await.unwrap();
    assert!(all.contains("dan@hidden.org"), "{all}");
    // An administrator is no administrator of policies.
    let all = told(&house.root, "SELECT * FROM people ORDER BY id").await.unwrap();
    assert!(!all.contains("hidden.org") && !all.contains("ann@"), "{all}");
    let at_first = "SELECT count(*) FROM people VERSION AS OF 0";
    assert_eq!(outcome(&house.ann, at_first).await, Ok(1));
    let at_first = told(&house.ann, "SELECT * FROM people VERSION AS OF 0").await.unwrap();
    assert!(!at_first.contains("hidden.org"), "{at_first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_fails_on_a_row_tells_its_name_and_no_value() {
    let folder = tempfile::tempdir().unwrap();
    let House { root, dpo, ann, .. } = House::of(&crate::slt::engine(folder.path()).await);
    let rows = "CREATE TABLE t AS SELECT * FROM (VALUES (1, '7'), (2, 'secret')) AS v (id, code)";
    done(&root, &[rows, "GRANT SELECT ON t TO ROLE analyst"]).await;
    for policy in [
        "CREATE MASKING POLICY f ON main.t (code) USING CAST(CAST(code AS BIGINT) AS VARCHAR)",
        "CREATE ROW ACCESS POLICY f ON main.t USING (CAST(code AS BIGINT) > 0)",
    ] {
        done(&dpo, &[policy]).await;
        for text in ["SELECT * FROM t", "SELECT code FROM t WHERE id = 2"] {
            let error = told(&ann, text).await.unwrap_err();
            assert!(error.starts_with("ATT-3001: policy f of this table cannot"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        done(&dpo, &["DROP POLICY f ON main.t"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_names_policies_and_leaks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let house = House::built(&engine).await;
    for explain in ["EXPLAIN", "EXPLAIN VERBOSE", "EXPLAIN ANALYZE"] {
        let text = format!("{explain} SELECT count(*) FROM people WHERE id = 4");
        let plan = told(&house.ann, &text).await.unwrap();
        assert!(plan.contains("north_only") && plan.contains("secret_mask"), "{plan}");
        assert!(!plan.contains("'north'") && !plan.contains("Utf8(\"north\")"), "{plan}");
        assert!(!plan.contains("regexp_replace") && !plan.contains("parquet"), "{plan}");
        let plan = told(&house.aud, &text).await.unwrap();
        assert!(!plan.contains("BarrierExec"), "{plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_is_under_the_policies_of_now() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let house = House::built(&engine).await;
    let prepared = house.ann.prepare("SELECT mail FROM people WHERE id = ?").await.unwrap();
    let rows = |id: i64| {
        let (ann, prepared) = (house.ann.clone(), prepared.clone());
        async move {
            let answer = ann.run(&prepared, &[ScalarValue::from(id)]).await.unwrap();
            let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
            pretty_format_batches(&rows).unwrap().to_string()
        }
    };
    for _ in 0..3 {
        let shown = rows(1).await;
        assert!(shown.contains("*@x.org") && !shown.contains("ann@"), "{shown}");
        assert!(!rows(4).await.contains("hidden.org"));
    }
    done(&house.dpo, &["DROP POLICY secret_mask ON main.people"]).await;
    assert!(rows(1).await.contains("ann@x.org"));
    let mask = "CREATE MASKING POLICY m ON main.people (mail) USING 'gone'";
    done(&house.dpo, &[mask]).await;
    assert!(rows(1).await.contains("gone"));
    done(&house.dpo, &["ALTER MASKING POLICY m ON main.people SET USING NULL"]).await;
    assert!(!rows(1).await.contains("gone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_knows_of_a_policy_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicI64::new(1_700_000_000_000));
    let one = engine_at(folder.path(), &now_ms).await;
    let two = engine_at(folder.path(), &now_ms).await;
    let root = one.session(Principal::embedded());
    done(&root, &["CREATE TABLE t AS SELECT * FROM (VALUES ('secret')) AS v (a)"]).await;
    now_ms.fetch_add(1_000, Ordering::Relaxed);
    let other = two.session(Principal::embedded());
    let prepared = other.prepare("SELECT a FROM t").await.unwrap();
    assert!(told(&other, "SELECT a FROM t").await.unwrap().contains("secret"));
    done(&root, &["CREATE MASKING POLICY m ON t (a) USING NULL"]).await;
    now_ms.fetch_add(1_000, Ordering::Relaxed);
    assert!(!told(&other, "SELECT a FROM t").await.unwrap().contains("secret"));
    let answer = other.run(&prepared, &[]).await.unwrap();
    let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
    assert!(!pretty_format_batches(&rows).unwrap().to_string().contains("secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_administers_policies_changes_them() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let house = House::built(&engine).await;
    for session in [&house.ann, &house.root, &house.aud] {
        for text in [
            "DROP POLICY secret_mask ON main.people",
            "ALTER POLICY secret_mask ON main.people SET EXCEPT ROLE analyst",
            "CREATE OR REPLACE MASKING POLICY secret_mask ON main.people (mail) USING mail",
            "ALTER TABLE main.people ALTER COLUMN mail SET TAG 'x'",
            "DECLASSIFY CREATE TABLE c AS SELECT * FROM main.people",
        ] {
            assert_eq!(outcome(session, text).await, Err("ATT-2003"), "{text}");
        }
    }
    let shown = told(&house.ann, "SELECT * FROM system.policies").await.unwrap();
    assert!(shown.contains("north_only") && !shown.contains("region ="), "{shown}");
    let shown = told(&house.dpo, "DESCRIBE POLICY north_only ON main.people").await.unwrap();
    assert!(shown.contains("region = 'north'"), "{shown}");
    // Who sees no table sees no policies of it.
    let eve = engine.session(Principal::new("eve", ["nothing"]));
    assert_eq!(outcome(&eve, "SELECT * FROM system.policies").await, Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_policy_hides_are_not_changed() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let house = House::built(&engine).await;
    for text in [
        "TRUNCATE TABLE people",
        "INSERT OVERWRITE people SELECT * FROM seen",
        "CHECK TABLE people",
        "UPDATE people SET region = 'south'",
        "INSERT INTO people VALUES (9, 'new@x.org', 'south', 90)",
    ] {
        let error = told(&house.ann, text).await.unwrap_err();
        assert!(error.starts_with("ATT-2003") && !error.contains("hidden.org"), "{text}: {error}");
    }
    done(
        &house.ann,
        &[
            "UPDATE people SET pay = 1 / (pay - 30) WHERE 1 / (pay - 40) <= 0",
            "DELETE FROM people WHERE id IN (2, 4)",
            "INSERT INTO people VALUES (9, 'new@x.org', 'north', 90)",
        ],
    )
    .await;
    done(&house.aud, &["UPDATE people SET pay = 31 WHERE id = 3"]).await;
    let all = told(&house.aud, "SELECT mail, pay FROM people ORDER BY id").await;
    let all = plain(all, "people").unwrap();
    assert_eq!(
        all,
        ["|ann@x.org|0|", "|cyd@hidden.org|31|", "|dan@hidden.org|40|", "|new@x.org|90|"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_carry_policies_along() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let house = House::built(&engine).await;
    let all = "SELECT * FROM seen ORDER BY id";
    let seen = told(&house.ann, all).await.unwrap();
    done(&house.aud, &["CREATE TABLE aud.c AS SELECT * FROM main.people"]).await;
    done(&house.root, &["GRANT SELECT ON aud.c TO ROLE analyst"]).await;
    let copy = told(&house.ann, "SELECT * FROM aud.c ORDER BY id").await.unwrap();
    assert_eq!(copy, seen);
    assert_eq!(outcome(&house.aud, "SELECT * FROM aud.c").await, Ok(4));
    // Under other names, and computed of what is masked.
    let renamed = "CREATE TABLE aud.d AS SELECT region AS place, upper(mail) AS big, mail AS post, \
                   pay FROM main.people";
    done(&house.aud, &[renamed]).await;
    done(&house.root, &["GRANT SELECT ON aud.d TO ROLE analyst"]).await;
    let copy = told(&house.ann, "SELECT place, big, post FROM aud.d").await.unwrap();
    assert!(
        copy.contains("*@x.org") && !copy.contains("ANN@") && !copy.contains("south"),
        "{copy}"
    );
    // Without the column that a row access policy needs, and into a table without policies.
    let bare = "CREATE TABLE aud.e AS SELECT mail, pay FROM main.people";
    assert_eq!(outcome(&house.aud, bare).await, Err("ATT-2002"));
    done(&house.aud, &["CREATE TABLE aud.f AS SELECT 'x' AS mail, 'y' AS region"]).await;
    let into = "INSERT INTO aud.f SELECT mail, region FROM main.people";
    assert_eq!(outcome(&house.aud, into).await, Err("ATT-2002"));
    done(&house.aud, &["INSERT INTO aud.c SELECT * FROM main.people"]).await;
    let into = "UPDATE aud.f SET mail = (SELECT max(mail) FROM main.people)";
    assert_eq!(outcome(&house.aud, into).await, Err("ATT-2002"));
    done(&house.dpo, &["DECLASSIFY CREATE TABLE dpo.e AS SELECT mail, pay FROM main.people"]).await;
    done(&house.root, &["GRANT SELECT ON dpo.e TO ROLE analyst"]).await;
    assert_eq!(outcome(&house.ann, "SELECT * FROM dpo.e").await, Ok(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_may_be_used_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let house = House::built(&engine).await;
    done(&house.root, &[
        "CREATE TABLE cards AS SELECT * FROM (VALUES (1, 'k1', 'a'), (2, 'k2', 'b'), (3, 'k2', 'c')) \
         AS v (id, card, land)",
        "GRANT SELECT ON cards TO ROLE analyst, ROLE auditor",
        "CREATE TABLE ladder AS SELECT * FROM (VALUES ('one', 'k1'), ('two', 'k2')) \
         AS v (step, card)",
        "GRANT SELECT ON ladder TO ROLE analyst, ROLE auditor",
        "CREATE VIEW steps AS SELECT generalize('one', 'main.ladder', 1) AS step",
        "GRANT SELECT ON steps TO ROLE analyst",
    ])
    .await;
    assert!(told(&house.ann, "SELECT * FROM steps").await.unwrap().contains("k1"));
    let policy = "CREATE PROJECTION POLICY p ON main.cards (card) EXCEPT ROLE auditor";
    let of_ladder = "CREATE PROJECTION POLICY p ON main.ladder (card)";
    done(&house.dpo, &[policy, of_ladder]).await;
    for text in [
        "SELECT id, land FROM cards WHERE card = 'k2'",
        "SELECT count(card), count(DISTINCT card) FROM cards",
        "SELECT count(*) FROM cards GROUP BY card",
        "SELECT a.id FROM cards AS a JOIN cards AS b ON a.card = b.card",
        "SELECT id FROM cards WHERE card IN (SELECT card FROM cards WHERE id = 1)",
        "SELECT count(*) FROM (SELECT DISTINCT card FROM cards)",
        "SELECT id FROM cards WHERE lower(card) LIKE 'k%' ORDER BY id",
    ] {
        assert!(
            outcome(&house.ann, text).await.is_ok(),
            "{text}: {:?}",
            told(&house.ann, text).await
        );
    }
    for text in [
        "SELECT * FROM cards",
        "SELECT card FROM cards",
        "SELECT upper(card) FROM cards",
        "SELECT card = 'k1' FROM cards",
        "SELECT CASE WHEN card = 'k1' THEN 1 END FROM cards",
        "SELECT max(card) FROM cards",
        "SELECT count(*) FILTER (WHERE CAST(card AS BIGINT) = 1) FROM cards",
        "SELECT array_agg(card) FROM cards",
        "SELECT card, count(*) FROM cards GROUP BY card",
        "SELECT id FROM cards ORDER BY card",
        "SELECT id, rank() OVER (ORDER BY card) FROM cards",
        "SELECT id FROM cards WHERE CAST(card AS BIGINT) = 1",
        // What is left out or counted further up is computed all the same, and fails on a value.
        "SELECT count(n) FROM (SELECT CAST(card AS BIGINT) AS n FROM cards)",
        "SELECT id FROM (SELECT id, CAST(card AS BIGINT) AS n FROM cards) WHERE n > 0",
        "SELECT id FROM (SELECT DISTINCT id, CAST(card AS BIGINT) AS n FROM cards)",
        "SELECT 1 FROM (SELECT max(CAST(card AS BIGINT)) AS n FROM cards) WHERE n > 0",
        "SELECT count(n) FROM (SELECT lag(CAST(card AS BIGINT)) OVER () AS n FROM cards)",
        "SELECT c FROM (SELECT card AS c FROM cards)",
        "WITH c AS (SELECT card FROM cards) SELECT * FROM c",
        "SELECT id FROM cards UNION ALL SELECT length(card) FROM cards",
        "SELECT x.c FROM cards AS t, LATERAL (SELECT t.card AS c) AS x",
        "SELECT (SELECT max(card) FROM cards)",
        "SELECT id, EXISTS (SELECT 1 FROM cards AS b WHERE b.card = 'k1') FROM cards",
        "EXPLAIN SELECT card FROM cards",
        // A hierarchy is read while the statement is planned, also where a view names it.
        "SELECT generalize('one', 'main.ladder', 1)",
        "SELECT * FROM steps",
        "CREATE TABLE ann.c AS SELECT * FROM main.cards",
        "CREATE MODEL ann.m OPTIONS (model_type = 'matrix_factorization', user_col = 'card', \
         item_col = 'id', feedback_type = 'implicit') AS SELECT card, id FROM main.cards",
    ] {
        assert_eq!(outcome(&house.ann, text).await, Err("ATT-2002"), "{text}");
    }
    assert_eq!(outcome(&house.aud, "SELECT card FROM cards").await, Ok(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_may_be_seen_in_groups_alone() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let house = House::built(&engine).await;
    done(
        &house.root,
        &[
            "CREATE TABLE visits AS SELECT * FROM (VALUES ('p1', 'home', 1), ('p2', 'home', 2), \
         ('p3', 'home', 3), ('p1', 'shop', 10), ('p1', 'shop', 20), ('p1', 'shop', 30)) \
         AS v (person, page, pay)",
            "GRANT SELECT ON visits TO ROLE analyst, ROLE auditor",
        ],
    )
    .await;
    let policy = "CREATE AGGREGATION POLICY g ON main.visits (person) MIN_GROUP_SIZE 3 \
                  EXCEPT ROLE auditor";
    done(&house.dpo, &[policy]).await;
    let pages = "SELECT page, count(*), sum(pay) FROM visits GROUP BY page";
    let shown = told(&house.ann, pages).await.unwrap();
    assert!(shown.contains("home") && !shown.contains("shop"), "{shown}");
    assert_eq!(outcome(&house.aud, pages).await, Ok(2));
    for (text, rows) in [
        ("SELECT avg(pay) FROM visits", 1),
        ("SELECT avg(pay) FROM visits WHERE person = 'p1'", 0),
        ("SELECT count(*) FROM visits WHERE page = 'shop'", 0),
        ("SELECT n FROM (SELECT page, count(*) AS n FROM visits GROUP BY page)", 1),
        ("SELECT sum(pay) FROM visits GROUP BY page HAVING sum(pay) > 5", 1),
    ] {
        assert_eq!(outcome(&house.ann, text).await, Ok(rows), "{text}");
    }
    for text in [
        "SELECT * FROM visits",
        "SELECT person FROM visits LIMIT 1",
        "SELECT DISTINCT page FROM visits",
        "SELECT max(pay) FROM visits",
        "SELECT array_agg(person) FROM visits",
        "SELECT sum(pay) FILTER (WHERE person = 'p1') FROM visits",
        "SELECT sum(CASE WHEN person = 'p1' THEN pay ELSE 0 END) FROM visits",
        "SELECT sum(x) FROM (SELECT CASE WHEN person = 'p1' THEN pay END AS x, person FROM visits)",
        "SELECT sum(pay) FROM (SELECT pay, page FROM visits)",
        "SELECT sum(pay) FROM (SELECT * FROM visits LIMIT 1)",
        "SELECT row_number() OVER () FROM visits",
        "SELECT count(*) FROM visits AS v JOIN seen AS s ON s.pay = v.pay",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM visits WHERE pay = 30)",
        "SELECT 1 WHERE 30 IN (SELECT pay FROM visits)",
        "SELECT count(*) FROM visits WHERE 1 / (pay - 30) = 0",
        "SELECT page FROM visits UNION ALL SELECT 'x'",
        // A sub-query's condition is computed of the row around it.
        "SELECT count(*) FROM visits AS v WHERE EXISTS \
         (SELECT 1 FROM seen AS s WHERE s.id = CAST(v.person AS BIGINT))",
        // What fails for the rows alone that come to it would tell of each.
        "SELECT count(*) FROM visits WHERE CASE WHEN pay = 30 THEN CAST('x' AS BIGINT) = 1 \
         ELSE true END",
        // Its operators count the rows of groups that are left out above them.
        "EXPLAIN ANALYZE SELECT count(*) FROM visits WHERE person LIKE '%1'",
        "EXPLAIN ANALYZE VERBOSE SELECT page, count(*) FROM visits GROUP BY page",
    ] {
        assert_eq!(outcome(&house.ann, text).await, Err("ATT-2002"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_on_a_tag_holds_for_every_column_that_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let house = House::built(&engine).await;
    done(
        &house.root,
        &[
            "CREATE TABLE shops AS SELECT 'a@b.org' AS owner_mail, 7 AS size",
            "GRANT SELECT ON shops TO ROLE analyst, ROLE auditor",
        ],
    )
    .await;
    done(
        &house.dpo,
        &[
            "CREATE MASKING POLICY tagged ON TAG 'pii.email' USING concat('#', length(value)) \
         EXCEPT ROLE auditor",
            "ALTER TABLE main.shops ALTER COLUMN owner_mail SET TAG 'pii.email'",
        ],
    )
    .await;
    let text = "SELECT owner_mail FROM shops";
    assert!(told(&house.ann, text).await.unwrap().contains("#7"));
    assert!(told(&house.aud, text).await.unwrap().contains("a@b.org"));
    done(&house.aud, &["CREATE TABLE aud.s AS SELECT owner_mail AS m FROM main.shops"]).await;
    done(&house.root, &["GRANT SELECT ON aud.s TO ROLE analyst"]).await;
    assert!(told(&house.ann, "SELECT m FROM aud.s").await.unwrap().contains("#7"));
    done(&house.dpo, &["ALTER TABLE main.shops ALTER COLUMN owner_mail UNSET TAG 'pii.email'"])
        .await;
    assert!(told(&house.ann, text).await.unwrap().contains("a@b.org"));
    let number = "ALTER TABLE main.shops ALTER COLUMN nothing SET TAG 'pii.email'";
    assert_eq!(outcome(&house.dpo, number).await, Err("ATT-2001"));
}

/// Conditions on the columns of `people`; a hidden row would make some of them fail.
fn condition() -> impl Strategy<Value = String> {
    let compared = prop::sample::select(vec!["=", "<>", "<", "<=", ">", ">="]);
    let number = prop::sample::select(vec![0, 1, 2, 3, 10, 20, 30, 40]);
    let text =
        prop::sample::select(vec!["ann@x.org", "*@x.org", "north", "south", "dan@hidden.org"]);
    let leaf = prop_oneof![
        (prop::sample::select(vec!["id", "pay"]), compared.clone(), number.clone())
            .prop_map(|(column, compared, number)| format!("{column} {compared} {number}")),
        (prop::sample::select(vec!["mail", "region"]), compared, text.clone())
            .prop_map(|(column, compared, text)| format!("{column} {compared} '{text}'")),
        (prop::sample::select(vec!["mail", "region"]), text)
            .prop_map(|(column, text)| format!("{column} LIKE '{}%'", &text[..2])),
        (number.clone(), number).prop_map(|(one, other)| format!("pay IN ({one}, {other})")),
        Just("1 / (pay - 40) <= 0".to_owned()),
        Just("CAST(substr(mail, 1, 0) || '7' AS BIGINT) = 7".to_owned()),
        Just("length(mail) > 7".to_owned()),
        Just("mail IS NULL".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} AND {other})")),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} OR {other})")),
            inner.prop_map(|one| format!("NOT ({one})")),
        ]
    })
}

/// Queries with such a condition.
fn query() -> impl Strategy<Value = String> {
    let forms = prop::sample::select(vec![
        "SELECT * FROM {t} WHERE {c} ORDER BY id",
        "SELECT count(*), sum(pay), min(mail), max(mail) FROM {t} WHERE {c}",
        "SELECT region, count(*), avg(pay) FROM {t} WHERE {c} GROUP BY region ORDER BY region",
        "SELECT mail, count(*) FROM {t} GROUP BY mail HAVING count(*) > 0 ORDER BY mail",
        "SELECT id FROM {t} WHERE EXISTS (SELECT 1 FROM {t} WHERE {c}) ORDER BY id",
        "SELECT id FROM {t} WHERE pay >= (SELECT avg(pay) FROM {t} WHERE {c}) ORDER BY id",
        "SELECT a.id, b.mail FROM {t} AS a JOIN (SELECT * FROM {t} WHERE {c}) AS b \
         ON a.region = b.region ORDER BY a.id, b.id",
        "WITH c AS (SELECT mail, pay FROM {t} WHERE {c}) \
         SELECT mail, rank() OVER (ORDER BY pay) FROM c ORDER BY pay",
        "SELECT id FROM {t} WHERE {c} UNION ALL SELECT pay FROM {t} ORDER BY 1",
        "SELECT id, CASE WHEN {c} THEN mail END FROM {t} ORDER BY pay DESC LIMIT 2",
    ]);
    (forms, condition()).prop_map(|(form, condition)| form.replace("{c}", &condition))
}

#[test]
fn random_queries_see_what_they_would_where_the_hidden_never_was() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let engine = runtime.block_on(crate::slt::engine(folder.path()));
    let house = runtime.block_on(House::built(&engine));
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let compared = runner.run(&query(), |query| {
        let asked = runtime.block_on(told(&house.ann, &query.replace("{t}", "people")));
        let oracle = runtime.block_on(told(&house.ann, &query.replace("{t}", "seen")));
        prop_assert_eq!(plain(asked, "people"), plain(oracle, "seen"), "{}", query);
        Ok(())
    });
    compared.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_table_shows_the_files_of_a_protected_one() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = |name: &str, role: &str| engine.session(Principal::new(name, [role]));
    let (dpo, eve) = (session("dpo", "policy_admin"), session("eve", "engineer"));
    let all = told(&eve, "SELECT count(*) FROM lake.orders").await.unwrap();
    done(&dpo, &["CREATE ROW ACCESS POLICY few ON lake.orders USING (order_id < 0)"]).await;
    assert_ne!(told(&eve, "SELECT count(*) FROM lake.orders").await.unwrap(), all);
    let alias = "CREATE EXTERNAL TABLE main.alias STORED AS CSV LOCATION 'orders/' \
                 OPTIONS (has_header 'true')";
    let refused = told(&eve, alias).await.unwrap_err();
    assert!(refused.starts_with("ATT-2003") && refused.contains("lake.orders"), "{refused}");
    done(&dpo, &["DROP ROW ACCESS POLICY few ON lake.orders"]).await;
    done(&eve, &[alias]).await;
    // Who comes later is told of it.
    let answer = dpo.query("CREATE ROW ACCESS POLICY few ON lake.orders USING (order_id < 0)");
    let message = answer.await.unwrap().message.unwrap();
    assert!(message.contains("main.alias"), "{message}");
}
