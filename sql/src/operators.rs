//! Kinds of operators, and which expressions fail on no row.

use arrow::datatypes::DataType;
use datafusion::logical_expr::{Expr, Operator};

/// Whether an operator compares two values.
pub(crate) fn is_comparison(operator: Operator) -> bool {
    matches!(
        operator,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

/// Whether an operator compares two values, or joins what comparisons gave.
pub(crate) fn is_condition(operator: Operator) -> bool {
    is_comparison(operator) || matches!(operator, Operator::And | Operator::Or)
}

/// Whether an expression is of a kind that fails on no row and reads nothing but the row, but for
/// what it is made of.
pub(crate) fn is_plain_kind(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Alias(_)
            | Expr::Column(_)
            | Expr::Literal(..)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Between(_)
            | Expr::InList(_)
            | Expr::Like(_)
            | Expr::Case(_)
            | Expr::TryCast(_)
    )
}

/// Whether an expression is of a kind that fails on no row, but for what it is made of. Operators,
/// casts and functions are not: some do.
pub(crate) fn is_safe_kind(expr: &Expr) -> bool {
    is_plain_kind(expr)
        || matches!(
            expr,
            Expr::OuterReferenceColumn(..)
                | Expr::Placeholder(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::ScalarSubquery(_)
        )
}

/// Whether every value of a type has one in the other: a cast fails for none.
pub(crate) fn is_widening(from: &DataType, to: &DataType) -> bool {
    let from = match from {
        DataType::Dictionary(_, values) => values.as_ref(),
        plain => plain,
    };
    if from == to || from.is_null() || (from.is_string() && to.is_string()) {
        return true;
    }
    let is_boolean = *from == DataType::Boolean;
    if to.is_string() {
        return from.is_numeric() && !from.is_decimal()
            || is_boolean
            || matches!(from, DataType::Date32);
    }
    if to.is_floating() {
        return from.is_integer() || from.is_floating() || from.is_decimal();
    }
    if let DataType::Decimal128(digits, scale) | DataType::Decimal256(digits, scale) = to {
        let whole = digits_max(from).map(|whole| whole.saturating_add_signed(*scale));
        return *scale >= 0 && whole.is_some_and(|whole| whole <= *digits);
    }
    let keeps_sign = to.is_signed_integer() || from.is_unsigned_integer();
    let is_wider = from.is_integer() && to.primitive_width() > from.primitive_width();
    to.is_integer() && (is_boolean || (keeps_sign && is_wider))
}

/// The most digits that a whole number of a type has.
fn digits_max(kind: &DataType) -> Option<u8> {
    match kind {
        DataType::Int8 | DataType::UInt8 => Some(3),
        DataType::Int16 | DataType::UInt16 => Some(5),
        DataType::Int32 | DataType::UInt32 => Some(10),
        DataType::Int64 => Some(19),
        DataType::UInt64 => Some(20),
        _ => None,
    }
}
