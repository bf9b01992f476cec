//! Principal components of a query's rows, which are summed up as they come: neither their order
//! nor most of the rows themselves are kept.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use udfs::model::FeatureRows;
use udfs::model::pca::{self, PcaRows};

use crate::error::Result;
use crate::model::features::FeatureColumns;
use crate::model::fit::take;
use crate::model::learners::Learner;
use crate::model::options::model_error;
use crate::progress::Reporter;
use crate::session::Progress;

/// Rows that are summed up together: enough for all threads, few enough to stay in the cache.
const ROWS_TOGETHER: usize = 1 << 16;

/// What the sums take of the memory.
struct Reserved<'a> {
    memory: &'a MemoryReservation,
    learner: &'a Learner,
    /// A row while it is held.
    row_bytes: usize,
    held_bytes: usize,
    sums_bytes: usize,
}

impl Reserved<'_> {
    /// Takes what so many rows more are held in.
    fn hold(&mut self, rows: usize) -> Result<()> {
        let bytes = rows.saturating_mul(self.row_bytes);
        self.memory.try_grow(bytes)?;
        self.held_bytes += bytes;
        Ok(())
    }

    /// Gives back what is held but for so many rows.
    fn keep(&mut self, rows: usize) {
        let bytes = self.held_bytes.min(rows.saturating_mul(self.row_bytes));
        self.memory.shrink(self.held_bytes - bytes);
        self.held_bytes = bytes;
    }

    /// Takes what rows of so many numbers are summed up and analysed in.
    fn sum(&mut self, width: usize) -> Result<()> {
        let more = pca::memory_bytes(width).saturating_sub(self.sums_bytes);
        take(self.memory, more, self.learner, &format!("rows of {width} numbers"))?;
        self.sums_bytes += more;
        Ok(())
    }
}

/// Reads a query's rows and sums them up on the learners' threads, some while the next are read.
///
/// # Errors
/// Rows that are no features, too little memory, cancellation.
pub async fn read(
    mut rows: SendableRecordBatchStream,
    columns: &FeatureColumns,
    learner: &Learner,
    memory: &MemoryReservation,
    progress: &Reporter,
    cancel: &Arc<AtomicBool>,
) -> Result<(FeatureRows, PcaRows)> {
    let mut read = columns.rows(&rows.schema())?;
    let mut summing: BoxFuture<'static, Result<PcaRows>> =
        std::future::ready(Ok(PcaRows::new(&read))).boxed();
    let mut done = 0;
    let row_bytes = columns.features.len() * size_of::<f64>();
    let mut reserved = Reserved { memory, learner, row_bytes, held_bytes: 0, sums_bytes: 0 };
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        reserved.hold(batch.num_rows())?;
        read.add(&columns.of(&batch)?).map_err(model_error)?;
        done += batch.num_rows() as u64;
        progress.report(Progress { phase: "reading".into(), done, total: 0, metric: None });
        if read.rows() >= ROWS_TOGETHER {
            let sums = summing.await?;
            reserved.keep(sums.incomplete() + read.rows());
            reserved.sum(read.width())?;
            summing = sum(sums, &mut read, cancel);
        }
    }
    let sums = summing.await?;
    reserved.sum(read.width())?;
    let sums = sum(sums, &mut read, cancel).await?;
    Ok((read, sums))
}

/// Starts to sum up the rows that were read.
fn sum(
    mut sums: PcaRows,
    read: &mut FeatureRows,
    cancel: &Arc<AtomicBool>,
) -> BoxFuture<'static, Result<PcaRows>> {
    sums.take(read);
    let cancel = Arc::clone(cancel);
    let summed = crate::model::learn(move || sums.sum(&cancel).map(|()| sums));
    async move { summed.await?.map_err(model_error) }.boxed()
}
