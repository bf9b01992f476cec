//! Texts of one length that hold the same of some letters, so that many are passed over at once.
//!
//! Of two texts with m characters in common, in any order, the one of length n lacks the other's
//! characters but for n − m at most: a letter that one has and the other has not costs one of
//! these. Texts of a length are ordered by their first letter, where a common prefix counts, and
//! then by which letters they hold, letters that half the texts hold first; those that hold the
//! same of the first letters are a group. A group that lacks too many letters of a text, or has
//! too many that the text lacks, has no text alike. Texts of another first letter have no common
//! prefix, so that they need the plain similarity.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::InBlock;
use super::texts::{Run, Texts};
use crate::fuzzy::stop::{Stop, Stopped};

/// Characters fall into so many letters.
const LETTERS: usize = 32;
/// Texts of a group, more or less: looking at a group costs about what looking at two texts does.
const PER_GROUP: usize = if cfg!(test) { 1 } else { 16 };
/// Fewer letters pass over so few texts that groups are not worth having.
const LEAST_BITS: u32 = 3;

/// The groups of those lengths that have many texts.
#[derive(Debug)]
pub(super) struct Groups {
    arch: Arch,
    letters: Letters,
    /// In the order of the texts.
    groups: Vec<Group>,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    start: u32,
    end: u32,
    /// What its texts hold of the letters that count.
    held: u32,
    /// The letters that count.
    counted: u32,
    first: u32,
}

/// The order of letters, those that half the texts hold first.
#[derive(Debug)]
pub(super) struct Letters {
    /// The bit of each letter.
    bits: [u32; LETTERS],
    /// Whether texts are ordered by their first letter.
    by_first: bool,
}

/// How many characters two texts must have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// With another first character.
    pub plain: u32,
    /// With any common prefix.
    pub prefixed: u32,
}

impl Letters {
    pub fn new(values: &[InBlock<'_>], by_first: bool, stop: &Stop) -> Result<Self, Stopped> {
        let (mut holding, mut pace) = ([0_usize; LETTERS], stop.pace());
        for (_, text) in values {
            pace.spend(LETTERS + 2 * text.len())?;
            let held = held(text);
            for (letter, count) in holding.iter_mut().enumerate() {
                *count += (held >> letter & 1) as usize;
            }
        }
        let mut order: Vec<usize> = (0..LETTERS).collect();
        order.sort_by_key(|letter| (2 * holding[*letter]).abs_diff(values.len()));
        let mut bits = [0; LETTERS];
        for (place, letter) in order.into_iter().enumerate() {
            bits[letter] = 1 << (LETTERS - 1 - place);
        }
        Ok(Self { bits, by_first })
    }

    /// Where each text comes among those of its length.
    pub fn keys(&self, values: &[InBlock<'_>], stop: &Stop) -> Result<Vec<u64>, Stopped> {
        let (mut keys, mut pace) = (Vec::with_capacity(values.len()), stop.pace());
        for (_, text) in values {
            pace.spend(LETTERS + 2 * text.len())?;
            keys.push(self.key(text));
        }
        Ok(keys)
    }

    /// The first letter, if it counts, and the letters held.
    fn key(&self, text: &str) -> u64 {
        let held = held(text);
        let letters = self.bits.iter().enumerate();
        let mut key = 0;
        for (letter, bit) in letters {
            key |= if held >> letter & 1 == 1 { *bit } else { 0 };
        }
        u64::from(self.first(text)) << LETTERS | u64::from(key)
    }

    fn first(&self, text: &str) -> u32 {
        let first = text.chars().next().filter(|_| self.by_first);
        first.map_or(0, |letter| u32::from(letter) % LETTERS as u32)
    }
}

fn held(text: &str) -> u32 {
    text.chars().fold(0, |held, letter| held | 1 << (u32::from(letter) % LETTERS as u32))
}

impl Groups {
    /// Groups texts that are in the order of their keys.
    pub fn new(texts: &Texts, letters: Letters, stop: &Stop) -> Result<Self, Stopped> {
        let (mut groups, mut pace) = (Vec::<Group>::new(), stop.pace());
        for run in (0..texts.blocks() as u32).flat_map(|block| texts.runs(block)) {
            let bits = bits_of(run.range().len(), letters.by_first);
            // Tests have no texts by the thousand.
            if bits < LEAST_BITS && cfg!(not(test)) {
                continue;
            }
            let counted = u32::MAX.checked_shl(LETTERS as u32 - bits).unwrap_or(0);
            for at in run.start..run.end {
                let text = texts.text(at as usize);
                pace.spend(LETTERS + 2 * text.len())?;
                let key = letters.key(text);
                let (first, held) = ((key >> LETTERS) as u32, key as u32 & counted);
                let of_last = groups.last_mut().filter(|last| last.end == at && at > run.start);
                match of_last {
                    Some(last) if (last.first, last.held) == (first, held) => last.end = at + 1,
                    _ => groups.push(Group { start: at, end: at + 1, held, counted, first }),
                }
            }
        }
        groups.shrink_to_fit();
        Ok(Self { arch: Arch::new(), letters, groups })
    }

    pub fn bytes(&self) -> usize {
        size_of::<Group>() * self.groups.capacity()
    }

    /// The ranges of a run's texts that may have enough in common with a text of some length, each
    /// with how much that is. Gives how many groups were looked at.
    pub fn ranges(
        &self,
        run: &Run,
        (text, length): (&str, usize),
        need: Need,
        ranges: &mut Vec<(Range<usize>, u32)>,
    ) -> usize {
        ranges.clear();
        let from = self.groups.partition_point(|group| group.start < run.start);
        let groups = &self.groups[from..];
        let groups = &groups[..groups.partition_point(|group| group.start < run.end)];
        if groups.is_empty() {
            ranges.push((run.range(), need.prefixed));
            return 0;
        }
        let key = self.letters.key(text);
        let (length, other) = (length as u32, run.size);
        let most = length.min(other);
        let (first, held) = ((key >> LETTERS) as u32, key as u32);
        self.arch.dispatch(Pass { groups, first, held, length, other, most, need, ranges });
        groups.len()
    }
}

/// How many letters tell the groups of so many texts apart.
fn bits_of(texts: usize, by_first: bool) -> u32 {
    let bits = (texts / PER_GROUP).max(1).ilog2();
    // First letters tell some apart already.
    if by_first { bits.saturating_sub(4) } else { bits }.min(16)
}

/// A pass over groups, which compiles to the instructions that there are.
struct Pass<'a> {
    groups: &'a [Group],
    first: u32,
    held: u32,
    length: u32,
    other: u32,
    most: u32,
    need: Need,
    ranges: &'a mut Vec<(Range<usize>, u32)>,
}

impl WithSimd for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { groups, first, held, length, other, most, need, ranges } = self;
        for group in groups {
            let need = if group.first == first { need.prefixed } else { need.plain };
            let held = held & group.counted;
            let (lacking, more) =
                ((held & !group.held).count_ones(), (group.held & !held).count_ones());
            if need > most || lacking > length - need || more > other - need {
                continue;
            }
            match ranges.last_mut() {
                Some((last, of_last)) if last.end == group.start as usize && *of_last == need => {
                    last.end = group.end as usize;
                }
                _ => ranges.push((group.start as usize..group.end as usize, need)),
            }
        }
    }
}
