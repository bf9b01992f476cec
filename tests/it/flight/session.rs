//! Session options and the end of a session.

use std::collections::HashMap;

use prost::Message;
use sql::Limits;
use tonic::Code;

use super::support::{Client, action, endless, failure, rows, start, start_limited, start_open};

/// The messages of `Flight.proto`, written by hand here so that the server's own cannot agree with
/// themselves alone.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(bool, optional, tag = "2")]
    truth: Option<bool>,
    #[prost(sfixed64, optional, tag = "3")]
    number: Option<i64>,
    #[prost(message, optional, tag = "5")]
    list: Option<List>,
}

#[derive(Clone, PartialEq, Message)]
struct List {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Options {
    #[prost(map = "string, message", tag = "1")]
    options: HashMap<String, Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Fault {
    #[prost(int32, tag = "1")]
    value: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Faults {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, Fault>,
}

async fn set(client: &mut Client, name: &str, value: Value) -> HashMap<String, Fault> {
    let request = Options { options: HashMap::from([(name.to_owned(), value)]) };
    let bodies = action(client, "SetSessionOptions", request.encode_to_vec()).await.unwrap();
    Faults::decode(bodies[0].clone()).unwrap().errors
}

async fn read(client: &mut Client, name: &str) -> Option<Value> {
    let bodies = action(client, "GetSessionOptions", "").await.unwrap();
    Options::decode(bodies[0].clone()).unwrap().options.remove(name)
}

async fn get(client: &mut Client, name: &str) -> Option<String> {
    read(client, name).await.and_then(|value| value.text)
}

fn text(value: &str) -> Value {
    Value { text: Some(value.into()), ..Value::default() }
}

#[tokio::test]
async fn options_are_set_and_read_in_one_session_only() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let mut other = server.login("ada").await;
    assert_eq!(get(&mut client, "catalog").await.as_deref(), Some("attune"));
    assert_eq!(get(&mut client, "schema").await.as_deref(), Some("main"));
    assert!(set(&mut client, "time_zone", text("+02:00")).await.is_empty());
    assert_eq!(get(&mut client, "time_zone").await.as_deref(), Some("+02:00"));
    assert_ne!(get(&mut other, "time_zone").await.as_deref(), Some("+02:00"));
}

#[tokio::test]
async fn options_that_do_not_exist_or_do_not_fit_say_so() {
    let server = start().await;
    let mut client = server.login("ada").await;
    assert_eq!(set(&mut client, "colour", text("red")).await["colour"].value, 1);
    assert_eq!(set(&mut client, "catalog", text("other")).await["catalog"].value, 2);
    let truth = Value { truth: Some(true), ..Value::default() };
    assert_eq!(set(&mut client, "schema", truth.clone()).await["schema"].value, 2);
    assert!(set(&mut client, "string_views", truth.clone()).await.is_empty());
    assert_eq!(read(&mut client, "string_views").await, Some(truth));
    assert!(set(&mut client, "compression", text("LZ4")).await.is_empty());
    assert_eq!(get(&mut client, "compression").await.as_deref(), Some("lz4"));
    assert_eq!(set(&mut client, "compression", text("rar")).await["compression"].value, 2);
    // A list of one text is that text, and no value gives the first one back.
    let list = Value { list: Some(List { values: vec!["zstd".into()] }), ..Value::default() };
    assert!(set(&mut client, "compression", list).await.is_empty());
    assert_eq!(get(&mut client, "compression").await.as_deref(), Some("zstd"));
    for name in ["compression", "string_views", "schema", "time_zone"] {
        assert!(set(&mut client, name, Value::default()).await.is_empty(), "{name}");
    }
    assert_eq!(get(&mut client, "compression").await.as_deref(), Some("none"));
}

#[tokio::test]
async fn a_limit_is_set_as_a_number_and_holds() {
    let limits = Limits { rows_max: Some(1_000), ..Limits::default() };
    let server = start_limited(limits).await;
    let mut client = server.login("ada").await;
    let number = |number| Value { number: Some(number), ..Value::default() };
    assert!(set(&mut client, "rows_max", number(10)).await.is_empty());
    assert_eq!(read(&mut client, "rows_max").await, Some(number(10)));
    assert_eq!(rows(&mut client, &endless(1)).await.len(), 10);
    let (code, message) = failure(&mut client, &endless(2)).await;
    assert_eq!(code, Code::ResourceExhausted, "{message}");
    assert!(message.starts_with("ATT-3002") && message.contains("10 rows"), "{message}");
    // Only stricter than the server's, and no value gives that one back.
    for wrong in [number(1_001), number(-1)] {
        assert_eq!(set(&mut client, "rows_max", wrong).await["rows_max"].value, 2);
    }
    assert_eq!(read(&mut client, "rows_max").await, Some(number(10)));
    assert!(set(&mut client, "rows_max", Value::default()).await.is_empty());
    assert_eq!(rows(&mut client, &endless(2)).await.len(), 100);
}

#[tokio::test]
async fn a_session_that_asks_for_views_gets_them() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let query = "SELECT arrow_cast('a', 'Utf8View') AS word";
    let plain = client.execute(query.into(), None).await.unwrap();
    set(&mut client, "string_views", text("true")).await;
    let views = client.execute(query.into(), None).await.unwrap();
    let types = [plain, views].map(|info| super::support::schema(&info).field(0).to_string());
    assert!(types[0].contains("Utf8") && !types[0].contains("Utf8View"), "{types:?}");
    assert!(types[1].contains("Utf8View"), "{types:?}");
}

#[tokio::test]
async fn a_closed_session_is_gone_with_what_it_left() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let mut other = server.login("ada").await;
    let left = client.execute("SELECT 1".into(), None).await.unwrap();
    let bodies = action(&mut client, "CloseSession", "").await.unwrap();
    assert_eq!(bodies[0].as_ref(), b"\x08\x01");
    assert_eq!(failure(&mut client, "SELECT 1").await.0, Code::Unauthenticated);
    // The same user's other session cannot fetch what the closed one left.
    let gone = super::support::fetch(&mut other, &left).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert_eq!(rows(&mut other, "SELECT 2").await, ["2"]);
}

#[tokio::test]
async fn without_users_a_connection_is_a_session() {
    let server = start_open().await;
    let mut client = server.stranger().await;
    let mut other = server.stranger().await;
    assert!(set(&mut client, "purpose", text("research")).await.is_empty());
    assert_eq!(get(&mut client, "purpose").await.as_deref(), Some("research"));
    assert_eq!(get(&mut other, "purpose").await, None);
}

#[tokio::test]
async fn a_purpose_in_the_header_is_for_that_call() {
    let server = start().await;
    let mut client = server.login("ada").await;
    client.set_header("attune-purpose", "research");
    assert_eq!(get(&mut client, "purpose").await.as_deref(), Some("research"));
    client.set_header("attune-purpose", "");
    assert_eq!(get(&mut client, "purpose").await, None);
}

#[tokio::test]
async fn a_channel_in_the_header_is_for_calls_of_sessions_without_one() {
    let server = start().await;
    let mut client = server.login("ada").await;
    client.set_header("attune-channel", "email");
    assert_eq!(get(&mut client, "channel").await.as_deref(), Some("email"));
    assert_eq!(rows(&mut client, "SELECT current_channel()").await, ["email"]);
    assert!(set(&mut client, "channel", text("sms")).await.is_empty());
    assert_eq!(get(&mut client, "channel").await.as_deref(), Some("sms"));
    let statement = "SELECT current_channel(), current_purpose() IS NULL";
    assert_eq!(rows(&mut client, statement).await, ["sms|true"]);
    client.set_header("attune-purpose", "research");
    let statement = "SELECT current_channel(), current_purpose()";
    assert_eq!(rows(&mut client, statement).await, ["sms|research"]);
}

#[tokio::test]
async fn actions_are_listed() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let request = super::statements::authorized(&client, arrow_flight::Empty {});
    let mut actions = client.inner_mut().list_actions(request).await.unwrap().into_inner();
    let mut names = Vec::new();
    while let Some(action) = actions.message().await.unwrap() {
        names.push(action.r#type);
    }
    for name in ["CancelFlightInfo", "CancelQuery", "CloseSession", "SetSessionOptions"] {
        assert!(names.iter().any(|listed| listed == name), "{names:?}");
    }
    assert!(!names.iter().any(|name| name == "BeginTransaction"));
}
