//! `als_similar_items(m, item [, k])` and `ml_similar_items`: the nearest items.
//!
//! Near is the cosine of factors, the similarity of item neighbourhoods or the weight of EASE;
//! a popularity model knows none and answers with empty lists.
//!
//! The item itself is never in its list. NULL gives NULL; an item that is unknown, or that training
//! learned nothing about, is similar to nothing: an empty list.

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
    Rows, check_k, cut, is_constant, k_rows, list_type, lists, longest, model_error, rows,
};

/// The function `als_similar_items`.
#[user_doc(
    doc_section(label = "Recommendation Functions"),
    description = "The items most similar to an item under a matrix factorization as a list of \
(item, score), best first; the score is the cosine of their factors. The item itself is left out. \
NULL gives NULL; an unknown item gives an empty list.",
    syntax_example = "als_similar_items('model', item [, k])",
    sql_example = r#"```sql
> SELECT unnest(als_similar_items('main.shop', 'sku-7', 5));
```"#,
    argument(
        name = "model",
        description = "Name of a model, as a literal: 'shop', 'main.shop@3'."
    ),
    argument(name = "item", description = "Id of an item, of any type that casts to the model's."),
    argument(name = "k", description = "Length of the list, 1 to 10,000; 10 when left out.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct AlsSimilarItems {
    signature: Signature,
    models: Arc<ModelSet>,
}

/// The function `ml_similar_items`.
#[user_doc(
    doc_section(label = "Recommendation Functions"),
    description = "The items most similar to an item under any recommender as a list of (item, score), \
best first. The item itself is left out. NULL gives NULL; an unknown item gives an empty list.",
    syntax_example = "ml_similar_items('model', item [, k])",
    sql_example = r#"```sql
> SELECT unnest(ml_similar_items('main.shop', 'sku-7', 5));
```"#,
    argument(
        name = "model",
        description = "Name of a model, as a literal: 'shop', 'main.shop@3'."
    ),
    argument(name = "item", description = "Id of an item, of any type that casts to the model's."),
    argument(name = "k", description = "Length of the list, 1 to 10,000; 10 when left out.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct MlSimilarItems {
    signature: Signature,
    models: Arc<ModelSet>,
}

bound_function!(AlsSimilarItems, "als_similar_items", [2, 3], similar_type, similar);
bound_function!(MlSimilarItems, "ml_similar_items", [2, 3], similar_type, similar);

fn similar_type(function: &str, asked: &Asked<'_>, args: &ReturnFieldArgs) -> Result<DataType> {
    check_k(function, args, 2)?;
    Ok(list_type("item", asked.recommender.item_ids()))
}

fn similar(function: &str, asked: &Asked<'_>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let ids = rows(function, args, 1)?;
    let k = k_rows(function, args, 2, ids.len())?;
    let found = asked.recommender.item_ids().lookup(&ids).map_err(model_error)?;
    let nulls = ids.logical_nulls();
    let is_null = |row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
    let known: Vec<usize> = (0..ids.len()).filter(|&row| found[row].is_some()).collect();
    let codes: Vec<u32> = found.iter().copied().flatten().collect();
    let best = asked.recommender.similar_items(&codes, longest(&k));
    let mut answer: Rows = (0..ids.len())
        .map(|row| k[row].filter(|_| !is_null(row)).map(|_| (vec![], vec![])))
        .collect();
    for (row, best) in known.into_iter().zip(best) {
        answer[row] = k[row].map(|k| cut(best.codes, best.scores, k));
    }
    lists("item", asked.recommender.item_ids(), answer, is_constant(args))
}
