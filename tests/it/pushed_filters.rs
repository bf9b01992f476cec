//! Conditions and the filters that operators make while they run reach the scans that they are
//! about, and no others. Which rows come of it is in `tests/slt/sql/outer_join_filters.slt`.

use catalog::policy::Principal;
use futures::TryStreamExt;
use sql::Session;

/// The lines of a statement's plan.
async fn plan(session: &Session, text: &str) -> Vec<String> {
    let answer = session.query(&format!("EXPLAIN {text}")).await.unwrap();
    let rows: Vec<_> = answer.rows.try_collect().await.unwrap();
    crate::flight::support::lines(&rows)
}

/// What the scan of a table is told to leave out; empty when it is told nothing.
fn predicate(plan: &[String], table: &str) -> String {
    let folder = format!("/main.{table}-");
    let scan = plan.iter().find(|line| line.contains(&folder)).unwrap();
    scan.split_once("predicate=").map(|(_, told)| told.to_owned()).unwrap_or_default()
}

async fn tables(session: &Session) {
    for statement in [
        "CREATE TABLE l AS SELECT * FROM (VALUES (1, 1), (2, 0), (5, 7)) AS t (id, k)",
        "CREATE TABLE r AS SELECT * FROM (VALUES (1, 0), (3, 5), (4, 1)) AS t (id, k)",
    ] {
        session.query(statement).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_on_one_side_reach_its_scan_alone() {
    let folder = tempfile::tempdir().unwrap();
    let session = crate::slt::engine(folder.path()).await.session(Principal::embedded());
    tables(&session).await;
    let joined = |join: &str, condition: &str| {
        format!("SELECT l.id, r.id FROM l {join} r ON l.k = r.k WHERE {condition}")
    };

    let inner = plan(&session, &joined("JOIN", "l.id = 1")).await;
    assert!(predicate(&inner, "l").starts_with("id@0 = 1"), "{inner:?}");
    assert!(predicate(&inner, "r").starts_with("DynamicFilter"), "{inner:?}");

    let kept = plan(&session, &joined("RIGHT JOIN", "r.id = 1")).await;
    assert!(predicate(&kept, "r").starts_with("id@0 = 1"), "{kept:?}");

    for condition in ["l.id IS NULL", "coalesce(l.id, 1) = 1"] {
        let right = plan(&session, &joined("RIGHT JOIN", condition)).await;
        assert!(right.iter().any(|line| line.contains("FilterExec")), "{right:?}");
        assert_eq!(predicate(&right, "l"), "", "{right:?}");
        assert!(!predicate(&right, "r").contains("id@0"), "{right:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_that_sorts_make_reach_the_scan_of_their_column() {
    let folder = tempfile::tempdir().unwrap();
    let session = crate::slt::engine(folder.path()).await.session(Principal::embedded());
    tables(&session).await;
    let first = "SELECT a, b FROM (SELECT l.id, r.id FROM l JOIN r ON l.k = r.k) AS q (a, b) \
                 ORDER BY b LIMIT 1";
    let plan = plan(&session, first).await;
    // One of the join and one of the sort.
    assert_eq!(predicate(&plan, "r").matches("DynamicFilter").count(), 2, "{plan:?}");
    assert_eq!(predicate(&plan, "l"), "", "{plan:?}");
}
