//! What a statement's functions get of keys: each key that it names, for the uses it makes of it.
//!
//! The right to a use is checked before the key is loaded, and goes with the key: a function of
//! another use does not find it, however a call spells the name. `'name@2'` is the second
//! generation alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use catalog::Error as CatalogError;
use catalog::policy::Privilege;
use udfs::privacy::{KeySet, KeyUse, Random, UsableKey};

use crate::error::{Error, Result};
use crate::key::{missing, seen};
use crate::session::StatementContext;

/// The keys that a statement names, as written, and what it uses each for.
pub(crate) type NamedKeys = BTreeMap<String, BTreeSet<KeyUse>>;

/// A use that a statement makes of a key, for the record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsedKey {
    /// The key's name.
    pub name: String,
    /// The id of the newest generation that is used.
    pub id: String,
    /// What for.
    pub key_use: KeyUse,
}

impl fmt::Display for UsedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let privilege = Privilege::from(self.key_use);
        write!(formatter, "{}@{} for {privilege}", self.name, self.id)
    }
}

/// Checks that a principal's own statement may use keys as it does. What a policy computes for
/// somebody needs no right of theirs.
///
/// # Errors
/// When a right is missing; whether the key exists makes no difference to who knows of none.
pub(crate) fn check(context: &StatementContext, named: &NamedKeys) -> Result<()> {
    for (written, uses) in named {
        let (name, _) = parts(written)?;
        for key_use in uses {
            context.rights().may_use_key(name, *key_use)?;
        }
    }
    Ok(())
}

/// Loads keys, each for the uses that are made of it.
///
/// # Errors
/// When a key does not exist or its secret cannot be read.
pub(crate) async fn load(context: &Arc<StatementContext>, named: &NamedKeys) -> Result<KeySet> {
    if named.is_empty() {
        return Ok(KeySet::default());
    }
    let catalog = context.engine().catalog();
    let mut keys = BTreeMap::new();
    for (written, uses) in named {
        let (name, generation) = parts(written)?;
        let ring = match catalog.key_ring(name, generation).await {
            Err(CatalogError::NotFound { .. }) => {
                return Err(missing(name, &seen(context).await?));
            }
            other => other?,
        };
        for key_use in uses {
            let (name, id) = (name.to_owned(), ring.newest().id().to_owned());
            context.uses_key(UsedKey { name, id, key_use: *key_use });
        }
        keys.insert(written.clone(), UsableKey { ring, uses: uses.clone() });
    }
    let random = Random::seeded(&catalog.new_seed())?;
    Ok(KeySet::new(keys, Some(random)).at(catalog.now_ms()))
}

/// `name` or `name@generation`, taken apart.
///
/// # Errors
/// When it is neither, or empty.
pub(crate) fn parts(written: &str) -> Result<(&str, Option<u32>)> {
    let name = written.rsplit_once('@').map_or(written, |(name, _)| name);
    if name.trim().is_empty() {
        return Err(Error::invalid_hint(
            "the name of a key is empty",
            "name a key in single quotes; SHOW KEYS lists them",
        ));
    }
    let Some((name, number)) = written.rsplit_once('@') else { return Ok((written, None)) };
    match number.parse() {
        Ok(number) => Ok((name, Some(number))),
        Err(_) => Err(Error::invalid_hint(
            format!("'{written}' is no name of a key"),
            "write 'name', or 'name@2' for its second generation",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_tell_a_generation() {
        assert_eq!(parts("emails").unwrap(), ("emails", None));
        assert_eq!(parts("emails@12").unwrap(), ("emails", Some(12)));
        for wrong in
            ["", " ", "@2", "emails@", "emails@x", "ada@example.com", "k@-1", "k@99999999999"]
        {
            assert_eq!(parts(wrong).unwrap_err().code(), "ATT-2001", "{wrong}");
        }
    }
}
