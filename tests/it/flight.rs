//! Flight SQL as clients see it: a server on a free port, and clients that call it.

mod adbc;
mod ingest;
mod jdbc;
mod lifecycle;
mod login;
mod metadata;
mod poll;
mod prepared;
mod session;
mod statements;
mod support;
