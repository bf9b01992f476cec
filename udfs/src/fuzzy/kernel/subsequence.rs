//! Longest common subsequence, bit-parallel, and the ratio that is built on it.
//!
//! A row of the matrix is one word whose zero bits count the matches (Hyyrö 2004). Texts longer
//! than 64 go block by block; the addition's carry between blocks is one byte a column.
//! `ratio = 2·LCS / (|a| + |b|)`, 1 for two empty texts: RapidFuzz's `fuzz.ratio` divided by 100.

use super::edit::BlockScratch;
use super::{Symbol, clear_masks, low_bits, set_masks, strip_common};

/// Length of the longest common subsequence of a pattern of at most 64 symbols and a text.
#[inline]
pub fn word<S: Symbol>(masks: &[u64], pattern_len: usize, text: &[S]) -> usize {
    let mut state = u64::MAX;
    for symbol in text {
        let matched = state & masks[symbol.index()];
        state = state.wrapping_add(matched) | (state - matched);
    }
    (!state & low_bits(pattern_len)).count_ones() as usize
}

/// Length of the longest common subsequence of two texts whose symbols are below `symbols`; any
/// number once nobody wants it.
pub fn blocks<S: Symbol>(
    left: &[S],
    right: &[S],
    symbols: usize,
    scratch: &mut BlockScratch,
) -> usize {
    let (short, long) = strip_common(left, right);
    let common = left.len() - short.len();
    let (rows, columns) = if short.len() <= long.len() { (short, long) } else { (long, short) };
    let BlockScratch { masks, carry, stop } = scratch;
    let mut pace = stop.pace();
    masks.resize(masks.len().max(symbols), 0);
    carry.clear();
    carry.resize(columns.len(), 0);
    let mut length = common;
    for block in rows.chunks(64) {
        if pace.spend(columns.len()).is_err() {
            break;
        }
        set_masks(masks, block);
        let mut state = u64::MAX;
        for (symbol, carried) in columns.iter().zip(carry.iter_mut()) {
            let matched = state & masks[symbol.index()];
            let (sum, first) = state.overflowing_add(matched);
            let (sum, second) = sum.overflowing_add(u64::from(*carried));
            *carried = u8::from(first | second);
            state = sum | (state - matched);
        }
        clear_masks(masks, block);
        length += (!state & low_bits(block.len())).count_ones() as usize;
    }
    length
}

/// `2·LCS / (|a| + |b|)`; 1 when both are empty.
#[inline]
pub fn ratio(common: usize, left_len: usize, right_len: usize) -> f64 {
    let total = left_len + right_len;
    if total == 0 { 1.0 } else { (2 * common) as f64 / total as f64 }
}
