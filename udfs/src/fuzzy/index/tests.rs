//! A search finds what comparing every pair finds.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Floor, InBlock, Index, Likeness, SetKind, Work};
use crate::fuzzy::kernel::sets::{bigrams, characters, cosine, share, shared, trigrams};
use crate::fuzzy::kernel::{Pattern, Scratch};
use crate::fuzzy::stop::{Stop, Stopped};

fn alike(likeness: Likeness, left: &str, right: &str) -> bool {
    let (pattern, mut scratch) = (Pattern::new(left), Scratch::default());
    match likeness {
        Likeness::Edit { osa: false, max } => {
            pattern.levenshtein(right, max, &mut scratch).is_some()
        }
        Likeness::Edit { osa: true, max } => pattern.osa(right, max, &mut scratch).is_some(),
        Likeness::Jaro { winkler: false, floor } => floor.holds(pattern.jaro(right, &mut scratch)),
        Likeness::Jaro { winkler: true, floor } => {
            floor.holds(pattern.jaro_winkler(right, &mut scratch))
        }
        Likeness::Sets { kind, floor } => {
            let (mut x, mut y) = (Vec::new(), Vec::new());
            let split = match kind {
                SetKind::Trigrams => trigrams,
                SetKind::Characters => characters,
                SetKind::Bigrams => bigrams,
            };
            split(left, &mut x);
            split(right, &mut y);
            let common = shared(&x, &y);
            floor.holds(match kind {
                SetKind::Bigrams => cosine(&x, &y),
                SetKind::Trigrams if x.is_empty() && y.is_empty() => f64::from(left == right),
                _ => share(common, x.len() + y.len() - common),
            })
        }
    }
}

fn found(likeness: Likeness, values: &[InBlock<'_>], probes: &[InBlock<'_>]) -> Vec<(u32, u32)> {
    let index = Index::new(likeness, values, 1 << 28, &Stop::never()).unwrap();
    searched(&index, likeness, probes)
}

fn searched(index: &Index, likeness: Likeness, probes: &[InBlock<'_>]) -> Vec<(u32, u32)> {
    let (mut work, mut pairs, mut next) = (Work::default(), Vec::new(), 0);
    while next < probes.len() {
        next = index.search(likeness, probes, next, &mut work, &mut pairs).unwrap();
    }
    pairs.sort_unstable();
    pairs
}

/// Holds the search against all pairs of a block.
#[track_caller]
fn same_as_all_pairs(likeness: Likeness, values: &[InBlock<'_>], probes: &[InBlock<'_>]) {
    let mut expected = Vec::new();
    for (p, (probe_block, probe)) in probes.iter().enumerate() {
        for (v, (block, value)) in values.iter().enumerate() {
            if block == probe_block && alike(likeness, value, probe) {
                expected.push((p as u32, v as u32));
            }
        }
    }
    let found = found(likeness, values, probes);
    if found != expected {
        let lost = expected.iter().find(|pair| !found.contains(pair));
        let extra = found.iter().find(|pair| !expected.contains(pair));
        let texts = |pair: &(u32, u32)| (probes[pair.0 as usize], values[pair.1 as usize]);
        panic!("{likeness:?}: lost {:?}, extra {:?}", lost.map(texts), extra.map(texts));
    }
}

fn likenesses() -> Vec<Likeness> {
    let mut all = Vec::new();
    for max in [0, 1, 2, 3, 5, 40] {
        all.extend([false, true].map(|osa| Likeness::Edit { osa, max }));
    }
    for (value, exclusive) in [(0.5, false), (0.8, true), (0.9, false), (1.0, false), (1e-3, true)]
    {
        let floor = Floor { value, exclusive };
        all.extend([false, true].map(|winkler| Likeness::Jaro { winkler, floor }));
        for kind in [SetKind::Trigrams, SetKind::Characters, SetKind::Bigrams] {
            all.push(Likeness::Sets { kind, floor });
        }
    }
    all
}

/// Texts of a few letters, so that many are alike; each once in its block.
pub(super) fn texts(
    random: &mut StdRng,
    count: usize,
    longest: usize,
    blocks: u32,
) -> Vec<(u32, String)> {
    let alphabets = ["abc", "abcdefgh ", "aé日 b", "xyzXYZ-_!"];
    let mut texts: Vec<(u32, String)> = Vec::new();
    for _ in 0..count {
        let letters: Vec<char> =
            alphabets[random.random_range(0..alphabets.len())].chars().collect();
        let length = random.random_range(0..=longest);
        let text = (0..length).map(|_| letters[random.random_range(0..letters.len())]).collect();
        texts.push((random.random_range(0..blocks), text));
        // One like the last, changed a little.
        if let Some((block, last)) = texts.last().cloned()
            && random.random_bool(0.5)
        {
            let mut changed: Vec<char> = last.chars().collect();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..=changed.len());
                match random.random_range(0..3) {
                    0 => changed.insert(at, letters[random.random_range(0..letters.len())]),
                    1 if at < changed.len() => drop(changed.remove(at)),
                    _ if at + 1 < changed.len() => changed.swap(at, at + 1),
                    _ => {}
                }
            }
            texts.push((block, changed.into_iter().collect()));
        }
    }
    texts.sort();
    texts.dedup();
    texts
}

fn borrowed(texts: &[(u32, String)]) -> Vec<InBlock<'_>> {
    texts.iter().map(|(block, text)| (*block, text.as_str())).collect()
}

#[test]
fn few_texts_in_blocks() {
    let mut random = StdRng::seed_from_u64(7);
    for (longest, blocks) in [(4, 3), (4, 1), (12, 3), (12, 1), (40, 3), (90, 1)] {
        let values = texts(&mut random, 80, longest, blocks);
        let probes = texts(&mut random, 60, longest, blocks + 1);
        for likeness in likenesses() {
            same_as_all_pairs(likeness, &borrowed(&values), &borrowed(&probes));
        }
    }
}

#[test]
fn many_texts_in_a_block() {
    let mut random = StdRng::seed_from_u64(11);
    for longest in [6, 20, 80] {
        let values = texts(&mut random, 500, longest, 1);
        let probes = texts(&mut random, 40, longest, 1);
        for max in [0, 1, 2, 3, 4] {
            for osa in [false, true] {
                let likeness = Likeness::Edit { osa, max };
                same_as_all_pairs(likeness, &borrowed(&values), &borrowed(&probes));
            }
        }
        for value in [0.7, 0.8, 0.9, 0.95, 1.0] {
            for winkler in [false, true] {
                let floor = Floor { value, exclusive: false };
                let likeness = Likeness::Jaro { winkler, floor };
                same_as_all_pairs(likeness, &borrowed(&values), &borrowed(&probes));
            }
        }
    }
}

#[test]
fn without_memory_for_an_index_the_answer_is_the_same() {
    let mut random = StdRng::seed_from_u64(13);
    let values = texts(&mut random, 500, 30, 1);
    let probes = texts(&mut random, 40, 30, 1);
    for memory in [0, 50_000, 500_000] {
        let (values, probes) = (borrowed(&values), borrowed(&probes));
        let likeness = Likeness::Edit { osa: false, max: 2 };
        let index = Index::new(likeness, &values, memory, &Stop::never()).unwrap();
        assert_eq!(
            searched(&index, likeness, &probes),
            found(likeness, &values, &probes),
            "memory {memory}"
        );
    }
}

#[test]
fn an_index_answers_for_other_distances_too() {
    let mut random = StdRng::seed_from_u64(19);
    for longest in [8, 40] {
        let values = texts(&mut random, 300, longest, 2);
        let probes = texts(&mut random, 40, longest, 2);
        let (values, probes) = (borrowed(&values), borrowed(&probes));
        for osa in [false, true] {
            let made_for = Likeness::Edit { osa, max: 2 };
            let index = Index::new(made_for, &values, 1 << 28, &Stop::never()).unwrap();
            for max in [0, 1, 2, 3, 5, 70, usize::MAX] {
                let likeness = made_for.within(max);
                let expected = found(likeness, &values, &probes);
                assert_eq!(searched(&index, likeness, &probes), expected, "{likeness:?}");
            }
        }
    }
}

#[test]
fn nothing_to_find_and_nothing_to_find_it_in() {
    for likeness in likenesses() {
        assert!(found(likeness, &[], &[(0, "a")]).is_empty());
        assert!(found(likeness, &[(0, "a")], &[]).is_empty());
        assert!(found(likeness, &[(0, "a")], &[(9, "a")]).is_empty());
    }
}

#[test]
fn ties_at_the_threshold_are_found() {
    let floor = Floor { value: 0.9, exclusive: false };
    let likeness = Likeness::Jaro { winkler: true, floor };
    assert_eq!(found(likeness, &[(0, "painter")], &[(0, "paie")]), [(0, 0)]);
    let floor = Floor { exclusive: true, ..floor };
    let likeness = Likeness::Jaro { winkler: true, floor };
    assert!(found(likeness, &[(0, "painter")], &[(0, "paie")]).is_empty());
}

#[test]
fn what_occurs_often_is_counted_in_full() {
    // More common pairs of bigrams than 32 bits count.
    let (one, other) = ("a".repeat(100_000) + "x", "y".to_owned() + &"a".repeat(100_000));
    for value in [0.9, 1.0] {
        let likeness =
            Likeness::Sets { kind: SetKind::Bigrams, floor: Floor { value, exclusive: false } };
        same_as_all_pairs(likeness, &[(0, &one), (0, "aab")], &[(0, &other), (0, &one)]);
    }
}

#[test]
fn building_and_searching_end_soon_when_nobody_wants_them() {
    let mut random = StdRng::seed_from_u64(17);
    let values = texts(&mut random, 9_000, 24, 1);
    let values = borrowed(&values);
    let probes = vec![(0, "abcabcabcabc"); 64];
    for likeness in likenesses() {
        for looks in [0, 1, 2] {
            let stop = Stop::when_looked_at(looks);
            let ended = Index::new(likeness, &values, 1 << 28, &stop).err();
            assert_eq!(ended, Some(Stopped), "{likeness:?}: {looks}");
        }
        let index = Index::new(likeness, &values, 1 << 28, &Stop::never()).unwrap();
        for looks in [0, 1, 5, 63] {
            let (mut work, mut pairs, mut next) =
                (Work::new(Stop::when_looked_at(looks)), Vec::new(), 0);
            let ended = loop {
                match index.search(likeness, &probes, next, &mut work, &mut pairs) {
                    Ok(end) if end == probes.len() => break false,
                    Ok(reached) => next = reached,
                    Err(Stopped) => break true,
                }
            };
            assert!(ended, "{likeness:?}: {looks}");
        }
    }
}
