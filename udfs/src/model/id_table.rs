//! An open-addressing hash table from ids to dense codes.
//!
//! Keys are kept once, in code order; the table holds codes only (4 bytes a slot, at most half
//! full). Hashing is a fixed multiply-and-fold: the same ids give the same table.

use super::error::ModelError;

const EMPTY: u32 = u32::MAX;

/// Ids in code order and the way back.
#[derive(Debug, Clone)]
pub(super) struct IdTable {
    slots: Vec<u32>,
    keys: Keys,
}

#[derive(Debug, Clone)]
enum Keys {
    Integers { values: Vec<u64>, signed: bool },
    Bytes { ends: Vec<u32>, data: Vec<u8> },
}

impl IdTable {
    pub(super) fn integers(signed: bool) -> Self {
        Self { slots: vec![EMPTY; 16], keys: Keys::Integers { values: vec![], signed } }
    }

    pub(super) fn bytes() -> Self {
        Self { slots: vec![EMPTY; 16], keys: Keys::Bytes { ends: vec![], data: vec![] } }
    }

    pub(super) fn len(&self) -> usize {
        match &self.keys {
            Keys::Integers { values, .. } => values.len(),
            Keys::Bytes { ends, .. } => ends.len(),
        }
    }

    pub(super) fn insert_integer(&mut self, value: u64) -> Result<u32, ModelError> {
        self.reserve()?;
        let code = self.len() as u32;
        let Keys::Integers { values, .. } = &mut self.keys else { return Ok(EMPTY) };
        let slot = probe(&self.slots, hash_integer(value), |code| values[code as usize] == value);
        if self.slots[slot] != EMPTY {
            return Ok(self.slots[slot]);
        }
        values.push(value);
        self.slots[slot] = code;
        Ok(code)
    }

    pub(super) fn find_integer(&self, value: u64) -> Option<u32> {
        let Keys::Integers { values, .. } = &self.keys else { return None };
        let slot = probe(&self.slots, hash_integer(value), |code| values[code as usize] == value);
        Some(self.slots[slot]).filter(|&code| code != EMPTY)
    }

    pub(super) fn insert_bytes(&mut self, key: &[u8]) -> Result<u32, ModelError> {
        self.reserve()?;
        let code = self.len() as u32;
        let Keys::Bytes { ends, data } = &mut self.keys else { return Ok(EMPTY) };
        let slot =
            probe(&self.slots, hash_bytes(key), |code| bytes_at(ends, data, code as usize) == key);
        if self.slots[slot] != EMPTY {
            return Ok(self.slots[slot]);
        }
        if data.len() + key.len() > i32::MAX as usize {
            let limit = i32::MAX as u64;
            return Err(ModelError::TooLarge {
                what: "the text of distinct ids, in bytes,",
                limit,
            });
        }
        data.extend_from_slice(key);
        ends.push(data.len() as u32);
        self.slots[slot] = code;
        Ok(code)
    }

    pub(super) fn find_bytes(&self, key: &[u8]) -> Option<u32> {
        let Keys::Bytes { ends, data } = &self.keys else { return None };
        let slot =
            probe(&self.slots, hash_bytes(key), |code| bytes_at(ends, data, code as usize) == key);
        Some(self.slots[slot]).filter(|&code| code != EMPTY)
    }

    /// Integers in code order; none in a table of bytes.
    pub(super) fn integers_iter(&self) -> impl Iterator<Item = u64> + '_ {
        let values: &[u64] = match &self.keys {
            Keys::Integers { values, .. } => values,
            Keys::Bytes { .. } => &[],
        };
        values.iter().copied()
    }

    /// Byte keys in code order; none in a table of integers.
    pub(super) fn bytes_iter(&self) -> impl Iterator<Item = &[u8]> + '_ {
        let (ends, data): (&[u32], &[u8]) = match &self.keys {
            Keys::Bytes { ends, data } => (ends, data),
            Keys::Integers { .. } => (&[], &[]),
        };
        (0..ends.len()).map(move |code| bytes_at(ends, data, code))
    }

    /// The hash of each id, by code.
    pub(super) fn hashes(&self) -> Vec<u64> {
        match &self.keys {
            Keys::Integers { values, .. } => values.iter().map(|&v| hash_integer(v)).collect(),
            Keys::Bytes { .. } => self.bytes_iter().map(hash_bytes).collect(),
        }
    }

    /// Renumbers in ascending order; returns the new code of each old one.
    pub(super) fn sort(&mut self) -> Vec<u32> {
        let order: Vec<u32> = match &self.keys {
            // Sorted beside their codes: numbers that are looked up one by one cost twice as much.
            Keys::Integers { values, signed } => {
                // Exchanging the halves brings negative numbers first.
                let flipped: u64 = if *signed { 1 << 63 } else { 0 };
                let keys = values.iter().map(|value| value ^ flipped);
                let mut keys: Vec<(u64, u32)> = keys.zip(0..).collect();
                keys.sort_unstable();
                keys.into_iter().map(|(_, code)| code).collect()
            }
            Keys::Bytes { ends, data } => {
                let mut order: Vec<u32> = (0..ends.len() as u32).collect();
                order.sort_unstable_by_key(|&code| bytes_at(ends, data, code as usize));
                order
            }
        };
        let mut new_codes = vec![0; order.len()];
        for (new, &old) in (0..).zip(&order) {
            new_codes[old as usize] = new;
        }
        if order.is_sorted() {
            return new_codes;
        }
        self.keys = match &self.keys {
            Keys::Integers { values, signed } => Keys::Integers {
                values: order.iter().map(|&code| values[code as usize]).collect(),
                signed: *signed,
            },
            Keys::Bytes { ends, data } => {
                let mut sorted = Vec::with_capacity(data.len());
                let end = |&code: &u32| {
                    sorted.extend_from_slice(bytes_at(ends, data, code as usize));
                    sorted.len() as u32
                };
                let ends = order.iter().map(end).collect();
                Keys::Bytes { ends, data: sorted }
            }
        };
        // A key stays where it is found; only its code is another.
        for slot in self.slots.iter_mut().filter(|slot| **slot != EMPTY) {
            *slot = new_codes[*slot as usize];
        }
        new_codes
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let keys = match &self.keys {
            Keys::Integers { values, .. } => values.capacity() * size_of::<u64>(),
            Keys::Bytes { ends, data } => ends.capacity() * size_of::<u32>() + data.capacity(),
        };
        self.slots.len() * size_of::<u32>() + keys
    }

    /// Keeps the table at most half full, so that a probe always ends.
    fn reserve(&mut self) -> Result<(), ModelError> {
        let len = self.len();
        if 2 * (len + 1) <= self.slots.len() {
            return Ok(());
        }
        if len as u64 >= u64::from(EMPTY) - 1 {
            let limit = u64::from(EMPTY) - 1;
            return Err(ModelError::TooLarge { what: "the number of distinct ids", limit });
        }
        let mut slots = vec![EMPTY; 2 * self.slots.len()];
        for code in 0..len {
            let hash = match &self.keys {
                Keys::Integers { values, .. } => hash_integer(values[code]),
                Keys::Bytes { ends, data } => hash_bytes(bytes_at(ends, data, code)),
            };
            let slot = probe(&slots, hash, |_| false);
            slots[slot] = code as u32;
        }
        self.slots = slots;
        Ok(())
    }
}

#[inline]
fn bytes_at<'a>(ends: &[u32], data: &'a [u8], code: usize) -> &'a [u8] {
    let start = if code == 0 { 0 } else { ends[code - 1] as usize };
    &data[start..ends[code] as usize]
}

/// The slot that holds the key, or the empty slot where it belongs.
#[inline]
fn probe(slots: &[u32], hash: u64, is_key: impl Fn(u32) -> bool) -> usize {
    let mask = slots.len() - 1;
    let mut slot = hash as usize & mask;
    while slots[slot] != EMPTY && !is_key(slots[slot]) {
        slot = (slot + 1) & mask;
    }
    slot
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn hash_integer(value: u64) -> u64 {
    fold(value ^ 0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93)
}

fn hash_bytes(key: &[u8]) -> u64 {
    let mut hash = key.len() as u64;
    let (words, rest) = key.as_chunks::<8>();
    for word in words {
        hash = hash_integer(hash ^ u64::from_le_bytes(*word)).rotate_left(23);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    hash_integer(hash ^ u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_keys_are_found_by_their_new_codes() {
        let values: Vec<i64> = (0..3000).map(|at: i64| (at * 7919 % 3001 - 1500) << 40).collect();
        for signed in [false, true] {
            let (mut integers, mut bytes) = (IdTable::integers(signed), IdTable::bytes());
            for &value in &values {
                integers.insert_integer(value.cast_unsigned()).unwrap();
                bytes.insert_bytes(&value.to_string().into_bytes()).unwrap();
            }
            for _ in 0..2 {
                let (of_integers, of_bytes) = (integers.sort(), bytes.sort());
                assert_eq!((of_integers.len(), of_bytes.len()), (3000, 3000));
            }
            let found: Vec<u64> = integers.integers_iter().collect();
            let ascends = |a: &u64, b: &u64| match signed {
                true => a.cast_signed() < b.cast_signed(),
                false => a < b,
            };
            assert!(found.is_sorted_by(ascends));
            assert!(bytes.bytes_iter().is_sorted_by(|a, b| a < b));
            for (code, value) in (0..).zip(&found) {
                assert_eq!(integers.find_integer(*value), Some(code));
            }
            for (code, key) in (0..).zip(bytes.bytes_iter()) {
                assert_eq!(bytes.find_bytes(key), Some(code));
            }
            assert_eq!((integers.find_integer(5), bytes.find_bytes(b"5")), (None, None));
            assert_eq!(integers.insert_integer(5).unwrap(), 3000);
        }
    }

    #[test]
    fn thousands_of_keys_keep_their_codes() {
        let (mut integers, mut bytes) = (IdTable::integers(false), IdTable::bytes());
        for value in 0..5000_u64 {
            let value = value.wrapping_mul(1 << 40);
            let code = integers.insert_integer(value).unwrap();
            assert_eq!(bytes.insert_bytes(value.to_string().as_bytes()).unwrap(), code);
        }
        for code in 0..5000_u32 {
            let value = u64::from(code).wrapping_mul(1 << 40);
            assert_eq!(integers.find_integer(value), Some(code));
            assert_eq!(bytes.find_bytes(value.to_string().as_bytes()), Some(code));
        }
        assert_eq!(integers.find_integer(3), None);
        assert_eq!(bytes.find_bytes(b""), None);
        assert!(integers.memory_bytes() > 5000 * 12);
    }
}
