//! Eight pairs of texts of up to 64 symbols at once, a 64-bit word a lane.
//!
//! Each pair brings the masks of its text's symbols, looked up in its pattern's table when it joins
//! the group, so that lanes may have different patterns and any script. The recurrences are those
//! of [`super::edit`] and [`super::jaro`]; a lane whose text has ended keeps its result.

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

/// Jaro or Jaro-Winkler similarity of each lane.
#[inline(always)]
pub(crate) fn jaro<const WINKLER: bool>(group: &MediumGroup) -> [f64; MEDIUM_LANES] {
    let mut window = [0; MEDIUM_LANES];
    let mut near = [0; MEDIUM_LANES];
    for lane in 0..MEDIUM_LANES {
        let lengths = (group.pattern_len[lane] as usize, group.text_len[lane] as usize);
        window[lane] = jaro::window(lengths.0, lengths.1) as i64;
        near[lane] = low_bits(window[lane] as usize + 1);
    }
    let length = group.longest();
    let mut taken = [0_u64; MEDIUM_LANES];
    let mut hits = [[0_u64; MEDIUM_LANES]; MEDIUM];
    for (position, (masks, hits)) in group.masks.iter().zip(&mut hits).enumerate().take(length) {
        for lane in 0..MEDIUM_LANES {
            let going = (position as i64) < group.text_len[lane] as i64;
            let free = if going { masks[lane] & near[lane] & !taken[lane] } else { 0 };
            taken[lane] |= free & free.wrapping_neg();
            hits[lane] = if free != 0 { u64::MAX } else { 0 };
            near[lane] = (near[lane] << 1) | u64::from((position as i64) < window[lane]);
        }
    }
    let (mut matches, mut unordered) = ([0_u64; MEDIUM_LANES], [0_u64; MEDIUM_LANES]);
    for (masks, hits) in group.masks.iter().zip(&hits).take(length) {
        for lane in 0..MEDIUM_LANES {
            let lowest = taken[lane] & taken[lane].wrapping_neg() & hits[lane];
            matches[lane] += hits[lane] & 1;
            unordered[lane] += if masks[lane] & lowest == 0 { hits[lane] & 1 } else { 0 };
            taken[lane] ^= lowest;
        }
    }
    let mut similarity = [0.0; MEDIUM_LANES];
    for lane in 0..MEDIUM_LANES {
        let lengths = (group.pattern_len[lane] as usize, group.text_len[lane] as usize);
        let (matches, unordered) = (matches[lane] as usize, unordered[lane] as usize);
        let plain = jaro::similarity(matches, unordered, lengths.0, lengths.1);
        similarity[lane] = if WINKLER { jaro::winkler(plain, group.prefix[lane]) } else { plain };
    }
    similarity
}
