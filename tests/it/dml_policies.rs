//! Changes of rows under policies against an oracle in memory: random rows, a random row access
//! policy, a mask, and random UPDATE, DELETE, INSERT and MERGE by somebody whom both bind.

use std::collections::BTreeMap;
use std::fmt;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use catalog::policy::Principal;
use datafusion::common::ScalarValue;
use futures::TryStreamExt;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use sql::{Engine, Session};

/// A value of the table `t`, whose columns are all of integers.
type Value = Option<i64>;
/// A row of it.
type Row = [Value; 4];

const COLUMNS: [&str; 4] = ["id", "region", "pay", "mail"];
const MAIL: usize = 3;
/// What who changes rows sees of `mail`.
const MASK: &str = "mail % 2";

fn literal(value: Value) -> String {
    value.map_or_else(|| "CAST(NULL AS BIGINT)".into(), |value| value.to_string())
}

fn literals(row: &Row) -> String {
    format!("({})", row.map(literal).join(", "))
}

/// A row as who changes rows sees it.
fn masked(mut row: Row) -> Row {
    row[MAIL] = row[MAIL].map(|mail| mail % 2);
    row
}

#[derive(Debug, Clone)]
enum Condition {
    Compares(usize, &'static str, i64),
    IsNull(usize),
    /// `6 / pay > n`, an error where `pay` is 0.
    Divides(i64),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compares(column, compares, value) => {
                write!(formatter, "{} {compares} {value}", COLUMNS[*column])
            }
            Self::IsNull(column) => write!(formatter, "{} IS NULL", COLUMNS[*column]),
            Self::Divides(value) => write!(formatter, "6 / pay > {value}"),
            Self::Not(inner) => write!(formatter, "NOT ({inner})"),
            Self::And(one, other) => write!(formatter, "({one} AND {other})"),
            Self::Or(one, other) => write!(formatter, "({one} OR {other})"),
        }
    }
}

impl Condition {
    /// What it is of a row; an error where it cannot be computed.
    fn of(&self, row: &Row) -> Result<Option<bool>, ()> {
        Ok(match self {
            Self::Compares(column, compares, value) => row[*column].map(|own| match *compares {
                "=" => own == *value,
                "<>" => own != *value,
                "<" => own < *value,
                _ => own >= *value,
            }),
            Self::IsNull(column) => Some(row[*column].is_none()),
            Self::Divides(value) => match row[2] {
                Some(0) => return Err(()),
                pay => pay.map(|pay| 6 / pay > *value),
            },
            Self::Not(inner) => inner.of(row)?.map(|holds| !holds),
            Self::And(one, other) => match (one.of(row)?, other.of(row)?) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(one, other) => match (one.of(row)?, other.of(row)?) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        })
    }

    fn holds(&self, row: &Row) -> Result<bool, ()> {
        Ok(self.of(row)? == Some(true))
    }
}

#[derive(Debug, Clone)]
enum New {
    Constant(Value),
    /// Another column, which is not masked, and a number more.
    Plus(usize, i64),
}

impl New {
    fn of(&self, row: &Row) -> Value {
        match self {
            Self::Constant(value) => *value,
            Self::Plus(column, more) => row[*column].map(|value| value + more),
        }
    }
}

impl fmt::Display for New {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(value) => formatter.write_str(&literal(*value)),
            Self::Plus(column, more) => write!(formatter, "{} + {more}", COLUMNS[*column]),
        }
    }
}

#[derive(Debug, Clone)]
enum Change {
    Delete(Condition),
    Update(BTreeMap<usize, New>, Condition),
    Insert(Vec<Row>),
    /// By id: `pay` of those that match, and a row in a region for each that does not.
    Merge(BTreeMap<i64, Value>, i64),
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delete(condition) => write!(formatter, "DELETE FROM main.t WHERE {condition}"),
            Self::Update(values, condition) => {
                let set = values.iter().map(|(at, value)| format!("{} = {value}", COLUMNS[*at]));
                let set = set.collect::<Vec<_>>().join(", ");
                write!(formatter, "UPDATE main.t SET {set} WHERE {condition}")
            }
            Self::Insert(rows) => {
                let rows: Vec<String> = rows.iter().map(literals).collect();
                write!(formatter, "INSERT INTO main.t VALUES {}", rows.join(", "))
            }
            Self::Merge(source, region) => {
                let rows = source.iter().map(|(id, pay)| format!("({id}, {})", literal(*pay)));
                let rows = rows.collect::<Vec<_>>().join(", ");
                write!(
                    formatter,
                    "MERGE INTO main.t AS t USING (VALUES {rows}) AS s (id, pay) ON t.id = s.id \
                     WHEN MATCHED THEN UPDATE SET pay = s.pay \
                     WHEN NOT MATCHED THEN INSERT (id, region, pay) VALUES (s.id, {region}, s.pay)"
                )
            }
        }
    }
}

/// The rows afterwards and how many were changed; an error where the change is refused.
fn expected(rows: &[Row], policy: &Condition, change: &Change) -> Result<(Vec<Row>, usize), ()> {
    let mut after: Vec<Row> = Vec::new();
    let mut changed = 0;
    let new = |row: Row| -> Result<Row, ()> { if policy.holds(&row)? { Ok(row) } else { Err(()) } };
    let mut met: Vec<i64> = Vec::new();
    for row in rows {
        if !policy.holds(row)? {
            after.push(*row);
            continue;
        }
        match change {
            Change::Delete(condition) if condition.holds(&masked(*row))? => changed += 1,
            Change::Update(values, condition) if condition.holds(&masked(*row))? => {
                let mut updated = *row;
                values.iter().for_each(|(at, value)| updated[*at] = value.of(row));
                after.push(new(updated)?);
                changed += 1;
            }
            Change::Merge(source, _) => {
                let mut merged = *row;
                if let Some((id, pay)) = row[0].and_then(|id| source.get_key_value(&id)) {
                    met.push(*id);
                    merged[2] = *pay;
                    merged = new(merged)?;
                    changed += 1;
                }
                after.push(merged);
            }
            _ => after.push(*row),
        }
    }
    let added: Vec<Row> = match change {
        Change::Insert(rows) => rows.clone(),
        Change::Merge(source, region) => {
            let missing = source.iter().filter(|(id, _)| !met.contains(id));
            missing.map(|(id, pay)| [Some(*id), Some(*region), *pay, None]).collect()
        }
        _ => vec![],
    };
    changed += added.len();
    for row in added {
        after.push(new(row)?);
    }
    after.sort();
    Ok((after, changed))
}

fn value() -> impl Strategy<Value = Value> {
    prop::option::weighted(0.8, 0..4_i64)
}

/// Conditions that can be computed of any row.
fn total() -> impl Strategy<Value = Condition> {
    let compares = prop::sample::select(vec!["=", "<>", "<", ">="]);
    let leaf = prop_oneof![
        4 => (0..4_usize, compares, 0..4_i64)
            .prop_map(|(column, compares, value)| Condition::Compares(column, compares, value)),
        1 => (0..4_usize).prop_map(Condition::IsNull),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        let two = || (inner.clone(), inner.clone());
        prop_oneof![
            two().prop_map(|(one, other)| Condition::And(Box::new(one), Box::new(other))),
            two().prop_map(|(one, other)| Condition::Or(Box::new(one), Box::new(other))),
            inner.clone().prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![3 => total(), 1 => (0..4_i64).prop_map(Condition::Divides)]
}

fn change() -> impl Strategy<Value = Change> {
    let new = prop_oneof![
        value().prop_map(New::Constant),
        (0..MAIL, 0..2_i64).prop_map(|(column, more)| New::Plus(column, more)),
    ];
    let values = prop::collection::btree_map(1..4_usize, new, 1..3);
    let rows = prop::collection::vec([value(), value(), value(), value()], 1..3);
    let source = prop::collection::btree_map(0..8_i64, value(), 1..5);
    prop_oneof![
        2 => condition().prop_map(Change::Delete),
        4 => (values, condition())
            .prop_map(|(values, condition)| Change::Update(values, condition)),
        2 => rows.prop_map(Change::Insert),
        4 => (source, 0..4_i64).prop_map(|(source, region)| Change::Merge(source, region)),
    ]
}

/// Rows with different ids, a policy, and a change.
fn case() -> impl Strategy<Value = (Vec<Row>, Condition, Change)> {
    let others = [value(), value(), value()];
    let rows = prop::collection::btree_map(0..8_i64, others, 1..7);
    let rows = rows.prop_map(|rows| {
        let row = |(id, [region, pay, mail]): (i64, [Value; 3])| [Some(id), region, pay, mail];
        rows.into_iter().map(row).collect::<Vec<Row>>()
    });
    (rows, total(), change())
}

/// How many rows a statement changes, or its error.
async fn run(session: &Session, text: &str) -> Result<usize, String> {
    let shown = |error: sql::Error| format!("{}: {error}", error.code());
    let answer = session.query(text).await.map_err(shown)?;
    Ok(answer.affected.map_or(0, |rows| usize::try_from(rows).unwrap()))
}

async fn all(session: &Session) -> Vec<Row> {
    let answer = session.query("SELECT id, region, pay, mail FROM main.t").await.unwrap();
    let batches: Vec<_> = answer.rows.try_collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in &batches {
        for at in 0..batch.num_rows() {
            let mut row: Row = [None; 4];
            for (value, column) in row.iter_mut().zip(batch.columns()) {
                *value = column.as_primitive::<Int64Type>().iter().nth(at).unwrap();
            }
            rows.push(row);
        }
    }
    rows.sort();
    rows
}

/// Who keeps policies, who is bound by those of `t`, and who is not.
async fn house(engine: &Engine) -> (Session, Session, Session) {
    let session =
        |name: &str, roles: &[&str]| engine.session(Principal::new(name, roles.iter().copied()));
    let (root, dpo) = (session("root", &["admin"]), session("dpo", &["policy_admin"]));
    let grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON main.t TO ROLE analyst, ROLE auditor";
    let mask = format!("CREATE MASKING POLICY m ON main.t (mail) USING {MASK} EXCEPT ROLE auditor");
    for (session, text) in [
        (&root, "CREATE ROLE auditor"),
        (&root, "CREATE TABLE main.t (id BIGINT, region BIGINT, pay BIGINT, mail BIGINT)"),
        (&root, grant),
        (&dpo, "CREATE ROW ACCESS POLICY p ON main.t USING (region = 1) EXCEPT ROLE auditor"),
        (&dpo, mask.as_str()),
    ] {
        run(session, text).await.unwrap();
    }
    (dpo, session("ann", &["analyst"]), session("aud", &["auditor"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_prepared_change_are_tested() {
    let folder = tempfile::tempdir().unwrap();
    let engine = crate::slt::engine(folder.path()).await;
    let (_, ann, aud) = house(&engine).await;
    run(&aud, "INSERT INTO main.t VALUES (1, 1, 10, 3), (2, 2, 20, 5)").await.unwrap();
    let update = ann
        .prepare("UPDATE main.t SET region = CAST(? AS BIGINT), pay = 11 WHERE id < ?")
        .await
        .unwrap();
    let insert = ann.prepare("INSERT INTO main.t (id, region) VALUES (?, ?)").await.unwrap();
    let bound = |one: i64, other: i64| [ScalarValue::from(one), ScalarValue::from(other)];
    let refused = ann.run(&update, &bound(2, 9)).await.unwrap_err();
    assert_eq!(refused.code(), "ATT-2003");
    assert_eq!(ann.run(&update, &bound(1, 9)).await.unwrap().affected, Some(1));
    assert_eq!(ann.run(&insert, &bound(3, 2)).await.unwrap_err().code(), "ATT-2003");
    assert_eq!(ann.run(&insert, &bound(3, 1)).await.unwrap().affected, Some(1));
    let after = [
        [Some(1), Some(1), Some(11), Some(3)],
        [Some(2), Some(2), Some(20), Some(5)],
        [Some(3), Some(1), None, None],
    ];
    assert_eq!(all(&aud).await, after);
}

#[test]
fn changes_under_policies_are_what_they_would_be_of_the_rows_that_are_seen() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // As the program has it; debug builds use much stack.
    let runtime = runtime.enable_all().thread_stack_size(8 << 20).build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let engine = runtime.block_on(crate::slt::engine(folder.path()));
    let (dpo, ann, aud) = runtime.block_on(house(&engine));
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let compared = runner.run(&case(), |(rows, policy, change)| {
        let values: Vec<String> = rows.iter().map(literals).collect();
        let put = format!(
            "INSERT OVERWRITE main.t SELECT * FROM (VALUES {}) AS v (id, region, pay, mail)",
            values.join(", ")
        );
        runtime.block_on(run(&aud, &put)).unwrap();
        let alter = format!("ALTER ROW ACCESS POLICY p ON main.t SET USING ({policy})");
        runtime.block_on(run(&dpo, &alter)).unwrap();
        let done = runtime.block_on(run(&ann, &change.to_string()));
        let after = runtime.block_on(all(&aud));
        match expected(&rows, &policy, &change) {
            Ok((expected, changed)) => {
                prop_assert_eq!(done, Ok(changed), "{}", change);
                prop_assert_eq!(after, expected, "{}", change);
            }
            Err(()) => {
                let error = done.expect_err("a change that is refused");
                let known = error.starts_with("ATT-2003") || error.starts_with("ATT-3001");
                prop_assert!(known, "{}: {}", change, error);
                prop_assert_eq!(after, rows, "{}", change);
            }
        }
        Ok(())
    });
    compared.unwrap_or_else(|error| panic!("{error}"));
}
