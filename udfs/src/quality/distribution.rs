//! How the values of a column are distributed, in a few kilobytes that can be merged.
//!
//! Numbers and times go into a sketch of compactors (Manku, Rajagopalan and Lindsay 1998; Karnin,
//! Lang and Liberty 2016): level h holds values that stand for 2^h each; a full level is sorted and
//! every other value goes up, the odd and the even ones in turn, so that the same rows in the same
//! order give the same sketch. Up to [`LEVEL_MAX`] values are kept as they are; beyond, ranks are
//! off by a few thousandths at most. Texts and truth values are counted, one by one. NULL and NaN
//! are missing values, which are counted too.
//!
//! Two distributions are compared by the population stability index and by the Kolmogorov–Smirnov
//! statistic; see [`psi`] and [`ks`].

use std::collections::BTreeMap;

use datafusion_common::{Result, exec_err};

/// Values of one level before every other one goes up.
pub(crate) const LEVEL_MAX: usize = 1024;
/// Different texts that are counted.
const CATEGORIES_MAX: usize = 1_000;
/// Bins of [`psi`]: tenths of what is expected.
const BINS: usize = 10;
/// The least share of a bin in [`psi`]: an empty bin would make it infinite.
const SHARE_MIN: f64 = 1e-4;
/// The first byte of a written distribution.
const FORMAT: u8 = 1;

/// The distribution of a column's values.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Distribution {
    missing: u64,
    values: Values,
}

#[derive(Debug, Clone, PartialEq, Default)]
enum Values {
    #[default]
    None,
    Numbers(Quantiles),
    Categories(BTreeMap<String, u64>),
}

/// Levels of values; those of level h stand for 2^h each.
#[derive(Debug, Clone, PartialEq, Default)]
struct Quantiles {
    levels: Vec<Level>,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Level {
    /// Whether the next compaction keeps the values at odd places.
    odd: bool,
    values: Vec<f64>,
}

impl Quantiles {
    fn push(&mut self, value: f64) {
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        self.levels[0].values.push(value);
        self.compact();
    }

    /// Moves every other value of each full level up. A value that has no partner stays.
    fn compact(&mut self) {
        let mut height = 0;
        while height < self.levels.len() && self.levels[height].values.len() > LEVEL_MAX {
            if height + 1 == self.levels.len() {
                self.levels.push(Level::default());
            }
            let level = &mut self.levels[height];
            level.values.sort_unstable_by(f64::total_cmp);
            let alone = if level.values.len() % 2 == 1 { level.values.pop() } else { None };
            let first = usize::from(level.odd);
            level.odd = !level.odd;
            let up: Vec<f64> = level.values.iter().skip(first).step_by(2).copied().collect();
            level.values.clear();
            level.values.extend(alone);
            self.levels[height + 1].values.extend(up);
            height += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        if self.levels.len() < other.levels.len() {
            self.levels.resize(other.levels.len(), Level::default());
        }
        for (mine, level) in self.levels.iter_mut().zip(&other.levels) {
            mine.values.extend(&level.values);
        }
        // A lower level may be short while a higher one has become too long.
        for height in 0..self.levels.len() {
            if self.levels[height].values.len() > LEVEL_MAX {
                let mut upper = Self { levels: self.levels.split_off(height) };
                upper.compact();
                self.levels.append(&mut upper.levels);
            }
        }
    }

    /// The values in order, each with how many it stands for, and the sum of these.
    fn weighted(&self) -> (Vec<(f64, u64)>, u64) {
        let mut all = Vec::new();
        for (height, level) in self.levels.iter().enumerate() {
            let weight = 1_u64.checked_shl(u32::try_from(height).unwrap_or(63)).unwrap_or(u64::MAX);
            all.extend(level.values.iter().map(|value| (*value, weight)));
        }
        all.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
        let total = all.iter().map(|(_, weight)| weight).sum();
        (all, total)
    }
}

impl Distribution {
    /// One value more that is missing.
    pub(crate) fn miss(&mut self, count: u64) {
        self.missing += count;
    }

    /// One number more; NaN is a missing value.
    pub(crate) fn number(&mut self, value: f64) -> Result<()> {
        if value.is_nan() {
            self.missing += 1;
            return Ok(());
        }
        if let Values::None = self.values {
            self.values = Values::Numbers(Quantiles::default());
        }
        match &mut self.values {
            // -0 and 0 are one number.
            Values::Numbers(quantiles) => quantiles.push(value + 0.0),
            _ => return mixed(),
        }
        Ok(())
    }

    /// One text more.
    pub(crate) fn category(&mut self, value: &str) -> Result<()> {
        self.count(value, 1)
    }

    fn count(&mut self, value: &str, times: u64) -> Result<()> {
        if let Values::None = self.values {
            self.values = Values::Categories(BTreeMap::new());
        }
        let Values::Categories(counts) = &mut self.values else { return mixed() };
        if let Some(count) = counts.get_mut(value) {
            *count += times;
            return Ok(());
        }
        if counts.len() >= CATEGORIES_MAX {
            return exec_err!(
                "a text column with more than {CATEGORIES_MAX} different values has no \
                 distribution to compare. Hint: compare its length, a prefix or a group of it"
            );
        }
        counts.insert(value.to_owned(), times);
        Ok(())
    }

    /// Takes another distribution of the same column in.
    ///
    /// # Errors
    /// When one is of numbers and the other of texts, or there are too many texts.
    pub(crate) fn merge(&mut self, other: &Self) -> Result<()> {
        self.missing += other.missing;
        match (&mut self.values, &other.values) {
            (_, Values::None) => {}
            (Values::None, values) => self.values = values.clone(),
            (Values::Numbers(mine), Values::Numbers(values)) => mine.merge(values),
            (Values::Categories(_), Values::Categories(counts)) => {
                for (value, times) in counts {
                    self.count(value, *times)?;
                }
            }
            _ => return mixed(),
        }
        Ok(())
    }

    /// Bytes on the heap, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.values {
            Values::None => 0,
            Values::Numbers(quantiles) => {
                quantiles.levels.iter().map(|level| 32 + level.values.capacity() * 8).sum()
            }
            Values::Categories(counts) => counts.keys().map(|value| 64 + value.len()).sum(),
        }
    }

    /// The distribution as bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend(self.missing.to_le_bytes());
        match &self.values {
            Values::None => bytes.push(0),
            Values::Numbers(quantiles) => {
                bytes.push(1);
                length(&mut bytes, quantiles.levels.len());
                for level in &quantiles.levels {
                    bytes.push(u8::from(level.odd));
                    length(&mut bytes, level.values.len());
                    level.values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
                }
            }
            Values::Categories(counts) => {
                bytes.push(2);
                length(&mut bytes, counts.len());
                for (value, count) in counts {
                    length(&mut bytes, value.len());
                    bytes.extend(value.as_bytes());
                    bytes.extend(count.to_le_bytes());
                }
            }
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        match Reader(bytes).distribution() {
            Some(distribution) => Ok(distribution),
            None => exec_err!(
                "these bytes are no distribution. Hint: give what distribution_sketch(…) answers"
            ),
        }
    }
}

fn mixed<T>() -> Result<T> {
    exec_err!("a distribution of numbers and one of texts cannot be compared")
}

fn length(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.take()?)).ok()
    }

    fn text(&mut self) -> Option<&'a str> {
        let count = self.count()?;
        let (text, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn distribution(&mut self) -> Option<Distribution> {
        if self.byte()? != FORMAT {
            return None;
        }
        let missing = u64::from_le_bytes(self.take()?);
        let values = match self.byte()? {
            0 => Values::None,
            1 => {
                // More levels than a 64-bit count has bits are none that was written.
                let count = self.count().filter(|count| *count <= 64)?;
                let mut levels = Vec::with_capacity(count);
                for _ in 0..count {
                    let odd = self.byte()? != 0;
                    let values = (0..self.count()?).map(|_| self.take().map(f64::from_le_bytes));
                    levels.push(Level { odd, values: values.collect::<Option<_>>()? });
                }
                Values::Numbers(Quantiles { levels })
            }
            2 => {
                let mut counts = BTreeMap::new();
                for _ in 0..self.count().filter(|count| *count <= CATEGORIES_MAX)? {
                    let value = self.text()?.to_owned();
                    counts.insert(value, u64::from_le_bytes(self.take()?));
                }
                Values::Categories(counts)
            }
            _ => return None,
        };
        self.0.is_empty().then_some(Distribution { missing, values })
    }
}

/// The population stability index of `actual` against `expected`: Σ (a − e)·ln(a / e) over bins
/// that hold the shares a and e, at least [`SHARE_MIN`] each.
///
/// Bins of numbers are the tenths of `expected`, of which those that fall together are one; bins of
/// texts are the texts. Missing values are a bin of their own. Below .1 little has changed, above
/// .25 much. `None` when one of them is empty.
///
/// # Errors
/// When one is of numbers and the other of texts.
pub(crate) fn psi(actual: &Distribution, expected: &Distribution) -> Result<Option<f64>> {
    let mut bins: Vec<(u64, u64)> = match (&actual.values, &expected.values) {
        (Values::Categories(_), Values::Numbers(_))
        | (Values::Numbers(_), Values::Categories(_)) => return mixed(),
        (Values::Categories(_), _) | (_, Values::Categories(_)) => by_category(actual, expected),
        _ => by_tenths(actual, expected),
    };
    if actual.missing + expected.missing > 0 {
        bins.push((actual.missing, expected.missing));
    }
    let total = |side: fn(&(u64, u64)) -> u64| bins.iter().map(side).sum::<u64>() as f64;
    let (all, all_expected) = (total(|bin| bin.0), total(|bin| bin.1));
    if all == 0.0 || all_expected == 0.0 {
        return Ok(None);
    }
    let part = |(count, count_expected): &(u64, u64)| {
        let share = (*count as f64 / all).max(SHARE_MIN);
        let share_expected = (*count_expected as f64 / all_expected).max(SHARE_MIN);
        (share - share_expected) * (share / share_expected).ln()
    };
    Ok(Some(bins.iter().map(part).sum()))
}

fn by_category(actual: &Distribution, expected: &Distribution) -> Vec<(u64, u64)> {
    let mut bins: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    if let Values::Categories(counts) = &actual.values {
        counts.iter().for_each(|(value, count)| bins.entry(value).or_default().0 += count);
    }
    if let Values::Categories(counts) = &expected.values {
        counts.iter().for_each(|(value, count)| bins.entry(value).or_default().1 += count);
    }
    bins.into_values().collect()
}

fn weighted(distribution: &Distribution) -> (Vec<(f64, u64)>, u64) {
    match &distribution.values {
        Values::Numbers(quantiles) => quantiles.weighted(),
        _ => (Vec::new(), 0),
    }
}

fn by_tenths(actual: &Distribution, expected: &Distribution) -> Vec<(u64, u64)> {
    let (values_expected, total) = weighted(expected);
    let mut edges: Vec<f64> = Vec::with_capacity(BINS);
    let mut below = 0_u64;
    for (value, weight) in &values_expected {
        below += weight;
        // The edge of a tenth is its largest value; the last tenth is open.
        let reached =
            |tenths: usize| u128::from(below) * BINS as u128 >= tenths as u128 * u128::from(total);
        while edges.len() + 1 < BINS && reached(edges.len() + 1) {
            edges.push(*value);
        }
    }
    edges.dedup();
    let mut bins = vec![(0, 0); edges.len() + 1];
    let bin = |value: f64| edges.partition_point(|edge| *edge < value);
    for (value, weight) in weighted(actual).0 {
        bins[bin(value)].0 += weight;
    }
    for (value, weight) in values_expected {
        bins[bin(value)].1 += weight;
    }
    bins
}

/// The Kolmogorov–Smirnov statistic: the largest distance between the two cumulative shares.
/// Missing values are left out. `None` when there are no values on one side.
///
/// # Errors
/// When the values are texts, which have no order to accumulate in.
pub(crate) fn ks(actual: &Distribution, expected: &Distribution) -> Result<Option<f64>> {
    for side in [actual, expected] {
        if let Values::Categories(_) = side.values {
            return exec_err!(
                "the Kolmogorov-Smirnov statistic needs numbers or times. Hint: use the \
                 population stability index for texts"
            );
        }
    }
    let ((one, total_one), (other, total_other)) = (weighted(actual), weighted(expected));
    if total_one == 0 || total_other == 0 {
        return Ok(None);
    }
    let (mut at_one, mut at_other) = (0, 0);
    let (mut below_one, mut below_other) = (0_u64, 0_u64);
    let mut distance = 0.0_f64;
    while at_one < one.len() && at_other < other.len() {
        let value = one[at_one].0.min(other[at_other].0);
        while at_one < one.len() && one[at_one].0 <= value {
            below_one += one[at_one].1;
            at_one += 1;
        }
        while at_other < other.len() && other[at_other].0 <= value {
            below_other += other[at_other].1;
            at_other += 1;
        }
        let shares = below_one as f64 / total_one as f64 - below_other as f64 / total_other as f64;
        distance = distance.max(shares.abs());
    }
    Ok(Some(distance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: impl IntoIterator<Item = f64>) -> Distribution {
        let mut made = Distribution::default();
        values.into_iter().for_each(|value| made.number(value).unwrap());
        made
    }

    /// The statistic by its definition.
    fn ks_plain(one: &[f64], other: &[f64]) -> f64 {
        let below =
            |all: &[f64], x: f64| all.iter().filter(|v| **v <= x).count() as f64 / all.len() as f64;
        let points = one.iter().chain(other);
        points.map(|x| (below(one, *x) - below(other, *x)).abs()).fold(0.0, f64::max)
    }

    fn noise(n: u64) -> f64 {
        (crate::model::random::mix(n) >> 11) as f64 / (1_u64 << 53) as f64
    }

    #[test]
    fn ranks_of_many_values_are_close() {
        for count in [100_000_u64, 1_000_000] {
            for sorted in [false, true] {
                let value = |n: u64| if sorted { n as f64 / count as f64 } else { noise(n) };
                let (values, total) = weighted(&of((0..count).map(value)));
                assert_eq!(total, count, "no value is lost");
                let mut below = 0_u64;
                for (value, weight) in values {
                    below += weight;
                    let off = (below as f64 / count as f64 - value).abs();
                    assert!(off < 0.006, "{count} {sorted}: {off} at {value}");
                }
            }
        }
    }

    #[test]
    fn merged_parts_are_like_the_whole() {
        let mut merged = Distribution::default();
        for part in 0..37_u64 {
            merged.merge(&of((0..5_000).map(|n| noise(part * 5_000 + n)))).unwrap();
        }
        let whole = of((0..185_000).map(noise));
        assert_eq!(weighted(&merged).1, 185_000);
        assert!(ks(&merged, &whole).unwrap().unwrap() < 0.008);
        assert!(merged.to_bytes().len() < 200_000);
    }

    #[test]
    fn a_shift_is_seen_and_its_absence_too() {
        let base = of((0..50_000).map(noise));
        let same = of((50_000..100_000).map(noise));
        let moved = of((0..50_000).map(|n| noise(n) + 0.2));
        assert!(psi(&same, &base).unwrap().unwrap() < 0.005);
        assert!(psi(&moved, &base).unwrap().unwrap() > 0.25);
        assert!((ks(&moved, &base).unwrap().unwrap() - 0.2).abs() < 0.01);
    }

    #[test]
    fn psi_is_its_formula() {
        let texts = |counts: &[(&str, u64)], missing| {
            let mut made = Distribution::default();
            counts.iter().for_each(|(text, count)| made.count(text, *count).unwrap());
            made.miss(missing);
            made
        };
        let expected = texts(&[("a", 50), ("b", 50)], 0);
        let actual = texts(&[("a", 60), ("b", 40)], 0);
        let by_hand = 0.1 * (0.6_f64 / 0.5).ln() - 0.1 * (0.4_f64 / 0.5).ln();
        assert!((psi(&actual, &expected).unwrap().unwrap() - by_hand).abs() < 1e-12);
        assert_eq!(psi(&expected, &expected).unwrap(), Some(0.0));
        // A new text, and values that went missing, are changes.
        assert!(psi(&texts(&[("c", 1)], 0), &expected).unwrap().unwrap() > 1.0);
        assert!(psi(&texts(&[("a", 25), ("b", 25)], 50), &expected).unwrap().unwrap() > 0.25);
        // Ten numbers in ten tenths.
        let tens = of((0..10).map(f64::from));
        assert_eq!(by_tenths(&tens, &tens), vec![(1, 1); 10]);
        // One number that is half of all is one bin.
        let heavy = of((0..100).map(|n| if n < 50 { 7.0 } else { f64::from(n) }));
        assert_eq!(psi(&heavy, &heavy).unwrap(), Some(0.0));
        assert!(by_tenths(&heavy, &heavy).len() < 8);
    }

    #[test]
    fn nothing_and_mixtures() {
        let (empty, numbers) = (Distribution::default(), of([1.0]));
        assert_eq!(psi(&empty, &numbers).unwrap(), None);
        assert_eq!(ks(&numbers, &empty).unwrap(), None);
        let mut texts = Distribution::default();
        texts.category("a").unwrap();
        assert!(psi(&texts, &numbers).is_err() && ks(&texts, &texts).is_err());
        assert!(texts.clone().merge(&numbers).is_err() && texts.number(1.0).is_err());
        let many = (0..=CATEGORIES_MAX).try_for_each(|n| texts.category(&n.to_string()));
        assert!(many.unwrap_err().to_string().contains("different values"));
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let bytes = of((0..3_000).map(noise)).to_bytes();
        for cut in [0, 1, 8, 10, 100, bytes.len() - 1] {
            assert!(Distribution::from_bytes(&bytes[..cut]).is_err(), "{cut}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Distribution::from_bytes(&longer).is_err());
        assert!(
            Distribution::from_bytes(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255]).is_err()
        );
    }

    proptest! {
        #[test]
        fn few_values_give_the_plain_statistic(
            one in prop::collection::vec(-5..5_i8, 1..60),
            other in prop::collection::vec(-5..5_i8, 1..60),
        ) {
            let [one, other] = [one, other].map(|v| v.into_iter().map(f64::from).collect::<Vec<_>>());
            let found = ks(&of(one.clone()), &of(other.clone())).unwrap().unwrap();
            prop_assert!((found - ks_plain(&one, &other)).abs() < 1e-12);
        }

        #[test]
        fn what_is_written_reads_back(values in prop::collection::vec(any::<f64>(), 0..4_000)) {
            let made = of(values);
            prop_assert_eq!(Distribution::from_bytes(&made.to_bytes()).unwrap(), made);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Distribution::from_bytes(&bytes);
        }
    }
}
