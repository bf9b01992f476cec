//! Models without a person: a version's files are written anew, or the version goes.
//!
//! A version is immutable but for this. The new files lie beside the old ones under names of their
//! own; the manifest, put over the old one at once, names them and says whom it replaces, so that
//! readers find either the old version or the new one and never half of each. Then the head takes
//! the new id, by which other servers see that what they have in memory is old, and last the old
//! files go. Each of these can be done again.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};
use udfs::model::Model;

use super::claim::{MANIFEST, Training};
use super::definition::{Kind, ModelVersion, ObjectName, Spec};
use super::manifest::{LoadedModel, Manifest, StoredStart};
use super::model_files::StoredFile;
use super::model_parts;
use super::model_writing::write;
use crate::Catalog;
use crate::error::{Error, Result};

/// How often a change of a head is tried when others change it at the same time.
const TRIES: usize = 8;

/// What a version of a model keeps of its training.
#[derive(Debug)]
pub struct ModelTraining {
    /// The model.
    pub model: ObjectName,
    /// The version.
    pub version: u32,
    /// The query, and options that are texts.
    pub texts: Vec<String>,
    /// What it began with.
    pub start: StoredStart,
}

impl Catalog {
    /// The versions of every model, by name.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn model_versions(&self) -> Result<Vec<(ObjectName, Vec<u32>)>> {
        let definitions = self.definitions().await?;
        let models = definitions.iter().filter_map(|((schema, name), definition)| {
            let Spec::Model(head) = &definition.spec else { return None };
            let versions = head.versions.iter().map(|found| found.version).collect();
            Some((ObjectName::new(schema, name), versions))
        });
        Ok(models.collect())
    }

    /// What versions of models keep of their trainings. One that cannot be read tells nothing.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn model_trainings(&self) -> Result<Vec<ModelTraining>> {
        let mut found = Vec::new();
        for ((schema, name), definition) in self.definitions().await?.iter() {
            let Spec::Model(head) = &definition.spec else { continue };
            let name = ObjectName::new(schema, name);
            for version in &head.versions {
                let manifest = match self.read_manifest(&name, version).await {
                    Ok(manifest) => manifest,
                    Err(Error::Corrupt { .. }) => continue,
                    Err(error) => return Err(error),
                };
                let options = manifest.options.values().filter_map(|value| value.as_str());
                let texts = options.map(str::to_owned).chain([manifest.query.clone()]).collect();
                let (model, version) = (name.clone(), version.version);
                found.push(ModelTraining { model, version, texts, start: manifest.start });
            }
        }
        Ok(found)
    }

    /// Makes every training that has begun look for erasures once more before it publishes: the
    /// head that it would put its version over is put anew. What a training has left that stopped
    /// before its head named it is removed.
    ///
    /// # Errors
    /// When the warehouse cannot be read or written; `Conflict` when others change a model again
    /// and again.
    pub async fn end_publications(&self) -> Result<()> {
        self.writable().await?;
        let models = self.warehouse.place().child("models");
        for object in self.objects_in("models").await? {
            let training = Training::of(&models, &object, self.now_ms()).await?;
            let Some(training) = training else { continue };
            if training.is_stale {
                // Should it go on after all, it looks for its claim before it puts over the head
                // that comes now.
                training.end().await?;
            }
            let spec = match self.put_anew(&training.model, is_put_over).await {
                Ok(spec) => spec,
                // Whose head cannot be read keeps nobody from being forgotten.
                Err(Error::Corrupt { .. }) => continue,
                Err(error) => return Err(error),
            };
            let is_named = matches!(
                &spec,
                Some(Spec::Model(head))
                    if head.versions.iter().any(|found| found.version == training.version)
            );
            match (training.is_stale, is_named) {
                (false, _) => {}
                (true, true) => training.release().await?,
                (true, false) => training.remove().await?,
            }
        }
        // Versions that were published before are found by whoever looks next.
        self.objects.renew().await;
        Ok(())
    }

    /// Puts another state of a version in its place: the same model without somebody.
    ///
    /// # Errors
    /// When the warehouse cannot be written; `Conflict` when others change the model again and
    /// again. Readers find the old state or the new one.
    pub async fn replace_model(&self, old: &LoadedModel, model: Arc<Model>) -> Result<()> {
        self.writable().await?;
        let id = uuid::Uuid::new_v4().to_string();
        let mut files: BTreeMap<String, StoredFile> = BTreeMap::new();
        for (piece, columns) in model_parts::pieces(&model)? {
            let file = write(&old.folder, format!("{piece}-{id}.parquet"), &columns).await?;
            files.insert(piece.to_owned(), file);
        }
        let manifest = old.manifest.replaced(id, &model, files);
        let content = serde_json::to_vec_pretty(&manifest)
            .map_err(|error| Error::Corrupt { what: old.to_string(), reason: error.to_string() })?;
        let place = old.folder.child(MANIFEST);
        let put = place.store.put(&place.path, content.into()).await;
        put.map_err(|error| Error::store(place.url.as_str(), &error))?;
        self.end_replacement(&old.name, old.version).await
    }

    /// Ends what [`Catalog::replace_model`] began, wherever it was left: the head names the state
    /// that the manifest is of, and files that the manifest does not name are removed.
    ///
    /// # Errors
    /// As [`Catalog::replace_model`].
    pub async fn end_replacement(&self, name: &ObjectName, version: u32) -> Result<()> {
        let Some(manifest) = self.name_replacement(name, version).await? else { return Ok(()) };
        let folder = self.versions(name).child(&version.to_string()).folder();
        let wrong = |error| Error::store(folder.url.as_str(), &error);
        let objects = folder.store.list(Some(&folder.path));
        let objects: Vec<ObjectMeta> = objects.try_collect().await.map_err(wrong)?;
        for object in objects {
            let file = object.location.filename().unwrap_or_default();
            let is_named = manifest.files.values().any(|known| known.name == file);
            if !is_named && file.ends_with(".parquet") {
                match folder.store.delete(&object.location).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(wrong(error)),
                }
            }
        }
        if let Some(before) = &manifest.replaces {
            self.models.forget(before);
        }
        Ok(())
    }

    /// Makes the head name the state of a version that its manifest is of; `None` when nothing was
    /// replaced.
    async fn name_replacement(&self, name: &ObjectName, version: u32) -> Result<Option<Manifest>> {
        for _ in 0..TRIES {
            let Some(head) = self.objects.head(name).await? else { return Ok(None) };
            let document = head.document.clone()?;
            let Some(Spec::Model(mut model)) = document.spec.clone() else { return Ok(None) };
            let found = model.versions.iter_mut().find(|found| found.version == version);
            let Some(found) = found else { return Ok(None) };
            let manifest = self.read_manifest(name, found).await?;
            if manifest.replaces.is_none() {
                return Ok(None);
            }
            if manifest.id == found.id {
                return Ok(Some(manifest));
            }
            found.id.clone_from(&manifest.id);
            let spec = Some(Spec::Model(model));
            match self.objects.put(name, spec, &document.owner, Some(&head)).await {
                Err(error) if error.is_lost_race() => {}
                other => return other.map(|_| Some(manifest)),
            }
        }
        Err(Error::Conflict { name: name.to_string() })
    }

    /// Removes a version of a model with its files; with its last one the model. Of a default
    /// version the newest that is left takes the place.
    ///
    /// # Errors
    /// When the warehouse cannot be written; `Conflict` when others change the model again and
    /// again.
    pub async fn remove_model_version(&self, name: &ObjectName, version: u32) -> Result<()> {
        self.writable().await?;
        for _ in 0..TRIES {
            let Some(head) = self.objects.head(name).await? else { break };
            let document = head.document.clone()?;
            let Some(Spec::Model(mut model)) = document.spec.clone() else { break };
            let found = model.versions.iter().find(|found| found.version == version).cloned();
            let Some(ModelVersion { id, .. }) = found else { break };
            model.versions.retain(|found| found.version != version);
            let newest = model.versions.iter().max_by_key(|found| found.version).cloned();
            let Some(newest) = newest else {
                match self.drop_object(name, Kind::Model).await {
                    Err(error) if error.is_lost_race() => continue,
                    other => other?,
                };
                self.models.forget(&id);
                break;
            };
            if model.version == version {
                let manifest = self.read_manifest(name, &newest).await?;
                model.version = newest.version;
                model.model_type = manifest.model_type.clone();
                model.query = manifest.query.clone();
                model.metrics = manifest.metrics.clone();
            }
            let spec = Some(Spec::Model(model));
            match self.objects.put(name, spec, &document.owner, Some(&head)).await {
                Err(error) if error.is_lost_race() => continue,
                other => other?,
            };
            self.models.forget(&id);
            break;
        }
        self.purge_model_folders().await
    }

    /// Removes the folders of model versions that no head names any more, however young they are.
    ///
    /// # Errors
    /// When the warehouse cannot be written.
    pub async fn purge_model_folders(&self) -> Result<()> {
        for retired in self.objects.retired().await? {
            if retired.folder.starts_with("models/") {
                self.warehouse.remove_folder(&retired.folder).await?;
            }
        }
        Ok(())
    }
}

/// Whether a version of a model can be put over a definition.
fn is_put_over(spec: Option<&Spec>) -> bool {
    matches!(spec, None | Some(Spec::Model(_)))
}
