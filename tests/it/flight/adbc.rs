//! The Python ADBC driver, when Python and a package registry are at hand.

use std::path::Path;
use std::process::Command;

use super::support::start;
use crate::program;

#[tokio::test(flavor = "multi_thread")]
async fn the_python_adbc_driver_connects_asks_binds_and_browses() {
    let Some(python) = tokio::task::spawn_blocking(program::python).await.unwrap() else {
        println!("skipped: python3, or a registry that has the ADBC driver, is missing");
        return;
    };
    let server = start().await;
    let uri = format!("grpc://{}", server.address);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/adbc_python.py");
    let output = tokio::task::spawn_blocking(move || {
        Command::new(python).arg(script).args([&uri, "root", "root-secret"]).output().unwrap()
    })
    .await
    .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{failed}");
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), 30, "{said}");
}
