"""Twenty expectations of a table of ten million rows in one Parquet file: CHECK TABLE beside the plain aggregates.

    python benches/checks.py TARGET/release/attune [FOLDER] [--rows 10000000] [--runs 5]

The plain query computes the same twenty figures, written by hand as aggregates (count(DISTINCT id) for uniqueness, a sum
of CASE for each condition on rows); the two run in turn and medians are compared. Then the same without the check of
uniqueness, which takes most of the time. The file is touched before each run, so that it is read as a new one; how long a
check takes that finds it known is told beside. Needs adbc-driver-flightsql, adbc-driver-manager, pyarrow, numpy.
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serving import start

# Name, CHECK, the same by hand.
CHECKS = [
    ("c01", "id IS NOT NULL", "sum(CASE WHEN id IS NULL THEN 1 ELSE 0 END)"),
    ("c02", "completeness(mail) >= 0.9", "count(mail)"),
    ("c03", "uniqueness(id) = 1", "count(DISTINCT id)"),
    ("c04", "price > 0", "sum(CASE WHEN NOT price > 0 THEN 1 ELSE 0 END)"),
    ("c05", "price BETWEEN 0 AND 1000", "sum(CASE WHEN price NOT BETWEEN 0 AND 1000 THEN 1 ELSE 0 END)"),
    ("c06", "quantity >= 1", "sum(CASE WHEN NOT quantity >= 1 THEN 1 ELSE 0 END)"),
    ("c07", "quantity <= 20", "sum(CASE WHEN NOT quantity <= 20 THEN 1 ELSE 0 END)"),
    ("c08", "price * quantity < 100000", "sum(CASE WHEN NOT price * quantity < 100000 THEN 1 ELSE 0 END)"),
    ("c09", "channel IN ('app', 'shop', 'web')", "sum(CASE WHEN channel NOT IN ('app', 'shop', 'web') THEN 1 ELSE 0 END)"),
    ("c10", "mail LIKE '%@%'", "sum(CASE WHEN mail NOT LIKE '%@%' THEN 1 ELSE 0 END)"),
    ("c11", "ordered >= TIMESTAMP '2020-01-01'", "sum(CASE WHEN NOT ordered >= TIMESTAMP '2020-01-01' THEN 1 ELSE 0 END)"),
    ("c12", "freshness(ordered) <= INTERVAL '40000 days'", "max(ordered)"),
    ("c13", "row_count() BETWEEN 1 AND 1000000000", "count(*)"),
    ("c14", "completeness(channel) = 1", "count(channel)"),
    ("c15", "avg(price) < 500", "avg(price)"),
    ("c16", "max(quantity) <= 20", "max(quantity)"),
    ("c17", "min(price) >= 0", "min(price)"),
    ("c18", "customer > 0", "sum(CASE WHEN NOT customer > 0 THEN 1 ELSE 0 END)"),
    ("c19", "stddev(price) < 1000", "stddev(price)"),
    ("c20", "customer IS NOT NULL", "sum(CASE WHEN customer IS NULL THEN 1 ELSE 0 END)"),
]
EXTRA = [
    ("reference", "customer IN (SELECT id FROM lake.customers)"),
    ("drift", "drift_psi(price) < 0.25"),
]


def write(folder, rows):
    random = np.random.default_rng(5)
    for name in ("orders", "customers", "test"):
        (folder / "lake" / name).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": np.arange(1, 1_000_001)}), folder / "lake" / "customers" / "part.parquet")
    pq.write_table(pa.table({"n": [1]}), folder / "lake" / "test" / "part.parquet")
    file = folder / "lake" / "orders" / "part.parquet"
    if file.exists() and pq.read_metadata(file).num_rows == rows:
        return
    names = pa.array([f"customer{n}@example.org" for n in range(100_000)])
    channels = pa.array(["app", "shop", "web"])
    first = np.datetime64("2024-01-01", "us")
    writer, written = None, 0
    while written < rows:
        count = min(1 << 20, rows - written)
        take = lambda values, most: values.take(pa.array(random.integers(0, most, count)))
        mails = take(names, len(names)).to_numpy(zero_copy_only=False)
        table = pa.table(
            {
                "id": np.arange(written + 1, written + count + 1),
                "customer": random.integers(1, 1_000_001, count),
                "mail": pa.array(mails, mask=random.random(count) < 0.05),
                "price": np.round(random.gamma(2, 40, count), 2) + 0.01,
                "quantity": random.integers(1, 21, count),
                "channel": take(channels, 3),
                "ordered": first + random.integers(0, 31_536_000, count) * np.timedelta64(1_000_000, "us"),
            }
        )
        writer = writer or pq.ParquetWriter(file, table.schema)
        writer.write_table(table, row_group_size=1 << 18)
        written += count
    writer.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.folder or tempfile.mkdtemp())
    write(folder, arguments.rows)
    process, connection, _ = start(arguments.program, folder)
    try:
        measure(connection.cursor(), arguments, folder)
    finally:
        process.terminate()
        process.wait()


def measure(cursor, arguments, folder):
    def ask(sql):
        begun = time.perf_counter()
        cursor.execute(sql)
        rows = cursor.fetchall()
        return time.perf_counter() - begun, rows

    def change(sql):
        cursor.adbc_statement.set_sql_query(sql)
        cursor.adbc_statement.execute_update()

    for name, _ in EXTRA:
        change(f"DROP EXPECTATION IF EXISTS {name} ON lake.orders")
    for name, check, _ in CHECKS:
        change(f"CREATE OR REPLACE EXPECTATION {name} ON lake.orders CHECK ({check})")
    plan = "\n".join(str(row[-1]) for row in ask("EXPLAIN CHECK TABLE lake.orders")[1])
    print(f"{arguments.rows:,} rows, {len(CHECKS)} checks, scans in the plan: {plan.count('DataSourceExec')}")

    def touch():
        for file in folder.rglob("*.parquet"):
            os.utime(file)
        time.sleep(2.5)  # a listing is used for two seconds

    def beside(label, figures):
        plain = "SELECT " + ", ".join(figures) + " FROM lake.orders"
        times = {"CHECK TABLE": [], "plain": [], "CHECK TABLE, known": []}
        for run in range(arguments.runs + 1):
            touch()
            seconds, rows = ask("CHECK TABLE lake.orders")
            assert len(rows) == len(CHECKS) and all(row[4] == "pass" for row in rows), rows
            known = ask("CHECK TABLE lake.orders")[0]
            pair = {"CHECK TABLE": seconds, "plain": ask(plain)[0], "CHECK TABLE, known": known}
            if run > 0:
                for name, seconds in pair.items():
                    times[name].append(seconds)
        median = {name: statistics.median(seconds) for name, seconds in times.items()}
        for name, seconds in median.items():
            print(f"{label}, {name}: median {seconds:.3f} s of {', '.join(f'{s:.3f}' for s in times[name])}")
        print(f"{label}: {median['CHECK TABLE'] / median['plain']:.2f} times the plain query (wanted: at most 1.5)")

    beside("with uniqueness", [sql for _, _, sql in CHECKS])
    change("CREATE OR REPLACE EXPECTATION c03 ON lake.orders CHECK (id > 0)")
    others = [sql for name, _, sql in CHECKS if name != "c03"]
    beside("without", others + ["sum(CASE WHEN NOT id > 0 THEN 1 ELSE 0 END)"])
    for name, check in EXTRA:
        change(f"CREATE OR REPLACE EXPECTATION {name} ON lake.orders CHECK ({check})")
    with_extra = statistics.median(ask("CHECK TABLE lake.orders")[0] for _ in range(arguments.runs))
    print(f"with a reference to 1,000,000 keys and a drift check: median {with_extra:.3f} s")


if __name__ == "__main__":
    main()
