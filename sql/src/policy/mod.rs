//! Policies: what of a table somebody sees, decided when the table is opened.

pub(crate) mod barrier;
