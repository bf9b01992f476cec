//! The log of the real program: for each statement a line of JSON, with the id that its client got
//! and with tokens of the values that stood in its text.

use arrow_flight::FlightInfo;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::StreamExt;
use serde_json::Value;
use tonic::transport::Endpoint;

use crate::flight::{fetch, status};
use crate::program::Program;

fn announced(info: &FlightInfo) -> String {
    let said: Value = serde_json::from_slice(&info.app_metadata).unwrap();
    said["query_id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_a_line_with_its_clients_id_and_without_literals() {
    const CONFIG: &str =
        "[warehouse]\nurl = \"warehouse\"\n\n[log]\nformat = \"json\"\nlevel = \"info\"\n";
    let folder = tempfile::tempdir().unwrap();
    let (config, log) = (folder.path().join("attune.toml"), folder.path().join("log"));
    std::fs::write(&config, CONFIG).unwrap();
    let server = Program::new(&config).serve_logged(&log).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let mut client = FlightSqlServiceClient::new(endpoint.connect().await.unwrap());

    let text = "SELECT 'ann@secret.example' AS mail, 90210867530986 AS number";
    let info = client.execute(text.into(), None).await.unwrap();
    let mut stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let good = stream.headers().get("attune-query-id").unwrap().to_str().unwrap().to_owned();
    assert_eq!(announced(&info), good);
    while let Some(batch) = stream.next().await {
        batch.unwrap();
    }
    let text = "SELECT 1 / (n - 90210867530986) FROM (VALUES (90210867530986)) AS t(n)";
    let info = client.execute(text.into(), None).await.unwrap();
    let bad = announced(&info);
    let failed = fetch(&mut client, &info).await.unwrap_err();
    assert_eq!(failed.metadata().get("attune-query-id").unwrap().to_str().unwrap(), bad);
    let refused = client.execute("SELECT 'ann@secret.example' +".into(), None).await;
    assert!(status(refused.unwrap_err()).message().starts_with("ATT-"));
    drop((stream, client));
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap();

    let log = std::fs::read_to_string(&log).unwrap();
    for literal in ["ann@secret.example", "90210867530986"] {
        assert!(!log.contains(literal), "{literal} is in the log:\n{log}");
    }
    // The banner goes to standard error as well, for people.
    let lines = log.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |id: &str| {
        let mut of = lines.iter().filter(|line| line["fields"]["query"] == id);
        let line = of.next().unwrap_or_else(|| panic!("nothing of {id} in\n{log}"));
        assert!(of.next().is_none(), "two lines of {id} in\n{log}");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["fields"]["message"], "statement");
        assert!(line["timestamp"].is_string() && line["fields"]["session"].is_string());
        assert!(line["fields"]["principal"].is_string() && line["fields"]["run_ms"].is_number());
        line["fields"].clone()
    };
    let good = of(&good);
    assert_eq!(good["state"], "finished");
    assert_eq!(good["rows"], 1);
    let text = good["text"].as_str().unwrap();
    let (mail, number) = text.split_once(" AS mail, ").unwrap();
    assert!(mail.starts_with("SELECT ?text:"), "{text}");
    let number = number.strip_suffix(" AS number").unwrap();
    assert!(number.starts_with("?number:") && number.len() == 20, "{text}");
    let bad = of(&bad);
    // The same value has the same token.
    assert_eq!(bad["text"].as_str().unwrap().matches(number).count(), 2);
    assert_eq!(bad["state"], "failed");
    assert_eq!(bad["code"], "ATT-3001");
}
