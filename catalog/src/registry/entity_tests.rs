//! Models of entities come back as they were published.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use udfs::model::Model;
use udfs::model::entity_resolution::blocking::{Cost, Rule};
use udfs::model::entity_resolution::cluster::{Decision, Method};
use udfs::model::entity_resolution::dependence::Dependence;
use udfs::model::entity_resolution::kind::Kind as Compared;
use udfs::model::entity_resolution::learn::{Comparison, Linkage, UsedRule};
use udfs::model::entity_resolution::model::{
    EntityModel, EntityParts, Event, Pairs, Settings, What,
};

use super::model::{Publication, Standing};
use super::model_tests::publication;
use crate::CreateMode;
use crate::testing::{Shared, main};

/// Three records, of which the first two are one entity; `rich` has a row of everything.
fn entities(rich: bool) -> EntityModel {
    let comparison = Comparison {
        column: "R and (D)".into(),
        kind: Compared::Exact,
        m: vec![0.1, 0.9],
        u: vec![0.99, 0.01],
        h: vec![0.5, 0.5],
        is_own: false,
    };
    let rule = UsedRule {
        rule: Rule::parse("prefix(name, 3) AND name", &["name"]).unwrap(),
        text: "prefix(R and (D), 3) AND R and (D)".into(),
        cost: Cost { pairs: 1, keyed: 3, ..Cost::default() },
        recall: 0.25,
        expected: Some(0.5),
    };
    let linkage = Linkage {
        comparisons: vec![comparison],
        lambda: 0.3,
        eta: 0.01,
        dependences: vec![Dependence { on: 0, level: 2, column: 0 }],
        rules: vec![rule],
        objective: vec![],
        block_max: 7,
    };
    let event =
        Event { version: 1, what: What::Merged, entity: 5, other: Some(1 << 100), records: 2 };
    let pairs = Pairs {
        left: vec![0],
        right: vec![1],
        weight: vec![4.5],
        levels: vec![2],
        parts: vec![5.0, -0.5],
    };
    let decision = Decision { left: 2, right: 0, is_match: false };
    let sources: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "b"]));
    let parts = EntityParts {
        settings: Settings {
            id_col: "id".into(),
            source_col: rich.then(|| "shop".into()),
            is_link: rich,
            method: Method::Guarded,
            threshold: 0.9,
        },
        linkage,
        ids: Arc::new(StringArray::from(vec!["x", "y", "z"])),
        sources: rich.then_some(sources),
        contents: vec![1, u64::MAX, 3],
        entities: vec![1 << 100, 1 << 100, 7],
        pairs: if rich { pairs } else { Pairs::default() },
        history: if rich { vec![event] } else { vec![] },
        decisions: if rich { vec![decision] } else { vec![] },
    };
    EntityModel::from_parts(parts).unwrap()
}

#[tokio::test]
async fn entities_come_back() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    for (name, rich) in [("rich", true), ("poor", false)] {
        let claim = catalog.claim_version(&main(name), "ann", CreateMode::New).await.unwrap();
        let publication =
            Publication { user_col: String::new(), item_col: String::new(), ..publication() };
        let made = Arc::new(Model::from(entities(rich)));
        catalog.publish(claim, made, publication, Standing::default()).await.unwrap();
        let loaded = shared.open().await.load_model(&main(name), None).await.unwrap().model;
        let (read, wrote) = (loaded.entities().unwrap().parts(), entities(rich));
        let wrote = wrote.parts();
        assert_eq!(read.settings, wrote.settings);
        assert_eq!(read.linkage.comparisons, wrote.linkage.comparisons);
        assert_eq!(read.linkage.rules, wrote.linkage.rules);
        assert_eq!(read.linkage.dependences, wrote.linkage.dependences);
        assert_eq!((&read.ids, &read.sources), (&wrote.ids, &wrote.sources));
        assert_eq!((&read.contents, &read.entities), (&wrote.contents, &wrote.entities));
        assert_eq!((&read.pairs, &read.history), (&wrote.pairs, &wrote.history));
        assert_eq!(read.decisions, wrote.decisions);
    }
}
