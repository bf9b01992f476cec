//! Hashes the passwords that `CREATE USER` and `ALTER USER` bring, for the engine.

use std::sync::Arc;

use async_trait::async_trait;
use sql::PasswordHasher;
use tokio::sync::Semaphore;

use super::passwords::hash_password;

/// Hashes at once; each takes 19 MiB and a core.
const HASHES_MAX: usize = 2;

/// argon2id on a blocking thread, a few at a time.
#[derive(Debug)]
pub struct Argon2Hasher {
    turns: Arc<Semaphore>,
}

impl Default for Argon2Hasher {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(HASHES_MAX)) }
    }
}

#[async_trait]
impl PasswordHasher for Argon2Hasher {
    async fn hash(&self, password: String) -> Result<String, String> {
        let _turn = self.turns.acquire().await.map_err(|error| error.to_string())?;
        tokio::task::spawn_blocking(move || hash_password(&password))
            .await
            .map_err(|_| "the hashing was interrupted".to_owned())?
            .map_err(|error| error.to_string())
    }
}
