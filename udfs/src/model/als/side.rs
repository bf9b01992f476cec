//! One side of the matrix while training: renumbered by descending length, factors padded.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::super::cancel::{self, VALUES_PER_LOOK};
use super::super::kernel::Aligned;
use super::super::sparse::Csr;
use super::features::Prior;
use super::options::{AlsOptions, Feedback};
use super::{AlsFactors, WEIGHT_MIN};
use crate::model::random::mix;

/// One side of the matrix, renumbered by descending number of interactions.
pub(super) struct Side {
    /// Code of each position.
    codes: Vec<u32>,
    /// Position of each code.
    pub(super) positions: Vec<u32>,
    /// Positions from here on have no interactions.
    pub(super) live: usize,
    pub(super) cells: Csr,
    /// Rows of [`AlsOptions::stride`] values by position.
    pub(super) factors: Aligned,
    pub(super) bias: Option<Vec<f32>>,
    pub(super) prior: Option<Prior>,
}

/// Where a side may take its first factors from: for each code its row of the last version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Previous<'a> {
    pub(super) factors: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) rows: &'a [Option<u32>],
}

impl<'a> Previous<'a> {
    pub(super) fn users(factors: &'a AlsFactors, rows: &'a [Option<u32>]) -> Self {
        Self { factors: &factors.user_factors, bias: &factors.user_bias, rows }
    }

    pub(super) fn items(factors: &'a AlsFactors, rows: &'a [Option<u32>]) -> Self {
        Self { factors: &factors.item_factors, bias: &factors.item_bias, rows }
    }
}

impl Side {
    pub(super) fn new(codes: Vec<u32>, cells: Csr, options: &AlsOptions) -> Self {
        let rows = codes.len();
        let positions = inverse(&codes);
        let live = cells.offsets().windows(2).take_while(|pair| pair[0] < pair[1]).count();
        let factors = Aligned::zeros(rows * options.stride());
        let bias = options.has_biases().then(|| vec![0.0; rows]);
        Self { codes, positions, live, cells, factors, bias, prior: None }
    }

    /// Codes by position.
    pub(super) fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// Factors of the rows that have interactions.
    pub(super) fn live_factors(&self, stride: usize) -> &[f32] {
        &self.factors[..self.live * stride]
    }

    /// Sets the first factors: those of the last version where there are any; else drawn, or 0
    /// for the side that is solved first. With the flag set rows may be left out: the caller looks
    /// at the flag.
    pub(super) fn start(
        &mut self,
        options: &AlsOptions,
        previous: Option<Previous<'_>>,
        drawn: bool,
        cancel: &AtomicBool,
    ) {
        let (stride, size) = (options.stride(), options.num_factors);
        let row_of = |code: u32| previous?.rows.get(code as usize).copied().flatten();
        let least = if options.non_negative { 0.0 } else { f32::NEG_INFINITY };
        let has_bias = self.bias.is_some();
        let live = self.live;
        let rows = self.factors.par_chunks_exact_mut(stride).zip(&self.codes).take(live);
        rows.for_each(|(row, &code)| {
            if cancel::is_set(cancel) {
                return;
            }
            let start = row_of(code).map(|at| at as usize * size);
            let known = previous.zip(start).and_then(|(p, at)| p.factors.get(at..at + size));
            match known {
                Some(known) => {
                    row[..size].iter_mut().zip(known).for_each(|(to, &from)| *to = from.max(least));
                }
                None if drawn => draw(options, code, &mut row[..size]),
                None => {}
            }
            if has_bias {
                row[size] = 1.0;
            }
        });
        if let Some(bias) = &mut self.bias {
            let biases = bias.iter_mut().zip(&self.codes).take(live);
            for (at, (bias, &code)) in biases.enumerate() {
                if at.is_multiple_of(VALUES_PER_LOOK) && cancel::is_set(cancel) {
                    return;
                }
                let known = previous.zip(row_of(code));
                *bias = known.and_then(|(p, at)| p.bias.get(at as usize)).copied().unwrap_or(0.0);
            }
        }
    }
}

/// Draws a row's initial factors: normal, of expected length .1 for implicit feedback and of
/// expected length 1 for explicit. They depend on seed, code and coordinate alone.
pub(super) fn draw(options: &AlsOptions, code: u32, row: &mut [f32]) {
    let length = if options.feedback == Feedback::Implicit { 0.1 } else { 1.0 };
    let deviation = length / (row.len() as f64).sqrt();
    let mut state = mix(options.seed ^ mix(u64::from(code) + 1));
    for value in row {
        let drawn = (deviation * normal(&mut state)) as f32;
        *value = if options.non_negative { drawn.abs() } else { drawn };
    }
}

/// √(α·|r|), negative where the preference is 0. The square is the weight an observed cell has
/// beyond an unobserved one; below [`WEIGHT_MIN`] the cell counts as unobserved.
pub(super) fn encode_weight(value: f32, alpha: f64) -> f32 {
    let weight = alpha * f64::from(value.abs());
    if weight < WEIGHT_MIN { 0.0 } else { weight.sqrt().copysign(f64::from(value)) as f32 }
}

/// Codes in descending order of count; ties keep the order of codes. With the flag set it is wrong:
/// the caller looks at the flag.
pub(super) fn by_descending_count(
    counts: impl Iterator<Item = usize>,
    cancel: &AtomicBool,
) -> Vec<u32> {
    let mut order: Vec<(std::cmp::Reverse<usize>, u32)> =
        counts.zip(0_u32..).map(|(count, code)| (std::cmp::Reverse(count), code)).collect();
    cancel::sort_unless(&mut order, Ord::cmp, cancel);
    order.into_iter().map(|(_, code)| code).collect()
}

fn inverse(codes: &[u32]) -> Vec<u32> {
    let mut positions = vec![0_u32; codes.len()];
    for (place, &code) in codes.iter().enumerate() {
        positions[code as usize] = place as u32;
    }
    positions
}

/// The matrix with row `p` taken from row `users[p]`, columns renumbered likewise. With the flag
/// set rows may be left out: the caller looks at the flag.
pub(super) fn renumber(
    matrix: &Csr,
    users: &[u32],
    items: &[u32],
    value: impl Fn(f32) -> f32 + Sync,
    cancel: &AtomicBool,
) -> Csr {
    let position = inverse(items);
    let lengths = users.iter().map(|&user| matrix.row(user as usize).0.len());
    Csr::from_rows(lengths, items.len(), |row, columns, values| {
        if cancel::is_set(cancel) {
            return;
        }
        let (from_columns, from_values) = matrix.row(users[row] as usize);
        for (to, &column) in columns.iter_mut().zip(from_columns) {
            *to = position[column as usize];
        }
        values.iter_mut().zip(from_values).for_each(|(to, &raw)| *to = value(raw));
    })
}

/// A standard normal draw (Box and Muller 1958).
fn normal(state: &mut u64) -> f64 {
    let mut uniform = || {
        *state = mix(*state);
        ((*state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    let (radius, angle) = (uniform(), uniform());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}
