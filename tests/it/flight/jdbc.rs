//! The Flight SQL JDBC driver, when Maven and Java are at hand and `ATTUNE_TEST_JDBC=1` asks for
//! it: the driver and what it needs are a large download.

use std::path::Path;
use std::process::Command;

use super::support::start;

#[tokio::test(flavor = "multi_thread")]
async fn the_jdbc_driver_connects_asks_binds_and_browses() {
    let installed = |program: &str| {
        Command::new(program).arg("-version").output().is_ok_and(|output| output.status.success())
    };
    if std::env::var("ATTUNE_TEST_JDBC").as_deref() != Ok("1") {
        println!("skipped: ATTUNE_TEST_JDBC is not 1");
        return;
    }
    if !installed("mvn") || !installed("java") {
        println!("skipped: mvn or java is not installed");
        return;
    }
    let server = start().await;
    let address = server.address.to_string();
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/jdbc");
    let build = std::env::temp_dir().join(format!("attune-jdbc-{}", std::process::id()));
    let output = tokio::task::spawn_blocking(move || {
        let output = Command::new("mvn")
            .current_dir(project)
            .args(["-q", "-B", "compile", "exec:exec"])
            .arg(format!("-Dattune.build={}", build.display()))
            .arg(format!("-Dattune.address={address}"))
            .args(["-Dattune.user=root", "-Dattune.password=root-secret"])
            .output();
        let _ = std::fs::remove_dir_all(&build);
        output.unwrap()
    })
    .await
    .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{failed}");
    assert!(said.contains("ok all"), "{said}\n{failed}");
}
