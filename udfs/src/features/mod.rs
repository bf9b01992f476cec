//! Features: what a person's events say about them, computed where the events are.
//!
//! `time_since_last`, `purchase_frequency` and `interaction_sequence` are aggregates over the
//! events of a group, `sessionize` is a window function over the events of a person in order, and
//! `time_decay` weighs an event by its age. None of them asks for the time: a query passes `now()`
//! or a date of its own, so that a feature of last March can be computed today.

use std::sync::Arc;

use datafusion_expr::{AggregateUDF, ScalarUDF, WindowUDF};

pub(crate) mod groups;
pub mod interaction_sequence;
pub mod purchase_frequency;
pub mod sessionize;
pub mod time_decay;
pub mod time_since_last;
mod times;

/// The package's scalar functions.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(ScalarUDF::new_from_impl(time_decay::TimeDecay::new()))]
}

/// The package's aggregates, in documentation order.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    vec![
        Arc::new(AggregateUDF::new_from_impl(time_since_last::TimeSinceLast::new())),
        Arc::new(AggregateUDF::new_from_impl(purchase_frequency::PurchaseFrequency::new())),
        Arc::new(AggregateUDF::new_from_impl(interaction_sequence::InteractionSequence::new())),
    ]
}

/// The package's window functions.
pub fn windows() -> Vec<Arc<WindowUDF>> {
    vec![Arc::new(WindowUDF::new_from_impl(sessionize::Sessionize::new()))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documented;

    #[test]
    fn every_function_is_documented() {
        for function in functions() {
            documented("Feature Functions", function.name(), function.documentation());
        }
        for function in aggregates() {
            documented("Feature Functions", function.name(), function.documentation());
        }
        for function in windows() {
            documented("Feature Functions", function.name(), function.documentation());
        }
    }
}
