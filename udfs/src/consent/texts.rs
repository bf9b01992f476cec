//! A compact set of texts for a question that is answered "no" nearly always.
//!
//! The texts lie behind each other in one buffer. A filter of sixteen bits a text answers most
//! questions; the others are answered by an open-addressing table, at most half full, of numbers
//! with a tag of the hash, and by comparing the text itself.

/// Bits of the filter for each text.
const FILTER_BITS: usize = 16;
/// 2⁶⁴ over the golden ratio, odd.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// A set of texts.
#[derive(Debug, Clone)]
pub(super) struct Texts {
    seed: u64,
    /// Where each text ends in `data`.
    ends: Vec<u64>,
    data: Vec<u8>,
    filter: Vec<u64>,
    /// The high half of a text's hash and its number from 1; 0 is none.
    slots: Vec<u64>,
}

impl Texts {
    /// An empty set; with another `seed` texts lie elsewhere, so that nobody who chooses texts
    /// knows which of them meet.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ends: vec![], data: vec![], filter: vec![0], slots: vec![0; 2] }
    }

    /// Puts a text in; `false` when there are as many as there can be.
    pub(super) fn insert(&mut self, text: &str) -> bool {
        if self.contains(text) {
            return true;
        }
        let Ok(number) = u32::try_from(self.ends.len() + 1) else { return false };
        if (self.ends.len() + 1) * 2 > self.slots.len() {
            self.grow();
        }
        self.data.extend_from_slice(text.as_bytes());
        self.ends.push(self.data.len() as u64);
        self.place(hash(self.seed, text.as_bytes()), number);
        true
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        (self.ends.capacity() + self.filter.len() + self.slots.len()) * 8 + self.data.capacity()
    }

    /// Whether a text is in the set.
    #[inline]
    pub(super) fn contains(&self, text: &str) -> bool {
        let hash = hash(self.seed, text.as_bytes());
        let (word, bit) = filter_place(hash, self.filter.len());
        if self.filter.get(word).is_none_or(|word| word & bit == 0) {
            return false;
        }
        let mut at = slot_place(hash, self.slots.len());
        while let Some(slot) = self.slots.get(at) {
            if *slot == 0 {
                return false;
            }
            if (slot ^ hash) >> 32 == 0 && self.text(*slot as u32) == Some(text.as_bytes()) {
                return true;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        false
    }

    /// The text of a number from 1.
    fn text(&self, number: u32) -> Option<&[u8]> {
        let at = (number as usize).checked_sub(1)?;
        let start = match at.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        let end = *self.ends.get(at)?;
        self.data.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }

    fn grow(&mut self) {
        let slots = self.slots.len() * 2;
        self.slots = vec![0; slots];
        self.filter = vec![0; (slots / 2 * FILTER_BITS).next_power_of_two().max(64) / 64];
        let count = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        for number in 1..=count {
            let hash = self.text(number).map(|text| hash(self.seed, text));
            if let Some(hash) = hash {
                self.place(hash, number);
            }
        }
    }

    fn place(&mut self, hash: u64, number: u32) {
        let (word, bit) = filter_place(hash, self.filter.len());
        if let Some(word) = self.filter.get_mut(word) {
            *word |= bit;
        }
        let last = self.slots.len() - 1;
        let mut at = slot_place(hash, self.slots.len());
        while let Some(slot) = self.slots.get_mut(at) {
            if *slot == 0 {
                *slot = (hash & !u64::from(u32::MAX)) | u64::from(number);
                return;
            }
            at = (at + 1) & last;
        }
    }
}

#[inline(always)]
fn mixed(one: u64, other: u64) -> u64 {
    let wide = u128::from(one) * u128::from(other);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// Eight bytes at a time, each time a product folded.
#[inline(always)]
fn hash(seed: u64, text: &[u8]) -> u64 {
    let multiplier = (MULTIPLIER ^ seed) | 1;
    let mut hash = seed ^ (text.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        hash = mixed(hash ^ u64::from_le_bytes(*word), multiplier);
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    hash = mixed(hash ^ u64::from_le_bytes(last), multiplier);
    mixed(hash ^ MULTIPLIER, MULTIPLIER)
}

/// The word of the filter, of a power of two of them, and the bit in it.
#[inline(always)]
fn filter_place(hash: u64, words: usize) -> (usize, u64) {
    ((hash >> 6) as usize & (words - 1), 1 << (hash & 63))
}

#[inline(always)]
fn slot_place(hash: u64, slots: usize) -> usize {
    (hash >> 20) as usize & (slots - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn it_holds_its_texts_and_no_other(
            texts in prop::collection::vec(".{0,20}", 0..200),
            asked in prop::collection::vec(".{0,3}", 0..100),
            seed in any::<u64>(),
        ) {
            let known: BTreeSet<&str> = texts.iter().map(String::as_str).collect();
            let mut set = Texts::new(seed);
            prop_assert!(texts.iter().all(|text| set.insert(text)));
            prop_assert_eq!(set.len(), known.len());
            for text in asked.iter().chain(&texts) {
                prop_assert_eq!(set.contains(text), known.contains(text.as_str()));
            }
        }
    }

    #[test]
    fn an_empty_text_and_zeros_are_texts() {
        let mut set = Texts::new(0);
        assert!(!set.contains("") && !set.contains("\0"));
        assert!(set.insert("\0"));
        assert!(!set.contains("") && set.contains("\0") && !set.contains("\0\0"));
        assert!(set.insert("") && set.contains(""));
    }
}
