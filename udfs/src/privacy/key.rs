//! Named keys: what `pseudonymize`, `fpe_encrypt` and `fpe_decrypt` compute under.
//!
//! From the secret (at least 16 bytes, given by the key store, never by SQL text) come one sub-key
//! a use, HMAC-SHA-256(secret, label): a pseudonym says nothing about a ciphertext under the
//! same key, and the secret itself is not kept. The key id, part of every pseudonym, is either
//! given or the first eight hexadecimal digits of HMAC-SHA-256(secret, "attune/key-id/v1");
//! it tells two generations of a key apart and confirms a guess of the secret no better than a
//! pseudonym does, which is why a secret must be random and not a password.
//!
//! Sub-keys are overwritten when dropped, as far as safe Rust can: copies that a cipher makes for
//! the length of one batch are not reached.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion_common::{Result, exec_err, plan_err};
use datafusion_expr::{ReturnFieldArgs, ScalarFunctionArgs};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::arguments;

/// The least length of a secret, in bytes.
pub const SECRET_BYTES_MIN: usize = 16;

/// The greatest length of a key id, in characters.
pub const KEY_ID_CHARACTERS_MAX: usize = 32;

const LABEL_ID: &[u8] = b"attune/key-id/v1";
const LABEL_PSEUDONYM: &[u8] = b"attune/pseudonymize/v1";
const LABEL_BLOOM: &[u8] = b"attune/bloom/v1";
const LABEL_CIPHER: &[u8] = b"attune/ff1-aes256/v1";

/// Thirty-two secret bytes that overwrite themselves.
struct SubKey([u8; 32]);

impl Drop for SubKey {
    fn drop(&mut self) {
        self.0.fill(0);
        // Without a reader the compiler may drop the write; `unsafe` volatile writes are forbidden.
        std::hint::black_box(&self.0);
    }
}

/// A named key. It shows, compares and hashes by name and id, never by its secret.
pub struct Key {
    name: String,
    id: String,
    pseudonym: SubKey,
    bloom: SubKey,
    cipher: SubKey,
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

/// The keys that one statement may use, by name.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct KeySet(BTreeMap<String, Arc<Key>>);

impl KeySet {
    /// A set of keys; of two with one name the later stands.
    pub fn new(keys: impl IntoIterator<Item = Arc<Key>>) -> Self {
        Self(keys.into_iter().map(|key| (key.name.clone(), key)).collect())
    }

    /// The key of a name.
    pub fn get(&self, name: &str) -> Option<&Arc<Key>> {
        self.0.get(name)
    }
}

/// The key that the second argument of a call names, as a literal, while it is planned.
///
/// # Errors
/// When it is no literal, or no key that was bound.
pub(super) fn planned<'a>(
    function: &'static str,
    keys: Option<&'a Arc<KeySet>>,
    args: &ReturnFieldArgs,
) -> Result<&'a Arc<Key>> {
    find(function, keys, arguments::literal_text(function, args, 1, "key")?)
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
    let name = arguments::text_argument(function, args, 1)?;
    find(function, keys, arguments::constant_text(function, &name, "key")?)
}

/// The key that `function` names, out of what was bound.
///
/// # Errors
/// When nothing was bound or the key is not among what was.
fn find<'a>(function: &str, keys: Option<&'a Arc<KeySet>>, name: &str) -> Result<&'a Arc<Key>> {
    let Some(keys) = keys else {
        return plan_err!(
            "{function} has no key bound to it: it can only be used in a statement that the \
             session plans, which loads the key by its name"
        );
    };
    match keys.get(name) {
        Some(key) => Ok(key),
        None => plan_err!(
            "{function}: unknown key '{name}'. Hint: name a key that exists and that you may use; \
             keys come from the server's key store, never from SQL text"
        ),
    }
}

fn new_mac(key: &[u8]) -> Result<Hmac<Sha256>> {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => Ok(mac),
        Err(_) => exec_err!("the key cannot be used with HMAC-SHA-256"),
    }
}

fn hmac(key: &[u8], message: &[u8]) -> Result<SubKey> {
    let mut mac = new_mac(key)?;
    mac.update(message);
    Ok(SubKey(mac.finalize().into_bytes().into()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The keys that the SQL tests use too.
    pub(crate) fn demo_keys() -> Arc<KeySet> {
        let demo = Key::new("demo", &[b'a'; 32]).unwrap();
        let other = Key::new("other", &[b'b'; 32]).unwrap();
        Arc::new(KeySet::new([Arc::new(demo), Arc::new(other)]))
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
        let set = KeySet::new([Arc::new(Key::new("demo", &[b'a'; 32]).unwrap())]);
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
