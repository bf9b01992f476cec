//! The one integration test binary.

mod flight;
mod program;
mod s3;
mod slt;
mod tidy;
