//! What an idle session costs, measured on the real program.

use tonic::transport::Endpoint;

use super::support::{Client, rows};
use crate::program::Program;

const SESSIONS: u64 = 1_000;
const BYTES_MAX: u64 = 20_000_000;

#[tokio::test]
async fn a_thousand_idle_sessions_take_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("attune.toml");
    std::fs::write(&config, "[warehouse]\nurl = \"warehouse\"\n").unwrap();
    let server = Program::new(&config).serve().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let open = async || {
        let mut client = Client::new(channel.clone());
        client.handshake("anybody", "").await.unwrap();
        assert_eq!(rows(&mut client, "SELECT 1").await, ["1"]);
        client
    };
    // What the first statements load is not a session's.
    for _ in 0..100 {
        let mut client = open().await;
        super::support::action(&mut client, "CloseSession", "").await.unwrap();
    }
    let Some(before) = server.resident_bytes() else { return };
    let mut last = open().await;
    for _ in 1..SESSIONS {
        last = open().await;
    }
    let held = "SELECT count(*) FROM system.sessions";
    assert_eq!(rows(&mut last, held).await, [SESSIONS.to_string()]);
    let taken = server.resident_bytes().unwrap().saturating_sub(before);
    println!("{} bytes a session", taken / SESSIONS);
    assert!(taken <= BYTES_MAX, "{SESSIONS} sessions take {taken} bytes");
    server.stop();
}
