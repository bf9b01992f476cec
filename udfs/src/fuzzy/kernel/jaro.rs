//! Jaro and Jaro-Winkler similarity.
//!
//! Two equal symbols match when their positions differ by at most `max(|a|, |b|) / 2 - 1`; with m
//! matches, of which t (half of those out of order, rounded down) are transposed,
//! `jaro = (m/|a| + m/|b| + (m - t)/m) / 3`. Winkler adds `0.1·p·(1 - jaro)` for a common prefix
//! of p ≤ 4 symbols when jaro > 0.7 (Winkler 1990; as RapidFuzz and DuckDB). Two empty texts give
//! 1, one empty text 0.
//!
//! Which symbols match does not depend on the side one starts from: within one symbol the greedy
//! choice walks both position lists in order. Long texts use that walk, in linear time; a pattern
//! of up to 64 symbols keeps its free matches in the bits of a word.

use super::{Symbol, low_bits};

/// How far apart two equal symbols may stand and still match.
#[inline]
pub(crate) fn window(left_len: usize, right_len: usize) -> usize {
    (left_len.max(right_len) / 2).saturating_sub(1)
}

/// Matches and those out of order, of a pattern of 1..=64 symbols and a text of at most 64.
#[inline]
pub fn word(masks: &[u64; 256], pattern_len: usize, text: &[u8]) -> (usize, usize) {
    let window = window(pattern_len, text.len());
    let mut near = low_bits(window + 1);
    let (mut taken, mut hits) = (0_u64, 0_u64);
    for (position, &symbol) in text.iter().enumerate() {
        let free = masks[usize::from(symbol)] & near & !taken;
        taken |= free & free.wrapping_neg();
        hits |= u64::from(free != 0) << position;
        near = (near << 1) | u64::from(position < window);
    }
    let matches = taken.count_ones() as usize;
    let mut out_of_order = 0;
    while hits != 0 {
        let position = hits.trailing_zeros() as usize;
        let lowest = taken & taken.wrapping_neg();
        out_of_order += usize::from(masks[usize::from(text[position])] & lowest == 0);
        taken ^= lowest;
        hits &= hits - 1;
    }
    (matches, out_of_order)
}

/// Working memory of [`long`], reused from pair to pair.
#[derive(Debug, Default, Clone)]
pub struct LongScratch {
    /// Where the positions of each symbol begin; then where its next free one is.
    next: Vec<usize>,
    ends: Vec<usize>,
    positions: Vec<usize>,
    taken: Vec<bool>,
    matched: Vec<usize>,
}

/// Matches and those out of order, of two texts of any length with symbols below `symbols`.
pub fn long<S: Symbol>(
    pattern: &[S],
    text: &[S],
    symbols: usize,
    scratch: &mut LongScratch,
) -> (usize, usize) {
    let window = window(pattern.len(), text.len());
    let LongScratch { next, ends, positions, taken, matched } = scratch;
    index_positions(pattern, symbols, next, ends, positions);
    taken.clear();
    taken.resize(pattern.len(), false);
    matched.clear();
    for (position, symbol) in text.iter().enumerate() {
        let index = symbol.index();
        let end = ends[index];
        let mut free = next[index];
        while free < end && positions[free] + window < position {
            free += 1;
        }
        if free < end && positions[free] <= position + window {
            taken[positions[free]] = true;
            matched.push(position);
            free += 1;
        }
        next[index] = free;
    }
    let in_pattern = taken.iter().enumerate().filter(|(_, taken)| **taken).map(|(at, _)| at);
    let out_of_order = in_pattern.zip(matched.iter()).filter(|(p, t)| pattern[*p] != text[**t]);
    (matched.len(), out_of_order.count())
}

/// Sorts the positions of a pattern by symbol: `positions[next[s]..ends[s]]` are those of `s`.
fn index_positions<S: Symbol>(
    pattern: &[S],
    symbols: usize,
    next: &mut Vec<usize>,
    ends: &mut Vec<usize>,
    positions: &mut Vec<usize>,
) {
    next.clear();
    next.resize(symbols, 0);
    for symbol in pattern {
        next[symbol.index()] += 1;
    }
    let mut begin = 0;
    for count in next.iter_mut() {
        let size = *count;
        *count = begin;
        begin += size;
    }
    ends.clear();
    ends.extend_from_slice(next);
    positions.clear();
    positions.resize(pattern.len(), 0);
    for (position, symbol) in pattern.iter().enumerate() {
        let end = &mut ends[symbol.index()];
        positions[*end] = position;
        *end += 1;
    }
}

/// The Jaro similarity of two texts with these matches, not both empty.
#[inline]
pub fn similarity(matches: usize, out_of_order: usize, left_len: usize, right_len: usize) -> f64 {
    if matches == 0 {
        return if left_len + right_len == 0 { 1.0 } else { 0.0 };
    }
    let common = matches as f64;
    let in_order = common - (out_of_order / 2) as f64;
    (common / left_len as f64 + common / right_len as f64 + in_order / common) / 3.0
}

/// Winkler's bonus for a common prefix of `prefix` symbols (at most 4 count).
#[inline]
pub fn winkler(jaro: f64, prefix: usize) -> f64 {
    if jaro > 0.7 { jaro + 0.1 * prefix.min(4) as f64 * (1.0 - jaro) } else { jaro }
}
