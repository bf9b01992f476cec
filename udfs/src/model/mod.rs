//! Learners on slices: no I/O, no async, no clock; seeds, pools and cancel flags are arguments.
//!
//! [`ids`] turns ids of any type into dense codes and back, [`sparse`] holds interactions, and
//! [`als`] learns factors from them, [`item_knn`] and [`ease`] weights between items. A finished
//! model ([`AlsModel`], [`ItemModel`], [`PopularityModel`], or a [`HybridModel`] of several) is a
//! [`Recommender`]. [`kmeans`], [`pca`], [`isolation_forest`], [`outlier`] and [`boosted`] learn
//! from rows of [`features`]; what they give is [`Prepared`]. [`entity_resolution`] finds out which
//! records are of one entity.

pub mod als;
mod als_model;
pub mod boosted;
mod cancel;
mod dense;
pub mod ease;
pub mod entity_resolution;
pub mod error;
pub mod evaluation;
mod explain;
mod feature_cells;
pub mod features;
pub mod foldin;
pub mod hybrid;
mod id_table;
pub mod ids;
pub mod isolation_forest;
pub mod item_knn;
mod item_model;
pub mod judge;
pub mod kernel;
pub mod kmeans;
pub mod metrics;
mod new_items;
pub mod outlier;
pub mod pca;
pub mod popularity;
mod popularity_model;
mod prepared;
pub mod random;
mod recommender;
pub mod rerank;
mod row_cosine;
mod scatter;
mod screen;
pub mod search;
pub mod sparse;
pub mod split;
pub mod topk;
mod trained;
mod without_users;

pub use self::als_model::{AlsModel, ModelParts};
pub use self::error::ModelError;
pub use self::evaluation::{Evaluation, Measured};
pub use self::explain::{Part, Reasons, Term};
pub use self::features::{Feature, FeatureKind, FeatureRows, GatheredRows, Preparation};
pub use self::foldin::UserVector;
pub use self::hybrid::HybridModel;
pub use self::ids::IdIndex;
pub use self::item_model::{Explanation, ItemModel, ItemParts, Similarity};
pub use self::popularity_model::{NO_SEGMENT, PopularityModel, PopularityParts, Segments};
pub use self::prepared::Prepared;
pub use self::recommender::{
    Basket, Choice, HeldOut, RecommendRequest, Recommender, Source, Whose,
};
pub use self::rerank::Rerank;
pub use self::row_cosine::RowCosines;
pub use self::sparse::{Csr, Duplicates, Triplets};
pub use self::split::holdout;
pub use self::topk::Best;
pub use self::trained::Model;
