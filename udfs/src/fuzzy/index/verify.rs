//! Compares candidates with the kernels, a few thousand pairs at a time.

use pulp::Arch;

use super::hashed::Hashed;
use super::texts::Texts;
use super::{Floor, InBlock, Likeness};
use crate::fuzzy::kernel::column::{Column, ColumnScratch};
use crate::fuzzy::kernel::lanes::{EditLanes, GroupKernel, Groups, JaroLanes, Short};
use crate::fuzzy::kernel::{Pattern, Scratch};
use crate::fuzzy::stop::{Stop, Stopped};

/// Working memory of searches, reused from one to the next; each thread has its own.
#[derive(Debug, Default)]
pub struct Work {
    /// Of the probe at hand.
    pub(super) candidates: Vec<u32>,
    pub(super) hashed: Hashed,
    /// Ranges of texts that may share enough characters, with how many.
    pub(super) ranges: Vec<(std::ops::Range<usize>, u32)>,
    pub(super) sets: super::sets::SetWork,
    /// Probe and candidate.
    gathered: Vec<(u32, u32)>,
    alike: Vec<bool>,
    pattern: Pattern,
    scratch: Scratch,
    column: ColumnScratch,
    compared: u64,
    /// Steps of about a nanosecond since the search started.
    spent: usize,
    pub(super) stop: Stop,
}

impl Work {
    /// Working memory of searches that end early once nobody wants their results.
    pub fn new(stop: Stop) -> Self {
        let (scratch, column) = (Scratch::new(stop.clone()), ColumnScratch::new(stop.clone()));
        Self { scratch, column, stop, ..Self::default() }
    }

    /// How many pairs were compared in all searches.
    pub fn compared(&self) -> u64 {
        self.compared
    }

    pub(super) fn start(&mut self) {
        self.candidates.clear();
        self.gathered.clear();
        self.spent = 0;
    }

    /// Counts work, in steps of about a nanosecond.
    #[inline]
    pub(super) fn spend(&mut self, steps: usize) {
        self.spent = self.spent.saturating_add(steps);
    }

    pub(super) fn spent(&self) -> usize {
        self.spent
    }

    pub(super) fn gathered(&self) -> usize {
        self.gathered.len()
    }

    /// Puts the candidates of a probe to those that will be compared.
    pub(super) fn keep_candidates(&mut self, probe: usize) {
        self.gathered.extend(self.candidates.drain(..).map(|candidate| (probe as u32, candidate)));
    }

    pub(super) fn verify_edit<const OSA: bool>(
        &mut self,
        texts: &Texts,
        probes: &[InBlock<'_>],
        max: usize,
    ) {
        let kernel = EditLanes::<OSA>(Arch::new());
        let single = |pattern: &Pattern, text: &str, scratch: &mut Scratch| {
            pattern.edit::<OSA>(text, max, scratch).is_some()
        };
        self.verify(texts, probes, kernel, |distance| usize::from(distance) <= max, single);
    }

    pub(super) fn verify_jaro<const WINKLER: bool>(
        &mut self,
        texts: &Texts,
        probes: &[InBlock<'_>],
        floor: Floor,
    ) {
        let kernel = JaroLanes::<WINKLER>(Arch::new());
        let single = |pattern: &Pattern, text: &str, scratch: &mut Scratch| {
            let similarity = if WINKLER {
                pattern.jaro_winkler(text, scratch)
            } else {
                pattern.jaro(text, scratch)
            };
            floor.holds(similarity)
        };
        self.verify(texts, probes, kernel, |similarity| floor.holds(similarity), single);
    }

    fn verify<K: GroupKernel>(
        &mut self,
        texts: &Texts,
        probes: &[InBlock<'_>],
        kernel: K,
        enough: impl Fn(K::Output) -> bool,
        single: impl Fn(&Pattern, &str, &mut Scratch) -> bool,
    ) {
        let Self { gathered, alike, pattern, scratch, stop, .. } = self;
        let mut pace = stop.pace();
        alike.clear();
        alike.resize(gathered.len(), false);
        self.compared += gathered.len() as u64;
        let mut groups = Groups::new(kernel);
        let (mut last, mut short, mut prepared) = (None, None, false);
        for (row, &(probe, candidate)) in gathered.iter().enumerate() {
            let (_, text) = probes[probe as usize];
            let (bytes, length) = texts.bytes_from(candidate as usize);
            if pace.spend(16 + length * (1 + text.len() / 64)).is_err() {
                return;
            }
            if last != Some(probe) {
                (last, short, prepared) =
                    (Some(probe), Short::read(text.as_bytes(), text.len()), false);
            }
            if let (Some(left), Some(right)) = (&short, Short::read(bytes, length))
                && groups.push(row, left, &right, |row, result| alike[row] = enough(result))
            {
                continue;
            }
            if !prepared {
                pattern.reset(text);
                prepared = true;
            }
            let other = texts.text(candidate as usize);
            let grouped = groups.push_medium(row, pattern, other, scratch, |row, result| {
                alike[row] = enough(result);
            });
            if !grouped {
                alike[row] = single(pattern, other, scratch);
            }
        }
        groups.finish(|row, result| alike[row] = enough(result));
    }

    /// Compares a text with a whole column, all of whose texts are in the first block.
    pub(super) fn compare_all(
        &mut self,
        column: &Column,
        (block, text): InBlock<'_>,
        likeness: Likeness,
    ) -> Result<(), Stopped> {
        if block != 0 {
            return Ok(());
        }
        self.spend(8 * column.len());
        let Self { candidates, column: scratch, .. } = self;
        let mut take = |row: usize, alike: bool| {
            if alike {
                candidates.push(row as u32);
            }
        };
        match likeness {
            Likeness::Edit { osa, max } => {
                let take = |row, distance| {
                    take(row, distance <= max);
                    max
                };
                if osa {
                    column.edit::<true>(text, scratch, take)?;
                } else {
                    column.edit::<false>(text, scratch, take)?;
                }
            }
            Likeness::Jaro { winkler: false, floor } => {
                column.jaro::<false>(text, scratch, |row, alike| take(row, floor.holds(alike)))?;
            }
            Likeness::Jaro { winkler: true, floor } => {
                column.jaro::<true>(text, scratch, |row, alike| take(row, floor.holds(alike)))?;
            }
            Likeness::Sets { .. } => {}
        }
        self.compared += column.len() as u64;
        Ok(())
    }

    /// Takes pairs that were compared while they were gathered.
    pub(super) fn accept_all(&mut self) {
        self.alike.clear();
        self.alike.resize(self.gathered.len(), true);
    }

    pub(super) fn count_compared(&mut self, pairs: usize) {
        self.compared += pairs as u64;
    }

    pub(super) fn take_pairs(&mut self, texts: &Texts, pairs: &mut Vec<(u32, u32)>) {
        let alike = self.gathered.iter().zip(&self.alike).filter(|(_, alike)| **alike);
        pairs.extend(alike.map(|(&(probe, candidate), _)| (probe, texts.given(candidate))));
    }
}
