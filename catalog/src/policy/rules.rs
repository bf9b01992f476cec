//! Policies and tags: one document a table and one a tag, in the warehouse, so that every server
//! over it knows the same.
//!
//! A document is changed by compare-and-swap. It is at most a second old when a statement starts,
//! and one that cannot be read closes what it protects. Policies belong to a name: they stay when
//! the table is dropped or replaced, so that whatever has the name later is protected too, until a
//! policy administrator drops them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::registry::change::{Step, TRIES, held};
use crate::registry::{Definitions, Head, ObjectName, Spec};

/// Policies of one table or tag.
pub const POLICIES_MAX: usize = 100;
/// Where tags are in their registry; a table's schema begins with [`TABLES`] there.
const TAGS: &str = "tag";
/// What stands before a table's schema in the registry.
const TABLES: &str = "table ";

/// What a policy does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Rule {
    /// A column shows the value of an expression in place of its own.
    Masking {
        /// The column; empty for the columns of a tag.
        column: String,
        /// The expression over the table's columns, or over `value` for the columns of a tag.
        expression: String,
    },
    /// Only rows for which the condition is true exist.
    RowAccess {
        /// The condition over the table's columns.
        predicate: String,
    },
    /// Columns are used, and not shown.
    Projection {
        /// The columns; empty for the columns of a tag.
        columns: Vec<String>,
    },
    /// Rows are seen in groups alone, and small groups not at all.
    Aggregation {
        /// The column that names whom a row is of; none: each row counts.
        unit: Option<String>,
        /// The smallest group.
        min_group_size: u64,
    },
    /// Rows are there for a length of time, and for nobody afterwards.
    Retention {
        /// The column with each row's time: a date, or a timestamp with or without a zone.
        column: String,
        /// How long, as it was written.
        keep: String,
        /// The same in milliseconds.
        keep_ms: i64,
        /// Whether rows without a time are kept.
        #[serde(default)]
        keeps_null: bool,
    },
}

impl Rule {
    /// The kind's words, as in CREATE … POLICY.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Masking { .. } => "masking",
            Self::RowAccess { .. } => "row access",
            Self::Projection { .. } => "projection",
            Self::Aggregation { .. } => "aggregation",
            Self::Retention { .. } => "retention",
        }
    }

    /// The expression, where it has one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Masking { expression, .. } => Some(expression),
            Self::RowAccess { predicate } => Some(predicate),
            Self::Projection { .. } | Self::Aggregation { .. } | Self::Retention { .. } => None,
        }
    }

    /// How long rows are kept, in words: `400 days`, `400 days or NULL`.
    pub fn kept(&self) -> Option<String> {
        match self {
            Self::Retention { keep, keeps_null: true, .. } => Some(format!("{keep} or NULL")),
            Self::Retention { keep, .. } => Some(keep.clone()),
            _ => None,
        }
    }

    /// Whether it protects rows as `other` would: it is the same, keeps them no longer, or shows
    /// nothing of the column that the other masks.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Retention { column, keep_ms, keeps_null, .. },
                Self::Retention { column: of, keep_ms: longest, keeps_null: may_keep, .. },
            ) => column == of && keep_ms <= longest && (*may_keep || !*keeps_null),
            // The strictest mask.
            (Self::Masking { column, expression }, Self::Masking { column: of, .. })
                if expression == "NULL" =>
            {
                column == of
            }
            _ => self == other,
        }
    }

    /// The columns that it is on by name.
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Self::Masking { column, .. } if column.is_empty() => vec![],
            Self::Masking { column, .. } | Self::Retention { column, .. } => vec![column.as_str()],
            Self::Projection { columns } => columns.iter().map(String::as_str).collect(),
            Self::Aggregation { unit, .. } => unit.iter().map(String::as_str).collect(),
            Self::RowAccess { .. } => vec![],
        }
    }
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What it does.
    pub rule: Rule,
    /// The roles whose holders it does not bind while the role is active.
    #[serde(default)]
    pub except: BTreeSet<String>,
    /// Who created it.
    pub owner: String,
    /// When, in Unix milliseconds.
    pub created_ms: i64,
}

impl Policy {
    /// Whether it protects rows as one that they need would, from whomever that one does.
    pub fn covers(&self, needed: &Self) -> bool {
        self.rule.covers(&needed.rule) && self.except.is_subset(&needed.except)
    }

    /// Whether it binds somebody with these active roles.
    pub fn binds(&self, roles: &BTreeSet<String>) -> bool {
        self.except.is_disjoint(roles)
    }
}

/// What holds for one table, or for the columns of one tag.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSet {
    /// The policies by name.
    #[serde(default)]
    pub policies: BTreeMap<String, Policy>,
    /// The tags of each column; of a table alone.
    #[serde(default)]
    pub tags: BTreeMap<String, BTreeSet<String>>,
    /// Of a document: the making of the table whose policies and tags are in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<String>,
}

impl RuleSet {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty() && self.tags.is_empty()
    }

    /// Adds a policy, in place of one of its name when `replace` is set.
    ///
    /// # Errors
    /// When the name is taken and `replace` is not set; when there are too many.
    pub fn add(&mut self, name: &str, policy: Policy, replace: bool) -> Result<()> {
        if self.policies.contains_key(name) && !replace {
            return Err(Error::AlreadyExists { kind: "policy", name: name.into() });
        }
        if self.policies.len() >= POLICIES_MAX && !self.policies.contains_key(name) {
            return Err(Error::invalid_hint(
                format!("a table or tag has at most {POLICIES_MAX} policies"),
                "join conditions by AND, or drop policies that are not used",
            ));
        }
        self.policies.insert(name.to_owned(), policy);
        Ok(())
    }
}

/// What policies are attached to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attached {
    /// A table.
    Table(ObjectName),
    /// All columns with a tag.
    Tag(String),
}

impl Attached {
    /// The place of its document.
    fn place(&self) -> ObjectName {
        match self {
            Self::Table(table) => ObjectName::new(format!("{TABLES}{}", table.schema), &table.name),
            Self::Tag(tag) => ObjectName::new(TAGS, tag),
        }
    }

    fn at(schema: &str, name: &str) -> Option<Self> {
        match schema.strip_prefix(TABLES) {
            Some(schema) => Some(Self::Table(ObjectName::new(schema, name))),
            None => (schema == TAGS).then(|| Self::Tag(name.to_owned())),
        }
    }
}

impl fmt::Display for Attached {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(table) => table.fmt(formatter),
            Self::Tag(tag) => write!(formatter, "tag {tag}"),
        }
    }
}

/// A moment of all policies, also those of privacy, of where ids of persons are, and of what is
/// known of those who must not be seen: what was planned at one does not hold at another.
#[derive(Debug, Clone)]
pub struct PolicyMoment([Weak<Definitions>; 4]);

impl PolicyMoment {
    /// Whether none of these has changed between the two.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(one, other)| Weak::ptr_eq(one, other))
    }
}

/// What holds for one table: its own rules, and those of the tags of its columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableRules {
    /// The table's own.
    pub own: RuleSet,
    /// The policies of each tag that one of its columns has.
    pub by_tag: BTreeMap<String, BTreeMap<String, Policy>>,
}

impl TableRules {
    /// Whether no policy holds for the table, whoever asks.
    pub fn is_free(&self) -> bool {
        self.own.policies.is_empty() && self.by_tag.values().all(BTreeMap::is_empty)
    }

    /// The columns with a tag.
    pub fn tagged<'a>(&'a self, tag: &'a str) -> impl Iterator<Item = &'a str> {
        let tagged = self.own.tags.iter().filter(move |(_, tags)| tags.contains(tag));
        tagged.map(|(column, _)| column.as_str())
    }
}

impl Catalog {
    /// The present moment of all policies, at most a second ago.
    ///
    /// # Errors
    /// When the warehouse cannot be reached: then nothing protected can be read.
    pub async fn policy_moment(&self) -> Result<PolicyMoment> {
        Ok(PolicyMoment([
            Arc::downgrade(&self.policies.definitions().await?),
            Arc::downgrade(&self.privacy_policies.definitions().await?),
            Arc::downgrade(&self.subjects.definitions().await?),
            Arc::downgrade(&self.subject_copies.definitions().await?),
        ]))
    }

    /// What holds for a table, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or a document of the table or of one of its tags
    /// cannot be read.
    pub async fn table_rules(&self, table: &ObjectName) -> Result<TableRules> {
        let own = self.rules(&Attached::Table(table.clone())).await?;
        let tags: BTreeSet<String> = own.tags.values().flatten().cloned().collect();
        let mut by_tag = BTreeMap::new();
        for tag in tags {
            let rules = self.rules(&Attached::Tag(tag.clone())).await?;
            by_tag.insert(tag, rules.policies);
        }
        Ok(TableRules { own, by_tag })
    }

    /// What is attached to a table or tag itself, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or the document cannot be read.
    pub async fn rules(&self, on: &Attached) -> Result<RuleSet> {
        let found = self.policies.sound(&on.place()).await?;
        let mut rules = rules_of(on, found.map(|found| found.spec))?;
        // Afterwards: what is in the document by now is not of an earlier table.
        if let Some(carried) = self.carried(on).await? {
            rules.settle(&carried);
        }
        rules.settled = None;
        Ok(rules)
    }

    /// The roles that some policy excepts: whoever gives them lets somebody see what is hidden.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn excepted_roles(&self) -> Result<BTreeSet<String>> {
        let all = self.all_rules().await?;
        let policies = all.into_iter().flat_map(|(_, rules)| rules.policies.into_values());
        Ok(policies.flat_map(|policy| policy.except).collect())
    }

    /// Everything that is attached to anything, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn all_rules(&self) -> Result<Vec<(Attached, RuleSet)>> {
        let found = self.policies.definitions().await?;
        let listed = found.iter().filter_map(|((schema, name), definition)| {
            let Spec::Policies(rules) = &definition.spec else { return None };
            Some((Attached::at(schema, name)?, rules.clone()))
        });
        let mut all: BTreeMap<Attached, RuleSet> = listed.collect();
        for (on, carried) in self.all_carried().await? {
            all.entry(on).or_default().settle(&carried);
        }
        all.values_mut().for_each(|rules| rules.settled = None);
        all.retain(|_, rules| !rules.is_empty());
        Ok(all.into_iter().collect())
    }

    /// Changes what is attached to a table or tag; gives what `change` gives. Nothing is written
    /// when it stays as it is.
    ///
    /// # Errors
    /// Those of `change`; when the warehouse cannot be written, or others change the same again
    /// and again.
    pub async fn change_rules<T, E: From<Error>>(
        &self,
        on: &Attached,
        mut change: impl FnMut(&mut RuleSet) -> Result<T, E>,
    ) -> Result<T, E> {
        self.writable().await?;
        let carried = self.carried_now(on).await?;
        let what = || format!("the policies of {on}");
        let step = |head: Option<&Head>| {
            let before = rules_of(on, held(head)?)?;
            let mut rules = before.clone();
            if let Some(carried) = &carried {
                rules.settle(carried);
            }
            let outcome = change(&mut rules)?;
            if rules == before {
                return Ok(Step::Stays(outcome));
            }
            let says = !rules.is_empty() || rules.settled.is_some();
            let spec = says.then_some(Spec::Policies(rules));
            Ok(Step::writes(spec, String::new(), outcome))
        };
        self.policies.change(&on.place(), TRIES, what, step).await
    }
}

fn rules_of(on: &Attached, spec: Option<Spec>) -> Result<RuleSet> {
    match spec {
        None => Ok(RuleSet::default()),
        Some(Spec::Policies(rules)) => Ok(rules),
        Some(_) => Err(damaged(on)),
    }
}

fn damaged(on: &Attached) -> Error {
    let what = format!("the document of the policies of {on}");
    Error::Corrupt { what, reason: "it holds something else".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestClock;
    use crate::{CatalogConfig, StoreConfig};

    async fn catalog(folder: &std::path::Path, clock: &TestClock) -> Arc<Catalog> {
        let store = StoreConfig { url: folder.display().to_string(), ..Default::default() };
        Catalog::open(CatalogConfig::new(store, clock.clock())).await.unwrap()
    }

    fn mask(column: &str) -> Policy {
        let rule = Rule::Masking { column: column.into(), expression: "NULL".into() };
        Policy { rule, except: ["auditor".to_owned()].into(), owner: "dpo".into(), created_ms: 0 }
    }

    fn add(name: &'static str) -> impl FnMut(&mut RuleSet) -> Result<()> {
        move |rules| rules.add(name, mask("mail"), false)
    }

    #[test]
    fn rows_may_come_where_they_are_kept_no_longer() {
        let keep = |column: &str, keep_ms: i64, keeps_null: bool| {
            let (column, keep) = (column.to_owned(), String::new());
            Rule::Retention { column, keep, keep_ms, keeps_null }
        };
        let needed = keep("at", 10, false);
        for enough in [keep("at", 10, false), keep("at", 5, false)] {
            assert!(enough.covers(&needed), "{enough:?}");
        }
        for less in [keep("at", 11, false), keep("of", 5, false), keep("at", 5, true)] {
            assert!(!less.covers(&needed), "{less:?}");
        }
        assert!(keep("at", 10, true).covers(&keep("at", 10, true)));
        let rows = Rule::RowAccess { predicate: "true".into() };
        assert!(rows.covers(&rows) && !rows.covers(&needed) && !needed.covers(&rows));
    }

    #[tokio::test]
    async fn two_servers_agree_within_a_second_and_a_moment_tells_of_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        clock.advance(1_700_000_000_000);
        let one = catalog(folder.path(), &clock).await;
        let other = catalog(folder.path(), &clock).await;
        let table = ObjectName::new("main", "t");
        let on = Attached::Table(table.clone());
        let before = other.policy_moment().await.unwrap();
        assert!(before.is_same(&other.policy_moment().await.unwrap()));
        one.change_rules(&on, add("a")).await.unwrap();
        clock.advance(1_000);
        assert!(!before.is_same(&other.policy_moment().await.unwrap()));
        other.change_rules(&on, add("b")).await.unwrap();
        clock.advance(1_000);
        let rules = one.table_rules(&table).await.unwrap();
        assert_eq!(rules.own.policies.len(), 2);
        assert!(!rules.is_free());
        assert!(one.change_rules(&on, add("a")).await.is_err());
    }

    #[tokio::test]
    async fn a_tags_policies_hold_where_the_tag_is() {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        clock.advance(1_700_000_000_000);
        let catalog = catalog(folder.path(), &clock).await;
        let table = ObjectName::new("main", "tag");
        let tag = |rules: &mut RuleSet| {
            rules.tags.entry("mail".into()).or_default().insert("pii.email".into());
            Ok::<_, Error>(())
        };
        catalog.change_rules(&Attached::Table(table.clone()), tag).await.unwrap();
        assert!(catalog.table_rules(&table).await.unwrap().is_free());
        catalog.change_rules(&Attached::Tag("pii.email".into()), add("p")).await.unwrap();
        let rules = catalog.table_rules(&table).await.unwrap();
        assert!(!rules.is_free());
        assert_eq!(rules.tagged("pii.email").collect::<Vec<_>>(), ["mail"]);
        assert_eq!(catalog.all_rules().await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_damaged_document_closes_its_table() {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::default();
        clock.advance(1_700_000_000_000);
        let writer = catalog(folder.path(), &clock).await;
        let table = ObjectName::new("main", "t");
        writer.change_rules(&Attached::Table(table.clone()), add("a")).await.unwrap();
        for entry in walk(&folder.path().join("_attune/policies")) {
            std::fs::write(entry, b"{").unwrap();
        }
        let reader = catalog(folder.path(), &clock).await;
        assert!(reader.table_rules(&table).await.is_err());
        assert!(reader.table_rules(&ObjectName::new("main", "u")).await.unwrap().is_free());
    }

    fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn exempt_is_who_has_the_role_active() {
        let policy = mask("mail");
        assert!(policy.binds(&BTreeSet::new()));
        assert!(policy.binds(&["analyst".to_owned()].into()));
        assert!(!policy.binds(&["analyst".to_owned(), "auditor".to_owned()].into()));
    }
}
