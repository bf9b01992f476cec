//! `ATTUNE_*` variables: `ATTUNE_SERVER_FLIGHT` is `flight` in `[server]`, `ATTUNE_LAKE_REGION`
//! is `region` in `[lake]`, `ATTUNE_LAKE_CRM_REGION` is `region` in `[lake.crm]`.
//!
//! The variables that mirror a flag (`ATTUNE_LAKE`, `ATTUNE_FLIGHT` …) are listed in [`FLAGS`].

use std::collections::BTreeMap;

use super::fault::Fault;
use super::file::is_identifier;
use super::sections::{LakeSection, OidcSection, Section};
use super::setting::Setting;
use super::{Config, DEFAULT_LAKE};

/// The environment, read once at the start; tests pass their own.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// Variables that mirror a flag or a prompt.
pub(super) const FLAGS: [(&str, &str); 15] = [
    ("ATTUNE_CONFIG", "`--config`: the configuration file."),
    ("ATTUNE_LAKE", "`--lake`: URL of the lake called `lake`, every folder a table."),
    ("ATTUNE_WAREHOUSE", "`--warehouse`: URL of the warehouse."),
    ("ATTUNE_FLIGHT", "`--flight`: address of Flight SQL."),
    ("ATTUNE_HTTP", "`--http`: address of health and metrics, or `off`."),
    ("ATTUNE_PG", "`--pg`: address of PostgreSQL's protocol."),
    ("ATTUNE_CONNECT", "`--connect`: the server to ask."),
    ("ATTUNE_USER", "`--user`: the user's name."),
    ("ATTUNE_PASSWORD", "The password of `--user`; there is no flag for it."),
    ("ATTUNE_ADMIN_PASSWORD", "`attune user add --as`: the administrator's password."),
    ("ATTUNE_FORMAT", "`--format`: the format of results."),
    ("ATTUNE_TOKEN", "A bearer token for `--connect` without `--user`; there is no flag for it."),
    ("ATTUNE_CA", "`--ca`: certificates to trust with grpc+tls://."),
    ("ATTUNE_CERTIFICATE", "`--certificate`: your own certificate for `--connect`."),
    ("ATTUNE_CERTIFICATE_KEY", "`--certificate-key`: its private key."),
];

impl Environment {
    /// The process's environment; variables that are no Unicode are left out.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self(variables.collect())
    }

    /// A variable's value, when it is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(variables: [(&str, &str); N]) -> Self {
        Self(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }
}

/// Sets what the environment says; values that cannot be read are faults, names that mean nothing
/// are listed in `config.unknown_variables`.
pub(super) fn apply(config: &mut Config, environment: &Environment) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (variable, value) in &environment.0 {
        let Some(rest) = variable.strip_prefix("ATTUNE_") else { continue };
        if value.is_empty() || FLAGS.iter().any(|(name, _)| name == variable) {
            continue;
        }
        let setting = Setting::Text(value);
        match set(config, &rest.to_lowercase(), &setting) {
            Some(Ok(())) => {}
            Some(Err(reason)) => faults.push(Fault::new(format!("{variable}: {reason}"), None)),
            None => config.unknown_variables.push(variable.clone()),
        }
    }
    faults
}

fn set(config: &mut Config, name: &str, setting: &Setting<'_>) -> Option<Result<(), String>> {
    let (section, field) = name.split_once('_')?;
    match section {
        "warehouse" => config.warehouse.set(field, setting),
        "server" => config.server.set(field, setting),
        "auth" => match field.strip_prefix("oidc_") {
            Some(field) if OidcSection::fields().iter().any(|known| known.name == field) => {
                config.oidc.get_or_insert_default().set(field, setting)
            }
            _ => config.auth.set(field, setting),
        },
        "limits" => config.limits.set(field, setting),
        "log" => config.log.set(field, setting),
        "observe" => config.observe.set(field, setting),
        "keyring" => config.keyring.set(field, setting),
        "audit" => config.audit.set(field, setting),
        "lake" => set_lake(config, field, setting),
        _ => None,
    }
}

fn set_lake(config: &mut Config, name: &str, setting: &Setting<'_>) -> Option<Result<(), String>> {
    // A lake is made only for a field that exists, so that a stray variable makes no lake.
    let fields = LakeSection::fields();
    let (lake, field) = fields.iter().find_map(|field| {
        if name == field.name {
            return Some((DEFAULT_LAKE, field.name));
        }
        let lake = name.strip_suffix(field.name)?.strip_suffix('_')?;
        is_identifier(lake).then_some((lake, field.name))
    })?;
    config.lakes.entry(lake.to_owned()).or_default().set(field, setting)
}
