//! What the tests of this crate share: a clock they set, stores in memory, stores that fail.

use std::fmt;
use std::path::Path as DiskPath;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use url::Url;

use crate::subjects::{Subject, SubjectKey};
use crate::{Catalog, CatalogConfig, Clock, ObjectName, Opened, Place, StoreConfig, Stores};

/// The column `id` of a table, as a key of persons.
pub fn key(table: &str) -> SubjectKey {
    SubjectKey { table: ObjectName::new("main", table), column: "id".into() }
}

/// A subject with the ids of these tables.
pub fn person(tables: &[&str]) -> Subject {
    let keys = tables.iter().map(|table| key(table)).collect();
    Subject { name: "person".into(), keys, via: None, owner: "dpo".into(), created_ms: 0 }
}

/// A clock that stands until it is moved.
#[derive(Clone, Default)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub fn clock(&self) -> Clock {
        let now = Arc::clone(&self.0);
        Arc::new(move || now.load(Ordering::Relaxed))
    }

    pub fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

/// A store that fails where it is told to.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    refused: Mutex<Option<String>>,
    killed: Arc<Killed>,
    /// Whether it says of each object that it has a version.
    is_versioned: AtomicBool,
}

/// After how many writes whoever uses the store is as good as killed: nothing it asks for is done.
#[derive(Debug, Default)]
struct Killed {
    left: Mutex<Option<usize>>,
    is_dead: AtomicBool,
}

impl Killed {
    fn write(&self) -> Result<()> {
        let mut left = self.left.lock();
        match left.as_mut() {
            None => {}
            Some(0) => self.is_dead.store(true, Ordering::Relaxed),
            Some(more) => *more -= 1,
        }
        self.read()
    }

    fn read(&self) -> Result<()> {
        match self.is_dead.load(Ordering::Relaxed) {
            true => Err(Error::Generic { store: "faulty", source: "the process is gone".into() }),
            false => Ok(()),
        }
    }
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        let (refused, killed) = (Mutex::default(), Arc::default());
        Arc::new(Self { inner, refused, killed, is_versioned: AtomicBool::new(false) })
    }

    /// After so many more writes whoever uses it does nothing any more, until it is revived.
    pub fn kill_after(&self, writes: usize) {
        *self.killed.left.lock() = Some(writes);
    }

    /// Another process uses it; whether the last one was killed.
    pub fn revive(&self) -> bool {
        *self.killed.left.lock() = None;
        self.killed.is_dead.swap(false, Ordering::Relaxed)
    }

    /// From now on objects have versions.
    pub fn keep_versions(&self) {
        self.is_versioned.store(true, Ordering::Relaxed);
    }

    /// From now on no object whose path contains `part` can be written.
    pub fn refuse(&self, part: &str) {
        *self.refused.lock() = Some(part.to_owned());
    }

    pub fn heal(&self) {
        *self.refused.lock() = None;
    }

    fn check(&self, location: &Path) -> Result<()> {
        self.killed.write()?;
        match &*self.refused.lock() {
            Some(part) if location.as_ref().contains(part.as_str()) => {
                Err(Error::Generic { store: "faulty", source: "the disk is full".into() })
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.check(location)?;
        let mut written = self.inner.put_opts(location, payload, options).await?;
        if self.is_versioned.load(Ordering::Relaxed) {
            written.version = Some("1".into());
        }
        Ok(written)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.check(location)?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.killed.read()?;
        let mut found = self.inner.get_opts(location, options).await?;
        if self.is_versioned.load(Ordering::Relaxed) {
            found.meta.version = Some("1".into());
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let killed = Arc::clone(&self.killed);
        let allowed = locations.map(move |location| killed.write().and(location));
        self.inner.delete_stream(allowed.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.killed.read() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.killed.read()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.killed.write()?;
        self.inner.copy_opts(from, to, options).await
    }
}

/// A warehouse in memory that several catalogs can open.
#[derive(Clone)]
pub struct Shared {
    pub store: Arc<FaultyStore>,
    pub place: Place,
    pub clock: TestClock,
}

impl Shared {
    pub fn new() -> Self {
        Self::over(Arc::new(InMemory::new()), "memory:///warehouse/")
    }

    fn over(inner: Arc<dyn ObjectStore>, url: &str) -> Self {
        let store = FaultyStore::new(inner);
        let url = Url::parse(url).unwrap();
        let path = Path::from_url_path(url.path()).unwrap();
        let place = Place { url, store: Arc::clone(&store) as _, path };
        Self { store, place, clock: TestClock::default() }
    }

    pub async fn open(&self) -> Arc<Catalog> {
        self.open_with(|_| {}).await
    }

    pub async fn open_with(&self, change: impl FnOnce(&mut CatalogConfig)) -> Arc<Catalog> {
        let stores = Arc::new(Stores::default());
        stores.register_store(&self.place.url, Arc::clone(&self.place.store));
        let mut config = CatalogConfig::new(StoreConfig::default(), self.clock.clock());
        change(&mut config);
        Catalog::open_at(stores, self.place.clone(), config).await.unwrap()
    }

    /// The paths of all objects, without the warehouse's.
    pub async fn paths(&self, below: &str) -> Vec<String> {
        use futures::TryStreamExt;
        let place = self.place.child(below);
        let objects: Vec<_> = place.store.list(Some(&place.path)).try_collect().await.unwrap();
        objects.iter().map(|object| object.location.to_string()).collect()
    }
}

/// A catalog over a folder on disk.
pub async fn open_folder(folder: &DiskPath, clock: &TestClock) -> Arc<Catalog> {
    let warehouse = StoreConfig { url: folder.display().to_string(), ..StoreConfig::default() };
    Catalog::open(CatalogConfig::new(warehouse, clock.clock())).await.unwrap()
}

/// A session over a catalog's stores.
pub fn session(catalog: &Catalog) -> SessionState {
    let stores: Arc<dyn ObjectStoreRegistry> = Arc::clone(catalog.stores()) as _;
    let runtime = RuntimeEnvBuilder::new().with_object_store_registry(stores).build_arc().unwrap();
    SessionStateBuilder::new().with_default_features().with_runtime_env(runtime).build()
}

/// The plan of a query over constants and the given tables.
pub async fn plan(catalog: &Catalog, text: &str, tables: &[&str]) -> LogicalPlan {
    let context = SessionContext::new_with_state(session(catalog));
    for name in tables {
        let opened = catalog.open_table(&main(name), None, &context.state()).await.unwrap();
        let Some(Opened::Table(table)) = opened else { panic!("{name} is no table") };
        context.register_table(*name, table).unwrap();
    }
    context.state().create_logical_plan(text).await.unwrap()
}

/// The rows of a query over the given tables.
pub async fn rows(catalog: &Catalog, text: &str, tables: &[&str]) -> Vec<RecordBatch> {
    let plan = plan(catalog, text, tables).await;
    let context = SessionContext::new_with_state(session(catalog));
    context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap()
}

/// The one number that a query gives.
pub async fn number(catalog: &Catalog, text: &str, tables: &[&str]) -> i64 {
    let batches = rows(catalog, text, tables).await;
    batches[0].column(0).as_primitive::<Int64Type>().value(0)
}

pub fn main(name: &str) -> ObjectName {
    ObjectName::new(crate::MAIN, name)
}
