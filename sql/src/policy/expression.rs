//! Expressions of policies: read from text, planned over their table's columns as the statement's
//! principal, whose name, roles, purpose and channel are constants of them.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Volatility, cast, try_cast};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use sqlparser::ast::{
    Expr as SqlExpr, ExprWithAlias, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    SelectItem, SetExpr, Value, ValueWithSpan, visit_expressions,
};

use crate::error::{Error, Result};
use crate::functions::{HAS_ROLE, HOLDS_ROLE, SESSION_FUNCTIONS};
use crate::operators::is_plain_kind;
use crate::parse::{name_parts, parse_query};
use crate::session::StatementContext;
use crate::session::bindings::{Bindings, References};

/// Bytes of an expression's text.
const BYTES_MAX: usize = 10_000;
/// The column in an expression for the columns of a tag.
pub(super) const VALUE: &str = "value";

/// Reads an expression of a policy.
///
/// # Errors
/// When it is too long, or no expression.
pub(super) fn parsed(text: &str) -> Result<SqlExpr> {
    if text.len() > BYTES_MAX {
        return Err(Error::invalid_hint(
            format!("the policy's expression has {} bytes, the limit is {BYTES_MAX}", text.len()),
            "keep long lists in a table of their own, and give a column that says what it needs",
        ));
    }
    let query = *parse_query(&format!("SELECT ({text})"))?;
    let wrong = || Error::invalid(format!("'{text}' is no expression"));
    let SetExpr::Select(select) = *query.body else { return Err(wrong()) };
    let only = select.from.is_empty() && select.selection.is_none() && query.order_by.is_none();
    let mut items = select.projection.into_iter();
    match (items.next(), items.next()) {
        (Some(SelectItem::UnnamedExpr(SqlExpr::Nested(expr))), None) if only => {
            alone(&expr)?;
            Ok(*expr)
        }
        _ => Err(wrong()),
    }
}

/// Checks that an expression reads no other table.
fn alone(expr: &SqlExpr) -> Result<()> {
    let found = visit_expressions(expr, |part| match part {
        SqlExpr::Subquery(_) | SqlExpr::InSubquery { .. } | SqlExpr::Exists { .. } => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    match found {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::unsupported(
            "a policy's expression reads another table",
            "compute it of the columns of the row alone",
        )),
    }
}

/// The roles that an expression asks for by name.
///
/// # Errors
/// When it looks at `current_role()`: the text of all active roles is equal to none of several, so
/// that a comparison would bind, or let through, the wrong people.
pub(super) fn roles_of(expr: &SqlExpr) -> Result<Vec<String>> {
    let mut roles = Vec::new();
    let found = visit_expressions(expr, |part| {
        let SqlExpr::Function(call) = part else { return ControlFlow::Continue(()) };
        match name_parts(&call.name).last().map(String::as_str) {
            Some("current_role") => return ControlFlow::Break(()),
            Some(HAS_ROLE | HOLDS_ROLE) => roles.extend(named(call)),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    match found {
        ControlFlow::Continue(()) => Ok(roles),
        ControlFlow::Break(()) => Err(Error::unsupported(
            "a policy's expression looks at current_role(), the text of all active roles: it is \
             equal to no role of somebody who has two",
            "write has_role('r'), or NOT holds_role('r') to keep its holders out",
        )),
    }
}

/// The role of a call, where it is written out.
fn named(call: &Function) -> Option<String> {
    let FunctionArguments::List(list) = &call.args else { return None };
    match list.args.as_slice() {
        [
            FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Value(ValueWithSpan {
                value: Value::SingleQuotedString(role),
                ..
            }))),
        ] => Some(role.clone()),
        _ => None,
    }
}

/// Checks that no constant part of a plan's expressions fails, as `1/0` does: it would on every
/// row, for everybody whom they bind.
///
/// # Errors
/// When one does.
pub(super) fn check_constants(state: &SessionState, plan: &LogicalPlan) -> Result<()> {
    let nothing = DFSchema::empty();
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(nothing.clone()))
        .with_config_options(Arc::clone(state.config_options()))
        .build();
    let simplifier = ExprSimplifier::new(context);
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)?;
    let mut failed = None;
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if !is_constant(part)? {
                    return Ok(TreeNodeRecursion::Continue);
                }
                let value = simplifier
                    .simplify(part.clone())
                    .and_then(|part| state.create_physical_expr(part, &nothing))
                    .and_then(|part| part.evaluate(&row));
                Ok(match value {
                    Ok(_) => TreeNodeRecursion::Jump,
                    Err(error) => {
                        failed = Some((part.clone().unalias(), error));
                        TreeNodeRecursion::Stop
                    }
                })
            })
        })
    })?;
    match failed {
        None => Ok(()),
        Some((part, error)) => Err(Error::invalid_hint(
            format!("{} fails on every row: {}", part.human_display(), error.strip_backtrace()),
            "the policy would let nobody read whom it binds; write NULL to show nothing, or FALSE \
             to let no row through",
        )),
    }
}

/// Whether an expression is the same on every row and for everybody.
fn is_constant(expr: &Expr) -> DataFusionResult<bool> {
    let varies = expr.exists(|part| {
        Ok(match part {
            Expr::ScalarFunction(call) => {
                SESSION_FUNCTIONS.contains(&call.func.name())
                    || call.func.signature().volatility != Volatility::Immutable
            }
            Expr::BinaryExpr(_) | Expr::SimilarTo(_) | Expr::Negative(_) | Expr::Cast(_) => false,
            Expr::Column(_) => true,
            other => !is_plain_kind(other),
        })
    })?;
    Ok(!varies)
}

/// What plans the expressions of one table.
pub(super) struct Planner {
    state: SessionState,
}

impl Planner {
    /// For these expressions: models, keys and hierarchies that they name are loaded.
    ///
    /// # Errors
    /// When one of them does not exist or may not be used.
    pub(super) async fn new(
        context: &Arc<StatementContext>,
        expressions: &[SqlExpr],
    ) -> Result<Self> {
        let references = References::of(&expressions.to_vec());
        if references.decrypts || !references.relations.is_empty() {
            return Err(Error::unsupported(
                "a policy decrypts nothing and reads no other table",
                "compute it of the table's own columns",
            ));
        }
        // Loading plans queries of its own, which open tables as this does.
        let bindings: Bindings = Box::pin(references.load(context)).await?;
        Ok(Self { state: context.state(&bindings)? })
    }

    /// The state in which the expressions were planned.
    pub(super) fn state(&self) -> &SessionState {
        &self.state
    }

    /// Plans an expression over columns.
    ///
    /// # Errors
    /// When it names other columns, or does more than compute a value of one row.
    pub(super) fn plan(&self, expr: &SqlExpr, schema: &DFSchema) -> Result<Expr> {
        let written = ExprWithAlias { expr: expr.clone(), alias: None };
        let planned = self.state.create_logical_expr_from_sql_expr(written, schema)?;
        let mut wrong = None;
        planned.apply(|part| {
            wrong = match part {
                Expr::AggregateFunction(_) | Expr::WindowFunction(_) => Some("looks at other rows"),
                Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_) => Some("reads another table"),
                Expr::Placeholder(_) => Some("has a parameter"),
                Expr::Unnest(_) => Some("makes several rows of one"),
                part if part.is_volatile_node() => Some("gives another value each time"),
                _ => None,
            };
            Ok(match wrong {
                Some(_) => TreeNodeRecursion::Stop,
                None => TreeNodeRecursion::Continue,
            })
        })?;
        match wrong {
            None => Ok(planned),
            Some(what) => Err(Error::unsupported(
                format!("a policy's expression {what}"),
                "compute it of the columns of the row alone",
            )),
        }
    }

    /// Plans a condition.
    ///
    /// # Errors
    /// As [`Self::plan`]; when it is no condition.
    pub(super) fn condition(&self, expr: &SqlExpr, schema: &DFSchema) -> Result<Expr> {
        let planned = self.plan(expr, schema)?;
        match planned.get_type(schema)? {
            DataType::Boolean => Ok(planned),
            other => Err(Error::invalid_hint(
                format!("a row access policy needs a condition, and this is of type {other}"),
                "write a comparison, such as USING (region = 'north')",
            )),
        }
    }

    /// Plans what a column shows in place of its value, in the column's type.
    ///
    /// # Errors
    /// As [`Self::plan`]; when it is of another kind of type.
    pub(super) fn mask(
        &self,
        expr: &SqlExpr,
        schema: &DFSchema,
        column: &str,
        wanted: &DataType,
    ) -> Result<Expr> {
        let planned = self.plan(expr, schema)?;
        let given = planned.get_type(schema)?;
        match likeness(&given, wanted) {
            Likeness::Same => Ok(planned),
            Likeness::Plain => Ok(cast(planned, wanted.clone())),
            Likeness::Narrower => Ok(try_cast(planned, wanted.clone())),
            Likeness::Other => Err(Error::invalid_hint(
                format!("the mask of {column} is of type {given}, and the column is {wanted}"),
                format!("give it the column's type: CAST(… AS {wanted})"),
            )),
        }
    }
}

/// How the type of a mask is to that of its column.
enum Likeness {
    Same,
    /// Another form of the same values.
    Plain,
    /// Values that the column's type does not have become NULL.
    Narrower,
    Other,
}

fn likeness(given: &DataType, wanted: &DataType) -> Likeness {
    let is_text = |kind: &DataType| match kind {
        DataType::Dictionary(_, values) => values.is_string(),
        plain => plain.is_string(),
    };
    if given == wanted {
        return Likeness::Same;
    }
    if given.is_null() || (is_text(given) && is_text(wanted)) {
        return Likeness::Plain;
    }
    let both = |is: fn(&DataType) -> bool| is(given) && is(wanted);
    match both(DataType::is_numeric) || both(DataType::is_temporal) {
        true => Likeness::Narrower,
        false => Likeness::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_expressions_are_read() {
        let read = parsed("region = current_user()").unwrap();
        assert_eq!(read.to_string(), "region = current_user()");
        for wrong in ["a, b", "a) FROM (SELECT 1", "a AS b", "", "1) UNION SELECT (2"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        assert!(parsed(&"a".repeat(BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn roles_are_asked_for_one_by_one() {
        let roles = |text: &str| roles_of(&parsed(text).unwrap());
        let asked = "CASE WHEN has_role('a') OR NOT HOLDS_ROLE('b') THEN x ELSE has_role(y) END";
        assert_eq!(roles(asked).unwrap(), ["a", "b"]);
        assert_eq!(roles("region = current_user()").unwrap(), [""; 0]);
        for wrong in [
            "current_role() = 'a'",
            "CURRENT_ROLE() <> 'a'",
            "CASE current_role() WHEN 'a' THEN 1 END = 1",
            "strpos(lower(current_role()), 'a') > 0",
        ] {
            assert_eq!(roles(wrong).unwrap_err().code(), "ATT-2002", "{wrong}");
        }
    }

    #[test]
    fn types_are_alike_where_values_are() {
        use DataType::{Boolean, Date32, Float64, Int32, Int64, Null, Utf8, Utf8View};
        for (given, wanted, fits) in [
            (Utf8, Utf8View, true),
            (Null, Boolean, true),
            (Int64, Int32, true),
            (Float64, Int32, true),
            (Utf8, Int32, false),
            (Int64, Date32, false),
            (Boolean, Int32, false),
        ] {
            let other = matches!(likeness(&given, &wanted), Likeness::Other);
            assert_eq!(!other, fits, "{given} {wanted}");
        }
    }
}
