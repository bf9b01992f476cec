//! A statement that computes without a pause keeps nobody from being answered, and ends with its
//! time: the real program's threads, of which any may be the one that listens.

use std::time::Duration;

use tonic::transport::Endpoint;

use super::support::{Client, failure, rows};
use crate::program::Program;

/// A constant that takes minutes, computed while the statement is planned.
const COMPUTES: &str = "SELECT levenshtein(repeat('ab', 3000000), repeat('ba', 3000000))";
/// Within which another client is answered, on a loaded machine.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test]
async fn others_are_answered_while_a_statement_computes() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("attune.toml");
    std::fs::write(&config, "[warehouse]\nurl = \"warehouse\"\n").unwrap();
    let server = Program::new(&config).serve().await;
    let open = async || {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
        let mut client = Client::new(endpoint.connect().await.unwrap());
        client.handshake("anybody", "").await.unwrap();
        client
    };
    for _ in 0..3 {
        let mut busy = open().await;
        busy.execute_update("SET statement_timeout = '2 s'".into(), None).await.unwrap();
        let computing = tokio::spawn(async move { failure(&mut busy, COMPUTES).await });
        while !computing.is_finished() {
            let answered = tokio::time::timeout(ANSWERS_WITHIN, async {
                rows(&mut open().await, "SELECT 1").await
            });
            assert_eq!(answered.await.unwrap(), ["1"]);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (_, message) = computing.await.unwrap();
        assert!(message.contains("ATT-3003"), "{message}");
    }
    server.stop();
}
