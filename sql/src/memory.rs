//! Memory of one statement: a cap of its own, charged to the engine's shared pool as well.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};

/// A pool that refuses what passes the statement's cap and charges the rest to `shared`.
#[derive(Debug)]
pub struct StatementPool {
    shared: Arc<dyn MemoryPool>,
    used: AtomicUsize,
    peak: AtomicUsize,
    cap_bytes: usize,
}

impl StatementPool {
    /// A pool of at most `cap_bytes` within `shared`.
    pub fn new(shared: Arc<dyn MemoryPool>, cap_bytes: usize) -> Self {
        Self { shared, used: AtomicUsize::new(0), peak: AtomicUsize::new(0), cap_bytes }
    }

    /// The most that was taken at once, in bytes.
    pub fn peak_bytes(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    fn add(&self, additional: usize) {
        let before = self.used.fetch_add(additional, Ordering::Relaxed);
        self.peak.fetch_max(before.saturating_add(additional), Ordering::Relaxed);
    }
}

impl fmt::Display for StatementPool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "statement (used {} of {} bytes)", self.reserved(), self.cap_bytes)
    }
}

impl MemoryPool for StatementPool {
    fn name(&self) -> &str {
        "statement"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.shared.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.shared.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.shared.grow(reservation, additional);
        self.add(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.shared.shrink(reservation, shrink);
        self.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let wanted = self.used.load(Ordering::Relaxed).saturating_add(additional);
        if wanted > self.cap_bytes {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "the statement needs more than {} of memory",
                mebibytes(self.cap_bytes)
            )));
        }
        self.shared.try_grow(reservation, additional)?;
        self.add(additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.cap_bytes)
    }
}

/// A size as people write it.
pub fn mebibytes(bytes: usize) -> String {
    format!("{} MiB", bytes / (1024 * 1024))
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::GreedyMemoryPool;

    use super::*;

    #[test]
    fn a_statement_is_capped_and_the_shared_pool_is_charged() {
        let shared: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(100));
        let statement = Arc::new(StatementPool::new(Arc::clone(&shared), 60));
        let pool: Arc<dyn MemoryPool> = Arc::clone(&statement) as _;
        let reservation = MemoryConsumer::new("test").register(&pool);
        reservation.try_grow(50).unwrap();
        assert_eq!(shared.reserved(), 50);
        assert!(reservation.try_grow(20).is_err());
        drop(reservation);
        assert_eq!((pool.reserved(), shared.reserved()), (0, 0));
        assert_eq!(statement.peak_bytes(), 50);
    }
}
