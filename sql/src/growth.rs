//! How large the optimizer would make a plan.
//!
//! Some of what it does writes a part several times: `x BETWEEN 1 AND 2` becomes two comparisons
//! of x, `coalesce(x, y)` a CASE with x twice, a condition over a computed column one over what it
//! is computed of. Where such parts stand within each other their copies multiply, and a few
//! hundred characters make more than a machine holds, in one step that nobody can stop. A
//! sub-query is verified once for each query around it, and again in it; a function called by an
//! alias keeps its arguments in a name, too. So what would become of a plan is counted beforehand,
//! each part as often as it would be written.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::common::{Column, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, JoinType, LogicalPlan, Operator, ScalarUDF};
use sqlparser::ast::{Expr as SqlExpr, Value, Visit, Visitor};

use crate::error::{Error, Result};

/// Parts that may be written more than once: about a second's work.
const GROWTH_MAX: u64 = 50_000;
/// Functions that become a CASE over their arguments, in which each stands several times.
const CASES: [&str; 4] = ["coalesce", "ifnull", "nvl", "nvl2"];
/// Functions that become comparisons of their arguments.
const COMPARISONS: [&str; 4] = ["array_has", "nullif", "regexp_like", "starts_with"];
/// Functions whose arguments are planned before it is known which of its forms is meant.
const MAPS: [&str; 2] = ["map", "make_map"];

/// So many bytes of a text count as one part.
const TEXT_PART: usize = 64;

/// What is said of a statement that would become too large.
fn too_large() -> Error {
    Error::Exhausted {
        what: format!(
            "conditions, sub-queries or computed columns stand within each other so often that \
             the plan would have more than {GROWTH_MAX} parts"
        ),
    }
}

/// Refuses a syntax tree whose parts would be planned or written into names too often.
///
/// # Errors
/// When they would be.
pub(crate) fn check_tree(tree: &impl Visit, functions: &Functions) -> Result<()> {
    let mut written = Written { functions, ways: 1, parts: 0 };
    match tree.visit(&mut written) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(too_large()),
    }
}

/// Functions by the names that they can be called by.
type Functions = HashMap<String, Arc<ScalarUDF>>;

struct Written<'a> {
    functions: &'a Functions,
    /// How often what is being walked will be written.
    ways: u64,
    parts: u64,
}

impl Written<'_> {
    /// How often a part's own parts are planned, or stand in the column's name.
    fn copies(&self, expr: &SqlExpr) -> u64 {
        let SqlExpr::Function(function) = expr else { return 1 };
        let name = function.name.to_string().to_ascii_lowercase();
        if MAPS.contains(&name.as_str()) {
            return 3;
        }
        // What is called by another name keeps it, with its arguments, beside its own.
        let known = self.functions.get(&name);
        if known.is_some_and(|function| function.name() != name) { 2 } else { 1 }
    }
}

impl Visitor for Written<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &SqlExpr) -> ControlFlow<()> {
        let length = match expr {
            SqlExpr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => text.len() / TEXT_PART,
                _ => 0,
            },
            _ => 1,
        };
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.parts = self.parts.saturating_add(length.saturating_mul(self.ways - 1));
        if self.parts > GROWTH_MAX {
            return ControlFlow::Break(());
        }
        self.ways = self.ways.saturating_mul(self.copies(expr));
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &SqlExpr) -> ControlFlow<()> {
        self.ways /= self.copies(expr);
        ControlFlow::Continue(())
    }
}

/// Refuses a plan that would become too large.
///
/// # Errors
/// When it would.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut growth = Growth { parts: 0, depth: 0, columns: Vec::new() };
    plan.visit(&mut growth)?;
    if growth.parts > GROWTH_MAX { Err(too_large()) } else { Ok(()) }
}

/// How much is written more than once.
struct Growth {
    parts: u64,
    /// How many queries stand around the plan.
    depth: u32,
    /// Of each plan that was walked and not yet that above it, of how many parts each column is.
    columns: Vec<Vec<u64>>,
}

impl Growth {
    fn add(&mut self, parts: u64) {
        self.parts = self.parts.saturating_add(parts);
    }

    /// What goes on with what was seen so far.
    fn goes_on(&self) -> TreeNodeRecursion {
        match self.parts > GROWTH_MAX {
            true => TreeNodeRecursion::Stop,
            false => TreeNodeRecursion::Continue,
        }
    }

    /// A sub-query of an expression.
    fn sub_query(&mut self, plan: &LogicalPlan) -> DataFusionResult<()> {
        if self.parts > GROWTH_MAX {
            return Ok(());
        }
        let outer = std::mem::take(&mut self.columns);
        self.depth += 1;
        plan.visit(self)?;
        self.depth -= 1;
        self.columns = outer;
        Ok(())
    }

    /// The columns of a plan over those of its inputs.
    fn columns(&mut self, plan: &LogicalPlan, inputs: &[Vec<u64>]) -> DataFusionResult<Vec<u64>> {
        let mut sizes = Vec::new();
        for expr in plan.expressions() {
            let size = self.sizes(&expr, plan, inputs)?;
            // A projection's columns stay below it; into what stands over it they are written.
            let written = match plan {
                LogicalPlan::Projection(_) => size.alone,
                _ => size.written_out,
            };
            self.add(written.saturating_sub(size.once));
            sizes.push(size.written_out.max(1));
        }
        let width = plan.schema().fields().len();
        let mut below = inputs.iter().flatten().copied();
        let mut columns: Vec<u64> = match plan {
            LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) => sizes,
            LogicalPlan::Join(join) => match join.join_type {
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                    inputs.last().cloned().unwrap_or_default()
                }
                _ => below.collect(),
            },
            LogicalPlan::Union(_) => {
                let largest = |place| inputs.iter().filter_map(|input| input.get(place)).max();
                (0..width).map(|place| largest(place).copied().unwrap_or(1)).collect()
            }
            LogicalPlan::Values(_) | LogicalPlan::TableScan(_) => Vec::new(),
            _ => below.by_ref().take(width).collect(),
        };
        columns.resize(width, 1);
        Ok(columns)
    }

    /// Of how many parts an expression becomes.
    fn sizes(
        &mut self,
        expr: &Expr,
        plan: &LogicalPlan,
        inputs: &[Vec<u64>],
    ) -> DataFusionResult<Sizes> {
        let is_plain = inputs.iter().flatten().all(|size| *size == 1);
        let mut parts = Parts { plan, inputs, is_plain, open: vec![Sizes::default()] };
        expr.visit(&mut parts)?;
        let sizes = parts.open.pop().unwrap_or_default();
        let mut sub_queries = Vec::new();
        expr.apply(|part| {
            sub_queries.extend(match part {
                Expr::ScalarSubquery(query) => Some(query.clone()),
                Expr::Exists(exists) => Some(exists.subquery.clone()),
                Expr::InSubquery(test) => Some(test.subquery.clone()),
                Expr::SetComparison(test) => Some(test.subquery.clone()),
                _ => None,
            });
            Ok(TreeNodeRecursion::Continue)
        })?;
        for query in sub_queries {
            self.sub_query(&query.subquery)?;
        }
        Ok(sizes)
    }
}

impl<'a> TreeNodeVisitor<'a> for Growth {
    type Node = LogicalPlan;

    fn f_down(&mut self, _: &'a LogicalPlan) -> DataFusionResult<TreeNodeRecursion> {
        // Counted are the copies: a plan without sub-queries has none.
        let ways = 2_u64.saturating_pow(self.depth);
        self.add(ways - 1);
        Ok(self.goes_on())
    }

    fn f_up(&mut self, plan: &'a LogicalPlan) -> DataFusionResult<TreeNodeRecursion> {
        let from = self.columns.len().saturating_sub(plan.inputs().len());
        let inputs = self.columns.split_off(from);
        let columns = self.columns(plan, &inputs)?;
        self.columns.push(columns);
        Ok(self.goes_on())
    }
}

/// The parts of an expression, but for literals, of which a list may have as many as it likes.
#[derive(Debug, Default, Clone, Copy)]
struct Sizes {
    /// As it becomes, each column as what it is computed of.
    written_out: u64,
    /// As it becomes over its columns.
    alone: u64,
    /// As it stands.
    once: u64,
}

/// The parts of an expression.
struct Parts<'p> {
    plan: &'p LogicalPlan,
    inputs: &'p [Vec<u64>],
    /// Whether no column is written out.
    is_plain: bool,
    /// The children of each expression that is being walked.
    open: Vec<Sizes>,
}

impl Parts<'_> {
    fn column(&self, column: &Column) -> u64 {
        if self.is_plain {
            return 1;
        }
        let places = self.plan.inputs().into_iter().zip(self.inputs);
        let mut places = places.filter_map(|(input, sizes)| {
            sizes.get(input.schema().maybe_index_of_column(column)?).copied()
        });
        places.next().unwrap_or(1)
    }
}

impl<'a> TreeNodeVisitor<'a> for Parts<'_> {
    type Node = Expr;

    fn f_down(&mut self, _: &'a Expr) -> DataFusionResult<TreeNodeRecursion> {
        self.open.push(Sizes::default());
        Ok(TreeNodeRecursion::Continue)
    }

    fn f_up(&mut self, expr: &'a Expr) -> DataFusionResult<TreeNodeRecursion> {
        let below = self.open.pop().unwrap_or_default();
        let copies = copies(expr);
        let size = |below: u64, own: u64| below.saturating_mul(copies).saturating_add(own);
        let (own, once) = match expr {
            Expr::Column(column) => (self.column(column), 1),
            Expr::Literal(..) => (0, 0),
            _ => (1, 1),
        };
        if let Some(above) = self.open.last_mut() {
            above.written_out = above.written_out.saturating_add(size(below.written_out, own));
            above.alone = above.alone.saturating_add(size(below.alone, once));
            above.once = above.once.saturating_add(below.once + once);
        }
        Ok(TreeNodeRecursion::Continue)
    }
}

/// How often an expression's children stand in what becomes of it.
fn copies(expr: &Expr) -> u64 {
    match expr {
        Expr::Between(_) => 3,
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::IsDistinctFrom | Operator::IsNotDistinctFrom => 4,
            Operator::And
            | Operator::Or
            | Operator::Plus
            | Operator::Minus
            | Operator::Multiply
            | Operator::Divide
            | Operator::Modulo
            | Operator::StringConcat => 1,
            _ => 2,
        },
        Expr::Like(_)
        | Expr::SimilarTo(_)
        | Expr::InList(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_) => 2,
        Expr::ScalarFunction(call) => match call.func.name() {
            name if CASES.contains(&name) => 4,
            name if COMPARISONS.contains(&name) => 2,
            _ => 1,
        },
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{SessionConfig, SessionContext};
    use sqlparser::parser::Parser;

    use super::*;
    use crate::dialect::AttuneDialect;

    /// An expression within itself, so many times.
    fn nested(innermost: &str, around: &str, levels: usize) -> String {
        (0..levels).fold(innermost.to_owned(), |within, _| around.replace("{}", &within))
    }

    fn chained(step: &str, levels: usize) -> String {
        let query = "SELECT a FROM (VALUES (1), (3)) AS t(a)".to_owned();
        (0..levels).fold(query, |query, _| format!("SELECT {step} AS a FROM ({query}) AS t"))
    }

    async fn checked(query: &str) -> Result<()> {
        let mut parser = Parser::new(&AttuneDialect).with_recursion_limit(1_000);
        parser = parser.try_with_sql(query).unwrap();
        let config = SessionConfig::new().set_usize("datafusion.sql_parser.recursion_limit", 1_000);
        let state = SessionContext::new_with_config(config).state();
        check_tree(&parser.parse_statement().unwrap(), state.scalar_functions())?;
        check(&state.create_logical_plan(query).await.unwrap())
    }

    #[tokio::test]
    async fn what_would_multiply_is_refused() {
        for around in [
            "CASE WHEN {} BETWEEN 0 AND 1 THEN 1 ELSE 2 END",
            "CAST({} IN (1, 2) AS INT)",
            "coalesce(nullif({}, 2), 1)",
            "CAST({} IS DISTINCT FROM 2 AS INT)",
            "CAST((({}) > 1) IS TRUE AS INT)",
        ] {
            let from = chained("a", 0);
            let query = |levels| format!("SELECT {} FROM ({from})", nested("a", around, levels));
            checked(&query(4)).await.unwrap();
            assert_eq!(checked(&query(16)).await.unwrap_err().code(), "ATT-3002", "{around}");
        }
        let sub_queries = [
            format!("SELECT {}", nested("1", "(SELECT {})", 20)),
            nested("SELECT 1", "SELECT 1 WHERE EXISTS ({})", 20),
            nested("SELECT 1", "SELECT 1 WHERE 1 IN ({})", 20),
            format!("SELECT {}", nested("1", "map([1], [{}])", 12)),
            format!("SELECT {}", nested("nullif(1, 2)", "ifnull({}, 1)", 30)),
            format!("SELECT {}", nested(&format!("'{}'", "x".repeat(10_000)), "ifnull({}, 1)", 10)),
        ];
        for query in sub_queries {
            assert_eq!(checked(&query).await.unwrap_err().code(), "ATT-3002", "{query}");
        }
        for step in ["a + a", "CASE WHEN a > 1 THEN a ELSE a END"] {
            for around in [
                "SELECT * FROM ({}) AS x WHERE a > 1",
                "SELECT a, count(*) FROM ({}) AS x GROUP BY a HAVING a > 1",
                "SELECT * FROM (SELECT * FROM ({}) AS x UNION ALL SELECT 5) AS y WHERE a > 1",
                "SELECT * FROM ({}) AS x JOIN (SELECT 1 AS b) AS y ON x.a > y.b",
            ] {
                checked(&around.replace("{}", &chained(step, 5))).await.unwrap();
                let query = around.replace("{}", &chained(step, 20));
                assert_eq!(checked(&query).await.unwrap_err().code(), "ATT-3002", "{around}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_only_long_is_not() {
        let list = format!("SELECT 1 IN (0{})", ", 1".repeat(60_000));
        let rows = format!("SELECT * FROM (VALUES (0, 'a'){})", ", (1, 'b')".repeat(20_000));
        let ladder = format!("SELECT {}", nested("1", "CASE WHEN 1 = 2 THEN 1 ELSE {} END", 30));
        let condition = format!("SELECT 1 WHERE 1 = 1{}", " AND 1 BETWEEN 0 AND 2".repeat(500));
        let replaced = format!("SELECT {}", nested("'a'", "replace({}, 'a', 'b')", 30));
        for query in [list, rows, ladder, condition, replaced, chained("a + 1", 30)] {
            checked(&query).await.unwrap();
        }
    }
}
