//! Real clients: psql, psycopg with SQLAlchemy, and PostgreSQL's JDBC driver.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::support::start;
use crate::clients::install;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

async fn run(mut command: Command) -> (String, String, bool) {
    let output: Output =
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_connects_asks_and_browses() {
    if !Command::new("psql").arg("--version").output().is_ok_and(|output| output.status.success()) {
        println!("not run: no psql here (apt-get install postgresql-client)");
        return;
    }
    let server = start().await;
    let psql = |arguments: &[&str]| {
        let mut command = Command::new("psql");
        command
            .arg(format!("postgresql://root@{}/attune?sslmode=require", server.address))
            .args(["-X", "-v", "ON_ERROR_STOP=1", "-P", "pager=off"])
            .args(arguments)
            .env("PGPASSWORD", "root-secret");
        run(command)
    };
    let create = "CREATE TABLE main.shop AS SELECT 1 AS id, 'pen' AS title";
    let (said, failed, done) = psql(&["-c", create, "-c", "SELECT * FROM shop"]).await;
    assert!(done && said.contains("CREATE TABLE") && said.contains("(1 row)"), "{said}\n{failed}");
    for (command, expected) in [
        ("\\d", "shop"),
        ("\\dt", "shop"),
        ("\\dv system.*", "queries"),
        ("\\d shop", "bigint"),
        ("\\d+ shop", "title"),
        ("\\dn", "main"),
        ("\\df", "0 rows"),
        ("\\l", "attune"),
        ("\\di", ""),
        ("\\dT", ""),
        ("\\conninfo", "TLS"),
        ("\\encoding", "UTF8"),
        ("\\d nothing_like_it", ""),
    ] {
        let (said, failed, done) = psql(&["-c", command]).await;
        let missing = command.contains("nothing");
        assert!(done || missing, "{command}\n{said}\n{failed}");
        assert!(said.contains(expected) || command == "\\conninfo", "{command}\n{said}\n{failed}");
    }
    let (_, failed, done) = psql(&["-c", "SELECT * FROM shops"]).await;
    assert!(!done && failed.contains("ATT-4001") && failed.contains("HINT"), "{failed}");
    let (_, failed, done) = psql(&["-c", "\\copy shop from /etc/passwd"]).await;
    assert!(!done && failed.contains("COPY is not supported"), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_connects_binds_streams_and_reflects() {
    let Some(python) = tokio::task::spawn_blocking(install::python).await.unwrap() else { return };
    let server = start().await;
    let mut command = Command::new(python);
    command.arg(folder().join("psycopg_pg.py")).arg(server.address.port().to_string());
    let (said, failed, done) = run(command).await;
    assert!(done, "{said}\n{failed}");
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), 11, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_postgresql_jdbc_driver_connects_binds_and_browses() {
    let driver = tokio::task::spawn_blocking(install::postgresql_driver).await.unwrap();
    let Some(driver) = driver else { return };
    let classes = tempfile::tempdir().unwrap();
    let path = std::env::join_paths([driver.join("*"), classes.path().to_owned()]).unwrap();
    let mut compile = Command::new("javac");
    compile.arg("-d").arg(classes.path());
    compile.arg(folder().join("pgjdbc/src/main/java/Postgres.java"));
    let (said, failed, done) = run(compile).await;
    assert!(done, "{said}\n{failed}");
    let server = start().await;
    let mut command = Command::new("java");
    command.arg("-cp").arg(path).arg("Postgres").arg(server.address.port().to_string());
    command.args(["root", "root-secret"]);
    let (said, failed, done) = run(command).await;
    assert!(done && said.contains("ok all"), "{said}\n{failed}");
}
