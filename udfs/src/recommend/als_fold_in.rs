//! `als_fold_in(m, items [, weights [, k]])` and `ml_fold_in`: recommendations for somebody whom
//! training did not see, from a list of interactions.
//!
//! A factorization answers with the factors that training would give a user with these
//! interactions, item-item weights with their sum over the items, popularity with what is popular;
//! the items of the list are left out of the answer. Without weights each item weighs 1; for
//! implicit feedback a negative weight says that the item is not wanted. Items that are NULL or
//! unknown are passed over, as are items with a NULL weight; with none left the answer is the most
//! popular items. A NULL list gives NULL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, ListArray, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type};
use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::Signature;
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_macros::user_doc;

use super::ModelSet;
use super::binding::{Asked, bound_function};
use super::lists::{
    Rows, check_k, cut, is_constant, k_rows, list_type, lists, longest, model_error, rows,
};
use crate::model::{Basket, RecommendRequest};

/// The function `als_fold_in`.
#[user_doc(
    doc_section(label = "Recommendation Functions"),
    description = "The best items for somebody whom training did not see, from a list of items \
and weights, as a list of (item, score), best first: the answer that training would give a user \
with these interactions, without a retrain. The given items are left out. Unknown items are \
passed over; with none left the most popular items are given. A NULL list gives NULL.",
    syntax_example = "als_fold_in('model', items [, weights [, k]])",
    sql_example = r#"```sql
> SELECT unnest(als_fold_in('main.shop', ['sku-7', 'sku-9'], [1.0, 3.0], 5));
```"#,
    argument(
        name = "model",
        description = "Name of a model, as a literal: 'shop', 'main.shop@3'."
    ),
    argument(name = "items", description = "List of item ids."),
    argument(
        name = "weights",
        description = "List of as many weights or ratings; 1 when left out."
    ),
    argument(name = "k", description = "Length of the list, 1 to 10,000; 10 when left out.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct AlsFoldIn {
    signature: Signature,
    models: Arc<ModelSet>,
}

/// The function `ml_fold_in`.
#[user_doc(
    doc_section(label = "Recommendation Functions"),
    description = "The best items for somebody whom training did not see, from a list of items \
and weights, under any recommender, as a list of (item, score), best first. The given items are \
left out. Unknown items are passed over; with none left the most popular items are given. A NULL \
list gives NULL.",
    syntax_example = "ml_fold_in('model', items [, weights [, k]])",
    sql_example = r#"```sql
> SELECT unnest(ml_fold_in('main.shop', ['sku-7', 'sku-9'], [1.0, 3.0], 5));
```"#,
    argument(
        name = "model",
        description = "Name of a model, as a literal: 'shop', 'main.shop@3'."
    ),
    argument(name = "items", description = "List of item ids."),
    argument(
        name = "weights",
        description = "List of as many weights or ratings; 1 when left out."
    ),
    argument(name = "k", description = "Length of the list, 1 to 10,000; 10 when left out.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct MlFoldIn {
    signature: Signature,
    models: Arc<ModelSet>,
}

bound_function!(AlsFoldIn, "als_fold_in", [2, 3, 4], fold_in_type, fold_in);
bound_function!(MlFoldIn, "ml_fold_in", [2, 3, 4], fold_in_type, fold_in);

fn fold_in_type(function: &str, asked: &Asked<'_>, args: &ReturnFieldArgs) -> Result<DataType> {
    for (index, what) in [(1, "items"), (2, "weights")] {
        if let Some(field) = args.arg_fields.get(index) {
            let data_type = field.data_type();
            if !is_list(data_type) && !data_type.is_null() {
                return plan_err!(
                    "{function} takes {what} as a list such as [1, 2], not as {data_type}"
                );
            }
        }
    }
    check_k(function, args, 3)?;
    Ok(list_type("item", asked.recommender.item_ids()))
}

fn is_list(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(..)
            | DataType::ListView(_)
            | DataType::LargeListView(_)
    )
}

/// Any kind of list as a plain list; NULL stays NULL.
fn plain_list(array: &ArrayRef, element: Option<&DataType>) -> Result<ListArray> {
    let element = match (element, array.data_type()) {
        (Some(element), _) => element.clone(),
        (
            None,
            DataType::List(field)
            | DataType::LargeList(field)
            | DataType::FixedSizeList(field, _)
            | DataType::ListView(field)
            | DataType::LargeListView(field),
        ) => field.data_type().clone(),
        (None, other) => other.clone(),
    };
    let list = DataType::List(Arc::new(Field::new_list_field(element, true)));
    Ok(cast(array, &list)?.as_list::<i32>().clone())
}

fn fold_in(function: &str, asked: &Asked<'_>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let items = plain_list(&rows(function, args, 1)?, None)?;
    let weights = match args.args.len() {
        0..=2 => None,
        _ => Some(plain_list(&rows(function, args, 2)?, Some(&DataType::Float32))?),
    };
    let k = k_rows(function, args, 3, items.len())?;
    let mut kept = vec![];
    let mut baskets: Vec<Basket> = vec![];
    for (row, k) in k.iter().enumerate() {
        let no_weights = weights.as_ref().is_some_and(|weights| weights.is_null(row));
        if items.is_null(row) || no_weights || k.is_none() {
            continue;
        }
        let weights = weights.as_ref().map(|weights| weights.value(row));
        baskets.push(interactions(function, asked, &items.value(row), weights)?);
        kept.push(row);
    }
    let request =
        RecommendRequest { top_k: longest(&k), exclude_seen: true, include: None, exclude: None };
    let choices = asked.recommender.recommend_baskets(&baskets, &request).map_err(model_error)?;
    let mut answer: Rows = vec![None; items.len()];
    for (row, choice) in kept.into_iter().zip(choices) {
        answer[row] = k[row].map(|k| cut(choice.items, choice.scores, k));
    }
    lists("item", asked.recommender.item_ids(), answer, is_constant(args))
}

/// Codes and weights of a row's known items.
fn interactions(
    function: &str,
    asked: &Asked<'_>,
    items: &ArrayRef,
    weights: Option<ArrayRef>,
) -> Result<Basket> {
    let weights = match &weights {
        Some(weights) => weights.as_primitive::<Float32Type>().clone(),
        None => Float32Array::from(vec![1.0; items.len()]),
    };
    if weights.len() != items.len() {
        return exec_err!(
            "{function} got {} items and {} weights: give one weight for each item",
            items.len(),
            weights.len()
        );
    }
    let codes: UInt32Array =
        asked.recommender.item_ids().lookup(items).map_err(model_error)?.into_iter().collect();
    let known = codes.iter().zip(weights.iter()).filter_map(|(code, weight)| code.zip(weight));
    let (items, weights) = known.unzip();
    Ok(Basket { user: None, items, weights })
}
