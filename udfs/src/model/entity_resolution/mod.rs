//! Entity resolution: which records are of one entity (Fellegi and Sunter 1969), without labels or
//! with some.
//!
//! [`column`] brings values into one spelling, [`kind`] finds out what they are and
//! [`placeholders`] which of them are nobody's; [`suggest`] chooses [`blocking`] rules, [`compare`]
//! gives two records a level a column, [`learn`] finds how much each level tells ([`em`]),
//! [`score`] weighs pairs by it and [`cluster`] makes entities; [`labels`] are what people say of
//! pairs and [`measure`] is what the answer is worth.
//! [`pairs`] are in memory or on disk, [`sorted`] puts them in order.
//! [`gather`] reads rows, [`train`] goes from them to a [`model`] and from version to version.
//! The answer depends on the records and the seed, not on their order or on threads: records come
//! in the order of their ids.

pub mod address;
pub mod blocking;
pub mod cluster;
pub mod column;
pub mod compare;
mod dates;
pub mod dependence;
pub mod em;
pub mod gather;
pub mod key;
pub mod kind;
pub mod labels;
pub mod learn;
mod learner;
pub mod measure;
pub mod model;
pub mod pairs;
pub mod placeholders;
pub mod records;
mod room;
pub mod score;
pub mod sorted;
pub mod suggest;
mod tails;
mod tokens;
pub mod train;
pub mod values;

#[cfg(test)]
mod tests;
