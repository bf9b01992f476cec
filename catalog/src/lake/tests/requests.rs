//! What opening and querying a table costs in requests to the store.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::execution::object_store::ObjectStoreRegistry;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
};

use super::*;

/// A store in memory that counts listings and reads.
#[derive(Debug, Default)]
struct Counting {
    inner: InMemory,
    lists: AtomicUsize,
    reads: AtomicUsize,
}

impl Counting {
    /// Listings and reads since the last time.
    fn since(&self) -> (usize, usize) {
        (self.lists.swap(0, Ordering::SeqCst), self.reads.swap(0, Ordering::SeqCst))
    }
}

impl std::fmt::Display for Counting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("counting")
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(
        &self,
        from: &Path,
        to: &Path,
        options: RenameOptions,
    ) -> object_store::Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

async fn put_days(store: &Counting, days: std::ops::Range<usize>) {
    for day in days {
        let path = Path::from(format!("t/day={day}/a.csv"));
        store.put(&path, format!("id\n{day}\n").into()).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_known_is_not_asked_for_again() {
    let mut f = Fixture::new();
    let store = Arc::new(Counting::default());
    f.stores.register_store(&url::Url::parse("mem://lake").unwrap(), Arc::clone(&store) as _);
    put_days(&store, 0..50).await;
    let t = table("mem://lake/t/", Format::Csv);

    f.tables = Tables::with_fresh(Arc::clone(&f.stores), Duration::from_secs(3_600));
    assert_eq!(f.query(&t, "SELECT sum(id) FROM t").await.unwrap(), ["1225"]);
    // The table and its folders are listed once; each file is read for its columns and its rows.
    assert_eq!(store.since(), (51, 100));
    assert_eq!(f.query(&t, "SELECT sum(id) FROM t WHERE day = 7").await.unwrap(), ["7"]);
    assert_eq!(store.since(), (0, 1));

    // A provider whose folders are not fresh any more lists only those that the query needs.
    f.tables = Tables::with_fresh(Arc::clone(&f.stores), Duration::ZERO);
    let session = f.context(&t).await.unwrap();
    assert_eq!(store.since(), (51, 50));
    put_days(&store, 50..52).await;
    let sql = "SELECT sum(id) FROM t WHERE day IN (7, 50)";
    let plan = session.state().create_logical_plan(sql).await.unwrap();
    let batches = session.execute_logical_plan(plan).await.unwrap().collect().await.unwrap();
    assert!(pretty_format_batches(&batches).unwrap().to_string().contains("| 57 "));
    // The table's folder and two days are listed; the new file is read for its columns too.
    assert_eq!(store.since(), (3, 3));
}

#[tokio::test]
async fn a_table_of_very_many_files_is_not_read_whole_to_tell_its_columns() {
    let f = Fixture::new();
    let store = Arc::new(Counting::default());
    f.stores.register_store(&url::Url::parse("mem://lake").unwrap(), Arc::clone(&store) as _);
    for file in 0..2_500 {
        let path = Path::from(format!("t/{file:04}.json"));
        let row = if file == 2_499 { "{\"new\":1}\n" } else { "{\"id\":1}\n" };
        store.put(&path, row.into()).await.unwrap();
    }
    let t = table("mem://lake/t/", Format::Json);
    assert_eq!(f.columns(&t).await.unwrap(), ["id Int64", "new Int64"]);
    assert_eq!(store.since(), (1, crate::lake::schema::FILES_PER_LOOK));
    f.columns(&t).await.unwrap();
    assert_eq!(store.since(), (1, 500));
    f.columns(&t).await.unwrap();
    assert_eq!(store.since(), (1, 0));
}
