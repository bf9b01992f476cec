//! Keys made in SQL: documents of the warehouse, their secrets wrapped under a master key.
//!
//! A key's document says its id, its generations and who made them; it holds no secret. The secret
//! of each generation is an object of its own below `_attune/key_secrets`, wrapped
//! under a master key that the configuration gives. So a retired generation is gone when its object
//! is, however many states of the document a store keeps. A bucket that keeps old versions of
//! objects keeps wrapped secrets too: there the master key is what must not last.
//!
//! What a generation sealed opens as long as the document lists it and its object is there. A
//! secret is unwrapped once a server and kept in memory while some document lists it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use udfs::privacy::{Key, KeyRing, MasterKey};

use crate::Catalog;
use crate::error::{Error, Result};
use crate::policy::Securable;
use crate::registry::{CreateMode, Head, ObjectName, Spec};
use crate::store::{Place, Secret};

/// The place of keys in their registry; no SQL name reaches it.
const KEY: &str = "key";
/// The newest format of a wrapped secret that this version reads and writes.
const FORMAT: u32 = 1;
/// Characters of a key's name.
const NAME_CHARS_MAX: usize = 64;
/// Generations of a key, retired ones included.
const GENERATIONS_MAX: usize = 1_000;
/// Generations that open: each is tried on no value that does not name it, but is held in memory.
const OPEN_GENERATIONS_MAX: usize = 32;

/// What is kept of a key beside its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Its own id; with the generation's number it is the id in front of what is made with it.
    pub id: String,
    /// Every generation that ever was, in order of their numbers.
    pub generations: Vec<Generation>,
}

/// A generation of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number, from 1.
    pub number: u32,
    /// When it was made, in Unix milliseconds.
    pub created_ms: i64,
    /// Who made it.
    pub created_by: String,
    /// The id of the master key that its secret is wrapped under.
    pub master: String,
    /// The name of the object with its wrapped secret.
    pub secret: String,
    /// When it was retired, in Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_ms: Option<i64>,
}

impl KeyRecord {
    /// The generations that open, the newest first.
    pub fn open(&self) -> impl Iterator<Item = &Generation> {
        self.generations.iter().rev().filter(|generation| generation.retired_ms.is_none())
    }

    /// The id of one of the generations.
    pub fn generation_id(&self, number: u32) -> String {
        format!("{}-{number}", self.id)
    }
}

/// A wrapped secret as it is stored.
#[derive(Serialize, Deserialize)]
struct WrappedSecret {
    format: u32,
    master: String,
    wrapped: String,
}

/// The master keys, and the secrets that were unwrapped.
pub(crate) struct Keyring {
    /// The first wraps, each opens.
    masters: Vec<MasterKey>,
    /// Generations by the key's name and their id.
    opened: Mutex<BTreeMap<(String, String), Arc<Key>>>,
}

impl Keyring {
    /// The keyring of these master keys, the first of which wraps new secrets.
    ///
    /// # Errors
    /// When a master key is too short; no error shows one.
    pub(crate) fn new(masters: &[Secret]) -> Result<Self> {
        let masters = masters.iter().map(|secret| MasterKey::new(secret.reveal().as_bytes()));
        let masters: Result<Vec<_>, _> = masters.collect();
        let masters = masters.map_err(|error| Error::invalid(error.message().into_owned()))?;
        Ok(Self { masters, opened: Mutex::default() })
    }

    fn wrapping(&self) -> Result<&MasterKey> {
        self.masters.first().ok_or_else(|| {
            Error::invalid_hint(
                "the warehouse keeps keys under a master key, and none is configured",
                "give one by [keyring] master_key_file or ATTUNE_KEYRING_MASTER_KEY; make it with \
                 openssl rand -hex 32, and keep a copy: without it the keys are lost",
            )
        })
    }
}

/// 256 bits that nobody can guess, out of the operating system's randomness.
fn random_bytes() -> [u8; 32] {
    let mut digest = Sha256::new();
    // Each brings 122 random bits.
    for _ in 0..3 {
        digest.update(uuid::Uuid::new_v4().as_bytes());
    }
    digest.finalize().into()
}

/// Eight hexadecimal digits that nobody has chosen.
fn random_digits() -> String {
    random_bytes().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

impl Catalog {
    /// A seed for the generator of one statement: 256 random bits.
    pub fn new_seed(&self) -> [u8; 32] {
        random_bytes()
    }

    /// The stored keys by name, at most a second old.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub(crate) async fn stored_keys(&self) -> Result<BTreeMap<String, KeyRecord>> {
        let known = self.keyring_heads.definitions().await?;
        let keys = known.iter().filter_map(|((_, name), found)| match &found.spec {
            Spec::Key(record) => Some((name.clone(), record.clone())),
            _ => None,
        });
        Ok(keys.collect())
    }

    /// Whether the warehouse has a key of that name, as far as was known a second ago.
    ///
    /// # Errors
    /// When the warehouse cannot be reached.
    pub(crate) async fn has_stored_key(&self, name: &str) -> Result<bool> {
        Ok(self.keyring_heads.known(&ObjectName::new(KEY, name)).await?.is_some())
    }

    /// A stored key with its generations, or with one of them alone.
    ///
    /// # Errors
    /// When the generation does not open any more, or a secret cannot be read or unwrapped.
    pub(crate) async fn stored_key(
        &self,
        name: &str,
        generation: Option<u32>,
    ) -> Result<Option<KeyRing>> {
        let place = ObjectName::new(KEY, name);
        if place.check().is_err() {
            return Ok(None);
        }
        let found = self.keyring_heads.find(&place).await?;
        let Some(Spec::Key(record)) = found.map(|found| found.spec) else { return Ok(None) };
        let ring = self.ring(name, &record, generation).await;
        let Err(Error::Corrupt { .. }) = &ring else { return ring.map(Some) };
        // A secret that was wrapped anew within the last second is elsewhere.
        match self.keyring_heads.read(&place).await?.map(|found| found.spec) {
            Some(Spec::Key(now)) if now != record => {
                self.ring(name, &now, generation).await.map(Some)
            }
            _ => ring.map(Some),
        }
    }

    async fn ring(
        &self,
        name: &str,
        record: &KeyRecord,
        generation: Option<u32>,
    ) -> Result<KeyRing> {
        let mut keys = Vec::new();
        for open in record.open().filter(|open| generation.is_none_or(|n| n == open.number)) {
            keys.push(self.unwrapped(name, &record.generation_id(open.number), open).await?);
        }
        let mut keys = keys.into_iter();
        match (keys.next(), generation) {
            (Some(newest), _) => Ok(KeyRing::new(newest, keys.collect())),
            (None, Some(number)) => Err(no_generation(name, number, record)),
            (None, None) => {
                Err(Error::Corrupt { what: format!("key {name}"), reason: "it is empty".into() })
            }
        }
    }

    /// A generation, unwrapped.
    async fn unwrapped(&self, name: &str, id: &str, of: &Generation) -> Result<Arc<Key>> {
        let entry = (name.to_owned(), id.to_owned());
        if let Some(known) = self.keyring.opened.lock().get(&entry) {
            return Ok(Arc::clone(known));
        }
        let mut secret = self.secret(name, id, of).await?;
        let key = Key::with_id(name, id, &secret);
        secret.fill(0);
        std::hint::black_box(&secret);
        let key = Arc::new(key.map_err(|error| corrupt(name, id, &error.message()))?);
        let listed = self.stored_keys().await?;
        let mut opened = self.keyring.opened.lock();
        // What was retired or dropped elsewhere is forgotten here too.
        opened.retain(|(name, id), _| {
            let record = listed.get(name);
            record.is_some_and(|r| r.open().any(|open| r.generation_id(open.number) == *id))
        });
        opened.insert(entry, Arc::clone(&key));
        Ok(key)
    }

    /// The secret of a generation, which the caller overwrites.
    async fn secret(&self, name: &str, id: &str, of: &Generation) -> Result<Vec<u8>> {
        let corrupt = |reason| corrupt(name, id, reason);
        let Some(content) = self.secret_place(&of.secret).read_if_exists().await? else {
            return Err(corrupt("it is not in the warehouse any more"));
        };
        let stored: WrappedSecret = serde_json::from_slice(&content)
            .map_err(|_| corrupt("its object is no wrapped secret"))?;
        if stored.format > FORMAT {
            return Err(corrupt("it was written by a newer version"));
        }
        let mut masters = self.keyring.masters.iter();
        let Some(master) = masters.find(|master| master.id() == stored.master) else {
            return Err(Error::invalid_hint(
                format!(
                    "key {name} is kept under the master key {}, which is not configured",
                    stored.master
                ),
                "add that master key to [keyring] master_key_file, on a line of its own",
            ));
        };
        let secret = master.open(name, id, &stored.wrapped);
        secret.ok_or_else(|| corrupt("it was changed, or copied from another key"))
    }

    /// Wraps a secret under the first master key into an object that no document lists yet; the
    /// ids of the master key and of the object.
    async fn store_secret(&self, name: &str, id: &str, secret: &[u8]) -> Result<(String, String)> {
        let master = self.keyring.wrapping()?;
        let wrapped = master.wrap(name, id, secret);
        let wrapped = wrapped.map_err(|error| Error::invalid(error.message().into_owned()))?;
        let stored = WrappedSecret { format: FORMAT, master: master.id().to_owned(), wrapped };
        // Two who make the same generation at once make two objects; the document names one.
        let file = format!("{id}-{}", random_digits());
        let place = self.secret_place(&file);
        let content = serde_json::to_vec(&stored).map_err(|error| Error::Corrupt {
            what: place.url.to_string(),
            reason: error.to_string(),
        })?;
        match place.create(content).await? {
            true => Ok((stored.master, file)),
            false => Err(Error::Conflict { name: format!("key {name}") }),
        }
    }

    fn secret_place(&self, secret: &str) -> Place {
        self.warehouse.place().child(&format!("_attune/key_secrets/{secret}.json"))
    }

    /// A new generation, whose secret is stored already and which no document lists yet.
    async fn new_generation(
        &self,
        name: &str,
        record: &KeyRecord,
        number: u32,
        by: &str,
    ) -> Result<Generation> {
        let mut secret = random_bytes();
        let stored = self.store_secret(name, &record.generation_id(number), &secret).await;
        secret.fill(0);
        std::hint::black_box(&secret);
        let (master, secret) = stored?;
        let (created_ms, created_by) = (self.now_ms(), by.to_owned());
        Ok(Generation { number, created_ms, created_by, master, secret, retired_ms: None })
    }

    /// Removes secrets that no document lists.
    async fn take_back(&self, secrets: &[String]) {
        for secret in secrets {
            if let Err(error) = self.secret_place(secret).remove().await {
                tracing::warn!(%error, object = secret, "a secret that no key lists stays, wrapped");
            }
        }
    }

    /// Makes a key with its first generation; `false` when it exists and `if_not_exists` is set.
    ///
    /// # Errors
    /// `AlreadyExists`, also when the configuration has a key of that name; `Invalid` without a
    /// master key; `Conflict` when somebody else made it at the same time.
    pub async fn create_key(&self, name: &str, by: &str, if_not_exists: bool) -> Result<bool> {
        check_name(name)?;
        self.writable().await?;
        let place = ObjectName::new(KEY, name);
        let exists = || Error::AlreadyExists { kind: "key", name: name.to_owned() };
        let is_there =
            self.keys.get(name).is_some() || self.keyring_heads.read(&place).await?.is_some();
        match (is_there, if_not_exists) {
            (true, true) => return Ok(false),
            (true, false) => return Err(exists()),
            (false, _) => {}
        }
        // A key that the configuration had under this name may have left grants.
        self.forget_grants(&Securable::Key(name.to_owned())).await?;
        let mut record = KeyRecord { id: random_digits(), generations: Vec::new() };
        let first = self.new_generation(name, &record, 1, by).await?;
        let secret = first.secret.clone();
        record.generations.push(first);
        let made = self.keyring_heads.create(&place, Spec::Key(record), by, CreateMode::New).await;
        // A write whose answer got lost may have happened: then the secret is needed.
        if made.as_ref().is_err_and(|error| error.is_lost_race()) {
            self.take_back(&[secret]).await;
        }
        match made {
            Err(Error::AlreadyExists { .. }) if if_not_exists => Ok(false),
            Err(Error::AlreadyExists { .. }) => Err(exists()),
            other => other,
        }
    }

    /// Gives a key a new generation; its number.
    ///
    /// # Errors
    /// When there is no such stored key, no master key, or too many generations; `Conflict` when
    /// somebody else changed the key at the same time.
    pub async fn rotate_key(&self, name: &str, by: &str) -> Result<u32> {
        let (head, owner, mut record) = self.key_to_change(name).await?;
        let many = record.generations.len() >= GENERATIONS_MAX;
        if many || record.open().count() >= OPEN_GENERATIONS_MAX {
            return Err(Error::invalid_hint(
                format!("key {name} has too many generations"),
                format!("retire those that nothing needs: ALTER KEY {name} RETIRE GENERATION n"),
            ));
        }
        let last = record.generations.last().map_or(0, |generation| generation.number);
        let number = last.saturating_add(1);
        let made = self.new_generation(name, &record, number, by).await?;
        let secret = made.secret.clone();
        record.generations.push(made);
        let put = self.put_key(name, record, &owner, &head).await;
        if put.as_ref().is_err_and(|error| error.is_lost_race()) {
            self.take_back(&[secret]).await;
        }
        put.map(|()| number)
    }

    /// Retires a generation: what it sealed opens never again. Of one that is retired already the
    /// secret is removed once more.
    ///
    /// # Errors
    /// When there is no such stored key or generation, it is the newest, or somebody else changed
    /// the key at the same time.
    pub async fn retire_generation(&self, name: &str, number: u32) -> Result<()> {
        let (head, owner, mut record) = self.key_to_change(name).await?;
        if record.generations.last().is_some_and(|newest| newest.number == number) {
            return Err(Error::invalid_hint(
                format!("generation {number} is the newest of key {name}"),
                format!("ALTER KEY {name} ROTATE first, or DROP KEY {name}"),
            ));
        }
        let mut generations = record.generations.iter_mut();
        let Some(known) = generations.find(|known| known.number == number) else {
            return Err(no_generation(name, number, &record));
        };
        let secret = known.secret.clone();
        if known.retired_ms.is_none() {
            known.retired_ms = Some(self.now_ms());
            self.put_key(name, record.clone(), &owner, &head).await?;
        }
        let id = record.generation_id(number);
        self.keyring.opened.lock().remove(&(name.to_owned(), id));
        self.secret_place(&secret).remove().await
    }

    /// Wraps the secrets of a key under the first master key, where they are under another one; how
    /// many those were. What was made with the key is as it was.
    ///
    /// # Errors
    /// When there is no such stored key, or one of its master keys is not configured; `Conflict`
    /// when somebody else changed the key at the same time; when what is under the old master key
    /// cannot be removed.
    pub async fn rewrap_key(&self, name: &str) -> Result<usize> {
        let (head, owner, mut record) = self.key_to_change(name).await?;
        let first = self.keyring.wrapping()?.id();
        let named = KeyRecord { id: record.id.clone(), generations: Vec::new() };
        let (mut made, mut left) = (Vec::new(), Vec::new());
        let open = record.generations.iter_mut().filter(|known| known.retired_ms.is_none());
        for known in open.filter(|known| known.master != first) {
            match self.wrapped_anew(name, &named.generation_id(known.number), known).await {
                Ok((master, secret)) => {
                    made.push(secret.clone());
                    left.push(std::mem::replace(&mut known.secret, secret));
                    known.master = master;
                }
                Err(error) => {
                    self.take_back(&made).await;
                    return Err(error);
                }
            }
        }
        if made.is_empty() {
            return Ok(0);
        }
        let put = self.put_key(name, record, &owner, &head).await;
        // A write whose answer got lost may have happened: then the secrets are needed.
        if put.as_ref().is_err_and(Error::is_lost_race) {
            self.take_back(&made).await;
        }
        put?;
        for secret in &left {
            self.secret_place(secret).remove().await?;
        }
        Ok(made.len())
    }

    async fn wrapped_anew(
        &self,
        name: &str,
        id: &str,
        of: &Generation,
    ) -> Result<(String, String)> {
        let mut secret = self.secret(name, id, of).await?;
        let stored = self.store_secret(name, id, &secret).await;
        secret.fill(0);
        std::hint::black_box(&secret);
        stored
    }

    /// Drops a stored key with its grants and secrets; `false` when there is none.
    ///
    /// # Errors
    /// When the key is the configuration's, the warehouse cannot be written, or somebody else
    /// changed the key at the same time.
    pub async fn drop_key(&self, name: &str) -> Result<bool> {
        self.writable().await?;
        if self.keys.get(name).is_some() {
            return Err(configured(name));
        }
        let place = ObjectName::new(KEY, name);
        if place.check().is_err() {
            return Ok(false);
        }
        let Some(head) = self.keyring_heads.head(&place).await? else { return Ok(false) };
        if matches!(&head.document, Ok(document) if document.spec.is_none()) {
            return Ok(false);
        }
        self.forget_grants(&Securable::Key(name.to_owned())).await?;
        // Secrets go first: what is told to be gone is gone. The document of a key that lost them
        // can be dropped again; a document that cannot be read lists none.
        if let Ok(document) = &head.document
            && let Some(Spec::Key(record)) = &document.spec
        {
            for generation in &record.generations {
                self.secret_place(&generation.secret).remove().await?;
            }
        }
        self.keyring.opened.lock().retain(|(of, _), _| of != name);
        // Of the very state whose secrets went: a generation made meanwhile would outlive it.
        self.keyring_heads.put(&place, None, "", Some(&head)).await.map(|_| true)
    }

    /// A stored key's document as the store has it now, its owner and what it says.
    async fn key_to_change(&self, name: &str) -> Result<(Head, String, KeyRecord)> {
        self.writable().await?;
        if self.keys.get(name).is_some() {
            return Err(configured(name));
        }
        if let Some(head) = self.keyring_heads.head(&ObjectName::new(KEY, name)).await? {
            let document = head.document.clone()?;
            if let Some(Spec::Key(record)) = &document.spec {
                return Ok((head, document.owner.clone(), record.clone()));
            }
        }
        let keys = self.stored_keys().await?;
        Err(Error::not_found("key", name, keys.keys().map(String::as_str)))
    }

    async fn put_key(&self, name: &str, record: KeyRecord, owner: &str, seen: &Head) -> Result<()> {
        let (place, spec) = (ObjectName::new(KEY, name), Some(Spec::Key(record)));
        self.keyring_heads.put(&place, spec, owner, Some(seen)).await.map(|_| ())
    }
}

/// A name that `'name@2'` can be told from, and that needs no quotes where it is shown.
fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(allowed) {
        return Err(Error::invalid_hint(
            format!("{name:?} cannot be a key's name"),
            format!("use at most {NAME_CHARS_MAX} letters, digits, _ and -"),
        ));
    }
    Ok(())
}

fn corrupt(name: &str, id: &str, reason: &str) -> Error {
    Error::Corrupt {
        what: format!("the secret of key {name}, generation {id},"),
        reason: reason.to_owned(),
    }
}

/// The error for a generation that does not open.
fn no_generation(name: &str, number: u32, record: &KeyRecord) -> Error {
    let open: Vec<String> = record.open().map(|open| open.number.to_string()).collect();
    Error::invalid_hint(
        format!("key {name} has no generation {number} that opens"),
        format!("it has {}; DESCRIBE KEY {name} shows all", open.join(", ")),
    )
}

fn configured(name: &str) -> Error {
    Error::invalid_hint(
        format!("key {name} is of the configuration, which SQL does not change"),
        format!(
            "it rotates where its secrets are kept: give [keys.{name}] the new one, and the old \
             one last in previous_files or previous_envs; it retires the oldest without it and \
             with first_generation one higher"
        ),
    )
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
