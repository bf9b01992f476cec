//! The official Flight SQL JDBC driver: what programs, browsers and BI tools call.

use std::process::Command;

use super::{folder, install, run, run_all};
use crate::flight::support::start;

#[tokio::test(flavor = "multi_thread")]
async fn the_jdbc_driver_asks_binds_browses_and_reads_every_type() {
    let Some(driver) = tokio::task::spawn_blocking(install::jdbc_driver).await.unwrap() else {
        return;
    };
    let classes = tempfile::tempdir().unwrap();
    let sources = std::fs::read_dir(folder().join("jdbc/src/main/java")).unwrap();
    let mut compile = Command::new("javac");
    compile.arg("-d").arg(classes.path()).arg("-cp").arg(&driver);
    compile.args(sources.flatten().map(|entry| entry.path()));
    run(compile).await;

    let server = start().await;
    let path = std::env::join_paths([driver.as_path(), classes.path()]).unwrap();
    let mut program = Command::new("java");
    // Arrow reads its buffers through Unsafe; the driver mixes the JVM's time zone into timestamps.
    program.args(["--add-opens=java.base/java.nio=ALL-UNNAMED", "-Duser.timezone=UTC", "-cp"]);
    program.arg(path).arg("Main").arg(server.address.to_string());
    program.args(["root", "root-secret"]).arg(folder());
    run_all(program).await;
}
