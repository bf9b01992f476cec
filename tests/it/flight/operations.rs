//! Running a server: slots and their queue, killing, readers that go or stay away, health.

use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::StreamExt;
use sql::{Limits, State};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::support::{
    TestServer, endless, failure, fetch, options, rows, start, start_limited, start_with, status,
};

const SECOND: Duration = Duration::from_secs(1);

fn slots(slots: usize, queue: usize) -> Limits {
    let queue_wait = Duration::from_secs(30);
    Limits { statements_max: Some(slots), queue_max: queue, queue_wait, ..Limits::default() }
}

/// Id and state of the statements of one text, the youngest last.
fn logged(server: &TestServer, text: &str) -> Vec<(String, State)> {
    let log = server.engine.queries().records();
    let mine = log.into_iter().filter(|record| record.text.contains(text));
    mine.map(|record| (record.id, record.state)).collect()
}

/// Waits, at most a second, until a condition holds.
async fn within_a_second(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < SECOND, "not within a second: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_slot_waits_and_can_be_seen_and_helped() {
    let server = start_limited(slots(1, 10)).await;
    let mut ada = server.login("ada").await;
    let info = ada.execute(endless(12), None).await.unwrap();
    let mut stream = ada.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    let mut bob = server.login("bob").await;
    let waits = tokio::spawn(async move { rows(&mut bob, "SELECT 42 AS waits").await });
    within_a_second("bob waits", || server.engine.admission().waiting() == 1).await;

    // An administrator looks around and lets bob in, without a slot.
    let mut root = server.login("root").await;
    let look = "SELECT principal, state FROM system.queries WHERE state <> 'finished' \
                AND text NOT LIKE '%system%' ORDER BY principal";
    assert_eq!(rows(&mut root, look).await, ["ada|running", "bob|queued"]);
    assert!(!rows(&mut root, "SHOW SCHEMAS").await.is_empty());
    root.execute_update("SET schema = 'main'".into(), None).await.unwrap();
    let running = "SELECT id FROM system.queries WHERE principal = 'ada' AND state = 'running'";
    let id = rows(&mut root, running).await.remove(0);
    root.execute_update(format!("KILL QUERY '{id}'"), None).await.unwrap();
    assert_eq!(waits.await.unwrap(), ["42"]);
    let end = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            other => break other.unwrap().unwrap_err(),
        }
    };
    assert_eq!(status(end).code(), Code::Cancelled);
    let queued = "SELECT queued_ms > 0 FROM system.queries WHERE text LIKE '%AS waits%'";
    assert_eq!(rows(&mut root, queued).await, ["true"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_told_to_come_again() {
    let server = start_limited(slots(1, 0)).await;
    let mut ada = server.login("ada").await;
    let info = ada.execute(endless(12), None).await.unwrap();
    let mut stream = ada.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    let mut bob = server.login("bob").await;
    let (code, message) = failure(&mut bob, "SELECT 1").await;
    assert_eq!(code, Code::Unavailable, "{message}");
    assert!(message.starts_with("ATT-3005") && message.contains("try again"), "{message}");
    drop(stream);
    within_a_second("the slot is free", || server.engine.queries().current().1 == 0).await;
    assert_eq!(rows(&mut bob, "SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_killed_by_its_owner_or_an_administrator_only() {
    let server = start().await;
    let mut ada = server.login("ada").await;
    let info = ada.execute(endless(12), None).await.unwrap();
    let mut stream = ada.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    let id = logged(&server, "CROSS JOIN").pop().unwrap().0;
    let mut bob = server.login("bob").await;
    for text in [format!("KILL QUERY '{id}'"), "KILL QUERY 'nobody'".into()] {
        let (code, message) = failure(&mut bob, &text).await;
        assert_eq!(code, Code::NotFound, "{text}: {message}");
    }
    let foreign = format!("SELECT id FROM system.queries WHERE id = '{id}'");
    assert!(rows(&mut bob, &foreign).await.is_empty());
    let mut again = server.login("ada").await;
    again.execute_update(format!("KILL QUERY '{id}'"), None).await.unwrap();
    // Nobody reads the stream, and still all is free.
    within_a_second("the statement has ended", || {
        logged(&server, "CROSS JOIN").pop().unwrap().1 == State::Cancelled
    })
    .await;
    assert_eq!(server.engine.usage().memory_bytes, 0);
    assert!(!server.engine.queries().cancel(&id, |_| true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_in_mid_stream_leaves_nothing_behind() {
    let server = start_limited(slots(1, 10)).await;
    // A sort holds memory for as long as its rows are read.
    let sorted = format!("{} ORDER BY t1.n, t0.n", endless(6));
    let mut ada = server.login("ada").await;
    let info = ada.execute(sorted, None).await.unwrap();
    let mut stream = ada.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    assert!(server.engine.usage().memory_bytes > 0);
    drop((stream, ada));
    within_a_second("the statement is cancelled", || {
        logged(&server, "ORDER BY t1").pop().unwrap().1 == State::Cancelled
    })
    .await;
    within_a_second("its memory is free", || server.engine.usage().memory_bytes == 0).await;
    let mut root = server.login("root").await;
    let peak = "SELECT memory_peak_bytes > 0, rows > 0, bytes > 0 FROM system.queries \
                WHERE state = 'cancelled'";
    assert_eq!(rows(&mut root, peak).await, ["true|true|true"]);
    assert_eq!(rows(&mut root, "SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stays_away_loses_its_rows_and_hears_why() {
    let limits = Limits { reader_idle: Some(Duration::from_millis(200)), ..slots(1, 10) };
    let server = start_limited(limits).await;
    let mut ada = server.login("ada").await;
    let info = ada.execute(endless(12), None).await.unwrap();
    let mut stream = ada.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    // The only slot: it comes free without a further read.
    let mut bob = server.login("bob").await;
    assert_eq!(rows(&mut bob, "SELECT 1").await, ["1"]);
    let end = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            other => break status(other.unwrap().unwrap_err()),
        }
    };
    assert!(end.message().starts_with("ATT-3006"), "{}", end.message());
    assert_eq!(end.code(), Code::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_makes_its_limits_stricter_and_never_looser() {
    let limits = Limits { rows_max: Some(1_000), ..Limits::default() };
    let server = start_limited(limits).await;
    let mut ada = server.login("ada").await;
    let (code, message) = failure(&mut ada, &endless(4)).await;
    assert_eq!(code, Code::ResourceExhausted, "{message}");
    ada.execute_update("SET rows_max = 10".into(), None).await.unwrap();
    let (code, message) = failure(&mut ada, &endless(2)).await;
    assert!(code == Code::ResourceExhausted && message.contains("10 rows"), "{message}");
    assert_eq!(rows(&mut ada, &endless(1)).await.len(), 10);
    assert_eq!(rows(&mut ada, "SHOW rows_max").await, ["rows_max|10"]);
    let (code, message) = failure(&mut ada, "SET rows_max = 1001").await;
    assert!(code == Code::InvalidArgument && message.contains("1000"), "{message}");
    let mut other = server.login("ada").await;
    assert_eq!(rows(&mut other, &endless(2)).await.len(), 100);
    ada.execute_update("SET statement_timeout = '100 ms'".into(), None).await.unwrap();
    let summed = "SELECT sum(value) FROM generate_series(1, 1000000000000)";
    let (code, message) = failure(&mut ada, summed).await;
    assert!(code == Code::DeadlineExceeded && message.contains("100 ms"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_spilling_have_a_limit() {
    let mebibyte = 1 << 20;
    let limits = Limits {
        memory_bytes: 32 * mebibyte,
        query_memory_bytes: 16 * mebibyte,
        spill_bytes: mebibyte as u64,
        ..Limits::default()
    };
    let server = start_limited(limits).await;
    let mut ada = server.login("ada").await;
    let grouped = format!(
        "SELECT a, count(*) FROM (SELECT {} AS a FROM ({})) GROUP BY a",
        SPREAD,
        "SELECT t0.n AS n0, t1.n AS n1, t2.n AS n2, t3.n AS n3, t4.n AS n4, t5.n AS n5 FROM "
            .to_owned()
            + &joined(6)
    );
    let (code, message) = failure(&mut ada, &grouped).await;
    assert_eq!(code, Code::ResourceExhausted, "{message}");
    assert!(message.starts_with("ATT-3002"), "{message}");
    // Memory that runs out has the same code; only the disk's limit speaks of it.
    let spilled = message.contains("rows that do not fit in memory pass the limit of 1024.0 KB");
    assert!(spilled && message.contains("on disk"), "{message}");
    within_a_second("memory and disk are free", || {
        let usage = server.engine.usage();
        (usage.memory_bytes, usage.spill_bytes) == (0, 0)
    })
    .await;
    assert_eq!(rows(&mut ada, "SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_has_a_size_limit_and_is_never_cut_to_it() {
    let limits = Limits { result_bytes_max: Some(100_000), ..Limits::default() };
    let server = start_limited(limits).await;
    let mut ada = server.login("ada").await;
    let series = |rows: u32| format!("SELECT value FROM generate_series(1, {rows})");
    assert_eq!(rows(&mut ada, &series(12_000)).await.len(), 12_000);
    let (code, message) = failure(&mut ada, &series(13_000)).await;
    assert_eq!(code, Code::ResourceExhausted, "{message}");
    let told = message.starts_with("ATT-3002") && message.contains("more than 100000 bytes");
    assert!(told, "{message}");
    // What a row holds counts, in whichever form.
    for kind in ["Utf8", "Utf8View", "LargeUtf8"] {
        let wide = format!("SELECT arrow_cast(repeat('x', 100001), '{kind}') AS wide");
        let (code, message) = failure(&mut ada, &wide).await;
        assert_eq!(code, Code::ResourceExhausted, "{kind}: {message}");
    }
    assert_eq!(rows(&mut ada, "SELECT 1").await, ["1"]);
}

/// A million different long texts.
const SPREAD: &str = "repeat(concat(n0, '-', n1, '-', n2, '-', n3, '-', n4, '-', n5), 4)";

fn joined(digits: usize) -> String {
    endless(digits).split_once("FROM ").unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_login_and_tells_the_end() {
    let server = start_with(options()).await;
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", "arrow.flight.protocol.FlightService"] {
        let asked = HealthCheckRequest { service: service.into() };
        let answer = health.check(asked).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    server.shutdown.cancel();
    let last = watch.message().await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    // The watch ends, so that it does not keep the server.
    assert!(watch.message().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_shows_the_protocol() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let server = start().await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let ask =
        |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let symbol = "arrow.flight.protocol.FlightService.DoGet";
    let asked = futures::stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(symbol.into())),
    ]);
    let mut answers = client.server_reflection_info(asked).await.unwrap().into_inner();
    let mut next = async || answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = next().await else { panic!("no list") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["arrow.flight.protocol.FlightService", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let MessageResponse::FileDescriptorResponse(file) = next().await else { panic!("no file") };
    let text = String::from_utf8_lossy(&file.file_descriptor_proto[0]).into_owned();
    assert!(text.contains("FlightEndpoint") && text.contains("DoExchange"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_statement_counts_its_rows() {
    let server = start().await;
    let mut ada = server.login("ada").await;
    let info = ada.execute(endless(3), None).await.unwrap();
    let batches = fetch(&mut ada, &info).await.unwrap();
    assert_eq!(batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 1_000);
    let log = "SELECT rows FROM system.queries WHERE text LIKE '%CROSS JOIN%'";
    let info = ada.execute(log.into(), None).await.unwrap();
    let batches = fetch(&mut ada, &info).await.unwrap();
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 1_000);
    let whose = "SELECT principal, client LIKE 'tonic/%', address LIKE '127.0.0.1:%', \
                 state, queued_ms BETWEEN 0 AND 600000, run_ms BETWEEN 0 AND 600000, bytes > 0 \
                 FROM system.queries WHERE text LIKE '%CROSS JOIN%'";
    let expected = ["ada|true|true|finished|true|true|true"];
    assert_eq!(rows(&mut ada, whose).await, expected);
}
