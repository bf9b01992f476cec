//! What else describes files of a lake, by their sizes or contents, beside themselves.

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::error::{Error, Result};
use crate::store::Place;

/// What describes the files below a folder, beside themselves; `is_delta` where it is known to be a
/// Delta table.
pub(crate) async fn writer_of(
    file: &Place,
    folder: &Path,
    is_delta: bool,
) -> Result<Option<&'static str>> {
    let store = &file.store;
    let wrong = |error: object_store::Error| Error::store(file.url.as_str(), &error);
    let told = [
        ("_delta_log", "", "it is of a Delta table, whose log names it"),
        (".hoodie", "", "it is of a Hudi table, whose timeline names it"),
        ("metadata", ".metadata.json", "it is of an Iceberg table, whose metadata names it"),
    ];
    for (name, part, writer) in told.into_iter().skip(usize::from(is_delta)) {
        let mut objects = store.list(Some(&folder.clone().join(name)));
        // All of them: there may be many manifests before the first that tells.
        loop {
            match objects.try_next().await {
                Ok(Some(object)) if object.location.as_ref().contains(part) => {
                    return Ok(Some(writer));
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(object_store::Error::NotFound { .. }) => break,
                Err(error) => return Err(wrong(error)),
            }
        }
    }
    match store.head(&folder.clone().join("_metadata")).await {
        Ok(_) => Ok(Some("beside it lies _metadata, which describes it")),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(wrong(error)),
    }
}
