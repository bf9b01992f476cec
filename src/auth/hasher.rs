//! Hashes the passwords that `CREATE USER` and `ALTER USER` bring, for the engine.

use std::sync::Arc;

use async_trait::async_trait;
use sql::PasswordHasher;
use tokio::sync::Semaphore;

use super::passwords::{hash_password, turns};

/// argon2id on a blocking thread, in the turns in which logins are checked.
#[derive(Debug)]
pub struct Argon2Hasher {
    turns: Arc<Semaphore>,
}

impl Default for Argon2Hasher {
    fn default() -> Self {
        Self { turns: turns() }
    }
}

#[async_trait]
impl PasswordHasher for Argon2Hasher {
    async fn hash(&self, password: String) -> Result<String, String> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|error| error.to_string())?;
        tokio::task::spawn_blocking(move || {
            // The turn goes along: a caller that gives up does not stop the thread.
            let _turn = turn;
            hash_password(&password)
        })
        .await
        .map_err(|_| "the hashing was interrupted".to_owned())?
        .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::passwords::{AT_ONCE, Passwords};
    use super::*;

    #[tokio::test]
    async fn hashes_and_checks_take_turns_together() {
        const MOMENT: Duration = Duration::from_millis(300);
        const LONG: Duration = Duration::from_secs(60);
        let passwords = Passwords::new().await.unwrap();
        let hasher = Argon2Hasher::default();
        let mut checks = Vec::new();
        for _ in 0..AT_ONCE {
            checks.push(passwords.turn().await.unwrap());
        }
        let mut hash = hasher.hash("correct horse".into());
        assert!(timeout(MOMENT, &mut hash).await.is_err(), "hashed beside {AT_ONCE} checks");
        checks.pop();
        let hash = timeout(LONG, hash).await.unwrap().unwrap();
        let turn = passwords.turn().await.unwrap();
        assert!(turn.verify("correct horse".into(), Some(hash)).await.unwrap().0);
        drop(checks);
        let hashes = hasher.turns.acquire_many(AT_ONCE as u32).await.unwrap();
        assert!(timeout(MOMENT, passwords.turn()).await.is_err(), "checked beside the hashes");
        drop(hashes);
        assert!(timeout(LONG, passwords.turn()).await.unwrap().is_ok());
    }
}
