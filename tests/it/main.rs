//! The one integration test binary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::result_large_err,
    reason = "a test that cannot go on fails"
)]

mod anonymize;
mod audit;
mod bypass;
mod checks;
mod cli;
mod clients;
mod consent;
mod dml_policies;
mod docs;
mod erasure_races;
mod flight;
mod forgotten;
mod fuzzy_join;
mod holds;
mod http;
mod keys;
mod killed;
mod lake_delta_erasure;
mod lake_erasure;
mod load;
mod logs;
mod long_texts;
mod pg;
mod pii;
mod policies;
mod prepared;
mod private;
mod private_audit;
mod program;
mod pushed_filters;
mod recipes;
mod remnants;
mod retention;
mod rights;
mod s3;
mod schedule;
mod shared_budget;
mod slt;
mod subjects;
mod tidy;
mod traces;
mod training;
mod unlearning;
mod versioning;
