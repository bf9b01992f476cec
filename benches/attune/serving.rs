//! The server's latency and throughput through the Rust client, beside DataFusion in this process.
//!
//! `cargo bench --bench attune -- serving [ROWS] [SCAN_ROWS]` (1,000,000 and 10,000,000): point
//! queries by key on a Parquet file with default settings and on a clustered warehouse table,
//! queries per second over 16 connections, a scan, connections, idle sessions.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_flight::sql::client::{FlightSqlServiceClient, PreparedStatement};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use tonic::transport::{Channel, Endpoint};

type Client = FlightSqlServiceClient<Channel>;

const LOOKUPS: usize = 2_000;
const CONNECTIONS: usize = 16;
const UNDER_LOAD: Duration = Duration::from_secs(5);
/// A user has at most a thousand sessions.
const USERS: [&str; 2] = ["ann", "bob"];
const PASSWORD: &str = "correct horse";

/// A running `attune serve`; killed when it is dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(folder: &Path, environment: &[(&str, &str)]) -> Self {
        let program = env!("CARGO_BIN_EXE_attune");
        let lake = folder.join("lake");
        let warehouse = folder.join("warehouse");
        for user in USERS {
            let added = Command::new(program)
                .args(["user", "add", user, "--role", "admin", "--warehouse"])
                .arg(&warehouse)
                .env("ATTUNE_ADMIN_PASSWORD", PASSWORD)
                .env("ATTUNE_PASSWORD", PASSWORD)
                .args(if user == USERS[0] { vec![] } else { vec!["--as", USERS[0]] })
                .stderr(Stdio::null())
                .status();
            assert!(added.unwrap().success());
        }
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(program)
            .args(["serve", "--flight", &address.to_string(), "--http", "off", "--lake"])
            .arg(&lake)
            .arg("--warehouse")
            .arg(&warehouse)
            .envs(environment.iter().copied())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child, address };
        while TcpStream::connect(address).is_err() {
            assert!(server.child.try_wait().unwrap().is_none(), "the server ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    async fn connect(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let mut client = Client::new(endpoint.connect().await.unwrap());
        client.handshake(USERS[0], PASSWORD).await.unwrap();
        client
    }

    /// A line of the process's status, in MiB.
    fn memory(&self, field: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

fn batch(from: usize, rows: usize) -> RecordBatch {
    let ids = || from..from + rows;
    let names = ids().map(|id| format!("person {id}"));
    let cities = ids().map(|id| format!("city {}", (id * 7_919) % 1_000));
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from_iter_values(ids().map(|id| id as i64))) as ArrayRef),
        ("name", Arc::new(StringArray::from_iter_values(names)) as ArrayRef),
        ("city", Arc::new(StringArray::from_iter_values(cities)) as ArrayRef),
        (
            "amount",
            Arc::new(Float64Array::from_iter_values(ids().map(|id| id as f64 * 0.25))) as ArrayRef,
        ),
    ])
    .unwrap()
}

fn write(file: &Path, rows: usize) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let schema = batch(0, 1).schema();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(file).unwrap(), schema, None).unwrap();
    for from in (0..rows).step_by(65_536) {
        writer.write(&batch(from, 65_536.min(rows - from))).unwrap();
    }
    writer.close().unwrap();
}

/// A key that no pattern of the last ones tells.
fn key(run: usize, rows: usize) -> i64 {
    ((run * 7_919 + 12_345) * 104_729 % rows) as i64
}

struct Times(Vec<Duration>);

impl Times {
    fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort();
        let index = ((sorted.len() - 1) as f64 * share) as usize;
        sorted[index].as_secs_f64() * 1e3
    }

    fn tell(&self, what: &str) {
        println!("{what:58} median {:.3} ms, p99 {:.3} ms", self.at(0.5), self.at(0.99));
    }
}

async fn lookup(client: &mut Client, prepared: &mut PreparedStatement<Channel>, id: i64) {
    let values = Arc::new(Int64Array::from(vec![id])) as ArrayRef;
    let values = RecordBatch::try_from_iter([("id", values)]).unwrap();
    prepared.set_parameters(values).unwrap();
    let info = prepared.execute().await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let rows: Vec<RecordBatch> = client.do_get(ticket).await.unwrap().try_collect().await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
}

async fn nothing(client: &mut Client) -> Times {
    let mut prepared = client.prepare("SELECT CAST(? AS BIGINT) AS id".into(), None).await.unwrap();
    let mut times = Vec::with_capacity(LOOKUPS);
    for run in 0..LOOKUPS + 50 {
        let begun = Instant::now();
        lookup(client, &mut prepared, run as i64).await;
        times.push(begun.elapsed());
    }
    Times(times.split_off(50))
}

async fn lookups(client: &mut Client, table: &str, rows: usize) -> Times {
    let text = format!("SELECT id, name, city, amount FROM {table} WHERE id = ?");
    let mut prepared = client.prepare(text, None).await.unwrap();
    let mut times = Vec::with_capacity(LOOKUPS);
    for run in 0..LOOKUPS + 50 {
        let begun = Instant::now();
        lookup(client, &mut prepared, key(run, rows)).await;
        times.push(begun.elapsed());
    }
    Times(times.split_off(50))
}

async fn in_process(file: &Path, rows: usize) -> Times {
    let context = SessionContext::new();
    let file = file.to_str().unwrap();
    context.register_parquet("events", file, ParquetReadOptions::default()).await.unwrap();
    let mut times = Vec::new();
    for run in 0..320 {
        let text =
            format!("SELECT id, name, city, amount FROM events WHERE id = {}", key(run, rows));
        let begun = Instant::now();
        #[allow(clippy::disallowed_methods, reason = "DataFusion alone is the peer here")]
        let frame = context.sql(&text).await.unwrap();
        assert_eq!(
            frame.collect().await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(),
            1
        );
        times.push(begun.elapsed());
    }
    Times(times.split_off(20))
}

async fn under_load(server: &Server, table: &'static str, rows: usize) -> f64 {
    let answered = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS {
        let mut client = server.connect().await;
        let answered = Arc::clone(&answered);
        clients.push(tokio::spawn(async move {
            let text = format!("SELECT id, name, city, amount FROM {table} WHERE id = ?");
            let mut prepared = client.prepare(text, None).await.unwrap();
            let begun = Instant::now();
            let mut run = number * 100_000;
            while begun.elapsed() < UNDER_LOAD {
                lookup(&mut client, &mut prepared, key(run, rows)).await;
                answered.fetch_add(1, Ordering::Relaxed);
                run += 1;
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    answered.load(Ordering::Relaxed) as f64 / UNDER_LOAD.as_secs_f64()
}

async fn scan(server: &Server, client: &mut Client, rows: usize) {
    let idle = server.memory("VmRSS");
    for pause in [Duration::ZERO, Duration::from_millis(2)] {
        std::fs::write(format!("/proc/{}/clear_refs", server.child.id()), "5").unwrap();
        let begun = Instant::now();
        let info = client.execute("SELECT * FROM lake.scan".into(), None).await.unwrap();
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let mut stream = client.do_get(ticket).await.unwrap();
        let mut read = 0;
        while let Some(batch) = stream.try_next().await.unwrap() {
            read += batch.num_rows();
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        assert_eq!(read, rows);
        let seconds = begun.elapsed().as_secs_f64();
        let reader = if pause.is_zero() { "a fast reader" } else { "a slow reader" };
        println!(
            "scan of {rows} rows, {reader:47} {:.2} million rows/s, {:.0} MiB above idle",
            rows as f64 / seconds / 1e6,
            server.memory("VmHWM") - idle
        );
    }
}

async fn connections(server: &Server) {
    let (mut hashes, mut times) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let begun = Instant::now();
        attune::auth::passwords::hash_password(PASSWORD).unwrap();
        hashes.push(begun.elapsed());
        let begun = Instant::now();
        let mut client = server.connect().await;
        let info = client.execute("SELECT 1".into(), None).await.unwrap();
        let ticket = info.endpoint[0].ticket.clone().unwrap();
        let _: Vec<RecordBatch> = client.do_get(ticket).await.unwrap().try_collect().await.unwrap();
        times.push(begun.elapsed());
    }
    Times(times).tell("connect, log in, SELECT 1");
    Times(hashes).tell("  of which one password hash");
}

async fn idle_sessions() {
    const SESSIONS: usize = 1_000;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("lake")).unwrap();
    // What a password hash took goes back at once, rather than to the sessions.
    let server = Server::start(folder.path(), &[("MALLOC_MMAP_THRESHOLD_", "1048576")]);
    let mut client = server.connect().await;
    let mut open = async |sessions: usize| {
        for number in 0..sessions {
            client.handshake(USERS[number % 2], PASSWORD).await.unwrap();
            let answer = client.execute("SELECT 1".into(), None).await.unwrap();
            let ticket = answer.endpoint[0].ticket.clone().unwrap();
            let rows = client.do_get(ticket).await.unwrap();
            let _: Vec<RecordBatch> = rows.try_collect().await.unwrap();
        }
    };
    open(50).await;
    let before = server.memory("VmRSS");
    open(SESSIONS).await;
    let grown = server.memory("VmRSS") - before;
    println!("{SESSIONS} idle sessions, each of which has run a statement: {grown:.1} MiB");
}

async fn run_all(rows: usize, scan_rows: usize) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lake/events/part-0.parquet");
    write(&file, rows);
    write(&folder.path().join("lake/scan/part-0.parquet"), scan_rows);
    let server = Server::start(folder.path(), &[]);
    let mut client = server.connect().await;
    idle_sessions().await;
    let create = "CREATE TABLE main.people CLUSTER BY (id) AS SELECT * FROM lake.events";
    client.execute_update(create.into(), None).await.unwrap();
    in_process(&file, rows).await.tell("DataFusion alone, in process, default Parquet file");
    nothing(&mut client).await.tell("SELECT ?, prepared: the calls alone");
    lookups(&mut client, "lake.events", rows).await.tell("the same file through Attune, prepared");
    lookups(&mut client, "main.people", rows).await.tell("a clustered table, prepared");
    for table in ["lake.events", "main.people"] {
        let rate = under_load(&server, table, rows).await;
        println!("{CONNECTIONS} connections, {table:41} {rate:.0} queries/s");
    }
    connections(&server).await;
    scan(&server, &mut client, scan_rows).await;
}

/// Measures everything on data of its own.
pub fn run() {
    let mut numbers = std::env::args().skip(2).filter_map(|argument| argument.parse().ok());
    let rows = numbers.next().unwrap_or(1_000_000);
    let scan_rows = numbers.next().unwrap_or(10_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run_all(rows, scan_rows));
}
