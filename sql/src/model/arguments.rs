//! Arguments of `ML.X(MODEL m, …)` and `ml_x('m', …)`: a value or rows, and named options.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, FunctionArgOperator, Query, TableFactor,
};

use crate::error::{Error, Result};
use crate::model::{history, items, new_items};
use crate::numbers;

/// Options that may be queries.
const QUERIES: [&str; 3] = ["include_items", "exclude_items", "promote"];

/// The second positional argument: a value or rows.
pub(crate) enum First {
    Value(Expr),
    Rows(Box<LogicalPlan>),
}

/// The arguments behind the model.
pub(crate) struct Arguments {
    pub(crate) first: Option<First>,
    pub(crate) named: BTreeMap<String, Expr>,
    /// Options that are queries.
    pub(crate) rows: BTreeMap<String, LogicalPlan>,
}

impl Arguments {
    /// Reads the arguments behind the model.
    ///
    /// # Errors
    /// When one is of no form that the function takes.
    pub(crate) fn read(
        function: &str,
        arguments: impl Iterator<Item = FunctionArg>,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Self> {
        let mut read = Self { first: None, named: BTreeMap::new(), rows: BTreeMap::new() };
        for argument in arguments {
            match argument {
                FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), operator } => {
                    if operator != FunctionArgOperator::RightArrow {
                        return Err(Error::invalid_hint("named arguments use =>", "top_k => 10"));
                    }
                    read.option(name.value.to_lowercase(), value, context)?;
                }
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => {
                    read.positional(function, value, context)?;
                }
                other => {
                    return Err(Error::invalid_hint(
                        format!("{function} does not take {other}"),
                        "give values, queries in parentheses, and options as name => value",
                    ));
                }
            }
        }
        Ok(read)
    }

    fn positional(
        &mut self,
        function: &str,
        value: SqlExpr,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<()> {
        match value {
            SqlExpr::Subquery(subquery) if self.first.is_none() => {
                self.first = Some(First::Rows(Box::new(rows(subquery, context)?)));
                Ok(())
            }
            SqlExpr::Struct { values, .. } => {
                for value in values {
                    let SqlExpr::Named { expr, name } = value else {
                        return Err(Error::invalid_hint(
                            "the fields of STRUCT have names",
                            "write STRUCT(10 AS top_k)",
                        ));
                    };
                    self.option(name.value.to_lowercase(), *expr, context)?;
                }
                Ok(())
            }
            value if self.first.is_none() && !self.named.contains_key("top_k") => {
                self.first = Some(First::Value(expression(value, context)?));
                Ok(())
            }
            value => {
                let value = expression(value, context)?;
                if self.named.contains_key("top_k") {
                    return Err(Error::invalid_hint(
                        format!("{function} has too many arguments"),
                        "name the options: top_k => 10",
                    ));
                }
                self.name("top_k".into(), value)
            }
        }
    }

    /// An option: a value, a query, or for `max_per` the quota in its struct.
    fn option(
        &mut self,
        name: String,
        value: SqlExpr,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<()> {
        match value {
            SqlExpr::Subquery(subquery) if QUERIES.contains(&name.as_str()) => {
                if self.named.contains_key(&name) || self.rows.contains_key(&name) {
                    return Err(given_twice(&name));
                }
                self.rows.insert(name, rows(subquery, context)?);
                Ok(())
            }
            value
                if [history::OPTION, new_items::OPTION].contains(&name.as_str())
                    && history::truth(&value).is_none() =>
            {
                Err(Error::invalid_hint(
                    format!("{name} is {value}"),
                    "it takes TRUE or FALSE, written out",
                ))
            }
            value if name == "max_per" => match items::quota(&value) {
                Some((_, quota)) => self.name(name, expression(quota, context)?),
                None => Err(Error::invalid_hint(
                    format!("max_per is {value}"),
                    "it takes a number for a column of the item table: STRUCT(2 AS brand)",
                )),
            },
            value => self.name(name, expression(value, context)?),
        }
    }

    fn name(&mut self, name: String, value: Expr) -> Result<()> {
        match self.named.insert(name.clone(), value) {
            None => Ok(()),
            Some(_) => Err(given_twice(&name)),
        }
    }

    /// Refuses any argument.
    ///
    /// # Errors
    /// When there is one.
    pub(crate) fn none(&self, function: &str) -> Result<()> {
        if self.first.is_none() && self.named.is_empty() && self.rows.is_empty() {
            return Ok(());
        }
        Err(Error::invalid_hint(
            format!("{function} takes a model and nothing else"),
            "select from its rows with WHERE, ORDER BY and LIMIT",
        ))
    }
}

fn given_twice(option: &str) -> Error {
    Error::invalid_hint(format!("option {option} is given twice"), "leave one of them out")
}

/// Plans a query in parentheses.
///
/// # Errors
/// When it cannot be planned, or is another one for each row of a query around it.
pub(crate) fn rows(
    subquery: Box<Query>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let relation = TableFactor::Derived { lateral: false, subquery, alias: None, sample: None };
    let plan = context.plan(relation)?;
    match plan.all_out_ref_exprs().first() {
        Some(Expr::OuterReferenceColumn(_, column)) => Err(Error::unsupported(
            format!("a query that is an argument refers to {column} of the query around it"),
            "it is read once and not for each row: select all rows that are asked for in it, and \
             join the answer to the query around it by an id",
        )),
        _ => Ok(plan),
    }
}

fn expression(value: SqlExpr, context: &mut dyn RelationPlannerContext) -> Result<Expr> {
    Ok(context.sql_to_expr(value, &DFSchema::empty())?)
}

/// The options of a call as written, named with `=>` or in a STRUCT; names in lower case.
pub fn written_options(arguments: &[FunctionArg]) -> impl Iterator<Item = (String, &SqlExpr)> {
    arguments.iter().flat_map(options_of)
}

fn options_of(argument: &FunctionArg) -> Vec<(String, &SqlExpr)> {
    match argument {
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
            vec![(name.value.to_lowercase(), value)]
        }
        FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Struct { values, .. })) => {
            values.iter().filter_map(option_of).collect()
        }
        _ => vec![],
    }
}

fn option_of(field: &SqlExpr) -> Option<(String, &SqlExpr)> {
    match field {
        SqlExpr::Named { expr, name } => Some((name.value.to_lowercase(), expr.as_ref())),
        _ => None,
    }
}

/// Refuses options that a function does not have.
pub fn known_options(given: &BTreeMap<String, Expr>, known: &[&'static str]) -> Result<()> {
    match given.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Error::unknown("option", name, known.iter().copied())),
    }
}

/// A literal whole number in `range`, once parameters are bound.
///
/// # Errors
/// When it is no such number.
pub fn whole_number(
    name: &str,
    value: &Expr,
    range: std::ops::RangeInclusive<i64>,
) -> Result<usize> {
    let wrong = || {
        Error::invalid_hint(
            format!("{name} is {}", shown(value)),
            format!("it takes a whole number from {} to {}", range.start(), range.end()),
        )
    };
    let Some(value) = literal(value).filter(|value| is_number(value)) else { return Err(wrong()) };
    let data_type = value.data_type();
    let number = match value.cast_to(&DataType::Int64) {
        _ if data_type.is_floating() => None,
        _ if data_type.is_numeric() => numbers::whole(value),
        Ok(ScalarValue::Int64(number)) => number,
        _ => None,
    };
    match number.filter(|number| range.contains(number)) {
        Some(number) => usize::try_from(number).map_err(|_| wrong()),
        None => Err(wrong()),
    }
}

/// Whether a value is a number, or a text, as the parameters of clients are that tell no type.
pub fn is_number(value: &ScalarValue) -> bool {
    let data_type = value.data_type();
    data_type.is_numeric() || data_type.is_string()
}

/// The value of a literal, whatever name folding gave it.
pub fn literal(value: &Expr) -> Option<&ScalarValue> {
    match value {
        Expr::Literal(value, _) => Some(value),
        Expr::Alias(alias) => literal(&alias.expr),
        _ => None,
    }
}

/// An expression as a person wrote it, as far as that is known.
pub fn shown(value: &Expr) -> String {
    let Some(value) = literal(value) else { return value.to_string() };
    // DataFusion shows the digits of a decimal and where their point is.
    match value.data_type().is_decimal() {
        true => value.cast_to(&DataType::Utf8).as_ref().unwrap_or(value).to_string(),
        false => value.to_string(),
    }
}
