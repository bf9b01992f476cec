//! Reads a TOML file into a [`Config`], collecting every error with its place.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Place};
use super::sections::{
    AuditSection, AuthSection, Field, KeySection, KeyringSection, LakeSection, LimitsSection,
    LogSection, ObserveSection, OidcSection, Section, ServerSection, StoreSection, TableSection,
};
use super::setting::Setting;
use super::{Config, DEFAULT_LAKE};
use crate::error::did_you_mean;

/// The tables a file may have.
pub(super) const TABLES: [&str; 10] =
    ["warehouse", "lake", "server", "auth", "limits", "log", "observe", "audit", "keys", "keyring"];

/// Reads `text` into `config`. `file` names it in errors; relative paths are relative to `base`.
pub(super) fn read(config: &mut Config, text: &str, file: &str, base: &Path) -> Vec<Fault> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader { file, text, base, faults: Vec::new() };
    for error in errors {
        let place = error.span().map(|span| Place::of(file, text, &span));
        let message = error.message().replace('\n', ", ");
        reader.faults.push(Fault { message, hint: None, place });
    }
    // After a syntax error the rest would only give errors that follow from it.
    if reader.faults.is_empty() {
        reader.document(config, document.get_ref());
    }
    // TOML tables are read in the order of their names; people read from the top.
    reader.faults.sort_by_key(|fault| fault.place.as_ref().map(|place| (place.line, place.column)));
    reader.faults
}

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;
type Value<'a> = Spanned<DeValue<'a>>;

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    base: &'a Path,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn document(&mut self, config: &mut Config, document: &DeTable<'_>) {
        for (key, value) in document {
            match key.get_ref().as_ref() {
                "warehouse" => self.section(&mut config.warehouse, key, value, "[warehouse]"),
                "server" => self.section(&mut config.server, key, value, "[server]"),
                "auth" => self.auth(config, key, value),
                "limits" => self.section(&mut config.limits, key, value, "[limits]"),
                "log" => self.section(&mut config.log, key, value, "[log]"),
                "observe" => self.section(&mut config.observe, key, value, "[observe]"),
                "audit" => self.section(&mut config.audit, key, value, "[audit]"),
                "lake" => self.lakes(config, key, value),
                "keys" => self.keys(config, key, value),
                "keyring" => self.section(&mut config.keyring, key, value, "[keyring]"),
                name => {
                    let hint = match did_you_mean(name, TABLES) {
                        Some(near) => format!("did you mean [{near}]?"),
                        None => elsewhere(name)
                            .unwrap_or_else(|| format!("the tables are {}", TABLES.join(", "))),
                    };
                    self.fault(key.span(), format!("unknown table [{name}]"), Some(hint));
                }
            }
        }
    }

    fn lakes(&mut self, config: &mut Config, key: &Key<'_>, value: &Value<'_>) {
        let Some(table) = self.table(key, value, "[lake]") else { return };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match value.get_ref() {
                DeValue::Table(_) if name == "tables" => {
                    let hint = "write [[lake.tables]]".to_owned();
                    self.fault(key.span(), "tables is no list of tables".into(), Some(hint));
                }
                DeValue::Table(lake) => {
                    if !is_identifier(name) {
                        self.identifier(key, "a lake");
                        continue;
                    }
                    let section = config.lakes.entry(name.to_owned()).or_default();
                    let title = format!("[lake.{name}]");
                    for (key, value) in lake {
                        self.lake_entry(section, key, value, &title);
                    }
                }
                _ => {
                    let section = config.lakes.entry(DEFAULT_LAKE.into()).or_default();
                    self.lake_entry(section, key, value, "[lake]");
                }
            }
        }
    }

    fn lake_entry(
        &mut self,
        lake: &mut LakeSection,
        key: &Key<'_>,
        value: &Value<'_>,
        title: &str,
    ) {
        if key.get_ref() != "tables" {
            return self.entry(lake, key, value, title, &["tables"]);
        }
        let Some(tables) = value.get_ref().as_array() else {
            let hint = "write [[lake.tables]], or [[lake.NAME.tables]]".to_owned();
            return self.fault(value.span(), "tables is no list of tables".into(), Some(hint));
        };
        for table in tables {
            let mut section = TableSection::default();
            self.section(&mut section, key, table, "tables");
            for (field, text) in [("name", &section.name), ("location", &section.location)] {
                if text.is_empty() {
                    self.fault(table.span(), format!("the table has no {field}"), None);
                }
            }
            lake.tables.push(section);
        }
    }

    fn auth(&mut self, config: &mut Config, key: &Key<'_>, value: &Value<'_>) {
        let Some(table) = self.table(key, value, "[auth]") else { return };
        for (key, value) in table {
            if key.get_ref() == "oidc" {
                let section = config.oidc.get_or_insert_default();
                self.section(section, key, value, "[auth.oidc]");
            } else {
                self.entry(&mut config.auth, key, value, "[auth]", &["oidc"]);
            }
        }
    }

    fn keys(&mut self, config: &mut Config, key: &Key<'_>, value: &Value<'_>) {
        let Some(table) = self.table(key, value, "[keys]") else { return };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if !is_identifier(name) {
                self.identifier(key, "a key");
                continue;
            }
            let section = config.keys.entry(name.to_owned()).or_default();
            self.section(section, key, value, &format!("[keys.{name}]"));
        }
    }

    fn section<S: Section>(
        &mut self,
        section: &mut S,
        key: &Key<'_>,
        value: &Value<'_>,
        title: &str,
    ) {
        let Some(table) = self.table(key, value, title) else { return };
        for (key, value) in table {
            self.entry(section, key, value, title, &[]);
        }
    }

    fn entry<S: Section>(
        &mut self,
        section: &mut S,
        key: &Key<'_>,
        value: &Value<'_>,
        title: &str,
        others: &[&'static str],
    ) {
        let name = key.get_ref().as_ref();
        let setting = Setting::Toml { value: value.get_ref(), base: self.base };
        match section.set(name, &setting) {
            Some(Ok(())) => {}
            Some(Err(reason)) => {
                self.fault(value.span(), format!("{name} in {title}: {reason}"), None);
            }
            None => {
                let fields = S::fields();
                let names = fields.iter().map(|field| field.name).chain(others.iter().copied());
                let hint = match did_you_mean(name, names.clone()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => elsewhere(name).unwrap_or_else(|| {
                        format!("the keys are {}", names.collect::<Vec<_>>().join(", "))
                    }),
                };
                self.fault(key.span(), format!("unknown key {name} in {title}"), Some(hint));
            }
        }
    }

    fn table<'v, 't>(
        &mut self,
        key: &Key<'_>,
        value: &'v Value<'t>,
        title: &str,
    ) -> Option<&'v DeTable<'t>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let message = format!("{} is a value, not a table", key.get_ref());
            self.fault(key.span(), message, Some(format!("write {title} on a line of its own")));
        }
        table
    }

    fn identifier(&mut self, key: &Key<'_>, what: &str) {
        let message = format!("{:?} cannot name {what}", key.get_ref().as_ref());
        let hint = "use lower-case letters, digits and underscores, a letter first";
        self.fault(key.span(), message, Some(hint.into()));
    }

    fn fault(&mut self, span: std::ops::Range<usize>, message: String, hint: Option<String>) {
        let place = Some(Place::of(self.file, self.text, &span));
        self.faults.push(Fault { message, hint, place });
    }
}

/// Which table a key that stands in the wrong one belongs to.
fn elsewhere(name: &str) -> Option<String> {
    let sections: [(&str, Vec<Field>); 11] = [
        ("[server]", ServerSection::fields()),
        ("[auth]", AuthSection::fields()),
        ("[auth.oidc]", OidcSection::fields()),
        ("[limits]", LimitsSection::fields()),
        ("[log]", LogSection::fields()),
        ("[observe]", ObserveSection::fields()),
        ("[audit]", AuditSection::fields()),
        ("[lake]", LakeSection::fields()),
        ("[warehouse]", StoreSection::fields()),
        ("[keys.NAME]", KeySection::fields()),
        ("[keyring]", KeyringSection::fields()),
    ];
    let (title, _) =
        sections.iter().find(|(_, fields)| fields.iter().any(|field| field.name == name))?;
    Some(format!("{name} belongs in {title}"))
}

/// Whether a name needs no quotes in SQL, so that a lake is a schema that can be typed.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|first| first.is_ascii_lowercase())
        && characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}
