//! A version of a model without a person.

use std::sync::Arc;

use catalog::ObjectName;
use catalog::erasures::StepReport;

use super::export::{Held, unreadable};
use super::person::Person;
use crate::error::{CatalogError, Class, Error, Result};
use crate::model::options::model_error;
use crate::session::StatementContext;
use crate::session::run::Run;

/// Removes the person from a version: its users are taken out; a version that cannot do without
/// its records, or whose only users they are, goes.
pub(super) async fn unlearn(
    run: &Run,
    context: &Arc<StatementContext>,
    person: &Person,
    name: &ObjectName,
    version: u32,
) -> Result<StepReport> {
    let catalog = context.engine().catalog();
    let (object, nothing) =
        (format!("model {name}@{version}"), "nothing of the person alone is left");
    let mut report = StepReport { exact: false, ..StepReport::new(object, nothing) };
    // What an interrupted erasure has left comes first: its files may hold the person.
    let ended = catalog.end_replacement(name, version).await;
    let loaded = match ended {
        Ok(()) => catalog.load_model(name, Some(version)).await,
        Err(error) => Err(error),
    };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(CatalogError::NotFound { .. } | CatalogError::Invalid { .. }) => {
            catalog.purge_model_folders().await?;
            report.outcome = "the version is gone".into();
            report.exact = true;
            return Ok(report);
        }
        // Nobody can ask it either; whoever owns it drops or retrains it.
        Err(error) if error.class() == Class::Corrupt => {
            report.outcome = unreadable(name, version, &error);
            return Ok(report);
        }
        Err(error) => return Err(error.into()),
    };
    let (ids, _) = person.ids_in(run, context, &loaded.manifest.users_of).await?;
    let held = Held::of(person, &loaded, &ids)?;
    if held.is_empty() {
        return Ok(report);
    }
    report.rows = held.users.len() as u64 + held.records.len() as u64;
    let left = match held.records.is_empty() {
        true => without(Arc::clone(&loaded.model), held.users).await?,
        false => None,
    };
    match left {
        Some(model) => {
            catalog.replace_model(&loaded, Arc::new(model)).await?;
            report.outcome = "the person's factors and interactions are removed; factors of the \
                              items are solved anew, other sums over many are as they were: \
                              RETRAIN MODEL, which begins anew then, forgets \
                              exactly"
                .into();
        }
        None => {
            catalog.remove_model_version(name, version).await?;
            report.exact = true;
            report.outcome =
                "the version is removed, for it cannot do without the person: RETRAIN MODEL, or \
                 CREATE MODEL, makes another one"
                    .into();
        }
    }
    Ok(report)
}

/// The model without some users, computed on a thread that may block.
async fn without(
    model: Arc<udfs::model::Model>,
    users: Vec<u32>,
) -> Result<Option<udfs::model::Model>> {
    let computed = tokio::task::spawn_blocking(move || model.without_users(&users)).await;
    let computed = computed.map_err(|_| Error::Internal("a model was not rewritten".into()))?;
    computed.map_err(model_error)
}
