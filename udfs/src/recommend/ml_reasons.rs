//! `ml_reasons(m, user, item)`: what made the score of a pair, as a list.
//!
//! An entry is a struct of `term` (interaction, mean, user_bias, item_bias, popularity or a
//! signal's name), `because_item` (of an interaction), `weight`, `contribution` and `share`, the
//! largest contribution first; contributions add up to the score and shares to 1. A
//! factorization is explained by the equations of fold-in (see [`crate::model::Reasons`]). NULL
//! when user or item is NULL or unknown. `ML.EXPLAIN` unfolds the list into rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float32Array, Float64Array, ListArray, StringArray, StructArray, UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion_common::Result;
use datafusion_expr::Signature;
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs};
use datafusion_macros::user_doc;

use super::ModelSet;
use super::binding::{Asked, bound_function};
use super::lists::{is_constant, model_error, rows, users, value};
use crate::model::{Part, Reasons, Recommender, Term};

/// The function `ml_reasons`.
#[user_doc(
    doc_section(label = "Recommendation Functions"),
    description = "What made the score of a user and an item under any recommender, as a list of \
(term, because_item, weight, contribution, share), the largest contribution first. The term is \
`interaction` (with the item in because_item), `mean`, `user_bias`, `item_bias`, `popularity` or, \
of a blend's signal, `signal` and its name. \
Contributions add up to the score and shares to 1; for a factorization it is the score that \
`ml_fold_in` would give the user's own interactions. NULL when user or item is NULL or unknown. \
`ML.EXPLAIN` gives the same as rows.",
    syntax_example = "ml_reasons('model', user, item)",
    sql_example = r#"```sql
> SELECT unnest(ml_reasons('main.shop', 'user-42', 'sku-7'));
```"#,
    argument(
        name = "model",
        description = "Name of a model, as a literal: 'shop', 'main.shop@3'."
    ),
    argument(name = "user", description = "User id, of any type that casts to the model's."),
    argument(name = "item", description = "Item id, likewise.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct MlReasons {
    signature: Signature,
    models: Arc<ModelSet>,
}

bound_function!(MlReasons, "ml_reasons", [3], reasons_type, reasons);

fn reasons_type(_: &str, asked: &Asked<'_>, _: &ReturnFieldArgs) -> Result<DataType> {
    let entry = DataType::Struct(fields(asked.recommender));
    Ok(DataType::List(Arc::new(Field::new_list_field(entry, true))))
}

fn fields(recommender: &dyn Recommender) -> Fields {
    Fields::from(vec![
        Field::new("term", DataType::Utf8, true),
        Field::new("because_item", recommender.item_ids().data_type().clone(), true),
        Field::new("weight", DataType::Float32, true),
        Field::new("contribution", DataType::Float64, true),
        Field::new("share", DataType::Float64, true),
    ])
}

fn reasons(function: &str, asked: &Asked<'_>, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let recommender = asked.recommender;
    let users = users(function, asked, args, 1)?;
    let users = recommender.user_ids().lookup(&users).map_err(model_error)?;
    let items = recommender.item_ids().lookup(&rows(function, args, 2)?).map_err(model_error)?;
    let pairs = users.into_iter().zip(items);
    let found: Vec<Option<Reasons>> = pairs
        .map(|(user, item)| user.zip(item).and_then(|(u, i)| asked.model.explain(u, i)))
        .collect();
    value(list(asked, &found)?, is_constant(args))
}

fn list(asked: &Asked<'_>, found: &[Option<Reasons>]) -> Result<ArrayRef> {
    let Asked { model, recommender, .. } = *asked;
    let lengths = found.iter().map(|row| row.as_ref().map_or(0, |reasons| reasons.parts.len()));
    let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
    let nulls = NullBuffer::from_iter(found.iter().map(Option::is_some));
    let parts: Vec<&Part> = found.iter().flatten().flat_map(|reasons| &reasons.parts).collect();
    let because: UInt32Array = parts
        .iter()
        .map(|part| match part.term {
            Term::Interaction(item) => Some(item),
            _ => None,
        })
        .collect();
    let shares: Float64Array = found
        .iter()
        .flatten()
        .flat_map(|reasons| match reasons.shares() {
            Some(shares) => shares.into_iter().map(Some).collect(),
            None => vec![None; reasons.parts.len()],
        })
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(
            parts.iter().map(|part| model.term_name(part.term)),
        )),
        take(&recommender.item_ids().values(), &because, None)?,
        Arc::new(Float32Array::from_iter_values(parts.iter().map(|part| part.weight))),
        Arc::new(Float64Array::from_iter_values(parts.iter().map(|part| part.contribution))),
        Arc::new(shares),
    ];
    let entries = StructArray::try_new(fields(recommender), columns, None)?;
    let field = Arc::new(Field::new_list_field(entries.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(entries), Some(nulls))?))
}
