//! Candidates of an edit distance among many texts.
//!
//! Short texts within k ≤ 2 edits become equal when each loses some k of its characters: the index
//! holds every text with up to k characters left out, and a search looks its own up. Longer texts,
//! and any k, are cut into k + 1 segments: k edits leave one of them whole, at a place that the
//! edits before and after it can have moved it to. Blocks of few texts, and texts too short for
//! their segments, are left to the bags.

use std::collections::HashMap;
use std::ops::Range;

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::InBlock;
use super::bags::{Bag, Bags};
use super::hashed::{BACK, HashIndex, Hashed, tag};
use super::texts::Texts;
use super::verify::Work;
use crate::fuzzy::stop::{Stop, Stopped};

/// A pass over the bags of so many texts costs what looking up a text with 0, 1, or more edits
/// does (measured).
const FEW: [u32; 3] = if cfg!(test) { [64; 3] } else { [256, 4_096, 32_768] };
/// Shortest segment that tells texts apart.
const SEGMENT: u32 = 3;
/// Bytes of an index for each entry: the entry and half a bucket, at most.
const PER_ENTRY: usize = 12;
/// Longest text whose characters are left out one by one, and two by two.
const LONGEST: [u32; 3] = [0, 64, 24];

/// The indexes of those blocks that have many texts.
#[derive(Debug, Default)]
pub(super) struct Edits {
    blocks: HashMap<u32, Block>,
}

#[derive(Debug)]
struct Block {
    /// Edits that it was built for.
    max: usize,
    /// Texts of at most so many characters are found by what is left of them.
    deletions: Option<(u32, HashIndex)>,
    /// Texts of at least so many characters are found by a segment.
    segments: Option<(u32, HashIndex)>,
}

impl Edits {
    /// Memory that [`Self::new`] can use.
    pub fn wanted(values: &[InBlock<'_>], osa: bool, max: usize) -> usize {
        let of_text = |(_, text): &InBlock<'_>| {
            let size = text.chars().count();
            match LONGEST.get(max) {
                Some(longest) if size <= *longest as usize => left_over_count(size, max),
                _ if !osa && size >= max.saturating_add(1).saturating_mul(SEGMENT as usize) => {
                    max + 1
                }
                _ => 0,
            }
        };
        let entries: usize = values.iter().map(of_text).fold(0, usize::saturating_add);
        entries.saturating_mul(PER_ENTRY)
    }

    /// Indexes the blocks of many texts within `memory` bytes.
    pub fn new(
        texts: &Texts,
        osa: bool,
        max: usize,
        memory: usize,
        stop: &Stop,
    ) -> Result<Self, Stopped> {
        let mut blocks = HashMap::new();
        let mut left = memory;
        for block in 0..texts.blocks() as u32 {
            let count: u32 = texts.runs(block).iter().map(|run| run.end - run.start).sum();
            if count <= FEW[max.min(2)] {
                continue;
            }
            let built = Block::new(texts, block, osa, max, left, stop)?;
            left = left.saturating_sub(built.bytes());
            blocks.insert(block, built);
        }
        Ok(Self { blocks })
    }

    pub fn bytes(&self) -> usize {
        self.blocks.values().map(|block| block.bytes() + size_of::<Block>()).sum()
    }

    /// Gathers the texts that may be within `max` edits.
    pub fn gather(
        &self,
        texts: &Texts,
        bags: &Bags,
        (block, text): InBlock<'_>,
        max: usize,
        work: &mut Work,
    ) {
        let length = text.chars().count() as u32;
        let distance = u32::try_from(max).unwrap_or(u32::MAX);
        let bag = Bag::of(text);
        let indexed = self.blocks.get(&block).filter(|indexed| max <= indexed.max);
        let runs =
            texts.runs_of(block, length.saturating_sub(distance), length.saturating_add(distance));
        if let Some(indexed) = indexed {
            let found = work.candidates.len();
            indexed.find(text, max, runs.iter().map(|run| run.size), work);
            work.candidates[found..].sort_unstable();
            work.candidates.dedup();
            work.candidates.retain(|&at| {
                let size = texts.size(at as usize);
                let need = size.max(length).saturating_sub(distance);
                size.abs_diff(length) <= distance && bags.may_share(at as usize, bag, need)
            });
        }
        for run in runs {
            if !indexed.is_some_and(|indexed| indexed.covers(run.size)) {
                work.spend(run.range().len());
                let need = run.size.max(length).saturating_sub(distance);
                bags.gather(run.range(), bag, need, &mut work.candidates);
            }
        }
    }
}

impl Block {
    fn new(
        texts: &Texts,
        block: u32,
        osa: bool,
        max: usize,
        memory: usize,
        stop: &Stop,
    ) -> Result<Self, Stopped> {
        let deletions = deletions(texts, block, max, memory, stop)?;
        let after = deletions.as_ref().map_or(0, |(longest, _)| longest + 1);
        let left = memory.saturating_sub(deletions.as_ref().map_or(0, |(_, index)| index.bytes()));
        // A swap across the border of two segments changes both.
        let segments = if osa { None } else { segments(texts, block, max, (after, left), stop)? };
        Ok(Self { max, deletions, segments })
    }

    fn bytes(&self) -> usize {
        let of = |part: &Option<(u32, HashIndex)>| part.as_ref().map_or(0, |(_, i)| i.bytes());
        of(&self.deletions) + of(&self.segments)
    }

    fn covers(&self, size: u32) -> bool {
        self.deletions.as_ref().is_some_and(|(longest, _)| size <= *longest)
            || self.segments.as_ref().is_some_and(|(shortest, _)| size >= *shortest)
    }

    fn find(&self, text: &str, max: usize, sizes: impl Iterator<Item = u32>, work: &mut Work) {
        let Work { hashed, candidates, .. } = work;
        // Fewer edits leave whole what more may, and no segment further from its place.
        let segments = self.max;
        hashed.set(text);
        let length = hashed.letters.len();
        if let Some((longest, index)) = &self.deletions
            && length <= *longest as usize + max
        {
            left_over(hashed, max, |tag| index.find(tag, candidates));
        }
        let Some((shortest, index)) = &self.segments else { return };
        for size in sizes.filter(|size| size >= shortest) {
            let size = size as usize;
            for (segment, (start, part)) in segments_of(size, segments).enumerate() {
                // The edits before the segment move it; so do those after it, from the end.
                let moved = length as isize - size as isize;
                let (before, after) = (segment as isize, (segments - segment) as isize);
                let start = start as isize;
                let first = (start - before).max(start + moved - after).max(0);
                let last = (start + before).min(start + moved + after);
                let last = last.min(length as isize - part as isize);
                for at in first..=last {
                    let hash = hashed.part(at as usize, part);
                    index.find(tag(hash, segment_key(size, segment)), candidates);
                }
            }
        }
    }
}

/// The index of texts with up to `max` characters left out, for those up to a length that fits in
/// the memory.
fn deletions(
    texts: &Texts,
    block: u32,
    max: usize,
    memory: usize,
    stop: &Stop,
) -> Result<Option<(u32, HashIndex)>, Stopped> {
    let Some(most) = LONGEST.get(max).copied() else { return Ok(None) };
    let (mut entries, mut longest, mut end) = (0_usize, 0, None);
    let runs = texts.runs(block);
    for run in runs.iter().take_while(|run| run.size <= most) {
        entries += left_over_count(run.size as usize, max) * (run.end - run.start) as usize;
        if entries.saturating_mul(PER_ENTRY) > memory || entries >= u32::MAX as usize {
            break;
        }
        (longest, end) = (run.size, Some(run.end));
    }
    let Some((first, end)) = runs.first().zip(end) else { return Ok(None) };
    let index = hash_index(first.start..end, stop, |at, entries| {
        with_hashed(|hashed| {
            hashed.set(texts.text(at as usize));
            left_over(hashed, max, |tag| entries.push(u64::from(tag) << 32 | u64::from(at)));
        });
    })?;
    Ok(Some((longest, index)))
}

/// Indexes the entries that are found for each of some texts.
fn hash_index(
    texts: Range<u32>,
    stop: &Stop,
    find: impl Fn(u32, &mut Vec<u64>) + Sync,
) -> Result<HashIndex, Stopped> {
    let entries = texts.into_par_iter().try_fold(Vec::new, |mut entries, at| {
        stop.check().map(|()| {
            find(at, &mut entries);
            entries
        })
    });
    HashIndex::new(entries.collect::<Result<Vec<_>, Stopped>>()?, stop)
}

fn with_hashed(work: impl FnOnce(&mut Hashed)) {
    thread_local! {
        static HASHED: std::cell::RefCell<Hashed> = std::cell::RefCell::default();
    }
    HASHED.with_borrow_mut(work);
}

/// How many texts are left when 0 to `max` ≤ 2 of so many characters go, at most.
fn left_over_count(size: usize, max: usize) -> usize {
    match max {
        0 => 1,
        1 => size + 1,
        _ => size * size.saturating_sub(1) / 2 + size + 1,
    }
}

/// The tags of a text with 0 to `max` ≤ 2 characters left out.
fn left_over(hashed: &Hashed, max: usize, mut take: impl FnMut(u32)) {
    let Hashed { letters, sums, .. } = hashed;
    let length = letters.len();
    let whole = sums[length];
    take(tag(whole, length as u64));
    if max == 0 {
        return;
    }
    let twice = BACK.wrapping_mul(BACK);
    for first in 0..length {
        // Of equal neighbours it does not matter which goes.
        if first > 0 && letters[first] == letters[first - 1] {
            continue;
        }
        let rest = whole.wrapping_sub(sums[first + 1]);
        let without = sums[first].wrapping_add(rest.wrapping_mul(BACK));
        take(tag(without, length as u64 - 1));
        if max == 1 {
            continue;
        }
        for second in first + 1..length {
            if second > first + 1 && letters[second] == letters[second - 1] {
                continue;
            }
            let between = sums[second].wrapping_sub(sums[first + 1]).wrapping_mul(BACK);
            let rest = whole.wrapping_sub(sums[second + 1]).wrapping_mul(twice);
            let without = sums[first].wrapping_add(between).wrapping_add(rest);
            take(tag(without, length as u64 - 2));
        }
    }
}

/// The index of the segments of texts of at least `after` characters, where segments are long
/// enough and fit in the memory.
fn segments(
    texts: &Texts,
    block: u32,
    max: usize,
    (after, memory): (u32, usize),
    stop: &Stop,
) -> Result<Option<(u32, HashIndex)>, Stopped> {
    let count = u32::try_from(max.saturating_add(1)).ok();
    let Some(shortest) = count.and_then(|count| count.checked_mul(SEGMENT)) else {
        return Ok(None);
    };
    let shortest = shortest.max(after);
    let runs = texts.runs_of(block, shortest, u32::MAX);
    let Some((first, last)) = runs.first().zip(runs.last()) else { return Ok(None) };
    let entries = ((last.end - first.start) as usize).saturating_mul(max + 1);
    if entries.saturating_mul(PER_ENTRY) > memory || entries >= u32::MAX as usize {
        return Ok(None);
    }
    let index = hash_index(first.start..last.end, stop, |at, entries| {
        with_hashed(|hashed| {
            hashed.set(texts.text(at as usize));
            let size = hashed.letters.len();
            for (segment, (start, part)) in segments_of(size, max).enumerate() {
                let tag = tag(hashed.part(start, part), segment_key(size, segment));
                entries.push(u64::from(tag) << 32 | u64::from(at));
            }
        });
    })?;
    Ok(Some((shortest, index)))
}

/// Where the `max + 1` segments of a text begin and how long they are: as even as can be, the
/// longer ones last.
fn segments_of(size: usize, max: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = max + 1;
    let (short, longer) = (size / count, size % count);
    (0..count).scan(0, move |start, segment| {
        let part = short + usize::from(segment >= count - longer);
        let begins = *start;
        *start += part;
        Some((begins, part))
    })
}

fn segment_key(size: usize, segment: usize) -> u64 {
    (size as u64) << 20 | segment as u64 | 1 << 63
}
