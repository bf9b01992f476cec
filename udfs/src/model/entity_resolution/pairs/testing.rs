//! A scratch for tests: memory of so many bytes, and a disk that is memory too.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

/// Memory and disk with a limit each.
#[derive(Debug)]
pub struct Limited {
    pub memory_bytes: usize,
    pub disk_bytes: usize,
    pub taken: AtomicUsize,
    pub spilled: Arc<AtomicUsize>,
    pub is_cancelled: AtomicBool,
}

#[derive(Debug)]
struct File(Mutex<Vec<u8>>, Arc<AtomicUsize>, usize);

impl Scratch for Limited {
    fn take(&self, bytes: usize) -> bool {
        let fits = |taken: usize| Some(taken + bytes).filter(|all| *all <= self.memory_bytes);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn file(&self) -> Result<Arc<dyn ScratchFile>, ModelError> {
        Ok(Arc::new(File(Mutex::default(), Arc::clone(&self.spilled), self.disk_bytes)))
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }
}

impl ScratchFile for File {
    fn append(&self, bytes: &[u8]) -> Result<u64, ModelError> {
        let mut content = self.0.lock();
        if self.1.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len() > self.2 {
            return Err(ModelError::Spill("it is full".to_owned()));
        }
        content.extend_from_slice(bytes);
        Ok((content.len() - bytes.len()) as u64)
    }

    fn read(&self, from: u64, bytes: &mut [u8]) -> Result<(), ModelError> {
        let content = self.0.lock();
        bytes.copy_from_slice(&content[from as usize..][..bytes.len()]);
        Ok(())
    }
}

/// A scratch of so many bytes of memory and of disk.
pub fn limited(memory_bytes: usize, disk_bytes: usize) -> Arc<Limited> {
    let (taken, spilled, is_cancelled) = (AtomicUsize::new(0), Arc::default(), false.into());
    Arc::new(Limited { memory_bytes, disk_bytes, taken, spilled, is_cancelled })
}

/// Pieces of a few pairs, of which all but a few are on disk.
pub fn tiny() -> Spill {
    let scratch = limited(100, usize::MAX);
    Spill { page_pairs: 3, run_pairs: 4, merged_runs: 2, ..Spill::new(scratch) }
}
