//! Factors while they are being learned, for a metric to look at without a copy.

use rayon::prelude::*;

use super::AlsFactors;
use super::side::Side;

/// The factors after an iteration, by the interactions' own codes.
///
/// Rows are borrowed from the trainer. Their basis differs from one iteration to the next
/// (implicit feedback), so that a user's row goes with the items' rows of the same view only.
#[derive(Debug, Clone, Copy)]
pub struct FactorView<'a> {
    users: SideView<'a>,
    items: SideView<'a>,
    size: usize,
    stride: usize,
    global_mean: f32,
}

#[derive(Debug, Clone, Copy)]
struct SideView<'a> {
    factors: &'a [f32],
    bias: Option<&'a [f32]>,
    positions: &'a [u32],
}

impl<'a> FactorView<'a> {
    pub(super) fn new(users: &'a Side, items: &'a Side, size: usize, stride: usize) -> Self {
        let side = |side: &'a Side| SideView {
            factors: &side.factors,
            bias: side.bias.as_deref(),
            positions: &side.positions,
        };
        Self { users: side(users), items: side(items), size, stride, global_mean: 0.0 }
    }

    pub(super) fn with_mean(self, global_mean: f32) -> Self {
        Self { global_mean, ..self }
    }

    /// Length of a factor vector.
    pub fn num_factors(&self) -> usize {
        self.size
    }

    /// Number of users.
    pub fn users(&self) -> usize {
        self.users.positions.len()
    }

    /// Number of items.
    pub fn items(&self) -> usize {
        self.items.positions.len()
    }

    /// A user's factors; empty when there is no such user.
    pub fn user(&self, code: u32) -> &'a [f32] {
        self.users.row(code, self.size, self.stride)
    }

    /// An item's factors; empty when there is no such item.
    pub fn item(&self, code: u32) -> &'a [f32] {
        self.items.row(code, self.size, self.stride)
    }

    /// A user's bias; 0 without biases.
    pub fn user_bias(&self, code: u32) -> f32 {
        self.users.bias(code)
    }

    /// An item's bias; 0 without biases.
    pub fn item_bias(&self, code: u32) -> f32 {
        self.items.bias(code)
    }

    /// Mean rating; 0 without biases.
    pub fn global_mean(&self) -> f32 {
        self.global_mean
    }

    /// A copy, without losses.
    pub fn to_factors(&self) -> AlsFactors {
        let mut copy = AlsFactors::default();
        self.copy_to(&mut copy);
        copy
    }

    /// Overwrites a copy but for its losses, in the memory that it already has.
    pub(super) fn copy_to(&self, to: &mut AlsFactors) {
        self.users.copy(self.size, self.stride, &mut to.user_factors, &mut to.user_bias);
        self.items.copy(self.size, self.stride, &mut to.item_factors, &mut to.item_bias);
        to.global_mean = self.global_mean;
    }
}

impl<'a> SideView<'a> {
    fn row(&self, code: u32, size: usize, stride: usize) -> &'a [f32] {
        let Some(&position) = self.positions.get(code as usize) else { return &[] };
        let start = position as usize * stride;
        self.factors.get(start..start + size).unwrap_or_default()
    }

    fn bias(&self, code: u32) -> f32 {
        let bias = self.bias.zip(self.positions.get(code as usize));
        bias.map_or(0.0, |(bias, &position)| bias[position as usize])
    }

    fn copy(&self, size: usize, stride: usize, factors: &mut Vec<f32>, bias: &mut Vec<f32>) {
        let values = self.positions.len() * size;
        if factors.len() != values {
            *factors = vec![0.0; values];
        }
        let rows = factors.par_chunks_exact_mut(size.max(1)).zip(self.positions);
        rows.for_each(|(row, &position)| {
            let start = position as usize * stride;
            row.copy_from_slice(&self.factors[start..start + size]);
        });
        bias.clear();
        if self.bias.is_some() {
            bias.extend((0..self.positions.len() as u32).map(|code| self.bias(code)));
        }
    }
}
