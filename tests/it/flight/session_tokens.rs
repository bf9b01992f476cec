//! Session tokens: what they are good for, where, and until when.

use std::time::{Duration, Instant};

use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::CommandStatementQuery;
use arrow_flight::{
    Action, Criteria, Empty, FlightData, FlightDescriptor, PollInfo, SchemaResult, Ticket,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use catalog::policy::Role;
use futures::StreamExt;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::support::{action, endless, failure, handshake, options, rows, start, start_with, user};

const SECOND: Duration = Duration::from_secs(1);

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// A token with another header and body under the same signature.
fn altered(token: &str, header: &Value, body: &Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signature = token.rsplit('.').next().unwrap();
    format!("{}.{}.{signature}", encode(header), encode(body))
}

#[tokio::test]
async fn a_token_names_its_session_and_the_name_alone_opens_nothing() {
    let server = start().await;
    let mut client = server.login("ada").await;
    let token = client.token().unwrap().clone();
    assert_eq!(part(&token, 0)["alg"], "HS256");
    let claims = part(&token, 1);
    assert_eq!((claims["sub"].as_str(), claims["iss"].as_str()), (Some("ada"), Some("attune")));
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        24 * 3_600,
        "{claims}"
    );
    let id = claims["jti"].as_str().unwrap().to_owned();
    assert_eq!(
        rows(&mut client, "SELECT id FROM system.sessions").await,
        std::slice::from_ref(&id)
    );
    let mut thief = server.bearer(&id).await;
    assert_eq!(failure(&mut thief, "SELECT 1").await.0, Code::Unauthenticated);
    let mut other = server.login("bob").await;
    assert!(!rows(&mut other, "SELECT id FROM system.sessions").await.contains(&id));
}

#[tokio::test]
async fn forged_tokens_open_nothing() {
    let server = start().await;
    let client = server.login("ada").await;
    let token = client.token().unwrap().clone();
    let (header, claims) = (part(&token, 0), part(&token, 1));
    let with = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        changed
    };
    let none = json!({ "alg": "none", "typ": "JWT", "kid": header["kid"] });
    let unsigned = altered(&token, &none, &with("sub", json!("root")));
    let unsigned = unsigned.rsplit_once('.').unwrap().0.to_owned() + ".";
    let strangers = jsonwebtoken::encode(
        &jsonwebtoken::Header {
            kid: header["kid"].as_str().map(str::to_owned),
            ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256)
        },
        &claims,
        &jsonwebtoken::EncodingKey::from_secret(b"guessed"),
    );
    for forged in [
        unsigned,
        altered(&token, &none, &claims),
        altered(&token, &header, &with("sub", json!("root"))),
        altered(&token, &header, &with("aud", json!("another"))),
        altered(&token, &header, &with("exp", json!(4_000_000_000u64))),
        altered(&token, &json!({ "alg": "RS256", "kid": header["kid"] }), &claims),
        strangers.unwrap(),
        token[..token.len() - 2].to_owned(),
        token.rsplit_once('.').unwrap().0.to_owned(),
    ] {
        let mut thief = server.bearer(&forged).await;
        assert_eq!(failure(&mut thief, "SELECT 1").await.0, Code::Unauthenticated, "{forged}");
    }
    let mut owner = server.bearer(&token).await;
    assert_eq!(rows(&mut owner, "SELECT current_user()").await, ["ada"]);
}

#[tokio::test]
async fn a_token_ends_with_its_time() {
    let server = start_with(options()).await;
    let mut client = server.login("ada").await;
    assert_eq!(rows(&mut client, "SELECT 1").await, ["1"]);
    server.later(24 * 3_600 * SECOND);
    let (code, text) = failure(&mut client, "SELECT 1").await;
    assert_eq!(code, Code::Unauthenticated);
    assert!(text.contains("ATT-1502"), "{text}");
}

#[tokio::test]
async fn a_user_that_is_gone_or_has_another_password_must_log_in_again() {
    let server = start().await;
    let catalog = server.engine.catalog();
    let mut ada = server.login("ada").await;
    let mut bob = server.login("bob").await;
    catalog.drop_user("ada").await.unwrap();
    catalog.put_user(user("bob", Role::Analyst, "another"), true).await.unwrap();
    for client in [&mut ada, &mut bob] {
        assert_eq!(failure(client, "SELECT 1").await.0, Code::Unauthenticated);
    }
    let token = ada.token().unwrap().clone();
    catalog.put_user(user("ada", Role::Analyst, "ada-secret"), false).await.unwrap();
    let mut again = server.bearer(&token).await;
    assert_eq!(failure(&mut again, "SELECT 1").await.0, Code::Unauthenticated, "a new ada");
}

#[tokio::test]
async fn a_replica_takes_a_token_until_its_session_is_closed_anywhere() {
    let server = start().await;
    let replica = server.replica().await;
    let mut client = server.login("ada").await;
    let token = client.token().unwrap().clone();
    let mut there = replica.bearer(&token).await;
    assert_eq!(rows(&mut there, "SELECT current_user()").await, ["ada"]);
    let id = rows(&mut client, "SELECT id FROM system.sessions").await;
    assert_eq!(rows(&mut there, "SELECT id FROM system.sessions").await, id);
    action(&mut there, "CloseSession", "").await.unwrap();
    assert_eq!(failure(&mut there, "SELECT 1").await.0, Code::Unauthenticated);
    server.later(SECOND);
    assert_eq!(failure(&mut client, "SELECT 1").await.0, Code::Unauthenticated);
    let late = server.replica().await;
    let mut late = late.bearer(&token).await;
    assert_eq!(failure(&mut late, "SELECT 1").await.0, Code::Unauthenticated);
}

#[tokio::test]
async fn a_killed_session_is_gone_with_its_statements_and_its_token() {
    let server = start().await;
    let mut ada = server.login("ada").await;
    let mut bob = server.login("bob").await;
    let mut root = server.login("root").await;
    let id = rows(&mut ada, "SELECT id FROM system.sessions").await.remove(0);
    let kill = format!("KILL SESSION '{id}'");
    let (code, text) = failure(&mut bob, &kill).await;
    assert_eq!(code, Code::InvalidArgument, "{text}");
    let info = ada.execute(endless(12), None).await.unwrap();
    let mut stream = ada.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    let running = "SELECT principal, state, statements FROM system.sessions WHERE state = 'running' \
                   AND principal = 'ada'";
    assert_eq!(rows(&mut root, running).await, ["ada|running|1"]);
    assert_eq!(root.execute_update(kill, None).await.unwrap(), 1);
    let ended = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert!(ended.unwrap().is_err(), "a killed statement must not end as if it were whole");
    assert_eq!(failure(&mut ada, "SELECT 1").await.0, Code::Unauthenticated);
    let all = "SELECT principal FROM system.sessions";
    assert_eq!(rows(&mut root, all).await, ["bob", "root"]);
    let replica = server.replica().await;
    let mut there = replica.bearer(ada.token().unwrap()).await;
    assert_eq!(failure(&mut there, "SELECT 1").await.0, Code::Unauthenticated);
}

#[tokio::test]
async fn one_may_kill_ones_own_session() {
    let server = start().await;
    let mut ada = server.login("ada").await;
    let id = rows(&mut ada, "SELECT id FROM system.sessions").await.remove(0);
    assert_eq!(ada.execute_update(format!("KILL SESSION '{id}'"), None).await.unwrap(), 1);
    assert_eq!(failure(&mut ada, "SELECT 1").await.0, Code::Unauthenticated);
}

#[tokio::test]
async fn sessions_are_counted_and_one_too_many_is_refused() {
    let mut few = options();
    few.sessions_max = 2;
    let server = start_with(few).await;
    let ada = server.login("ada").await;
    let _bob = server.login("bob").await;
    let refused = handshake(server.channel().await, "root", "root-secret").await;
    assert_eq!(refused.0, Code::ResourceExhausted, "{}", refused.1);
    let mut ada = ada;
    action(&mut ada, "CloseSession", "").await.unwrap();
    let mut root = server.login("root").await;
    let seen = "SELECT principal, client IS NOT NULL, address LIKE '127.0.0.1:%', state \
                FROM system.sessions ORDER BY 1";
    assert_eq!(rows(&mut root, seen).await, ["bob|true|true|idle", "root|true|true|idle"]);
}

#[tokio::test]
async fn a_session_that_nobody_uses_ends_and_one_whose_rows_are_read_does_not() {
    let mut short = options();
    short.session_idle = 6 * SECOND;
    let server = start_with(short).await;
    let mut ada = server.login("ada").await;
    let mut bob = server.login("bob").await;
    let info = bob.execute(endless(12), None).await.unwrap();
    let mut stream = bob.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert_eq!(rows(&mut ada, "SELECT 1").await, ["1"]);
    let started = Instant::now();
    while started.elapsed() < 7 * SECOND {
        assert!(stream.next().await.unwrap().is_ok());
        tokio::time::sleep(SECOND / 20).await;
    }
    let (code, message) = failure(&mut ada, "SELECT 1").await;
    assert_eq!(code, Code::Unauthenticated, "{message}");
    assert!(message.contains("ATT-1502"), "{message}");
    assert!(stream.next().await.unwrap().is_ok());
    assert_eq!(rows(&mut bob, "SELECT current_user()").await, ["bob"]);
    let mut ada = server.login("ada").await;
    assert_eq!(rows(&mut ada, "SELECT 1").await, ["1"]);
}

#[tokio::test]
async fn a_cookie_opens_nothing_and_changes_no_session() {
    let server = start().await;
    let mut ada = server.login("ada").await;
    ada.execute_update("SET purpose = 'research'".into(), None).await.unwrap();
    let token = ada.token().unwrap().clone();
    let own = "SELECT id FROM system.sessions";
    let adas = rows(&mut ada, own).await.remove(0);
    let mut bob = server.login("bob").await;
    let bobs = rows(&mut bob, own).await;
    for cookie in [
        format!("arrow_flight_session_id={adas}"),
        format!("session={adas}; arrow_flight_session={adas}; token={token}"),
        format!("authorization=Bearer {token}; Authorization=Bearer%20{token}"),
    ] {
        let mut stranger = server.stranger().await;
        stranger.set_header("cookie", cookie.clone());
        let (code, message) = failure(&mut stranger, "SELECT 1").await;
        assert_eq!(code, Code::Unauthenticated, "{cookie}: {message}");
        bob.set_header("cookie", cookie);
        let who = "SELECT current_user(), current_purpose() IS NULL";
        assert_eq!(rows(&mut bob, who).await, ["bob|true"]);
        assert_eq!(rows(&mut bob, own).await, bobs);
        bob.execute_update("SET time_zone = '+05:00'".into(), None).await.unwrap();
    }
    // What bob's cookies named is as it was, and closing bob's session closes bob's.
    assert_eq!(rows(&mut ada, "SELECT current_purpose()").await, ["research"]);
    assert_eq!(rows(&mut ada, "SHOW time_zone").await, ["time_zone|+00:00"]);
    action(&mut bob, "CloseSession", "").await.unwrap();
    assert_eq!(failure(&mut bob, "SELECT 1").await.0, Code::Unauthenticated);
    let request = super::statements::authorized(&ada, super::support::descriptor(&query()));
    let answer = ada.inner_mut().get_flight_info(request).await.unwrap();
    assert!(answer.metadata().get("set-cookie").is_none());
    assert_eq!(rows(&mut ada, own).await, [adas]);
}

fn query() -> CommandStatementQuery {
    CommandStatementQuery { query: "SELECT 1".into(), transaction_id: None }
}

#[tokio::test]
async fn every_call_but_handshake_needs_credentials() {
    let server = start().await;
    let mut client = FlightServiceClient::new(server.channel().await);
    let descriptor = FlightDescriptor::new_cmd(Vec::new());
    let none = || futures::stream::iter([FlightData::default()]);
    let codes: Vec<(&str, Result<(), Status>)> = vec![
        ("ListFlights", client.list_flights(Criteria::default()).await.map(drop)),
        ("GetFlightInfo", client.get_flight_info(descriptor.clone()).await.map(drop)),
        (
            "PollFlightInfo",
            client
                .poll_flight_info(descriptor.clone())
                .await
                .map(drop::<tonic::Response<PollInfo>>),
        ),
        (
            "GetSchema",
            client.get_schema(descriptor).await.map(drop::<tonic::Response<SchemaResult>>),
        ),
        ("DoGet", client.do_get(Ticket::default()).await.map(drop)),
        ("DoPut", client.do_put(none()).await.map(drop)),
        ("DoExchange", client.do_exchange(none()).await.map(drop)),
        ("DoAction", client.do_action(Action::default()).await.map(drop)),
        ("ListActions", client.list_actions(Empty {}).await.map(drop)),
    ];
    for (call, outcome) in codes {
        assert_eq!(outcome.unwrap_err().code(), Code::Unauthenticated, "{call}");
    }
}
