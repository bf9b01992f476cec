//! The rows of a statement, under limits: time, rows, cancellation; a panic inside an operator
//! ends the statement, not the server. A limit ends a result with an error, never with fewer rows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use futures::{FutureExt, Stream};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::engine::Limits;
use crate::error::Error;
use crate::queries::Ticket;

/// A stream of rows that obeys the statement's limits and reports to the query log.
pub struct Guarded {
    inner: Option<SendableRecordBatchStream>,
    schema: SchemaRef,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    deadline: Option<(Pin<Box<Sleep>>, u64)>,
    rows: u64,
    rows_max: Option<u64>,
    ticket: Ticket,
}

impl Guarded {
    /// Guards `inner`, whose batches are cast to `schema`'s nullability and metadata.
    pub fn new(
        inner: SendableRecordBatchStream,
        schema: &SchemaRef,
        limits: &Limits,
        cancel: CancellationToken,
        ticket: Ticket,
    ) -> Self {
        let deadline =
            limits.query_timeout.map(|time| (Box::pin(tokio::time::sleep(time)), time.as_secs()));
        Self {
            inner: Some(inner),
            schema: SchemaRef::clone(schema),
            cancelled: Box::pin(cancel.cancelled_owned()),
            deadline,
            rows: 0,
            rows_max: limits.rows_max,
            ticket,
        }
    }

    fn end(&mut self, error: Error) -> Poll<Option<DataFusionResult<RecordBatch>>> {
        self.inner = None;
        self.ticket.fail(&error);
        Poll::Ready(Some(Err(error.into())))
    }

    fn limit(&mut self, context: &mut Context<'_>) -> Option<Error> {
        if self.cancelled.poll_unpin(context).is_ready() {
            return Some(Error::Cancelled);
        }
        let (sleep, seconds) = self.deadline.as_mut()?;
        sleep.poll_unpin(context).is_ready().then_some(Error::TimedOut { seconds: *seconds })
    }
}

impl Stream for Guarded {
    type Item = DataFusionResult<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.inner.is_none() {
            return Poll::Ready(None);
        }
        if let Some(error) = self.limit(context) {
            return self.end(error);
        }
        let Some(inner) = self.inner.as_mut() else { return Poll::Ready(None) };
        let polled = catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll_next(context)));
        match polled {
            Err(_) => self.end(Error::Internal("an operator failed unexpectedly".into())),
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(None)) => {
                self.inner = None;
                self.ticket.finish(self.rows);
                Poll::Ready(None)
            }
            Ok(Poll::Ready(Some(Err(error)))) => self.end(error.into()),
            Ok(Poll::Ready(Some(Ok(batch)))) => {
                self.rows += batch.num_rows() as u64;
                if let Some(most) = self.rows_max
                    && self.rows > most
                {
                    let what = format!("the result has more than {most} rows");
                    return self.end(Error::Exhausted { what });
                }
                let columns = batch.columns().to_vec();
                let options =
                    arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                let batch = RecordBatch::try_new_with_options(
                    SchemaRef::clone(&self.schema),
                    columns,
                    &options,
                );
                match batch {
                    Ok(batch) => Poll::Ready(Some(Ok(batch))),
                    Err(error) => self.end(Error::Internal(error.to_string())),
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
