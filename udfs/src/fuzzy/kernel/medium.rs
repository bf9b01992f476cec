//! Eight pairs of texts of up to 64 symbols at once, a 64-bit word a lane.
//!
//! Each pair brings the masks of its text's symbols, looked up in its pattern's table when it joins
//! the group, so that lanes may have different patterns and any script. The recurrences are those
//! of [`super::edit`] and [`super::jaro`]; a lane whose text has ended keeps its result.
//!
//! Jaro is written in `pulp`'s vectors: as a loop over lanes the compiler makes scalar code of it.

use std::ops::Range;

use pulp::Simd;

use super::{jaro, low_bits};

/// Pairs a group.
pub const MEDIUM_LANES: usize = 8;
/// Longest text and pattern, in symbols.
pub const MEDIUM: usize = 64;

/// Up to eight pairs that wait for their common run.
#[derive(Debug, Clone)]
pub struct MediumGroup {
    masks: Box<[[u64; MEDIUM_LANES]; MEDIUM]>,
    pattern_len: [u64; MEDIUM_LANES],
    text_len: [u64; MEDIUM_LANES],
    prefix: [usize; MEDIUM_LANES],
    rows: [usize; MEDIUM_LANES],
    count: usize,
}

impl Default for MediumGroup {
    fn default() -> Self {
        Self {
            masks: Box::new([[0; MEDIUM_LANES]; MEDIUM]),
            pattern_len: [0; MEDIUM_LANES],
            text_len: [0; MEDIUM_LANES],
            prefix: [0; MEDIUM_LANES],
            rows: [0; MEDIUM_LANES],
            count: 0,
        }
    }
}

impl MediumGroup {
    /// Adds a pair of 1 to 64 symbols each; says whether the group is full.
    #[inline]
    pub(crate) fn push(
        &mut self,
        row: usize,
        table: &[u64; 256],
        pattern: &[u8],
        text: &[u8],
    ) -> bool {
        let slot = self.count % MEDIUM_LANES;
        for (masks, &symbol) in self.masks.iter_mut().zip(text) {
            masks[slot] = table[usize::from(symbol)];
        }
        self.pattern_len[slot] = pattern.len() as u64;
        self.text_len[slot] = text.len() as u64;
        self.prefix[slot] =
            pattern.iter().zip(text).take(4).take_while(|(left, right)| left == right).count();
        self.rows[slot] = row;
        self.count = slot + 1;
        self.count == MEDIUM_LANES
    }

    /// Whether no pair waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Empties the group; stale lanes are computed in vain and never read.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(usize, usize)) {
        for slot in 0..self.count.min(MEDIUM_LANES) {
            take(self.rows[slot], slot);
        }
        self.count = 0;
    }

    #[inline(always)]
    fn longest(&self) -> usize {
        self.text_len.iter().fold(0, |longest, &length| longest.max(length)) as usize
    }
}

/// Edit distance of each lane.
#[inline(always)]
pub(crate) fn edit<const OSA: bool>(group: &MediumGroup) -> [u8; MEDIUM_LANES] {
    let mut distance = group.pattern_len;
    let last = group.pattern_len.map(|length| length.wrapping_sub(1) & 63);
    let (mut plus, mut minus) = ([u64::MAX; MEDIUM_LANES], [0; MEDIUM_LANES]);
    let (mut diagonal, mut previous) = ([0; MEDIUM_LANES], [0; MEDIUM_LANES]);
    for (position, masks) in group.masks.iter().enumerate().take(group.longest()) {
        for lane in 0..MEDIUM_LANES {
            let (mask, vertical): (u64, u64) = (masks[lane], plus[lane]);
            let swap: u64 = if OSA { ((!diagonal[lane] & mask) << 1) & previous[lane] } else { 0 };
            let equal: u64 =
                ((mask & vertical).wrapping_add(vertical) ^ vertical) | mask | minus[lane] | swap;
            let up = minus[lane] | !(equal | vertical);
            let down = equal & vertical;
            let change = ((up >> last[lane]) & 1).wrapping_sub((down >> last[lane]) & 1);
            let going = (position as i64) < group.text_len[lane] as i64;
            distance[lane] = distance[lane].wrapping_add(if going { change } else { 0 });
            let up = (up << 1) | 1;
            plus[lane] = (down << 1) | !(equal | up);
            minus[lane] = up & equal;
            if OSA {
                diagonal[lane] = equal;
                previous[lane] = mask;
            }
        }
    }
    distance.map(|distance| distance as u8)
}

/// Jaro or Jaro-Winkler similarity of each lane. Spends the group's masks.
#[inline(always)]
pub(crate) fn jaro<S: Simd, const WINKLER: bool>(
    simd: S,
    group: &mut MediumGroup,
) -> [f64; MEDIUM_LANES] {
    let (mut window, mut near) = ([0; MEDIUM_LANES], [0; MEDIUM_LANES]);
    for lane in 0..MEDIUM_LANES {
        let longer = group.pattern_len[lane].max(group.text_len[lane]);
        window[lane] = (longer / 2).saturating_sub(1);
        near[lane] = low_bits(window[lane] as usize + 1);
    }
    let length = group.longest();
    let masks = &mut group.masks[..length.min(MEDIUM)];
    let (mut matches, mut unordered) = ([0; MEDIUM_LANES], [0; MEDIUM_LANES]);
    for lanes in (0..MEDIUM_LANES).step_by(S::U64_LANES) {
        let lanes = lanes..lanes + S::U64_LANES;
        let taken = matching(
            simd,
            masks,
            lanes.clone(),
            vector::<S>(&group.text_len[lanes.clone()]),
            vector::<S>(&window[lanes.clone()]),
            vector::<S>(&near[lanes.clone()]),
        );
        store::<S>(&mut matches[lanes.clone()], taken);
        store::<S>(&mut unordered[lanes.clone()], order(simd, masks, lanes, taken));
    }
    let mut similarity = [0.0; MEDIUM_LANES];
    for lane in 0..MEDIUM_LANES {
        let lengths = (group.pattern_len[lane] as usize, group.text_len[lane] as usize);
        let matches = matches[lane].count_ones() as usize;
        // The places without a match count as out of order, too.
        let unordered = unordered[lane] as usize + matches - length;
        let plain = jaro::similarity(matches, unordered, lengths.0, lengths.1);
        similarity[lane] = if WINKLER { jaro::winkler(plain, group.prefix[lane]) } else { plain };
    }
    similarity
}

/// Finds the places of the patterns that match; leaves the masks of the texts' symbols that do.
#[inline(always)]
fn matching<S: Simd>(
    simd: S,
    masks: &mut [[u64; MEDIUM_LANES]],
    lanes: Range<usize>,
    text_len: S::u64s,
    window: S::u64s,
    mut near: S::u64s,
) -> S::u64s {
    let (zero, one) = (simd.splat_u64s(0), simd.splat_u64s(1));
    let mut taken = zero;
    let mut position = zero;
    for masks in masks {
        let going = simd.less_than_u64s(position, text_len);
        let opening = simd.less_than_u64s(position, window);
        let mask = vector::<S>(&masks[lanes.clone()]);
        let mask = simd.select_u64s(going, mask, zero);
        let free = simd.and_u64s(simd.and_u64s(mask, near), simd.not_u64s(taken));
        taken = simd.or_u64s(taken, simd.and_u64s(free, simd.sub_u64s(zero, free)));
        let kept = simd.select_u64s(simd.equal_u64s(free, zero), zero, mask);
        store::<S>(&mut masks[lanes.clone()], kept);
        near = simd.add_u64s(near, near);
        near = simd.add_u64s(near, simd.select_u64s(opening, one, zero));
        position = simd.add_u64s(position, one);
    }
    taken
}

/// Counts the places whose symbol is not that of the next place taken, those without a match too.
#[inline(always)]
fn order<S: Simd>(
    simd: S,
    masks: &[[u64; MEDIUM_LANES]],
    lanes: Range<usize>,
    mut taken: S::u64s,
) -> S::u64s {
    let (zero, one) = (simd.splat_u64s(0), simd.splat_u64s(1));
    let mut unordered = zero;
    for masks in masks {
        let mask = vector::<S>(&masks[lanes.clone()]);
        let lowest = simd.and_u64s(taken, simd.sub_u64s(zero, taken));
        let lowest = simd.select_u64s(simd.equal_u64s(mask, zero), zero, lowest);
        let wrong = simd.equal_u64s(simd.and_u64s(mask, lowest), zero);
        unordered = simd.add_u64s(unordered, simd.select_u64s(wrong, one, zero));
        taken = simd.xor_u64s(taken, lowest);
    }
    unordered
}

#[inline(always)]
fn vector<S: Simd>(lanes: &[u64]) -> S::u64s {
    S::as_simd_u64s(lanes).0[0]
}

#[inline(always)]
fn store<S: Simd>(lanes: &mut [u64], vector: S::u64s) {
    S::as_mut_simd_u64s(lanes).0[0] = vector;
}
