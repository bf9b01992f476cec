//! From the configuration to what the catalog and the engine take: secrets are read, defaults that
//! depend on the machine are filled in, `AWS_*` variables stand in for missing credentials.

use std::path::Path;
use std::sync::Arc;

use catalog::audit::{AuditConfig, Level};
use catalog::{
    CatalogConfig, KeyConfig, LakeConfig, LakeTable, PreviousSecret, Secret, StoreConfig,
};
use udfs::privacy::master::MASTER_BYTES_MIN;

use super::Config;
use super::environment::Environment;
use super::fault::Fault;
use super::sections::{AuditSection, KeySection, LakeSection, StoreSection};
use crate::error::{Error, Result};

/// What the machine has; limits that are not configured follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Memory of the machine, or of the container when that is less.
    pub memory_bytes: u64,
    /// Cores this process may use.
    pub cores: usize,
}

/// What is assumed where the operating system does not tell its memory.
const MEMORY_BYTES_ASSUMED: u64 = 4 << 30;

/// A slot is held while a client reads, which takes no core: more run at once than there are cores.
const STATEMENTS_PER_CORE: usize = 8;

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let total = std::fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| total_memory_bytes(&text))
            .unwrap_or(MEMORY_BYTES_ASSUMED);
        let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(u64::MAX);
        Self { memory_bytes: total.min(group), cores }
    }
}

fn total_memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

impl Config {
    /// What the catalog opens.
    ///
    /// # Errors
    /// When a file or variable that should hold a secret cannot be read.
    pub fn catalog(&self, environment: &Environment) -> Result<CatalogConfig> {
        let mut lakes = Vec::with_capacity(self.lakes.len());
        for (name, lake) in &self.lakes {
            lakes.push(lake_config(name, lake, environment)?);
        }
        let mut keys = Vec::with_capacity(self.keys.len());
        for (name, key) in &self.keys {
            keys.push(key_config(name, key, environment)?);
        }
        Ok(CatalogConfig {
            warehouse: store_config(&self.warehouse, environment)?,
            lakes,
            keys,
            master_keys: self.master_keys()?,
            model_cache_bytes: to_usize(self.limits.model_cache.0),
            freshness: self.limits.freshness,
            audit: audit_config(&self.audit)?,
            clock: Arc::new(now_ms),
        })
    }

    fn master_keys(&self) -> Result<Vec<Secret>> {
        let given = self.keyring.master_key.clone().map(|hidden| hidden.0);
        let text = secret_text(given, self.keyring.master_key_file.as_deref())?;
        let text = text.unwrap_or_default();
        let keys: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if keys.iter().any(|key| key.len() < MASTER_BYTES_MIN) {
            let message =
                format!("[keyring] holds a master key of less than {MASTER_BYTES_MIN} bytes");
            let hint = "make one with: openssl rand -hex 32";
            return Err(Error::Config(vec![Fault::new(message, Some(hint.into()))]));
        }
        Ok(keys.into_iter().map(Secret::new).collect())
    }

    /// What the engine may use on `machine`.
    pub fn engine_limits(&self, machine: Machine) -> sql::Limits {
        let memory = self.limits.memory.map_or(machine.memory_bytes / 2, |size| size.0);
        let query_memory = self.limits.query_memory.map_or(memory / 2, |size| size.0);
        sql::Limits {
            memory_bytes: to_usize(memory),
            query_memory_bytes: to_usize(query_memory.min(memory)),
            spill_dir: self.limits.spill_dir.clone(),
            spill_bytes: self.limits.spill.0,
            query_timeout: self.limits.query_timeout,
            rows_max: self.limits.rows_max.map(|rows| rows as u64),
            result_bytes_max: self.limits.result_max.map(|size| size.0),
            reader_idle: Some(self.limits.reader_idle).filter(|time| !time.is_zero()),
            statements_max: Some(
                self.limits.statements_max.unwrap_or(STATEMENTS_PER_CORE * machine.cores),
            ),
            queue_max: self.limits.queue_max,
            queue_wait: self.limits.queue_wait,
            sql_bytes_max: to_usize(self.limits.sql_max.0),
            target_partitions: self.limits.target_partitions.unwrap_or(machine.cores).max(1),
            learner_threads: self.limits.learner_threads.unwrap_or(machine.cores).max(1),
            policy_staleness: std::time::Duration::from_millis(
                self.limits.policy_staleness_ms as u64,
            ),
        }
    }
}

/// The wall clock, in Unix milliseconds.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn lake_config(name: &str, lake: &LakeSection, environment: &Environment) -> Result<LakeConfig> {
    let tables = lake.tables.iter().map(|table| LakeTable {
        name: table.name.clone(),
        location: table.location.clone(),
        format: table.format.clone(),
        options: table.options.clone(),
        partitions: table.partitions.clone(),
    });
    Ok(LakeConfig {
        name: name.to_owned(),
        store: store_config(&lake.store, environment)?,
        discover: lake.discovery.discover,
        access: lake.discovery.access.parse()?,
        tables: tables.collect(),
    })
}

fn store_config(store: &StoreSection, environment: &Environment) -> Result<StoreConfig> {
    let url = store.url.0.clone();
    if !url.starts_with("s3://") && !url.starts_with("s3a://") {
        return Ok(StoreConfig { url, ..StoreConfig::default() });
    }
    let variable =
        |names: &[&str]| names.iter().find_map(|name| environment.get(name)).map(str::to_owned);
    let mut access_key_id =
        secret_text(store.access_key_id.clone(), store.access_key_id_file.as_deref())?;
    let mut secret_access_key = secret_text(
        store.secret_access_key.clone().map(|hidden| hidden.0),
        store.secret_access_key_file.as_deref(),
    )?;
    let mut session_token = store.session_token.clone().map(|hidden| hidden.0);
    // A pair is taken whole from one source: half of one and half of another never fit.
    if access_key_id.is_none() && secret_access_key.is_none() {
        access_key_id = variable(&["AWS_ACCESS_KEY_ID"]);
        secret_access_key = variable(&["AWS_SECRET_ACCESS_KEY"]);
        session_token = session_token.or_else(|| variable(&["AWS_SESSION_TOKEN"]));
    }
    let endpoint =
        store.endpoint.clone().or_else(|| variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]));
    Ok(StoreConfig {
        url,
        path_style: store.path_style.unwrap_or(endpoint.is_some()),
        endpoint,
        region: store.region.clone().or_else(|| variable(&["AWS_REGION", "AWS_DEFAULT_REGION"])),
        allow_http: store.allow_http,
        access_key_id,
        secret_access_key: secret_access_key.map(Secret::new),
        session_token: session_token.map(Secret::new),
    })
}

fn key_config(name: &str, key: &KeySection, environment: &Environment) -> Result<KeyConfig> {
    let secret_in = |file: Option<&Path>, variable: Option<&str>| -> Result<Secret> {
        let secret = match (file, variable) {
            (Some(file), _) => secret_text(None, Some(file))?,
            (None, Some(variable)) => environment.get(variable).map(str::to_owned),
            (None, None) => None,
        };
        secret.map(Secret::new).ok_or_else(|| {
            let variable = variable.unwrap_or_default();
            let message = format!("[keys.{name}]: the variable {variable} is not set");
            Error::Config(vec![Fault::new(message, Some(format!("set {variable}")))])
        })
    };
    let files = key.previous_files.iter().map(|file| secret_in(Some(file.as_path()), None));
    let variables =
        key.previous_envs.iter().map(|variable| secret_in(None, Some(variable.as_str())));
    let secrets: Vec<Secret> = files.chain(variables).collect::<Result<_>>()?;
    let ids = key.previous_ids.iter().cloned().map(Some).chain(std::iter::repeat(None));
    let previous =
        secrets.into_iter().zip(ids).map(|(secret, id)| PreviousSecret { id, secret }).collect();
    Ok(KeyConfig {
        name: name.to_owned(),
        id: key.id.clone(),
        secret: secret_in(key.file.as_deref(), key.env.as_deref())?,
        previous,
        first_generation: u32::try_from(key.first_generation).unwrap_or(u32::MAX),
    })
}

fn audit_config(audit: &AuditSection) -> Result<AuditConfig> {
    let secret = secret_text(None, audit.signing_key_file.as_deref())?;
    Ok(AuditConfig {
        level: audit.record.parse::<Level>()?,
        embedded: audit.embedded,
        system: audit.system,
        strict: audit.strict,
        delay: audit.delay,
        queue_max: audit.queue_max,
        retention: audit.retention,
        secret: secret.map(Secret::new),
    })
}

/// A secret given directly, or the content of a file without its last line break.
pub(super) fn secret_text(given: Option<String>, file: Option<&Path>) -> Result<Option<String>> {
    let Some(path) = file.filter(|_| given.is_none()) else { return Ok(given) };
    let text = std::fs::read_to_string(path).map_err(|error| Error::file("read", path, &error))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        let message = format!("the file {} is empty", path.display());
        return Err(Error::Config(vec![Fault::new(message, Some("it must hold a secret".into()))]));
    }
    Ok(Some(secret.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { memory_bytes: 8 << 30, cores: 4 };

    fn catalog(text: &str, environment: &Environment) -> Result<CatalogConfig> {
        Config::parse(text).unwrap().catalog(environment)
    }

    #[test]
    fn credentials_come_from_the_environment_when_none_are_configured() {
        let environment = Environment::from([
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_ENDPOINT_URL", "http://localhost:9000"),
            ("AWS_DEFAULT_REGION", "eu-west-3"),
        ]);
        let config = catalog("[lake]\nurl = \"s3://bucket\"\n", &environment).unwrap();
        let store = &config.lakes[0].store;
        assert_eq!(store.access_key_id.as_deref(), Some("id"));
        assert_eq!(store.endpoint.as_deref(), Some("http://localhost:9000"));
        assert_eq!(store.region.as_deref(), Some("eu-west-3"));
        assert!(store.path_style && !store.allow_http);
        let shown = format!("{config:?}");
        assert!(!shown.contains("\"secret\""), "{shown}");
    }

    #[test]
    fn a_configured_pair_is_never_mixed_with_the_environment() {
        let environment = Environment::from([("AWS_SECRET_ACCESS_KEY", "other")]);
        let text = "[lake]\nurl = \"s3://bucket\"\naccess_key_id = \"id\"\n";
        let store = catalog(text, &environment).unwrap().lakes.remove(0).store;
        assert!(store.secret_access_key.is_none());
    }

    #[test]
    fn a_local_lake_takes_no_credentials() {
        let environment = Environment::from([("AWS_ACCESS_KEY_ID", "id")]);
        let store =
            catalog("[lake]\nurl = \"data\"\n", &environment).unwrap().lakes.remove(0).store;
        assert_eq!((store.url.as_str(), store.access_key_id), ("data", None));
    }

    #[test]
    fn a_key_is_read_from_its_file_without_the_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "hunter2\n").unwrap();
        let text = format!("[keys.email]\nfile = {:?}\nid = \"k1\"\n", file.display().to_string());
        let config = catalog(&text, &Environment::default()).unwrap();
        assert_eq!(config.keys[0].secret.reveal(), "hunter2");
        std::fs::write(&file, "\n").unwrap();
        assert!(catalog(&text, &Environment::default()).is_err());
    }

    #[test]
    fn secrets_of_before_are_read_from_their_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for (name, secret) in [("one", "first\n"), ("two", "second\n"), ("three", "third\n")] {
            std::fs::write(folder.path().join(name), secret).unwrap();
        }
        let path = |name: &str| format!("{:?}", folder.path().join(name).display().to_string());
        let text = format!(
            "[keys.web]\nfile = {}\nprevious_files = [{}, {}]\nprevious_ids = [\"a\", \"b\"]\n",
            path("three"),
            path("one"),
            path("two")
        );
        let key = catalog(&text, &Environment::default()).unwrap().keys.remove(0);
        assert_eq!((key.secret.reveal(), key.first_generation), ("third", 1));
        let previous: Vec<_> =
            key.previous.iter().map(|one| (one.id.as_deref(), one.secret.reveal())).collect();
        assert_eq!(previous, [(Some("a"), "first"), (Some("b"), "second")]);
        let of_variables = "[keys.web]\nenv = \"NEW\"\nprevious_envs = [\"OLD\"]\n";
        let both = Environment::from([("NEW", "today"), ("OLD", "yesterday")]);
        let key = catalog(of_variables, &both).unwrap().keys.remove(0);
        assert_eq!(key.previous[0].secret.reveal(), "yesterday");
        let error = catalog(of_variables, &Environment::from([("NEW", "today")])).unwrap_err();
        assert!(error.render(false).contains("OLD is not set"), "{}", error.render(false));
    }

    #[test]
    fn a_key_whose_variable_is_missing_is_an_error_that_names_it() {
        let error = catalog("[keys.email]\nenv = \"NOPE\"\n", &Environment::default()).unwrap_err();
        assert!(error.render(false).contains("NOPE is not set"), "{}", error.render(false));
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn master_keys_are_lines_of_enough_bytes_that_nothing_shows() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("master");
        let (new, old) = ("n".repeat(32), "o".repeat(40));
        std::fs::write(&file, format!("{new}\n\n {old}\n")).unwrap();
        let text = format!("[keyring]\nmaster_key_file = {:?}\n", file.display().to_string());
        let config = catalog(&text, &Environment::default()).unwrap();
        let keys: Vec<&str> = config.master_keys.iter().map(Secret::reveal).collect();
        assert_eq!(keys, [&new, &old]);
        assert!(!format!("{config:?}").contains(&new));
        std::fs::write(&file, "too short").unwrap();
        let error = catalog(&text, &Environment::default()).unwrap_err().render(false);
        assert!(error.contains("less than 32 bytes") && !error.contains("too short"), "{error}");
        let both = format!("{text}master_key = \"{new}\"\n");
        let error = Config::parse(&both).unwrap_err().render(false);
        assert!(error.contains("both master_key") && !error.contains(&new), "{error}");
    }

    #[test]
    fn the_record_is_kept_as_configured() {
        let audit = |text: &str| catalog(text, &Environment::default()).map(|all| all.audit);
        let usual = audit("").unwrap();
        assert_eq!((usual.level, usual.strict, usual.retention), (Level::All, false, None));
        let text = "[audit]\nrecord = \"changes\"\nstrict = true\nretention = \"48 h\"\n";
        let chosen = audit(text).unwrap();
        assert_eq!((chosen.level, chosen.strict), (Level::Changes, true));
        assert_eq!(chosen.retention, Some(std::time::Duration::from_secs(48 * 3_600)));
        let wrong = Config::parse("[audit]\nrecord = \"some\"\n").unwrap_err().render(false);
        assert!(wrong.contains("[audit] record is \"some\""), "{wrong}");
    }

    #[test]
    fn limits_follow_the_machine_and_a_query_never_has_more_than_the_process() {
        let limits = Config::default().engine_limits(MACHINE);
        assert_eq!(limits.memory_bytes, 4 << 30);
        assert_eq!(limits.query_memory_bytes, 2 << 30);
        assert_eq!((limits.target_partitions, limits.learner_threads), (4, 4));
        let config = Config::parse("[limits]\nmemory = \"1 GiB\"\nquery_memory = \"9 GiB\"\n");
        assert_eq!(config.unwrap().engine_limits(MACHINE).query_memory_bytes, 1 << 30);
    }

    #[test]
    fn the_machine_tells_its_memory() {
        assert_eq!(total_memory_bytes("MemTotal:  8 kB\nMemFree: 1 kB\n"), Some(8192));
        assert_eq!(total_memory_bytes("nonsense"), None);
        assert!(Machine::here().cores >= 1);
    }
}
