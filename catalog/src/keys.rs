//! Named keys: those of the configuration, and those made in SQL ([`crate::keyring`]). A key is
//! known by its name and its generations' ids; its secret is neither kept nor shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use udfs::privacy::{Key, KeyRing};

use crate::Catalog;
use crate::config::KeyConfig;
use crate::error::{Error, Result};
use crate::keyring::Generation;
use crate::store::Secret;

/// The configured keys by name.
#[derive(Debug, Default)]
pub struct Keys(BTreeMap<String, ConfiguredKey>);

/// A configured key: its generations with their numbers, the newest first.
#[derive(Debug)]
pub struct ConfiguredKey(Vec<(u32, Arc<Key>)>);

impl ConfiguredKey {
    /// Makes the generations of a key.
    ///
    /// # Errors
    /// When an id is no id or stands twice, or a secret is too short. No error shows a secret.
    fn new(config: &KeyConfig) -> Result<Self> {
        let made = |id: Option<&String>, secret: &Secret| {
            let secret = secret.reveal().as_bytes();
            let key = match id {
                Some(id) => Key::with_id(&config.name, id, secret),
                None => Key::new(&config.name, secret),
            };
            key.map(Arc::new).map_err(|error| Error::invalid(error.message().into_owned()))
        };
        let previous = config.previous.iter().map(|one| made(one.id.as_ref(), &one.secret));
        let newest = made(config.id.as_ref(), &config.secret);
        let generations: Vec<Arc<Key>> = previous.chain([newest]).collect::<Result<_>>()?;
        let ids: BTreeSet<&str> = generations.iter().map(|key| key.id()).collect();
        if ids.len() < generations.len() {
            return Err(Error::invalid_hint(
                format!("two secrets of key {} have one id", config.name),
                "give each secret once; where ids are given, one of its own to each",
            ));
        }
        let numbered = generations.into_iter().enumerate().map(|(at, key)| {
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            (config.first_generation.saturating_add(at), key)
        });
        let mut numbered: Vec<_> = numbered.collect();
        numbered.reverse();
        Ok(Self(numbered))
    }

    /// The generations, or one of them alone.
    fn ring(&self, generation: Option<u32>) -> Option<KeyRing> {
        let chosen = self.0.iter().filter(|(number, _)| generation.is_none_or(|n| n == *number));
        let mut keys = chosen.map(|(_, key)| Arc::clone(key));
        let newest = keys.next()?;
        Some(KeyRing::new(newest, keys.collect()))
    }
}

impl Keys {
    /// Makes the keys.
    ///
    /// # Errors
    /// When two keys have one name, an id is no id or stands twice in a key, or a secret is too
    /// short. No error shows a secret.
    pub fn new(configured: &[KeyConfig]) -> Result<Self> {
        let mut keys = BTreeMap::new();
        for config in configured {
            if keys.insert(config.name.clone(), ConfiguredKey::new(config)?).is_some() {
                return Err(Error::invalid(format!("two keys are named {}", config.name)));
            }
        }
        Ok(Self(keys))
    }

    /// The configured key of that name.
    pub fn get(&self, name: &str) -> Option<&ConfiguredKey> {
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
    number: u32,
    /// What the warehouse knows of it; nothing of a key of the configuration.
    pub stored: Option<Generation>,
}

impl GenerationInfo {
    /// Its number, from 1.
    pub fn number(&self) -> u32 {
        self.number
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
        key.ring(generation).ok_or_else(|| {
            let numbers: Vec<String> = key.0.iter().map(|(number, _)| number.to_string()).collect();
            Error::invalid_hint(
                format!("key {name} has no generation {}", generation.unwrap_or_default()),
                format!("[keys.{name}] of the configuration has {}", numbers.join(", ")),
            )
        })
    }

    /// Every key by name: those of the configuration, and the readable ones of the warehouse.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub async fn keys(&self) -> Result<Vec<KeyInfo>> {
        let configured = self.keys.0.iter().map(|(name, key)| KeyInfo {
            name: name.clone(),
            generations: key
                .0
                .iter()
                .map(|(number, key)| GenerationInfo {
                    id: key.id().to_owned(),
                    number: *number,
                    stored: None,
                })
                .collect(),
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
                    number: generation.number,
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
    use crate::PreviousSecret;

    fn key(name: &str, secret: &str) -> KeyConfig {
        KeyConfig::new(name, None, Secret::new(secret))
    }

    #[test]
    fn keys_are_found_by_name_and_show_nothing() {
        let secret = "correct horse battery staple";
        let configured = [key("emails", secret), key("phones", "another secret of enough length")];
        let keys = Keys::new(&configured).unwrap();
        let emails = keys.get("emails").unwrap().ring(None).unwrap();
        assert_eq!(emails.newest().name(), "emails");
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

    #[test]
    fn secrets_of_before_are_older_generations_by_their_order() {
        let before = |id: Option<&str>, letter: &str| PreviousSecret {
            id: id.map(str::to_owned),
            secret: Secret::new(letter.repeat(20)),
        };
        let mut config = key("web", "the secret of today, long enough");
        config.previous = vec![before(Some("k1"), "a"), before(None, "b")];
        config.first_generation = 3;
        let made = ConfiguredKey::new(&config).unwrap();
        let numbers: Vec<u32> = made.0.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [5, 4, 3]);
        let alone = |number| made.ring(Some(number)).map(|ring| ring.newest().id().to_owned());
        assert_eq!(alone(3).as_deref(), Some("k1"));
        assert_eq!((alone(1), alone(6)), (None, None));
        let all = made.ring(None).unwrap();
        assert_eq!(all.newest().id(), alone(5).unwrap());
        assert_eq!(all.generations().count(), 3);
        config.previous.push(before(Some("k1"), "c"));
        let error = ConfiguredKey::new(&config).unwrap_err();
        assert!(error.to_string().contains("two secrets of key web have one id"), "{error}");
    }
}
