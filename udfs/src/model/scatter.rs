//! A stable counting sort of cells by key, on all threads.
//!
//! Each thread has a range of the keys: it reads all cells in order and writes those of its own
//! keys. So the result is the same whatever the number of threads, and nothing is held beside it.
//! What is another thread's costs a comparison, and no branch that nobody could foresee.

use std::ops::Range;

use rayon::prelude::*;

/// Fewer cells than this are no work for another thread.
const PART_CELLS: usize = 1 << 14;

/// Cells of which a thread picks its own at a time.
const BLOCK: usize = 256;

/// How often each of the keys 0 to `count` − 1 occurs.
pub(super) fn counts(keys: &[u32], count: usize) -> Vec<u32> {
    let count_part = |keys: &[u32]| {
        let mut counts = vec![0_u32; count];
        for &key in keys {
            counts[key as usize] += 1;
        }
        counts
    };
    // What threads count apart stays small beside the keys.
    let parts = (keys.len() / count.saturating_mul(4).max(PART_CELLS)).min(threads());
    if parts < 2 {
        return count_part(keys);
    }
    let add = |mut sums: Vec<u32>, more: Vec<u32>| {
        sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        sums
    };
    let parts = keys.par_chunks(keys.len().div_ceil(parts)).map(count_part);
    parts.reduce_with(add).unwrap_or_default()
}

/// Where the cells of each key start, and where the last one's end.
pub(super) fn offsets(counts: &[u32]) -> Vec<usize> {
    let mut offsets = Vec::with_capacity(counts.len() + 1);
    let mut end = 0;
    offsets.push(end);
    for &count in counts {
        end += count as usize;
        offsets.push(end);
    }
    offsets
}

/// Ranges of keys with about as many cells each, one a thread.
pub(super) fn ranges(offsets: &[usize]) -> Vec<Range<usize>> {
    let keys = offsets.len().saturating_sub(1);
    let cells = offsets.last().copied().unwrap_or(0);
    let parts = (cells / PART_CELLS).clamp(1, threads());
    let bound = |part: usize| match part == parts {
        true => keys,
        false => offsets.partition_point(|&offset| offset < cells / parts * part),
    };
    (0..parts).map(|part| bound(part)..bound(part + 1)).collect()
}

/// The cells of each range of keys.
pub(super) fn split<'a, T>(
    mut cells: &'a mut [T],
    offsets: &[usize],
    ranges: &[Range<usize>],
) -> Vec<&'a mut [T]> {
    let mut parts = Vec::with_capacity(ranges.len());
    for range in ranges {
        let length = offsets[range.end] - offsets[range.start];
        let (part, rest) = std::mem::take(&mut cells).split_at_mut(length);
        parts.push(part);
        cells = rest;
    }
    parts
}

/// Runs work on each part: on the current rayon pool, or a single one right here.
pub(super) fn each<T: Send, R: Send>(parts: Vec<T>, work: impl Fn(T) -> R + Sync + Send) -> Vec<R> {
    match parts.len() {
        0..=1 => parts.into_iter().map(work).collect(),
        _ => parts.into_par_iter().map(work).collect(),
    }
}

/// What each cell has beside its key, and the cells' values, both by key and, of one key, in the
/// order in which `read` hands all of them to any part.
pub(super) fn scatter(
    offsets: &[usize],
    read: impl Fn(&mut Part<'_>) + Sync,
) -> (Vec<u32>, Vec<f32>) {
    let cells = offsets.last().copied().unwrap_or(0);
    let (mut others, mut values) = (vec![0_u32; cells], vec![0_f32; cells]);
    let ranges = ranges(offsets);
    let written =
        split(&mut others, offsets, &ranges).into_iter().zip(split(&mut values, offsets, &ranges));
    let mut parts = Vec::with_capacity(ranges.len());
    for (range, (others, values)) in ranges.iter().zip(written) {
        let start = offsets[range.start];
        let next = offsets[range.clone()].iter().map(|offset| offset - start).collect();
        let own = vec![0; BLOCK];
        parts.push(Part { first: range.start as u32, next, others, values, own });
    }
    each(parts, |mut part| read(&mut part));
    (others, values)
}

/// The cells of a range of keys while they are written.
pub(super) struct Part<'a> {
    first: u32,
    /// Where the next cell of each key goes.
    next: Vec<usize>,
    others: &'a mut [u32],
    values: &'a mut [f32],
    /// Which cells of a block are its own.
    own: Vec<usize>,
}

impl Part<'_> {
    /// Takes those of some cells that are its own; `other(at)` is what each has beside key and
    /// value.
    #[inline]
    pub(super) fn take(&mut self, keys: &[u32], values: &[f32], other: impl Fn(usize) -> u32) {
        let Self { first, next, others, values: written, own } = self;
        let (first, count) = (*first, next.len() as u32);
        for (block, keys) in keys.chunks(BLOCK).enumerate() {
            let start = block * BLOCK;
            let mut picked = 0;
            for (at, &key) in keys.iter().enumerate() {
                own[picked] = at;
                picked += usize::from(key.wrapping_sub(first) < count);
            }
            for &at in &own[..picked] {
                let slot = &mut next[(keys[at] - first) as usize];
                others[*slot] = other(start + at);
                written[*slot] = values[start + at];
                *slot += 1;
            }
        }
    }
}

fn threads() -> usize {
    rayon::current_num_threads().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::random::mix;

    #[test]
    fn cells_are_by_key_in_their_order_whatever_the_number_of_threads() {
        let (cells, keys) = (200_000, 1_000);
        let key = |at: usize| (mix(at as u64) % keys as u64).min(mix(at as u64 + 1) % 900) as u32;
        let of_cells: Vec<u32> = (0..cells).map(key).collect();
        let values: Vec<f32> = (0..cells).map(|at| at as f32).collect();
        let mut expected: Vec<usize> = (0..cells).collect();
        expected.sort_by_key(|&at| of_cells[at]);
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (offsets, (others, found)) = pool.install(|| {
                let offsets = offsets(&counts(&of_cells, keys));
                let read = |part: &mut Part<'_>| part.take(&of_cells, &values, |at| at as u32);
                let written = scatter(&offsets, read);
                assert_eq!(ranges(&offsets).len(), threads);
                (offsets, written)
            });
            assert_eq!((offsets.len(), offsets[keys]), (keys + 1, cells));
            assert!(others.iter().map(|&at| at as usize).eq(expected.iter().copied()));
            assert!(found.iter().map(|&value| value as usize).eq(expected.iter().copied()));
        }
    }

    #[test]
    fn ranges_cover_all_keys_even_where_one_has_all_cells() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        pool.install(|| {
            for offsets in [vec![0, 0, 90_000, 90_000], vec![0; 5], vec![0]] {
                let ranges = ranges(&offsets);
                assert_eq!(ranges.first().map(|range| range.start), Some(0));
                assert_eq!(ranges.last().map(|range| range.end), Some(offsets.len() - 1));
                assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            }
        });
    }
}
