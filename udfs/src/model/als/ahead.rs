//! Factors that the next row needs, fetched while this one is solved.
//!
//! Where the factors are larger than the cache, most of a row's interactions cost a visit to
//! memory, for which the solver would wait before each row while memory idles during the solution.
//! Which factors come next is known: they are asked for in shares, between the passes over this
//! row, so that no more lines are on their way at a time than a core can wait for.

use super::row::HalfStep;

/// Interactions of the next row that are fetched: at 64 factors half a first-level cache. The rest
/// of a longer row is fetched while it is gathered.
pub(super) const NEAR_CELLS: usize = 64;

/// The next row's interactions that are not yet fetched.
pub(super) struct Ahead<'a> {
    step: &'a HalfStep<'a>,
    columns: &'a [u32],
}

impl<'a> Ahead<'a> {
    /// Those of a row with `columns` of the fixed side.
    #[inline(always)]
    pub(super) fn new(step: &'a HalfStep<'a>, columns: &'a [u32]) -> Self {
        Self { step, columns: &columns[..columns.len().min(NEAR_CELLS)] }
    }

    /// Fetches one of `shares` shares of what is left.
    #[inline(always)]
    pub(super) fn fetch(&mut self, shares: usize) {
        let count = self.columns.len().div_ceil(shares.max(1));
        let (now, rest) = self.columns.split_at(count);
        for &column in now {
            self.step.fetch(column, (0, self.step.stride));
        }
        self.columns = rest;
    }
}
