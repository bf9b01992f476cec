"""The main job through Python ADBC: a lake table and a model over S3, before and after a restart.

    python gowalla_s3.py URI USER train|again      (password in ATTUNE_PASSWORD)

`train` creates an external table over the lake's files and a model, reads recommendations and
metrics, and prints them; `again` reads them without training. Both print the same lines.
"""

import os
import sys

import adbc_driver_flightsql.dbapi as flightsql

OPTIONS = (
    "model_type = 'matrix_factorization', feedback_type = 'implicit', "
    "user_col = 'user_id', item_col = 'item_id', rating_col = 'weight', "
    "num_factors = 16, max_iterations = 3, seed = 7, data_split_method = 'no_split'"
)


def rows(cursor, sql, parameters=None):
    cursor.execute(sql, parameters)
    return cursor.fetchall()


def train(cursor):
    cursor.execute("CREATE EXTERNAL TABLE lake.checkins STORED AS PARQUET LOCATION 'gowalla/train/'")
    cursor.execute(
        f"CREATE MODEL main.gowalla OPTIONS ({OPTIONS}) AS "
        "SELECT user_id, item_id, weight FROM lake.checkins"
    )
    cursor.execute("CREATE TABLE main.popular AS SELECT item_id, count(*) AS n FROM lake.checkins GROUP BY 1")


def read(cursor):
    (count,) = rows(cursor, "SELECT count(*) FROM lake.checkins")[0]
    print("check-ins", count)
    print("items", rows(cursor, "SELECT count(*) FROM main.popular")[0][0])
    user = rows(cursor, "SELECT min(user_id) FROM lake.checkins")[0][0]
    known = rows(cursor, "SELECT * FROM ml_recommend('main.gowalla', ?, 5)", (user,))
    assert len(known) == 5 and all(row[4] == "als" for row in known), known
    assert [row[3] for row in known] == [1, 2, 3, 4, 5], known
    print("recommended", [row[1] for row in known])
    unknown = rows(cursor, "SELECT * FROM ml_recommend('main.gowalla', -1, 3)")
    assert [row[4] for row in unknown] == ["popularity"] * 3, unknown
    metrics = rows(
        cursor,
        "SELECT metric, value, popularity FROM ML.EVALUATE(MODEL main.gowalla, "
        "(SELECT user_id, item_id, weight FROM lake.gowalla_test), STRUCT(20 AS top_k))",
    )
    recall = next(row for row in metrics if row[0].startswith("recall"))
    assert recall[1] > 2 * recall[2] > 0, recall
    print("metrics", [(name, round(value, 6)) for name, value, _ in metrics])


def main():
    uri, user, step = sys.argv[1:]
    login = {"username": user, "password": os.environ["ATTUNE_PASSWORD"]}
    with flightsql.connect(uri, db_kwargs=login, autocommit=True) as connection:
        with connection.cursor() as cursor:
            if step == "train":
                train(cursor)
            read(cursor)


main()
