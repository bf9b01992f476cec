//! Running: statements and portals, under the eyes of the client.
//!
//! While a statement works, the connection listens for its client's end, for a request to cancel,
//! for the server's stop and for the statement's time. Rows leave as they come; a result is never
//! gathered.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use futures::FutureExt;
use pgwire::messages::PgWireBackendMessage as Backend;
use pgwire::messages::extendedquery::PortalSuspended;
use pgwire::messages::response::{CommandComplete, EmptyQueryResponse};
use tokio_util::sync::CancellationToken;

use super::cells::{Column, Rows};
use super::connection::{Connection, killed, stopping};
use super::portals::{Portal, Progress, Running};
use super::problem::{Problem, Stop};
use super::statements::{Statement, Work};

/// The tag of a command that is done.
pub fn complete(tag: impl Into<String>) -> Backend {
    Backend::CommandComplete(CommandComplete::new(tag.into()))
}

/// By whom a statement is ended.
pub struct Watch {
    cancelled: CancellationToken,
}

impl Connection<'_> {
    /// A statement begins.
    pub fn watch(&self) -> Watch {
        Watch { cancelled: self.key.begin() }
    }

    /// Works until it is done, or nobody wants it any more.
    pub async fn watched<T>(
        &mut self,
        watch: &Watch,
        work: impl Future<Output = Result<T, Stop>>,
    ) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = watch.cancelled.cancelled() => Err(cancelled().into()),
            done = AssertUnwindSafe(work).catch_unwind() => match done {
                Ok(done) => done,
                Err(_) => Err(Problem::internal(&"a statement panicked").into()),
            },
            () = self.state.stop.cancelled() => Err(stopping().into()),
            () = self.session.end_token().cancelled() => Err(killed().into()),
            () = self.input.gone() => Err(Stop::Gone),
        }
    }

    /// Reads a statement, in a transaction that allows it.
    pub async fn read(&mut self, text: &str, declared: Vec<u32>) -> Result<Statement, Stop> {
        self.still_admitted().await?;
        let admits = self.transaction.admit(false, false);
        let (watch, session) = (self.watch(), self.session.clone());
        let work = async move { Statement::read(&session, text, declared, admits).await };
        self.watched(&watch, work).await
    }

    /// Runs a portal for up to `rows_max` rows (0: all) and tells the client.
    pub async fn execute(&mut self, portal: &mut Portal, rows_max: u32) -> Result<(), Stop> {
        let watch = self.watch();
        if matches!(portal.progress, Progress::Ready) {
            self.start(portal, &watch).await?;
        }
        match std::mem::replace(&mut portal.progress, Progress::Done) {
            Progress::Rows(mut running) => {
                let (statement, columns) = (&portal.statement, &portal.columns);
                let suspended =
                    self.send(statement, columns, &mut running, rows_max, &watch).await?;
                if suspended {
                    portal.progress = Progress::Rows(running);
                }
                Ok(())
            }
            Progress::Done if portal.statement.has_rows() => {
                self.output.add(&complete(portal.statement.tag(0)))
            }
            _ => Ok(()),
        }
    }

    /// Begins a portal; what has no rows is done when this returns, and told.
    async fn start(&mut self, portal: &mut Portal, watch: &Watch) -> Result<(), Stop> {
        let statement = Arc::clone(&portal.statement);
        portal.progress = Progress::Done;
        let prepared = match &statement.work {
            Work::Nothing => {
                return self.output.add(&Backend::EmptyQueryResponse(EmptyQueryResponse::new()));
            }
            Work::Control(control) => {
                if !control.ends_failure() {
                    self.transaction.admit(false, false)?;
                }
                return self.control(control).await;
            }
            Work::Data(prepared) => prepared,
        };
        self.still_admitted().await?;
        let read_only = self.session.parameter("default_transaction_read_only");
        let read_only = read_only.as_deref() == Some("on");
        self.transaction.admit(statement.changes(), read_only)?;
        let session = self.session.clone();
        let values = statement.taken(&portal.values).to_vec();
        let work = async { Ok(session.run(prepared, &values).await?) };
        let answer = self.watched(watch, work).await?;
        match answer.affected {
            None => {
                if let Some(said) = &answer.message {
                    self.output.add(&Problem::new("01000", said.as_str()).warning())?;
                }
                portal.progress = Progress::Rows(Box::new(Running::new(answer)));
                Ok(())
            }
            Some(affected) => {
                let warning = statement.changes().then(|| self.transaction.wrote()).flatten();
                if let Some(warning) = warning {
                    self.output.add(&warning.warning())?;
                }
                let rows = u64::try_from(affected).unwrap_or(0);
                self.output.add(&complete(statement.tag(rows)))
            }
        }
    }

    /// Sends rows; whether there may be more.
    async fn send(
        &mut self,
        statement: &Statement,
        columns: &[Column],
        running: &mut Running,
        rows_max: u32,
        watch: &Watch,
    ) -> Result<bool, Stop> {
        let zone = self.zone()?;
        let mut sent = 0u64;
        loop {
            let Some((rows, next)) = &mut running.batch else {
                match self.watched(watch, running.next()).await? {
                    Some(batch) => {
                        running.batch = Some((Rows::new(&batch, columns, zone)?, 0));
                        continue;
                    }
                    None => {
                        self.output.add(&complete(statement.tag(sent)))?;
                        return Ok(false);
                    }
                }
            };
            while *next < rows.count() {
                if rows_max > 0 && sent >= u64::from(rows_max) {
                    self.output.add(&Backend::PortalSuspended(PortalSuspended::new()))?;
                    return Ok(true);
                }
                self.output.row(columns.len(), |out| rows.write(*next, out))?;
                *next += 1;
                sent += 1;
                if self.output.is_full() {
                    self.flush_rows(watch).await?;
                }
            }
            running.batch = None;
        }
    }

    /// Lets a piece of the rows leave. A client that does not read is waited for, but not by a
    /// server that stops.
    async fn flush_rows(&mut self, watch: &Watch) -> Result<(), Stop> {
        tokio::select! {
            sent = self.output.flush() => sent?,
            () = self.state.stop.cancelled() => return Err(Stop::Gone),
        }
        match watch.cancelled.is_cancelled() {
            true => Err(cancelled().into()),
            false => Ok(()),
        }
    }

    /// The zone in which times are shown.
    fn zone(&self) -> Result<Tz, Stop> {
        let zone = self.session.setting("time_zone");
        Ok(zone.as_deref().unwrap_or("+00:00").parse::<Tz>()?)
    }
}

fn cancelled() -> Problem {
    Problem::new("57014", "canceling statement due to user request")
}
