//! Attune, the SQL personalization engine: files in a data lake are tables, and SQL answers who
//! somebody is, what may be known of them, what they will like, and whether it helped.
//!
//! This crate is the program: it listens, prints, reads arguments, environment and clock. What a
//! statement means is decided in `sql`, what exists in `catalog`, how to compute in `udfs`.
//!
//! Architecture invariant: nothing here parses SQL or builds plans, and no other crate prints,
//! listens, or reads arguments and environment.

pub mod auth;
pub mod cli;
pub mod config;
pub mod engine;
pub mod error;
pub mod observe;
pub mod server;

pub use error::{Error, Result};
