//! Signatures over the record and over certificates of erasures, and the secret behind them.
//!
//! Each segment is sealed with Ed25519 (RFC 8032), so that whoever verifies needs public keys
//! alone. The pair is derived from one secret: the configuration's, or else one of the warehouse's,
//! made by whichever server comes first. With the warehouse's own secret, whoever holds the
//! bucket's credentials could sign a chain of its own; with a configured one it could not. Tokens
//! of values ([`ValueTokens`]) are under a second key of the same secret.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::chain::{Seal, from_hex, to_hex};
use super::values::ValueTokens;
use crate::error::{Error, Result};
use crate::store::{Place, Secret};
use crate::tokens::digest;

/// Characters of a secret at least.
const SECRET_CHARS_MIN: usize = 32;
/// The format of documents.
const FORMAT: u32 = 1;
/// The name of the document of the warehouse's own secret.
const SECRET: &str = "secret.json";

/// Signs seals.
pub struct Signer {
    pair: Ed25519KeyPair,
}

impl Signer {
    /// The signer of a secret.
    ///
    /// # Errors
    /// When the secret is too short to be one.
    pub fn new(secret: &Secret) -> Result<Self> {
        let seed = hmac::sign(&root(secret)?, b"attune audit signature 1");
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref())
            .map_err(|error| Error::invalid(format!("no signing key can be made: {error}")))?;
        Ok(Self { pair })
    }

    /// The public key, in hexadecimal digits.
    pub fn public(&self) -> String {
        to_hex(self.pair.public_key().as_ref())
    }

    /// The id of the public key.
    pub fn id(&self) -> String {
        key_id(self.pair.public_key().as_ref())
    }

    /// Signs a seal whose other fields are set.
    ///
    /// # Errors
    /// When the signature cannot be made, which is a defect.
    pub fn seal(&self, mut seal: Seal) -> Result<Seal> {
        seal.key = self.id();
        seal.signature = self.sign(seal.message().as_bytes())?;
        Ok(seal)
    }

    /// The signature of a message, in hexadecimal digits. What a message is about stands at its
    /// beginning, so that none can be taken for one of another kind.
    ///
    /// # Errors
    /// When the signature cannot be made, which is a defect.
    pub fn sign(&self, message: &[u8]) -> Result<String> {
        let signature = self.pair.try_sign(message).map_err(|error| Error::Corrupt {
            what: "the key that signs the record".into(),
            reason: error.to_string(),
        })?;
        Ok(to_hex(signature.as_ref()))
    }
}

/// What makes tokens under a secret.
///
/// # Errors
/// When the secret is too short to be one.
pub fn value_tokens(secret: &Secret) -> Result<ValueTokens> {
    let key = hmac::sign(&root(secret)?, b"attune audit token 2");
    Ok(ValueTokens::under(key.as_ref()))
}

/// What a secret's keys are made of.
fn root(secret: &Secret) -> Result<hmac::Key> {
    let secret = secret.reveal().trim();
    if secret.chars().count() < SECRET_CHARS_MIN {
        return Err(Error::invalid_hint(
            format!("the secret that signs the record has under {SECRET_CHARS_MIN} characters"),
            "make one: openssl rand -hex 32",
        ));
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
}

/// The id of a public key: the first sixteen digits of its hash.
pub fn key_id(public: &[u8]) -> String {
    digest(public).chars().take(16).collect()
}

/// Public keys that are believed, by their id.
#[derive(Debug, Clone, Default)]
pub struct PublicKeys(BTreeMap<String, Vec<u8>>);

impl PublicKeys {
    /// Believes a key, given in hexadecimal digits.
    ///
    /// # Errors
    /// When it is no Ed25519 public key.
    pub fn add(&mut self, public: &str) -> Result<()> {
        let bytes = from_hex(public.trim()).filter(|bytes| bytes.len() == 32);
        let bytes = bytes.ok_or_else(|| {
            Error::invalid_hint(
                "this is no public key of a record",
                "a key is 64 hexadecimal digits, as attune audit verify shows them",
            )
        })?;
        self.0.insert(key_id(&bytes), bytes);
        Ok(())
    }

    /// The keys that the warehouse names.
    ///
    /// # Errors
    /// When the warehouse cannot be reached, or a key's document is damaged.
    pub async fn of(folder: &Place) -> Result<Self> {
        let mut keys = Self::default();
        let folder = folder.child("keys");
        for object in super::read::objects(&folder).await? {
            let Some(name) = object.filename() else { continue };
            let place = folder.child(name);
            let Some(content) = place.read_if_exists().await? else { continue };
            let document: KeyDocument = serde_json::from_slice(&content).map_err(|error| {
                Error::Corrupt { what: place.url.to_string(), reason: error.to_string() }
            })?;
            keys.add(&document.public)?;
        }
        Ok(keys)
    }

    /// The believed keys, in hexadecimal digits.
    pub fn shown(&self) -> Vec<String> {
        self.0.values().map(|bytes| to_hex(bytes)).collect()
    }

    /// Checks a seal's signature.
    ///
    /// # Errors
    /// What is wrong with it, in a part of a sentence.
    pub fn check(&self, seal: &Seal) -> Result<(), String> {
        self.holds(&seal.key, seal.message().as_bytes(), &seal.signature)
    }

    /// Checks the signature of a message by the key of an id.
    ///
    /// # Errors
    /// What is wrong with it, in a part of a sentence.
    pub fn holds(&self, key: &str, message: &[u8], signature: &str) -> Result<(), String> {
        let Some(public) = self.0.get(key) else {
            return Err(format!("it is signed with key {key}, which is not believed"));
        };
        let signature = from_hex(signature).unwrap_or_default();
        UnparsedPublicKey::new(&ED25519, public)
            .verify(message, &signature)
            .map_err(|_| "its signature is not that of its content".to_owned())
    }
}

/// A public key's document.
#[derive(Serialize, Deserialize)]
struct KeyDocument {
    format: u32,
    public: String,
}

/// The document of the warehouse's own secret.
#[derive(Serialize, Deserialize)]
struct SecretDocument {
    format: u32,
    secret: String,
}

fn document(what: &Place, value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| Error::Corrupt { what: what.url.to_string(), reason: error.to_string() })
}

/// The signer of the record below `folder`, by the configured secret or the warehouse's own, which
/// is made when there is none. Its public key is told to those who verify.
///
/// # Errors
/// When the warehouse cannot be read or written, or the secret is none.
pub async fn open(folder: &Place, configured: Option<&Secret>) -> Result<Signer> {
    let secret = match found_secret(folder, configured).await? {
        Some(secret) => secret,
        None => own_secret(folder).await?,
    };
    let signer = Signer::new(&secret)?;
    let place = folder.child("keys").child(&format!("{}.json", signer.id()));
    if place.read_if_exists().await?.is_none() {
        let told = KeyDocument { format: FORMAT, public: signer.public() };
        // Another server that tells the same is as good.
        place.create(document(&place, &told)?).await?;
    }
    Ok(signer)
}

/// The secret of the record below `folder`: the configured one, or the warehouse's own; `None` when
/// it has none yet.
///
/// # Errors
/// When the warehouse cannot be read, or its secret's document is damaged.
pub async fn found_secret(folder: &Place, configured: Option<&Secret>) -> Result<Option<Secret>> {
    if let Some(secret) = configured {
        return Ok(Some(secret.clone()));
    }
    let place = folder.child(SECRET);
    let content = place.read_if_exists().await?;
    content.map(|content| read_secret(&place, &content)).transpose()
}

/// The warehouse's own secret, made unless another server was faster.
///
/// # Errors
/// When the warehouse cannot be read or written, or the secret's document is damaged.
pub async fn own_secret(folder: &Place) -> Result<Secret> {
    let place = folder.child(SECRET);
    let random = || uuid::Uuid::new_v4().simple().to_string();
    let made = SecretDocument { format: FORMAT, secret: format!("{}{}", random(), random()) };
    if !place.create(document(&place, &made)?).await? {
        tracing::debug!("another server made the secret of the record");
    }
    let content = place.read_if_exists().await?;
    let content = content.ok_or_else(|| Error::Conflict { name: "the record's secret".into() })?;
    read_secret(&place, &content)
}

fn read_secret(place: &Place, content: &[u8]) -> Result<Secret> {
    let wrong = |reason: String| Error::Corrupt { what: place.url.to_string(), reason };
    let document: SecretDocument =
        serde_json::from_slice(content).map_err(|error| wrong(error.to_string()))?;
    if document.format != FORMAT {
        return Err(wrong("it is no secret of this version".into()));
    }
    Ok(Secret::new(document.secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ed25519_gives_the_first_vector_of_rfc_8032() {
        let seed =
            from_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        assert_eq!(
            to_hex(pair.public_key().as_ref()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        assert_eq!(
            to_hex(pair.try_sign(b"").unwrap().as_ref()),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555\
             fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        );
    }

    #[test]
    fn a_seal_holds_for_its_content_and_its_key_alone() {
        let signer = Signer::new(&Secret::new("s".repeat(32))).unwrap();
        let mut keys = PublicKeys::default();
        let seal = Seal { segment: 1, sequence: 2, hash: "ab".into(), ..Seal::default() };
        let seal = signer.seal(seal).unwrap();
        assert!(keys.check(&seal).unwrap_err().contains("not believed"));
        keys.add(&signer.public()).unwrap();
        assert_eq!(keys.check(&seal), Ok(()));
        let changed = Seal { sequence: 3, ..seal.clone() };
        assert!(keys.check(&changed).is_err());
        let unsigned = Seal { signature: String::new(), ..seal };
        assert!(keys.check(&unsigned).is_err());
        assert!(Signer::new(&Secret::new("short")).is_err());
    }
}
