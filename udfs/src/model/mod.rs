//! Learners on slices: no I/O, no async, no clock; seeds, pools and cancel flags are arguments.
//!
//! [`ids`] turns ids of any type into dense codes and back, [`sparse`] holds interactions, and
//! [`als`] learns factors from them. [`AlsModel`] is the finished recommender.

pub mod als;
pub mod error;
pub mod kernel;
pub mod sparse;

pub use self::error::ModelError;
