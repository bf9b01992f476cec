//! Sorting scored pairs, however many there are: runs that memory holds are sorted one by one, put
//! where there is a place for them, and merged, a few at a time.
//!
//! No two pairs are of the same records, so an order that ends with the place leaves nothing open:
//! the answer depends neither on the order in which pairs come nor on the length of runs.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use rayon::prelude::*;

use super::pairs::{Pairs, Spill, Writer};
use super::score::Edge;
use crate::model::ModelError;

/// Which of two pairs comes first.
pub type Order = fn(&Edge, &Edge) -> Ordering;

/// By left and right.
pub fn by_place(a: &Edge, b: &Edge) -> Ordering {
    (a.left, a.right).cmp(&(b.left, b.right))
}

/// The surest first, ties by left and right.
pub fn by_weight(a: &Edge, b: &Edge) -> Ordering {
    b.weight.total_cmp(&a.weight).then_with(|| by_place(a, b))
}

/// Sorts pairs.
#[derive(Debug)]
pub struct Sorter {
    order: Order,
    run_pairs: usize,
    merged_runs: usize,
    run: Vec<Edge>,
    runs: VecDeque<Pairs>,
    /// Makes the writers of runs, so that they share a file.
    writer: Writer,
}

impl Sorter {
    /// Nothing yet.
    pub fn new(spill: &Spill, order: Order) -> Self {
        Self {
            order,
            run_pairs: spill.run_pairs,
            merged_runs: spill.merged_runs.max(2),
            run: Vec::new(),
            runs: VecDeque::new(),
            writer: Writer::new(spill, 0),
        }
    }

    /// Adds a pair.
    ///
    /// # Errors
    /// When the disk is full, or fails.
    pub fn add(&mut self, edge: Edge) -> Result<(), ModelError> {
        self.run.push(edge);
        match self.run.len() >= self.run_pairs {
            true => self.close(),
            false => Ok(()),
        }
    }

    /// Ends a run.
    fn close(&mut self) -> Result<(), ModelError> {
        self.run.par_sort_unstable_by(self.order);
        let mut writer = self.writer.beside();
        for edge in self.run.drain(..) {
            writer.add(&edge, &[]);
        }
        self.runs.push_back(writer.pairs()?);
        Ok(())
    }

    /// The pairs in order.
    ///
    /// # Errors
    /// When the disk is full, or fails.
    pub fn finish(mut self) -> Result<Pairs, ModelError> {
        if !self.run.is_empty() || self.runs.is_empty() {
            self.close()?;
        }
        // Merging takes the memory of the run.
        self.run = Vec::new();
        while self.runs.len() > 1 {
            let most = self.runs.len().min(self.merged_runs);
            let next: Vec<Pairs> = self.runs.drain(..most).collect();
            self.runs.push_back(merged(&next, self.order, self.writer.beside())?);
        }
        match self.runs.pop_front() {
            Some(sorted) => Ok(sorted),
            None => self.writer.pairs(),
        }
    }
}

/// Sorts the pairs of an iterator by left and right.
///
/// # Errors
/// When the disk is full, or fails.
pub fn placed(spill: &Spill, edges: impl IntoIterator<Item = Edge>) -> Result<Pairs, ModelError> {
    let mut sorter = Sorter::new(spill, by_place);
    for edge in edges {
        sorter.add(edge)?;
    }
    sorter.finish()
}

/// The next pair of one of those that are merged.
struct Head {
    edge: Edge,
    of: usize,
    order: Order,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        // A heap gives the largest first.
        (self.order)(&other.edge, &self.edge).then(other.of.cmp(&self.of))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// Merges pairs that are in order each.
///
/// # Errors
/// When the disk is full, or fails.
pub fn merged(sorted: &[Pairs], order: Order, mut writer: Writer) -> Result<Pairs, ModelError> {
    let mut cursors: Vec<_> = sorted.iter().map(Pairs::cursor).collect();
    let mut heads = BinaryHeap::with_capacity(cursors.len());
    for (of, cursor) in cursors.iter_mut().enumerate() {
        if let Some(edge) = cursor.next().transpose()? {
            heads.push(Head { edge, of, order });
        }
    }
    while let Some(Head { edge, of, .. }) = heads.pop() {
        writer.add(&edge, &[]);
        if let Some(edge) = cursors[of].next().transpose()? {
            heads.push(Head { edge, of, order });
        }
    }
    writer.pairs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pairs::testing::tiny;
    use super::*;

    fn all(pairs: &Pairs) -> Vec<Edge> {
        pairs.cursor().collect::<Result<_, _>>().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_run_sorts_as_all_at_once(
            places in prop::collection::hash_map((0_u32..20, 20_u32..40), -3_i8..3, 0..120),
        ) {
            let edges: Vec<Edge> = places
                .into_iter()
                .map(|((left, right), weight)| {
                    Edge { left, right, weight: f32::from(weight), levels: u64::from(left) }
                })
                .collect();
            for order in [by_place as Order, by_weight] {
                let mut expected = edges.clone();
                expected.sort_by(order);
                for spill in [Spill::in_memory(), tiny()] {
                    let mut sorter = Sorter::new(&spill, order);
                    for edge in &edges {
                        sorter.add(*edge).unwrap();
                    }
                    prop_assert_eq!(all(&sorter.finish().unwrap()), expected.clone());
                }
            }
        }
    }
}
