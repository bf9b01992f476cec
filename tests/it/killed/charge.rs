//! The real program is killed (SIGKILL) while a private SELECT is charged to two accounts: over an
//! object store at each single write of the statement, over a local folder around those of its
//! ledger and of its record. Who has seen an answer has paid both accounts; a charge without an
//! answer is in the ledger, and on record; the next private SELECT and the record are whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::flight::support::{Client, rows};
use crate::forgotten::{change, connect};
use crate::killed::site::{
    Heard, QUIET, STEP_MAX, Site, moment, numbers, on_record, program, stop, verify,
};
use crate::program::Process;

/// Programs that are killed side by side, each at every so many-th moment.
const CHAINS: usize = 2;
/// Rows of each table, over an object store and, for an answer that takes a while, in a folder.
const ROWS: usize = 200;
const MANY_ROWS: usize = 8_000;
/// How often a program over a folder is killed.
const KILLS: usize = 10;
/// The tables, in the order in which they are charged. A poor one has too little for one answer.
const TABLES: [&str; 2] = ["bookings", "stays"];
const BUDGETS: [&str; 2] = ["0.1", "1000"];

/// It costs an eighth, which sums hold exactly.
const ASKED: &str = "SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = 0.125, privacy_unit_column = b.person) \
     COUNT(*, contribution_bounds_per_group => (0, 10)) AS n \
     FROM bookings AS b JOIN stays AS s ON b.person = s.person";

/// Two tables with four rows a person, each under a policy of its own.
async fn fill(client: &mut Client, rows: usize, is_rich: bool) {
    for (table, budget) in TABLES.into_iter().zip([BUDGETS[1], BUDGETS[usize::from(is_rich)]]) {
        let persons = rows / 4;
        for text in [
            format!(
                "CREATE TABLE {table} AS SELECT n % {persons} AS person \
                 FROM generate_series(1, {rows}) AS s (n)"
            ),
            format!(
                "CREATE PRIVACY POLICY p ON {table} (person) BUDGET (epsilon = {budget}) PER USER"
            ),
        ] {
            change(client, &text).await;
        }
    }
}

/// What the ledger and the record say of the statement.
#[derive(Debug, Clone, Copy)]
struct Said {
    /// How often each table's account has paid.
    paid: [u64; 2],
    begun: u64,
    ended: u64,
}

impl Said {
    async fn to(client: &mut Client) -> Self {
        let spent = "SELECT table_name, queries, CAST(epsilon_spent * 8 AS BIGINT) \
                     FROM system.privacy_budget";
        let spent = rows(client, spent).await;
        let paid = TABLES.map(|table| {
            let line = spent.iter().find_map(|line| line.strip_prefix(table)).unwrap();
            let [queries, eighths] = numbers(line)[..] else { panic!("{spent:?}") };
            assert_eq!(queries, eighths, "an account is half charged: {spent:?}");
            queries
        });
        let [begun, ended] = on_record(client, "select", "main.stays").await;
        Self { paid, begun, ended }
    }

    fn since(self, before: Self) -> Self {
        let [one, other] = [0_usize, 1].map(|at| self.paid[at] - before.paid[at]);
        let (begun, ended) = (self.begun - before.begun, self.ended - before.ended);
        Self { paid: [one, other], begun, ended }
    }
}

/// What became of the statement: which accounts paid, and whether it was answered.
type Outcome = ([u64; 2], bool);

/// A server's tables, ledger and record, which a statement may have been cut off from.
struct Books {
    is_rich: bool,
    said: Said,
}

impl Books {
    async fn open(client: &mut Client, rows: usize, is_rich: bool) -> Self {
        fill(client, rows, is_rich).await;
        Self { is_rich, said: Said::to(client).await }
    }

    /// What one statement has changed, of which this much was heard.
    async fn look(&mut self, client: &mut Client, heard: &Heard) -> Said {
        let now = Said::to(client).await;
        let since = now.since(self.said);
        self.said = now;
        let told = format!("rich: {}, {heard:?}: {since:?}", self.is_rich);
        assert!(since.paid.iter().all(|paid| *paid <= 1), "charged twice: {told}");
        assert!(since.ended <= since.begun && since.begun <= 1, "not once on record: {told}");
        assert!(since.paid == [0, 0] || since.begun == 1, "charged off the record: {told}");
        if heard.rows > 0 {
            assert_eq!(since.paid, [1, 1], "answered and not paid: {told}");
        }
        if heard.is_refused() {
            assert_eq!(since.paid, [0, 0], "refused and paid: {told}");
        }
        if !self.is_rich {
            assert!(heard.rows == 0 && since.paid[1] == 0, "overspent: {told}");
        }
        since
    }

    /// What one statement has changed that may have been cut off.
    async fn check(&mut self, client: &mut Client, heard: &Heard) -> Outcome {
        let since = self.look(client, heard).await;
        (since.paid, heard.rows > 0)
    }

    /// The statement as nobody cuts it off.
    async fn check_next(&mut self, client: &mut Client) {
        let heard = Heard::of(client, ASKED).await;
        let since = self.look(client, &heard).await;
        let is_right = if self.is_rich { heard.is_whole() } else { heard.is_refused() };
        assert!(is_right && (since.begun, since.ended) == (1, 1), "{heard:?}: {since:?}");
    }
}

/// Asks again and again, each time with a program that is killed at a later moment, until one is
/// not killed any more; gives what became of each.
async fn live(is_rich: bool, first: usize) -> Vec<Outcome> {
    let site = Site::build(|_| String::new()).await;
    let mut server = site.program.serve().await;
    let mut client = connect(&server).await;
    let mut books = Books::open(&mut client, ROWS, is_rich).await;
    let mut outcomes = Vec::new();
    for number in (first..).step_by(CHAINS) {
        let (writes, last) = moment(number);
        site.rest().await;
        site.s3.lives.kill_program_after(writes, server.process.clone(), last);
        let heard = Heard::of(&mut client, ASKED).await;
        let was_killed = site.was_killed().await;
        if was_killed {
            site.verify().await;
            server = site.program.serve().await;
            client = connect(&server).await;
        } else {
            assert!(heard.is_whole() || heard.is_refused(), "{writes} writes: {heard:?}");
        }
        outcomes.push(books.check(&mut client, &heard).await);
        books.check_next(&mut client).await;
        if !was_killed {
            break;
        }
    }
    drop(client);
    stop([server]).await;
    site.verify().await;
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_is_paid_by_a_program_that_is_killed_at_any_write() {
    let chains = [true, false].into_iter().flat_map(|is_rich| {
        (0..CHAINS)
            .map(move |first| tokio::spawn(async move { (is_rich, live(is_rich, first).await) }))
    });
    let mut seen = BTreeSet::new();
    for chain in futures::future::join_all(chains).await {
        let (is_rich, outcomes) = chain.unwrap();
        seen.extend(outcomes.into_iter().map(|outcome| (is_rich, outcome)));
    }
    // Each state of the ledger was cut off from its answer, and none of them was another's.
    let expected = [
        (false, ([0, 0], false)),
        (false, ([1, 0], false)),
        (true, ([0, 0], false)),
        (true, ([1, 0], false)),
        (true, ([1, 1], false)),
        (true, ([1, 1], true)),
    ];
    assert_eq!(seen, BTreeSet::from(expected));
}

/// The files below a folder, also those that are not written to their end.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => {
                found.insert(path);
            }
        }
    }
    found
}

/// Waits until nothing more is written below a folder.
async fn rest(folder: &Path) {
    let mut before = BTreeSet::new();
    while before != files(folder) {
        before = files(folder);
        tokio::time::sleep(QUIET).await;
    }
}

/// Kills a program as soon as another file is below a folder, or a little later.
fn kill_at_file(folder: PathBuf, later: Duration, program: Process) -> JoinHandle<()> {
    let before = files(&folder);
    tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        while files(&folder).is_subset(&before) {
            assert!(started.elapsed() < STEP_MAX, "nothing is written to {}", folder.display());
            std::thread::sleep(Duration::from_micros(100));
        }
        std::thread::sleep(later);
        program.kill();
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_is_paid_by_a_program_that_is_killed_over_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let warehouse = folder.path().join("w");
    let settings = format!("[warehouse]\nurl = \"{}\"\n", warehouse.display());
    let program = program(folder.path(), &settings);
    let mut server = program.serve().await;
    let mut client = connect(&server).await;
    let mut books = Books::open(&mut client, MANY_ROWS, true).await;
    books.check_next(&mut client).await;
    let mut outcomes = Vec::new();
    for number in 0..KILLS {
        let watched = ["_attune/privacy_budgets", "_attune/audit/segments"][number % 2];
        let later = Duration::from_millis(number as u64);
        rest(&warehouse).await;
        let killed = kill_at_file(warehouse.join(watched), later, server.process.clone());
        let heard = Heard::of(&mut client, ASKED).await;
        killed.await.unwrap();
        verify(&program).await;
        server = program.serve().await;
        client = connect(&server).await;
        outcomes.push(books.check(&mut client, &heard).await);
        books.check_next(&mut client).await;
    }
    let is_unanswered = |outcome: &Outcome| outcome.0 != [0, 0] && !outcome.1;
    assert!(outcomes.iter().any(is_unanswered), "nobody was killed after a charge: {outcomes:?}");
    drop(client);
    stop([server]).await;
    verify(&program).await;
}
