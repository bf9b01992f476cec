//! What the program tells the catalog: stores, lakes, keys, limits and the clock.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::audit::AuditConfig;
use crate::error::{Error, Result};
use crate::store::{Secret, StoreConfig};

/// The wall clock, in Unix milliseconds. The program passes the system's, tests their own.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Everything the catalog needs to know to open.
#[derive(Clone)]
pub struct CatalogConfig {
    /// Where definitions, warehouse tables and models are.
    pub warehouse: StoreConfig,
    /// Where data is read.
    pub lakes: Vec<LakeConfig>,
    /// The named keys.
    pub keys: Vec<KeyConfig>,
    /// The master keys of keys made in SQL: the first wraps their secrets, each opens them.
    pub master_keys: Vec<Secret>,
    /// How many bytes of models stay in memory.
    pub model_cache_bytes: usize,
    /// How long a lake's list of files and tables stays valid.
    pub freshness: Duration,
    /// How the record is kept.
    pub audit: AuditConfig,
    /// The wall clock.
    pub clock: Clock,
}

impl CatalogConfig {
    /// A configuration with a warehouse and nothing else: 512 MiB of models, lists valid 2 s,
    /// nothing recorded.
    pub fn new(warehouse: StoreConfig, clock: Clock) -> Self {
        Self {
            warehouse,
            lakes: vec![],
            keys: vec![],
            master_keys: vec![],
            model_cache_bytes: 512 << 20,
            freshness: Duration::from_secs(2),
            audit: AuditConfig::default(),
            clock,
        }
    }
}

impl fmt::Debug for CatalogConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CatalogConfig")
            .field("warehouse", &self.warehouse)
            .field("lakes", &self.lakes)
            .field("keys", &self.keys)
            .field("master_keys", &self.master_keys)
            .field("model_cache_bytes", &self.model_cache_bytes)
            .field("freshness", &self.freshness)
            .field("audit", &self.audit)
            .finish_non_exhaustive()
    }
}

/// A lake: a schema of tables over files.
#[derive(Debug, Clone)]
pub struct LakeConfig {
    /// The schema's name.
    pub name: String,
    /// Where its files are.
    pub store: StoreConfig,
    /// Whether each folder below it is a table.
    pub discover: bool,
    /// What Attune may do with its files.
    pub access: LakeAccess,
    /// Tables given by name.
    pub tables: Vec<LakeTable>,
}

/// What Attune may do with a lake's files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LakeAccess {
    /// Read them.
    #[default]
    Read,
    /// Write them anew without the rows of whom FORGET SUBJECT forgets, too.
    Rewrite,
}

impl LakeAccess {
    /// Either.
    pub const ALL: [Self; 2] = [Self::Read, Self::Rewrite];

    /// The word in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Rewrite => "rewrite",
        }
    }
}

impl FromStr for LakeAccess {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|access| access.name() == text);
        found.ok_or_else(|| {
            let what = format!("{text} is no access to a lake");
            Error::invalid_hint(what, "write read or rewrite")
        })
    }
}

/// A table over files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LakeTable {
    /// The table's name.
    pub name: String,
    /// A file or folder: a URL, or a path below the lake.
    pub location: String,
    /// `parquet`, `csv`, `json`, `avro`, `arrow` or `delta`; by the files' names when absent.
    #[serde(default)]
    pub format: Option<String>,
    /// The format's options, such as `header` or `delimiter`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Hive partition columns; found in the paths when empty.
    #[serde(default)]
    pub partitions: Vec<String>,
}

/// A named key.
#[derive(Debug, Clone)]
pub struct KeyConfig {
    /// The name that SQL uses.
    pub name: String,
    /// The id in its tokens; the first eight hexadecimal digits of the key's hash when absent.
    pub id: Option<String>,
    /// The secret of the newest generation.
    pub secret: Secret,
    /// The secrets before it, the oldest first.
    pub previous: Vec<PreviousSecret>,
    /// The number of the oldest generation that is given.
    pub first_generation: u32,
}

impl KeyConfig {
    /// A key with one secret.
    pub fn new(name: &str, id: Option<String>, secret: Secret) -> Self {
        Self { name: name.to_owned(), id, secret, previous: vec![], first_generation: 1 }
    }
}

/// A secret that a key had before: what it sealed still opens.
#[derive(Debug, Clone)]
pub struct PreviousSecret {
    /// The id in what it made; the first eight hexadecimal digits of its hash when absent.
    pub id: Option<String>,
    /// The secret.
    pub secret: Secret,
}
