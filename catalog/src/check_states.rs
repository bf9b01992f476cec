//! What is known of each file of a table, so that checking the table reads new files alone: one
//! object a table in the warehouse, beside the results of its checks.
//!
//! A state is the value of one aggregate over the rows of one file. It is a fact about a file that
//! does not change, under a key that says which aggregate it is, so states need no agreement: who
//! writes last may drop what another has found out, which is then found out again. The object is
//! an Arrow stream with a row for each file, behind a checksum; one that cannot be read is taken
//! for one that is not there.
//!
//! A state may be a value of a person. So states are put over exactly those that were seen before
//! the look for erasures, as a head is, and an erasure puts none in their place, also where there
//! were none: who has looked too early loses the race, and whoever is killed then has kept nothing.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use datafusion::common::ScalarValue;
use sha2::{Digest, Sha256};

use crate::Catalog;
use crate::erasures_seen::ErasuresSeen;
use crate::error::{Error, Result};
use crate::registry::ObjectName;
use crate::registry::change::TRIES;
use crate::registry::head::{Heads, key};

/// What the object begins with; another number is another form.
const MAGIC: &[u8; 8] = b"ATCHKST2";
/// Bytes of a checksum.
const DIGEST_BYTES: usize = 32;
/// Bytes of an id, different for each write: some stores tell contents apart, and not writes.
const ID_BYTES: usize = 16;
/// The folder of the objects, each a head.
const FOLDER: &str = "_attune/check_states";
/// A value that is larger is not kept: its file is read again.
const VALUE_BYTES_MAX: usize = 64 * 1_024;
/// Bytes of a table's object. What does not fit is not kept.
const OBJECT_BYTES_MAX: usize = 64 * 1_024 * 1_024;
/// How often the files that are kept are made fewer, until they fit.
const CUTS_MAX: usize = 8;

/// The states of a table's files: by file, then by the key of an aggregate.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CheckStates {
    by_file: HashMap<String, BTreeMap<String, ScalarValue>>,
}

impl CheckStates {
    /// The value of an aggregate over a file, where it is known.
    pub fn get(&self, file: &str, key: &str) -> Option<&ScalarValue> {
        self.by_file.get(file)?.get(key)
    }

    /// Notes the value of an aggregate over a file.
    pub fn put(&mut self, file: &str, key: &str, value: ScalarValue) {
        let known = self.by_file.entry(file.to_owned()).or_default();
        known.insert(key.to_owned(), value);
    }

    /// Forgets the value of an aggregate over a file.
    pub fn forget(&mut self, file: &str, key: &str) {
        if let Some(known) = self.by_file.get_mut(file) {
            known.remove(key);
        }
    }

    /// The states of these files under these keys.
    pub fn only(&self, files: &[String], keys: &[&str]) -> Self {
        let mut kept = Self::default();
        for file in files {
            let Some(known) = self.by_file.get(file) else { continue };
            for key in keys {
                if let Some(value) = known.get(*key) {
                    kept.put(file, key, value.clone());
                }
            }
        }
        kept
    }

    /// The states as bytes, those of fewer files when they are too many.
    ///
    /// # Errors
    /// When a value has no Arrow form.
    fn to_bytes(&self, bytes_max: usize) -> datafusion::error::Result<Vec<u8>> {
        let mut files: Vec<&String> = self.by_file.keys().collect();
        files.sort_unstable();
        for _ in 0..CUTS_MAX {
            let bytes = written(&self.rows(&files)?)?;
            if bytes.len() <= bytes_max {
                return Ok(bytes);
            }
            // A tenth less than what would fit if all files were alike.
            files.truncate(files.len() * bytes_max / bytes.len() * 9 / 10);
        }
        written(&self.rows(&[])?)
    }

    /// A row for each file: its id, and for each key whether the value is known, and the value.
    fn rows(&self, files: &[&String]) -> datafusion::error::Result<RecordBatch> {
        let mut types = BTreeMap::new();
        for file in files {
            let values = self.by_file[*file].iter();
            types.extend(values.map(|(key, value)| (key.as_str(), value.data_type())));
        }
        let ids = files.iter().map(|file| Some(file.as_str())).collect::<StringArray>();
        let mut fields = vec![Field::new("file", ids.data_type().clone(), false)];
        let mut columns = vec![Arc::new(ids) as ArrayRef];
        for (key, data_type) in types {
            let values = files.iter().map(|file| {
                let value = self.by_file[*file].get(key);
                let value = value.filter(|value| value.size() <= VALUE_BYTES_MAX);
                value.filter(|value| value.data_type() == data_type)
            });
            let values: Vec<Option<&ScalarValue>> = values.collect();
            let known: BooleanArray = values.iter().map(|value| Some(value.is_some())).collect();
            let null = ScalarValue::try_from(&data_type)?;
            let values = values.into_iter().map(|value| value.unwrap_or(&null).clone());
            let values = ScalarValue::iter_to_array(values)?;
            fields.push(Field::new(format!("{key} known"), known.data_type().clone(), false));
            fields.push(Field::new(key, values.data_type().clone(), true));
            columns.extend([Arc::new(known) as ArrayRef, values]);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` when these are other bytes.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (digest, content) = bytes.strip_prefix(MAGIC)?.split_at_checked(DIGEST_BYTES)?;
        if Sha256::digest(content).as_slice() != digest {
            return None;
        }
        let (_, rows) = content.split_at_checked(ID_BYTES)?;
        let mut states = Self::default();
        for batch in StreamReader::try_new(Cursor::new(rows), None).ok()? {
            states.add(&batch.ok()?)?;
        }
        Some(states)
    }

    fn add(&mut self, batch: &RecordBatch) -> Option<()> {
        let files = batch.column_by_name("file")?.as_string_opt::<i32>()?;
        let schema = batch.schema();
        for (field, values) in schema.fields().iter().zip(batch.columns()) {
            let Some(known) = batch.column_by_name(&format!("{} known", field.name())) else {
                continue;
            };
            let known = known.as_boolean_opt()?;
            for row in (0..batch.num_rows()).filter(|row| known.value(*row)) {
                // What it is cut out of holds all that was read, and would count as its own.
                let value = ScalarValue::try_from_array(values, row).ok()?.compacted();
                self.put(files.value(row), field.name(), value);
            }
        }
        Some(())
    }
}

fn written(rows: &RecordBatch) -> datafusion::error::Result<Vec<u8>> {
    let mut content = uuid::Uuid::new_v4().into_bytes().to_vec();
    let mut writer = StreamWriter::try_new(&mut content, &rows.schema())?;
    writer.write(rows)?;
    writer.finish()?;
    drop(writer);
    let digest = Sha256::digest(&content);
    Ok([MAGIC.as_slice(), digest.as_slice(), &content].concat())
}

impl Catalog {
    /// What is known of a table's files. What cannot be read is not known.
    pub async fn check_states(&self, table: &ObjectName) -> CheckStates {
        match self.kept_states().read(&key(&table.schema, &table.name)).await {
            Ok(Some((bytes, _))) => CheckStates::from_bytes(&bytes).unwrap_or_else(|| {
                tracing::warn!(%table, "what was known of the table's files cannot be read");
                CheckStates::default()
            }),
            Ok(None) => CheckStates::default(),
            Err(error) => {
                tracing::warn!(%error, %table, "what is known of the table's files was not read");
                CheckStates::default()
            }
        }
    }

    /// Keeps what is known of a table's files, in place of what was known.
    ///
    /// # Errors
    /// `Erased` when an erasure has been at the table since the files were read, which may have
    /// removed what was known already; when the warehouse cannot be written, or others write the
    /// same again and again.
    pub async fn keep_check_states(
        &self,
        table: &ObjectName,
        states: &CheckStates,
        seen: &ErasuresSeen,
    ) -> Result<()> {
        self.writable().await?;
        self.put_check_states(table, states, Some(seen)).await
    }

    /// Forgets what is known of a table's files. Also where nothing is that is put anew: whoever is
    /// keeping something has seen what was there before.
    pub(crate) async fn forget_check_states(&self, table: &ObjectName) -> Result<()> {
        self.put_check_states(table, &CheckStates::default(), None).await?;
        self.forget_earlier_states(table).await
    }

    /// Forgets what is known of the files of a table that goes, where something is.
    pub(crate) async fn end_check_states(&self, table: &ObjectName) -> Result<()> {
        match self.kept_states().revision(&key(&table.schema, &table.name)).await? {
            Some(_) => self.forget_check_states(table).await,
            None => self.forget_earlier_states(table).await,
        }
    }

    /// Removes what an earlier version kept.
    async fn forget_earlier_states(&self, table: &ObjectName) -> Result<()> {
        let earlier = format!("{FOLDER}/{}.arrow", key(&table.schema, &table.name));
        self.warehouse.place().child(&earlier).remove().await
    }

    async fn put_check_states(
        &self,
        table: &ObjectName,
        states: &CheckStates,
        seen: Option<&ErasuresSeen>,
    ) -> Result<()> {
        let content = Bytes::from(states.to_bytes(OBJECT_BYTES_MAX)?);
        let (kept, of) = (self.kept_states(), key(&table.schema, &table.name));
        for _ in 0..TRIES {
            let before = kept.revision(&of).await?;
            // Not before it is known what these are put over: a later erasure changes that.
            if let Some(seen) = seen {
                self.check_erasures(table, seen).await?;
            }
            if kept.write(&of, content.clone(), before.as_ref()).await?.is_some() {
                // A local disk has what was there before.
                return kept.blank(&of).await;
            }
        }
        Err(Error::Conflict { name: format!("what is known of the files of {table}") })
    }

    fn kept_states(&self) -> Heads {
        Heads::new(self.warehouse.place().child(FOLDER))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float64Array, StructArray};
    use arrow::datatypes::DataType;

    use super::*;
    use crate::testing::{Shared, TestClock, main, open_folder};

    fn states() -> CheckStates {
        let mut states = CheckStates::default();
        states.put("a", "count", ScalarValue::Int64(Some(3)));
        states.put("a", "least", ScalarValue::Utf8View(None));
        states.put("b", "least", ScalarValue::from("x"));
        states.put("b", "most", ScalarValue::Decimal128(Some(15), 20, 1));
        states
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut written = states();
        // Of two types under one key one is kept.
        written.by_file.get_mut("b").unwrap().remove("least");
        written.put("b", "sketch", ScalarValue::Binary(Some(vec![0, 255])));
        let read = CheckStates::from_bytes(&written.to_bytes(OBJECT_BYTES_MAX).unwrap()).unwrap();
        assert_eq!(read, written);
        assert_eq!(read.get("a", "least"), Some(&ScalarValue::Utf8View(None)));
        assert_eq!(read.get("a", "most"), None);
    }

    #[tokio::test]
    async fn who_has_looked_before_they_were_forgotten_keeps_none() {
        let folder = tempfile::tempdir().unwrap();
        let servers =
            [Shared::new().open().await, open_folder(folder.path(), &TestClock::default()).await];
        for catalog in servers {
            let (table, of) = (main("t"), key("main", "t"));
            let (kept, none) = (catalog.kept_states(), CheckStates::default());
            let late = Bytes::from(states().to_bytes(OBJECT_BYTES_MAX).unwrap());
            catalog.end_check_states(&table).await.unwrap();
            assert_eq!(kept.revision(&of).await.unwrap(), None);
            for is_kept in [false, true] {
                if is_kept {
                    let seen = ErasuresSeen::default();
                    catalog.keep_check_states(&table, &states(), &seen).await.unwrap();
                    assert_ne!(catalog.check_states(&table).await, none);
                }
                let before = kept.revision(&of).await.unwrap();
                catalog.forget_check_states(&table).await.unwrap();
                let lost = kept.write(&of, late.clone(), before.as_ref()).await.unwrap();
                assert_eq!(lost, None);
                assert_eq!(catalog.check_states(&table).await, none);
            }
            // A local disk keeps what a head was before, but for its content.
            let objects = catalog.objects_in(FOLDER).await.unwrap();
            let held = objects.iter().filter(|object| object.size > 0).count();
            assert_eq!(held, 1, "{objects:?}");
        }
        // A store that tells contents apart tells these apart.
        let none = || CheckStates::default().to_bytes(OBJECT_BYTES_MAX).unwrap();
        assert_ne!(none(), none());
    }

    #[tokio::test]
    async fn states_that_an_earlier_version_kept_are_forgotten_too() {
        let shared = Shared::new();
        let catalog = shared.open().await;
        let earlier = catalog.warehouse.place().child(FOLDER).child("main.t.arrow");
        for is_dropped in [true, false] {
            assert!(earlier.create("ATCHKST1").await.unwrap());
            let forgotten = match is_dropped {
                true => catalog.end_check_states(&main("t")).await,
                false => catalog.forget_check_states(&main("t")).await,
            };
            forgotten.unwrap();
            assert!(earlier.read_if_exists().await.unwrap().is_none());
        }
    }

    #[test]
    fn damaged_bytes_are_not_read() {
        let bytes = states().to_bytes(OBJECT_BYTES_MAX).unwrap();
        for at in [0, 8, 40, bytes.len() / 2, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(CheckStates::from_bytes(&damaged), None, "{at}");
            assert_eq!(CheckStates::from_bytes(&bytes[..at]), None, "{at}");
        }
    }

    #[test]
    fn what_is_large_is_not_kept() {
        let mut states = states();
        states.put("b", "long", ScalarValue::Utf8(Some("x".repeat(VALUE_BYTES_MAX + 1))));
        let read = CheckStates::from_bytes(&states.to_bytes(OBJECT_BYTES_MAX).unwrap()).unwrap();
        assert_eq!(read.get("b", "long"), None);
        let mut states = CheckStates::default();
        for file in 0..1_000 {
            states.put(&format!("{file:04}"), "long", ScalarValue::from("x".repeat(1_000)));
        }
        let bytes = states.to_bytes(500_000).unwrap();
        assert!(bytes.len() <= 500_000);
        let read = CheckStates::from_bytes(&bytes).unwrap();
        assert!((200..500).contains(&read.by_file.len()), "{}", read.by_file.len());
    }

    #[test]
    fn what_is_small_is_kept_however_much_lies_beside_it() {
        let state = || {
            let part = Field::new("0", DataType::Float64, true);
            let parts = vec![Arc::new(Float64Array::from(vec![1.5])) as ArrayRef];
            let state = StructArray::try_new(vec![part].into(), parts, None).unwrap();
            ScalarValue::Struct(Arc::new(state))
        };
        let mut states = CheckStates::default();
        for file in 0..1_000 {
            states.put(&format!("{file:04}"), "average", state());
            states.put(&format!("{file:04}"), "long", ScalarValue::from("x".repeat(1_000)));
        }
        for _ in 0..2 {
            let bytes = states.to_bytes(OBJECT_BYTES_MAX).unwrap();
            states = CheckStates::from_bytes(&bytes).unwrap();
            assert_eq!(states.get("0999", "average"), Some(&state()));
        }
    }

    #[test]
    fn files_and_keys_that_are_gone_are_dropped() {
        let kept = states().only(&["a".into(), "c".into()], &["count", "other"]);
        assert_eq!(kept.by_file.len(), 1);
        assert_eq!(kept.get("a", "count"), Some(&ScalarValue::Int64(Some(3))));
        assert_eq!(kept.get("a", "least"), None);
        let mut kept = kept;
        kept.forget("a", "count");
        kept.forget("c", "count");
        assert_eq!(kept.get("a", "count"), None);
    }
}
