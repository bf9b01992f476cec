//! The best ratio of the shorter text to a window of the longer.
//!
//! Windows are as long as the shorter text, or shorter and at one of the two ends; for equal
//! lengths, both ways round. Moving a window by one changes its longest common subsequence by at
//! most one, so windows that cannot win are skipped.

use super::edit::BlockScratch;
use super::{Symbol, clear_masks, set_masks, subsequence};
use crate::fuzzy::stop::Pace;

/// Most steps (64 cells of a matrix each) for one pair: some ten seconds.
const WORK_MAX: u64 = 4_000_000_000;

/// The best ratio, 0 to 1, of two texts whose symbols are below `symbols`; `None` when it takes too
/// many steps, and when nobody wants it any more.
pub fn best<S: Symbol>(
    left: &[S],
    right: &[S],
    symbols: usize,
    scratch: &mut BlockScratch,
) -> Option<f64> {
    if left.is_empty() || right.is_empty() {
        return Some(if left.len() == right.len() { 1.0 } else { 0.0 });
    }
    scratch.masks.resize(scratch.masks.len().max(symbols), 0);
    if !share_symbols(left, right, &mut scratch.masks) {
        return Some(0.0);
    }
    let stop = scratch.stop.clone();
    let (needle, hay) = if left.len() <= right.len() { (left, right) } else { (right, left) };
    let mut windows = Windows { needle, hay, symbols, scratch, pace: stop.pace(), work: 0 };
    let best = windows.one_way(0.0)?;
    if needle.len() < hay.len() {
        return Some(best);
    }
    (windows.needle, windows.hay) = (hay, needle);
    windows.one_way(best)
}

/// Whether two texts have a symbol in common, by masks that are all zero before and after.
fn share_symbols<S: Symbol>(left: &[S], right: &[S], masks: &mut [u64]) -> bool {
    for symbol in left {
        masks[symbol.index()] = 1;
    }
    let shared = right.iter().any(|symbol| masks[symbol.index()] != 0);
    clear_masks(masks, left);
    shared
}

struct Windows<'a, S> {
    needle: &'a [S],
    hay: &'a [S],
    symbols: usize,
    scratch: &'a mut BlockScratch,
    pace: Pace<'a>,
    work: u64,
}

impl<S: Symbol> Windows<'_, S> {
    /// The better of `best` and the windows of the hay.
    fn one_way(&mut self, mut best: f64) -> Option<f64> {
        let fits_word = self.needle.len() <= 64;
        if fits_word {
            set_masks(&mut self.scratch.masks, self.needle);
        }
        let result = self.all(&mut best);
        if fits_word {
            clear_masks(&mut self.scratch.masks, self.needle);
        }
        result.map(|()| best)
    }

    fn all(&mut self, best: &mut f64) -> Option<()> {
        let (length, end) = (self.needle.len(), self.hay.len());
        let mut most = 0;
        let mut from = 0;
        while from + length <= end {
            let common = self.common(from, from + length)?;
            most = most.max(common);
            from += (most + 1 - common).max(1);
        }
        *best = best.max(subsequence::ratio(most, length, length));
        for at_start in [true, false] {
            let mut size = length - 1;
            while size > 0 && subsequence::ratio(size, length, size) > *best {
                let (from, to) = if at_start { (0, size) } else { (end - size, end) };
                let common = self.common(from, to)?;
                *best = best.max(subsequence::ratio(common, length, size));
                // A smaller window shares no more, so only one this small can be better.
                let small_enough = (2 * common) as f64 / *best - length as f64;
                size = (size - 1).min(small_enough as usize);
            }
        }
        Some(())
    }

    /// LCS of the needle and a window; `None` when the pair has taken too many steps.
    fn common(&mut self, from: usize, to: usize) -> Option<usize> {
        let window = self.hay.get(from..to).unwrap_or_default();
        let length = self.needle.len();
        let steps = length.div_ceil(64) * window.len();
        self.work += steps as u64;
        if self.work > WORK_MAX {
            return None;
        }
        self.pace.spend(steps).ok()?;
        if length <= 64 {
            return Some(subsequence::word(&self.scratch.masks, length, window));
        }
        Some(subsequence::blocks(self.needle, window, self.symbols, self.scratch))
    }
}
