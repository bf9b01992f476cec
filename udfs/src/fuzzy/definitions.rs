//! What the functions without a kernel of their own are by definition, slow and obvious, and that
//! they are so for any two texts: columns of several pairs, as what is prepared of one row must not
//! show in the next. Edit distances, Jaro and subsequences are held to theirs in
//! [`super::kernel::oracle`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion_expr::ColumnarValue;
use proptest::prelude::*;

use super::kernel::oracle::{common_subsequence, edits};
use super::testing::call;

/// The unrestricted Damerau-Levenshtein distance (Lowrance and Wagner 1975), where every swap is
/// tried: of the characters before a\[i\] and b\[j\], one of b's that is a\[i\] and one of a's that
/// is b\[j\]; what lies between is deleted and inserted.
fn damerau(left: &str, right: &str) -> usize {
    edits(left, right, |a, b, cost, i, j| {
        let mut least = usize::MAX;
        for k in 1..i {
            for l in 1..j {
                if a[k - 1] == b[j - 1] && a[i - 1] == b[l - 1] {
                    let between = (i - k - 1) + (j - l - 1);
                    least = least.min(cost[k - 1][l - 1] + between + 1);
                }
            }
        }
        least
    })
}

/// Positions with different characters; beyond the end of a text there is none.
fn hamming(left: &str, right: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    (0..a.len().max(b.len())).filter(|&at| a.get(at) != b.get(at)).count()
}

/// |A ∩ B| / |A ∪ B|; 1 of two empty sets.
fn jaccard<T: Ord>(a: &BTreeSet<T>, b: &BTreeSet<T>) -> f64 {
    let all = a.union(b).count();
    if all == 0 { 1.0 } else { a.intersection(b).count() as f64 / all as f64 }
}

/// The trigrams of pg_trgm.
fn trigrams(text: &str) -> BTreeSet<Vec<char>> {
    let mut found = BTreeSet::new();
    for word in text.split(|letter: char| !letter.is_alphanumeric()) {
        if !word.is_empty() {
            let lower = word.chars().flat_map(char::to_lowercase);
            let padded: Vec<char> = "  ".chars().chain(lower).chain(" ".chars()).collect();
            found.extend(padded.windows(3).map(<[char]>::to_vec));
        }
    }
    found
}

fn trigram(left: &str, right: &str) -> f64 {
    let (a, b) = (trigrams(left), trigrams(right));
    if a.is_empty() && b.is_empty() {
        return f64::from(left == right);
    }
    jaccard(&a, &b)
}

/// The counts of a text's bigrams; a text of one character is its own.
fn bigrams(text: &str) -> BTreeMap<Vec<char>, usize> {
    let letters: Vec<char> = text.chars().collect();
    let mut counts = BTreeMap::new();
    for gram in letters.windows(letters.len().clamp(1, 2)) {
        *counts.entry(gram.to_vec()).or_default() += 1;
    }
    counts
}

fn cosine(left: &str, right: &str) -> f64 {
    let (a, b) = (bigrams(left), bigrams(right));
    if a.is_empty() || b.is_empty() {
        return f64::from(a.len() == b.len());
    }
    let dot: usize = a.iter().map(|(gram, count)| count * b.get(gram).unwrap_or(&0)).sum();
    let square = |of: &BTreeMap<Vec<char>, usize>| of.values().map(|n| (n * n) as f64).sum::<f64>();
    dot as f64 / (square(&a).sqrt() * square(&b).sqrt())
}

/// 100·2·LCS / (|a| + |b|); 100 of two empty texts.
fn ratio(left: &str, right: &str) -> f64 {
    let total = left.chars().count() + right.chars().count();
    if total == 0 {
        return 100.0;
    }
    200.0 * common_subsequence(left, right) as f64 / total as f64
}

fn token_sort(left: &str, right: &str) -> f64 {
    let sorted = |text: &str| {
        let mut words: Vec<&str> = text.split_whitespace().collect();
        words.sort_unstable();
        words.join(" ")
    };
    ratio(&sorted(left), &sorted(right))
}

/// The best of the ratios of what is shared, with what only one side has and with what only the
/// other has.
fn token_set(left: &str, right: &str) -> f64 {
    let a: BTreeSet<&str> = left.split_whitespace().collect();
    let b: BTreeSet<&str> = right.split_whitespace().collect();
    if a.is_empty() || b.is_empty() {
        return if a.len() == b.len() { 100.0 } else { 0.0 };
    }
    let joined = |words: Vec<&&str>| words.into_iter().copied().collect::<Vec<&str>>().join(" ");
    let shared = joined(a.intersection(&b).collect());
    let with = |rest: String| format!("{shared} {rest}").trim().to_owned();
    let only_left = with(joined(a.difference(&b).collect()));
    let only_right = with(joined(b.difference(&a).collect()));
    let best = ratio(&only_left, &only_right);
    if shared.is_empty() {
        return best;
    }
    best.max(ratio(&shared, &only_left)).max(ratio(&shared, &only_right))
}

/// A function over columns of pairs.
fn of_columns(name: &str, pairs: &[(String, String)]) -> ArrayRef {
    let column = |side: fn(&(String, String)) -> &str| {
        ColumnarValue::Array(Arc::new(StringArray::from_iter_values(pairs.iter().map(side))))
    };
    let columns = [column(|pair| pair.0.as_str()), column(|pair| pair.1.as_str())];
    call(name, &columns, pairs.len()).unwrap().to_array(pairs.len()).unwrap()
}

fn hold_distances(name: &str, pairs: &[(String, String)], plain: fn(&str, &str) -> usize) {
    let found = of_columns(name, pairs);
    for ((left, right), found) in pairs.iter().zip(found.as_primitive::<Int64Type>().values()) {
        let expected = i64::try_from(plain(left, right)).unwrap();
        assert_eq!(*found, expected, "{name}({left:?}, {right:?})");
    }
}

fn hold_similarities(name: &str, pairs: &[(String, String)], plain: fn(&str, &str) -> f64) {
    let found = of_columns(name, pairs);
    for ((left, right), found) in pairs.iter().zip(found.as_primitive::<Float64Type>().values()) {
        let expected = plain(left, right);
        assert!((found - expected).abs() < 1e-9, "{name}({left:?}, {right:?}): {found} {expected}");
    }
}

fn check(pairs: &[(String, String)]) {
    hold_distances("damerau_levenshtein", pairs, damerau);
    hold_distances("hamming_distance", pairs, hamming);
    hold_similarities("jaccard_similarity", pairs, |left, right| {
        jaccard(&left.chars().collect(), &right.chars().collect())
    });
    hold_similarities("trigram_similarity", pairs, trigram);
    hold_similarities("cosine_similarity", pairs, cosine);
    hold_similarities("token_sort_ratio", pairs, token_sort);
    hold_similarities("token_set_ratio", pairs, token_set);
}

/// Any text, one of few letters, and one of words that repeat.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[abé]{0,10}",
        "[a-c]{1,3}( {1,2}[A-Ca-c]{1,3}){0,4}",
        "[ab!İß \u{301}]{0,8}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn functions_are_what_they_are_by_definition(
        pairs in prop::collection::vec((texts(), texts()), 1..8),
    ) {
        check(&pairs);
    }

    /// One text beside several others, and beside itself.
    #[test]
    fn a_text_is_compared_with_one_after_the_other(
        left in texts(),
        others in prop::collection::vec(texts(), 1..6),
    ) {
        let others = others.into_iter().chain([left.clone()]);
        let pairs: Vec<(String, String)> = others.map(|right| (left.clone(), right)).collect();
        check(&pairs);
    }
}

#[test]
fn what_properties_seldom_draw() {
    let pairs = [
        ("", ""),
        ("", "a"),
        (" ", ""),
        ("a", "\0a"),
        ("ca", "abc"),
        ("İstanbul", "i\u{307}stanbul"),
        ("new york mets", "new york yankees"),
        ("a b", "b a c"),
        ("a", "a a"),
        ("!", "?"),
    ];
    check(&pairs.map(|(left, right)| (left.to_owned(), right.to_owned())));
}
