//! The rows of a statement, under limits: time, rows, bytes, cancellation, a reader that stays
//! away; a panic inside an operator ends the statement, not the server. A limit ends a result with
//! an error, never with fewer rows.
//!
//! The reader polls the rows; a watch beside it sees the limits of time. It takes the operators
//! away from a reader that does not poll, so that their memory and the statement's slot are free at
//! once, and leaves the error for the reader to find. Most statements end before there is anything
//! to see: until a cancellation or a time wakes it, the watch is no task, only a waker that those
//! hold.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use arrow::array::RecordBatchOptions;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use futures::Stream;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::error::Error;
use crate::limits::StatementLimits;
use crate::queries::Ticket;
use crate::text_size::batch_bytes;

/// How often the watch tries again to end a statement whose operators are at work this moment.
const RETRY: Duration = Duration::from_millis(5);

/// A stream of rows that obeys the statement's limits and reports to the query log.
pub(crate) struct Guarded {
    shared: Arc<Shared>,
    schema: SchemaRef,
    limits: StatementLimits,
    rows: u64,
    bytes: u64,
    ticket: Ticket,
    span: tracing::Span,
    watch: Watch,
    ended: bool,
}

/// What the reader and the watch share.
struct Shared {
    inner: Mutex<Option<SendableRecordBatchStream>>,
    /// Why the watch ended the statement, until the reader has heard of it.
    fault: Mutex<Option<Error>>,
    reader: AtomicWaker,
    polls: AtomicU64,
    /// Whether the reader waits for rows, rather than rows for the reader.
    waiting: AtomicBool,
}

impl Guarded {
    /// Guards `inner`, whose batches are cast to `schema`'s nullability and metadata. `deadline`
    /// is what is left of the statement's time.
    pub(crate) fn new(
        inner: SendableRecordBatchStream,
        schema: &SchemaRef,
        limits: StatementLimits,
        deadline: Option<Pin<Box<Sleep>>>,
        ticket: Ticket,
        span: tracing::Span,
    ) -> Self {
        let shared = Arc::new(Shared {
            inner: Mutex::new(Some(inner)),
            fault: Mutex::new(None),
            reader: AtomicWaker::new(),
            polls: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
        });
        let watch = Watch::new(&shared, limits, deadline, ticket.clone());
        let schema = SchemaRef::clone(schema);
        Self { shared, schema, limits, rows: 0, bytes: 0, ticket, span, watch, ended: false }
    }

    fn end(&mut self, error: Error) -> Poll<Option<DataFusionResult<RecordBatch>>> {
        self.ended = true;
        self.span.record("rows", self.rows);
        self.span.record("code", error.code());
        // The watch first, which would call a limit a cancellation; then what tells the operators
        // to stop.
        self.watch.end();
        self.ticket.fail(&error);
        drop(self.shared.inner.lock().take());
        Poll::Ready(Some(Err(error.into())))
    }

    /// Polls the operators; `None` when the watch has taken them away.
    fn poll_inner(
        &self,
        context: &mut Context<'_>,
    ) -> Option<std::thread::Result<Poll<Option<DataFusionResult<RecordBatch>>>>> {
        let mut inner = self.shared.inner.lock();
        let inner = inner.as_mut()?;
        let _entered = self.span.enter();
        Some(catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll_next(context))))
    }

    /// Counts a batch and gives it the announced schema.
    fn accept(&mut self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let (rows, bytes) = (batch.num_rows() as u64, batch_bytes(batch));
        self.rows += rows;
        self.bytes += bytes;
        self.ticket.add(rows, bytes);
        if let Some(most) = self.limits.rows_max
            && self.rows > most
        {
            let what = format!("the result has more than {most} rows");
            return Err(Error::Exhausted { what });
        }
        if let Some(most) = self.limits.result_bytes_max
            && self.bytes > most
        {
            let what = format!("the result has more than {most} bytes");
            return Err(Error::Exhausted { what });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let (schema, columns) = (SchemaRef::clone(&self.schema), batch.columns().to_vec());
        RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(|error| Error::Internal(error.to_string()))
    }
}

impl Stream for Guarded {
    type Item = DataFusionResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let shared = Arc::clone(&self.shared);
        shared.reader.register(context.waker());
        shared.waiting.store(true, Ordering::Relaxed);
        shared.polls.fetch_add(1, Ordering::Relaxed);
        let polled = self.poll_inner(context);
        // Looked at after the operators were let go: the watch leaves its error first.
        let fault = shared.fault.lock().take();
        if let Some(error) = fault {
            return self.end(error);
        }
        match polled {
            None => self.end(Error::Cancelled),
            Some(Err(_)) => self.end(Error::Internal("an operator failed unexpectedly".into())),
            Some(Ok(Poll::Pending)) => Poll::Pending,
            Some(Ok(Poll::Ready(None))) => {
                self.ended = true;
                drop(shared.inner.lock().take());
                self.span.record("rows", self.rows);
                self.watch.end();
                self.ticket.finish();
                Poll::Ready(None)
            }
            Some(Ok(Poll::Ready(Some(Err(error))))) => self.end(error.into()),
            Some(Ok(Poll::Ready(Some(Ok(batch))))) => {
                shared.waiting.store(false, Ordering::Relaxed);
                match self.accept(&batch) {
                    Ok(batch) => Poll::Ready(Some(Ok(batch))),
                    Err(error) => self.end(error),
                }
            }
        }
    }
}

impl RecordBatchStream for Guarded {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.watch.end();
        if !self.ended {
            self.ticket.fail(&Error::Cancelled);
        }
        drop(self.shared.inner.lock().take());
    }
}

/// The watch of one statement, and what wakes it.
struct Watch {
    bell: Arc<Bell>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    times: [Option<Pin<Box<Sleep>>>; 2],
}

impl Watch {
    fn new(
        shared: &Arc<Shared>,
        limits: StatementLimits,
        deadline: Option<Pin<Box<Sleep>>>,
        ticket: Ticket,
    ) -> Self {
        let cancelled = Box::pin(ticket.cancel().clone().cancelled_owned());
        let half = limits.reader_idle.map(|limit| Box::pin(tokio::time::sleep(limit / 2)));
        let asleep = Asleep {
            shared: Arc::clone(shared),
            limits,
            deadline: deadline.as_ref().map(|time| time.deadline()),
            half: half.as_ref().map(|time| time.deadline()),
            ticket,
        };
        let (stage, runtime) = (Mutex::new(Stage::Asleep(asleep)), Handle::current());
        let bell = Arc::new(Bell { stage, runtime });
        let mut watch = Self { bell, cancelled, times: [deadline, half] };
        watch.listen();
        watch
    }

    /// Leaves the bell with what may end the statement.
    fn listen(&mut self) {
        let waker = Waker::from(Arc::clone(&self.bell));
        let mut context = Context::from_waker(&waker);
        let mut rings = self.cancelled.as_mut().poll(&mut context).is_ready();
        for time in self.times.iter_mut().flatten() {
            rings |= time.as_mut().poll(&mut context).is_ready();
        }
        if rings {
            waker.wake();
        }
    }

    /// There is nothing to watch any more.
    fn end(&self) {
        // What it holds is dropped once the bell is let go: nothing rings while it is held.
        let before = std::mem::replace(&mut *self.bell.stage.lock(), Stage::Ended);
        if let Stage::Awake(task) = before {
            task.abort();
        }
    }
}

/// What wakes the watch: the first ring makes a task of it.
struct Bell {
    stage: Mutex<Stage>,
    runtime: Handle,
}

enum Stage {
    Asleep(Asleep),
    Awake(AbortHandle),
    Ended,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let mut stage = self.stage.lock();
        *stage = match std::mem::replace(&mut *stage, Stage::Ended) {
            Stage::Asleep(watch) => Stage::Awake(self.runtime.spawn(watch.run()).abort_handle()),
            other => other,
        };
    }
}

/// What the watch needs once it is awake.
struct Asleep {
    shared: Arc<Shared>,
    limits: StatementLimits,
    deadline: Option<Instant>,
    /// When half of the time is over for which the reader may stay away.
    half: Option<Instant>,
    ticket: Ticket,
}

impl Asleep {
    /// Ends the statement when it is cancelled, its time is over, or its reader stays away.
    async fn run(self) {
        let Self { shared, limits, deadline, half, ticket } = self;
        let cancel = ticket.cancel().clone();
        let deadline = deadline.map(|time| Box::pin(sleep_until(time)));
        let error = tokio::select! {
            () = cancel.cancelled() => Error::Cancelled,
            limit = over(deadline, limits.timeout) => Error::TimedOut { limit },
            limit = left_alone(&shared, limits.reader_idle, half) => Error::Idle { limit },
        };
        *shared.fault.lock() = Some(error.clone());
        // An operator that does not pause looks at this, and at nothing else.
        cancel.cancel();
        loop {
            if let Some(mut inner) = shared.inner.try_lock() {
                drop(inner.take());
                break;
            }
            // The operators are being polled, after which the reader finds the error itself; if it
            // had looked already, the next try finds them idle.
            tokio::time::sleep(RETRY).await;
        }
        ticket.fail(&error);
        shared.reader.wake();
    }
}

/// Waits until the time is over; for ever without a limit.
pub(crate) async fn over(deadline: Option<Pin<Box<Sleep>>>, limit: Option<Duration>) -> Duration {
    match (deadline, limit) {
        (Some(deadline), Some(limit)) => {
            deadline.await;
            limit
        }
        _ => std::future::pending().await,
    }
}

/// Waits until rows have been ready, and the reader away, for the whole limit and at most half as
/// long again. `half` is when the first half is over.
async fn left_alone(shared: &Shared, limit: Option<Duration>, half: Option<Instant>) -> Duration {
    let (Some(limit), Some(half)) = (limit, half) else { return std::future::pending().await };
    let (mut seen, mut halves) = (0, 0);
    sleep_until(half).await;
    loop {
        let polls = shared.polls.load(Ordering::Relaxed);
        let away = polls == seen && !shared.waiting.load(Ordering::Relaxed);
        halves = if away { halves + 1 } else { 0 };
        if halves == 2 {
            return limit;
        }
        seen = polls;
        tokio::time::sleep(limit / 2).await;
    }
}
