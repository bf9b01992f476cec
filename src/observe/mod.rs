//! What an operator sees: the log, the metrics, the traces.

mod audit;
pub mod log;
pub mod metrics;
pub mod traces;
