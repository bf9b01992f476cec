//! A session: somebody, with a few settings, who asks.
//!
//! It holds a few kilobytes. DataFusion's `SessionState` is made for each statement from one
//! shared base; nothing here calls `SessionContext::sql`.

mod apart;
pub mod bindings;
mod folders;
mod guard;
mod listing;
mod open;
mod optimized;
pub(crate) mod plan;
pub(crate) mod planned;
mod prepared;
pub(crate) mod run;
mod schema;
pub(crate) mod screen;
pub(crate) mod settings;
mod split;
mod visible;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use catalog::policy::{Principal, Role};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub(crate) use guard::Narrowed;
pub use listing::{TableFilter, TableInfo};
pub use open::{OpenSessions, Origin, SessionOptions, SessionRecord};
pub(crate) use plan::StatementContext;
pub(crate) use planned::Action;
pub use prepared::Prepared;
pub use run::{Answer, Submitted};
pub use schema::SEARCH_PATH;
pub(crate) use schema::open;
pub use settings::{Compression, SETTINGS, SettingKind, Settings, kind as setting_kind};
pub use split::Split;

use crate::engine::{CATALOG, Engine};
use crate::error::{Error, Result};
use crate::limits::StatementLimits;
use crate::rights::{Rights, RightsCache};
use crate::{audit, parse, pg};

/// How far a long statement has come.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    /// What it does now: `reading`, `training`, `publishing`.
    pub phase: String,
    /// Units done.
    pub done: u64,
    /// Units in all; 0 when unknown.
    pub total: u64,
    /// The loss or metric last seen.
    pub metric: Option<f64>,
}

/// A session; a clone is the same session.
#[derive(Debug, Clone)]
pub struct Session(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    id: String,
    principal: Principal,
    origin: Origin,
    credential_until_ms: Option<i64>,
    delegated: bool,
    started_ms: i64,
    used_ms: Arc<AtomicI64>,
    ended: CancellationToken,
    settings: parking_lot::RwLock<Settings>,
    progress: watch::Sender<Option<Progress>>,
    rights: RightsCache,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.engine.sessions().forget(&self.id);
    }
}

impl Session {
    pub(crate) fn new(engine: Engine, principal: Principal, options: SessionOptions) -> Self {
        let id = options.id.unwrap_or_else(|| engine.catalog().new_id());
        let now_ms = engine.catalog().now_ms();
        let session = Self(Arc::new(Inner {
            id,
            principal,
            origin: options.origin,
            credential_until_ms: options.credential_until_ms,
            delegated: options.delegated,
            started_ms: now_ms,
            used_ms: Arc::new(AtomicI64::new(now_ms)),
            ended: CancellationToken::new(),
            settings: parking_lot::RwLock::default(),
            progress: watch::channel(None).0,
            rights: RightsCache::default(),
            engine,
        }));
        session.engine().sessions().add(&session);
        session
    }

    /// A session beside this one, for one call: the same somebody under the same id and ended with
    /// this one, with settings of its own that start as this one's are now.
    pub fn beside(&self) -> Self {
        let from = &self.0;
        Self(Arc::new(Inner {
            engine: from.engine.clone(),
            id: from.id.clone(),
            principal: from.principal.clone(),
            origin: from.origin.clone(),
            credential_until_ms: from.credential_until_ms,
            delegated: from.delegated,
            started_ms: from.started_ms,
            used_ms: Arc::clone(&from.used_ms),
            ended: from.ended.clone(),
            settings: parking_lot::RwLock::new(from.settings.read().clone()),
            progress: watch::channel(None).0,
            rights: RightsCache::default(),
        }))
    }

    /// The session's id: random, shown in `system.sessions`, and no credential.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Where it comes from.
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// Until when a credential for it could be shown to another server, in Unix milliseconds.
    pub fn credential_until_ms(&self) -> Option<i64> {
        self.0.credential_until_ms
    }

    /// Whether an API token opened it.
    pub fn is_delegated(&self) -> bool {
        self.0.delegated
    }

    /// Ends the session: what runs in it is cancelled, and nothing more runs.
    pub fn end(&self) {
        self.0.ended.cancel();
    }

    /// Whether it was ended.
    pub fn is_ended(&self) -> bool {
        self.0.ended.is_cancelled()
    }

    /// Cancelled with the session; a statement runs under a child of it.
    pub fn end_token(&self) -> &CancellationToken {
        &self.0.ended
    }

    /// The session as others see it.
    pub fn record(&self) -> SessionRecord {
        SessionRecord {
            id: self.id().to_owned(),
            principal: self.principal().name.clone(),
            origin: self.0.origin.clone(),
            started_ms: self.0.started_ms,
            used_ms: self.0.used_ms.load(Ordering::Relaxed),
            purpose: self.setting("purpose"),
            channel: self.setting("channel"),
        }
    }

    pub(crate) fn touch(&self) {
        let now_ms = self.engine().catalog().now_ms();
        self.0.used_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Who asks, with the roles of the login; [`Session::current_principal`] has those of now.
    pub fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// The one catalog's name.
    pub fn catalog_name(&self) -> &str {
        CATALOG
    }

    /// A setting's value; `None` when it is not set or does not exist.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.0.settings.read().get(name, self.engine().limits())
    }

    /// Changes a setting.
    ///
    /// # Errors
    /// When the setting does not exist or does not take the value.
    pub async fn set(&self, name: &str, value: &str) -> Result<()> {
        let schemas = self.schemas().await?;
        let rights = self.rights().await?;
        self.0.settings.write().set(name, value, &schemas, &rights, self.engine().limits())
    }

    /// Who asks, with the roles that are held and active now.
    ///
    /// # Errors
    /// When users and grants cannot be read, or the principal's user is gone.
    pub async fn current_principal(&self) -> Result<Principal> {
        let roles = self.rights().await?.roles().clone();
        Ok(Principal::new(self.principal().name.clone(), roles))
    }

    /// What the principal may do in the statement that starts now.
    ///
    /// # Errors
    /// When users and grants cannot be read, or the principal's user is gone.
    pub(crate) async fn rights(&self) -> Result<Arc<Rights>> {
        self.0.rights.current(self).await
    }

    /// Cancels a statement that waits or runs, of its own or, for an administrator, anybody's;
    /// whether there was one.
    ///
    /// # Errors
    /// When users and grants cannot be read, or the principal's user is gone.
    pub async fn cancel_query(&self, id: &str) -> Result<bool> {
        let rights = self.rights().await?;
        let may = |owner: &str| rights.has(Role::Admin) || owner == rights.name();
        Ok(self.engine().queries().cancel(id, may))
    }

    /// Gives a setting its value of a new session back.
    ///
    /// # Errors
    /// When the setting does not exist.
    pub fn reset(&self, name: &str) -> Result<()> {
        self.0.settings.write().reset(name)
    }

    pub(crate) fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.0.settings.write());
    }

    /// The settings as they are now.
    pub fn settings(&self) -> Settings {
        self.0.settings.read().clone()
    }

    /// The progress of the statement that runs in this session.
    pub fn progress(&self) -> watch::Receiver<Option<Progress>> {
        self.0.progress.subscribe()
    }

    pub(crate) fn progress_sender(&self) -> watch::Sender<Option<Progress>> {
        self.0.progress.clone()
    }

    /// Splits a script into its statements.
    ///
    /// # Errors
    /// When a quote or comment is not closed.
    pub fn script(&self, text: &str) -> Result<Vec<String>> {
        parse::split(text)
    }

    /// Parses, binds and plans a statement; nothing is executed.
    ///
    /// # Errors
    /// When the text is no statement, names, types or rights do not fit, or planning takes longer
    /// than a statement may.
    pub async fn prepare(&self, text: &str) -> Result<Prepared> {
        self.touch();
        let started_ms = self.engine().catalog().now_ms();
        let (session, owned) = (self.clone(), text.to_owned());
        let work = async move {
            let statement = session.parsed(&owned)?;
            // Planning's future is large, and whoever waits for it would hold it once more.
            Box::pin(Prepared::new(&session, &owned, statement)).await
        };
        let span = tracing::info_span!(target: "attune", "prepare", session = self.id());
        let planning = apart::planned(work, text.len() > apart::TEXT_BYTES);
        let planning = Box::pin(planning.instrument(span));
        let limits = StatementLimits::new(self.engine().limits(), &self.settings());
        let prepared = match limits.timeout {
            Some(limit) => {
                let planned = tokio::time::timeout(limit, planning).await;
                planned.unwrap_or(Err(Error::TimedOut { limit }))
            }
            None => planning.await,
        };
        if let Err(error) = &prepared {
            let tokens = audit::value_tokens_of_refused(self, error).await;
            let text = (text, tokens.as_deref());
            self.engine().queries().refused(self, text, started_ms, error);
        }
        prepared
    }

    fn parsed(&self, text: &str) -> Result<parse::Statement> {
        let bytes_max = self.engine().limits().sql_bytes_max;
        let settings = self.settings();
        match settings.postgres {
            Some(_) => pg::parse(self, &settings, text, bytes_max),
            None => parse::parse(text, bytes_max),
        }
    }

    /// Logs a prepared statement under an id of [`Engine::new_query_id`]. It can be watched and
    /// killed from now on, and runs when it is told to.
    pub fn submit(&self, query_id: &str, prepared: &Prepared) -> Submitted {
        Submitted::new(self, query_id, prepared)
    }

    /// Prepares and runs a statement without parameters.
    ///
    /// # Errors
    /// When it cannot be prepared or fails to start; later failures come in the rows.
    pub async fn query(&self, text: &str) -> Result<Answer> {
        let prepared = self.prepare(text).await?;
        self.run(&prepared, &[]).await
    }
}
