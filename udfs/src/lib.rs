//! How to compute: Attune's SQL functions, aggregates and learners.
//!
//! Architecture invariant: everything here is a pure function of its inputs, Arrow arrays and
//! bound values in, Arrow arrays out; learners work on slices. There is no I/O (where what does not
//! fit in memory goes is an argument), no async, no clock, no randomness of its own (a generator is
//! an argument) and no name of a table.
//!
//! One SQL function is one file; its `#[user_doc]` feeds `docs/functions.md`, `SHOW FUNCTIONS`
//! and the shell's help and completion. A package is a folder whose `mod.rs` lists its functions.

use std::sync::Arc;

use datafusion_expr::{AggregateUDF, ScalarUDF, WindowUDF};

pub mod compact;
pub mod consent;
pub mod features;
pub mod fuzzy;
pub mod identity;
pub mod model;
pub mod privacy;
pub mod quality;
pub mod recommend;
pub mod text;

/// Every scalar function that needs no binding, in documentation order.
pub fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    [
        fuzzy::functions(),
        identity::functions(),
        privacy::functions(),
        features::functions(),
        quality::functions(),
    ]
    .concat()
}

/// Every aggregate function.
pub fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    [privacy::aggregates(), features::aggregates(), quality::aggregates()].concat()
}

/// Every window function.
pub fn window_functions() -> Vec<Arc<WindowUDF>> {
    [features::windows(), quality::windows()].concat()
}

/// Holds a function's documentation to be whole: its section, syntax, example and arguments.
#[cfg(test)]
pub(crate) fn documented(
    section: &str,
    name: &str,
    documentation: Option<&datafusion_expr::Documentation>,
) {
    let documentation = documentation.expect(name);
    assert_eq!(documentation.doc_section.label, section, "{name}");
    assert!(documentation.syntax_example.starts_with(&format!("{name}(")), "{name}");
    let example = documentation.sql_example.as_deref().expect(name);
    assert!(example.contains(&format!("{name}(")), "{name}");
    assert!(documentation.arguments.as_ref().is_some_and(|a| !a.is_empty()), "{name}");
}
