//! Learning to tell records apart, without labels.
//!
//! u, the probability of a level among records that do not match: how often values coincide is
//! counted over all pairs, how alike others are is estimated from a seeded sample of pairs, and
//! what matches contribute is taken off once their share is known. m, the probability of a level
//! among matches, is learned by [`super::em`] over the pairs of the blocking rules, and the share
//! of matches among all pairs is the fixed point of the sum of the pairs' probabilities.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use super::blocking::{Blocks, Cost, Rule};
use super::compare::{Comparer, level_of, levels};
use super::em::{Counted, Mixture, Shares, TINY};
use super::kind::Kind;
use super::records::Records;
use super::rng::{Seeded, mixed};
use super::suggest::{Suggested, suggest};
use crate::model::ModelError;
use crate::model::als::Progress;

/// Columns at most: four bits each.
pub const COLUMNS_MAX: usize = 16;

/// Options of learning.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkOptions {
    /// Rules to block by; suggested when empty.
    pub rules: Vec<Rule>,
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
}

/// What was learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Linkage {
    /// The columns.
    pub comparisons: Vec<Comparison>,
    /// The share of matches among all pairs.
    pub lambda: f64,
    /// The rules.
    pub rules: Vec<UsedRule>,
    /// The objective after each iteration of the last round.
    pub objective: Vec<f64>,
    /// Records of a block at most.
    pub block_max: usize,
}

/// Pairs that u is estimated from.
const SAMPLE: u64 = 200_000;
/// Pairs that m is learned from, about.
const TRAINED: u64 = 3_000_000;
/// Rounds of u, m and λ.
const ROUNDS: usize = 3;
/// Matches that the expectation of m counts for.
const STRENGTH: f64 = 20.0;

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

/// Learns of records; the blocks of the rules come with it.
///
/// # Errors
/// No records or columns, too many columns, cancellation.
pub fn learn(
    records: &Records,
    options: &LinkOptions,
    report: &mut (dyn FnMut(Progress) + Send),
    cancel: &AtomicBool,
) -> Result<(Linkage, Vec<Blocks>), ModelError> {
    if records.len == 0 {
        return Err(ModelError::Empty);
    }
    if records.columns.len() > COLUMNS_MAX {
        let what = "the number of compared columns";
        return Err(ModelError::TooLarge { what, limit: COLUMNS_MAX as u64 });
    }
    let budget = options.budget(records.len);
    let block_max = options.block_limit(records.len);
    let columns = &records.columns;
    let rules: Vec<Rule> = match options.rules.is_empty() {
        true => {
            let found = suggest(columns, &records.sides, budget, block_max, options.seed);
            found.into_iter().map(|Suggested { rule, .. }| rule).collect()
        }
        false => options.rules.clone(),
    };
    let block = |rule: &Rule| Blocks::new(rule, columns, &records.sides, block_max);
    let blocks: Vec<Blocks> = rules.iter().map(block).collect();
    let patterns = patterns(records, &blocks, cancel)?;
    let free: Vec<u32> = rules.iter().map(|rule| !rule.columns() & mask(columns.len())).collect();
    let sampled = sampled(records, options.seed);
    let mut learner = Learner::new(records, sampled, patterns);
    let mut objective = Vec::new();
    for round in 1..=ROUNDS {
        objective = learner.round(&free, options);
        let loss = objective.last().map(|objective| -objective);
        report(Progress { iteration: round, done: round, total: ROUNDS, loss, metric: None });
    }
    let recalls = learner.recalls(rules.len());
    let used = rules.into_iter().zip(&blocks).zip(recalls).map(|((rule, blocks), recall)| {
        UsedRule { text: rule.text(columns), rule, cost: blocks.cost, recall }
    });
    let linkage = Linkage {
        rules: used.collect(),
        comparisons: learner.comparisons(),
        lambda: learner.lambda,
        objective,
        block_max,
    };
    Ok((linkage, blocks))
}

fn mask(columns: usize) -> u32 {
    (1_u32 << columns.min(31)) - 1
}

/// Counts the levels of the rules' pairs, of a share of the records when there are many.
fn patterns(
    records: &Records,
    blocks: &[Blocks],
    cancel: &AtomicBool,
) -> Result<Vec<Counted>, ModelError> {
    let pairs: u64 = blocks.iter().map(|blocks| blocks.cost.pairs).sum();
    let every = (pairs / TRAINED).max(1);
    let takes = |record: u32| every == 1 || mixed(u64::from(record)) % every == 0;
    let counted = records.walk(
        blocks,
        takes,
        cancel,
        HashMap::<(u64, u32), u64>::new,
        |counts, comparer, left, right, rules| {
            *counts.entry((comparer.levels(left, right), rules)).or_default() += 1;
        },
    )?;
    let mut all: Vec<((u64, u32), u64)> = counted.into_iter().flatten().collect();
    all.sort_unstable();
    let sum = |of: &[((u64, u32), u64)]| Counted {
        levels: of[0].0.0,
        rules: of[0].0.1,
        pairs: (of.iter().map(|(_, count)| count).sum::<u64>() * every) as f64,
    };
    Ok(all.chunk_by(|a, b| a.0 == b.0).map(sum).collect())
}

/// The levels of a sample of pairs, counted by column, level 0 too.
fn sampled(records: &Records, seed: u64) -> Shares {
    let mut counts: Shares =
        records.columns.iter().map(|column| vec![0.0; levels(column.kind).len() + 1]).collect();
    let mut comparer = Comparer::new(&records.columns);
    let len = records.len as u64;
    let mut add = |left: u32, right: u32| {
        for (column, counts) in counts.iter_mut().enumerate() {
            counts[comparer.level(column, left, right) as usize] += 1.0;
        }
    };
    if records.pairs() <= SAMPLE as f64 {
        for left in 0..len as u32 {
            let others = left + 1..len as u32;
            others.filter(|&right| records.may_match(left, right)).for_each(|right| add(left, right));
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

struct Learner {
    sampled: Shares,
    coincidence: Vec<f64>,
    patterns: Vec<Counted>,
    names: Vec<(String, Kind)>,
    all_pairs: f64,
    records: f64,
    expected: Shares,
    m: Shares,
    u: Shares,
    lambda: f64,
}

impl Learner {
    fn new(records: &Records, sampled: Shares, patterns: Vec<Counted>) -> Self {
        let columns = &records.columns;
        let expected: Shares = columns
            .iter()
            .map(|column| levels(column.kind).iter().map(|level| level.1).collect())
            .collect();
        Self {
            sampled,
            coincidence: (0..columns.len()).map(|at| records.coincidence(at)).collect(),
            patterns,
            names: columns.iter().map(|column| (column.name.clone(), column.kind)).collect(),
            all_pairs: records.pairs(),
            records: records.len as f64,
            m: expected.clone(),
            u: Vec::new(),
            expected,
            lambda: 0.0,
        }
    }

    fn round(&mut self, free: &[u32], options: &LinkOptions) -> Vec<f64> {
        self.u = (0..self.names.len()).map(|column| self.others(column)).collect();
        let mixture = Mixture {
            patterns: &self.patterns,
            free,
            u: &self.u,
            expected: &self.expected,
            strength: STRENGTH,
        };
        let learned = mixture.run(options.max_iterations, options.tolerance);
        self.m = learned.m;
        self.lambda = self.share_of_matches();
        learned.objective
    }

    /// u of a column: what all pairs show, without the matches among them.
    fn others(&self, column: usize) -> Vec<f64> {
        let sampled = &self.sampled[column][1..];
        let top = sampled.len() - 1;
        let m = &self.m[column];
        let lambda = self.lambda;
        let without = |share: f64, level: usize| (share - lambda * m[level]) / (1.0 - lambda);
        // Half a pair in as many as there are, when none coincides but for matches.
        let least = 0.5 / self.all_pairs.max(self.records);
        let equal = without(self.coincidence[column], top).clamp(least, 0.999_999);
        let below: f64 = sampled[..top].iter().sum();
        let mut u: Vec<f64> = sampled[..top]
            .iter()
            .map(|count| (1.0 - equal) * (count + 0.5) / (below + 0.5 * top as f64))
            .collect();
        u.push(equal);
        u
    }

    fn ratio(&self, levels: u64) -> f64 {
        (0..self.names.len())
            .filter_map(|column| Some((column, level_of(levels, column).checked_sub(1)?)))
            .map(|(column, level)| {
                self.m[column][level].max(TINY).ln() - self.u[column][level].max(TINY).ln()
            })
            .sum()
    }

    /// The fixed point of λ = Σ probabilities / pairs.
    fn share_of_matches(&self) -> f64 {
        let ratios: Vec<f64> =
            self.patterns.iter().map(|pattern| self.ratio(pattern.levels)).collect();
        let least = 0.5 / self.all_pairs.max(2.0);
        let mut lambda = (0.1 * self.records / self.all_pairs.max(1.0)).clamp(least, 0.5);
        for _ in 0..100 {
            let odds = (lambda / (1.0 - lambda)).ln();
            let cells = self.patterns.iter().zip(&ratios);
            let matches: f64 = cells
                .map(|(pattern, ratio)| pattern.pairs / (1.0 + (-odds - ratio).exp()))
                .sum();
            let next = (matches / self.all_pairs.max(1.0)).clamp(least, 0.9);
            let change = (next - lambda).abs() / lambda;
            lambda = next;
            if change < 1e-6 {
                break;
            }
        }
        lambda
    }

    /// The share of matches that each rule finds.
    fn recalls(&self, rules: usize) -> Vec<f64> {
        let odds = (self.lambda / (1.0 - self.lambda)).ln();
        let mut found = vec![0.0; rules];
        let mut all = 0.0;
        for pattern in &self.patterns {
            let matches = pattern.pairs / (1.0 + (-odds - self.ratio(pattern.levels)).exp());
            all += matches;
            let of = |rule: &usize| pattern.rules >> rule & 1 == 1;
            (0..rules).filter(of).for_each(|rule| found[rule] += matches);
        }
        found.into_iter().map(|found| if all > 0.0 { found / all } else { 0.0 }).collect()
    }

    fn comparisons(self: &Learner) -> Vec<Comparison> {
        let shares = self.m.iter().zip(&self.u);
        let named = self.names.iter().zip(shares);
        named
            .map(|((column, kind), (m, u))| Comparison {
                column: column.clone(),
                kind: *kind,
                m: m.clone(),
                u: u.clone(),
            })
            .collect()
    }
}
