//! The configuration: defaults, then a TOML file, then `ATTUNE_*` variables, then flags; each
//! overrides the one before, field by field.
//!
//! All errors are collected, and each points to its line and column. Unknown keys are errors: a
//! typing slip that is silently ignored is the worst kind of setting. `[lake]` is short for
//! `[lake.lake]`, and may stand beside `[lake.crm]`: what is a table inside `[lake]` is a lake of
//! that name, what is a value is a setting of the lake called `lake`.

mod convert;
mod document;
mod environment;
mod fault;
mod file;
mod login;
mod sections;
mod setting;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use convert::Machine;
pub use document::document;
pub use environment::Environment;
pub use fault::{Fault, Place};
pub use sections::{
    AuditSection, AuthSection, DiscoverySection, Field, KeySection, KeyringSection, LakeSection,
    LimitsSection, LogSection, ObserveSection, OidcSection, Section, ServerSection, StoreSection,
    TableSection,
};
pub use setting::{ByteSize, FromSetting, Hidden, Listen, Location, Setting};

use crate::error::{Error, Result};

/// The highest number of a generation that is believed.
const GENERATION_MAX: usize = 1_000_000;

/// The name of the lake that `[lake]`, `ATTUNE_LAKE` and `--lake` mean.
pub const DEFAULT_LAKE: &str = "lake";

/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "attune.toml";

/// Where Attune writes when nothing else is said.
pub const DEFAULT_WAREHOUSE: &str = "./attune-warehouse";

/// The whole configuration of a process.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Where Attune writes: definitions, tables, models.
    pub warehouse: StoreSection,
    /// Where data is read, by schema name.
    pub lakes: BTreeMap<String, LakeSection>,
    /// Where the server listens.
    pub server: ServerSection,
    /// Logins, sessions and what is kept for clients.
    pub auth: AuthSection,
    /// An identity provider whose tokens are accepted.
    pub oidc: Option<OidcSection>,
    /// What a process and a query may use.
    pub limits: LimitsSection,
    /// What is logged.
    pub log: LogSection,
    /// Where traces go.
    pub observe: ObserveSection,
    /// What is recorded of who did what.
    pub audit: AuditSection,
    /// Keys for pseudonyms and encryption, by name.
    pub keys: BTreeMap<String, KeySection>,
    /// What keys made in SQL are kept under.
    pub keyring: KeyringSection,
    /// `ATTUNE_*` variables that mean nothing: told, but no error, because an orchestrator adds
    /// variables of its own.
    pub unknown_variables: Vec<String>,
}

/// What the command line says, over everything else.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--lake`: the lake called `lake`, with discovery.
    pub lake: Option<String>,
    /// `--warehouse`.
    pub warehouse: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        let warehouse =
            StoreSection { url: Location(DEFAULT_WAREHOUSE.into()), ..StoreSection::default() };
        Self {
            file: None,
            warehouse,
            lakes: BTreeMap::new(),
            server: ServerSection::default(),
            auth: AuthSection::default(),
            oidc: None,
            limits: LimitsSection::default(),
            log: LogSection::default(),
            observe: ObserveSection::default(),
            audit: AuditSection::default(),
            keys: BTreeMap::new(),
            keyring: KeyringSection::default(),
            unknown_variables: Vec::new(),
        }
    }
}

impl Config {
    /// Reads the file that `overrides` names, or `attune.toml` in the working directory when it
    /// exists, then the environment, then the overrides.
    pub fn load(overrides: &Overrides, environment: &Environment) -> Result<Self> {
        let named = overrides.config.clone();
        let path = named
            .or_else(|| environment.get("ATTUNE_CONFIG").map(PathBuf::from))
            .or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.is_file()));
        let mut config = Self::default();
        let mut faults = Vec::new();
        if let Some(path) = path {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| Error::file("read", &path, &error))?;
            let base = path.parent().map(Path::to_path_buf).unwrap_or_default();
            faults = file::read(&mut config, &text, &path.to_string_lossy(), &base);
            config.file = Some(path);
        }
        faults.extend(environment::apply(&mut config, environment));
        config.apply(overrides, environment);
        faults.extend(config.incomplete());
        if faults.is_empty() { Ok(config) } else { Err(Error::Config(faults)) }
    }

    /// A configuration from text, as if it stood in `attune.toml`; without environment.
    pub fn parse(text: &str) -> Result<Self> {
        let mut config = Self::default();
        let mut faults = file::read(&mut config, text, DEFAULT_FILE, Path::new(""));
        faults.extend(config.incomplete());
        if faults.is_empty() { Ok(config) } else { Err(Error::Config(faults)) }
    }

    /// A variable that mirrors a flag stands in for it.
    fn apply(&mut self, overrides: &Overrides, environment: &Environment) {
        let lake = overrides.lake.as_deref().or(environment.get("ATTUNE_LAKE"));
        if let Some(url) = lake {
            let lake = self.lakes.entry(DEFAULT_LAKE.into()).or_default();
            lake.store.url = Location(url.to_owned());
            lake.discovery.discover = true;
            // What was said of another place does not count for this one.
            lake.discovery.access = DiscoverySection::default().access;
        }
        let warehouse = overrides.warehouse.as_deref().or(environment.get("ATTUNE_WAREHOUSE"));
        if let Some(url) = warehouse {
            self.warehouse.url = Location(url.to_owned());
        }
    }

    /// What is missing or does not fit together once every source has been read.
    fn incomplete(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (name, lake) in &self.lakes {
            if lake.store.url.0.is_empty() {
                let hint = format!("add url = \"s3://bucket/path\" to [lake.{name}]");
                faults.push(Fault::new(format!("[lake.{name}] has no url"), Some(hint)));
            }
            if let Err(error) = lake.discovery.access.parse::<catalog::LakeAccess>() {
                let message = format!("[lake.{name}] access is {:?}", lake.discovery.access);
                faults.push(Fault::new(message, error.hint()));
            }
        }
        for (name, key) in &self.keys {
            if key.file.is_some() == key.env.is_some() {
                faults.push(Fault::new(
                    format!("[keys.{name}] needs exactly one of file and env"),
                    Some("a secret never stands in the configuration itself".into()),
                ));
            }
        }
        faults.extend(self.keys.iter().flat_map(|(name, key)| previous_faults(name, key)));
        if self.keyring.master_key.is_some() && self.keyring.master_key_file.is_some() {
            let hint = Some("give one of them".into());
            faults.push(Fault::new("[keyring] has both master_key and master_key_file", hint));
        }
        let tls = (&self.server.tls_certificate_file, &self.server.tls_key_file);
        if tls.0.is_some() != tls.1.is_some() {
            faults.push(Fault::new(
                "[server] needs both tls_certificate_file and tls_key_file, or neither",
                None,
            ));
        }
        faults.extend(self.login_faults());
        if self.limits.statements_max == Some(0) {
            let hint = "leave it out for eight a core".to_owned();
            faults.push(Fault::new("[limits] statements_max is 0: nothing would run", Some(hint)));
        }
        if let Some(endpoint) = &self.observe.otlp_endpoint
            && !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme))
        {
            let message = format!("[observe] otlp_endpoint is {endpoint:?}");
            faults.push(Fault::new(message, Some("write http://HOST:4317".into())));
        }
        if let Err(error) = self.audit.record.parse::<catalog::audit::Level>() {
            let hint = error.hint().unwrap_or_else(|| "write off, changes or all".into());
            let message = format!("[audit] record is {:?}", self.audit.record);
            faults.push(Fault::new(message, Some(hint)));
        }
        if !matches!(self.log.format.as_str(), "human" | "json") {
            let message = format!("[log] format is {:?}", self.log.format);
            faults.push(Fault::new(message, Some("write human or json".into())));
        }
        faults
    }
}

/// What does not fit together in the secrets that a key had before.
fn previous_faults(name: &str, key: &KeySection) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |what: String, hint: &str| faults.push(Fault::new(what, Some(hint.into())));
    if !key.previous_files.is_empty() && !key.previous_envs.is_empty() {
        let what = format!("[keys.{name}] has both previous_files and previous_envs");
        fault(what, "give one of them, so that there is one order");
    }
    let (secrets, ids) =
        (key.previous_files.len() + key.previous_envs.len(), key.previous_ids.len());
    if ids > 0 && ids != secrets {
        let what = format!("[keys.{name}] has {secrets} previous secrets and {ids} previous_ids");
        fault(what, "give each secret its id, or none");
    }
    if !(1..=GENERATION_MAX).contains(&key.first_generation) {
        let what = format!("[keys.{name}] first_generation is {}", key.first_generation);
        fault(what, "generations are numbered from 1");
    }
    faults
}

#[cfg(test)]
mod tests;
