//! The recipes of `sql/recipes` that bring their own data run as they stand, and what they say has
//! to hold does: every answer with a column `holds` is TRUE in each row, and every recipe has one.
//! The case study, which needs the shop of `attune demo`, runs with that program's tests.

use std::path::Path;

use arrow::array::{Array, AsArray};
use catalog::policy::Principal;
use futures::StreamExt;
use sql::Session;

#[tokio::test(flavor = "multi_thread")]
async fn the_recipes_run_and_what_they_say_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/recipes");
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut recipes: Vec<_> = entries.filter(|path| !path.ends_with("01_case_study.sql")).collect();
    recipes.sort();
    assert!(!recipes.is_empty());
    for recipe in recipes {
        let warehouse = tempfile::tempdir().unwrap();
        let engine = crate::slt::engine(warehouse.path()).await;
        let session = engine.session(Principal::embedded());
        let script = std::fs::read_to_string(&recipe).unwrap();
        let mut held = 0;
        for statement in attune::cli::lexer::split(&script) {
            held += run(&session, statement, &recipe).await;
        }
        assert!(held > 0, "{} says nothing that has to hold", recipe.display());
    }
}

/// Runs a statement; gives the number of rows that say that something holds.
async fn run(session: &Session, statement: &str, recipe: &Path) -> usize {
    let place = format!("{}: {statement}", recipe.display());
    let answer = session.query(statement).await.unwrap_or_else(|error| panic!("{place}: {error}"));
    let mut rows = answer.rows;
    let mut held = 0;
    let mut is_empty_claim = answer.schema.index_of("holds").is_ok();
    while let Some(batch) = rows.next().await {
        let batch = batch.unwrap_or_else(|error| panic!("{place}: {error}"));
        let Some(holds) = batch.column_by_name("holds") else { continue };
        let holds = holds.as_boolean();
        assert!(holds.null_count() == 0 && holds.true_count() == holds.len(), "{place}");
        held += holds.len();
        is_empty_claim &= holds.is_empty();
    }
    assert!(!is_empty_claim, "{place}: no row");
    held
}
