//! Who owns tables, views, models, expectations and consent policies, and how they pass on to
//! somebody else.

use crate::Catalog;
use crate::error::{Error, Result};
use crate::registry::change::{Step, TRIES};
use crate::registry::{Head, Kind, ObjectName};

impl Catalog {
    /// What a user owns, by name.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn owned_by(&self, owner: &str) -> Result<Vec<(ObjectName, Kind)>> {
        let definitions = self.definitions().await?;
        let owned = definitions.iter().filter(|(_, definition)| definition.owner == owner);
        let named = owned.map(|((schema, name), definition)| {
            (ObjectName::new(schema, name), definition.spec.kind())
        });
        Ok(named.collect())
    }

    /// The tables of which a user expects something, by name.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn expected_by(&self, owner: &str) -> Result<Vec<ObjectName>> {
        let held = self.all_expectations().await?.into_iter();
        let by_owner = held.filter(|(_, held)| {
            held.by_name.values().any(|expectation| expectation.owner == owner)
        });
        Ok(by_owner.map(|(table, _)| table).collect())
    }

    /// Gives everything that `from` owns to `to`, one object after the other; how many there were.
    ///
    /// # Errors
    /// When the warehouse cannot be written.
    pub async fn reassign_owned(&self, from: &str, to: &str) -> Result<usize> {
        self.writable().await?;
        let mut changed = 0;
        for (name, _) in self.owned_by(from).await? {
            changed += usize::from(self.reassign(&name, from, to).await?);
        }
        for table in self.expected_by(from).await? {
            changed += self.reassign_expectations(&table, from, to).await?;
        }
        changed += self.reassign_consents(from, to).await?;
        Ok(changed)
    }

    async fn reassign_expectations(
        &self,
        table: &ObjectName,
        from: &str,
        to: &str,
    ) -> Result<usize> {
        self.change_expectations(table, |held| {
            let owned = held.by_name.values_mut().filter(|expectation| expectation.owner == from);
            let changed = owned.map(|expectation| expectation.owner = to.to_owned()).count();
            Ok::<_, Error>(changed)
        })
        .await
    }

    async fn reassign(&self, name: &ObjectName, from: &str, to: &str) -> Result<bool> {
        let step = |head: Option<&Head>| {
            let Some(head) = head else { return Ok::<_, Error>(Step::Stays(false)) };
            let document = head.document.clone()?;
            Ok(match document.spec.is_none() || document.owner != from {
                true => Step::Stays(false),
                false => Step::writes(document.spec.clone(), to.to_owned(), true),
            })
        };
        self.objects.change(name, TRIES, || name.to_string(), step).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{CreateMode, Spec};
    use crate::testing::Shared;

    #[tokio::test]
    async fn what_somebody_owns_passes_on_as_it_is() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        let view = Spec::View { sql: "SELECT 1".into(), columns: vec![] };
        for (name, owner) in [("a", "ann"), ("b", "bob"), ("c", "ann")] {
            let name = ObjectName::new("main", name);
            catalog.create(&name, view.clone(), owner, CreateMode::New).await.unwrap();
        }
        assert_eq!(catalog.reassign_owned("ann", "eve").await.unwrap(), 2);
        assert_eq!(catalog.reassign_owned("ann", "eve").await.unwrap(), 0);
        let other = shared.open().await;
        for catalog in [&catalog, &other] {
            let owned = catalog.owned_by("eve").await.unwrap();
            let names: Vec<String> = owned.iter().map(|(name, _)| name.to_string()).collect();
            assert_eq!(names, ["main.a", "main.c"]);
            assert!(catalog.owned_by("ann").await.unwrap().is_empty());
            let definition = catalog.definition(&owned[0].0).await.unwrap().unwrap();
            assert_eq!((definition.spec, definition.owner.as_str()), (view.clone(), "eve"));
        }
    }
}
