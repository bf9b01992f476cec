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
//! what a condition says, true or false, is no value either.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType};
use datafusion::error::Result;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, Join, LogicalPlan, Operator, TableScan, Union, Values as Written,
};

use crate::consent::tells_together;
use crate::model::evaluate::EvaluateNode;
use crate::operators::is_comparison;
use crate::private::PrivateNode;

/// Windows that give the place of a row, and no value of one.
const PLACES: [&str; 6] =
    ["cume_dist", "dense_rank", "ntile", "percent_rank", "rank", "row_number"];

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
pub(crate) struct Values(Vec<Held>);

impl Values {
    /// What a plan gives.
    ///
    /// # Errors
    /// When the plan cannot be walked.
    pub(crate) fn of(plan: &LogicalPlan, parts: Parts<'_>) -> Result<Self> {
        let readings = Cell::new(0);
        Ok(Self(Walk { parts, readings: &readings, around: None }.of(plan)?))
    }

    /// Whether each row holds values of one row alone, or of such as are governed alike, and these
    /// columns are what decides about it.
    pub(crate) fn are_of_one(&self, keys: &[usize]) -> bool {
        let read = rows(&self.0);
        let is_its_own = |at: &usize| self.0.get(*at).is_some_and(|held| held.key == sole(&read));
        !self.has_others() && read.len() < 2 && (read.is_empty() || keys.iter().all(is_its_own))
    }

    /// Whether all values are of rows about which one of these columns decides.
    pub(crate) fn are_under(&self, keys: &[usize]) -> bool {
        let keys: BTreeSet<usize> =
            keys.iter().filter_map(|at| self.0.get(*at).and_then(|held| held.key)).collect();
        !self.has_others() && rows(&self.0).is_subset(&keys)
    }

    fn has_others(&self) -> bool {
        self.0.iter().any(|held| held.is_of_others)
    }
}

/// What a column holds.
#[derive(Debug, Clone, Default)]
struct Held {
    /// The readings of whose rows it may hold values.
    rows: BTreeSet<usize>,
    /// Whether these may be of other rows of a reading than the one whose row it is.
    is_of_others: bool,
    /// The reading of whose rows it is what the policy decides by.
    key: Option<usize>,
    /// Whether rows that agree in it are governed alike.
    decides: bool,
}

impl Held {
    /// Adds what something else is computed of as well.
    fn add(&mut self, other: &Self) {
        self.rows.extend(&other.rows);
        self.is_of_others |= other.is_of_others;
        self.lose_key();
    }

    fn lose_key(&mut self) {
        self.key = None;
        self.decides = false;
    }

    fn rename(&mut self, from: usize, to: usize) {
        if self.rows.remove(&from) {
            self.rows.insert(to);
        }
        if self.key == Some(from) {
            self.key = Some(to);
        }
    }
}

/// The readings of whose rows columns hold values.
fn rows(columns: &[Held]) -> BTreeSet<usize> {
    columns.iter().flat_map(|held| &held.rows).copied().collect()
}

/// The only reading.
fn sole(rows: &BTreeSet<usize>) -> Option<usize> {
    rows.first().copied().filter(|_| rows.len() == 1)
}

/// The rows of a query around another.
struct Around<'a> {
    schema: &'a DFSchema,
    columns: &'a [Held],
    beyond: Option<&'a Around<'a>>,
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
    /// How often tables were read so far.
    readings: &'a Cell<usize>,
    around: Option<&'a Around<'a>>,
}

impl Walk<'_> {
    fn of(&self, plan: &LogicalPlan) -> Result<Vec<Held>> {
        let width = plan.schema().fields().len();
        let mut columns = match plan {
            LogicalPlan::TableScan(scan) => self.scanned(scan),
            LogicalPlan::Projection(node) => self.projected(&node.input, &node.expr)?,
            LogicalPlan::Distinct(Distinct::On(on)) => {
                self.projected(&on.input, &on.select_expr)?
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
                self.equal(&node.predicate, node.input.schema(), &mut columns, None);
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
                all.is_of_others |= !all.rows.is_empty();
                vec![all; width]
            }
            LogicalPlan::Sort(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::SubqueryAlias(_)
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
                // What it computes is not known: a column may be that of its name below.
                let (named, all) = self.below(other)?;
                let fields = other.schema().fields().iter();
                fields.map(|field| named.get(field.name()).unwrap_or(&all).clone()).collect()
            }
        };
        columns.resize(width, Held::default());
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
        let walk = Walk { parts: self.parts, readings: self.readings, around: Some(&around) };
        walk.of(plan)
    }

    fn next_reading(&self) -> usize {
        let reading = self.readings.get() + 1;
        self.readings.set(reading);
        reading
    }

    fn scanned(&self, scan: &TableScan) -> Vec<Held> {
        let reading = self.next_reading();
        let fields = scan.projected_schema.fields().iter();
        let held = fields.map(|field| match (self.parts)(scan, field.name()) {
            None => Held::default(),
            Some(part) => Held {
                rows: part.is_value.then_some(reading).into_iter().collect(),
                is_of_others: false,
                key: part.is_key.then_some(reading),
                decides: part.is_key && part.decides,
            },
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
        columns.extend(self.each(&node.aggr_expr, schema, &from)?);
        Ok(columns)
    }

    /// The parts of a UNION are rows by themselves: where those of each are of one reading, so are
    /// all.
    fn united(&self, node: &Union, width: usize) -> Result<Vec<Held>> {
        let parts = node.inputs.iter().map(|input| self.of(input));
        let mut parts = parts.collect::<Result<Vec<Vec<Held>>>>()?;
        parts.retain(|part| part.iter().any(|held| held.key.is_some() || !held.rows.is_empty()));
        let all: BTreeSet<usize> = parts.iter().flat_map(|part| rows(part)).collect();
        let reading = sole(&all).unwrap_or_else(|| self.next_reading());
        let mut columns = vec![Held::default(); width];
        let mut keys = vec![(!parts.is_empty(), true); width];
        for part in &parts {
            let read = rows(part);
            for ((held, into), (is_keyed, decides)) in part.iter().zip(&mut columns).zip(&mut keys)
            {
                if !held.rows.is_empty() {
                    into.rows.insert(reading);
                    into.is_of_others |= held.is_of_others || read.len() > 1;
                }
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
        Ok(match node.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti => left,
            JoinType::RightSemi | JoinType::RightAnti => right,
            JoinType::LeftMark => left.into_iter().chain([Held::default()]).collect(),
            JoinType::RightMark => right.into_iter().chain([Held::default()]).collect(),
            JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => {
                let mut both: Vec<Held> = left.into_iter().chain(right).collect();
                let join = Some((node.join_type, width));
                if let Ok(schema) = node.left.schema().join(node.right.schema()) {
                    for (one, other) in &node.on {
                        self.alike(one, other, &schema, &mut both, join);
                    }
                    if let Some(filter) = &node.filter {
                        self.equal(filter, &schema, &mut both, join);
                    }
                }
                let (left, right) = both.split_at_mut(width);
                if matches!(node.join_type, JoinType::Left | JoinType::Full) {
                    lose_keys(right, left);
                }
                if matches!(node.join_type, JoinType::Right | JoinType::Full) {
                    lose_keys(left, right);
                }
                both
            }
        })
    }

    /// Follows what a condition says to be equal: of a join, with the width of its left side.
    fn equal(
        &self,
        condition: &Expr,
        schema: &DFSchema,
        columns: &mut [Held],
        join: Option<(JoinType, usize)>,
    ) {
        for part in split_conjunction(condition) {
            if let Expr::BinaryExpr(binary) = part
                && binary.op == Operator::Eq
            {
                self.alike(&binary.left, &binary.right, schema, columns, join);
            }
        }
    }

    fn alike(
        &self,
        one: &Expr,
        other: &Expr,
        schema: &DFSchema,
        columns: &mut [Held],
        join: Option<(JoinType, usize)>,
    ) {
        let sides = (self.side(one, schema, columns), self.side(other, schema, columns));
        let (Some(one), Some(other)) = sides else { return };
        let Some(is_always) = is_always(one.at, other.at, join) else { return };
        let decides = |side: &Side| side.held.key.filter(|_| side.held.decides);
        match (decides(&one), decides(&other)) {
            (Some(a), Some(b)) if a != b => {
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

    /// What a column of a query around holds; all that there is, where none is called so.
    fn outer(&self, column: &Column) -> Held {
        let (mut all, mut around) = (Held::default(), self.around);
        while let Some(rows) = around {
            if let Some(at) = rows.schema.maybe_index_of_column(column) {
                return rows.columns.get(at).cloned().unwrap_or_default();
            }
            rows.columns.iter().for_each(|held| all.add(held));
            around = rows.beyond;
        }
        all
    }

    /// What an expression holds.
    fn made(&self, expr: &Expr, schema: &DFSchema, from: &[Held]) -> Result<Held> {
        match expr {
            Expr::Alias(alias) => self.made(&alias.expr, schema, from),
            Expr::Column(column) => Ok(named(column, schema, from)),
            // Several may become the same.
            Expr::Cast(cast) => Ok(Held { decides: false, ..self.made(&cast.expr, schema, from)? }),
            Expr::OuterReferenceColumn(_, column) => Ok(self.outer(column)),
            Expr::WindowFunction(call) => self.windowed(call, schema, from),
            other => self.computed(other, schema, from),
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
                    let inner = self.within(&sub.subquery, schema, from)?;
                    inner.iter().for_each(|held| all.add(held));
                }
                Expr::Case(case) => {
                    let values = case.when_then_expr.iter().map(|(_, then)| then);
                    for value in values.chain(&case.else_expr) {
                        all.add(&self.made(value, schema, from)?);
                    }
                    return Ok(TreeNodeRecursion::Jump);
                }
                Expr::WindowFunction(call) => {
                    all.add(&self.windowed(call, schema, from)?);
                    return Ok(TreeNodeRecursion::Jump);
                }
                part if is_no_value(part) => return Ok(TreeNodeRecursion::Jump),
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(all)
    }

    /// What a window gives: of other rows, unless it is divided by what decides about them.
    fn windowed(&self, call: &WindowFunction, schema: &DFSchema, from: &[Held]) -> Result<Held> {
        let (name, params) = (call.fun.name(), &call.params);
        let frame = &params.window_frame;
        // A sum over a part of the rows may be the value of one of them.
        let is_whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
        if PLACES.contains(&name) || name == "count" || (is_whole && tells_together(name)) {
            return Ok(Held::default());
        }
        let mut all = Held::default();
        for arg in &params.args {
            all.add(&self.made(arg, schema, from)?);
        }
        let mut divided = params.partition_by.iter().filter_map(|by| self.side(by, schema, from));
        let is_alike = divided.any(|by| {
            by.held.decides && by.held.key.is_some_and(|key| all.rows.iter().all(|of| *of == key))
        });
        all.is_of_others |= !all.rows.is_empty() && !is_alike;
        Ok(all)
    }
}

/// Whether two sides that a condition says to be equal are so in all rows, or NULL in some; `None`
/// where the condition does not hold for all rows that have both.
fn is_always(
    one: Option<usize>,
    other: Option<usize>,
    join: Option<(JoinType, usize)>,
) -> Option<bool> {
    let Some((kind, width)) = join.filter(|(kind, _)| *kind != JoinType::Inner) else {
        return Some(true);
    };
    let (one_left, other_left) = (one? < width, other? < width);
    match (one_left == other_left, kind) {
        (false, _) => Some(false),
        // Where the side is not met, both are NULL.
        (true, JoinType::Left) => (!one_left).then_some(true),
        (true, JoinType::Right) => one_left.then_some(true),
        (true, _) => None,
    }
}

/// What decides about rows is not there in all of them, where their side of a join may be not met
/// and the other side has values of theirs.
fn lose_keys(columns: &mut [Held], beside: &[Held]) {
    let has =
        |key: usize| beside.iter().any(|held| held.rows.contains(&key) || held.key == Some(key));
    for held in columns.iter_mut().filter(|held| held.key.is_some_and(has)) {
        held.lose_key();
    }
}

/// A column that is always equal to what decides does so as well.
fn learn(at: Option<usize>, key: usize, columns: &mut [Held]) {
    if let Some(held) = at.and_then(|at| columns.get_mut(at)) {
        held.key = Some(key);
        held.decides = true;
    }
}

/// Whether a part of an expression gives no value of the rows that it names: a condition, or an
/// aggregate of all of them.
fn is_no_value(part: &Expr) -> bool {
    match part {
        Expr::AggregateFunction(call) => tells_together(call.func.name()),
        Expr::BinaryExpr(binary) => is_comparison(binary.op),
        Expr::Between(_)
        | Expr::Exists(_)
        | Expr::InList(_)
        | Expr::InSubquery(_)
        | Expr::IsNotNull(_)
        | Expr::IsNull(_)
        | Expr::Like(_)
        | Expr::SetComparison(_)
        | Expr::SimilarTo(_) => true,
        _ => false,
    }
}

/// What a named column holds; all that there is, where the name says no more.
fn named(column: &Column, schema: &DFSchema, from: &[Held]) -> Held {
    let found = schema.maybe_index_of_column(column).and_then(|at| from.get(at));
    found.cloned().unwrap_or_else(|| {
        let mut all = Held::default();
        from.iter().for_each(|held| all.add(held));
        all
    })
}
