//! What tools ask the catalog, word by word as they send it.

use super::support::{Client, start_open};

async fn client() -> (super::support::TestServer, Client) {
    let server = start_open().await;
    let mut client = Client::open(&server).await;
    client
        .rows(
            "CREATE TABLE main.shop AS SELECT 1 AS id, 'pen' AS title, \
             CAST(1.5 AS DECIMAL(10, 2)) AS price, TIMESTAMP '2026-01-01' AS sold, \
             make_array('a') AS tags",
        )
        .await;
    client.rows("CREATE VIEW main.cheap AS SELECT id FROM main.shop").await;
    (server, client)
}

/// The statements of a file: paragraphs, without the lines of comment.
fn statements(text: &str) -> Vec<String> {
    let code = |part: &str| -> String {
        let lines = part.lines().filter(|line| !line.trim_start().starts_with("--"));
        lines.collect::<Vec<_>>().join("\n")
    };
    text.split("\n\n").map(code).filter(|part| !part.trim().is_empty()).collect()
}

/// The statements of `tests/data/pg/tools.sql`, and those of another file that
/// `ATTUNE_PG_QUERIES` names.
#[tokio::test]
async fn tools_queries_are_answered() {
    let (_server, mut client) = client().await;
    let oid = client.rows("SELECT 'shop'::regclass::oid").await[0].clone();
    let mut asked = statements(include_str!("../../data/pg/tools.sql"));
    if let Some(file) = std::env::var_os("ATTUNE_PG_QUERIES") {
        asked.extend(statements(&std::fs::read_to_string(file).unwrap()));
    }
    let mut failed = Vec::new();
    for statement in asked {
        let statement = statement.replace(":OID", &oid);
        let replies = client.query(&statement).await;
        if let Some(error) = replies.iter().find(|reply| reply.kind == 'E') {
            failed.push(format!("{}: {}\n{statement}\n", error.state(), error.message()));
        }
    }
    assert!(failed.is_empty(), "{} failed\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test]
async fn tables_and_columns_are_described() {
    let (_server, mut client) = client().await;
    let text = "SELECT c.relname, c.relkind, n.nspname FROM pg_catalog.pg_class c \
                JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                WHERE n.nspname = 'main' ORDER BY 1";
    assert_eq!(client.rows(text).await, ["cheap|v|main", "shop|r|main"]);
    let text = "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), t.typname \
                FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
                WHERE a.attrelid = 'main.shop'::regclass AND a.attnum > 0 ORDER BY a.attnum";
    let expected = [
        "id|bigint|int8",
        "title|text|text",
        "price|numeric(10,2)|numeric",
        "sold|timestamp without time zone|timestamp",
        "tags|text[]|_text",
    ];
    assert_eq!(client.rows(text).await, expected);
    let text = "SELECT column_name, data_type, udt_name, numeric_scale \
                FROM information_schema.columns WHERE table_name = 'shop' \
                ORDER BY ordinal_position LIMIT 3";
    let expected = ["id|bigint|int8|0", "title|text|text|NULL", "price|numeric|numeric|2"];
    assert_eq!(client.rows(text).await, expected);
    let text = "SELECT table_name, table_type FROM INFORMATION_SCHEMA.TABLES \
                WHERE table_schema = 'main' ORDER BY 1";
    assert_eq!(client.rows(text).await, ["cheap|VIEW", "shop|BASE TABLE"]);
}

#[tokio::test]
async fn functions_answer_for_the_session() {
    let (_server, mut client) = client().await;
    for (expression, text) in [
        ("current_database()", "attune"),
        ("current_schema()", "main"),
        ("(current_schemas(true))[1]", "pg_catalog"),
        ("pg_catalog.pg_encoding_to_char(6)", "UTF8"),
        ("pg_catalog.format_type(1700, 655366)", "numeric(10,2)"),
        ("obj_description('shop'::regclass, 'pg_class')", "NULL"),
        ("has_table_privilege('shop', 'SELECT')", "t"),
        ("has_table_privilege('lake.shop', 'SELECT')", "NULL"),
        ("has_table_privilege('nowhere', 'SELECT')", "NULL"),
        ("quote_ident('A b')", "\"A b\""),
        ("'nowhere'::regclass", "NULL"),
        ("pg_size_pretty(20480)", "20 kB"),
    ] {
        assert_eq!(client.rows(&format!("SELECT {expression}")).await, [text], "{expression}");
    }
    let version = client.rows("SELECT version()").await;
    assert!(version[0].starts_with("PostgreSQL 16.6 "), "{version:?}");
    // A view means the same for every client.
    client.rows("CREATE VIEW main.v AS SELECT version() AS v").await;
    assert!(!client.rows("SELECT v FROM v").await[0].starts_with("PostgreSQL"));
}
