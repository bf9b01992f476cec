//! One text prepared for comparison with many others.
//!
//! Code points become symbols: ASCII is itself, the pattern's other code points follow from 128 in
//! order, and any code point that the pattern lacks is one last symbol. No kernel needs more: it
//! only asks whether a symbol of one text equals one of the other. With up to 127 such code points
//! a symbol is a byte and ASCII text is read where it lies; beyond that it is a `u32`.

use super::damerau::{self, DamerauScratch};
use super::edit::{self, BlockScratch};
use super::jaro::{self, LongScratch};
use super::medium::{MEDIUM, MediumGroup};
use super::{clear_masks, set_masks, subsequence, windows};
use crate::fuzzy::stop::Stop;

/// The first symbol that is no ASCII character.
const FIRST_OTHER: usize = 128;

/// A text prepared for comparison. Immutable comparisons share it between threads; each thread
/// brings its own [`Scratch`].
#[derive(Debug, Clone)]
pub struct Pattern {
    /// Bit i of `masks[s]`: the i-th symbol is s. Filled for 1..=64 symbols.
    masks: Box<[u64; 256]>,
    narrow: Vec<u8>,
    wide: Vec<u32>,
    /// The distinct code points beyond ASCII, in order.
    others: Vec<char>,
}

/// Working memory of the comparisons, reused from pair to pair.
#[derive(Debug, Default, Clone)]
pub struct Scratch {
    narrow: Vec<u8>,
    wide: Vec<u32>,
    blocks: BlockScratch,
    damerau: DamerauScratch,
    jaro: LongScratch,
}

impl Scratch {
    /// Working memory of comparisons that end early, with any result, once nobody wants it.
    pub fn new(stop: Stop) -> Self {
        let blocks = BlockScratch { stop, ..BlockScratch::default() };
        Self { blocks, ..Self::default() }
    }

    pub(crate) fn stop(&self) -> &Stop {
        &self.blocks.stop
    }
}

impl Default for Pattern {
    fn default() -> Self {
        Self { masks: Box::new([0; 256]), narrow: Vec::new(), wide: Vec::new(), others: Vec::new() }
    }
}

impl Pattern {
    /// Prepares a text.
    pub fn new(text: &str) -> Self {
        let mut pattern = Self::default();
        pattern.reset(text);
        pattern
    }

    /// Prepares another text in place, without allocating when it is not longer.
    pub fn reset(&mut self, text: &str) {
        if self.has_masks() {
            clear_masks(&mut self.masks[..], &self.narrow);
        }
        self.narrow.clear();
        self.wide.clear();
        self.others.clear();
        if text.is_ascii() {
            self.narrow.extend_from_slice(text.as_bytes());
        } else {
            self.others.extend(text.chars().filter(|letter| !letter.is_ascii()));
            self.others.sort_unstable();
            self.others.dedup();
            if self.is_narrow() {
                encode(&self.others, text, &mut self.narrow);
            } else {
                encode(&self.others, text, &mut self.wide);
            }
        }
        if self.has_masks() {
            set_masks(&mut self.masks[..], &self.narrow);
        }
    }

    /// Length in code points.
    pub fn len(&self) -> usize {
        self.narrow.len().max(self.wide.len())
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is_narrow(&self) -> bool {
        self.others.len() < 256 - FIRST_OTHER
    }

    fn has_masks(&self) -> bool {
        (1..=64).contains(&self.narrow.len())
    }

    fn symbols(&self) -> usize {
        256.max(FIRST_OTHER + self.others.len() + 1)
    }

    /// The Levenshtein distance to a text; `None` when it is more than `max`.
    pub fn levenshtein(&self, text: &str, max: usize, scratch: &mut Scratch) -> Option<usize> {
        self.edit::<false>(text, max, scratch)
    }

    /// The optimal-string-alignment distance to a text; `None` when it is more than `max`.
    pub fn osa(&self, text: &str, max: usize, scratch: &mut Scratch) -> Option<usize> {
        self.edit::<true>(text, max, scratch)
    }

    /// Whether the Levenshtein distance to a text is at most `max`.
    pub fn levenshtein_within(&self, text: &str, max: usize, scratch: &mut Scratch) -> bool {
        self.levenshtein(text, max, scratch).is_some()
    }

    /// Levenshtein, or with `OSA` optimal-string-alignment distance; `None` beyond `max`.
    #[inline]
    pub fn edit<const OSA: bool>(
        &self,
        text: &str,
        max: usize,
        scratch: &mut Scratch,
    ) -> Option<usize> {
        let Scratch { narrow, wide, blocks, .. } = scratch;
        if !self.is_narrow() {
            wide.clear();
            encode(&self.others, text, wide);
            return edit::blocks::<OSA, u32>(&self.wide, wide, self.symbols(), max, blocks);
        }
        let text = self.narrow_text(text, narrow);
        if self.has_masks() {
            return edit::word::<OSA>(&self.masks, self.narrow.len(), text, max);
        }
        if disjoint(&self.narrow, text) {
            let distance = self.narrow.len().max(text.len());
            return (distance <= max).then_some(distance);
        }
        edit::blocks::<OSA, u8>(&self.narrow, text, 256, max, blocks)
    }

    /// The unrestricted Damerau-Levenshtein distance to a text.
    pub fn damerau(&self, text: &str, scratch: &mut Scratch) -> usize {
        let Scratch { narrow, wide, blocks, damerau, .. } = scratch;
        if !self.is_narrow() {
            wide.clear();
            encode(&self.others, text, wide);
            return damerau::distance(&self.wide, wide, self.symbols(), damerau, &blocks.stop);
        }
        let text = self.narrow_text(text, narrow);
        damerau::distance(&self.narrow, text, 256, damerau, &blocks.stop)
    }

    /// The Jaro similarity to a text, 0 to 1.
    pub fn jaro(&self, text: &str, scratch: &mut Scratch) -> f64 {
        self.jaro_and_prefix(text, scratch).0
    }

    /// The Jaro-Winkler similarity to a text, 0 to 1.
    pub fn jaro_winkler(&self, text: &str, scratch: &mut Scratch) -> f64 {
        let (jaro, prefix) = self.jaro_and_prefix(text, scratch);
        jaro::winkler(jaro, prefix)
    }

    fn jaro_and_prefix(&self, text: &str, scratch: &mut Scratch) -> (f64, usize) {
        let Scratch { narrow, wide, jaro: long, .. } = scratch;
        if !self.is_narrow() {
            wide.clear();
            encode(&self.others, text, wide);
            let (matches, unordered) = jaro::long(&self.wide, wide, self.symbols(), long);
            let jaro = jaro::similarity(matches, unordered, self.wide.len(), wide.len());
            return (jaro, common_prefix(&self.wide, wide));
        }
        let text = self.narrow_text(text, narrow);
        let (matches, unordered) = if self.has_masks() && text.len() <= 64 {
            jaro::word(&self.masks, self.narrow.len(), text)
        } else {
            jaro::long(&self.narrow, text, 256, long)
        };
        let jaro = jaro::similarity(matches, unordered, self.narrow.len(), text.len());
        (jaro, common_prefix(&self.narrow, text))
    }

    /// Length of the longest common subsequence with a text, and the text's length.
    pub fn common_subsequence(&self, text: &str, scratch: &mut Scratch) -> (usize, usize) {
        let Scratch { narrow, wide, blocks, .. } = scratch;
        if !self.is_narrow() {
            wide.clear();
            encode(&self.others, text, wide);
            return (subsequence::blocks(&self.wide, wide, self.symbols(), blocks), wide.len());
        }
        let text = self.narrow_text(text, narrow);
        let common = if self.has_masks() {
            subsequence::word(&self.masks[..], self.narrow.len(), text)
        } else if disjoint(&self.narrow, text) {
            0
        } else {
            subsequence::blocks(&self.narrow, text, 256, blocks)
        };
        (common, text.len())
    }

    /// `2·LCS / (|a| + |b|)`, 0 to 1: the normalized insertion-and-deletion similarity.
    pub fn ratio(&self, text: &str, scratch: &mut Scratch) -> f64 {
        let (common, text_len) = self.common_subsequence(text, scratch);
        subsequence::ratio(common, self.len(), text_len)
    }

    /// The best ratio, 0 to 1, of the shorter text to a window of the longer; `None` when it takes
    /// too many steps, and when nobody wants it any more.
    pub fn partial_ratio(&self, text: &str, scratch: &mut Scratch) -> Option<f64> {
        let Scratch { narrow, wide, blocks, .. } = scratch;
        if !self.is_narrow() {
            wide.clear();
            encode(&self.others, text, wide);
            return windows::best(&self.wide, wide, self.symbols(), blocks);
        }
        windows::best(&self.narrow, self.narrow_text(text, narrow), 256, blocks)
    }

    /// Adds the pair to a group; `None` when a text is empty or has more than 64 code points,
    /// otherwise whether the group is full.
    #[inline]
    pub(crate) fn add_to(
        &self,
        group: &mut MediumGroup,
        row: usize,
        text: &str,
        scratch: &mut Scratch,
    ) -> Option<bool> {
        if !self.has_masks() || text.is_empty() || text.len() > 4 * MEDIUM {
            return None;
        }
        let text = self.narrow_text(text, &mut scratch.narrow);
        (text.len() <= MEDIUM).then(|| group.push(row, &self.masks, &self.narrow, text))
    }

    #[inline]
    fn narrow_text<'a>(&self, text: &'a str, buffer: &'a mut Vec<u8>) -> &'a [u8] {
        if text.is_ascii() {
            return text.as_bytes();
        }
        buffer.clear();
        encode(&self.others, text, buffer);
        buffer
    }
}

/// Appends the symbols of a text; the code points absent from `others` are one symbol after them.
fn encode<S: TryFrom<usize>>(others: &[char], text: &str, symbols: &mut Vec<S>) {
    symbols.extend(text.chars().filter_map(|letter| {
        let symbol = if letter.is_ascii() {
            letter as usize
        } else {
            FIRST_OTHER + others.binary_search(&letter).unwrap_or(others.len())
        };
        S::try_from(symbol).ok()
    }));
}

/// Whether two texts share no symbol; a quick answer for long texts only.
fn disjoint(left: &[u8], right: &[u8]) -> bool {
    let mut seen = [false; 256];
    for &symbol in left {
        seen[usize::from(symbol)] = true;
    }
    !right.iter().any(|&symbol| seen[usize::from(symbol)])
}

fn common_prefix<S: Eq>(left: &[S], right: &[S]) -> usize {
    left.iter().zip(right).take(4).take_while(|(x, y)| x == y).count()
}
