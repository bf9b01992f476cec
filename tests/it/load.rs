//! The real program under load, stopped, killed and started again.
//!
//! 200 connections ask for half a minute; `ATTUNE_LOAD_SECONDS=300 cargo test load` asks for five
//! minutes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::StreamExt;
use tonic::transport::{Channel, Endpoint};

use crate::flight::{endless, fetch, twin};
use crate::program::{Program, Server};

const CONNECTIONS: usize = 200;
const SECONDS: u64 = 30;
/// The allocator keeps some of what was freed; more than this is a leak.
const GROWTH_BYTES_MAX: u64 = 96 << 20;

type Client = FlightSqlServiceClient<Channel>;

fn place(folder: &Path) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let config = folder.join("attune.toml");
    let text = format!(
        "[warehouse]\nurl = \"warehouse\"\n\n[lake]\nurl = {data:?}\ndiscover = true\n\n\
         [log]\nlevel = \"warn\"\n"
    );
    std::fs::write(&config, text).unwrap();
    config
}

async fn connect(server: &Server, login: Option<(&str, &str)>) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let mut client = Client::new(endpoint.connect().await.unwrap());
    if let Some((name, password)) = login {
        client.handshake(name, password).await.unwrap();
    }
    client
}

async fn rows(client: &mut Client, text: &str) -> Result<usize, tonic::Status> {
    let info = client.execute(text.to_owned(), None).await.map_err(crate::flight::status)?;
    let batches = fetch(client, &info).await?;
    Ok(batches.iter().map(arrow::array::RecordBatch::num_rows).sum())
}

/// Statements, and the rows that each answers.
const MIX: [(&str, usize); 6] = [
    ("SELECT 1", 1),
    ("SELECT customer, sum(amount) FROM lake.orders GROUP BY customer ORDER BY 1 LIMIT 2", 2),
    ("SELECT n FROM generate_series(1, 20000) AS t(n)", 20_000),
    (
        "SELECT a.n FROM generate_series(1, 300) AS a(n) CROSS JOIN generate_series(1, 30) AS b(n)",
        9_000,
    ),
    ("SHOW SCHEMAS", 4),
    ("SELECT count(*) FROM main.things", 1),
];

async fn ask(mut client: Client, number: usize, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) {
    for turn in number.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (text, expected) = MIX[turn % MIX.len()];
        let count = rows(&mut client, text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(count, expected, "{text}");
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Lets every connection ask for a time; gives the statements that were answered.
async fn load(clients: &[Client], time: Duration) -> u64 {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let asking: Vec<_> = clients
        .iter()
        .enumerate()
        .map(|(number, client)| {
            tokio::spawn(ask(twin(client), number, Arc::clone(&stop), Arc::clone(&done)))
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    for task in asking {
        task.await.unwrap();
    }
    done.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_connections_are_served_without_error_or_growth() {
    let seconds = std::env::var("ATTUNE_LOAD_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(SECONDS));
    let folder = tempfile::tempdir().unwrap();
    let server = Program::new(&place(folder.path())).serve().await;
    let mut first = connect(&server, None).await;
    let table = "CREATE TABLE main.things AS SELECT n FROM generate_series(1, 1000) AS t(n)";
    first.execute_update(table.into(), None).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(connect(&server, None).await);
    }
    // The first third fills caches and the allocator.
    load(&clients, time / 3).await;
    let before = server.resident_bytes().unwrap_or_default();
    let answered = load(&clients, time - time / 3).await;
    let after = server.resident_bytes().unwrap_or_default();
    println!(
        "{answered} statements on {CONNECTIONS} connections in {:?}; memory {} MiB, then {} MiB",
        time - time / 3,
        before >> 20,
        after >> 20
    );
    assert!(answered > 0);
    assert!(after < before + GROWTH_BYTES_MAX, "{before} bytes grew to {after}");
    let (_, _, metrics) = crate::http::get(server.http, "/metrics").await.unwrap();
    for line in ["attune_statements_running 0", "attune_statements_queued 0"] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    assert!(metrics.contains("attune_statements_total{state=\"failed\"} 0"), "{metrics}");

    // SIGTERM: a statement in mid-stream finishes, and the process ends by itself.
    let text = "SELECT n FROM generate_series(1, 2000000) AS t(n)";
    let info = first.execute(text.into(), None).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let mut stream = first.do_get(ticket).await.unwrap();
    let mut count = futures::TryStreamExt::try_next(&mut stream).await.unwrap().unwrap().num_rows();
    drop(clients);
    server.terminate();
    while let Some(batch) = futures::TryStreamExt::try_next(&mut stream).await.unwrap() {
        count += batch.num_rows();
    }
    assert_eq!(count, 2_000_000);
    drop((stream, first));
    // No second signal, which would force: what does not drain fails here.
    let drained = tokio::task::spawn_blocking(move || server.wait(Duration::from_secs(20)));
    drained.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_what_the_first_lets_run() {
    let folder = tempfile::tempdir().unwrap();
    let config = place(folder.path());
    let patient = std::fs::read_to_string(&config).unwrap() + "\n[server]\ndrain = \"300 s\"\n";
    std::fs::write(&config, patient).unwrap();
    let server = Program::new(&config).serve().await;
    let mut client = connect(&server, None).await;
    let info = client.execute(endless(12), None).await.unwrap();
    let mut stream = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    server.terminate();
    let asked = Instant::now();
    while crate::http::get(server.http, "/health/ready").await.unwrap().0 != 503 {
        assert!(asked.elapsed() < Duration::from_secs(20), "the server does not drain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The first lets the statement run.
    let read_on = Instant::now();
    while read_on.elapsed() < Duration::from_secs(1) {
        assert!(stream.next().await.unwrap().is_ok());
    }
    server.terminate();
    let end = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            other => break other.expect("the rows ended as if they were all").unwrap_err(),
        }
    };
    assert_eq!(crate::flight::status(end).code(), tonic::Code::Cancelled);
    drop((stream, client));
    let ended = tokio::task::spawn_blocking(move || server.wait(Duration::from_secs(20)));
    ended.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_no_definition_no_user_no_model_and_no_acknowledged_row() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::new(&place(folder.path()));
    program.add_user("root", "admin", "root-password");
    let login = Some(("root", "root-password"));
    let server = program.serve().await;
    let mut root = connect(&server, login).await;
    for text in [
        "CREATE TABLE main.things AS SELECT 1 AS n",
        "INSERT INTO main.things SELECT 2 AS n",
        "CREATE EXPECTATION positive ON main.things CHECK (n > 0) SEVERITY 'error'",
        "CREATE VIEW main.seen AS SELECT n + 1 AS m FROM main.things",
        "CREATE EXTERNAL TABLE main.sold STORED AS CSV LOCATION 'orders/' \
         OPTIONS (has_header 'true')",
        "CREATE USER ada PASSWORD 'ada-password'",
        "GRANT SELECT ON main.sold TO ada",
        "CREATE MODEL main.m OPTIONS (model_type = 'matrix_factorization', feedback_type = \
         'implicit', user_col = 'customer', item_col = 'order_id', num_factors = 2) AS \
         SELECT customer, order_id FROM lake.orders",
    ] {
        root.execute_update(text.into(), None).await.unwrap();
    }
    let info = root.execute("CREATE TOKEN nightly FOR USER ada".into(), None).await.unwrap();
    let made = fetch(&mut root, &info).await.unwrap().remove(0);
    let secret = made.column(made.num_columns() - 1).as_string::<i32>().value(0).to_owned();
    let sold = rows(&mut root, "SELECT * FROM main.sold").await.unwrap();
    assert!(sold > 0);
    // Killed while it is busy with them.
    let acknowledged = Arc::new(AtomicU64::new(0));
    let busy = tokio::spawn({
        let (mut root, acknowledged) = (twin(&root), Arc::clone(&acknowledged));
        async move {
            let insert = "INSERT INTO main.things SELECT 3 AS n";
            while root.execute_update(insert.into(), None).await.is_ok() {
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let started = Instant::now();
    while acknowledged.load(Ordering::SeqCst) < 3 {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is inserted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.kill();
    busy.await.unwrap();
    let server = program.serve().await;
    let mut root = connect(&server, login).await;
    let kept = rows(&mut root, "SELECT * FROM main.things").await.unwrap() as u64;
    let told = acknowledged.load(Ordering::SeqCst);
    // The one that was in flight may have happened.
    assert!((2 + told..=3 + told).contains(&kept), "{kept} rows after {told} inserts");
    assert_eq!(rows(&mut root, "SELECT * FROM main.seen WHERE m IN (2, 3)").await.unwrap(), 2);
    assert_eq!(rows(&mut root, "SELECT * FROM ml_recommend('main.m', 'ann', 1)").await.unwrap(), 1);
    assert_eq!(rows(&mut root, "SHOW EXPECTATIONS ON main.things").await.unwrap(), 1);
    let negative = root.execute_update("INSERT INTO main.things SELECT -1 AS n".into(), None).await;
    let refused = crate::flight::status(negative.unwrap_err());
    assert!(refused.message().contains("positive"), "{}", refused.message());
    root.execute_update("INSERT INTO main.things SELECT 4 AS n".into(), None).await.unwrap();
    let mut ada = connect(&server, Some(("ada", "ada-password"))).await;
    let mut nightly = connect(&server, None).await;
    nightly.set_token(secret);
    for client in [&mut ada, &mut nightly] {
        let own = "SELECT * FROM main.sold WHERE current_user() = 'ada'";
        assert_eq!(rows(client, own).await.unwrap(), sold);
    }
    drop((root, ada, nightly));
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_while_it_trains_leaves_no_version_and_no_claim_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::new(&place(folder.path()));
    let server = program.serve().await;
    let mut first = connect(&server, None).await;
    let table = "CREATE TABLE main.plays AS SELECT u AS user_id, (u * 7919 + i * 104729) % 300 AS \
                 item_id FROM generate_series(1, 1000) AS a(u), generate_series(1, 20) AS b(i)";
    let popular = "CREATE MODEL main.m OPTIONS (model_type = 'popularity') AS \
                   SELECT * FROM main.plays";
    for text in [table, popular] {
        first.execute_update(text.into(), None).await.unwrap();
    }
    let factors = |iterations: usize| {
        format!(
            "CREATE OR REPLACE MODEL main.m OPTIONS (model_type = 'matrix_factorization', \
             feedback_type = 'implicit', num_factors = 32, max_iterations = {iterations}) AS \
             SELECT * FROM main.plays"
        )
    };
    let long = factors(10_000);
    let training = tokio::spawn({
        let mut other = connect(&server, None).await;
        async move { other.execute_update(long, None).await.map(|_| ()) }
    });
    let look = "SELECT * FROM system.queries WHERE state = 'running' AND phase = 'training'";
    let started = Instant::now();
    while rows(&mut first, look).await.unwrap() == 0 {
        assert!(!training.is_finished(), "it was trained before it could be killed");
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is trained");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.kill();
    assert!(training.await.unwrap().is_err());
    let server = program.serve().await;
    let mut first = connect(&server, None).await;
    let lists = |model: &str, source: &str| {
        format!("SELECT * FROM ml_recommend('main.{model}', 9, 3) WHERE source = '{source}'")
    };
    for model in ["m", "m@1"] {
        assert_eq!(rows(&mut first, &lists(model, "popularity")).await.unwrap(), 3, "{model}");
    }
    let versions = |count: usize| format!("SELECT * FROM system.models WHERE versions = {count}");
    assert_eq!(rows(&mut first, &versions(1)).await.unwrap(), 1);
    let missing = rows(&mut first, "DESCRIBE MODEL main.m@2").await.unwrap_err();
    assert!(missing.message().contains("no version 2"), "{}", missing.message());
    // The claim is not stale for a minute, and the next training does not wait for it.
    let next = Instant::now();
    first.execute_update(factors(2), None).await.unwrap();
    assert!(next.elapsed() < Duration::from_secs(30), "{:?}", next.elapsed());
    assert_eq!(rows(&mut first, &lists("m", "als")).await.unwrap(), 3);
    assert_eq!(rows(&mut first, &lists("m@1", "popularity")).await.unwrap(), 3);
    assert_eq!(rows(&mut first, &versions(2)).await.unwrap(), 1);
    drop(first);
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
}
