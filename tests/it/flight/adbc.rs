//! The Python ADBC driver, when Python and a package registry are at hand.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::support::start;

/// Where the clients' virtual environment is kept between runs.
fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("ATTUNE_CLIENTS_DIR") {
        return PathBuf::from(folder);
    }
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    home.join(".cache/attune/clients")
}

fn run(program: &Path, arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(program).args(arguments).output()
}

/// The interpreter of a virtual environment with the driver; None when there can be none here.
fn python() -> Option<PathBuf> {
    let folder = folder().join("adbc");
    let python = folder.join("bin/python");
    let ready = |python: &Path| {
        let output = run(python, &["-c", "import adbc_driver_flightsql.dbapi, pyarrow"]);
        output.is_ok_and(|output| output.status.success())
    };
    if ready(&python) {
        return Some(python);
    }
    let made = run(Path::new("python3"), &["-m", "venv", &folder.to_string_lossy()]);
    if !made.is_ok_and(|output| output.status.success()) {
        println!("skipped: python3 with venv is not installed");
        return None;
    }
    let packages = ["adbc-driver-flightsql", "adbc-driver-manager", "pyarrow"];
    let arguments = [&["-m", "pip", "install", "--quiet"][..], &packages[..]].concat();
    let installed = run(&python, &arguments);
    if installed.is_ok_and(|output| output.status.success()) && ready(&python) {
        return Some(python);
    }
    println!("skipped: the ADBC driver cannot be installed from a package registry");
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_adbc_driver_connects_asks_binds_and_browses() {
    let Some(python) = tokio::task::spawn_blocking(python).await.unwrap() else { return };
    let server = start().await;
    let uri = format!("grpc://{}", server.address);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/adbc_python.py");
    let output = tokio::task::spawn_blocking(move || {
        run(&python, &[&script.to_string_lossy(), &uri, "root", "root-secret"]).unwrap()
    })
    .await
    .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{failed}");
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), 21, "{said}");
}
