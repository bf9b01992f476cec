//! Time to learn and to recommend, on generated data, with rayon's global pool.
//!
//! Run: `cargo bench -p attune-udfs --bench kernels -- learners`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, Int64Array};
use divan::{Bencher, black_box};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use udfs::model::als::{AlsFactors, AlsOptions, Feedback};
use udfs::model::kmeans::{Init, KMeansOptions};
use udfs::model::{
    AlsModel, Csr, Duplicates, Evaluation, IdIndex, ItemModel, ItemParts, Model, ModelParts,
    RecommendRequest, Recommender, Similarity, Triplets, ease, item_knn, kmeans, pca,
};

static GO_ON: AtomicBool = AtomicBool::new(false);

/// `cells` draws of users, all alike, and of items by a power law.
fn interactions(users: u32, items: u32, cells: usize) -> Csr {
    let mut random = StdRng::seed_from_u64(1);
    let mut triplets = Triplets::default();
    for _ in 0..cells {
        let item = (f64::from(items) * random.random::<f64>().powi(3)) as u32;
        let user = random.random_range(0..users);
        // A weight of 1 is finite, the only thing that is refused.
        let _ = triplets.push(user, item.min(items - 1), 1.0, "w");
    }
    triplets.build(users as usize, items as usize, Duplicates::Mean).0
}

fn rows(count: usize, features: usize) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(2);
    (0..count * features).map(|_| random.random::<f32>()).collect()
}

/// Gowalla's size: 29,858 users, 40,981 items, 810,128 interactions.
#[divan::bench(args = [100], sample_count = 5)]
fn item_knn_gowalla_size(bencher: Bencher, num_neighbors: usize) {
    let x = interactions(29_858, 40_981, 850_000);
    let options = item_knn::ItemKnnOptions { num_neighbors, ..Default::default() };
    bencher.bench(|| item_knn::train(black_box(&x), &options, &mut |_| {}, &GO_ON));
}

#[divan::bench(args = [1000, 3000], sample_count = 3)]
fn ease_items(bencher: Bencher, items: u32) {
    let x = interactions(10_000, items, 500_000);
    let options = ease::EaseOptions::default();
    bencher.bench(|| ease::train(black_box(&x), &options, &mut |_| {}, &GO_ON));
}

#[divan::bench(args = [10, 100], sample_count = 3)]
fn kmeans_100k_rows_of_50(bencher: Bencher, num_clusters: usize) {
    let rows = rows(100_000, 50);
    let options = KMeansOptions {
        num_clusters,
        init: Init::Parallel,
        min_rel_progress: 0.0,
        ..KMeansOptions::default()
    };
    bencher.bench(|| kmeans::train(black_box(&rows), 50, &options, &mut |_| {}, &GO_ON));
}

#[divan::bench(args = [50, 500, 1000], sample_count = 3)]
fn pca_20k_rows(bencher: Bencher, features: usize) {
    let rows = rows(20_000, features);
    let components = pca::Components::Count(10);
    let options = pca::PcaOptions { components, ..pca::PcaOptions::default() };
    bencher.bench(|| pca::train(black_box(&rows), features, &options, &mut |_| {}, &GO_ON));
}

/// Factors like those of a training: a few strong directions, popular items the longest.
fn factorization(users: u32, items: u32, seen: Csr) -> Option<AlsModel> {
    const FACTORS: usize = 64;
    let mut random = StdRng::seed_from_u64(3);
    let mut factors = |rows: u32, popular: bool| -> Vec<f32> {
        let mut values = Vec::with_capacity(rows as usize * FACTORS);
        for row in 0..rows {
            let length = if popular { (f64::from(row) + 10.0).powf(-0.15) as f32 } else { 1.0 };
            for factor in 0..FACTORS {
                let strength = (factor as f32 + 1.0).powf(-0.3);
                let normal: f32 = (0..4).map(|_| random.random::<f32>() - 0.5).sum();
                values.push(normal * strength * length);
            }
        }
        values
    };
    let (user_factors, item_factors) = (factors(users, false), factors(items, true));
    let factors = AlsFactors { user_factors, item_factors, ..AlsFactors::default() };
    let options =
        AlsOptions { num_factors: FACTORS, feedback: Feedback::Implicit, ..AlsOptions::default() };
    let (users, items) = (ids("user_id", users)?, ids("item_id", items)?);
    AlsModel::from_parts(ModelParts { users, items, factors, seen, options }).ok()
}

/// One user's list from a million items, on one core; the target is 15 ms.
#[divan::bench(args = [10, 100], sample_count = 50)]
fn one_user_of_1m_items(bencher: Bencher, top_k: usize) {
    let Some(model) = factorization(100, 1_000_000, Csr::empty(100, 1_000_000)) else { return };
    let request = RecommendRequest { top_k, exclude_seen: true, include: None, exclude: None };
    let mut user = 0;
    bencher.bench_local(|| {
        user = (user + 1) % 100;
        model.recommend(black_box(&[Some(user)]), &request)
    });
}

/// Every metric of a model of Gowalla's size, and the lists alone for comparison.
#[divan::bench(args = [false, true], sample_count = 3)]
fn evaluate_gowalla_size(bencher: Bencher, with_metrics: bool) {
    let (users, items) = (29_858, 40_981);
    let (seen, test) = udfs::model::holdout(&interactions(users, items, 1_050_000), 0.2, 1);
    let Some(model) = factorization(users, items, seen) else { return };
    let asked: Vec<Option<u32>> = (0..users).map(Some).collect();
    let request = RecommendRequest { top_k: 20, exclude_seen: true, include: None, exclude: None };
    if !with_metrics {
        bencher.bench(|| model.recommend(black_box(&asked), &request));
        return;
    }
    let model = Model::from(model);
    bencher.bench(|| {
        let evaluation = Evaluation::of(black_box(&model), &test, 20, &GO_ON).ok()?;
        evaluation.measure(&|_| true, &GO_ON).ok()
    });
}

fn ids(column: &str, count: u32) -> Option<IdIndex> {
    let values: ArrayRef = Arc::new((0..i64::from(count)).collect::<Int64Array>());
    IdIndex::from_values(column, values).ok()
}

fn model(dense: bool) -> Option<ItemModel> {
    let (users, items) = (10_000, 3000);
    let seen = interactions(users, items, 500_000);
    let similarity = if dense {
        let options = ease::EaseOptions::default();
        Similarity::Dense(ease::train(&seen, &options, &mut |_| {}, &GO_ON).ok()?)
    } else {
        let options = item_knn::ItemKnnOptions::default();
        Similarity::Sparse(item_knn::train(&seen, &options, &mut |_| {}, &GO_ON).ok()?)
    };
    let (users, items) = (ids("user_id", users)?, ids("item_id", items)?);
    ItemModel::from_parts(ItemParts { users, items, seen, similarity }).ok()
}

#[divan::bench(args = [false, true], sample_count = 5)]
fn top_20_for_10k_users(bencher: Bencher, dense: bool) {
    let Some(model) = model(dense) else { return };
    let users: Vec<Option<u32>> = (0..10_000).map(Some).collect();
    let request = RecommendRequest { top_k: 20, exclude_seen: true, include: None, exclude: None };
    bencher.bench(|| model.recommend(black_box(&users), &request));
}
