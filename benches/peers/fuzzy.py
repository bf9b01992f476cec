"""String functions in SQL, Attune beside DuckDB: million pairs a CPU second, the same query on both.

    python benches/peers/fuzzy.py TARGET/release/attune FOLDER

The texts are written into FOLDER from ../shared/data; needs duckdb, numpy and pyarrow. Both engines run the cross
join and the sum, in turn, three times; the least CPU time of the whole process counts, less that
of the same join with a count only (start-up, reading and joining are not compared).
"""

import os
import pathlib
import resource
import shutil
import subprocess
import sys

import inputs

DUCKDB = """
import duckdb, sys
c = duckdb.connect()
c.execute("set threads=1")
c.execute(f"create table a as from '{sys.argv[1]}_a.parquet'")
c.execute(f"create table b as from '{sys.argv[1]}_b.parquet'")
print(c.execute(sys.argv[2]).fetchone()[0])
"""


def cpu_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, output


def main():
    program, folder = os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2])
    inputs.write(folder)
    os.chdir(folder)
    for column in ("surname", "address_1", "fullline"):
        for side in "ab":
            target = folder / "lake" / f"{column}_{side}"
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(f"{column}_{side}.parquet", target)
    for column, rows in (("surname", 2000), ("address_1", 1000), ("fullline", 200)):
        for function in ("levenshtein", "jaro_winkler_similarity"):
            compare(program, column, rows if function == "levenshtein" else rows * 2, function)


def compare(program, column, rows, function):
    pairs = rows * 5000
    results = {}
    for expression in ("count(a.s)", f"sum({function}(a.s, b.s))"):
        for engine in ("attune", "duckdb") * 3:
            tables = (f"lake.{column}_a", f"lake.{column}_b") if engine == "attune" else ("a", "b")
            sql = f"SELECT {expression} FROM (SELECT * FROM {tables[0]} ORDER BY id LIMIT {rows}) a, {tables[1]} b"
            if engine == "attune":
                command = [program, "sql", "--lake", "lake", "--warehouse", "w", "--format", "csv", "-c", sql]
            else:
                command = [sys.executable, "-c", DUCKDB, column, sql]
            seconds, output = cpu_seconds(command)
            key = (engine, expression)
            results[key] = min(results.get(key, (9e9, "")), (seconds, output.split()[-1]))
    count, total = "count(a.s)", f"sum({function}(a.s, b.s))"
    rates = {}
    for engine in ("attune", "duckdb"):
        seconds = max(results[engine, total][0] - results[engine, count][0], 1e-3)
        rates[engine] = pairs / seconds / 1e6
    print(
        f"{column:10s} {function:24s} attune {rates['attune']:7.2f}  duckdb {rates['duckdb']:7.2f} "
        f"Mpairs/CPU s  ratio {rates['attune'] / rates['duckdb']:5.1f}   sums "
        f"{results['attune', total][1]} {results['duckdb', total][1]}",
        flush=True,
    )


main()
