//! Named keys: those of the configuration, and those made in SQL ([`crate::keyring`]). A key is
//! known by its name and its generations' ids; its secret is neither kept nor shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use udfs::privacy::{Key, KeyRing};

use crate::Catalog;
use crate::config::KeyConfig;
use crate::error::{Error, Result};
use crate::keyring::Generation;

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

    /// The configured key of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Key>> {
        self.0.get(name)
    }
}

/// A key as it is listed: no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its name.
    pub name: String,
    /// Its generations, the newest first.
    pub generations: Vec<GenerationInfo>,
}

/// A generation of a key as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationInfo {
    /// The id in front of what it made.
    pub id: String,
    /// What the warehouse knows of it; nothing of a key of the configuration, which has one.
    pub stored: Option<Generation>,
}

impl GenerationInfo {
    /// Its number, from 1.
    pub fn number(&self) -> u32 {
        self.stored.as_ref().map_or(1, |stored| stored.number)
    }
}

impl Catalog {
    /// The key of that name with the generations that open, or with one of them alone.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` when the generation does not open, the master key is missing, or both
    /// the configuration and the warehouse have such a key; never with a secret.
    pub async fn key_ring(&self, name: &str, generation: Option<u32>) -> Result<KeyRing> {
        let Some(key) = self.keys.get(name) else {
            let stored = self.stored_key(name, generation).await?;
            return stored.ok_or_else(|| Error::not_found("key", name, []));
        };
        // Were one of them taken, tokens of the other would silently stop to join.
        if self.has_stored_key(name).await? {
            return Err(Error::invalid_hint(
                format!("both the configuration and the warehouse have a key {name}"),
                "give the key of the configuration another name",
            ));
        }
        match generation {
            None | Some(1) => Ok(Arc::clone(key).into()),
            Some(number) => Err(Error::invalid_hint(
                format!("key {name} has no generation {number}"),
                "a key of the configuration has one generation",
            )),
        }
    }

    /// Every key by name: those of the configuration, and the readable ones of the warehouse.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn keys(&self) -> Result<Vec<KeyInfo>> {
        let configured = self.keys.0.iter().map(|(name, key)| KeyInfo {
            name: name.clone(),
            generations: vec![GenerationInfo { id: key.id().to_owned(), stored: None }],
        });
        let stored = self.stored_keys().await?;
        let stored = stored.iter().map(|(name, record)| KeyInfo {
            name: name.clone(),
            generations: record
                .generations
                .iter()
                .rev()
                .map(|generation| GenerationInfo {
                    id: record.generation_id(generation.number),
                    stored: Some(generation.clone()),
                })
                .collect(),
        });
        let mut keys: Vec<KeyInfo> = configured.chain(stored).collect();
        keys.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(keys)
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
        assert!(keys.get("email").is_none());
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
