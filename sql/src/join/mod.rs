//! Fuzzy joins: `a JOIN b ON levenshtein_within(a.x, b.x, 2)` without the cross product.
//!
//! [`rule::FuzzyJoin`] finds joins whose condition holds a predicate that an
//! [index of texts](udfs::fuzzy::index) can answer and puts [`exec::FuzzyJoinExec`] in the place of
//! DataFusion's nested-loop or hash join. The operator gives exactly the rows of the join that it
//! replaces. [`nearest`] finds for each row the rows closest.

pub(crate) mod apart;
mod build;
mod exec;
mod nearest;
pub(crate) mod not_in;
mod output;
mod predicate;
mod probe;
mod remembered;
mod rule;
#[cfg(test)]
mod tests;
mod weight;

pub(crate) use nearest::{NearestNode, NearestRelation, documentation};
pub(crate) use not_in::CorrelatedNotIn;
pub(crate) use rule::FuzzyJoin;
