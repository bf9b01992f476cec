//! 32 pairs of short ASCII texts at once, one pair a lane of a vector register.
//!
//! The shorter text of a pair, of up to 8 or 16 bytes, is the pattern: its bit-vectors are bytes or
//! 16-bit words, and masks come from comparing bytes, so that every lane may have another pattern
//! and no table is built. The other text has up to [`SHORT`] bytes. Loops run to the longest text
//! of the group; a lane whose text has ended keeps its result. The loops are plain slices compiled
//! for each instruction set by `pulp`'s dispatch; the recurrences are those of [`super::edit`] and
//! [`super::jaro`].

use pulp::{Arch, Simd, WithSimd};

use super::medium::{self, MEDIUM_LANES, MediumGroup};
use super::{Pattern, Scratch};

/// Longest text, in bytes, that goes into a lane.
pub const SHORT: usize = 32;
/// Pairs a group.
pub const LANES: usize = 32;

const WORDS: usize = SHORT / 8;
/// Longest pattern, in bytes.
const PATTERN: usize = 16;

/// An ASCII text of at most [`SHORT`] bytes; the bytes after its end are zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Short {
    words: [u64; WORDS],
    len: u8,
}

/// The bytes that a text of each length leaves of its words.
const KEPT: [[u64; WORDS]; SHORT + 1] = {
    let mut kept = [[0; WORDS]; SHORT + 1];
    let mut len = 0;
    while len <= SHORT {
        let mut byte = 0;
        while byte < len {
            kept[len][byte / 8] |= 0xFF << (8 * (byte % 8));
            byte += 1;
        }
        len += 1;
    }
    kept
};

impl Short {
    /// Makes a short text of eight-byte words, the first byte lowest; bytes after `len` are
    /// dropped. `None` when it is too long or no ASCII.
    #[inline(always)]
    pub fn from_words(mut words: [u64; WORDS], len: usize) -> Option<Self> {
        let kept = KEPT.get(len)?;
        let mut all = 0;
        for (word, kept) in words.iter_mut().zip(kept) {
            *word &= kept;
            all |= *word;
        }
        (all & 0x8080_8080_8080_8080 == 0).then_some(Self { words, len: len as u8 })
    }

    /// Reads the text that starts a slice of at least `len` bytes; what follows it is ignored, and
    /// a slice of [`SHORT`] bytes or more is read faster.
    #[inline(always)]
    pub fn read(bytes: &[u8], len: usize) -> Option<Self> {
        if len > SHORT {
            return None;
        }
        match bytes.first_chunk() {
            Some(bytes) => Self::from_bytes(bytes, len),
            None => Self::read_end(bytes, len),
        }
    }

    #[inline(always)]
    fn from_bytes(bytes: &[u8; SHORT], len: usize) -> Option<Self> {
        let mut words = [0; WORDS];
        for (word, eight) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*eight);
        }
        Self::from_words(words, len)
    }

    fn read_end(bytes: &[u8], len: usize) -> Option<Self> {
        let mut padded = [0; SHORT];
        padded.get_mut(..len)?.copy_from_slice(bytes.get(..len)?);
        Self::from_bytes(&padded, len)
    }

    /// Length in bytes, which are code points.
    #[inline(always)]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Up to 32 pairs that wait for their common run.
#[derive(Debug, Clone)]
pub struct Group {
    pattern: [[u64; LANES]; PATTERN / 8],
    text: [[u64; LANES]; WORDS],
    pattern_len: [u8; LANES],
    text_len: [u8; LANES],
    rows: [usize; LANES],
    count: usize,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            pattern: [[0; LANES]; PATTERN / 8],
            text: [[0; LANES]; WORDS],
            pattern_len: [0; LANES],
            text_len: [0; LANES],
            rows: [0; LANES],
            count: 0,
        }
    }
}

/// The lane where the transposition puts the bytes of a slot.
#[inline(always)]
const fn lane(slot: usize) -> usize {
    (slot % 4) * 8 + slot / 4
}

impl Group {
    /// Adds a pair, `pattern` not longer than `text`; says whether the group is full.
    #[inline(always)]
    fn push(&mut self, row: usize, pattern: &Short, text: &Short) -> bool {
        let slot = self.count % LANES;
        self.pattern[0][slot] = pattern.words[0];
        self.pattern[1][slot] = pattern.words[1];
        for (words, word) in self.text.iter_mut().zip(text.words) {
            words[slot] = word;
        }
        self.pattern_len[lane(slot)] = pattern.len;
        self.text_len[lane(slot)] = text.len;
        self.rows[slot] = row;
        self.count = slot + 1;
        self.count == LANES
    }

    /// Empties the group; stale lanes are computed in vain and never read.
    fn drain(&mut self, mut take: impl FnMut(usize, usize)) {
        for slot in 0..self.count.min(LANES) {
            take(self.rows[slot], lane(slot));
        }
        self.count = 0;
    }
}

/// Characters of 32 texts, by position, then lane.
type Columns<const N: usize> = [[u8; LANES]; N];

/// Transposes eight characters of 32 texts: a byte matrix of 8 × 8 in each of four columns.
#[inline(always)]
fn transpose(words: &[u64; LANES], columns: &mut [[u8; LANES]]) {
    let mut x = [[0_u64; 4]; 8];
    for (row, four) in x.iter_mut().zip(words.chunks_exact(4)) {
        row.copy_from_slice(four);
    }
    for (distance, shift, mask) in [
        (4, 32, 0x0000_0000_FFFF_FFFF),
        (2, 16, 0x0000_FFFF_0000_FFFF),
        (1, 8, 0x00FF_00FF_00FF_00FF_u64),
    ] {
        for low in 0..8 {
            if low & distance != 0 {
                continue;
            }
            let (before, after) = x.split_at_mut(low + distance);
            for (low, high) in before[low].iter_mut().zip(&mut after[0]) {
                let moved = ((*low >> shift) ^ *high) & mask;
                *high ^= moved;
                *low ^= moved << shift;
            }
        }
    }
    for (to, row) in columns.iter_mut().zip(x) {
        for (eight, word) in to.chunks_exact_mut(8).zip(row) {
            eight.copy_from_slice(&word.to_le_bytes());
        }
    }
}

#[inline(always)]
fn longest(lengths: &[u8; LANES]) -> usize {
    usize::from(lengths.iter().fold(0, |longest, &len| longest.max(len)))
}

/// What the kernels of one word width share.
macro_rules! kernels {
    ($edit:ident, $jaro:ident, $masks:ident, $word:ty, $width:literal) => {
        #[inline(always)]
        fn $masks(
            pattern: &Columns<PATTERN>,
            length: usize,
            letters: &[u8; LANES],
        ) -> [$word; LANES] {
            let mut masks = [0; LANES];
            for (position, symbols) in pattern.iter().enumerate().take(length.min($width)) {
                let bit: $word = 1 << position;
                for lane in 0..LANES {
                    masks[lane] |= if symbols[lane] == letters[lane] { bit } else { 0 };
                }
            }
            masks
        }

        /// Edit distance of each lane.
        #[inline(always)]
        fn $edit<const OSA: bool>(group: &Group) -> [u8; LANES] {
            let (pattern, text) = columns(group, $width);
            let (rows, length) = (longest(&group.pattern_len), longest(&group.text_len));
            let mut last = [0; LANES];
            for row in 0..rows.min($width) {
                for lane in 0..LANES {
                    let is_last = usize::from(group.pattern_len[lane]) == row + 1;
                    last[lane] |= if is_last { (1 as $word) << row } else { 0 };
                }
            }
            let mut distance = group.pattern_len;
            let (mut plus, mut minus) = ([<$word>::MAX; LANES], [0 as $word; LANES]);
            let (mut diagonal, mut previous) = ([0 as $word; LANES], [0 as $word; LANES]);
            for (position, letters) in text.iter().enumerate().take(length) {
                let masks = $masks(&pattern, rows, letters);
                for lane in 0..LANES {
                    let (mask, vertical) = (masks[lane], plus[lane]);
                    let swap =
                        if OSA { ((!diagonal[lane] & mask) << 1) & previous[lane] } else { 0 };
                    let equal = ((mask & vertical).wrapping_add(vertical) ^ vertical)
                        | mask
                        | minus[lane]
                        | swap;
                    let up = minus[lane] | !(equal | vertical);
                    let down = equal & vertical;
                    let going = position < usize::from(group.text_len[lane]);
                    let step = (up & last[lane] != 0) as u8;
                    let back = (down & last[lane] != 0) as u8;
                    let change = step.wrapping_sub(back);
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
            distance
        }

        /// Matches and those out of order, of each lane.
        #[inline(always)]
        fn $jaro(group: &Group) -> ([u8; LANES], [u8; LANES]) {
            let (pattern, text) = columns(group, $width);
            let (rows, length) = (longest(&group.pattern_len), longest(&group.text_len));
            let (mut window, mut near, mut inside) = ([0_u8; LANES], [0; LANES], [0; LANES]);
            for lane in 0..LANES {
                let longer = group.text_len[lane].max(group.pattern_len[lane]);
                window[lane] = (longer / 2).saturating_sub(1);
            }
            for row in 0..rows.min($width) {
                let bit: $word = 1 << row;
                for lane in 0..LANES {
                    near[lane] |= if row as u8 <= window[lane] { bit } else { 0 };
                    inside[lane] |= if (row as u8) < group.pattern_len[lane] { bit } else { 0 };
                }
            }
            let mut taken = [0 as $word; LANES];
            let mut seen = [[0 as $word; LANES]; SHORT];
            let mut hits = [[0 as $word; LANES]; SHORT];
            for (position, letters) in text.iter().enumerate().take(length) {
                let masks = $masks(&pattern, rows, letters);
                for lane in 0..LANES {
                    let going = (position as u8) < group.text_len[lane];
                    let mask = if going { masks[lane] & inside[lane] } else { 0 };
                    let free = mask & near[lane] & !taken[lane];
                    taken[lane] |= free & free.wrapping_neg();
                    seen[position][lane] = mask;
                    hits[position][lane] = if free != 0 { <$word>::MAX } else { 0 };
                    let open = ((position as u8) < window[lane]) as $word;
                    near[lane] = (near[lane] << 1) | open;
                }
            }
            let (mut matches, mut unordered) = ([0 as $word; LANES], [0 as $word; LANES]);
            for (seen, hits) in seen.iter().zip(&hits).take(length) {
                for lane in 0..LANES {
                    let lowest = taken[lane] & taken[lane].wrapping_neg() & hits[lane];
                    matches[lane] += hits[lane] & 1;
                    let wrong = if seen[lane] & lowest == 0 { hits[lane] & 1 } else { 0 };
                    unordered[lane] += wrong;
                    taken[lane] ^= lowest;
                }
            }
            (matches.map(|count| count as u8), unordered.map(|count| count as u8))
        }
    };
}

kernels!(edit_bytes, jaro_bytes, masks_of_bytes, u8, 8);
kernels!(edit_words, jaro_words, masks_of_words, u16, 16);

/// The characters of a group's patterns and texts.
#[inline(always)]
fn columns(group: &Group, width: usize) -> (Columns<PATTERN>, Columns<SHORT>) {
    let mut pattern = [[0; LANES]; PATTERN];
    let mut text = [[0; LANES]; SHORT];
    for (words, columns) in group.pattern.iter().zip(pattern.chunks_exact_mut(8)).take(width / 8) {
        transpose(words, columns);
    }
    let used = longest(&group.text_len).div_ceil(8);
    for (words, columns) in group.text.iter().zip(text.chunks_exact_mut(8)).take(used) {
        transpose(words, columns);
    }
    (pattern, text)
}

/// A measure that runs on a whole group.
pub trait GroupKernel {
    /// What a pair gives.
    type Output: Copy;

    /// The results of the eight lanes of a group of longer texts.
    fn run_medium(&self, group: &mut MediumGroup) -> [Self::Output; MEDIUM_LANES];

    /// The results of the 32 lanes, for patterns of up to 8 or, when `wide`, 16 bytes.
    fn run(&self, group: &Group, wide: bool) -> [Self::Output; LANES];
}

/// Levenshtein or, with `OSA`, optimal-string-alignment distance.
#[derive(Debug, Clone, Copy)]
pub struct EditLanes<const OSA: bool>(pub Arch);

impl<const OSA: bool> GroupKernel for EditLanes<OSA> {
    type Output = u8;

    #[inline]
    fn run_medium(&self, group: &mut MediumGroup) -> [u8; MEDIUM_LANES] {
        self.0.dispatch(MediumEdit::<OSA>(group))
    }

    #[inline]
    fn run(&self, group: &Group, wide: bool) -> [u8; LANES] {
        if wide {
            self.0.dispatch(WordEdit::<OSA>(group))
        } else {
            self.0.dispatch(ByteEdit::<OSA>(group))
        }
    }
}

/// Jaro or, with `WINKLER`, Jaro-Winkler similarity.
#[derive(Debug, Clone, Copy)]
pub struct JaroLanes<const WINKLER: bool>(pub Arch);

impl<const WINKLER: bool> GroupKernel for JaroLanes<WINKLER> {
    type Output = f64;

    #[inline]
    fn run_medium(&self, group: &mut MediumGroup) -> [f64; MEDIUM_LANES] {
        self.0.dispatch(MediumJaro::<WINKLER>(group))
    }

    #[inline]
    fn run(&self, group: &Group, wide: bool) -> [f64; LANES] {
        if wide {
            self.0.dispatch(WordJaro::<WINKLER>(group))
        } else {
            self.0.dispatch(ByteJaro::<WINKLER>(group))
        }
    }
}

/// A kernel as `pulp` dispatches it. A closure would not do: the compiler keeps its body out of the
/// function that has the instruction set switched on.
macro_rules! dispatched {
    ($name:ident, $flag:ident, $group:ty, $output:ty, $kernel:expr) => {
        struct $name<'a, const $flag: bool>(&'a $group);

        impl<const $flag: bool> WithSimd for $name<'_, $flag> {
            type Output = $output;

            #[inline(always)]
            fn with_simd<S: Simd>(self, _simd: S) -> $output {
                $kernel(self.0)
            }
        }
    };
}

dispatched!(ByteEdit, OSA, Group, [u8; LANES], edit_bytes::<OSA>);
dispatched!(WordEdit, OSA, Group, [u8; LANES], edit_words::<OSA>);
dispatched!(MediumEdit, OSA, MediumGroup, [u8; MEDIUM_LANES], medium::edit::<OSA>);
dispatched!(ByteJaro, WINKLER, Group, [f64; LANES], byte_similarities::<WINKLER>);
dispatched!(WordJaro, WINKLER, Group, [f64; LANES], word_similarities::<WINKLER>);

struct MediumJaro<'a, const WINKLER: bool>(&'a mut MediumGroup);

impl<const WINKLER: bool> WithSimd for MediumJaro<'_, WINKLER> {
    type Output = [f64; MEDIUM_LANES];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f64; MEDIUM_LANES] {
        medium::jaro::<S, WINKLER>(simd, self.0)
    }
}

#[inline(always)]
fn byte_similarities<const WINKLER: bool>(group: &Group) -> [f64; LANES] {
    let (matches, unordered) = jaro_bytes(group);
    similarities::<WINKLER>(group, &matches, &unordered)
}

#[inline(always)]
fn word_similarities<const WINKLER: bool>(group: &Group) -> [f64; LANES] {
    let (matches, unordered) = jaro_words(group);
    similarities::<WINKLER>(group, &matches, &unordered)
}

#[inline(always)]
fn similarities<const WINKLER: bool>(
    group: &Group,
    matches: &[u8; LANES],
    unordered: &[u8; LANES],
) -> [f64; LANES] {
    let mut similarity = [0.0; LANES];
    for lane in 0..LANES {
        let common = f64::from(matches[lane]);
        let pattern_len = f64::from(group.pattern_len[lane]);
        let text_len = f64::from(group.text_len[lane]);
        let in_order = common - f64::from(unordered[lane] / 2);
        let jaro = (common / pattern_len + common / text_len + in_order / common) / 3.0;
        similarity[lane] = if matches[lane] == 0 { 0.0 } else { jaro };
    }
    if WINKLER {
        for slot in 0..LANES {
            let lane = lane(slot);
            let unlike = group.pattern[0][slot] ^ group.text[0][slot];
            let prefix = (unlike.trailing_zeros() / 8).min(u32::from(group.pattern_len[lane]));
            similarity[lane] = super::jaro::winkler(similarity[lane], prefix as usize);
        }
    }
    similarity
}

/// Sorts pairs of short texts into groups of alike lengths and runs the full ones.
#[derive(Debug, Clone)]
pub struct Groups<K> {
    kernel: K,
    groups: Vec<Group>,
    medium: MediumGroup,
}

impl<K: GroupKernel> Groups<K> {
    /// Starts without pairs.
    pub fn new(kernel: K) -> Self {
        let groups = vec![Group::default(); 2 * (WORDS + 1)];
        Self { kernel, groups, medium: MediumGroup::default() }
    }

    /// Adds a pair and gives back the results of the group that it completes, as `(row, result)`.
    /// False, and nothing is added, when the pair does not fit a lane: both texts longer than 16
    /// bytes, or one empty.
    #[inline(always)]
    pub fn push(
        &mut self,
        row: usize,
        left: &Short,
        right: &Short,
        take: impl FnMut(usize, K::Output),
    ) -> bool {
        let (pattern, text) = if left.len <= right.len { (left, right) } else { (right, left) };
        if pattern.len() > PATTERN || pattern.is_empty() {
            return false;
        }
        let wide = pattern.len() > 8;
        let index = 2 * text.len().div_ceil(8) + usize::from(wide);
        if self.groups[index].push(row, pattern, text) {
            self.flush(index, take);
        }
        true
    }

    /// Adds a pair that [`Self::push`] refused, likewise. False, and nothing is added, when one of
    /// the texts is empty or has more than 64 code points.
    #[inline]
    pub fn push_medium(
        &mut self,
        row: usize,
        pattern: &Pattern,
        text: &str,
        scratch: &mut Scratch,
        take: impl FnMut(usize, K::Output),
    ) -> bool {
        match pattern.add_to(&mut self.medium, row, text, scratch) {
            None => return false,
            Some(true) => self.flush_medium(take),
            Some(false) => {}
        }
        true
    }

    fn flush_medium(&mut self, mut take: impl FnMut(usize, K::Output)) {
        let results = self.kernel.run_medium(&mut self.medium);
        self.medium.drain(|row, lane| take(row, results[lane]));
    }

    /// Runs the groups that are not full.
    pub fn finish(&mut self, mut take: impl FnMut(usize, K::Output)) {
        if !self.medium.is_empty() {
            self.flush_medium(&mut take);
        }
        for index in 0..self.groups.len() {
            if self.groups[index].count > 0 {
                self.flush(index, &mut take);
            }
        }
    }

    #[inline]
    fn flush(&mut self, index: usize, mut take: impl FnMut(usize, K::Output)) {
        let group = &mut self.groups[index];
        let results = self.kernel.run(group, index % 2 == 1);
        group.drain(|row, lane| take(row, results[lane]));
    }
}

#[cfg(test)]
mod tests;
