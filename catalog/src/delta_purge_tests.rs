//! A Delta table of a lake loses rows by a commit and then its past, and what others write
//! meanwhile is there, once.

use std::path::Path as DiskPath;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
use datafusion::prelude::SessionContext;
use deltalake::TableProperty;
use deltalake::operations::create::CreateBuilder;
use deltalake::operations::write::WriteBuilder;
use deltalake::protocol::SaveMode;

use super::*;
use crate::delta::unopened;
use crate::delta_erasure::Replaced;
use crate::testing::{TestClock, session};
use crate::{Catalog, CatalogConfig, LakeAccess, LakeConfig, ObjectName, Opened, StoreConfig};

const GONE: &str = "zz-who-goes-4711";
const WEEK_MS: i64 = 7 * 24 * 3_600_000;

async fn catalog(folder: &DiskPath, clock: &TestClock) -> Arc<Catalog> {
    let store =
        |path: &DiskPath| StoreConfig { url: path.display().to_string(), ..StoreConfig::default() };
    let mut config = CatalogConfig::new(store(&folder.join("house")), clock.clock());
    config.lakes = vec![LakeConfig {
        name: "l".into(),
        store: store(&folder.join("lake")),
        discover: true,
        access: LakeAccess::Rewrite,
        tables: vec![],
    }];
    Catalog::open(config).await.unwrap()
}

fn table() -> ObjectName {
    ObjectName::new("l", "t")
}

fn place(catalog: &Catalog) -> Place {
    catalog.base_of("l").child("t").folder()
}

fn rows(ids: &[&str]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(StringArray::from(ids.to_vec()));
    let days: ArrayRef = Arc::new(StringArray::from(vec!["mon"; ids.len()]));
    RecordBatch::try_from_iter([("id", ids), ("day", days)]).unwrap()
}

/// The first version of a table, with one file of these ids in a folder `day=mon`.
async fn create(catalog: &Catalog, ids: &[&str]) {
    let written = WriteBuilder::new(unopened(&place(catalog)).log_store(), None)
        .with_input_batches([rows(ids)])
        .with_partition_columns(["day"])
        .await;
    written.unwrap();
}

/// What another writer does.
async fn write(catalog: &Catalog, ids: &[&str], mode: SaveMode) {
    let mut table = unopened(&place(catalog));
    table.update_state().await.unwrap();
    let snapshot = table.state.as_ref().map(|state| state.snapshot().clone());
    let written = WriteBuilder::new(table.log_store(), snapshot)
        .with_input_batches([rows(ids)])
        .with_save_mode(mode)
        .await;
    written.unwrap();
}

async fn begun(catalog: &Catalog) -> Result<DeltaErasure<'_>, String> {
    let state = session(catalog);
    catalog.begin_delta_erasure(&table(), &state).await.unwrap().unwrap()
}

/// Writes what stays of the one file with as many rows as there are bits.
async fn replaced(erasure: &DeltaErasure<'_>, number: usize, gone: &[bool]) -> Replaced {
    let file = erasure.begin(number).await.unwrap().unwrap();
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    let gone = BooleanBuffer::from_iter(gone.iter().copied());
    erasure.write(number, &file, gone, &pool).await.unwrap().unwrap()
}

async fn count(catalog: &Catalog, version: Option<u64>) -> Result<usize> {
    let state = session(catalog);
    let Some(Opened::Table(rows)) = catalog.open_table(&table(), version, &state).await? else {
        panic!("no table")
    };
    Ok(SessionContext::new_with_state(state).read_table(rows).unwrap().count().await.unwrap())
}

/// The files of a folder, by their paths below it.
fn files(folder: &DiskPath) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        match path.is_dir() {
            true => found.extend(files(&path).into_iter().map(|inner| format!("{name}/{inner}"))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

fn data(table: &DiskPath) -> Vec<String> {
    let is_data = |file: &String| file.ends_with(".parquet") && !file.starts_with(LOG);
    files(table).into_iter().filter(is_data).collect()
}

fn remnants(table: &DiskPath) -> Vec<String> {
    let holds = |file: &String| {
        let content = std::fs::read(table.join(file)).unwrap();
        content.windows(GONE.len()).any(|bytes| bytes == GONE.as_bytes())
    };
    files(table).into_iter().filter(holds).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_by_a_commit_and_the_past_goes_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let on_disk = folder.path().join("lake/t");
    let catalog = catalog(folder.path(), &TestClock::default()).await;
    create(&catalog, &["ann", GONE, "bob"]).await;
    assert_eq!(remnants(&on_disk).len(), 2, "in a file and in the log: {:?}", remnants(&on_disk));
    let names = BTreeSet::from([GONE.to_owned()]);
    let erasure = begun(&catalog).await.unwrap();
    assert_eq!(erasure.partition_columns(), ["day"]);
    let kept = replaced(&erasure, 0, &[false, true, false]).await;
    assert_eq!(count(&catalog, None).await.unwrap(), 3, "no version names what was written");
    assert!(erasure.commit(&[kept]).await.unwrap());
    assert_eq!(count(&catalog, None).await.unwrap(), 2);
    assert_eq!(count(&catalog, Some(1)).await.unwrap(), 2);

    let erasure = begun(&catalog).await.unwrap();
    let purged = erasure.purge(&names).await.unwrap().unwrap();
    assert_eq!((purged.begins, purged.objects, purged.left), (Some(1), 1, vec![]));
    assert!(purged.strays.is_none());
    assert_eq!(remnants(&on_disk), Vec::<String>::new());
    assert_eq!(data(&on_disk).len(), 1);
    assert_eq!(count(&catalog, None).await.unwrap(), 2);
    let purged = count(&catalog, Some(0)).await.unwrap_err();
    assert!(
        purged.to_string().contains("version 0 of table l.t was purged by erasure"),
        "{purged}"
    );
    // A writer who comes late finds each version taken, and reads what was done.
    for version in 0..2 {
        assert!(on_disk.join(format!("{LOG}/{version:020}.json")).exists());
    }
    write(&catalog, &["zoe"], SaveMode::Append).await;
    assert_eq!(count(&catalog, None).await.unwrap(), 3);
    // There is no past in which files have gone: nothing is written.
    let before = files(&on_disk);
    let erasure = begun(&catalog).await.unwrap();
    let again = erasure.purge(&names).await.unwrap().unwrap();
    assert_eq!((again.begins, again.objects), (Some(1), 0));
    assert_eq!(files(&on_disk), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_removed_is_purged_with_their_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let on_disk = folder.path().join("lake/t");
    let catalog = catalog(folder.path(), &TestClock::default()).await;
    create(&catalog, &["ann", GONE]).await;
    let mut table = unopened(&place(&catalog));
    table.update_state().await.unwrap();
    create_checkpoint(&table, None).await.unwrap();
    write(&catalog, &["ann"], SaveMode::Overwrite).await;
    std::fs::write(on_disk.join(format!("{LOG}/.{:020}.json.crc", 0)), GONE).unwrap();
    let erasure = begun(&catalog).await.unwrap();
    let purged = erasure.purge(&BTreeSet::new()).await.unwrap().unwrap();
    assert_eq!(purged.begins, Some(1));
    assert_eq!(remnants(&on_disk), Vec::<String>::new());
    assert_eq!(data(&on_disk).len(), 1);
    assert!(!on_disk.join(format!("{LOG}/{:020}.checkpoint.parquet", 0)).exists());
    // The note is a version of its own, and takes nobody's.
    assert_eq!(count(&catalog, Some(1)).await.unwrap(), 1);
    assert_eq!(count(&catalog, None).await.unwrap(), 1);
    assert!(count(&catalog, Some(0)).await.is_err());
}

/// How many objects there were that came late.
async fn late(catalog: &Catalog) -> u64 {
    let mut purged = Purged::default();
    begun(catalog).await.unwrap().remove_late(&mut purged).await.unwrap();
    assert_eq!(purged.left, vec![]);
    purged.objects
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_others_began_before_a_purge_and_end_after_it_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("lake/t").join(LOG);
    let catalog = catalog(folder.path(), &TestClock::default()).await;
    create(&catalog, &["ann", GONE]).await;
    let mut table = unopened(&place(&catalog));
    table.update_state().await.unwrap();
    create_checkpoint(&table, None).await.unwrap();
    let [checkpoint, hint] = [format!("{:020}.checkpoint.parquet", 0), "_last_checkpoint".into()]
        .map(|name| log.join(name));
    let written = [&checkpoint, &hint].map(|path| std::fs::read(path).unwrap());
    write(&catalog, &["ann"], SaveMode::Overwrite).await;
    // Nothing is purged yet, so all of it is needed.
    assert_eq!(late(&catalog).await, 0);
    let erasure = begun(&catalog).await.unwrap();
    assert!(erasure.purge(&BTreeSet::new()).await.unwrap().is_some());
    assert!(!checkpoint.exists());
    for (path, content) in [&checkpoint, &hint].into_iter().zip(&written) {
        std::fs::write(path, content).unwrap();
    }
    let before = files(&log).len();
    assert_eq!(late(&catalog).await, 1);
    assert!(!checkpoint.exists());
    assert_eq!(files(&log).len(), before - 1);
    assert_eq!(late(&catalog).await, 0);
    // What it says to begin with is not there, and all versions that stay are.
    for version in [None, Some(1)] {
        assert_eq!(count(&catalog, version).await.unwrap(), 1);
    }
    write(&catalog, &["zoe"], SaveMode::Append).await;
    assert_eq!(count(&catalog, None).await.unwrap(), 2);
}

#[test]
fn what_sums_up_versions_before_the_first_that_stays_is_of_the_past() {
    let version = |version: u64, rest: &str| format!("{version:020}.{rest}");
    let compacted = |last: u64| version(0, &format!("{last:020}.compacted.json"));
    for (name, is_past) in [
        (version(6, "checkpoint.parquet"), true),
        (format!(".{}.crc", version(6, "checkpoint.parquet")), true),
        (version(6, "checkpoint.0000000001.0000000002.parquet"), true),
        (version(6, "crc"), true),
        (compacted(7), true),
        (version(7, "checkpoint.parquet"), false),
        (version(7, "crc"), false),
        (compacted(8), false),
        (version(6, "json"), false),
        (format!(".{}.crc", version(6, "json")), false),
        ("_last_checkpoint".to_owned(), false),
    ] {
        assert_eq!(is_of_past(&name, 7), is_past, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_commit_meanwhile_is_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let on_disk = folder.path().join("lake/t");
    let catalog = catalog(folder.path(), &TestClock::default()).await;
    create(&catalog, &["ann", GONE]).await;
    let erasure = begun(&catalog).await.unwrap();
    let kept = replaced(&erasure, 0, &[false, true]).await;
    write(&catalog, &["late"], SaveMode::Append).await;
    assert!(erasure.commit(&[kept]).await.unwrap());
    assert_eq!(count(&catalog, None).await.unwrap(), 2);
    // Rows that somebody else has replaced do not come back.
    let erasure = begun(&catalog).await.unwrap();
    let kept = replaced(&erasure, 0, &[true]).await;
    write(&catalog, &["new", "newer"], SaveMode::Overwrite).await;
    assert!(!erasure.commit(&[kept]).await.unwrap());
    assert_eq!(count(&catalog, None).await.unwrap(), 2);
    let erasure = begun(&catalog).await.unwrap();
    let kept = replaced(&erasure, 0, &[true, false]).await;
    write(&catalog, &["newest"], SaveMode::Overwrite).await;
    let before = data(&on_disk).len();
    assert!(!erasure.commit(&[kept]).await.unwrap());
    assert_eq!(data(&on_disk).len(), before - 1, "what was written of it is gone");
    assert_eq!(count(&catalog, None).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_no_version_names_is_somebodys_for_a_week() {
    let folder = tempfile::tempdir().unwrap();
    let on_disk = folder.path().join("lake/t");
    let clock = TestClock::default();
    let catalog = catalog(folder.path(), &clock).await;
    create(&catalog, &["ann"]).await;
    let named = data(&on_disk).remove(0);
    std::fs::copy(on_disk.join(&named), on_disk.join("day=mon/stray.parquet")).unwrap();
    std::fs::write(on_disk.join("day=mon/_hidden.parquet"), "none").unwrap();
    let erasure = begun(&catalog).await.unwrap();
    let mut purged = erasure.purge(&BTreeSet::new()).await.unwrap().unwrap();
    let strays = purged.strays.take().unwrap();
    assert_eq!(strays.files().ids().len(), 1);
    assert!(strays.one(0).is_some() && strays.one(1).is_none());
    erasure.remove_stray(&strays, 0, &mut purged).await.unwrap();
    assert_eq!(purged.left.len(), 1);
    assert!(purged.left[0].0.ends_with("day=mon/stray.parquet"), "{:?}", purged.left);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    clock.advance(i64::try_from(now.as_millis()).unwrap() + WEEK_MS + 60_000);
    erasure.remove_stray(&strays, 0, &mut purged).await.unwrap();
    assert_eq!(purged.objects, 1);
    assert_eq!(data(&on_disk), ["day=mon/_hidden.parquet".to_owned(), named]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_tables_or_is_of_it_again_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let on_disk = folder.path().join("lake/t");
    let clock = TestClock::default();
    let catalog = catalog(folder.path(), &clock).await;
    create(&catalog, &["ann"]).await;
    let named = data(&on_disk).remove(0);
    std::fs::create_dir_all(on_disk.join("exports")).unwrap();
    std::fs::copy(on_disk.join(&named), on_disk.join("exports/a.parquet")).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    clock.advance(i64::try_from(now.as_millis()).unwrap() + WEEK_MS + 60_000);
    let erasure = begun(&catalog).await.unwrap();
    let mut purged = erasure.purge(&BTreeSet::new()).await.unwrap().unwrap();
    let strays = purged.strays.take().unwrap();
    erasure.remove_stray(&strays, 0, &mut purged).await.unwrap();
    assert_eq!(purged.objects, 0);
    assert!(purged.left[0].0.ends_with("exports/a.parquet"), "{:?}", purged.left);
    assert!(on_disk.join("exports/a.parquet").exists());
    // A commit that was never made is nobody's after that time.
    std::fs::write(on_disk.join(format!("{LOG}/_commit_1.json.tmp")), GONE).unwrap();
    let purged = erasure.purge(&BTreeSet::new()).await.unwrap().unwrap();
    assert_eq!((purged.objects, remnants(&on_disk)), (1, vec![]));
    // A file that a version names again, and one that none does.
    let (_, files) = erasure.listed().await.unwrap();
    let meta = |path: &str| {
        let found = files.iter().filter(|(name, _)| name == path);
        found.map(|(_, meta)| meta.clone()).collect::<Vec<_>>()
    };
    assert!(!erasure.is_past(&meta(&named)).await.unwrap());
    assert!(erasure.is_past(&meta("exports/a.parquet")).await.unwrap());
    // Another table in its place is not the one whose past is known.
    std::fs::remove_dir_all(&on_disk).unwrap();
    create(&catalog, &["zoe"]).await;
    write(&catalog, &["bob"], SaveMode::Append).await;
    let before = self::files(&on_disk);
    assert!(erasure.purge(&BTreeSet::new()).await.unwrap().is_none());
    assert_eq!(self::files(&on_disk), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_log_writes_otherwise_is_left_and_so_is_what_a_link_leads_to() {
    let folder = tempfile::tempdir().unwrap();
    let on_disk = folder.path().join("lake/t");
    let catalog = catalog(folder.path(), &TestClock::default()).await;
    create(&catalog, &["ann", GONE]).await;
    let commit = on_disk.join(format!("{LOG}/{:020}.json", 0));
    let text = std::fs::read_to_string(&commit).unwrap();
    assert!(text.contains("\"day=mon/"), "{text}");
    std::fs::write(&commit, text.replace("\"day=mon/", "\"day%3Dmon/")).unwrap();
    let erasure = begun(&catalog).await.unwrap();
    let looked = erasure.begin(0).await.unwrap().err();
    assert!(matches!(looked, Some(Untouched::Left(_))), "{looked:?}");
    #[cfg(unix)]
    {
        let table = place(&catalog);
        let inside = table.child(&data(&on_disk)[0]);
        assert!(!is_linked(&table, &inside).await);
        let other = folder.path().join("elsewhere");
        std::fs::rename(on_disk.join("day=mon"), &other).unwrap();
        std::os::unix::fs::symlink(&other, on_disk.join("day=mon")).unwrap();
        assert!(is_linked(&table, &inside).await);
    }
}

#[test]
fn a_file_of_the_table_lies_in_its_folder_or_in_those_of_its_partitions() {
    let partitions = ["day".to_owned(), "a b".to_owned()];
    for (path, is_in) in [
        ("x.parquet", true),
        ("day=mon/x.parquet", true),
        ("day=mon/a%20b=1/x.parquet", true),
        ("_change_data/day=mon/x.parquet", true),
        ("exports/x.parquet", false),
        ("day=mon/exports/x.parquet", false),
        ("other=1/x.parquet", false),
    ] {
        assert_eq!(is_in_folders(path, &partitions), is_in, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_asks_for_more_is_left_and_says_why() {
    let columns = || {
        use deltalake::kernel::{DataType, PrimitiveType, StructField};
        [StructField::new("id", DataType::Primitive(PrimitiveType::String), true)]
    };
    for (property, reason) in [
        (TableProperty::AppendOnly, "delta.appendOnly"),
        (TableProperty::EnableChangeDataFeed, "delta.enableChangeDataFeed"),
        (TableProperty::EnableDeletionVectors, "the feature deletionVectors"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let catalog = catalog(folder.path(), &TestClock::default()).await;
        let created = CreateBuilder::new()
            .with_log_store(unopened(&place(&catalog)).log_store())
            .with_columns(columns())
            .with_configuration_property(property, Some("true"))
            .await;
        created.unwrap();
        let refused = begun(&catalog).await.err().unwrap_or_default();
        assert!(refused.contains(reason), "{refused}");
        assert!(!catalog.rewrites_files_of(&table(), &session(&catalog)).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_iceberg_too_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog(folder.path(), &TestClock::default()).await;
    create(&catalog, &["ann"]).await;
    let metadata = folder.path().join("lake/t/metadata");
    std::fs::create_dir(&metadata).unwrap();
    std::fs::write(metadata.join("v1.metadata.json"), "{}").unwrap();
    let refused = begun(&catalog).await.err().unwrap_or_default();
    assert!(refused.contains("Iceberg"), "{refused}");
}
