//! Queries and policies that nobody thought of: whatever the policies, each query comes to what it
//! would over a table that never had what they hide. `ATTUNE_BYPASS_SEEDS` tries more of them.

use std::cell::Cell;

use catalog::policy::Role;
use futures::TryStreamExt;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use sql::Session;

use super::house::{run, session};
use super::kinds::{HIDDEN, rows};
use crate::flight::support::{self as flight, lines};

/// How many pairs of tables are tried with each seed, and how many queries of each pair.
const WORLDS: u32 = 4;
const QUERIES: usize = 24;
/// How many seeds there are, where [`SEEDS_VARIABLE`] says nothing else.
const SEEDS: u8 = 3;
const SEEDS_VARIABLE: &str = "ATTUNE_BYPASS_SEEDS";

/// A row access policy: what it says, whom it excepts, and which rows of all it leaves to `ann`.
type Condition = (&'static str, &'static str, &'static str);

/// The policies of a table.
#[derive(Debug, Clone)]
struct World {
    condition: Option<Condition>,
    mail: Option<&'static str>,
    pay: Option<&'static str>,
    region: Option<&'static str>,
    /// The mask of a tag that `item` has.
    item: Option<&'static str>,
    /// Whether `card` may be used and not shown.
    is_kept: bool,
    withdrawn: Vec<i64>,
    restricted: Vec<i64>,
}

fn condition_of_rows() -> impl Strategy<Value = Option<Condition>> {
    let same = |text: &'static str| Some((text, "", text));
    select(vec![
        None,
        same("region <> 'zz-land'"),
        same("id % 3 <> 0"),
        same("pay < 300 OR person = 1"),
        same("mail LIKE 'm%' AND item <> 'i3'"),
        same("NULLIF(region, 'north') IS NOT NULL"),
        Some(("has_role('policy_admin') OR id % 4 <> 1", "", "id % 4 <> 1")),
        Some(("current_user() = 'ann' AND pay < 400", "", "pay < 400")),
        Some(("current_user() <> 'ann' OR current_purpose() <> 'ads'", "", "FALSE")),
        Some(("region <> 'zz-land'", " EXCEPT ROLE analyst", "TRUE")),
    ])
}

fn persons() -> impl Strategy<Value = Vec<i64>> {
    prop::collection::btree_set(0..12_i64, 0..4).prop_map(|found| found.into_iter().collect())
}

fn world() -> impl Strategy<Value = World> {
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
    let item = select(vec![None, None, Some("upper(value)"), Some("NULL"), Some("left(value, 1)")]);
    let is_kept = prop::bool::weighted(0.25);
    let masks = (mail, pay, region, item);
    (condition_of_rows(), masks, is_kept, persons(), persons()).prop_map(
        |(condition, (mail, pay, region, item), is_kept, withdrawn, restricted)| World {
            condition,
            mail,
            pay,
            region,
            item,
            is_kept,
            withdrawn,
            restricted,
        },
    )
}

/// Who makes tables, who makes policies, and who asks.
struct Court {
    root: Session,
    dpo: Session,
    ann: Session,
    _folder: tempfile::TempDir,
}

impl Court {
    async fn built() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = crate::slt::engine(folder.path()).await;
        for (name, role) in
            [("root", Role::Admin), ("dpo", Role::PolicyAdmin), ("ann", Role::Analyst)]
        {
            let user = flight::user(name, role, &format!("{name}-secret"));
            engine.catalog().put_user(user, false).await.unwrap();
        }
        let [root, dpo, ann] = [
            session(&engine, "root").await,
            session(&engine, "dpo").await,
            session(&engine, "ann").await,
        ];
        let [first, rest] = [(1, 60), (61, 70)].map(|(a, b)| rows(HIDDEN, a, b));
        run(&root, &format!("CREATE TABLE base AS {first}")).await;
        run(&root, &format!("INSERT INTO base {rest}")).await;
        run(&dpo, "CREATE PURPOSE ads").await;
        run(&dpo, "GRANT PURPOSE ads TO USER ann").await;
        run(&ann, "SET purpose = 'ads'").await;
        Self { root, dpo, ann, _folder: folder }
    }

    /// Makes a table of a query, for `ann` to read, and for `dpo` to make policies of.
    async fn table(&self, name: &str, query: &str) {
        for text in [
            format!("CREATE TABLE {name} AS {query}"),
            format!("GRANT SELECT ON {name} TO ROLE analyst"),
            format!("GRANT SELECT ON {name} TO USER dpo"),
        ] {
            run(&self.root, &text).await;
        }
    }

    /// The last of the rows that neither table of the oracle has: what is computed of one that is
    /// seen may fail or not, as conditions are asked in this order or another.
    async fn hidden(&self, [one, other]: &[String; 2]) -> String {
        let text = format!(
            "SELECT coalesce(max(id), 0) AS h FROM base WHERE id NOT IN \
             (SELECT id FROM {one} UNION ALL SELECT id FROM {other})"
        );
        told(&self.root, &text).await.unwrap().remove(0)
    }
}

impl World {
    /// A table under these policies.
    async fn govern(&self, court: &Court, table: &str) {
        court.table(table, "SELECT * FROM base WHERE id <= 60").await;
        run(&court.root, &format!("INSERT INTO {table} SELECT * FROM base WHERE id > 60")).await;
        let dpo = &court.dpo;
        let masks = [("mail", self.mail), ("pay", self.pay), ("region", self.region)];
        for (column, mask) in masks {
            if let Some(mask) = mask {
                let policy = format!("MASKING POLICY {column}_mask ON main.{table} ({column})");
                run(dpo, &format!("CREATE {policy} USING {mask}")).await;
            }
        }
        if let Some(mask) = self.item {
            let tag = format!("ALTER TABLE main.{table} ALTER COLUMN item SET TAG 'of.{table}'");
            run(dpo, &tag).await;
            let policy = format!("MASKING POLICY item_mask ON TAG 'of.{table}'");
            run(dpo, &format!("CREATE {policy} USING {mask}")).await;
        }
        if let Some((condition, except, _)) = self.condition {
            let policy = format!("ROW ACCESS POLICY few ON main.{table} USING ({condition})");
            run(dpo, &format!("CREATE {policy}{except}")).await;
        }
        if self.is_kept {
            run(dpo, &format!("CREATE PROJECTION POLICY kept ON main.{table} (card)")).await;
        }
        if !self.withdrawn.is_empty() {
            let said = self.withdrawn.iter().map(|person| format!("({person}, 'ads', FALSE)"));
            let said = said.collect::<Vec<_>>().join(", ");
            let consents = format!("SELECT * FROM (VALUES {said}) AS v (who, what, given)");
            court.table(&format!("{table}_consents"), &consents).await;
            let policy = format!("CONSENT POLICY {table}_asked ON main.{table} (person)");
            let using = format!("USING main.{table}_consents (who, what, given)");
            run(dpo, &format!("CREATE {policy} {using} FOR PURPOSE ads DEFAULT ALLOW")).await;
        }
        if !self.restricted.is_empty() {
            run(dpo, &format!("CREATE SUBJECT of_{table} KEY ({table}.person)")).await;
            for person in &self.restricted {
                run(dpo, &format!("RESTRICT SUBJECT of_{table} '{person}'")).await;
            }
        }
    }

    /// The table that never had what they hide.
    async fn oracle(&self, court: &Court, table: &str) {
        let masked = |column: &str, mask: Option<&str>, kind: &str| match mask {
            Some(mask) => format!("CAST({mask} AS {kind}) AS {column}"),
            None => column.to_owned(),
        };
        let item = self.item.map(|mask| mask.replace("value", "item"));
        let mail = masked("mail", self.mail, "TEXT");
        let pay = masked("pay", self.pay, "BIGINT");
        let region = masked("region", self.region, "TEXT");
        let item = masked("item", item.as_deref(), "TEXT");
        let condition = self.condition.map_or("TRUE", |(_, _, left)| left);
        let hidden = self.withdrawn.iter().chain(&self.restricted);
        let persons = hidden.map(i64::to_string).chain(["-1".to_owned()]);
        let persons = persons.collect::<Vec<_>>().join(", ");
        let query = format!(
            "SELECT id, person, {region}, {mail}, card, {pay}, {item}, seen FROM base \
             WHERE ({condition}) AND person NOT IN ({persons})"
        );
        court.table(table, &query).await;
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
        // Of two tables, each under policies of its own.
        "SELECT a.id AS i, b.mail AS m FROM (SELECT id FROM {t} WHERE {c}) AS a JOIN {u} AS b ON a.id = b.id + 1",
        "SELECT id, {w} AS b FROM {t} WHERE person IN (SELECT person FROM {u} WHERE {c})",
        "SELECT a.region AS r, count(b.id) AS n FROM {t} AS a LEFT JOIN (SELECT id, person FROM {u} WHERE {c}) AS b ON a.person = b.person GROUP BY a.region",
        "SELECT a.item AS i, min(b.mail) AS m FROM {t} AS a JOIN {u} AS b ON a.item = b.item AND a.id <= b.id GROUP BY a.item",
        "SELECT region AS v FROM {t} WHERE {c} EXCEPT SELECT region FROM {u}",
        "SELECT mail AS v FROM {u} WHERE {c} UNION SELECT mail FROM {t}",
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

/// Random choices; the first seed is that of all fixed ones.
fn runner(seed: u8, cases: u32) -> TestRunner {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 64,
        ..Default::default()
    };
    let rng = match seed {
        0 => TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        _ => TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]),
    };
    TestRunner::new_with_rng(config, rng)
}

fn seeds() -> u8 {
    let said = std::env::var(SEEDS_VARIABLE).ok();
    said.map_or(SEEDS, |said| said.parse().expect(SEEDS_VARIABLE))
}

/// What was compared.
#[derive(Default)]
struct Counts {
    made: Cell<usize>,
    asked: Cell<usize>,
    answered: Cell<usize>,
    same: Cell<usize>,
}

fn more(count: &Cell<usize>, by: bool) {
    count.set(count.get() + usize::from(by));
}

#[test]
fn random_queries_under_random_policies_see_what_a_lake_without_the_hidden_shows() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let court = runtime.block_on(Court::built());
    let counts = Counts::default();
    for seed in 0..seeds() {
        let worlds = (world(), world(), prop::collection::vec(query(), QUERIES));
        let compared = runner(seed, WORLDS).run(&worlds, |(one, other, queries)| {
            more(&counts.made, true);
            let made = counts.made.get();
            let [governed, oracle] =
                ["g", "o"].map(|of| [format!("{of}{made}"), format!("{of}{made}_u")]);
            for (world, (governed, oracle)) in
                [&one, &other].into_iter().zip(governed.iter().zip(&oracle))
            {
                runtime.block_on(world.govern(&court, governed));
                runtime.block_on(world.oracle(&court, oracle));
            }
            let hidden = runtime.block_on(court.hidden(&oracle));
            let is_kept = one.is_kept || other.is_kept;
            for query in &queries {
                let query = query.replace("{h}", &hidden);
                let ask = |[t, u]: &[String; 2]| query.replace("{t}", t).replace("{u}", u);
                let seen = runtime.block_on(told(&court.ann, &ask(&governed)));
                let known = runtime.block_on(told(&court.ann, &ask(&oracle)));
                more(&counts.asked, true);
                more(&counts.answered, known.is_ok());
                more(&counts.same, known.is_ok() && seen == known);
                // A column that is kept is not shown.
                let names = query.contains("card") || query.contains("SELECT *");
                let is_refused = is_kept && names && seen == Err("ATT-2002".to_owned());
                if !is_refused {
                    prop_assert_eq!(seen, known, "seed {}: {}", seed, query);
                }
            }
            Ok(())
        });
        compared.unwrap_or_else(|error| panic!("{error}"));
    }
    let [asked, answered, same] = [&counts.asked, &counts.answered, &counts.same].map(Cell::get);
    assert!(answered * 10 >= asked * 8, "{answered} of {asked} were answered");
    assert!(same * 10 >= asked * 6, "{same} of {asked} were answered alike");
}

/// Groups of a table that gives no single rows; the oracle counts the persons itself.
fn groups() -> impl Strategy<Value = String> {
    let form = select(vec![
        "SELECT count(*) AS n, sum(id) AS s FROM {t} WHERE {c}",
        "SELECT region, count(*) AS n, avg(id) AS a FROM {t} WHERE {c} GROUP BY region",
        "SELECT item, count(*) AS n, sum(pay) AS s FROM {t} WHERE {c} GROUP BY item",
        "SELECT region, item, sum(id) AS s FROM {t} WHERE {c} GROUP BY region, item",
        "SELECT card, count(id) AS n FROM {t} WHERE {c} GROUP BY card",
    ]);
    let condition = select(vec![
        "id >= 1",
        "pay < 300",
        "mail LIKE 'm%'",
        "region <> 'south'",
        "person < 6 OR id > 40",
        "item IN ('i1', 'i3', 'i5')",
        "region LIKE 'zz%'",
    ]);
    (form, condition).prop_map(|(form, condition)| form.replace("{c}", condition))
}

#[test]
fn random_groups_are_those_of_a_lake_without_the_hidden_that_are_large_enough() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let court = runtime.block_on(Court::built());
    let (made, shown) = (Cell::new(0_usize), Cell::new(0_usize));
    for seed in 0..seeds() {
        let worlds = (world(), 2..7_usize, prop::collection::vec(groups(), QUERIES / 2));
        let compared = runner(seed, WORLDS / 2).run(&worlds, |(world, least, queries)| {
            more(&made, true);
            let world = World { is_kept: false, ..world };
            let (governed, oracle) = (format!("g{}", made.get()), format!("o{}", made.get()));
            runtime.block_on(world.govern(&court, &governed));
            runtime.block_on(world.oracle(&court, &oracle));
            let policy = format!(
                "CREATE AGGREGATION POLICY crowds ON main.{governed} (person) MIN_GROUP_SIZE {least}"
            );
            runtime.block_on(run(&court.dpo, &policy));
            for query in &queries {
                let seen = query.replace("{t}", &governed);
                let known = query.replace("{t}", &oracle);
                let known = format!("{known} HAVING count(DISTINCT person) >= {least}");
                let seen = runtime.block_on(told(&court.ann, &seen));
                let known = runtime.block_on(told(&court.ann, &known));
                more(&shown, known.as_ref().is_ok_and(|rows| !rows.is_empty()));
                prop_assert_eq!(seen, known, "seed {}: {}", seed, query);
            }
            Ok(())
        });
        compared.unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(shown.get() > 0, "no group was large enough");
}
