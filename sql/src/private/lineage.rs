//! Whether each row of a query is of one privacy unit alone, and which column says of whom.
//!
//! A person is protected when all that the person has in the tables can be taken out of the
//! aggregation's input by taking out the rows with the person's id. So the plan is followed from
//! its tables upward: what keeps rows of different units apart is let through; what mixes them — a
//! join that is not on the unit, a limit, an aggregate over units, a sub-query in a condition — is
//! refused. Tables without units are public, and may be joined in any way.
//!
//! The tables with units are those under a privacy policy. Where there are none, it is the table
//! that the unit's column comes from.

use std::collections::BTreeSet;
use std::sync::Arc;

use catalog::ObjectName;
use catalog::privacy_policies::PrivacyPolicy;
use catalog::subjects::Crosswalk;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, JoinType};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, Join, LogicalPlan, Operator, Projection, TableScan,
    Window,
};

use crate::error::{Error, Result};
use crate::private::guard::{Protected, protected};
use crate::private::node::PrivateNode;
use crate::private::options::{Contributions, Selection, Spec};

/// The tables under a policy whose rows decide what a plan gives.
pub(crate) type Policies = Vec<(ObjectName, Arc<PrivacyPolicy>)>;

/// Checks the input of a private aggregation, whose first columns are the unit and the groups.
/// Gives the policies of the tables it reads, and of those that tell their persons.
///
/// # Errors
/// When rows of several units mix, the unit's column is not that of the tables, or it is masked.
pub(crate) fn check(plan: &LogicalPlan, spec: &Spec) -> Result<Policies> {
    alone(plan)?;
    let policies = policies(plan)?;
    let base = match policies.is_empty() {
        true => Some(origin(plan, 0).ok_or_else(|| {
            Error::invalid_hint(
                format!("{} is no column of a table", spec.options.unit),
                "privacy_unit_column names the column of a table that tells whose row it is",
            )
        })?),
        false => None,
    };
    if origin(plan, 0).is_some_and(|of| is_other_column(&of, &policies)) {
        return Err(untold(spec, &policies));
    }
    let lineage = Lineage { base };
    let rows = match spec.options.selection {
        Selection::Threshold if lineage.loses_unit(plan, spec)? => {
            return Err(untold(spec, &policies));
        }
        Selection::Threshold => lineage.rows(plan)?,
        Selection::Public => lineage.with_public_groups(plan, spec.groups)?,
    };
    match rows {
        Rows::Private(units) if units.contains(&0) => Ok(policies),
        _ => Err(untold(spec, &policies)),
    }
}

/// Whether a column of a table under a policy is another than that of its units.
fn is_other_column(of: &Base, policies: &Policies) -> bool {
    let table = of.table.downcast_ref::<Protected>();
    table.is_some_and(|table| table.policy().unit_column != of.column) && !policies.is_empty()
}

fn untold(spec: &Spec, policies: &Policies) -> Error {
    Error::invalid_hint(
        format!("{} does not tell whose rows these are", spec.options.unit),
        unit_hint(policies),
    )
}

/// Refuses an input that depends on a row of a query around it: it would be computed anew, and
/// charged anew, for each of them.
fn alone(plan: &LogicalPlan) -> Result<()> {
    let mut depends = false;
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                depends |= matches!(expr, Expr::OuterReferenceColumn(..));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match depends {
        false => Ok(()),
        true => Err(Error::unsupported(
            "a private SELECT cannot depend on the rows of a query around it",
            "group by the column, and join with what is released",
        )),
    }
}

fn unit_hint(policies: &Policies) -> String {
    match policies.first() {
        Some((table, policy)) => {
            format!("the privacy unit of {table} is its column {}", policy.unit_column)
        }
        None => "name the column of the table that tells whose row it is".into(),
    }
}

/// The policies of a plan's tables, whose persons are told in one way.
fn policies(plan: &LogicalPlan) -> Result<Policies> {
    let mut found = Policies::new();
    let mut told_by: Option<(ObjectName, Option<Crosswalk>)> = None;
    plan.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(provider) = protected(scan)
            && let Some(table) = provider.downcast_ref::<Protected>()
        {
            table.check_unit()?;
            match &told_by {
                Some((other, via)) if via.as_ref() != table.via() => {
                    return Err(two_kinds(other, table.name()).into());
                }
                Some(_) => {}
                None => told_by = Some((table.name().clone(), table.via().cloned())),
            }
            for (name, policy) in table.charged() {
                if !found.iter().any(|(known, _)| known == name) {
                    found.push((name.clone(), Arc::clone(policy)));
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Of two crosswalks, or of one and none, a person would have two units.
fn two_kinds(one: &ObjectName, other: &ObjectName) -> Error {
    Error::invalid_hint(
        format!("{one} and {other} do not tell persons by the same crosswalk"),
        "ask of one of them at a time, or put both under privacy policies of one subject",
    )
}

/// A table and its column.
struct Base {
    table: Arc<dyn TableProvider>,
    column: String,
}

/// The table's column that a plan's column is.
fn origin(plan: &LogicalPlan, index: usize) -> Option<Base> {
    match plan {
        LogicalPlan::TableScan(scan) => Some(Base {
            table: source_as_provider(&scan.source).ok()?,
            column: scan.projected_schema.fields().get(index)?.name().clone(),
        }),
        LogicalPlan::Projection(node) => {
            origin(&node.input, column_index(node.expr.get(index)?, node.input.schema())?)
        }
        LogicalPlan::Aggregate(node) => {
            origin(&node.input, column_index(node.group_expr.get(index)?, node.input.schema())?)
        }
        LogicalPlan::Join(join) => {
            let left = join.left.schema().fields().len();
            match join.join_type {
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                    origin(&join.right, index)
                }
                _ if index < left => origin(&join.left, index),
                _ => origin(&join.right, index - left),
            }
        }
        LogicalPlan::Filter(node) => origin(&node.input, index),
        LogicalPlan::SubqueryAlias(node) => origin(&node.input, index),
        LogicalPlan::Sort(node) => origin(&node.input, index),
        LogicalPlan::Window(node) => origin(&node.input, index),
        LogicalPlan::Distinct(Distinct::All(input)) => origin(input, index),
        LogicalPlan::Limit(node) => origin(&node.input, index),
        _ => None,
    }
}

/// The input's column that an expression is, perhaps under another name.
fn column_index(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => column_index(&alias.expr, schema),
        _ => None,
    }
}

/// What is known of the rows of a plan.
enum Rows {
    /// They are of nobody.
    Public,
    /// Each is of one unit, which these columns tell.
    Private(BTreeSet<usize>),
}

struct Lineage {
    base: Option<Base>,
}

impl Lineage {
    /// Whether what a query sums up by unit and group has no column of units left.
    fn loses_unit(&self, plan: &LogicalPlan, spec: &Spec) -> Result<bool> {
        let (Contributions::Groups(_), Some(own)) =
            (spec.options.contributions, outer_aggregate(plan))
        else {
            return Ok(false);
        };
        Ok(match self.rows(&own.input)? {
            Rows::Public => false,
            Rows::Private(units) => kept(&own.group_expr, own.input.schema(), &units).is_empty(),
        })
    }

    fn rows(&self, plan: &LogicalPlan) -> Result<Rows> {
        self.no_private_subqueries(plan)?;
        match plan {
            LogicalPlan::TableScan(scan) => Ok(self.table(scan)),
            LogicalPlan::Projection(node) => self.projection(node),
            LogicalPlan::Aggregate(node) => self.aggregate(node),
            LogicalPlan::Window(node) => self.window(node),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Filter(node) => self.rows(&node.input),
            LogicalPlan::SubqueryAlias(node) => self.rows(&node.input),
            LogicalPlan::Distinct(Distinct::All(input)) => self.rows(input),
            LogicalPlan::Sort(node) if node.fetch.is_none() => self.rows(&node.input),
            LogicalPlan::Unnest(node) => Ok(match self.rows(&node.input)? {
                Rows::Public => Rows::Public,
                Rows::Private(units) => {
                    let unnested: BTreeSet<usize> =
                        node.list_type_columns.iter().map(|(index, _)| *index).collect();
                    let kept = node.dependency_indices.iter().enumerate();
                    let kept = kept
                        .filter(|(_, from)| units.contains(*from) && !unnested.contains(*from))
                        .map(|(index, _)| index);
                    Rows::Private(kept.collect())
                }
            }),
            LogicalPlan::Union(node) => {
                let inputs: Vec<&LogicalPlan> = node.inputs.iter().map(Arc::as_ref).collect();
                self.union(&inputs)
            }
            // What a private aggregation gives is released already.
            LogicalPlan::Extension(node)
                if node.node.as_any().downcast_ref::<PrivateNode>().is_some() =>
            {
                Ok(Rows::Public)
            }
            other => self.public_alone(other),
        }
    }

    fn table(&self, scan: &TableScan) -> Rows {
        let unit_of = |column: &str| -> BTreeSet<usize> {
            let fields = scan.projected_schema.fields().iter().enumerate();
            fields.filter(|(_, field)| field.name() == column).map(|(at, _)| at).collect()
        };
        if let Some(provider) = protected(scan)
            && let Some(table) = provider.downcast_ref::<Protected>()
        {
            return Rows::Private(unit_of(&table.policy().unit_column));
        }
        match (&self.base, source_as_provider(&scan.source)) {
            (Some(base), Ok(table)) if Arc::ptr_eq(&base.table, &table) => {
                Rows::Private(unit_of(&base.column))
            }
            _ => Rows::Public,
        }
    }

    /// Nothing private may stand below.
    fn public_alone(&self, plan: &LogicalPlan) -> Result<Rows> {
        for input in plan.inputs() {
            if let Rows::Private(_) = self.rows(input)? {
                let what = plan.display().to_string();
                let what = what.split([':', ' ']).next().unwrap_or_default().to_owned();
                return Err(mixed(&format!("{what} of their rows"), "leave it out"));
            }
        }
        Ok(Rows::Public)
    }

    fn no_private_subqueries(&self, plan: &LogicalPlan) -> Result<()> {
        let mut subqueries = Vec::new();
        plan.apply_subqueries(|subquery| {
            subqueries.push(subquery.clone());
            Ok(TreeNodeRecursion::Continue)
        })?;
        for subquery in &subqueries {
            let LogicalPlan::Subquery(inner) = subquery else { continue };
            if !matches!(self.rows(&inner.subquery), Ok(Rows::Public)) {
                return Err(mixed(
                    "a sub-query over rows of persons",
                    "join the tables on the privacy unit instead",
                ));
            }
        }
        Ok(())
    }

    fn projection(&self, node: &Projection) -> Result<Rows> {
        let Rows::Private(units) = self.rows(&node.input)? else { return Ok(Rows::Public) };
        Ok(Rows::Private(kept(&node.expr, node.input.schema(), &units)))
    }

    fn aggregate(&self, node: &Aggregate) -> Result<Rows> {
        let Rows::Private(units) = self.rows(&node.input)? else { return Ok(Rows::Public) };
        let units = kept(&node.group_expr, node.input.schema(), &units);
        match units.is_empty() {
            false => Ok(Rows::Private(units)),
            true => Err(mixed(
                "an aggregate over several persons in FROM",
                "add the privacy unit to its GROUP BY",
            )),
        }
    }

    fn window(&self, node: &Window) -> Result<Rows> {
        let Rows::Private(units) = self.rows(&node.input)? else { return Ok(Rows::Public) };
        let is_unit = |expr: &Expr| {
            column_index(expr, node.input.schema()).is_some_and(|index| units.contains(&index))
        };
        let mut apart = true;
        for expr in &node.window_expr {
            expr.apply(|expr| {
                if let Expr::WindowFunction(function) = expr {
                    apart &= function.params.partition_by.iter().any(is_unit);
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        match apart {
            true => Ok(Rows::Private(units)),
            false => Err(mixed(
                "a window over several persons",
                "add the privacy unit to its PARTITION BY",
            )),
        }
    }

    fn union(&self, inputs: &[&LogicalPlan]) -> Result<Rows> {
        let mut public = false;
        let mut common: Option<BTreeSet<usize>> = None;
        for input in inputs {
            let Rows::Private(units) = self.rows(input)? else {
                public = true;
                continue;
            };
            common = Some(match common {
                None => units,
                Some(known) => known.intersection(&units).copied().collect(),
            });
        }
        match (public, common) {
            (_, None) => Ok(Rows::Public),
            (false, Some(units)) => Ok(Rows::Private(units)),
            (true, Some(_)) => {
                Err(mixed("a UNION of persons' rows and others", "count them in two queries"))
            }
        }
    }

    fn join(&self, join: &Join) -> Result<Rows> {
        use JoinType::{
            Full, Inner, Left, LeftAnti, LeftMark, LeftSemi, Right, RightAnti, RightMark, RightSemi,
        };
        let offset = join.left.schema().fields().len();
        let behind = |units: BTreeSet<usize>| units.into_iter().map(move |unit| unit + offset);
        match (self.rows(&join.left)?, self.rows(&join.right)?, join.join_type) {
            (Rows::Public, Rows::Public, _) => Ok(Rows::Public),
            (Rows::Private(left), Rows::Private(right), kind) => {
                if !is_on_unit(join, &left, &right) {
                    return Err(mixed(
                        "a join of two tables with persons that is not on the person",
                        "join them ON a.unit = b.unit, each with its privacy unit",
                    ));
                }
                match kind {
                    Inner => Ok(Rows::Private(left.into_iter().chain(behind(right)).collect())),
                    Left | LeftSemi | LeftAnti | LeftMark => Ok(Rows::Private(left)),
                    Right => Ok(Rows::Private(behind(right).collect())),
                    RightSemi | RightAnti | RightMark => Ok(Rows::Private(right)),
                    Full => Err(outer()),
                }
            }
            (Rows::Private(left), Rows::Public, kind) => match kind {
                Inner | Left | LeftSemi | LeftAnti | LeftMark => Ok(Rows::Private(left)),
                Right | Full | RightSemi | RightAnti | RightMark => Err(outer()),
            },
            (Rows::Public, Rows::Private(right), kind) => match kind {
                Inner | Right => Ok(Rows::Private(behind(right).collect())),
                RightSemi | RightAnti | RightMark => Ok(Rows::Private(right)),
                Left | Full | LeftSemi | LeftAnti | LeftMark => Err(outer()),
            },
        }
    }

    /// The input where groups are those of a public table: it stands at the outer side of a join,
    /// with nothing above that could take groups away by what persons have.
    fn with_public_groups(&self, plan: &LogicalPlan, groups: usize) -> Result<Rows> {
        let wrong = || {
            Error::invalid_hint(
                "public groups come from a public table at the outer side of a join",
                "write FROM (SELECT DISTINCT item FROM products) AS p LEFT JOIN (SELECT … FROM t \
                 WHERE …) AS t ON p.item = t.item GROUP BY p.item",
            )
        };
        let mut columns: Vec<usize> = (0..=groups).collect();
        let mut plan = plan;
        let join = loop {
            let (input, exprs): (&LogicalPlan, Option<&[Expr]>) = match plan {
                LogicalPlan::Projection(node) => (node.input.as_ref(), Some(node.expr.as_slice())),
                LogicalPlan::Aggregate(node) => {
                    (node.input.as_ref(), Some(node.group_expr.as_slice()))
                }
                LogicalPlan::SubqueryAlias(node) => (node.input.as_ref(), None),
                LogicalPlan::Join(join) => break join,
                _ => return Err(wrong()),
            };
            self.no_private_subqueries(plan)?;
            if let Some(exprs) = exprs {
                for column in &mut columns {
                    let expr = exprs.get(*column).ok_or_else(wrong)?;
                    *column = column_index(expr, input.schema()).ok_or_else(wrong)?;
                }
            }
            plan = input;
        };
        self.no_private_subqueries(plan)?;
        let offset = join.left.schema().fields().len();
        let (public, private, is_outer_left) = match join.join_type {
            JoinType::Left => (&join.left, &join.right, true),
            JoinType::Right => (&join.right, &join.left, false),
            _ => return Err(wrong()),
        };
        let Rows::Public = self.rows(public)? else { return Err(wrong()) };
        let Rows::Private(units) = self.rows(private)? else { return Err(wrong()) };
        let is_public = |column: &usize| (*column < offset) == is_outer_left;
        let Some((unit, groups)) = columns.split_first() else { return Err(wrong()) };
        if is_public(unit) || !groups.iter().all(is_public) {
            return Err(wrong());
        }
        let at = if is_outer_left { unit - offset } else { *unit };
        // The unit is the first of the input's columns.
        Ok(Rows::Private(units.contains(&at).then_some(0).into_iter().collect()))
    }
}

/// The aggregation that a private SELECT itself asks for.
fn outer_aggregate(plan: &LogicalPlan) -> Option<&Aggregate> {
    match plan {
        LogicalPlan::Aggregate(node) => Some(node),
        LogicalPlan::Projection(node) => outer_aggregate(&node.input),
        LogicalPlan::SubqueryAlias(node) => outer_aggregate(&node.input),
        _ => None,
    }
}

/// The places at which expressions are columns of units.
fn kept(exprs: &[Expr], schema: &DFSchema, units: &BTreeSet<usize>) -> BTreeSet<usize> {
    let of_unit = |expr: &Expr| column_index(expr, schema).is_some_and(|at| units.contains(&at));
    exprs.iter().enumerate().filter(|(_, expr)| of_unit(expr)).map(|(at, _)| at).collect()
}

fn is_on_unit(join: &Join, left: &BTreeSet<usize>, right: &BTreeSet<usize>) -> bool {
    let is = |expr: &Expr, side: &LogicalPlan, units: &BTreeSet<usize>| {
        column_index(expr, side.schema()).is_some_and(|index| units.contains(&index))
    };
    let pair = |one: &Expr, other: &Expr| {
        (is(one, &join.left, left) && is(other, &join.right, right))
            || (is(other, &join.left, left) && is(one, &join.right, right))
    };
    let mut conditions = join.filter.iter().flat_map(split_conjunction);
    join.on.iter().any(|(one, other)| pair(one, other))
        || conditions.any(|condition| match condition {
            Expr::BinaryExpr(BinaryExpr { left: one, op: Operator::Eq, right: other }) => {
                pair(one, other)
            }
            _ => false,
        })
}

fn mixed(what: &str, hint: &str) -> Error {
    Error::invalid_hint(
        format!("{what} would let one person change what is counted of others"),
        hint.to_owned(),
    )
}

fn outer() -> Error {
    Error::invalid_hint(
        "rows of a public table that stand for persons who are not there are not private",
        "use an inner join, or group_selection_strategy = PUBLIC_GROUPS",
    )
}
