//! Ends long loops whose result nobody wants any more.
//!
//! Preparing a million texts, comparing a text with all of them, or two texts of megabytes, takes
//! seconds. The caller says how to tell that the result is no longer wanted ([`Stop`]), and loops
//! ask every millisecond or so of their work ([`Pace`]). A function's caller says so in the options
//! of the statement, which each call is given.

use std::any::Any;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion_common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion_common::{DataFusionError, plan_err};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};
use thiserror::Error;

/// Work between two looks, in steps of about a nanosecond.
const LOOK: usize = 1 << 20;
/// Elements that are sorted at once.
const CHUNK: usize = 4_096;

/// Whether a result is still wanted. Once it is not, it never is again.
#[derive(Clone, Default)]
pub struct Stop(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

/// Nobody wants the result any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("nobody waits for the result any more")]
pub struct Stopped;

impl From<Stopped> for DataFusionError {
    fn from(stopped: Stopped) -> Self {
        Self::External(Box::new(stopped))
    }
}

impl Stop {
    /// What the options of a statement say of its results; wanted in any case if they say nothing.
    pub fn of(options: &ConfigOptions) -> Self {
        options.extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// The result is wanted in any case.
    pub fn never() -> Self {
        Self(None)
    }

    /// The result is no longer wanted once `is_over` says so.
    pub fn when(is_over: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_over)))
    }

    /// Wanted until it was looked at so often.
    #[cfg(test)]
    pub(crate) fn when_looked_at(times: usize) -> Self {
        let looks = std::sync::atomic::AtomicUsize::new(0);
        Self::when(move || looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= times)
    }

    /// Whether nobody wants the result any more.
    pub fn is_set(&self) -> bool {
        self.0.as_ref().is_some_and(|is_over| is_over())
    }

    /// # Errors
    /// When nobody wants the result any more.
    pub fn check(&self) -> Result<(), Stopped> {
        if self.is_set() { Err(Stopped) } else { Ok(()) }
    }

    /// Looks now and then.
    pub fn pace(&self) -> Pace<'_> {
        Pace { stop: self, left: LOOK }
    }

    /// Sorts, in no particular order of equal items.
    ///
    /// # Errors
    /// When nobody wants the result any more.
    pub fn sort<T: Copy + Send + Sync>(
        &self,
        mut items: Vec<T>,
        order: impl Fn(&T, &T) -> Ordering + Sync,
    ) -> Result<Vec<T>, Stopped> {
        items
            .par_chunks_mut(CHUNK)
            .try_for_each(|chunk| self.check().map(|()| chunk.sort_unstable_by(&order)))?;
        let mut width = CHUNK;
        let mut merged = if items.len() > width { items.clone() } else { Vec::new() };
        while width < items.len() {
            let pairs = merged.par_chunks_mut(2 * width).zip(items.par_chunks(2 * width));
            pairs.try_for_each(|(to, from)| {
                merge(from.split_at(width.min(from.len())), to, &order, self.pace())
            })?;
            std::mem::swap(&mut items, &mut merged);
            width *= 2;
        }
        Ok(items)
    }
}

impl ConfigExtension for Stop {
    const PREFIX: &'static str = "stop";
}

impl ExtensionOptions for Stop {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _value: &str) -> datafusion_common::Result<()> {
        plan_err!("there is no setting {key}")
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Stop({})", self.is_set())
    }
}

fn merge<T: Copy>(
    (left, right): (&[T], &[T]),
    to: &mut [T],
    order: impl Fn(&T, &T) -> Ordering,
    mut pace: Pace<'_>,
) -> Result<(), Stopped> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    for slot in to {
        pace.spend(64)?;
        let next = match (left.peek(), right.peek()) {
            (Some(x), Some(y)) if order(x, y).is_gt() => right.next(),
            (None, _) => right.next(),
            _ => left.next(),
        };
        if let Some(next) = next {
            *slot = *next;
        }
    }
    Ok(())
}

/// Counts the work of a loop, and looks at its [`Stop`] now and then.
#[derive(Debug)]
pub struct Pace<'a> {
    stop: &'a Stop,
    left: usize,
}

impl Pace<'_> {
    /// Counts work, in steps of about a nanosecond.
    ///
    /// # Errors
    /// When nobody wants the result any more.
    #[inline]
    pub fn spend(&mut self, work: usize) -> Result<(), Stopped> {
        match self.left.checked_sub(work) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = LOOK;
                self.stop.check()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn sorts_what_sort_sorts() {
        let mut random = StdRng::seed_from_u64(3);
        for length in [0, 1, CHUNK, CHUNK + 1, 5 * CHUNK + 17, 8 * CHUNK] {
            let items: Vec<u32> = (0..length).map(|_| random.random_range(0..9_999)).collect();
            let mut expected = items.clone();
            expected.sort_unstable();
            assert_eq!(Stop::never().sort(items, u32::cmp), Ok(expected), "{length}");
        }
    }

    #[test]
    fn a_sort_and_a_pace_end_when_they_should() {
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looks);
        let stop = Stop::when(move || counted.fetch_add(1, Relaxed) >= 3);
        assert_eq!(stop.sort((0..100_000).rev().collect(), u32::cmp), Err(Stopped));
        assert_eq!(stop.pace().spend(LOOK + 1), Err(Stopped));
        assert_eq!(stop.pace().spend(LOOK), Ok(()));
        assert!(looks.load(Relaxed) < 3 + 2 * rayon::current_num_threads() + 2);
    }
}
