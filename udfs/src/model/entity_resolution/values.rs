//! Distinct texts, one behind the other, by code.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::key::fingerprint;
use crate::model::random::mixed;

/// Texts by code.
#[derive(Debug, Clone, Default)]
pub struct Values {
    text: String,
    ends: Vec<usize>,
}

impl Values {
    /// Adds a text.
    pub fn push(&mut self, value: &str) {
        self.text.push_str(value);
        self.ends.push(self.text.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The text of a code; empty when there is none.
    #[inline]
    pub fn get(&self, code: u32) -> &str {
        let at = code as usize;
        let from = if at == 0 { 0 } else { self.ends.get(at - 1).copied().unwrap_or(0) };
        let to = self.ends.get(at).copied().unwrap_or(from);
        self.text.get(from..to).unwrap_or("")
    }

    /// All, in order of code.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len() as u32).map(|code| self.get(code))
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.text.capacity() + 8 * self.ends.capacity()
    }
}

impl<'a> FromIterator<&'a str> for Values {
    fn from_iter<T: IntoIterator<Item = &'a str>>(texts: T) -> Self {
        let mut values = Self::default();
        texts.into_iter().for_each(|text| values.push(text));
        values
    }
}

/// Texts that get a code when they are seen first.
#[derive(Debug, Clone, Default)]
pub struct Distinct {
    /// The texts.
    pub values: Values,
    codes: Mixed<u64, u32>,
}

impl Distinct {
    /// The code of a text.
    pub fn code(&mut self, value: &str) -> u32 {
        let mut hash = fingerprint(value, 0);
        loop {
            match self.codes.get(&hash) {
                Some(&code) if self.values.get(code) == value => return code,
                // Two texts of one hash: the later one moves on.
                Some(_) => hash = mixed(hash),
                None => break,
            }
        }
        let code = self.values.len() as u32;
        self.values.push(value);
        self.codes.insert(hash, code);
        code
    }
}

/// A map by what is a hash already, or a number.
pub type Mixed<K, V> = HashMap<K, V, BuildHasherDefault<AsIs>>;

/// A set of the same.
pub type MixedSet<K> = HashSet<K, BuildHasherDefault<AsIs>>;

/// Hashes of 64 bits are taken as they are, and numbers are mixed: nobody outside chooses them.
#[derive(Debug, Clone, Default)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = mixed(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn write_u128(&mut self, value: u128) {
        self.0 = mixed((value >> 64) as u64 ^ value as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_code() {
        let mut distinct = Distinct::default();
        let codes: Vec<u32> = ["a", "", "b", "a", ""].map(|text| distinct.code(text)).into();
        assert_eq!(codes, [0, 1, 2, 0, 1]);
        assert_eq!(distinct.values.iter().collect::<Vec<_>>(), ["a", "", "b"]);
        assert_eq!(distinct.values.get(9), "");
    }
}
