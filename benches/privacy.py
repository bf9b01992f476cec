"""What privacy costs: the same scans with and without policies and consent, and Adult made anonymous.

    python benches/privacy.py TARGET/release/attune [FOLDER] [--rows 10000000] [--withdrawn 100000] [--runs 7]

Ten million generated events of a million persons in one Parquet file, of whom 100,000 have withdrawn. The file is there under four names:
as it is, under a row access policy, under a masking policy, and under consent. One aggregate over two columns is asked of each, and each is
fetched as Arrow; the policies' own condition and expression are asked of the plain table as well, so that what the mechanism costs is told
apart from what the expression does. All are asked in turn; medians of the runs, each beside the plain one of its round. With the data set
Adult beside the checkout (../shared/data/adult), `anonymize` is timed over it, each optimum and each partition of Mondrian beside the peer's
(../shared/peers/privacy: an exhaustive search and a reference, both in numpy), which has to have found the same cost. `--rows 0` is Adult
alone. Needs adbc-driver-flightsql, adbc-driver-manager, pyarrow and numpy.
"""

import argparse
import contextlib
import io
import pathlib
import re
import runpy
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from serving import start

ADULT = pathlib.Path("../shared/data/adult/adult.csv")
PEERS = pathlib.Path("../shared/peers/privacy").resolve()
# ARX's eight quasi-identifiers, each with its hierarchy; sensitive is the occupation.
QUASI = ("sex", "age", "race", "marital-status", "education", "native-country", "workclass", "salary-class")
# What is asked of every class: here, and the search that knows the least DM*, with its name of it.
LATTICE, SENSITIVE = "arx_lattice.py", "arx_lt_exhaustive.py"
OPTIMA = {
    "k = 5": ("k => 5", LATTICE, (5, 0.0, "DM*")),
    "k = 5, 4 % suppressed": ("k => 5, suppression_limit => 0.04", LATTICE, (5, 0.04, "DM*")),
    "k = 5, t = 0.2, equal distances": ("k => 5, t => 0.2, t_closeness => 'equal'", SENSITIVE, ("DM*", "k5 t0.2 equal")),
    "k = 5, t = 0.1, ordered distances": ("k => 5, t => 0.1, t_closeness => 'ordered'", SENSITIVE, ("DM*", "k5 t0.1 ordered-lex")),
    "entropy l = 5": ("k => 1, l => 5, l_diversity => 'entropy'", SENSITIVE, ("DM*", "entropy-l 5")),
    "recursive c = 4, l = 5": ("k => 1, l => 5, l_diversity => 'recursive', c => 4", SENSITIVE, ("DM*", "recursive(4,5)")),
}
# Mondrian of integers and of texts in their order; the same as arguments of the reference.
PARTITIONS = {
    "k = 5": ("k => 5", (5,)),
    "k = 5, distinct l = 5": ("k => 5, l => 5", (5, 5)),
    "k = 5, t = 0.2, equal distances": ("k => 5, t => 0.2, t_closeness => 'equal'", (5, 1, 0.2)),
}
WANTED_SECONDS = 0.5
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
    if rows and not first.exists():
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
        if rows and not other.exists():
            other.parent.mkdir(exist_ok=True)
            other.hardlink_to(first)
    if ADULT.exists():
        (lake / "adult").mkdir(exist_ok=True)
        read = csv.read_csv(ADULT, parse_options=csv.ParseOptions(delimiter=";"))
        pq.write_table(read, lake / "adult" / "part.parquet")
        for name in QUASI:
            write_hierarchy(lake, name)
        return True
    return False


def hierarchy(name):
    return f"adult_{name.replace('-', '_')}"


def write_hierarchy(lake, name):
    """The file of levels as a table of texts."""
    options = csv.ReadOptions(autogenerate_column_names=True)
    delimited = csv.ParseOptions(delimiter=";")
    read = csv.read_csv(ADULT.with_name(f"adult_hierarchy_{name}.csv"), options, delimited)
    texts = pa.table({level: column.cast(pa.string()) for level, column in zip(read.column_names, read.columns)})
    (lake / hierarchy(name)).mkdir(exist_ok=True)
    pq.write_table(texts, lake / hierarchy(name) / "part.parquet")


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

    if arguments.rows:
        scans(ask, fetch, arguments.runs)
    if has_adult:
        adult(ask, arguments.runs)
        beside_peers(ask, arguments.runs)


def scans(ask, fetch, runs):
    ask("CREATE PURPOSE IF NOT EXISTS ads")
    ask(f"CREATE OR REPLACE ROW ACCESS POLICY r ON lake.rows USING ({CONDITION})")
    ask(f"CREATE OR REPLACE MASKING POLICY m ON lake.masked (amount) USING {MASK}")
    ask(
        "CREATE OR REPLACE CONSENT POLICY c ON lake.consented (person) "
        "USING lake.consents (person, purpose, granted) FOR PURPOSE ads DEFAULT ALLOW"
    )
    ask("SET purpose = 'ads'")
    compare(ask, runs, "aggregate", "SELECT count(*), sum({amount}), max(person) FROM lake.{table}{condition}")
    compare(fetch, runs, "scan to the client", "SELECT person, {amount} AS amount FROM lake.{table}{condition}")


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
    """Adult with a hierarchy of ages that is built in; other columns are shown or not."""
    columns = [row[0] for row in ask("SELECT column_name FROM information_schema.columns WHERE table_name = 'adult'")[1]]
    quasi = [name for name in ("sex", "age", "race", "marital-status", "education", "native-country", "workclass", "occupation") if name in columns]
    listed = ", ".join(f"'{name}'" for name in quasi)
    for method, limit in (("optimal", "suppression_limit => 0.04, "), ("mondrian", "")):
        sql = (
            f"SELECT count(*) FROM anonymize('lake.adult', quasi_identifiers => [{listed}], k => 5, {limit}"
            f"method => '{method}', hierarchies => STRUCT('interval:5,10,20' AS age))"
        )
        times = [ask(sql) for _ in range(runs)]
        print(f"adult, {method}, built-in hierarchy of ages: median {statistics.median(t for t, _ in times) * 1000:.0f} ms, {times[0][1][0][0]:,} rows", flush=True)


def beside_peers(ask, runs):
    """The optimum of each criterion, and Mondrian's partitions, with the peers' cost and time."""
    columns = {name: f'"{name}"' for name in (*QUASI, "occupation")}
    of_texts = ", ".join((columns | {"age": "CAST(age AS VARCHAR) AS age"}).values())
    of_values = ", ".join(columns.values())
    levels = ", ".join(f"'lake.{hierarchy(name)}' AS {columns[name]}" for name in QUASI)
    known = {script: searched(script) for script in (LATTICE, SENSITIVE)}
    for name, (asked, script, criterion) in OPTIMA.items():
        seconds, cost = timed(ask, runs, of_texts, f"{asked}, hierarchies => STRUCT({levels})", "discernibility_star")
        peer_seconds, told = known[script]
        peer_cost = int(re.search(re.escape(repr(criterion)) + r" (?:value |\()(\d+)", told)[1])
        row(f"optimal, {name}", seconds, cost, f"exhaustive search, numpy, {peer_seconds:.1f} s for all of its criteria", peer_cost)
    with contextlib.redirect_stdout(io.StringIO()):
        run = runpy.run_path(str(PEERS / "mondrian_ref.py"))["run"]
    for name, (asked, arguments) in PARTITIONS.items():
        seconds, cost = timed(ask, runs, of_values, f"{asked}, method => 'mondrian'", "discernibility")
        begun = time.perf_counter()
        peer_cost = int(run(*arguments)[2])
        row(f"Mondrian, {name}", seconds, cost, f"reference, numpy, {time.perf_counter() - begun:.2f} s", peer_cost)


def timed(ask, runs, columns, options, metric):
    """The median time of an anonymized table, and a figure of its report."""
    listed = ", ".join(f"'{name}'" for name in QUASI)
    call = f"((SELECT {columns} FROM lake.adult), quasi_identifiers => [{listed}], sensitive => 'occupation', {options})"
    times = [ask(f"SELECT count(*) FROM anonymize{call}")[0] for _ in range(runs)]
    cost = ask(f"SELECT value FROM anonymize_report{call} WHERE metric = '{metric}'")[1][0][0]
    return statistics.median(times), int(cost)


def searched(script):
    """How long a search of the peers takes, and what it tells."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        told = subprocess.run([sys.executable, PEERS / script], cwd=folder, capture_output=True, text=True, check=True).stdout
    return time.perf_counter() - begun, told


def row(name, seconds, cost, peer, peer_cost):
    met = "met" if seconds < WANTED_SECONDS else "missed"
    same = "the same" if cost == peer_cost else "NOT THE SAME"
    print(
        f"adult, {name}: median {seconds * 1000:.0f} ms (< {WANTED_SECONDS} s: {met}), cost {cost:,}; "
        f"{peer}, cost {peer_cost:,}: {same}",
        flush=True,
    )


if __name__ == "__main__":
    main()
