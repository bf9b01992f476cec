//! The record: who did what, when and for which purpose, in a chain that shows every change of it.
//!
//! One chain a warehouse, whichever servers write it: segments are created under ascending numbers,
//! of two servers one is first and the other appends after it. An acknowledged entry survives
//! `kill -9`, and verifying needs no secret ([`chain`], [`verify`]). Statements and logins are
//! handed in through a queue ([`recorder`]), so that a look-up does not wait for the warehouse.
//!
//! Below `_attune/audit`: `segments/`, `checkpoints/`, `removals/` (what the retention has
//! removed), `keys/` (public keys) and `secret.json`, where no secret is configured.

pub mod chain;
pub mod entry;
mod read;
mod recorder;
mod sign;
#[cfg(test)]
mod tests;
mod values;
mod verify;
mod writer;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;

pub use chain::Fault;
pub use entry::{AuditEntry, Event, Phase, bounded};
pub use recorder::{AuditStats, Receipt};
pub(crate) use sign::{PublicKeys, Signer};
pub use values::ValueTokens;
pub use verify::{Anchor, Expected, Verified};

use recorder::Recorder;
use values::Values;
use writer::Writer;

use crate::Catalog;
use crate::config::Clock;
use crate::error::{Error, Result};
use crate::store::Secret;
use crate::warehouse::Warehouse;

/// Where the record is in the warehouse.
const FOLDER: &str = "_attune/audit";

/// What is recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Off,
    /// Logins, what changes data, definitions or rights, what is refused, and protected reads.
    Changes,
    /// Reads too.
    All,
}

impl Level {
    /// Every level.
    pub const ALL: [Self; 3] = [Self::Off, Self::Changes, Self::All];

    /// The level's word in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Changes => "changes",
            Self::All => "all",
        }
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|level| level.name() == text);
        found.ok_or_else(|| Error::not_found("level", text, Self::ALL.map(Self::name)))
    }
}

/// How the record is kept.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// What is recorded.
    pub level: Level,
    /// Whether what the owner of a warehouse without users does is recorded too.
    pub embedded: bool,
    /// Whether reads of system tables are recorded too.
    pub system: bool,
    /// Whether statements fail when they cannot be recorded.
    pub strict: bool,
    /// How long a plain read may wait until it is written.
    pub delay: Duration,
    /// Entries that wait at most.
    pub queue_max: usize,
    /// How long entries are kept; for ever without.
    pub retention: Option<Duration>,
    /// The secret that signs; without, the warehouse's own.
    pub secret: Option<Secret>,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            level: Level::Off,
            embedded: false,
            system: false,
            strict: false,
            delay: Duration::from_secs(1),
            queue_max: 10_000,
            retention: None,
            secret: None,
        }
    }
}

/// The record of a warehouse, for those who act and those who look.
pub struct Audit {
    config: AuditConfig,
    recorder: Option<Recorder>,
    values: Values,
}

impl fmt::Debug for Audit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Audit").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Audit {
    /// Starts to keep the record as configured; nothing is read or written yet.
    pub(crate) fn start(config: AuditConfig, warehouse: &Arc<Warehouse>, clock: &Clock) -> Self {
        let recorder = (config.level != Level::Off).then(|| {
            let retention = config.retention;
            let retention_ms =
                retention.map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
            let (secret, warehouse) = (config.secret.clone(), Arc::clone(warehouse));
            let writer = Writer::new(warehouse, Arc::clone(clock), secret, retention_ms);
            Recorder::start(writer, Arc::clone(clock), config.delay, config.queue_max)
        });
        Self { config, recorder, values: Values::default() }
    }

    /// How it is kept.
    pub fn config(&self) -> &AuditConfig {
        &self.config
    }

    /// Hands an entry in; an urgent one is written at once. `None` when nothing is recorded.
    ///
    /// # Errors
    /// When the queue is full: the entry is lost, and counted.
    pub fn record(&self, entry: AuditEntry, urgent: bool) -> Result<Option<Receipt>> {
        let Some(recorder) = &self.recorder else { return Ok(None) };
        recorder.push(entry, urgent).map(Some)
    }

    /// Waits until an entry is written.
    ///
    /// # Errors
    /// When it could not be written at the first try; it is still tried.
    pub async fn kept(&self, receipt: Receipt) -> Result<()> {
        match &self.recorder {
            Some(recorder) => recorder.kept(receipt).await,
            None => Ok(()),
        }
    }

    /// Why entries cannot be written now, if they cannot.
    pub fn failing(&self) -> Option<Error> {
        self.recorder.as_ref().and_then(Recorder::failing)
    }

    /// Waits until everything handed in so far is written, and makes a checkpoint: to be called
    /// before the process ends.
    ///
    /// # Errors
    /// When it cannot be written within a while.
    pub async fn flush(&self) -> Result<()> {
        match &self.recorder {
            // Who never recorded anything has nothing to say, and no warehouse to make.
            Some(recorder) if recorder.stats() != AuditStats::default() => {
                recorder.flush(true).await
            }
            _ => Ok(()),
        }
    }

    /// Waits until everything handed in so far is written.
    ///
    /// # Errors
    /// When it cannot be written within a while.
    pub async fn drain(&self) -> Result<()> {
        match &self.recorder {
            Some(recorder) if recorder.stats().waiting > 0 => recorder.flush(false).await,
            _ => Ok(()),
        }
    }

    /// How it stands, for metrics.
    pub fn stats(&self) -> AuditStats {
        self.recorder.as_ref().map(Recorder::stats).unwrap_or_default()
    }
}

impl Catalog {
    /// The record.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The recorded entries, a segment at a time, oldest first.
    pub fn audit_entries(&self) -> BoxStream<'static, Result<Vec<AuditEntry>>> {
        read::entries(self.warehouse.place().child(FOLDER))
    }

    /// Verifies the record.
    ///
    /// # Errors
    /// When the warehouse cannot be read. A damaged record is no error: see [`Verified::faults`].
    pub async fn verify_audit(&self, expected: &Expected) -> Result<Verified> {
        verify::verify(&self.warehouse.place().child(FOLDER), expected).await
    }

    /// What signs the record, whether or not anything is recorded. Where there is no secret yet,
    /// the record's is made.
    ///
    /// # Errors
    /// When the warehouse cannot be read or, to make the secret, not written.
    pub(crate) async fn audit_signer(&self) -> Result<Signer> {
        let folder = self.warehouse.place().child(FOLDER);
        let secret = self.audit.config.secret.as_ref();
        if secret.is_none() {
            self.writable().await?;
        }
        sign::open(&folder, secret).await
    }

    /// The public keys that the warehouse names, by which anybody checks what was signed.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or a key's document is damaged.
    pub(crate) async fn audit_keys(&self) -> Result<PublicKeys> {
        PublicKeys::of(&self.warehouse.place().child(FOLDER)).await
    }
}
