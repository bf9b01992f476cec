//! Object stores: from a URL and credentials to a place that can be read and written.
//!
//! Only configured places exist: the registry that DataFusion asks holds the configured buckets
//! and one local store that answers below the configured folders only, so that no statement can
//! read a file of the server or make it call an address of the caller's choice.
//!
//! Architecture invariant: this crate is the only one that touches storage.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreRegistry;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    PutResult, RetryConfig,
};
use parking_lot::RwLock;
use url::Url;

use crate::bucket::BucketSettings;
use crate::config::LakeAccess;
use crate::error::{Error, Result, root_cause};
use crate::local::GuardedLocal;

/// A text that no `Debug`, log or error shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// Where a store is and how to speak to it.
#[derive(Debug, Clone, Default)]
pub struct StoreConfig {
    /// `s3://bucket/prefix`, `file:///folder` or a local path.
    pub url: String,
    /// The S3-compatible endpoint, `http(s)://host:port`; AWS itself when absent.
    pub endpoint: Option<String>,
    /// The region; `us-east-1` when absent, which most compatible stores accept.
    pub region: Option<String>,
    /// The access key id.
    pub access_key_id: Option<String>,
    /// The secret access key.
    pub secret_access_key: Option<Secret>,
    /// The token of temporary credentials.
    pub session_token: Option<Secret>,
    /// `endpoint/bucket` instead of `bucket.endpoint`.
    pub path_style: bool,
    /// Plain HTTP.
    pub allow_http: bool,
}

/// A folder (or object) in a store.
#[derive(Debug, Clone)]
pub struct Place {
    /// The full URL; a folder's ends with `/`.
    pub url: Url,
    /// The store that holds it.
    pub store: Arc<dyn ObjectStore>,
    /// The path inside the store.
    pub path: Path,
}

impl Place {
    /// The place `name` below this folder; `name` may hold several segments.
    pub fn child(&self, name: &str) -> Self {
        let mut url = self.url.clone();
        let mut path = self.path.clone();
        for part in name.split('/').filter(|part| !part.is_empty()) {
            path = path.join(part);
            if let Ok(mut segments) = url.path_segments_mut() {
                segments.pop_if_empty().push(part);
            }
        }
        Self { url, store: Arc::clone(&self.store), path }
    }

    /// Whether one of two places is, or lies in, the other.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let (one, two) = (&self.path, &other.path);
        let nested = one.prefix_matches(two) || two.prefix_matches(one);
        nested && store_key(&self.url) == store_key(&other.url)
    }

    /// The place written as a folder: its URL ends with `/`.
    pub fn folder(mut self) -> Self {
        if let Ok(mut segments) = self.url.path_segments_mut() {
            segments.pop_if_empty().push("");
        }
        self
    }

    /// The object's content.
    ///
    /// # Errors
    /// When the store cannot be reached or the object does not exist.
    pub async fn read(&self) -> Result<Bytes> {
        let wrong = |error| Error::store(self.url.as_str(), &error);
        self.store.get(&self.path).await.map_err(wrong)?.bytes().await.map_err(wrong)
    }

    /// The object's content, or `None` when there is no such object.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn read_if_exists(&self) -> Result<Option<Bytes>> {
        match self.store.get(&self.path).await {
            Ok(found) => {
                found.bytes().await.map(Some).map_err(|e| Error::store(self.url.as_str(), &e))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::store(self.url.as_str(), &error)),
        }
    }

    /// Writes the object only if it does not exist; `false` when it does.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn create(&self, content: impl Into<PutPayload> + Send) -> Result<bool> {
        self.put_new(content.into()).await.map(|written| written.is_some())
    }

    /// The same with what the store says of the object; `None` when there was one.
    async fn put_new(&self, content: PutPayload) -> Result<Option<PutResult>> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.path, content, options).await {
            Ok(written) => Ok(Some(written)),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(None),
            // Some stores answer a lost If-None-Match race with "precondition failed".
            Err(object_store::Error::Precondition { .. }) => Ok(None),
            Err(error) => Err(Error::store(self.url.as_str(), &error)),
        }
    }

    /// Removes the object; a missing one is no error.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn remove(&self) -> Result<()> {
        match self.store.delete(&self.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::store(self.url.as_str(), &error)),
        }
    }

    /// Whether the place is on a local disk.
    pub fn is_local(&self) -> bool {
        self.url.scheme() == "file"
    }
}

/// A bucket's store.
#[derive(Debug)]
struct Bucket {
    /// What it was opened with.
    config: StoreConfig,
    store: Arc<dyn ObjectStore>,
    /// What it says of itself, if it can be asked.
    settings: Option<Arc<BucketSettings>>,
}

/// The configured stores, and DataFusion's registry of them.
#[derive(Debug)]
pub struct Stores {
    buckets: RwLock<BTreeMap<String, Bucket>>,
    local: Arc<GuardedLocal>,
    lakes: RwLock<Vec<(Place, LakeAccess)>>,
}

impl Default for Stores {
    fn default() -> Self {
        let (buckets, lakes) = (RwLock::default(), RwLock::default());
        Self { buckets, local: Arc::new(GuardedLocal::new()), lakes }
    }
}

impl Stores {
    /// Opens a configured store and makes it known.
    ///
    /// # Errors
    /// When the URL is no `s3://`, `file://` or path, or its settings contradict those of another
    /// place in the same bucket.
    pub fn open(&self, config: &StoreConfig) -> Result<Place> {
        let url = parse_location(&config.url)?;
        match url.scheme() {
            "file" => {
                let path = store_path(&url)?;
                self.local.allow(path.clone());
                let store: Arc<dyn ObjectStore> = Arc::clone(&self.local) as _;
                Ok(Place { url, store, path }.folder())
            }
            "s3" | "s3a" => {
                let store = self.open_bucket(&url, config)?;
                let path = store_path(&url)?;
                Ok(Place { url, store, path }.folder())
            }
            other => Err(Error::Location {
                url: config.url.clone(),
                reason: format!("the scheme {other} is not supported"),
            }),
        }
    }

    /// Notes what Attune may do with the files of a lake.
    pub(crate) fn note_lake(&self, place: &Place, access: LakeAccess) {
        self.lakes.write().push((place.clone(), access));
    }

    /// The lake around an object that Attune may rewrite; `None` when it may not. The innermost
    /// lake says so, and of two lakes of one place the stricter.
    pub(crate) fn rewritable_lake(&self, object: &Place) -> Option<Place> {
        let lakes = self.lakes.read();
        let around = |lake: &Place| object.meets(lake) && object.path.prefix_matches(&lake.path);
        let depth = |lake: &Place| lake.path.parts().count();
        let around: Vec<_> = lakes.iter().filter(|(lake, _)| around(lake)).collect();
        let innermost = around.iter().map(|(lake, _)| depth(lake)).max()?;
        let mut own = around.iter().filter(|(lake, _)| depth(lake) == innermost);
        let is_rewritable = own.clone().all(|(_, access)| *access == LakeAccess::Rewrite);
        own.next().filter(|_| is_rewritable).map(|(lake, _)| lake.clone())
    }

    /// Whether Attune may rewrite something at a place, or below it.
    pub(crate) fn rewrites_at(&self, place: &Place) -> bool {
        let lakes = self.lakes.read();
        lakes.iter().any(|(lake, access)| *access == LakeAccess::Rewrite && lake.meets(place))
    }

    fn open_bucket(&self, url: &Url, config: &StoreConfig) -> Result<Arc<dyn ObjectStore>> {
        let key = store_key(url);
        if let Some(bucket) = self.buckets.read().get(&key) {
            if same_access(&bucket.config, config) {
                return Ok(Arc::clone(&bucket.store));
            }
            return Err(Error::Location {
                url: config.url.clone(),
                reason: "the same bucket is configured twice with different settings".into(),
            });
        }
        let bucket = s3_bucket(url, config)?;
        let store = Arc::clone(&bucket.store);
        self.buckets.write().insert(key, bucket);
        Ok(store)
    }

    /// The settings of the bucket that a place is in; `None` where there is none to ask.
    pub(crate) fn bucket_settings(&self, place: &Place) -> Option<Arc<BucketSettings>> {
        self.buckets.read().get(&store_key(&place.url))?.settings.clone()
    }

    /// Finds a location below a configured place.
    ///
    /// A relative path is taken below `base`. The URL keeps a trailing `/`.
    ///
    /// # Errors
    /// When no configured store holds the location.
    pub fn locate(&self, location: &str, base: Option<&Place>) -> Result<Place> {
        let url = match base {
            Some(base) if is_relative(location) => base.url.join(location).map_err(|error| {
                Error::Location { url: location.into(), reason: error.to_string() }
            })?,
            _ => parse_location(location)?,
        };
        let path = store_path(&url)?;
        if url.scheme() == "file" {
            if !self.local.allows(&path) {
                return Err(Error::Location {
                    url: location.into(),
                    reason: "it lies outside the configured folders".into(),
                });
            }
            return Ok(Place { url, store: Arc::clone(&self.local) as _, path });
        }
        let buckets = self.buckets.read();
        match buckets.get(&store_key(&url)) {
            Some(bucket) => Ok(Place { store: Arc::clone(&bucket.store), url, path }),
            None => Err(Error::Location {
                url: location.into(),
                reason: "no lake or warehouse is configured there".into(),
            }),
        }
    }
}

impl ObjectStoreRegistry for Stores {
    fn register_store(
        &self,
        url: &Url,
        store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        // Delta registers its own view of a table's folder under a scheme of its own; files and
        // buckets stay what the configuration says.
        if url.scheme() == "file" || self.buckets.read().contains_key(&store_key(url)) {
            return None;
        }
        let bucket = Bucket { config: StoreConfig::default(), store, settings: None };
        self.buckets.write().insert(store_key(url), bucket).map(|bucket| bucket.store)
    }

    fn get_store(&self, url: &Url) -> datafusion::error::Result<Arc<dyn ObjectStore>> {
        if url.scheme() == "file" {
            return Ok(Arc::clone(&self.local) as _);
        }
        let buckets = self.buckets.read();
        let found = buckets.get(&store_key(url)).map(|bucket| Arc::clone(&bucket.store));
        found.ok_or_else(|| {
            DataFusionError::from(Error::Location {
                url: url.to_string(),
                reason: "no lake or warehouse is configured there".into(),
            })
        })
    }
}

/// Tells whether a store honours conditional writes: two creates of one key, the second must
/// fail. Otherwise two servers could overwrite each other's definitions and commits. Gives whether
/// the store keeps earlier versions of objects.
///
/// # Errors
/// When the store cannot be reached, or ignores the condition.
pub async fn probe(place: &Place) -> Result<bool> {
    let name = format!("_attune/probe/{}", uuid::Uuid::new_v4());
    let key = place.child(&name);
    let first = key.put_new(Bytes::from_static(b"1").into()).await?;
    let second = key.put_new(Bytes::from_static(b"2").into()).await;
    key.remove().await?;
    match (first, second) {
        (Some(written), Ok(None)) => Ok(is_version(written.version.as_deref())),
        _ => Err(Error::ReadOnly {
            url: place.url.to_string(),
            reason: "the store ignores conditional writes (If-None-Match)".into(),
        }),
    }
}

/// Whether what a store calls an object's version is one: a store without versions has none, or
/// calls every one the same.
pub(crate) fn is_version(version: Option<&str>) -> bool {
    version.is_some_and(|version| version != "null")
}

fn s3_bucket(url: &Url, config: &StoreConfig) -> Result<Bucket> {
    let bucket = url.host_str().unwrap_or_default();
    let region = config.region.as_deref().unwrap_or("us-east-1");
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.0,
        },
        max_retries: 5,
        retry_timeout: Duration::from_secs(20),
    };
    let client = ClientOptions::new()
        .with_allow_http(config.allow_http)
        .with_connect_timeout(Duration::from_secs(3))
        .with_timeout(Duration::from_secs(60));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_virtual_hosted_style_request(!config.path_style)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(retry)
        .with_client_options(client.clone())
        .with_allow_http(config.allow_http);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    match (&config.access_key_id, &config.secret_access_key) {
        (Some(id), Some(secret)) => {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret.reveal());
        }
        (None, None) => {}
        _ => {
            return Err(Error::Location {
                url: config.url.clone(),
                reason: "access_key_id and secret_access_key go together".into(),
            });
        }
    }
    if let Some(token) = &config.session_token {
        builder = builder.with_token(token.reveal());
    }
    let store = builder
        .build()
        .map_err(|error| Error::Location { url: config.url.clone(), reason: root_cause(&error) })?;
    let settings = BucketSettings::new(store_key(url), store.clone(), region.to_owned(), client);
    let (config, settings) = (config.clone(), Some(Arc::new(settings)));
    Ok(Bucket { config, store: Arc::new(store), settings })
}

fn same_access(a: &StoreConfig, b: &StoreConfig) -> bool {
    a.endpoint == b.endpoint
        && a.region == b.region
        && a.access_key_id == b.access_key_id
        && a.secret_access_key == b.secret_access_key
        && a.session_token == b.session_token
        && a.path_style == b.path_style
        && a.allow_http == b.allow_http
}

/// The store that a URL is in: a bucket, or the local disk.
pub(crate) fn store_key(url: &Url) -> String {
    let scheme = if url.scheme() == "s3a" { "s3" } else { url.scheme() };
    format!("{scheme}://{}", url.host_str().unwrap_or_default())
}

fn store_path(url: &Url) -> Result<Path> {
    Path::from_url_path(url.path())
        .map_err(|error| Error::Location { url: url.to_string(), reason: root_cause(&error) })
}

fn is_relative(location: &str) -> bool {
    !location.contains("://") && !std::path::Path::new(location).is_absolute()
}

/// A URL from what a person writes: a URL, or an absolute or relative local path.
fn parse_location(location: &str) -> Result<Url> {
    let wrong = |reason: String| Error::Location { url: location.into(), reason };
    if location.trim().is_empty() {
        return Err(wrong("it is empty".into()));
    }
    if location.contains("://") {
        return Url::parse(location).map_err(|error| wrong(error.to_string()));
    }
    let absolute = std::path::absolute(location).map_err(|error| wrong(error.to_string()))?;
    let url = if location.ends_with('/') || absolute.is_dir() {
        Url::from_directory_path(&absolute)
    } else {
        Url::from_file_path(&absolute)
    };
    url.map_err(|()| wrong("it is no path".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_configured_folders_can_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::default();
        let config =
            StoreConfig { url: folder.path().display().to_string(), ..StoreConfig::default() };
        let place = stores.open(&config).unwrap();
        assert!(stores.locate("orders/", Some(&place)).is_ok());
        for outside in ["/etc/passwd", "file:///etc/passwd", "../x", "a/../../../x", "s3://b/k"] {
            assert!(stores.locate(outside, Some(&place)).is_err(), "{outside}");
        }
    }

    #[tokio::test]
    async fn a_local_folder_honours_conditional_writes() {
        let folder = tempfile::tempdir().unwrap();
        let stores = Stores::default();
        let config =
            StoreConfig { url: folder.path().display().to_string(), ..StoreConfig::default() };
        let place = stores.open(&config).unwrap();
        assert!(!probe(&place).await.unwrap());
        let key = place.child("a/b.json");
        assert!(key.create(Bytes::from_static(b"1")).await.unwrap());
        assert!(!key.create(Bytes::from_static(b"2")).await.unwrap());
        assert_eq!(key.read().await.unwrap().as_ref(), b"1");
    }
}
