//! Persons who are forgotten in a lake that Attune may write: nothing of them is left in its files,
//! everybody else's rows are there once, and whoever is killed after any write has lost nothing.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use attune::auth::hasher::Argon2Hasher;
use catalog::policy::Principal;
use catalog::{Catalog, CatalogConfig, LakeAccess, LakeConfig, StoreConfig};
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use sql::{Engine, Limits, Session};

use crate::forgotten::{DONE, Ended, ended_after};
use crate::remnants::Remnants;
use crate::rights::outcome;
use crate::s3::{BUCKET, Store};
use crate::slt::engine_with;
use crate::subjects::text;

const ID: &str = "person-who-goes-4711";
const MAIL: &str = "Anna.Gone-4711@Example.org";

fn remnants() -> Remnants {
    Remnants::of(&[ID, MAIL], &[])
}

/// A hundred people, with the one who goes or without.
fn people(path: &Path, first: i64, with_person: bool) {
    let numbers = first..first + 100;
    let mut ids: Vec<String> = numbers.clone().map(|n| format!("customer-{n}")).collect();
    let mut mails: Vec<String> = numbers.clone().map(|n| format!("user{n}@example.com")).collect();
    if with_person {
        ids[50] = ID.to_owned();
        mails[50] = MAIL.to_owned();
    }
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(StringArray::from(ids))),
        ("mail", Arc::new(StringArray::from(mails))),
        ("n", Arc::new(Int64Array::from_iter_values(numbers))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Tables of kinds that are rewritten.
fn fill(lake: &Path) {
    people(&lake.join("people/a.parquet"), 0, true);
    people(&lake.join("people/b.parquet"), 100, false);
    let visits =
        format!("visitor;page\ncustomer-1;home\n\"{ID}\";\"a;b\"\n{ID};cart\ncustomer-2;\n");
    write(&lake.join("visits/day=1/a.csv"), &visits);
    write(&lake.join("visits/day=2/a.csv"), "page;visitor\nhome;customer-1\n");
    let events = format!("{{\"who\":\"{ID}\",\"n\":1}}\n{{\"who\":\"customer-1\",\"n\":2}}\n");
    write(&lake.join("events/a.ndjson"), &events);
}

/// A table with the person in a folder's name, which is on disk as a folder.
fn fill_folders(lake: &Path) {
    write(&lake.join(format!("mails/owner={ID}/a.csv")), &format!("mail\n{MAIL}\n"));
    write(&lake.join("mails/owner=customer-1/a.csv"), "mail\nuser1@example.com\n");
}

/// What is said of the tables before anybody asks to be forgotten.
const DEFINITIONS: [&str; 2] = [
    "CREATE EXTERNAL TABLE main.seen STORED AS CSV LOCATION 'visits/' OPTIONS (delimiter ';')",
    "CREATE SUBJECT person KEY (lake.people.id, main.seen.visitor, lake.events.who)",
];

/// What is there of everybody else.
const OTHERS: [(&str, &str); 4] = [
    ("SELECT count(DISTINCT id) * 1000 + count(*) FROM lake.people", "199199"),
    ("SELECT sum(n) FROM lake.people", "19850"),
    ("SELECT string_agg(visitor || '-' || day, ' ' ORDER BY day, visitor) FROM main.seen", SEEN),
    ("SELECT sum(n) FROM lake.events", "2"),
];
const SEEN: &str = "customer-1-1 customer-2-1 customer-1-2";

async fn define(session: &Session) {
    for statement in DEFINITIONS {
        outcome(session, statement).await.unwrap_or_else(|code| panic!("{statement}: {code}"));
    }
}

async fn others_are_there(session: &Session, when: &str) {
    for (query, answer) in OTHERS {
        assert_eq!(text(session, query).await, answer, "{when}: {query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_who_is_forgotten_is_left_in_a_lake_that_is_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, warehouse) = (folder.path().join("lake"), folder.path().join("warehouse"));
    fill(&lake);
    fill_folders(&lake);
    let engine = engine_with(folder.path(), &lake, LakeAccess::Rewrite).await;
    let session = engine.session(Principal::embedded());
    define(&session).await;
    let key = "ALTER SUBJECT person ADD KEY (lake.mails.owner)";
    assert_eq!(outcome(&session, key).await, Ok(0));
    // Listings, footers and statistics of the old files are known.
    assert_eq!(text(&session, "SELECT count(*) FROM lake.people").await, "200");
    let remnants = remnants();
    for what in [ID, MAIL] {
        let found = remnants.below(&lake);
        assert!(found.iter().any(|found| found.starts_with(what)), "{what}: {found:?}");
    }
    let untouched = std::fs::read(lake.join("people/b.parquet")).unwrap();
    let explain = session.query(&format!("EXPLAIN FORGET SUBJECT person '{ID}'")).await.unwrap();
    let told: Vec<RecordBatch> = explain.rows.try_collect().await.unwrap();
    let told = arrow::util::pretty::pretty_format_batches(&told).unwrap().to_string();
    assert_eq!(told.matches("hide from every read, and rewrite the files").count(), 4, "{told}");

    let forget = session.query(&format!("FORGET SUBJECT person '{ID}'")).await.unwrap();
    let message = forget.message.unwrap_or_default();
    assert!(message.contains("nothing is known to remain"), "{message}");
    // One of people, two visits, an event, a mail.
    assert_eq!(forget.affected, Some(5), "{message}");
    for place in [&lake, &warehouse] {
        assert_eq!(remnants.below(place), Vec::<String>::new());
    }
    assert!(!lake.join(format!("mails/owner={ID}")).exists());
    assert_eq!(std::fs::read(lake.join("people/b.parquet")).unwrap(), untouched);
    let visits = std::fs::read_to_string(lake.join("visits/day=1/a.csv")).unwrap();
    assert_eq!(visits, "visitor;page\ncustomer-1;home\ncustomer-2;\n");
    let certificate = text(&session, "SELECT certificate FROM system.erasures").await;
    for named in ["people/a.parquet", "visits/day=1/a.csv", "events/a.ndjson", "mails/owner=…"] {
        assert!(certificate.contains(named), "{named} in {certificate}");
    }
    assert!(!certificate.contains("people/b.parquet"), "{certificate}");
    others_are_there(&session, "the same server").await;
    let mails = "SELECT string_agg(mail, ' ') FROM lake.mails";
    assert_eq!(text(&session, mails).await, "user1@example.com");
    // Whoever writes the person again does so for nobody to see.
    write(&lake.join("events/b.ndjson"), &format!("{{\"who\":\"{ID}\",\"n\":40}}\n"));
    let other = engine_with(folder.path(), &lake, LakeAccess::Rewrite).await;
    let session = other.session(Principal::embedded());
    others_are_there(&session, "another server").await;
    assert_eq!(outcome(&session, &format!("FORGET SUBJECT person '{ID}'")).await, Ok(0));
    assert_eq!(remnants.below(&lake), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rewritten_is_hidden_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    people(&lake.join("people/a.parquet"), 0, true);
    people(&lake.join("people/b.parquet"), 100, true);
    // Whose files these are, somebody else's metadata says.
    write(&lake.join("people/metadata/v1.metadata.json"), "{}");
    let engine = engine_with(folder.path(), &lake, LakeAccess::Rewrite).await;
    let session = engine.session(Principal::embedded());
    for statement in [
        "CREATE EXTERNAL TABLE main.known STORED AS PARQUET LOCATION 'people/'",
        "CREATE SUBJECT person KEY (main.known.id)",
        &format!("FORGET SUBJECT person '{ID}'"),
    ] {
        assert_eq!(outcome(&session, statement).await, Ok(0), "{statement}");
    }
    assert_eq!(text(&session, "SELECT count(*) FROM main.known").await, "198");
    let remains = text(&session, "SELECT remains FROM system.erasures").await;
    for named in [
        "people/a.parquet (it is of an Iceberg table",
        "people/b.parquet",
        "table lake.people reads the files of main.known and has no key of person",
    ] {
        assert!(remains.contains(named), "{named} in {remains}");
    }
    assert!(!remnants().below(&lake).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_last_file_goes_holds_up_nobodys_request() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    for table in ["part", "alone"] {
        write(&lake.join(table).join("a.csv"), &format!("customer_id,n\n{ID},1\n"));
    }
    fill(&lake);
    let engine = engine_with(folder.path(), &lake, LakeAccess::Rewrite).await;
    let session = engine.session(Principal::embedded());
    for statement in [
        "CREATE EXTERNAL TABLE main.alone STORED AS CSV LOCATION 'alone/'",
        "CREATE SUBJECT person KEY (lake.part.customer_id, main.alone.customer_id, lake.events.who)",
    ] {
        assert_eq!(outcome(&session, statement).await, Ok(0), "{statement}");
    }
    let forget = session.query(&format!("FORGET SUBJECT person '{ID}'")).await.unwrap();
    let message = forget.message.unwrap_or_default();
    assert!(message.contains("nothing is known to remain"), "{message}");
    assert!(!lake.join("alone/a.csv").exists());
    let of_another = [
        "EXPLAIN FORGET SUBJECT person 'customer-1'",
        "RESTRICT SUBJECT person 'customer-1'",
        "RELEASE SUBJECT person 'customer-1' FROM RESTRICTION",
        "HOLD SUBJECT person 'customer-1'",
        "RELEASE SUBJECT person 'customer-1' FROM HOLD",
    ];
    let export = "EXPORT SUBJECT person 'customer-1'";
    assert_eq!(text(&session, "SELECT count(customer_id) FROM main.alone").await, "0");
    assert_eq!(outcome(&session, export).await, Ok(1));
    for statement in of_another {
        let ended = outcome(&session, statement).await;
        assert!(ended.is_ok(), "{statement}: {ended:?}");
    }

    // Another server has never seen what columns there were.
    let other = engine_with(folder.path(), &lake, LakeAccess::Rewrite).await;
    let there = other.session(Principal::embedded());
    let read = "SELECT count(*) FROM main.alone";
    assert_eq!(outcome(&there, read).await, Err("ATT-5005"));
    // The table that cannot be read, and the row of the other one.
    assert_eq!(outcome(&there, export).await, Ok(2));
    let answer = there.query(export).await.unwrap();
    let told: Vec<RecordBatch> = answer.rows.try_collect().await.unwrap();
    let told = arrow::util::pretty::pretty_format_batches(&told).unwrap().to_string();
    assert!(told.contains("table main.alone cannot be read"), "{told}");
    for statement in of_another {
        let ended = outcome(&there, statement).await;
        assert!(ended.is_ok(), "{statement}: {ended:?}");
    }

    // Where files are, whoever was erased would be seen again.
    let drop = "ALTER SUBJECT person DROP KEY lake.events.who";
    assert_eq!(outcome(&session, drop).await, Err("ATT-2001"));
    let drop = "ALTER SUBJECT person DROP KEY (lake.part.customer_id, main.alone.customer_id)";
    assert_eq!(outcome(&session, drop).await, Ok(0));
    assert_eq!(outcome(&session, export).await, Ok(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_the_files_of_a_restricted_person_otherwise_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    write(&lake.join("semi.csv"), "customer_id;v\nc-1;1\nc-2;2\n");
    let engine = engine_with(folder.path(), &lake, LakeAccess::Rewrite).await;
    let session = engine.session(Principal::embedded());
    for statement in [
        "CREATE EXTERNAL TABLE main.semi STORED AS CSV LOCATION 'semi.csv' OPTIONS (delimiter ';')",
        "CREATE SUBJECT person KEY (main.semi.customer_id)",
    ] {
        assert_eq!(outcome(&session, statement).await, Ok(0), "{statement}");
    }
    let seen = "SELECT count(*) FROM lake.semi WHERE \"customer_id;v\" LIKE 'c-2%'";
    let answer = session.query("RESTRICT SUBJECT person 'c-2'").await.unwrap();
    let message = answer.message.unwrap_or_default();
    let named = "table lake.semi reads the files of main.semi and has no key of person";
    assert!(message.contains(named), "{message}");
    assert_eq!(text(&session, "SELECT count(*) FROM main.semi").await, "1");
    assert_eq!(text(&session, seen).await, "1");
    // FORGET takes the row out of the file, for whoever reads it.
    let answer = session.query("FORGET SUBJECT person 'c-2'").await.unwrap();
    let message = answer.message.unwrap_or_default();
    assert!(message.contains("nothing is known to remain"), "{message}");
    assert_eq!(text(&session, seen).await, "0");
}

/// An engine with its warehouse in a store, and one lake.
pub async fn engine_with_lake(
    s3: &Store,
    name: &str,
    store: StoreConfig,
    access: LakeAccess,
) -> Engine {
    let now = || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_millis()).unwrap()
    };
    let mut config = CatalogConfig::new(s3.config("w"), Arc::new(now));
    config.lakes =
        vec![LakeConfig { name: name.into(), store, discover: true, access, tables: vec![] }];
    let catalog = Catalog::open(config).await.unwrap();
    Engine::open(catalog, Limits::default(), Arc::new(Argon2Hasher::default())).unwrap()
}

pub async fn engine(s3: &Store) -> Engine {
    engine_with_lake(s3, "lake", s3.config("l"), LakeAccess::Rewrite).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewriting_that_is_killed_after_any_write_is_ended_by_the_next_server() {
    let origin = tempfile::tempdir().unwrap();
    fill(&origin.path().join(BUCKET).join("l"));
    {
        let s3 = Store::over(origin.path()).await;
        define(&engine(&s3).await.session(Principal::embedded())).await;
    }
    let forget = format!("FORGET SUBJECT person '{ID}'");
    let remnants = remnants();
    for writes in 0.. {
        let Ended { session, forgotten, was_killed, folder, .. } =
            &ended_after(writes, origin.path(), &forget, engine).await;
        let when = format!("after {writes} writes");
        if text(session, DONE).await == "0" {
            assert!(forgotten.is_err(), "{when}");
            assert_eq!(outcome(session, &forget).await, Ok(0), "{when}");
        }
        assert_eq!(remnants.below(&folder.path().join(BUCKET)), Vec::<String>::new(), "{when}");
        assert_eq!(text(session, DONE).await, "1", "{when}");
        others_are_there(session, &when).await;
        if !*was_killed {
            assert!(writes > 6, "a rewriting of {writes} writes");
            break;
        }
    }
}
