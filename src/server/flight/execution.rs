//! A statement under a ticket: waiting, started by a poller, ready, or taken by DoGet.
//!
//! GetFlightInfo leaves it waiting. PollFlightInfo starts it, in the background and once; it is
//! settled when a query's first rows are there or an update has done its work, and DoGet goes on
//! from there. A poller that does not come back is given a lease: when that has run out, the
//! statement ends, whether it still works or its rows wait.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use parking_lot::Mutex;
use sql::Progress;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::rows::{Begun, Told};
use super::sessions::ClientSession;
use super::statements::Statement;
use super::status;

/// A statement that the server keeps for a client.
pub struct Execution {
    /// The session it belongs to.
    pub client: Arc<ClientSession>,
    /// The id under which it runs.
    pub query_id: String,
    /// The announced schema; no bytes for an update.
    pub schema: Bytes,
    /// Cancelled to end it.
    pub stop: CancellationToken,
    stage: Mutex<Stage>,
    settled: watch::Sender<bool>,
    /// Cancelled when DoGet has taken it or nobody will.
    gone: CancellationToken,
    lease: Mutex<Instant>,
}

enum Stage {
    Waiting(Box<Statement>),
    Starting,
    Ready(Box<Begun>),
    Failed(Status),
    Gone,
}

/// What DoGet finds.
pub enum Taken {
    /// A statement to run.
    Statement(Box<Statement>),
    /// One that a poller has started.
    Begun(Box<Begun>),
    /// One that has failed.
    Failed(Status),
    /// One that still works towards its first rows.
    NotYet,
}

/// What a poller finds.
pub enum Polled {
    /// It still works.
    Working,
    /// Its rows are there, or its work is done.
    Ready(Told),
    /// It has failed.
    Failed(Status),
}

impl Execution {
    /// A statement that waits.
    pub fn new(statement: Statement, schema: Bytes, stop: CancellationToken) -> Self {
        Self {
            client: Arc::clone(&statement.client),
            query_id: statement.query_id.clone(),
            schema,
            stop,
            stage: Mutex::new(Stage::Waiting(Box::new(statement))),
            settled: watch::channel(false).0,
            gone: CancellationToken::new(),
            lease: Mutex::new(Instant::now()),
        }
    }

    /// Whether it waits for somebody to start it.
    pub fn waits(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Waiting(_))
    }

    /// Takes it for DoGet; `None` when it was taken before.
    pub fn take(&self) -> Option<Taken> {
        let mut stage = self.stage.lock();
        if matches!(*stage, Stage::Starting) {
            return Some(Taken::NotYet);
        }
        self.gone.cancel();
        match std::mem::replace(&mut *stage, Stage::Gone) {
            Stage::Waiting(statement) => Some(Taken::Statement(statement)),
            Stage::Ready(begun) => Some(Taken::Begun(begun)),
            Stage::Failed(status) => Some(Taken::Failed(status)),
            Stage::Starting | Stage::Gone => None,
        }
    }

    /// Ends it wherever it is.
    pub fn end(&self) {
        self.stop.cancel();
        self.gone.cancel();
        // Dropping what was ready ends its query.
        *self.stage.lock() = Stage::Gone;
        self.settled.send_replace(true);
    }

    /// How it stands; `None` when it was taken.
    pub fn look(&self) -> Option<Polled> {
        match &*self.stage.lock() {
            Stage::Waiting(_) | Stage::Starting => Some(Polled::Working),
            Stage::Ready(begun) => Some(Polled::Ready(begun.told.clone())),
            Stage::Failed(status) => Some(Polled::Failed(status.clone())),
            Stage::Gone => None,
        }
    }

    /// How far it is, while it works.
    pub fn progress(&self) -> Option<watch::Receiver<Option<Progress>>> {
        self.client.session.engine().queries().progress(&self.query_id)
    }

    /// Turns true when there is something to fetch, or the statement has failed or is gone.
    pub fn settled(&self) -> watch::Receiver<bool> {
        self.settled.subscribe()
    }

    /// Keeps it until `lease` at least.
    pub fn extend(&self, lease: Instant) {
        let mut until = self.lease.lock();
        *until = (*until).max(lease);
    }

    /// Takes the statement to start it; `None` when somebody has started it.
    pub fn claim(&self) -> Option<Statement> {
        let mut stage = self.stage.lock();
        if !matches!(*stage, Stage::Waiting(_)) {
            return None;
        }
        match std::mem::replace(&mut *stage, Stage::Starting) {
            Stage::Waiting(statement) => Some(*statement),
            _ => None,
        }
    }

    /// Runs a claimed statement to its first rows and keeps them until DoGet comes. Whether the
    /// lease ran out and it was given up.
    pub async fn work(&self, statement: Statement) -> bool {
        let work = async {
            let begun = Begun::start(statement, self.stop.clone()).await?;
            begun.reach_rows().await
        };
        // A panic in the background would leave the poller waiting.
        let work = AssertUnwindSafe(work).catch_unwind();
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = self.abandoned() => {
                self.end();
                return true;
            }
        };
        let settled = match outcome {
            Ok(Ok(begun)) => Stage::Ready(Box::new(begun)),
            Ok(Err(status)) => Stage::Failed(status),
            Err(_) => Stage::Failed(status::of_query(
                status::internal("the statement failed inside the server"),
                &self.query_id,
            )),
        };
        {
            let mut stage = self.stage.lock();
            if !matches!(*stage, Stage::Starting) {
                return false;
            }
            *stage = settled;
        }
        self.settled.send_replace(true);
        tokio::select! {
            () = self.gone.cancelled() => false,
            () = self.abandoned() => {
                self.end();
                true
            }
        }
    }

    /// Ends when nobody has asked for longer than the lease.
    async fn abandoned(&self) {
        loop {
            let until = *self.lease.lock();
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until.into()).await;
        }
    }
}
