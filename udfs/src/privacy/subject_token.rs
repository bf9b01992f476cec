//! Keyed tokens in place of persons' ids: what stays on record of somebody who is not there any
//! more.
//!
//! token(subject, id) = the first 16 bytes of HMAC-SHA-256(K, subject ‖ 0 ‖ id) (RFC 2104), with K
//! made of a secret under a label. Who does not hold the secret can neither turn a token back nor
//! try guesses of an id. An id is the text of its value; NULL is nobody's.

use std::collections::{HashMap, HashSet};
use std::fmt;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion_common::{Result, exec_err};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::key::SECRET_BYTES_MIN;

const LABEL_TOKEN: &[u8] = b"attune/subject-token/v1";

/// Bytes of a token: no two of 2⁴⁸ ids meet by chance.
pub const TOKEN_BYTES: usize = 16;

/// A person's id, as whoever holds the key knows it.
pub type Token = [u8; TOKEN_BYTES];

/// The key of tokens; it shows nothing.
#[derive(Clone)]
pub struct SubjectTokens {
    token: Hmac<Sha256>,
}

impl fmt::Debug for SubjectTokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SubjectTokens(…)")
    }
}

impl SubjectTokens {
    /// The key made of a secret.
    ///
    /// # Errors
    /// When the secret is shorter than [`SECRET_BYTES_MIN`].
    pub fn new(secret: &[u8]) -> Result<Self> {
        if secret.len() < SECRET_BYTES_MIN {
            return exec_err!("a secret of tokens has at least {SECRET_BYTES_MIN} bytes");
        }
        Ok(Self { token: under(secret, LABEL_TOKEN)? })
    }

    /// The token of an id of a subject.
    pub fn token(&self, subject: &str, id: &str) -> Token {
        finished(self.of(subject), id)
    }

    /// Which ids of a column (text or integers) have one of the tokens; a NULL has none.
    ///
    /// # Errors
    /// When the column cannot be read as text.
    pub fn find(
        &self,
        subject: &str,
        ids: &ArrayRef,
        tokens: &HashSet<Token>,
    ) -> Result<BooleanArray> {
        let texts = cast(ids, &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        let start = self.of(subject);
        // A person's rows lie together more often than not, and a hash costs more than a look-up.
        let mut known: HashMap<&str, bool> = HashMap::new();
        let found = texts.iter().map(|id| {
            let id = id?;
            let is_there =
                known.entry(id).or_insert_with(|| tokens.contains(&finished(start.clone(), id)));
            Some(*is_there)
        });
        Ok(found.map(|found| Some(found.unwrap_or(false))).collect())
    }

    fn of(&self, subject: &str) -> Hmac<Sha256> {
        let mut mac = self.token.clone();
        mac.update(subject.as_bytes());
        mac.update(&[0]);
        mac
    }
}

fn under(secret: &[u8], label: &[u8]) -> Result<Hmac<Sha256>> {
    let derived = new_mac(secret)?.chain_update(label).finalize().into_bytes();
    new_mac(derived.as_slice())
}

fn new_mac(key: &[u8]) -> Result<Hmac<Sha256>> {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mac) => Ok(mac),
        Err(_) => exec_err!("the key cannot be used with HMAC-SHA-256"),
    }
}

fn finished(mut mac: Hmac<Sha256>, id: &str) -> Token {
    mac.update(id.as_bytes());
    let digest = mac.finalize().into_bytes();
    let mut token = [0; TOKEN_BYTES];
    token.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    token
}

/// Bytes as lower-case hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The token that hexadecimal digits write; `None` when they write none.
pub fn parse_token(digits: &str) -> Option<Token> {
    if digits.len() != 2 * TOKEN_BYTES || !digits.is_ascii() {
        return None;
    }
    let mut token = [0; TOKEN_BYTES];
    for (byte, pair) in token.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(token)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int64Array, StringArray, StringViewArray};
    use arrow::datatypes::Int32Type;
    use proptest::prelude::*;

    use super::*;

    fn tokens() -> SubjectTokens {
        SubjectTokens::new(&[b'a'; 32]).unwrap()
    }

    #[test]
    fn a_token_is_of_its_subject_id_and_secret() {
        let of = tokens();
        assert_eq!(of.token("person", "7"), tokens().token("person", "7"));
        assert_ne!(of.token("person", "7"), of.token("person", "8"));
        assert_ne!(of.token("person", "7"), of.token("people", "7"));
        assert_ne!(of.token("p", "q7"), of.token("pq", "7"));
        let other = SubjectTokens::new(&[b'b'; 32]).unwrap();
        assert_ne!(of.token("person", "7"), other.token("person", "7"));
        assert!(SubjectTokens::new(b"short").is_err());
        assert_eq!(format!("{of:?}"), "SubjectTokens(…)");
    }

    #[test]
    fn an_id_is_found_in_every_encoding() {
        let of = tokens();
        let wanted = HashSet::from([of.token("person", "7"), of.token("person", "u-1")]);
        let texts = vec![Some("u-1"), None, Some("u-2"), Some("7")];
        let plain: ArrayRef = Arc::new(StringArray::from(texts.clone()));
        let views: ArrayRef = Arc::new(StringViewArray::from(texts.clone()));
        let codes: ArrayRef = Arc::new(texts.into_iter().collect::<DictionaryArray<Int32Type>>());
        let expected = BooleanArray::from(vec![true, false, false, true]);
        for ids in [plain, views, codes] {
            assert_eq!(of.find("person", &ids, &wanted).unwrap(), expected);
        }
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), None, Some(70)]));
        let found = of.find("person", &numbers, &wanted).unwrap();
        assert_eq!(found, BooleanArray::from(vec![true, false, false]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_token_is_read_as_it_is_written(subject: String, id: String) {
            let token = tokens().token(&subject, &id);
            prop_assert_eq!(parse_token(&hexadecimal(&token)), Some(token));
        }
    }
}
