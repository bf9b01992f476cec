//! placeholder
use std::sync::Arc;

use datafusion_expr::ScalarUDF;

/// The package's functions.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![]
}
