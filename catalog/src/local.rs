//! The local disk, visible below the configured folders only.
//!
//! Paths are absolute (without the leading `/`), as DataFusion's listing expects of `file:///`.

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use parking_lot::RwLock;

/// A `LocalFileSystem` that refuses every path outside its roots.
#[derive(Debug)]
pub struct GuardedLocal {
    disk: LocalFileSystem,
    roots: RwLock<Vec<Path>>,
}

impl GuardedLocal {
    /// A store that allows nothing yet.
    pub fn new() -> Self {
        Self { disk: LocalFileSystem::new(), roots: RwLock::default() }
    }

    /// Allows a folder and all below it.
    pub fn allow(&self, root: Path) {
        let mut roots = self.roots.write();
        if !roots.contains(&root) {
            roots.push(root);
        }
    }

    /// Whether a path lies in an allowed folder.
    pub fn allows(&self, path: &Path) -> bool {
        self.roots.read().iter().any(|root| path.prefix_matches(root))
    }

    fn check(&self, path: &Path) -> Result<()> {
        if self.allows(path) {
            return Ok(());
        }
        Err(Error::PermissionDenied {
            path: path.to_string(),
            source: "it lies outside the configured folders".into(),
        })
    }
}

impl Default for GuardedLocal {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for GuardedLocal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("local disk")
    }
}

fn refused<T: Send + 'static>(error: Error) -> BoxStream<'static, Result<T>> {
    futures::stream::once(async move { Err(error) }).boxed()
}

#[async_trait]
impl ObjectStore for GuardedLocal {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.check(location)?;
        self.disk.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.check(location)?;
        self.disk.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check(location)?;
        self.disk.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.check(location)?;
        self.disk.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let roots = self.roots.read().clone();
        let checked = locations.map(move |location| {
            let location = location?;
            if roots.iter().any(|root| location.prefix_matches(root)) {
                return Ok(location);
            }
            Err(Error::PermissionDenied {
                path: location.to_string(),
                source: "it lies outside the configured folders".into(),
            })
        });
        self.disk.delete_stream(checked.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.check(prefix.unwrap_or(&Path::default())) {
            Ok(()) => self.disk.list(prefix),
            Err(error) => refused(error),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.check(prefix.unwrap_or(&Path::default())) {
            Ok(()) => self.disk.list_with_offset(prefix, offset),
            Err(error) => refused(error),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.check(prefix.unwrap_or(&Path::default()))?;
        self.disk.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.check(from)?;
        self.check(to)?;
        self.disk.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.check(from)?;
        self.check(to)?;
        self.disk.rename_opts(from, to, options).await
    }
}
