//! What a hostile user of SQL tries: files, settings, hidden names, and statements that explode.
//! Each ends in an error within its limits, and the server answers the next query.

use std::time::{Duration, Instant};

use sql::Limits;
use tonic::Code;

use super::support::{self, failure, rows};

/// Limits under which an exploding statement ends soon.
fn tight() -> Limits {
    Limits {
        memory_bytes: 256 << 20,
        query_memory_bytes: 64 << 20,
        spill_bytes: 64 << 20,
        query_timeout: Some(Duration::from_secs(3)),
        ..Limits::default()
    }
}

/// A statement may take its time-out and what a loaded machine adds to it.
const ENDED_BY: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_reaches_for_files_settings_or_secrets() {
    let server = support::start_limited(tight()).await;
    let mut ada = server.login("ada").await;
    for text in [
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE EXTERNAL TABLE ada.x STORED AS CSV LOCATION 'file:///etc'",
        "CREATE EXTERNAL TABLE ada.x STORED AS PARQUET LOCATION 's3://elsewhere/x'",
        "CREATE EXTERNAL TABLE ada.x STORED AS CSV LOCATION '../../../../etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "COPY (SELECT 1) TO 's3://elsewhere/x.parquet'",
        "SELECT * FROM 'file:///etc/passwd'",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd\"",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM parquet_metadata('/etc/passwd')",
        "SELECT * FROM metadata_cache()",
        "SET datafusion.execution.target_partitions = 1000000",
        "SET datafusion.runtime.memory_limit = '1T'",
        "SET datafusion.catalog.location = '/etc'",
        "RESET datafusion.runtime.memory_limit",
        "SHOW datafusion.execution.batch_size",
        "SELECT * FROM information_schema.df_settings WHERE name LIKE '%key%'",
        "CREATE FUNCTION f(x INT) RETURNS INT RETURN x",
        "CREATE DATABASE other",
        "LOAD '/tmp/evil.so'",
        "EXPLAIN COPY (SELECT 1) TO '/tmp/x.csv'",
        "PREPARE p AS COPY (SELECT 1) TO '/tmp/x.csv'",
        "SELECT * FROM user.root",
        "SELECT password_hash FROM system.users",
        "DROP TABLE system.queries",
        "INSERT INTO system.queries SELECT * FROM system.queries",
        "SELECT fpe_decrypt('1', 'main')",
    ] {
        let (code, message) = failure(&mut ada, text).await;
        assert_ne!(code, Code::Internal, "{text}: {message}");
        assert_ne!(code, Code::Unknown, "{text}: {message}");
        assert!(message.starts_with("ATT-"), "{text}: {message}");
        assert!(!message.contains("argon2") && !message.contains("root:"), "{text}: {message}");
    }
    assert_eq!(rows(&mut ada, "SELECT 1").await, ["1"]);
    assert!(!std::path::Path::new("/tmp/x.csv").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_explode_end_and_the_server_answers_on() {
    let server = support::start_limited(tight()).await;
    let mut ada = server.login("ada").await;
    let deep = format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000));
    let sums = format!("SELECT 1{}", " + 1".repeat(50_000));
    let nested = (0..500)
        .fold("SELECT 1 AS a".to_owned(), |inner, _| format!("SELECT * FROM ({inner}) AS t"));
    let ands = format!("SELECT 1 WHERE {}", vec!["1 = 1"; 60_000].join(" AND "));
    let unions = vec!["SELECT 1"; 30_000].join(" UNION ALL ");
    let cases = format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(5_000), " END".repeat(5_000));
    let arrays = format!("SELECT {}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let ctes = (0..25).fold("WITH c0 AS (SELECT 1 AS x)".to_owned(), |text, n| {
        format!("{text}, c{} AS (SELECT a.x FROM c{n} AS a CROSS JOIN c{n} AS b)", n + 1)
    }) + " SELECT count(*) FROM c25";
    let series = "(SELECT value AS x FROM generate_series(1, 10000000))";
    let cross =
        format!("SELECT count(*) FROM {series} a CROSS JOIN {series} b WHERE a.x % 7 = b.x % 5");
    let sorted = format!(
        "SELECT a.x, b.x AS y FROM {series} a CROSS JOIN {series} b ORDER BY a.x * b.x DESC"
    );
    let regex = "SELECT count(*) FROM (SELECT repeat('a', 5000) AS t FROM generate_series(1, 1000000)) \
                 WHERE regexp_like(t, '^(a+)+$b|(a|aa)+c|(.*a){20}x')";
    let group = "SELECT x, count(*) FROM (SELECT repeat('z', 1000) || value AS x \
                 FROM generate_series(1, 10000000)) GROUP BY x";
    for text in [
        deep.as_str(),
        &sums,
        &nested,
        &ands,
        &unions,
        &cases,
        &arrays,
        &ctes,
        &cross,
        &sorted,
        regex,
        group,
        "SELECT repeat('x', 2000000000)",
        "SELECT sum(value) FROM generate_series(1, 1000000000000)",
        "SELECT array_repeat(repeat('x', 1000), 100000000)",
        "SELECT range(0, 100000000000)",
        "SELECT lpad('x', 2000000000, 'y')",
        "SELECT regexp_replace('a', '(((a{1,1000}){1,1000}){1,1000})', 'b')",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
        "SELECT array_agg(value) FROM generate_series(1, 1000000000)",
        "SELECT string_agg(repeat('x', 1000), ',') FROM generate_series(1, 100000000)",
    ] {
        let begun = Instant::now();
        let shown: String = text.chars().take(100).collect();
        let outcome = tokio::time::timeout(ENDED_BY, support::attempt(&mut ada, text)).await;
        let outcome = outcome.unwrap_or_else(|_| panic!("no end after {ENDED_BY:?}: {shown}"));
        if let Err(status) = outcome {
            assert_ne!(status.code(), Code::Internal, "{shown}: {}", status.message());
            assert!(status.message().starts_with("ATT-"), "{shown}: {}", status.message());
        }
        println!("{:>6} ms  {shown}", begun.elapsed().as_millis());
        assert_eq!(rows(&mut ada, "SELECT 1").await, ["1"], "after {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_columns_are_answered_or_refused() {
    let server = support::start_limited(tight()).await;
    let mut ada = server.login("ada").await;
    let columns: Vec<String> = (0..10_000).map(|n| format!("{n} AS c{n}")).collect();
    let text = format!("SELECT * FROM (SELECT {}) AS t", columns.join(", "));
    let outcome = tokio::time::timeout(ENDED_BY, support::attempt(&mut ada, &text)).await;
    match outcome.expect("an end") {
        Ok(batches) => assert_eq!(batches[0].num_columns(), 10_000),
        Err(status) => assert!(status.message().starts_with("ATT-"), "{}", status.message()),
    }
    assert_eq!(rows(&mut ada, "SELECT 1").await, ["1"]);
}
