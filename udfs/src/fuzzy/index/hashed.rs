//! Texts by the hash of a part of them.

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::fuzzy::stop::{Stop, Stopped};

/// Entries that are sorted at once, more or less.
const PER_RANGE: usize = 1 << 16;

/// Positions of texts by a 32-bit tag. Two parts of one tag are not always equal, which costs a
/// comparison and no answer.
#[derive(Debug)]
pub(super) struct HashIndex {
    /// Tag, then position, ascending.
    entries: Vec<u64>,
    /// Where the entries begin whose tags have these first bits.
    buckets: Vec<u32>,
    shift: u32,
}

impl HashIndex {
    /// An index of entries, each `tag << 32 | position`, fewer than 2³² of them.
    pub fn new(parts: Vec<Vec<u64>>, stop: &Stop) -> Result<Self, Stopped> {
        let mut entries = sorted(parts, stop)?;
        let (mut kept, mut pace) = (0, stop.pace());
        for at in 0..entries.len() {
            pace.spend(2)?;
            if kept == 0 || entries[kept - 1] != entries[at] {
                entries[kept] = entries[at];
                kept += 1;
            }
        }
        entries.truncate(kept);
        entries.shrink_to_fit();
        let bits = entries.len().max(2).ilog2().min(28);
        let shift = 64 - bits;
        let mut buckets = vec![0_u32; (1 << bits) + 1];
        for entry in &entries {
            pace.spend(2)?;
            buckets[(entry >> shift) as usize + 1] += 1;
        }
        let mut sum = 0;
        for bucket in &mut buckets {
            pace.spend(1)?;
            sum += *bucket;
            *bucket = sum;
        }
        Ok(Self { entries, buckets, shift })
    }

    pub fn bytes(&self) -> usize {
        8 * self.entries.capacity() + 4 * self.buckets.capacity()
    }

    /// Appends the positions that have a tag.
    #[inline]
    pub fn find(&self, tag: u32, found: &mut Vec<u32>) {
        let tag = u64::from(tag);
        let bucket = ((tag << 32) >> self.shift) as usize;
        let (from, to) = (self.buckets[bucket] as usize, self.buckets[bucket + 1] as usize);
        let entries = &self.entries[from..to];
        let skipped = if entries.len() > 16 {
            entries.partition_point(|entry| entry >> 32 < tag)
        } else {
            entries.iter().take_while(|entry| **entry >> 32 < tag).count()
        };
        let same = entries[skipped..].iter().take_while(|entry| **entry >> 32 == tag);
        found.extend(same.map(|entry| *entry as u32));
    }
}

/// Entries in order. Tags are spread evenly: entries go to ranges of tags first, each of which is
/// sorted at once.
fn sorted(parts: Vec<Vec<u64>>, stop: &Stop) -> Result<Vec<u64>, Stopped> {
    let count: usize = parts.iter().map(Vec::len).sum();
    let bits = (count / PER_RANGE).max(1).ilog2().min(12);
    let range_of = |entry: u64| entry.checked_shr(64 - bits).unwrap_or(0) as usize;
    let (mut starts, mut pace) = (vec![0_usize; (1 << bits) + 1], stop.pace());
    for entry in parts.iter().flatten() {
        pace.spend(2)?;
        starts[range_of(*entry) + 1] += 1;
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum;
    }
    let (mut next, mut entries) = (starts.clone(), vec![0; count]);
    for entry in parts.into_iter().flatten() {
        pace.spend(4)?;
        let next = &mut next[range_of(entry)];
        entries[*next] = entry;
        *next += 1;
    }
    let (mut ranges, mut rest) = (Vec::with_capacity(1 << bits), entries.as_mut_slice());
    for bounds in starts.windows(2) {
        let (range, after) = std::mem::take(&mut rest).split_at_mut(bounds[1] - bounds[0]);
        ranges.push(range);
        rest = after;
    }
    let sort = |range: &mut [u64]| stop.check().map(|()| range.sort_unstable());
    ranges.into_par_iter().try_for_each(sort)?;
    Ok(entries)
}

/// An odd number: every power of it has an inverse modulo 2⁶⁴.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

const fn inverse(odd: u64) -> u64 {
    // Newton's iteration doubles the bits that are right.
    let mut inverse = odd;
    let mut round = 0;
    while round < 6 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse
}

/// The inverse of the base.
pub(super) const BACK: u64 = inverse(BASE);

/// The hashes of all beginnings of a text, Σ (cᵢ + 1)·Bⁱ modulo 2⁶⁴, from which those of any part
/// follow.
#[derive(Debug, Default, Clone)]
pub(super) struct Hashed {
    /// The text's code points.
    pub letters: Vec<u32>,
    /// `sums[i]`: the hash of the first i letters.
    pub sums: Vec<u64>,
    /// `back[i]`: B⁻ⁱ.
    back: Vec<u64>,
}

impl Hashed {
    pub fn set(&mut self, text: &str) {
        self.letters.clear();
        self.sums.clear();
        self.sums.push(0);
        let (mut sum, mut power) = (0_u64, 1_u64);
        for letter in text.chars() {
            let letter = u32::from(letter);
            sum = sum.wrapping_add(power.wrapping_mul(u64::from(letter) + 1));
            power = power.wrapping_mul(BASE);
            self.letters.push(letter);
            self.sums.push(sum);
        }
        while self.back.len() <= self.letters.len() {
            let next = self.back.last().map_or(1, |last: &u64| last.wrapping_mul(BACK));
            self.back.push(next);
        }
    }

    /// The hash of a part.
    #[inline]
    pub fn part(&self, start: usize, length: usize) -> u64 {
        let sum = self.sums[start + length].wrapping_sub(self.sums[start]);
        sum.wrapping_mul(self.back[start])
    }
}

/// A tag of a hash and of what else must be equal.
#[inline]
pub(super) fn tag(hash: u64, also: u64) -> u32 {
    let mut mixed = hash ^ also.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> 32) as u32
}
