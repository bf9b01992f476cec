//! Levenshtein and optimal-string-alignment distance, bit-parallel.
//!
//! A column of the dynamic-programming matrix is kept as two words of vertical differences, one
//! bit a row (Myers 1999, in Hyyrö's form; the transposition term is Hyyrö 2003). Up to 64 rows
//! take one word a column; longer texts go block by block of 64 rows over all columns, and the
//! horizontal differences below a block are kept in one byte a column, so that memory grows with
//! the length of one text and never with the product. A bound limits each block to the band that
//! a cheap enough alignment can touch (Ukkonen 1985); cells outside it are over-estimated.

use super::{Symbol, clear_masks, set_masks, strip_common};
use crate::fuzzy::stop::Stop;

/// Bits of the byte that a block hands to the block below it.
const PLUS: u8 = 1;
const MINUS: u8 = 2;
const SWAP: u8 = 4;

/// Distance between a pattern of 1 to 64 symbols, given by its masks, and a text.
///
/// `OSA` also counts the swap of two adjacent symbols as one edit. `None` when the distance is
/// more than `max`.
#[inline]
pub fn word<const OSA: bool>(
    masks: &[u64; 256],
    pattern_len: usize,
    text: &[u8],
    max: usize,
) -> Option<usize> {
    if pattern_len.abs_diff(text.len()) > max {
        return None;
    }
    let last = pattern_len - 1;
    let (mut plus, mut minus) = (u64::MAX, 0_u64);
    let (mut diagonal, mut previous) = (0_u64, 0_u64);
    let mut distance = pattern_len as i64;
    let mut remaining = text.len();
    for chunk in text.chunks(16) {
        for &symbol in chunk {
            let mask = masks[usize::from(symbol)];
            let swap = if OSA { ((!diagonal & mask) << 1) & previous } else { 0 };
            diagonal = ((mask & plus).wrapping_add(plus) ^ plus) | mask | minus | swap;
            let up = minus | !(diagonal | plus);
            let down = diagonal & plus;
            distance += ((up >> last) & 1) as i64 - ((down >> last) & 1) as i64;
            let up = (up << 1) | 1;
            plus = (down << 1) | !(diagonal | up);
            minus = up & diagonal;
            previous = mask;
        }
        remaining -= chunk.len();
        if distance as usize > max.saturating_add(remaining) {
            return None;
        }
    }
    Some(distance as usize)
}

/// Working memory of [`blocks`], reused from pair to pair.
#[derive(Debug, Default, Clone)]
pub struct BlockScratch {
    pub(crate) masks: Vec<u64>,
    pub(crate) carry: Vec<u8>,
    /// Ends the comparison of two very long texts.
    pub(crate) stop: Stop,
}

/// Distance between two texts of any length whose symbols are below `symbols`; `None` beyond
/// `max`, and when nobody wants the result any more. Memory is the longer text plus `symbols`
/// words.
pub fn blocks<const OSA: bool, S: Symbol>(
    left: &[S],
    right: &[S],
    symbols: usize,
    max: usize,
    scratch: &mut BlockScratch,
) -> Option<usize> {
    let (left, right) = strip_common(left, right);
    let (rows, columns) = if left.len() <= right.len() { (left, right) } else { (right, left) };
    let width = columns.len();
    if width - rows.len() > max {
        return None;
    }
    if rows.is_empty() {
        return Some(width);
    }
    let band = max.min(width);
    let BlockScratch { masks, carry, stop } = scratch;
    let mut pace = stop.pace();
    masks.resize(masks.len().max(symbols), 0);
    carry.clear();
    carry.resize(width, PLUS);
    let mut top = 0;
    for (index, block) in rows.chunks(64).enumerate() {
        let first_row = index * 64;
        let from = first_row.saturating_sub(band);
        let to = (first_row + block.len()).saturating_add(band).min(width);
        let next_from = (first_row + 64).saturating_sub(band);
        pace.spend(to.saturating_sub(from)).ok()?;
        set_masks(masks, block);
        let strip = Strip { from, to, next_from, rows: block.len() };
        let (at_next, at_end) = strip.run::<OSA, S>(masks, columns, carry, top + block.len());
        clear_masks(masks, block);
        top = if first_row + 64 >= rows.len() { at_end } else { at_next };
    }
    (top <= max).then_some(top)
}

/// One block of rows over the columns `from..to`.
struct Strip {
    from: usize,
    to: usize,
    /// The column where the next block starts.
    next_from: usize,
    rows: usize,
}

impl Strip {
    /// Replaces `carry` by the differences below the block. `bottom` is the value below the block
    /// left of column `from`; the values left of `next_from` and after `to` are given back.
    #[inline]
    fn run<const OSA: bool, S: Symbol>(
        &self,
        masks: &[u64],
        columns: &[S],
        carry: &mut [u8],
        bottom: usize,
    ) -> (usize, usize) {
        let last = self.rows - 1;
        let (mut plus, mut minus) = (u64::MAX, 0_u64);
        let (mut diagonal, mut previous) = (0_u64, 0_u64);
        let mut value = bottom as i64;
        let mut at_next = value;
        let span = self.from..self.to;
        for (column, (symbol, carried)) in
            span.clone().zip(columns[span.clone()].iter().zip(&mut carry[span]))
        {
            if column == self.next_from {
                at_next = value;
            }
            let above = *carried;
            let mask = masks[symbol.index()];
            let swapped = if OSA { !diagonal & mask } else { 0 };
            let swap = ((swapped << 1) | u64::from(above >> 2)) & previous;
            let equal = mask | u64::from((above & MINUS) >> 1);
            diagonal = ((equal & plus).wrapping_add(plus) ^ plus) | equal | minus | swap;
            let up = minus | !(diagonal | plus);
            let down = diagonal & plus;
            let up_out = ((up >> last) & 1) as u8;
            let down_out = ((down >> last) & 1) as u8;
            value += i64::from(up_out) - i64::from(down_out);
            *carried = up_out * PLUS + down_out * MINUS + ((swapped >> 63) as u8) * SWAP;
            let up = (up << 1) | u64::from(above & PLUS);
            let down = (down << 1) | u64::from((above & MINUS) >> 1);
            plus = down | !(diagonal | up);
            minus = up & diagonal;
            previous = mask;
        }
        if self.next_from >= self.to {
            at_next = value + (self.next_from - self.to) as i64;
        }
        (at_next.max(0) as usize, value.max(0) as usize)
    }
}
