//! From pairs to entities.
//!
//! Pairs are taken from the surest down to the threshold, ties by position, and join the groups of
//! their two records. Connected components are what that gives without a guard. With it, two groups
//! of which one has more than one record are joined only where the mean probability over all pairs
//! between them is at least one half: a pair that alone holds two groups together, a bridge, does
//! not. Connected components take bridges too, and count them, so that whoever asked for them is
//! warned. Of a link, a group has one record of each table at most: each record's best link.
//!
//! Decisions come before all: what must be linked is, what cannot be linked never is. What is close
//! is asked of groups as they are without links that were decided, of which pairs say nothing; so a
//! decision about two records joins their groups.
//!
//! Groups are in memory, some bytes a record; pairs are read where they are, in memory or on disk:
//! once to sort those above the threshold, and by place where the guard asks for them.

use std::collections::HashSet;

use super::compare::Comparer;
use super::pairs::{Lookup, Pairs, Writer};
use super::score::{Edge, Scorer, probability, weight};
use super::sorted::{Sorter, by_place, by_weight, merged};
use super::values::Mixed;
use crate::model::ModelError;

/// How pairs become groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Connected components.
    Connected,
    /// Connected components without bridges.
    #[default]
    Guarded,
    /// At most one record of each table.
    BestLink,
}

/// A decision of a person about two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// One record.
    pub left: u32,
    /// The other.
    pub right: u32,
    /// Whether they are one entity.
    pub is_match: bool,
}

/// Groups of records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Clusters {
    /// The smallest record of each record's group.
    pub of: Vec<u32>,
    /// The same without what was decided to be linked.
    pub by_pairs: Vec<u32>,
    /// Pairs above the threshold whose records stay apart though nobody has decided so: bridges, or
    /// of a link those whose records have better links.
    pub refused: usize,
    /// Pairs above the threshold whose records stay apart by decisions.
    pub forbidden: usize,
    /// Bridges that joined groups all the same, as connected components have them.
    pub bridges: usize,
    /// Decisions that keep two records apart which others make one.
    pub overruled: usize,
}

/// Pairs between two groups that the guard looks at.
const CROSS_MAX: usize = 4096;
/// The same where a bridge is no more than told: of 16 records each, all.
const TOLD_MAX: usize = 256;
/// The largest component whose pairs are all scored.
const COMPLETED_MAX: usize = 64;

/// Groups `records` by their pairs with at least `threshold` probability, of pairs by left and
/// right.
///
/// # Errors
/// When the disk that pairs are on is full, or fails, and when nobody waits for the groups any
/// more.
pub fn cluster(
    records: usize,
    edges: &Pairs,
    threshold: f64,
    method: Method,
    sides: &[u32],
    decisions: &[Decision],
) -> Result<Clusters, ModelError> {
    let mut groups = Groups::new(records);
    for decision in decisions.iter().filter(|decision| decision.is_match) {
        groups.join(decision.left, decision.right);
    }
    let never = Never::new(decisions);
    let overruled = never.roots(&mut groups).filter(|(left, right)| left == right).count();
    let sorted = surest_first(edges, threshold)?;
    let mut known = Lookup::new(edges);
    let mut bridges = 0;
    let mut by_pairs = Groups::new(records);
    for edge in sorted.cursor() {
        let edge = edge?;
        let (a, b) = (by_pairs.root(edge.left), by_pairs.root(edge.right));
        if a == b {
            continue;
        }
        edges.spill().check()?;
        let (whole_a, whole_b) = (groups.root(edge.left), groups.root(edge.right));
        // What is one by a decision is not asked again.
        if whole_a != whole_b {
            if never.keeps_apart(&mut groups, whole_a, whole_b) {
                continue;
            }
            let (left, right) = (by_pairs.members(a), by_pairs.members(b));
            let mut is_bridge = |most: usize| {
                let is_close = left.len() + right.len() == 2;
                Ok::<_, ModelError>(!(is_close || self::is_close(left, right, &mut known, most)?))
            };
            let is_refused = match method {
                Method::Connected => {
                    bridges += usize::from(is_bridge(TOLD_MAX)?);
                    false
                }
                Method::Guarded => is_bridge(CROSS_MAX)?,
                Method::BestLink => groups.have_one_side(whole_a, whole_b, sides),
            };
            if is_refused {
                continue;
            }
        }
        by_pairs.join(a, b);
        groups.join(whole_a, whole_b);
    }
    let order = |(a, b): (u32, u32)| (a.min(b), a.max(b));
    let apart: HashSet<(u32, u32)> = never.roots(&mut groups).map(order).collect();
    // What one pair did not join another may have.
    let (mut refused, mut forbidden) = (0, 0);
    for edge in sorted.cursor() {
        let edge = edge?;
        let (a, b) = (groups.root(edge.left), groups.root(edge.right));
        match a == b {
            true => {}
            false if apart.contains(&order((a, b))) => forbidden += 1,
            false => refused += 1,
        }
    }
    let (of, by_pairs) = (groups.roots(), by_pairs.roots());
    Ok(Clusters { of, by_pairs, refused, forbidden, bridges, overruled })
}

/// The decisions that keep two records apart.
struct Never<'a> {
    decisions: &'a [Decision],
    /// The others that each record is kept apart from.
    of: Mixed<u32, Vec<u32>>,
}

impl<'a> Never<'a> {
    fn new(decisions: &'a [Decision]) -> Self {
        let mut of: Mixed<u32, Vec<u32>> = Mixed::default();
        for decision in decisions.iter().filter(|decision| !decision.is_match) {
            of.entry(decision.left).or_default().push(decision.right);
            of.entry(decision.right).or_default().push(decision.left);
        }
        Self { decisions, of }
    }

    /// The groups of the two records of each.
    fn roots(&self, groups: &mut Groups) -> impl Iterator<Item = (u32, u32)> {
        let apart = self.decisions.iter().filter(|decision| !decision.is_match);
        apart.map(move |decision| (groups.root(decision.left), groups.root(decision.right)))
    }

    /// Whether two groups hold two such records. It takes as long as the smaller one has members,
    /// or as there are decisions, whichever are fewer.
    fn keeps_apart(&self, groups: &mut Groups, a: u32, b: u32) -> bool {
        if self.of.is_empty() {
            return false;
        }
        let is_smaller = groups.members(a).len() <= groups.members(b).len();
        let (smaller, other) = if is_smaller { (a, b) } else { (b, a) };
        if groups.members(smaller).len() > self.decisions.len() {
            return self.roots(groups).any(|roots| roots == (a, b) || roots == (b, a));
        }
        let known = groups.members(smaller).iter().filter_map(|record| self.of.get(record));
        let others: Vec<u32> = known.flatten().copied().collect();
        others.into_iter().any(|record| groups.root(record) == other)
    }
}

/// The pairs with at least `threshold` probability, by weight.
fn surest_first(edges: &Pairs, threshold: f64) -> Result<Pairs, ModelError> {
    let least = weight(threshold);
    let mut sorter = Sorter::new(edges.spill(), by_weight);
    for edge in edges.cursor() {
        let edge = edge?;
        if f64::from(edge.weight) >= least {
            sorter.add(edge)?;
        }
    }
    sorter.finish()
}

/// Whether the mean probability between two groups, of so many of their pairs at most, is at least
/// one half.
fn is_close(
    left: &[u32],
    right: &[u32],
    known: &mut Lookup<'_>,
    most: usize,
) -> Result<bool, ModelError> {
    let all = left.len() * right.len();
    let step = all.div_ceil(most);
    let looked = (0..all).step_by(step);
    let count = looked.len();
    let mut sum = 0.0;
    for at in looked {
        let (x, y) = (left[at / right.len()], right[at % right.len()]);
        if let Some(weight) = known.weight(x.min(y), x.max(y))? {
            sum += probability(f64::from(weight));
        }
    }
    Ok(sum >= 0.5 * count as f64)
}

/// Adds the pairs inside groups that blocking has missed: those of components at one half with
/// up to 64 records. Pairs come and go by left and right, so that those of one record are in memory
/// at a time.
///
/// # Errors
/// When the disk that pairs are on is full, or fails, and when nobody waits for them any more.
pub fn complete(scorer: &Scorer<'_>, edges: Pairs, least: f64) -> Result<Pairs, ModelError> {
    let records = scorer.records();
    let mut groups = Groups::new(records.len);
    edges.each(|edge| {
        if edge.weight >= 0.0 {
            groups.join(edge.left, edge.right);
        }
    })?;
    let mut comparer = Comparer::new(records);
    let mut missed = Writer::new(edges.spill(), 0);
    let mut cursor = edges.cursor().peekable();
    let (mut known, mut own) = (Vec::new(), Vec::new());
    for left in 0..records.len as u32 {
        edges.spill().check()?;
        known.clear();
        let is_own = |edge: &Result<Edge, ModelError>| match edge {
            Ok(edge) => edge.left == left,
            Err(_) => true,
        };
        while let Some(edge) = cursor.next_if(is_own) {
            known.push(edge?.right);
        }
        let root = groups.root(left);
        let members = groups.members(root);
        if members.len() < 3 || members.len() > COMPLETED_MAX {
            continue;
        }
        own.extend(members.iter().copied().filter(|right| *right > left));
        own.sort_unstable();
        for right in own.drain(..) {
            if known.binary_search(&right).is_ok() || !records.may_match(left, right) {
                continue;
            }
            let edge = scorer.edge(&mut comparer, left, right);
            if f64::from(edge.weight) >= least {
                missed.add(&edge, &[]);
            }
        }
    }
    drop(cursor);
    let missed = missed.pairs()?;
    if missed.is_empty() {
        return Ok(edges);
    }
    let writer = Writer::new(edges.spill(), 0);
    merged(&[edges, missed], by_place, writer)
}

/// Disjoint sets whose root is their smallest member.
#[derive(Debug)]
struct Groups {
    parents: Vec<u32>,
    /// The members of each root with more than one.
    members: Mixed<u32, Vec<u32>>,
    alone: Vec<u32>,
}

impl Groups {
    fn new(records: usize) -> Self {
        let alone: Vec<u32> = (0..records as u32).collect();
        Self { parents: alone.clone(), members: Mixed::default(), alone }
    }

    fn root_of(&self, mut record: u32) -> u32 {
        while self.parents[record as usize] != record {
            record = self.parents[record as usize];
        }
        record
    }

    fn root(&mut self, record: u32) -> u32 {
        let root = self.root_of(record);
        let mut at = record;
        while self.parents[at as usize] != root {
            at = std::mem::replace(&mut self.parents[at as usize], root);
        }
        root
    }

    fn roots(&mut self) -> Vec<u32> {
        (0..self.parents.len() as u32).map(|record| self.root(record)).collect()
    }

    fn members(&self, root: u32) -> &[u32] {
        match self.members.get(&root) {
            Some(members) => members,
            None => std::slice::from_ref(&self.alone[root as usize]),
        }
    }

    /// Whether two groups have records of one table.
    fn have_one_side(&self, a: u32, b: u32, sides: &[u32]) -> bool {
        let of = |record: &u32| sides.get(*record as usize);
        let (left, right) = (self.members(a), self.members(b));
        left.iter().any(|x| right.iter().any(|y| of(x) == of(y)))
    }

    /// Joins two groups. The members of the smaller one go to those of the larger.
    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let (root, other) = (a.min(b), a.max(b));
        self.parents[other as usize] = root;
        let [kept, moved] =
            [root, other].map(|group| self.members.remove(&group).unwrap_or_else(|| vec![group]));
        let (mut more, mut fewer) =
            if kept.len() < moved.len() { (moved, kept) } else { (kept, moved) };
        more.append(&mut fewer);
        self.members.insert(root, more);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use proptest::prelude::*;

    use super::super::pairs::testing::{limited, tiny};
    use super::super::pairs::{Scratch, Spill};
    use super::super::sorted::placed;
    use super::*;

    fn edge(left: u32, right: u32, weight: f32) -> Edge {
        Edge { left, right, weight, levels: 0 }
    }

    fn grouped(
        records: usize,
        edges: &[Edge],
        threshold: f64,
        method: Method,
        sides: &[u32],
        decisions: &[Decision],
    ) -> Clusters {
        let of = |spill: &Spill| {
            let pairs = placed(spill, edges.iter().copied()).unwrap();
            cluster(records, &pairs, threshold, method, sides, decisions).unwrap()
        };
        let found = of(&Spill::in_memory());
        assert_eq!(of(&tiny()), found);
        found
    }

    #[test]
    fn a_bridge_joins_components_but_not_groups() {
        let mut edges = Vec::new();
        for base in [0, 3] {
            edges.extend([(0, 1), (0, 2), (1, 2)].map(|(a, b)| edge(base + a, base + b, 20.0)));
        }
        edges.push(edge(2, 3, 9.0));
        let found = |method| {
            let found = grouped(7, &edges, 0.95, method, &[], &[]);
            (found.of, found.refused, found.bridges, found.forbidden)
        };
        assert_eq!(found(Method::Connected), (vec![0, 0, 0, 0, 0, 0, 6], 0, 1, 0));
        assert_eq!(found(Method::Guarded), (vec![0, 0, 0, 3, 3, 3, 6], 1, 0, 0));
    }

    #[test]
    fn what_is_refused_is_of_two_groups_in_the_end() {
        // 0 and 2 are not joined by their own pair, but by 3, which is like both of them.
        let mut edges = vec![edge(0, 1, 20.0), edge(0, 2, 12.0)];
        edges.extend([edge(0, 3, 9.0), edge(1, 3, 9.0), edge(2, 3, 9.0)]);
        let found = grouped(4, &edges, 0.95, Method::Guarded, &[], &[]);
        assert_eq!((found.of, found.refused), (vec![0, 0, 0, 0], 0));
        // Who stays apart by a decision is no bridge.
        let apart = [Decision { left: 2, right: 3, is_match: false }];
        let found = grouped(4, &edges, 0.95, Method::Guarded, &[], &apart);
        assert_eq!((found.of, found.refused, found.forbidden), (vec![0, 0, 2, 0], 0, 2));
        let found = grouped(4, &edges, 0.95, Method::Connected, &[], &apart);
        assert_eq!((found.of, found.bridges, found.forbidden), (vec![0, 0, 0, 3], 1, 3));
    }

    #[test]
    fn the_order_of_pairs_is_of_no_matter() {
        let mut edges = vec![edge(0, 1, 9.0), edge(1, 2, 9.0), edge(2, 3, 9.0), edge(0, 2, 8.0)];
        let forth = grouped(4, &edges, 0.9, Method::Guarded, &[], &[]);
        edges.reverse();
        assert_eq!(grouped(4, &edges, 0.9, Method::Guarded, &[], &[]), forth);
    }

    #[test]
    fn each_record_has_its_best_link_only() {
        let edges = [edge(0, 2, 9.0), edge(1, 2, 12.0), edge(0, 3, 7.0)];
        let found = grouped(4, &edges, 0.9, Method::BestLink, &[0, 0, 1, 1], &[]);
        assert_eq!((found.of, found.refused), (vec![0, 1, 1, 0], 1));
    }

    #[test]
    fn a_decision_about_two_records_joins_their_groups() {
        let edges = [edge(0, 1, 12.0), edge(2, 3, 11.0)];
        let linked = [Decision { left: 0, right: 2, is_match: true }];
        let found = grouped(4, &edges, 0.95, Method::Guarded, &[], &linked);
        assert_eq!((found.of, found.by_pairs), (vec![0; 4], vec![0, 0, 2, 2]));
        let apart = Decision { left: 1, right: 3, is_match: false };
        let found = grouped(4, &edges, 0.95, Method::Guarded, &[], &[linked[0], apart]);
        assert_eq!((found.of, found.forbidden), (vec![0, 0, 0, 3], 1));
    }

    #[test]
    fn decisions_come_before_all() {
        let edges = [edge(0, 1, 20.0)];
        let decision = |left, right, is_match| Decision { left, right, is_match };
        let decisions = [
            decision(1, 0, false),
            decision(2, 3, true),
            decision(3, 4, true),
            decision(2, 4, false),
        ];
        let found = grouped(5, &edges, 0.9, Method::Guarded, &[], &decisions);
        assert_eq!((found.of, found.forbidden, found.overruled), (vec![0, 1, 2, 2, 2], 1, 1));
        assert_eq!((found.refused, found.bridges), (0, 0));
    }

    /// The surest pairs are those of the last records, so that each group is joined by a record
    /// before it; and nobody waits for what takes long.
    #[test]
    fn a_long_chain_is_one_group_but_for_who_is_kept_apart() {
        const LENGTH: u32 = 3_000;
        let edges = (1..LENGTH).map(|at| edge(at - 1, at, 20.0 + at as f32));
        let scratch = limited(usize::MAX, usize::MAX);
        let spill = Spill::new(Arc::clone(&scratch) as Arc<dyn Scratch>);
        let pairs = placed(&spill, edges).unwrap();
        let apart = [Decision { left: 0, right: LENGTH - 1, is_match: false }];
        let found =
            || cluster(LENGTH as usize, &pairs, 0.9, Method::Connected, &[], &apart).map(|f| f.of);
        let of = found().unwrap();
        assert_eq!((of[0], of[LENGTH as usize - 1]), (0, 1));
        assert!(of[1..].iter().all(|root| *root == 1));
        scratch.is_cancelled.store(true, Ordering::Relaxed);
        assert_eq!(found(), Err(ModelError::Cancelled));
    }

    /// The smallest record that each can be reached from.
    fn reached(records: u32, edges: &[Edge], least: f32) -> Vec<u32> {
        let mut of: Vec<u32> = (0..records).collect();
        for _ in 0..records {
            for edge in edges.iter().filter(|edge| edge.weight >= least) {
                let (left, right) = (edge.left as usize, edge.right as usize);
                let smallest = of[left].min(of[right]);
                (of[left], of[right]) = (smallest, smallest);
            }
        }
        of
    }

    const RECORDS: u32 = 16;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// [`grouped`] compares what is in memory with pieces of a few pairs on disk.
        #[test]
        fn clusters_are_the_same_wherever_pairs_are(
            pairs in prop::collection::hash_map((0..RECORDS, 0..RECORDS), -4_i8..12, 0..90),
            said in prop::collection::vec((0..RECORDS, 0..RECORDS, any::<bool>()), 0..6),
            sides in prop::collection::vec(0_u32..3, RECORDS as usize),
        ) {
            let edges: Vec<Edge> = pairs
                .into_iter()
                .filter(|((left, right), _)| left < right)
                .map(|((left, right), weight)| edge(left, right, f32::from(weight)))
                .collect();
            let decisions: Vec<Decision> = said
                .into_iter()
                .filter(|(left, right, _)| left != right)
                .map(|(left, right, is_match)| Decision { left, right, is_match })
                .collect();
            for method in [Method::Connected, Method::Guarded, Method::BestLink] {
                for decisions in [&decisions[..], &[]] {
                    let of = grouped(RECORDS as usize, &edges, 0.9, method, &sides, decisions).of;
                    if method == Method::Connected && decisions.is_empty() {
                        prop_assert_eq!(&of, &reached(RECORDS, &edges, 4.0));
                    }
                    // What others make one is not kept apart.
                    let made = decisions.iter().filter(|decision| decision.is_match);
                    let made: Vec<Edge> =
                        made.map(|decision| edge(decision.left, decision.right, 9.0)).collect();
                    let made = reached(RECORDS, &made, 4.0);
                    for decision in decisions {
                        let (left, right) = (decision.left as usize, decision.right as usize);
                        let may_be_one = decision.is_match || made[left] == made[right];
                        let is_one = of[left] == of[right];
                        prop_assert!(!is_one || may_be_one);
                        prop_assert!(is_one || !decision.is_match);
                    }
                }
            }
        }
    }
}
