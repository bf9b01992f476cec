//! What an operator sees: the log, the metrics, the traces.

pub mod log;
pub mod metrics;
pub mod traces;
