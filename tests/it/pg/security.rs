//! Who may come in, what a stranger can do, and what one sees of others.

use std::time::{Duration, Instant};

use attune::server::flight::Authentication;
use attune::server::pg::{self, PgOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{Client, framed, opening, options, start, start_open, start_with};

#[tokio::test]
async fn a_password_is_asked_for_over_tls_only_and_must_be_right() {
    let server = start().await;
    let mut plain = Client::stranger(server.address, false).await;
    let refused = plain.start(&[("user", "ada")], Some("ada-secret")).await.unwrap_err();
    assert_eq!(refused.state(), "28000");
    assert!(refused.hint().contains("sslmode"));
    for (name, password) in [("ada", "wrong"), ("ada", ""), ("nobody", "x"), ("", "ada-secret")] {
        let mut client = Client::stranger(server.address, true).await;
        let refused = client.start(&[("user", name)], Some(password)).await.unwrap_err();
        assert_eq!(refused.state(), "28P01", "{name}");
        assert!(client.read().await.is_none(), "the connection goes on");
    }
    let mut client = Client::login(&server, "ada").await;
    assert_eq!(client.rows("SELECT current_user, session_user").await, ["ada|ada"]);
}

#[tokio::test]
async fn a_port_for_passwords_needs_tls() {
    let folder = tempfile::tempdir().unwrap();
    let engine = super::support::engine(folder.path()).await;
    assert!(pg::bind(engine.clone(), options()).await.is_err());
    let wide = PgOptions {
        address: "0.0.0.0:0".parse().unwrap(),
        authentication: Authentication::None,
        ..options()
    };
    assert!(pg::bind(engine, wide).await.is_err());
}

#[tokio::test]
async fn nonsense_ends_the_connection_and_nothing_else() {
    let server = start_open().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0, 0, 0, 4],
        &[0xff; 64],
        &[0, 0, 0, 8, 0, 9, 0, 0],
        &[0, 0, 0, 12, 4, 210, 22, 46, 0, 0, 0, 0],
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }
    for bad in [
        [b'Q', 0x7f, 0xff, 0xff, 0xff].to_vec(),
        [b'Q', 0, 0, 0, 0].to_vec(),
        framed(b'B', b"\0\0\xff\xff\xff"),
        framed(b'?', b"x"),
        framed(b'Q', b"SELECT '\xff'\0"),
        framed(b'Q', b"no end"),
    ] {
        let mut client = Client::open(&server).await;
        client.send(&bad).await;
        let replies = client.replies().await;
        assert_eq!(replies.last().unwrap().state(), "08P01", "{bad:?}");
        assert!(client.read().await.is_none());
    }
    let long = format!("SELECT '{}'", "x".repeat(2 << 20));
    let mut client = Client::open(&server).await;
    assert_eq!(client.failure(&long).await.state(), "53000");
    assert_eq!(client.rows("SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn a_stranger_has_little_time_and_takes_no_place() {
    let server = start_with(PgOptions {
        authentication: Authentication::None,
        opening_max: Duration::from_millis(300),
        connections_max: 1,
        ..options()
    })
    .await;
    let started = Instant::now();
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(&opening(&[("user", "a")])[..6]).await.unwrap();
    let mut client = Client::open(&server).await;
    assert_eq!(client.rows("SELECT 1").await, ["1"]);
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest).await;
    let _ = half.read_to_end(&mut rest).await;
    assert!(rest.is_empty() && started.elapsed() < Duration::from_secs(10));
    let mut second = Client::stranger(server.address, false).await;
    // The place is taken only by who has logged in, and is told to be taken.
    let _ = second.start(&[("user", "b")], None).await;
    let told = second.read().await.expect("nothing was told");
    assert_eq!((told.kind, told.state().as_str()), ('E', "53300"));
}

#[tokio::test]
async fn idle_connections_end() {
    let server = start_with(PgOptions {
        authentication: Authentication::None,
        idle_max: Duration::from_millis(200),
        ..options()
    })
    .await;
    let mut client = Client::open(&server).await;
    let told = client.read().await.unwrap();
    assert_eq!(told.state(), "57P05");
    assert!(client.read().await.is_none());
}

#[tokio::test]
async fn a_stopping_server_tells_its_clients() {
    let server = start_open().await;
    let mut client = Client::open(&server).await;
    server.shutdown.cancel();
    assert_eq!(client.read().await.unwrap().state(), "57P01");
    assert!(client.read().await.is_none());
}

#[tokio::test]
async fn a_user_that_changed_has_to_connect_again() {
    let server = start().await;
    let mut client = Client::login(&server, "bob").await;
    assert_eq!(client.rows("SELECT 1").await, ["1"]);
    server.engine.catalog().drop_user("bob").await.unwrap();
    let started = Instant::now();
    loop {
        let replies = client.query("SELECT 1").await;
        match replies.iter().find(|reply| reply.kind == 'E') {
            Some(error) => break assert_eq!(error.state(), "57P01"),
            None => assert!(started.elapsed() < Duration::from_secs(20), "bob stays"),
        }
    }
}

#[tokio::test]
async fn a_killed_session_ends_and_an_api_token_opens_one() {
    let server = start().await;
    let mut root = Client::login(&server, "root").await;
    let mut bob = Client::login(&server, "bob").await;
    let sessions = "SELECT id, client FROM system.sessions WHERE principal = 'bob'";
    let listed = bob.rows("SELECT id FROM system.sessions").await;
    assert_eq!(listed.len(), 1, "{sessions}");
    root.rows(&format!("KILL SESSION '{}'", listed[0])).await;
    assert_eq!(bob.read().await.unwrap().state(), "57P01");
    let made = root.rows("CREATE TOKEN tool FOR USER ada EXPIRES IN '1 day'").await;
    let token = made[0].split('|').find(|cell| cell.starts_with("att")).unwrap_or(&made[0]);
    let mut ada = Client::stranger(server.address, true).await;
    ada.start(&[("user", "ada"), ("database", "attune")], Some(token)).await.unwrap();
    assert_eq!(ada.rows("SELECT current_user").await, ["ada"]);
    let mut other = Client::stranger(server.address, true).await;
    assert!(other.start(&[("user", "bob")], Some(token)).await.is_err());
}

#[tokio::test]
async fn the_catalog_shows_nobody_elses_tables() {
    let server = start().await;
    let mut ada = Client::login(&server, "ada").await;
    ada.rows("CREATE TABLE ada.secret AS SELECT 1 AS hidden_column").await;
    let seen = "SELECT relname FROM pg_catalog.pg_class WHERE relname = 'secret'";
    assert_eq!(ada.rows(seen).await, ["secret"]);
    let oid = ada.rows("SELECT 'ada.secret'::regclass::oid").await[0].clone();
    let mut bob = Client::login(&server, "bob").await;
    for text in [
        seen.to_owned(),
        format!("SELECT attname FROM pg_attribute WHERE attrelid = {oid}"),
        "SELECT nspname FROM pg_namespace WHERE nspname = 'ada'".into(),
        "SELECT tablename FROM pg_tables WHERE tablename = 'secret'".into(),
        "SELECT table_name FROM information_schema.tables WHERE table_name = 'secret'".into(),
        "SELECT column_name FROM information_schema.columns WHERE column_name ~ 'hidden'".into(),
        "SELECT rolname FROM pg_roles WHERE rolname IN ('ada', 'root')".into(),
    ] {
        assert_eq!(bob.rows(&text).await, Vec::<String>::new(), "{text}");
    }
    assert_eq!(bob.rows("SELECT 'ada.secret'::regclass::oid").await, ["NULL"]);
    let may_read = "SELECT has_table_privilege('ada.secret', 'select')";
    assert_eq!(ada.rows(may_read).await, ["t"]);
    assert_eq!(bob.rows(may_read).await, ["NULL"]);
    for text in [
        "SELECT * FROM ada.secret",
        "SELECT * FROM pg_catalog.pg_class c, ada.secret s",
        "SELECT (SELECT max(hidden_column) FROM ada.secret), oid FROM pg_class",
        "SELECT rolpassword FROM pg_shadow",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_ls_dir('/')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT set_config('search_path', 'ada', false)",
    ] {
        bob.failure(text).await;
    }
    assert!(bob.rows("SELECT rolpassword FROM pg_authid").await.iter().all(|p| p == "********"));
}
