//! Looks at a cancel flag, near enough to each other for training to end within 100 ms.

use std::cmp;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::error::ModelError;

/// Values that a thread goes through between two looks where that is all it does with them.
pub(super) const VALUES_PER_LOOK: usize = 1 << 16;
/// Values that are sorted at a time; a multiple of [`VALUES_PER_LOOK`].
const RUN_VALUES: usize = 1 << 18;

/// Whether the caller asked to stop.
#[inline(always)]
pub(super) fn is_set(cancel: &AtomicBool) -> bool {
    #[cfg(test)]
    meter::look();
    cancel.load(Ordering::Relaxed)
}

/// Ends what the caller asked to stop.
///
/// # Errors
/// [`ModelError::Cancelled`] once the flag is set.
pub(super) fn check(cancel: &AtomicBool) -> Result<(), ModelError> {
    if is_set(cancel) { Err(ModelError::Cancelled) } else { Ok(()) }
}

/// Sorts values, beside as many more where they are many, on the current rayon pool. In which order
/// equal ones come depends on the values alone. Once the flag is set, the order and which values
/// there are is unspecified, and soon there: the caller looks at the flag.
pub(super) fn sort_unless<T: Copy + Send + Sync>(
    values: &mut [T],
    order: impl Fn(&T, &T) -> cmp::Ordering + Sync,
    cancel: &AtomicBool,
) {
    let runs = values.len().div_ceil(RUN_VALUES);
    if runs <= 1 {
        if !is_set(cancel) {
            values.sort_unstable_by(order);
        }
        return;
    }
    let mut copy: Vec<T> = values.par_iter().copied().collect();
    let passes = runs.next_power_of_two().ilog2();
    // The last pass is to end in the caller's values.
    let (mut from, mut to): (&mut [T], &mut [T]) =
        if passes.is_multiple_of(2) { (values, &mut copy) } else { (&mut copy, values) };
    from.par_chunks_mut(RUN_VALUES).for_each(|run| {
        if !is_set(cancel) {
            run.sort_unstable_by(&order);
        }
    });
    for pass in 0..passes {
        merge_runs(from, to, RUN_VALUES << pass, &order, cancel);
        std::mem::swap(&mut from, &mut to);
    }
}

/// Merges each two neighbouring runs of `width` values. Every thread writes a part of a run, which
/// begins where as many values of the two lie before it.
fn merge_runs<T: Copy + Send + Sync>(
    from: &[T],
    to: &mut [T],
    width: usize,
    order: &(impl Fn(&T, &T) -> cmp::Ordering + Sync),
    cancel: &AtomicBool,
) {
    to.par_chunks_mut(VALUES_PER_LOOK).enumerate().for_each(|(part, to)| {
        if is_set(cancel) {
            return;
        }
        let start = part * VALUES_PER_LOOK;
        let both = from.chunks(2 * width).nth(start / (2 * width)).unwrap_or_default();
        let (left, right) = both.split_at(width.min(both.len()));
        let before = start % (2 * width);
        let of_left = split(left, right, before, order);
        merge(&left[of_left..], &right[before - of_left..], to, order);
    });
}

/// How many of the first `count` values of two merged runs are of the left one, whose values come
/// first where they are equal.
fn split<T>(
    left: &[T],
    right: &[T],
    count: usize,
    order: &impl Fn(&T, &T) -> cmp::Ordering,
) -> usize {
    let (mut least, mut most) = (count.saturating_sub(right.len()), count.min(left.len()));
    while least < most {
        let middle = least.midpoint(most);
        if order(&left[middle], &right[count - middle - 1]).is_le() {
            least = middle + 1;
        } else {
            most = middle;
        }
    }
    least
}

/// Fills `to` with the first values of two runs.
fn merge<'a, T: Copy>(
    mut left: &'a [T],
    mut right: &'a [T],
    to: &mut [T],
    order: &impl Fn(&T, &T) -> cmp::Ordering,
) {
    for to in to {
        let is_left = match (left.first(), right.first()) {
            (Some(left), Some(right)) => order(left, right).is_le(),
            (left, _) => left.is_some(),
        };
        let from = if is_left { &mut left } else { &mut right };
        if let Some((&value, rest)) = from.split_first() {
            *to = value;
            *from = rest;
        }
    }
}

#[cfg(test)]
pub(super) mod meter {
    //! How much a thread multiplies between two looks: time would tell of the machine and of how
    //! the tests were built.

    use std::cell::Cell;

    thread_local! {
        static SINCE_LOOK: Cell<usize> = const { Cell::new(0) };
        static MOST: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts multiplications of this thread.
    pub(in super::super) fn spend(products: usize) {
        SINCE_LOOK.set(SINCE_LOOK.get() + products);
    }

    pub(super) fn look() {
        MOST.set(MOST.get().max(SINCE_LOOK.take()));
    }

    /// The most that `work` multiplies between two looks on a pool of one thread.
    pub(in super::super) fn most_between_looks(work: impl FnOnce() + Send) -> usize {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        pool.install(|| {
            work();
            look();
            MOST.get()
        })
    }

    #[test]
    fn what_is_spent_between_two_looks_counts() {
        let most = most_between_looks(|| {
            spend(3);
            look();
            spend(2);
            spend(5);
            look();
            spend(4);
        });
        assert_eq!(most, 7);
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::mix;
    use super::*;

    #[test]
    fn runs_of_any_number_are_sorted_and_equal_values_always_alike() {
        let go_on = AtomicBool::new(false);
        let counts = [0, 1, 1000, RUN_VALUES, RUN_VALUES + 1, 2 * RUN_VALUES, 3 * RUN_VALUES + 77];
        for count in counts.into_iter().chain([5 * RUN_VALUES - 3]) {
            // Many are equal, and tell by their place which they are.
            let values: Vec<(u64, usize)> =
                (0..count).map(|at| (mix(at as u64) % 5000, at)).collect();
            let on = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut sorted = values.clone();
                pool.install(|| sort_unless(&mut sorted, |a, b| a.0.cmp(&b.0), &go_on));
                sorted
            };
            let sorted = on(3);
            assert!(sorted.is_sorted_by_key(|value| value.0), "{count}");
            assert_eq!(sorted, on(1), "{count}");
            let mut all = sorted;
            all.sort_unstable_by_key(|value| value.1);
            assert_eq!(all, values, "{count}");
        }
    }

    #[test]
    fn a_flag_ends_sorting() {
        let mut values: Vec<usize> = (0..3 * RUN_VALUES).rev().collect();
        sort_unless(&mut values, usize::cmp, &AtomicBool::new(true));
        assert!(!values.is_sorted());
        assert_eq!(check(&AtomicBool::new(true)), Err(ModelError::Cancelled));
        assert_eq!(check(&AtomicBool::new(false)), Ok(()));
    }
}
