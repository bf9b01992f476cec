//! The weights of a blend, learned on interactions that its members have not seen.
//!
//! For a sample of users the best candidates of each member are scored by all of them. The weights
//! are then those whose lists are worth the most by the judge's metric itself: from the best single
//! member on, one weight at a time, over a grid of its ratio to the others that becomes finer. The
//! same interactions give the same weights whatever the number of threads.

use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::super::error::ModelError;
use super::super::judge::Judge;
use super::super::recommender::{Recommender, Whose};
use super::super::topk::Heap;
use super::block_users;

/// Users whose lists decide.
pub const USERS_MAX: usize = 10_000;

/// Candidates of each member for a user, at least and at most.
const CANDIDATES: std::ops::RangeInclusive<usize> = 60..=300;

/// Candidates of each member for each place of a list.
const CANDIDATES_PER_PLACE: usize = 5;

/// What a weight is to the sum of all others, at first.
const RATIOS: [f64; 15] =
    [0.0, 0.02, 0.05, 0.1, 0.17, 0.25, 0.4, 0.6, 1.0, 1.6, 2.5, 4.0, 6.0, 10.0, 20.0];

/// What a weight is to itself, later.
const STEPS: [f64; 6] = [0.7, 0.85, 0.95, 1.05, 1.18, 1.4];

/// Rounds over all weights at most, of each grid.
const ROUNDS: usize = 8;

/// A metric that is better by less is equal.
const GAIN_MIN: f64 = 1e-9;

/// What a member counts for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weight {
    /// The share of the blend, 0 to 1; those of all members add up to 1.
    pub share: f32,
    /// How far the member's own scores spread: the root of the mean variance of a user's scores
    /// over all items.
    pub scale: f32,
}

impl Weight {
    /// Whether it is a share, and its scale a positive number.
    pub fn is_valid(&self) -> bool {
        (0.0..=1.0).contains(&self.share) && self.scale > 0.0 && self.factor().is_finite()
    }

    /// What the member's own scores are multiplied by.
    pub fn factor(&self) -> f32 {
        self.share / self.scale
    }
}

/// Bytes that learning takes beside the members, of lists of `top_k` of `items`.
pub fn memory_bytes(members: usize, users: usize, items: usize, top_k: usize) -> usize {
    let candidates = members * candidates(top_k).min(items);
    let kept = users.min(USERS_MAX).saturating_mul(candidates).saturating_mul(4 * (members + 3));
    let scored = rayon::current_num_threads() * block_users(items) * (members + 1);
    kept.saturating_add(scored.saturating_mul(items).saturating_mul(4))
}

fn candidates(top_k: usize) -> usize {
    top_k.saturating_mul(CANDIDATES_PER_PLACE).clamp(*CANDIDATES.start(), *CANDIDATES.end())
}

/// The weights whose lists are worth the most to the judge, and what they are worth, of members
/// that have learned from what the judge knows and from nothing else, in its codes.
///
/// # Errors
/// [`ModelError::Flat`] when no member tells items apart; [`ModelError::Cancelled`] soon after the
/// flag was set.
pub fn weights(
    members: &[&dyn Recommender],
    judge: &Judge<'_>,
    cancel: &AtomicBool,
) -> Result<(Vec<Weight>, f64), ModelError> {
    let users = judge.sample();
    let items = members.first().map_or(0, |member| member.item_ids().len());
    let blocks = users.chunks(block_users(items)).collect::<Vec<_>>();
    let gathered: Vec<Gathered> = blocks
        .into_par_iter()
        .map(|users| gather(members, judge, users, cancel))
        .collect::<Result<_, _>>()?;
    let mut variances = vec![0.0; members.len()];
    for block in &gathered {
        for (sum, variance) in variances.iter_mut().zip(&block.variances) {
            *sum += variance;
        }
    }
    let scales: Vec<f64> =
        variances.iter().map(|sum| (sum / users.len().max(1) as f64).sqrt()).collect();
    let lists: Vec<Candidates> = gathered.into_iter().flat_map(|block| block.lists).collect();
    // Who says the same of every item has no say; its scale only has to be a number.
    let counts = |&member: &usize| (1.0 / scales[member] as f32).is_finite();
    let counting: Vec<usize> = (0..members.len()).filter(counts).collect();
    if counting.is_empty() {
        return Err(ModelError::Flat);
    }
    let ascent = Ascent { judge, lists: &lists, scales: &scales, counting: &counting, cancel };
    let (shares, worth) = ascent.run()?;
    let weight = |member: usize| Weight {
        share: shares[member] as f32,
        scale: if counts(&member) { scales[member] as f32 } else { 1.0 },
    };
    Ok(((0..members.len()).map(weight).collect(), worth))
}

/// A user's candidates.
struct Candidates {
    user: u32,
    items: Vec<u32>,
    /// The members' scores, items × members.
    scores: Vec<f32>,
}

/// Of a block of users.
struct Gathered {
    /// The sum over users of each member's variance.
    variances: Vec<f64>,
    lists: Vec<Candidates>,
}

fn gather(
    members: &[&dyn Recommender],
    judge: &Judge<'_>,
    users: &[u32],
    cancel: &AtomicBool,
) -> Result<Gathered, ModelError> {
    if cancel.load(Ordering::Relaxed) {
        return Err(ModelError::Cancelled);
    }
    let all: Vec<u32> = (0..members.first().map_or(0, |m| m.item_ids().len()) as u32).collect();
    let scores: Vec<Vec<f32>> =
        members.iter().map(|member| member.scores(Whose::Users(users), &all)).collect();
    let row = |member: usize, at: usize| &scores[member][at * all.len()..][..all.len()];
    let mut gathered = Gathered { variances: vec![0.0; members.len()], lists: vec![] };
    for (at, &user) in users.iter().enumerate() {
        let mut items = vec![];
        for (member, sum) in gathered.variances.iter_mut().enumerate() {
            let row = row(member, at);
            *sum += variance(row);
            let mut heap = Heap::new(candidates(judge.top_k()).min(all.len()), &[]);
            for (&item, &score) in all.iter().zip(row) {
                if score >= heap.threshold && !judge.is_known(user, item) {
                    heap.offer(score, item);
                }
            }
            items.extend(heap.into_best().codes);
        }
        items.sort_unstable();
        items.dedup();
        let of = |&item: &u32| (0..members.len()).map(move |m| (m, item));
        let scores = items.iter().flat_map(of).map(|(m, item)| row(m, at)[item as usize]).collect();
        gathered.lists.push(Candidates { user, items, scores });
    }
    Ok(gathered)
}

fn variance(row: &[f32]) -> f64 {
    let count = row.len().max(1) as f64;
    let mean = row.iter().map(|&score| f64::from(score)).sum::<f64>() / count;
    row.iter().map(|&score| (f64::from(score) - mean).powi(2)).sum::<f64>() / count
}

/// The search for the shares.
struct Ascent<'a> {
    judge: &'a Judge<'a>,
    lists: &'a [Candidates],
    scales: &'a [f64],
    /// The members that have a say, one at least.
    counting: &'a [usize],
    cancel: &'a AtomicBool,
}

impl Ascent<'_> {
    fn run(&self) -> Result<(Vec<f64>, f64), ModelError> {
        let members = self.scales.len();
        let single = |member: usize| -> Vec<f64> {
            (0..members).map(|other| f64::from(u8::from(other == member))).collect()
        };
        let mut best = (vec![0.0; members], f64::NEG_INFINITY);
        for &member in self.counting {
            self.improve(&mut best, single(member))?;
        }
        // From both ends: a blend may be worth it only where all take part.
        let all = (0..members).map(|member| f64::from(u8::from(self.counting.contains(&member))));
        self.improve(&mut best, all.collect())?;
        for (grid, is_of_others) in [(&RATIOS[..], true), (&STEPS[..], false)] {
            for _ in 0..ROUNDS {
                let before = best.1;
                for &member in self.counting {
                    let now = best.0.clone();
                    let whole = if is_of_others { 1.0 - now[member] } else { now[member] };
                    for &step in grid {
                        let mut shares = now.clone();
                        shares[member] = step * whole;
                        self.improve(&mut best, shares)?;
                    }
                }
                if best.1 - before < GAIN_MIN {
                    break;
                }
            }
        }
        Ok(best)
    }

    fn improve(&self, best: &mut (Vec<f64>, f64), shares: Vec<f64>) -> Result<(), ModelError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(ModelError::Cancelled);
        }
        let sum: f64 = shares.iter().sum();
        if !(sum > 0.0 && sum.is_finite()) {
            return Ok(());
        }
        let shares: Vec<f64> = shares.iter().map(|share| share / sum).collect();
        let worth = self.worth(&shares);
        if worth > best.1 + GAIN_MIN {
            *best = (shares, worth);
        }
        Ok(())
    }

    /// The mean over users of the metric of their lists.
    fn worth(&self, shares: &[f64]) -> f64 {
        let factor = |(&share, &scale): (&f64, &f64)| {
            if scale > 0.0 && share > 0.0 { (share / scale) as f32 } else { 0.0 }
        };
        let factors: Vec<f32> = shares.iter().zip(self.scales).map(factor).collect();
        let of_user = |of: &Candidates| {
            let rows = of.scores.chunks_exact(factors.len().max(1));
            let score = |row: &[f32]| row.iter().zip(&factors).fold(0.0, |sum, (s, f)| sum + s * f);
            let mut list: Vec<(f32, u32)> = rows.map(score).zip(of.items.iter().copied()).collect();
            let better = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
            let k = self.judge.top_k();
            if list.len() > k {
                list.select_nth_unstable_by(k, better);
                list.truncate(k);
            }
            list.sort_unstable_by(better);
            let list: Vec<u32> = list.into_iter().map(|(_, item)| item).collect();
            self.judge.of_list(of.user, &list)
        };
        let values: Vec<Option<f64>> = self.lists.par_iter().map(of_user).collect();
        let values: Vec<f64> = values.into_iter().flatten().collect();
        values.iter().sum::<f64>() / values.len().max(1) as f64
    }
}
