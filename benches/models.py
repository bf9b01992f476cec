"""Learning and recommending at sizes: the real program through Python ADBC.

    python benches/models.py TARGET/release/attune ../shared/data/gowalla [--only NAME ...] [--folder DIR]

Parts: `gowalla` (k = 64 and 256: seconds per iteration, quality on the test rows), `search` (hyper-parameters
chosen on a validation split), `large` (the same, k = 512), `hybrid` (models blended by weights learned on a validation split), `scale` (1 and 10 million generated interactions: cost per iteration, memory),
`retrain` (a warm RETRAIN after 1 % more interactions beside training anew), `catalog` (one user's
recommendations from 1 million items). Needs adbc-driver-flightsql, adbc-driver-manager, pyarrow, numpy.
Memory is the server's resident set.
"""

import argparse
import pathlib
import shutil
import statistics
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serving import forget_peak, memory, start

IMPLICIT = "model_type = 'matrix_factorization', feedback_type = 'implicit', user_col = 'user_id', item_col = 'item_id', rating_col = 'weight'"


class Program:
    def __init__(self, program, folder):
        self.process, self.connection, _ = start(program, folder)
        self.cursor = self.connection.cursor()
        self.chosen = {}

    def ask(self, sql):
        self.cursor.execute(sql)
        return self.cursor.fetchall()

    def timed(self, sql):
        begun = time.perf_counter()
        self.ask(sql)
        return time.perf_counter() - begun

    def train(self, name, query, **options):
        written = "".join(f", {key} = {value}" for key, value in options.items())
        return self.timed(f"CREATE OR REPLACE MODEL main.{name} OPTIONS ({IMPLICIT}{written}) AS {query}")

    def iterations(self, name):
        """Seconds of each iteration."""
        rows = self.ask(f"SELECT iteration, duration_ms FROM ML.TRAINING_INFO(MODEL main.{name})")
        return [duration / 1000 for _, duration in sorted(rows)]

    def quality(self, name, test="lake.test"):
        rows = self.ask(
            f"SELECT metric, value FROM ML.EVALUATE(MODEL main.{name}, (SELECT * FROM {test}), STRUCT(20 AS top_k))"
        )
        return {metric: value for metric, value in rows}

    def shown(self, name):
        found = self.quality(name)
        return f"Recall@20 {found['recall@20']:.4f}, NDCG@20 {found['ndcg@20']:.4f}"

    def stop(self):
        self.cursor.close()
        self.connection.close()
        self.process.terminate()
        self.process.wait()


def per_iteration(seconds):
    """The first iteration also builds the matrix and is told apart."""
    return f"{statistics.median(seconds[1:]):.3f} s/iteration (the first {seconds[0]:.3f})"


TRAIN = "SELECT user_id, item_id, weight FROM lake.train"


def gowalla(program):
    for factors, alpha, l2 in ((64, 100, 1), (256, 50, 0.15)):
        seconds = program.train(
            "g", TRAIN, num_factors=factors, max_iterations=6, wals_alpha=alpha, l2_reg=l2, data_split_method="'no_split'"
        )
        print(f"k = {factors}: {per_iteration(program.iterations('g'))}, statement {seconds:.2f} s, {program.shown('g')}")
    seconds = program.timed("SELECT count(*) FROM ML.RECOMMEND(MODEL main.g, STRUCT(20 AS top_k))")
    print(f"k = 256: top-20 for every user in {seconds:.2f} s")


# A fifth of each user's rows, as the published test rows were chosen.
SEARCH = "data_split_method = 'per_user', data_split_eval_fraction = 0.2, data_split_test_fraction = 0.001, num_trials = 16"


def search(program):
    """Options chosen on rows kept aside from the training rows; the test rows are asked once, at the end."""
    types = {
        "factorization, k = 64": f"{IMPLICIT}, num_factors = 64",
        "factorization, k = 256": f"{IMPLICIT}, num_factors = 256",
        "item_knn": "model_type = 'item_knn', user_col = 'user_id', item_col = 'item_id'",
    }
    seconds = program.train("d", TRAIN, data_split_method="'no_split'")
    print(f"defaults, k = 64: {seconds:.1f} s, {program.shown('d')}", flush=True)
    searched(program, types)


def large(program):
    """The same of more factors, which takes longer."""
    searched(program, {"factorization, k = 512": f"{IMPLICIT}, num_factors = 512"})


def searched(program, types):
    for name, options in types.items():
        seconds = program.timed(f"CREATE OR REPLACE MODEL main.h OPTIONS ({options}, {SEARCH}) AS {TRAIN}")
        chosen = program.ask("SELECT hyperparameters FROM ML.TRIAL_INFO(MODEL main.h) WHERE is_optimal")
        iterations = program.ask("SELECT max(iteration) FROM ML.TRAINING_INFO(MODEL main.h)")[0][0]
        program.chosen[name] = {**chosen[0][0], **({"max_iterations": iterations} if iterations else {})}
        print(f"search, {name}: {seconds:.0f} s, {program.shown('h')}, chosen {chosen[0][0]}", flush=True)


def hybrid(program):
    """Weights learned on a fifth of the training rows, with the options of the searches when these ran before; the
    test rows are asked once, at the end."""
    split = "data_split_method = 'per_user', data_split_eval_fraction = 0.2, data_split_test_fraction = 0.001"
    columns = "user_col = 'user_id', item_col = 'item_id', rating_col = 'weight'"
    for factors in (64, 256):
        chosen = program.chosen.get(f"factorization, k = {factors}", {})
        chosen = "".join(f", {name} = {value}" for name, value in chosen.items())
        options = f"model_type = 'hybrid', {columns}, num_factors = {factors}{chosen}, similarity = 'tfidf', {split}"
        seconds = program.timed(f"CREATE OR REPLACE MODEL main.b OPTIONS ({options}) AS {TRAIN}")
        weights = program.ask("SELECT model_type, weight FROM ML.WEIGHTS(MODEL main.b)")
        shares = ", ".join(f"{model} {weight:.2f}" for model, weight in weights)
        print(f"hybrid, k = {factors}: {seconds:.0f} s, {program.shown('b')}, of {shares}", flush=True)


def write_interactions(file, rows, users, items, seed, dense_items=False):
    """Distinct pairs; users' activity and items' popularity follow power laws."""
    random = np.random.default_rng(seed)
    pairs = np.empty(0, np.int64)
    while len(pairs) < rows:
        some = int((rows - len(pairs)) * 1.3) + 1000
        who = (users * random.random(some) ** 2).astype(np.int64)
        what = (items * random.random(some) ** 3).astype(np.int64)
        pairs = np.unique(np.concatenate([pairs, who * items + what]))
    pairs = random.permutation(pairs)[:rows]
    if dense_items:
        pairs[:items] = np.arange(items) + items * (np.arange(items) % users)
        pairs = np.unique(pairs)
    table = {
        "user_id": (pairs // items).astype(np.int32),
        "item_id": (pairs % items).astype(np.int32),
        "weight": random.integers(1, 6, len(pairs)).astype(np.float32),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), file)


def scale(program):
    factors = 64
    for millions in (1, 10):
        rows, users, items = millions * 1_000_000, millions * 40_000, millions * 20_000
        before = memory(program.process, "VmRSS")
        forget_peak(program.process)
        program.train(
            "s", f"SELECT * FROM lake.scale{millions}", num_factors=factors, max_iterations=4, data_split_method="'no_split'"
        )
        peak = memory(program.process, "VmHWM") - before
        own = (rows * 12 + (users + items) * factors * 4) / 2**20
        print(
            f"{millions} million interactions: {per_iteration(program.iterations('s'))}, "
            f"peak {peak:.0f} MiB, {peak / own:.2f}x the interactions' and factors' {own:.0f} MiB"
        )


def retrain(program):
    """99 % of the rows, then the rest: a warm RETRAIN beside training anew, by the same test rows."""
    options = dict(num_factors=64, wals_alpha=100, l2_reg=1, data_split_method="'no_split'")
    program.ask("CREATE OR REPLACE TABLE main.events AS SELECT * FROM lake.train WHERE (user_id * 31 + item_id) % 100 <> 7")
    program.train("r", "SELECT user_id, item_id, weight FROM main.events", max_iterations=8, **options)
    program.ask("INSERT INTO main.events SELECT * FROM lake.train WHERE (user_id * 31 + item_id) % 100 = 7")
    anew = program.train("full", "SELECT user_id, item_id, weight FROM main.events", max_iterations=8, **options)
    full = program.iterations("full")
    print(f"trained anew: {anew:.2f} s, learning {sum(full):.2f} s, {program.shown('full')}")
    warm = program.timed("RETRAIN MODEL main.r")
    learned = program.iterations("r")
    print(f"RETRAIN: {warm:.2f} s, learning {sum(learned):.2f} s in {len(learned)} iterations, {program.shown('r')}")


def catalog(program, runs=300):
    program.train("c", "SELECT * FROM lake.catalog", num_factors=64, max_iterations=2, data_split_method="'no_split'")
    times = []
    with program.connection.cursor() as cursor:
        cursor.adbc_prepare("SELECT * FROM ml_recommend('main.c', ?, 10)")
        for user in range(runs):
            begun = time.perf_counter()
            cursor.adbc_statement.bind(pa.record_batch([pa.array([user], pa.int32())], names=["1"]))
            stream, _ = cursor.adbc_statement.execute_query()
            assert pa.RecordBatchReader.from_stream(stream).read_all().num_rows == 10
            times.append((time.perf_counter() - begun) * 1000)
    first, times = times[0], sorted(times[1:])
    print(
        f"one user of 1 million items, k = 64: median {statistics.median(times):.2f} ms, "
        f"p99 {times[int(len(times) * 0.99)]:.2f} ms, the first {first:.0f} ms"
    )


PARTS = {"gowalla": gowalla, "search": search, "large": large, "hybrid": hybrid, "scale": scale, "retrain": retrain, "catalog": catalog}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("attune")
    parser.add_argument("gowalla", type=pathlib.Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--folder", type=pathlib.Path)
    options = parser.parse_args()
    temporary = None if options.folder else tempfile.TemporaryDirectory()
    folder = options.folder or pathlib.Path(temporary.name)
    for name in ("train", "test"):
        (folder / "lake" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(options.gowalla / f"{name}.parquet", folder / "lake" / name)
    generated = {"scale1": (1_000_000, 40_000, 20_000), "scale10": (10_000_000, 400_000, 200_000)}
    for name, (rows, users, items) in generated.items():
        file = folder / "lake" / name / "part.parquet"
        if "scale" in options.only and not file.exists():
            write_interactions(file, rows, users, items, seed=rows)
    file = folder / "lake" / "catalog" / "part.parquet"
    if "catalog" in options.only and not file.exists():
        write_interactions(file, 4_000_000, 200_000, 1_000_000, seed=3, dense_items=True)
    program = Program(options.attune, folder)
    try:
        for name in options.only:
            PARTS[name](program)
    finally:
        program.stop()


if __name__ == "__main__":
    main()
