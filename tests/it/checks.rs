//! CHECK TABLE by file: whatever happens to a table's files, the answer is that of reading all.
//!
//! The oracle is a view over the table with the same expectations: a view has no files, so it is
//! read as a whole. Steps are drawn from fixed seeds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use attune::auth::hasher::Argon2Hasher;
use catalog::policy::Principal;
use catalog::{Catalog, CatalogConfig, LakeAccess, LakeConfig, StoreConfig};
use futures::TryStreamExt;
use sql::{Engine, Limits, Session};

/// Checks by name; the last ones read the whole table.
const CHECKS: [(&str, &str); 21] = [
    ("positive", "price > 0"),
    ("form", "mail LIKE '%@%'"),
    ("bounded", "price BETWEEN -2 AND 40 OR mail IS NULL"),
    ("complete", "completeness(mail) >= 0.5"),
    ("volume", "row_count() BETWEEN 1 AND 30"),
    ("fresh", "freshness(at) <= INTERVAL '36500 days'"),
    ("oldest", "min(at) >= TIMESTAMP '2024-01-05'"),
    ("least", "min(price) > -5"),
    ("first", "min(mail) < 'b'"),
    ("total", "sum(id) < 1000 AND sum(price) < 500"),
    ("every", "bool_and(price > 0)"),
    ("several", "completeness(mail) > 0.1 AND max(price) < 100 AND count(at) > 2"),
    ("steady", "drift_psi(id) < 0.25"),
    ("moved", "drift_ks(id, reference.id) < 0.5"),
    ("average", "avg(price) < 20 AND (stddev(price) < 9 OR sum(CAST(id AS DOUBLE)) > 40)"),
    ("one", "uniqueness(id) = 1 AND row_count() > 0"),
    ("known", "id IN (SELECT id FROM main.reference)"),
    ("listed", "mail IN (SELECT r.mail FROM main.reference AS r)"),
    ("small", "id IN (SELECT CAST(id AS SMALLINT) FROM main.reference WHERE id < 15)"),
    ("past", "at < now()"),
    ("priced", "price IN (SELECT id FROM main.reference)"),
];
/// Those of the checks that read new files alone.
const BY_FILE: usize = 19;

async fn session(folder: &Path) -> Session {
    let clock = Arc::new(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_millis()).unwrap()
    });
    let store =
        |path: PathBuf| StoreConfig { url: path.display().to_string(), ..Default::default() };
    std::fs::create_dir_all(folder.join("lake")).unwrap();
    let mut config = CatalogConfig::new(store(folder.join("warehouse")), clock);
    config.freshness = Duration::ZERO;
    config.lakes = vec![LakeConfig {
        name: "lake".into(),
        store: store(folder.join("lake")),
        discover: true,
        access: LakeAccess::Read,
        tables: vec![],
    }];
    let catalog = Catalog::open(config).await.unwrap();
    let engine = Engine::open(catalog, Limits::default(), Arc::new(Argon2Hasher::default()));
    let session = engine.unwrap().session(Principal::embedded());
    let reference = "CREATE TABLE reference AS SELECT value AS id, 'ann@x.org' AS mail FROM generate_series(1, 20) AS s (value)";
    run(&session, reference).await;
    session
}

/// The answer's rows by their first column, each value by its column.
type Rows = BTreeMap<String, BTreeMap<String, String>>;

async fn run(session: &Session, text: &str) -> Rows {
    let rows = answer(session, text).await;
    rows.into_iter().map(|values| (values[0].1.clone(), values.into_iter().collect())).collect()
}

/// The answer's rows, each value with its column.
async fn answer(session: &Session, text: &str) -> Vec<Vec<(String, String)>> {
    let answer = session.query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    let batches: Vec<_> = answer.rows.try_collect().await.unwrap();
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let schema = batch.schema();
            let values = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
                let column = ArrayFormatter::try_new(column.as_ref(), &options).unwrap();
                (field.name().clone(), column.value(row).to_string())
            });
            rows.push(values.collect());
        }
    }
    rows
}

async fn expect(session: &Session, table: &str, view: &str) {
    run(session, &format!("CREATE VIEW {view} AS SELECT * FROM {table}")).await;
    for target in [table, view] {
        for (name, check) in CHECKS {
            let tolerance = if name == "positive" { "TOLERANCE 0.3" } else { "" };
            let text = format!("CREATE EXPECTATION {name} ON {target} CHECK ({check}) {tolerance}");
            run(session, &text).await;
        }
    }
}

/// Checks the table and the view, which answer the same; gives the files that each check of the
/// table read, and all there are.
async fn checked(session: &Session, table: &str, view: &str) -> BTreeMap<String, (u64, u64)> {
    let mut found = run(session, &format!("CHECK TABLE {table}")).await;
    let mut whole = run(session, &format!("CHECK TABLE {view}")).await;
    let mut files = BTreeMap::new();
    for (name, values) in &mut found {
        let mut count = |column: &str| values.remove(column).unwrap().parse::<u64>().unwrap();
        files.insert(name.clone(), (count("files_read"), count("files_total")));
    }
    for values in found.values_mut().chain(whole.values_mut()) {
        values.retain(|column, _| {
            !matches!(column.as_str(), "sample" | "files_read" | "files_total")
        });
    }
    assert_eq!(found, whole);
    assert!(found.values().all(|values| values["status"] != "error"), "{found:?}");
    files
}

/// What each kind of check read: the same for all of a kind.
fn read(files: &BTreeMap<String, (u64, u64)>) -> (u64, u64) {
    let (_, total) = files["positive"];
    let read = files["positive"].0;
    for (number, (name, _)) in CHECKS.iter().enumerate() {
        let expected = if number < BY_FILE { read } else { total };
        assert_eq!(files[*name], (expected, total), "{name}: {files:?}");
    }
    (read, total)
}

/// A sequence of numbers that a seed determines.
pub struct Dice(pub u64);

impl Dice {
    /// A number below the limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn value(&mut self, value: String) -> Option<String> {
        (self.below(5) > 0).then_some(value)
    }

    /// Up to nine rows: id, price, mail, at.
    fn rows(&mut self) -> Vec<[Option<String>; 4]> {
        let row = |dice: &mut Self| {
            let (id, price) = (dice.below(30).to_string(), dice.below(60).to_string());
            let mail =
                ["ann@x.org", "bob@y.org", "no mail"][usize::try_from(dice.below(3)).unwrap()];
            let at = format!("2024-01-{:02} 00:00:00", dice.below(20) + 1);
            let price = format!("{}.5", price.parse::<i64>().unwrap() - 6);
            [Some(id), dice.value(price), dice.value(mail.into()), dice.value(at)]
        };
        (0..self.below(10)).map(|_| row(self)).collect()
    }
}

fn select(rows: &[[Option<String>; 4]]) -> String {
    let types = ["BIGINT", "DECIMAL(10, 2)", "VARCHAR", "TIMESTAMP"];
    let row = |row: &[Option<String>; 4]| {
        let values = row.iter().zip(types).map(|(value, kind)| match value {
            Some(value) => format!("CAST('{value}' AS {kind})"),
            None => format!("CAST(NULL AS {kind})"),
        });
        format!("({})", values.collect::<Vec<_>>().join(", "))
    };
    match rows.is_empty() {
        true => "SELECT * FROM t WHERE FALSE".to_owned(),
        false => {
            let rows: Vec<String> = rows.iter().map(row).collect();
            format!("SELECT * FROM (VALUES {}) AS v (id, price, mail, at)", rows.join(", "))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_table_by_file_is_the_table_as_a_whole() {
    for seed in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let session = session(folder.path()).await;
        let mut dice = Dice(seed);
        let columns = "id BIGINT, price DECIMAL(10, 2), mail VARCHAR, at TIMESTAMP";
        run(&session, &format!("CREATE TABLE t ({columns})")).await;
        expect(&session, "t", "v").await;
        let (_, mut before) = read(&checked(&session, "t", "v").await);
        for _ in 0..8 {
            let (rows, number) = (dice.rows(), dice.below(30));
            let (step, adds) = match dice.below(6) {
                0 => (format!("DELETE FROM t WHERE id < {number}"), false),
                1 => (format!("UPDATE t SET price = price + 1 WHERE id > {number}"), false),
                2 => (format!("INSERT OVERWRITE t {}", select(&rows)), false),
                _ => (format!("INSERT INTO t {}", select(&rows)), true),
            };
            run(&session, &step).await;
            // What is looked up elsewhere counts as it is now, though no file of `t` is new.
            for _ in 0..dice.below(3) {
                let number = dice.below(30);
                let step = match dice.below(2) {
                    0 => format!("DELETE FROM reference WHERE id = {number}"),
                    _ => format!("INSERT INTO reference VALUES ({number}, 'bob@y.org')"),
                };
                run(&session, &step).await;
            }
            let (found, total) = read(&checked(&session, "t", "v").await);
            if adds {
                assert_eq!(found, total - before, "{step}");
            }
            assert_eq!(read(&checked(&session, "t", "v").await), (0, total));
            before = total;
        }
    }
}

/// A folder of the lake.
fn people(folder: &Path) -> PathBuf {
    let people = folder.join("lake/people");
    std::fs::create_dir_all(&people).unwrap();
    people
}

/// Puts a file in its place as a whole: another file, also where it is as long.
fn put(folder: &Path, name: &str, content: &str) {
    let other = folder.join("_new");
    std::fs::write(&other, content).unwrap();
    std::fs::rename(other, folder.join(name)).unwrap();
}

fn csv(rows: &[[Option<String>; 4]]) -> String {
    let line = |row: &[Option<String>; 4]| {
        row.iter().map(|value| value.as_deref().unwrap_or_default()).collect::<Vec<_>>().join(",")
    };
    let lines = rows.iter().map(line);
    std::iter::once("id,price,mail,at".to_owned()).chain(lines).collect::<Vec<_>>().join("\n")
        + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_come_change_and_go_are_those_that_are_there() {
    for seed in 10..14 {
        let folder = tempfile::tempdir().unwrap();
        let people = people(folder.path());
        let session = session(folder.path()).await;
        let mut dice = Dice(seed);
        put(&people, "0.csv", &csv(&dice.rows()));
        let columns = "id BIGINT, price DECIMAL(10, 2), mail VARCHAR, at TIMESTAMP";
        let create = format!(
            "CREATE EXTERNAL TABLE t ({columns}) STORED AS CSV LOCATION 'people/' OPTIONS (has_header 'true')"
        );
        run(&session, &create).await;
        expect(&session, "t", "v").await;
        assert_eq!(read(&checked(&session, "t", "v").await), (1, 1));
        let mut there = std::collections::BTreeSet::from([0]);
        for _ in 0..8 {
            let (file, rows) = (dice.below(4), dice.rows());
            let removed = dice.below(4) == 0 && there.len() > 1 && there.remove(&file);
            let name = format!("{file}.csv");
            match removed {
                true => std::fs::remove_file(people.join(name)).unwrap(),
                false => {
                    put(&people, &name, &csv(&rows));
                    there.insert(file);
                }
            }
            let total = there.len() as u64;
            let expected = u64::from(!removed);
            assert_eq!(read(&checked(&session, "t", "v").await), (expected, total));
            assert_eq!(read(&checked(&session, "t", "v").await), (0, total));
        }
    }
}

/// Aggregates of floats; the last ones read the whole table.
const OF_FLOATS: [&str; 8] = ["avg", "sum", "stddev", "stddev_pop", "var", "var_pop", "min", "max"];

/// Aggregates of pairs, which read the whole table.
const OF_PAIRS: [&str; 4] = ["corr", "covar", "covar_pop", "regr_slope"];

/// The values of each of some files.
type Files = &'static [&'static [&'static str]];

/// Files, and of which of the aggregates that are had by file the value is below 5.
const FLOATS: [(Files, &[&str]); 13] = [
    (&[&["1e200"], &["1e200"]], &["stddev", "stddev_pop", "var", "var_pop"]),
    (&[&["1e200", "1e200"]], &["stddev", "stddev_pop", "var", "var_pop"]),
    (&[&["1e308"], &["-1e308"]], &["avg", "sum"]),
    // Twice 2¹⁰²³ is beyond all doubles.
    (
        &[&["8.98846567431158e307"], &[], &["8.98846567431158e307"]],
        &["stddev", "stddev_pop", "var", "var_pop"],
    ),
    (
        &[
            &["8.98846567431158e307"],
            &["8.98846567431158e307", "-8.98846567431158e307"],
            &["-8.98846567431158e307"],
        ],
        &["avg", "sum"],
    ),
    (&[&["inf"], &["1"]], &[]),
    (&[&["1", "-inf"], &["2"]], &["avg", "sum"]),
    (&[&["inf"], &["-inf"], &["3"]], &[]),
    (&[&["NaN"], &["1", "2"]], &[]),
    (&[&["inf"]], &["stddev_pop", "var_pop"]),
    (&[&[], &["inf"]], &["stddev_pop", "var_pop"]),
    (&[&["", ""], &["-inf"]], &["avg", "sum", "stddev_pop", "var_pop"]),
    (&[&[], &[""]], &[]),
];

/// Whether numbers are the same but for the last digits, which depend on the order of rows.
fn is_same(one: &str, other: &str) -> bool {
    match (one.parse::<f64>(), other.parse::<f64>()) {
        (Ok(one), Ok(other)) => {
            one == other
                || (one.is_nan() && other.is_nan())
                || (one - other).abs() < 1e-12 * other.abs()
        }
        _ => one == other,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn infinite_and_huge_values_by_file_are_those_of_the_table_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let people = people(folder.path());
    let session = session(folder.path()).await;
    put(&people, "0.csv", "id,x\n");
    let create = "CREATE EXTERNAL TABLE t (id BIGINT, x DOUBLE) STORED AS CSV \
                  LOCATION 'people/' OPTIONS (has_header 'true')";
    run(&session, create).await;
    run(&session, "CREATE VIEW v AS SELECT * FROM t").await;
    for target in ["t", "v"] {
        for function in OF_FLOATS {
            let check = format!("CHECK ({function}(x) < 5)");
            run(&session, &format!("CREATE EXPECTATION {function}_x ON {target} {check}")).await;
        }
        for function in OF_PAIRS {
            let check = format!("CHECK ({function}(x, x / 2) < 5)");
            run(&session, &format!("CREATE EXPECTATION {function}_x ON {target} {check}")).await;
        }
    }
    for (files, below) in FLOATS {
        let mut files = files.to_vec();
        for _ in 0..files.len() {
            for file in std::fs::read_dir(&people).unwrap() {
                std::fs::remove_file(file.unwrap().path()).unwrap();
            }
            for (number, values) in files.iter().enumerate() {
                let lines: String = values.iter().map(|value| format!("1,{value}\n")).collect();
                put(&people, &format!("{number}.csv"), &format!("id,x\n{lines}"));
            }
            let total = files.len().to_string();
            // New files are read first, and then what they gave.
            for read in [total.as_str(), "0"] {
                let found = run(&session, "CHECK TABLE t").await;
                let whole = run(&session, "CHECK TABLE v").await;
                let functions = OF_FLOATS.iter().chain(&OF_PAIRS);
                for (number, function) in functions.enumerate() {
                    let name = format!("{function}_x");
                    let (found, whole) = (&found[&name], &whole[&name]);
                    let told = format!("{files:?}: {found:?} {whole:?}");
                    assert_eq!(found["status"], whole["status"], "{told}");
                    assert!(is_same(&found["observed"], &whole["observed"]), "{told}");
                    if number < 6 {
                        assert_eq!(found["files_read"], read, "{told}");
                        let is_below = below.contains(function);
                        assert_eq!(found["status"] == "pass", is_below, "{told}");
                    }
                }
            }
            files.rotate_left(1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_type_or_definition_finds_nothing_known() {
    let folder = tempfile::tempdir().unwrap();
    let people = people(folder.path());
    put(&people, "a.csv", "n,s\n1,x\n12,y\n");
    let session = session(folder.path()).await;
    run(&session, "CREATE VIEW v AS SELECT * FROM lake.people").await;
    for target in ["lake.people", "v"] {
        for (name, check) in [("most", "max(n) < 10"), ("text", "min(s) > 'a'")] {
            run(&session, &format!("CREATE EXPECTATION {name} ON {target} CHECK ({check})")).await;
        }
    }
    let files = checked(&session, "lake.people", "v").await;
    assert_eq!(files["most"], (1, 1));
    // Whole numbers become floats with a file that has some: what was known of n is no float.
    put(&people, "b.csv", "n,s\n2.5,x\n");
    let files = checked(&session, "lake.people", "v").await;
    assert_eq!((files["most"], files["text"]), ((2, 2), (1, 2)));
    for target in ["lake.people", "v"] {
        let replace = "CREATE OR REPLACE EXPECTATION most";
        run(&session, &format!("{replace} ON {target} CHECK (max(n) < 20)")).await;
    }
    let files = checked(&session, "lake.people", "v").await;
    assert_eq!((files["most"], files["text"]), ((2, 2), (0, 2)));
    run(&session, "SET time_zone = '+02:00'").await;
    let files = checked(&session, "lake.people", "v").await;
    assert_eq!((files["most"], files["text"]), ((2, 2), (2, 2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn states_that_are_damaged_or_lost_are_found_out_again() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path()).await;
    let rows = Dice(1).rows();
    run(&session, "CREATE TABLE t (id BIGINT, price DECIMAL(10, 2), mail VARCHAR, at TIMESTAMP)")
        .await;
    expect(&session, "t", "v").await;
    run(&session, &format!("INSERT INTO t {}", select(&rows))).await;
    let (found, total) = read(&checked(&session, "t", "v").await);
    assert_eq!(found, total);
    let states = folder.path().join("warehouse/_attune/check_states/main.t");
    let numbered = || {
        let listed = std::fs::read_dir(&states).unwrap();
        let mut files: Vec<PathBuf> = listed.map(|file| file.unwrap().path()).collect();
        files.sort();
        files
    };
    let newest = || numbered().pop().unwrap();
    let content = std::fs::read(newest()).unwrap();
    let mut damaged = content.clone();
    damaged[content.len() / 2] ^= 1;
    for content in [&damaged[..], &content[..content.len() - 9], &[]] {
        std::fs::write(newest(), content).unwrap();
        assert_eq!(read(&checked(&session, "t", "v").await), (total, total));
        assert_eq!(read(&checked(&session, "t", "v").await), (0, total));
    }
    std::fs::remove_dir_all(&states).unwrap();
    assert_eq!(read(&checked(&session, "t", "v").await), (total, total));
    run(&session, "DROP TABLE t").await;
    // None of a file are left.
    let left: u64 = numbered().iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(left < content.len() as u64 / 2, "{left} of {}", content.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_values_are_kept_for_each_file_and_tell_no_value() {
    let folder = tempfile::tempdir().unwrap();
    let people = people(folder.path());
    put(&people, "a.csv", "n,s\n1,ann@x.org\n2,bob@x.org\n");
    put(&people, "b.csv", "n,s\n2,ann@x.org\n3,\n");
    let session = session(folder.path()).await;
    run(&session, "CREATE VIEW v AS SELECT * FROM lake.people").await;
    for target in ["lake.people", "v"] {
        for (name, check) in [
            ("one", "uniqueness(n) = 1"),
            ("pair", "duplicate_count(s, n) = 0"),
            ("text", "s > 'a'"),
        ] {
            run(&session, &format!("CREATE EXPECTATION {name} ON {target} CHECK ({check})")).await;
        }
    }
    let kept = folder.path().join("warehouse/_attune/check_keys/lake.people");
    let objects = || {
        let listed = std::fs::read_dir(&kept).unwrap();
        listed.map(|object| object.unwrap().path()).collect::<Vec<PathBuf>>()
    };
    let files = checked(&session, "lake.people", "v").await;
    assert_eq!((files["one"], files["pair"], files["text"]), ((2, 2), (2, 2), (2, 2)));
    assert_eq!(objects().len(), 4);
    for object in objects() {
        let content = std::fs::read(&object).unwrap();
        assert!(content.len() <= 8 + 32 + 16 + 2 * 24);
        assert!(!content.windows(4).any(|part| part == b"ann@" || part == b"bob@"));
    }
    put(&people, "c.csv", "n,s\n3,eve@x.org\n");
    let files = checked(&session, "lake.people", "v").await;
    assert_eq!((files["one"], files["pair"], files["text"]), ((1, 3), (1, 3), (1, 3)));
    assert_eq!(objects().len(), 6);
    // What is lost or damaged is found out again, for those checks that need it.
    let (lost, damaged) = (objects().remove(0), objects().remove(1));
    std::fs::remove_file(lost).unwrap();
    std::fs::write(damaged, "no keys").unwrap();
    let files = checked(&session, "lake.people", "v").await;
    assert_eq!(files["one"].0 + files["pair"].0, 2, "{files:?}");
    assert_eq!(files["text"], (0, 3));
    let files = checked(&session, "lake.people", "v").await;
    assert_eq!((files["one"], files["pair"], files["text"]), ((0, 3), (0, 3), (0, 3)));
    // Keys go with their file, and with their expectation.
    std::fs::remove_file(people.join("a.csv")).unwrap();
    let files = checked(&session, "lake.people", "v").await;
    assert_eq!((files["one"], files["pair"], objects().len()), ((0, 2), (0, 2), 4));
    for target in ["lake.people", "v"] {
        run(&session, &format!("DROP EXPECTATION pair ON {target}")).await;
    }
    checked(&session, "lake.people", "v").await;
    assert_eq!(objects().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_at_the_same_time_answer_for_a_version_each() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path()).await;
    run(&session, "CREATE TABLE t AS SELECT 1 AS id").await;
    run(&session, "CREATE EXPECTATION total ON t CHECK (sum(id) = row_count())").await;
    let check = || async {
        let found = run(&session, "CHECK TABLE t").await;
        assert_eq!(found["total"]["status"], "pass");
        assert_eq!(found["total"]["observed"], found["total"]["rows_checked"]);
    };
    for _ in 0..6 {
        let add = run(&session, "INSERT INTO t VALUES (1), (1)");
        futures::join!(check(), add, check(), check());
    }
    check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_tells_how_many_files_are_to_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let people = people(folder.path());
    put(&people, "a.csv", "n,s\n1,x\n12,y\n");
    put(&people, "b.csv", "n,s\n");
    let session = session(folder.path()).await;
    for (name, check) in [
        ("most", "max(n) < 10"),
        ("text", "s <> ''"),
        ("one", "uniqueness(n) = 1"),
        ("some", "count(DISTINCT n) > 1"),
    ] {
        run(&session, &format!("CREATE EXPECTATION {name} ON lake.people CHECK ({check})")).await;
    }
    let explained = || async {
        let rows = answer(&session, "EXPLAIN CHECK TABLE lake.people").await;
        let about = |row: &Vec<(String, String)>| (row[0].1 == "files").then(|| row[1].1.clone());
        let scans =
            rows.iter().map(|row| row[1].1.matches("DataSourceExec").count()).sum::<usize>();
        (rows.iter().filter_map(about).collect::<Vec<_>>().join("; "), scans)
    };
    let (by_file, whole) = ("most, one, text", "all 2 to read: some");
    let first = format!("2 to read, 0 known: {by_file}; {whole}; read once for these 2 queries");
    assert_eq!(explained().await, (first, 1));
    run(&session, "CHECK TABLE lake.people").await;
    assert_eq!(explained().await, (format!("0 to read, 2 known: {by_file}; {whole}"), 1));
    put(&people, "c.csv", "n,s\n7,x\n");
    let third = format!("1 to read, 2 known: {by_file}; all 3 to read: some");
    assert_eq!(explained().await, (third, 2));
}
