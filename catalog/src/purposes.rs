//! Purposes, and consent policies: which tables are read for which purpose, and whose rows then.
//!
//! A purpose is a document, and so is a consent policy. A policy governs the tables that it names:
//! there a row belongs to the person in its subject column, and is there for a purpose of the
//! policy only while that person consents to it. Who consents is told by a table or view of
//! consents, which is read with the rights of the policy's owner. A policy stays with a table's
//! name when the table is dropped or replaced: what comes later under the name is governed too.
//! Only one that a copy has inherited goes with the copy: it is in the copy's definition
//! (`inherited.rs`).
//!
//! Grants of purposes lie where all grants lie, in their grantee's document.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::inherited::Inherited;
use crate::policy::Securable;
use crate::registry::change::{Step, TRIES};
use crate::registry::{CreateMode, Definitions, Head, Kind, ObjectName, Spec};
use crate::subjects::SubjectKey;

/// The places of purposes and policies in their registry; no SQL name reaches it.
const PURPOSE: &str = "purpose";
pub(crate) const CONSENT: &str = "consent";
/// What a row of consents names that tells of every purpose for which personal information is sold
/// or shared; no purpose has this name.
pub const SELL_OR_SHARE: &str = "sell_or_share";
/// Policies of one warehouse: each statement looks at all of them.
const POLICIES_MAX: usize = 1_000;

/// A purpose that reads can serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purpose {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether personal information is sold or shared for it, as the CCPA has it: then who says
    /// "do not sell or share" is absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sells_or_shares: bool,
    /// Who created it.
    pub owner: String,
    /// When, in Unix milliseconds.
    pub created_ms: i64,
}

/// The columns of a table or view of consents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConsentSource {
    /// The table or view.
    pub table: ObjectName,
    /// Whose consent a row tells of.
    pub subject: String,
    /// For which purpose; NULL: a withdrawal for every purpose; [`SELL_OR_SHARE`]: for each that
    /// sells or shares.
    pub purpose: String,
    /// Whether it is given.
    pub granted: String,
    /// From when on, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<String>,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<String>,
    /// By which channel it was told; each channel has its own latest word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

/// A rule that rows are there for a purpose only where the person consents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConsentPolicy {
    /// Its name, one in the warehouse.
    pub name: String,
    /// The table that it governs.
    pub table: ObjectName,
    /// The column with the person.
    pub subject: String,
    /// Who consents.
    pub consents: ConsentSource,
    /// For what.
    pub purposes: BTreeSet<String>,
    /// The channels for which it is read, each with words of its own; none: not one by one.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub channels: BTreeSet<String>,
    /// Whether somebody of whom the consents tell nothing consents.
    pub default_allow: bool,
    /// Who created it; the consents are read with this user's rights.
    pub owner: String,
    /// When, in Unix milliseconds.
    pub created_ms: i64,
    /// Whether its table is a copy that inherited it: then it goes with the table.
    #[serde(default)]
    pub is_inherited: bool,
    /// Of a copy: the column that its persons were in, whose subjects are the copy's too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<SubjectKey>,
}

impl ConsentPolicy {
    /// The column by which its persons are known to subjects.
    pub fn key(&self) -> SubjectKey {
        self.follows.clone().unwrap_or_else(|| SubjectKey {
            table: self.table.clone(),
            column: self.subject.clone(),
        })
    }

    /// Whether two let the same persons' rows be there for the same purposes.
    pub fn is_alike(&self, other: &Self) -> bool {
        self.consents == other.consents
            && self.purposes == other.purposes
            && self.channels == other.channels
            && self.default_allow == other.default_allow
    }
}

/// Purposes and policies as they stood at one moment, at most a second ago.
#[derive(Debug, Clone, Default)]
pub struct Purposes {
    found: Arc<Definitions>,
    inherited: Arc<Inherited>,
    fault: Option<Error>,
}

/// The moment of some [`Purposes`], which it does not keep alive.
#[derive(Debug, Clone)]
pub struct PurposesMoment(Weak<Definitions>, Weak<Inherited>);

impl Purposes {
    /// The moment, to be compared with a later one's.
    pub fn moment(&self) -> PurposesMoment {
        PurposesMoment(Arc::downgrade(&self.found), Arc::downgrade(&self.inherited))
    }

    /// Whether these are of that moment.
    pub fn is_of(&self, moment: &PurposesMoment) -> bool {
        Weak::ptr_eq(&moment.0, &Arc::downgrade(&self.found))
            && Weak::ptr_eq(&moment.1, &Arc::downgrade(&self.inherited))
    }

    /// Why one of the documents cannot be read: it may be a policy, so nothing that one could
    /// govern is to be read until it is dropped or restored.
    pub fn fault(&self) -> Option<&Error> {
        self.fault.as_ref()
    }

    /// Every purpose, by name.
    pub fn all(&self) -> impl Iterator<Item = &Purpose> {
        self.found.values().filter_map(|found| match &found.spec {
            Spec::Purpose(purpose) => Some(purpose),
            _ => None,
        })
    }

    /// The purpose of that name.
    pub fn get(&self, name: &str) -> Option<&Purpose> {
        match &self.found.get(&(PURPOSE.to_owned(), name.to_owned()))?.spec {
            Spec::Purpose(purpose) => Some(purpose),
            _ => None,
        }
    }

    /// Every consent policy, by name.
    pub fn policies(&self) -> impl Iterator<Item = &ConsentPolicy> {
        let created = self.found.values().filter_map(|found| match &found.spec {
            Spec::Consent(policy) => Some(policy.as_ref()),
            _ => None,
        });
        let mut all: Vec<&ConsentPolicy> = created.chain(self.inherited.policies()).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all.into_iter()
    }

    /// The consent policy of that name.
    pub fn policy(&self, name: &str) -> Option<&ConsentPolicy> {
        match self.found.get(&(CONSENT.to_owned(), name.to_owned())).map(|found| &found.spec) {
            Some(Spec::Consent(policy)) => Some(policy.as_ref()),
            Some(_) => None,
            None => self.inherited.policy(name),
        }
    }

    /// The policies of each governed table.
    pub fn by_table(&self) -> BTreeMap<ObjectName, Vec<Arc<ConsentPolicy>>> {
        let mut found: BTreeMap<ObjectName, Vec<Arc<ConsentPolicy>>> = BTreeMap::new();
        for policy in self.policies() {
            found.entry(policy.table.clone()).or_default().push(Arc::new(policy.clone()));
        }
        found
    }
}

impl fmt::Display for ConsentSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({}, {}, {}", self.table, self.subject, self.purpose, self.granted)?;
        for column in [&self.valid_from, &self.valid_to, &self.channel].into_iter().flatten() {
            write!(formatter, ", {column}")?;
        }
        formatter.write_str(")")
    }
}

impl Catalog {
    /// Purposes and consent policies, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn purposes(&self) -> Result<Purposes> {
        let (found, fault) = self.purposes.definitions_and_fault().await?;
        let inherited = self.inherited_beside(&found).await?;
        Ok(Purposes { found, inherited, fault })
    }

    /// Creates a purpose; `false` when the name exists and `mode` is `IfNotExists`.
    ///
    /// # Errors
    /// `AlreadyExists`; `Conflict` when somebody else was first.
    pub async fn create_purpose(&self, purpose: Purpose, mode: CreateMode) -> Result<bool> {
        let (name, owner) = (purpose.name.clone(), purpose.owner.clone());
        self.define(PURPOSE, &name, Spec::Purpose(purpose), &owner, mode).await
    }

    /// Changes a purpose.
    ///
    /// # Errors
    /// `NotFound`; when the warehouse cannot be written, or others change it again and again.
    pub async fn change_purpose(&self, name: &str, change: impl Fn(&mut Purpose)) -> Result<()> {
        self.change_definition(PURPOSE, name, |spec| match spec {
            Spec::Purpose(purpose) => {
                change(purpose);
                Ok(())
            }
            _ => Err(Error::not_found("purpose", name, [])),
        })
        .await
    }

    /// Drops a purpose with the grants of it; `false` when there is none.
    ///
    /// # Errors
    /// When a policy names it; when the warehouse cannot be written.
    pub async fn drop_purpose(&self, name: &str) -> Result<bool> {
        self.writable().await?;
        let named = self.purposes().await?;
        let named: Vec<&str> = named
            .policies()
            .filter(|policy| policy.purposes.contains(name))
            .map(|policy| policy.name.as_str())
            .collect();
        if !named.is_empty() {
            return Err(Error::invalid_hint(
                format!("purpose {name} is named by the consent policy {}", named.join(", ")),
                "ALTER CONSENT POLICY … SET PURPOSE without it, or drop the policy, first",
            ));
        }
        // Grants go first: a later purpose of that name starts without.
        self.forget_grants(&Securable::Purpose(name.to_owned())).await?;
        self.purposes.drop_object(&ObjectName::new(PURPOSE, name), Kind::Purpose).await
    }

    /// Creates a consent policy; `false` when the name exists and `mode` is `IfNotExists`.
    ///
    /// # Errors
    /// `AlreadyExists`; `Invalid` when one would be replaced that a copy has inherited; `Conflict`
    /// when somebody else was first.
    pub async fn create_consent(&self, policy: ConsentPolicy, mode: CreateMode) -> Result<bool> {
        self.check_policies().await?;
        let (name, owner) = (policy.name.clone(), policy.owner.clone());
        if let Some((table, _)) = self.inheriting(&name).await? {
            return may_stay(&table, name, mode);
        }
        self.define(CONSENT, &name, Spec::Consent(Box::new(policy)), &owner, mode).await
    }

    /// The table that has inherited the policy of a name, and what its definition calls the policy.
    async fn inheriting(&self, name: &str) -> Result<Option<(ObjectName, String)>> {
        Ok(self.purposes().await?.inherited.place(name))
    }

    /// Checks that there may be one more policy.
    ///
    /// # Errors
    /// When there are too many; when the warehouse cannot be reached.
    pub(crate) async fn check_policies(&self) -> Result<()> {
        match self.purposes().await?.policies().count() >= POLICIES_MAX {
            true => Err(Error::invalid(format!(
                "a warehouse has at most {POLICIES_MAX} consent policies"
            ))),
            false => Ok(()),
        }
    }

    /// Changes a consent policy.
    ///
    /// # Errors
    /// Those of `change`; `NotFound`; when the warehouse cannot be written, or others change it
    /// again and again.
    pub async fn change_consent(
        &self,
        name: &str,
        change: impl Fn(&mut ConsentPolicy) -> Result<()>,
    ) -> Result<()> {
        if let Some((table, written)) = self.inheriting(name).await? {
            return self.change_inherited(&table, &written, change).await;
        }
        self.change_definition(CONSENT, name, |spec| match spec {
            Spec::Consent(policy) => change(policy),
            _ => Err(Error::not_found("consent policy", name, [])),
        })
        .await
    }

    /// Drops a consent policy; `false` when there is none.
    ///
    /// # Errors
    /// When the warehouse cannot be written, or somebody else changed it at the same time.
    pub async fn drop_consent(&self, name: &str) -> Result<bool> {
        self.writable().await?;
        if let Some((table, written)) = self.inheriting(name).await? {
            return self.drop_inherited(&table, &written).await;
        }
        self.purposes.drop_object(&ObjectName::new(CONSENT, name), Kind::Consent).await
    }

    /// The consent policies that a user owns, by name.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn consents_owned_by(&self, owner: &str) -> Result<Vec<String>> {
        let all = self.purposes().await?;
        let owned = all.policies().filter(|policy| policy.owner == owner);
        Ok(owned.map(|policy| policy.name.clone()).collect())
    }

    /// Gives the consent policies that `from` owns to `to`; how many there were.
    ///
    /// # Errors
    /// When the warehouse cannot be written.
    pub(crate) async fn reassign_consents(&self, from: &str, to: &str) -> Result<usize> {
        let owned = self.consents_owned_by(from).await?;
        for name in &owned {
            let give = |policy: &mut ConsentPolicy| {
                if policy.owner == from {
                    policy.owner = to.to_owned();
                }
                Ok(())
            };
            self.change_consent(name, give).await?;
        }
        Ok(owned.len())
    }

    async fn define(
        &self,
        schema: &str,
        name: &str,
        spec: Spec,
        owner: &str,
        mode: CreateMode,
    ) -> Result<bool> {
        self.writable().await?;
        let kind = spec.kind().name();
        let made = self.purposes.create(&ObjectName::new(schema, name), spec, owner, mode).await;
        made.map_err(|error| match error {
            Error::AlreadyExists { .. } => Error::AlreadyExists { kind, name: name.into() },
            other => other,
        })
    }

    async fn change_definition(
        &self,
        schema: &str,
        name: &str,
        change: impl Fn(&mut Spec) -> Result<()>,
    ) -> Result<()> {
        self.writable().await?;
        let place = ObjectName::new(schema, name);
        let step = |head: Option<&Head>| {
            let Some((before, owner)) = present(head)? else {
                let kind = if schema == PURPOSE { "purpose" } else { "consent policy" };
                return Err(Error::not_found(kind, name, []));
            };
            let mut spec = before.clone();
            change(&mut spec)?;
            Ok(match spec == before {
                true => Step::Stays(()),
                false => Step::writes(Some(spec), owner, ()),
            })
        };
        self.purposes.change(&place, TRIES, || name.to_owned(), step).await
    }
}

/// Whether a policy is created whose name is that of one that a copy has inherited.
fn may_stay(table: &ObjectName, name: String, mode: CreateMode) -> Result<bool> {
    match mode {
        CreateMode::IfNotExists => Ok(false),
        CreateMode::New => Err(Error::AlreadyExists { kind: Kind::Consent.name(), name }),
        CreateMode::Replace => Err(Error::invalid_hint(
            format!("{table} has inherited the consent policy {name}, which goes with the table"),
            "ALTER CONSENT POLICY changes it; DROP it first, or choose another name",
        )),
    }
}

/// What a head holds, with its owner.
pub(crate) fn present(head: Option<&Head>) -> Result<Option<(Spec, String)>> {
    let Some(head) = head else { return Ok(None) };
    let document = head.document.clone()?;
    Ok(document.spec.clone().map(|spec| (spec, document.owner.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Shared;

    fn purpose(name: &str) -> Purpose {
        Purpose {
            name: name.into(),
            description: None,
            sells_or_shares: false,
            owner: "dpo".into(),
            created_ms: 1,
        }
    }

    fn policy(name: &str, purposes: &[&str]) -> ConsentPolicy {
        ConsentPolicy {
            name: name.into(),
            table: ObjectName::new("main", "clicks"),
            subject: "person".into(),
            consents: ConsentSource {
                table: ObjectName::new("main", "consents"),
                subject: "subject".into(),
                purpose: "purpose".into(),
                granted: "granted".into(),
                valid_from: Some("since".into()),
                valid_to: None,
                channel: None,
            },
            purposes: purposes.iter().map(|name| (*name).to_owned()).collect(),
            channels: BTreeSet::new(),
            default_allow: false,
            owner: "dpo".into(),
            created_ms: 1,
            is_inherited: false,
            follows: None,
        }
    }

    #[tokio::test]
    async fn a_purpose_that_a_policy_names_stays() {
        let catalog = Shared::new().open().await;
        assert!(catalog.create_purpose(purpose("ads"), CreateMode::New).await.unwrap());
        assert!(catalog.create_purpose(purpose("ads"), CreateMode::New).await.is_err());
        assert!(!catalog.create_purpose(purpose("ads"), CreateMode::IfNotExists).await.unwrap());
        let described = |purpose: &mut Purpose| {
            purpose.description = Some("adverts".into());
            purpose.sells_or_shares = true;
        };
        catalog.change_purpose("ads", described).await.unwrap();
        assert!(catalog.change_purpose("adz", described).await.is_err());
        catalog.create_consent(policy("p", &["ads"]), CreateMode::New).await.unwrap();
        let error = catalog.drop_purpose("ads").await.unwrap_err();
        assert!(error.to_string().contains("consent policy p"), "{error}");
        let all = catalog.purposes().await.unwrap();
        assert_eq!(all.get("ads").unwrap().description.as_deref(), Some("adverts"));
        assert_eq!(all.by_table()[&ObjectName::new("main", "clicks")].len(), 1);
        assert!(all.is_of(&all.moment()));
        assert!(catalog.drop_consent("p").await.unwrap());
        assert!(!catalog.drop_consent("p").await.unwrap());
        assert!(catalog.drop_purpose("ads").await.unwrap());
        assert!(!all.is_of(&catalog.purposes().await.unwrap().moment()));
    }

    #[tokio::test]
    async fn policies_pass_on_to_another_owner() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        catalog.create_consent(policy("p", &["ads"]), CreateMode::New).await.unwrap();
        assert_eq!(catalog.reassign_owned("dpo", "eve").await.unwrap(), 1);
        assert_eq!(catalog.consents_owned_by("eve").await.unwrap(), ["p"]);
        let other = shared.open().await.purposes().await.unwrap();
        assert_eq!(other.policy("p").unwrap().owner, "eve");
    }
}
