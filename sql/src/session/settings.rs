//! The few settings of a session. `datafusion.*` settings are closed to users: they would reach
//! memory limits and folders that all sessions share.

use catalog::error::nearest;

use crate::engine::{CATALOG, MAIN};
use crate::error::{Error, Result};
use crate::rights::Rights;

/// Every setting's name, with what it means.
pub const SETTINGS: [(&str, &str); 6] = [
    ("catalog", "the catalog; always attune"),
    ("schema", "where unqualified names are looked up and created first"),
    ("time_zone", "the zone of now() and of timestamps without a zone, such as +02:00"),
    ("purpose", "the purpose that this session's reads serve"),
    ("string_views", "whether results may carry Arrow's view types"),
    ("role", "the only role that is active; all of yours when it is not set"),
];

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
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            schema: MAIN.into(),
            time_zone: None,
            purpose: None,
            string_views: false,
            role: None,
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
            _ => None,
        }
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
            other => {
                let near = nearest(other, SETTINGS.iter().map(|(name, _)| *name));
                let hint = match near {
                    Some(near) => format!("did you mean {near}?"),
                    None => "settings: schema, time_zone, purpose, string_views, role".into(),
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
        ] {
            assert!(settings.set(name, value, &schemas, rights).is_err(), "{name}");
        }
    }
}
