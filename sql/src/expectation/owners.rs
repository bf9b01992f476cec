//! What checks at load read beside the rows that pass: tables in which they look values up, and
//! those with which they compare.
//!
//! Who writes rows need not be able to read these tables, and learns of them no more than whether
//! the rows meet the expectation. They are read as the expectation's owner, whose text it is, with
//! the owner's rights of now, and a name means what it means to the owner in the table's schema: no
//! setting of who writes changes what is asked. Where the owner is no user any more, nobody can say
//! what may be read, and no rows are let in.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use catalog::ObjectName;
use datafusion::catalog::TableProvider;
use datafusion::datasource::ViewTable;
use sqlparser::ast::{Expr, Query, visit_expressions, visit_expressions_mut};

use super::check::{Shape, parsed};
use super::query::Item;
use crate::dml::sent::name_rows;
use crate::error::{Error, Result};
use crate::parse::parse_query;
use crate::rights;
use crate::session::{Origin, SessionOptions, Settings, StatementContext};

/// The name that the session of an owner gives as its client.
const CLIENT: &str = "expectation";

/// Puts in place of each query that a check holds one under which `context` finds its rows as the
/// expectation's owner sees them.
///
/// # Errors
/// When the owner cannot read them.
pub(super) async fn read_as_owners(
    context: &Arc<StatementContext>,
    table: &ObjectName,
    items: &mut [Item],
) -> Result<()> {
    let mut readers: BTreeMap<String, Arc<StatementContext>> = BTreeMap::new();
    for item in items {
        let written = queries(&item.check.shape)?;
        if written.is_empty() {
            continue;
        }
        let owner = &item.expectation.owner;
        let reader = match readers.get(owner) {
            Some(known) => Arc::clone(known),
            None => {
                let reader = reader(context, table, owner).await?;
                readers.insert(owner.clone(), Arc::clone(&reader));
                reader
            }
        };
        let mut named: BTreeMap<String, Box<Query>> = BTreeMap::new();
        for text in written {
            let (_, plan) = reader.plan_query(parse_query(&text)?).await?;
            let rows: Arc<dyn TableProvider> = Arc::new(ViewTable::new(plan, None));
            let name = name_rows(context, rows);
            named.insert(text, parse_query(&format!("SELECT * FROM {name}"))?);
        }
        replace(&mut item.check.shape, &named)?;
    }
    Ok(())
}

/// The context in which an owner reads.
async fn reader(
    context: &Arc<StatementContext>,
    table: &ObjectName,
    owner: &str,
) -> Result<Arc<StatementContext>> {
    let engine = context.engine();
    let Some(principal) = rights::owner(engine.catalog(), owner).await? else {
        return Err(Error::invalid_hint(
            format!("{owner}, who expects it, is no user"),
            format!("REASSIGN OWNED BY {owner} TO a user who may read what it looks up"),
        ));
    };
    let origin = Origin::new(Some(CLIENT), None);
    let options = SessionOptions { origin, ..SessionOptions::default() };
    let session = engine.session_with(principal, options);
    let settings = Settings { schema: table.schema.clone(), ..Settings::default() };
    StatementContext::with_settings(&session, settings).await
}

/// The queries that a check holds, each once.
fn queries(shape: &Shape) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    match shape {
        Shape::Rows { .. } => {}
        Shape::Reference { query, .. } => {
            found.insert(query.clone());
        }
        Shape::Table { condition, observed, .. } => {
            for text in std::iter::once(condition).chain(observed) {
                let expr = parsed(text)?;
                let _: ControlFlow<()> = visit_expressions(&expr, |part| {
                    if let Expr::Subquery(query) = part {
                        found.insert(query.to_string());
                    }
                    ControlFlow::Continue(())
                });
            }
        }
    }
    Ok(found)
}

fn replace(shape: &mut Shape, named: &BTreeMap<String, Box<Query>>) -> Result<()> {
    match shape {
        Shape::Rows { .. } => {}
        Shape::Reference { query, .. } => {
            if let Some(rows) = named.get(query.as_str()) {
                *query = rows.to_string();
            }
        }
        Shape::Table { condition, observed, .. } => {
            for text in std::iter::once(condition).chain(observed) {
                let mut expr = parsed(text)?;
                let _: ControlFlow<()> = visit_expressions_mut(&mut expr, |part| {
                    if let Expr::Subquery(query) = part
                        && let Some(rows) = named.get(&query.to_string())
                    {
                        *query = rows.clone();
                    }
                    ControlFlow::Continue(())
                });
                *text = expr.to_string();
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::check::check;
    use super::*;

    #[test]
    fn each_query_of_a_check_is_replaced() {
        for (text, count) in [
            ("price > 0", 0),
            ("max(price) > 0", 0),
            ("customer IN (SELECT id FROM customers)", 1),
            ("drift_psi(price, last_year.price) < 0.25", 1),
            ("drift_ks(a, t.b) < 0.1 AND drift_ks(a, u.b) < 0.1", 2),
        ] {
            let mut shape = check(text, None, |name| name == "max").unwrap().shape;
            let before = shape.clone();
            let found = queries(&shape).unwrap();
            assert_eq!(found.len(), count, "{text}: {found:?}");
            let other = || parse_query("SELECT * FROM \"main\".\"rows 1\"").unwrap();
            let named: BTreeMap<_, _> = found.into_iter().map(|text| (text, other())).collect();
            replace(&mut shape, &named).unwrap();
            if count == 0 {
                continue;
            }
            assert_ne!(shape, before, "{text}");
            let after = queries(&shape).unwrap();
            assert_eq!(after.into_iter().collect::<Vec<_>>(), [other().to_string()], "{text}");
        }
    }
}
