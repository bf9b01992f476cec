//! Rights as a client meets them: a revoke counts in the next statement, and refusals have codes.

use arrow_flight::sql::CommandGetTables;
use arrow_flight::sql::client::PreparedStatement;
use tonic::Code;
use tonic::transport::Channel;

use super::support::{Client, failure, fetch, lines, rows, start, status};

async fn run(client: &mut Client, text: &str) {
    client.execute_update(text.to_owned(), None).await.unwrap();
}

/// The rows of a prepared statement, or the code with which it fails.
async fn answer(
    client: &mut Client,
    prepared: &mut PreparedStatement<Channel>,
) -> Result<Vec<String>, Code> {
    match prepared.execute().await {
        Err(error) => Err(status(error).code()),
        Ok(info) => fetch(client, &info).await.map(|rows| lines(&rows)).map_err(|s| s.code()),
    }
}

async fn listed(client: &mut Client) -> usize {
    let query = CommandGetTables { table_types: vec!["TABLE".into()], ..Default::default() };
    let info = client.get_tables(query).await.unwrap();
    fetch(client, &info).await.unwrap().iter().map(arrow::array::RecordBatch::num_rows).sum()
}

#[tokio::test]
async fn a_revoke_counts_in_the_next_statement_also_of_a_prepared_one() {
    let server = start().await;
    let (mut root, mut ada) = (server.login("root").await, server.login("ada").await);
    for text in [
        "CREATE TABLE t AS SELECT 1 AS n, 2 AS hidden",
        "CREATE ROLE readers",
        "GRANT SELECT (n) ON t TO ROLE readers",
        "GRANT ROLE readers TO USER ada",
    ] {
        run(&mut root, text).await;
    }
    let text = "SELECT n FROM t";
    let mut prepared = ada.prepare(text.into(), None).await.unwrap();
    for (revoke, grant) in [
        ("REVOKE SELECT ON t FROM ROLE readers", "GRANT SELECT (n) ON t TO ROLE readers"),
        ("REVOKE ROLE readers FROM USER ada", "GRANT ROLE readers TO USER ada"),
    ] {
        assert_eq!(answer(&mut ada, &mut prepared).await, Ok(vec!["1".to_owned()]));
        assert_eq!(rows(&mut ada, "SELECT * FROM t").await, ["1"]);
        assert_eq!(listed(&mut ada).await, 1);
        run(&mut root, revoke).await;
        assert_eq!(answer(&mut ada, &mut prepared).await, Err(Code::NotFound), "{revoke}");
        let (code, message) = failure(&mut ada, text).await;
        assert_eq!(code, Code::NotFound);
        assert!(message.starts_with("ATT-4001: table t does not exist"), "{message}");
        assert_eq!(listed(&mut ada).await, 0);
        run(&mut root, grant).await;
    }
    assert_eq!(answer(&mut ada, &mut prepared).await, Ok(vec!["1".to_owned()]));
    run(&mut root, "DROP USER ada").await;
    assert_eq!(answer(&mut ada, &mut prepared).await.map_err(gone), Err(true));
    assert_eq!(rows(&mut root, text).await, ["1"]);
}

/// Either the server has noticed that the login's user is gone, or the engine has.
fn gone(code: Code) -> bool {
    matches!(code, Code::Unauthenticated | Code::PermissionDenied)
}

#[tokio::test]
async fn a_statement_that_waits_to_be_fetched_is_checked_when_it_runs() {
    let server = start().await;
    let (mut root, mut ada) = (server.login("root").await, server.login("ada").await);
    run(&mut root, "CREATE TABLE t AS SELECT 1 AS n").await;
    run(&mut root, "GRANT SELECT ON t TO ada").await;
    let info = ada.execute("SELECT n FROM t".into(), None).await.unwrap();
    run(&mut root, "REVOKE SELECT ON t FROM ada").await;
    assert_eq!(fetch(&mut ada, &info).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn what_is_refused_is_permission_denied() {
    let server = start().await;
    let (mut root, mut ada) = (server.login("root").await, server.login("ada").await);
    run(&mut root, "CREATE TABLE t AS SELECT 1 AS n").await;
    run(&mut root, "GRANT SELECT ON t TO PUBLIC").await;
    for text in [
        "INSERT INTO t VALUES (2)",
        "DROP TABLE t",
        "CREATE USER eve PASSWORD 'eve-secret'",
        "GRANT SELECT ON t TO ada",
        "ALTER USER root SET PASSWORD 'taken over'",
        "SELECT fpe_decrypt('1', 'demo')",
        "CREATE KEY mine",
    ] {
        let (code, message) = match ada.execute_update(text.into(), None).await {
            Err(error) => (status(error).code(), String::new()),
            Ok(_) => failure(&mut ada, text).await,
        };
        assert_eq!(code, Code::PermissionDenied, "{text}: {message}");
    }
    assert_eq!(rows(&mut root, "SELECT n FROM t").await, ["1"]);
}
