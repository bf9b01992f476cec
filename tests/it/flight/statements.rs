//! Statements: planned without effect, run once, cancelled, refused.

use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionCreatePreparedSubstraitPlanRequest,
    CommandStatementQuery, CommandStatementSubstraitPlan, CommandStatementUpdate,
    TicketStatementQuery,
};
use arrow_flight::{CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Ticket};
use futures::StreamExt;
use prost::Message;
use tonic::Code;

use super::support::{
    action, descriptor, endless, failure, fetch, packed, rows, start, start_with, status, ticket,
    unpacked,
};

#[tokio::test]
async fn rows_come_with_their_schema() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let info =
        client.execute("SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, NULL".into(), None).await;
    let info = info.unwrap();
    assert_eq!((info.total_records, info.total_bytes, info.endpoint.len()), (-1, -1, 1));
    assert!(info.endpoint[0].location.is_empty());
    let batches = fetch(&mut client, &info).await.unwrap();
    assert_eq!(super::support::lines(&batches), ["1|x", "2|"]);
    let empty = client.execute("SELECT 1 AS a WHERE false".into(), None).await.unwrap();
    assert!(fetch(&mut client, &empty).await.unwrap().iter().all(|batch| batch.num_rows() == 0));
}

#[tokio::test]
async fn planning_does_nothing_and_a_ticket_works_once() {
    let server = start().await;
    let mut client = server.login("root").await;
    client.execute_update("CREATE TABLE once AS SELECT 1 AS n".into(), None).await.unwrap();
    let insert = "INSERT INTO once SELECT 2 AS n";
    let info = client.execute(insert.into(), None).await.unwrap();
    client.execute(insert.into(), None).await.unwrap();
    assert_eq!(rows(&mut client, "SELECT n FROM once").await, ["1"]);
    fetch(&mut client, &info).await.unwrap();
    assert_eq!(fetch(&mut client, &info).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(rows(&mut client, "SELECT n FROM once").await, ["1", "2"]);
}

#[tokio::test]
async fn an_update_gives_the_rows_it_changed() {
    let server = start().await;
    let mut client = server.login("root").await;
    client.execute_update("CREATE TABLE t AS SELECT 1 AS n".into(), None).await.unwrap();
    let changed =
        client.execute_update("INSERT INTO t SELECT 2 UNION ALL SELECT 3".into(), None).await;
    assert_eq!(changed.unwrap(), 2);
    assert_eq!(client.execute_update("SELECT n FROM t".into(), None).await.unwrap(), 0);
}

#[tokio::test]
async fn a_ticket_is_unknown_to_another_user() {
    let server = start().await;
    let mut ada = server.login("ada").await;
    let mut bob = server.login("bob").await;
    let info = ada.execute("SELECT 42".into(), None).await.unwrap();
    assert_eq!(fetch(&mut bob, &info).await.unwrap_err().code(), Code::NotFound);
    let cancel = CancelFlightInfoRequest { info: Some(info.clone()) }.encode_to_vec();
    let refused = action(&mut bob, "CancelFlightInfo", cancel).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert_eq!(super::support::lines(&fetch(&mut ada, &info).await.unwrap()), ["42"]);
}

#[tokio::test]
async fn invented_tickets_are_refused() {
    let server = start().await;
    let mut client = server.login("ada").await;
    for handle in [vec![], vec![0; 16], vec![7; 1000], b"SELECT 1".to_vec()] {
        let invented = ticket(&TicketStatementQuery { statement_handle: handle.into() });
        let refused = client.do_get(invented).await.map(|_| ()).map_err(status).unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    }
    let garbage = Ticket { ticket: b"\xff\xfe\xfd".as_slice().into() };
    let refused = client.do_get(garbage).await.map(|_| ()).map_err(status).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_running_statement_is_cancelled_by_its_info() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let info = client.execute(endless(12), None).await.unwrap();
    let mut stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    let request = CancelFlightInfoRequest { info: Some(info.clone()) }.encode_to_vec();
    let bodies = action(&mut client, "CancelFlightInfo", request.clone()).await.unwrap();
    let result = CancelFlightInfoResult::decode(bodies[0].clone()).unwrap();
    assert_eq!(result.status(), CancelStatus::Cancelled);
    let end = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert_eq!(status(end.unwrap().unwrap_err()).code(), Code::Cancelled);
    let again = action(&mut client, "CancelFlightInfo", request).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    assert_eq!(rows(&mut client, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn a_running_statement_is_cancelled_by_cancel_query() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let info = client.execute(endless(12), None).await.unwrap();
    let mut stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    let request = packed(&ActionCancelQueryRequest { info: info.encode_to_vec().into() });
    let mut bob = server.login("bob").await;
    let refused = action(&mut bob, "CancelQuery", request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(stream.next().await.unwrap().is_ok());
    let bodies = action(&mut client, "CancelQuery", request.clone()).await.unwrap();
    assert_eq!(unpacked::<ActionCancelQueryResult>(&bodies[0]).result, 1);
    let end = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert_eq!(status(end.unwrap().unwrap_err()).code(), Code::Cancelled);
    let again = action(&mut client, "CancelQuery", request).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    assert_eq!(rows(&mut client, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn a_waiting_statement_is_cancelled_by_cancel_query() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let info = client.execute("SELECT 1".into(), None).await.unwrap();
    let request = ActionCancelQueryRequest { info: info.encode_to_vec().into() };
    let bodies = action(&mut client, "CancelQuery", packed(&request)).await.unwrap();
    assert_eq!(unpacked::<ActionCancelQueryResult>(&bodies[0]).result, 1);
    assert_eq!(fetch(&mut client, &info).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_text_of_ten_megabytes_is_refused_and_the_server_answers_on() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let text = format!("SELECT '{}'", "x".repeat(10_000_000));
    let (code, message) = failure(&mut client, &text).await;
    assert!(matches!(code, Code::ResourceExhausted | Code::InvalidArgument), "{code}: {message}");
    assert!(message.starts_with("ATT-"), "{message}");
    assert_eq!(rows(&mut client, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn errors_have_a_code_a_sentence_and_a_class() {
    let server = start().await;
    let mut client = server.login("ada").await;
    for (text, expected) in [
        ("SELEC 1", Code::InvalidArgument),
        ("SELECT nothing FROM nowhere", Code::NotFound),
        ("SELECT 1 +", Code::InvalidArgument),
        ("", Code::InvalidArgument),
    ] {
        let (code, message) = failure(&mut client, text).await;
        let known = code == expected || code == Code::InvalidArgument;
        assert!(known && message.starts_with("ATT-"), "{text}: {code} {message}");
    }
}

#[tokio::test]
async fn an_error_in_the_middle_ends_the_stream_with_a_status() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let text = "SELECT 1 / (n - 5) FROM (VALUES (1), (5)) AS t(n)";
    let info = client.execute(text.into(), None).await.unwrap();
    let failed = fetch(&mut client, &info).await.unwrap_err();
    assert_ne!(failed.code(), Code::Ok);
    assert!(failed.message().starts_with("ATT-"), "{}", failed.message());
}

#[tokio::test]
async fn what_there_is_not_is_unimplemented() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let inside = CommandStatementQuery {
        query: "SELECT 1".into(),
        transaction_id: Some(b"t".as_slice().into()),
    };
    let substrait = CommandStatementSubstraitPlan::default();
    for descriptor in [descriptor(&inside), descriptor(&substrait)] {
        let request = authorized(&client, descriptor);
        let refused = client.inner_mut().get_flight_info(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{}", refused.message());
    }
    for descriptor in [descriptor(&inside), descriptor(&substrait)] {
        let poll = authorized(&client, descriptor.clone());
        let refused = client.inner_mut().poll_flight_info(poll).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        let schema = authorized(&client, descriptor);
        let refused = client.inner_mut().get_schema(schema).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
    }
    let put = arrow_flight::FlightData {
        flight_descriptor: Some(descriptor(&substrait)),
        ..arrow_flight::FlightData::default()
    };
    let refused = client.do_put(futures::stream::iter([put])).await.map_err(status).unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let plan = packed(&ActionCreatePreparedSubstraitPlanRequest::default());
    for (name, body) in [
        ("CreatePreparedSubstraitPlan", plan),
        ("BeginSavepoint", Vec::new()),
        ("EndSavepoint", Vec::new()),
        ("EndTransaction", Vec::new()),
        ("Invented", Vec::new()),
    ] {
        let refused = action(&mut client, name, body).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{name}");
    }
    let refused = client.begin_transaction().await.map_err(status).unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    // A command in the wrong call is the client's mistake, not a missing feature.
    let misplaced = authorized(&client, descriptor(&CommandStatementUpdate::default()));
    let refused = client.inner_mut().get_flight_info(misplaced).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn messages_that_are_none_are_the_clients_fault_in_every_call() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let any = arrow_flight::sql::Any {
        type_url: "type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery".into(),
        value: b"\xff\xff\xff".as_slice().into(),
    };
    let whole =
        descriptor(&CommandStatementQuery { query: "SELECT 1".into(), ..Default::default() });
    let cut = whole.cmd.slice(..whole.cmd.len() - 3);
    for bytes in [Vec::new(), b"\xff".to_vec(), any.encode_to_vec(), cut.to_vec()] {
        let wrong = arrow_flight::FlightDescriptor::new_cmd(bytes.clone());
        let request = authorized(&client, wrong.clone());
        let info = client.inner_mut().get_flight_info(request).await.unwrap_err();
        let request = authorized(&client, wrong.clone());
        let poll = client.inner_mut().poll_flight_info(request).await.unwrap_err();
        let request = authorized(&client, wrong);
        let schema = client.inner_mut().get_schema(request).await.unwrap_err();
        let ticket = Ticket { ticket: bytes.into() };
        let get = client.do_get(ticket).await.map(|_| ()).map_err(status).unwrap_err();
        for refused in [info, poll, schema, get] {
            assert_eq!(refused.code(), Code::InvalidArgument, "{}", refused.message());
            assert!(refused.message().starts_with("ATT-"), "{}", refused.message());
        }
    }
    for name in ["CreatePreparedStatement", "CancelQuery", "CancelFlightInfo", "SetSessionOptions"]
    {
        let refused = action(&mut client, name, b"\xff\xff".to_vec()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}");
    }
}

#[tokio::test]
async fn calls_without_credentials_are_refused_before_anything_else() {
    let server = start().await;
    let mut client = server.stranger().await;
    let inner = client.inner_mut();
    let nothing = arrow_flight::FlightDescriptor::new_cmd(b"\xff".as_slice());
    let refused = [
        inner.get_flight_info(nothing.clone()).await.unwrap_err(),
        inner.poll_flight_info(nothing.clone()).await.unwrap_err(),
        inner.get_schema(nothing).await.unwrap_err(),
        inner.do_get(Ticket::default()).await.unwrap_err(),
        inner.do_put(futures::stream::iter([])).await.unwrap_err(),
        inner.do_exchange(futures::stream::iter([])).await.unwrap_err(),
        inner.do_action(arrow_flight::Action::default()).await.unwrap_err(),
        inner.list_actions(arrow_flight::Empty {}).await.unwrap_err(),
        inner.list_flights(arrow_flight::Criteria::default()).await.unwrap_err(),
    ];
    for status in refused {
        assert_eq!(status.code(), Code::Unauthenticated, "{}", status.message());
    }
}

#[tokio::test]
async fn a_user_holds_a_limited_number_of_tickets() {
    let mut options = super::support::options();
    options.handles_per_user_max = 3;
    let server = start_with(options).await;
    let mut ada = server.login("ada").await;
    for _ in 0..3 {
        ada.execute("SELECT 1".into(), None).await.unwrap();
    }
    let (code, _) = failure(&mut ada, "SELECT 1").await;
    assert_eq!(code, Code::ResourceExhausted);
    let mut bob = server.login("bob").await;
    assert_eq!(rows(&mut bob, "SELECT 1").await, ["1"]);
}

pub fn authorized<T>(client: &super::support::Client, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let token = client.token().unwrap();
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}
