//! Passwords: argon2id hashes in PHC form (`$argon2id$v=19$m=19456,t=2,p=1$…`, the parameters of
//! RFC 9106's second choice as OWASP lists them).
//!
//! Hashing takes tens of milliseconds of a core and 19 MiB on purpose, so it runs on a blocking
//! thread and only a few run at once: a flood of logins waits in line instead of taking the
//! machine. A name that does not exist costs the same as one that does: its password is checked
//! against a decoy, so neither the answer nor its delay says which names exist.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use tokio::sync::Semaphore;

/// Why a password could not be hashed or checked. Neither says anything about the password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The operating system gave no randomness, or the password is beyond argon2's limits.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
    /// The blocking thread ended early, which happens while the process stops.
    #[error("the password check was interrupted")]
    Interrupted,
}

/// Hashes one password with a fresh salt. Takes tens of milliseconds: not for a runtime thread.
pub fn hash_password(password: &str) -> Result<String, PasswordError> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(hash.to_string())
}

/// Checks passwords, a few at a time.
pub struct Passwords {
    turns: Arc<Semaphore>,
    /// The hash of a random password, checked in place of a user that does not exist.
    decoy: Arc<str>,
}

impl Passwords {
    /// `concurrent_max` checks run at once; the rest wait. Hashes the decoy, so it takes a moment.
    pub async fn new(concurrent_max: usize) -> Result<Self, PasswordError> {
        let decoy = tokio::task::spawn_blocking(|| {
            let secret = super::tokens::random_text(32)
                .map_err(|error| PasswordError::Hash(error.to_string()))?;
            hash_password(&secret)
        })
        .await
        .map_err(|_| PasswordError::Interrupted)??;
        Ok(Self { turns: Arc::new(Semaphore::new(concurrent_max.max(1))), decoy: decoy.into() })
    }

    /// Hashes a password on a blocking thread.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        let _turn = self.turns.acquire().await.map_err(|_| PasswordError::Interrupted)?;
        tokio::task::spawn_blocking(move || hash_password(&password))
            .await
            .map_err(|_| PasswordError::Interrupted)?
    }

    /// Whether `password` belongs to `stored`, the user's hash. None, the user that does not exist,
    /// and a hash that cannot be read are false, at the price of a real check.
    pub async fn verify(
        &self,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, PasswordError> {
        let _turn = self.turns.acquire().await.map_err(|_| PasswordError::Interrupted)?;
        let decoy = Arc::clone(&self.decoy);
        tokio::task::spawn_blocking(move || verify_password(&password, stored.as_deref(), &decoy))
            .await
            .map_err(|_| PasswordError::Interrupted)
    }
}

fn verify_password(password: &str, stored: Option<&str>, decoy: &str) -> bool {
    let readable = stored.filter(|hash| PasswordHash::new(hash).is_ok());
    if stored.is_some() && readable.is_none() {
        tracing::warn!("a stored password hash is not in PHC form; its user cannot log in");
    }
    let matches = PasswordHash::new(readable.unwrap_or(decoy))
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
    matches && readable.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let passwords = Passwords::new(2).await.unwrap();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(passwords.verify("correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("correct hors".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(String::new(), Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn no_user_and_an_unreadable_hash_are_refused() {
        let passwords = Passwords::new(2).await.unwrap();
        assert!(!passwords.verify("x".into(), None).await.unwrap());
        assert!(!passwords.verify("x".into(), Some("plain".into())).await.unwrap());
        assert!(!passwords.verify("x".into(), Some(String::new())).await.unwrap());
    }

    #[test]
    fn the_same_password_is_hashed_with_a_new_salt() {
        assert_ne!(hash_password("a").unwrap(), hash_password("a").unwrap());
    }
}
