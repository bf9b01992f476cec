"""Serving beside its peers: Attune, ROAPI and Sail over Flight SQL, the same clients, files and minutes.

    python benches/peers/flight.py TARGET/release/attune TARGET/release/deps/attune-HASH [--folder DIR]
        [--points 1000000] [--scan 10000000] [--runs 1000] [--seconds 5] [--rounds 3]

Needs roapi, pysail, adbc-driver-flightsql, adbc-driver-manager, pyarrow and numpy; `roapi` and
`sail` are found beside this Python. Every server runs all the time on loopback and is asked in turn,
round by round; the best round counts, so that what else the machine does hits nobody more. Measured:
(a) SELECT 1 and one row by its key of a Parquet table, at one connection of ADBC: median and 99th
percentile;
(b) the same look-up at 16 connections of a Rust client, which costs little: questions a second;
(c) a scan of all rows to the Rust client: rows a second, and the server's memory above idle;
(d) a new connection and its first answer. Attune checks a password (argon2id) there, its peers none.
"""

import argparse
import pathlib
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

PASSWORD = "a password of the bench"
CONNECTIONS = 16
CLIENT = None


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("attune")
    parser.add_argument("client", help="the bench binary that `cargo bench --bench attune --no-run` names")
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--scan", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def write_points(file, rows):
    """Keys in no order, as a table grows; one file as pyarrow writes it by default."""
    random = np.random.default_rng(7)
    keys = random.permutation(rows)
    names = pa.array([f"customer-{key:08d}" for key in keys.tolist()])
    table = {"key": keys, "name": names, "score": random.random(rows), "day": keys % 365}
    pq.write_table(pa.table(table), file)


def write_scan(file, rows):
    random = np.random.default_rng(8)
    schema = pa.schema([("id", pa.int64()), ("a", pa.float64()), ("b", pa.float64()), ("text", pa.string())])
    step = 1 << 20
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, rows, step):
            count = min(step, rows - start)
            values = random.integers(0, 2**62, count)
            text = pa.array([f"{value:016x}" for value in values.tolist()])
            columns = [values, random.random(count), random.random(count), text]
            writer.write_table(pa.table(columns, schema=schema))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """A running server and the words with which it is asked."""

    login = {}
    prepares = False

    def __init__(self, name, command, port, points, scan):
        self.name, self.uri = name, f"grpc://127.0.0.1:{port}"
        self.points, self.scan = points, scan
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def connect(self):
        return flightsql.connect(self.uri, db_kwargs=self.login, autocommit=True)

    def wait(self):
        begun = time.perf_counter()
        while True:
            try:
                with self.connect() as connection, connection.cursor() as cursor:
                    self.prepare(cursor)
                    cursor.execute("SELECT 1")
                    return cursor.fetchall()
            except Exception as error:
                if self.process.poll() is not None or time.perf_counter() - begun > 120:
                    self.log.seek(0)
                    raise RuntimeError(f"{self.name}: {self.log.read()[-2000:]}") from error
                time.sleep(0.1)

    def prepare(self, cursor):
        """What is to be done once before the questions."""

    def lookup(self, key):
        return f"SELECT * FROM {self.points} WHERE key = {key}"

    def memory(self, field):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
        raise RuntimeError(field)

    def forget_peak(self):
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Attune(Server):
    login = {"username": "bench", "password": PASSWORD}
    prepares = True

    def __init__(self, program, folder):
        warehouse = folder / f"warehouse-{free_port()}"
        add = [program, "user", "add", "bench", "--role", "admin", "--warehouse", warehouse]
        subprocess.run(add, input=PASSWORD, text=True, check=True, capture_output=True)
        port = free_port()
        command = [program, "serve", "--flight", f"127.0.0.1:{port}", "--http", "off"]
        command += ["--lake", folder / "lake", "--warehouse", warehouse]
        super().__init__("Attune", command, port, "lake.points", "lake.scan")

    def prepare(self, cursor):
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS main.points CLUSTER BY (key) AS SELECT * FROM lake.points"
        )


class AttuneTable(Server):
    """The same server, asked for its own table, which is clustered by the key."""

    login = Attune.login
    prepares = True

    def __init__(self, attune):
        self.name, self.uri, self.process = "Attune, own table", attune.uri, attune.process
        self.points, self.scan = "main.points", None

    def stop(self):
        pass


class Roapi(Server):
    def __init__(self, folder, in_memory):
        port = free_port()
        config = folder / f"roapi-{'memory' if in_memory else 'files'}.yml"
        tables = [(name, folder / "lake" / name / "part.parquet") for name in ("points", "scan")]
        option = f"{{format: parquet, use_memory_table: {str(in_memory).lower()}}}"
        lines = [f"  - {{name: {name}, uri: '{file}', option: {option}}}" for name, file in tables]
        config.write_text("\n".join(["tables:", *lines, ""]))
        command = [pathlib.Path(sys.executable).parent / "roapi"]
        command += ["--addr-http", f"127.0.0.1:{free_port()}"]
        command += ["--addr-postgres", f"127.0.0.1:{free_port()}"]
        command += ["--addr-flight-sql", f"127.0.0.1:{port}"]
        command += ["--config", config]
        name = "ROAPI, in memory" if in_memory else "ROAPI, from files"
        super().__init__(name, command, port, "points", "scan")


class Sail(Server):
    def __init__(self, folder):
        port = free_port()
        program = pathlib.Path(sys.executable).parent / "sail"
        command = [program, "flight", "server", "--port", str(port)]
        tables = [f"parquet.`{folder / 'lake' / name}`" for name in ("points", "scan")]
        super().__init__("Sail", command, port, *tables)


class Wire(Server):
    """Sends rows that it has ready: nobody who reads a file can be faster over this protocol."""

    def __init__(self, rows):
        port = free_port()
        super().__init__("rows made before", [CLIENT, "wire", f"127.0.0.1:{port}", str(rows)], port, None, "rows")
        self.rows = rows

    def wait(self):
        time.sleep(0.5)


def percentiles(times):
    ordered = sorted(times)
    return statistics.median(ordered) * 1000, ordered[int(len(ordered) * 0.99)] * 1000


def timed(runs, ask):
    for _ in range(min(50, runs)):
        ask()
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        ask()
        times.append(time.perf_counter() - begun)
    return percentiles(times)


class Asker:
    """Looks rows up by key over one connection, prepared where asked to."""

    def __init__(self, server, prepared, keys, seed):
        self.server, self.connection = server, server.connect()
        self.cursor = self.connection.cursor()
        self.keys = np.random.default_rng(seed).integers(0, keys, 1 << 16).tolist()
        self.prepared = prepared
        if prepared:
            self.cursor.adbc_prepare(f"SELECT * FROM {server.points} WHERE key = ?")

    def ask(self):
        key = self.keys.pop()
        if self.prepared:
            statement = self.cursor.adbc_statement
            statement.bind(pa.record_batch([pa.array([key], pa.int64())], names=["1"]))
            stream, _ = statement.execute_query()
            table = pa.RecordBatchReader.from_stream(stream).read_all()
        else:
            self.cursor.execute(self.server.lookup(key))
            table = self.cursor.fetch_arrow_table()
        assert table.num_rows == 1 and table["key"][0].as_py() == key, (self.server.name, table)

    def close(self):
        self.cursor.close()
        self.connection.close()


def one_connection(server, prepared, keys, runs):
    asker = Asker(server, prepared, keys, 1)
    found = timed(runs, asker.ask)
    asker.close()
    return found


def select_one(server, runs):
    with server.connect() as connection, connection.cursor() as cursor:

        def ask():
            cursor.execute("SELECT 1")
            cursor.fetch_arrow_table()

        return timed(runs, ask)


def client(server, *arguments):
    """Runs the Rust client against a server; gives the numbers it prints."""
    login = [server.login[name] for name in ("username", "password") if name in server.login]
    command = [CLIENT, "client", arguments[0], server.uri.removeprefix("grpc://"), *arguments[1:], *login]
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-500:])
    return [float(number) for number in ended.stdout.split()]


def many_connections(server, prepared, keys, seconds):
    query = f"SELECT * FROM {server.points} WHERE key = {'?' if prepared else '{}'}"
    return client(server, "rate", query, keys, CONNECTIONS, seconds)[0]


def scan(server, rows):
    server.forget_peak()
    idle = server.memory("VmRSS")
    found, rate = client(server, "scan", f"SELECT * FROM {server.scan}")
    assert found == rows, (server.name, found)
    return rate, server.memory("VmHWM") - idle


def first_answers(server, runs=20):
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchall()
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


def better(name, old, new):
    higher = name in ("answers a second", "scan rows a second")
    if old is None:
        return new
    return max(old, new) if higher else min(old, new)


def measure(server, options, figures):
    def note(name, value):
        figures[name] = better(name, figures.get(name), value)

    def attempt(name, action):
        try:
            note(name, action())
        except Exception as error:
            figures.setdefault(name, None)
            print(f"{server.name}: {name}: {str(error)[:200]}", file=sys.stderr)

    if isinstance(server, Wire):
        return attempt("scan rows a second", lambda: scan(server, -(-server.rows // 8192) * 8192))
    runs, keys = options.runs, options.points
    attempt("row by key", lambda: one_connection(server, False, keys, runs))
    attempt("answers a second", lambda: many_connections(server, server.prepares, keys, options.seconds))
    if server.prepares:
        attempt("row by key, prepared", lambda: one_connection(server, True, keys, runs))
    if server.scan:
        attempt("SELECT 1", lambda: select_one(server, runs))
        attempt("scan rows a second", lambda: scan(server, options.scan))
        attempt("connect and first answer", lambda: first_answers(server))


COLUMNS = [
    ("SELECT 1", "SELECT 1, ms (median / p99)"),
    ("row by key", "row by key, ms"),
    ("row by key, prepared", "prepared, ms"),
    ("answers a second", "answers a second, 16 connections"),
    ("scan rows a second", "scan, million rows/s (memory above idle)"),
    ("connect and first answer", "connect + first answer, ms"),
]


def shown(name, value):
    if value is None:
        return "–"
    if name == "scan rows a second":
        return f"{value[0] / 1e6:.2f} ({value[1]:.0f} MiB)"
    if isinstance(value, tuple):
        return f"{value[0]:.2f} / {value[1]:.2f}"
    return f"{value:.0f}" if name == "answers a second" else f"{value:.1f}"


def report(figures):
    print("| | " + " | ".join(title for _, title in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for server, found in figures.items():
        cells = [shown(name, found.get(name)) for name, _ in COLUMNS]
        print(f"| {server} | " + " | ".join(cells) + " |")


def main():
    global CLIENT
    options = arguments()
    CLIENT = options.client
    temporary = None if options.folder else tempfile.TemporaryDirectory()
    folder = (options.folder or pathlib.Path(temporary.name)).absolute()
    for name, write, rows in [("points", write_points, options.points), ("scan", write_scan, options.scan)]:
        file = folder / "lake" / name / "part.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or pq.ParquetFile(file).metadata.num_rows != rows:
            write(file, rows)
    attune = Attune(options.attune, folder)
    servers = [attune]
    try:
        servers += [Roapi(folder, False), Roapi(folder, True), Sail(folder), Wire(options.scan)]
        for server in servers:
            server.wait()
        servers.insert(1, AttuneTable(attune))
        figures = {server.name: {} for server in servers}
        for number in range(options.rounds):
            for server in servers:
                print(f"round {number + 1}: {server.name}", file=sys.stderr)
                measure(server, options, figures[server.name])
        report(figures)
    finally:
        for server in servers:
            server.stop()


if __name__ == "__main__":
    main()
