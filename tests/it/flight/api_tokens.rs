//! API tokens, through SQL and as credentials.

use std::time::Duration;

use catalog::policy::Role;
use tonic::Code;

use super::support::{Client, failure, fetch, rows, start, user};

/// Makes a token and gives its secret.
async fn made(client: &mut Client, text: &str) -> String {
    let info = client.execute(text.to_owned(), None).await.unwrap();
    let batches = fetch(client, &info).await.unwrap();
    let row = super::support::lines(&batches).remove(0);
    let secret = row.rsplit('|').next().unwrap().to_owned();
    assert!(secret.starts_with("attune_") && secret.len() == 71, "{row}");
    secret
}

#[tokio::test]
async fn a_token_stands_for_its_user_until_it_is_dropped() {
    let server = start().await;
    let mut ada = server.login("ada").await;
    let secret = made(&mut ada, "CREATE TOKEN ci PURPOSE research EXPIRES IN '90 days'").await;
    let mut program = server.bearer(&secret).await;
    let who = "SELECT current_user(), current_purpose()";
    assert_eq!(rows(&mut program, who).await, ["ada|research"]);
    let listed = "SELECT user_name, name, purpose, state FROM system.tokens";
    assert_eq!(rows(&mut ada, listed).await, ["ada|ci|research|valid"]);
    let mut bob = server.login("bob").await;
    assert_eq!(rows(&mut bob, listed).await, Vec::<String>::new());
    // As the password of a client that knows no tokens, which gets it back as its bearer token.
    let mut named = server.stranger().await;
    named.handshake("ada", &secret).await.unwrap();
    assert_eq!(named.token(), Some(&secret));
    assert_eq!(rows(&mut named, "SELECT 1").await, ["1"]);
    assert!(server.stranger().await.handshake("bob", &secret).await.is_err());
    ada.execute_update("DROP TOKEN ci".into(), None).await.unwrap();
    server.later(Duration::from_secs(1));
    for client in [&mut program, &mut named] {
        assert_eq!(failure(client, "SELECT 1").await.0, Code::Unauthenticated);
    }
    let (code, _) = failure(&mut ada, "DROP TOKEN ci").await;
    assert_eq!(code, Code::NotFound);
}

#[tokio::test]
async fn an_admin_makes_tokens_for_anybody_and_others_for_themselves() {
    let server = start().await;
    let (mut root, mut ada) = (server.login("root").await, server.login("ada").await);
    let secret = made(&mut root, "CREATE TOKEN nightly FOR USER bob").await;
    let mut program = server.bearer(&secret).await;
    assert_eq!(rows(&mut program, "SELECT current_user()").await, ["bob"]);
    for text in ["CREATE TOKEN mine FOR USER bob", "DROP TOKEN nightly FOR USER bob"] {
        assert_eq!(failure(&mut ada, text).await.0, Code::PermissionDenied, "{text}");
    }
    let (code, _) = failure(&mut root, "CREATE TOKEN x FOR USER nobody").await;
    assert_eq!(code, Code::NotFound);
    let (code, _) = failure(&mut root, "CREATE TOKEN nightly FOR USER bob").await;
    assert_eq!(code, Code::AlreadyExists);
    // A token makes no tokens.
    assert_eq!(failure(&mut program, "CREATE TOKEN y").await.0, Code::PermissionDenied);
    root.execute_update("DROP TOKEN IF EXISTS nightly FOR USER bob".into(), None).await.unwrap();
}

#[tokio::test]
async fn a_token_ends_with_its_time_and_with_its_user() {
    let server = start().await;
    let catalog = server.engine.catalog();
    let (mut root, mut ada) = (server.login("root").await, server.login("ada").await);
    let secret = made(&mut ada, "CREATE TOKEN short EXPIRES IN '1 hour'").await;
    let mut program = server.bearer(&secret).await;
    assert_eq!(rows(&mut program, "SELECT 1").await, ["1"]);
    server.later(Duration::from_secs(3_600));
    assert_eq!(failure(&mut program, "SELECT 1").await.0, Code::Unauthenticated);
    let long = made(&mut root, "CREATE TOKEN long FOR USER bob").await;
    let mut program = server.bearer(&long).await;
    assert_eq!(rows(&mut program, "SELECT 1").await, ["1"]);
    catalog.drop_user("bob").await.unwrap();
    catalog.put_user(user("bob", Role::Admin, "another bob"), false).await.unwrap();
    server.later(Duration::from_secs(1));
    assert_eq!(failure(&mut program, "SELECT 1").await.0, Code::Unauthenticated, "a new bob");
}

#[tokio::test]
async fn the_secret_is_nowhere_but_in_the_answer() {
    let server = start().await;
    let mut root = server.login("root").await;
    let secret = made(&mut root, "CREATE TOKEN hidden").await;
    for table in ["tokens", "queries", "sessions"] {
        let shown = rows(&mut root, &format!("SELECT * FROM system.{table}")).await.join("\n");
        assert!(!shown.contains(&secret[7..]), "{table}");
    }
    let mut folders = vec![server.folder().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let text = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
            assert!(!text.contains(&secret[7..]), "{}", entry.path().display());
        }
    }
}
