//! The k rows of a matrix with the largest products with a query, exactly.
//!
//! Rows are packed into panels as wide as two vectors, sorted by descending length. Blocks of
//! queries meet one panel at a time in registers (6 queries × 2 vectors); scores never reach
//! memory: they are compared with the query's k-th best so far, and only candidates are looked
//! at. A query stops at the panel whose longest row cannot reach its threshold any more
//! (Cauchy-Schwarz). One query alone passes over many rows in bytes first ([`super::screen`]) and
//! reads only panels that may hold one of its best. Ties go to the lower code. Each product is
//! summed in order of coordinates whatever the path, so one query scores as it does in a batch.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::kernel::Aligned;
use super::screen::{Screen, ScreenQuery};

/// Queries that share a tile.
const TILE_QUERIES: usize = 6;
/// Queries that share a pass over the panels; their vectors stay in the first-level cache.
const BLOCK_QUERIES: usize = 16 * TILE_QUERIES;
/// Marks padding.
const NO_CODE: u32 = u32::MAX;

/// Rows packed for top-k search.
#[derive(Debug)]
pub struct Panels {
    depth: usize,
    width: usize,
    data: Aligned,
    /// Code of each packed row.
    codes: Vec<u32>,
    /// Length of the longest row from each panel on.
    bounds: Vec<f32>,
    /// Where there are so many rows that it pays.
    screen: Option<Screen>,
}

/// The best rows of one query: codes and scores, best first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Best {
    /// Codes of the rows.
    pub codes: Vec<u32>,
    /// Their scores, not ascending.
    pub scores: Vec<f32>,
}

impl Panels {
    /// Packs `rows` of `depth` finite values each, on the current rayon pool.
    pub fn new(rows: &[f32], depth: usize) -> Self {
        Self::build(rows, depth, Screen::pays(rows.len() / depth.max(1), depth))
    }

    fn build(rows: &[f32], depth: usize, with_screen: bool) -> Self {
        let depth = depth.max(1);
        let width = panel_width();
        let norm = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let numbered = rows.par_chunks_exact(depth).enumerate();
        let mut order: Vec<(f64, u32)> =
            numbered.map(|(code, row)| (norm(row), code as u32)).collect();
        order.par_sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let panels = order.len().div_ceil(width);
        let mut data = Aligned::zeros(panels * width * depth);
        let mut codes = vec![NO_CODE; panels * width];
        codes.iter_mut().zip(&order).for_each(|(to, &(_, code))| *to = code);
        let packed = data.par_chunks_exact_mut(width * depth).zip(order.par_chunks(width));
        packed.for_each(|(panel, members)| {
            for (lane, &(_, code)) in members.iter().enumerate() {
                let row = &rows[code as usize * depth..(code as usize + 1) * depth];
                for (line, &value) in panel.chunks_exact_mut(width).zip(row) {
                    line[lane] = value;
                }
            }
        });
        let bounds = order.iter().step_by(width).map(|&(norm, _)| norm as f32).collect();
        let screen = with_screen.then(|| Screen::new(&data, depth, width));
        Self { depth, width, data, codes, bounds, screen }
    }

    /// Values of a row or query.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Bytes on the heap.
    pub fn memory_bytes(&self) -> usize {
        (self.data.len() + self.codes.len() + self.bounds.len()) * size_of::<f32>()
            + self.screen.as_ref().map_or(0, |_| Screen::bytes(self.rows(), self.depth, self.width))
    }

    /// Bytes on the heap that so many rows of `depth` values will take.
    pub fn bytes(rows: usize, depth: usize) -> usize {
        let (depth, width) = (depth.max(1), panel_width());
        let screen = if Screen::pays(rows, depth) { Screen::bytes(rows, depth, width) } else { 0 };
        rows.div_ceil(width) * (width * (depth + 1) + 1) * size_of::<f32>() + screen
    }

    fn rows(&self) -> usize {
        self.codes.iter().filter(|&&code| code != NO_CODE).count()
    }

    /// The best `k` rows of each query (`depth` values each) among those that
    /// `skip(query, code)` does not refuse. Several queries run on the current rayon pool; one
    /// runs right here.
    pub fn best(
        &self,
        queries: &[f32],
        k: usize,
        skip: &(dyn Fn(usize, u32) -> bool + Sync),
    ) -> Vec<Best> {
        let count = queries.len() / self.depth;
        let k = k.min(self.rows());
        if k == 0 {
            return vec![Best::default(); count];
        }
        if count <= TILE_QUERIES {
            return self.block(queries, 0, k, skip);
        }
        let blocks: Vec<Vec<Best>> = queries
            .par_chunks(BLOCK_QUERIES * self.depth)
            .enumerate()
            .map(|(block, queries)| self.block(queries, block * BLOCK_QUERIES, k, skip))
            .collect();
        blocks.into_iter().flatten().collect()
    }

    /// Every score, queries × rows in order of codes, as [`Panels::best`] computes them.
    pub fn scores(&self, queries: &[f32]) -> Vec<f32> {
        Arch::new().dispatch(AllScores { panels: self, queries })
    }

    fn block(
        &self,
        queries: &[f32],
        first: usize,
        k: usize,
        skip: &(dyn Fn(usize, u32) -> bool + Sync),
    ) -> Vec<Best> {
        let op = BlockOp { panels: self, queries, first, k, skip };
        Arch::new().dispatch(op).into_iter().map(Heap::into_best).collect()
    }
}

struct AllScores<'a> {
    panels: &'a Panels,
    queries: &'a [f32],
}

impl WithSimd for AllScores<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let Panels { depth, width, data, codes, .. } = self.panels;
        let rows = self.panels.rows();
        let mut scores = vec![0.0; self.queries.len() / depth * rows];
        let groups = self.queries.chunks(TILE_QUERIES * depth);
        for (queries, scores) in groups.zip(scores.chunks_mut((TILE_QUERIES * rows).max(1))) {
            let packed = pack::<TILE_QUERIES>(queries, *depth);
            for (panel, codes) in data.chunks_exact(depth * width).zip(codes.chunks(*width)) {
                let sums = tile::<S, TILE_QUERIES>(simd, &packed, S::as_simd_f32s(panel).0);
                for (sums, scores) in sums.iter().zip(scores.chunks_exact_mut(rows)) {
                    let sums: &[f32] = pulp::bytemuck::cast_slice(sums);
                    for (&sum, &code) in sums.iter().zip(codes) {
                        if let Some(score) = scores.get_mut(code as usize) {
                            *score = sum;
                        }
                    }
                }
            }
        }
        scores
    }
}

/// A sum of products in order of coordinates, as the tiles compute it.
pub fn ordered_product(a: &[f32], b: &[f32]) -> f32 {
    Arch::new().dispatch(OrderedProduct { a, b })
}

struct OrderedProduct<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl WithSimd for OrderedProduct<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let mut sum = simd.splat_f32s(0.0);
        for (&a, &b) in self.a.iter().zip(self.b) {
            sum = simd.mul_add_e_f32s(simd.splat_f32s(a), simd.splat_f32s(b), sum);
        }
        simd.reduce_max_f32s(sum)
    }
}

/// Rows of one panel on this processor.
pub(super) fn panel_width() -> usize {
    Arch::new().dispatch(PanelWidth)
}

struct PanelWidth;

impl WithSimd for PanelWidth {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        2 * S::F32_LANES
    }
}

/// The k best of one query; the worst is at the root once `k` are held.
pub(super) struct Heap {
    entries: Vec<(f32, u32)>,
    k: usize,
    /// Scores below this cannot enter.
    pub(super) threshold: f32,
    /// Length of the query, with room for rounding.
    norm: f32,
}

impl Heap {
    /// An empty heap; the query's length bounds the panels that can matter to it.
    pub(super) fn new(k: usize, query: &[f32]) -> Self {
        let norm = query.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let norm = (norm * (1.0 + 1e-4)) as f32;
        Self { entries: Vec::with_capacity(k), k, threshold: f32::NEG_INFINITY, norm }
    }

    /// Whether entry `a` ranks below entry `b`.
    #[inline]
    fn is_worse(a: (f32, u32), b: (f32, u32)) -> bool {
        a.0 < b.0 || (a.0 == b.0 && a.1 > b.1)
    }

    /// Takes the entry in if it is among the k best so far.
    pub(super) fn offer(&mut self, score: f32, code: u32) {
        let entry = (score, code);
        if self.entries.len() < self.k {
            self.entries.push(entry);
            self.sift_up();
        } else if Self::is_worse(self.entries[0], entry) {
            self.entries[0] = entry;
            self.sift_down();
        }
        if self.entries.len() == self.k {
            self.threshold = self.entries[0].0;
        }
    }

    fn sift_up(&mut self) {
        let mut child = self.entries.len() - 1;
        while child > 0 {
            let parent = (child - 1) / 2;
            if !Self::is_worse(self.entries[child], self.entries[parent]) {
                return;
            }
            self.entries.swap(child, parent);
            child = parent;
        }
    }

    fn sift_down(&mut self) {
        let mut parent = 0;
        loop {
            let (left, right) = (2 * parent + 1, 2 * parent + 2);
            let mut worst = parent;
            for child in [left, right] {
                if child < self.entries.len()
                    && Self::is_worse(self.entries[child], self.entries[worst])
                {
                    worst = child;
                }
            }
            if worst == parent {
                return;
            }
            self.entries.swap(parent, worst);
            parent = worst;
        }
    }

    /// The entries, best first.
    pub(super) fn into_best(mut self) -> Best {
        self.entries.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let (scores, codes) = self.entries.into_iter().unzip();
        Best { codes, scores }
    }
}

struct BlockOp<'a> {
    panels: &'a Panels,
    queries: &'a [f32],
    first: usize,
    k: usize,
    skip: &'a (dyn Fn(usize, u32) -> bool + Sync),
}

impl WithSimd for BlockOp<'_> {
    type Output = Vec<Heap>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<Heap> {
        let depth = self.panels.depth;
        let mut heaps: Vec<Heap> =
            self.queries.chunks_exact(depth).map(|query| Heap::new(self.k, query)).collect();
        match (heaps.len(), &self.panels.screen) {
            (1, Some(_)) => self.run::<S, 1, true>(simd, &mut heaps),
            (1, None) => self.run::<S, 1, false>(simd, &mut heaps),
            _ => self.run::<S, TILE_QUERIES, false>(simd, &mut heaps),
        }
        heaps
    }
}

impl BlockOp<'_> {
    /// The loops without a screen are compiled apart from the one with it.
    #[inline(always)]
    fn run<S: Simd, const Q: usize, const SCREENED: bool>(&self, simd: S, heaps: &mut [Heap]) {
        let Panels { depth, width, data, codes, bounds, screen } = self.panels;
        let screen = screen.as_ref().filter(|_| SCREENED);
        let screen = screen.map(|screen| (screen, screen.query(self.queries)));
        let groups: Vec<Aligned> =
            self.queries.chunks(Q * depth).map(|rows| pack::<Q>(rows, *depth)).collect();
        let mut active: Vec<bool> = vec![true; groups.len()];
        let panels = data.chunks_exact(depth * width).zip(codes.chunks_exact(*width));
        for (position, ((panel, codes), &bound)) in panels.zip(bounds).enumerate() {
            if SCREENED
                && let (Some((screen, query)), [heap]) = (&screen, &*heaps)
                && bound * heap.norm >= heap.threshold
                && is_below::<S>(screen, query, position, heap.threshold)
            {
                continue;
            }
            let panel = S::as_simd_f32s(panel).0;
            let mut any = false;
            for (index, (group, heaps)) in groups.iter().zip(heaps.chunks_mut(Q)).enumerate() {
                // Once no query of the group can be reached, none can: bounds only fall.
                active[index] =
                    active[index] && heaps.iter().any(|h| bound * h.norm >= h.threshold);
                if active[index] {
                    any = true;
                    let scores = tile::<S, Q>(simd, group, panel);
                    let first = self.first + index * Q;
                    self.collect::<S, Q>(simd, &scores, codes, first, heaps);
                }
            }
            if !any {
                return;
            }
        }
    }

    /// Offers the scores that reach their query's threshold.
    #[inline(always)]
    fn collect<S: Simd, const Q: usize>(
        &self,
        simd: S,
        scores: &[[S::f32s; 2]; Q],
        codes: &[u32],
        first: usize,
        heaps: &mut [Heap],
    ) {
        for (index, (scores, heap)) in scores.iter().zip(heaps).enumerate() {
            let highest = simd.reduce_max_f32s(simd.max_f32s(scores[0], scores[1]));
            if highest >= heap.threshold {
                let scores: &[f32] = pulp::bytemuck::cast_slice(scores);
                for (&score, &code) in scores.iter().zip(codes) {
                    if score >= heap.threshold
                        && code != NO_CODE
                        && !(self.skip)(first + index, code)
                    {
                        heap.offer(score, code);
                    }
                }
            }
        }
    }
}

/// Whether no row of a panel can reach the threshold of a query whose list is full.
#[inline(always)]
fn is_below<S: Simd>(screen: &Screen, query: &ScreenQuery, panel: usize, threshold: f32) -> bool {
    if threshold == f32::NEG_INFINITY {
        return false;
    }
    // As wide as the panels of `panel_width`.
    let bound = match 2 * S::F32_LANES {
        32 => screen.bound::<32>(panel, query),
        16 => screen.bound::<16>(panel, query),
        8 => screen.bound::<8>(panel, query),
        2 => screen.bound::<2>(panel, query),
        _ => f64::INFINITY,
    };
    bound < f64::from(threshold)
}

/// Transposes up to `Q` queries to `Q` values a coordinate; missing queries are zeros.
pub(super) fn pack<const Q: usize>(rows: &[f32], depth: usize) -> Aligned {
    let mut packed = Aligned::zeros(Q * depth);
    for (query, row) in rows.chunks_exact(depth).enumerate() {
        for (coordinate, &value) in row.iter().enumerate() {
            packed[coordinate * Q + query] = value;
        }
    }
    packed
}

/// `Q` queries times one panel, summed over coordinates in registers.
#[inline(always)]
pub(super) fn tile<S: Simd, const Q: usize>(
    simd: S,
    queries: &[f32],
    panel: &[S::f32s],
) -> [[S::f32s; 2]; Q] {
    let mut sums = [[simd.splat_f32s(0.0); 2]; Q];
    for (query, row) in queries.as_chunks::<Q>().0.iter().zip(panel.as_chunks::<2>().0) {
        for (sum, &value) in sums.iter_mut().zip(query) {
            let value = simd.splat_f32s(value);
            sum[0] = simd.mul_add_e_f32s(value, row[0], sum[0]);
            sum[1] = simd.mul_add_e_f32s(value, row[1], sum[1]);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(rows: &[f32], depth: usize, query: &[f32], k: usize) -> Best {
        let mut all: Vec<(f32, u32)> =
            rows.chunks(depth).map(|row| ordered_product(query, row)).zip(0..).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        all.truncate(k);
        let (scores, codes) = all.into_iter().unzip();
        Best { codes, scores }
    }

    #[test]
    fn ties_go_to_the_lower_code_and_k_is_capped() {
        let panels = Panels::new(&[1.0, 2.0, 2.0, 1.0, 0.0], 1);
        let best = panels.best(&[1.0], 3, &|_, _| false);
        assert_eq!(best, [Best { codes: vec![1, 2, 0], scores: vec![2.0, 2.0, 1.0] }]);
        assert_eq!(panels.best(&[1.0], 99, &|_, _| false)[0].codes, [1, 2, 0, 3, 4]);
        assert_eq!(panels.best(&[1.0], 0, &|_, _| false)[0].codes.len(), 0);
        assert_eq!(panels.best(&[-1.0], 2, &|_, code| code == 4)[0].codes, [0, 3]);
        assert_eq!(Panels::new(&[], 3).best(&[0.0; 3], 2, &|_, _| false), [Best::default()]);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn equals_a_full_sort(
            rows in 1_usize..90, depth in 1_usize..9, queries in 1_usize..120, k in 1_usize..30,
            cells in prop::collection::vec(-3_i8..4, 120 * 9),
        ) {
            let value = |at: usize| f32::from(cells[at % cells.len()]) * 0.37;
            let items: Vec<f32> = (0..rows * depth).map(value).collect();
            let users: Vec<f32> = (0..queries * depth).map(|at| value(at * 7 + 3)).collect();
            let found = Panels::new(&items, depth).best(&users, k, &|_, _| false);
            prop_assert_eq!(found.len(), queries);
            for (query, best) in users.chunks(depth).zip(&found) {
                prop_assert_eq!(best, &sorted(&items, depth, query, k.min(rows)));
            }
            let scores = Panels::new(&items, depth).scores(&users);
            for (query, scores) in users.chunks(depth).zip(scores.chunks(rows)) {
                for (row, score) in items.chunks(depth).zip(scores) {
                    prop_assert_eq!(ordered_product(query, row), *score);
                }
            }
            // One query alone gives what the batch gave, screened or not.
            let screened = Panels::build(&items, depth, true);
            for (query, best) in users.chunks(depth).zip(&found) {
                let skip = |_: usize, code: u32| code % 3 == 1;
                let plain = Panels::new(&items, depth).best(query, k, &skip);
                prop_assert_eq!(&screened.best(query, k, &skip), &plain);
                prop_assert_eq!(&screened.best(query, k, &|_, _| false)[0], best);
            }
            let alone = Panels::new(&items, depth).best(&users[..depth], k, &|_, _| false);
            prop_assert_eq!(&alone[0], &found[0]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 24,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        /// Bit for bit, whatever the sizes of the rows and of the values in them.
        #[test]
        fn screening_changes_nothing(
            seed in 0_u64..u64::MAX, depth in 1_usize..70, k in 1_usize..25,
            (sizes, few) in (0_i32..30, 0_u32..3),
        ) {
            let mut state = seed;
            let mut next = || {
                state = crate::model::random::mix(state);
                (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
            };
            let rows = 900;
            let mut items = Vec::with_capacity(rows * depth);
            for row in 0..rows {
                let size = 2_f32.powi(row as i32 % (sizes + 1) - sizes / 2);
                for _ in 0..depth {
                    // Some coordinates far beyond the others, some rows all zeros.
                    let far = if next() > 0.48 { 50.0 } else { 1.0 };
                    items.push(if row % 97 == 5 { 0.0 } else { next() * size * far });
                }
            }
            let screened = Panels::build(&items, depth, true);
            let plain = Panels::build(&items, depth, false);
            for _ in 0..8 {
                let query: Vec<f32> = (0..depth).map(|_| next()).collect();
                let skip = |_: usize, code: u32| few > 0 && code.is_multiple_of(few + 1);
                let (found, full) = (screened.best(&query, k, &skip), plain.best(&query, k, &skip));
                let bits = |best: &Best| -> Vec<(u32, u32)> {
                    let scores = best.scores.iter().map(|score| score.to_bits());
                    best.codes.iter().copied().zip(scores).collect()
                };
                prop_assert_eq!(bits(&found[0]), bits(&full[0]));
            }
        }
    }

    #[test]
    fn a_screen_passes_over_almost_everything() {
        let (rows, depth) = (20_000, 32);
        let mut state = 7;
        let mut next = || {
            state = crate::model::random::mix(state);
            (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
        };
        let items: Vec<f32> = (0..rows * depth).map(|_| next()).collect();
        let query: Vec<f32> = (0..depth).map(|_| next()).collect();
        let panels = Panels::build(&items, depth, true);
        let best = &panels.best(&query, 10, &|_, _| false)[0];
        assert_eq!(best, &sorted(&items, depth, &query, 10));
        let screen = panels.screen.as_ref().unwrap();
        let in_bytes = screen.query(&query);
        let bounds: Vec<f64> = (0..rows.div_ceil(panels.width))
            .map(|panel| match panels.width {
                32 => screen.bound::<32>(panel, &in_bytes),
                16 => screen.bound::<16>(panel, &in_bytes),
                8 => screen.bound::<8>(panel, &in_bytes),
                _ => screen.bound::<2>(panel, &in_bytes),
            })
            .collect();
        let least = f64::from(best.scores[9]);
        let read = bounds.iter().filter(|bound| **bound >= least).count();
        assert!((1..40).contains(&read), "{read} of {} panels", bounds.len());
        for (position, codes) in panels.codes.chunks(panels.width).enumerate() {
            for &code in codes.iter().filter(|code| **code != NO_CODE) {
                let row = &items[code as usize * depth..][..depth];
                assert!(f64::from(ordered_product(&query, row)) <= bounds[position]);
            }
        }
        let plain = Panels::build(&items, depth, false);
        assert!(panels.memory_bytes() >= plain.memory_bytes() + rows * depth);
    }
}
