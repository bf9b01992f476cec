//! Who gets in.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use catalog::policy::Role;
use tonic::Code;

use super::support::{self, failure, rows, start, start_open, user};

/// The status of a Handshake with a name and a password, or its token.
async fn handshake(server: &support::TestServer, name: &str, password: &str) -> (Code, String) {
    support::handshake(server.channel().await, name, password).await
}

#[tokio::test]
async fn a_password_gives_a_token_and_the_token_a_session() {
    let server = start().await;
    let (code, token) = handshake(&server, "ada", "ada-secret").await;
    assert_eq!(code, Code::Ok);
    let mut client = server.stranger().await;
    client.set_token(token);
    assert_eq!(rows(&mut client, "SELECT 1 + 1").await, ["2"]);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_are_told_apart_by_nothing() {
    let server = start().await;
    let wrong = handshake(&server, "ada", "wrong").await;
    assert_eq!(wrong.0, Code::Unauthenticated);
    for (name, password) in [("nobody", "wrong"), ("", ""), ("ada", ""), ("ADA", "ada-secret")] {
        assert_eq!(handshake(&server, name, password).await, wrong, "{name}");
    }
    // A real check takes milliseconds; an unknown name that skipped it would take microseconds. A
    // check waits for those of other servers in this process, so the shorter of two counts.
    let mut known = Duration::MAX;
    for _ in 0..2 {
        let start = Instant::now();
        handshake(&server, "ada", "wrong").await;
        known = known.min(start.elapsed());
    }
    let start = Instant::now();
    handshake(&server, "nobody", "wrong").await;
    assert!(start.elapsed() > known / 4);
}

#[tokio::test]
async fn nobody_gets_in_without_credentials_or_with_invented_ones() {
    let server = start().await;
    let mut client = server.stranger().await;
    assert_eq!(failure(&mut client, "SELECT 1").await.0, Code::Unauthenticated);
    for token in ["", "x", "' OR 1=1", &"A".repeat(43), &"A".repeat(10_000)] {
        client.set_token(token.to_owned());
        let code = failure(&mut client, "SELECT 1").await.0;
        assert!(matches!(code, Code::Unauthenticated | Code::InvalidArgument), "{token}: {code}");
    }
}

#[tokio::test]
async fn a_password_on_every_call_works_and_has_no_session_to_change() {
    let server = start().await;
    let mut client = server.stranger().await;
    let pair = BASE64_STANDARD.encode("ada:ada-secret");
    client.set_header("authorization", format!("Basic {pair}"));
    assert_eq!(rows(&mut client, "SELECT 'x'").await, ["x"]);
    let refused = support::action(&mut client, "CloseSession", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let pair = BASE64_STANDARD.encode("ada:wrong");
    client.set_header("authorization", format!("Basic {pair}"));
    assert_eq!(failure(&mut client, "SELECT 1").await.0, Code::Unauthenticated);
}

#[tokio::test]
async fn a_user_that_changed_has_to_log_in_again() {
    let server = start().await;
    // Nobody has asked for bob yet, so no record of him is held.
    let mut client = server.login("bob").await;
    let catalog = server.engine.catalog();
    catalog.put_user(user("bob", Role::Analyst, "another"), true).await.unwrap();
    let (code, text) = failure(&mut client, "SELECT 1").await;
    assert_eq!(code, Code::Unauthenticated, "{text}");
    assert_eq!(handshake(&server, "bob", "another").await.0, Code::Ok);
}

#[tokio::test]
async fn an_open_server_admits_anybody() {
    let server = start_open().await;
    let mut client = server.stranger().await;
    assert_eq!(rows(&mut client, "SELECT 1").await, ["1"]);
    let mut named = server.stranger().await;
    named.handshake("anybody", "anything").await.unwrap();
    assert_eq!(rows(&mut named, "SELECT 2").await, ["2"]);
}

#[tokio::test]
async fn the_first_user_closes_an_open_server() {
    let server = start_open().await;
    let (mut before, mut named) = (server.stranger().await, server.stranger().await);
    named.handshake("anybody", "anything").await.unwrap();
    assert_eq!(rows(&mut named, "SELECT 1").await, ["1"]);
    let info = named.execute("SELECT 2".into(), None).await.unwrap();
    let text = "CREATE USER root PASSWORD 'root-secret' ROLE admin";
    before.execute_update(text.into(), None).await.unwrap();
    for client in [&mut before, &mut named, &mut server.stranger().await] {
        let (code, message) = failure(client, "SELECT 1").await;
        assert_eq!(code, Code::Unauthenticated, "{message}");
    }
    let left = support::fetch(&mut named, &info).await.unwrap_err();
    assert_eq!(left.code(), Code::Unauthenticated);
    assert_eq!(handshake(&server, "anybody", "anything").await.0, Code::Unauthenticated);
    let mut root = server.login("root").await;
    assert_eq!(rows(&mut root, "SELECT current_user()").await, ["root"]);
}
