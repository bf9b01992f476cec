"""Texts compared, Attune beside rapidfuzz and DuckDB: million pairs a CPU second on one core.

    python benches/peers/pairs.py TARGET/release/attune [--client TARGET/release/deps/attune-HASH]
        [--data ../shared/data] [--folder DIR] [--pairs 2000000] [--rounds 5]

Surnames, address lines and whole lines of the records of febrl3 (6, 14 and 50 characters), levenshtein and
jaro_winkler_similarity, three kinds of work:
all: each of 5,000 texts with each of 5,000 into a matrix, the kernel of fuzzy joins beside rapidfuzz's `cdist`;
each: two columns element by element, Attune's function called as its engine calls it, on batches of Arrow,
beside `cpdist` on lists; both write a column of results;
sql: the sum of the function over a table of the two columns, through the running server beside DuckDB over a table in
memory, less the same query with the texts' lengths only (reading, planning and summing are not compared).
Everything runs pinned to one core with one thread, in turn, ours, theirs, ours, theirs, after a turn that
does not count; medians of CPU time of the process that does the work. Where sums differ the line says so
and the program ends with 1 (of two empty texts Attune says 1 and DuckDB 0, which is allowed for). `--pairs`
is the number of rows of surnames; address lines have a half of it, whole lines a quarter. Without `--client`
cargo builds and names the bench. Needs adbc-driver-flightsql, adbc-driver-manager, duckdb, numpy, pyarrow, rapidfuzz.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rapidfuzz
from rapidfuzz import process
from rapidfuzz.distance import JaroWinkler, Levenshtein

import inputs

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from serving import start

SHARES = {"surname": 1, "address_1": 2, "fullline": 4}
# Types of results that hold them and cost rapidfuzz least.
FUNCTIONS = {
    "levenshtein": (Levenshtein.distance, np.uint8),
    "jaro_winkler_similarity": (JaroWinkler.similarity, np.float32),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("attune")
    parser.add_argument("--client", help="the bench binary that `cargo bench --bench attune --no-run` names")
    parser.add_argument("--data", type=pathlib.Path, default=inputs.DATA)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--pairs", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def built():
    """The bench binary."""
    command = ["cargo", "bench", "--bench", "attune", "--no-run", "--message-format=json"]
    output = subprocess.run(command, cwd=inputs.CHECKOUT, stdout=subprocess.PIPE, text=True, check=True).stdout
    messages = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return next(one["executable"] for one in messages if one.get("target", {}).get("kind") == ["bench"] and one.get("executable"))


def write(folder, data, count):
    """For each column: 5,000 texts a side, and rows of two texts drawn at random."""
    random = np.random.default_rng(3)
    for name, sides in inputs.columns(data).items():
        place = folder / "lake" / f"pairs_{name}"
        place.mkdir(parents=True, exist_ok=True)
        texts = {side: pa.array(texts) for side, texts in zip("ab", sides)}
        pq.write_table(pa.table(texts), folder / f"{name}.parquet")
        rows = count // SHARES[name]
        drawn = {side: column.take(pa.array(random.integers(0, len(column), rows))) for side, column in texts.items()}
        pq.write_table(pa.table(drawn), place / "part.parquet")
    (folder / "lake" / "test").mkdir(exist_ok=True)
    pq.write_table(pa.table({"n": [1]}), folder / "lake" / "test" / "part.parquet")


def cpu(pid):
    """CPU seconds of a process and all its threads: the clock that clock_getcpuclockid(3) names."""
    return time.clock_gettime(~pid << 3 | 2)


def used(pid, work):
    before = cpu(pid)
    answer = work()
    return cpu(pid) - before, answer


class Kernels:
    """Attune's functions without a server: the bench binary, which works when it is told to."""

    def __init__(self, program, folder):
        self.process = subprocess.Popen([program, "pairs", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask("sum")  # the texts are read

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip() or sys.exit("the bench binary ended")

    def work(self, kind, name, function):
        seconds, _ = used(self.process.pid, lambda: self.ask(f"{kind} {name} {function}"))
        return seconds, float(self.ask("sum"))

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


def rapid(compare, left, right, function):
    scorer, kind = FUNCTIONS[function]
    seconds, results = used(os.getpid(), lambda: compare(left, right, scorer=scorer, dtype=kind, workers=1))
    return seconds, float(results.sum(dtype=np.float64))


def query(pid, ask, function, lengths, table):
    """Seconds and result of a query's function, less those of the query alone."""
    alone, _ = used(pid, lambda: ask(f"SELECT sum({lengths}(a)), sum({lengths}(b)) FROM {table}"))
    seconds, total = used(pid, lambda: ask(f"SELECT sum({function}(a, b)) FROM {table}"))
    return seconds - alone, float(total)


class Bench:
    def __init__(self, rounds):
        self.rounds, self.agree = rounds, True

    def beside(self, label, pairs, ours, peer, theirs, wanted, allowed=0.0):
        """Both in turn; `allowed` is how much more our sum is by rule."""
        times, totals = ([], []), [0.0, 0.0]
        for turn in range(self.rounds + 1):
            for at, work in enumerate((ours, theirs)):
                seconds, totals[at] = work()
                if turn > 0:
                    times[at].append(seconds)
        # A query may come out faster than the same one with less to do, where the function costs nearly nothing.
        rates = [pairs / max(statistics.median(seconds), 1e-6) / 1e6 for seconds in times]
        same = abs(totals[0] - allowed - totals[1]) <= 1e-6 * max(totals[1], 1.0)
        self.agree &= same
        print(
            f"{label:40} Attune {rates[0]:7.2f}  {peer:16} {rates[1]:7.2f}  {rates[0] / rates[1]:6.2f} times, wanted {wanted}"
            + ("" if same else f"  SUMS DIFFER: {totals[0]} {totals[1]}"),
            flush=True,
        )


def compare(bench, name, folder, kernels, server, duck):
    read = [pq.read_table(file) for file in (folder / f"{name}.parquet", folder / "lake" / f"pairs_{name}" / "part.parquet")]
    (left, right), (a, b) = ([table[side].to_pylist() for side in "ab"] for table in read)
    empty = sum(not (x or y) for x, y in zip(a, b))
    duck.execute(f"CREATE TABLE pairs_{name} AS FROM '{folder}/lake/pairs_{name}/part.parquet'")
    attune, cursor = server

    def ours(sql):
        cursor.execute(sql)
        return cursor.fetchall()[0][0]

    def theirs(sql):
        return duck.execute(sql).fetchone()[0]

    for function in FUNCTIONS:
        bench.beside(
            f"all   {name:10} {function}",
            len(left) * len(right),
            lambda: kernels.work("all", name, function),
            "rapidfuzz cdist",
            lambda: rapid(process.cdist, left, right, function),
            1,
        )
        bench.beside(
            f"each  {name:10} {function}",
            len(a),
            lambda: kernels.work("each", name, function),
            "rapidfuzz cpdist",
            lambda: rapid(process.cpdist, a, b, function),
            1,
        )
        edits = function == "levenshtein"
        bench.beside(
            f"sql   {name:10} {function}",
            len(a),
            lambda: query(attune.pid, ours, function, "octet_length", f"lake.pairs_{name}"),
            "DuckDB",
            lambda: query(os.getpid(), theirs, function, "strlen", f"pairs_{name}"),
            5 if edits else 1,
            0.0 if edits else empty,
        )


def main():
    asked = arguments()
    client = asked.client or built()
    # All that is started from here on, its threads too, runs on one core.
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    with tempfile.TemporaryDirectory(prefix="pairs-") as scratch:
        folder = (asked.folder or pathlib.Path(scratch)).absolute()
        write(folder, asked.data, asked.pairs)
        print(
            f"rapidfuzz {rapidfuzz.__version__}, DuckDB {duckdb.__version__}, core {core}, load {os.getloadavg()[0]:.1f}; "
            f"million pairs a CPU second, medians of {asked.rounds}",
            flush=True,
        )
        bench, kernels = Bench(asked.rounds), Kernels(client, folder)
        attune, connection, _ = start(asked.attune, folder)
        try:
            duck = duckdb.connect(config={"threads": 1})
            with connection.cursor() as cursor:
                for name in SHARES:
                    compare(bench, name, folder, kernels, (attune, cursor), duck)
            connection.close()
        finally:
            kernels.stop()
            attune.terminate()
            attune.wait()
    sys.exit(0 if bench.agree else 1)


if __name__ == "__main__":
    main()
