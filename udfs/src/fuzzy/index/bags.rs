//! How many characters two texts can have in common, from 64 bits a text.
//!
//! Characters fall into 32 buckets. Of each bucket two bits say whether it holds at least one and
//! at least two; the characters beyond two a bucket are counted together. The bits that two texts
//! share, and the smaller of their counts, bound from above how many characters they have in
//! common, in any order: no edit distance is less than the longer length less this bound, and no
//! Jaro similarity counts more matches.

use pulp::{Arch, Simd, WithSimd};

use super::groups::{Groups, Need};
use super::texts::Texts;
use super::verify::Work;
use super::{Floor, InBlock};
use crate::fuzzy::kernel::jaro;
use crate::fuzzy::stop::{Stop, Stopped};

/// A text's characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bag {
    bits: u64,
    more: u32,
}

impl Bag {
    pub fn of(text: &str) -> Self {
        let (mut once, mut twice, mut more) = (0_u32, 0_u32, 0);
        let mut add = |letter: u32| {
            let bucket = 1_u32 << (letter & 31);
            more += u32::from(twice & bucket != 0);
            twice |= once & bucket;
            once |= bucket;
        };
        if text.is_ascii() {
            text.bytes().for_each(|letter| add(u32::from(letter)));
        } else {
            text.chars().for_each(|letter| add(u32::from(letter)));
        }
        Self { bits: u64::from(once) | u64::from(twice) << 32, more }
    }

    /// At most so many characters are common.
    #[inline]
    fn common(self, other: Self) -> u32 {
        (self.bits & other.bits).count_ones() + self.more.min(other.more)
    }
}

/// The bags of an index' texts, in its order.
#[derive(Debug)]
pub(super) struct Bags {
    arch: Arch,
    bits: Vec<u64>,
    more: Vec<u32>,
    /// The first four characters of each text, 0 after its end.
    heads: Vec<[u32; 4]>,
}

impl Bags {
    pub fn new(texts: &Texts, stop: &Stop) -> Result<Self, Stopped> {
        let count = texts.len();
        let (mut bits, mut more) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let (mut heads, mut pace) = (Vec::with_capacity(count), stop.pace());
        for text in (0..count).map(|at| texts.text(at)) {
            pace.spend(16 + 2 * text.len())?;
            let bag = Bag::of(text);
            bits.push(bag.bits);
            more.push(bag.more);
            heads.push(head(text));
        }
        Ok(Self { arch: Arch::new(), bits, more, heads })
    }

    pub fn bytes(&self) -> usize {
        28 * self.bits.capacity()
    }

    #[inline]
    fn get(&self, at: usize) -> Bag {
        Bag { bits: self.bits[at], more: self.more[at] }
    }

    /// Whether a text may have `need` characters in common.
    #[inline]
    pub fn may_share(&self, at: usize, bag: Bag, need: u32) -> bool {
        self.get(at).common(bag) >= need
    }

    /// Appends the texts of a range that may have `need` characters in common.
    pub fn gather(
        &self,
        range: std::ops::Range<usize>,
        bag: Bag,
        need: u32,
        candidates: &mut Vec<u32>,
    ) {
        let first = range.start as u32;
        let (bits, more) = (&self.bits[range.clone()], &self.more[range]);
        self.arch.dispatch(Scan { bits, more, bag, need, first, candidates });
    }

    /// Gathers the texts that may have a Jaro or Jaro-Winkler similarity of at least the floor.
    pub fn gather_jaro(
        &self,
        (texts, groups): (&Texts, &Groups),
        (block, text): InBlock<'_>,
        winkler: bool,
        floor: Floor,
        work: &mut Work,
    ) {
        let mut ranges = std::mem::take(&mut work.ranges);
        let length = text.chars().count();
        let (bag, start) = (Bag::of(text), head(text));
        for run in texts.runs(block) {
            let other = run.size as usize;
            if length == 0 && other == 0 {
                work.candidates.extend(run.start..run.end);
                continue;
            }
            let best = |common: usize, prefix: usize| {
                let jaro = jaro::similarity(common, 0, length, other);
                let best = if winkler { jaro::winkler(jaro, prefix) } else { jaro };
                // Winkler's sum may round the other way for a smaller Jaro.
                best + 1e-9 >= floor.value
            };
            let most = length.min(other);
            let plain = first_that(most, |common| best(common, 0));
            let prefixed = if winkler { first_that(most, |common| best(common, 4)) } else { plain };
            if prefixed > most {
                continue;
            }
            let before = work.candidates.len();
            let need = Need { plain: plain as u32, prefixed: prefixed as u32 };
            let mut passed = groups.ranges(run, (text, length), need, &mut ranges);
            for (range, need) in ranges.drain(..) {
                passed += range.len();
                self.gather(range, bag, need, &mut work.candidates);
            }
            work.spend(passed);
            if !winkler {
                continue;
            }
            let mut kept = before;
            for at in before..work.candidates.len() {
                let candidate = work.candidates[at];
                let position = candidate as usize;
                let common = (self.get(position).common(bag) as usize).min(most);
                let same = start.iter().zip(&self.heads[position]);
                let prefix = same.take_while(|(x, y)| x == y && **x != 0).count();
                if best(common, prefix) {
                    work.candidates[kept] = candidate;
                    kept += 1;
                }
            }
            work.candidates.truncate(kept);
        }
        work.ranges = ranges;
    }
}

/// The first of 0 to `most` for which a condition holds that holds from there on; `most + 1` when
/// it never does.
fn first_that(most: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut from, mut to) = (0, most + 1);
    while from < to {
        let middle = from + (to - from) / 2;
        if holds(middle) {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    from
}

fn head(text: &str) -> [u32; 4] {
    let mut head = [0; 4];
    // A NUL is no end: one more than the code point.
    for (to, letter) in head.iter_mut().zip(text.chars()) {
        *to = u32::from(letter) + 1;
    }
    head
}

/// A pass over bags, which compiles to the widest registers there are.
struct Scan<'a> {
    bits: &'a [u64],
    more: &'a [u32],
    bag: Bag,
    need: u32,
    first: u32,
    candidates: &'a mut Vec<u32>,
}

impl WithSimd for Scan<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        const CHUNK: usize = 64;
        let Self { bits, more, bag, need, first, candidates } = self;
        let chunks = bits.chunks(CHUNK).zip(more.chunks(CHUNK));
        for (chunk, (bits, more)) in chunks.enumerate() {
            let mut enough = [0_u8; CHUNK];
            for ((enough, bits), more) in enough.iter_mut().zip(bits).zip(more) {
                let common = (bits & bag.bits).count_ones() + bag.more.min(*more);
                *enough = u8::from(common >= need);
            }
            for (eight, enough) in enough.as_chunks::<8>().0.iter().enumerate() {
                let mut left = u64::from_le_bytes(*enough);
                while left != 0 {
                    let at = CHUNK * chunk + 8 * eight + left.trailing_zeros() as usize / 8;
                    candidates.push(first + at as u32);
                    left &= left - 1;
                }
            }
        }
    }
}
