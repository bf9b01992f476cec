"""Fuzzy joins, Attune beside DuckDB and rapidfuzz, and how their cost grows.

    python benches/peers/fuzzy_join.py TARGET/release/attune FOLDER [--rows 100000 1000000] [--data ../shared/data]
        [--postgres]

The surnames are written into FOLDER from the data, with generated names. `--postgres` asks pg_trgm
of the database that `psql` finds for the trigram join, in the same run (see pg_trgm.py). Needs
adbc-driver-flightsql, duckdb, numpy, pyarrow, rapidfuzz and psutil. A time is the whole statement over Flight SQL on loopback, reading the Parquet files included, the best of five; DuckDB's is
the same statement in process over a table in memory, rapidfuzz's the matrix of all distinct texts and
the count of what is within the threshold. The peak is what the server's memory grew to above idle.
Of generated names the pairs that come out are printed at each size, the time for a million of them,
and beside the size before how much more rows, pairs and time there are: the denser names are, the
more pairs has each, so that time grows with pairs where it no longer does with rows.
"""

import argparse
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time

import duckdb
import numpy
import psutil
import pyarrow
import pyarrow.parquet
from adbc_driver_flightsql import dbapi
from rapidfuzz import process
from rapidfuzz.distance import JaroWinkler, Levenshtein

import inputs
import pg_trgm

SYLLABLES = "an ber car da el fi gor ha in jo ka lo mi no os per qui ra sen tu ul vi wen xa yo ze ton man ley ski".split()


def names(rows, seed):
    """Distinct names of two words of two to four syllables, as many as rows."""
    draw = numpy.random.default_rng(seed)
    made = {}
    while len(made) < rows:
        words = draw.integers(0, len(SYLLABLES), (rows, 8))
        lengths = draw.integers(2, 5, (rows, 2))
        for word, (first, second) in zip(words, lengths):
            parts = [SYLLABLES[at] for at in word]
            made["".join(parts[:first]) + " " + "".join(parts[4 : 4 + second])] = None
            if len(made) == rows:
                break
    return list(made)


def write(folder, table, count, seed):
    target = folder / "lake" / table
    if (target / "part.parquet").exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    rows = pyarrow.table({"id": range(count), "s": names(count, seed)})
    pyarrow.parquet.write_table(rows, target / "part.parquet", row_group_size=100_000)


class Server:
    def __init__(self, program, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [program, "serve", "--lake", "lake", "--warehouse", "w", "--flight", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
        self.memory = psutil.Process(self.process.pid)
        for _ in range(200):
            try:
                self.cursor = dbapi.connect(f"grpc://127.0.0.1:{self.port}").cursor()
                self.ask("SELECT 1")
                break
            except Exception:
                time.sleep(0.05)

    def ask(self, sql):
        self.cursor.execute(sql)
        return self.cursor.fetchall()

    def timed(self, sql, runs=5):
        """The answer, the best time and the growth of memory."""
        idle, peak, done = self.memory.memory_info().rss, 0, threading.Event()

        def watch():
            nonlocal peak
            while not done.wait(0.005):
                peak = max(peak, self.memory.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        best = 9e9
        for _ in range(runs):
            start = time.perf_counter()
            answer = self.ask(sql)
            best = min(best, time.perf_counter() - start)
        done.set()
        watcher.join()
        return answer[0][0], best, max(0, peak - idle) / 2**20


def duck(sql, tables, runs=3):
    connection = duckdb.connect()
    for name, path in tables.items():
        connection.execute(f"create table {name} as from '{path}'")
    best = 9e9
    for _ in range(runs):
        start = time.perf_counter()
        answer = connection.execute(sql).fetchone()[0]
        best = min(best, time.perf_counter() - start)
    return answer, best


def matrix(folder, scorer, cutoff, within):
    texts = [pyarrow.parquet.read_table(folder / f"surname_{side}.parquet")["s"].to_pylist() for side in "ab"]
    counts = [dict(zip(*numpy.unique(side, return_counts=True))) for side in texts]
    best = 9e9
    for _ in range(3):
        start = time.perf_counter()
        (left, left_counts), (right, right_counts) = ((list(c), numpy.array(list(c.values()))) for c in counts)
        scores = process.cdist(left, right, scorer=scorer, score_cutoff=cutoff, workers=2)
        pairs = int(left_counts @ within(scores).astype(numpy.int64) @ right_counts)
        best = min(best, time.perf_counter() - start)
    return pairs, best


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program")
    arguments.add_argument("folder", type=pathlib.Path)
    arguments.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    arguments.add_argument("--data", type=pathlib.Path, default=inputs.DATA)
    arguments.add_argument("--postgres", action="store_true")
    given = arguments.parse_args()
    program, folder = os.path.abspath(given.program), given.folder.absolute()
    inputs.write(folder, given.data)
    for side in "ab":
        target = folder / "lake" / f"surname_{side}"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / f"surname_{side}.parquet", target)
    for rows in given.rows:
        for side, seed in (("a", 1), ("b", 2)):
            write(folder, f"names_{rows}_{side}", rows, seed)
    server = Server(program, folder)
    try:
        tables = {f"s{side}": folder / f"surname_{side}.parquet" for side in "ab"}
        print("5,000 x 5,000 surnames")
        for ours, theirs, peer in (
            ("levenshtein_within(a.s, b.s, 2)", "levenshtein(a.s, b.s) <= 2", (Levenshtein.distance, 2, lambda x: x <= 2)),
            ("trigram_similarity(a.s, b.s) >= 0.5", None, None),
            (
                "jaro_winkler_similarity(a.s, b.s) >= 0.9",
                "jaro_winkler_similarity(a.s, b.s) >= 0.9",
                (JaroWinkler.similarity, 0.9, lambda x: x >= 0.9),
            ),
        ):
            pairs, seconds, _ = server.timed(f"SELECT count(*) FROM lake.surname_a a JOIN lake.surname_b b ON {ours}", 20)
            line = f"  {ours:42s} {pairs:9d} pairs  Attune {seconds * 1e3:8.1f} ms"
            if theirs:
                found, took = duck(f"SELECT count(*) FROM sa a JOIN sb b ON {theirs}", tables)
                line += f"  DuckDB {took * 1e3:8.1f} ms ({found})"
            if peer:
                found, took = matrix(folder, *peer)
                line += f"  rapidfuzz {took * 1e3:8.1f} ms ({found})"
            if given.postgres and "trigram" in ours:
                found, took = pg_trgm.joined(folder, 5)
                line += f"  pg_trgm {took:8.1f} ms ({found}, of its own trigrams)"
            print(line, flush=True)
        smaller = {}
        for rows in given.rows:
            for most in (1, 2):
                sql = (
                    f"SELECT count(*) FROM lake.names_{rows}_a a JOIN lake.names_{rows}_b b "
                    f"ON levenshtein_within(a.s, b.s, {most})"
                )
                pairs, seconds, peak = server.timed(sql, 2)
                line = (
                    f"{rows:,} x {rows:,} names, levenshtein <= {most}: {pairs:,} pairs out  {seconds:.2f} s  "
                    f"{seconds / max(pairs, 1) * 1e6:.2f} s a million pairs  {peak:.0f} MiB above before"
                )
                if most in smaller:
                    before = smaller[most]
                    line += (
                        f"  rows x {rows / before[0]:.1f}, pairs x {pairs / max(before[1], 1):.1f}, "
                        f"time x {seconds / before[2]:.1f}"
                    )
                smaller[most] = (rows, pairs, seconds)
                print(line, flush=True)
    finally:
        server.process.terminate()
        server.process.wait()


main()
