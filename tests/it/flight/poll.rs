//! PollFlightInfo: started once, watched, fetched, cancelled, abandoned; and endpoints renewed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use arrow::array::Array;
use arrow_flight::sql::CommandStatementQuery;
use arrow_flight::{
    CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor,
    FlightEndpoint, PollInfo, RenewFlightEndpointRequest,
};
use futures::StreamExt;
use prost::Message;
use tonic::{Code, Status};

use super::prepared::{bind, created, one};
use super::statements::authorized;
use super::support::{
    self, Client, action, descriptor, endless, fetch, options, rows, start, start_with,
};

async fn poll(client: &mut Client, descriptor: FlightDescriptor) -> Result<PollInfo, Status> {
    let request = authorized(client, descriptor);
    Ok(client.inner_mut().poll_flight_info(request).await?.into_inner())
}

fn statement(text: &str) -> FlightDescriptor {
    descriptor(&CommandStatementQuery { query: text.into(), transaction_id: None })
}

/// Polls to the end; the answers on the way.
async fn poll_to_end(
    client: &mut Client,
    descriptor: FlightDescriptor,
) -> Result<Vec<PollInfo>, Status> {
    let mut answers = vec![poll(client, descriptor).await?];
    while let Some(again) = answers.last().unwrap().flight_descriptor.clone() {
        answers.push(poll(client, again).await?);
    }
    Ok(answers)
}

/// A query that needs a while to its first row.
fn slow() -> String {
    "SELECT sum(value) AS n FROM generate_series(1, 1000000000000)".to_owned()
}

fn said(answer: &PollInfo) -> serde_json::Value {
    serde_json::from_slice(&answer.info.as_ref().unwrap().app_metadata).unwrap()
}

/// The answers are about one statement, and within a phase its progress never falls.
fn tell_one_statement(answers: &[PollInfo]) {
    let id = said(&answers[0])["query_id"].clone();
    assert!(id.is_string(), "{answers:?}");
    let mut phases = BTreeMap::new();
    for answer in answers {
        assert_eq!(said(answer)["query_id"], id, "{answers:?}");
        let Some(progress) = answer.progress else { continue };
        assert!((0.0..=1.0).contains(&progress), "{answer:?}");
        let phase = said(answer)["phase"].as_str().unwrap_or_default().to_owned();
        let before = phases.insert(phase, progress).unwrap_or(0.0);
        assert!(before <= progress, "{answers:?}");
    }
}

#[tokio::test]
async fn a_short_query_is_there_with_the_first_poll() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let answers =
        poll_to_end(&mut client, statement("SELECT 1 AS a UNION ALL SELECT 2")).await.unwrap();
    let last = answers.last().unwrap();
    assert_eq!(last.progress, Some(1.0));
    let info = last.info.clone().unwrap();
    assert!(info.endpoint[0].expiration_time.is_some());
    assert_eq!(support::schema(&info).field(0).name(), "a");
    assert_eq!(support::lines(&fetch(&mut client, &info).await.unwrap()), ["1", "2"]);
    assert_eq!(fetch(&mut client, &info).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_polled_change_happens_once() {
    let server = start().await;
    let mut client = server.login("root").await;
    client.execute_update("CREATE TABLE once AS SELECT 1 AS n".into(), None).await.unwrap();
    let answers =
        poll_to_end(&mut client, statement("INSERT INTO once SELECT 2 AS n")).await.unwrap();
    let last = answers.last().unwrap();
    assert_eq!(said(last)["rows_affected"], 1);
    assert!(said(last)["message"].as_str().unwrap().contains("INSERT"));
    assert_eq!(rows(&mut client, "SELECT n FROM once").await, ["1", "2"]);
    let info = last.info.clone().unwrap();
    assert!(info.schema.is_empty());
    fetch(&mut client, &info).await.unwrap();
    assert_eq!(rows(&mut client, "SELECT n FROM once").await, ["1", "2"]);
}

#[tokio::test]
async fn a_long_query_is_watched_under_one_id() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let first = poll(&mut client, statement(&slow())).await.unwrap();
    let again = first.flight_descriptor.clone().unwrap();
    assert!(first.expiration_time.is_some());
    assert!(first.info.as_ref().unwrap().endpoint.is_empty());
    let id = said(&first)["query_id"].as_str().unwrap().to_owned();
    let running = |server: &support::TestServer| {
        let records = server.engine.queries().records();
        records.iter().filter(|record| record.id == id && record.state == "running").count()
    };
    assert_eq!(running(&server), 1);
    let second = poll(&mut client, again.clone()).await.unwrap();
    assert_eq!(said(&second)["query_id"], id);
    assert_eq!(server.engine.queries().records().len(), 1);
    let mut bob = server.login("bob").await;
    assert_eq!(poll(&mut bob, again.clone()).await.unwrap_err().code(), Code::NotFound);
    let cancel = CancelFlightInfoRequest { info: second.info }.encode_to_vec();
    let refused = action(&mut bob, "CancelFlightInfo", cancel.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let bodies = action(&mut client, "CancelFlightInfo", cancel).await.unwrap();
    let result = CancelFlightInfoResult::decode(bodies[0].clone()).unwrap();
    assert_eq!(result.status(), CancelStatus::Cancelled);
    assert_eq!(poll(&mut client, again).await.unwrap_err().code(), Code::NotFound);
    until(|| running(&server) == 0).await;
}

#[tokio::test]
async fn a_poller_that_is_lost_ends_the_statement() {
    let handle_ttl = Duration::from_millis(300);
    let server =
        start_with(attune::server::flight::FlightOptions { handle_ttl, ..options() }).await;
    let mut client = server.login("ada").await;
    poll(&mut client, statement(&slow())).await.unwrap();
    // The second is ready, and nobody fetches it.
    poll_to_end(&mut client, statement(&endless(7))).await.unwrap();
    let running = || {
        let records = server.engine.queries().records();
        records.iter().filter(|record| record.state == "running").count()
    };
    until(|| running() == 0).await;
}

/// Waits for what comes within a bounded time.
async fn until(done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
}

#[tokio::test]
async fn a_failure_is_told_to_the_poller_with_the_statements_id() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let text = "SELECT 1 / (n - 1) FROM (VALUES (1)) AS t(n)";
    let failed = poll_to_end(&mut client, statement(text)).await.unwrap_err();
    assert_eq!(failed.code(), Code::InvalidArgument);
    let id = failed.metadata().get("attune-query-id").unwrap().to_str().unwrap().to_owned();
    assert!(server.engine.queries().records().iter().any(|record| record.id == id));
}

#[tokio::test]
async fn metadata_can_be_polled_and_open_placeholders_cannot() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let tables = descriptor(&arrow_flight::sql::CommandGetTableTypes {});
    let answer = poll(&mut client, tables).await.unwrap();
    assert!(answer.flight_descriptor.is_none());
    let info = answer.info.unwrap();
    assert_eq!(fetch(&mut client, &info).await.unwrap()[0].num_rows(), 3);
    let refused = poll(&mut client, statement("SELECT ?")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_prepared_statement_is_polled_with_the_values_bound_last() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let command = created(&mut client, "SELECT CAST(? AS BIGINT) + 1 AS n").await;
    let unbound = poll(&mut client, descriptor(&command)).await.unwrap_err();
    assert_eq!(unbound.code(), Code::InvalidArgument, "{}", unbound.message());
    let mut ids = BTreeSet::new();
    for (value, expected) in [(41, "42"), (7, "8"), (7, "8")] {
        bind(&mut client, &command, one(value)).await;
        let answers = poll_to_end(&mut client, descriptor(&command)).await.unwrap();
        tell_one_statement(&answers);
        let last = answers.last().unwrap();
        assert_eq!(last.progress, Some(1.0));
        let info = last.info.clone().unwrap();
        assert_eq!(support::schema(&info).field(0).name(), "n");
        assert_eq!(support::lines(&fetch(&mut client, &info).await.unwrap()), [expected]);
        assert_eq!(fetch(&mut client, &info).await.unwrap_err().code(), Code::NotFound);
        ids.insert(said(last)["query_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 3, "each poll of the command is a run of its own");
    let mut bob = server.login("bob").await;
    let foreign = poll(&mut bob, descriptor(&command)).await.unwrap_err();
    assert_eq!(foreign.code(), Code::NotFound);

    let long = created(&mut client, &slow()).await;
    let first = poll(&mut client, descriptor(&long)).await.unwrap();
    let again = first.flight_descriptor.clone().unwrap();
    let second = poll(&mut client, again.clone()).await.unwrap();
    tell_one_statement(&[first, second.clone()]);
    let cancel = CancelFlightInfoRequest { info: second.info }.encode_to_vec();
    action(&mut client, "CancelFlightInfo", cancel).await.unwrap();
    assert_eq!(poll(&mut client, again).await.unwrap_err().code(), Code::NotFound);
}

fn training(iterations: usize) -> String {
    format!(
        "CREATE MODEL watched OPTIONS (model_type = 'matrix_factorization', \
         num_factors = 16, max_iterations = {iterations}) AS \
         SELECT u.value AS user_id, (u.value * 7919 + i.value * 104729) % 900 AS item_id, \
         1.0 AS rating FROM generate_series(1, 500) AS u CROSS JOIN generate_series(1, 30) AS i"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_training_of_a_model_tells_how_far_it_is() {
    let server = start().await;
    let mut client = server.login("root").await;
    // One that lasts: each answer brings news of the same statement.
    let mut answers = vec![poll(&mut client, statement(&training(10_000))).await.unwrap()];
    let again = answers[0].flight_descriptor.clone().unwrap();
    let trained = |answers: &[PollInfo]| {
        let trains = answers.iter().filter(|answer| said(answer)["phase"] == "training");
        trains.filter_map(|answer| answer.progress).collect::<Vec<f64>>()
    };
    let watched = async {
        // Until it has been seen to come further.
        while trained(&answers).first() >= trained(&answers).last() {
            let answer = poll(&mut client, again.clone()).await.unwrap();
            assert_eq!(answer.flight_descriptor.as_ref(), Some(&again));
            assert!(answer.info.as_ref().unwrap().endpoint.is_empty());
            answers.push(answer);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), watched).await.unwrap();
    tell_one_statement(&answers);
    let cancel = CancelFlightInfoRequest { info: answers.pop().unwrap().info }.encode_to_vec();
    action(&mut client, "CancelFlightInfo", cancel).await.unwrap();

    let answers = poll_to_end(&mut client, statement(&training(10))).await.unwrap();
    tell_one_statement(&answers);
    let last = answers.last().unwrap();
    assert_eq!(last.progress, Some(1.0));
    assert!(said(last)["message"].as_str().unwrap().contains("CREATE MODEL main.watched@1"));
}

#[tokio::test]
async fn a_waiting_ticket_is_renewed_and_a_used_one_is_not() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let info = client.execute("SELECT 1".into(), None).await.unwrap();
    let endpoint = info.endpoint[0].clone();
    let first = endpoint.expiration_time.unwrap();
    let renew = |endpoint: FlightEndpoint| {
        RenewFlightEndpointRequest { endpoint: Some(endpoint) }.encode_to_vec()
    };
    let request = renew(endpoint.clone());
    let bodies = action(&mut client, "RenewFlightEndpoint", request.clone()).await.unwrap();
    let renewed = FlightEndpoint::decode(bodies[0].clone()).unwrap();
    assert_eq!(renewed.ticket, endpoint.ticket);
    let time = |time| SystemTime::try_from(time).unwrap();
    assert!(time(renewed.expiration_time.unwrap()) >= time(first));
    let mut bob = server.login("bob").await;
    let refused = action(&mut bob, "RenewFlightEndpoint", request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    fetch(&mut client, &info).await.unwrap();
    let refused = action(&mut client, "RenewFlightEndpoint", request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    // A metadata command is its own ticket, which never ends.
    let types = client.get_table_types().await.unwrap();
    let request = renew(types.endpoint[0].clone());
    let bodies = action(&mut client, "RenewFlightEndpoint", request).await.unwrap();
    assert!(FlightEndpoint::decode(bodies[0].clone()).unwrap().expiration_time.is_none());
    for wrong in [Vec::new(), b"\xff\xff".to_vec(), renew(FlightEndpoint::new())] {
        let refused = action(&mut client, "RenewFlightEndpoint", wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn rows_come_under_the_id_that_the_info_announced() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let info = client.execute("SELECT 1".into(), None).await.unwrap();
    let said: serde_json::Value = serde_json::from_slice(&info.app_metadata).unwrap();
    let mut stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let header = stream.headers().get("attune-query-id").unwrap().to_str().unwrap().to_owned();
    assert_eq!(said["query_id"], header);
    while stream.next().await.is_some() {}
    let records = server.engine.queries().records();
    assert_eq!(records.last().unwrap().id, header);
}

#[tokio::test]
async fn results_are_compressed_on_request_and_a_wrong_name_is_an_error() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let text = "SELECT 'the same text again and again' AS t FROM generate_series(1, 20000)";
    let mut sizes = Vec::new();
    for name in ["none", "lz4", "zstd"] {
        let info = client.execute(text.into(), None).await.unwrap();
        let mut request = authorized(&client, info.endpoint[0].ticket.clone().unwrap());
        request.metadata_mut().insert("attune-compression", name.parse().unwrap());
        let mut messages = client.inner_mut().do_get(request).await.unwrap().into_inner();
        let mut bytes = 0;
        while let Some(message) = messages.message().await.unwrap() {
            bytes += message.data_body.len();
        }
        sizes.push(bytes);
    }
    assert!(sizes[1] * 4 < sizes[0] && sizes[2] * 4 < sizes[0], "{sizes:?}");
    let text = "SELECT n, concat('text ', n % 10) AS t, nullif(n % 3, 0) AS rest, \
                make_array(n, NULL) AS list FROM generate_series(1, 20000) AS s(n) ORDER BY n";
    let mut read = Vec::new();
    for name in ["none", "lz4", "zstd"] {
        client.set_header("attune-compression", name);
        let info = client.execute(text.into(), None).await.unwrap();
        let batches = fetch(&mut client, &info).await.unwrap();
        read.push(arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap());
    }
    assert_eq!((read[0].num_rows(), read[0].column(2).null_count()), (20_000, 6_666));
    assert!(read[1] == read[0] && read[2] == read[0], "a compressed result is another");
    client.set_header("attune-compression", "rar");
    let (code, message) = support::failure(&mut client, "SELECT 1").await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.contains("lz4"), "{message}");
}

#[tokio::test]
async fn polls_count_among_the_statements_a_user_holds() {
    let mut options = options();
    options.handles_per_user_max = 2;
    let server = start_with(options).await;
    let mut client = server.login("ada").await;
    for _ in 0..2 {
        poll(&mut client, statement(&slow())).await.unwrap();
    }
    let refused = poll(&mut client, statement(&slow())).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
}
