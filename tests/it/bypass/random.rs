//! Queries and policies that nobody thought of: whatever the policies, each query comes to what it
//! would over a table that never had what they hide.

use std::cell::Cell;

use catalog::policy::Principal;
use futures::TryStreamExt;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use sql::Session;

use super::house::run;
use super::kinds::{HIDDEN, rows};
use crate::flight::support::lines;

/// How many sets of policies are tried, and how many queries under each.
const WORLDS: u32 = 8;
const QUERIES: usize = 24;

/// The policies of a table.
#[derive(Debug, Clone)]
struct World {
    condition: Option<&'static str>,
    mail: Option<&'static str>,
    pay: Option<&'static str>,
    region: Option<&'static str>,
    withdrawn: Vec<i64>,
}

fn world() -> impl Strategy<Value = World> {
    let condition = select(vec![
        None,
        Some("region <> 'zz-land'"),
        Some("id % 3 <> 0"),
        Some("pay < 300 OR person = 1"),
        Some("mail LIKE 'm%' AND item <> 'i3'"),
        Some("NULLIF(region, 'north') IS NOT NULL"),
    ]);
    let mail = select(vec![
        None,
        Some("regexp_replace(mail, '^[^@]+', '*')"),
        Some("NULL"),
        Some("concat(left(mail, 1), region)"),
    ]);
    let pay = select(vec![
        None,
        Some("NULL"),
        Some("pay % 10"),
        Some("CASE WHEN region = 'north' THEN pay ELSE 0 END"),
    ]);
    let region = select(vec![None, Some("upper(region)"), Some("'somewhere'")]);
    let withdrawn = prop::collection::btree_set(0..12_i64, 0..5);
    (condition, mail, pay, region, withdrawn).prop_map(
        |(condition, mail, pay, region, withdrawn)| World {
            condition,
            mail,
            pay,
            region,
            withdrawn: withdrawn.into_iter().collect(),
        },
    )
}

impl World {
    /// A table under these policies.
    async fn govern(&self, session: &Session, table: &str) {
        run(session, &format!("CREATE TABLE {table} AS SELECT * FROM base WHERE id <= 60")).await;
        run(session, &format!("INSERT INTO {table} SELECT * FROM base WHERE id > 60")).await;
        let masks = [("mail", self.mail), ("pay", self.pay), ("region", self.region)];
        for (column, mask) in masks {
            if let Some(mask) = mask {
                let policy = format!("MASKING POLICY {column}_mask ON {table} ({column})");
                run(session, &format!("CREATE {policy} USING {mask}")).await;
            }
        }
        if let Some(condition) = self.condition {
            let policy = format!("ROW ACCESS POLICY few ON {table} USING ({condition})");
            run(session, &format!("CREATE {policy}")).await;
        }
        if !self.withdrawn.is_empty() {
            let said = self.withdrawn.iter().map(|person| format!("({person}, 'ads', FALSE)"));
            let said = said.collect::<Vec<_>>().join(", ");
            let consents = format!("SELECT * FROM (VALUES {said}) AS v (who, what, given)");
            run(session, &format!("CREATE TABLE {table}_consents AS {consents}")).await;
            let policy = format!("CONSENT POLICY {table}_asked ON {table} (person)");
            let using = format!("USING {table}_consents (who, what, given)");
            run(session, &format!("CREATE {policy} {using} FOR PURPOSE ads DEFAULT ALLOW")).await;
        }
    }

    /// The table that never had what they hide.
    async fn oracle(&self, session: &Session, table: &str) {
        let masked = |column: &str, mask: Option<&str>, kind: &str| match mask {
            Some(mask) => format!("CAST({mask} AS {kind}) AS {column}"),
            None => column.to_owned(),
        };
        let mail = masked("mail", self.mail, "TEXT");
        let pay = masked("pay", self.pay, "BIGINT");
        let region = masked("region", self.region, "TEXT");
        let condition = self.condition.unwrap_or("TRUE");
        let persons = self.withdrawn.iter().map(i64::to_string).chain(["-1".to_owned()]);
        let persons = persons.collect::<Vec<_>>().join(", ");
        let query = format!(
            "SELECT id, person, {region}, {mail}, card, {pay}, item, seen FROM base \
             WHERE ({condition}) AND person NOT IN ({persons})"
        );
        run(session, &format!("CREATE TABLE {table} AS {query}")).await;
    }
}

fn number() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(vec!["id", "person", "pay"]).prop_map(str::to_owned),
        select(vec!["0", "3", "7", "40", "7000000000"]).prop_map(str::to_owned),
        word().prop_map(|word| format!("length({word})")),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} + {other})")),
            inner.clone().prop_map(|one| format!("({one} % 7)")),
            inner.clone().prop_map(|one| format!("coalesce({one}, -1)")),
            (inner.clone(), inner).prop_map(|(one, other)| {
                format!("CASE WHEN region LIKE 'z%' THEN {one} ELSE {other} END")
            }),
        ]
    })
}

fn word() -> impl Strategy<Value = String> {
    let leaf = select(vec!["mail", "region", "card", "item"]).prop_map(str::to_owned);
    leaf.prop_recursive(2, 4, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| format!("upper({one})")),
            inner.clone().prop_map(|one| format!("left({one}, 2)")),
            (inner.clone(), inner).prop_map(|(one, other)| format!("concat({one}, {other})")),
        ]
    })
}

/// Conditions, of which some fail on a row that is not seen; `{h}` is its id.
fn condition() -> impl Strategy<Value = String> {
    let compared = || select(vec!["=", "<>", "<", "<=", ">", ">="]);
    let leaf = prop_oneof![
        (number(), compared(), number()).prop_map(|(a, by, b)| format!("{a} {by} {b}")),
        (word(), compared(), select(vec!["m17@a.org", "north", "zz", "*@a.org", "k3"]))
            .prop_map(|(a, by, b)| format!("{a} {by} '{b}'")),
        (word(), select(vec!["m%", "%zz%", "n_r%", "zz-secret%"]))
            .prop_map(|(word, like)| format!("{word} LIKE '{like}'")),
        (select(vec!["id", "person", "pay"]), select(vec!["1, 3, 7", "40, 66, 7770000003"]))
            .prop_map(|(column, values)| format!("{column} IN ({values})")),
        select(vec!["mail IS NULL", "pay IS NOT NULL", "region IS NULL"]).prop_map(str::to_owned),
        select(vec!["1 / (id - {h}) <= 0", "1 / (id - {h}) > 0", "100 % (id - {h}) < 50"])
            .prop_map(str::to_owned),
        select(vec!["id", "person"]).prop_map(|column| {
            format!("{column} IN (SELECT {column} FROM {{t}} WHERE pay > 7000000000)")
        }),
        Just("EXISTS (SELECT 1 FROM {t} AS e WHERE e.region LIKE 'zz%')".to_owned()),
        Just("pay > (SELECT avg(s.pay) FROM {t} AS s)".to_owned()),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} AND {other})")),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} OR {other})")),
            inner.prop_map(|one| format!("NOT ({one})")),
        ]
    })
}

/// Queries whose rows do not depend on how they lie.
fn query() -> impl Strategy<Value = String> {
    let form = select(vec![
        "SELECT * FROM {t} WHERE {c}",
        "SELECT id, {n} AS a, {w} AS b FROM {t} WHERE {c}",
        "SELECT count(*) AS n, max({n}) AS m, min({w}) AS l FROM {t} WHERE {c}",
        "SELECT {w} AS k, count(*) AS n, sum({n}) AS s, min(mail) AS m FROM {t} WHERE {c} GROUP BY 1",
        "SELECT region, count(DISTINCT {w}) AS n FROM {t} GROUP BY region HAVING count(*) > 3",
        "SELECT a.id AS i, b.mail AS m FROM {t} AS a JOIN (SELECT * FROM {t} WHERE {c}) AS b ON a.region = b.region WHERE a.id < b.id",
        "SELECT a.id FROM {t} AS a LEFT JOIN (SELECT * FROM {t} WHERE {c}) AS b ON a.id = b.id + 1 WHERE b.id IS NULL",
        "SELECT id FROM {t} WHERE {n} >= (SELECT avg(pay) FROM {t} WHERE {c})",
        "SELECT id FROM {t} WHERE person NOT IN (SELECT person FROM {t} WHERE {c})",
        "SELECT {w} AS v FROM {t} WHERE {c} UNION SELECT item FROM {t}",
        "SELECT mail AS v FROM {t} UNION ALL SELECT {w} FROM {t} WHERE {c}",
        "SELECT region AS v FROM {t} EXCEPT SELECT region FROM {t} WHERE {c}",
        "SELECT id AS v FROM {t} INTERSECT SELECT person FROM {t} WHERE {c}",
        "SELECT id, row_number() OVER (PARTITION BY {w} ORDER BY {n}, id) AS r, sum(id) OVER (PARTITION BY region) AS s FROM {t} WHERE {c}",
        "SELECT id, {w} AS b FROM {t} WHERE {c} ORDER BY ({n}) + 0 DESC, id LIMIT 5 OFFSET 1",
        "WITH q AS (SELECT id, {w} AS b FROM {t} WHERE {c}) SELECT q.b, count(*) AS n FROM q JOIN {t} AS u ON q.id = u.id GROUP BY q.b",
        "SELECT CASE WHEN {c} THEN {w} ELSE 'none' END AS v, id FROM {t}",
        "SELECT array_agg({w} ORDER BY id) AS v FROM {t} WHERE {c}",
    ]);
    (form, condition(), number(), word()).prop_map(|(form, condition, number, word)| {
        form.replace("{c}", &condition).replace("{n}", &number).replace("{w}", &word)
    })
}

/// The rows of a query in the order of their texts, or the code of its error.
async fn told(session: &Session, text: &str) -> Result<Vec<String>, String> {
    let code = |error: sql::Error| error.code().to_owned();
    let answer = session.query(text).await.map_err(code)?;
    let rows: Result<Vec<_>, _> = answer.rows.try_collect().await;
    Ok(lines(&rows.map_err(|error| code(sql::Error::from(error)))?))
}

async fn lake(session: &Session) {
    let [first, rest] = [(1, 60), (61, 70)].map(|(a, b)| rows(HIDDEN, a, b));
    run(session, &format!("CREATE TABLE base AS {first}")).await;
    run(session, &format!("INSERT INTO base {rest}")).await;
    run(session, "CREATE PURPOSE ads").await;
    run(session, "SET purpose = 'ads'").await;
}

#[test]
fn random_queries_under_random_policies_see_what_a_lake_without_the_hidden_shows() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let engine = runtime.block_on(crate::slt::engine(folder.path()));
    let session = engine.session(Principal::embedded());
    runtime.block_on(lake(&session));
    let (made, answered) = (Cell::new(0), Cell::new(0));
    let config = ProptestConfig {
        cases: WORLDS,
        failure_persistence: None,
        max_shrink_iters: 64,
        ..Default::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let worlds = (world(), prop::collection::vec(query(), QUERIES));
    let compared = runner.run(&worlds, |(world, queries)| {
        made.set(made.get() + 1);
        let (governed, oracle) = (format!("g{}", made.get()), format!("o{}", made.get()));
        runtime.block_on(world.govern(&session, &governed));
        runtime.block_on(world.oracle(&session, &oracle));
        let hidden = format!(
            "SELECT coalesce(max(id), 0) AS h FROM base WHERE id NOT IN (SELECT id FROM {oracle})"
        );
        let hidden = runtime.block_on(told(&session, &hidden)).unwrap().remove(0);
        for query in &queries {
            let query = query.replace("{h}", &hidden);
            let seen = runtime.block_on(told(&session, &query.replace("{t}", &governed)));
            let known = runtime.block_on(told(&session, &query.replace("{t}", &oracle)));
            answered.set(answered.get() + usize::from(known.is_ok()));
            prop_assert_eq!(seen, known, "{}", query);
        }
        Ok(())
    });
    compared.unwrap_or_else(|error| panic!("{error}"));
    let all = WORLDS as usize * QUERIES;
    assert!(answered.get() * 10 >= all * 8, "{} of {all} were answered", answered.get());
}
