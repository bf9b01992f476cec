//! Files that are read as they were listed, or not at all.
//!
//! Where FORGET SUBJECT may put another file in the place of one, a scan that has begun would read
//! the rest of the old file in the new one: rows twice, or not at all. So each request says which
//! state of the file it means (If-Match with the ETag of the listing). A store that has another one
//! refuses, the statement fails with a hint to run it again, and the next one lists anew. A store
//! whose listings have no ETag cannot be asked so.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use datafusion::datasource::listing::PartitionedFile;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Whether a file was found to be another one than was listed.
pub(crate) type Changed = Arc<AtomicBool>;

/// The states in which the files of one scan are read.
#[derive(Debug)]
pub(crate) struct Pins {
    tags: HashMap<Path, String>,
    changed: Changed,
}

impl Pins {
    /// The files as they were listed; `changed` is told when one is another by now.
    pub fn of(files: &[PartitionedFile], changed: &Changed) -> Arc<Self> {
        let tag = |file: &PartitionedFile| {
            let meta = &file.object_meta;
            Some((meta.location.clone(), meta.e_tag.clone()?))
        };
        let tags = files.iter().filter_map(tag).collect();
        Arc::new(Self { tags, changed: Arc::clone(changed) })
    }

    /// The store in which these files are the ones that were listed.
    pub fn over(self: &Arc<Self>, store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(Pinned { store, pins: Arc::clone(self) })
    }
}

/// `get_ranges` is the trait's own: a store's short cut would not ask for a state.
#[derive(Debug)]
struct Pinned {
    store: Arc<dyn ObjectStore>,
    pins: Arc<Pins>,
}

impl fmt::Display for Pinned {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.store, formatter)
    }
}

#[async_trait]
impl ObjectStore for Pinned {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let Some(tag) = self.pins.tags.get(location).filter(|_| options.if_match.is_none()) else {
            return self.store.get_opts(location, options).await;
        };
        let options = GetOptions { if_match: Some(tag.clone()), ..options };
        let found = self.store.get_opts(location, options).await;
        if matches!(found, Err(Error::Precondition { .. } | Error::NotFound { .. })) {
            self.pins.changed.store(true, Ordering::Relaxed);
        }
        found
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_file_that_was_replaced_is_not_read_on() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("t/a.csv");
        store.put(&path, "id\nann\n".into()).await.unwrap();
        let file = PartitionedFile::new_from_meta(store.head(&path).await.unwrap());
        let changed = Changed::default();
        let pinned = Pins::of(&[file], &changed).over(Arc::clone(&store));
        assert_eq!(pinned.get_range(&path, 0..2).await.unwrap().as_ref(), b"id");
        assert!(!changed.load(Ordering::Relaxed));
        store.put(&path, "id\nbob\n".into()).await.unwrap();
        let rest = pinned.get_ranges(&path, &[3..6, 6..7]).await;
        assert!(matches!(rest, Err(Error::Precondition { .. })), "{rest:?}");
        assert!(changed.load(Ordering::Relaxed));
        // What was not listed is read as it is.
        let other = Path::from("t/b.csv");
        store.put(&other, "id\n".into()).await.unwrap();
        assert!(pinned.get(&other).await.is_ok());
    }
}
