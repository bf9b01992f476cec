//! Flight SQL as clients see it: a server on a free port, and clients that call it.

mod access;
mod adbc;
mod jdbc;
mod lifecycle;
mod login;
mod metadata;
mod prepared;
mod session;
mod statements;
mod support;
