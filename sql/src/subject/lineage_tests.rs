//! Tests of which columns hold ids, and whose rows are.

use arrow::datatypes::{DataType, Field, Schema};
use catalog::subject_copies::Transformation;
use catalog::subjects::{Subject, SubjectKey};
use datafusion::common::ScalarValue;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::functions::expr_fn::{
    btrim, char_length, coalesce, concat, greatest, lower, nullif, sha256,
};
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::expr_fn::{array_agg, count, max};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::functions_aggregate::min_max::max_udaf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    AggregateUDF, ExprFunctionExt, LogicalPlanBuilder, cast, col, lit, out_ref_col, when,
};

use super::*;

/// `crm (id, name, n)` with the key `id`, and `orders (customer, item)` without.
struct Tables(Vec<Keyed>, Arc<dyn TableProvider>);

fn provider(columns: &[(&str, DataType)]) -> Arc<dyn TableProvider> {
    let field = |(name, of): &(&str, DataType)| Field::new(*name, of.clone(), true);
    let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
    Arc::new(MemTable::try_new(Arc::new(schema), vec![vec![]]).unwrap())
}

impl Tables {
    fn new() -> Self {
        let text = DataType::Utf8;
        let crm = provider(&[("id", text.clone()), ("name", text.clone()), ("n", DataType::Int64)]);
        let name = ObjectName::new("main", "crm");
        let key = SubjectKey { table: name.clone(), column: "id".into() };
        let columns = vec![("id".to_owned(), Ids::of("person", &key))];
        let orders = provider(&[("customer", text.clone()), ("item", text)]);
        let personal = BTreeSet::new();
        Self(vec![Keyed { name, providers: vec![crm], columns, personal }], orders)
    }

    fn crm(&self) -> LogicalPlanBuilder {
        let table = Arc::clone(&self.0[0].providers[0]);
        LogicalPlanBuilder::scan("crm", provider_as_source(table), None).unwrap()
    }

    fn orders(&self) -> LogicalPlanBuilder {
        let table = provider_as_source(Arc::clone(&self.1));
        LogicalPlanBuilder::scan("orders", table, None).unwrap()
    }

    fn rows(&self, plan: LogicalPlanBuilder) -> Rows {
        let key = SubjectKey { table: ObjectName::new("main", "crm"), column: "id".into() };
        let subject = Subject {
            name: "person".into(),
            keys: vec![key],
            via: None,
            owner: "dpo".into(),
            created_ms: 0,
        };
        let (subjects, keys, readings) = ([subject], BTreeMap::new(), Cell::default());
        let models = OfModels { subjects: &subjects, copies: &[], policy: None, asked: &[] };
        let lineage = Lineage::new(&self.0, models, &keys, &readings);
        lineage.of(&plan.build().unwrap()).unwrap()
    }

    /// What was done to the ids in each column of rows of `crm`, which are its persons' or not.
    fn made(&self, exprs: Vec<Expr>) -> Vec<Option<Option<Vec<Transformation>>>> {
        let rows = self.rows(self.crm().project(exprs).unwrap());
        assert_eq!(rows.persons.readings.len(), 1);
        by(&rows)
    }
}

fn by(rows: &Rows) -> Vec<Option<Option<Vec<Transformation>>>> {
    let first = |held: &Held| held.ids.first().map(|ids| ids.by.clone());
    rows.columns.iter().map(first).collect()
}

fn text(text: &str) -> Option<Option<Vec<Transformation>>> {
    Some(Some(vec![Transformation::Expression(text.into())]))
}

const PLAIN: Option<Option<Vec<Transformation>>> = Some(Some(vec![]));

#[test]
fn what_was_done_to_ids_is_told_as_one_expression() {
    let tables = Tables::new();
    let chosen = when(col("n").gt(lit(1)), col("id")).otherwise(lit("nobody")).unwrap();
    let made = tables.made(vec![
        col("id").alias("renamed"),
        chosen,
        lower(btrim(vec![col("id")])),
        concat(vec![lit("it's "), lower(col("id"))]),
        cast(col("id"), DataType::Int64),
        cast(cast(col("id"), DataType::Int64), DataType::Utf8).alias("text"),
    ]);
    assert_eq!(
        made,
        [
            PLAIN,
            PLAIN,
            text("lower(btrim(id))"),
            text("concat('it''s ', lower(id))"),
            text("arrow_try_cast(id, 'Int64')"),
            text("arrow_try_cast(id, 'Int64')"),
        ]
    );
    let made = tables.made(vec![
        col("name"),
        char_length(col("id")),
        lower(col("name")),
        concat(vec![col("id"), col("name")]),
        sha256(lower(col("id"))),
    ]);
    assert_eq!(made, [None, None, None, Some(None), text("sha256(lower(id))")]);
}

#[test]
fn groups_are_of_single_persons_where_an_id_makes_them() {
    let tables = Tables::new();
    let grouped = |by: Vec<Expr>, of: Expr| tables.crm().aggregate(by, vec![of]).unwrap();
    let cities = tables.rows(grouped(vec![col("name")], count(col("id"))));
    assert_eq!((by(&cities), cities.persons.readings.len()), (vec![None, None], 0));
    let each = tables.rows(grouped(vec![lower(col("id"))], max(col("n"))));
    assert_eq!((by(&each), each.persons.readings.len()), (vec![text("lower(id)"), None], 1));
    let largest = tables.rows(grouped(vec![col("name")], max(col("id"))));
    assert_eq!((by(&largest), largest.persons.readings.len()), (vec![None, PLAIN], 0));
    let lists = tables.rows(grouped(vec![], array_agg(col("id"))));
    assert_eq!((by(&lists), lists.persons.readings.len()), (vec![Some(None)], 0));
    let lists = grouped(vec![], array_agg(col("id")).alias("ids"));
    let each = tables.rows(lists.unnest_column("ids").unwrap());
    assert_eq!((by(&each), each.persons.readings.len()), (vec![Some(None)], 0));
}

#[test]
fn groups_without_an_aggregate_are_rows_and_those_by_personal_data_are_persons() {
    let mut tables = Tables::new();
    tables.0[0].personal.insert("name".to_owned());
    let single = |by: Vec<Expr>, of: Vec<Expr>| {
        tables.rows(tables.crm().aggregate(by, of).unwrap()).persons.readings.len()
    };
    assert_eq!(single(vec![col("n")], vec![]), 1);
    assert_eq!(single(vec![col("n")], vec![count(col("name"))]), 0);
    assert_eq!(single(vec![lower(col("name"))], vec![count(col("n"))]), 1);
    // Groups of groups by what is counted are nobody's.
    let names = tables.crm().aggregate(vec![col("name")], vec![count(col("n")).alias("c")]);
    let sizes = names.unwrap().aggregate(vec![col("c")], vec![count(lit(1)).alias("n")]);
    assert_eq!(tables.rows(sizes.unwrap()).persons.readings.len(), 0);
}

#[test]
fn what_is_equal_to_an_id_or_united_with_one_is_one() {
    let tables = Tables::new();
    let on = vec![col("orders.customer").eq(col("crm.id"))];
    let joined = tables.orders().join_on(tables.crm().build().unwrap(), JoinType::Left, on);
    let rows = tables.rows(joined.unwrap());
    assert_eq!(by(&rows), [PLAIN, None, PLAIN, None, None]);
    assert_eq!(rows.persons.readings.len(), 1);
    let ids = tables.crm().project(vec![col("id")]).unwrap().build().unwrap();
    let items = tables.orders().project(vec![col("item")]).unwrap();
    let rows = tables.rows(items.union(ids).unwrap());
    assert_eq!((by(&rows), rows.persons.readings.len()), (vec![PLAIN], 1));
    let alone = tables.orders().project(vec![col("customer")]).unwrap();
    assert_eq!(tables.rows(alone), Rows { columns: vec![Held::default()], ..Rows::default() });
}

#[test]
fn where_nothing_of_an_id_is_left_is_known() {
    let tables = Tables::new();
    let is_lost = |expr: Expr| {
        let rows = tables.rows(tables.crm().project(vec![expr]).unwrap());
        !rows.columns[0].lost.is_empty()
    };
    let chosen = |other: ScalarValue| {
        when(col("n").gt(lit(1)), lower(col("id"))).otherwise(lit(other)).unwrap()
    };
    for (expr, lost) in [
        (lower(col("id")), false),
        (col("name"), false),
        (chosen(ScalarValue::Utf8(None)), false),
        (chosen(ScalarValue::from("***")), true),
        (char_length(col("id")), true),
        (col("id").eq(lit("u1")), true),
        (coalesce(vec![col("id"), lit("nobody")]), false),
        (coalesce(vec![nullif(col("id"), lit("u1")), lit("u17")]), true),
        (coalesce(vec![col("name"), col("id")]), true),
        (greatest(vec![col("id"), lit("u17")]), true),
    ] {
        assert_eq!(is_lost(expr.clone()), lost, "{expr}");
    }
}

#[test]
fn ids_in_whose_place_something_else_may_stand_find_nobody() {
    let tables = Tables::new();
    let when_first = || when(col("n").gt(lit(1)), col("id"));
    for (expr, is_left) in [
        (col("id"), true),
        (lower(col("id")), true),
        (coalesce(vec![col("id"), lit("nobody")]), true),
        (coalesce(vec![lower(col("id")), lit("nobody")]), true),
        (nullif(col("id"), lit("")), true),
        (when(col("id").eq(lit("")), lit("")).otherwise(btrim(vec![col("id")])).unwrap(), true),
        (coalesce(vec![lit("u1"), col("id")]), false),
        (coalesce(vec![nullif(col("id"), lit("u1")), lit("u2")]), false),
        (nullif(col("id"), lit("u1")), false),
        (greatest(vec![col("id"), lit("u17")]), false),
        (when_first().otherwise(lit("u1")).unwrap(), false),
        (when_first().otherwise(col("name")).unwrap(), false),
        (when_first().end().unwrap(), false),
    ] {
        let rows = tables.rows(tables.crm().project(vec![expr.clone()]).unwrap());
        assert_eq!(rows.columns[0].ids.len(), 1, "{expr}");
        assert_eq!(rows.columns[0].left().count(), usize::from(is_left), "{expr}");
    }
    // Nor do they say that rows of another reading are of the same person.
    let chosen = when_first().otherwise(lit("u1")).unwrap().alias("chosen");
    let around = tables.crm().project(vec![col("id"), chosen]).unwrap().alias("around").unwrap();
    let on = vec![col("around.chosen").eq(col("crm.id"))];
    let both = around.join_on(tables.crm().build().unwrap(), JoinType::Inner, on).unwrap();
    let shown = both.project(vec![col("around.id"), col("crm.name")]).unwrap();
    assert_eq!(told(&tables.rows(shown)), (1, 2));
}

#[test]
fn windows_over_many_persons_are_readings_of_their_own() {
    let tables = Tables::new();
    let over = |function: Arc<AggregateUDF>, of: &str, by: Vec<Expr>| {
        let window = Expr::from(WindowFunction::new(function, vec![col(of)]));
        let window = window.partition_by(by).build().unwrap();
        tables.rows(tables.crm().window(vec![window]).unwrap())
    };
    // The row's own is told by its id; what was gathered is not.
    for (function, of, by, all) in [
        (max_udaf(), "name", vec![], 2),
        (first_value_udaf(), "n", vec![], 2),
        (array_agg_udaf(), "name", vec![col("name")], 2),
        (max_udaf(), "name", vec![col("id")], 1),
        (max_udaf(), "name", vec![lower(col("id"))], 1),
        (max_udaf(), "n", vec![], 1),
        (count_udaf(), "name", vec![], 1),
    ] {
        let rows = over(function, of, by.clone());
        assert_eq!(told(&rows), (1, all), "{of} by {by:?}");
        assert_eq!(rows.persons.apart.len(), all - 1, "{of} by {by:?}");
    }
    // Ids that were gathered tell nobody's row but their own.
    let rows = over(max_udaf(), "id", vec![]);
    assert_eq!(told(&rows), (2, 2));
    let gathered = rows.columns[3].ids.first().map(|ids| ids.reading);
    assert_ne!(gathered, rows.columns[0].ids.first().map(|ids| ids.reading));
}

#[test]
fn values_of_groups_that_are_nobodys_are_of_others() {
    let tables = Tables::new();
    let others = |by: Vec<Expr>, of: Expr| {
        let rows = tables.rows(tables.crm().aggregate(by, vec![of]).unwrap());
        rows.columns.last().unwrap().others.len()
    };
    for (expr, found) in [
        (array_agg(col("name")), 1),
        (max(col("name")), 1),
        (max(col("n")), 0),
        (count(col("name")), 0),
        (array_agg(col("id")), 0),
    ] {
        assert_eq!(others(vec![], expr.clone()), found, "{expr}");
        assert_eq!(others(vec![col("id")], expr.clone()), 0, "{expr}");
    }
    let lists = tables.crm().aggregate(Vec::<Expr>::new(), vec![array_agg(col("name")).alias("m")]);
    let each = tables.rows(lists.unwrap().unnest_column("m").unwrap());
    assert_eq!(each.columns[0].others.len(), 1);
}

#[test]
fn what_is_equal_to_a_value_comes_of_its_row() {
    let tables = Tables::new();
    let met = |join: JoinType| {
        let on = vec![col("orders.item").eq(col("crm.name"))];
        let both = tables.orders().join_on(tables.crm().build().unwrap(), join, on).unwrap();
        let rows = tables.rows(both);
        (rows.columns[1].readings.len(), rows.persons.readings.len())
    };
    assert_eq!(met(JoinType::Inner), (1, 1));
    assert_eq!(met(JoinType::LeftSemi), (1, 1));
    assert_eq!(met(JoinType::LeftAnti), (1, 0));
    assert_eq!(met(JoinType::Left), (0, 1));
}

#[test]
fn values_of_no_table_are_known() {
    let tables = Tables::new();
    let one_of_two = when(col("n").gt(lit(1)), lit("u17")).otherwise(lit("u18")).unwrap();
    for (expr, is_written) in [
        (lit("u17"), true),
        (lit(ScalarValue::Utf8(None)), false),
        (lower(concat(vec![lit("U"), lit("17")])), true),
        (lit(1) + lit(2), true),
        (one_of_two, true),
        (col("name"), false),
        (concat(vec![lit("u"), col("name")]), false),
        (col("n") + lit(1_i64), false),
    ] {
        let rows = tables.rows(tables.crm().project(vec![expr.clone()]).unwrap());
        assert_eq!(rows.columns[0].is_written, is_written, "{expr}");
    }
    let listed = LogicalPlanBuilder::values(vec![vec![lit("u17")], vec![lit("u18")]]).unwrap();
    let rows = tables.rows(listed.cross_join(tables.crm().build().unwrap()).unwrap());
    let written: Vec<bool> = rows.columns.iter().map(|held| held.is_written).collect();
    assert_eq!((written, rows.persons.readings.len()), (vec![true, false, false, false], 1));
    // Of a UNION each part has to tell its persons.
    let part = |user: Expr| tables.crm().project(vec![user.alias("id"), col("name")]).unwrap();
    let both = part(col("id")).union(part(lit("u17")).build().unwrap()).unwrap();
    let rows = tables.rows(both);
    assert!(rows.columns[0].is_written);
    assert_eq!(told(&rows), (1, 2));
}

/// Of how many readings the columns tell whose the rows are, and how many there are.
fn told(rows: &Rows) -> (usize, usize) {
    let ids = rows.columns.iter().flat_map(|held| &held.ids);
    let told = rows
        .persons
        .readings
        .iter()
        .filter(|(reading, _)| ids.clone().any(|ids| rows.persons.are_told(*reading, ids)));
    (told.count(), rows.persons.readings.len())
}

#[test]
fn each_reading_of_a_table_is_told_by_its_own_ids() {
    let tables = Tables::new();
    let of = |exprs: Vec<Expr>| tables.crm().project(exprs).unwrap();
    let own = of(vec![col("id"), col("name")]);
    let united =
        |with: Vec<Expr>| tables.rows(own.clone().union(of(with).build().unwrap()).unwrap());
    assert_eq!(told(&united(vec![col("id"), col("name")])), (2, 2));
    assert_eq!(told(&united(vec![lit("x").alias("id"), col("name")])), (1, 2));
    let around = || tables.crm().alias("around").unwrap();
    let met = |on: Expr| {
        let both = around().join_on(tables.crm().build().unwrap(), JoinType::Inner, vec![on]);
        let shown = vec![col("around.id"), col("crm.name")];
        tables.rows(both.unwrap().project(shown).unwrap())
    };
    assert_eq!(told(&met(col("around.id").eq(col("crm.id")))), (2, 2));
    assert_eq!(told(&met(col("around.name").eq(col("crm.name")))), (1, 2));
    // Compared as another type several ids may be one.
    let typed = |of: &DataType| {
        told(&met(cast(col("around.id"), of.clone()).eq(cast(col("crm.id"), of.clone()))))
    };
    assert_eq!(typed(&DataType::LargeUtf8), (2, 2));
    assert_eq!(typed(&DataType::Int64), (1, 2));
    // Equal to what is equal to what is left.
    let third = tables.crm().alias("third").unwrap().build().unwrap();
    let both = around().join_on(
        tables.crm().build().unwrap(),
        JoinType::Inner,
        vec![col("around.id").eq(col("crm.id"))],
    );
    let on = vec![col("around.id").eq(col("third.id"))];
    let all = both.unwrap().join_on(third, JoinType::Inner, on).unwrap();
    let shown = all.project(vec![col("crm.id"), col("third.name")]).unwrap();
    assert_eq!(told(&tables.rows(shown)), (3, 3));
    // Of the rows of an outer join an id may be missing.
    let outer = |join: JoinType, shown: &str| {
        let on = vec![col("around.id").eq(col("crm.id"))];
        let both = around().join_on(tables.crm().build().unwrap(), join, on).unwrap();
        let shown = vec![col(shown), col("around.n"), col("crm.name")];
        told(&tables.rows(both.project(shown).unwrap()))
    };
    for (join, left, right) in [
        (JoinType::Inner, 2, 2),
        (JoinType::Left, 2, 1),
        (JoinType::Right, 1, 2),
        (JoinType::Full, 1, 1),
    ] {
        assert_eq!(outer(join, "around.id"), (left, 2), "{join}");
        assert_eq!(outer(join, "crm.id"), (right, 2), "{join}");
    }
    // A query inside whose rows are those of an id around it.
    let inner = |column: &str| {
        let is_theirs = col("crm.id").eq(out_ref_col(DataType::Utf8, column));
        let inner = tables.crm().filter(is_theirs).unwrap().project(vec![col("crm.name")]);
        tables.rows(around().cross_join(inner.unwrap().build().unwrap()).unwrap())
    };
    assert_eq!(told(&inner("around.id")), (2, 2));
    assert_eq!(told(&inner("around.name")), (1, 2));
}
