//! The texts of an index in one piece of memory, ordered so that a bound is a range.

use std::ops::Range;

use super::InBlock;
use crate::fuzzy::stop::{Stop, Stopped};

/// Texts ordered by block, then size (length or number of elements), then key, if any, then text.
#[derive(Debug)]
pub(super) struct Texts {
    letters: String,
    /// Where each text begins, and the end of the last.
    starts: Vec<usize>,
    sizes: Vec<u32>,
    /// Each text's position among the values that were given.
    given: Vec<u32>,
    /// The runs of one size.
    runs: Vec<Run>,
    /// Where the runs of each block begin, and the end of the last.
    block_runs: Vec<u32>,
}

/// Texts of one size in one block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub size: u32,
    pub start: u32,
    pub end: u32,
}

impl Run {
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl Texts {
    /// Orders texts by their length in code points, and those of one length by their keys, if any.
    pub fn by_length(values: &[InBlock<'_>], keys: &[u64], stop: &Stop) -> Result<Self, Stopped> {
        let length = |text: &str| if text.is_ascii() { text.len() } else { text.chars().count() };
        let (mut sizes, mut pace) = (Vec::with_capacity(values.len()), stop.pace());
        for (_, text) in values {
            pace.spend(8 + text.len())?;
            sizes.push(length(text) as u32);
        }
        Self::by_size(values, &sizes, keys, stop)
    }

    /// Orders texts by the sizes given, and those of one size by their keys, if any.
    pub fn by_size(
        values: &[InBlock<'_>],
        sizes: &[u32],
        keys: &[u64],
        stop: &Stop,
    ) -> Result<Self, Stopped> {
        let key = |&at: &u32| {
            let ((block, text), key) = (values[at as usize], keys.get(at as usize));
            (block, sizes[at as usize], key, text)
        };
        let given = stop.sort((0..values.len() as u32).collect(), |x, y| key(x).cmp(&key(y)))?;
        let bytes = values.iter().map(|(_, text)| text.len()).sum();
        let mut letters = String::with_capacity(bytes);
        let mut starts = Vec::with_capacity(values.len() + 1);
        let mut ordered = Vec::with_capacity(values.len());
        let (mut runs, mut block_runs): (Vec<Run>, Vec<u32>) = (Vec::new(), Vec::new());
        let mut pace = stop.pace();
        starts.push(0);
        for (position, &at) in given.iter().enumerate() {
            let ((block, text), size) = (values[at as usize], sizes[at as usize]);
            pace.spend(64 + text.len())?;
            letters.push_str(text);
            starts.push(letters.len());
            ordered.push(size);
            let position = position as u32;
            let new_block = block as usize >= block_runs.len();
            while block as usize >= block_runs.len() {
                block_runs.push(runs.len() as u32);
            }
            match runs.last_mut() {
                Some(run) if !new_block && run.size == size => run.end = position + 1,
                _ => runs.push(Run { size, start: position, end: position + 1 }),
            }
        }
        block_runs.push(runs.len() as u32);
        Ok(Self { letters, starts, sizes: ordered, given, runs, block_runs })
    }

    pub fn len(&self) -> usize {
        self.given.len()
    }

    pub fn blocks(&self) -> usize {
        self.block_runs.len() - 1
    }

    pub fn text(&self, position: usize) -> &str {
        &self.letters[self.starts[position]..self.starts[position + 1]]
    }

    /// The bytes from a text's beginning on, others' after it, and its length in bytes.
    #[inline]
    pub fn bytes_from(&self, position: usize) -> (&[u8], usize) {
        let (start, end) = (self.starts[position], self.starts[position + 1]);
        (&self.letters.as_bytes()[start..], end - start)
    }

    pub fn size(&self, position: usize) -> u32 {
        self.sizes[position]
    }

    pub fn given(&self, position: u32) -> u32 {
        self.given[position as usize]
    }

    /// The runs of a block, by size.
    pub fn runs(&self, block: u32) -> &[Run] {
        let block = block as usize;
        match (self.block_runs.get(block), self.block_runs.get(block + 1)) {
            (Some(&from), Some(&to)) => &self.runs[from as usize..to as usize],
            _ => &[],
        }
    }

    /// The runs of a block whose sizes lie in a range, both ends included.
    pub fn runs_of(&self, block: u32, least: u32, most: u32) -> &[Run] {
        let runs = self.runs(block);
        let from = runs.partition_point(|run| run.size < least);
        let to = runs.partition_point(|run| run.size <= most);
        runs.get(from..to).unwrap_or_default()
    }

    pub fn bytes(&self) -> usize {
        self.letters.capacity()
            + 8 * self.starts.capacity()
            + 4 * (self.sizes.capacity() + self.given.capacity() + self.block_runs.capacity())
            + size_of::<Run>() * self.runs.capacity()
    }
}
