//! The one integration test binary.

mod program;
mod s3;
mod slt;
mod tidy;
