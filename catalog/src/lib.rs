//! What exists and where: stores, lake tables, definitions, models, keys, users.
//!
//! Architecture invariant: the only crate that touches storage; no SQL text is parsed here and no
//! socket is opened but a store's.

pub mod error;
pub mod lake;
pub mod local;
pub mod policy;
pub mod store;

pub use error::{Class, Error, Result};
