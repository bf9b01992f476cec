//! Prepared statements: types that only the bound values tell, and plans made before the values.

use arrow::datatypes::DataType;
use catalog::policy::{Principal, Role};
use datafusion::common::ScalarValue;
use futures::TryStreamExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_a_parameter_takes_the_type_of_its_value() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    let prepared = session.prepare("SELECT $2 AS b, $1 AS a, CAST($3 AS DATE) AS c").await.unwrap();
    let known: Vec<_> =
        prepared.parameters().fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(known, [DataType::Null, DataType::Null, DataType::Date32]);
    let values = [ScalarValue::from("x"), ScalarValue::from(2_i64), ScalarValue::Date32(Some(1))];
    let announced = prepared.schema_with(&values);
    let answer = session.run(&prepared, &values).await.unwrap();
    assert_eq!(answer.schema, announced);
    let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
    assert_eq!(rows[0].schema(), announced);
    assert_eq!(announced.field(0).data_type(), &DataType::Int64);
    assert!(session.run(&prepared, &values[..2]).await.is_err());
}

/// The rows of a prepared statement as text, without regard to their order.
async fn bound(session: &sql::Session, text: &str, values: &[ScalarValue]) -> Vec<String> {
    let prepared = session.prepare(text).await.unwrap();
    let mut last = Vec::new();
    // The second run has the plan that the first one optimized.
    for _ in 0..2 {
        let answer = session.run(&prepared, values).await.unwrap();
        let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
        last = crate::flight::support::lines(&rows);
    }
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn bound_values_give_what_the_same_values_written_out_give() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    let create = "CREATE TABLE v CLUSTER BY (id) AS SELECT value AS id, \
                  arrow_cast(value % 7, 'Int32') AS small, 'name ' || (value % 50) AS name, \
                  CAST(value * 0.5 AS DECIMAL(10, 2)) AS price, \
                  DATE '2026-01-01' + arrow_cast(value % 30, 'Int32') AS day, \
                  CASE WHEN value % 11 = 0 THEN NULL ELSE value % 3 = 0 END AS flag \
                  FROM generate_series(1, 5000) AS s (value)";
    session.query(create).await.unwrap();
    let int = |value: i64| ScalarValue::Int64(Some(value));
    let text = |value: &str| ScalarValue::from(value);
    let cases: Vec<(&str, Vec<(ScalarValue, &str)>)> = vec![
        ("SELECT * FROM v WHERE id = ?", vec![(int(4321), "4321")]),
        ("SELECT * FROM v WHERE id = ?", vec![(ScalarValue::Int64(None), "NULL")]),
        ("SELECT id FROM v WHERE id = ? + 1", vec![(int(10), "10")]),
        (
            "SELECT id, name FROM v WHERE name = ? AND id > ?",
            vec![(text("name 7"), "'name 7'"), (int(4000), "4000")],
        ),
        ("SELECT count(*) FROM v WHERE id IN (?, ?, 77)", vec![(int(5), "5"), (int(9999), "9999")]),
        (
            "SELECT count(*) FROM v WHERE id NOT BETWEEN ? AND ?",
            vec![(int(10), "10"), (int(4990), "4990")],
        ),
        ("SELECT max(id) FROM v WHERE name LIKE ?", vec![(text("%e 1%"), "'%e 1%'")]),
        ("SELECT id FROM v ORDER BY id DESC LIMIT ?", vec![(int(3), "3")]),
        (
            "SELECT id FROM v WHERE id > ? ORDER BY id LIMIT ? OFFSET ?",
            vec![(int(100), "100"), (int(3), "3"), (int(2), "2")],
        ),
        (
            "SELECT small, count(*) FROM v GROUP BY small HAVING count(*) > ?",
            vec![(int(714), "714")],
        ),
        (
            "SELECT count(*) FROM v AS a JOIN v AS b ON a.id = b.id + ? WHERE a.small = ?",
            vec![(int(1), "1"), (int(3), "3")],
        ),
        (
            "SELECT count(*) FROM v WHERE id IN (SELECT id * 2 FROM v WHERE small = ?)",
            vec![(int(2), "2")],
        ),
        ("SELECT id, ? AS given FROM v WHERE id < ?", vec![(text("x"), "'x'"), (int(4), "4")]),
        ("SELECT count(*) FROM v WHERE flag = ?", vec![(ScalarValue::Boolean(Some(true)), "true")]),
        (
            "SELECT count(*) FROM v WHERE flag IS DISTINCT FROM ?",
            vec![(ScalarValue::Boolean(None), "NULL")],
        ),
        (
            "SELECT count(*) FROM v WHERE CASE WHEN ? > 3 THEN small = 1 ELSE small = 2 END",
            vec![(int(5), "5")],
        ),
        ("SELECT count(*) FROM v WHERE ? = 1", vec![(int(2), "2")]),
        (
            "SELECT id FROM v WHERE price = ? UNION ALL SELECT id FROM v WHERE small = ? AND id < 20",
            vec![(text("7.50"), "'7.50'"), (int(1), "1")],
        ),
        (
            "WITH w AS (SELECT * FROM v WHERE id < ?) SELECT sum(id) FROM w WHERE small <> ?",
            vec![(int(500), "500"), (int(0), "0")],
        ),
        (
            "SELECT id FROM v WHERE day = CAST(? AS DATE) AND id < 100",
            vec![(text("2026-01-05"), "'2026-01-05'")],
        ),
    ];
    for (parametrized, values) in cases {
        let mut written = parametrized.to_owned();
        for (_, literal) in &values {
            written = written.replacen('?', literal, 1);
        }
        let prepared = session.prepare(parametrized).await.unwrap();
        let given: Vec<ScalarValue> = values
            .iter()
            .zip(prepared.parameters().fields())
            .map(|((value, _), field)| match field.data_type() {
                DataType::Null => value.clone(),
                wanted => value.cast_to(wanted).unwrap(),
            })
            .collect();
        let expected = bound(&session, &written, &[]).await;
        assert_eq!(bound(&session, parametrized, &given).await, expected, "{parametrized}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_token_is_recorded_once_however_often_it_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    let create = "CREATE TABLE said (who VARCHAR, what VARCHAR, given BOOLEAN, since TIMESTAMP)";
    session.query(create).await.unwrap();
    let choices = r#"{"subject": "u7", "purposes": {"ads": true, "news": false}}"#;
    let tokens = bound(&session, &format!("SELECT consent_seal('{choices}', 'demo')"), &[]).await;
    let record = "RECORD CONSENT ? KEY 'demo' INTO said (who, what, given, since)";
    let prepared = session.prepare(record).await.unwrap();
    assert!(prepared.is_update());
    let wanted = prepared.parameters().field(0).data_type().clone();
    let token = ScalarValue::from(tokens[0].as_str()).cast_to(&wanted).unwrap();
    for expected in [2, 0, 0] {
        let answer = session.run(&prepared, std::slice::from_ref(&token)).await.unwrap();
        assert_eq!(answer.affected, Some(expected), "{:?}", answer.message);
    }
    let nothing = ScalarValue::try_from(&wanted).unwrap();
    let answer = session.run(&prepared, &[nothing]).await.unwrap();
    assert_eq!(answer.affected, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_know_the_roles_and_settings_of_each_run() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let local = engine.session(Principal::embedded());
    let run = async |session: &sql::Session, text: &str| {
        let answer = session.query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        let _: Vec<_> = answer.rows.try_collect().await.unwrap();
    };
    for text in [
        "CREATE TABLE people AS SELECT 1 AS id, 'ann@x.org' AS mail",
        "GRANT SELECT ON people TO ROLE analyst",
        "GRANT SELECT ON people TO ROLE engineer",
        "CREATE ROW ACCESS POLICY few ON people \
         USING (has_role('analyst') AND NOT holds_role('policy_admin'))",
        "CREATE MASKING POLICY hide ON people (mail) USING CASE WHEN has_role('engineer') AND \
         current_channel() = 'email' THEN mail ELSE current_user() END",
    ] {
        run(&local, text).await;
    }
    let ada = engine.session(Principal::new("ada", [Role::Analyst, Role::Engineer]));
    let prepared = ada.prepare("SELECT mail FROM people WHERE id = $1").await.unwrap();
    for (change, expected) in [
        ("SET channel = ''", vec!["ada"]),
        ("SET channel = 'email'", vec!["ann@x.org"]),
        ("SET ROLE engineer", vec![]),
        ("SET ROLE analyst", vec!["ada"]),
        ("SET ROLE NONE", vec!["ann@x.org"]),
        ("SET channel = ''", vec!["ada"]),
    ] {
        run(&ada, change).await;
        // The second run has the plan that the first one optimized.
        for _ in 0..2 {
            let answer = ada.run(&prepared, &[ScalarValue::Int64(Some(1))]).await.unwrap();
            let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
            assert_eq!(crate::flight::support::lines(&rows), expected, "{change}");
        }
    }
    // Whoever holds the role that keeps out is kept out, whichever is active.
    let eve = engine.session(Principal::new("eve", [Role::Analyst, Role::PolicyAdmin]));
    for change in ["SET ROLE NONE", "SET ROLE analyst"] {
        run(&eve, change).await;
        assert_eq!(bound(&eve, "SELECT mail FROM people", &[]).await, [""; 0], "{change}");
    }
}
