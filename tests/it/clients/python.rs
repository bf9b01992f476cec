//! Python: the ADBC driver, pandas, polars, SQLAlchemy, and Superset's way in.

use std::process::Command;

use super::{folder, install, run_all};
use crate::flight::support::start;

async fn run_script(script: &str) {
    let Some(python) = tokio::task::spawn_blocking(install::python).await.unwrap() else {
        return;
    };
    let server = start().await;
    let mut command = Command::new(&python);
    command.arg(folder().join(script)).arg(format!("grpc://{}", server.address));
    command.args(["root", "root-secret"]);
    if script == "superset_python.py" {
        let packages = tokio::task::spawn_blocking(move || install::superset(&python));
        command.env("PYTHONPATH", packages.await.unwrap());
    }
    run_all(command).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_adbc_driver_asks_binds_browses_and_cancels() {
    run_script("adbc_python.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pyarrow_pandas_and_polars_read_every_type() {
    run_script("types_python.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlalchemy_asks_and_reflects() {
    run_script("sqlalchemy_python.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn superset_browses_and_draws() {
    run_script("superset_python.py").await;
}
