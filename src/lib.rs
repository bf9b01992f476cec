//! Attune: who asks and how. The library of the `attune` program.

pub mod auth;
pub mod error;
pub mod server;
