//! The sets of exceptions that are held in memory, each known to be the newest.
//!
//! A set is used for [`Limits::policy_staleness`](crate::Limits) after its consents were looked at;
//! then they are looked at again, and read again where they have changed, or where a row has come
//! into force or ended by now. They are looked at too once this engine has written anything, so
//! that who withdraws here is gone from the next statement on. Consents that cannot be looked at
//! let nobody read.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use catalog::models::LoadedModel;
use catalog::{ConsentPolicy, TableState};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use udfs::consent::ConsentSet;

use super::load::{Asked, Exceptions, Reading};
use super::other_ids::OtherIds;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::subject::users::Ways;

/// How long a set of other ids is held that nobody asks for, in milliseconds.
const IDLE_MS: i64 = 3_600_000;

/// A policy's name, a purpose, a channel where one is asked for, and how the ids were made where
/// they are not those of the consents.
type Key = (String, String, Option<String>, Ways);

/// The sets of one engine.
#[derive(Default)]
pub(crate) struct ConsentStore {
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
    writes: AtomicU64,
}

#[derive(Default)]
struct Slot {
    held: RwLock<Option<Arc<Held>>>,
    // One looks while the others wait for what it finds.
    turn: tokio::sync::Mutex<()>,
}

/// Who consents, as far as is known.
pub(crate) struct Held {
    policy: Arc<ConsentPolicy>,
    /// Whether the purpose sold or shared personal information then.
    sells_or_shares: bool,
    set: Arc<ConsentSet>,
    /// What the consents were known by before they were read; `None` when only reading them tells.
    states: Option<Vec<TableState>>,
    until_us: Option<i64>,
    checked_ms: i64,
    /// How often this engine had written when that was.
    writes: u64,
    memory: Arc<MemoryReservation>,
}

impl fmt::Debug for ConsentStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ConsentStore({})", self.slots.lock().len())
    }
}

impl Held {
    /// The set.
    pub(crate) fn set(&self) -> &Arc<ConsentSet> {
        &self.set
    }

    /// When it was known to be the newest, in Unix milliseconds.
    pub(crate) fn checked_ms(&self) -> i64 {
        self.checked_ms
    }

    /// What the consents are known by, for people: `main.consents@12`, or when they were read.
    pub(crate) fn version(&self) -> String {
        match &self.states {
            Some(states) => {
                let shown: Vec<&str> = states.iter().map(|state| state.shown.as_str()).collect();
                shown.join(", ")
            }
            None => format!("{} read at {}", self.policy.consents.table, self.checked_ms),
        }
    }

    /// Whether the version tells of another state.
    pub(crate) fn is_versioned(&self) -> bool {
        self.states.is_some()
    }

    /// Whether a row has come into force or ended since.
    fn is_over(&self, now_ms: i64) -> bool {
        self.until_us.is_some_and(|until_us| now_ms.saturating_mul(1_000) >= until_us)
    }

    fn is_fresh(
        &self,
        policy: &ConsentPolicy,
        asked: Asked<'_>,
        engine: &Engine,
        now_ms: i64,
    ) -> bool {
        let staleness = engine.limits().policy_staleness.as_millis();
        let staleness_ms = i64::try_from(staleness).unwrap_or(i64::MAX);
        // A clock that was set back must not make an old set fresh.
        let until_ms = self.checked_ms.saturating_add(staleness_ms);
        (self.checked_ms..until_ms).contains(&now_ms)
            && self.writes == engine.consents().writes()
            && *self.policy == *policy
            && self.sells_or_shares == asked.sells_or_shares
            && !self.is_over(now_ms)
    }
}

impl ConsentStore {
    /// What is held for a policy, a purpose and a channel, whatever its age.
    pub(crate) fn held(
        &self,
        policy: &ConsentPolicy,
        purpose: &str,
        channel: Option<&str>,
    ) -> Option<Arc<Held>> {
        let key = key(policy, purpose, channel, None);
        let slot = self.slots.lock().get(&key).cloned()?;
        let held = slot.held.read().clone()?;
        (*held.policy == *policy).then_some(held)
    }

    /// Notes that this engine has written rows or definitions: consents may be among them, so they
    /// are looked at before they are used again.
    pub(crate) fn note_write(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    fn slot(&self, key: Key) -> Arc<Slot> {
        Arc::clone(self.slots.lock().entry(key).or_default())
    }

    /// Lets go of the sets of policies that are no more, and of other ids that nobody asks for.
    fn retain(&self, now_ms: i64, exists: impl Fn(&str) -> bool) {
        let is_asked = |slot: &Slot| {
            let held = slot.held.read();
            let checked_ms = held.as_ref().map(|held| held.checked_ms);
            checked_ms.is_none_or(|checked_ms| now_ms.saturating_sub(checked_ms) < IDLE_MS)
        };
        self.slots.lock().retain(|(policy, _, _, ways), slot| {
            exists(policy) && (ways.is_empty() || is_asked(slot))
        });
    }
}

fn key(
    policy: &ConsentPolicy,
    purpose: &str,
    channel: Option<&str>,
    others: Option<&OtherIds>,
) -> Key {
    let ways = others.map(|others| others.ways().clone()).unwrap_or_default();
    (policy.name.clone(), purpose.to_owned(), channel.map(str::to_owned), ways)
}

/// Who consents to a purpose by a policy, for a channel that it lists or for all of them, known to
/// be the newest at most so long ago as the configuration allows.
///
/// # Errors
/// When the consents cannot be looked at or read: then nobody knows who consents.
pub(crate) fn current<'a>(
    engine: &'a Engine,
    policy: &'a Arc<ConsentPolicy>,
    purpose: &'a str,
    channel: Option<&'a str>,
) -> BoxFuture<'a, Result<Arc<Held>>> {
    current_by(engine, policy, purpose, channel, None)
}

/// The same by other ids than those of the consents.
///
/// # Errors
/// As [`current`].
pub(super) fn current_by<'a>(
    engine: &'a Engine,
    policy: &'a Arc<ConsentPolicy>,
    purpose: &'a str,
    channel: Option<&'a str>,
    others: Option<&'a OtherIds>,
) -> BoxFuture<'a, Result<Arc<Held>>> {
    // Consents are read by a plan, and what plans asks for consents.
    Box::pin(async move {
        let found = look(engine, policy, (purpose, channel), others).await;
        found.map_err(|error| unknown(policy, &error))
    })
}

async fn look(
    engine: &Engine,
    policy: &Arc<ConsentPolicy>,
    (purpose, channel): (&str, Option<&str>),
    others: Option<&OtherIds>,
) -> Result<Arc<Held>> {
    let known = engine.catalog().purposes().await?;
    let sells_or_shares = known.get(purpose).is_some_and(|purpose| purpose.sells_or_shares);
    let asked = Asked { purpose, sells_or_shares, channels: &policy.channels, channel };
    let slot = engine.consents().slot(key(policy, purpose, channel, others));
    let fresh = |now_ms| {
        let held = slot.held.read().clone();
        held.filter(|held| held.is_fresh(policy, asked, engine, now_ms))
    };
    if let Some(held) = fresh(engine.catalog().now_ms()) {
        return Ok(held);
    }
    let _turn = slot.turn.lock().await;
    let (now_ms, writes) = (engine.catalog().now_ms(), engine.consents().writes());
    if let Some(held) = fresh(now_ms) {
        return Ok(held);
    }
    let reading = Reading::plan(engine, policy).await?;
    let states = reading.states().await?;
    let known = slot.held.read().clone();
    let same = known.filter(|held| {
        *held.policy == **policy
            && held.sells_or_shares == sells_or_shares
            && states.is_some()
            && held.states == states
            && !held.is_over(now_ms)
    });
    let held = match same {
        Some(held) => Held {
            policy: Arc::clone(&held.policy),
            sells_or_shares,
            set: Arc::clone(&held.set),
            states,
            until_us: held.until_us,
            checked_ms: now_ms,
            writes: held.writes,
            memory: Arc::clone(&held.memory),
        },
        None => read(engine, policy, asked, (states, now_ms), others).await?,
    };
    let held = Arc::new(Held { writes, ..held });
    *slot.held.write() = Some(Arc::clone(&held));
    Ok(held)
}

async fn read(
    engine: &Engine,
    policy: &Arc<ConsentPolicy>,
    asked: Asked<'_>,
    (states, now_ms): (Option<Vec<TableState>>, i64),
    others: Option<&OtherIds>,
) -> Result<Held> {
    // Planned after the states were taken, so that the rows are never older than the states say.
    let reading = Reading::plan(engine, policy).await?;
    let seed = seed(&engine.catalog().new_id());
    let found = reading.exceptions(asked, policy.default_allow, seed, others).await?;
    let Exceptions { set, until_us } = found;
    let consumer = MemoryConsumer::new(format!("consents of {}", policy.name));
    let memory = consumer.register(&engine.runtime().memory_pool);
    memory.try_grow(set.memory_bytes())?;
    let known = engine.catalog().purposes().await?;
    engine.consents().retain(now_ms, |name| known.policy(name).is_some());
    let purpose = asked.purpose;
    let (channel, exceptions) = (asked.channel, set.len());
    tracing::debug!(policy = policy.name, purpose, channel, exceptions, "consents read");
    Ok(Held {
        policy: Arc::clone(policy),
        sells_or_shares: asked.sells_or_shares,
        set: Arc::new(set),
        states,
        until_us,
        checked_ms: now_ms,
        writes: 0,
        memory: Arc::new(memory),
    })
}

/// Whoever asks learns that it is not known who consents; the reason is for the log, as it names
/// what only the policy's owner may see.
fn unknown(policy: &ConsentPolicy, error: &Error) -> Error {
    if matches!(error, Error::Cancelled | Error::TimedOut { .. }) {
        return error.clone();
    }
    let why = error.for_log();
    tracing::warn!(policy = policy.name, code = error.code(), why, "consents not read");
    Error::Execution {
        what: format!(
            "{} is not read: who consents by the policy {} cannot be checked now",
            policy.table, policy.name
        ),
        hint: Some(format!(
            "its owner {} sees why with SELECT * FROM {}; the log has its code",
            policy.owner, policy.consents.table
        )),
    }
}

/// The first bytes of a random id's hash.
pub(crate) fn seed(id: &str) -> u64 {
    let digest = Sha256::digest(id.as_bytes());
    digest.iter().take(8).fold(0, |seed, byte| (seed << 8) | u64::from(*byte))
}

/// The policies by which rows of one statement were chosen, with the versions of their consents.
#[derive(Debug, Default)]
pub(crate) struct Used {
    policies: Mutex<BTreeMap<String, Option<String>>>,
    by_model: AtomicBool,
    by_channel: AtomicBool,
}

impl Used {
    /// Notes that rows were chosen by a policy.
    pub(crate) fn note(&self, policy: &str, version: String) {
        self.policies.lock().insert(policy.to_owned(), Some(version));
    }

    /// Notes that rows will be chosen by a policy.
    pub(crate) fn note_planned(&self, policy: &str) {
        self.policies.lock().entry(policy.to_owned()).or_default();
    }

    /// Notes that a model is bound with who consents now.
    pub(crate) fn note_model(&self) {
        self.by_model.store(true, Ordering::Relaxed);
    }

    /// Notes that rows are chosen by what is said of one channel.
    pub(crate) fn note_channel(&self) {
        self.by_channel.store(true, Ordering::Relaxed);
    }

    /// Whether rows are chosen by what is said of one channel.
    pub(crate) fn is_by_channel(&self) -> bool {
        self.by_channel.load(Ordering::Relaxed)
    }

    /// Whether a model is bound with who consents: then the plan holds for one run.
    pub(crate) fn binds_model(&self) -> bool {
        self.by_model.load(Ordering::Relaxed)
    }

    /// Whether rows are chosen by a policy.
    pub(crate) fn is_any(&self) -> bool {
        !self.policies.lock().is_empty()
    }

    /// Each policy with the version of its consents; an empty text where no row was read.
    pub(crate) fn versions(&self) -> BTreeMap<String, String> {
        let policies = self.policies.lock();
        let versions = policies.iter();
        versions
            .map(|(policy, version)| (policy.clone(), version.clone().unwrap_or_default()))
            .collect()
    }
}

/// How tables are opened in one statement, as far as consent cares.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    used: Arc<Used>,
    /// The models that the statement asks, by name and version.
    asked: Mutex<BTreeMap<String, LoadedModel>>,
    of_now: AtomicBool,
    for_columns: AtomicBool,
}

impl Opening {
    /// The policies by which rows of the statement were chosen.
    pub(crate) fn used(&self) -> &Arc<Used> {
        &self.used
    }

    /// Notes that the statement asks a model.
    pub(super) fn note_asked(&self, model: &LoadedModel) {
        self.asked.lock().insert(model.to_string(), model.clone());
    }

    /// The models that the statement asks.
    pub(crate) fn asked(&self) -> Vec<LoadedModel> {
        self.asked.lock().values().cloned().collect()
    }

    /// From now on consents are read: of files that are listed anew, whatever was listed a moment
    /// ago, and of persons who are not to be seen, too.
    pub(super) fn read_consents(&self) {
        self.of_now.store(true, Ordering::Relaxed);
    }

    pub(crate) fn reads_consents(&self) -> bool {
        self.of_now.load(Ordering::Relaxed)
    }

    /// From now on tables are opened for their columns alone: rows that need a purpose cannot be
    /// read.
    pub(crate) fn open_for_columns(&self) {
        self.for_columns.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_for_columns(&self) -> bool {
        self.for_columns.load(Ordering::Relaxed)
    }
}
