//! What stands beneath a view or a model: the tables that its text reads, through views and models
//! on the way.
//!
//! It is found in texts alone, so that nobody needs a right to what they name. A name without a
//! schema is looked for in the object's own schema, its owner's, `main` and `lake`. A name that a
//! query of its own has as well counts as the table. What is not found is told.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use catalog::{Catalog, ObjectName, Spec};
use sqlparser::ast::{Query, Statement as SqlStatement, TableFactor, Visit, Visitor};

use crate::engine::MAIN;
use crate::error::Result;
use crate::parse::{name_parts, parse_query};
use crate::session::bindings::References;
use crate::{over_query, system};

/// Where names are looked for at last.
const LAKE: &str = "lake";

/// What stands beneath something.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Beneath {
    pub(super) tables: BTreeSet<ObjectName>,
    /// What cannot be told, in words.
    pub(super) unknown: BTreeSet<String>,
}

/// What stands beneath a view or model.
pub(super) async fn of(catalog: &Catalog, name: &ObjectName) -> Beneath {
    let mut beneath = Beneath::default();
    let mut met = BTreeSet::from([name.clone()]);
    let mut open = vec![name.clone()];
    while let Some(object) = open.pop() {
        let (text, owner) = match catalog.definition(&object).await {
            Ok(Some(found)) => match found.spec {
                Spec::View { sql, .. } => (sql, found.owner),
                Spec::Model(head) => (head.query, found.owner),
                _ => {
                    beneath.tables.insert(object);
                    continue;
                }
            },
            // A table that a lake has by itself.
            Ok(None) => {
                beneath.tables.insert(object);
                continue;
            }
            Err(error) => {
                beneath.unknown.insert(format!("{object} cannot be read: {error}"));
                continue;
            }
        };
        let Ok(named) = Named::in_text(&text) else {
            beneath.unknown.insert(format!("the text of {object} cannot be read"));
            continue;
        };
        for parts in &named.parts {
            match meant(catalog, &object, &owner, parts).await {
                Ok(Some(found)) => {
                    if met.insert(found.clone()) {
                        open.push(found);
                    }
                }
                Ok(None) if named.is_own(parts) => {}
                Ok(None) => {
                    let written = parts.join(".");
                    beneath.unknown.insert(format!("{object} reads {written}, which is not there"));
                }
                Err(what) => {
                    beneath.unknown.insert(what);
                }
            }
        }
    }
    beneath
}

/// The object that a name in a text means; the error is a sentence.
async fn meant(
    catalog: &Catalog,
    object: &ObjectName,
    owner: &str,
    parts: &[String],
) -> Result<Option<ObjectName>, String> {
    let candidates: Vec<ObjectName> = match parts {
        [name] => [object.schema.as_str(), owner, MAIN, LAKE]
            .iter()
            .map(|schema| ObjectName::new(*schema, name))
            .collect(),
        [schema, name] | [_, schema, name] => vec![ObjectName::new(schema, name)],
        _ => vec![],
    };
    for candidate in candidates {
        match catalog.object(&candidate).await {
            Ok(Some(_)) => return Ok(Some(candidate)),
            Ok(None) => {}
            Err(error) => return Err(format!("{candidate} cannot be read: {error}")),
        }
    }
    Ok(None)
}

/// What a text names.
#[derive(Debug, Default)]
struct Named {
    /// Tables, views and models, in the parts of their names.
    parts: BTreeSet<Vec<String>>,
    /// Names that it gives to queries of its own.
    own: BTreeSet<String>,
}

impl Named {
    /// # Errors
    /// When the text is no query.
    fn in_text(text: &str) -> Result<Self> {
        let mut statement = SqlStatement::Query(parse_query(text)?);
        over_query::plain(&mut statement)?;
        let mut named = Self::default();
        // The visitor never breaks.
        let _ = Visit::visit(&statement, &mut named);
        for written in References::of(&statement).models {
            let name = written.rsplit_once('@').map_or(written.as_str(), |(name, _)| name);
            named.parts.insert(name.split('.').map(str::to_owned).collect());
        }
        Ok(named)
    }

    /// Whether a name that is nothing else is one of the text's own, or of the system.
    fn is_own(&self, parts: &[String]) -> bool {
        match parts {
            [name] => self.own.contains(name),
            [schema, _] | [_, schema, _] => system::is_system(schema),
            _ => false,
        }
    }
}

impl Visitor for Named {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for defined in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.own.insert(crate::dialect::folded(&defined.alias.name));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: None, .. } = factor {
            self.parts.insert(name_parts(name));
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_tables_and_models_wherever_they_stand() {
        let named = Named::in_text(
            "WITH own AS (SELECT * FROM crm) SELECT a.n, ml_score('main.shop@3', 'u', 'i') \
             FROM own a JOIN lake.clicks c ON a.id = c.id WHERE a.n IN (SELECT n FROM b) \
             AND a.n > (SELECT max(n) FROM generate_series(1, 3) AS s (n))",
        )
        .unwrap();
        let parts: Vec<String> = named.parts.iter().map(|parts| parts.join(".")).collect();
        assert_eq!(parts, ["b", "crm", "lake.clicks", "main.shop", "own"]);
        assert!(named.is_own(&["own".to_owned()]) && !named.is_own(&["crm".to_owned()]));
        let rows = "SELECT * FROM anonymize('crm', quasi_identifiers => 'age', k => 2)";
        let parts = Named::in_text(rows).unwrap().parts;
        assert_eq!(parts, BTreeSet::from([vec!["crm".to_owned()]]));
        assert!(Named::in_text("DROP TABLE crm").is_err());
    }
}
