//! Recommendation: what will they like.
//!
//! Scalar functions over trained recommenders: scores of pairs, lists of items for users, similar
//! items and users, and lists for people whom training did not see. Each `als_*` function has an
//! `ml_*` twin for recommenders of any type; the table functions `ml_recommend` and
//! `ML.RECOMMEND` live in crate `sql`.
//!
//! Models are *bound values*: the SQL layer finds the names that a statement uses with
//! [`model_argument`], loads them, and registers the instances from [`bound_functions`] for that
//! one statement. A model must be a literal, because the type of a list depends on it. Batches
//! run on the current rayon pool.

use std::sync::Arc;

use datafusion_expr::ScalarUDF;

pub mod als_fold_in;
pub mod als_recommend;
pub mod als_score;
pub mod als_similar_items;
pub mod als_similar_users;
mod binding;
mod lists;
pub mod ml_predict;
pub mod ml_reasons;

pub use self::binding::{BoundModel, ModelSet, model_argument};

/// Names of the functions that take a model first.
const NAMES: [&str; 10] = [
    "als_score",
    "ml_score",
    "als_recommend",
    "als_similar_items",
    "ml_similar_items",
    "als_similar_users",
    "ml_similar_users",
    "als_fold_in",
    "ml_fold_in",
    "ml_reasons",
];

/// The package's functions with the models of one statement; with an empty set they can be listed
/// and documented, not planned.
pub fn bound_functions(models: Arc<ModelSet>) -> Vec<Arc<ScalarUDF>> {
    let models = || Arc::clone(&models);
    let functions = [
        ScalarUDF::from(als_score::AlsScore::new(models())),
        ScalarUDF::from(als_score::MlScore::new(models())),
        ScalarUDF::from(als_recommend::AlsRecommend::new(models())),
        ScalarUDF::from(als_similar_items::AlsSimilarItems::new(models())),
        ScalarUDF::from(als_similar_items::MlSimilarItems::new(models())),
        ScalarUDF::from(als_similar_users::AlsSimilarUsers::new(models())),
        ScalarUDF::from(als_similar_users::MlSimilarUsers::new(models())),
        ScalarUDF::from(als_fold_in::AlsFoldIn::new(models())),
        ScalarUDF::from(als_fold_in::MlFoldIn::new(models())),
        ScalarUDF::from(ml_reasons::MlReasons::new(models())),
    ];
    functions.into_iter().map(Arc::new).collect()
}

#[cfg(test)]
mod tests;
