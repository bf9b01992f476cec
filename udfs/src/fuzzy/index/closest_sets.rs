//! The texts most alike as sets.
//!
//! The lists of a text's elements are walked, the rarest first, and what each text shares is
//! counted. What has been counted bounds a similarity from below, what is left from above: once
//! enough texts are more alike than one can be that shares only what is left, no other text is
//! looked at, and of those that were met only such are compared as can still be among the closest.

use super::SetKind;
use super::nearest::{Best, Close};
use super::sets::{SetWork, Sets};
use super::texts::Texts;
use super::verify::Work;
use crate::fuzzy::kernel::sets::{dot, share, shared, square};
use crate::fuzzy::stop::Stopped;

/// More than rounding can take from a cosine.
const ROUNDING: f64 = 1e-9;

/// A text that others are compared with.
struct Asked<'a> {
    sets: &'a Sets,
    /// The ranks of its elements.
    elements: &'a [u64],
    /// How many they are or, of bigrams, the sum of their squared counts.
    all: u64,
}

impl Asked<'_> {
    fn is_counted(&self) -> bool {
        self.sets.kind == SetKind::Bigrams
    }

    /// The similarity to a text that shares so much.
    fn similarity(&self, common: u64, at: usize) -> f64 {
        if self.is_counted() {
            return common as f64 / (self.all as f64 * self.sets.squares[at] as f64).sqrt();
        }
        let both = self.elements.len() + self.sets.set(at).len();
        share(common as usize, both - common as usize)
    }

    /// The most that the similarity to a text can be that shares `met` and may share `rest` more.
    fn most(&self, met: u32, rest: u64, at: usize) -> f64 {
        if !self.is_counted() {
            let most = self.elements.len().min(self.sets.set(at).len()) as u64;
            return self.similarity((u64::from(met) + rest).min(most), at);
        }
        if met == u32::MAX {
            return f64::INFINITY;
        }
        let squares = self.sets.squares[at] as f64;
        let dot = f64::from(met) + (rest as f64 * squares).sqrt();
        dot / (self.all as f64 * squares).sqrt() + ROUNDING
    }

    /// The most that the similarity to a text can be that shares nothing but `rest`.
    fn most_of_others(&self, rest: u64) -> f64 {
        if self.is_counted() {
            return (rest as f64 / self.all as f64).sqrt() + ROUNDING;
        }
        share(rest as usize, self.elements.len())
    }

    /// What a run of equal elements adds to `all`.
    fn weight(&self, run: &[u64]) -> u64 {
        if self.is_counted() { (run.len() as u64).pow(2) } else { 1 }
    }

    fn compare(&self, at: usize) -> f64 {
        let other = self.sets.set(at);
        if self.is_counted() {
            return self.similarity(dot(self.elements, other), at);
        }
        self.similarity(shared(self.elements, other) as u64, at)
    }

    /// A similarity that `most` of the texts met have at least; `None` when they are fewer.
    fn reached(
        &self,
        most: usize,
        met: &[u32],
        candidates: &[u32],
        least: &mut Vec<u64>,
    ) -> Option<f64> {
        if candidates.len() < most {
            return None;
        }
        let bits = |at: &u32| self.similarity(u64::from(met[*at as usize]), *at as usize).to_bits();
        least.clear();
        least.extend(candidates.iter().map(bits));
        let (_, reached, _) = least.select_nth_unstable_by(most - 1, |x, y| y.cmp(x));
        Some(f64::from_bits(*reached))
    }
}

impl Sets {
    /// Finds the `most` texts most alike, in no order and maybe more; texts of one block.
    pub fn closest(
        &self,
        texts: &Texts,
        text: &str,
        most: usize,
        work: &mut Work,
        closest: &mut Vec<Close>,
    ) -> Result<(), Stopped> {
        work.start();
        work.stop.check()?;
        let SetWork { mut elements, mut met, mut least } = std::mem::take(&mut work.sets);
        self.rank(text, &mut elements);
        met.resize(texts.len(), 0);
        if elements.is_empty() {
            self.gather_empty(texts, (0, text), &mut work.candidates);
            let equal = work.candidates.iter().map(|at| Close::similar(1.0, texts.given(*at)));
            closest.extend(equal);
        } else {
            let all = if self.kind == SetKind::Bigrams {
                square(&elements)
            } else {
                elements.len() as u64
            };
            let asked = Asked { sets: self, elements: &elements, all };
            let mut best = Best::new(closest, most);
            self.most_alike(&asked, texts, (&mut met, &mut least), work, &mut best)?;
        }
        work.sets = SetWork { elements, met, least };
        fill(texts.len() as u32, most, closest);
        Ok(())
    }

    fn most_alike(
        &self,
        asked: &Asked<'_>,
        texts: &Texts,
        (met, least): (&mut [u32], &mut Vec<u64>),
        work: &mut Work,
        best: &mut Best<'_>,
    ) -> Result<(), Stopped> {
        let Work { candidates, stop, .. } = work;
        let mut pace = stop.pace();
        let known = &asked.elements[..self.known(asked.elements)];
        let runs = || known.chunk_by(|x, y| x == y);
        let mut rest: u64 = runs().map(|run| asked.weight(run)).sum();
        for run in runs() {
            let list = self.list(run[0], &(0..texts.len() as u32));
            pace.spend(16 + 4 * list.len())?;
            // Looking costs as much as walking a list as long as the texts met.
            if list.len() >= candidates.len()
                && let Some(reached) = asked.reached(best.most, met, candidates, least)
                && asked.most_of_others(rest) < reached
            {
                break;
            }
            for place in list {
                let at = self.lists[place];
                let shared = &mut met[at as usize];
                if *shared == 0 {
                    candidates.push(at);
                }
                let times = self.counts.get(place).copied().unwrap_or(1);
                *shared = shared.saturating_add(times.saturating_mul(run.len() as u32));
            }
            rest -= asked.weight(run);
        }
        let reached = asked.reached(best.most, met, candidates, least).unwrap_or(0.0);
        for at in candidates.drain(..) {
            let (met, at) = (std::mem::take(&mut met[at as usize]), at as usize);
            let similarity = if rest == 0 && met < u32::MAX {
                asked.similarity(u64::from(met), at)
            } else if asked.most(met, rest, at) < reached {
                continue;
            } else {
                pace.spend(asked.elements.len() + self.set(at).len())?;
                asked.compare(at)
            };
            best.take(Close::similar(similarity, texts.given(at as u32)));
        }
        Ok(())
    }
}

/// Adds the first texts that share nothing, if fewer than `most` share something.
fn fill(texts: u32, most: usize, closest: &mut Vec<Close>) {
    if closest.len() >= most {
        return;
    }
    let mut found: Vec<u32> = closest.iter().map(|close| close.text).collect();
    found.sort_unstable();
    let others = (0..texts).filter(|text| found.binary_search(text).is_err());
    let missing = most - closest.len();
    closest.extend(others.take(missing).map(|text| Close::similar(0.0, text)));
}
