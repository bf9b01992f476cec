//! `als_similar_users(m, user [, k])` and `ml_similar_users`: the nearest users.
//!
//! Near is the cosine of factors, or, for a model without factors, the cosine of interactions.
//!
//! The user itself is never in its list. NULL gives NULL; a user that is unknown, or that training
//! learned nothing about, is similar to nothing: an empty list.

use std::sync::Arc;

use arrow::array::{Array, UInt32Array};
use arrow::compute::take;
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
use crate::consent::consenting;

/// The function `als_similar_users`.
#[user_doc(
    doc_section(label = "Recommendation Functions"),
    description = "The users most similar to a user under a matrix factorization as a list of \
(user, score), best first; the score is the cosine of their factors. The user itself is left out. \
NULL gives NULL; an unknown user gives an empty list.",
    syntax_example = "als_similar_users('model', user [, k])",
    sql_example = r#"```sql
> SELECT unnest(als_similar_users('main.shop', 'user-42', 5));
```"#,
    argument(
        name = "model",
        description = "Name of a model, as a literal: 'shop', 'main.shop@3'."
    ),
    argument(name = "user", description = "Id of a user, of any type that casts to the model's."),
    argument(name = "k", description = "Length of the list, 1 to 10,000; 10 when left out.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct AlsSimilarUsers {
    signature: Signature,
    models: Arc<ModelSet>,
}

/// The function `ml_similar_users`.
#[user_doc(
    doc_section(label = "Recommendation Functions"),
    description = "The users most similar to a user under any recommender as a list of (user, score), \
best first. The user itself is left out. NULL gives NULL; an unknown user gives an empty list.",
    syntax_example = "ml_similar_users('model', user [, k])",
    sql_example = r#"```sql
> SELECT unnest(ml_similar_users('main.shop', 'user-42', 5));
```"#,
    argument(
        name = "model",
        description = "Name of a model, as a literal: 'shop', 'main.shop@3'."
    ),
    argument(name = "user", description = "Id of a user, of any type that casts to the model's."),
    argument(name = "k", description = "Length of the list, 1 to 10,000; 10 when left out.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct MlSimilarUsers {
    signature: Signature,
    models: Arc<ModelSet>,
}

bound_function!(AlsSimilarUsers, "als_similar_users", [2, 3], similar_type, similar);
bound_function!(MlSimilarUsers, "ml_similar_users", [2, 3], similar_type, similar);

fn similar_type(function: &str, asked: &Asked<'_>, args: &ReturnFieldArgs) -> Result<DataType> {
    check_k(function, args, 2)?;
    Ok(list_type("user", asked.recommender.user_ids()))
}

fn similar(function: &str, asked: &Asked<'_>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let ids = users(function, asked, args, 1)?;
    let k = k_rows(function, args, 2, ids.len())?;
    let found = asked.recommender.user_ids().lookup(&ids).map_err(model_error)?;
    let nulls = ids.logical_nulls();
    let is_null = |row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
    let known: Vec<usize> = (0..ids.len()).filter(|&row| found[row].is_some()).collect();
    let codes: Vec<u32> = found.iter().copied().flatten().collect();
    let best = asked.model.similar_users(&codes, longest(&k));
    let mut answer: Rows = (0..ids.len())
        .map(|row| k[row].filter(|_| !is_null(row)).map(|_| (vec![], vec![])))
        .collect();
    for (row, best) in known.into_iter().zip(best) {
        let (codes, scores) = of_consenting(asked, best.codes, best.scores)?;
        answer[row] = k[row].map(|k| cut(codes, scores, k));
    }
    lists("user", asked.recommender.user_ids(), answer, is_constant(args))
}

/// Those of the users who consent to being named.
fn of_consenting(
    asked: &Asked<'_>,
    codes: Vec<u32>,
    scores: Vec<f32>,
) -> Result<(Vec<u32>, Vec<f32>)> {
    if asked.consents.is_empty() {
        return Ok((codes, scores));
    }
    let ids = asked.recommender.user_ids().values();
    let ids = take(&ids, &UInt32Array::from(codes.clone()), None)?;
    let kept = consenting(asked.consents, &ids)?;
    let found = codes.into_iter().zip(scores).zip(&kept);
    Ok(found.filter(|(_, kept)| *kept == Some(true)).map(|(found, _)| found).unzip())
}
