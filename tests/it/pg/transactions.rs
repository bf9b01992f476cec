//! Transactions and parameters, as drivers use them.

use super::support::{Client, kinds, start_open};

#[tokio::test]
async fn reading_transactions_are_answered() {
    let server = start_open().await;
    let mut client = Client::open(&server).await;
    assert_eq!(client.tag("BEGIN").await, "BEGIN");
    assert_eq!(client.status, 'T');
    client.failure("SELECT nonsense").await;
    assert_eq!(client.status, 'E');
    assert_eq!(client.failure("SELECT 1").await.state(), "25P02");
    assert_eq!(client.tag("COMMIT").await, "ROLLBACK");
    assert_eq!(client.status, 'I');
    assert_eq!(client.tag("START TRANSACTION READ ONLY").await, "BEGIN");
    let error = client.failure("CREATE TABLE main.t AS SELECT 1 AS a").await;
    assert_eq!(error.state(), "25006");
    assert_eq!(client.tag("ROLLBACK").await, "ROLLBACK");
    client.query("BEGIN; SAVEPOINT a").await;
    client.failure("SELECT nonsense").await;
    assert_eq!(client.tag("ROLLBACK TO SAVEPOINT a").await, "ROLLBACK");
    assert_eq!((client.status, client.tag("COMMIT").await.as_str()), ('T', "COMMIT"));
    for text in ["BEGIN ISOLATION LEVEL SERIALIZABLE", "PREPARE TRANSACTION 'a'"] {
        assert_eq!(client.failure(text).await.state(), "0A000", "{text}");
    }
}

#[tokio::test]
async fn a_rollback_after_a_change_is_an_error() {
    let server = start_open().await;
    let mut client = Client::open(&server).await;
    client.query("BEGIN").await;
    let replies = client.query("CREATE TABLE main.kept AS SELECT 1 AS a").await;
    assert_eq!(kinds(&replies), "NC");
    assert_eq!(kinds(&client.query("INSERT INTO kept VALUES (2)").await), "C");
    let error = client.failure("ROLLBACK").await;
    assert_eq!(error.state(), "0A000");
    assert!(error.message().contains("cannot be undone"), "{}", error.message());
    assert_eq!(client.status, 'I');
    assert_eq!(client.rows("SELECT count(*) FROM kept").await, ["2"]);
    assert_eq!(kinds(&client.query("BEGIN; INSERT INTO kept VALUES (3); COMMIT").await), "CNCC");
}

#[tokio::test]
async fn parameters_are_set_shown_and_reset() {
    let server = start_open().await;
    let mut client = Client::open(&server).await;
    for (text, tag) in [
        ("SET application_name = 'x y'", "SET"),
        ("SET SESSION search_path TO system, public", "SET"),
        ("SET extra_float_digits = 3", "SET"),
        ("SET client_encoding TO 'UTF8'", "SET"),
        ("SET client_min_messages TO warning", "SET"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ UNCOMMITTED", "SET"),
        ("UNLISTEN *", "UNLISTEN"),
        ("RESET application_name", "RESET"),
        ("DISCARD ALL", "DISCARD ALL"),
        ("DEALLOCATE ALL", "DEALLOCATE ALL"),
    ] {
        assert_eq!(client.tag(text).await, tag, "{text}");
    }
    assert_eq!(kinds(&client.query("SET application_name = 'z'").await), "SC");
    for (text, value) in [
        ("SHOW application_name", "z"),
        ("SHOW TimeZone", "UTC"),
        ("SHOW server_version", "16.6"),
        ("SHOW TRANSACTION ISOLATION LEVEL", "read committed"),
        ("SHOW standard_conforming_strings", "on"),
        ("SELECT current_setting('application_name')", "z"),
        ("SELECT setting FROM pg_settings WHERE name = 'max_index_keys'", "32"),
    ] {
        assert_eq!(client.rows(text).await, [value], "{text}");
    }
    assert!(client.rows("SHOW ALL").await.len() > 20);
    for text in ["SET work_mem = '1GB'", "SET DateStyle = 'German'", "SET TimeZone = 'the moon'"] {
        client.failure(text).await;
    }
    client.query("BEGIN; SET LOCAL application_name = 'local'").await;
    assert_eq!(client.rows("SHOW application_name").await, ["local"]);
    client.query("COMMIT").await;
    assert_eq!(client.rows("SHOW application_name").await, ["z"]);
    client.query("SET default_transaction_read_only = on").await;
    assert_eq!(client.failure("CREATE TABLE main.t AS SELECT 1").await.state(), "25006");
}
