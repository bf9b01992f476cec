//! Scheduled retraining: a model whose `schedule` has run out since it was last trained is
//! retrained as its owner, with the owner's rights, whether anybody is there or not. Between two
//! trainings `fold_in_schedule` has what is new folded in, likewise.
//!
//! The start is noted in the model's head by compare and swap first, so that of several servers one
//! trains, and a training that fails is tried again when the schedule has run out once more.

use catalog::models::{ModelInfo, Upkeep};
use catalog::policy::Principal;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::lifecycle::Lifecycle;
use crate::rights;
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
        let Some(upkeep) = due(&model, now_ms) else { continue };
        let outcome = match engine.catalog().begin(&model, upkeep).await {
            Ok(true) => retrain(engine, &model, upkeep).await,
            Ok(false) => continue,
            Err(error) => Err(error.into()),
        };
        done.push(Retrained { model: model.name.to_string(), outcome });
    }
    Ok(done)
}

/// What a model is due for; one whose options are not read any more, for nothing.
fn due(model: &ModelInfo, now_ms: i64) -> Option<Upkeep> {
    let lifecycle = Lifecycle::read(&model.options).ok()?;
    let is_over = |since_ms: i64, length_ms: Option<i64>| {
        length_ms.is_some_and(|length_ms| since_ms.saturating_add(length_ms) <= now_ms)
    };
    match is_over(model.trained_ms, lifecycle.schedule_ms) {
        true => Some(Upkeep::Training),
        false => is_over(model.folded_ms, lifecycle.fold_in_schedule_ms).then_some(Upkeep::FoldIn),
    }
}

async fn retrain(engine: &Engine, model: &ModelInfo, upkeep: Upkeep) -> Result<String> {
    let origin = Origin::new(Some(CLIENT), None);
    let options = SessionOptions { origin, ..SessionOptions::default() };
    let session = engine.session_with(owner(engine, model).await?, options);
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (schema, name) = (quoted(&model.name.schema), quoted(&model.name.name));
    let how = match upkeep {
        Upkeep::Training => "",
        Upkeep::FoldIn => " OPTIONS (fold_in = TRUE)",
    };
    let answer = session.query(&format!("RETRAIN MODEL {schema}.{name}{how}")).await?;
    Ok(answer.message.unwrap_or_default())
}

/// Who owns a model, with the rights of now.
async fn owner(engine: &Engine, model: &ModelInfo) -> Result<Principal> {
    let found = rights::owner(engine.catalog(), &model.owner).await?;
    found.ok_or_else(|| Error::Denied {
        principal: model.owner.clone(),
        action: format!("retrain {} by schedule: there is no such user", model.name),
        hint: Some("CREATE OR REPLACE MODEL as a user makes that user the owner".into()),
    })
}
