//! What a model of entities is worth: precision and recall over pairs of records, against a truth
//! or by what was learned.
//!
//! Without a truth, the matches among linked pairs are the sum of their probabilities. Those that
//! were missed are of two kinds. Pairs that were compared and not linked count by their
//! probabilities, but for those that cannot match: a person has decided so, or of a link one of the
//! two has its record of the other's table already. Pairs that no rule brought together are
//! estimated as a catch of which some is never caught (Chao 1987): from the linked matches that the
//! rules of only one column, or set of columns, found, f₁, and those that two did, f₂, of t:
//! f₁·(f₁ − 1)·(t − 1)/t / (2·(f₂ + 1)), at most f₁. Rules of one set of columns say nothing of
//! that, so that what they miss is not estimated.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::blocking::{Blocks, rules_of};
use super::cluster::{Clusters, Decision, Method};
use super::column::NONE;
use super::gather::Identified;
use super::learn::Linkage;
use super::model::{EntityModel, Settings};
use super::pairs::Pairs;
use super::score::{Edge, Scorer, weight};
use super::values::Mixed;
use crate::model::ModelError;

/// The names of what a model is measured by.
pub const MEASURES: [&str; 13] = [
    "precision",
    "recall",
    "f1_score",
    "estimated_precision",
    "estimated_recall",
    "estimated_f1_score",
    "records",
    "entities",
    "duplicate_records",
    "largest_entity",
    "linked_pairs",
    "refused_pairs",
    "unlinkable_records",
];

/// What is measured in training.
pub(super) struct Measured<'a> {
    /// The records.
    pub found: &'a Identified,
    /// Their scored pairs.
    pub edges: &'a Pairs,
    /// What became of them.
    pub clusters: &'a Clusters,
    /// What people have decided.
    pub decisions: &'a [Decision],
    /// What was learned.
    pub linkage: &'a Linkage,
    /// The blocks of the rules.
    pub blocks: &'a [Blocks],
    /// The records that say too little.
    pub unlinkable: &'a [u32],
}

/// The records that say too little: from this threshold they do not match even their own copies.
pub(super) fn unlinkable(scorer: &Scorer<'_>, threshold: f64) -> Vec<u32> {
    let least = weight(threshold);
    let records = (0..scorer.records().len as u32).into_par_iter();
    records.filter(|&record| scorer.itself(record) < least).collect()
}

impl Measured<'_> {
    /// By [`MEASURES`].
    ///
    /// # Errors
    /// When the disk that pairs are on fails.
    pub fn all(&self, settings: &Settings) -> Result<Vec<f64>, ModelError> {
        let records = &self.found.records;
        let groups = &self.clusters.of;
        let sides = &records.sides;
        let [precision, recall] = match &self.found.truth {
            Some(truth) => against(groups, truth, sides),
            None => [f64::NAN; 2],
        };
        let linked = together(groups.iter().copied().enumerate(), sides);
        let right = right(self.edges, self.clusters, sides)?;
        let missed = self.refused(settings.method)? + self.unseen()?;
        let [estimated, found] = [share(right, linked), share(right, right + missed)];
        let [entities, largest] = sizes(groups);
        Ok(vec![
            precision,
            recall,
            mean(precision, recall),
            estimated,
            found,
            mean(estimated, found),
            records.len as f64,
            entities,
            records.len as f64 - entities,
            largest,
            linked,
            self.clusters.refused as f64,
            self.unlinkable.len() as f64,
        ])
    }

    /// The matches to be expected among compared pairs that were not linked.
    fn refused(&self, method: Method) -> Result<f64, ModelError> {
        let groups = &self.clusters.of;
        let apart = self.decisions.iter().filter(|decision| !decision.is_match);
        let apart: HashSet<(u32, u32)> = apart.map(|pair| (pair.left, pair.right)).collect();
        let sides = &self.found.sides;
        // The tables that each entity has a record of, where it has one of each at most.
        let has: HashSet<(u32, u32)> = match method {
            Method::BestLink => groups.iter().copied().zip(sides.iter().copied()).collect(),
            Method::Connected | Method::Guarded => HashSet::new(),
        };
        let may_match = |edge: &Edge| {
            let (left, right) = (edge.left as usize, edge.right as usize);
            let is_taken = |one: usize, other: usize| {
                sides.get(other).is_some_and(|&side| has.contains(&(groups[one], side)))
            };
            groups[left] != groups[right]
                && !apart.contains(&(edge.left, edge.right))
                && !is_taken(left, right)
                && !is_taken(right, left)
        };
        sum(self.edges, may_match)
    }

    /// The matches to be expected among pairs that no rule brought together.
    fn unseen(&self) -> Result<f64, ModelError> {
        let mut sets: Vec<u32> =
            self.linkage.rules.iter().map(|used| used.rule.columns()).collect();
        let of_rules = sets.clone();
        sets.sort_unstable();
        sets.dedup();
        let times = |rules: u32| {
            let found = |set: &&u32| {
                of_rules.iter().zip(0..).any(|(of, rule)| of == *set && rules >> rule & 1 == 1)
            };
            sets.iter().filter(found).count()
        };
        let groups = &self.clusters.of;
        // Matches by how many sets of columns found them; none did where only others tell.
        let mut caught = [0.0; 3];
        self.edges.each(|edge| {
            if groups[edge.left as usize] == groups[edge.right as usize] {
                let times = times(rules_of(self.blocks, edge.left, edge.right));
                if let Some(caught) = caught.get_mut(times) {
                    *caught += edge.probability();
                }
            }
        })?;
        let [known, once, twice] = caught;
        let occasions = sets.len().max(1) as f64;
        let missed = once * (once - 1.0).max(0.0) / (2.0 * (twice + 1.0));
        Ok(((missed * (occasions - 1.0) / occasions).min(once) - known).max(0.0))
    }
}

/// The measures of a model and its pairs against a truth, at its own threshold or another; `truth`
/// has the entity of each record or [`NONE`], `stored` what training measured by [`MEASURES`]. What
/// another threshold changes and a model does not keep is NaN.
///
/// # Errors
/// When the disk that pairs are on is full, or fails.
pub fn against_truth(
    model: &EntityModel,
    pairs: &Pairs,
    truth: &[u32],
    threshold: Option<f64>,
    stored: &[f64],
) -> Result<Vec<f64>, ModelError> {
    let settings = &model.parts().settings;
    let threshold = threshold.unwrap_or(settings.threshold);
    let clusters = model.clusters_at(pairs, threshold)?;
    let groups = &clusters.of;
    let sides = if settings.is_link { model.sides() } else { &[] };
    let [precision, recall] = against(groups, truth, sides);
    let known = [precision, recall, mean(precision, recall)];
    let was = |name: &str| {
        let at = MEASURES.iter().position(|known| *known == name);
        at.and_then(|at| stored.get(at).copied()).unwrap_or(f64::NAN)
    };
    if threshold == settings.threshold {
        return Ok(known.into_iter().chain(stored.iter().skip(known.len()).copied()).collect());
    }
    let linked = together(groups.iter().copied().enumerate(), sides);
    let right = right(pairs, &clusters, sides)?;
    let matches = was("estimated_precision") * was("linked_pairs") / was("estimated_recall");
    let [estimated, found] = [share(right, linked), share(right, matches.max(right))];
    let [entities, largest] = sizes(groups);
    let records = groups.len() as f64;
    let rest = [
        estimated,
        if matches.is_nan() { f64::NAN } else { found },
        mean(estimated, found),
        records,
        entities,
        records - entities,
        largest,
        linked,
        clusters.refused as f64,
        f64::NAN,
    ];
    Ok(known.into_iter().chain(rest).collect())
}

/// The matches to be expected among linked pairs: those that were linked because of a decision are.
fn right(edges: &Pairs, clusters: &Clusters, sides: &[u32]) -> Result<f64, ModelError> {
    let by_pairs = &clusters.by_pairs;
    let is_linked = |edge: &Edge| by_pairs[edge.left as usize] == by_pairs[edge.right as usize];
    let learned = sum(edges, is_linked)?;
    let pairs = |groups: &[u32]| together(groups.iter().copied().enumerate(), sides);
    Ok(learned + pairs(&clusters.of) - pairs(by_pairs))
}

/// The matches to be expected among the pairs that count.
fn sum(edges: &Pairs, counts: impl Fn(&Edge) -> bool) -> Result<f64, ModelError> {
    let mut sum = 0.0;
    edges.each(|edge| {
        if counts(edge) {
            sum += edge.probability();
        }
    })?;
    Ok(sum)
}

/// Precision and recall over pairs of records whose entity is known.
fn against(groups: &[u32], truth: &[u32], sides: &[u32]) -> [f64; 2] {
    let known: Vec<usize> = (0..truth.len()).filter(|&at| truth[at] != NONE).collect();
    let found = together(known.iter().map(|&at| (at, groups[at])), sides);
    let wanted = together(known.iter().map(|&at| (at, truth[at])), sides);
    let mut both: HashMap<(u32, u32), u32> = HashMap::new();
    let of = known.iter().map(|&at| {
        let next = both.len() as u32;
        (at, *both.entry((groups[at], truth[at])).or_insert(next))
    });
    let of: Vec<(usize, u32)> = of.collect();
    let right = together(of.into_iter(), sides);
    [right / found, right / wanted]
}

/// Pairs of records of one group that may match: of a link, those of different tables.
fn together(groups: impl Iterator<Item = (usize, u32)>, sides: &[u32]) -> f64 {
    let mut cells: Vec<(u32, u32)> =
        groups.map(|(at, group)| (group, sides.get(at).copied().unwrap_or(at as u32))).collect();
    cells.par_sort_unstable();
    let pairs = |count: usize| count as f64 * (count as f64 - 1.0) / 2.0;
    let group = |group: &[(u32, u32)]| {
        let same: f64 = match sides.is_empty() {
            true => 0.0,
            false => group.chunk_by(|a, b| a == b).map(|side| pairs(side.len())).sum(),
        };
        pairs(group.len()) - same
    };
    cells.chunk_by(|a, b| a.0 == b.0).map(group).sum()
}

/// Groups, and the records of the largest.
fn sizes(groups: &[u32]) -> [f64; 2] {
    let mut sizes: Mixed<u32, u64> = Mixed::default();
    for root in groups {
        *sizes.entry(*root).or_default() += 1;
    }
    [sizes.len() as f64, sizes.values().copied().max().unwrap_or(0) as f64]
}

fn share(part: f64, of: f64) -> f64 {
    // The sum of nothing is -0.
    if of > 0.0 { (part + 0.0) / of } else { f64::NAN }
}

fn mean(precision: f64, recall: f64) -> f64 {
    2.0 * precision * recall / (precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_measured_where_the_truth_is_known() {
        // Found: {0, 1}, {2, 3, 4}; true: {0, 1}, {2, 3}, {4}; of 5 nothing is known.
        let groups = [0, 0, 2, 2, 2, 2];
        let truth = [7, 7, 8, 8, 9, NONE];
        assert_eq!(against(&groups, &truth, &[]), [0.5, 1.0]);
        // Of a link, pairs of one table are none.
        assert_eq!(against(&groups, &truth, &[0, 1, 0, 0, 1, 1]), [1.0 / 3.0, 1.0]);
    }
}
