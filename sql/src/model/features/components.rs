//! Principal components of a query's rows, which are summed up as they come: neither their order
//! nor most of the rows themselves are kept.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::StreamExt;
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

/// Reads a query's rows and sums them up on the learners' threads.
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
) -> Result<PcaRows> {
    let mut read = PcaRows::new(columns.rows(&rows.schema())?);
    let row_bytes = columns.features.len() * size_of::<f64>();
    let mut reserved = Reserved { memory, learner, row_bytes, held_bytes: 0, sums_bytes: 0 };
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        reserved.hold(batch.num_rows())?;
        read.add(&columns.of(&batch)?).map_err(model_error)?;
        let done = read.rows() as u64;
        progress.report(Progress { phase: "reading".into(), done, total: 0, metric: None });
        if read.waiting() >= ROWS_TOGETHER {
            reserved.sum(read.width())?;
            read = sum(read, cancel).await?;
            reserved.keep(read.incomplete());
        }
    }
    reserved.sum(read.width())?;
    sum(read, cancel).await
}

async fn sum(mut read: PcaRows, cancel: &Arc<AtomicBool>) -> Result<PcaRows> {
    let cancel = Arc::clone(cancel);
    let now = move || read.sum(&cancel).map(|()| read);
    crate::model::learn(now).await?.map_err(model_error)
}
