//! Where the scored pairs of records are while a statement works on them: in the memory that it
//! still may have, and what that has no place for in its spill folder.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use catalog::models::LoadedModel;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::execution::{DiskManager, SpillFile, SpillWriter};
use futures::TryStreamExt;
use parking_lot::Mutex;
use udfs::model::ModelError;
use udfs::model::entity_resolution::pairs::{Pairs, Scratch, ScratchFile, Spill, Writer};

use crate::error::Result;
use crate::model::options::model_error;

/// A place for pairs: memory beside `memory`, of the same statement, and its spill folder. Nothing
/// more is written there once `cancel` is set.
pub fn spill(
    memory: &MemoryReservation,
    disk: &Arc<DiskManager>,
    cancel: &Arc<AtomicBool>,
) -> Spill {
    Spill::new(Arc::new(Room {
        memory: memory.new_empty(),
        disk: Arc::clone(disk),
        cancel: Arc::clone(cancel),
    }))
}

/// Reads the pairs of a model, without the parts of their weights.
///
/// # Errors
/// When the store cannot be read, the file is damaged, or the spill folder is full.
pub async fn read(model: &LoadedModel, spill: &Spill) -> Result<Pairs> {
    let mut writer = Writer::new(spill, 0);
    let mut pieces = model.pairs().await?;
    while let Some(rows) = pieces.try_next().await? {
        for edge in &rows.edges {
            writer.add(edge, &[]);
        }
    }
    writer.pairs().map_err(model_error)
}

#[derive(Debug)]
struct Room {
    memory: MemoryReservation,
    disk: Arc<DiskManager>,
    cancel: Arc<AtomicBool>,
}

impl Scratch for Room {
    fn take(&self, bytes: usize) -> bool {
        self.memory.try_grow(bytes).is_ok()
    }

    fn give(&self, bytes: usize) {
        // What was not taken cannot be given back, and nobody asks for that.
        let _ = self.memory.try_shrink(bytes);
    }

    fn file(&self) -> std::result::Result<Arc<dyn ScratchFile>, ModelError> {
        let file = self.disk.create_tmp_file("entity resolution").map_err(failed)?;
        let reader = match file.path() {
            Some(path) => File::open(path).map_err(failed)?,
            None => return Err(failed("the spill folder is no folder of this machine")),
        };
        let writer = file.open_writer().map_err(failed)?;
        Ok(Arc::new(Spilled {
            reader: Mutex::new(reader),
            writer: Mutex::new((writer, 0)),
            _file: file,
        }))
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}

/// A file of the spill folder, counted there; it is removed with the last that holds it.
struct Spilled {
    reader: Mutex<File>,
    /// What writes at the end, and where that is.
    writer: Mutex<(Box<dyn SpillWriter>, u64)>,
    _file: Arc<dyn SpillFile>,
}

impl fmt::Debug for Spilled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Spilled")
    }
}

impl ScratchFile for Spilled {
    fn append(&self, bytes: &[u8]) -> std::result::Result<u64, ModelError> {
        let mut writer = self.writer.lock();
        let (file, end) = &mut *writer;
        file.write_all(bytes).map_err(failed)?;
        let from = *end;
        *end += bytes.len() as u64;
        Ok(from)
    }

    fn read(&self, from: u64, bytes: &mut [u8]) -> std::result::Result<(), ModelError> {
        let mut reader = self.reader.lock();
        reader.seek(SeekFrom::Start(from)).map_err(failed)?;
        reader.read_exact(bytes).map_err(failed)
    }
}

fn failed(error: impl fmt::Display) -> ModelError {
    ModelError::Spill(error.to_string())
}

#[cfg(test)]
mod tests {
    use datafusion::execution::disk_manager::DiskManagerBuilder;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};
    use udfs::model::entity_resolution::score::Edge;

    use super::*;
    use crate::error::Error;

    fn written(memory_bytes: usize, disk_bytes: u64) -> Result<(Pairs, Arc<DiskManager>)> {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(memory_bytes));
        let memory = MemoryConsumer::new("test").register(&pool);
        let disk = DiskManagerBuilder::default().with_max_temp_directory_size(disk_bytes);
        let disk = Arc::new(disk.build().unwrap());
        let mut writer = Writer::new(&spill(&memory, &disk, &Arc::default()), 0);
        for right in 1..100_000 {
            writer.add(&Edge { left: 0, right, weight: right as f32, levels: 7 }, &[]);
        }
        Ok((writer.pairs().map_err(model_error)?, disk))
    }

    #[test]
    fn pairs_go_to_the_spill_folder_and_leave_it() {
        for (memory, is_spilled) in [(1 << 30, false), (1 << 20, true), (0, true)] {
            let (pairs, disk) = written(memory, 1 << 30).unwrap();
            assert_eq!(disk.used_disk_space() > 0, is_spilled);
            let mut next = 1;
            pairs
                .each(|edge| {
                    assert_eq!((edge.right, edge.weight), (next, next as f32));
                    next += 1;
                })
                .unwrap();
            assert_eq!(next, 100_000);
            drop(pairs);
            assert_eq!(disk.used_disk_space(), 0);
        }
    }

    #[test]
    fn a_full_spill_folder_is_a_limit() {
        let error = written(0, 10_000).unwrap_err();
        assert!(matches!(&error, Error::Exhausted { .. }), "{error}");
        assert!(error.to_string().contains("on disk"), "{error}");
    }
}
