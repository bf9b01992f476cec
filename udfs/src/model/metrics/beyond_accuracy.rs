//! What a recommender is like beyond being right: diversity, novelty, coverage, concentration.
//!
//! * [`diversity`] of a list: 1 − the mean cosine of all pairs of its items' vectors (Ziegler et
//!   al. 2005), from 0 (all alike) to 2 (opposite).
//! * [`novelty`] of a list: the mean self-information −log₂(users of the item / users) of its items
//!   in bits (Zhou et al. 2010). An item that nobody has counts as one that one user has.
//! * coverage: the share of the catalog that was recommended to anyone (the published tables count
//!   the same items, not as a share).
//! * Gini: Σ (2r − n − 1) c_r / (n Σ c) over the n items of the catalog by ascending number of
//!   recommendations c_r, from 0 (all equally often) to almost 1 (one item only); items that were
//!   never recommended count, with 0.

/// The intra-list diversity of a list; `None` for fewer than two items. A vector of zeros, or a
/// missing one, is like no other: cosine 0.
pub fn diversity<'a>(list: &[u32], vector: impl Fn(u32) -> Option<&'a [f32]>) -> Option<f64> {
    if list.len() < 2 {
        return None;
    }
    let vectors: Vec<(&[f32], f64)> = list
        .iter()
        .map(|&item| {
            let vector = vector(item).unwrap_or_default();
            (vector, product(vector, vector).sqrt())
        })
        .collect();
    let mut sum = 0.0;
    for (position, (first, first_norm)) in vectors.iter().enumerate() {
        for (second, second_norm) in &vectors[position + 1..] {
            let norms = first_norm * second_norm;
            if norms > 0.0 {
                sum += (product(first, second) / norms).clamp(-1.0, 1.0);
            }
        }
    }
    let pairs = list.len() * (list.len() - 1) / 2;
    Some(1.0 - sum / pairs as f64)
}

fn product(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// The novelty of a list in bits, from the number of users of each item and of all; `None` for an
/// empty list or without users.
pub fn novelty(list: &[u32], item_users: &[u32], users: usize) -> Option<f64> {
    if list.is_empty() || users == 0 {
        return None;
    }
    let bits = |item: &u32| {
        let count = item_users.get(*item as usize).copied().unwrap_or_default();
        -(f64::from(count.max(1)) / users as f64).min(1.0).log2()
    };
    Some(list.iter().map(bits).sum::<f64>() / list.len() as f64)
}

/// The Gini coefficient of counts over a catalog of `items`, of which `counts` has those above 0 in
/// any order; NaN when nothing was counted.
pub(super) fn gini(counts: &mut [u32], items: usize) -> f64 {
    counts.sort_unstable();
    let zeros = items.saturating_sub(counts.len());
    let n = items as f64;
    let (mut weighted, mut total) = (0.0, 0.0);
    for (rank, &count) in (zeros + 1..).zip(counts.iter()) {
        weighted += (2.0 * rank as f64 - n - 1.0) * f64::from(count);
        total += f64::from(count);
    }
    weighted / (n * total)
}

/// Which items were recommended to whom: 4 bytes an item of a list, 12 a user.
#[derive(Debug, Clone)]
pub struct Exposure {
    k: usize,
    items: usize,
    users: Vec<u32>,
    ends: Vec<usize>,
    listed: Vec<u32>,
}

impl Exposure {
    /// Nothing yet, of lists of length `k` from a catalog of `items`.
    pub fn new(k: usize, items: usize) -> Self {
        Self { k, items, users: vec![], ends: vec![], listed: vec![] }
    }

    /// Adds a user's list. Codes beyond the catalog are left out.
    pub fn add(&mut self, user: u32, list: &[u32]) {
        let known = list.iter().copied().filter(|&item| (item as usize) < self.items);
        self.listed.extend(known.take(self.k));
        self.users.push(user);
        self.ends.push(self.listed.len());
    }

    /// Takes the lists of another one of equal length and catalog.
    pub fn append(&mut self, mut other: Self) {
        let start = self.listed.len();
        self.listed.append(&mut other.listed);
        self.users.append(&mut other.users);
        self.ends.extend(other.ends.iter().map(|end| start + end));
    }

    /// The lists of the users that `keep` accepts: a segment.
    pub fn select(&self, keep: impl Fn(u32) -> bool) -> Self {
        let mut kept = Self::new(self.k, self.items);
        for (user, list) in self.lists().filter(|(user, _)| keep(*user)) {
            kept.add(user, list);
        }
        kept
    }

    /// The number of items of the catalog.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Users and their lists.
    pub fn lists(&self) -> impl Iterator<Item = (u32, &[u32])> {
        let mut start = 0;
        self.users.iter().zip(&self.ends).map(move |(user, end)| {
            let list = &self.listed[start..*end];
            start = *end;
            (*user, list)
        })
    }

    /// How often each item was recommended.
    pub fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.items];
        self.listed.iter().for_each(|&item| counts[item as usize] += 1);
        counts
    }

    /// The names of [`Self::values`].
    pub fn names(&self) -> [String; 2] {
        [format!("coverage@{}", self.k), format!("gini@{}", self.k)]
    }

    /// Coverage and Gini by name; NaN for an empty catalog, Gini also without a recommendation.
    pub fn values(&self) -> Vec<(String, f64)> {
        let mut counts: Vec<u32> = self.counts().into_iter().filter(|&count| count > 0).collect();
        self.names().into_iter().zip(coverage_and_gini(&mut counts, self.items)).collect()
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        (self.users.capacity() + self.listed.capacity()) * size_of::<u32>()
            + self.ends.capacity() * size_of::<usize>()
    }
}

/// Coverage and Gini of the counts above 0.
pub(super) fn coverage_and_gini(counts: &mut [u32], items: usize) -> [f64; 2] {
    [counts.len() as f64 / items as f64, gini(counts, items)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diversity_is_one_less_the_mean_cosine() {
        let vectors: [&[f32]; 4] = [&[1.0, 0.0], &[2.0, 0.0], &[0.0, 3.0], &[0.0, 0.0]];
        let of = |list: &[u32]| diversity(list, |item| vectors.get(item as usize).copied());
        assert_eq!(of(&[0, 1]), Some(0.0));
        assert_eq!(of(&[0, 2]), Some(1.0));
        assert!((of(&[0, 1, 2]).unwrap() - (1.0 - 1.0 / 3.0)).abs() < 1e-12);
        assert_eq!(of(&[0, 3]), Some(1.0));
        assert_eq!(of(&[0, 9]), Some(1.0));
        assert_eq!(of(&[0]), None);
        let opposite: [&[f32]; 2] = [&[1.0], &[-1.0]];
        assert_eq!(diversity(&[0, 1], |item| opposite.get(item as usize).copied()), Some(2.0));
    }

    #[test]
    fn novelty_is_the_mean_self_information() {
        let item_users = [8, 4, 1, 0];
        assert_eq!(novelty(&[0], &item_users, 8), Some(0.0));
        assert_eq!(novelty(&[1, 2], &item_users, 8), Some(2.0));
        assert_eq!(novelty(&[3], &item_users, 8), Some(3.0));
        assert_eq!(novelty(&[], &item_users, 8), None);
        assert_eq!(novelty(&[0], &item_users, 0), None);
    }

    #[test]
    fn gini_is_zero_for_equal_shares_and_high_for_one_item() {
        assert_eq!(gini(&mut [3, 3, 3], 3), 0.0);
        assert!((gini(&mut [9], 10) - 0.9).abs() < 1e-12);
        // Of 1, 2, 3, 4: 0.25.
        assert!((gini(&mut [4, 1, 3, 2], 4) - 0.25).abs() < 1e-12);
        assert!(gini(&mut [], 4).is_nan());
    }

    #[test]
    fn exposure_counts_what_was_listed() {
        let mut exposure = Exposure::new(2, 4);
        exposure.add(7, &[0, 1, 2]);
        let mut other = Exposure::new(2, 4);
        other.add(9, &[1, 99]);
        exposure.append(other);
        assert_eq!(exposure.counts(), [1, 2, 0, 0]);
        let lists: Vec<_> = exposure.lists().collect();
        assert_eq!(lists, [(7, &[0, 1][..]), (9, &[1][..])]);
        assert_eq!(exposure.select(|user| user > 7).counts(), [0, 1, 0, 0]);
        let values = exposure.values();
        assert_eq!(values[0], ("coverage@2".to_owned(), 0.5));
        // Of 0, 0, 1, 2: (1·1 + 3·2) / (4·3).
        assert!((values[1].1 - 7.0 / 12.0).abs() < 1e-12);
    }
}
