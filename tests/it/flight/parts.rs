//! Large results in several endpoints: a disjoint cover, any replica, the caller's rights.

use std::collections::BTreeSet;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow_flight::sql::Any;
use arrow_flight::{FlightEndpoint, FlightInfo, RenewFlightEndpointRequest, Ticket};
use futures::TryStreamExt;
use prost::Message;
use tonic::Code;

use super::support::{Client, TestServer, action, failure, rows, start, status};

const QUERY: &str = "SELECT n, n * 2 AS twice FROM wide WHERE n % 3 <> 1";

/// A table of several files, and a client that asks for four endpoints.
async fn wide() -> (TestServer, Client) {
    let server = start().await;
    let mut client = server.login("root").await;
    let create = "CREATE TABLE wide AS SELECT value AS n FROM generate_series(1, 100000)";
    client.execute_update(create.into(), None).await.unwrap();
    for file in 1..4 {
        let (low, high) = (file * 100_000 + 1, (file + 1) * 100_000);
        let text = format!("INSERT INTO wide SELECT value FROM generate_series({low}, {high})");
        client.execute_update(text, None).await.unwrap();
    }
    client.set_header("attune-endpoints", "4");
    (server, client)
}

async fn run(client: &mut Client, text: &str) {
    client.execute_update(text.into(), None).await.unwrap();
}

async fn read(client: &mut Client, ticket: Ticket) -> Result<Vec<i64>, tonic::Status> {
    let stream = client.do_get(ticket).await.map_err(status)?;
    let batches: Vec<_> = stream.try_collect().await.map_err(status)?;
    let values = batches.iter().flat_map(|batch| {
        batch.column(0).as_primitive::<Int64Type>().values().iter().copied().collect::<Vec<_>>()
    });
    Ok(values.collect())
}

fn tickets(info: &FlightInfo) -> Vec<Ticket> {
    info.endpoint.iter().map(|endpoint| endpoint.ticket.clone().unwrap()).collect()
}

#[tokio::test]
async fn the_parts_are_the_result_once() {
    let (_server, mut client) = wide().await;
    let info = client.execute(QUERY.into(), None).await.unwrap();
    assert!(info.endpoint.len() > 1, "{}", info.endpoint.len());
    assert!(!info.ordered && info.endpoint.iter().all(|part| part.expiration_time.is_some()));
    let mut seen = BTreeSet::new();
    let mut parts = Vec::new();
    for ticket in tickets(&info) {
        let values = read(&mut client, ticket.clone()).await.unwrap();
        // A ticket of a part may be read again: it is a query, and holds no state.
        assert_eq!(read(&mut client, ticket).await.unwrap().len(), values.len());
        parts.push(values.len());
        for value in values {
            assert!(seen.insert(value), "{value} came twice");
        }
    }
    let expected: BTreeSet<i64> = (1..=400_000).filter(|n| n % 3 != 1).collect();
    assert_eq!(seen, expected);
    assert!(parts.iter().filter(|rows| **rows > 0).count() > 1, "{parts:?}");
}

#[tokio::test]
async fn parts_show_one_version_of_the_table() {
    let (_server, mut client) = wide().await;
    let info = client.execute(QUERY.into(), None).await.unwrap();
    client.execute_update("INSERT INTO wide VALUES (-3)".into(), None).await.unwrap();
    let mut rows = 0;
    for ticket in tickets(&info) {
        let values = read(&mut client, ticket).await.unwrap();
        assert!(!values.contains(&-3));
        rows += values.len();
    }
    assert_eq!(rows, (1..=400_000).filter(|n| n % 3 != 1).count());
    client.execute_update("DROP TABLE wide".into(), None).await.unwrap();
    let gone = read(&mut client, tickets(&info).remove(0)).await.unwrap_err();
    assert_ne!(gone.code(), Code::Ok);
}

#[tokio::test]
async fn what_cannot_be_cut_for_certain_comes_in_one() {
    let (_server, mut client) = wide().await;
    for text in [
        "SELECT n FROM wide ORDER BY n",
        "SELECT n FROM wide LIMIT 300000",
        "SELECT count(*) FROM wide",
        "SELECT DISTINCT n FROM wide",
        "SELECT a.n FROM wide a JOIN wide b ON a.n = b.n",
        "SELECT n, random() AS r FROM wide",
        "SELECT n, now() AS t FROM wide",
        "SELECT n FROM wide WHERE n IN (SELECT n FROM wide)",
        "SELECT value FROM generate_series(1, 1000000)",
        "SELECT n FROM wide WHERE n < 10",
    ] {
        let info = client.execute(text.into(), None).await.unwrap();
        assert!(info.endpoint.len() == 1 || text.contains("n < 10"), "{text}");
    }
    client.set_header("attune-endpoints", "1");
    assert_eq!(client.execute(QUERY.into(), None).await.unwrap().endpoint.len(), 1);
    for wrong in ["0", "65", "many"] {
        client.set_header("attune-endpoints", wrong);
        let refused = client.execute(QUERY.into(), None).await.map_err(status).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn tickets_are_for_their_user_and_nobody_forges_one() {
    let (server, mut client) = wide().await;
    let info = client.execute(QUERY.into(), None).await.unwrap();
    let good = tickets(&info).remove(0);
    let mut bob = server.login("bob").await;
    assert_eq!(read(&mut bob, good.clone()).await.unwrap_err().code(), Code::NotFound);
    let any = Any::decode(good.ticket.clone()).unwrap();
    let text = String::from_utf8(any.value.to_vec()).unwrap();
    let parts: Vec<&str> = text.split('.').collect();
    let forged = [
        String::new(),
        "x.y.z".to_owned(),
        parts[..2].join("."),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}x.{}", parts[0], parts[1], parts[2]),
        // A session token of the same user is signed with the same secret for another purpose.
        client.token().unwrap().clone(),
    ];
    for text in forged {
        let any = Any { type_url: any.type_url.clone(), value: text.clone().into() };
        let ticket = Ticket { ticket: any.encode_to_vec().into() };
        let refused = read(&mut client, ticket).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{text}");
    }
    let endpoint = Some(info.endpoint[0].clone());
    let request = RenewFlightEndpointRequest { endpoint }.encode_to_vec();
    let refused = action(&mut bob, "RenewFlightEndpoint", request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let bodies = action(&mut client, "RenewFlightEndpoint", request).await.unwrap();
    let renewed = FlightEndpoint::decode(bodies[0].clone()).unwrap();
    assert!(renewed.expiration_time.is_some());
    for ticket in [good, renewed.ticket.unwrap()] {
        assert!(!read(&mut client, ticket).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn another_server_serves_every_part() {
    let (server, mut client) = wide().await;
    let info = client.execute(QUERY.into(), None).await.unwrap();
    assert!(info.endpoint.len() > 1, "{}", info.endpoint.len());
    // It never saw the query, and opens a session for the token with the first part.
    let replica = server.replica().await;
    let mut there = replica.bearer(client.token().unwrap()).await;
    let mut seen = BTreeSet::new();
    for ticket in tickets(&info) {
        for value in read(&mut there, ticket).await.unwrap() {
            assert!(seen.insert(value), "{value} came twice");
        }
    }
    let expected: BTreeSet<i64> = (1..=400_000).filter(|n| n % 3 != 1).collect();
    assert_eq!(seen, expected);
    let mut bob = replica.login("bob").await;
    let foreign = read(&mut bob, tickets(&info).remove(0)).await.unwrap_err();
    assert_eq!(foreign.code(), Code::NotFound);
}

#[tokio::test]
async fn a_ticket_ends_with_its_time_and_a_renewed_one_later() {
    const MINUTE: Duration = Duration::from_secs(60);
    let (server, mut client) = wide().await;
    let replica = server.replica().await;
    let mut there = replica.bearer(client.token().unwrap()).await;
    let info = client.execute(QUERY.into(), None).await.unwrap();
    let first = tickets(&info).remove(0);
    // A ticket lives for half an hour.
    server.later(20 * MINUTE);
    let endpoint = Some(info.endpoint[0].clone());
    let request = RenewFlightEndpointRequest { endpoint }.encode_to_vec();
    let bodies = action(&mut there, "RenewFlightEndpoint", request).await.unwrap();
    let renewed = FlightEndpoint::decode(bodies[0].clone()).unwrap().ticket.unwrap();
    assert!(!read(&mut client, first.clone()).await.unwrap().is_empty());
    server.later(15 * MINUTE);
    for reader in [&mut client, &mut there] {
        let ended = read(reader, first.clone()).await.unwrap_err();
        assert_eq!(ended.code(), Code::NotFound, "{}", ended.message());
        assert!(!read(reader, renewed.clone()).await.unwrap().is_empty());
    }
    server.later(20 * MINUTE);
    assert_eq!(read(&mut there, renewed).await.unwrap_err().code(), Code::NotFound);
    // The login lives on.
    assert_eq!(rows(&mut client, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn rights_that_are_gone_since_the_offer_count() {
    let (server, mut root) = wide().await;
    run(&mut root, "GRANT SELECT ON wide TO ada").await;
    let mut ada = server.login("ada").await;
    ada.set_header("attune-endpoints", "4");
    let info = ada.execute(QUERY.into(), None).await.unwrap();
    assert!(info.endpoint.len() > 1, "{}", info.endpoint.len());
    let first = || tickets(&info).remove(0);
    assert!(!read(&mut ada, first()).await.unwrap().is_empty());
    run(&mut root, "REVOKE SELECT ON wide FROM ada").await;
    let revoked = read(&mut ada, first()).await.unwrap_err();
    assert_eq!(revoked.code(), Code::NotFound, "{}", revoked.message());
    assert!(revoked.message().contains("wide"), "{}", revoked.message());
    run(&mut root, "GRANT SELECT ON wide TO ada").await;
    assert!(!read(&mut ada, first()).await.unwrap().is_empty());
    run(&mut root, "DROP USER ada").await;
    let gone = read(&mut ada, first()).await.unwrap_err();
    let refused = matches!(gone.code(), Code::Unauthenticated | Code::PermissionDenied);
    assert!(refused, "{}: {}", gone.code(), gone.message());
    let (code, message) = failure(&mut ada, "SELECT 1").await;
    assert!(matches!(code, Code::Unauthenticated | Code::PermissionDenied), "{code}: {message}");
}
