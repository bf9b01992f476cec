//! PostgreSQL's protocol as clients see it: a server on a free port, and clients that call it.

mod catalog;
mod clients;
mod hostile;
mod protocol;
mod security;
pub mod support;
mod transactions;
