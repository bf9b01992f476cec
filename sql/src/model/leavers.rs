//! Who has left a version of a model since it was trained: people who withdrew, are restricted, or
//! were erased. What it has learned of them is nothing to go on from, and no reason to keep it.
//!
//! Where somebody may leave, as consents chose the rows or a subject is defined, RETRAIN goes on
//! only from a version all of whose users, or records, are in the rows still. So whoever is in a
//! chain of versions is in the last one, and is found there on leaving. A fold-in goes on whoever
//! has left; its version says so, and the next training begins anew.

use std::collections::{BTreeMap, HashSet};

use arrow::array::ArrayRef;
use arrow::compute::can_cast_types;
use arrow::datatypes::DataType;
use catalog::models::{LoadedModel, Manifest, StoredConsent, StoredStart};
use udfs::privacy::Token;

use crate::consent::models::TrainedFor;
use crate::consent::withdrawals;
use crate::engine::Engine;
use crate::error::Result;

/// What is known of whoever may leave models.
pub(crate) struct Leavers<'a> {
    engine: &'a Engine,
    /// The restricted and erased persons of each subject.
    hidden: Vec<(String, HashSet<Token>)>,
}

/// The consents by which a version's rows were chosen, or those of the next one are.
struct Governed {
    purpose: Option<String>,
    consents: Vec<StoredConsent>,
}

impl<'a> Leavers<'a> {
    /// Reads who is restricted and erased.
    ///
    /// # Errors
    /// When what is known of persons cannot be read.
    pub(crate) async fn load(engine: &'a Engine) -> Result<Self> {
        Ok(Self { engine, hidden: engine.catalog().hidden_persons().await? })
    }

    /// Whether anybody may leave a version whose rows, or those of the next one, are chosen so.
    pub(crate) fn may_leave(&self, manifest: &Manifest, next: Option<&TrainedFor>) -> bool {
        !self.hidden.is_empty() || !Governed::of(manifest, next).consents.is_empty()
    }

    /// Who has left a version, in words; `None` where nobody has. `next` is for what the version
    /// after it is trained.
    ///
    /// # Errors
    /// When what is known of persons cannot be read.
    pub(crate) async fn left(
        &self,
        version: &LoadedModel,
        next: Option<&TrainedFor>,
    ) -> Result<Option<String>> {
        let (manifest, number) = (&version.manifest, version.version);
        if let Some(why) = self.of_chain(number, manifest, next) {
            return Ok(Some(why));
        }
        let governed = Governed::of(manifest, next);
        if !governed.consents.is_empty() {
            match self.withdrawn(version, &governed).await {
                Some(0) => {}
                Some(count) => {
                    let why = format!("persons in version {number} without consent: {count}");
                    return Ok(Some(why));
                }
                None => {
                    let why = format!(
                        "whether all persons of whom version {number} has learned consent still \
                         cannot be told"
                    );
                    return Ok(Some(why));
                }
            }
        }
        // How many they are is told to nobody who reads without them.
        let holds_hidden = self.holds_hidden(version).await?;
        Ok(holds_hidden.then(|| format!("version {number} holds persons whom nobody may see")))
    }

    /// What a manifest alone tells of who has left a version.
    pub(crate) fn of_chain(
        &self,
        number: u32,
        manifest: &Manifest,
        next: Option<&TrainedFor>,
    ) -> Option<String> {
        if manifest.replaces.is_some() {
            return Some(format!("persons were erased from version {number}"));
        }
        match manifest.start {
            _ if !self.may_leave(manifest, next) => None,
            StoredStart::Anew | StoredStart::GoesOn { holds_all: true, .. } => None,
            StoredStart::GoesOn { version: before, .. } => Some(format!(
                "version {number} goes on from version {before}, which knows persons that it does \
                 not hold"
            )),
            StoredStart::Unknown => {
                Some(format!("nothing tells what version {number} goes on from"))
            }
        }
    }

    /// Whether more than the manifest tells who has left a version.
    pub(crate) fn look_into(&self, manifest: &Manifest) -> bool {
        !manifest.consents.is_empty() || self.hidden.iter().any(|(_, tokens)| !tokens.is_empty())
    }

    /// How many users of a version do not consent now; `None` where that cannot be told.
    async fn withdrawn(&self, version: &LoadedModel, governed: &Governed) -> Option<usize> {
        let users = version.model.recommender()?.user_ids().values();
        let purpose = governed.purpose.as_deref()?;
        withdrawals::withdrawn(self.engine, &users, &governed.consents, purpose).await
    }

    /// Whether users or records of a version are of restricted or erased persons.
    async fn holds_hidden(&self, version: &LoadedModel) -> Result<bool> {
        let Some(ids) = persons(version) else { return Ok(false) };
        let marked: Vec<_> = self.hidden.iter().filter(|(_, tokens)| !tokens.is_empty()).collect();
        if marked.is_empty() || !can_cast_types(ids.data_type(), &DataType::Utf8) {
            return Ok(false);
        }
        let tokens = self.engine.catalog().subject_tokens().await?;
        for (subject, of_subject) in marked {
            if tokens.find(subject, &ids, of_subject)?.true_count() > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Governed {
    /// Both taken together: a policy tells who has left only where its persons are the users of
    /// both.
    fn of(manifest: &Manifest, next: Option<&TrainedFor>) -> Self {
        let Some(next) = next else {
            return Self { purpose: manifest.purpose.clone(), consents: manifest.consents.clone() };
        };
        let of_policy = |consent: StoredConsent| (consent.policy.clone(), consent);
        let mut all: BTreeMap<String, StoredConsent> =
            next.consents().into_iter().map(of_policy).collect();
        for consent in &manifest.consents {
            match all.get_mut(&consent.policy) {
                Some(found) => found.of_users &= consent.of_users,
                None => {
                    let dropped = StoredConsent { of_users: false, ..consent.clone() };
                    all.insert(consent.policy.clone(), dropped);
                }
            }
        }
        // Consents to another purpose tell nothing of this one.
        let purpose = match (next.purpose(), manifest.purpose.clone()) {
            (Some(now), Some(then)) => Some(now).filter(|now| *now == then),
            (now, then) => now.or(then),
        };
        Self { purpose, consents: all.into_values().collect() }
    }
}

/// The ids of whom a version has learned, where it keeps any.
fn persons(version: &LoadedModel) -> Option<ArrayRef> {
    let recommender = version.model.recommender().map(|found| found.user_ids().values());
    let records = || version.model.entities().map(|found| ArrayRef::clone(&found.parts().ids));
    recommender.or_else(records)
}
