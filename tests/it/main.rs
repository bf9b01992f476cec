//! The one integration test binary.

mod cli;
mod program;
mod s3;
mod slt;
mod tidy;
