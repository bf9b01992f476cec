//! Prepared statements: types that only the bound values tell.

use arrow::datatypes::DataType;
use catalog::policy::Principal;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_a_parameter_takes_the_type_of_its_value() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    let prepared = session.prepare("SELECT $2 AS b, $1 AS a, CAST($3 AS DATE) AS c").await.unwrap();
    let known: Vec<_> =
        prepared.parameters().fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(known, [DataType::Null, DataType::Null, DataType::Date32]);
    let values = [ScalarValue::from("x"), ScalarValue::from(2_i64), ScalarValue::Date32(Some(1))];
    let announced = prepared.schema_with(&values);
    let answer = session.run(&prepared, &values).await.unwrap();
    assert_eq!(answer.schema, announced);
    let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
    assert_eq!(rows[0].schema(), announced);
    assert_eq!(announced.field(0).data_type(), &DataType::Int64);
    assert!(session.run(&prepared, &values[..2]).await.is_err());
}
