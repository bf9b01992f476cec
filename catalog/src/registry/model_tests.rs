//! Tests of models: publication, races, restarts, damage, stale claims, the cache.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::datatypes::DataType;
use object_store::ObjectStoreExt;
use udfs::model::als::{AlsFactors, AlsOptions};
use udfs::model::boosted::{BoostedOptions, Calibration, ClassType, Classes, Growth, Part, Task};
use udfs::model::hybrid::{Base, Member, Signal, Weight};
use udfs::model::{
    AlsModel, Csr, FeatureRows, GatheredRows, HybridModel, IdIndex, ItemModel, ItemParts, Model,
    ModelParts, NO_SEGMENT, PopularityModel, PopularityParts, Preparation, Prepared, Recommender,
    Segments, Similarity, isolation_forest, kmeans, outlier, pca,
};

use super::model::{
    Publication, Standing, StoredIteration, StoredMetric, StoredStart, StoredTrial, StoredTuning,
};
use crate::testing::{Shared, TestClock, main, open_folder};
use crate::{Catalog, CreateMode, Error, Kind, Result, Spec};

const USERS: usize = 5;

fn index(name: &str, ids: ArrayRef) -> IdIndex {
    let mut index = IdIndex::new(name, ids.data_type()).unwrap();
    index.encode(&ids).unwrap();
    index
}

pub(super) fn model(seed: f32) -> Arc<Model> {
    let users: ArrayRef = Arc::new(Int64Array::from_iter_values((0..USERS as i64).map(|n| n * 7)));
    let items: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let values = |count: usize| (0..count).map(|n| n as f32 * 0.5 + seed).collect::<Vec<f32>>();
    let parts = ModelParts {
        users: index("user", users),
        items: index("item", items),
        factors: AlsFactors {
            user_factors: values(USERS * 2),
            item_factors: values(3 * 2),
            user_bias: vec![],
            item_bias: vec![],
            global_mean: 0.0,
            losses: vec![3.0],
        },
        seen: Csr::new(vec![0, 2, 2, 3, 3, 4], vec![0, 2, 1, 2], vec![1.0; 4], 3).unwrap(),
        options: AlsOptions {
            feedback: udfs::model::als::Feedback::Implicit,
            num_factors: 2,
            ..AlsOptions::default()
        },
    };
    Arc::new(AlsModel::from_parts(parts).unwrap().into())
}

pub(super) fn publication() -> Publication {
    let metric = |name: &str, value| StoredMetric {
        name: name.into(),
        value,
        baseline: 0.1,
        lower: value,
        upper: value,
        users: 3,
    };
    Publication {
        model_type: "matrix_factorization".into(),
        options: [("num_factors".to_owned(), serde_json::json!(2))].into(),
        query: "SELECT user_id, item_id FROM clicks".into(),
        user_col: "user_id".into(),
        item_col: "item_id".into(),
        rating_col: None,
        metrics: vec![metric("coverage", f64::NAN), metric("recall@20", 0.25)],
        iterations: vec![StoredIteration {
            iteration: 1,
            loss: 3.0,
            duration_ms: 1.5,
            metric: Some(0.5),
        }],
        validation_metric: Some("ndcg@20".into()),
        best_iteration: Some(1),
        total_iterations: 1,
        tuning: Some(tuning()),
        segments: vec![],
        top_k: 20,
        purpose: None,
        channel: None,
        consents: vec![],
        users_of: BTreeSet::new(),
        records_of: Some(BTreeSet::new()),
        start: StoredStart::GoesOn { version: 1, holds_all: true },
        read_from: vec!["main.clicks".into()],
        reads_unknown: true,
        left_models: ["main.m@1".to_owned()].into(),
        policies: [("main.clicks".into(), [("mask".into(), "7f".into())].into())].into(),
    }
}

#[test]
fn what_learned_from_an_unknown_model_may_have_read_any_table() {
    let known = Publication { reads_unknown: false, ..publication() };
    assert!(known.may_have_read("main.clicks") && !known.may_have_read("main.other"));
    let unknown = Publication { reads_unknown: true, ..publication() };
    assert!(unknown.all_read_from().is_empty() && unknown.may_have_read("main.other"));
}

fn tuning() -> StoredTuning {
    let values: BTreeMap<_, _> = [("num_factors".to_owned(), serde_json::json!(2))].into();
    let trial = StoredTrial {
        trial: 1,
        values: values.clone(),
        metric: 0.5,
        loss: Some(3.0),
        iterations: Some(1),
        best_iteration: Some(1),
        duration_ms: 1.5,
        stopped: false,
        error: None,
    };
    StoredTuning {
        algorithm: "bayesian".into(),
        objective: "ndcg@20".into(),
        chosen: values,
        trials: vec![trial],
    }
}

async fn train(catalog: &Arc<Catalog>, name: &str, mode: CreateMode, seed: f32) -> Result<u32> {
    let claim = catalog.claim_version(&main(name), "ann", mode).await?;
    catalog.publish(claim, model(seed), publication(), Standing::default()).await
}

async fn first_factor(catalog: &Arc<Catalog>, name: &str, version: Option<u32>) -> f32 {
    let loaded = catalog.load_model(&main(name), version).await.unwrap();
    loaded.model.als().unwrap().user_factors()[0]
}

/// Lets the clean-up of a dropped claim run.
async fn settle(shared: &Shared) {
    for _ in 0..1_000 {
        if shared.paths("models").await.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_model_survives_a_restart_whole() {
    let folder = tempfile::tempdir().unwrap();
    let clock = TestClock::default();
    let catalog = open_folder(folder.path(), &clock).await;
    assert_eq!(train(&catalog, "m", CreateMode::New, 1.0).await.unwrap(), 1);
    let restarted = open_folder(folder.path(), &clock).await;
    let loaded = restarted.load_model(&main("m"), None).await.unwrap();
    assert_eq!(loaded.to_string(), "main.m@1");
    let made = model(1.0);
    let (read, wrote) = (loaded.model.als().unwrap(), made.als().unwrap());
    assert_eq!(read.user_factors(), wrote.user_factors());
    assert_eq!(read.item_factors(), wrote.item_factors());
    assert_eq!(read.seen(), wrote.seen());
    assert_eq!(read.options(), wrote.options());
    assert_eq!(&read.item_ids().values(), &wrote.item_ids().values());
    assert_eq!(loaded.model.memory_bytes(), made.memory_bytes());
    assert_eq!(loaded.manifest.query, publication().query);
    assert!(loaded.manifest.metrics[0].value.is_nan());
    let listed = restarted.models().await.unwrap();
    assert_eq!(listed[0].metric, Some(("recall@20".into(), 0.25)));
    assert_eq!((listed[0].default_version, listed[0].owner.as_str()), (1, "ann"));
    let (_, manifest) = restarted.model_manifest(&main("m"), None).await.unwrap();
    assert_eq!(manifest.memory_bytes, made.memory_bytes());
}

#[tokio::test]
async fn models_of_every_type_come_back() {
    let made = model(1.0);
    let als = made.als().unwrap();
    let item = |similarity| {
        let parts = ItemParts {
            users: als.user_ids().clone(),
            items: als.item_ids().clone(),
            seen: als.seen().clone(),
            similarity,
        };
        Model::from(ItemModel::from_parts(parts).unwrap())
    };
    let popularity = |segments| {
        let parts = PopularityParts {
            users: als.user_ids().clone(),
            items: als.item_ids().clone(),
            seen: als.seen().clone(),
            weights: vec![0.5, 2.0, 1.0],
            segments,
        };
        Model::from(PopularityModel::from_parts(parts).unwrap())
    };
    let blend = |shares: [f32; 5]| {
        let parts = ModelParts {
            users: als.user_ids().clone(),
            items: als.item_ids().clone(),
            factors: als.factors().clone(),
            seen: als.seen().clone(),
            options: als.options().clone(),
        };
        let dense = (0..9).map(|n| n as f32).collect();
        let models = [
            Model::from(AlsModel::from_parts(parts).unwrap()),
            item(Similarity::Dense(dense)),
            popularity(None),
        ];
        let signal = |(name, weights): (&str, [f32; 3])| {
            let parts = PopularityParts {
                users: als.user_ids().clone(),
                items: als.item_ids().clone(),
                seen: als.seen().clone(),
                weights: weights.to_vec(),
                segments: None,
            };
            let scores = PopularityModel::from_parts(parts).unwrap();
            Base::Signal(Signal::new(name.to_owned(), scores))
        };
        let signals = [("margin", [0.0, -1.0, 1.0]), ("stock", [2.0, 0.0, -2.0])].map(signal);
        let bases = models.into_iter().map(|model| Base::try_from(model).unwrap()).chain(signals);
        let member = |(base, share)| Member { base, weight: Weight { share, scale: 0.5 } };
        let members = bases.zip(shares).map(member).collect();
        Model::from(HybridModel::from_members(members).unwrap())
    };
    let neighbors = Csr::new(vec![0, 1, 1, 3], vec![1, 0, 2], vec![0.5, 0.25, 1.0], 3).unwrap();
    let segments = Segments {
        of_user: vec![0, 1, NO_SEGMENT, 0, 1],
        weights: vec![vec![1.0, 0.0, 2.0], vec![0.0, 3.0, 0.5]],
    };
    let dense = (0..9).map(|n| n as f32).collect();
    let shared = Shared::new();
    let catalog = shared.open().await;
    for (name, made) in [
        ("knn", item(Similarity::Sparse(neighbors))),
        ("ease", item(Similarity::Dense(dense))),
        ("top", popularity(None)),
        ("top_of_segment", popularity(Some(segments))),
        ("blend", blend([0.5, 0.125, 0.125, 0.125, 0.125])),
    ] {
        let claim = catalog.claim_version(&main(name), "ann", CreateMode::New).await.unwrap();
        let made = Arc::new(made);
        catalog
            .publish(claim, Arc::clone(&made), publication(), Standing::default())
            .await
            .unwrap();
        let loaded = shared.open().await.load_model(&main(name), None).await.unwrap().model;
        assert_eq!(loaded.type_name(), made.type_name(), "{name}");
        let (read, wrote) = (loaded.recommender().unwrap(), made.recommender().unwrap());
        assert_eq!(&read.user_ids().values(), &wrote.user_ids().values());
        assert_eq!(&read.item_ids().values(), &wrote.item_ids().values());
        assert_eq!(read.seen(), wrote.seen());
        match (loaded.as_ref(), made.as_ref()) {
            (Model::Item(read), Model::Item(wrote)) => {
                assert_eq!(read.similarity(), wrote.similarity());
            }
            (Model::Popularity(read), Model::Popularity(wrote)) => {
                assert_eq!(read.weights(), wrote.weights());
                assert_eq!(read.segments(), wrote.segments());
            }
            (Model::Hybrid(read), Model::Hybrid(wrote)) => {
                let told = |of: &HybridModel| -> Vec<_> {
                    let signal = |of: &Signal| (of.name().to_owned(), of.values().to_vec());
                    let told = |of: &Member| {
                        (of.base.type_name(), of.base.signal().map(signal), of.weight)
                    };
                    of.members().map(told).collect()
                };
                assert_eq!(told(read), told(wrote));
                for (user, item) in [(0, 0), (1, 2), (4, 1)] {
                    assert_eq!(read.score(user, item), wrote.score(user, item));
                }
            }
            _ => panic!("{name} came back as another type"),
        }
    }
}

/// A model of each type that learns of rows of features.
fn feature_models() -> Vec<(&'static str, Model)> {
    let columns = [("size", &DataType::Float64), ("kind", &DataType::Utf8)];
    let mut rows = FeatureRows::new(&columns).unwrap();
    rows.add(&feature_rows()).unwrap();
    let GatheredRows { features, columns, .. } = rows.finish(&[]);
    let preparation = Preparation::new(features).unwrap();
    let dense = preparation.one_hot(&columns);
    let go_on = AtomicBool::new(false);
    let options = kmeans::KMeansOptions { num_clusters: 2, ..Default::default() };
    let clusters = kmeans::train(&dense, 3, &options, &mut |_| {}, &go_on).unwrap();
    let components =
        pca::train(&dense, 3, &pca::PcaOptions::default(), &mut |_| {}, &go_on).unwrap();
    let options = isolation_forest::ForestOptions { num_trees: 3, ..Default::default() };
    let forest = isolation_forest::train(&dense, 3, &options, &mut |_| {}, &go_on).unwrap();
    let mut models = vec![
        ("kmeans", Prepared::clusters(preparation.clone(), clusters).unwrap().into()),
        ("pca", Prepared::components(preparation.clone(), components).unwrap().into()),
        ("forest", Prepared::forest(preparation.clone(), forest).unwrap().into()),
    ];
    for (name, calibration) in [("platt", Calibration::Platt), ("isotonic", Calibration::Isotonic)]
    {
        let labels: Vec<f32> = (0..columns[0].len()).map(|row| (row % 2) as f32).collect();
        let part = Part {
            values: preparation.codes(&columns, labels.len(), |row| row),
            labels,
            group_sizes: vec![],
        };
        let names = vec!["false".to_owned(), "true".to_owned()];
        let options = BoostedOptions {
            calibration,
            max_iterations: 3,
            ..BoostedOptions::new(Task::Classifier)
        };
        let growth = Growth {
            features: preparation.features(),
            label: "is".into(),
            group: None,
            classes: Some(Classes { of: ClassType::Truth, names }),
            options: &options,
        };
        let grown = growth.run(part.clone(), Some(part), &mut |_| {}, &go_on).unwrap();
        models.push((name, Prepared::trees(preparation.clone(), grown.trees).unwrap().into()));
    }
    models
}

fn feature_rows() -> Vec<ArrayRef> {
    let sizes = (0..40).map(|n| f64::from(n % 2) / 3.0 + f64::from(n).sin());
    let kinds = (0..40).map(|n| ["moss", "fern"][n % 2]);
    vec![
        Arc::new(Float64Array::from_iter_values(sizes)),
        Arc::new(StringArray::from_iter_values(kinds)),
    ]
}

#[tokio::test]
async fn models_of_features_come_back_and_predict_the_same() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    for (name, made) in feature_models() {
        let claim = catalog.claim_version(&main(name), "ann", CreateMode::New).await.unwrap();
        let made = Arc::new(made);
        let publication =
            Publication { user_col: String::new(), item_col: String::new(), ..publication() };
        catalog.publish(claim, Arc::clone(&made), publication, Standing::default()).await.unwrap();
        let loaded = shared.open().await.load_model(&main(name), None).await.unwrap().model;
        assert_eq!(loaded.type_name(), made.type_name(), "{name}");
        assert_eq!(loaded.preparation(), made.preparation(), "{name}");
        let rows = feature_rows();
        assert_eq!(loaded.predict(&rows, 40).unwrap(), made.predict(&rows, 40).unwrap(), "{name}");
    }
}

#[tokio::test]
async fn what_is_usual_comes_back_from_the_manifest_alone() {
    let values: ArrayRef = Arc::new(Float64Array::from(vec![0.1, 0.7, 1.0 / 3.0, 9.0]));
    let mut rows = FeatureRows::new(&[("size", &DataType::Float64)]).unwrap();
    rows.add(&[Arc::clone(&values)]).unwrap();
    let GatheredRows { features, columns, .. } = rows.finish(&[]);
    let preparation = Preparation::new(features).unwrap();
    let (options, go_on) = (outlier::OutlierOptions::default(), AtomicBool::new(false));
    let learned = outlier::train(&columns, &options, &mut |_| {}, &go_on).unwrap();
    let shared = Shared::new();
    let catalog = shared.open().await;
    let claim = catalog.claim_version(&main("m"), "ann", CreateMode::New).await.unwrap();
    let made = Arc::new(Model::from(Prepared::outliers(preparation, learned.clone()).unwrap()));
    let publication =
        Publication { user_col: String::new(), item_col: String::new(), ..publication() };
    catalog.publish(claim, Arc::clone(&made), publication, Standing::default()).await.unwrap();
    let loaded = shared.open().await.load_model(&main("m"), None).await.unwrap().model;
    let Model::Outlier(read) = loaded.as_ref() else { panic!("{}", loaded.type_name()) };
    assert_eq!(read.learned(), &learned);
    let rows = [values];
    assert_eq!(loaded.predict(&rows, 4).unwrap(), made.predict(&rows, 4).unwrap());
    assert_eq!(loaded.preparation(), made.preparation());
}

#[tokio::test]
async fn a_manifest_of_another_format_is_refused_with_what_to_do() {
    let shared = Shared::new();
    train(&shared.open().await, "m", CreateMode::New, 1.0).await.unwrap();
    let paths = shared.paths("models/main.m").await;
    let path = paths.iter().find(|path| path.contains("manifest")).unwrap().as_str().into();
    let whole = shared.store.get(&path).await.unwrap().bytes().await.unwrap();
    let whole = String::from_utf8(whole.to_vec()).unwrap();
    for (format, part) in [("1", "RETRAIN MODEL makes a new version"), ("3", "newer than 2")] {
        let other = whole.replacen("\"format\": 2", &format!("\"format\": {format}"), 1);
        shared.store.put(&path, other.into()).await.unwrap();
        let error = shared.open().await.load_model(&main("m"), None).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_version_may_stand_back_and_old_ones_go_but_never_the_default() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let train = async |promote, keep_versions, factor| {
        let claim = catalog.claim_version(&main("m"), "ann", CreateMode::Replace).await?;
        let standing = Standing { promote, keep_versions, is_fold_in: false };
        catalog.publish(claim, model(factor), publication(), standing).await
    };
    // The first version is the default whatever is said.
    assert_eq!(train(false, None, 1.0).await.unwrap(), 1);
    assert_eq!(train(false, None, 2.0).await.unwrap(), 2);
    assert_eq!(first_factor(&catalog, "m", None).await, 1.0);
    assert_eq!(train(false, Some(1), 3.0).await.unwrap(), 3);
    let versions = async || {
        let definition = catalog.definition(&main("m")).await.unwrap().unwrap();
        let Spec::Model(head) = definition.spec else { panic!("no model") };
        head.versions.iter().map(|found| found.version).collect::<Vec<_>>()
    };
    assert_eq!(versions().await, [1, 3]);
    assert_eq!(train(true, Some(2), 4.0).await.unwrap(), 4);
    assert_eq!(versions().await, [3, 4]);
    assert_eq!(first_factor(&shared.open().await, "m", None).await, 4.0);
    assert!(catalog.load_model(&main("m"), Some(1)).await.is_err());
    let loaded = catalog.load_model(&main("m"), Some(3)).await.unwrap();
    assert_eq!(loaded.manifest.tuning, Some(tuning()));
}

#[tokio::test]
async fn versions_stay_until_the_model_is_dropped_and_numbers_are_used_once() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    for version in 1..=3 {
        let mode = if version == 1 { CreateMode::New } else { CreateMode::Replace };
        assert_eq!(train(&catalog, "m", mode, version as f32).await.unwrap(), version);
    }
    let other = shared.open().await;
    assert_eq!(first_factor(&other, "m", None).await, 3.0);
    assert_eq!(first_factor(&other, "m", Some(1)).await, 1.0);
    catalog.set_default_version(&main("m"), 2).await.unwrap();
    assert_eq!(first_factor(&catalog, "m", None).await, 2.0);
    assert!(catalog.set_default_version(&main("m"), 4).await.is_err());
    let missing = catalog.load_model(&main("m"), Some(9)).await.unwrap_err();
    assert!(missing.hint().unwrap().contains("1, 2, 3"), "{missing}");
    let again = train(&catalog, "m", CreateMode::New, 0.0).await.unwrap_err();
    assert!(matches!(again, Error::AlreadyExists { .. }), "{again}");
    assert!(catalog.drop_object(&main("m"), Kind::Model).await.unwrap());
    let gone = catalog.load_model(&main("m"), None).await.unwrap_err();
    assert!(matches!(gone, Error::NotFound { kind: "model", .. }), "{gone}");
    shared.clock.advance(11 * 60 * 1_000);
    catalog.sweep().await;
    assert_eq!(shared.paths("models").await, Vec::<String>::new());
    assert_eq!(train(&catalog, "m", CreateMode::New, 4.0).await.unwrap(), 4);
    assert_eq!(first_factor(&shared.open().await, "m", None).await, 4.0);
}

#[tokio::test]
async fn a_drop_or_replacement_during_training_makes_its_publication_fail() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    train(&catalog, "m", CreateMode::New, 1.0).await.unwrap();
    let claim = catalog.claim_version(&main("m"), "ann", CreateMode::Replace).await.unwrap();
    shared.open().await.drop_object(&main("m"), Kind::Model).await.unwrap();
    let lost =
        catalog.publish(claim, model(2.0), publication(), Standing::default()).await.unwrap_err();
    assert!(matches!(lost, Error::Conflict { .. }), "{lost}");
    assert_eq!(catalog.kind(&main("m")).await.unwrap(), None);

    let slow = catalog.claim_version(&main("m"), "ann", CreateMode::New).await.unwrap();
    train(&shared.open().await, "m", CreateMode::New, 3.0).await.unwrap();
    let lost =
        catalog.publish(slow, model(2.0), publication(), Standing::default()).await.unwrap_err();
    assert!(matches!(lost, Error::AlreadyExists { .. }), "{lost}");
    assert_eq!(first_factor(&catalog, "m", None).await, 3.0);
}

#[tokio::test]
async fn a_failed_or_abandoned_training_leaves_nothing() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    drop(catalog.claim_version(&main("m"), "ann", CreateMode::New).await.unwrap());
    settle(&shared).await;
    for refused in ["users-", "seen-", "manifest", "heads"] {
        let claim = catalog.claim_version(&main("m"), "ann", CreateMode::New).await.unwrap();
        shared.store.refuse(refused);
        let failed = catalog.publish(claim, model(1.0), publication(), Standing::default()).await;
        assert!(matches!(failed, Err(Error::Store { .. })), "{refused}: {failed:?}");
        shared.store.heal();
        if refused != "heads" {
            settle(&shared).await;
            assert_eq!(shared.paths("models").await, Vec::<String>::new(), "{refused}");
        }
        assert!(catalog.models().await.unwrap().is_empty());
    }
    assert!(train(&catalog, "m", CreateMode::New, 5.0).await.is_ok());
    assert_eq!(first_factor(&shared.open().await, "m", None).await, 5.0);
}

#[tokio::test]
async fn a_stale_claim_is_swept_and_a_live_one_is_not() {
    let shared = Shared::new();
    let (one, two) = (shared.open().await, shared.open().await);
    let stopped = one.claim_version(&main("m"), "ann", CreateMode::New).await.unwrap();
    let next = two.claim_version(&main("m"), "bob", CreateMode::New).await.unwrap();
    assert_eq!((stopped.version(), next.version()), (1, 2));
    drop(next);
    shared.clock.advance(61_000);
    let swept = two.claim_version(&main("m"), "bob", CreateMode::New).await.unwrap();
    assert_eq!(
        two.publish(swept, model(2.0), publication(), Standing::default()).await.unwrap(),
        1
    );
    let late =
        one.publish(stopped, model(1.0), publication(), Standing::default()).await.unwrap_err();
    assert!(late.is_lost_race(), "{late}");
    tokio::task::yield_now().await;
    assert_eq!(first_factor(&shared.open().await, "m", None).await, 2.0);
}

#[tokio::test]
async fn a_training_that_takes_long_keeps_its_claim() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    let claim = catalog.claim_version(&main("m"), "ann", CreateMode::New).await.unwrap();
    for _ in 0..30 {
        shared.clock.advance(10_000);
        assert!(claim.touch().await);
    }
    let other = catalog.claim_version(&main("m"), "bob", CreateMode::New).await.unwrap();
    assert_eq!(other.version(), 2);
    claim.check().await.unwrap();
    shared.clock.advance(61_000);
    let third = shared.open().await;
    third.claim_version(&main("m"), "eve", CreateMode::New).await.unwrap();
    assert!(!claim.touch().await);
    assert!(claim.check().await.unwrap_err().is_lost_race());
}

#[tokio::test]
async fn damaged_files_are_named_and_other_models_work() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    train(&catalog, "good", CreateMode::New, 1.0).await.unwrap();
    train(&catalog, "m", CreateMode::New, 1.0).await.unwrap();
    let paths = shared.paths("models/main.m").await;
    for part in ["users-", "items-", "seen-", "manifest"] {
        let path = paths.iter().find(|path| path.contains(part)).unwrap().as_str().into();
        let whole = shared.store.get(&path).await.unwrap().bytes().await.unwrap();
        let cut = whole.slice(..whole.len() - 9);
        shared.store.put(&path, cut.into()).await.unwrap();
        let fresh = shared.open().await;
        let error = fresh.load_model(&main("m"), None).await.unwrap_err();
        assert!(matches!(&error, Error::Corrupt { .. }), "{part}: {error}");
        assert!(error.to_string().contains("models/main.m/1"), "{error}");
        assert_eq!(first_factor(&fresh, "good", None).await, 1.0);
        shared.store.put(&path, whole.into()).await.unwrap();
    }
    assert_eq!(first_factor(&shared.open().await, "m", None).await, 1.0);
}

#[tokio::test]
async fn the_cache_holds_so_many_bytes_and_loads_once() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    for name in ["a", "b", "c"] {
        train(&catalog, name, CreateMode::New, 1.0).await.unwrap();
    }
    let bytes = model(1.0).memory_bytes();
    let small = shared.open_with(|config| config.model_cache_bytes = 2 * bytes).await;
    let load = async |name: &str| small.load_model(&main(name), None).await.unwrap().model;
    let (first, second) = tokio::join!(load("a"), load("a"));
    assert!(Arc::ptr_eq(&first, &second));
    load("b").await;
    assert!(Arc::ptr_eq(&first, &load("a").await));
    let third = load("c").await;
    assert_eq!(small.model_cache_bytes(), 2 * bytes);
    // `b` was used the least recently and is loaded anew; `a`, in use, is never loaded twice.
    load("b").await;
    assert!(Arc::ptr_eq(&first, &load("a").await) && Arc::ptr_eq(&third, &load("c").await));
    let none = shared.open_with(|config| config.model_cache_bytes = 0).await;
    let held = none.load_model(&main("a"), None).await.unwrap().model;
    assert_eq!(none.model_cache_bytes(), 0);
    assert!(Arc::ptr_eq(&held, &none.load_model(&main("a"), None).await.unwrap().model));
}

#[tokio::test]
async fn a_model_is_no_table_and_a_table_no_model() {
    let shared = Shared::new();
    let catalog = shared.open().await;
    train(&catalog, "m", CreateMode::New, 1.0).await.unwrap();
    let view = Spec::View { sql: "SELECT 1".into(), columns: vec![] };
    assert!(catalog.create(&main("m"), view.clone(), "ann", CreateMode::Replace).await.is_err());
    catalog.create(&main("v"), view, "ann", CreateMode::New).await.unwrap();
    let error = catalog.load_model(&main("v"), None).await.unwrap_err();
    assert!(error.to_string().contains("is a view"), "{error}");
    let error = train(&catalog, "v", CreateMode::Replace, 1.0).await.unwrap_err();
    assert!(error.to_string().contains("is a view"), "{error}");
    let state = crate::testing::session(&catalog);
    let error = catalog.open_table(&main("m"), None, &state).await.unwrap_err();
    assert!(error.to_string().contains("is a model"), "{error}");
}
