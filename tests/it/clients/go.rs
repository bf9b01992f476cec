//! The Go client of Flight SQL, which the Go ADBC driver is made of.

use std::process::Command;

use super::{folder, install, run_all};
use crate::flight::support::start;

#[tokio::test(flavor = "multi_thread")]
async fn the_go_client_asks_binds_browses_cancels_and_reads_every_type() {
    let Some(client) = tokio::task::spawn_blocking(install::go_client).await.unwrap() else {
        return;
    };
    let server = start().await;
    let mut command = Command::new(client);
    command.arg(server.address.to_string()).args(["root", "root-secret"]).arg(folder());
    run_all(command).await;
}
