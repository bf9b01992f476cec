//! A session: somebody, with a few settings, who asks.
//!
//! It holds a few kilobytes. DataFusion's `SessionState` is made for each statement from one
//! shared base; nothing here calls `SessionContext::sql`.

pub mod bindings;
mod listing;
pub(crate) mod plan;
mod prepared;
pub(crate) mod run;
mod schema;
pub(crate) mod settings;
mod split;

use std::sync::Arc;

use catalog::policy::Principal;
use tokio::sync::watch;

pub use listing::{TableFilter, TableInfo};
pub(crate) use plan::{Action, StatementContext};
pub use prepared::Prepared;
pub use run::Answer;
pub use schema::SEARCH_PATH;
pub(crate) use schema::open;
pub use settings::{Compression, SETTINGS, SettingKind, Settings, kind as setting_kind};
pub use split::Split;

use crate::engine::{CATALOG, Engine};
use crate::error::Result;
use crate::parse;

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
    settings: parking_lot::RwLock<Settings>,
    progress: watch::Sender<Option<Progress>>,
}

impl Session {
    pub(crate) fn new(engine: Engine, principal: Principal) -> Self {
        let id = engine.catalog().new_id();
        Self(Arc::new(Inner {
            engine,
            id,
            principal,
            settings: parking_lot::RwLock::default(),
            progress: watch::channel(None).0,
        }))
    }

    /// The session's id, random and unguessable.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Who asks.
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
        self.0.settings.read().get(name)
    }

    /// Changes a setting.
    ///
    /// # Errors
    /// When the setting does not exist or does not take the value.
    pub async fn set(&self, name: &str, value: &str) -> Result<()> {
        let schemas = self.schemas().await?;
        self.0.settings.write().set(name, value, &schemas)
    }

    /// Gives a setting its value of a new session back.
    ///
    /// # Errors
    /// When the setting does not exist.
    pub fn reset(&self, name: &str) -> Result<()> {
        self.0.settings.write().reset(name)
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
    /// When the text is no statement, or names, types or rights do not fit.
    pub async fn prepare(&self, text: &str) -> Result<Prepared> {
        let statement = parse::parse(text, self.engine().limits().sql_bytes_max)?;
        Prepared::new(self, text, statement).await
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
