//! StatementIngest: create, append, replace and fail, in one commit, with the rights of SQL.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow_flight::sql::{
    CommandStatementIngest, ProstMessageExt, TableDefinitionOptions, TableExistsOption,
    TableNotExistOption,
};
use arrow_flight::{FlightData, FlightDescriptor};
use futures::{StreamExt, stream};
use prost::Message;
use tonic::{Code, Status};

use super::support::{Client, failure, rows, start, status};

const CREATE: (TableNotExistOption, TableExistsOption) =
    (TableNotExistOption::Create, TableExistsOption::Fail);
const APPEND: (TableNotExistOption, TableExistsOption) =
    (TableNotExistOption::Fail, TableExistsOption::Append);
const REPLACE: (TableNotExistOption, TableExistsOption) =
    (TableNotExistOption::Create, TableExistsOption::Replace);
const EITHER: (TableNotExistOption, TableExistsOption) =
    (TableNotExistOption::Create, TableExistsOption::Append);

fn people(ids: &[i64]) -> RecordBatch {
    let names = ids.iter().map(|id| format!("person {id}"));
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef, true),
        ("name", Arc::new(StringArray::from_iter_values(names)) as ArrayRef, true),
    ])
    .unwrap()
}

fn into(table: &str, mode: (TableNotExistOption, TableExistsOption)) -> CommandStatementIngest {
    CommandStatementIngest {
        table_definition_options: Some(TableDefinitionOptions {
            if_not_exist: mode.0 as i32,
            if_exists: mode.1 as i32,
        }),
        table: table.into(),
        ..CommandStatementIngest::default()
    }
}

async fn ingest(
    client: &mut Client,
    command: CommandStatementIngest,
    batches: Vec<RecordBatch>,
) -> Result<i64, Status> {
    let batches = stream::iter(batches.into_iter().map(Ok));
    client.execute_ingest(command, batches).await.map_err(status)
}

#[tokio::test]
async fn all_modes_do_what_they_say() {
    let server = start().await;
    let mut client = server.login("root").await;
    let count = "SELECT count(*) FROM people";
    let missing = ingest(&mut client, into("people", APPEND), vec![people(&[1])]).await;
    assert_eq!(missing.unwrap_err().code(), Code::NotFound);
    let batches = vec![people(&[1, 2]), people(&[3])];
    assert_eq!(ingest(&mut client, into("people", CREATE), batches).await.unwrap(), 3);
    let again = ingest(&mut client, into("people", CREATE), vec![people(&[9])]).await;
    assert_eq!(again.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(rows(&mut client, count).await, ["3"]);
    assert_eq!(ingest(&mut client, into("people", APPEND), vec![people(&[4])]).await.unwrap(), 1);
    assert_eq!(ingest(&mut client, into("people", EITHER), vec![people(&[5])]).await.unwrap(), 1);
    assert_eq!(rows(&mut client, count).await, ["5"]);
    let text = "SELECT name FROM people WHERE id = 4";
    assert_eq!(rows(&mut client, text).await, ["person 4"]);
    assert_eq!(ingest(&mut client, into("people", REPLACE), vec![people(&[7])]).await.unwrap(), 1);
    assert_eq!(rows(&mut client, "SELECT id FROM people").await, ["7"]);
    assert_eq!(ingest(&mut client, into("fresh", EITHER), vec![people(&[1])]).await.unwrap(), 1);
    // Without rows a table comes to be, with its columns.
    assert_eq!(ingest(&mut client, into("empty", CREATE), vec![people(&[])]).await.unwrap(), 0);
    assert_eq!(rows(&mut client, "SELECT count(*) FROM empty").await, ["0"]);
}

#[tokio::test]
async fn many_batches_are_one_commit() {
    let server = start().await;
    let mut client = server.login("root").await;
    ingest(&mut client, into("main_people", CREATE), vec![people(&[0])]).await.unwrap();
    let name = catalog::ObjectName::new("main", "main_people");
    let before = server.engine.catalog().table_version(&name).await.unwrap();
    let batches: Vec<RecordBatch> = (0..50).map(|batch| people(&[batch, batch + 1])).collect();
    assert_eq!(ingest(&mut client, into("main_people", APPEND), batches).await.unwrap(), 100);
    let after = server.engine.catalog().table_version(&name).await.unwrap();
    assert_eq!(after, before + 1);
    let logged = server.engine.queries().records();
    assert_eq!(logged.iter().filter(|record| record.text.starts_with("INGEST INTO")).count(), 2);
    assert_eq!(logged.iter().find(|record| record.rows == 100).unwrap().state, "finished");
}

#[tokio::test]
async fn columns_go_by_name_and_a_wrong_one_is_named_with_both_types() {
    let server = start().await;
    let mut client = server.login("root").await;
    ingest(&mut client, into("people", CREATE), vec![people(&[1])]).await.unwrap();
    let only: ArrayRef = Arc::new(StringArray::from(vec!["Zoé"]));
    let only = RecordBatch::try_from_iter([("name", only)]).unwrap();
    ingest(&mut client, into("people", APPEND), vec![only]).await.unwrap();
    let text = "SELECT name FROM people WHERE id IS NULL";
    assert_eq!(rows(&mut client, text).await, ["Zoé"]);
    let word: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let wrong = RecordBatch::try_from_iter([("id", Arc::clone(&word))]).unwrap();
    let refused = ingest(&mut client, into("people", APPEND), vec![wrong]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for part in ["id", "Int64", "Utf8", "Hint:"] {
        assert!(refused.message().contains(part), "{}", refused.message());
    }
    let unknown = RecordBatch::try_from_iter([("nam", word)]).unwrap();
    let refused = ingest(&mut client, into("people", APPEND), vec![unknown]).await.unwrap_err();
    assert!(refused.message().contains("did you mean name"), "{}", refused.message());
    assert_eq!(rows(&mut client, "SELECT count(*) FROM people").await, ["2"]);
}

#[tokio::test]
async fn a_time_that_a_table_cannot_keep_is_refused() {
    let server = start().await;
    let mut client = server.login("root").await;
    let batch = |nanos: i64| {
        let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![0, nanos]));
        RecordBatch::try_from_iter_with_nullable([("at", times, true)]).unwrap()
    };
    let whole = 1_700_000_000_000_001_000;
    assert_eq!(ingest(&mut client, into("t", CREATE), vec![batch(whole)]).await.unwrap(), 2);
    for mode in [APPEND, REPLACE] {
        let batches = vec![batch(whole), batch(whole + 1)];
        let refused = ingest(&mut client, into("t", mode), batches).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        for part in ["column at holds 2023-11-14T22:13:20.000001001", "Hint: round or cut"] {
            assert!(refused.message().contains(part), "{}", refused.message());
        }
    }
    assert_eq!(rows(&mut client, "SELECT count(*) FROM t").await, ["2"]);
}

#[tokio::test]
async fn rights_are_those_of_create_table_and_insert() {
    let server = start().await;
    let mut root = server.login("root").await;
    let mut ada = server.login("ada").await;
    ingest(&mut root, into("taken", CREATE), vec![people(&[1])]).await.unwrap();
    for (table, mode) in [("new", CREATE), ("taken", APPEND), ("taken", REPLACE), ("new", EITHER)] {
        let refused = ingest(&mut ada, into(table, mode), vec![people(&[2])]).await.unwrap_err();
        // What ada may not see does not exist for her.
        let expected = [Code::PermissionDenied, Code::NotFound];
        assert!(expected.contains(&refused.code()), "{table}: {}", refused.message());
    }
    let own = CommandStatementIngest { schema: Some("ada".into()), ..into("mine", CREATE) };
    assert_eq!(ingest(&mut ada, own, vec![people(&[1, 2])]).await.unwrap(), 2);
    assert_eq!(rows(&mut ada, "SELECT count(*) FROM ada.mine").await, ["2"]);
    assert_eq!(rows(&mut root, "SELECT count(*) FROM taken").await, ["1"]);
    let system = CommandStatementIngest { schema: Some("system".into()), ..into("x", CREATE) };
    let refused = ingest(&mut root, system, vec![people(&[1])]).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn names_of_other_places_and_what_there_is_not_are_refused() {
    let server = start().await;
    let mut client = server.login("root").await;
    let other = CommandStatementIngest { catalog: Some("other".into()), ..into("t", CREATE) };
    let nowhere = CommandStatementIngest { schema: Some("nowhere".into()), ..into("t", CREATE) };
    for command in [other, nowhere, into("", CREATE), into("a\0b/../c", CREATE)] {
        let label = format!("{command:?}");
        let refused = ingest(&mut client, command, vec![people(&[1])]).await.unwrap_err();
        let expected = [Code::InvalidArgument, Code::NotFound];
        assert!(expected.contains(&refused.code()), "{label} {}", refused.message());
    }
    let temporary = CommandStatementIngest { temporary: true, ..into("t", CREATE) };
    let transaction_id = Some(b"t".as_slice().into());
    let inside = CommandStatementIngest { transaction_id, ..into("t", CREATE) };
    for command in [temporary, inside] {
        let refused = ingest(&mut client, command, vec![people(&[1])]).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
    }
}

#[tokio::test]
async fn a_stream_that_fails_leaves_the_table_as_it_was() {
    let server = start().await;
    let mut client = server.login("root").await;
    ingest(&mut client, into("people", CREATE), vec![people(&[1])]).await.unwrap();
    // A client that goes away in the middle.
    let messages = encoded(into("people", APPEND), people(&[2])).await;
    let endless = stream::iter(messages).chain(stream::pending());
    let wait = std::time::Duration::from_millis(300);
    assert!(tokio::time::timeout(wait, client.do_put(endless)).await.is_err());
    let other: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let other = RecordBatch::try_from_iter([("id", other)]).unwrap();
    // The second message has another number of columns than the schema that came first.
    let mut messages = encoded(into("people", APPEND), people(&[3])).await;
    messages.extend(encoded(into("people", APPEND), other).await.pop());
    let refused = client.do_put(stream::iter(messages)).await.map_err(status).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{}", refused.message());
    assert!(refused.message().starts_with("ATT-"), "{}", refused.message());
    assert_eq!(rows(&mut client, "SELECT id FROM people").await, ["1"]);
}

async fn encoded(command: CommandStatementIngest, batch: RecordBatch) -> Vec<FlightData> {
    use futures::TryStreamExt;
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    arrow_flight::encode::FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .build(stream::iter([Ok(batch)]))
        .try_collect()
        .await
        .unwrap()
}

#[tokio::test]
async fn bytes_that_are_no_rows_are_the_clients_fault() {
    let server = start().await;
    let mut client = server.login("root").await;
    let good = encoded(into("t", CREATE), people(&[1, 2, 3])).await;
    let cut = |index: usize, change: fn(&mut FlightData)| {
        let mut messages = good.clone();
        change(&mut messages[index]);
        messages
    };
    let cases: Vec<Vec<FlightData>> = vec![
        vec![],
        vec![FlightData::default()],
        cut(0, |data| data.flight_descriptor = None),
        cut(0, |data| data.data_header = data.data_header.slice(..9)),
        cut(0, |data| data.data_header = b"no flatbuffer at all".as_slice().into()),
        cut(1, |data| data.data_body = data.data_body.slice(..5)),
        cut(1, |data| data.data_header = data.data_header.slice(3..)),
        vec![FlightData {
            flight_descriptor: good[0].flight_descriptor.clone(),
            ..good[1].clone()
        }],
        vec![FlightData {
            flight_descriptor: good[0].flight_descriptor.clone(),
            ..FlightData::default()
        }],
        vec![FlightData {
            flight_descriptor: Some(FlightDescriptor::new_cmd(b"\xff\xff".as_slice())),
            ..FlightData::default()
        }],
        vec![FlightData {
            flight_descriptor: Some(FlightDescriptor::new_path(vec!["t".into()])),
            ..FlightData::default()
        }],
    ];
    for (number, messages) in cases.into_iter().enumerate() {
        let refused = client.do_put(stream::iter(messages)).await.map_err(status).unwrap_err();
        let told = refused.message();
        assert_eq!(refused.code(), Code::InvalidArgument, "case {number}: {told}");
        assert!(told.starts_with("ATT-"), "case {number}: {told}");
    }
    let (code, _) = failure(&mut client, "SELECT * FROM t").await;
    assert_eq!(code, Code::NotFound);
}
