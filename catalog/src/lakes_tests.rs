//! Tests of lakes' schemas and users: configured, discovered and external tables, Delta folders.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use datafusion::prelude::SessionContext;

use crate::lake::{Format, LakeTable as Files};
use crate::policy::Role;
use crate::testing::{TestClock, main, plan, session};
use crate::{
    Catalog, CatalogConfig, CreateMode, Error, Kind, LakeAccess, LakeConfig, LakeTable, NewTable,
    ObjectName, Opened, Pii, Spec, StoreConfig, UserRecord,
};

fn store(folder: &Path) -> StoreConfig {
    StoreConfig { url: folder.display().to_string(), ..StoreConfig::default() }
}

fn table(name: &str, location: &str) -> LakeTable {
    LakeTable {
        name: name.into(),
        location: location.into(),
        format: None,
        options: BTreeMap::new(),
        partitions: vec![],
    }
}

/// A lake with a CSV file, a folder of CSV files by day, and a catalog over it.
async fn lake(folder: &Path) -> Arc<Catalog> {
    let data = folder.join("lake");
    for day in ["2024-01-01", "2024-01-02"] {
        let day = data.join(format!("clicks/day={day}"));
        std::fs::create_dir_all(&day).unwrap();
        std::fs::write(day.join("a.csv"), "id,page\n1,home\n2,cart\n").unwrap();
    }
    std::fs::write(data.join("orders.csv"), "id,total\n7,1.5\n").unwrap();
    let mut config = CatalogConfig::new(store(&folder.join("house")), TestClock::default().clock());
    let by_day = LakeTable { partitions: vec!["day".into()], ..table("daily", "clicks/") };
    config.lakes = vec![LakeConfig {
        name: "lake".into(),
        store: store(&data),
        discover: true,
        access: LakeAccess::Read,
        tables: vec![by_day, table("bought", "orders.csv")],
    }];
    Catalog::open(config).await.unwrap()
}

fn in_lake(name: &str) -> ObjectName {
    ObjectName::new("lake", name)
}

async fn count(catalog: &Catalog, name: &ObjectName, version: Option<u64>) -> usize {
    let state = session(catalog);
    let opened = catalog.open_table(name, version, &state).await.unwrap();
    let Some(Opened::Table(table)) = opened else { panic!("{name} is no table") };
    SessionContext::new_with_state(state).read_table(table).unwrap().count().await.unwrap()
}

#[tokio::test]
async fn configured_and_discovered_tables_are_a_schema() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = lake(folder.path()).await;
    assert_eq!(catalog.schemas(), ["main", "lake"]);
    let names = catalog.table_names("lake").await.unwrap();
    let names: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["bought", "clicks", "daily", "orders"]);
    for (name, expected) in [("bought", 1), ("orders", 1), ("daily", 4), ("clicks", 4)] {
        assert_eq!(count(&catalog, &in_lake(name), None).await, expected, "{name}");
    }
    // A schema that is no lake may be a user's, which is empty until something is made there.
    assert!(catalog.table_names("lakes").await.unwrap().is_empty());
    let state = session(&catalog);
    assert!(catalog.open_table(&in_lake("none"), None, &state).await.unwrap().is_none());
    assert!(catalog.open_table(&in_lake("orders"), Some(1), &state).await.is_err());
    assert!(!folder.path().join("house").exists());
}

#[tokio::test]
async fn external_tables_persist_and_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = lake(folder.path()).await;
    let spec = Spec::External(Files::new("orders.csv", Format::Csv));
    let mode = CreateMode::New;
    assert!(catalog.create(&in_lake("sold"), spec.clone(), "ann", mode).await.unwrap());
    let taken = catalog.create(&in_lake("orders"), spec.clone(), "ann", mode).await.unwrap_err();
    assert!(matches!(taken, Error::AlreadyExists { .. }), "{taken}");
    assert!(catalog.create(&ObjectName::new("x", "t"), spec, "ann", mode).await.is_err());
    let restarted = lake(folder.path()).await;
    assert_eq!(count(&restarted, &in_lake("sold"), None).await, 1);
    let rows = plan(&restarted, "SELECT 1, 2.0", &[]).await;
    for name in ["sold", "orders"] {
        let state = session(&restarted);
        let error = restarted.insert(&in_lake(name), rows.clone(), state, None, false).await;
        assert!(error.unwrap_err().to_string().contains("cannot be changed"), "{name}");
    }
    let outside = Files::new("/etc/", Format::Csv);
    let state = session(&restarted);
    assert!(restarted.try_lake_table(&in_lake("x"), &outside, &state).await.is_err());
    for own in ["../house/_attune/users/", "../house/tables/", "../house/", "../house/models/m"] {
        let own = Files::new(own, Format::Json);
        let refused = restarted.try_lake_table(&in_lake("x"), &own, &state).await.unwrap_err();
        assert!(refused.to_string().contains("the warehouse's own files"), "{refused}");
    }
    assert!(restarted.drop_object(&in_lake("sold"), Kind::Table).await.unwrap());
    assert_eq!(restarted.kind(&in_lake("sold")).await.unwrap(), None);
}

#[tokio::test]
async fn a_delta_folder_in_a_lake_is_read_at_any_version() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = lake(folder.path()).await;
    let rows = plan(&catalog, "SELECT 1 AS x", &[]).await;
    let (name, mode) = (main("t"), CreateMode::New);
    let state = session(&catalog);
    catalog
        .create_table_as(&name, "ann", mode, rows.clone(), state, &NewTable::default())
        .await
        .unwrap();
    catalog.insert(&name, rows, session(&catalog), None, false).await.unwrap();
    let Some(Spec::Managed(made)) = catalog.definition(&name).await.unwrap().map(|d| d.spec) else {
        panic!("no table")
    };
    let from = folder.path().join("house").join(made.folder);
    std::fs::rename(from, folder.path().join("lake/events")).unwrap();
    let restarted = lake(folder.path()).await;
    assert_eq!(count(&restarted, &in_lake("events"), None).await, 2);
    assert_eq!(count(&restarted, &in_lake("events"), Some(0)).await, 1);
    for (version, expected) in [(None, 2), (Some(0), 1)] {
        let (name, state) = (in_lake("events"), session(&restarted));
        let files = restarted.table_files(&name, version, &state).await.unwrap().unwrap();
        assert_eq!(files.ids().len(), expected);
        let rows = SessionContext::new_with_state(state).read_table(files.rows(&[0])).unwrap();
        assert_eq!(rows.count().await.unwrap(), 1);
    }
    let empty = Files::new("clicks/", Format::Delta);
    let state = session(&restarted);
    let error = restarted.try_lake_table(&in_lake("x"), &empty, &state).await.unwrap_err();
    assert!(matches!(&error, Error::Empty { .. }), "{error}");
}

#[tokio::test]
async fn users_are_shared_and_a_change_counts_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (lake(folder.path()).await, lake(folder.path()).await);
    let user = |hash: &str, role: Role| UserRecord::new("ann", hash, [role]);
    assert_eq!(two.user("ann").await.unwrap(), None);
    one.put_user(user("first", Role::Analyst), false).await.unwrap();
    let taken = two.put_user(user("second", Role::Admin), false).await.unwrap_err();
    assert!(matches!(taken, Error::AlreadyExists { kind: "user", .. }), "{taken}");
    two.put_user(user("second", Role::Admin), true).await.unwrap();
    let seen = one.user("ann").await.unwrap().unwrap();
    assert_eq!((seen.password_hash.as_str(), seen.roles.contains("admin")), ("second", true));
    assert!(!format!("{seen:?}").contains("second"));
    assert_eq!(one.users().await.unwrap(), [seen]);
    assert!(one.definitions().await.unwrap().is_empty());
    assert!(two.drop_user("ann").await.unwrap());
    assert_eq!(one.user("ann").await.unwrap(), None);
    assert!(!one.drop_user("ann").await.unwrap());
}

#[tokio::test]
async fn identifiers_in_the_names_of_folders_cannot_be_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = lake(folder.path()).await;
    let state = session(&catalog);
    let clicks = |column: &str| {
        let pii = Pii {
            columns: vec![column.into()],
            key: "web".into(),
            key_id: Some("ab-1".into()),
            table: "who".into(),
        };
        Files { pii: Some(pii), ..Files::new("clicks/", Format::Csv) }
    };
    catalog.try_lake_table(&in_lake("x"), &clicks("id"), &state).await.unwrap();
    let refused = catalog.try_lake_table(&in_lake("x"), &clicks("day"), &state).await.unwrap_err();
    assert!(refused.to_string().contains("partition column"), "{refused}");
    // The lake's own table over the same files is closed from then on.
    let name = main("clicks");
    let apart = Spec::External(clicks("id"));
    catalog.create(&name, apart, "eve", CreateMode::New).await.unwrap();
    let closed = catalog.open_table(&in_lake("clicks"), None, &state).await.unwrap_err();
    assert!(closed.to_string().contains("lake.clicks is closed"), "{closed}");
    let opened = catalog.open_table(&name, None, &state).await.unwrap();
    assert!(matches!(opened, Some(Opened::Identified { identifiers_of: None, .. })));
    let files = catalog.table_files(&name, None, &state).await.unwrap();
    assert!(files.is_none() && catalog.table_state(&name, &state).await.unwrap().is_some());
    assert!(catalog.table_state(&main("who"), &state).await.unwrap().is_none());
    let opened = catalog.open_table(&main("who"), None, &state).await.unwrap();
    assert!(matches!(opened, Some(Opened::Identified { identifiers_of: Some(_), .. })));
    // Without the key's id nothing tells under which key its pseudonyms are.
    let mut older = clicks("id");
    older.pii = older.pii.map(|pii| Pii { key_id: None, ..pii });
    catalog.create(&name, Spec::External(older), "eve", CreateMode::Replace).await.unwrap();
    assert!(catalog.table_state(&name, &state).await.unwrap().is_none());
    assert!(catalog.drop_object(&name, Kind::Table).await.unwrap());
    assert!(catalog.open_table(&in_lake("clicks"), None, &state).await.unwrap().is_some());
}
