//! Scored pairs, as many as there are: pages of them are in memory while it has a place for them,
//! and on disk from then on.
//!
//! A page is at most 1,024 pairs, one after another: left and right as 32 bits each, the weight as
//! 32-bit float, the levels as 64 bits, and where pairs have parts those as 32-bit floats; all
//! little-endian. Pairs are read page by page in the order in which they were written, or, when
//! that is by left and right, found by a [`Lookup`]. Which pages are where changes no answer.
//!
//! Nothing is opened here: memory is asked for, and files are made, by the [`Scratch`] that a
//! caller gives.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rayon::prelude::*;

use super::score::Edge;
use crate::model::ModelError;

/// Memory that work on pairs takes however many there are, in bytes, about: a run that is sorted,
/// the pages that are merged or looked up, and those that threads fill.
pub const WORK_BYTES: usize = 8 << 20;

/// Pairs of a page at most.
const PAGE_PAIRS: usize = 1024;
/// Pairs that are sorted at once.
const RUN_PAIRS: usize = 1 << 17;
/// Runs that are merged at once.
const MERGED_RUNS: usize = 64;
/// Pages of the disk that a look-up keeps.
const KEPT_PAGES: usize = 64;
/// Bytes of a pair without parts.
const PAIR_BYTES: usize = 20;

/// Memory and disk that work may take.
pub trait Scratch: fmt::Debug + Send + Sync {
    /// Takes bytes of memory, or says that there are not so many.
    fn take(&self, bytes: usize) -> bool;

    /// Gives back bytes that were taken.
    fn give(&self, bytes: usize);

    /// A new file, which is gone once nobody holds it.
    ///
    /// # Errors
    /// When there is no disk.
    fn file(&self) -> Result<Arc<dyn ScratchFile>, ModelError>;

    /// Whether nobody waits for the work any more.
    fn is_cancelled(&self) -> bool;
}

/// A file of a [`Scratch`].
pub trait ScratchFile: fmt::Debug + Send + Sync {
    /// Adds bytes at the end; gives where they begin.
    ///
    /// # Errors
    /// When the disk is full, or fails.
    fn append(&self, bytes: &[u8]) -> Result<u64, ModelError>;

    /// Reads the bytes that begin at `from`, as many as there is place for.
    ///
    /// # Errors
    /// When there are not so many, or the disk fails.
    fn read(&self, from: u64, bytes: &mut [u8]) -> Result<(), ModelError>;
}

/// Memory without a limit, and no disk.
#[derive(Debug)]
struct Unlimited;

impl Scratch for Unlimited {
    fn take(&self, _bytes: usize) -> bool {
        true
    }

    fn give(&self, _bytes: usize) {}

    fn file(&self) -> Result<Arc<dyn ScratchFile>, ModelError> {
        Err(ModelError::Spill("there is no disk".to_owned()))
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Where pairs are put, and in pieces of what size.
#[derive(Debug, Clone)]
pub struct Spill {
    scratch: Arc<dyn Scratch>,
    page_pairs: usize,
    pub(super) run_pairs: usize,
    pub(super) merged_runs: usize,
}

impl Spill {
    /// Pages in a scratch's memory, and on its disk where that is full.
    pub fn new(scratch: Arc<dyn Scratch>) -> Self {
        let (page_pairs, run_pairs, merged_runs) = (PAGE_PAIRS, RUN_PAIRS, MERGED_RUNS);
        Self { scratch, page_pairs, run_pairs, merged_runs }
    }

    /// All pages in memory, however many: for few pairs.
    pub fn in_memory() -> Self {
        Self::new(Arc::new(Unlimited))
    }

    /// Work that takes long asks now and then; whoever writes does with each page.
    ///
    /// # Errors
    /// When nobody waits for the work any more.
    pub(super) fn check(&self) -> Result<(), ModelError> {
        if self.scratch.is_cancelled() { Err(ModelError::Cancelled) } else { Ok(()) }
    }
}

/// Pairs as they are read, with the parts of their weights.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PairRows {
    /// The pairs.
    pub edges: Vec<Edge>,
    /// What each column adds to a pair's weight, and what relatives take off, one pair behind the
    /// other; empty where parts are not kept.
    pub parts: Vec<f32>,
}

/// Scored pairs.
#[derive(Debug)]
pub struct Pairs {
    spill: Spill,
    parts: usize,
    pages: Vec<Page>,
    len: usize,
}

#[derive(Debug)]
struct Page {
    /// Left and right of the first pair.
    first: (u32, u32),
    pairs: usize,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(Taken),
    Disk(Arc<dyn ScratchFile>, u64),
}

/// Bytes in memory that was taken for them.
#[derive(Debug)]
struct Taken {
    bytes: Box<[u8]>,
    scratch: Arc<dyn Scratch>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.scratch.give(self.bytes.len());
    }
}

/// What a [`Writer`] has written.
#[derive(Debug)]
pub struct Written(Vec<Page>);

impl Pairs {
    /// No pairs.
    pub fn none(spill: &Spill) -> Self {
        Self { spill: spill.clone(), parts: 0, pages: Vec::new(), len: 0 }
    }

    /// The pairs of several writers, one behind the other, with `parts` parts each.
    pub fn joined(spill: &Spill, parts: usize, written: impl IntoIterator<Item = Written>) -> Self {
        let pages: Vec<Page> = written.into_iter().flat_map(|Written(pages)| pages).collect();
        let len = pages.iter().map(|page| page.pairs).sum();
        Self { spill: spill.clone(), parts, pages, len }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where they are.
    pub fn spill(&self) -> &Spill {
        &self.spill
    }

    /// The parts of each.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// The pages that they are in.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// The pairs of a page; none where there is no such page.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn page(&self, at: usize) -> Result<PairRows, ModelError> {
        let Some(page) = self.pages.get(at) else { return Ok(PairRows::default()) };
        let bytes = self.bytes(page)?;
        let numbers = |row: &[u8]| -> Vec<f32> {
            let (numbers, _) = row.get(PAIR_BYTES..).unwrap_or_default().as_chunks::<4>();
            numbers.iter().map(|number| f32::from_le_bytes(*number)).collect()
        };
        let rows = bytes.chunks_exact(self.row_bytes());
        let parts = match self.parts {
            0 => Vec::new(),
            _ => rows.clone().flat_map(numbers).collect(),
        };
        Ok(PairRows { edges: rows.filter_map(read).collect(), parts })
    }

    /// Calls with each pair, in order.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn each(&self, mut call: impl FnMut(&Edge)) -> Result<(), ModelError> {
        for page in &self.pages {
            let bytes = self.bytes(page)?;
            for edge in bytes.chunks_exact(self.row_bytes()).filter_map(read) {
                call(&edge);
            }
        }
        Ok(())
    }

    /// The same pairs with `parts` parts each, which `add` gives: pages side by side.
    ///
    /// # Errors
    /// When the disk is full, or fails.
    pub fn with_parts(
        &self,
        parts: usize,
        add: impl Fn(&Edge, &mut Vec<f32>) + Sync,
    ) -> Result<Self, ModelError> {
        let writer = Writer::new(&self.spill, parts);
        let written = self.pages.par_iter().with_min_len(16).map(|page| {
            let (mut writer, mut of) = (writer.beside(), Vec::with_capacity(parts));
            for edge in self.bytes(page)?.chunks_exact(self.row_bytes()).filter_map(read) {
                of.clear();
                add(&edge, &mut of);
                writer.add(&edge, &of);
            }
            writer.finish()
        });
        Ok(Self::joined(&self.spill, parts, written.collect::<Result<Vec<_>, _>>()?))
    }

    /// The pairs one by one, in order, one page in memory at a time; of what the disk fails to give
    /// an error comes instead.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor { pairs: self, next: 0, open: Vec::new().into_iter() }
    }

    fn row_bytes(&self) -> usize {
        PAIR_BYTES + size_of::<f32>() * self.parts
    }

    fn bytes<'a>(&self, page: &'a Page) -> Result<Cow<'a, [u8]>, ModelError> {
        match &page.place {
            Place::Memory(taken) => Ok(Cow::Borrowed(&taken.bytes[..])),
            Place::Disk(file, from) => {
                let mut bytes = vec![0; page.pairs * self.row_bytes()];
                file.read(*from, &mut bytes)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

/// Reads the pair that bytes begin with.
fn read(row: &[u8]) -> Option<Edge> {
    let (left, row) = row.split_first_chunk::<4>()?;
    let (right, row) = row.split_first_chunk::<4>()?;
    let (weight, row) = row.split_first_chunk::<4>()?;
    let (levels, _) = row.split_first_chunk::<8>()?;
    Some(Edge {
        left: u32::from_le_bytes(*left),
        right: u32::from_le_bytes(*right),
        weight: f32::from_le_bytes(*weight),
        levels: u64::from_le_bytes(*levels),
    })
}

/// Pairs one by one: see [`Pairs::cursor`].
#[derive(Debug)]
pub struct Cursor<'a> {
    pairs: &'a Pairs,
    next: usize,
    open: std::vec::IntoIter<Edge>,
}

impl Iterator for Cursor<'_> {
    type Item = Result<Edge, ModelError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(edge) = self.open.next() {
                return Some(Ok(edge));
            }
            let page = self.pairs.pages.get(self.next)?;
            self.next += 1;
            match self.pairs.bytes(page) {
                Ok(bytes) => {
                    let rows = bytes.chunks_exact(self.pairs.row_bytes());
                    self.open = rows.filter_map(read).collect::<Vec<Edge>>().into_iter();
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Writes pairs page by page.
#[derive(Debug)]
pub struct Writer {
    spill: Spill,
    file: Arc<Mutex<Option<Arc<dyn ScratchFile>>>>,
    parts: usize,
    open: Vec<u8>,
    first: (u32, u32),
    filled: usize,
    pages: Vec<Page>,
    failed: Option<ModelError>,
}

impl Writer {
    /// A writer of pairs with `parts` parts each.
    pub fn new(spill: &Spill, parts: usize) -> Self {
        Self {
            spill: spill.clone(),
            file: Arc::default(),
            parts,
            open: Vec::new(),
            first: (0, 0),
            filled: 0,
            pages: Vec::new(),
            failed: None,
        }
    }

    /// Another writer of such pairs, into the same file; so there is one however many write.
    pub fn beside(&self) -> Self {
        Self { file: Arc::clone(&self.file), ..Self::new(&self.spill, self.parts) }
    }

    /// Adds a pair, with as many parts as the writer's pairs have. An error is told in the end.
    pub fn add(&mut self, edge: &Edge, parts: &[f32]) {
        debug_assert_eq!(parts.len(), self.parts);
        if self.filled == 0 {
            self.first = (edge.left, edge.right);
        }
        self.open.extend_from_slice(&edge.left.to_le_bytes());
        self.open.extend_from_slice(&edge.right.to_le_bytes());
        self.open.extend_from_slice(&edge.weight.to_le_bytes());
        self.open.extend_from_slice(&edge.levels.to_le_bytes());
        for part in parts {
            self.open.extend_from_slice(&part.to_le_bytes());
        }
        self.filled += 1;
        if self.filled >= self.spill.page_pairs {
            self.close();
        }
    }

    /// Ends the page.
    fn close(&mut self) {
        if self.filled > 0 && self.failed.is_none() {
            match self.place() {
                Ok(place) => {
                    self.pages.push(Page { first: self.first, pairs: self.filled, place });
                }
                Err(error) => self.failed = Some(error),
            }
        }
        self.open.clear();
        self.filled = 0;
    }

    /// Finds a place for the page.
    fn place(&self) -> Result<Place, ModelError> {
        self.spill.check()?;
        let scratch = &self.spill.scratch;
        if scratch.take(self.open.len()) {
            let bytes: Box<[u8]> = self.open.as_slice().into();
            return Ok(Place::Memory(Taken { bytes, scratch: Arc::clone(scratch) }));
        }
        let file = {
            let mut known = self.file.lock();
            match &*known {
                Some(file) => Arc::clone(file),
                None => Arc::clone(known.insert(scratch.file()?)),
            }
        };
        let from = file.append(&self.open)?;
        Ok(Place::Disk(file, from))
    }

    /// What was written, to be joined with what others have.
    ///
    /// # Errors
    /// When the disk was full, or failed.
    pub fn finish(mut self) -> Result<Written, ModelError> {
        self.close();
        match self.failed {
            Some(error) => Err(error),
            None => Ok(Written(self.pages)),
        }
    }

    /// The pairs that were written.
    ///
    /// # Errors
    /// When the disk was full, or failed.
    pub fn pairs(self) -> Result<Pairs, ModelError> {
        let (spill, parts) = (self.spill.clone(), self.parts);
        Ok(Pairs::joined(&spill, parts, [self.finish()?]))
    }
}

/// Finds pairs that are in the order of left and right.
#[derive(Debug)]
pub struct Lookup<'a> {
    pairs: &'a Pairs,
    /// Pages of the disk by their numbers, each in the only place that it can be in.
    kept: Vec<Option<(usize, Vec<u8>)>>,
}

impl<'a> Lookup<'a> {
    /// Of these pairs.
    pub fn new(pairs: &'a Pairs) -> Self {
        Self { pairs, kept: (0..KEPT_PAGES).map(|_| None).collect() }
    }

    /// The weight of a pair, if it is among them.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn weight(&mut self, left: u32, right: u32) -> Result<Option<f32>, ModelError> {
        let Self { pairs, kept } = self;
        let behind = pairs.pages.partition_point(|page| page.first <= (left, right));
        let Some(at) = behind.checked_sub(1) else { return Ok(None) };
        let page = &pairs.pages[at];
        let bytes = match &page.place {
            Place::Memory(taken) => &taken.bytes[..],
            Place::Disk(..) => {
                let slot = &mut kept[at % KEPT_PAGES];
                if slot.as_ref().is_none_or(|(known, _)| *known != at) {
                    *slot = Some((at, pairs.bytes(page)?.into_owned()));
                }
                slot.as_ref().map_or(&[][..], |(_, bytes)| &bytes[..])
            }
        };
        let row_bytes = pairs.row_bytes();
        let (mut from, mut to) = (0_usize, page.pairs);
        while from < to {
            let middle = from.midpoint(to);
            let row = bytes.get(middle * row_bytes..);
            let Some(edge) = row.and_then(read) else { return Ok(None) };
            match (edge.left, edge.right).cmp(&(left, right)) {
                Ordering::Less => from = middle + 1,
                Ordering::Greater => to = middle,
                Ordering::Equal => return Ok(Some(edge.weight)),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
pub(super) mod testing;

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::testing::limited;
    use super::*;

    fn edge(at: u32) -> Edge {
        Edge { left: at / 7, right: 1000 + at % 7, weight: at as f32, levels: u64::MAX - 1 }
    }

    fn written(spill: &Spill, count: u32) -> Pairs {
        let mut writer = Writer::new(spill, 2);
        (0..count).for_each(|at| writer.add(&edge(at), &[at as f32, -0.5]));
        writer.pairs().unwrap()
    }

    #[test]
    fn pairs_come_back_from_memory_and_disk() {
        for memory in [0, 90_000, usize::MAX] {
            let scratch = limited(memory, usize::MAX);
            let pairs = written(&Spill::new(Arc::clone(&scratch) as Arc<dyn Scratch>), 10_000);
            assert_eq!(scratch.spilled.load(Relaxed) > 0, memory < usize::MAX);
            assert_eq!((pairs.len(), pairs.pages(), pairs.parts()), (10_000, 10, 2));
            let edges: Vec<Edge> = (0..10_000).map(edge).collect();
            assert_eq!(pairs.cursor().collect::<Result<Vec<_>, _>>().unwrap(), edges);
            let mut each = Vec::new();
            pairs.each(|edge| each.push(*edge)).unwrap();
            assert_eq!(each, edges);
            let page = pairs.page(9).unwrap();
            assert_eq!(page.edges, edges[9 * 1024..]);
            assert_eq!((page.parts.len(), page.parts[0]), (2 * page.edges.len(), 9_216.0));
            assert_eq!(pairs.page(10).unwrap(), PairRows::default());
            let mut known = Lookup::new(&pairs);
            for at in (0..10_000).rev().step_by(37) {
                let Edge { left, right, weight, .. } = edge(at);
                assert_eq!(known.weight(left, right).unwrap(), Some(weight));
                assert_eq!(known.weight(left, right + 7).unwrap(), None);
            }
            assert_eq!(known.weight(0, 0).unwrap(), None);
            drop(pairs);
            assert_eq!(scratch.taken.load(Relaxed), 0);
        }
    }

    #[test]
    fn a_full_disk_is_told() {
        let spill = Spill::new(limited(0, 50_000));
        let mut writer = Writer::new(&spill, 0);
        (0..10_000).for_each(|at| writer.add(&edge(at), &[]));
        assert!(matches!(writer.finish(), Err(ModelError::Spill(_))));
    }

    #[test]
    fn nothing_is_written_that_nobody_waits_for() {
        let scratch = limited(usize::MAX, usize::MAX);
        let spill = Spill::new(Arc::clone(&scratch) as Arc<dyn Scratch>);
        assert_eq!(written(&spill, 2_000).len(), 2_000);
        scratch.is_cancelled.store(true, Relaxed);
        let mut writer = Writer::new(&spill, 0);
        writer.add(&edge(0), &[]);
        assert_eq!(writer.pairs().unwrap_err(), ModelError::Cancelled);
    }

    #[test]
    fn writers_side_by_side_share_a_file() {
        let spill = Spill::new(limited(0, usize::MAX));
        let first = Writer::new(&spill, 0);
        let mut writers = [first.beside(), first.beside()];
        for at in 0..5_000 {
            writers[usize::from(at >= 2_000)].add(&edge(at), &[]);
        }
        let written = writers.map(|writer| writer.finish().unwrap());
        let pairs = Pairs::joined(&spill, 0, written);
        let edges: Vec<Edge> = (0..5_000).map(edge).collect();
        assert_eq!(pairs.cursor().collect::<Result<Vec<_>, _>>().unwrap(), edges);
        assert!(Pairs::none(&spill).is_empty());
    }
}
