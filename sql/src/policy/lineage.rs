//! Where the columns of a plan come from: of which columns of protected tables, and whether as they
//! are.

use std::collections::BTreeSet;

use catalog::ObjectName;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::error::Result;
use datafusion::logical_expr::{Aggregate, Distinct, Expr, Join, LogicalPlan, TableScan};

use crate::consent::tells_together;
use crate::subqueries::subquery;

/// A column of a protected table.
pub(super) type Origin = (ObjectName, String);

/// What a column comes of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Source {
    /// The columns of protected tables.
    pub(super) of: BTreeSet<Origin>,
    /// Whether it is the one column that it comes of, as it is.
    pub(super) plain: bool,
}

impl Source {
    /// The protected column that it is.
    pub(super) fn is(&self) -> Option<&Origin> {
        self.of.first().filter(|_| self.plain && self.of.len() == 1)
    }

    fn add(&mut self, other: Self) {
        self.of.extend(other.of);
        self.plain = false;
    }
}

/// Finds what columns come of; `names` tells which protected table a scan reads.
pub(super) struct Lineage<F>(pub(super) F);

impl<F: Fn(&TableScan) -> Option<ObjectName>> Lineage<F> {
    /// What each column of a plan comes of.
    ///
    /// # Errors
    /// When a plan cannot be walked.
    pub(super) fn of(&self, plan: &LogicalPlan) -> Result<Vec<Source>> {
        let width = plan.schema().fields().len();
        match plan {
            LogicalPlan::TableScan(scan) => Ok(self.scanned(scan)),
            LogicalPlan::Projection(node) => {
                let from = self.of(&node.input)?;
                node.expr.iter().map(|expr| self.made(expr, node.input.schema(), &from)).collect()
            }
            LogicalPlan::Aggregate(node) => self.aggregated(node),
            LogicalPlan::Join(node) => self.joined(node),
            LogicalPlan::Window(node) => {
                let mut sources = self.of(&node.input)?;
                for expr in &node.window_expr {
                    let made = self.computed(expr, node.input.schema(), &sources)?;
                    sources.push(made);
                }
                Ok(sources)
            }
            LogicalPlan::Union(node) => {
                let mut inputs = node.inputs.iter();
                let mut sources = match inputs.next() {
                    Some(first) => self.of(first)?,
                    None => vec![Source::default(); width],
                };
                for input in inputs {
                    for (source, other) in sources.iter_mut().zip(self.of(input)?) {
                        if *source != other {
                            source.add(other);
                        }
                    }
                }
                Ok(sources)
            }
            LogicalPlan::Filter(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Distinct(Distinct::All(_))
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Repartition(_) => match plan.inputs().as_slice() {
                [input] => self.of(input),
                _ => Ok(vec![Source::default(); width]),
            },
            other => {
                let mut all = Source::default();
                for input in other.inputs() {
                    self.of(input)?.into_iter().for_each(|source| all.add(source));
                }
                Ok(vec![all; width])
            }
        }
    }

    /// The protected tables that a plan reads, wherever.
    ///
    /// # Errors
    /// When a plan cannot be walked.
    pub(super) fn tables(&self, plan: &LogicalPlan) -> Result<BTreeSet<ObjectName>> {
        let mut tables = BTreeSet::new();
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                tables.extend((self.0)(scan));
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(tables)
    }

    /// Whether rows of a plan show single rows of a table. Those of groups do not, as long as no
    /// key is made of its columns of `persons`, and nothing shows a value of one row but of its
    /// columns of `times`. Groups without an aggregate are the rows, each of them once.
    ///
    /// # Errors
    /// When a plan cannot be walked.
    pub(super) fn shows_rows(
        &self,
        plan: &LogicalPlan,
        table: &ObjectName,
        times: &BTreeSet<&str>,
        persons: &BTreeSet<String>,
    ) -> Result<bool> {
        match plan {
            LogicalPlan::Aggregate(node) => {
                let (from, schema) = (self.of(&node.input)?, node.input.schema());
                let of_table = |(of, _): &&Origin| of == table;
                for key in &node.group_expr {
                    let source = self.computed(key, schema, &from)?;
                    let mut of = source.of.iter().filter(of_table).map(|(_, column)| column);
                    let is_all = node.aggr_expr.is_empty();
                    if of.any(|column| {
                        persons.contains(column) || (is_all && !times.contains(column.as_str()))
                    }) {
                        return Ok(true);
                    }
                }
                for expr in node.aggr_expr.iter().filter(|expr| !is_together(expr)) {
                    let source = self.computed(expr, schema, &from)?;
                    let mut of = source.of.iter().filter(of_table);
                    if of.any(|(_, column)| !times.contains(column.as_str())) {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            LogicalPlan::EmptyRelation(_) => Ok(false),
            LogicalPlan::Projection(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Union(_) => {
                if self.shows_beside(plan, table, times, persons)? {
                    return Ok(true);
                }
                for input in plan.inputs() {
                    if self.shows_rows(input, table, times, persons)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// Whether sub-queries among the values that a plan gives show single rows of a table.
    fn shows_beside(
        &self,
        plan: &LogicalPlan,
        table: &ObjectName,
        times: &BTreeSet<&str>,
        persons: &BTreeSet<String>,
    ) -> Result<bool> {
        let mut shows = false;
        // Conditions and orders give no value.
        if matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Sort(_)) {
            return Ok(false);
        }
        plan.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::ScalarSubquery(sub) = part {
                    let rows = sub.subquery.as_ref();
                    shows |= self.tables(rows)?.contains(table)
                        && self.shows_rows(rows, table, times, persons)?;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(shows)
    }

    fn scanned(&self, scan: &TableScan) -> Vec<Source> {
        let table = (self.0)(scan);
        let fields = scan.projected_schema.fields().iter();
        let source = |name: &String| match &table {
            Some(table) => Source { of: [(table.clone(), name.clone())].into(), plain: true },
            None => Source::default(),
        };
        fields.map(|field| source(field.name())).collect()
    }

    fn made(&self, expr: &Expr, schema: &DFSchema, from: &[Source]) -> Result<Source> {
        match expr {
            Expr::Alias(alias) => self.made(&alias.expr, schema, from),
            Expr::Column(column) => Ok(named(column, schema, from)),
            other => self.computed(other, schema, from),
        }
    }

    /// What is computed comes of everything that it names.
    fn computed(&self, expr: &Expr, schema: &DFSchema, from: &[Source]) -> Result<Source> {
        let mut source = Source::default();
        expr.apply(|part| {
            let sub = match part {
                Expr::Column(column) => {
                    source.add(named(column, schema, from));
                    None
                }
                Expr::AggregateFunction(call)
                    if ["count", "approx_distinct"].contains(&call.func.name()) =>
                {
                    return Ok(TreeNodeRecursion::Jump);
                }
                // Which column of the query around it is, is not looked for: all may be.
                Expr::OuterReferenceColumn(..) => {
                    from.iter().cloned().for_each(|outer| source.add(outer));
                    None
                }
                other => subquery(other),
            };
            if let Some(sub) = sub {
                self.of(&sub.subquery)?.into_iter().for_each(|inner| source.add(inner));
                for outer in outer_columns(&sub.subquery)? {
                    source.add(named(&outer, schema, from));
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(source)
    }

    fn aggregated(&self, node: &Aggregate) -> Result<Vec<Source>> {
        let from = self.of(&node.input)?;
        let schema = node.input.schema();
        let width = node.schema.fields().len().saturating_sub(node.aggr_expr.len());
        let mut sources: Vec<Source> = Vec::with_capacity(node.schema.fields().len());
        for key in &node.group_expr {
            sources.push(self.made(key, schema, &from)?);
        }
        if sources.len() != width {
            let mut all = Source::default();
            sources.drain(..).for_each(|source| all.add(source));
            sources = vec![all; width];
        }
        for expr in &node.aggr_expr {
            sources.push(self.computed(expr, schema, &from)?);
        }
        Ok(sources)
    }

    fn joined(&self, node: &Join) -> Result<Vec<Source>> {
        let left = self.of(&node.left)?;
        let mut right = self.of(&node.right)?;
        // A lateral right side may have any column of the left one.
        if reaches_out(&node.right)? {
            for source in &mut right {
                left.iter().cloned().for_each(|other| source.add(other));
            }
        }
        let mut compared = Source::default();
        left.iter().chain(&right).cloned().for_each(|source| compared.add(source));
        Ok(match node.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => left,
            JoinType::RightSemi | JoinType::RightAnti => right,
            JoinType::LeftMark => left.into_iter().chain([compared]).collect(),
            JoinType::RightMark => right.into_iter().chain([compared]).collect(),
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                left.into_iter().chain(right).collect()
            }
        })
    }
}

/// Whether an aggregate tells of all rows of a group together.
fn is_together(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => is_together(&alias.expr),
        Expr::AggregateFunction(call) => tells_together(call.func.name()),
        _ => false,
    }
}

/// Whether a plan names columns of a query around it.
fn reaches_out(plan: &LogicalPlan) -> Result<bool> {
    Ok(!outer_columns(plan)?.is_empty())
}

/// The columns of queries around it that a plan names, at any depth.
fn outer_columns(plan: &LogicalPlan) -> Result<BTreeSet<Column>> {
    let mut columns = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::OuterReferenceColumn(_, column) = part {
                    columns.insert(column.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(columns)
}

/// What a named column comes of; of all that it may be, where the name says no more.
fn named(column: &Column, schema: &DFSchema, from: &[Source]) -> Source {
    let found = schema.maybe_index_of_column(column).and_then(|at| from.get(at));
    found.cloned().unwrap_or_else(|| {
        let mut all = Source::default();
        from.iter().cloned().for_each(|source| all.add(source));
        all
    })
}
