//! What is made of columns of one row counts as a column of its table, and spans of time are more
//! than one row.
//!
//! `upper(city)` tells the same of rows that have the same city: rows that agree in it are those of
//! a group, whether a window is divided by it, or groups by it are joined back. So does every
//! expression of one row by functions that always give the same of the same; what is equal because
//! it is made otherwise, as `b.id = a.id + 1`, is picked.
//!
//! The time of the latest row is a value of one row, and rows that have it are few. Those of the
//! days before it are as many as came in these days, as those since a day that the query names.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, JoinType, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Operator, TableScan, Volatility};

use super::Walk;
use crate::operators::is_condition;
use crate::policy::held::{Held, named};
use crate::policy::ties::{Origin, is_always};

const DAY_NS: i64 = 86_400_000_000_000;

impl Walk<'_> {
    /// What an expression is made of columns of one row of a governed table: a column, as this
    /// reading gives it.
    pub(super) fn formed(&self, expr: &Expr, schema: &DFSchema, from: &[Held]) -> Option<Origin> {
        let mut of = None;
        let column = self.form(expr, schema, from, &mut of)?;
        of.map(|of| Origin { column, ..of })
    }

    /// How it is made. Names stand in quotes and literals behind their type, so that two that are
    /// not made alike are not written alike.
    fn form(
        &self,
        expr: &Expr,
        schema: &DFSchema,
        from: &[Held],
        of: &mut Option<Origin>,
    ) -> Option<String> {
        match expr {
            Expr::Alias(alias) => self.form(&alias.expr, schema, from, of),
            Expr::Column(column) => read(named(column, schema, from), of),
            Expr::OuterReferenceColumn(_, column) => read(self.outer(column), of),
            Expr::Literal(value, _) => literal(value),
            Expr::Cast(cast) => {
                let inner = self.form(&cast.expr, schema, from, of)?;
                Some(format!("CAST({inner} AS {:?})", cast.field.data_type()))
            }
            Expr::BinaryExpr(binary) if !is_condition(binary.op) => {
                let left = self.form(&binary.left, schema, from, of)?;
                let right = self.form(&binary.right, schema, from, of)?;
                Some(format!("({left} {} {right})", binary.op))
            }
            Expr::ScalarFunction(call)
                if call.func.signature().volatility == Volatility::Immutable =>
            {
                let args = call.args.iter().map(|arg| self.form(arg, schema, from, of));
                let args = args.collect::<Option<Vec<String>>>()?;
                Some(format!("{:?}({})", call.func.name(), args.join(", ")))
            }
            _ => None,
        }
    }

    /// Whether two sides that are equal are made alike of the same columns of two readings: rows of
    /// the one are those that rows of the other agree with, and these ties are made.
    ///
    /// # Errors
    /// When a plan within them cannot be walked.
    pub(super) fn are_formed_alike(
        &self,
        one: &Expr,
        other: &Expr,
        schema: &DFSchema,
        columns: &[Held],
        join: Option<(JoinType, usize)>,
    ) -> Result<bool> {
        let sides = (self.formed(one, schema, columns), self.formed(other, schema, columns));
        let (Some(of), Some(like)) = sides else { return Ok(false) };
        let (at, beside) = (place(one, schema), place(other, schema));
        let is_outer = at.is_none() && beside.is_none();
        if is_outer || is_always(at, beside, join).is_none() || !self.ties.share_columns(&of, &like)
        {
            return Ok(false);
        }
        self.leave(&self.asked([one, other], schema, columns)?, true);
        let near = self.near([one], schema, columns)?;
        self.ties.agree(&near, &self.near([other], schema, columns)?);
        Ok(true)
    }

    /// Whether a condition leaves the rows of a day and more up to the latest one of the table, or
    /// from its first one: `time >= (SELECT max(time) FROM t) - INTERVAL '7 days'`.
    pub(super) fn is_span(&self, condition: &Expr, schema: &DFSchema, from: &[Held]) -> bool {
        let Expr::BinaryExpr(binary) = condition else { return false };
        let (time, op, bound) = match time_of(&binary.left) {
            Expr::Column(_) => (&binary.left, Some(binary.op), &binary.right),
            _ => (&binary.right, binary.op.swap(), &binary.left),
        };
        let (extreme, offset) = match op {
            Some(Operator::Gt | Operator::GtEq) => ("max", Operator::Minus),
            Some(Operator::Lt | Operator::LtEq) => ("min", Operator::Plus),
            _ => return false,
        };
        let (time, Expr::BinaryExpr(bound)) = (time_of(time), time_of(bound)) else {
            return false;
        };
        let (Expr::Column(column), Expr::ScalarSubquery(sub)) = (time, time_of(&bound.left)) else {
            return false;
        };
        let held = named(column, schema, from);
        let is_plain = !held.is_of_others && held.cut.is_empty() && held.places.is_empty();
        let is_same = held
            .column
            .is_some_and(|of| extreme_of(&sub.subquery, extreme) == Some((of.table, of.column)));
        let is_whole = sub.outer_ref_columns.is_empty();
        bound.op == offset
            && is_whole
            && is_plain
            && is_same
            && time.get_type(schema).is_ok_and(|of| is_time(&of))
            && is_of_days(&bound.right)
    }
}

/// The name of the column that something is, where all are of the same reading.
fn read(held: Held, of: &mut Option<Origin>) -> Option<String> {
    let origin = held.column?;
    let is_other = |of: &Origin| of.reading != origin.reading || of.table != origin.table;
    if of.as_ref().is_some_and(is_other) {
        return None;
    }
    let name = origin.column.clone();
    *of = Some(origin);
    Some(name)
}

/// A literal, as no other one is written; `None` of kinds of which that is not known.
fn literal(value: &ScalarValue) -> Option<String> {
    let kind = value.data_type();
    match value {
        ScalarValue::Boolean(Some(is)) => Some(format!("{kind:?} {is}")),
        ScalarValue::IntervalMonthDayNano(Some(interval)) => Some(format!("{kind:?} {interval:?}")),
        other if other.is_null() => None,
        other if kind.is_integer() => Some(format!("{kind:?} {other}")),
        other => other.try_as_str().flatten().map(|text| format!("{kind:?} {text:?}")),
    }
}

/// The place of a column of an expression among the rows: it tells the side of a join.
fn place(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    expr.column_refs().into_iter().find_map(|column| schema.maybe_index_of_column(column))
}

/// What an expression is, but for its name, and for another kind of time that it is cast to.
fn time_of(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => time_of(&alias.expr),
        Expr::Cast(cast) if is_time(cast.field.data_type()) => time_of(&cast.expr),
        other => other,
    }
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

/// Whether an expression is a length of time of a day at least, as the query writes it.
fn is_of_days(expr: &Expr) -> bool {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(length)), _) = expr else {
        return false;
    };
    let is_forward = length.months >= 0 && length.days >= 0 && length.nanoseconds >= 0;
    let is_long = length.months > 0 || length.days > 0 || length.nanoseconds >= DAY_NS;
    is_forward && is_long
}

/// The table and the column of which a query gives nothing but the extreme of all rows.
fn extreme_of(plan: &LogicalPlan, extreme: &str) -> Option<(String, String)> {
    match plan {
        LogicalPlan::SubqueryAlias(node) => extreme_of(&node.input, extreme),
        LogicalPlan::Projection(node) => match node.expr.as_slice() {
            [expr] if matches!(time_of(expr), Expr::Column(_)) => extreme_of(&node.input, extreme),
            _ => None,
        },
        LogicalPlan::Aggregate(node) if node.group_expr.is_empty() => {
            let [value] = node.aggr_expr.as_slice() else { return None };
            let Expr::AggregateFunction(call) = time_of(value) else { return None };
            let [Expr::Column(column)] = call.params.args.as_slice() else { return None };
            let is_meant = call.func.name() == extreme && call.params.filter.is_none();
            let scan = scanned(&node.input).filter(|_| is_meant)?;
            Some((scan.table_name.to_string(), format!("{:?}", column.name)))
        }
        _ => None,
    }
}

/// The table that a plan reads as it is.
fn scanned(plan: &LogicalPlan) -> Option<&TableScan> {
    match plan {
        LogicalPlan::SubqueryAlias(node) => scanned(&node.input),
        LogicalPlan::TableScan(scan) if scan.filters.is_empty() && scan.fetch.is_none() => {
            Some(scan)
        }
        _ => None,
    }
}
