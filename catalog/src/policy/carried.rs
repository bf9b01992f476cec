//! What a table brings along of the policies and tags of those that it was made of.
//!
//! It is written with the table's definition, by one write: no rows are seen without it, and a
//! table that does not come to be leaves nothing of it, also where its server is killed. Afterwards
//! it goes into the document of the table's name, where policies are changed and dropped. That
//! document says of which table it has it; until it does, what the definition says holds as well.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::rules::{Attached, POLICIES_MAX, Policy, Rule, RuleSet};
use crate::error::{Error, Result};
use crate::registry::{ObjectName, Spec};
use crate::{Catalog, NewTable};

/// Policies and tags that a table brings along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Which making of a table it is of: the folder that this one got.
    made: String,
    policies: BTreeMap<String, Policy>,
    tags: BTreeMap<String, BTreeSet<String>>,
}

impl Carried {
    /// What a table that is made in a folder brings along, where it does.
    pub(crate) fn of(rules: &RuleSet, folder: &str) -> Option<Box<Self>> {
        let (policies, tags) = (rules.policies.clone(), rules.tags.clone());
        let carried = Self { made: folder.to_owned(), policies, tags };
        (!rules.is_empty()).then(|| Box::new(carried))
    }

    /// What a definition says.
    fn by(spec: &Spec) -> Option<&Self> {
        match spec {
            Spec::Managed(table) => table.carried.as_deref(),
            _ => None,
        }
    }
}

impl RuleSet {
    /// Adds what a table of the name has brought along, unless that is in here.
    pub(super) fn settle(&mut self, carried: &Carried) {
        if self.settled.as_ref() == Some(&carried.made) {
            return;
        }
        self.carry(&carried.policies, &carried.tags);
        self.settled = Some(carried.made.clone());
    }

    fn carry(
        &mut self,
        policies: &BTreeMap<String, Policy>,
        tags: &BTreeMap<String, BTreeSet<String>>,
    ) {
        for (column, tags) in tags {
            self.tags.entry(column.clone()).or_default().extend(tags.iter().cloned());
        }
        for (name, policy) in policies {
            if self.policies.values().any(|held| held.covers(policy)) {
                continue;
            }
            let column = masked(policy);
            let same = |held: &&mut Policy| column.is_some() && masked(held) == column;
            if let Some(held) = self.policies.values_mut().find(same) {
                put_together(held, policy);
                continue;
            }
            let name = free_name(name, |name| self.policies.contains_key(name));
            self.policies.insert(name, policy.clone());
        }
    }
}

/// The column that a policy masks.
fn masked(policy: &Policy) -> Option<&str> {
    match &policy.rule {
        Rule::Masking { column, .. } => Some(column),
        _ => None,
    }
}

/// One mask a column: that of two is the strictest, for those whom both except.
fn put_together(held: &mut Policy, other: &Policy) {
    held.except = &held.except & &other.except;
    if let Rule::Masking { expression, .. } = &mut held.rule
        && Some(expression.as_str()) != other.rule.text()
    {
        "NULL".clone_into(expression);
    }
}

/// A name that is not taken: this one, or one with a number behind it.
pub fn free_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(name) {
        return name.to_owned();
    }
    let mut number = 2_u64;
    loop {
        let next = format!("{name}_{number}");
        if !taken(&next) {
            return next;
        }
        number += 1;
    }
}

impl Catalog {
    /// Checks that a table of a name may bring along what it is made with.
    ///
    /// # Errors
    /// When there would be too many policies; when those that are there cannot be read.
    pub(crate) async fn check_brought(&self, table: &ObjectName, new: &NewTable) -> Result<()> {
        if !new.consents.is_empty() {
            self.check_policies().await?;
        }
        let carried = &new.carried;
        if carried.policies.is_empty() {
            return Ok(());
        }
        let mut rules = self.rules(&Attached::Table(table.clone())).await?;
        rules.carry(&carried.policies, &carried.tags);
        match rules.policies.len() > POLICIES_MAX {
            true => Err(Error::invalid_hint(
                format!("{table} would have more than {POLICIES_MAX} policies"),
                "drop policies of that name that are not used, or give the copy another name",
            )),
            false => Ok(()),
        }
    }

    /// What the table of a name has brought along, as the store has it now.
    pub(super) async fn carried_now(&self, on: &Attached) -> Result<Option<Carried>> {
        let Attached::Table(table) = on else { return Ok(None) };
        let head = self.objects.head(table).await?;
        // What cannot be read can be dropped or replaced, and is opened by nobody.
        let document = head.and_then(|head| head.document.ok());
        let spec = document.as_ref().and_then(|document| document.spec.as_ref());
        Ok(spec.and_then(Carried::by).cloned())
    }

    /// What the table of a name has brought along, at most a second old; of a table that was not
    /// there then, as the store has it.
    pub(super) async fn carried(&self, on: &Attached) -> Result<Option<Carried>> {
        let Attached::Table(table) = on else { return Ok(None) };
        match self.objects.known(table).await? {
            Some(definition) => Ok(Carried::by(&definition.spec).cloned()),
            None if self.lakes.contains_key(&table.schema) => Ok(None),
            // As whoever opens it looks for it: another server may just have made it.
            None => self.carried_now(on).await,
        }
    }

    /// What every table has brought along, at most a second old.
    pub(super) async fn all_carried(&self) -> Result<Vec<(Attached, Carried)>> {
        let definitions = self.objects.definitions().await?;
        let carried = definitions.iter().filter_map(|((schema, name), definition)| {
            let carried = Carried::by(&definition.spec)?.clone();
            Some((Attached::Table(ObjectName::new(schema, name)), carried))
        });
        Ok(carried.collect())
    }

    /// Puts what the table of a name has brought along where it stays when the table does not.
    ///
    /// # Errors
    /// When the warehouse cannot be read or written.
    pub(crate) async fn settle_rules(&self, table: &ObjectName) -> Result<()> {
        let on = Attached::Table(table.clone());
        if self.carried_now(&on).await?.is_none() {
            return Ok(());
        }
        self.change_rules(&on, |_| Ok::<_, Error>(())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CreateMode;
    use crate::testing::{Shared, main, plan, session};

    fn north() -> RuleSet {
        let rule = Rule::RowAccess { predicate: "region = 'north'".into() };
        let (owner, except) = ("dpo".to_owned(), Default::default());
        let policy = Policy { rule, except, owner, created_ms: 0 };
        let tags = [("region".to_owned(), ["place".to_owned()].into())].into();
        RuleSet { policies: [("north".to_owned(), policy)].into(), tags, ..RuleSet::default() }
    }

    fn mask(name: &str, expression: &str, except: &[&str]) -> (String, Policy) {
        let rule = Rule::Masking { column: "mail".into(), expression: expression.into() };
        let except = except.iter().map(|role| (*role).to_owned()).collect();
        (name.to_owned(), Policy { rule, except, owner: "dpo".into(), created_ms: 0 })
    }

    #[test]
    fn a_column_that_is_masked_already_gets_no_second_mask() {
        for (expression, is_now) in [("'***'", "'***'"), ("mail", "NULL")] {
            let mut rules = RuleSet::default();
            rules.policies.extend([mask("a", "'***'", &["auditor", "support"])]);
            let carried: BTreeMap<String, Policy> =
                [mask("z", expression, &["support", "sales"])].into();
            rules.carry(&carried, &BTreeMap::new());
            let once: BTreeMap<String, Policy> = [mask("a", is_now, &["support"])].into();
            assert_eq!(rules.policies, once);
            rules.carry(&carried, &BTreeMap::new());
            assert_eq!(rules.policies, once);
        }
    }

    async fn make(catalog: &Catalog, rows: &str, carried: RuleSet) -> Result<()> {
        let rows = plan(catalog, rows, &[]).await;
        let new = NewTable { carried, ..NewTable::default() };
        let (mode, state) = (CreateMode::Replace, session(catalog));
        catalog.create_table_as(&main("t"), "ann", mode, rows, state, &new).await.map(|_| ())
    }

    async fn names(catalog: &Catalog) -> Vec<String> {
        let rules = catalog.rules(&Attached::Table(main("t"))).await.unwrap();
        rules.policies.into_keys().collect()
    }

    const OLD: &str = "SELECT 'old' AS region";
    const NEW: &str = "SELECT 'new' AS region";
    const FAILS: &str = "SELECT 'new' AS region, 1 / (column1 - column1) AS z FROM (VALUES (1))";

    #[tokio::test]
    async fn a_table_that_fails_brings_nothing_along_and_one_that_is_made_does() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        make(&catalog, OLD, RuleSet::default()).await.unwrap();
        assert!(make(&catalog, FAILS, north()).await.is_err());
        assert!(names(&catalog).await.is_empty());
        let other = shared.open().await;
        assert!(names(&other).await.is_empty());
        make(&catalog, NEW, north()).await.unwrap();
        for server in [&catalog, &shared.open().await] {
            assert_eq!(names(server).await, ["north"]);
            let rules = server.rules(&Attached::Table(main("t"))).await.unwrap();
            assert_eq!(rules, north());
            assert_eq!(server.all_rules().await.unwrap().len(), 1);
        }
        // What is dropped stays so, though the table has brought it along.
        let on = Attached::Table(main("t"));
        let drop = |rules: &mut RuleSet| {
            rules.policies.clear();
            rules.tags.clear();
            Ok::<_, Error>(())
        };
        catalog.change_rules(&on, drop).await.unwrap();
        for server in [&catalog, &shared.open().await] {
            assert!(names(server).await.is_empty());
            assert!(server.all_rules().await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn a_table_that_another_server_has_just_made_is_under_its_policies() {
        let shared = Shared::new();
        let (catalog, other) = (shared.open().await, shared.open().await);
        // What the other knows is fresh for a second, and the clock stands.
        assert!(names(&other).await.is_empty());
        make(&catalog, NEW, north()).await.unwrap();
        assert_eq!(names(&other).await, ["north"]);
    }

    #[tokio::test]
    async fn whoever_is_killed_leaves_no_table_without_its_policies_and_no_other_with_them() {
        for writes in 0.. {
            let shared = Shared::new();
            let catalog = shared.open().await;
            make(&catalog, OLD, RuleSet::default()).await.unwrap();
            let before = catalog.definition(&main("t")).await.unwrap().unwrap().spec;
            shared.store.kill_after(writes);
            let _ = make(&catalog, NEW, north()).await;
            let was_killed = shared.store.revive();
            let next = shared.open().await;
            let now = next.definition(&main("t")).await.unwrap().unwrap().spec;
            assert_eq!(names(&next).await.is_empty(), now == before, "after {writes} writes");
            // They stay with the name.
            let had = names(&next).await;
            assert!(next.drop_object(&main("t"), crate::Kind::Table).await.unwrap());
            let last = shared.open().await;
            assert_eq!(names(&last).await, had, "after {writes} writes");
            if !was_killed {
                assert_eq!(had, ["north"]);
                break;
            }
        }
    }
}
