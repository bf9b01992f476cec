//! Looks at a cancel flag, near enough to each other for training to end within 100 ms.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the caller asked to stop.
#[inline(always)]
pub(super) fn is_set(cancel: &AtomicBool) -> bool {
    #[cfg(test)]
    meter::look();
    cancel.load(Ordering::Relaxed)
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
