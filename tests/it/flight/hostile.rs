//! What a hostile user of SQL reaches for: files, settings, hidden names. Each is refused with an
//! error, and the server answers the next query. Statements that explode are in `explosions`.

use tonic::Code;

use super::support::{self, Client, failure, rows};

/// Files and settings, which are closed to everybody.
pub const CLOSED: [&str; 22] = [
    "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
    "CREATE EXTERNAL TABLE main.x STORED AS CSV LOCATION 'file:///etc'",
    "CREATE EXTERNAL TABLE main.x STORED AS PARQUET LOCATION 's3://elsewhere/x'",
    "CREATE EXTERNAL TABLE main.x STORED AS CSV LOCATION '../../../../etc/passwd'",
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
    "CREATE FUNCTION f(x INT) RETURNS INT RETURN x",
    "CREATE DATABASE other",
    "LOAD '/tmp/evil.so'",
    "EXPLAIN COPY (SELECT 1) TO '/tmp/x.csv'",
    "PREPARE p AS COPY (SELECT 1) TO '/tmp/x.csv'",
];

/// What is the system's or somebody else's.
const HIDDEN: [&str; 7] = [
    "CREATE EXTERNAL TABLE ada.x STORED AS CSV LOCATION '/etc/passwd'",
    "SELECT * FROM information_schema.df_settings WHERE name LIKE '%key%'",
    "SELECT * FROM user.root",
    "SELECT password_hash FROM system.users",
    "DROP TABLE system.queries",
    "INSERT INTO system.queries SELECT * FROM system.queries",
    "SELECT fpe_decrypt('1', 'main')",
];

async fn refused(client: &mut Client, text: &str) -> (Code, String) {
    let (code, message) = failure(client, text).await;
    assert!(code != Code::Internal && code != Code::Unknown, "{text}: {code} {message}");
    assert!(message.starts_with("ATT-"), "{text}: {message}");
    assert!(!message.contains("argon2") && !message.contains("root:"), "{text}: {message}");
    (code, message)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_reaches_for_files_settings_or_secrets() {
    let server = support::start().await;
    for name in ["ada", "root"] {
        let mut client = server.login(name).await;
        for text in CLOSED.into_iter().chain(HIDDEN) {
            refused(&mut client, text).await;
        }
        assert_eq!(rows(&mut client, "SELECT 1").await, ["1"]);
    }
    assert!(!std::path::Path::new("/tmp/x.csv").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_define_external_tables_is_kept_to_the_places_and_from_the_warehouses_own() {
    let server = support::start().await;
    let mut root = server.login("root").await;
    root.execute_update("CREATE TABLE main.t AS SELECT 1 AS n".into(), None).await.unwrap();
    root.execute_update("GRANT ROLE engineer TO USER ada".into(), None).await.unwrap();
    let house = server.folder().display().to_string();
    let name = server.folder().file_name().unwrap().to_str().unwrap().to_owned();
    let own = [
        "/etc/passwd".to_owned(),
        "file:///etc/".into(),
        format!("{house}/../../etc/passwd"),
        format!("{house}-other/x.csv"),
        "s3://elsewhere/x".into(),
        format!("{house}/"),
        format!("{house}/_attune/users/"),
        format!("{house}/_attune/keys/"),
        format!("file://{house}/_attune/"),
        format!("{house}/orders/../_attune/tokens/"),
        format!("{house}/../{name}/tables/"),
        format!("file://{house}/%5Fattune/users/"),
        format!("{house}/models/"),
    ];
    let mut ada = server.login("ada").await;
    for location in own {
        for format in ["CSV", "JSON", "PARQUET", "DELTA"] {
            let text =
                format!("CREATE EXTERNAL TABLE main.x STORED AS {format} LOCATION '{location}'");
            for client in [&mut root, &mut ada] {
                let (_, message) = refused(client, &text).await;
                assert!(message.starts_with("ATT-5003"), "{text}: {message}");
            }
        }
    }
    assert_eq!(rows(&mut root, "SELECT n FROM main.t").await, ["1"]);
}
