"""Clusters, components and trees through SQL beside scikit-learn and XGBoost, on the same generated rows.

    python benches/peers/learners.py TARGET/release/attune FOLDER [ROUNDS]

Ours is the whole CREATE MODEL through Python ADBC, which reads a Parquet file, fits and stores. Theirs is
told twice: `fit` alone, over an array in memory, and with reading the same file (pyarrow) into such an array;
nothing of theirs is stored. The three run in turn, medians of ROUNDS (5). Equal work: the same number of clusters, iterations, components, trees, depth and learning
rate, nothing kept aside. Needs adbc-driver-flightsql, pyarrow, numpy, scikit-learn, xgboost.
"""

import pathlib
import statistics
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


def read(folder, name):
    """The points of a table as scikit-learn takes them, and its labels if it has any."""
    table = pq.read_table(folder / "lake" / name / "rows.parquet")
    points = np.column_stack([table[f"x{i}"].to_numpy() for i in range(COLUMNS)])
    return points, table["label"].to_numpy() if "label" in table.column_names else None


def timed(work):
    begun = time.perf_counter()
    done = work()
    return time.perf_counter() - begun, done


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    write(folder)
    attune = Program(program, folder)
    try:
        for work in WORKS:
            compare(attune, folder, rounds, *work)
    finally:
        attune.stop()


def boosted():
    return xgboost.XGBClassifier(n_estimators=50, max_depth=6, learning_rate=0.1, tree_method="hist", n_jobs=2)


# Table, options, the question of quality and what it is called; the peer, what it fits and its quality.
WORKS = [
    (
        "points",
        "model_type = 'kmeans', num_clusters = 12, standardize_features = FALSE, max_iterations = 20, early_stop = FALSE",
        "SELECT mean_squared_distance FROM ML.EVALUATE(MODEL main.t)",
        "mean squared distance",
        "scikit-learn KMeans",
        lambda: KMeans(12, init="k-means++", n_init=1, max_iter=20, tol=0, random_state=1),
        lambda fitted, points, label: fitted.inertia_ / len(points),
    ),
    (
        "mixed",
        "model_type = 'pca', num_principal_components = 8, scale_features = FALSE",
        "SELECT total_explained_variance_ratio FROM ML.EVALUATE(MODEL main.t)",
        "share of the variance",
        "scikit-learn PCA",
        lambda: PCA(8),
        lambda fitted, points, label: fitted.explained_variance_ratio_.sum(),
    ),
    (
        "trees",
        "model_type = 'boosted_tree_classifier', input_label_cols = ['label'], max_iterations = 50, max_tree_depth = 6, "
        "learn_rate = 0.1, data_split_method = 'no_split'",
        "SELECT log_loss FROM ML.EVALUATE(MODEL main.t, (SELECT * FROM lake.trees))",
        "log loss",
        "XGBoost",
        boosted,
        lambda fitted, points, label: log_loss(label, fitted.predict_proba(points)),
    ),
]


def compare(attune, folder, rounds, table, options, question, measure, peer, learner, quality):
    points, label = read(folder, table)
    statement = f"CREATE OR REPLACE MODEL main.t OPTIONS ({options}) AS SELECT * FROM lake.{table}"
    times = {"ours": [], "fit": [], "read and fit": []}
    for _ in range(rounds):
        times["ours"].append(attune.timed(statement))
        seconds, fitted = timed(lambda: learner().fit(points, label))
        times["fit"].append(seconds)
        times["read and fit"].append(timed(lambda: learner().fit(*read(folder, table)))[0])
    ours = statistics.median(times["ours"])
    print(
        f"{table}: Attune, CREATE MODEL with reading Parquet: {ours:.2f} s, {measure} {attune.ask(question)[0][0]:.6f}; "
        f"{peer}, {measure} {quality(fitted, points, label):.6f}"
    )
    for kind, name in (("fit", "fit alone, arrays in memory"), ("read and fit", "reading the same Parquet file and fit")):
        theirs = statistics.median(times[kind])
        print(f"    {peer}, {name}: {theirs:.2f} s, {theirs / ours:.2f} times Attune's", flush=True)


if __name__ == "__main__":
    main()
