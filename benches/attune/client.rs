//! A client of any Flight SQL server that costs less than the servers it asks.
//!
//! `attune client rate ADDRESS QUERY KEYS CONNECTIONS SECONDS [USER PASSWORD]` runs the query with
//! a key in place of `{}` over many connections, or prepared with `?`, and prints answers a second;
//! `attune client scan ADDRESS QUERY [USER PASSWORD]` reads an answer to its end and prints rows a
//! second. `benches/peers/flight.py` asks every server with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt;
use tonic::transport::{Channel, Endpoint};

type Client = FlightSqlServiceClient<Channel>;

async fn connect(address: &str, login: &[String]) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = Client::new(endpoint.connect().await.unwrap());
    if let [user, password] = login {
        client.handshake(user, password).await.unwrap();
    }
    client
}

/// Reads an answer to its end; gives its rows.
async fn read(client: &mut Client, info: arrow_flight::FlightInfo) -> usize {
    let mut rows = 0;
    for endpoint in info.endpoint {
        let mut answer = client.do_get(endpoint.ticket.unwrap()).await.unwrap();
        while let Some(batch) = answer.try_next().await.unwrap() {
            rows += batch.num_rows();
        }
    }
    rows
}

/// Answers until the time is over.
async fn ask(mut client: Client, query: String, keys: u64, seed: u64, end: Instant) -> u64 {
    let mut prepared = match query.contains('?') {
        true => Some(client.prepare(query.clone(), None).await.unwrap()),
        false => None,
    };
    let (mut answers, mut state) = (0, seed);
    while Instant::now() < end {
        // Knuth's MMIX generator.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = (state >> 33) % keys;
        let info = match &mut prepared {
            Some(prepared) => {
                let value = Arc::new(Int64Array::from(vec![key as i64])) as ArrayRef;
                let values = RecordBatch::try_from_iter([("key", value)]).unwrap();
                prepared.set_parameters(values).unwrap();
                prepared.execute().await.unwrap()
            }
            None => client.execute(query.replace("{}", &key.to_string()), None).await.unwrap(),
        };
        assert_eq!(read(&mut client, info).await, 1, "key {key}");
        answers += 1;
    }
    answers
}

async fn rate(
    address: &str,
    query: &str,
    [keys, connections, seconds]: [u64; 3],
    login: &[String],
) {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(connect(address, login).await);
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let asked = clients
        .into_iter()
        .zip(1..)
        .map(|(client, seed)| tokio::spawn(ask(client, query.to_owned(), keys, seed * 7_919, end)));
    let mut answers = 0;
    for asked in asked.collect::<Vec<_>>() {
        answers += asked.await.unwrap();
    }
    println!("{}", answers as f64 / seconds as f64);
}

async fn scan(address: &str, query: &str, login: &[String]) {
    let mut client = connect(address, login).await;
    let begun = Instant::now();
    let info = client.execute(query.into(), None).await.unwrap();
    let rows = read(&mut client, info).await;
    println!("{} {}", rows, rows as f64 / begun.elapsed().as_secs_f64());
}

/// Asks one server as the arguments say.
pub fn run() {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["rate", address, query, keys, connections, seconds, ..] => {
            let numbers = [keys, connections, seconds].map(|number| number.parse().unwrap());
            runtime.block_on(rate(address, query, numbers, &arguments[6..]));
        }
        ["scan", address, query, ..] => runtime.block_on(scan(address, query, &arguments[3..])),
        _ => panic!("rate ADDRESS QUERY KEYS CONNECTIONS SECONDS | scan ADDRESS QUERY"),
    }
}
