//! The version that a training begins from: that which RETRAIN goes on from, and that whose
//! entities keep their ids where CREATE OR REPLACE takes its place.

use catalog::{Catalog, ObjectName};
use datafusion::execution::memory_pool::MemoryReservation;

use crate::model::lifecycle::Previous;

/// A version, or why there is none.
type Told = (Option<Previous>, Option<String>);

/// The default version of a model that is retrained, or why there is nothing to go on from; `how`
/// says whether somebody said how many iterations there are to be, and whether there is nothing to
/// train but from it.
pub async fn retrained(
    catalog: &Catalog,
    name: &ObjectName,
    how: (bool, bool),
    memory: &MemoryReservation,
) -> Told {
    let cold = |why: String| (None, Some(format!("trained cold ({why})")));
    let (version, manifest) = match catalog.model_manifest(name, None).await {
        Ok(found) => found,
        Err(error) => return cold(error.to_string()),
    };
    if memory.try_grow(manifest.memory_bytes).is_err() {
        return cold(no_place(version));
    }
    match catalog.load_model(name, Some(version)).await {
        Err(error) => cold(error.to_string()),
        Ok(version) => {
            let (are_iterations_given, is_needed) = how;
            (Some(Previous { version, are_iterations_given, is_needed }), None)
        }
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
    let lost = |why: String| (None, Some(format!("entities begin anew ({why})")));
    let (version, manifest) = match catalog.model_manifest(name, None).await {
        Ok((_, manifest)) if manifest.model_type != model_type => return (None, None),
        Ok(found) => found,
        Err(catalog::Error::NotFound { .. }) => return (None, None),
        Err(error) => return lost(error.to_string()),
    };
    if memory.try_grow(manifest.memory_bytes).is_err() {
        return lost(no_place(version));
    }
    match catalog.load_model(name, Some(version)).await {
        Err(error) => lost(error.to_string()),
        Ok(version) => {
            let found = Previous { version, are_iterations_given: false, is_needed: false };
            (Some(found), None)
        }
    }
}

fn no_place(version: u32) -> String {
    format!("version {version} does not fit into memory beside the training")
}
