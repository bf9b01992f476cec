//! The few settings of a session. `datafusion.*` settings are closed to users: they would reach
//! memory limits and folders that all sessions share.

use catalog::error::nearest;

use crate::engine::{CATALOG, MAIN};
use crate::error::{Error, Result};
use crate::rights::Rights;

/// Every setting's name, with what it means.
pub const SETTINGS: [(&str, &str); 7] = [
    ("catalog", "the catalog; always attune"),
    ("schema", "where unqualified names are looked up and created first"),
    ("time_zone", "the zone of now() and of timestamps without a zone, such as +02:00"),
    ("purpose", "the purpose that this session's reads serve"),
    ("string_views", "whether results may carry Arrow's view types"),
    ("role", "the only role that is active; all of yours when it is not set"),
    ("compression", "how a Flight SQL server compresses results: none, lz4 or zstd"),
];

/// What a setting holds, for clients that set it by value rather than by text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// Text.
    Text,
    /// `true` or `false`.
    Truth,
    /// A whole number.
    Number,
}

/// What a setting holds.
pub fn kind(name: &str) -> SettingKind {
    match name {
        "string_views" => SettingKind::Truth,
        _ => SettingKind::Text,
    }
}

/// How results are compressed on their way to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4 frames: fast, for a network of a gigabit or less.
    Lz4,
    /// Zstandard: smaller, for slow networks.
    Zstd,
}

impl Compression {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl std::str::FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = [Self::None, Self::Lz4, Self::Zstd];
        let found = known.into_iter().find(|known| known.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| Error::unknown("compression", text, known.map(Self::name)))
    }
}

/// The settings of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The schema of unqualified names.
    pub schema: String,
    /// The time zone, `None` for UTC.
    pub time_zone: Option<String>,
    /// The purpose of the session's reads.
    pub purpose: Option<String>,
    /// Whether results may carry Arrow's view types.
    pub string_views: bool,
    /// The only active role, `None` for all that are held.
    pub role: Option<String>,
    /// How a Flight SQL server compresses results.
    pub compression: Compression,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            schema: MAIN.into(),
            time_zone: None,
            purpose: None,
            string_views: false,
            role: None,
            compression: Compression::None,
        }
    }
}

impl Settings {
    /// A setting's value.
    pub fn get(&self, name: &str) -> Option<String> {
        match name.to_lowercase().as_str() {
            "catalog" => Some(CATALOG.into()),
            "schema" => Some(self.schema.clone()),
            "time_zone" | "timezone" => Some(self.time_zone.clone().unwrap_or("+00:00".into())),
            "purpose" => self.purpose.clone(),
            "string_views" => Some(self.string_views.to_string()),
            "role" => self.role.clone(),
            "compression" => Some(self.compression.name().into()),
            _ => None,
        }
    }

    /// Gives a setting its value of a new session back.
    ///
    /// # Errors
    /// When the setting does not exist.
    pub fn reset(&mut self, name: &str) -> Result<()> {
        let fresh = Self::default();
        match name.to_lowercase().as_str() {
            "catalog" => {}
            "schema" | "search_path" => self.schema = fresh.schema,
            "time_zone" | "timezone" => self.time_zone = fresh.time_zone,
            "purpose" => self.purpose = fresh.purpose,
            "string_views" => self.string_views = fresh.string_views,
            "role" => self.role = fresh.role,
            "compression" => self.compression = fresh.compression,
            other => {
                return Err(Error::unknown("setting", other, SETTINGS.map(|(name, _)| name)));
            }
        }
        Ok(())
    }

    /// Changes a setting; `schemas` are those that exist, `rights` know the roles.
    ///
    /// # Errors
    /// When the setting does not exist or does not take the value.
    pub(crate) fn set(
        &mut self,
        name: &str,
        value: &str,
        schemas: &[String],
        rights: &Rights,
    ) -> Result<()> {
        match name.to_lowercase().as_str() {
            "catalog" if value == CATALOG => Ok(()),
            "catalog" => Err(Error::invalid_hint(
                format!("catalog {value} does not exist"),
                format!("the one catalog is {CATALOG}"),
            )),
            "schema" | "search_path" => {
                if !schemas.iter().any(|schema| schema == value) {
                    let known = schemas.iter().map(String::as_str);
                    return Err(Error::unknown("schema", value, known));
                }
                self.schema = value.into();
                Ok(())
            }
            "time_zone" | "timezone" if value.is_empty() => {
                self.time_zone = None;
                Ok(())
            }
            "time_zone" | "timezone" => {
                value.parse::<arrow::array::timezone::Tz>().map_err(|_| {
                    Error::invalid_hint(
                        format!("{value} is no time zone"),
                        "write an offset such as +02:00, or UTC",
                    )
                })?;
                self.time_zone = Some(value.into());
                Ok(())
            }
            "purpose" => {
                self.purpose = (!value.is_empty()).then(|| value.into());
                Ok(())
            }
            "role" => {
                rights.check_role(value)?;
                self.role = (!value.is_empty()).then(|| value.into());
                Ok(())
            }
            "string_views" => {
                self.string_views = value.parse().map_err(|_| {
                    Error::invalid_hint(format!("{value} is no truth value"), "write true or false")
                })?;
                Ok(())
            }
            "compression" => {
                self.compression = value.parse()?;
                Ok(())
            }
            other => {
                let near = nearest(other, SETTINGS.iter().map(|(name, _)| *name));
                let hint = match near {
                    Some(near) => format!("did you mean {near}?"),
                    None => "SHOW ALL lists the settings".into(),
                };
                Err(Error::invalid_hint(format!("setting {other} does not exist"), hint))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_take_only_what_they_mean() {
        let schemas = vec!["main".to_owned(), "lake".to_owned()];
        let mut settings = Settings::default();
        let rights = &Rights::default();
        settings.set("schema", "lake", &schemas, rights).unwrap();
        assert_eq!(settings.get("SCHEMA").as_deref(), Some("lake"));
        settings.set("time_zone", "+02:00", &schemas, rights).unwrap();
        for (name, value) in [
            ("schema", "nowhere"),
            ("time_zone", "the moon"),
            ("datafusion.runtime.memory_limit", "1G"),
            ("string_views", "perhaps"),
            ("role", "admin"),
            ("compression", "rar"),
        ] {
            assert!(settings.set(name, value, &schemas, rights).is_err(), "{name}");
        }
        settings.set("compression", "LZ4", &schemas, rights).unwrap();
        assert_eq!(settings.compression, Compression::Lz4);
        for (name, _) in SETTINGS {
            settings.reset(name).unwrap();
        }
        assert_eq!(settings, Settings::default());
    }
}
