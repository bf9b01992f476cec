//! Re-ranking: from the best candidates of a model to the list that is shown.
//!
//! A candidate list is item codes with scores, best first. [`Rerank::apply`] changes the scores
//! (popularity, boosts), then picks item after item, each time the best that the rules allow:
//!
//! 1. *Score.* s′ = s − β · ln(max(popularity, 1)) + boost. With β = 0 popular items keep their
//!    lead; β is in units of the score (Steck 2011 takes a power of popularity, whose logarithm
//!    this is).
//! 2. *Quota.* An item whose category already has `max_per` items in the list is out. An item
//!    without a category has no quota.
//! 3. *Promotion.* Among the first p items of the list at least ⌊share · p⌋ are promoted, as long
//!    as promoted candidates that the quota allows are left: when the p-th place would break this,
//!    only promoted items may take it.
//! 4. *Diversity.* Of what is left the item with the greatest λ · r − (1 − λ) · (greatest
//!    similarity to an item of the list) is picked (maximal marginal relevance, Carbonell and
//!    Goldstein 1998). r is s′ scaled to 0 … 1 over the candidates, so that λ means the same for
//!    every model; all r are 1 when all s′ are equal. The first place compares r alone. λ = 1 is
//!    the order of s′.
//!
//! Ties go to the candidate that came first. A score that is NaN ranks last, and s′ stays within
//! what f32 holds. Candidates · k calls
//! of the similarity, none of them when λ = 1.

use super::error::ModelError;

/// What a share of 0.29 lacks in binary to be 29 of 100.
const ROUNDING: f64 = 1e-9;

/// A count or flag of an item, by code.
type OfItem<'a, T> = &'a dyn Fn(u32) -> T;
/// How alike two items are, by code.
type OfPair<'a> = &'a dyn Fn(u32, u32) -> f32;

/// Rules of a list. Without any the list is the first k candidates by score.
#[derive(Clone, Copy)]
pub struct Rerank<'a> {
    k: usize,
    popularity: Option<(f32, OfItem<'a, u32>)>,
    boost: Option<OfItem<'a, f32>>,
    quota: Option<(usize, OfItem<'a, Option<u32>>)>,
    promotion: Option<(f64, OfItem<'a, bool>)>,
    diversity: Option<(f32, OfPair<'a>)>,
}

impl<'a> Rerank<'a> {
    /// A list of at most `k` items.
    pub fn new(k: usize) -> Self {
        Self { k, popularity: None, boost: None, quota: None, promotion: None, diversity: None }
    }

    /// Takes `beta` · ln(popularity) off each score. A negative `beta` favours what is popular.
    ///
    /// # Errors
    /// When `beta` is NaN or infinite.
    pub fn popularity(
        mut self,
        beta: f32,
        popularity: OfItem<'a, u32>,
    ) -> Result<Self, ModelError> {
        if !beta.is_finite() {
            return Err(refused(
                "popularity_penalty",
                beta,
                "Use a finite number; 0 changes nothing",
            ));
        }
        self.popularity = Some((beta, popularity));
        Ok(self)
    }

    /// Adds to each score what `boost` gives, in units of the score; 0 for most.
    pub fn boost(mut self, boost: OfItem<'a, f32>) -> Self {
        self.boost = Some(boost);
        self
    }

    /// At most `max_per` items of a category.
    ///
    /// # Errors
    /// When `max_per` is 0.
    pub fn max_per(
        mut self,
        max_per: usize,
        category: OfItem<'a, Option<u32>>,
    ) -> Result<Self, ModelError> {
        if max_per == 0 {
            return Err(refused("max_per", 0, "Use 1 or more, or filter the categories out"));
        }
        self.quota = Some((max_per, category));
        Ok(self)
    }

    /// Guarantees promoted items `share` of the places.
    ///
    /// # Errors
    /// When `share` is no number from 0 to 1.
    pub fn promote(mut self, share: f64, promoted: OfItem<'a, bool>) -> Result<Self, ModelError> {
        if !(0.0..=1.0).contains(&share) {
            return Err(refused("promote_share", share, "Use a share from 0 to 1"));
        }
        self.promotion = Some((share, promoted));
        Ok(self)
    }

    /// Trades relevance for diversity: `lambda` 1 is relevance alone, 0 diversity alone.
    /// `similarity` is at most 1 for like items, such as the cosine of their vectors.
    ///
    /// # Errors
    /// When `lambda` is no number from 0 to 1.
    pub fn diversity(mut self, lambda: f32, similarity: OfPair<'a>) -> Result<Self, ModelError> {
        if !(0.0..=1.0).contains(&lambda) {
            return Err(refused("diversity", lambda, "Use a number from 0 to 1"));
        }
        self.diversity = Some((lambda, similarity));
        Ok(self)
    }

    /// The list: items with their changed scores s′, in the order in which they were picked. Fewer
    /// than k when the candidates or the quotas give no more. An item comes once.
    ///
    /// `items` and `scores` are the candidates; what one of them has beyond the other is left out.
    pub fn apply(&self, items: &[u32], scores: &[f32]) -> Vec<(u32, f32)> {
        let mut candidates = self.candidates(items, scores);
        let mut list: Vec<(u32, f32)> = vec![];
        let mut promoted = 0;
        let mut per_category = std::collections::HashMap::<u32, usize>::new();
        while list.len() < self.k && !candidates.is_empty() {
            if let Some((most, _)) = self.quota {
                candidates.retain(|candidate| {
                    let full = |category| per_category.get(&category).is_some_and(|n| *n >= most);
                    !candidate.category.is_some_and(full)
                });
            }
            let owed = self.promotion.is_some_and(|(share, _)| {
                ((list.len() + 1) as f64 * share + ROUNDING).floor() as usize > promoted
            });
            let owed = owed && candidates.iter().any(|candidate| candidate.promoted);
            let Some(position) = self.best(&candidates, owed) else { break };
            let picked = candidates.remove(position);
            promoted += usize::from(picked.promoted);
            if let Some(category) = picked.category {
                *per_category.entry(category).or_default() += 1;
            }
            list.push((picked.item, picked.score));
            self.compare(&mut candidates, picked.item);
        }
        list
    }

    /// The candidates by descending s′, with what the rules ask of them.
    fn candidates(&self, items: &[u32], scores: &[f32]) -> Vec<Candidate> {
        let mut seen = std::collections::HashSet::new();
        let pairs = items.iter().zip(scores).filter(|(item, _)| seen.insert(**item));
        let mut candidates: Vec<Candidate> = pairs
            .map(|(&item, &score)| Candidate {
                item,
                score: self.score(item, score),
                relevance: 1.0,
                similarity: None,
                category: self.quota.and_then(|(_, category)| category(item)),
                promoted: self.promotion.is_some_and(|(_, promoted)| promoted(item)),
            })
            .collect();
        candidates.sort_by(|a, b| ordered(b.score).total_cmp(&ordered(a.score)));
        let finite =
            || candidates.iter().map(|candidate| candidate.score).filter(|s| s.is_finite());
        let least = finite().fold(f32::INFINITY, f32::min);
        let range = finite().fold(f32::NEG_INFINITY, f32::max) - least;
        for candidate in &mut candidates {
            let above = ordered(candidate.score) - least;
            candidate.relevance = if range > 0.0 && range.is_finite() {
                (above / range).clamp(0.0, 1.0)
            } else {
                f32::from(u8::from(above >= 0.0))
            };
        }
        candidates
    }

    fn score(&self, item: u32, score: f32) -> f32 {
        let penalty = self
            .popularity
            .map_or(0.0, |(beta, popularity)| beta * (popularity(item).max(1) as f32).ln());
        let changed = score - penalty + self.boost.map_or(0.0, |boost| boost(item));
        changed.clamp(f32::MIN, f32::MAX)
    }

    /// The position of the best candidate; candidates are by descending s′.
    fn best(&self, candidates: &[Candidate], promoted_only: bool) -> Option<usize> {
        let mut allowed =
            candidates.iter().enumerate().filter(|(_, c)| c.promoted || !promoted_only);
        let lambda = self.diversity.map_or(1.0, |(lambda, _)| lambda);
        if lambda >= 1.0 {
            return allowed.next().map(|(position, _)| position);
        }
        let mut best = None;
        for (position, candidate) in allowed {
            let value = candidate.marginal(lambda);
            if best.is_none_or(|(_, most)| value > most) {
                best = Some((position, value));
            }
        }
        best.map(|(position, _)| position)
    }

    /// Notes how similar each candidate is to the item just picked.
    fn compare(&self, candidates: &mut [Candidate], picked: u32) {
        let Some((lambda, similarity)) = self.diversity else { return };
        if lambda < 1.0 {
            for candidate in candidates {
                let now = similarity(candidate.item, picked);
                // NaN says nothing.
                let before = candidate.similarity.unwrap_or(f32::NEG_INFINITY);
                candidate.similarity = Some(before.max(now));
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Candidate {
    item: u32,
    score: f32,
    relevance: f32,
    /// The greatest to an item of the list; none before the first.
    similarity: Option<f32>,
    category: Option<u32>,
    promoted: bool,
}

impl Candidate {
    fn marginal(&self, lambda: f32) -> f32 {
        match self.similarity {
            None => self.relevance,
            Some(similarity) if similarity.is_finite() => {
                lambda * self.relevance - (1.0 - lambda) * similarity
            }
            Some(_) => lambda * self.relevance,
        }
    }
}

/// A score whose NaN ranks last and whose zeros are one.
fn ordered(score: f32) -> f32 {
    if score.is_nan() { f32::NEG_INFINITY } else { score + 0.0 }
}

fn refused(option: &'static str, value: impl ToString, hint: &'static str) -> ModelError {
    ModelError::Option { option, value: value.to_string(), hint }
}

#[cfg(test)]
#[path = "rerank_tests.rs"]
mod tests;
