//! Rounds of learning: u from what all pairs show, m by expectation maximization over the pairs of
//! the blocking rules and from labelled matches, and the shares of matches and relatives among all
//! pairs as the fixed point of the sum of the pairs' probabilities.

use super::column::Column;
use super::compare::{coincidences, level_of, levels};
use super::em::{self, Counted, Mixture, Shares, TINY};
use super::kind::Kind;
use super::labels::matches;
use super::learn::{Comparison, LinkOptions};
use super::records::Records;

/// Matches a record that learning starts from.
const EXPECTED: f64 = 0.2;
/// Pairs that what is usual counts for.
const USUAL_PAIRS: f64 = 200.0;
/// Matches that the expectation of m counts for.
const STRENGTH: f64 = 20.0;
/// Rounds of the levels of encodings that no rule leaves free.
const LEVEL_ROUNDS: usize = 30;
/// The place among the levels of encodings of those that are nearly equal.
const NEARLY_EQUAL: usize = 2;

fn last(objective: &[f64]) -> f64 {
    objective.last().copied().unwrap_or(f64::NEG_INFINITY)
}

/// What is learned, from round to round.
pub struct Learner {
    sampled: Shares,
    coincidence: Vec<f64>,
    patterns: Vec<Counted>,
    labelled: Shares,
    /// u of nearly equal encodings, of columns that no rule leaves free.
    tails: Vec<Option<f64>>,
    kinds: Vec<Kind>,
    all_pairs: f64,
    records: f64,
    expected: Shares,
    m: Shares,
    u: Shares,
    h: Shares,
    own: u32,
    /// The share of matches among all pairs.
    pub lambda: f64,
    /// The share of relatives.
    pub eta: f64,
    /// What the round before has learned, without relatives and with them.
    last: [Option<em::Learned>; 2],
}

impl Learner {
    /// Begins with the levels of a sample of pairs, the patterns of the rules' pairs and of
    /// labelled ones, the columns that are a person's own and the number of rules, and how often
    /// encodings that no rule leaves free are nearly equal among others.
    pub fn new(
        records: &Records,
        sampled: Shares,
        patterns: Vec<Counted>,
        (own, rules): (u32, usize),
        tails: Vec<Option<f64>>,
    ) -> Self {
        let columns = &records.columns;
        // A pair counts once for each rule that found it, so a label counts for all of them.
        let labelled = matches(&patterns, records, rules.max(1) as f64);
        let expected: Shares = columns
            .iter()
            .map(|column| levels(column.kind).iter().map(|level| level.1).collect())
            .collect();
        Self {
            sampled,
            coincidence: (0..columns.len()).map(|at| records.coincidence(at)).collect(),
            patterns,
            labelled,
            tails,
            kinds: columns.iter().map(|column| column.kind).collect(),
            all_pairs: records.pairs(),
            records: records.len as f64,
            m: expected.clone(),
            u: Vec::new(),
            h: expected.clone(),
            own,
            expected,
            lambda: 0.0,
            eta: 0.0,
            last: [None, None],
        }
    }

    /// Learns u, m and the shares once more; gives the objective after each iteration.
    pub fn round(&mut self, free: &[u32], options: &LinkOptions) -> Vec<f64> {
        self.u = (0..self.kinds.len()).map(|column| self.others(column)).collect();
        let mixture = Mixture {
            patterns: &self.patterns,
            free,
            u: &self.u,
            expected: &self.expected,
            strength: STRENGTH,
            labelled: &self.labelled,
            own: 0,
        };
        let run = |mixture: Mixture<'_>, start: &em::Learned| {
            mixture.run(start, options.max_iterations, options.tolerance)
        };
        let [alone, with] = std::mem::take(&mut self.last);
        let mut learned =
            run(mixture, &alone.unwrap_or_else(|| mixture.start(EXPECTED * self.records)));
        self.last[0] = Some(learned.clone());
        if self.own != 0 {
            let mixture = Mixture { own: self.own, ..mixture };
            let found = match &with {
                Some(with) => run(mixture, with),
                None => run(mixture, &mixture.with_relatives(&learned)),
            };
            let gain = last(&found.objective) - last(&learned.objective);
            if gain > self.bar() {
                self.last[1] = Some(found.clone());
                learned = found;
            } else {
                self.own = 0;
            }
        }
        self.m = learned.m;
        self.h = learned.h;
        self.find_shares();
        self.find_levels();
        learned.objective
    }

    /// What relatives must explain of the pairs to be believed in: ten times the Bayesian
    /// information criterion, since a pair counts for each rule that found it.
    fn bar(&self) -> f64 {
        let pairs: f64 = self.patterns.iter().map(|pattern| pattern.pairs).sum();
        let shares: usize = self.expected.iter().map(|levels| levels.len() - 1).sum();
        5.0 * shares as f64 * pairs.max(2.0).ln()
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
        // Few records say little of how often values coincide: what is usual counts beside them.
        let usual = coincidences(self.kinds[column]);
        let equal =
            (self.all_pairs * equal + USUAL_PAIRS * usual[top]) / (self.all_pairs + USUAL_PAIRS);
        let below: f64 = sampled[..top].iter().sum();
        let half = 0.5 * below / (below + USUAL_PAIRS);
        let cells = sampled[..top].iter().zip(usual);
        let mut u: Vec<f64> =
            cells.map(|(count, usual)| count + half + USUAL_PAIRS * usual).collect();
        let all: f64 = u.iter().sum();
        u.iter_mut().for_each(|u| *u *= (1.0 - equal) / all);
        if let Some(tail) = self.tails[column] {
            let matches = (u[NEARLY_EQUAL] - tail).max(0.0);
            u[NEARLY_EQUAL] -= matches;
            u[0] += matches;
        }
        u.push(equal);
        u
    }

    /// The logarithms of how much likelier a match, and relatives, have these levels than others.
    fn ratios(&self, levels: u64) -> [f64; 2] {
        let mut ratios = [0.0; 2];
        for column in 0..self.kinds.len() {
            if let Some(level) = level_of(levels, column).checked_sub(1) {
                let u = self.u[column][level].max(TINY).ln();
                ratios[0] += self.m[column][level].max(TINY).ln() - u;
                ratios[1] += self.h[column][level].max(TINY).ln() - u;
            }
        }
        ratios
    }

    /// The probabilities of a match and of relatives.
    fn probabilities(&self, ratios: [f64; 2]) -> [f64; 2] {
        let of = |share: f64, ratio: f64| share.max(TINY).ln() + ratio;
        let logs = [of(self.lambda, ratios[0]), of(self.eta, ratios[1])];
        let other = (1.0 - self.lambda - self.eta).ln();
        let largest = logs[0].max(logs[1]).max(other);
        let sum: f64 = logs.iter().chain([&other]).map(|log| (log - largest).exp()).sum();
        logs.map(|log| (log - largest).exp() / sum)
    }

    /// The probabilities of a match and of relatives of a pair of a pattern, labelled or not.
    fn shares(&self, pattern: &Counted, ratios: [f64; 2]) -> [f64; 2] {
        let [matches, relatives] = self.probabilities(ratios);
        match pattern.label {
            None => [matches, relatives],
            Some(true) => [1.0, 0.0],
            Some(false) => [0.0, (relatives / (1.0 - matches).max(TINY)).min(1.0)],
        }
    }

    /// The fixed point of λ = Σ probabilities / pairs, and of η, over the pairs that a rule found:
    /// people label pairs of their choice, which tell nothing of how many others match.
    fn find_shares(&mut self) {
        let ratios: Vec<[f64; 2]> =
            self.patterns.iter().map(|pattern| self.ratios(pattern.levels)).collect();
        let least = 0.5 / self.all_pairs.max(2.0);
        self.lambda = (0.1 * self.records / self.all_pairs.max(1.0)).clamp(least, 0.5);
        self.eta = if self.own == 0 { 0.0 } else { self.lambda * 0.25 };
        for _ in 0..100 {
            let mut found = [0.0; 2];
            for (pattern, ratios) in self.patterns.iter().zip(&ratios) {
                if pattern.rules == 0 {
                    continue;
                }
                let shares = self.shares(pattern, *ratios);
                found
                    .iter_mut()
                    .zip(shares)
                    .for_each(|(found, share)| *found += pattern.pairs * share);
            }
            let next = (found[0] / self.all_pairs.max(1.0)).clamp(least, 0.9);
            let change = (next - self.lambda).abs() / self.lambda;
            self.lambda = next;
            if self.own != 0 {
                self.eta = (found[1] / self.all_pairs.max(1.0)).min(0.09);
            }
            if change < 1e-6 {
                break;
            }
        }
    }

    /// m of encodings that no rule leaves free, as the fixed point with the share of matches.
    fn find_levels(&mut self) {
        if self.tails.iter().all(Option::is_none) {
            return;
        }
        for _ in 0..LEVEL_ROUNDS {
            let mut counts = self.labelled.clone();
            for pattern in self.patterns.iter().filter(|found| found.label.is_none()) {
                let matches = pattern.pairs * self.probabilities(self.ratios(pattern.levels))[0];
                for (column, counts) in counts.iter_mut().enumerate() {
                    if let Some(level) = level_of(pattern.levels, column).checked_sub(1) {
                        counts[level] += matches;
                    }
                }
            }
            for (column, counts) in counts.iter().enumerate() {
                if self.tails[column].is_some() {
                    let total = counts.iter().sum::<f64>() + STRENGTH;
                    let shares = counts.iter().zip(&self.expected[column]);
                    let m = shares.map(|(count, usual)| (count + STRENGTH * usual) / total);
                    self.m[column] = m.collect();
                }
            }
            self.find_shares();
        }
    }

    /// The share of matches that each rule finds.
    pub fn recalls(&self, rules: usize) -> Vec<f64> {
        let mut found = vec![0.0; rules];
        let mut all = 0.0;
        for pattern in self.patterns.iter().filter(|pattern| pattern.rules != 0) {
            let share = self.shares(pattern, self.ratios(pattern.levels))[0];
            let matches = pattern.pairs * share;
            all += matches;
            let of = |rule: &usize| pattern.rules >> rule & 1 == 1;
            (0..rules).filter(of).for_each(|rule| found[rule] += matches);
        }
        found.into_iter().map(|found| if all > 0.0 { found / all } else { 0.0 }).collect()
    }

    /// What was learned of each of the columns that it began with.
    pub fn comparisons(&self, columns: &[Column]) -> Vec<Comparison> {
        let of = |(at, column): (usize, &Column)| Comparison {
            column: column.name.clone(),
            kind: column.kind,
            m: self.m[at].clone(),
            u: self.u[at].clone(),
            h: self.h[at].clone(),
            is_own: self.own >> at & 1 == 1,
            placeholders: column.placeholders.clone(),
        };
        columns.iter().enumerate().map(of).collect()
    }
}
