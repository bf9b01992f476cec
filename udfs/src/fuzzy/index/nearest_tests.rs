//! The closest texts are those that comparing every pair finds, ties in the order of the texts.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::tests::texts;
use super::{Measure, Nearest, NearestWork, SetKind};
use crate::fuzzy::kernel::sets::{bigrams, characters, cosine, share, shared, trigrams};
use crate::fuzzy::kernel::{Pattern, Scratch};
use crate::fuzzy::stop::{Stop, Stopped};

const MEASURES: [Measure; 7] = [
    Measure::Edit { osa: false },
    Measure::Edit { osa: true },
    Measure::Jaro { winkler: false },
    Measure::Jaro { winkler: true },
    Measure::Sets(SetKind::Trigrams),
    Measure::Sets(SetKind::Characters),
    Measure::Sets(SetKind::Bigrams),
];

/// How far one text is from another; what is closer is less.
fn far(measure: Measure, left: &str, right: &str) -> f64 {
    let (pattern, mut scratch) = (Pattern::new(left), Scratch::default());
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let mut sets = |split: fn(&str, &mut Vec<u64>)| {
        split(left, &mut x);
        split(right, &mut y);
        if x.is_empty() && y.is_empty() {
            return f64::from(left == right);
        }
        let common = shared(&x, &y);
        share(common, x.len() + y.len() - common)
    };
    match measure {
        Measure::Edit { osa: false } => {
            pattern.levenshtein(right, usize::MAX, &mut scratch).unwrap() as f64
        }
        Measure::Edit { osa: true } => pattern.osa(right, usize::MAX, &mut scratch).unwrap() as f64,
        Measure::Jaro { winkler: false } => -pattern.jaro(right, &mut scratch),
        Measure::Jaro { winkler: true } => -pattern.jaro_winkler(right, &mut scratch),
        Measure::Sets(SetKind::Trigrams) => -sets(trigrams),
        Measure::Sets(SetKind::Characters) => -sets(characters),
        Measure::Sets(SetKind::Bigrams) => {
            sets(bigrams);
            -cosine(&x, &y)
        }
    }
}

fn all_compared(measure: Measure, values: &[&str], text: &str, most: usize) -> Vec<(f64, u32)> {
    let compared = values.iter().enumerate().map(|(at, value)| (far(measure, text, value), at));
    let mut all: Vec<(f64, u32)> = compared.map(|(far, at)| (far, at as u32)).collect();
    all.sort_by(|x, y| x.0.total_cmp(&y.0).then(x.1.cmp(&y.1)));
    all.truncate(most);
    // No similarity is 0 and not -0.
    all.iter().map(|(far, at)| (far + 0.0, *at)).collect()
}

/// Distinct texts in alphabetical order.
fn distinct(random: &mut StdRng, count: usize, longest: usize) -> Vec<String> {
    texts(random, count, longest, 1).into_iter().map(|(_, text)| text).collect()
}

fn same_as_all_compared(values: &[&str], probes: &[String], most: usize) {
    let stop = Stop::never();
    for measure in MEASURES {
        let nearest = Nearest::new(measure, values, &stop).unwrap();
        let wanted = nearest.index_wanted(probes.len());
        let with_memory = wanted.map(|(_, fastest)| [0, fastest / 3, fastest]);
        let mut indexes = vec![None];
        for memory in with_memory.into_iter().flatten() {
            indexes.push(nearest.index(memory, &stop).unwrap());
        }
        for index in &indexes {
            let mut work = NearestWork::default();
            for probe in probes {
                nearest.find(probe, most, index.as_ref(), &mut work).unwrap();
                let found = work.closest().iter().map(|close| match measure {
                    Measure::Edit { .. } => (close.distance() as f64, close.text),
                    _ => (0.0 - close.similarity(), close.text),
                });
                let expected = all_compared(measure, values, probe, most);
                assert_eq!(found.collect::<Vec<_>>(), expected, "{measure:?} {probe:?} {most}");
            }
        }
    }
}

#[test]
fn the_closest_are_those_that_comparing_all_finds() {
    let mut random = StdRng::seed_from_u64(23);
    for (count, longest) in [(40, 5), (150, 9), (260, 26), (120, 80)] {
        let values = distinct(&mut random, count, longest);
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let mut probes = distinct(&mut random, 16, longest);
        probes.extend(["", "!", "é日", "abcabcabc"].map(str::to_owned));
        // The values themselves, too.
        probes.extend(values.iter().step_by(31).map(|text| (*text).to_owned()));
        for most in [1, 2, 7, 40, 1_000] {
            same_as_all_compared(&values, &probes, most);
        }
    }
}

#[test]
fn many_alike_and_none_alike() {
    let values = ["", "-", "!", "ab", "abab", "ababab", "abababab", "ba", "日本", "日本語"];
    let probes = ["abab", "", "-", "zzz", "日本", "AB"].map(str::to_owned);
    for most in [1, 3, 10, 11] {
        same_as_all_compared(&values, &probes, most);
        same_as_all_compared(&[], &probes, most);
    }
}

#[test]
fn memory_is_estimated_from_above() {
    let mut random = StdRng::seed_from_u64(29);
    for longest in [6, 20, 60] {
        let values = distinct(&mut random, 900, longest);
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        for measure in [Measure::Edit { osa: false }, Measure::Jaro { winkler: true }] {
            let nearest = Nearest::new(measure, &values, &Stop::never()).unwrap();
            assert!(nearest.bytes() <= Nearest::estimate(measure, &values), "{longest}");
        }
    }
}

#[test]
fn a_search_ends_when_nobody_wants_it() {
    let values = ["a", "b", "c"];
    for measure in MEASURES {
        let over = || Stop::when(|| true);
        assert_eq!(Nearest::new(measure, &values, &over()).err(), Some(Stopped), "{measure:?}");
        let nearest = Nearest::new(measure, &values, &Stop::never()).unwrap();
        let mut work = NearestWork::new(over());
        assert_eq!(nearest.find("a", 1, None, &mut work), Err(Stopped), "{measure:?}");
    }
}
