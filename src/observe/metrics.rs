//! Metrics of the process, in Prometheus' text format.
//!
//! Names follow its conventions: prefix `attune_`, base units, `_total` for what only grows. No
//! label names a user or a text, nor a table, unless the configuration wants tables with
//! expectations named. docs/operations.md lists them all.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use catalog::Class;
use catalog::checks::{CHECK, CheckStatus, KINDS, LOAD, LastCheck};
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use sql::{Engine, QueryRecord, State};

use super::audit::AuditMetrics;
use super::expectations::ExpectationMetrics;

/// The media type of [`Metrics::render`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds: from a look-up by key to a long training.
const SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0];

type ByState = [(&'static str, &'static str); 1];
type ByError = [(&'static str, &'static str); 2];
type ByCheck = [(&'static str, String); 3];
type Bytes = Gauge<u64, AtomicU64>;

/// The metrics of one engine.
pub struct Metrics {
    engine: Engine,
    registry: Registry,
    ended: Arc<Ended>,
    sessions: Bytes,
    running: Bytes,
    queued: Bytes,
    memory: Bytes,
    spill: Bytes,
    model_cache: Bytes,
    resident: Bytes,
    expectations: ExpectationMetrics,
    /// What checks last gave, once the warehouse has told.
    checked: Mutex<Option<Vec<LastCheck>>>,
    audit: AuditMetrics,
}

/// What is counted when a statement ends.
struct Ended {
    statements: Family<ByState, Counter>,
    errors: Family<ByError, Counter>,
    rows: Counter,
    bytes: Counter,
    seconds: Histogram,
    queue_seconds: Histogram,
}

impl Metrics {
    /// Counts what `engine` does from now on, and names tables and expectations where `are_named`.
    pub fn new(engine: Engine, are_named: bool) -> Self {
        let ended = Arc::new(Ended {
            statements: Family::default(),
            errors: Family::default(),
            rows: Counter::default(),
            bytes: Counter::default(),
            seconds: Histogram::new(SECONDS),
            queue_seconds: Histogram::new(SECONDS),
        });
        for state in [State::Finished, State::Failed, State::Cancelled] {
            // A state that has not been seen is 0, not missing.
            drop(ended.statements.get_or_create(&[("state", state.name())]));
        }
        let observer = Arc::clone(&ended);
        engine.queries().observe(Box::new(move |record| observer.count(record)));
        let checks = Family::<ByCheck, Counter>::default();
        for kind in KINDS {
            for status in CheckStatus::ALL {
                for origin in [CHECK, LOAD] {
                    drop(checks.get_or_create(&check_labels(kind, status, origin)));
                }
            }
        }
        let counter = checks.clone();
        engine.checks().observe(Box::new(move |result, origin| {
            counter.get_or_create(&check_labels(&result.kind, result.status, origin)).inc();
        }));
        let mut metrics = Self {
            engine,
            registry: Registry::with_prefix("attune"),
            ended,
            sessions: Gauge::default(),
            running: Gauge::default(),
            queued: Gauge::default(),
            memory: Gauge::default(),
            spill: Gauge::default(),
            model_cache: Gauge::default(),
            resident: Gauge::default(),
            expectations: ExpectationMetrics::new(are_named),
            checked: Mutex::default(),
            audit: AuditMetrics::default(),
        };
        metrics.register();
        metrics.audit.register(&mut metrics.registry);
        metrics.registry.register("checks", "Checks of expectations", checks);
        metrics.expectations.register(&mut metrics.registry);
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program", build);
        let ended = &self.ended;
        registry.register("statements", "Statements that ended", ended.statements.clone());
        registry.register("statement_errors", "Statements that failed", ended.errors.clone());
        registry.register("rows", "Rows sent or changed", ended.rows.clone());
        registry.register("result_bytes", "Bytes of the rows sent", ended.bytes.clone());
        let help = "Time from a statement's slot to its last row";
        registry.register("statement_seconds", help, ended.seconds.clone());
        let help = "Time that statements waited for a slot";
        registry.register("queue_seconds", help, ended.queue_seconds.clone());
        for (name, help, gauge) in [
            ("sessions", "Sessions that are open", &self.sessions),
            ("statements_running", "Statements that run", &self.running),
            ("statements_queued", "Statements that wait for a slot", &self.queued),
            ("memory_used_bytes", "Memory that statements have reserved", &self.memory),
            ("spill_used_bytes", "Disk that spilled rows take", &self.spill),
            ("model_cache_used_bytes", "Memory that loaded models take", &self.model_cache),
            ("resident_memory_bytes", "Memory of the process", &self.resident),
        ] {
            registry.register(name, help, gauge.clone());
        }
        let limits = self.engine.limits();
        let slots = self.engine.admission().slots().unwrap_or(0) as u64;
        for (name, help, most) in [
            ("statements_limit", "Statements that may run at once; 0 for any number", slots),
            (
                "memory_limit_bytes",
                "Memory that statements may reserve",
                limits.memory_bytes as u64,
            ),
            ("spill_limit_bytes", "Disk that spilled rows may take", limits.spill_bytes),
        ] {
            let gauge = Bytes::default();
            gauge.set(most);
            registry.register(name, help, gauge);
        }
    }

    /// Learns from the warehouse what checks last gave; where it does not tell, that stays as it
    /// was.
    pub async fn refresh(&self) {
        match self.engine.catalog().last_checks().await {
            Ok(last) => *self.checked.lock() = Some(last),
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "what checks gave cannot be read");
            }
        }
    }

    /// The metrics of this moment, with what checks gave when that was last refreshed.
    ///
    /// # Errors
    /// When a metric has no text, which is a defect.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let usage = self.engine.usage();
        let (queued, running) = self.engine.queries().current();
        self.sessions.set(usage.sessions as u64);
        self.running.set(running as u64);
        self.queued.set(queued as u64);
        self.memory.set(usage.memory_bytes as u64);
        self.spill.set(usage.spill_bytes);
        self.model_cache.set(usage.model_cache_bytes as u64);
        self.resident.set(resident_bytes().unwrap_or(0));
        self.audit.update(self.engine.catalog().audit());
        // Held until all is written, so that no series is missing while another brings them up.
        let checked = self.checked.lock();
        if let Some(last) = checked.as_ref() {
            self.expectations.update(last);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Ended {
    fn count(&self, record: &QueryRecord) {
        self.statements.get_or_create(&[("state", record.state.name())]).inc();
        if let (Some(class), Some(code)) = (record.error_class, record.error_code) {
            self.errors.get_or_create(&[("class", class_name(class)), ("code", code)]).inc();
        }
        self.rows.inc_by(record.rows);
        self.bytes.inc_by(record.bytes);
        self.queue_seconds.observe(seconds(record.queued_ms));
        if let Some(run_ms) = record.run_ms {
            self.seconds.observe(seconds(run_ms));
        }
    }
}

fn check_labels(kind: &str, status: CheckStatus, origin: &str) -> ByCheck {
    [("kind", kind.into()), ("status", status.name().into()), ("origin", origin.into())]
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

fn class_name(class: Class) -> &'static str {
    match class {
        Class::Syntax => "syntax",
        Class::Invalid => "invalid",
        Class::NotFound => "not_found",
        Class::AlreadyExists => "already_exists",
        Class::Denied => "denied",
        Class::Unsupported => "unsupported",
        Class::Unavailable => "unavailable",
        Class::Exhausted => "exhausted",
        Class::Cancelled => "cancelled",
        Class::TimedOut => "timed_out",
        Class::Conflict => "conflict",
        Class::Corrupt => "corrupt",
        Class::Internal => "internal",
    }
}

/// The process's resident memory, where the operating system tells it.
fn resident_bytes() -> Option<u64> {
    const PAGE_BYTES: u64 = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * PAGE_BYTES)
}
