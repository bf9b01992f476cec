"""psycopg 3 and SQLAlchemy against a server: connect, bind, stream, transact, reflect.

By hand: python psycopg_pg.py PORT, with the users root and ada (passwords root-secret, ada-secret)
and TLS.
"""

import datetime
import decimal
import sys

import psycopg
from psycopg import pq
from sqlalchemy import MetaData, create_engine, inspect, select, text

PORT = sys.argv[1]
WHERE = f"host=127.0.0.1 port={PORT} dbname=attune sslmode=require"


def connect(user="root", password=None, **options):
    return psycopg.connect(f"{WHERE} user={user} password={password or user + '-secret'}", **options)


def ok(what):
    print("ok", what, flush=True)


def refused(work, state, what):
    try:
        work()
    except psycopg.Error as error:
        found = error.sqlstate or (error.diag.sqlstate if error.diag else None)
        assert state is None or found == state, (found, str(error))
        ok(what)
        return
    raise AssertionError(what)


refused(lambda: connect(password="wrong"), None, "a wrong password")
with connect(autocommit=True, application_name="a test") as connection:
    assert connection.info.server_version == 160006
    assert connection.info.parameter_status("application_name") == "a test"
    connection.execute(
        "CREATE TABLE main.shop AS SELECT * FROM (VALUES (1, 'pen', 1.5), (2, 'ink', 2.5)) "
        "AS v(id, title, price)"
    )
    ok("connected")

    # Values in both forms, by the types that Python has.
    values = [1, "x", 2.5, True, None, b"\x00\xff", decimal.Decimal("1.25"),
              datetime.date(2026, 1, 31), datetime.datetime(2026, 1, 31, 1, 2, 3, 500000)]
    for binary in (False, True):
        cursor = connection.cursor(binary=binary)
        for value in values:
            row = cursor.execute("SELECT %s", [value]).fetchone()
            found = bytes(row[0]) if isinstance(row[0], memoryview) else row[0]
            assert found == value, (binary, value, found)
    ok("values go and come back")
    cursor = connection.cursor(binary=True)
    row = cursor.execute(
        "SELECT make_array(1, NULL), named_struct('a', 1), INTERVAL '1 day 2 hours', "
        "arrow_cast('2026-01-31T01:02:03', 'Timestamp(Nanosecond, Some(\"UTC\"))'), "
        "arrow_cast('-123456789012345678901234567890.12', 'Decimal128(38, 2)')"
    ).fetchone()
    assert row == (
        [1, None], {"a": 1}, datetime.timedelta(days=1, hours=2),
        datetime.datetime(2026, 1, 31, 1, 2, 3, tzinfo=datetime.timezone.utc),
        decimal.Decimal("-123456789012345678901234567890.12"),
    ), row
    ok("nested types in binary form")
    found = connection.execute("SELECT title FROM shop WHERE id = %s AND price > %s", [2, 2]).fetchall()
    assert found == [("ink",)], found
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO shop VALUES (%s, %s, %s)", [(3, "a", 1), (4, "b", 2)])
        assert cursor.rowcount == 2, cursor.rowcount
    for _ in range(8):  # psycopg prepares what it sees often
        assert connection.execute("SELECT count(*) FROM shop WHERE id > %s", [0]).fetchone() == (4,)
    ok("statements are prepared and changes counted")
    rows = 0
    with connection.cursor() as cursor:
        many = "SELECT * FROM generate_series(1, 200000)"
        for row in cursor.stream(many):
            rows += 1
    assert rows == 200000
    ok("rows are streamed")
    refused(lambda: connection.execute("SELECT * FROM shops"), "42P01", "errors have their state")

with connect() as connection:  # every statement begins a transaction
    assert connection.execute("SELECT 1").fetchone() == (1,)
    assert connection.info.transaction_status == pq.TransactionStatus.INTRANS
    connection.rollback()
    connection.execute("DELETE FROM shop WHERE id > 2")
    refused(connection.rollback, "0A000", "a rollback after a change does not pretend")
    connection.read_only = True
    refused(lambda: connection.execute("DELETE FROM shop"), "25006", "read-only is kept")
    connection.rollback()

engine = create_engine(f"postgresql+psycopg://root:root-secret@127.0.0.1:{PORT}/attune?sslmode=require")
inspector = inspect(engine)
assert "main" in inspector.get_schema_names()
assert "shop" in inspector.get_table_names(schema="main"), inspector.get_table_names()
columns = {column["name"]: str(column["type"]) for column in inspector.get_columns("shop", schema="main")}
assert columns["id"] == "BIGINT" and columns["title"] == "TEXT", columns
assert inspector.get_pk_constraint("shop", schema="main")["constrained_columns"] == []
assert inspector.get_foreign_keys("shop", schema="main") == []
assert inspector.get_indexes("shop", schema="main") == []
ok("SQLAlchemy reflects")
metadata = MetaData()
metadata.reflect(engine, schema="main", only=["shop"])
shop = metadata.tables["main.shop"]
with engine.connect() as connection:
    found = connection.execute(select(shop.c.title).where(shop.c.id == 1)).fetchall()
    assert found == [("pen",)], found
    assert connection.execute(text("SELECT current_user")).scalar() == "root"
ok("SQLAlchemy selects")
