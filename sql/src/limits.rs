//! The limits of one statement: the configuration's, and the session's where those are stricter.

use std::time::Duration;

use crate::engine::Limits;
use crate::session::Settings;

/// What one statement may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatementLimits {
    pub(crate) timeout: Option<Duration>,
    pub(crate) rows_max: Option<u64>,
    pub(crate) memory_bytes: usize,
    pub(crate) result_bytes_max: Option<u64>,
    pub(crate) reader_idle: Option<Duration>,
}

impl StatementLimits {
    /// The stricter of what the configuration and the session say.
    pub(crate) fn new(limits: &Limits, settings: &Settings) -> Self {
        let query_memory = settings.query_memory.map(usize::try_from);
        let query_memory = query_memory.and_then(Result::ok).unwrap_or(usize::MAX);
        Self {
            timeout: stricter(limits.query_timeout, settings.statement_timeout),
            rows_max: stricter(limits.rows_max, settings.rows_max),
            memory_bytes: limits.query_memory_bytes.min(query_memory),
            result_bytes_max: limits.result_bytes_max,
            reader_idle: limits.reader_idle,
        }
    }
}

fn stricter<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
