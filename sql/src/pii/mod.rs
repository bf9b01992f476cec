//! Personal identifiers apart from behaviour: `CREATE EXTERNAL TABLE … WITH (pii = …)`.
//!
//! The files of a lake stay as they are. Whoever opens such a table, whatever its role, gets it
//! with pseudonyms in place of its identifiers ([`shown`]): no statement has a name for the rows as
//! the files have them. What a pseudonym stands for is in a second table, which an express grant
//! alone gives. That a table is kept so, and who ends it, is in [`change`].

pub(crate) mod change;
pub(crate) mod describe;
pub(crate) mod shown;
pub(crate) mod syntax;

pub(crate) use self::shown::{Reader, Shown, open, open_now};
