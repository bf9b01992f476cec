//! A warehouse of its own and the program over it, for whoever kills that (SIGKILL) at a write; and
//! what a client has seen of an answer, and the record of a statement, when that was cut off.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_flight::error::FlightError;
use futures::TryStreamExt;
use tempfile::TempDir;

use crate::flight::support::{Client, rows};
use crate::program::{Program, Server};
use crate::s3::{BUCKET, Last, Store};

/// How long nobody writes when all is written; the record waits for less.
pub const QUIET: Duration = Duration::from_millis(250);
/// How long a step may take; a loaded machine is slow.
pub const STEP_MAX: Duration = Duration::from_secs(60);
/// How long after its answer a statement may still write.
const LATE_MAX: Duration = Duration::from_secs(5);
/// Settings under which all is on record, and soon.
const RECORD: &str = "[log]\nlevel = \"error\"\n\n[audit]\nembedded = true\ndelay = \"50 ms\"\n";

/// The program with settings beside [`RECORD`], in a folder.
pub fn program(folder: &Path, settings: &str) -> Arc<Program> {
    let config = folder.join("attune.toml");
    std::fs::write(&config, format!("{settings}\n{RECORD}")).unwrap();
    Arc::new(Program::new(&config))
}

/// The moments at which a program is killed, one after another: before a write is done, and when
/// it is done and not answered, for each write of a statement.
pub fn moment(number: usize) -> (usize, Last) {
    match number % 2 {
        0 => (number / 2, Last::Undone),
        _ => (number / 2 + 1, Last::Unanswered),
    }
}

/// The record is whole.
pub async fn verify(program: &Arc<Program>) {
    let program = Arc::clone(program);
    let verify = move || program.audit(&["verify"], None);
    let (holds, text) = tokio::task::spawn_blocking(verify).await.unwrap();
    assert!(holds && text.contains("the record holds"), "{text}");
}

/// The record is whole, or there is none yet.
pub async fn verify_begun(program: &Arc<Program>) {
    let program = Arc::clone(program);
    let verify = move || program.audit(&["verify"], None);
    let (holds, text) = tokio::task::spawn_blocking(verify).await.unwrap();
    let told = if holds { "the record holds" } else { "there is no record here" };
    assert!(text.contains(told), "{text}");
}

/// Ends servers as an operator does.
pub async fn stop(servers: impl IntoIterator<Item = Server>) {
    let servers: Vec<Server> = servers.into_iter().collect();
    let stop = move || servers.into_iter().for_each(Server::stop);
    tokio::task::spawn_blocking(stop).await.unwrap();
}

/// A warehouse in a bucket.
pub struct Site {
    pub program: Arc<Program>,
    pub s3: Store,
    /// The bucket's objects.
    pub bucket: PathBuf,
    _folder: TempDir,
}

impl Site {
    /// An empty one; `more` are settings beside the warehouse.
    pub async fn build(more: fn(&Store) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bucket = folder.path().join(BUCKET);
        std::fs::create_dir(&bucket).unwrap();
        let s3 = Store::over(folder.path()).await;
        let settings = format!("[warehouse]\n{}\n{}", s3.toml("w"), more(&s3));
        let program = program(folder.path(), &settings);
        Self { program, s3, bucket, _folder: folder }
    }

    /// Waits until nothing is written any more, so that only the next statement's writes count.
    pub async fn rest(&self) {
        let mut before = usize::MAX;
        while before != self.s3.lives.writes_done() {
            before = self.s3.lives.writes_done();
            tokio::time::sleep(QUIET).await;
        }
    }

    /// Whether the program was killed at the moment that was set, once it has written whatever it
    /// had to; others use the store then.
    pub async fn was_killed(&self) -> bool {
        let started = Instant::now();
        while !self.s3.lives.are_over() && started.elapsed() < LATE_MAX {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.s3.lives.revive()
    }

    /// The record is whole.
    pub async fn verify(&self) {
        verify(&self.program).await;
    }

    /// The record is whole, or there is none yet.
    pub async fn verify_begun(&self) {
        verify_begun(&self.program).await;
    }
}

/// What a client has seen of an answer.
#[derive(Debug)]
pub struct Heard {
    /// The rows that came, also before the answer was cut off.
    pub rows: usize,
    /// Why it ended too soon.
    pub error: Option<String>,
}

impl Heard {
    /// What comes of a query, row by row.
    pub async fn of(client: &mut Client, query: &str) -> Self {
        let mut seen = 0;
        let read = async {
            let info = client.execute(query.to_owned(), None).await?;
            let ticket = info.endpoint[0].ticket.clone().unwrap();
            let mut answer = client.do_get(ticket).await?;
            while let Some(batch) = answer.try_next().await? {
                seen += batch.num_rows();
            }
            Ok::<_, FlightError>(())
        };
        let ended = tokio::time::timeout(STEP_MAX, read).await.unwrap();
        Self { rows: seen, error: ended.err().map(|error| error.to_string()) }
    }

    /// Whether it was refused, since a budget has too little.
    pub fn is_refused(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.contains("ATT-2003"))
    }

    /// Whether all of it came.
    pub fn is_whole(&self) -> bool {
        self.error.is_none() && self.rows > 0
    }
}

/// The whole numbers of a row.
pub fn numbers(row: &str) -> Vec<u64> {
    row.split('|').filter_map(|cell| cell.parse().ok()).collect()
}

/// How many statements of a kind over a table have begun and ended, by a record that has each
/// entry once and leaves out none.
pub async fn on_record(client: &mut Client, kind: &str, table: &str) -> [u64; 2] {
    let sequences = "SELECT count(*), min(sequence), max(sequence) FROM system.audit";
    let found = rows(client, sequences).await;
    let [count, first, last] = numbers(&found[0])[..] else { panic!("{found:?}") };
    assert_eq!((first, last), (1, count), "the sequences of {count} entries");
    let phases = format!(
        "SELECT phase, count(*), count(DISTINCT query_id) FROM system.audit \
         WHERE kind = '{kind}' AND array_has(objects, '{table}') GROUP BY phase"
    );
    let found = rows(client, &phases).await;
    ["begun", "ended"].map(|phase| {
        let Some(line) = found.iter().find(|line| line.starts_with(phase)) else { return 0 };
        let [entries, statements] = numbers(line)[..] else { panic!("{found:?}") };
        assert_eq!(entries, statements, "a statement has {phase} twice: {found:?}");
        entries
    })
}
