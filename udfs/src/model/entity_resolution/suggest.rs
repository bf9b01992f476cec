//! Blocking rules that suggest themselves: few pairs, and hardly a match missed.
//!
//! Matches are imagined: of each column, a match has equal values, or values with one slip of the
//! pen, or others, or none, with shares that are assumed before anything is learned. A rule covers
//! the imagined matches whose keys agree. Rules are taken by the matches that they newly cover for
//! each pair that they cost, until nothing is left to gain or the pairs are spent.

use rayon::prelude::*;

use super::blocking::{Cost, RULES_MAX, Rule, Sides, pairs_of};
use super::column::Column;
use super::key::{Key, Part, offered};
use crate::model::random::{Seeded, mixed};

/// A rule with what it is expected to find.
#[derive(Debug, Clone, PartialEq)]
pub struct Suggested {
    /// The rule.
    pub rule: Rule,
    /// The share of matches that it and those before it are expected to find.
    pub recall: f64,
}

/// Imagined matches.
const IMAGINED: usize = 4096;
const BITS: usize = IMAGINED / 64;
type Covered = [u64; BITS];

/// The shares of matches with equal values and with one slip in a column; the rest differ.
const EQUAL: f64 = 0.7;
const SLIP: f64 = 0.2;
/// The share of a rule's records in blocks small enough, at least.
const KEPT_MIN: f64 = 0.5;
/// Records, about, that rules are weighed on.
const WEIGHED: usize = 100_000;

/// Chooses rules for columns within a budget of pairs.
pub fn suggest(
    columns: &[Column],
    sides: Sides<'_>,
    budget: u64,
    block_max: usize,
    seed: u64,
) -> Vec<Suggested> {
    let keys: Vec<Key> = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| !column.values.is_empty())
        .flat_map(|(column, of)| offered(of.kind).iter().map(move |&part| Key { column, part }))
        .collect();
    let hashes: Vec<Vec<u64>> =
        keys.par_iter().map(|key| key.hashes(&columns[key.column])).collect();
    let imagined: Vec<Vec<Imagined>> = imagine(columns, seed);
    let covers: Vec<Covered> = keys.iter().map(|key| covered(key, &imagined[key.column])).collect();
    let weigh = |members: &[usize]| -> Candidate {
        let rule = Rule { keys: members.iter().map(|&at| keys[at]).collect() };
        let of: Vec<&[u64]> = members.iter().map(|&at| &hashes[at][..]).collect();
        let cost = sampled_cost(&rule, columns, &of, sides, block_max);
        let mut covered = [u64::MAX; BITS];
        for &at in members {
            covered.iter_mut().zip(&covers[at]).for_each(|(all, own)| *all &= own);
        }
        // Records of blocks that are left out are not found.
        let kept = 1.0 - cost.skipped_records as f64 / (cost.keyed.max(1)) as f64;
        Candidate { rule, pairs: cost.pairs, covered, kept }
    };
    let mut candidates: Vec<Candidate> =
        (0..keys.len()).into_par_iter().map(|at| weigh(&[at])).collect();
    // What one key finds at a bearable cost, two find no more of.
    let per_rule = budget / 2;
    let dear: Vec<usize> = (0..keys.len())
        .filter(|&at| candidates[at].pairs > per_rule || candidates[at].kept < 0.9)
        .collect();
    let joint: Vec<[usize; 2]> = dear
        .iter()
        .flat_map(|&a| dear.iter().map(move |&b| [a, b]))
        .filter(|[a, b]| keys[*a].column < keys[*b].column)
        .collect();
    candidates.par_extend(joint.par_iter().map(|pair| weigh(pair)));
    candidates.retain(|candidate| {
        (1..=per_rule).contains(&candidate.pairs) && candidate.kept >= KEPT_MIN
    });
    choose(candidates, columns, budget)
}

struct Candidate {
    rule: Rule,
    pairs: u64,
    covered: Covered,
    /// The share of its records that are in blocks small enough.
    kept: f64,
}

/// Takes candidates one by one.
fn choose(mut candidates: Vec<Candidate>, columns: &[Column], budget: u64) -> Vec<Suggested> {
    let records = columns.first().map_or(0, |column| column.codes.len()) as f64;
    let mut missed = [1.0_f64; IMAGINED];
    let mut chosen: Vec<Suggested> = Vec::new();
    let mut spent = 0;
    while chosen.len() < RULES_MAX {
        let value = |candidate: &Candidate| {
            let gain: f64 = ones(&candidate.covered).map(|at| missed[at]).sum();
            let gain = gain * candidate.kept;
            // Walking the blocks costs something too.
            (gain, gain / (candidate.pairs as f64 + 0.25 * records))
        };
        let best = candidates
            .iter()
            .enumerate()
            .filter(|(_, candidate)| spent + candidate.pairs <= budget)
            .map(|(at, candidate)| (at, value(candidate)))
            .filter(|(_, (gain, _))| *gain > 0.25)
            .max_by(|(a, x), (b, y)| x.1.total_cmp(&y.1).then(b.cmp(a)));
        let Some((at, _)) = best else { break };
        let taken = candidates.remove(at);
        spent += taken.pairs;
        for at in ones(&taken.covered) {
            missed[at] *= 1.0 - taken.kept;
        }
        let recall = 1.0 - missed.iter().sum::<f64>() / IMAGINED as f64;
        chosen.push(Suggested { rule: taken.rule, recall });
    }
    chosen
}

fn ones(bits: &Covered) -> impl Iterator<Item = usize> {
    bits.iter().enumerate().flat_map(|(word, &bits)| {
        (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| 64 * word + bit)
    })
}

/// A match as imagined in one column.
#[derive(Clone, Copy)]
enum Imagined {
    Missing,
    Equal,
    /// A slip at this share of the text, with luck of its own.
    Slip(f64, f64),
    Other(f64),
}

fn imagine(columns: &[Column], seed: u64) -> Vec<Vec<Imagined>> {
    let mut random = Seeded::new(mixed(seed ^ 0xB10C));
    let mut column = |column: &Column| {
        let missing = column.missing();
        let missing = missing * (2.0 - missing);
        let mut one = || {
            let (is_missing, share) = (random.share() < missing, random.share());
            let (place, luck) = (random.share(), random.share());
            match share {
                _ if is_missing => Imagined::Missing,
                share if share < EQUAL => Imagined::Equal,
                share if share < EQUAL + SLIP => Imagined::Slip(place, luck),
                _ => Imagined::Other(luck),
            }
        };
        (0..IMAGINED).map(|_| one()).collect()
    };
    columns.iter().map(&mut column).collect()
}

/// The imagined matches that agree on a key.
fn covered(key: &Key, imagined: &[Imagined]) -> Covered {
    let mut covered = [0; BITS];
    for (at, one) in imagined.iter().enumerate() {
        let agrees = match (one, key.part) {
            (Imagined::Missing, _) => false,
            (Imagined::Equal, _) => true,
            (Imagined::Slip(..), Part::Whole) => false,
            (Imagined::Slip(place, _), Part::Prefix(_) | Part::FirstHalf) => *place > 0.5,
            (Imagined::Slip(place, _), Part::Suffix(_) | Part::SecondHalf | Part::MonthDay) => {
                *place < 0.5
            }
            (Imagined::Slip(place, _), Part::Year | Part::YearMonth) => *place > 0.6,
            (Imagined::Slip(place, _), Part::LocalPart) => *place > 0.6,
            (Imagined::Slip(_, luck), Part::Soundex) => *luck < 0.5,
            (Imagined::Slip(_, luck), Part::Words) => *luck < 0.95,
            (Imagined::Other(luck), Part::Words) => *luck < 0.4,
            (Imagined::Other(_), _) => false,
        };
        covered[at / 64] |= u64::from(agrees) << (at % 64);
    }
    covered
}

/// What a rule costs, from a sample of the records when there are many.
fn sampled_cost(
    rule: &Rule,
    columns: &[Column],
    hashes: &[&[u64]],
    sides: Sides<'_>,
    block_max: usize,
) -> Cost {
    let records = columns.first().map_or(0, |column| column.codes.len());
    let every = (records / WEIGHED).max(1) as u64;
    let slots = rule.keys.iter().map(Key::slots).max().unwrap_or(1);
    let mut keyed: Vec<(u64, u32)> = Vec::new();
    for record in (0..records).filter(|&at| every == 1 || mixed(at as u64).is_multiple_of(every)) {
        for slot in 0..slots {
            let key = rule.hash_of(columns, hashes, record, slot);
            if key != 0 {
                keyed.push((key, record as u32));
            }
        }
    }
    keyed.sort_unstable();
    let mut cost = Cost { keyed: keyed.len() as u64 * every, ..Cost::default() };
    for block in keyed.chunk_by(|a, b| a.0 == b.0) {
        if (block.len() as u64) * every > block_max as u64 && block.len() > 1 {
            cost.skipped_blocks += 1;
            cost.skipped_records += block.len() as u64 * every;
        } else if block.len() > 1 {
            let pairs = pairs_of(block.iter().map(|(_, record)| *record as usize), sides);
            cost.pairs += every * every * pairs;
        }
    }
    cost
}

#[cfg(test)]
mod tests {
    use super::super::column::Gatherer;
    use super::super::kind::{Declared, Kind};
    use super::*;

    #[test]
    fn a_value_in_half_the_rows_makes_no_rule_that_explodes() {
        let mut columns = Vec::new();
        let order: Vec<u32> = (0..4000).collect();
        for (name, kind) in [("email", Kind::Email), ("flag", Kind::Exact)] {
            let mut gatherer = Gatherer::default();
            for row in 0..4000 {
                let email =
                    if row % 2 == 0 { "all@shop.com".into() } else { format!("{row}@a.com") };
                let value = if name == "flag" { (row % 2).to_string() } else { email };
                gatherer.push(Some(&value));
            }
            columns.push(gatherer.finish(name, Declared::Text, Some(kind), &order));
        }
        for suggested in suggest(&columns, &[], 100_000, 200, 7) {
            let cost =
                super::super::blocking::Blocks::new(&suggested.rule, &columns, &[], 200).cost;
            assert!(cost.pairs < 50_000, "{suggested:?} {cost:?}");
        }
    }
}
