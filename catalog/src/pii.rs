//! Tables of a lake whose personal identifiers are kept apart: the definition says which columns
//! hold them, under which key pseudonyms stand in their place, and which table shows what a
//! pseudonym stands for.
//!
//! The files stay as they are and Attune may not write them, so nothing is copied: both tables are
//! computed of the same files. The restricted one has a document of its own, which names the table
//! that it belongs to; it comes and goes with that table. Whatever else reads the same files and
//! does not keep the same columns apart is closed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::lake::LakeTable;
use crate::policy::Securable;
use crate::registry::{
    CreateMode, Definition, Definitions, Head, Kind, ObjectName, Spec, may_create,
};

/// What is added to a column's name for its pseudonym, where both stand side by side.
const PSEUDONYM: &str = "_pseudonym";

/// The personal identifiers of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pii {
    /// The columns that hold them.
    pub columns: Vec<String>,
    /// The key of their pseudonyms, as statements write it: `web`, or `web@2` for one generation.
    pub key: String,
    /// The id of the key's generation, by which another key of that name is told apart. Tables that
    /// were defined before it was kept have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The name of the restricted table, in the same schema.
    pub table: String,
}

impl Pii {
    /// What the restricted table of a table is called where no name is given.
    pub fn table_for(name: &str) -> String {
        format!("{name}_pii")
    }

    /// The column of the restricted table with the pseudonyms of one of the columns.
    pub fn pseudonym_of(column: &str) -> String {
        format!("{column}{PSEUDONYM}")
    }

    /// Whether a column holds identifiers.
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|own| own == column)
    }

    /// Whether every column of another definition is kept apart by this one too.
    pub fn covers(&self, other: &Self) -> bool {
        other.columns.iter().all(|column| self.has(column))
    }

    /// Checks what can be checked without looking at a file.
    ///
    /// # Errors
    /// When there are no columns, one is there twice, or two columns of the restricted table would
    /// have one name.
    pub fn check(&self) -> Result<()> {
        if self.columns.is_empty() {
            return Err(Error::invalid_hint("pii names no column", "write pii = 'email, phone'"));
        }
        let mut names = BTreeSet::new();
        for column in &self.columns {
            for name in [column.clone(), Self::pseudonym_of(column)] {
                if !names.insert(name.clone()) {
                    return Err(Error::invalid_hint(
                        format!("{} would have two columns {name}", self.table),
                        "name each column once, and none that is called like another's pseudonym",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Checks that none of the columns is told by the names of folders, which listings, plans and
    /// certificates show.
    ///
    /// # Errors
    /// When one is.
    pub(crate) fn check_partitions<'a>(
        &self,
        at: &str,
        partitions: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        match partitions.into_iter().find(|column| self.has(column)) {
            None => Ok(()),
            Some(column) => Err(Error::invalid_hint(
                format!("column {column} of {at} is a partition column, and cannot be kept apart"),
                "the names of its folders hold the identifiers: write the files without them",
            )),
        }
    }
}

/// What a name is at one moment. Whoever has decided by it creates over exactly that.
pub struct Seen(Option<Head>);

impl Seen {
    /// The table whose personal identifiers are kept apart; `None` when it is something else.
    ///
    /// # Errors
    /// When what is there cannot be read: it may be such a table.
    pub fn separated(&self) -> Result<Option<&LakeTable>> {
        let Some(head) = &self.0 else { return Ok(None) };
        match head.document.as_ref().map_err(Error::clone)?.spec.as_ref() {
            Some(Spec::External(table)) if table.pii.is_some() => Ok(Some(table)),
            _ => Ok(None),
        }
    }

    pub(crate) fn head(&self) -> Option<&Head> {
        self.0.as_ref()
    }

    /// The restricted table; none of what cannot be read, which can be replaced.
    fn beside(&self, name: &ObjectName) -> Option<ObjectName> {
        let document = self.0.as_ref()?.document.as_ref().ok()?;
        identifiers_of(name, document.spec.as_ref()?)
    }
}

/// The restricted table of what is defined under a name.
pub(crate) fn identifiers_of(name: &ObjectName, spec: &Spec) -> Option<ObjectName> {
    let Spec::External(table) = spec else { return None };
    let pii = table.pii.as_ref()?;
    Some(ObjectName::new(&name.schema, &pii.table))
}

impl Catalog {
    /// Every table whose personal identifiers are kept apart.
    ///
    /// # Errors
    /// When the warehouse cannot be reached; when a definition cannot be read, which may be of such
    /// a table.
    pub async fn separated_tables(&self) -> Result<BTreeSet<ObjectName>> {
        let definitions = self.objects.sound_definitions().await?;
        Ok(named(&definitions, |spec| matches!(spec, Spec::External(table) if table.pii.is_some())))
    }

    /// Every table that shows what pseudonyms stand for.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn restricted_tables(&self) -> Result<BTreeSet<ObjectName>> {
        let definitions = self.definitions().await?;
        Ok(named(&definitions, |spec| matches!(spec, Spec::Identifiers { .. })))
    }

    /// What a name is, as the store has it now.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn seen(&self, name: &ObjectName) -> Result<Seen> {
        match name.check() {
            Ok(()) => Ok(Seen(self.objects.head(name).await?)),
            // Nothing has what is no name.
            Err(_) => Ok(Seen(None)),
        }
    }

    /// A definition; none of what cannot be read, which can be replaced and dropped.
    async fn read_if_sound(&self, name: &ObjectName) -> Result<Option<Definition>> {
        match self.objects.read(name).await {
            Err(Error::Corrupt { .. }) => Ok(None),
            other => other,
        }
    }

    async fn beside(&self, name: &ObjectName) -> Result<Option<ObjectName>> {
        let found = self.read_if_sound(name).await?;
        Ok(found.and_then(|found| identifiers_of(name, &found.spec)))
    }

    /// The table whose identifiers the restricted table of a name shows.
    ///
    /// # Errors
    /// When that table is gone, or has another restricted table by now.
    pub(crate) async fn identified(&self, name: &ObjectName, of: &ObjectName) -> Result<LakeTable> {
        let found = self.objects.find(of).await?;
        let found = found.filter(|found| identifiers_of(of, &found.spec).as_ref() == Some(name));
        match found.map(|found| found.spec) {
            Some(Spec::External(table)) => Ok(table),
            _ => Err(gone(name, of)),
        }
    }

    /// Checks that a table reads no files of which another keeps identifiers apart that this one
    /// would show.
    ///
    /// # Errors
    /// When it does; when a definition cannot be read, which may do so; when a store's location is
    /// wrong.
    pub(crate) async fn check_separation(
        &self,
        name: &ObjectName,
        table: &LakeTable,
    ) -> Result<()> {
        let (definitions, fault) = self.objects.definitions_and_fault().await?;
        for ((schema, other), definition) in definitions.iter() {
            let Spec::External(held) = &definition.spec else { continue };
            let Some(pii) = &held.pii else { continue };
            let other = ObjectName::new(schema, other);
            if other == *name || table.pii.as_ref().is_some_and(|own| own.covers(pii)) {
                continue;
            }
            let place = self.stores.locate(&table.location, Some(self.base_of(&name.schema)))?;
            // What no lake reaches any more, no table reads.
            let held = self.stores.locate(&held.location, Some(self.base_of(schema)));
            if held.is_ok_and(|held| held.meets(&place)) {
                return Err(Error::invalid_hint(
                    format!(
                        "{name} is closed: {other} keeps personal identifiers of its files apart"
                    ),
                    format!("read {other}, which shows pseudonyms in their place"),
                ));
            }
        }
        match fault {
            None => Ok(()),
            // Whose definition it is, is not for everybody.
            Some(fault) => {
                tracing::warn!(%fault, table = %name, "a table over files is closed");
                Err(Error::invalid_hint(
                    format!(
                        "{name} is closed: a definition cannot be read, and may keep personal \
                         identifiers of its files apart"
                    ),
                    "the log names it: restore it, or a policy_admin drops what it defines",
                ))
            }
        }
    }

    /// Creates a definition together with the restricted table that it names, and takes away the
    /// one that it no longer names; `false` when the name exists and shall stay.
    ///
    /// # Errors
    /// As [`Catalog::create_over`]; when something else has the restricted table's name.
    pub(crate) async fn create_with_identifiers(
        &self,
        name: &ObjectName,
        spec: Spec,
        owner: &str,
        mode: CreateMode,
        seen: &Seen,
    ) -> Result<bool> {
        if !may_create(name, seen.head(), spec.kind(), mode)? {
            return Ok(false);
        }
        let (before, after) = (seen.beside(name), identifiers_of(name, &spec));
        if let Some(apart) = &after {
            self.create_identifiers(apart, name, owner).await?;
            // Nobody has rights on what was not there.
            if before.as_ref() != Some(apart) {
                self.forget_grants(&Securable::Table(apart.clone())).await?;
            }
        }
        let made = self.objects.create_over(name, spec, owner, mode, seen.head()).await;
        // Somebody else may have been first, whose table of identifiers has the same name.
        let kept = self.beside(name).await?;
        for gone in [before, after].into_iter().flatten().filter(|gone| kept.as_ref() != Some(gone))
        {
            self.drop_identifiers(&gone, name).await?;
        }
        made
    }

    /// Checks that a restricted table of a table can have this name: that it is free, or its own.
    ///
    /// # Errors
    /// When something else has it.
    pub async fn check_identifiers(&self, apart: &ObjectName, of: &ObjectName) -> Result<()> {
        let is_lakes = self.lake_table(apart).await?.is_some();
        let own = Spec::Identifiers { of: of.clone() };
        let found = self.read_if_sound(apart).await?;
        match apart == of || is_lakes || found.is_some_and(|found| found.spec != own) {
            false => Ok(()),
            true => Err(Error::invalid_hint(
                format!("{apart}, where the identifiers of {of} would be, exists already"),
                "name another table: WITH (pii = '…', pii_key = '…', pii_table = '…')",
            )),
        }
    }

    async fn create_identifiers(
        &self,
        apart: &ObjectName,
        of: &ObjectName,
        owner: &str,
    ) -> Result<()> {
        self.check_identifiers(apart, of).await?;
        let spec = Spec::Identifiers { of: of.clone() };
        match self.objects.create(apart, spec, owner, CreateMode::IfNotExists).await {
            Ok(true) => Ok(()),
            // Its own, or somebody else was first.
            Ok(false) => self.check_identifiers(apart, of).await,
            Err(error) => Err(error),
        }
    }

    /// Drops a restricted table of a table, with the grants on it; nothing when it is none.
    pub(crate) async fn drop_identifiers(&self, apart: &ObjectName, of: &ObjectName) -> Result<()> {
        let found = self.read_if_sound(apart).await?;
        if !found.is_some_and(|found| found.spec == Spec::Identifiers { of: of.clone() }) {
            return Ok(());
        }
        self.forget_grants(&Securable::Table(apart.clone())).await?;
        self.forget_expectations(apart).await?;
        self.objects.drop_object(apart, Kind::Table).await.map(|_| ())
    }

    /// Takes the restricted table of a table along that is going to be dropped.
    ///
    /// # Errors
    /// When it is a restricted table itself, whose table is there.
    pub(crate) async fn drop_beside(&self, name: &ObjectName) -> Result<()> {
        let Some(found) = self.read_if_sound(name).await? else { return Ok(()) };
        if let Spec::Identifiers { of } = &found.spec
            && self.beside(of).await?.as_ref() == Some(name)
        {
            return Err(belongs(name, of));
        }
        match identifiers_of(name, &found.spec) {
            Some(apart) => self.drop_identifiers(&apart, name).await,
            None => Ok(()),
        }
    }
}

fn named(definitions: &Definitions, is_wanted: impl Fn(&Spec) -> bool) -> BTreeSet<ObjectName> {
    let wanted = definitions.iter().filter(|(_, definition)| is_wanted(&definition.spec));
    wanted.map(|((schema, name), _)| ObjectName::new(schema, name)).collect()
}

/// The error for a restricted table that is to be dropped or replaced by itself.
pub(crate) fn belongs(name: &ObjectName, of: &ObjectName) -> Error {
    Error::invalid_hint(
        format!("{name} belongs to {of}, and goes with it alone"),
        format!("DROP TABLE {of}, or replace it with another pii_table"),
    )
}

fn gone(name: &ObjectName, of: &ObjectName) -> Error {
    Error::invalid_hint(
        format!("{of}, whose identifiers {name} showed, is not there any more"),
        format!("DROP TABLE {name}"),
    )
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::lake::Format;
    use crate::testing::{Shared, main};

    fn pii(columns: &[&str], table: &str) -> Pii {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Pii { columns, key: "web".into(), key_id: None, table: table.into() }
    }

    fn clicks(pii: Option<Pii>) -> Spec {
        Spec::External(LakeTable { pii, ..LakeTable::new("clicks/", Format::Csv) })
    }

    #[test]
    fn columns_are_named_once() {
        pii(&["email", "phone"], "p").check().unwrap();
        for wrong in [&[][..], &["email", "email"], &["email", "email_pseudonym"]] {
            assert!(pii(wrong, "p").check().is_err(), "{wrong:?}");
        }
        assert!(pii(&["a", "b"], "p").covers(&pii(&["b"], "q")));
        assert!(!pii(&["b"], "p").covers(&pii(&["a", "b"], "q")));
        assert!(pii(&["day"], "p").check_partitions("t", ["day"]).is_err());
    }

    #[tokio::test]
    async fn the_restricted_table_comes_and_goes_with_its_table() {
        let shared = Shared::new();
        let (one, other) = (shared.open().await, shared.open().await);
        let create = |spec: Spec, mode| {
            let one = &one;
            async move { one.create(&main("clicks"), spec, "eve", mode).await }
        };
        assert!(create(clicks(Some(pii(&["email"], "who"))), CreateMode::New).await.unwrap());
        let object = other.object(&main("who")).await.unwrap().unwrap();
        assert_eq!(object.identifiers_of, Some(main("clicks")));
        assert_eq!(one.restricted_tables().await.unwrap(), [main("who")].into());
        // It is neither dropped nor replaced alone.
        assert!(one.drop_object(&main("who"), Kind::Table).await.is_err());
        let replaced = one.create(&main("who"), clicks(None), "eve", CreateMode::Replace).await;
        assert!(replaced.is_err());
        // A name that is taken is no restricted table's, and nothing is left of the try.
        let taken = create(clicks(Some(pii(&["email"], "clicks"))), CreateMode::Replace).await;
        assert!(taken.is_err());
        assert!(create(clicks(Some(pii(&["email"], "them"))), CreateMode::Replace).await.unwrap());
        assert_eq!(one.restricted_tables().await.unwrap(), [main("them")].into());
        assert!(one.drop_object(&main("clicks"), Kind::Table).await.unwrap());
        assert!(one.definitions().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_was_seen_is_replaced_and_nothing_else() {
        let shared = Shared::new();
        let (one, other) = (shared.open().await, shared.open().await);
        let name = main("clicks");
        one.create(&name, clicks(None), "eve", CreateMode::New).await.unwrap();
        let seen = one.seen(&name).await.unwrap();
        assert_eq!(seen.separated().unwrap(), None);
        let apart = || clicks(Some(pii(&["email"], "who")));
        other.create(&name, apart(), "dpo", CreateMode::Replace).await.unwrap();
        let late = one.create_over(&name, clicks(None), "eve", CreateMode::Replace, &seen).await;
        assert!(matches!(late, Err(Error::Conflict { .. })), "{late:?}");
        assert_eq!(other.restricted_tables().await.unwrap(), [main("who")].into());
        let seen = one.seen(&name).await.unwrap();
        assert!(seen.separated().unwrap().is_some());
        let replaced = one.create_over(&name, clicks(None), "dpo", CreateMode::Replace, &seen);
        assert!(replaced.await.unwrap());
        assert!(one.restricted_tables().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_definition_that_cannot_be_read_may_keep_identifiers_apart() {
        let shared = Shared::new();
        let (name, raw) = (main("clicks"), LakeTable::new("orders/", Format::Csv));
        let catalog = shared.open().await;
        let apart = clicks(Some(pii(&["email"], "who")));
        catalog.create(&name, apart, "eve", CreateMode::New).await.unwrap();
        catalog.check_separation(&main("raw"), &raw).await.unwrap();
        let documents = shared.paths("_attune/heads").await;
        let document = documents.iter().find(|path| path.contains("main.clicks")).unwrap();
        let document = object_store::path::Path::parse(document).unwrap();
        let damaged = bytes::Bytes::from_static(b"{\"format\": 99}");
        shared.place.store.put(&document, damaged.into()).await.unwrap();
        let catalog = shared.open().await;
        let closed = catalog.check_separation(&main("raw"), &raw).await.unwrap_err();
        assert!(closed.to_string().contains("main.raw is closed"), "{closed}");
        assert!(!closed.to_string().contains("clicks"), "{closed}");
        assert!(catalog.separated_tables().await.is_err());
        assert!(catalog.seen(&name).await.unwrap().separated().is_err());
        assert!(catalog.drop_object(&name, Kind::Table).await.unwrap());
        catalog.check_separation(&main("raw"), &raw).await.unwrap();
    }

    #[tokio::test]
    async fn other_tables_over_the_files_are_closed() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        let apart = clicks(Some(pii(&["email"], "who")));
        catalog.create(&main("clicks"), apart, "eve", CreateMode::New).await.unwrap();
        let check = |table: LakeTable| {
            let catalog = &catalog;
            async move { catalog.check_separation(&main("raw"), &table).await }
        };
        let plain = |location: &str| LakeTable::new(location, Format::Csv);
        assert!(check(plain("clicks/")).await.is_err());
        assert!(check(plain("clicks/2026/")).await.is_err());
        assert!(check(plain("orders/")).await.is_ok());
        let more = LakeTable { pii: Some(pii(&["phone", "email"], "r")), ..plain("clicks/") };
        assert!(check(more).await.is_ok());
        let less = LakeTable { pii: Some(pii(&["phone"], "r")), ..plain("clicks/") };
        assert!(check(less).await.is_err());
    }
}
