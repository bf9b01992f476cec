//! The few settings of a session. `datafusion.*` settings are closed to users: they would reach
//! memory limits and folders that all sessions share.

use std::time::Duration;

use catalog::error::nearest;

use crate::engine::{CATALOG, Limits, MAIN};
use crate::error::{Error, Result, duration};
use crate::pg::PgSession;
use crate::rights::Rights;

/// Every setting's name, with what it means.
pub const SETTINGS: [(&str, &str); 12] = [
    ("catalog", "the catalog; always attune"),
    ("schema", "where unqualified names are looked up and created first"),
    ("time_zone", "the zone of now() and of timestamps without a zone, such as +02:00"),
    ("purpose", "the purpose that this session's reads serve"),
    ("channel", "the channel that they are for; all channels when it is not set"),
    ("string_views", "whether results may carry Arrow's view types"),
    ("role", "the only role that is active; all of yours when it is not set"),
    ("endpoints", "in how many parts a Flight SQL server may give a large result, 1 to 64"),
    ("compression", "how a Flight SQL server compresses results: none, lz4 or zstd"),
    ("statement_timeout", "how long a statement may run, such as 30 s; a bare number counts ms"),
    ("rows_max", "how many rows a result may have"),
    ("query_memory", "how much memory a statement may take, such as 512 MiB"),
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
        "endpoints" | "rows_max" | "query_memory" => SettingKind::Number,
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
    /// The channel that they are for, `None` for all.
    pub channel: Option<String>,
    /// Whether results may carry Arrow's view types.
    pub string_views: bool,
    /// The only active role, `None` for all that are held.
    pub role: Option<String>,
    /// In how many parts a Flight SQL server may give a large result.
    pub endpoints: usize,
    /// How a Flight SQL server compresses results.
    pub compression: Compression,
    /// A statement's time, within the configuration's.
    pub statement_timeout: Option<Duration>,
    /// A result's rows, within the configuration's.
    pub rows_max: Option<u64>,
    /// A statement's memory in bytes, within the configuration's.
    pub query_memory: Option<u64>,
    /// What a session that speaks PostgreSQL knows besides.
    pub postgres: Option<PgSession>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            schema: MAIN.into(),
            time_zone: None,
            purpose: None,
            channel: None,
            string_views: false,
            role: None,
            endpoints: 1,
            compression: Compression::None,
            statement_timeout: None,
            rows_max: None,
            query_memory: None,
            postgres: None,
        }
    }
}

impl Settings {
    /// The schemas in which a principal's unqualified names are looked up, in order.
    pub fn search_path(&self, principal: &str) -> Vec<String> {
        let mut path = vec![self.schema.clone()];
        for schema in [principal, MAIN, "lake"] {
            if !path.iter().any(|known| known == schema) {
                path.push(schema.to_owned());
            }
        }
        path
    }

    /// A setting's value; a limit that the session does not set is the configuration's.
    pub fn get(&self, name: &str, limits: &Limits) -> Option<String> {
        match name.to_lowercase().as_str() {
            "catalog" => Some(CATALOG.into()),
            "schema" => Some(self.schema.clone()),
            "time_zone" | "timezone" => Some(self.time_zone.clone().unwrap_or("+00:00".into())),
            "purpose" => self.purpose.clone(),
            "channel" => self.channel.clone(),
            "string_views" => Some(self.string_views.to_string()),
            "role" => self.role.clone(),
            "endpoints" => Some(self.endpoints.to_string()),
            "compression" => Some(self.compression.name().into()),
            "statement_timeout" => self.statement_timeout.or(limits.query_timeout).map(duration),
            "rows_max" => self.rows_max.or(limits.rows_max).map(|rows| rows.to_string()),
            "query_memory" => {
                let most = limits.query_memory_bytes as u64;
                Some(self.query_memory.unwrap_or(most).to_string())
            }
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
            "channel" => self.channel = fresh.channel,
            "string_views" => self.string_views = fresh.string_views,
            "role" => self.role = fresh.role,
            "endpoints" => self.endpoints = fresh.endpoints,
            "compression" => self.compression = fresh.compression,
            "statement_timeout" => self.statement_timeout = fresh.statement_timeout,
            "rows_max" => self.rows_max = fresh.rows_max,
            "query_memory" => self.query_memory = fresh.query_memory,
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
        limits: &Limits,
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
                if !value.is_empty() {
                    rights.purposes().check(rights.name(), value)?;
                }
                self.purpose = (!value.is_empty()).then(|| value.into());
                Ok(())
            }
            // Whether it is a channel of theirs is for the policies of what is read to say.
            "channel" if value.len() > CHANNEL_BYTES_MAX => Err(Error::invalid(format!(
                "the name of a channel has at most {CHANNEL_BYTES_MAX} bytes"
            ))),
            "channel" => {
                self.channel = (!value.is_empty()).then(|| value.into());
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
            "endpoints" => {
                let number = value.parse().ok().filter(|number| (1..=64).contains(number));
                self.endpoints = number.ok_or_else(|| {
                    Error::invalid_hint(
                        format!("{value} is no number of endpoints"),
                        "write a number from 1 to 64",
                    )
                })?;
                Ok(())
            }
            "compression" => {
                self.compression = value.parse()?;
                Ok(())
            }
            "statement_timeout" => {
                let most = limits.query_timeout.map(|time| time.as_millis() as u64);
                let set = limit(name, value, &TIME_UNITS, most, |ms| {
                    duration(Duration::from_millis(ms))
                })?;
                self.statement_timeout = set.map(Duration::from_millis);
                Ok(())
            }
            "rows_max" => {
                let shown = |rows: u64| rows.to_string();
                self.rows_max = limit(name, value, &[("", 1)], limits.rows_max, shown)?;
                Ok(())
            }
            "query_memory" => {
                let most = Some(limits.query_memory_bytes as u64);
                let shown = |bytes| format!("{bytes} bytes");
                self.query_memory = limit(name, value, &BYTE_UNITS, most, shown)?;
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

/// Bytes of a channel's name.
const CHANNEL_BYTES_MAX: usize = 128;
/// PostgreSQL's clients send bare milliseconds.
const TIME_UNITS: [(&str, u64); 6] =
    [("", 1), ("ms", 1), ("s", 1_000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000)];
const BYTE_UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
];

/// A limit of the session: a number with a unit, at most `most`. Nothing, `0` and `default` stand
/// for the configuration's own limit.
fn limit(
    name: &str,
    value: &str,
    units: &[(&str, u64)],
    most: Option<u64>,
    shown: impl Fn(u64) -> String,
) -> Result<Option<u64>> {
    let text = value.trim().to_lowercase();
    if matches!(text.as_str(), "" | "0" | "default") {
        return Ok(None);
    }
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = (&text[..split], text[split..].trim());
    let scale = units.iter().find(|(known, _)| *known == unit).map(|(_, scale)| *scale);
    let number = digits.parse::<u64>().ok().zip(scale);
    let Some(number) = number.and_then(|(number, scale)| number.checked_mul(scale)) else {
        let named: Vec<&str> =
            units.iter().map(|(unit, _)| *unit).filter(|unit| !unit.is_empty()).collect();
        let hint = match named.is_empty() {
            true => "write a whole number".to_owned(),
            false => format!("write a whole number and one of {}", named.join(", ")),
        };
        return Err(Error::invalid_hint(format!("{value} is no value of {name}"), hint));
    };
    match most {
        Some(most) if number > most => Err(Error::invalid_hint(
            format!("{name} cannot be more than {}, the server's limit", shown(most)),
            "a session's limits may only be stricter",
        )),
        // The server's own limit is no setting of the session.
        Some(most) if number == most => Ok(None),
        _ => Ok(Some(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_take_only_what_they_mean() {
        let schemas = vec!["main".to_owned(), "lake".to_owned()];
        let mut settings = Settings::default();
        let (rights, limits) = (&Rights::default(), &Limits::default());
        settings.set("schema", "lake", &schemas, rights, limits).unwrap();
        assert_eq!(settings.get("SCHEMA", limits).as_deref(), Some("lake"));
        settings.set("time_zone", "+02:00", &schemas, rights, limits).unwrap();
        for (name, value) in [
            ("schema", "nowhere"),
            ("time_zone", "the moon"),
            ("datafusion.runtime.memory_limit", "1G"),
            ("string_views", "perhaps"),
            ("role", "admin"),
            ("compression", "rar"),
        ] {
            assert!(settings.set(name, value, &schemas, rights, limits).is_err(), "{name}");
        }
        settings.set("compression", "LZ4", &schemas, rights, limits).unwrap();
        assert_eq!(settings.compression, Compression::Lz4);
        settings.set("channel", "email", &schemas, rights, limits).unwrap();
        assert_eq!(settings.get("channel", limits).as_deref(), Some("email"));
        assert!(settings.set("channel", &"c".repeat(129), &schemas, rights, limits).is_err());
        for (name, _) in SETTINGS {
            settings.reset(name).unwrap();
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn a_sessions_limits_are_only_stricter() {
        let limits = Limits {
            query_timeout: Some(Duration::from_secs(30)),
            query_memory_bytes: 1 << 30,
            ..Limits::default()
        };
        let mut settings = Settings::default();
        let mut set = |name: &str, value: &str| {
            settings.set(name, value, &[], &Rights::default(), &limits)?;
            Ok::<_, Error>(settings.get(name, &limits).unwrap_or_default())
        };
        assert_eq!(set("statement_timeout", "5 s").unwrap(), "5 s");
        assert_eq!(set("statement_timeout", "250").unwrap(), "250 ms");
        assert_eq!(set("statement_timeout", "0").unwrap(), "30 s");
        assert_eq!(set("query_memory", "512 MiB").unwrap(), (512 << 20).to_string());
        assert_eq!(set("rows_max", "10").unwrap(), "10");
        assert_eq!(set("rows_max", "").unwrap(), "");
        // What another session was told can be set here, and changes nothing.
        let mut other = Settings::default();
        for (name, _) in SETTINGS {
            if let Some(value) = Settings::default().get(name, &limits) {
                other.set(name, &value, &["main".into()], &Rights::default(), &limits).unwrap();
            }
        }
        other.time_zone = None;
        assert_eq!(other, Settings::default());
        for (name, value) in [
            ("statement_timeout", "31 s"),
            ("statement_timeout", "soon"),
            ("statement_timeout", "-1"),
            ("query_memory", "2 GiB"),
            ("rows_max", "10 rows"),
        ] {
            assert!(set(name, value).is_err(), "{name} {value}");
        }
    }
}
