//! Personal identifiers apart from behaviour: what the files of such a table hold appears in the
//! restricted table alone, and the table answers as if the files held pseudonyms.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use catalog::policy::Principal;
use parquet::arrow::ArrowWriter;
use sql::{Engine, Session};

use crate::policies::{QUERIES, done, plain, told};
use crate::rights::outcome;

/// Rows of people: id, mail, region, pay.
type Row = (i64, &'static str, &'static str, i64);

const ROWS: [Row; 4] = [
    (1, "ann@x.org", "north", 10),
    (2, "bob@x.org", "north", 20),
    (3, "cyd@hidden.org", "south", 30),
    (4, "dan@hidden.org", "south", 40),
];

fn write(path: &Path, rows: &[Row]) {
    let texts = |text: fn(&Row) -> &'static str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(text)))
    };
    let numbers = |number: fn(&Row) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(number)))
    };
    let batch = RecordBatch::try_from_iter([
        ("id", numbers(|row| row.0)),
        ("mail", texts(|row| row.1)),
        ("region", texts(|row| row.2)),
        ("pay", numbers(|row| row.3)),
    ]);
    let batch = batch.unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// An engine whose lake has the rows in two files, and `people` over them.
async fn built(folder: &Path) -> Engine {
    let lake = folder.join("lake");
    write(&lake.join("people/a.parquet"), &ROWS[..2]);
    write(&lake.join("people/b.parquet"), &ROWS[2..]);
    let engine = crate::slt::engine_over(folder, &lake).await;
    done(
        &engine.session(Principal::embedded()),
        &[
            "CREATE EXTERNAL TABLE people STORED AS PARQUET LOCATION 'people/' \
         WITH (pii = 'mail', pii_key = 'demo')",
            "CREATE VIEW people_view AS SELECT * FROM people",
            "GRANT SELECT ON people TO ROLE analyst",
            "GRANT SELECT ON people_view TO ROLE analyst",
        ],
    )
    .await;
    engine
}

fn session(engine: &Engine, name: &str, role: &str) -> Session {
    engine.session(Principal::new(name, [role]))
}

/// Rows in any order, or the code of an error.
fn sorted(told: Result<String, String>, table: &str) -> Result<Vec<String>, String> {
    let mut rows = plain(told, table)
        .map_err(|error| error.split(':').next().unwrap_or_default().to_owned())?;
    rows.sort();
    Ok(rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_pseudonyms_answers_as_if_its_files_held_them() {
    let folder = tempfile::tempdir().unwrap();
    let engine = built(folder.path()).await;
    let local = engine.session(Principal::embedded());
    let rows = ROWS.map(|(id, mail, region, pay)| format!("({id}, '{mail}', '{region}', {pay})"));
    let seen = format!(
        "CREATE TABLE seen AS SELECT id, pseudonymize(mail, 'demo') AS mail, region, pay FROM \
         (VALUES {}) AS v (id, mail, region, pay)",
        rows.join(", ")
    );
    done(
        &local,
        &[
            seen.as_str(),
            "CREATE VIEW seen_view AS SELECT * FROM seen",
            "GRANT SELECT ON seen TO ROLE analyst",
            "GRANT SELECT ON seen_view TO ROLE analyst",
        ],
    )
    .await;
    // An administrator gets no more than an analyst, nor does the owner of an embedded warehouse.
    let root = session(&engine, "root", "admin");
    for session in [&session(&engine, "ann", "analyst"), &root, &local] {
        for query in QUERIES {
            let ask = |table: &str| query.replace("{t}", table);
            let people = sorted(told(session, &ask("people")).await, "people");
            let wanted = sorted(told(session, &ask("seen")).await, "seen");
            assert_eq!(people, wanted, "{query}");
        }
    }
}

/// Whether a text holds the end of one of the mails.
fn has_mail(text: &str) -> bool {
    ["@x.org", "@hidden.org"].iter().any(|end| text.contains(end))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_restricted_table_tells_an_identifier() {
    let folder = tempfile::tempdir().unwrap();
    let engine = built(folder.path()).await;
    let root = session(&engine, "root", "admin");
    for text in [
        "SELECT * FROM people",
        "EXPLAIN SELECT mail FROM people WHERE mail LIKE 'a%'",
        "EXPLAIN VERBOSE SELECT max(mail) FROM people",
        "EXPLAIN ANALYZE VERBOSE SELECT mail FROM people WHERE id = 1",
        "DESCRIBE people",
        "SELECT * FROM propose_tags('people')",
        "SELECT * FROM system.columns WHERE \"table\" LIKE 'people%'",
        "SELECT * FROM system.tables WHERE name LIKE 'people%'",
    ] {
        let told = told(&root, text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(!has_mail(&told), "{text}: {told}");
    }
    let plan = told(&root, "EXPLAIN SELECT count(*) FROM people").await.unwrap();
    assert!(plan.contains("pseudonyms of mail under key demo"), "{plan}");
    let error = told(&root, "SELECT CAST(mail AS BIGINT) FROM people").await.unwrap_err();
    assert!(!has_mail(&error), "{error}");
    // Neither a role, nor a schema's grant, nor having made it gives the restricted table.
    let dpo = session(&engine, "dpo", "policy_admin");
    let ann = session(&engine, "ann", "analyst");
    done(&root, &["GRANT SELECT ON ALL TABLES IN SCHEMA main TO ROLE analyst"]).await;
    for session in [&root, &dpo, &ann, &session(&engine, "eve", "engineer")] {
        let raw = outcome(session, "SELECT * FROM main.people_pii").await;
        assert_eq!(raw, Err("ATT-4001"));
        let copied = outcome(session, "SELECT * FROM lake.people").await;
        assert!(copied.is_err(), "{copied:?}");
    }
    let granted = outcome(&root, "GRANT SELECT ON main.people_pii TO ROLE analyst").await;
    assert_eq!(granted, Err("ATT-4001"));
    done(&dpo, &["GRANT SELECT ON main.people_pii TO ROLE analyst"]).await;
    let known = told(&ann, "SELECT mail FROM people_pii ORDER BY mail").await.unwrap();
    assert!(known.contains("ann@x.org") && known.contains("dan@hidden.org"), "{known}");
    assert_eq!(outcome(&root, "SELECT * FROM main.people_pii").await, Err("ATT-4001"));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_servers_and_new_files_are_under_it_as_well() {
    let folder = tempfile::tempdir().unwrap();
    drop(built(folder.path()).await);
    let lake = folder.path().join("lake");
    write(&lake.join("people/c.parquet"), &[(5, "eva@x.org", "west", 50)]);
    let other = crate::slt::engine_over(folder.path(), &lake).await;
    let (ann, local) = (session(&other, "ann", "analyst"), other.session(Principal::embedded()));
    let found = told(&ann, "SELECT id, mail FROM people WHERE id = 5").await.unwrap();
    assert!(found.contains("13797227.") && !has_mail(&found), "{found}");
    let joined = "SELECT id FROM people WHERE mail = pseudonymize('eva@x.org', 'demo')";
    assert_eq!(outcome(&local, joined).await, Ok(1));
    let known = told(&local, "SELECT mail FROM people_pii WHERE mail LIKE 'eva%'").await.unwrap();
    assert!(known.contains("eva@x.org"), "{known}");
    // With the table its restricted table goes, and the files are a table of the lake again.
    done(&local, &["DROP VIEW people_view", "DROP TABLE people"]).await;
    let next = crate::slt::engine_over(folder.path(), &lake).await;
    let local = next.session(Principal::embedded());
    assert_eq!(outcome(&local, "SELECT * FROM main.people_pii").await, Err("ATT-4001"));
    assert_eq!(outcome(&local, "SELECT * FROM lake.people").await, Ok(5));
}
