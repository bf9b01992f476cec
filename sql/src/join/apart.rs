//! Runs an operator that computes long without a pause on a thread of its own.
//!
//! On a serving thread it would keep clients waiting, and the watch over its own time limit too.
//! It ends where it next waits for something, or next looks at its [`Stop`], once nobody reads what
//! it gives.

use std::future::Future;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use udfs::fuzzy::stop::Stop;

/// Batches made ahead of the reader.
const AHEAD: usize = 2;

/// Where rows go.
pub(crate) type Results = Sender<Result<RecordBatch>>;

/// The rows that `work` gives.
pub(crate) fn apart<F: Future<Output = Result<()>> + 'static>(
    schema: SchemaRef,
    work: impl FnOnce(Results, Stop) -> F + Send + 'static,
) -> Result<SendableRecordBatchStream> {
    let runtime =
        Handle::try_current().map_err(|error| DataFusionError::External(Box::new(error)))?;
    let mut stream = RecordBatchReceiverStreamBuilder::new(schema, AHEAD);
    let results = stream.tx();
    stream.spawn_blocking(move || {
        let (reader, watched) = (results.clone(), results.clone());
        let stop = Stop::when(move || watched.is_closed());
        runtime.block_on(async move {
            tokio::select! {
                biased;
                () = reader.closed() => Ok(()),
                done = work(results, stop) => done,
            }
        })
    });
    Ok(stream.build())
}
