//! Blocking rules that suggest themselves: few pairs, and hardly a match missed.
//!
//! Matches are imagined: of each column, a match has equal values, or values with one slip of the
//! pen, or others, or none, with shares that are assumed before anything is learned. A rule covers
//! the imagined matches whose keys agree. Rules are taken by the matches that they newly cover for
//! each pair that they cost, until nothing is left to gain or the pairs are spent. What rules that
//! were named are expected to find is imagined likewise.

use rayon::prelude::*;

use super::blocking::{Cost, RULES_MAX, Rule, Sides, pairs_of};
use super::column::Column;
use super::key::{Expression, Key, Part, SAMPLES, offered, sampled_share};
use crate::model::random::{Seeded, mixed};

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

/// The keys that columns offer.
fn keys_of(columns: &[Column]) -> Vec<Key> {
    let filled = columns.iter().enumerate().filter(|(_, column)| !column.values.is_empty());
    filled
        .flat_map(|(column, of)| offered(of.kind).iter().map(move |&part| Key { column, part }))
        .collect()
}

/// Bytes of the keys of all values that rules are chosen by.
pub fn offered_bytes(columns: &[Column]) -> usize {
    let bytes = |key: &Key| columns[key.column].values.len().saturating_mul(8 * key.slots());
    keys_of(columns).iter().map(bytes).sum()
}

/// Chooses rules for columns within a budget of pairs.
pub fn suggest(
    columns: &[Column],
    sides: Sides<'_>,
    budget: u64,
    block_max: usize,
    seed: u64,
) -> Vec<Rule> {
    let keys = keys_of(columns);
    let hashes: Vec<Vec<u64>> =
        keys.par_iter().map(|key| key.hashes(&columns[key.column])).collect();
    let imagined: Vec<Vec<Imagined>> = imagine(columns, seed);
    let covers: Vec<Covered> = keys.iter().map(|key| covered(key, &imagined[key.column])).collect();
    let weigh = |members: &[usize]| -> Candidate {
        let keys = members.iter().map(|&at| keys[at]).collect();
        let rule = Rule { keys, expressions: Vec::new() };
        let of: Vec<&[u64]> = members.iter().map(|&at| &hashes[at][..]).collect();
        let cost = sampled_cost(&rule, columns, &of, sides, block_max);
        let mut covered = [u64::MAX; BITS];
        for &at in members {
            covered.iter_mut().zip(&covers[at]).for_each(|(all, own)| *all &= own);
        }
        // Records of blocks that are left out are not found.
        Candidate { rule, pairs: cost.pairs, covered, kept: cost.kept() }
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
        // Combinations cost what they are, and are weighed for many rules.
        .filter(|[a, b]| keys[*a].slots() * keys[*b].slots() <= SAMPLES)
        .collect();
    candidates.par_extend(joint.par_iter().map(|pair| weigh(pair)));
    let records = columns.first().map_or(0, |column| column.codes.len());
    candidates.retain(|candidate| {
        (1..=per_rule).contains(&candidate.pairs) && candidate.rule.is_countable(records)
    });
    // Where all columns have a value in more than half the rows, some records are better than none.
    if candidates.iter().any(|candidate| candidate.kept >= KEPT_MIN) {
        candidates.retain(|candidate| candidate.kept >= KEPT_MIN);
    }
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
fn choose(mut candidates: Vec<Candidate>, columns: &[Column], budget: u64) -> Vec<Rule> {
    let records = columns.first().map_or(0, |column| column.codes.len()) as f64;
    let mut missed = [1.0_f64; IMAGINED];
    let mut chosen = Vec::new();
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
        chosen.push(taken.rule);
    }
    chosen
}

/// The shares of matches that rules are expected to find, each with those before it, by what they
/// cost. Of an expression nothing is known but its columns, so that matches count as agreeing on it
/// only where these are equal: it finds as much at least.
pub fn expected_recalls<'a>(
    rules: impl Iterator<Item = (&'a Rule, Cost)>,
    columns: &[Column],
    seed: u64,
) -> Vec<f64> {
    let imagined = imagine(columns, seed);
    let records = columns.first().map_or(0, |column| column.codes.len()).max(1) as f64;
    let mut missed = [1.0_f64; IMAGINED];
    let mut recalls = Vec::new();
    for (rule, cost) in rules {
        // Both records must have what is computed.
        let slots = rule.slots() as f64;
        let known = match rule.expressions.as_slice() {
            [] => 1.0,
            _ => (cost.keyed as f64 / (records * slots)).min(1.0),
        };
        for at in ones(&agreed(rule, &imagined)) {
            missed[at] *= 1.0 - cost.kept() * known * known;
        }
        recalls.push(1.0 - missed.iter().sum::<f64>() / IMAGINED as f64);
    }
    recalls
}

/// The imagined matches that agree on all that a rule asks for.
fn agreed(rule: &Rule, imagined: &[Vec<Imagined>]) -> Covered {
    // Of what is made of no compared column nothing is known.
    if rule.expressions.iter().any(|expression| expression.columns == 0) {
        return [0; BITS];
    }
    let whole = |expression: &Expression| {
        let of = expression.columns;
        let columns = (0..imagined.len()).filter(move |&column| of >> column & 1 == 1);
        columns.map(|column| Key { column, part: Part::Whole })
    };
    let keys = rule.keys.iter().copied().chain(rule.expressions.iter().flat_map(whole));
    let mut agreed = [u64::MAX; BITS];
    for key in keys {
        let own = covered(&key, &imagined[key.column]);
        agreed.iter_mut().zip(&own).for_each(|(all, own)| *all &= own);
    }
    agreed
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
            (Imagined::Slip(_, luck), Part::Bits(bits)) => *luck < sampled_share(bits),
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
    let slots = rule.slots();
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
    use super::super::blocking::Blocks;
    use super::super::column::Gatherer;
    use super::super::kind::{Declared, Kind};
    use super::super::records::Records;
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
            columns.push(gatherer.finish(name, Declared::Text, Some(kind), &order, &[]));
        }
        let records = Records::new(columns, vec![], 4000);
        for rule in suggest(&records.columns, &[], 100_000, 200, 7) {
            let cost = Blocks::new(&rule, &records, 200).cost;
            assert!(cost.pairs < 50_000, "{rule:?} {cost:?}");
        }
    }

    #[test]
    fn an_expression_is_expected_to_find_what_is_equal_and_less_where_blocks_are_left_out() {
        let mut gatherer = Gatherer::default();
        for row in 0..100 {
            gatherer.push(Some(&format!("name{row}")));
        }
        let order: Vec<u32> = (0..100).collect();
        let columns = [gatherer.finish("name", Declared::Text, Some(Kind::Name), &order, &[])];
        let of = |columns| {
            let expression = Expression { text: "f(name)".into(), columns };
            Rule { keys: vec![], expressions: vec![expression] }
        };
        let parsed = |text: &str| Rule::parse(text, &["name"]).unwrap();
        let (whole, prefix) = (parsed("name"), parsed("prefix(name, 4)"));
        let expected =
            |rules: &[(&Rule, Cost)]| expected_recalls(rules.iter().copied(), &columns, 1);
        let all = Cost { keyed: 100, ..Cost::default() };
        let half = Cost { skipped_records: 50, ..all };
        let computed = of(1);
        let found = expected(&[(&computed, all), (&prefix, all)]);
        assert_eq!(found[0], expected(&[(&whole, all)])[0]);
        assert!((found[0] - EQUAL).abs() < 0.05 && found[1] > found[0], "{found:?}");
        assert!((expected(&[(&computed, half)])[0] - found[0] / 2.0).abs() < 1e-9);
        // Both records must have a key; of what is made of no compared column nothing is known.
        let some = Cost { keyed: 50, ..Cost::default() };
        assert!((expected(&[(&computed, some)])[0] - found[0] / 4.0).abs() < 1e-9);
        assert_eq!(expected(&[(&of(0), all)]), [0.0]);
    }
}
