//! Named keys, from the configuration. A key is known by its name and id; its secret is neither
//! kept nor shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use udfs::privacy::Key;

use crate::Catalog;
use crate::config::KeyConfig;
use crate::error::{Error, Result};

/// The configured keys by name.
#[derive(Debug, Default)]
pub struct Keys(BTreeMap<String, Arc<Key>>);

impl Keys {
    /// Makes the keys.
    ///
    /// # Errors
    /// When two keys have one name, an id is no id, or a secret is too short. No error shows a
    /// secret.
    pub fn new(configured: &[KeyConfig]) -> Result<Self> {
        let mut keys = BTreeMap::new();
        for config in configured {
            let secret = config.secret.reveal().as_bytes();
            let key = match &config.id {
                Some(id) => Key::with_id(&config.name, id, secret),
                None => Key::new(&config.name, secret),
            };
            let key = key.map_err(|error| Error::invalid(error.message().into_owned()))?;
            if keys.insert(config.name.clone(), Arc::new(key)).is_some() {
                return Err(Error::invalid(format!("two keys are named {}", config.name)));
            }
        }
        Ok(Self(keys))
    }

    /// The key of that name.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name.
    pub fn get(&self, name: &str) -> Result<Arc<Key>> {
        let names = self.0.keys().map(String::as_str);
        self.0.get(name).cloned().ok_or_else(|| Error::not_found("key", name, names))
    }
}

impl Catalog {
    /// The configured key of that name.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name; never a secret.
    pub fn key(&self, name: &str) -> Result<Arc<Key>> {
        self.keys.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    fn key(name: &str, secret: &str) -> KeyConfig {
        KeyConfig { name: name.into(), id: None, secret: Secret::new(secret) }
    }

    #[test]
    fn keys_are_found_by_name_and_show_nothing() {
        let secret = "correct horse battery staple";
        let configured = [key("emails", secret), key("phones", "another secret of enough length")];
        let keys = Keys::new(&configured).unwrap();
        assert_eq!(keys.get("emails").unwrap().name(), "emails");
        let missing = keys.get("email").unwrap_err();
        assert_eq!(missing.hint().unwrap(), "did you mean emails?");
        let short = Keys::new(&[key("k", "hunter2")]).unwrap_err();
        for shown in [format!("{keys:?}"), format!("{configured:?}"), format!("{short} {short:?}")]
        {
            assert!(!shown.contains(secret) && !shown.contains("hunter2"), "{shown}");
        }
        assert!(short.to_string().contains('k'), "{short}");
        let twice = [key("k", secret), key("k", secret)];
        assert!(Keys::new(&twice).unwrap_err().to_string().contains("two keys"));
    }
}
