//! Real clients of several languages against a server in this process.
//!
//! They are installed once into a folder of the home cache ([`install`]). A machine without Go,
//! Java with Maven, or Python does not run theirs and says so; where the language is there and its
//! client cannot be installed, the test fails.

mod documents;
mod go;
pub mod install;
mod jdbc;
mod opendp;
mod python;
mod rust;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the clients' programs.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Runs a client to its end and gives what it printed.
async fn run(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{failed}");
    said
}

/// Runs a client whose last line is "ok all".
async fn run_all(command: Command) {
    let said = run(command).await;
    assert!(said.trim_end().ends_with("ok all"), "{said}");
}
