//! Named keys: what `pseudonymize`, `encrypt`, `fpe_encrypt` and their like compute under.
//!
//! From the secret (at least 16 bytes, given by the key store, never by SQL text) come one sub-key
//! a use, HMAC-SHA-256(secret, label): a pseudonym says nothing about a ciphertext under the
//! same key, and the secret itself is not kept. The key id, part of every pseudonym, is either
//! given or the first eight hexadecimal digits of HMAC-SHA-256(secret, "attune/key-id/v1");
//! it tells two generations of a key apart and confirms a guess of the secret no better than a
//! pseudonym does, which is why a secret must be random and not a password.
//!
//! A key that was rotated is a [`KeyRing`]: what is made is made with its newest generation, what
//! says its generation is opened with that one. A statement's [`KeySet`] says of each key what it
//! may be used for, and a function finds the keys of its own use alone: however a call spells the
//! name, it gets no further than the rights that were checked.
//!
//! Sub-keys are overwritten when dropped, as far as safe Rust can: copies that a cipher makes for
//! the length of one batch are not reached.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion_common::{Result, exec_err, internal_err, plan_err};
use datafusion_expr::{ReturnFieldArgs, ScalarFunctionArgs};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::arguments;
use super::random::Random;

/// The least length of a secret, in bytes.
pub const SECRET_BYTES_MIN: usize = 16;

/// The greatest length of a key id, in characters.
pub const KEY_ID_CHARACTERS_MAX: usize = 32;

const LABEL_ID: &[u8] = b"attune/key-id/v1";
const LABEL_PSEUDONYM: &[u8] = b"attune/pseudonymize/v1";
const LABEL_BLOOM: &[u8] = b"attune/bloom/v1";
const LABEL_CIPHER: &[u8] = b"attune/ff1-aes256/v1";
const LABEL_RANDOMIZED: &[u8] = b"attune/aes256-siv/randomized/v1";
const LABEL_DETERMINISTIC: &[u8] = b"attune/aes256-siv/deterministic/v1";
const LABEL_DATA_KEY: &[u8] = b"attune/aes256-siv/data-key/v1";
const LABEL_CONSENT: &[u8] = b"attune/aes256-siv/consent/v1";

/// Secret bytes that overwrite themselves.
pub(super) struct SubKey<const N: usize = 32>(pub(super) [u8; N]);

impl<const N: usize> Drop for SubKey<N> {
    fn drop(&mut self) {
        self.0.fill(0);
        // Without a reader the compiler may drop the write; `unsafe` volatile writes are forbidden.
        std::hint::black_box(&self.0);
    }
}

/// What a key is used for. One use never implies another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyUse {
    /// Tokens that nothing turns back: `pseudonymize`, `bloom_encode`.
    Pseudonymize,
    /// Values that can be turned back, by others perhaps: `encrypt`, `fpe_encrypt`, `rekey`, …
    Encrypt,
    /// Turning them back: `decrypt`, `fpe_decrypt`, `decrypt_with`.
    Decrypt,
}

/// Functions that take a key: the place of its name among the arguments, and what it is used for.
const FUNCTIONS: [(&str, usize, KeyUse); 13] = [
    ("pseudonymize", 1, KeyUse::Pseudonymize),
    ("bloom_encode", 1, KeyUse::Pseudonymize),
    ("fpe_encrypt", 1, KeyUse::Encrypt),
    ("fpe_decrypt", 1, KeyUse::Decrypt),
    ("encrypt", 1, KeyUse::Encrypt),
    ("encrypt_deterministic", 1, KeyUse::Encrypt),
    ("decrypt", 1, KeyUse::Decrypt),
    // Neither the value nor a key leaves it.
    ("rekey", 1, KeyUse::Encrypt),
    ("new_data_key", 0, KeyUse::Encrypt),
    ("encrypt_with", 2, KeyUse::Encrypt),
    ("decrypt_with", 2, KeyUse::Decrypt),
    ("consent_seal", 1, KeyUse::Encrypt),
    ("consent_open", 1, KeyUse::Decrypt),
];

/// The place of the argument of a function that names a key, and what the key is used for.
pub fn key_use(function: &str) -> Option<(usize, KeyUse)> {
    let found = FUNCTIONS.iter().find(|(name, ..)| *name == function);
    found.map(|(_, position, key_use)| (*position, *key_use))
}

/// How a value is sealed; each has a key of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Mode {
    /// Under a nonce: equal values differ.
    Randomized,
    /// Without: equal values are equal.
    Deterministic,
    /// A data key, which seals values itself.
    DataKey,
    /// A consent token, under a nonce.
    Consent,
}

/// A named key. It shows, compares and hashes by name and id, never by its secret.
pub struct Key {
    name: String,
    id: String,
    pseudonym: SubKey,
    bloom: SubKey,
    cipher: SubKey,
    randomized: SubKey<64>,
    deterministic: SubKey<64>,
    data_key: SubKey<64>,
    consent: SubKey<64>,
}

impl Key {
    /// A key whose id is derived from its secret.
    ///
    /// The caller overwrites its own copy of `secret`.
    ///
    /// # Errors
    /// When the name is empty or the secret is shorter than [`SECRET_BYTES_MIN`].
    pub fn new(name: &str, secret: &[u8]) -> Result<Self> {
        let digest = hmac(secret, LABEL_ID)?;
        let id = digest.0.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>();
        Self::with_id(name, &id, secret)
    }

    /// A key with an id of the owner's choice, such as `k1`.
    ///
    /// # Errors
    /// As [`Key::new`], and when the id is empty, longer than [`KEY_ID_CHARACTERS_MAX`] or holds
    /// anything but ASCII letters, digits, `-` and `_`.
    pub fn with_id(name: &str, id: &str, secret: &[u8]) -> Result<Self> {
        if name.is_empty() {
            return exec_err!("a key needs a name");
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if id.is_empty() || id.len() > KEY_ID_CHARACTERS_MAX || !id.chars().all(allowed) {
            return exec_err!(
                "the id of key '{name}' must be 1 to {KEY_ID_CHARACTERS_MAX} ASCII letters, \
                 digits, '-' or '_'"
            );
        }
        if secret.len() < SECRET_BYTES_MIN {
            return exec_err!(
                "the secret of key '{name}' has {} bytes, at least {SECRET_BYTES_MIN} random \
                 bytes are needed",
                secret.len()
            );
        }
        Ok(Self {
            name: name.to_string(),
            id: id.to_string(),
            pseudonym: hmac(secret, LABEL_PSEUDONYM)?,
            bloom: hmac(secret, LABEL_BLOOM)?,
            cipher: hmac(secret, LABEL_CIPHER)?,
            randomized: siv_key(secret, LABEL_RANDOMIZED)?,
            deterministic: siv_key(secret, LABEL_DETERMINISTIC)?,
            data_key: siv_key(secret, LABEL_DATA_KEY)?,
            consent: siv_key(secret, LABEL_CONSENT)?,
        })
    }

    /// The name by which statements call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id in each pseudonym made with it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The prepared MAC for pseudonyms: clone it, update it with one value, finalize.
    pub(super) fn pseudonym_mac(&self) -> Result<Hmac<Sha256>> {
        new_mac(&self.pseudonym.0)
    }

    /// The prepared MAC for the pairs of letters of `bloom_encode`.
    pub(super) fn bloom_mac(&self) -> Result<Hmac<Sha256>> {
        new_mac(&self.bloom.0)
    }

    /// The 256-bit AES key for FF1.
    pub(super) fn cipher_key(&self) -> &[u8; 32] {
        &self.cipher.0
    }

    /// The key of AES-256-SIV for values sealed in a mode.
    pub(super) fn siv_key(&self, mode: Mode) -> &[u8; 64] {
        match mode {
            Mode::Randomized => &self.randomized.0,
            Mode::Deterministic => &self.deterministic.0,
            Mode::DataKey => &self.data_key.0,
            Mode::Consent => &self.consent.0,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({self})")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.name, self.id)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.id == other.id
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.id.hash(state);
    }
}

/// A key with its generations. It shows and compares by name and ids, as a [`Key`] does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyRing {
    newest: Arc<Key>,
    older: Vec<Arc<Key>>,
}

impl KeyRing {
    /// A key whose `newest` generation seals, and whose `older` ones still open.
    pub fn new(newest: Arc<Key>, older: Vec<Arc<Key>>) -> Self {
        Self { newest, older }
    }

    /// The generation that seals.
    pub fn newest(&self) -> &Arc<Key> {
        &self.newest
    }

    /// Every generation, the newest first.
    pub fn generations(&self) -> impl Iterator<Item = &Arc<Key>> {
        std::iter::once(&self.newest).chain(&self.older)
    }
}

impl From<Arc<Key>> for KeyRing {
    fn from(key: Arc<Key>) -> Self {
        Self::new(key, Vec::new())
    }
}

/// A key that a statement may use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UsableKey {
    /// The key.
    pub ring: KeyRing,
    /// What for.
    pub uses: BTreeSet<KeyUse>,
}

/// The keys that one statement may use, by the names it calls them, the source of its nonces, and
/// its time.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct KeySet {
    keys: BTreeMap<String, UsableKey>,
    random: Option<Random>,
    at_ms: Option<i64>,
}

impl KeySet {
    /// A set of keys by the names that statements call them, with where its functions take nonces
    /// and data keys from.
    pub fn new(keys: BTreeMap<String, UsableKey>, random: Option<Random>) -> Self {
        Self { keys, random, at_ms: None }
    }

    /// The same for a statement of this time, in Unix milliseconds.
    pub fn at(self, at_ms: i64) -> Self {
        Self { at_ms: Some(at_ms), ..self }
    }

    /// The key of a name, where it may be used so.
    pub fn get(&self, name: &str, key_use: KeyUse) -> Option<&KeyRing> {
        let found = self.keys.get(name).filter(|key| key.uses.contains(&key_use));
        found.map(|key| &key.ring)
    }

    /// The source of nonces and data keys.
    pub(super) fn random(&self) -> Option<&Random> {
        self.random.as_ref()
    }
}

/// The newest generation of the key that a call names, as a literal, while it is planned.
///
/// # Errors
/// When it is no literal, or no key that was bound for this use.
pub(super) fn planned<'a>(
    function: &'static str,
    keys: Option<&'a Arc<KeySet>>,
    args: &ReturnFieldArgs,
) -> Result<&'a Arc<Key>> {
    let (position, key_use) = argument(function)?;
    let name = arguments::literal_text(function, args, position, "key")?;
    Ok(find(function, keys, name, key_use)?.newest())
}

/// The same while the call is computed.
///
/// # Errors
/// As [`planned`].
pub(super) fn called<'a>(
    function: &'static str,
    keys: Option<&'a Arc<KeySet>>,
    args: &ScalarFunctionArgs,
) -> Result<&'a Arc<Key>> {
    Ok(ring(function, keys, args)?.newest())
}

/// The key with all its generations while the call is computed.
///
/// # Errors
/// As [`planned`].
pub(super) fn ring<'a>(
    function: &'static str,
    keys: Option<&'a Arc<KeySet>>,
    args: &ScalarFunctionArgs,
) -> Result<&'a KeyRing> {
    let (position, key_use) = argument(function)?;
    let name = arguments::text_argument(function, args, position)?;
    find(function, keys, arguments::constant_text(function, &name, "key")?, key_use)
}

/// The generator that is bound with the keys.
///
/// # Errors
/// When none is.
pub(super) fn random<'a>(function: &str, keys: Option<&'a Arc<KeySet>>) -> Result<&'a Random> {
    match keys.and_then(|keys| keys.random()) {
        Some(random) => Ok(random),
        None => plan_err!(
            "{function} has no random numbers bound to it: it can only be used in a statement \
             that the session plans"
        ),
    }
}

/// The statement's time, in Unix milliseconds, that is bound with the keys.
///
/// # Errors
/// When none is.
pub(super) fn time_ms(function: &str, keys: Option<&Arc<KeySet>>) -> Result<i64> {
    match keys.and_then(|keys| keys.at_ms) {
        Some(at_ms) => Ok(at_ms),
        None => plan_err!(
            "{function} has no time bound to it: it can only be used in a statement that the \
             session plans"
        ),
    }
}

fn argument(function: &str) -> Result<(usize, KeyUse)> {
    match key_use(function) {
        Some(found) => Ok(found),
        None => internal_err!("{function} takes no key"),
    }
}

/// The key that `function` names, out of what was bound.
///
/// # Errors
/// When nothing was bound or the key is not among what was.
fn find<'a>(
    function: &str,
    keys: Option<&'a Arc<KeySet>>,
    name: &str,
    key_use: KeyUse,
) -> Result<&'a KeyRing> {
    let Some(keys) = keys else {
        return plan_err!(
            "{function} has no key bound to it: it can only be used in a statement that the \
             session plans, which loads the key by its name"
        );
    };
    match keys.get(name, key_use) {
        Some(key) => Ok(key),
        None => plan_err!(
            "{function}: unknown key '{name}'. Hint: name a key that exists and that you may use, \
             in single quotes; keys come from the server's key store, never from SQL text"
        ),
    }
}

fn new_mac(key: &[u8]) -> Result<Hmac<Sha256>> {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => Ok(mac),
        Err(_) => exec_err!("the key cannot be used with HMAC-SHA-256"),
    }
}

pub(super) fn hmac(key: &[u8], message: &[u8]) -> Result<SubKey> {
    let mut mac = new_mac(key)?;
    mac.update(message);
    Ok(SubKey(mac.finalize().into_bytes().into()))
}

/// A key of AES-256-SIV, which is two of AES-256: one for the MAC, one for the cipher.
pub(super) fn siv_key(secret: &[u8], label: &[u8]) -> Result<SubKey<64>> {
    let mut key = SubKey([0; 64]);
    for (half, part) in key.0.chunks_exact_mut(32).zip(["/mac", "/cipher"]) {
        half.copy_from_slice(&hmac(secret, &[label, part.as_bytes()].concat())?.0);
    }
    Ok(key)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The keys that the SQL tests use too.
    pub(crate) fn demo_keys() -> Arc<KeySet> {
        let demo = Key::new("demo", &[b'a'; 32]).unwrap();
        let other = Key::new("other", &[b'b'; 32]).unwrap();
        Arc::new(set([Arc::new(demo).into(), Arc::new(other).into()]))
    }

    /// The time of the statements of tests: 2023-11-14.
    pub(crate) const AT_MS: i64 = 1_700_000_000_000;

    /// Keys for every use, by their own names, with a generator that starts at `b"seed"`.
    pub(crate) fn set(rings: impl IntoIterator<Item = KeyRing>) -> KeySet {
        let uses = BTreeSet::from([KeyUse::Pseudonymize, KeyUse::Encrypt, KeyUse::Decrypt]);
        let named = rings.into_iter().map(|ring| {
            let name = ring.newest().name().to_owned();
            (name, UsableKey { ring, uses: uses.clone() })
        });
        KeySet::new(named.collect(), Some(Random::seeded(b"seed").unwrap())).at(AT_MS)
    }

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let digest = hmac(b"Jefe", b"what do ya want for nothing?").unwrap();
        let text: String = digest.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let digest = hmac(&[0x0b; 20], b"Hi There").unwrap();
        let text: String = digest.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }

    #[test]
    fn nothing_shown_holds_the_secret() {
        let key = Key::new("demo", b"correct horse battery staple").unwrap();
        let set = set([Arc::new(Key::new("demo", &[b'a'; 32]).unwrap()).into()]);
        assert_eq!(key.to_string(), format!("demo@{}", key.id()));
        assert_eq!(format!("{key:?}"), format!("Key(demo@{})", key.id()));
        let shown = format!("{key:?} {key} {set:?} {set:#?}");
        for secret in ["horse", "aaaa", "97, 97", "616161"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(key.id().len(), 8);
    }

    #[test]
    fn uses_have_keys_of_their_own() {
        let key = Key::new("demo", &[b'a'; 32]).unwrap();
        assert_ne!(key.pseudonym.0, key.cipher.0);
        assert_ne!(key.cipher.0, [b'a'; 32]);
        let modes = [Mode::Randomized, Mode::Deterministic, Mode::DataKey, Mode::Consent];
        let keys: BTreeSet<[u8; 64]> = modes.into_iter().map(|mode| *key.siv_key(mode)).collect();
        assert_eq!(keys.len(), modes.len());
        for half in keys.iter().flat_map(|key| key.chunks_exact(32)) {
            assert!(half != key.cipher.0 && half != key.pseudonym.0);
        }
    }

    #[test]
    fn a_key_is_found_for_the_uses_that_were_bound_alone() {
        let ring = KeyRing::from(Arc::new(Key::new("demo", &[b'a'; 32]).unwrap()));
        let uses = BTreeSet::from([KeyUse::Encrypt]);
        let keys = BTreeMap::from([("demo".to_owned(), UsableKey { ring, uses })]);
        let keys = Arc::new(KeySet::new(keys, None));
        assert!(find("encrypt", Some(&keys), "demo", KeyUse::Encrypt).is_ok());
        for (name, key_use) in [("demo", KeyUse::Decrypt), ("other", KeyUse::Encrypt)] {
            let error = find("decrypt", Some(&keys), name, key_use).unwrap_err();
            assert!(error.to_string().contains("unknown key"), "{error}");
        }
    }

    #[test]
    fn keys_compare_by_name_and_id() {
        let demo = Key::new("demo", &[b'a'; 32]).unwrap();
        assert_eq!(demo, Key::new("demo", &[b'a'; 32]).unwrap());
        assert_ne!(demo, Key::new("demo", &[b'b'; 32]).unwrap());
        assert_ne!(demo, Key::new("other", &[b'a'; 32]).unwrap());
    }

    #[test]
    fn weak_or_nameless_keys_are_refused() {
        let error = Key::new("demo", b"fifteen bytes!!").unwrap_err().to_string();
        assert!(error.contains("15 bytes") && !error.contains("fifteen"), "{error}");
        assert!(Key::new("", &[0; 32]).is_err());
        for id in ["", "a.b", "k 1", "é", &"k".repeat(33)] {
            assert!(Key::with_id("demo", id, &[0; 32]).is_err(), "{id}");
        }
        assert_eq!(Key::with_id("demo", "k1", &[0; 16]).unwrap().id(), "k1");
    }
}
