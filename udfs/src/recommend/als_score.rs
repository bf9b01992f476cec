//! `als_score(m, user, item)` and `ml_score`: the score of a pair.
//!
//! xᵤ·yᵢ for implicit feedback, the predicted rating μ + bᵤ + bᵢ + xᵤ·yᵢ for explicit: the very
//! number that `als_recommend` gives the pair. NULL when user or item is NULL or unknown.

use std::sync::Arc;

use arrow::array::Float32Array;
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_expr::Signature;
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_macros::user_doc;

use super::ModelSet;
use super::binding::{Asked, bound_function};
use super::lists::{is_constant, model_error, rows, users, value};

/// The function `als_score`.
#[user_doc(
    doc_section(label = "Recommendation Functions"),
    description = "Score of a user and an item under a matrix factorization: preference for \
implicit feedback (about 0 to 1), predicted rating for explicit. NULL when user or item is NULL \
or unknown to the model.",
    syntax_example = "als_score('model', user, item)",
    sql_example = r#"```sql
> SELECT als_score('main.shop', 'user-42', 'sku-7') > 0.5 AS likes;
```"#,
    argument(
        name = "model",
        description = "Name of a model, as a literal: 'shop', 'main.shop@3'."
    ),
    argument(name = "user", description = "User id, of any type that casts to the model's."),
    argument(name = "item", description = "Item id, likewise.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct AlsScore {
    signature: Signature,
    models: Arc<ModelSet>,
}

/// The function `ml_score`.
#[user_doc(
    doc_section(label = "Recommendation Functions"),
    description = "Score of a user and an item under any recommender. NULL when user or item is \
NULL or unknown to the model.",
    syntax_example = "ml_score('model', user, item)",
    sql_example = r#"```sql
> SELECT ml_score('main.shop', 'user-42', 'sku-7') > 0.5 AS likes;
```"#,
    argument(
        name = "model",
        description = "Name of a model, as a literal: 'shop', 'main.shop@3'."
    ),
    argument(name = "user", description = "User id, of any type that casts to the model's."),
    argument(name = "item", description = "Item id, likewise.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct MlScore {
    signature: Signature,
    models: Arc<ModelSet>,
}

bound_function!(AlsScore, "als_score", [3], score_type, score);
bound_function!(MlScore, "ml_score", [3], score_type, score);

fn score_type(_: &str, _: &Asked<'_>, _: &ReturnFieldArgs) -> Result<DataType> {
    Ok(DataType::Float32)
}

fn score(function: &str, asked: &Asked<'_>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let users = users(function, asked, args, 1)?;
    let users = asked.recommender.user_ids().lookup(&users).map_err(model_error)?;
    let items =
        asked.recommender.item_ids().lookup(&rows(function, args, 2)?).map_err(model_error)?;
    let pairs = users.into_iter().zip(items);
    let scores: Float32Array = pairs
        .map(|(user, item)| user.zip(item).and_then(|(u, i)| asked.recommender.score(u, i)))
        .collect();
    value(Arc::new(scores), is_constant(args))
}
