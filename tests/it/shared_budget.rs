//! Two real servers over one warehouse, and so one privacy budget: a hundred clients spend at once,
//! and what was answered is what was paid, and no more than there is; also where one of the servers
//! is killed (SIGKILL) meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::flight::support::{Client, rows};
use crate::forgotten::{change, connect};
use crate::killed::site::{Heard, Site, on_record, program, stop, verify};
use crate::program::{Process, Program};

/// Clients of each server, each in a session of its own.
const CLIENTS: usize = 50;
/// Answers that the budget pays for: each costs an eighth, which sums hold exactly.
const ANSWERS: usize = 40;
/// After so many of them a server is killed.
const ANSWERS_BEFORE: usize = ANSWERS / 4;

const ASKED: &str = "SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = 0.125, privacy_unit_column = person) \
     COUNT(*, contribution_bounds_per_group => (0, 10)) AS n FROM visits";

/// What all clients share.
struct Spree {
    begins: Barrier,
    answers: AtomicUsize,
    /// Who is killed when some answers were given.
    doomed: Option<Process>,
}

/// Asks until the budget is spent, or the server is gone; gives how many answers there were.
async fn spend(mut client: Client, spree: Arc<Spree>, is_doomed: bool) -> usize {
    spree.begins.wait().await;
    for answers in 0..=ANSWERS {
        let heard = Heard::of(&mut client, ASKED).await;
        if !heard.is_whole() {
            assert!(heard.is_refused() || is_doomed, "{heard:?}");
            // What came before it was cut off is an answer, too.
            return answers + heard.rows;
        }
        if spree.answers.fetch_add(1, Ordering::SeqCst) + 1 == ANSWERS_BEFORE
            && let Some(doomed) = spree.doomed.clone()
        {
            tokio::task::spawn_blocking(move || doomed.kill()).await.unwrap();
        }
    }
    panic!("one client had more than {ANSWERS} answers");
}

/// Two servers of a program are asked at once, and one of them is killed where that `kills`.
async fn check(program: &Arc<Program>, kills: bool) {
    let server = program.serve().await;
    let mut client = connect(&server).await;
    for text in [
        "CREATE TABLE visits AS SELECT n % 50 AS person FROM generate_series(1, 200) AS s (n)",
        "CREATE PRIVACY POLICY p ON visits (person) BUDGET (epsilon = 5) PER USER",
    ] {
        change(&mut client, text).await;
    }
    drop(client);
    stop([server]).await;
    let servers = [program.serve().await, program.serve().await];
    let spree = Arc::new(Spree {
        begins: Barrier::new(2 * CLIENTS),
        answers: AtomicUsize::new(0),
        doomed: kills.then(|| servers[1].process.clone()),
    });
    let mut spending = JoinSet::new();
    for number in 0..2 * CLIENTS {
        let (client, spree) = (connect(&servers[number % 2]).await, Arc::clone(&spree));
        let is_doomed = kills && number % 2 == 1;
        spending.spawn(async move { (number % 2, spend(client, spree, is_doomed).await) });
    }
    let mut answers = [0, 0];
    for (server, answered) in spending.join_all().await {
        answers[server] += answered;
    }
    let [one, other] = servers;
    if kills {
        drop(other);
        stop([one]).await;
    } else {
        stop([one, other]).await;
        assert!(answers.iter().all(|answers| *answers > 0), "one has spent all: {answers:?}");
    }
    verify(program).await;
    // A third server, which has seen nothing, finds it all.
    let server = program.serve().await;
    let mut client = connect(&server).await;
    let spent = "SELECT queries, CAST(epsilon_spent * 8 AS BIGINT), epsilon_left = 0 \
                 FROM system.privacy_budget";
    let spent = rows(&mut client, spent).await;
    assert_eq!(spent, [format!("{ANSWERS}|{ANSWERS}|true")], "{answers:?}");
    let answers = answers.iter().sum::<usize>();
    let [begun, ended] = on_record(&mut client, "select", "main.visits").await;
    let finished = "SELECT count(*) FROM system.audit WHERE kind = 'select' AND phase = 'ended' \
                    AND outcome = 'finished' AND array_has(objects, 'main.visits')";
    let finished: usize = rows(&mut client, finished).await[0].parse().unwrap();
    if kills {
        // Who was killed has paid for what nobody has seen, and for nothing twice.
        assert!((ANSWERS_BEFORE..=ANSWERS).contains(&answers), "{answers} answers");
        assert!(finished <= ANSWERS && ended <= begun, "{finished} of {ended} of {begun}");
    } else {
        // Each client was refused once.
        assert_eq!((answers, finished), (ANSWERS, ANSWERS));
        assert_eq!([begun, ended], [(ANSWERS + 2 * CLIENTS) as u64; 2]);
    }
    drop(client);
    stop([server]).await;
}

/// The same over a folder of a folder.
async fn check_in(folder: &Path, kills: bool) {
    let warehouse = folder.join("w");
    let settings = format!("[warehouse]\nurl = \"{}\"\n", warehouse.display());
    check(&program(folder, &settings), kills).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_over_a_bucket_cannot_overspend_one_budget() {
    let site = Site::build(|_| String::new()).await;
    check(&site.program, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_servers_over_a_folder_cannot_overspend_one_budget() {
    let folder = tempfile::tempdir().unwrap();
    check_in(folder.path(), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_killed_leaves_another_no_more_than_the_budget() {
    let site = Site::build(|_| String::new()).await;
    check(&site.program, true).await;
    let folder = tempfile::tempdir().unwrap();
    check_in(folder.path(), true).await;
}
