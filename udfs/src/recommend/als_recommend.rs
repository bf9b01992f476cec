//! `als_recommend(m, user [, k])`: the best items for each user.
//!
//! Items that the user had in training are left out. A batch of users is one tiled product. NULL
//! user, NULL list; an unknown user gets the most popular items, scored by their number of
//! interactions (a list has no room for a `source`; the table form `ml_recommend` names it).

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::Signature;
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_macros::user_doc;

use super::ModelSet;
use super::binding::{Asked, bound_function};
use super::lists::{
    Rows, check_k, cut, is_constant, k_rows, list_type, lists, longest, model_error, users,
};
use crate::model::RecommendRequest;

/// The function `als_recommend`.
#[user_doc(
    doc_section(label = "Recommendation Functions"),
    description = "The best items for a user as a list of (item, score), best first. Items that \
the user had in training are left out. A NULL user gives NULL; an unknown user gets the most \
popular items, whose score is their number of interactions: `ml_recommend` says which in its \
column `source`.",
    syntax_example = "als_recommend('model', user [, k])",
    sql_example = r#"```sql
> SELECT user_id, unnest(als_recommend('main.shop', user_id, 10)) FROM users;
```"#,
    argument(
        name = "model",
        description = "Name of a model, as a literal: 'shop', 'main.shop@3'."
    ),
    argument(name = "user", description = "User id, of any type that casts to the model's."),
    argument(name = "k", description = "Length of the list, 1 to 10,000; 10 when left out.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct AlsRecommend {
    signature: Signature,
    models: Arc<ModelSet>,
}

bound_function!(AlsRecommend, "als_recommend", [2, 3], recommend_type, recommend);

fn recommend_type(function: &str, asked: &Asked<'_>, args: &ReturnFieldArgs) -> Result<DataType> {
    check_k(function, args, 2)?;
    Ok(list_type("item", asked.recommender.item_ids()))
}

fn recommend(
    function: &str,
    asked: &Asked<'_>,
    args: &ScalarFunctionArgs,
) -> Result<ColumnarValue> {
    let users = users(function, asked, args, 1)?;
    let k = k_rows(function, args, 2, users.len())?;
    let codes = asked.recommender.user_ids().lookup(&users).map_err(model_error)?;
    let nulls = users.logical_nulls();
    let is_null = |row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
    let kept: Vec<usize> =
        (0..users.len()).filter(|&row| !is_null(row) && k[row].is_some()).collect();
    let codes: Vec<Option<u32>> = kept.iter().map(|&row| codes[row]).collect();
    let request =
        RecommendRequest { top_k: longest(&k), exclude_seen: true, include: None, exclude: None };
    let mut answer: Rows = vec![None; users.len()];
    for (&row, choice) in kept.iter().zip(asked.recommender.recommend(&codes, &request)) {
        answer[row] = k[row].map(|k| cut(choice.items, choice.scores, k));
    }
    lists("item", asked.recommender.item_ids(), answer, is_constant(args))
}
