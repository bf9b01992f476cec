//! The parameters that PostgreSQL's clients set and read.
//!
//! A parameter is accepted where nothing is lost by it: it says what Attune does anyway
//! (`DateStyle = ISO`), or Attune does what it says (`statement_timeout`), or there is nothing that
//! it could change (`lock_timeout`, without locks). Any other value is an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::session::{SETTINGS, Session, Settings};

/// The release whose catalog and protocol clients find.
pub const SERVER_VERSION: &str = "16.6";
const SERVER_VERSION_NUMBER: &str = "160006";

/// What a session that speaks PostgreSQL knows besides its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgSession {
    /// The connection's number, as the client got it for cancelling.
    pub process_id: i32,
    changed: Arc<BTreeMap<&'static str, String>>,
}

impl PgSession {
    /// A new connection's.
    pub fn new(process_id: i32) -> Self {
        Self { process_id, changed: Arc::default() }
    }
}

/// Which values a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// Any text.
    Any,
    /// One of these, in any case.
    Only(&'static [&'static str]),
    /// A list that begins with this, in any case.
    Begins(&'static str),
    /// On or off.
    Flag,
    /// A time, in milliseconds when it has no unit.
    Time,
    /// Nothing: it can be read only.
    Nothing,
    /// What the session's setting of another name takes.
    Setting,
}

const ENCODINGS: &[&str] = &["UTF8", "unicode"];
const ISOLATIONS: &[&str] = &["read committed", "read uncommitted"];

/// Name, default, values; in the order of names, as `SHOW ALL` lists them.
const PARAMETERS: [(&str, &str, Takes); 40] = [
    ("application_name", "", Takes::Any),
    ("backslash_quote", "safe_encoding", Takes::Any),
    ("block_size", "8192", Takes::Nothing),
    ("bytea_output", "hex", Takes::Only(&["hex"])),
    ("client_encoding", "UTF8", Takes::Only(ENCODINGS)),
    ("client_min_messages", "notice", Takes::Any),
    ("DateStyle", "ISO, MDY", Takes::Begins("iso")),
    ("default_table_access_method", "heap", Takes::Nothing),
    ("default_transaction_deferrable", "off", Takes::Flag),
    ("default_transaction_isolation", "read committed", Takes::Only(ISOLATIONS)),
    ("default_transaction_read_only", "off", Takes::Flag),
    ("escape_string_warning", "on", Takes::Flag),
    ("extra_float_digits", "1", Takes::Any),
    ("idle_in_transaction_session_timeout", "0", Takes::Time),
    ("in_hot_standby", "off", Takes::Nothing),
    ("integer_datetimes", "on", Takes::Nothing),
    ("IntervalStyle", "postgres", Takes::Only(&["postgres"])),
    ("is_superuser", "off", Takes::Nothing),
    ("jit", "off", Takes::Flag),
    ("lc_collate", "C", Takes::Nothing),
    ("lc_ctype", "C", Takes::Nothing),
    ("lc_messages", "C", Takes::Any),
    ("lock_timeout", "0", Takes::Time),
    ("max_identifier_length", "63", Takes::Nothing),
    ("max_index_keys", "32", Takes::Nothing),
    ("row_security", "on", Takes::Only(&["on", "true", "1"])),
    ("search_path", "", Takes::Setting),
    ("server_encoding", "UTF8", Takes::Nothing),
    ("server_version", SERVER_VERSION, Takes::Nothing),
    ("server_version_num", SERVER_VERSION_NUMBER, Takes::Nothing),
    ("session_authorization", "", Takes::Nothing),
    ("standard_conforming_strings", "on", Takes::Only(&["on", "true", "1"])),
    ("statement_timeout", "0", Takes::Time),
    ("synchronize_seqscans", "on", Takes::Flag),
    ("TimeZone", "UTC", Takes::Setting),
    ("transaction_deferrable", "off", Takes::Nothing),
    ("transaction_isolation", "read committed", Takes::Only(ISOLATIONS)),
    ("transaction_read_only", "off", Takes::Flag),
    ("wal_level", "replica", Takes::Nothing),
    ("xmloption", "content", Takes::Any),
];

/// Parameters of which a client is told at the start, and when they change.
pub const REPORTED: [&str; 14] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "search_path",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

fn known(name: &str) -> Option<&'static (&'static str, &'static str, Takes)> {
    PARAMETERS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name))
}

/// Whether PostgreSQL has a parameter of this name.
pub fn exists(name: &str) -> bool {
    known(name).is_some()
}

impl Session {
    /// Makes this a session that speaks PostgreSQL: it finds `pg_catalog` and its functions.
    pub fn speak_postgres(&self, process_id: i32) {
        self.change_settings(|settings| settings.postgres = Some(PgSession::new(process_id)));
    }

    /// A parameter's value; `None` when PostgreSQL has none of this name.
    pub fn parameter(&self, name: &str) -> Option<String> {
        known(name).map(|parameter| self.value_of(&self.settings(), parameter))
    }

    /// Every parameter with its value.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let settings = self.settings();
        PARAMETERS.iter().map(|known| (known.0, self.value_of(&settings, known))).collect()
    }

    fn value_of(
        &self,
        settings: &Settings,
        (name, default, _): &(&'static str, &'static str, Takes),
    ) -> String {
        match *name {
            "search_path" => settings.search_path(&self.principal().name).join(", "),
            "TimeZone" => settings.time_zone.clone().unwrap_or_else(|| (*default).to_owned()),
            "session_authorization" => self.principal().name.clone(),
            "statement_timeout" => {
                let limit = settings.statement_timeout.map(|limit| limit.as_millis());
                limit.map_or_else(|| (*default).to_owned(), |limit| format!("{limit}ms"))
            }
            "is_superuser" if self.principal().has(catalog::policy::Role::Admin) => "on".into(),
            name => {
                let changed = settings.postgres.as_ref().and_then(|pg| pg.changed.get(name));
                changed.cloned().unwrap_or_else(|| (*default).to_owned())
            }
        }
    }

    /// Changes a parameter of PostgreSQL or a setting of Attune; `None` gives it its default.
    ///
    /// # Errors
    /// When it does not exist or does not take the value.
    pub async fn set_parameter(&self, name: &str, value: Option<&str>) -> Result<()> {
        let Some((name, default, takes)) = known(name) else {
            return self.set_own(name, value).await;
        };
        match *name {
            "search_path" => return self.set_search_path(value).await,
            "TimeZone" => return self.set_time_zone(value).await,
            "statement_timeout" => return self.set_timeout(value).await,
            _ => {}
        }
        let value = match value {
            Some(value) => accepted(name, *takes, value)?,
            None => (*default).to_owned(),
        };
        self.change_settings(|settings| {
            if let Some(session) = &mut settings.postgres {
                Arc::make_mut(&mut session.changed).insert(name, value);
            }
        });
        Ok(())
    }

    /// Gives every parameter its default, and every setting that PostgreSQL's parameters cover.
    pub fn reset_parameters(&self) {
        self.change_settings(|settings| {
            let process_id = settings.postgres.as_ref().map(|session| session.process_id);
            let (purpose, channel) = (settings.purpose.take(), settings.channel.take());
            *settings = Settings { purpose, channel, ..Settings::default() };
            settings.postgres = process_id.map(PgSession::new);
        });
    }

    async fn set_own(&self, name: &str, value: Option<&str>) -> Result<()> {
        if !SETTINGS.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return Err(Error::invalid_hint(
                format!("parameter {name} does not exist"),
                "SHOW ALL lists PostgreSQL's, SELECT * FROM system.settings lists Attune's",
            ));
        }
        match value {
            Some(value) => self.set(name, value).await,
            None => self.reset(name),
        }
    }

    /// No limit, in PostgreSQL's words, is the configuration's here.
    async fn set_timeout(&self, value: Option<&str>) -> Result<()> {
        let value = value.map(|value| accepted("statement_timeout", Takes::Time, value));
        match value.transpose()?.as_deref().and_then(milliseconds) {
            None | Some(0) => self.reset("statement_timeout"),
            Some(limit) => self.set("statement_timeout", &limit.to_string()).await,
        }
    }

    async fn set_time_zone(&self, value: Option<&str>) -> Result<()> {
        match value {
            None => self.change_settings(|settings| settings.time_zone = None),
            Some(zone)
                if ["utc", "gmt", "etc/utc", "z"].contains(&zone.to_lowercase().as_str()) =>
            {
                self.change_settings(|settings| settings.time_zone = None);
            }
            Some(zone) => self.set("time_zone", zone).await?,
        }
        Ok(())
    }

    /// The first schema of the list that exists becomes the session's; the others are looked up
    /// behind it anyway, or do not exist.
    async fn set_search_path(&self, value: Option<&str>) -> Result<()> {
        let Some(value) = value else {
            self.change_settings(|settings| settings.schema = Settings::default().schema);
            return Ok(());
        };
        let schemas = self.schemas().await?;
        let mut named = value.split(',').map(|name| name.trim().trim_matches('"'));
        let first = named.clone().find(|name| schemas.iter().any(|schema| schema == name));
        match first {
            Some(first) => self.set("schema", first).await,
            // PostgreSQL's default, which drivers set again.
            None if named.clone().all(|name| ["$user", "public", ""].contains(&name)) => Ok(()),
            None => {
                let wanted = named.next_back().unwrap_or_default();
                Err(Error::unknown("schema", wanted, schemas.iter().map(String::as_str)))
            }
        }
    }
}

/// As PostgreSQL compares names of encodings: asyncpg sends `'utf-8'`, quotes and all.
fn alike(one: &str, value: &str) -> bool {
    let letters = |text: &str| text.to_lowercase().replace(|c: char| !c.is_alphanumeric(), "");
    letters(one) == letters(value)
}

fn accepted(name: &str, takes: Takes, value: &str) -> Result<String> {
    let wrong = |hint: String| {
        Err(Error::invalid_hint(format!("parameter {name} does not take '{value}'"), hint))
    };
    match takes {
        Takes::Any | Takes::Setting => Ok(value.to_owned()),
        Takes::Only(values) => match values.iter().any(|one| alike(one, value)) {
            true => Ok(values.first().map_or(value, |_| value).to_owned()),
            false => wrong(format!("it takes {}", values.join(", "))),
        },
        Takes::Begins(start) => match value.to_lowercase().starts_with(start) {
            true => Ok(value.to_owned()),
            false => wrong("dates are written in ISO form".into()),
        },
        Takes::Flag => match value.to_lowercase().as_str() {
            "on" | "true" | "1" | "yes" => Ok("on".into()),
            "off" | "false" | "0" | "no" => Ok("off".into()),
            _ => wrong("it takes on or off".into()),
        },
        Takes::Time => match milliseconds(value) {
            Some(_) => Ok(value.to_owned()),
            None => wrong("it takes a time such as 5000, 5s or 1min; 0 is no limit".into()),
        },
        Takes::Nothing => wrong("it can be read only".into()),
    }
}

/// `5000`, `5s`, `1min`: in milliseconds.
pub fn milliseconds(value: &str) -> Option<u64> {
    let value = value.trim();
    let digits = value.find(|character: char| !character.is_ascii_digit()).unwrap_or(value.len());
    let number: u64 = value.get(..digits)?.parse().ok()?;
    let unit = match value.get(digits..)?.trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_in_order_and_take_only_what_loses_nothing() {
        let names: Vec<String> = PARAMETERS.iter().map(|known| known.0.to_lowercase()).collect();
        assert!(names.is_sorted(), "{names:?}");
        for (name, value, taken) in [
            ("datestyle", "ISO", true),
            ("DateStyle", "German", false),
            ("client_encoding", "utf8", true),
            ("client_encoding", "'utf-8'", true),
            ("client_encoding", "LATIN1", false),
            ("statement_timeout", "5s", true),
            ("statement_timeout", "soon", false),
            ("transaction_isolation", "serializable", false),
            ("server_version", "17", false),
        ] {
            let (_, _, takes) = known(name).unwrap();
            assert_eq!(accepted(name, *takes, value).is_ok(), taken, "{name} = {value}");
        }
        assert!(REPORTED.iter().all(|name| exists(name)));
        assert_eq!(milliseconds("2min"), Some(120_000));
    }
}
