//! Flight SQL as clients see it: a server on a free port, and clients that call it.

mod access;
mod api_tokens;
mod certificates;
pub mod explosions;
mod guessing;
pub mod hostile;
mod idle;
mod ingest;
mod lifecycle;
mod login;
mod metadata;
mod operations;
mod parts;
mod poll;
mod prepared;
mod provider;
mod pulse;
mod session;
mod session_tokens;
mod statements;
pub mod support;

pub use support::{certificate, endless, fetch, status, twin};
