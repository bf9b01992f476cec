//! Planning apart from serving.
//!
//! Planning computes without a pause, and a long text or a wide plan takes it long: done on a
//! serving thread, two such statements would keep every other client of a two-core machine waiting.
//! What looks heavy is planned on a thread of its own; the caller may leave it at any time.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::error::{Error, Result};

/// A longer text is planned apart.
pub(crate) const TEXT_BYTES: usize = 4 * 1024;
/// A plan with more nodes or columns is planned apart.
pub(crate) const PLAN_PARTS: usize = 400;

/// Runs `work` here, or on a thread of its own when it is heavy. When the caller goes away the work
/// ends where it next waits for something.
pub(crate) async fn planned<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
    heavy: bool,
) -> Result<T> {
    if heavy { on_thread(work).await } else { work.await }
}

/// Runs `work` in a task of its own, or on a thread of its own when it is heavy: the caller hears
/// of a time limit while the work computes.
pub(crate) async fn task<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
    heavy: bool,
) -> Result<T> {
    if heavy {
        return on_thread(work).await;
    }
    let span = tracing::Span::current();
    let mut tasks = JoinSet::new();
    tasks.spawn(work.instrument(span));
    match tasks.join_next().await {
        Some(Ok(result)) => result,
        _ => Err(failed()),
    }
}

/// Runs `work` here, where it is known to take a moment only: a task would cost more. A panic is an
/// error, as it is in a task.
pub(crate) async fn here<T>(work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| Err(failed()))
}

async fn on_thread<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let left = CancellationToken::new();
    let _leaves = left.clone().drop_guard();
    let (runtime, span) = (Handle::current(), tracing::Span::current());
    let work = async move {
        tokio::select! {
            biased;
            () = left.cancelled() => Err(Error::Cancelled),
            result = work => result,
        }
    };
    let thread = tokio::task::spawn_blocking(move || runtime.block_on(work.instrument(span)));
    thread.await.unwrap_or_else(|_| Err(failed()))
}

fn failed() -> Error {
    Error::Internal("planning failed unexpectedly".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn heavy_work_leaves_the_serving_thread_and_a_panic_is_an_error() {
        let here = std::thread::current().id();
        let there = || async { Ok(std::thread::current().id()) };
        assert_eq!(planned(there(), false).await.unwrap(), here);
        assert_ne!(planned(there(), true).await.unwrap(), here);
        for heavy in [false, true] {
            let defect = async { if true { panic!("a defect") } else { Ok(()) } };
            assert_eq!(task(defect, heavy).await.unwrap_err().code(), "ATT-9001");
        }
        let defect = async { if true { panic!("a defect") } else { Ok(()) } };
        assert_eq!(super::here(defect).await.unwrap_err().code(), "ATT-9001");
    }
}
