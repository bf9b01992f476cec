//! A compact set of integers for a question that is answered "no" nearly always.
//!
//! Where the values lie close together they are bits of one map. Elsewhere a filter of sixteen
//! bits a value answers most questions with one load, and an open-addressing table, at most half
//! full, the others. The values in order say whether one of them can be in a range at all.

use arrow::array::Int64Array;
use arrow::compute::{max, min};

/// Bits of the filter for each value.
const FILTER_BITS: usize = 16;
/// A map of bits may be as large as this many bits for each value; it is the size of the table.
const MAP_BITS: u128 = 128;
/// 2⁶⁴ over the golden ratio, odd.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// A set of integers.
#[derive(Debug, Clone)]
pub(super) struct Integers {
    /// In order, each once.
    sorted: Vec<i64>,
    find: Find,
}

#[derive(Debug, Clone)]
enum Find {
    /// Bit `value - first`.
    Map { first: i64, bits: Vec<u64> },
    /// `slots` hold values; [`EMPTY`] is none, and whether that value is in is beside.
    Table { seed: u64, filter: Vec<u64>, slots: Vec<i64>, has_empty: bool },
}

/// A slot without a value.
const EMPTY: i64 = i64::MIN;

impl Integers {
    /// The set of these values; with another `seed` they lie elsewhere, so that nobody who chooses
    /// values knows which of them meet.
    pub(super) fn new(mut values: Vec<i64>, seed: u64) -> Self {
        values.sort_unstable();
        values.dedup();
        values.shrink_to_fit();
        let find = match (values.first(), values.last()) {
            (Some(first), Some(last)) => {
                let range = u128::from(last.abs_diff(*first)) + 1;
                match range <= MAP_BITS * values.len() as u128 {
                    true => map(&values, *first, range),
                    false => table(&values, seed),
                }
            }
            _ => Find::Map { first: 0, bits: Vec::new() },
        };
        Self { sorted: values, find }
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let find = match &self.find {
            Find::Map { bits, .. } => bits.len() * 8,
            Find::Table { filter, slots, .. } => (filter.len() + slots.len()) * 8,
        };
        self.sorted.len() * 8 + find
    }

    /// Whether one of the values could be in the set, as far as a look at their range tells. To ask
    /// a map about each of them costs no more than their range does.
    pub(super) fn may_meet(&self, values: &Int64Array) -> bool {
        match &self.find {
            Find::Map { bits, .. } => !bits.is_empty(),
            Find::Table { .. } => {
                let range = min(values).zip(max(values));
                range.is_some_and(|(low, high)| self.meets(low, high))
            }
        }
    }

    /// Whether a value of the set lies in a range, its ends included.
    fn meets(&self, low: i64, high: i64) -> bool {
        let at = self.sorted.partition_point(|value| *value < low);
        self.sorted.get(at).is_some_and(|value| *value <= high)
    }

    /// Whether a value is in the set.
    #[cfg(test)]
    fn contains(&self, value: i64) -> bool {
        match &self.find {
            Find::Map { first, bits } => in_map(*first, bits, value),
            Find::Table { seed, filter, slots, has_empty } => {
                in_table(*seed, filter, slots, *has_empty, value)
            }
        }
    }

    /// For each value, packed 64 to a word, whether it is in the set.
    pub(super) fn mark(&self, values: &[i64]) -> Vec<u64> {
        // The kind of set is looked at once, so that the loops hold nothing else.
        match &self.find {
            Find::Map { first, bits } => packed(values, |value| in_map(*first, bits, value)),
            Find::Table { seed, filter, slots, has_empty } => {
                packed(values, |value| in_table(*seed, filter, slots, *has_empty, value))
            }
        }
    }
}

/// 64 answers to a word, eight at a time: loops of a known length are faster.
#[inline(always)]
fn packed(values: &[i64], is_in: impl Fn(i64) -> bool) -> Vec<u64> {
    let byte = |values: &[i64]| {
        let bits = values.iter().enumerate();
        bits.fold(0, |byte, (at, value)| byte | (u64::from(is_in(*value)) << at))
    };
    let mut words = Vec::with_capacity(values.len().div_ceil(64));
    let (blocks, rest) = values.as_chunks::<64>();
    for block in blocks {
        let bytes = block.as_chunks::<8>().0.iter().enumerate();
        words.push(bytes.fold(0, |word, (at, values)| word | (byte(values) << (8 * at))));
    }
    if !rest.is_empty() {
        words.push(byte(rest));
    }
    words
}

fn map(values: &[i64], first: i64, range: u128) -> Find {
    let words = usize::try_from(range.div_ceil(64)).unwrap_or_default();
    let mut bits = vec![0_u64; words];
    for value in values {
        let at = value.abs_diff(first);
        let word = usize::try_from(at / 64).ok().and_then(|word| bits.get_mut(word));
        if let Some(word) = word {
            *word |= 1 << (at % 64);
        }
    }
    Find::Map { first, bits }
}

#[inline(always)]
fn in_map(first: i64, bits: &[u64], value: i64) -> bool {
    // What lies below the first wraps to far beyond the last.
    let at = value.wrapping_sub(first).cast_unsigned();
    let word = usize::try_from(at / 64).ok().and_then(|word| bits.get(word));
    word.is_some_and(|word| (word >> (at % 64)) & 1 == 1)
}

fn table(values: &[i64], seed: u64) -> Find {
    let slots = (values.len() * 2).next_power_of_two().max(2);
    let words = (values.len() * FILTER_BITS).next_power_of_two().max(64) / 64;
    let mut table = vec![EMPTY; slots];
    let mut filter = vec![0_u64; words];
    let mut has_empty = false;
    for value in values {
        let hash = hash(seed, *value);
        let (word, bit) = filter_place(hash, words);
        if let Some(word) = filter.get_mut(word) {
            *word |= bit;
        }
        if *value == EMPTY {
            has_empty = true;
            continue;
        }
        let mut at = slot_place(hash, slots);
        while let Some(slot) = table.get_mut(at) {
            if *slot == EMPTY {
                *slot = *value;
                break;
            }
            at = (at + 1) & (slots - 1);
        }
    }
    Find::Table { seed, filter, slots: table, has_empty }
}

#[inline(always)]
fn in_table(seed: u64, filter: &[u64], slots: &[i64], has_empty: bool, value: i64) -> bool {
    let hash = hash(seed, value);
    let (word, bit) = filter_place(hash, filter.len());
    if filter.get(word).is_none_or(|word| word & bit == 0) {
        return false;
    }
    if value == EMPTY {
        return has_empty;
    }
    let mut at = slot_place(hash, slots.len());
    // A table that is half full at most has an empty slot.
    while let Some(slot) = slots.get(at) {
        if *slot == value {
            return true;
        }
        if *slot == EMPTY {
            return false;
        }
        at = (at + 1) & (slots.len() - 1);
    }
    false
}

/// The halves of a product that no single one of its bits decides, folded.
#[inline(always)]
fn hash(seed: u64, value: i64) -> u64 {
    let wide = u128::from(value.cast_unsigned() ^ seed) * u128::from((MULTIPLIER ^ seed) | 1);
    (wide as u64) ^ ((wide >> 64) as u64)
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

    #[test]
    fn the_ends_of_the_range_are_values_as_any_other() {
        let ends = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX];
        for values in [ends.to_vec(), vec![i64::MIN], vec![i64::MAX], vec![]] {
            let set = Integers::new(values.clone(), 7);
            for value in ends {
                assert_eq!(set.contains(value), values.contains(&value), "{value} {values:?}");
            }
        }
        let close = Integers::new(vec![5, 7, 5], 0);
        assert!(matches!(close.find, Find::Map { .. }) && close.len() == 2);
        assert!(close.meets(6, 7) && close.meets(5, 5) && !close.meets(6, 6) && !close.meets(8, 9));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn it_holds_its_values_and_no_other(
            values in prop::collection::vec(any::<i64>(), 0..200),
            close in prop::collection::vec(-50_i64..500, 0..200),
            asked in prop::collection::vec(-60_i64..510, 0..200),
            seed in any::<u64>(),
        ) {
            for values in [values, close] {
                let known: BTreeSet<i64> = values.iter().copied().collect();
                let set = Integers::new(values.clone(), seed);
                prop_assert_eq!(set.len(), known.len());
                let asked: Vec<i64> = asked.iter().chain(&values).copied().collect();
                let marks = set.mark(&asked);
                for (at, value) in asked.iter().enumerate() {
                    prop_assert_eq!(set.contains(*value), known.contains(value));
                    let marked = (marks[at / 64] >> (at % 64)) & 1 == 1;
                    prop_assert_eq!(marked, known.contains(value));
                }
                if let (Some(low), Some(high)) = (asked.iter().min(), asked.iter().max()) {
                    let is_met = known.range(*low..=*high).next().is_some();
                    prop_assert_eq!(set.meets(*low, *high), is_met);
                }
                let is_in = asked.iter().any(|value| known.contains(value));
                prop_assert!(!is_in || set.may_meet(&Int64Array::from(asked)));
            }
        }
    }
}
