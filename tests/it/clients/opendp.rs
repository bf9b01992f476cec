//! OpenDP as the oracle of private statistics: what it says of noise that came through SQL.

use std::process::Command;

use super::{folder, install, run_all};
use crate::program::Program;

#[tokio::test(flavor = "multi_thread")]
async fn opendp_finds_the_noise_that_was_paid_for() {
    let Some(python) = tokio::task::spawn_blocking(install::python).await.unwrap() else {
        return;
    };
    let folder_of_server = tempfile::tempdir().unwrap();
    let config = folder_of_server.path().join("attune.toml");
    std::fs::write(&config, "[warehouse]\nurl = \"warehouse\"\n").unwrap();
    // The program's own noise: that of the server in this process has none.
    let server = Program::new(&config).serve().await;
    let mut command = Command::new(python);
    command.arg(folder().join("opendp_oracle.py")).arg(format!("grpc://{}", server.address));
    command.args(["anybody", ""]);
    run_all(command).await;
    server.stop();
}
