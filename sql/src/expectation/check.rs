//! A check taken apart: what of it is computed for each row, what for the whole table, and what
//! kind of check it is.
//!
//! `CHECK (…)` holds a condition. Without an aggregate it is a condition on each row, which fails
//! when it is FALSE, as SQL's CHECK does: NULL passes. With one it is a condition on the table,
//! which has to be TRUE. `column IN (SELECT …)` asks for values that exist elsewhere. Beside SQL's
//! aggregates there are short words:
//!
//! | word | means |
//! |---|---|
//! | `row_count()` | `count(*)` |
//! | `completeness(c)` | the share of rows that have a value; 1 of no rows |
//! | `uniqueness(c, …)` | 1 less the share of values that are repeated; 1 of no values |
//! | `freshness(c) <= INTERVAL '1 day'` | `max(c) BETWEEN now() - INTERVAL '1 day' AND now() + INTERVAL '1 day'` |
//! | `drift_psi(c, t.r)`, `drift_ks(c, t.r)` | `sketch_psi`, `sketch_ks` against the column r of t |
//! | `drift_psi(c)`, `drift_ks(c)` | the same against the first result since the definition |

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query,
    SetExpr, visit_expressions, visit_expressions_mut,
};

use crate::dialect::{AttuneDialect, folded};
use crate::effort;
use crate::error::{Error, Result};

/// A check taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Check {
    /// `completeness`, `uniqueness`, `range`, …
    pub(crate) kind: &'static str,
    /// The table's columns that it names.
    pub(crate) columns: Vec<String>,
    /// What is expected, for people.
    pub(crate) expected: String,
    pub(crate) shape: Shape,
}

/// What has to be computed, as SQL.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// A condition that no row may break.
    Rows { condition: String },
    /// A column whose values a query has.
    Reference { column: String, query: String },
    /// A condition on the whole table.
    Table {
        condition: String,
        /// What it looks at.
        observed: Option<String>,
        /// The rows that keep it from holding, where they can be counted.
        failing: Option<String>,
        /// The profile to keep when there is none to compare with.
        profile: Option<String>,
        /// Columns whose repeated combinations are the failing rows.
        unique: Option<String>,
    },
}

impl Check {
    /// Whether it asks for values that exist elsewhere.
    pub(crate) fn is_reference(&self) -> bool {
        matches!(self.shape, Shape::Reference { .. })
    }
}

const DRIFT: [(&str, &str); 2] = [("drift_psi", "sketch_psi"), ("drift_ks", "sketch_ks")];

/// Takes a check's text apart. `is_aggregate` knows the aggregates of SQL; `baseline` is the kept
/// profile of a check that compares with an earlier result.
///
/// # Errors
/// When the text is no condition that can be checked.
pub(crate) fn check(
    text: &str,
    baseline: Option<&str>,
    is_aggregate: impl Fn(&str) -> bool,
) -> Result<Check> {
    let read = effort::read(AttuneDialect, text, |parser| parser.parse_expr());
    let mut condition = read.map_err(unreadable)?;
    while let Expr::Nested(inner) = condition {
        condition = *inner;
    }
    let columns = columns(&condition);
    if let Expr::InSubquery { expr, subquery, negated: false } = &condition {
        return reference(expr, subquery, columns);
    }
    let words = functions(&condition)?;
    let is_whole = |name: &String| is_word(name) || is_aggregate(name);
    if words.iter().any(is_whole) {
        return whole(condition, columns, &words, baseline);
    }
    if columns.is_empty() {
        return Err(Error::invalid_hint(
            "the check names no column",
            "write a condition on the table's columns, such as CHECK (price > 0)",
        ));
    }
    let expected = condition.to_string();
    let shape = Shape::Rows { condition: expected.clone() };
    Ok(Check { kind: row_kind(&condition), columns, expected, shape })
}

fn unreadable(error: sqlparser::parser::ParserError) -> Error {
    Error::invalid(format!("the check cannot be read: {error}"))
}

fn is_word(name: &str) -> bool {
    matches!(name, "row_count" | "completeness" | "uniqueness" | "freshness")
        || DRIFT.iter().any(|(word, _)| *word == name)
}

/// The names of the functions, in order; refuses what no check can hold.
fn functions(condition: &Expr) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut refused = None;
    let _: ControlFlow<()> = visit_expressions(condition, |expr| {
        match expr {
            Expr::Function(function) if function.over.is_some() => {
                refused = Some(("a window function", "write an aggregate, or check a view"));
            }
            Expr::Function(function) => names.push(function.name.to_string().to_lowercase()),
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                refused = Some((
                    "a query inside a condition",
                    "write CHECK (column IN (SELECT …)) alone, or check a view",
                ));
            }
            Expr::Value(value) if matches!(value.value, sqlparser::ast::Value::Placeholder(_)) => {
                refused = Some(("a parameter", "write the value"));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    match refused {
        Some((what, hint)) => Err(Error::invalid_hint(format!("a check cannot hold {what}"), hint)),
        None => Ok(names),
    }
}

/// The columns named, each once; those of a reference table are left out.
fn columns(condition: &Expr) -> Vec<String> {
    let mut own = condition.clone();
    let _: ControlFlow<()> = visit_expressions_mut(&mut own, |expr| {
        match expr {
            Expr::Function(function) if drift(function).is_some() => {
                if let FunctionArguments::List(list) = &mut function.args {
                    list.args.truncate(1);
                }
            }
            Expr::InSubquery { expr: inner, .. } => *expr = inner.as_ref().clone(),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let mut names: Vec<String> = Vec::new();
    let _: ControlFlow<()> = visit_expressions(&own, |expr| {
        let name = match expr {
            Expr::Identifier(name) => Some(folded(name)),
            Expr::CompoundIdentifier(parts) => parts.last().map(folded),
            _ => None,
        };
        if let Some(name) = name
            && !names.contains(&name)
        {
            names.push(name);
        }
        ControlFlow::Continue(())
    });
    names
}

fn reference(column: &Expr, query: &Query, columns: Vec<String>) -> Result<Check> {
    if !matches!(column, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
        return Err(Error::invalid_hint(
            "only a column's values can be looked for in a query",
            "write CHECK (column IN (SELECT key FROM other))",
        ));
    }
    if let SetExpr::Values(_) = query.body.as_ref() {
        return Err(Error::invalid_hint(
            "VALUES is no query to look values up in",
            "write CHECK (column IN ('a', 'b'))",
        ));
    }
    let expected = format!("{column} IN ({query})");
    let shape = Shape::Reference { column: column.to_string(), query: query.to_string() };
    Ok(Check { kind: "referential", columns, expected, shape })
}

/// A condition on the whole table.
fn whole(
    mut condition: Expr,
    columns: Vec<String>,
    words: &[String],
    baseline: Option<&str>,
) -> Result<Check> {
    let kind = table_kind(words);
    let written = condition.to_string();
    let expected = comparison(&condition).unwrap_or_else(|| written.clone());
    let newest = freshness(&condition).map(|(_, newest)| newest);
    rewrite_freshness(&mut condition);
    let (mut failing, mut profile, mut unique) = (None, None, None);
    let mut wrong = None;
    let _: ControlFlow<()> = visit_expressions_mut(&mut condition, |expr| {
        let Expr::Function(function) = &*expr else { return ControlFlow::Continue(()) };
        let name = function.name.to_string().to_lowercase();
        let expanded = match expanded(function, &name, baseline) {
            Ok(Some(expanded)) => expanded,
            Ok(None) => return ControlFlow::Continue(()),
            Err(error) => {
                wrong = wrong.take().or(Some(error));
                return ControlFlow::Continue(());
            }
        };
        failing = failing.take().or(expanded.failing);
        profile = profile.take().or(expanded.profile);
        unique = unique.take().or(expanded.unique);
        match parsed(&expanded.sql) {
            Ok(made) => *expr = made,
            Err(error) => wrong = wrong.take().or(Some(error)),
        }
        ControlFlow::Continue(())
    });
    if let Some(error) = wrong {
        return Err(error);
    }
    let observed = newest.or_else(|| left_of(&condition));
    // Without anything to compare with there is nothing to break.
    let condition = match profile.is_some() {
        true => "TRUE".to_owned(),
        false => condition.to_string(),
    };
    let observed = observed.filter(|_| profile.is_none());
    let shape = Shape::Table { condition, observed, failing, profile, unique };
    Ok(Check { kind, columns, expected, shape })
}

/// An expression, in brackets.
pub(super) fn parsed(sql: &str) -> Result<Expr> {
    let parsed = effort::read(AttuneDialect, sql, |parser| parser.parse_expr());
    Ok(Expr::Nested(Box::new(parsed.map_err(unreadable)?)))
}

/// What a word stands for.
struct Expanded {
    sql: String,
    failing: Option<String>,
    profile: Option<String>,
    unique: Option<String>,
}

fn expanded(function: &Function, name: &str, baseline: Option<&str>) -> Result<Option<Expanded>> {
    let plain = |sql: String| Expanded { sql, failing: None, profile: None, unique: None };
    let given = arguments(function);
    let all = given.join(", ");
    Ok(Some(match (name, given.as_slice()) {
        ("row_count", []) => plain("count(*)".into()),
        ("completeness", [column]) => Expanded {
            failing: Some(format!("count(*) - count({column})")),
            ..plain(format!("coalesce(CAST(count({column}) AS DOUBLE) / nullif(count(*), 0), 1.0)"))
        },
        ("uniqueness", [_, ..]) => Expanded {
            failing: Some(format!("duplicate_count({all})")),
            unique: Some(all.clone()),
            ..plain(format!(
                "coalesce(1.0 - CAST(duplicate_count({all}) AS DOUBLE) / \
                 nullif(count({all}), 0), 1.0)"
            ))
        },
        ("duplicate_count", [_, ..]) => Expanded {
            failing: Some(format!("duplicate_count({all})")),
            unique: Some(all.clone()),
            ..plain(format!("duplicate_count({all})"))
        },
        _ => {
            if let Some(compare) = drift(function) {
                return drifted(compare, &given, baseline).map(Some);
            }
            let usage = match name {
                "row_count" => "write row_count()",
                "completeness" => "write completeness(column)",
                "uniqueness" => "write uniqueness(column, …)",
                "freshness" => "write freshness(column) <= INTERVAL '1 day'",
                _ => return Ok(None),
            };
            return Err(Error::invalid_hint(format!("{name} is called wrongly here"), usage));
        }
    }))
}

/// The function that compares, of a word for drift.
fn drift(function: &Function) -> Option<&'static str> {
    let name = function.name.to_string().to_lowercase();
    DRIFT.iter().find(|(word, _)| *word == name).map(|(_, compare)| *compare)
}

/// Distributions that a check compares.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Compared {
    /// `drift_psi` or `drift_ks`.
    pub(super) word: String,
    /// The table's column.
    pub(super) column: String,
    /// The column with which it is compared, and its table, where they are named.
    pub(super) reference: Option<(String, String)>,
}

/// The distributions that a check's text compares.
///
/// # Errors
/// When the text is none of a check.
pub(super) fn compared(text: &str) -> Result<Vec<Compared>> {
    let mut found = Vec::new();
    let _: ControlFlow<()> = visit_expressions(&parsed(text)?, |expr| {
        if let Expr::Function(function) = expr
            && drift(function).is_some()
            && let [column, other @ ..] = arguments(function).as_slice()
        {
            found.push(Compared {
                word: function.name.to_string().to_lowercase(),
                column: column.clone(),
                reference: other.first().and_then(|other| referenced(other)),
            });
        }
        ControlFlow::Continue(())
    });
    Ok(found)
}

/// The column and the table that a reference names.
fn referenced(written: &str) -> Option<(String, String)> {
    let Ok(Expr::Nested(inner)) = parsed(written) else { return None };
    let Expr::CompoundIdentifier(parts) = *inner else { return None };
    let (last, table) = parts.split_last()?;
    let table = table.iter().map(ToString::to_string).collect::<Vec<_>>().join(".");
    Some((last.to_string(), table))
}

fn drifted(compare: &str, given: &[String], baseline: Option<&str>) -> Result<Expanded> {
    let plain = |sql: String| Expanded { sql, failing: None, profile: None, unique: None };
    match given {
        [column] => match baseline {
            Some(digits) => {
                Ok(plain(format!("{compare}(distribution_sketch({column}), X'{digits}')")))
            }
            None => Ok(Expanded {
                profile: Some(format!("distribution_sketch({column})")),
                ..plain("0.0".into())
            }),
        },
        [column, other] => {
            let Some((last, table)) = referenced(other) else { return Err(no_reference(other)) };
            Ok(plain(format!(
                "{compare}(distribution_sketch({column}), \
                 (SELECT distribution_sketch({last}) FROM {table}))"
            )))
        }
        _ => Err(Error::invalid_hint(
            "a check for drift names a column and perhaps a reference",
            "write drift_psi(price) < 0.25 or drift_psi(price, last_year.price) < 0.25",
        )),
    }
}

fn no_reference(written: &str) -> Error {
    Error::invalid_hint(
        format!("{written} is no column of a table to compare with"),
        "write drift_psi(price, last_year.price) < 0.25",
    )
}

/// Puts a comparison of times for each one of an age, below AND, OR and brackets.
fn rewrite_freshness(condition: &mut Expr) {
    if let Some((fresh, _)) = freshness(condition) {
        *condition = fresh;
        return;
    }
    match condition {
        Expr::Nested(inner) => rewrite_freshness(inner),
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            rewrite_freshness(left);
            rewrite_freshness(right);
        }
        _ => {}
    }
}

/// `freshness(c) <= i` as a comparison of the newest time, and that. A time that is further ahead
/// than the age may be, such as one of a wrong year, would hide that no new rows come: it is not
/// fresh either.
fn freshness(expr: &Expr) -> Option<(Expr, String)> {
    let Expr::BinaryOp { left, op, right } = expr else { return None };
    let Expr::Function(function) = left.as_ref() else { return None };
    if function.name.to_string().to_lowercase() != "freshness" {
        return None;
    }
    let [column]: [String; 1] = arguments(function).try_into().ok()?;
    let turned = match op {
        BinaryOperator::Lt => ">",
        BinaryOperator::LtEq => ">=",
        BinaryOperator::Gt => "<",
        BinaryOperator::GtEq => "<=",
        _ => return None,
    };
    let newest = format!("max({column})");
    let ahead = match turned {
        ">" | ">=" => format!(" AND {newest} <= now() + {right}"),
        _ => String::new(),
    };
    let made = parsed(&format!("{newest} {turned} now() - {right}{ahead}")).ok()?;
    Some((made, newest))
}

fn arguments(function: &Function) -> Vec<String> {
    let FunctionArguments::List(list) = &function.args else { return vec![] };
    let given = list.args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => expr.to_string(),
        other => other.to_string(),
    });
    given.collect()
}

/// The operator and the right side of a comparison: what a left side is expected to be.
fn comparison(condition: &Expr) -> Option<String> {
    match condition {
        Expr::BinaryOp { op, right, .. } if is_comparison(op) => Some(format!("{op} {right}")),
        Expr::Between { negated, low, high, .. } => {
            let not = if *negated { "NOT " } else { "" };
            Some(format!("{not}BETWEEN {low} AND {high}"))
        }
        _ => None,
    }
}

fn left_of(condition: &Expr) -> Option<String> {
    match condition {
        Expr::BinaryOp { left, op, .. } if is_comparison(op) => Some(left.to_string()),
        Expr::Between { expr, .. } => Some(expr.to_string()),
        _ => None,
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator as B;
    matches!(op, B::Eq | B::NotEq | B::Lt | B::LtEq | B::Gt | B::GtEq)
}

fn table_kind(words: &[String]) -> &'static str {
    let has = |names: &[&str]| words.iter().any(|word| names.contains(&word.as_str()));
    if has(&["drift_psi", "drift_ks"]) {
        "drift"
    } else if has(&["freshness"]) {
        "freshness"
    } else if has(&["uniqueness", "duplicate_count"]) {
        "uniqueness"
    } else if has(&["completeness"]) {
        "completeness"
    } else if words.iter().all(|word| word == "row_count" || word == "count") {
        "volume"
    } else {
        "aggregate"
    }
}

/// The kind of a condition on rows; of several joined by AND or OR, if they are of one.
fn row_kind(condition: &Expr) -> &'static str {
    use BinaryOperator as B;
    match condition {
        Expr::Nested(inner) => row_kind(inner),
        Expr::IsNotNull(_) => "completeness",
        Expr::Between { .. } => "range",
        Expr::InList { .. } => "accepted_values",
        Expr::Like { .. } | Expr::ILike { .. } | Expr::SimilarTo { .. } | Expr::RLike { .. } => {
            "pattern"
        }
        Expr::BinaryOp { left, op: B::And | B::Or, right } => {
            let (left, right) = (row_kind(left), row_kind(right));
            if left == right { left } else { "condition" }
        }
        Expr::BinaryOp { op: B::PGRegexMatch | B::PGRegexIMatch, .. } => "pattern",
        Expr::BinaryOp { op, .. } if is_comparison(op) => "range",
        Expr::Function(function) => match function.name.to_string().to_lowercase().as_str() {
            "regexp_like" | "starts_with" | "ends_with" => "pattern",
            _ => "condition",
        },
        _ => "condition",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Check {
        check(text, None, |name| matches!(name, "count" | "max" | "avg")).unwrap()
    }

    #[test]
    fn kinds_are_those_of_the_field() {
        for (text, kind) in [
            ("mail IS NOT NULL", "completeness"),
            ("completeness(mail) >= 0.95", "completeness"),
            ("uniqueness(id) = 1", "uniqueness"),
            ("price BETWEEN 0 AND 10 AND (qty > 0)", "range"),
            ("mail LIKE '%@%'", "pattern"),
            ("mail ~ '^[^@]+@'", "pattern"),
            ("channel IN ('app', 'shop')", "accepted_values"),
            ("customer IN (SELECT id FROM customers)", "referential"),
            ("freshness(at) <= INTERVAL '1 day'", "freshness"),
            ("row_count() BETWEEN 1 AND 10", "volume"),
            ("count(*) > 1", "volume"),
            ("drift_psi(price, last_year.price) < 0.2", "drift"),
            ("drift_ks(price) < 0.2", "drift"),
            ("avg(price) > 3", "aggregate"),
            ("length(name) > 2 OR name IS NOT NULL", "condition"),
        ] {
            assert_eq!(of(text).kind, kind, "{text}");
            assert!(catalog::checks::KINDS.contains(&kind));
        }
    }

    #[test]
    fn columns_are_the_tables_own() {
        let columns = |text| of(text).columns.join(" ");
        assert_eq!(columns("Price > \"Cost\" AND price < 9"), "price Cost");
        assert_eq!(columns("drift_psi(price, last_year.amount) < 0.2"), "price");
        assert_eq!(columns("customer IN (SELECT id FROM customers)"), "customer");
        assert_eq!(columns("row_count() > 0"), "");
    }

    #[test]
    fn words_stand_for_sql() {
        let Shape::Table { condition, observed, failing, .. } = of("uniqueness(id) = 1").shape
        else {
            panic!("no table")
        };
        assert!(condition.contains("duplicate_count(id)") && condition.ends_with("= 1"));
        assert_eq!(failing.as_deref(), Some("duplicate_count(id)"));
        assert!(condition.starts_with(&observed.unwrap()));
        let Shape::Table { condition, observed, .. } =
            of("freshness(at) < INTERVAL '2 hours'").shape
        else {
            panic!("no table")
        };
        let ahead = "AND max(at) <= now() + INTERVAL '2 hours'";
        assert_eq!(condition, format!("(max(at) > now() - INTERVAL '2 hours' {ahead})"));
        assert_eq!(observed.as_deref(), Some("max(at)"));
        assert_eq!(of("row_count() BETWEEN 1 AND 9").expected, "BETWEEN 1 AND 9");
    }

    #[test]
    fn a_first_result_is_kept_and_then_compared_with() {
        let Shape::Table { condition, profile, .. } = of("drift_psi(price) < 0.2").shape else {
            panic!("no table")
        };
        assert_eq!(condition, "TRUE");
        assert_eq!(profile.as_deref(), Some("distribution_sketch(price)"));
        let later = check("drift_psi(price) < 0.2", Some("01ff"), |_| false).unwrap();
        let Shape::Table { condition, profile: None, .. } = later.shape else { panic!("kept") };
        assert!(condition.contains("X'01ff'"), "{condition}");
    }

    #[test]
    fn what_is_compared_is_told() {
        let found = compared("drift_psi(price, l.sales.amount) < 0.2 AND drift_ks(lower(a)) < 1");
        let found = found.unwrap();
        let [one, other] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((one.word.as_str(), one.column.as_str()), ("drift_psi", "price"));
        assert_eq!(one.reference, Some(("amount".to_owned(), "l.sales".to_owned())));
        assert_eq!((other.word.as_str(), other.column.as_str()), ("drift_ks", "lower(a)"));
        assert_eq!(other.reference, None);
    }

    #[test]
    fn what_cannot_be_checked_is_refused() {
        for (text, word) in [
            ("1 = 1", "no column"),
            ("a > (SELECT max(b) FROM t)", "query inside"),
            ("a IN (SELECT b FROM t) AND a > 0", "query inside"),
            ("sum(a) OVER () > 1", "window"),
            ("a + 1 IN (SELECT b FROM t)", "only a column"),
            ("freshness(at) > 1 + freshness(at)", "freshness"),
            ("drift_psi(a, b) < 1", "no column of a table"),
            ("completeness(a, b) > 0", "completeness"),
        ] {
            let error = check(text, None, |name| name == "max").unwrap_err();
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
    }
}
