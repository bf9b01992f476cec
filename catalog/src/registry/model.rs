//! Models: versions in the warehouse, published by one change of the head, loaded on demand.
//!
//! A version is a folder `models/<model>/<version>/` with the model's files and, written last and
//! only once, a manifest. It counts from the moment the model's head names it; the head is put over
//! exactly the state that was seen when training began, so that DROP or OR REPLACE meanwhile
//! makes the publication fail. Numbers are never used twice, not even after DROP.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStoreExt;
use tokio::task::{JoinError, JoinSet};
use udfs::model::Model;

pub use super::claim::Claim;
pub use super::definition::ALTERABLE;
pub use super::manifest::{
    LoadedModel, Manifest, ModelInfo, Publication, StoredConsent, StoredIteration, StoredMetric,
    StoredStart, StoredTrial, StoredTuning,
};
pub use super::model_files::StoredFile;

use super::claim::MANIFEST;
use super::definition::{CreateMode, Kind, ModelHead, ModelVersion, ObjectName, Spec};
use super::head::key;
use super::model_files::read;
use super::model_writing::write;
use super::{Head, exists, may_create, model_parts};
use crate::Catalog;
use crate::error::{Error, Result};
use crate::store::Place;

/// How often a version is put while erasures put its model's head anew.
const TRIES: usize = 8;

/// What becomes of a published version and of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether it becomes the default version; a model's first version always does.
    pub promote: bool,
    /// How many versions stay, the newest ones and the default; all of them when not said.
    pub keep_versions: Option<usize>,
    /// Whether it is a fold-in between two trainings, which the schedule of the latter passes over.
    pub is_fold_in: bool,
}

impl Default for Standing {
    fn default() -> Self {
        Self { promote: true, keep_versions: None, is_fold_in: false }
    }
}

/// What a model gets by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upkeep {
    /// A training.
    Training,
    /// A fold-in between two trainings.
    FoldIn,
}

/// A model's head that is going to be changed.
struct Changing {
    seen: Head,
    owner: String,
    head: ModelHead,
}

impl Catalog {
    /// Claims the next version of a model, before it is trained. The claim lives until it is
    /// published or dropped.
    ///
    /// # Errors
    /// As [`Catalog::create`], so that what cannot be created is not trained first.
    pub async fn claim_version(
        &self,
        name: &ObjectName,
        owner: &str,
        mode: CreateMode,
    ) -> Result<Claim> {
        self.check_main(name, Kind::Model)?;
        self.writable().await?;
        let seen = self.objects.head(name).await?;
        if !may_create(name, seen.as_ref(), Kind::Model, mode)? {
            return Err(exists(name, Kind::Model));
        }
        let document = seen.as_ref().and_then(|head| head.document.as_ref().ok());
        let last = document.map_or(0, |document| document.last_version);
        Claim::make(name, owner, mode, seen, &self.versions(name), last, &self.clock).await
    }

    /// Publishes a trained model as the claimed version, with the standing that it is to have.
    ///
    /// # Errors
    /// `Conflict` when the model was dropped, replaced or retrained since the claim, or the claim
    /// was swept away; `Erased` when a person was erased meanwhile of whom it may have learned; a
    /// store error. In each case the model is as it was.
    pub async fn publish(
        &self,
        mut claim: Claim,
        model: Arc<Model>,
        publication: Publication,
        standing: Standing,
    ) -> Result<u32> {
        let mut files = write_files(&claim, &model).await?;
        files.append(&mut claim.files);
        claim.check().await?;
        let owner = claim.owner.clone();
        let created_ms = self.now_ms();
        let manifest =
            Manifest::new(claim.id.clone(), owner, created_ms, &model, files, publication);
        let content = serde_json::to_vec_pretty(&manifest).map_err(|error| Error::Corrupt {
            what: claim.name.to_string(),
            reason: error.to_string(),
        })?;
        if !claim.folder.child(MANIFEST).create(content).await? {
            return Err(Error::Conflict { name: claim.name.to_string() });
        }
        // A sweeper that took the claim for stale may have removed files before the manifest.
        claim.check().await?;
        for file in manifest.files.values() {
            let place = claim.folder.child(&file.name);
            let found = place.store.head(&place.path).await;
            found.map_err(|error| Error::store(place.url.as_str(), &error))?;
        }
        // Whatever happens from here on, files that the head may name are not removed.
        claim.keep();
        if let Err(error) = self.put_version(&mut claim, &manifest, standing).await {
            // Also a race that looks lost: an erasure may have put the head anew that names it.
            if let Some(version) = self.published(&claim).await {
                return Ok(version);
            }
            if error.is_lost_race() || matches!(error, Error::Erased { .. }) {
                claim.withdraw();
            }
            return Err(error);
        }
        self.models.put(&manifest.id, &(model, Arc::new(manifest.clone())));
        let version = claim.version();
        claim.release().await;
        Ok(version)
    }

    /// The claimed version when the head names it: an answer that got lost is no failure.
    async fn published(&self, claim: &Claim) -> Option<u32> {
        let spec = self.objects.read(&claim.name).await.ok()??.spec;
        let Spec::Model(head) = spec else { return None };
        let found = head.versions.iter().find(|found| found.id == claim.id);
        found.map(|found| found.version)
    }

    /// Puts the version over the head that was seen, or over one that says the same: an erasure
    /// puts heads anew, so that trainings look for it before they publish.
    async fn put_version(
        &self,
        claim: &mut Claim,
        manifest: &Manifest,
        standing: Standing,
    ) -> Result<()> {
        for _ in 0..TRIES {
            self.check_publication(&claim.name, claim.version, &claim.erasures).await?;
            match self.put_over_seen(claim, manifest, standing).await {
                Err(error) if error.is_lost_race() => {
                    let now = self.objects.head(&claim.name).await?;
                    if !say_the_same(claim.seen.as_ref(), now.as_ref()) {
                        return Err(error);
                    }
                    claim.seen = now;
                    claim.check().await?;
                }
                other => return other,
            }
        }
        Err(Error::Conflict { name: claim.name.to_string() })
    }

    async fn put_over_seen(
        &self,
        claim: &Claim,
        manifest: &Manifest,
        standing: Standing,
    ) -> Result<()> {
        let seen = claim.seen.as_ref();
        let before = seen.and_then(|head| head.document.as_ref().ok());
        let (live, owner) = match before.map(|document| (&document.spec, document)) {
            Some((Some(Spec::Model(head)), document)) => {
                let owner = if claim.takes_over { &claim.owner } else { &document.owner };
                (Some(head.clone()), owner.clone())
            }
            _ => (None, claim.owner.clone()),
        };
        let mut versions = live.as_ref().map_or_else(Vec::new, |head| head.versions.clone());
        versions.push(ModelVersion { version: claim.version, id: claim.id.clone() });
        let trained_ms = live.as_ref().map_or(0, |head| head.trained_ms);
        let mut head = match live {
            Some(live) if !standing.promote => live,
            _ => ModelHead {
                version: claim.version,
                versions: vec![],
                model_type: manifest.model_type.clone(),
                options: manifest.options.clone(),
                query: manifest.query.clone(),
                metrics: manifest.metrics.clone(),
                trained_ms: 0,
                folded_ms: 0,
            },
        };
        head.folded_ms = manifest.created_ms;
        head.trained_ms = if standing.is_fold_in { trained_ms } else { manifest.created_ms };
        head.versions = kept(versions, head.version, standing.keep_versions);
        let put = self.objects.put(&claim.name, Some(Spec::Model(head)), &owner, seen).await;
        match put {
            Err(Error::Conflict { .. }) if claim.mode == CreateMode::New => {
                Err(match self.objects.read(&claim.name).await? {
                    Some(now) => exists(&claim.name, now.spec.kind()),
                    None => Error::Conflict { name: claim.name.to_string() },
                })
            }
            other => other.map(|_| ()),
        }
    }

    /// A version's manifest, which tells its memory before it is loaded; the default version's
    /// without `version`.
    ///
    /// # Errors
    /// `NotFound` when there is no such model or version; `Corrupt` when it cannot be read.
    pub async fn model_manifest(
        &self,
        name: &ObjectName,
        version: Option<u32>,
    ) -> Result<(u32, Manifest)> {
        let version = self.model_version(name, version).await?;
        Ok((version.version, self.read_manifest(name, &version).await?))
    }

    /// Loads a version into memory, or finds it there; the default version without `version`.
    ///
    /// # Errors
    /// `NotFound` when there is no such model or version; `Corrupt` when its files are damaged.
    pub async fn load_model(&self, name: &ObjectName, version: Option<u32>) -> Result<LoadedModel> {
        let version = self.model_version(name, version).await?;
        let folder = self.versions(name).child(&version.version.to_string()).folder();
        let load = async {
            let manifest = self.read_manifest(name, &version).await?;
            let model = read_model(&folder, &manifest).await?;
            Ok((Arc::new(model), Arc::new(manifest)))
        };
        let (model, manifest) = self.models.get(&version.id, load).await?;
        let (name, version) = (name.clone(), version.version);
        let (consents, screened_by, hidden_of) = (vec![], vec![], vec![]);
        Ok(LoadedModel { name, version, model, manifest, consents, screened_by, hidden_of, folder })
    }

    /// The number of the version that was published before `version`, if any is left.
    ///
    /// # Errors
    /// `NotFound` when there is no such model.
    pub async fn version_before(&self, name: &ObjectName, version: u32) -> Result<Option<u32>> {
        let head = self.model_head(name).await?;
        Ok(head.versions.iter().map(|found| found.version).filter(|found| *found < version).max())
    }

    async fn model_version(&self, name: &ObjectName, version: Option<u32>) -> Result<ModelVersion> {
        let head = self.model_head(name).await?;
        let wanted = version.unwrap_or(head.version);
        let found = head.versions.iter().find(|found| found.version == wanted);
        found.cloned().ok_or_else(|| no_version(name, wanted, &head))
    }

    async fn model_head(&self, name: &ObjectName) -> Result<ModelHead> {
        let missing = || Error::not_found("model", &name.to_string(), []);
        if name.check().is_err() {
            return Err(missing());
        }
        match self.definition(name).await?.map(|definition| definition.spec) {
            Some(Spec::Model(head)) => Ok(head),
            Some(other) => Err(Error::invalid_hint(
                format!("{name} is a {}, not a model", other.kind()),
                "SHOW MODELS lists the models",
            )),
            None => Err(missing()),
        }
    }

    pub(super) async fn read_manifest(
        &self,
        name: &ObjectName,
        version: &ModelVersion,
    ) -> Result<Manifest> {
        let place = self.versions(name).child(&version.version.to_string()).child(MANIFEST);
        let corrupt = |reason: &str| Error::Corrupt {
            what: format!("model {name}@{}", version.version),
            reason: reason.into(),
        };
        let content = place.read_if_exists().await?;
        let content = content.ok_or_else(|| corrupt("its manifest is missing"))?;
        let manifest = Manifest::parse(place.url.as_str(), &content)?;
        if !manifest.is_of(&version.id) {
            return Err(corrupt("its manifest is another version's"));
        }
        Ok(manifest)
    }

    /// Makes an existing version the default. Where it was trained by another query, the model is
    /// of who trained it.
    ///
    /// # Errors
    /// `NotFound` when there is no such model; `Invalid` when it has no such version; `Conflict`
    /// when somebody else changed it at the same time.
    pub async fn set_default_version(&self, name: &ObjectName, version: u32) -> Result<()> {
        let Changing { seen, owner, mut head } = self.changing(name).await?;
        let Some(found) = head.versions.iter().find(|found| found.version == version).cloned()
        else {
            return Err(no_version(name, version, &head));
        };
        let manifest = self.read_manifest(name, &found).await?;
        // A schedule goes on with this version's query: with the rights of who has written it.
        let owner = match manifest.query == head.query {
            true => owner,
            false => manifest.owner.clone(),
        };
        head.version = version;
        head.model_type = manifest.model_type.clone();
        let altered = head.options.into_iter().filter(|(name, _)| is_alterable(name));
        let trained = manifest.options.iter().filter(|(name, _)| !is_alterable(name));
        head.options =
            trained.map(|(name, value)| (name.clone(), value.clone())).chain(altered).collect();
        head.query = manifest.query.clone();
        head.metrics = manifest.metrics.clone();
        self.objects.put(name, Some(Spec::Model(head)), &owner, Some(&seen)).await.map(|_| ())
    }

    /// Gives a model other [`ALTERABLE`] options; `None` takes one away.
    ///
    /// # Errors
    /// `NotFound` when there is no such model; `Conflict` when somebody else changed it at the same
    /// time.
    pub async fn set_model_options(
        &self,
        name: &ObjectName,
        changes: &BTreeMap<String, Option<serde_json::Value>>,
    ) -> Result<()> {
        let Changing { seen, owner, mut head } = self.changing(name).await?;
        for (name, value) in changes.iter().filter(|(name, _)| is_alterable(name)) {
            match value {
                Some(value) => head.options.insert(name.clone(), value.clone()),
                None => head.options.remove(name),
            };
        }
        self.objects.put(name, Some(Spec::Model(head)), &owner, Some(&seen)).await.map(|_| ())
    }

    /// Notes that what was due of a model begins now. False when another server has begun
    /// something, or the model has a newer version.
    ///
    /// # Errors
    /// `NotFound` when there is no such model.
    pub async fn begin(&self, model: &ModelInfo, upkeep: Upkeep) -> Result<bool> {
        let name = &model.name;
        let Changing { seen, owner, mut head } = self.changing(name).await?;
        if (head.trained_ms, head.folded_ms) != (model.trained_ms, model.folded_ms) {
            return Ok(false);
        }
        head.folded_ms = self.now_ms();
        if upkeep == Upkeep::Training {
            head.trained_ms = head.folded_ms;
        }
        match self.objects.put(name, Some(Spec::Model(head)), &owner, Some(&seen)).await {
            Err(Error::Conflict { .. }) => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// What is remembered of a model, read anew to be put back changed over what was seen.
    async fn changing(&self, name: &ObjectName) -> Result<Changing> {
        self.writable().await?;
        if let Some(seen) = self.objects.head(name).await? {
            let document = seen.document.clone()?;
            if let Some(Spec::Model(head)) = document.spec.clone() {
                return Ok(Changing { owner: document.owner.clone(), seen, head });
            }
        }
        // Says what is there instead; a model that is there by now was made meanwhile.
        self.model_head(name).await?;
        Err(Error::Conflict { name: name.to_string() })
    }

    /// Every model, by name.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn models(&self) -> Result<Vec<ModelInfo>> {
        let definitions = self.definitions().await?;
        let models = definitions.iter().filter_map(|((schema, name), definition)| {
            let Spec::Model(head) = &definition.spec else { return None };
            let metric = head.metrics.iter().find(|metric| metric.value.is_finite());
            Some(ModelInfo {
                name: ObjectName::new(schema, name),
                model_type: head.model_type.clone(),
                default_version: head.version,
                versions: head.versions.len(),
                owner: definition.owner.clone(),
                created_ms: definition.created_ms,
                trained_ms: head.trained_ms,
                folded_ms: head.folded_ms,
                metric: metric.map(|metric| (metric.name.clone(), metric.value)),
                options: head.options.clone(),
                query: head.query.clone(),
            })
        });
        Ok(models.collect())
    }

    /// The bytes of models in the cache.
    pub fn model_cache_bytes(&self) -> usize {
        self.models.bytes()
    }

    pub(super) fn versions(&self, name: &ObjectName) -> Place {
        let folder = format!("models/{}", key(&name.schema, &name.name));
        self.warehouse.place().child(&folder).folder()
    }
}

/// The newest versions, at most so many, and the default one whatever its age. The new version is
/// the last.
fn kept(versions: Vec<ModelVersion>, default: u32, most: Option<usize>) -> Vec<ModelVersion> {
    let Some(most) = most else { return versions };
    let newest = versions.len().saturating_sub(most.max(1));
    let rest = versions.into_iter().enumerate();
    let stays = |(at, found): &(usize, ModelVersion)| *at >= newest || found.version == default;
    rest.filter(stays).map(|(_, found)| found).collect()
}

/// Whether two states of a head say the same, whoever put them when.
fn say_the_same(one: Option<&Head>, other: Option<&Head>) -> bool {
    let said = |head: Option<&Head>| match head.map(|head| &head.document) {
        None => Some((None, String::new(), 0)),
        Some(Ok(document)) => match &document.spec {
            None => Some((None, String::new(), document.last_version)),
            Some(spec) => {
                // A metric that is no number is not the same as itself, but is written the same.
                let spec = serde_json::to_vec(spec).ok()?;
                Some((Some(spec), document.owner.clone(), document.last_version))
            }
        },
        Some(Err(_)) => None,
    };
    said(one).is_some_and(|one| said(other) == Some(one))
}

fn is_alterable(option: &str) -> bool {
    ALTERABLE.contains(&option)
}

fn no_version(name: &ObjectName, version: u32, head: &ModelHead) -> Error {
    let known: Vec<String> = head.versions.iter().map(|found| found.version.to_string()).collect();
    Error::invalid_hint(
        format!("model {name} has no version {version}"),
        format!("it has {}", known.join(", ")),
    )
}

/// Writes a model's files side by side: most of the time goes into encoding them.
async fn write_files(claim: &Claim, model: &Arc<Model>) -> Result<BTreeMap<String, StoredFile>> {
    let mut writing = JoinSet::new();
    for piece in model_parts::pieces(model)?.into_keys() {
        let name = claim.file(piece);
        let (folder, model) = (claim.folder.clone(), Arc::clone(model));
        writing.spawn(async move {
            let columns = model_parts::pieces(&model)?.remove(piece).unwrap_or_default();
            let file = write(&folder, name, &columns).await?;
            Ok::<_, Error>((piece.to_owned(), file))
        });
    }
    let mut files = BTreeMap::new();
    while let Some(written) = writing.join_next().await {
        let failed = |error: JoinError| {
            Error::invalid(format!("the files of {} were not written: {error}", claim.name))
        };
        let (piece, file) = written.map_err(failed)??;
        files.insert(piece, file);
    }
    Ok(files)
}

async fn read_model(folder: &Place, manifest: &Manifest) -> Result<Model> {
    let corrupt =
        |error: Error| Error::Corrupt { what: folder.url.to_string(), reason: error.to_string() };
    let mut tables = BTreeMap::new();
    for (piece, columns) in model_parts::wanted(manifest).map_err(corrupt)? {
        let missing = || corrupt(Error::invalid(format!("its manifest names no file {piece}")));
        let file = manifest.files.get(piece).ok_or_else(missing)?;
        tables.insert(piece, read(folder, file, &columns).await?);
    }
    // A large model takes seconds to be put together.
    let manifest = manifest.clone();
    let assembled =
        tokio::task::spawn_blocking(move || model_parts::assemble(tables, &manifest)).await;
    assembled.unwrap_or_else(|_| Err(Error::invalid("reading it failed"))).map_err(corrupt)
}
