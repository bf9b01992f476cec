//! Statements that explode: each ends in an error within its limits, and the server answers the
//! next query while it does and afterwards.

use std::time::{Duration, Instant};

use sql::Limits;
use tonic::Code;

use super::support::{attempt, endless, failure, rows, start_limited, twin};

/// Within which each of them has to end.
pub fn limits() -> Limits {
    const MEBIBYTE: usize = 1 << 20;
    Limits {
        memory_bytes: 64 * MEBIBYTE,
        query_memory_bytes: 48 * MEBIBYTE,
        spill_bytes: 64 * MEBIBYTE as u64,
        query_timeout: Some(Duration::from_millis(1_500)),
        rows_max: Some(1_000_000),
        ..Limits::default()
    }
}

/// Common table expressions, each twice the one before.
fn doubling(levels: usize) -> String {
    let steps: Vec<String> = (1..levels)
        .map(|n| format!("c{n} AS (SELECT a.x FROM c{0} AS a, c{0} AS b)", n - 1))
        .collect();
    format!("WITH c0 AS (SELECT 1 AS x), {} SELECT count(*) FROM c{}", steps.join(", "), levels - 1)
}

fn columns(number: usize) -> String {
    let columns: Vec<String> = (0..number).map(|n| format!("{n} AS c{n}")).collect();
    columns.join(", ")
}

/// What explodes, by a name.
pub fn statements() -> Vec<(&'static str, String)> {
    let deep = |open: &str, close: &str, times: usize| {
        format!("SELECT {}1{}", open.repeat(times), close.repeat(times))
    };
    let subqueries =
        (0..500).fold("SELECT 1".to_owned(), |inner, n| format!("SELECT * FROM ({inner}) AS q{n}"));
    vec![
        ("deep parentheses", deep("(", ")", 100_000)),
        ("deep functions", deep("abs(", ")", 10_000)),
        ("deep arrays", deep("[", "]", 10_000)),
        ("deep NOT", format!("SELECT {} true", "NOT ".repeat(50_000))),
        ("deep minus", format!("SELECT {} 1", "- ".repeat(50_000))),
        ("deep CASE", deep("CASE WHEN true THEN ", " END", 5_000)),
        ("deep subqueries", subqueries),
        ("a chain of sums", format!("SELECT 1{}", " + 1".repeat(200_000))),
        ("a chain of ORs", format!("SELECT true{}", " OR 1 = 2".repeat(80_000))),
        ("a chain of casts", format!("SELECT 1{}", "::INT".repeat(100_000))),
        ("a chain of UNIONs", format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(50_000))),
        ("doubling expressions", doubling(40)),
        ("ten megabytes of text", format!("SELECT '{}'", "x".repeat(10_000_000))),
        ("repeat", "SELECT repeat('x', 2147483647)".into()),
        ("repeat of repeat", "SELECT repeat(repeat('x', 100000), 100000)".into()),
        ("replace", "SELECT replace(repeat('x', 100000), 'x', repeat('y', 100000))".into()),
        ("a chain of texts",
            format!("SELECT length(s{}) FROM (SELECT repeat('x', 3000) AS s FROM \
             generate_series(1, 8000))", " || s".repeat(1_500))),
        ("a chain of constants",
            format!("SELECT length(repeat('x', 200000000){})", " || repeat('x', 200000000)".repeat(40))),
        ("a chain of bytes",
            format!("SELECT length(b{}) FROM (SELECT arrow_cast(repeat('x', 3000), 'Binary') AS b \
             FROM generate_series(1, 8000))", " || b".repeat(1_500))),
        ("concat",
            format!("SELECT length(concat(s{})) FROM (SELECT repeat('x', 3000) AS s FROM \
             generate_series(1, 8000))", ", s".repeat(1_500))),
        ("a list as text", "SELECT array_to_string(range(0, 100000), repeat('y', 100000))".into()),
        ("a list", "SELECT range(0, 1000000000000)".into()),
        ("a list of dates",
            "SELECT range(DATE '2000-01-01', DATE '9000-01-01', INTERVAL '1 second')".into()),
        ("array_repeat", "SELECT array_repeat('x', 100000000000)".into()),
        ("a long series", "SELECT * FROM generate_series(1, 1000000000000)".into()),
        ("counting a long series",
            "SELECT count(*) FROM generate_series(1, 1000000000000) AS t(n) WHERE n % 7 = 8".into()),
        ("sorting a long series",
            "SELECT * FROM generate_series(1, 1000000000) AS t(n) ORDER BY -n".into()),
        ("a cross join", endless(12)),
        ("adding up a cross join", format!("SELECT sum(n) FROM ({})", endless(14))),
        ("a join without a key",
            "SELECT count(*) FROM generate_series(1, 1000000) AS a(x) \
             JOIN generate_series(1, 1000000) AS b(y) ON a.x * b.y = 7 AND a.x < b.y".into()),
        ("grouping a long series",
            "SELECT n, count(*) FROM generate_series(1, 1000000000) AS t(n) GROUP BY n".into()),
        ("a recursive query",
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) \
             SELECT count(*) FROM r".into()),
        ("a regular expression that is too large",
            "SELECT regexp_like('a', '((((((((a{0,100}){0,100}){0,100}){0,100}){0,100}){0,100})))')"
                .into()),
        ("patterns in a column",
            "SELECT count(*) FROM generate_series(1, 100000) AS t(n) \
             WHERE regexp_like('a', concat('\\w{40}', n))".into()),
        ("patterns of an operator",
            "SELECT count(*) FROM generate_series(1, 100000) AS t(n) \
             WHERE 'a' !~* concat('\\w{40}', n)".into()),
        ("string_agg",
            "SELECT string_agg(repeat('x', 1000), ',') FROM generate_series(1, 10000000)".into()),
        ("array_agg", "SELECT array_agg(n) FROM generate_series(1, 1000000000) AS t(n)".into()),
        ("a distance of long texts",
            "SELECT levenshtein(repeat('ab', 2000000), repeat('ba', 2000001))".into()),
        ("distances",
            "SELECT max(levenshtein(repeat('ab', 500), concat(repeat('ba', 500), n::TEXT))) \
             FROM generate_series(1, 10000000) AS t(n)".into()),
    ]
}

/// Plans nest deeply; the program gives its threads so much too.
const STACK_BYTES: usize = 8 << 20;
/// The program has some for each core as well.
const THREADS: usize = 12;

/// Threads as the program has them.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn each_ends_in_an_error_and_the_server_answers_on() {
    let runtime = runtime();
    runtime.block_on(runtime.spawn(explode())).unwrap();
}

async fn explode() {
    let server = start_limited(limits()).await;
    let mut client = server.login("ada").await;
    let mut other = server.login("bob").await;
    for (what, text) in statements() {
        let started = Instant::now();
        let mut attacker = twin(&client);
        let attack = tokio::spawn(async move { failure(&mut attacker, &text).await });
        // Others are served meanwhile.
        assert_eq!(rows(&mut other, "SELECT 1").await, ["1"], "{what}");
        let (code, message) = attack.await.unwrap();
        let took = started.elapsed();
        assert!(message.starts_with("ATT-"), "{what}: {code} {message}");
        assert!(!message.contains("ATT-9001"), "{what}: {message}");
        assert!(code != Code::Internal && code != Code::Unknown, "{what}: {code} {message}");
        assert!(took < Duration::from_secs(15), "{what} took {took:?}");
        assert_eq!(rows(&mut client, "SELECT 1").await, ["1"], "after {what}");
    }
    // A fast machine plans this within the limit.
    let wide = format!("SELECT * FROM (SELECT {}) AS wide", columns(10_000));
    let started = Instant::now();
    match attempt(&mut client, &wide).await {
        Ok(batches) => assert_eq!(batches[0].num_columns(), 10_000),
        Err(status) => assert!(status.message().starts_with("ATT-"), "{}", status.message()),
    }
    assert!(started.elapsed() < Duration::from_secs(15), "it took {:?}", started.elapsed());
    assert_eq!(rows(&mut client, "SELECT 1").await, ["1"], "after ten thousand columns");
    // Nothing goes on in secret.
    let started = Instant::now();
    while server.engine.usage().memory_bytes > 0 {
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", server.engine.usage());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn what_is_large_and_honest_still_works() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .unwrap();
    let asking = runtime.spawn(async {
        let roomy = Limits { query_timeout: None, ..limits() };
        let server = start_limited(roomy).await;
        let mut client = server.login("ada").await;
        let list: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
        for (text, expected) in [
            (format!("SELECT 7 IN ({}) AS answer", list.join(", ")), "true"),
            (format!("SELECT 1{} AS answer", " + 1".repeat(1_900)), "1901"),
            (format!("SELECT false{} AS answer", " OR 1 = 2".repeat(900)), "false"),
            (format!("SELECT c99 FROM (SELECT {})", columns(1_000)), "99"),
        ] {
            assert_eq!(rows(&mut client, &text).await, [expected], "{}", &text[..60]);
        }
        let union = format!("SELECT 1 AS n{}", " UNION ALL SELECT 1".repeat(300));
        let counted = format!("SELECT count(*) FROM ({union})");
        assert_eq!(rows(&mut client, &counted).await, ["301"]);
    });
    runtime.block_on(asking).unwrap();
}
