//! Whose rows are there for a purpose: the kernel of consent.
//!
//! A [`ConsentSet`] holds the exceptions to a policy's default alone: with opt-out those who
//! withdrew, with opt-in those who consented. A column of persons becomes a mask, batch by batch;
//! where no exception can be among a batch's persons, none is looked up. A person that is NULL
//! never consents.

mod function;
mod integers;
mod set;
mod texts;

pub use function::{Consents, consenting, only_consenting};
pub use set::{ConsentSet, Mask, SubjectKind};
