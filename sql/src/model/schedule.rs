//! Scheduled retraining: a model whose `schedule` has run out since it was last trained is
//! retrained as its owner, with the owner's rights, whether anybody is there or not.
//!
//! The start is noted in the model's head by compare and swap first, so that of several servers one
//! trains, and a training that fails is tried again when the schedule has run out once more.

use catalog::models::ModelInfo;
use catalog::policy::Principal;
use catalog::policy::principal::EMBEDDED;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::lifecycle::Lifecycle;
use crate::session::{Origin, SessionOptions};

/// The name that a scheduled training's session gives as its client.
const CLIENT: &str = "schedule";

/// What became of a model that was due.
#[derive(Debug)]
pub struct Retrained {
    /// Its name.
    pub model: String,
    /// What RETRAIN said, or why it failed.
    pub outcome: Result<String>,
}

/// Retrains the models that are due at `now_ms` (Unix milliseconds), one after another.
///
/// # Errors
/// When the models cannot be listed.
pub async fn retrain_due(engine: &Engine, now_ms: i64) -> Result<Vec<Retrained>> {
    let mut done = Vec::new();
    for model in engine.catalog().models().await? {
        let due = schedule_ms(&model).map(|length| model.trained_ms.saturating_add(length));
        if due.is_none_or(|due| now_ms < due) {
            continue;
        }
        let outcome = match engine.catalog().begin_training(&model.name, model.trained_ms).await {
            Ok(true) => retrain(engine, &model).await,
            Ok(false) => continue,
            Err(error) => Err(error.into()),
        };
        done.push(Retrained { model: model.name.to_string(), outcome });
    }
    Ok(done)
}

/// The schedule of a model; of one whose options are not read any more, none.
fn schedule_ms(model: &ModelInfo) -> Option<i64> {
    Lifecycle::read(&model.options).ok()?.schedule_ms
}

async fn retrain(engine: &Engine, model: &ModelInfo) -> Result<String> {
    let origin = Origin::new(Some(CLIENT), None);
    let options = SessionOptions { origin, ..SessionOptions::default() };
    let session = engine.session_with(owner(engine, model).await?, options);
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (schema, name) = (quoted(&model.name.schema), quoted(&model.name.name));
    let answer = session.query(&format!("RETRAIN MODEL {schema}.{name}")).await?;
    Ok(answer.message.unwrap_or_default())
}

/// Who owns a model, with the rights of now.
async fn owner(engine: &Engine, model: &ModelInfo) -> Result<Principal> {
    let catalog = engine.catalog();
    if let Some(user) = catalog.user(&model.owner).await? {
        return Ok(Principal::of(&user));
    }
    if model.owner == EMBEDDED && !catalog.has_users().await? {
        return Ok(Principal::embedded());
    }
    Err(Error::Denied {
        principal: model.owner.clone(),
        action: format!("retrain {} by schedule: there is no such user", model.name),
        hint: Some("CREATE OR REPLACE MODEL as a user makes that user the owner".into()),
    })
}
