//! Screening of packed rows in a quarter of their bytes, with a bound that never errs.
//!
//! One query against many rows waits for memory: every row of `f32`s is read for a product or two.
//! Here each row x is c·s + e, a byte c a coordinate and a scale s a panel of rows. With the query
//! q = d·t + f in whole numbers,
//!
//! > q·x ≤ s·t·(d·c) + |f|·(|x| + |e|) + |q|·|e|,
//!
//! where d·c is exact, |e| and |x| are known for each panel, and the rounding of the `f32` product
//! itself is added. A panel whose bound stays below what the query's k-th best has holds no row
//! that could enter, so it need not be read; all others are computed as without screening. The
//! answer is therefore the same to the last bit.

use rayon::prelude::*;

use super::kernel::Aligned;

/// Rows of fewer bytes than this stay near the processor: screening would not pay.
const BYTES_MIN: usize = 32 << 20;
/// The greatest code.
const CODE_MAX: f64 = 127.0;
/// The greatest whole number of a query.
const QUERY_MAX: f64 = 32_767.0;

/// Codes of packed rows, in the layout of their panels.
#[derive(Debug)]
pub(super) struct Screen {
    /// For each panel `width` codes a coordinate.
    codes: Vec<i8>,
    panels: Vec<Panel>,
    depth: usize,
}

#[derive(Debug, Clone, Copy)]
struct Panel {
    scale: f64,
    /// The greatest |e| of its rows.
    error: f64,
    /// The greatest |x|.
    norm: f64,
}

/// A query in whole numbers.
#[derive(Debug)]
pub(super) struct ScreenQuery {
    codes: Vec<i32>,
    scale: f64,
    /// |f|.
    error: f64,
    /// |q|.
    norm: f64,
}

impl Screen {
    /// Whether screening pays for so many rows of `depth` values.
    pub(super) fn pays(rows: usize, depth: usize) -> bool {
        rows.saturating_mul(depth).saturating_mul(size_of::<f32>()) >= BYTES_MIN
    }

    /// Bytes on the heap for so many rows of `depth` values in panels of `width`.
    pub(super) fn bytes(rows: usize, depth: usize, width: usize) -> usize {
        rows.div_ceil(width) * (width * depth + size_of::<Panel>())
    }

    /// Codes of panels of `width` rows of `depth` values. Runs on the current rayon pool.
    pub(super) fn new(data: &Aligned, depth: usize, width: usize) -> Self {
        let size = depth * width;
        let mut codes = vec![0_i8; data.len()];
        let panels = data
            .par_chunks_exact(size)
            .zip(codes.par_chunks_exact_mut(size))
            .map(|(panel, codes)| encode(panel, codes, width))
            .collect();
        Self { codes, panels, depth }
    }

    /// The query in whole numbers that no sum of products overflows with.
    pub(super) fn query(&self, query: &[f32]) -> ScreenQuery {
        let most = (f64::from(i32::MAX) / CODE_MAX / self.depth.max(1) as f64).floor();
        let greatest = query.iter().fold(0.0, |most: f64, q| most.max(f64::from(q.abs())));
        let scale = greatest / most.min(QUERY_MAX);
        let code = |q: &f32| if scale > 0.0 { (f64::from(*q) / scale).round() as i32 } else { 0 };
        let codes: Vec<i32> = query.iter().map(code).collect();
        let (mut error, mut norm) = (0.0, 0.0);
        for (&q, &code) in query.iter().zip(&codes) {
            error += (f64::from(q) - f64::from(code) * scale).powi(2);
            norm += f64::from(q).powi(2);
        }
        ScreenQuery { codes, scale, error: error.sqrt(), norm: norm.sqrt() }
    }

    /// What no score of the panel's `W` rows exceeds. Call it inside `pulp::Arch::dispatch`.
    #[inline(always)]
    pub(super) fn bound<const W: usize>(&self, panel: usize, query: &ScreenQuery) -> f64 {
        let size = W * self.depth;
        let codes = &self.codes[panel * size..(panel + 1) * size];
        let mut sums = [0_i32; W];
        for (row, &q) in codes.as_chunks::<W>().0.iter().zip(&query.codes) {
            for (sum, &code) in sums.iter_mut().zip(row) {
                *sum += q * i32::from(code);
            }
        }
        let greatest = sums.iter().fold(i32::MIN, |most, &sum| most.max(sum));
        let Panel { scale, error, norm } = self.panels[panel];
        // Each product and sum of the f32 product rounds by 2⁻²⁴ at most of what it holds.
        let rounding = query.norm * norm * (self.depth + 8) as f64 * f64::from(f32::EPSILON);
        f64::from(greatest) * scale * query.scale
            + query.error * (norm + error)
            + query.norm * error
            + rounding
            + f64::from(f32::MIN_POSITIVE)
    }
}

/// Fills the codes of a panel and says how far they are off.
fn encode(panel: &[f32], codes: &mut [i8], width: usize) -> Panel {
    let greatest = panel.iter().fold(0.0, |most: f64, x| most.max(f64::from(x.abs())));
    let scale = greatest / CODE_MAX;
    let mut errors = vec![0.0_f64; width];
    let mut norms = vec![0.0_f64; width];
    for (row, codes) in panel.chunks_exact(width).zip(codes.chunks_exact_mut(width)) {
        for (lane, (&x, code)) in row.iter().zip(codes).enumerate() {
            let x = f64::from(x);
            *code = if scale > 0.0 { (x / scale).round() as i8 } else { 0 };
            errors[lane] += (x - f64::from(*code) * scale).powi(2);
            norms[lane] += x * x;
        }
    }
    let root = |squares: &[f64]| squares.iter().fold(0.0, |most: f64, &s| most.max(s)).sqrt();
    // What the sums of squares themselves may have lost.
    let room = 1.0 + 1e-9;
    Panel { scale, error: root(&errors) * room, norm: root(&norms) * room }
}
