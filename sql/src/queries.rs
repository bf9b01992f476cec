//! The statements that wait, run or ran lately: for `system.queries`, for metrics and for KILL.
//!
//! Texts are kept with keyed tokens in place of values, so that the log holds no person's data.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use catalog::audit::{Receipt, ValueTokens};
use catalog::{Catalog, Class};
use datafusion::execution::memory_pool::MemoryPool;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admission::Slot;
use crate::audit::{self, Draft};
use crate::error::Error;
use crate::memory::StatementPool;
use crate::progress::Reporter;
use crate::query_text;
use crate::session::{Origin, Progress, Session};

/// Ended statements that are remembered.
const ENDED_MAX: usize = 1_000;

/// Where a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits for a slot.
    Queued,
    /// It runs, or its rows are being read.
    Running,
    /// It ended well.
    Finished,
    /// It ended with an error.
    Failed,
    /// It was killed, or its client went away.
    Cancelled,
}

impl State {
    /// Whether it has not ended.
    pub fn is_current(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }

    /// The word that `system.queries` shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A state equals the word that is shown for it.
impl PartialEq<&str> for State {
    fn eq(&self, word: &&str) -> bool {
        self.name() == *word
    }
}

/// A statement in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryRecord {
    /// Its id.
    pub id: String,
    /// The session it ran in.
    pub session_id: String,
    /// Who asked.
    pub principal: String,
    /// The client program, as it names itself.
    pub client: Option<String>,
    /// The client's address.
    pub address: Option<String>,
    /// Its text, values replaced by keyed tokens.
    pub text: Arc<str>,
    /// Where it is.
    pub state: State,
    /// When it was asked for, in Unix milliseconds.
    pub started_ms: i64,
    /// How long it waited for a slot, in milliseconds.
    pub queued_ms: i64,
    /// How long it ran, in milliseconds; `None` while it waits.
    pub run_ms: Option<i64>,
    /// Rows sent or changed.
    pub rows: u64,
    /// Bytes of the rows sent.
    pub bytes: u64,
    /// The most memory that it had reserved at once, in bytes.
    pub memory_peak_bytes: u64,
    /// How far it is, when it tells.
    pub progress: Option<Progress>,
    /// The code of its error.
    pub error_code: Option<&'static str>,
    /// The class of its error.
    pub error_class: Option<Class>,
}

/// Somebody who is told of each statement that has ended.
pub type Observer = Box<dyn Fn(&QueryRecord) + Send + Sync>;

/// The log of statements.
#[derive(Debug, Clone)]
pub struct QueryLog(Arc<Log>);

struct Log {
    /// Whose clock it is.
    catalog: Arc<Catalog>,
    records: Mutex<Records>,
    observer: OnceLock<Observer>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Log").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Records {
    next: u64,
    running: BTreeMap<u64, Arc<Entry>>,
    ended: VecDeque<QueryRecord>,
}

/// A statement that has not ended.
#[derive(Debug)]
struct Entry {
    number: u64,
    id: String,
    session_id: String,
    principal: String,
    origin: Origin,
    text: Mutex<Arc<str>>,
    started_ms: i64,
    /// When it got its slot; 0 while it waits.
    began_ms: AtomicI64,
    rows: AtomicU64,
    bytes: AtomicU64,
    pool: Arc<StatementPool>,
    reporter: Reporter,
    cancel: CancellationToken,
    slot: Mutex<Option<Slot>>,
    /// What the audit is going to say.
    draft: Mutex<Draft>,
    /// Whether the audit tells that it runs.
    is_told: AtomicBool,
    /// What the audit was told last.
    receipt: Mutex<Option<Receipt>>,
}

impl Entry {
    fn record(&self, now_ms: i64) -> QueryRecord {
        let began_ms = self.began_ms.load(Ordering::Relaxed);
        let waits = began_ms == 0;
        let until_ms = if waits { now_ms } else { began_ms };
        QueryRecord {
            id: self.id.clone(),
            session_id: self.session_id.clone(),
            principal: self.principal.clone(),
            client: self.origin.client.clone(),
            address: self.origin.address.clone(),
            text: Arc::clone(&self.text.lock()),
            state: if waits { State::Queued } else { State::Running },
            started_ms: self.started_ms,
            queued_ms: (until_ms - self.started_ms).max(0),
            run_ms: (!waits).then(|| (now_ms - began_ms).max(0)),
            rows: self.rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            memory_peak_bytes: self.pool.peak_bytes() as u64,
            progress: self.reporter.watch().borrow().clone(),
            error_code: None,
            error_class: None,
        }
    }
}

impl QueryLog {
    /// No statement yet.
    pub(crate) fn new(catalog: Arc<Catalog>) -> Self {
        let (records, observer) = (Mutex::default(), OnceLock::new());
        Self(Arc::new(Log { catalog, records, observer }))
    }

    /// Tells `observer` of each statement that ends from now on; there is one at most.
    pub fn observe(&self, observer: Observer) {
        // A second observer would be a second server over one engine, which there is not.
        let _ = self.0.observer.set(observer);
    }

    /// Waiting, running and lately ended statements, oldest first.
    pub fn records(&self) -> Vec<QueryRecord> {
        let now_ms = self.0.catalog.now_ms();
        let records = self.0.records.lock();
        let running = records.running.values().map(|entry| entry.record(now_ms));
        records.ended.iter().cloned().chain(running).collect()
    }

    /// Statements that have not ended: those that wait for a slot, and those that run.
    pub fn current(&self) -> (usize, usize) {
        let records = self.0.records.lock();
        let waits = |entry: &&Arc<Entry>| entry.began_ms.load(Ordering::Relaxed) == 0;
        let waiting = records.running.values().filter(waits).count();
        (waiting, records.running.len() - waiting)
    }

    /// The progress of a statement that runs.
    pub fn progress(&self, id: &str) -> Option<watch::Receiver<Option<Progress>>> {
        self.find(id).map(|entry| entry.reporter.watch())
    }

    /// Cancels a waiting or running statement, if `may` allows it for its owner; whether there was
    /// one. Somebody else's is as unknown as one that never was.
    pub fn cancel(&self, id: &str, may: impl Fn(&str) -> bool) -> bool {
        let Some(entry) = self.find(id) else { return false };
        let allowed = may(&entry.principal);
        if allowed {
            entry.cancel.cancel();
        }
        allowed
    }

    fn find(&self, id: &str) -> Option<Arc<Entry>> {
        self.0.records.lock().running.values().find(|entry| entry.id == id).cloned()
    }

    /// Logs a statement, which waits until [`Ticket::begin`].
    pub(crate) fn start(
        &self,
        session: &Session,
        query_id: &str,
        text: Arc<str>,
        pool: Arc<StatementPool>,
        draft: Draft,
    ) -> Ticket {
        let catalog = &self.0.catalog;
        let mut records = self.0.records.lock();
        records.next += 1;
        let entry = Arc::new(Entry {
            number: records.next,
            id: query_id.to_owned(),
            session_id: session.id().to_owned(),
            principal: session.principal().name.clone(),
            origin: session.origin().clone(),
            text: Mutex::new(text),
            started_ms: catalog.now_ms(),
            began_ms: AtomicI64::new(0),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            pool,
            reporter: Reporter::new(session.progress_sender()),
            cancel: session.end_token().child_token(),
            slot: Mutex::new(None),
            draft: Mutex::new(draft),
            is_told: AtomicBool::new(false),
            receipt: Mutex::new(None),
        });
        records.running.insert(entry.number, Arc::clone(&entry));
        drop(records);
        Ticket(Arc::new(TicketInner { entry, log: self.clone() }))
    }

    /// Logs a text that could not be planned; `tokens` make those of the values in it.
    pub(crate) fn refused(
        &self,
        session: &Session,
        (text, tokens): (&str, Option<&ValueTokens>),
        started_ms: i64,
        error: &Error,
    ) {
        let catalog = &self.0.catalog;
        let limit = session.engine().limits().sql_bytes_max;
        let text = match text.len() {
            bytes if bytes > limit => format!("(a text of {bytes} bytes)"),
            _ => query_text::refused(text, tokens),
        };
        let record = QueryRecord {
            id: catalog.new_id(),
            session_id: session.id().to_owned(),
            principal: session.principal().name.clone(),
            client: session.origin().client.clone(),
            address: session.origin().address.clone(),
            text: text.into(),
            state: State::Failed,
            started_ms,
            queued_ms: 0,
            run_ms: Some((catalog.now_ms() - started_ms).max(0)),
            rows: 0,
            bytes: 0,
            memory_peak_bytes: 0,
            progress: None,
            error_code: Some(error.code()),
            error_class: Some(error.class()),
        };
        self.0.records.lock().remember(record.clone());
        audit::refused(session, &record);
        self.tell(&record);
    }

    fn end(&self, entry: &Entry, error: Option<&Error>) {
        let now_ms = self.0.catalog.now_ms();
        let mut records = self.0.records.lock();
        if records.running.remove(&entry.number).is_none() {
            return;
        }
        let mut record = entry.record(now_ms);
        record.state = match error {
            None => State::Finished,
            Some(Error::Cancelled) => State::Cancelled,
            Some(_) => State::Failed,
        };
        record.run_ms = Some(record.run_ms.unwrap_or(0));
        record.progress = None;
        record.error_code = error.map(Error::code);
        record.error_class = error.map(Error::class);
        records.remember(record.clone());
        drop(records);
        drop(entry.slot.lock().take());
        *entry.receipt.lock() = entry.draft.lock().ended(self.0.catalog.audit(), &record);
        // What is still at work for it hears that nobody waits any more.
        entry.cancel.cancel();
        entry.reporter.clear();
        self.tell(&record);
    }

    fn tell(&self, record: &QueryRecord) {
        tracing::info!(
            parent: None,
            query = %record.id, session = %record.session_id,
            principal = %record.principal, state = record.state.name(),
            queued_ms = record.queued_ms, run_ms = record.run_ms, rows = record.rows,
            bytes = record.bytes, memory_peak_bytes = record.memory_peak_bytes,
            code = record.error_code, text = %record.text,
            "statement"
        );
        if let Some(observer) = self.0.observer.get() {
            observer(record);
        }
    }
}

impl Records {
    fn remember(&mut self, record: QueryRecord) {
        self.ended.push_back(record);
        while self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
    }
}

/// A statement's entry in the log; when the last clone goes, the statement was abandoned.
#[derive(Debug, Clone)]
pub(crate) struct Ticket(Arc<TicketInner>);

#[derive(Debug)]
struct TicketInner {
    entry: Arc<Entry>,
    log: QueryLog,
}

impl Ticket {
    /// The statement's id.
    pub(crate) fn id(&self) -> &str {
        &self.0.entry.id
    }

    /// Cancels the statement.
    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.0.entry.cancel
    }

    /// Where its memory is counted.
    pub(crate) fn pool(&self) -> Arc<dyn MemoryPool> {
        Arc::clone(&self.0.entry.pool) as _
    }

    /// Where its operators tell how far they are.
    pub(crate) fn reporter(&self) -> &Reporter {
        &self.0.entry.reporter
    }

    /// Its text from now on, with the values of its parameters.
    pub(crate) fn show(&self, text: Arc<str>) {
        *self.0.entry.text.lock() = text;
    }

    /// The statement runs from now on, in its slot if it needs one.
    pub(crate) fn begin(&self, slot: Option<Slot>) {
        let entry = &self.0.entry;
        *entry.slot.lock() = slot;
        let now_ms = self.0.log.0.catalog.now_ms();
        entry.began_ms.store(now_ms.max(1), Ordering::Relaxed);
    }

    /// So many rows and bytes more have been sent or changed.
    pub(crate) fn add(&self, rows: u64, bytes: u64) {
        let (entry, catalog) = (&self.0.entry, &self.0.log.0.catalog);
        entry.rows.fetch_add(rows, Ordering::Relaxed);
        entry.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Who gives rows for longer than the audit's delay is on record meanwhile.
        let delay_ms = i64::try_from(catalog.audit().config().delay.as_millis());
        let until_ms = entry.started_ms.saturating_add(delay_ms.unwrap_or(i64::MAX));
        if catalog.now_ms() > until_ms && !entry.is_told.swap(true, Ordering::Relaxed) {
            entry.draft.lock().still_running(catalog.audit(), &self.record());
        }
    }

    /// The statement as it is now.
    pub(crate) fn record(&self) -> QueryRecord {
        self.0.entry.record(self.0.log.0.catalog.now_ms())
    }

    /// What the audit says of it from now on.
    pub(crate) fn redraft(&self, draft: Draft) {
        if draft.is_written_first() {
            self.0.entry.is_told.store(true, Ordering::Relaxed);
        }
        *self.0.entry.draft.lock() = draft;
    }

    /// Waits until the end of a change is on record.
    pub(crate) async fn settle(&self) {
        let receipt = self.0.entry.receipt.lock().take();
        let first = self.0.entry.draft.lock().is_written_first();
        if let Some(receipt) = receipt.filter(|_| first) {
            audit::settle(self.0.log.0.catalog.audit(), receipt).await;
        }
    }

    /// The statement ended well.
    pub(crate) fn finish(&self) {
        self.0.end(None);
    }

    /// The statement ended with an error.
    pub(crate) fn fail(&self, error: &Error) {
        self.0.end(Some(error));
    }
}

impl TicketInner {
    fn end(&self, error: Option<&Error>) {
        self.log.end(&self.entry, error);
    }
}

impl Drop for TicketInner {
    fn drop(&mut self) {
        self.end(Some(&Error::Cancelled));
    }
}
