//! What an operator sees: the log, the metrics, the traces.

mod audit;
mod expectations;
pub mod log;
pub mod metrics;
pub mod traces;
