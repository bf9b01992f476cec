//! The texts closest to a text, however far they are.
//!
//! Edit distances: where many texts are looked for among many, an [`Index`] tells which are within
//! 0, 1 and 2 edits; where those do not suffice, the text is compared with all, in lanes
//! ([`Column`]), as it always is for Jaro and Jaro-Winkler. Similarities of sets come from the
//! lists of texts that have an element ([`super::sets`]), the rarest first, until no text that has
//! not been met can be among the closest. What is found is what comparing all would find.

use super::sets::Sets;
use super::texts::Texts;
use super::verify::Work;
use super::{Floor, InBlock, Index, Likeness, SetKind, is_loose};
use crate::fuzzy::kernel::column::{Column, ColumnScratch};
use crate::fuzzy::stop::{Stop, Stopped};

/// Edits that the index knows.
const RADIUS: usize = 2;
/// Among fewer texts comparing all is faster than any index.
const FEW: usize = if cfg!(test) { 64 } else { 2_048 };
/// Searches that pay for the index: some 120 entries a text of 15 characters, of some 40 ns each,
/// take as long as comparing a text in a lane, some 8 ns, so often.
const SEARCHES: usize = if cfg!(test) { 1 } else { 512 };

/// How close two texts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The Levenshtein or, with `osa`, optimal-string-alignment distance.
    Edit {
        /// Whether a swap of neighbours counts once.
        osa: bool,
    },
    /// The Jaro or Jaro-Winkler similarity.
    Jaro {
        /// Whether a common prefix counts.
        winkler: bool,
    },
    /// The similarity of two sets.
    Sets(SetKind),
}

/// A text found. In order, the closest come first, and equally close ones by their position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Close {
    /// A distance, or the bits of a similarity, all turned over: those of numbers from 0 to 1 are
    /// in the order of the numbers.
    far: u64,
    /// The text's position.
    pub text: u32,
}

impl Close {
    pub(super) fn distant(distance: usize, text: u32) -> Self {
        Self { far: distance as u64, text }
    }

    pub(super) fn similar(similarity: f64, text: u32) -> Self {
        Self { far: !similarity.to_bits(), text }
    }

    /// The distance, in edits, for a measure that is one.
    pub fn distance(self) -> u64 {
        self.far
    }

    /// The similarity, 0 to 1, for a measure that is one.
    pub fn similarity(self) -> f64 {
        f64::from_bits(!self.far)
    }
}

/// Texts made ready to find the closest among them.
#[derive(Debug)]
pub struct Nearest {
    measure: Measure,
    search: Search,
}

#[derive(Debug)]
enum Search {
    Lanes(Column),
    Sets(Texts, Sets),
}

/// Working memory of searches, reused from one to the next; each thread has its own.
#[derive(Debug, Default)]
pub struct NearestWork {
    work: Work,
    column: ColumnScratch,
    pairs: Vec<(u32, u32)>,
    /// Texts found within fewer edits, in order.
    within: Vec<u32>,
    closest: Vec<Close>,
}

impl NearestWork {
    /// Working memory of searches that end early once nobody wants their results.
    pub fn new(stop: Stop) -> Self {
        Self { work: Work::new(stop.clone()), column: ColumnScratch::new(stop), ..Self::default() }
    }

    /// What was found last, the closest first.
    pub fn closest(&self) -> &[Close] {
        &self.closest
    }
}

impl Nearest {
    /// Prepares distinct texts in alphabetical order.
    ///
    /// # Errors
    /// When nobody wants the result any more.
    pub fn new(measure: Measure, texts: &[&str], stop: &Stop) -> Result<Self, Stopped> {
        let search = match measure {
            Measure::Edit { .. } | Measure::Jaro { .. } => {
                Search::Lanes(Column::new(texts.iter().copied(), stop)?)
            }
            Measure::Sets(kind) => {
                let values: Vec<InBlock<'_>> = texts.iter().map(|text| (0, *text)).collect();
                let (texts, sets) = Sets::new(&values, kind, Floor::NONE, stop)?;
                Search::Sets(texts, sets)
            }
        };
        Ok(Self { measure, search })
    }

    /// Memory that texts take at most once they are prepared.
    pub fn estimate(measure: Measure, texts: &[&str]) -> usize {
        match measure {
            Measure::Edit { .. } | Measure::Jaro { .. } => Column::estimate(texts),
            Measure::Sets(kind) => {
                let bytes = texts.iter().map(|text| text.len()).sum();
                let likeness = Likeness::Sets { kind, floor: Floor::NONE };
                Index::estimate(likeness, texts.len(), bytes)
            }
        }
    }

    /// Memory that the texts take.
    pub fn bytes(&self) -> usize {
        match &self.search {
            Search::Lanes(column) => column.bytes(),
            Search::Sets(texts, sets) => texts.bytes() + sets.bytes(),
        }
    }

    /// Memory that one search takes at most beside its result.
    pub fn work_bytes(&self) -> usize {
        match &self.search {
            Search::Lanes(_) => 0,
            Search::Sets(texts, _) => 8 * texts.len(),
        }
    }

    /// What the index of the texts takes, if one pays for so many searches: memory without which it
    /// cannot be, and memory that makes it fastest.
    pub fn index_wanted(&self, searches: usize) -> Option<(usize, usize)> {
        let (Measure::Edit { osa }, Search::Lanes(column)) = (self.measure, &self.search) else {
            return None;
        };
        if searches < SEARCHES || column.len() < FEW {
            return None;
        }
        let likeness = Likeness::Edit { osa, max: RADIUS };
        let values: Vec<InBlock<'_>> = values(column).collect();
        if is_loose(likeness, &values) {
            return None;
        }
        let bytes = values.iter().map(|(_, text)| text.len()).sum();
        let least = Index::estimate(likeness, values.len(), bytes);
        Some((least, Index::wanted(likeness, &values)))
    }

    /// Indexes the texts with up to `memory` bytes more than an index cannot do without.
    ///
    /// # Errors
    /// When nobody wants the result any more.
    pub fn index(&self, memory: usize, stop: &Stop) -> Result<Option<Index>, Stopped> {
        let (Measure::Edit { osa }, Search::Lanes(column)) = (self.measure, &self.search) else {
            return Ok(None);
        };
        let values: Vec<InBlock<'_>> = values(column).collect();
        Index::new(Likeness::Edit { osa, max: RADIUS }, &values, memory, stop).map(Some)
    }

    /// Finds the `most` closest texts, or all if there are not so many, with the help of an index
    /// that [`Self::index`] made.
    ///
    /// # Errors
    /// When nobody wants the result any more, as the working memory's [`Stop`] tells.
    pub fn find(
        &self,
        text: &str,
        most: usize,
        index: Option<&Index>,
        work: &mut NearestWork,
    ) -> Result<(), Stopped> {
        work.closest.clear();
        match (&self.search, self.measure) {
            (Search::Sets(texts, sets), _) => {
                sets.closest(texts, text, most, &mut work.work, &mut work.closest)?;
            }
            (Search::Lanes(column), Measure::Edit { osa }) => {
                let enough = match index {
                    Some(index) => work.near(index, osa, text, most)?,
                    None => false,
                };
                match osa {
                    _ if enough => {}
                    true => work.edit::<true>(column, text, most)?,
                    false => work.edit::<false>(column, text, most)?,
                }
            }
            (Search::Lanes(column), Measure::Jaro { winkler: true }) => {
                work.jaro::<true>(column, text, most)?;
            }
            (Search::Lanes(column), _) => work.jaro::<false>(column, text, most)?,
        }
        work.closest.sort_unstable();
        work.closest.truncate(most);
        Ok(())
    }
}

fn values(column: &Column) -> impl Iterator<Item = InBlock<'_>> {
    (0..column.len()).map(|row| (0, column.text(row)))
}

impl NearestWork {
    /// Finds texts within a few edits; whether they are as many as are asked for.
    fn near(&mut self, index: &Index, osa: bool, text: &str, most: usize) -> Result<bool, Stopped> {
        let Self { work, pairs, within, closest, .. } = self;
        within.clear();
        for max in 0..=RADIUS {
            pairs.clear();
            index.search(Likeness::Edit { osa, max }, &[(0, text)], 0, work, pairs)?;
            let found = pairs.iter().map(|(_, text)| *text);
            let fresh = found.clone().filter(|text| within.binary_search(text).is_err());
            closest.extend(fresh.map(|text| Close::distant(max, text)));
            if closest.len() >= most {
                return Ok(true);
            }
            within.clear();
            within.extend(found);
            within.sort_unstable();
        }
        closest.clear();
        Ok(false)
    }

    fn edit<const OSA: bool>(
        &mut self,
        column: &Column,
        text: &str,
        most: usize,
    ) -> Result<(), Stopped> {
        let mut best = Best::new(&mut self.closest, most);
        column.edit::<OSA>(text, &mut self.column, |row, distance| {
            best.take(Close::distant(distance, row as u32));
            usize::try_from(best.last).unwrap_or(usize::MAX)
        })
    }

    fn jaro<const WINKLER: bool>(
        &mut self,
        column: &Column,
        text: &str,
        most: usize,
    ) -> Result<(), Stopped> {
        let mut best = Best::new(&mut self.closest, most);
        column.jaro::<WINKLER>(text, &mut self.column, |row, similarity| {
            best.take(Close::similar(similarity, row as u32));
        })
    }
}

/// Keeps the closest.
pub(super) struct Best<'a> {
    pub closest: &'a mut Vec<Close>,
    pub most: usize,
    /// What is further is not among the closest.
    pub last: u64,
}

impl<'a> Best<'a> {
    pub fn new(closest: &'a mut Vec<Close>, most: usize) -> Self {
        Self { closest, most, last: u64::MAX }
    }

    #[inline]
    pub fn take(&mut self, close: Close) {
        if close.far > self.last {
            return;
        }
        self.closest.push(close);
        if self.closest.len() >= 4 * self.most + 64 {
            let (_, last, _) = self.closest.select_nth_unstable(self.most - 1);
            self.last = last.far;
            self.closest.truncate(self.most);
        }
    }
}
