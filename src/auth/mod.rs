//! Who is asking: principals from passwords, API tokens, an identity provider's tokens and client
//! certificates; session tokens for those who gave a password.
//!
//! The catalog holds the users (name, argon2 hash, roles). A login makes a principal and a
//! *proof*, which says what the login rests on: the user's record as it was, the API token. Each
//! later call compares the proof with what stands there now, at most a second old: a user that was
//! dropped or got another password has to log in again. Roles and grants need no new login: the
//! engine looks at them for each statement.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use catalog::policy::Principal;
use catalog::tokens::{TOKEN_PREFIX, digest};
use catalog::{Catalog, Secret, UserRecord};
use tokio::sync::OnceCell;

use self::backoff::Backoff;
use self::certificates::CertificateUsers;
use self::jwt::{Claims, SessionTokens};
use self::oidc::{Oidc, OidcOptions};
use self::passwords::{PasswordError, Passwords};
use self::record::{Attempt, Strangers};

pub mod backoff;
pub mod certificates;
pub mod hasher;
pub mod jwks;
pub mod jwt;
pub mod live;
pub mod oidc;
pub mod passwords;
pub mod record;

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// The users of the catalog.
    Users,
    /// Anybody, as the embedded principal, until the warehouse has its first user: for a server
    /// that only its own machine reaches.
    None,
}

/// What is accepted beside user names with passwords and API tokens.
#[derive(Debug, Clone, Default)]
pub struct CredentialOptions {
    /// Secrets that sign session tokens; the first signs, all check. None: the warehouse's.
    pub token_secrets: Vec<Secret>,
    /// An identity provider whose tokens are believed.
    pub oidc: Option<OidcOptions>,
    /// How client certificates name users.
    pub certificates: Option<CertificateUsers>,
}

/// Why somebody may not come in.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The name or the password is wrong; which of them is not said.
    #[error("the user name or the password is wrong")]
    Login,
    /// Too many attempts failed.
    #[error("too many logins failed for this name or from this address")]
    Wait {
        /// When to try again.
        seconds: u64,
    },
    /// A token that is unknown, was revoked or has ended; which of them is not said.
    #[error("the token is unknown, was revoked or has expired")]
    Token,
    /// A certificate that stands for no user.
    #[error("the client's certificate stands for no user")]
    Certificate,
    /// The user changed since the login.
    #[error("the user has changed since this login")]
    Changed,
    /// Somebody came in before there were users.
    #[error("the warehouse has users now, and they log in")]
    Closed,
    /// The user's record cannot be read.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The password cannot be checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The operating system gave no randomness.
    #[error("no randomness: {0}")]
    Random(String),
}

/// What a login rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: anybody is admitted.
    Anybody,
    /// The user's record, as its stamp says.
    User(Stamped),
    /// An API token of the user.
    Token {
        /// The user.
        user: Stamped,
        /// The hash of the token.
        hash: String,
    },
    /// A token of the identity provider, which is shown again with each call.
    Provider {
        /// When it ends, in Unix milliseconds.
        until_ms: i64,
    },
}

/// A user and what its record said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    /// The user's name.
    pub name: String,
    /// [`UserRecord::stamp`] at the login.
    pub stamp: String,
}

/// A login that succeeded.
#[derive(Debug, Clone)]
pub struct Login {
    /// Who it is, with the roles of this moment.
    pub principal: Principal,
    /// To be given to [`Authenticator::check`] with each later call.
    pub proof: Proof,
    /// The purpose that the credential brings.
    pub purpose: Option<String>,
    /// Whether a token opened it that somebody made for a program.
    pub delegated: bool,
}

/// What a bearer's token turned out to be.
#[derive(Debug)]
pub enum Bearer {
    /// One of our session tokens, checked.
    Session(Claims),
    /// An API token that [`Authenticator::api_token`] has to check.
    Api {
        /// What tells this token from others; no secret.
        key: String,
    },
    /// A token of the identity provider, checked.
    Provider(Login),
}

/// Turns credentials into principals.
pub struct Authenticator {
    /// Made when they are first needed.
    users: OnceCell<Users>,
    /// Whether anybody is admitted as long as the warehouse has no users.
    open: AtomicBool,
    options: CredentialOptions,
    tokens: SessionTokens,
    strangers: Strangers,
    catalog: Arc<Catalog>,
}

struct Users {
    passwords: Passwords,
    backoff: Backoff,
    oidc: Option<Oidc>,
    certificates: Option<CertificateUsers>,
}

impl Authenticator {
    /// For names and passwords only; session tokens are good in this process alone.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub async fn new(
        authentication: Authentication,
        catalog: &Arc<Catalog>,
    ) -> Result<Self, Refusal> {
        let tokens = SessionTokens::own()?;
        Self::with(authentication, CredentialOptions::default(), tokens, catalog).await
    }

    /// For a server: all credentials, and session tokens that its replicas know too.
    ///
    /// # Errors
    /// As [`Authenticator::new`].
    pub async fn open(
        authentication: Authentication,
        options: CredentialOptions,
        catalog: &Arc<Catalog>,
    ) -> Result<Self, Refusal> {
        let tokens = match authentication {
            Authentication::Users => {
                SessionTokens::open(options.token_secrets.clone(), catalog).await?
            }
            Authentication::None => SessionTokens::own()?,
        };
        Self::with(authentication, options, tokens, catalog).await
    }

    async fn with(
        authentication: Authentication,
        options: CredentialOptions,
        tokens: SessionTokens,
        catalog: &Arc<Catalog>,
    ) -> Result<Self, Refusal> {
        let made = Self {
            users: OnceCell::new(),
            open: AtomicBool::new(authentication == Authentication::None),
            options,
            tokens,
            strangers: Strangers::default(),
            catalog: Arc::clone(catalog),
        };
        // An open server starts while its warehouse is away; it asks for users with each call.
        if authentication == Authentication::Users {
            made.users().await?;
        }
        Ok(made)
    }

    /// What checks credentials; `None` as long as anybody is admitted. A server that was started
    /// without users asks for logins from its warehouse's first user on, and never stops to.
    async fn users(&self) -> Result<Option<&Users>, Refusal> {
        if self.open.load(Ordering::Acquire) {
            if !self.catalog.has_users().await? {
                return Ok(None);
            }
            self.open.store(false, Ordering::Release);
            tracing::warn!("the warehouse has users now: everybody has to log in");
        }
        let make = || async {
            Ok::<_, Refusal>(Users {
                passwords: Passwords::new().await?,
                backoff: Backoff::default(),
                oidc: self.options.oidc.clone().map(|options| Oidc::new(options, &self.catalog)),
                certificates: self.options.certificates.clone(),
            })
        };
        self.users.get_or_try_init(make).await.map(Some)
    }

    /// The embedded principal, where anybody is admitted.
    ///
    /// # Errors
    /// When it cannot be known whether there are users.
    pub async fn anybody(&self) -> Result<Option<Login>, Refusal> {
        let embedded = || Login {
            principal: Principal::embedded(),
            proof: Proof::Anybody,
            purpose: None,
            delegated: false,
        };
        Ok(self.users().await?.is_none().then(embedded))
    }

    /// Checks a name and a password, given from `peer`. An API token of the user is as good as its
    /// password, for clients that know no tokens.
    ///
    /// # Errors
    /// `Login` when one of them is wrong, `Wait` after many failures.
    pub async fn login(
        &self,
        name: &str,
        password: String,
        peer: Option<IpAddr>,
    ) -> Result<Login, Refusal> {
        let Some(users) = self.users().await? else {
            return self.anybody().await?.ok_or(Refusal::Login);
        };
        if password.starts_with(TOKEN_PREFIX)
            && let Ok(login) = self.token_login(&password).await
            && login.principal.name == name
        {
            return Ok(login);
        }
        users.admitted(name, peer)?;
        let turn = users.passwords.turn().await?;
        // Others' guesses may have failed while this one waited in line.
        users.admitted(name, peer)?;
        let record = self.catalog.user(name).await?;
        let stored = record.as_ref().map(|user| user.password_hash.clone());
        let (matches, _turn) = turn.verify(password, stored).await?;
        let known = record.is_some().then_some(name);
        match record.filter(|_| matches) {
            Some(user) => {
                users.backoff.succeeded(name, peer, Instant::now());
                Ok(user_login(user))
            }
            None => {
                users.backoff.failed(name, peer, Instant::now());
                tracing::info!(user = ?name, peer = ?peer, "a login failed");
                let attempt = Attempt { kind: "user", user: known, peer };
                self.refused(&attempt, &Refusal::Login);
                Err(Refusal::Login)
            }
        }
    }

    /// Reads a bearer's token.
    ///
    /// # Errors
    /// `Token` when it is none that is good now.
    pub async fn bearer(&self, token: &str) -> Result<Bearer, Refusal> {
        let Some(users) = self.users().await? else {
            return self.tokens.read(token, self.catalog.now_ms()).await.map(Bearer::Session);
        };
        if token.starts_with(TOKEN_PREFIX) {
            return Ok(Bearer::Api { key: format!("token:{}", digest(token)) });
        }
        match &users.oidc {
            Some(oidc) if Oidc::is_meant(token) => {
                let login = oidc.login(token, Instant::now()).await;
                if let Err(refusal) = &login {
                    let attempt = Attempt { kind: "provider token", user: None, peer: None };
                    self.refused(&attempt, refusal);
                }
                login.map(Bearer::Provider)
            }
            _ => self.tokens.read(token, self.catalog.now_ms()).await.map(Bearer::Session),
        }
    }

    /// What tells a client's certificate from others; `None` where certificates name nobody.
    pub fn certificate_key(&self, der: &[u8]) -> Option<String> {
        self.users.get()?.certificates.as_ref()?;
        Some(format!("certificate:{}", digest(der)))
    }

    /// The user that a client's certificate stands for.
    ///
    /// # Errors
    /// `Certificate` when there is no such user.
    pub async fn certificate(&self, der: &[u8]) -> Result<Login, Refusal> {
        let certificates = self.users().await?.and_then(|users| users.certificates.as_ref());
        let certificates = certificates.ok_or(Refusal::Certificate)?;
        let name = certificates.user(der, self.catalog.now_ms()).ok_or(Refusal::Certificate)?;
        let user = self.catalog.user(&name).await?.ok_or(Refusal::Certificate)?;
        Ok(user_login(user))
    }

    /// Whether another server may accept a session token of this one.
    pub fn tokens_are_shared(&self) -> bool {
        self.tokens.are_shared()
    }

    /// Signs something with the secrets of the session tokens; see [`SessionTokens::seal`].
    pub async fn seal(&self, audience: &str, body: serde_json::Value) -> Result<String, Refusal> {
        self.tokens.seal(audience, body, self.catalog.now_ms()).await
    }

    /// What was signed so.
    pub async fn unseal(&self, audience: &str, text: &str) -> Result<serde_json::Value, Refusal> {
        self.tokens.unseal(audience, text, self.catalog.now_ms()).await
    }

    /// Opens a session token's login again, on a server that has no session for it: the user must
    /// be the one that logged in.
    ///
    /// # Errors
    /// `Changed` when the user is another now.
    pub async fn resume(&self, claims: &Claims) -> Result<Login, Refusal> {
        if let Some(login) = self.anybody().await? {
            return Ok(login);
        }
        let user = self.catalog.user(&claims.user).await?.ok_or(Refusal::Changed)?;
        let login = user_login(user);
        match &login.proof {
            Proof::User(now) if now.stamp == claims.stamp => Ok(login),
            _ => Err(Refusal::Changed),
        }
    }

    /// A session token for somebody who gave a password; `None` for those whose credential is a
    /// token itself.
    ///
    /// # Errors
    /// When the key that signs cannot be had.
    pub async fn session_token(
        &self,
        login: &Login,
        id: &str,
        until_ms: i64,
    ) -> Result<Option<String>, Refusal> {
        let stamp = match &login.proof {
            Proof::User(user) => user.stamp.clone(),
            Proof::Anybody => String::new(),
            Proof::Token { .. } | Proof::Provider { .. } => return Ok(None),
        };
        let user = login.principal.name.clone();
        let claims = Claims { id: id.to_owned(), user, stamp, until_ms };
        self.tokens.sign(&claims, self.catalog.now_ms()).await.map(Some)
    }

    /// Whether a login still stands.
    ///
    /// # Errors
    /// `Changed`, `Closed` or `Token` when it does not.
    pub async fn check(&self, proof: &Proof) -> Result<(), Refusal> {
        match proof {
            Proof::Anybody => match self.users().await? {
                None => Ok(()),
                Some(_) => Err(Refusal::Closed),
            },
            Proof::User(user) => self.check_user(user).await,
            Proof::Token { user, hash } => {
                let token = self.catalog.token_by_hash(hash).await?;
                let now_ms = self.catalog.now_ms();
                token.filter(|token| !token.has_expired(now_ms)).ok_or(Refusal::Token)?;
                self.check_user(user).await
            }
            Proof::Provider { until_ms } => match self.catalog.now_ms() < *until_ms {
                true => Ok(()),
                false => Err(Refusal::Token),
            },
        }
    }

    /// How many keys the identity provider gives; `None` when none is configured.
    ///
    /// # Errors
    /// When it gives no key set.
    pub async fn try_provider(&self) -> Option<Result<usize, String>> {
        match self.users.get() {
            Some(Users { oidc: Some(oidc), .. }) => Some(oidc.try_keys().await),
            _ => None,
        }
    }

    async fn check_user(&self, user: &Stamped) -> Result<(), Refusal> {
        let same = |record: &UserRecord| record.stamp() == user.stamp;
        if self.catalog.accounts().await?.user(&user.name).is_some_and(same) {
            return Ok(());
        }
        // The login may be newer than what is known of the accounts.
        let record = self.catalog.user(&user.name).await?;
        if record.as_ref().is_some_and(same) { Ok(()) } else { Err(Refusal::Changed) }
    }

    /// The user whose API token this is.
    ///
    /// # Errors
    /// `Token` when it is none that is good now.
    pub async fn api_token(&self, secret: &str) -> Result<Login, Refusal> {
        let login = self.token_login(secret).await;
        if let Err(refusal) = &login {
            self.refused(&Attempt { kind: "api token", user: None, peer: None }, refusal);
        }
        login
    }

    fn refused(&self, attempt: &Attempt<'_>, refusal: &Refusal) {
        record::refused(&self.catalog, &self.strangers, attempt, refusal);
    }

    async fn token_login(&self, secret: &str) -> Result<Login, Refusal> {
        let hash = digest(secret);
        let token = self.catalog.token_by_hash(&hash).await?.ok_or(Refusal::Token)?;
        if token.has_expired(self.catalog.now_ms()) {
            return Err(Refusal::Token);
        }
        let user = self.catalog.user(&token.user).await?.ok_or(Refusal::Token)?;
        let user = user_login(user);
        let Proof::User(stamped) = user.proof else { return Err(Refusal::Token) };
        Ok(Login {
            principal: user.principal,
            proof: Proof::Token { user: stamped, hash },
            purpose: token.purpose,
            delegated: true,
        })
    }
}

impl Users {
    fn admitted(&self, name: &str, peer: Option<IpAddr>) -> Result<(), Refusal> {
        self.backoff.admit(name, peer, Instant::now()).map_err(|wait| {
            let seconds = wait.as_secs_f64().ceil() as u64;
            tracing::info!(user = ?name, peer = ?peer, seconds, "a login has to wait");
            Refusal::Wait { seconds }
        })
    }
}

fn user_login(user: UserRecord) -> Login {
    let proof = Proof::User(Stamped { name: user.name.clone(), stamp: user.stamp() });
    Login { principal: Principal::of(&user), proof, purpose: None, delegated: false }
}
