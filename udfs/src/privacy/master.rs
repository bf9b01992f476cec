//! Master keys: what the secrets of stored keys are wrapped under.
//!
//! A secret is wrapped by AES-256-SIV without a nonce (RFC 5297, which was made for it), under a
//! key derived from the master key. The associated data are the name of the stored key and the id
//! of its generation: a wrapped secret that is copied to another place does not open there. Who
//! holds the warehouse alone reads no secret, and who holds the master key alone has nothing to
//! open.

use std::fmt;

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use datafusion_common::{Result, exec_err};

use super::key::{SubKey, hmac, siv_key};

/// The least length of a master key, in bytes.
pub const MASTER_BYTES_MIN: usize = 32;

const LABEL_ID: &[u8] = b"attune/master-key-id/v1";
const LABEL_WRAP: &[u8] = b"attune/master-key/wrap/v1";
const WRAPPED: &[u8] = b"attune/wrapped-key/v1";

/// A master key. It shows its id, never its secret.
pub struct MasterKey {
    id: String,
    wrapping: SubKey<64>,
}

impl MasterKey {
    /// A master key from a secret. The caller overwrites its own copy.
    ///
    /// # Errors
    /// When the secret is shorter than [`MASTER_BYTES_MIN`].
    pub fn new(secret: &[u8]) -> Result<Self> {
        if secret.len() < MASTER_BYTES_MIN {
            return exec_err!(
                "a master key has {} bytes, at least {MASTER_BYTES_MIN} random bytes are needed",
                secret.len()
            );
        }
        let digest = hmac(secret, LABEL_ID)?;
        let id = digest.0.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { id, wrapping: siv_key(secret, LABEL_WRAP)? })
    }

    /// The id by which wrapped secrets name their master key.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A secret as it is stored.
    ///
    /// # Errors
    /// When the cipher refuses it, which it does not.
    pub fn wrap(&self, name: &str, id: &str, secret: &[u8]) -> Result<String> {
        match self.cipher().encrypt([WRAPPED, name.as_bytes(), id.as_bytes()], secret) {
            Ok(wrapped) => Ok(URL_SAFE_NO_PAD.encode(wrapped)),
            Err(_) => exec_err!("the secret of key '{name}' cannot be wrapped"),
        }
    }

    /// The secret of a stored key; `None` when this master key did not wrap it, it is another
    /// key's, or it was changed.
    pub fn open(&self, name: &str, id: &str, wrapped: &str) -> Option<Vec<u8>> {
        let wrapped = URL_SAFE_NO_PAD.decode(wrapped).ok()?;
        self.cipher().decrypt([WRAPPED, name.as_bytes(), id.as_bytes()], &wrapped).ok()
    }

    fn cipher(&self) -> Aes256Siv {
        Aes256Siv::new(&self.wrapping.0.into())
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MasterKey({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_secret_opens_under_its_master_in_its_place() {
        let master = MasterKey::new(&[b'm'; 32]).unwrap();
        let wrapped = master.wrap("emails", "3fa1b2c4-1", b"the secret").unwrap();
        assert_eq!(master.open("emails", "3fa1b2c4-1", &wrapped).unwrap(), b"the secret");
        let other = MasterKey::new(&[b'n'; 32]).unwrap();
        assert_ne!(other.id(), master.id());
        assert!(other.open("emails", "3fa1b2c4-1", &wrapped).is_none());
        for (name, id) in [("phones", "3fa1b2c4-1"), ("emails", "3fa1b2c4-2"), ("", "")] {
            assert!(master.open(name, id, &wrapped).is_none(), "{name} {id}");
        }
        for changed in ["", "*", "AAAA", &wrapped[1..]] {
            assert!(master.open("emails", "3fa1b2c4-1", changed).is_none(), "{changed}");
        }
    }

    #[test]
    fn a_master_key_is_long_and_not_shown() {
        assert!(MasterKey::new(&[0; 31]).is_err());
        let shown = format!("{:?}", MasterKey::new(b"correct horse battery staple....").unwrap());
        assert!(!shown.contains("horse") && shown.starts_with("MasterKey("), "{shown}");
    }
}
