//! The real program over an object store that kills it (SIGKILL) at each single write of what it
//! puts on record: the first entries of a warehouse, with the secret and the key that sign them;
//! those of a change, before it and before it is answered; and a checkpoint. What was acknowledged
//! is on record once, what was done has begun there, and the record holds and goes on.

use crate::flight::support::{Client, rows};
use crate::forgotten::{change, connect};
use crate::killed::site::{STEP_MAX, Site, moment, on_record, stop};
use crate::s3::Last;

/// Programs that are killed side by side, each at every so many-th moment.
const CHAINS: usize = 2;
/// Moments of a warehouse's first statement: those of its secret, its key, a login, and more.
const FIRST_MOMENTS: usize = 12;
const CREATE: &str = "CREATE TABLE IF NOT EXISTS notes AS SELECT 0 AS n";
const INSERT: &str = "INSERT INTO notes SELECT 1 AS n";

/// Whether a change was acknowledged before its program was killed.
async fn is_done(client: &mut Client, text: &str) -> bool {
    let done = client.execute_update(text.to_owned(), None);
    tokio::time::timeout(STEP_MAX, done).await.unwrap().is_ok()
}

/// The rows that were inserted, and how many insertions have begun and ended by the record.
async fn inserted(client: &mut Client) -> [u64; 3] {
    let count = "SELECT count(*) FROM notes WHERE n = 1";
    let done = rows(client, count).await[0].parse().unwrap();
    let [begun, ended] = on_record(client, "insert", "main.notes").await;
    [done, begun, ended]
}

/// Inserts a row again and again, each time with a program that is killed at a later moment, until
/// one is not killed any more; gives after how many writes that was.
async fn insertions(first: usize) -> usize {
    let site = Site::build(|_| String::new()).await;
    let mut server = site.program.serve().await;
    let mut client = connect(&server).await;
    change(&mut client, CREATE).await;
    let mut before = inserted(&mut client).await;
    for number in (first..).step_by(CHAINS) {
        let (writes, last) = moment(number);
        site.rest().await;
        site.s3.lives.kill_program_after(writes, server.process.clone(), last);
        let is_told = is_done(&mut client, INSERT).await;
        let was_killed = site.was_killed().await;
        if was_killed {
            site.verify().await;
            server = site.program.serve().await;
            client = connect(&server).await;
        }
        assert!(is_told || was_killed, "after {writes} writes");
        let now = inserted(&mut client).await;
        let [done, begun, ended] = [0_usize, 1, 2].map(|at| now[at] - before[at]);
        let told = format!("{writes} writes, {last:?}: {done} done, {begun} begun, {ended} ended");
        assert!(done <= 1 && begun <= 1 && ended <= begun && done <= begun, "{told}");
        assert!(!is_told || [done, begun, ended] == [1; 3], "acknowledged: {told}");
        change(&mut client, INSERT).await;
        before = inserted(&mut client).await;
        assert_eq!(before, now.map(|count| count + 1), "the next one: {told}");
        if !was_killed {
            drop(client);
            stop([server]).await;
            site.verify().await;
            return writes;
        }
    }
    unreachable!("there is an end to each insertion")
}

/// Makes a table in one warehouse after another, each of which has no record before.
async fn beginnings(first: usize) {
    for number in (first..FIRST_MOMENTS).step_by(CHAINS) {
        let (writes, last) = moment(number);
        let site = Site::build(|_| String::new()).await;
        let server = site.program.serve().await;
        site.rest().await;
        site.s3.lives.kill_program_after(writes, server.process.clone(), last);
        let is_told = is_done(&mut connect(&server).await, CREATE).await;
        assert!(site.was_killed().await, "a table of {writes} writes");
        site.verify_begun().await;
        let server = site.program.serve().await;
        let mut client = connect(&server).await;
        let [begun, ended] = on_record(&mut client, "create table", "main.notes").await;
        let told = format!("{writes} writes, {last:?}: {begun} begun, {ended} ended");
        assert!(ended <= begun && begun <= 1, "{told}");
        assert!(!is_told || ended == 1, "acknowledged: {told}");
        change(&mut client, CREATE).await;
        assert_eq!(rows(&mut client, "SELECT n FROM notes").await, ["0"], "{told}");
        let both = on_record(&mut client, "create table", "main.notes").await;
        assert_eq!(both, [begun + 1, ended + 1], "the next one: {told}");
        drop(client);
        stop([server]).await;
        site.verify().await;
    }
}

/// Ends a program that is killed while it makes its last checkpoint.
async fn checkpoints() {
    let site = Site::build(|_| String::new()).await;
    for (turn, last) in [Last::Undone, Last::Unanswered].into_iter().enumerate() {
        let server = site.program.serve().await;
        let mut client = connect(&server).await;
        for text in [CREATE, INSERT] {
            change(&mut client, text).await;
        }
        drop(client);
        site.rest().await;
        // The checkpoint is the one write there is.
        site.s3.lives.kill_program_after(turn, server.process.clone(), last);
        server.terminate();
        assert!(site.was_killed().await, "{last:?}: there was no checkpoint");
        site.verify().await;
    }
    let server = site.program.serve().await;
    let mut client = connect(&server).await;
    assert_eq!(inserted(&mut client).await, [2, 2, 2]);
    drop(client);
    stop([server]).await;
    site.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_acknowledged_is_on_record_of_a_program_that_is_killed_at_any_write() {
    let insertions = (0..CHAINS).map(|first| tokio::spawn(insertions(first)));
    let checkpoints = tokio::spawn(checkpoints());
    let writes = futures::future::join_all(insertions).await.into_iter().map(Result::unwrap);
    let writes: Vec<usize> = writes.collect();
    checkpoints.await.unwrap();
    // Its beginning, its rows, their commit and its end.
    assert!(writes.iter().all(|writes| *writes >= 4), "insertions of {writes:?} writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_record_begins_with_a_program_that_is_killed_at_any_write() {
    let beginnings = (0..CHAINS).map(|first| tokio::spawn(beginnings(first)));
    for chain in futures::future::join_all(beginnings).await {
        chain.unwrap();
    }
}
