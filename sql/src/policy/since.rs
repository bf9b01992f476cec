//! Policies that are newer than a model: what it has learned is more than they leave of its tables.
//!
//! A model remembers the tables that it was trained from, and the policies that they were under
//! then, whomever these bound. Whoever is bound by another one on one of the tables by now does not
//! ask the model until it is retrained. Whom a model was trained by decides what it tells, as ever.

use std::collections::BTreeMap;

use catalog::models::LoadedModel;
use catalog::policy::{Policy, Rule, TableRules};
use catalog::privacy_policies::PrivacyPolicy;
use catalog::{Catalog, ObjectName};
use sha2::{Digest, Sha256};
use udfs::privacy::subject_token::hexadecimal;

use super::bound::Bound;
use super::closed;
use crate::error::{Error, Result};
use crate::session::StatementContext;

/// How many bytes of a hash a policy is known by.
const VERSION_BYTES: usize = 16;

/// The policies of tables, each with what it is known by.
pub(crate) type Versions = BTreeMap<String, BTreeMap<String, String>>;

/// A policy as it is now.
struct Present<'a> {
    name: &'a str,
    /// What sentences and models call it: `masking policy m on tag pii.email`.
    label: String,
    version: String,
}

/// The policies among a table's rules, whomever they bind. Retention binds all alike, and is none
/// of them.
fn present(rules: &TableRules) -> Result<Vec<Present<'_>>> {
    let mut found = Vec::new();
    let mut add = |name, policy: &Policy, tag: Option<&str>| -> Result<()> {
        if matches!(policy.rule, Rule::Retention { .. }) {
            return Ok(());
        }
        let mut label = format!("{} policy {name}", policy.rule.kind());
        let mut columns = Vec::new();
        if let Some(tag) = tag {
            label.push_str(&format!(" on tag {tag}"));
            columns.extend(rules.tagged(tag));
        }
        found.push(Present {
            name,
            label,
            version: version(serde_json::to_vec(&(policy, columns)))?,
        });
        Ok(())
    };
    for (name, policy) in &rules.own.policies {
        add(name.as_str(), policy, None)?;
    }
    for (tag, policies) in &rules.by_tag {
        for (name, policy) in policies {
            add(name.as_str(), policy, Some(tag.as_str()))?;
        }
    }
    Ok(found)
}

/// What a policy is known by: another one in its place, or on other columns, is not the same.
fn version(text: serde_json::Result<Vec<u8>>) -> Result<String> {
    let text = text.map_err(|error| Error::Internal(format!("a policy has no text: {error}")))?;
    let digest = Sha256::digest(&text);
    Ok(hexadecimal(digest.get(..VERSION_BYTES).unwrap_or_default()))
}

fn privacy(policy: &PrivacyPolicy) -> Result<(String, String)> {
    // What may be spent changes nothing of what has been learned.
    let text = serde_json::to_vec(&(&policy.name, &policy.unit_column, &policy.source));
    let version = version(text)?;
    Ok((format!("privacy policy {}", policy.name), version))
}

/// The policies among a table's rules, each with what it is known by.
///
/// # Errors
/// When a policy cannot be written as text.
pub(super) fn of_rules(rules: &TableRules) -> Result<BTreeMap<String, String>> {
    Ok(present(rules)?.into_iter().map(|found| (found.label, found.version)).collect())
}

/// The policies, whomever they bind, that the tables of a name are under now, each with what it is
/// known by.
///
/// # Errors
/// When they cannot be read, or written as text.
pub(crate) async fn policies_of(catalog: &Catalog, read: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for table in tables(read) {
        if let Some(policy) = catalog.privacy_policy(&table).await? {
            found.extend([privacy(&policy)?]);
        }
        found.extend(of_rules(&catalog.table_rules(&table).await?)?);
    }
    Ok(found)
}

/// Notes that a statement opens a table under a privacy policy.
///
/// # Errors
/// When the policy cannot be written as text.
pub(crate) fn note_privacy(
    context: &StatementContext,
    table: &ObjectName,
    policy: &PrivacyPolicy,
) -> Result<()> {
    context.policies().note_versions(table, [privacy(policy)?].into());
    Ok(())
}

/// Checks that a model knows no more than the policies leave of its tables that bind the principal
/// by now.
///
/// # Errors
/// When one of them came, or changed, after the model was trained, or cannot be read.
pub(crate) async fn check_model(context: &StatementContext, model: &LoadedModel) -> Result<()> {
    for read in &model.manifest.read_from {
        let known = model.manifest.policies.get(read);
        for table in tables(read) {
            if let Some(policy) = newer(context, &table, known).await? {
                return Err(refused(context, model, &table, &policy).await);
            }
        }
    }
    Ok(())
}

/// The tables of which this is the name; it may have more dots than one.
fn tables(read: &str) -> impl Iterator<Item = ObjectName> + Send + '_ {
    read.match_indices('.').filter_map(|(dot, _)| {
        let (schema, name) = read.split_at_checked(dot)?;
        Some(ObjectName::new(schema, name.strip_prefix('.')?))
    })
}

/// A policy of a table that binds the principal, and is not known to a model.
async fn newer(
    context: &StatementContext,
    table: &ObjectName,
    known: Option<&BTreeMap<String, String>>,
) -> Result<Option<String>> {
    let is_known = |label: &str, version: &str| {
        known.and_then(|known| known.get(label)).is_some_and(|known| known == version)
    };
    let catalog = context.engine().catalog();
    if let Some(policy) = catalog.privacy_policy(table).await? {
        let (label, version) = privacy(&policy)?;
        if !is_known(&label, &version) {
            return Ok(Some(label));
        }
    }
    let rules = catalog.table_rules(table).await?;
    if rules.is_free() {
        return Ok(None);
    }
    let bound = Bound::of(&rules, context.rights().roles());
    let bound = bound.map_err(|error| closed(context, table, error))?;
    let newer = present(&rules)?.into_iter().find(|policy| {
        bound.names.contains(policy.name) && !is_known(&policy.label, &policy.version)
    });
    Ok(newer.map(|policy| policy.label))
}

/// The table is named to those who may see it: who may ask a model need not.
async fn refused(
    context: &StatementContext,
    model: &LoadedModel,
    table: &ObjectName,
    policy: &str,
) -> Error {
    let action = match context.access(table).await.is_any() {
        true => format!(
            "ask {model}, which learned from {table} before the {policy} was set on it as it is now"
        ),
        false => format!(
            "ask {model}, which learned from a table before a policy was set on it as it is now"
        ),
    };
    Error::Denied {
        principal: context.rights().name().to_owned(),
        action,
        hint: Some(format!(
            "whoever owns the model runs RETRAIN MODEL {}, which learns under the policy",
            model.name
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rule: Rule, created_ms: i64) -> Policy {
        Policy { rule, except: ["auditor".to_owned()].into(), owner: "dpo".into(), created_ms }
    }

    #[test]
    fn a_policy_is_known_by_what_it_does_and_when_it_was_made() {
        let predicate = |text: &str| Rule::RowAccess { predicate: text.into() };
        let mut rules = TableRules::default();
        let mut known = Vec::new();
        for (text, created_ms) in [("a > 1", 1), ("a > 2", 1), ("a > 2", 2)] {
            rules.own.policies.insert("p".into(), policy(predicate(text), created_ms));
            let found = of_rules(&rules).unwrap();
            assert_eq!(found, of_rules(&rules).unwrap());
            assert_eq!(found.keys().collect::<Vec<_>>(), ["row access policy p"]);
            assert!(!known.contains(&found));
            known.push(found);
        }
    }

    #[test]
    fn a_policy_on_a_tag_is_another_one_on_other_columns() {
        let mask = Rule::Masking { column: String::new(), expression: "NULL".into() };
        let mut rules = TableRules::default();
        rules.by_tag.insert("pii".into(), [("m".to_owned(), policy(mask, 1))].into());
        rules.own.tags.insert("mail".into(), ["pii".to_owned()].into());
        let before = of_rules(&rules).unwrap();
        assert_eq!(before.keys().collect::<Vec<_>>(), ["masking policy m on tag pii"]);
        rules.own.tags.insert("phone".into(), ["pii".to_owned()].into());
        assert_ne!(of_rules(&rules).unwrap(), before);
        let keep = Rule::Retention {
            column: "at".into(),
            keep: "1 day".into(),
            keep_ms: 86_400_000,
            keeps_null: false,
        };
        let mut kept = TableRules::default();
        kept.own.policies.insert("k".into(), policy(keep, 1));
        assert!(of_rules(&kept).unwrap().is_empty());
    }

    #[test]
    fn a_name_with_dots_may_be_that_of_several_tables() {
        let found: Vec<String> = tables("main.t").map(|table| table.schema).collect();
        assert_eq!(found, ["main"]);
        let found: Vec<ObjectName> = tables("a.b.c").collect();
        assert_eq!(found, [ObjectName::new("a", "b.c"), ObjectName::new("a.b", "c")]);
    }
}
