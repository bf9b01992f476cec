//! Between those who act and the chain: a bounded queue and one task that commits what is in it.
//!
//! Handing an entry in takes no I/O. Plain entries wait for company for at most the configured
//! delay; an urgent one is committed at once, with all that lies before it, and whoever handed it
//! in may wait until it is kept. While the warehouse fails, the same entries are tried again and
//! the queue fills; what does not fit any more is lost, counted, and noted in the chain as a gap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::entry::{AuditEntry, Event};
use super::writer::{ENTRIES_MAX, Writer};
use crate::config::Clock;
use crate::error::{Error, Result};

/// The wait before a failed commit is tried again; each further one waits twice as long …
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// … and none longer.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// No queue is longer, whatever is configured …
const QUEUE_MAX: usize = 10_000_000;
/// … and no delay.
const DELAY_MAX: Duration = Duration::from_secs(3_600);
/// How long the end of the process waits for the last entries.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// What is handed to the task.
enum Message {
    Entry {
        entry: Box<AuditEntry>,
        urgent: bool,
    },
    /// To be told when all before it is kept; and whether a checkpoint is to be made then.
    Flush(oneshot::Sender<Result<()>>, bool),
}

/// How the task stands.
#[derive(Debug, Clone, Default)]
struct Standing {
    /// Entries that were handed in and are kept.
    kept: u64,
    /// Commits that failed.
    failures: u64,
    /// Why the last one failed; nothing once one succeeded.
    error: Option<Error>,
}

/// An entry that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    number: u64,
    failures: u64,
}

/// What metrics tell of the record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditStats {
    /// Entries that are kept.
    pub kept: u64,
    /// Entries that wait.
    pub waiting: u64,
    /// Entries that were lost, because the queue was full.
    pub lost: u64,
    /// Commits that failed.
    pub failures: u64,
}

/// The queue's end for those who act.
pub(super) struct Recorder {
    sender: Sender<Message>,
    /// Entries handed in; held while one is, so that numbers follow the queue's order.
    pushed: Mutex<u64>,
    standing: watch::Receiver<Standing>,
    lost: Arc<AtomicU64>,
}

impl Recorder {
    /// Starts the task, which ends when this is dropped and everything is written.
    pub fn start(writer: Writer, clock: Clock, delay: Duration, queue_max: usize) -> Self {
        let (sender, receiver) = channel(queue_max.clamp(1, QUEUE_MAX));
        let (told, standing) = watch::channel(Standing::default());
        let lost = Arc::new(AtomicU64::new(0));
        let delay = delay.min(DELAY_MAX);
        let task =
            Task { receiver, told, writer, clock, delay, lost: Arc::clone(&lost), noted_lost: 0 };
        tokio::spawn(task.run());
        Self { sender, pushed: Mutex::new(0), standing, lost }
    }

    /// Hands an entry in.
    ///
    /// # Errors
    /// When the queue is full: the entry is lost.
    pub fn push(&self, entry: AuditEntry, urgent: bool) -> Result<Receipt> {
        let message = Message::Entry { entry: Box::new(entry), urgent };
        let mut pushed = self.pushed.lock();
        match self.sender.try_send(message) {
            Ok(()) => {
                *pushed += 1;
                Ok(Receipt { number: *pushed, failures: self.standing.borrow().failures })
            }
            Err(_) => {
                drop(pushed);
                self.lost.fetch_add(1, Ordering::Relaxed);
                Err(self.failing().unwrap_or_else(|| Error::Store {
                    url: "the record".into(),
                    reason: "its queue is full".into(),
                    denied: false,
                }))
            }
        }
    }

    /// Waits until an entry is kept.
    ///
    /// # Errors
    /// When a commit failed meanwhile; the entry is still tried.
    pub async fn kept(&self, receipt: Receipt) -> Result<()> {
        let mut standing = self.standing.clone();
        let told = standing
            .wait_for(|now| now.kept >= receipt.number || now.failures > receipt.failures)
            .await;
        match told {
            Ok(now) if now.kept >= receipt.number => Ok(()),
            Ok(now) => Err(now.error.clone().unwrap_or_else(ended)),
            Err(_) => Err(ended()),
        }
    }

    /// Why entries cannot be kept now, if they cannot.
    pub fn failing(&self) -> Option<Error> {
        self.standing.borrow().error.clone()
    }

    /// Waits until everything handed in so far is kept; makes a checkpoint when asked to.
    ///
    /// # Errors
    /// When it cannot be kept within a while.
    pub async fn flush(&self, checkpoint: bool) -> Result<()> {
        let (sender, receiver) = oneshot::channel();
        let flushed = async {
            self.sender.send(Message::Flush(sender, checkpoint)).await.map_err(|_| ended())?;
            receiver.await.unwrap_or_else(|_| Err(ended()))
        };
        match timeout(CLOSE_MAX, flushed).await {
            Ok(flushed) => flushed,
            Err(_) => Err(self.failing().unwrap_or_else(ended)),
        }
    }

    /// How it stands.
    pub fn stats(&self) -> AuditStats {
        let pushed = *self.pushed.lock();
        let standing = self.standing.borrow();
        AuditStats {
            kept: standing.kept,
            waiting: pushed.saturating_sub(standing.kept),
            lost: self.lost.load(Ordering::Relaxed),
            failures: standing.failures,
        }
    }
}

fn ended() -> Error {
    Error::Store {
        url: "the record".into(),
        reason: "it did not keep its entries in time".into(),
        denied: false,
    }
}

/// The queue's other end.
struct Task {
    receiver: Receiver<Message>,
    told: watch::Sender<Standing>,
    writer: Writer,
    clock: Clock,
    delay: Duration,
    lost: Arc<AtomicU64>,
    /// Lost entries that the chain tells of.
    noted_lost: u64,
}

/// What is committed together.
#[derive(Default)]
struct Batch {
    entries: Vec<AuditEntry>,
    /// How many of them were handed in.
    pushed: u64,
    urgent: bool,
    checkpoint: bool,
    flushes: Vec<oneshot::Sender<Result<()>>>,
}

impl Batch {
    fn take(&mut self, message: Message) {
        match message {
            Message::Entry { entry, urgent } => {
                self.entries.push(*entry);
                self.pushed += 1;
                self.urgent |= urgent;
            }
            Message::Flush(sender, checkpoint) => {
                self.flushes.push(sender);
                self.checkpoint |= checkpoint;
                self.urgent = true;
            }
        }
    }

    /// A note of lost entries has its place beside them.
    fn is_full(&self) -> bool {
        self.entries.len() + 1 >= ENTRIES_MAX
    }
}

impl Task {
    async fn run(mut self) {
        while let Some(first) = self.receiver.recv().await {
            let mut batch = Batch::default();
            batch.take(first);
            self.gather(&mut batch).await;
            self.keep(batch).await;
            self.retain().await;
        }
        self.writer.checkpoint(true).await;
    }

    /// Waits for company, and takes along whatever else is there.
    async fn gather(&mut self, batch: &mut Batch) {
        let until = Instant::now() + self.delay;
        while !batch.urgent && !batch.is_full() {
            match timeout_at(until, self.receiver.recv()).await {
                Ok(Some(message)) => batch.take(message),
                Ok(None) | Err(_) => break,
            }
        }
        while !batch.is_full() {
            match self.receiver.try_recv() {
                Ok(message) => batch.take(message),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
    }

    /// Commits a batch, however often it takes.
    async fn keep(&mut self, mut batch: Batch) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > self.noted_lost {
            let now_ms = (self.clock)();
            let missing = lost - self.noted_lost;
            batch.entries.push(AuditEntry::own(Event::Gap, now_ms, "queue", missing));
            self.noted_lost = lost;
        }
        let mut wait = RETRY_FIRST;
        while !batch.entries.is_empty() {
            // What was tried stays as it is: an answer that got lost is recognized by its bytes.
            match self.writer.commit(&mut batch.entries).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(%error, entries = batch.entries.len(), "not recorded");
                    self.told.send_modify(|standing| {
                        standing.failures += 1;
                        standing.error = Some(error.clone());
                    });
                    for flush in batch.flushes.drain(..) {
                        let _ = flush.send(Err(error.clone()));
                    }
                    if self.receiver.is_closed() {
                        return;
                    }
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
        if batch.checkpoint {
            self.writer.checkpoint(true).await;
        }
        self.told.send_modify(|standing| {
            standing.kept += batch.pushed;
            standing.error = None;
        });
        for flush in batch.flushes.drain(..) {
            // Who asked may have gone.
            let _ = flush.send(Ok(()));
        }
    }

    async fn retain(&mut self) {
        match self.writer.retain().await {
            Ok(None) => {}
            Ok(Some(removal)) => {
                let batch = Batch { entries: vec![removal], ..Batch::default() };
                self.keep(batch).await;
            }
            Err(error) => tracing::warn!(%error, "old segments of the record were not removed"),
        }
    }
}
