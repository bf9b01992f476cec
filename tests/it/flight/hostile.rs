//! What a hostile user of SQL reaches for: files, settings, hidden names. Each is refused with an
//! error, and the server answers the next query. Statements that explode are in `explosions`.

use tonic::Code;

use super::support::{self, failure, rows};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_reaches_for_files_settings_or_secrets() {
    let server = support::start().await;
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
