//! The warehouse: the one place that is written to, and whether it can be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use object_store::ObjectStoreExt;
use parking_lot::RwLock;

use crate::bucket::{BucketSettings, Versioning, WAREHOUSE_BUCKET};
use crate::error::{Error, Result};
use crate::store::{Place, probe};

/// The warehouse's place and what is known of its writability.
pub struct Warehouse {
    place: Place,
    settings: Option<Arc<BucketSettings>>,
    access: RwLock<Access>,
    /// Whether the object that probed it was given a version.
    keeps_versions: AtomicBool,
}

#[derive(Debug, Clone)]
enum Access {
    // Not probed, because it is a local folder that shall not be made yet, or because it could
    // not be reached.
    Unknown,
    Writable,
    ReadOnly(Error),
}

impl Warehouse {
    /// Opens the warehouse and, on an object store, probes it. The settings are those of its
    /// bucket.
    pub async fn open(place: Place, settings: Option<Arc<BucketSettings>>) -> Self {
        let (access, keeps_versions) = (RwLock::new(Access::Unknown), AtomicBool::new(false));
        let warehouse = Self { place, settings, access, keeps_versions };
        if !warehouse.place.is_local()
            && let Err(error) = warehouse.writable().await
        {
            tracing::warn!(%error, "the warehouse cannot be written");
        }
        warehouse
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether its store keeps earlier versions of objects: as its bucket says, or as was seen when
    /// it was probed.
    ///
    /// # Errors
    /// When the bucket cannot be reached.
    pub async fn versioning(&self) -> Result<Versioning> {
        let said = match &self.settings {
            Some(settings) => settings.versioning().await?,
            None => Versioning::Off,
        };
        Ok(said.or_seen(self.keeps_versions.load(Ordering::Relaxed)))
    }

    /// Checks that it can be written; probes it if that is not known.
    ///
    /// # Errors
    /// `ReadOnly` when it cannot, or a store error when it cannot be reached now.
    pub async fn writable(&self) -> Result<()> {
        match &*self.access.read() {
            Access::Writable => return Ok(()),
            Access::ReadOnly(error) => return Err(error.clone()),
            Access::Unknown => {}
        }
        let found = match probe(&self.place).await {
            Ok(keeps_versions) => {
                self.keeps_versions.store(keeps_versions, Ordering::Relaxed);
                self.tell_versioning().await;
                Access::Writable
            }
            Err(error @ Error::ReadOnly { .. }) => Access::ReadOnly(error),
            Err(Error::Store { url, reason, denied: true }) => {
                Access::ReadOnly(Error::ReadOnly { url, reason })
            }
            Err(error) => return Err(error),
        };
        let told = match &found {
            Access::ReadOnly(error) => Err(error.clone()),
            _ => Ok(()),
        };
        *self.access.write() = found;
        told
    }

    async fn tell_versioning(&self) {
        let url = self.place.url.as_str();
        match self.versioning().await {
            Ok(versioning) => {
                if let Some(told) = versioning.told(WAREHOUSE_BUCKET) {
                    tracing::warn!(url, "{told}");
                }
            }
            Err(error) => tracing::warn!(url, %error, "the bucket does not say what it keeps"),
        }
    }

    /// Removes a folder of a table or of a model's version; anything else is left alone.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn remove_folder(&self, folder: &str) -> Result<()> {
        // The name comes from a document: nothing outside of tables and models may be removed
        // by it.
        let parts: Vec<&str> = folder.split('/').collect();
        let plain = parts.iter().all(|part| !part.is_empty() && !part.starts_with('.'));
        let made_here = plain
            && match parts.as_slice() {
                ["tables", _] => true,
                ["models", _, version] => version.parse::<u32>().is_ok(),
                _ => false,
            };
        if !made_here {
            return Err(Error::invalid(format!("{folder} is no folder of a table or model")));
        }
        remove_all(&self.place.child(folder)).await
    }
}

/// Removes every object below a place.
///
/// # Errors
/// When the store cannot be reached.
pub async fn remove_all(place: &Place) -> Result<()> {
    let mut objects = place.store.list(Some(&place.path));
    while let Some(object) = objects.next().await {
        let object = match object {
            Ok(object) => object,
            Err(object_store::Error::NotFound { .. }) => continue,
            Err(error) => return Err(Error::store(place.url.as_str(), &error)),
        };
        match place.store.delete(&object.location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(Error::store(place.url.as_str(), &error)),
        }
    }
    if place.is_local()
        && let Ok(path) = place.url.to_file_path()
    {
        // Object stores have no folders; a disk keeps the empty ones.
        let removed = tokio::fs::remove_dir_all(path).await;
        removed.unwrap_or_else(|error| tracing::debug!(%error, "empty folder left behind"));
    }
    Ok(())
}
