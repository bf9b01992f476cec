//! Finds, in a set of texts, those alike a given text: the heart of a fuzzy join.
//!
//! An [`Index`] holds the distinct texts of one side. A search narrows them down with bounds that
//! never lose an answer and compares what is left with the kernels, so that it finds exactly the
//! pairs for which the SQL predicate holds, ties at the threshold included:
//!
//! | predicate | candidates |
//! |---|---|
//! | edit distance ≤ k, few texts | lengths, then counts of characters ([`bags`]) |
//! | edit distance ≤ 1 or 2, many texts | a common text after k deletions ([`edit`]; FastSS, Bocek et al. 2007) |
//! | Levenshtein ≤ k, many or long texts | one of k + 1 segments unchanged ([`edit`]; Pass-Join, Li et al. 2011) |
//! | Jaro, Jaro-Winkler ≥ t | lengths, then, among many, letters held and the first of them ([`groups`]), then counts of characters and the common prefix ([`bags`]) |
//! | a distance or a Jaro so loose that counts tell little | all texts of the block, in lanes ([`Column`]) |
//! | trigrams, characters, bigrams ≥ t | a rare element in common ([`sets`]; prefix filter, Chaudhuri et al. 2006) |
//!
//! Texts belong to blocks, numbered from 0: only texts of one block are compared. A join with
//! equality keys gives each key a block.

mod bags;
mod closest_sets;
mod edit;
mod groups;
mod hashed;
mod nearest;
#[cfg(test)]
mod nearest_tests;
mod sets;
#[cfg(test)]
mod tests;
mod texts;
mod verify;

use bags::Bags;
use edit::Edits;
use groups::{Groups, Letters};
pub use nearest::{Close, Measure, Nearest, NearestWork};
use sets::Sets;
use texts::Texts;
pub use verify::Work;

use super::kernel::column::Column;
use super::stop::{Stop, Stopped};

/// Candidates that a search gathers before it compares them.
const PER_ROUND: usize = 8_192;
/// Steps of about a nanosecond that gathering takes before candidates are compared.
const STEPS_A_ROUND: usize = 1 << 24;

/// The least similarity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    /// The bound.
    pub value: f64,
    /// Whether the similarity must be more than the bound.
    pub exclusive: bool,
}

impl Floor {
    /// Any similarity is enough.
    pub const NONE: Self = Self { value: 0.0, exclusive: false };

    /// Whether a similarity is enough.
    #[inline]
    pub fn holds(self, similarity: f64) -> bool {
        if self.exclusive { similarity > self.value } else { similarity >= self.value }
    }
}

/// How a text is taken as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetKind {
    /// Trigrams, as `trigram_similarity` compares them.
    Trigrams,
    /// Characters, as `jaccard_similarity`.
    Characters,
    /// Counted bigrams, as `cosine_similarity`.
    Bigrams,
}

/// When two texts are alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Likeness {
    /// The Levenshtein or, with `osa`, optimal-string-alignment distance is at most `max`.
    Edit {
        /// Whether a swap of neighbours counts once.
        osa: bool,
        /// Largest distance.
        max: usize,
    },
    /// The Jaro or Jaro-Winkler similarity is enough.
    Jaro {
        /// Whether a common prefix counts.
        winkler: bool,
        /// Least similarity.
        floor: Floor,
    },
    /// The similarity of two sets is enough.
    Sets {
        /// Which sets.
        kind: SetKind,
        /// Least similarity.
        floor: Floor,
    },
}

impl Likeness {
    /// An edit distance with another largest distance; any other likeness as it is.
    pub fn within(self, max: usize) -> Self {
        match self {
            Self::Edit { osa, .. } => Self::Edit { osa, max },
            other => other,
        }
    }
}

/// A text and its block.
pub type InBlock<'a> = (u32, &'a str);

/// Texts made ready to be found.
#[derive(Debug)]
pub struct Index {
    texts: Texts,
    search: Search,
}

#[derive(Debug)]
enum Search {
    Edit(Bags, Edits),
    Jaro(Bags, Groups),
    All(Column),
    Sets(Sets),
}

impl Index {
    /// Prepares texts, each of which occurs once in its block. Beside their own size the index
    /// takes up to `memory` bytes, and up to twice that while it is built.
    ///
    /// # Errors
    /// When nobody wants the result any more.
    pub fn new(
        likeness: Likeness,
        values: &[InBlock<'_>],
        memory: usize,
        stop: &Stop,
    ) -> Result<Self, Stopped> {
        let (texts, search) = match likeness {
            Likeness::Edit { .. } | Likeness::Jaro { .. } if is_loose(likeness, values) => {
                let texts = Texts::by_length(values, &[], stop)?;
                let column = Column::new((0..texts.len()).map(|at| texts.text(at)), stop)?;
                (texts, Search::All(column))
            }
            Likeness::Edit { osa, max } => {
                let texts = Texts::by_length(values, &[], stop)?;
                let bags = Bags::new(&texts, stop)?;
                let edits = Edits::new(&texts, osa, max, memory, stop)?;
                (texts, Search::Edit(bags, edits))
            }
            Likeness::Jaro { winkler, .. } => {
                let letters = Letters::new(values, winkler, stop)?;
                let texts = Texts::by_length(values, &letters.keys(values, stop)?, stop)?;
                let bags = Bags::new(&texts, stop)?;
                let groups = Groups::new(&texts, letters, stop)?;
                (texts, Search::Jaro(bags, groups))
            }
            Likeness::Sets { kind, floor } => {
                let (texts, sets) = Sets::new(values, kind, floor, stop)?;
                (texts, Search::Sets(sets))
            }
        };
        Ok(Self { texts, search })
    }

    /// Memory that the index takes.
    pub fn bytes(&self) -> usize {
        let search = match &self.search {
            Search::Edit(bags, edits) => bags.bytes() + edits.bytes(),
            Search::Jaro(bags, groups) => bags.bytes() + groups.bytes(),
            Search::All(column) => column.bytes(),
            Search::Sets(sets) => sets.bytes(),
        };
        self.texts.bytes() + search
    }

    /// Memory that an index of values takes at most before it is built, without what `memory`
    /// bounds in [`Self::new`].
    pub fn estimate(likeness: Likeness, values: usize, text_bytes: usize) -> usize {
        match likeness {
            Likeness::Sets { .. } => values * 48 + text_bytes * 17,
            _ => values * 176 + text_bytes * 2,
        }
    }

    /// Memory that the fastest index of values takes beside the estimate.
    pub fn wanted(likeness: Likeness, values: &[InBlock<'_>]) -> usize {
        match likeness {
            Likeness::Edit { osa, max } => Edits::wanted(values, osa, max),
            _ => 0,
        }
    }

    /// Finds the texts alike some of `probes`, from the one at `from` on, and appends the pairs,
    /// (position of the probe, position among the values), in the order of the probes. Gives the
    /// position of the next probe: one call compares a few thousand candidates, or all those of a
    /// single probe.
    ///
    /// The likeness is the index' own or, of an edit distance, one with another largest distance:
    /// up to its own an index is as fast, beyond it finds by lengths and characters alone.
    ///
    /// # Errors
    /// When nobody wants the result any more, as the working memory's [`Stop`] tells.
    pub fn search(
        &self,
        likeness: Likeness,
        probes: &[InBlock<'_>],
        from: usize,
        work: &mut Work,
        pairs: &mut Vec<(u32, u32)>,
    ) -> Result<usize, Stopped> {
        work.start();
        let mut next = from;
        while next < probes.len() && work.gathered() < PER_ROUND && work.spent() < STEPS_A_ROUND {
            work.stop.check()?;
            let (block, text) = probes[next];
            match (&self.search, likeness) {
                (Search::Edit(bags, edits), Likeness::Edit { max, .. }) => {
                    edits.gather(&self.texts, bags, (block, text), max, work);
                }
                (Search::Jaro(bags, groups), Likeness::Jaro { winkler, floor }) => {
                    let texts = (&self.texts, groups);
                    bags.gather_jaro(texts, (block, text), winkler, floor, work);
                }
                (Search::All(column), likeness) => {
                    work.compare_all(column, (block, text), likeness)?;
                }
                (Search::Sets(sets), _) => sets.gather(&self.texts, (block, text), work),
                _ => {}
            }
            work.keep_candidates(next);
            next += 1;
        }
        match likeness {
            Likeness::Edit { osa: false, max } => {
                work.verify_edit::<false>(&self.texts, probes, max)
            }
            Likeness::Edit { osa: true, max } => work.verify_edit::<true>(&self.texts, probes, max),
            Likeness::Jaro { winkler: false, floor } => {
                work.verify_jaro::<false>(&self.texts, probes, floor);
            }
            Likeness::Jaro { winkler: true, floor } => {
                work.verify_jaro::<true>(&self.texts, probes, floor);
            }
            Likeness::Sets { .. } => work.accept_all(),
        }
        // What was compared last may have ended early.
        work.stop.check()?;
        work.take_pairs(&self.texts, pairs);
        Ok(next)
    }
}

/// Whether lengths and counts of characters exclude so few texts that comparing all is faster.
fn is_loose(likeness: Likeness, values: &[InBlock<'_>]) -> bool {
    let bytes: usize = values.iter().map(|(_, text)| text.len()).sum();
    let is_loose = match likeness {
        Likeness::Edit { max, .. } => bytes / 2 <= values.len().saturating_mul(max),
        Likeness::Jaro { floor, .. } => floor.value < 0.7,
        _ => false,
    };
    is_loose && values.iter().all(|(block, _)| *block == 0)
}
