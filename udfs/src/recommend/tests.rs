//! Tests of the functions over a small trained model.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, ListArray, StringArray};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int64Type};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs};

use super::*;
use crate::model::als::{AlsOptions, Feedback, train};
use crate::model::{
    AlsModel, Duplicates, IdIndex, ModelParts, PopularityModel, PopularityParts, Triplets,
};

/// Users 'u0' … 'u9' of two groups; items 1000 … 1019, of which the even ones please even users.
fn models() -> Arc<ModelSet> {
    let mut triplets = Triplets::default();
    for user in 0..10_u32 {
        for step in 0..5 {
            let item = (user % 2) + 2 * ((user + step * 3) % 10);
            triplets.push(user, item, 1.0, "w").unwrap();
        }
    }
    let seen = triplets.build(10, 20, Duplicates::Sum).0;
    let options = AlsOptions {
        feedback: Feedback::Implicit,
        num_factors: 4,
        seed: 1,
        wals_alpha: Some(10.0),
        ..AlsOptions::default()
    };
    let factors = train(&seen, &options, &mut |_| {}, &AtomicBool::new(false)).unwrap();
    let users: ArrayRef = Arc::new(StringArray::from_iter_values((0..10).map(|u| format!("u{u}"))));
    let items: ArrayRef = Arc::new(Int32Array::from_iter_values(1000..1020));
    let parts = ModelParts {
        users: IdIndex::from_values("user_id", users).unwrap(),
        items: IdIndex::from_values("item_id", items).unwrap(),
        factors,
        seen,
        options,
    };
    let model = Arc::new(AlsModel::from_parts(parts).unwrap().into());
    let bound = Arc::new(BoundModel::new("main.tiny".to_owned(), 3, model));
    Arc::new(ModelSet::new(BTreeMap::from([("tiny".to_owned(), bound)])))
}

fn call(name: &str, args: Vec<ColumnarValue>) -> Result<ArrayRef> {
    call_with(models(), name, args)
}

fn call_with(models: Arc<ModelSet>, name: &str, args: Vec<ColumnarValue>) -> Result<ArrayRef> {
    let functions = bound_functions(models);
    let function = functions.iter().find(|function| function.name() == name).unwrap();
    let rows = args.iter().find_map(|arg| match arg {
        ColumnarValue::Array(array) => Some(array.len()),
        ColumnarValue::Scalar(_) => None,
    });
    let number_rows = rows.unwrap_or(1);
    let arg_fields: Vec<_> =
        args.iter().map(|arg| Arc::new(Field::new("a", arg.data_type(), true))).collect();
    let scalars: Vec<Option<&ScalarValue>> = args
        .iter()
        .map(|arg| match arg {
            ColumnarValue::Scalar(scalar) => Some(scalar),
            ColumnarValue::Array(_) => None,
        })
        .collect();
    let planned = ReturnFieldArgs { arg_fields: &arg_fields, scalar_arguments: &scalars };
    let return_field = function.return_field_from_args(planned)?;
    let expected = return_field.data_type().clone();
    let args = ScalarFunctionArgs {
        args,
        arg_fields,
        number_rows,
        return_field,
        config_options: Arc::new(ConfigOptions::default()),
    };
    let array = function.invoke_with_args(args)?.into_array(number_rows)?;
    assert_eq!(array.data_type(), &expected);
    Ok(array)
}

fn text(value: &str) -> ColumnarValue {
    ColumnarValue::Scalar(ScalarValue::from(value))
}

fn int(value: i64) -> ColumnarValue {
    ColumnarValue::Scalar(ScalarValue::from(value))
}

fn column(values: &[Option<&str>]) -> ColumnarValue {
    ColumnarValue::Array(Arc::new(StringArray::from(values.to_vec())))
}

fn items_of(lists: &ArrayRef, row: usize) -> Vec<i32> {
    let list = lists.as_list::<i32>().value(row);
    let items = list.as_struct().column(0).as_primitive::<arrow::datatypes::Int32Type>().clone();
    items.iter().flatten().collect()
}

fn list_of<T: arrow::datatypes::ArrowPrimitiveType>(values: &[T::Native]) -> ColumnarValue {
    let values = values.iter().map(|&value| Some(value)).collect::<Vec<_>>();
    let list = ListArray::from_iter_primitive::<T, _, _>([Some(values)]);
    ColumnarValue::Scalar(ScalarValue::List(Arc::new(list)))
}

#[test]
fn recommendations_are_sorted_unseen_and_of_the_users_group() {
    let users = column(&[Some("u0"), None, Some("u1"), Some("nobody")]);
    let lists = call("als_recommend", vec![text("tiny"), users, int(2)]).unwrap();
    assert!(lists.is_null(1));
    for (row, parity) in [(0, 0), (2, 1)] {
        let items = items_of(&lists, row);
        assert_eq!(items.len(), 2);
        assert!(items.iter().all(|item| item % 2 == parity), "{items:?}");
        let list = lists.as_list::<i32>().value(row);
        let scores = list.as_struct().column(1).as_primitive::<Float32Type>().clone();
        assert!(scores.values().is_sorted_by(|a, b| a >= b));
        let user = text(if row == 0 { "u0" } else { "u1" });
        let score = call("als_score", vec![text("tiny"), user, int(items[0].into())]).unwrap();
        assert_eq!(score.as_primitive::<Float32Type>().value(0), scores.value(0));
    }
    assert_eq!(items_of(&lists, 3).len(), 2);
    let alone = call("als_recommend", vec![text("tiny"), text("u0"), int(2)]).unwrap();
    assert_eq!(items_of(&alone, 0), items_of(&lists, 0));
    let ten = call("als_recommend", vec![text("tiny"), text("u0")]).unwrap();
    assert_eq!(items_of(&ten, 0).len(), 10);
}

#[test]
fn each_row_may_have_its_own_k() {
    let k: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(2)]));
    let users = column(&[Some("u0"), Some("u1"), Some("u2")]);
    let lists = call("als_recommend", vec![text("tiny"), users, ColumnarValue::Array(k)]).unwrap();
    assert!(lists.is_null(1));
    assert_eq!((items_of(&lists, 0).len(), items_of(&lists, 2).len()), (1, 2));
}

#[test]
fn scores_of_unknown_or_null_pairs_are_null() {
    let users = column(&[Some("u0"), Some("x"), None]);
    for function in ["als_score", "ml_score"] {
        let args = vec![text("tiny"), users.clone(), text("1001")];
        let scores = call(function, args).unwrap();
        assert!(scores.is_valid(0) && scores.is_null(1) && scores.is_null(2));
    }
    let scores = call("als_score", vec![text("tiny"), text("u0"), text("abc")]).unwrap();
    assert!(scores.is_null(0));
}

#[test]
fn similar_lists_leave_the_asked_one_out() {
    for function in ["als_similar_items", "ml_similar_items"] {
        let items: ArrayRef = Arc::new(Int32Array::from(vec![Some(1002), None, Some(7)]));
        let args = vec![text("tiny"), ColumnarValue::Array(items), int(4)];
        let lists = call(function, args).unwrap();
        let found = items_of(&lists, 0);
        assert!(found.len() == 4 && !found.contains(&1002));
        assert!(lists.is_null(1));
        assert!(lists.is_valid(2) && items_of(&lists, 2).is_empty());
    }
    for function in ["als_similar_users", "ml_similar_users"] {
        let lists = call(function, vec![text("tiny"), text("u3"), int(2)]).unwrap();
        let list = lists.as_list::<i32>().value(0);
        assert_eq!(list.as_struct().column(0).data_type(), &DataType::Utf8);
        assert!(list.as_struct().column(0).as_string::<i32>().iter().all(|u| u != Some("u3")));
    }
}

#[test]
fn fold_in_answers_for_the_items_group_and_leaves_them_out() {
    for function in ["als_fold_in", "ml_fold_in"] {
        let items = list_of::<Int64Type>(&[1001, 1003, 1005, 99]);
        let weights = list_of::<Float64Type>(&[1.0, 2.0, 1.0, 5.0]);
        let args = vec![text("tiny"), items.clone(), weights, int(3)];
        let found = items_of(&call(function, args).unwrap(), 0);
        assert!(found.iter().all(|item| item % 2 == 1 && ![1001, 1003, 1005].contains(item)));
        let plain = call(function, vec![text("tiny"), items]).unwrap();
        assert_eq!(items_of(&plain, 0).len(), 10);
    }
    let unknown = list_of::<Int64Type>(&[1]);
    let popular = call("als_fold_in", vec![text("tiny"), unknown]).unwrap();
    assert_eq!(items_of(&popular, 0).len(), 10);
    let null = ColumnarValue::Scalar(ScalarValue::Null);
    assert!(call("als_fold_in", vec![text("tiny"), null]).unwrap().is_null(0));
}

#[test]
fn wrong_calls_say_what_is_wrong() {
    let error = |name: &str, args: Vec<ColumnarValue>| call(name, args).unwrap_err().to_string();
    let k = |k: i64| error("als_recommend", vec![text("tiny"), text("u0"), int(k)]);
    assert!(k(0).contains("k = 0: give a whole number from 1"), "{}", k(0));
    assert!(k(-1).contains("k = -1"));
    assert!(k(20_000).contains("10000"));
    let unknown = error("als_score", vec![text("tinny"), text("u0"), int(1)]);
    assert!(unknown.contains("does not know the model 'tinny'"), "{unknown}");
    let not_literal = error("als_score", vec![column(&[Some("tiny")]), text("u0"), int(1)]);
    assert!(not_literal.contains("as a literal"), "{not_literal}");
    let number = error("als_score", vec![int(1), text("u0"), int(1)]);
    assert!(number.contains("name as text"), "{number}");
    let text_k = error("als_recommend", vec![text("tiny"), text("u0"), text("x")]);
    assert!(text_k.contains("whole number"), "{text_k}");
    let no_list = error("als_fold_in", vec![text("tiny"), int(1)]);
    assert!(no_list.contains("items as a list"), "{no_list}");
    let lengths = vec![text("tiny"), list_of::<Int64Type>(&[1001]), list_of::<Float64Type>(&[])];
    assert!(error("als_fold_in", lengths).contains("1 items and 0 weights"));
    let nan =
        vec![text("tiny"), list_of::<Int64Type>(&[1001]), list_of::<Float64Type>(&[f64::NAN])];
    assert!(error("als_fold_in", nan).contains("NaN"));
}

#[test]
fn bound_models_show_and_compare_by_name_and_version() {
    let (left, right) = (models(), models());
    assert_eq!(left, right);
    assert_eq!(format!("{left:?}"), "ModelSet({\"tiny\": main.tiny@3})");
    assert_eq!(bound_functions(left), bound_functions(right));
    for function in bound_functions(Arc::default()) {
        assert_eq!(model_argument(function.name()), Some(0));
        assert!(function.documentation().is_some());
    }
    assert_eq!(model_argument("levenshtein"), None);
}

#[test]
fn ml_functions_ask_any_recommender_and_als_functions_only_factorizations() {
    let tiny = models();
    let tiny = tiny.get("tiny").unwrap().model();
    let als = tiny.recommender().unwrap();
    let parts = PopularityParts {
        users: als.user_ids().clone(),
        items: als.item_ids().clone(),
        seen: als.seen().clone(),
        weights: (0..20).map(|item| item as f32).collect(),
        segments: None,
    };
    let model = Arc::new(PopularityModel::from_parts(parts).unwrap().into());
    let bound = Arc::new(BoundModel::new("main.top".to_owned(), 1, model));
    let set = Arc::new(ModelSet::new(BTreeMap::from([("top".to_owned(), bound)])));
    let call = |name: &str, args| call_with(Arc::clone(&set), name, args);
    let score = call("ml_score", vec![text("top"), text("u1"), int(1019)]).unwrap();
    assert_eq!(score.as_primitive::<Float32Type>().value(0), 19.0);
    let items = list_of::<Int64Type>(&[1019]);
    let lists = call("ml_fold_in", vec![text("top"), items]).unwrap();
    assert_eq!(items_of(&lists, 0)[..2], [1018, 1017]);
    assert!(call("ml_similar_items", vec![text("top"), int(1019)]).unwrap().is_valid(0));
    assert!(call("ml_similar_users", vec![text("top"), text("u1")]).unwrap().is_valid(0));
    let error = call("als_score", vec![text("top"), text("u1"), int(1)]).unwrap_err().to_string();
    assert!(
        error.contains("main.top@1 is of type 'popularity': use ml_score('main.top', "),
        "{error}"
    );
}
