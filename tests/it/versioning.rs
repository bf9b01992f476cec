//! A bucket that keeps earlier versions of objects, or does not say, is told of wherever somebody
//! may rely on what is gone.

use arrow::util::pretty::pretty_format_batches;
use catalog::policy::Principal;
use catalog::{LakeAccess, StoreConfig};
use futures::TryStreamExt;
use sql::Session;

use crate::forgotten::engine;
use crate::lake_erasure::engine_with_lake;
use crate::program::{Program, attune};
use crate::rights::outcome;
use crate::s3::{BUCKET, Store, Versioning};
use crate::subjects::text;

/// What a bucket answers, and what is told of it; nothing of one that keeps nothing.
const SAID: [(Versioning, Option<&str>); 4] = [
    (Versioning::Off, None),
    (Versioning::Is("Enabled"), Some("bucket keeps earlier versions of objects")),
    (Versioning::Is("Suspended"), Some("versioning of the warehouse's bucket is suspended")),
    (Versioning::Denied, Some("is not known: it answers 403 Forbidden to GetBucketVersioning")),
];

async fn store() -> (Store, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
    (Store::over(folder.path()).await, folder)
}

async fn shown(session: &Session, query: &str) -> String {
    let answer = session.query(query).await.unwrap();
    let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
    pretty_format_batches(&rows).unwrap().to_string()
}

/// Forgets a person by number: what was said before, in the answer, and under `remains`.
async fn forgotten(session: &Session, number: usize) -> [String; 3] {
    let forget = format!("FORGET SUBJECT person 'person-{number}'");
    let planned = shown(session, &format!("EXPLAIN {forget}")).await;
    let message = session.query(&forget).await.unwrap().message.unwrap();
    let remains = text(
        session,
        "SELECT remains FROM system.erasures ORDER BY finished DESC, started DESC LIMIT 1",
    )
    .await;
    [planned, message, remains]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_says_what_the_bucket_keeps() {
    let (s3, _folder) = store().await;
    let engine = engine(&s3).await;
    let session = engine.session(Principal::embedded());
    for text in [
        "CREATE TABLE t AS SELECT 'person-' || n AS id FROM generate_series(0, 9) AS s(n)",
        "CREATE SUBJECT person KEY (t.id)",
    ] {
        assert_eq!(outcome(&session, text).await, Ok(0), "{text}");
    }
    for (number, (versioning, told)) in SAID.into_iter().enumerate() {
        s3.set_versioning(versioning);
        let [planned, message, remains] = forgotten(&session, number).await;
        match told {
            Some(told) => {
                for said in [&planned, &message, &remains] {
                    assert!(said.contains(told), "{versioning:?}: {said}");
                }
            }
            None => {
                assert!(message.contains("nothing is known to remain"), "{message}");
                assert_eq!(remains, "");
                assert!(!planned.contains("bucket"), "{planned}");
            }
        }
    }
}

/// What is told of the bucket of a lake.
const SAID_OF_LAKE: [(Versioning, Option<&str>); 4] = [
    (Versioning::Off, None),
    (
        Versioning::Is("Enabled"),
        Some("bucket s3://crm keeps earlier versions of objects: remove them there"),
    ),
    (Versioning::Is("Suspended"), Some("versioning of bucket s3://crm is suspended")),
    (
        Versioning::Denied,
        Some("whether bucket s3://crm keeps earlier versions of objects is not known: it answers"),
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_says_what_the_bucket_of_a_lake_keeps() {
    for access in [LakeAccess::Read, LakeAccess::Rewrite] {
        let (s3, folder) = store().await;
        let people = folder.path().join("crm/l/people");
        std::fs::create_dir_all(&people).unwrap();
        let rows: String = (0..10).map(|n| format!("person-{n},{n}\n")).collect();
        std::fs::write(people.join("a.csv"), format!("id,n\n{rows}")).unwrap();
        let lake = StoreConfig { url: "s3://crm/l".into(), ..s3.config("l") };
        let engine = engine_with_lake(&s3, "crm", lake, access).await;
        let session = engine.session(Principal::embedded());
        let subject = "CREATE SUBJECT person KEY (crm.people.id)";
        assert_eq!(outcome(&session, subject).await, Ok(0));
        for (number, (versioning, told)) in SAID_OF_LAKE.into_iter().enumerate() {
            s3.set_versioning(versioning);
            for said in forgotten(&session, number).await {
                match told {
                    Some(told) => assert!(said.contains(told), "{access:?} {versioning:?}: {said}"),
                    None => assert!(!said.contains("bucket"), "{access:?}: {said}"),
                }
            }
        }
        // What the file was is kept; what it is depends on whose it is.
        let left = std::fs::read_to_string(people.join("a.csv")).unwrap();
        assert_eq!(left.contains("person-0,"), access == LakeAccess::Read, "{left}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_and_the_check_of_a_configuration_say_it_too() {
    let (s3, folder) = store().await;
    let (config, log) = (folder.path().join("attune.toml"), folder.path().join("log"));
    std::fs::write(&config, format!("[warehouse]\n{}", s3.toml("w"))).unwrap();
    for (versioning, told) in SAID {
        s3.set_versioning(versioning);
        let output = attune().args(["check", "--config"]).arg(&config).output().unwrap();
        let noted = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{noted}");
        Program::new(&config).serve_logged(&log).await.kill();
        let logged = std::fs::read_to_string(&log).unwrap();
        for said in [noted, logged] {
            match told {
                Some(told) => assert!(said.contains(told), "{versioning:?}: {said}"),
                None => assert!(!said.contains("bucket"), "{said}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_of_a_configuration_tells_of_lakes_that_are_rewritten() {
    let (s3, folder) = store().await;
    std::fs::create_dir_all(folder.path().join("crm/l")).unwrap();
    let config = folder.path().join("attune.toml");
    let lake = s3.toml("l").replace("s3://attune/", "s3://crm/");
    for access in ["read", "rewrite"] {
        let text =
            format!("[warehouse]\n{}\n[lake.crm]\n{lake}access = \"{access}\"\n", s3.toml("w"));
        std::fs::write(&config, text).unwrap();
        for (versioning, told) in SAID_OF_LAKE {
            s3.set_versioning(versioning);
            let output = attune().args(["check", "--config"]).arg(&config).output().unwrap();
            let noted = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{noted}");
            let is_told = told.is_some_and(|told| noted.contains(told));
            assert_eq!(is_told, told.is_some() && access == "rewrite", "{versioning:?}: {noted}");
        }
    }
}
