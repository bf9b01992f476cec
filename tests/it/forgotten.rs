//! The proof that FORGET SUBJECT leaves nothing: every file of the warehouse, the folder for what
//! does not fit in memory, the log and the tables of what was asked are searched, in bytes and
//! decoded; and whoever is killed after any of its writes has lost nothing and left nothing half
//! done.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use attune::auth::hasher::Argon2Hasher;
use catalog::policy::Principal;
use catalog::{Catalog, CatalogConfig};
use sql::{Engine, Limits, Session};
use tempfile::TempDir;
use tonic::transport::Endpoint;

use crate::flight::support::{Client, attempt, fetch, rows};
use crate::program::{Program, Server};
use crate::remnants::Remnants;
use crate::rights::outcome;
use crate::s3::{BUCKET, Store};
use crate::subjects::text;

const ID: &str = "person-who-goes-4711";
const COOKIE: &str = "cookie-of-who-goes-0815";
const NUMBER: i64 = 4_711_081_590_210_815;
const ENTITY: &str = "entity-of-who-goes";
const MAIL: &str = "Anna.Gone-4711@Example.org";
const NAME: &str = "Änn \"Anna\" O'Gone";

fn everything() -> Remnants {
    Remnants::of(&[ID, COOKIE, ENTITY, MAIL, NAME], &[NUMBER])
}

/// Tables of every kind with a past, of which one is sorted by the person's id and has statistics
/// that were made before anything was said of its columns.
fn tables() -> Vec<String> {
    let name = NAME.replace('\'', "''");
    vec![
        format!(
            "CREATE TABLE crm CLUSTER BY (id) AS SELECT 'customer-' || n AS id, 'name ' || n AS name, \
             'user' || n || '@example.com' AS mail FROM generate_series(1, 200) AS s(n) \
             UNION ALL SELECT '{ID}', '{name}', '{MAIL}'"
        ),
        format!(
            "CREATE TABLE clicks AS SELECT 'cookie-' || (n % 200) AS cookie, 'item-' || (n * 7 % 23) \
             AS item FROM generate_series(1, 2000) AS s(n) UNION ALL SELECT '{COOKIE}', 'item-1' \
             UNION ALL SELECT '{COOKIE}', 'item-2'"
        ),
        format!(
            "CREATE TABLE orders AS SELECT n AS customer, n % 9 AS paid FROM generate_series(1, 300) \
             AS s(n) UNION ALL SELECT {NUMBER}, 4"
        ),
        format!(
            "CREATE TABLE links AS SELECT id AS record_id, 'e-' || id AS entity_id FROM crm WHERE id \
             <> '{ID}' UNION ALL SELECT '{ID}', '{ENTITY}' UNION ALL SELECT '{COOKIE}', '{ENTITY}' \
             UNION ALL SELECT '{NUMBER}', '{ENTITY}'"
        ),
        format!(
            "CREATE TABLE visits AS SELECT 'customer-' || (n % 200) AS visitor, n AS page FROM \
             generate_series(1, 400) AS s(n) UNION ALL SELECT '{ID}', 7"
        ),
        format!(
            "CREATE TABLE consents AS SELECT 'customer-' || n AS subject, 'ads' AS purpose, true AS \
             granted FROM generate_series(1, 200) AS s(n) UNION ALL SELECT '{ID}', 'ads', true"
        ),
        format!("UPDATE crm SET mail = lower(mail) WHERE id = '{ID}'"),
        format!("DELETE FROM clicks WHERE cookie = '{COOKIE}' AND item = 'item-2'"),
        format!("INSERT INTO orders VALUES ({NUMBER}, 5)"),
    ]
}

/// Records of people of whom every third is there twice, and the person.
fn entries() -> String {
    let name = NAME.replace('\'', "''");
    format!(
        "CREATE TABLE entries AS WITH people AS (SELECT n AS id, \
         ['anna', 'bernd', 'clara', 'david', 'emma', 'felix', 'greta'][n * 7919 % 104729 % 7 + 1] \
         AS first_name, ['schneider', 'fischer', 'weber', 'becker', 'wagner', 'koch', 'wolf', \
         'klein', 'neumann'][n * 6271 % 104729 % 9 + 1] AS last_name, \
         'user' || (n * 31 % 9973) || '@example.com' AS email, \
         '0' || (n * 2741 % 104729 % 900 + 100) || ' ' || (n * 48271 % 8999993 + 1000000) AS phone \
         FROM generate_series(1, 300) AS s(n)) \
         SELECT * FROM people UNION ALL SELECT id + 10000, upper(first_name), last_name || 'x', \
         email, phone FROM people WHERE id % 3 = 0 \
         UNION ALL SELECT {NUMBER}, '{name}', 'gone', '{MAIL}', '0711 4711081'"
    )
}

/// What is learned, said and kept of them.
fn definitions() -> Vec<String> {
    let model = |name: &str, kind: &str, options: &str| {
        format!(
            "CREATE MODEL {name} OPTIONS (model_type = '{kind}', user_col = 'cookie', item_col = \
             'item'{options}) AS SELECT cookie, item FROM clicks"
        )
    };
    vec![
        model("factors", "matrix_factorization", ", feedback_type = 'implicit', num_factors = 4"),
        model("neighbors", "item_knn", ""),
        "CREATE MODEL ids OPTIONS (model_type = 'entity_resolution', id_col = 'id') AS SELECT * FROM entries"
            .into(),
        // Saved recommendations, a view that names nobody, and one that did before it was dropped.
        format!(
            "CREATE TABLE recommended AS SELECT '{COOKIE}' AS cookie, item, score \
             FROM ml_recommend('factors', '{COOKIE}', 3)"
        ),
        "CREATE VIEW mails AS SELECT mail FROM crm".into(),
        format!("CREATE VIEW others AS SELECT * FROM crm WHERE id <> '{ID}'"),
        "DROP VIEW others".into(),
        "CREATE EXPECTATION one ON crm CHECK (uniqueness(id) = 1)".into(),
        "CHECK TABLE crm".into(),
        "CREATE SUBJECT person KEY (crm.id, clicks.cookie, orders.customer, entries.id, visits.visitor, \
         consents.subject, recommended.cookie) VIA links (record_id, entity_id)"
            .into(),
        "ALTER TABLE crm ALTER COLUMN mail SET TAG 'pii.email'".into(),
        "ALTER TABLE crm ALTER COLUMN name SET TAG 'pii.name'".into(),
        "CREATE PURPOSE ads".into(),
        "CREATE CONSENT POLICY p ON visits (visitor) USING consents (subject, purpose, granted) \
         FOR PURPOSE ads"
            .into(),
    ]
}

/// What is asked of the person: much of it fails, and quotes what it fails on.
async fn ask(client: &mut Client) {
    for text in [
        format!("SELECT * FROM crm WHERE mail = '{MAIL}' OR id = '{ID}'"),
        format!("SELECT CAST('{MAIL}' AS INT)"),
        format!("SELECT CAST(mail AS INT) FROM crm WHERE id = '{ID}'"),
        format!("SELECT * FROM crm WHERE mail = \"{MAIL}\""),
        format!("SELECT '{MAIL}' +"),
        format!("SELECT 1 / (customer - {NUMBER}) FROM orders"),
        format!("INSERT INTO orders SELECT mail, 1 FROM crm WHERE id = '{ID}'"),
        format!("SELECT * FROM ml_recommend('factors', '{COOKIE}', 3)"),
        format!("EXPORT SUBJECT person '{ID}'"),
        format!("EXPLAIN FORGET SUBJECT person '{ID}'"),
        format!("EXPORT SUBJECT person {ID}"),
        "CHECK TABLE crm".into(),
        // Rows that do not fit in memory, whether or not there is room for them on disk.
        "SET query_memory = '32 MiB'".into(),
        format!(
            "SELECT max(k) FROM (SELECT k, row_number() OVER (ORDER BY k) AS r FROM (SELECT md5(CAST(n \
             AS VARCHAR)) || '{MAIL}' AS k FROM generate_series(1, 300000) AS s(n))) WHERE r % 7 = 0"
        ),
        "SET query_memory = DEFAULT".into(),
    ] {
        let _ = attempt(client, &text).await;
    }
    let mut prepared =
        client.prepare("SELECT name FROM crm WHERE id = ?".into(), None).await.unwrap();
    let value: ArrayRef = Arc::new(StringArray::from(vec![ID]));
    prepared.set_parameters(RecordBatch::try_from_iter([("1", value)]).unwrap()).unwrap();
    let info = prepared.execute().await.unwrap();
    assert_eq!(fetch(client, &info).await.unwrap()[0].num_rows(), 1);
}

/// A client of a server without users.
pub async fn connect(server: &Server) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    Client::new(endpoint.connect().await.unwrap())
}

pub async fn change(client: &mut Client, text: &str) {
    let done = client.execute_update(text.to_owned(), None).await;
    done.unwrap_or_else(|error| panic!("{text}: {error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_who_was_forgotten_wherever_it_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (warehouse, spill) = (folder.path().join("warehouse"), folder.path().join("spill"));
    let (config, log) = (folder.path().join("attune.toml"), folder.path().join("log"));
    std::fs::create_dir(&spill).unwrap();
    let settings = format!(
        "[warehouse]\nurl = \"{}\"\n\n[log]\nformat = \"json\"\nlevel = \"debug\"\n\n\
         [audit]\nembedded = true\ndelay = \"50 ms\"\n\n[limits]\nspill_dir = \"{}\"\n",
        warehouse.display(),
        spill.display()
    );
    std::fs::write(&config, settings).unwrap();
    let server = Program::new(&config).serve_logged(&log).await;
    let mut client = connect(&server).await;
    for text in tables().into_iter().chain([entries()]).chain(definitions()) {
        change(&mut client, &text).await;
    }
    ask(&mut client).await;
    let remnants = everything();
    let found = remnants.below(&warehouse);
    for what in [ID, COOKIE, ENTITY, MAIL, NAME, &NUMBER.to_string()] {
        assert!(
            found.iter().any(|found| found.starts_with(what)),
            "{what} is nowhere in {found:?}"
        );
    }
    change(&mut client, &format!("FORGET SUBJECT person '{ID}'")).await;
    let remains = "SELECT remains FROM system.erasures WHERE state = 'done' AND is_valid";
    assert_eq!(rows(&mut client, remains).await.len(), 1);
    for table in ["queries", "audit", "erasures", "models", "tables", "policies", "subjects"] {
        let shown = rows(&mut client, &format!("SELECT * FROM system.{table}")).await;
        assert_eq!(remnants.within(table, shown.join("\n").as_bytes()), Vec::<String>::new());
    }
    for (query, count) in [
        ("SELECT count(*) FROM crm", "200"),
        ("SELECT count(*) FROM clicks", "2000"),
        ("SELECT count(*) FROM orders", "300"),
        ("SELECT count(*) FROM entries", "400"),
        ("SELECT count(*) FROM links", "200"),
        ("SELECT count(*) FROM consents", "200"),
        ("SELECT count(*) FROM recommended", "0"),
    ] {
        assert_eq!(rows(&mut client, query).await, [count], "{query}");
    }
    drop(client);
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    for place in [&warehouse, &spill] {
        assert_eq!(remnants.below(place), Vec::<String>::new());
    }
    let log = std::fs::read(&log).unwrap();
    assert_eq!(remnants.within("the log", &log), Vec::<String>::new());
}

/// An engine over a store's bucket.
pub async fn engine(s3: &Store) -> Engine {
    let now = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_millis()).unwrap()
    };
    let catalog = Catalog::open(CatalogConfig::new(s3.config("w"), Arc::new(now))).await.unwrap();
    Engine::open(catalog, Limits::default(), Arc::new(Argon2Hasher::default())).unwrap()
}

/// One of each that an erasure writes: a table, a model, results of checks.
async fn fill(session: &Session) {
    let clicks = format!(
        "CREATE TABLE clicks AS SELECT 'customer-' || (n % 40) AS id, 'item-' || (n * 7 % 13) AS \
         item FROM generate_series(1, 200) AS s(n) UNION ALL SELECT '{ID}', 'item-1'"
    );
    for text in [
        clicks.as_str(),
        "CREATE MODEL factors OPTIONS (model_type = 'matrix_factorization', user_col = 'id', \
         item_col = 'item', feedback_type = 'implicit', num_factors = 2) \
         AS SELECT id, item FROM clicks",
        "CREATE EXPECTATION known ON clicks CHECK (id IS NOT NULL)",
        "CHECK TABLE clicks",
        "CREATE SUBJECT person KEY (clicks.id)",
    ] {
        outcome(session, text).await.unwrap_or_else(|code| panic!("{text}: {code}"));
    }
}

/// A folder with all that is in it, at another place.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

/// How many erasures are certified.
pub const DONE: &str = "SELECT count(*) FROM system.erasures WHERE state = 'done' AND is_valid";

/// What the next server makes of an erasure whose server was killed.
pub struct Ended {
    pub session: Session,
    /// What the killed server answered.
    pub forgotten: Result<usize, &'static str>,
    /// Whether it was killed before it had ended.
    pub was_killed: bool,
    _engine: Engine,
    _s3: Store,
    pub folder: TempDir,
}

/// Kills the server of `engine` over a copy of `origin` after so many writes of a statement, and
/// has the next one end what it had begun.
pub async fn ended_after(
    writes: usize,
    origin: &Path,
    forget: &str,
    engine: impl AsyncFn(&Store) -> Engine,
) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    copy(origin, folder.path());
    let s3 = Store::over(folder.path()).await;
    let killed = engine(&s3).await;
    s3.lives.kill_after(writes);
    let forgotten = outcome(&killed.session(Principal::embedded()), forget).await;
    let was_killed = s3.lives.revive();
    drop(killed);
    assert!(was_killed || forgotten.is_ok(), "{writes}: {forgotten:?}");
    let next = engine(&s3).await;
    let session = next.session(Principal::embedded());
    for (id, ended) in sql::resume_erasures(&next).await.unwrap() {
        ended.unwrap_or_else(|error| panic!("{id} after {writes} writes: {error}"));
    }
    Ended { session, forgotten, was_killed, folder, _engine: next, _s3: s3 }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_is_killed_after_any_write_is_ended_by_the_next_server() {
    let origin = tempfile::tempdir().unwrap();
    std::fs::create_dir(origin.path().join(BUCKET)).unwrap();
    {
        let s3 = Store::over(origin.path()).await;
        fill(&engine(&s3).await.session(Principal::embedded())).await;
    }
    let forget = format!("FORGET SUBJECT person '{ID}'");
    let remnants = Remnants::of(&[ID], &[]);
    for writes in 0.. {
        let Ended { session, forgotten, was_killed, folder, .. } =
            &ended_after(writes, origin.path(), &forget, engine).await;
        if text(session, DONE).await == "0" {
            // Nothing had begun, and nothing is half done.
            assert!(forgotten.is_err());
            assert_eq!(text(session, "SELECT count(*) FROM clicks").await, "201", "{writes}");
            assert_eq!(outcome(session, &forget).await, Ok(0), "{writes}");
        }
        let bucket = folder.path().join(BUCKET);
        assert_eq!(remnants.below(&bucket), Vec::<String>::new(), "after {writes} writes");
        for (query, answer) in [
            (DONE, "1"),
            ("SELECT count(*) FROM system.erasures", "1"),
            ("SELECT count(*) FROM clicks", "200"),
            ("SELECT DISTINCT source FROM ml_recommend('factors', 'customer-7', 3)", "als"),
        ] {
            assert_eq!(text(session, query).await, answer, "after {writes} writes: {query}");
        }
        let insert = "INSERT INTO clicks VALUES ('customer-40', 'item-1')";
        assert_eq!(outcome(session, insert).await, Ok(0), "after {writes} writes");
        if !*was_killed {
            assert!(writes > 10, "an erasure of {writes} writes");
            break;
        }
    }
}
