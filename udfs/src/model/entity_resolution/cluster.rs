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

use std::collections::{HashMap, HashSet};

use super::compare::Comparer;
use super::score::{Edge, Scorer, weight};

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

/// Groups `records` by their pairs with at least `threshold` probability.
pub fn cluster(
    records: usize,
    edges: &[Edge],
    threshold: f64,
    method: Method,
    sides: &[u32],
    decisions: &[Decision],
) -> Clusters {
    let mut groups = Groups::new(records);
    for decision in decisions.iter().filter(|decision| decision.is_match) {
        groups.join(decision.left, decision.right);
    }
    let is_overruled = |decision: &&Decision| {
        !decision.is_match && groups.root_of(decision.left) == groups.root_of(decision.right)
    };
    let overruled = decisions.iter().filter(is_overruled).count();
    let order = |a: u32, b: u32| (a.min(b), a.max(b));
    let never: HashSet<(u32, u32)> = decisions
        .iter()
        .filter(|decision| !decision.is_match)
        .map(|decision| order(decision.left, decision.right))
        .collect();
    let known: HashMap<(u32, u32), f32> = match method {
        Method::Guarded | Method::Connected => {
            edges.iter().map(|edge| ((edge.left, edge.right), edge.weight)).collect()
        }
        Method::BestLink => HashMap::new(),
    };
    let least = weight(threshold);
    let mut sorted: Vec<&Edge> =
        edges.iter().filter(|edge| f64::from(edge.weight) >= least).collect();
    sorted.sort_unstable_by(|a, b| {
        b.weight.total_cmp(&a.weight).then((a.left, a.right).cmp(&(b.left, b.right)))
    });
    // The records that are not joined, and whether it is by a decision.
    let mut apart: Vec<(u32, u32, bool)> = Vec::new();
    let mut bridges = 0;
    let mut by_pairs = Groups::new(records);
    for edge in sorted {
        let (a, b) = (by_pairs.root(edge.left), by_pairs.root(edge.right));
        if a == b {
            continue;
        }
        let (whole_a, whole_b) = (groups.root(edge.left), groups.root(edge.right));
        // What is one by a decision is not asked again.
        if whole_a != whole_b {
            let (left, right) = (groups.members(whole_a), groups.members(whole_b));
            let mut cross = left.iter().flat_map(|&x| right.iter().map(move |&y| order(x, y)));
            if !never.is_empty() && cross.clone().any(|pair| never.contains(&pair)) {
                apart.push((edge.left, edge.right, true));
                continue;
            }
            let is_bridge = |most: usize| {
                let (left, right) = (by_pairs.members(a), by_pairs.members(b));
                left.len() + right.len() > 2 && !is_close(left, right, &known, most)
            };
            let is_refused = match method {
                Method::Connected => {
                    bridges += usize::from(is_bridge(TOLD_MAX));
                    false
                }
                Method::Guarded => is_bridge(CROSS_MAX),
                Method::BestLink => {
                    cross.any(|(x, y)| sides.get(x as usize) == sides.get(y as usize))
                }
            };
            if is_refused {
                apart.push((edge.left, edge.right, false));
                continue;
            }
        }
        by_pairs.join(a, b);
        groups.join(whole_a, whole_b);
    }
    // What one pair did not join another may have.
    apart.retain(|&(left, right, _)| groups.root_of(left) != groups.root_of(right));
    let forbidden = apart.iter().filter(|(.., is_decided)| *is_decided).count();
    Clusters {
        of: groups.roots(),
        by_pairs: by_pairs.roots(),
        refused: apart.len() - forbidden,
        forbidden,
        bridges,
        overruled,
    }
}

/// Whether the mean probability between two groups, of so many of their pairs at most, is at least
/// one half.
fn is_close(left: &[u32], right: &[u32], known: &HashMap<(u32, u32), f32>, most: usize) -> bool {
    let all = left.len() * right.len();
    let step = all.div_ceil(most);
    let looked = (0..all).step_by(step);
    let count = looked.len();
    let sum: f64 = looked
        .map(|at| {
            let (x, y) = (left[at / right.len()], right[at % right.len()]);
            let weight = known.get(&(x.min(y), x.max(y)));
            weight.map_or(0.0, |&weight| super::score::probability(f64::from(weight)))
        })
        .sum();
    sum >= 0.5 * count as f64
}

/// Adds the pairs inside groups that blocking has missed: those of components at one half with
/// up to 64 records.
pub fn complete(scorer: &Scorer<'_>, edges: &mut Vec<Edge>, least: f64) {
    let records = scorer.records();
    let mut groups = Groups::new(records.len);
    for edge in edges.iter().filter(|edge| edge.weight >= 0.0) {
        groups.join(edge.left, edge.right);
    }
    let known: HashSet<(u32, u32)> = edges.iter().map(|edge| (edge.left, edge.right)).collect();
    let mut comparer = Comparer::new(records);
    for root in 0..records.len as u32 {
        let members = groups.members(root);
        if members.len() < 3 || members.len() > COMPLETED_MAX || groups.root_of(root) != root {
            continue;
        }
        for (at, &left) in members.iter().enumerate() {
            for &right in &members[at + 1..] {
                let pair = (left.min(right), left.max(right));
                if known.contains(&pair) || !records.may_match(left, right) {
                    continue;
                }
                let edge = scorer.edge(&mut comparer, left, right);
                if f64::from(edge.weight) >= least {
                    edges.push(edge);
                }
            }
        }
    }
    edges.sort_unstable_by_key(|edge| (edge.left, edge.right));
}

/// Disjoint sets whose root is their smallest member.
#[derive(Debug)]
struct Groups {
    parents: Vec<u32>,
    /// The members of each root with more than one.
    members: HashMap<u32, Vec<u32>>,
    alone: Vec<u32>,
}

impl Groups {
    fn new(records: usize) -> Self {
        let alone: Vec<u32> = (0..records as u32).collect();
        Self { parents: alone.clone(), members: HashMap::new(), alone }
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

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let (root, other) = (a.min(b), a.max(b));
        self.parents[other as usize] = root;
        let moved = self.members.remove(&other).unwrap_or_else(|| vec![other]);
        self.members.entry(root).or_insert_with(|| vec![root]).extend(moved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(left: u32, right: u32, weight: f32) -> Edge {
        Edge { left, right, weight, levels: 0 }
    }

    #[test]
    fn a_bridge_joins_components_but_not_groups() {
        let mut edges = Vec::new();
        for base in [0, 3] {
            edges.extend([(0, 1), (0, 2), (1, 2)].map(|(a, b)| edge(base + a, base + b, 20.0)));
        }
        edges.push(edge(2, 3, 9.0));
        let found = |method| {
            let found = cluster(7, &edges, 0.95, method, &[], &[]);
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
        let found = cluster(4, &edges, 0.95, Method::Guarded, &[], &[]);
        assert_eq!((found.of, found.refused), (vec![0, 0, 0, 0], 0));
        // Who stays apart by a decision is no bridge.
        let apart = [Decision { left: 2, right: 3, is_match: false }];
        let found = cluster(4, &edges, 0.95, Method::Guarded, &[], &apart);
        assert_eq!((found.of, found.refused, found.forbidden), (vec![0, 0, 2, 0], 1, 1));
        let found = cluster(4, &edges, 0.95, Method::Connected, &[], &apart);
        assert_eq!((found.of, found.bridges, found.forbidden), (vec![0, 0, 0, 3], 1, 3));
    }

    #[test]
    fn the_order_of_pairs_is_of_no_matter() {
        let mut edges = vec![edge(0, 1, 9.0), edge(1, 2, 9.0), edge(2, 3, 9.0), edge(0, 2, 8.0)];
        let forth = cluster(4, &edges, 0.9, Method::Guarded, &[], &[]);
        edges.reverse();
        assert_eq!(cluster(4, &edges, 0.9, Method::Guarded, &[], &[]), forth);
    }

    #[test]
    fn each_record_has_its_best_link_only() {
        let edges = [edge(0, 2, 9.0), edge(1, 2, 12.0), edge(0, 3, 7.0)];
        let found = cluster(4, &edges, 0.9, Method::BestLink, &[0, 0, 1, 1], &[]);
        assert_eq!((found.of, found.refused), (vec![0, 1, 1, 0], 1));
    }

    #[test]
    fn a_decision_about_two_records_joins_their_groups() {
        let edges = [edge(0, 1, 12.0), edge(2, 3, 11.0)];
        let linked = [Decision { left: 0, right: 2, is_match: true }];
        let found = cluster(4, &edges, 0.95, Method::Guarded, &[], &linked);
        assert_eq!((found.of, found.by_pairs), (vec![0; 4], vec![0, 0, 2, 2]));
        let apart = Decision { left: 1, right: 3, is_match: false };
        let found = cluster(4, &edges, 0.95, Method::Guarded, &[], &[linked[0], apart]);
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
        let found = cluster(5, &edges, 0.9, Method::Guarded, &[], &decisions);
        assert_eq!((found.of, found.forbidden, found.overruled), (vec![0, 1, 2, 2, 2], 1, 1));
        assert_eq!((found.refused, found.bridges), (0, 0));
    }
}
