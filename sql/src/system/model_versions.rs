//! `system.model_versions`: every version that is kept of the models that a principal sees, and who
//! has left it since it was trained.
//!
//! Who has left is for those who own the model and those who keep policies. A version whose
//! persons are looked for is loaded, so the table is made when it is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, Int64Array, RecordBatch};
use catalog::ObjectName;
use catalog::models::{Manifest, ModelInfo, StoredConsent, StoredStart};
use catalog::policy::Role;
use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use futures::{StreamExt, stream};

use super::audit::made;
use super::batches::{batch, integers, optional_texts, sees_model, texts};
use super::sessions::instants;
use crate::consent::withdrawals;
use crate::engine::Engine;
use crate::error::Result;
use crate::model::leavers::Leavers;
use crate::session::StatementContext;

/// A version. One that cannot be read tells nothing but that it is there.
struct Version {
    name: ObjectName,
    number: u32,
    is_default: bool,
    manifest: Option<Manifest>,
    consents_changed: Option<bool>,
    left: Left,
}

/// Who has left a version.
#[derive(Default)]
struct Left {
    /// Users who do not consent now, where that can be told.
    withdrawn: Option<i64>,
    /// Why RETRAIN would begin anew, in words.
    why: Option<String>,
}

pub(super) fn versions(context: &Arc<StatementContext>) -> Result<Arc<dyn TableProvider>> {
    let context = Arc::clone(context);
    made(&rows(&[])?, move || {
        let context = Arc::clone(&context);
        let found = async move { Ok::<_, DataFusionError>(rows(&gathered(&context).await?)?) };
        stream::once(found).boxed()
    })
}

async fn gathered(context: &Arc<StatementContext>) -> Result<Vec<Version>> {
    let (rights, engine) = (context.rights(), context.engine());
    let leavers = Leavers::load(engine).await?;
    let kept: BTreeMap<ObjectName, Vec<u32>> =
        engine.catalog().model_versions().await?.into_iter().collect();
    let mut found = Vec::new();
    for model in engine.catalog().models().await? {
        if !sees_model(rights, &model) {
            continue;
        }
        let is_told = rights.has(Role::PolicyAdmin)
            || rights.sees_definition(&model.name, Some(&model.owner));
        for number in kept.get(&model.name).into_iter().flatten() {
            found.push(version(engine, &leavers, &model, *number, is_told).await?);
        }
    }
    Ok(found)
}

async fn version(
    engine: &Engine,
    leavers: &Leavers<'_>,
    model: &ModelInfo,
    number: u32,
    is_told: bool,
) -> Result<Version> {
    let name = model.name.clone();
    let is_default = number == model.default_version;
    let manifest = match engine.catalog().model_manifest(&name, Some(number)).await {
        Ok((_, manifest)) => manifest,
        Err(error) => {
            tracing::warn!(model = %name, number, %error, "a version is listed by its number");
            let (manifest, consents_changed, left) = (None, None, Left::default());
            return Ok(Version { name, number, is_default, manifest, consents_changed, left });
        }
    };
    let purpose = manifest.purpose.as_deref().unwrap_or_default();
    let consents_changed = match manifest.consents.is_empty() {
        true => None,
        false => {
            let asked = (purpose, manifest.channel.as_deref());
            withdrawals::have_changed(engine, &manifest.consents, asked).await
        }
    };
    let left = match is_told {
        true => left(engine, leavers, &name, number, &manifest).await?,
        false => Left::default(),
    };
    let manifest = Some(manifest);
    Ok(Version { name, number, is_default, manifest, consents_changed, left })
}

async fn left(
    engine: &Engine,
    leavers: &Leavers<'_>,
    name: &ObjectName,
    number: u32,
    manifest: &Manifest,
) -> Result<Left> {
    if !leavers.look_into(manifest) {
        return Ok(Left { withdrawn: None, why: leavers.of_chain(number, manifest, None) });
    }
    let loaded = match engine.catalog().load_model(name, Some(number)).await {
        Ok(loaded) => loaded,
        Err(error) => {
            tracing::warn!(model = %name, number, %error, "not looked for people who left");
            return Ok(Left { withdrawn: None, why: leavers.of_chain(number, manifest, None) });
        }
    };
    let of_users: Vec<StoredConsent> =
        manifest.consents.iter().filter(|consent| consent.of_users).cloned().collect();
    let users = loaded.model.recommender().map(|found| found.user_ids().values());
    let withdrawn = match (users, manifest.purpose.as_deref()) {
        (Some(users), Some(purpose)) if !of_users.is_empty() => {
            let asked = (purpose, manifest.channel.as_deref());
            withdrawals::withdrawn(engine, &users, &of_users, asked).await
        }
        _ => None,
    };
    let withdrawn = withdrawn.and_then(|count| i64::try_from(count).ok());
    Ok(Left { withdrawn, why: leavers.left(&loaded, None).await? })
}

fn rows(found: &[Version]) -> Result<RecordBatch> {
    let manifests = || found.iter().map(|version| version.manifest.as_ref());
    let before = |manifest: Option<&Manifest>| match manifest?.start {
        StoredStart::GoesOn { version, .. } => Some(i64::from(version)),
        StoredStart::Anew | StoredStart::Unknown => None,
    };
    let text = |of: fn(&Manifest) -> Option<String>| {
        optional_texts(manifests().map(move |manifest| manifest.and_then(of)))
    };
    let withdrawn = found.iter().map(|version| version.left.withdrawn);
    let changed = found.iter().map(|version| version.consents_changed);
    batch(vec![
        ("schema", texts(found.iter().map(|version| version.name.schema.as_str()))),
        ("name", texts(found.iter().map(|version| version.name.name.as_str()))),
        ("version", integers(found.iter().map(|version| i64::from(version.number)))),
        (
            "is_default",
            Arc::new(
                found.iter().map(|version| Some(version.is_default)).collect::<BooleanArray>(),
            ),
        ),
        ("model_type", text(|manifest| Some(manifest.model_type.clone()))),
        ("trained_by", text(|manifest| Some(manifest.owner.clone()))),
        ("created", instants(manifests().map(|manifest| manifest.map(|it| it.created_ms)))),
        ("goes_on_from", Arc::new(manifests().map(before).collect::<Int64Array>())),
        ("purpose", text(|manifest| manifest.purpose.clone())),
        ("consent_version", text(consent_version)),
        ("consents_changed", Arc::new(changed.collect::<BooleanArray>())),
        ("withdrawn_users", Arc::new(withdrawn.collect::<Int64Array>())),
        ("to_unlearn", optional_texts(found.iter().map(|version| version.left.why.clone()))),
    ])
}

/// What the consents were known by that have chosen the rows; `None` where none have.
fn consent_version(manifest: &Manifest) -> Option<String> {
    let consents = manifest.consents.iter();
    let told: Vec<String> =
        consents.map(|consent| format!("{}: {}", consent.policy, consent.version)).collect();
    (!told.is_empty()).then(|| told.join("; "))
}
