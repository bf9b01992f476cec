//! The one integration test binary.

mod cli;
mod flight;
mod program;
mod s3;
mod slt;
mod tidy;
