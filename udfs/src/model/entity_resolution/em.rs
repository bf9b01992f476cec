//! Expectation maximization of the Fellegi-Sunter model over patterns of levels.
//!
//! The pairs of a blocking rule are a mixture: a share λ of matches, whose levels have the
//! probabilities m, and others, whose levels have the probabilities u (Fellegi and Sunter 1969,
//! Winkler 1988). Columns are independent given which of the two a pair is. The columns that a rule
//! itself makes agree say nothing within it and are left out, so that m is learned of each column
//! from the rules that leave it free. All rules share m, each has its own λ; what is maximized is
//! the sum of their log-likelihoods and of a Dirichlet prior of m. It never falls.
//!
//! Where some columns are a person's own (a first name, a date of birth), the others are of two
//! kinds: a share η of the pairs are relatives, two persons of a household, who agree by chance on
//! what is their own and share the rest with probabilities h. Without this third part, who lives
//! together would pass for one.
//!
//! Of labelled pairs it is known whether they match (Nigam et al. 2000, a mixture half supervised):
//! a rule that found one counts it as what it is, and the levels of labelled matches count beside
//! those that are expected of the others, whether a rule found them or not.

use super::compare::level_of;

/// Pairs with the same levels, found by the same rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    /// Levels, as [`super::compare::Comparer::levels`] packs them.
    pub levels: u64,
    /// The rules that found them, a bit each.
    pub rules: u32,
    /// How many.
    pub pairs: f64,
    /// Whether they match, where that is known.
    pub label: Option<bool>,
}

/// A column's probabilities, of level 1 first.
pub type Shares = Vec<Vec<f64>>;

/// What is given.
#[derive(Debug, Clone, Copy)]
pub struct Mixture<'a> {
    /// The pairs, in an order that does not depend on threads.
    pub patterns: &'a [Counted],
    /// Of each rule, the columns that it leaves free, a bit each.
    pub free: &'a [u32],
    /// u.
    pub u: &'a [Vec<f64>],
    /// What m is expected to be.
    pub expected: &'a [Vec<f64>],
    /// How many matches that expectation counts for.
    pub strength: f64,
    /// Labelled matches by column and level.
    pub labelled: &'a [Vec<f64>],
    /// The columns that are a person's own, a bit each; without any there are no relatives.
    pub own: u32,
}

/// What is learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// m.
    pub m: Shares,
    /// h; of columns that are a person's own it is u.
    pub h: Shares,
    /// The share of matches among each rule's pairs.
    pub lambda: Vec<f64>,
    /// The share of relatives.
    pub eta: Vec<f64>,
    /// The objective after each iteration.
    pub objective: Vec<f64>,
}

/// The largest share of matches that a rule starts with.
const LAMBDA_MAX: f64 = 0.5;

impl Mixture<'_> {
    /// Where nothing is known yet, but that about so many matches are to be expected.
    pub fn start(&self, matches: f64) -> Learned {
        let rules = self.free.len();
        let mut pairs = vec![0.0; rules];
        for pattern in self.patterns {
            let found = (0..rules).filter(|rule| pattern.rules >> rule & 1 == 1);
            found.for_each(|rule| pairs[rule] += pattern.pairs);
        }
        let share = |pairs: f64| (matches / pairs.max(1.0)).min(LAMBDA_MAX);
        Learned {
            m: self.first(),
            h: self.relatives(self.expected),
            lambda: pairs.into_iter().map(share).collect(),
            eta: vec![0.0; rules],
            objective: Vec::new(),
        }
    }

    /// m before any pair is looked at: as expected, and as the labelled matches have it.
    fn first(&self) -> Shares {
        let none: Shares = self.expected.iter().map(|m| vec![0.0; m.len()]).collect();
        match self.labelled.iter().flatten().any(|&pairs| pairs > 0.0) {
            true => self.maximized(&none, self.labelled),
            false => self.expected.to_vec(),
        }
    }

    /// The same with relatives among the matches: so much of each rule's are some at first.
    pub fn with_relatives(&self, learned: &Learned) -> Learned {
        let half = |lambda: &Vec<f64>| lambda.iter().map(|lambda| 0.5 * lambda).collect();
        Learned {
            h: self.relatives(&learned.m),
            lambda: half(&learned.lambda),
            eta: half(&learned.lambda),
            ..learned.clone()
        }
    }

    /// Runs until an iteration gains less than `tolerance` a pair, or `iterations` are done.
    pub fn run(&self, start: &Learned, iterations: usize, tolerance: f64) -> Learned {
        let mut learned = Learned { objective: Vec::new(), ..start.clone() };
        let pairs: f64 = self.patterns.iter().map(|pattern| pattern.pairs).sum();
        for _ in 0..iterations {
            let objective = self.step(&mut learned);
            let before = learned.objective.last().copied();
            learned.objective.push(objective);
            if before.is_some_and(|before| objective - before < tolerance * pairs.max(1.0)) {
                break;
            }
        }
        learned
    }

    /// `shares` of the columns that relatives share, u of the others.
    fn relatives(&self, shares: &[Vec<f64>]) -> Shares {
        let of = |(at, (shares, u)): (usize, (&Vec<f64>, &Vec<f64>))| {
            if self.own >> at & 1 == 1 { u.clone() } else { shares.clone() }
        };
        shares.iter().zip(self.u).enumerate().map(of).collect()
    }

    /// One iteration; gives the objective of what it started from.
    fn step(&self, learned: &mut Learned) -> f64 {
        let parts = [&learned.m, &learned.h].map(|shares| {
            let cells = shares.iter().zip(self.u);
            cells.map(|(shares, u)| logs(shares, u)).collect::<Vec<Vec<f64>>>()
        });
        let log = |u: &Vec<f64>| u.iter().map(|u| u.max(TINY).ln()).collect();
        let log_u: Vec<Vec<f64>> = self.u.iter().map(log).collect();
        let none = || self.expected.iter().map(|m| vec![0.0; m.len()]).collect::<Shares>();
        let mut counts = [none(), none()];
        let mut found = vec![[0.0; 3]; self.free.len()];
        let mut objective = self.prior(&learned.m, u32::MAX)
            + self.prior(&learned.h, !self.own)
            + self.of_labels(&learned.m);
        for pattern in self.patterns {
            let mut rules = pattern.rules;
            while rules != 0 {
                let rule = rules.trailing_zeros() as usize;
                rules &= rules - 1;
                let shares = [learned.lambda[rule], learned.eta[rule]];
                let (told, shares) = self.shares(pattern, rule, shares, &parts, &log_u);
                objective += pattern.pairs * told;
                found[rule].iter_mut().zip(shares).for_each(|(found, share)| *found += share);
                // The levels of labelled matches count by themselves.
                let matches = if pattern.label == Some(true) { 0.0 } else { shares[0] };
                for_free(self.free[rule], pattern.levels, |column, level| {
                    counts[0][column][level] += matches;
                    counts[1][column][level] += shares[1];
                });
            }
        }
        let [matches, relatives] = counts;
        learned.m = self.maximized(&matches, self.labelled);
        if self.own != 0 {
            learned.h = self.relatives(&self.maximized(&relatives, &none()));
        }
        for (rule, found) in found.iter().enumerate() {
            let total: f64 = found.iter().sum();
            if total > 0.0 {
                learned.lambda[rule] = found[0] / total;
                learned.eta[rule] = found[1] / total;
            }
        }
        objective
    }

    /// The logarithm of the likelihood of a pair of a pattern that `rule` found, and how many of
    /// its pairs are matches, relatives and others.
    fn shares(
        &self,
        pattern: &Counted,
        rule: usize,
        [lambda, eta]: [f64; 2],
        parts: &[Shares; 2],
        log_u: &[Vec<f64>],
    ) -> (f64, [f64; 3]) {
        let mut logs = [lambda, eta, 1.0 - lambda - eta].map(|share| share.max(TINY).ln());
        match pattern.label {
            Some(true) => return (logs[0], [pattern.pairs, 0.0, 0.0]),
            Some(false) => logs[0] = f64::NEG_INFINITY,
            None => {}
        }
        let mut base = 0.0;
        for_free(self.free[rule], pattern.levels, |column, level| {
            logs[0] += parts[0][column][level];
            logs[1] += parts[1][column][level];
            base += log_u[column][level];
        });
        let largest = logs[0].max(logs[1]).max(logs[2]);
        let sum = largest + logs.iter().map(|log| (log - largest).exp()).sum::<f64>().ln();
        (base + sum, logs.map(|log| (log - sum).exp() * pattern.pairs))
    }

    /// The shares that counts and the prior give.
    fn maximized(&self, counts: &[Vec<f64>], labelled: &[Vec<f64>]) -> Shares {
        let of = |((counts, labelled), expected): ((&Vec<f64>, &Vec<f64>), &Vec<f64>)| {
            let total = counts.iter().sum::<f64>() + labelled.iter().sum::<f64>() + self.strength;
            if total <= 0.0 {
                return expected.clone();
            }
            let cells = counts.iter().zip(labelled).zip(expected);
            cells
                .map(|((count, labelled), expected)| {
                    (count + labelled + self.strength * expected) / total
                })
                .collect()
        };
        counts.iter().zip(labelled).zip(self.expected).map(of).collect()
    }

    /// The logarithm of the likelihood of the labelled matches.
    fn of_labels(&self, m: &[Vec<f64>]) -> f64 {
        let cells = self.labelled.iter().zip(m).flat_map(|(pairs, m)| pairs.iter().zip(m));
        cells.map(|(pairs, m)| pairs * m.max(TINY).ln()).sum()
    }

    /// The logarithm of the Dirichlet prior of some columns, without its constant.
    fn prior(&self, shares: &[Vec<f64>], of: u32) -> f64 {
        let columns = shares.iter().zip(self.expected).enumerate();
        let columns = columns.filter(|(at, _)| of >> at & 1 == 1 && *at < 32);
        let cells = columns.flat_map(|(_, (shares, expected))| shares.iter().zip(expected));
        cells.map(|(share, expected)| self.strength * expected * share.max(TINY).ln()).sum()
    }
}

/// Below this a probability counts as this.
pub const TINY: f64 = 1e-300;

/// The logarithms of m / u.
fn logs(m: &[f64], u: &[f64]) -> Vec<f64> {
    m.iter().zip(u).map(|(m, u)| m.max(TINY).ln() - u.max(TINY).ln()).collect()
}

/// Calls with each free column that has evidence, and its level from 0.
#[inline]
fn for_free(free: u32, levels: u64, mut call: impl FnMut(usize, usize)) {
    let mut columns = free;
    while columns != 0 {
        let column = columns.trailing_zeros() as usize;
        columns &= columns - 1;
        let level = level_of(levels, column);
        if level > 0 {
            call(column, level - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pairs of two columns with two levels each, drawn from a known mixture.
    fn drawn(lambda: f64, m: [f64; 3], u: [f64; 3]) -> Vec<Counted> {
        let mut patterns = Vec::new();
        for bits in 0..8_u64 {
            let part = |of: &[f64; 3]| {
                (0..3).map(|at| if bits >> at & 1 == 1 { of[at] } else { 1.0 - of[at] }).product()
            };
            let (matched, other): (f64, f64) = (part(&m), part(&u));
            let levels = (0..3).map(|at| (1 + (bits >> at & 1)) << (4 * at)).sum();
            let pairs = 1e6 * (lambda * matched + (1.0 - lambda) * other);
            patterns.push(Counted { levels, rules: 1, pairs, label: None });
        }
        patterns
    }

    #[test]
    fn a_known_mixture_is_found_again() {
        let (m, u) = ([0.9, 0.8, 0.95], [0.01, 0.1, 0.05]);
        let patterns = drawn(0.3, m, u);
        let shares = u.map(|u| vec![1.0 - u, u]);
        let expected = [0.7, 0.7, 0.7].map(|m| vec![1.0 - m, m]);
        let mixture = Mixture {
            patterns: &patterns,
            free: &[0b111],
            u: &shares,
            expected: &expected,
            strength: 1.0,
            labelled: &[(); 3].map(|()| vec![0.0; 2]),
            own: 0,
        };
        let learned = mixture.run(&mixture.start(1e5), 500, 1e-12);
        assert!((learned.lambda[0] - 0.3).abs() < 1e-3, "{learned:?}");
        for (found, m) in learned.m.iter().zip(m) {
            assert!((found[1] - m).abs() < 1e-3, "{learned:?}");
        }
    }

    /// Two kinds of pairs agree: a few matches, and many of one series that share two columns of
    /// seven. Alone, the many pass for matches.
    #[test]
    fn few_labels_tell_which_of_two_kinds_of_pairs_match() {
        let of = |shared: f64, own: f64| [shared, shared, own, own, own, own, own];
        let kinds = [(200.0, of(0.9, 0.97)), (3_000.0, of(0.95, 0.02)), (96_800.0, of(0.05, 0.02))];
        let pattern = |bits: u64| {
            let agrees = |at: usize| bits >> at & 1 == 1;
            let part = |of: &[f64; 7]| -> f64 {
                (0..7).map(|at| if agrees(at) { of[at] } else { 1.0 - of[at] }).product()
            };
            let levels = (0..7).map(|at| (1 + (bits >> at & 1)) << (4 * at)).sum();
            let pairs = kinds.iter().map(|(count, of)| count * part(of)).sum();
            Counted { levels, rules: 1, pairs, label: None }
        };
        let patterns: Vec<Counted> = (0..128).map(pattern).collect();
        let both = |share: f64| vec![1.0 - share, share];
        let u = kinds[2].1.map(both);
        let expected = [(); 7].map(|()| both(0.8));
        let matches = |labels: f64| {
            let labelled = kinds[0].1.map(|m| vec![labels * (1.0 - m), labels * m]);
            let mixture = Mixture {
                patterns: &patterns,
                free: &[0b111_1111],
                u: &u,
                expected: &expected,
                strength: 20.0,
                labelled: &labelled,
                own: 0,
            };
            1e5 * mixture.run(&mixture.start(20_000.0), 500, 0.0).lambda[0]
        };
        assert!(matches(0.0) > 3_000.0, "{}", matches(0.0));
        assert!((matches(30.0) - 200.0).abs() < 10.0, "{}", matches(30.0));
    }

    proptest! {
        #[test]
        fn the_objective_never_falls(
            patterns in
                prop::collection::vec((0_u64..4096, 0_u32..4, 1_u32..1000, 0_u8..9), 1..60),
            u in prop::collection::vec(0.001_f64..0.999, 3),
            strength in 0.0_f64..20.0,
            own in 0_u32..3,
        ) {
            let patterns: Vec<Counted> = patterns
                .into_iter()
                .map(|(levels, rules, pairs, label)| {
                    let label = (label < 2).then_some(label == 1);
                    let level = |at: u64| (levels >> (4 * at) & 15) % 3;
                    let levels = level(0) | level(1) << 4 | level(2) << 8;
                    Counted { levels, rules, pairs: f64::from(pairs), label }
                })
                .collect();
            let u: Vec<Vec<f64>> = u.into_iter().map(|u| vec![1.0 - u, u]).collect();
            let expected = vec![vec![0.2, 0.8]; 3];
            let mut labelled = vec![vec![0.0; 2]; 3];
            for pattern in patterns.iter().filter(|pattern| pattern.label == Some(true)) {
                for_free(0b111, pattern.levels, |column, level| {
                    labelled[column][level] += 2.0 * pattern.pairs;
                });
            }
            let mixture = Mixture {
                patterns: &patterns, free: &[0b110, 0b011], u: &u, expected: &expected, strength,
                labelled: &labelled, own,
            };
            let start = mixture.start(100.0);
            let start = if own == 0 { start } else { mixture.with_relatives(&start) };
            let learned = mixture.run(&start, 50, 0.0);
            for pair in learned.objective.windows(2) {
                prop_assert!(pair[1] >= pair[0] - 1e-9 * pair[0].abs(), "{:?}", learned.objective);
            }
            for m in &learned.m {
                prop_assert!((m.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            }
        }
    }
}
