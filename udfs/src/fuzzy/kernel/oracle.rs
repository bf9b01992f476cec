//! The plain definitions, slow and obvious: what the kernels are held against.

/// Edit distance by the full matrix; `osa` also swaps two adjacent characters.
pub(crate) fn edit(left: &str, right: &str, osa: bool) -> usize {
    edits(left, right, |a, b, cost, i, j| {
        let swaps = osa && i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
        if swaps { cost[i - 2][j - 2] + 1 } else { usize::MAX }
    })
}

/// Edits by the full matrix: of single characters, and what else leads to a\[i\] and b\[j\].
pub(crate) fn edits(
    left: &str,
    right: &str,
    other: impl Fn(&[char], &[char], &[Vec<usize>], usize, usize) -> usize,
) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut cost = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                cost[i][j] = i + j;
                continue;
            }
            let substituted = cost[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let single = substituted.min(cost[i - 1][j] + 1).min(cost[i][j - 1] + 1);
            cost[i][j] = single.min(other(&a, &b, &cost, i, j));
        }
    }
    cost[a.len()][b.len()]
}

/// Longest common subsequence by the full matrix.
pub(crate) fn common_subsequence(left: &str, right: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut length = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            length[i][j] = if a[i - 1] == b[j - 1] {
                length[i - 1][j - 1] + 1
            } else {
                length[i - 1][j].max(length[i][j - 1])
            };
        }
    }
    length[a.len()][b.len()]
}

/// Jaro similarity by scanning the window of each character.
pub(crate) fn jaro(left: &str, right: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if a.is_empty() && b.is_empty() {
        return 1.0;
    }
    let window = (a.len().max(b.len()) / 2).saturating_sub(1);
    let mut taken = vec![false; b.len()];
    let mut matched = Vec::new();
    for (i, letter) in a.iter().enumerate() {
        let far = (i + window + 1).min(b.len());
        let near = i.saturating_sub(window);
        if let Some(j) = (near..far).find(|&j| !taken[j] && b[j] == *letter) {
            taken[j] = true;
            matched.push(*letter);
        }
    }
    if matched.is_empty() {
        return 0.0;
    }
    let others = b.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(letter, _)| *letter);
    let out_of_order = matched.iter().zip(others).filter(|(x, y)| **x != *y).count();
    let m = matched.len() as f64;
    let t = (out_of_order / 2) as f64;
    (m / a.len() as f64 + m / b.len() as f64 + (m - t) / m) / 3.0
}

/// Jaro-Winkler similarity.
pub(crate) fn jaro_winkler(left: &str, right: &str) -> f64 {
    let jaro = jaro(left, right);
    let prefix = left.chars().zip(right.chars()).take(4).take_while(|(x, y)| x == y).count();
    if jaro > 0.7 { jaro + 0.1 * prefix as f64 * (1.0 - jaro) } else { jaro }
}

mod tests {
    use super::super::{Pattern, Scratch};
    use super::*;
    use proptest::prelude::*;

    fn check(left: &str, right: &str) {
        let (mut pattern, mut scratch) = (Pattern::new("warm ü up"), Scratch::default());
        pattern.reset(left);
        let distance = edit(left, right, false);
        let osa = edit(left, right, true);
        assert_eq!(pattern.levenshtein(right, usize::MAX, &mut scratch), Some(distance));
        assert_eq!(pattern.osa(right, usize::MAX, &mut scratch), Some(osa));
        for max in [0, 1, 2, 3, 7, 20, 70, distance, distance.saturating_sub(1)] {
            let expected = (distance <= max).then_some(distance);
            assert_eq!(pattern.levenshtein(right, max, &mut scratch), expected, "max {max}");
            let expected = (osa <= max).then_some(osa);
            assert_eq!(pattern.osa(right, max, &mut scratch), expected, "osa max {max}");
        }
        assert_eq!(pattern.jaro(right, &mut scratch), jaro(left, right));
        assert_eq!(pattern.jaro_winkler(right, &mut scratch), jaro_winkler(left, right));
        let (common, right_len) = pattern.common_subsequence(right, &mut scratch);
        assert_eq!((common, right_len), (common_subsequence(left, right), right.chars().count()));
    }

    /// Changes a text here and there, so that pairs are alike as in real data.
    fn edited(text: &str, edits: &[(usize, char)]) -> String {
        let mut letters: Vec<char> = text.chars().collect();
        for (kind, letter) in edits {
            let at = kind / 3 % (letters.len() + 1);
            match kind % 3 {
                0 => letters.insert(at, *letter),
                1 if at < letters.len() => drop(letters.remove(at)),
                _ if at + 1 < letters.len() => letters.swap(at, at + 1),
                _ => letters.push(*letter),
            }
        }
        letters.into_iter().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn any_unicode(left in any::<String>(), right in any::<String>()) {
            check(&left, &right);
        }

        #[test]
        fn small_alphabets(left in "[abé]{0,12}", right in "[abé]{0,12}") {
            check(&left, &right);
        }

        #[test]
        fn long_and_alike(
            left in "[a-dü]{50,280}",
            edits in prop::collection::vec((0_usize..3000, prop::char::range('a', 'f')), 0..40),
        ) {
            check(&left, &edited(&left, &edits));
        }

        #[test]
        fn many_distinct_code_points(
            left in "[\u{4e00}-\u{5000}]{100,260}",
            edits in prop::collection::vec((0_usize..900, prop::char::range('一', '丿')), 0..9),
        ) {
            check(&left, &edited(&left, &edits));
        }
    }

    #[test]
    fn lengths_around_a_word() {
        for length in [1, 8, 63, 64, 65, 127, 128, 129, 192] {
            let left: String = ('a'..='z').cycle().take(length).collect();
            check(&left, &left[1..]);
            check(&left, &format!("{}x", left.replace('c', "dc")));
            check(&left, &left.chars().rev().collect::<String>());
            check(&left, "");
        }
    }
}
