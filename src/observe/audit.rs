//! Metrics of the record: entries written, waiting and lost, and commits that failed.

use std::sync::atomic::AtomicU64;

use catalog::Audit;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of the record.
#[derive(Default)]
pub(super) struct AuditMetrics {
    entries: Counter,
    lost: Counter,
    failures: Counter,
    waiting: Gauge<u64, AtomicU64>,
    failing: Gauge<u64, AtomicU64>,
    /// Held while counters catch up with what they count.
    turn: Mutex<()>,
}

impl AuditMetrics {
    /// Makes them known.
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Entries of the record that were written";
        registry.register("audit_entries", help, self.entries.clone());
        let help = "Entries of the record that were lost because its queue was full";
        registry.register("audit_entries_lost", help, self.lost.clone());
        let help = "Times that the record could not be written";
        registry.register("audit_failures", help, self.failures.clone());
        let help = "Entries of the record that wait to be written";
        registry.register("audit_entries_waiting", help, self.waiting.clone());
        let help = "Whether the record cannot be written now";
        registry.register("audit_failing", help, self.failing.clone());
    }

    /// Brings them up to this moment.
    pub(super) fn update(&self, audit: &Audit) {
        let _turn = self.turn.lock();
        let stats = audit.stats();
        for (counter, count) in [
            (&self.entries, stats.kept),
            (&self.lost, stats.lost),
            (&self.failures, stats.failures),
        ] {
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        self.waiting.set(stats.waiting);
        self.failing.set(u64::from(audit.failing().is_some()));
    }
}
