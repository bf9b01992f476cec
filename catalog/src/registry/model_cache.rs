//! Models in memory: at most so many bytes, the least recently used goes first.
//!
//! Two statements that need one version load it once. A model that was evicted but is still in
//! use is not loaded a second time either.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use udfs::model::Model;

use super::manifest::Manifest;
use crate::error::Result;

type Loaded = (Arc<Model>, Arc<Manifest>);

/// The cache of loaded models, by the version's own id.
pub struct ModelCache {
    bytes_max: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    clock: u64,
    bytes: usize,
    models: HashMap<String, Entry>,
    used_elsewhere: HashMap<String, (Weak<Model>, Arc<Manifest>)>,
    loading: HashMap<String, Arc<tokio::sync::Mutex<()>>>,
}

struct Entry {
    used: u64,
    bytes: usize,
    loaded: Loaded,
}

impl ModelCache {
    /// A cache of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, held: Mutex::default() }
    }

    /// The bytes that cached models take.
    pub fn bytes(&self) -> usize {
        self.held.lock().bytes
    }

    /// The model with that id; loads it when nobody has it.
    ///
    /// # Errors
    /// What `load` says. Others who wait for the same model then try themselves.
    pub async fn get(
        &self,
        id: &str,
        load: impl Future<Output = Result<Loaded>>,
    ) -> Result<Loaded> {
        if let Some(found) = self.held.lock().find(id) {
            return Ok(found);
        }
        let turn = Arc::clone(self.held.lock().loading.entry(id.to_owned()).or_default());
        let result = {
            let _turn = turn.lock().await;
            let found = self.held.lock().find(id);
            match found {
                Some(found) => Ok(found),
                None => load.await.inspect(|loaded| self.put(id, loaded)),
            }
        };
        let mut held = self.held.lock();
        // The map and this call have one each; more means that somebody waits.
        if Arc::strong_count(&turn) <= 2 {
            held.loading.remove(id);
        }
        result
    }

    /// Forgets a model; who uses it now goes on using it.
    pub fn forget(&self, id: &str) {
        let mut held = self.held.lock();
        held.used_elsewhere.remove(id);
        if let Some(entry) = held.models.remove(id) {
            held.bytes = held.bytes.saturating_sub(entry.bytes);
        }
    }

    /// Keeps a model that was just made.
    pub fn put(&self, id: &str, loaded: &Loaded) {
        let mut held = self.held.lock();
        held.used_elsewhere.retain(|_, (model, _)| model.strong_count() > 0);
        let weak = (Arc::downgrade(&loaded.0), Arc::clone(&loaded.1));
        held.used_elsewhere.insert(id.to_owned(), weak);
        held.keep(id, loaded, self.bytes_max);
    }
}

impl Held {
    fn find(&mut self, id: &str) -> Option<Loaded> {
        self.clock += 1;
        if let Some(entry) = self.models.get_mut(id) {
            entry.used = self.clock;
            return Some(entry.loaded.clone());
        }
        let (model, manifest) = self.used_elsewhere.get(id)?;
        Some((model.upgrade()?, Arc::clone(manifest)))
    }

    fn keep(&mut self, id: &str, loaded: &Loaded, bytes_max: usize) {
        let bytes = loaded.0.memory_bytes();
        if bytes > bytes_max || self.models.contains_key(id) {
            return;
        }
        while self.bytes.saturating_add(bytes) > bytes_max {
            let oldest = self.models.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else { break };
            if let Some(entry) = self.models.remove(&oldest) {
                self.bytes = self.bytes.saturating_sub(entry.bytes);
            }
        }
        self.clock += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        let entry = Entry { used: self.clock, bytes, loaded: loaded.clone() };
        self.models.insert(id.to_owned(), entry);
    }
}
