"""The surnames of `fuzzy_join.py` in PostgreSQL: trigram similarity >= .5 by a GIN index of pg_trgm.

    python benches/peers/pg_trgm.py FOLDER [--runs 5]

Asks `psql` with the environment's connection (PGHOST, PGUSER, …) to a database in which it may
create a schema; the surnames are written into FOLDER from ../shared/data. `fuzzy_join.py --postgres` asks it in
its own run. Prints pairs and the best time
of a count of the whole join, as `\\timing` has it.
"""

import argparse
import pathlib
import re
import subprocess

import pyarrow.parquet as pq

import inputs


def psql(script):
    command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
    return subprocess.run(command, input=script, text=True, check=True, capture_output=True).stdout


def loaded(folder, side):
    names = pq.read_table(folder / f"surname_{side}.parquet")["s"].to_pylist()
    rows = "\n".join(name.replace("\\", "\\\\").replace("\t", " ") for name in names)
    return f"CREATE TABLE trgm.{side} (x text);\nCOPY trgm.{side} FROM stdin;\n{rows}\n\\.\n"


def joined(folder, runs):
    """Pairs and the best time in milliseconds."""
    psql("DROP SCHEMA IF EXISTS trgm CASCADE; CREATE SCHEMA trgm; CREATE EXTENSION IF NOT EXISTS pg_trgm;")
    psql(loaded(folder, "a") + loaded(folder, "b"))
    psql("CREATE INDEX ON trgm.b USING gin (x gin_trgm_ops); ANALYZE trgm.a; ANALYZE trgm.b;")
    ask = "SET pg_trgm.similarity_threshold = 0.5; SET enable_seqscan = off;\n\\timing on\n"
    ask += "SELECT count(*) FROM trgm.a JOIN trgm.b ON a.x % b.x;\n" * runs
    answers = psql(ask)
    times = [float(time) for time in re.findall(r"Time: ([\d.]+) ms", answers)]
    pairs = re.search(r"^(\d+)$", answers, re.MULTILINE).group(1)
    psql("DROP SCHEMA trgm CASCADE;")
    return int(pairs), min(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    inputs.write(options.folder)
    pairs, best = joined(options.folder, options.runs)
    print(f"{pairs} pairs, {best:.1f} ms")


if __name__ == "__main__":
    main()
