//! The program as people and scripts meet it: arguments in; rows, messages and exit codes out.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::program::{Program, Server};

/// A working directory with a small lake.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("Ann"), None, Some("Zoé")]));
        let batch =
            RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("name", names, true)])
                .unwrap();
        let file = std::fs::File::create(place.make("lake/people/part-0.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        place.write("lake/orders/orders.csv", "person,amount\n1,10.5\n1,4.5\n3,7.0\n");
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path of a file whose folder exists.
    fn make(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.make(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attune"));
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        // What the tests' own environment says must not matter.
        for (name, _) in std::env::vars_os() {
            let known = name.to_string_lossy().into_owned();
            if known.starts_with("ATTUNE_") || known.starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }

    fn run_with_password(&self, arguments: &[&str], password: &str) -> Ran {
        let output = self.command(arguments).env("ATTUNE_PASSWORD", password).output();
        Ran::from(output.unwrap())
    }

    /// A configuration over the lake and a warehouse beside it.
    fn config(&self) -> PathBuf {
        let warehouse = "[warehouse]\nurl = \"attune-warehouse\"\n";
        let lake = "[lake]\nurl = \"lake\"\ndiscover = true\n";
        self.write("attune.toml", &format!("{warehouse}{lake}"));
        self.path().join("attune.toml")
    }

    fn run_with_input(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran::from(child.wait_with_output().unwrap())
    }
}

/// How a run ended.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[test]
fn every_folder_of_a_lake_is_a_table() {
    let place = Place::new();
    let query = "SELECT p.name, sum(o.amount) AS spent FROM people p JOIN orders o \
                 ON o.person = p.id GROUP BY p.name ORDER BY p.name";
    let ran = place.run(&["sql", "--lake", "lake", "-c", query, "--format", "csv"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "name,spent\nAnn,15.0\nZoé,7.0\n"), "{ran:?}");
    assert!(ran.err.contains("2 rows"), "{ran:?}");
}

#[test]
fn rows_go_to_standard_output_and_the_rest_to_standard_error() {
    let place = Place::new();
    let query = "SELECT id, name FROM people ORDER BY id";
    let run = |format: &str| {
        let ran = place.run(&["sql", "--lake", "lake", "-q", "-c", query, "--format", format]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
        ran.out
    };
    assert_eq!(run("csv"), "id,name\n1,Ann\n2,\n3,Zoé\n");
    assert_eq!(run("ndjson").lines().nth(1), Some("{\"id\":2,\"name\":null}"));
    let rows: serde_json::Value = serde_json::from_str(&run("json")).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 3);
    assert!(run("table").contains("│  2 │ NULL │"));
}

#[test]
fn the_tables_that_list_columns_list_their_own_too() {
    let place = Place::new();
    let query = "SELECT count(*) AS n FROM system.columns WHERE \"table\" = 'columns' AND \
                 name IN ('type', 'data_type')";
    let ran = place.run(&["sql", "-c", query, "--format", "csv"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "n\n2\n"), "{ran:?}");
}

#[test]
fn a_result_file_is_whole_or_not_there() {
    let place = Place::new();
    let query = "SELECT id FROM people";
    let ran = place.run(&["sql", "--lake", "lake", "-c", query, "-o", "ids.parquet"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:?}");
    let file = std::fs::File::open(place.path().join("ids.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 3);

    let query = "SELECT 1 / (id - id) AS x FROM people";
    let ran = place.run(&["sql", "--lake", "lake", "-c", query, "-o", "bad.csv"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(!place.path().join("bad.csv").exists());
    assert!(!place.path().join("bad.csv.part").exists());
}

#[test]
fn a_query_that_fails_is_1_and_says_what_was_meant() {
    let place = Place::new();
    let ran = place.run(&["sql", "--lake", "lake", "-c", "SELECT * FROM peple"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.starts_with("error[ATT-"), "{ran:?}");
    assert!(ran.err.contains("peple") && ran.err.contains("people"), "{ran:?}");
    let ran = place.run(&["sql", "--lake", "lake", "-c", "SELECT FROM WHERE"]);
    assert_eq!(ran.code, 1, "{ran:?}");
}

#[test]
fn a_wrong_call_is_2() {
    let place = Place::new();
    for arguments in [
        &["sql", "-c", ""][..],
        &["sql", "--nonsense"],
        &["sql", "-c", "SELECT 1", "-f", "x.sql"],
        &["sql", "-c", "SELECT 1", "--format", "xml"],
        &["docs", "no_such_function"],
        &["demo", "--scale", "0"],
        &["sql", "-c", "SELECT 1", "--connect", "localhost"],
        &["serve", "--flight", "0.0.0.0:0"],
    ] {
        let ran = place.run(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?} {ran:?}");
        assert!(ran.err.starts_with("error"), "{arguments:?} {ran:?}");
    }
}

#[test]
fn a_script_stops_at_its_first_error() {
    let place = Place::new();
    let script = "SELECT 1 AS a;\n-- two; statements\nSELECT * FROM nowhere;\nSELECT 2;";
    place.write("script.sql", script);
    let ran = place.run(&["sql", "-f", "script.sql", "--format", "csv"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, "a\n1\n"), "{ran:?}");
}

#[test]
fn piped_sql_is_a_script_for_sql_the_shell_and_attune_alone() {
    let place = Place::new();
    let script = "SELECT count(*) AS n FROM people;\nSELECT 2 AS two;\n";
    for arguments in [
        &["sql", "-", "--lake", "lake", "--format", "csv"][..],
        &["shell", "--lake", "lake", "--format", "csv"],
        &["--lake", "lake", "--format", "csv"],
    ] {
        let ran = place.run_with_input(arguments, script);
        assert_eq!((ran.code, ran.out.as_str()), (0, "n\n3\ntwo\n2\n"), "{arguments:?} {ran:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    let query = "SELECT value FROM generate_series(1, 3000000)";
    let mut child = place
        .command(&["sql", "-q", "-c", query, "--format", "csv"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "value\n");
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[test]
fn what_is_made_in_the_warehouse_is_there_the_next_time() {
    let place = Place::new();
    let sql = |text: &str| {
        place.run(&["sql", "--lake", "lake", "--warehouse", "house", "-c", text, "--format", "csv"])
    };
    let ran = sql("CREATE TABLE vip AS SELECT id FROM people WHERE id > 1");
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{ran:?}");
    assert_eq!(sql("SELECT count(*) AS n FROM vip").out, "n\n2\n");
}

#[test]
fn check_points_to_line_and_column() {
    let place = Place::new();
    let wrong = "[lake]\nurl = \"lake\"\ndiscovr = true\n\n[limits]\nmemory = \"lots\"\n";
    place.write("attune.toml", wrong);
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("--> attune.toml:3:1"), "{ran:?}");
    assert!(ran.err.contains("3 | discovr = true\n  | ^^^^^^^"), "{ran:?}");
    assert!(ran.err.contains("did you mean discover?"), "{ran:?}");
    assert!(ran.err.contains("--> attune.toml:6:10"), "{ran:?}");

    place.config();
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("(2 tables, access read)"), "{ran:?}");
    assert!(ran.out.contains("everything works"), "{ran:?}");
}

#[test]
fn check_finds_a_table_that_cannot_be_read() {
    let place = Place::new();
    place.write("lake/broken/part-0.parquet", "this is no Parquet file");
    place.config();
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("part-0.parquet"), "{ran:?}");
}

#[test]
fn embedded_is_no_side_door() {
    let place = Place::new();
    let with = |arguments: &[&str], password: &str| place.run_with_password(arguments, password);
    let ran = with(&["user", "add", "ann", "--role", "analyst"], "correct horse");
    assert_eq!(ran.code, 2, "the first user must be an administrator: {ran:?}");
    let ran = with(&["user", "add", "ann", "--role", "admin"], "correct horse");
    assert_eq!(ran.code, 0, "{ran:?}");

    let query = ["sql", "-c", "SELECT 1 AS a", "--format", "csv"];
    let ran = place.run(&query);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains("--user"), "{ran:?}");
    let as_ann = [&query[..], &["--user", "ann"]].concat();
    assert_eq!(with(&as_ann, "wrong horse").code, 1);
    let ran = with(&as_ann, "correct horse");
    assert_eq!((ran.code, ran.out.as_str()), (0, "a\n1\n"), "{ran:?}");
    let ran = with(&["user", "add", "bob"], "battery staple");
    assert_eq!(ran.code, 2, "nobody but an administrator makes users: {ran:?}");
}

#[test]
fn docs_show_a_function_and_list_all() {
    let place = Place::new();
    let ran = place.run(&["docs", "levenshtein"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.starts_with("levenshtein("), "{ran:?}");
    assert!(place.run(&["docs"]).out.contains("pseudonymize"));
    assert!(!place.path().join("attune-warehouse").exists());
}

#[tokio::test]
async fn a_server_answers_as_the_embedded_engine_does() {
    let place = Place::new();
    let server = Program::new(&place.config()).serve().await;
    let address = format!("grpc://{}", server.address);
    let script = "CREATE TABLE vip AS SELECT id FROM people; SELECT count(*) AS n FROM vip;";
    let ran = place.run(&["sql", "--connect", &address, "-c", script, "--format", "csv"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "n\n3\n"), "{ran:?}");
    let ran = place.run(&["sql", "--connect", &address, "-c", "SELECT * FROM peple"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains("people"), "{ran:?}");
    server.stop();
}

#[tokio::test]
async fn a_server_with_users_asks_for_the_password() {
    let place = Place::new();
    let program = Program::new(&place.config());
    program.add_user("ann", "admin", "correct horse");
    let server = program.serve().await;
    let address = format!("grpc://{}", server.address);
    let query = ["sql", "--connect", &address, "-c", "SELECT 1 AS a", "--format", "csv"];
    let ran = place.run(&query);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    let as_ann = [&query[..], &["--user", "ann"]].concat();
    let ran = place.run_with_password(&as_ann, "wrong horse");
    assert!(ran.code == 1 && ran.err.contains("password is wrong"), "{ran:?}");
    let ran = place.run_with_password(&as_ann, "correct horse");
    assert_eq!((ran.code, ran.out.as_str()), (0, "a\n1\n"), "{ran:?}");
    server.stop();
}

#[tokio::test]
async fn the_shell_reaches_a_server_over_tls_and_trusts_only_what_it_is_told() {
    let place = Place::new();
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    place.write("server.pem", &signed.cert.pem());
    place.write("server.key", &signed.signing_key.serialize_pem());
    place.config();
    let before = std::fs::read_to_string(place.path().join("attune.toml")).unwrap();
    let tls = "[server]\ntls_certificate_file = \"server.pem\"\ntls_key_file = \"server.key\"\n";
    place.write("attune.toml", &format!("{before}{tls}"));
    let program = Program::new(&place.path().join("attune.toml"));
    program.add_user("ann", "admin", "correct horse");
    let server = program.serve().await;
    let address = format!("grpc+tls://localhost:{}", server.address.port());
    let script = "CREATE TABLE vip AS SELECT id FROM people; SELECT count(*) AS n FROM vip;";
    let query = ["sql", "--connect", &address, "--user", "ann", "--format", "csv", "-c", script];
    let trusting = [&query[..], &["--ca", "server.pem"]].concat();
    let ran = place.run_with_password(&trusting, "correct horse");
    assert_eq!((ran.code, ran.out.as_str()), (0, "n\n3\n"), "{ran:?}");
    // What the change did is told as the embedded engine tells it.
    assert!(ran.err.contains("CREATE TABLE main.vip, 3 rows"), "{ran:?}");
    let ran = place.run_with_password(&query, "correct horse");
    assert!(ran.code == 1 && ran.out.is_empty(), "{ran:?}");
    let plain = address.replace("grpc+tls", "grpc");
    let ran = place.run_with_password(
        &["sql", "--connect", &plain, "--user", "ann", "-c", "SELECT 1"],
        "correct horse",
    );
    assert!(ran.code == 1 && ran.out.is_empty(), "{ran:?}");
    server.stop();
}

#[tokio::test]
async fn a_killed_server_loses_no_user_role_or_grant() {
    let place = Place::new();
    let program = Program::new(&place.config());
    program.add_user("root", "admin", "correct horse");
    let ask = |server: &Server, user: &str, password: &str, text: &str| {
        let address = format!("grpc://{}", server.address);
        let arguments = ["sql", "--connect", &address, "--user", user, "-c", text];
        place.run_with_password(&[&arguments[..], &["--format", "csv"]].concat(), password)
    };
    let server = program.serve().await;
    let script = "CREATE USER ann PASSWORD 'battery staple'; CREATE ROLE readers; \
                  GRANT SELECT (id) ON lake.people TO ROLE readers; GRANT readers TO ann;";
    let ran = ask(&server, "root", "correct horse", script);
    assert_eq!(ran.code, 0, "{ran:?}");
    // Dropped, it is killed.
    drop(server);
    let add = ["user", "add", "eve", "--role", "readers", "--as", "root"];
    let mut command = place.command(&add);
    command.env("ATTUNE_PASSWORD", "eve's password").env("ATTUNE_ADMIN_PASSWORD", "correct horse");
    let ran = Ran::from(command.output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    let server = program.serve().await;
    for (user, password) in [("ann", "battery staple"), ("eve", "eve's password")] {
        let ran = ask(&server, user, password, "SELECT * FROM people ORDER BY id");
        assert_eq!((ran.code, ran.out.as_str()), (0, "id\n1\n2\n3\n"), "{ran:?}");
        let ran = ask(&server, user, password, "SELECT name FROM people");
        assert!(ran.code == 1 && ran.err.contains("column name does not exist"), "{ran:?}");
        let ran = ask(&server, user, password, "SELECT * FROM orders");
        assert!(ran.code == 1 && ran.err.contains("table orders does not exist"), "{ran:?}");
    }
    server.stop();
}

#[test]
fn a_role_that_does_not_exist_is_corrected() {
    let place = Place::new();
    let ran = place.run_with_password(&["user", "add", "ann", "--role", "admn"], "correct horse");
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("did you mean admin?"), "{ran:?}");
}

#[test]
fn the_demo_runs_to_its_end_twice_and_spares_other_folders() {
    let place = Place::new();
    for _ in 0..2 {
        let ran = place.run(&["demo", "--dir", "shop", "--exit"]);
        assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
        for part in ["1. What is in the lake", "ml_recommend", "→ ", "k_anonymity", "C00042"] {
            assert!(ran.out.contains(part), "{part}: {}", ran.out);
        }
        assert_eq!(ran.err, "");
    }
    let query = "SELECT count(*) > 1000 AS many FROM customers";
    let ran = place.run(&["sql", "--config", "shop/attune.toml", "-c", query, "--format", "csv"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "many\ntrue\n"), "{ran:?}");
    let ran = place.run(&["demo", "--dir", ".", "--exit"]);
    assert_eq!(ran.code, 2, "{ran:?}");
}
