//! Definitions: what a name stands for, and the document that says so.
//!
//! A document is JSON with a format number, so that an older server refuses a newer document
//! instead of misreading it.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::head::{Revision, key};
use super::manifest::StoredMetric;
use crate::budget::Spending;
use crate::checks::{CheckHistory, TableExpectations};
use crate::error::{Error, Result};
use crate::keyring::KeyRecord;
use crate::lake::LakeTable;
use crate::policy::{Carried, RuleSet};
use crate::privacy_policies::PrivacyPolicy;
use crate::purposes::{ConsentPolicy, Purpose};
use crate::releases::Releases;
use crate::retention::is_retention;
use crate::subject_copies::TableCopies;
use crate::subject_marks::SubjectMarks;
use crate::subjects::Subject;
use crate::tokens::TokenRecord;
use crate::users::{RoleRecord, UserRecord};

/// The newest document format this version reads.
const FORMAT: u32 = 2;
/// The format of documents that versions of format 1 read as they are meant. They would overlook
/// that identifiers are kept apart, and show them.
const FORMAT_PLAIN: u32 = 1;

/// How long a document names the folders that it has retired; they are removed long before.
const RETIRED_NAMED_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// The longest name of a schema or an object, in characters.
pub const NAME_CHARS_MAX: usize = 255;

/// A schema's name and an object's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// The schema: `main` or a lake's name.
    pub schema: String,
    /// The object's name.
    pub name: String,
}

impl ObjectName {
    /// A name from its two parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    pub(crate) fn check(&self) -> Result<()> {
        for part in [&self.schema, &self.name] {
            if part.is_empty() || part.chars().count() > NAME_CHARS_MAX || part.contains('\0') {
                return Err(Error::invalid(format!(
                    "a name has 1 to {NAME_CHARS_MAX} characters and no NUL"
                )));
            }
        }
        Ok(())
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.schema, self.name)
    }
}

/// What a definition defines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Spec {
    /// A table over files of a lake.
    External(LakeTable),
    /// What the pseudonyms of an external table stand for.
    Identifiers {
        /// The table, which keeps its identifiers apart.
        of: ObjectName,
    },
    /// A Delta table in the warehouse.
    Managed(ManagedTable),
    /// A stored query.
    View {
        /// The query's text.
        sql: String,
        /// Column names given in CREATE VIEW; empty: the query's own.
        columns: Vec<String>,
    },
    /// A model: its default version and what it was trained by.
    Model(ModelHead),
    /// A user of the server.
    User(UserRecord),
    /// A role, or PUBLIC, with what was granted to it.
    Role(RoleRecord),
    /// An API token of a user.
    Token(TokenRecord),
    /// What is expected of a table.
    Expectations(TableExpectations),
    /// What checking a table gave.
    Checks(CheckHistory),
    /// A key, without its secrets.
    Key(KeyRecord),
    /// Policies and tags of a table, or policies of a tag.
    Policies(RuleSet),
    /// A purpose that reads can serve.
    Purpose(Purpose),
    /// Whose rows are there for a purpose.
    Consent(Box<ConsentPolicy>),
    /// Where the ids of persons are.
    Subject(Subject),
    /// What holds of single persons of a subject.
    SubjectMarks(SubjectMarks),
    /// What the columns of a table are copies of.
    SubjectCopies(TableCopies),
    /// The privacy policy of a table.
    Privacy(PrivacyPolicy),
    /// What was spent of a privacy budget.
    Budget(Spending),
    /// What was released of anonymized rows.
    Releases(Releases),
}

/// Where a warehouse table's files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedTable {
    /// The folder below the warehouse; each creation has its own.
    pub folder: String,
    /// The columns by which the rows of each file are sorted and can be looked up; none: rows lie
    /// as they came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_by: Vec<String>,
    /// What is added to the versions in the folder: those before were purged by an erasure.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first_version: u64,
    /// The erasure, or the application of retention policies, that is rewriting the table: until
    /// it is done, nobody else writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erasing: Option<String>,
    /// The last one that has rewritten it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased_by: Option<String>,
    /// When its retention policies were applied last or, while they are, when whoever does it was
    /// there last; in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retained_ms: Option<i64>,
    /// Whether rows are only added.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub append_only: bool,
    /// The policies and tags that it has brought along of the tables that it was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Box<Carried>>,
    /// The consent policies that it has inherited of those tables, which go with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consents: Vec<ConsentPolicy>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl ManagedTable {
    /// A table in a folder, of which nothing was purged.
    pub fn new(folder: impl Into<String>, cluster_by: Vec<String>) -> Self {
        Self {
            folder: folder.into(),
            cluster_by,
            first_version: 0,
            erasing: None,
            erased_by: None,
            retained_ms: None,
            append_only: false,
            carried: None,
            consents: Vec::new(),
        }
    }

    /// The version that a version in the folder is called by.
    pub(crate) fn shown(&self, stored: u64) -> u64 {
        stored.saturating_add(self.first_version)
    }

    /// The version in the folder that is called so.
    ///
    /// # Errors
    /// When it was purged.
    pub(crate) fn stored(&self, name: &ObjectName, shown: u64) -> Result<u64> {
        match shown.checked_sub(self.first_version) {
            // The first version of a new folder has the columns and no rows yet.
            Some(0) if self.first_version > 0 => Err(self.purged(name, shown)),
            Some(stored) => Ok(stored),
            None => Err(self.purged(name, shown)),
        }
    }

    fn purged(&self, name: &ObjectName, shown: u64) -> Error {
        let by = match self.erased_by.as_deref().is_some_and(is_retention) {
            true => "its retention policy",
            false => "erasure",
        };
        Error::invalid_hint(
            format!("version {shown} of table {name} was purged by {by}"),
            format!("its versions begin with {}", self.first_version.saturating_add(1)),
        )
    }
}

/// What the catalog remembers of a model beside its versions' files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelHead {
    /// The version that a name without `@version` means.
    pub version: u32,
    /// Every published version that still exists, in order.
    pub versions: Vec<ModelVersion>,
    /// `matrix_factorization`, …
    pub model_type: String,
    /// The options as given, by name.
    pub options: BTreeMap<String, serde_json::Value>,
    /// The training query's text.
    pub query: String,
    /// The evaluation of the default version.
    pub metrics: Vec<StoredMetric>,
    /// When a version was trained last, or a scheduled training begun, in Unix milliseconds.
    #[serde(default)]
    pub trained_ms: i64,
    /// The same of a training or of a fold-in, whichever was last.
    #[serde(default)]
    pub folded_ms: i64,
}

/// Options of a model that are not of its training: ALTER MODEL changes them, and they stay when
/// another version becomes the default.
pub const ALTERABLE: [&str; 5] =
    ["schedule", "fold_in_schedule", "keep_versions", "promote", "promote_tolerance"];

/// A published version of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelVersion {
    /// Its number, used once.
    pub version: u32,
    /// Its own id, unlike any other's.
    pub id: String,
}

/// The kinds of objects that share a schema's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An external, discovered or warehouse table.
    Table,
    /// A view.
    View,
    /// A model.
    Model,
    /// A user.
    User,
    /// A role.
    Role,
    /// An API token.
    Token,
    /// What is expected of a table, or what checking it gave.
    Expectations,
    /// A key.
    Key,
    /// Policies and tags of a table, or policies of a tag.
    Policies,
    /// A purpose.
    Purpose,
    /// A consent policy.
    Consent,
    /// A subject, what holds of its persons, or copies of their ids.
    Subject,
    /// A privacy policy, or what was spent of its budget.
    PrivacyPolicy,
    /// A release of anonymized rows.
    Release,
}

impl Kind {
    /// The kind's word in sentences.
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::View => "view",
            Self::Model => "model",
            Self::User => "user",
            Self::Role => "role",
            Self::Token => "token",
            Self::Expectations => "set of expectations",
            Self::Key => "key",
            Self::Policies => "set of policies",
            Self::Purpose => "purpose",
            Self::Consent => "consent policy",
            Self::Subject => "subject",
            Self::PrivacyPolicy => "privacy policy",
            Self::Release => "release",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Spec {
    /// The kind of object.
    pub fn kind(&self) -> Kind {
        match self {
            Self::External(_) | Self::Identifiers { .. } | Self::Managed(_) => Kind::Table,
            Self::View { .. } => Kind::View,
            Self::Model(_) => Kind::Model,
            Self::User(_) => Kind::User,
            Self::Role(_) => Kind::Role,
            Self::Token(_) => Kind::Token,
            Self::Expectations(_) | Self::Checks(_) => Kind::Expectations,
            Self::Key(_) => Kind::Key,
            Self::Policies(_) => Kind::Policies,
            Self::Purpose(_) => Kind::Purpose,
            Self::Consent(_) => Kind::Consent,
            Self::Subject(_) | Self::SubjectMarks(_) | Self::SubjectCopies(_) => Kind::Subject,
            Self::Privacy(_) | Self::Budget(_) => Kind::PrivacyPolicy,
            Self::Releases(_) => Kind::Release,
        }
    }
}

/// A definition as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// What it defines.
    pub spec: Spec,
    /// Who created it.
    pub owner: String,
    /// When it was created, in Unix milliseconds.
    pub created_ms: i64,
    /// The state of the document; not part of it.
    pub revision: Revision,
}

/// What to do when the name exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateMode {
    /// An existing name is an error.
    New,
    /// An existing object is left alone.
    IfNotExists,
    /// An existing object of the same kind is replaced.
    Replace,
}

/// A folder that nothing names any more, kept for readers that started before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// The folder below the warehouse.
    pub folder: String,
    /// When it was retired, in Unix milliseconds.
    pub at_ms: i64,
}

/// The document of a head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    format: u32,
    /// The schema.
    pub schema: String,
    /// The name.
    pub name: String,
    /// Different for each write, so that a writer recognises its own document.
    pub write_id: String,
    /// Who created it.
    pub owner: String,
    /// When it was created, in Unix milliseconds.
    pub created_ms: i64,
    /// What it defines; absent when it was dropped.
    pub spec: Option<Spec>,
    /// Folders to remove.
    #[serde(default)]
    pub retired: Vec<Retired>,
    /// The highest version that a model of this name ever had.
    #[serde(default)]
    pub last_version: u32,
}

impl Document {
    /// A document to be written now.
    pub fn new(name: &ObjectName, owner: &str, created_ms: i64, spec: Option<Spec>) -> Self {
        let last_version = match &spec {
            Some(Spec::Model(head)) => head.versions.iter().map(|found| found.version).max(),
            _ => None,
        };
        let format = match &spec {
            Some(Spec::External(table)) if table.pii.is_some() => FORMAT,
            _ => FORMAT_PLAIN,
        };
        Self {
            format,
            schema: name.schema.clone(),
            name: name.name.clone(),
            write_id: uuid::Uuid::new_v4().to_string(),
            owner: owner.into(),
            created_ms,
            spec,
            retired: vec![],
            last_version: last_version.unwrap_or(0),
        }
    }

    /// Takes over from the document that this one replaces: the folders that it no longer names
    /// are retired, and version numbers go on.
    pub fn follow(&mut self, old: &Self) {
        let at_ms = self.created_ms;
        let kept = self.folders();
        self.retired = old.retired.clone();
        self.retired.retain(|retired| retired.at_ms > at_ms.saturating_sub(RETIRED_NAMED_MS));
        let gone = old.folders().into_iter().filter(|folder| !kept.contains(folder));
        self.retired.extend(gone.map(|folder| Retired { folder, at_ms }));
        self.last_version = self.last_version.max(old.last_version);
    }

    /// The folders below the warehouse that belong to the definition.
    fn folders(&self) -> Vec<String> {
        match &self.spec {
            Some(Spec::Managed(table)) => vec![table.folder.clone()],
            Some(Spec::Model(head)) => {
                let model = key(&self.schema, &self.name);
                let versions = head.versions.iter();
                versions.map(|found| format!("models/{model}/{}", found.version)).collect()
            }
            _ => vec![],
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When it is no JSON of the expected form, or of a newer format; `what` names it.
    pub fn parse(what: &str, content: &[u8]) -> Result<Self> {
        let corrupt = |reason: String| Error::Corrupt { what: what.into(), reason };
        let value: serde_json::Value =
            serde_json::from_slice(content).map_err(|error| corrupt(error.to_string()))?;
        match value.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format <= u64::from(FORMAT) => {}
            Some(format) => {
                return Err(corrupt(format!(
                    "it has format {format}, and this version reads up to {FORMAT}"
                )));
            }
            None => return Err(corrupt("it has no format number".into())),
        }
        serde_json::from_value(value).map_err(|error| corrupt(error.to_string()))
    }

    /// The document as bytes.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Bytes> {
        serde_json::to_vec_pretty(self).map(Bytes::from).map_err(|error| Error::Corrupt {
            what: format!("{}.{}", self.schema, self.name),
            reason: error.to_string(),
        })
    }

    /// The name.
    pub fn object_name(&self) -> ObjectName {
        ObjectName::new(&self.schema, &self.name)
    }
}
