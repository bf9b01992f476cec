//! Sub-queries that DataFusion 55.2 answers wrongly as they are.
//!
//! `a >= ALL (SELECT a FROM t)` in a query over `t` becomes a join whose condition is looked
//! through by name, and compares `t.a` of the sub-query with itself. So what is compared gets a
//! name that nothing around it has. Where a sub-query compares a column of its own with one of the
//! same name around it, in a condition of its own, no name can be given from outside: it is
//! refused.
//!
//! `(SELECT count(*) FROM t HAVING …)` is NULL where the sub-query has no row, though its column
//! never is. Unless there always is a row, it stands in a function that says so: IS NULL and
//! coalesce are not simplified away, and the answer's column may hold NULL.
//!
//! `x > ALL (SELECT max(a) FROM t WHERE t.k = o.k)` becomes a join too, with a group for each `k`
//! that has rows, so that the row which an aggregate of none gives is missing; so it does in ANY,
//! IN and EXISTS. A comparison with one row is one with a value, which knows that row. Where an
//! aggregate of all rows lies deeper, or LIMIT and OFFSET would be left out on the way to the join,
//! a sub-query that refers to the query around it is refused.
//!
//! What ANY and ALL become has another name than they. So a column that is computed with them gets
//! theirs for an alias: what reads it finds it, and what cannot be computed is refused as such.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Column;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::utils::take_function_args;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::expr::{ScalarFunction, SetComparison, SetQuantifier};
use datafusion::logical_expr::utils::{find_out_reference_exprs, split_conjunction};
use datafusion::logical_expr::{
    ColumnarValue, Distinct, Expr, FetchType, Limit, LogicalPlan, LogicalPlanBuilder, Operator,
    ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, SkipType, Subquery,
    Volatility, binary_expr, lit, scalar_subquery,
};
use datafusion::optimizer::AnalyzerRule;

use crate::among::exact;
use crate::cases::recomputed;
use crate::error::Error;
use crate::rewrites::map_named;

/// The function around a sub-query that may have no row. Nobody can call it: it is in no registry.
pub(crate) const NULL_WITHOUT_ROW: &str = "null_without_row";

/// Says what is meant by each sub-query, before types are coerced.
#[derive(Debug)]
pub(crate) struct Subqueries;

impl AnalyzerRule for Subqueries {
    fn name(&self) -> &str {
        "subqueries"
    }

    fn analyze(
        &self,
        plan: LogicalPlan,
        _options: &ConfigOptions,
    ) -> DataFusionResult<LogicalPlan> {
        told(plan)
    }
}

/// The plan with what is meant by each sub-query; of one that says it, the same.
///
/// # Errors
/// When DataFusion would take a column of a sub-query for one of the same name around it, or would
/// have other rows of it.
pub(crate) fn told(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    if !has_subquery(&plan)? {
        return Ok(plan);
    }
    let told = plan.transform_up_with_subqueries(|node| {
        // What stands in an expression comes here too.
        if let LogicalPlan::Subquery(sub) = &node {
            check_apart(&sub.subquery, BTreeSet::new())?;
        }
        let node = named(exact(node)?)?;
        map_named(node, |expr| expr.transform_up(told_part))?.map_data(recomputed)
    });
    told.data()
}

/// The node, whose columns keep their names when ANY and ALL in them are written out.
fn named(node: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    use LogicalPlan::{Aggregate, Projection, Window};
    if !matches!(node, Projection(_) | Aggregate(_) | Window(_)) {
        return Ok(node);
    }
    let named = node.map_expressions(|expr| {
        let keeps_name = matches!(expr, Expr::Alias(_) | Expr::GroupingSet(_))
            || !expr.exists(|part| Ok(matches!(part, Expr::SetComparison(_))))?;
        if keeps_name {
            return Ok(Transformed::no(expr));
        }
        let name = expr.schema_name().to_string();
        Ok(Transformed::yes(expr.alias(name)))
    });
    named.data()
}

/// The error of a sub-query that could not be made into a join, from DataFusion's text of it.
pub(crate) fn unplanned(text: &str) -> Option<Error> {
    if text.contains("Conflicting ordering requirements in aggregate") {
        return Some(Error::unsupported(
            "aggregates of one SELECT cannot be in different orders (ORDER BY within them)",
            "compute each in a query of its own, and join these",
        ));
    }
    let (_, part) = text.split_once("does not support logical expression ")?;
    if part.starts_with("OuterReferenceColumn") {
        return Some(Error::unsupported(
            "this LATERAL query cannot be computed for each row of the tables before it",
            "name their columns in its WHERE alone, without aggregates, and compute with them in \
             the SELECT around it; rows of several columns are SELECT a FROM t UNION ALL SELECT b \
             FROM t",
        ));
    }
    let is_subquery = ["ScalarSubquery", "InSubquery", "Exists", "SetComparison"]
        .iter()
        .any(|kind| part.starts_with(kind));
    is_subquery.then(|| {
        if !part.starts_with("ScalarSubquery") {
            return Error::unsupported(
                "IN, EXISTS, ANY and ALL of a sub-query are conditions and no values here",
                "count its rows instead, (SELECT count(*) FROM b WHERE b.x = a.x) > 0, or write \
                 the condition into WHERE",
            );
        }
        Error::unsupported(
            "this sub-query cannot be computed for each row of the query around it",
            "write it as a join with GROUP BY, or with a window, such as rank() OVER (ORDER BY …)",
        )
    })
}

fn has_subquery(plan: &LogicalPlan) -> DataFusionResult<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::Subquery(_));
        Ok(match found {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        })
    })?;
    Ok(found)
}

/// The sub-query that a part of an expression is.
pub(crate) fn subquery(part: &Expr) -> Option<&Subquery> {
    match part {
        Expr::ScalarSubquery(sub) => Some(sub),
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(sub) => Some(&sub.subquery),
        Expr::SetComparison(sub) => Some(&sub.subquery),
        _ => None,
    }
}

fn told_part(part: Expr) -> DataFusionResult<Transformed<Expr>> {
    match part {
        Expr::SetComparison(compared) => match single(&compared.subquery)? {
            Some(row) => {
                let is_all = compared.quantifier == SetQuantifier::All;
                Ok(Transformed::yes(row.compared(*compared.expr, compared.op, is_all)))
            }
            None => {
                check_joined(&compared.subquery, true)?;
                compared_apart(compared)
            }
        },
        Expr::InSubquery(among) => match single(&among.subquery)? {
            Some(row) => {
                let op = if among.negated { Operator::NotEq } else { Operator::Eq };
                Ok(Transformed::yes(row.compared(*among.expr, op, among.negated)))
            }
            None => {
                check_joined(&among.subquery, true)?;
                Ok(Transformed::no(Expr::InSubquery(among)))
            }
        },
        Expr::Exists(exists) => match single(&exists.subquery)? {
            Some(row) => Ok(Transformed::yes(row.exists(exists.negated))),
            None => {
                check_joined(&exists.subquery, false)?;
                Ok(Transformed::no(Expr::Exists(exists)))
            }
        },
        Expr::ScalarSubquery(sub) if may_be_without_row(&sub) => {
            let function = ScalarUDF::new_from_impl(NullWithoutRow::new());
            Ok(Transformed::yes(function.call(vec![Expr::ScalarSubquery(sub)])))
        }
        Expr::ScalarFunction(call) if is_ours(&call) => Ok(once(call)),
        other => Ok(Transformed::no(other)),
    }
}

/// What one row a sub-query gives, and the condition without which it gives none.
struct Single {
    value: LogicalPlan,
    met: Option<LogicalPlan>,
}

impl Single {
    /// What ALL, or else ANY, gives of a comparison with the row, if there is one.
    fn compared(self, left: Expr, op: Operator, is_all: bool) -> Expr {
        let compared = binary_expr(left, op, scalar_subquery(self.value.into()));
        match self.met.map(|met| scalar_subquery(met.into())) {
            None => compared,
            Some(met) if is_all => met.is_not_true().or(compared),
            Some(met) => met.is_true().and(compared),
        }
    }

    fn exists(self, negated: bool) -> Expr {
        match self.met.map(|met| scalar_subquery(met.into())) {
            None => lit(!negated),
            Some(met) if negated => met.is_not_true(),
            Some(met) => met.is_true(),
        }
    }
}

/// The one row at most of a sub-query that refers to the query around it and aggregates all of
/// its rows.
fn single(sub: &Subquery) -> DataFusionResult<Option<Single>> {
    match sub.outer_ref_columns.is_empty() {
        true => Ok(None),
        false => single_row(&sub.subquery),
    }
}

fn single_row(plan: &LogicalPlan) -> DataFusionResult<Option<Single>> {
    match plan {
        LogicalPlan::Aggregate(node) if node.group_expr.is_empty() => {
            Ok(Some(Single { value: plan.clone(), met: None }))
        }
        LogicalPlan::Projection(node) => {
            let Some(Single { value, met }) = single_row(&node.input)? else { return Ok(None) };
            let value = plan.with_new_exprs(plan.expressions(), vec![value])?;
            Ok(Some(Single { value, met }))
        }
        LogicalPlan::Filter(node) if !node.predicate.contains_outer() => {
            let Some(Single { value, met: None }) = single_row(&node.input)? else {
                return Ok(None);
            };
            let met = node.predicate.clone().alias("__met");
            let met = LogicalPlanBuilder::from(value.clone()).project([met])?.build()?;
            Ok(Some(Single { value, met: Some(met) }))
        }
        // One row is in order, differs from all others, and is the first.
        LogicalPlan::Sort(node) if node.fetch != Some(0) => single_row(&node.input),
        LogicalPlan::Distinct(Distinct::All(input)) => single_row(input),
        LogicalPlan::Limit(node) if takes_first(node) => single_row(&node.input),
        _ => Ok(None),
    }
}

/// Refuses a sub-query that refers to the query around it, of which the join would have other rows.
/// `is_compared`: each row counts, not only that there is one.
fn check_joined(sub: &Subquery, is_compared: bool) -> DataFusionResult<()> {
    if sub.outer_ref_columns.is_empty() {
        return Ok(());
    }
    let what = if is_cut(&sub.subquery, is_compared) {
        "LIMIT or OFFSET"
    } else if aggregates_all(&sub.subquery) {
        "an aggregate of all rows"
    } else {
        return Ok(());
    };
    Err(DataFusionError::from(Error::unsupported(
        format!(
            "{what} within a sub-query of ANY, ALL, IN or EXISTS that refers to the query around it"
        ),
        "compare with one value: x = (SELECT max(…) FROM … WHERE …)",
    )))
}

/// Whether LIMIT or OFFSET chooses among rows that depend on the query around a sub-query. EXISTS
/// alone does not see whether rows are counted off behind the first: `counts` is false.
fn is_cut(plan: &LogicalPlan, counts: bool) -> bool {
    let counts = match plan {
        // What reaches out of a lateral query is its own matter.
        LogicalPlan::Subquery(_) => return false,
        LogicalPlan::Limit(node) => {
            let skips = !matches!(node.get_skip_type(), Ok(SkipType::Literal(0)));
            if (counts || skips) && !plan.all_out_ref_exprs().is_empty() {
                return true;
            }
            counts
        }
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Sort(_) => counts,
        _ => true,
    };
    plan.inputs().into_iter().any(|input| is_cut(input, counts))
}

/// Whether all rows that depend on the query around a sub-query become one.
fn aggregates_all(plan: &LogicalPlan) -> bool {
    let is_one = match plan {
        LogicalPlan::Subquery(_) => return false,
        LogicalPlan::Aggregate(node) => {
            node.group_expr.is_empty() && !node.input.all_out_ref_exprs().is_empty()
        }
        _ => false,
    };
    is_one || plan.inputs().into_iter().any(aggregates_all)
}

fn is_ours(call: &ScalarFunction) -> bool {
    call.func.name() == NULL_WITHOUT_ROW
}

/// A plan is looked at more than once, and what was said is not said again.
fn once(mut call: ScalarFunction) -> Transformed<Expr> {
    match call.args.pop() {
        Some(Expr::ScalarFunction(inner)) if is_ours(&inner) => {
            Transformed::yes(Expr::ScalarFunction(inner))
        }
        argument => {
            call.args.extend(argument);
            Transformed::no(Expr::ScalarFunction(call))
        }
    }
}

/// The columns that an expression names, those of a query around its own too.
fn names(expr: &Expr) -> BTreeSet<Column> {
    let inside = expr.column_refs().into_iter().cloned();
    inside.chain(outer_columns(expr)).collect()
}

fn outer_columns(expr: &Expr) -> impl Iterator<Item = Column> + use<> {
    find_out_reference_exprs(expr).into_iter().filter_map(|outer| match outer {
        Expr::OuterReferenceColumn(_, column) => Some(column),
        _ => None,
    })
}

/// The comparison, over a column whose name no column on its other side has.
fn compared_apart(mut compared: SetComparison) -> DataFusionResult<Transformed<Expr>> {
    let plan = compared.subquery.subquery.as_ref();
    if plan.schema().fields().is_empty() {
        return Ok(Transformed::no(Expr::SetComparison(compared)));
    }
    let left = names(&compared.expr);
    check_apart(plan, left.clone())?;
    let is_taken = |name: &str| left.iter().any(|column| column.name == name);
    let (table, field) = plan.schema().qualified_field(0);
    if table.is_none() && !is_taken(field.name()) {
        return Ok(Transformed::no(Expr::SetComparison(compared)));
    }
    let column = Expr::Column(Column::from((table, field)));
    let mut name = "__compared".to_owned();
    while is_taken(&name) {
        name.push('_');
    }
    let renamed = LogicalPlanBuilder::from(plan.clone()).project([column.alias(name)])?.build()?;
    compared.subquery.subquery = renamed.into();
    Ok(Transformed::yes(Expr::SetComparison(compared)))
}

/// Refuses a sub-query whose conditions compare a column of its own with one around it, where they
/// name another one around it that is called the same: DataFusion would take that for its own.
/// `around` are columns that it is compared with from outside.
fn check_apart(plan: &LogicalPlan, mut around: BTreeSet<Column>) -> DataFusionResult<()> {
    let mut inside: BTreeSet<Column> = BTreeSet::new();
    plan.apply(|node| {
        // What reaches out of a sub-query in it is its own matter.
        if matches!(node, LogicalPlan::Subquery(_)) {
            return Ok(TreeNodeRecursion::Jump);
        }
        if let LogicalPlan::Filter(filter) = node {
            for part in split_conjunction(&filter.predicate) {
                if part.contains_outer() {
                    inside.extend(part.column_refs().into_iter().cloned());
                    around.extend(outer_columns(part));
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    match inside.intersection(&around).next() {
        None => Ok(()),
        Some(column) => Err(DataFusionError::from(Error::unsupported(
            format!("{column} is a column of a sub-query, and of the query around it"),
            "give the table in the sub-query another name: FROM t AS u",
        ))),
    }
}

/// Whether a sub-query whose column is never NULL may be, having no row.
fn may_be_without_row(sub: &Subquery) -> bool {
    let plan = sub.subquery.as_ref();
    let is_never_null = plan.schema().fields().first().is_some_and(|field| !field.is_nullable());
    is_never_null && !always_has_row(plan)
}

fn always_has_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        LogicalPlan::Values(values) => !values.values.is_empty(),
        LogicalPlan::Limit(limit) => takes_first(limit) && always_has_row(&limit.input),
        LogicalPlan::Sort(sort) => sort.fetch != Some(0) && always_has_row(&sort.input),
        LogicalPlan::Projection(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Distinct(_) => plan.inputs().into_iter().all(always_has_row),
        LogicalPlan::Union(_) => plan.inputs().into_iter().any(always_has_row),
        _ => false,
    }
}

/// Whether the first row is among those that are let through.
fn takes_first(limit: &Limit) -> bool {
    let takes_one = match limit.get_fetch_type() {
        Ok(FetchType::Literal(rows)) => rows != Some(0),
        _ => false,
    };
    takes_one && matches!(limit.get_skip_type(), Ok(SkipType::Literal(0)))
}

/// Its argument, which may be NULL though its type says otherwise.
#[derive(Debug, PartialEq, Eq, Hash)]
struct NullWithoutRow {
    signature: Signature,
}

impl NullWithoutRow {
    fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for NullWithoutRow {
    fn name(&self) -> &str {
        NULL_WITHOUT_ROW
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DataFusionResult<DataType> {
        let [of] = take_function_args(self.name(), arguments)?;
        Ok(of.clone())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> DataFusionResult<FieldRef> {
        let [of] = take_function_args(self.name(), arguments.arg_fields)?;
        Ok(of.as_ref().clone().with_name(self.name()).with_nullable(true).into())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let [value] = take_function_args(self.name(), arguments.args)?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Field;
    use datafusion::common::Spans;
    use datafusion::functions_aggregate::expr_fn::{count, max};
    use datafusion::logical_expr::{col, exists, in_subquery, not_exists, out_ref_col, table_scan};

    use super::*;

    fn scan(name: &str) -> LogicalPlanBuilder {
        let fields = ["a", "k"].map(|column| Field::new(column, DataType::Int64, false));
        let schema = arrow::datatypes::Schema::new(fields.to_vec());
        table_scan(Some(name), &schema, None).unwrap()
    }

    fn counted(having: bool) -> LogicalPlan {
        let groups: Vec<Expr> = vec![];
        let counted = scan("t").aggregate(groups, vec![count(lit(1_i64)).alias("n")]).unwrap();
        match having {
            true => counted.filter(col("n").gt(lit(9_i64))).unwrap().build().unwrap(),
            false => counted.build().unwrap(),
        }
    }

    #[test]
    fn a_sub_query_without_a_row_is_null() {
        let of = |having: bool| {
            let value = scalar_subquery(Arc::new(counted(having))).alias("c");
            let plan = LogicalPlanBuilder::empty(true).project([value]).unwrap().build().unwrap();
            let said = told(plan).unwrap();
            // Once more says no more.
            assert_eq!(told(said.clone()).unwrap(), said);
            said.schema().field(0).is_nullable()
        };
        assert!(of(true) && !of(false));
        let limited = |skip, rows| {
            let plan = LogicalPlanBuilder::from(counted(false)).limit(skip, rows).unwrap();
            always_has_row(&plan.build().unwrap())
        };
        assert!(limited(0, Some(1)) && limited(0, None));
        assert!(!limited(0, Some(0)) && !limited(1, None));
    }

    #[test]
    fn a_column_of_any_keeps_its_name() {
        let plan = scan("t").project([col("t.a")]).unwrap().build().unwrap();
        let subquery =
            Subquery { subquery: plan.into(), outer_ref_columns: vec![], spans: Spans::new() };
        let (left, op, any) = (Box::new(lit(1_i64)), Operator::Eq, SetQuantifier::Any);
        let of = Expr::SetComparison(SetComparison::new(left, subquery, op, any));
        let name = of.schema_name().to_string();
        let plan = LogicalPlanBuilder::empty(true).project([of]).unwrap().build().unwrap();
        let said = told(plan).unwrap();
        let LogicalPlan::Projection(node) = &said else { panic!("{said}") };
        let [Expr::Alias(alias)] = node.expr.as_slice() else { panic!("{said}") };
        assert_eq!((&alias.name, said.schema().field(0).name()), (&name, &name));
        // Once more says no more.
        assert_eq!(told(said.clone()).unwrap(), said);
    }

    #[test]
    fn what_is_compared_has_a_name_of_its_own() {
        let compared = |plan: LogicalPlan, left: Expr| {
            let subquery = Subquery {
                subquery: Arc::new(plan),
                outer_ref_columns: vec![],
                spans: Spans::new(),
            };
            let (op, all) = (Operator::GtEq, SetQuantifier::All);
            let of = SetComparison::new(Box::new(left), subquery, op, all);
            told(scan("t").filter(Expr::SetComparison(of)).unwrap().build().unwrap())
        };
        let plan = scan("t").project([col("t.a")]).unwrap().build().unwrap();
        let said = compared(plan, col("t.a")).unwrap().to_string();
        assert!(said.contains("__compared"), "{said}");
        let groups: Vec<Expr> = vec![];
        let plan = scan("t").aggregate(groups, vec![max(col("t.a"))]).unwrap().build().unwrap();
        assert!(!compared(plan, col("t.a")).unwrap().to_string().contains("__compared"));
        // The sub-query's own t.k would be taken for the one around it.
        let around = out_ref_col(DataType::Int64, "o.j");
        let plan = scan("t").filter(col("t.k").eq(around)).unwrap();
        let plan = plan.project([col("t.a")]).unwrap().build().unwrap();
        assert!(compared(plan.clone(), col("t.a")).is_ok());
        assert!(compared(plan, col("t.k")).is_err());
    }

    #[test]
    fn an_aggregate_of_no_rows_is_a_row() {
        let around = || scan("o");
        let rows = || {
            let key = out_ref_col(DataType::Int64, "o.k");
            scan("t").filter(col("t.k").eq(key)).unwrap()
        };
        let sub = |plan: LogicalPlan| Subquery {
            outer_ref_columns: plan.all_out_ref_exprs(),
            subquery: plan.into(),
            spans: Spans::new(),
        };
        let groups: Vec<Expr> = vec![];
        let counted = || rows().aggregate(groups.clone(), vec![count(lit(1_i64)).alias("n")]);
        let told_of = |condition: Expr| {
            told(around().filter(condition).unwrap().build().unwrap()).map(|plan| plan.to_string())
        };
        let one = Arc::new(counted().unwrap().build().unwrap());
        let few = counted().unwrap().filter(col("n").gt(lit(1_i64))).unwrap().build().unwrap();
        let few = Arc::new(few);
        for (condition, expected) in [
            (in_subquery(col("o.a"), Arc::clone(&one)), "Filter: o.a = (<subquery>)"),
            (in_subquery(col("o.a"), Arc::clone(&few)), "Filter: (<subquery>) IS TRUE AND o.a"),
            (exists(Arc::clone(&few)), "Filter: (<subquery>) IS TRUE"),
            (not_exists(few), "Filter: (<subquery>) IS NOT TRUE"),
            (exists(Arc::clone(&one)), "Filter: Boolean(true)"),
        ] {
            let said = told_of(condition).unwrap();
            assert!(said.contains(expected), "{said}");
        }
        let joined = scan("u").cross_join(one.as_ref().clone()).unwrap().build().unwrap();
        assert!(told_of(exists(joined.into())).is_err());
        // The first rows of all are not those of each.
        let limited = |skip, rows_max| rows().limit(skip, rows_max).unwrap().build().unwrap();
        assert!(told_of(exists(limited(0, Some(1)).into())).is_ok());
        assert!(told_of(exists(limited(2, None).into())).is_err());
        let first = LogicalPlanBuilder::from(limited(0, Some(1))).project([col("t.a")]).unwrap();
        let first = sub(first.build().unwrap());
        let (left, op, any) = (Box::new(col("o.a")), Operator::Gt, SetQuantifier::Any);
        assert!(told_of(Expr::SetComparison(SetComparison::new(left, first, op, any))).is_err());
    }
}
