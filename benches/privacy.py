"""What privacy costs: the same scans with and without policies and consent, and Adult made anonymous.

    python benches/privacy.py TARGET/release/attune [FOLDER] [--rows 10000000] [--withdrawn 100000] [--runs 7]

Ten million generated events of a million persons in one Parquet file, of whom 100,000 have withdrawn. The file is there under four names:
as it is, under a row access policy, under a masking policy, and under consent. One aggregate over two columns is asked of each, and each is
fetched as Arrow; the policies' own condition and expression are asked of the plain table as well, so that what the mechanism costs is told
apart from what the expression does. All are asked in turn; medians of the runs, each beside the plain one of its round. With the data set
Adult beside the checkout (../shared/data/adult), `anonymize` is timed over it. Needs adbc-driver-flightsql, adbc-driver-manager, pyarrow
and numpy.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from serving import start

ADULT = pathlib.Path("../shared/data/adult/adult.csv")
TABLES = ("plain", "rows", "masked", "consented")
CONDITION = "kind < 19 OR current_user() = 'nobody'"
MASK = "round(amount)"
# What is asked: of which table, with what in place of the amount, under which condition.
ASKED = {
    "plain": ("plain", "amount", ""),
    "row policy": ("rows", "amount", ""),
    "its condition by hand": ("plain", "amount", f" WHERE {CONDITION}"),
    "mask": ("masked", "amount", ""),
    "its expression by hand": ("plain", MASK, ""),
    "consent": ("consented", "amount", ""),
}


def write(folder, rows, withdrawn, persons=1_000_000):
    random = np.random.default_rng(3)
    lake = folder / "lake"
    (lake / "test").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"one": [1]}), lake / "test" / "part.parquet")
    (lake / "consents").mkdir(exist_ok=True)
    gone = random.choice(persons, withdrawn, replace=False)
    pq.write_table(
        pa.table({"person": gone, "purpose": ["ads"] * withdrawn, "granted": np.zeros(withdrawn, bool)}),
        lake / "consents" / "part.parquet",
    )
    first = lake / TABLES[0] / "part.parquet"
    if not first.exists():
        first.parent.mkdir()
        step = 1 << 20
        writer = None
        for at in range(0, rows, step):
            count = min(step, rows - at)
            table = pa.table(
                {
                    "person": random.integers(0, persons, count),
                    "amount": np.round(random.gamma(2, 40, count), 2),
                    "kind": random.integers(0, 20, count),
                }
            )
            writer = writer or pq.ParquetWriter(first, table.schema)
            writer.write_table(table)
        writer.close()
    for name in TABLES[1:]:
        other = lake / name / "part.parquet"
        if not other.exists():
            other.parent.mkdir(exist_ok=True)
            other.hardlink_to(first)
    if ADULT.exists():
        (lake / "adult").mkdir(exist_ok=True)
        read = csv.read_csv(ADULT, parse_options=csv.ParseOptions(delimiter=";"))
        pq.write_table(read, lake / "adult" / "part.parquet")
        return True
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--withdrawn", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.folder or tempfile.mkdtemp())
    has_adult = write(folder, arguments.rows, arguments.withdrawn)
    process, connection, _ = start(arguments.program, folder)
    try:
        measure(connection.cursor(), arguments, has_adult)
    finally:
        process.terminate()
        process.wait()


def measure(cursor, arguments, has_adult):
    def ask(sql):
        begun = time.perf_counter()
        cursor.execute(sql)
        rows = cursor.fetchall()
        return time.perf_counter() - begun, rows

    def fetch(sql):
        begun = time.perf_counter()
        cursor.execute(sql)
        rows = cursor.fetch_arrow_table().num_rows
        return time.perf_counter() - begun, [(rows,)]

    ask("CREATE PURPOSE IF NOT EXISTS ads")
    ask(f"CREATE OR REPLACE ROW ACCESS POLICY r ON lake.rows USING ({CONDITION})")
    ask(f"CREATE OR REPLACE MASKING POLICY m ON lake.masked (amount) USING {MASK}")
    ask(
        "CREATE OR REPLACE CONSENT POLICY c ON lake.consented (person) "
        "USING lake.consents (person, purpose, granted) FOR PURPOSE ads DEFAULT ALLOW"
    )
    ask("SET purpose = 'ads'")
    compare(ask, arguments.runs, "aggregate", "SELECT count(*), sum({amount}), max(person) FROM lake.{table}{condition}")
    compare(fetch, arguments.runs, "scan to the client", "SELECT person, {amount} AS amount FROM lake.{table}{condition}")
    if has_adult:
        adult(ask, arguments.runs)


def compare(ask, runs, title, sql):
    """Medians of a statement over every name of the file, and how many times the plain one of its round each takes."""
    times = {name: [] for name in ASKED}
    found = {}
    for _ in range(runs + 1):
        for name, (table, amount, condition) in ASKED.items():
            seconds, rows = ask(sql.format(table=table, amount=amount, condition=condition))
            times[name].append(seconds)
            found[name] = rows[0][0]
    # The first round reads the file from the disk.
    plain = times["plain"][1:]
    for name in ASKED:
        own = times[name][1:]
        ratio = statistics.median(one / other for one, other in zip(own, plain))
        print(f"{title}, {name}: median {statistics.median(own) * 1000:.0f} ms, {ratio:.2f} times plain, {found[name]:,} rows", flush=True)


def adult(ask, runs):
    """Optimal full-domain generalization of Adult, with the hierarchies that are built in."""
    columns = [row[0] for row in ask("SELECT column_name FROM information_schema.columns WHERE table_name = 'adult'")[1]]
    quasi = [name for name in ("sex", "age", "race", "marital-status", "education", "native-country", "workclass", "occupation") if name in columns]
    listed = ", ".join(f"'{name}'" for name in quasi)
    for method, limit in (("optimal", "suppression_limit => 0.04, "), ("mondrian", "")):
        sql = (
            f"SELECT count(*) FROM anonymize('lake.adult', quasi_identifiers => [{listed}], k => 5, {limit}"
            f"method => '{method}', hierarchies => STRUCT('interval:5,10,20' AS age))"
        )
        times = [ask(sql) for _ in range(runs)]
        print(f"adult, {method}: median {statistics.median(t for t, _ in times) * 1000:.0f} ms, {times[0][1][0][0]:,} rows", flush=True)


if __name__ == "__main__":
    main()
