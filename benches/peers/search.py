"""The peers' hyper-parameters chosen as `benches/models.py --only search` chooses ours.

    python benches/peers/search.py ../shared/data/gowalla [--factors 64 256] [--trials 16] [--peers implicit irspack]

A fifth of each user's training rows is kept aside; settings are drawn at random (seeded) from ranges around those that the
peers' authors publish, each is learned from the rest and measured on what was kept aside by NDCG@20; the best is learned anew
from all training rows, and the test rows are asked once. Recall@20 divides by the user's test rows, NDCG@20 by the best that
20 places allow. Needs implicit, irspack, numpy, scipy, pyarrow.
"""

import argparse
import os
import pathlib
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import implicit.cpu.topk
import numpy as np
import pyarrow.parquet as pq
import scipy.sparse as sp
from implicit.als import AlternatingLeastSquares
from irspack import IALSRecommender

THREADS = 2
TOP = 20


def matrix(file, shape):
    table = pq.read_table(file, columns=["user_id", "item_id"])
    users, items = table["user_id"].to_numpy(), table["item_id"].to_numpy()
    return sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)


def parted(rows, seed=7):
    """All but a fifth of each user's cells, and that fifth."""
    random = np.random.default_rng(seed)
    kept = np.zeros(rows.nnz, bool)
    for user in range(rows.shape[0]):
        first, last = rows.indptr[user], rows.indptr[user + 1]
        aside = int(round((last - first) * 0.2))
        kept[first + random.permutation(last - first)[:aside]] = True
    cells = rows.tocoo()
    part = lambda mask: sp.csr_matrix((cells.data[mask], (cells.row[mask], cells.col[mask])), shape=rows.shape)
    return part(~kept), part(kept)


def quality(user_factors, item_factors, seen, test):
    users = np.flatnonzero(np.diff(test.indptr))
    lists, _ = implicit.cpu.topk.topk(
        np.ascontiguousarray(item_factors, np.float32),
        np.ascontiguousarray(user_factors[users], np.float32),
        TOP,
        filter_query_items=seen[users],
        num_threads=THREADS,
    )
    discounts = 1 / np.log2(np.arange(2, TOP + 2))
    best = np.concatenate([[0], np.cumsum(discounts)])
    recall = ndcg = 0.0
    for items, user in zip(lists, users):
        wanted = test.indices[test.indptr[user] : test.indptr[user + 1]]
        hits = np.isin(items, wanted)
        recall += hits.sum() / len(wanted)
        ndcg += (hits * discounts).sum() / best[min(len(wanted), TOP)]
    return recall / len(users), ndcg / len(users)


def log_uniform(random, low, high):
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def drawn(peer, random):
    if peer == "implicit":
        return {
            "alpha": log_uniform(random, 5, 300),
            "regularization": log_uniform(random, 0.01, 100),
            "iterations": int(random.integers(5, 21)),
        }
    return {
        "alpha0": log_uniform(random, 0.003, 1),
        "reg": log_uniform(random, 0.0003, 0.1),
        "nu": float(random.uniform(0.5, 1)),
        "train_epochs": int(random.integers(5, 21)),
    }


def learned(peer, rows, factors, options):
    if peer == "implicit":
        model = AlternatingLeastSquares(factors=factors, num_threads=THREADS, random_state=42, use_gpu=False, **options)
        model.fit(rows, show_progress=False)
        return np.asarray(model.user_factors), np.asarray(model.item_factors)
    model = IALSRecommender(
        rows.astype(np.float64),
        n_components=factors,
        init_std=0.1,
        solver_type="CG",
        loss_type="IALSPP",
        random_seed=42,
        n_threads=THREADS,
        **options,
    )
    model.learn()
    return np.asarray(model.get_user_embedding()), np.asarray(model.get_item_embedding())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gowalla", type=pathlib.Path)
    parser.add_argument("--factors", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--peers", nargs="+", choices=["implicit", "irspack"], default=["implicit", "irspack"])
    options = parser.parse_args()
    files = [options.gowalla / f"{name}.parquet" for name in ("train", "test")]
    most = lambda column: max(int(pq.read_table(file, columns=[column])[column].to_numpy().max()) for file in files) + 1
    shape = (most("user_id"), most("item_id"))
    train, test = (matrix(file, shape) for file in files)
    rest, aside = parted(train)
    for factors in options.factors:
        for peer in options.peers:
            random, begun, best = np.random.default_rng(11), time.perf_counter(), (-1.0, {})
            for _ in range(options.trials):
                setting = drawn(peer, random)
                ndcg = quality(*learned(peer, rest, factors, setting), rest, aside)[1]
                best = max(best, (ndcg, setting), key=lambda found: found[0])
            recall, ndcg = quality(*learned(peer, train, factors, best[1]), train, test)
            told = ", ".join(f"{name} {value:.4g}" for name, value in best[1].items())
            print(
                f"{peer}, k = {factors}: Recall@20 {recall:.4f}, NDCG@20 {ndcg:.4f}, chosen {told} "
                f"(NDCG@20 {best[0]:.4f} on validation rows), {time.perf_counter() - begun:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
