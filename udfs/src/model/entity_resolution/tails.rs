//! How often encodings of others are nearly equal, where nothing but them tells who matches.
//!
//! Of one column alone u and m cannot be told apart by how often each level comes: both make the
//! same mixture. What can be told is how the likeness of others falls off. Their share S of pairs
//! at or above a Dice of .5, .55, .6 and .65 falls by a ratio from step to step, and the ratio
//! falls too; going on like that gives their share at .8. What is there beyond it are matches, who
//! are in the lower shares too and are taken off those.

use super::column::{Column, NONE};
use super::records::Records;
use crate::model::random::{Seeded, mixed};
use crate::privacy::bloom::dice;

/// Pairs that are looked at.
const SAMPLE: usize = 200_000;
/// The likeness at which shares are taken, and the one that they are continued to.
const STEPS: [f64; 4] = [0.5, 0.55, 0.6, 0.65];
const NEARLY_EQUAL: f64 = 0.8;
/// Rounds of taking matches off.
const ROUNDS: usize = 10;

/// The share of unequal pairs of others whose Dice is .8 or more, of a column of encodings.
pub(super) fn nearly_equal(records: &Records, at: usize, seed: u64) -> f64 {
    let column = &records.columns[at];
    let len = column.codes.len() as u64;
    let mut random = Seeded::new(mixed(seed ^ 0x7A11));
    let (mut pairs, mut shares, mut found) = (0.0_f64, [0.0_f64; STEPS.len()], 0.0_f64);
    for _ in 0..SAMPLE {
        let (left, right) = (random.below(len) as u32, random.below(len) as u32);
        let Some(alike) = alike(records, column, left, right) else { continue };
        pairs += 1.0;
        found += f64::from(alike >= NEARLY_EQUAL);
        for (share, step) in shares.iter_mut().zip(STEPS) {
            *share += f64::from(alike >= step);
        }
    }
    if pairs == 0.0 {
        return 0.5 / SAMPLE as f64;
    }
    continued(shares.map(|share| share / pairs), found / pairs, 0.5 / pairs)
}

/// How alike two records that may match are, when both have a value and these are unequal.
fn alike(records: &Records, column: &Column, left: u32, right: u32) -> Option<f64> {
    if !records.may_match(left, right) {
        return None;
    }
    let (a, b) = (column.codes[left as usize], column.codes[right as usize]);
    let is_known = a != NONE && b != NONE && a != b;
    is_known.then(|| dice(&column.bits[a as usize], &column.bits[b as usize]))
}

/// The share at .8 that shares at the steps lead to, of which `found` are there; `least` at least.
fn continued(shares: [f64; STEPS.len()], found: f64, least: f64) -> f64 {
    let mut others = least;
    for _ in 0..ROUNDS {
        let matches = (found - others).max(0.0);
        let [first, second, third, last] = shares.map(|share| share - matches);
        if last < least {
            return least;
        }
        // Two steps of the ratio's own fall; a tail that does not fall off goes on as it is.
        let (begin, end) = (second / first, last / third);
        let fall = (end / begin).sqrt().min(1.0);
        others = (last * end.powi(3) * fall.powi(6)).max(least);
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share above a likeness, of a normal tail about .45.
    fn normal(alike: f64) -> f64 {
        let x = (alike - 0.45) / 0.075;
        // Of the error function's continued fraction the first terms (Mills' ratio).
        (-0.5 * x * x).exp() / (x + 1.0 / (x + 2.0 / (x + 3.0 / (x + 4.0)))) / 2.506_628
    }

    #[test]
    fn a_tail_is_continued() {
        let found = continued(STEPS.map(normal), normal(NEARLY_EQUAL), 1e-9);
        let expected = normal(NEARLY_EQUAL);
        assert!(found > 0.2 * expected && found < 10.0 * expected, "{found} for {expected}");
    }

    #[test]
    fn matches_are_no_part_of_it() {
        let matches = 0.002;
        let shares = STEPS.map(|step| normal(step) + matches);
        let found = continued(shares, normal(NEARLY_EQUAL) + matches, 1e-9);
        assert!(found < 0.05 * matches, "{found}");
        // Where others are never alike, half a pair stands for them.
        assert!(continued([matches; 4], matches, 1e-6) < 2e-6);
    }
}
