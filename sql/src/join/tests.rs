//! A fuzzy join gives the same rows however its sides are cut into batches and pieces.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::cast::as_int64_array;
use datafusion::common::{JoinSide, JoinType, NullEquality, ScalarValue};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::{ExecutionPlan, collect};
use futures::StreamExt;
use proptest::prelude::*;
use tokio::runtime::Runtime;
use udfs::fuzzy::index::{Floor, Likeness, SetKind};

use super::exec::{FuzzyJoinExec, Join};
use super::predicate::{Alternative, FuzzyPredicate, Limit};

#[derive(Debug, Clone)]
struct Row {
    key: Option<i64>,
    k: Option<i64>,
    text: Option<String>,
}

fn schema() -> SchemaRef {
    let number = |name| Field::new(name, DataType::Int64, true);
    let text = Field::new("x", DataType::Utf8, true);
    Arc::new(Schema::new(vec![number("i"), number("g"), number("k"), text]))
}

/// Rows with their numbers, in batches of so many.
fn input(rows: &[Row], of: usize) -> Arc<dyn ExecutionPlan> {
    let numbers: Vec<i64> = (0..rows.len() as i64).collect();
    let batch = |(rows, numbers): (&[Row], &[i64])| {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(numbers.to_vec())),
            Arc::new(rows.iter().map(|row| row.key).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.k).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.text.as_deref()).collect::<StringArray>()),
        ];
        RecordBatch::try_new(schema(), columns).unwrap()
    };
    let batches: Vec<_> = rows.chunks(of).zip(numbers.chunks(of)).map(batch).collect();
    MemorySourceConfig::try_new_exec(&[batches], schema(), None).unwrap()
}

fn way(likeness: Likeness, limit: Option<JoinSide>) -> Alternative {
    let text: Arc<dyn PhysicalExpr> = Arc::new(Column::new("x", 3));
    let limit = limit.map(|side| {
        let value = Arc::new(Column::new("k", 2));
        (side, Limit { value, negative_fails: false, times: 1 })
    });
    let (left, shown) = (Arc::clone(&text), String::new());
    let predicate = FuzzyPredicate { likeness, left, right: text, limit, shown };
    Alternative { predicate, filter: None }
}

/// One distance, one of each row of either side, sets, and two of them at once.
fn ways() -> [Vec<Alternative>; 5] {
    let edit = |max| Likeness::Edit { osa: false, max };
    let floor = Floor { value: 0.5, exclusive: false };
    let trigrams = Likeness::Sets { kind: SetKind::Trigrams, floor };
    [
        vec![way(edit(1), None)],
        vec![way(edit(2), Some(JoinSide::Right))],
        vec![way(edit(2), Some(JoinSide::Left))],
        vec![way(trigrams, None)],
        vec![way(edit(1), Some(JoinSide::Right)), way(trigrams, None)],
    ]
}

fn context(memory_bytes: usize) -> Arc<TaskContext> {
    let pool = Arc::new(GreedyMemoryPool::new(memory_bytes));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
    Arc::new(TaskContext::default().with_runtime(runtime))
}

/// The rows of a full join, by their numbers, and what it counted.
#[derive(Debug)]
struct Joined {
    rows: Vec<(Option<i64>, Option<i64>)>,
    looked_up: usize,
    remembered: usize,
    spilled: usize,
}

async fn joined(
    (left, right): (Arc<dyn ExecutionPlan>, Arc<dyn ExecutionPlan>),
    alternatives: &[Alternative],
    with_key: bool,
    context: Arc<TaskContext>,
) -> Joined {
    let key = || -> Arc<dyn PhysicalExpr> { Arc::new(Column::new("g", 1)) };
    let join = Join {
        left,
        right,
        on: if with_key { vec![(key(), key())] } else { Vec::new() },
        null_equality: NullEquality::NullEqualsNothing,
        alternatives: alternatives.to_vec(),
        join_type: JoinType::Full,
        partitioned: false,
        projection: None,
    };
    let plan: Arc<dyn ExecutionPlan> = Arc::new(FuzzyJoinExec::new(join).unwrap());
    let mut rows = Vec::new();
    for batch in collect(Arc::clone(&plan), context).await.unwrap() {
        let (left, right) = (batch.column(0), batch.column(4));
        let (left, right) = (as_int64_array(left).unwrap(), as_int64_array(right).unwrap());
        rows.extend(left.iter().zip(right.iter()));
    }
    rows.sort_unstable();
    let metrics = plan.metrics().unwrap();
    let count = |name| metrics.sum_by_name(name).map_or(0, |value| value.as_usize());
    Joined {
        rows,
        looked_up: count("texts_looked_up"),
        remembered: count("texts_remembered"),
        spilled: metrics.spill_count().unwrap_or(0),
    }
}

fn rows(count: Range<usize>) -> impl Strategy<Value = Vec<Row>> {
    let number = |limit| prop::option::weighted(0.9, 0_i64..limit);
    let row = (number(3), number(4), prop::option::weighted(0.9, "[ab]{0,4}"));
    let row = row.prop_map(|(key, k, text)| Row { key, k, text });
    prop::collection::vec(row, count)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn each_text_of_many_batches_is_looked_up_once_and_the_rows_are_those_of_one(
        left in rows(0..20),
        right in rows(0..120),
        of in 1_usize..30,
    ) {
        let (runtime, context) = (Runtime::new().unwrap(), context(1 << 30));
        for alternatives in ways() {
            for with_key in [false, true] {
                let [whole, cut] = [usize::MAX, of].map(|of| {
                    let sides = (input(&left, of), input(&right, of));
                    let context = Arc::clone(&context);
                    runtime.block_on(joined(sides, &alternatives, with_key, context))
                });
                prop_assert_eq!(&cut.rows, &whole.rows);
                prop_assert_eq!(cut.looked_up, whole.looked_up);
                prop_assert_eq!(whole.remembered, 0);
            }
        }
    }
}

/// A text that hardly any other is alike.
fn text(number: u64) -> String {
    format!("{:07x}", number * 2_654_435_761 % (1 << 28))
}

#[test]
fn what_is_remembered_is_of_one_piece_on_the_disk() {
    let number = |at: u64, of: u64| Some((at % of) as i64);
    let left =
        (0..12_000).map(|at| Row { key: number(at, 5), k: number(at, 3), text: Some(text(at)) });
    let left: Vec<Row> = left.collect();
    // Few texts in many rows, each alike a text of the left side, from all of its pieces.
    let right = (0..6_000).map(|at| {
        let like = at % 150 * 53;
        Row { key: number(like, 5), k: number(at / 150, 3), text: Some(text(like) + "z") }
    });
    let right: Vec<Row> = right.collect();
    let runtime = Runtime::new().unwrap();
    for alternatives in ways() {
        for with_key in [false, true] {
            let [held, in_pieces] = [(1 << 30, 8_192), (2 << 20, 40)].map(|(memory_bytes, of)| {
                let sides = (input(&left, 500), input(&right, of));
                let context = context(memory_bytes);
                runtime.block_on(joined(sides, &alternatives, with_key, context))
            });
            assert_eq!(in_pieces.rows, held.rows);
            assert!(held.rows.len() > 8_000, "{} rows", held.rows.len());
            assert!(held.spilled == 0 && in_pieces.spilled > 1, "{}", in_pieces.spilled);
            let Joined { looked_up, remembered, .. } = in_pieces;
            assert!(remembered > looked_up, "{remembered} of {looked_up}");
        }
    }
}

/// One text in a great many rows of both sides: the pairs are forty billion.
fn of_one_text(join_type: JoinType, filter: Option<JoinFilter>) -> FuzzyJoinExec {
    let row = |at| Row { key: Some(at), k: None, text: Some("ab".to_owned()) };
    let rows: Vec<Row> = (0..200_000).map(row).collect();
    let way = way(Likeness::Edit { osa: false, max: 1 }, None);
    let join = Join {
        left: input(&rows, usize::MAX),
        right: input(&rows, usize::MAX),
        on: Vec::new(),
        null_equality: NullEquality::NullEqualsNothing,
        alternatives: vec![Alternative { filter, ..way }],
        join_type,
        partitioned: false,
        projection: None,
    };
    FuzzyJoinExec::new(join).unwrap()
}

#[test]
fn a_join_of_one_sides_rows_looks_at_no_pairs() {
    let runtime = Runtime::new().unwrap();
    for (join_type, count) in [
        (JoinType::LeftSemi, 200_000),
        (JoinType::RightSemi, 200_000),
        (JoinType::LeftAnti, 0),
        (JoinType::RightAnti, 0),
    ] {
        let plan = Arc::new(of_one_text(join_type, None));
        let given = runtime.block_on(collect(plan, context(1 << 30))).unwrap();
        assert_eq!(given.iter().map(RecordBatch::num_rows).sum::<usize>(), count, "{join_type}");
    }
}

#[test]
fn a_join_that_gives_nothing_ends_with_its_reader() {
    let never = Arc::new(Literal::new(ScalarValue::from(false)));
    let filter = JoinFilter::new(never, Vec::new(), Arc::new(Schema::empty()));
    let plan = of_one_text(JoinType::Inner, Some(filter));
    let runtime = Runtime::new().unwrap();
    let began = Instant::now();
    runtime.block_on(async {
        let mut given = plan.execute(0, context(1 << 30)).unwrap();
        let first = tokio::time::timeout(Duration::from_secs(1), given.next());
        assert!(first.await.is_err());
    });
    // This waits for the join's thread.
    drop(runtime);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
