//! From a private SELECT to two ordinary ones around the private aggregation.
//!
//! ```text
//! SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (…) item, ROUND(AVG(x), 1) FROM t WHERE w GROUP BY item
//! ```
//!
//! becomes
//!
//! ```text
//! SELECT "group 0" AS item, ROUND("result 0", 1)
//! FROM "private aggregation"(n, (SELECT id AS "unit", item AS "group 0", avg(x) AS "value 0"
//!                                FROM t WHERE w GROUP BY id, item))
//! ```
//!
//! The inner SELECT sums up what each unit contributes to each group, in the database's own way:
//! parallel, spilling, with every function that there is. The aggregation between them sees units,
//! groups and values only; the outer SELECT sees what it releases only, so that it may compute with
//! that whatever it likes. Where rows are bounded instead of groups, the inner SELECT gives rows.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    GroupByExpr, Ident, ObjectName, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr,
    Statement, TableFactor, TableWithJoins, Value, ValueWithSpan, VisitMut, VisitorMut,
    visit_expressions_mut,
};

use crate::dialect::folded;
use crate::error::{Error, Result};
use crate::parse::name_parts;
use crate::private::aggregates::{self, Asked};
use crate::private::clause::{is_private, take_options};
use crate::private::options::{Contributions, Options, Spec};

/// The relation between the two; its arguments are the number of a [`Spec`] and a query.
pub(crate) const RELATION: &str = "private aggregation";
/// The input's column of units.
pub(crate) const UNIT: &str = "unit";

/// The name of a column of the groups.
pub(crate) fn group_name(index: usize) -> String {
    format!("group {index}")
}

/// The name of a column of released values.
pub(crate) fn result_name(index: usize) -> String {
    format!("result {index}")
}

/// Rewrites each private SELECT of a statement; gives what they compute, by number.
///
/// # Errors
/// When one asks for something that is not private.
pub(crate) fn rewrite(tree: &mut Statement, kind_of: &dyn Fn(&str) -> Kind) -> Result<Vec<Spec>> {
    let mut rewriter = Rewriter { specs: Vec::new(), kind_of };
    match tree.visit(&mut rewriter) {
        ControlFlow::Continue(()) => Ok(rewriter.specs),
        ControlFlow::Break(error) => Err(error),
    }
}

/// What a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is computed of many rows.
    Aggregate,
    /// It is computed of one.
    Scalar,
    /// No function of this name is known to every session.
    Unknown,
}

struct Rewriter<'a> {
    specs: Vec<Spec>,
    kind_of: &'a dyn Fn(&str) -> Kind,
}

impl VisitorMut for Rewriter<'_> {
    type Break = Error;

    // Inner queries first: a private SELECT may stand in the FROM of another.
    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let order_by = query.order_by.as_mut().filter(|_| is_private(&query.body));
        broken(self.body(&mut query.body, order_by))
    }

    // What is made here is not visited again, so whoever wrote this name is a user.
    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        match is_relation(factor) {
            true => ControlFlow::Break(Error::unknown("function", RELATION, [])),
            false => ControlFlow::Continue(()),
        }
    }
}

fn is_relation(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Function { name, .. } | TableFactor::Table { name, args: Some(_), .. } => {
            name_parts(name) == [RELATION]
        }
        _ => false,
    }
}

fn broken(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

impl Rewriter<'_> {
    fn body(&mut self, body: &mut SetExpr, order_by: Option<&mut OrderBy>) -> Result<()> {
        match body {
            SetExpr::Select(select) => match take_options(select)? {
                Some(options) => self.select(select, &options, order_by),
                None => Ok(()),
            },
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left, None)?;
                self.body(right, None)
            }
            _ => Ok(()),
        }
    }

    fn select(
        &mut self,
        select: &mut Select,
        options: &[(String, Expr)],
        order_by: Option<&mut OrderBy>,
    ) -> Result<()> {
        refuse_clauses(select)?;
        let options = Options::read(options)?;
        let groups = groups(select)?;
        let mut reading = Reading {
            groups: &groups,
            options: &options,
            kind_of: self.kind_of,
            asked: Vec::new(),
            outputs: Vec::new(),
            closed: false,
        };
        let mut projection = std::mem::take(&mut select.projection);
        for item in &mut projection {
            reading.item(item)?;
        }
        // What sorts and filters the answer costs nothing more: it has to be there already.
        reading.closed = true;
        reading.outputs = projection.iter().filter_map(output).collect();
        let mut having = select.having.take();
        if let Some(having) = &mut having {
            reading.expression(having)?;
        }
        if let Some(order_by) = order_by {
            reading.order(order_by)?;
        }
        let asked = reading.asked;
        let mut inner = select.clone();
        inner.projection = inner_projection(&options, &groups, &asked);
        let mut by = vec![];
        if let Contributions::Groups(_) = options.contributions {
            by.push(options.unit.clone());
            let others = groups.iter().filter(|group| !is_same(group, &options.unit));
            by.extend(others.cloned());
        }
        inner.group_by = GroupByExpr::Expressions(by, vec![]);
        let aggregates = asked.into_iter().map(|asked| asked.aggregate).collect();
        let spec = Spec { options, groups: groups.len(), aggregates };
        spec.check()?;
        select.projection = projection;
        select.from = vec![relation(self.specs.len(), inner)];
        select.selection = having;
        select.group_by = GroupByExpr::Expressions(vec![], vec![]);
        self.specs.push(spec);
        Ok(())
    }
}

fn relation(number: usize, inner: Select) -> TableWithJoins {
    let number = Value::Number(number.to_string(), false).with_empty_span();
    let query = Query {
        with: None,
        body: Box::new(SetExpr::Select(Box::new(inner))),
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks: vec![],
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: vec![],
    };
    let argument = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    let relation = TableFactor::Function {
        lateral: false,
        name: ObjectName::from(vec![Ident::with_quote('"', RELATION)]),
        args: vec![argument(Expr::Value(number)), argument(Expr::Subquery(Box::new(query)))],
        with_ordinality: false,
        alias: None,
    };
    TableWithJoins { relation, joins: vec![] }
}

fn inner_projection(options: &Options, groups: &[Expr], asked: &[Asked]) -> Vec<SelectItem> {
    let item = |expr: &Expr, name: String| SelectItem::ExprWithAlias {
        expr: expr.clone(),
        alias: Ident::with_quote('"', name),
    };
    let unit = item(&options.unit, UNIT.into());
    let groups = groups.iter().enumerate().map(|(index, group)| item(group, group_name(index)));
    let values =
        asked.iter().enumerate().map(|(index, asked)| item(&asked.value, format!("value {index}")));
    std::iter::once(unit).chain(groups).chain(values).collect()
}

/// A column of the answer by its name, as the outer SELECT computes it.
fn output(item: &SelectItem) -> Option<(String, Expr)> {
    match item {
        SelectItem::ExprWithAlias { expr, alias } => Some((folded(alias), expr.clone())),
        _ => None,
    }
}

/// Clauses that mean nothing here.
fn refuse_clauses(select: &Select) -> Result<()> {
    let found = [
        ("TOP", select.top.is_some()),
        ("INTO", select.into.is_some()),
        ("EXCLUDE", select.exclude.is_some()),
        ("LATERAL VIEW", !select.lateral_views.is_empty()),
        ("PREWHERE", select.prewhere.is_some()),
        ("CONNECT BY", !select.connect_by.is_empty()),
        ("CLUSTER BY", !select.cluster_by.is_empty()),
        ("DISTRIBUTE BY", !select.distribute_by.is_empty()),
        ("SORT BY", !select.sort_by.is_empty()),
        ("WINDOW", !select.named_window.is_empty()),
        ("QUALIFY", select.qualify.is_some()),
        ("SELECT AS", select.value_table_mode.is_some()),
    ];
    if select.from.is_empty() {
        return Err(Error::invalid_hint(
            "differential privacy needs FROM",
            "name the table whose rows are counted",
        ));
    }
    match found.into_iter().find(|(_, there)| *there) {
        None => Ok(()),
        Some((clause, _)) => Err(Error::unsupported(
            format!("{clause} does not go with differential privacy"),
            "leave it out, or put it into a query around this one",
        )),
    }
}

/// What the rows are grouped by; numbers and other names of the select list are resolved.
fn groups(select: &Select) -> Result<Vec<Expr>> {
    let GroupByExpr::Expressions(listed, modifiers) = &select.group_by else {
        return Err(Error::unsupported(
            "GROUP BY ALL does not go with differential privacy",
            "name the columns: GROUP BY item",
        ));
    };
    if !modifiers.is_empty() {
        return Err(Error::unsupported(
            "ROLLUP, CUBE and other modifiers do not go with differential privacy",
            "group by columns",
        ));
    }
    let mut groups = Vec::with_capacity(listed.len());
    for expr in listed {
        let group = resolved(expr, &select.projection)?;
        if matches!(group, Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_)) {
            return Err(Error::unsupported(
                format!("{group} does not go with differential privacy"),
                "group by columns",
            ));
        }
        if !groups.iter().any(|known| is_same(known, &group)) {
            groups.push(group);
        }
    }
    Ok(groups)
}

fn resolved(expr: &Expr, projection: &[SelectItem]) -> Result<Expr> {
    if let Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) = expr {
        let index = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        return match index.and_then(|index| projection.get(index)) {
            Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => {
                Ok(expr.clone())
            }
            _ => Err(Error::invalid_hint(
                format!("GROUP BY {number} names no column of the select list"),
                "columns count from 1",
            )),
        };
    }
    let Expr::Identifier(name) = expr else { return Ok(expr.clone()) };
    let named = projection.iter().find_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } if folded(alias) == folded(name) => Some(expr),
        _ => None,
    });
    Ok(named.unwrap_or(expr).clone())
}

/// Whether two expressions are the same but for the case of names and a table in front of one.
pub(super) fn is_same(one: &Expr, other: &Expr) -> bool {
    match (one, other) {
        (Expr::Identifier(name), Expr::CompoundIdentifier(parts))
        | (Expr::CompoundIdentifier(parts), Expr::Identifier(name)) => {
            parts.last().is_some_and(|last| folded(last) == folded(name))
        }
        _ => normal(one) == normal(other),
    }
}

fn normal(expr: &Expr) -> String {
    let mut expr = expr.clone();
    // The visitor never breaks.
    let _ = visit_expressions_mut(&mut expr, |expr| {
        let quoted = |name: &Ident| Ident::with_quote('"', folded(name));
        match expr {
            Expr::Identifier(name) => *name = quoted(name),
            Expr::CompoundIdentifier(parts) => {
                parts.iter_mut().for_each(|part| *part = quoted(part));
            }
            Expr::Function(call) => {
                let parts = name_parts(&call.name).into_iter().map(Ident::new);
                call.name = ObjectName::from(parts.collect::<Vec<_>>());
            }
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
    expr.to_string()
}

/// Reads expressions over the answer: groups and aggregates become columns of it.
struct Reading<'a> {
    groups: &'a [Expr],
    options: &'a Options,
    kind_of: &'a dyn Fn(&str) -> Kind,
    asked: Vec<Asked>,
    /// The answer's columns, once they are known.
    outputs: Vec<(String, Expr)>,
    /// Whether no more aggregates are taken.
    closed: bool,
}

impl Reading<'_> {
    /// An item of the select list; it keeps the name that it has as written.
    fn item(&mut self, item: &mut SelectItem) -> Result<()> {
        match item {
            SelectItem::ExprWithAlias { expr, .. } => self.expression(expr),
            SelectItem::UnnamedExpr(expr) => {
                let mut expr = expr.clone();
                let alias = Ident::with_quote('"', name_of(&expr));
                self.expression(&mut expr)?;
                *item = SelectItem::ExprWithAlias { expr, alias };
                Ok(())
            }
            other => Err(Error::invalid_hint(
                format!("{other} would show rows of single persons"),
                "name grouped columns and aggregates",
            )),
        }
    }

    fn expression(&mut self, expr: &mut Expr) -> Result<()> {
        match expr.visit(self) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// ORDER BY names columns of the answer first, then groups and aggregates.
    fn order(&mut self, order_by: &mut OrderBy) -> Result<()> {
        let OrderByKind::Expressions(listed) = &mut order_by.kind else { return Ok(()) };
        for sorted in listed {
            match &sorted.expr {
                Expr::Identifier(name) if self.output(name).is_some() => {}
                _ => self.expression(&mut sorted.expr)?,
            }
        }
        Ok(())
    }

    fn output(&self, name: &Ident) -> Option<&Expr> {
        let name = folded(name);
        self.outputs.iter().find(|(known, _)| *known == name).map(|(_, expr)| expr)
    }

    /// What stands for an expression over the answer; none: its parts are looked at.
    fn replacement(&mut self, expr: &Expr) -> Result<Option<Expr>> {
        let column = |name: String| Some(Expr::Identifier(Ident::with_quote('"', name)));
        if let Some(index) = self.groups.iter().position(|group| is_same(group, expr)) {
            return Ok(column(group_name(index)));
        }
        match expr {
            Expr::Function(call) => {
                let name = name_parts(&call.name).join(".");
                match aggregates::read(&name, call, self.options)? {
                    Some(asked) => self.ask(asked, expr).map(|index| column(result_name(index))),
                    None => match (self.kind_of)(&name) {
                        Kind::Aggregate => Err(aggregates::unsupported(&name)),
                        // Another database's aggregate, rather than a value of one row.
                        Kind::Unknown if self.takes_rows(call) => {
                            Err(aggregates::unsupported(&name))
                        }
                        Kind::Scalar | Kind::Unknown => Ok(None),
                    },
                }
            }
            // HAVING may name a column of the answer, whose own columns are looked at next.
            Expr::Identifier(name) if self.closed && self.output(name).is_some() => {
                Ok(self.output(name).map(|expr| Expr::Nested(Box::new(expr.clone()))))
            }
            Expr::Identifier(name) if self.closed && is_released(name) => Ok(None),
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Err(Error::invalid_hint(
                format!("{expr} is neither grouped nor inside an aggregate"),
                "its values would be those of single persons: add it to GROUP BY, or aggregate it",
            )),
            Expr::Subquery(_)
            | Expr::Exists { .. }
            | Expr::InSubquery { .. }
            | Expr::AnyOp { .. }
            | Expr::AllOp { .. } => Err(Error::unsupported(
                "a sub-query beside private aggregates is not supported",
                "put the private SELECT into a query around which the other one stands",
            )),
            _ => Ok(None),
        }
    }

    /// Whether a column that is not grouped is an argument of a call.
    fn takes_rows(&self, call: &Function) -> bool {
        let FunctionArguments::List(list) = &call.args else { return false };
        list.args.iter().any(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(
                expr @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_)),
            )) => !self.closed && !self.groups.iter().any(|group| is_same(group, expr)),
            _ => false,
        })
    }

    fn ask(&mut self, asked: Asked, expr: &Expr) -> Result<usize> {
        if let Some(known) = self.asked.iter().position(|known| known.is_same(&asked)) {
            return Ok(known);
        }
        if self.closed {
            return Err(Error::invalid_hint(
                format!("{expr} is not in the select list"),
                "HAVING and ORDER BY take aggregates that are released: add it to the select list",
            ));
        }
        self.asked.push(asked);
        Ok(self.asked.len() - 1)
    }
}

impl VisitorMut for Reading<'_> {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match self.replacement(expr) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(column)) => {
                *expr = column;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

/// Whether a name is one that this module gives to what is released.
fn is_released(name: &Ident) -> bool {
    let number = name.value.strip_prefix("result ").or_else(|| name.value.strip_prefix("group "));
    name.quote_style.is_some() && number.is_some_and(|number| number.parse::<usize>().is_ok())
}

/// The name of a column of the answer that was given none.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => folded(name),
        Expr::CompoundIdentifier(parts) => parts.last().map(folded).unwrap_or_default(),
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) => {
            format!("{}({})", name_parts(name).join("."), values(list))
        }
        other => other.to_string(),
    }
}

/// The arguments that have no names, as they are written.
fn values(list: &FunctionArgumentList) -> String {
    let distinct = list.duplicate_treatment.map(|treatment| format!("{treatment} "));
    let values = list.args.iter().filter(|argument| matches!(argument, FunctionArg::Unnamed(_)));
    let values = values.map(ToString::to_string).collect::<Vec<_>>().join(", ");
    distinct.unwrap_or_default() + &values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Statement as Parsed, parse};

    fn rewritten(select: &str) -> Result<(String, Vec<Spec>)> {
        let text = format!(
            "SELECT WITH DIFFERENTIAL_PRIVACY OPTIONS (epsilon = 1, delta = .01, \
             privacy_unit_column = id) {select}"
        );
        let Parsed::DataFusion(statement) = parse(&text, 10_000)? else { panic!() };
        let datafusion::sql::parser::Statement::Statement(mut tree) = *statement else { panic!() };
        let specs = rewrite(&mut tree, &|name| match name {
            "min" | "max" => Kind::Aggregate,
            "round" => Kind::Scalar,
            _ => Kind::Unknown,
        })?;
        Ok((tree.to_string(), specs))
    }

    #[test]
    fn the_two_queries_are_ordinary_ones() {
        let text = "Item, ROUND(AVG(x, contribution_bounds_per_group => (0, 100)), 1) AS a \
                    FROM t WHERE x > 1 GROUP BY item HAVING a > 0 ORDER BY item";
        let (shown, specs) = rewritten(text).unwrap();
        assert_eq!(
            shown,
            "SELECT \"group 0\" AS \"item\", ROUND(\"result 0\", 1) AS a FROM \
             \"private aggregation\"(0, (SELECT id AS \"unit\", item AS \"group 0\", avg(x) AS \
             \"value 0\" FROM t WHERE x > 1 GROUP BY id, item)) \
             WHERE (ROUND(\"result 0\", 1)) > 0 ORDER BY item"
        );
        assert_eq!((specs.len(), specs[0].groups), (1, 1));
        assert_eq!(specs[0].aggregates[0].bounds, Some((0.0, 100.0)));
    }

    #[test]
    fn an_aggregate_is_released_once() {
        let text = "a AS b, COUNT(*), SUM(x) / COUNT(*) FROM t GROUP BY 1 \
                    HAVING count(*) > 1 ORDER BY COUNT(*) DESC, b";
        let (shown, specs) = rewritten(text).unwrap();
        assert_eq!(specs[0].aggregates.len(), 2, "{shown}");
        assert!(shown.ends_with("WHERE \"result 0\" > 1 ORDER BY \"result 0\" DESC, b"), "{shown}");
    }

    #[test]
    fn distinct_values_are_listed_and_units_counted() {
        let text = "COUNT(DISTINCT ID), COUNT(DISTINCT x, contribution_bounds_per_group => (0, 2.5)) \
                    FILTER (WHERE y > 1) FROM t";
        let (shown, specs) = rewritten(text).unwrap();
        assert!(shown.contains("\"count(DISTINCT ID)\""), "{shown}");
        assert!(shown.contains("count(ID) AS \"value 0\""), "{shown}");
        let listed = "array_agg(DISTINCT x) FILTER (WHERE (x) IS NOT NULL AND (y > 1))";
        assert!(shown.contains(listed), "{shown}");
        let bounds = specs[0].aggregates.iter().map(|aggregate| aggregate.bounds);
        assert_eq!(bounds.collect::<Vec<_>>(), [Some((0.0, 1.0)), Some((0.0, 2.0))]);
    }

    #[test]
    fn what_is_not_private_is_refused() {
        for (text, part) in [
            ("x FROM t", "x is neither grouped"),
            ("*, COUNT(*) FROM t", "* would show rows"),
            ("COUNT(*) + x FROM t", "x is neither grouped"),
            ("MIN(x) FROM t", "MIN"),
            ("ROUND(x) FROM t", "x is neither grouped"),
            ("approx_quantiles(x, 4) FROM t", "APPROX_QUANTILES is not private"),
            ("COUNT(DISTINCT x) FROM t", "needs contribution_bounds_per_group"),
            ("COUNT(DISTINCT *) FROM t", "takes a value"),
            ("COUNT(DISTINCT x, y) FROM t", "takes one value"),
            (
                "COUNT(DISTINCT x, contribution_bounds_per_group => (1, 2)) FROM t",
                "would add 1 to 2",
            ),
            ("SUM(DISTINCT x) FROM t", "DISTINCT"),
            ("COUNT(*) OVER () FROM t", "OVER"),
            ("COUNT(*), (SELECT 1) FROM t", "sub-query"),
            ("COUNT(*) FROM t ORDER BY SUM(x)", "not in the select list"),
            ("COUNT(*) FROM t ORDER BY x", "x is neither grouped"),
            ("item FROM t GROUP BY ROLLUP (item)", "does not go"),
            ("COUNT(*) FROM t GROUP BY ALL", "GROUP BY ALL"),
            ("COUNT(*)", "FROM"),
            ("1 FROM t", "nothing is computed"),
            ("COUNT(*) FROM \"private aggregation\"(0, (SELECT 1)) AS t", "does not exist"),
        ] {
            let error = rewritten(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
