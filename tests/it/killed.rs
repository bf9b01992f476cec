//! The real program over an object store that kills it (SIGKILL) at each single write of an
//! erasure: nothing is lost, nothing stays half done, and whoever is gone does not come back.

mod charge;
mod record;
pub mod site;

use std::path::Path;
use std::time::{Duration, Instant};

use object_store::ObjectStoreExt;
use object_store::path::Path as StorePath;

use crate::flight::support::{Client, attempt, lines, rows};
use crate::forgotten::{DONE, change, connect};
use crate::killed::site::{STEP_MAX, Site};
use crate::remnants::Remnants;
use crate::s3::{Last, Store};

/// Warehouses whose programs are killed side by side, each at every so many-th write.
const HOUSES: usize = 4;
/// Persons of each, of whom one is forgotten at a time.
const PERSONS: usize = 60;
/// Rows of each person in the warehouse and in the lake.
const ROWS: [usize; 2] = [4, 2];

/// A person's id, which is nowhere by chance.
fn person(number: usize) -> String {
    format!("person-who-may-go-{number:04}")
}

/// A warehouse and a lake of many persons.
struct House {
    site: Site,
    /// The persons up to this one are gone.
    forgotten: usize,
}

impl House {
    /// One with nobody in its warehouse yet, and every person in its lake.
    async fn build() -> Self {
        let lake = |s3: &Store| format!("[lake]\ndiscover = true\n{}", s3.toml("l"));
        let site = Site::build(lake).await;
        let visits: String =
            (0..PERSONS * ROWS[1]).map(|id| format!("{id},{}\n", person(id % PERSONS))).collect();
        let visits = format!("id,person\n{visits}").into_bytes();
        let at = StorePath::from("l/visits/part-0.csv");
        site.s3.client().put(&at, visits.into()).await.unwrap();
        Self { site, forgotten: 0 }
    }

    /// One of each that an erasure writes.
    async fn fill(&self, client: &mut Client) {
        let last = PERSONS * ROWS[0] - 1;
        let orders = format!(
            "CREATE TABLE orders AS SELECT n AS id, 'person-who-may-go-' || \
             lpad(CAST(n % {PERSONS} AS VARCHAR), 4, '0') AS person, 'item-' || (n * 7 % 13) AS item \
             FROM generate_series(0, {last}) AS s(n)"
        );
        for text in [
            orders.as_str(),
            "CREATE MODEL factors OPTIONS (model_type = 'matrix_factorization', \
             user_col = 'person', item_col = 'item', feedback_type = 'implicit', num_factors = 2) \
             AS SELECT person, item FROM orders",
            "CREATE EXPECTATION known ON orders CHECK (person IS NOT NULL)",
            "CHECK TABLE orders",
            "CREATE SUBJECT person KEY (orders.person, lake.visits.person)",
        ] {
            change(client, text).await;
        }
    }

    /// The files of each erasure's folder.
    fn erasures(&self) -> Vec<Vec<String>> {
        let names = |folder: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let folder = self.site.bucket.join("w/_attune/erasures");
        names(&folder).iter().map(|id| names(&folder.join(id))).collect()
    }

    /// Whether an erasure is to be ended.
    fn is_open(&self) -> bool {
        self.erasures().concat().iter().any(|file| file == "job.json")
    }

    /// How many steps of the newest erasure are done; `None` when it has not begun.
    fn steps_done(&self) -> Option<usize> {
        let erasures = self.erasures();
        let has = |files: &[String], name: &str| files.iter().any(|file| file == name);
        let certified = erasures.iter().filter(|files| has(files, "certificate.json")).count();
        if certified > self.forgotten {
            return Some(usize::MAX);
        }
        let open = erasures.iter().find(|files| has(files, "job.json"))?;
        Some(open.iter().filter(|file| file.starts_with("step-")).count())
    }

    /// Sees an erasure to its end, which was interrupted after so many steps: who is gone from a
    /// table is not seen there again, and nobody is half there. Gives the rows that are left.
    async fn see(&self, client: &mut Client, id: &str, done: Option<usize>) -> [usize; 2] {
        let mut left = ROWS;
        // The first step hides the person in the lake, the second one rewrites the table.
        if done >= Some(1) {
            left[1] = 0;
        }
        if done >= Some(2) {
            left[0] = 0;
        }
        let started = Instant::now();
        loop {
            let is_open = self.is_open();
            for (table, left) in ["orders", "lake.visits"].into_iter().zip(&mut left) {
                let query = format!("SELECT count(*) FROM {table} WHERE person = '{id}'");
                match attempt(client, &query).await {
                    Ok(answer) => {
                        let seen: usize = lines(&answer)[0].parse().unwrap();
                        assert!(seen == 0 || seen == *left, "{seen} of {id} in {table}: {done:?}");
                        *left = seen;
                    }
                    // The files may go while they are read, until all is done.
                    Err(status) => assert!(is_open, "{table}: {status}"),
                }
            }
            if !is_open {
                return left;
            }
            assert!(started.elapsed() < STEP_MAX, "the erasure of {id} does not end: {done:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Who was forgotten is nowhere, it is certified, and everybody else's rows are there once.
    async fn check(&self, client: &mut Client) {
        let forgotten = self.forgotten;
        for (table, each) in ["orders", "lake.visits"].into_iter().zip(ROWS) {
            let ids = (0..PERSONS * each).filter(|id| id % PERSONS >= forgotten);
            let (count, sum) = ids.fold((0, 0), |(count, sum), id| (count + 1, sum + id));
            let query = format!("SELECT count(*), count(DISTINCT id), sum(id) FROM {table}");
            let there = rows(client, &query).await;
            assert_eq!(there, [format!("{count}|{count}|{sum}")], "{table}: {forgotten} are gone");
        }
        let gone = person(forgotten - 1);
        for (query, answer) in [
            (DONE.to_owned(), &*forgotten.to_string()),
            ("SELECT count(*) FROM system.erasures".to_owned(), &*forgotten.to_string()),
            (recommended(&person(forgotten)), "als"),
            (recommended(&gone), "popularity"),
        ] {
            assert_eq!(rows(client, &query).await, [answer], "{forgotten} are gone: {query}");
        }
        let found = Remnants::of(&[&gone], &[]).below(&self.site.bucket.join("w"));
        assert_eq!(found, Vec::<String>::new(), "{forgotten} are gone");
    }
}

fn recommended(id: &str) -> String {
    format!("SELECT DISTINCT source FROM ml_recommend('factors', '{id}', 3)")
}

/// Forgets one person after another, each time with a program that is killed some writes later,
/// until one is not killed any more; gives after how many writes that was.
async fn live(first: usize) -> usize {
    let mut house = House::build().await;
    let mut server = house.site.program.serve().await;
    let mut client = connect(&server).await;
    house.fill(&mut client).await;
    for writes in (first..).step_by(HOUSES) {
        let id = person(house.forgotten);
        let forget = format!("FORGET SUBJECT person '{id}'");
        // Of each two writes that follow each other one is done and not answered, and the next one
        // is not done, so each number of writes that are done occurs.
        let last = if writes % 2 == 0 { Last::Undone } else { Last::Unanswered };
        house.site.rest().await;
        house.site.s3.lives.kill_program_after(writes, server.process.clone(), last);
        let told = client.execute_update(forget.clone(), None);
        let told = tokio::time::timeout(STEP_MAX, told).await.unwrap();
        if !house.site.s3.lives.revive() {
            told.unwrap_or_else(|error| panic!("{forget}: {error}"));
            house.forgotten += 1;
            house.check(&mut client).await;
            drop(client);
            tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
            house.site.verify().await;
            return writes;
        }
        let done = house.steps_done();
        house.site.verify().await;
        server = house.site.program.serve().await;
        client = connect(&server).await;
        let left = house.see(&mut client, &id, done).await;
        if done.is_none() {
            assert!(told.is_err(), "{writes} writes: {forget} is done and has not begun");
            assert_eq!(left, ROWS, "after {writes} writes");
            change(&mut client, &forget).await;
        }
        house.forgotten += 1;
        assert!(house.forgotten < PERSONS, "an erasure of {writes} writes");
        house.check(&mut client).await;
    }
    unreachable!("there is an end to each erasure")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_half_forgotten_by_a_program_that_is_killed_at_any_write() {
    let houses = (0..HOUSES).map(|first| tokio::spawn(live(first)));
    let writes = futures::future::join_all(houses).await.into_iter().map(Result::unwrap);
    let writes: Vec<usize> = writes.collect();
    assert!(writes.iter().all(|writes| *writes > 10), "erasures of {writes:?} writes");
}
