//! Hostile statements by PostgreSQL's protocol, whose texts go another way to the engine.

use std::time::{Duration, Instant};

use attune::server::flight::Authentication;
use attune::server::pg::PgOptions;

use super::support::{Client, options, start, start_in};
use crate::flight::explosions::{limits, runtime, statements};
use crate::flight::hostile::CLOSED;

/// Of each way to explode one.
const REPRESENTATIVE: [&str; 14] = [
    "deep parentheses",
    "deep NOT",
    "deep CASE",
    "deep subqueries",
    "a chain of ORs",
    "a chain of casts",
    "a chain of UNIONs",
    "doubling expressions",
    "repeat",
    "a list",
    "counting a long series",
    "adding up a cross join",
    "a recursive query",
    "a regular expression that is too large",
];

#[tokio::test(flavor = "multi_thread")]
async fn files_and_settings_are_closed_here_too() {
    let server = start().await;
    for name in ["ada", "root"] {
        let mut client = Client::login(&server, name).await;
        for text in CLOSED {
            let error = client.failure(text).await;
            let told = format!("{text}: {} {}", error.state(), error.message());
            assert!(!error.state().starts_with("XX"), "{told}");
            assert!(!told.contains("argon2") && !told.contains("root:"), "{told}");
        }
        assert_eq!(client.rows("SELECT current_user").await, [name]);
    }
    assert!(!std::path::Path::new("/tmp/x.csv").exists());
}

#[test]
fn what_explodes_ends_in_an_error_here_too() {
    let runtime = runtime();
    runtime.block_on(runtime.spawn(explode())).unwrap();
}

async fn explode() {
    let options = PgOptions { authentication: Authentication::None, ..options() };
    let server = start_in(options, limits()).await;
    let mut client = Client::open(&server).await;
    let mut other = Client::open(&server).await;
    let mut tried = 0;
    for (what, text) in statements() {
        if !REPRESENTATIVE.contains(&what) {
            continue;
        }
        tried += 1;
        let started = Instant::now();
        let (error, _) = tokio::join!(client.failure(&text), async {
            assert_eq!(other.rows("SELECT 1").await, ["1"], "{what}");
        });
        let took = started.elapsed();
        assert!(!error.state().starts_with("XX"), "{what}: {} {}", error.state(), error.message());
        assert!(took < Duration::from_secs(15), "{what} took {took:?}");
        assert_eq!(client.rows("SELECT 1").await, ["1"], "after {what}");
    }
    assert_eq!(tried, REPRESENTATIVE.len());
}
