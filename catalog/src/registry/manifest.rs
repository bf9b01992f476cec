//! What a model's manifest and its head remember: options, metrics, training history, files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use udfs::consent::ConsentSet;
use udfs::model::Model;

use super::definition::ObjectName;
use super::model_files::StoredFile;
use super::model_parts::StoredLearner;
use crate::error::{Error, Result};
use crate::store::Place;
use crate::subject_copies::{CopiedKey, Transformation};

/// The manifest format this version reads and writes.
const FORMAT: u32 = 2;

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
    /// The lower end of the value's interval.
    #[serde(with = "number", default = "number::none")]
    pub lower: f64,
    /// The upper end.
    #[serde(with = "number", default = "number::none")]
    pub upper: f64,
    /// How many users have a say.
    #[serde(default)]
    pub users: usize,
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
    /// The validation metric after it, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
}

/// A search for hyper-parameters, as a model remembers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredTuning {
    /// `bayesian`, `random_search` or `grid_search`.
    pub algorithm: String,
    /// The metric on the validation rows that decided, such as `ndcg@20`.
    pub objective: String,
    /// The options that were chosen, by name.
    pub chosen: BTreeMap<String, serde_json::Value>,
    /// Every trial, in order.
    pub trials: Vec<StoredTrial>,
}

/// A trial of a search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredTrial {
    /// From 1.
    pub trial: u32,
    /// The options tried, by name.
    pub values: BTreeMap<String, serde_json::Value>,
    /// The objective on the validation rows; not a number where the trial failed.
    #[serde(with = "number")]
    pub metric: f64,
    /// The loss on the training rows, for learners that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Iterations run, for learners that have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterations: Option<u32>,
    /// The iteration that the metric is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_iteration: Option<u32>,
    /// How long it took, in milliseconds.
    #[serde(with = "number")]
    pub duration_ms: f64,
    /// Whether it was ended early because others were ahead.
    pub stopped: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A consent policy by which the rows of a training were chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredConsent {
    /// The policy's name.
    pub policy: String,
    /// What the consents were known by then.
    pub version: String,
    /// Whether the policy's persons are the model's users.
    pub of_users: bool,
    /// What was done to their ids on the way, each way that they came by; nothing, where they are
    /// what they were.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ways: BTreeSet<Vec<Transformation>>,
}

/// What a version began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredStart {
    /// Nothing tells: the manifest is of a time when this was not kept.
    #[default]
    Unknown,
    /// With its rows alone, as CREATE MODEL does.
    Anew,
    /// With what another version had learned.
    GoesOn {
        /// That version.
        version: u32,
        /// Whether all of whom that version had learned, and those before it, are in this one, so
        /// that whoever leaves is found among its own.
        holds_all: bool,
    },
}

impl StoredStart {
    /// Whether a version knows of nobody but those whom it lists.
    pub fn is_clean(self) -> bool {
        matches!(self, Self::Anew | Self::GoesOn { holds_all: true, .. })
    }
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
    /// The training query's user column; empty where a model has no users.
    pub user_col: String,
    /// Its item column; likewise.
    pub item_col: String,
    /// Its rating column, if it had one.
    pub rating_col: Option<String>,
    /// The metrics on the rows kept aside, the most important first; empty when none were.
    pub metrics: Vec<StoredMetric>,
    /// The training history.
    pub iterations: Vec<StoredIteration>,
    /// The name of the validation metric in the history, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_metric: Option<String>,
    /// The iteration that the model is of, when a validation metric chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_iteration: Option<u32>,
    /// The iterations that the factors have had, with those of the versions that they go on from.
    #[serde(default)]
    pub total_iterations: u32,
    /// The search that chose the options; a version retrained without one keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<StoredTuning>,
    /// The names of a popularity model's segments, by code.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<String>,
    /// How many recommendations the ranking metrics look at.
    pub top_k: usize,
    /// The purpose for which its rows were read, when a consent policy governs some of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// The channel for which, when one of them is read for one channel at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// These policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consents: Vec<StoredConsent>,
    /// Whose ids the users, or the records of a model of entities, are, of subjects, where they are
    /// not ids of records as they are.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub users_of: BTreeSet<CopiedKey>,
    /// The same where they are ids of records as they are; none where that was not kept, or there
    /// are neither users nor records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_of: Option<BTreeSet<CopiedKey>>,
    /// What it began with.
    #[serde(default)]
    pub start: StoredStart,
    /// The tables and views that were read for it, and for the models that it learned from; none
    /// where that was not kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_from: Vec<String>,
    /// Whether it learned from a model of which nothing tells what was read for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reads_unknown: bool,
    /// The versions of models that it learned from and that persons had left by then.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub left_models: BTreeSet<String>,
    /// The policies that these were under then, by table, each with what it was known by. A policy
    /// that is not here came later.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, BTreeMap<String, String>>,
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
    /// What the model takes in memory.
    pub memory_bytes: usize,
    /// What the model's type needs beside its files.
    pub learner: StoredLearner,
    /// The version's files, by what they hold.
    pub files: BTreeMap<String, StoredFile>,
    /// The id that the version had before persons were removed from it: the head may name it still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    #[serde(flatten)]
    publication: Publication,
}

impl std::ops::Deref for Manifest {
    type Target = Publication;

    fn deref(&self) -> &Publication {
        &self.publication
    }
}

impl Publication {
    /// The tables and views that were read for the model; none where any may have been.
    pub fn all_read_from(&self) -> &[String] {
        if self.reads_unknown { &[] } else { &self.read_from }
    }

    /// Whether a table was read for the model, as far as that was kept.
    pub fn may_have_read(&self, table: &str) -> bool {
        let read_from = self.all_read_from();
        read_from.is_empty() || read_from.iter().any(|read| read == table)
    }

    /// Whether the users or records may be persons: their ids came of ids that are these persons',
    /// or one of the tables was read that hold such, or nobody knows which were. The same number in
    /// any other table means somebody else.
    pub fn may_hold<'a>(
        &self,
        is_theirs: impl Fn(&CopiedKey) -> bool,
        tables: impl IntoIterator<Item = &'a ObjectName>,
    ) -> bool {
        let Some(as_they_are) = &self.records_of else { return true };
        as_they_are.iter().chain(&self.users_of).any(is_theirs)
            || tables.into_iter().any(|table| self.may_have_read(&table.to_string()))
    }
}

/// What every format of the document has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Manifest {
    pub(super) fn new(
        id: String,
        owner: String,
        created_ms: i64,
        model: &Model,
        files: BTreeMap<String, StoredFile>,
        publication: Publication,
    ) -> Self {
        Self {
            format: FORMAT,
            id,
            owner,
            created_ms,
            memory_bytes: model.memory_bytes(),
            learner: StoredLearner::new(model),
            files,
            replaces: None,
            publication,
        }
    }

    /// The same version of a model from which persons were removed, with its files; files of other
    /// kinds stay.
    pub(super) fn replaced(
        &self,
        id: String,
        model: &Model,
        files: BTreeMap<String, StoredFile>,
    ) -> Self {
        let mut all = self.files.clone();
        all.extend(files);
        Self {
            id,
            memory_bytes: model.memory_bytes(),
            learner: StoredLearner::new(model),
            files: all,
            replaces: Some(self.id.clone()),
            ..self.clone()
        }
    }

    /// Whether it is of the version that a head names by this id.
    pub(super) fn is_of(&self, id: &str) -> bool {
        self.id == id || self.replaces.as_deref() == Some(id)
    }

    pub(super) fn parse(url: &str, content: &[u8]) -> Result<Self> {
        let corrupt = |reason: String| Error::Corrupt { what: url.into(), reason };
        let read = |error: serde_json::Error| corrupt(error.to_string());
        let Format { format } = serde_json::from_slice(content).map_err(read)?;
        if format > FORMAT {
            return Err(corrupt(format!("it has format {format}, newer than {FORMAT}")));
        }
        if format < FORMAT {
            let reason = "it was written by an older Attune; RETRAIN MODEL makes a new version";
            return Err(corrupt(format!("it has format {format}, not {FORMAT}: {reason}")));
        }
        let manifest: Self = serde_json::from_slice(content).map_err(read)?;
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
    /// The model.
    pub model: Arc<Model>,
    /// Where it comes from.
    pub manifest: Arc<Manifest>,
    /// Who consents to being asked about; nobody is left out where there is none. Whoever asks
    /// puts them here.
    pub consents: Vec<Arc<ConsentSet>>,
    /// The policies that these are of.
    pub screened_by: Vec<String>,
    /// The subjects of whose persons some are in the model and may not be shown: `consents` leaves
    /// them out as well.
    pub hidden_of: Vec<String>,
    /// Where its files are.
    pub(super) folder: Place,
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
    /// When a version was trained last, or a scheduled training begun, in Unix milliseconds.
    pub trained_ms: i64,
    /// The same of a training or of a fold-in, whichever was last.
    pub folded_ms: i64,
    /// The first metric of the newest version, by name, when it has a value.
    pub metric: Option<(String, f64)>,
    /// The options as given, by name.
    pub options: BTreeMap<String, serde_json::Value>,
    /// The training query's text.
    pub query: String,
}

/// JSON has no word for values that are not finite: they are written as null and read as not a
/// number.
mod number {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    /// Not a number, where an older document has nothing.
    pub fn none() -> f64 {
        f64::NAN
    }

    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        value.is_finite().then_some(*value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
}
