//! Prepared statements: placeholders, values, repeated updates.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Schema};
use arrow_flight::FlightData;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, CommandPreparedStatementQuery,
};
use futures::TryStreamExt;
use tonic::Code;

use super::support::{self, Client, lines, packed, rows, start, status, unpacked};

/// A row with one value.
pub fn one(value: i64) -> RecordBatch {
    numbers(&[value])
}

fn numbers(values: &[i64]) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    RecordBatch::try_from_iter([("1", column)]).unwrap()
}

/// Prepares a statement; gives the command that runs it.
pub async fn created(client: &mut Client, text: &str) -> CommandPreparedStatementQuery {
    let request = ActionCreatePreparedStatementRequest { query: text.into(), transaction_id: None };
    let bodies = support::action(client, "CreatePreparedStatement", packed(&request)).await;
    let created: ActionCreatePreparedStatementResult = unpacked(&bodies.unwrap()[0]);
    CommandPreparedStatementQuery { prepared_statement_handle: created.prepared_statement_handle }
}

/// Binds values ahead of a run.
pub async fn bind(
    client: &mut Client,
    command: &CommandPreparedStatementQuery,
    values: RecordBatch,
) {
    let messages: Vec<FlightData> = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(support::descriptor(command)))
        .build(futures::stream::iter([Ok(values)]))
        .try_collect()
        .await
        .unwrap();
    let mut results = client.do_put(futures::stream::iter(messages)).await.unwrap();
    while results.message().await.unwrap().is_some() {}
}

async fn answer(client: &mut Client, text: &str, values: RecordBatch) -> Vec<String> {
    let mut prepared = client.prepare(text.to_owned(), None).await.unwrap();
    prepared.set_parameters(values).unwrap();
    let info = prepared.execute().await.unwrap();
    lines(&support::fetch(client, &info).await.unwrap())
}

#[tokio::test]
async fn both_kinds_of_placeholder_take_values() {
    let server = start().await;
    let mut client = server.login("ada").await;
    for text in ["SELECT CAST(? AS BIGINT) + 1", "SELECT CAST($1 AS BIGINT) + 1"] {
        assert_eq!(answer(&mut client, text, one(41)).await, ["42"], "{text}");
    }
    let text = "SELECT n FROM (VALUES (1), (2), (3)) AS t(n) WHERE n > ? AND n < ?";
    let low: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let high: ArrayRef = Arc::new(Int64Array::from(vec![3]));
    let values = RecordBatch::try_from_iter([("1", low), ("2", high)]).unwrap();
    assert_eq!(answer(&mut client, text, values).await, ["2"]);
}

#[tokio::test]
async fn placeholders_are_announced_with_their_types() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let text = "SELECT n FROM (VALUES (1), (2)) AS t(n) WHERE n = ?";
    let prepared = client.prepare(text.into(), None).await.unwrap();
    let parameters = prepared.parameter_schema().unwrap();
    assert_eq!(parameters.fields().len(), 1);
    assert_eq!(parameters.field(0).data_type(), &DataType::Int64);
    assert_eq!(prepared.dataset_schema().unwrap().field(0).name(), "n");
    let plain = client.prepare("SELECT 1".into(), None).await.unwrap();
    assert!(plain.parameter_schema().unwrap().fields().is_empty());
}

#[tokio::test]
async fn the_schema_of_a_handle_is_that_of_its_rows() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let text = "SELECT arrow_cast('a', 'Utf8View') AS word, CAST(? AS BIGINT) AS n";
    let command = created(&mut client, text).await;
    // Before a value is bound as well.
    let request = super::statements::authorized(&client, support::descriptor(&command));
    let alone = client.inner_mut().get_schema(request).await.unwrap().into_inner();
    let alone = Schema::try_from(alone).unwrap();
    assert_eq!(alone.field(0).data_type(), &DataType::Utf8);
    assert_eq!((alone.field(1).name().as_str(), alone.fields().len()), ("n", 2));
    bind(&mut client, &command, one(7)).await;
    let stream = client.do_get(support::ticket(&command)).await.unwrap();
    let batches: Vec<RecordBatch> = stream.try_collect().await.unwrap();
    // With its value the plan may know that a column has no NULL.
    let kinds = |schema: &Schema| -> Vec<(String, DataType)> {
        let fields = schema.fields().iter();
        fields.map(|field| (field.name().clone(), field.data_type().clone())).collect()
    };
    assert_eq!(kinds(batches[0].schema().as_ref()), kinds(&alone));
    assert_eq!(lines(&batches), ["a|7"]);
}

#[tokio::test]
async fn a_prepared_statement_runs_again_with_other_values() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let mut prepared = client.prepare("SELECT CAST(? AS BIGINT)".into(), None).await.unwrap();
    for value in [1, 2, 3] {
        prepared.set_parameters(one(value)).unwrap();
        let info = prepared.execute().await.unwrap();
        let batches = support::fetch(&mut client, &info).await.unwrap();
        assert_eq!(lines(&batches), [value.to_string()]);
    }
}

#[tokio::test]
async fn missing_surplus_and_wrong_values_are_errors() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let text = "SELECT CAST(? AS BIGINT)";
    let mut prepared = client.prepare(text.into(), None).await.unwrap();
    let unbound = prepared.execute().await.map_err(error).unwrap_err();
    assert_eq!(unbound.code(), Code::InvalidArgument);
    assert!(unbound.message().contains("1 parameters and no values"), "{}", unbound.message());
    let (code, _) = support::failure(&mut client, text).await;
    assert_eq!(code, Code::InvalidArgument);

    let word: ArrayRef = Arc::new(StringArray::from(vec!["many"]));
    let two = RecordBatch::try_from_iter([("1", Arc::clone(&word)), ("2", word)]).unwrap();
    for values in [two, numbers(&[1, 2])] {
        let mut prepared = client.prepare(text.into(), None).await.unwrap();
        prepared.set_parameters(values).unwrap();
        let refused = prepared.execute().await.map_err(error).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{}", refused.message());
    }
}

#[tokio::test]
async fn an_update_runs_once_for_each_row_of_values() {
    let server = start().await;
    let mut client = server.login("root").await;
    client.execute_update("CREATE TABLE t AS SELECT 0 AS n".into(), None).await.unwrap();
    let text = "INSERT INTO t SELECT CAST(? AS BIGINT) AS n";
    let mut prepared = client.prepare(text.into(), None).await.unwrap();
    assert!(prepared.dataset_schema().unwrap().fields().is_empty());
    prepared.set_parameters(numbers(&[1, 2, 3])).unwrap();
    assert_eq!(prepared.execute_update().await.unwrap(), 3);
    assert_eq!(rows(&mut client, "SELECT n FROM t").await, ["0", "1", "2", "3"]);
    let mut plain = client.prepare("INSERT INTO t SELECT 9 AS n".into(), None).await.unwrap();
    assert_eq!(plain.execute_update().await.unwrap(), 1);
    assert_eq!(rows(&mut client, "SELECT n FROM t WHERE n = 9").await, ["9"]);
}

#[tokio::test]
async fn an_insert_with_many_rows_of_values_is_one_commit() {
    let server = start().await;
    let mut client = server.login("root").await;
    let create = "CREATE TABLE many (n BIGINT, word VARCHAR)";
    client.execute_update(create.into(), None).await.unwrap();
    let name = catalog::ObjectName::new("main", "many");
    let before = server.engine.catalog().table_version(&name).await.unwrap();
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..500));
    // A client that binds numbers as text gets them read.
    let words = StringArray::from_iter_values((0..500).map(|n| n.to_string()));
    let words: ArrayRef = Arc::new(words);
    let values = [("1", Arc::clone(&words)), ("2", words)];
    let values = RecordBatch::try_from_iter(values).unwrap();
    let text = "INSERT INTO many VALUES (?, concat('word ', ?))";
    let mut prepared = client.prepare(text.into(), None).await.unwrap();
    prepared.set_parameters(values).unwrap();
    assert_eq!(prepared.execute_update().await.unwrap(), 500);
    let after = server.engine.catalog().table_version(&name).await.unwrap();
    assert_eq!(after, before + 1);
    let text = "SELECT count(*), min(word) FROM many WHERE n >= 10";
    assert_eq!(rows(&mut client, text).await, ["490|word 10"]);
    let bad: ArrayRef = Arc::new(StringArray::from(vec!["1", "many", "3"]));
    let bad = RecordBatch::try_from_iter([("1", Arc::clone(&bad)), ("2", bad)]).unwrap();
    prepared.set_parameters(bad).unwrap();
    let refused = prepared.execute_update().await.map_err(error).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("value 1 of the statement"), "{}", refused.message());
    assert_eq!(rows(&mut client, "SELECT count(*) FROM many").await, ["500"]);
    // A statement that is no plain INSERT runs once for each row of values.
    let mut delete = client.prepare("DELETE FROM many WHERE n = ?".into(), None).await.unwrap();
    let some = numbers.slice(0, 3);
    delete.set_parameters(RecordBatch::try_from_iter([("1", some)]).unwrap()).unwrap();
    assert_eq!(delete.execute_update().await.unwrap(), 3);
    let version = server.engine.catalog().table_version(&name).await.unwrap();
    assert_eq!(version, after + 3);
}

#[tokio::test]
async fn a_prepared_statement_is_unknown_to_another_user() {
    let server = start().await;
    let mut ada = server.login("ada").await;
    let mut bob = server.login("bob").await;
    let command = created(&mut ada, "SELECT 42").await;
    let handle = command.prepared_statement_handle.clone();
    let request = super::statements::authorized(&bob, support::descriptor(&command));
    let refused = bob.inner_mut().get_flight_info(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let request = super::statements::authorized(&bob, support::descriptor(&command));
    let refused = bob.inner_mut().get_schema(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let direct = bob.do_get(support::ticket(&command)).await.map(|_| ()).map_err(status);
    assert_eq!(direct.unwrap_err().code(), Code::NotFound);
    // Closing what is not there is no error, and closes nothing of somebody else's.
    let close = ActionClosePreparedStatementRequest { prepared_statement_handle: handle };
    support::action(&mut bob, "ClosePreparedStatement", packed(&close)).await.unwrap();
    let direct = ada.do_get(support::ticket(&command)).await.unwrap();
    assert_eq!(lines(&direct.try_collect::<Vec<_>>().await.unwrap()), ["42"]);
    support::action(&mut ada, "ClosePreparedStatement", packed(&close)).await.unwrap();
    let gone = ada.do_get(support::ticket(&command)).await.map(|_| ()).map_err(status);
    assert_eq!(gone.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_statement_is_closed_also_after_it_has_changed_its_users_own_password() {
    let server = start().await;
    let mut ada = server.login("ada").await;
    let handle = created(&mut ada, "SELECT 1").await.prepared_statement_handle;
    let change = "ALTER USER ada SET PASSWORD 'another secret'";
    ada.execute_update(change.into(), None).await.unwrap();
    let close = ActionClosePreparedStatementRequest { prepared_statement_handle: handle };
    support::action(&mut ada, "ClosePreparedStatement", packed(&close)).await.unwrap();
    // The session has ended all the same.
    assert_eq!(support::failure(&mut ada, "SELECT 1").await.0, Code::Unauthenticated);
    support::action(&mut ada, "ClosePreparedStatement", packed(&close)).await.unwrap();
    let left = support::action(&mut ada, "CloseSession", packed(&close)).await.unwrap_err();
    assert_eq!(left.code(), Code::Unauthenticated);
}

/// The client wraps a refusal of DoPut in its own error.
fn error(error: impl Into<arrow_flight::error::FlightError>) -> tonic::Status {
    status(error)
}
