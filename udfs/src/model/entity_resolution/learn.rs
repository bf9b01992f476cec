//! Learning to tell records apart, without labels or with some.
//!
//! u, the probability of a level among records that do not match: how often values coincide is
//! counted over all pairs, how alike others are is estimated from a seeded sample of pairs, and
//! what matches contribute is taken off once their share is known. m, the probability of a level
//! among matches, is learned by [`super::em`] over the pairs of the blocking rules, and the share
//! of matches among all pairs is the fixed point of the sum of the pairs' probabilities. Of
//! encodings that every rule is made of, m is learned together with that share. Labelled
//! pairs are known to be what they are: their matches count beside those that m is expected from,
//! and they say nothing of u and of how many other pairs match.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;

use super::blocking::{Blocked, Blocks, Cost, RULES_MAX, Rule, blocks_of};
use super::cluster::Decision;
use super::column::Column;
use super::compare::{Comparer, FIRST_NAMES, is_called, levels};
use super::dependence::{Dependence, dependences, told};
use super::em::{Counted, Shares};
use super::kind::Kind;
use super::labels::counted;
use super::learner::Learner;
use super::records::{Records, Which};
use super::room::{Room, take_for_keys};
use super::suggest::{expected_recalls, offered_bytes, suggest};
use super::tails::nearly_equal;
use crate::model::ModelError;
use crate::model::als::Progress;
use crate::model::random::{Seeded, mixed};

/// Columns at most: four bits each.
pub const COLUMNS_MAX: usize = 16;

/// A rule with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRule {
    /// The rule.
    pub rule: Rule,
    /// How it is shown.
    pub text: String,
}

/// Options of learning.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkOptions {
    /// Rules to block by; suggested when empty.
    pub rules: Vec<NamedRule>,
    /// The columns that are a person's own; by their names and kinds when `None`.
    pub own: Option<Vec<usize>>,
    /// Pairs that suggested rules may cost in all; by the records when `None`.
    pub pairs_max: Option<u64>,
    /// Records of a block at most; by the pairs when `None`.
    pub block_max: Option<usize>,
    /// Iterations at most.
    pub max_iterations: usize,
    /// Stop once an iteration gains less than this a pair.
    pub tolerance: f64,
    /// Seed of the samples.
    pub seed: u64,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            own: None,
            pairs_max: None,
            block_max: None,
            max_iterations: 50,
            tolerance: 1e-6,
            seed: 0,
        }
    }
}

/// A column's part in a match.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The column.
    pub column: String,
    /// How it is compared.
    pub kind: Kind,
    /// The probability of each level, `else` first, among matches.
    pub m: Vec<f64>,
    /// The same among others.
    pub u: Vec<f64>,
    /// The same among relatives.
    pub h: Vec<f64>,
    /// Whether the column is a person's own: relatives do not share it.
    pub is_own: bool,
    /// The fingerprints of its values that stand for nobody and count as none.
    pub placeholders: Vec<u64>,
}

/// A rule as it was used.
#[derive(Debug, Clone, PartialEq)]
pub struct UsedRule {
    /// The rule.
    pub rule: Rule,
    /// Its text.
    pub text: String,
    /// What it cost.
    pub cost: Cost,
    /// The share of matches that it finds, by the learned probabilities.
    pub recall: f64,
    /// The share that it and the rules before it were expected to find before anything was learned;
    /// `None` in a version that was stored without.
    pub expected: Option<f64>,
}

/// What was learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Linkage {
    /// The columns.
    pub comparisons: Vec<Comparison>,
    /// The share of matches among all pairs.
    pub lambda: f64,
    /// The share of relatives.
    pub eta: f64,
    /// The columns that follow from others.
    pub dependences: Vec<Dependence>,
    /// The rules.
    pub rules: Vec<UsedRule>,
    /// The objective after each iteration of the last round.
    pub objective: Vec<f64>,
    /// Records of a block at most.
    pub block_max: usize,
}

impl Linkage {
    /// Checks that the parts fit together, as what is stored may not.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<(), ModelError> {
        let wrong = |what: &str| Err(ModelError::Inconsistent(what.to_owned()));
        let columns = self.comparisons.len();
        if columns > COLUMNS_MAX || self.rules.len() > RULES_MAX {
            return wrong("it has more columns or rules than there can be");
        }
        let fits = |comparison: &Comparison| {
            let count = levels(comparison.kind).len();
            [&comparison.m, &comparison.u, &comparison.h].iter().all(|shares| shares.len() == count)
        };
        if !self.comparisons.iter().all(fits) {
            return wrong("its probabilities are not those of its levels");
        }
        if self.rules.iter().any(|used| used.rule.columns() >> columns != 0) {
            return wrong("its rules are of columns that it does not have");
        }
        let ties = &self.dependences;
        if ties.iter().any(|tie| tie.on >= columns || tie.column >= columns) {
            return wrong("its columns follow from others that it does not have");
        }
        let is_share = |share: f64| (0.0..1.0).contains(&share);
        if !is_share(self.lambda) || !is_share(self.eta) || self.lambda <= 0.0 {
            return wrong("its share of matches is none");
        }
        Ok(())
    }
}

/// Pairs that u is estimated from.
const SAMPLE: u64 = 200_000;
/// Pairs that m is learned from, about.
const TRAINED: u64 = 1_000_000;
/// Rounds of u, m and λ.
const ROUNDS: usize = 3;

impl LinkOptions {
    /// The pairs that suggested rules may cost.
    pub fn budget(&self, records: usize) -> u64 {
        self.pairs_max.unwrap_or((20 * records as u64).max(500_000))
    }

    /// Records of a block at most.
    pub fn block_limit(&self, records: usize) -> usize {
        let budget = self.budget(records) as f64;
        self.block_max.unwrap_or((budget / 20.0).sqrt() as usize).max(2)
    }
}

/// Learns of records, and of labelled pairs where there are some; the blocks of the rules come with
/// it.
///
/// # Errors
/// No records or columns, too many columns, too little room for keys, cancellation.
pub fn learn(
    records: &Records,
    labels: &[Decision],
    options: &LinkOptions,
    room: Room<'_>,
    report: &mut (dyn FnMut(Progress) + Send),
    cancel: &AtomicBool,
) -> Result<(Linkage, Blocked), ModelError> {
    if records.len == 0 {
        return Err(ModelError::Empty);
    }
    if records.columns.len() > COLUMNS_MAX {
        let what = "the number of compared columns";
        return Err(ModelError::TooLarge { what, limit: COLUMNS_MAX as u64 });
    }
    let budget = options.budget(records.len);
    let block_max = options.block_limit(records.len);
    if options.rules.len() > RULES_MAX {
        return Err(ModelError::TooLarge { what: "the number of rules", limit: RULES_MAX as u64 });
    }
    let columns = &records.columns;
    let rules = match options.rules.is_empty() {
        true => {
            take_for_keys(offered_bytes(columns), records.len, room)?;
            named(suggest(columns, &records.sides, budget, block_max, options.seed), columns)
        }
        false => options.rules.clone(),
    };
    let blocked = blocks_of(rules.iter().map(|named| &named.rule), records, block_max, room)?;
    let blocks = &blocked.blocks;
    let costs = rules.iter().zip(blocks).map(|(named, blocks)| (&named.rule, blocks.cost));
    let expected = expected_recalls(costs, columns, options.seed);
    let dependences = dependences(columns);
    let mut patterns = patterns(records, labels, blocks, &dependences, cancel)?;
    patterns.extend(counted(labels, records, blocks, &dependences));
    let tied = |of: u32| {
        let ties = dependences.iter().map(|tie| (1_u32 << tie.on) | (1 << tie.column));
        ties.filter(|both| both & of != 0).fold(of, |all, both| all | both)
    };
    let free = |named: &NamedRule| !tied(named.rule.columns()) & mask(columns.len());
    let free: Vec<u32> = rules.iter().map(free).collect();
    let sampled = sampled(records, options.seed);
    let own = match &options.own {
        Some(own) => own.iter().fold(0, |all, at| all | 1 << at),
        None => own_columns(columns),
    };
    let tail = |(at, column): (usize, &Column)| {
        let is_never_free = free.iter().all(|free| free >> at & 1 == 0);
        // Other rules find pairs by more than how alike they are.
        let finds_alike = rules.iter().any(|named| named.rule.samples(at));
        let is_alone = column.kind == Kind::Bloom && is_never_free && finds_alike;
        is_alone.then(|| nearly_equal(records, at, options.seed))
    };
    let tails = columns.iter().enumerate().map(tail).collect();
    let mut learner = Learner::new(records, sampled, patterns, (own, rules.len()), tails);
    let mut objective = Vec::new();
    for round in 1..=ROUNDS {
        objective = learner.round(&free, options);
        let loss = objective.last().map(|objective| -objective);
        report(Progress { iteration: round, done: round, total: ROUNDS, loss, metric: None });
    }
    let recalls = learner.recalls(rules.len());
    let found = rules.into_iter().zip(blocks).zip(recalls.into_iter().zip(expected));
    let used = found.map(|((NamedRule { rule, text }, blocks), (recall, expected))| UsedRule {
        text,
        rule,
        cost: blocks.cost,
        recall,
        expected: Some(expected),
    });
    let linkage = Linkage {
        rules: used.collect(),
        comparisons: learner.comparisons(columns),
        lambda: learner.lambda,
        eta: learner.eta,
        dependences,
        objective,
        block_max,
    };
    Ok((linkage, blocked))
}

/// Rules of columns with their texts.
fn named(rules: Vec<Rule>, columns: &[Column]) -> Vec<NamedRule> {
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    rules.into_iter().map(|rule| NamedRule { text: rule.text(&names), rule }).collect()
}

/// The columns whose names say that they are a person's own: first names and dates of birth. All
/// columns cannot be: someone must share something.
pub fn own_columns(columns: &[Column]) -> u32 {
    let own = |column: &Column| {
        let name = column.name.to_lowercase();
        let is_of_birth = ["birth", "born", "dob", "geburt"].iter().any(|word| name.contains(word));
        match column.kind {
            Kind::Name => is_called(column, &FIRST_NAMES),
            Kind::Date => is_of_birth,
            _ => false,
        }
    };
    let own = (0..).zip(columns).fold(0, |all, (at, column)| all | u32::from(own(column)) << at);
    if own == mask(columns.len()) { 0 } else { own }
}

fn mask(columns: usize) -> u32 {
    (1_u32 << columns.min(31)) - 1
}

/// Counts the levels of the rules' pairs that have no label, of a share of the records when there
/// are many.
fn patterns(
    records: &Records,
    labels: &[Decision],
    blocks: &[Blocks],
    dependences: &[Dependence],
    cancel: &AtomicBool,
) -> Result<Vec<Counted>, ModelError> {
    let pairs: u64 = blocks.iter().map(|blocks| blocks.cost.pairs).sum();
    let every = (pairs / TRAINED).max(1);
    let labelled: HashSet<(u32, u32)> =
        labels.iter().map(|label| (label.left, label.right)).collect();
    let is_taken = |record: u32| every == 1 || mixed(u64::from(record)).is_multiple_of(every);
    let takes = |record: u32| is_taken(record).then_some(Which::Later);
    let counted = records.walk(
        blocks,
        takes,
        cancel,
        HashMap::<(u64, u32), u64>::new,
        |counts, comparer, left, right, rules| {
            if !labelled.is_empty() && labelled.contains(&(left, right)) {
                return;
            }
            let levels = told(dependences, comparer.levels(left, right));
            *counts.entry((levels, rules)).or_default() += 1;
        },
        Ok,
    )?;
    let mut all: Vec<((u64, u32), u64)> = counted.into_iter().flatten().collect();
    all.sort_unstable();
    let sum = |of: &[((u64, u32), u64)]| Counted {
        levels: of[0].0.0,
        rules: of[0].0.1,
        pairs: (of.iter().map(|(_, count)| count).sum::<u64>() * every) as f64,
        label: None,
    };
    Ok(all.chunk_by(|a, b| a.0 == b.0).map(sum).collect())
}

/// The levels of a sample of pairs, counted by column, level 0 too.
fn sampled(records: &Records, seed: u64) -> Shares {
    let mut counts: Shares =
        records.columns.iter().map(|column| vec![0.0; levels(column.kind).len() + 1]).collect();
    let mut comparer = Comparer::new(records);
    let len = records.len as u64;
    let mut add = |left: u32, right: u32| {
        for (column, counts) in counts.iter_mut().enumerate() {
            counts[comparer.level(column, left, right) as usize] += 1.0;
        }
    };
    if records.pairs() <= SAMPLE as f64 {
        for left in 0..len as u32 {
            let others = left + 1..len as u32;
            others
                .filter(|&right| records.may_match(left, right))
                .for_each(|right| add(left, right));
        }
        return counts;
    }
    let mut random = Seeded::new(mixed(seed ^ 0x5A4D));
    // Some records after one another share what is prepared of the first.
    for _ in 0..SAMPLE / 8 {
        let left = random.below(len) as u32;
        for _ in 0..8 {
            let right = random.below(len) as u32;
            if records.may_match(left, right) {
                add(left, right);
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::super::column::Gatherer;
    use super::super::kind::Declared;
    use super::*;

    /// A column of values drawn with the same probability each, `""` for none.
    fn drawn(name: &str, kind: Kind, values: &[&str], rows: u32, random: &mut Seeded) -> Column {
        let mut gatherer = Gatherer::default();
        for _ in 0..rows {
            gatherer.push(Some(values[random.below(values.len() as u64) as usize]));
        }
        let order: Vec<u32> = (0..rows).collect();
        gatherer.finish(name, Declared::Text, Some(kind), &order, &[])
    }

    /// Records of a code of four, of a name whose first two are alike, and of a letter that two of
    /// five do not have.
    fn of_chance(rows: u32) -> Records {
        let random = &mut Seeded::new(17);
        let columns = vec![
            drawn("code", Kind::Code, &["1111", "2222", "3333", "4444"], rows, random),
            drawn("name", Kind::Code, &["10000", "10001", "99999"], rows, random),
            drawn("letter", Kind::Exact, &["a", "b", "c", "", ""], rows, random),
        ];
        Records::new(columns, vec![], rows as usize)
    }

    #[test]
    fn a_sample_of_pairs_agrees_as_often_as_chance_has_it() {
        // Few records, of which all pairs are looked at, and many, of which a sample is.
        for (rows, tolerance) in [(600, 0.08), (3000, 0.04)] {
            let records = of_chance(rows);
            assert_eq!(records.pairs() > SAMPLE as f64, rows == 3000);
            let found = sampled(&records, 5);
            let expected: [&[f64]; 3] = [
                &[0.0, 0.75, 0.0, 0.0, 0.25],
                &[0.0, 4.0 / 9.0, 0.0, 2.0 / 9.0, 1.0 / 3.0],
                &[1.0 - 0.36, 0.36 * 2.0 / 3.0, 0.36 / 3.0],
            ];
            for (counts, expected) in found.iter().zip(expected) {
                let all: f64 = counts.iter().sum();
                assert_eq!(counts.len(), expected.len());
                for (count, expected) in counts.iter().zip(expected) {
                    let share = count / all;
                    assert!((share - expected).abs() < tolerance, "{rows} {share} {expected}");
                }
            }
        }
    }

    #[test]
    fn a_sample_depends_on_nothing_but_its_seed() {
        let records = of_chance(3000);
        let found = sampled(&records, 5);
        assert_eq!(found, sampled(&records, 5));
        assert_ne!(found, sampled(&records, 6));
    }
}
