//! The aggregates of a private SELECT: how they are written, and what the inner SELECT computes for
//! them of each unit and group, or of each row.

use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{
    BinaryOperator, CaseWhen, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, ObjectName, Value,
};

use crate::error::{Error, Result};
use crate::private::options::{
    Aggregate, Contributions, Of, Options, PER_GROUP, PER_ROW, Statistic, number, short,
};
use crate::private::rewrite::is_same;

/// What there is, for hints.
const KNOWN: &str =
    "COUNT, SUM, AVG, VAR_POP, VAR_SAMP, STDDEV_POP, STDDEV_SAMP and PERCENTILE_CONT are private";

/// An aggregate as written, with what the inner SELECT computes for it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) aggregate: Aggregate,
    pub(crate) value: Expr,
}

impl Asked {
    /// Whether both are released by one value.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.aggregate == other.aggregate
            && self.value.to_string().eq_ignore_ascii_case(&other.value.to_string())
    }
}

/// The error for an aggregate that has no private form here.
pub(crate) fn unsupported(name: &str) -> Error {
    Error::unsupported(format!("{} is not private", name.to_uppercase()), KNOWN)
}

/// Reads a call; none where it is of no private aggregate.
///
/// # Errors
/// When it is written in a way that has no private form.
pub(crate) fn read(name: &str, call: &Function, options: &Options) -> Result<Option<Asked>> {
    let statistic = match name {
        "count" if is_distinct(call) => Statistic::Distinct,
        "count" => Statistic::Count,
        "sum" => Statistic::Sum,
        "avg" | "mean" => Statistic::Average,
        "var_pop" => Statistic::Variance(Of::Population),
        "stddev_pop" => Statistic::Deviation(Of::Population),
        "var" | "var_samp" | "variance" => Statistic::Variance(Of::Sample),
        "stddev" | "stddev_samp" => Statistic::Deviation(Of::Sample),
        // The share is read with the arguments.
        "percentile_cont" => Statistic::Quantile(0.5),
        _ if call.over.is_some() => return Err(windowed(name)),
        _ => return Ok(None),
    };
    if call.over.is_some() {
        return Err(windowed(name));
    }
    let shown = name.to_uppercase();
    let FunctionArguments::List(list) = &call.args else {
        return Err(Error::invalid_hint(format!("{shown} has no arguments"), KNOWN));
    };
    refuse_forms(&shown, call, list)?;
    let (values, bounds) = arguments(&shown, list, statistic, options.contributions)?;
    let (value, statistic) = match (values.as_slice(), statistic) {
        ([value], Statistic::Quantile(_)) => {
            return Err(Error::invalid_hint(
                format!("{shown}({value}) has no share"),
                "write PERCENTILE_CONT(x, 0.5, contribution_bounds_per_row => (0, 100))",
            ));
        }
        ([value, share], Statistic::Quantile(_)) => (*value, quantile(share)?),
        ([value], statistic) => (*value, statistic),
        _ => {
            return Err(Error::invalid_hint(
                format!("{shown} takes one value, not {}", values.len()),
                format!("write {shown}(x, {PER_GROUP} => (0, 100))"),
            ));
        }
    };
    if matches!(statistic, Statistic::Quantile(_)) && bounds.is_none() {
        return Err(Error::invalid_hint(
            format!("{shown} needs {PER_ROW}"),
            format!("say between which values it lies: {PER_ROW} => (0, 100)"),
        ));
    }
    let (statistic, bounds) = match (statistic, value) {
        (Statistic::Distinct, FunctionArgExpr::Expr(of)) => distinct(of, bounds, options)?,
        _ => (statistic, bounds),
    };
    let value = match options.contributions {
        Contributions::Groups(_) => of_group(&shown, statistic, value, call.filter.as_deref())?,
        Contributions::Rows(_) => of_row(&shown, statistic, value, call.filter.as_deref())?,
    };
    Ok(Some(Asked { aggregate: Aggregate { statistic, bounds }, value }))
}

fn is_distinct(call: &Function) -> bool {
    let FunctionArguments::List(list) = &call.args else { return false };
    list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
}

/// What COUNT(DISTINCT x) counts. A unit is one value in each of its groups, so that units are
/// counted as rows of which each has one; of other values a unit covers as many as are said. Where
/// rows are bounded, each of them has one value.
fn distinct(of: &Expr, bounds: Bounds, options: &Options) -> Result<(Statistic, Bounds)> {
    match (options.contributions, bounds) {
        (Contributions::Groups(_), None) if is_same(of, &options.unit) => {
            Ok((Statistic::Count, Some((0.0, 1.0))))
        }
        (Contributions::Groups(_), None) => Err(Error::invalid_hint(
            format!("COUNT(DISTINCT {of}) needs {PER_GROUP}"),
            format!(
                "say how many values of a group one person adds at most: {PER_GROUP} => (0, 3)"
            ),
        )),
        (Contributions::Groups(_), Some((least, most))) if least == 0.0 && most >= 1.0 => {
            Ok((Statistic::Distinct, Some((0.0, most.floor()))))
        }
        (Contributions::Groups(_), Some((least, most))) => Err(Error::invalid_hint(
            format!(
                "one person would add {} to {} values to COUNT(DISTINCT {of})",
                short(least),
                short(most)
            ),
            format!("the least is 0 and the most at least 1: {PER_GROUP} => (0, 3)"),
        )),
        (Contributions::Rows(_), None) => Ok((Statistic::Distinct, Some((0.0, 1.0)))),
        (Contributions::Rows(_), Some(_)) => Err(Error::invalid_hint(
            format!("COUNT(DISTINCT {of}) takes no {PER_ROW}"),
            "a row has one value; max_rows_contributed bounds how many one person adds",
        )),
    }
}

fn windowed(name: &str) -> Error {
    Error::unsupported(
        format!("{} OVER (…) does not go with differential privacy", name.to_uppercase()),
        "put the window into a query around the private one",
    )
}

fn refuse_forms(shown: &str, call: &Function, list: &FunctionArgumentList) -> Result<()> {
    if is_distinct(call) && shown != "COUNT" {
        return Err(Error::unsupported(
            format!("{shown}(DISTINCT …) is not private"),
            "COUNT(DISTINCT …) is; or group by the value",
        ));
    }
    if !list.clauses.is_empty() || call.null_treatment.is_some() || !call.within_group.is_empty() {
        return Err(Error::unsupported(
            format!("{shown} takes no ORDER BY, WITHIN GROUP or treatment of NULL here"),
            "NULL is left out; write PERCENTILE_CONT(x, 0.5, …)",
        ));
    }
    Ok(())
}

type Bounds = Option<(f64, f64)>;

/// The positional arguments, and the bounds.
fn arguments<'a>(
    shown: &str,
    list: &'a FunctionArgumentList,
    statistic: Statistic,
    contributions: Contributions,
) -> Result<(Vec<&'a FunctionArgExpr>, Bounds)> {
    let wanted = match statistic.takes_rows() {
        true => PER_ROW,
        false => contributions.bounds_argument(),
    };
    let mut values = Vec::new();
    let mut bounds = None;
    for argument in &list.args {
        match argument {
            FunctionArg::Unnamed(value) => values.push(value),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. }
                if name.value.eq_ignore_ascii_case(wanted) =>
            {
                if bounds.replace(pair(wanted, value)?).is_some() {
                    return Err(Error::invalid_hint(
                        format!("{wanted} is given twice"),
                        "leave one of them out",
                    ));
                }
            }
            other => {
                return Err(Error::invalid_hint(
                    format!("{shown} does not take {other}"),
                    format!("here it takes {wanted} => (least, most)"),
                ));
            }
        }
    }
    Ok((values, bounds))
}

/// `(least, most)`.
fn pair(name: &str, value: &Expr) -> Result<(f64, f64)> {
    let wrong = || {
        Error::invalid_hint(
            format!("{name} is {value}"),
            "it is a pair of numbers, the least and the most: (0, 100)",
        )
    };
    let Expr::Tuple(parts) = value else { return Err(wrong()) };
    let [least, most] = parts.as_slice() else { return Err(wrong()) };
    let (least, most) = (number(name, least)?, number(name, most)?);
    match least.is_finite() && most.is_finite() && least <= most && (least, most) != (0.0, 0.0) {
        true => Ok((least, most)),
        false => Err(wrong()),
    }
}

fn quantile(share: &FunctionArgExpr) -> Result<Statistic> {
    let FunctionArgExpr::Expr(share) = share else {
        return Err(Error::invalid(format!("{share} is no share")));
    };
    match number("the share of PERCENTILE_CONT", share)? {
        share if (0.0..=1.0).contains(&share) => Ok(Statistic::Quantile(share)),
        share => Err(Error::invalid_hint(
            format!("the share of PERCENTILE_CONT is {}", short(share)),
            "it lies between 0 and 1",
        )),
    }
}

/// What a unit contributes to a group.
fn of_group(
    shown: &str,
    statistic: Statistic,
    value: &FunctionArgExpr,
    filter: Option<&Expr>,
) -> Result<Expr> {
    let function = match statistic {
        Statistic::Count => "count",
        Statistic::Sum => "sum",
        Statistic::Average => "avg",
        Statistic::Distinct
        | Statistic::Variance(_)
        | Statistic::Deviation(_)
        | Statistic::Quantile(_) => "array_agg",
    };
    let filter = match (value, statistic.takes_lists()) {
        (FunctionArgExpr::Expr(value), true) => Some(both(present(value), filter)),
        (FunctionArgExpr::Wildcard, _) if statistic != Statistic::Count => {
            return Err(starred(shown));
        }
        (FunctionArgExpr::Expr(_) | FunctionArgExpr::Wildcard, _) => filter.cloned(),
        _ => return Err(starred(shown)),
    };
    let treatment = (statistic == Statistic::Distinct).then_some(DuplicateTreatment::Distinct);
    Ok(call(function, treatment, value.clone(), filter))
}

/// What a row contributes: NULL for nothing.
fn of_row(
    shown: &str,
    statistic: Statistic,
    value: &FunctionArgExpr,
    filter: Option<&Expr>,
) -> Result<Expr> {
    match (value, statistic) {
        (FunctionArgExpr::Wildcard, Statistic::Count) => Ok(case(filter.cloned(), one())),
        (FunctionArgExpr::Expr(value), Statistic::Count) => {
            Ok(case(Some(both(present(value), filter)), one()))
        }
        (FunctionArgExpr::Expr(value), _) => Ok(case(filter.cloned(), value.clone())),
        _ => Err(starred(shown)),
    }
}

fn starred(shown: &str) -> Error {
    Error::invalid_hint(format!("{shown} takes a value, not *"), "COUNT(*) counts rows")
}

fn one() -> Expr {
    Expr::Value(Value::Number("1".into(), false).with_empty_span())
}

fn present(value: &Expr) -> Expr {
    Expr::IsNotNull(Box::new(Expr::Nested(Box::new(value.clone()))))
}

fn both(one: Expr, other: Option<&Expr>) -> Expr {
    match other {
        None => one,
        Some(other) => Expr::BinaryOp {
            left: Box::new(one),
            op: BinaryOperator::And,
            right: Box::new(Expr::Nested(Box::new(other.clone()))),
        },
    }
}

/// `CASE WHEN condition THEN value END`, or the value alone.
fn case(condition: Option<Expr>, value: Expr) -> Expr {
    let Some(condition) = condition else { return value };
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition, result: value }],
        else_result: None,
    }
}

fn call(
    name: &str,
    duplicate_treatment: Option<DuplicateTreatment>,
    value: FunctionArgExpr,
    filter: Option<Expr>,
) -> Expr {
    let list = FunctionArgumentList {
        duplicate_treatment,
        args: vec![FunctionArg::Unnamed(value)],
        clauses: vec![],
    };
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: filter.map(Box::new),
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}
