//! Who of those that a version of a model has learned of does not consent any more.

use std::sync::Arc;

use arrow::array::ArrayRef;
use catalog::models::StoredConsent;
use catalog::{ConsentPolicy, ObjectName};
use udfs::consent::{ConsentSet, consenting};

use super::models::current_users;
use super::store::current;
use crate::engine::Engine;

/// How many of a version's users do not consent now to `purpose`, for the version's channel where
/// it has one, by the policies that have chosen its rows. `None` where that cannot be told: a
/// policy's persons are not the users, it is no more, or its consents cannot be read.
pub(crate) async fn withdrawn(
    engine: &Engine,
    users: &ArrayRef,
    consents: &[StoredConsent],
    (purpose, channel): (&str, Option<&str>),
) -> Option<usize> {
    let mut sets: Vec<Arc<ConsentSet>> = Vec::with_capacity(consents.len());
    for consent in consents {
        let policy = policy(engine, consent).await?;
        if !consent.of_users || !policy.purposes.contains(purpose) {
            return None;
        }
        let held = current_users(engine, &policy, purpose, channel, consent).await.ok()?;
        sets.push(Arc::clone(held.set()));
    }
    let consenting = consenting(&sets, users).ok()?;
    Some(consenting.len() - consenting.true_count())
}

/// Whether rows of consents came or went since they have chosen a version's rows; `None` where that
/// cannot be told.
pub(crate) async fn have_changed(
    engine: &Engine,
    consents: &[StoredConsent],
    (purpose, channel): (&str, Option<&str>),
) -> Option<bool> {
    for consent in consents {
        let policy = policy(engine, consent).await?;
        let channel = channel.filter(|channel| policy.channels.contains(*channel));
        let held = current(engine, &policy, purpose, channel).await.ok()?;
        // Where no row was read, nothing was known of them.
        if !held.is_versioned() || consent.version.is_empty() {
            return None;
        }
        if held.version() != consent.version {
            return Some(true);
        }
    }
    Some(false)
}

/// The same of a model's default version; `None` also where no consents have chosen its rows.
pub(crate) async fn have_changed_since(engine: &Engine, model: &ObjectName) -> Option<bool> {
    let (_, manifest) = engine.catalog().model_manifest(model, None).await.ok()?;
    let purpose = manifest.purpose.as_deref().filter(|_| !manifest.consents.is_empty())?;
    have_changed(engine, &manifest.consents, (purpose, manifest.channel.as_deref())).await
}

/// The policy as it is now.
async fn policy(engine: &Engine, consent: &StoredConsent) -> Option<Arc<ConsentPolicy>> {
    let known = engine.catalog().purposes().await.ok()?;
    known.policy(&consent.policy).cloned().map(Arc::new)
}
