//! Where the first centroids stand.
//!
//! * `random`: distinct points, each as likely as any other.
//! * `k-means++` (Arthur and Vassilvitskii 2007), greedy: each centroid is the best of 2 + ln k
//!   points drawn in proportion to their squared distance from the centroids so far.
//! * `k-means‖` (Bahmani et al. 2012): in each of a few rounds every point is drawn on its own
//!   with probability ℓ·d²/Σd²; what was drawn, weighted by the points it is nearest to, is then
//!   reduced by k-means++. It reads the points a few times instead of k times.
//!
//! A point's draw depends on the seed, the round and its index alone.

use super::super::error::ModelError;
use super::points::Points;
use super::{Init, KMeansOptions};
use crate::model::random::mix;

/// The first centroids: `num_clusters` rows.
pub(super) fn centroids(
    points: &Points<'_>,
    options: &KMeansOptions,
) -> Result<Vec<f32>, ModelError> {
    let mut draws = Draws { state: mix(options.seed) };
    match options.init {
        Init::Random => random(points, options),
        Init::PlusPlus => plus_plus(points, None, options.num_clusters, &mut draws),
        Init::Parallel => parallel(points, options, &mut draws),
    }
}

/// A stream of uniform numbers.
struct Draws {
    state: u64,
}

impl Draws {
    fn next(&mut self) -> u64 {
        self.state = mix(self.state);
        self.state
    }
}

/// A number in [0, 1).
fn uniform(draw: u64) -> f64 {
    (draw >> 11) as f64 / (1_u64 << 53) as f64
}

fn random(points: &Points<'_>, options: &KMeansOptions) -> Result<Vec<f32>, ModelError> {
    let k = options.num_clusters;
    let mut keyed: Vec<(u64, usize)> =
        points.all().map(|index| (mix(mix(options.seed) ^ index as u64), index)).collect();
    points.check()?;
    if k < keyed.len() {
        keyed.select_nth_unstable(k);
        keyed.truncate(k);
    }
    keyed.sort_unstable();
    Ok(keyed.iter().flat_map(|&(_, index)| points.row(index)).collect())
}

fn plus_plus(
    points: &Points<'_>,
    weights: Option<&[f32]>,
    k: usize,
    draws: &mut Draws,
) -> Result<Vec<f32>, ModelError> {
    let trials = 2 + (k as f64).ln() as usize;
    let mut closest = vec![f32::INFINITY; points.count];
    let weight = |index: usize| weights.map_or(1.0, |weights| f64::from(weights[index]));
    let mut centroids: Vec<f32> = Vec::with_capacity(k * points.depth);
    let first = drawn(points, 1, draws, weight)[0];
    centroids.extend(points.row(first));
    points.come_closer(&centroids, &mut closest);
    while centroids.len() < k * points.depth {
        points.check()?;
        let mass = |index: usize| f64::from(closest[index]) * weight(index);
        let trials = drawn(points, trials, draws, mass);
        let rows: Vec<f32> = trials.iter().flat_map(|&index| points.row(index)).collect();
        let potentials = points.potentials(&rows, &closest, weights);
        let best = potentials.iter().zip(0..).min_by(|a, b| a.0.total_cmp(b.0));
        let best = best.map_or(0, |(_, trial)| trial) * points.depth;
        let chosen = &rows[best..best + points.depth];
        points.come_closer(chosen, &mut closest);
        centroids.extend_from_slice(chosen);
    }
    points.check()?;
    Ok(centroids)
}

/// Indices drawn in proportion to their mass; uniformly where all mass is 0.
fn drawn(
    points: &Points<'_>,
    draws: usize,
    stream: &mut Draws,
    mass: impl Fn(usize) -> f64,
) -> Vec<usize> {
    let count = points.count;
    let total: f64 = points.all().map(&mass).sum();
    let uniforms: Vec<f64> = (0..draws).map(|_| uniform(stream.next())).collect();
    if !(total > 0.0 && total.is_finite()) {
        return uniforms.iter().map(|u| (u * count as f64) as usize).collect();
    }
    let mut order: Vec<usize> = (0..draws).collect();
    order.sort_by(|&a, &b| uniforms[a].total_cmp(&uniforms[b]));
    let mut found = vec![count - 1; draws];
    let mut pending = order.into_iter().peekable();
    let mut sum = 0.0;
    for index in points.all() {
        sum += mass(index);
        while let Some(draw) = pending.next_if(|&draw| uniforms[draw] * total < sum) {
            found[draw] = index;
        }
        if pending.peek().is_none() {
            break;
        }
    }
    found
}

fn parallel(
    points: &Points<'_>,
    options: &KMeansOptions,
    draws: &mut Draws,
) -> Result<Vec<f32>, ModelError> {
    let (k, depth) = (options.num_clusters, points.depth);
    let wanted = options.oversampling * k as f64;
    let mut candidates: Vec<f32> =
        points.row((uniform(draws.next()) * points.count as f64) as usize).collect();
    let mut owners = vec![0_u32; points.count];
    let mut closest = points.distances(&owners, &candidates);
    for round in 0..options.init_rounds {
        let cost: f64 = points.all().map(|index| f64::from(closest[index])).sum();
        points.check()?;
        if cost <= 0.0 {
            break;
        }
        let key = mix(mix(options.seed) ^ (round as u64 + 1));
        let is_drawn = |index: usize| {
            uniform(mix(key ^ index as u64)) < wanted * f64::from(closest[index]) / cost
        };
        let fresh: Vec<f32> = points
            .all()
            .filter(|&index| is_drawn(index))
            .flat_map(|index| points.row(index))
            .collect();
        if fresh.is_empty() {
            continue;
        }
        let base = (candidates.len() / depth) as u32;
        let labels = points.nearest(&fresh, false);
        let distances = points.distances(&labels, &fresh);
        for index in points.all() {
            if distances[index] < closest[index] {
                (owners[index], closest[index]) = (base + labels[index], distances[index]);
            }
        }
        candidates.extend(fresh);
    }
    let count = candidates.len() / depth;
    if count < k {
        // Too few distinct points were drawn: small data, which k-means++ reads as fast.
        return plus_plus(points, None, k, draws);
    }
    let mut weights = vec![0.0_f32; count];
    for index in points.all() {
        weights[owners[index] as usize] += 1.0;
    }
    let row = |index: usize, row: &mut [f32]| {
        row.copy_from_slice(&candidates[index * depth..(index + 1) * depth]);
    };
    let candidates = Points::new(count, depth, points.cancel, row);
    plus_plus(&candidates, Some(&weights), k, draws)
}
