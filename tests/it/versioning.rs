//! A bucket that keeps earlier versions of objects, or does not say, is told of wherever somebody
//! may rely on what is gone.

use arrow::util::pretty::pretty_format_batches;
use catalog::policy::Principal;
use futures::TryStreamExt;
use sql::Session;

use crate::forgotten::engine;
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
        let forget = format!("FORGET SUBJECT person 'person-{number}'");
        let planned = shown(&session, &format!("EXPLAIN {forget}")).await;
        let message = session.query(&forget).await.unwrap().message.unwrap();
        let remains = text(
            &session,
            "SELECT remains FROM system.erasures ORDER BY finished DESC, started DESC LIMIT 1",
        )
        .await;
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
