//! Files of lakes lose rows where Attune may write, and only there, and only as they were seen.

use datafusion::execution::memory_pool::UnboundedMemoryPool;

use super::*;
use crate::testing::{TestClock, session};
use crate::{CatalogConfig, LakeConfig, StoreConfig};

const REMOVED: Erased = Erased { is_removed: true, keeps_versions: false };
const REWRITTEN: Erased = Erased { is_removed: false, keeps_versions: false };

/// A catalog over the lake `l` in a folder, and a lake `inner` within it that is only read.
async fn catalog(folder: &DiskPath) -> Arc<Catalog> {
    let store =
        |path: &DiskPath| StoreConfig { url: path.display().to_string(), ..StoreConfig::default() };
    let lake = |name: &str, path: &DiskPath, access| LakeConfig {
        name: name.into(),
        store: store(path),
        discover: true,
        access,
        tables: vec![],
    };
    let mut config = CatalogConfig::new(store(&folder.join("house")), TestClock::default().clock());
    config.lakes = vec![
        lake("l", &folder.join("lake"), LakeAccess::Rewrite),
        lake("inner", &folder.join("lake/inner"), LakeAccess::Read),
    ];
    Catalog::open(config).await.unwrap()
}

fn write(path: &DiskPath, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Erases rows of the first file of a table of the lake, after something was done meanwhile.
async fn erased(
    catalog: &Catalog,
    table: &str,
    gone: &[bool],
    meanwhile: impl FnOnce(),
) -> Result<Erased, Untouched> {
    let name = ObjectName::new("l", table);
    let state = session(catalog);
    let mut erasure = catalog.begin_lake_erasure(&name, &state).await.unwrap().unwrap();
    let file = erasure.begin(0).await.unwrap()?;
    meanwhile();
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    erasure.end(&file, BooleanBuffer::from_iter(gone.iter().copied()), &pool).await.unwrap()
}

#[tokio::test]
async fn a_file_loses_rows_or_goes_with_the_folders_that_named_it() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let file = lake.join("t/who=ann/part.csv");
    write(&file, "id\n1\n2\n");
    let catalog = catalog(folder.path()).await;
    let state = session(&catalog);
    assert!(catalog.rewrites_files_of(&ObjectName::new("l", "t"), &state).await.unwrap());
    assert_eq!(erased(&catalog, "t", &[false, true], || {}).await, Ok(REWRITTEN));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "id\n1\n");
    let beside = std::fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert_eq!(beside, 1);
    assert_eq!(erased(&catalog, "t", &[true], || {}).await, Ok(REMOVED));
    assert!(!lake.join("t/who=ann").exists() && lake.join("t").exists());
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_keeps_its_permissions_and_a_link_is_left() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    let file = lake.join("t/a.csv");
    write(&file, "id\n1\n2\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    write(&folder.path().join("elsewhere.csv"), "id\n1\n2\n");
    std::fs::create_dir_all(lake.join("linked")).unwrap();
    let link = lake.join("linked/a.csv");
    std::os::unix::fs::symlink(folder.path().join("elsewhere.csv"), &link).unwrap();
    let catalog = catalog(folder.path()).await;
    assert_eq!(erased(&catalog, "t", &[true, false], || {}).await, Ok(REWRITTEN));
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let linked = erased(&catalog, "linked", &[true, false], || {}).await;
    assert!(matches!(linked, Err(Untouched::Left(_))), "{linked:?}");
}

#[tokio::test]
async fn what_somebody_else_writes_meanwhile_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lake/t/a.csv");
    let catalog = catalog(folder.path()).await;
    for gone in [[true, false], [true, true]] {
        write(&file, "id\n1\n2\n");
        let others = || write(&file, "id\n1\n2\n3\n");
        let untouched = erased(&catalog, "t", &gone, others).await;
        assert_eq!(untouched, Err(Untouched::Changed));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "id\n1\n2\n3\n");
    }
}

#[tokio::test]
async fn files_that_something_else_describes_or_that_are_only_read_are_left() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    for beside in ["_delta_log/0.json", ".hoodie/x", "metadata/v1.metadata.json", "_metadata"] {
        write(&lake.join("t/day=1/a.csv"), "id\n1\n2\n");
        write(&lake.join("t").join(beside), "{}");
        let catalog = catalog(folder.path()).await;
        // A folder with a log is a Delta table, unless it is said to be something else.
        let table = LakeTable::new("t/day=1/", crate::lake::Format::Csv);
        let name = ObjectName::new("l", "named");
        let mode = crate::CreateMode::Replace;
        catalog.create(&name, Spec::External(table), "ann", mode).await.unwrap();
        let left = erased(&catalog, "named", &[true, false], || {}).await;
        assert!(matches!(left, Err(Untouched::Left(_))), "{beside}: {left:?}");
        std::fs::remove_dir_all(lake.join("t")).unwrap();
    }
    write(&lake.join("inner/t/a.csv"), "id\n1\n2\n");
    let catalog = catalog(folder.path()).await;
    let left = erased(&catalog, "inner", &[true, false], || {}).await;
    assert_eq!(left, Err(Untouched::Left(READ_ONLY)));
}

#[tokio::test]
async fn a_lake_that_is_to_be_rewritten_takes_a_write() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = catalog(folder.path()).await;
    assert_eq!(catalog.lake_access("l"), Some(LakeAccess::Rewrite));
    let missing = catalog.check_lake_access("l").await.unwrap_err().to_string();
    assert!(missing.contains("there is no such folder"), "{missing}");
    let lake = folder.path().join("lake");
    std::fs::create_dir(&lake).unwrap();
    catalog.check_lake_access("l").await.unwrap();
    catalog.check_lake_access("inner").await.unwrap();
    assert_eq!(std::fs::read_dir(&lake).unwrap().count(), 0);
}

#[test]
fn paths_are_shown_without_the_person() {
    let names = BTreeSet::from(["ann".to_owned(), "a b@x.org".to_owned()]);
    for (path, shown) in [
        ("lake/user_id=ann/part-0.parquet", "lake/user_id=…/part-0.parquet"),
        ("lake/mail=a%20b@x.org/0.csv", "lake/mail=…/0.csv"),
        ("lake/ann.csv", "lake/…"),
        ("lake/of-a b@x.org-0.csv", "lake/…"),
        ("ann/joanna.csv", "…/joanna.csv"),
        ("lake/joanna/planning=1/a.csv", "lake/joanna/planning=1/a.csv"),
    ] {
        assert_eq!(path_without(path, &names), (shown.to_owned(), shown != path), "{path}");
    }
}
