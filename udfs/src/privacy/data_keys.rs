//! Data keys of one batch, opened once each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use datafusion_common::{Result, exec_err};

use super::key::{Key, KeyRing, Mode};
use super::seal::{Form, Opener};

/// What was made of each data key, by the data key as it is kept.
pub(super) struct DataKeys<T> {
    function: &'static str,
    opener: Opener,
    made: HashMap<String, T>,
}

impl<T> DataKeys<T> {
    /// Data keys that were sealed under any generation of `ring`.
    pub(super) fn new(function: &'static str, ring: &KeyRing) -> Self {
        let opener = Opener::new(function, ring, &[Mode::DataKey], Form::Text);
        Self { function, opener, made: HashMap::new() }
    }

    /// What `make` makes of a data key.
    ///
    /// # Errors
    /// When it is no data key, or was sealed under another key.
    pub(super) fn with(
        &mut self,
        sealed: &str,
        make: impl FnOnce(&Arc<Key>) -> T,
    ) -> Result<&mut T> {
        match self.made.entry(sealed.to_owned()) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let mut secret = self.opener.open(sealed.as_bytes())?.value;
                if secret.len() != 32 {
                    return exec_err!("{}: a data key has not 32 bytes", self.function);
                }
                let key = Key::new("data key", &secret);
                secret.fill(0);
                std::hint::black_box(&secret);
                Ok(place.insert(make(&Arc::new(key?))))
            }
        }
    }
}
