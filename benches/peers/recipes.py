"""The quality that the recipes assert, beside the peers' on the same rows and split.

    python benches/peers/recipes.py TARGET/release/attune

Runs each recipe with the real program, reads its tables, and gives implicit (factorization, neighbourhoods), the closed
form of EASE as its author publishes it, scikit-learn (clusters, components), XGBoost (trees), Surprise and the normal
equations of ALS-WR (ratings) the same rows. Each figure of a peer stands in its recipe, under "What has to hold". Needs
implicit, numpy, pandas, pyarrow, scikit-learn, scikit-surprise, scipy, xgboost.
"""

import argparse
import itertools
import pathlib
import subprocess
import tempfile

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import scipy.sparse as sp

RECIPES = pathlib.Path(__file__).resolve().parents[2] / "sql" / "recipes"


class Recipe:
    """A recipe that has run, and its tables."""

    def __init__(self, program, name, folder):
        self.program, self.warehouse = program, folder / name
        self.ask("-f", RECIPES / f"{name}.sql")

    def ask(self, *arguments):
        command = [self.program, "sql", "--warehouse", self.warehouse, *arguments]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{command}: {done.stderr or done.stdout}")
        return done.stdout

    def rows(self, query):
        file = self.warehouse / "asked.parquet"
        self.ask("-c", query, "--format", "parquet", "-o", file)
        found = pq.read_table(file).to_pandas()
        file.unlink()
        return found


def matrices(rows, is_test):
    """Training and test, users × items."""
    users, items = pd.factorize(rows.user_id)[0], pd.factorize(rows.item_id)[0]
    shape = users.max() + 1, items.max() + 1
    part = lambda which: sp.csr_matrix((np.ones(which.sum(), np.float32), (users[which], items[which])), shape)
    is_test = np.asarray(is_test, bool)
    return part(~is_test), part(is_test)


def ranked(scores, train, test, k=10):
    """Recall and NDCG of the best k by these scores, over users who have something to find."""
    scores = np.array(scores, np.float64)
    scores[train.nonzero()] = -np.inf
    discount = 1 / np.log2(np.arange(2, k + 2))
    recall, ndcg = [], []
    for user in np.flatnonzero(np.diff(test.indptr)):
        wanted = test.indices[test.indptr[user] : test.indptr[user + 1]]
        best = np.argsort(-scores[user], kind="stable")[:k]
        hits = np.isin(best, wanted)
        recall.append(hits.sum() / len(wanted))
        ndcg.append((hits * discount).sum() / discount[: len(wanted)].sum())
    return f"Recall@{k} {np.mean(recall):.4f}, NDCG@{k} {np.mean(ndcg):.4f}"


def ease(train, l2):
    """Steck 2019, listing 1."""
    gram = (train.T @ train).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += l2
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return train @ weights


def factors(train, size, **options):
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(factors=size, random_state=1, num_threads=2, **options)
    model.fit(train, show_progress=False)
    return np.asarray(model.user_factors) @ np.asarray(model.item_factors).T


def neighbors(train, count):
    from implicit.nearest_neighbours import CosineRecommender

    model = CosineRecommender(K=count, num_threads=2)
    model.fit(train, show_progress=False)
    return (train @ model.similarity.T).toarray()


def item_knn(recipe):
    rows = recipe.rows("SELECT * FROM readings")
    train, test = matrices(rows, rows.kept_aside)
    print("02 implicit, CosineRecommender(K=30):", ranked(neighbors(train, 30), train, test))


def closed_form(recipe):
    rows = recipe.rows("SELECT * FROM plays")
    train, test = matrices(rows, rows.kept_aside)
    print("03 closed form, λ = 20:", ranked(ease(train, 20), train, test))


def popularity(recipe):
    rows = recipe.rows("SELECT item_id, count(*) AS sold FROM sales GROUP BY item_id ORDER BY sold DESC LIMIT 3")
    print("04 counted:", ", ".join(f"{item} {sold}" for item, sold in rows.itertuples(index=False)))


def segments(recipe):
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.metrics import davies_bouldin_score
    from sklearn.preprocessing import StandardScaler

    rows = recipe.rows("SELECT orders_a_year, basket_eur, share_returned, channel FROM customers")
    numbers = StandardScaler().fit_transform(rows.drop(columns="channel"))
    scaled = np.column_stack([numbers, pd.get_dummies(rows.channel)])
    found = KMeans(4, n_init=10, random_state=1).fit(scaled)
    index = davies_bouldin_score(scaled, found.labels_)
    print(f"05 scikit-learn: inertia / rows {found.inertia_ / len(rows):.6f}, Davies-Bouldin {index:.6f}")
    for name, values in (("scaled", numbers), ("as they are", rows.drop(columns="channel"))):
        print(f"05 scikit-learn, PCA {name}: {np.round(PCA().fit(values).explained_variance_ratio_, 6)}")


def trees(recipe):
    from sklearn.metrics import log_loss, mean_squared_error, ndcg_score, r2_score, roc_auc_score
    from xgboost import XGBClassifier, XGBRanker, XGBRegressor

    rows = recipe.rows("SELECT * FROM shown ORDER BY visit_id, article_id")
    features = rows[["device", "hour", "favourite", "topic", "minutes", "age_hours"]].copy()
    for column in ("device", "favourite", "topic"):
        features[column] = features[column].astype("category")
    options = dict(n_estimators=100, learning_rate=0.1, enable_categorical=True, nthread=2)

    held = rows.kept_aside.to_numpy(bool)
    model = XGBClassifier(max_depth=4, **options)
    model.fit(features[~held], rows.clicked[~held])
    chance = model.predict_proba(features[held])[:, 1]
    told = roc_auc_score(rows.clicked[held], chance)
    print(f"06 XGBoost: log loss {log_loss(rows.clicked[held], chance):.4f}, AUC {told:.4f}")

    held = rows.is_test.to_numpy(bool)
    model = XGBRegressor(max_depth=6, **options)
    model.fit(features[~held], rows.seconds[~held])
    found = model.predict(features[held])
    error = mean_squared_error(rows.seconds[held], found) ** 0.5
    print(f"06 XGBoost: RMSE {error:.2f}, R² {r2_score(rows.seconds[held], found):.4f}")

    def order(rows):
        held = rows.is_test.to_numpy(bool)
        known = features.loc[rows.index].drop(columns="hour")
        model = XGBRanker(objective="rank:ndcg", max_depth=4, **options)
        model.fit(known[~held], rows.clicked[~held], qid=rows.visit_id[~held])
        tested = rows[held].assign(score=model.predict(known[held]))
        visits = [visit for _, visit in tested.groupby("visit_id") if visit.clicked.any()]
        return np.mean([ndcg_score([visit.clicked], [visit.score]) for visit in visits])

    # The first trees rank rows of one score as they stand.
    shuffled = [rows.sample(frac=1, random_state=seed).sort_values("visit_id", kind="stable") for seed in range(9)]
    found = [order(rows) for rows in [rows, *shuffled]]
    told = f"{min(found):.4f} to {max(found):.4f} by the order of a visit's rows"
    print(f"06 XGBoost: NDCG {np.mean(found):.4f}, {told}")


def blend(recipe):
    rows = recipe.rows("SELECT * FROM baskets")
    train, test = matrices(rows, rows.part == "TEST")
    print("07 implicit, factors=16:", ranked(factors(train, 16, iterations=15), train, test))
    print("07 implicit, CosineRecommender(K=100):", ranked(neighbors(train, 100), train, test))


def taste(recipe):
    rows = recipe.rows("SELECT * FROM watched")
    train, test = matrices(rows, rows.kept_aside)
    best = [(alpha, reg) for alpha in (1, 10, 40) for reg in (0.01, 0.1, 1)]
    for alpha, reg in best:
        told = ranked(factors(train, 16, iterations=15, alpha=alpha, regularization=reg), train, test)
        print(f"08 implicit, factors=16, alpha={alpha}, regularization={reg}: {told}")


def als_half(rows, columns, targets, fixed, fixed_bias, count, l2):
    """Each row's factors and bias, by normal equations with λ times the number of its ratings (Zhou et al. 2008)."""
    solved = np.zeros((count, fixed.shape[1] + 1))
    for row in range(count):
        cells = np.flatnonzero(rows == row)
        known = np.column_stack([fixed[columns[cells]], np.ones(len(cells))])
        right = known.T @ (targets[cells] - fixed_bias[columns[cells]])
        solved[row] = np.linalg.solve(known.T @ known + l2 * len(cells) * np.eye(known.shape[1]), right)
    return solved[:, :-1], solved[:, -1]


def als_wr(users, items, ratings, size, l2, iterations=8, seed=1):
    """Predictions of all pairs: mean, biases of users and items, and the product of their factors."""
    mean, shape = ratings.mean(), (users.max() + 1, items.max() + 1)
    of_items = np.random.default_rng(seed).normal(size=(shape[1], size)) / np.sqrt(size)
    item_bias = np.zeros(shape[1])
    for _ in range(iterations):
        of_users, user_bias = als_half(users, items, ratings - mean, of_items, item_bias, shape[0], l2)
        of_items, item_bias = als_half(items, users, ratings - mean, of_users, user_bias, shape[1], l2)
    return mean + user_bias[:, None] + item_bias + of_users @ of_items.T


def points(recipe):
    from surprise import SVD, Dataset, Reader

    rows = recipe.rows("SELECT user_id, item_id, rating, kept_aside FROM ratings ORDER BY user_id, item_id")
    held = rows.kept_aside.to_numpy(bool)
    users, items, ratings = pd.factorize(rows.user_id)[0], pd.factorize(rows.item_id)[0], rows.rating.to_numpy()
    train, test = rows[~held], rows[held]

    def error(predicted):
        return np.sqrt(np.mean((test.rating - predicted) ** 2))

    of_user, of_item = (test[side].map(train.groupby(side).rating.mean()) for side in ("user_id", "item_id"))
    told = error(of_user + of_item - train.rating.mean())
    print(f"11 means of user and item: RMSE {told:.4f}, of item alone {error(of_item):.4f}")
    for size, l2 in ((8, 0.1), (2, 0.02)):
        found = [als_wr(users[~held], items[~held], ratings[~held], size, l2, seed=seed) for seed in range(3)]
        found = [error(scores[users[held], items[held]]) for scores in found]
        told = f"RMSE {np.mean(found):.4f}, {min(found):.4f} to {max(found):.4f} by the seed"
        print(f"11 ALS-WR with biases, factors={size}, λ={l2}: {told}")

    reader = Reader(rating_scale=(rows.rating.min(), rows.rating.max()))
    trainset = Dataset.load_from_df(train[["user_id", "item_id", "rating"]], reader).build_full_trainset()

    def svd(**options):
        model = SVD(random_state=1, **options).fit(trainset)
        return error([model.predict(user, item).est for user, item in zip(test.user_id, test.item_id)])

    print(f"11 Surprise, SVD: RMSE {svd():.4f}")
    settings = itertools.product((2, 4, 8), (20, 50, 100), (0.02, 0.05, 0.1))
    names = ("n_factors", "n_epochs", "reg_all")
    best = min((svd(**dict(zip(names, setting))), setting) for setting in settings)
    print(f"11 Surprise, SVD, best of 27 settings: RMSE {best[0]:.4f}, {dict(zip(names, best[1]))}")


PARTS = {
    "02_item_knn": item_knn,
    "03_ease": closed_form,
    "04_popularity": popularity,
    "05_segments": segments,
    "06_next_best_content": trees,
    "07_hybrid": blend,
    "08_cold_start": taste,
    "11_ratings": points,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in given.only:
            PARTS[name](Recipe(given.program.resolve(), name, pathlib.Path(folder)))


if __name__ == "__main__":
    main()
