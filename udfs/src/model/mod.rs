//! Learners on slices: no I/O, no async, no clock; seeds, pools and cancel flags are arguments.
//!
//! [`ids`] turns ids of any type into dense codes and back, [`sparse`] holds interactions, and
//! [`als`] learns factors from them. [`AlsModel`] is the finished recommender.

pub mod als;
mod als_model;
pub mod error;
pub mod foldin;
mod id_table;
pub mod ids;
pub mod kernel;
pub mod metrics;
pub mod popularity;
pub mod search;
pub mod sparse;
pub mod split;
pub mod topk;

pub use self::als_model::{AlsModel, Choice, ModelParts, RecommendRequest, Source};
pub use self::error::ModelError;
pub use self::foldin::UserVector;
pub use self::ids::IdIndex;
pub use self::metrics::MetricValue;
pub use self::sparse::{Csr, Duplicates, Triplets};
pub use self::split::holdout;
pub use self::topk::Best;
