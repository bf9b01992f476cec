//! Lanes against the plain definitions, for the machine's instruction set and for none.

use super::super::oracle;
use super::*;
use proptest::prelude::*;

fn run<K: GroupKernel>(kernel: K, pairs: &[(String, String)]) -> Vec<Option<K::Output>> {
    let mut results = vec![None; pairs.len()];
    let mut groups = Groups::new(kernel);
    for (row, (left, right)) in pairs.iter().enumerate() {
        let left = Short::read(left.as_bytes(), left.len()).unwrap();
        let right = Short::read(right.as_bytes(), right.len()).unwrap();
        groups.push(row, &left, &right, |row, result| results[row] = Some(result));
    }
    groups.finish(|row, result| results[row] = Some(result));
    results
}

/// The widest instruction set of the machine, a narrower one, and none.
fn arches() -> Vec<Arch> {
    #[cfg(target_arch = "x86_64")]
    let narrower = pulp::x86::V3::try_new().map(Arch::V3);
    #[cfg(not(target_arch = "x86_64"))]
    let narrower = None;
    [Arch::new(), Arch::Scalar].into_iter().chain(narrower).collect()
}

fn check(arch: Arch, pairs: &[(String, String)]) {
    let levenshtein = run(EditLanes::<false>(arch), pairs);
    let osa = run(EditLanes::<true>(arch), pairs);
    let jaro = run(JaroLanes::<false>(arch), pairs);
    let winkler = run(JaroLanes::<true>(arch), pairs);
    for (row, (left, right)) in pairs.iter().enumerate() {
        let shorter = left.len().min(right.len());
        if shorter == 0 || shorter > PATTERN {
            assert_eq!((levenshtein[row], jaro[row]), (None, None));
            continue;
        }
        let pair = format!("{left:?} {right:?}");
        assert_eq!(levenshtein[row], Some(oracle::edit(left, right, false) as u8), "{pair}");
        assert_eq!(osa[row], Some(oracle::edit(left, right, true) as u8), "{pair}");
        assert_eq!(jaro[row], Some(oracle::jaro(left, right)), "{pair}");
        assert_eq!(winkler[row], Some(oracle::jaro_winkler(left, right)), "{pair}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn lanes_equal_the_definitions(
        pairs in prop::collection::vec(("[a-e\\x00\\x7f]{0,32}", "[a-e]{0,32}"), 1..120),
        short in prop::collection::vec(("[a-d]{1,9}", "[a-d]{1,17}"), 1..120),
    ) {
        for arch in arches() {
            check(arch, &pairs);
            check(arch, &short);
        }
    }
}

fn run_medium<K: GroupKernel>(kernel: K, pairs: &[(String, String)]) -> Vec<Option<K::Output>> {
    let mut results = vec![None; pairs.len()];
    let (mut groups, mut scratch) = (Groups::new(kernel), Scratch::default());
    for (row, (left, right)) in pairs.iter().enumerate() {
        let pattern = Pattern::new(left);
        groups.push_medium(row, &pattern, right, &mut scratch, |row, result| {
            results[row] = Some(result);
        });
    }
    groups.finish(|row, result| results[row] = Some(result));
    results
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn medium_lanes_equal_the_definitions(
        pairs in prop::collection::vec(("[a-eü日]{0,70}", "[a-eü語]{0,70}"), 1..30),
    ) {
        for arch in arches() {
            let levenshtein = run_medium(EditLanes::<false>(arch), &pairs);
            let osa = run_medium(EditLanes::<true>(arch), &pairs);
            let jaro = run_medium(JaroLanes::<false>(arch), &pairs);
            let winkler = run_medium(JaroLanes::<true>(arch), &pairs);
            for (row, (a, b)) in pairs.iter().enumerate() {
                let fits = [a, b].iter().all(|text| (1..=64).contains(&text.chars().count()));
                let expect = |value: f64| fits.then_some(value);
                prop_assert_eq!(jaro[row], expect(oracle::jaro(a, b)));
                prop_assert_eq!(winkler[row], expect(oracle::jaro_winkler(a, b)));
                let expect = |osa| fits.then_some(oracle::edit(a, b, osa) as u8);
                prop_assert_eq!(levenshtein[row], expect(false));
                prop_assert_eq!(osa[row], expect(true));
            }
        }
    }
}

#[test]
fn a_text_is_read_from_the_middle_of_a_buffer() {
    let buffer = "müller and sons ltd, somewhere far away".as_bytes();
    assert_eq!(Short::read(&buffer[8..], 3), Short::read(b"and", 3));
    assert_eq!(Short::read(buffer, 7), None);
    assert_eq!(Short::read(buffer, 33), None);
    assert_eq!(Short::read(&buffer[8..], 31).map(|text| text.len()), Some(31));
    assert_eq!(Short::read(b"", 0), Some(Short::default()));
}
