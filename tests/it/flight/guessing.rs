//! Passwords cannot be guessed quickly, and nobody is shut out for that.

use std::time::{Duration, Instant};

use tonic::Code;

use super::support::{TestServer, handshake, rows, start};

async fn attempt(server: &TestServer, name: &str, password: &str) -> (Code, String) {
    handshake(server.channel().await, name, password).await
}

#[tokio::test]
async fn guesses_have_to_wait_and_others_do_not() {
    let server = start().await;
    let mut ada = server.login("ada").await;
    let mut guessed_at = Instant::now();
    for name in ["nobody", "bob"] {
        let mut refused = None;
        // On a slow machine a wait of a second may be over before the next guess; each is twice as
        // long as the one before.
        for guess in 0..12 {
            let began = Instant::now();
            let (code, text) = attempt(&server, name, "guess").await;
            if code == Code::ResourceExhausted {
                refused = Some(text);
                break;
            }
            assert_eq!(code, Code::Unauthenticated, "{name} {guess}");
            guessed_at = began;
        }
        let text = refused.expect("guesses without end");
        assert!(text.starts_with("ATT-1503") && text.contains("try again in "), "{text}");
    }
    // Not even the right password tells whether it is right while the name has to wait.
    let right = attempt(&server, "bob", "bob-secret").await.0;
    if guessed_at.elapsed() < Duration::from_secs(1) {
        assert_eq!(right, Code::ResourceExhausted);
    }
    // The address has failed as often, but ada has logged in from it before.
    assert_eq!(attempt(&server, "ada", "ada-secret").await.0, Code::Ok);
    assert_eq!(rows(&mut ada, "SELECT 1").await, ["1"]);
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while attempt(&server, "bob", "bob-secret").await.0 != Code::Ok {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    waited.await.expect("bob gets in after the wait");
}

#[tokio::test]
async fn many_guesses_at_once_are_no_way_around() {
    let server = start().await;
    let began = Instant::now();
    let attempts = (0..40).map(|guess| {
        let server = &server;
        async move { attempt(server, "bob", &format!("guess {guess}")).await.0 }
    });
    let codes = futures::future::join_all(attempts).await;
    let checked = codes.iter().filter(|code| **code == Code::Unauthenticated).count();
    // Waits of 1, 2, 4 seconds that may be over on a slow machine.
    let waits = (began.elapsed().as_secs() + 1).ilog2() as usize;
    // Five are free, and two may be checked at a time.
    assert!((5..=7 + 2 * waits).contains(&checked), "{checked}");
    assert!(codes.iter().all(|code| *code != Code::Ok));
}
