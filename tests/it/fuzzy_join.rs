//! Fuzzy joins give the rows of the cross product, for every predicate and type of join.

use catalog::policy::Principal;
use futures::TryStreamExt;
use sql::Session;

use crate::checks::Dice;

/// The rows of a statement as text, in order.
async fn rows(session: &Session, text: &str) -> Vec<String> {
    let answer = session.query(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    let rows: Vec<_> =
        answer.rows.try_collect().await.unwrap_or_else(|error| panic!("{text}: {error}"));
    if rows.is_empty() { Vec::new() } else { crate::flight::support::lines(&rows) }
}

const PREDICATES: [&str; 22] = [
    "levenshtein_within(a.x, b.y, 0)",
    "levenshtein_within(a.x, b.y, 1)",
    "levenshtein(a.x, b.y) <= 2",
    "levenshtein(b.y, a.x) < 3",
    "3 >= levenshtein(a.x, b.y)",
    "levenshtein(a.x, b.y) = 2",
    "levenshtein(a.x, b.y, 2) IS NOT NULL",
    "levenshtein(a.x, b.y, 3) <= 2",
    "osa_distance(a.x, b.y) <= 1",
    "osa_distance(lower(a.x), lower(b.y)) <= 2",
    "damerau_levenshtein(a.x, b.y) <= 1",
    "3 > damerau_levenshtein(b.y, a.x)",
    "hamming_distance(a.x, b.y) <= 2",
    "hamming_distance(a.x, b.y) = 1",
    "jaro_winkler_within(a.x, b.y, 0.9)",
    "jaro_winkler_similarity(a.x, b.y) >= 0.85",
    "jaro_similarity(a.x, b.y) > 0.8",
    "trigram_similarity(a.x, b.y) >= 0.5",
    "0.4 < trigram_similarity(a.x, b.y)",
    "jaccard_similarity(a.x, b.y) >= 0.75",
    "cosine_similarity(a.x, b.y) >= 0.6",
    "levenshtein(a.x, b.y) <= 3 AND jaro_winkler_similarity(a.x, b.y) >= 0.8",
];

/// Conditions with a largest distance from row to row, and such of which one part or another holds.
const CONDITIONS: [&str; 25] = [
    "levenshtein(a.x, b.y) <= a.g",
    "levenshtein_within(a.x, b.y, b.g)",
    "levenshtein_within(b.y, a.x, nullif(a.g, 2))",
    "nullif(b.g, 1) - 1 > levenshtein(a.x, b.y)",
    "osa_distance(a.x, b.y, b.g) IS NOT NULL",
    "levenshtein(a.x, b.y, a.g) <= 2",
    "levenshtein(a.x, b.y, 1) <= b.g",
    "osa_distance(lower(a.x), lower(b.y)) <= a.g * 0.9",
    "levenshtein(a.x, b.y) <= character_length(b.y) / 3",
    "levenshtein(a.x, b.y) <= CAST(a.g AS BIGINT UNSIGNED)",
    "levenshtein_within(a.x, b.y, CAST(b.g AS BIGINT UNSIGNED))",
    "osa_distance(a.x, b.y) < CAST(b.g AS DECIMAL(5, 1))",
    "levenshtein(a.x, b.y) <= CAST(2 AS BIGINT UNSIGNED)",
    "levenshtein(a.x, b.y) <= CAST(1.75 AS DECIMAL(3, 2))",
    "levenshtein(a.x, b.y) < CAST(2 AS DECIMAL(20, 0))",
    "levenshtein(a.x, b.y) = CAST(1 AS DECIMAL(4, 2))",
    "damerau_levenshtein(a.x, b.y) <= a.g",
    "b.g >= hamming_distance(a.x, b.y)",
    "(trigram_similarity(a.x, b.y) >= 0.5 OR levenshtein(a.x, b.y) <= 1)",
    "(levenshtein_within(a.x, b.y, a.g) OR jaro_winkler_similarity(a.x, b.y) >= 0.9)",
    "(levenshtein(a.x, b.y) <= 1 OR levenshtein(lower(a.x), b.y) <= 1 OR \
     cosine_similarity(a.x, b.y) > 0.8)",
    "((levenshtein(a.x, b.y) <= 2 AND a.g = b.g) OR (osa_distance(a.x, b.y) <= b.g AND a.i < b.j))",
    "(jaccard_similarity(a.x, b.y) > 0.8 OR levenshtein(a.x, nullif(b.y, '')) <= 1) AND a.i <> b.j",
    "(levenshtein(a.x, b.y) = 1 OR levenshtein(a.x, b.y) = 2)",
    "(damerau_levenshtein(a.x, b.y) <= 2 OR hamming_distance(a.x, b.y) <= b.g)",
];

const JOINS: [&str; 11] = [
    "SELECT a.i, a.x, b.j, b.y FROM a JOIN b ON {}",
    "SELECT a.i, a.x, b.j, b.y FROM a LEFT JOIN b ON {}",
    "SELECT a.i, a.x, b.j, b.y FROM a RIGHT JOIN b ON {}",
    "SELECT a.i, a.x, b.j, b.y FROM a FULL JOIN b ON {}",
    "SELECT a.i, a.x FROM a LEFT SEMI JOIN b ON {}",
    "SELECT b.j, b.y FROM a RIGHT SEMI JOIN b ON {}",
    "SELECT a.i, a.x FROM a LEFT ANTI JOIN b ON {}",
    "SELECT b.j, b.y FROM a RIGHT ANTI JOIN b ON {}",
    "SELECT a.i, a.x FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE {})",
    "SELECT a.i, a.x FROM a WHERE a.i % 3 = 0 OR EXISTS (SELECT 1 FROM b WHERE {})",
    "SELECT a.i, a.x, b.j, b.y FROM a, b WHERE {}",
];

/// What else is asked of a pair.
const RESTS: [&str; 5] = [
    "",
    " AND a.g = b.g",
    " AND a.g IS NOT DISTINCT FROM b.g",
    " AND a.g = b.g AND a.i <= b.j",
    " AND a.i > b.j",
];

/// The longest new text of each seed.
const LONGEST: [u64; 4] = [5, 12, 90, 40];

/// Two tables of texts of few letters, with NULLs, empty texts and texts that occur often.
async fn tables(session: &Session, rows: usize) {
    for (table, id, text, seed) in [("a", "i", "x", 17), ("b", "j", "y", 91)] {
        let create = format!(
            "CREATE TABLE {table} AS SELECT value AS {id}, value % 4 AS g, \
             CASE WHEN value % 13 = 0 THEN NULL WHEN value % 17 = 0 THEN '' \
             ELSE substr(translate(encode(sha256(CAST(value % 150 + {seed} AS VARCHAR)), 'hex'), \
             '0123456789abcdef', 'aabbccddeeffAé日 '), 1, CAST(value % 9 AS INT) + 1) END \
             AS {text} FROM generate_series(1, {rows}) AS s (value)"
        );
        session.query(&create).await.unwrap();
    }
}

/// A text of few letters, often one of those known with some edits, or none.
fn text(dice: &mut Dice, known: &mut Vec<String>, longest: u64) -> Option<String> {
    match dice.below(12) {
        0 => return None,
        1 => return Some(String::new()),
        _ => {}
    }
    let alphabet = ["ab", "abcdeA é日", "xyzXYZ-_!"][dice.below(3) as usize];
    let letters: Vec<char> = alphabet.chars().collect();
    let letter = |dice: &mut Dice| letters[dice.below(letters.len() as u64) as usize];
    let length = dice.below(longest) + 1;
    let mut text: Vec<char> = match known.len() as u64 {
        count if count > 0 && dice.below(4) > 0 => {
            known[dice.below(count) as usize].chars().collect()
        }
        _ => (0..length).map(|_| letter(dice)).collect(),
    };
    for _ in 0..dice.below(4) {
        let at = dice.below(text.len() as u64 + 1) as usize;
        match dice.below(4) {
            0 => text.insert(at, letter(dice)),
            1 if at < text.len() => drop(text.remove(at)),
            2 if at + 1 < text.len() => text.swap(at, at + 1),
            3 if at < text.len() => text[at] = letter(dice),
            _ => {}
        }
    }
    let text: String = text.into_iter().collect();
    known.push(text.clone());
    Some(text)
}

/// Two tables that a seed determines, with NULL ids, keys and texts, and texts that occur often.
async fn random_tables(session: &Session, seed: u64, rows: [usize; 2]) {
    let (mut dice, mut known) = (Dice(seed), Vec::new());
    let longest = LONGEST[seed as usize % LONGEST.len()];
    let number = |dice: &mut Dice, limit| match dice.below(6) {
        0 => "CAST(NULL AS BIGINT)".to_owned(),
        _ => format!("CAST({} AS BIGINT)", dice.below(limit)),
    };
    for ((table, columns, names), rows) in [
        ("a", "i BIGINT, g BIGINT, x VARCHAR", "i, g, x"),
        ("b", "j BIGINT, g BIGINT, y VARCHAR", "j, g, y"),
    ]
    .into_iter()
    .zip(rows)
    {
        session.query(&format!("CREATE TABLE {table} ({columns})")).await.unwrap();
        let mut values = Vec::new();
        for _ in 0..rows {
            let (id, key) = (number(&mut dice, 30), number(&mut dice, 4));
            let text = text(&mut dice, &mut known, longest);
            let text = text.map_or("NULL".to_owned(), |text| format!("'{text}'"));
            values.push(format!("({id}, {key}, CAST({text} AS VARCHAR))"));
        }
        if !values.is_empty() {
            let values = values.join(", ");
            let insert =
                format!("INSERT INTO {table} SELECT * FROM (VALUES {values}) AS v ({names})");
            session.query(&insert).await.unwrap();
        }
    }
}

async fn session(folder: &std::path::Path) -> Session {
    crate::slt::engine(folder).await.session(Principal::embedded())
}

/// `IS TRUE` keeps a condition what it is and no rule of joins knows it.
async fn compare(session: &Session, join: &str, condition: &str, rest: &str) -> Vec<String> {
    let fuzzy = join.replace("{}", &format!("{condition}{rest}"));
    let plain = join.replace("{}", &format!("(({condition}) IS TRUE){rest}"));
    let (fuzzy_rows, plain_rows) = (rows(session, &fuzzy).await, rows(session, &plain).await);
    assert_eq!(fuzzy_rows, plain_rows, "{fuzzy}");
    fuzzy_rows
}

/// The statement runs as a fuzzy join.
async fn is_fuzzy(session: &Session, join: &str, condition: &str, rest: &str) {
    let fuzzy = join.replace("{}", &format!("{condition}{rest}"));
    let plan = rows(session, &format!("EXPLAIN {fuzzy}")).await.join("\n");
    assert!(plan.contains("FuzzyJoinExec"), "{fuzzy}\n{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_predicate_and_join_type_gives_the_rows_of_the_cross_product() {
    let mut found = [0; PREDICATES.len()];
    for seed in 0..LONGEST.len() as u64 {
        let folder = tempfile::tempdir().unwrap();
        let session = session(folder.path()).await;
        random_tables(&session, seed, [24, 27]).await;
        for (at, predicate) in PREDICATES.into_iter().enumerate() {
            for (type_at, join) in JOINS.into_iter().enumerate() {
                let rest = RESTS[(at + type_at + seed as usize) % RESTS.len()];
                let rows = compare(&session, join, predicate, rest).await;
                // The first type of join gives pairs alone.
                found[at] += if type_at == 0 { rows.len() } else { 0 };
                if seed == 0 {
                    is_fuzzy(&session, join, predicate, rest).await;
                }
            }
        }
        // The other side of the comparison is none of these joins.
        let plain = "EXPLAIN SELECT 1 FROM a JOIN b ON (levenshtein(a.x, b.y) <= 1) IS TRUE";
        assert!(!rows(&session, plain).await.join("\n").contains("FuzzyJoinExec"));
    }
    assert!(found.iter().all(|found| *found > 0), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn distances_from_row_to_row_and_alternatives_give_the_rows_of_the_cross_product() {
    for seed in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let session = session(folder.path()).await;
        random_tables(&session, seed, [24, 27]).await;
        for (at, condition) in CONDITIONS.into_iter().enumerate() {
            for (type_at, join) in JOINS.into_iter().enumerate() {
                let rest = RESTS[(at + type_at + 2 * seed as usize) % RESTS.len()];
                compare(&session, join, condition, rest).await;
                if seed == 1 {
                    is_fuzzy(&session, join, condition, rest).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_without_rows_gives_the_rows_of_the_cross_product() {
    for sides in [[0, 9], [9, 0], [0, 0]] {
        let folder = tempfile::tempdir().unwrap();
        let session = session(folder.path()).await;
        random_tables(&session, 3, sides).await;
        for (at, predicate) in PREDICATES.into_iter().enumerate() {
            for (type_at, join) in JOINS.into_iter().enumerate() {
                // Each kind of predicate with each type of join.
                if at % 3 == type_at % 3 {
                    compare(&session, join, predicate, RESTS[(at + type_at) % 3]).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_largest_distance_that_is_none_is_refused_where_the_cross_product_refuses_it() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path()).await;
    tables(&session, 60).await;
    for value in ["a.g - 1", "b.g - 1"] {
        let join =
            format!("SELECT count(*) FROM a JOIN b ON levenshtein_within(a.x, b.y, {value})");
        let answer = session.query(&join).await.unwrap();
        let error = answer.rows.try_collect::<Vec<_>>().await.unwrap_err().to_string();
        assert!(error.contains("must be zero or more, got -1"), "{error}");
        let nothing = join.replace("JOIN b", "JOIN (SELECT * FROM b WHERE j < 0) AS b");
        assert_eq!(rows(&session, &nothing).await, ["0"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_and_many_partitions() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path()).await;
    tables(&session, 3_000).await;
    for predicate in [
        "levenshtein(a.x, b.y) <= 1",
        "trigram_similarity(a.x, b.y) >= 0.6",
        "(levenshtein(a.x, b.y) <= b.g - 1 OR trigram_similarity(a.x, b.y) >= 0.7)",
    ] {
        for join in [
            "SELECT count(*), sum(a.i * b.j) FROM a JOIN b ON {}",
            "SELECT count(*), sum(a.i), sum(b.j) FROM a FULL JOIN b ON {}",
            "SELECT count(*), sum(a.i) FROM a LEFT ANTI JOIN b ON {}",
        ] {
            for rest in ["", " AND a.g = b.g"] {
                // All pairs by two functions would take a minute.
                if !(rest.is_empty() && predicate.contains(" OR ")) {
                    compare(&session, join, predicate, rest).await;
                    is_fuzzy(&session, join, predicate, rest).await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_little_memory_the_rows_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path()).await;
    let create = "CREATE TABLE {} AS SELECT value AS i, value % 5 AS g, \
                  encode(sha256(CAST(value + {s} AS VARCHAR)), 'hex') AS wide, \
                  substr(encode(sha256(CAST(value % 3000 AS VARCHAR)), 'hex'), 1, 7) AS x \
                  FROM generate_series(1, 16000) AS s (value)";
    for (table, seed) in [("a", "1"), ("b", "2")] {
        session.query(&create.replace("{}", table).replace("{s}", seed)).await.unwrap();
    }
    for join in [
        "SELECT count(*), sum(a.i), sum(b.i), max(a.wide), max(b.wide) FROM a JOIN b ON {}",
        "SELECT count(*), sum(a.i), sum(b.i), max(a.wide), max(b.wide) FROM a FULL JOIN b ON {}",
        "SELECT count(*), sum(a.i), max(a.wide) FROM a LEFT ANTI JOIN b ON {}",
        "SELECT count(*), sum(b.i), max(b.wide) FROM a RIGHT SEMI JOIN b ON {}",
    ] {
        let condition = "levenshtein_within(a.x, b.x, 1) AND a.i <> b.i AND a.i % 3 = b.i % 7";
        let statement = join.replace("{}", condition);
        session.query("SET query_memory = '1 GiB'").await.unwrap();
        let expected = rows(&session, &statement).await;
        session.query("SET query_memory = '8 MiB'").await.unwrap();
        let counted = counted(&session, &statement).await;
        // Without the wide column the left side fits.
        let fits = !statement.contains("a.wide");
        assert!(fits || counter(&counted, "spill_count") > 0, "{counted}");
        assert_eq!(rows(&session, &statement).await, expected, "{statement}");
    }
}

/// The operator's line of EXPLAIN ANALYZE.
async fn counted(session: &Session, statement: &str) -> String {
    let explained = rows(session, &format!("EXPLAIN ANALYZE {statement}")).await;
    explained.into_iter().find(|line| line.contains("FuzzyJoinExec")).unwrap()
}

/// One of the line's counters, below a thousand.
fn counter(line: &str, name: &str) -> usize {
    let (_, rest) = line.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("{line}"));
    let value = rest.split([',', ']']).next().unwrap();
    value.trim().parse().unwrap_or_else(|_| panic!("{name} of {line}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_larger_than_its_rows_is_made_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path()).await;
    // Rows of 24 bytes, texts that hardly one shares with another: the rows alone would fit.
    for (table, text) in [("a", "1, 7)"), ("b", "1, 6) || 'z'")] {
        let create = format!(
            "CREATE TABLE {table} AS SELECT value AS i, value % 600 AS g, \
             substr(encode(sha256(CAST(value AS VARCHAR)), 'hex'), {text} AS x \
             FROM generate_series(1, 60000) AS s (value)"
        );
        session.query(&create).await.unwrap();
    }
    let (alike, half) = ("levenshtein_within(a.x, b.x, 1)", "(a.i + b.i) % 4 <> 0");
    for (columns, join, condition) in [
        ("sum(a.i), sum(b.i), min(a.x), max(b.x)", "JOIN", format!("{alike} AND a.g = b.g")),
        ("sum(a.i), sum(b.i)", "FULL JOIN", format!("{alike} AND a.g = b.g AND {half}")),
        ("sum(a.i), max(a.x)", "LEFT ANTI JOIN", format!("{alike} AND {half}")),
    ] {
        let statement = format!("SELECT count(*), {columns} FROM a {join} b ON {condition}");
        session.query("SET query_memory = '1 GiB'").await.unwrap();
        let expected = rows(&session, &statement).await;
        assert!(!expected[0].starts_with("0|"), "{statement}: {expected:?}");
        session.query("SET query_memory = '8 MiB'").await.unwrap();
        assert_eq!(rows(&session, &statement).await, expected, "{statement}");
        if join == "JOIN" {
            let counted = counted(&session, &statement).await;
            assert!(counter(&counted, "spill_count") > 0, "{counted}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_batch_after_batch_brings_give_the_rows_of_the_cross_product() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path()).await;
    random_tables(&session, 1, [24, 20]).await;
    session.query("CREATE TABLE again AS SELECT * FROM b").await.unwrap();
    // Each makes a file, whose rows are a batch.
    for _ in 0..30 {
        session.query("INSERT INTO b SELECT * FROM again").await.unwrap();
    }
    for condition in [PREDICATES[2], PREDICATES[17], CONDITIONS[0], CONDITIONS[1], CONDITIONS[19]] {
        for join in [JOINS[0], JOINS[3], JOINS[7]] {
            for rest in [RESTS[0], RESTS[3]] {
                compare(&session, join, condition, rest).await;
            }
        }
    }
    let counted = counted(&session, &JOINS[0].replace("{}", PREDICATES[2])).await;
    assert!(counter(&counted, "texts_remembered") > 0, "{counted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_batch_after_batch_brings_are_found_in_every_piece() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path()).await;
    let select = |rows: usize, texts: usize, seed: usize| {
        format!(
            "SELECT value AS i, value % 3 AS g, \
             encode(sha256(CAST(value + {seed} AS VARCHAR)), 'hex') AS wide, \
             substr(encode(sha256(CAST(value % {texts} AS VARCHAR)), 'hex'), 1, 7) AS x \
             FROM generate_series(1, {rows}) AS s (value)"
        )
    };
    session.query(&format!("CREATE TABLE a AS {}", select(40_000, 4_000, 1))).await.unwrap();
    session.query(&format!("CREATE TABLE b AS {}", select(5_000, 150, 2))).await.unwrap();
    for seed in 3..12 {
        session.query(&format!("INSERT INTO b {}", select(5_000, 150, seed))).await.unwrap();
    }
    let statement = "SELECT count(*), sum(a.i), sum(b.i), max(a.wide), max(b.wide) FROM a \
                     FULL JOIN b ON levenshtein_within(a.x, b.x, b.g) AND a.i <> b.i";
    session.query("SET query_memory = '1 GiB'").await.unwrap();
    let expected = rows(&session, statement).await;
    session.query("SET query_memory = '8 MiB'").await.unwrap();
    assert_eq!(rows(&session, statement).await, expected);
    let counted = counted(&session, statement).await;
    assert!(counter(&counted, "spill_count") > 0, "{counted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_analyze_counts_distinct_texts_and_the_pairs_compared() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path()).await;
    // The smaller side is indexed, and each text of the larger one is looked up once.
    for (table, rows) in [("a", 60), ("b", 400)] {
        let create = format!(
            "CREATE TABLE {table} AS SELECT value AS i, value % 3 AS g, \
             'text' || CAST(value % 30 AS VARCHAR) AS x FROM generate_series(1, {rows}) AS s (value)"
        );
        session.query(&create).await.unwrap();
    }
    let join = "SELECT a.i, b.i FROM a JOIN b ON levenshtein(a.x, b.x) <= 1";
    let alone = counted(&session, join).await;
    let with_key = counted(&session, &format!("{join} AND a.g = b.g")).await;
    // Each text has one key: the key leaves fewer texts to compare it with.
    for line in [&alone, &with_key] {
        assert_eq!(counter(line, "texts_looked_up"), 30, "{line}");
    }
    let [all, of_keys] = [&alone, &with_key].map(|line| counter(line, "pairs_compared"));
    let [alike, alike_of_keys] = [&alone, &with_key].map(|line| counter(line, "pairs_alike"));
    assert!(alike <= all && all <= 30 * 30, "{alone}");
    assert!(alike_of_keys <= of_keys && of_keys < all, "{alone}\n{with_key}");
}

/// A table of texts that have little in common.
const MANY_TEXTS: &str = "CREATE TABLE t AS SELECT encode(sha256(CAST(value AS VARCHAR)), 'hex') \
                          AS x FROM generate_series(1, 30000) AS s (value)";

#[tokio::test(flavor = "multi_thread")]
async fn a_join_ends_at_its_time_limit_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    session.query(MANY_TEXTS).await.unwrap();
    session.query("SET statement_timeout = '700 ms'").await.unwrap();
    for join in [
        "SELECT count(*) FROM t AS a JOIN t AS b ON jaro_winkler_similarity(a.x, b.x) >= 0.75",
        // The time is over before the index is made.
        "SELECT count(*) FROM t AS a JOIN t AS b \
         ON levenshtein(substr(a.x, 1, 24), substr(b.x, 1, 24)) <= 2",
        "SELECT count(*) FROM t AS a JOIN t AS b ON cosine_similarity(a.x, b.x) >= 0.2",
        "SELECT count(*) FROM nearest((SELECT x FROM t), (SELECT x FROM t))",
        "SELECT count(*) FROM nearest((SELECT x FROM t), (SELECT x FROM t), measure => 'cosine')",
    ] {
        let started = std::time::Instant::now();
        let answer = session.query(join).await.unwrap();
        let rows = answer.rows.try_collect::<Vec<_>>().await;
        assert!(rows.is_err(), "{join}");
        let took = started.elapsed();
        assert!(took < std::time::Duration::from_secs(5), "{join} took {took:?}");
        nothing_is_held(&engine, join).await;
    }
    assert_eq!(rows(&session, "SELECT 1").await, ["1"]);
}

/// What an operator held goes with it, a moment later.
async fn nothing_is_held(engine: &sql::Engine, join: &str) {
    for _ in 0..100 {
        if engine.usage().memory_bytes == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(engine.usage().memory_bytes, 0, "{join}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_whose_rows_nobody_reads_ends() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let session = engine.session(Principal::embedded());
    session.query(MANY_TEXTS).await.unwrap();
    let texts = "(SELECT substr(x, 1, 24) AS x FROM t)";
    for join in [
        format!("SELECT * FROM {texts} AS a JOIN {texts} AS b ON levenshtein(a.x, b.x) <= 2"),
        format!("SELECT * FROM {texts} AS a JOIN t AS b ON trigram_similarity(a.x, b.x) >= 0.2"),
        format!("SELECT * FROM nearest({texts}, {texts}, STRUCT(3 AS top_k, 'osa' AS measure))"),
    ] {
        for wait_ms in [0, 30, 300] {
            let mut answer = session.query(&join).await.unwrap();
            let wait = std::time::Duration::from_millis(wait_ms);
            drop(tokio::time::timeout(wait, answer.rows.try_next()).await);
            drop(answer);
            nothing_is_held(&engine, &join).await;
        }
    }
}

/// The texts of nearest and the function that compares them, with the order of its values.
const MEASURES: [(&str, &str, &str); 7] = [
    ("levenshtein", "levenshtein", ""),
    ("osa", "osa_distance", ""),
    ("jaro", "jaro_similarity", "DESC"),
    ("jaro_winkler", "jaro_winkler_similarity", "DESC"),
    ("trigram", "trigram_similarity", "DESC"),
    ("jaccard", "jaccard_similarity", "DESC"),
    ("cosine", "cosine_similarity", "DESC"),
];

/// The same rows from comparing every pair.
async fn same_as_all_compared(session: &Session, measure: (&str, &str, &str), top_k: usize) {
    let (name, function, order) = measure;
    let value = if order.is_empty() { "distance" } else { "similarity" };
    let nearest = format!(
        "SELECT i, j, {value}, rank FROM nearest((SELECT i, x FROM a), \
         (SELECT j, y FROM b ORDER BY j), STRUCT({top_k} AS top_k, '{name}' AS measure)) \
         ORDER BY i, rank"
    );
    let all = format!(
        "SELECT i, j, value, rank FROM (SELECT i, j, value, row_number() OVER \
         (PARTITION BY i ORDER BY value {order}, y, j) AS rank FROM \
         (SELECT a.i, b.j, b.y, {function}(a.x, b.y) AS value FROM a, b \
         WHERE a.x IS NOT NULL AND b.y IS NOT NULL) AS pairs) AS ranked \
         WHERE rank <= {top_k} ORDER BY i, rank"
    );
    assert_eq!(rows(session, &nearest).await, rows(session, &all).await, "{nearest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nearest_gives_what_comparing_all_gives() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path()).await;
    tables(&session, 200).await;
    for measure in MEASURES {
        for top_k in [1, 4, 300] {
            same_as_all_compared(&session, measure, top_k).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nearest_among_many_texts_uses_an_index_and_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path()).await;
    for (table, id, text, count, length) in [("a", "i", "x", 600, 5), ("b", "j", "y", 2_200, 6)] {
        let create = format!(
            "CREATE TABLE {table} AS SELECT value AS {id}, \
             substr(encode(sha256(CAST(value AS VARCHAR)), 'hex'), 1, {length}) AS {text} \
             FROM generate_series(1, {count}) AS s (value)"
        );
        session.query(&create).await.unwrap();
    }
    for measure in &MEASURES[..2] {
        same_as_all_compared(&session, *measure, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nearest_says_when_its_second_query_does_not_fit_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path()).await;
    session.query("SET query_memory = '8 MiB'").await.unwrap();
    let wide = "SELECT encode(sha256(CAST(value AS VARCHAR)), 'hex') AS x \
                FROM generate_series(1, 60000) AS s (value)";
    for measure in ["levenshtein", "cosine"] {
        let nearest = format!(
            "SELECT count(*) FROM nearest((SELECT 'a' AS x), ({wide}), measure => '{measure}')"
        );
        let answer = session.query(&nearest).await.unwrap();
        let error = answer.rows.try_collect::<Vec<_>>().await.unwrap_err().to_string();
        assert!(error.contains("nearest holds its second query in memory"), "{error}");
    }
}
