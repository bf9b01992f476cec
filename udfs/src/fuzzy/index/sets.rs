//! Texts alike as sets.
//!
//! Elements are ranked by the number of texts that have them, the rarest first. Of a set of n
//! elements that must share at least m, the n − m + 1 rarest cannot all be missing from the other
//! text, so only texts with one of those are looked at; a text too small or too large for the
//! threshold is skipped. What such a text shares in all is counted while the lists of the other
//! elements are walked, or, where those are long, by comparing the sets.

use std::collections::HashMap;
use std::ops::Range;

use super::texts::Texts;
use super::verify::Work;
use super::{Floor, InBlock, SetKind};
use crate::fuzzy::kernel::sets::{
    Elements, bigrams, characters, dot, share, shared, square, trigrams,
};
use crate::fuzzy::stop::{Stop, Stopped};

/// Steps that finding and counting an element of a text takes.
const PER_ELEMENT: usize = 64;
/// Walking so many entries of lists costs what comparing two sets does (measured).
const PER_COMPARISON: usize = 16;

/// The elements of an index' texts.
#[derive(Debug)]
pub(super) struct Sets {
    pub(super) kind: SetKind,
    floor: Floor,
    /// Each element's rank.
    ranks: HashMap<u64, u64>,
    /// The ranks of each text's elements, ascending, one text after the other.
    elements: Vec<u64>,
    starts: Vec<usize>,
    /// The texts that have an element, by rank.
    pub(super) lists: Vec<u32>,
    /// How often each has it; empty for sets.
    pub(super) counts: Vec<u32>,
    list_starts: Vec<usize>,
    /// Sums of the squared counts of each text; empty for sets.
    pub(super) squares: Vec<u64>,
}

/// Working memory of a search.
#[derive(Debug, Default)]
pub(super) struct SetWork {
    pub(super) elements: Vec<u64>,
    /// What each text shares, as far as it is known; 0 between searches.
    pub(super) met: Vec<u32>,
    /// The bits of the least similarity of the texts met.
    pub(super) least: Vec<u64>,
}

impl SetKind {
    fn elements(self) -> Elements {
        match self {
            Self::Trigrams => trigrams,
            Self::Characters => characters,
            Self::Bigrams => bigrams,
        }
    }
}

impl Sets {
    /// Orders texts by the size of their sets and indexes those.
    pub fn new(
        values: &[InBlock<'_>],
        kind: SetKind,
        floor: Floor,
        stop: &Stop,
    ) -> Result<(Texts, Self), Stopped> {
        let split = kind.elements();
        let (mut set, mut pace) = (Vec::new(), stop.pace());
        let mut counts: HashMap<u64, u64> = HashMap::new();
        let mut sizes = Vec::with_capacity(values.len());
        for (_, text) in values {
            pace.spend(PER_ELEMENT * (1 + text.len()))?;
            split(text, &mut set);
            sizes.push(set.len() as u32);
            set.iter().for_each(|element| *counts.entry(*element).or_default() += 1);
        }
        let texts = Texts::by_size(values, &sizes, &[], stop)?;
        let ranked = counts.iter().map(|(element, count)| (*count, *element)).collect();
        let ranked = stop.sort(ranked, <(u64, u64)>::cmp)?;
        let mut ranks = counts;
        for (rank, (_, element)) in ranked.iter().enumerate() {
            pace.spend(PER_ELEMENT)?;
            ranks.insert(*element, rank as u64);
        }
        let mut elements = Vec::with_capacity(sizes.iter().map(|size| *size as usize).sum());
        let mut starts = vec![0];
        for at in 0..texts.len() {
            pace.spend(PER_ELEMENT * (1 + texts.text(at).len()))?;
            split(texts.text(at), &mut set);
            let start = elements.len();
            elements.extend(set.iter().filter_map(|element| ranks.get(element)));
            elements[start..].sort_unstable();
            starts.push(elements.len());
        }
        let mut sets = Self {
            kind,
            floor,
            ranks,
            elements,
            starts,
            lists: Vec::new(),
            counts: Vec::new(),
            list_starts: Vec::new(),
            squares: Vec::new(),
        };
        sets.fill_lists(ranked.len(), stop)?;
        Ok((texts, sets))
    }

    fn fill_lists(&mut self, ranks: usize, stop: &Stop) -> Result<(), Stopped> {
        let runs = |at: usize| self.set(at).chunk_by(|x, y| x == y);
        let count = self.starts.len() - 1;
        let (mut starts, mut pace) = (vec![0_usize; ranks + 1], stop.pace());
        for at in 0..count {
            pace.spend(2 * self.set(at).len())?;
            runs(at).for_each(|run| starts[run[0] as usize + 1] += 1);
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let counted = self.kind == SetKind::Bigrams;
        let (mut next, mut lists) = (starts.clone(), vec![0; sum]);
        let mut counts = vec![0; if counted { sum } else { 0 }];
        for at in 0..count {
            pace.spend(8 * self.set(at).len())?;
            for run in runs(at) {
                let next = &mut next[run[0] as usize];
                lists[*next] = at as u32;
                if counted {
                    counts[*next] = run.len() as u32;
                }
                *next += 1;
            }
        }
        if counted {
            let square = |at: usize| pace.spend(self.set(at).len()).map(|()| square(self.set(at)));
            self.squares = (0..count).map(square).collect::<Result<_, _>>()?;
        }
        (self.lists, self.counts, self.list_starts) = (lists, counts, starts);
        Ok(())
    }

    pub fn bytes(&self) -> usize {
        24 * self.ranks.capacity()
            + 8 * (self.elements.capacity() + self.starts.capacity() + self.list_starts.capacity())
            + 8 * self.squares.capacity()
            + 4 * (self.lists.capacity() + self.counts.capacity())
    }

    pub(super) fn set(&self, at: usize) -> &[u64] {
        &self.elements[self.starts[at]..self.starts[at + 1]]
    }

    /// Where the list of an element has the texts of a range.
    pub(super) fn list(&self, rank: u64, texts: &Range<u32>) -> Range<usize> {
        let rank = rank as usize;
        let start = self.list_starts[rank];
        let list = &self.lists[start..self.list_starts[rank + 1]];
        let first = list.partition_point(|at| *at < texts.start);
        let last = first + list[first..].partition_point(|at| *at < texts.end);
        start + first..start + last
    }

    fn lengths(&self, ranks: &[u64], texts: &Range<u32>) -> usize {
        ranks.iter().map(|rank| self.list(*rank, texts).len()).sum()
    }

    /// Finds the texts alike; those that it leaves in `work` are.
    pub fn gather(&self, texts: &Texts, (block, text): InBlock<'_>, work: &mut Work) {
        let SetWork { mut elements, mut met, least } = std::mem::take(&mut work.sets);
        self.rank(text, &mut elements);
        met.resize(texts.len(), 0);
        if elements.is_empty() {
            self.gather_empty(texts, (block, text), &mut work.candidates);
        } else if self.kind == SetKind::Bigrams {
            self.gather_bigrams(texts, block, &elements, &mut met, work);
        } else {
            self.gather_sets(texts, block, &elements, &mut met, work);
        }
        work.sets = SetWork { elements, met, least };
    }

    /// The ranks of a text's elements, in order; those that no text of the index has come last.
    pub(super) fn rank(&self, text: &str, elements: &mut Vec<u64>) {
        self.kind.elements()(text, elements);
        let unknown = self.ranks.len() as u64;
        for element in elements.iter_mut() {
            *element = self.ranks.get(element).map_or(unknown + *element, |rank| *rank);
        }
        elements.sort_unstable();
    }

    /// How many of a text's ranks some text of the index has.
    pub(super) fn known(&self, ranks: &[u64]) -> usize {
        ranks.partition_point(|rank| *rank < self.ranks.len() as u64)
    }

    /// A text without elements is alike one without elements: of trigrams, if the texts are equal.
    pub(super) fn gather_empty(
        &self,
        texts: &Texts,
        (block, text): InBlock<'_>,
        candidates: &mut Vec<u32>,
    ) {
        let Some(run) = texts.runs_of(block, 0, 0).first() else { return };
        if !self.floor.holds(1.0) {
            return;
        }
        let range = run.range();
        // Texts of one size are in order.
        let (mut from, mut to) = (range.start, range.end);
        while from < to {
            let middle = from + (to - from) / 2;
            if texts.text(middle) < text { from = middle + 1 } else { to = middle }
        }
        if range.contains(&from) && texts.text(from) == text {
            candidates.push(from as u32);
        }
    }

    fn gather_sets(
        &self,
        texts: &Texts,
        block: u32,
        elements: &[u64],
        met: &mut [u32],
        work: &mut Work,
    ) {
        let size = elements.len();
        let known = self.known(elements);
        // With m in common, no other set gives more than m / n.
        let enough = |common: usize| self.floor.holds(share(common, size));
        let mut least = ((self.floor.value * size as f64) as usize).saturating_sub(1).max(1);
        while least <= size && !enough(least) {
            least += 1;
        }
        if least > known {
            return;
        }
        let fits = |other: u32| {
            let (smaller, larger) = (size.min(other as usize), size.max(other as usize));
            self.floor.holds(share(smaller, larger))
        };
        let runs = texts.runs_of(block, least as u32, u32::MAX);
        let from = runs.partition_point(|run| (run.size as usize) < size && !fits(run.size));
        let to = runs.partition_point(|run| (run.size as usize) < size || fits(run.size));
        let Some((first, last)) = runs.get(from..to).and_then(|r| r.first().zip(r.last())) else {
            return;
        };
        let texts = first.start..last.end;
        // The unknown ones are the rarest, and no list has them.
        let prefix = (size - least + 1).saturating_sub(size - known).min(known);
        let (rare, others) = elements[..known].split_at(prefix);
        let all_walked = self.meet((rare, others), &texts, met, work);
        let Work { candidates, stop, .. } = work;
        let mut pace = stop.pace();
        candidates.retain(|&at| {
            let met = std::mem::take(&mut met[at as usize]) as usize;
            let other = self.set(at as usize);
            if !all_walked && pace.spend(known + other.len()).is_err() {
                return false;
            }
            let common = if all_walked { met } else { shared(&elements[..known], other) };
            common >= least && self.floor.holds(share(common, size + other.len() - common))
        });
    }

    /// Makes the texts that have one of the rare elements candidates, and counts in `met` what each
    /// shares: of the rare ones and, unless comparing is cheaper, of all. Says whether of all.
    fn meet(
        &self,
        (rare, others): (&[u64], &[u64]),
        texts: &Range<u32>,
        met: &mut [u32],
        work: &mut Work,
    ) -> bool {
        let mut walk = |run: &[u64], is_rare: bool, candidates: &mut Vec<u32>| {
            for place in self.list(run[0], texts) {
                let at = self.lists[place];
                let shared = &mut met[at as usize];
                if *shared == 0 {
                    if !is_rare {
                        continue;
                    }
                    candidates.push(at);
                }
                let times = self.counts.get(place).copied().unwrap_or(1);
                *shared = shared.saturating_add(times.saturating_mul(run.len() as u32));
            }
        };
        rare.chunk_by(|x, y| x == y).for_each(|run| walk(run, true, &mut work.candidates));
        work.count_compared(work.candidates.len());
        let walked = self.lengths(rare, texts);
        let left = self.lengths(others, texts);
        if left > PER_COMPARISON * work.candidates.len() {
            work.spend(walked + 32 * work.candidates.len());
            return false;
        }
        work.spend(walked + left);
        others.chunk_by(|x, y| x == y).for_each(|run| walk(run, false, &mut work.candidates));
        true
    }

    fn gather_bigrams(
        &self,
        texts: &Texts,
        block: u32,
        elements: &[u64],
        met: &mut [u32],
        work: &mut Work,
    ) {
        let runs = texts.runs(block);
        let Some((first, last)) = runs.first().zip(runs.last()) else { return };
        let texts = first.start..last.end;
        let known = &elements[..self.known(elements)];
        let all = square(elements);
        let (rare, others) = known.split_at(bigram_prefix(known, all, self.floor));
        let all_walked = self.meet((rare, others), &texts, met, work);
        let Work { candidates, stop, .. } = work;
        let mut pace = stop.pace();
        candidates.retain(|&at| {
            let met = std::mem::take(&mut met[at as usize]);
            let at = at as usize;
            let exact = all_walked && met < u32::MAX;
            if !exact && pace.spend(elements.len() + self.set(at).len()).is_err() {
                return false;
            }
            let dot = if exact { u64::from(met) } else { dot(elements, self.set(at)) };
            self.floor.holds(dot as f64 / (all as f64 * self.squares[at] as f64).sqrt())
        });
    }
}

/// How many of a text's sorted bigrams, whose squared counts with all others sum to `all`, come
/// before those that alone cannot reach the floor: if two texts share these last only, their
/// cosine is at most the root of their part of the sum (Cauchy and Schwarz).
fn bigram_prefix(grams: &[u64], all: u64, floor: Floor) -> usize {
    let enough = (floor.value - 1e-9).max(0.0).powi(2) * all as f64;
    let (mut prefix, mut rest) = (grams.len(), 0_u64);
    for run in grams.chunk_by(|x, y| x == y).rev() {
        rest += (run.len() as u64).pow(2);
        if rest as f64 >= enough {
            break;
        }
        prefix -= run.len();
    }
    prefix
}
