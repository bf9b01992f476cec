//! Models of entities: which records are of one customer.
//!
//! [`options`] says what can be asked for, [`columns`] which column is what, [`rules`] what of a
//! query's rows brings records together, [`fit`] trains,
//! [`evaluate`] measures against a truth, and [`tables`] tell what was found: pairs, entities,
//! weights, rules and what became of entities. [`pairs`] finds a place for scored pairs.
//! How records are compared is [`udfs::model::entity_resolution`].

pub mod columns;
pub mod evaluate;
pub mod fit;
pub mod options;
pub mod pairs;
pub mod rules;
pub mod tables;

pub use columns::EntityColumns;
pub use options::EntityLearner;
