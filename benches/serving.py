"""Serving figures of the real program through Python ADBC: start, training memory, latency, streaming.

    python benches/serving.py TARGET/release/attune ../shared/data/gowalla [FOLDER]

Needs adbc-driver-flightsql, adbc-driver-manager, pyarrow and numpy. Writes a 1 GB Parquet table
into FOLDER (a temporary one by default). Memory is the server's resident set (VmRSS, VmHWM).
"""

import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import adbc_driver_flightsql.dbapi as flightsql
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MODEL = (
    "CREATE OR REPLACE MODEL main.gowalla OPTIONS (model_type = 'matrix_factorization', "
    "feedback_type = 'implicit', user_col = 'user_id', item_col = 'item_id', "
    "rating_col = 'weight', data_split_method = 'no_split'{options}) AS "
    "SELECT user_id, item_id, weight FROM lake.train"
)


def memory(process, field):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(field)


def forget_peak(process):
    pathlib.Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def start(program, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    begun = time.perf_counter()
    process = subprocess.Popen(
        [program, "serve", "--flight", address, "--http", "off", "--lake", folder / "lake", "--warehouse", folder / "w"],
        stderr=subprocess.DEVNULL,
    )
    while True:
        try:
            connection = flightsql.connect(f"grpc://{address}", autocommit=True)
            cursor = connection.cursor()
            cursor.execute("SELECT count(*) FROM lake.test")
            cursor.fetchall()
            return process, connection, time.perf_counter() - begun
        except Exception:
            if time.perf_counter() - begun > 30:
                raise
            time.sleep(0.005)


def write_large(folder, gigabytes=1.0):
    folder.mkdir(parents=True)
    random = np.random.default_rng(7)
    rows = 1 << 20
    schema = pa.schema([("id", pa.int64()), ("a", pa.float64()), ("b", pa.float64()), ("text", pa.string())])
    file = folder / "part.parquet"
    with pq.ParquetWriter(file, schema, compression="none") as writer:
        while not file.exists() or file.stat().st_size < gigabytes * 2**30:
            values = random.integers(0, 2**62, rows)
            text = pa.array([f"{value:016x}" for value in values.tolist()])
            writer.write_table(
                pa.table([values, random.random(rows), random.random(rows), text], schema=schema),
                row_group_size=1 << 17,
            )
    return file.stat().st_size / 2**30


def main():
    program, gowalla = sys.argv[1], pathlib.Path(sys.argv[2])
    folder = pathlib.Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp())
    for name in ("train", "test"):
        (folder / "lake" / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(gowalla / f"{name}.parquet", folder / "lake" / name)
    if not (folder / "lake" / "large").exists():
        print(f"wrote {write_large(folder / 'lake' / 'large'):.2f} GiB")
    process, connection, seconds = start(program, folder)
    try:
        measure(process, connection, seconds)
    finally:
        process.terminate()
        process.wait()


def measure(process, connection, seconds):
    cursor = connection.cursor()
    print(f"first query answered {seconds:.3f} s after start")
    idle = memory(process, "VmRSS")
    print(f"idle {idle:.0f} MiB")
    begun = time.perf_counter()
    cursor.execute(MODEL.format(options=", wals_alpha = 100, l2_reg = 1, max_iterations = 6"))
    print(f"CREATE MODEL {time.perf_counter() - begun:.2f} s, peak {memory(process, 'VmHWM') - idle:.0f} MiB above idle")
    cursor.execute("SELECT iteration, loss, duration_ms FROM ML.TRAINING_INFO(MODEL main.gowalla)")
    print("iterations", cursor.fetchall())
    cursor.execute(
        "SELECT metric, value, popularity FROM ML.EVALUATE(MODEL main.gowalla, "
        "(SELECT * FROM lake.test), STRUCT(20 AS top_k))"
    )
    four = lambda value: value and round(value, 4)
    print("evaluation", [(name, four(value), four(popular)) for name, value, popular in cursor.fetchall()])
    begun = time.perf_counter()
    cursor.execute("SELECT count(*) FROM ML.RECOMMEND(MODEL main.gowalla, STRUCT(20 AS top_k))")
    rows = cursor.fetchall()[0][0]
    print(f"top-20 for every user: {rows} rows in {time.perf_counter() - begun:.2f} s")
    latency(connection)
    forget_peak(process)
    before = memory(process, "VmRSS")
    begun = time.perf_counter()
    cursor.execute("SELECT * FROM lake.large")
    batches = cursor.fetch_record_batch()
    count = sum(batch.num_rows for batch in batches)
    seconds = time.perf_counter() - begun
    print(f"streamed {count} rows in {seconds:.2f} s, peak {memory(process, 'VmHWM') - before:.0f} MiB above before, "
          f"{memory(process, 'VmHWM') - idle:.0f} MiB above idle")


def latency(connection, runs=2000):
    with connection.cursor() as cursor:
        sql = "SELECT * FROM ml_recommend('main.gowalla', ?, 10)"
        times = []
        for user in range(runs):
            begun = time.perf_counter()
            cursor.execute(sql, (user,))
            rows = cursor.fetch_arrow_table().num_rows
            times.append((time.perf_counter() - begun) * 1000)
            assert rows == 10, rows
        print(f"execute ml_recommend (prepare, bind, run): median {statistics.median(times):.2f} ms")
        cursor.adbc_prepare(sql)
        statement = cursor.adbc_statement
        times = []
        for user in range(runs):
            begun = time.perf_counter()
            statement.bind(pa.record_batch([pa.array([user], pa.int32())], names=["1"]))
            stream, _ = statement.execute_query()
            rows = pa.RecordBatchReader.from_stream(stream).read_all().num_rows
            times.append((time.perf_counter() - begun) * 1000)
            assert rows == 10, rows
        ordered = sorted(times)
        print(f"prepared ml_recommend: median {statistics.median(times):.2f} ms, p99 {ordered[int(runs * .99)]:.2f} ms")


if __name__ == "__main__":
    main()
