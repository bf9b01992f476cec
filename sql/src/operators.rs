//! Kinds of operators.

use datafusion::logical_expr::Operator;

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
