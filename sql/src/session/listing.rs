//! What a principal may see: schemas and tables, for metadata calls of clients.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use catalog::policy::Role;
use catalog::{Kind, Object, ObjectName, Pii, Spec};

use crate::error::{Class, Result};
use crate::session::schema::open;
use crate::session::{Session, StatementContext};
use crate::system;

/// Which tables to list; patterns are SQL LIKE patterns (`%`, `_`, `\` escapes).
#[derive(Debug, Clone, Default)]
pub struct TableFilter {
    /// On the schema's name.
    pub schema_pattern: Option<String>,
    /// On the table's name.
    pub name_pattern: Option<String>,
    /// Kinds to keep: `TABLE`, `VIEW`, `SYSTEM TABLE`.
    pub kinds: Option<Vec<String>>,
    /// Whether to open each table for its columns.
    pub with_columns: bool,
}

/// A table as metadata shows it.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `TABLE`, `VIEW` or `SYSTEM TABLE`.
    pub kind: &'static str,
    /// Its columns, when asked for and when it can be opened.
    pub columns: Option<SchemaRef>,
    /// Which columns are pseudonyms, and under which key.
    pub pii: Option<Pii>,
    /// The table that shows what they stand for, where this principal may know of it.
    pub pii_table: Option<String>,
    /// Whether only an express grant gives it.
    pub restricted: bool,
}

/// A table by its name alone.
struct Named {
    name: String,
    kind: &'static str,
    pii: Option<Pii>,
    pii_table: Option<String>,
    restricted: bool,
}

impl Session {
    /// The schemas that this principal sees.
    ///
    /// # Errors
    /// When the principal's rights cannot be read.
    pub async fn schemas(&self) -> Result<Vec<String>> {
        let rights = self.rights().await?;
        let mut schemas = rights.schemas();
        let (sees_all, decides) = (rights.has(Role::Admin), rights.has(Role::PolicyAdmin));
        for ((schema, _), definition) in self.engine().catalog().definitions().await?.iter() {
            // Somebody may own a thing in the schema of another's name, or decide about it.
            let decides = decides && matches!(definition.spec, Spec::Identifiers { .. });
            let sees = sees_all || decides || rights.is_me(Some(&definition.owner));
            if sees && !schemas.contains(schema) {
                schemas.insert(schema.clone());
            }
        }
        Ok(schemas.into_iter().collect())
    }

    /// Tables and views that this principal sees, by schema and name.
    ///
    /// A table that cannot be opened is listed without columns.
    ///
    /// # Errors
    /// When the warehouse cannot be read.
    pub async fn tables(&self, filter: &TableFilter) -> Result<Vec<TableInfo>> {
        // The catalogs of clients are made of this list, so it is listed without them.
        let context = StatementContext::load(self).await?.deeper();
        context.opening().open_for_columns();
        let wanted = |kind: &str| {
            filter.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|wanted| wanted == kind))
        };
        let mut found = Vec::new();
        for schema in self.schemas().await? {
            if !like(filter.schema_pattern.as_deref(), &schema) {
                continue;
            }
            for named in self.names_in(&context, &schema).await? {
                let Named { name, kind, pii, pii_table, restricted } = named;
                if !like(filter.name_pattern.as_deref(), &name) || !wanted(kind) {
                    continue;
                }
                let columns = match filter.with_columns {
                    true => columns(&context, &schema, &name).await,
                    false => None,
                };
                let schema = schema.clone();
                found.push(TableInfo { schema, name, kind, columns, pii, pii_table, restricted });
            }
        }
        Ok(found)
    }

    async fn names_in(&self, context: &StatementContext, schema: &str) -> Result<Vec<Named>> {
        if system::is_system(schema) {
            let names = system::table_names(schema).iter();
            let named = |name: &&str| Named {
                name: (*name).to_owned(),
                kind: "SYSTEM TABLE",
                pii: None,
                pii_table: None,
                restricted: false,
            };
            return Ok(names.map(named).collect());
        }
        let objects = self.engine().catalog().objects(schema).await?;
        let label = |kind| match kind {
            Kind::Table => Some("TABLE"),
            Kind::View => Some("VIEW"),
            Kind::Model
            | Kind::User
            | Kind::Role
            | Kind::Token
            | Kind::Expectations
            | Kind::Key
            | Kind::Purpose
            | Kind::Consent
            | Kind::Subject
            | Kind::PrivacyPolicy
            | Kind::Release
            | Kind::Policies => None,
        };
        let rights = context.rights();
        let sees = |name: &str, object: &Object| {
            rights.access(&ObjectName::new(schema, name), Some(object)).is_any()
        };
        // Who decides who reads a table of identifiers knows of it.
        let knows = |name: &&String| {
            let sees = |object| sees(name.as_str(), object);
            rights.has(Role::PolicyAdmin) || objects.get(*name).is_some_and(sees)
        };
        let seen = |(name, object): (&String, &Object)| {
            let kind = label(object.kind)?;
            let beside = object.pii.as_ref().map(|pii| &pii.table);
            sees(name, object).then(|| Named {
                name: name.clone(),
                kind,
                pii: object.pii.clone(),
                pii_table: beside.filter(knows).cloned(),
                restricted: object.is_restricted(),
            })
        };
        Ok(objects.iter().filter_map(seen).collect())
    }

    /// Schema and name of every table that this principal sees.
    pub(crate) async fn table_names(&self) -> Result<Vec<(String, String)>> {
        let tables = self.tables(&TableFilter::default()).await?;
        Ok(tables.into_iter().map(|table| (table.schema, table.name)).collect())
    }
}

async fn columns(context: &Arc<StatementContext>, schema: &str, name: &str) -> Option<SchemaRef> {
    if let Some(known) = system::columns_of_columns(schema, name) {
        return Some(known);
    }
    match open(context, &ObjectName::new(schema, name)).await {
        Ok(table) => table.map(|table| table.schema()),
        // A view may be seen by somebody who may not read what it stands on.
        Err(error) if error.class() == Class::Denied => None,
        Err(error) => {
            let (table, why) = (format!("{schema}.{name}"), error.for_log());
            tracing::warn!(table, why, "listed without columns");
            None
        }
    }
}

/// SQL LIKE with `\` as escape; no pattern matches everything.
pub(crate) fn like(pattern: Option<&str>, text: &str) -> bool {
    let Some(pattern) = pattern else { return true };
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // reach[t]: the pattern so far matches the first t characters.
    let mut reach = vec![false; text.len() + 1];
    reach[0] = true;
    let mut at = 0;
    while at < pattern.len() {
        let mut next = vec![false; text.len() + 1];
        let (literal, any) = match pattern[at] {
            '\\' if at + 1 < pattern.len() => {
                at += 1;
                (Some(pattern[at]), false)
            }
            '%' => (None, true),
            '_' => (None, false),
            other => (Some(other), false),
        };
        if any {
            let mut seen = false;
            for (here, reached) in next.iter_mut().zip(&reach) {
                seen |= *reached;
                *here = seen;
            }
        } else {
            for (index, character) in text.iter().enumerate() {
                next[index + 1] = reach[index] && literal.is_none_or(|wanted| wanted == *character);
            }
        }
        reach = next;
        at += 1;
    }
    reach[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_patterns_match_as_in_sql() {
        for (pattern, text, matches) in [
            ("%", "", true),
            ("or%s", "orders", true),
            ("o_ders", "orders", true),
            ("o\\_ders", "orders", false),
            ("o\\_d%", "o_ders", true),
            ("orders", "orders2", false),
            ("%%a%", "xya", true),
        ] {
            assert_eq!(like(Some(pattern), text), matches, "{pattern} {text}");
        }
    }
}
