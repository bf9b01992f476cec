//! The version that a training begins from: that which RETRAIN goes on from, and that whose
//! entities keep their ids where CREATE OR REPLACE takes its place.

use catalog::{Catalog, ObjectName};
use datafusion::execution::memory_pool::MemoryReservation;

use crate::engine::Engine;
use crate::error::Error;
use crate::model::leavers::{Leavers, Next};
use crate::model::lifecycle::Previous;

/// A version, or why there is none.
type Told = (Option<Previous>, Option<String>);

/// The default version of a model that is retrained, with who has left it, or why there is nothing
/// to go on from; `how` says whether somebody said how many iterations there are to be, and whether
/// there is nothing to train but from it.
pub(super) async fn retrained(
    engine: &Engine,
    name: &ObjectName,
    how: (bool, bool),
    next: &Next,
    memory: &MemoryReservation,
) -> Told {
    let catalog = engine.catalog();
    let loaded = match catalog.model_manifest(name, None).await {
        Ok((version, manifest)) => {
            loaded(catalog, name, (version, manifest.memory_bytes), how, memory).await
        }
        Err(error) => Err(error.to_string()),
    };
    let looked_at = match loaded {
        Ok(previous) => looked_at(engine, previous, next).await,
        Err(why) => Err(why),
    };
    match looked_at {
        Ok(previous) => (Some(previous), None),
        Err(why) => (None, Some(format!("trained cold ({why})"))),
    }
}

/// The default version of the model that another of the same type replaces, or why what it knows is
/// lost; neither where there is none.
pub async fn replaced(
    catalog: &Catalog,
    name: &ObjectName,
    model_type: &str,
    memory: &MemoryReservation,
) -> Told {
    let loaded = match catalog.model_manifest(name, None).await {
        Ok((_, manifest)) if manifest.model_type != model_type => return (None, None),
        Ok((version, manifest)) => {
            loaded(catalog, name, (version, manifest.memory_bytes), (false, false), memory).await
        }
        Err(catalog::Error::NotFound { .. }) => return (None, None),
        Err(error) => Err(error.to_string()),
    };
    match loaded {
        Ok(previous) => (Some(previous), None),
        Err(why) => (None, Some(format!("entities begin anew ({why})"))),
    }
}

/// A version with its place in memory taken, or why it cannot be had.
async fn loaded(
    catalog: &Catalog,
    name: &ObjectName,
    (version, memory_bytes): (u32, usize),
    (are_iterations_given, is_needed): (bool, bool),
    memory: &MemoryReservation,
) -> Result<Previous, String> {
    memory.try_grow(memory_bytes).map_err(|_| no_place(version))?;
    let version = catalog.load_model(name, Some(version)).await;
    let version = version.map_err(|error| error.to_string())?;
    let (left, must_be_whole) = (None, false);
    Ok(Previous { version, are_iterations_given, is_needed, left, must_be_whole })
}

/// A version with who has left it. Where that cannot be read it is nothing to go on from.
async fn looked_at(engine: &Engine, previous: Previous, next: &Next) -> Result<Previous, String> {
    let told = |error: Error| error.to_string();
    let leavers = Leavers::load(engine).await.map_err(told)?;
    let left = leavers.left(&previous.version, Some(next)).await.map_err(told)?;
    let must_be_whole = leavers.may_leave(&previous.version.manifest, Some(next));
    Ok(Previous { left, must_be_whole, ..previous })
}

fn no_place(version: u32) -> String {
    format!("version {version} does not fit into memory beside the training")
}
