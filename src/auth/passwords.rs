//! Passwords: argon2id hashes in PHC form (`$argon2id$v=19$m=19456,t=2,p=1$…`, the parameters of
//! RFC 9106's second choice as OWASP lists them).
//!
//! Hashing takes tens of milliseconds of a core and 19 MiB on purpose, so it runs on a blocking
//! thread and only two run at once in a process, those of `CREATE USER` included: a flood of logins
//! waits in line instead of taking the machine. A name that does not exist costs the same as one
//! that does: its password is checked against a decoy, so neither the answer nor its delay says
//! which names exist.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Passwords that are hashed or checked at once; each takes 19 MiB and a core.
pub(super) const AT_ONCE: usize = 2;
/// Logins that wait for their turn; more are refused at once.
const LINE_MAX: usize = 1_000;
/// So long a login waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Why a password could not be hashed or checked. Neither says anything about the password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The operating system gave no randomness, or the password is beyond argon2's limits.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
    /// The blocking thread ended early, which happens while the process stops.
    #[error("the password check was interrupted")]
    Interrupted,
    /// More logins wait than the line holds, or this one waited too long.
    #[error("too many logins at once")]
    Busy,
}

/// Hashes one password with a fresh salt. Takes tens of milliseconds: not for a runtime thread.
pub fn hash_password(password: &str) -> Result<String, PasswordError> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(hash.to_string())
}

/// The turns of this process, for all its servers and statements: it has one machine.
pub(super) fn turns() -> Arc<Semaphore> {
    static TURNS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(AT_ONCE)));
    Arc::clone(&TURNS)
}

/// Checks passwords, a few at a time.
pub struct Passwords {
    turns: Arc<Semaphore>,
    line: Semaphore,
    /// The hash of a random password, checked in place of a user that does not exist.
    decoy: Arc<str>,
}

impl Passwords {
    /// Hashes the decoy, so it takes a moment.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub async fn new() -> Result<Self, PasswordError> {
        let turns = turns();
        let turn = Arc::clone(&turns).acquire_owned().await;
        let turn = turn.map_err(|_| PasswordError::Interrupted)?;
        let decoy = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let secret = super::live::random_text(32)
                .map_err(|error| PasswordError::Hash(error.to_string()))?;
            hash_password(&secret)
        })
        .await
        .map_err(|_| PasswordError::Interrupted)??;
        Ok(Self { turns, line: Semaphore::new(LINE_MAX), decoy: decoy.into() })
    }

    /// Waits in line for a turn to check one password.
    ///
    /// # Errors
    /// `Busy` when the line is full or the wait too long.
    pub async fn turn(&self) -> Result<Turn, PasswordError> {
        let _place = self.line.try_acquire().map_err(|_| PasswordError::Busy)?;
        let turn = tokio::time::timeout(WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| PasswordError::Busy)?;
        let turn = turn.map_err(|_| PasswordError::Interrupted)?;
        Ok(Turn { _turn: turn, decoy: Arc::clone(&self.decoy) })
    }
}

/// The right to check one password now.
pub struct Turn {
    _turn: OwnedSemaphorePermit,
    decoy: Arc<str>,
}

impl Turn {
    /// Whether `password` belongs to `stored`, the user's hash. None, the user that does not exist,
    /// and a hash that cannot be read are false, at the price of a real check. The turn comes back:
    /// who counts failures lets nobody else have it before this one is counted.
    ///
    /// # Errors
    /// `Interrupted` while the process stops.
    pub async fn verify(
        self,
        password: String,
        stored: Option<String>,
    ) -> Result<(bool, Self), PasswordError> {
        // The whole turn goes along: a caller that gives up does not stop the thread.
        let turn = self;
        tokio::task::spawn_blocking(move || {
            let turn = turn;
            (verify_password(&password, stored.as_deref(), &turn.decoy), turn)
        })
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

    async fn verify(passwords: &Passwords, password: &str, stored: Option<String>) -> bool {
        passwords.turn().await.unwrap().verify(password.into(), stored).await.unwrap().0
    }

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let passwords = Passwords::new().await.unwrap();
        let hash = hash_password("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(verify(&passwords, "correct horse", Some(hash.clone())).await);
        assert!(!verify(&passwords, "correct hors", Some(hash.clone())).await);
        assert!(!verify(&passwords, "", Some(hash)).await);
    }

    #[tokio::test]
    async fn no_user_and_an_unreadable_hash_are_refused() {
        let passwords = Passwords::new().await.unwrap();
        assert!(!verify(&passwords, "x", None).await);
        assert!(!verify(&passwords, "x", Some("plain".into())).await);
        assert!(!verify(&passwords, "x", Some(String::new())).await);
    }

    #[tokio::test]
    async fn the_line_is_bounded() {
        let passwords = Passwords::new().await.unwrap();
        let held = passwords.turn().await.unwrap();
        let _full = passwords.line.acquire_many(LINE_MAX as u32).await.unwrap();
        assert!(matches!(passwords.turn().await, Err(PasswordError::Busy)));
        drop(held);
    }

    #[test]
    fn the_same_password_is_hashed_with_a_new_salt() {
        assert_ne!(hash_password("a").unwrap(), hash_password("a").unwrap());
    }
}
