//! Points packed for the search of their nearest centroid.
//!
//! A panel holds as many points as two vectors have lanes, coordinate by coordinate, so that a
//! centroid meets a whole panel in registers and no sum ever runs across lanes. The nearest
//! centroid has the largest x·c − |c|²/2, which one blocked product finds; distances that are
//! reported or drawn from are computed from differences, free of cancellation. Every point is
//! computed on its own and sums run over chunks that depend on the number of points alone, so
//! results do not depend on the number of threads.

use std::ops::Range;
use std::sync::atomic::AtomicBool;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::cancel;
use super::super::error::ModelError;
use super::super::kernel::Aligned;
use super::super::topk::{pack, panel_width, tile};

/// Centroids that meet a panel together.
const GROUP: usize = 6;
/// Groups that meet a panel between two looks at the cancel flag.
const GROUPS_PER_LOOK: usize = 64;
/// Points that are read between two looks at the cancel flag, where that is all.
const POINTS_PER_LOOK: usize = 1024;
/// Points of a task that searches.
const TASK_POINTS: usize = 2048;
/// Chunks that sums are made of, at most.
const CHUNKS: usize = 64;

/// Points of `depth` coordinates. Once the flag is set, whatever is found out about them is
/// unspecified, and soon there: the caller looks at it with [`Points::check`].
pub(super) struct Points<'a> {
    pub(super) count: usize,
    pub(super) depth: usize,
    width: usize,
    data: Aligned,
    pub(super) cancel: &'a AtomicBool,
}

impl<'a> Points<'a> {
    /// Packs `count` points that `fill(index, row)` writes.
    pub(super) fn new(
        count: usize,
        depth: usize,
        cancel: &'a AtomicBool,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let width = panel_width();
        let mut data = Aligned::zeros(count.div_ceil(width) * width * depth);
        data.par_chunks_mut(width * depth).enumerate().for_each(|(panel, data)| {
            if cancel::is_set(cancel) {
                return;
            }
            let mut row = vec![0.0; depth];
            let first = panel * width;
            for lane in 0..width.min(count - first) {
                fill(first + lane, &mut row);
                for (line, &value) in data.chunks_exact_mut(width).zip(&row) {
                    line[lane] = value;
                }
            }
        });
        Self { count, depth, width, data, cancel }
    }

    /// Whether the caller asked to stop.
    #[inline(always)]
    pub(super) fn is_cancelled(&self) -> bool {
        cancel::is_set(self.cancel)
    }

    /// Ends what the caller asked to stop.
    ///
    /// # Errors
    /// [`ModelError::Cancelled`] once the flag is set.
    pub(super) fn check(&self) -> Result<(), ModelError> {
        cancel::check(self.cancel)
    }

    /// A range of points, which ends once the flag is set.
    pub(super) fn read(&self, range: Range<usize>) -> impl Iterator<Item = usize> {
        range
            .take_while(move |index| !index.is_multiple_of(POINTS_PER_LOOK) || !self.is_cancelled())
    }

    /// All points, which end once the flag is set.
    pub(super) fn all(&self) -> impl Iterator<Item = usize> {
        self.read(0..self.count)
    }

    /// Bytes of packed points.
    pub(super) fn bytes(count: usize, depth: usize) -> usize {
        (count + 32) * depth * size_of::<f32>()
    }

    /// Points of a chunk that sums are made of.
    fn chunk_points(&self) -> usize {
        self.count.div_ceil(CHUNKS).next_multiple_of(TASK_POINTS)
    }

    /// The coordinates of a point.
    pub(super) fn row(&self, index: usize) -> impl Iterator<Item = f32> + '_ {
        let (panel, lane) = (index / self.width, index % self.width);
        let data = &self.data[panel * self.width * self.depth..][..self.width * self.depth];
        data.iter().skip(lane).step_by(self.width).copied()
    }

    /// The nearest of `centroids` (rows of `depth`) for each point; ties go to the lower index.
    /// By direction, the largest product alone decides.
    pub(super) fn nearest(&self, centroids: &[f32], by_direction: bool) -> Vec<u32> {
        let half_norm = |row: &[f32]| -> f32 {
            let square: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
            if by_direction { 0.0 } else { (-0.5 * square) as f32 }
        };
        let groups: Vec<(Aligned, [f32; GROUP])> = centroids
            .chunks(GROUP * self.depth)
            .take_while(|_| !self.is_cancelled())
            .map(|rows| {
                let mut bias = [f32::NEG_INFINITY; GROUP];
                for (bias, row) in bias.iter_mut().zip(rows.chunks_exact(self.depth)) {
                    *bias = half_norm(row);
                }
                (pack::<GROUP>(rows, self.depth), bias)
            })
            .collect();
        let mut labels = vec![0_u32; self.count.next_multiple_of(self.width)];
        let tasks = labels.par_chunks_mut(TASK_POINTS);
        tasks.zip(self.data.par_chunks(TASK_POINTS * self.depth)).for_each(|(labels, panels)| {
            Arch::new().dispatch(NearestOp { labels, panels, groups: &groups, points: self });
        });
        labels.truncate(self.count);
        labels
    }

    /// Squared distance of each point to its own centroid.
    pub(super) fn distances(&self, labels: &[u32], centroids: &[f32]) -> Vec<f32> {
        let mut distances = vec![0.0_f32; self.count];
        let tasks = distances.par_chunks_mut(self.width).zip(labels.par_chunks(self.width));
        let panels = self.data.par_chunks(self.width * self.depth);
        tasks.zip(panels).with_min_len(16).for_each(|((distances, labels), panel)| {
            if self.is_cancelled() {
                return;
            }
            for (lane, (distance, &label)) in distances.iter_mut().zip(labels).enumerate() {
                let centroid = &centroids[label as usize * self.depth..][..self.depth];
                let row = panel.iter().skip(lane).step_by(self.width);
                *distance = row.zip(centroid).map(|(x, c)| (x - c) * (x - c)).sum();
            }
        });
        distances
    }

    /// Applies `work` to chunks of points and adds the results up in order.
    pub(super) fn summed<T: Send>(
        &self,
        work: impl Fn(Range<usize>) -> T + Sync,
        mut add: impl FnMut(T),
    ) {
        let size = self.chunk_points().max(1);
        let starts: Vec<usize> = (0..self.count).step_by(size).collect();
        let parts: Vec<T> = starts
            .into_par_iter()
            .with_max_len(1)
            .map(|start| work(start..self.count.min(start + size)))
            .collect();
        parts.into_iter().for_each(&mut add);
    }

    /// What the sum of weight · min(closest, distance to the candidate) would be for each
    /// candidate (rows of `depth`); all weigh 1 without `weights`.
    pub(super) fn potentials(
        &self,
        candidates: &[f32],
        closest: &[f32],
        weights: Option<&[f32]>,
    ) -> Vec<f64> {
        let count = candidates.len() / self.depth;
        let mut total = vec![0.0_f64; count];
        let work = |range: Range<usize>| {
            let op = PotentialOp { points: self, range, candidates, closest, weights };
            Arch::new().dispatch(op)
        };
        self.summed(work, |part: Vec<f64>| {
            total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
        });
        total
    }

    /// `closest = min(closest, distance to the candidate)`.
    pub(super) fn come_closer(&self, candidate: &[f32], closest: &mut [f32]) {
        let panels = self.data.par_chunks(self.width * self.depth);
        closest.par_chunks_mut(self.width).zip(panels).with_min_len(64).for_each(
            |(closest, panel)| {
                if !self.is_cancelled() {
                    Arch::new().dispatch(CloserOp { panel, candidate, closest });
                }
            },
        );
    }
}

struct NearestOp<'a> {
    labels: &'a mut [u32],
    panels: &'a [f32],
    groups: &'a [(Aligned, [f32; GROUP])],
    points: &'a Points<'a>,
}

impl WithSimd for NearestOp<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Points { depth, width, .. } = *self.points;
        let panels = self.panels.chunks_exact(depth * width);
        for (labels, panel) in self.labels.chunks_exact_mut(width).zip(panels) {
            let panel = S::as_simd_f32s(panel).0;
            let mut best = [simd.splat_f32s(f32::NEG_INFINITY); 2];
            let mut label = [simd.splat_u32s(0); 2];
            let mut index = 0_u32;
            for groups in self.groups.chunks(GROUPS_PER_LOOK) {
                if self.points.is_cancelled() {
                    return;
                }
                for (group, bias) in groups {
                    let sums = tile::<S, GROUP>(simd, group, panel);
                    for (sums, &bias) in sums.iter().zip(bias) {
                        let bias = simd.splat_f32s(bias);
                        let this = simd.splat_u32s(index);
                        for half in 0..2 {
                            let score = simd.add_f32s(sums[half], bias);
                            let better = simd.greater_than_f32s(score, best[half]);
                            best[half] = simd.select_f32s(better, score, best[half]);
                            label[half] = simd.select_u32s(better, this, label[half]);
                        }
                        index += 1;
                    }
                }
            }
            labels.copy_from_slice(pulp::bytemuck::cast_slice(&label));
        }
    }
}

/// Squared distances of a panel's points to one candidate.
#[inline(always)]
fn squares<S: Simd>(simd: S, panel: &[S::f32s], candidate: &[f32]) -> [S::f32s; 2] {
    let mut sums = [simd.splat_f32s(0.0); 2];
    for (x, &c) in panel.as_chunks::<2>().0.iter().zip(candidate) {
        let c = simd.splat_f32s(c);
        for half in 0..2 {
            let difference = simd.sub_f32s(x[half], c);
            sums[half] = simd.mul_add_e_f32s(difference, difference, sums[half]);
        }
    }
    sums
}

struct CloserOp<'a> {
    panel: &'a [f32],
    candidate: &'a [f32],
    closest: &'a mut [f32],
}

impl WithSimd for CloserOp<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let squares = squares::<S>(simd, S::as_simd_f32s(self.panel).0, self.candidate);
        let squares: &[f32] = pulp::bytemuck::cast_slice(&squares);
        for (closest, &square) in self.closest.iter_mut().zip(squares) {
            *closest = closest.min(square);
        }
    }
}

struct PotentialOp<'a> {
    points: &'a Points<'a>,
    range: Range<usize>,
    candidates: &'a [f32],
    closest: &'a [f32],
    weights: Option<&'a [f32]>,
}

impl WithSimd for PotentialOp<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f64> {
        let Points { depth, width, .. } = *self.points;
        let mut sums = vec![0.0_f64; self.candidates.len() / depth];
        let data = &self.points.data[self.range.start * depth..];
        let closest = self.closest[self.range.clone()].chunks(width);
        for (index, (panel, closest)) in data.chunks_exact(width * depth).zip(closest).enumerate() {
            if self.points.is_cancelled() {
                break;
            }
            let panel = S::as_simd_f32s(panel).0;
            let first = self.range.start + index * width;
            for (sum, candidate) in sums.iter_mut().zip(self.candidates.chunks_exact(depth)) {
                let squares = squares::<S>(simd, panel, candidate);
                let squares: &[f32] = pulp::bytemuck::cast_slice(&squares);
                let least = closest.iter().zip(squares).map(|(&a, &b)| f64::from(a.min(b)));
                *sum += match self.weights {
                    None => least.sum::<f64>(),
                    Some(weights) => {
                        let weights = weights[first..].iter().map(|&weight| f64::from(weight));
                        least.zip(weights).map(|(least, weight)| least * weight).sum()
                    }
                };
            }
        }
        sums
    }
}
