//! Bringing names, addresses and numbers into one spelling before they are compared.
//!
//! Each function gives the same text for spellings of the same thing, and gives its own result back
//! unchanged (`f(f(x)) = f(x)`); `title_case` writes a name for people. NULL in, NULL out.

use std::sync::Arc;

use datafusion_expr::ScalarUDF;

use crate::fuzzy::udf;

pub(crate) mod normalize_address;
mod normalize_email;
pub(crate) mod normalize_name;
mod normalize_phone;
mod title_case;

pub use normalize_phone::has_numbering_plan;

/// The package's functions.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        udf::<normalize_name::NormalizeNameFunction>(),
        udf::<normalize_email::NormalizeEmailFunction>(),
        udf::<normalize_phone::NormalizePhoneFunction>(),
        udf::<normalize_address::NormalizeAddressFunction>(),
        udf::<title_case::TitleCaseFunction>(),
    ]
}
