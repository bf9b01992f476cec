"""Clusters, components and trees through SQL beside scikit-learn and XGBoost, on the same generated rows.

    python benches/peers/learners.py TARGET/release/attune FOLDER

Ours is the whole CREATE MODEL through Python ADBC, with reading the Parquet file; theirs is `fit` over
arrays in memory. Equal work: the same number of clusters, iterations, components, trees, depth and learning
rate, nothing kept aside. Needs adbc-driver-flightsql, pyarrow, numpy, scikit-learn, xgboost.
"""

import pathlib
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import log_loss

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from models import Program

ROWS, COLUMNS = 500_000, 20


def write(folder):
    random = np.random.default_rng(1)
    centers = random.normal(0, 4, (12, COLUMNS))
    points = centers[random.integers(0, 12, ROWS)] + random.normal(0, 1.5, (ROWS, COLUMNS))
    mixed = points @ random.normal(0, 1, (COLUMNS, COLUMNS))
    chance = 1 / (1 + np.exp(-(points[:, 0] * 0.4 + points[:, 1] * points[:, 2] * 0.1 - np.abs(points[:, 3]) + 2)))
    label = (random.random(ROWS) < chance).astype(np.int64)
    for name, values, extra in (("points", points, {}), ("mixed", mixed, {}), ("trees", points, {"label": label})):
        columns = {f"x{i}": values[:, i] for i in range(COLUMNS)} | extra
        place = folder / "lake" / name
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), place / "rows.parquet")
    (folder / "lake" / "test").mkdir(exist_ok=True)
    pq.write_table(pa.table({"x": [1]}), folder / "lake" / "test" / "rows.parquet")
    return points, mixed, label


def theirs(work):
    begun = time.perf_counter()
    fitted = work()
    return time.perf_counter() - begun, fitted


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    points, mixed, label = write(folder)
    attune = Program(program, folder)
    try:
        compare(attune, points, mixed, label)
    finally:
        attune.stop()


def compare(attune, points, mixed, label):
    def create(options, table):
        return attune.timed(f"CREATE OR REPLACE MODEL main.t OPTIONS ({options}) AS SELECT * FROM lake.{table}")

    for _ in range(2):
        ours = create(
            "model_type = 'kmeans', num_clusters = 12, standardize_features = FALSE, max_iterations = 20, early_stop = FALSE",
            "points",
        )
        distance = attune.ask("SELECT mean_squared_distance FROM ML.EVALUATE(MODEL main.t)")[0][0]
        seconds, fitted = theirs(lambda: KMeans(12, init="k-means++", n_init=1, max_iter=20, tol=0, random_state=1).fit(points))
        print(f"kmeans: {ours:.2f} s, {distance:.4f}; scikit-learn {seconds:.2f} s, {fitted.inertia_ / len(points):.4f}")
        ours = create("model_type = 'pca', num_principal_components = 8, scale_features = FALSE", "mixed")
        ratio = attune.ask("SELECT total_explained_variance_ratio FROM ML.EVALUATE(MODEL main.t)")[0][0]
        seconds, fitted = theirs(lambda: PCA(8).fit(mixed))
        print(f"pca: {ours:.2f} s, {ratio:.6f}; scikit-learn {seconds:.2f} s, {fitted.explained_variance_ratio_.sum():.6f}")
        ours = create(
            "model_type = 'boosted_tree_classifier', input_label_cols = ['label'], max_iterations = 50, max_tree_depth = 6, "
            "learn_rate = 0.1, data_split_method = 'no_split'",
            "trees",
        )
        loss = attune.ask("SELECT log_loss FROM ML.EVALUATE(MODEL main.t, (SELECT * FROM lake.trees))")[0][0]
        trees = xgboost.XGBClassifier(n_estimators=50, max_depth=6, learning_rate=0.1, tree_method="hist", n_jobs=2)
        seconds, fitted = theirs(lambda: trees.fit(points, label))
        print(f"trees: {ours:.2f} s, log loss {loss:.4f}; XGBoost {seconds:.2f} s, {log_loss(label, fitted.predict_proba(points)):.4f}")


main()
