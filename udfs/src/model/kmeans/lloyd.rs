//! Lloyd's iterations over packed points.

use std::ops::Range;

use rayon::prelude::*;

use super::super::als::Progress;
use super::super::error::ModelError;
use super::points::Points;
use super::{Distance, KMeansOptions, distance, inverse_length};

/// No label yet.
const NONE: u32 = u32::MAX;

/// Lloyd's iterations.
pub(super) struct Lloyd<'a> {
    points: &'a Points<'a>,
    options: &'a KMeansOptions,
    pub(super) centroids: Vec<f64>,
    labels: Vec<u32>,
    /// Sum of each cluster's points.
    sums: Vec<f64>,
    pub(super) counts: Vec<u64>,
    /// Σ |x|².
    squares: f64,
    pub(super) losses: Vec<f64>,
}

impl<'a> Lloyd<'a> {
    pub(super) fn new(points: &'a Points<'a>, start: Vec<f32>, options: &'a KMeansOptions) -> Self {
        let mut squares = 0.0;
        let square = |range: Range<usize>| -> f64 {
            let values = points.read(range).flat_map(|index| points.row(index));
            values.map(|x| f64::from(x).powi(2)).sum()
        };
        points.summed(square, |part| squares += part);
        if options.distance == Distance::Cosine {
            squares = points.count as f64;
        }
        Self {
            points,
            options,
            centroids: start.into_iter().map(f64::from).collect(),
            labels: vec![NONE; points.count],
            sums: vec![0.0; options.num_clusters * points.depth],
            counts: vec![0; options.num_clusters],
            squares,
            losses: vec![],
        }
    }

    pub(super) fn run(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<(), ModelError> {
        let total = self.options.max_iterations;
        self.assign()?;
        let mut last = self.inertia();
        for iteration in 1..=total {
            self.reseed();
            self.move_centroids();
            let changed = self.assign()?;
            let loss = self.inertia();
            self.losses.push(loss);
            progress(Progress {
                iteration,
                done: iteration,
                total,
                loss: Some(loss),
                metric: None,
            });
            let small = last - loss < self.options.min_rel_progress * last.abs();
            // An empty cluster restarts first.
            if changed == 0 || small && !self.counts.contains(&0) {
                break;
            }
            last = loss;
        }
        Ok(())
    }

    fn narrow(&self) -> Vec<f32> {
        self.centroids.iter().map(|&x| x as f32).collect()
    }

    /// Finds each point's nearest centroid; returns how many points changed sides.
    fn assign(&mut self) -> Result<u64, ModelError> {
        let points = self.points;
        let by_direction = self.options.distance == Distance::Cosine;
        let labels = points.nearest(&self.narrow(), by_direction);
        points.check()?;
        let depth = points.depth;
        let mut changed = 0;
        let (old, cells, clusters) = (&self.labels, self.sums.len(), self.counts.len());
        let (sums, counts) = (&mut self.sums, &mut self.counts);
        let work = |range: Range<usize>| {
            let mut moved = Moved { sums: vec![], counts: vec![], changed: 0 };
            for index in points.read(range) {
                let (from, to) = (old[index], labels[index]);
                if from != to {
                    if moved.changed == 0 {
                        moved.sums = vec![0.0; cells];
                        moved.counts = vec![0; clusters];
                    }
                    moved.changed += 1;
                    moved.add(points, index, to, 1.0, depth);
                    if from != NONE {
                        moved.add(points, index, from, -1.0, depth);
                    }
                }
            }
            moved
        };
        points.summed(work, |part: Moved| {
            sums.iter_mut().zip(&part.sums).for_each(|(sum, part)| *sum += part);
            for (count, part) in counts.iter_mut().zip(&part.counts) {
                *count = count.wrapping_add_signed(*part);
            }
            changed += part.changed;
        });
        points.check()?;
        self.labels = labels;
        Ok(changed)
    }

    /// Σ |x − c|², from the sums: Σ|x|² − 2·Σ c·s + Σ n·|c|².
    fn inertia(&self) -> f64 {
        let depth = self.points.depth;
        let rows = self.centroids.chunks_exact(depth).zip(self.sums.chunks_exact(depth));
        let mut inertia = self.squares;
        for ((centroid, sum), &count) in rows.zip(&self.counts) {
            let product: f64 = centroid.iter().zip(sum).map(|(c, s)| c * s).sum();
            inertia += match self.options.distance {
                Distance::Euclidean => {
                    let square: f64 = centroid.iter().map(|c| c * c).sum();
                    count as f64 * square - 2.0 * product
                }
                Distance::Cosine => -product,
            };
        }
        inertia.max(0.0)
    }

    /// Gives each empty cluster the point that is farthest from its centroid, unless the flag is
    /// set.
    fn reseed(&mut self) {
        let empty: Vec<usize> = (0..self.counts.len()).filter(|&k| self.counts[k] == 0).collect();
        if empty.is_empty() {
            return;
        }
        let mut distances = self.points.distances(&self.labels, &self.narrow());
        for cluster in empty {
            let candidates =
                self.points.all().filter(|&index| self.counts[self.labels[index] as usize] > 1);
            let Some(farthest) =
                candidates.max_by(|&a, &b| distances[a].total_cmp(&distances[b]).then(b.cmp(&a)))
            else {
                return;
            };
            if distances[farthest] <= 0.0 {
                return;
            }
            let depth = self.points.depth;
            let from = self.labels[farthest] as usize;
            for (offset, x) in self.points.row(farthest).enumerate() {
                self.sums[from * depth + offset] -= f64::from(x);
                self.sums[cluster * depth + offset] += f64::from(x);
            }
            self.counts[from] -= 1;
            self.counts[cluster] += 1;
            self.labels[farthest] = cluster as u32;
            distances[farthest] = 0.0;
        }
    }

    /// Moves centroids to the mean, or the mean direction, of their points.
    fn move_centroids(&mut self) {
        let depth = self.points.depth;
        let rows = self.centroids.chunks_exact_mut(depth).zip(self.sums.chunks_exact(depth));
        for ((centroid, sum), &count) in rows.zip(&self.counts) {
            let factor = match self.options.distance {
                Distance::Euclidean if count > 0 => 1.0 / count as f64,
                Distance::Euclidean => 0.0,
                Distance::Cosine => inverse_length(sum.iter().copied()),
            };
            if factor > 0.0 {
                for (c, s) in centroid.iter_mut().zip(sum) {
                    *c = s * factor;
                }
            }
        }
    }

    /// Mean over clusters of max over others of (Sᵢ + Sⱼ) / dᵢⱼ, with S the mean distance of a
    /// cluster's points to its centroid and d the distance of centroids.
    ///
    /// # Errors
    /// [`ModelError::Cancelled`] once the flag is set.
    pub(super) fn davies_bouldin(&self) -> Result<f64, ModelError> {
        let points = self.points;
        let kind = self.options.distance;
        let squares = points.distances(&self.labels, &self.narrow());
        let mut spread = vec![0.0_f64; self.counts.len()];
        for index in points.all() {
            let far = distance(kind, points, index, squares[index]);
            spread[self.labels[index] as usize] += far;
        }
        let used: Vec<usize> = (0..self.counts.len()).filter(|&k| self.counts[k] > 0).collect();
        let depth = points.depth;
        let worst = |&i: &usize| -> f64 {
            if points.is_cancelled() {
                return 0.0;
            }
            let ratio = |&j: &usize| {
                let row = |k: usize| &self.centroids[k * depth..(k + 1) * depth];
                let square: f64 = row(i).iter().zip(row(j)).map(|(a, b)| (a - b).powi(2)).sum();
                let apart = match kind {
                    Distance::Euclidean => square.sqrt(),
                    Distance::Cosine => 0.5 * square,
                };
                let mean = |k: usize| spread[k] / self.counts[k] as f64;
                if apart > 0.0 { (mean(i) + mean(j)) / apart } else { 0.0 }
            };
            used.iter().filter(|&&j| j != i).map(ratio).fold(0.0, f64::max)
        };
        if used.len() < 2 {
            return Ok(f64::NAN);
        }
        let worst: Vec<f64> = used.par_iter().map(worst).collect();
        points.check()?;
        Ok(worst.iter().sum::<f64>() / used.len() as f64)
    }
}

/// What points that changed sides add to clusters; empty without any.
struct Moved {
    sums: Vec<f64>,
    counts: Vec<i64>,
    changed: u64,
}

impl Moved {
    fn add(&mut self, points: &Points<'_>, index: usize, cluster: u32, sign: f64, depth: usize) {
        let sums = &mut self.sums[cluster as usize * depth..][..depth];
        for (sum, x) in sums.iter_mut().zip(points.row(index)) {
            *sum += sign * f64::from(x);
        }
        self.counts[cluster as usize] += sign as i64;
    }
}
