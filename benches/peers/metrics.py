"""The metrics of `ML.EVALUATE` by their published definitions, beside the constants that the tests hold.

    python benches/peers/metrics.py

The rows, factors and constants are those of udfs/src/model/evaluation_tests.rs, which is read for the constants;
docs/metrics.md has the definitions and their papers. NDCG, AUC and log loss are scikit-learn's. Ends with 1 where a
constant is not what is computed. Needs numpy and scikit-learn.
"""

import pathlib
import re
import sys

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity

USERS, ITEMS, FACTORS, K = 40, 30, 5, 6
TESTS = pathlib.Path(__file__).resolve().parents[2] / "udfs" / "src" / "model" / "evaluation_tests.rs"


def draw(a, b):
    return (a * 26_544 + b * 40_503 + a * b * 7_919) % 1_009


def factors(rows, first, second):
    return (draw(np.arange(rows)[:, None] + first, np.arange(FACTORS) + second) / 1_009 - 0.5).astype(np.float32)


user, item = np.arange(USERS)[:, None], np.arange(ITEMS)[None, :]
seen = draw(user + 3, item + 7) % 10 < 3
test = seen & (draw(item + 11, user + 5) % 4 == 0)
train = seen & ~test
users = np.flatnonzero(test.any(axis=1))
alike = np.nan_to_num(cosine_similarity(seen.T.astype(float)))


def of_user(scores, at):
    """The list of a user by these scores, and its metrics."""
    hits = test[at]
    ranked = np.argsort(-scores, kind="stable")
    listed = ranked[~train[at][ranked]][:K]
    hit = hits[listed].astype(float)
    rank, most = np.arange(1, K + 1), min(hits.sum(), K)
    # scikit-learn ranks whole score vectors: the places of the list, without ties.
    places = np.zeros(ITEMS)
    places[listed] = np.arange(K, 0, -1)
    scored, pairs = hits | ~seen[at], np.triu_indices(K, 1)
    return listed, {
        "recall": hit.sum() / hits.sum(),
        "ndcg": ndcg_score([hits.astype(float)], [places], k=K, ignore_ties=True),
        "hit_rate": float(hit.any()),
        "precision": hit.mean(),
        "map": (hit * np.cumsum(hit) / rank).sum() / most,
        "mrr": (hit / rank).max(),
        "novelty": np.mean(-np.log2(np.maximum(train.sum(axis=0)[listed], 1) / USERS)),
        "diversity": 1 - alike[np.ix_(listed, listed)][pairs].mean(),
        "auc": roc_auc_score(hits[scored], scores[scored]),
    }


def measure(scores):
    """All metrics of every user's scores."""
    found = [of_user(scores[at], at) for at in users]
    values = {name: np.mean([metrics[name] for _, metrics in found]) for name in found[0][1]}
    counts = np.sort(np.bincount(np.concatenate([listed for listed, _ in found]), minlength=ITEMS))
    values["coverage"] = (counts > 0).mean()
    values["gini"] = ((2 * np.arange(1, ITEMS + 1) - ITEMS - 1) * counts).sum() / (ITEMS * counts.sum())
    return values


def loss(scores):
    """Of a logistic of the score (Platt 1999), as many pairs of the test as others."""
    kept = test | (~seen & test.any(axis=1)[:, None])
    x, y = scores[kept][:, None], test[kept]
    weights = np.where(y, 1 / y.sum(), 1 / (~y).sum())
    fitted = LogisticRegression(C=1e6).fit(x, y, sample_weight=weights * len(y) / 2)
    return log_loss(y, fitted.predict_proba(x)[:, 1], sample_weight=weights)


def main():
    model = factors(USERS, 1, 1).astype(float) @ factors(ITEMS, 101, 51).astype(float).T
    popular = np.tile(train.sum(axis=0).astype(float), (USERS, 1))
    ours, baseline = measure(model), measure(popular)
    text = TESTS.read_text().replace("_", "")
    equal = True
    for name in ours:
        shown = name if name == "auc" else f"{name}@{K}"
        held = re.search(rf'\("{shown.replace("_", "")}", ([\d.]+), ([\d.]+)\)', text)
        constants = [float(number) for number in held.groups()]
        same = np.allclose(constants, [ours[name], baseline[name]], rtol=0, atol=1e-6)
        equal &= same
        print(f"{shown:12} {ours[name]:.12f} {baseline[name]:.12f}  the test: {constants}" + ("" if same else "  DIFFERENT"))
    print(f"{'log_loss':12} {loss(model):.4f}, and the test: ln 2 = {np.log(2):.4f} ± .01 (on pairs that are drawn)")
    sys.exit(0 if equal else 1)


main()
