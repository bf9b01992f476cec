//! Popularity: the fallback for users without factors, and the baseline of every evaluation.
//!
//! An item's popularity is its number of distinct interactions, whatever their weights; ties are
//! broken by code.

use super::sparse::Csr;

/// Items by popularity.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Popularity {
    order: Vec<u32>,
    counts: Vec<u32>,
}

impl Popularity {
    /// Counts the interactions of each item.
    pub fn new(interactions: &Csr) -> Self {
        Self::from_counts(interactions.column_counts())
    }

    /// Ranks items by given counts.
    pub fn from_counts(counts: Vec<u32>) -> Self {
        let mut order: Vec<u32> = (0..counts.len() as u32).collect();
        order.sort_by_key(|&item| std::cmp::Reverse(counts[item as usize]));
        Self { order, counts }
    }

    /// The first `k` items that `keep` accepts, with their counts.
    pub fn top(&self, k: usize, keep: impl Fn(u32) -> bool) -> (Vec<u32>, Vec<f32>) {
        let kept = self.order.iter().copied().filter(|&item| keep(item)).take(k);
        kept.map(|item| (item, self.counts[item as usize] as f32)).unzip()
    }

    /// Interactions of each item.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        (self.order.len() + self.counts.len()) * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_items_come_first_and_ties_by_code() {
        let popularity = Popularity::from_counts(vec![1, 5, 5, 0]);
        assert_eq!(popularity.top(3, |_| true), (vec![1, 2, 0], vec![5.0, 5.0, 1.0]));
        assert_eq!(popularity.top(9, |item| item != 1).0, [2, 0, 3]);
    }
}
