//! Time to learn and to recommend, on generated data, with rayon's global pool.
//!
//! Run: `cargo bench -p attune-udfs --bench kernels -- learners`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, Int64Array};
use divan::{Bencher, black_box};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use udfs::model::kmeans::{Init, KMeansOptions};
use udfs::model::{
    Csr, Duplicates, IdIndex, ItemModel, ItemParts, RecommendRequest, Recommender, Similarity,
    Triplets, ease, item_knn, kmeans, pca,
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
    let ids = |column: &str, count: u32| {
        let values: ArrayRef = Arc::new((0..i64::from(count)).collect::<Int64Array>());
        IdIndex::from_values(column, values).ok()
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
