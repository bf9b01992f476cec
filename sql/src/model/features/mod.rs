//! Models of rows of features: every column of the training query is a feature, unless an option
//! gives it another part.
//!
//! [`options`] says what can be learned, [`columns`] which column is what, [`fit`] trains, and
//! [`tables`] and [`evaluate`] tell what was learned and what it is worth. How columns become
//! numbers is [`udfs::model::features`].

pub mod columns;
mod components;
mod division;
pub mod evaluate;
pub mod fit;
pub mod options;
pub mod predict;
pub mod tables;
mod trees;

pub use columns::FeatureColumns;
pub use options::FeatureLearner;

use catalog::models::LoadedModel;
use udfs::model::Preparation;

use crate::error::{Error, Result};

/// How a model's rows of features become numbers.
///
/// # Errors
/// When the model is a recommender.
pub fn preparation(model: &LoadedModel) -> Result<&Preparation> {
    model.model.preparation().ok_or_else(|| {
        Error::Internal(format!("{model} is a recommender and was asked for its features"))
    })
}
