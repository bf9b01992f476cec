//! The record of who did what: through the engine, and through the real program when it is killed,
//! when two servers write, and when somebody changes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arrow::util::display::array_value_to_string;
use arrow_flight::sql::client::FlightSqlServiceClient;
use attune::auth::hasher::Argon2Hasher;
use catalog::audit::{AuditConfig, Level};
use catalog::policy::{Principal, Role};
use catalog::{Catalog, CatalogConfig, KeyConfig, Secret, StoreConfig};
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use serde_json::Value;
use sql::{Engine, Limits, Session};
use tonic::transport::{Channel, Endpoint};

use crate::program::{Program, Server};
use crate::rights::{outcome, somebody};

const ROOT: Option<(&str, &str)> = Some(("root", "root-password"));
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine whose record is kept as `change` says.
async fn engine(folder: &Path, change: impl FnOnce(&mut AuditConfig)) -> Engine {
    let warehouse = StoreConfig { url: folder.display().to_string(), ..Default::default() };
    let now = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_millis()).unwrap()
    };
    let mut config = CatalogConfig::new(warehouse, Arc::new(now));
    let (id, secret) = (Some("k1".into()), Secret::new("a".repeat(32)));
    config.keys = vec![KeyConfig::new("demo", id, secret)];
    config.audit.level = Level::All;
    config.audit.delay = Duration::from_millis(10);
    change(&mut config.audit);
    let catalog = Catalog::open(config).await.unwrap();
    Engine::open(catalog, Limits::default(), Arc::new(Argon2Hasher::default())).unwrap()
}

/// The rows of an answer, each its values with a blank between.
async fn lines(session: &Session, text: &str) -> Vec<String> {
    let rows = session.query(text).await.unwrap().rows;
    let batches: Vec<_> = rows.try_collect().await.unwrap();
    let mut lines = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let value = |column: &arrow::array::ArrayRef| {
                array_value_to_string(column.as_ref(), row).unwrap()
            };
            lines.push(batch.columns().iter().map(value).collect::<Vec<_>>().join(" "));
        }
    }
    lines
}

/// The lines of an answer once there are so many: what has just ended may go on record a little
/// later.
async fn lines_once(session: &Session, text: &str, count: usize) -> Vec<String> {
    for _ in 0..250 {
        let told = lines(session, text).await;
        if told.len() >= count {
            return told;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lines(session, text).await
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_reads_and_refusals_are_on_record_without_what_was_typed() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path(), |_| {}).await;
    let root = engine.session(somebody("root", Role::Admin));
    let ann = engine.session(somebody("ann", Role::Analyst));
    for text in [
        "CREATE TABLE main.t AS SELECT 1 AS id, 'ann@secret.example' AS mail, 5 AS paid",
        "GRANT SELECT ON main.t TO ROLE analyst",
        "CREATE VIEW main.v AS SELECT id, paid FROM main.t",
    ] {
        assert_eq!(outcome(&root, text).await, Ok(0), "{text}");
    }
    let read = "SELECT x.mail FROM main.t AS x WHERE x.id = 1 AND x.mail <> 'bob@secret.example'";
    assert_eq!(outcome(&ann, read).await, Ok(1));
    assert_eq!(outcome(&ann, "SELECT 1").await, Ok(1));
    assert_eq!(outcome(&ann, "DROP TABLE main.t").await, Err("ATT-2003"));
    assert_eq!(outcome(&root, "SELECT sum(paid) FROM main.v").await, Ok(1));

    let all = "SELECT phase, principal, kind, rows, outcome, error_code, array_to_string(objects, \
               ','), array_to_string(columns, ',') FROM system.audit WHERE kind <> 'select' OR \
               principal = 'ann' ORDER BY sequence";
    let expected = [
        "begun root create table    main.t ",
        "ended root create table 1 finished  main.t ",
        "begun root grant     ",
        "ended root grant 1 finished   ",
        "begun root create view    main.t,main.v ",
        "ended root create view 0 finished  main.t,main.v ",
        "ended ann select 1 finished  main.t main.t.id,main.t.mail",
        "ended ann drop table  failed ATT-2003  ",
    ];
    assert_eq!(lines_once(&root, all, expected.len()).await, expected);
    // Through a view, what the view reads; by whom the record itself is read, too.
    let through = "SELECT array_to_string(objects, ','), array_to_string(columns, ',') FROM \
                   system.audit WHERE principal = 'root' AND kind = 'select' ORDER BY sequence";
    let told = lines_once(&root, through, 2).await;
    assert!(told[0].starts_with("main.t,main.v main.t.id,main.t.paid"), "{told:?}");
    assert_eq!(told[1], "system.audit ");
    let text = "SELECT count(*) FROM system.audit WHERE text LIKE '%secret%'";
    assert_eq!(lines(&root, text).await, ["0"]);
    // Others see what they did, officers see all.
    let seen = "SELECT DISTINCT principal FROM system.audit ORDER BY 1";
    assert_eq!(lines(&ann, seen).await, ["ann"]);
    let faults = outcome(&ann, "SELECT count(*) FROM system.audit_faults").await;
    assert_eq!(faults, Err("ATT-2003"));
    let officer = engine.session(somebody("dpo", Role::PolicyAdmin));
    assert_eq!(lines(&officer, seen).await, ["ann", "root"]);
    assert_eq!(outcome(&officer, "SELECT * FROM system.audit_faults").await, Ok(0));
    let uses = "SELECT name, recipients[1], used_by[1], reads, changes FROM \
                system.processing_activities ORDER BY name";
    let told = lines(&officer, uses).await;
    assert_eq!(told[0], "t role analyst: SELECT ann 2 2");
    assert!(told[1].starts_with("v "), "{told:?}");
}

async fn user(engine: &Engine, name: &str) -> Session {
    let record = engine.catalog().user(name).await.unwrap().unwrap();
    engine.session(Principal::of(&record))
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_purposes_keys_and_subjects_are_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path(), |_| {}).await;
    let local = engine.session(Principal::embedded());
    let create = "CREATE USER root PASSWORD 'root-secret' ROLE admin";
    assert_eq!(outcome(&local, create).await, Ok(0));
    let root = user(&engine, "root").await;
    for text in [
        "CREATE USER dpo PASSWORD 'dpo-secret' ROLE policy_admin",
        "CREATE USER ann PASSWORD 'ann-secret'",
        "CREATE TABLE main.t AS SELECT 7 AS id, 'ann@secret.example' AS mail",
        "CREATE TABLE main.consents AS SELECT 7 AS who, 'ads' AS what, true AS given",
        "GRANT SELECT, UPDATE ON main.t TO ann",
        "GRANT SELECT ON main.consents TO dpo",
    ] {
        assert_eq!(outcome(&root, text).await, Ok(0), "{text}");
    }
    let dpo = user(&engine, "dpo").await;
    for text in [
        "CREATE PURPOSE ads",
        "GRANT PURPOSE ads TO USER ann",
        "GRANT USAGE ON KEY demo TO USER ann FOR ENCRYPT",
        "CREATE CONSENT POLICY c ON main.t (id) USING main.consents (who, what, given) \
         FOR PURPOSE ads",
        "CREATE MASKING POLICY m ON main.t (mail) USING mask_email(mail)",
        "CREATE SUBJECT person KEY (main.t.id)",
        "HOLD SUBJECT person '7'",
        "ALTER USER ann SET DEFAULT PURPOSE ads",
    ] {
        assert_eq!(outcome(&dpo, text).await, Ok(0), "{text}");
    }
    let ann = user(&engine, "ann").await;
    assert_eq!(outcome(&ann, "SELECT encrypt(mail, 'demo') FROM main.t").await, Ok(1));

    // A read under a policy is on record before it gives anything, with the purpose it served.
    let all = "SELECT phase, purpose, array_to_string(policies, ', '), \
               array_to_string(keys, ', ') FROM system.audit \
               WHERE principal = 'ann' AND kind = 'select' ORDER BY sequence";
    let used = "ads consent policy c on main.t, masking policy m on main.t demo@k1 for ENCRYPT";
    assert_eq!(lines(&dpo, all).await, [format!("begun {used}"), format!("ended {used}")]);
    // So is a change, with what it reads under the table's name.
    let update = "UPDATE main.t SET mail = 'new@secret.example' WHERE id = 7";
    assert_eq!(outcome(&ann, update).await, Ok(0));
    let changed = "SELECT DISTINCT array_to_string(policies, ', '), \
                   array_to_string(objects, ', '), array_to_string(columns, ', ') \
                   FROM system.audit WHERE principal = 'ann' AND kind = 'update'";
    let applied = "consent policy c on main.t, masking policy m on main.t main.t main.t.id";
    assert_eq!(lines(&dpo, changed).await, [applied]);
    // So is the channel, where one is stated.
    assert_eq!(outcome(&ann, "SET channel = 'email'").await, Ok(0));
    assert_eq!(outcome(&ann, "SELECT id FROM main.t").await, Ok(1));
    let channels = "SELECT DISTINCT phase, purpose, channel FROM system.audit \
                    WHERE principal = 'ann' AND channel IS NOT NULL ORDER BY phase";
    assert_eq!(lines(&dpo, channels).await, ["begun ads email", "ended ads email"]);
    // The person of a request and the value in its text have one token.
    let token = engine.catalog().audit_token("7").await.unwrap();
    let subjects = "SELECT DISTINCT array_to_string(subjects, ', '), text FROM system.audit \
                    WHERE kind = 'hold'";
    let asked = format!("person {token} HOLD SUBJECT person ?text:{token}");
    assert_eq!(lines(&dpo, subjects).await, [asked]);
    let kept = "SELECT kind, array_to_string(objects, ', ') FROM system.audit \
                WHERE kind LIKE 'create masking%' AND phase = 'ended'";
    assert_eq!(lines(&dpo, kept).await, ["create masking main.t"]);
    let governed = "SELECT purposes[1], policies[1], policies[2], used_for[1] FROM \
                    system.processing_activities WHERE name = 't'";
    let told = lines(&dpo, governed).await;
    assert_eq!(told, ["ads masking policy m consent policy c (opt-in by main.consents) ads"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_ask_for_one_value_are_found_by_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path(), |_| {}).await;
    let root = engine.session(somebody("root", Role::Admin));
    for (text, rows) in [
        ("CREATE TABLE main.t AS SELECT 7 AS id, 'ann@secret.example' AS mail", 0),
        ("SELECT mail FROM main.t WHERE id = 007", 1),
        ("SELECT id FROM main.t WHERE mail = 'bob@secret.example'", 0),
    ] {
        assert_eq!(outcome(&root, text).await, Ok(rows), "{text}");
    }
    let text = "SELECT id FROM main.t WHERE mail = ?";
    let prepared = root.prepare(text).await.unwrap();
    let values = [ScalarValue::from("ann@secret.example")];
    let answer = root.run(&prepared, &values).await.unwrap();
    let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
    assert_eq!(rows.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 1);
    let denied = "SELECT pay FROM main.t WHERE mail = 'ann@secret.example'";
    assert_eq!(outcome(&root, denied).await, Err("ATT-2001"));

    let ann = engine.catalog().audit_token("ann@secret.example").await.unwrap();
    let seven = engine.catalog().audit_token("7").await.unwrap();
    let found = |token: &str| {
        format!(
            "SELECT text FROM system.audit WHERE phase = 'ended' AND text LIKE '%:{token}%' \
             ORDER BY sequence"
        )
    };
    let created =
        format!("CREATE TABLE main.t AS SELECT ?number:{seven} AS id, ?text:{ann} AS mail");
    let asked = [
        created.clone(),
        format!("SELECT id FROM main.t WHERE mail = ?text:{ann}"),
        format!("SELECT pay FROM main.t WHERE mail = ?text:{ann}"),
    ];
    assert_eq!(lines(&root, &found(&ann)).await, asked);
    let by_id = format!("SELECT mail FROM main.t WHERE id = ?number:{seven}");
    assert_eq!(lines(&root, &found(&seven)).await, [created, by_id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_a_warehouse_without_users_is_on_record_for_rights_alone() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path(), |_| {}).await;
    let local = engine.session(Principal::embedded());
    for text in
        ["CREATE TABLE main.t AS SELECT 1 AS n", "CREATE USER root PASSWORD 'secret-1' ROLE admin"]
    {
        assert_eq!(outcome(&local, text).await, Ok(0), "{text}");
    }
    let root = engine.session(somebody("root", Role::Admin));
    let text = "SELECT DISTINCT principal, kind FROM system.audit ORDER BY 2";
    assert_eq!(lines(&root, text).await, ["local create user"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_changes_are_on_record_when_only_they_are_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path(), |audit| audit.level = Level::Changes).await;
    let root = engine.session(somebody("root", Role::Admin));
    for (text, rows) in [("CREATE TABLE main.t AS SELECT 1 AS n", 0), ("SELECT * FROM main.t", 1)] {
        assert_eq!(outcome(&root, text).await, Ok(rows), "{text}");
    }
    let ann = engine.session(somebody("ann", Role::Analyst));
    assert_eq!(outcome(&ann, "SELECT * FROM main.t").await, Err("ATT-4001"));
    let text = "SELECT principal, kind, outcome FROM system.audit WHERE phase = 'ended' \
                ORDER BY principal";
    assert_eq!(lines(&root, text).await, ["ann select failed", "root create table finished"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_record_lets_nothing_run_that_it_cannot_keep() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(folder.path(), |audit| audit.strict = true).await;
    let root = engine.session(somebody("root", Role::Admin));
    let create = "CREATE TABLE main.t AS SELECT 1 AS n";
    assert_eq!(outcome(&root, create).await, Ok(0));
    engine.catalog().audit().flush().await.unwrap();
    // A file where the folder was: nothing can be written there.
    let segments = folder.path().join("_attune/audit/segments");
    let aside = folder.path().join("_attune/audit/aside");
    std::fs::rename(&segments, &aside).unwrap();
    std::fs::write(&segments, "in the way").unwrap();
    let insert = "INSERT INTO main.t SELECT 2 AS n";
    let error = root.query(insert).await.err().unwrap();
    assert!(error.to_string().contains("record"), "{error}");
    assert!(root.query("SELECT * FROM main.t").await.is_err());
    assert!(engine.catalog().audit().failing().is_some());
    std::fs::remove_file(&segments).unwrap();
    std::fs::rename(&aside, &segments).unwrap();
    engine.catalog().audit().flush().await.unwrap();
    assert_eq!(outcome(&root, insert).await, Ok(0));
    assert_eq!(lines(&root, "SELECT sum(n) FROM main.t").await, ["3"]);
    assert_eq!(outcome(&root, "SELECT * FROM system.audit_faults").await, Ok(0));
}

type Client = FlightSqlServiceClient<Channel>;

fn configuration(folder: &Path) -> PathBuf {
    let config = folder.join("attune.toml");
    let text = "[warehouse]\nurl = \"warehouse\"\n\n[log]\nlevel = \"warn\"\n\n\
                [audit]\ndelay = \"50 ms\"\n";
    std::fs::write(&config, text).unwrap();
    config
}

async fn connect(server: &Server) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let mut client = Client::new(endpoint.connect().await.unwrap());
    client.handshake("root", "root-password").await.unwrap();
    client
}

async fn change(client: &mut Client, text: &str) -> bool {
    client.execute_update(text.to_owned(), None).await.is_ok()
}

/// The record as `attune audit export` writes it.
fn exported(program: &Program) -> Vec<Value> {
    let (succeeded, text) = program.audit(&["export"], ROOT);
    assert!(succeeded, "{text}");
    let objects = text.lines().filter(|line| line.starts_with('{'));
    objects.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn count(entries: &[Value], kind: &str, phase: &str) -> u64 {
    let is = |entry: &&Value| entry["kind"] == kind && entry["phase"] == phase;
    entries.iter().filter(is).count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_server_has_acknowledged_is_on_record() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::new(&configuration(folder.path()));
    program.add_user("root", "admin", "root-password");
    let server = program.serve().await;
    let mut root = connect(&server).await;
    assert!(change(&mut root, "CREATE TABLE main.t AS SELECT 1 AS n").await);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let busy = tokio::spawn({
        let acknowledged = Arc::clone(&acknowledged);
        async move {
            while change(&mut root, "INSERT INTO main.t SELECT 2 AS n").await {
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let started = Instant::now();
    while acknowledged.load(Ordering::SeqCst) < 5 {
        assert!(started.elapsed() < PATIENCE, "nothing is inserted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.kill();
    busy.await.unwrap();
    let told = acknowledged.load(Ordering::SeqCst);
    let (holds, text) = program.audit(&["verify"], None);
    assert!(holds && text.contains("the record holds"), "{text}");
    let entries = exported(&program);
    let (begun, ended) = (count(&entries, "insert", "begun"), count(&entries, "insert", "ended"));
    // The one in flight may have begun, and may have ended.
    assert!((told..=told + 1).contains(&ended), "{ended} ended, {told} acknowledged");
    assert!((ended..=told + 1).contains(&begun), "{begun} begun, {ended} ended");
    assert!(count(&entries, "create user", "ended") == 1);
    assert!(entries.iter().any(|entry| entry["event"] == "login" && entry["kind"] == "user"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_over_one_warehouse_keep_one_record() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::new(&configuration(folder.path()));
    program.add_user("root", "admin", "root-password");
    let (one, two) = (program.serve().await, program.serve().await);
    let (mut first, mut second) = (connect(&one).await, connect(&two).await);
    for number in 0..10 {
        let (a, b) = (format!("a{number}"), format!("b{number}"));
        let create = |name: &str| format!("CREATE TABLE main.{name} AS SELECT 1 AS n");
        let (a, b) = (create(&a), create(&b));
        let (a, b) = tokio::join!(change(&mut first, &a), change(&mut second, &b));
        assert!(a && b);
    }
    drop((first, second));
    let stopped = tokio::task::spawn_blocking(move || {
        one.stop();
        two.stop();
    });
    stopped.await.unwrap();
    let (holds, text) = program.audit(&["verify"], None);
    assert!(holds, "{text}");
    let entries = exported(&program);
    assert_eq!(count(&entries, "create table", "begun"), 20);
    assert_eq!(count(&entries, "create table", "ended"), 20);
    let sequences: Vec<i64> =
        entries.iter().map(|entry| entry["sequence"].as_i64().unwrap()).collect();
    let expected: Vec<i64> = (1..).take(sequences.len()).collect();
    assert_eq!(sequences, expected);
}

/// The files of the record's segments, oldest first.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let blocks = std::fs::read_dir(folder.join("warehouse/_attune/audit/segments")).unwrap();
    let files = blocks.flat_map(|block| std::fs::read_dir(block.unwrap().path()).unwrap());
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn whoever_changes_the_record_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::new(&configuration(folder.path()));
    program.add_user("root", "admin", "root-password");
    let (_, before) = program.audit(&["verify"], None);
    let anchor = before.lines().find_map(|line| line.strip_prefix("anchor")).unwrap().trim();
    let key = before.lines().find_map(|line| line.strip_prefix("public key")).unwrap().trim();
    let pinned = ["verify", "--anchor", anchor, "--public-key", key];
    assert!(program.audit(&pinned, None).0);
    let segments = segments(folder.path());
    let last = segments.last().unwrap();
    let kept = std::fs::read_to_string(last).unwrap();
    std::fs::write(last, kept.replace("\"local\"", "\"nobody\"")).unwrap();
    let (holds, told) = program.audit(&["verify"], None);
    assert!(!holds && told.contains("it was changed") && told.contains("ATT-6801"), "{told}");
    std::fs::remove_file(last).unwrap();
    let (holds, told) = program.audit(&pinned, None);
    assert!(!holds && told.contains("an anchor speaks of it"), "{told}");
    std::fs::write(last, kept).unwrap();
    assert!(program.audit(&pinned, None).0);
    let other = "0".repeat(64);
    let (holds, told) = program.audit(&["verify", "--public-key", &other], None);
    assert!(!holds && told.contains("not believed"), "{told}");
    assert!(!program.audit(&["verify", "--anchor", "nonsense"], None).0);
}

#[test]
fn where_there_is_no_record_nothing_holds() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["missing", "empty"] {
        let warehouse = folder.path().join(name);
        if name == "empty" {
            std::fs::create_dir(&warehouse).unwrap();
        }
        let key = "0".repeat(64);
        for more in [vec![], vec!["--public-key", key.as_str()]] {
            let mut command = crate::program::attune();
            command.args(["audit", "verify", "--warehouse"]).arg(&warehouse).args(more);
            let output = command.current_dir(folder.path()).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{name}: {told}");
            assert!(told.contains("ATT-6802") && told.contains("no record here"), "{told}");
            assert!(told.contains("hint:") && output.stdout.is_empty(), "{output:?}");
        }
    }
}

#[test]
fn the_report_and_the_export_ask_who_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::new(&configuration(folder.path()));
    program.add_user("root", "admin", "root-password");
    for command in ["export", "report"] {
        let (succeeded, told) = program.audit(&[command], None);
        assert!(!succeeded && told.contains("ATT-6502"), "{told}");
        let (succeeded, told) = program.audit(&[command], Some(("root", "wrong-password")));
        assert!(!succeeded && told.contains("ATT-6501"), "{told}");
    }
    let (succeeded, report) = program.audit(&["report", "--format", "markdown"], ROOT);
    assert!(succeeded, "{report}");
    for part in [
        "# Record of processing activities",
        "## Sale and sharing",
        "## Recipients",
        "| root |",
        "## To be written",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
}

/// The table of a chapter of a report.
fn chapter<'a>(report: &'a str, title: &str) -> &'a str {
    let (_, after) = report.split_once(&format!("\n{title}\n")).unwrap();
    after.split("\n#").next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_has_what_governs_and_what_is_done() {
    let folder = tempfile::tempdir().unwrap();
    {
        let engine = engine(&folder.path().join("warehouse"), |_| {}).await;
        let session = engine.session(Principal::embedded());
        for text in [
            "CREATE TABLE main.crm AS SELECT 'u1' AS id, 'ann' AS name UNION ALL SELECT 'u2', 'b'",
            "CREATE TABLE main.bare AS SELECT 'x' AS mail",
            "ALTER TABLE main.bare ALTER COLUMN mail SET TAG 'pii.email'",
            "CREATE TABLE main.consents AS SELECT 'u2' AS who, 'ads' AS what, true AS given",
            "CREATE VIEW main.seen AS SELECT name FROM main.crm",
            "CREATE PURPOSE ads DESCRIPTION 'what is shown'",
            "CREATE PURPOSE other",
            "CREATE SUBJECT person KEY (main.crm.id)",
            "FORGET SUBJECT person 'u1'",
            "CREATE MASKING POLICY hide ON main.crm (name) USING '*'",
            "CREATE CONSENT POLICY opt ON main.crm (id) USING main.consents (who, what, given) \
             FOR PURPOSE ads DEFAULT DENY",
        ] {
            assert!(outcome(&session, text).await.is_ok(), "{text}");
        }
        let create = "CREATE USER root PASSWORD 'root-password' ROLE admin";
        assert_eq!(outcome(&session, create).await, Ok(0));
        let create = "CREATE USER dpo PASSWORD 'dpo-password' ROLE policy_admin";
        assert_eq!(outcome(&user(&engine, "root").await, create).await, Ok(0));
        engine.catalog().audit().flush().await.unwrap();
    }
    let program = Program::new(&configuration(folder.path()));
    let (succeeded, report) = program.audit(&["report"], Some(("dpo", "dpo-password")));
    assert!(succeeded, "{report}");
    let policies = chapter(&report, "## Purposes and policies");
    let view = policies.lines().find(|line| line.contains("| seen |")).unwrap();
    for part in ["| ads |", "masking policy hide of main.crm", "consent policy opt (opt-in by"] {
        assert!(view.contains(part), "{part}: {view}");
    }
    let parts = [
        "(a) Systematic description of the processing and its purposes",
        "(b) Necessity and proportionality",
        "(c) Risks to the rights and freedoms of persons",
        "(d) Measures",
    ];
    let places = parts.map(|part| report.find(&format!("\n## {part}\n")).unwrap());
    assert!(places.is_sorted(), "{places:?}");
    let purposes = chapter(&report, "### Purposes");
    assert!(purposes.contains("| ads | what is shown |"), "{purposes}");
    assert!(purposes.contains("main.crm<br>main.seen"), "{purposes}");
    let bases = chapter(&report, "### Legal bases");
    assert!(bases.contains("| ads | consent, article 6 (1) (a) | 1 |"), "{bases}");
    assert!(bases.contains("| other | to be written | 0 |"), "{bases}");
    let unguarded = chapter(&report, "### Personal data without a policy");
    assert!(unguarded.contains("| bare |") && !unguarded.contains("| crm |"), "{unguarded}");
    assert!(chapter(&report, "### Personal data without an end").contains("| crm |"), "{report}");
    assert!(chapter(&report, "### Pseudonyms and encryption").contains("Nothing."), "{report}");
    assert!(chapter(&report, "### Requests of persons").contains("| person |"), "{report}");
    assert!(chapter(&report, "### Erasures").contains("| person |"), "{report}");
    // Subjects and erasures are policy_admin's to see.
    let (succeeded, report) = program.audit(&["report"], ROOT);
    assert!(succeeded, "{report}");
    assert!(chapter(&report, "### Erasures").contains("Nothing."), "{report}");
}
