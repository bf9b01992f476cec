//! Consent policies that copies have inherited: they are in the definitions of their tables.
//!
//! So they come with a table's rows, by one write, and go with them when the table is dropped or
//! replaced; a table that does not come to be leaves none, also where its server is killed. Beside
//! the policies that somebody has created, each has a name of its own: where names of tables are
//! such that two copies would share one, or somebody creates a policy of that name meanwhile, all
//! but the first get a number behind it.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::policy::free_name;
use crate::purposes::{CONSENT, ConsentPolicy, present};
use crate::registry::change::{Step, TRIES};
use crate::registry::{Definitions, Head, ObjectName, Spec};

/// The policies that copies have inherited, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Inherited(BTreeMap<String, Held>);

#[derive(Debug, PartialEq, Eq)]
struct Held {
    policy: ConsentPolicy,
    /// What the definition calls it.
    written: String,
}

impl Inherited {
    /// What definitions of tables say, beside the policies that were created.
    fn of(created: &Definitions, tables: &Definitions) -> Self {
        let mut policies: BTreeMap<String, Held> = BTreeMap::new();
        for ((schema, name), definition) in tables {
            let Spec::Managed(table) = &definition.spec else { continue };
            for held in &table.consents {
                let is_taken = |name: &str| {
                    policies.contains_key(name)
                        || created.contains_key(&(CONSENT.to_owned(), name.to_owned()))
                };
                let called = free_name(&held.name, is_taken);
                let mut policy = held.clone();
                policy.name.clone_from(&called);
                policy.table = ObjectName::new(schema, name);
                policies.insert(called, Held { policy, written: held.name.clone() });
            }
        }
        Self(policies)
    }

    /// Every one.
    pub(crate) fn policies(&self) -> impl Iterator<Item = &ConsentPolicy> {
        self.0.values().map(|held| &held.policy)
    }

    /// The one of that name.
    pub(crate) fn policy(&self, name: &str) -> Option<&ConsentPolicy> {
        self.0.get(name).map(|held| &held.policy)
    }

    /// The table of the one of that name, and what its definition calls it.
    pub(crate) fn place(&self, name: &str) -> Option<(ObjectName, String)> {
        self.0.get(name).map(|held| (held.policy.table.clone(), held.written.clone()))
    }
}

/// What was found last, and of which definitions.
#[derive(Debug, Default)]
pub(crate) struct Known {
    created: Weak<Definitions>,
    tables: Weak<Definitions>,
    found: Arc<Inherited>,
}

impl Known {
    /// What these definitions say. What nobody changed keeps its identity, by which readers see
    /// that nothing changed.
    fn of(&mut self, created: &Arc<Definitions>, tables: &Arc<Definitions>) -> Arc<Inherited> {
        let (created_now, tables_now) = (Arc::downgrade(created), Arc::downgrade(tables));
        if !self.created.ptr_eq(&created_now) || !self.tables.ptr_eq(&tables_now) {
            let fresh = Inherited::of(created, tables);
            if fresh != *self.found {
                self.found = Arc::new(fresh);
            }
            (self.created, self.tables) = (created_now, tables_now);
        }
        Arc::clone(&self.found)
    }
}

impl Catalog {
    /// The policies that copies have inherited beside those that were created, at most a second
    /// old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub(crate) async fn inherited_beside(
        &self,
        created: &Arc<Definitions>,
    ) -> Result<Arc<Inherited>> {
        let tables = self.objects.definitions().await?;
        Ok(self.inherited.lock().of(created, &tables))
    }

    /// The policies that the table of a name has inherited, as whoever opens it finds them: at most
    /// a second old; of a table that was not there then, as the store has it.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or the definition cannot be read.
    pub async fn inherited_by(&self, table: &ObjectName) -> Result<Vec<ConsentPolicy>> {
        if self.lakes.contains_key(&table.schema) {
            return Ok(Vec::new());
        }
        match self.objects.find(table).await?.map(|found| found.spec) {
            Some(Spec::Managed(table)) => Ok(table.consents),
            _ => Ok(Vec::new()),
        }
    }

    /// Changes a policy that a table has inherited.
    ///
    /// # Errors
    /// Those of `change`; `NotFound`; when the warehouse cannot be written, or others change the
    /// table's definition again and again.
    pub(crate) async fn change_inherited(
        &self,
        table: &ObjectName,
        written: &str,
        change: impl Fn(&mut ConsentPolicy) -> Result<()>,
    ) -> Result<()> {
        self.change_consents(table, |held| {
            match held.iter_mut().find(|policy| policy.name == written) {
                Some(policy) => change(policy),
                None => Err(Error::not_found("consent policy", written, [])),
            }
        })
        .await
    }

    /// Drops a policy that a table has inherited; `false` when there is none.
    ///
    /// # Errors
    /// As [`Catalog::change_inherited`].
    pub(crate) async fn drop_inherited(&self, table: &ObjectName, written: &str) -> Result<bool> {
        self.change_consents(table, |held| {
            let before = held.len();
            held.retain(|policy| policy.name != written);
            Ok(held.len() < before)
        })
        .await
    }

    async fn change_consents<T>(
        &self,
        table: &ObjectName,
        change: impl Fn(&mut Vec<ConsentPolicy>) -> Result<T>,
    ) -> Result<T> {
        self.writable().await?;
        let step = |head: Option<&Head>| {
            let Some((Spec::Managed(mut managed), owner)) = present(head)? else {
                return Err(Error::not_found("table", &table.to_string(), []));
            };
            let before = managed.consents.clone();
            let outcome = change(&mut managed.consents)?;
            Ok(match managed.consents == before {
                true => Step::Stays(outcome),
                false => Step::writes(Some(Spec::Managed(managed)), owner, outcome),
            })
        };
        self.objects.change(table, TRIES, || table.to_string(), step).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purposes::ConsentSource;
    use crate::testing::{Shared, main, plan, session};
    use crate::{CreateMode, Kind, NewTable};

    fn policy(name: &str) -> ConsentPolicy {
        ConsentPolicy {
            name: name.into(),
            table: main("clicks"),
            subject: "person".into(),
            consents: ConsentSource {
                table: main("consents"),
                subject: "subject".into(),
                purpose: "purpose".into(),
                granted: "granted".into(),
                valid_from: None,
                valid_to: None,
                channel: None,
            },
            purposes: ["ads".to_owned()].into(),
            channels: ["mail".to_owned()].into(),
            default_allow: false,
            owner: "dpo".into(),
            created_ms: 1,
            is_inherited: false,
            follows: None,
        }
    }

    async fn make(catalog: &Catalog, table: &str, rows: &str, names: &[&str]) -> Result<()> {
        let inherited =
            |name: &&str| ConsentPolicy { table: main(table), is_inherited: true, ..policy(name) };
        let consents = names.iter().map(inherited).collect();
        let rows = plan(catalog, rows, &[]).await;
        let new = NewTable { consents, ..NewTable::default() };
        let (mode, state) = (CreateMode::Replace, session(catalog));
        catalog.create_table_as(&main(table), "ann", mode, rows, state, &new).await.map(|_| ())
    }

    async fn names(catalog: &Catalog) -> Vec<String> {
        let all = catalog.purposes().await.unwrap();
        all.policies().map(|policy| policy.name.clone()).collect()
    }

    const OLD: &str = "SELECT 'old' AS person";
    const NEW: &str = "SELECT 'new' AS person";
    const FAILS: &str = "SELECT 'new' AS person, 1 / (column1 - column1) AS z FROM (VALUES (1))";

    #[tokio::test]
    async fn a_policy_comes_and_goes_with_its_table() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        make(&catalog, "t", OLD, &["p"]).await.unwrap();
        assert!(make(&catalog, "t", FAILS, &["q"]).await.is_err());
        for server in [&catalog, &shared.open().await] {
            assert_eq!(names(server).await, ["p"]);
            assert_eq!(server.inherited_by(&main("t")).await.unwrap().len(), 1);
        }
        make(&catalog, "t", NEW, &["q"]).await.unwrap();
        assert_eq!(names(&catalog).await, ["q"]);
        catalog.create_consent(policy("express"), CreateMode::New).await.unwrap();
        make(&catalog, "t", NEW, &[]).await.unwrap();
        assert_eq!(names(&catalog).await, ["express"]);
        make(&catalog, "t", NEW, &["q"]).await.unwrap();
        assert!(catalog.drop_object(&main("t"), Kind::Table).await.unwrap());
        assert_eq!(names(&*shared.open().await).await, ["express"]);
    }

    #[tokio::test]
    async fn a_policy_is_changed_and_dropped_where_it_is() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        make(&catalog, "t", OLD, &["p"]).await.unwrap();
        let moment = catalog.purposes().await.unwrap().moment();
        make(&catalog, "free", OLD, &[]).await.unwrap();
        assert!(catalog.purposes().await.unwrap().is_of(&moment));
        let close = |policy: &mut ConsentPolicy| {
            policy.channels.clear();
            Ok(())
        };
        catalog.change_consent("p", close).await.unwrap();
        assert!(!catalog.purposes().await.unwrap().is_of(&moment));
        assert_eq!(catalog.reassign_owned("dpo", "eve").await.unwrap(), 1);
        let all = shared.open().await.purposes().await.unwrap();
        let held = all.policy("p").unwrap();
        assert!(held.channels.is_empty() && held.owner == "eve" && held.table == main("t"));
        // The table is its owner's as before.
        assert_eq!(catalog.definition(&main("t")).await.unwrap().unwrap().owner, "ann");
        assert!(catalog.drop_consent("p").await.unwrap());
        assert!(!catalog.drop_consent("p").await.unwrap());
        assert!(names(&*shared.open().await).await.is_empty());
    }

    #[tokio::test]
    async fn no_two_policies_have_one_name() {
        let catalog = Shared::new().open().await;
        let name = "p.main.x.main.y";
        make(&catalog, "y", OLD, &[name]).await.unwrap();
        // A copy of p's table that is called x.main.y.
        make(&catalog, "x.main.y", OLD, &[name]).await.unwrap();
        assert_eq!(names(&catalog).await, [name, "p.main.x.main.y_2"]);
        let all = catalog.purposes().await.unwrap();
        assert_eq!(all.policy(name).unwrap().table, main("x.main.y"));
        assert_eq!(all.policy("p.main.x.main.y_2").unwrap().table, main("y"));
        assert!(catalog.create_consent(policy(name), CreateMode::New).await.is_err());
        assert!(catalog.create_consent(policy(name), CreateMode::Replace).await.is_err());
        assert!(!catalog.create_consent(policy(name), CreateMode::IfNotExists).await.unwrap());
        assert!(catalog.drop_consent("p.main.x.main.y_2").await.unwrap());
        assert!(catalog.inherited_by(&main("y")).await.unwrap().is_empty());
        assert_eq!(names(&catalog).await, [name]);
    }

    #[tokio::test]
    async fn whoever_is_killed_leaves_no_table_without_its_policy_and_no_other_with_it() {
        for writes in 0.. {
            let shared = Shared::new();
            let catalog = shared.open().await;
            make(&catalog, "t", OLD, &[]).await.unwrap();
            let before = catalog.definition(&main("t")).await.unwrap().unwrap().spec;
            shared.store.kill_after(writes);
            let _ = make(&catalog, "t", NEW, &["p"]).await;
            let was_killed = shared.store.revive();
            let next = shared.open().await;
            let now = next.definition(&main("t")).await.unwrap().unwrap().spec;
            assert_eq!(names(&next).await.is_empty(), now == before, "after {writes} writes");
            if !was_killed {
                assert_eq!(names(&next).await, ["p"]);
                break;
            }
        }
    }
}
