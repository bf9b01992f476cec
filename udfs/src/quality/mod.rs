//! Quality: whether values are what they should be, and bringing them there.
//!
//! `duplicate_count`, `psi`, `ks_statistic` and `distribution_sketch` are aggregates that checks of
//! expectations are made of, and `value_keys` is what checks keep of a file; `zscore`, `mad_score`,
//! `iqr_score` and `isolation_forest_score` are window functions that tell outliers, `mad`, `iqr`
//! and `outlier_bounds` the aggregates beside them. Functions that clean give NULL for what is
//! doubtful, by rules that their pages say: none of them guesses.

use std::sync::Arc;

use datafusion_expr::{AggregateUDF, ScalarUDF, WindowUDF};

use crate::fuzzy::udf;

mod convert_unit;
mod countries;
pub(crate) mod dates;
mod distribution;
pub mod distribution_sketch;
pub mod duplicate_count;
mod held;
pub mod infer_date_order;
pub mod iqr;
pub mod iqr_score;
pub mod isolation_forest_score;
mod json_schema;
#[cfg(test)]
mod json_schema_tests;
mod json_schema_violations;
mod json_values;
pub mod key_sets;
pub mod ks_statistic;
pub mod mad;
pub mod mad_score;
mod normalize_country;
mod normalize_whitespace;
pub mod outlier_bounds;
mod outliers;
mod parse_date_any;
pub mod psi;
mod samples;
mod sketch_ks;
mod sketch_psi;
pub mod value_keys;
pub mod zscore;

pub use convert_unit::is_unit;

/// The package's scalar functions.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        udf::<sketch_psi::SketchPsiFunction>(),
        udf::<sketch_ks::SketchKsFunction>(),
        udf::<parse_date_any::ParseDateAnyFunction>(),
        udf::<normalize_country::NormalizeCountryFunction>(),
        udf::<normalize_whitespace::NormalizeWhitespaceFunction>(),
        udf::<convert_unit::ConvertUnitFunction>(),
        udf::<json_schema_violations::JsonSchemaViolationsFunction>(),
    ]
}

/// The package's aggregates, in documentation order.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    vec![
        Arc::new(AggregateUDF::new_from_impl(duplicate_count::DuplicateCount::new())),
        Arc::new(AggregateUDF::new_from_impl(psi::Psi::new())),
        Arc::new(AggregateUDF::new_from_impl(ks_statistic::KsStatistic::new())),
        Arc::new(AggregateUDF::new_from_impl(distribution_sketch::DistributionSketch::new())),
        Arc::new(AggregateUDF::new_from_impl(mad::Mad::new())),
        Arc::new(AggregateUDF::new_from_impl(iqr::Iqr::new())),
        Arc::new(AggregateUDF::new_from_impl(outlier_bounds::OutlierBounds::new())),
        Arc::new(AggregateUDF::new_from_impl(infer_date_order::InferDateOrder::new())),
    ]
}

/// The package's window functions.
pub fn windows() -> Vec<Arc<WindowUDF>> {
    vec![
        Arc::new(WindowUDF::new_from_impl(zscore::Zscore::new())),
        Arc::new(WindowUDF::new_from_impl(mad_score::MadScore::new())),
        Arc::new(WindowUDF::new_from_impl(iqr_score::IqrScore::new())),
        Arc::new(WindowUDF::new_from_impl(isolation_forest_score::IsolationForestScore::new())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documented;

    #[test]
    fn every_function_is_documented() {
        for function in functions() {
            documented("Quality Functions", function.name(), function.documentation());
        }
        for function in aggregates() {
            documented("Quality Functions", function.name(), function.documentation());
        }
        for function in windows() {
            documented("Quality Functions", function.name(), function.documentation());
        }
    }
}
