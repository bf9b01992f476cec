//! The integration tests: one binary.

mod flight;
