//! The one integration test binary.

mod slt;
mod tidy;
