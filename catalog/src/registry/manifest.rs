//! What a model's manifest and its head remember: options, metrics, training history, files.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use udfs::model::AlsModel;

use super::definition::ObjectName;
use super::model_files::StoredFile;
use super::model_parts::StoredOptions;
use crate::error::{Error, Result};

/// The newest manifest format this version reads and writes.
const FORMAT: u32 = 1;

/// A metric of a model beside the same metric of the popularity baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredMetric {
    /// Its name, such as `recall@20`.
    pub name: String,
    /// The model's value; not a number where it is not defined.
    #[serde(with = "number")]
    pub value: f64,
    /// The baseline's value.
    #[serde(with = "number")]
    pub baseline: f64,
}

/// An iteration of training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StoredIteration {
    /// From 1.
    pub iteration: u32,
    /// The objective after it.
    #[serde(with = "number")]
    pub loss: f64,
    /// How long it took, in milliseconds.
    #[serde(with = "number")]
    pub duration_ms: f64,
}

/// What the caller tells of a model that is being published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Publication {
    /// `matrix_factorization`, …
    pub model_type: String,
    /// The options as given, by name.
    pub options: BTreeMap<String, serde_json::Value>,
    /// The training query's text.
    pub query: String,
    /// The training query's user column.
    pub user_col: String,
    /// Its item column.
    pub item_col: String,
    /// Its rating column, if it had one.
    pub rating_col: Option<String>,
    /// The metrics on the rows kept aside, the most important first; empty when none were.
    pub metrics: Vec<StoredMetric>,
    /// The training history.
    pub iterations: Vec<StoredIteration>,
    /// How many recommendations the ranking metrics look at.
    pub top_k: usize,
}

/// The document of a model version, written last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// The version's own id, unlike any other's.
    pub id: String,
    /// Who trained it.
    pub owner: String,
    /// When it was published, in Unix milliseconds.
    pub created_ms: i64,
    /// How many factors a user or item has.
    pub num_factors: usize,
    /// How many users there are.
    pub users: usize,
    /// How many items there are.
    pub items: usize,
    /// Whether users and items have biases.
    pub biases: bool,
    /// The mean rating; 0 without biases.
    pub global_mean: f32,
    /// What the model takes in memory.
    pub memory_bytes: usize,
    /// The learner's options.
    pub learner: StoredOptions,
    /// The users' file.
    pub user_file: StoredFile,
    /// The items' file.
    pub item_file: StoredFile,
    /// The interactions' file.
    pub seen_file: StoredFile,
    #[serde(flatten)]
    publication: Publication,
}

impl std::ops::Deref for Manifest {
    type Target = Publication;

    fn deref(&self) -> &Publication {
        &self.publication
    }
}

/// The three files of a version.
pub(super) struct Files {
    pub users: StoredFile,
    pub items: StoredFile,
    pub seen: StoredFile,
}

impl Manifest {
    pub(super) fn new(
        id: String,
        owner: String,
        created_ms: i64,
        model: &AlsModel,
        files: Files,
        publication: Publication,
    ) -> Self {
        Self {
            format: FORMAT,
            id,
            owner,
            created_ms,
            num_factors: model.num_factors(),
            users: model.user_ids().len(),
            items: model.item_ids().len(),
            biases: !model.user_bias().is_empty(),
            global_mean: model.global_mean(),
            memory_bytes: model.memory_bytes(),
            learner: StoredOptions::new(model.options()),
            user_file: files.users,
            item_file: files.items,
            seen_file: files.seen,
            publication,
        }
    }

    pub(super) fn parse(url: &str, content: &[u8]) -> Result<Self> {
        let corrupt = |reason: String| Error::Corrupt { what: url.into(), reason };
        let manifest: Self =
            serde_json::from_slice(content).map_err(|error| corrupt(error.to_string()))?;
        if manifest.format > FORMAT {
            let reason = format!("it has format {}, newer than {FORMAT}", manifest.format);
            return Err(corrupt(reason));
        }
        Ok(manifest)
    }
}

/// A model version in memory.
#[derive(Clone)]
pub struct LoadedModel {
    /// The model's name.
    pub name: ObjectName,
    /// The version.
    pub version: u32,
    /// The recommender.
    pub model: Arc<AlsModel>,
    /// Where it comes from.
    pub manifest: Arc<Manifest>,
}

impl fmt::Display for LoadedModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.name, self.version)
    }
}

impl fmt::Debug for LoadedModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LoadedModel({self})")
    }
}

/// A model in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// Its name.
    pub name: ObjectName,
    /// `matrix_factorization`, …
    pub model_type: String,
    /// The version that a name without `@version` means.
    pub default_version: u32,
    /// How many versions there are.
    pub versions: usize,
    /// Who created it.
    pub owner: String,
    /// When it was last published or changed, in Unix milliseconds.
    pub created_ms: i64,
    /// The first metric of the newest version, by name, when it has a value.
    pub metric: Option<(String, f64)>,
    /// The options as JSON.
    pub options: String,
    /// The training query's text.
    pub query: String,
}

/// JSON has no word for values that are not finite: they are written as null and read as not a
/// number.
mod number {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        value.is_finite().then_some(*value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
}
