//! Whether rows that are saved hold values of several rows of a governed table.
//!
//! A copy is governed as its source is where all that stands in a row of it comes of one row of the
//! source: what decides about the one decides about the other. Values of other rows come in by
//! reading the table a second time (a join with itself, a sub-query that gives a value, an
//! aggregate that is joined back), by windows that give values back, and by recursion. Readings
//! that agree in the one column that decides (the person, the time) are governed alike, and so is
//! what a window gives that is divided by it.
//!
//! Counts, sums and means tell of all rows together, and places (`row_number`, `rank`) of none;
//! what a condition says, true or false, is no value either. But of another reading whose rows the
//! own row picks ([`super::ties`]), or whose groups are not the ones that the own row is in,
//! counts, sums and means may be of a single row, and are values as others are: what these and
//! windows give is in `told.rs`. So they may where a place among rows, or a single value of others,
//! leaves few rows to them: what conditions do is in `asked.rs`, and what counts as a column of the
//! row in `formed.rs`. Values of a table that is not governed are of the governed rows that find
//! them.

mod asked;
mod formed;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::error::Result;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, Join, LogicalPlan, Operator, TableScan, Union,
    Values as Written,
};

use super::held::{Around, Held, cut, learn, lose_keys, named, rows, settled, sole};
use super::ties::{Origin, Ties, is_always, is_condition, is_of_no_table};
use crate::consent::tells_together;
use crate::model::evaluate::EvaluateNode;
use crate::private::PrivateNode;
use crate::subject::are_same_ids;

/// What a column of a governed table is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// Whether it is one of the values that are governed.
    pub(crate) is_value: bool,
    /// Whether the policy decides by it.
    pub(crate) is_key: bool,
    /// Whether rows that agree in it are governed alike.
    pub(crate) decides: bool,
}

/// Tells what a column of a scan is; `None` of tables that are not meant.
pub(crate) type Parts<'a> = &'a dyn Fn(&TableScan, &str) -> Option<Part>;

/// What the columns of a plan hold of the rows of a governed table.
pub(crate) struct Values {
    columns: Vec<Held>,
    ties: Ties,
}

impl Values {
    /// What a plan gives.
    ///
    /// # Errors
    /// When the plan cannot be walked.
    pub(crate) fn of(plan: &LogicalPlan, parts: Parts<'_>) -> Result<Self> {
        let ties = Ties::default();
        let columns = Walk { parts, ties: &ties, around: None }.of(plan)?;
        Ok(Self { columns, ties })
    }

    /// Whether each row holds values of one row alone, or of such as are governed alike, and these
    /// columns are what decides about it.
    pub(crate) fn are_of_one(&self, keys: &[usize]) -> bool {
        let read = self.read(keys);
        let is_its_own = |at: &usize| self.key(*at) == sole(&read);
        !self.has_others() && read.len() < 2 && (read.is_empty() || keys.iter().all(is_its_own))
    }

    /// Whether all values are of rows about which one of these columns decides.
    pub(crate) fn are_under(&self, keys: &[usize]) -> bool {
        let own: BTreeSet<usize> = keys.iter().filter_map(|at| self.key(*at)).collect();
        !self.has_others() && self.read(keys).is_subset(&own)
    }

    /// The readings of whose rows there are values, where these columns say whose a row is.
    fn read(&self, keys: &[usize]) -> BTreeSet<usize> {
        let keys = keys.iter().filter_map(|at| self.key(*at)).collect();
        rows(&settled(self.columns.clone(), keys, &self.ties))
    }

    fn key(&self, at: usize) -> Option<usize> {
        self.columns.get(at).and_then(|held| held.key)
    }

    fn has_others(&self) -> bool {
        self.columns.iter().any(|held| held.is_of_others)
    }
}

/// One of two sides that are equal.
struct Side {
    /// Its place; none for a column of a query around.
    at: Option<usize>,
    held: Held,
}

/// Follows values through plans.
struct Walk<'a> {
    parts: Parts<'a>,
    ties: &'a Ties,
    around: Option<&'a Around<'a>>,
}

impl Walk<'_> {
    fn of(&self, plan: &LogicalPlan) -> Result<Vec<Held>> {
        let width = plan.schema().fields().len();
        let mut columns = match plan {
            LogicalPlan::TableScan(scan) => self.scanned(scan),
            LogicalPlan::Projection(node) => self.projected(&node.input, &node.expr)?,
            LogicalPlan::Distinct(Distinct::On(on)) => {
                let from = self.of(&on.input)?;
                let sorts = on.sort_expr.iter().flatten().map(|sort| &sort.expr);
                self.pick(on.on_expr.iter().chain(sorts), on.input.schema(), &from)?;
                cut(self.each(&on.select_expr, on.input.schema(), &from)?)
            }
            LogicalPlan::Aggregate(node) => self.aggregated(node, width)?,
            LogicalPlan::Window(node) => {
                let from = self.of(&node.input)?;
                let made = self.each(&node.window_expr, node.input.schema(), &from)?;
                [from, made].concat()
            }
            LogicalPlan::Join(node) => self.joined(node)?,
            LogicalPlan::Filter(node) => {
                let mut columns = self.of(&node.input)?;
                self.equal(&node.predicate, node.input.schema(), &mut columns, None)?;
                columns.iter_mut().for_each(|held| held.free = None);
                columns
            }
            LogicalPlan::Union(node) => self.united(node, width)?,
            LogicalPlan::Values(node) => self.listed(node, width)?,
            LogicalPlan::Unnest(node) => {
                let from = self.of(&node.input)?;
                let of = node.dependency_indices.iter();
                of.map(|at| from.get(*at).cloned().unwrap_or_default()).collect()
            }
            LogicalPlan::RecursiveQuery(_) => {
                // Its rows are read again under a name that is no governed table's.
                let (_, mut all) = self.below(plan)?;
                all.is_of_others |= !all.rows.is_empty() || !all.told.is_empty();
                vec![all; width]
            }
            LogicalPlan::Sort(node) => {
                let from = self.of(&node.input)?;
                for sort in &node.expr {
                    self.pick([&sort.expr], node.input.schema(), &from)?;
                }
                from
            }
            LogicalPlan::Limit(node) => cut(self.of(&node.input)?),
            LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Repartition(_)
            | LogicalPlan::Distinct(Distinct::All(_)) => match plan.inputs().as_slice() {
                [input] => self.of(input)?,
                _ => vec![],
            },
            LogicalPlan::Extension(node)
                if node.node.as_any().downcast_ref::<PrivateNode>().is_some()
                    || node.node.as_any().downcast_ref::<EvaluateNode>().is_some() =>
            {
                vec![]
            }
            other => {
                // What it computes is not known: a column may be that of its name below, and rows
                // of one input may pick those of another.
                let (named, all) = self.below(other)?;
                if other.inputs().len() > 1 {
                    self.ties.pick(&all.near);
                }
                let fields = other.schema().fields().iter();
                fields.map(|field| named.get(field.name()).unwrap_or(&all).clone()).collect()
            }
        };
        columns.resize(width, Held::default());
        if is_of_no_table(plan) {
            self.ties.stand(&mut columns);
        }
        Ok(columns)
    }

    /// What is below a plan, by names and all of it.
    fn below(&self, plan: &LogicalPlan) -> Result<(BTreeMap<String, Held>, Held)> {
        let (mut named, mut all) = (BTreeMap::new(), Held::default());
        for input in plan.inputs() {
            for (field, held) in input.schema().fields().iter().zip(self.of(input)?) {
                all.add(&held);
                named.entry(field.name().clone()).or_insert(held);
            }
        }
        Ok((named, all))
    }

    /// What a plan gives that may name columns of one around it.
    fn within(&self, plan: &LogicalPlan, schema: &DFSchema, columns: &[Held]) -> Result<Vec<Held>> {
        let around = Around { schema, columns, beyond: self.around };
        let walk = Walk { parts: self.parts, ties: self.ties, around: Some(&around) };
        walk.of(plan)
    }

    fn scanned(&self, scan: &TableScan) -> Vec<Held> {
        let (reading, table) = (self.ties.next_reading(), scan.table_name.to_string());
        let fields = scan.projected_schema.fields().iter();
        let held = fields.map(|field| {
            let near = BTreeSet::from([reading]);
            let column = format!("{:?}", field.name());
            let origin = Some(Origin { reading, table: table.clone(), column });
            let Some(part) = (self.parts)(scan, field.name()) else {
                return Held { near, free: origin, ..Held::default() };
            };
            Held {
                rows: part.is_value.then_some(reading).into_iter().collect(),
                key: part.is_key.then_some(reading),
                decides: part.is_key && part.decides,
                near,
                column: origin,
                ..Held::default()
            }
        });
        held.collect()
    }

    fn projected(&self, input: &LogicalPlan, exprs: &[Expr]) -> Result<Vec<Held>> {
        let from = self.of(input)?;
        self.each(exprs, input.schema(), &from)
    }

    fn each(&self, exprs: &[Expr], schema: &DFSchema, from: &[Held]) -> Result<Vec<Held>> {
        exprs.iter().map(|expr| self.made(expr, schema, from)).collect()
    }

    /// Rows that the query writes, of whose values some may be of sub-queries.
    fn listed(&self, node: &Written, width: usize) -> Result<Vec<Held>> {
        let mut columns = vec![Held::default(); width];
        for row in &node.values {
            for (held, value) in columns.iter_mut().zip(row) {
                held.add(&self.made(value, &node.schema, &[])?);
            }
        }
        Ok(columns)
    }

    fn aggregated(&self, node: &Aggregate, width: usize) -> Result<Vec<Held>> {
        let (from, schema) = (self.of(&node.input)?, node.input.schema());
        let mut columns = self.each(&node.group_expr, schema, &from)?;
        let groups = width.saturating_sub(node.aggr_expr.len());
        // Sets of keys have columns of their own, in which a key may be NULL.
        if columns.len() != groups {
            let mut all = Held::default();
            columns.iter().for_each(|held| all.add(held));
            columns = vec![all; groups];
        }
        let mut told = self.each(&node.aggr_expr, schema, &from)?;
        told.iter_mut().for_each(|held| held.divide(&columns));
        // One row: of the aggregates that give a value, it is a single one.
        if columns.iter().all(|key| key.near.is_empty()) {
            told.iter_mut().for_each(Held::be_one);
        }
        columns.extend(told);
        Ok(columns)
    }

    /// The parts of a UNION are rows by themselves: where those of each are of one reading, so are
    /// all.
    fn united(&self, node: &Union, width: usize) -> Result<Vec<Held>> {
        let parts = node.inputs.iter().map(|input| self.of(input));
        let mut parts = parts.collect::<Result<Vec<Vec<Held>>>>()?;
        let mut columns = vec![Held::default(); width];
        for part in &parts {
            let near = part.iter().map(|held| &held.near);
            near.zip(&mut columns).for_each(|(near, into)| into.near.extend(near));
        }
        parts.retain(|part| part.iter().any(Held::is_governed));
        let parts = parts.into_iter().map(|part| settled(part, BTreeSet::new(), self.ties));
        let parts: Vec<Vec<Held>> = parts.collect();
        let all: BTreeSet<usize> = parts.iter().flat_map(|part| rows(part)).collect();
        let reading = sole(&all).unwrap_or_else(|| self.ties.next_reading());
        let mut keys = vec![(!parts.is_empty(), true); width];
        for part in &parts {
            let read = rows(part);
            for ((held, into), (is_keyed, decides)) in part.iter().zip(&mut columns).zip(&mut keys)
            {
                if !held.rows.is_empty() {
                    into.rows.insert(reading);
                    into.is_of_others |= held.is_of_others || read.len() > 1;
                }
                // Which of its groups a part gives is not told of all parts.
                if !held.told.is_empty() {
                    into.told.entry(reading).or_default().insert(None);
                }
                if !held.via.is_empty() {
                    into.via.entry(reading).or_default().insert(None);
                }
                for (from, to) in [
                    (&held.cut, &mut into.cut),
                    (&held.one, &mut into.one),
                    (&held.places, &mut into.places),
                ] {
                    if !from.is_empty() {
                        to.insert(reading);
                    }
                }
                let mut of = held.rows.iter().chain(held.told.keys());
                if of.any(|of| self.ties.is_few(*of)) {
                    self.ties.leave(&BTreeSet::from([reading]));
                }
                self.ties.agree(&BTreeSet::from([reading]), &held.near);
                *is_keyed &= held.key.is_some() && (read.is_empty() || held.key == sole(&read));
                *decides &= held.decides;
            }
        }
        for (held, (is_keyed, decides)) in columns.iter_mut().zip(keys) {
            held.key = is_keyed.then_some(reading);
            held.decides = is_keyed && decides;
        }
        Ok(columns)
    }

    fn joined(&self, node: &Join) -> Result<Vec<Held>> {
        let left = self.of(&node.left)?;
        let right = match node.right.all_out_ref_exprs().is_empty() {
            true => self.of(&node.right)?,
            false => self.within(&node.right, node.left.schema(), &left)?,
        };
        let width = left.len();
        let shows_both = matches!(
            node.join_type,
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full
        );
        let mut both: Vec<Held> = left.into_iter().chain(right).collect();
        match node.left.schema().join(node.right.schema()) {
            Ok(schema) if shows_both => {
                let join = Some((node.join_type, width));
                for (one, other) in &node.on {
                    self.alike(one, other, &schema, &mut both, join)?;
                }
                if let Some(filter) = &node.filter {
                    self.equal(filter, &schema, &mut both, join)?;
                }
            }
            Ok(schema) => {
                for (one, other) in &node.on {
                    self.pick([one, other], &schema, &both)?;
                }
                let picking = self.weighed(&node.filter, &schema, &both)?;
                self.ties.pick(&picking);
            }
            // Both sides call their columns alike.
            Err(_) => self.ties.pick(&both.iter().flat_map(|held| &held.near).copied().collect()),
        }
        let mut right = both.split_off(width);
        let mut left = both;
        if matches!(node.join_type, JoinType::Left | JoinType::Full) {
            lose_keys(&mut right, &left);
        }
        if matches!(node.join_type, JoinType::Right | JoinType::Full) {
            lose_keys(&mut left, &right);
        }
        Ok(match node.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => left,
            JoinType::RightSemi | JoinType::RightAnti => right,
            JoinType::LeftMark => left.into_iter().chain([Held::default()]).collect(),
            JoinType::RightMark => right.into_iter().chain([Held::default()]).collect(),
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                left.into_iter().chain(right).collect()
            }
        })
    }

    /// Follows what a condition says to be equal: of a join, with the width of its left side. What
    /// else it compares picks rows.
    fn equal(
        &self,
        condition: &Expr,
        schema: &DFSchema,
        columns: &mut [Held],
        join: Option<(JoinType, usize)>,
    ) -> Result<()> {
        for part in split_conjunction(condition) {
            match part {
                Expr::BinaryExpr(binary) if binary.op == Operator::Eq => {
                    self.alike(&binary.left, &binary.right, schema, columns, join)?;
                }
                other => self.choose(&[other], schema, columns, join)?,
            }
        }
        Ok(())
    }

    fn alike(
        &self,
        one: &Expr,
        other: &Expr,
        schema: &DFSchema,
        columns: &mut [Held],
        join: Option<(JoinType, usize)>,
    ) -> Result<()> {
        let sides = (self.side(one, schema, columns), self.side(other, schema, columns));
        let types = (one.get_type(schema), other.get_type(schema));
        let (Some(one_side), Some(other_side), (Ok(one_type), Ok(other_type))) =
            (sides.0, sides.1, types)
        else {
            if self.are_formed_alike(one, other, schema, columns, join)? {
                return Ok(());
            }
            return self.choose(&[one, other], schema, columns, join);
        };
        // What is compared as another type may be equal without being the same.
        let are_same = are_same_ids(&one_type, &other_type) && are_same_ids(&other_type, &one_type);
        let is_always = is_always(one_side.at, other_side.at, join).filter(|_| are_same);
        let Some(is_always) = is_always else {
            return self.choose(&[one, other], schema, columns, join);
        };
        self.leave(&self.asked([one, other], schema, columns)?, true);
        let (one, other) = (one_side, other_side);
        // What a sub-query compares of queries around alone picks rows of these, or keeps them out.
        let is_outer = one.at.is_none() && other.at.is_none();
        let are_looked_up = !is_outer && self.ties.share_looked(&one.held, &other.held);
        let looks_up = !are_looked_up && self.equate(&one, &other, columns, join);
        let decides = |side: &Side| side.held.key.filter(|_| side.held.decides);
        let is_shared = !is_outer && self.ties.share(&one.held, &other.held);
        if is_shared
            || are_looked_up
            || looks_up
            || (decides(&one).is_some() && decides(&other).is_some())
        {
            self.ties.agree(&one.held.near, &other.held.near);
        } else {
            self.ties.pick(&(&one.held.near | &other.held.near));
        }
        match (decides(&one), decides(&other)) {
            (Some(a), Some(b)) if a != b => {
                if self.ties.is_few(a) || self.ties.is_few(b) {
                    self.ties.leave(&BTreeSet::from([a, b]));
                }
                for held in columns {
                    // Rows around are called what they are called there.
                    match (one.at, other.at) {
                        (None, _) => held.rename(b, a),
                        (_, None) => held.rename(a, b),
                        _ => held.rename(a.max(b), a.min(b)),
                    }
                }
            }
            (Some(key), None) if is_always && other.held.key.is_none() => {
                learn(other.at, key, columns);
            }
            (None, Some(key)) if is_always && one.held.key.is_none() => {
                learn(one.at, key, columns);
            }
            _ => {}
        }
        Ok(())
    }

    fn side(&self, expr: &Expr, schema: &DFSchema, columns: &[Held]) -> Option<Side> {
        match expr {
            Expr::Alias(alias) => self.side(&alias.expr, schema, columns),
            Expr::Column(column) => {
                let at = schema.maybe_index_of_column(column)?;
                Some(Side { at: Some(at), held: columns.get(at)?.clone() })
            }
            Expr::OuterReferenceColumn(_, column) => {
                Some(Side { at: None, held: self.outer(column) })
            }
            _ => None,
        }
    }

    fn outer(&self, column: &Column) -> Held {
        self.around.map(|around| around.held(column)).unwrap_or_default()
    }

    /// What an expression holds.
    fn made(&self, expr: &Expr, schema: &DFSchema, from: &[Held]) -> Result<Held> {
        match expr {
            Expr::Alias(alias) => self.made(&alias.expr, schema, from),
            Expr::Column(column) => Ok(named(column, schema, from)),
            Expr::Cast(cast) => {
                let mut held = self.made(&cast.expr, schema, from)?;
                let of = cast.expr.get_type(schema);
                // Several may become the same.
                if !of.is_ok_and(|of| are_same_ids(&of, cast.field.data_type())) {
                    held.lose_key();
                }
                held.forget_column();
                held.column = self.formed(expr, schema, from);
                Ok(held)
            }
            Expr::OuterReferenceColumn(_, column) => Ok(self.outer(column)),
            Expr::WindowFunction(call) => self.windowed(call, schema, from),
            other => {
                let mut held = self.computed(other, schema, from)?;
                held.column = self.formed(other, schema, from);
                Ok(held)
            }
        }
    }

    fn computed(&self, expr: &Expr, schema: &DFSchema, from: &[Held]) -> Result<Held> {
        let mut all = Held::default();
        expr.apply(|part| {
            match part {
                Expr::Column(column) => all.add(&named(column, schema, from)),
                Expr::OuterReferenceColumn(_, column) => {
                    all.add(&self.outer(column));
                }
                Expr::ScalarSubquery(sub) => {
                    let mut inner = self.within(&sub.subquery, schema, from)?;
                    inner.iter_mut().for_each(Held::be_one);
                    inner.iter().for_each(|held| all.add(held));
                }
                Expr::Case(case) => {
                    let values = case.when_then_expr.iter().map(|(_, then)| then);
                    for value in values.chain(&case.else_expr) {
                        all.add(&self.made(value, schema, from)?);
                    }
                    let whens = case.when_then_expr.iter().map(|(when, _)| when.as_ref());
                    let asked = whens.chain(case.expr.as_deref());
                    all.near.extend(self.weighed(asked, schema, from)?);
                    return Ok(TreeNodeRecursion::Jump);
                }
                Expr::WindowFunction(call) => {
                    all.add(&self.windowed(call, schema, from)?);
                    return Ok(TreeNodeRecursion::Jump);
                }
                Expr::AggregateFunction(call) if tells_together(call.func.name()) => {
                    let params = &call.params;
                    let order = params.order_by.iter().map(|sort| &sort.expr);
                    let of = params.args.iter().chain(params.filter.as_deref()).chain(order);
                    all.add(&self.together(of, schema, from)?);
                    return Ok(TreeNodeRecursion::Jump);
                }
                part if is_condition(part) => {
                    all.near.extend(self.weighed([part], schema, from)?);
                    return Ok(TreeNodeRecursion::Jump);
                }
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(all)
    }
}
