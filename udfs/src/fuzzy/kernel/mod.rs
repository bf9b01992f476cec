//! Kernels over two texts, as pure functions of slices: no Arrow here.
//!
//! [`Pattern`] prepares one text for comparison with many others; [`lanes`] compares 32 pairs of
//! short texts at once, [`medium`] eight pairs of up to 64 symbols. All count Unicode code points
//! and give what the plain definitions give: the tests hold them against the textbook recurrences.

pub mod column;
pub mod damerau;
pub mod edit;
pub mod jaro;
pub mod lanes;
pub mod medium;
mod pattern;
pub mod sets;
pub mod subsequence;
pub mod windows;

#[cfg(test)]
pub(crate) mod oracle;

pub use pattern::{Pattern, Scratch};

/// The lowest `count` bits; all of them from 64 on.
#[inline]
pub(crate) fn low_bits(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

/// A letter of an encoded text: an index into a table of pattern masks.
pub trait Symbol: Copy + Eq {
    /// Position in the table.
    fn index(self) -> usize;
}

impl Symbol for u8 {
    #[inline]
    fn index(self) -> usize {
        usize::from(self)
    }
}

impl Symbol for u32 {
    #[inline]
    fn index(self) -> usize {
        self as usize
    }
}

/// Cuts the common beginning and end off two texts.
pub(crate) fn strip_common<'a, S: Symbol>(
    mut left: &'a [S],
    mut right: &'a [S],
) -> (&'a [S], &'a [S]) {
    let prefix = left.iter().zip(right).take_while(|(x, y)| x == y).count();
    (left, right) = (&left[prefix..], &right[prefix..]);
    let suffix = left.iter().rev().zip(right.iter().rev()).take_while(|(x, y)| x == y).count();
    (&left[..left.len() - suffix], &right[..right.len() - suffix])
}

/// Sets the masks of a block of at most 64 symbols.
pub(crate) fn set_masks<S: Symbol>(masks: &mut [u64], block: &[S]) {
    for (position, symbol) in block.iter().enumerate() {
        masks[symbol.index()] |= 1 << position;
    }
}

/// Clears what [`set_masks`] set.
pub(crate) fn clear_masks<S: Symbol>(masks: &mut [u64], block: &[S]) {
    for symbol in block {
        masks[symbol.index()] = 0;
    }
}
