//! placeholder
use std::sync::Arc;

use datafusion_expr::{AggregateUDF, ScalarUDF};

/// The package's scalar functions.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![]
}

/// The package's aggregates.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    vec![]
}
