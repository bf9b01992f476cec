//! Who is asking: principals from user names and passwords, and the sessions' tokens.
//!
//! The catalog holds the users (name, argon2 hash, roles). A login makes a principal and a *stamp*,
//! which is what the user's record said then. Each later call compares the stamp with the record
//! again, at most a second old: a user that was dropped or got another password has to log in
//! again. Roles and grants need no new login: the engine looks at them for each statement.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use catalog::Catalog;
use catalog::policy::Principal;
use parking_lot::Mutex;

use self::passwords::{PasswordError, Passwords};

pub mod hasher;
pub mod passwords;
pub mod tokens;

/// How long a user's record may be believed before it is read again.
const RECORD_FRESH: Duration = Duration::from_secs(1);
/// Password checks at once; each takes 19 MiB and a core.
const CHECKS_MAX: usize = 2;

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// The users of the catalog, by name and password.
    Users,
    /// Anybody, as the embedded principal: for a server that only its own machine reaches.
    None,
}

/// Why somebody may not come in.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The name or the password is wrong; which of them is not said.
    #[error("the user name or the password is wrong")]
    Login,
    /// The user changed since the login.
    #[error("the user has changed since this login")]
    Changed,
    /// The user's record cannot be read.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The password cannot be checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
}

/// The password's hash when the user logged in; None for the embedded principal.
#[derive(Clone, PartialEq, Eq)]
pub struct Stamp(Option<String>);

/// A login that succeeded.
pub struct Login {
    /// Who it is, with the roles of this moment.
    pub principal: Principal,
    /// To be given to [`Authenticator::check`] with each later call.
    pub stamp: Stamp,
}

/// Turns names and passwords into principals.
pub struct Authenticator {
    users: Option<Users>,
}

struct Users {
    catalog: Arc<Catalog>,
    passwords: Passwords,
    /// The records read last, so that a busy session does not read one with each call.
    records: Mutex<HashMap<String, (Instant, Option<Stamp>)>>,
}

impl Authenticator {
    /// For the users of `catalog`, or for anybody.
    pub async fn new(
        authentication: Authentication,
        catalog: &Arc<Catalog>,
    ) -> Result<Self, PasswordError> {
        let users = match authentication {
            Authentication::None => None,
            Authentication::Users => Some(Users {
                catalog: Arc::clone(catalog),
                passwords: Passwords::new(CHECKS_MAX).await?,
                records: Mutex::new(HashMap::new()),
            }),
        };
        Ok(Self { users })
    }

    /// Whether a call without any credentials is the embedded principal's.
    pub fn admits_anybody(&self) -> bool {
        self.users.is_none()
    }

    /// The embedded principal, where anybody is admitted.
    pub fn anybody(&self) -> Option<Login> {
        self.admits_anybody()
            .then(|| Login { principal: Principal::embedded(), stamp: Stamp(None) })
    }

    /// Checks a name and a password.
    pub async fn login(&self, name: &str, password: String) -> Result<Login, Refusal> {
        let Some(users) = &self.users else {
            return self.anybody().ok_or(Refusal::Login);
        };
        let record = users.catalog.user(name).await?;
        let stored = record.as_ref().map(|user| user.password_hash.clone());
        let matches = users.passwords.verify(password, stored).await?;
        match record {
            Some(user) if matches => Ok(Login {
                principal: Principal::of(&user),
                stamp: Stamp(Some(user.password_hash)),
            }),
            _ => Err(Refusal::Login),
        }
    }

    /// Whether the user is still the one that logged in.
    pub async fn check(&self, name: &str, stamp: &Stamp, now: Instant) -> Result<(), Refusal> {
        let Some(users) = &self.users else { return Ok(()) };
        let known = users.records.lock().get(name).cloned();
        let current = match known {
            Some((read, current)) if now.saturating_duration_since(read) < RECORD_FRESH => current,
            _ => {
                let record = users.catalog.user(name).await?;
                let current = record.map(|user| Stamp(Some(user.password_hash)));
                users.records.lock().insert(name.to_owned(), (now, current.clone()));
                current
            }
        };
        if current.as_ref() == Some(stamp) { Ok(()) } else { Err(Refusal::Changed) }
    }
}
