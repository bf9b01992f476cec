//! Models of entities come back as they were published.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use udfs::model::Model;
use udfs::model::entity_resolution::blocking::{Cost, Rule};
use udfs::model::entity_resolution::cluster::{Decision, Method};
use udfs::model::entity_resolution::dependence::Dependence;
use udfs::model::entity_resolution::key::Expression;
use udfs::model::entity_resolution::kind::Kind as Compared;
use udfs::model::entity_resolution::learn::{Comparison, Linkage, UsedRule};
use udfs::model::entity_resolution::model::{EntityModel, EntityParts, Event, Settings, What};
use udfs::model::entity_resolution::pairs::{PairRows, Pairs, Spill, Writer};
use udfs::model::entity_resolution::score::Edge;

use super::model::{LoadedModel, Publication, Standing};
use super::model_tests::publication;
use crate::testing::{Shared, main};
use crate::{CreateMode, Error};

/// Three records, of which the first two are one entity; `rich` has a row of everything.
fn entities(rich: bool) -> EntityModel {
    let comparison = Comparison {
        column: "R and (D)".into(),
        kind: Compared::Exact,
        m: vec![0.1, 0.9],
        u: vec![0.99, 0.01],
        h: vec![0.5, 0.5],
        is_own: false,
        placeholders: if rich { vec![u64::MAX, 1] } else { vec![] },
    };
    let rule = UsedRule {
        rule: Rule::parse("prefix(name, 3) AND name", &["name"]).unwrap(),
        text: "prefix(R and (D), 3) AND R and (D)".into(),
        cost: Cost { pairs: 1, keyed: 3, ..Cost::default() },
        recall: 0.25,
        expected: Some(0.5),
    };
    let computed = UsedRule {
        rule: Rule {
            keys: vec![],
            expressions: vec![Expression { text: "f(\"R and (D)\", ' AND ')".into(), columns: 1 }],
        },
        text: "f(\"R and (D)\", ' AND ')".into(),
        expected: None,
        ..rule.clone()
    };
    let mixed = UsedRule {
        rule: Rule { expressions: computed.rule.expressions.clone(), ..rule.rule.clone() },
        ..computed.clone()
    };
    let linkage = Linkage {
        comparisons: vec![comparison],
        lambda: 0.3,
        eta: 0.01,
        dependences: vec![Dependence { on: 0, level: 2, column: 0 }],
        rules: if rich { vec![rule, computed, mixed] } else { vec![rule] },
        objective: vec![],
        block_max: 7,
    };
    let event =
        Event { version: 1, what: What::Merged, entity: 5, other: Some(1 << 100), records: 2 };
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
        marks: if rich { vec![4, 0, u64::MAX] } else { vec![] },
        entities: vec![1 << 100, 1 << 100, 7],
        history: if rich { vec![event] } else { vec![] },
        decisions: if rich { vec![decision] } else { vec![] },
        unlinkable: if rich { vec![0, 2] } else { vec![] },
    };
    EntityModel::from_parts(parts).unwrap()
}

/// A pair of each of so many records, but the first, with one before it.
fn pairs(records: u32) -> Pairs {
    let mut writer = Writer::new(&Spill::in_memory(), 2);
    for right in 1..records {
        let (left, levels) = (right / 100, u64::from(right) << 40);
        let edge = Edge { left, right, weight: 4.5, levels };
        writer.add(&edge, &[5.0, -0.5 * right as f32]);
    }
    writer.pairs().unwrap()
}

async fn read(model: &LoadedModel) -> Result<PairRows, Error> {
    let mut all = PairRows::default();
    let mut rows = model.pairs().await?;
    while let Some(PairRows { edges, parts }) = rows.try_next().await? {
        all.edges.extend(edges);
        all.parts.extend(parts);
    }
    Ok(all)
}

#[tokio::test]
async fn entities_come_back() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    for (name, rich) in [("rich", true), ("poor", false)] {
        let mut claim = catalog.claim_version(&main(name), "ann", CreateMode::New).await.unwrap();
        claim.write_pairs(&pairs(if rich { 2 } else { 0 })).await.unwrap();
        let publication =
            Publication { user_col: String::new(), item_col: String::new(), ..publication() };
        let made = Arc::new(Model::from(entities(rich)));
        catalog.publish(claim, made, publication, Standing::default()).await.unwrap();
        let loaded = shared.open().await.load_model(&main(name), None).await.unwrap();
        let expected = pairs(if rich { 2 } else { 0 }).page(0).unwrap();
        assert_eq!(read(&loaded).await.unwrap(), expected);
        assert_eq!(loaded.manifest.files.contains_key("pairs"), rich);
        let loaded = loaded.model;
        let (read, wrote) = (loaded.entities().unwrap().parts(), entities(rich));
        let wrote = wrote.parts();
        assert_eq!(read.settings, wrote.settings);
        assert_eq!(read.linkage.comparisons, wrote.linkage.comparisons);
        assert_eq!(read.linkage.rules, wrote.linkage.rules);
        assert_eq!(read.linkage.dependences, wrote.linkage.dependences);
        assert_eq!((&read.ids, &read.sources), (&wrote.ids, &wrote.sources));
        assert_eq!((&read.contents, &read.entities), (&wrote.contents, &wrote.entities));
        assert_eq!((&read.history, &read.decisions), (&wrote.history, &wrote.decisions));
        assert_eq!((&read.unlinkable, &read.marks), (&wrote.unlinkable, &wrote.marks));
    }
}

/// So many records, each an entity.
fn many(records: usize) -> EntityModel {
    let EntityParts { settings, linkage, .. } = entities(false).parts().clone();
    let ids: StringArray = (0..records).map(|id| Some(format!("{id:06}"))).collect();
    EntityModel::from_parts(EntityParts {
        settings,
        linkage,
        ids: Arc::new(ids),
        sources: None,
        contents: vec![0; records],
        marks: vec![],
        entities: (0..records as u128).collect(),
        history: vec![],
        decisions: vec![],
        unlinkable: vec![],
    })
    .unwrap()
}

#[tokio::test]
async fn pairs_come_back_piece_by_piece_and_foreign_ones_are_told() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let publish = async |name: &str, records: usize| {
        let mut claim = catalog.claim_version(&main(name), "ann", CreateMode::New).await.unwrap();
        claim.write_pairs(&pairs(100_000)).await.unwrap();
        let made = Arc::new(Model::from(many(records)));
        catalog.publish(claim, made, publication(), Standing::default()).await.unwrap();
        catalog.load_model(&main(name), None).await.unwrap()
    };
    let loaded = publish("m", 100_000).await;
    let all = read(&loaded).await.unwrap();
    assert_eq!((all.edges.len(), all.parts.len()), (99_999, 2 * 99_999));
    for (at, right) in [(0, 1), (65_535, 65_536), (99_998, 99_999)] {
        let levels = u64::from(right) << 40;
        assert_eq!(all.edges[at], Edge { left: right / 100, right, weight: 4.5, levels });
        assert_eq!(all.parts[2 * at + 1], -0.5 * right as f32);
    }
    // Pairs of records that the model does not have.
    let error = read(&publish("few", 50_000).await).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { .. }), "{error}");
    let file = loaded.folder.child(&loaded.manifest.files["pairs"].name);
    let content = file.read().await.unwrap();
    file.store.put(&file.path, content.slice(..content.len() / 2).into()).await.unwrap();
    let error = read(&loaded).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { .. }), "{error}");
}
